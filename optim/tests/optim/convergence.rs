//! Parabola and Rosenbrock's valley, real and complex, for every optimiser.

use crate::common::{ALL, build, components, param};
use retrograd_engine::DType;
use retrograd_optim::{OPTIMIZERS, Optimizer, Result};

/// Runs `steps` updates from `start` with a rate that falls linearly to 0; returns the components reached.
fn descend(
    optimizer: &dyn Optimizer,
    dtype: DType,
    start: &[f64],
    steps: usize,
    gradient: impl Fn(&[f64]) -> Vec<f64>,
) -> Result<Vec<f64>> {
    let mut params = param(dtype, start)?;
    let mut state = optimizer.init(&params)?;
    for step in 0..steps {
        let grads = param(dtype, &gradient(&components(&params)?))?;
        optimizer.update(&grads, &mut state, &mut params, 1.0 - step as f64 / steps as f64)?;
    }
    assert_eq!(state.step(), steps as u64);
    components(&params)
}

#[test]
fn every_optimizer_is_run() {
    for entry in OPTIMIZERS {
        assert!(ALL.iter().any(|(name, _)| *name == entry.name), "{} is in no test", entry.name);
    }
}

/// Σ aᵢ |zᵢ − cᵢ|² with a = 1, 4: gradient 2a(z − c), the same formula for a real and a complex parameter.
#[test]
fn parabola() -> Result<()> {
    let center = [1.0, -0.5, 0.25, 2.0];
    for (name, texts) in ALL {
        let lr = if *name == "sgd" { "lr=0.02" } else { "lr=0.05" };
        let texts: Vec<_> = texts.iter().copied().chain([lr]).collect();
        let optimizer = build(name, &texts)?;
        for dtype in [DType::F32, DType::F64, DType::C32, DType::C64] {
            let end = descend(&*optimizer, dtype, &[0.0; 4], 800, |x| {
                (0..4).map(|i| 2.0 * if i < 2 { 1.0 } else { 4.0 } * (x[i] - center[i])).collect()
            })?;
            for (x, c) in end.iter().zip(center) {
                assert!((x - c).abs() < 2e-3, "{name} {texts:?} {dtype}: {x} is not {c}");
            }
        }
    }
    Ok(())
}

/// (1 − x)² + 10 (y − x²)², the valley at a tenth of the usual steepness.
#[test]
fn rosenbrock() -> Result<()> {
    for (name, texts) in ALL {
        let lr = if *name == "sgd" { "lr=4e-3" } else { "lr=0.01" };
        let texts: Vec<_> = texts.iter().copied().chain([lr]).collect();
        let optimizer = build(name, &texts)?;
        let end = descend(&*optimizer, DType::F64, &[-1.0, 1.5], 6000, |p| {
            let (x, y) = (p[0], p[1]);
            vec![-2.0 * (1.0 - x) - 40.0 * x * (y - x * x), 20.0 * (y - x * x)]
        })?;
        assert!((end[0] - 1.0).abs() < 0.02 && (end[1] - 1.0).abs() < 0.04, "{name} {texts:?}: {end:?}");
    }
    Ok(())
}

/// |1 − z|² + 10 |w − z²|² for complex z, w: gradients 2(z−1) − 40 z*(w−z²) and 20(w−z²), in the convention
/// ∂/∂x + i∂/∂y.
#[test]
fn complex_rosenbrock() -> Result<()> {
    use num_complex::Complex64;
    for (name, texts) in ALL {
        let lr = if *name == "sgd" { "lr=4e-3" } else { "lr=0.01" };
        let texts: Vec<_> = texts.iter().copied().chain([lr]).collect();
        let optimizer = build(name, &texts)?;
        let end = descend(&*optimizer, DType::C64, &[0.3, 0.8, -0.5, 0.2], 6000, |p| {
            let (z, w) = (Complex64::new(p[0], p[1]), Complex64::new(p[2], p[3]));
            let g = 2.0 * (z - 1.0) - 40.0 * z.conj() * (w - z * z);
            let h = 20.0 * (w - z * z);
            vec![g.re, g.im, h.re, h.im]
        })?;
        for (x, c) in end.iter().zip([1.0, 0.0, 1.0, 0.0]) {
            assert!((x - c).abs() < 0.04, "{name} {texts:?}: {end:?}");
        }
    }
    Ok(())
}
