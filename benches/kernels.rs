//! Kernels alone, on one thread: packed products, deferred weight gradients, Kronecker products, pointwise functions;
//! and what to hold them against, the product that is measured as the machine's peak, and copies within each cache and
//! past all of them.
//!
//! Throughput is floating-point operations of products, elements of pointwise functions, bytes read and written of
//! copies. Kronecker products are timed inside programs, by what the profile says of their instruction.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use retrograd::engine::cpu::{Accumulate, Compiled, Isa, gemm_packed, gemm_tn, pack, packed_len};
use retrograd::engine::expr::{Expr, Unary};
use retrograd::engine::vjp;
use retrograd::{DType, Params, Program, RunOptions, Shape, Tape, Tensor, ops};

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i * 31 % 97) as f32 / 97.0 - 0.5).collect()
}

fn products(c: &mut Criterion) {
    let isa = Isa::detect();
    let mut group = c.benchmark_group("kernels/product");
    for (m, k, n) in [(1, 128, 512), (25, 128, 512), (50, 512, 128), (400, 512, 2048), (37, 97, 388)] {
        let (a, b) = (numbers(m * k), numbers(k * n));
        let mut packed = vec![0f32; packed_len::<f32>(isa, k, n)];
        pack(isa, k, n, &b, n, false, &mut packed);
        let mut out = vec![0f32; m * n];
        group.throughput(Throughput::Elements((2 * m * k * n) as u64));
        group.bench_function(BenchmarkId::new("packed", format!("M{m}_K{k}_N{n}")), |bench| {
            bench.iter(|| gemm_packed(isa, m, k, n, black_box(&a), k, &packed, &mut out, n, Accumulate::Set));
        });
    }
    for (rows, m, n) in [(200, 128, 512), (64, 512, 2048), (333, 97, 388)] {
        let (a, b) = (numbers(rows * m), numbers(rows * n));
        let mut out = vec![0f32; m * n];
        group.throughput(Throughput::Elements((2 * rows * m * n) as u64));
        group.bench_function(BenchmarkId::new("row_contract", format!("R{rows}_M{m}_N{n}")), |bench| {
            bench.iter(|| gemm_tn(isa, rows, m, n, black_box(&a), m, &b, n, &mut out, n, Accumulate::Add));
        });
    }
    group.finish();
}

/// Sizes of square factors, rows, and how one is named.
const KRONECKER: &[(&str, &[usize], usize)] = &[
    ("2x9", &[2; 9], 64),
    ("2x7", &[2; 7], 64),
    ("3x5", &[3; 5], 64),
    ("5x3", &[5; 3], 64),
    ("4_25", &[4, 25], 64),
    ("3_137", &[3, 137], 64),
];

fn kronecker(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernels/kron");
    for &(name, sizes, rows) in KRONECKER {
        for dtype in [DType::F32, DType::C32] {
            for part in ["kron_apply", "kron_grad"] {
                let (mut program, values) = kronecker_program(sizes, rows, dtype, part);
                // Once for its code, once for its count.
                let mut once = || {
                    program.run(&[&values]).expect("a product that runs");
                    let lines = &program.last_profile().expect("a profile was asked for").lines;
                    let of = |line: &&retrograd::engine::profile::ProfileLine| {
                        line.operations.iter().any(|o| o == part)
                    };
                    lines.iter().filter(of).fold((0.0, 0.0), |(s, f), l| (s + l.seconds, f + l.flops))
                };
                once();
                group.throughput(Throughput::Elements(once().1 as u64));
                group.bench_function(BenchmarkId::new(format!("{part}/{dtype}"), name), |bench| {
                    bench.iter_custom(|n| Duration::from_secs_f64((0..n).map(|_| once().0).sum()));
                });
            }
        }
    }
    group.finish();
}

/// A program with one Kronecker product, or one with its gradients, of well-conditioned factors.
fn kronecker_program(sizes: &[usize], rows: usize, dtype: DType, part: &str) -> (Program, Params) {
    let make = || -> retrograd::engine::Result<(Program, Params)> {
        let width = sizes.iter().product();
        let (mut tape, mut values) = (Tape::new(), Params::new());
        let filled = |dims: &[usize], f: &dyn Fn(usize) -> f64| -> retrograd::engine::Result<Tensor> {
            let mut t = Tensor::zeros(dtype, dims)?;
            t.fill_with(|i| f(i).into());
            Ok(t)
        };
        let mut factors = Vec::new();
        for (k, &n) in sizes.iter().enumerate() {
            factors.push(tape.param(&format!("w{k}"), dtype, [n, n])?);
            // Near the identity, as unitary factors begin.
            let entry = move |i: usize| if i / n == i % n { 1.0 } else { 0.1 - 0.2 * (i % 2) as f64 };
            values.insert(format!("w{k}"), filled(&[n, n], &entry)?);
        }
        let mut input = |name: &str| -> retrograd::engine::Result<_> {
            values.insert(name, filled(&[rows, width], &|i| (i * 31 % 97) as f64 / 97.0 - 0.5)?);
            tape.input(name, dtype, Shape::rows([width]))
        };
        let (x, bar) = (input("x")?, input("bar")?);
        let y = ops::kron_apply(&mut tape, x, &factors)?;
        let outputs = match part {
            "kron_apply" => vec![y],
            _ => {
                // With the cotangent of `x`, from which gradients of well-conditioned factors come.
                let wrt: Vec<_> = std::iter::once(x).chain(factors).collect();
                vjp(&mut tape, &[(y, bar)], &wrt)?.into_iter().flatten().collect()
            }
        };
        let options = RunOptions { threads: Some(1), profile: true, ..RunOptions::default() };
        Ok((Program::new(&tape, &outputs, options)?, values))
    };
    make().expect("factors that fit")
}

/// What kernels are held against.
fn limits(c: &mut Criterion) {
    let isa = Isa::detect();
    let mut group = c.benchmark_group("kernels/limit");
    let [m, k, n] = [96, 128, 96];
    let (a, b) = (numbers(m * k), numbers(k * n));
    let mut packed = vec![0f32; packed_len::<f32>(isa, k, n)];
    pack(isa, k, n, &b, n, false, &mut packed);
    let mut out = vec![0f32; m * n];
    group.throughput(Throughput::Elements((2 * m * k * n) as u64));
    group.bench_function("product", |bench| {
        bench.iter(|| gemm_packed(isa, m, k, n, black_box(&a), k, &packed, &mut out, n, Accumulate::Set));
    });
    for kib in [16, 256, 4 << 10, 256 << 10] {
        let from = vec![1f32; kib << 8];
        let mut to = vec![0f32; kib << 8];
        group.throughput(Throughput::Bytes((kib as u64) << 11));
        group.bench_function(BenchmarkId::new("copy", format!("{kib}KiB")), |bench| {
            bench.iter(|| to.copy_from_slice(black_box(&from)));
        });
        black_box(&to);
    }
    group.finish();
}

fn pointwise(c: &mut Criterion) {
    let isa = Isa::detect();
    let mut group = c.benchmark_group("kernels/pointwise");
    let n = 25 * 128;
    for op in [Unary::Exp, Unary::Tanh, Unary::Sigmoid, Unary::Log, Unary::Sqrt] {
        let mut e = Expr::new();
        let x = e.load(false);
        let y = e.map(op, x);
        e.store(y);
        let program = Compiled::new(&e.finish());
        let x: Vec<f32> = numbers(n).iter().map(|v| v + 1.0).collect();
        let mut y = vec![0f32; n];
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(BenchmarkId::new("unary", format!("{op:?}")), |bench| {
            bench.iter(|| program.run_slices(isa, &[black_box(&x)], &mut [&mut y]));
        });
    }
    group.finish();
}

criterion_group!(benches, limits, products, kronecker, pointwise);
criterion_main!(benches);
