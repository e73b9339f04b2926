#![allow(clippy::unwrap_used, clippy::panic)]

use num_complex::Complex64;
use retrograd_engine::kernel::{In, Out};
use retrograd_engine::{Params, Shape, Tensor, reference};

use super::*;
use crate::spec::Sampler;

/// A matrix with its sizes, and whether it is complex.
type Size = (usize, usize, bool);

const CHAINS: &[(bool, &[Size])] = &[
    (true, &[(2, 2, true), (3, 3, true), (5, 5, true)]),
    (false, &[(2, 3, false), (4, 1, true), (3, 5, false)]),
    (false, &[(3, 2, false), (2, 4, false), (1, 3, false)]),
    (true, &[(4, 2, false), (2, 2, true), (16, 20, true)]),
    (true, &[(2, 2, true), (2, 2, false), (3, 2, true), (7, 18, true)]),
    (true, &[(40, 37, true), (2, 3, true)]),
    (false, &[(3, 2, false), (41, 33, false)]),
    (true, &[(6, 5, true), (4, 4, true), (1, 1, true), (20, 19, false)]),
    (true, &[(2, 2, true); 8]),
    (false, &[(2, 2, false); 7]),
    (true, &[(35, 35, true), (17, 16, true)]),
];

fn naive(x: &[Complex64], factors: &[(usize, usize, Vec<Complex64>)]) -> Vec<Complex64> {
    let mut product = (1, 1, vec![Complex64::new(1.0, 0.0)]);
    for (p, q, w) in factors {
        let (rows, columns) = (product.0 * p, product.1 * q);
        let mut next = vec![Complex64::ZERO; rows * columns];
        for i in 0..rows {
            for j in 0..columns {
                next[i * columns + j] = product.2[i / p * product.1 + j / q] * w[i % p * q + j % q];
            }
        }
        product = (rows, columns, next);
    }
    (0..product.0).map(|i| (0..product.1).map(|j| product.2[i * product.1 + j] * x[j]).sum()).collect()
}

struct Sample {
    x: Tensor,
    y_bar: Tensor,
    factors: Vec<Tensor>,
}

fn sample(real: DType, rows: usize, x: bool, sizes: &[Size], seed: u64) -> Sample {
    let mut sampler = Sampler::new(seed);
    let dtype = |complex: bool| if complex { real.complex().unwrap() } else { real };
    let (p, q) = sizes.iter().fold((1, 1), |(p, q), s| (p * s.0, q * s.1));
    let y = x || sizes.iter().any(|s| s.2);
    Sample {
        x: sampler.direction(dtype(x), &[rows, q]).unwrap(),
        y_bar: sampler.direction(dtype(y), &[rows, p]).unwrap(),
        factors: sizes.iter().map(|s| sampler.direction(dtype(s.2), &[s.0, s.1]).unwrap()).collect(),
    }
}

/// The product, its adjoint and the gradients of the factors, by `record`.
fn evaluate(s: &Sample, record: impl Fn(&mut Tape, Var, &[Var]) -> Result<Var>) -> Vec<Tensor> {
    let mut tape = Tape::new();
    let mut values = Params::new();
    let x = tape.input("x", s.x.dtype(), Shape::rows([s.x.dims()[1]])).unwrap();
    let y_bar = tape.input("y_bar", s.y_bar.dtype(), Shape::rows([s.y_bar.dims()[1]])).unwrap();
    values.insert("x", s.x.clone());
    values.insert("y_bar", s.y_bar.clone());
    let mut wrt = vec![x];
    for (f, w) in s.factors.iter().enumerate() {
        wrt.push(tape.param(&format!("w{f}"), w.dtype(), w.dims()).unwrap());
        values.insert(format!("w{f}"), w.clone());
    }
    let y = record(&mut tape, x, &wrt[1..]).unwrap();
    let mut outputs = vec![y];
    outputs.extend(retrograd_engine::vjp(&mut tape, &[(y, y_bar)], &wrt).unwrap().into_iter().flatten());
    reference::evaluate(&tape, &outputs, &[&values]).unwrap()
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.len(), b.len());
    (0..a.len()).map(|i| (a.get(i).conj() * b.get(i)).re).sum()
}

fn norm(a: &Tensor) -> f64 {
    dot(a, a).sqrt()
}

fn unmerged(tape: &mut Tape, x: Var, factors: &[Var]) -> Result<Var> {
    apply(tape, x, factors.iter().map(|&w| (w, Stored::default())))
}

#[test]
fn values_against_the_explicit_matrix() {
    for (i, (x, sizes)) in CHAINS.iter().enumerate() {
        for (real, eps) in [(DType::F64, 1e-13), (DType::F32, 2e-5)] {
            let s = sample(real, 3, *x, sizes, i as u64);
            let factors: Vec<_> = (sizes.iter().zip(&s.factors))
                .map(|(s, w)| (s.0, s.1, (0..w.len()).map(|i| w.get(i)).collect()))
                .collect();
            for y in [evaluate(&s, kron_apply), evaluate(&s, unmerged)] {
                let (q, p) = (s.x.dims()[1], s.y_bar.dims()[1]);
                let scale = norm(&y[0]) / (y[0].len() as f64).sqrt();
                for r in 0..3 {
                    let row: Vec<_> = (0..q).map(|j| s.x.get(r * q + j)).collect();
                    for (j, expected) in naive(&row, &factors).into_iter().enumerate() {
                        let got = y[0].get(r * p + j);
                        let error = (got - expected).norm() / scale;
                        assert!(error < eps, "{sizes:?} {real} row {r} element {j}: {got} {expected}");
                    }
                }
            }
        }
    }
}

#[test]
fn adjoint_and_every_gradient_satisfy_the_multilinear_identity() {
    // <y_bar, y> = <x_bar, x> = <W_f_bar, W_f> for every factor.
    for (i, (x, sizes)) in CHAINS.iter().enumerate() {
        for rows in [1, 2, 11] {
            let s = sample(DType::F64, rows, *x, sizes, 100 + i as u64);
            for out in [evaluate(&s, kron_apply), evaluate(&s, unmerged)] {
                let (expected, scale) = (dot(&s.y_bar, &out[0]), norm(&s.y_bar) * norm(&out[0]));
                assert_eq!(out.len(), 2 + sizes.len());
                for (k, v) in std::iter::once(&s.x).chain(&s.factors).enumerate() {
                    let error = (dot(&out[1 + k], v) - expected).abs() / scale;
                    assert!(error < 1e-13, "{sizes:?} rows {rows} input {k}: {error:e}");
                }
            }
        }
    }
}

/// One row as a tensor of its own.
fn row(t: &Tensor, r: usize) -> Tensor {
    let mut part = Tensor::zeros(t.dtype(), [1, t.dims()[1]]).unwrap();
    part.fill_with(|j| t.get(r * t.dims()[1] + j));
    part
}

/// The stages of a sample's product, factors as they are.
fn chain_of_sample(s: &Sample) -> Chain {
    let stored = vec![Stored::default(); s.factors.len()];
    chain(&stored, &s.x.dims()[1..], s.factors.iter().map(Tensor::dims), s.y_bar.dtype().is_complex())
}

#[test]
fn a_row_does_not_depend_on_the_others() {
    for (i, (x, sizes)) in CHAINS.iter().enumerate() {
        let s = sample(DType::F32, 13, *x, sizes, 200 + i as u64);
        let all = evaluate(&s, unmerged);
        let mut sums: Vec<Vec<f32>> = vec![];
        for r in 0..13 {
            let one = Sample { x: row(&s.x, r), y_bar: row(&s.y_bar, r), factors: s.factors.clone() };
            let out = evaluate(&one, unmerged);
            for k in 0..2 {
                assert!(out[k].bit_eq(&row(&all[k], r)), "{sizes:?} row {r} output {k}");
            }
            sums.push(out[2].components::<f32>().unwrap().to_vec());
        }
        assert!(sums.iter().all(|s| s.len() == sums[0].len()));
    }
}

/// Rows that go together in the lanes of a vector: whole vectors, most of one, and what is left for the other loops.
#[test]
fn rows_in_lanes_give_the_bits_of_rows_alone() {
    let three: &[(bool, &[Size])] = &[
        (true, &[(3, 3, true); 5]),
        (false, &[(3, 3, false), (5, 5, false), (5, 5, false)]),
        (false, &[(4, 3, true), (7, 6, false), (9, 10, true)]),
        (true, &[(4, 4, false), (25, 25, true)]),
    ];
    let mut across = 0;
    for (i, (x, sizes)) in CHAINS.iter().chain(three).enumerate() {
        for real in [DType::F32, DType::F64] {
            for rows in [8, 16, 21, 37] {
                let s = sample(real, rows, *x, sizes, 600 + i as u64);
                across += usize::from(chain_of_sample(&s).goes_across(lanes(real)));
                let all = evaluate(&s, unmerged);
                for r in 0..rows {
                    let one = Sample { x: row(&s.x, r), y_bar: row(&s.y_bar, r), factors: s.factors.clone() };
                    let out = evaluate(&one, unmerged);
                    for k in 0..2 {
                        assert!(
                            out[k].bit_eq(&row(&all[k], r)),
                            "{sizes:?} {real} row {r} of {rows}, output {k}"
                        );
                    }
                }
            }
        }
    }
    assert!(across > 40, "only {across} products had rows in lanes");
}

/// Where rows go in the lanes of a vector, those of a call are summed first, which is another order.
#[test]
fn gradients_do_not_depend_on_how_rows_are_split_into_calls() {
    for (i, (x, sizes)) in CHAINS.iter().enumerate() {
        let s = sample(DType::F32, 13, *x, sizes, 300 + i as u64);
        let op = KronGrad {
            factors: smallvec![Stored::default(); sizes.len()],
            shortcut: false,
            wanted: smallvec![true; sizes.len()],
        };
        let whole = call(&op, &s, &[13]);
        let chain = chain_of_sample(&s);
        for split in [&[1; 13][..], &[8, 5], &[3, 9, 1], &[7, 1, 5]] {
            let parts = call(&op, &s, split);
            if !chain.grads_go_across(16) {
                assert_eq!(whole, parts, "{sizes:?} {split:?}");
                continue;
            }
            let all = |(re, im): &(Vec<f32>, Vec<f32>)| re.iter().chain(im).copied().collect::<Vec<f32>>();
            let (whole, parts) = (all(&whole), all(&parts));
            let largest = whole.iter().fold(0f32, |m, v| m.max(v.abs()));
            for (a, b) in whole.iter().zip(&parts) {
                assert!((a - b).abs() <= 1e-5 * largest, "{sizes:?} {split:?}: {a} {b}");
            }
        }
    }
}

fn planes(t: &Tensor) -> (Vec<f32>, Vec<f32>) {
    let re = (0..t.len()).map(|i| t.get(i).re as f32).collect();
    let im = (0..t.len()).map(|i| t.get(i).im as f32).collect();
    (re, if t.dtype().is_complex() { im } else { Vec::new() })
}

/// Runs the gradient kernel over the rows in calls of these many rows.
fn call(op: &KronGrad, s: &Sample, split: &[usize]) -> (Vec<f32>, Vec<f32>) {
    let data: Vec<_> = [&s.x, &s.y_bar].into_iter().chain(&s.factors).map(planes).collect();
    let dims: Vec<Vec<usize>> = [&s.x, &s.y_bar]
        .iter()
        .map(|t| t.dims()[1..].to_vec())
        .chain(s.factors.iter().map(|t| t.dims().to_vec()))
        .collect();
    let tys: Vec<Ty> = (data.iter().zip(&dims).enumerate())
        .map(|(i, (d, dims))| {
            let lead = if i < 2 { Lead::N } else { Lead::Shared };
            Ty::new(if d.1.is_empty() { DType::F32 } else { DType::C32 }, Shape::new(lead, dims))
        })
        .collect();
    let ty = op.infer(&tys).unwrap();
    let width = ty.shape.width();
    let (mut re, mut im) = (vec![0.0; width], vec![0.0; if ty.dtype.is_complex() { width } else { 0 }]);
    let mut scratch = vec![f32::NAN; op.scratch(&tys)];
    let mut at = 0;
    for &rows in split {
        let inputs: Vec<In<'_, f32>> = (data.iter().zip(&dims).enumerate())
            .map(|(i, (d, dims))| {
                let width: usize = dims.iter().product();
                let (from, stride) = if i < 2 { (at * width, width) } else { (0, 0) };
                In::new(&d.0[from..], if d.1.is_empty() { &[] } else { &d.1[from..] }, stride, dims)
            })
            .collect();
        let output = Out::new(&mut re, &mut im, 0, &ty.shape.dims);
        let origin = Default::default();
        op.run_f32(Args { rows, inputs: &inputs, output, scratch: &mut scratch, origin });
        at += rows;
    }
    (re, im)
}

#[test]
fn what_does_not_fit_is_an_error() {
    let mut tape = Tape::new();
    let x = tape.input("x", DType::C32, Shape::rows([6])).unwrap();
    let w = tape.param("w", DType::C32, [2, 2]).unwrap();
    let v = tape.param("v", DType::F64, [2, 3]).unwrap();
    let rows = tape.input("rows", DType::C32, Shape::rows([2, 3])).unwrap();
    let vector = tape.param("vector", DType::C32, [3]).unwrap();
    let empty = tape.param("empty", DType::C32, [0, 3]).unwrap();
    let huge = tape.param("huge", DType::F32, [1, 1 << 40]).unwrap();
    let mut text = |factors: &[Var]| kron_apply(&mut tape, x, factors).unwrap_err().to_string();
    assert_eq!(text(&[]), "kron_apply: no factors");
    assert_eq!(text(&[w, w]), "kron_apply: last axis of x for factors [2,2] ⊗ [2,2], expected 4, got [N,6]");
    assert!(text(&[w, v]).contains("element type of input"));
    for bad in [rows, vector, empty] {
        assert!(text(&[w, bad]).contains("kron_apply: factor 1, expected a matrix"));
    }
    assert!(text(&[huge, huge, w]).contains("overflow"));
}

/// Gradients of all factors, joined: the long way, or from `x` and `x_bar`.
fn joined(s: &Sample, sizes: &[Size], short: bool) -> Tensor {
    let mut tape = Tape::new();
    let mut values = Params::new();
    let x = tape.input("x", s.x.dtype(), Shape::rows([s.x.dims()[1]])).unwrap();
    let y_bar = tape.input("y_bar", s.y_bar.dtype(), Shape::rows([s.y_bar.dims()[1]])).unwrap();
    values.insert("x", s.x.clone());
    values.insert("y_bar", s.y_bar.clone());
    let mut matrices = Vec::new();
    for (f, w) in s.factors.iter().enumerate() {
        matrices.push(tape.param(&format!("w{f}"), w.dtype(), w.dims()).unwrap());
        values.insert(format!("w{f}"), w.clone());
    }
    // Every second factor as its transpose, conjugated.
    let factors: SmallVec<[Stored; 8]> =
        (0..sizes.len()).map(|f| Stored { transpose: f % 2 == 1, conj: f % 2 == 1 }).collect();
    let adjoint = matrices.iter().copied().zip(factors.iter().map(|how| how.adjoint()));
    let x_bar = apply(&mut tape, y_bar, adjoint).unwrap();
    let wanted = (0..sizes.len()).map(|f| f != 1).collect();
    let op = KronGrad { factors, shortcut: short, wanted };
    let gradients = op.record(&mut tape, x, y_bar, short.then_some(x_bar), &matrices).unwrap();
    reference::evaluate(&tape, &[gradients], &[&values]).unwrap().remove(0)
}

const SQUARE: &[(bool, &[Size])] = &[
    (true, &[(2, 2, true); 9]),
    (true, &[(2, 2, true), (2, 2, false), (2, 2, true), (2, 2, true), (2, 2, true), (2, 2, false)]),
    (false, &[(2, 2, false); 7]),
    (true, &[(2, 2, false); 6]),
    (false, &[(2, 2, true); 6]),
    (true, &[(2, 2, true), (2, 2, true), (5, 5, true), (5, 5, true)]),
    (false, &[(3, 3, false), (3, 3, false), (5, 5, false)]),
    (true, &[(16, 16, true), (1, 1, true), (7, 7, true)]),
];

#[test]
fn the_short_way_gives_the_same_gradients() {
    for (i, (x, sizes)) in SQUARE.iter().enumerate() {
        for (real, eps) in [(DType::F64, 1e-13), (DType::F32, 5e-6)] {
            let mut s = sample(real, 5, *x, sizes, 400 + i as u64);
            for w in &mut s.factors {
                let (n, random) = (w.dims()[0], w.clone());
                w.fill_with(|k| random.get(k) * 0.3 + if k % (n + 1) == 0 { 1.0 } else { 0.0 });
            }
            let (long, short) = (joined(&s, sizes, false), joined(&s, sizes, true));
            assert_eq!(long.dims(), short.dims());
            let mut largest = 0.0f64;
            for k in 0..long.len() {
                largest = largest.max((long.get(k) - short.get(k)).norm());
            }
            assert!(largest < eps * norm(&long), "{sizes:?} {real}: {largest:e} of {:e}", norm(&long));
            assert!(!long.bit_eq(&short), "{sizes:?} {real}: not the short way");
        }
    }
}

#[test]
fn badly_conditioned_factors_go_the_long_way() {
    for (i, (x, sizes)) in SQUARE.iter().enumerate() {
        for by in [0.0, 1e-4, f64::NAN] {
            let mut s = sample(DType::F32, 5, *x, sizes, 500 + i as u64);
            // The second row of the last factor that has two.
            let f = sizes.iter().rposition(|s| s.0 > 1).unwrap();
            let (n, random) = (sizes[f].0, s.factors[f].clone());
            s.factors[f].fill_with(|k| random.get(k) * if k / n == 1 { by } else { 1.0 });
            let (long, short) = (joined(&s, sizes, false), joined(&s, sizes, true));
            let same = |k: usize| {
                let (a, b) = (long.get(k), short.get(k));
                a == b || (a.re.is_nan() && b.re.is_nan())
            };
            assert!((0..long.len()).all(same), "{sizes:?} {by}");
        }
    }
}
