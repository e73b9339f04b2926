//! The Kronecker product with rows in the lanes of a vector, for factors that fill no vector by themselves.
//!
//! A factor of 3 × 3 or 5 × 5 near the end of a chain leaves most lanes of a vector empty, along whichever axis of a
//! row they lie. So as many rows as a vector has lanes are taken together, transposed: element by element a vector of
//! rows. Every loop then works on whole vectors whatever the sizes, and reads and writes them where they lie. An element
//! of the product is the same chain of multiply-adds as in [`kernel`](super::kernel), to the same bits, so that rows
//! may go either way.
//!
//! Gradients are summed in lanes over all rows of a call, and over the lanes at its end.

use retrograd_engine::cpu::{Isa, Multiversion, Real, multiversion, transpose};
use retrograd_engine::kernel::{In, Out};
use smallvec::SmallVec;

use super::kernel::{Chain, Stage, row, step, take};
use crate::lanes::{load, mul_acc, scaled, store, total};

/// Share of a vector that has to be filled for a stage to be left to the loops along a row.
const FILLED: f64 = 0.9;

/// Most elements of a row, so that some vectors of rows stay near the processor.
const WIDEST: usize = 2048;

/// Largest factor whose gradient goes this way: its sums are vectors too.
const MOST_SUMS: usize = 256;

impl Stage {
    /// Whether loops along a row leave much of a vector empty.
    fn is_poor(&self, lanes: usize) -> bool {
        self.inner < lanes && (self.p as f64) < FILLED * self.p.next_multiple_of(lanes) as f64
    }
}

impl Chain {
    /// Whether products go this way, of as many rows as are at least half of a vector.
    pub(super) fn goes_across(&self, lanes: usize) -> bool {
        self.widest() <= WIDEST && self.stages.iter().any(|s| s.is_poor(lanes))
    }

    /// Whether gradients do, of any number of rows.
    pub(super) fn grads_go_across(&self, lanes: usize) -> bool {
        let adjoint = |s: &Stage| s.adjoint().is_poor(lanes);
        (self.goes_across(lanes) || self.widest() <= WIDEST && self.stages.iter().any(adjoint))
            && self.stages.iter().all(|s| s.p * s.q <= MOST_SUMS)
    }

    fn entries(&self) -> usize {
        self.start_of(self.stages.len())
    }

    /// Real elements of scratch memory of [`product`].
    pub(super) fn across_scratch(&self, lanes: usize) -> usize {
        self.planes * (self.entries() + 2 * lanes * self.widest())
    }

    /// Real elements of scratch memory of [`gradients`].
    pub(super) fn across_grad_scratch(&self, lanes: usize) -> usize {
        let saved: usize = self.stages.iter().map(Stage::from).sum();
        self.planes * (2 * self.entries() + lanes * (self.entries() + saved + 2 * self.widest()))
    }

    /// Real elements of scratch memory of [`traces`].
    pub(super) fn across_trace_scratch(&self, lanes: usize) -> usize {
        self.planes * lanes * (self.entries() + 2 * self.widest())
    }
}

/// Both planes; the imaginary one is empty in a real product.
type Planes<'a, R> = (&'a [R], &'a [R]);
type PlanesMut<'a, R> = (&'a mut [R], &'a mut [R]);

/// Scratch memory of `len` elements, with room for imaginary parts where there are two planes.
fn take_planes<'a, R>(pool: &mut &'a mut [R], planes: usize, len: usize) -> PlanesMut<'a, R> {
    (take(pool, len), take(pool, (planes - 1) * len))
}

/// A stage and its factor, `[p,q]`, transposed and conjugated as it is meant.
struct Pass<'a, R> {
    stage: Stage,
    w: Planes<'a, R>,
}

impl<'a, R: Real> Pass<'a, R> {
    fn new(stage: Stage, factor: &In<'a, R>, pool: &mut &'a mut [R]) -> Pass<'a, R> {
        let (p, q) = (stage.p, stage.q);
        let steps = if stage.transpose { (1, p) } else { (q, 1) };
        let copy = |from: &[R], sign: R, to: &'a mut [R]| -> &'a [R] {
            for i in 0..p {
                for j in 0..q {
                    to[i * q + j] = sign * from[i * steps.0 + j * steps.1];
                }
            }
            to
        };
        let (re, im) = row(factor, 0);
        let re = copy(re, R::ONE, take(pool, p * q));
        let sign = if stage.conj { -R::ONE } else { R::ONE };
        let im: &[R] = if im.is_empty() { &[] } else { copy(im, sign, take(pool, p * q)) };
        Pass { stage, w: (re, im) }
    }

    fn run<const L: usize>(&self, x: Planes<'_, R>, y: PlanesMut<'_, R>) {
        if !self.w.1.is_empty() {
            multiversion(OneStage::<R, L, true> { pass: self, x, y });
            return;
        }
        multiversion(OneStage::<R, L, false> { pass: self, x: (x.0, &[]), y: (y.0, &mut []) });
        if !y.1.is_empty() {
            multiversion(OneStage::<R, L, false> { pass: self, x: (x.1, &[]), y: (y.1, &mut []) });
        }
    }
}

/// One stage of one vector of rows.
struct OneStage<'a, R: Real, const L: usize, const COMPLEX: bool> {
    pass: &'a Pass<'a, R>,
    x: Planes<'a, R>,
    y: PlanesMut<'a, R>,
}

impl<R: Real, const L: usize, const COMPLEX: bool> Multiversion for OneStage<'_, R, L, COMPLEX> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let OneStage { pass, x, y } = self;
        match (pass.stage.p, pass.stage.q) {
            (2, 2) => square::<R, L, FMA, COMPLEX, 2>(pass, x, y),
            (3, 3) => square::<R, L, FMA, COMPLEX, 3>(pass, x, y),
            (4, 4) => square::<R, L, FMA, COMPLEX, 4>(pass, x, y),
            (5, 5) => square::<R, L, FMA, COMPLEX, 5>(pass, x, y),
            _ => any::<R, L, FMA, COMPLEX>(pass, x, y),
        }
    }
}

#[inline(always)]
fn vector<R: Real, const L: usize, const COMPLEX: bool>(x: Planes<'_, R>, at: usize) -> ([R; L], [R; L]) {
    (load(&x.0[at * L..]), if COMPLEX { load(&x.1[at * L..]) } else { [R::ZERO; L] })
}

#[inline(always)]
fn put<R: Real, const L: usize, const COMPLEX: bool>(
    y: &mut PlanesMut<'_, R>,
    at: usize,
    v: &([R; L], [R; L]),
) {
    store(&mut y.0[at * L..], &v.0);
    if COMPLEX {
        store(&mut y.1[at * L..], &v.1);
    }
}

/// A factor of `K × K`, what it multiplies in registers.
#[inline(always)]
fn square<R: Real, const L: usize, const FMA: bool, const COMPLEX: bool, const K: usize>(
    pass: &Pass<'_, R>,
    x: Planes<'_, R>,
    mut y: PlanesMut<'_, R>,
) {
    let Stage { outer, inner, .. } = pass.stage;
    let mut w = [[(R::ZERO, R::ZERO); K]; K];
    for p in 0..K {
        for q in 0..K {
            w[p][q] = (pass.w.0[p * K + q], if COMPLEX { pass.w.1[p * K + q] } else { R::ZERO });
        }
    }
    for o in 0..outer {
        for i in 0..inner {
            let first = o * K * inner + i;
            let mut v = [([R::ZERO; L], [R::ZERO; L]); K];
            for q in 0..K {
                v[q] = vector::<R, L, COMPLEX>(x, first + q * inner);
            }
            for p in 0..K {
                let mut acc = ([R::ZERO; L], [R::ZERO; L]);
                for q in 0..K {
                    step::<R, L, FMA, COMPLEX>(&mut acc, w[p][q], &v[q]);
                }
                put::<R, L, COMPLEX>(&mut y, first + p * inner, &acc);
            }
        }
    }
}

/// Any factor, four elements of the result at a time.
#[inline(always)]
fn any<R: Real, const L: usize, const FMA: bool, const COMPLEX: bool>(
    pass: &Pass<'_, R>,
    x: Planes<'_, R>,
    mut y: PlanesMut<'_, R>,
) {
    let Stage { p, outer, inner, .. } = pass.stage;
    for o in 0..outer {
        for i in 0..inner {
            let mut at = 0;
            while at + 4 <= p {
                some_of::<R, L, FMA, COMPLEX, 4>(pass, (o, i), at, x, &mut y);
                at += 4;
            }
            while at < p {
                some_of::<R, L, FMA, COMPLEX, 1>(pass, (o, i), at, x, &mut y);
                at += 1;
            }
        }
    }
}

/// `M` elements of the result from `at` on.
#[inline(always)]
fn some_of<R: Real, const L: usize, const FMA: bool, const COMPLEX: bool, const M: usize>(
    pass: &Pass<'_, R>,
    (o, i): (usize, usize),
    at: usize,
    x: Planes<'_, R>,
    y: &mut PlanesMut<'_, R>,
) {
    let Stage { p, q, inner, .. } = pass.stage;
    // Slices of known lengths, so that the loop checks no bounds.
    let size = (q - 1) * inner * L + L;
    let first = (o * q * inner + i) * L;
    let x = (&x.0[first..first + size], if COMPLEX { &x.1[first..first + size] } else { &[][..] });
    let mut w = ([&[][..]; M], [&[][..]; M]);
    for m in 0..M {
        let rows = (at + m) * q..(at + m + 1) * q;
        w.0[m] = &pass.w.0[rows.clone()];
        w.1[m] = if COMPLEX { &pass.w.1[rows] } else { w.0[m] };
    }
    let mut acc = [([R::ZERO; L], [R::ZERO; L]); M];
    for j in 0..q {
        let from = j * inner * L;
        let v = (load(&x.0[from..]), if COMPLEX { load(&x.1[from..]) } else { [R::ZERO; L] });
        for m in 0..M {
            step::<R, L, FMA, COMPLEX>(&mut acc[m], (w.0[m][j], w.1[m][j]), &v);
        }
    }
    for m in 0..M {
        put::<R, L, COMPLEX>(y, (o * p + at + m) * inner + i, &acc[m]);
    }
}

/// A vector of rows of an input, as many as there are. A real input has imaginary parts of 0 if there is room for them.
fn gather<R: Real, const L: usize>(x: &In<'_, R>, at: usize, rows: usize, to: &mut PlanesMut<'_, R>) {
    let (isa, width) = (Isa::detect(), x.width());
    if rows < L {
        // What is in the other lanes is not used, but must be numbers.
        to.0[..width * L].fill(R::ZERO);
        if !to.1.is_empty() {
            to.1[..width * L].fill(R::ZERO);
        }
    }
    let from = x.planes();
    transpose(isa, (rows, width), &from.re[at * from.stride..], from.stride, to.0, L);
    if to.1.is_empty() {
        return;
    }
    if from.im.is_empty() {
        to.1[..width * L].fill(R::ZERO);
    } else {
        transpose(isa, (rows, width), &from.im[at * from.stride..], from.stride, to.1, L);
    }
}

/// The product for the first rows of a call, a vector of them at a time. Gives how many.
pub(super) fn product<R: Real, const L: usize>(
    chain: &Chain,
    inputs: &[In<'_, R>],
    output: &mut Out<'_, R>,
    rows: usize,
    scratch: &mut [R],
) -> usize {
    let mut pool = scratch;
    let mut passes = SmallVec::<[Pass<'_, R>; 8]>::new();
    for (stage, factor) in chain.stages.iter().zip(&inputs[1..]) {
        passes.push(Pass::new(*stage, factor, &mut pool));
    }
    let mut a = take_planes(&mut pool, chain.planes, L * chain.widest());
    let mut b = take_planes(&mut pool, chain.planes, L * chain.widest());
    let mut at = 0;
    while 2 * (rows - at) >= L {
        let here = L.min(rows - at);
        gather::<R, L>(&inputs[0], at, here, &mut a);
        for pass in &passes {
            pass.run::<L>((&*a.0, &*a.1), (&mut *b.0, &mut *b.1));
            std::mem::swap(&mut a, &mut b);
        }
        let to = output.planes();
        let isa = Isa::detect();
        transpose(isa, (chain.to, here), a.0, L, &mut to.re[at * to.stride..], to.stride);
        if !to.im.is_empty() {
            transpose(isa, (chain.to, here), a.1, L, &mut to.im[at * to.stride..], to.stride);
        }
        at += here;
    }
    at
}

/// `sum += Σ y x^H` of one factor, lane by lane.
struct OneTrace<'a, R: Real, const L: usize, const COMPLEX: bool> {
    stage: &'a Stage,
    x: Planes<'a, R>,
    y: Planes<'a, R>,
    sum: PlanesMut<'a, R>,
}

impl<R: Real, const L: usize, const COMPLEX: bool> Multiversion for OneTrace<'_, R, L, COMPLEX> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let OneTrace { stage, x, y, mut sum } = self;
        let mut p = 0;
        while p < stage.p {
            let two = p + 2 <= stage.p;
            let mut q = 0;
            while q < stage.q {
                let at = (p, q);
                match (two, stage.q - q) {
                    (true, 3) => sums::<R, L, FMA, COMPLEX, 2, 3>(stage, at, x, y, &mut sum),
                    (true, 4..) => sums::<R, L, FMA, COMPLEX, 2, 4>(stage, at, x, y, &mut sum),
                    (true, _) => sums::<R, L, FMA, COMPLEX, 2, 1>(stage, at, x, y, &mut sum),
                    (false, 3) => sums::<R, L, FMA, COMPLEX, 1, 3>(stage, at, x, y, &mut sum),
                    (false, 4..) => sums::<R, L, FMA, COMPLEX, 1, 4>(stage, at, x, y, &mut sum),
                    (false, _) => sums::<R, L, FMA, COMPLEX, 1, 1>(stage, at, x, y, &mut sum),
                }
                q += match stage.q - q {
                    4.. => 4,
                    3 => 3,
                    _ => 1,
                };
            }
            p += if two { 2 } else { 1 };
        }
    }
}

/// `M × K` of the sums.
#[inline(always)]
fn sums<R: Real, const L: usize, const FMA: bool, const COMPLEX: bool, const M: usize, const K: usize>(
    stage: &Stage,
    (p, q): (usize, usize),
    x: Planes<'_, R>,
    y: Planes<'_, R>,
    sum: &mut PlanesMut<'_, R>,
) {
    let Stage { p: height, q: width, outer, inner, .. } = *stage;
    let mut acc = [[([R::ZERO; L], [R::ZERO; L]); K]; M];
    for m in 0..M {
        for k in 0..K {
            let at = (p + m) * width + q + k;
            acc[m][k] = vector::<R, L, COMPLEX>((&*sum.0, &*sum.1), at);
        }
    }
    for o in 0..outer {
        for i in 0..inner {
            let mut v = [([R::ZERO; L], [R::ZERO; L]); M];
            for m in 0..M {
                v[m] = vector::<R, L, COMPLEX>(y, (o * height + p + m) * inner + i);
            }
            for k in 0..K {
                let u = vector::<R, L, COMPLEX>(x, (o * width + q + k) * inner + i);
                for m in 0..M {
                    mul_acc::<R, L, FMA>(&mut acc[m][k].0, &v[m].0, &u.0);
                    if COMPLEX {
                        mul_acc::<R, L, FMA>(&mut acc[m][k].1, &v[m].1, &u.0);
                        mul_acc::<R, L, FMA>(&mut acc[m][k].0, &v[m].1, &u.1);
                        mul_acc::<R, L, FMA>(&mut acc[m][k].1, &v[m].0, &scaled(-R::ONE, &u.1));
                    }
                }
            }
        }
    }
    for m in 0..M {
        for k in 0..K {
            put::<R, L, COMPLEX>(sum, (p + m) * width + q + k, &acc[m][k]);
        }
    }
}

/// `Σ y x^H` of every factor, `[p,q]`, a vector of lanes an entry.
struct Sums<'a, R: Real, const L: usize> {
    chain: &'a Chain,
    all: PlanesMut<'a, R>,
}

impl<'a, R: Real, const L: usize> Sums<'a, R, L> {
    fn new(chain: &'a Chain, pool: &mut &'a mut [R]) -> Sums<'a, R, L> {
        let all = take_planes(pool, chain.planes, L * chain.entries());
        all.0.fill(R::ZERO);
        all.1.fill(R::ZERO);
        Sums { chain, all }
    }

    /// Those of stage `k`.
    fn part(&mut self, k: usize) -> PlanesMut<'_, R> {
        let (from, to) = (L * self.chain.start_of(k), L * self.chain.start_of(k + 1));
        let im = if self.all.1.is_empty() { &mut [] } else { &mut self.all.1[from..to] };
        (&mut self.all.0[from..to], im)
    }

    /// Adds a vector of rows to those of stage `k`.
    fn add(&mut self, k: usize, x: Planes<'_, R>, y: Planes<'_, R>) {
        let (stage, sum) = (&self.chain.stages[k], self.part(k));
        if sum.1.is_empty() {
            multiversion(OneTrace::<R, L, false> { stage, x, y, sum });
        } else {
            multiversion(OneTrace::<R, L, true> { stage, x, y, sum });
        }
    }

    /// The sums over the lanes too, of every wanted factor: `each(k, re, im)`, where `im` is empty in a real product.
    fn totals(mut self, wanted: &[bool], mut each: impl FnMut(usize, &[R], &[R])) {
        let lanes = |sum: &[R], to: &mut SmallVec<[R; MOST_SUMS]>| {
            to.clear();
            to.extend(sum.chunks_exact(L).map(|lanes| total(load::<R, L>(lanes))));
        };
        let (mut re, mut im) = (SmallVec::new(), SmallVec::new());
        for k in (0..wanted.len()).filter(|&k| wanted[k]) {
            let sum = self.part(k);
            lanes(sum.0, &mut re);
            lanes(sum.1, &mut im);
            each(k, &re, &im);
        }
    }
}

/// Gradients of the factors as [`Grad`](super::kernel::Grad) gives them: inputs `x`, `y_bar`, then from `first` on the
/// factors.
pub(super) fn gradients<R: Real, const L: usize>(
    chain: &Chain,
    inputs: &[In<'_, R>],
    factors: usize,
    wanted: &[bool],
    output: &mut Out<'_, R>,
    rows: usize,
    scratch: &mut [R],
) {
    let (Some(first), Some(last)) = (wanted.iter().position(|w| *w), wanted.iter().rposition(|w| *w)) else {
        return;
    };
    let mut pool = scratch;
    let mut forward = SmallVec::<[Pass<'_, R>; 8]>::new();
    let mut backward = SmallVec::<[Pass<'_, R>; 8]>::new();
    let mut saved = SmallVec::<[PlanesMut<'_, R>; 8]>::new();
    for (stage, factor) in chain.stages.iter().zip(&inputs[factors..]) {
        forward.push(Pass::new(*stage, factor, &mut pool));
        backward.push(Pass::new(stage.adjoint(), factor, &mut pool));
        saved.push(take_planes(&mut pool, chain.planes, L * stage.from()));
    }
    let mut a = take_planes(&mut pool, chain.planes, L * chain.widest());
    let mut b = take_planes(&mut pool, chain.planes, L * chain.widest());
    let mut sums = Sums::<R, L>::new(chain, &mut pool);
    let mut at = 0;
    while at < rows {
        let here = L.min(rows - at);
        gather::<R, L>(&inputs[0], at, here, &mut saved[0]);
        for k in 0..last {
            let (x, y) = saved.split_at_mut(k + 1);
            forward[k].run::<L>((&*x[k].0, &*x[k].1), (&mut *y[0].0, &mut *y[0].1));
        }
        gather::<R, L>(&inputs[1], at, here, &mut a);
        for k in (first..chain.stages.len()).rev() {
            if wanted[k] {
                sums.add(k, (&*saved[k].0, &*saved[k].1), (&*a.0, &*a.1));
            }
            if k > first {
                backward[k].run::<L>((&*a.0, &*a.1), (&mut *b.0, &mut *b.1));
                std::mem::swap(&mut a, &mut b);
            }
        }
        at += here;
    }
    let (to_re, to_im) = output.row_pair(0);
    sums.totals(wanted, |k, re, im| {
        let (stage, start) = (&chain.stages[k], chain.start_of(k));
        for at in 0..re.len() {
            let (i, j) = (at / stage.q, at % stage.q);
            let to = start + if stage.transpose { j * stage.p + i } else { at };
            to_re[to] += re[at];
            if !to_im.is_empty() {
                to_im[to] += if stage.conj { -im[at] } else { im[at] };
            }
        }
    });
}

/// `Σ x_bar x^H` of every wanted factor, `[p,q]` with `each(k, re, im)`, where `im` is empty in a real product.
pub(super) fn traces<R: Real, const L: usize>(
    chain: &Chain,
    (x, x_bar): (&In<'_, R>, &In<'_, R>),
    wanted: &[bool],
    rows: usize,
    scratch: &mut [R],
    each: impl FnMut(usize, &[R], &[R]),
) {
    let mut pool = scratch;
    let mut a = take_planes(&mut pool, chain.planes, L * chain.widest());
    let mut b = take_planes(&mut pool, chain.planes, L * chain.widest());
    let mut sums = Sums::<R, L>::new(chain, &mut pool);
    let mut at = 0;
    while at < rows {
        let here = L.min(rows - at);
        gather::<R, L>(x, at, here, &mut a);
        gather::<R, L>(x_bar, at, here, &mut b);
        for k in (0..wanted.len()).filter(|&k| wanted[k]) {
            sums.add(k, (&*a.0, &*a.1), (&*b.0, &*b.1));
        }
        at += here;
    }
    sums.totals(wanted, each);
}
