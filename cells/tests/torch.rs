//! Forward values and every gradient of small networks, compared with PyTorch's.
//!
//! The fixtures are `tests/fixtures/cells.json` of the repository; the README beside it says how they are laid out.

use std::collections::BTreeMap;
use std::path::Path;

use num_complex::Complex64;
use retrograd_cells::cells::gru::Reset;
use retrograd_cells::cells::irnn::{Limit, Phi, Start};
use retrograd_cells::cells::nru::HeadActivation;
use retrograd_cells::cells::rnn::Activation;
use retrograd_cells::cells::{
    AntisymmetricRnn, Eurnn, FastGrnn, FastRnn, FcUrnn, Goru, Gru, Irnn, Janet, Kru, Lstm, Nru, RcUrnn, Rnn,
    Sru, Ugrnn,
};
use retrograd_cells::operators::{
    Antisymmetric, BlockDiagonal, Dense, Diagonal, Eunn, Householder, Ivh, Kron, Lrd, Rc, Svd, Unitary,
};
use retrograd_cells::{BoundCell, Cell, Declare, Input, ParamStore, RecurrentOperator};
use retrograd_engine::core_ops::concat;
use retrograd_engine::layout::{Layout, layout};
use retrograd_engine::{DType, Params, Scan, Shape, Tape, Tensor, Var, matmul, reference, vjp};
use retrograd_ops::{ModReluForm, RotationStyle, add};
use serde_json::Value;

type Error = Box<dyn std::error::Error>;
type Tensors = BTreeMap<String, Tensor>;

/// Largest difference, relative to the largest entry: rounding of a few steps in double precision.
const TOLERANCE: f64 = 1e-12;

fn tensor(v: &Value) -> Result<Tensor, Error> {
    let numbers = |key: &str| v[key].as_array().ok_or(format!("no {key} in {v}"));
    let dims: Vec<usize> = numbers("dims")?.iter().filter_map(|d| d.as_u64()).map(|d| d as usize).collect();
    let data: Vec<f64> = numbers("data")?.iter().filter_map(Value::as_f64).collect();
    Ok(match v["dtype"].as_str() {
        Some("F64") => Tensor::from_slice(dims, &data)?,
        Some("C64") => {
            let data: Vec<Complex64> = data.chunks(2).map(|z| Complex64::new(z[0], z[1])).collect();
            Tensor::from_slice(dims, &data)?
        }
        Some("I64") => {
            let data: Vec<i32> = data.iter().map(|&x| x as i32).collect();
            Tensor::from_slice(dims, &data)?
        }
        other => return Err(format!("element type {other:?}").into()),
    })
}

struct Case {
    name: String,
    inputs: Tensors,
    outputs: Tensors,
    cotangents: Tensors,
    grads: Tensors,
}

fn cases() -> Result<Vec<Case>, Error> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/cells.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let cases = file["cases"].as_array().ok_or("no cases")?;
    cases
        .iter()
        .map(|c| {
            let tensors = |key: &str| -> Result<Tensors, Error> {
                let map = c[key].as_object().ok_or(format!("no {key}"))?;
                map.iter().map(|(k, v)| Ok((k.clone(), tensor(v)?))).collect()
            };
            Ok(Case {
                name: c["name"].as_str().ok_or("no name")?.into(),
                inputs: tensors("inputs")?,
                outputs: tensors("outputs")?,
                cotangents: tensors("cotangents")?,
                grads: tensors("grads")?,
            })
        })
        .collect()
}

/// The cell of each case, and its operator.
fn recipe(name: &str) -> Option<(Box<dyn Cell>, Box<dyn RecurrentOperator>)> {
    let rnn = |activation, layer_norm| Box::new(Rnn { activation, layer_norm, recurrent_init: None });
    let gru = |reset| Box::new(Gru { reset, ..Gru::default() });
    let kron = |f: &[usize]| Box::new(Kron { factors: Some(f.to_vec()), frozen: false });
    let lrd = |rank, tied| Box::new(Lrd { rank: Some(rank), tied, ..Lrd::default() });
    let householder = |count| Box::new(Householder { reflections: Some(count), frozen: false });
    let eunn = |style| Box::new(Eunn { style, frozen: false });
    let dense = Box::new(Dense::default());
    Some(match name {
        "rnn_tanh" => (rnn(Activation::Tanh, false), dense),
        "rnn_relu" => (rnn(Activation::Relu, false), dense),
        "rnn_layer_norm" => (rnn(Activation::Tanh, true), dense),
        "lstm" | "lstm_two_layers" | "lstm_packed" => (Box::new(Lstm::default()), dense),
        "lstm_peephole" => (Box::new(Lstm { peephole: true, ..Lstm::default() }), dense),
        "gru_reset_after" | "gru_bidirectional" | "gru_bidirectional_packed" => (gru(Reset::After), dense),
        "gru_reset_before" => (gru(Reset::Before), dense),
        "kru_eps1e-5" => {
            (Box::new(Kru { modrelu: ModReluForm::RcUrnn, recurrent_init: None }), kron(&[2, 3, 2]))
        }
        "kru_eps0" => (Box::new(Kru { modrelu: ModReluForm::Exact, recurrent_init: None }), kron(&[2, 3, 2])),
        "rc_urnn" => (Box::new(RcUrnn::default()), Box::new(Rc::default())),
        "rc_urnn_without_fourier" => {
            (Box::new(RcUrnn::default()), Box::new(Rc { fourier: false, ..Rc::default() }))
        }
        "fc_urnn" => (Box::new(FcUrnn::default()), Box::new(Unitary::default())),
        "eurnn" => (Box::new(Eurnn::default()), eunn(RotationStyle::Tunable { capacity: 3 })),
        "eurnn_real_fft" => {
            (Box::new(Eurnn { complex: false, ..Eurnn::default() }), eunn(RotationStyle::Fft))
        }
        "goru" => (Box::new(Goru::default()), eunn(RotationStyle::Fft)),
        "kru_lstm" => (Box::new(Lstm::default()), kron(&[2, 3])),
        "kru_gru" => (gru(Reset::Before), kron(&[2, 3])),
        "lrd_gru" => (gru(Reset::Before), lrd(2, false)),
        "lrd_gru_tied" => (gru(Reset::Before), lrd(2, true)),
        "lrd_lstm" => (Box::new(Lstm::default()), lrd(3, false)),
        "irnn" => (
            Box::new(Irnn { inner: 3, eta_steps: Some(3), ..Irnn::default() }),
            Box::new(Ivh { rank: Some(2), frozen: false }),
        ),
        "irnn_plus" => (
            Box::new(Irnn { inner: 3, identity: Limit::Plus, ..Irnn::default() }),
            Box::new(Ivh { rank: Some(2), frozen: false }),
        ),
        "irnn_deep" => (
            Box::new(Irnn { inner: 2, depth: 2, phi: Phi::Tanh, ..Irnn::default() }),
            Box::new(Ivh { rank: Some(2), frozen: false }),
        ),
        "irnn_dense" => {
            let plain = Irnn { inner: 2, alpha: 0.7, twice: false, ..Irnn::default() };
            (Box::new(Irnn { phi: Phi::Sigmoid, start: Start::Zero, ..plain }), dense)
        }
        "nru" => (Box::new(Nru { heads: 2, memory: Some(8), ..Nru::default() }), dense),
        "nru_as_written" => {
            let nru = Nru { heads: 2, memory: Some(8), ..Nru::default() };
            (Box::new(Nru { summed: true, heads_see_input: true, ..nru }), dense)
        }
        "nru_relu_layer_norm" => {
            let nru = Nru { heads: 3, memory: Some(12), layer_norm: true, ..Nru::default() };
            (Box::new(Nru { head_activation: HeadActivation::Relu, ..nru }), dense)
        }
        "lstm_cell_to_output" => (Box::new(Lstm { cell_to_output: true, ..Lstm::default() }), dense),
        "janet" => (Box::new(Janet { beta: 0.7, ..Janet::default() }), dense),
        "ugrnn" => (Box::new(Ugrnn::default()), dense),
        "fastrnn_tanh" => (Box::new(FastRnn::default()), dense),
        "fastrnn_relu" => (Box::new(FastRnn { activation: Activation::Relu, ..FastRnn::default() }), dense),
        "fastrnn_low_rank" => (Box::new(FastRnn { input_rank: Some(2), ..FastRnn::default() }), dense),
        "ugrnn_low_rank" => (Box::new(Ugrnn { input_rank: Some(2), ..Ugrnn::default() }), dense),
        "fastgrnn" => (Box::new(FastGrnn::default()), dense),
        "antisymmetric_rnn" | "antisymmetric_rnn_gated" => {
            let cell =
                AntisymmetricRnn { epsilon: 0.3, gated: name.ends_with("gated"), recurrent_init: None };
            (Box::new(cell), Box::new(Antisymmetric { gamma: 0.05, frozen: false }))
        }
        "sru" | "sru_sizes" => {
            let (summary, output) = if name == "sru" { (None, None) } else { (Some(3), Some(5)) };
            let rates = vec![0.0, 0.5, 0.99];
            (Box::new(Sru { rates, summary, output, recurrent_init: None }), dense)
        }
        "rnn_diagonal" => (rnn(Activation::Relu, false), Box::new(Diagonal::default())),
        "lstm_block_diagonal" => {
            (Box::new(Lstm::default()), Box::new(BlockDiagonal { blocks: Some(3), frozen: false }))
        }
        "rnn_householder" => (rnn(Activation::LeakyRelu, false), householder(3)),
        "gru_householder" => (gru(Reset::Before), householder(5)),
        "kru_householder" => {
            (Box::new(Kru { modrelu: ModReluForm::Exact, recurrent_init: None }), householder(2))
        }
        "rnn_svd" => {
            let svd = Svd { reflections: Some(2), margin: 0.3, frozen: false };
            (rnn(Activation::Relu, false), Box::new(svd))
        }
        _ => return None,
    })
}

/// The fixture's name of a parameter `scope.name`, if it is one to one.
fn fixture_name(scope: &str, param: &str) -> String {
    let local = param.strip_prefix(scope).unwrap_or(param).trim_start_matches('.');
    let renamed = match local {
        "U" => "w_x".into(),
        "W" => "w_h".into(),
        "g" => "gain".into(),
        "s" => "shift".into(),
        // W.i.0 is i.f0, W.0 is f0.
        w if w.starts_with("W.") => match w[2..].split_once('.') {
            Some((gate, f)) => format!("{gate}.f{f}"),
            // W.L is L.
            None if w[2..].starts_with(|c: char| c.is_alphabetic()) => w[2..].into(),
            None => format!("f{}", &w[2..]),
        },
        other => other.into(),
    };
    if scope.is_empty() { renamed } else { format!("{scope}.{renamed}") }
}

fn part(t: &Tensor, range: std::ops::Range<usize>) -> Result<Tensor, Error> {
    Ok(Tensor::from_slice([range.len()], &t.as_slice::<f64>()?[range])?)
}

/// A network on a tape, what it puts out, and where gradients are wanted, by the fixture's names.
struct Network {
    tape: Tape,
    params: Params,
    outputs: Vec<(String, Var)>,
    wrt: Vec<(String, Var)>,
}

fn build(case: &Case) -> Result<Network, Error> {
    let (cell, operator) = recipe(&case.name).ok_or(format!("no recipe for {}", case.name))?;
    let scopes: &[&str] = match case.name.as_str() {
        "lstm_two_layers" => &["l0", "l1"],
        name if name.contains("bidirectional") => &["fwd", "bwd"],
        _ => &[""],
    };
    let both = scopes == ["fwd", "bwd"];
    let scoped = |scope: &str, name: &str| match scope {
        "" => name.to_string(),
        scope => format!("{scope}.{name}"),
    };
    let mut tape = Tape::new();
    let mut store = ParamStore::new(0, DType::F64)?;
    let mut params = Params::new();
    let mut wrt = Vec::new();

    let x_data = &case.inputs["x"];
    let mut width = x_data.dims()[2];
    let x = tape.input("x", DType::F64, Shape::sequence([width]))?;
    params.insert("x", x_data.clone());
    wrt.push(("x".to_string(), x));
    let lengths = match case.inputs.get("lengths") {
        Some(l) => {
            params.insert("lengths", l.clone());
            Some(tape.input("lengths", DType::I32, Shape::rows([]))?)
        }
        None => None,
    };

    let (mut cells, mut first): (Vec<Box<dyn BoundCell>>, Vec<Vec<Var>>) = Default::default();
    for scope in scopes {
        // The state of an SRU is wider than it has units.
        let n = match case.inputs.get(&scoped(scope, "h0")) {
            Some(h0) => h0.dims()[1],
            None => case.inputs[&scoped(scope, "b")].len(),
        };
        let mut ctx = Declare::new(&mut tape, &mut store);
        let bound = match *scope {
            "" => cell.declare(&mut ctx, Input::Dense(width), n, &*operator)?,
            s => cell.declare(&mut ctx.scope(s), Input::Dense(width), n, &*operator)?,
        };
        if !both {
            width = bound.output_width();
        }
        let mut state = Vec::new();
        for p in bound.state() {
            let name = scoped(scope, &format!("{}0", p.name));
            let dtype = if p.complex { DType::C64 } else { DType::F64 };
            let v = tape.input(&name, dtype, Shape::rows([p.width]))?;
            params.insert(&name, case.inputs[&name].clone());
            wrt.push((name, v));
            state.push(v);
        }
        cells.push(bound);
        first.push(state);
    }
    for (name, v) in store.trainable() {
        let scope = scopes.iter().find(|s| name.starts_with(&scoped(s, ""))).unwrap_or(&"");
        let theirs = fixture_name(scope, name);
        let mut value = case.inputs.get(&theirs).cloned();
        if let Some(b_h) = case.inputs.get(&scoped(scope, "b_h")) {
            let n = b_h.len() / 3;
            if theirs.ends_with("d") {
                value = Some(part(b_h, 2 * n..3 * n)?);
            } else if theirs == scoped(scope, "b") {
                // Reset and carry gates have one bias here, the sum of PyTorch's two.
                let mut b = case.inputs[&theirs].clone();
                let extra = b_h.as_slice::<f64>()?;
                for (b, e) in b.as_mut_slice::<f64>()?.iter_mut().zip(&extra[..2 * n]) {
                    *b += e;
                }
                value = Some(b);
            }
        }
        let value = value.ok_or(format!("{}: no {theirs} for {name}", case.name))?;
        params.insert(name, value);
        wrt.push((theirs, v));
    }
    for name in store.frozen() {
        let value = case.inputs.get(&fixture_name("", name));
        params.insert(name, value.ok_or(format!("{}: no {name}", case.name))?.clone());
    }

    let mut outputs = Vec::new();
    if both {
        let mut ys = Vec::new();
        for (k, (cell, first)) in cells.iter().zip(first).enumerate() {
            let scan = Scan::new().lengths(lengths).reverse(k == 1);
            let (last, y) = scan.run(&mut tape, first, x, |tape, state, x| {
                let next = cell.step(tape, &state, x)?;
                let y = next[0];
                Ok((next, y))
            })?;
            ys.push(y);
            outputs.push((format!("{}.h_n", scopes[k]), last[0]));
        }
        outputs.push(("y".into(), concat(&mut tape, &ys, 0)?));
    } else {
        let scan = Scan::new().lengths(lengths);
        let (last, (y, features)) = scan.run(&mut tape, first, x, |tape, states, x| {
            let (mut x, mut next) = (x, Vec::new());
            for (cell, state) in cells.iter().zip(&states) {
                next.push(cell.step(tape, state, x)?);
                x = cell.output(tape, &next[next.len() - 1])?;
            }
            let y = next[next.len() - 1][0];
            Ok((next, (y, x)))
        })?;
        for ((scope, cell), last) in scopes.iter().zip(&cells).zip(last) {
            for (p, v) in cell.state().iter().zip(last) {
                outputs.push((scoped(scope, &format!("{}_n", p.name)), v));
            }
        }
        if case.inputs.contains_key("v_re") {
            outputs.push(("h".into(), y));
            let y = kru_outputs(&mut tape, &mut params, &mut wrt, case, features)?;
            outputs.push(("y".into(), y));
        } else {
            outputs.push(("y".into(), features));
        }
    }
    Ok(Network { tape, params, outputs, wrt })
}

/// The read-out of a KRU from what the cell shows, `[Re h; Im h]`: `V` is `v_re` above `v_im`.
fn kru_outputs(
    tape: &mut Tape,
    params: &mut Params,
    wrt: &mut Vec<(String, Var)>,
    case: &Case,
    features: Var,
) -> Result<Var, Error> {
    let mut declared = Vec::new();
    for name in ["v_re", "v_im", "c"] {
        let t = &case.inputs[name];
        let v = tape.param(name, DType::F64, t.dims())?;
        params.insert(name, t.clone());
        wrt.push((name.into(), v));
        declared.push(v);
    }
    let v = concat(tape, &declared[..2], 0)?;
    let y = matmul(tape, features, v)?;
    Ok(add(tape, y, declared[2])?)
}

/// Largest difference relative to the largest expected entry.
fn difference(got: &Tensor, expected: &Tensor) -> f64 {
    if got.dims() != expected.dims() || got.dtype() != expected.dtype() {
        return f64::INFINITY;
    }
    let entries = 0..got.len();
    let size = entries.clone().map(|i| expected.get(i).norm()).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let worst = entries.map(|i| (got.get(i) - expected.get(i)).norm()).fold(0.0, f64::max);
    if worst.is_nan() { f64::INFINITY } else { worst / size }
}

fn check(case: &Case) -> Result<Vec<String>, Error> {
    let mut network = build(case)?;
    let tape = &mut network.tape;
    let mut seeds = Vec::new();
    for (name, v) in &network.outputs {
        let Some(cotangent) = case.cotangents.get(name) else { continue };
        let bar = tape.input(&format!("{name}_bar"), cotangent.dtype(), tape.shape(*v)?.clone())?;
        network.params.insert(format!("{name}_bar"), cotangent.clone());
        seeds.push((*v, bar));
    }
    assert_eq!(seeds.len(), case.cotangents.len(), "{}", case.name);
    let wrt: Vec<Var> = network.wrt.iter().map(|(_, v)| *v).collect();
    let bars: Vec<Var> = vjp(tape, &seeds, &wrt)?.into_iter().flatten().collect();
    assert_eq!(bars.len(), wrt.len(), "{}: a gradient is missing", case.name);
    let wanted: Vec<Var> = network.outputs.iter().map(|(_, v)| *v).chain(bars).collect();
    let values = reference::evaluate(tape, &wanted, &[&network.params])?;

    let mut wrong = Vec::new();
    let mut compare = |what: &str, got: &Tensor, expected: &Tensor| {
        let d = difference(got, expected);
        if d > TOLERANCE {
            wrong.push(format!("{}: {what} differs by {d:e}", case.name));
        }
    };
    let (outputs, gradients) = values.split_at(network.outputs.len());
    for ((name, _), got) in network.outputs.iter().zip(outputs) {
        compare(name, got, case.outputs.get(name).ok_or(format!("{}: no output {name}", case.name))?);
    }
    let mut compared = 0;
    for ((name, _), got) in network.wrt.iter().zip(gradients) {
        if let Some(scope) = name.strip_suffix('d').filter(|s| s.is_empty() || s.ends_with('.')) {
            // The bias inside the reset is the last third of PyTorch's b_h.
            let b_h = &case.grads[&format!("{scope}b_h")];
            compare(name, got, &part(b_h, 2 * b_h.len() / 3..b_h.len())?);
        } else {
            compare(name, got, case.grads.get(name).ok_or(format!("{}: no gradient {name}", case.name))?);
        }
        compared += 1;
    }
    assert_eq!(compared, case.grads.len(), "{}: gradients compared", case.name);
    Ok(wrong)
}

#[test]
fn every_fixture() -> Result<(), Error> {
    let mut wrong = Vec::new();
    let cases = cases()?;
    assert_eq!(cases.len(), 49);
    for case in &cases {
        wrong.extend(check(case)?);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Slicing one gate's block out of a dense matrix is what a gate on its own applies.
#[test]
fn dense_gates_together_and_apart() -> Result<(), Error> {
    let (mut tape, mut store) = (Tape::new(), ParamStore::new(3, DType::F64)?);
    let mut ctx = Declare::new(&mut tape, &mut store);
    let r =
        retrograd_cells::Recurrence { name: "W", gates: &["a", "b", "c"], n: 4, complex: true, init: None };
    let w = Dense::default().declare(&mut ctx, r)?;
    let h = tape.input("h", DType::C64, Shape::rows([4]))?;
    let together = w.apply_all(&mut tape, h, 1..3)?;
    let apart = [w.apply(&mut tape, h, 1)?, w.apply(&mut tape, h, 2)?];
    let whole = store.params().require("W")?.clone();
    assert_eq!(whole.dims(), [4, 12]);
    let full = tape.param("W", DType::C64, [4, 12])?;
    let block = layout(&mut tape, full, Layout::Slice { axis: 1, start: 4, len: 4 })?;
    let expected = matmul(&mut tape, h, block)?;
    let mut params = store.into_params();
    let h = Tensor::from_slice([2, 4], &[Complex64::new(0.5, -1.0); 8])?;
    params.insert("h", h);
    let wanted = [together[0], apart[0], expected, together[1], apart[1]];
    let values = reference::evaluate(&tape, &wanted, &[&params])?;
    assert!(difference(&values[0], &values[2]) < 1e-15 && difference(&values[1], &values[2]) < 1e-15);
    assert!(difference(&values[3], &values[4]) < 1e-15);
    assert!(difference(&values[0], &values[3]) > 0.1);
    Ok(())
}
