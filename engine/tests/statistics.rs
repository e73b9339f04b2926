//! Statistics of linear maps: against sums over stacked values, under every plan.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::random as sample;
use num_complex::Complex64;
use retrograd_engine::core_ops::{add, conj, imag, real, sum_dims, sum_rows, sum_steps, times_i, to_complex};
use retrograd_engine::curvature::{gauss_newton_of_loss, gauss_newton_product};
use retrograd_engine::layout::{Layout, layout};
use retrograd_engine::statistics::{MapStatistics, StatisticsOptions, vjp_with_statistics};
use retrograd_engine::{
    DType, Horizon, Params, Program, Result, RunOptions, Scan, Shape, Tape, Tensor, Var, grad, matmul, scan,
    vjp,
};

const N: usize = 3;
const I: usize = 2;
const H: usize = 4;

fn random(dtype: DType, dims: &[usize], seed: u64) -> Tensor {
    sample(dtype, dims, seed).unwrap()
}

/// `tanh`, of both parts of a complex number.
fn tanh(tape: &mut Tape, x: Var) -> Result<Var> {
    if !tape.dtype(x)?.is_complex() {
        return common::tanh(tape, x);
    }
    let (re, im) = (real(tape, x)?, imag(tape, x)?);
    let (re, im) = (common::tanh(tape, re)?, common::tanh(tape, im)?);
    let im = to_complex(tape, im)?;
    let im = times_i(tape, im)?;
    add(tape, re, im)
}

/// How the recurrence under test is run.
#[derive(Clone, Copy, Default)]
struct Case {
    complex: bool,
    lengths: bool,
    reverse: bool,
    horizon: Option<usize>,
    widest: Option<usize>,
}

struct Recorded {
    tape: Tape,
    maps: Vec<MapStatistics>,
    /// Inputs of `W`, inputs of `U` and cotangents, stacked over time.
    stacked: [Var; 3],
    gradients: Vec<Var>,
}

/// `h ← tanh(h W + x U + b + probe)` with a cotangent at every step; the gradient by the probe is `g`.
fn record(case: Case) -> Result<Recorded> {
    let dtype = if case.complex { DType::C64 } else { DType::F64 };
    let mut tape = Tape::new();
    let w = tape.param("w", dtype, [H, H])?;
    let u = tape.param("u", dtype, [I, H])?;
    let b = tape.param("b", dtype, [H])?;
    let h0 = tape.param("h0", dtype, [H])?;
    let x = tape.input("x", DType::F64, Shape::sequence([I]))?;
    let probe = tape.input("probe", dtype, Shape::sequence([H]))?;
    let bar = tape.input("bar", dtype, Shape::sequence([H]))?;
    let lengths = if case.lengths { Some(tape.input("lengths", DType::I32, Shape::rows([]))?) } else { None };
    let horizon = case.horizon.map_or(Horizon::Full, Horizon::Steps);
    let walk = Scan::new().lengths(lengths).reverse(case.reverse).horizon(horizon);
    let (_, (states, out)) = walk.run(&mut tape, h0, [x, probe], |tape, h, [x, probe]| {
        let (wh, ux) = (matmul(tape, h, w)?, matmul(tape, x, u)?);
        let ux = add(tape, ux, b)?;
        let s = add(tape, wh, ux)?;
        let s = add(tape, s, probe)?;
        let next = tanh(tape, s)?;
        Ok((next, (h, next)))
    })?;
    let options = StatisticsOptions { lengths, lag: true, widest: case.widest.unwrap_or(usize::MAX) };
    let (bars, found) = vjp_with_statistics(&mut tape, &[(out, bar)], &[w, u, b], &[w, u, b], &options)?;
    assert!(found.without.is_empty(), "{:?}", found.without);
    // A tape of its own, as a second adjoint of one scan would hand out its whole history.
    let g = vjp(&mut tape, &[(out, bar)], &[probe])?[0].unwrap();
    let gradients = bars.into_iter().map(Option::unwrap).collect();
    Ok(Recorded { tape, maps: found.maps, stacked: [states, x, g], gradients })
}

fn values(case: Case, steps: usize, rows: usize) -> Params {
    let dtype = if case.complex { DType::C64 } else { DType::F64 };
    let mut values = Params::new();
    let mut put = |name: &str, dtype: DType, dims: &[usize], seed: u64| {
        values.insert(name, random(dtype, dims, seed));
    };
    put("w", dtype, &[H, H], 1);
    put("u", dtype, &[I, H], 2);
    put("b", dtype, &[H], 3);
    put("h0", dtype, &[H], 4);
    put("x", DType::F64, &[steps, rows, I], 5);
    put("bar", dtype, &[steps, rows, H], 6);
    values.insert("probe", Tensor::zeros(dtype, [steps, rows, H]).unwrap());
    let lengths: Vec<i32> = (0..rows).map(|r| (steps as i32 - 2 * r as i32).max(1)).collect();
    values.insert("lengths", Tensor::from_slice([rows], &lengths).unwrap());
    values
}

/// `Σ later nowᴴ` over rows, a step apart or not, of stacked values with a last coordinate of 1 where there is a bias.
fn sums(t: &Tensor, lag: usize, bias: bool, ends: &dyn Fn(usize) -> usize) -> Vec<Complex64> {
    let (steps, rows, width) = (t.dims()[0], t.dims()[1], t.dims()[2]);
    let n = width + usize::from(bias);
    let at = |s: usize, r: usize, j: usize| match j < width {
        _ if s >= ends(r) => Complex64::ZERO,
        true => t.get((s * rows + r) * width + j),
        false => Complex64::ONE,
    };
    let mut out = vec![Complex64::ZERO; n * n];
    for s in 0..steps - lag {
        for r in 0..rows {
            for i in 0..n {
                for j in 0..n {
                    out[i * n + j] += at(s + lag, r, i) * at(s, r, j).conj();
                }
            }
        }
    }
    out
}

fn close(what: &str, got: &Tensor, expected: &[Complex64]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().map(|z| z.norm()).fold(1e-3, f64::max);
    for (i, e) in expected.iter().enumerate() {
        let error = (got.get(i) - e).norm() / scale;
        assert!(error < 1e-12, "{what}: element {i} is {}, expected {e}", got.get(i));
    }
}

fn transposed(m: &[Complex64]) -> Vec<Complex64> {
    let n = m.len().isqrt();
    // The Hermitian transpose turns Σ x_{t+1} x_tᴴ into Σ x_t x_{t+1}ᴴ.
    (0..n * n).map(|k| m[k % n * n + k / n].conj()).collect()
}

#[test]
fn statistics_are_the_sums_over_stacked_values() -> Result<()> {
    let plain = Case::default();
    let cases = [
        plain,
        Case { complex: true, ..plain },
        Case { lengths: true, ..plain },
        Case { reverse: true, ..plain },
        Case { horizon: Some(3), ..plain },
        Case { complex: true, lengths: true, ..plain },
    ];
    for case in cases {
        let r = record(case)?;
        let mut outputs = r.stacked.to_vec();
        for m in &r.maps {
            outputs.extend([m.a0.unwrap(), m.a1.unwrap(), m.g0, m.g1.unwrap()]);
        }
        let mut program = Program::new(&r.tape, &outputs, RunOptions::default())?;
        for (steps, rows) in [(1, N), (2, 1), (9, N)] {
            let out = program.run(&[&values(case, steps, rows)])?;
            let [h, x, g] = [&out[0], &out[1], &out[2]];
            let lengths = values(case, steps, rows);
            let ends = |row: usize| match case.lengths {
                true => lengths.get("lengths").unwrap().as_slice::<i32>().unwrap()[row] as usize,
                false => steps,
            };
            for (k, m) in r.maps.iter().enumerate() {
                let name = ["b", "w", "u"][k.min(2)];
                let name = format!("{name} T={steps} complex={} lengths={}", case.complex, case.lengths);
                let (input, bias) =
                    (if m.outputs == (0..H) && is(&r, m, "w") { h } else { x }, m.bias.is_some());
                let got = &out[3 + 4 * k..7 + 4 * k];
                let turn = |m: Vec<Complex64>| if case.reverse { transposed(&m) } else { m };
                close(&format!("A0 {name}"), &got[0], &sums(input, 0, bias, &ends));
                close(&format!("G0 {name}"), &got[2], &sums(g, 0, false, &ends));
                close(&format!("A1 {name}"), &got[1], &turn(sums(input, 1, bias, &ends)));
                close(&format!("G1 {name}"), &got[3], &turn(sums(g, 1, false, &ends)));
            }
        }
        assert_eq!(r.maps.len(), 2);
        assert_eq!(r.maps.iter().filter(|m| m.bias.is_some()).count(), 1);
    }
    Ok(())
}

fn is(r: &Recorded, m: &MapStatistics, name: &str) -> bool {
    r.tape.params().any(|(n, v, _)| n == name && Some(v) == m.weight)
}

#[test]
fn every_plan_gives_the_same_bits_and_what_it_says() -> Result<()> {
    let case = Case { lengths: true, widest: Some(2), ..Case::default() };
    let r = record(case)?;
    assert_eq!(r.maps.len(), 4, "two maps in two parts");
    let mut outputs = r.gradients.clone();
    for m in &r.maps {
        outputs.extend([m.a0.unwrap(), m.a1.unwrap(), m.g0, m.g1.unwrap()]);
    }
    let (steps, rows) = (700, 5);
    let bound = values(case, steps, rows);
    let mut free = Program::new(&r.tape, &outputs, RunOptions::default())?;
    let expected = free.run(&[&bound])?;
    let planned = free.plan(steps, rows)?;
    let smallest =
        match Program::new(&r.tape, &outputs, RunOptions { budget: Some(1), ..RunOptions::default() })?
            .plan(steps, rows)
        {
            Err(retrograd_engine::Error::Budget { smallest, .. }) => smallest,
            other => panic!("{other:?}"),
        };
    assert!(smallest < planned.peak_bytes());
    for budget in [smallest, (smallest + planned.peak_bytes()) / 2, planned.peak_bytes()] {
        for threads in [1, 2] {
            let options =
                RunOptions { budget: Some(budget), threads: Some(threads), ..RunOptions::default() };
            let mut program = Program::new(&r.tape, &outputs, options)?;
            let got = program.run(&[&bound])?;
            assert!(program.plan(steps, rows)?.peak_bytes() <= budget);
            for (a, b) in got.iter().zip(&expected) {
                assert!(a.bit_eq(b), "budget {budget}, {threads} threads");
            }
        }
    }
    Ok(())
}

#[test]
fn nothing_is_recorded_where_nobody_asks() -> Result<()> {
    let build = |with: bool| -> Result<usize> {
        let mut tape = Tape::new();
        let w = tape.param("w", DType::F64, [H, H])?;
        let h0 = tape.param("h0", DType::F64, [H])?;
        let x = tape.input("x", DType::F64, Shape::sequence([H]))?;
        let bar = tape.input("bar", DType::F64, Shape::rows([H]))?;
        let (last, ()) = scan(&mut tape, h0, x, |tape, h, x| {
            let wh = matmul(tape, h, w)?;
            Ok((add(tape, wh, x)?, ()))
        })?;
        let of = if with { vec![w] } else { vec![] };
        let options = StatisticsOptions::default();
        let (bars, _) = vjp_with_statistics(&mut tape, &[(last, bar)], &[w], &of, &options)?;
        let program = Program::new(&tape, &[bars[0].unwrap()], RunOptions::default())?;
        program.plan(10, 2).map(|p| p.peak_bytes())
    };
    assert_eq!(build(false)?, build(true)?, "statistics that are no output cost nothing");
    Ok(())
}

/// Products outside scans: of rows, and of whole sequences at once.
#[test]
fn maps_outside_scans() -> Result<()> {
    for sequence in [false, true] {
        let mut tape = Tape::new();
        let w = tape.param("w", DType::F64, [I, H])?;
        let b = tape.param("b", DType::F64, [H])?;
        let shape = |dims: [usize; 1]| if sequence { Shape::sequence(dims) } else { Shape::rows(dims) };
        let x = tape.input("x", DType::F64, shape([I]))?;
        let bar = tape.input("bar", DType::F64, shape([H]))?;
        let y = matmul(&mut tape, x, w)?;
        let y = add(&mut tape, y, b)?;
        let options = StatisticsOptions::default();
        let (_, found) = vjp_with_statistics(&mut tape, &[(y, bar)], &[w, b], &[w, b], &options)?;
        let [m] = &found.maps[..] else { panic!("{found:?}") };
        assert_eq!((m.weight, m.bias, m.every_step), (Some(w), Some((b, 0)), sequence));
        let mut outputs = vec![m.a0.unwrap(), m.g0];
        outputs.extend(m.a1.iter().chain(&m.g1));
        let (steps, rows) = (5, 3);
        let lead: &[usize] = if sequence { &[steps, rows] } else { &[rows] };
        let mut bound = Params::new();
        let dims = |n: usize| [lead, &[n]].concat();
        bound.insert("w", random(DType::F64, &[I, H], 1));
        bound.insert("b", random(DType::F64, &[H], 2));
        bound.insert("x", random(DType::F64, &dims(I), 3));
        bound.insert("bar", random(DType::F64, &dims(H), 4));
        let out = Program::new(&tape, &outputs, RunOptions::default())?.run(&[&bound])?;
        let t = if sequence { steps } else { 1 };
        let stacked = |name: &str, n: usize| bound.get(name).unwrap().reshape([t, rows, n]).unwrap();
        let (x, g) = (stacked("x", I), stacked("bar", H));
        close("A0", &out[0], &sums(&x, 0, true, &|_| t));
        close("G0", &out[1], &sums(&g, 0, false, &|_| t));
        if sequence {
            close("A1", &out[2], &sums(&x, 1, true, &|_| t));
            close("G1", &out[3], &sums(&g, 1, false, &|_| t));
        }
    }
    Ok(())
}

/// A cotangent that is the same at every step, and an input that is: both are held from step to step all the same.
#[test]
fn values_that_do_not_change_with_time() -> Result<()> {
    let mut tape = Tape::new();
    let w = tape.param("w", DType::F64, [H, H])?;
    let h0 = tape.param("h0", DType::F64, [H])?;
    let x = tape.input("x", DType::F64, Shape::sequence([H]))?;
    let bar = tape.input("bar", DType::F64, Shape::rows([H]))?;
    let (_, out) = scan(&mut tape, h0, x, |tape, h, x| Ok((add(tape, h, x)?, matmul(tape, h, w)?)))?;
    let total = sum_steps(&mut tape, out)?;
    let options = StatisticsOptions::default();
    let (_, found) = vjp_with_statistics(&mut tape, &[(total, bar)], &[w], &[w], &options)?;
    let m = &found.maps[0];
    let mut program = Program::new(&tape, &[m.g0, m.g1.unwrap()], RunOptions::default())?;
    let (steps, rows) = (300, 2);
    let mut bound = Params::new();
    bound.insert("w", random(DType::F64, &[H, H], 1));
    bound.insert("h0", random(DType::F64, &[H], 2));
    bound.insert("x", random(DType::F64, &[steps, rows, H], 3));
    let bar = random(DType::F64, &[rows, H], 4);
    bound.insert("bar", bar.clone());
    let out = program.run(&[&bound])?;
    let mut all = Tensor::zeros(DType::F64, [steps, rows, H])?;
    all.fill_with(|i| bar.get(i % (rows * H)));
    close("G0", &out[0], &sums(&all, 0, false, &|_| steps));
    close("G1", &out[1], &sums(&all, 1, false, &|_| steps));
    Ok(())
}

/// A matrix that is used twice in a step has the moments of both uses.
#[test]
fn uses_of_one_map_add_up() -> Result<()> {
    let mut tape = Tape::new();
    let w = tape.param("w", DType::F64, [H, H])?;
    let h0 = tape.param("h0", DType::F64, [H])?;
    let x = tape.input("x", DType::F64, Shape::sequence([H]))?;
    let probes = ["p", "q"].map(|name| tape.input(name, DType::F64, Shape::sequence([H])).unwrap());
    let bar = tape.input("bar", DType::F64, Shape::sequence([H]))?;
    let xs = [x, probes[0], probes[1]];
    let (_, [h, inner, out]) = scan(&mut tape, h0, xs, |tape, h, [x, p, q]| {
        let s = matmul(tape, h, w)?;
        let s = add(tape, s, x)?;
        let s = add(tape, s, p)?;
        let inner = tanh(tape, s)?;
        let next = matmul(tape, inner, w)?;
        let next = add(tape, next, q)?;
        Ok((next, [h, inner, next]))
    })?;
    let options = StatisticsOptions::default();
    let (_, found) = vjp_with_statistics(&mut tape, &[(out, bar)], &[w], &[w], &options)?;
    let [m] = &found.maps[..] else { panic!("{found:?}") };
    assert_eq!(m.repeats, 2);
    let g = vjp(&mut tape, &[(out, bar)], &probes)?;
    let outputs = [h, inner, g[0].unwrap(), g[1].unwrap(), m.a0.unwrap(), m.a1.unwrap(), m.g0, m.g1.unwrap()];
    let (steps, rows) = (6, 2);
    let mut bound = Params::new();
    bound.insert("w", random(DType::F64, &[H, H], 1));
    bound.insert("h0", random(DType::F64, &[H], 2));
    bound.insert("x", random(DType::F64, &[steps, rows, H], 3));
    bound.insert("bar", random(DType::F64, &[steps, rows, H], 4));
    for name in ["p", "q"] {
        bound.insert(name, Tensor::zeros(DType::F64, [steps, rows, H])?);
    }
    let v = Program::new(&tape, &outputs, RunOptions::default())?.run(&[&bound])?;
    let both = |a: usize, b: usize, lag: usize| -> Vec<Complex64> {
        let part = |k: usize| sums(&v[k], lag, false, &|_| steps);
        part(a).iter().zip(part(b)).map(|(a, b)| a + b).collect()
    };
    close("A0", &v[4], &both(0, 1, 0));
    close("A1", &v[5], &both(0, 1, 1));
    close("G0", &v[6], &both(2, 3, 0));
    close("G1", &v[7], &both(2, 3, 1));
    Ok(())
}

#[test]
fn what_is_no_linear_map_is_named() -> Result<()> {
    let mut tape = Tape::new();
    let w = tape.param("w", DType::F64, [H, H])?;
    let v = tape.param("v", DType::F64, [H, 2 * H])?;
    let d = tape.param("d", DType::F64, [H])?;
    let x = tape.input("x", DType::F64, Shape::rows([H]))?;
    let bar = tape.input("bar", DType::F64, Shape::rows([H]))?;
    // A square of a parameter, a slice of another along its outputs, a vector that multiplies.
    let square = matmul(&mut tape, w, w)?;
    let y = matmul(&mut tape, x, square)?;
    let slice = layout(&mut tape, v, Layout::Slice { axis: 1, start: H, len: H })?;
    let z = matmul(&mut tape, x, slice)?;
    let y = add(&mut tape, y, z)?;
    let dy = common::mul(&mut tape, d, y)?;
    let all = [w, v, d];
    let options = StatisticsOptions::default();
    let (_, found) = vjp_with_statistics(&mut tape, &[(dy, bar)], &all, &all, &options)?;
    assert_eq!(found.without, [w, d]);
    let [m] = &found.maps[..] else { panic!("{found:?}") };
    assert_eq!((m.weight, m.outputs.clone()), (Some(v), H..2 * H));
    let error = vjp_with_statistics(&mut tape, &[(dy, bar)], &[w], &[v], &options).unwrap_err();
    assert!(error.to_string().contains("not among"), "{error}");
    let zero = StatisticsOptions { widest: 0, ..options };
    assert!(vjp_with_statistics(&mut tape, &[(dy, bar)], &[w], &[w], &zero).is_err());
    Ok(())
}

/// `x + x (2 I + H V)`, thin matrices whose middle is made once: both are maps of what varies by row.
#[test]
fn what_parameters_make_alone_does_not_hinder() -> Result<()> {
    const RANK: usize = 2;
    const ROWS: usize = 5;
    let mut tape = Tape::new();
    let down = tape.param("down", DType::F64, [H, RANK])?;
    let up = tape.param("up", DType::F64, [RANK, H])?;
    let x = tape.input("x", DType::F64, Shape::rows([H]))?;
    let bar = tape.input("bar", DType::F64, Shape::rows([H]))?;
    let middle = matmul(&mut tape, up, down)?;
    let thin = matmul(&mut tape, x, down)?;
    let mixed = matmul(&mut tape, thin, middle)?;
    let y = matmul(&mut tape, mixed, up)?;
    let all = [down, up];
    let (_, found) = vjp_with_statistics(&mut tape, &[(y, bar)], &all, &all, &StatisticsOptions::default())?;
    assert!(found.without.is_empty(), "{found:?}");
    let of = |w| found.maps.iter().find(|m| m.weight == Some(w)).map(|m| (m.a0, m.g0));
    let ((Some(a_down), _), (Some(a_up), g_up)) = (of(down).unwrap(), of(up).unwrap()) else {
        panic!("{found:?}")
    };
    let mut bound = Params::new();
    bound.insert("down", random(DType::F64, &[H, RANK], 1));
    bound.insert("up", random(DType::F64, &[RANK, H], 2));
    bound.insert("x", random(DType::F64, &[ROWS, H], 3));
    bound.insert("bar", random(DType::F64, &[ROWS, H], 4));
    let v = Program::new(&tape, &[mixed, a_down, a_up, g_up], RunOptions::default())?.run(&[&bound])?;
    let given = |name: &str| bound.get(name).unwrap();
    let rows =
        [("A of down", given("x"), &v[1]), ("A of up", &v[0], &v[2]), ("G of up", given("bar"), &v[3])];
    for (what, values, moments) in rows {
        let n = values.dims()[1];
        for k in 0..n * n {
            let at = |row: usize, i: usize| values.get(row * n + i).re;
            let expected: f64 = (0..ROWS).map(|row| at(row, k / n) * at(row, k % n)).sum();
            assert!((moments.get(k).re - expected).abs() < 1e-12, "{what}");
        }
    }
    Ok(())
}

/// `Jᵀ H J d` through a scan: both forms agree, and with the matrix put together from gradients of single outputs.
#[test]
fn gauss_newton_products() -> Result<()> {
    for complex in [false, true] {
        let dtype = if complex { DType::C64 } else { DType::F64 };
        let mut tape = Tape::new();
        let w = tape.param("w", dtype, [H, H])?;
        let h0 = tape.param("h0", dtype, [H])?;
        let x = tape.input("x", DType::F64, Shape::sequence([H]))?;
        let d = tape.input("d", dtype, Shape::shared([H, H]))?;
        let (z, ()) = scan(&mut tape, h0, x, |tape, h, x| {
            let wh = matmul(tape, h, w)?;
            let s = add(tape, wh, x)?;
            Ok((tanh(tape, s)?, ()))
        })?;
        // The sum of |z|⁴/4 would do; of squares the Hessian is 2.
        let squares = conj(&mut tape, z)?;
        let squares = common::mul(&mut tape, z, squares)?;
        let squares = real(&mut tape, squares)?;
        let sum = sum_dims(&mut tape, squares, &[])?;
        let loss = sum_rows(&mut tape, sum)?;
        let given =
            gauss_newton_product(&mut tape, &[z], &mut |t, _, u| common::scale(t, u, 2.0), &[w], &[d])?[0];
        let taken = gauss_newton_of_loss(&mut tape, loss, &[z], &[w], &[d])?[0];
        // Row by row of J: the gradient of each real component of each output.
        let bar = tape.input("bar", dtype, Shape::rows([H]))?;
        let row = vjp(&mut tape, &[(z, bar)], &[w])?[0].unwrap();
        let slope = grad(&mut tape, loss, &[w])?[0];
        let (steps, rows) = (4, 2);
        let mut bound = Params::new();
        bound.insert("w", random(dtype, &[H, H], 1));
        bound.insert("h0", random(dtype, &[H], 2));
        bound.insert("x", random(DType::F64, &[steps, rows, H], 3));
        bound.insert("d", random(dtype, &[H, H], 4));
        bound.insert("bar", Tensor::zeros(dtype, [rows, H])?);
        let mut program = Program::new(&tape, &[given, taken, slope], RunOptions::default())?;
        let out = program.run(&[&bound])?;
        let mut rows_of_j = Program::new(&tape, &[row], RunOptions::default())?;
        let d = bound.get("d").unwrap().clone();
        let mut expected = vec![Complex64::ZERO; H * H];
        let units = if complex { vec![Complex64::ONE, Complex64::I] } else { vec![Complex64::ONE] };
        for k in 0..rows * H {
            for &unit in &units {
                let mut bar = Tensor::zeros(dtype, [rows, H])?;
                bar.fill_with(|i| if i == k { unit } else { Complex64::ZERO });
                bound.insert("bar", bar);
                let j = &rows_of_j.run(&[&bound])?[0];
                let along: f64 = (0..H * H).map(|i| (j.get(i).conj() * d.get(i)).re).sum();
                expected.iter_mut().enumerate().for_each(|(i, e)| *e += 2.0 * along * j.get(i));
            }
        }
        close("product", &out[0], &expected);
        close("of the loss", &out[1], &expected);
        assert!(out[2].is_finite());
    }
    Ok(())
}
