//! Products with inverse blocks, in the precision of the parameters.
//!
//! Blocks are inverted in double precision; what is multiplied at every update is not: gradients have no more digits than
//! the parameters, and a product with half the bytes takes half the time.

use faer::traits::RealField;
use faer::{Mat, MatRef, unzip, zip};

use crate::elementwise::Real;

/// The matrices of an [`Inverse`](super::approximation::Inverse), wherever they are and of whichever precision.
#[derive(Clone, Copy, Debug)]
pub(crate) enum View<'a, R> {
    Independence { a: MatRef<'a, R>, g: MatRef<'a, R> },
    Option1 { a: MatRef<'a, R>, g: MatRef<'a, R>, y: MatRef<'a, R> },
    Option2 { pa: MatRef<'a, R>, ka: MatRef<'a, R>, pg: MatRef<'a, R>, kg: MatRef<'a, R>, y: MatRef<'a, R> },
}

impl<R: Real + RealField> View<'_, R> {
    /// The product with `Z` `[n_G, n_A]`.
    pub(crate) fn apply(&self, z: MatRef<'_, R>) -> Mat<R> {
        match *self {
            View::Independence { a, g } if a.ncols() == 1 && a.nrows() == z.ncols() && a.nrows() > 1 => {
                let mut z = g * z;
                for (column, factor) in z.col_iter_mut().zip(a.col(0).iter()) {
                    column.iter_mut().for_each(|x| *x *= *factor);
                }
                z
            }
            View::Independence { a, g } => g * z * a,
            View::Option1 { a, g, y } => g * times(g.transpose() * z * a, y) * a.transpose(),
            View::Option2 { pa, ka, pg, kg, y } => {
                let z = z - pg * z * pa.transpose();
                let z = times(kg.transpose() * z * ka, y);
                let z = kg * z * ka.transpose();
                &z - pg.transpose() * &z * pa
            }
        }
    }
}

/// Element by element.
fn times<R: Real + RealField>(mut a: Mat<R>, b: MatRef<'_, R>) -> Mat<R> {
    zip!(&mut a, b).for_each(|unzip!(a, b)| *a *= *b);
    a
}
