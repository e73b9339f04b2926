//! Names of buffers, for people.

use std::collections::HashMap;

use crate::plan::ir::{BufId, BufKind, Instr, Operand};
use crate::plan::outer::{Item, Outer, Pair, Role, ScanItem};
use crate::plan::step::{External, StepProgram};

/// The name of a part of a state: parts of tuples have numbers, a lone value has nothing.
fn part(label: &str, number: usize) -> String {
    let (base, bar) = match label.strip_suffix("_bar") {
        Some(base) => (base, "_bar"),
        None => (label, ""),
    };
    match base {
        "" if number == 0 => format!("state{bar}"),
        "" => format!("state.{number}{bar}"),
        base if base.starts_with(|c: char| c.is_ascii_digit()) => format!("state.{base}{bar}"),
        base => format!("{base}{bar}"),
    }
}

/// Second and later uses of a name get a number: `tanh`, `tanh.2`.
fn distinct(names: impl Iterator<Item = String>, used: &dyn Fn(usize) -> bool) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    names
        .enumerate()
        .map(|(i, name)| {
            if !used(i) {
                return name;
            }
            let uses = seen.entry(name.clone()).or_insert(0);
            *uses += 1;
            if *uses == 1 { name } else { format!("{name}.{uses}") }
        })
        .collect()
}

/// Names of the values a pair keeps.
pub(super) fn kept(pair: &Pair) -> Vec<String> {
    let named = |n: &String| if n.is_empty() { "value".to_string() } else { n.clone() };
    distinct(pair.keep_names.iter().map(named), &|_| true)
}

/// The forward scan of a pair.
pub(super) fn forward(outer: &Outer, p: usize) -> Option<&ScanItem> {
    outer.items.iter().find_map(|item| match item {
        Item::Scan(s) if s.role == Role::Forward(p) => Some(s.as_ref()),
        _ => None,
    })
}

/// Name of a state of a pair.
pub(super) fn state(outer: &Outer, p: usize, number: usize) -> String {
    let label = forward(outer, p).and_then(|s| Some(s.run.bufs[*s.run.states.get(&number)?].label.as_str()));
    part(label.unwrap_or(""), number)
}

/// Names of the outer program's buffers.
pub(crate) fn of_outer(outer: &Outer) -> Vec<String> {
    let label = |b: BufId| match outer.bufs[b].label.as_str() {
        "" => "value".to_string(),
        label => label.to_string(),
    };
    let mut names: Vec<String> = (0..outer.bufs.len()).map(label).collect();
    for item in &outer.items {
        if let Item::Call(call) = item
            && let Instr::Pack { b, out, transpose, .. } = &call.instr
        {
            names[out.buf] = format!("packed {}", transposed(&label(b.buf), *transpose));
        }
    }
    distinct(names.into_iter(), &|_| true)
}

fn transposed(name: &str, transpose: bool) -> String {
    format!("{name}{}", if transpose { "ᵀ" } else { "" })
}

/// Names of a step's buffers.
pub(crate) fn of_step(outer: &Outer, s: &ScanItem, p: &StepProgram) -> Vec<String> {
    let pair = match s.role {
        Role::Plain => None,
        Role::Forward(p) | Role::Adjoint(p) => Some(p),
    };
    let input = |k: usize| match s.inputs.get(&k).map(|o| outer.bufs[o.buf].label.as_str()) {
        None | Some("") => "value".to_string(),
        Some(label) => label.to_string(),
    };
    let calls = || p.stages.iter().flat_map(|s| s.calls());
    let mut used = vec![false; p.bufs.len()];
    for call in calls() {
        call.instr.reads().iter().chain(&call.instr.writes()).for_each(|o| used[o.buf] = true);
    }
    let sums = p.sums.len();
    let names = p.bufs.iter().map(|buf| match buf.kind {
        BufKind::State(k) => part(&buf.label, k),
        BufKind::KeptState(k) => match pair {
            Some(p) => state(outer, p, k),
            None => part(&buf.label, k),
        },
        BufKind::Kept(k) => match pair.map(|p| kept(&outer.pairs[p])) {
            Some(names) if k < names.len() => names[k].clone(),
            _ => buf.label.clone(),
        },
        BufKind::External(e) => match &p.externals[e] {
            External::Input(k) if buf.label.is_empty() || is_number(&buf.label) => input(*k),
            External::Input(_) => buf.label.clone(),
            External::Packed { input: k, transpose, .. } => transposed(&input(*k), *transpose),
            External::Out(_) => "output".into(),
        },
        BufKind::Sum(k) if sums > 1 => format!("sum {}", k + 1),
        BufKind::Sum(_) => "sum".into(),
        BufKind::SharedStack(_) => "output".into(),
        _ if buf.label.is_empty() => "value".into(),
        _ => buf.label.clone(),
    });
    distinct(names, &|b| used[b])
}

fn is_number(label: &str) -> bool {
    label.starts_with(|c: char| c.is_ascii_digit())
}

/// Operands as `name[width]`, neighbors of one buffer joined; parts of a buffer as `name[from..to]`.
pub(super) fn operands(list: &[&Operand], names: &[String], widths: &dyn Fn(BufId) -> usize) -> Vec<String> {
    let mut spans: Vec<(BufId, usize, usize)> = Vec::new();
    for o in list {
        let (from, to) = (o.col, o.col + o.width());
        match spans.iter_mut().find(|s| s.0 == o.buf && from <= s.2 && s.1 <= to) {
            Some(s) => *s = (o.buf, s.1.min(from), s.2.max(to)),
            None => spans.push((o.buf, from, to)),
        }
    }
    spans
        .into_iter()
        .map(|(buf, from, to)| {
            let name = &names[buf];
            if to - from == widths(buf) { format!("{name}[{to}]") } else { format!("{name}[{from}..{to}]") }
        })
        .collect()
}

/// Names of operands, each once.
pub(super) fn plain(list: &[&Operand], names: &[String]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for o in list {
        if !out.contains(&names[o.buf]) {
            out.push(names[o.buf].clone());
        }
    }
    out
}

/// A list with repeats counted: `sigmoid ×3, tanh`.
pub(super) fn counted(list: &[String]) -> Vec<String> {
    let mut counts: Vec<(&String, usize)> = Vec::new();
    for name in list {
        match counts.iter_mut().find(|c| c.0 == name) {
            Some(c) => c.1 += 1,
            None => counts.push((name, 1)),
        }
    }
    let text = |(name, n): (&String, usize)| if n == 1 { name.clone() } else { format!("{name} ×{n}") };
    counts.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_states() {
        let table = [("", 0, "state"), ("", 1, "state.1"), ("0", 0, "state.0"), ("1_bar", 1, "state.1_bar")];
        for (label, number, expected) in table {
            assert_eq!(part(label, number), expected);
        }
        assert_eq!(part("h", 0), "h");
        assert_eq!(part("_bar", 0), "state_bar");
        assert_eq!(part("0.1", 1), "state.0.1");
    }

    #[test]
    fn repeats() {
        let list: Vec<String> = ["a", "b", "a", "a"].map(String::from).into();
        assert_eq!(distinct(list.iter().cloned(), &|_| true), ["a", "b", "a.2", "a.3"]);
        assert_eq!(counted(&list), ["a ×3", "b"]);
    }
}
