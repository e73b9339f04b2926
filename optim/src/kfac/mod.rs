//! K-FAC: curvature of linear maps as Kronecker products, also of maps that are used at every step of a sequence.
//!
//! A network says which of its parameters are linear maps ([`Structure`]) and hands over their statistics ([`Moments`]);
//! [`Kfac`](crate::Kfac) keeps averages of them, inverts blocks of the Fisher information made of them, and moves the
//! parameters along what the inverse makes of the gradient. What it asks of the network it asks by the trait
//! [`Curvature`], on its own schedule.
//!
//! - [`approximation`]: the block of one map under three assumptions about time, and damping.
//! - `block`, `map`: which parameters make a block, and what it remembers.
//! - `product`: the inverse times a gradient.
//! - `background`: inverses computed beside training, to the same bits.
//! - [`Plane`], [`Adaptation`]: how far to go, and how much to trust the model.
//! - [`conjugate_gradients`]: the baseline that needs no blocks at all.

pub mod approximation;
pub(crate) mod background;
pub(crate) mod block;
mod conjugate;
pub(crate) mod map;
pub(crate) mod matrix;
mod model;
pub(crate) mod parallel;
pub(crate) mod product;
mod shrink;
mod structure;
pub(crate) mod vector;

pub use approximation::{Approximation, Damping, Factors, Inverse, chain_sum};
pub use block::BlockKind;
pub use conjugate::{CgOptions, CgResult, conjugate_gradients};
/// The linear algebra whose matrices the functions of [`approximation`] take.
pub use faer;
pub use model::{Adaptation, Plane, Step};
pub use structure::{Curvature, MapMoments, MapSpec, Moments, NoCurvature, Structure, Targets, Wanted};
