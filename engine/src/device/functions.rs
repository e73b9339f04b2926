//! Elementary functions, recorded from the processor's code and played into a kernel.

use super::code::{Code, Op, Type, Value};
use crate::cpu::Compiled;
use crate::cpu::pointwise::record::{Prim, Recording, Thread, record};
use crate::dtype::DType;
use crate::expr::{Binary, Expr, Num, Unary};

/// The machine operations of a pointwise program, for a thread. `None` where it needs scalar code.
pub(super) fn recorded(program: &Compiled, real: DType) -> Option<Recording> {
    match real {
        DType::F64 => record::<Thread<f64>>(program),
        _ => record::<Thread<f32>>(program),
    }
}

/// A function of one argument.
pub(super) fn unary(op: Unary, real: DType) -> Option<Recording> {
    let mut e = Expr::new();
    let x = e.load(false);
    let y = e.map(op, x);
    e.store(y);
    recorded(&Compiled::new(&e.finish()), real)
}

/// A function of two arguments.
pub(super) fn binary(op: Binary, real: DType) -> Option<Recording> {
    let mut e = Expr::new();
    let (x, y) = (e.load(false), e.load(false));
    let z: Num = e.zip(op, x, y);
    e.store(z);
    recorded(&Compiled::new(&e.finish()), real)
}

/// Writes a recording out; `load` gives its operands. Returns its results by number.
pub(super) fn play(
    code: &mut Code,
    recording: &Recording,
    ty: Type,
    mut load: impl FnMut(&mut Code, u16) -> Value,
) -> Vec<(u16, Value)> {
    let mut needed = vec![false; recording.nodes.len()];
    recording.stores.iter().for_each(|(_, id)| needed[*id as usize] = true);
    for (i, node) in recording.nodes.iter().enumerate().rev() {
        if needed[i] {
            node.args().iter().for_each(|a| needed[*a as usize] = true);
        }
    }
    let mantissa = Value::Int(if ty == Type::F64 { 52 } else { 23 });
    let mut values: Vec<Value> = Vec::with_capacity(recording.nodes.len());
    for (i, node) in recording.nodes.iter().enumerate() {
        if !needed[i] {
            values.push(Value::Int(0));
            continue;
        }
        let [a, b, c] = node.args.map(|id| values.get(id as usize).copied().unwrap_or(Value::Int(0)));
        let value = match node.prim {
            Prim::In(slot) => load(code, slot),
            Prim::Constant(bits) => Value::Real(bits, ty),
            Prim::Add => code.op(Op::Add, ty, &[a, b]),
            Prim::Sub => code.op(Op::Sub, ty, &[a, b]),
            Prim::Mul => code.op(Op::Mul, ty, &[a, b]),
            Prim::Div => code.op(Op::Div, ty, &[a, b]),
            Prim::MulAdd => code.fma(a, b, c),
            Prim::NegMulAdd => {
                let minus = match (a, b) {
                    (Value::Real(bits, ty), _) => {
                        let sign = if ty == Type::F64 { 1 << 63 } else { 1 << 31 };
                        (Value::Real(bits ^ sign, ty), b)
                    }
                    (_, Value::Real(bits, ty)) => {
                        let sign = if ty == Type::F64 { 1 << 63 } else { 1 << 31 };
                        (a, Value::Real(bits ^ sign, ty))
                    }
                    _ => (code.neg(a), b),
                };
                code.fma(minus.0, minus.1, c)
            }
            Prim::Sqrt => code.op(Op::Sqrt, ty, &[a]),
            Prim::Floor => code.op(Op::Floor, ty, &[a]),
            Prim::Round => code.op(Op::Round, ty, &[a]),
            Prim::MaxOr => {
                let more = code.lt(b, a);
                code.select(more, a, b)
            }
            Prim::MinOr => {
                let less = code.lt(a, b);
                code.select(less, a, b)
            }
            Prim::And => code.op(Op::And, ty, &[a, b]),
            Prim::Or => code.op(Op::Or, ty, &[a, b]),
            Prim::Xor => code.op(Op::Xor, ty, &[a, b]),
            Prim::ShlMantissa => code.op(Op::Shl, ty, &[a, mantissa]),
            Prim::ShrMantissa => code.op(Op::Shr, ty, &[a, mantissa]),
            Prim::Lt => code.lt(a, b),
            Prim::Le => code.le(a, b),
            Prim::Eq => code.eq(a, b),
            Prim::Select => code.select(a, b, c),
            // A thread has neither estimates nor a scaling by powers, and nothing to guard.
            Prim::Scalef | Prim::RecipEstimate | Prim::RsqrtEstimate | Prim::Guard => a,
        };
        values.push(value);
    }
    recording.stores.iter().map(|(slot, id)| (*slot, values[*id as usize])).collect()
}
