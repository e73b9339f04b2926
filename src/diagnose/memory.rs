//! What memories hold over time.

use super::pictures::heat;
use super::subject::Subject;
use super::{Measured, Options, Table, number};
use crate::run::Result;

/// Every part of the state but what the cell shows (the first of a cell with several parts) over time, for the first row
/// of the batch.
pub(super) fn measure(subject: &Subject, _: &Options) -> Result<Measured> {
    let recorded = subject.record()?;
    // The part that the layer above reads comes first.
    let shown = |layer: usize| recorded.probes.iter().position(|p| p.layer == layer);
    let memories: Vec<_> = recorded
        .probes
        .iter()
        .enumerate()
        .filter(|(i, p)| shown(p.layer) != Some(*i))
        .map(|(_, p)| p)
        .collect();
    if memories.is_empty() {
        return Ok(Measured::nothing("the cell has no memory beside the state it shows"));
    }
    let histories: Vec<_> = memories.iter().map(|p| p.history).collect();
    let inputs = subject.inputs(&recorded)?;
    let found = subject.program(&recorded, &histories)?.run(&[&subject.params, &inputs])?;
    let (steps, rows) = (subject.steps(), subject.rows());
    let mut measured = Measured::default();
    let mut table = Table::new(["layer", "part", "t", "place", "value"]);
    for (k, (probe, history)) in memories.iter().zip(&found).enumerate() {
        let width = history.len() / (steps * rows);
        // Of a complex memory its modulus.
        let value = |t: usize, c: usize| {
            let z = history.get(t * rows * width + c);
            if history.dtype().is_complex() { z.norm() } else { z.re }
        };
        for t in 0..steps {
            for c in 0..width {
                let part = probe.part;
                table.push([probe.layer.into(), part.into(), (t + 1).into(), c.into(), number(value(t, c))]);
            }
        }
        let all = (0..steps).flat_map(|t| (0..width).map(move |c| value(t, c)));
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        all.for_each(|x| (low, high) = (low.min(x), high.max(x)));
        let name = format!("layer {}, part {}", probe.layer, probe.part);
        measured.number(&format!("layer{}.{}", probe.layer, probe.part), serde_json::json!([low, high]));
        measured.lines.push(format!("{name}: from {low:.4} to {high:.4} over {steps} steps"));
        if k == 0 {
            let title = format!("memory over time, {} ({name})", subject.config.network());
            measured.pictures.push(("memory", heat(&title, steps, width, &value)));
        }
    }
    measured.tables.push(("memory", table));
    Ok(measured)
}
