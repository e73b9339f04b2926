//! Bound tensors: found by name, checked against their declaration; `T` and `N` read off them.

use super::value::{Extents, Value};
use crate::error::{Error, Result};
use crate::op::Ty;
use crate::params::Params;
use crate::shape::Shape;
use crate::tape::{NodeKind, Tape};
use crate::tensor::Tensor;

fn find<'a>(name: &str, bindings: &[&'a Params]) -> Option<&'a Tensor> {
    bindings.iter().find_map(|b| b.get(name))
}

fn sizes(tensor: &Tensor) -> String {
    format!("{:?}", tensor.dims())
}

/// Whether the number of axes and the ordinary sizes fit; batch axes may have any size.
fn fits(shape: &Shape, tensor: &Tensor) -> bool {
    let lead = shape.concrete(0, 0).len() - shape.dims.len();
    tensor.dims().len() == lead + shape.dims.len() && tensor.dims()[lead..] == shape.dims[..]
}

/// `T` and `N` of the bound inputs.
pub(super) fn extents(tape: &Tape, bindings: &[&Params]) -> Result<Extents> {
    let mut steps: Option<(&str, usize)> = None;
    let mut rows: Option<(&str, usize)> = None;
    for node in &tape.nodes {
        let NodeKind::Input(name) = &node.kind else { continue };
        let Some(tensor) = find(name, bindings) else { continue };
        check(name, &node.ty, tensor)?;
        let lead = node.ty.shape.lead;
        if lead.has_t() {
            agree("T", &mut steps, name, tensor.dims()[0])?;
        }
        if lead.has_n() {
            agree("N", &mut rows, name, tensor.dims()[lead.has_t() as usize])?;
        }
    }
    Ok(Extents { steps: steps.map_or(1, |s| s.1), rows: rows.map_or(1, |r| r.1), has_steps: steps.is_some() })
}

fn agree<'a>(axis: &str, known: &mut Option<(&'a str, usize)>, name: &'a str, size: usize) -> Result<()> {
    match *known {
        Some((first, expected)) if expected != size => {
            let what = format!("{axis} of input `{name}`");
            Err(Error::shape("evaluate", what, format!("{expected} as of input `{first}`"), size))
        }
        Some(_) => Ok(()),
        None => {
            *known = Some((name, size));
            Ok(())
        }
    }
}

fn check(name: &str, ty: &Ty, tensor: &Tensor) -> Result<()> {
    if tensor.dtype() != ty.dtype {
        return Err(Error::dtype("evaluate", format!("`{name}`"), ty.dtype, tensor.dtype()));
    }
    if !fits(&ty.shape, tensor) {
        return Err(Error::shape("evaluate", format!("`{name}`"), &ty.shape, sizes(tensor)));
    }
    Ok(())
}

/// The tensor bound to a parameter or input.
pub(super) fn value(name: &str, ty: &Ty, bindings: &[&Params], extents: Extents) -> Result<Value> {
    let missing = || Error::Binding { name: name.into(), what: format!("not bound; {ty} is needed") };
    let tensor = find(name, bindings).ok_or_else(missing)?;
    check(name, ty, tensor)?;
    if ty.shape.concrete(extents.steps, extents.rows)[..] != *tensor.dims() {
        return Err(Error::shape("evaluate", format!("`{name}`"), &ty.shape, sizes(tensor)));
    }
    Value::from_tensor(&format!("`{name}`"), tensor)
}
