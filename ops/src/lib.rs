//! Differentiable operations of retrograd.
#![forbid(unsafe_code)]

mod axis;
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
mod gather;
mod hard_sigmoid;
mod hard_tanh;
mod leaky_relu;
mod log;
mod log1p;
mod max;
mod maximum;
mod modrelu;
mod mul;
mod phase;
mod pick;
mod polar;
mod power;
mod rearrange;
mod recip;
mod reduce;
mod relu;
mod sigmoid;
mod sign;
mod sin;
mod softmax;
mod softplus;
mod sqrt;
mod square;
mod sub;
mod tanh;
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
    clamp { clamp } [SPEC];
    compare { eq, ge, gt, le, lt, ne } [EQ, GE, GT, LE, LT, NE];
    complex { complex } [SPEC];
    cos { cos } [SPEC];
    crelu { crelu } [SPEC];
    div { div, div_or_zero } [DIV, DIV_OR_ZERO];
    dropout { dropout, dropout_mask } [SPEC];
    elu { elu } [SPEC];
    exp { exp } [SPEC];
    expm1 { expm1 } [SPEC];
    gather { gather, scatter_add } [GATHER, SCATTER_ADD];
    hard_sigmoid { hard_sigmoid } [SPEC];
    hard_tanh { hard_tanh } [SPEC];
    leaky_relu { leaky_relu } [SPEC];
    log { log } [SPEC];
    log1p { log1p } [SPEC];
    max { max } [SPEC];
    maximum { maximum, minimum } [MAXIMUM, MINIMUM];
    modrelu { ModReluForm, modrelu } [SPEC];
    mul { mul } [SPEC];
    phase { phase } [SPEC];
    pick { pick, place } [PICK, PLACE];
    polar { cis, polar } [CIS, POLAR];
    power { pow, powf, powi } [POW, POWF, POWI];
    rearrange { broadcast, chunk, concat, flip, reshape, slice, split, transpose }
        [BROADCAST, CHUNK, CONCAT, FLIP, RESHAPE, SLICE, SPLIT, TRANSPOSE];
    recip { recip } [SPEC];
    reduce { mean, mean_all, sum, sum_all } [MEAN, MEAN_ALL, SUM, SUM_ALL];
    relu { relu } [SPEC];
    sigmoid { sigmoid } [SPEC];
    sign { sign } [SPEC];
    sin { sin } [SPEC];
    softmax { bce_with_logits, log_softmax, logsumexp, softmax, softmax_cross_entropy, squared_error }
        [BCE, CROSS_ENTROPY, LOG_SOFTMAX, LOGSUMEXP, SOFTMAX, SQUARED_ERROR];
    softplus { softplus } [SPEC];
    sqrt { sqrt } [SPEC];
    square { square } [SPEC];
    sub { sub } [SPEC];
    tanh { tanh } [SPEC];
    zrelu { zrelu } [SPEC];
}
