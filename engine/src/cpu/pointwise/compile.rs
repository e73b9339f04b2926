//! From a single-assignment program to steps over few slots.
//!
//! On the way equal computations become one and negations are absorbed: both leave every bit as it was (but for the
//! sign of a NaN), so a chain of operations gives the same bits however it is cut into programs.

use std::collections::HashMap;

use super::Compiled;
use crate::expr::{Binary, Instr, Reg, ScalarProgram, Ternary, Unary};

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// A slot of the scratch.
    Slot(u16),
    /// An operand.
    In(u16),
    /// A constant.
    Constant(u16),
    /// A result.
    Out(u16),
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Op {
    Copy,
    Unary(Unary),
    Binary(Binary),
    Ternary(Ternary),
}

/// `dst = op(args)`; arguments beyond the operation's own repeat the first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) op: Op,
    pub(super) dst: Place,
    pub(super) args: [Place; 3],
}

/// A value that is stored may be computed right into its result instead of its slot, where that destroys no
/// operand that is still to be read. Its slot is its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Direct {
    pub(super) slot: u16,
    pub(super) out: u16,
    /// The step that computes it.
    pub(super) step: usize,
}

/// A value before it has a slot: an index into the list of computed values, or a place already known.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Value {
    Computed(usize),
    Known(Place),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Computed {
    op: Op,
    args: [Value; 3],
}

/// Values in order of computation, none twice.
#[derive(Default)]
struct Values {
    list: Vec<Computed>,
    known: HashMap<Computed, usize>,
}

impl Values {
    fn push(&mut self, op: Op, args: [Value; 3]) -> Value {
        let computed = Computed { op, args };
        let next = self.list.len();
        let at = *self.known.entry(computed).or_insert(next);
        if at == next {
            self.list.push(computed);
        }
        Value::Computed(at)
    }

    /// `x` if the value is `−x`.
    fn negated(&self, value: Value) -> Option<Value> {
        match value {
            Value::Computed(at) if self.list[at].op == Op::Unary(Unary::Neg) => Some(self.list[at].args[0]),
            _ => None,
        }
    }

    /// A value, with negations of its arguments absorbed where that changes no bit.
    fn compute(&mut self, op: Op, args: [Value; 3]) -> Value {
        let [a, b, c] = args;
        let (minus_a, minus_b) = (self.negated(a), self.negated(b));
        match (op, minus_a, minus_b) {
            (Op::Unary(Unary::Neg), Some(x), _) => x,
            (Op::Unary(Unary::Abs), Some(x), _) => self.push(op, [x; 3]),
            (Op::Binary(Binary::Add), _, Some(y)) => self.push(Op::Binary(Binary::Sub), [a, y, a]),
            (Op::Binary(Binary::Add), Some(x), _) => self.push(Op::Binary(Binary::Sub), [b, x, b]),
            (Op::Binary(Binary::Sub), _, Some(y)) => self.push(Op::Binary(Binary::Add), [a, y, a]),
            (Op::Binary(Binary::Mul | Binary::Div), Some(x), Some(y)) => self.push(op, [x, y, x]),
            // Not saved, but handed on to where it may be.
            (Op::Binary(Binary::Mul | Binary::Div), Some(x), None) => {
                let y = self.push(op, [x, b, x]);
                self.compute(Op::Unary(Unary::Neg), [y; 3])
            }
            (Op::Binary(Binary::Mul | Binary::Div), None, Some(y)) => {
                let y = self.push(op, [a, y, a]);
                self.compute(Op::Unary(Unary::Neg), [y; 3])
            }
            (Op::Ternary(Ternary::MulAdd | Ternary::NegMulAdd), Some(x), Some(y)) => self.push(op, [x, y, c]),
            (Op::Ternary(Ternary::MulAdd), Some(x), None) => {
                self.push(Op::Ternary(Ternary::NegMulAdd), [x, b, c])
            }
            (Op::Ternary(Ternary::MulAdd), None, Some(y)) => {
                self.push(Op::Ternary(Ternary::NegMulAdd), [a, y, c])
            }
            (Op::Ternary(Ternary::NegMulAdd), Some(x), None) => {
                self.push(Op::Ternary(Ternary::MulAdd), [x, b, c])
            }
            (Op::Ternary(Ternary::NegMulAdd), None, Some(y)) => {
                self.push(Op::Ternary(Ternary::MulAdd), [a, y, c])
            }
            _ => self.push(op, args),
        }
    }
}

pub(super) fn compile(program: &ScalarProgram) -> Compiled {
    let mut regs: Vec<Option<Value>> = vec![None; program.registers];
    let mut constants: Vec<f64> = Vec::new();
    let mut known: HashMap<u64, u16> = HashMap::new();
    let mut values = Values::default();
    let mut stores: Vec<(u16, Value)> = Vec::new();
    let read = |regs: &[Option<Value>], r: Reg| -> Value {
        let value = regs.get(usize::from(r)).copied().flatten();
        assert!(value.is_some(), "bug: register {r} is read before it is written");
        value.unwrap_or(Value::Known(Place::Constant(0)))
    };
    for instr in &program.instrs {
        let (dst, op, args) = match *instr {
            Instr::Const { dst, value } => {
                let next = constants.len() as u16;
                let index = *known.entry(value.to_bits()).or_insert(next);
                if index == next {
                    constants.push(value);
                }
                regs[usize::from(dst)] = Some(Value::Known(Place::Constant(index)));
                continue;
            }
            Instr::Load { dst, slot } => {
                assert!(
                    usize::from(slot) < program.loads,
                    "bug: load of operand {slot} of {}",
                    program.loads
                );
                regs[usize::from(dst)] = Some(Value::Known(Place::In(slot)));
                continue;
            }
            Instr::Store { slot, src } => {
                assert!(
                    usize::from(slot) < program.stores,
                    "bug: store of result {slot} of {}",
                    program.stores
                );
                stores.push((slot, read(&regs, src)));
                continue;
            }
            Instr::Unary { op, dst, a } => (dst, Op::Unary(op), [a, a, a]),
            Instr::Binary { op, dst, a, b } => (dst, Op::Binary(op), [a, b, a]),
            Instr::Ternary { op, dst, a, b, c } => (dst, Op::Ternary(op), [a, b, c]),
        };
        let args = args.map(|r| read(&regs, r));
        regs[usize::from(dst)] = Some(values.compute(op, args));
    }
    // A result that is an operand is copied before anything is stored, because the store of another result
    // may overwrite the operand.
    if stores.len() > 1 {
        for (_, value) in &mut stores {
            if let Value::Known(Place::In(_)) = value {
                *value = values.push(Op::Copy, [*value; 3]);
            }
        }
    }
    let mut compiled = allocate(&values.list, &stores, program.loads);
    compiled.constants = constants;
    compiled.stores = program.stores;
    compiled
}

/// Drops what no store needs, and gives every value a slot from its computation to its last use.
fn allocate(values: &[Computed], stores: &[(u16, Value)], loads: usize) -> Compiled {
    const NEVER: usize = 0;
    // Last use by value: its position among the values plus 1, or the end for a stored value.
    let end = values.len() + 1;
    let mut last = vec![NEVER; values.len()];
    for (_, value) in stores {
        if let Value::Computed(v) = *value {
            last[v] = end;
        }
    }
    for (at, value) in values.iter().enumerate().rev() {
        if last[at] == NEVER {
            continue;
        }
        for arg in value.args {
            if let Value::Computed(v) = arg {
                last[v] = last[v].max(at + 1);
            }
        }
    }
    let mut steps = Vec::with_capacity(values.len() + stores.len());
    let mut last_read = vec![0; loads];
    let mut place = vec![Place::Slot(0); values.len()];
    let mut step_of = vec![0; values.len()];
    let mut free: Vec<u16> = Vec::new();
    let mut slots = 0;
    for (at, value) in values.iter().enumerate() {
        if last[at] == NEVER {
            continue;
        }
        let args = value.args.map(|arg| resolve(&place, arg));
        // Slots of arguments used here for the last time are free for the result: a step reads an element
        // before it writes it.
        for (arg, &from) in value.args.iter().zip(&args) {
            match (*arg, from) {
                (Value::Computed(v), Place::Slot(slot)) if last[v] == at + 1 && !free.contains(&slot) => {
                    free.push(slot);
                }
                (_, Place::In(i)) => last_read[usize::from(i)] = steps.len(),
                _ => {}
            }
        }
        let recycled = if last[at] == end { None } else { free.pop() };
        let slot = recycled.unwrap_or_else(|| {
            slots += 1;
            slots - 1
        });
        place[at] = Place::Slot(slot);
        step_of[at] = steps.len();
        steps.push(Step { op: value.op, dst: place[at], args });
    }
    let mut direct: Vec<Direct> = Vec::new();
    for &(out, value) in stores {
        let src = resolve(&place, value);
        if let (Value::Computed(v), Place::Slot(slot)) = (value, src)
            && direct.iter().all(|d| d.slot != slot)
        {
            direct.push(Direct { slot, out, step: step_of[v] });
        }
        steps.push(Step { op: Op::Copy, dst: Place::Out(out), args: [src; 3] });
    }
    Compiled {
        steps,
        direct,
        last_read,
        constants: Vec::new(),
        slots: usize::from(slots),
        loads,
        stores: 0,
        #[cfg(target_arch = "x86_64")]
        jit: Default::default(),
    }
}

fn resolve(place: &[Place], value: Value) -> Place {
    match value {
        Value::Computed(v) => place[v],
        Value::Known(p) => p,
    }
}
