//! Binary cross-entropy of the sigmoid of logits.

use retrograd_engine::core_ops::neg;
use retrograd_engine::expr::{Binary, Expr, Num, Unary};
use retrograd_engine::op::{Cotangents, Io, Pointwise};
use retrograd_engine::{Op, Result, Tape, Var};
use smallvec::smallvec;

use crate::rule::{pointwise_op, sum_options};
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{mul, sigmoid, sub};

/// Binary cross-entropy of the sigmoid of a logit with a target probability, element by element, in nats:
/// `y = max(x, 0) − x t + log1p(exp(−|x|))`, which is `−t log σ(x) − (1 − t) log(1 − σ(x))`; real.
///
/// Shapes: `logits [..]`, `targets [..] -> y`, broadcasting.   Rule: `logits_bar = (σ(x) − t) · y_bar`,
/// `targets_bar = −x · y_bar`; keeps both.   Domain: all real numbers; nothing overflows, and at `t` of 0 or 1 nothing
/// cancels.   Errors: sizes that do not broadcast; complex inputs.
pub fn bce_with_logits(tape: &mut Tape, logits: Var, targets: Var) -> Result<Var> {
    tape.push(BceWithLogits, &[logits, targets])
}

#[derive(Clone, Copy, Debug)]
struct BceWithLogits;

impl Pointwise for BceWithLogits {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let zero = e.constant(0.0);
        let positive = e.zip(Binary::Max, x[0], zero);
        let product = e.mul(x[0], x[1]);
        let linear = e.sub(positive, product);
        let size = e.map(Unary::Abs, x[0]);
        let size = e.neg(size);
        let small = e.map(Unary::Exp, size);
        let rest = e.map(Unary::Log1p, small);
        e.add(linear, rest)
    }
}

impl BceWithLogits {
    /// `(σ(x) − t) · v`.
    fn by_logits(tape: &mut Tape, io: Io<'_>, v: Var) -> Result<Var> {
        let p = sigmoid(tape, io.inputs[0])?;
        let surplus = sub(tape, p, io.inputs[1])?;
        mul(tape, surplus, v)
    }

    /// `−x · v`.
    fn by_targets(tape: &mut Tape, io: Io<'_>, v: Var) -> Result<Var> {
        let product = mul(tape, io.inputs[0], v)?;
        neg(tape, product)
    }
}

impl Op for BceWithLogits {
    pointwise_op!("bce_with_logits", real);

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let x_bar = if io.needs[0] { Some(BceWithLogits::by_logits(tape, io, y_bar)?) } else { None };
        let t_bar = if io.needs[1] { Some(BceWithLogits::by_targets(tape, io, y_bar)?) } else { None };
        Ok(smallvec![x_bar, t_bar])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let from_x = x_dots[0].map(|d| BceWithLogits::by_logits(tape, io, d)).transpose()?;
        let from_t = x_dots[1].map(|d| BceWithLogits::by_targets(tape, io, d)).transpose()?;
        sum_options(tape, from_x, from_t)
    }
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "bce_with_logits",
    summary: "binary cross-entropy of the sigmoid",
    cases: &[
        Case {
            label: "equal shapes",
            inputs: &[Arg::real("N C", Domain::AwayFromZero), Arg::real("N C", Domain::Unit)],
            build: |tape, x| bce_with_logits(tape, x[0], x[1]),
        },
        Case {
            label: "broadcast",
            inputs: &[Arg::real("N B C", Domain::AwayFromZero), Arg::real("C", Domain::Unit)],
            build: |tape, x| bce_with_logits(tape, x[0], x[1]),
        },
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, r};

    #[test]
    fn large_logits_neither_overflow_nor_cancel() -> Result<()> {
        let op = |tape: &mut Tape, x: &[Var]| bce_with_logits(tape, x[0], x[1]);
        let tiny = (-40f64).exp();
        check(
            op,
            &[false, false],
            &[
                (&[r(0.0), r(0.5)], r(2f64.ln()), &[r(0.0), r(0.0)]),
                (&[r(1000.0), r(0.0)], r(1000.0), &[r(1.0), r(-1000.0)]),
                (&[r(-1000.0), r(1.0)], r(1000.0), &[r(-1.0), r(1000.0)]),
                (&[r(-40.0), r(0.0)], r(tiny), &[r(tiny), r(40.0)]),
            ],
        )?;
        // At a target of 1 the linear terms cancel exactly.
        check(op, &[false, false], &[(&[r(40.0), r(1.0)], r(tiny), &[r(0.0), r(-40.0)])])
    }
}
