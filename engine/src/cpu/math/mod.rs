//! Elementary functions over vectors: at most 2 ulp in f32 and 4 ulp in f64 over the whole range.
//!
//! A lane's result depends on that lane alone, also where a function falls back to scalar code. `pow` is
//! scalar code everywhere; `sin` and `cos` are where there is no fused multiply-add, and beyond
//! [`TRIG_LIMIT`](consts::Consts::TRIG_LIMIT).
//!
//! Sources: the reductions and coefficients of `log`, `log1p` are those of fdlibm, of `sin`, `cos` those of
//! Cephes; `exp` is a Taylor series after Cody and Waite's reduction.

pub(crate) mod consts;
#[cfg(test)]
mod tests;

use super::real::Real;
use super::real::hooks::Hooks;
use super::simd::Vector;
use consts::Consts;

/// Opens an `unsafe` block in a vector function, whose contract is always the same.
macro_rules! v {
    ($($body:tt)*) => {
        // SAFETY: the caller upholds the contract of `Vector`; nothing here touches memory but the stack.
        unsafe { $($body)* }
    };
}

/// Broadcasts a constant of the scalar type.
macro_rules! k {
    ($($path:tt)*) => { V::splat(<V::Scalar as Consts>::$($path)*) };
}

/// Horner's rule, highest power first.
#[inline(always)]
unsafe fn poly<V: Vector>(x: V, coefficients: &'static [V::Scalar]) -> V {
    v! {
        let mut y = V::splat(coefficients[0]);
        for &c in &coefficients[1..] {
            y = y.mul_add(x, V::splat(c));
        }
        y
    }
}

#[inline(always)]
unsafe fn one<V: Vector>() -> V {
    v! { V::splat(V::Scalar::ONE) }
}

/// `x = n ln 2 + r`, `|r| <= ln(2)/2`; gives `n` and `exp(r) - 1`.
#[inline(always)]
unsafe fn exp_reduced<V: Vector>(x: V) -> (V, V) {
    v! {
        let n = x.mul(k!(LOG2_E)).round();
        let r = n.neg_mul_add(k!(LN2.0), x);
        let r = n.neg_mul_add(k!(LN2.1), r);
        let q = poly(r, <V::Scalar as Consts>::EXP);
        (n, r.mul(r).mul_add(q, r))
    }
}

/// `exp(x)`. Overflows to infinity, underflows gradually to 0.
#[inline(always)]
pub(crate) unsafe fn exp<V: Vector>(x: V) -> V {
    v! {
        // The order of the arguments keeps a NaN.
        let x = k!(EXP_RANGE.1).min_or(k!(EXP_RANGE.0).max_or(x));
        let (n, p) = exp_reduced(x);
        one::<V>().add(p).scale(n)
    }
}

/// `exp(x) - 1` without cancellation near 0.
#[inline(always)]
pub(crate) unsafe fn expm1<V: Vector>(x: V) -> V {
    v! {
        let y = k!(EXP_RANGE.1).min_or(k!(EXPM1_LOW).max_or(x));
        let (n, p) = exp_reduced(y);
        // Half the result, because 2^n overflows a little before the result does.
        let h = n.sub(one()).exp2i();
        let far = h.mul_add(p, h.sub(k!(HALF))).mul(k!(TWO));
        let near = V::select(x.eq(V::zero()), x, p);
        V::select(n.eq(V::zero()), near, far)
    }
}

/// `x = 2^k m`, `sqrt(1/2) <= m < sqrt(2)`, for positive normal `x`.
#[inline(always)]
unsafe fn split<V: Vector>(x: V) -> (V, V) {
    v! {
        let k = x.biased_exponent().sub(k!(BIAS_LESS_ONE));
        let m = x.and(k!(MANTISSA)).or(k!(HALF));
        let low = m.lt(k!(SQRT_HALF));
        (V::select(low, k.sub(one()), k), V::select(low, m.add(m), m))
    }
}

/// `log(2^k (1 + f)) + c` (fdlibm).
#[inline(always)]
unsafe fn log_reduced<V: Vector>(k: V, f: V, c: V) -> V {
    v! {
        let s = f.div(k!(TWO).add(f));
        let z = s.mul(s);
        let r = z.mul(poly(z, <V::Scalar as Consts>::LOG));
        let half_square = f.mul(f).mul(k!(HALF));
        let low = s.mul_add(half_square.add(r), k.mul_add(k!(LN2.1), c));
        k.mul(k!(LN2.0)).sub(half_square.sub(low).sub(f))
    }
}

/// Natural logarithm; −∞ at ±0, NaN below.
#[inline(always)]
pub(crate) unsafe fn log<V: Vector>(x: V) -> V {
    v! {
        let small = x.lt(k!(MIN_NORMAL));
        let scaled = V::select(small, x.mul(k!(DENORMAL_SCALE.0)), x);
        let (k, m) = split(scaled);
        let k = V::select(small, k.sub(k!(DENORMAL_SCALE.1)), k);
        let y = log_reduced(k, m.sub(one()), V::zero());
        log_ends(x, y)
    }
}

/// The special cases of a logarithm of `u` whose regular value is `y`.
#[inline(always)]
unsafe fn log_ends<V: Vector>(u: V, y: V) -> V {
    v! {
        let y = V::select(u.lt(k!(INF)), y, u); // infinity and NaN are themselves
        let y = V::select(u.lt(V::zero()), k!(NAN), y);
        V::select(u.eq(V::zero()), k!(INF).neg(), y)
    }
}

/// `log(1 + x)` without cancellation near 0.
#[inline(always)]
pub(crate) unsafe fn log1p<V: Vector>(x: V) -> V {
    v! {
        let u = one::<V>().add(x);
        let (k, m) = split(u);
        let near = k.eq(V::zero());
        // What rounding took from u, relative to u.
        let lost = V::select(k!(TWO).le(k), one::<V>().sub(u.sub(x)), x.sub(u.sub(one())));
        let c = V::select(near, V::zero(), lost.div(u));
        let f = V::select(near, x, m.sub(one()));
        let y = log_ends(u, log_reduced(k, f, c));
        V::select(x.eq(V::zero()), x, y)
    }
}

/// Hyperbolic tangent, through `expm1` so that nothing cancels near 0.
#[inline(always)]
pub(crate) unsafe fn tanh<V: Vector>(x: V) -> V {
    v! {
        let a = x.abs();
        let y = k!(EXPM1_LOW).max_or(a.mul(k!(TWO)).neg());
        let (n, p) = exp_reduced(y);
        let s = n.exp2i();
        let e = s.mul_add(p, s); // exp(-2a)
        let t = s.mul_add(p, s.sub(one())); // exp(-2a) - 1
        let near = a.lt(one());
        let numerator = V::select(near, t.neg(), e.add(e));
        // 1 + exp(-2a), rounded once and independently of t.
        let q = numerator.ratio(s.mul_add(p, s.add(one())));
        let y = V::select(near, q, one::<V>().sub(q));
        // NaN has passed through `max_or` into e; its sign does not matter.
        y.abs().with_sign_of(x)
    }
}

/// `1 / (1 + exp(-x))`.
#[inline(always)]
pub(crate) unsafe fn sigmoid<V: Vector>(x: V) -> V {
    v! {
        let e = exp(x.abs().neg());
        V::select(x.lt(V::zero()), e, one()).ratio(one::<V>().add(e))
    }
}

/// `log(1 + exp(x))` without overflow.
#[inline(always)]
pub(crate) unsafe fn softplus<V: Vector>(x: V) -> V {
    v! { x.max(V::zero()).add(log1p(exp(x.abs().neg()))) }
}

/// Sine, or cosine where `shift` is 1.
#[inline(always)]
unsafe fn trig<V: Vector, const COS: bool>(x: V) -> V {
    v! {
        if !V::FMA {
            return if COS { lanes1::<V, CosScalar>(x) } else { lanes1::<V, SinScalar>(x) };
        }
        let n = x.mul(k!(TWO_OVER_PI)).round();
        let r = n.neg_mul_add(k!(HALF_PI.0), x);
        let r = n.neg_mul_add(k!(HALF_PI.1), r);
        let r = n.neg_mul_add(k!(HALF_PI.2), r);
        let z = r.mul(r);
        let sin = z.mul(r).mul_add(poly(z, <V::Scalar as Consts>::SIN), r);
        let cos = z.mul(z).mul_add(poly(z, <V::Scalar as Consts>::COS), z.neg_mul_add(k!(HALF), one()));
        // Quadrant as a number in half turns: its fraction says which function, its parity which sign.
        let n = if COS { n.add(one()) } else { n };
        let half = n.mul(k!(HALF));
        let turns = half.floor();
        let even = half.eq(turns);
        let y = V::select(even, sin, cos);
        let parity = turns.mul(k!(HALF));
        let y = V::select(parity.eq(parity.floor()), y, y.neg());
        let y = if COS { y } else { V::select(x.eq(V::zero()), x, y) };
        // NaN and infinity come out as NaN of the scalar functions too.
        let regular = x.abs().le(k!(TRIG_LIMIT));
        let irregular = V::select(regular, V::zero(), one());
        if V::any(irregular.eq(one())) {
            let slow = match COS {
                _ if !V::SCALARS => k!(NAN),
                true => lanes1::<V, CosScalar>(x),
                false => lanes1::<V, SinScalar>(x),
            };
            return V::select(regular, y, slow);
        }
        y
    }
}

/// Sine.
#[inline(always)]
pub(crate) unsafe fn sin<V: Vector>(x: V) -> V {
    v! { trig::<V, false>(x) }
}

/// Cosine.
#[inline(always)]
pub(crate) unsafe fn cos<V: Vector>(x: V) -> V {
    v! { trig::<V, true>(x) }
}

/// `a^b` from machine operations alone, for what has no standard library: `exp(b log |a|)`, the logarithm in two numbers,
/// so that the result is within two units of the last place. Signs and special values are those of IEEE 754.
#[inline(always)]
unsafe fn pow_by_parts<V: Vector>(a: V, b: V) -> V {
    v! {
        let (x, zero) = (a.abs(), V::zero());
        let small = x.lt(k!(MIN_NORMAL));
        let (k, m) = split(V::select(small, x.mul(k!(DENORMAL_SCALE.0)), x));
        let k = V::select(small, k.sub(k!(DENORMAL_SCALE.1)), k);
        // log(1 + f) = 2 s + s R(s²) with s = f / (2 + f), in two numbers.
        let f = m.sub(one());
        let t = k!(TWO).add(f);
        let t_low = f.sub(t.sub(k!(TWO)));
        let s = f.div(t);
        let s_low = s.neg_mul_add(t_low, s.neg_mul_add(t, f)).div(t);
        let z = s.mul(s);
        let low = s_low.add(s_low).add(s.mul(z.mul(poly(z, <V::Scalar as Consts>::LOG))));
        // With k ln 2, whose first part is exact; what the sum loses is exact too (Knuth).
        let (p, q) = (k.mul(k!(LN2.0)), s.add(s));
        let high = p.add(q);
        let of_q = high.sub(p);
        let lost = p.sub(high.sub(of_q)).add(q.sub(of_q));
        let low = low.add(lost).add(k.mul(k!(LN2.1)));
        let log = high.add(low);
        let log_low = low.sub(log.sub(high));
        let (is_zero, is_finite) = (x.eq(zero), x.lt(k!(INF)));
        let log = V::select(is_zero, k!(INF).neg(), V::select(is_finite, log, x));
        let y = b.mul(log);
        let y_low = b.mul_add(log_low, b.mul_add(log, y.neg()));
        // The order of the arguments keeps a NaN.
        let bounded = k!(EXP_RANGE.1).min_or(k!(EXP_RANGE.0).max_or(y));
        let y_low = V::select(bounded.eq(y), y_low, zero);
        let (n, p) = exp_reduced(bounded);
        let e = one::<V>().add(p);
        let size = e.mul_add(y_low, e).scale(n);
        let half = b.mul(k!(HALF));
        let other = V::select(b.floor().eq(b), size.neg(), V::select(is_finite, k!(NAN), size));
        let other = V::select(is_zero, V::select(b.floor().eq(b), size.neg(), size), other);
        let signed = V::select(half.floor().eq(half), size, other);
        let y = V::select(one::<V>().with_sign_of(a).lt(zero), signed, size);
        let y = V::select(b.abs().eq(k!(INF)), V::select(x.eq(one()), one(), y), y);
        V::select(b.eq(zero), one(), V::select(a.eq(one()), one(), y))
    }
}

/// `a^b`, lane by lane by the standard library where there is one.
#[inline(always)]
pub(crate) unsafe fn pow<V: Vector>(a: V, b: V) -> V {
    if !V::SCALARS {
        // SAFETY: as here.
        return unsafe { pow_by_parts(a, b) };
    }
    let mut x = [V::Scalar::ZERO; MAX_LANES];
    let mut y = [V::Scalar::ZERO; MAX_LANES];
    v! {
        a.store(x.as_mut_ptr());
        b.store(y.as_mut_ptr());
        for i in 0..V::LANES {
            x[i] = x[i].pow_scalar(y[i]);
        }
        V::load(x.as_ptr())
    }
}

/// `a² + b²`, and whether some lane of it is neither safely normal nor the square of an exact 0.
#[inline(always)]
unsafe fn squares<V: Vector>(a: V, b: V) -> (V, V::Mask, bool) {
    v! {
        let square = a.mul_add(a, b.mul(b));
        let (low, high) = (k!(SQUARE_RANGE.0), k!(SQUARE_RANGE.1));
        // Where the square is as it should be, it is its own nearest number in the range; a NaN is not.
        let good = square.max_or(low).min_or(high).eq(square);
        // What is left are the bits of both, of which a NaN's count as infinite.
        let rest = V::select(good, V::zero(), a.or(b).abs().min_or(k!(INF)));
        (square, good, V::any(V::zero().lt(rest)))
    }
}

/// `sqrt(a² + b²)` without overflow; infinite if either is.
#[inline(always)]
pub(crate) unsafe fn hypot<V: Vector>(a: V, b: V) -> V {
    v! {
        let (square, good, bad) = squares(a, b);
        let y = V::select(good, square.sqrt_normal(), V::zero());
        if !bad {
            return y;
        }
        let (far, _, back) = scaled_modulus(a, b, square);
        V::select(good, y, far.mul(back))
    }
}

/// `1 / sqrt(a² + b²)`; 0 if both are 0, or so small that it would be infinite.
#[inline(always)]
pub(crate) unsafe fn recip_hypot<V: Vector>(a: V, b: V) -> V {
    v! {
        let (square, good, bad) = squares(a, b);
        let y = V::select(good, square.rsqrt(), V::zero());
        if !bad {
            return y;
        }
        let (far, scale, _) = scaled_modulus(a, b, square);
        let far = one::<V>().div(far).mul(scale);
        V::select(good, y, V::select(far.eq(k!(INF)), V::zero(), far))
    }
}

/// The modulus of numbers whose `square` may have overflowed or vanished, times a power of 2, that power, and its
/// reciprocal.
#[inline(always)]
unsafe fn scaled_modulus<V: Vector>(a: V, b: V, square: V) -> (V, V, V) {
    v! {
        let (up, down) = (k!(SQUARE_SCALE.0), k!(SQUARE_SCALE.1));
        let (small, large) = (square.lt(k!(SQUARE_RANGE.0)), k!(SQUARE_RANGE.1).lt(square));
        let scale = V::select(small, up, V::select(large, down, one()));
        let back = V::select(small, down, V::select(large, up, one()));
        let (c, d) = (a.abs().mul(scale), b.abs().mul(scale));
        let y = c.mul_add(c, d.mul(d)).sqrt();
        let infinite = k!(INF);
        let y = V::select(c.eq(infinite), infinite, V::select(d.eq(infinite), infinite, y));
        (y, scale, back)
    }
}

/// −1, 0 or 1; 0 at ±0, NaN at NaN.
#[inline(always)]
pub(crate) unsafe fn sign<V: Vector>(x: V) -> V {
    v! {
        let one = one::<V>();
        let y = V::select(V::zero().lt(x), one, V::zero());
        let y = V::select(x.lt(V::zero()), one.neg(), y);
        V::select(x.eq(x), y, x)
    }
}

/// `1 / x`.
#[inline(always)]
pub(crate) unsafe fn recip<V: Vector>(x: V) -> V {
    v! { one::<V>().div(x) }
}

/// Lanes of the widest vector.
const MAX_LANES: usize = 16;

/// A scalar function, as a type so that no closure is needed.
trait Scalar {
    fn apply<R: Real>(x: R) -> R;
}
struct SinScalar;
struct CosScalar;
impl Scalar for SinScalar {
    #[inline(always)]
    fn apply<R: Real>(x: R) -> R {
        Hooks::sin_scalar(x)
    }
}
impl Scalar for CosScalar {
    #[inline(always)]
    fn apply<R: Real>(x: R) -> R {
        Hooks::cos_scalar(x)
    }
}

#[inline(always)]
unsafe fn lanes1<V: Vector, F: Scalar>(x: V) -> V {
    let mut lanes = [V::Scalar::ZERO; MAX_LANES];
    v! {
        x.store(lanes.as_mut_ptr());
        for lane in &mut lanes[..V::LANES] {
            *lane = F::apply(*lane);
        }
        V::load(lanes.as_ptr())
    }
}
