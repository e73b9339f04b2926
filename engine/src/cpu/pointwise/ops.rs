//! The vector loops of one instruction over one block.

use super::compile::Op;
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
    /// Whether it is so quick that the loop around it counts.
    const QUICK: bool;
}

macro_rules! functions {
    ($quick:literal; $($name:ident($a:ident, $b:ident, $c:ident) => $body:expr;)*) => { $(
        struct $name;
        impl Function for $name {
            const QUICK: bool = $quick;
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
    true;
    Copy(a, _b, _c) => a;
    Neg(a, _b, _c) => a.neg();
    Abs(a, _b, _c) => a.abs();
    Sign(a, _b, _c) => math::sign(a);
    Floor(a, _b, _c) => a.floor();
    Add(a, b, _c) => a.add(b);
    Sub(a, b, _c) => a.sub(b);
    Mul(a, b, _c) => a.mul(b);
    Max(a, b, _c) => a.max(b);
    Min(a, b, _c) => a.min(b);
    Lt(a, b, _c) => V::select(a.lt(b), V::splat(V::Scalar::ONE), V::zero());
    Le(a, b, _c) => V::select(a.le(b), V::splat(V::Scalar::ONE), V::zero());
    Eq(a, b, _c) => V::select(a.eq(b), V::splat(V::Scalar::ONE), V::zero());
    MulAdd(a, b, c) => a.mul_add(b, c);
    NegMulAdd(a, b, c) => a.neg_mul_add(b, c);
    Select(a, b, c) => V::select(a.eq(V::zero()), c, b);
}

functions! {
    false;
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
    Div(a, b, _c) => a.div(b);
    Pow(a, b, _c) => math::pow(a, b);
    Hypot(a, b, _c) => math::hypot(a, b);
    RecipHypot(a, b, _c) => math::recip_hypot(a, b);
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
    for r in 0..rows {
        // SAFETY: the row lies in the block, for which the caller has given its word.
        unsafe {
            let from = [a.ptr.add(r * a.pitch), b.ptr.add(r * b.pitch), c.ptr.add(r * c.pitch)];
            let steps = [a.step * V::LANES, b.step * V::LANES, c.step * V::LANES];
            line::<V, F, N>(dst.ptr.add(r * dst.pitch), from, steps, width);
        }
    }
}

/// One row: the arguments advance by `steps` elements from vector to vector.
///
/// # Safety
///
/// As for [`each`].
#[inline(always)]
unsafe fn line<V: Vector, F: Function, const N: usize>(
    mut to: *mut V::Scalar,
    mut from: [*const V::Scalar; 3],
    steps: [usize; 3],
    width: usize,
) {
    let mut left = width;
    // SAFETY: all vectors lie in the row; the last loads and stores only the lanes that remain. Arguments that `F`
    // does not read are not loaded.
    unsafe {
        if F::QUICK {
            while left >= 4 * V::LANES {
                let y0 = whole::<V, F, N>(&mut from, steps);
                let y1 = whole::<V, F, N>(&mut from, steps);
                let y2 = whole::<V, F, N>(&mut from, steps);
                let y3 = whole::<V, F, N>(&mut from, steps);
                y0.store(to);
                y1.store(to.add(V::LANES));
                y2.store(to.add(2 * V::LANES));
                y3.store(to.add(3 * V::LANES));
                to = to.add(4 * V::LANES);
                left -= 4 * V::LANES;
            }
        }
        while left >= V::LANES {
            whole::<V, F, N>(&mut from, steps).store(to);
            to = to.add(V::LANES);
            left -= V::LANES;
        }
        if left > 0 {
            let a = V::load_n(from[0], left);
            let b = if N > 1 { V::load_n(from[1], left) } else { a };
            let c = if N > 2 { V::load_n(from[2], left) } else { a };
            F::apply(a, b, c).store_n(to, left);
        }
    }
}

/// The result of a whole vector; goes on to the next.
#[inline(always)]
unsafe fn whole<V: Vector, F: Function, const N: usize>(
    from: &mut [*const V::Scalar; 3],
    steps: [usize; 3],
) -> V {
    // SAFETY: the caller's word that whole vectors can be read.
    unsafe {
        let a = V::load(from[0]);
        let b = if N > 1 { V::load(from[1]) } else { a };
        let c = if N > 2 { V::load(from[2]) } else { a };
        for i in 0..N {
            from[i] = from[i].add(steps[i]);
        }
        F::apply(a, b, c)
    }
}

/// # Safety
///
/// As for [`each`].
#[inline(always)]
pub(super) unsafe fn copy<V: Vector>(dst: Dst<V::Scalar>, args: [Arg<V::Scalar>; 3], size: Size) {
    // SAFETY: the caller's contract is the same.
    unsafe { each::<V, Copy, 1>(dst, args, size) }
}

/// One operation on vectors.
///
/// # Safety
///
/// The contract of [`Vector`].
pub(super) unsafe fn apply<V: Vector>(op: Op, a: V, b: V, c: V) -> V {
    // SAFETY: the caller's contract is the same.
    unsafe {
        match op {
            Op::Copy => a,
            Op::Unary(op) => apply_unary(op, a, b, c),
            Op::Binary(op) => apply_binary(op, a, b, c),
            Op::Ternary(op) => apply_ternary(op, a, b, c),
        }
    }
}

macro_rules! dispatch {
    ($name:ident, $apply:ident, $op:ident, $n:literal: $($function:ident),*) => {
        /// # Safety
        ///
        /// As for [`apply`].
                unsafe fn $apply<V: Vector>(op: $op, a: V, b: V, c: V) -> V {
            // SAFETY: the caller's contract is the same.
            unsafe {
                match op {
                    $($op::$function => $function::apply(a, b, c)),*
                }
            }
        }

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

dispatch!(unary, apply_unary, Unary, 1: Neg, Abs, Sign, Sqrt, Recip, Exp, Expm1, Log, Log1p, Sin, Cos, Tanh, Sigmoid, Softplus, Floor);
dispatch!(binary, apply_binary, Binary, 2: Add, Sub, Mul, Div, Max, Min, Pow, Hypot, RecipHypot, Lt, Le, Eq);
dispatch!(ternary, apply_ternary, Ternary, 3: MulAdd, NegMulAdd, Select);
