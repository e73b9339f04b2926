//! Fixed points: `z = f(z)` for every row, solved inside a recording, differentiated in one of three ways.
//!
//! | solver | next iterate, `d = f(z) − z` | source |
//! |---|---|---|
//! | [`Solver::Damped`] | `z + η_k d` | iRNN: Kag, Zhang, Saligrama, 2020, ICLR |
//! | [`Solver::Anderson`] | least-squares mixture of the last iterates | Anderson, 1965, J. ACM; Walker, Ni, 2011, SINUM |
//! | [`Solver::Broyden`] | `z − B d`, `B` updated by the "good" formula | Broyden, 1965, Mathematics of Computation |
//!
//! | gradient | rule | source |
//! |---|---|---|
//! | [`Gradient::Unrolled`] | that of the iterations as they were made | |
//! | [`Gradient::Implicit`] | `u = y_bar + J* u`, `J = ∂f/∂z` at the fixed point; then the cotangents of `f` for `u` | implicit function theorem; Almeida, Pineda, 1987; Bai, Kolter, Koltun, 2019, NeurIPS |
//! | [`Gradient::Phantom`] | a few damped iterations from the fixed point, unrolled | Geng et al., 2021, "On training implicit models", NeurIPS |
//!
//! All of it is recorded operations, so a fixed point works inside a scan, under any plan, in any element type, and
//! with implicit and phantom gradients nothing of the solver is kept for the adjoint.

mod implicit;
mod solvers;

use retrograd_engine::core_ops::stop_gradient;
use retrograd_engine::{Error, Result, Tape, Var};

use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{add, le, sub};
use solvers::{Iterates, distance, solve};

/// How a fixed point is looked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Solver {
    /// `z + η_k (f(z) − z)`.
    Damped {
        /// `η_k`, one for each step; the last holds for all steps after it. `[1.0]` is plain iteration.
        rates: Vec<Rate>,
    },
    /// The combination of the last iterates whose residual is smallest by linear extrapolation.
    Anderson {
        /// Differences of iterates that are combined, 1 to 8.
        memory: usize,
        /// Share of the residual in the next iterate, more than 0.
        mixing: f64,
    },
    /// Broyden's "good" method from `B = −1`, all updates kept: `K` steps record `K²` products of vectors, so this is
    /// for few steps.
    Broyden,
}

impl Solver {
    /// Plain iteration damped by a constant.
    pub fn damped(rate: f64) -> Solver {
        Solver::Damped { rates: vec![Rate::Constant(rate)] }
    }
}

/// A step size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// The same in every run.
    Constant(f64),
    /// A recorded value, which may be learned (with [`Gradient::Unrolled`]).
    Value(Var),
}

/// How a fixed point is differentiated.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Gradient {
    /// Through the iterations as they were made; can be differentiated again.
    #[default]
    Unrolled,
    /// By the implicit function theorem. The linear system of the adjoint is solved by the same kinds of solver, of
    /// constant rates. A row whose system is not solved to `tolerance` after `steps` has the cotangent NaN: an adjoint
    /// that did not converge is never used silently. A `tolerance` of 0 asks for exactly `steps` steps and no check.
    Implicit {
        /// Solver of the adjoint system.
        solver: Solver,
        /// Most steps.
        steps: usize,
        /// Largest relative residual.
        tolerance: f64,
    },
    /// Through `steps` more iterations of rate `rate` from the fixed point: cheap, inexact, of bounded size.
    Phantom {
        /// Iterations that gradients go through, at least 1.
        steps: usize,
        /// Their rate.
        rate: f64,
    },
}

/// What [`fixed_point`] is to do.
#[derive(Clone, Debug, PartialEq)]
pub struct FixedPoint {
    /// How it is looked for.
    pub solver: Solver,
    /// How it is differentiated.
    pub gradient: Gradient,
    /// Most iterations, at least 1.
    pub steps: usize,
    /// A row has converged when `‖f(z) − z‖ ≤ tolerance (1 + ‖z‖)`, and then stays as it is. With 0 every row makes all
    /// steps.
    pub tolerance: f64,
}

/// What [`fixed_point`] found.
#[derive(Clone, Copy, Debug)]
pub struct Solution {
    /// The fixed point, of the type of `f(z)`.
    pub z: Var,
    /// `‖f(z) − z‖ / (1 + ‖z‖)` of each row, where the solver stopped; ordinary axes are of size 1.
    pub residual: Var,
    /// Iterations each row made.
    pub iterations: Var,
    /// 1 for the rows that have converged, 0 for those that have not (NaN has not).
    pub converged: Var,
}

/// A fixed point `z = f(z)` for every row, from `z0`.
///
/// Rows are independent: each stops where it has converged, others go on. What does not converge is no error, since it
/// is known when the program runs and not before: it is in [`Solution::converged`], and whoever calls this shows it.
/// [`Solution::residual`], [`Solution::iterations`] and [`Solution::converged`] have no gradient; what is not used of them
/// is not computed.
///
/// Shapes: `z0 [.., a, ..] -> z` of the shape of `f(z0)`, which must have the same ordinary axes, at least one.
/// Rule: see [`Gradient`]. Implicit gradients cannot be differentiated again: that is an error (a tangent of theirs is NaN),
/// not a wrong number.
/// Domain: Anderson and Broyden are for real numbers.
/// Errors: no steps; a `memory`, `mixing`, `rate` or `tolerance` out of its range; an `f` whose result is of another
/// type or size than `z`; what `f` returns.
///
/// ```
/// use retrograd_engine::{DType, Params, Program, RunOptions, Shape, Tape, Tensor, grad};
/// use retrograd_ops::{FixedPoint, Gradient, Solver, add, fixed_point, matmul, mean_all, tanh};
///
/// let mut tape = Tape::new();
/// let w = tape.param("w", DType::F64, [4, 4])?;
/// let x = tape.input("x", DType::F64, Shape::rows([4]))?;
/// let options = FixedPoint {
///     solver: Solver::Anderson { memory: 3, mixing: 1.0 },
///     gradient: Gradient::Implicit { solver: Solver::damped(1.0), steps: 60, tolerance: 1e-12 },
///     steps: 30,
///     tolerance: 1e-12,
/// };
/// let found = fixed_point(&mut tape, x, &options, |tape, z| {
///     let wz = matmul(tape, z, w)?;
///     let a = add(tape, wz, x)?;
///     tanh(tape, a)
/// })?;
/// let loss = mean_all(&mut tape, found.z)?;
/// let w_bar = grad(&mut tape, loss, &[w])?[0];
/// let mut program = Program::new(&tape, &[w_bar, found.converged], RunOptions::default())?;
/// let mut values = Params::new();
/// values.insert("w", Tensor::full(DType::F64, [4, 4], 0.1)?);
/// values.insert("x", Tensor::full(DType::F64, [2, 4], 0.3)?);
/// let out = program.run(&[&values])?;
/// assert!(out[0].is_finite() && out[1].get(0).re == 1.0 && out[1].get(1).re == 1.0);
/// # Ok::<(), retrograd_engine::Error>(())
/// ```
pub fn fixed_point(
    tape: &mut Tape,
    z0: Var,
    options: &FixedPoint,
    mut f: impl FnMut(&mut Tape, Var) -> Result<Var>,
) -> Result<Solution> {
    check(tape, z0, options)?;
    let f: &mut dyn FnMut(&mut Tape, Var) -> Result<Var> = &mut f;
    let FixedPoint { solver, gradient, steps, tolerance } = options;
    let start = match gradient {
        Gradient::Unrolled => z0,
        Gradient::Implicit { .. } | Gradient::Phantom { .. } => stop_gradient(tape, z0)?,
    };
    let Iterates { z: last, iterations } = solve(tape, start, solver, *steps, *tolerance, f)?;
    let z = match gradient {
        Gradient::Unrolled => last,
        Gradient::Implicit { solver, steps, tolerance } => {
            let fixed = stop_gradient(tape, last)?;
            let image = f(tape, fixed)?;
            implicit::implicit(tape, image, fixed, solver, *steps, *tolerance)?
        }
        Gradient::Phantom { steps, rate } => {
            let fixed = stop_gradient(tape, last)?;
            solve(tape, fixed, &Solver::damped(*rate), *steps, 0.0, f)?.z
        }
    };
    // Judged where the solver stopped, whatever was done to it for its gradient.
    let detached = stop_gradient(tape, last)?;
    let image = f(tape, detached)?;
    let image = stop_gradient(tape, image)?;
    let d = sub(tape, image, detached)?;
    let residual = distance(tape, d, detached)?;
    let limit = tape.scalar(residual, *tolerance)?;
    let converged = le(tape, residual, limit)?;
    Ok(Solution { z, residual, iterations, converged })
}

fn check(tape: &Tape, z0: Var, options: &FixedPoint) -> Result<()> {
    let ty = tape.ty(z0)?;
    if ty.shape.dims.is_empty() {
        return Err(Error::shape("fixed_point", "z0", "at least one ordinary axis", &ty.shape));
    }
    check_solver(tape, z0, &options.solver, options.steps, options.tolerance)?;
    match &options.gradient {
        Gradient::Unrolled => Ok(()),
        Gradient::Implicit { solver, steps, tolerance } => {
            let learned = |rate: &Rate| matches!(rate, Rate::Value(_));
            if matches!(solver, Solver::Damped { rates } if rates.iter().any(learned)) {
                return Err(Error::argument(
                    "fixed_point",
                    "implicit gradients: the adjoint's rates must be constants",
                ));
            }
            check_solver(tape, z0, solver, *steps, *tolerance)
        }
        Gradient::Phantom { steps, rate } => check_solver(tape, z0, &Solver::damped(*rate), *steps, 0.0),
    }
}

fn check_solver(tape: &Tape, z0: Var, solver: &Solver, steps: usize, tolerance: f64) -> Result<()> {
    let fail = |what: String| Err(Error::argument("fixed_point", what));
    if steps == 0 {
        return fail("0 steps, at least 1".into());
    }
    if !(tolerance >= 0.0 && tolerance.is_finite()) {
        return fail(format!("tolerance {tolerance}, expected a number from 0"));
    }
    let real = || match tape.dtype(z0)? {
        dtype if dtype.is_complex() => {
            Err(Error::dtype("fixed_point", "z0 of Anderson or Broyden", "f32 or f64", dtype))
        }
        _ => Ok(()),
    };
    match solver {
        Solver::Damped { rates } if rates.is_empty() => fail("no rates, at least 1".into()),
        Solver::Damped { rates } => {
            let unfit = |rate: &Rate| matches!(rate, Rate::Constant(rate) if !rate.is_finite());
            match rates.iter().find(|rate| unfit(rate)) {
                Some(rate) => fail(format!("rate {rate:?}, expected a finite number")),
                None => Ok(()),
            }
        }
        Solver::Anderson { memory, mixing } => {
            if !(1..=8).contains(memory) {
                return fail(format!("memory {memory}, expected 1 to 8"));
            }
            if !(*mixing > 0.0 && mixing.is_finite()) {
                return fail(format!("mixing {mixing}, expected more than 0"));
            }
            real()
        }
        Solver::Broyden => real(),
    }
}

/// `tanh(0.2 (z ⊙ w) + x)` from 0.1: a contraction for every sample.
fn example(tape: &mut Tape, x: &[Var], solver: Solver) -> Result<Var> {
    let options = FixedPoint { solver, gradient: Gradient::Unrolled, steps: 4, tolerance: 0.0 };
    let z0 = crate::scale(tape, x[0], 0.1)?;
    let found = fixed_point(tape, z0, &options, |tape, z| {
        let wz = crate::mul(tape, z, x[1])?;
        let wz = crate::scale(tape, wz, 0.2)?;
        let a = add(tape, wz, x[0])?;
        crate::tanh(tape, a)
    })?;
    Ok(found.z)
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "fixed_point",
    summary: "fixed point of a function, by damped iteration, Anderson or Broyden",
    cases: &[
        Case {
            label: "damped, unrolled",
            inputs: &[Arg::real("N C", Domain::Any), Arg::real("C", Domain::Any)],
            build: |tape, x| example(tape, x, Solver::damped(0.7)),
        },
        Case {
            label: "Anderson, unrolled",
            inputs: &[Arg::real("N 3", Domain::Any), Arg::real("3", Domain::Any)],
            build: |tape, x| example(tape, x, Solver::Anderson { memory: 1, mixing: 0.8 }),
        },
    ],
};

#[cfg(test)]
mod tests;
