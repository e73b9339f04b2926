//! Products of one matrix pair a row, and outer products.

use retrograd_engine::cpu::{Multiversion, Real, fma, multiversion};
use retrograd_engine::device::{Building, DeviceKernel, Entry, Piece, Value};
use retrograd_engine::kernel::{Args, Structured};
use retrograd_engine::layout::{Layout, layout};
use retrograd_engine::op::{Class, Cotangents, Io};
use retrograd_engine::profile::Work;
use retrograd_engine::shape::broadcast_dims;
use retrograd_engine::{Dims, Error, Op, Result, Shape, Tape, Ty, Var, structured_kernel};
use smallvec::smallvec;

use crate::check::joint_dtype;
use crate::lanes::{axpy, load, load_part, mul_acc, store, total, totals};
use crate::rule::sum_options;
use crate::spec::{Arg, Case, Domain, OpSpec};

/// How the operands of a product are to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MatMulFlags {
    /// The first as `[.., K, M]`.
    pub transpose_a: bool,
    /// The first conjugated.
    pub conj_a: bool,
    /// The second as `[.., P, K]`.
    pub transpose_b: bool,
    /// The second conjugated.
    pub conj_b: bool,
}

/// One matrix product for every row, and for every index of the axes before the last two: `y = a' b'`, where `'`
/// transposes or conjugates as the flags say.
///
/// Shapes: `a [.., M, K]`, `b [.., K, P] -> y [.., M, P]`; the axes before broadcast, batch axes join.
/// Rule: `a_bar = y_bar bᴴ`, `b_bar = aᴴ y_bar`; keeps both.   Domain: all numbers.   Errors: fewer than two axes;
/// `K` differs; axes that do not broadcast; single with double precision.
pub fn batch_matmul(tape: &mut Tape, a: Var, b: Var, flags: MatMulFlags) -> Result<Var> {
    // Conjugating real numbers does nothing; without the flag equal products are recognized as equal.
    let conj_a = flags.conj_a && tape.dtype(a)?.is_complex();
    let conj_b = flags.conj_b && tape.dtype(b)?.is_complex();
    let flags = MatMulFlags { conj_a, conj_b, ..flags };
    match (vector(tape, a, 1, flags.transpose_a)?, vector(tape, b, 0, flags.transpose_b)?) {
        (Some(a), Some(b)) => tape.push(
            Outer(BatchMatMul { flags: MatMulFlags { conj_a, conj_b, ..MatMulFlags::default() } }),
            &[a, b],
        ),
        _ => tape.push(BatchMatMul { flags }, &[a, b]),
    }
}

/// A matrix, or its transpose, of which axis `axis` (0 rows, 1 columns) has one element: then transposing moves nothing,
/// and it is given the shape that is meant.
fn vector(tape: &mut Tape, v: Var, axis: usize, transpose: bool) -> Result<Option<Var>> {
    let mut dims = tape.shape(v)?.dims.clone();
    let [.., rows, columns] = &mut dims[..] else { return Ok(None) };
    if transpose {
        std::mem::swap(rows, columns);
    }
    match [*rows, *columns][axis] {
        1 if transpose => layout(tape, v, Layout::Reshape { dims }).map(Some),
        1 => Ok(Some(v)),
        _ => Ok(None),
    }
}

/// Outer product of last axes: `y[.., i, j] = a[.., i] b[.., j]`.
///
/// Shapes: `a [.., I]`, `b [.., J] -> y [.., I, J]`; the axes before broadcast, batch axes join.
/// Rule: `a_bar = y_bar conj(b)`, `b_bar = y_barᵀ conj(a)`; keeps both.   Domain: all numbers.
/// Errors: no axis; axes that do not broadcast; single with double precision.
pub fn outer(tape: &mut Tape, a: Var, b: Var) -> Result<Var> {
    tape.last_dim("outer", a)?;
    let columns = tape.last_dim("outer", b)?;
    let mut column = tape.shape(a)?.dims.clone();
    column.push(1);
    let mut row = tape.shape(b)?.dims.clone();
    row.pop();
    row.extend([1, columns]);
    let a = layout(tape, a, Layout::Reshape { dims: column })?;
    let b = layout(tape, b, Layout::Reshape { dims: row })?;
    batch_matmul(tape, a, b, MatMulFlags::default())
}

#[derive(Clone, Copy, Debug)]
struct BatchMatMul {
    flags: MatMulFlags,
}

/// Sizes of one product, and of the axes over it.
struct Sizes {
    m: usize,
    k: usize,
    p: usize,
    over: Dims,
}

impl BatchMatMul {
    fn sizes(&self, a: &[usize], b: &[usize]) -> std::result::Result<Sizes, String> {
        let ([a_over @ .., a0, a1], [b_over @ .., b0, b1]) = (a, b) else {
            return Err("at least two axes each".into());
        };
        let (m, k) = if self.flags.transpose_a { (*a1, *a0) } else { (*a0, *a1) };
        let (k_b, p) = if self.flags.transpose_b { (*b1, *b0) } else { (*b0, *b1) };
        if k != k_b {
            return Err(format!("inner K={k}"));
        }
        let over = broadcast_dims(a_over, b_over)
            .ok_or_else(|| format!("axes before the last two that broadcast with {a_over:?}"))?;
        Ok(Sizes { m, k, p, over })
    }
}

impl Op for BatchMatMul {
    fn name(&self) -> &'static str {
        "batch_matmul"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let dtype = joint_dtype("batch_matmul", inputs)?;
        let (a, b) = (&inputs[0].shape, &inputs[1].shape);
        let sizes = self.sizes(&a.dims, &b.dims).map_err(|expected| {
            Error::shape("batch_matmul", format!("b for a {a}, {:?}", self.flags), expected, b)
        })?;
        let mut dims = sizes.over;
        dims.extend([sizes.m, sizes.p]);
        Ok(Ty::new(dtype, Shape { lead: a.lead.join(b.lead), dims }))
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let (a, b, f) = (io.inputs[0], io.inputs[1], self.flags);
        // a'_bar = y_bar b'ᴴ and b'_bar = a'ᴴ y_bar; transposed and conjugated again where the operand was. The
        // other operand is conjugated once by the rule and once more if the result is.
        let a_bar = match (io.needs[0], f.transpose_a) {
            (false, _) => None,
            (true, false) => {
                let flags = MatMulFlags {
                    transpose_a: false,
                    conj_a: f.conj_a,
                    transpose_b: !f.transpose_b,
                    conj_b: f.conj_b == f.conj_a,
                };
                Some(batch_matmul(tape, y_bar, b, flags)?)
            }
            (true, true) => {
                let flags = MatMulFlags {
                    transpose_a: f.transpose_b,
                    conj_a: f.conj_b == f.conj_a,
                    transpose_b: true,
                    conj_b: f.conj_a,
                };
                Some(batch_matmul(tape, b, y_bar, flags)?)
            }
        };
        let b_bar = match (io.needs[1], f.transpose_b) {
            (false, _) => None,
            (true, false) => {
                let flags = MatMulFlags {
                    transpose_a: !f.transpose_a,
                    conj_a: f.conj_a == f.conj_b,
                    transpose_b: false,
                    conj_b: f.conj_b,
                };
                Some(batch_matmul(tape, a, y_bar, flags)?)
            }
            (true, true) => {
                let flags = MatMulFlags {
                    transpose_a: true,
                    conj_a: f.conj_b,
                    transpose_b: f.transpose_a,
                    conj_b: f.conj_a == f.conj_b,
                };
                Some(batch_matmul(tape, y_bar, a, flags)?)
            }
        };
        Ok(smallvec![a_bar, b_bar])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let from_a = x_dots[0].map(|d| batch_matmul(tape, d, io.inputs[1], self.flags)).transpose()?;
        let from_b = x_dots[1].map(|d| batch_matmul(tape, io.inputs[0], d, self.flags)).transpose()?;
        sum_options(tape, from_a, from_b)
    }

    fn work(&self) -> Work {
        Work::Product
    }

    fn flops(&self, inputs: &[Ty], output: &Ty) -> f64 {
        let dims = &inputs[0].shape.dims;
        let k = dims[dims.len() - if self.flags.transpose_a { 2 } else { 1 }];
        let planes: usize = inputs.iter().map(|ty| ty.dtype.planes()).product();
        2.0 * output.shape.width() as f64 * k as f64 * planes as f64
    }
}

/// Products of one column with one row, neither transposed: written about as fast as it would be read back, so it is
/// built again rather than kept.
#[derive(Clone, Copy, Debug)]
struct Outer(BatchMatMul);

impl Op for Outer {
    fn name(&self) -> &'static str {
        "outer"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        self.0.infer(inputs)
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        self.0.vjp(tape, io, y_bar)
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        self.0.jvp(tape, io, x_dots)
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn flops(&self, inputs: &[Ty], output: &Ty) -> f64 {
        0.5 * self.0.flops(inputs, output)
    }
}

impl Outer {
    fn kernel<R: Real>(&self, args: Args<'_, R>) {
        self.0.each_product(args, |_, a, b, y, sign| multiversion(Rows { a, b, y, sign }));
    }
}

impl Structured for Outer {
    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for Outer {
    fn phases(&self, _: &[Entry], output: &Entry) -> Vec<usize> {
        vec![output.width()]
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        product_piece(k, &self.0, piece);
    }
}

/// `y = a bᵀ` without a sign, else `y += sign · a bᵀ`.
struct Rows<'a, R> {
    a: &'a [R],
    b: &'a [R],
    y: &'a mut [R],
    sign: Option<R>,
}

impl<R: Real> Multiversion for Rows<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let p = self.b.len();
        for i in 0..self.a.len() {
            let y = &mut self.y[i * p..(i + 1) * p];
            match self.sign {
                None => {
                    for j in 0..p {
                        y[j] = self.a[i] * self.b[j];
                    }
                }
                Some(sign) => add_scaled::<R, FMA>(sign * self.a[i], self.b, y),
            }
        }
    }
}

/// One product of real planes, added to `y` or subtracted from it.
struct Product<'a, R> {
    sizes: &'a Sizes,
    flags: MatMulFlags,
    a: &'a [R],
    b: &'a [R],
    y: &'a mut [R],
    sign: R,
}

impl<R: Real> Multiversion for Product<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Product { sizes: &Sizes { m, k, p, .. }, flags, a, b, y, sign } = self;
        // By index: adapters of iterators are not always inlined into functions with more target features.
        if flags.transpose_a && p == 1 {
            // A sum of columns of a', which lie one after the other.
            add_combination::<R, FMA>(k, |j| sign * b[j], a, y);
            return;
        }
        if !flags.transpose_a && (flags.transpose_b || p == 1) {
            // Rows of both along k; a column of one element is such a row.
            for c in 0..p {
                let row = &b[c * k..(c + 1) * k];
                let mut i = 0;
                while i + 8 <= m {
                    let found = dots::<R, FMA>(&a[i * k..(i + 8) * k], row);
                    for l in 0..8 {
                        let y = &mut y[(i + l) * p + c];
                        *y = fma::<R, FMA>(sign, found[l], *y);
                    }
                    i += 8;
                }
                for i in i..m {
                    let y = &mut y[i * p + c];
                    *y = fma::<R, FMA>(sign, dot::<R, FMA>(&a[i * k..(i + 1) * k], row), *y);
                }
            }
            return;
        }
        for i in 0..m {
            let left = |j: usize| a[if flags.transpose_a { j * m + i } else { i * k + j }];
            if flags.transpose_b {
                for c in 0..p {
                    let b = &b[c * k..(c + 1) * k];
                    let mut sums = [R::ZERO; 16];
                    for j in 0..k {
                        sums[j % 16] = fma::<R, FMA>(left(j), b[j], sums[j % 16]);
                    }
                    let y = &mut y[i * p + c];
                    *y = fma::<R, FMA>(sign, total(sums), *y);
                }
                continue;
            }
            add_combination::<R, FMA>(k, |j| sign * left(j), b, &mut y[i * p..(i + 1) * p]);
        }
    }
}

/// `y += Σ_j weight(j) · rows[j]`, thirty-two columns at a time, which stay in registers.
#[inline(always)]
fn add_combination<R: Real, const FMA: bool>(k: usize, weight: impl Fn(usize) -> R, rows: &[R], y: &mut [R]) {
    let p = y.len();
    let mut c = 0;
    while c + 32 <= p {
        let mut sums: [R; 32] = load(&y[c..]);
        for j in 0..k {
            axpy::<R, 32, FMA>(&mut sums, weight(j), &load(&rows[j * p + c..]));
        }
        store(&mut y[c..], &sums);
        c += 32;
    }
    if c < p {
        for j in 0..k {
            add_scaled::<R, FMA>(weight(j), &rows[j * p + c..(j + 1) * p], &mut y[c..]);
        }
    }
}

/// `Σ a b`, in sixteen partial sums.
#[inline(always)]
fn dot<R: Real, const FMA: bool>(a: &[R], b: &[R]) -> R {
    let mut sums = [R::ZERO; 16];
    let whole = b.len() - b.len() % 16;
    for j in (0..whole).step_by(16) {
        mul_acc::<R, 16, FMA>(&mut sums, &load(&a[j..]), &load(&b[j..]));
    }
    if whole < b.len() {
        mul_acc::<R, 16, FMA>(&mut sums, &load_part(&a[whole..]), &load_part(&b[whole..]));
    }
    total(sums)
}

/// [`dot`] of eight rows of `a` with `b`, to the same bits.
#[inline(always)]
fn dots<R: Real, const FMA: bool>(a: &[R], b: &[R]) -> [R; 8] {
    let k = b.len();
    let mut sums = [[R::ZERO; 16]; 8];
    let whole = k - k % 16;
    for j in (0..whole).step_by(16) {
        let right = load(&b[j..]);
        for r in 0..8 {
            mul_acc::<R, 16, FMA>(&mut sums[r], &load(&a[r * k + j..]), &right);
        }
    }
    if whole < k {
        let right = load_part(&b[whole..]);
        for r in 0..8 {
            mul_acc::<R, 16, FMA>(&mut sums[r], &load_part(&a[r * k + whole..(r + 1) * k]), &right);
        }
    }
    totals(sums)
}

/// `y += v · x`.
#[inline(always)]
fn add_scaled<R: Real, const FMA: bool>(v: R, x: &[R], y: &mut [R]) {
    let n = y.len().min(x.len());
    let (x, y) = (&x[..n], &mut y[..n]);
    for i in 0..n {
        y[i] = fma::<R, FMA>(v, x[i], y[i]);
    }
}

fn offset(index: usize, over: &[usize], dims: &[usize], size: usize) -> usize {
    let (mut rest, mut at, mut step) = (index, 0, size);
    for (back, &d) in over.iter().rev().enumerate() {
        if let Some(own) = dims.len().checked_sub(back + 1).map(|a| dims[a]) {
            if own != 1 {
                at += rest % d * step;
            }
            step *= own;
        }
        rest /= d;
    }
    at
}

/// Where matrix `index` of the broadcast axes `over` begins in an operand of these axes, in matrices: [`offset`] on a
/// device.
fn matrix_piece(k: &mut Piece<'_, '_>, index: Value, over: &[usize], dims: &[usize]) -> Value {
    let (mut every, mut step, mut at) = (1, 1, Value::Int(0));
    for (back, &d) in over.iter().rev().enumerate() {
        if let Some(own) = dims.len().checked_sub(back + 1).map(|a| dims[a]) {
            if own != 1 {
                let along = k.code().div(index, every);
                let along = k.code().rem(along, d);
                let skip = k.code().mul(along, step);
                at = k.code().add(at, skip);
            }
            step *= own;
        }
        every *= d;
    }
    at
}

/// An element of the product, on a device.
fn product_piece(k: &mut Piece<'_, '_>, op: &BatchMatMul, piece: Value) {
    let (ad, bd) = (k.inputs[0].dims.clone(), k.inputs[1].dims.clone());
    let Ok(Sizes { m, k: terms, p, over }) = op.sizes(&ad, &bd) else { return };
    let flags = op.flags;
    let matrix = k.code().div(piece, m * p);
    let element = k.code().rem(piece, m * p);
    let (i, j) = (k.code().div(element, p), k.code().rem(element, p));
    let a0 = matrix_piece(k, matrix, &over, &ad[..ad.len() - 2]);
    let a0 = k.code().mul(a0, m * terms);
    let b0 = matrix_piece(k, matrix, &over, &bd[..bd.len() - 2]);
    let b0 = k.code().mul(b0, terms * p);
    // Distances along the row of the product, or its column, and along the sum.
    let (a_row, a_term) = if flags.transpose_a { (1, m) } else { (terms, 1) };
    let (b_column, b_term) = if flags.transpose_b { (terms, 1) } else { (1, p) };
    let (skip_a, skip_b) = (k.code().mul(i, a_row), k.code().mul(j, b_column));
    let (a0, b0) = (k.code().add(a0, skip_a), k.code().add(b0, skip_b));
    let (a_complex, b_complex) = (k.is_complex(0), k.is_complex(1));
    let zero = k.number(0.0);
    let sums: Vec<Value> = (0..k.planes()).map(|_| k.variable(zero)).collect();
    k.each(0, terms, |k, t| {
        let (ta, tb) = (k.code().mul(t, a_term), k.code().mul(t, b_term));
        let (at, bt) = (k.code().add(a0, ta), k.code().add(b0, tb));
        let (ar, br) = (k.input(0, 0, at), k.input(1, 0, bt));
        let add = |k: &mut Piece<'_, '_>, plane: usize, minus: bool, x: Value, y: Value| {
            let x = if minus { k.code().neg(x) } else { x };
            let next = k.code().fma(x, y, sums[plane]);
            k.code().set(sums[plane], next);
        };
        add(k, 0, false, ar, br);
        if a_complex && b_complex {
            let (ai, bi) = (k.input(0, 1, at), k.input(1, 1, bt));
            add(k, 0, flags.conj_a == flags.conj_b, ai, bi);
        }
        if a_complex {
            let ai = k.input(0, 1, at);
            add(k, 1, flags.conj_a, ai, br);
        }
        if b_complex {
            let bi = k.input(1, 1, bt);
            add(k, 1, flags.conj_b, bi, ar);
        }
    });
    for (plane, sum) in sums.into_iter().enumerate() {
        k.store(plane, piece, sum);
    }
}

impl BatchMatMul {
    fn kernel<R: Real>(&self, args: Args<'_, R>) {
        self.each_product(args, |sizes, a, b, y, sign| {
            let sign = sign.unwrap_or_else(|| {
                y.fill(R::ZERO);
                R::ONE
            });
            multiversion(Product { sizes, flags: self.flags, a, b, y, sign });
        });
    }

    /// Calls `put` with every pair of real planes of every product, and where in the output it goes: there it is
    /// written without a sign, else added with it.
    fn each_product<R: Real>(
        &self,
        mut args: Args<'_, R>,
        put: impl Fn(&Sizes, &[R], &[R], &mut [R], Option<R>),
    ) {
        let (a, b) = (args.inputs[0], args.inputs[1]);
        let (ad, bd) = (a.dims(), b.dims());
        let Ok(sizes) = self.sizes(ad, bd) else { return };
        let (am, bm, ym) = (sizes.m * sizes.k, sizes.k * sizes.p, sizes.m * sizes.p);
        let count: usize = sizes.over.iter().product();
        let sign = |conj: bool| if conj { -R::ONE } else { R::ONE };
        let (sa, sb) = (sign(self.flags.conj_a), sign(self.flags.conj_b));
        for r in 0..args.rows {
            let (yr, yi) = args.output.row_pair(r);
            yi.fill(R::ZERO);
            for c in 0..count {
                let from_a = offset(c, &sizes.over, &ad[..ad.len() - 2], am);
                let from_b = offset(c, &sizes.over, &bd[..bd.len() - 2], bm);
                let at = c * ym..(c + 1) * ym;
                let put = |a: &[R], b: &[R], y: &mut [R], sign: Option<R>| {
                    put(&sizes, &a[from_a..from_a + am], &b[from_b..from_b + bm], &mut y[at.clone()], sign);
                };
                put(a.row(r), b.row(r), yr, None);
                if a.is_complex() && b.is_complex() {
                    put(a.row_im(r), b.row_im(r), yr, Some(-(sa * sb)));
                }
                if a.is_complex() {
                    put(a.row_im(r), b.row(r), yi, Some(sa));
                }
                if b.is_complex() {
                    put(a.row(r), b.row_im(r), yi, Some(sb));
                }
            }
        }
    }
}

impl Structured for BatchMatMul {
    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for BatchMatMul {
    fn phases(&self, _: &[Entry], output: &Entry) -> Vec<usize> {
        vec![output.width()]
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        product_piece(k, self, piece);
    }
}

macro_rules! flags {
    ($ta:literal $ca:literal $tb:literal $cb:literal) => {
        MatMulFlags { transpose_a: $ta, conj_a: $ca, transpose_b: $tb, conj_b: $cb }
    };
}

pub(crate) static BATCH_MATMUL: OpSpec = OpSpec {
    name: "batch_matmul",
    summary: "one matrix product a row",
    cases: &[
        Case {
            label: "both with rows",
            inputs: &[Arg::either("N M K", Domain::Any), Arg::either("N K P", Domain::Any)],
            build: |tape, x| batch_matmul(tape, x[0], x[1], flags!(false false false false)),
        },
        Case {
            label: "a transposed and conjugated, axes broadcast",
            inputs: &[Arg::either("N 1 D K M", Domain::Any), Arg::either("E 1 K P", Domain::Any)],
            build: |tape, x| batch_matmul(tape, x[0], x[1], flags!(true true false false)),
        },
        Case {
            label: "b transposed and conjugated, shared a, more K than lanes",
            inputs: &[Arg::either("M 19", Domain::Any), Arg::either("N P 19", Domain::Any)],
            build: |tape, x| batch_matmul(tape, x[0], x[1], flags!(false false true true)),
        },
        Case {
            label: "both transposed, both conjugated",
            inputs: &[Arg::either("N K M", Domain::Any), Arg::either("N P K", Domain::Any)],
            build: |tape, x| batch_matmul(tape, x[0], x[1], flags!(true true true true)),
        },
        Case {
            label: "both conjugated",
            inputs: &[Arg::either("N M K", Domain::Any), Arg::either("N K 1", Domain::Any)],
            build: |tape, x| batch_matmul(tape, x[0], x[1], flags!(false true false true)),
        },
        Case {
            label: "a transposed, b conjugated",
            inputs: &[Arg::either("N K M", Domain::Any), Arg::either("N P K", Domain::Any)],
            build: |tape, x| batch_matmul(tape, x[0], x[1], flags!(true false true true)),
        },
    ],
};

pub(crate) static OUTER: OpSpec = OpSpec {
    name: "outer",
    summary: "outer product of last axes",
    cases: &[
        Case {
            label: "rows",
            inputs: &[Arg::either("N I", Domain::Any), Arg::either("N J", Domain::Any)],
            build: |tape, x| outer(tape, x[0], x[1]),
        },
        Case {
            label: "one shared, rows of rows",
            inputs: &[Arg::either("N B I", Domain::Any), Arg::either("J", Domain::Any)],
            build: |tape, x| outer(tape, x[0], x[1]),
        },
    ],
};

#[cfg(test)]
mod tests {
    use num_complex::Complex64;
    use retrograd_engine::{DType, Params, Tensor, reference};

    use super::*;
    use crate::spec::Sampler;

    #[test]
    fn every_choice_of_flags_against_a_naive_product() -> Result<()> {
        let (over, m, k, p) = ([2, 1], 3, 18, 4);
        for bits in 0..16 {
            let flags = MatMulFlags {
                transpose_a: bits & 1 != 0,
                conj_a: bits & 2 != 0,
                transpose_b: bits & 4 != 0,
                conj_b: bits & 8 != 0,
            };
            let pair = |swap: bool, a: usize, b: usize| if swap { [b, a] } else { [a, b] };
            let [a0, a1] = pair(flags.transpose_a, m, k);
            let [b0, b1] = pair(flags.transpose_b, k, p);
            let mut sampler = Sampler::new(bits);
            let a = sampler.direction(DType::C64, &[2, 1, a0, a1])?;
            let b = sampler.direction(DType::C64, &[5, b0, b1])?;
            let mut tape = Tape::new();
            let va = tape.param("a", DType::C64, [over[0], over[1], a0, a1])?;
            let vb = tape.param("b", DType::C64, [5, b0, b1])?;
            let y = batch_matmul(&mut tape, va, vb, flags)?;
            assert_eq!(tape.shape(y)?.to_string(), "[2,5,3,4]");
            let values = Params::from_iter([("a".to_string(), a.clone()), ("b".to_string(), b.clone())]);
            let found = reference::evaluate(&tape, &[y], &[&values])?.remove(0);
            for at in 0..found.len() {
                let (i, j, c, d) = (at / p % m, at % p, at / (p * m * 5), at / (p * m) % 5);
                let read = |t: &Tensor, base: usize, r: usize, c: usize, columns: usize, swap, conj| {
                    let z: Complex64 = t.get(base + if swap { c * columns + r } else { r * columns + c });
                    if conj { z.conj() } else { z }
                };
                let expected: Complex64 = (0..k)
                    .map(|l| {
                        read(&a, c * m * k, i, l, a1, flags.transpose_a, flags.conj_a)
                            * read(&b, d * k * p, l, j, b1, flags.transpose_b, flags.conj_b)
                    })
                    .sum();
                assert!((found.get(at) - expected).norm() < 1e-13, "{flags:?} {at}");
            }
        }
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_an_error() -> Result<()> {
        let mut tape = Tape::new();
        let a = tape.param("a", DType::F32, [2, 3, 4])?;
        let b = tape.param("b", DType::F32, [3, 4, 5])?;
        let v = tape.param("v", DType::F32, [4])?;
        let s = tape.param("s", DType::F32, [])?;
        let plain = MatMulFlags::default();
        let text = batch_matmul(&mut tape, a, b, plain).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(text.contains("axes before the last two that broadcast with [2], got [3,4,5]"), "{text}");
        let transposed = MatMulFlags { transpose_b: true, ..plain };
        let text = batch_matmul(&mut tape, a, b, transposed).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(text.contains("inner K=4"), "{text}");
        assert!(batch_matmul(&mut tape, a, v, plain).is_err());
        assert!(outer(&mut tape, s, v).is_err());
        Ok(())
    }
}
