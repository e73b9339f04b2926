//! Conjugate gradients on products with a matrix that is never made: Hessian-free optimisation.

use retrograd_engine::Params;

use super::vector::{add_scaled, dot, scaled};
use crate::error::{Error, Result};

/// How long [`conjugate_gradients`] goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CgOptions {
    /// Most products.
    pub iterations: usize,
    /// Norm of what is left, relative to that of `b`, at which it stops.
    pub tolerance: f64,
    /// Multiple of the identity added to the matrix.
    pub damping: f64,
}

impl Default for CgOptions {
    fn default() -> CgOptions {
        CgOptions { iterations: 250, tolerance: 1e-6, damping: 0.0 }
    }
}

/// What [`conjugate_gradients`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct CgResult {
    /// `x` of `(F + λ I) x = b`.
    pub x: Params,
    /// Products made.
    pub iterations: usize,
    /// Norm of what is left, relative to that of `b`.
    pub residual: f64,
}

/// Solves `(F + λ I) x = b` from `x = 0` for a symmetric positive semidefinite `F` given by its products, by conjugate
/// gradients (Hestenes, Stiefel 1952): with the Gauss-Newton products of the engine the direction of Hessian-free
/// optimisation (Martens 2010, "Deep learning via Hessian-free optimization"). Complex tensors are pairs of reals.
///
/// ```
/// use retrograd_engine::{Params, Tensor};
/// use retrograd_optim::{CgOptions, conjugate_gradients};
/// let b: Params = [("w".to_string(), Tensor::from_slice([2], &[2.0f64, 3.0])?)].into_iter().collect();
/// let twice = |d: &Params| {
///     let mut y = d.clone();
///     for (_, t) in y.iter_mut() {
///         t.components_mut::<f64>()?.iter_mut().for_each(|x| *x *= 2.0);
///     }
///     Ok(y)
/// };
/// let found = conjugate_gradients(twice, &b, CgOptions::default())?;
/// assert!((found.x.require("w")?.get(1).re - 1.5).abs() < 1e-12);
/// # Ok::<(), retrograd_optim::Error>(())
/// ```
///
/// Errors: those of `product`; a direction along which the curvature is negative, or numbers that are not finite.
pub fn conjugate_gradients(
    mut product: impl FnMut(&Params) -> Result<Params>,
    b: &Params,
    options: CgOptions,
) -> Result<CgResult> {
    let mut x = scaled(b, 0.0)?;
    let (mut r, mut p) = (b.clone(), b.clone());
    let whole = dot(b, b)?;
    let mut rr = whole;
    let relative = |rr: f64| if whole > 0.0 { (rr / whole).sqrt() } else { 0.0 };
    let mut iterations = 0;
    while iterations < options.iterations && relative(rr) > options.tolerance {
        let mut fp = product(&p)?;
        add_scaled(&mut fp, &p, options.damping)?;
        let curvature = dot(&p, &fp)?;
        if !curvature.is_finite() || curvature < 0.0 {
            let got = format!("{curvature:e}");
            let expected = "a curvature of at least 0".into();
            return Err(Error::Mismatch { what: "conjugate gradients".into(), expected, got });
        }
        if curvature == 0.0 {
            break;
        }
        let alpha = rr / curvature;
        add_scaled(&mut x, &p, alpha)?;
        add_scaled(&mut r, &fp, -alpha)?;
        let next = dot(&r, &r)?;
        let beta = next / rr;
        rr = next;
        p = scaled(&p, beta)?;
        add_scaled(&mut p, &r, 1.0)?;
        iterations += 1;
    }
    Ok(CgResult { x, iterations, residual: relative(rr) })
}
