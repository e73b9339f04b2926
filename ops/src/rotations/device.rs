//! The rotations on a device: a layer is a phase, and the row lies in shared memory.

use retrograd_engine::device::{Building, DeviceKernel, Entry, Piece, Value};

use super::kernel::Layer;
use super::{Rotations, RotationsGrad};

/// Layers of rows of the last axis, how many rows an entry has, and rotations in all. Sizes were checked when it was
/// recorded.
struct Sizes {
    layers: Vec<Layer>,
    n: usize,
    inner: usize,
    count: usize,
}

impl Sizes {
    fn of(style: super::RotationStyle, x: &Entry) -> Sizes {
        let n = x.line();
        let layers: Vec<Layer> = style.layers(n).map(|l| l.to_vec()).unwrap_or_default();
        let layers: Vec<Layer> = layers.into_iter().filter(|l| l.groups > 0).collect();
        let count = layers.iter().map(|l| l.groups * l.distance).sum();
        Sizes { layers, n, inner: x.width() / n, count }
    }

    fn pairs(&self, layer: usize) -> usize {
        self.layers[layer].groups * self.layers[layer].distance
    }
}

/// A row of the entry in shared memory: planes one behind the other, from an element on.
#[derive(Clone, Copy)]
struct Row {
    start: usize,
    width: usize,
    planes: usize,
}

type Number = Vec<Value>;

impl Row {
    fn read(self, k: &mut Piece<'_, '_>, index: Value) -> Number {
        (0..self.planes)
            .map(|plane| {
                let at = k.code().add(index, self.start + plane * self.width);
                k.shared(at)
            })
            .collect()
    }

    fn write(self, k: &mut Piece<'_, '_>, index: Value, value: &[Value]) {
        for (plane, value) in value.iter().enumerate() {
            let at = k.code().add(index, self.start + plane * self.width);
            k.store_shared(at, *value);
        }
    }

    /// Copies an element of an input here.
    fn fill(self, k: &mut Piece<'_, '_>, input: usize, piece: Value) {
        let value: Number = (0..self.planes).map(|plane| k.input(input, plane, piece)).collect();
        self.write(k, piece, &value);
    }
}

/// `a u + b v`.
fn mix(k: &mut Piece<'_, '_>, a: Value, u: &[Value], b: Value, v: &[Value]) -> Number {
    (u.iter().zip(v))
        .map(|(u, v)| {
            let bv = k.code().mul(b, *v);
            k.code().fma(a, *u, bv)
        })
        .collect()
}

/// `(re + i im) z`.
fn times(k: &mut Piece<'_, '_>, re: Value, im: Value, z: &[Value]) -> Number {
    let [x, y] = z else { return z.to_vec() };
    let (minus, plus) = (k.code().mul(im, *y), k.code().mul(im, *x));
    let minus = k.code().neg(minus);
    vec![k.code().fma(re, *x, minus), k.code().fma(re, *y, plus)]
}

/// Numbers of a rotation: cosine, sine, and the parts of its phase.
struct Turn {
    c: Value,
    s: Value,
    phase: Option<(Value, Value)>,
}

/// A pair of a layer: number of its rotation, places of its elements, and its numbers.
fn pair(
    k: &mut Piece<'_, '_>,
    sizes: &Sizes,
    layer: usize,
    piece: Value,
    (table, phases): (usize, bool),
) -> (Value, (Value, Value), Turn) {
    let l = sizes.layers[layer];
    let pairs = sizes.pairs(layer);
    let (part, own) = (k.code().div(piece, pairs), k.code().rem(piece, pairs));
    let (group, j) = (k.code().div(own, l.distance), k.code().rem(own, l.distance));
    let p = k.code().mul(group, 2 * l.distance);
    let p = k.code().add(p, j);
    let p = k.code().add(p, l.first);
    let base = k.code().mul(part, sizes.n);
    let p = k.code().add(base, p);
    let q = k.code().add(p, l.distance);
    let number = k.code().add(own, l.start);
    let entry = |k: &mut Piece<'_, '_>, part: usize| {
        let at = k.code().add(number, part * sizes.count);
        k.input(table, 0, at)
    };
    let (c, s) = (entry(k, 0), entry(k, 1));
    let phase = phases.then(|| (entry(k, 2), entry(k, 3)));
    (number, (p, q), Turn { c, s, phase })
}

impl Turn {
    fn forward(&self, k: &mut Piece<'_, '_>, p: &[Value], q: &[Value]) -> [Number; 2] {
        let q = match self.phase {
            Some((re, im)) => times(k, re, im, q),
            None => q.to_vec(),
        };
        let minus = k.code().neg(self.s);
        [mix(k, self.c, p, minus, &q), mix(k, self.s, p, self.c, &q)]
    }

    fn backward(&self, k: &mut Piece<'_, '_>, p: &[Value], q: &[Value]) -> [Number; 2] {
        let minus = k.code().neg(self.s);
        let mut w = mix(k, minus, p, self.c, q);
        if let Some((re, im)) = self.phase {
            let im = k.code().neg(im);
            w = times(k, re, im, &w);
        }
        [mix(k, self.c, p, self.s, q), w]
    }
}

impl DeviceKernel for Rotations {
    fn phases(&self, inputs: &[Entry], _: &Entry) -> Vec<usize> {
        let sizes = Sizes::of(self.style, &inputs[0]);
        let width = inputs[0].width();
        let mut layers: Vec<usize> = (0..sizes.layers.len()).map(|l| sizes.inner * sizes.pairs(l)).collect();
        if self.adjoint {
            layers.reverse();
        }
        std::iter::once(width).chain(layers).chain([width]).collect()
    }

    fn shared(&self, _: &[Entry], output: &Entry) -> usize {
        output.dtype.planes() * output.width()
    }

    fn piece(&self, k: &mut Piece<'_, '_>, phase: usize, piece: Value) {
        let sizes = Sizes::of(self.style, &k.inputs[0]);
        let row = Row { start: 0, width: k.output.width(), planes: k.planes() };
        let last = sizes.layers.len() + 1;
        if phase == 0 {
            return row.fill(k, 0, piece);
        }
        if phase == last {
            let value = row.read(k, piece);
            for (plane, value) in value.into_iter().enumerate() {
                k.store(plane, piece, value);
            }
            return;
        }
        let layer = if self.adjoint { last - 1 - phase } else { phase - 1 };
        let (_, (p, q), turn) = pair(k, &sizes, layer, piece, (1, self.phases));
        let (x, y) = (row.read(k, p), row.read(k, q));
        let [x, y] = if self.adjoint { turn.backward(k, &x, &y) } else { turn.forward(k, &x, &y) };
        row.write(k, p, &x);
        row.write(k, q, &y);
    }
}

/// What a phase of the gradient does.
#[derive(Clone, Copy)]
enum Does {
    /// Takes `u` and `v`.
    Fill,
    /// Copies the row before layer `l` to that behind it, and turns that.
    Copy(usize),
    Turn(usize),
    /// Adds to the numbers of layer `l`, and turns the cotangents back.
    Gradient(usize),
}

fn order(layers: usize) -> Vec<Does> {
    let forward = (0..layers.saturating_sub(1)).flat_map(|l| [Does::Copy(l), Does::Turn(l)]);
    std::iter::once(Does::Fill).chain(forward).chain((0..layers).rev().map(Does::Gradient)).collect()
}

impl DeviceKernel for RotationsGrad {
    fn phases(&self, inputs: &[Entry], _: &Entry) -> Vec<usize> {
        let sizes = Sizes::of(self.style, &inputs[0]);
        let pieces = |does: &Does| match *does {
            Does::Fill | Does::Copy(_) => inputs[0].width(),
            Does::Turn(l) => sizes.inner * sizes.pairs(l),
            Does::Gradient(l) => sizes.pairs(l),
        };
        order(sizes.layers.len()).iter().map(pieces).collect()
    }

    fn shared(&self, inputs: &[Entry], _: &Entry) -> usize {
        let layers = Sizes::of(self.style, &inputs[0]).layers.len().max(1);
        (layers + 1) * inputs[0].dtype.planes() * inputs[0].width()
    }

    fn piece(&self, k: &mut Piece<'_, '_>, phase: usize, piece: Value) {
        let sizes = Sizes::of(self.style, &k.inputs[0]);
        let (width, planes) = (k.inputs[0].width(), k.inputs[0].dtype.planes());
        // The cotangents, then what every layer is applied to.
        let row = |number: usize| Row { start: number * planes * width, width, planes };
        let (bars, table) = (row(0), (2, self.phases));
        match order(sizes.layers.len())[phase] {
            Does::Fill => {
                bars.fill(k, 1, piece);
                row(1).fill(k, 0, piece);
            }
            Does::Copy(l) => {
                let value = row(1 + l).read(k, piece);
                row(2 + l).write(k, piece, &value);
            }
            Does::Turn(l) => {
                let (_, (p, q), turn) = pair(k, &sizes, l, piece, table);
                let (x, y) = (row(1 + l).read(k, p), row(1 + l).read(k, q));
                let [x, y] = turn.forward(k, &x, &y);
                row(2 + l).write(k, p, &x);
                row(2 + l).write(k, q, &y);
            }
            Does::Gradient(l) => {
                let zero = k.number(0.0);
                let parts = if self.phases { 4 } else { 2 };
                let sums: Vec<Value> = (0..parts).map(|_| k.variable(zero)).collect();
                let (number, (p0, q0), turn) = pair(k, &sizes, l, piece, table);
                k.each(0, sizes.inner, |k, part| {
                    let skip = k.code().mul(part, sizes.n);
                    let (p, q) = (k.code().add(p0, skip), k.code().add(q0, skip));
                    let (x_p, x_q) = (row(1 + l).read(k, p), row(1 + l).read(k, q));
                    let (p_bar, q_bar) = (bars.read(k, p), bars.read(k, q));
                    let w = match turn.phase {
                        Some((re, im)) => times(k, re, im, &x_q),
                        None => x_q.clone(),
                    };
                    let add = |k: &mut Piece<'_, '_>, sum: usize, minus: bool, a: Value, b: Value| {
                        let a = if minus { k.code().neg(a) } else { a };
                        let next = k.code().fma(a, b, sums[sum]);
                        k.code().set(sums[sum], next);
                    };
                    for c in 0..planes {
                        add(k, 0, false, p_bar[c], x_p[c]);
                        add(k, 0, false, q_bar[c], w[c]);
                        add(k, 1, false, q_bar[c], x_p[c]);
                        add(k, 1, true, p_bar[c], w[c]);
                    }
                    if turn.phase.is_some() {
                        let minus = k.code().neg(turn.s);
                        let w_bar = mix(k, minus, &p_bar, turn.c, &q_bar);
                        add(k, 2, false, w_bar[0], x_q[0]);
                        add(k, 2, false, w_bar[1], x_q[1]);
                        add(k, 3, false, w_bar[1], x_q[0]);
                        add(k, 3, true, w_bar[0], x_q[1]);
                    }
                    let [p_bar, q_bar] = turn.backward(k, &p_bar, &q_bar);
                    bars.write(k, p, &p_bar);
                    bars.write(k, q, &q_bar);
                });
                for (part, sum) in sums.into_iter().enumerate() {
                    let at = k.code().add(number, part * sizes.count);
                    k.add(0, at, sum);
                }
            }
        }
    }
}
