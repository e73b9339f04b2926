//! Exact products: inside a loop, where the threads of a block share their terms, and outside, where they do not, a product
//! has the same bits, whatever room there is; and it is the processor's within rounding.
#![allow(clippy::unwrap_used, clippy::panic)]

mod on_device;

use std::sync::Arc;

use on_device::{compare_on, numbers, on, ratio, sum_all};
use retrograd_cuda::Gpu;
use retrograd_engine::core_ops::add;
use retrograd_engine::device::Device;
use retrograd_engine::matmul::{MatMul, matmul_with};
use retrograd_engine::{DType, Params, Program, Shape, Tape, Tensor, Var, grad, matmul, scan};
use retrograd_ops as ops;

fn scaled(mut t: Tensor, by: f64) -> Tensor {
    let copy = t.clone();
    t.fill_with(|i| copy.get(i) * by);
    t
}

/// `z_t = h_{t−1} W`, `h_t = z_t V + x_t`, with factors conjugated. Outputs: `z` of every step, and `h_0 W` by itself.
fn chain(dtype: DType, (k, m): (usize, usize), (steps, rows): (usize, usize)) -> (Tape, Vec<Var>, Params) {
    let (mut tape, mut values) = (Tape::new(), Params::new());
    let t = &mut tape;
    let how = MatMul { conj_a: true, conj_b: true, ..MatMul::default() };
    let w = t.param("w", dtype, [k, m]).unwrap();
    let v = t.param("v", dtype, [m, k]).unwrap();
    let h0 = t.input("h0", dtype, Shape::rows([k])).unwrap();
    let x = t.input("x", dtype, Shape::sequence([k])).unwrap();
    let (_, z) = scan(t, h0, x, |t, h, x| {
        let z = matmul_with(t, h, w, how)?;
        let h = matmul(t, z, v)?;
        Ok((add(t, h, x)?, z))
    })
    .unwrap();
    let first = matmul_with(t, h0, w, how).unwrap();
    values.insert("w", scaled(numbers(dtype, &[k, m], 1), 1.0 / (k as f64).sqrt()));
    values.insert("v", scaled(numbers(dtype, &[m, k], 2), 1.0 / (m as f64).sqrt()));
    values.insert("h0", numbers(dtype, &[rows, k], 3));
    values.insert("x", numbers(dtype, &[steps, rows, k], 4));
    (tape, vec![z, first], values)
}

/// Numbers of terms below, at and beyond those with more classes, most of them no multiple of a run; rows that do not fill
/// a tile; room for all panels, for a few terms at a time, for none; one block, and teams.
#[test]
fn in_a_loop_and_outside() {
    let _alone = on_device::alone();
    for (dtype, sizes) in [
        (DType::F32, &[(5, 7), (16, 70), (33, 9), (131, 20), (20, 300)][..]),
        (DType::F64, &[(70, 33), (18, 131)]),
        (DType::C32, &[(67, 18), (9, 40)]),
        (DType::C64, &[(35, 65)]),
    ] {
        for &(k, m) in sizes {
            let mut first: Option<Vec<u8>> = None;
            for (shared, multiprocessors) in
                [(227 << 10, 1), (12 << 10, 1), (12 << 10, 16), (2 << 10, 1), (64, 1)]
            {
                for rows in [1, 3, 9] {
                    let device = Arc::new(Gpu::emulated_as(shared, multiprocessors)) as Arc<dyn Device>;
                    let (tape, outputs, values) = chain(dtype, (k, m), (2, rows));
                    let what =
                        format!("{dtype} [{k}, {m}], {rows} rows, {shared} bytes, {multiprocessors} blocks");
                    let got =
                        Program::new(&tape, &outputs, on(&device, None)).unwrap().run(&[&values]).unwrap();
                    let [inside, outside] = [&got[0], &got[1]];
                    let step = outside.as_bytes().len();
                    assert!(
                        inside.as_bytes()[..step] == *outside.as_bytes(),
                        "{what}: other bits in the loop"
                    );
                    // The numbers of a row do not depend on how many rows there are.
                    let row = outside.as_bytes()[..step / rows].to_vec();
                    if rows == 1 && first.is_none() {
                        first = Some(inside.as_bytes().to_vec());
                    }
                    assert!(
                        first.as_ref().is_some_and(|f| f[..row.len()] == row),
                        "{what}: another first row"
                    );
                    let mut here = Program::new(&tape, &outputs, Default::default()).unwrap();
                    let expected = here.run(&[&values]).unwrap();
                    let off = ratio(inside, &expected[0]);
                    assert!(off < 30.0, "{what}: off by {off} roundings");
                }
            }
        }
    }
}

/// Gradients through products of many terms, under every budget.
#[test]
fn adjoints_of_many_terms() {
    let _alone = on_device::alone();
    for (dtype, shared, multiprocessors) in
        [(DType::F32, 227 << 10, 1), (DType::F64, 24 << 10, 8), (DType::C64, 227 << 10, 1)]
    {
        let (mut tape, outputs, values) = chain(dtype, (37, 66), (13, 6));
        let square = ops::abs2(&mut tape, outputs[0]).unwrap();
        let loss = sum_all(&mut tape, square).unwrap();
        let wrt: Vec<Var> = tape.params().map(|(_, var, _)| var).collect();
        let outputs: Vec<Var> = std::iter::once(loss).chain(grad(&mut tape, loss, &wrt).unwrap()).collect();
        let device = Arc::new(Gpu::emulated_as(shared, multiprocessors)) as Arc<dyn Device>;
        compare_on(&device, &tape, &outputs, &values, (13, 6), 300.0)
            .unwrap_or_else(|e| panic!("{dtype}: {e}"));
    }
}

#[test]
#[ignore = "needs a CUDA device"]
fn on_a_device() {
    let _alone = on_device::alone();
    let device: Arc<dyn Device> = Arc::new(Gpu::open(0).unwrap());
    for dtype in [DType::F32, DType::F64, DType::C32, DType::C64] {
        for (k, m, rows) in [(67, 300, 9), (128, 128, 3), (512, 96, 70)] {
            let (tape, outputs, values) = chain(dtype, (k, m), (3, rows));
            let got = Program::new(&tape, &outputs, on(&device, None)).unwrap().run(&[&values]).unwrap();
            let [inside, outside] = [&got[0], &got[1]];
            let same = inside.as_bytes().starts_with(outside.as_bytes());
            assert!(same, "{dtype} [{k}, {m}], {rows} rows: other bits in the loop");
            compare_on(&device, &tape, &outputs, &values, (3, rows), 100.0)
                .unwrap_or_else(|e| panic!("{dtype} [{k}, {m}], {rows} rows: {e}"));
        }
    }
}
