//! What a recorded model means: shapes, names, losses, masks, lengths, carried states, directions.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::{CloneAs, indices, inputs, layer, random, spec};
use num_complex::Complex64;
use retrograd_cells::{Init, Input, Loss, Mode, Model, ModelSpec, Readout, Recorded, combinations};
use retrograd_engine::{DType, Params, Tensor, Var, reference};

fn evaluate(r: &Recorded, data: &Params, params: &Params, wanted: &[Var]) -> Vec<Tensor> {
    reference::evaluate(&r.tape, wanted, &[data, params]).unwrap()
}

fn numbers(r: &Recorded, data: &Params, wanted: &[Var]) -> Vec<f64> {
    evaluate(r, data, &r.params, wanted).iter().map(|t| t.item().unwrap()).collect()
}

fn record(s: ModelSpec) -> (Recorded, Model) {
    let model = Model::new(s).unwrap();
    (model.record(5).unwrap(), model)
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * (1.0 + a.abs().max(b.abs()))
}

/// A copy of `t` (`[T,N,..]` or `[N,..]`) with rows, and steps, chosen.
fn choose(t: &Tensor, axis: usize, at: &[usize]) -> Tensor {
    let dims = t.dims();
    let (outer, inner): (usize, usize) = (dims[..axis].iter().product(), dims[axis + 1..].iter().product());
    let mut out_dims = dims.to_vec();
    out_dims[axis] = at.len();
    let mut out = Tensor::zeros(t.dtype(), &out_dims).unwrap();
    let source = |i: usize| {
        let (o, k, n) = (i / inner / at.len(), i / inner % at.len(), i % inner);
        (o * dims[axis] + at[k]) * inner + n
    };
    if t.dtype() == DType::I32 {
        let values: Vec<i32> = (0..out.len()).map(|i| t.get(source(i)).re as i32).collect();
        return Tensor::from_slice(&out_dims, &values).unwrap();
    }
    assert_eq!(outer * at.len() * inner, out.len());
    out.fill_with(|i| t.get(source(i)));
    out
}

fn two_layers() -> Vec<retrograd_cells::Layer> {
    vec![layer("kru", &[], "kron", &[], 6), layer("lstm", &[], "dense", &[], 3)]
}

#[test]
fn names_and_sizes() {
    let shapes = |cell: &str, set: &[(&str, &str)], op: &str, hidden: usize, h0: bool| {
        let layers = vec![layer(cell, set, op, &[], hidden)];
        let mut s = spec(Input::Dense(2), layers, Readout::Last, 5, Loss::SquaredError);
        s.learn_h0 = h0;
        let store = Model::new(s).unwrap().declare(0).unwrap();
        let shape = |(name, t): (&str, &Tensor)| format!("{name} {}{:?}", t.dtype(), t.dims());
        store.params().iter().map(shape).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(
        shapes("rnn", &[("layer_norm", "true")], "dense", 4, true),
        "layer0.U f64[2, 4]; layer0.W f64[4, 4]; layer0.b f64[4]; layer0.g f64[4]; layer0.s f64[4]; \
         layer0.h0 f64[4]; readout.V f64[4, 5]; readout.c f64[5]"
    );
    assert_eq!(
        shapes("lstm", &[("peephole", "true"), ("cell_to_output", "true")], "dense", 4, true),
        "layer0.U f64[2, 16]; layer0.W f64[4, 16]; layer0.b f64[16]; layer0.p_i f64[4]; layer0.p_f f64[4]; \
         layer0.p_o f64[4]; layer0.V_o f64[4, 4]; layer0.h0 f64[4]; layer0.c0 f64[4]; readout.V f64[4, 5]; \
         readout.c f64[5]"
    );
    assert_eq!(
        shapes("gru", &[("reset", "after")], "kron", 6, false),
        "layer0.U f64[2, 18]; layer0.W.r.0 f64[2, 2]; layer0.W.r.1 f64[3, 3]; layer0.W.z.0 f64[2, 2]; \
         layer0.W.z.1 f64[3, 3]; layer0.W.n.0 f64[2, 2]; layer0.W.n.1 f64[3, 3]; layer0.b f64[18]; \
         layer0.d f64[6]; readout.V f64[6, 5]; readout.c f64[5]"
    );
    assert_eq!(
        shapes("sru", &[("rates", "0,0.5"), ("output", "3")], "lr", 4, true),
        "layer0.W_r f64[8, 4]; layer0.b_r f64[4]; layer0.U f64[2, 4]; layer0.W.L f64[1, 4]; layer0.W.R f64[4, 1]; \
         layer0.b f64[4]; layer0.W_o f64[8, 3]; layer0.b_o f64[3]; layer0.mu0 f64[8]; readout.V f64[3, 5]; \
         readout.c f64[5]"
    );
    assert_eq!(
        shapes("antisymmetric_rnn", &[("gated", "true")], "antisymmetric", 4, false),
        "layer0.U f64[2, 8]; layer0.W.A f64[6]; layer0.b f64[8]; readout.V f64[4, 5]; readout.c f64[5]"
    );
    assert_eq!(
        shapes("kru", &[], "kron", 6, true),
        "layer0.U c64[2, 6]; layer0.W.0 c64[2, 2]; layer0.W.1 c64[3, 3]; layer0.b f64[6]; layer0.h0 c64[6]; \
         readout.V f64[12, 5]; readout.c f64[5]"
    );
    assert_eq!(
        shapes("rc_urnn", &[], "rc", 6, true),
        "layer0.U c64[2, 6]; layer0.W.theta1 f64[6]; layer0.W.theta2 f64[6]; layer0.W.theta3 f64[6]; \
         layer0.W.v1 c64[6]; layer0.W.v2 c64[6]; layer0.W.pi i32[6]; layer0.b f64[6]; layer0.h0 c64[6]; \
         readout.V f64[12, 5]; readout.c f64[5]"
    );
    assert_eq!(
        shapes("eurnn", &[], "eunn", 6, false),
        "layer0.U c64[2, 6]; layer0.W.theta f64[5]; layer0.W.phi f64[5]; layer0.W.omega f64[6]; layer0.b f64[6]; \
         readout.V f64[6, 5]; readout.c f64[5]"
    );
    assert_eq!(
        shapes("goru", &[], "eunn", 5, false),
        "layer0.U f64[2, 15]; layer0.G f64[5, 10]; layer0.W.theta f64[4]; layer0.b f64[10]; layer0.b_c f64[5]; \
         readout.V f64[5, 5]; readout.c f64[5]"
    );
    assert_eq!(
        shapes("gru", &[], "unitary", 3, false),
        "layer0.U f64[2, 9]; layer0.W.r f64[3, 3]; layer0.W.z f64[3, 3]; layer0.W.n f64[3, 3]; layer0.b f64[9]; \
         readout.V f64[3, 5]; readout.c f64[5]"
    );
}

#[test]
fn initial_biases() {
    let bias = |cell: &str, set: &[(&str, &str)]| {
        let s = spec(
            Input::Dense(1),
            vec![layer(cell, set, "dense", &[], 2)],
            Readout::Last,
            1,
            Loss::SquaredError,
        );
        let params = Model::new(s).unwrap().declare(0).unwrap().into_params();
        params.get("layer0.b").unwrap().as_slice::<f64>().unwrap().to_vec()
    };
    assert_eq!(bias("lstm", &[]), [0., 0., 1., 1., 0., 0., 0., 0.]);
    assert_eq!(bias("gru", &[("carry_bias", "4")]), [0., 0., 4., 4., 0., 0.]);
    let chrono = bias("lstm", &[("chrono", "100")]);
    assert!(chrono[2..4].iter().all(|b| (0.0..=99f64.ln()).contains(b)), "{chrono:?}");
    assert_eq!([-chrono[0], -chrono[1]], chrono[2..4]);
    assert_eq!(chrono[4..], [0.; 4]);
    assert_eq!(bias("janet", &[]), [1., 1., 0., 0.]);
    let chrono = bias("janet", &[("chrono", "100")]);
    assert!(chrono[..2].iter().all(|b| (0.0..=99f64.ln()).contains(b)), "{chrono:?}");
    assert_eq!(chrono[2..], [0.; 2]);
    assert_eq!(bias("ugrnn", &[]), [1.; 4]);
}

/// Directions and lengths begin as the matrix; longer directions change nothing, longer lengths do.
#[test]
fn weight_normalization() {
    let model = |cell: &str, op: &str, weight_norm| {
        let layers = vec![layer(cell, &[], op, &[], 4)];
        let mut s = spec(Input::Dense(2), layers, Readout::Last, 2, Loss::SquaredError);
        s.weight_norm = weight_norm;
        record(s)
    };
    for (cell, op) in [("lstm", "dense"), ("kru", "block_diagonal"), ("gru", "kron")] {
        let (plain, m) = model(cell, op, false);
        let (normed, _) = model(cell, op, true);
        let data = inputs(&m, 5, 3);
        let expected = numbers(&plain, &data, &[plain.loss])[0];
        let got = |change: &str, factor: f64| {
            let scaled = |(name, t): (&str, &Tensor)| {
                let mut scaled = t.clone();
                scaled.fill_with(|i| t.get(i) * if name == change { factor } else { 1.0 });
                (name.to_string(), scaled)
            };
            let params = normed.params.iter().map(scaled).collect();
            evaluate(&normed, &data, &params, &[normed.loss])[0].item().unwrap()
        };
        assert!(close(got("", 1.0), expected), "{cell} on {op}");
        assert!(close(got("layer0.U", 3.0), expected), "{cell} on {op}");
        assert!(!close(got("layer0.U.scale", 3.0), expected), "{cell} on {op}");
        assert!(plain.params.iter().all(|(name, t)| t.bit_eq(normed.params.get(name).unwrap())));
    }
    let (r, _) = model("gru", "lr", true);
    let names: Vec<_> = r.params.iter().filter(|(n, _)| n.ends_with("scale")).collect();
    let names: Vec<_> = names.iter().map(|(n, t)| format!("{n} {:?}", t.dims())).collect();
    assert_eq!(names, ["layer0.U.scale [6, 1]", "layer0.W.L.scale [3, 1]"]);
    // Of a Kronecker product the outermost factor has the lengths of the rows: longer ones are longer rows of it all,
    // longer directions change nothing in any factor.
    let (r, m) = model("rnn", "kron", true);
    let names: Vec<_> = r.params.names().filter(|n| n.ends_with("scale")).collect();
    assert_eq!(names, ["layer0.U.scale", "layer0.W.0.scale"]);
    let data = inputs(&m, 5, 3);
    let loss = |change: &str, factor: f64| {
        let scaled = |(name, t): (&str, &Tensor)| {
            let mut scaled = t.clone();
            scaled.fill_with(|i| t.get(i) * if name == change { factor } else { 1.0 });
            (name.to_string(), scaled)
        };
        let params = r.params.iter().map(scaled).collect();
        evaluate(&r, &data, &params, &[r.loss])[0].item().unwrap()
    };
    let expected = loss("", 1.0);
    assert!(close(loss("layer0.W.0", 3.0), expected) && close(loss("layer0.W.1", 3.0), expected));
    assert!(!close(loss("layer0.W.0.scale", 3.0), expected));
}

#[test]
fn adding_a_parameter_keeps_the_others() {
    let params = |set: &[(&str, &str)]| {
        let s = spec(
            Input::Dense(2),
            vec![layer("lstm", set, "kron", &[], 4)],
            Readout::Last,
            1,
            Loss::SquaredError,
        );
        Model::new(s).unwrap().declare(3).unwrap().into_params()
    };
    let (few, many) = (params(&[]), params(&[("peephole", "true")]));
    assert_eq!(many.len(), few.len() + 3);
    assert!(few.iter().all(|(name, t)| t.bit_eq(many.get(name).unwrap())));
}

#[test]
fn every_cell_runs_on_every_operator_in_both_precisions() {
    for (cell, operator) in combinations() {
        for dtype in [DType::F32, DType::F64] {
            let layers = vec![layer(cell.name, &[], operator.name, &[], 6)];
            let mut s = spec(Input::Symbols(4), layers, Readout::EveryStep, 3, Loss::SoftmaxCrossEntropy);
            (s.dtype, s.predictions) = (dtype, true);
            let (r, model) = record(s);
            let wanted = [r.loss, r.correct.unwrap(), r.predictions.unwrap(), r.states[0].last];
            let values = evaluate(&r, &inputs(&model, 5, 2), &r.params, &wanted);
            let what = format!("{} on {} in {dtype}", cell.name, operator.name);
            assert!(values.iter().all(Tensor::is_finite), "{what}");
            // An untrained classifier of three classes is near log 3.
            assert!((values[0].item().unwrap() - 3f64.ln()).abs() < 1.5, "{what}");
            assert_eq!(values[2].dims(), [5, 2, 3], "{what}");
            assert_eq!(values[3].dims(), [2, r.states[0].width], "{what}");
        }
    }
}

/// Losses and hits recomputed from the outputs.
#[test]
fn losses_are_what_they_say() {
    for (loss, masked) in [
        (Loss::SoftmaxCrossEntropy, true),
        (Loss::SoftmaxCrossEntropy, false),
        (Loss::SquaredError, true),
        (Loss::BinaryCrossEntropy, false),
    ] {
        for readout in [Readout::Last, Readout::EveryStep] {
            let mut s = spec(Input::Dense(2), two_layers(), readout, 4, loss);
            (s.masked, s.predictions) = (masked, true);
            let (r, model) = record(s);
            let data = inputs(&model, 6, 3);
            let y = &evaluate(&r, &data, &r.params, &[r.predictions.unwrap()])[0];
            let target = data.get("target").unwrap();
            let (mut sum, mut count, mut correct) = (0.0, 0.0, 0.0);
            for row in 0..y.len() / 4 {
                let weight = data.get("mask").map_or(1.0, |m| m.get(row).re);
                let y: Vec<f64> = (0..4).map(|k| y.get(row * 4 + k).re).collect();
                let t = |k: usize| target.get(row * 4 + k).re;
                sum += weight
                    * match loss {
                        Loss::SoftmaxCrossEntropy => {
                            let class = target.get(row).re as usize;
                            correct += weight * f64::from(u8::from(y.iter().all(|&v| v <= y[class])));
                            y.iter().map(|v| v.exp()).sum::<f64>().ln() - y[class]
                        }
                        Loss::SquaredError => (0..4).map(|k| (y[k] - t(k)).powi(2)).sum::<f64>() / 4.0,
                        Loss::BinaryCrossEntropy => {
                            (0..4).map(|k| (1.0 + y[k].exp()).ln() - t(k) * y[k]).sum()
                        }
                    };
                count += weight;
            }
            let got = numbers(&r, &data, &[r.loss_sum, r.count, r.loss]);
            let expected = [sum, count, sum / count];
            assert!(got.iter().zip(expected).all(|(a, b)| close(*a, b)), "{got:?} {expected:?} {loss:?}");
            if let Some(v) = r.correct {
                assert_eq!(numbers(&r, &data, &[v]), [correct]);
            }
            assert_eq!(r.correct.is_some(), loss == Loss::SoftmaxCrossEntropy);
        }
    }
}

#[test]
fn nothing_counted_is_no_loss() {
    let mut s = spec(Input::Dense(2), two_layers(), Readout::EveryStep, 2, Loss::SquaredError);
    s.masked = true;
    let (r, model) = record(s);
    let mut data = inputs(&model, 4, 2);
    data.insert("mask", Tensor::zeros(DType::F64, [4, 2]).unwrap());
    assert_eq!(numbers(&r, &data, &[r.loss, r.count]), [0.0, 0.0]);
}

/// What stands in padding does not matter, neither to the loss nor to a gradient.
#[test]
fn padding_holds_any_class() {
    for lengths in [false, true] {
        let mut s = spec(Input::Dense(2), two_layers(), Readout::EveryStep, 3, Loss::SoftmaxCrossEntropy);
        (s.lengths, s.masked) = (lengths, !lengths);
        let (mut r, model) = record(s);
        let data = inputs(&model, 5, 3);
        let wrt = r.trainable_vars();
        let mut wanted = vec![r.loss, r.count, r.correct.unwrap()];
        wanted.extend(retrograd_engine::grad(&mut r.tape, r.loss, &wrt).unwrap());
        let ended = |i: usize| match lengths {
            true => (i / 3) as f64 >= data.get("lengths").unwrap().get(i % 3).re,
            false => data.get("mask").unwrap().get(i).re == 0.0,
        };
        let with = |class: i32| {
            let target = data.get("target").unwrap();
            let classes: Vec<i32> =
                (0..15).map(|i| if ended(i) { class } else { target.get(i).re as i32 }).collect();
            let mut data = data.clone();
            data.insert("target", Tensor::from_slice([5, 3], &classes).unwrap());
            evaluate(&r, &data, &r.params, &wanted)
        };
        assert!((0..15).any(ended));
        let (zero, wild) = (with(0), with(-1));
        assert!(zero[0].item().unwrap() > 0.1);
        assert!(zero.iter().zip(&wild).all(|(a, b)| a.bit_eq(b)), "lengths {lengths}");
    }
}

/// A mask that keeps the last step alone makes a read-out of every step one of the last.
#[test]
fn last_is_every_step_at_the_end() {
    let make = |readout| spec(Input::Dense(2), two_layers(), readout, 3, Loss::SoftmaxCrossEntropy);
    let (last, model) = record(make(Readout::Last));
    let data = inputs(&model, 5, 3);
    let mut every = make(Readout::EveryStep);
    every.masked = true;
    let (every, _) = record(every);
    let mut every_data = data.clone();
    let (mut mask, mut target) = (Tensor::zeros(DType::F64, [5, 3]).unwrap(), vec![0i32; 15]);
    mask.fill_with(|i| Complex64::new(if i >= 12 { 1.0 } else { 0.0 }, 0.0));
    target[12..].copy_from_slice(data.get("target").unwrap().as_slice::<i32>().unwrap());
    every_data.insert("mask", mask);
    every_data.insert("target", Tensor::from_slice([5, 3], &target).unwrap());
    let a = numbers(&last, &data, &[last.loss, last.count]);
    let b = numbers(&every, &every_data, &[every.loss, every.count]);
    assert!(close(a[0], b[0]) && a[1] == b[1], "{a:?} {b:?}");
}

/// Rows that end early count as if each had been run alone, to its own length.
#[test]
fn lengths_are_rows_on_their_own() {
    for bidirectional in [false, true] {
        for readout in [Readout::Last, Readout::EveryStep] {
            for masked in [false, true] {
                let mut s = spec(Input::Dense(2), two_layers(), readout, 3, Loss::SoftmaxCrossEntropy);
                (s.bidirectional, s.masked) = (bidirectional, masked);
                let (whole, model) = record(s.clone());
                s.lengths = true;
                let (ragged, ragged_model) = record(s);
                let data = inputs(&ragged_model, 5, 3);
                assert_eq!(model.spec().masked, masked);
                let outputs = |r: &Recorded| vec![r.loss_sum, r.count, r.correct.unwrap()];
                let got = numbers(&ragged, &data, &outputs(&ragged));
                let mut sum = vec![0.0; 3];
                let lengths = data.get("lengths").unwrap();
                for row in 0..3 {
                    let steps: Vec<usize> = (0..lengths.get(row).re as usize).collect();
                    let mut own = Params::new();
                    for name in ["x", "target", "mask"] {
                        let Some(t) = data.get(name) else { continue };
                        let timed = name == "x" || readout == Readout::EveryStep;
                        let t = choose(t, usize::from(timed), &[row]);
                        own.insert(name, if timed { choose(&t, 0, &steps) } else { t });
                    }
                    let part = numbers(&whole, &own, &outputs(&whole));
                    sum.iter_mut().zip(part).for_each(|(s, p)| *s += p);
                }
                let same = got.iter().zip(&sum).all(|(a, b)| close(*a, *b));
                assert!(same, "bidirectional {bidirectional}, {readout:?}, masked {masked}: {got:?} {sum:?}");
            }
        }
    }
}

/// Two halves with the state carried over are the whole.
#[test]
fn carried_state_joins_batches() {
    let s = spec(Input::Symbols(4), two_layers(), Readout::EveryStep, 3, Loss::SoftmaxCrossEntropy);
    let (whole, model) = record(s.clone());
    let data = inputs(&model, 6, 2);
    let (carried, _) = record(ModelSpec { stateful: true, ..s });
    assert_eq!(carried.input_names(), ["x", "target", "state.0.h", "state.1.h", "state.1.c"]);
    let mut state: BTreeMap<String, Tensor> = carried
        .states
        .iter()
        .map(|s| (s.input.clone(), Tensor::zeros(s.dtype, [2, s.width]).unwrap()))
        .collect();
    let mut sum = 0.0;
    for half in [[0, 1, 2], [3, 4, 5]] {
        let mut own: Params = state.clone().into_iter().collect();
        for name in ["x", "target"] {
            own.insert(name, choose(data.get(name).unwrap(), 0, &half));
        }
        let mut wanted = vec![carried.loss_sum];
        wanted.extend(carried.states.iter().map(|s| s.last));
        let mut values = evaluate(&carried, &own, &carried.params, &wanted).into_iter();
        sum += values.next().unwrap().item().unwrap();
        state = carried.states.iter().map(|s| s.input.clone()).zip(values).collect();
    }
    let expected = numbers(&whole, &data, &[whole.loss_sum])[0];
    assert!(close(sum, expected), "{sum} {expected}");
    let last = evaluate(&whole, &data, &whole.params, &[whole.states[2].last]);
    assert_eq!(last[0].dims(), [2, 3]);
    assert!((0..6).all(|i| close(last[0].get(i).re, state["state.1.c"].get(i).re)));
}

/// Symbols are one-hot vectors, without the product.
#[test]
fn symbols_are_one_hot() {
    let make = |input| spec(input, two_layers(), Readout::Last, 3, Loss::SoftmaxCrossEntropy);
    let (symbols, model) = record(make(Input::Symbols(5)));
    let (dense, _) = record(make(Input::Dense(5)));
    let data = inputs(&model, 4, 3);
    let x = data.get("x").unwrap();
    let mut one_hot = Tensor::zeros(DType::F64, [4, 3, 5]).unwrap();
    one_hot.fill_with(|i| Complex64::new(f64::from(u8::from(x.get(i / 5).re as usize == i % 5)), 0.0));
    let mut dense_data = data.clone();
    dense_data.insert("x", one_hot);
    let a = numbers(&symbols, &data, &[symbols.loss])[0];
    let b = numbers(&dense, &dense_data, &[dense.loss])[0];
    assert!(close(a, b), "{a} {b}");
}

/// Time reversed and directions swapped, a bidirectional model is the same.
#[test]
fn directions_are_each_other_reversed() {
    for readout in [Readout::Last, Readout::EveryStep] {
        let mut s = spec(
            Input::Dense(2),
            vec![layer("gru", &[], "kron", &[], 4)],
            readout,
            3,
            Loss::SoftmaxCrossEntropy,
        );
        (s.bidirectional, s.learn_h0) = (true, true);
        let (r, model) = record(s);
        let data = inputs(&model, 5, 2);
        let backwards = [4, 3, 2, 1, 0];
        let mut flipped = data.clone();
        flipped.insert("x", choose(data.get("x").unwrap(), 0, &backwards));
        if readout == Readout::EveryStep {
            flipped.insert("target", choose(data.get("target").unwrap(), 0, &backwards));
        }
        let mut swapped = Params::new();
        for (name, t) in r.params.iter() {
            let other = match name.contains(".forward.") {
                true => name.replace(".forward.", ".backward."),
                false => name.replace(".backward.", ".forward."),
            };
            let rows = [4, 5, 6, 7, 0, 1, 2, 3];
            swapped.insert(other, if name == "readout.V" { choose(t, 0, &rows) } else { t.clone() });
        }
        let a = numbers(&r, &data, &[r.loss])[0];
        let b = evaluate(&r, &flipped, &swapped, &[r.loss])[0].item().unwrap();
        let unswapped = evaluate(&r, &flipped, &r.params, &[r.loss])[0].item().unwrap();
        assert!(close(a, b), "{readout:?}: {a} {b}");
        assert!(!close(a, unswapped), "{readout:?}");
    }
}

#[test]
fn dropout_acts_in_training_alone() {
    for bidirectional in [false, true] {
        let mut s = spec(Input::Dense(2), two_layers(), Readout::EveryStep, 2, Loss::SquaredError);
        s.bidirectional = bidirectional;
        let (plain, _) = record(s.clone());
        s.dropout = 0.5;
        let (train, model) = record(s);
        let eval = model.record_for(Mode::Evaluate, 5).unwrap();
        let data = inputs(&model, 6, 3);
        let plain = numbers(&plain, &data, &[plain.loss])[0];
        assert_eq!(numbers(&eval, &data, &[eval.loss])[0], plain);
        assert!(!eval.input_names().contains(&"dropout_seed".to_string()));
        let with_seed = |seed: i32| {
            let mut data = data.clone();
            data.insert("dropout_seed", Tensor::scalar(seed));
            numbers(&train, &data, &[train.loss])[0]
        };
        assert_eq!(with_seed(1), with_seed(1));
        assert!(with_seed(1) != with_seed(2) && with_seed(1) != plain);
    }
}

#[test]
fn first_values_of_the_callers_own() {
    let begun = |initial: &[(&str, Init)]| {
        let layers = vec![layer("lstm", &[], "lrd", &[("rank", "2")], 5)];
        let mut s = spec(Input::Symbols(4), layers, Readout::EveryStep, 3, Loss::SoftmaxCrossEntropy);
        s.initial = initial.iter().map(|(name, init)| (name.to_string(), *init)).collect();
        Model::new(s).and_then(|m| m.declare(1)).map(|store| store.into_params())
    };
    let usual = begun(&[]).unwrap();
    // The last that fits counts; of a name that is the beginning of another word, nothing is hit.
    let small = [
        ("layer0", Init::Uniform(0.04)),
        ("readout.V", Init::Zeros),
        ("layer0.W.delta", Init::Constant(2.0)),
    ];
    let own = begun(&small).unwrap();
    for (name, tensor) in own.iter() {
        let largest = (0..tensor.len()).map(|i| tensor.get(i).norm()).fold(0.0, f64::max);
        match name {
            "readout.V" => assert_eq!(largest, 0.0),
            "layer0.W.delta" => assert_eq!(largest, 2.0),
            "readout.c" => assert!(tensor.bit_eq(usual.require(name).unwrap())),
            _ => assert!(largest <= 0.04 && largest > 0.02, "{name}: {largest}"),
        }
    }
    // Forget biases of 1 are gone, and what nobody named is as it was.
    let one = begun(&[("layer0.U", Init::Zeros)]).unwrap();
    for (name, tensor) in one.iter().filter(|(name, _)| *name != "layer0.U") {
        assert!(tensor.bit_eq(usual.require(name).unwrap()), "{name}");
    }
    let message = begun(&[("layer0.Q", Init::Zeros)]).unwrap_err().to_string();
    assert!(message.contains("`layer0.Q`"), "{message}");
    assert!(begun(&[("layer", Init::Zeros)]).is_err());
}

#[test]
fn frozen_parameters_are_not_trained() {
    let names = |frozen: &[&str], op_set: &[(&str, &str)]| {
        let layers = vec![layer("kru", &[], "kron", op_set, 6)];
        let mut s = spec(Input::Dense(1), layers, Readout::Last, 1, Loss::SquaredError);
        s.frozen = frozen.iter().map(|f| f.to_string()).collect();
        Model::new(s).unwrap().record(0).map(|r| {
            assert_eq!(r.params.len(), 6);
            let trained: Vec<String> = r.trainable.into_iter().map(|(n, _)| n).collect();
            let factors: Vec<&String> = trained.iter().filter(|n| n.starts_with("layer0.W")).collect();
            assert_eq!(r.factors.iter().collect::<Vec<_>>(), factors);
            trained
        })
    };
    let rest = ["layer0.U", "layer0.b", "readout.V", "readout.c"];
    assert_eq!(names(&[], &[("freeze", "true")]).unwrap(), rest);
    assert_eq!(names(&["layer0.W"], &[]).unwrap(), rest);
    assert_eq!(names(&[], &[]).unwrap().len(), 6);
    assert_eq!(names(&["layer0.W.1", "readout.c"], &[]).unwrap().len(), 4);
    let message = names(&["layer1"], &[]).unwrap_err().to_string();
    assert_eq!(message, "model: frozen parameter `layer1` does not exist");
}

/// A unitary recurrence with a zero bias and no input keeps the norm of a KRU's state.
#[test]
fn unitary_recurrence_keeps_the_norm() {
    for op in ["kron", "dense"] {
        let layers = vec![layer("kru", &[("modrelu", "exact")], op, &[], 12)];
        let mut s = spec(Input::Dense(1), layers, Readout::Last, 1, Loss::SquaredError);
        s.stateful = true;
        let (r, model) = record(s);
        let mut data = inputs(&model, 50, 2);
        let h = random("h", DType::C64, &[2, 12], Init::Normal(1.0));
        data.insert("x", Tensor::zeros(DType::F64, [50, 2, 1]).unwrap());
        data.insert("state.0.h", h.clone());
        let mut params = r.params.clone();
        params.insert("layer0.b", Tensor::zeros(DType::F64, [12]).unwrap());
        let last = &evaluate(&r, &data, &params, &[r.states[0].last])[0];
        let norm = |t: &Tensor| (0..t.len()).map(|i| t.get(i).norm_sqr()).sum::<f64>().sqrt();
        assert!((norm(last) / norm(&h) - 1.0).abs() < 1e-12, "{op}");
    }
}

#[test]
fn hits_count_the_first_of_equals() {
    use retrograd_cells::model::hits;
    use retrograd_engine::{Shape, Tape};
    let mut tape = Tape::new();
    let y = tape.input("y", DType::F32, Shape::rows([3])).unwrap();
    let t = tape.input("t", DType::I32, Shape::rows([])).unwrap();
    let h = hits(&mut tape, y, t).unwrap();
    let rows = [[1., 2., 0.], [1., 2., 0.], [5., 5., 5.], [5., 5., 5.], [f32::NAN, 1., 0.], [1., 2., 3.]];
    let mut data = Params::new();
    data.insert("y", Tensor::from_slice([6, 3], rows.as_flattened()).unwrap());
    data.insert("t", Tensor::from_slice([6], &[1i32, 0, 0, 1, 1, 3]).unwrap());
    let values = reference::evaluate(&tape, &[h], &[&data]).unwrap();
    assert_eq!(values[0].as_slice::<f32>().unwrap(), [1., 0., 1., 0., 0., 0.]);
    assert!(hits(&mut tape, t, t).is_err());
    assert!(hits(&mut tape, y, y).is_err());
    assert_eq!(indices("i", &[4], 3).clone_as(DType::F64).dims(), [4]);
}
