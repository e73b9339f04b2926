//! What a plan computes, in floating-point operations.

use crate::plan::ir::Call;
use crate::plan::memory::{chunk_steps, tiles};
use crate::plan::outer::{Item, Outer, ScanItem};
use crate::plan::step::StepProgram;

/// Numbers of steps and rows of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) steps: usize,
    pub(crate) rows: usize,
}

/// How a scan is cut: tiles of rows, steps of a chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) tiles: usize,
    pub(crate) tile_rows: usize,
    pub(crate) chunk: usize,
}

impl Cut {
    pub(crate) fn new(s: &ScanItem, rows: usize) -> Cut {
        let tiles = tiles(rows, s);
        let tile_rows = rows.div_ceil(tiles);
        Cut { tiles, tile_rows, chunk: chunk_steps(tile_rows, s.value_bytes, s.matrix_bytes) }
    }
}

/// Operations of a call of the outer program, in the whole run.
pub(crate) fn outer_call(call: &Call, size: Size) -> f64 {
    let steps = if call.over.steps { size.steps as f64 } else { 1.0 };
    call.flops * steps * if call.over.rows { size.rows as f64 } else { 1.0 }
}

/// Operations of a call of a step, in one pass over all steps and rows. What the rows share is done once for each
/// tile, what does not change within a chunk once for each chunk.
pub(crate) fn step_call(call: &Call, size: Size, cut: Cut) -> f64 {
    let steps = if call.over.steps { size.steps } else { size.steps.div_ceil(cut.chunk) };
    call.flops * steps as f64 * if call.over.rows { size.rows as f64 } else { cut.tiles as f64 }
}

/// Operations of a step for all rows, on average over the steps.
pub(crate) fn per_step(p: &StepProgram, size: Size, cut: Cut) -> f64 {
    let sum: f64 = p.stages.iter().flat_map(|s| s.calls()).map(|c| step_call(c, size, cut)).sum();
    sum / size.steps.max(1) as f64
}

/// Operations of the forward steps that a scan replays.
pub(crate) fn replay(s: &ScanItem, size: Size, extra_steps: u64) -> f64 {
    match &s.replay {
        Some(r) => per_step(&r.advance, size, Cut::new(s, size.rows)) * extra_steps as f64,
        None => 0.0,
    }
}

/// Operations of a run.
pub(crate) fn of_run(outer: &Outer, size: Size, extra_steps: u64) -> f64 {
    let of = |item: &Item| match item {
        Item::Call(call) => outer_call(call, size),
        Item::Scan(s) => {
            let own = per_step(&s.run, size, Cut::new(s, size.rows)) * size.steps as f64;
            own + replay(s, size, extra_steps)
        }
    };
    outer.items.iter().map(of).sum()
}
