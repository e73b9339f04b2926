//! Unitary matrices stay unitary, descend, and leave other parameters to another optimiser.

use num_complex::Complex64;
use retrograd_engine::{DType, Params, Tensor};
use retrograd_optim::{
    Adam, Cayley, Divided, Error, Optimizer, Result, Select, Settings, multiplicative, optimizer,
};

use crate::common::build;

const N: usize = 5;

/// Numbers in (−1, 1), another one for every `k`.
fn number(k: usize) -> f64 {
    (0.7 + 12.9898 * k as f64).sin()
}

fn filled(dtype: DType, from: usize) -> Result<Tensor> {
    let mut t = Tensor::zeros(dtype, [N, N])?;
    let complex = dtype.is_complex();
    t.fill_with(|i| {
        Complex64::new(number(from + 2 * i), if complex { number(from + 2 * i + 1) } else { 0.0 })
    });
    Ok(t)
}

fn identity(dtype: DType) -> Result<Tensor> {
    let mut t = Tensor::zeros(dtype, [N, N])?;
    t.fill_with(|i| if i.is_multiple_of(N + 1) { 1.0.into() } else { 0.0.into() });
    Ok(t)
}

fn one(name: &str, t: Tensor) -> Params {
    [(name.to_string(), t)].into_iter().collect()
}

/// Largest entry of `WᴴW − I`.
fn defect(w: &Tensor) -> f64 {
    let entry = |i: usize| {
        let dot: Complex64 = (0..N).map(|k| w.get(k * N + i / N).conj() * w.get(k * N + i % N)).sum();
        (dot - if i.is_multiple_of(N + 1) { 1.0 } else { 0.0 }).norm()
    };
    (0..N * N).map(entry).fold(0.0, f64::max)
}

/// `½ ‖W − target‖²` has the gradient `W − target`.
fn difference(w: &Tensor, target: &Tensor) -> Result<Tensor> {
    let mut g = Tensor::zeros(w.dtype(), w.dims())?;
    g.fill_with(|i| w.get(i) - target.get(i));
    Ok(g)
}

#[test]
fn unitary_after_ten_thousand_updates() -> Result<()> {
    for (dtype, limit) in [(DType::F64, 5e-15), (DType::C64, 5e-15), (DType::F32, 1e-6), (DType::C32, 1e-6)] {
        for scaling in ["scaling=none", "scaling=rmsprop"] {
            let cayley = multiplicative("cayley", &Settings::parse(["lr=0.05", scaling])?)?;
            let mut params = one("W", identity(dtype)?);
            let mut state = cayley.init(&params)?;
            let mut farthest: f64 = 0.0;
            for k in 0..10_000 {
                // A target that moves keeps the matrix moving.
                let gradient = difference(params.require("W")?, &filled(dtype, 1000 * (k % 97))?)?;
                cayley.update(&one("W", gradient), &mut state, &mut params, 1.0)?;
                farthest = farthest.max((params.require("W")?.get(0) - 1.0).norm());
            }
            let defect = defect(params.require("W")?);
            assert!(defect < limit, "{dtype} {scaling}: {defect:e}");
            assert!(farthest > 0.1, "{dtype} {scaling}: it did not move, {farthest}");
            assert_eq!(state.step(), 10_000);
        }
    }
    Ok(())
}

/// One step against the formula, by the Neumann series of the inverse.
#[test]
fn one_step_is_the_formula() -> Result<()> {
    let (w, g, lr) = (identity(DType::C64)?, filled(DType::C64, 3)?, 1e-2);
    let at = |t: &Tensor, i: usize, j: usize| t.get(i * N + j);
    // W = I: A = G − Gᴴ.
    let a = |i: usize, j: usize| (at(&g, i, j) - at(&g, j, i).conj()) * (0.5 * lr);
    let mut term: Vec<Complex64> =
        (0..N * N).map(|k| -a(k / N, k % N) + if k.is_multiple_of(N + 1) { 1.0 } else { 0.0 }).collect();
    let mut expected = term.clone();
    for _ in 0..30 {
        term = (0..N * N)
            .map(|k| -(0..N).map(|l| a(k / N, l) * term[l * N + k % N]).sum::<Complex64>())
            .collect();
        expected.iter_mut().zip(&term).for_each(|(e, t)| *e += t);
    }
    let mut params = one("W", w);
    let cayley = Cayley { lr, ..Cayley::default() };
    let mut state = cayley.init(&params)?;
    cayley.update(&one("W", g), &mut state, &mut params, 1.0)?;
    let moved = params.require("W")?;
    let worst = (0..N * N).map(|k| (moved.get(k) - expected[k]).norm()).fold(0.0, f64::max);
    assert!(worst < 1e-14, "{worst:e}");
    Ok(())
}

/// Nearest unitary matrix to a unitary target is the target: the distance goes down to nothing.
#[test]
fn descends_to_a_unitary_target() -> Result<()> {
    for dtype in [DType::F64, DType::C64] {
        // A unitary target near the start, made by one long step.
        let mut target = one("W", identity(dtype)?);
        let long = Cayley { lr: 0.3, ..Cayley::default() };
        long.update(&one("W", filled(dtype, 5)?), &mut long.init(&target)?, &mut target, 1.0)?;
        let target = target.require("W")?.clone();
        let cayley = Cayley { lr: 0.1, ..Cayley::default() };
        let mut params = one("W", identity(dtype)?);
        let mut state = cayley.init(&params)?;
        let mut last = f64::INFINITY;
        for step in 0..600 {
            let gradient = difference(params.require("W")?, &target)?;
            let distance: f64 = (0..N * N).map(|k| gradient.get(k).norm_sqr()).sum();
            assert!(distance <= last + 1e-20, "{dtype}, step {step}: {distance} after {last}");
            last = distance;
            cayley.update(&one("W", gradient), &mut state, &mut params, 1.0)?;
        }
        assert!(last < 1e-12, "{dtype}: {last:e}");
    }
    Ok(())
}

#[test]
fn two_optimisers_with_one_state() -> Result<()> {
    let make = |others: &str| -> Result<Divided> {
        let special = multiplicative("cayley", &Settings::parse(["scaling=rmsprop"])?)?;
        Ok(Divided { select: Select::patterns("*.W"), special, others: build(others, &[])? })
    };
    let divided = make("adam")?;
    let mut params = one("l.U", filled(DType::F64, 1)?);
    params.insert("l.W", identity(DType::F64)?);
    let mut alone = one("l.U", filled(DType::F64, 1)?);
    let (mut state, adam) = (divided.init(&params)?, Adam::default());
    let mut alone_state = adam.init(&alone)?;
    for k in 0..5 {
        let mut grads = one("l.U", filled(DType::F64, 10 + k)?);
        adam.update(&grads, &mut alone_state, &mut alone, 0.5)?;
        grads.insert("l.W", filled(DType::F64, 20 + k)?);
        divided.update(&grads, &mut state, &mut params, 0.5)?;
    }
    assert!(params.require("l.U")?.bit_eq(alone.require("l.U")?));
    assert!(defect(params.require("l.W")?) < 5e-15);
    assert_eq!(params.names().collect::<Vec<_>>(), ["l.U", "l.W"]);
    assert_eq!(state.step(), 5);
    // Stored and read back, it belongs to these optimisers and to no others.
    let back = retrograd_optim::State::from_params(state.to_params())?;
    divided.check_state(&params, &back)?;
    assert!(make("sgd")?.check_state(&params, &back).is_err());
    assert!(back.tensors().get("l.W/r").is_some() && back.tensors().get("l.W/m").is_none());
    Ok(())
}

#[test]
fn what_is_refused() -> Result<()> {
    let cayley = Cayley::default();
    let wide = one("W", Tensor::zeros(DType::F64, [2, 3])?);
    let message = cayley.init(&wide).unwrap_err().to_string();
    assert_eq!(message, "cayley: parameter `W`: expected [N, N], got [2, 3]");
    let mut params = one("W", identity(DType::F64)?);
    let mut state = cayley.init(&params)?;
    let refused = cayley.update(&one("V", identity(DType::F64)?), &mut state, &mut params, 1.0);
    assert!(matches!(refused, Err(Error::Unexpected { .. })));
    let refused = cayley.update(&one("W", identity(DType::C64)?), &mut state, &mut params, 1.0);
    assert!(matches!(refused, Err(Error::Mismatch { .. })));
    assert!(optimizer("cayley", &Settings::new()).is_err(), "it is for some parameters alone");
    Ok(())
}
