//! Element types: what a number is, on the outside of the engine and inside its storage.

use half::{bf16, f16};
use num_complex::{Complex32, Complex64};

/// Element type of a tensor. The number is the width of one **real component**: [`DType::C32`] is a pair of
/// `f32` (what PyTorch calls `complex64`).
///
/// `F16` and `BF16` are storage only: nothing is computed in them, they are cast to and from. `I32` holds
/// indices (class labels, symbols, lengths, seeds) and has no derivative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// 32-bit real.
    F32,
    /// 64-bit real.
    F64,
    /// Complex of two `f32`.
    C32,
    /// Complex of two `f64`.
    C64,
    /// IEEE half precision, storage only.
    F16,
    /// bfloat16, storage only.
    BF16,
    /// Signed 32-bit index.
    I32,
}

impl DType {
    /// Every element type, in declaration order.
    pub const ALL: [DType; 7] =
        [DType::F32, DType::F64, DType::C32, DType::C64, DType::F16, DType::BF16, DType::I32];

    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::F16 | DType::BF16 => 2,
            DType::F32 | DType::I32 => 4,
            DType::F64 | DType::C32 => 8,
            DType::C64 => 16,
        }
    }

    /// Whether the element is a complex number.
    pub const fn is_complex(self) -> bool {
        matches!(self, DType::C32 | DType::C64)
    }

    /// Whether gradients exist for this type (`F32`, `F64`, `C32`, `C64`).
    pub const fn is_differentiable(self) -> bool {
        matches!(self, DType::F32 | DType::F64 | DType::C32 | DType::C64)
    }

    /// The type of one real component: `C32 -> F32`, `C64 -> F64`, every other type itself.
    pub const fn real(self) -> DType {
        match self {
            DType::C32 => DType::F32,
            DType::C64 => DType::F64,
            other => other,
        }
    }

    /// The complex type over this real type: `F32 -> C32`, `F64 -> C64`; complex types are themselves and
    /// storage and index types have none.
    pub const fn complex(self) -> Option<DType> {
        match self {
            DType::F32 | DType::C32 => Some(DType::C32),
            DType::F64 | DType::C64 => Some(DType::C64),
            _ => None,
        }
    }

    /// Number of real planes of an element: 2 for complex, else 1.
    pub const fn planes(self) -> usize {
        if self.is_complex() { 2 } else { 1 }
    }

    /// Lower-case name, as written in configuration and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::C32 => "c32",
            DType::C64 => "c64",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I32 => "i32",
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type that can be the element of a [`Tensor`](crate::Tensor).
pub trait Element: bytemuck::Pod + Send + Sync + std::fmt::Debug + PartialEq + 'static {
    /// The [`DType`] of this Rust type.
    const DTYPE: DType;
}

macro_rules! element {
    ($($rust:ty => $dtype:ident),* $(,)?) => { $(impl Element for $rust { const DTYPE: DType = DType::$dtype; })* };
}
element!(f32 => F32, f64 => F64, Complex32 => C32, Complex64 => C64, f16 => F16, bf16 => BF16, i32 => I32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_components() {
        for d in DType::ALL {
            assert_eq!(d.size(), d.real().size() * d.planes(), "{d}");
            if let Some(c) = d.complex() {
                assert!(c.is_complex());
                assert_eq!(c.real(), d.real());
            }
        }
    }
}
