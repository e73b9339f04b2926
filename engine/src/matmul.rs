//! Contractions: rows times a shared matrix, and sums of outer products over rows.

use smallvec::smallvec;

use crate::core_ops::add;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Class, Cotangents, Io, Op, Ty};
use crate::shape::Shape;
use crate::tape::{Tape, Var};

/// Rows times a matrix shared by all rows: `y = a' b'`, where `'` conjugates or transposes as the flags say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MatMul {
    /// `b` is given as `[M,K]`.
    pub transpose_b: bool,
    /// Conjugate `a`.
    pub conj_a: bool,
    /// Conjugate `b`.
    pub conj_b: bool,
}

/// Sum over all rows of outer products: `c[i,j] = Σ l'[..,i] r'[..,j]`. The adjoint of [`MatMul`] in its matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RowContract {
    /// Conjugate the left input.
    pub conj_left: bool,
    /// Conjugate the right input.
    pub conj_right: bool,
}

/// Matrix product with a matrix that all rows share: `y = a b`.
///
/// Shapes: `a [.., K]`, `b [K, M] -> y [.., M]`; every axis of `a` but the last is a row.
/// Rule: `a_bar = y_bar bᴴ`, `b_bar = aᴴ y_bar` (deferred to one product over all steps); keeps `a`.
/// Errors: `K` differs; `b` is not a matrix or has a row axis; element types that do not mix.
pub fn matmul(tape: &mut Tape, a: Var, b: Var) -> Result<Var> {
    matmul_with(tape, a, b, MatMul::default())
}

/// [`matmul`] with flags.
pub fn matmul_with(tape: &mut Tape, a: Var, b: Var, flags: MatMul) -> Result<Var> {
    // Conjugating a real operand does nothing; without the flag equal products are recognised as equal.
    let conj_a = flags.conj_a && tape.dtype(a)?.is_complex();
    let conj_b = flags.conj_b && tape.dtype(b)?.is_complex();
    tape.push(MatMul { conj_a, conj_b, ..flags }, &[a, b])
}

/// Sum over rows of outer products: `c[i,j] = Σ l[..,i] r[..,j]`.
///
/// Shapes: `l [.., I]`, `r [.., J] -> c [I, J]`, no batch axis. Rule: two matrix products.
/// Errors: different axes before the last.
pub fn row_contract(tape: &mut Tape, left: Var, right: Var, flags: RowContract) -> Result<Var> {
    let conj_left = flags.conj_left && tape.dtype(left)?.is_complex();
    let conj_right = flags.conj_right && tape.dtype(right)?.is_complex();
    tape.push(RowContract { conj_left, conj_right }, &[left, right])
}

pub(crate) fn joint_dtype(op: &'static str, inputs: &[Ty]) -> Result<DType> {
    let first = inputs[0].dtype;
    for (i, ty) in inputs.iter().enumerate() {
        if !ty.dtype.is_differentiable() {
            return Err(Error::dtype(op, format!("input {i}"), "f32, f64, c32 or c64", ty.dtype));
        }
        if ty.dtype.real() != first.real() {
            return Err(Error::dtype(op, format!("input {i}"), format!("over {}", first.real()), ty.dtype));
        }
    }
    let complex = inputs.iter().any(|ty| ty.dtype.is_complex());
    Ok(if complex { first.complex().unwrap_or(first) } else { first })
}

impl Op for MatMul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let dtype = joint_dtype("matmul", inputs)?;
        let (a, b) = (&inputs[0].shape, &inputs[1].shape);
        if b.dims.len() != 2 || b.lead.has_n() || b.lead.has_t() {
            return Err(Error::shape("matmul", "b", "a matrix without batch axes", b));
        }
        let (k, m) = if self.transpose_b { (b.dims[1], b.dims[0]) } else { (b.dims[0], b.dims[1]) };
        if a.dims.last() != Some(&k) {
            let order = if self.transpose_b { "b [M,K]" } else { "b [K,M]" };
            return Err(Error::shape("matmul", format!("inner K, {order}={b}"), format!("a [..,{k}]"), a));
        }
        let mut dims = a.dims.clone();
        if let Some(last) = dims.last_mut() {
            *last = m;
        }
        Ok(Ty::new(dtype, Shape { lead: a.lead, dims }))
    }

    fn class(&self) -> Class<'_> {
        Class::MatMul(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let (a, b) = (io.inputs[0], io.inputs[1]);
        let a_bar = if io.needs[0] {
            // a'_bar = y_bar b'ᴴ; conjugated once more if a' = conj(a).
            let y_bar = if self.conj_a { crate::core_ops::conj(tape, y_bar)? } else { y_bar };
            let flags =
                MatMul { transpose_b: !self.transpose_b, conj_a: false, conj_b: self.conj_b == self.conj_a };
            Some(matmul_with(tape, y_bar, b, flags)?)
        } else {
            None
        };
        let b_bar = if io.needs[1] {
            let (conj_of_a, conj_of_y) = (self.conj_a == self.conj_b, self.conj_b);
            Some(if self.transpose_b {
                let flags = RowContract { conj_left: conj_of_y, conj_right: conj_of_a };
                row_contract(tape, y_bar, a, flags)?
            } else {
                let flags = RowContract { conj_left: conj_of_a, conj_right: conj_of_y };
                row_contract(tape, a, y_bar, flags)?
            })
        } else {
            None
        };
        Ok(smallvec![a_bar, b_bar])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let from_a = x_dots[0].map(|d| matmul_with(tape, d, io.inputs[1], *self)).transpose()?;
        let from_b = x_dots[1].map(|d| matmul_with(tape, io.inputs[0], d, *self)).transpose()?;
        sum_options(tape, from_a, from_b)
    }

    fn flops(&self, inputs: &[Ty], output: &Ty) -> f64 {
        let k = inputs[0].shape.dims.last().copied().unwrap_or(1);
        2.0 * output.shape.width() as f64 * k as f64 * complex_factor(inputs)
    }
}

fn complex_factor(inputs: &[Ty]) -> f64 {
    inputs.iter().map(|t| t.dtype.planes() as f64).product()
}

fn sum_options(tape: &mut Tape, a: Option<Var>, b: Option<Var>) -> Result<Option<Var>> {
    Ok(match (a, b) {
        (Some(a), Some(b)) => Some(add(tape, a, b)?),
        (a, b) => a.or(b),
    })
}

impl Op for RowContract {
    fn name(&self) -> &'static str {
        "row_contract"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let dtype = joint_dtype("row_contract", inputs)?;
        let (l, r) = (&inputs[0].shape.dims, &inputs[1].shape.dims);
        match (l.split_last(), r.split_last()) {
            (Some((i, before_l)), Some((j, before_r))) if before_l == before_r => {
                Ok(Ty::new(dtype, Shape::shared([*i, *j])))
            }
            _ => {
                Err(Error::shape("row_contract", "axes before the last", &inputs[0].shape, &inputs[1].shape))
            }
        }
    }

    fn class(&self) -> Class<'_> {
        Class::RowContract(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, c_bar: Var) -> Result<Cotangents> {
        let (l, r) = (io.inputs[0], io.inputs[1]);
        let l_bar = if io.needs[0] {
            let flags = MatMul {
                transpose_b: true,
                conj_a: self.conj_right == self.conj_left,
                conj_b: self.conj_left,
            };
            Some(matmul_with(tape, r, c_bar, flags)?)
        } else {
            None
        };
        let r_bar = if io.needs[1] {
            let flags = MatMul {
                transpose_b: false,
                conj_a: self.conj_left == self.conj_right,
                conj_b: self.conj_right,
            };
            Some(matmul_with(tape, l, c_bar, flags)?)
        } else {
            None
        };
        Ok(smallvec![l_bar, r_bar])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let from_l = x_dots[0].map(|d| row_contract(tape, d, io.inputs[1], *self)).transpose()?;
        let from_r = x_dots[1].map(|d| row_contract(tape, io.inputs[0], d, *self)).transpose()?;
        sum_options(tape, from_l, from_r)
    }

    fn flops(&self, inputs: &[Ty], output: &Ty) -> f64 {
        let rows: usize = inputs[0].shape.dims.iter().rev().skip(1).product();
        2.0 * (output.shape.width() * rows) as f64 * complex_factor(inputs)
    }
}
