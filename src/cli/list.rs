//! `retrograd list`: everything that has a name.

use retrograd::Error;
use retrograd::train::{KEYS, PUBLISHED, TASK_DEFAULTS};
use retrograd::{cells, datasets, ops, optim};
use serde_json::{Map, Value, json};

use super::{Output, Report, Result};

const EXAMPLES: &str = "\
Examples:
  retrograd list
  retrograd list cells
  retrograd list kru          settings of the cell kru, for --set
  retrograd list tasks --json";

/// Arguments of `retrograd list`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A kind (cells, networks, operators, optimizers, schedules, penalties, constraints, tasks, ops, keys, published), or the
    /// name of one thing to list its settings
    what: Option<String>,
}

struct Row {
    name: String,
    summary: String,
    /// Key, default, meaning.
    settings: Vec<[&'static str; 3]>,
}

impl Row {
    fn new(name: impl Into<String>, summary: impl Into<String>) -> Row {
        Row { name: name.into(), summary: summary.into(), settings: Vec::new() }
    }

    fn with(mut self, settings: impl Iterator<Item = [&'static str; 3]>) -> Row {
        self.settings = settings.collect();
        self
    }

    fn json(&self) -> Value {
        let settings = self
            .settings
            .iter()
            .map(|[key, default, doc]| json!({"key": key, "default": default, "doc": doc}));
        json!({ "name": self.name, "summary": self.summary, "settings": settings.collect::<Vec<_>>() })
    }
}

struct Kind {
    name: &'static str,
    /// What one of them is called.
    one: &'static str,
    rows: Vec<Row>,
}

fn optim_rows<T: ?Sized>(entries: &'static [optim::Entry<T>]) -> Vec<Row> {
    let settings = |o: &'static [optim::OptionSpec]| o.iter().map(|o| [o.key, o.default, o.summary]);
    entries.iter().map(|e| Row::new(e.name, e.summary).with(settings(e.options))).collect()
}

fn kinds() -> Vec<Kind> {
    let cell_settings = |o: &'static [cells::OptionDoc]| o.iter().map(|o| [o.key, o.default, o.doc]);
    let kind = |name, one, rows| Kind { name, one, rows };
    let published = PUBLISHED.iter().map(|p| {
        let name = format!("{} on {}, {} units", p.cell, p.operator, p.hidden);
        Row::new(name, format!("{}: {}", p.tasks.join(", "), p.reported))
    });
    vec![
        kind(
            "cells",
            "cell",
            cells::CELLS.iter().map(|e| Row::new(e.name, e.summary).with(cell_settings(e.options))).collect(),
        ),
        kind("networks", "published network", cells::NETWORKS.iter().map(network).collect()),
        kind(
            "operators",
            "operator",
            cells::OPERATORS
                .iter()
                .map(|e| Row::new(e.name, e.summary).with(cell_settings(e.options)))
                .collect(),
        ),
        kind(
            "tasks",
            "task",
            datasets::TASKS
                .iter()
                .map(|e| {
                    Row::new(e.name, e.summary).with(e.options.iter().map(|o| [o.key, o.default, o.doc]))
                })
                .collect(),
        ),
        kind("optimizers", "optimizer", optim_rows(optim::OPTIMIZERS)),
        kind("multiplicative", "optimizer of unitary matrices", optim_rows(optim::MULTIPLICATIVE)),
        kind("schedules", "schedule", optim_rows(optim::SCHEDULES)),
        kind("penalties", "penalty", optim_rows(optim::PENALTIES)),
        kind("constraints", "constraint", optim_rows(optim::CONSTRAINTS)),
        kind(
            "gradients",
            "gradient rules",
            vec![
                Row::new("gradients", "clipping, and what to do about NaN")
                    .with(optim::GRADIENT_OPTIONS.iter().map(|o| [o.key, o.default, o.summary])),
            ],
        ),
        kind("ops", "operation", ops::OPS.iter().map(|o| Row::new(o.name, o.summary)).collect()),
        kind("keys", "key", KEYS.iter().map(|k| Row::new(k.key, k.doc)).collect()),
        kind("published", "published result", published.collect()),
    ]
}

/// A published network, with what it is in the words of the command line.
fn network(n: &cells::Network) -> Row {
    let set = n.cell_set.iter().chain(n.operator_set).map(|(key, value)| format!(" {key}={value}"));
    let words = format!("{} on {}{}", n.cell, n.operator, set.collect::<String>());
    Row::new(n.name, format!("{} = {words}", n.summary))
}

/// Runs the command.
pub(crate) fn run(args: &Args, out: &Output) -> Result<Report> {
    let kinds = kinds();
    let Some(what) = &args.what else {
        // Operations are many, and nobody types their names here.
        for kind in kinds.iter().filter(|k| !matches!(k.name, "ops" | "published")) {
            print(kind, out);
            out.line("");
        }
        out.line("More: retrograd list ops, retrograd list published, retrograd list NAME for the settings of one.");
        let all: Map<String, Value> = kinds.iter().map(|k| (k.name.to_string(), rows(k))).collect();
        return Ok(Report::new(Value::Object(all)));
    };
    if let Some(kind) = kinds.iter().find(|k| k.name == what || k.one == what) {
        print(kind, out);
        let list = Map::from_iter([(kind.name.to_string(), rows(kind))]);
        return Ok(Report::new(Value::Object(list)));
    }
    let found: Vec<(&Kind, &Row)> = kinds
        .iter()
        .flat_map(|k| k.rows.iter().map(move |r| (k, r)))
        .filter(|(_, r)| r.name == *what)
        .collect();
    if found.is_empty() {
        let known =
            kinds.iter().flat_map(|k| std::iter::once(k.name).chain(k.rows.iter().map(|r| r.name.as_str())));
        return Err(unknown(what, known));
    }
    for (kind, row) in &found {
        out.line(format!("{} ({}): {}", row.name, kind.one, row.summary));
        let lines = row.settings.iter().map(|[key, default, doc]| (format!("{key}={default}"), *doc));
        table(lines.collect(), out);
        if let Some(defaults) = TASK_DEFAULTS.iter().find(|d| kind.name == "tasks" && d.task == row.name) {
            out.line(format!("  begins with {}", defaults.set.join(" ")));
            out.line(format!("  from {}", defaults.source));
        }
    }
    let list: Vec<Value> = found
        .iter()
        .map(|(kind, row)| {
            let mut json = row.json();
            json["kind"] = kind.one.into();
            json
        })
        .collect();
    Ok(Report::new(json!({ "found": list })))
}

fn rows(kind: &Kind) -> Value {
    kind.rows.iter().map(Row::json).collect()
}

fn print(kind: &Kind, out: &Output) {
    out.line(kind.name);
    table(kind.rows.iter().map(|r| (r.name.clone(), r.summary.as_str())).collect(), out);
}

/// Two columns, the first as wide as its widest entry.
fn table(lines: Vec<(String, &str)>, out: &Output) {
    let width = lines.iter().map(|(left, _)| left.chars().count()).max().unwrap_or(0);
    for (left, right) in lines {
        out.line(format!("  {left:width$}  {right}"));
    }
}

fn unknown<'a>(what: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let near = known.map(|k| (k, strsim::jaro_winkler(&what.to_lowercase(), k)));
    let near = near.filter(|(_, likeness)| *likeness > 0.7).max_by(|a, b| a.1.total_cmp(&b.1));
    let hint = near.map_or("; `retrograd list` lists all".into(), |(k, _)| format!(", did you mean `{k}`?"));
    Error::config("list", format!("unknown name `{what}`{hint}"))
}
