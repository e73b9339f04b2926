//! Masks that hold for a whole sequence, symbols that are dropped, tables that stand for symbols.
#![allow(clippy::unwrap_used)]

mod common;

use common::{inputs, layer, spec};
use retrograd_cells::{Input, Loss, Mode, Model, ModelSpec, Readout};
use retrograd_engine::{Program, RunOptions, Tensor};

const STEPS: usize = 7;
const ROWS: usize = 5;

fn model(change: impl Fn(&mut ModelSpec)) -> Model {
    let layers =
        vec![layer("rnn", &[("activation", "relu"), ("recurrent_init", "identity")], "dense", &[], 6)];
    let mut s = spec(Input::Symbols(4), layers, Readout::EveryStep, 3, Loss::SquaredError);
    change(&mut s);
    Model::new(s).unwrap()
}

/// Loss and states of a model, under a seed of dropout.
fn run(model: &Model, mode: Mode, seed: i32) -> (f64, Option<Tensor>) {
    let r = model.record_for(mode, 2).unwrap();
    let mut data = inputs(model, STEPS, ROWS);
    if r.input_names().iter().any(|name| name == "dropout_seed") {
        data.insert("dropout_seed", Tensor::scalar(seed));
    }
    let mut outputs = vec![r.loss];
    for probe in &r.probes {
        outputs.push(probe.history);
        let dims = [STEPS, ROWS, 6];
        data.insert(probe.input.clone(), Tensor::zeros(r.tape.dtype(probe.var).unwrap(), dims).unwrap());
    }
    let options = RunOptions { threads: Some(1), ..RunOptions::default() };
    let mut program = Program::new(&r.tape, &outputs, options).unwrap();
    let mut out = program.run(&[&data, &r.params]).unwrap().into_iter();
    (out.next().unwrap().item().unwrap(), out.next())
}

#[test]
fn masks_are_of_the_seed_and_of_training_alone() {
    type Change = fn(&mut ModelSpec);
    let changes: [Change; 4] = [
        |s| s.recurrent_dropout = 0.5,
        |s| s.input_dropout = 0.5,
        |s| s.readout_dropout = 0.5,
        |s| (s.embedding, s.input_dropout) = (Some(3), 0.5),
    ];
    for (i, change) in changes.into_iter().enumerate() {
        let (with, without) = (
            model(change),
            model(|s| {
                if i == 3 {
                    s.embedding = Some(3)
                }
            }),
        );
        let train = |seed| run(&with, Mode::Train, seed).0;
        assert_eq!(train(1), train(1), "{i}");
        assert_ne!(train(1), train(2), "{i}");
        assert_ne!(train(1), run(&without, Mode::Train, 1).0, "{i}");
        assert_eq!(run(&with, Mode::Evaluate, 1).0, run(&without, Mode::Evaluate, 1).0, "{i}");
    }
}

/// With `W = 1`, no bias and a ReLU that never cuts, a state is the sum of inputs, masked again at every step: an element
/// that is dropped forgets all but the newest input, one that is kept is divided by the probability.
#[test]
fn one_mask_for_a_whole_sequence() {
    let spec = |dropout: f64| {
        let m = model(|s| (s.recurrent_dropout, s.probes) = (dropout, true));
        // All inputs are alike and positive.
        let r = m.record_for(Mode::Train, 2).unwrap();
        let mut params = r.params.clone();
        params.get_mut("layer0.U").unwrap().fill_with(|_| 1.0.into());
        let mut data = inputs(&m, STEPS, ROWS);
        if dropout > 0.0 {
            data.insert("dropout_seed", Tensor::scalar(3i32));
        }
        let dims = [STEPS, ROWS, 6];
        data.insert("probe.0.h", Tensor::zeros(m.spec().dtype, dims).unwrap());
        let mut program = Program::new(&r.tape, &[r.probes[0].history], RunOptions::default()).unwrap();
        program.run(&[&data, &params]).unwrap().remove(0)
    };
    let states = spec(0.5);
    let mut kept = 0;
    for element in 0..ROWS * 6 {
        let path: Vec<f64> = (0..STEPS).map(|t| states.get(t * ROWS * 6 + element).re).collect();
        let dropped = vec![1.0; STEPS];
        let doubled: Vec<f64> = (1..=STEPS as u32).map(|t| f64::from(2u32.pow(t)) - 1.0).collect();
        assert!(path == dropped || path == doubled, "{path:?}");
        kept += usize::from(path == doubled);
    }
    assert!((1..ROWS * 6).contains(&kept), "{kept}");
    assert_eq!(spec(0.0).get((STEPS - 1) * ROWS * 6).re, STEPS as f64);
}

/// A symbol that is dropped leaves the state as it is, bias and all; at the next step the next one is drawn anew.
#[test]
fn symbols_are_dropped_whole() {
    let m = model(|s| (s.input_dropout, s.probes) = (0.5, true));
    let (_, states) = run(&m, Mode::Train, 5);
    let states = states.unwrap();
    let (mut still, mut moved) = (0, 0);
    for t in 1..STEPS {
        for row in 0..ROWS {
            let at = |t: usize, c: usize| states.get((t * ROWS + row) * 6 + c).re;
            match (0..6).all(|c| at(t, c) == at(t - 1, c)) {
                true => still += 1,
                false => moved += 1,
            }
        }
    }
    assert!(still > 3 && moved > 3, "{still} {moved}");
}

#[test]
fn contradictions_are_errors() {
    let layers = vec![layer("rnn", &[], "dense", &[], 3)];
    let base = spec(Input::Dense(2), layers, Readout::Last, 1, Loss::SquaredError);
    type Change = fn(&mut ModelSpec);
    let rows: [(Change, &str); 5] = [
        (|s| s.recurrent_dropout = 1.0, "recurrent_dropout 1"),
        (|s| s.input_dropout = -0.1, "input_dropout -0.1"),
        (|s| s.readout_dropout = f64::NAN, "readout_dropout NaN"),
        (|s| s.embedding = Some(4), "an embedding of 4 numbers for an input that is no symbols"),
        (|s| (s.embedding, s.input) = (Some(0), Input::Symbols(3)), "an embedding of 0 numbers"),
    ];
    for (change, want) in rows {
        let mut s = base.clone();
        change(&mut s);
        let message = Model::new(s).err().unwrap().to_string();
        assert!(message.contains(want), "{message}");
    }
}
