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
mod elu;
mod exp;
mod expm1;
mod hard_sigmoid;
mod hard_tanh;
mod leaky_relu;
mod log;
mod log1p;
mod maximum;
mod modrelu;
mod mul;
mod phase;
mod polar;
mod power;
mod rearrange;
mod recip;
mod relu;
mod sigmoid;
mod sign;
mod sin;
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
    elu { elu } [SPEC];
    exp { exp } [SPEC];
    expm1 { expm1 } [SPEC];
    hard_sigmoid { hard_sigmoid } [SPEC];
    hard_tanh { hard_tanh } [SPEC];
    leaky_relu { leaky_relu } [SPEC];
    log { log } [SPEC];
    log1p { log1p } [SPEC];
    maximum { maximum, minimum } [MAXIMUM, MINIMUM];
    modrelu { ModReluForm, modrelu } [SPEC];
    mul { mul } [SPEC];
    phase { phase } [SPEC];
    polar { cis, polar } [CIS, POLAR];
    power { pow, powf, powi } [POW, POWF, POWI];
    rearrange { broadcast, chunk, concat, flip, reshape, slice, split, transpose }
        [BROADCAST, CHUNK, CONCAT, FLIP, RESHAPE, SLICE, SPLIT, TRANSPOSE];
    recip { recip } [SPEC];
    relu { relu } [SPEC];
    sigmoid { sigmoid } [SPEC];
    sign { sign } [SPEC];
    sin { sin } [SPEC];
    softplus { softplus } [SPEC];
    sqrt { sqrt } [SPEC];
    square { square } [SPEC];
    sub { sub } [SPEC];
    tanh { tanh } [SPEC];
    zrelu { zrelu } [SPEC];
}
