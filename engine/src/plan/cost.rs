//! What a plan is chosen by: how long its parts are expected to take on a machine of given speeds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::explain::work::{self, Cut, Size};
use super::ir::{Call, Instr};
use super::memory::{self, PairBytes};
use super::outer::{Item, Outer, ScanItem};
use super::step::StepProgram;
use crate::cpu::{Caches, Isa, Pool, product_peak};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Class, Op};
use crate::schedule::{Costs, Traffic};

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
    /// Bytes a second by which a record in memory beyond the caches holds a run up, all threads together: each byte
    /// is written once and read once. What of it arithmetic hides does not count.
    pub memory: f64,
    /// The same of a record in the cache that threads share.
    pub near: f64,
    /// Bytes of the cache that a thread has to itself.
    pub cache: usize,
    /// Bytes of a record that the cache which threads share holds.
    pub shared: usize,
}

/// Environment variable that says how fast this machine is, as [`Rates::with`] reads it.
pub const RATES_VARIABLE: &str = "RETROGRAD_RATES";

const FIELDS: &str = "`product=`, `structured=`, `pointwise=`, `memory=`, `near=`, `cache=` or `shared=`";

impl Rates {
    /// Typical of two cores of a server processor with the instruction set, with the caches that the system tells of.
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
            memory: 40e9,
            near: 120e9,
            cache: 1 << 20,
            shared: 32 << 20,
        }
        .within(Caches::detect())
    }

    /// These, with caches of a processor.
    fn within(self, caches: Caches) -> Rates {
        /// What a core gets at most of a cache that it shares with all others of the processor: on a machine that is a
        /// part of another, most of them are not seen.
        const OF_CORE: usize = 16 << 20;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Rates {
            cache: caches.second.unwrap_or(self.cache),
            shared: caches.third.map_or(self.shared, |all| all.min(cores.saturating_mul(OF_CORE))),
            ..self
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
                "near" => self.near = value,
                "cache" => self.cache = value as usize,
                "shared" => self.shared = value as usize,
                _ => return Err(wrong()),
            }
        }
        Ok(self)
    }

    /// Those of this machine at this moment, measured in about a second: products by [`product_peak`], memory and the
    /// shared cache by records of growing size; the others in the proportion to products that is typical.
    pub fn measure(isa: Isa, dtype: DType, pool: &Pool) -> Rates {
        let typical = Rates::typical(isa);
        // A product in a program does nearly as well as one that stays in the cache.
        let product = product_peak(isa, dtype, pool) / pool.threads() as f64 * 0.95;
        let scale = product / typical.product;
        let (near, shared, memory) = records(&RECORDS.map(|bytes| (bytes, recorded(pool, bytes))));
        Rates {
            product,
            structured: typical.structured * scale,
            pointwise: typical.pointwise * scale,
            memory,
            near,
            shared,
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
        let Rates { product, structured, pointwise, memory, near, cache, shared } = self;
        write!(f, "product={product:.3e},structured={structured:.3e},pointwise={pointwise:.3e},")?;
        write!(f, "memory={memory:.3e},near={near:.3e},cache={cache},shared={shared}")
    }
}

/// Sizes of the records that memory is measured by, in bytes: from what every shared cache holds to what few do.
const RECORDS: [usize; 6] = [8 << 20, 16 << 20, 32 << 20, 64 << 20, 128 << 20, 256 << 20];

/// Seconds for a record of so many bytes, all threads of `pool` together: written, then read from its end, as an adjoint
/// does. The fastest of a few.
fn recorded(pool: &Pool, bytes: usize) -> f64 {
    const ROUNDS: usize = 4;
    /// Numbers of a step's record.
    const STEP: usize = 2048;
    let slowest: [AtomicU64; ROUNDS] = std::array::from_fn(|_| AtomicU64::new(1));
    pool.run(pool.threads(), |_| {
        let mut record = vec![0u64; (bytes / 8 / pool.threads()).max(1)];
        for (round, slowest) in slowest.iter().enumerate() {
            let start = Instant::now();
            record.chunks_mut(STEP).for_each(|step| step.fill(round as u64));
            let sum = |step: &[u64]| step.iter().fold(0u64, |sum, &n| sum.wrapping_add(n));
            let sum = record.chunks(STEP).rev().fold(0u64, |all, step| all.wrapping_add(sum(step)));
            std::hint::black_box(sum);
            slowest.fetch_max(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        }
    });
    // The first finds the pages.
    let seconds = slowest.into_iter().skip(1).map(|ns| ns.into_inner() as f64 * 1e-9);
    seconds.fold(f64::INFINITY, f64::min)
}

/// Rate of the shared cache, bytes that it holds and rate of memory, from sizes of records, ascending, and the seconds
/// that each takes.
fn records(measured: &[(usize, f64)]) -> (f64, usize, f64) {
    /// A record this much slower than the smallest is no longer in the cache.
    const SLOWER: f64 = 1.6;
    let rate = |&(bytes, seconds): &(usize, f64)| 2.0 * bytes as f64 / seconds;
    let Some((first, last)) = measured.first().zip(measured.last()) else { return (1.0, 0, 1.0) };
    let held = measured.iter().take_while(|m| rate(m) * SLOWER >= rate(first)).last().unwrap_or(first);
    let near = rate(held);
    // What was written last is read from the cache.
    let beyond = (last.0 - held.0, last.1 - held.0 as f64 * 2.0 / near);
    let memory = if beyond.0 > 0 && beyond.1 > 0.0 { rate(&beyond).min(near) } else { near };
    (near / EXPOSED, held.0, memory / EXPOSED)
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

/// Part of the time of a record's traffic that arithmetic does not hide.
const EXPOSED: f64 = 0.5;

/// Copies of a state for a checkpoint, each way: to and from its slot, and to and from where a segment begins. Nothing is
/// computed meanwhile.
const COPIES: f64 = 2.0;

/// Part of a thread's cache that a segment's record may take; states, weights and workspaces need the rest.
const SHARE: f64 = 0.6;

/// Expected seconds for `steps` and `rows` on `threads` threads, or blocks of a device at once.
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
            // All blocks of a device share a call.
            Item::Call(call) => {
                let lanes = if outer.tables.is_some() { threads.max(1) } else { 1 };
                run += rates.seconds(call, work::outer_call(call, size)) / lanes as f64;
            }
            Item::Scan(s) => {
                let cut = Cut::new(s, size.rows);
                let shared = memory::shares_calls(size.rows, s);
                let lanes = if shared { threads } else { threads.min(cut.tiles * s.team).max(1) } as f64;
                run += of_step(&s.run, s, size, rates) * size.steps as f64 / lanes;
                if let Some(r) = &s.replay {
                    advance += of_step(&r.advance, s, size, rates) / lanes;
                    tiles = tiles.max(cut.tiles);
                }
            }
        }
    }
    let moved = |bytes: usize, times: f64| {
        let at = |rate: f64| (2.0 * times * bytes as f64 / rate / TICK) as u64;
        Traffic { shared: at(rates.near), memory: at(rates.memory) }
    };
    let of_tile = (pairs.step / tiles).max(1);
    // Every number of the record is rounded once and widened once.
    run +=
        2.0 * pairs.rounded as f64 * size.steps as f64 / rates.pointwise / threads.min(tiles).max(1) as f64;
    let segments = Costs {
        advance: (advance / TICK) as u64,
        spill: moved(pairs.step, 1.0),
        near: (rates.cache as f64 * SHARE) as usize / of_tile,
        mark: moved(pairs.mark, COPIES / EXPOSED),
        shared: rates.shared,
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
        let faster = typical.with(" memory = 5e10, cache=2048, near=7e10,shared=4096 ").unwrap();
        assert_eq!(faster, Rates { memory: 5e10, cache: 2048, near: 7e10, shared: 4096, ..typical });
        for wrong in ["memory", "speed=1", "memory=-1", "memory=nan", "cache=much"] {
            let error = typical.with(wrong).unwrap_err().to_string();
            assert!(error.contains(&format!("`{wrong}`")), "{error}");
        }
    }

    #[test]
    fn this_machine_has_rates() {
        let pool = Pool::new(Some(2), crate::cpu::Denormals::default()).unwrap();
        let rates = Rates::measure(Isa::detect(), DType::F32, &pool);
        assert!(rates.product > 0.0 && rates.memory > 0.0 && rates.near >= rates.memory, "{rates}");
        assert!((RECORDS[0]..=RECORDS[5]).contains(&rates.shared), "{rates}");
        assert_eq!(rates.cache, Rates::typical(Isa::detect()).cache);
    }

    #[test]
    fn a_cache_and_memory_are_told_apart_by_the_time_of_records() {
        // 100 bytes a second in a cache of 400 bytes, 25 beyond, half of it hidden.
        let seconds = |bytes: usize| {
            let near = bytes.min(400);
            2.0 * near as f64 / 100.0 + 2.0 * (bytes - near) as f64 / 25.0
        };
        let measured = [100, 200, 400, 800, 1600].map(|bytes| (bytes, seconds(bytes)));
        let (near, shared, memory) = records(&measured);
        assert_eq!(shared, 400);
        assert!((near - 200.0).abs() < 1e-9 && (memory - 50.0).abs() < 1e-9, "{near} {memory}");
        // All of it in the cache.
        let (near, shared, memory) = records(&[(100, 2.0), (200, 4.0)]);
        assert_eq!((near, shared, memory), (200.0, 200, 200.0));
    }

    #[test]
    fn caches_are_those_of_the_machine_but_for_what_others_have() {
        let rates = Rates::typical(Isa::Portable);
        let cores = std::thread::available_parallelism().unwrap().get();
        let told = rates.within(Caches { second: Some(3 << 20), third: Some(1 << 40) });
        assert_eq!((told.cache, told.shared), (3 << 20, cores * (16 << 20)));
        let told = rates.within(Caches { second: None, third: Some(5 << 20) });
        assert_eq!((told.cache, told.shared), (rates.cache, 5 << 20));
        assert_eq!(rates.within(Caches::default()), rates);
    }
}
