//! Products with the Gauss-Newton matrix and the Fisher information, through scans, without ever making either.
//!
//! For a loss `ℓ(z(θ))` with Jacobian `J = ∂z/∂θ` of its outputs and Hessian `H = ∂²ℓ/∂z²` by its outputs, the generalized
//! Gauss-Newton matrix is `Jᵀ H J` (Schraudolph 2002, "Fast curvature matrix-vector products for second-order gradient
//! descent"). Where `ℓ` is minus the logarithm of a distribution with natural parameters `z` (softmax with
//! cross-entropy, sigmoid with cross-entropy, squared error), that is the Fisher information (Martens 2014, "New insights
//! and perspectives on the natural gradient method"). A product with a direction is one forward and one reverse
//! derivative: [`jvp`], the product with `H`, [`vjp`].

use crate::autodiff::{jvp, vjp};
use crate::core_ops::zeros_like;
use crate::error::{Error, Result};
use crate::tape::{Tape, Var};

/// `Jᵀ H J d` for values `wrt` and a direction of the types of `wrt`, with `H` given as what it does to tangents of the
/// outputs.
///
/// `hessian(tape, i, u)` records `H u` for output number `i`, where outputs are independent in the loss. Zeros where
/// outputs do not depend on a value.
///
/// ```
/// use retrograd_engine::curvature::gauss_newton_product;
/// use retrograd_engine::{DType, Tape, Shape, matmul};
/// # fn main() -> retrograd_engine::Result<()> {
/// let mut tape = Tape::new();
/// let w = tape.param("w", DType::F64, [2, 2])?;
/// let d = tape.input("d", DType::F64, Shape::shared([2, 2]))?;
/// let x = tape.input("x", DType::F64, Shape::rows([2]))?;
/// let z = matmul(&mut tape, x, w)?;
/// // Half the sum of squares has the Hessian 1.
/// let product = gauss_newton_product(&mut tape, &[z], &mut |_, _, u| Ok(u), &[w], &[d])?;
/// assert_eq!(tape.ty(product[0])?, tape.ty(w)?);
/// # Ok(()) }
/// ```
///
/// Errors: numbers of values and directions that differ; an operation without a rule; what `hessian` returns.
pub fn gauss_newton_product(
    tape: &mut Tape,
    outputs: &[Var],
    hessian: &mut dyn FnMut(&mut Tape, usize, Var) -> Result<Var>,
    wrt: &[Var],
    direction: &[Var],
) -> Result<Vec<Var>> {
    let tangents = tangents(tape, outputs, wrt, direction)?;
    let mut seeds = Vec::new();
    for (i, (&z, u)) in outputs.iter().zip(tangents).enumerate() {
        if let Some(u) = u {
            seeds.push((z, hessian(tape, i, u)?));
        }
    }
    pull_back(tape, &seeds, wrt)
}

/// [`gauss_newton_product`] with the Hessian of a loss that is recorded from the outputs.
///
/// The loss may read nothing else that depends on `wrt`. Errors: as there.
pub fn gauss_newton_of_loss(
    tape: &mut Tape,
    loss: Var,
    outputs: &[Var],
    wrt: &[Var],
    direction: &[Var],
) -> Result<Vec<Var>> {
    let tangents = tangents(tape, outputs, wrt, direction)?;
    let bars = crate::autodiff::grad(tape, loss, outputs)?;
    let along: Vec<(Var, Var)> =
        outputs.iter().zip(&tangents).filter_map(|(&z, u)| u.map(|u| (z, u))).collect();
    let curved = jvp(tape, &bars, &along)?;
    let seeds: Vec<(Var, Var)> = outputs.iter().zip(curved).filter_map(|(&z, c)| c.map(|c| (z, c))).collect();
    pull_back(tape, &seeds, wrt)
}

/// `J d`, output by output; `None` where an output does not depend on any value.
///
/// Errors: numbers of values and directions that differ; an operation without a rule.
pub fn tangents(
    tape: &mut Tape,
    outputs: &[Var],
    wrt: &[Var],
    direction: &[Var],
) -> Result<Vec<Option<Var>>> {
    if wrt.len() != direction.len() {
        let got = format!("{} values, {} directions", wrt.len(), direction.len());
        return Err(Error::argument("curvature", got));
    }
    for (&w, &d) in wrt.iter().zip(direction) {
        if tape.ty(w)? != tape.ty(d)? {
            return Err(Error::shape("curvature", "direction", tape.ty(w)?, tape.ty(d)?));
        }
    }
    let seeds: Vec<(Var, Var)> = wrt.iter().copied().zip(direction.iter().copied()).collect();
    jvp(tape, outputs, &seeds)
}

fn pull_back(tape: &mut Tape, seeds: &[(Var, Var)], wrt: &[Var]) -> Result<Vec<Var>> {
    let bars = vjp(tape, seeds, wrt)?;
    wrt.iter()
        .zip(bars)
        .map(|(&w, bar)| match bar {
            Some(bar) => Ok(bar),
            None => zeros_like(tape, w),
        })
        .collect()
}
