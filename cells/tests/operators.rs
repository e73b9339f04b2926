//! Every operator is linear, does gates together as it does them apart, and is the dense matrix its equation says.
#![allow(clippy::unwrap_used)]

mod common;

use common::{random, settings};
use num_complex::Complex64;
use retrograd_cells::init::Init;
use retrograd_cells::{Declare, Error, OPERATORS, ParamStore, Recurrence, operator};
use retrograd_engine::{DType, Params, Shape, Tape, Tensor, Var, reference, vjp};

const N: usize = 6;
const ROWS: usize = 5;
const GATES: [&str; 3] = ["a", "b", "c"];

/// What three gates of an operator make of the same rows, gates alone and together, and the parameters.
struct Applied {
    h: Tensor,
    alone: Vec<Tensor>,
    together: Vec<Tensor>,
    /// The last gate applied to what it gave, and applied twice at once.
    twice: [Tensor; 2],
    params: Params,
}

/// Whether the operator has states of that type.
fn takes(name: &str, dtype: DType) -> bool {
    let (mut tape, mut store) = (Tape::new(), ParamStore::new(3, DType::F64).unwrap());
    let r = Recurrence { name: "W", gates: &GATES, n: N, complex: dtype.is_complex(), init: None };
    let declared =
        operator(name, &settings(&[])).unwrap().declare(&mut Declare::new(&mut tape, &mut store), r);
    !matches!(declared, Err(Error::Field { .. }))
}

fn apply(name: &str, set: &[(&str, &str)], dtype: DType, h: &Tensor, noise: f64) -> Applied {
    let (mut tape, mut store) = (Tape::new(), ParamStore::new(3, DType::F64).unwrap());
    let mut ctx = Declare::new(&mut tape, &mut store);
    let r = Recurrence { name: "W", gates: &GATES, n: N, complex: dtype.is_complex(), init: None };
    let w = operator(name, &settings(set)).unwrap().declare(&mut ctx, r).unwrap();
    let x = tape.input("h", dtype, Shape::rows([N])).unwrap();
    let alone: Vec<Var> = (0..GATES.len()).map(|g| w.apply(&mut tape, x, g).unwrap()).collect();
    let together = w.apply_all(&mut tape, x, 0..GATES.len()).unwrap();
    let later = w.apply_all(&mut tape, x, 1..GATES.len()).unwrap();
    let last = GATES.len() - 1;
    let twice = [w.apply(&mut tape, alone[last], last).unwrap(), w.apply_twice(&mut tape, x, last).unwrap()];
    // Away from special first values: unit vectors, zeros.
    let noisy = |(name, t): (&str, &Tensor)| {
        let noise = random(name, t.dtype(), t.dims(), Init::Normal(noise));
        let mut moved = t.clone();
        moved.fill_with(|i| t.get(i) + noise.get(i));
        (name.to_string(), moved)
    };
    let mut params: Params = store.params().iter().map(noisy).collect();
    params.insert("h", h.clone());
    let wanted: Vec<Var> = alone.iter().chain(&together).chain(&later).chain(&twice).copied().collect();
    let mut values = reference::evaluate(&tape, &wanted, &[&params]).unwrap();
    let twice = <[Tensor; 2]>::try_from(values.split_off(values.len() - 2)).unwrap();
    let later = values.split_off(2 * GATES.len());
    let together = values.split_off(GATES.len());
    for (later, all) in later.iter().zip(&together[1..]) {
        close(later, all, &format!("{name} {set:?}: some gates and all"));
    }
    Applied { h: h.clone(), alone: values, together, twice, params }
}

#[track_caller]
fn close(a: &Tensor, b: &Tensor, what: &str) {
    assert_eq!((a.dims(), a.dtype()), (b.dims(), b.dtype()), "{what}");
    let worst = (0..a.len()).map(|i| (a.get(i) - b.get(i)).norm()).fold(0.0, f64::max);
    assert!(worst < 1e-14 * N as f64, "{what}: differ by {worst:e}");
}

#[test]
fn gates_together_and_apart() {
    for entry in OPERATORS {
        let tied = [("tied", "true")];
        let mut sets: Vec<&[(&str, &str)]> = vec![&[]];
        if entry.options.iter().any(|o| o.key == "tied") {
            sets.push(&tied);
        }
        for set in sets {
            for dtype in [DType::F64, DType::C64].into_iter().filter(|&d| takes(entry.name, d)) {
                let what = format!("{} {set:?}, {dtype}", entry.name);
                let found =
                    apply(entry.name, set, dtype, &random("h", dtype, &[ROWS, N], Init::Normal(1.0)), 0.3);
                for (alone, together) in found.alone.iter().zip(&found.together) {
                    close(alone, together, &what);
                }
                close(&found.twice[0], &found.twice[1], &what);
                // Gates differ from each other.
                let apart = (0..ROWS * N).map(|i| (found.alone[0].get(i) - found.alone[1].get(i)).norm());
                assert!(apart.fold(0.0, f64::max) > 1e-3, "{what}");
            }
        }
    }
}

/// `W_g` of the equation, entry (row, column), from the parameters.
type Entry = fn(&Params, rank: usize, gate: usize, row: usize, column: usize) -> Complex64;

/// `Σ_k L_g[row, k] R_g[k, column]` from the stored blocks `L_gᵀ` and `R_gᵀ`.
fn product(p: &Params, names: [&str; 2], rank: usize, gate: usize, row: usize, column: usize) -> Complex64 {
    let (l, r) = (p.require(names[0]).unwrap(), p.require(names[1]).unwrap());
    let of_gate = if r.dims()[1] == rank { 0 } else { gate * rank };
    (0..rank)
        .map(|k| l.get(k * l.dims()[1] + gate * N + row) * r.get(column * r.dims()[1] + of_gate + k))
        .sum()
}

fn lr(p: &Params, rank: usize, gate: usize, row: usize, column: usize) -> Complex64 {
    product(p, ["W.L", "W.R"], rank, gate, row, column)
}

fn lrd(p: &Params, rank: usize, gate: usize, row: usize, column: usize) -> Complex64 {
    let delta = p.require("W.delta").unwrap().get(gate * N + row);
    lr(p, rank, gate, row, column) + if row == column { delta } else { 0.0.into() }
}

fn ivh(p: &Params, rank: usize, gate: usize, row: usize, column: usize) -> Complex64 {
    product(p, ["W.V", "W.H"], rank, gate, row, column) + if row == column { 1.0 } else { 0.0 }
}

fn diagonal(p: &Params, _: usize, gate: usize, row: usize, column: usize) -> Complex64 {
    if row == column { p.require("W.u").unwrap().get(gate * N + row) } else { 0.0.into() }
}

fn block_diagonal(p: &Params, blocks: usize, gate: usize, row: usize, column: usize) -> Complex64 {
    let size = N / blocks;
    if row / size != column / size {
        return 0.0.into();
    }
    let b = p.require(&format!("W.{}", row / size)).unwrap();
    b.get(column % size * GATES.len() * size + gate * size + row % size)
}

fn antisymmetric(p: &Params, _: usize, gate: usize, row: usize, column: usize) -> Complex64 {
    let below = |row: usize, column: usize| {
        p.require("W.A").unwrap().get(gate * N * (N - 1) / 2 + row * (row - 1) / 2 + column)
    };
    match row.cmp(&column) {
        std::cmp::Ordering::Greater => below(row, column),
        std::cmp::Ordering::Less => -below(column, row).conj(),
        std::cmp::Ordering::Equal => (-0.01).into(),
    }
}

/// Column `column` of `H(u_1) ⋯ H(u_m)`, or of its adjoint, reflection by reflection.
fn reflected(u: &Tensor, count: usize, gate: usize, adjoint: bool, mut h: Vec<Complex64>) -> Vec<Complex64> {
    for k in 0..count {
        let j = if adjoint { k } else { count - 1 - k };
        let at = |row: usize| if row < j { 0.0.into() } else { u.get(row * u.dims()[1] + gate * count + j) };
        let square: f64 = (0..N).map(|row| at(row).norm_sqr()).sum();
        let dot: Complex64 = (0..N).map(|row| at(row).conj() * h[row]).sum();
        h.iter_mut().enumerate().for_each(|(row, h)| *h -= at(row) * dot * (2.0 / square));
    }
    h
}

fn unit(column: usize) -> Vec<Complex64> {
    (0..N).map(|row| f64::from(u8::from(row == column)).into()).collect()
}

fn householder(p: &Params, count: usize, gate: usize, row: usize, column: usize) -> Complex64 {
    reflected(p.require("W.U").unwrap(), count, gate, false, unit(column))[row]
}

/// With the margin of 1/2 that the rows below set.
fn svd(p: &Params, count: usize, gate: usize, row: usize, column: usize) -> Complex64 {
    let mut y = reflected(p.require("W.Q").unwrap(), count, gate, true, unit(column));
    for (i, y) in y.iter_mut().enumerate() {
        *y *= 0.5 + 1.0 / (1.0 + (-p.require("W.p").unwrap().get(gate * N + i).re).exp());
    }
    reflected(p.require("W.P").unwrap(), count, gate, false, y)[row]
}

fn dense(p: &Params, _: usize, gate: usize, row: usize, column: usize) -> Complex64 {
    p.require("W").unwrap().get(column * GATES.len() * N + gate * N + row)
}

#[test]
fn equal_to_their_matrices() {
    let rows: &[(&str, &[(&str, &str)], usize, Entry)] = &[
        ("dense", &[], 0, dense),
        ("lr", &[("rank", "2")], 2, lr),
        ("lr", &[("rank", "2"), ("tied", "true")], 2, lr),
        ("lr", &[("rank", "6")], 6, lr),
        ("lrd", &[("rank", "2")], 2, lrd),
        ("lrd", &[("rank", "3"), ("tied", "true"), ("diagonal_init", "normal:1")], 3, lrd),
        ("ivh", &[("rank", "3")], 3, ivh),
        // The rank without a setting: a quarter of the hidden size.
        ("lrd", &[], 1, lrd),
        ("diagonal", &[], 0, diagonal),
        ("block_diagonal", &[], 3, block_diagonal),
        ("block_diagonal", &[("blocks", "2")], 2, block_diagonal),
        ("block_diagonal", &[("blocks", "6")], 6, block_diagonal),
        ("antisymmetric", &[], 0, antisymmetric),
        ("householder", &[], 1, householder),
        ("householder", &[("reflections", "3")], 3, householder),
        ("householder", &[("reflections", "6")], 6, householder),
        ("svd", &[("margin", "0.5"), ("reflections", "2")], 2, svd),
        ("svd", &[("margin", "0.5"), ("reflections", "6")], 6, svd),
    ];
    for (name, set, rank, entry) in rows {
        for dtype in [DType::F64, DType::C64] {
            let found = apply(name, set, dtype, &random("h", dtype, &[ROWS, N], Init::Normal(1.0)), 0.3);
            for (gate, y) in found.together.iter().enumerate() {
                let mut expected = Tensor::zeros(dtype, [ROWS, N]).unwrap();
                expected.fill_with(|i| {
                    let (batch, row) = (i / N, i % N);
                    (0..N)
                        .map(|c| entry(&found.params, *rank, gate, row, c) * found.h.get(batch * N + c))
                        .sum()
                });
                close(y, &expected, &format!("{name} {set:?}, gate {gate}, {dtype}"));
            }
        }
    }
}

/// As published: matrices of a Glorot bound for each gate apart, diagonals within 0.01.
#[test]
fn published_beginnings() {
    let h = random("h", DType::F64, &[ROWS, N], Init::Normal(1.0));
    let found = apply("lrd", &[("rank", "2")], DType::F64, &h, 0.0);
    for (name, bound) in [("W.L", 0.75f64.sqrt()), ("W.R", 0.75f64.sqrt()), ("W.delta", 0.01)] {
        let t = found.params.require(name).unwrap();
        let largest = (0..t.len()).map(|i| t.get(i).re.abs()).fold(0.0, f64::max);
        assert!(largest <= bound && largest > 0.8 * bound, "{name}: {largest} of {bound}");
    }
}

/// `‖W_g h‖ / ‖h‖` of every row and gate.
fn gains(found: &Applied) -> Vec<f64> {
    let norm = |t: &Tensor, row: usize| (0..N).map(|i| t.get(row * N + i).norm_sqr()).sum::<f64>().sqrt();
    let rows = (0..ROWS).flat_map(|row| found.together.iter().map(move |y| (row, y)));
    rows.map(|(row, y)| norm(y, row) / norm(&found.h, row)).collect()
}

/// Products of reflections keep the norm, whatever the vectors are, one of zeros among them.
#[test]
fn reflections_are_orthogonal() {
    for count in ["1", "4", "6"] {
        for (dtype, noise) in [(DType::F64, 0.0), (DType::F64, 2.0), (DType::C64, 0.0), (DType::C64, 2.0)] {
            let h = random("h", dtype, &[ROWS, N], Init::Normal(1.0));
            let found = apply("householder", &[("reflections", count)], dtype, &h, noise);
            let gains = gains(&found);
            assert!(gains.iter().all(|g| (g - 1.0).abs() < 1e-13), "{count}, {dtype}: {gains:?}");
            // They are not the identity.
            assert!((0..N).any(|i| (found.together[0].get(i) - h.get(i)).norm() > 0.1), "{count}, {dtype}");
        }
    }
}

/// The matrix of the last gate, from what it makes of the rows of the identity: entry (row, column).
fn matrix_of(name: &str, set: &[(&str, &str)], dtype: DType) -> (Vec<Complex64>, Params) {
    let mut identity = Tensor::zeros(dtype, [N, N]).unwrap();
    identity.fill_with(|i| if i / N == i % N { 1.0.into() } else { 0.0.into() });
    let found = apply(name, set, dtype, &identity, 0.0);
    let last = &found.alone[GATES.len() - 1];
    ((0..N * N).map(|i| last.get(i % N * N + i / N)).collect(), found.params)
}

fn times(a: &[Complex64], b: &[Complex64]) -> Vec<Complex64> {
    let entry = |i: usize| (0..N).map(|k| a[i / N * N + k] * b[k * N + i % N]).sum();
    (0..N * N).map(entry).collect()
}

fn adjoint(a: &[Complex64]) -> Vec<Complex64> {
    (0..N * N).map(|i| a[i % N * N + i / N].conj()).collect()
}

fn phases(t: &Tensor) -> Vec<Complex64> {
    (0..N * N)
        .map(|i| if i / N == i % N { Complex64::cis(t.get(i / N).re) } else { Complex64::ZERO })
        .collect()
}

/// Largest entry of the difference.
fn distance(a: &[Complex64], b: &[Complex64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).norm()).fold(0.0, f64::max)
}

#[test]
fn unitary_families_are_unitary() {
    let rows: &[(&str, &[(&str, &str)])] = &[
        ("rc", &[]),
        ("unitary", &[]),
        ("eunn", &[]),
        ("eunn", &[("capacity", "6")]),
        ("eunn", &[("capacity", "1")]),
    ];
    for (name, set) in rows {
        for dtype in [DType::F64, DType::C64].into_iter().filter(|&d| takes(name, d)) {
            let (w, _) = matrix_of(name, set, dtype);
            let one: Vec<Complex64> =
                (0..N * N).map(|i| (if i / N == i % N { 1.0 } else { 0.0 }).into()).collect();
            let defect = distance(&times(&adjoint(&w), &w), &one);
            assert!(defect < 1e-14, "{name} {set:?}, {dtype}: {defect:e}");
            // Nor is it a trivial one.
            assert!(distance(&w, &one) > 0.1, "{name} {set:?}, {dtype}");
        }
    }
}

/// A vector of zeros is no reflection, forwards and backwards.
#[test]
fn no_vector_no_reflection() {
    let (mut tape, mut store) = (Tape::new(), ParamStore::new(3, DType::F64).unwrap());
    let r = Recurrence { name: "W", gates: &[""], n: N, complex: false, init: Some(Init::Zeros) };
    let w = operator("householder", &settings(&[("reflections", "3")])).unwrap();
    let w = w.declare(&mut Declare::new(&mut tape, &mut store), r).unwrap();
    let u = store.trainable().next().unwrap().1;
    let x = tape.input("h", DType::F64, Shape::rows([N])).unwrap();
    let bar = tape.input("bar", DType::F64, Shape::rows([N])).unwrap();
    let y = w.apply(&mut tape, x, 0).unwrap();
    let u_bar = vjp(&mut tape, &[(y, bar)], &[u]).unwrap()[0].unwrap();
    let mut params = store.into_params();
    let h = random("h", DType::F64, &[ROWS, N], Init::Normal(1.0));
    params.insert("h", h.clone());
    params.insert("bar", h.clone());
    let values = reference::evaluate(&tape, &[y, u_bar], &[&params]).unwrap();
    close(&values[0], &h, "three vectors of zeros");
    assert!((0..values[1].len()).all(|i| values[1].get(i).norm() == 0.0), "{:?}", values[1]);
}

/// Singular values stay within the margin, and reach it.
#[test]
fn singular_values_are_bounded() {
    for (margin, set) in [(0.01, "0.01"), (0.4, "0.4")] {
        for dtype in [DType::F64, DType::C64] {
            let h = random("h", dtype, &[ROWS, N], Init::Normal(1.0));
            let found = apply("svd", &[("margin", set), ("reflections", "5")], dtype, &h, 30.0);
            let gains = gains(&found);
            let bounds = 1.0 - margin - 1e-13..1.0 + margin + 1e-13;
            assert!(gains.iter().all(|g| bounds.contains(g)), "{margin}, {dtype}: {gains:?}");
            assert!(gains.iter().any(|g| (g - 1.0).abs() > margin / 10.0), "{margin}, {dtype}: {gains:?}");
        }
    }
    // They begin at 1.
    let h = random("h", DType::F64, &[ROWS, N], Init::Normal(1.0));
    assert!(gains(&apply("svd", &[], DType::F64, &h, 0.0)).iter().all(|g| (g - 1.0).abs() < 1e-14));
}

/// `Re ⟨h, W h⟩ = −γ ‖h‖²` for every `h`: the numerical range of `W`, its eigenvalues in it, has the real part `−γ`.
#[test]
fn antisymmetric_matrices_have_one_real_part() {
    for (gamma, set) in [(0.0, "0"), (0.01, "0.01"), (1.0, "1")] {
        for dtype in [DType::F64, DType::C64] {
            let h = random("h", dtype, &[ROWS, N], Init::Normal(1.0));
            let found = apply("antisymmetric", &[("gamma", set)], dtype, &h, 1.0);
            for (row, y) in (0..ROWS).flat_map(|row| found.together.iter().map(move |y| (row, y))) {
                let entries = row * N..(row + 1) * N;
                let inner: f64 = entries.clone().map(|i| (h.get(i).conj() * y.get(i)).re).sum();
                let square: f64 = entries.clone().map(|i| h.get(i).norm_sqr()).sum();
                assert!((inner / square + gamma).abs() < 1e-14, "{gamma}, {dtype}: {inner} {square}");
                assert!(entries.map(|i| y.get(i).norm_sqr()).sum::<f64>() > 0.01 * square);
            }
        }
    }
}

/// `rc` against the product of the matrices of its equation, and with the diagonal that follows it.
#[test]
fn restricted_capacity_is_its_product() {
    for set in [&[][..], &[("scale", "true")]] {
        restricted_capacity(set);
    }
}

fn restricted_capacity(set: &[(&str, &str)]) {
    let (w, p) = matrix_of("rc", set, DType::C64);
    let value = |name: &str| p.require(&format!("W.c.{name}")).unwrap();
    let turn = |sign: f64| -> Vec<Complex64> {
        let angle = |i: usize| sign * std::f64::consts::TAU * ((i / N) * (i % N)) as f64 / N as f64;
        (0..N * N).map(|i| Complex64::cis(angle(i)) / (N as f64).sqrt()).collect()
    };
    let reflection = |v: &Tensor| -> Vec<Complex64> {
        let norm: f64 = (0..N).map(|k| v.get(k).norm_sqr()).sum();
        let entry = |i: usize| 2.0 * v.get(i / N) * v.get(i % N).conj() / norm;
        (0..N * N).map(|i| if i / N == i % N { 1.0 - entry(i) } else { -entry(i) }).collect()
    };
    let pi = value("pi");
    let permutation: Vec<Complex64> =
        (0..N * N).map(|i| (if pi.get(i / N).re as usize == i % N { 1.0 } else { 0.0 }).into()).collect();
    // From the right: D_1, F, R_1, Π, D_2, F⁻¹, R_2, D_3.
    let mut factors = vec![
        phases(value("theta1")),
        turn(-1.0),
        reflection(value("v1")),
        permutation,
        phases(value("theta2")),
        turn(1.0),
        reflection(value("v2")),
        phases(value("theta3")),
    ];
    if !set.is_empty() {
        let scale = value("scale");
        factors
            .push((0..N * N).map(|i| if i / N == i % N { scale.get(i / N) } else { 0.0.into() }).collect());
    }
    let expected = factors.iter().skip(1).fold(factors[0].clone(), |product, f| times(f, &product));
    assert!(distance(&w, &expected) < 1e-14, "{set:?}: {:e}", distance(&w, &expected));
}

/// An operator on complex states says so.
#[test]
fn a_real_state_is_refused() {
    let (mut tape, mut store) = (Tape::new(), ParamStore::new(3, DType::F64).unwrap());
    let r = Recurrence { name: "W", gates: &[""], n: N, complex: false, init: None };
    let rc = operator("rc", &settings(&[])).unwrap();
    let refused = rc.declare(&mut Declare::new(&mut tape, &mut store), r).unwrap_err();
    assert_eq!(refused.to_string(), "rc: needs a complex state, the cell's is real");
}
