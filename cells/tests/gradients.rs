//! Gradients of every cell on every operator through a short scan, against finite differences.
#![allow(clippy::unwrap_used)]

mod common;

use common::{inputs, layer, random, spec};
use retrograd_cells::{CELLS, Init, Input, Loss, Model, ModelSpec, OPERATORS, Readout};
use retrograd_engine::{Params, Tensor, Var, gradcheck};

/// Checks the gradient of the loss by every trained parameter, and by `x` if it is dense.
fn check(what: &str, spec: ModelSpec) -> Option<String> {
    let model = Model::new(spec).unwrap();
    let mut recorded = model.record(5).unwrap();
    let data = inputs(&model, 4, 3);
    // First values are often 0 or equal, where mistakes hide and where a ReLU has no derivative.
    let moved = |(name, t): (&str, &Tensor)| {
        let noise = random(name, t.dtype(), t.dims(), Init::Normal(0.2));
        let mut moved = t.clone();
        moved.fill_with(|i| t.get(i) + noise.get(i));
        (name.to_string(), moved)
    };
    let params: Params = recorded.params.iter().map(moved).collect();
    let mut wrt: Vec<Var> = recorded.trainable_vars();
    if let (Input::Dense(_), Some((_, x, _))) =
        (model.spec().input, recorded.tape.inputs().find(|(name, _, _)| *name == "x"))
    {
        wrt.push(x);
    }
    let options = gradcheck::Options { max_components: 24, directions: 2, ..Default::default() };
    let loss = recorded.loss;
    let report = gradcheck::check_reference(&mut recorded.tape, &[loss], &wrt, &[&data, &params], &options);
    let report = report.unwrap();
    (!report.passed()).then(|| format!("{what}: {report}"))
}

fn all_pass(failures: Vec<Option<String>>) {
    let failures: Vec<String> = failures.into_iter().flatten().collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_cell_on_every_operator() {
    let mut failures = Vec::new();
    for cell in CELLS {
        for operator in OPERATORS {
            let layer = layer(cell.name, &[], operator.name, &[], 6);
            let mut s = spec(Input::Dense(2), vec![layer], Readout::EveryStep, 3, Loss::SoftmaxCrossEntropy);
            s.learn_h0 = true;
            failures.push(check(&format!("{} on {}", cell.name, operator.name), s));
        }
    }
    all_pass(failures);
}

#[test]
fn every_option() {
    // Settings away from the defaults, and the loss and read-out they are checked with.
    let rows: &[(&str, &[(&str, &str)])] = &[
        ("rnn", &[("activation", "relu"), ("recurrent_init", "orthogonal")]),
        ("rnn", &[("layer_norm", "true")]),
        ("lstm", &[("peephole", "true"), ("cell_to_output", "true")]),
        ("lstm", &[("chrono", "10")]),
        ("gru", &[("reset", "after"), ("carry_bias", "2")]),
        ("kru", &[("modrelu", "exact")]),
        ("irnn", &[("K", "2"), ("eta_steps", "3"), ("eta", "0.4"), ("twice", "false")]),
        (
            "irnn",
            &[("K", "3"), ("start", "zero"), ("activation", "sigmoid"), ("alpha", "0.7"), ("eta", "0.5")],
        ),
        ("irnn", &[("K", "1"), ("activation", "tanh"), ("eta_steps", "9")]),
        ("nru", &[("heads", "1"), ("memory", "9"), ("layer_norm", "true")]),
        ("nru", &[("heads", "3"), ("head_activation", "relu"), ("p", "2")]),
        ("rnn", &[("activation", "leaky_relu"), ("layer_norm", "true")]),
        ("janet", &[("chrono", "20"), ("beta", "0.5")]),
        ("fastrnn", &[("activation", "relu"), ("recurrent_init", "orthogonal")]),
        ("antisymmetric_rnn", &[("gated", "true"), ("epsilon", "0.7")]),
        ("sru", &[("rates", "0.3,0.9"), ("summary", "3"), ("output", "5")]),
    ];
    let mut failures = Vec::new();
    for (i, (cell, set)) in rows.iter().enumerate() {
        let readout = if i % 2 == 0 { Readout::Last } else { Readout::EveryStep };
        let layer = layer(cell, set, "dense", &[], 4);
        let s = spec(Input::Symbols(5), vec![layer], readout, 2, Loss::BinaryCrossEntropy);
        failures.push(check(&format!("{cell} with {set:?}"), s));
    }
    all_pass(failures);
}

#[test]
fn every_option_of_an_operator() {
    let rows: &[(&str, &str, &[(&str, &str)])] = &[
        ("gru", "kron", &[("factors", "3x2")]),
        ("gru", "lr", &[("rank", "2"), ("tied", "true")]),
        ("gru", "lrd", &[("rank", "5"), ("tied", "true")]),
        ("lstm", "lrd", &[("rank", "3"), ("diagonal_init", "constant:0.5")]),
        ("kru", "lrd", &[("rank", "2")]),
        ("rnn", "ivh", &[("rank", "6")]),
        ("kru", "block_diagonal", &[("blocks", "2")]),
        ("gru", "antisymmetric", &[("gamma", "0.5")]),
        ("gru", "householder", &[("reflections", "6")]),
        ("kru", "householder", &[("reflections", "4")]),
        ("lstm", "svd", &[("reflections", "3"), ("margin", "0.5")]),
        ("kru", "svd", &[("reflections", "2"), ("margin", "1")]),
    ];
    let mut failures = Vec::new();
    for (cell, operator, set) in rows {
        let layer = layer(cell, &[], operator, set, 6);
        let s = spec(Input::Dense(2), vec![layer], Readout::Last, 2, Loss::SquaredError);
        failures.push(check(&format!("{cell} on {operator} with {set:?}"), s));
    }
    all_pass(failures);
}

/// Directions and lengths in place of matrices.
#[test]
fn weight_normalization() {
    let mut failures = Vec::new();
    for (cell, operator) in [("lstm", "dense"), ("gru", "lr"), ("kru", "block_diagonal"), ("irnn", "ivh")] {
        let layers = vec![layer(cell, &[], operator, &[], 6)];
        let mut s = spec(Input::Symbols(4), layers, Readout::EveryStep, 2, Loss::SquaredError);
        s.weight_norm = true;
        failures.push(check(&format!("{cell} on {operator} with weight normalization"), s));
    }
    all_pass(failures);
}

#[test]
fn stacks() {
    let mut failures = Vec::new();
    for bidirectional in [false, true] {
        for readout in [Readout::Last, Readout::EveryStep] {
            for lengths in [false, true] {
                let layers = vec![layer("kru", &[], "kron", &[], 4), layer("gru", &[], "dense", &[], 3)];
                let mut s = spec(Input::Dense(2), layers, readout, 2, Loss::SquaredError);
                (s.bidirectional, s.lengths, s.masked) = (bidirectional, lengths, !lengths);
                s.dropout = 0.25;
                let what =
                    format!("two layers, bidirectional {bidirectional}, {readout:?}, lengths {lengths}");
                failures.push(check(&what, s));
            }
        }
    }
    all_pass(failures);
}
