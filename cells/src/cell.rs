//! What a cell is: a state, a step, and what others read from the state.

use retrograd_engine::layout::{Layout, layout};
use retrograd_engine::{Shape, Tape, Var};
use retrograd_ops as ops;

use crate::declare::Declare;
use crate::error::{Error, Result};
use crate::init::Init;
use crate::operator::RecurrentOperator;

/// What a sequence is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Vectors of this many real numbers, `[T,N,C]`.
    Dense(usize),
    /// Symbols below this number, `[T,N]` of `I32`. The input product is then a choice of rows of its matrix.
    Symbols(usize),
}

impl Input {
    /// Rows of an input matrix: number of channels, or of symbols.
    pub fn size(self) -> usize {
        match self {
            Input::Dense(size) | Input::Symbols(size) => size,
        }
    }
}

/// Name of a part of width 1 that counts, for every row, the steps whose inner equation was not solved. It is no part of
/// what is learned or carried from batch to batch: it begins at 0, and [`Recorded::unconverged`](crate::Recorded) is its
/// sum.
pub const UNCONVERGED: &str = "unconverged";

/// One part of a cell's state, `[N, width]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatePart {
    /// Name, as the paper's letter.
    pub name: &'static str,
    /// Size of a row.
    pub width: usize,
    /// Whether it is complex.
    pub complex: bool,
}

/// A recurrent cell, not yet given a size: what the table holds.
pub trait Cell: std::fmt::Debug + Send + Sync {
    /// Name in the table.
    fn name(&self) -> &'static str;

    /// Declares the parameters of one layer, its recurrent matrices through `operator`.
    ///
    /// Errors: sizes that do not fit; what the operator returns.
    fn declare(
        &self,
        ctx: &mut Declare<'_>,
        input: Input,
        hidden: usize,
        operator: &dyn RecurrentOperator,
    ) -> Result<Box<dyn BoundCell>>;
}

/// A cell with declared parameters: one layer.
pub trait BoundCell: std::fmt::Debug + Send + Sync {
    /// Parts of the state, in order.
    fn state(&self) -> Vec<StatePart>;

    /// The state after one more element `x`, from the state before it; parts in the order of
    /// [`BoundCell::state`].
    fn step(&self, tape: &mut Tape, state: &[Var], x: Var) -> retrograd_engine::Result<Vec<Var>>;

    /// The state before an element `x`, from the state after it. Errors: there is no way back
    /// ([`BoundCell::expansion`]).
    fn inverse(&self, tape: &mut Tape, after: &[Var], x: Var) -> retrograd_engine::Result<Vec<Var>> {
        let _ = (tape, after, x);
        Err(retrograd_engine::Error::Argument {
            op: "inverse",
            what: "the step of this cell has none".into(),
        })
    }

    /// Of cells whose steps can be inverted: most by which [`BoundCell::inverse`] enlarges an error of the state, at
    /// least 1; see [`Scan::run_reversible`](retrograd_engine::Scan::run_reversible).
    fn expansion(&self) -> Option<f64> {
        None
    }

    /// What the next layer and the read-out see: real, `[.., output_width]`. The first part unless the cell says
    /// otherwise.
    fn output(&self, tape: &mut Tape, state: &[Var]) -> retrograd_engine::Result<Var> {
        let _ = tape;
        Ok(state[0])
    }

    /// Size of a row of [`BoundCell::output`].
    fn output_width(&self) -> usize {
        self.state()[0].width
    }

    /// Of cells whose next state solves an equation: `F(g)`, the right side whose zero `g` it is, or what inner steps
    /// move `g` by. `[N, H]` like `g`. For looking inside; training does not need it.
    fn inner(&self, tape: &mut Tape, state: &[Var], x: Var, g: Var) -> retrograd_engine::Result<Option<Var>> {
        let _ = (tape, state, x, g);
        Ok(None)
    }

    /// How a learned first state begins.
    fn first_state(&self) -> Init {
        Init::Zeros
    }
}

/// The input side of a cell: `U x + b` for every gate.
#[derive(Clone, Copy, Debug)]
pub struct InputMap {
    u: Var,
    /// Second factor of weights of low rank.
    u_2: Option<Var>,
    b: Option<Var>,
    symbols: bool,
    gates: usize,
    n: usize,
    /// Seed and probability of keeping a symbol.
    kept: Option<(Var, f64)>,
}

impl InputMap {
    /// Declares `U [C, gates·n]`, each gate's block initialized as a matrix of its own.
    pub fn declare(
        ctx: &mut Declare<'_>,
        input: Input,
        gates: usize,
        n: usize,
        complex: bool,
        init: Init,
    ) -> Result<InputMap> {
        InputMap::declare_as(ctx, "U", input, gates, n, complex, init)
    }

    /// The same under another name than `U`.
    pub fn declare_as(
        ctx: &mut Declare<'_>,
        name: &str,
        input: Input,
        gates: usize,
        n: usize,
        complex: bool,
        init: Init,
    ) -> Result<InputMap> {
        if input.size() == 0 || n == 0 {
            return Err(Error::model(format!("input size {} and hidden size {n}, at least 1", input.size())));
        }
        let u = ctx.blocks(name, [input.size(), n], gates, complex, init)?;
        let symbols = matches!(input, Input::Symbols(_));
        let kept = ctx.symbol_dropout().filter(|_| symbols);
        Ok(InputMap { u, u_2: None, b: None, symbols, gates, n, kept })
    }

    /// The same with weights of low rank: `U [C, rank]` for all gates and `U.2 [rank, gates·n]`. `None` is full rank.
    pub fn of_rank(
        ctx: &mut Declare<'_>,
        input: Input,
        gates: usize,
        n: usize,
        rank: Option<usize>,
        init: Init,
    ) -> Result<InputMap> {
        let Some(rank) = rank else { return InputMap::declare(ctx, input, gates, n, false, init) };
        let first = InputMap::declare(ctx, input, 1, rank, false, init)?;
        let u_2 = ctx.blocks("U.2", [rank, n], gates, false, init)?;
        Ok(InputMap { u_2: Some(u_2), gates, n, ..first })
    }

    /// The same with a bias `[gates·n]` added.
    pub fn with_bias(self, b: Var) -> InputMap {
        InputMap { b: Some(b), ..self }
    }

    /// `U_g x + b_g` for every gate `g`. One product for all gates (for symbols: one choice of rows), which the
    /// plan moves out of the time loop.
    pub fn apply(&self, tape: &mut Tape, x: Var) -> retrograd_engine::Result<Vec<Var>> {
        let mut y = if self.symbols { ops::gather(tape, self.u, x)? } else { ops::matmul(tape, x, self.u)? };
        if let Some(u_2) = self.u_2 {
            y = ops::matmul(tape, y, u_2)?;
        }
        if let Some(b) = self.b {
            y = ops::add(tape, y, b)?;
        }
        if let Some((seed, keep)) = self.kept {
            y = drop_symbol(tape, y, seed, keep)?;
        }
        (0..self.gates).map(|g| block(tape, y, g, self.n)).collect()
    }
}

/// Drops whole rows of a step, or divides them by `keep`: what stands for a symbol, with its bias.
pub(crate) fn drop_symbol(tape: &mut Tape, y: Var, seed: Var, keep: f64) -> retrograd_engine::Result<Var> {
    let ty = tape.ty(y)?.clone();
    let shape = Shape::new(ty.shape.lead, vec![1; ty.shape.dims.len()]);
    let mask = ops::dropout_mask(tape, seed, keep, ty.dtype.real(), shape, SYMBOLS)?;
    ops::mul(tape, y, mask)
}

/// Stream of the masks of symbols.
const SYMBOLS: u64 = 1 << 40;

/// Columns `[gate·n, (gate+1)·n)` of the last axis.
pub(crate) fn block(tape: &mut Tape, x: Var, gate: usize, n: usize) -> retrograd_engine::Result<Var> {
    let axis = tape.shape(x)?.dims.len().saturating_sub(1);
    layout(tape, x, Layout::Slice { axis, start: gate * n, len: n })
}
