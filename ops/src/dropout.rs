//! Dropout with a counter-based generator.
//!
//! The mask of an element is a function of the seed, the stream, the step, the row and the element's place, and
//! of nothing else: any plan rebuilds the same mask, on any number of threads. The generator is Philox4x32-10
//! (Salmon, Moraes, Dror, Shaw 2011, *Parallel random numbers: as easy as 1, 2, 3*).

use retrograd_engine::cpu::Real;
use retrograd_engine::device::{Building, DeviceKernel, Entry, Op as Word, Piece, Type, Value};
use retrograd_engine::kernel::{Args, Structured};
use retrograd_engine::op::{Class, Cotangents, Io};
use retrograd_engine::{DType, Dims, Error, Lead, Op, Result, Shape, Tape, Ty, Var, structured_kernel};
use smallvec::smallvec;

use crate::mul;
use crate::spec::{Arg, Case, Domain, OpSpec};

/// Drops elements with probability `1 − keep` and divides the others by `keep`.
///
/// Inside a step every step has a mask of its own; a mask recorded outside ([`dropout_mask`]) is the same at every
/// step (variational dropout).
///
/// Shapes: `x [..]`, `seed []` (i32) `-> y [..]`. Calls with different `stream` are independent.
/// Rule: the cotangent times the same mask, which is made again.   Errors: `keep` outside `(0, 1]`.
pub fn dropout(tape: &mut Tape, x: Var, keep: f64, seed: Var, stream: u64) -> Result<Var> {
    if keep == 1.0 {
        return Ok(x);
    }
    let ty = tape.ty(x)?.clone();
    let mask = dropout_mask(tape, seed, keep, ty.dtype.real(), ty.shape, stream)?;
    mul(tape, x, mask)
}

/// A mask of zeros and `1/keep`; see [`dropout`]. Shapes: `seed []` (i32) `-> shape`.
pub fn dropout_mask(
    tape: &mut Tape,
    seed: Var,
    keep: f64,
    dtype: DType,
    shape: Shape,
    stream: u64,
) -> Result<Var> {
    if !(keep > 0.0 && keep <= 1.0) {
        return Err(Error::argument("dropout", format!("keep probability, expected in (0, 1], got {keep}")));
    }
    let (lead, dims) = (shape.lead, shape.dims);
    let per_step = tape.is_step() || lead.has_t();
    tape.push(DropoutMask { keep: keep.to_bits(), dtype, lead, dims, stream, per_step }, &[seed])
}

#[derive(Clone, Debug)]
struct DropoutMask {
    keep: u64,
    dtype: DType,
    lead: Lead,
    dims: Dims,
    stream: u64,
    per_step: bool,
}

/// One block of Philox4x32 with ten rounds.
fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (mut c, mut k) = (counter, key);
    for _ in 0..10 {
        let a = u64::from(c[0]) * 0xD251_1F53;
        let b = u64::from(c[2]) * 0xCD9E_8D57;
        c = [(b >> 32) as u32 ^ c[1] ^ k[0], b as u32, (a >> 32) as u32 ^ c[3] ^ k[1], a as u32];
        k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

impl Op for DropoutMask {
    fn name(&self) -> &'static str {
        "dropout_mask"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        if inputs[0].dtype != DType::I32 {
            return Err(Error::dtype("dropout_mask", "seed", DType::I32, inputs[0].dtype));
        }
        if inputs[0].shape != Shape::shared([]) {
            return Err(Error::shape("dropout_mask", "seed", "[]", &inputs[0].shape));
        }
        if !self.dtype.is_differentiable() {
            return Err(Error::dtype("dropout_mask", "mask", "f32 or f64", self.dtype));
        }
        Ok(Ty::new(self.dtype.real(), Shape { lead: self.lead, dims: self.dims.clone() }))
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, _: &mut Tape, _: Io<'_>, _: Var) -> Result<Cotangents> {
        Ok(smallvec![None])
    }

    fn jvp(&self, _: &mut Tape, _: Io<'_>, _: &[Option<Var>]) -> Result<Option<Var>> {
        Ok(None)
    }

    fn varies_with_step(&self) -> bool {
        self.per_step
    }

    fn is_cheap(&self) -> bool {
        true
    }
}

impl DropoutMask {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let seed = args.inputs[0].index_row(0)[0] as u32;
        let keep = f64::from_bits(self.keep);
        let kept = R::from_f64(1.0 / keep);
        let key = [seed, self.stream as u32 ^ (self.stream >> 32) as u32];
        let step = if self.per_step { args.origin.step } else { 0 };
        let threshold = (keep * 2f64.powi(32)) as u64;
        for r in 0..args.rows {
            let row = if self.lead.has_n() { args.origin.row + r } else { 0 };
            for (block, four) in args.output.row(r).chunks_mut(4).enumerate() {
                let high = ((row >> 32) as u32) << 16 | (step >> 32) as u32;
                let words = philox([block as u32, row as u32, step as u32, high], key);
                for (y, w) in four.iter_mut().zip(words) {
                    *y = if u64::from(w) < threshold { kept } else { R::ZERO };
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

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for DropoutMask {
    fn phases(&self, _: &[Entry], output: &Entry) -> Vec<usize> {
        vec![output.width().div_ceil(4)]
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        let int = |word: u32| Value::Int(word as i32);
        let keep = f64::from_bits(self.keep);
        let zero = Value::Int(0);
        let step = if self.per_step { k.step() } else { zero };
        let row = if self.lead.has_n() { k.row() } else { zero };
        let seed = k.input(0, 0, 0);
        let mut key = [seed, int(self.stream as u32 ^ (self.stream >> 32) as u32)];
        let mut counter = [piece, row, step, zero];
        for _ in 0..10 {
            let [c0, c1, c2, c3] = counter;
            let code = k.code();
            let mut product = |a: Value, b: u32| {
                let high = code.op(Word::MulHigh, Type::Int, &[a, int(b)]);
                (high, code.op(Word::Mul, Type::Int, &[a, int(b)]))
            };
            let (a, b) = (product(c0, 0xD251_1F53), product(c2, 0xCD9E_8D57));
            let mut mix = |a: Value, b: Value, c: Value| {
                let ab = code.op(Word::Xor, Type::Int, &[a, b]);
                code.op(Word::Xor, Type::Int, &[ab, c])
            };
            counter = [mix(b.0, c1, key[0]), b.1, mix(a.0, c3, key[1]), a.1];
            key = [(key[0], 0x9E37_79B9u32), (key[1], 0xBB67_AE85)]
                .map(|(word, by)| code.op(Word::Add, Type::Int, &[word, int(by)]));
        }
        let threshold = Value::Address((keep * 2f64.powi(32)) as u64);
        let (kept, dropped) = (k.number(1.0 / keep), k.number(0.0));
        let first = k.code().mul(piece, 4);
        let width = k.output.width();
        for (i, word) in counter.into_iter().enumerate() {
            let at = k.code().add(first, i);
            let inside = k.code().lt(at, width);
            k.when(inside, |k| {
                let wide = k.code().convert(word, Type::Address);
                let wide = k.code().op(Word::And, Type::Address, &[wide, Value::Address(0xffff_ffff)]);
                let stays = k.code().lt(wide, threshold);
                let y = k.code().select(stays, kept, dropped);
                k.store(0, at, y);
            });
        }
    }
}

pub(crate) static DROPOUT: OpSpec = OpSpec {
    name: "dropout",
    summary: "dropout with a counter-based generator",
    cases: &[
        Case {
            label: "rows",
            inputs: &[Arg::either("N C", Domain::Any), Arg::index("", "100")],
            build: |tape, x| dropout(tape, x[0], 0.7, x[1], 3),
        },
        Case {
            label: "steps and rows",
            inputs: &[Arg::either("T N 7", Domain::Any), Arg::index("", "100")],
            build: |tape, x| dropout(tape, x[0], 0.25, x[1], 0),
        },
    ],
};

pub(crate) static DROPOUT_MASK: OpSpec = OpSpec {
    name: "dropout_mask",
    summary: "the mask of dropout",
    cases: &[Case {
        label: "the same for all steps",
        inputs: &[Arg::real("T N 6", Domain::Any), Arg::index("", "100")],
        build: |tape, x| {
            let dtype = tape.dtype(x[0])?;
            let mask = dropout_mask(tape, x[1], 0.5, dtype, Shape::rows([6]), 1)?;
            mul(tape, mask, x[0])
        },
    }],
};

#[cfg(test)]
mod tests {
    use retrograd_engine::{Params, Program, RunOptions, Tensor, reference, scan};

    use super::*;

    /// Known answers published with Random123 (`kat_vectors`, philox4x32 10).
    #[test]
    fn philox_known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        let pi = philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]);
        assert_eq!(pi, [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
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
        let y = dropout(&mut tape, x, 0.8, seed, 0)?;
        let other = dropout(&mut tape, x, 0.8, seed, 1)?;
        assert_eq!(dropout(&mut tape, x, 1.0, seed, 0)?, x);
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
        let whole = dropout(&mut tape, x, 0.5, seed, 0)?;
        let fixed = dropout_mask(&mut tape, seed, 0.5, DType::F64, Shape::rows([5]), 0)?;
        let start = retrograd_engine::core_ops::fill(&mut tape, Ty::new(DType::F64, Shape::rows([1])), 0.0)?;
        let (_, (own, same)) = scan(&mut tape, start, x, |tape, h, x| {
            let own = dropout(tape, x, 0.5, seed, 0)?;
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
            assert!(dropout(&mut tape, x, keep, seed, 0).is_err());
        }
        assert!(dropout(&mut tape, x, 0.5, many, 0).is_err());
        assert!(dropout(&mut tape, x, 0.5, x, 0).is_err());
        assert!(dropout_mask(&mut tape, seed, 0.5, DType::I32, Shape::shared([3]), 0).is_err());
        Ok(())
    }
}
