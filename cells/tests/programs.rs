//! Planned and run by the engine, models give what the reference evaluator gives, and every budget the same bits.
#![allow(clippy::unwrap_used)]

mod common;

use common::{inputs, layer, spec};
use retrograd_cells::{Input, Loss, Model, ModelSpec, Readout, combinations};
use retrograd_engine::{Error, Program, RunOptions, Tensor, Var, grad, reference};

/// Largest difference relative to the largest entry.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!((a.dims(), a.dtype()), (b.dims(), b.dtype()));
    let size = (0..b.len()).map(|i| b.get(i).norm()).fold(1e-9, f64::max);
    (0..a.len()).map(|i| (a.get(i) - b.get(i)).norm()).fold(0.0, f64::max) / size
}

/// Loss and gradients by the plan with room to spare and by the smallest, and by the reference.
fn check(what: &str, spec: ModelSpec) {
    let model = Model::new(spec).unwrap();
    let mut r = model.record(5).unwrap();
    let data = inputs(&model, 37, 5);
    let wrt = r.trainable_vars();
    let mut wanted: Vec<Var> = vec![r.loss, r.loss_sum, r.count];
    wanted.extend(r.correct.iter().chain(&r.predictions));
    wanted.extend(r.states.iter().map(|s| s.last));
    wanted.extend(grad(&mut r.tape, r.loss, &wrt).unwrap());
    let bindings = [&data, &r.params];
    let expected = reference::evaluate(&r.tape, &wanted, &bindings).unwrap();
    let options = RunOptions { threads: Some(2), ..Default::default() };
    let mut program = Program::new(&r.tape, &wanted, options).unwrap();
    let got = program.run(&bindings).unwrap();
    for (k, (a, b)) in got.iter().zip(&expected).enumerate() {
        // Longer sums in another order than the reference's.
        assert!(difference(a, b) < 1e-11, "{what}: value {k} differs by {:e}", difference(a, b));
    }
    program.set_budget(Some(1));
    let Err(Error::Budget { smallest, .. }) = program.run(&bindings) else {
        unreachable!("a budget of one byte was met")
    };
    program.set_budget(Some(smallest));
    let small = program.run(&bindings).unwrap();
    assert!(got.iter().zip(&small).all(|(a, b)| a.bit_eq(b)), "{what}: bits under the smallest budget");
}

#[test]
fn every_cell_on_every_operator() {
    for (cell, operator) in combinations() {
        let layers = vec![layer(cell.name, &[], operator.name, &[], 6)];
        let mut s = spec(Input::Symbols(5), layers, Readout::EveryStep, 3, Loss::SoftmaxCrossEntropy);
        s.learn_h0 = true;
        check(&format!("{} on {}", cell.name, operator.name), s);
    }
}

/// Settings that change what a step is made of.
#[test]
fn settings() {
    type Set<'a> = &'a [(&'a str, &'a str)];
    let rows: &[(&str, Set<'_>, &str, Set<'_>)] = &[
        ("gru", &[], "lrd", &[("tied", "true"), ("rank", "3")]),
        ("lstm", &[], "lr", &[("tied", "true"), ("rank", "3")]),
        ("irnn", &[("K", "2"), ("eta_steps", "20")], "ivh", &[("rank", "2")]),
        ("irnn", &[("K", "1"), ("twice", "false"), ("activation", "tanh")], "dense", &[]),
        ("eurnn", &[("field", "real")], "eunn", &[("capacity", "5")]),
        ("eurnn", &[("read", "both-parts")], "eunn", &[("capacity", "1")]),
        ("nru", &[("head_activation", "relu"), ("layer_norm", "true"), ("heads", "3")], "dense", &[]),
        ("antisymmetric_rnn", &[("gated", "true")], "antisymmetric", &[]),
        ("sru", &[("rates", "0,0.9"), ("summary", "4"), ("output", "5")], "dense", &[]),
        ("gru", &[], "householder", &[("reflections", "6")]),
    ];
    for (cell, set, operator, op_set) in rows {
        let layers = vec![layer(cell, set, operator, op_set, 6)];
        let mut s = spec(Input::Dense(2), layers, Readout::EveryStep, 3, Loss::SquaredError);
        (s.learn_h0, s.lengths) = (true, true);
        check(&format!("{cell} with {set:?} on {operator} with {op_set:?}"), s);
    }
}

#[test]
fn weight_normalization() {
    for (cell, operator) in [("lstm", "dense"), ("gru", "lrd"), ("kru", "dense")] {
        let layers = vec![layer(cell, &[], operator, &[], 6)];
        let mut s = spec(Input::Dense(2), layers, Readout::EveryStep, 2, Loss::SquaredError);
        (s.weight_norm, s.bidirectional) = (true, true);
        check(&format!("{cell} on {operator} with weight normalization"), s);
    }
}

/// Many factors: some are multiplied together once a call, and one operation gives the gradients of all.
#[test]
fn many_factors() {
    for cell in ["kru", "lstm"] {
        let layers = vec![layer(cell, &[], "kron", &[], 64)];
        let s = spec(Input::Dense(2), layers, Readout::Last, 1, Loss::SquaredError);
        check(&format!("{cell} of 64 units"), s);
    }
}

#[test]
fn stacks() {
    for bidirectional in [false, true] {
        for readout in [Readout::Last, Readout::EveryStep] {
            let layers = vec![layer("kru", &[], "kron", &[], 4), layer("lstm", &[], "dense", &[], 3)];
            let mut s = spec(Input::Dense(2), layers, readout, 2, Loss::BinaryCrossEntropy);
            (s.bidirectional, s.lengths, s.masked) = (bidirectional, true, true);
            (s.dropout, s.predictions) = (0.25, true);
            check(&format!("two layers, bidirectional {bidirectional}, {readout:?}"), s);
        }
    }
}

/// The memory of a loss summed inside the loop does not grow with the outputs of every step.
#[test]
fn unwanted_outputs_take_no_memory() {
    let peak = |predictions: bool| {
        let layers = vec![layer("rnn", &[], "dense", &[], 4)];
        let mut s = spec(Input::Symbols(5), layers, Readout::EveryStep, 200, Loss::SoftmaxCrossEntropy);
        s.predictions = predictions;
        let r = Model::new(s).unwrap().record(5).unwrap();
        let mut wanted = vec![r.loss];
        wanted.extend(r.predictions);
        let program = Program::new(&r.tape, &wanted, RunOptions { threads: Some(1), ..Default::default() });
        program.unwrap().plan(2000, 3).unwrap().peak_bytes()
    };
    let outputs = 2000 * 3 * 200 * 8;
    assert!(peak(true) > outputs, "{}", peak(true));
    assert!(peak(false) < outputs / 2, "{}", peak(false));
}
