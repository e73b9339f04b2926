//! Loops of the Kronecker product: one factor at a time, along one axis of every row.
//!
//! A row is a tensor `[outer, Q, inner]` to the factor at hand. With at least a vector's worth of inner elements
//! they are the lanes ([`strided`]); otherwise the rows of the result are ([`dense`]). Either way an element is
//! one chain of multiply-adds over ascending `q`, so neither the number of rows nor their grouping shows in it.

use retrograd_engine::cpu::{Multiversion, Real, multiversion};
use retrograd_engine::kernel::{Args, In};
use smallvec::SmallVec;

use super::across;
use crate::lanes::{axpy, load, load_part, mul_acc, scaled, store, store_spread, total};

/// Largest factor (in entries) that is copied to scratch memory in the order its loop reads.
const PACKED: usize = 1024;

/// A factor and where it acts: `[outer, q, inner] -> [outer, p, inner]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stage {
    pub(super) p: usize,
    pub(super) q: usize,
    pub(super) outer: usize,
    pub(super) inner: usize,
    /// Stored as `[q,p]`.
    pub(super) transpose: bool,
    /// To be conjugated.
    pub(super) conj: bool,
}

/// Stages in the order of application, and rows of how many elements they take and give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) stages: SmallVec<[Stage; 8]>,
    /// Elements of a row of `x`.
    pub(super) from: usize,
    /// Elements of a row of `y`.
    pub(super) to: usize,
    /// Planes of the product: 2 if any operand is complex.
    pub(super) planes: usize,
}

impl Stage {
    /// The conjugate transpose.
    pub(super) fn adjoint(self) -> Stage {
        Stage { p: self.q, q: self.p, transpose: !self.transpose, conj: !self.conj, ..self }
    }

    /// Elements of a row before the stage.
    pub(super) fn from(&self) -> usize {
        self.outer * self.q * self.inner
    }

    /// Elements of a row after the stage.
    fn to(&self) -> usize {
        self.outer * self.p * self.inner
    }

    fn is_strided(&self, lanes: usize) -> bool {
        self.inner >= lanes
    }

    /// Real elements of a copy in the order of the loop, one plane; 0 where the loop reads the factor itself.
    fn packed(&self, lanes: usize) -> usize {
        if self.is_strided(lanes) {
            return if self.p * self.q <= PACKED { self.p * self.q } else { 0 };
        }
        if self.p >= lanes && self.transpose && self.p * self.q > PACKED {
            return 0;
        }
        self.q * self.p.next_multiple_of(lanes)
    }

    /// Whether the gradient is summed in lanes over `inner`, not as a product.
    fn grad_in_lanes(&self, lanes: usize) -> bool {
        self.is_strided(lanes) && (2..=4).contains(&self.q) && self.p <= 4
    }
}

impl Chain {
    /// Entries of the factors before stage `k`: where its own begin in what is joined.
    pub(super) fn start_of(&self, k: usize) -> usize {
        self.stages[..k].iter().map(|s| s.p * s.q).sum()
    }

    pub(super) fn widest(&self) -> usize {
        let before = self.stages.iter().map(Stage::from).max().unwrap_or(0);
        before.max(self.to)
    }

    /// Whether one row alone does not fill the loops.
    fn is_thin(&self, lanes: usize) -> bool {
        let thin = |s: &Stage| !s.is_strided(lanes) && (s.p * s.q > PACKED || s.outer * s.inner < 4);
        self.stages.iter().any(thin)
    }

    /// Rows taken together: as many as stay in the cache nearest by, more where the loops need them.
    pub(super) fn block(&self, lanes: usize) -> usize {
        if self.is_thin(lanes) { 8 } else { (2048 / self.widest().max(1)).clamp(1, 8) }
    }

    /// Real elements of scratch memory of [`Apply`].
    pub(super) fn apply_scratch(&self, lanes: usize) -> usize {
        let packs: usize = self.stages.iter().map(|s| self.planes * s.packed(lanes)).sum();
        let along = packs + 4 * self.block(lanes) * self.widest();
        if self.goes_across(lanes) { along.max(self.across_scratch(lanes)) } else { along }
    }

    /// Real elements of scratch memory of [`Grad`].
    pub(super) fn grad_scratch(&self, lanes: usize) -> usize {
        if self.grads_go_across(lanes) {
            return self.across_grad_scratch(lanes);
        }
        let pack = |s: &Stage| self.planes * (s.packed(lanes) + s.adjoint().packed(lanes));
        let packs: usize = self.stages.iter().map(pack).sum();
        let rows = self.block(lanes);
        let saved: usize = self.stages.iter().map(|s| 2 * rows * s.from()).sum();
        packs + saved + 4 * rows * self.widest() + 2 * rows * self.right(lanes)
    }

    /// Elements a row of the copy that [`contract`] reads.
    pub(super) fn right(&self, lanes: usize) -> usize {
        let size = |s: &Stage| {
            let columns = if s.transpose { s.p } else { s.q };
            s.outer * s.inner * columns.next_multiple_of(lanes)
        };
        self.stages.iter().map(size).max().unwrap_or(0)
    }
}

pub(super) fn take<'a, R>(pool: &mut &'a mut [R], len: usize) -> &'a mut [R] {
    let (head, tail) = std::mem::take(pool).split_at_mut(len);
    *pool = tail;
    head
}

/// A stage ready to run.
struct Pass<'a, R: Real> {
    stage: Stage,
    strided: bool,
    re: &'a [R],
    im: &'a [R],
    /// Distance of neighbors along `p` and along `q`.
    steps: (usize, usize),
    /// −1 if the imaginary parts are to be negated.
    sign: R,
}

impl<'a, R: Real> Pass<'a, R> {
    fn new<const L: usize>(stage: Stage, factor: &In<'a, R>, pool: &mut &'a mut [R]) -> Pass<'a, R> {
        let (re, im) = row(factor, 0);
        let (p, q) = (stage.p, stage.q);
        let steps = if stage.transpose { (1, p) } else { (q, 1) };
        let sign = if stage.conj { -R::ONE } else { R::ONE };
        let strided = stage.is_strided(L);
        let len = stage.packed(L);
        if len == 0 {
            return Pass { stage, strided, re, im, steps, sign };
        }
        let to = if strided { (q, 1) } else { (1, p.next_multiple_of(L)) };
        let copy = |from: &[R], sign: R, out: &'a mut [R]| -> &'a [R] {
            out.fill(R::ZERO);
            if !from.is_empty() {
                for i in 0..p {
                    for j in 0..q {
                        out[i * to.0 + j * to.1] = sign * from[i * steps.0 + j * steps.1];
                    }
                }
            }
            out
        };
        let re = copy(re, R::ONE, take(pool, len));
        let im: &[R] = if im.is_empty() { im } else { copy(im, sign, take(pool, len)) };
        Pass { stage, strided, re, im, steps: to, sign: R::ONE }
    }

    /// Applies the stage to `rows` rows; the imaginary planes are empty in a real product.
    fn run<const L: usize>(&self, rows: usize, x: (&[R], &[R]), y: (&mut [R], &mut [R])) {
        if !self.im.is_empty() {
            multiversion(OneAxis::<R, L, true> { pass: self, rows, x, y });
            return;
        }
        multiversion(OneAxis::<R, L, false> { pass: self, rows, x: (x.0, &[]), y: (y.0, &mut []) });
        if !y.1.is_empty() {
            multiversion(OneAxis::<R, L, false> { pass: self, rows, x: (x.1, &[]), y: (y.1, &mut []) });
        }
    }
}

/// A stage applied to rows that follow each other: real planes alone, or both.
struct OneAxis<'a, R: Real, const L: usize, const COMPLEX: bool> {
    pass: &'a Pass<'a, R>,
    rows: usize,
    x: (&'a [R], &'a [R]),
    y: (&'a mut [R], &'a mut [R]),
}

impl<R: Real, const L: usize, const COMPLEX: bool> Multiversion for OneAxis<'_, R, L, COMPLEX> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        if self.pass.strided {
            strided::<R, L, FMA, COMPLEX>(self.pass, self.rows, self.x, self.y);
        } else {
            dense::<R, L, FMA, COMPLEX>(self.pass, self.rows, self.x, self.y);
        }
    }
}

/// One complex multiply-add of lanes, `y += w · x`, or a real one.
#[inline(always)]
pub(super) fn step<R: Real, const L: usize, const FMA: bool, const COMPLEX: bool>(
    y: &mut ([R; L], [R; L]),
    w: (R, R),
    x: &([R; L], [R; L]),
) {
    axpy::<R, L, FMA>(&mut y.0, w.0, &x.0);
    if COMPLEX {
        axpy::<R, L, FMA>(&mut y.1, w.0, &x.1);
        axpy::<R, L, FMA>(&mut y.0, -w.1, &x.1);
        axpy::<R, L, FMA>(&mut y.1, w.1, &x.0);
    }
}

/// Lanes along `inner`.
#[inline(always)]
fn strided<R: Real, const L: usize, const FMA: bool, const COMPLEX: bool>(
    pass: &Pass<'_, R>,
    rows: usize,
    x: (&[R], &[R]),
    y: (&mut [R], &mut [R]),
) {
    let Stage { p, q, outer, inner, .. } = pass.stage;
    for o in 0..rows * outer {
        let (from, to) = (o * q * inner, o * p * inner);
        let x = (&x.0[from..from + q * inner], if COMPLEX { &x.1[from..from + q * inner] } else { x.1 });
        let y = (
            &mut y.0[to..to + p * inner],
            if COMPLEX { &mut y.1[to..to + p * inner] } else { &mut y.1[..0] },
        );
        match (p, q) {
            (2, 2) => small::<R, L, FMA, COMPLEX, 2>(pass, x, y),
            (4, 4) => small::<R, L, FMA, COMPLEX, 4>(pass, x, y),
            _ => {
                let mut i = 0;
                while i < inner {
                    // The last vector overlaps the one before it: elements computed twice get the same bits.
                    let at = i.min(inner - L);
                    let mut row = 0;
                    while row + 4 <= p {
                        rows_of::<R, L, FMA, COMPLEX, 4>(pass, row, at, x, (&mut *y.0, &mut *y.1));
                        row += 4;
                    }
                    while row < p {
                        rows_of::<R, L, FMA, COMPLEX, 1>(pass, row, at, x, (&mut *y.0, &mut *y.1));
                        row += 1;
                    }
                    i += L;
                }
            }
        }
    }
}

/// `K` slices of equal length.
#[inline(always)]
fn parts<R, const K: usize>(x: &[R], len: usize) -> [&[R]; K] {
    let mut out = [&x[..0]; K];
    for (k, part) in out.iter_mut().enumerate() {
        *part = x.get(k * len..(k + 1) * len).unwrap_or_default();
    }
    out
}

/// `K × K` factors for `K` known when compiling; such a factor is packed.
#[inline(always)]
fn small<R: Real, const L: usize, const FMA: bool, const COMPLEX: bool, const K: usize>(
    pass: &Pass<'_, R>,
    x: (&[R], &[R]),
    y: (&mut [R], &mut [R]),
) {
    let inner = pass.stage.inner;
    let mut w = [[(R::ZERO, R::ZERO); K]; K];
    for p in 0..K {
        for q in 0..K {
            w[p][q] = (pass.re[p * K + q], if COMPLEX { pass.im[p * K + q] } else { R::ZERO });
        }
    }
    let (xr, xi) = (parts::<R, K>(x.0, inner), parts::<R, K>(x.1, inner));
    let mut i = 0;
    while i < inner {
        // The last vector overlaps the one before it: elements computed twice get the same bits.
        let at = i.min(inner - L);
        let mut v = [([R::ZERO; L], [R::ZERO; L]); K];
        for q in 0..K {
            v[q].0 = load(&xr[q][at..]);
            if COMPLEX {
                v[q].1 = load(&xi[q][at..]);
            }
        }
        for p in 0..K {
            let mut acc = ([R::ZERO; L], [R::ZERO; L]);
            for q in 0..K {
                step::<R, L, FMA, COMPLEX>(&mut acc, w[p][q], &v[q]);
            }
            store(&mut y.0[p * inner + at..], &acc.0);
            if COMPLEX {
                store(&mut y.1[p * inner + at..], &acc.1);
            }
        }
        i += L;
    }
}

/// A vector of `M` rows of the result.
#[inline(always)]
fn rows_of<R: Real, const L: usize, const FMA: bool, const COMPLEX: bool, const M: usize>(
    pass: &Pass<'_, R>,
    row: usize,
    at: usize,
    x: (&[R], &[R]),
    y: (&mut [R], &mut [R]),
) {
    let Stage { q: columns, inner, .. } = pass.stage;
    let mut acc = [([R::ZERO; L], [R::ZERO; L]); M];
    for q in 0..columns {
        let mut v = (load(&x.0[q * inner + at..]), [R::ZERO; L]);
        if COMPLEX {
            v.1 = scaled(pass.sign, &load(&x.1[q * inner + at..]));
        }
        for m in 0..M {
            let k = (row + m) * pass.steps.0 + q * pass.steps.1;
            let w = (pass.re[k], if COMPLEX { pass.im[k] } else { R::ZERO });
            step::<R, L, FMA, COMPLEX>(&mut acc[m], w, &v);
        }
    }
    for m in 0..M {
        store(&mut y.0[(row + m) * inner + at..], &acc[m].0);
        if COMPLEX {
            store(&mut y.1[(row + m) * inner + at..], &scaled(pass.sign, &acc[m].1));
        }
    }
}

/// Lanes along `p`: every element of `x` times a row of the transposed factor.
#[inline(always)]
fn dense<R: Real, const L: usize, const FMA: bool, const COMPLEX: bool>(
    pass: &Pass<'_, R>,
    rows: usize,
    x: (&[R], &[R]),
    y: (&mut [R], &mut [R]),
) {
    let Stage { p, outer, inner, .. } = pass.stage;
    let count = rows * outer * inner;
    let mut c = 0;
    while c < count {
        let four = c + 4 <= count;
        let mut i = 0;
        while i < p {
            let at = if p >= L { i.min(p - L) } else { 0 };
            if four {
                columns_of::<R, L, FMA, COMPLEX, 4>(pass, c, at, x, (&mut *y.0, &mut *y.1));
            } else {
                columns_of::<R, L, FMA, COMPLEX, 1>(pass, c, at, x, (&mut *y.0, &mut *y.1));
            }
            i += L;
        }
        c += if four { 4 } else { 1 };
    }
}

/// `L` elements from `at` of `M` columns of the result from column `c`.
#[inline(always)]
fn columns_of<R: Real, const L: usize, const FMA: bool, const COMPLEX: bool, const M: usize>(
    pass: &Pass<'_, R>,
    c: usize,
    at: usize,
    x: (&[R], &[R]),
    y: (&mut [R], &mut [R]),
) {
    let Stage { p, q, inner, .. } = pass.stage;
    let mut from = [0; M];
    for m in 0..M {
        from[m] = (c + m) / inner * q * inner + (c + m) % inner;
    }
    let mut acc = [([R::ZERO; L], [R::ZERO; L]); M];
    for j in 0..q {
        let k = j * pass.steps.1 + at;
        let wr = load::<R, L>(&pass.re[k..]);
        let wi = if COMPLEX { scaled(pass.sign, &load::<R, L>(&pass.im[k..])) } else { [R::ZERO; L] };
        let minus = scaled(-R::ONE, &wi);
        for m in 0..M {
            let xr = x.0[from[m] + j * inner];
            axpy::<R, L, FMA>(&mut acc[m].0, xr, &wr);
            if COMPLEX {
                let xi = x.1[from[m] + j * inner];
                axpy::<R, L, FMA>(&mut acc[m].1, xi, &wr);
                axpy::<R, L, FMA>(&mut acc[m].0, xi, &minus);
                axpy::<R, L, FMA>(&mut acc[m].1, xr, &wi);
            }
        }
    }
    let len = L.min(p - at);
    for m in 0..M {
        let to = ((c + m) / inner * p + at) * inner + (c + m) % inner;
        if inner == 1 && len == L {
            store(&mut y.0[to..], &acc[m].0);
            if COMPLEX {
                store(&mut y.1[to..], &acc[m].1);
            }
        } else {
            store_spread(&mut y.0[to..], acc[m].0, len, inner);
            if COMPLEX {
                store_spread(&mut y.1[to..], acc[m].1, len, inner);
            }
        }
    }
}

/// Copies rows `at .. at + rows` of an input; a real input gets an imaginary plane of zeros if there is room.
#[inline(always)]
pub(super) fn read<R: Real>(x: &In<'_, R>, at: usize, rows: usize, to: (&mut [R], &mut [R])) {
    let width = x.width();
    for r in 0..rows {
        to.0[r * width..][..width].copy_from_slice(x.row(at + r));
        if !to.1.is_empty() {
            let im = &mut to.1[r * width..][..width];
            if x.is_complex() { im.copy_from_slice(x.row_im(at + r)) } else { im.fill(R::ZERO) }
        }
    }
}

/// The product for every row: inputs `x`, then the factors.
pub(super) struct Apply<'a, R: Real, const L: usize> {
    pub(super) chain: &'a Chain,
    pub(super) args: Args<'a, R>,
}

impl<R: Real, const L: usize> Apply<'_, R, L> {
    pub(super) fn run(self) {
        let (chain, args) = (self.chain, self.args);
        let mut output = args.output;
        let mut at = 0;
        if chain.goes_across(L) {
            at = across::product::<R, L>(chain, args.inputs, &mut output, args.rows, &mut *args.scratch);
        }
        if at == args.rows {
            return;
        }
        let mut pool = args.scratch;
        let mut passes = SmallVec::<[Pass<'_, R>; 8]>::new();
        for (stage, factor) in chain.stages.iter().zip(&args.inputs[1..]) {
            passes.push(Pass::new::<L>(*stage, factor, &mut pool));
        }
        let block = chain.block(L);
        let (len, len_im) = (block * chain.widest(), (chain.planes - 1) * block * chain.widest());
        let mut a = (take(&mut pool, len), take(&mut pool, len_im));
        let mut b = (take(&mut pool, len), take(&mut pool, len_im));
        // The first and the last pass work on the caller's memory where rows can go one by one.
        let alone = !chain.is_thin(L);
        let source = args.inputs[0];
        let read_alone = alone && (chain.planes == 1 || source.is_complex());
        while at < args.rows {
            let rows = block.min(args.rows - at);
            if !read_alone {
                read(&source, at, rows, (&mut *a.0, &mut *a.1));
            }
            for (k, pass) in passes.iter().enumerate() {
                let (first, last) = (read_alone && k == 0, alone && k + 1 == passes.len());
                if first || last {
                    let (from, to) = (pass.stage.from(), pass.stage.to());
                    for r in 0..rows {
                        let x = if first {
                            row(&source, at + r)
                        } else {
                            (&a.0[r * from..], skip(&*a.1, r * from))
                        };
                        if last {
                            pass.run::<L>(1, x, output.row_pair(at + r));
                        } else {
                            pass.run::<L>(1, x, (&mut b.0[r * to..], skip_mut(&mut *b.1, r * to)));
                        }
                    }
                } else {
                    pass.run::<L>(rows, (&*a.0, &*a.1), (&mut *b.0, &mut *b.1));
                }
                std::mem::swap(&mut a, &mut b);
            }
            if !alone {
                for r in 0..rows {
                    let (re, im) = output.row_pair(at + r);
                    re.copy_from_slice(&a.0[r * chain.to..][..chain.to]);
                    if !im.is_empty() {
                        im.copy_from_slice(&a.1[r * chain.to..][..chain.to]);
                    }
                }
            }
            at += rows;
        }
    }
}

/// Both planes of a row.
pub(super) fn row<'a, R: Real>(x: &In<'a, R>, r: usize) -> (&'a [R], &'a [R]) {
    (x.row(r), if x.is_complex() { x.row_im(r) } else { &[] })
}

/// A plane from `at` on; an empty one stays empty.
fn skip<R>(x: &[R], at: usize) -> &[R] {
    if x.is_empty() { x } else { &x[at..] }
}

fn skip_mut<R>(x: &mut [R], at: usize) -> &mut [R] {
    if x.is_empty() { x } else { &mut x[at..] }
}

/// Gradients of the factors, one after the other as stored, added to the output row by row: inputs `x`, `y_bar`,
/// then the factors.
pub(super) struct Grad<'a, R: Real, const L: usize> {
    pub(super) chain: &'a Chain,
    /// Number of the first factor's input.
    pub(super) first: usize,
    pub(super) wanted: &'a [bool],
    pub(super) args: Args<'a, R>,
}

impl<R: Real, const L: usize> Grad<'_, R, L> {
    pub(super) fn run(self) {
        let (chain, args) = (self.chain, self.args);
        let (Some(first), Some(last)) =
            (self.wanted.iter().position(|w| *w), self.wanted.iter().rposition(|w| *w))
        else {
            return;
        };
        let mut output = args.output;
        if chain.grads_go_across(L) {
            let (inputs, rows) = (args.inputs, args.rows);
            let wanted = self.wanted;
            return across::gradients::<R, L>(
                chain,
                inputs,
                self.first,
                wanted,
                &mut output,
                rows,
                args.scratch,
            );
        }
        let mut pool = args.scratch;
        let block = chain.block(L);
        let planes = |len: usize| (len, (chain.planes - 1) * len);
        let mut forward = SmallVec::<[Pass<'_, R>; 8]>::new();
        let mut backward = SmallVec::<[Pass<'_, R>; 8]>::new();
        let mut saved = SmallVec::<[(&mut [R], &mut [R]); 8]>::new();
        for (stage, factor) in chain.stages.iter().zip(&args.inputs[self.first..]) {
            forward.push(Pass::new::<L>(*stage, factor, &mut pool));
            backward.push(Pass::new::<L>(stage.adjoint(), factor, &mut pool));
            let (re, im) = planes(block * stage.from());
            saved.push((take(&mut pool, re), take(&mut pool, im)));
        }
        let (re, im) = planes(block * chain.widest());
        let mut a = (take(&mut pool, re), take(&mut pool, im));
        let mut b = (take(&mut pool, re), take(&mut pool, im));
        let (re, im) = planes(block * chain.right(L));
        let right = (take(&mut pool, re), take(&mut pool, im));
        let mut at = 0;
        while at < args.rows {
            let rows = block.min(args.rows - at);
            let (re, im) = &mut saved[0];
            read(&args.inputs[0], at, rows, (&mut **re, &mut **im));
            for k in 0..last {
                let (x, y) = saved.split_at_mut(k + 1);
                forward[k].run::<L>(rows, (&*x[k].0, &*x[k].1), (&mut *y[0].0, &mut *y[0].1));
            }
            read(&args.inputs[1], at, rows, (&mut *a.0, &mut *a.1));
            for k in (first..chain.stages.len()).rev() {
                let stage = &chain.stages[k];
                if self.wanted[k] {
                    let start = chain.start_of(k);
                    let (re, im) = output.row_pair(0);
                    let end = start + stage.p * stage.q;
                    let sum = (&mut re[start..end], if im.is_empty() { im } else { &mut im[start..end] });
                    let (x, y) = ((&*saved[k].0, &*saved[k].1), (&*a.0, &*a.1));
                    contract_axis::<R, L>(stage, rows, x, y, (&mut *right.0, &mut *right.1), sum);
                }
                if k > first {
                    backward[k].run::<L>(rows, (&*a.0, &*a.1), (&mut *b.0, &mut *b.1));
                    std::mem::swap(&mut a, &mut b);
                }
            }
            at += rows;
        }
    }
}

/// `sum += Σ y_bar x^H` of one factor, over rows that follow each other. `right` is scratch memory of
/// [`Chain::right`] elements a row.
pub(super) fn contract_axis<R: Real, const L: usize>(
    stage: &Stage,
    rows: usize,
    x: (&[R], &[R]),
    y: (&[R], &[R]),
    right: (&mut [R], &mut [R]),
    sum: (&mut [R], &mut [R]),
) {
    if sum.1.is_empty() {
        multiversion(OneGrad::<R, L, false> { stage, rows, x, y, right, sum });
    } else {
        multiversion(OneGrad::<R, L, true> { stage, rows, x, y, right, sum });
    }
}

/// Arguments of [`contract_axis`].
struct OneGrad<'a, R: Real, const L: usize, const COMPLEX: bool> {
    stage: &'a Stage,
    rows: usize,
    x: (&'a [R], &'a [R]),
    y: (&'a [R], &'a [R]),
    right: (&'a mut [R], &'a mut [R]),
    sum: (&'a mut [R], &'a mut [R]),
}

impl<R: Real, const L: usize, const COMPLEX: bool> Multiversion for OneGrad<'_, R, L, COMPLEX> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let OneGrad { stage, rows, x, y, right, sum } = self;
        match (stage.grad_in_lanes(L), stage.q) {
            (true, 2) if stage.p == 2 => lanes_of::<R, L, FMA, COMPLEX, 2, 2>(stage, rows, x, y, sum),
            (true, 2) => lanes_of::<R, L, FMA, COMPLEX, 2, 1>(stage, rows, x, y, sum),
            (true, 3) => lanes_of::<R, L, FMA, COMPLEX, 3, 1>(stage, rows, x, y, sum),
            (true, _) => lanes_of::<R, L, FMA, COMPLEX, 4, 1>(stage, rows, x, y, sum),
            _ => contract::<R, L, FMA, COMPLEX>(stage, rows, x, y, right, sum),
        }
    }
}

/// A small factor: lanes along `inner`, added up at the end of each row.
#[inline(always)]
fn lanes_of<R: Real, const L: usize, const FMA: bool, const COMPLEX: bool, const Q: usize, const M: usize>(
    stage: &Stage,
    rows: usize,
    x: (&[R], &[R]),
    y: (&[R], &[R]),
    sum: (&mut [R], &mut [R]),
) {
    let Stage { p: height, outer, inner, .. } = *stage;
    for r in 0..rows {
        let mut p = 0;
        while p < height {
            let mut acc = [[([R::ZERO; L], [R::ZERO; L]); Q]; M];
            for o in r * outer..(r + 1) * outer {
                let (from, to) = (o * Q * inner, (o * height + p) * inner);
                let (xr, yr) = (parts::<R, Q>(&x.0[from..], inner), parts::<R, M>(&y.0[to..], inner));
                let (xi, yi) = if COMPLEX {
                    (parts::<R, Q>(&x.1[from..], inner), parts::<R, M>(&y.1[to..], inner))
                } else {
                    ([&x.1[..0]; Q], [&y.1[..0]; M])
                };
                for c in 0..inner / L {
                    let i = c * L;
                    for m in 0..M {
                        let v = (load(&yr[m][i..]), if COMPLEX { load(&yi[m][i..]) } else { [R::ZERO; L] });
                        for q in 0..Q {
                            let u =
                                (load(&xr[q][i..]), if COMPLEX { load(&xi[q][i..]) } else { [R::ZERO; L] });
                            outer_acc::<R, L, FMA, COMPLEX>(&mut acc[m][q], &v, &u);
                        }
                    }
                }
            }
            // A copy, so that the sums of the loop above can live in registers.
            let mut sums = acc;
            let whole = inner / L * L;
            if whole < inner {
                for o in r * outer..(r + 1) * outer {
                    for m in 0..M {
                        let at = (o * height + p + m) * inner;
                        let v = part_of::<R, L, COMPLEX>(y, at + whole, at + inner);
                        for q in 0..Q {
                            let at = (o * Q + q) * inner;
                            let u = part_of::<R, L, COMPLEX>(x, at + whole, at + inner);
                            outer_acc::<R, L, FMA, COMPLEX>(&mut sums[m][q], &v, &u);
                        }
                    }
                }
            }
            for m in 0..M {
                for q in 0..Q {
                    let k = if stage.transpose { q * height + p + m } else { (p + m) * Q + q };
                    sum.0[k] += total(sums[m][q].0);
                    if COMPLEX {
                        let im = total(sums[m][q].1);
                        sum.1[k] += if stage.conj { -im } else { im };
                    }
                }
            }
            p += M;
        }
    }
}

/// Less than a vector, zeros behind it.
#[inline(always)]
fn part_of<R: Real, const L: usize, const COMPLEX: bool>(
    x: (&[R], &[R]),
    from: usize,
    to: usize,
) -> ([R; L], [R; L]) {
    (load_part(&x.0[from..to]), if COMPLEX { load_part(&x.1[from..to]) } else { [R::ZERO; L] })
}

/// `acc += y · conj(x)`.
#[inline(always)]
fn outer_acc<R: Real, const L: usize, const FMA: bool, const COMPLEX: bool>(
    acc: &mut ([R; L], [R; L]),
    y: &([R; L], [R; L]),
    x: &([R; L], [R; L]),
) {
    mul_acc::<R, L, FMA>(&mut acc.0, &y.0, &x.0);
    if COMPLEX {
        mul_acc::<R, L, FMA>(&mut acc.1, &y.1, &x.0);
        mul_acc::<R, L, FMA>(&mut acc.0, &y.1, &x.1);
        mul_acc::<R, L, FMA>(&mut acc.1, &y.0, &scaled(-R::ONE, &x.1));
    }
}

/// A factor of any size: a product over `outer` and `inner`, one chain an element.
#[inline(always)]
fn contract<R: Real, const L: usize, const FMA: bool, const COMPLEX: bool>(
    stage: &Stage,
    rows: usize,
    x: (&[R], &[R]),
    y: (&[R], &[R]),
    right: (&mut [R], &mut [R]),
    sum: (&mut [R], &mut [R]),
) {
    // The stored matrix is [p,q] or [q,p]: its column index is the lane, its row index is spread over lanes.
    let (left, source, height, width) =
        if stage.transpose { (x, y, stage.q, stage.p) } else { (y, x, stage.p, stage.q) };
    let count = rows * stage.outer * stage.inner;
    let size = (height, width, stage.inner, count);
    let wide = width.next_multiple_of(L);
    pack_right(source.0, &mut *right.0, count, stage.inner, width, wide);
    if COMPLEX {
        pack_right(source.1, &mut *right.1, count, stage.inner, width, wide);
    }
    // left · conj(right), conjugated where the matrix is conjugated or transposed but not both.
    let sign = if stage.transpose == stage.conj { R::ONE } else { -R::ONE };
    let right = (&*right.0, &*right.1);
    let mut j = 0;
    while j < width {
        let mut i = 0;
        while i < height {
            if i + 4 <= height {
                tile::<R, L, FMA, COMPLEX, 4>(size, (i, j), sign, left, right, (&mut *sum.0, &mut *sum.1));
                i += 4;
            } else {
                tile::<R, L, FMA, COMPLEX, 1>(size, (i, j), sign, left, right, (&mut *sum.0, &mut *sum.1));
                i += 1;
            }
        }
        j += L;
    }
}

/// `[.., width, inner]` to `[.., inner, wide]`, zeros at the end.
#[inline(always)]
fn pack_right<R: Real>(x: &[R], to: &mut [R], count: usize, inner: usize, width: usize, wide: usize) {
    for c in 0..count {
        let from = c / inner * width * inner + c % inner;
        let to = &mut to[c * wide..(c + 1) * wide];
        if inner == 1 {
            to[..width].copy_from_slice(&x[from..from + width]);
        } else {
            for j in 0..width {
                to[j] = x[from + j * inner];
            }
        }
        to[width..].fill(R::ZERO);
    }
}

#[inline(always)]
fn tile<R: Real, const L: usize, const FMA: bool, const COMPLEX: bool, const M: usize>(
    (height, width, inner, count): (usize, usize, usize, usize),
    (i, j): (usize, usize),
    sign: R,
    left: (&[R], &[R]),
    right: (&[R], &[R]),
    sum: (&mut [R], &mut [R]),
) {
    let wide = width.next_multiple_of(L);
    let len = L.min(width - j);
    let mut acc = [([R::ZERO; L], [R::ZERO; L]); M];
    for m in 0..M {
        let k = (i + m) * width + j;
        acc[m].0 = if len == L { load(&sum.0[k..]) } else { load_part(&sum.0[k..k + len]) };
        if COMPLEX {
            let im = if len == L { load(&sum.1[k..]) } else { load_part(&sum.1[k..k + len]) };
            acc[m].1 = scaled(sign, &im);
        }
    }
    let mut from = i * inner;
    let mut at = 0;
    for c in 0..count {
        let xr = load::<R, L>(&right.0[c * wide + j..]);
        let xi = if COMPLEX { load::<R, L>(&right.1[c * wide + j..]) } else { [R::ZERO; L] };
        let minus = scaled(-R::ONE, &xi);
        for m in 0..M {
            let k = from + at + m * inner;
            let yr = left.0[k];
            axpy::<R, L, FMA>(&mut acc[m].0, yr, &xr);
            if COMPLEX {
                let yi = left.1[k];
                axpy::<R, L, FMA>(&mut acc[m].1, yi, &xr);
                axpy::<R, L, FMA>(&mut acc[m].0, yi, &xi);
                axpy::<R, L, FMA>(&mut acc[m].1, yr, &minus);
            }
        }
        at += 1;
        if at == inner {
            at = 0;
            from += height * inner;
        }
    }
    for m in 0..M {
        let k = (i + m) * width + j;
        if COMPLEX {
            acc[m].1 = scaled(sign, &acc[m].1);
        }
        if len == L {
            store(&mut sum.0[k..], &acc[m].0);
            if COMPLEX {
                store(&mut sum.1[k..], &acc[m].1);
            }
        } else {
            store_spread(&mut sum.0[k..], acc[m].0, len, 1);
            if COMPLEX {
                store_spread(&mut sum.1[k..], acc[m].1, len, 1);
            }
        }
    }
}
