//! Every cell and operation of the tables on the emulated device: loss and all gradients are the processor's within
//! rounding, with equal bits under every budget and the planned peak to the byte.
#![allow(clippy::unwrap_used, clippy::panic)]

mod on_device;

use std::sync::Arc;

use on_device::{compare_within, numbers};
use retrograd_cells::{
    Input, Layer, Loss, Model, ModelSpec, Readout, Settings, cell, combinations, operator,
};
use retrograd_engine::{DType, Params, Tensor, Var, grad};
use retrograd_ops::{OPS, Sampler};

/// A layer by names.
fn layer(name: &str, set: &[(&str, &str)], on: &str, hidden: usize) -> Layer {
    let set: Settings = set.iter().copied().collect();
    let (cell, operator) = (cell(name, &set).unwrap(), operator(on, &Settings::new()).unwrap());
    Layer { cell: Arc::clone(&cell), operator, hidden }
}

fn indices(dims: &[usize], below: usize) -> Tensor {
    let n: usize = dims.iter().product();
    let values: Vec<i32> = (0..n).map(|i| ((i * 7 + 3) % below) as i32).collect();
    Tensor::from_slice(dims, &values).unwrap()
}

/// Values for the inputs of a model.
fn inputs(spec: &ModelSpec, steps: usize, rows: usize) -> Params {
    let mut p = Params::new();
    match spec.input {
        Input::Dense(c) => p.insert("x", numbers(spec.dtype, &[steps, rows, c], 1)),
        Input::Symbols(v) => p.insert("x", indices(&[steps, rows], v)),
    };
    let lead = match spec.readout {
        Readout::Last => vec![rows],
        Readout::EveryStep => vec![steps, rows],
    };
    match spec.loss {
        Loss::SoftmaxCrossEntropy => p.insert("target", indices(&lead, spec.output)),
        _ => {
            let dims: Vec<usize> = lead.iter().copied().chain([spec.output]).collect();
            p.insert("target", numbers(spec.dtype, &dims, 2))
        }
    };
    if spec.lengths {
        let lengths: Vec<i32> = (0..rows).map(|r| 1 + (r * 2 % steps) as i32).collect();
        p.insert("lengths", Tensor::from_slice([rows], &lengths).unwrap());
    }
    if spec.dropout > 0.0 {
        p.insert("dropout_seed", Tensor::scalar(11i32));
    }
    p
}

/// Loss and gradients of a model on both sides.
fn check(what: &str, spec: ModelSpec, (steps, rows): (usize, usize), most: f64) -> Option<String> {
    let data = inputs(&spec, steps, rows);
    let model = Model::new(spec).unwrap();
    let mut recorded = model.record(5).unwrap();
    // Away from zeros and kinks, as first values often are.
    let params: Params = (recorded.params.iter().enumerate())
        .map(|(i, (name, t))| {
            let noise = numbers(t.dtype(), t.dims(), 100 + i as u64);
            let mut moved = t.clone();
            moved.fill_with(|i| t.get(i) + noise.get(i) * 0.2);
            (name.to_string(), moved)
        })
        .collect();
    let wrt = recorded.trainable_vars();
    let bars = grad(&mut recorded.tape, recorded.loss, &wrt).unwrap();
    let outputs: Vec<Var> = std::iter::once(recorded.loss).chain(bars).collect();
    let mut values = data;
    for (name, value) in params.iter() {
        values.insert(name, value.clone());
    }
    let compared = compare_within(&recorded.tape, &outputs, &values, (steps, rows), most);
    compared.err().map(|error| format!("{what}: {error}"))
}

fn all_pass(failures: Vec<Option<String>>) {
    let failures: Vec<String> = failures.into_iter().flatten().collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn spec(layers: Vec<Layer>, dtype: DType) -> ModelSpec {
    let loss = Loss::SoftmaxCrossEntropy;
    let mut spec = ModelSpec::new(Input::Dense(2), layers, Readout::EveryStep, 3, loss);
    spec.dtype = dtype;
    spec
}

/// On the operator it was published with, or the first it takes.
#[test]
fn every_cell() {
    let _alone = on_device::alone();
    let mut seen: Vec<&str> = Vec::new();
    let mut failures = Vec::new();
    for (cell, operator) in combinations() {
        if seen.contains(&cell.name) {
            continue;
        }
        seen.push(cell.name);
        for dtype in [DType::F64, DType::F32] {
            let layer = layer(cell.name, &[], operator.name, 4);
            let what = format!("{} on {}, {dtype}", cell.name, operator.name);
            failures.push(check(&what, spec(vec![layer], dtype), (5, 3), 3000.0));
        }
    }
    all_pass(failures);
}

#[test]
fn every_operator() {
    let _alone = on_device::alone();
    let mut failures = Vec::new();
    for (cell, operator) in combinations() {
        if ["lstm", "kru"].contains(&cell.name) {
            let layer = layer(cell.name, &[], operator.name, 4);
            let what = format!("{} on {}", cell.name, operator.name);
            failures.push(check(&what, spec(vec![layer], DType::F64), (4, 2), 3000.0));
        }
    }
    all_pass(failures);
}

/// Layers, both directions, lengths, dropout, symbols, layer normalization.
#[test]
fn what_surrounds_cells() {
    let _alone = on_device::alone();
    let mut failures = Vec::new();
    for bidirectional in [false, true] {
        let layers = vec![layer("kru", &[], "kron", 4), layer("gru", &[], "dense", 3)];
        let mut s = spec(layers, DType::F64);
        (s.bidirectional, s.lengths, s.dropout) = (bidirectional, true, 0.25);
        failures.push(check(&format!("two layers, bidirectional {bidirectional}"), s, (4, 3), 3000.0));
    }
    let normed = layer("rnn", &[("layer_norm", "true")], "dense", 4);
    let mut s = spec(vec![normed], DType::F64);
    (s.input, s.readout) = (Input::Symbols(5), Readout::Last);
    failures.push(check("symbols, layer normalization", s, (4, 3), 3000.0));
    all_pass(failures);
}

/// The operations of the table, on its cases.
#[test]
fn every_operation() {
    let _alone = on_device::alone();
    let (mut failures, mut missing) = (Vec::new(), Vec::new());
    for op in OPS {
        for (i, case) in op.cases.iter().enumerate() {
            let fields = case.fields();
            // All real, and all complex.
            let ends = [fields.first(), fields.last().filter(|_| fields.len() > 1)];
            for complex in ends.into_iter().flatten() {
                let what = format!("{}, {}, complex {complex:?}", op.name, case.label);
                let mut sampler = Sampler::new(7 + i as u64);
                let recorded = case.record(DType::F64, complex, &mut sampler).unwrap();
                match on_device::compare_case(recorded) {
                    Ok(()) => {}
                    Err(error) if error.contains("does not run on a device") => missing.push(what),
                    Err(error) => failures.push(format!("{what}: {error}")),
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(missing.is_empty(), "without kernels: {missing:?}");
}

#[test]
#[ignore = "needs a CUDA device"]
fn all_of_it_on_a_device() {
    on_device::REAL.store(true, std::sync::atomic::Ordering::Relaxed);
    every_operation();
    every_cell();
    every_operator();
    what_surrounds_cells();
}
