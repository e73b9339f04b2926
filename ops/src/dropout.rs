//! Dropout with a counter-based generator.

use retrograd_engine::cpu::Real;
use retrograd_engine::kernel::{Args, Structured};
use retrograd_engine::op::Class;
use retrograd_engine::{DType, Error, Op, Result, Shape, Tape, Ty, Var, structured_kernel};

use crate::rule::no_derivative;
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{check, mul};

/// Where random numbers come from: a number given at run time, and the stream of numbers drawn from it.
///
/// Values drawn with the same seed and stream at the same step, row and element are the same. Give every place
/// that needs its own numbers its own stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    seed: Var,
    stream: u32,
}

impl Seed {
    /// Stream 0 of a seed, `[]` of `i32`, usually an input that changes from one call to the next.
    pub fn new(seed: Var) -> Seed {
        Seed { seed, stream: 0 }
    }

    /// Another stream of the same seed.
    pub fn stream(self, stream: u32) -> Seed {
        Seed { stream, ..self }
    }
}

impl From<Var> for Seed {
    fn from(seed: Var) -> Seed {
        Seed::new(seed)
    }
}

/// Dropout: every element is kept with probability `keep` and divided by it, or else set to 0.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = mask · y_bar`.   Inside the step of a scan every step has its own
/// mask; recorded outside, where `x` has no time axis, all steps that use the value share it (variational dropout).
/// [`dropout_mask`] gives the mask by itself. With `keep = 1` the value itself; evaluation records it so.
/// Domain: all numbers.   Errors: `keep` outside (0, 1]; a seed that is not `[]` of `i32`.
///
/// The mask depends on seed, stream, step, row and element alone, so any plan, any number of threads and any
/// replay see the same one.
///
/// Source: N. Srivastava et al. (2014), "Dropout: a simple way to prevent neural networks from overfitting", JMLR
/// 15; Y. Gal, Z. Ghahramani (2016), "A theoretically grounded application of dropout in recurrent neural
/// networks", NeurIPS.
pub fn dropout(tape: &mut Tape, x: Var, keep: f64, seed: impl Into<Seed>) -> Result<Var> {
    check_keep(keep)?;
    if keep == 1.0 {
        return Ok(x);
    }
    let ty = tape.ty(x)?.clone();
    let mask = dropout_mask(tape, seed, keep, ty.with_dtype(ty.dtype.real()), true)?;
    mul(tape, x, mask)
}

/// The mask of [`dropout`]: `1/keep` with probability `keep`, or else 0, of the real type and shape given.
///
/// With `per_step` it changes from step to step, inside the step of a scan or where the shape has a time axis;
/// without, all steps have the mask of step 0.   Rule: none, it depends on no differentiable value.
/// Errors: as [`dropout`]; a type that is not real.
pub fn dropout_mask(
    tape: &mut Tape,
    seed: impl Into<Seed>,
    keep: f64,
    ty: Ty,
    per_step: bool,
) -> Result<Var> {
    check_keep(keep)?;
    let Seed { seed, stream } = seed.into();
    let per_step = per_step && (tape.is_step() || ty.shape.lead.has_t());
    tape.push(DropoutMask { ty, keep, stream, per_step }, &[seed])
}

fn check_keep(keep: f64) -> Result<()> {
    if keep > 0.0 && keep <= 1.0 {
        return Ok(());
    }
    Err(Error::argument("dropout", format!("keep = {keep}; more than 0, at most 1")))
}

#[derive(Clone, Debug)]
struct DropoutMask {
    ty: Ty,
    keep: f64,
    stream: u32,
    per_step: bool,
}

impl Op for DropoutMask {
    fn name(&self) -> &'static str {
        "dropout_mask"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        check::index("dropout_mask", inputs, 0)?;
        if inputs[0].shape != Shape::shared([]) {
            return Err(Error::shape("dropout_mask", "seed", "one number []", &inputs[0].shape));
        }
        if !matches!(self.ty.dtype, DType::F32 | DType::F64) {
            return Err(Error::dtype("dropout_mask", "mask", "f32 or f64", self.ty.dtype));
        }
        Ok(self.ty.clone())
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    no_derivative!();

    fn flops(&self, _: &[Ty], output: &Ty) -> f64 {
        // Ten rounds of about ten operations for four elements.
        25.0 * output.shape.width() as f64
    }

    fn varies_with_step(&self) -> bool {
        self.per_step
    }
}

impl DropoutMask {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let key = [args.inputs[0].index_row(0)[0] as u32, self.stream];
        let kept = R::from_f64(1.0 / self.keep);
        // A word of 32 bits is kept if it is among the first `keep · 2³²`.
        let limit = (self.keep * 4_294_967_296.0) as u64;
        let step = if self.per_step { args.origin.step } else { 0 };
        for r in 0..args.rows {
            let row = (args.origin.row + r) as u64;
            for (block, y) in args.output.row(r).chunks_mut(4).enumerate() {
                // Rows past 2³² share a word with the step, so that no two places share a counter in practice.
                let counter =
                    [block as u32, row as u32, step as u32, (step as u64 >> 32) as u32 ^ (row >> 32) as u32];
                let words = philox(counter, key);
                for (y, word) in y.iter_mut().zip(words) {
                    *y = if u64::from(word) < limit { kept } else { R::ZERO };
                }
            }
        }
    }
}

impl Structured for DropoutMask {
    structured_kernel!();

    fn needs_origin(&self) -> bool {
        true
    }
}

/// Philox4x32-10: four random words from a counter and a key.
///
/// Source: J. K. Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3", SC11.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let (a, b) = (u64::from(counter[0]) * 0xd251_1f53, u64::from(counter[2]) * 0xcd9e_8d57);
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

pub(crate) static DROPOUT: OpSpec = OpSpec {
    name: "dropout",
    summary: "random elements set to zero",
    cases: &[
        Case {
            label: "rows",
            inputs: &[Arg::either("N C", Domain::Any), Arg::index("", "1000")],
            build: |tape, x| dropout(tape, x[0], 0.5, x[1]),
        },
        Case {
            label: "steps and rows",
            inputs: &[Arg::either("T N 7", Domain::Any), Arg::index("", "1000")],
            build: |tape, x| dropout(tape, x[0], 0.75, Seed::new(x[1]).stream(3)),
        },
    ],
};

pub(crate) static DROPOUT_MASK: OpSpec = OpSpec {
    name: "dropout_mask",
    summary: "the mask of dropout",
    cases: &[Case {
        label: "the same for all steps",
        inputs: &[Arg::either("T N C", Domain::Any), Arg::index("", "1000")],
        build: |tape, x| {
            let ty = tape.ty(x[0])?.clone();
            let mask = dropout_mask(tape, x[1], 0.3, ty.with_dtype(ty.dtype.real()), false)?;
            mul(tape, mask, x[0])
        },
    }],
};

#[cfg(test)]
mod tests {
    use retrograd_engine::{Params, Program, RunOptions, Tensor, reference, scan};

    use super::*;

    /// Known answers of the authors' Random123 library, file `kat_vectors`.
    #[test]
    fn philox_known_answers() {
        let rows = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in rows {
            assert_eq!(philox(counter, key), expected);
        }
    }

    fn run(tape: &Tape, y: Var, x: Tensor, seed: i32) -> Result<Tensor> {
        let values = Params::from_iter([("x".to_string(), x), ("seed".to_string(), Tensor::scalar(seed))]);
        let expected = reference::evaluate(tape, &[y], &[&values])?.remove(0);
        for threads in [1, 3] {
            let options = RunOptions { threads: Some(threads), ..Default::default() };
            let found = Program::new(tape, &[y], options)?.run(&[&values])?;
            assert!(found[0].bit_eq(&expected), "{threads} threads");
        }
        Ok(expected)
    }

    #[test]
    fn probability_seed_stream_and_scale() -> Result<()> {
        let mut tape = Tape::new();
        let x = tape.input("x", DType::F32, Shape::sequence([41]))?;
        let seed = tape.input("seed", DType::I32, Shape::shared([]))?;
        let y = dropout(&mut tape, x, 0.8, seed)?;
        let other = dropout(&mut tape, x, 0.8, Seed::new(seed).stream(1))?;
        assert_eq!(dropout(&mut tape, x, 1.0, seed)?, x);
        let ones = Tensor::full(DType::F32, [16, 32, 41], 1.0)?;
        let n = ones.len() as f64;
        let a = run(&tape, y, ones.clone(), 1)?;
        assert!(a.as_slice::<f32>()?.iter().all(|&v| v == 0.0 || v == 1.25));
        let kept = a.as_slice::<f32>()?.iter().filter(|&&v| v > 0.0).count() as f64;
        // Five standard deviations.
        assert!((kept - 0.8 * n).abs() < 5.0 * (n * 0.8 * 0.2).sqrt(), "{kept} of {n}");
        for b in [run(&tape, y, ones.clone(), 2)?, run(&tape, other, ones, 1)?] {
            let pairs = a.as_slice::<f32>()?.iter().zip(b.as_slice::<f32>()?);
            let both = pairs.filter(|(a, b)| **a > 0.0 && **b > 0.0).count() as f64;
            assert!((both - 0.64 * n).abs() < 5.0 * (n * 0.64 * 0.36).sqrt(), "{both} of {n}");
        }
        Ok(())
    }

    /// Each step of a scan has the mask that a whole sequence has at that step; a mask from outside is the same at
    /// every step.
    #[test]
    fn inside_and_outside_a_scan() -> Result<()> {
        let mut tape = Tape::new();
        let x = tape.input("x", DType::F64, Shape::sequence([5]))?;
        let seed = tape.input("seed", DType::I32, Shape::shared([]))?;
        let whole = dropout(&mut tape, x, 0.5, seed)?;
        let fixed = dropout_mask(&mut tape, seed, 0.5, Ty::new(DType::F64, Shape::rows([5])), true)?;
        let start = retrograd_engine::core_ops::fill(&mut tape, Ty::new(DType::F64, Shape::rows([1])), 0.0)?;
        let (_, (own, same)) = scan(&mut tape, start, x, |tape, h, x| {
            let own = dropout(tape, x, 0.5, seed)?;
            Ok((h, (own, mul(tape, x, fixed)?)))
        })?;
        let ones = Tensor::full(DType::F64, [6, 4, 5], 1.0)?;
        let whole = run(&tape, whole, ones.clone(), 7)?;
        assert!(run(&tape, own, ones.clone(), 7)?.bit_eq(&whole));
        let same = run(&tape, same, ones, 7)?;
        let steps: Vec<&[f64]> = same.as_slice::<f64>()?.chunks(20).collect();
        assert!(steps.iter().all(|s| *s == steps[0]));
        assert_eq!(steps[0], &whole.as_slice::<f64>()?[..20]);
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_an_error() -> Result<()> {
        let mut tape = Tape::new();
        let x = tape.param("x", DType::C32, [3])?;
        let seed = tape.input("seed", DType::I32, Shape::shared([]))?;
        let many = tape.input("many", DType::I32, Shape::rows([]))?;
        for keep in [0.0, -0.5, 1.5, f64::NAN] {
            assert!(dropout(&mut tape, x, keep, seed).is_err());
        }
        assert!(dropout(&mut tape, x, 0.5, many).is_err());
        assert!(dropout(&mut tape, x, 0.5, x).is_err());
        assert!(dropout_mask(&mut tape, seed, 0.5, Ty::new(DType::C32, Shape::shared([3])), true).is_err());
        Ok(())
    }
}
