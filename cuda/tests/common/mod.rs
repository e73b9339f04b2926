//! What the comparisons with the CPU share: numbers, a program run in double precision, and the measure of agreement.
#![allow(dead_code)]

use num_complex::Complex64;
use retrograd_cuda::{Buffer, Gpu};
use retrograd_engine::{DType, Params, Program, RunOptions, Tape, Tensor, Var};

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
