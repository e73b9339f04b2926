//! What a plan is chosen by: how long its parts are expected to take on a machine of given speeds.

use super::explain::work::{self, Cut, Size};
use super::ir::{Call, Instr};
use super::memory;
use super::outer::{Item, Outer, ScanItem};
use super::step::StepProgram;
use crate::cpu::Isa;
use crate::schedule::Costs;

/// Speeds of a machine, by which plans are compared. They decide which of several plans with the same results is
/// run, so rough figures do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Operations a second of one thread in matrix products.
    pub product: f64,
    /// Operations a second of one thread in structured kernels.
    pub structured: f64,
    /// Operations a second of one thread in pointwise chains.
    pub pointwise: f64,
    /// Bytes a second that all threads together move to or from memory beyond the caches.
    pub memory: f64,
    /// Bytes of the cache that a thread has to itself.
    pub cache: usize,
}

impl Rates {
    /// Typical of server processors with the instruction set.
    pub fn typical(isa: Isa) -> Rates {
        let wide = match isa.name() {
            "avx512" => 1.0,
            "avx2" => 0.5,
            "neon" => 0.25,
            _ => 0.1,
        };
        Rates {
            product: 90e9 * wide,
            structured: 100e9 * wide,
            pointwise: 15e9 * wide,
            memory: 30e9,
            cache: 1 << 20,
        }
    }

    /// Seconds of a thread for the operations of a call.
    fn seconds(&self, call: &Call, flops: f64) -> f64 {
        match &call.instr {
            Instr::MatMul { .. } | Instr::RowContract { .. } => flops / self.product,
            Instr::Structured { .. } => flops / self.structured,
            _ => flops / self.pointwise,
        }
    }
}

/// Expected seconds of the parts of a program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// Of a run that records everything, but for what its record costs in memory traffic.
    pub(crate) run: f64,
    /// What depends on the segments, in units of [`TICK`].
    pub(crate) segments: Costs,
}

/// Seconds of a unit of cost.
pub(crate) const TICK: f64 = 1e-12;

/// Part of a thread's cache that a segment's record may take; states, weights and workspaces need the rest.
const SHARE: f64 = 0.6;

/// Expected seconds for `steps` and `rows` on `threads` threads.
pub(crate) fn expected(
    outer: &Outer,
    size: Size,
    threads: usize,
    rates: &Rates,
    (state_bytes, step_bytes): (usize, usize),
) -> Expected {
    let mut run = 0.0;
    let mut advance = 0.0;
    let mut tiles = 1;
    for item in &outer.items {
        match item {
            Item::Call(call) => run += rates.seconds(call, work::outer_call(call, size)),
            Item::Scan(s) => {
                let cut = Cut::new(s, size.rows);
                let lanes = threads.min(cut.tiles).max(1) as f64;
                run += of_step(&s.run, s, size, rates) * size.steps as f64 / lanes;
                if let Some(r) = &s.replay {
                    advance += of_step(&r.advance, s, size, rates) / lanes;
                    tiles = tiles.max(cut.tiles);
                }
            }
        }
    }
    let moved = |bytes: usize| (2.0 * bytes as f64 / rates.memory / TICK) as u64;
    let of_tile = (step_bytes / tiles).max(1);
    let segments = Costs {
        advance: (advance / TICK) as u64,
        spill: moved(step_bytes),
        near: (rates.cache as f64 * SHARE) as usize / of_tile,
        mark: moved(state_bytes),
    };
    Expected { run, segments }
}

/// Seconds of a thread for a step of all rows, on average over the steps.
fn of_step(p: &StepProgram, s: &ScanItem, size: Size, rates: &Rates) -> f64 {
    let cut = Cut::new(s, size.rows);
    let calls = p.stages.iter().flat_map(|stage| stage.calls());
    let sum: f64 = calls.map(|c| rates.seconds(c, work::step_call(c, size, cut))).sum();
    sum / size.steps.max(1) as f64
}

/// Bytes of a tile's record of `steps` steps, of which `cut` takes the longest segment.
pub(crate) fn record_bytes(pair: &memory::PairSlots, steps: usize) -> usize {
    (pair.tile as u128 * steps as u128 / pair.cut.longest().max(1) as u128) as usize
}
