//! `scan`: a step recorded once and applied at every step of time.
//!
//! What the step computes from parameters alone is moved out to the enclosing tape as it is recorded (the phase
//! *once*), so it runs once a call and is differentiated once a call. The adjoint of a scan is another scan that
//! walks the other way: it reads the states, rebuilds what it needs of the step, and carries the cotangent of
//! the state. Being a scan, it is planned, explained and differentiated by the same code.

mod builder;
mod derivative;
mod hoist;
mod walk;

use crate::core_ops::{active_mask, chunk_start, expand, keep_ended, select, stop_gradient};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::Ty;
use crate::shape::Lead;
use crate::state::State;
use crate::tape::{Node, Tape, Var};
use builder::Builder;
use walk::Inverse;

pub(crate) use derivative::{jvp, sums, vjp};
pub use walk::LARGEST_DRIFT;
pub(crate) use walk::Walk;

/// How far gradients reach back in time.
///
/// Truncation changes gradients, so it is part of the computation and not of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Horizon {
    /// To the first step.
    #[default]
    Full,
    /// No gradient passes from one chunk `[i·k, (i+1)·k)` of steps to the chunk walked before it. That of the
    /// first chunk reaches the initial state.
    Steps(usize),
}

/// A loop over time; see [`scan`].
#[derive(Clone, Debug, Default)]
pub struct Scan {
    reverse: bool,
    lengths: Option<Var>,
    horizon: Horizon,
    walk_back: Option<usize>,
}

/// What an output of a scan is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PortKind {
    /// State number after the last step.
    Final(usize),
    /// State number before every step, stacked over time.
    History(usize),
    /// A value of the step, stacked over time.
    Stack(Var),
    /// A value of the step, summed over time (and over rows, if it has no row axis).
    Sum(Var),
}

#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub(crate) kind: PortKind,
    pub(crate) ty: Ty,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Carry {
    pub(crate) input: Var,
    pub(crate) output: Var,
}

/// A recorded step: its nodes in order, and what connects them to the outside.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) id: u32,
    pub(crate) nodes: Vec<Node>,
    pub(crate) carries: Vec<Carry>,
    pub(crate) xs: Vec<Var>,
    pub(crate) ports: Vec<Port>,
    /// For each node of an adjoint step: the node of the forward step it rebuilds.
    pub(crate) rebuilds: Vec<Option<u32>>,
    /// How the state before the step follows from the state after it, if states are walked back.
    pub(crate) inverse: Option<Inverse>,
}

impl Step {
    /// Which nodes belong to the inverse alone.
    pub(crate) fn of_inverse(&self) -> Vec<bool> {
        walk::of_inverse(&self.nodes)
    }
}

/// The inverse of a step that has none.
type NoInverse<C, X> = (usize, f64, fn(&mut Tape, C, X) -> Result<C>);

/// A scan on a tape. Inputs of its node: initial states, sequences, captured values.
#[derive(Clone, Debug)]
pub(crate) struct ScanOp {
    pub(crate) step: Step,
    pub(crate) reverse: bool,
    /// The scan this one is the adjoint of.
    pub(crate) adjoint_of: Option<Var>,
    /// Of an adjoint: its states behind the cotangents are those of the scan, walked back.
    pub(crate) walk: Option<Walk>,
}

/// Applies `step` at every step of time.
///
/// `step(tape, carry, x) -> (carry, y)` is called once, with placeholders; `carry` starts as given, `xs` are
/// sequences (`[T,N,..]`, or `[T,..]` for values the rows share). Returns the last state and the stacked outputs
/// (`[T,N,..]`). Values of the enclosing tape without a time axis may be used inside the step.
///
/// ```
/// use retrograd_engine::{scan, matmul, core_ops::add, DType, Shape, Tape};
/// # fn main() -> retrograd_engine::Result<()> {
/// let mut tape = Tape::new();
/// let w = tape.param("w", DType::F32, [3, 3])?;
/// let x = tape.input("x", DType::F32, Shape::sequence([3]))?;
/// let h0 = tape.param("h0", DType::F32, [3])?;
/// let (last, all) = scan(&mut tape, h0, x, |tape, h, x| {
///     let wh = matmul(tape, h, w)?;
///     let h = add(tape, wh, x)?;
///     Ok((h, h))
/// })?;
/// assert_eq!(tape.shape(last)?.to_string(), "[N,3]");
/// assert_eq!(tape.shape(all)?.to_string(), "[T,N,3]");
/// # Ok(()) }
/// ```
///
/// Errors: a state that changes type from step to step (named); a sequence without a time axis; whatever `step`
/// returns.
pub fn scan<C: State, X: State, Y: State>(
    tape: &mut Tape,
    carry: C,
    xs: X,
    step: impl FnOnce(&mut Tape, C, X) -> Result<(C, Y)>,
) -> Result<(C, Y)> {
    Scan::new().run(tape, carry, xs, step)
}

impl Scan {
    /// Forward in time, all rows to the end, gradients to the first step.
    pub fn new() -> Scan {
        Scan::default()
    }

    /// Whether to walk from the last step to the first.
    pub fn reverse(mut self, reverse: bool) -> Scan {
        self.reverse = reverse;
        self
    }

    /// Number of steps of each row, `[N]` of `I32`. A row that has ended keeps its state, its outputs are zero
    /// and it adds nothing to any gradient.
    pub fn lengths(mut self, lengths: Option<Var>) -> Scan {
        self.lengths = lengths;
        self
    }

    /// How far gradients reach back.
    pub fn horizon(mut self, horizon: Horizon) -> Scan {
        self.horizon = horizon;
        self
    }

    /// Walks the states back in the adjoint instead of keeping them, with an exact one every so many steps; for steps
    /// with an inverse ([`Scan::run_reversible`]), of others nothing. Gradients change by what rounding does to the
    /// states that are walked back to, so this is part of the computation and not of a plan.
    pub fn walk_back(mut self, every: Option<usize>) -> Scan {
        self.walk_back = every;
        self
    }

    /// Records a loop whose step can be inverted: `inverse(tape, after, x) -> before` computes the state before a step
    /// from the state after it. It is called only where states are walked back ([`Scan::walk_back`]); without, this is
    /// [`Scan::run`].
    ///
    /// `expansion` is the inverse's Lipschitz constant in the state, at least 1: most by which an error of the state
    /// after becomes larger in the state before, with parameters as they may become. It decides how far may be walked
    /// back, and a run that finds more drift than follows from it is an error; see [`LARGEST_DRIFT`].
    ///
    /// ```
    /// use retrograd_engine::core_ops::{add, times_i};
    /// use retrograd_engine::{DType, Program, RunOptions, Scan, Shape, Tape, Ty, core_ops, grad};
    /// # fn main() -> retrograd_engine::Result<()> {
    /// let mut tape = Tape::new();
    /// let w = tape.param("w", DType::C64, [4])?;
    /// let x = tape.input("x", DType::C64, Shape::sequence([4]))?;
    /// let zero = core_ops::fill(&mut tape, Ty::new(DType::C64, Shape::rows([4])), 0.0)?;
    /// // h' = i h + w + x, so h = -i (h' - w - x).
    /// let (h, ()) = Scan::new().walk_back(Some(100)).run_reversible(
    ///     &mut tape,
    ///     zero,
    ///     x,
    ///     |tape, h, x| {
    ///         let (turned, moved) = (times_i(tape, h)?, add(tape, w, x)?);
    ///         Ok((add(tape, turned, moved)?, ()))
    ///     },
    ///     1.0,
    ///     |tape, h, x| {
    ///         let moved = add(tape, w, x)?;
    ///         let moved = core_ops::neg(tape, moved)?;
    ///         let turned = add(tape, h, moved)?;
    ///         let turned = times_i(tape, turned)?;
    ///         core_ops::neg(tape, turned)
    ///     },
    /// )?;
    /// let h = core_ops::real(&mut tape, h)?;
    /// let sum = core_ops::sum_rows(&mut tape, h)?;
    /// let loss = core_ops::sum_dims(&mut tape, sum, &[])?;
    /// let w_bar = grad(&mut tape, loss, &[w])?[0];
    /// let program = Program::new(&tape, &[w_bar], RunOptions::default())?;
    /// assert!(program.plan(1000, 8)?.recorded_bytes() <= 11 * 8 * 4 * 16);
    /// # Ok(()) }
    /// ```
    ///
    /// Errors: as [`scan`]; an inverse that returns other parts than the state has; a bound of the drift above
    /// [`LARGEST_DRIFT`], with the number of steps that keeps it below.
    pub fn run_reversible<C: State, X: State, Y: State>(
        &self,
        tape: &mut Tape,
        carry: C,
        xs: X,
        step: impl FnOnce(&mut Tape, C, X) -> Result<(C, Y)>,
        expansion: f64,
        inverse: impl FnOnce(&mut Tape, C, X) -> Result<C>,
    ) -> Result<(C, Y)> {
        let inverse = self.walk_back.map(|every| (every, expansion, inverse));
        self.recorded(tape, carry, xs, step, inverse)
    }

    /// Records the loop; see [`scan`].
    pub fn run<C: State, X: State, Y: State>(
        &self,
        tape: &mut Tape,
        carry: C,
        xs: X,
        step: impl FnOnce(&mut Tape, C, X) -> Result<(C, Y)>,
    ) -> Result<(C, Y)> {
        self.recorded(tape, carry, xs, step, None::<NoInverse<C, X>>)
    }

    fn recorded<C: State, X: State, Y: State>(
        &self,
        tape: &mut Tape,
        carry: C,
        xs: X,
        step: impl FnOnce(&mut Tape, C, X) -> Result<(C, Y)>,
        inverse: Option<(usize, f64, impl FnOnce(&mut Tape, C, X) -> Result<C>)>,
    ) -> Result<(C, Y)> {
        if tape.is_step() {
            return Err(Error::argument("scan", "a scan inside the step of a scan is not supported"));
        }
        if self.horizon == Horizon::Steps(0) {
            return Err(Error::argument("scan", "a horizon of 0 steps; at least 1"));
        }
        let inits = carry
            .parts()?
            .into_iter()
            .map(|(name, v)| Ok((name, expand(tape, v, Lead::N)?)))
            .collect::<Result<Vec<_>>>()?;
        let sequences = xs.parts()?;
        let mut inner = Tape::enter(tape);
        let recorded = (|| {
            let (mut builder, y) = self.record(&mut inner, &carry, &inits, &xs, &sequences, step)?;
            if let Some((every, expansion, inverse)) = inverse {
                let (after, before) =
                    self.record_inverse(&mut inner, &builder, (&carry, &inits), &xs, inverse)?;
                let (roundings, unit) = walk::roundings(&inner, &before);
                let walk = Walk { every, expansion, roundings, unit }.checked()?;
                builder.inverse = Some(Inverse { after, before, walk });
            }
            Ok((builder, y))
        })();
        inner.leave(tape);
        let (builder, y) = recorded?;

        let inits: Vec<Var> = inits.iter().map(|(_, v)| *v).collect();
        let sequences: Vec<Var> = sequences.iter().map(|(_, v)| *v).collect();
        let (scan, ports) = builder.finish(tape, inner, &inits, &sequences, self.reverse, None)?;
        let carries = inits.len();
        let mut next = 0;
        let last = carry.map_parts(&mut |_, _| {
            next += 1;
            Ok(ports[next - 1])
        })?;
        let mut next = 2 * carries;
        let stacked = y.map_parts(&mut |_, _| {
            next += 1;
            Ok(ports[next - 1])
        })?;
        tape.label(scan, if self.reverse { "scan (reverse)" } else { "scan" });
        Ok((last, stacked))
    }

    /// Records how the state before the step follows from the state after it: placeholders and results.
    fn record_inverse<C: State, X: State>(
        &self,
        inner: &mut Tape,
        builder: &Builder,
        (carry, inits): (&C, &[(String, Var)]),
        xs: &X,
        inverse: impl FnOnce(&mut Tape, C, X) -> Result<C>,
    ) -> Result<(Vec<Var>, Vec<Var>)> {
        let mut after = Vec::new();
        for (i, (name, v)) in inits.iter().enumerate() {
            let ty = inner.ty(*v)?.clone();
            after.push(walk::add_after(inner, i, ty, name));
        }
        let mut next = after.iter().copied();
        let c = carry.map_parts(&mut |_, v| Ok(next.next().unwrap_or(v)))?;
        let mut next = builder.xs.iter().copied();
        let x = xs.map_parts(&mut |_, v| Ok(next.next().unwrap_or(v)))?;
        let found = inverse(inner, c, x)?.parts()?;
        if found.len() != inits.len() {
            let (expected, got) = (format!("{} parts", inits.len()), format!("{} parts", found.len()));
            return Err(Error::shape("scan", "state of the inverse", expected, got));
        }
        let mask = match self.lengths {
            Some(lengths) => Some(active_mask(inner, lengths, DType::F32)?),
            None => None,
        };
        let mut before = Vec::new();
        for ((name, v), after) in found.into_iter().zip(&after) {
            let v = inner.resolve(v)?;
            let mut v = expand(inner, v, Lead::N)?;
            let (old, got) = (inner.ty(*after)?.clone(), inner.ty(v)?.clone());
            if old != got {
                return Err(Error::shape("scan", format!("carry `{name}` before the step"), old, got));
            }
            if let Some(mask) = mask {
                v = keep_ended(inner, mask, v, *after)?;
            }
            before.push(v);
        }
        Ok((after, before))
    }

    fn record<C: State, X: State, Y: State>(
        &self,
        inner: &mut Tape,
        carry: &C,
        inits: &[(String, Var)],
        xs: &X,
        sequences: &[(String, Var)],
        step: impl FnOnce(&mut Tape, C, X) -> Result<(C, Y)>,
    ) -> Result<(Builder, Y)> {
        let mut builder = Builder::default();
        for (name, v) in inits {
            let ty = inner.ty(*v)?.clone();
            builder.add_carry(inner, ty, name);
        }
        for (name, v) in sequences {
            let ty = inner.ty(*v)?.clone();
            builder.add_x(inner, &ty, name)?;
        }
        let mut states = builder.carries.clone();
        if let Horizon::Steps(k) = self.horizon {
            for h in &mut states {
                let dtype = inner.dtype(*h)?;
                let cut = chunk_start(inner, k, self.reverse, dtype)?;
                let stopped = stop_gradient(inner, *h)?;
                *h = select(inner, cut, stopped, *h)?;
            }
        }
        let mut next = states.into_iter();
        let c = carry.map_parts(&mut |_, v| Ok(next.next().unwrap_or(v)))?;
        let mut next = builder.xs.clone().into_iter();
        let x = xs.map_parts(&mut |_, v| Ok(next.next().unwrap_or(v)))?;
        let (new_carry, y) = step(inner, c, x)?;

        let new = new_carry.parts()?;
        if new.len() != inits.len() {
            let (expected, got) = (format!("{} parts", inits.len()), format!("{} parts", new.len()));
            return Err(Error::shape("scan", "carry", expected, got));
        }
        let mask = match self.lengths {
            Some(lengths) => Some(active_mask(inner, lengths, DType::F32)?),
            None => None,
        };
        for (i, (name, v)) in new.into_iter().enumerate() {
            let v = inner.resolve(v)?;
            let mut v = expand(inner, v, Lead::N)?;
            let (old, got) = (inner.ty(builder.carries[i])?.clone(), inner.ty(v)?.clone());
            if old != got {
                return Err(Error::shape("scan", format!("carry `{name}` after the step"), old, got));
            }
            if let Some(mask) = mask {
                v = keep_ended(inner, mask, v, builder.carries[i])?;
            }
            builder.outputs.push(v);
        }
        for (_, v) in y.parts()? {
            let mut v = inner.resolve(v)?;
            if let Some(mask) = mask {
                v = expand(inner, v, Lead::N)?;
                let zero = inner.scalar(v, 0.0)?;
                v = keep_ended(inner, mask, v, zero)?;
            }
            builder.stack(v);
        }
        Ok((builder, y))
    }
}
