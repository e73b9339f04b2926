//! Weight noise: every update is computed at parameters moved by Gaussian noise.
//!
//! Graves 2011, *Practical variational inference for neural networks*: a regularizer for small data sets, used by
//! the polyphonic-music protocol of Chung et al. 2014 with a standard deviation of 0.075. The noise of an update
//! depends on the seed and the number of the update alone, so a resumed run draws the same.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use retrograd_engine::{DType, Element, Params, Tensor};

use crate::run::Result;

/// A copy of `params` with Gaussian noise of standard deviation `sd` added to every real component of those in
/// `noisy`.
pub(super) fn with_noise(
    params: &Params,
    noisy: &dyn Fn(&str) -> bool,
    sd: f64,
    seed: u64,
) -> Result<Params> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut out = params.clone();
    for (name, tensor) in out.iter_mut().filter(|(name, _)| noisy(name)) {
        let _ = name;
        match tensor.dtype().real() {
            DType::F32 => add::<f32>(tensor, &mut || (normal(&mut rng) * sd) as f32)?,
            DType::F64 => add::<f64>(tensor, &mut || normal(&mut rng) * sd)?,
            _ => {}
        }
    }
    Ok(out)
}

fn add<R: Element + std::ops::AddAssign>(tensor: &mut Tensor, draw: &mut dyn FnMut() -> R) -> Result<()> {
    for x in tensor.components_mut::<R>()? {
        *x += draw();
    }
    Ok(())
}

/// A standard normal number (Box and Muller 1958).
pub(super) fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let unit = |rng: &mut ChaCha8Rng| (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let (u, v) = (1.0 - unit(rng), unit(rng));
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_reproducibility() -> Result<()> {
        let mut params = Params::new();
        params.insert("a", Tensor::zeros(DType::F64, [20_000])?);
        params.insert("b", Tensor::zeros(DType::C32, [3])?);
        let noisy = with_noise(&params, &|n| n == "a", 0.5, 7)?;
        assert_eq!(noisy, with_noise(&params, &|n| n == "a", 0.5, 7)?);
        assert_ne!(noisy, with_noise(&params, &|n| n == "a", 0.5, 8)?);
        assert_eq!(noisy.get("b"), params.get("b"));
        let x = noisy.require("a")?.as_slice::<f64>()?;
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let var = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        // Five standard errors: 0.5/sqrt(20000) and 0.25·sqrt(2/20000).
        assert!(mean.abs() < 0.0177, "{mean}");
        assert!((var - 0.25).abs() < 0.0125, "{var}");
        Ok(())
    }
}
