//! Updates of parameters that stay on the device: the processor's bits for every optimiser with a rule for components.
#![allow(clippy::unwrap_used, clippy::panic)]

mod on_device;

use std::sync::Arc;

use on_device::numbers;
use retrograd_cuda::Gpu;
use retrograd_engine::device::{Device, Left, Resident};
use retrograd_engine::{DType, Params, Tensor};
use retrograd_optim::{Clip, DeviceUpdate, GradientRules, NonFinite, NormForm, Settings, Verdict, optimizer};

/// Parameters of every type; one of more components than a block takes, one that is frozen.
fn params() -> Params {
    let mut p = Params::new();
    p.insert("w", numbers(DType::F32, &[1500], 1));
    p.insert("z", numbers(DType::C32, &[3, 2], 2));
    p.insert("frozen", numbers(DType::F32, &[2], 3));
    p.insert("d", numbers(DType::F64, &[7], 4));
    p.insert("c", numbers(DType::C64, &[2], 5));
    p
}

fn gradients(trained: &[String], params: &Params, step: u64) -> Params {
    let of = |name: &String| {
        let p = params.get(name).unwrap();
        (name.clone(), numbers(p.dtype(), p.dims(), 100 * step + p.len() as u64))
    };
    trained.iter().map(of).collect()
}

fn check(name: &str, settings: &[&str], clip: Clip) {
    let device: Arc<dyn Device> = on_device::device();
    let (optimizer, what) = (optimizer(name, &Settings::parse(settings).unwrap()).unwrap(), name);
    let rules = GradientRules { clip: clip.clone(), non_finite: NonFinite::Skip };
    let mut here = params();
    let trained: Vec<String> = here.names().filter(|n| *n != "frozen").map(String::from).collect();
    let subset =
        |p: &Params| -> Params { trained.iter().map(|n| (n.clone(), p.get(n).unwrap().clone())).collect() };
    let mut state = optimizer.init(&subset(&here)).unwrap();
    let mut there_state = state.clone();
    let update = DeviceUpdate::new(&device, &*optimizer, &rules, (&here, &trained), &state);
    let mut update = update.unwrap().unwrap();
    for step in 0..3 {
        let mut grads = gradients(&trained, &here, step);
        // A gradient that is the same everywhere is nowhere on the device.
        grads.insert("d", Tensor::full(DType::F64, [7], 0.25).unwrap());
        let on = Resident::of(&device, &grads).unwrap();
        let left: Vec<Left> = (trained.iter())
            .map(|n| if n == "d" { Left::Number(0.25, 0.0) } else { Left::At(on.array(n).unwrap()) })
            .collect();
        let scale = 1.0 / (1 + step) as f64;
        let found = update.update(&*optimizer, &mut there_state, &left, scale).unwrap();
        let processed = rules.process(&here, &mut grads).unwrap();
        assert_eq!(found.verdict, processed.verdict, "{what}");
        assert!(
            (found.norm / processed.norm - 1.0).abs() < 1e-14,
            "{what}: {} {}",
            found.norm,
            processed.norm
        );
        optimizer.update(&grads, &mut state, &mut here, scale).unwrap();
    }
    let (mut got, mut got_state) = (params(), there_state.clone());
    update.fetch(&mut got, &mut got_state).unwrap();
    let tensors = here.iter().chain(state.tensors().iter());
    for ((name, expected), (_, got)) in tensors.zip(got.iter().chain(got_state.tensors().iter())) {
        // The norm is summed in another order, so a clipped gradient may be off by a rounding.
        let same = if matches!(clip, Clip::None) {
            got.bit_eq(expected)
        } else {
            on_device::ratio(got, expected) < 8.0
        };
        assert!(same, "{what}: {name}, {got:?} {expected:?}");
    }
    assert_eq!(got_state.step(), 3);
    // Gradients that are not finite move nothing and count nothing.
    let mut bad = gradients(&trained, &here, 9);
    bad.get_mut("z").unwrap().fill_with(|_| num_complex::Complex64::new(0.0, f64::INFINITY));
    let on = Resident::of(&device, &bad).unwrap();
    let left: Vec<Left> = trained.iter().map(|n| Left::At(on.array(n).unwrap())).collect();
    let found = update.update(&*optimizer, &mut there_state, &left, 1.0).unwrap();
    assert_eq!((found.verdict, there_state.step()), (Verdict::Skip, 3));
    assert!(update.gradients(&left).unwrap().get("z").unwrap().bit_eq(bad.get("z").unwrap()));
    let before = got.clone();
    update.fetch(&mut got, &mut got_state).unwrap();
    assert!(before.iter().zip(got.iter()).all(|(a, b)| a.1.bit_eq(b.1)));
    // And what the processor did then goes there.
    got.insert("w", numbers(DType::F32, &[1500], 77));
    update.put(&got, &got_state).unwrap();
    assert!(update.values().get("w").unwrap().bit_eq(got.get("w").unwrap()));
}

#[test]
fn the_bits_of_the_processor() {
    for (name, settings) in [
        ("sgd", &[][..]),
        ("sgd", &["momentum=0.9", "nesterov=true", "weight_decay=0.01"]),
        ("rmsprop", &[]),
        ("rmsprop", &["variant=TF1", "momentum=0.5", "centered=true"]),
        ("adam", &["weight_decay=0.1"]),
        ("adam", &["amsgrad=true", "raw_eps=true"]),
        ("adamw", &[]),
    ] {
        check(name, settings, Clip::None);
    }
}

#[test]
fn clipped_by_the_norm() {
    for form in [NormForm::Divide, NormForm::PyTorch] {
        for limit in [1.0, 1e3] {
            check("adam", &[], Clip::Norm { limit, form });
        }
    }
}

/// One launch moves everything of a precision, whatever the number of parameters; nothing but numbers is copied.
#[test]
fn launches_and_copies() {
    let gpu = Gpu::emulated();
    let device: Arc<dyn Device> = Arc::new(gpu.clone());
    let adam = optimizer("adam", &Settings::new()).unwrap();
    let values: Params = (0..9).map(|i| (format!("p{i}"), numbers(DType::F32, &[40], i))).collect();
    let names: Vec<String> = values.names().map(String::from).collect();
    let mut state = adam.init(&values).unwrap();
    let rules = GradientRules::default();
    let mut update = DeviceUpdate::new(&device, &*adam, &rules, (&values, &names), &state).unwrap().unwrap();
    let left: Vec<Left> =
        names.iter().map(|n| Left::At(Resident::of(&device, &values).unwrap().array(n).unwrap())).collect();
    // Where those were given back the device says so; those that live are read where they are.
    assert!(update.update(&*adam, &mut state, &left, 1.0).is_err());
    let grads = Resident::of(&device, &values).unwrap();
    let left: Vec<Left> = names.iter().map(|n| Left::At(grads.array(n).unwrap())).collect();
    update.update(&*adam, &mut state, &left, 1.0).unwrap();
    let before = (gpu.counts().unwrap().launches, gpu.written_bytes());
    update.update(&*adam, &mut state, &left, 1.0).unwrap();
    assert_eq!(gpu.counts().unwrap().launches - before.0, 3);
    assert_eq!(gpu.written_bytes() - before.1, 64);
}

#[test]
fn what_stays_with_the_processor() {
    let device: Arc<dyn Device> = on_device::device();
    let (p, names) = (params(), vec!["w".to_string()]);
    let sgd = optimizer("sgd", &Settings::new()).unwrap();
    let state = sgd.init(&p).unwrap();
    let values = GradientRules {
        clip: Clip::Value { limit: 1.0, except: retrograd_optim::Select::patterns("") },
        ..Default::default()
    };
    assert!(DeviceUpdate::new(&device, &*sgd, &values, (&p, &names), &state).unwrap().is_none());
    let kfac = optimizer("kfac", &Settings::new()).unwrap();
    let rules = GradientRules::default();
    assert!(DeviceUpdate::new(&device, &*kfac, &rules, (&p, &names), &state).unwrap().is_none());
}

#[test]
#[ignore = "needs a CUDA device"]
fn all_of_it_on_a_device() {
    on_device::REAL.store(true, std::sync::atomic::Ordering::Relaxed);
    the_bits_of_the_processor();
    clipped_by_the_norm();
    what_stays_with_the_processor();
}
