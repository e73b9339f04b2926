//! The reference: evaluates a recorded tape node by node, slowly and obviously.
//!
//! Every value is stored whole, every operation is a plain loop, a scan is a loop over its step. Nothing is
//! planned, fused, hoisted or threaded, so this is what plans and backends are compared with, and what
//! [`gradcheck`](crate::gradcheck) runs when no other backend is given. Numbers are computed in their own
//! precision with the functions of the standard library.

mod bind;
mod ops;
mod pointwise;
mod scan;
mod value;

use std::collections::HashMap;
use std::rc::Rc;

use crate::error::{Error, Result};
use crate::params::Params;
use crate::tape::{NodeKind, Tape, Var};
use crate::tensor::Tensor;
use ops::Operand;
use value::Value;

/// Evaluates `outputs` of `tape` with inputs and parameters bound by name, the first binding that has a name
/// counting.
///
/// Shapes: batch axes lead, so an output `[T,N,3]` comes as a tensor of these three axes. `T` and `N` are those
/// of the bound inputs. Where no input has a row axis there is one row (`N = 1`).
///
/// Errors: a name that is needed and not bound; a tensor of another type or other sizes than declared; inputs
/// that disagree about `T` or `N` (both named); a value with a time axis where no input has one; a value of
/// another tape.
///
/// ```
/// use retrograd_engine::{DType, Params, Shape, Tape, Tensor, core_ops, reference};
/// # fn main() -> retrograd_engine::Result<()> {
/// let mut tape = Tape::new();
/// let x = tape.input("x", DType::F64, Shape::sequence([1]))?;
/// let sum = core_ops::sum_steps(&mut tape, x)?;
/// let data = Params::from_iter([("x".to_string(), Tensor::from_slice([3, 1, 1], &[1.0, 2.0, 4.0])?)]);
/// assert_eq!(reference::evaluate(&tape, &[sum], &[&data])?[0].item()?, 7.0);
/// # Ok(()) }
/// ```
pub fn evaluate(tape: &Tape, outputs: &[Var], bindings: &[&Params]) -> Result<Vec<Tensor>> {
    let extents = bind::extents(tape, bindings)?;
    let needed = reachable(tape, outputs)?;
    let mut values: Vec<Option<Rc<Value>>> = vec![None; tape.nodes.len()];
    let mut scans: HashMap<u32, Vec<Rc<Value>>> = HashMap::new();
    for (i, node) in tape.nodes.iter().enumerate().filter(|(i, _)| needed[*i]) {
        if node.ty.shape.lead.has_t() && !extents.has_steps {
            let what = format!("no bound input has a time axis, which {} needs", node.ty);
            return Err(Error::argument("evaluate", what));
        }
        let operands = |values: &[Option<Rc<Value>>]| {
            node.inputs.iter().map(|v| Operand::new(&tape.nodes, values, *v)).collect::<Result<Vec<_>>>()
        };
        let value = match &node.kind {
            NodeKind::Param(name) | NodeKind::Input(name) => bind::value(name, &node.ty, bindings, extents)?,
            NodeKind::Const(tensor) => Value::from_tensor("constant", tensor)?,
            NodeKind::Op(op) => ops::apply(op.as_ref(), &operands(&values)?, &node.ty, extents, None)?,
            NodeKind::Scan(op) => {
                if !extents.has_steps {
                    return Err(Error::argument(
                        "evaluate",
                        "no bound input has a time axis, which a scan needs",
                    ));
                }
                scans.insert(i as u32, scan::run(op, &operands(&values)?, extents)?);
                continue;
            }
            // A scan's node has no value of its own; its ports read the scan's by number.
            NodeKind::Port(k) => {
                let ports = scans.get(&node.inputs[0].index);
                let port = ports.and_then(|p| p.get(*k)).ok_or_else(|| bug("port without its scan"))?;
                values[i] = Some(port.clone());
                continue;
            }
            NodeKind::Carry(_) | NodeKind::After(_) | NodeKind::X(_) | NodeKind::Captured(_) => {
                return Err(bug("placeholder of a step outside a step"));
            }
        };
        values[i] = Some(Rc::new(value));
    }
    outputs
        .iter()
        .map(|v| {
            let output = Operand::new(&tape.nodes, &values, *v)?;
            output.value.to_tensor(output.ty, extents)
        })
        .collect()
}

fn bug(what: &str) -> Error {
    Error::argument("evaluate", format!("bug: {what}"))
}

/// Nodes the outputs depend on.
fn reachable(tape: &Tape, outputs: &[Var]) -> Result<Vec<bool>> {
    let mut needed = vec![false; tape.nodes.len()];
    let mut stack = Vec::new();
    for &v in outputs {
        if v.tape != tape.id || v.index as usize >= needed.len() {
            return Err(Error::ForeignVar { op: "evaluate", var: format!("{v:?}") });
        }
        stack.push(v);
    }
    while let Some(v) = stack.pop() {
        if !std::mem::replace(&mut needed[v.index as usize], true) {
            stack.extend(&tape.nodes[v.index as usize].inputs);
        }
    }
    Ok(needed)
}
