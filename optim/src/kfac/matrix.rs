//! Dense matrices in double precision, and complex ones as real ones of twice the size.

use faer::{Mat, MatRef, Side};
use retrograd_engine::{DType, Tensor};

use crate::elementwise::{Real, with_real};
use crate::error::{Error, Result};

/// `(M + Mᵀ) / 2`.
pub(crate) fn symmetric(m: &Mat<f64>) -> Mat<f64> {
    Mat::from_fn(m.nrows(), m.ncols(), |i, j| 0.5 * (m[(i, j)] + m[(j, i)]))
}

/// Eigenvalues of a covariance, at least 0, and its eigenvectors as columns. `None` where numbers are not finite.
pub(crate) fn clipped_eigen(m: &Mat<f64>) -> Option<(Vec<f64>, Mat<f64>)> {
    let eigen = symmetric(m).self_adjoint_eigen(Side::Lower).ok()?;
    let values: Vec<f64> = (0..m.nrows()).map(|i| eigen.S()[i].max(0.0)).collect();
    values.iter().all(|e| e.is_finite()).then(|| (values, eigen.U().to_owned()))
}

/// The real matrix of an array of numbers `[rows, columns]`: itself, or, as a `composite`, `[[Re, −Im], [Im, Re]]`. Sums,
/// products, adjoints and functions of Hermitian matrices are the same for both.
pub(crate) fn matrix(
    rows: usize,
    columns: usize,
    is_composite: bool,
    entry: impl Fn(usize, usize) -> faer::c64,
) -> Mat<f64> {
    if !is_composite {
        return Mat::from_fn(rows, columns, |i, j| entry(i, j).re);
    }
    Mat::from_fn(2 * rows, 2 * columns, |i, j| {
        let z = entry(i % rows, j % columns);
        match (i < rows, j < columns) {
            (true, true) | (false, false) => z.re,
            (true, false) => -z.im,
            (false, true) => z.im,
        }
    })
}

/// [`matrix`] of a tensor `[rows, columns]`, or of a vector as one column.
pub(crate) fn composite(tensor: &Tensor, is_composite: bool) -> Mat<f64> {
    let rows = tensor.dims().first().copied().unwrap_or(1);
    let columns = tensor.dims().get(1).copied().unwrap_or(1);
    if columns == 1 && is_composite {
        // A diagonal: real numbers, each for the two components of a number.
        return Mat::from_fn(2 * rows, 1, |i, _| tensor.get(i % rows).re);
    }
    matrix(rows, columns, is_composite, |i, j| tensor.get(i * columns + j))
}

/// As a tensor of `f32` or `f64`, column after column: sizes `[columns, rows]`.
pub(crate) fn stored(m: &Mat<f64>, dtype: DType) -> Result<Tensor> {
    let mut tensor = Tensor::zeros(dtype, [m.ncols(), m.nrows()])?;
    with_real!(tensor, "inverse", R => {
        let columns = tensor.components_mut::<R>()?.chunks_exact_mut(m.nrows().max(1));
        for (j, column) in columns.enumerate() {
            column.iter_mut().zip(m.col_as_slice(j)).for_each(|(to, &x)| *to = R::of(x));
        }
        Ok(tensor)
    })
}

/// The matrix of [`stored`], where it is. Errors: a tensor that is no matrix of this type.
pub(crate) fn loaded<'a, R: Real>(what: &str, tensor: &'a Tensor) -> Result<MatRef<'a, R>> {
    let bad = || Error::Mismatch {
        what: format!("optimiser state `{what}`"),
        expected: format!("a matrix of {}", R::DTYPE),
        got: format!("{} {:?}", tensor.dtype(), tensor.dims()),
    };
    let &[columns, rows] = tensor.dims() else { return Err(bad()) };
    let data = tensor.as_slice::<R>().map_err(|_| bad())?;
    Ok(MatRef::from_column_major_slice(data, rows, columns))
}
