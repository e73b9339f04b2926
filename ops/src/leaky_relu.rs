//! Leaky rectifier.

use retrograd_engine::core_ops::select;
use retrograd_engine::expr::{Binary, Expr, Num};
use retrograd_engine::op::Pointwise;
use retrograd_engine::{Error, Op, Result, Tape, Var};

use crate::compare::positive;
use crate::rule::{pointwise_op, rules_through};
use crate::scale;
use crate::spec::{Arg, Case, Domain, OpSpec};

/// Leaky rectifier, element by element: `y = x` where `x > 0`, else `slope · x`; real.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = y_bar` where `x > 0`, else `slope · y_bar`; keeps `x`. At 0 the
/// derivative is `slope`.   Domain: all real numbers.   Errors: complex input, a slope that is not finite.
pub fn leaky_relu(tape: &mut Tape, x: Var, slope: f64) -> Result<Var> {
    if !slope.is_finite() {
        return Err(Error::argument("leaky_relu", format!("slope = {slope}, expected a finite number")));
    }
    tape.push(LeakyRelu { slope }, &[x])
}

#[derive(Clone, Copy, Debug)]
struct LeakyRelu {
    slope: f64,
}

impl Pointwise for LeakyRelu {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let (zero, slope) = (e.constant(0.0), e.constant(self.slope));
        let (above, scaled) = (e.zip(Binary::Lt, zero, x[0]), e.mul(x[0], slope));
        e.select(above, x[0], scaled)
    }
}

impl LeakyRelu {
    /// `v` or `slope · v`.
    fn through(&self, tape: &mut Tape, v: Var, x: Var) -> Result<Var> {
        let (above, scaled) = (positive(tape, x)?, scale(tape, v, self.slope)?);
        select(tape, above, v, scaled)
    }
}

impl Op for LeakyRelu {
    pointwise_op!("leaky_relu", real);
    rules_through!(input);
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "leaky_relu",
    summary: "x where x > 0, else slope · x",
    cases: &[Case {
        label: "slope 0.1",
        inputs: &[Arg::real("N C", Domain::Separated)],
        build: |tape, x| leaky_relu(tape, x[0], 0.1),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_real, refuses_complex};

    #[test]
    fn values() -> Result<()> {
        let op = |tape: &mut Tape, x| leaky_relu(tape, x, 0.25);
        check_real(op, &[(2.0, 2.0, 1.0), (-2.0, -0.5, 0.25), (0.0, 0.0, 0.25)])?;
        assert!(refuses_complex(op)?);
        let mut tape = Tape::new();
        let x = tape.param("x", retrograd_engine::DType::F32, [1])?;
        assert!(leaky_relu(&mut tape, x, f64::NAN).is_err());
        Ok(())
    }
}
