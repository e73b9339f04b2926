//! Pointwise operations: their expression, interpreted for one element after the other.

use num_traits::Float;

use super::bug;
use super::ops::Operand;
use super::value::{Extents, Planes, Scalar, Value};
use crate::cpu::Real;
use crate::error::Result;
use crate::expr::{Binary, Expr, Instr, ScalarProgram, Ternary, Unary};
use crate::layout::Layout;
use crate::op::{Pointwise, Ty};

pub(super) fn apply<R: Scalar>(
    op: &dyn Pointwise,
    inputs: &[Operand<'_>],
    ty: &Ty,
    extents: Extents,
) -> Result<Value> {
    let mut e = Expr::new();
    let args: Vec<_> = inputs.iter().map(|x| e.load(x.ty.dtype.is_complex())).collect();
    let result = op.expr(&mut e, &args);
    e.store(result);
    let program = e.finish();

    // For each input its planes in order of the loads, and where each element of an entry is read.
    let mut planes: Vec<(&[R], usize)> = Vec::new();
    let mut maps = Vec::new();
    for (i, x) in inputs.iter().enumerate() {
        let p = x.planes::<R>()?;
        planes.push((&p.re, i));
        if x.ty.dtype.is_complex() {
            planes.push((&p.im, i));
        }
        maps.push(Layout::Broadcast { dims: ty.shape.dims.clone() }.map(&x.ty.shape.dims)?);
    }
    let width = ty.shape.width();
    let mut out = Planes::full(extents.entries(ty.shape.lead) * width, ty.dtype.is_complex(), R::ZERO);
    if program.stores != ty.dtype.planes() {
        return Err(bug("an expression and its type differ about being complex"));
    }
    let (mut loads, mut stores) = (vec![R::ZERO; planes.len()], vec![R::ZERO; program.stores]);
    let mut registers = vec![R::ZERO; program.registers];
    let lead = ty.shape.lead;
    for t in 0..if lead.has_t() { extents.steps } else { 1 } {
        for n in 0..if lead.has_n() { extents.rows } else { 1 } {
            for j in 0..width {
                for (load, &(plane, i)) in loads.iter_mut().zip(&planes) {
                    let shape = &inputs[i].ty.shape;
                    *load = plane[extents.entry(shape.lead, t, n) * shape.width() + maps[i][j] as usize];
                }
                interpret(&program, &loads, &mut registers, &mut stores);
                let at = extents.entry(lead, t, n) * width + j;
                out.re[at] = stores[0];
                if ty.dtype.is_complex() {
                    out.im[at] = stores[1];
                }
            }
        }
    }
    Ok(R::wrap(out))
}

fn interpret<R: Scalar>(program: &ScalarProgram, loads: &[R], r: &mut [R], stores: &mut [R]) {
    for instr in &program.instrs {
        match *instr {
            Instr::Const { dst, value } => r[dst as usize] = R::from_f64(value),
            Instr::Load { dst, slot } => r[dst as usize] = loads[slot as usize],
            Instr::Unary { op, dst, a } => r[dst as usize] = unary(op, r[a as usize]),
            Instr::Binary { op, dst, a, b } => r[dst as usize] = binary(op, r[a as usize], r[b as usize]),
            Instr::Ternary { op, dst, a, b, c } => {
                let (a, b, c) = (r[a as usize], r[b as usize], r[c as usize]);
                r[dst as usize] = match op {
                    Ternary::MulAdd => Float::mul_add(a, b, c),
                    Ternary::NegMulAdd => Float::mul_add(-a, b, c),
                    Ternary::Select => {
                        if a != R::ZERO {
                            b
                        } else {
                            c
                        }
                    }
                };
            }
            Instr::Store { slot, src } => stores[slot as usize] = r[src as usize],
        }
    }
}

fn unary<R: Scalar>(op: Unary, x: R) -> R {
    let one = <R as Real>::from_f64(1.0);
    match op {
        Unary::Neg => -x,
        Unary::Abs => Float::abs(x),
        Unary::Sign => {
            if x.is_nan() {
                x
            } else if x > R::ZERO {
                one
            } else if x < R::ZERO {
                -one
            } else {
                R::ZERO
            }
        }
        Unary::Sqrt => Float::sqrt(x),
        Unary::Recip => one / x,
        Unary::Exp => Float::exp(x),
        Unary::Expm1 => Float::exp_m1(x),
        Unary::Log => Float::ln(x),
        Unary::Log1p => Float::ln_1p(x),
        Unary::Sin => Float::sin(x),
        Unary::Cos => Float::cos(x),
        Unary::Tanh => Float::tanh(x),
        // Of the two equal forms the one whose exponential cannot overflow.
        Unary::Sigmoid => {
            let e = Float::exp(-Float::abs(x));
            if x < R::ZERO { e / (one + e) } else { one / (one + e) }
        }
        Unary::Softplus => binary(Binary::Max, x, R::ZERO) + Float::ln_1p(Float::exp(-Float::abs(x))),
        Unary::Floor => Float::floor(x),
    }
}

fn binary<R: Scalar>(op: Binary, a: R, b: R) -> R {
    let one = <R as Real>::from_f64(1.0);
    let truth = |yes: bool| if yes { one } else { R::ZERO };
    match op {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Max | Binary::Min if a.is_nan() => a,
        Binary::Max | Binary::Min if b.is_nan() => b,
        Binary::Max => Float::max(a, b),
        Binary::Min => Float::min(a, b),
        Binary::Pow => Float::powf(a, b),
        Binary::Hypot => Float::hypot(a, b),
        Binary::RecipHypot => {
            let y = one / Float::hypot(a, b);
            if y == Float::infinity() { R::ZERO } else { y }
        }
        Binary::Lt => truth(a < b),
        Binary::Le => truth(a <= b),
        Binary::Eq => truth(a == b),
    }
}
