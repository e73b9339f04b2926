//! Looking inside a trained network: numbers and pictures from the folder of a run.
//!
//! | what | files | as in |
//! |---|---|---|
//! | `‖∂L/∂h_t‖` over `t` | `gradients` | Chandar et al. 2019 (NRU), fig. 7; Kag et al. 2020 (iRNN), figs. 8, 9 |
//! | `‖∂h_T/∂h_t‖` over `t`, and `‖∂h_T/∂h_{T−1}‖ / ‖∂h_T/∂h_1‖` | `jacobians` | iRNN, fig. 3 |
//! | spectrum, condition and distance from unitarity of recurrent matrices over checkpoints | `operators`, `eigenvalues` | Jose et al. 2018 (KRU), fig. 6 |
//! | eigenvalues of the Jacobian at the equilibrium, distance from it over inner steps | `equilibrium`, `convergence` | iRNN, figs. 6, 7 |
//! | content of memories over time | `memory` | NRU, fig. 6 |
//! | Lyapunov exponents | `lyapunov` | Benettin et al. 1980 |
//!
//! Every measure is a file of this module with `measure(&Subject, ..) -> Result<Measured>`. What does not apply to a
//! network is no error: it is [`Measured::left_out`], with the reason.

mod equilibrium;
mod gradients;
mod jacobians;
mod lyapunov;
mod memory;
mod operators;
mod pictures;
mod subject;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::run::{Chart, Error, Result, write_atomic};
use subject::Subject;

/// Folder inside that of the run which the files go to.
pub const FOLDER: &str = "diagnose";
/// All numbers of one look, JSON.
pub const NUMBERS: &str = "diagnose.json";

/// What to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Checkpoint of the measures that take one: a file in the folder of the run.
    pub checkpoint: String,
    /// Where the data files are, if not where the run says.
    pub data: Option<PathBuf>,
    /// Rows of the batch, of the test split.
    pub rows: usize,
    /// Most steps of it.
    pub steps: usize,
    /// Random directions that norms of Jacobians are estimated by; a state of no more numbers is measured exactly.
    pub samples: usize,
    /// Largest Lyapunov exponents.
    pub exponents: usize,
}

impl Default for Options {
    fn default() -> Options {
        let checkpoint = crate::run::BEST.to_string();
        Options { checkpoint, data: None, rows: 8, steps: 1000, samples: 64, exponents: 6 }
    }
}

/// A table that becomes a CSV file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Rows; what is not finite is written as it is.
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    fn new<const N: usize>(columns: [&str; N]) -> Table {
        Table { columns: columns.map(String::from).to_vec(), rows: Vec::new() }
    }

    fn push<const N: usize>(&mut self, row: [Value; N]) {
        self.rows.push(row.to_vec());
    }

    /// The text of the file. Texts with commas, quotes or line ends are quoted.
    pub fn to_csv(&self) -> String {
        let cell = |value: &Value| match value {
            Value::String(text) if text.contains([',', '"', '\n']) => {
                format!("\"{}\"", text.replace('"', "\"\""))
            }
            Value::String(text) => text.clone(),
            Value::Null => "nan".into(),
            other => other.to_string(),
        };
        let mut out = self.columns.join(",") + "\n";
        for row in &self.rows {
            // Writing to a string cannot fail.
            writeln!(out, "{}", row.iter().map(cell).collect::<Vec<_>>().join(",")).ok();
        }
        out
    }
}

/// What a measure found.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Numbers worth a line, for the JSON file.
    pub numbers: Map<String, Value>,
    /// The same in words.
    pub lines: Vec<String>,
    /// CSV files by name.
    pub tables: Vec<(&'static str, Table)>,
    /// SVG files by name.
    pub pictures: Vec<(&'static str, String)>,
    /// Why there is nothing, if there is nothing.
    pub left_out: Option<String>,
}

impl Measured {
    fn nothing(why: impl Into<String>) -> Measured {
        Measured { left_out: Some(why.into()), ..Measured::default() }
    }

    fn number(&mut self, key: &str, value: impl Into<Value>) {
        self.numbers.insert(key.into(), value.into());
    }

    fn chart(&mut self, name: &'static str, chart: &Chart) {
        self.pictures.push((name, chart.to_svg()));
    }
}

/// All that was found, and where it is.
#[derive(Clone, Debug)]
pub struct Findings {
    /// Each measure by name.
    pub measures: Vec<(&'static str, Measured)>,
    /// Files written.
    pub files: Vec<PathBuf>,
}

type Measure = fn(&Subject, &Options) -> Result<Measured>;

/// Every measure, in order.
const MEASURES: &[(&str, Measure)] = &[
    ("gradients", gradients::measure),
    ("jacobians", jacobians::measure),
    ("operators", operators::measure),
    ("equilibrium", equilibrium::measure),
    ("memory", memory::measure),
    ("lyapunov", lyapunov::measure),
];

/// Looks inside the network of the run in `folder` and writes what it finds to [`FOLDER`] there, file by file.
///
/// Errors: no run there; a checkpoint that is missing, damaged or of another network; data that is missing; a file
/// that cannot be written.
pub fn diagnose(folder: &Path, options: &Options) -> Result<Findings> {
    let subject = Subject::open(folder, options)?;
    let to = folder.join(FOLDER);
    std::fs::create_dir_all(&to).map_err(Error::io(&to))?;
    let mut findings = Findings { measures: Vec::new(), files: Vec::new() };
    let mut all = Map::new();
    all.insert("checkpoint".into(), options.checkpoint.clone().into());
    all.insert("rows".into(), subject.rows().into());
    all.insert("steps".into(), subject.steps().into());
    for (name, measure) in MEASURES {
        let found = measure(&subject, options)?;
        let mut write = |file: String, text: &str| -> Result<()> {
            let path = to.join(file);
            write_atomic(&path, text.as_bytes())?;
            findings.files.push(path);
            Ok(())
        };
        for (file, table) in &found.tables {
            write(format!("{file}.csv"), &table.to_csv())?;
        }
        for (file, picture) in &found.pictures {
            write(format!("{file}.svg"), picture)?;
        }
        let value = match &found.left_out {
            Some(why) => json!({ "left_out": why }),
            None => Value::Object(found.numbers.clone()),
        };
        all.insert((*name).into(), value);
        findings.measures.push((name, found));
    }
    let path = to.join(NUMBERS);
    write_atomic(&path, format!("{:#}\n", Value::Object(all)).as_bytes())?;
    findings.files.push(path);
    Ok(findings)
}

/// A number as JSON; what is not finite is `null`.
fn number(x: f64) -> Value {
    serde_json::Number::from_f64(x).map_or(Value::Null, Value::Number)
}
