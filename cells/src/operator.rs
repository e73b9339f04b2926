//! What a recurrent operator is: the linear maps from state to state inside a cell.

use std::ops::Range;

use retrograd_engine::{Tape, Var};

use crate::declare::Declare;
use crate::error::Result;
use crate::init::Init;

/// The recurrent matrices a cell asks an operator for.
#[derive(Clone, Copy, Debug)]
pub struct Recurrence<'a> {
    /// Name the parameters are declared under, inside the cell's scope.
    pub name: &'a str,
    /// One square matrix for each gate; `[""]` for a cell with a single, unnamed one.
    pub gates: &'a [&'a str],
    /// Size of the state, `N`.
    pub n: usize,
    /// Whether the state is complex.
    pub complex: bool,
    /// How a matrix (or each factor of one) begins; `None` leaves it to the operator.
    pub init: Option<Init>,
}

impl Recurrence<'_> {
    /// Name of what belongs to one gate: `W`, or `W.gate` where gates have names.
    pub fn gate_name(&self, gate: &str) -> String {
        if gate.is_empty() { self.name.to_string() } else { format!("{}.{gate}", self.name) }
    }
}

/// A family of linear maps `C^N -> C^N` (or real) by its parameters: dense, Kronecker-factored, ...
///
/// A cell asks for as many maps as it has gates; the operator declares them under `recurrence.name`.
pub trait RecurrentOperator: std::fmt::Debug + Send + Sync {
    /// Name in the table.
    fn name(&self) -> &'static str;

    /// Declares the parameters of every gate's map. Errors: sizes the family does not have.
    fn declare(&self, ctx: &mut Declare<'_>, recurrence: Recurrence<'_>) -> Result<Box<dyn BoundOperator>>;
}

/// Maps with declared parameters.
pub trait BoundOperator: std::fmt::Debug + Send + Sync {
    /// `W_gate h` for every row `h`: `[.., N] -> [.., N]`.
    fn apply(&self, tape: &mut Tape, h: Var, gate: usize) -> retrograd_engine::Result<Var>;

    /// `W_gate (W_gate h)`; families whose squares are as cheap as they are themselves do it in one.
    fn apply_twice(&self, tape: &mut Tape, h: Var, gate: usize) -> retrograd_engine::Result<Var> {
        let once = self.apply(tape, h, gate)?;
        self.apply(tape, once, gate)
    }

    /// `W_gate h` for several gates of the same `h`; families that can do them in one product do.
    fn apply_all(&self, tape: &mut Tape, h: Var, gates: Range<usize>) -> retrograd_engine::Result<Vec<Var>> {
        gates.map(|gate| self.apply(tape, h, gate)).collect()
    }
}
