//! A scan: its step, evaluated for each step of time.

use std::rc::Rc;

use super::bug;
use super::ops::{self, Operand};
use super::value::{Extents, Value};
use crate::error::Result;
use crate::op::Ty;
use crate::scan::{PortKind, ScanOp};
use crate::tape::{NodeKind, Var};

/// Values of the ports.
pub(super) fn run(op: &ScanOp, inputs: &[Operand<'_>], extents: Extents) -> Result<Vec<Rc<Value>>> {
    let step = &op.step;
    let (inits, rest) = inputs.split_at(step.carries.len());
    let (xs, captured) = rest.split_at(step.xs.len());
    let mut states: Vec<Rc<Value>> = inits.iter().map(|x| x.value.clone()).collect();
    // For each port what it gave at each step, in order of time.
    let mut blocks: Vec<Vec<Option<Rc<Value>>>> = vec![vec![None; extents.steps]; step.ports.len()];

    let order: Vec<usize> =
        if op.reverse { (0..extents.steps).rev().collect() } else { (0..extents.steps).collect() };
    for t in order {
        let mut values: Vec<Option<Rc<Value>>> = vec![None; step.nodes.len()];
        let inverse = step.of_inverse();
        for (i, node) in step.nodes.iter().enumerate().filter(|(i, _)| !inverse[*i]) {
            values[i] = Some(match &node.kind {
                NodeKind::Carry(k) => states[*k].clone(),
                NodeKind::X(k) => Rc::new(entry(&xs[*k], &node.ty, t, extents)),
                NodeKind::Captured(k) => captured[*k].value.clone(),
                NodeKind::Const(tensor) => Rc::new(Value::from_tensor("constant", tensor)?),
                NodeKind::Op(f) => {
                    let operands = node
                        .inputs
                        .iter()
                        .map(|v| Operand::new(&step.nodes, &values, *v))
                        .collect::<Result<Vec<_>>>()?;
                    Rc::new(ops::apply(f.as_ref(), &operands, &node.ty, extents, Some(t))?)
                }
                _ => return Err(bug("a node that does not belong in a step")),
            });
        }
        let value = |v: Var| values[v.index as usize].clone();
        for (port, blocks) in step.ports.iter().zip(&mut blocks) {
            blocks[t] = match port.kind {
                PortKind::Final(_) => None,
                PortKind::History(i) => Some(states[i].clone()),
                PortKind::Stack(v) | PortKind::Sum(v) => value(v),
            };
        }
        for (state, carry) in states.iter_mut().zip(&step.carries) {
            *state = value(carry.output).ok_or_else(|| bug("a state without a value"))?;
        }
    }

    let mut ports = Vec::new();
    for (port, blocks) in step.ports.iter().zip(blocks) {
        let mut all = Value::empty(port.ty.dtype);
        blocks.iter().flatten().for_each(|block| all.push(block));
        ports.push(match port.kind {
            PortKind::Final(i) => states[i].clone(),
            PortKind::History(_) | PortKind::Stack(_) => Rc::new(all),
            PortKind::Sum(_) => Rc::new(ops::sum_over_steps(&all, &port.ty, extents)?),
        });
    }
    Ok(ports)
}

/// The entries of a sequence that belong to step `t`.
fn entry(x: &Operand<'_>, ty: &Ty, t: usize, extents: Extents) -> Value {
    let len = extents.entries(ty.shape.lead) * ty.shape.width();
    x.value.pick((t * len..(t + 1) * len).map(Some))
}
