//! Parameters as vectors of real components.

use retrograd_engine::Params;

use crate::elementwise::{Real, check_like, with_real};
use crate::error::{Error, Result};

/// `Σ a b` over real components, in double precision; a tensor that `b` lacks counts 0.
pub(crate) fn dot(a: &Params, b: &Params) -> Result<f64> {
    let mut sum = 0.0;
    for (name, a) in a.iter() {
        let Some(b) = b.get(name) else { continue };
        check_like(|| format!("direction `{name}`"), a, b)?;
        sum += with_real!(a, name, R => {
            let pairs = a.components::<R>()?.iter().zip(b.components::<R>()?);
            Ok::<_, Error>(pairs.map(|(&a, &b)| a.wide() * b.wide()).sum::<f64>())
        })?;
    }
    Ok(sum)
}

/// `y ← y + s x` for the tensors of `y`.
pub(crate) fn add_scaled(y: &mut Params, x: &Params, s: f64) -> Result<()> {
    for (name, y) in y.iter_mut() {
        let Some(x) = x.get(name) else { continue };
        check_like(|| format!("direction `{name}`"), y, x)?;
        with_real!(y, name, R => {
            for (y, &x) in y.components_mut::<R>()?.iter_mut().zip(x.components::<R>()?) {
                *y += R::of(s * x.wide());
            }
            Ok::<_, Error>(())
        })?;
    }
    Ok(())
}

/// `s x`.
pub(crate) fn scaled(x: &Params, s: f64) -> Result<Params> {
    let mut y = x.clone();
    for (name, y) in y.iter_mut() {
        with_real!(y, name, R => {
            y.components_mut::<R>()?.iter_mut().for_each(|y| *y = R::of(s * y.wide()));
            Ok::<_, Error>(())
        })?;
    }
    Ok(y)
}
