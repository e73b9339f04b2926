//! The reference evaluator against hand-computed numbers and against programs written out step by step.
#![allow(clippy::unwrap_used)]

mod common;

use common::{assert_close, mul, params, random, tanh};
use retrograd_engine::core_ops::{add, sum_rows, sum_steps};
use retrograd_engine::reference::evaluate;
use retrograd_engine::{
    DType, Error, Horizon, Result, Scan, Shape, Tape, Tensor, Var, grad, jvp, matmul, scan, vjp,
};

/// `h <- w h + x` with scalar `w`, `h` starting at `h0`; the last state and all states.
fn linear(tape: &mut Tape, scan: &Scan) -> Result<(Var, Var, Var, Var)> {
    let w = tape.param("w", DType::F64, [])?;
    let h0 = tape.input("h0", DType::F64, Shape::rows([]))?;
    let x = tape.input("x", DType::F64, Shape::sequence([]))?;
    let (last, all) = scan.run(tape, h0, x, |tape, h, x| {
        let wh = mul(tape, h, w)?;
        let h = add(tape, wh, x)?;
        Ok((h, h))
    })?;
    Ok((w, x, last, all))
}

fn tensor(dims: &[usize], data: &[f64]) -> Tensor {
    Tensor::from_slice(dims, data).unwrap()
}

#[test]
fn linear_recurrence_by_hand() -> Result<()> {
    let mut tape = Tape::new();
    let (w, x, last, all) = linear(&mut tape, &Scan::new())?;
    let loss = sum_rows(&mut tape, last)?;
    let bars = grad(&mut tape, loss, &[w, x])?;
    // Rows h0 = 1 and 0, w = 2, x = (1, 2, 3) and (0, 1, 0).
    let data = params([
        ("w", Tensor::scalar(2.0)),
        ("h0", tensor(&[2], &[1.0, 0.0])),
        ("x", tensor(&[3, 2], &[1.0, 0.0, 2.0, 1.0, 3.0, 0.0])),
    ]);
    let got = evaluate(&tape, &[last, all, bars[0], bars[1]], &[&data])?;
    assert_eq!(got[0], tensor(&[2], &[19.0, 2.0]));
    assert_eq!(got[1], tensor(&[3, 2], &[3.0, 0.0, 8.0, 1.0, 19.0, 2.0]));
    // dh3/dw = h2 + w h1 + w² h0 = 8 + 6 + 4 for row 0, 1 for row 1.
    assert_eq!(got[2], Tensor::scalar(19.0));
    assert_eq!(got[3], tensor(&[3, 2], &[4.0, 4.0, 2.0, 2.0, 1.0, 1.0]));
    Ok(())
}

#[test]
fn reverse_walks_from_the_last_step() -> Result<()> {
    let mut tape = Tape::new();
    let (w, _, last, all) = linear(&mut tape, &Scan::new().reverse(true))?;
    let loss = sum_rows(&mut tape, last)?;
    let bars = grad(&mut tape, loss, &[w])?;
    let data = params([
        ("w", Tensor::scalar(2.0)),
        ("h0", tensor(&[1], &[1.0])),
        ("x", tensor(&[3, 1], &[1.0, 2.0, 3.0])),
    ]);
    let got = evaluate(&tape, &[last, all, bars[0]], &[&data])?;
    assert_eq!(got[0], tensor(&[1], &[25.0]));
    // Outputs lie at the step they belong to: 2·1+3 at the last, 2·5+2, 2·12+1.
    assert_eq!(got[1], tensor(&[3, 1], &[25.0, 12.0, 5.0]));
    assert_eq!(got[2], Tensor::scalar(12.0 + 2.0 * 5.0 + 4.0));
    Ok(())
}

#[test]
fn ended_rows_keep_their_state_and_add_nothing() -> Result<()> {
    for reverse in [false, true] {
        let mut tape = Tape::new();
        let lengths = tape.input("lengths", DType::I32, Shape::rows([]))?;
        let (w, x, last, all) = linear(&mut tape, &Scan::new().reverse(reverse).lengths(Some(lengths)))?;
        let of_all = sum_steps(&mut tape, all)?;
        let both = add(&mut tape, of_all, last)?;
        let loss = sum_rows(&mut tape, both)?;
        let bars = grad(&mut tape, loss, &[w, x])?;
        let nan = f64::NAN;
        // Lengths 3, 1, 0; what lies past the end of a row is NaN and must not be seen.
        let data = params([
            ("w", Tensor::scalar(2.0)),
            ("h0", tensor(&[3], &[1.0, 1.0, 5.0])),
            ("x", tensor(&[3, 3], &[1.0, 4.0, nan, 2.0, nan, nan, 3.0, nan, nan])),
            ("lengths", Tensor::from_slice([3], &[3i32, 1, 0])?),
        ]);
        let got = evaluate(&tape, &[last, all, bars[1]], &[&data])?;
        let (row, row_x) = if reverse {
            ([25.0, 12.0, 5.0], [2.0, 6.0, 14.0])
        } else {
            ([3.0, 8.0, 19.0], [1.0 + 2.0 + 4.0 + 4.0, 1.0 + 2.0 + 2.0, 2.0])
        };
        let row_x = if reverse { [2.0, 1.0 + 2.0 + 2.0, 1.0 + 2.0 + 4.0 + 4.0] } else { row_x };
        assert_eq!(got[0], tensor(&[3], &[if reverse { 25.0 } else { 19.0 }, 6.0, 5.0]));
        let zeros = [row[0], 6.0, 0.0, row[1], 0.0, 0.0, row[2], 0.0, 0.0];
        assert_eq!(got[1], tensor(&[3, 3], &zeros), "reverse {reverse}");
        let x_bar = [row_x[0], 2.0, 0.0, row_x[1], 0.0, 0.0, row_x[2], 0.0, 0.0];
        assert_eq!(got[2], tensor(&[3, 3], &x_bar), "reverse {reverse}");
        // A row of its own gives the same gradient as among ended ones.
        let mut finite = data.clone();
        finite.insert("x", tensor(&[3, 3], &[1.0, 4.0, 7.0, 2.0, 7.0, 7.0, 3.0, 7.0, 7.0]));
        let mut alone = data.clone();
        alone.insert("h0", tensor(&[2], &[1.0, 1.0]));
        alone.insert("x", tensor(&[3, 2], &[1.0, 4.0, 2.0, -9.0, 3.0, -9.0]));
        alone.insert("lengths", Tensor::from_slice([2], &[3i32, 1])?);
        assert_eq!(evaluate(&tape, &bars[..1], &[&finite])?, evaluate(&tape, &bars[..1], &[&alone])?);
    }
    Ok(())
}

#[test]
fn horizon_cuts_gradients_and_nothing_else() -> Result<()> {
    let data = params([
        ("w", Tensor::scalar(2.0)),
        ("h0", tensor(&[1], &[1.0])),
        ("x", tensor(&[4, 1], &[1.0, 2.0, 3.0, 4.0])),
    ]);
    // Forward the states are 1, 3, 8, 19, 42 and dh/dw = 19 + 8 w + 3 w² + 1 w³, as far back as the horizon
    // reaches; in reverse 1, 6, 15, 32, 65.
    let forward = [
        (Horizon::Full, 19.0 + 16.0 + 12.0 + 8.0, [8.0, 4.0, 2.0, 1.0], 16.0),
        (Horizon::Steps(5), 19.0 + 16.0 + 12.0 + 8.0, [8.0, 4.0, 2.0, 1.0], 16.0),
        (Horizon::Steps(4), 19.0 + 16.0 + 12.0 + 8.0, [8.0, 4.0, 2.0, 1.0], 16.0),
        (Horizon::Steps(3), 19.0, [0.0, 0.0, 0.0, 1.0], 0.0),
        (Horizon::Steps(2), 19.0 + 16.0, [0.0, 0.0, 2.0, 1.0], 0.0),
        (Horizon::Steps(1), 19.0, [0.0, 0.0, 0.0, 1.0], 0.0),
    ];
    let reverse = [
        (Horizon::Full, 32.0 + 30.0 + 24.0 + 8.0, [1.0, 2.0, 4.0, 8.0], 16.0),
        (Horizon::Steps(4), 32.0 + 30.0 + 24.0 + 8.0, [1.0, 2.0, 4.0, 8.0], 16.0),
        (Horizon::Steps(3), 32.0 + 30.0 + 24.0, [1.0, 2.0, 4.0, 0.0], 0.0),
        (Horizon::Steps(2), 32.0 + 30.0, [1.0, 2.0, 0.0, 0.0], 0.0),
        (Horizon::Steps(1), 32.0, [1.0, 0.0, 0.0, 0.0], 0.0),
    ];
    let rows = forward.map(|row| (false, row)).into_iter().chain(reverse.map(|row| (true, row)));
    for (reverse, (horizon, w_bar, x_bar, h0_bar)) in rows {
        let case = format!("{horizon:?}, reverse {reverse}");
        let mut tape = Tape::new();
        let (w, x, last, _) = linear(&mut tape, &Scan::new().reverse(reverse).horizon(horizon))?;
        let h0 = tape.input("h0", DType::F64, Shape::rows([]))?;
        let loss = sum_rows(&mut tape, last)?;
        let bars = grad(&mut tape, loss, &[w, x, h0])?;
        let got = evaluate(&tape, &[last, bars[0], bars[1], bars[2]], &[&data])?;
        assert_eq!(got[0], tensor(&[1], &[if reverse { 65.0 } else { 42.0 }]), "{case}");
        assert_eq!(got[1], Tensor::scalar(w_bar), "{case}");
        assert_eq!(got[2], tensor(&[4, 1], &x_bar), "{case}");
        assert_eq!(got[3], tensor(&[1], &[h0_bar]), "{case}");
        // The forward rules cut in the same places.
        let one = tape.input("w_dot", DType::F64, Shape::shared([]))?;
        let dot = jvp(&mut tape, &[last], &[(w, one)])?[0].unwrap();
        let seed = params([("w_dot", Tensor::scalar(1.0))]);
        assert_eq!(evaluate(&tape, &[dot], &[&data, &seed])?[0], tensor(&[1], &[w_bar]), "{case}");
    }
    Ok(())
}

/// A gated step with two states that share no axis sizes, a complex part, and a value captured per row.
fn step(tape: &mut Tape, [h, c]: [Var; 2], x: Var, w: &Weights) -> Result<([Var; 2], Var)> {
    let a = matmul(tape, h, w.recurrent)?;
    let b = matmul(tape, x, w.input)?;
    let sum = add(tape, a, b)?;
    let sum = add(tape, sum, w.row)?;
    let new = tanh(tape, sum)?;
    let gate = mul(tape, new, c)?;
    let c = add(tape, gate, h)?;
    let y = matmul(tape, c, w.read)?;
    Ok(([new, c], y))
}

struct Weights {
    recurrent: Var,
    input: Var,
    read: Var,
    row: Var,
}

fn weights(tape: &mut Tape) -> Result<(Weights, Vec<Var>)> {
    let recurrent = tape.param("recurrent", DType::F64, [3, 3])?;
    let input = tape.param("input", DType::F64, [2, 3])?;
    let read = tape.param("read", DType::C64, [3, 2])?;
    let row = tape.input("row", DType::F64, Shape::rows([3]))?;
    let h0 = tape.param("h0", DType::F64, [3])?;
    let c0 = tape.input("c0", DType::F64, Shape::rows([3]))?;
    Ok((Weights { recurrent, input, read, row }, vec![recurrent, input, read, row, h0, c0]))
}

#[test]
fn scan_equals_the_steps_written_out() -> Result<()> {
    const T: usize = 5;
    const N: usize = 2;
    for reverse in [false, true] {
        let x = random(DType::F64, &[T, N, 2], 1)?;
        let mut data = params([
            ("recurrent", random(DType::F64, &[3, 3], 2)?),
            ("input", random(DType::F64, &[2, 3], 3)?),
            ("read", random(DType::C64, &[3, 2], 4)?),
            ("row", random(DType::F64, &[N, 3], 5)?),
            ("h0", random(DType::F64, &[3], 6)?),
            ("c0", random(DType::F64, &[N, 3], 7)?),
            ("y_bar", random(DType::C64, &[T, N, 2], 8)?),
            ("h_bar", random(DType::F64, &[N, 3], 9)?),
            ("x", x.clone()),
        ]);
        for t in 0..T {
            let slice = |t: usize, all: &Tensor, width: usize| {
                let mut part = Tensor::zeros(all.dtype(), [N, width]).unwrap();
                part.fill_with(|i| all.get(t * N * width + i));
                part
            };
            let y_bar = data.require("y_bar")?.clone();
            data.insert(format!("x{t}"), slice(t, &x, 2));
            data.insert(format!("y_bar{t}"), slice(t, &y_bar, 2));
        }

        let mut looped = Tape::new();
        let (w, mut wrt) = weights(&mut looped)?;
        let xs = looped.input("x", DType::F64, Shape::sequence([2]))?;
        let y_bar = looped.input("y_bar", DType::C64, Shape::sequence([2]))?;
        let h_bar = looped.input("h_bar", DType::F64, Shape::rows([3]))?;
        let start = [wrt[4], wrt[5]];
        let ([h, c], y) = Scan::new()
            .reverse(reverse)
            .run(&mut looped, start, xs, |tape, state, x| step(tape, state, x, &w))?;
        wrt.push(xs);
        let seeds = [(h, h_bar), (y, y_bar)];
        let bars: Vec<Var> = vjp(&mut looped, &seeds, &wrt)?.into_iter().map(Option::unwrap).collect();
        let values = evaluate(&looped, &[h, c, y], &[&data])?;
        let gradients = evaluate(&looped, &bars, &[&data])?;

        let mut plain = Tape::new();
        let (w, mut wrt) = weights(&mut plain)?;
        let h_bar = plain.input("h_bar", DType::F64, Shape::rows([3]))?;
        let mut state = [wrt[4], wrt[5]];
        let (mut ys, mut xs, mut seeds) = (vec![None; T], vec![None; T], Vec::new());
        for i in 0..T {
            let t = if reverse { T - 1 - i } else { i };
            let x = plain.input(&format!("x{t}"), DType::F64, Shape::rows([2]))?;
            let y_bar = plain.input(&format!("y_bar{t}"), DType::C64, Shape::rows([2]))?;
            let (next, y) = step(&mut plain, state, x, &w)?;
            state = next;
            (ys[t], xs[t]) = (Some(y), Some(x));
            seeds.push((y, y_bar));
        }
        seeds.push((state[0], h_bar));
        wrt.extend(xs.into_iter().flatten());
        let bars: Vec<Var> = vjp(&mut plain, &seeds, &wrt)?.into_iter().map(Option::unwrap).collect();
        let outputs: Vec<Var> = state.into_iter().chain(ys.into_iter().flatten()).collect();
        let stack = |parts: &[Tensor]| {
            let width = parts[0].len();
            let mut all = Tensor::zeros(parts[0].dtype(), [T, N, width / N]).unwrap();
            all.fill_with(|i| parts[i / width].get(i % width));
            all
        };
        let mut expected = evaluate(&plain, &outputs, &[&data])?;
        let ys = stack(&expected.split_off(2));
        expected.push(ys);
        assert_close("values", &values, &expected);
        let mut expected = evaluate(&plain, &bars, &[&data])?;
        let x_bars = stack(&expected.split_off(6));
        expected.push(x_bars);
        assert_close("gradients", &gradients, &expected);
    }
    Ok(())
}

#[test]
fn bindings_that_do_not_fit_are_errors() -> Result<()> {
    let mut tape = Tape::new();
    let (_, _, last, _) = linear(&mut tape, &Scan::new())?;
    let good = params([
        ("w", Tensor::scalar(2.0)),
        ("h0", tensor(&[2], &[1.0, 0.0])),
        ("x", tensor(&[1, 2], &[1.0, 2.0])),
    ]);
    assert!(evaluate(&tape, &[last], &[&good]).is_ok());
    let rows: [(&str, Option<Tensor>, &str); 6] = [
        ("w", None, "binding `w`: not bound; f64[] is needed"),
        ("x", None, "binding `x`: not bound; f64[T,N] is needed"),
        ("w", Some(Tensor::scalar(2.0f32)), "evaluate: element type of `w`, expected f64, got f32"),
        ("w", Some(tensor(&[1], &[2.0])), "evaluate: `w`, expected [], got [1]"),
        ("x", Some(tensor(&[2], &[2.0, 1.0])), "evaluate: `x`, expected [T,N], got [2]"),
        ("x", Some(tensor(&[1, 1], &[2.0])), "evaluate: N of input `x`, expected 2 as of input `h0`, got 1"),
    ];
    for (name, replacement, message) in rows {
        let mut data = good.clone();
        data.remove(name);
        if let Some(tensor) = replacement {
            data.insert(name, tensor);
        }
        let error = evaluate(&tape, &[last], &[&data]).unwrap_err();
        if name == "x" && !data.names().any(|n| n == "x") {
            assert!(error.to_string().contains("time axis"), "{error}");
        } else {
            assert_eq!(error.to_string(), message);
        }
    }
    let other = Tape::new().param("w", DType::F64, [])?;
    assert!(matches!(evaluate(&tape, &[other], &[&good]), Err(Error::ForeignVar { .. })));
    Ok(())
}

#[test]
fn a_scan_of_no_steps_gives_its_start() -> Result<()> {
    let mut tape = Tape::new();
    let (w, _, last, all) = linear(&mut tape, &Scan::new())?;
    let loss = sum_rows(&mut tape, last)?;
    let bars = grad(&mut tape, loss, &[w])?;
    let data = params([
        ("w", Tensor::scalar(2.0)),
        ("h0", tensor(&[2], &[1.0, 3.0])),
        ("x", Tensor::zeros(DType::F64, [0, 2])?),
    ]);
    let got = evaluate(&tape, &[last, all, bars[0]], &[&data])?;
    assert_eq!(got[0], tensor(&[2], &[1.0, 3.0]));
    assert_eq!(got[1].dims(), [0, 2]);
    assert_eq!(got[2], Tensor::scalar(0.0));
    Ok(())
}

#[test]
fn single_precision_and_shared_sequences() -> Result<()> {
    // A sequence the rows share, a state made of a parameter, in f32.
    let mut tape = Tape::new();
    let h0 = tape.param("h0", DType::F32, [2])?;
    let x = tape.input("x", DType::F32, Shape::steps([2]))?;
    let (last, ()) = scan(&mut tape, h0, x, |tape, h, x| Ok((add(tape, h, x)?, ())))?;
    let data = params([
        ("h0", Tensor::from_slice([2], &[1.0f32, 2.0])?),
        ("x", Tensor::from_slice([2, 2], &[1.0f32, 2.0, 3.0, 4.0])?),
    ]);
    let got = evaluate(&tape, &[last], &[&data])?;
    assert_eq!(got[0], Tensor::from_slice([1, 2], &[5.0f32, 8.0])?);
    Ok(())
}
