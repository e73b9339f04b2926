//! Fixed rearrangements of the elements of one entry: reshape, slice, pad, permute, flip, broadcast.

use smallvec::smallvec;

use crate::core_ops::sum_dims;
use crate::error::{Error, Result};
use crate::op::{Class, Cotangents, Io, Op, Ty};
use crate::shape::{Dims, Shape, broadcast_dims};
use crate::tape::{Tape, Var};

/// A rearrangement of ordinary axes (batch axes stay in front). Axes are counted among the ordinary ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Other sizes, same elements in the same order.
    Reshape {
        /// New sizes.
        dims: Dims,
    },
    /// `len` entries from `start` along `axis`.
    Slice {
        /// Axis.
        axis: usize,
        /// First entry.
        start: usize,
        /// Number of entries.
        len: usize,
    },
    /// Zeros around the value along `axis`: the adjoint of a slice.
    Pad {
        /// Axis.
        axis: usize,
        /// Zeros before.
        before: usize,
        /// Size of the axis afterwards.
        total: usize,
    },
    /// Axis `i` of the output is axis `order[i]` of the input.
    Permute {
        /// Order of axes.
        order: Dims,
    },
    /// Reversed along `axis`.
    Flip {
        /// Axis.
        axis: usize,
    },
    /// Stretched to these sizes by the broadcasting rule.
    Broadcast {
        /// New sizes.
        dims: Dims,
    },
}

fn strides(dims: &[usize]) -> Vec<usize> {
    let mut s = vec![1; dims.len()];
    for i in (1..dims.len()).rev() {
        s[i - 1] = s[i] * dims[i];
    }
    s
}

/// Applies the layout to a value.
///
/// Shapes: `x [.., dims] -> y [.., dims']`. Rule: the inverse rearrangement (a pad for a slice, a sum for a
/// broadcast); keeps nothing. Errors: an axis that does not exist, a range past its end, sizes that do not match.
pub fn layout(tape: &mut Tape, x: Var, layout: Layout) -> Result<Var> {
    if layout.output_dims(&tape.shape(x)?.dims)? == tape.shape(x)?.dims
        && !matches!(layout, Layout::Permute { .. } | Layout::Flip { .. })
    {
        return Ok(x);
    }
    tape.push(layout, &[x])
}

impl Layout {
    /// Sizes of the output for these input sizes.
    pub fn output_dims(&self, dims: &[usize]) -> Result<Dims> {
        let name = self.name();
        let axis_ok = |axis: usize| {
            if axis < dims.len() {
                return Ok(());
            }
            Err(Error::shape(
                name,
                format!("axis {axis}"),
                format!("less than {}", dims.len()),
                format!("{dims:?}"),
            ))
        };
        let mut out = Dims::from_slice(dims);
        match self {
            Layout::Reshape { dims: to } => {
                if to.iter().product::<usize>() != dims.iter().product() {
                    return Err(Error::shape(
                        name,
                        "number of elements",
                        format!("{dims:?}"),
                        format!("{to:?}"),
                    ));
                }
                out = to.clone();
            }
            Layout::Slice { axis, start, len } => {
                axis_ok(*axis)?;
                if start.checked_add(*len).is_none_or(|end| end > dims[*axis]) {
                    let range = format!("{start}..{start}+{len}");
                    return Err(Error::shape(
                        name,
                        format!("axis {axis}"),
                        format!("within 0..{}", dims[*axis]),
                        range,
                    ));
                }
                out[*axis] = *len;
            }
            Layout::Pad { axis, before, total } => {
                axis_ok(*axis)?;
                if before + dims[*axis] > *total {
                    let got = format!("{before} before {}", dims[*axis]);
                    return Err(Error::shape(name, format!("axis {axis}"), format!("at most {total}"), got));
                }
                out[*axis] = *total;
            }
            Layout::Permute { order } => {
                let mut seen = vec![false; dims.len()];
                let valid = order.len() == dims.len()
                    && order.iter().all(|&a| a < dims.len() && !std::mem::replace(&mut seen[a], true));
                if !valid {
                    let expected = format!("each of 0..{} once", dims.len());
                    return Err(Error::shape(name, "order", expected, format!("{order:?}")));
                }
                out = order.iter().map(|&a| dims[a]).collect();
            }
            Layout::Flip { axis } => axis_ok(*axis)?,
            Layout::Broadcast { dims: to } => {
                if broadcast_dims(dims, to).as_ref() != Some(to) {
                    return Err(Error::shape(
                        name,
                        "sizes",
                        format!("stretched from {dims:?}"),
                        format!("{to:?}"),
                    ));
                }
                out = to.clone();
            }
        }
        Ok(out)
    }

    /// For each element of the output its place in the input, −1 for a zero.
    pub fn map(&self, dims: &[usize]) -> Result<Vec<i32>> {
        let out = self.output_dims(dims)?;
        let from = strides(dims);
        let to = strides(&out);
        let width: usize = out.iter().product();
        Ok((0..width)
            .map(|j| {
                let at = |axis: usize| j / to[axis] % out[axis];
                let mut i = 0usize;
                match self {
                    Layout::Reshape { .. } => i = j,
                    Layout::Slice { axis, start, .. } => {
                        for a in 0..dims.len() {
                            i += (at(a) + if a == *axis { *start } else { 0 }) * from[a];
                        }
                    }
                    Layout::Pad { axis, before, .. } => {
                        for a in 0..dims.len() {
                            let mut p = at(a);
                            if a == *axis {
                                if p < *before || p >= before + dims[a] {
                                    return -1;
                                }
                                p -= before;
                            }
                            i += p * from[a];
                        }
                    }
                    Layout::Permute { order } => {
                        for (a, &source) in order.iter().enumerate() {
                            i += at(a) * from[source];
                        }
                    }
                    Layout::Flip { axis } => {
                        for a in 0..dims.len() {
                            i += if a == *axis { dims[a] - 1 - at(a) } else { at(a) } * from[a];
                        }
                    }
                    Layout::Broadcast { .. } => {
                        let skip = out.len() - dims.len();
                        for a in 0..dims.len() {
                            i += if dims[a] == 1 { 0 } else { at(a + skip) } * from[a];
                        }
                    }
                }
                i as i32
            })
            .collect())
    }

    /// First element, if the output is one run of consecutive elements of the input.
    pub fn as_run(&self, dims: &[usize]) -> Option<usize> {
        match self {
            Layout::Reshape { .. } => Some(0),
            Layout::Slice { axis, start, .. } if dims[..*axis].iter().all(|&d| d == 1) => {
                Some(start * dims[axis + 1..].iter().product::<usize>())
            }
            _ => None,
        }
    }
}

impl Op for Layout {
    fn name(&self) -> &'static str {
        match self {
            Layout::Reshape { .. } => "reshape",
            Layout::Slice { .. } => "slice",
            Layout::Pad { .. } => "pad",
            Layout::Permute { .. } => "transpose",
            Layout::Flip { .. } => "flip",
            Layout::Broadcast { .. } => "broadcast",
        }
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let x = &inputs[0];
        Ok(Ty::new(x.dtype, Shape { lead: x.shape.lead, dims: self.output_dims(&x.shape.dims)? }))
    }

    fn class(&self) -> Class<'_> {
        Class::Layout(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let dims = tape.shape(io.inputs[0])?.dims.clone();
        let x_bar = match self {
            Layout::Reshape { .. } => layout(tape, y_bar, Layout::Reshape { dims })?,
            Layout::Slice { axis, start, .. } => {
                layout(tape, y_bar, Layout::Pad { axis: *axis, before: *start, total: dims[*axis] })?
            }
            Layout::Pad { axis, before, .. } => {
                layout(tape, y_bar, Layout::Slice { axis: *axis, start: *before, len: dims[*axis] })?
            }
            Layout::Permute { order } => {
                let mut inverse = order.clone();
                for (i, &a) in order.iter().enumerate() {
                    inverse[a] = i;
                }
                layout(tape, y_bar, Layout::Permute { order: inverse })?
            }
            Layout::Flip { axis } => layout(tape, y_bar, Layout::Flip { axis: *axis })?,
            Layout::Broadcast { .. } => sum_dims(tape, y_bar, &dims)?,
        };
        Ok(smallvec![Some(x_bar)])
    }

    fn jvp(&self, tape: &mut Tape, _: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        x_dots[0].map(|x_dot| layout(tape, x_dot, self.clone())).transpose()
    }

    fn flops(&self, _: &[Ty], _: &Ty) -> f64 {
        0.0
    }

    fn is_linear(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps() -> Result<()> {
        let rows = [
            (Layout::Slice { axis: 1, start: 1, len: 2 }, vec![1, 2, 4, 5]),
            (Layout::Pad { axis: 0, before: 1, total: 3 }, vec![-1, -1, -1, 0, 1, 2, 3, 4, 5]),
            (Layout::Permute { order: smallvec![1, 0] }, vec![0, 3, 1, 4, 2, 5]),
            (Layout::Flip { axis: 1 }, vec![2, 1, 0, 5, 4, 3]),
        ];
        for (layout, expected) in rows {
            assert_eq!(layout.map(&[2, 3])?, expected, "{layout:?}");
        }
        assert_eq!(Layout::Broadcast { dims: smallvec![2, 3] }.map(&[3])?, vec![0, 1, 2, 0, 1, 2]);
        assert!(Layout::Slice { axis: 2, start: 0, len: 1 }.map(&[2, 3]).is_err());
        assert!(Layout::Slice { axis: 1, start: usize::MAX, len: 2 }.map(&[2, 3]).is_err());
        Ok(())
    }
}
