//! What became of the runs of the comparison of cells: a table and a picture for each task.

use std::path::Path;

use serde_json::Value;

use super::cells::{CONTESTANTS, Contestant, FAMILIES, Family, MemoryTask, Trial};
use super::size::Sized;
use crate::run::{Chart, METRICS, Result, Series, panels, read_metrics};
use crate::train::{Ended, RESULT};

/// How a contestant fared, from the folder of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Name of the contestant.
    pub name: String,
    /// Size.
    pub sized: Sized,
    /// How it was trained, in words.
    pub training: String,
    /// Updates until the goal was reached; `None` if it was not.
    pub converged: Option<u64>,
    /// Updates made.
    pub updates: u64,
    /// Best metric on validation.
    pub best: Option<f64>,
    /// Why it stopped before its end, in words.
    pub stopped: Option<String>,
    /// Validation metric over updates.
    pub curve: Vec<(f64, f64)>,
}

/// Reads how a run fared. `stopped` says why it stopped before its end. Errors: a folder that cannot be read.
pub fn outcome(
    folder: &Path,
    contestant: &Contestant,
    trial: &Trial,
    sized: Sized,
    stopped: Option<String>,
) -> Result<Outcome> {
    let records = match folder.join(METRICS).exists() {
        true => read_metrics(folder.join(METRICS))?,
        false => Vec::new(),
    };
    let valid = records.iter().filter(|r| r.get("kind").and_then(Value::as_str) == Some("valid"));
    let point =
        |r: &serde_json::Map<String, Value>| Some((r.get("step")?.as_f64()?, r.get("metric")?.as_f64()?));
    let curve: Vec<(f64, f64)> = valid.filter_map(point).collect();
    let result = std::fs::read(folder.join(RESULT)).ok();
    let result: Option<Value> = result.and_then(|text| serde_json::from_slice(&text).ok());
    let updates = records.iter().filter_map(|r| r.get("step")?.as_u64()).max().unwrap_or(0);
    let ended = result.as_ref().and_then(|r| r.get("ended")?.as_str().map(String::from));
    let best = curve.iter().map(|(_, y)| *y).fold(f64::NAN, f64::min);
    Ok(Outcome {
        name: contestant.name.into(),
        sized,
        training: trial.describe(),
        converged: ended.filter(|e| e == Ended::Goal.describe()).map(|_| updates),
        updates,
        best: best.is_finite().then_some(best),
        stopped,
        curve,
    })
}

/// What outcomes are ordered by: the quickest first, those that did not get there by their best loss.
fn by_quickness(a: &Outcome, b: &Outcome) -> std::cmp::Ordering {
    let key = |o: &Outcome| (o.converged.unwrap_or(u64::MAX), o.best.unwrap_or(f64::INFINITY));
    let (a, b) = (key(a), key(b));
    a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
}

/// Of several runs of a contestant the one that counts: the quickest.
pub fn quickest(outcomes: Vec<Outcome>) -> Option<Outcome> {
    outcomes.into_iter().min_by(by_quickness)
}

/// The table of a task in Markdown, the quickest first; those that did not get there by their best loss.
pub fn table(task: &MemoryTask, outcomes: &[Outcome], baseline: Option<f64>) -> String {
    let mut sorted: Vec<&Outcome> = outcomes.iter().collect();
    sorted.sort_by(|a, b| by_quickness(a, b));
    let mut text = format!("## {}, T = {}\n\n", task.name, task.steps);
    text += "| network | units | parameters | updates to a tenth of the baseline | best validation loss | trained by |\n";
    text += "|---|---|---|---|---|---|\n";
    for o in sorted {
        let updates = match (o.converged, &o.stopped) {
            (Some(updates), _) => updates.to_string(),
            (None, Some(why)) => format!("{why} (after {})", o.updates),
            (None, None) => format!("not within {}", o.updates),
        };
        let best = o.best.map_or("-".into(), |b| format!("{b:.4e}"));
        let Sized { hidden, parameters } = o.sized;
        text += &format!("| {} | {hidden} | {parameters} | {updates} | {best} | {} |\n", o.name, o.training);
    }
    text += &format!("\n{}. ", task.set.join(" "));
    if let Some(baseline) = baseline {
        text += &format!("A prediction that remembers nothing has {baseline:.4}. ");
    }
    text + &format!("Reported: {}.\n", task.reported)
}

/// Losses above this many times the baseline are not drawn: some networks begin far above.
const DRAWN: f64 = 30.0;

/// The curves of a task, a panel for each family.
pub fn picture(task: &MemoryTask, outcomes: &[Outcome], baseline: Option<f64>) -> String {
    let ceiling = baseline.map_or(f64::INFINITY, |b| DRAWN * b);
    let series = |o: &Outcome| {
        let points = o.curve.iter().map(|&(x, y)| (x, if y > ceiling { f64::NAN } else { y })).collect();
        Series { name: o.name.clone(), points }
    };
    let of_family = |(family, what): &(Family, &str)| {
        let belongs = |o: &&Outcome| CONTESTANTS.iter().any(|c| c.name == o.name && c.family == *family);
        Chart {
            title: format!("{}, T = {}: {what}", task.name, task.steps),
            x_label: "update".into(),
            y_label: "validation loss".into(),
            log_x: false,
            log_y: true,
            series: outcomes.iter().filter(belongs).map(series).collect(),
            baseline: baseline.map(|b| ("baseline".into(), b)),
        }
    };
    let charts: Vec<Chart> = FAMILIES.iter().map(of_family).filter(|c| !c.series.is_empty()).collect();
    panels(&charts, 2)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::reproduce::MEMORY_TASKS;

    #[test]
    fn tables_begin_with_the_quickest() {
        let outcome = |name: &str, converged, best| Outcome {
            name: name.into(),
            sized: Sized { hidden: 3, parameters: 7 },
            training: "adam lr=1 (ours)".into(),
            converged,
            updates: 900,
            best: Some(best),
            stopped: None,
            curve: vec![(100.0, best)],
        };
        let outcomes =
            [outcome("RNN", None, 0.1), outcome("GRU", Some(500), 0.01), outcome("KRU", None, 0.05)];
        assert_eq!(quickest(outcomes.to_vec()).unwrap().name, "GRU");
        assert_eq!(quickest(vec![outcome("a", None, 0.2), outcome("b", None, 0.1)]).unwrap().name, "b");
        let text = table(&MEMORY_TASKS[2], &outcomes, Some(0.2));
        let order: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("| ")?.split(' ').next()).collect();
        assert_eq!(order, ["network", "GRU", "KRU", "RNN"]);
        assert!(text.contains("not within 900") && text.contains("nothing has 0.2000"), "{text}");
        let picture = picture(&MEMORY_TASKS[2], &outcomes, Some(0.2));
        assert_eq!(picture.matches("<polyline").count() + picture.matches("<circle").count(), 3, "{picture}");
        assert_eq!(picture.matches("<svg").count(), 1 + 3, "a panel for each family that takes part");
    }
}
