//! The KRU kernels against the same recurrence on the CPU, in double precision.

mod common;

use common::{Numbers, Outcome, agree, double, run, same_bits, tensor, upload};
use retrograd_cuda::Gpu;
use retrograd_cuda::kernels::kru::{Activation, Kru, KruCotangents, KruInputs};
use retrograd_engine::{Params, Scan, Shape, Tape, Tensor, Var, grad};
use retrograd_ops::{self as ops, ModReluForm};

/// What is given to both.
struct Case {
    factors: &'static [usize],
    activation: Activation,
    steps: usize,
    rows: usize,
    lengths: Option<&'static [i32]>,
    first_state: bool,
    every_state: bool,
    last_state: bool,
    /// Whether the kernels for any factors are to be used in any case.
    general: bool,
}

const CASE: Case = Case {
    factors: &[2, 3],
    activation: Activation::Exact,
    steps: 4,
    rows: 3,
    lengths: None,
    first_state: true,
    every_state: true,
    last_state: true,
    general: false,
};

struct Values {
    factors: Vec<f32>,
    ux: Vec<f32>,
    b: Option<Vec<f32>>,
    h0: Option<Vec<f32>>,
    h_bar: Option<Vec<f32>>,
    last_bar: Option<Vec<f32>>,
}

impl Case {
    fn hidden(&self) -> usize {
        self.factors.iter().product()
    }

    fn width(&self) -> usize {
        if self.activation.is_complex() { 2 } else { 1 }
    }

    fn values(&self, seed: u64) -> Values {
        let (mut numbers, w, h) = (Numbers(seed), self.width(), self.hidden());
        let states = self.steps * self.rows * h * w;
        // Factors near those of unit norm keep states from growing or vanishing.
        let mut factors = Vec::new();
        for p in self.factors {
            factors.extend(numbers.take(p * p * w, (3.0 / (p * w) as f32).sqrt()));
        }
        Values {
            factors,
            ux: numbers.take(states, 1.0),
            b: self.activation.is_complex().then(|| numbers.take(h, 0.3)),
            h0: self.first_state.then(|| numbers.take(self.rows * h * w, 1.0)),
            h_bar: self.every_state.then(|| numbers.take(states, 1.0)),
            last_bar: self.last_state.then(|| numbers.take(self.rows * h * w, 1.0)),
        }
    }
}

/// Outputs by name, in the same order from both sides.
const NAMES: [&str; 6] = ["h", "last", "ux_bar", "h0_bar", "factors_bar", "b_bar"];

fn on_cpu(case: &Case, v: &Values) -> Result<Vec<Tensor>, Box<dyn std::error::Error>> {
    let complex = case.activation.is_complex();
    let (dtype, hidden) = (double(complex), case.hidden());
    let mut tape = Tape::new();
    let mut values = Params::new();
    let mut factors = Vec::new();
    let mut from = 0;
    for (f, &p) in case.factors.iter().enumerate() {
        let name = format!("w{f}");
        factors.push(tape.param(&name, dtype, [p, p])?);
        let len = p * p * case.width();
        values.insert(name, tensor(&v.factors[from..from + len], &[p, p], complex)?);
        from += len;
    }
    let ux = tape.input("ux", dtype, Shape::sequence([hidden]))?;
    values.insert("ux", tensor(&v.ux, &[case.steps, case.rows, hidden], complex)?);
    let zeros = vec![0.0; case.rows * hidden * case.width()];
    let h0 = tape.input("h0", dtype, Shape::rows([hidden]))?;
    values.insert("h0", tensor(v.h0.as_ref().unwrap_or(&zeros), &[case.rows, hidden], complex)?);
    let b = match &v.b {
        Some(b) => {
            values.insert("b", tensor(b, &[hidden], false)?);
            Some(tape.param("b", double(false), [hidden])?)
        }
        None => None,
    };
    let mut scan = Scan::new();
    if let Some(lengths) = case.lengths {
        let of_rows = tape.input("lengths", retrograd_engine::DType::I32, Shape::rows([]))?;
        values.insert("lengths", Tensor::from_slice([case.rows], lengths)?);
        scan = scan.lengths(Some(of_rows));
    }
    let (last, h) = scan.run(&mut tape, h0, ux, |tape, h, ux| {
        let wh = ops::kron_apply(tape, h, &factors)?;
        let z = ops::add(tape, wh, ux)?;
        let modrelu = |tape: &mut Tape, form| match b {
            Some(b) => ops::modrelu(tape, z, b, form),
            None => Ok(z),
        };
        let h = match case.activation {
            Activation::Exact => modrelu(tape, ModReluForm::Exact)?,
            Activation::RcUrnn => modrelu(tape, ModReluForm::RcUrnn)?,
            Activation::FcUrnn => modrelu(tape, ModReluForm::FcUrnn)?,
            Activation::Lrd => modrelu(tape, ModReluForm::Lrd)?,
            Activation::Eurnn => modrelu(tape, ModReluForm::Eurnn)?,
            Activation::Tanh => ops::tanh(tape, z)?,
            Activation::Relu => ops::relu(tape, z)?,
            Activation::LeakyRelu => ops::leaky_relu(tape, z, 0.1)?,
        };
        Ok((h, h))
    })?;
    // The loss whose cotangents of the states are those given: Σ Re(conj(h_bar) h).
    let mut loss: Option<Var> = None;
    let given = [
        ("h_bar", h, &v.h_bar, Shape::sequence([hidden])),
        ("last_bar", last, &v.last_bar, Shape::rows([hidden])),
    ];
    for (name, of, bar, shape) in given {
        let Some(bar) = bar else { continue };
        let dims = shape.concrete(case.steps, case.rows);
        values.insert(name, tensor(bar, &dims, complex)?);
        let bar = tape.input(name, dtype, shape)?;
        let bar = if complex { ops::conj(&mut tape, bar)? } else { bar };
        let product = ops::mul(&mut tape, bar, of)?;
        let product = if complex { ops::real(&mut tape, product)? } else { product };
        let sum = ops::sum_all(&mut tape, product)?;
        loss = Some(match loss {
            Some(loss) => ops::add(&mut tape, loss, sum)?,
            None => sum,
        });
    }
    let loss = loss.ok_or("a case without cotangents")?;
    let mut wrt = vec![ux, h0];
    wrt.extend(&factors);
    wrt.extend(b);
    let bars = grad(&mut tape, loss, &wrt)?;
    let mut out = run(&tape, &[&[h, last], &bars[..]].concat(), &values)?;
    // The gradients of the factors as one list.
    let tail = out.split_off(4 + factors.len());
    let of_factors: Vec<_> = out.drain(4..).collect();
    let mut all = Vec::new();
    for bar in &of_factors {
        all.extend((0..bar.len()).map(|i| bar.get(i)));
    }
    let mut joined = Tensor::zeros(dtype, [all.len()])?;
    joined.fill_with(|i| all[i]);
    out.push(joined);
    out.extend(tail);
    Ok(out)
}

fn on_gpu(gpu: &Gpu, case: &Case, v: &Values) -> Result<Vec<Vec<f32>>, retrograd_cuda::Error> {
    let unit = match case.general {
        true => Kru::general(gpu, case.factors, case.activation)?,
        false => Kru::new(gpu, case.factors, case.activation)?,
    };
    let (factors, ux) = (gpu.upload(&v.factors)?, gpu.upload(&v.ux)?);
    let (b, h0) = (upload(gpu, v.b.as_ref())?, upload(gpu, v.h0.as_ref())?);
    let lengths = case.lengths.map(|l| gpu.upload(l)).transpose()?;
    let inputs =
        KruInputs { factors: &factors, ux: &ux, b: b.as_ref(), h0: h0.as_ref(), lengths: lengths.as_ref() };
    let mut h = gpu.zeros(v.ux.len())?;
    let mut last = gpu.zeros(case.rows * case.hidden() * case.width())?;
    unit.forward(case.steps, case.rows, inputs, &mut h, &mut last)?;
    let (h_bar, last_bar) = (upload(gpu, v.h_bar.as_ref())?, upload(gpu, v.last_bar.as_ref())?);
    let cotangents = KruCotangents { h_bar: h_bar.as_ref(), last_bar: last_bar.as_ref() };
    let mut out = unit.gradients(case.steps, case.rows)?;
    unit.backward(case.steps, case.rows, inputs, &h, cotangents, &mut out)?;
    let mut all = vec![h.download()?, last.download()?, out.ux_bar.download()?, out.h0_bar.download()?];
    all.push(out.factors_bar.download()?);
    if case.activation.is_complex() {
        all.push(out.b_bar.download()?);
    }
    Ok(all)
}

fn compare(gpu: &Gpu, label: &str, case: &Case) -> Outcome {
    let values = case.values(7 + case.steps as u64);
    let expected = on_cpu(case, &values)?;
    let got = on_gpu(gpu, case, &values)?;
    let again = on_gpu(gpu, case, &values)?;
    // Every step adds the rounding of its products and of one activation.
    let depth = case.steps.max(1) * (2 * case.factors.iter().sum::<usize>() + 8);
    for (i, got) in got.iter().enumerate() {
        let what = format!("{label}: {}", NAMES[i]);
        agree(&what, got, &expected[i], depth as f64);
        same_bits(&what, got, &again[i]);
    }
    Ok(())
}

/// The table of cases: factors of odd sizes, both fields, every activation, rows of different lengths, no states given.
fn cases() -> Vec<(&'static str, Case)> {
    use Activation::*;
    let mut cases = vec![
        ("complex 2x3", CASE),
        ("one factor", Case { factors: &[5], ..CASE }),
        ("factors of size 1", Case { factors: &[1, 3, 1], steps: 2, ..CASE }),
        ("one state", Case { factors: &[1], steps: 3, rows: 1, ..CASE }),
        ("a factor with more entries than threads", Case { factors: &[17, 2], steps: 2, rows: 2, ..CASE }),
        ("more states than threads", Case { factors: &[3, 7, 13], steps: 2, rows: 1, ..CASE }),
        ("no steps", Case { steps: 0, every_state: false, ..CASE }),
        ("one step", Case { steps: 1, ..CASE }),
        ("last state only", Case { every_state: false, first_state: false, ..CASE }),
        ("all states only", Case { last_state: false, ..CASE }),
        ("lengths", Case { lengths: Some(&[3, 0, 4]), ..CASE }),
        ("real", Case { activation: Tanh, factors: &[3, 2, 2], ..CASE }),
        ("real, lengths", Case { activation: Tanh, lengths: Some(&[1, 4, 2]), ..CASE }),
        ("rectifier", Case { activation: Relu, factors: &[2, 2, 3], ..CASE }),
        ("leaky rectifier", Case { activation: LeakyRelu, ..CASE }),
    ];
    for form in [RcUrnn, FcUrnn, Lrd, Eurnn] {
        cases.push(("a form of modReLU", Case { activation: form, ..CASE }));
    }
    let chain = Case { factors: &[2; 7], steps: 3, rows: 2, ..CASE };
    cases.push(("chain of 7", Case { ..chain }));
    cases.push(("chain of 7, general", Case { general: true, ..chain }));
    cases.push(("chain of 8, real", Case { factors: &[2; 8], activation: Tanh, rows: 1, ..chain }));
    cases.push(("chain of 8, lengths", Case { factors: &[2; 8], lengths: Some(&[1, 3]), ..chain }));
    cases.push(("chain of 9", Case { factors: &[2; 9], activation: RcUrnn, rows: 1, ..chain }));
    cases.push(("chain of 10", Case { factors: &[2; 10], activation: FcUrnn, steps: 2, rows: 1, ..chain }));
    cases.push((
        "chain of 11, real",
        Case { factors: &[2; 11], activation: Relu, steps: 2, rows: 1, ..chain },
    ));
    cases
}

#[test]
fn agrees_with_the_cpu_on_the_emulated_device() -> Outcome {
    let gpu = Gpu::emulated();
    for (label, case) in cases() {
        compare(&gpu, label, &case)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs a CUDA device"]
fn agrees_with_the_cpu_on_a_device() -> Outcome {
    let gpu = Gpu::open(0)?;
    for (label, case) in cases() {
        compare(&gpu, label, &case)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs a CUDA device"]
fn pixels_of_many_rows_on_a_device() -> Outcome {
    let gpu = Gpu::open(0)?;
    let many = Case { factors: &[2; 9], steps: 40, rows: 128, every_state: false, ..CASE };
    compare(&gpu, "many rows", &many)
}

#[test]
fn wrong_sizes_are_named() -> Outcome {
    let gpu = Gpu::emulated();
    let unit = Kru::new(&gpu, &[2, 3], Activation::Exact)?;
    let (short, b) = (gpu.zeros::<f32>(7)?, gpu.zeros::<f32>(6)?);
    let factors = gpu.zeros::<f32>(26)?;
    let mut h = gpu.zeros::<f32>(2 * 3 * 6 * 2)?;
    let mut last = gpu.zeros::<f32>(3 * 6 * 2)?;
    let inputs = KruInputs { factors: &factors, ux: &short, b: Some(&b), h0: None, lengths: None };
    let message = unit.forward(2, 3, inputs, &mut h, &mut last).map_err(|e| e.to_string());
    let expected = "kru_forward_complex: ux [T,N,H,parts]=2x3x6x2 has 7 elements, expected 72";
    assert_eq!(message, Err(expected.to_owned()));
    let ux = gpu.zeros::<f32>(72)?;
    let inputs = KruInputs { ux: &ux, b: None, ..inputs };
    let message = unit.forward(2, 3, inputs, &mut h, &mut last).map_err(|e| e.to_string());
    assert_eq!(message, Err("kru_forward_complex: b is missing, which is not what Exact takes".to_owned()));
    let message = Kru::new(&gpu, &[2, 0], Activation::Exact).map(|_| ()).map_err(|e| e.to_string());
    let expected = "kru: factors is 2x0, sizes of at least 1 with a product of at most 2^20";
    assert_eq!(message, Err(expected.to_owned()));
    let large = Kru::new(&gpu, &[2048, 16], Activation::Tanh)?;
    let ux = gpu.zeros::<f32>(2048 * 16)?;
    let factors = gpu.zeros::<f32>(2048 * 2048 + 256)?;
    let (mut h, mut last) = (gpu.zeros::<f32>(2048 * 16)?, gpu.zeros::<f32>(2048 * 16)?);
    let inputs = KruInputs { factors: &factors, ux: &ux, b: None, h0: None, lengths: None };
    let message = large.forward(1, 1, inputs, &mut h, &mut last).map_err(|e| e.to_string());
    let expected = "kru_forward_real: a block needs 262144 bytes of shared memory, the device has 232448";
    assert_eq!(message, Err(expected.to_owned()));
    Ok(())
}
