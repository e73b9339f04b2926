//! Rectifier of both parts of a complex number.

use retrograd_engine::core_ops::{imag, real};
use retrograd_engine::{Error, Result, Tape, Var};

use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{complex, relu};

/// Rectifier of both parts: `y = max(Re x, 0) + i max(Im x, 0)`; complex.
///
/// Shapes: `x [..] -> y [..]`.   Rule: each part of `y_bar` where that part of `x` is positive, else 0. Not
/// holomorphic.   Domain: all complex numbers.   Errors: real input ([`relu()`](crate::relu()) takes it).
/// Source: Trabelsi et al. (2018), Deep Complex Networks, ICLR.
pub fn crelu(tape: &mut Tape, x: Var) -> Result<Var> {
    only_complex("crelu", tape, x)?;
    let (re, im) = (real(tape, x)?, imag(tape, x)?);
    let (re, im) = (relu(tape, re)?, relu(tape, im)?);
    complex(tape, re, im)
}

/// Errors for a real input of an operation on complex numbers.
pub(crate) fn only_complex(op: &'static str, tape: &Tape, x: Var) -> Result<()> {
    let dtype = tape.dtype(x)?;
    if dtype.is_complex() { Ok(()) } else { Err(Error::dtype(op, "input 0", "c32 or c64", dtype)) }
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "crelu",
    summary: "rectifier of both parts",
    cases: &[Case {
        label: "away from the axes",
        inputs: &[Arg::complex("N C", Domain::Separated)],
        build: |tape, x| crelu(tape, x[0]),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check, r};

    #[test]
    fn values() -> Result<()> {
        // Cotangents other than 1, to see both parts: of L = Re y + Im y.
        let both = |tape: &mut Tape, x: &[Var]| {
            let y = crelu(tape, x[0])?;
            let (re, im) = (real(tape, y)?, imag(tape, y)?);
            crate::add(tape, re, im)
        };
        check(
            both,
            &[true],
            &[
                (&[c(1.0, 2.0)], r(3.0), &[c(1.0, 1.0)]),
                (&[c(-1.0, 2.0)], r(2.0), &[c(0.0, 1.0)]),
                (&[c(1.0, -2.0)], r(1.0), &[c(1.0, 0.0)]),
                (&[c(0.0, 0.0)], r(0.0), &[c(0.0, 0.0)]),
            ],
        )?;
        let mut tape = Tape::new();
        let x = tape.param("x", retrograd_engine::DType::F32, [1])?;
        assert!(matches!(crelu(&mut tape, x), Err(Error::DType { .. })));
        Ok(())
    }
}
