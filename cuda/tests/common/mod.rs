//! What the comparisons with the CPU share: numbers, a program run in double precision, and the measure of agreement.
#![allow(dead_code)]

use num_complex::Complex64;
use retrograd_cuda::{Buffer, Gpu};
use retrograd_engine::{DType, Params, Program, RunOptions, Scan, Shape, Tape, Tensor, Var, grad};
use retrograd_ops as ops;

/// Result of a test.
pub(crate) type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A stream of numbers between -1 and 1 (splitmix64), rounded to single precision.
#[derive(Debug)]
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// `len` of them, times `scale`.
    pub(crate) fn take(&mut self, len: usize, scale: f32) -> Vec<f32> {
        (0..len).map(|_| self.next() * scale).collect()
    }
}

/// The values as a tensor of double precision; pairs for complex numbers.
pub(crate) fn tensor(
    values: &[f32],
    dims: &[usize],
    complex: bool,
) -> Result<Tensor, retrograd_engine::Error> {
    if complex {
        let pairs: Vec<Complex64> =
            values.chunks(2).map(|p| Complex64::new(p[0].into(), p[1].into())).collect();
        Tensor::from_slice(dims, &pairs)
    } else {
        let values: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
        Tensor::from_slice(dims, &values)
    }
}

/// Real or complex double precision.
pub(crate) fn double(complex: bool) -> DType {
    if complex { DType::C64 } else { DType::F64 }
}

/// Runs the outputs of a tape on the CPU.
pub(crate) fn run(
    tape: &Tape,
    outputs: &[Var],
    values: &Params,
) -> Result<Vec<Tensor>, retrograd_engine::Error> {
    let options = RunOptions { threads: Some(1), ..RunOptions::default() };
    Program::new(tape, outputs, options)?.run(&[values])
}

/// Panics unless `got` is `expected` but for rounding: the norm of the difference is at most `ratio` units in the last
/// place of single precision of the norm of what is expected.
pub(crate) fn agree(what: &str, got: &[f32], expected: &Tensor, ratio: f64) {
    let parts = if expected.dtype().is_complex() { 2 } else { 1 };
    assert_eq!(got.len(), expected.len() * parts, "{what}: number of values");
    let (mut difference, mut norm) = (0.0f64, 0.0f64);
    for (i, got) in got.iter().enumerate() {
        let value = expected.get(i / parts);
        let value = if i % parts == 0 { value.re } else { value.im };
        difference += (f64::from(*got) - value).powi(2);
        norm += value * value;
    }
    let (difference, norm) = (difference.sqrt(), norm.sqrt());
    let found = if difference == 0.0 { 0.0 } else { difference / (norm * f64::from(f32::EPSILON)) };
    assert!(
        found <= ratio,
        "{what}: off by {found:.1} units of rounding (of {norm:.3e}), at most {ratio} are allowed"
    );
}

/// Panics unless both are the same to the bit.
pub(crate) fn same_bits(what: &str, a: &[f32], b: &[f32]) {
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(a), bits(b), "{what}: two runs differ");
}

/// A buffer of a value that may be left out.
pub(crate) fn upload(
    gpu: &Gpu,
    values: Option<&Vec<f32>>,
) -> Result<Option<Buffer<f32>>, retrograd_cuda::Error> {
    values.map(|v| gpu.upload(v)).transpose()
}

/// A recurrence of real numbers for both sides: what it is given, apart from its equations.
#[derive(Debug, Default)]
pub(crate) struct Sequence {
    pub(crate) steps: usize,
    pub(crate) rows: usize,
    pub(crate) hidden: usize,
    /// Name, sizes and values of each parameter.
    pub(crate) params: Vec<(&'static str, Vec<usize>, Vec<f32>)>,
    /// Width and values of the input side.
    pub(crate) ux: (usize, Vec<f32>),
    /// Values shared by the rows, `[T, width]`.
    pub(crate) of_steps: Option<(usize, Vec<f32>)>,
    /// First value of each part of the state.
    pub(crate) first: Vec<Option<Vec<f32>>>,
    pub(crate) lengths: Option<Vec<i32>>,
    /// Cotangent of every state, of its first part.
    pub(crate) h_bar: Option<Vec<f32>>,
    /// Cotangent of each part of the last state.
    pub(crate) last_bars: Vec<Option<Vec<f32>>>,
}

/// Variables of a step: parts of the state, input side, values of the step, parameters.
pub(crate) struct Step<'a> {
    pub(crate) state: &'a [Var],
    pub(crate) ux: Var,
    pub(crate) of_step: Option<Var>,
    pub(crate) params: &'a [Var],
}

impl Sequence {
    /// On the CPU in double precision: states of the first part, last state of every part, then cotangents of the input
    /// side, of the values of the steps, of the first state's parts, and of the parameters.
    pub(crate) fn on_cpu(
        &self,
        step: impl FnOnce(&mut Tape, Step<'_>) -> Result<Vec<Var>, retrograd_engine::Error>,
    ) -> Result<Vec<Tensor>, Box<dyn std::error::Error>> {
        let dtype = DType::F64;
        let (mut tape, mut values) = (Tape::new(), Params::new());
        let mut params = Vec::new();
        for (name, dims, given) in &self.params {
            params.push(tape.param(name, dtype, dims)?);
            values.insert(*name, tensor(given, dims, false)?);
        }
        let ux = tape.input("ux", dtype, Shape::sequence([self.ux.0]))?;
        values.insert("ux", tensor(&self.ux.1, &[self.steps, self.rows, self.ux.0], false)?);
        let of_steps = match &self.of_steps {
            Some((width, given)) => {
                values.insert("of_steps", tensor(given, &[self.steps, *width], false)?);
                Some(tape.input("of_steps", dtype, Shape::steps([*width]))?)
            }
            None => None,
        };
        let mut first = Vec::new();
        for (i, given) in self.first.iter().enumerate() {
            let zeros = vec![0.0; self.rows * self.hidden];
            let name = format!("first{i}");
            first.push(tape.input(&name, dtype, Shape::rows([self.hidden]))?);
            values.insert(name, tensor(given.as_ref().unwrap_or(&zeros), &[self.rows, self.hidden], false)?);
        }
        let mut scan = Scan::new();
        if let Some(lengths) = &self.lengths {
            scan = scan.lengths(Some(tape.input("lengths", DType::I32, Shape::rows([]))?));
            values.insert("lengths", Tensor::from_slice([self.rows], lengths)?);
        }
        let xs: Vec<Var> = std::iter::once(ux).chain(of_steps).collect();
        let (last, h) = scan.run(&mut tape, first.clone(), xs, |tape, state, xs| {
            let given = Step { state: &state, ux: xs[0], of_step: xs.get(1).copied(), params: &params };
            let state = step(tape, given)?;
            Ok((state.clone(), state[0]))
        })?;
        let mut terms = Vec::new();
        let bars = std::iter::once((h, &self.h_bar, Shape::sequence([self.hidden])));
        let bars = bars
            .chain(last.iter().zip(&self.last_bars).map(|(v, bar)| (*v, bar, Shape::rows([self.hidden]))));
        for (i, (of, bar, shape)) in bars.enumerate() {
            let Some(bar) = bar else { continue };
            let name = format!("bar{i}");
            values.insert(&name, tensor(bar, &shape.concrete(self.steps, self.rows), false)?);
            let bar = tape.input(&name, dtype, shape)?;
            let product = ops::mul(&mut tape, bar, of)?;
            terms.push(ops::sum_all(&mut tape, product)?);
        }
        let mut loss = *terms.first().ok_or("no cotangents")?;
        for term in &terms[1..] {
            loss = ops::add(&mut tape, loss, *term)?;
        }
        let wrt: Vec<Var> = std::iter::once(ux).chain(of_steps).chain(first).chain(params).collect();
        let bars = grad(&mut tape, loss, &wrt)?;
        let outputs: Vec<Var> = std::iter::once(h).chain(last).chain(bars).collect();
        Ok(run(&tape, &outputs, &values)?)
    }

    /// Number of the state's numbers over time.
    pub(crate) fn states(&self) -> usize {
        self.steps * self.rows * self.hidden
    }
}

/// Holds the results of two runs on a device against each other and against the CPU.
pub(crate) fn compare(
    label: &str,
    names: &[&str],
    runs: [Vec<Vec<f32>>; 2],
    expected: &[Tensor],
    ratio: f64,
) {
    assert_eq!(runs[0].len(), names.len(), "{label}");
    assert_eq!(expected.len(), names.len(), "{label}");
    for (i, name) in names.iter().enumerate() {
        let what = format!("{label}: {name}");
        agree(&what, &runs[0][i], &expected[i], ratio);
        same_bits(&what, &runs[0][i], &runs[1][i]);
    }
}
