//! Shared by the tests: functions to minimize and parameters to hold.

use num_complex::Complex64;
use retrograd_engine::{DType, Params, Tensor};
use retrograd_optim::{Optimizer, Result, Settings, optimizer};

/// One parameter `w` of a type with these real components.
pub(crate) fn param(dtype: DType, components: &[f64]) -> Result<Params> {
    let planes = dtype.planes();
    let mut tensor = Tensor::zeros(dtype, [components.len() / planes])?;
    tensor.fill_with(|i| {
        let imaginary = if planes == 2 { components[2 * i + 1] } else { 0.0 };
        Complex64::new(components[planes * i], imaginary)
    });
    Ok([("w".to_string(), tensor)].into_iter().collect())
}

/// The real components of `w`.
pub(crate) fn components(params: &Params) -> Result<Vec<f64>> {
    let w = params.require("w")?;
    let parts = (0..w.len()).map(|i| w.get(i));
    Ok(if w.dtype().is_complex() {
        parts.flat_map(|z| [z.re, z.im]).collect()
    } else {
        parts.map(|z| z.re).collect()
    })
}

/// An optimiser by name and `key=value` texts.
pub(crate) fn build(name: &str, texts: &[&str]) -> Result<Box<dyn Optimizer>> {
    optimizer(name, &Settings::parse(texts)?)
}

/// Every optimiser and variant that these tests run through.
pub(crate) const ALL: &[(&str, &[&str])] = &[
    ("sgd", &[]),
    ("sgd", &["momentum=0.9"]),
    ("sgd", &["momentum=0.9", "nesterov=true"]),
    ("rmsprop", &["variant=uRNN"]),
    ("rmsprop", &["variant=uRNN-eps"]),
    ("rmsprop", &["variant=FC-uRNN"]),
    ("rmsprop", &["variant=TF1"]),
    ("rmsprop", &["variant=oRNN"]),
    ("rmsprop", &["variant=pytorch"]),
    ("rmsprop", &["variant=pytorch", "momentum=0.5"]),
    ("rmsprop", &["variant=TF1", "centered=true"]),
    ("adam", &[]),
    ("adam", &["raw_eps=true"]),
    ("adam", &["amsgrad=true"]),
    ("adamw", &["weight_decay=1e-6"]),
    ("kfac", &["adam_lr=0.05"]),
];
