//! A recurrent step in a few plain lines: recorded once, differentiated once, run for any number of steps and rows.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```

use retrograd::optim::{Settings, optimizer};
use retrograd::{DType, Params, Program, Result, RunOptions, Shape, Tape, Tensor, grad, matmul, ops, scan};

/// A plain generator of numbers (Knuth's linear congruence); the upper bits are good enough here.
fn random(seed: &mut u64) -> f32 {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*seed >> 40) as f32 / (1 << 24) as f32
}

/// Sequences of zeros and ones; how many ones were there?
fn batch(steps: usize, rows: usize, seed: &mut u64) -> Result<Params> {
    let (mut x, mut y) = (vec![0f32; steps * rows], vec![0f32; rows]);
    for (i, bit) in x.iter_mut().enumerate() {
        *bit = random(seed).round();
        y[i % rows] += *bit / steps as f32;
    }
    let mut inputs = Params::new();
    inputs.insert("x", Tensor::from_slice([steps, rows, 1], &x)?);
    inputs.insert("y", Tensor::from_slice([rows, 1], &y)?);
    Ok(inputs)
}

fn main() -> Result<()> {
    // Record: nothing is computed yet, and T and N are open.
    let mut tape = Tape::new();
    let u = tape.param("u", DType::F32, [1, 16])?;
    let w = tape.param("w", DType::F32, [16, 16])?;
    let v = tape.param("v", DType::F32, [16, 1])?;
    let h0 = tape.param("h0", DType::F32, [16])?;
    let x = tape.input("x", DType::F32, Shape::sequence([1]))?;
    let y = tape.input("y", DType::F32, Shape::rows([1]))?;
    let (last, _) = scan(&mut tape, h0, x, |tape, h, x| {
        let wh = matmul(tape, h, w)?;
        let ux = matmul(tape, x, u)?;
        let a = ops::add(tape, wh, ux)?;
        Ok((ops::tanh(tape, a)?, ()))
    })?;
    let out = matmul(&mut tape, last, v)?;
    let errors = ops::squared_error(&mut tape, out, y)?;
    let loss = ops::mean_all(&mut tape, errors)?;
    let gradients = grad(&mut tape, loss, &[u, w, v, h0])?;

    // Plan: within 256 KiB, whatever T is.
    let outputs: Vec<_> = std::iter::once(loss).chain(gradients).collect();
    let options = RunOptions { budget: Some(256 << 10), ..RunOptions::default() };
    let mut program = Program::new(&tape, &outputs, options)?;

    // Replay.
    let names = ["u", "w", "v", "h0"];
    let mut params = Params::new();
    let mut seed = 1;
    for (name, dims) in names.into_iter().zip([&[1, 16][..], &[16, 16], &[16, 1], &[16]]) {
        let mut tensor = Tensor::zeros(DType::F32, dims)?;
        tensor.as_mut_slice::<f32>()?.fill_with(|| random(&mut seed) * 0.5 - 0.25);
        params.insert(name, tensor);
    }
    let adam = optimizer("adam", &Settings::parse(["lr=3e-3"])?)?;
    let mut state = adam.init(&params)?;
    for step in 1..=600 {
        let inputs = batch(10 + step % 20, 32, &mut seed)?; // another length each time, the same program
        let mut out = program.run(&[&params, &inputs])?.into_iter();
        let loss = out.next().map_or(Ok(f64::NAN), |t| t.item())?;
        let grads = names.iter().map(|n| n.to_string()).zip(out).collect();
        adam.update(&grads, &mut state, &mut params, 1.0)?;
        if step % 100 == 0 {
            println!("step {step}   mse {loss:.5}   peak {} bytes", program.last_peak_bytes());
        }
    }
    println!("\n{}", program.plan(1000, 32)?.explain());
    Ok(())
}
