//! Differentiable operations of retrograd.
#![forbid(unsafe_code)]

mod axis;
mod check;
mod lanes;
mod rule;
pub mod spec;

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

mod kron_apply;
mod mul;

ops! {
    // file { public items } [specs];
    kron_apply { kron_apply } [SPEC];
    mul { mul } [SPEC];
}
