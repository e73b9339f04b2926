//! What an operation is: its shape rule, its derivative rules, its class.

use std::fmt::Debug;

use smallvec::SmallVec;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::expr::{Expr, Num};
use crate::kernel::Structured;
use crate::layout::Layout;
use crate::matmul::{MatMul, RowContract};
use crate::profile::Work;
use crate::shape::{Shape, broadcast};
use crate::tape::{Tape, Var};

/// Type of a recorded value: element type and shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ty {
    /// Element type.
    pub dtype: DType,
    /// Batch axes and sizes.
    pub shape: Shape,
}

impl Ty {
    /// A type.
    pub fn new(dtype: DType, shape: Shape) -> Ty {
        Ty { dtype, shape }
    }

    /// The same shape with another element type.
    pub fn with_dtype(&self, dtype: DType) -> Ty {
        Ty { dtype, shape: self.shape.clone() }
    }

    /// Bytes of one entry (one row at one step).
    pub fn entry_bytes(&self) -> usize {
        self.shape.width() * self.dtype.size()
    }
}

impl std::fmt::Display for Ty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

/// Cotangents of the inputs, in order; `None` where there is none (index inputs, or not asked for).
pub type Cotangents = SmallVec<[Option<Var>; 4]>;

/// The recorded instance a derivative rule works on.
#[derive(Clone, Copy, Debug)]
pub struct Io<'a> {
    /// Inputs of the instance.
    pub inputs: &'a [Var],
    /// Its output; rules in terms of the output read this.
    pub output: Var,
    /// Which inputs' cotangents are wanted.
    pub needs: &'a [bool],
}

/// How a backend runs an operation.
pub enum Class<'a> {
    /// A scalar expression applied to every element; chains are fused.
    Pointwise(&'a dyn Pointwise),
    /// A matrix product with a shared right-hand side, or one product per row.
    MatMul(&'a MatMul),
    /// A product contracted over rows (and steps): weight gradients.
    RowContract(&'a RowContract),
    /// A kernel of its own.
    Structured(&'a dyn Structured),
    /// A fixed rearrangement of each entry's elements; an alias where the plan can make it one.
    Layout(&'a Layout),
    /// Stretches a value over more batch axes; always an alias.
    Expand,
    /// Changes the element type.
    Cast,
    /// Sum over steps: `[T,N,..] -> [N,..]`, `[T,..] -> [..]`.
    SumSteps,
}

/// One differentiable operation.
///
/// `Debug` must print every field that matters to the result: recording the same operation on the same inputs
/// twice returns the first value, and that text decides what is the same.
pub trait Op: std::any::Any + Debug + Send + Sync {
    /// Name, as the public function.
    fn name(&self) -> &'static str;

    /// Type of the output for these inputs, or the error that says what does not fit.
    fn infer(&self, inputs: &[Ty]) -> Result<Ty>;

    /// How a backend runs it.
    fn class(&self) -> Class<'_>;

    /// Records the cotangents of the inputs from that of the output (`y_bar`, same type as the output).
    ///
    /// A rule may return a cotangent in the output's broadcast shape, or a complex one for a real input: the
    /// caller sums it back and takes the real part.
    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents>;

    /// Records the tangent of the output from those of the inputs (`None` is zero).
    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>>;

    /// Floating-point operations for one entry of the output (one row of one step).
    fn flops(&self, inputs: &[Ty], output: &Ty) -> f64 {
        let _ = inputs;
        output.shape.width() as f64
    }

    /// Whether the output is a linear function of all differentiable inputs together (over the reals).
    fn is_linear(&self) -> bool {
        false
    }

    /// Whether the output is rows of the first input chosen by the second: the product of one-hot vectors with a matrix.
    fn is_lookup(&self) -> bool {
        false
    }

    /// Whether the output depends on the number of the step even if no input does.
    fn varies_with_step(&self) -> bool {
        false
    }

    /// What kind of work it counts as in a [`Profile`](crate::Profile). By default what its class says; a structured
    /// operation is a product if its name begins with `kron`, and anything else otherwise.
    fn work(&self) -> Work {
        match self.class() {
            Class::Pointwise(_) => Work::Pointwise,
            Class::MatMul(_) | Class::RowContract(_) => Work::Product,
            Class::Structured(_) if self.name().starts_with("kron") => Work::Product,
            Class::Layout(_) | Class::Expand | Class::Cast => Work::Movement,
            Class::Structured(_) | Class::SumSteps => Work::Other,
        }
    }

    /// Whether building the value again costs about as little as reading it back.
    fn is_cheap(&self) -> bool {
        matches!(self.class(), Class::Pointwise(_) | Class::Layout(_) | Class::Expand | Class::Cast)
    }
}

/// The body of a pointwise operation.
pub trait Pointwise {
    /// Describes one element of the output from one element of each input.
    fn expr(&self, e: &mut Expr, args: &[Num]) -> Num;
}

/// Shape rule of every pointwise operation: inputs broadcast; the real components must agree; the output is
/// complex where the expression says so.
pub fn infer_pointwise(name: &'static str, op: &dyn Pointwise, inputs: &[Ty]) -> Result<Ty> {
    let first = inputs.first().ok_or_else(|| Error::argument(name, "no inputs"))?;
    let real = first.dtype.real();
    let mut shape = first.shape.clone();
    let mut e = Expr::new();
    let mut args = SmallVec::<[Num; 4]>::new();
    for (i, ty) in inputs.iter().enumerate() {
        if !matches!(ty.dtype.real(), DType::F32 | DType::F64) {
            return Err(Error::dtype(name, format!("input {i}"), "f32, f64, c32 or c64", ty.dtype));
        }
        if ty.dtype.real() != real {
            let expected = format!("{real} or its complex type, as input 0");
            return Err(Error::dtype(name, format!("input {i}"), expected, ty.dtype));
        }
        shape = broadcast(&shape, &ty.shape).ok_or_else(|| {
            Error::shape(name, format!("input {i}"), format!("broadcastable with {shape}"), &ty.shape)
        })?;
        args.push(e.load(ty.dtype.is_complex()));
    }
    let complex = matches!(op.expr(&mut e, &args), Num::Complex(..));
    let dtype = if complex { real.complex().unwrap_or(real) } else { real };
    Ok(Ty { dtype, shape })
}
