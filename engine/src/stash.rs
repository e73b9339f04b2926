//! The precision in which values are kept for the adjoint.
//!
//! A [`Stash`] says how the record of a scan (the states of a segment and the values beside them that the adjoint
//! reads) is held: exactly, or rounded to 16 bits. It is not part of a plan, because it changes gradients.
//!
//! What exactly a rounded stash computes:
//!
//! - The forward pass is what it always is, to the bit: nothing is rounded but a copy.
//! - Checkpoints are exact, and what is replayed from them is exact. So the record of a step is the rounding of the same
//!   numbers, however often and from wherever it was made.
//! - The adjoint of a step reads every state and every kept value as it was rounded, once, to nearest with ties to even;
//!   what it rebuilds of the step it computes from those in full precision. Cotangents and sums are never rounded, so
//!   errors of steps do not add up to more than the sum of what each of them does.
//!
//! Gradients are therefore the same bits under every budget, schedule and number of threads for each `Stash`, and differ
//! from one to another. Rebuilding everything from the states alone reads other roundings than keeping values does, so
//! it is not among the plans of a rounded stash.
//!
//! `bf16` has the range of `f32` and 8 bits of precision, `f16` has 11 bits and ends at 65,504: what is beyond becomes
//! infinite, and what is below 6·10⁻⁸ zero. States that are bounded (by `tanh`, by a norm) do better in `f16`; where
//! they may grow `bf16` is the safe one. Slopes that are differences of kept values (`1 − y²` where `tanh` is flat)
//! lose what the rounding of `y` loses. Indices are kept as they are. Histories of states that are outputs of a program,
//! or read by more than a scan's own adjoint, are values like others and not rounded.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::cpu::{Isa, Multiversion, multiversion_on};
use crate::dtype::DType;

/// How values are kept for the adjoint; see the [module](self).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Stash {
    /// As they are.
    #[default]
    Exact,
    /// Real components rounded to bfloat16.
    Bf16,
    /// Real components rounded to IEEE half precision.
    F16,
}

impl Stash {
    /// Every way, exact first.
    pub const ALL: [Stash; 3] = [Stash::Exact, Stash::Bf16, Stash::F16];

    /// Lower-case name, as written in configuration and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Stash::Exact => "exact",
            Stash::Bf16 => "bf16",
            Stash::F16 => "f16",
        }
    }

    /// The way of this name.
    pub fn by_name(name: &str) -> Option<Stash> {
        Stash::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Whether numbers are rounded at all.
    pub const fn rounds(self) -> bool {
        !matches!(self, Stash::Exact)
    }

    /// Bytes of one kept element.
    pub const fn bytes(self, dtype: DType) -> usize {
        if self.rounds() && dtype.is_differentiable() { 2 * dtype.planes() } else { dtype.size() }
    }
}

impl std::fmt::Display for Stash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A real type whose numbers can be rounded to 16 bits and widened again.
pub(crate) trait Narrow: Copy {
    /// Rounds `from` to nearest, ties to even. The slices are of one length.
    fn narrow(isa: Isa, stash: Stash, from: &[Self], to: &mut [u16]);
    /// The numbers that were rounded to `from`.
    fn widen(isa: Isa, stash: Stash, from: &[u16], to: &mut [Self]);
}

/// Rounds to bfloat16: on the upper half of the bits, in any instruction set's vectors.
struct Round<'a>(&'a [f32], &'a mut [u16]);

impl Multiversion for Round<'_> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (to, from) in self.1.iter_mut().zip(self.0) {
            let bits = from.to_bits();
            let even = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
            // A number that is none stays that, and quiet.
            *to = if bits & 0x7fff_ffff > 0x7f80_0000 { bits >> 16 | 0x40 } else { even } as u16;
        }
    }
}

struct Widen<'a>(&'a [u16], &'a mut [f32]);

impl Multiversion for Widen<'_> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (to, from) in self.1.iter_mut().zip(self.0) {
            *to = f32::from_bits(u32::from(*from) << 16);
        }
    }
}

impl Narrow for f32 {
    fn narrow(isa: Isa, stash: Stash, from: &[f32], to: &mut [u16]) {
        match stash {
            Stash::F16 => bytemuck::cast_slice_mut::<u16, f16>(to).convert_from_f32_slice(from),
            _ => multiversion_on(isa, Round(from, to)),
        }
    }

    fn widen(isa: Isa, stash: Stash, from: &[u16], to: &mut [f32]) {
        match stash {
            Stash::F16 => bytemuck::cast_slice::<u16, f16>(from).convert_to_f32_slice(to),
            _ => multiversion_on(isa, Widen(from, to)),
        }
    }
}

/// The nearest single on the side of 0, its last bit 1 if it is not exact ("round to odd"): rounded to 16 bits after
/// that, a double is rounded as if at once.
#[inline(always)]
fn odd(x: f64) -> f32 {
    let y = x as f32;
    let back = f64::from(y);
    if back == x || x.is_nan() {
        return y;
    }
    let bits = if back.abs() > x.abs() { y.to_bits() - 1 } else { y.to_bits() };
    f32::from_bits(bits | 1)
}

/// Numbers that pass through single precision at once.
const BLOCK: usize = 256;

impl Narrow for f64 {
    fn narrow(isa: Isa, stash: Stash, from: &[f64], to: &mut [u16]) {
        let mut single = [0f32; BLOCK];
        for (from, to) in from.chunks(BLOCK).zip(to.chunks_mut(BLOCK)) {
            single.iter_mut().zip(from).for_each(|(y, x)| *y = odd(*x));
            f32::narrow(isa, stash, &single[..from.len()], to);
        }
    }

    fn widen(isa: Isa, stash: Stash, from: &[u16], to: &mut [f64]) {
        let mut single = [0f32; BLOCK];
        for (from, to) in from.chunks(BLOCK).zip(to.chunks_mut(BLOCK)) {
            f32::widen(isa, stash, from, &mut single[..from.len()]);
            to.iter_mut().zip(&single).for_each(|(y, x)| *y = f64::from(*x));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use half::bf16;

    use super::*;

    #[test]
    fn names_and_sizes() {
        for stash in Stash::ALL {
            assert_eq!(Stash::by_name(stash.name()), Some(stash));
        }
        assert_eq!(Stash::by_name("f32"), None);
        let rows = [
            (DType::F32, 4, 2),
            (DType::F64, 8, 2),
            (DType::C32, 8, 4),
            (DType::C64, 16, 4),
            (DType::I32, 4, 4),
        ];
        for (dtype, exact, rounded) in rows {
            assert_eq!((Stash::Exact.bytes(dtype), Stash::Bf16.bytes(dtype)), (exact, rounded), "{dtype}");
            assert_eq!(Stash::F16.bytes(dtype), rounded, "{dtype}");
        }
    }

    /// Numbers of every exponent, ties, and those that are none.
    fn numbers() -> Vec<f32> {
        let patterns = (0..1u32 << 16)
            .flat_map(|high| [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|low| high << 16 | low));
        patterns.map(f32::from_bits).collect()
    }

    /// As the numbers of the `half` crate one by one, which are tested against the definitions there.
    #[test]
    fn slices_are_rounded_as_single_numbers_are() {
        let from = numbers();
        let mut bits = vec![0u16; from.len()];
        let mut back = vec![0f32; from.len()];
        for isa in Isa::available() {
            f32::narrow(isa, Stash::Bf16, &from, &mut bits);
            f32::widen(isa, Stash::Bf16, &bits, &mut back);
            for ((x, b), y) in from.iter().zip(&bits).zip(&back) {
                let one = bf16::from_f32(*x);
                assert!(one.is_nan() && y.is_nan() || one.to_bits() == *b, "{isa} {x:e}: {b:x}");
                assert!(one.is_nan() || one.to_f32().to_bits() == y.to_bits(), "{isa} {x:e}: {y:e}");
            }
            f32::narrow(isa, Stash::F16, &from, &mut bits);
            f32::widen(isa, Stash::F16, &bits, &mut back);
            for ((x, b), y) in from.iter().zip(&bits).zip(&back) {
                let one = f16::from_f32(*x);
                assert!(one.is_nan() && y.is_nan() || one.to_bits() == *b, "{isa} {x:e}: {b:x}");
            }
        }
    }

    #[test]
    fn doubles_are_rounded_once() {
        let (mut bits, mut back) = ([0u16], [0f64]);
        let mut rounded = |stash, x: f64| {
            f64::narrow(Isa::Portable, stash, &[x], &mut bits);
            f64::widen(Isa::Portable, stash, &bits, &mut back);
            back[0]
        };
        // The middle of two neighbours, and what single precision cannot tell from it.
        for (stash, digits) in [(Stash::Bf16, 8), (Stash::F16, 11)] {
            let (half, little) = (2f64.powi(-digits), 2f64.powi(-40));
            for sign in [1.0, -1.0] {
                let rows = [
                    (half, 0.0),
                    (half + little, 2.0 * half),
                    (half - little, 0.0),
                    (3.0 * half, 4.0 * half),
                ];
                for (above, expected) in rows {
                    assert_eq!(
                        rounded(stash, sign * (1.0 + above)),
                        sign * (1.0 + expected),
                        "{stash} {above:e}"
                    );
                }
            }
            assert_eq!(rounded(stash, 1e300), f64::INFINITY);
            assert_eq!(rounded(stash, -1e-300), 0.0);
            assert!(rounded(stash, f64::NAN).is_nan());
        }
        assert_eq!(rounded(Stash::F16, 65_504.0), 65_504.0);
        assert_eq!(rounded(Stash::F16, 65_520.0), f64::INFINITY);
    }
}
