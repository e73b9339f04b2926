//! Cells whose steps can be inverted: the inverse is one, training that walks states back has the gradients of training
//! that keeps them, and takes memory that does not grow with what the states would take.
#![allow(clippy::unwrap_used)]

mod common;

use common::{inputs, layer, random, spec};
use proptest::prelude::*;
use retrograd_cells::{
    Declare, Init, Input, Layer, Loss, Model, ModelSpec, OPERATORS, ParamStore, Readout, combinations,
};
use retrograd_engine::{DType, Params, Program, RunOptions, Shape, Tape, Tensor, Var, grad};

/// Largest difference relative to the largest entry.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    let size = (0..b.len()).map(|i| b.get(i).norm()).fold(1e-9, f64::max);
    (0..a.len()).map(|i| (a.get(i) - b.get(i)).norm()).fold(0.0, f64::max) / size
}

/// Cells and operators whose layers have an inverse.
fn invertible() -> Vec<(&'static str, &'static str)> {
    let inverts = |cell: &str, operator: &str| {
        let l = layer(cell, &[], operator, &[], 6);
        let (mut tape, mut store) = (Tape::new(), ParamStore::new(1, DType::F64).unwrap());
        let mut ctx = Declare::new(&mut tape, &mut store);
        l.cell
            .declare(&mut ctx, Input::Dense(2), l.hidden, l.operator.as_ref())
            .unwrap()
            .expansion()
            .is_some()
    };
    combinations().into_iter().map(|(c, o)| (c.name, o.name)).filter(|(c, o)| inverts(c, o)).collect()
}

#[test]
fn there_are_some() {
    let on: Vec<&str> = invertible().into_iter().filter(|(c, _)| *c == "unicornn").map(|(_, o)| o).collect();
    // All that have real matrices.
    let real: Vec<&str> = OPERATORS.iter().map(|o| o.name).filter(|o| *o != "rc").collect();
    assert_eq!(on, real);
}

/// `inverse(step(h, x), x) = h`, and how far an error of the state after the step grows.
fn inverts(cell: &str, operator: &str, dtype: DType, seed: u64, scale: f64) {
    let l = layer(cell, &[], operator, &[], 6);
    let (mut tape, mut store) = (Tape::new(), ParamStore::new(seed, dtype).unwrap());
    let mut ctx = Declare::new(&mut tape, &mut store);
    let bound = l.cell.declare(&mut ctx, Input::Dense(2), l.hidden, l.operator.as_ref()).unwrap();
    let mut data = Params::new();
    let mut input = |tape: &mut Tape, name: &str, width: usize, by: f64| -> Var {
        let init = Init::Normal(by);
        data.insert(name, random(&format!("{name}{seed}"), dtype, &[4, width], init));
        tape.input(name, dtype, Shape::rows([width])).unwrap()
    };
    let x = input(&mut tape, "x", 2, 1.0);
    let parts = bound.state();
    let before: Vec<Var> = parts.iter().map(|p| input(&mut tape, p.name, p.width, scale)).collect();
    let after = bound.step(&mut tape, &before, x).unwrap();
    let back = bound.inverse(&mut tape, &after, x).unwrap();
    let params = store.into_params();
    let mut program = Program::new(&tape, &back, RunOptions::default()).unwrap();
    let found = program.run(&[&data, &params]).unwrap();
    let most =
        parts.iter().map(|p| (0..24).map(|i| data.get(p.name).unwrap().get(i).norm()).fold(1.0, f64::max));
    let most = most.fold(0.0, f64::max);
    let unit = if dtype == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) };
    for (part, v) in parts.iter().zip(&found) {
        let h = data.get(part.name).unwrap();
        let off = (0..h.len()).map(|i| (h.get(i) - v.get(i)).norm()).fold(0.0, f64::max);
        let what = format!("{cell} on {operator}: {}", part.name);
        assert!(off <= 20.0 * unit * most, "{what} is off by {off:.1e} of {most:.1e}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn the_inverse_is_one(seed in 0u64..1000, scale in 0.01f64..20.0, single: bool) {
        let dtype = if single { DType::F32 } else { DType::F64 };
        for (cell, operator) in invertible() {
            inverts(cell, operator, dtype, seed, scale);
        }
    }
}

/// Loss and gradients, the bound that the plan states and what the run found.
fn run(spec: &ModelSpec, steps: usize, rows: usize, threads: usize) -> (Vec<Tensor>, f64, f64, usize) {
    let model = Model::new(spec.clone()).unwrap();
    let mut r = model.record(5).unwrap();
    let data = inputs(&model, steps, rows);
    let wrt = r.trainable_vars();
    let mut wanted = vec![r.loss];
    wanted.extend(grad(&mut r.tape, r.loss, &wrt).unwrap());
    let options = RunOptions { threads: Some(threads), ..Default::default() };
    let mut program = Program::new(&r.tape, &wanted, options).unwrap();
    let plan = program.plan(steps, rows).unwrap();
    let bound = plan.summary().walks.first().map_or(0.0, |w| w.bound);
    let out = program.run(&[&data, &r.params]).unwrap();
    (out, bound, program.last_drift().unwrap_or(0.0), plan.recorded_bytes())
}

fn agrees(what: &str, spec: ModelSpec, every: usize) {
    let (kept, ..) = run(&spec, 61, 5, 2);
    let walked = ModelSpec { walk_back: Some(every), ..spec };
    let (found, bound, drift, _) = run(&walked, 61, 5, 2);
    assert!(drift > 0.0 && drift <= bound, "{what}: drift {drift:.1e}, bound {bound:.1e}");
    assert_eq!(found[0], kept[0], "{what}: the loss");
    for (k, (a, b)) in found.iter().zip(&kept).enumerate() {
        let off = difference(a, b);
        assert!(
            off <= 100.0 * bound,
            "{what}: value {k} is off by {off:.1e}, the states by at most {bound:.1e}"
        );
    }
    assert_eq!(run(&walked, 61, 5, 1).0, found, "{what}: threads");
}

#[test]
fn gradients_are_those_of_kept_states() {
    for (cell, operator) in invertible() {
        for readout in [Readout::Last, Readout::EveryStep] {
            let layers = vec![layer(cell, &[], operator, &[], 6)];
            let mut s = spec(Input::Dense(2), layers, readout, 3, Loss::SquaredError);
            (s.learn_h0, s.lengths) = (true, readout == Readout::EveryStep);
            agrees(&format!("{cell} on {operator}, {readout:?}"), s, 12);
        }
    }
}

#[test]
fn stacks_walk_back_too() {
    let two: Vec<Layer> = [6, 4].map(|hidden| layer("unicornn", &[], "diagonal", &[], hidden)).into();
    let mut s = spec(Input::Dense(2), two, Readout::EveryStep, 3, Loss::SquaredError);
    s.dropout = 0.25;
    agrees("two layers", s, 10);
}

#[test]
fn memory_is_that_of_a_state_now_and_then() {
    let s = |walk_back| {
        let layers = vec![layer("unicornn", &[], "diagonal", &[], 32)];
        let mut s = spec(Input::Dense(1), layers, Readout::Last, 2, Loss::SquaredError);
        (s.dtype, s.walk_back) = (DType::F32, walk_back);
        s
    };
    let (kept, walked) = (run(&s(None), 2000, 4, 1).3, run(&s(Some(50)), 2000, 4, 1).3);
    assert!(kept >= 2000 * 4 * 2 * 32 * 4, "{kept}");
    assert_eq!(walked, 41 * 4 * 2 * 32 * 4);
}

#[test]
fn what_has_no_inverse_is_named() {
    let record = |cell: &str, bidirectional: bool| {
        let layers = vec![layer(cell, &[], "dense", &[], 4)];
        let mut s = spec(Input::Dense(1), layers, Readout::Last, 2, Loss::SquaredError);
        (s.walk_back, s.bidirectional) = (Some(5), bidirectional);
        Model::new(s).and_then(|m| m.record(1)).unwrap_err().to_string()
    };
    let error = record("gru", false);
    assert!(error.contains("`gru` (layer 0) has no inverse"), "{error}");
    assert!(record("unicornn", true).contains("bidirectional"));
}
