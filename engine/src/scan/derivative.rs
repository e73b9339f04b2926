//! Derivatives of a scan: scans.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::builder::Builder;
use super::walk::Inverse;
use super::{PortKind, ScanOp};
use crate::autodiff;
use crate::core_ops::{add, expand, fill, stop_gradient};
use crate::error::{Error, Result};
use crate::op::Class;
use crate::shape::Lead;
use crate::statistics::{Pending, Watch};
use crate::tape::{Node, NodeKind, Tape, Var};

/// Copies the nodes of a step onto `inner`, with the states read from their histories.
fn rebuild(
    inner: &mut Tape,
    builder: &mut Builder,
    op: &ScanOp,
    histories: &[Var],
    xs: &[Var],
    captured: &[Var],
) -> Result<Vec<Var>> {
    let inverse = op.step.of_inverse();
    let mut map: Vec<Var> = Vec::with_capacity(op.step.nodes.len());
    for (i, node) in op.step.nodes.iter().enumerate() {
        if inverse[i] {
            // A place that nothing of the step proper reads.
            map.push(Var { tape: inner.id, index: u32::MAX });
            continue;
        }
        let v = match &node.kind {
            NodeKind::Carry(k) => histories[*k],
            NodeKind::X(k) => xs[*k],
            NodeKind::Captured(k) => inner.resolve(captured[*k])?,
            NodeKind::Const(t) => inner.constant(t.clone()),
            NodeKind::Op(f) => {
                let inputs: SmallVec<[Var; 4]> = node.inputs.iter().map(|v| map[v.index as usize]).collect();
                inner.push_arc(f.clone(), &inputs)?
            }
            NodeKind::Param(_)
            | NodeKind::Input(_)
            | NodeKind::Scan(_)
            | NodeKind::Port(_)
            | NodeKind::After(_) => {
                return Err(Error::argument("scan", format!("bug: {:?} inside a step", node.kind)));
            }
        };
        if matches!(node.kind, NodeKind::Op(_)) {
            builder.rebuilds.entry(v).or_insert(i as u32);
            if let Some(label) = &node.label {
                inner.label(v, label);
            }
        }
        map.push(v);
    }
    Ok(map)
}

/// Copies the inverse of a step onto `inner`, from the states `after` it: the states before it.
fn invert(
    inner: &mut Tape,
    op: &ScanOp,
    inverse: &Inverse,
    after: &[Var],
    xs: &[Var],
    captured: &[Var],
) -> Result<Vec<Var>> {
    let nodes = &op.step.nodes;
    let mut needed = vec![false; nodes.len()];
    let mut stack = inverse.before.clone();
    while let Some(v) = stack.pop() {
        if !std::mem::replace(&mut needed[v.index as usize], true) {
            stack.extend(&nodes[v.index as usize].inputs);
        }
    }
    let mut map: HashMap<u32, Var> = HashMap::new();
    for (i, node) in nodes.iter().enumerate().filter(|(i, _)| needed[*i]) {
        let v = match &node.kind {
            NodeKind::After(k) => after[*k],
            NodeKind::X(k) => xs[*k],
            NodeKind::Captured(k) => inner.resolve(captured[*k])?,
            NodeKind::Const(t) => inner.constant(t.clone()),
            NodeKind::Op(f) => {
                let inputs: SmallVec<[Var; 4]> = node.inputs.iter().map(|v| map[&v.index]).collect();
                inner.push_arc(f.clone(), &inputs)?
            }
            NodeKind::Carry(_) => {
                let what = "an inverse that reads the state before the step, which it is to find";
                return Err(Error::argument("scan", what));
            }
            other => return Err(Error::argument("scan", format!("bug: {other:?} in an inverse"))),
        };
        if let Some(label) = node.label.as_ref().filter(|_| matches!(node.kind, NodeKind::Op(_))) {
            inner.label(v, label);
        }
        map.insert(i as u32, v);
    }
    Ok(inverse.before.iter().map(|v| map[&v.index]).collect())
}

/// Lets nodes read others in the place of some, and operations that then are the same be one.
fn share(nodes: &mut [Node], mut instead: HashMap<u32, Var>) -> HashMap<u32, Var> {
    let mut seen: HashMap<(String, SmallVec<[Var; 4]>), Var> = HashMap::new();
    for i in 0..nodes.len() {
        let node = &mut nodes[i];
        let Some(tape) = node.inputs.first().map(|v| v.tape) else { continue };
        for v in &mut node.inputs {
            while let Some(&other) = instead.get(&v.index) {
                *v = other;
            }
        }
        if let NodeKind::Op(op) = &node.kind {
            let this = Var { tape, index: i as u32 };
            let first = *seen.entry((format!("{}{op:?}", op.name()), node.inputs.clone())).or_insert(this);
            if first != this {
                instead.entry(this.index).or_insert(first);
            }
        }
    }
    instead
}

/// A cotangent that is the same at every step: the value before it was stretched over time.
fn constant_in_time(tape: &Tape, v: Var) -> Result<Option<Var>> {
    let node = tape.node(v)?;
    if let NodeKind::Op(op) = &node.kind
        && matches!(op.class(), Class::Expand)
        && !tape.lead(node.inputs[0])?.has_t()
    {
        return Ok(Some(node.inputs[0]));
    }
    Ok(None)
}

struct Parts<'a> {
    inits: &'a [Var],
    xs: &'a [Var],
    captured: &'a [Var],
}

fn split<'a>(op: &ScanOp, inputs: &'a [Var]) -> Parts<'a> {
    let (inits, rest) = inputs.split_at(op.step.carries.len());
    let (xs, captured) = rest.split_at(op.step.xs.len());
    Parts { inits, xs, captured }
}

fn history_ports(tape: &Tape, scan: Var, op: &ScanOp) -> Vec<Var> {
    // Ports follow their scan directly, in order.
    let carries = op.step.carries.len() as u32;
    (0..carries).map(|i| Var { tape: tape.id, index: scan.index + 1 + carries + i }).collect()
}

/// Cotangents of a scan's inputs from those of its ports.
pub(crate) fn vjp(
    tape: &mut Tape,
    scan: Var,
    op: &ScanOp,
    inputs: &[Var],
    port_bars: &[Option<Var>],
    needs: &[bool],
    watch: Option<&mut Watch>,
) -> Result<Vec<Option<Var>>> {
    let parts = split(op, inputs);
    let histories = history_ports(tape, scan, op);
    let carries = op.step.carries.len();

    // Initial cotangents of the state, and the sequences the adjoint walks over.
    let mut h_bars = Vec::new();
    for i in 0..carries {
        let ty = op.step.ports[i].ty.clone();
        h_bars.push(match port_bars[i] {
            Some(v) => v,
            None => fill(tape, ty, 0.0)?,
        });
    }
    // States that are walked back are carried along, from the last ones on.
    let inverse = op.step.inverse.as_ref();
    let kept: &[Var] = if inverse.is_some() { &[] } else { &histories };
    if inverse.is_some() {
        h_bars.extend((0..carries as u32).map(|i| Var { tape: tape.id, index: scan.index + 1 + i }));
    }
    let mut sequences: Vec<Var> = kept.iter().chain(parts.xs).copied().collect();

    let mut inner = Tape::enter(tape);
    let recorded = (|| -> Result<_> {
        let inner = &mut inner;
        let mut builder = Builder::default();
        let label = |k: usize| op.step.nodes[op.step.carries[k].input.index as usize].label.clone();
        for i in 0..carries {
            let name = format!("{}_bar", label(i).unwrap_or_default());
            builder.add_carry(inner, op.step.ports[i].ty.clone(), &name);
        }
        if let Some(inverse) = inverse {
            builder.walk = Some(inverse.walk);
            for i in 0..carries {
                let name = label(i).unwrap_or_default();
                builder.add_carry(inner, op.step.ports[i].ty.clone(), &name);
            }
        }
        for (i, h) in kept.iter().enumerate() {
            let ty = inner.ty(*h)?.clone();
            builder.add_x(inner, &ty, &label(i).unwrap_or_default())?;
        }
        for (x, placeholder) in parts.xs.iter().zip(&op.step.xs) {
            let ty = inner.ty(*x)?.clone();
            let name = op.step.nodes[placeholder.index as usize].label.clone().unwrap_or_default();
            builder.add_x(inner, &ty, &name)?;
        }
        let input_xs = builder.xs[kept.len()..].to_vec();
        let mut before = Vec::new();
        let mut history_xs = builder.xs[..kept.len()].to_vec();
        if let Some(inverse) = inverse {
            let after = builder.carries[carries..].to_vec();
            before = invert(inner, op, inverse, &after, &input_xs, parts.captured)?;
            // The state before the step is a value of its own: no gradient takes the way back through the inverse.
            for v in &before {
                history_xs.push(stop_gradient(inner, *v)?);
            }
        }
        let map = rebuild(inner, &mut builder, op, &history_xs, &input_xs, parts.captured)?;

        // Seeds of the step: the state's cotangent, and those of the outputs.
        let mut seeds = Vec::new();
        let mut history_bars = vec![None; carries];
        for (i, c) in op.step.carries.iter().enumerate() {
            seeds.push((map[c.output.index as usize], builder.carries[i]));
        }
        for (port, bar) in op.step.ports.iter().zip(port_bars) {
            let (Some(bar), false) = (*bar, matches!(port.kind, PortKind::Final(_))) else { continue };
            let parent = inner.parent.as_deref().ok_or_else(|| Error::argument("scan", "bug: no parent"))?;
            let step_bar = if let PortKind::Sum(_) = port.kind {
                inner.resolve(bar)?
            } else if let Some(constant) = constant_in_time(parent, bar)? {
                let v = inner.resolve(constant)?;
                expand(inner, v, if port.ty.shape.lead.has_n() { Lead::N } else { Lead::Shared })?
            } else {
                let ty = inner.ty(bar)?.clone();
                sequences.push(bar);
                builder.add_x(inner, &ty, "y_bar")?
            };
            match port.kind {
                PortKind::History(i) => history_bars[i] = Some(step_bar),
                PortKind::Stack(v) | PortKind::Sum(v) => seeds.push((map[v.index as usize], step_bar)),
                PortKind::Final(_) => {}
            }
        }

        // Cotangents of the state before the step, of the inputs, of captured values.
        let (needs_x, needs_captured) = needs[carries..].split_at(parts.xs.len());
        let mut wrt: Vec<Var> = history_xs.clone();
        wrt.extend(input_xs.iter().zip(needs_x).filter(|(_, n)| **n).map(|(v, _)| *v));
        for (k, _) in needs_captured.iter().enumerate().filter(|(_, n)| **n) {
            wrt.push(inner.resolve(parts.captured[k])?);
        }
        let mut inner_watch = None;
        if let Some(watch) = &watch {
            let mut watched = Vec::new();
            for (k, outer) in parts.captured.iter().enumerate() {
                if let (Some(part), true) = (watch.part(*outer), needs_captured[k]) {
                    watched.push((inner.resolve(*outer)?, part));
                }
            }
            inner_watch = Some(watch.enter(watched));
        }
        let bars = autodiff::vjp_watched(inner, &seeds, &wrt, inner_watch.as_mut())?;
        for i in 0..carries {
            let bar = match (bars[i], history_bars[i]) {
                (Some(a), Some(b)) => add(inner, a, b)?,
                (Some(a), None) | (None, Some(a)) => a,
                (None, None) => fill(inner, op.step.ports[i].ty.clone(), 0.0)?,
            };
            builder.outputs.push(bar);
        }
        builder.outputs.extend(&before);
        let mut at = carries;
        let mut x_ports = vec![None; parts.xs.len()];
        for (k, _) in needs_x.iter().enumerate().filter(|(_, n)| **n) {
            x_ports[k] = bars[at].map(|bar| builder.stack(bar));
            at += 1;
        }
        let mut tails = vec![None; parts.captured.len()];
        for (k, _) in needs_captured.iter().enumerate().filter(|(_, n)| **n) {
            tails[k] = match bars[at] {
                Some(bar) => Some(Tail::new(inner, &mut builder, bar)?),
                None => None,
            };
            at += 1;
        }
        let mut pending = Vec::new();
        if let Some(found) = &mut inner_watch {
            pending = builder.watched(inner, found)?;
        }
        // What stood for the states stands for what was walked back to, or was there after the step.
        let mut instead: HashMap<u32, Var> = HashMap::new();
        for (k, v) in before.iter().enumerate() {
            instead.insert(history_xs[k].index, *v);
            let after = map[op.step.carries[k].output.index as usize];
            if matches!(inner.nodes[after.index as usize].kind, NodeKind::Op(_)) {
                instead.entry(after.index).or_insert(builder.carries[carries + k]);
            }
        }
        Ok((builder, x_ports, tails, inner_watch, pending, instead))
    })();
    inner.leave(tape);
    let (mut builder, x_ports, tails, inner_watch, pending, instead) = recorded?;
    let nodes = inner.nodes.clone();
    if inverse.is_some() {
        let instead = share(&mut inner.nodes, instead);
        for v in &mut builder.outputs {
            while let Some(&other) = instead.get(&v.index) {
                *v = other;
            }
        }
    }
    builder.first_held(tape, &inner, &mut h_bars)?;
    let states = builder.carries.len();
    let (adjoint, ports) = builder.finish(tape, inner, &h_bars, &sequences, !op.reverse, Some(scan))?;
    tape.label(adjoint, "adjoint scan");

    let mut out: Vec<Option<Var>> = Vec::with_capacity(inputs.len());
    for i in 0..carries {
        out.push(needs[i].then_some(ports[i]));
    }
    let extra = &ports[2 * states..];
    if let (Some(watch), Some(found)) = (watch, inner_watch) {
        watch.leave(found, pending, extra);
    }
    out.extend(x_ports.into_iter().map(|p| p.map(|k| extra[k])));
    for tail in tails {
        out.push(tail.map(|t: Tail| t.record(tape, &nodes, extra)).transpose()?);
    }
    debug_assert_eq!(out.len(), parts.inits.len() + parts.xs.len() + parts.captured.len());
    Ok(out)
}

/// The gradient of a captured value, as sums over time and what is left to do to them afterwards.
///
/// A sum over rows followed by linear operations is summed first and finished once, outside the loop.
#[derive(Clone)]
struct Tail {
    root: Var,
    sums: HashMap<Var, usize>,
}

impl Tail {
    fn new(inner: &mut Tape, builder: &mut Builder, root: Var) -> Result<Tail> {
        let mut sums = HashMap::new();
        let mut stack = vec![root];
        while let Some(v) = stack.pop() {
            let node = inner.node(v)?;
            let linear = match &node.kind {
                NodeKind::Op(op) => {
                    let varies = |v: &Var| !matches!(inner.nodes[v.index as usize].kind, NodeKind::Const(_));
                    op.is_linear()
                        && !matches!(op.class(), Class::RowContract(_) | Class::MatMul(_))
                        && node.ty.shape.lead == Lead::Shared
                        && node
                            .inputs
                            .iter()
                            .all(|v| inner.nodes[v.index as usize].ty.shape.lead == Lead::Shared)
                        && node.inputs.iter().all(varies)
                }
                _ => false,
            };
            if linear {
                stack.extend(node.inputs.iter().copied());
            } else {
                sums.entry(v).or_insert_with(|| builder.sum(v));
            }
        }
        Ok(Tail { root, sums })
    }

    fn record(&self, tape: &mut Tape, nodes: &[Node], extra: &[Var]) -> Result<Var> {
        self.visit(tape, nodes, extra, self.root)
    }

    fn visit(&self, tape: &mut Tape, nodes: &[Node], extra: &[Var], v: Var) -> Result<Var> {
        if let Some(&k) = self.sums.get(&v) {
            return Ok(extra[k]);
        }
        let node = &nodes[v.index as usize];
        let inputs =
            node.inputs.iter().map(|&i| self.visit(tape, nodes, extra, i)).collect::<Result<Vec<_>>>()?;
        match &node.kind {
            NodeKind::Op(op) => tape.push_arc(op.clone(), &inputs),
            other => Err(Error::argument("scan", format!("bug: {other:?} in a gradient"))),
        }
    }
}

/// Tangents of a scan's ports from those of its inputs.
pub(crate) fn jvp(
    tape: &mut Tape,
    scan: Var,
    op: &ScanOp,
    inputs: &[Var],
    dots: &[Option<Var>],
) -> Result<Vec<Option<Var>>> {
    let parts = split(op, inputs);
    let histories = history_ports(tape, scan, op);
    let carries = op.step.carries.len();
    let mut h_dots = Vec::new();
    for i in 0..carries {
        h_dots.push(match dots[i] {
            Some(v) => v,
            None => fill(tape, op.step.ports[i].ty.clone(), 0.0)?,
        });
    }
    let mut sequences: Vec<Var> = histories.iter().chain(parts.xs).copied().collect();
    let mut inner = Tape::enter(tape);
    let recorded = (|| -> Result<_> {
        let inner = &mut inner;
        let mut builder = Builder::default();
        for i in 0..carries {
            builder.add_carry(inner, op.step.ports[i].ty.clone(), "h_dot");
        }
        for v in sequences.clone() {
            let ty = inner.ty(v)?.clone();
            builder.add_x(inner, &ty, "x")?;
        }
        let history_xs = builder.xs[..carries].to_vec();
        let input_xs = builder.xs[carries..].to_vec();
        let map = rebuild(inner, &mut builder, op, &history_xs, &input_xs, parts.captured)?;
        builder.rebuilds.clear();
        let mut seeds: Vec<(Var, Var)> =
            history_xs.iter().zip(&builder.carries).map(|(&h, &d)| (h, d)).collect();
        for (k, x) in input_xs.iter().enumerate() {
            if let Some(dot) = dots[carries + k] {
                let ty = inner.ty(dot)?.clone();
                sequences.push(dot);
                seeds.push((*x, builder.add_x(inner, &ty, "x_dot")?));
            }
        }
        for (k, outer) in parts.captured.iter().enumerate() {
            if let Some(dot) = dots[carries + parts.xs.len() + k] {
                seeds.push((inner.resolve(*outer)?, inner.resolve(dot)?));
            }
        }
        let mut wanted: Vec<Var> = op.step.carries.iter().map(|c| map[c.output.index as usize]).collect();
        for port in &op.step.ports[2 * carries..] {
            if let PortKind::Stack(v) | PortKind::Sum(v) = port.kind {
                wanted.push(map[v.index as usize]);
            }
        }
        let tangents = autodiff::jvp(inner, &wanted, &seeds)?;
        for (i, tangent) in tangents[..carries].iter().enumerate() {
            let v = match tangent {
                Some(v) => *v,
                None => fill(inner, op.step.ports[i].ty.clone(), 0.0)?,
            };
            builder.outputs.push(v);
        }
        let mut extra = Vec::new();
        for (port, tangent) in op.step.ports[2 * carries..].iter().zip(&tangents[carries..]) {
            extra.push(tangent.map(|v| match port.kind {
                PortKind::Sum(_) => builder.sum(v),
                _ => builder.stack(v),
            }));
        }
        Ok((builder, extra))
    })();
    inner.leave(tape);
    let (builder, extra) = recorded?;
    let (tangent, ports) = builder.finish(tape, inner, &h_dots, &sequences, op.reverse, None)?;
    tape.label(tangent, "tangent scan");
    let mut out: Vec<Option<Var>> = ports[..2 * carries].iter().map(|&v| Some(v)).collect();
    out.extend(extra.into_iter().map(|p| p.map(|k| ports[2 * carries + k])));
    Ok(out)
}

/// Records a scan without outputs that only sums: `record` gets the step's entries of the sequences and ways to hold a
/// value until the next step visited and to sum one. The last step is visited first. Returns what `record` returns and
/// the ports of the sums.
pub(crate) fn sums(
    tape: &mut Tape,
    sequences: &[Option<Var>],
    record: impl FnOnce(
        &mut Tape,
        &[Option<Var>],
        &mut dyn FnMut(&mut Tape, Var) -> Result<Var>,
        &mut dyn FnMut(Var) -> usize,
    ) -> Result<Vec<Pending>>,
) -> Result<(Vec<Pending>, Vec<Var>)> {
    let mut inner = Tape::enter(tape);
    let recorded = (|| -> Result<_> {
        let inner = &mut inner;
        let mut builder = Builder::default();
        let mut xs = Vec::new();
        for v in sequences {
            xs.push(match v {
                Some(v) => {
                    let ty = inner.ty(*v)?.clone();
                    Some(builder.add_x(inner, &ty, "x")?)
                }
                None => None,
            });
        }
        let pending = builder.summing(inner, |inner, hold, sum| record(inner, &xs, hold, sum))?;
        Ok((builder, pending))
    })();
    inner.leave(tape);
    let (builder, pending) = recorded?;
    let mut first = Vec::new();
    builder.first_held(tape, &inner, &mut first)?;
    let sequences: Vec<Var> = sequences.iter().flatten().copied().collect();
    let (scan, ports) = builder.finish(tape, inner, &first, &sequences, true, None)?;
    tape.label(scan, "statistics scan");
    Ok((pending, ports[2 * first.len()..].to_vec()))
}
