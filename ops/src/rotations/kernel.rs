//! Loops of the rotations: a block of rows at a time, turned so that its rows are the lanes.
//!
//! A block holds element `j` of all its rows side by side, real plane, then imaginary plane. An element is computed
//! by the same operations in the same order whatever the number of rows, so their grouping does not show in it.

use retrograd_engine::cpu::{Multiversion, Real, fma, multiversion};
use retrograd_engine::kernel::{Args, In, Out};

use super::RotationStyle;
use crate::lanes::{load, store, total};

/// Where the rotations of a layer act: pairs `(p, p + distance)` in `groups` groups of `2·distance` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layer {
    /// Number of the first rotation.
    pub(super) start: usize,
    /// First element.
    pub(super) first: usize,
    pub(super) distance: usize,
    pub(super) groups: usize,
}

/// The numbers of the rotations, as in the table.
#[derive(Clone, Copy)]
struct Table<'a, R> {
    cos: &'a [R],
    sin: &'a [R],
    /// Parts of `e^{iφ}`; empty without phases.
    phase: (&'a [R], &'a [R]),
}

impl<'a, R: Real> Table<'a, R> {
    fn new(table: &In<'a, R>, phases: bool) -> Table<'a, R> {
        let row = table.row(0);
        let count = row.len() / if phases { 4 } else { 2 };
        let part = |k: usize| &row[k * count..(k + 1) * count];
        let phase = if phases { (part(2), part(3)) } else { (&row[..0], &row[..0]) };
        Table { cos: part(0), sin: part(1), phase }
    }
}

/// Sizes of a call: rows of `n` elements, `inner` of them in a row of the batch.
#[derive(Clone, Copy)]
struct Sizes {
    n: usize,
    inner: usize,
    planes: usize,
}

impl Sizes {
    fn of<R: Real>(x: &In<'_, R>) -> Option<Sizes> {
        let n = x.dims().last().copied().filter(|&n| n > 0)?;
        Some(Sizes { n, inner: x.width() / n, planes: if x.is_complex() { 2 } else { 1 } })
    }

    /// Real elements of a block of `B` rows.
    fn block<const B: usize>(self) -> usize {
        self.planes * self.n * B
    }
}

/// Rows `at..at + rows` of `x`, turned; zeros in the lanes behind them.
#[inline(always)]
fn read<R: Real, const B: usize>(x: &In<'_, R>, sizes: Sizes, at: usize, rows: usize, block: &mut [R]) {
    let Sizes { n, inner, planes } = sizes;
    if rows < B {
        block.fill(R::ZERO);
    }
    for lane in 0..rows {
        let (row, part) = ((at + lane) / inner, (at + lane) % inner);
        for plane in 0..planes {
            let from = if plane == 0 { x.row(row) } else { x.row_im(row) };
            let from = &from[part * n..(part + 1) * n];
            let to = &mut block[plane * n * B..(plane + 1) * n * B];
            for j in 0..n {
                to[j * B + lane] = from[j];
            }
        }
    }
}

/// Writes a block to rows `at..at + rows` of `y`.
#[inline(always)]
fn write<R: Real, const B: usize>(y: &mut Out<'_, R>, sizes: Sizes, at: usize, rows: usize, block: &[R]) {
    let Sizes { n, inner, planes } = sizes;
    for lane in 0..rows {
        let (row, part) = ((at + lane) / inner, (at + lane) % inner);
        for plane in 0..planes {
            let to = if plane == 0 { y.row(row) } else { y.row_im(row) };
            let to = &mut to[part * n..(part + 1) * n];
            let from = &block[plane * n * B..(plane + 1) * n * B];
            for j in 0..n {
                to[j] = from[j * B + lane];
            }
        }
    }
}

/// The elements of a pair: one vector a plane for each.
type Pair<R, const B: usize> = [[[R; B]; 2]; 2];

/// Runs `turn` on every pair of a layer.
#[inline(always)]
fn each_pair<R: Real, const B: usize>(
    layer: Layer,
    sizes: Sizes,
    block: &mut [R],
    mut turn: impl FnMut(usize, Pair<R, B>) -> Pair<R, B>,
) {
    let plane = sizes.n * B;
    for g in 0..layer.groups {
        for j in 0..layer.distance {
            let k = layer.start + g * layer.distance + j;
            let p = (layer.first + 2 * g * layer.distance + j) * B;
            let q = p + layer.distance * B;
            let mut pair = [[[R::ZERO; B]; 2]; 2];
            for c in 0..sizes.planes {
                pair[0][c] = load(&block[c * plane + p..]);
                pair[1][c] = load(&block[c * plane + q..]);
            }
            let turned = turn(k, pair);
            for c in 0..sizes.planes {
                store(&mut block[c * plane + p..], &turned[0][c]);
                store(&mut block[c * plane + q..], &turned[1][c]);
            }
        }
    }
}

/// `(re + i·im) · z`, or with the conjugate.
#[inline(always)]
fn times<R: Real, const B: usize, const FMA: bool>(re: R, im: R, z: &[[R; B]; 2]) -> [[R; B]; 2] {
    let mut y = *z;
    for l in 0..B {
        y[0][l] = fma::<R, FMA>(re, z[0][l], -(im * z[1][l]));
        y[1][l] = fma::<R, FMA>(re, z[1][l], im * z[0][l]);
    }
    y
}

/// `a·u + b·v`.
#[inline(always)]
fn mix<R: Real, const B: usize, const FMA: bool>(
    a: R,
    u: &[[R; B]; 2],
    b: R,
    v: &[[R; B]; 2],
) -> [[R; B]; 2] {
    let mut y = *u;
    for c in 0..2 {
        for l in 0..B {
            y[c][l] = fma::<R, FMA>(a, u[c][l], b * v[c][l]);
        }
    }
    y
}

/// One layer on a block.
#[inline(always)]
fn forward<R: Real, const B: usize, const FMA: bool>(
    layer: Layer,
    table: Table<'_, R>,
    sizes: Sizes,
    block: &mut [R],
) {
    each_pair::<R, B>(layer, sizes, block, |k, [p, mut q]| {
        let (c, s) = (table.cos[k], table.sin[k]);
        if !table.phase.0.is_empty() {
            q = times::<R, B, FMA>(table.phase.0[k], table.phase.1[k], &q);
        }
        [mix::<R, B, FMA>(c, &p, -s, &q), mix::<R, B, FMA>(s, &p, c, &q)]
    });
}

/// The conjugate transpose of one layer on a block.
#[inline(always)]
fn backward<R: Real, const B: usize, const FMA: bool>(
    layer: Layer,
    table: Table<'_, R>,
    sizes: Sizes,
    block: &mut [R],
) {
    each_pair::<R, B>(layer, sizes, block, |k, [p, q]| {
        let (c, s) = (table.cos[k], table.sin[k]);
        let mut w = mix::<R, B, FMA>(-s, &p, c, &q);
        if !table.phase.0.is_empty() {
            w = times::<R, B, FMA>(table.phase.0[k], -table.phase.1[k], &w);
        }
        [mix::<R, B, FMA>(c, &p, s, &q), w]
    });
}

/// The product for every row: inputs `x`, the table.
pub(super) struct Apply {
    pub(super) style: RotationStyle,
    pub(super) phases: bool,
    pub(super) adjoint: bool,
}

impl Apply {
    /// In blocks of `B` rows, or one by one where there are few.
    pub(super) fn run<R: Real, const B: usize>(self, args: Args<'_, R>) {
        let Some(sizes) = Sizes::of(&args.inputs[0]) else { return };
        // A layer cannot be refused here: the type was checked when the product was recorded.
        let Ok(layers) = self.style.layers(sizes.n) else { return };
        let table = Table::new(&args.inputs[1], self.phases);
        let rows = args.rows * sizes.inner;
        if rows < B / 2 {
            multiversion(Rows::<R, 1> { adjoint: self.adjoint, layers: &layers, table, sizes, rows, args });
        } else {
            multiversion(Rows::<R, B> { adjoint: self.adjoint, layers: &layers, table, sizes, rows, args });
        }
    }
}

struct Rows<'a, R: Real, const B: usize> {
    adjoint: bool,
    layers: &'a [Layer],
    table: Table<'a, R>,
    sizes: Sizes,
    rows: usize,
    args: Args<'a, R>,
}

impl<R: Real, const B: usize> Multiversion for Rows<'_, R, B> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(mut self) {
        let block = &mut self.args.scratch[..self.sizes.block::<B>()];
        let mut at = 0;
        while at < self.rows {
            let rows = B.min(self.rows - at);
            read::<R, B>(&self.args.inputs[0], self.sizes, at, rows, block);
            if self.adjoint {
                for &layer in self.layers.iter().rev() {
                    backward::<R, B, FMA>(layer, self.table, self.sizes, block);
                }
            } else {
                for &layer in self.layers {
                    forward::<R, B, FMA>(layer, self.table, self.sizes, block);
                }
            }
            write::<R, B>(&mut self.args.output, self.sizes, at, rows, block);
            at += rows;
        }
    }
}

/// The cotangent of the table, added to the output: inputs `u`, `v`, the table.
pub(super) struct Grad {
    pub(super) style: RotationStyle,
    pub(super) phases: bool,
}

impl Grad {
    /// In blocks of `B` rows, or one by one where there are few.
    pub(super) fn run<R: Real, const B: usize>(self, args: Args<'_, R>) {
        let Some(sizes) = Sizes::of(&args.inputs[0]) else { return };
        let Ok(layers) = self.style.layers(sizes.n) else { return };
        let table = Table::new(&args.inputs[2], self.phases);
        let rows = args.rows * sizes.inner;
        if rows < B / 2 {
            multiversion(Sums::<R, 1> { layers: &layers, table, sizes, rows, args });
        } else {
            multiversion(Sums::<R, B> { layers: &layers, table, sizes, rows, args });
        }
    }
}

struct Sums<'a, R: Real, const B: usize> {
    layers: &'a [Layer],
    table: Table<'a, R>,
    sizes: Sizes,
    rows: usize,
    args: Args<'a, R>,
}

impl<R: Real, const B: usize> Multiversion for Sums<'_, R, B> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(mut self) {
        let (sizes, table) = (self.sizes, self.table);
        let (size, plane) = (sizes.block::<B>(), sizes.n * B);
        let count = table.cos.len();
        let (bars, rest) = self.args.scratch.split_at_mut(size);
        // What every layer is applied to, and what the last one gives.
        let states = &mut rest[..(self.layers.len() + 1) * size];
        let sums = self.args.output.row(0);
        let mut at = 0;
        while at < self.rows {
            let rows = B.min(self.rows - at);
            read::<R, B>(&self.args.inputs[0], sizes, at, rows, &mut states[..size]);
            for (l, &layer) in self.layers.iter().enumerate() {
                let (before, after) = states[l * size..(l + 2) * size].split_at_mut(size);
                after.copy_from_slice(before);
                forward::<R, B, FMA>(layer, table, sizes, after);
            }
            read::<R, B>(&self.args.inputs[1], sizes, at, rows, bars);
            for (l, &layer) in self.layers.iter().enumerate().rev() {
                let state = &states[l * size..(l + 1) * size];
                each_pair::<R, B>(layer, sizes, bars, |k, [p_bar, q_bar]| {
                    let r = k - layer.start;
                    let p =
                        (layer.first + 2 * (r / layer.distance) * layer.distance + r % layer.distance) * B;
                    let q = p + layer.distance * B;
                    let (mut x_p, mut x_q) = ([[R::ZERO; B]; 2], [[R::ZERO; B]; 2]);
                    for c in 0..sizes.planes {
                        x_p[c] = load(&state[c * plane + p..]);
                        x_q[c] = load(&state[c * plane + q..]);
                    }
                    let (c, s) = (table.cos[k], table.sin[k]);
                    let phases = !table.phase.0.is_empty();
                    let w = if phases {
                        times::<R, B, FMA>(table.phase.0[k], table.phase.1[k], &x_q)
                    } else {
                        x_q
                    };
                    let (mut by_cos, mut by_sin) = ([R::ZERO; B], [R::ZERO; B]);
                    for c in 0..sizes.planes {
                        for l in 0..B {
                            by_cos[l] = fma::<R, FMA>(p_bar[c][l], x_p[c][l], by_cos[l]);
                            by_cos[l] = fma::<R, FMA>(q_bar[c][l], w[c][l], by_cos[l]);
                            by_sin[l] = fma::<R, FMA>(q_bar[c][l], x_p[c][l], by_sin[l]);
                            by_sin[l] = fma::<R, FMA>(-p_bar[c][l], w[c][l], by_sin[l]);
                        }
                    }
                    sums[k] += total(by_cos);
                    sums[count + k] += total(by_sin);
                    let mut w_bar = mix::<R, B, FMA>(-s, &p_bar, c, &q_bar);
                    if phases {
                        let (mut by_re, mut by_im) = ([R::ZERO; B], [R::ZERO; B]);
                        for l in 0..B {
                            by_re[l] = fma::<R, FMA>(w_bar[0][l], x_q[0][l], w_bar[1][l] * x_q[1][l]);
                            by_im[l] = fma::<R, FMA>(w_bar[1][l], x_q[0][l], -(w_bar[0][l] * x_q[1][l]));
                        }
                        sums[2 * count + k] += total(by_re);
                        sums[3 * count + k] += total(by_im);
                        w_bar = times::<R, B, FMA>(table.phase.0[k], -table.phase.1[k], &w_bar);
                    }
                    [mix::<R, B, FMA>(c, &p_bar, s, &q_bar), w_bar]
                });
            }
            at += rows;
        }
    }
}
