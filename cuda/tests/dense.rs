//! Cells with full matrices, and the iRNN, against the same recurrences on the CPU, in double precision.

mod common;

use common::{Numbers, Outcome, Sequence, Step, compare, upload};
use retrograd_cuda::kernels::gru::Gru;
use retrograd_cuda::kernels::irnn::{Irnn, IrnnInputs, IrnnSpec, Phi};
use retrograd_cuda::kernels::kru::Activation;
use retrograd_cuda::kernels::lstm::Lstm;
use retrograd_cuda::kernels::rnn::{Rnn, RnnCotangents, RnnInputs};
use retrograd_cuda::{Error, Gpu};
use retrograd_engine::layout::{Layout, layout};
use retrograd_engine::{Tape, Var, matmul};
use retrograd_ops as ops;

type Recorded = Result<Var, retrograd_engine::Error>;

/// Sizes of a case, and what it leaves out.
#[derive(Clone, Copy)]
struct Case {
    steps: usize,
    rows: usize,
    hidden: usize,
    lengths: Option<&'static [i32]>,
    first: bool,
    every: bool,
    last: bool,
}

const CASE: Case = Case { steps: 4, rows: 3, hidden: 5, lengths: None, first: true, every: true, last: true };

/// Odd sizes, more results than threads, matrices that do not fit in shared memory, nothing to do.
fn cases() -> Vec<(&'static str, Case)> {
    vec![
        ("small", CASE),
        ("one state", Case { hidden: 1, ..CASE }),
        ("a warp and one", Case { hidden: 33, steps: 3, rows: 2, ..CASE }),
        ("no steps", Case { steps: 0, every: false, ..CASE }),
        ("one step, one row", Case { steps: 1, rows: 1, ..CASE }),
        ("last state only", Case { first: false, every: false, ..CASE }),
        ("every state only", Case { last: false, ..CASE }),
        ("lengths", Case { lengths: Some(&[2, 0, 4]), ..CASE }),
        ("many steps and rows", Case { steps: 35, rows: 31, hidden: 3, ..CASE }),
    ]
}

impl Case {
    fn sequence(&self, gates: usize, parts: usize) -> Sequence {
        let mut numbers = Numbers(11 + self.hidden as u64);
        let (h, state) = (self.hidden, self.rows * self.hidden);
        let scale = (3.0 / h as f32).sqrt();
        let w = numbers.take(h * gates * h, scale);
        Sequence {
            steps: self.steps,
            rows: self.rows,
            hidden: h,
            params: vec![("w", vec![h, gates * h], w)],
            ux: (gates * h, numbers.take(self.steps * self.rows * gates * h, 1.0)),
            of_steps: None,
            first: (0..parts).map(|_| self.first.then(|| numbers.take(state, 1.0))).collect(),
            lengths: self.lengths.map(<[i32]>::to_vec),
            h_bar: self.every.then(|| numbers.take(self.steps * state, 1.0)),
            last_bars: (0..parts).map(|_| self.last.then(|| numbers.take(state, 1.0))).collect(),
        }
    }

    /// Rounding of the products of every step and of the activations, in units.
    fn ratio(&self) -> f64 {
        (self.steps.max(1) * (self.hidden + 10)) as f64
    }
}

fn columns(tape: &mut Tape, x: Var, gate: usize, len: usize) -> Recorded {
    let axis = tape.shape(x)?.dims.len() - 1;
    layout(tape, x, Layout::Slice { axis, start: gate * len, len })
}

fn rnn(gpu: &Gpu, label: &str, case: Case, activation: Activation) -> Outcome {
    let s = case.sequence(1, 1);
    let expected = s.on_cpu(|tape, Step { state, ux, params, .. }| {
        let wh = matmul(tape, state[0], params[0])?;
        let a = ops::add(tape, wh, ux)?;
        Ok(vec![match activation {
            Activation::Relu => ops::relu(tape, a)?,
            Activation::LeakyRelu => ops::leaky_relu(tape, a, 0.1)?,
            _ => ops::tanh(tape, a)?,
        }])
    })?;
    let once = || -> Result<Vec<Vec<f32>>, Error> {
        let net = Rnn::new(gpu, s.hidden, activation)?;
        let (w, ux) = (gpu.upload(&s.params[0].2)?, gpu.upload(&s.ux.1)?);
        let h0 = upload(gpu, s.first[0].as_ref())?;
        let lengths = s.lengths.as_ref().map(|l| gpu.upload(l)).transpose()?;
        let inputs = RnnInputs { w: &w, ux: &ux, h0: h0.as_ref(), lengths: lengths.as_ref() };
        let (mut h, mut last) = (gpu.zeros(s.states())?, gpu.zeros(s.rows * s.hidden)?);
        net.forward(s.steps, s.rows, inputs, &mut h, &mut last)?;
        let (h_bar, last_bar) = (upload(gpu, s.h_bar.as_ref())?, upload(gpu, s.last_bars[0].as_ref())?);
        let bars = RnnCotangents { h_bar: h_bar.as_ref(), last_bar: last_bar.as_ref() };
        let mut out = net.gradients(s.steps, s.rows)?;
        net.backward(s.steps, s.rows, inputs, &h, bars, &mut out)?;
        [&h, &last, &out.ux_bar, &out.h0_bar, &out.w_bar].map(|b| b.download()).into_iter().collect()
    };
    let names = ["h", "last", "ux_bar", "h0_bar", "w_bar"];
    compare(label, &names, [once()?, once()?], &expected, case.ratio());
    Ok(())
}

fn gru(gpu: &Gpu, label: &str, case: Case) -> Outcome {
    let (s, len) = (case.sequence(3, 1), case.hidden);
    let expected = s.on_cpu(|tape, Step { state, ux, params, .. }| {
        let (h, w) = (state[0], params[0]);
        let mut gates = Vec::new();
        for g in 0..2 {
            let block = columns(tape, w, g, len)?;
            let (wh, u) = (matmul(tape, h, block)?, columns(tape, ux, g, len)?);
            let a = ops::add(tape, wh, u)?;
            gates.push(ops::sigmoid(tape, a)?);
        }
        let rh = ops::mul(tape, gates[0], h)?;
        let block = columns(tape, w, 2, len)?;
        let (wn, u) = (matmul(tape, rh, block)?, columns(tape, ux, 2, len)?);
        let n = ops::add(tape, wn, u)?;
        let n = ops::tanh(tape, n)?;
        let change = ops::sub(tape, h, n)?;
        let kept = ops::mul(tape, gates[1], change)?;
        Ok(vec![ops::add(tape, n, kept)?])
    })?;
    let once = || -> Result<Vec<Vec<f32>>, Error> {
        let net = Gru::new(gpu, s.hidden)?;
        let (w, ux) = (gpu.upload(&s.params[0].2)?, gpu.upload(&s.ux.1)?);
        let h0 = upload(gpu, s.first[0].as_ref())?;
        let lengths = s.lengths.as_ref().map(|l| gpu.upload(l)).transpose()?;
        let inputs = RnnInputs { w: &w, ux: &ux, h0: h0.as_ref(), lengths: lengths.as_ref() };
        let (mut h, mut last) = (gpu.zeros(s.states())?, gpu.zeros(s.rows * s.hidden)?);
        net.forward(s.steps, s.rows, inputs, &mut h, &mut last)?;
        let (h_bar, last_bar) = (upload(gpu, s.h_bar.as_ref())?, upload(gpu, s.last_bars[0].as_ref())?);
        let bars = RnnCotangents { h_bar: h_bar.as_ref(), last_bar: last_bar.as_ref() };
        let mut out = net.gradients(s.steps, s.rows)?;
        net.backward(s.steps, s.rows, inputs, &h, bars, &mut out)?;
        [&h, &last, &out.ux_bar, &out.h0_bar, &out.w_bar].map(|b| b.download()).into_iter().collect()
    };
    let names = ["h", "last", "ux_bar", "h0_bar", "w_bar"];
    compare(label, &names, [once()?, once()?], &expected, 2.0 * case.ratio());
    Ok(())
}

fn lstm(gpu: &Gpu, label: &str, case: Case) -> Outcome {
    let (s, len) = (case.sequence(4, 2), case.hidden);
    let expected = s.on_cpu(|tape, Step { state, ux, params, .. }| {
        let wh = matmul(tape, state[0], params[0])?;
        let a = ops::add(tape, wh, ux)?;
        let mut gates = Vec::new();
        for g in 0..4 {
            let a = columns(tape, a, g, len)?;
            gates.push(if g == 2 { ops::tanh(tape, a)? } else { ops::sigmoid(tape, a)? });
        }
        let (kept, new) = (ops::mul(tape, gates[1], state[1])?, ops::mul(tape, gates[0], gates[2])?);
        let c = ops::add(tape, kept, new)?;
        let squashed = ops::tanh(tape, c)?;
        Ok(vec![ops::mul(tape, gates[3], squashed)?, c])
    })?;
    let once = || -> Result<Vec<Vec<f32>>, Error> {
        let net = Lstm::new(gpu, s.hidden)?;
        let (w, ux) = (gpu.upload(&s.params[0].2)?, gpu.upload(&s.ux.1)?);
        let (h0, c0) = (upload(gpu, s.first[0].as_ref())?, upload(gpu, s.first[1].as_ref())?);
        let lengths = s.lengths.as_ref().map(|l| gpu.upload(l)).transpose()?;
        let inputs = RnnInputs { w: &w, ux: &ux, h0: h0.as_ref(), lengths: lengths.as_ref() };
        let mut states = net.states(s.steps, s.rows)?;
        net.forward(s.steps, s.rows, inputs, c0.as_ref(), &mut states)?;
        let (h_bar, last_bar) = (upload(gpu, s.h_bar.as_ref())?, upload(gpu, s.last_bars[0].as_ref())?);
        let last_c_bar = upload(gpu, s.last_bars[1].as_ref())?;
        let bars = RnnCotangents { h_bar: h_bar.as_ref(), last_bar: last_bar.as_ref() };
        let mut out = net.gradients(s.steps, s.rows)?;
        let bars = (bars, last_c_bar.as_ref());
        net.backward(s.steps, s.rows, (inputs, c0.as_ref()), &states, bars, &mut out)?;
        [&states.h, &states.last, &states.last_c, &out.ux_bar, &out.h0_bar, &out.c0_bar, &out.w_bar]
            .map(|b| b.download())
            .into_iter()
            .collect()
    };
    let names = ["h", "last", "last_c", "ux_bar", "h0_bar", "c0_bar", "w_bar"];
    compare(label, &names, [once()?, once()?], &expected, 2.0 * case.ratio());
    Ok(())
}

/// The iRNN. `shared`: one row of step sizes for all steps.
fn irnn(gpu: &Gpu, label: &str, case: Case, spec: IrnnSpec, shared: bool) -> Outcome {
    let mut s = case.sequence(1, 1);
    let (h, k) = (case.hidden, spec.inner);
    let mut numbers = Numbers(5);
    if let Some(d) = spec.rank {
        let (a, b) = (numbers.take(h * d, 0.3), numbers.take(d * h, 0.3));
        s.params = vec![("a", vec![h, d], a), ("b", vec![d, h], b)];
    }
    let rows = if shared { 1 } else { s.steps.max(1) };
    let eta: Vec<f32> = numbers.take(rows * k, 0.2).iter().map(|v| v + 0.4).collect();
    let tiled: Vec<f32> = (0..s.steps * k).map(|i| eta[i % (rows * k)]).collect();
    s.of_steps = Some((k, tiled));
    let alpha = f64::from(spec.alpha);
    let expected = s.on_cpu(|tape, Step { state, ux, of_step, params }| {
        let (h, eta) = (state[0], of_step.unwrap_or(ux));
        let mut g = match spec.from_zero {
            true => ops::scale(tape, h, 0.0)?,
            false => h,
        };
        for k in 0..k {
            let sum = ops::add(tape, g, h)?;
            let z = match params {
                [a, b] => {
                    let thin = matmul(tape, sum, *a)?;
                    let wide = matmul(tape, thin, *b)?;
                    ops::add(tape, sum, wide)?
                }
                _ => matmul(tape, sum, params[0])?,
            };
            let z = ops::add(tape, z, ux)?;
            let phi = match spec.phi {
                Phi::Tanh => ops::tanh(tape, z)?,
                Phi::Relu => ops::relu(tape, z)?,
                Phi::Sigmoid => ops::sigmoid(tape, z)?,
            };
            let decay = ops::scale(tape, sum, alpha)?;
            let slope = ops::sub(tape, phi, decay)?;
            let size = columns(tape, eta, k, 1)?;
            let change = ops::mul(tape, size, slope)?;
            g = ops::add(tape, g, change)?;
        }
        Ok(vec![g])
    })?;
    // The gradients of A and B as one list, as the kernel has the matrices.
    let mut expected = expected;
    if spec.rank.is_some() {
        let tail = expected.split_off(5);
        let all: Vec<_> = tail.iter().flat_map(|t| (0..t.len()).map(|i| t.get(i))).collect();
        let mut joined = retrograd_engine::Tensor::zeros(retrograd_engine::DType::F64, [all.len()])?;
        joined.fill_with(|i| all[i]);
        expected.push(joined);
    }
    let once = || -> Result<Vec<Vec<f32>>, Error> {
        let net = Irnn::new(gpu, spec)?;
        let w: Vec<f32> = s.params.iter().flat_map(|p| p.2.clone()).collect();
        let (w, ux, eta) = (gpu.upload(&w)?, gpu.upload(&s.ux.1)?, gpu.upload(&eta)?);
        let h0 = upload(gpu, s.first[0].as_ref())?;
        let lengths = s.lengths.as_ref().map(|l| gpu.upload(l)).transpose()?;
        let inputs = IrnnInputs { w: &w, eta: &eta, ux: &ux, h0: h0.as_ref(), lengths: lengths.as_ref() };
        let (mut h, mut last) = (gpu.zeros(s.states())?, gpu.zeros(s.rows * s.hidden)?);
        net.forward(s.steps, s.rows, inputs, &mut h, &mut last)?;
        let (h_bar, last_bar) = (upload(gpu, s.h_bar.as_ref())?, upload(gpu, s.last_bars[0].as_ref())?);
        let bars = RnnCotangents { h_bar: h_bar.as_ref(), last_bar: last_bar.as_ref() };
        let mut out = net.gradients(s.steps, s.rows)?;
        net.backward(s.steps, s.rows, inputs, &h, bars, &mut out)?;
        [&h, &last, &out.ux_bar, &out.eta_bar, &out.h0_bar, &out.w_bar]
            .map(|b| b.download())
            .into_iter()
            .collect()
    };
    let names = ["h", "last", "ux_bar", "eta_bar", "h0_bar", "w_bar"];
    compare(label, &names, [once()?, once()?], &expected, (k + 1) as f64 * case.ratio());
    Ok(())
}

const SPEC: IrnnSpec =
    IrnnSpec { hidden: 5, rank: None, inner: 3, alpha: 1.0, phi: Phi::Relu, from_zero: false };

/// Each network on each case.
fn all(gpu: &Gpu) -> Outcome {
    for (label, case) in cases() {
        rnn(gpu, &format!("rnn, {label}"), case, Activation::Tanh)?;
        gru(gpu, &format!("gru, {label}"), case)?;
        lstm(gpu, &format!("lstm, {label}"), case)?;
        let spec = IrnnSpec { hidden: case.hidden, ..SPEC };
        irnn(gpu, &format!("irnn, {label}"), case, spec, false)?;
        let spec = IrnnSpec { rank: Some(2), phi: Phi::Tanh, alpha: 0.7, ..spec };
        irnn(gpu, &format!("thin irnn, {label}"), case, spec, true)?;
    }
    rnn(gpu, "rectifier", CASE, Activation::Relu)?;
    rnn(gpu, "leaky rectifier", CASE, Activation::LeakyRelu)?;
    irnn(gpu, "from zero", CASE, IrnnSpec { from_zero: true, phi: Phi::Sigmoid, ..SPEC }, true)?;
    irnn(gpu, "one inner step", CASE, IrnnSpec { inner: 1, phi: Phi::Tanh, ..SPEC }, false)?;
    irnn(gpu, "rank above size", CASE, IrnnSpec { rank: Some(40), ..SPEC }, false)
}

/// Matrices that do not fit in shared memory and are read where they lie; more results than threads.
fn large(gpu: &Gpu, hidden: usize) -> Outcome {
    let case = Case { hidden, steps: 2, rows: 2, ..CASE };
    rnn(gpu, "large rnn", case, Activation::Tanh)?;
    gru(gpu, "large gru", case)?;
    lstm(gpu, "large lstm", case)?;
    irnn(gpu, "large irnn", case, IrnnSpec { hidden, inner: 2, ..SPEC }, false)?;
    irnn(gpu, "large thin irnn", case, IrnnSpec { hidden, inner: 2, rank: Some(9), ..SPEC }, true)
}

#[test]
fn agree_with_the_cpu_on_the_emulated_device() -> Outcome {
    all(&Gpu::emulated())
}

#[test]
fn agree_where_matrices_do_not_fit_in_shared_memory() -> Outcome {
    large(&Gpu::emulated_with(6 << 10), 37)?;
    // 4·131 results for 512 threads.
    lstm(&Gpu::emulated_with(16 << 10), "many gates", Case { hidden: 131, steps: 1, rows: 1, ..CASE })
}

#[test]
#[ignore = "needs a CUDA device"]
fn agree_on_a_device_where_matrices_do_not_fit_in_shared_memory() -> Outcome {
    large(&Gpu::open(0)?, 601)
}

#[test]
#[ignore = "needs a CUDA device"]
fn agree_with_the_cpu_on_a_device() -> Outcome {
    all(&Gpu::open(0)?)
}

#[test]
fn wrong_sizes_are_named() -> Outcome {
    let gpu = Gpu::emulated();
    let net = Lstm::new(&gpu, 3)?;
    let (w, ux) = (gpu.zeros::<f32>(35)?, gpu.zeros::<f32>(2 * 12)?);
    let mut states = net.states(2, 1)?;
    let inputs = RnnInputs { w: &w, ux: &ux, h0: None, lengths: None };
    let message = net.forward(2, 1, inputs, None, &mut states).map_err(|e| e.to_string());
    assert_eq!(message, Err("lstm_forward_shared: w [H,G·H]=3x12 has 35 elements, expected 36".to_owned()));
    let message = Gru::new(&gpu, 0).map(|_| ()).map_err(|e| e.to_string());
    assert_eq!(message, Err("gru: hidden size is 0, 1 to 32768".to_owned()));
    let message = Rnn::new(&gpu, 4, Activation::Exact).map(|_| ()).map_err(|e| e.to_string());
    assert_eq!(message, Err("rnn: activation is Exact, one of real numbers".to_owned()));
    let message = Irnn::new(&gpu, IrnnSpec { inner: 0, ..SPEC }).map(|_| ()).map_err(|e| e.to_string());
    assert_eq!(message, Err("irnn: number of inner steps is 0, 1 to 4096".to_owned()));
    Ok(())
}
