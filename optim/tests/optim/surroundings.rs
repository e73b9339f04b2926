//! Penalties, constraints and the recipe that puts everything in order.

use crate::common::build;
use num_complex::Complex64;
use retrograd_engine::{DType, Params, Tensor};
use retrograd_optim::{
    Along, Clip, Clock, Constraint, Error, L2, LrState, MaxNorm, NonFinite, Penalty, Recipe, Result, Select,
    SoftUnitary, StepDecay, UnitNorm, Verdict,
};

fn matrix(dtype: DType, dims: &[usize]) -> Tensor {
    let mut tensor = Tensor::zeros(dtype, dims).unwrap();
    tensor.fill_with(|i| Complex64::new((i as f64 * 1.7).sin(), (i as f64 * 0.9 + 1.0).cos()));
    tensor
}

fn one(name: &str, tensor: Tensor) -> Params {
    [(name.to_string(), tensor)].into_iter().collect()
}

fn zeros_like(params: &Params) -> Params {
    params.iter().map(|(n, t)| (n.to_string(), Tensor::zeros(t.dtype(), t.dims()).unwrap())).collect()
}

/// Gradients of every penalty against central differences of its value, component by component.
#[test]
fn penalty_gradients() -> Result<()> {
    let near = |target| L2 { lambda: 0.3, target, select: Select::patterns("*W") };
    let both = &[DType::F64, DType::C64][..];
    let penalties: [(&dyn Penalty, &[DType]); 3] = [
        (&SoftUnitary::new(0.3, Select::patterns("*W")), both),
        (&near(0.0), both),
        (&near(0.7), &both[..1]),
    ];
    for (penalty, dtypes) in penalties {
        for &dtype in dtypes {
            for dims in [&[3, 3][..], &[4, 2], &[2, 5], &[9, 6], &[2, 3, 2], &[1, 1]] {
                let params = one("a.W", matrix(dtype, dims));
                let mut grads = zeros_like(&params);
                penalty.penalty(&params, &mut grads)?;
                let analytic = grads.require("a.W")?.components::<f64>()?.to_vec();
                let at = |i: usize, h: f64| {
                    let mut moved = params.clone();
                    moved.get_mut("a.W").unwrap().components_mut::<f64>().unwrap()[i] += h;
                    penalty.penalty(&moved, &mut zeros_like(&params)).unwrap()
                };
                for (i, g) in analytic.iter().enumerate() {
                    let h = 1e-5;
                    let numeric = (at(i, h) - at(i, -h)) / (2.0 * h);
                    let close = (g - numeric).abs() < 1e-7 * (1.0 + g.abs());
                    assert!(close, "{} {dtype} {dims:?} [{i}]: {g}, {numeric}", penalty.name());
                }
            }
        }
    }
    Ok(())
}

/// `λ Σ (θ − c)²` by its numbers; nothing that a complex parameter could be near, and no gradient touched then.
#[test]
fn parameters_are_drawn_to_a_number() -> Result<()> {
    let penalty = L2 { lambda: 5.0, target: 1.0, select: Select::patterns("*.scale") };
    let params = one("W.scale", Tensor::from_slice([3], &[1.0f64, 1.5, 0.0])?);
    let mut grads = zeros_like(&params);
    assert_eq!(penalty.penalty(&params, &mut grads)?, 6.25);
    assert_eq!(grads.require("W.scale")?.as_slice::<f64>()?, [0.0, 5.0, -10.0]);
    let params = one("W.scale", Tensor::zeros(DType::C64, [2])?);
    let mut grads = zeros_like(&params);
    let refused = penalty.penalty(&params, &mut grads).unwrap_err().to_string();
    assert_eq!(refused, "l2 with target 1: parameter `W.scale`: expected real, got c64");
    assert_eq!(grads, zeros_like(&params));
    let endless = L2 { target: f64::INFINITY, ..L2::default() };
    assert!(
        endless.validate().unwrap_err().to_string().contains("setting `target`, expected a finite number")
    );
    Ok(())
}

#[test]
fn soft_unitary_values() -> Result<()> {
    // A unitary factor costs nothing; 2·I of size 2 costs 2 (4−1)² = 18 and pulls with 4·2·3 = 24 on the diagonal.
    let half = std::f64::consts::FRAC_1_SQRT_2;
    let unitary =
        [Complex64::new(half, 0.0), Complex64::new(0.0, half), Complex64::new(0.0, half), half.into()];
    let mut params = one("k.0.W", Tensor::from_slice([2, 2], &unitary)?);
    params.insert("k.1.W", Tensor::from_slice([2, 2], &[2.0f64, 0.0, 0.0, 2.0])?);
    params.insert("V", Tensor::from_slice([1, 1], &[5.0f64])?);
    let mut grads = zeros_like(&params);
    grads.insert("k.1.W", Tensor::from_slice([2, 2], &[1.0f64; 4])?);
    let value = SoftUnitary::new(0.5, Select::patterns("k.*.W")).penalty(&params, &mut grads)?;
    assert!((value - 9.0).abs() < 1e-14, "{value}");
    assert!(grads.require("k.0.W")?.components::<f64>()?.iter().all(|g| g.abs() < 1e-15));
    assert_eq!(grads.require("k.1.W")?.as_slice::<f64>()?, [13.0, 1.0, 1.0, 13.0]);
    assert_eq!(grads.require("V")?.item()?, 0.0);
    Ok(())
}

#[test]
fn soft_unitary_in_single_precision_agrees() -> Result<()> {
    for dims in [[7, 7], [37, 23]] {
        let (double, single) = (one("W", matrix(DType::C64, &dims)), one("W", matrix(DType::C32, &dims)));
        let (mut g, mut h) = (zeros_like(&double), zeros_like(&single));
        let penalty = SoftUnitary::new(1.0, Select::all());
        let (a, b) = (penalty.penalty(&double, &mut g)?, penalty.penalty(&single, &mut h)?);
        assert!((a / b - 1.0).abs() < 1e-5);
        let (g, h) = (g.require("W")?, h.require("W")?);
        let norm = (0..g.len()).map(|i| g.get(i).norm()).fold(0.0, f64::max);
        assert!((0..g.len()).all(|i| (g.get(i) - h.get(i)).norm() < 1e-5 * norm));
    }
    Ok(())
}

#[test]
fn descent_on_the_penalty_makes_a_factor_unitary() -> Result<()> {
    let mut recipe = Recipe::new(build("sgd", &["lr=0.05"])?);
    recipe.penalties.push(Box::new(SoftUnitary::new(1.0, Select::all())));
    let mut params = one("W", matrix(DType::C64, &[3, 3]));
    let mut state = recipe.optimizer.init(&params)?;
    let mut penalty = f64::NAN;
    for _ in 0..2000 {
        let mut grads = zeros_like(&params);
        penalty = recipe
            .update(&mut grads, &mut state, &LrState::default(), &mut params, Clock::default())?
            .penalty;
    }
    assert!(penalty < 1e-20, "{penalty}");
    Ok(())
}

#[test]
fn max_norm() -> Result<()> {
    let rows = Tensor::from_slice([2, 2], &[3.0f64, 4.0, 0.1, 0.2])?;
    let mut params = one("W", rows.clone());
    assert_eq!(MaxNorm::new(1.0, Select::all()).project(&mut params)?, 1);
    let got = params.require("W")?.as_slice::<f64>()?;
    assert!((got[0] - 0.6).abs() < 1e-15 && (got[1] - 0.8).abs() < 1e-15);
    assert_eq!(got[2..], [0.1, 0.2]);
    let mut params = one("W", rows);
    let columns = MaxNorm { limit: 4.1, along: Along::Column, select: Select::all() };
    assert_eq!(columns.project(&mut params)?, 0);
    let columns = MaxNorm { limit: 4.0, ..columns };
    assert_eq!(columns.project(&mut params)?, 1);
    assert_eq!(params.require("W")?.as_slice::<f64>()?[0], 3.0);
    // Complex rows, several matrices: |3+4i| = 5.
    let z = [Complex64::new(3.0, 4.0), Complex64::new(0.0, 1.0)];
    for along in [Along::Row, Along::Column] {
        let mut params = one("Z", Tensor::from_slice([2, 1, 1], &z)?);
        assert_eq!(MaxNorm { limit: 2.5, along, select: Select::all() }.project(&mut params)?, 1);
        let got = params.require("Z")?.as_slice::<Complex64>()?;
        assert!((got[0] - Complex64::new(1.5, 2.0)).norm() < 1e-15);
        assert_eq!(got[1], z[1]);
    }
    Ok(())
}

#[test]
fn unit_norm() -> Result<()> {
    let mut params = one("U", Tensor::from_slice([3, 2], &[3.0f64, 0.0, 0.0, 0.0, 4.0, 0.0])?);
    let columns = UnitNorm { along: Along::Column, select: Select::all() };
    assert_eq!(columns.project(&mut params)?, 1);
    let got = params.require("U")?.as_slice::<f64>()?.to_vec();
    assert!((got[0] - 0.6).abs() < 1e-15 && (got[4] - 0.8).abs() < 1e-15);
    assert_eq!([got[1], got[2], got[3], got[5]], [0.0; 4]);
    // Complex rows: |3i| and |4| together are 5.
    let z = [Complex64::new(0.0, 3.0), Complex64::new(4.0, 0.0)];
    let mut params = one("Z", Tensor::from_slice([1, 2], &z)?);
    assert_eq!(UnitNorm::new(Select::all()).project(&mut params)?, 1);
    let got = params.require("Z")?.as_slice::<Complex64>()?;
    assert!((got[0] - z[0] / 5.0).norm() < 1e-15 && (got[1] - z[1] / 5.0).norm() < 1e-15);
    let vector = UnitNorm::new(Select::all()).project(&mut one("b", Tensor::scalar(1.0f64)));
    assert_eq!(vector.unwrap_err().to_string(), "unit-norm: parameter `b`: expected [.., R, S], got []");
    Ok(())
}

#[test]
fn every_error() -> Result<()> {
    let vector = one("b", Tensor::from_slice([2], &[1.0f64, 2.0])?);
    let unitary = SoftUnitary::new(1.0, Select::patterns("b"));
    let message = |result: Result<f64>| result.unwrap_err().to_string();
    let rows = [
        (
            message(SoftUnitary::new(1.0, Select::patterns("*.W")).penalty(&vector, &mut vector.clone())),
            "soft-unitary: no parameter matches `*.W`; parameters: b",
        ),
        (
            message(unitary.penalty(&vector, &mut vector.clone())),
            "soft-unitary: parameter `b`: expected [.., P, Q], got [2]",
        ),
        (
            message(unitary.penalty(&vector, &mut one("b", Tensor::scalar(0.0f32)))),
            "gradient of `b`: expected f64 [2], got f32 []",
        ),
        (
            message(SoftUnitary::new(-1.0, Select::all()).penalty(&vector, &mut vector.clone())),
            "soft-unitary: setting `lambda`, expected a finite number of at least 0, got `-1`",
        ),
        (
            message(MaxNorm::new(1.0, Select::all()).project(&mut vector.clone()).map(|_| 0.0)),
            "max-norm: parameter `b`: expected [.., R, S], got [2]",
        ),
        (
            message(MaxNorm::new(0.0, Select::all()).project(&mut vector.clone()).map(|_| 0.0)),
            "max-norm: setting `limit`, expected a finite number above 0, got `0`",
        ),
        (
            message(MaxNorm::new(1.0, Select::patterns("")).project(&mut vector.clone()).map(|_| 0.0)),
            "max-norm: no parameter matches ``; parameters: b",
        ),
        (
            message(L2::default().penalty(
                &one("i", Tensor::zeros(DType::I32, [1])?),
                &mut one("i", Tensor::zeros(DType::I32, [1])?),
            )),
            "parameter `i`: expected f32, f64, c32 or c64, got i32",
        ),
    ];
    for (message, expected) in rows {
        assert_eq!(message, expected);
    }
    // A frozen parameter contributes nothing and is no error.
    assert_eq!(unitary.penalty(&vector, &mut Params::new())?, 0.0);
    assert_eq!(
        MaxNorm::new(1.0, Select::all()).project(&mut one("E", Tensor::zeros(DType::F32, [0, 3])?))?,
        0
    );
    Ok(())
}

/// The order: penalty, then clipping (of gradient and penalty together), then the update, then the constraint.
#[test]
fn recipe_in_order() -> Result<()> {
    let mut recipe = Recipe::new(build("sgd", &["lr=1"])?);
    recipe.schedule = Box::new(StepDecay { every: 1, gamma: 0.5, ..StepDecay::default() });
    recipe.penalties.push(Box::new(L2 { lambda: 0.5, ..L2::default() }));
    recipe.gradients.clip = Clip::Value { limit: 2.0, except: Select::patterns("") };
    recipe.constraints.push(Box::new(MaxNorm::new(3.5, Select::all())));
    let mut params = one("W", Tensor::from_slice([1, 1], &[-4.0f64])?);
    let mut state = recipe.optimizer.init(&params)?;
    let mut grads = one("W", Tensor::from_slice([1, 1], &[1.0f64])?);
    let clock = Clock { step: 7, epoch: 2 };
    let done = recipe.update(&mut grads, &mut state, &LrState::default(), &mut params, clock)?;
    // Gradient 1 − 4 = −3, clipped to −2; rate 1/4: −4 + 0.5 = −3.5, just inside the constraint.
    assert_eq!((done.lr, done.penalty, done.norm, done.verdict), (0.25, 8.0, 3.0, Verdict::Clipped));
    assert_eq!(params.require("W")?.item()?, -3.5);
    recipe.constraints = vec![Box::new(MaxNorm::new(3.0, Select::all()))];
    recipe.update(&mut zeros_like(&params), &mut state, &LrState::default(), &mut params, clock)?;
    assert_eq!(params.require("W")?.item()?, -3.0);
    Ok(())
}

#[test]
fn recipe_stops_or_skips_at_nan() -> Result<()> {
    let mut recipe = Recipe::new(build("adam", &[])?);
    let mut params = one("W", Tensor::scalar(1.0f64));
    let mut state = recipe.optimizer.init(&params)?;
    let mut update = |recipe: &Recipe, state: &mut _| {
        let mut grads = one("W", Tensor::scalar(f64::NAN));
        let result = recipe.update(&mut grads, state, &LrState::default(), &mut params, Clock::default());
        (result, params.require("W").unwrap().item().unwrap())
    };
    let (stopped, w) = update(&recipe, &mut state);
    assert!(matches!(stopped, Err(Error::NotFinite { name, index: 0, .. }) if name == "W"));
    assert_eq!(w, 1.0);
    recipe.gradients.non_finite = NonFinite::Skip;
    let (skipped, w) = update(&recipe, &mut state);
    assert_eq!((skipped?.verdict, w), (Verdict::Skip, 1.0));
    assert_eq!((state.step(), state.skipped()), (0, 1));
    assert_eq!(state.tensors().require("W/m")?.item()?, 0.0);
    recipe.gradients.non_finite = NonFinite::LRD_MEMORY;
    let (replaced, w) = update(&recipe, &mut state);
    assert_eq!(replaced?.verdict, Verdict::Replaced);
    assert!((w - (1.0 - 1e-3)).abs() < 1e-9, "Adam's first step against 0.1 θ is the rate: {w}");
    assert_eq!(state.step(), 1);
    Ok(())
}
