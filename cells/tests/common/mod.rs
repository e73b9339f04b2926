//! What several test files use.
#![allow(dead_code)]

use std::sync::Arc;

use retrograd_cells::init::{Init, rng_for};
use retrograd_cells::{
    Cell, Input, Layer, Loss, Model, ModelSpec, Readout, RecurrentOperator, Settings, cell, operator,
};
use retrograd_engine::{DType, Params, Tensor};

/// Settings from pairs.
pub(crate) fn settings(pairs: &[(&str, &str)]) -> Settings {
    pairs.iter().copied().collect()
}

/// A layer by names.
pub(crate) fn layer(
    name: &str,
    set: &[(&str, &str)],
    op: &str,
    op_set: &[(&str, &str)],
    hidden: usize,
) -> Layer {
    let cell: Arc<dyn Cell> = cell(name, &settings(set)).unwrap();
    let operator: Arc<dyn RecurrentOperator> = operator(op, &settings(op_set)).unwrap();
    Layer { cell, operator, hidden }
}

/// A model in double precision.
pub(crate) fn spec(
    input: Input,
    layers: Vec<Layer>,
    readout: Readout,
    output: usize,
    loss: Loss,
) -> ModelSpec {
    let mut spec = ModelSpec::new(input, layers, readout, output, loss);
    spec.dtype = DType::F64;
    spec
}

/// Random values, always the same for one name.
pub(crate) fn random(name: &str, dtype: DType, dims: &[usize], init: Init) -> Tensor {
    init.tensor(dims, dtype, &mut rng_for(7, name)).unwrap()
}

/// Indices below `below`, always the same for one name.
pub(crate) fn indices(name: &str, dims: &[usize], below: usize) -> Tensor {
    let t = random(name, DType::F64, dims, Init::Uniform(0.5));
    let values: Vec<i32> = (0..t.len()).map(|i| ((t.get(i).re + 0.5) * below as f64) as i32).collect();
    Tensor::from_slice(dims, &values).unwrap()
}

/// Values for the inputs of a model.
pub(crate) fn inputs(model: &Model, steps: usize, rows: usize) -> Params {
    let spec = model.spec();
    let mut p = Params::new();
    p.insert(
        "x",
        match spec.input {
            Input::Dense(c) => random("x", spec.dtype, &[steps, rows, c], Init::Normal(1.0)),
            Input::Symbols(v) => indices("x", &[steps, rows], v),
        },
    );
    let lead = match spec.readout {
        Readout::Last => vec![rows],
        Readout::EveryStep => vec![steps, rows],
    };
    let with_outputs: Vec<usize> = lead.iter().copied().chain([spec.output]).collect();
    p.insert(
        "target",
        match spec.loss {
            Loss::SoftmaxCrossEntropy => indices("target", &lead, spec.output),
            Loss::SquaredError => random("target", spec.dtype, &with_outputs, Init::Normal(1.0)),
            Loss::BinaryCrossEntropy => indices("target", &with_outputs, 2).clone_as(spec.dtype),
        },
    );
    if spec.masked {
        // Weights 0, 1/2 and 1, not all 0.
        let mut mask = indices("mask", &lead, 3).clone_as(spec.dtype);
        let values = mask.clone();
        mask.fill_with(|i| if i == 0 { 1.0.into() } else { values.get(i) / 2.0 });
        p.insert("mask", mask);
    }
    if spec.lengths {
        let lengths: Vec<i32> = (0..rows).map(|r| 1 + ((r * 2 + 1) % steps) as i32).collect();
        p.insert("lengths", Tensor::from_slice([rows], &lengths).unwrap());
    }
    let drops = [spec.dropout, spec.recurrent_dropout, spec.input_dropout, spec.readout_dropout];
    if drops.iter().any(|d| *d > 0.0) {
        p.insert("dropout_seed", Tensor::scalar(11i32));
    }
    p
}

/// Indices as real numbers.
pub(crate) trait CloneAs {
    /// The same values in another element type.
    fn clone_as(&self, dtype: DType) -> Tensor;
}

impl CloneAs for Tensor {
    fn clone_as(&self, dtype: DType) -> Tensor {
        let mut t = Tensor::zeros(dtype, self.dims()).unwrap();
        t.fill_with(|i| self.get(i));
        t
    }
}
