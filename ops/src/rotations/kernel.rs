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

/// The elements of a pair: one vector for each of `C` planes of each.
type Pair<R, const B: usize, const C: usize> = [[[R; B]; C]; 2];

/// What is done to a pair. A trait with methods that are always inlined, because a closure is a function of its own,
/// compiled without the target features of the loop around it.
trait Turn<R: Real, const B: usize, const C: usize, const FMA: bool> {
    /// Pair `k` of all, whose vectors begin at `p` and `q` in a plane of the block.
    fn turn(&mut self, k: usize, at: (usize, usize), pair: Pair<R, B, C>) -> Pair<R, B, C>;
}

/// Runs `turn` on every pair of a layer.
#[inline(always)]
fn each_pair<R: Real, const B: usize, const C: usize, const FMA: bool>(
    layer: Layer,
    n: usize,
    block: &mut [R],
    mut turn: impl Turn<R, B, C, FMA>,
) {
    for g in 0..layer.groups {
        for j in 0..layer.distance {
            let k = layer.start + g * layer.distance + j;
            let p = (layer.first + 2 * g * layer.distance + j) * B;
            let q = p + layer.distance * B;
            let pair = [vectors::<R, B, C>(block, n, p), vectors::<R, B, C>(block, n, q)];
            let turned = turn.turn(k, (p, q), pair);
            for c in 0..C {
                store(&mut block[c * n * B + p..], &turned[0][c]);
                store(&mut block[c * n * B + q..], &turned[1][c]);
            }
        }
    }
}

/// The vectors of all planes that begin at `at`.
#[inline(always)]
fn vectors<R: Real, const B: usize, const C: usize>(block: &[R], n: usize, at: usize) -> [[R; B]; C] {
    let mut v = [[R::ZERO; B]; C];
    for c in 0..C {
        v[c] = load(&block[c * n * B + at..]);
    }
    v
}

/// `(re + i·im) · z`, of complex numbers.
#[inline(always)]
fn times<R: Real, const B: usize, const C: usize, const FMA: bool>(
    re: R,
    im: R,
    z: &[[R; B]; C],
) -> [[R; B]; C] {
    let mut y = *z;
    for l in 0..B {
        y[0][l] = fma::<R, FMA>(re, z[0][l], -(im * z[1][l]));
    }
    for l in 0..B {
        y[1][l] = fma::<R, FMA>(re, z[1][l], im * z[0][l]);
    }
    y
}

/// `a·u + b·v`.
#[inline(always)]
fn mix<R: Real, const B: usize, const C: usize, const FMA: bool>(
    a: R,
    u: &[[R; B]; C],
    b: R,
    v: &[[R; B]; C],
) -> [[R; B]; C] {
    let mut y = *u;
    for c in 0..C {
        for l in 0..B {
            y[c][l] = fma::<R, FMA>(a, u[c][l], b * v[c][l]);
        }
    }
    y
}

impl<R: Real> Table<'_, R> {
    /// Rotation `k`.
    #[inline(always)]
    fn forward<const B: usize, const C: usize, const FMA: bool>(
        &self,
        k: usize,
        [p, mut q]: Pair<R, B, C>,
    ) -> Pair<R, B, C> {
        let (c, s) = (self.cos[k], self.sin[k]);
        if !self.phase.0.is_empty() {
            q = times::<R, B, C, FMA>(self.phase.0[k], self.phase.1[k], &q);
        }
        [mix::<R, B, C, FMA>(c, &p, -s, &q), mix::<R, B, C, FMA>(s, &p, c, &q)]
    }

    /// Its conjugate transpose.
    #[inline(always)]
    fn backward<const B: usize, const C: usize, const FMA: bool>(
        &self,
        k: usize,
        [p, q]: Pair<R, B, C>,
    ) -> Pair<R, B, C> {
        let (c, s) = (self.cos[k], self.sin[k]);
        let mut w = mix::<R, B, C, FMA>(-s, &p, c, &q);
        if !self.phase.0.is_empty() {
            w = times::<R, B, C, FMA>(self.phase.0[k], -self.phase.1[k], &w);
        }
        [mix::<R, B, C, FMA>(c, &p, s, &q), w]
    }
}

struct Forward<'a, R>(Table<'a, R>);

impl<R: Real, const B: usize, const C: usize, const FMA: bool> Turn<R, B, C, FMA> for Forward<'_, R> {
    #[inline(always)]
    fn turn(&mut self, k: usize, _: (usize, usize), pair: Pair<R, B, C>) -> Pair<R, B, C> {
        self.0.forward::<B, C, FMA>(k, pair)
    }
}

struct Backward<'a, R>(Table<'a, R>);

impl<R: Real, const B: usize, const C: usize, const FMA: bool> Turn<R, B, C, FMA> for Backward<'_, R> {
    #[inline(always)]
    fn turn(&mut self, k: usize, _: (usize, usize), pair: Pair<R, B, C>) -> Pair<R, B, C> {
        self.0.backward::<B, C, FMA>(k, pair)
    }
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
        let adjoint = self.adjoint;
        let layers = &layers;
        match (rows < B / 2, sizes.planes) {
            (true, 1) => multiversion(Rows::<R, 1, 1> { adjoint, layers, table, sizes, rows, args }),
            (true, _) => multiversion(Rows::<R, 1, 2> { adjoint, layers, table, sizes, rows, args }),
            (false, 1) => multiversion(Rows::<R, B, 1> { adjoint, layers, table, sizes, rows, args }),
            (false, _) => multiversion(Rows::<R, B, 2> { adjoint, layers, table, sizes, rows, args }),
        }
    }
}

struct Rows<'a, R: Real, const B: usize, const C: usize> {
    adjoint: bool,
    layers: &'a [Layer],
    table: Table<'a, R>,
    sizes: Sizes,
    rows: usize,
    args: Args<'a, R>,
}

impl<R: Real, const B: usize, const C: usize> Multiversion for Rows<'_, R, B, C> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(mut self) {
        let n = self.sizes.n;
        let block = &mut self.args.scratch[..self.sizes.block::<B>()];
        let mut at = 0;
        while at < self.rows {
            let rows = B.min(self.rows - at);
            read::<R, B>(&self.args.inputs[0], self.sizes, at, rows, block);
            for l in 0..self.layers.len() {
                if self.adjoint {
                    let layer = self.layers[self.layers.len() - 1 - l];
                    each_pair::<R, B, C, FMA>(layer, n, block, Backward(self.table));
                } else {
                    each_pair::<R, B, C, FMA>(self.layers[l], n, block, Forward(self.table));
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
        let layers = &layers;
        match (rows < B / 2, sizes.planes) {
            (true, 1) => multiversion(Sums::<R, 1, 1> { layers, table, sizes, rows, args }),
            (true, _) => multiversion(Sums::<R, 1, 2> { layers, table, sizes, rows, args }),
            (false, 1) => multiversion(Sums::<R, B, 1> { layers, table, sizes, rows, args }),
            (false, _) => multiversion(Sums::<R, B, 2> { layers, table, sizes, rows, args }),
        }
    }
}

struct Sums<'a, R: Real, const B: usize, const C: usize> {
    layers: &'a [Layer],
    table: Table<'a, R>,
    sizes: Sizes,
    rows: usize,
    args: Args<'a, R>,
}

impl<R: Real, const B: usize, const C: usize> Multiversion for Sums<'_, R, B, C> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(mut self) {
        let (sizes, table) = (self.sizes, self.table);
        let (size, n) = (sizes.block::<B>(), sizes.n);
        let (bars, rest) = self.args.scratch.split_at_mut(size);
        // What every layer is applied to, and what the last one gives.
        let states = &mut rest[..(self.layers.len() + 1) * size];
        let sums = self.args.output.row(0);
        let mut at = 0;
        while at < self.rows {
            let rows = B.min(self.rows - at);
            read::<R, B>(&self.args.inputs[0], sizes, at, rows, &mut states[..size]);
            for l in 0..self.layers.len() {
                let (before, after) = states[l * size..(l + 2) * size].split_at_mut(size);
                after.copy_from_slice(before);
                each_pair::<R, B, C, FMA>(self.layers[l], n, after, Forward(table));
            }
            read::<R, B>(&self.args.inputs[1], sizes, at, rows, bars);
            for l in (0..self.layers.len()).rev() {
                let state = &states[l * size..(l + 1) * size];
                each_pair::<R, B, C, FMA>(self.layers[l], n, bars, Gradient { table, n, state, sums });
            }
            at += rows;
        }
    }
}

/// As [`Backward`], with the cotangents of the numbers of the rotations on the way.
struct Gradient<'a, R> {
    table: Table<'a, R>,
    n: usize,
    /// What the layer is applied to.
    state: &'a [R],
    /// Of cosines, sines, and both parts of the phases.
    sums: &'a mut [R],
}

impl<R: Real, const B: usize, const C: usize, const FMA: bool> Turn<R, B, C, FMA> for Gradient<'_, R> {
    #[inline(always)]
    fn turn(&mut self, k: usize, (p, q): (usize, usize), [p_bar, q_bar]: Pair<R, B, C>) -> Pair<R, B, C> {
        let table = self.table;
        let count = table.cos.len();
        let x_p = vectors::<R, B, C>(self.state, self.n, p);
        let x_q = vectors::<R, B, C>(self.state, self.n, q);
        let phases = !table.phase.0.is_empty();
        let w = if phases { times::<R, B, C, FMA>(table.phase.0[k], table.phase.1[k], &x_q) } else { x_q };
        let (mut by_cos, mut by_sin) = ([R::ZERO; B], [R::ZERO; B]);
        for c in 0..C {
            for l in 0..B {
                by_cos[l] = fma::<R, FMA>(p_bar[c][l], x_p[c][l], by_cos[l]);
                by_cos[l] = fma::<R, FMA>(q_bar[c][l], w[c][l], by_cos[l]);
            }
            for l in 0..B {
                by_sin[l] = fma::<R, FMA>(q_bar[c][l], x_p[c][l], by_sin[l]);
                by_sin[l] = fma::<R, FMA>(-p_bar[c][l], w[c][l], by_sin[l]);
            }
        }
        self.sums[k] += total(by_cos);
        self.sums[count + k] += total(by_sin);
        if phases {
            let w_bar = mix::<R, B, C, FMA>(-table.sin[k], &p_bar, table.cos[k], &q_bar);
            let (mut by_re, mut by_im) = ([R::ZERO; B], [R::ZERO; B]);
            for l in 0..B {
                by_re[l] = fma::<R, FMA>(w_bar[0][l], x_q[0][l], w_bar[1][l] * x_q[1][l]);
            }
            for l in 0..B {
                by_im[l] = fma::<R, FMA>(w_bar[1][l], x_q[0][l], -(w_bar[0][l] * x_q[1][l]));
            }
            self.sums[2 * count + k] += total(by_re);
            self.sums[3 * count + k] += total(by_im);
        }
        table.backward::<B, C, FMA>(k, [p_bar, q_bar])
    }
}
