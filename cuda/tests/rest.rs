//! Products, sums, softmax cross-entropy and Adam, against the same on the CPU in double precision; and what a step of a
//! whole-sequence kernel may cost.

mod common;

use common::{Numbers, Outcome, agree, run, same_bits, tensor};
use retrograd_cuda::kernels::adam::{Adam, AdamSettings};
use retrograd_cuda::kernels::kru::{Activation, Kru, KruCotangents, KruInputs};
use retrograd_cuda::kernels::matmul::{Matrix, matmul};
use retrograd_cuda::kernels::reduce::sum_rows;
use retrograd_cuda::kernels::softmax::{Classes, softmax_cross_entropy};
use retrograd_cuda::{Error, Gpu};
use retrograd_engine::{DType, Params, Shape, Tape, Tensor, grad};
use retrograd_ops as ops;

/// `a b`, `aᵀ b`, `a bᵀ`, `aᵀ bᵀ` for matrices that are blocks of columns of wider ones.
fn products(gpu: &Gpu) -> Outcome {
    let mut numbers = Numbers(3);
    for (m, n, k) in [(1, 1, 1), (5, 3, 7), (65, 66, 17), (64, 64, 16), (2, 130, 33), (3, 2, 0)] {
        for (a_across, b_across) in [(false, false), (true, false), (false, true), (true, true)] {
            let what = format!("[{m},{k}] by [{k},{n}], across {a_across} {b_across}");
            let (a_rows, a_columns) = if a_across { (k, m) } else { (m, k) };
            let (b_rows, b_columns) = if b_across { (n, k) } else { (k, n) };
            let a = numbers.take(a_rows * (a_columns + 2), 1.0);
            let b = numbers.take(b_rows * (b_columns + 1), 1.0);
            let bias = numbers.take(n, 1.0);
            let at = |values: &[f32], stride: usize, skip: usize, across: bool, i: usize, j: usize| {
                let (row, column) = if across { (j, i) } else { (i, j) };
                f64::from(values[row * stride + skip + column])
            };
            let mut expected = Vec::new();
            for i in 0..m {
                for j in 0..n {
                    let term = |k| {
                        at(&a, a_columns + 2, 1, a_across, i, k) * at(&b, b_columns + 1, 1, b_across, k, j)
                    };
                    expected.push((0..k).map(term).sum::<f64>() + f64::from(bias[j]));
                }
            }
            let expected = Tensor::from_slice([m, n], &expected)?;
            let once = || -> Result<Vec<f32>, Error> {
                let (a, b, bias) = (gpu.upload(&a)?, gpu.upload(&b)?, gpu.upload(&bias)?);
                let mut c = gpu.zeros(m * n)?;
                let a = Matrix::new(&a, a_rows, a_columns + 2).columns(1, a_columns);
                let b = Matrix::new(&b, b_rows, b_columns + 1).columns(1, b_columns);
                let a = if a_across { a.transposed() } else { a };
                let b = if b_across { b.transposed() } else { b };
                matmul(gpu, a, b, Some(&bias), &mut c)?;
                c.download()
            };
            let got = once()?;
            agree(&what, &got, &expected, 2.0 + k as f64);
            same_bits(&what, &got, &once()?);
        }
    }
    Ok(())
}

fn sums(gpu: &Gpu) -> Outcome {
    for (rows, columns) in [(1, 1), (3, 5), (128, 2), (300, 7), (0, 4)] {
        let values = Numbers(9).take(rows * columns, 1.0);
        let mut expected = vec![0.0f64; columns];
        for (i, v) in values.iter().enumerate() {
            expected[i % columns] += f64::from(*v);
        }
        let partial = gpu.upload(&values)?;
        let mut out = gpu.zeros(columns)?;
        sum_rows(gpu, rows, &partial, &mut out)?;
        let expected = Tensor::from_slice([columns], &expected)?;
        agree(&format!("sum of {rows} rows"), &out.download()?, &expected, 16.0);
    }
    Ok(())
}

fn losses(gpu: &Gpu) -> Outcome {
    for (rows, outputs) in [(1, 1), (7, 10), (4, 32), (5, 33), (3, 100)] {
        let mut numbers = Numbers(rows as u64);
        let logits = numbers.take(rows * outputs, 30.0);
        let targets: Vec<i32> = (0..rows).map(|r| (r * 7 % outputs) as i32).collect();
        let mut weights = numbers.take(rows, 1.0);
        weights[rows / 2] = if rows > 1 { 0.0 } else { 0.5 };
        let mut tape = Tape::new();
        let x = tape.input("x", DType::F64, Shape::rows([outputs]))?;
        let t = tape.input("t", DType::I32, Shape::rows([]))?;
        let w = tape.input("w", DType::F64, Shape::rows([]))?;
        let loss = ops::softmax_cross_entropy(&mut tape, x, t, Some(w))?;
        let sum = ops::sum_all(&mut tape, loss)?;
        let x_bar = grad(&mut tape, sum, &[x])?[0];
        let x_bar = ops::scale(&mut tape, x_bar, 0.25)?;
        let mut values = Params::new();
        values.insert("x", tensor(&logits, &[rows, outputs], false)?);
        values.insert("t", Tensor::from_slice([rows], &targets)?);
        values.insert("w", tensor(&weights, &[rows], false)?);
        let expected = run(&tape, &[loss, x_bar], &values)?;
        let (logits, targets) = (gpu.upload(&logits)?, gpu.upload(&targets)?);
        let weights = gpu.upload(&weights)?;
        let classes = Classes { logits: &logits, targets: &targets, weights: Some(&weights) };
        let (mut loss, mut bar) = (gpu.zeros(rows)?, gpu.zeros(rows * outputs)?);
        softmax_cross_entropy(gpu, classes, &mut loss, Some(&mut bar), 0.25)?;
        agree("loss", &loss.download()?, &expected[0], 16.0);
        agree("logits_bar", &bar.download()?, &expected[1], 64.0);
    }
    // A class that does not exist, with and without weight.
    let (logits, targets) = (gpu.zeros(2 * 3)?, gpu.upload(&[3, -1])?);
    let weights = gpu.upload(&[1.0, 0.0])?;
    let classes = Classes { logits: &logits, targets: &targets, weights: Some(&weights) };
    let mut loss = gpu.zeros(2)?;
    softmax_cross_entropy(gpu, classes, &mut loss, None, 1.0)?;
    let loss = loss.download()?;
    assert!(loss[0].is_nan() && loss[1] == 0.0, "{loss:?}");
    Ok(())
}

/// Against the formula in the documentation of `retrograd_optim::Adam`, in double precision.
fn updates(gpu: &Gpu) -> Outcome {
    for decoupled in [false, true] {
        let settings = AdamSettings { lr: 0.01, weight_decay: 0.1, decoupled, ..AdamSettings::default() };
        let lengths = [3, 0, 300, 1];
        let mut numbers = Numbers(4);
        let first: Vec<Vec<f32>> = lengths.iter().map(|n| numbers.take(*n, 1.0)).collect();
        let mut theta: Vec<f64> = first.concat().iter().map(|x| f64::from(*x)).collect();
        let (mut m, mut v) = (vec![0.0; theta.len()], vec![0.0; theta.len()]);
        let mut buffers = first.iter().map(|x| gpu.upload(x)).collect::<Result<Vec<_>, _>>()?;
        let mut adam = Adam::new(gpu, &lengths)?;
        for t in 1..=3 {
            let grads: Vec<Vec<f32>> = lengths.iter().map(|n| numbers.take(*n, 1.0)).collect();
            let (c1, c2) = (1.0 - settings.beta1.powi(t), 1.0 - settings.beta2.powi(t));
            for (i, g) in grads.concat().iter().enumerate() {
                let decay = settings.weight_decay * theta[i];
                let g = f64::from(*g) + if decoupled { 0.0 } else { decay };
                m[i] = settings.beta1 * m[i] + (1.0 - settings.beta1) * g;
                v[i] = settings.beta2 * v[i] + (1.0 - settings.beta2) * g * g;
                let step: f64 = m[i] / c1 / (f64::sqrt(v[i] / c2) + settings.eps);
                theta[i] -= settings.lr * (step + if decoupled { decay } else { 0.0 });
            }
            let grads = grads.iter().map(|g| gpu.upload(g)).collect::<Result<Vec<_>, _>>()?;
            let mut params: Vec<_> = buffers.iter_mut().collect();
            adam.update(settings, &mut params, &grads.iter().collect::<Vec<_>>())?;
        }
        let got = buffers.iter().map(|b| b.download()).collect::<Result<Vec<_>, _>>()?.concat();
        agree("parameters", &got, &Tensor::from_slice([theta.len()], &theta)?, 4.0);
        assert_eq!(adam.updates(), 3);
    }
    Ok(())
}

#[test]
fn products_in_a_fixed_order() -> Outcome {
    products(&Gpu::emulated())
}

#[test]
fn sums_of_rows() -> Outcome {
    sums(&Gpu::emulated())
}

#[test]
fn softmax_cross_entropies() -> Outcome {
    losses(&Gpu::emulated())
}

#[test]
fn adam_updates() -> Outcome {
    updates(&Gpu::emulated())
}

#[test]
#[ignore = "needs a CUDA device"]
fn all_of_it_on_a_device() -> Outcome {
    let gpu = Gpu::open(0)?;
    products(&gpu)?;
    sums(&gpu)?;
    losses(&gpu)?;
    updates(&gpu)
}

#[test]
fn wrong_sizes_are_named() -> Outcome {
    let gpu = Gpu::emulated();
    let (a, b, mut c) = (gpu.zeros(6)?, gpu.zeros(8)?, gpu.zeros(4)?);
    let product = matmul(&gpu, Matrix::new(&a, 2, 3), Matrix::new(&b, 4, 2), None, &mut c);
    let expected = "matmul: b [K,N] is [4,2], as many rows as a [M,K]=[2,3] has columns";
    assert_eq!(product.map_err(|e| e.to_string()), Err(expected.to_owned()));
    let product = matmul(&gpu, Matrix::new(&a, 2, 3).columns(2, 3), Matrix::new(&b, 3, 2), None, &mut c);
    let expected = "matmul: a [M,K]=8 has 6 elements, expected 8";
    assert_eq!(product.map_err(|e| e.to_string()), Err(expected.to_owned()));
    let mut adam = Adam::new(&gpu, &[6])?;
    let update = adam.update(AdamSettings::default(), &mut [], &[&a]);
    assert_eq!(
        update.map_err(|e| e.to_string()),
        Err("adam: number of parameters is 0, expected 1".to_owned())
    );
    Ok(())
}

/// Instructions are exact where time is not. A thread of the chain of nine has 8 of 512 elements: 9 factors take 9·8·8/8
/// = 72 fused multiply-adds an element and step forward; exchanges, activation and addresses may take as much again, and
/// the backward pass has three and a half times the arithmetic (the products again, within rounds once more, two
/// adjoints).
#[test]
fn a_step_of_the_chain_costs_what_it_should() -> Outcome {
    let gpu = Gpu::emulated();
    let unit = Kru::new(&gpu, &[2; 9], Activation::Exact)?;
    let (factors, b) = (gpu.upload(&vec![0.5f32; 72])?, gpu.zeros::<f32>(512)?);
    let mut cost = [Vec::new(), Vec::new()];
    for steps in [1, 3] {
        let ux = gpu.upload(&vec![0.1f32; steps * 1024])?;
        let inputs = KruInputs { factors: &factors, ux: &ux, b: Some(&b), h0: None, lengths: None };
        let (mut h, mut last) = (gpu.zeros(steps * 1024)?, gpu.zeros(1024)?);
        let count = || gpu.instructions().ok_or("instructions are not counted");
        let before = count()?;
        unit.forward(steps, 1, inputs, &mut h, &mut last)?;
        cost[0].push(count()? - before);
        let bars = KruCotangents { h_bar: None, last_bar: Some(&last) };
        let (mut out, before) = (unit.gradients(steps, 1)?, count()?);
        unit.backward(steps, 1, inputs, &h, bars, &mut out)?;
        cost[1].push(count()? - before);
    }
    let [forward, backward] = cost.map(|c| (c[1] - c[0]) / 2 / 512);
    assert!((72..=220).contains(&forward), "{forward} instructions an element and step forward");
    assert!((252..=600).contains(&backward), "{backward} instructions an element and step backward");
    Ok(())
}
