//! What a plan is chosen by: how long its parts are expected to take on a machine of given speeds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::explain::work::{self, Cut, Size};
use super::ir::{Call, Instr};
use super::memory::{self, PairBytes};
use super::outer::{Item, Outer, ScanItem};
use super::step::StepProgram;
use crate::cpu::{Isa, Pool, product_peak};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Class, Op};
use crate::schedule::Costs;

/// Speeds of a machine, by which plans are compared. They decide which of several plans with the same results is
/// run, so rough figures do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Operations a second of one thread in matrix products.
    pub product: f64,
    /// Operations a second of one thread in structured kernels that are as efficient as a product; each says how
    /// efficient it is ([`Structured::efficiency`](crate::kernel::Structured::efficiency)).
    pub structured: f64,
    /// Additions a second of one thread in pointwise chains; [`Instr::effort`](crate::expr::Instr::effort) says how many
    /// another operation counts.
    pub pointwise: f64,
    /// Bytes a second that all threads together move to or from memory beyond the caches.
    pub memory: f64,
    /// Bytes of the cache that a thread has to itself.
    pub cache: usize,
}

/// Environment variable that says how fast this machine is, as [`Rates::with`] reads it.
pub const RATES_VARIABLE: &str = "RETROGRAD_RATES";

const FIELDS: &str = "`product=`, `structured=`, `pointwise=`, `memory=` or `cache=`";

impl Rates {
    /// Typical of server processors with the instruction set.
    pub fn typical(isa: Isa) -> Rates {
        let wide = match isa {
            Isa::Avx512 => 1.0,
            Isa::Avx2 => 0.5,
            Isa::Neon => 0.25,
            Isa::Portable => 0.1,
        };
        Rates {
            product: 150e9 * wide,
            structured: 150e9 * wide,
            pointwise: 32e9 * wide,
            memory: 60e9,
            cache: 1 << 20,
        }
    }

    /// Those of [`RATES_VARIABLE`], or typical ones. Errors: a value that cannot be read.
    pub(crate) fn select(isa: Isa) -> Result<Rates> {
        match std::env::var(RATES_VARIABLE) {
            Ok(text) => Rates::typical(isa).with(&text),
            Err(_) => Ok(Rates::typical(isa)),
        }
    }

    /// These, but for what `text` says: `product=9e10,memory=2e10`, any of the fields by name. Errors: another
    /// name, a number that is not positive.
    pub fn with(mut self, text: &str) -> Result<Rates> {
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let wrong =
                || Error::argument("rates", format!("`{part}`, expected {FIELDS} with a positive number"));
            let (name, value) = part.split_once('=').ok_or_else(wrong)?;
            let value: f64 = value.trim().parse().map_err(|_| wrong())?;
            if !(value > 0.0 && value.is_finite()) {
                return Err(wrong());
            }
            match name.trim() {
                "product" => self.product = value,
                "structured" => self.structured = value,
                "pointwise" => self.pointwise = value,
                "memory" => self.memory = value,
                "cache" => self.cache = value as usize,
                _ => return Err(wrong()),
            }
        }
        Ok(self)
    }

    /// Those of this machine at this moment, measured in about half a second: products by [`product_peak`], memory
    /// by copies; the others in the proportion to products that is typical.
    pub fn measure(isa: Isa, dtype: DType, pool: &Pool) -> Rates {
        let typical = Rates::typical(isa);
        // A product in a program does nearly as well as one that stays in the cache.
        let product = product_peak(isa, dtype, pool) / pool.threads() as f64 * 0.95;
        let scale = product / typical.product;
        Rates {
            product,
            structured: typical.structured * scale,
            pointwise: typical.pointwise * scale,
            // A record is written and read in short runs, by rows, between the arithmetic.
            memory: 0.65 * (0..3).map(|_| copied(pool)).fold(0.0, f64::max),
            ..typical
        }
    }

    /// Seconds of a thread for the operations of a call.
    fn seconds(&self, call: &Call, flops: f64) -> f64 {
        match &call.instr {
            // How often it is carried out is in both numbers.
            Instr::Pointwise { effort, .. } if call.flops > 0.0 => {
                flops / call.flops * effort / self.pointwise
            }
            Instr::MatMul { .. } | Instr::RowContract { .. } => flops / self.product,
            Instr::Structured { op, .. } => flops / (self.structured * efficiency(op.as_ref())),
            _ => flops / self.pointwise,
        }
    }
}

/// How efficient the kernel of a structured operation is.
fn efficiency(op: &dyn Op) -> f64 {
    match op.class() {
        Class::Structured(kernel) => kernel.efficiency(),
        _ => 1.0,
    }
}

impl std::fmt::Display for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Rates { product, structured, pointwise, memory, cache } = self;
        write!(f, "product={product:.3e},structured={structured:.3e},pointwise={pointwise:.3e},")?;
        write!(f, "memory={memory:.3e},cache={cache}")
    }
}

/// Bytes a second read and written by copies of what no cache holds, all threads of `pool` together.
fn copied(pool: &Pool) -> f64 {
    const BYTES: usize = 64 << 20;
    let slowest = AtomicU64::new(1);
    pool.run(pool.threads(), |_| {
        let from = vec![1u64; BYTES / 8];
        let mut to = vec![0u64; BYTES / 8];
        // The first copy finds the pages, the second counts.
        to.copy_from_slice(&from);
        let start = Instant::now();
        to.copy_from_slice(std::hint::black_box(&from));
        std::hint::black_box(&to);
        slowest.fetch_max(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
    });
    (2 * BYTES * pool.threads()) as f64 / (slowest.into_inner() as f64 * 1e-9)
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
    pairs: PairBytes,
) -> Expected {
    let mut run = 0.0;
    let mut advance = 0.0;
    let mut tiles = 1;
    for item in &outer.items {
        match item {
            Item::Call(call) => run += rates.seconds(call, work::outer_call(call, size)),
            Item::Scan(s) => {
                let cut = Cut::new(s, size.rows);
                let shared = memory::shares_calls(size.rows, s);
                let lanes = if shared { threads } else { threads.min(cut.tiles).max(1) } as f64;
                run += of_step(&s.run, s, size, rates) * size.steps as f64 / lanes;
                if let Some(r) = &s.replay {
                    advance += of_step(&r.advance, s, size, rates) / lanes;
                    tiles = tiles.max(cut.tiles);
                }
            }
        }
    }
    let moved = |bytes: usize| (2.0 * bytes as f64 / rates.memory / TICK) as u64;
    let of_tile = (pairs.step / tiles).max(1);
    // Every number of the record is rounded once and widened once.
    run +=
        2.0 * pairs.rounded as f64 * size.steps as f64 / rates.pointwise / threads.min(tiles).max(1) as f64;
    let segments = Costs {
        advance: (advance / TICK) as u64,
        spill: moved(pairs.step),
        near: (rates.cache as f64 * SHARE) as usize / of_tile,
        mark: moved(pairs.mark),
    };
    Expected { run, segments }
}

/// Seconds of a thread for a step of all rows, on average over the steps.
fn of_step(p: &StepProgram, s: &ScanItem, size: Size, rates: &Rates) -> f64 {
    let cut = Cut::new(s, size.rows);
    let calls = p.stages.iter().flat_map(|stage| stage.calls());
    calls.map(|c| rates.seconds(c, work::step_call(c, size, cut))).sum::<f64>() / size.steps.max(1) as f64
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_they_are_written() {
        let typical = Rates::typical(Isa::Portable);
        assert_eq!(typical.with(&typical.to_string()).unwrap(), typical);
        let faster = typical.with(" memory = 5e10, cache=2048 ").unwrap();
        assert_eq!(faster, Rates { memory: 5e10, cache: 2048, ..typical });
        for wrong in ["memory", "speed=1", "memory=-1", "memory=nan", "cache=much"] {
            let error = typical.with(wrong).unwrap_err().to_string();
            assert!(error.contains(&format!("`{wrong}`")), "{error}");
        }
    }

    #[test]
    fn this_machine_has_rates() {
        let pool = Pool::new(Some(2), crate::cpu::Denormals::default()).unwrap();
        let rates = Rates::measure(Isa::detect(), DType::F32, &pool);
        assert!(rates.product > 0.0 && rates.memory > 0.0, "{rates}");
        assert_eq!(rates.cache, Rates::typical(Isa::detect()).cache);
    }
}
