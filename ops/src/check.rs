//! Checks of types that the shape rules of structured operations share.

use retrograd_engine::{DType, Error, Result, Ty};

/// The element type of a product of the inputs: they are over one real type, complex if one of them is.
pub(crate) fn joint_dtype(op: &'static str, inputs: &[Ty]) -> Result<DType> {
    let real = inputs.first().map_or(DType::F32, |ty| ty.dtype.real());
    for (i, ty) in inputs.iter().enumerate() {
        if !ty.dtype.is_differentiable() {
            return Err(Error::dtype(op, format!("input {i}"), "f32, f64, c32 or c64", ty.dtype));
        }
        if ty.dtype.real() != real {
            return Err(Error::dtype(op, format!("input {i}"), format!("over {real}"), ty.dtype));
        }
    }
    let complex = inputs.iter().any(|ty| ty.dtype.is_complex());
    Ok(if complex { real.complex().unwrap_or(real) } else { real })
}

/// Errors unless input `i` is real.
pub(crate) fn real(op: &'static str, inputs: &[Ty], i: usize) -> Result<()> {
    match inputs[i].dtype {
        DType::F32 | DType::F64 => Ok(()),
        other => Err(Error::dtype(op, format!("input {i}"), "f32 or f64", other)),
    }
}

/// Errors unless input `i` holds indices.
pub(crate) fn index(op: &'static str, inputs: &[Ty], i: usize) -> Result<()> {
    match inputs[i].dtype {
        DType::I32 => Ok(()),
        other => Err(Error::dtype(op, format!("input {i}"), DType::I32, other)),
    }
}
