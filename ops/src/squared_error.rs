//! Squared difference.

use retrograd_engine::{Result, Tape, Var};

use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{abs2, sub};

/// Squared difference, element by element: `y = |a − b|²`, real.
///
/// Shapes: `a [..]`, `b [..] -> y`, broadcasting.   Rule: `a_bar = 2 (a − b) · y_bar = −b_bar`; keeps both.
/// Domain: all numbers.   Errors: sizes that do not broadcast, single with double precision.
pub fn squared_error(tape: &mut Tape, a: Var, b: Var) -> Result<Var> {
    let difference = sub(tape, a, b)?;
    abs2(tape, difference)
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "squared_error",
    summary: "squared difference",
    cases: &[Case {
        label: "broadcast",
        inputs: &[Arg::either("N B C", Domain::Any), Arg::either("B 1", Domain::Any)],
        build: |tape, x| squared_error(tape, x[0], x[1]),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check, r};

    #[test]
    fn values() -> Result<()> {
        let op = |tape: &mut Tape, x: &[Var]| squared_error(tape, x[0], x[1]);
        check(op, &[false, false], &[(&[r(1.0), r(4.0)], r(9.0), &[r(-6.0), r(6.0)])])?;
        check(op, &[true, false], &[(&[c(1.0, 2.0), r(4.0)], r(13.0), &[c(-6.0, 4.0), r(6.0)])])
    }
}
