//! Training with parameters and optimiser on a device: what the processor gives, within rounding, and to the same bits
//! from a checkpoint.
#![allow(clippy::unwrap_used, clippy::panic)]
#![cfg(feature = "cuda")]

use std::sync::Arc;

use retrograd::cuda::Gpu;
use retrograd::datasets::Split;
use retrograd::engine::device::Device;
use retrograd::train::{TrainConfig, Trainer};

fn trainer(settings: &[&str], device: Option<Arc<dyn Device>>) -> Trainer {
    let mut config = TrainConfig::new("adding", "gru", None).unwrap();
    config.set_all(["hidden=3", "T=4", "train=8", "valid=8", "test=8", "batch=4", "steps=4"]).unwrap();
    config.set_all(settings.iter().copied()).unwrap();
    Trainer::on(config, device).unwrap()
}

#[test]
fn updates_on_a_device() {
    for (settings, there) in [
        (&["optimizer=adam", "clip=norm", "clip_limit=0.1"][..], true),
        (&["optimizer=rmsprop"], true),
        (&["optimizer=sgd", "clip=value"], false),
    ] {
        let gpu = Gpu::emulated();
        let (mut here, mut on) = (trainer(settings, None), trainer(settings, Some(Arc::new(gpu.clone()))));
        assert_eq!(on.updates_on_device(), there, "{settings:?}");
        for _ in 0..3 {
            let (a, b) = (here.step().unwrap(), on.step().unwrap());
            assert!((a.loss - b.loss).abs() < 1e-5 * a.loss.abs(), "{settings:?}: {} {}", a.loss, b.loss);
            assert!((a.norm - b.norm).abs() < 1e-4 * a.norm, "{settings:?}: {} {}", a.norm, b.norm);
            assert_eq!(a.verdict, b.verdict);
        }
        let judged = [&mut here, &mut on].map(|t| t.evaluate(Split::Test, None).unwrap().loss);
        assert!((judged[0] - judged[1]).abs() < 1e-5 * judged[0], "{settings:?}: {judged:?}");
        on.fetch().unwrap();
        for (name, expected) in here.params().iter() {
            let got = on.params().require(name).unwrap();
            let far = (0..got.len()).map(|i| (got.get(i) - expected.get(i)).norm()).fold(0.0, f64::max);
            assert!(far < 1e-4, "{settings:?}, {name}: off by {far}");
        }
        if there {
            // Inputs and the numbers of the rule go there, parameters do not.
            let before = gpu.written_bytes();
            on.step().unwrap();
            let bytes = gpu.written_bytes() - before;
            assert!(bytes < 300, "{settings:?}: {bytes} bytes were copied for a step");
        }
    }
}
