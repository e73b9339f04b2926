//! Product of every row with a Kronecker product of small matrices, never formed.

mod across;
mod butterfly;
mod device;
mod kernel;
mod shortcut;
#[cfg(test)]
mod tests;

use retrograd_engine::cpu::Real;
use retrograd_engine::device::DeviceKernel;
use retrograd_engine::kernel::{Args, RowRule, Structured};
use retrograd_engine::layout::{Layout, layout};
use retrograd_engine::op::{Class, Cotangents, Io};
use retrograd_engine::{DType, Dims, Error, Lead, Op, Result, Shape, Tape, Ty, Var};
use smallvec::{SmallVec, smallvec};

use crate::check::joint_dtype;
use crate::mul;
use crate::rule::sum_options;
use crate::spec::{Arg, Case, Domain, OpSpec};
use kernel::{Apply, Chain, Grad, Stage};

/// Product of every row with a Kronecker product of matrices: `y = (W_0 ⊗ W_1 ⊗ … ⊗ W_{F−1}) x`.
///
/// Shapes: `x [.., ΠQ_f]`, `W_f [P_f, Q_f] -> y [.., ΠP_f]`; `W_0` is outermost (its index varies slowest). Any
/// number of factors, any sizes, real and complex mixed.   Rule: `x_bar` is the same product with `W_fᴴ`;
/// `W_f_bar = Σ Y_bar Zᴴ` unfolded along axis `f`, where `Z` is `x` with all factors but `f` applied; all of them
/// come from one sweep that keeps `x` alone.   Domain: all numbers.   Errors: no factor; a factor that is not a
/// matrix without batch axes or has an empty side; a last axis of `x` that is not `ΠQ_f`; single with double
/// precision.
///
/// The product is a sequence of products along one axis each: `N Σ P_f` multiply-adds for square factors. The
/// whole matrix is never formed; but small last factors are multiplied out, once a call, to a matrix of at most
/// 16 × 16 (8 × 8 in double precision), so that its rows fill vector registers. Factors that are all 2 × 2 are
/// applied several at a time in registers instead; where others leave vectors half empty, as many rows as a vector has
/// lanes go together, one a lane. Gradients of well-conditioned factors come from `x` and `x_bar` alone.
///
/// Source: C. Jose, M. Cisse, F. Fleuret (2018), "Kronecker recurrent units", ICML.
pub fn kron_apply(tape: &mut Tape, x: Var, factors: &[Var]) -> Result<Var> {
    let tys = factors.iter().map(|&w| tape.ty(w).cloned()).collect::<Result<Vec<_>>>()?;
    product_dims(&vec![Stored::default(); factors.len()], tape.ty(x)?, &tys)?;
    let dtype = tape.dtype(x)?;
    let (mut list, lanes) = (factors.to_vec(), lanes(dtype));
    if !takes_butterfly(dtype, &tys) {
        while list.len() > 1 && merge_last(tape, &mut list, lanes)? {}
    }
    apply(tape, x, list.into_iter().map(|w| (w, Stored::default())))
}

/// Whether the kernel of 2 × 2 factors takes the product.
fn takes_butterfly(x: DType, factors: &[Ty]) -> bool {
    let matrices = factors.iter().map(|w| (&w.shape.dims[..], w.dtype.is_complex()));
    match x.real() {
        DType::F64 => butterfly::takes::<f64>(x.is_complex(), matrices),
        _ => butterfly::takes::<f32>(x.is_complex(), matrices),
    }
}

/// Replaces the last two factors by their Kronecker product if it has at most `size` rows and columns.
fn merge_last(tape: &mut Tape, list: &mut Vec<Var>, size: usize) -> Result<bool> {
    let [.., a, b] = list[..] else { return Ok(false) };
    let (ad, bd) = (tape.shape(a)?.dims.clone(), tape.shape(b)?.dims.clone());
    let (p, q) = (ad[0].saturating_mul(bd[0]), ad[1].saturating_mul(bd[1]));
    if p > size || q > size {
        return Ok(false);
    }
    let a = layout(tape, a, Layout::Reshape { dims: smallvec![ad[0], 1, ad[1], 1] })?;
    let b = layout(tape, b, Layout::Reshape { dims: smallvec![1, bd[0], 1, bd[1]] })?;
    let ab = mul(tape, a, b)?;
    list.truncate(list.len() - 2);
    list.push(layout(tape, ab, Layout::Reshape { dims: smallvec![p, q] })?);
    Ok(true)
}

/// How a factor is to be read: `W` itself, its transpose, its conjugate, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stored {
    transpose: bool,
    conj: bool,
}

/// Records the product with the factors as they are, but for storing large last ones as their loop reads them.
fn apply(tape: &mut Tape, x: Var, factors: impl Iterator<Item = (Var, Stored)>) -> Result<Var> {
    let lanes = lanes(tape.dtype(x)?);
    let mut inputs = vec![x];
    let mut stored = SmallVec::<[Stored; 8]>::new();
    for (w, how) in factors {
        inputs.push(w);
        stored.push(how);
    }
    let mut inner = 1;
    for (w, how) in inputs[1..].iter_mut().zip(&mut stored).rev() {
        let dims = tape.shape(*w)?.dims.clone();
        if let [rows, columns] = dims[..]
            && inner < lanes
            && rows * columns > 1024
            && !how.transpose
        {
            *w = layout(tape, *w, Layout::Permute { order: smallvec![1, 0] })?;
            how.transpose = true;
        }
        inner *= if how.transpose { dims[0] } else { *dims.last().unwrap_or(&1) };
        how.conj &= tape.dtype(*w)?.is_complex();
    }
    let tys = inputs.iter().map(|&v| tape.ty(v).cloned()).collect::<Result<Vec<_>>>()?;
    if takes_butterfly(tys[0].dtype, &tys[1..]) {
        inputs.push(tape.push(butterfly::Table { factors: stored.clone() }, &inputs[1..])?);
    }
    tape.push(KronApply { factors: stored }, &inputs)
}

/// Lanes of the widest vector register of this type, in real numbers.
fn lanes(dtype: DType) -> usize {
    64 / dtype.real().size().max(1)
}

/// The product as recorded: inputs `x`, then the factors, then their table where the kernel of 2 × 2 factors takes them.
#[derive(Clone, Debug)]
struct KronApply {
    factors: SmallVec<[Stored; 8]>,
}

/// Gradients of the factors of a [`KronApply`], flattened as stored and joined: inputs `x`, `y_bar`, with `shortcut`
/// also `x_bar = Wᴴ y_bar`, the factors.
#[derive(Clone, Debug)]
struct KronGrad {
    factors: SmallVec<[Stored; 8]>,
    /// Whether `x_bar` is at hand: a second name for what `y_bar` says already, without cotangents of its own.
    shortcut: bool,
    /// Factors whose gradients are computed; those of the others are zero.
    wanted: SmallVec<[bool; 8]>,
}

/// Errors unless every factor is a matrix.
fn check_factors(factors: &[Ty]) -> Result<()> {
    if factors.is_empty() {
        return Err(Error::argument("kron_apply", "no factors"));
    }
    for (f, w) in factors.iter().enumerate() {
        let shape = &w.shape;
        if shape.dims.len() != 2 || shape.lead != Lead::Shared || shape.dims.contains(&0) {
            let expected = "a matrix [P,Q] without batch axes and without an empty side";
            return Err(Error::shape("kron_apply", format!("factor {f}"), expected, shape));
        }
    }
    Ok(())
}

impl Stored {
    /// Rows and columns of the matrix meant, from the sizes as stored.
    fn sizes(self, dims: &[usize]) -> (usize, usize) {
        if self.transpose { (dims[1], dims[0]) } else { (dims[0], dims[1]) }
    }

    fn adjoint(self) -> Stored {
        Stored { transpose: !self.transpose, conj: !self.conj }
    }
}

/// Errors unless factors and `x` fit; sizes of the product.
fn product_dims(factors: &[Stored], x: &Ty, matrices: &[Ty]) -> Result<Dims> {
    check_factors(matrices)?;
    let sizes = factors.iter().zip(matrices).map(|(how, w)| how.sizes(&w.shape.dims));
    let product = sizes
        .clone()
        .try_fold((1usize, 1usize), |(p, q), s| Some((p.checked_mul(s.0)?, q.checked_mul(s.1)?)));
    let text = || sizes.clone().map(|(p, q)| format!("[{p},{q}]")).collect::<Vec<_>>().join(" ⊗ ");
    let Some((rows, columns)) = product else {
        return Err(Error::Overflow { what: "kron_apply".into(), sizes: text() });
    };
    let mut dims = x.shape.dims.clone();
    match dims.last_mut() {
        Some(last) if *last == columns => *last = rows,
        _ => {
            let what = format!("last axis of x for factors {}", text());
            return Err(Error::shape("kron_apply", what, columns, &x.shape));
        }
    }
    Ok(dims)
}

/// The stages of a product whose sizes are known to fit.
fn chain<'a>(
    factors: &[Stored],
    x: &[usize],
    matrices: impl Iterator<Item = &'a [usize]>,
    complex: bool,
) -> Chain {
    let from = x.iter().product();
    let (mut outer, mut inner) = (x[..x.len() - 1].iter().product(), x[x.len() - 1]);
    let mut stages = SmallVec::new();
    for (how, dims) in factors.iter().zip(matrices) {
        let (p, q) = how.sizes(dims);
        inner /= q;
        stages.push(Stage { p, q, outer, inner, transpose: how.transpose, conj: how.conj });
        outer *= p;
    }
    Chain { stages, from, to: outer, planes: 1 + complex as usize }
}

fn chain_of(factors: &[Stored], x: &Ty, matrices: &[Ty], complex: bool) -> Chain {
    chain(factors, &x.shape.dims, matrices.iter().map(|w| &w.shape.dims[..]), complex)
}

/// The factors with one replaced, and how they are stored.
fn replaced(factors: &[Stored], matrices: &[Var], f: usize, by: Var) -> impl Iterator<Item = (Var, Stored)> {
    let mut list: SmallVec<[(Var, Stored); 8]> =
        matrices.iter().copied().zip(factors.iter().copied()).collect();
    list[f].0 = by;
    list.into_iter()
}

/// The part of joined gradients that is factor `f`'s, as a matrix.
fn part(tape: &mut Tape, joined: Var, matrices: &[Var], f: usize) -> Result<Var> {
    let mut start = 0;
    for &w in &matrices[..f] {
        start += tape.shape(w)?.width();
    }
    let dims = tape.shape(matrices[f])?.dims.clone();
    let len = dims.iter().product();
    let flat = layout(tape, joined, Layout::Slice { axis: 0, start, len })?;
    layout(tape, flat, Layout::Reshape { dims })
}

impl KronApply {
    /// The product of `x` with the matrices, one replaced.
    fn with(&self, tape: &mut Tape, x: Var, matrices: &[Var], f: usize, by: Var) -> Result<Var> {
        apply(tape, x, replaced(&self.factors, matrices, f, by))
    }

    /// The factors among the inputs.
    fn matrices<'a, T>(&self, inputs: &'a [T]) -> &'a [T] {
        &inputs[1..=self.factors.len()]
    }

    /// Whether the table of the kernel of 2 × 2 factors is behind them.
    fn has_table<T>(&self, inputs: &[T]) -> bool {
        inputs.len() > 1 + self.factors.len()
    }
}

impl Op for KronApply {
    fn name(&self) -> &'static str {
        "kron_apply"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let dtype = joint_dtype("kron_apply", inputs)?;
        let dims = product_dims(&self.factors, &inputs[0], self.matrices(inputs))?;
        Ok(Ty::new(dtype, Shape { lead: inputs[0].shape.lead, dims }))
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let (x, matrices) = (io.inputs[0], self.matrices(io.inputs));
        let mut bars: Cotangents = smallvec![None; io.inputs.len()];
        if io.needs[0] {
            let adjoint = matrices.iter().copied().zip(self.factors.iter().map(|how| how.adjoint()));
            bars[0] = Some(apply(tape, y_bar, adjoint)?);
        }
        let wanted = self.matrices(io.needs).iter().copied().collect();
        let mut small = true;
        for &w in matrices {
            let dims = &tape.shape(w)?.dims;
            small &= dims[0] == dims[1] && dims[0] <= shortcut::LARGEST;
        }
        let x_bar = bars[0].filter(|_| small);
        let joined = KronGrad { factors: self.factors.clone(), shortcut: x_bar.is_some(), wanted };
        for (f, bar) in bars[1..=matrices.len()].iter_mut().enumerate() {
            if joined.wanted[f] {
                let joined = joined.record(tape, x, y_bar, x_bar, matrices)?;
                *bar = Some(part(tape, joined, matrices, f)?);
            }
        }
        Ok(bars)
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let (x, matrices) = (io.inputs[0], self.matrices(io.inputs));
        let mut y_dot = match x_dots[0] {
            Some(d) => Some(self.with(tape, d, matrices, 0, matrices[0])?),
            None => None,
        };
        for (f, dot) in self.matrices(x_dots).iter().enumerate() {
            if let Some(dot) = *dot {
                let term = self.with(tape, x, matrices, f, dot)?;
                y_dot = sum_options(tape, y_dot, Some(term))?;
            }
        }
        Ok(y_dot)
    }

    fn flops(&self, inputs: &[Ty], output: &Ty) -> f64 {
        chain_of(&self.factors, &inputs[0], self.matrices(inputs), output.dtype.is_complex()).flops()
    }
}

impl Structured for KronApply {
    fn efficiency(&self) -> f64 {
        1.1
    }

    fn run_f32(&self, args: Args<'_, f32>) {
        self.kernel::<f32, 16>(args);
    }

    fn run_f64(&self, args: Args<'_, f64>) {
        self.kernel::<f64, 8>(args);
    }

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }

    fn scratch(&self, inputs: &[Ty]) -> usize {
        let dtype = inputs[0].dtype;
        if self.has_table(inputs) {
            return 0;
        }
        let complex = inputs.iter().any(|ty| ty.dtype.is_complex());
        chain_of(&self.factors, &inputs[0], &inputs[1..], complex).apply_scratch(lanes(dtype))
    }
}

impl KronApply {
    fn kernel<R: Real, const L: usize>(&self, args: Args<'_, R>) {
        // Without rows there are no imaginary parts to see either.
        if args.rows == 0 {
            return;
        }
        if self.has_table(args.inputs) {
            return butterfly::run(self.factors.len(), args);
        }
        let matrices = args.inputs[1..].iter().map(|w| w.dims());
        let chain = chain(&self.factors, args.inputs[0].dims(), matrices, args.output.is_complex());
        Apply::<R, L> { chain: &chain, args }.run();
    }
}

impl KronGrad {
    fn record(
        &self,
        tape: &mut Tape,
        x: Var,
        y_bar: Var,
        x_bar: Option<Var>,
        matrices: &[Var],
    ) -> Result<Var> {
        let mut inputs: SmallVec<[Var; 16]> = smallvec![x, y_bar];
        inputs.extend(x_bar);
        inputs.extend_from_slice(matrices);
        tape.push(self.clone(), &inputs)
    }

    /// Number of the first factor's input.
    fn first(&self) -> usize {
        2 + usize::from(self.shortcut)
    }

    /// Of every gradient but factor `f`'s, those of `needs`, with factor `f` replaced.
    fn others(&self, f: usize, needs: impl Fn(usize) -> bool) -> Option<KronGrad> {
        let wanted: SmallVec<[bool; 8]> = (0..self.factors.len()).map(|g| g != f && needs(g)).collect();
        wanted.contains(&true).then(|| KronGrad { factors: self.factors.clone(), shortcut: false, wanted })
    }
}

impl Op for KronGrad {
    fn name(&self) -> &'static str {
        "kron_grad"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let dtype = joint_dtype("kron_grad", inputs)?;
        let first = self.first();
        let dims = product_dims(&self.factors, &inputs[0], &inputs[first..])?;
        if inputs[1].shape.dims != dims {
            return Err(Error::shape("kron_grad", "y_bar", format!("{:?}", &dims[..]), &inputs[1].shape));
        }
        Ok(Ty::new(dtype, Shape::shared([inputs[first..].iter().map(|w| w.shape.width()).sum::<usize>()])))
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, c_bar: Var) -> Result<Cotangents> {
        // The output is linear in the product's tangent: <c, grad> = <y_bar, Σ_f product with c_f for W_f>.
        let first = self.first();
        let (x, y_bar, matrices) = (io.inputs[0], io.inputs[1], &io.inputs[first..]);
        let mut bars: Cotangents = smallvec![None; io.inputs.len()];
        let product = KronApply { factors: self.factors.clone() };
        let adjoint = KronApply { factors: self.factors.iter().map(|how| how.adjoint()).collect() };
        for f in (0..matrices.len()).filter(|&f| self.wanted[f]) {
            let c = part(tape, c_bar, matrices, f)?;
            if io.needs[0] {
                let term = adjoint.with(tape, y_bar, matrices, f, c)?;
                bars[0] = sum_options(tape, bars[0], Some(term))?;
            }
            if io.needs[1] {
                let term = product.with(tape, x, matrices, f, c)?;
                bars[1] = sum_options(tape, bars[1], Some(term))?;
            }
            if let Some(others) = self.others(f, |g| io.needs[first + g]) {
                let mut changed: SmallVec<[Var; 8]> = matrices.iter().copied().collect();
                changed[f] = c;
                let joined = others.record(tape, x, y_bar, None, &changed)?;
                for g in (0..matrices.len()).filter(|&g| others.wanted[g]) {
                    let term = part(tape, joined, matrices, g)?;
                    bars[first + g] = sum_options(tape, bars[first + g], Some(term))?;
                }
            }
        }
        Ok(bars)
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let first = self.first();
        let (x, y_bar, matrices) = (io.inputs[0], io.inputs[1], &io.inputs[first..]);
        let x_bar = io.inputs[..first].get(2).copied();
        let from_x = x_dots[0].map(|d| self.record(tape, d, y_bar, x_bar, matrices)).transpose()?;
        let longer = KronGrad { shortcut: false, ..self.clone() };
        let from_y = x_dots[1].map(|d| longer.record(tape, x, d, None, matrices)).transpose()?;
        let mut sum = sum_options(tape, from_x, from_y)?;
        for (f, dot) in x_dots[first..].iter().enumerate() {
            if let (Some(dot), Some(others)) = (*dot, self.others(f, |g| self.wanted[g])) {
                let mut changed: SmallVec<[Var; 8]> = matrices.iter().copied().collect();
                changed[f] = dot;
                let term = others.record(tape, x, y_bar, None, &changed)?;
                sum = sum_options(tape, sum, Some(term))?;
            }
        }
        Ok(sum)
    }

    fn flops(&self, inputs: &[Ty], output: &Ty) -> f64 {
        // One product forward, one back, one outer product a factor.
        let terms = if self.shortcut { 1.0 } else { 3.0 };
        terms
            * chain_of(&self.factors, &inputs[0], &inputs[self.first()..], output.dtype.is_complex()).flops()
    }
}

impl Structured for KronGrad {
    fn efficiency(&self) -> f64 {
        1.1
    }

    fn rows(&self) -> RowRule {
        RowRule::Reduce
    }

    fn run_f32(&self, args: Args<'_, f32>) {
        self.kernel::<f32, 16>(args);
    }

    fn run_f64(&self, args: Args<'_, f64>) {
        self.kernel::<f64, 8>(args);
    }

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }

    fn scratch(&self, inputs: &[Ty]) -> usize {
        let complex = inputs.iter().any(|ty| ty.dtype.is_complex());
        let lanes = lanes(inputs[0].dtype);
        let chain = chain_of(&self.factors, &inputs[0], &inputs[self.first()..], complex);
        let short = if self.shortcut { shortcut::scratch(&chain, lanes) } else { 0 };
        chain.grad_scratch(lanes).max(short)
    }
}

impl KronGrad {
    fn kernel<R: Real, const L: usize>(&self, mut args: Args<'_, R>) {
        if args.rows == 0 {
            return;
        }
        let (inputs, first, complex) = (args.inputs, self.first(), args.output.is_complex());
        let chain =
            || chain(&self.factors, inputs[0].dims(), inputs[first..].iter().map(|w| w.dims()), complex);
        if self.shortcut && shortcut::run::<R, L>(&self.factors, &self.wanted, chain, &mut args) {
            return;
        }
        Grad::<R, L> { chain: &chain(), first, wanted: &self.wanted, args }.run();
    }
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "kron_apply",
    summary: "product with a Kronecker product of matrices, never formed",
    cases: &[
        Case {
            label: "one factor",
            inputs: &[Arg::either("N B", Domain::Any), Arg::either("A B", Domain::Any)],
            build: |tape, v| kron_apply(tape, v[0], &v[1..]),
        },
        Case {
            label: "two rectangular factors",
            inputs: &[
                Arg::either("N B D", Domain::Any),
                Arg::either("A B", Domain::Any),
                Arg::either("C D", Domain::Any),
            ],
            build: |tape, v| flat(tape, v),
        },
        Case {
            label: "three factors, rows of rows",
            inputs: &[
                Arg::either("N E 2 3 4", Domain::Any),
                Arg::complex("3 2", Domain::Any),
                Arg::either("5 3", Domain::Any),
                Arg::complex("4 4", Domain::Any),
            ],
            build: |tape, v| {
                let dims = tape.shape(v[0])?.dims.clone();
                let x = layout(tape, v[0], Layout::Reshape { dims: smallvec![dims[0], 24] })?;
                kron_apply(tape, x, &v[1..])
            },
        },
        Case {
            label: "many 2 × 2",
            inputs: &[
                Arg::complex("N 64", Domain::Any),
                Arg::complex("2 2", Domain::Any),
                Arg::complex("2 2", Domain::Any),
                Arg::either("2 2", Domain::Any),
                Arg::complex("2 2", Domain::Any),
                Arg::complex("2 2", Domain::Any),
                Arg::complex("2 2", Domain::Any),
            ],
            build: |tape, v| kron_apply(tape, v[0], &v[1..]),
        },
        Case {
            label: "a factor twice, shared vector",
            inputs: &[Arg::real("9", Domain::Any), Arg::either("3 3", Domain::Any)],
            build: |tape, v| kron_apply(tape, v[0], &[v[1], v[1]]),
        },
    ],
};

/// `kron_apply` of an `x` given with one axis a factor.
fn flat(tape: &mut Tape, v: &[Var]) -> Result<Var> {
    let width = tape.shape(v[0])?.width();
    let x = layout(tape, v[0], Layout::Reshape { dims: smallvec![width] })?;
    kron_apply(tape, x, &v[1..])
}

impl Chain {
    /// Floating-point operations of one row.
    fn flops(&self) -> f64 {
        let adds: f64 = self.stages.iter().map(|s| (s.outer * s.inner) as f64 * (s.p * s.q) as f64).sum();
        if self.planes == 2 { 8.0 * adds } else { 2.0 * adds }
    }
}
