//! What the paper of the iRNN says of its inner steps, and of step sizes by time step.
#![allow(clippy::unwrap_used)]

mod common;

use common::{inputs, layer, random, settings, spec};
use retrograd_cells::init::Init;
use retrograd_cells::{Declare, Input, Loss, Model, ParamStore, Readout, cell, operator};
use retrograd_engine::{DType, Params, Scan, Shape, Tape, Tensor, Var, grad, reference, vjp};

const N: usize = 5;

/// The state after `T` steps and the gradients of `Σ u ⊙ h_T` by the first state and by the input.
struct Run {
    last: Tensor,
    u: Tensor,
    by_first: Tensor,
    by_x: Tensor,
}

/// `steps` steps on the same input of every unit, with a recurrent matrix of norm well below 1.
fn run(set: &[(&str, &str)], steps: usize) -> Run {
    let (mut tape, mut store) = (Tape::new(), ParamStore::new(3, DType::F64).unwrap());
    let irnn = cell("irnn", &settings(set)).unwrap();
    let dense = operator("dense", &settings(&[])).unwrap();
    let bound = irnn.declare(&mut Declare::new(&mut tape, &mut store), Input::Dense(2), N, &*dense).unwrap();
    let x = tape.input("x", DType::F64, Shape::sequence([2])).unwrap();
    let h0 = tape.input("h0", DType::F64, Shape::rows([N])).unwrap();
    let (last, ()) =
        Scan::new().run(&mut tape, h0, x, |tape, h, x| Ok((bound.step(tape, &[h], x)?[0], ()))).unwrap();
    let u = tape.input("u", DType::F64, Shape::rows([N])).unwrap();
    let bars: Vec<Var> = vjp(&mut tape, &[(last, u)], &[h0, x]).unwrap().into_iter().flatten().collect();
    let mut params = store.into_params();
    params.insert("x", random("x", DType::F64, &[steps, 3, 2], Init::Normal(1.0)));
    params.insert("h0", random("h0", DType::F64, &[3, N], Init::Normal(0.5)));
    params.insert("u", random("u", DType::F64, &[3, N], Init::Normal(1.0)));
    let values = reference::evaluate(&tape, &[last, bars[0], bars[1]], &[&params]).unwrap();
    let u = params.require("u").unwrap().clone();
    Run { last: values[0].clone(), u, by_first: values[1].clone(), by_x: values[2].clone() }
}

/// Largest entry of `a − scale·b`.
fn apart(a: &Tensor, b: &Tensor, scale: f64) -> f64 {
    assert_eq!(a.dims(), b.dims());
    (0..a.len()).map(|i| (a.get(i) - b.get(i) * scale).norm()).fold(0.0, f64::max)
}

/// 200 inner steps that shrink the error to 0.6 or less each.
const CONVERGED: [(&str, &str); 5] = [
    ("K", "200"),
    ("eta", "0.5"),
    ("activation", "sigmoid"),
    ("twice", "false"),
    ("recurrent_init", "uniform:0.1"),
];

/// Where the inner steps have converged, a step turns the gradient by the state around and leaves its size.
#[test]
fn gradients_at_equilibrium() {
    for (steps, sign) in [(1, -1.0), (2, 1.0), (7, -1.0)] {
        let found = run(&CONVERGED, steps);
        assert!(apart(&found.by_first, &found.u, sign) < 1e-12, "{steps} steps");
        assert!((0..found.by_x.len()).any(|i| found.by_x.get(i).norm() > 1e-3), "{steps} steps");
    }
    // Far from it this is not so.
    let far = run(&[("K", "2"), ("eta", "0.1")], 2);
    assert!(apart(&far.by_first, &far.u, 1.0) > 0.1);
}

/// There is one equilibrium: where the inner steps begin does not matter then, and does before.
#[test]
fn where_inner_steps_begin() {
    let zero = [("start", "zero")];
    let from_zero: Vec<(&str, &str)> = CONVERGED.iter().chain(&zero).copied().collect();
    assert!(apart(&run(&CONVERGED, 3).last, &run(&from_zero, 3).last, 1.0) < 1e-12);
    assert!(apart(&run(&[], 3).last, &run(&zero, 3).last, 1.0) > 0.1);
}

/// `P = W` applied to the whole argument is not the argument; with `W = I` it is.
#[test]
fn the_second_application() {
    let last = |set: &[(&'static str, &'static str)], twice| {
        let set: Vec<_> = set.iter().copied().chain([("twice", twice), ("eta", "0.5")]).collect();
        run(&set, 3).last
    };
    assert!(apart(&last(&[], "true"), &last(&[], "false"), 1.0) > 1e-2);
    let identity = [("recurrent_init", "identity")];
    assert!(apart(&last(&identity, "true"), &last(&identity, "false"), 1.0) < 1e-14);
}

/// Loss and gradients of a model of 4 steps with this first table of step sizes (`None`: the one of the settings).
fn with_table(set: &[(&str, &str)], table: Option<&[f64]>) -> (f64, Params) {
    let layers = vec![layer("irnn", set, "ivh", &[], 6)];
    let model = Model::new(spec(Input::Dense(2), layers, Readout::Last, 1, Loss::SquaredError)).unwrap();
    let mut r = model.record(5).unwrap();
    if let Some(values) = table {
        let dims = r.params.require("layer0.eta").unwrap().dims().to_vec();
        r.params.insert("layer0.eta", Tensor::from_slice(dims, values).unwrap());
    }
    let wrt = r.trainable_vars();
    let gradients = grad(&mut r.tape, r.loss, &wrt).unwrap();
    let wanted: Vec<Var> = [r.loss].into_iter().chain(gradients).collect();
    let values = reference::evaluate(&r.tape, &wanted, &[&inputs(&model, 4, 3), &r.params]).unwrap();
    let names = r.trainable.iter().map(|(name, _)| name.clone());
    (values[0].item().unwrap(), Params::from_iter(names.zip(values[1..].iter().cloned())))
}

/// Every time step reads its own row, steps beyond the table its last one, and rows beyond the sequence get nothing.
#[test]
fn step_sizes_by_time_step() {
    let numbers = |p: &Params| p.require("layer0.eta").unwrap().as_slice::<f64>().unwrap().to_vec();
    let (loss, shared) = with_table(&[("K", "2"), ("eta", "0.2")], None);
    let (same, rows) = with_table(&[("K", "2"), ("eta", "0.2"), ("eta_steps", "6")], None);
    assert!((loss - same).abs() < 1e-15);
    let (shared, rows) = (numbers(&shared), numbers(&rows));
    for k in 0..2 {
        let sum: f64 = rows.iter().skip(k).step_by(2).sum();
        assert!((sum - shared[k]).abs() < 1e-14, "{sum} and {}", shared[k]);
    }
    assert!(rows[..8].iter().all(|g| g.abs() > 1e-6) && rows[8..] == [0.0; 4], "{rows:?}");

    let short = [("K", "1"), ("eta_steps", "2")];
    let long = [("K", "1"), ("eta_steps", "4")];
    let (a, _) = with_table(&short, Some(&[0.1, 0.3]));
    let (b, _) = with_table(&long, Some(&[0.1, 0.3, 0.3, 0.3]));
    let (c, _) = with_table(&long, Some(&[0.1, 0.3, 0.3, 0.2]));
    assert!((a - b).abs() < 1e-15 && (a - c).abs() > 1e-6, "{a} {b} {c}");
}
