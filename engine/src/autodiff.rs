//! Derivatives, recorded: `grad`, `vjp` and `jvp` append to the tape the nodes that compute them.
//!
//! Cotangents live in R²ⁿ: for a real loss the gradient by `z = x + iy` is `∂L/∂x + i ∂L/∂y`, so `|z|²` gives
//! `2z` and descent is `z -= lr · g`. Whatever broadcasting did is undone here, after each operation's rule, and
//! nowhere else.

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::core_ops::{add, concat, fill, sum_to};
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::op::{Class, Io, Ty};
use crate::scan;
use crate::shape::Shape;
use crate::statistics::Watch;
use crate::tape::{NodeKind, Tape, Var};

/// Gradients of a real loss: `∂loss/∂w` for every `w` in `wrt`, of the type of `w`.
///
/// Zeros for values the loss does not depend on. Errors: a loss that is not one real number; an operation
/// without a rule.
pub fn grad(tape: &mut Tape, loss: Var, wrt: &[Var]) -> Result<Vec<Var>> {
    let ty = tape.ty(loss)?.clone();
    if ty.dtype.is_complex() || ty.shape != Shape::shared([]) {
        return Err(Error::shape("grad", "loss", "one real number []", &ty));
    }
    let one = fill(tape, ty, 1.0)?;
    let bars = vjp(tape, &[(loss, one)], wrt)?;
    wrt.iter()
        .zip(bars)
        .map(|(&w, bar)| match bar {
            Some(bar) => Ok(bar),
            None => crate::core_ops::zeros_like(tape, w),
        })
        .collect()
}

/// Cotangents of `wrt` from cotangents of outputs, given as pairs `(output, cotangent)`; `None` where an output
/// does not depend on a value.
pub fn vjp(tape: &mut Tape, seeds: &[(Var, Var)], wrt: &[Var]) -> Result<Vec<Option<Var>>> {
    vjp_watched(tape, seeds, wrt, None)
}

/// [`vjp`], noting where the values watched for meet their inputs.
pub(crate) fn vjp_watched(
    tape: &mut Tape,
    seeds: &[(Var, Var)],
    wrt: &[Var],
    mut watch: Option<&mut Watch>,
) -> Result<Vec<Option<Var>>> {
    let last = tape.nodes.len();
    let wrt = wrt.iter().map(|&v| tape.resolve(v)).collect::<Result<Vec<_>>>()?;

    // Values that depend on some `wrt`.
    let mut depends = vec![false; last];
    for v in &wrt {
        if tape.dtype(*v)?.is_differentiable() && (v.index as usize) < last {
            depends[v.index as usize] = true;
        }
    }
    for i in 0..last {
        let node = &tape.nodes[i];
        if node.inputs.iter().any(|v| depends[v.index as usize])
            && (node.ty.dtype.is_differentiable() || matches!(node.kind, NodeKind::Scan(_)))
        {
            depends[i] = true;
        }
    }

    let mut bars: HashMap<u32, Vec<Var>> = HashMap::new();
    let mut port_bars: HashMap<u32, HashMap<usize, Var>> = HashMap::new();
    for &(output, bar) in seeds {
        let output = tape.resolve(output)?;
        let bar = tape.resolve(bar)?;
        let ty = tape.ty(output)?.clone();
        let bar = sum_to(tape, bar, &ty)?;
        bars.entry(output.index).or_default().push(bar);
    }

    let mut result: HashMap<u32, Var> = HashMap::new();
    for i in (0..last as u32).rev() {
        let at = i as usize;
        if !depends[at] {
            continue;
        }
        let node = tape.nodes[at].clone();
        let v = Var { tape: tape.id, index: i };
        if let NodeKind::Scan(op) = &node.kind {
            let Some(given) = port_bars.remove(&i) else { continue };
            let given: Vec<Option<Var>> = (0..op.step.ports.len()).map(|k| given.get(&k).copied()).collect();
            let needs: Vec<bool> = node.inputs.iter().map(|v| depends[v.index as usize]).collect();
            let found = scan::vjp(tape, v, op, &node.inputs, &given, &needs, watch.as_deref_mut())?;
            for (input, bar) in node.inputs.iter().zip(found) {
                if let Some(bar) = bar {
                    bars.entry(input.index).or_default().push(bar);
                }
            }
            continue;
        }
        let Some(list) = bars.remove(&i) else { continue };
        let y_bar = accumulate(tape, list)?;
        if wrt.contains(&v) {
            result.insert(i, y_bar);
        }
        match &node.kind {
            NodeKind::Port(k) => {
                port_bars.entry(node.inputs[0].index).or_default().insert(*k, y_bar);
            }
            NodeKind::Op(op) => {
                let needs: SmallVec<[bool; 4]> =
                    node.inputs.iter().map(|v| depends[v.index as usize]).collect();
                let io = Io { inputs: &node.inputs, output: v, needs: &needs };
                let found = op.vjp(tape, io, y_bar)?;
                for (k, ((input, bar), need)) in node.inputs.iter().zip(found).zip(&needs).enumerate() {
                    let (Some(bar), true) = (bar, *need) else { continue };
                    if let Some(watch) = watch.as_deref_mut() {
                        watch.note(tape, op, io, k, y_bar, bar)?;
                    }
                    let ty = tape.ty(*input)?.clone();
                    let bar = sum_to(tape, bar, &ty)?;
                    bars.entry(input.index).or_default().push(bar);
                }
            }
            _ => {}
        }
    }
    Ok(wrt.iter().map(|v| result.get(&v.index).copied()).collect())
}

/// The sum of several cotangents of one value. Slices that together cover the value become one concatenation.
fn accumulate(tape: &mut Tape, list: Vec<Var>) -> Result<Var> {
    let mut rest = Vec::new();
    let mut pads: Vec<(usize, usize, Var)> = Vec::new();
    for v in list {
        let node = tape.node(v)?;
        match &node.kind {
            NodeKind::Op(op) => match op.class() {
                Class::Layout(Layout::Pad { axis, before, .. })
                    if pads.first().is_none_or(|(a, _, _)| a == axis) =>
                {
                    pads.push((*axis, *before, v));
                }
                _ => rest.push(v),
            },
            _ => rest.push(v),
        }
    }
    pads.sort_by_key(|p| p.1);
    if let Some(&(axis, _, first)) = pads.first() {
        let ty: Ty = tape.ty(first)?.clone();
        let mut end = 0;
        let mut parts = Vec::new();
        for &(_, before, v) in &pads {
            let part = tape.node(v)?.inputs[0];
            if before == end {
                end += tape.shape(part)?.dims[axis];
                parts.push(part);
            }
        }
        if parts.len() == pads.len() && end == ty.shape.dims[axis] {
            rest.push(concat(tape, &parts, axis)?);
        } else {
            rest.extend(pads.iter().map(|p| p.2));
        }
    }
    let mut list = rest.into_iter();
    let first = list.next().ok_or_else(|| Error::argument("vjp", "bug: no cotangent to accumulate"))?;
    list.try_fold(first, |sum, v| add(tape, sum, v))
}

/// Tangents of `outputs` from tangents of values, given as pairs `(value, tangent)`; `None` where an output does
/// not depend on them.
pub fn jvp(tape: &mut Tape, outputs: &[Var], seeds: &[(Var, Var)]) -> Result<Vec<Option<Var>>> {
    let last = tape.nodes.len();
    let mut dots: HashMap<u32, Var> = HashMap::new();
    for &(v, dot) in seeds {
        let v = tape.resolve(v)?;
        let dot = tape.resolve(dot)?;
        dots.insert(v.index, dot);
    }
    for i in 0..last as u32 {
        if dots.contains_key(&i) {
            continue;
        }
        let node = tape.nodes[i as usize].clone();
        let given: SmallVec<[Option<Var>; 4]> =
            node.inputs.iter().map(|v| dots.get(&v.index).copied()).collect();
        if given.iter().all(Option::is_none) {
            continue;
        }
        let v = Var { tape: tape.id, index: i };
        match &node.kind {
            NodeKind::Op(op) => {
                let needs: SmallVec<[bool; 4]> = given.iter().map(Option::is_some).collect();
                let io = Io { inputs: &node.inputs, output: v, needs: &needs };
                if let Some(dot) = op.jvp(tape, io, &given)? {
                    let dot = sum_to(tape, dot, &node.ty)?;
                    dots.insert(i, dot);
                }
            }
            NodeKind::Scan(op) => {
                let found = scan::jvp(tape, v, op, &node.inputs, &given)?;
                for (k, dot) in found.into_iter().enumerate() {
                    if let Some(dot) = dot {
                        dots.insert(i + 1 + k as u32, dot);
                    }
                }
            }
            _ => {}
        }
    }
    outputs.iter().map(|&v| Ok(dots.get(&tape.resolve(v)?.index).copied())).collect()
}
