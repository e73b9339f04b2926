//! Products, reductions, normalization and losses against PyTorch.

mod torch;

use std::collections::BTreeMap;
use std::error::Error;

use retrograd_engine::{Result, Tape, Var};
use retrograd_ops::*;
use torch::Build;

const PLAIN: MatMulFlags =
    MatMulFlags { transpose_a: false, conj_a: false, transpose_b: false, conj_b: false };
const ADJOINT_A: MatMulFlags = MatMulFlags { transpose_a: true, conj_a: true, ..PLAIN };
const ADJOINT_B: MatMulFlags = MatMulFlags { transpose_b: true, conj_b: true, ..PLAIN };

fn product(t: &mut Tape, v: &BTreeMap<String, Var>, flags: MatMulFlags) -> Result<Var> {
    matmul_with(t, v["a"], v["b"], flags)
}

fn kron(t: &mut Tape, v: &BTreeMap<String, Var>) -> Result<Var> {
    let factors: Vec<Var> = (0..).map_while(|f| v.get(&format!("f{f}")).copied()).collect();
    kron_apply(t, v["x"], &factors)
}

fn solve(t: &mut Tape, v: &BTreeMap<String, Var>, read: Triangle) -> Result<Var> {
    triangular_solve(t, v["a"], v["b"], read)
}

fn rotated(t: &mut Tape, v: &BTreeMap<String, Var>, style: RotationStyle) -> Result<Var> {
    rotations(t, v["x"], v["theta"], v.get("phi").copied(), style)
}

const fn tunable(capacity: usize) -> RotationStyle {
    RotationStyle::Tunable { capacity }
}

/// Fixture and how to record it.
const CASES: &[(&str, Build)] = &[
    ("abs_squared", |t, v| {
        let y = abs2(t, v["z"])?;
        sum_all(t, y)
    }),
    ("matmul_complex", |t, v| product(t, v, PLAIN)),
    ("matmul_conj", |t, v| product(t, v, MatMulFlags { conj_b: true, ..PLAIN })),
    ("matmul_transpose_b", |t, v| product(t, v, MatMulFlags { transpose_b: true, ..PLAIN })),
    ("matmul_adjoint_b", |t, v| product(t, v, ADJOINT_B)),
    ("matmul_transpose_a", |t, v| product(t, v, MatMulFlags { transpose_a: true, ..PLAIN })),
    ("matmul_adjoint_a", |t, v| product(t, v, ADJOINT_A)),
    ("matmul_adjoint_both", |t, v| {
        product(t, v, MatMulFlags { transpose_a: true, conj_a: true, ..ADJOINT_B })
    }),
    ("matmul_batched", |t, v| product(t, v, PLAIN)),
    ("matmul_real", |t, v| product(t, v, PLAIN)),
    ("outer_complex", |t, v| outer(t, v["a"], v["b"])),
    ("triangular_solve_lower_real", |t, v| solve(t, v, Triangle::default())),
    ("triangular_solve_upper_complex", |t, v| solve(t, v, Triangle { upper: true, ..Triangle::default() })),
    ("triangular_solve_upper_adjoint", |t, v| {
        solve(t, v, Triangle { upper: true, transpose: true, conj: true })
    }),
    ("triangular_solve_batched", |t, v| solve(t, v, Triangle::default())),
    ("kron_complex_rectangular", kron),
    ("kron_complex_square", kron),
    ("kron_real_rectangular", kron),
    ("kron_real_one", kron),
    ("rotations_real", |t, v| rotated(t, v, tunable(3))),
    ("rotations_odd", |t, v| rotated(t, v, tunable(2))),
    ("rotations_complex_odd", |t, v| rotated(t, v, tunable(4))),
    ("rotations_complex", |t, v| rotated(t, v, tunable(2))),
    ("rotations_fft", |t, v| rotated(t, v, RotationStyle::Fft)),
    ("rotations_fft_complex", |t, v| rotated(t, v, RotationStyle::Fft)),
    ("fft_7", |t, v| fft(t, v["x"])),
    ("fft_8", |t, v| fft(t, v["x"])),
    ("ifft_7", |t, v| ifft(t, v["x"])),
    ("ifft_8", |t, v| ifft(t, v["x"])),
    ("take", |t, v| take(t, v["x"], v["index"])),
    ("softmax", |t, v| softmax(t, v["x"])),
    ("log_softmax", |t, v| log_softmax(t, v["x"])),
    ("softmax_cross_entropy_rows", |t, v| {
        softmax_cross_entropy(t, v["logits"], v["targets"], Some(v["mask"]))
    }),
    ("softmax_cross_entropy_mean", |t, v| {
        let y = softmax_cross_entropy(t, v["logits"], v["targets"], Some(v["mask"]))?;
        let (top, bottom) = (sum_all(t, y)?, sum_all(t, v["mask"])?);
        div(t, top, bottom)
    }),
    ("bce_with_logits", |t, v| bce_with_logits(t, v["logits"], v["targets"])),
    ("layer_norm", |t, v| layer_norm(t, v["x"], v["gain"], v["shift"], 1e-5)),
    ("norm_p1", |t, v| norm(t, v["x"], 1.0, &[-1], false)),
    ("norm_p2", |t, v| norm(t, v["x"], 2.0, &[-1], false)),
    ("norm_p5", |t, v| norm(t, v["x"], 5.0, &[-1], false)),
    ("normalize_p5", |t, v| normalize(t, v["x"], 5.0, -1, 1e-12)),
    ("norm_p2_complex", |t, v| norm(t, v["x"], 2.0, &[-1], false)),
];

#[test]
fn values_and_gradients_are_those_of_pytorch() -> std::result::Result<(), Box<dyn Error>> {
    // Sums of up to a dozen terms that cancel.
    torch::hold(CASES, 4e-15)
}
