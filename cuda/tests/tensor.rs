//! Products on tensor cores: exact sums of products of rounded factors, whatever the sizes, with equal bits under every
//! budget; what is not asked for stays exact.
#![allow(clippy::unwrap_used, clippy::panic)]

mod on_device;

use half::bf16;
use on_device::{compare_on, device_with, numbers, on, ratio, sum_all};
use retrograd_cells::{Input, Layer, Loss, Model, ModelSpec, Readout, Settings, cell, operator};
use retrograd_engine::device::Products;
use retrograd_engine::matmul::{MatMul, matmul_with};
use retrograd_engine::{DType, Params, Program, RunOptions, Shape, Tape, Tensor, Var, grad};
use retrograd_ops as ops;

const ROUNDED: [Products; 2] = [Products::Tf32, Products::Bf16];

/// A number as a factor of a product has it.
fn rounded(products: Products, x: f64) -> f64 {
    match products {
        Products::Exact => x,
        // 10 bits after the leading one, ties away from zero.
        Products::Tf32 if x != 0.0 => {
            let unit = (x.abs().log2().floor() - 10.0).exp2();
            (x / unit).round() * unit
        }
        Products::Tf32 => 0.0,
        Products::Bf16 => f64::from(bf16::from_f32(x as f32)),
    }
}

/// The factors rounded, in double precision.
fn factors(products: Products, t: &Tensor) -> Tensor {
    let wide = if t.dtype().is_complex() { DType::C64 } else { DType::F64 };
    let mut out = Tensor::zeros(wide, t.dims()).unwrap();
    out.fill_with(|i| {
        let z = t.get(i);
        num_complex::Complex64::new(rounded(products, z.re), rounded(products, z.im))
    });
    out
}

fn narrow(t: &Tensor, dtype: DType) -> Tensor {
    let mut out = Tensor::zeros(dtype, t.dims()).unwrap();
    out.fill_with(|i| t.get(i));
    out
}

/// `x w` of every step and row, with one of the factors conjugated or the matrix transposed.
fn product(dtype: DType, (k, m): (usize, usize), parts: Option<usize>, how: MatMul) -> (Tape, Var, Var) {
    let mut tape = Tape::new();
    let dims: Vec<usize> = parts.into_iter().chain([k]).collect();
    let x = tape.input("x", dtype, Shape::sequence(dims)).unwrap();
    let w = tape.param("w", dtype, if how.transpose_b { [m, k] } else { [k, m] }).unwrap();
    let y = matmul_with(&mut tape, x, w, how).unwrap();
    (tape, w, y)
}

#[test]
fn products_are_of_rounded_factors() {
    let _alone = on_device::alone();
    let plain = MatMul::default();
    let all = MatMul { transpose_b: true, conj_a: true, conj_b: true };
    // One of everything, less than an instruction has, as much, more, and odd; an entry of several parts.
    let sizes = [
        ((1, 1), (2, 3), None, plain),
        ((1, 9), (5, 7), None, all),
        ((3, 4), (8, 16), None, plain),
        ((2, 11), (19, 33), Some(3), plain),
        ((3, 3), (32, 17), None, all),
    ];
    for dtype in [DType::F32, DType::C32] {
        for products in ROUNDED {
            let device = device_with(products);
            for ((steps, rows), (k, m), parts, how) in sizes {
                let (tape, _, y) = product(dtype, (k, m), parts, how);
                let mut values = Params::new();
                let entry: Vec<usize> = parts.into_iter().chain([k]).collect();
                let dims: Vec<usize> = [steps, rows].into_iter().chain(entry).collect();
                values.insert("x", numbers(dtype, &dims, 1));
                values.insert("w", numbers(dtype, &if how.transpose_b { [m, k] } else { [k, m] }, 2));
                let got = Program::new(&tape, &[y], on(&device, None)).unwrap().run(&[&values]).unwrap();

                let wide = if dtype.is_complex() { DType::C64 } else { DType::F64 };
                let (tape, _, y) = product(wide, (k, m), parts, how);
                let of_factors: Params =
                    values.iter().map(|(name, t)| (name.to_string(), factors(products, t))).collect();
                let mut exact = Program::new(&tape, &[y], RunOptions::default()).unwrap();
                let expected = narrow(&exact.run(&[&of_factors]).unwrap()[0], dtype);
                let found = ratio(&got[0], &expected);
                let what = format!("{products} {dtype} T {steps} N {rows} [{k}, {m}] {parts:?}");
                assert!(found < 4.0 + k as f64 / 4.0, "{what}: off by {found} roundings");
            }
        }
    }
}

/// A product before a scan, one in each of its steps, and their adjoints: near the exact results, as far off as rounding to
/// so few bits says, with the same bits within every budget.
#[test]
fn plans_change_no_bit() {
    let _alone = on_device::alone();
    // Of single precision, what rounding a factor to 10 or 7 bits of mantissa is.
    for (products, units) in [(Products::Tf32, (1 << 12) as f64), (Products::Bf16, (1 << 16) as f64)] {
        for (name, on_operator) in
            [("lstm", "dense"), ("gru", "lrd"), ("kru", "kron"), ("fc_urnn", "unitary")]
        {
            let set = Settings::new();
            let layer = Layer {
                cell: cell(name, &set).unwrap(),
                operator: operator(on_operator, &set).unwrap(),
                hidden: 8,
            };
            let loss = Loss::SoftmaxCrossEntropy;
            let mut spec = ModelSpec::new(Input::Dense(3), vec![layer], Readout::EveryStep, 5, loss);
            spec.dtype = DType::F32;
            let mut recorded = Model::new(spec).unwrap().record(5).unwrap();
            let wrt = recorded.trainable_vars();
            let bars = grad(&mut recorded.tape, recorded.loss, &wrt).unwrap();
            let outputs: Vec<Var> = std::iter::once(recorded.loss).chain(bars).collect();
            let mut values = std::mem::take(&mut recorded.params);
            let (steps, rows) = (11, 5);
            values.insert("x", numbers(DType::F32, &[steps, rows, 3], 1));
            let target: Vec<i32> = (0..steps * rows).map(|i| (i * 7 % 5) as i32).collect();
            values.insert("target", Tensor::from_slice([steps, rows], &target).unwrap());
            let device = device_with(products);
            let compared =
                compare_on(&device, &recorded.tape, &outputs, &values, (steps, rows), 40.0 * units);
            let what = format!("{name} on {on_operator}, {products}");
            let worst = compared.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(worst > units / 400.0, "{what}: nothing is rounded");
        }
    }
}

#[test]
fn what_is_not_asked_for_is_exact() {
    let _alone = on_device::alone();
    let run = |dtype: DType, products: Products| {
        let (mut tape, w, y) = product(dtype, (9, 5), None, MatMul::default());
        let square = ops::abs2(&mut tape, y).unwrap();
        let loss = sum_all(&mut tape, square).unwrap();
        // What is differentiated is real.
        let sum = if dtype.is_complex() { loss } else { sum_all(&mut tape, y).unwrap() };
        let (bar, of_sum) = (grad(&mut tape, loss, &[w]).unwrap()[0], grad(&mut tape, sum, &[w]).unwrap()[0]);
        let mut values = Params::new();
        values.insert("x", numbers(dtype, &[3, 4, 9], 1));
        values.insert("w", numbers(dtype, &[9, 5], 2));
        let device = device_with(products);
        Program::new(&tape, &[y, bar, of_sum], on(&device, None)).unwrap().run(&[&values]).unwrap()
    };
    for products in ROUNDED {
        for dtype in [DType::F64, DType::C64] {
            let (exact, asked) = (run(dtype, Products::Exact), run(dtype, products));
            assert!(exact.iter().zip(&asked).all(|(a, b)| a.bit_eq(b)), "{dtype}, {products}");
        }
        // The gradient of a matrix is exact: of a sum of results, whose cotangents are 1, to the bit; where cotangents
        // are of a rounded product, it is off as they are.
        let (exact, asked) = (run(DType::F32, Products::Exact), run(DType::F32, products));
        assert!(exact[2].bit_eq(&asked[2]));
        assert!(!exact[0].bit_eq(&asked[0]));
        assert!(ratio(&asked[1], &exact[1]) > 1.0);
    }
}

#[test]
#[ignore = "needs a CUDA device"]
fn all_of_it_on_a_device() {
    on_device::REAL.store(true, std::sync::atomic::Ordering::Relaxed);
    products_are_of_rounded_factors();
    plans_change_no_bit();
    what_is_not_asked_for_is_exact();
}
