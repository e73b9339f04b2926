//! Programs: a tape planned once, run for any number of steps and rows.
//!
//! [`Program::new`] lowers a tape: it decides what leaves the time loop (`step`), what a scan keeps for its
//! adjoint (`keep`), and fuses what is left into calls (`lower`). [`Program::plan`] gives every buffer its
//! place for given numbers of steps and rows (`memory`) and chooses how much of the time axis is held at once,
//! so that the whole fits a budget. None of this changes a bit of a result.

mod choose;
mod cost;
pub(crate) mod explain;
pub(crate) mod ir;
pub(crate) mod keep;
pub(crate) mod lower;
pub(crate) mod memory;
pub(crate) mod outer;
pub(crate) mod step;
pub mod stream;

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::cpu::{Denormals, Isa, Pool};
use crate::device::{self, Device, Left, Resident};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::exec::{Arena, Context, Drifts, Frame, Loc, ScanRun, Span, run_call, run_scan};
use crate::meter;
use crate::op::Ty;
use crate::params::Params;
use crate::profile::{Profile, Sites, Times, Totals, profile};
use crate::stash::Stash;
use crate::storage::Storage;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;
use choose::Chooser;
use ir::{BufKind, Call, Instr, Place};
use keep::Keep;
use memory::{Memory, Segments};
use outer::{Item, Outer, lower};

pub use cost::{RATES_VARIABLE, Rates};
pub(crate) use explain::bytes;
pub use explain::{
    CallSummary, MemoryKind, MemoryLine, PassSummary, PhaseSummary, Plan, PlanSummary, ReplaySummary,
    ScanRole, ScanSummary, WalkSummary,
};

/// How a program runs. None of it changes a result, except that denormals may be kept and that a [`Stash`] that rounds
/// changes gradients.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Most bytes to use for everything the engine allocates during a run, outputs included; bound tensors are
    /// the caller's. `None`: no limit. Where there is room to record everything, less is recorded if that is expected
    /// to take no longer ([`Rates`]): because the record would go to memory and back, and a smaller one stays in a cache.
    pub budget: Option<usize>,
    /// Threads; `None`: as many as the machine has.
    pub threads: Option<usize>,
    /// What becomes of denormal numbers. Flushed by default: vanishing gradients are full of them.
    pub denormals: Denormals,
    /// Whether to note where the time of each run goes, for [`Program::last_profile`]; runs over a [`Source`](stream::Source)
    /// do not. Off, it costs one branch for each kernel call.
    pub profile: bool,
    /// Speeds of the machine by which plans are compared; `None`: those of [`RATES_VARIABLE`], or
    /// [`Rates::typical`]; on a device [what it says](Device::rates).
    pub rates: Option<Rates>,
    /// In which precision values are kept for the adjoint: gradients depend on it, the forward pass does not.
    pub stash: Stash,
    /// Where programs run; `None`: on the processor. Sums are formed in another order there, so results agree up to
    /// rounding. `threads` means nothing to it, and denormal numbers are kept: see [`device`].
    pub device: Option<Arc<dyn Device>>,
}

/// A compiled tape.
///
/// ```
/// use retrograd_engine::{DType, Params, Program, RunOptions, Shape, Tape, Tensor, core_ops, grad, scan};
/// # fn main() -> retrograd_engine::Result<()> {
/// let mut tape = Tape::new();
/// let a = tape.param("a", DType::F64, [1])?;
/// let x = tape.input("x", DType::F64, Shape::sequence([1]))?;
/// let zero = core_ops::fill(&mut tape, retrograd_engine::Ty::new(DType::F64, Shape::rows([1])), 0.0)?;
/// // h = a + h + x, summed over rows at the end
/// let (h, _) = scan(&mut tape, zero, x, |tape, h, x| {
///     let h = core_ops::add(tape, h, x)?;
///     Ok((core_ops::add(tape, h, a)?, ()))
/// })?;
/// let sum = core_ops::sum_rows(&mut tape, h)?;
/// let loss = core_ops::sum_dims(&mut tape, sum, &[])?;
/// let a_bar = grad(&mut tape, loss, &[a])?[0];
///
/// let mut program = Program::new(&tape, &[loss, a_bar], RunOptions::default())?;
/// let mut values = Params::new();
/// values.insert("a", Tensor::from_slice([1], &[0.5f64])?);
/// values.insert("x", Tensor::from_slice([3, 2, 1], &[1.0f64; 6])?);
/// let out = program.run(&[&values])?;
/// assert_eq!(out[0].item()?, 2.0 * 3.0 * 1.5);
/// assert_eq!(out[1].item()?, 6.0);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Program {
    variants: Vec<(Keep, Arc<Outer>)>,
    /// Inputs the outputs do not need. Where they are bound, they too say how many steps and rows there are.
    unused: Vec<(String, Ty)>,
    options: RunOptions,
    pool: Pool,
    isa: Isa,
    rates: Rates,
    cached: Vec<(usize, usize, Decision)>,
    arena: Option<Storage>,
    /// With a device: the kernels of each variant, and the arena there.
    compiled: Vec<device::Compiled>,
    device_arena: Option<device::Arena>,
    /// With a device: what stays there of a variant.
    resident: Option<(usize, Resident)>,
    /// The program that runs over a source, once it was asked for.
    streamed: OnceLock<Arc<stream::Ready>>,
    last_peak: usize,
    last_drift: Option<f64>,
    last_profile: Option<Profile>,
}

/// A plan chosen for given numbers of steps and rows.
#[derive(Clone, Debug)]
pub(crate) struct Decision {
    pub(crate) variant: usize,
    pub(crate) segments: Segments,
    pub(crate) extra_forward_steps: u64,
    /// The run is expected to take.
    pub(crate) seconds: f64,
    pub(crate) memory: Arc<Memory>,
}

/// Plans remembered for different numbers of steps and rows.
const CACHED: usize = 16;

impl Program {
    /// Compiles the part of `tape` that `outputs` need. Errors: an output of another tape, a step inside, an
    /// unknown instruction set in `RETROGRAD_ISA`, rates in `RETROGRAD_RATES` that cannot be read, zero threads; with a
    /// device, an operation that does not run there, and the device's own errors.
    pub fn new(tape: &Tape, outputs: &[Var], options: RunOptions) -> Result<Program> {
        if tape.is_step() {
            return Err(Error::argument("program", "compiled inside the step of a scan"));
        }
        for &v in outputs {
            tape.node(v)?;
        }
        // A device has matrices as they are, as the processor has them without vectors.
        let (isa, threads) = match &options.device {
            Some(_) => (Isa::Portable, Some(1)),
            None => (Isa::select()?, options.threads),
        };
        let pool = Pool::new(threads, options.denormals)?;
        let stash = options.stash;
        // What is rebuilt from rounded states differs from what was rounded itself: one form, so one result.
        let forms: &[Keep] = if stash.rounds() { &[Keep::Values] } else { &[Keep::Values, Keep::States] };
        let mut compiled = Vec::new();
        let lowered = forms.iter().map(|&keep| lower(tape, outputs, isa, keep, stash));
        let lowered = lowered.collect::<Result<Vec<Outer>>>()?;
        let teams =
            options.device.as_ref().map(|on| device::teams(&lowered, on.as_ref())).unwrap_or_default();
        let variants = (forms.iter().zip(lowered))
            .map(|(&keep, mut outer)| {
                if let Some(on) = &options.device {
                    outer = outer.for_device(&teams);
                    let kernels = device::compile(&outer, on, stash, false)?;
                    outer.tables = Some(kernels.table_bytes);
                    compiled.push(kernels);
                }
                Ok((keep, Arc::new(outer)))
            })
            .collect::<Result<Vec<_>>>()?;
        let needed = |name: &str| variants[0].1.bound.iter().any(|(n, _)| n == name);
        let unused = tape.inputs().filter(|(name, _, _)| !needed(name));
        let unused = unused.map(|(name, _, ty)| (name.to_string(), ty.clone())).collect();
        Ok(Program {
            variants,
            unused,
            rates: match (options.rates, &options.device) {
                (Some(rates), _) => rates,
                (None, Some(device)) => device.rates(),
                (None, None) => Rates::select(isa)?,
            },
            options,
            pool,
            isa,
            cached: Vec::new(),
            arena: None,
            compiled,
            device_arena: None,
            resident: None,
            streamed: OnceLock::new(),
            last_peak: 0,
            last_drift: None,
            last_profile: None,
        })
    }

    /// Whether runs from now on note where their time goes, as [`RunOptions::profile`].
    pub fn set_profile(&mut self, profile: bool) {
        self.options.profile = profile;
    }

    /// Where the time of the last run went; `None` if it did not note it.
    pub fn last_profile(&self) -> Option<&Profile> {
        self.last_profile.as_ref()
    }

    /// Another budget from now on; plans are chosen anew.
    pub fn set_budget(&mut self, budget: Option<usize>) {
        self.options.budget = budget;
        self.cached.clear();
        self.arena = None;
        self.device_arena = None;
        self.resident = None;
    }

    /// The plan for `steps` and `rows`. Errors: a budget too small (with the smallest that works), sizes that
    /// overflow.
    pub fn plan(&self, steps: usize, rows: usize) -> Result<Plan> {
        let decision = self.chooser(steps, rows).choose(self.options.budget)?;
        Ok(self.explained(decision, self.options.budget))
    }

    /// The plan with the fewest bytes for `steps` and `rows`, whatever the budget. Errors: sizes that overflow.
    pub fn smallest_plan(&self, steps: usize, rows: usize) -> Result<Plan> {
        Ok(self.explained(self.chooser(steps, rows).smallest()?, None))
    }

    /// The plan that would be chosen with `budget` bytes. Errors: as [`Program::plan`].
    pub fn plan_within(&self, steps: usize, rows: usize, budget: Option<usize>) -> Result<Plan> {
        Ok(self.explained(self.chooser(steps, rows).choose(budget)?, budget))
    }

    /// Plans for up to `points` budgets, from the smallest that works to one that allows everything, evenly spaced
    /// on a logarithmic scale: the trade of bytes for time. Each takes more bytes than the one before and is expected
    /// to take less time. Errors: sizes that overflow.
    pub fn tradeoff(&self, steps: usize, rows: usize, points: usize) -> Result<Vec<Plan>> {
        let least = self.smallest_plan(steps, rows)?.peak_bytes();
        let all = self.plan_within(steps, rows, None)?;
        let ratio = all.peak_bytes() as f64 / least.max(1) as f64;
        let mut plans: Vec<Plan> = Vec::new();
        for k in 0..points.max(2) - 1 {
            let share = k as f64 / (points.max(2) - 1) as f64;
            let budget = (least as f64 * ratio.powf(share)).ceil() as usize;
            let plan = self.plan_within(steps, rows, Some(budget.max(least)))?;
            let better = |p: &Plan| p.expected_seconds() > plan.expected_seconds();
            if plans.last().is_none_or(better) && plan.peak_bytes() < all.peak_bytes() {
                plans.push(plan);
            }
        }
        plans.push(all);
        Ok(plans)
    }

    fn explained(&self, decision: Decision, budget: Option<usize>) -> Plan {
        let (keep, outer) = &self.variants[decision.variant];
        Plan {
            outer: outer.clone(),
            unbudgeted: self.variants[0].1.clone(),
            keep: *keep,
            decision,
            budget,
            threads: self.threads(),
            isa: self.isa,
        }
    }

    /// Tiles that are worked on at once: those that there are, on a device.
    fn threads(&self) -> usize {
        if self.options.device.is_some() { memory::MOST_BLOCKS } else { self.pool.threads() }
    }

    fn chooser(&self, steps: usize, rows: usize) -> Chooser<'_> {
        let (threads, stash) = (self.threads(), self.options.stash);
        let (rated, rates) = (self.options.device.is_none(), self.rates);
        let at_once = self.options.device.as_ref().map_or(threads, |device| device.multiprocessors());
        Chooser { variants: &self.variants, steps, rows, threads, at_once, rates, rated, stash }
    }

    /// Bytes the engine allocated at once during the last run, measured.
    pub fn last_peak_bytes(&self) -> usize {
        self.last_peak
    }

    /// How far states that the last run walked back to were off, at most, relative to the largest entry of the states;
    /// `None` if it walked none back.
    pub fn last_drift(&self) -> Option<f64> {
        self.last_drift
    }

    /// Runs the program on values bound by name; the sets are searched in order and values nobody asks for are
    /// ignored. Returns the outputs in order.
    ///
    /// Errors: a value that is missing or of another type or shape, numbers of steps or rows that disagree, a
    /// budget too small; states that were walked back to and are off by more than the bound.
    pub fn run(&mut self, bindings: &[&Params]) -> Result<Vec<Tensor>> {
        Ok(self.run_from(None, bindings, usize::MAX)?.0)
    }

    /// Runs the program on its device with values that are there: what `values` has by name is read from there, the rest
    /// is bound as in [`Program::run`]. Outputs from number `left` on stay on the device, until the next run; they may not
    /// have an entry for every step or row.
    ///
    /// Errors: as there; a program without a device, or on another one than the values; a value that is there in another
    /// type or shape.
    pub fn run_with(
        &mut self,
        values: &Resident,
        bindings: &[&Params],
        left: usize,
    ) -> Result<(Vec<Tensor>, Vec<Left>)> {
        match &self.options.device {
            Some(device) if values.is_on(device) => self.run_from(Some(values), bindings, left),
            Some(_) => Err(Error::argument("run_with", "the values are on another device than the program")),
            None => Err(Error::argument("run_with", "the program has no device")),
        }
    }

    fn run_from(
        &mut self,
        values: Option<&Resident>,
        bindings: &[&Params],
        left: usize,
    ) -> Result<(Vec<Tensor>, Vec<Left>)> {
        let bound = bind(&self.variants[0].1, values, bindings)?;
        let outer = &self.variants[0].1;
        let needed = outer.bound.iter().zip(bound.iter().copied()).filter_map(|(b, t)| Some((b, t?)));
        let unused = self.unused.iter().filter_map(|u| Some((u, find(&u.0, bindings)?)));
        let (steps, rows) = extents(needed.chain(unused))?;
        let loops = || outer.items.iter().any(|item| matches!(item, Item::Scan(_)));
        if steps.is_none() && loops() {
            return Err(Error::argument("program", "no bound input has a time axis, which a scan needs"));
        }
        let (steps, rows) = (steps.unwrap_or(1), rows.unwrap_or(1));
        let decision = match self.cached.iter().find(|(t, n, _)| (*t, *n) == (steps, rows)) {
            Some((_, _, d)) => d.clone(),
            None => {
                let d = self.chooser(steps, rows).choose(self.options.budget)?;
                if self.cached.len() == CACHED {
                    self.cached.remove(0);
                }
                self.cached.push((steps, rows, d.clone()));
                d
            }
        };
        let outer = self.variants[decision.variant].1.clone();
        let bound = if decision.variant == 0 { bound } else { bind(&outer, values, bindings)? };
        let memory = &decision.memory;
        if let Some(on) = &self.options.device.clone() {
            return self.run_on(on, decision.variant, memory, (values, &bound), left);
        }
        // Without a device every value was found among the bindings.
        let bound: Vec<&Tensor> = bound.into_iter().flatten().collect();
        let needed = memory.bytes;
        // An arena that is much too large is given back, so that the run takes what the plan says.
        let fits =
            self.arena.as_ref().is_some_and(|a| a.len() >= needed && a.len() - needed <= needed / 64 + 4096);
        let held = self.arena.as_ref().filter(|_| fits).map_or(0, Storage::len);
        if !fits {
            self.arena = None;
        }
        let before = meter::reset_peak() - held;
        let mut storage = match self.arena.take() {
            Some(storage) => storage,
            None => Storage::zeroed("the run's arena", needed)?,
        };
        let arena = Arena(storage.as_mut_ptr());
        self.last_profile = None;
        let timed = self.options.profile.then(|| {
            let sites = Sites::new(&outer);
            let totals = Totals::new(sites.count());
            (sites, totals)
        });
        let times = timed.as_ref().map(|(sites, totals)| (sites, totals));
        let start = Instant::now();
        let drifts = Drifts::new(outer.pairs.len());
        let run =
            Run { outer: &outer, memory, arena, pool: &self.pool, isa: self.isa, times, drifts: &drifts };
        let outputs = run.all(&bound);
        let wall = start.elapsed().as_secs_f64();
        self.last_peak = meter::peak_bytes().saturating_sub(before);
        self.arena = Some(storage);
        self.last_drift = walked(&outer, drifts.found(), steps)?;
        if let Some((sites, totals)) = timed {
            let tallies = totals.into_tallies();
            self.last_profile = Some(profile(&outer, memory, self.pool.threads(), wall, &sites, &tallies));
        }
        Ok((outputs?, Vec::new()))
    }
}

/// How far the walked states of a run were off. Errors: further than their bound.
fn walked(outer: &Outer, drifts: Vec<f64>, steps: usize) -> Result<Option<f64>> {
    let mut largest = None;
    for (pair, found) in outer.pairs.iter().zip(drifts) {
        let Some(walk) = pair.walk else { continue };
        let bound = walk.bound(walk.every.min(steps));
        if found > bound {
            return Err(Error::Drift { every: walk.every, expansion: walk.expansion, bound, found });
        }
        largest = Some(found.max(largest.unwrap_or(0.0)));
    }
    Ok(largest)
}

impl Program {
    /// An error, with the smallest budget of the run if there was no memory for it.
    fn with_least(&self, error: Error, memory: &Memory) -> Error {
        let least = self.smallest_plan(memory.steps, memory.rows).map_or(memory.bytes, |p| p.peak_bytes());
        match error {
            Error::OutOfMemory { what, bytes: asked } if least < asked => {
                let what = format!("{what}, which does with a budget of {} at least,", bytes(least));
                Error::OutOfMemory { what, bytes: asked }
            }
            error => error,
        }
    }

    /// A run on a device.
    fn run_on(
        &mut self,
        on: &Arc<dyn Device>,
        variant: usize,
        memory: &Arc<Memory>,
        (values, bound): (Option<&Resident>, &[Option<&Tensor>]),
        left: usize,
    ) -> Result<(Vec<Tensor>, Vec<Left>)> {
        let needed = memory.bytes;
        let held = self.device_arena.take();
        let held = held.filter(|a| a.len() >= needed && a.len() - needed <= needed / 64 + 4096);
        let own = self.resident.take_if(|(of, _)| *of == variant).map(|(_, own)| own);
        self.resident = None;
        let before = held.as_ref().map_or(0, device::Arena::len) + own.as_ref().map_or(0, Resident::bytes);
        let before = (meter::reset_peak(), on.used_bytes() - before);
        let mut arena = match held {
            Some(arena) => arena,
            None => device::Arena::new(on, needed).map_err(|error| self.with_least(error, memory))?,
        };
        let outer = &self.variants[variant].1;
        self.last_profile = None;
        let timed = self.options.profile.then(device::Timed::begin);
        let Stay { own, fixed, theirs, copied } = stay(on, outer, own, (values, bound))?;
        if let Some(timed) = &timed {
            timed.lap(device::Host::Values, 0, 2 * copied);
        }
        let there = on.used_bytes().saturating_sub(before.1) + theirs;
        let given = device::Given { memory, bound, fixed, left, timed };
        let ran = device::run(&self.compiled[variant], outer, &mut arena, given);
        self.last_peak = there + meter::peak_bytes().saturating_sub(before.0);
        self.device_arena = Some(arena);
        self.resident = Some((variant, own));
        let device::Ran { outputs, left, drifts, profile } = ran?;
        self.last_drift = walked(&self.variants[variant].1, drifts, memory.steps)?;
        self.last_profile = profile;
        Ok((outputs, left))
    }
}

/// Values that stay on a device.
struct Stay {
    /// The program's own, as they are bound now.
    own: Resident,
    /// Where each buffer's value is that stays.
    fixed: Vec<Option<device::Array>>,
    /// Bytes of those that are the caller's.
    theirs: usize,
    /// Bytes that were copied.
    copied: usize,
}

/// Lets the program's own values that stay on the device be what they are bound to.
fn stay(
    on: &Arc<dyn Device>,
    outer: &Outer,
    own: Option<Resident>,
    (values, bound): (Option<&Resident>, &[Option<&Tensor>]),
) -> Result<Stay> {
    let all = device::staying(outer);
    let theirs = |name: &str| values.filter(|v| v.ty(name).is_some());
    let tensor = |buf: usize| match outer.bufs[buf].kind {
        BufKind::Bound(b) => bound[b],
        BufKind::Constant(c) => Some(&outer.constants[c]),
        _ => None,
    };
    let mine: Vec<(&str, &Tensor)> = (all.iter())
        .filter(|(_, name)| theirs(name).is_none())
        .filter_map(|(buf, name)| Some((&**name, tensor(*buf)?)))
        .collect();
    let fits = |own: &Resident| own.names().eq(mine.iter().map(|(name, _)| *name));
    let mut own = match own.filter(fits) {
        Some(own) => own,
        None => Resident::new(on, mine.iter().map(|(name, t)| (*name, t.dtype(), t.dims())))?,
    };
    let mut copied = 0;
    for (name, tensor) in mine {
        copied += own.copied(name, tensor)?;
    }
    let (mut fixed, mut bytes) = (vec![None; outer.bufs.len()], 0);
    for (buf, name) in &all {
        let array = theirs(name).unwrap_or(&own).array(name)?;
        if theirs(name).is_some() {
            bytes += memory::aligned(array.len * array.dtype.size());
        }
        fixed[*buf] = Some(array);
    }
    Ok(Stay { own, fixed, theirs: bytes, copied })
}

fn find<'a>(name: &str, bindings: &[&'a Params]) -> Option<&'a Tensor> {
    bindings.iter().find_map(|p| p.get(name))
}

/// The value of each bound name; `None` where it stays on the device.
fn bind<'a>(
    outer: &Outer,
    values: Option<&Resident>,
    bindings: &[&'a Params],
) -> Result<Vec<Option<&'a Tensor>>> {
    let of = |(name, ty): &(String, Ty)| {
        if let Some((dtype, dims)) = values.and_then(|v| v.ty(name)) {
            let lead = ty.shape.lead;
            if dtype != ty.dtype || lead.has_t() || lead.has_n() || *dims != ty.shape.dims[..] {
                let what = format!("on the device, expected {} {}, got {dtype} {dims:?}", ty.dtype, ty.shape);
                return Err(Error::Binding { name: name.clone(), what });
            }
            return Ok(None);
        }
        let missing = || Error::Binding { name: name.clone(), what: "no value is bound to it".into() };
        find(name, bindings).ok_or_else(missing).map(Some)
    };
    outer.bound.iter().map(of).collect()
}

/// The value of each bound name.
fn find_bound<'a>(outer: &Outer, bindings: &[&'a Params]) -> Result<Vec<&'a Tensor>> {
    Ok(bind(outer, None, bindings)?.into_iter().flatten().collect())
}

/// Numbers of steps and rows, from the bound values; also checks every type and shape.
fn extents<'a>(
    bound: impl Iterator<Item = (&'a (String, Ty), &'a Tensor)>,
) -> Result<(Option<usize>, Option<usize>)> {
    let mut steps: Option<(usize, &str)> = None;
    let mut rows: Option<(usize, &str)> = None;
    for ((name, ty), tensor) in bound {
        let fail = |what: String| Error::Binding { name: name.clone(), what };
        if tensor.dtype() != ty.dtype {
            return Err(fail(format!("element type, expected {}, got {}", ty.dtype, tensor.dtype())));
        }
        let lead = usize::from(ty.shape.lead.has_t()) + usize::from(ty.shape.lead.has_n());
        let dims = tensor.dims();
        if dims.len() != lead + ty.shape.dims.len() || dims[lead..] != ty.shape.dims[..] {
            return Err(fail(format!("shape, expected {}, got {dims:?}", ty.shape)));
        }
        let mut at = 0;
        let mut agree = |axis: &str, known: &mut Option<(usize, &'_ str)>, name: &'_ str| -> Result<()> {
            let size = dims[at];
            at += 1;
            match known {
                Some((n, other)) if *n != size => {
                    let what = format!("{axis}, expected {n} as in `{other}`, got {size}");
                    Err(Error::Binding { name: name.into(), what })
                }
                _ => Ok(()),
            }
        };
        if ty.shape.lead.has_t() {
            agree("number of steps T", &mut steps, name)?;
            steps = steps.or(Some((dims[0], name)));
        }
        if ty.shape.lead.has_n() {
            agree("number of rows N", &mut rows, name)?;
            rows = rows.or(Some((dims[lead - 1], name)));
        }
    }
    Ok((steps.map(|s| s.0), rows.map(|r| r.0)))
}

/// One run.
struct Run<'a> {
    outer: &'a Outer,
    memory: &'a Memory,
    arena: Arena,
    pool: &'a Pool,
    isa: Isa,
    /// Where the time is noted, if anybody asked.
    times: Option<(&'a Sites, &'a Totals)>,
    /// Where it is noted how far walked states are off.
    drifts: &'a Drifts,
}

impl Run<'_> {
    fn times(&self, item: usize) -> Option<Times<'_>> {
        self.times.map(|(sites, totals)| {
            let (base, sites) = sites.of(item);
            Times { totals, base, sites }
        })
    }

    /// From bound values to outputs.
    fn all(&self, bound: &[&Tensor]) -> Result<Vec<Tensor>> {
        let times = self.times(self.outer.items.len());
        let clock = times.map(|t| t.start());
        let frame = self.frame(bound)?;
        if let Some((times, clock)) = times.zip(clock) {
            let apart = self.outer.bufs.iter().filter_map(|buf| match buf.kind {
                BufKind::Bound(b) => Some(bound[b]),
                BufKind::Constant(c) => Some(&self.outer.constants[c]),
                _ => None,
            });
            // Only complex values are copied, into planes.
            let bytes = apart.filter(|t| t.dtype().is_complex()).map(|t| 2 * t.as_bytes().len() as u64).sum();
            clock.lap(0, 1, bytes);
            times.add(clock);
        }
        self.items(&frame, 0..self.outer.items.len());
        let clock = times.map(|t| t.start());
        let outputs = self.outputs(&frame);
        if let Some((times, clock)) = times.zip(clock) {
            clock.lap(1, 1, 2 * self.memory.output_bytes as u64);
            times.add(clock);
        }
        outputs
    }

    /// Places of the outer program's buffers; complex values are taken apart into planes.
    fn frame(&self, bound: &[&Tensor]) -> Result<Frame> {
        let mut locs = Vec::with_capacity(self.outer.bufs.len());
        for (i, buf) in self.outer.bufs.iter().enumerate() {
            let Some(slot) = &self.memory.outer[i] else {
                locs.push(Loc::default());
                continue;
            };
            let tensor = match buf.kind {
                BufKind::Bound(b) => Some(bound[b]),
                BufKind::Constant(c) => Some(&self.outer.constants[c]),
                _ => None,
            };
            let mut loc = Loc::new(self.arena, 0, slot);
            if let Some(t) = tensor {
                self.place(&mut loc, buf.dtype, t)?;
            }
            locs.push(loc);
        }
        Ok(Frame { locs, streams: false })
    }

    /// Lets a buffer be a tensor: where the caller has it, or complex in the buffer's own place.
    fn place(&self, loc: &mut Loc, dtype: DType, tensor: &Tensor) -> Result<()> {
        match dtype {
            DType::C32 => split::<f32>(tensor.components()?, loc, tensor.len()),
            DType::C64 => split::<f64>(tensor.components()?, loc, tensor.len()),
            _ => loc.ptr = tensor.as_bytes().as_ptr().cast_mut(),
        }
        Ok(())
    }

    fn items(&self, frame: &Frame, range: std::ops::Range<usize>) {
        for at in range {
            let item = &self.outer.items[at];
            match item {
                Item::Call(call) => self.call(frame, call, self.times(at)),
                Item::Scan(item) => {
                    let scan = ScanRun {
                        outer: self.outer,
                        frame,
                        arena: self.arena,
                        memory: self.memory,
                        item,
                        slots: &self.memory.scans[&at],
                        isa: self.isa,
                        times: self.times(at),
                        drifts: self.drifts,
                    };
                    run_scan(&scan, self.pool);
                }
            }
        }
    }

    /// Runs a call of the outer program, in parallel over steps or rows where its entries are independent.
    fn call(&self, frame: &Frame, call: &Call, times: Option<Times<'_>>) {
        let (steps, rows) = (self.memory.steps, self.memory.rows);
        let independent = match &call.instr {
            Instr::Pointwise { .. } | Instr::MatMul { .. } | Instr::Move { .. } | Instr::Cast { .. } => true,
            Instr::Structured { reduce, .. } => !reduce,
            _ => false,
        };
        let entries = |over: bool, n: usize| if over { n } else { 1 };
        let (t, n) = (entries(call.over.steps, steps), entries(call.over.rows, rows));
        let width: usize = call.instr.writes().iter().map(|o| o.width()).sum();
        let worth = independent && t * n * width > 1 << 14;
        let parts = if worth { self.pool.threads().min(t.max(n)) } else { 1 };
        let words = self.outer.scratch;
        self.pool.run(parts, |part| {
            let clock = times.map(|t| t.start());
            let cut = |n: usize| (part * n / parts, (part + 1) * n / parts);
            let (of_steps, of_rows) = if t >= parts { (cut(t), (0, n)) } else { ((0, t), cut(n)) };
            let span = Span {
                steps: of_steps,
                rows: of_rows,
                reverse: false,
                first_row: 0,
                total_steps: steps,
                total_rows: rows,
            };
            // SAFETY: this part's own scratch.
            let scratch: &mut [u64] = unsafe {
                let lane = words.div_ceil(8) * 8;
                let at = self.memory.scratch + part * lane * 8;
                std::slice::from_raw_parts_mut(self.arena.0.add(at).cast(), words)
            };
            let cx = Context { frame, bufs: &self.outer.bufs, isa: self.isa, span };
            run_call(&cx, call, scratch);
            if let Some((times, clock)) = times.zip(clock) {
                clock.lap(0, u64::from(part == 0), span.entries(call.over));
                times.add(clock);
            }
        });
    }

    fn outputs(&self, frame: &Frame) -> Result<Vec<Tensor>> {
        self.outer.outputs.iter().map(|(place, ty)| self.output(frame, place, ty)).collect()
    }

    fn output(&self, frame: &Frame, place: &Place, ty: &Ty) -> Result<Tensor> {
        let (steps, rows) = (self.memory.steps, self.memory.rows);
        let mut out = Tensor::zeros(ty.dtype, ty.shape.concrete(steps, rows))?;
        let lead = ty.shape.lead;
        let (t, n) = (if lead.has_t() { steps } else { 1 }, if lead.has_n() { rows } else { 1 });
        match place {
            Place::Scalar { re, im } => out.fill_with(|_| num_complex::Complex64::new(*re, *im)),
            Place::At(o) => match ty.dtype.real() {
                DType::F32 => join::<f32>(frame, o, ty, t, n, out.components_mut()?),
                DType::F64 => join::<f64>(frame, o, ty, t, n, out.components_mut()?),
                _ => join::<i32>(frame, o, ty, t, n, out.components_mut()?),
            },
        }
        Ok(out)
    }
}

/// Takes interleaved complex numbers apart.
fn split<R: Copy>(from: &[R], to: &Loc, len: usize) {
    for plane in 0..2 {
        // SAFETY: the buffer's own block in the arena, two planes of at least `len`.
        let to = unsafe { std::slice::from_raw_parts_mut(to.ptr.cast::<R>().add(plane * to.plane), len) };
        to.iter_mut().zip(from.chunks_exact(2)).for_each(|(to, z)| *to = z[plane]);
    }
}

/// Copies an operand into a tensor, complex numbers interleaved.
fn join<R: Copy>(frame: &Frame, o: &ir::Operand, ty: &Ty, steps: usize, rows: usize, out: &mut [R]) {
    let width = o.width();
    let planes = ty.dtype.planes();
    for t in 0..steps {
        for r in 0..rows {
            let to = &mut out[(t * rows + r) * width * planes..][..width * planes];
            for plane in 0..planes {
                let v = frame.view::<R>(o, plane, t, r);
                for (j, to) in to.iter_mut().skip(plane).step_by(planes).enumerate() {
                    // SAFETY: an entry of the operand, which nothing writes any more.
                    *to = unsafe { *v.ptr.add(j) };
                }
            }
        }
    }
}
