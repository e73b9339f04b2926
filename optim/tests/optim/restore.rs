//! Optimiser state: stored mid-trajectory and read back it gives the same bits; what does not fit is an error.

use crate::common::{ALL, build};
use num_complex::Complex32;
use retrograd_engine::{DType, Params, Tensor};
use retrograd_optim::{Error, OPTIMIZERS, Result, SCHEDULES, Settings, State, optimizer, schedule};

fn params() -> Result<Params> {
    let u = Tensor::from_slice([2, 3], &[0.1f32, -0.2, 0.3, 0.7, 1e-8, -2.0])?;
    let w = Tensor::from_slice([2], &[Complex32::new(0.6, -0.8), Complex32::new(0.0, 1.0)])?;
    let b = Tensor::from_slice([1], &[1.0 / 3.0])?;
    Ok([("cell.U", u), ("cell.W", w), ("b", b)].map(|(n, t)| (n.to_string(), t)).into_iter().collect())
}

/// Any gradient that depends on the parameter, so that an error would grow.
fn grads(params: &Params, step: usize) -> Params {
    let mut grads = params.clone();
    for (_, grad) in grads.iter_mut() {
        let before = grad.clone();
        grad.fill_with(|i| before.get(i) * 0.7 + ((i * 7 + step * 3) % 5) as f64 * 0.1 - 0.2);
    }
    grads
}

/// As a file with names in its own order would give them back.
fn through_a_file(params: &Params) -> Params {
    let mut all: Vec<_> = params.clone().into_iter().collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all.into_iter()
        .map(|(name, tensor)| {
            let mut read = Tensor::zeros(tensor.dtype(), tensor.dims()).unwrap();
            read.as_bytes_mut().copy_from_slice(tensor.as_bytes());
            (name, read)
        })
        .collect()
}

#[test]
fn restored_state_gives_the_same_bits() -> Result<()> {
    for (name, texts) in ALL {
        let optimizer = build(name, texts)?;
        let mut a = params()?;
        let mut state = optimizer.init(&a)?;
        for step in 0..7 {
            optimizer.update(&grads(&a, step), &mut state, &mut a, 1.0)?;
        }
        let (mut b, mut restored) = (a.clone(), State::from_params(through_a_file(&state.to_params()))?);
        optimizer.check_state(&b, &restored)?;
        for step in 7..15 {
            optimizer.update(&grads(&a, step), &mut state, &mut a, 0.5)?;
            optimizer.update(&grads(&b, step), &mut restored, &mut b, 0.5)?;
        }
        for name in ["cell.U", "cell.W", "b"] {
            assert!(a.require(name)?.bit_eq(b.require(name)?), "{texts:?} {name}");
            assert!(!a.require(name)?.bit_eq(params()?.require(name)?), "{texts:?} {name} did not move");
        }
        assert_eq!((restored.step(), state.step()), (15, 15));
    }
    Ok(())
}

#[test]
fn settings_build_the_same_again() -> Result<()> {
    for (name, texts) in ALL {
        let first = build(name, texts)?;
        let again = optimizer(name, &first.settings())?;
        assert_eq!(again.settings(), first.settings(), "{name} {texts:?}");
        assert_eq!(again.slots(), first.slots());
    }
    for entry in OPTIMIZERS {
        let all = (entry.build)(&Settings::new())?.settings();
        assert!(all.iter().all(|(key, _)| entry.options.iter().any(|o| o.key == key)), "{}", entry.name);
    }
    for entry in SCHEDULES {
        let first = (entry.build)(&Settings::new())?;
        assert_eq!(schedule(entry.name, &first.settings())?.settings(), first.settings());
        assert_eq!(first.name(), entry.name);
    }
    Ok(())
}

#[test]
fn state_is_named_after_the_parameters() -> Result<()> {
    let adam = build("adam", &["amsgrad=true"])?;
    let state = adam.init(&params()?)?;
    let names: Vec<_> = state.tensors().names().collect();
    let expected = ["cell.U", "cell.W", "b"].map(|p| ["m", "v", "w"].map(|s| format!("{p}/{s}"))).concat();
    assert_eq!(names, expected);
    let tf1 = build("rmsprop", &["variant=TF1"])?.init(&params()?)?;
    let r = tf1.tensors().require("cell.W/r")?;
    assert_eq!(r.components::<f32>()?, [1.0; 4], "one mean square per real component");
    assert!(build("sgd", &[])?.init(&params()?)?.tensors().is_empty());
    Ok(())
}

#[test]
fn a_parameter_without_gradient_is_frozen() -> Result<()> {
    for (name, texts) in ALL {
        let optimizer = build(name, texts)?;
        let mut p = params()?;
        let mut state = optimizer.init(&p)?;
        let before = state.clone();
        let mut grads = grads(&p, 0);
        grads.remove("cell.W");
        optimizer.update(&grads, &mut state, &mut p, 1.0)?;
        assert!(p.require("cell.W")?.bit_eq(params()?.require("cell.W")?));
        for slot in optimizer.slots() {
            let key = format!("cell.W/{}", slot.suffix);
            assert_eq!(state.tensors().get(&key), before.tensors().get(&key));
        }
    }
    Ok(())
}

#[test]
fn components_without_any_gradient_stay_finite_and_still() -> Result<()> {
    for texts in [&["variant=uRNN", "r0=0"][..], &["variant=oRNN", "eps=0"], &["variant=uRNN"]] {
        let rms = build("rmsprop", texts)?;
        let mut p = params()?;
        let mut state = rms.init(&p)?;
        let mut zero = params()?;
        zero.iter_mut().for_each(|(_, t)| t.fill_with(|_| 0.0.into()));
        for _ in 0..3 {
            rms.update(&zero, &mut state, &mut p, 1.0)?;
        }
        assert_eq!(p, params()?, "{texts:?}");
    }
    Ok(())
}

#[test]
fn every_error_leaves_everything_as_it_was() -> Result<()> {
    let adam = build("adam", &[])?;
    let start = params()?;
    let fresh = adam.init(&start)?;
    let change = |f: &dyn Fn(&mut Params, &mut State)| {
        let (mut p, mut state, mut g) = (start.clone(), fresh.clone(), grads(&start, 1));
        f(&mut g, &mut state);
        let state_before = state.clone();
        let error = adam.update(&g, &mut state, &mut p, 1.0).unwrap_err();
        assert_eq!((&p, &state), (&start, &state_before), "{error}");
        error.to_string()
    };
    let rows = [
        (
            change(&|g, _| g.insert("b", Tensor::scalar(1.0f64))),
            "gradient of `b`: expected f64 [1], got f64 []",
        ),
        (
            change(&|g, _| g.insert("b", Tensor::from_slice([1], &[1.0f32]).unwrap())),
            "gradient of `b`: expected f64 [1], got f32 [1]",
        ),
        (change(&|g, _| g.insert("c", Tensor::scalar(1.0f64))), "gradient of `c` belongs to no parameter"),
        (change(&|_, s| drop(s.tensors_mut().remove("b/v"))), "optimiser state `b/v` is not there"),
        (
            change(&|_, s| s.tensors_mut().insert("b/m", Tensor::zeros(DType::F64, [2]).unwrap())),
            "optimiser state `b/m`: expected f64 [1], got f64 [2]",
        ),
    ];
    for (message, expected) in rows {
        assert_eq!(message, expected);
    }
    let mut state = fresh.clone();
    for scale in [-1.0, f64::NAN, f64::INFINITY] {
        let error = adam.update(&grads(&start, 1), &mut state, &mut start.clone(), scale).unwrap_err();
        assert!(error.to_string().starts_with("adam: setting `lr_scale`, expected"), "{error}");
    }
    let mut index = start.clone();
    index.insert("i", Tensor::zeros(DType::I32, [1])?);
    assert_eq!(
        adam.init(&index).unwrap_err().to_string(),
        "parameter `i`: expected f32, f64, c32 or c64, got i32"
    );
    Ok(())
}

#[test]
fn state_of_something_else_is_an_error() -> Result<()> {
    let start = params()?;
    let adam = build("adam", &[])?;
    let momentum = build("sgd", &["momentum=0.9"])?.init(&start)?;
    assert_eq!(
        adam.check_state(&start, &momentum).unwrap_err().to_string(),
        "optimiser state `cell.U/v` is not there"
    );
    let ams = build("adam", &["amsgrad=true"])?.init(&start)?;
    let left_over = adam.check_state(&start, &ams);
    assert_eq!(left_over, Err(Error::Unexpected { what: "optimiser state `cell.U/w`".into() }));
    let mut fewer = start.clone();
    fewer.remove("b");
    assert!(matches!(adam.check_state(&fewer, &adam.init(&start)?), Err(Error::Unexpected { .. })));
    assert!(matches!(adam.check_state(&start, &adam.init(&fewer)?), Err(Error::Missing { .. })));
    Ok(())
}
