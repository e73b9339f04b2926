//! Values stored whole: real and imaginary planes, batch axes first.

use num_complex::Complex;
use num_traits::Float;

use crate::cpu::Real;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::kernel::{Args, Structured};
use crate::op::Ty;
use crate::shape::Lead;
use crate::tensor::Tensor;

/// Batch extents of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extents {
    pub(super) steps: usize,
    pub(super) rows: usize,
    /// Whether an input has a time axis; if not, `steps` means nothing.
    pub(super) has_steps: bool,
}

impl Extents {
    /// Number of entries of a lead.
    pub(super) fn entries(self, lead: Lead) -> usize {
        (if lead.has_t() { self.steps } else { 1 }) * (if lead.has_n() { self.rows } else { 1 })
    }

    /// Number of the entry of a value with this lead that belongs to step `t` and row `n`.
    pub(super) fn entry(self, lead: Lead, t: usize, n: usize) -> usize {
        match lead {
            Lead::Shared => 0,
            Lead::N => n,
            Lead::T => t,
            Lead::TN => t * self.rows + n,
        }
    }
}

/// Real and imaginary parts of all elements; `im` is empty for a real value.
#[derive(Clone, Debug)]
pub(super) struct Planes<R> {
    pub(super) re: Vec<R>,
    pub(super) im: Vec<R>,
}

impl<R: Scalar> Planes<R> {
    pub(super) fn full(len: usize, complex: bool, value: R) -> Planes<R> {
        Planes { re: vec![value; len], im: vec![value; if complex { len } else { 0 }] }
    }

    pub(super) fn get(&self, i: usize) -> Complex<R> {
        Complex::new(self.re[i], self.im.get(i).copied().unwrap_or(R::ZERO))
    }

    pub(super) fn set(&mut self, i: usize, z: Complex<R>) {
        self.re[i] = z.re;
        if let Some(im) = self.im.get_mut(i) {
            *im = z.im;
        }
    }

    /// `self[i] += z`.
    pub(super) fn accumulate(&mut self, i: usize, z: Complex<R>) {
        self.set(i, self.get(i) + z);
    }
}

/// A value of any element type.
#[derive(Clone, Debug)]
pub(super) enum Value {
    F32(Planes<f32>),
    F64(Planes<f64>),
    Index(Vec<i32>),
}

/// `f32` or `f64`, with the way into [`Value`] and kernels.
pub(super) trait Scalar: Real + Float {
    fn wrap(planes: Planes<Self>) -> Value;
    fn planes(value: &Value) -> Option<&Planes<Self>>;
    fn run(kernel: &dyn Structured, args: Args<'_, Self>);
}

macro_rules! scalar {
    ($t:ty, $variant:ident, $run:ident) => {
        impl Scalar for $t {
            fn wrap(planes: Planes<$t>) -> Value {
                Value::$variant(planes)
            }
            fn planes(value: &Value) -> Option<&Planes<$t>> {
                match value {
                    Value::$variant(planes) => Some(planes),
                    _ => None,
                }
            }
            fn run(kernel: &dyn Structured, args: Args<'_, $t>) {
                kernel.$run(args)
            }
        }
    };
}
scalar!(f32, F32, run_f32);
scalar!(f64, F64, run_f64);

fn split<R: Scalar>(tensor: &Tensor) -> Result<Planes<R>> {
    let components = tensor.components::<R>()?;
    Ok(if tensor.dtype().is_complex() {
        Planes {
            re: components.iter().copied().step_by(2).collect(),
            im: components.iter().copied().skip(1).step_by(2).collect(),
        }
    } else {
        Planes { re: components.to_vec(), im: Vec::new() }
    })
}

fn join<R: Scalar>(planes: &Planes<R>, tensor: &mut Tensor) -> Result<()> {
    let complex = tensor.dtype().is_complex();
    let components = tensor.components_mut::<R>()?;
    for (i, &re) in planes.re.iter().enumerate() {
        if complex {
            components[2 * i] = re;
            components[2 * i + 1] = planes.im[i];
        } else {
            components[i] = re;
        }
    }
    Ok(())
}

impl Value {
    /// Errors: a storage type, in which nothing is computed.
    pub(super) fn from_tensor(name: &str, tensor: &Tensor) -> Result<Value> {
        Ok(match tensor.dtype() {
            DType::F32 | DType::C32 => Value::F32(split(tensor)?),
            DType::F64 | DType::C64 => Value::F64(split(tensor)?),
            DType::I32 => Value::Index(tensor.as_slice::<i32>()?.to_vec()),
            other => return Err(Error::dtype("evaluate", name, "f32, f64, c32, c64 or i32", other)),
        })
    }

    pub(super) fn to_tensor(&self, ty: &Ty, extents: Extents) -> Result<Tensor> {
        let mut tensor = Tensor::zeros(ty.dtype, ty.shape.concrete(extents.steps, extents.rows))?;
        match self {
            Value::F32(planes) => join(planes, &mut tensor)?,
            Value::F64(planes) => join(planes, &mut tensor)?,
            Value::Index(index) => tensor.as_mut_slice::<i32>()?.copy_from_slice(index),
        }
        Ok(tensor)
    }

    /// A value without elements of this type, to be filled by [`Value::push`].
    pub(super) fn empty(dtype: DType) -> Value {
        match dtype.real() {
            DType::F64 => Value::F64(Planes { re: Vec::new(), im: Vec::new() }),
            DType::I32 => Value::Index(Vec::new()),
            _ => Value::F32(Planes { re: Vec::new(), im: Vec::new() }),
        }
    }

    /// Elements `at[0], at[1], ..` in this order; 0 where an index is `None`.
    pub(super) fn pick(&self, at: impl Iterator<Item = Option<usize>> + Clone) -> Value {
        fn pick<E: Copy + Default>(from: &[E], at: impl Iterator<Item = Option<usize>>) -> Vec<E> {
            at.map(|i| i.map_or(E::default(), |i| from[i])).collect()
        }
        fn planes<R: Scalar>(p: &Planes<R>, at: impl Iterator<Item = Option<usize>> + Clone) -> Planes<R> {
            let im = if p.im.is_empty() { Vec::new() } else { pick(&p.im, at.clone()) };
            Planes { re: pick(&p.re, at), im }
        }
        match self {
            Value::F32(p) => Value::F32(planes(p, at)),
            Value::F64(p) => Value::F64(planes(p, at)),
            Value::Index(index) => Value::Index(pick(index, at)),
        }
    }

    /// Appends the elements of `other`, which is of the same type.
    pub(super) fn push(&mut self, other: &Value) {
        match (self, other) {
            (Value::F32(a), Value::F32(b)) => {
                a.re.extend(&b.re);
                a.im.extend(&b.im);
            }
            (Value::F64(a), Value::F64(b)) => {
                a.re.extend(&b.re);
                a.im.extend(&b.im);
            }
            (Value::Index(a), Value::Index(b)) => a.extend(b),
            _ => {}
        }
    }
}
