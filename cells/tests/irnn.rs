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
    // With the previous state subtracted it leaves the gradient as it is, and that converged or not.
    let plus = [("identity", "plus")];
    let converged: Vec<(&str, &str)> = CONVERGED.iter().chain(&plus).copied().collect();
    for (set, steps) in [(&converged[..], 1), (&converged, 2), (&converged, 7), (&plus, 3)] {
        let found = run(set, steps);
        assert!(apart(&found.by_first, &found.u, 1.0) < 1e-12, "{set:?}, {steps} steps");
        assert!((0..found.by_x.len()).any(|i| found.by_x.get(i).norm() > 1e-3), "{set:?}, {steps} steps");
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

/// Theorem 1: the nearer to the equilibrium, the nearer is `∂h_t/∂h_{t−1}` to `−1`; and by the implicit function theorem
/// it is exactly that.
#[test]
fn the_jacobian_approaches_minus_one() {
    let mut before = f64::INFINITY;
    for k in ["1", "5", "20", "60"] {
        let set: Vec<(&str, &str)> =
            CONVERGED.iter().map(|(key, value)| (*key, if *key == "K" { k } else { *value })).collect();
        let found = run(&set, 1);
        let away = apart(&found.by_first, &found.u, -1.0);
        assert!(away < before / 2.0, "K = {k}: {away}, {before} before");
        before = away;
    }
    assert!(before < 1e-9, "{before}");
}

/// A model of one converged layer, its values, and what a test asks of it.
fn converged(
    set: &[(&str, &str)],
    wanted: impl Fn(&mut retrograd_cells::Recorded) -> Vec<Var>,
) -> Vec<Tensor> {
    let layers = vec![layer("irnn", set, "dense", &[], N)];
    let mut s = spec(Input::Dense(2), layers, Readout::EveryStep, 2, Loss::SquaredError);
    s.probes = true;
    let model = Model::new(s).unwrap();
    let mut r = model.record(3).unwrap();
    let outputs = wanted(&mut r);
    let mut data = inputs(&model, 6, 3);
    data.insert("probe.0.h", Tensor::zeros(DType::F64, [6, 3, N]).unwrap());
    reference::evaluate(&r.tape, &outputs, &[&data, &r.params]).unwrap()
}

/// Every solver gets where many inner steps get, whatever it starts from; what it does not solve is counted.
#[test]
fn solvers_agree_with_many_steps() {
    let base = [("activation", "sigmoid"), ("twice", "false"), ("recurrent_init", "uniform:0.1")];
    let many: Vec<(&str, &str)> = base.iter().copied().chain([("K", "120"), ("eta", "0.6")]).collect();
    let of = |set: &[(&str, &str)]| converged(set, |r| vec![r.probes[0].history, r.loss]);
    let expected = of(&many);
    for solver in ["damped", "anderson", "broyden"] {
        let most = if solver == "damped" { "80" } else { "12" };
        for start in ["state", "zero"] {
            let set: Vec<(&str, &str)> = base
                .iter()
                .copied()
                .chain([
                    ("K", most),
                    ("solver", solver),
                    ("tolerance", "1e-11"),
                    ("rate", "0.7"),
                    ("start", start),
                ])
                .collect();
            let found = of(&set);
            assert!(apart(&found[0], &expected[0], 1.0) < 1e-9, "{solver} from {start}");
            let missed = converged(&set, |r| vec![r.unconverged.unwrap()]);
            assert_eq!(missed[0].item().unwrap(), 0.0, "{solver} from {start}");
        }
        // Two steps are not enough anywhere: 6 steps of 3 rows.
        let few: Vec<(&str, &str)> =
            base.iter().copied().chain([("K", "2"), ("solver", solver), ("tolerance", "1e-12")]).collect();
        let missed = converged(&few, |r| vec![r.unconverged.unwrap()]);
        assert_eq!(missed[0].item().unwrap(), 18.0, "{solver}");
    }
    assert!(converged(&many, |r| vec![r.loss; usize::from(r.unconverged.is_none())]).len() == 1);
}

mod linear_rate {
    use proptest::prelude::*;
    use retrograd_ops::{self as ops, FixedPoint, Gradient, Solver};

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// Proposition 2: with `‖W‖ < α` inner steps of size `η` shrink the distance from the equilibrium by
        /// `1 − α η + η ‖W‖` each, or more.
        #[test]
        fn of_proposition_2(eta in 0.05..0.9f64, norm in 0.05..0.8f64, seed in 0u64..1000) {
            const K: usize = 12;
            let mut tape = Tape::new();
            let w = tape.param("w", DType::F64, [N, N]).unwrap();
            let [h, ux] = ["h", "ux"].map(|name| tape.input(name, DType::F64, Shape::rows([N])).unwrap());
            let slope = |tape: &mut Tape, g: Var| {
                let sum = ops::add(tape, g, h)?;
                let z = ops::matmul(tape, sum, w)?;
                let z = ops::add(tape, z, ux)?;
                let phi = ops::relu(tape, z)?;
                let change = ops::sub(tape, phi, sum)?;
                ops::add(tape, g, change)
            };
            let solve = |tape: &mut Tape, steps: usize, eta: f64| {
                let options = FixedPoint {
                    solver: Solver::damped(eta),
                    gradient: Gradient::Unrolled,
                    steps,
                    tolerance: 0.0,
                };
                ops::fixed_point(tape, h, &options, slope).unwrap().z
            };
            let mut outputs: Vec<Var> = (1..=K).map(|k| solve(&mut tape, k, eta)).collect();
            outputs.push(solve(&mut tape, 150, 0.9));
            let mut values = Params::new();
            for (name, dims) in [("w", [N, N]), ("h", [3, N]), ("ux", [3, N])] {
                values.insert(name, random(&format!("{name}{seed}"), DType::F64, &dims, Init::Normal(1.0)));
            }
            // The Frobenius norm is not below the spectral one, so the matrix is at most as large as it should be.
            let length = (0..N * N).map(|i| values.require("w").unwrap().get(i).norm_sqr()).sum::<f64>().sqrt();
            let old = values.require("w").unwrap().clone();
            values.get_mut("w").unwrap().fill_with(|i| old.get(i) * norm / length);
            let found = reference::evaluate(&tape, &outputs, &[&values]).unwrap();
            let away = |g: &Tensor, row: usize| {
                (0..N).map(|i| (g.get(row * N + i) - found[K].get(row * N + i)).norm_sqr()).sum::<f64>().sqrt()
            };
            let rate = 1.0 - eta + eta * norm;
            for row in 0..3 {
                for k in 1..K {
                    let (before, after) = (away(&found[k - 1], row), away(&found[k], row));
                    prop_assert!(after <= rate * before + 1e-9, "step {k}: {after} after {before}, rate {rate}");
                }
            }
        }
    }
}
