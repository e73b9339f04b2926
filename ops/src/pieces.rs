//! What the device code of several operations is made of.

use retrograd_engine::device::{Building, Piece, Value};
use retrograd_engine::expr::Unary;

/// Whether an index is one of `count`, and the nearest that is. `count` is not 0.
pub(crate) fn index_of(k: &mut Piece<'_, '_>, index: Value, count: usize) -> (Value, Value) {
    let near = k.code().max(index, 0);
    let near = k.code().min(near, count - 1);
    (k.code().eq(near, index), near)
}

/// The sum of `term` over so many indices.
pub(crate) fn sum(
    k: &mut Piece<'_, '_>,
    count: usize,
    term: impl FnOnce(&mut Piece<'_, '_>, Value) -> Value,
) -> Value {
    let zero = k.number(0.0);
    let sum = k.variable(zero);
    k.each_of(count, |k, i| {
        let term = term(k, i);
        let next = k.code().add(sum, term);
        k.code().set(sum, next);
    });
    k.join(sum, |k, a, b| k.code().add(a, b))
}

/// The maximum `m` of `count` elements of input 0 from `base`, and `Σ exp(x − m)`: as
/// [`exp_sum`](crate::exp_sum::exp_sum) does it.
pub(crate) fn exp_sum(k: &mut Piece<'_, '_>, base: Value, count: usize) -> (Value, Value) {
    let least = k.number(f64::NEG_INFINITY);
    let most = k.variable(least);
    let larger = |k: &mut Piece<'_, '_>, most: Value, x: Value| {
        let more = k.code().lt(most, x);
        k.code().select(more, x, most)
    };
    k.each_of(count, |k, i| {
        let at = k.code().add(base, i);
        let x = k.input(0, 0, at);
        let next = larger(k, most, x);
        k.code().set(most, next);
    });
    let most = k.join(most, larger);
    let sum = sum(k, count, |k, i| exp_term(k, base, i, most));
    (most, sum)
}

/// `exp(x_i − m)` of element `i` from `base`.
pub(crate) fn exp_term(k: &mut Piece<'_, '_>, base: Value, i: Value, most: Value) -> Value {
    let at = k.code().add(base, i);
    let x = k.input(0, 0, at);
    let x = k.code().sub(x, most);
    k.unary(Unary::Exp, x)
}

/// The larger of two numbers; a NaN on either side stays.
pub(crate) fn larger(k: &mut Piece<'_, '_>, a: Value, b: Value) -> Value {
    let more = k.code().lt(a, b);
    let next = k.code().select(more, b, a);
    let number = k.code().eq(b, b);
    let next = k.code().select(number, next, b);
    let held = k.code().eq(a, a);
    k.code().select(held, next, a)
}

/// Axes that are reduced: size and distance, the last one varying slowest.
pub(crate) type Axes = Vec<(usize, usize)>;

/// For output `piece` of a reduction of input 0 to `dims` (as broadcasting would stretch them back): its first element,
/// and the axes that lead to the others.
pub(crate) fn reduced(k: &mut Piece<'_, '_>, dims: &[usize], piece: Value) -> (Value, Axes) {
    let from_dims = k.inputs[0].dims.clone();
    let (mut from, mut to, mut base, mut axes) = (1, 1, Value::Int(0), Vec::new());
    for axis in (0..from_dims.len()).rev() {
        let kept = (dims.len() + axis).checked_sub(from_dims.len()).map_or(1, |a| dims[a]);
        if kept == from_dims[axis] {
            let along = k.code().div(piece, to);
            let along = k.code().rem(along, kept);
            let skip = k.code().mul(along, from);
            base = k.code().add(base, skip);
        } else {
            axes.push((from_dims[axis], from));
        }
        (from, to) = (from * from_dims[axis], to * kept);
    }
    (base, axes)
}
