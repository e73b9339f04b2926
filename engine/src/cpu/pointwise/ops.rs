//! The vector loops of one instruction over one block.

use crate::cpu::math;
use crate::cpu::real::Real;
use crate::cpu::simd::Vector;
use crate::expr::{Binary, Ternary, Unary};

/// An argument over a block: element `(r, c)` at `ptr + r * pitch + c * step`. With `step` 0 the same value
/// lies there as often as a vector has lanes.
#[derive(Clone, Copy)]
pub(super) struct Arg<R> {
    pub(super) ptr: *const R,
    pub(super) pitch: usize,
    pub(super) step: usize,
}

/// Where a block's result goes: element `(r, c)` at `ptr + r * pitch + c`.
#[derive(Clone, Copy)]
pub(super) struct Dst<R> {
    pub(super) ptr: *mut R,
    pub(super) pitch: usize,
}

/// Rows and columns of a block.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) rows: usize,
    pub(super) width: usize,
}

/// A function of up to three vectors, as a type because a closure would not inherit target features.
trait Function {
    /// The contract of [`Vector`].
    unsafe fn apply<V: Vector>(a: V, b: V, c: V) -> V;
}

macro_rules! functions {
    ($($name:ident($a:ident, $b:ident, $c:ident) => $body:expr;)*) => { $(
        struct $name;
        impl Function for $name {
            #[inline(always)]
            #[allow(unused_unsafe)] // `Copy` does nothing unsafe
            unsafe fn apply<V: Vector>($a: V, $b: V, $c: V) -> V {
                // SAFETY: the caller upholds the contract of `Vector`.
                unsafe { $body }
            }
        }
    )* };
}

functions! {
    Copy(a, _b, _c) => a;
    Neg(a, _b, _c) => a.neg();
    Abs(a, _b, _c) => a.abs();
    Sign(a, _b, _c) => math::sign(a);
    Sqrt(a, _b, _c) => a.sqrt();
    Recip(a, _b, _c) => math::recip(a);
    Exp(a, _b, _c) => math::exp(a);
    Expm1(a, _b, _c) => math::expm1(a);
    Log(a, _b, _c) => math::log(a);
    Log1p(a, _b, _c) => math::log1p(a);
    Sin(a, _b, _c) => math::sin(a);
    Cos(a, _b, _c) => math::cos(a);
    Tanh(a, _b, _c) => math::tanh(a);
    Sigmoid(a, _b, _c) => math::sigmoid(a);
    Softplus(a, _b, _c) => math::softplus(a);
    Floor(a, _b, _c) => a.floor();
    Add(a, b, _c) => a.add(b);
    Sub(a, b, _c) => a.sub(b);
    Mul(a, b, _c) => a.mul(b);
    Div(a, b, _c) => a.div(b);
    Max(a, b, _c) => a.max(b);
    Min(a, b, _c) => a.min(b);
    Pow(a, b, _c) => math::pow(a, b);
    Hypot(a, b, _c) => math::hypot(a, b);
    Lt(a, b, _c) => V::select(a.lt(b), V::splat(V::Scalar::ONE), V::zero());
    Le(a, b, _c) => V::select(a.le(b), V::splat(V::Scalar::ONE), V::zero());
    Eq(a, b, _c) => V::select(a.eq(b), V::splat(V::Scalar::ONE), V::zero());
    MulAdd(a, b, c) => a.mul_add(b, c);
    Select(a, b, c) => V::select(a.eq(V::zero()), c, b);
}

/// Applies `F` at every element. `N`: how many of the arguments it reads.
///
/// # Safety
///
/// The contract of [`Vector`]; arguments readable and the result writable over the block.
#[inline(always)]
unsafe fn each<V: Vector, F: Function, const N: usize>(
    dst: Dst<V::Scalar>,
    args: [Arg<V::Scalar>; 3],
    size: Size,
) {
    let Size { mut rows, mut width } = size;
    let dense = |pitch, step| pitch == width * step;
    if rows > 1 && dst.pitch == width && args[..N].iter().all(|a| dense(a.pitch, a.step)) {
        width *= rows;
        rows = 1;
    }
    let [a, b, c] = args;
    let last = width - width % V::LANES;
    for r in 0..rows {
        // SAFETY: `r`, and all columns below, lie in the block, for which the caller has given its word.
        // Arguments that `F` does not read are not loaded.
        unsafe {
            let (pa, pb, pc) = (a.ptr.add(r * a.pitch), b.ptr.add(r * b.pitch), c.ptr.add(r * c.pitch));
            let pd = dst.ptr.add(r * dst.pitch);
            let mut col = 0;
            while col < width {
                let full = col < last;
                let left = width - col;
                let va = load::<V>(pa.add(col * a.step), full, left);
                let vb = if N > 1 { load::<V>(pb.add(col * b.step), full, left) } else { va };
                let vc = if N > 2 { load::<V>(pc.add(col * c.step), full, left) } else { va };
                let y = F::apply(va, vb, vc);
                if full {
                    y.store(pd.add(col));
                } else {
                    y.store_n(pd.add(col), left);
                }
                col += V::LANES;
            }
        }
    }
}

/// A whole vector, or the `left` lanes that remain.
#[inline(always)]
unsafe fn load<V: Vector>(p: *const V::Scalar, full: bool, left: usize) -> V {
    // SAFETY: the caller upholds the contract of `Vector` for as many elements as are loaded.
    unsafe { if full { V::load(p) } else { V::load_n(p, left) } }
}

/// # Safety
///
/// As for [`each`].
#[inline(always)]
pub(super) unsafe fn copy<V: Vector>(dst: Dst<V::Scalar>, args: [Arg<V::Scalar>; 3], size: Size) {
    // SAFETY: the caller's contract is the same.
    unsafe { each::<V, Copy, 1>(dst, args, size) }
}

macro_rules! dispatch {
    ($name:ident, $op:ident, $n:literal: $($function:ident),*) => {
        /// # Safety
        ///
        /// As for [`each`].
        #[inline(always)]
        pub(super) unsafe fn $name<V: Vector>(
            op: $op,
            dst: Dst<V::Scalar>,
            args: [Arg<V::Scalar>; 3],
            size: Size,
        ) {
            // SAFETY: the caller's contract is the same.
            unsafe {
                match op {
                    $($op::$function => each::<V, $function, $n>(dst, args, size)),*
                }
            }
        }
    };
}

dispatch!(unary, Unary, 1: Neg, Abs, Sign, Sqrt, Recip, Exp, Expm1, Log, Log1p, Sin, Cos, Tanh, Sigmoid, Softplus, Floor);
dispatch!(binary, Binary, 2: Add, Sub, Mul, Div, Max, Min, Pow, Hypot, Lt, Le, Eq);
dispatch!(ternary, Ternary, 3: MulAdd, Select);
