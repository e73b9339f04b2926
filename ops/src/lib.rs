//! Differentiable operations of retrograd.
//!
//! Every operation is a function that records on a tape: `tanh(tape, x)`. It checks types and computes nothing;
//! values come from running a plan. Real and complex numbers mix as in mathematics, sizes broadcast, and every rule
//! is recorded from operations, so gradients can be differentiated again. Axes given to a function are ordinary axes,
//! the ones behind the batch axes; negative ones count from the last.
//!
//! | group | operations |
//! |---|---|
//! | arithmetic | [`add()`], [`sub()`], [`mul()`], [`div()`], [`div_or_zero()`], [`neg()`], [`recip()`], [`scale()`], [`shift()`], [`affine()`], [`square()`], [`powi()`], [`powf()`], [`pow()`] |
//! | comparison, choice | [`eq()`], [`ne()`], [`lt()`], [`le()`], [`gt()`], [`ge()`], [`where_()`], [`clamp()`], [`maximum()`], [`minimum()`] |
//! | functions | [`exp()`], [`expm1()`], [`log()`], [`log1p()`], [`sqrt()`], [`sin()`], [`cos()`], [`tanh()`], [`sigmoid()`], [`softplus()`], [`abs()`], [`sign()`], [`relu()`], [`leaky_relu()`], [`elu()`], [`hard_sigmoid()`], [`hard_tanh()`] |
//! | complex | [`complex()`], [`polar()`], [`cis()`], [`real()`], [`imag()`], [`conj()`], [`to_complex()`], [`times_i()`], [`abs2()`], [`phase()`], [`modrelu()`], [`crelu()`], [`zrelu()`] |
//! | products | [`matmul()`], [`matmul_with()`], [`batch_matmul()`], [`outer()`], [`kron_apply()`], [`rotations()`], [`fft()`], [`ifft()`], [`triangular_solve()`] |
//! | reductions | [`sum()`], [`mean()`], [`max()`], [`norm()`], [`sum_all()`], [`mean_all()`] |
//! | normalization | [`normalize()`], [`layer_norm()`], [`softmax()`], [`log_softmax()`], [`logsumexp()`] |
//! | losses | [`softmax_cross_entropy()`], [`bce_with_logits()`], [`squared_error()`] |
//! | equations | [`fixed_point()`] |
//! | look-up, chance | [`gather()`], [`scatter_add()`], [`take()`], [`put()`], [`pick()`], [`place()`], [`dropout()`], [`dropout_mask()`] |
//! | rearrangement | [`reshape()`], [`slice()`], [`split()`], [`chunk()`], [`concat()`], [`transpose()`], [`flip()`], [`broadcast()`], [`expand()`] |
//! | from nothing | [`fill()`], [`zeros_like()`], [`extent()`], [`cast()`], [`stop_gradient()`] |
//!
//! # How to add an operation
//!
//! One file `src/<name>.rs`, its `mod` line, and its entry in the table at the foot of `lib.rs`. The file holds, in
//! this order: the documented public function, the type, the expression or kernel, the rules, the spec, tests of
//! values at special points. The table's tests (`tests/rules.rs`) then hold the rules to finite differences, to the
//! adjoint identity and to each other, in all element types.
//!
//! Here is the whole of one, the Swish function `y = x · sigmoid(x)` of real numbers:
//!
//! ```
//! use retrograd_engine::expr::{Expr, Num, Unary};
//! use retrograd_engine::op::{Class, Cotangents, Io, Pointwise, infer_pointwise};
//! use retrograd_engine::{DType, Op, Result, Tape, Ty, Var, gradcheck};
//! use retrograd_ops::{Arg, Case, Domain, OpSpec, Sampler, affine, mul, sigmoid};
//!
//! /// Swish, element by element: `y = x · sigmoid(x)`; real.
//! ///
//! /// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = s (1 + x (1 − s)) · y_bar` with `s = sigmoid(x)`; keeps `x`.
//! /// Domain: all real numbers.   Errors: none of its own.
//! pub fn swish(tape: &mut Tape, x: Var) -> Result<Var> {
//!     tape.push(Swish, &[x])
//! }
//!
//! #[derive(Clone, Copy, Debug)] // `Debug` must print every field: it is how equal operations are recognised
//! struct Swish;
//!
//! // Forward: one element, as straight-line code on registers. Backends compile and fuse it.
//! impl Pointwise for Swish {
//!     fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
//!         let s = e.map(Unary::Sigmoid, x[0]);
//!         e.mul(x[0], s)
//!     }
//! }
//!
//! impl Swish {
//!     /// Multiplies `v` by the derivative, with recorded operations.
//!     fn through(&self, tape: &mut Tape, v: Var, x: Var) -> Result<Var> {
//!         let s = sigmoid(tape, x)?;
//!         let rest = affine(tape, s, -1.0, 1.0)?;
//!         let d = mul(tape, x, rest)?;
//!         let d = affine(tape, d, 1.0, 1.0)?;
//!         let d = mul(tape, s, d)?;
//!         mul(tape, v, d)
//!     }
//! }
//!
//! impl Op for Swish {
//!     fn name(&self) -> &'static str {
//!         "swish"
//!     }
//!     fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
//!         infer_pointwise("swish", self, inputs)
//!     }
//!     fn class(&self) -> Class<'_> {
//!         Class::Pointwise(self)
//!     }
//!     fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
//!         Ok([Some(self.through(tape, y_bar, io.inputs[0])?)].into_iter().collect())
//!     }
//!     fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
//!         x_dots[0].map(|x_dot| self.through(tape, x_dot, io.inputs[0])).transpose()
//!     }
//! }
//!
//! // How to try it; in the crate: `pub(crate) static SPEC`, named in the table.
//! static SPEC: OpSpec = OpSpec {
//!     name: "swish",
//!     summary: "x · sigmoid(x)",
//!     cases: &[Case {
//!         label: "real",
//!         inputs: &[Arg::real("N C", Domain::Any)],
//!         build: |tape, x| swish(tape, x[0]),
//!     }],
//! };
//!
//! // What the table's tests do with it.
//! # fn main() -> Result<()> {
//! let mut it = SPEC.cases[0].record(DType::F64, &[false], &mut Sampler::new(1))?;
//! let options = gradcheck::Options { second_order: true, ..Default::default() };
//! let report =
//!     gradcheck::check_reference(&mut it.tape, &[it.output], &it.inputs, &[&it.values], &options)?;
//! assert!(report.passed(), "{report}");
//! # Ok(()) }
//! ```
//!
//! Inside the crate the macros of `rule.rs` write the parts that are the same for every pointwise operation.
//!
//! A pointwise operation runs on a device as it is. One with a kernel of its own brings the code of its pieces in the same
//! file, as a [`DeviceKernel`](retrograd_engine::device::DeviceKernel); without one a program on a device is refused by the
//! operation's name.
#![forbid(unsafe_code)]

mod axis;
mod check;
mod exp_sum;
mod fold;
mod lanes;
mod pieces;
mod rule;
pub mod spec;
#[cfg(test)]
mod testing;

pub use spec::{Arg, Case, Domain, Field, OpSpec, Recorded, Sampler};

/// The table of operations: re-exports each file's public items and lists its specs in [`OPS`].
///
/// ```ignore
/// ops! { mul { mul } [SPEC]; }
/// // expands to
/// //   pub use mul::{mul};
/// //   pub static OPS: &[&OpSpec] = &[&mul::SPEC];
/// //   pub static FILES: &[&str] = &["mul"];
/// ```
macro_rules! ops {
    ($($file:ident { $($item:ident),* $(,)? } [$($spec:ident),* $(,)?];)*) => {
        $(pub use $file::{$($item),*};)*

        /// Every operation, in the order of the table.
        pub static OPS: &[&OpSpec] = &[$($(&$file::$spec,)*)*];

        /// The files of the table, for the test that compares it with the directory.
        #[doc(hidden)]
        pub static FILES: &[&str] = &[$(stringify!($file)),*];
    };
}

mod abs;
mod abs2;
mod affine;
mod basic;
mod batch_matmul;
mod bce_with_logits;
mod clamp;
mod compare;
mod complex;
mod cos;
mod crelu;
mod div;
mod dropout;
mod elu;
mod exp;
mod expm1;
mod fft;
mod fixed_point;
mod gather;
mod hard_sigmoid;
mod hard_tanh;
mod kron_apply;
mod layer_norm;
mod leaky_relu;
mod log;
mod log1p;
mod matmul;
mod max;
mod maximum;
mod modrelu;
mod mul;
mod norm;
mod phase;
mod pick;
mod polar;
mod power;
mod rearrange;
mod recip;
mod reduce;
mod relu;
mod rotations;
mod sigmoid;
mod sign;
mod sin;
mod softmax;
mod softmax_cross_entropy;
mod softplus;
mod sqrt;
mod square;
mod squared_error;
mod sub;
mod take;
mod tanh;
mod triangular_solve;
mod zrelu;

ops! {
    // file { public items } [specs];
    abs { abs } [SPEC];
    abs2 { abs2 } [SPEC];
    affine { affine, scale, shift } [AFFINE, SCALE, SHIFT];
    basic {
        add, cast, conj, expand, extent, fill, imag, neg, real, stop_gradient, times_i, to_complex,
        where_, zeros_like,
    } [
        ADD, CONJ, EXPAND, EXTENT, FILL, IMAG, NEG, REAL, TIMES_I, TO_COMPLEX, WHERE, ZEROS_LIKE,
    ];
    batch_matmul { MatMulFlags, batch_matmul, outer } [BATCH_MATMUL, OUTER];
    bce_with_logits { bce_with_logits } [SPEC];
    clamp { clamp } [SPEC];
    compare { eq, ge, gt, le, lt, ne } [EQ, GE, GT, LE, LT, NE];
    complex { complex } [SPEC];
    cos { cos } [SPEC];
    crelu { crelu } [SPEC];
    div { div, div_or_zero } [DIV, DIV_OR_ZERO];
    dropout { dropout, dropout_mask } [DROPOUT, DROPOUT_MASK];
    elu { elu } [SPEC];
    exp { exp } [SPEC];
    expm1 { expm1 } [SPEC];
    fft { fft, ifft } [FFT, IFFT];
    fixed_point { FixedPoint, Gradient, Rate, Solution, Solver, fixed_point } [SPEC];
    gather { gather, scatter_add } [GATHER, SCATTER_ADD];
    hard_sigmoid { hard_sigmoid } [SPEC];
    hard_tanh { hard_tanh } [SPEC];
    kron_apply { kron_apply } [SPEC];
    layer_norm { layer_norm } [SPEC];
    leaky_relu { leaky_relu } [SPEC];
    log { log } [SPEC];
    log1p { log1p } [SPEC];
    matmul { matmul, matmul_with } [SPEC];
    max { max } [SPEC];
    maximum { maximum, minimum } [MAXIMUM, MINIMUM];
    modrelu { ModReluForm, modrelu } [SPEC];
    mul { mul } [SPEC];
    norm { norm, normalize } [NORM, NORMALIZE];
    phase { phase } [SPEC];
    pick { pick, place } [PICK, PLACE];
    polar { cis, polar } [CIS, POLAR];
    power { pow, powf, powi } [POW, POWF, POWI];
    rearrange { broadcast, chunk, concat, flip, reshape, slice, split, transpose }
        [BROADCAST, CHUNK, CONCAT, FLIP, RESHAPE, SLICE, SPLIT, TRANSPOSE];
    recip { recip } [SPEC];
    reduce { mean, mean_all, sum, sum_all } [MEAN, MEAN_ALL, SUM, SUM_ALL];
    relu { relu } [SPEC];
    rotations { RotationStyle, rotations } [SPEC];
    sigmoid { sigmoid } [SPEC];
    sign { sign } [SPEC];
    sin { sin } [SPEC];
    softmax { log_softmax, logsumexp, softmax } [LOGSUMEXP, LOG_SOFTMAX, SOFTMAX];
    softmax_cross_entropy { softmax_cross_entropy } [SPEC];
    softplus { softplus } [SPEC];
    sqrt { sqrt } [SPEC];
    square { square } [SPEC];
    squared_error { squared_error } [SPEC];
    sub { sub } [SPEC];
    take { put, take } [PUT, TAKE];
    tanh { tanh } [SPEC];
    triangular_solve { Triangle, triangular_solve } [SPEC];
    zrelu { zrelu } [SPEC];
}
