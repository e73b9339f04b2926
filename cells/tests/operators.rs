//! Every operator is linear, does gates together as it does them apart, and is the dense matrix its equation says.
#![allow(clippy::unwrap_used)]

mod common;

use common::{random, settings};
use num_complex::Complex64;
use retrograd_cells::init::Init;
use retrograd_cells::{Declare, Error, OPERATORS, ParamStore, Recurrence, operator};
use retrograd_engine::{DType, Params, Shape, Tape, Tensor, Var, reference};

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

fn apply(name: &str, set: &[(&str, &str)], dtype: DType, h: &Tensor) -> Applied {
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
    let mut params = store.into_params();
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
                let found = apply(entry.name, set, dtype, &random("h", dtype, &[ROWS, N], Init::Normal(1.0)));
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
    ];
    for (name, set, rank, entry) in rows {
        for dtype in [DType::F64, DType::C64] {
            let found = apply(name, set, dtype, &random("h", dtype, &[ROWS, N], Init::Normal(1.0)));
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
    let found = apply("lrd", &[("rank", "2")], DType::F64, &h);
    for (name, bound) in [("W.L", 0.75f64.sqrt()), ("W.R", 0.75f64.sqrt()), ("W.delta", 0.01)] {
        let t = found.params.require(name).unwrap();
        let largest = (0..t.len()).map(|i| t.get(i).re.abs()).fold(0.0, f64::max);
        assert!(largest <= bound && largest > 0.8 * bound, "{name}: {largest} of {bound}");
    }
}

/// The matrix of the last gate, from what it makes of the rows of the identity: entry (row, column).
fn matrix_of(name: &str, set: &[(&str, &str)], dtype: DType) -> (Vec<Complex64>, Params) {
    let mut identity = Tensor::zeros(dtype, [N, N]).unwrap();
    identity.fill_with(|i| if i / N == i % N { 1.0.into() } else { 0.0.into() });
    let found = apply(name, set, dtype, &identity);
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

fn diagonal(t: &Tensor) -> Vec<Complex64> {
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

/// `rc` against the product of the matrices of its equation.
#[test]
fn restricted_capacity_is_its_product() {
    let (w, p) = matrix_of("rc", &[], DType::C64);
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
    let factors = [
        diagonal(value("theta1")),
        turn(-1.0),
        reflection(value("v1")),
        permutation,
        diagonal(value("theta2")),
        turn(1.0),
        reflection(value("v2")),
        diagonal(value("theta3")),
    ];
    let expected = factors.iter().skip(1).fold(factors[0].clone(), |product, f| times(f, &product));
    assert!(distance(&w, &expected) < 1e-14, "{:e}", distance(&w, &expected));
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
