//! Layer normalisation over the last axis.

use retrograd_engine::{Result, Tape, Var};

use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{abs2, add, div, mean, mul, shift, sqrt, sub};

/// Layer normalisation over the last axis: `y = gain · (x − mean) / sqrt(var + eps) + bias`, with the variance of
/// the population (divisor `H`).
///
/// Shapes: `x [.., H]`, `gain [H]`, `bias [H]` `-> y [.., H]`, real.   Rule: by those of its parts.
/// Domain: all finite `x`, `eps > 0`.   Errors: sizes that do not broadcast.
/// Source: Ba, Kiros, Hinton 2016, *Layer normalization*.
pub fn layer_norm(tape: &mut Tape, x: Var, gain: Var, bias: Var, eps: f64) -> Result<Var> {
    let m = mean(tape, x, &[-1], true)?;
    let centered = sub(tape, x, m)?;
    let squares = abs2(tape, centered)?;
    let var = mean(tape, squares, &[-1], true)?;
    let var = shift(tape, var, eps)?;
    let sd = sqrt(tape, var)?;
    let y = div(tape, centered, sd)?;
    let y = mul(tape, y, gain)?;
    add(tape, y, bias)
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "layer_norm",
    summary: "layer normalisation over the last axis",
    cases: &[Case {
        label: "rows",
        inputs: &[
            Arg::real("N 4", Domain::Separated),
            Arg::real("4", Domain::Any),
            Arg::real("4", Domain::Any),
        ],
        build: |t, x| layer_norm(t, x[0], x[1], x[2], 1e-5),
    }],
};
