//! Kernels alone: packed products, deferred weight gradients, fused pointwise chains.
//!
//! Throughput of products is floating-point operations; of pointwise chains, elements.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use retrograd::engine::cpu::{Accumulate, Compiled, Isa, gemm_packed, gemm_tn, pack, packed_len};
use retrograd::engine::expr::{Expr, Unary};

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

criterion_group!(benches, products, pointwise);
criterion_main!(benches);
