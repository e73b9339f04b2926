//! `scan`: a step recorded once and applied at every step of time.
//!
//! What the step computes from parameters alone is moved out to the enclosing tape as it is recorded (the phase
//! *once*), so it runs once a call and is differentiated once a call. The adjoint of a scan is another scan that
//! walks the other way: it reads the states, rebuilds what it needs of the step, and carries the cotangent of
//! the state. Being a scan, it is planned, explained and differentiated by the same code.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::autodiff;
use crate::core_ops::{active_mask, add, chunk_start, expand, fill, keep_ended, select, stop_gradient};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Class, Ty};
use crate::shape::{Lead, Shape};
use crate::state::State;
use crate::tape::{Node, NodeKind, Tape, Var};

/// How far gradients reach back in time.
///
/// Truncation changes gradients, so it is part of the computation and not of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Horizon {
    /// To the first step.
    #[default]
    Full,
    /// No gradient passes from one chunk `[i·k, (i+1)·k)` of steps to the chunk walked before it. That of the
    /// first chunk reaches the initial state.
    Steps(usize),
}

/// A loop over time; see [`scan`].
#[derive(Clone, Debug, Default)]
pub struct Scan {
    reverse: bool,
    lengths: Option<Var>,
    horizon: Horizon,
}

/// What an output of a scan is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PortKind {
    /// State number after the last step.
    Final(usize),
    /// State number before every step, stacked over time.
    History(usize),
    /// A value of the step, stacked over time.
    Stack(Var),
    /// A value of the step, summed over time (and over rows, if it has no row axis).
    Sum(Var),
}

#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub(crate) kind: PortKind,
    pub(crate) ty: Ty,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Carry {
    pub(crate) input: Var,
    pub(crate) output: Var,
}

/// A recorded step: its nodes in order, and what connects them to the outside.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) id: u32,
    pub(crate) nodes: Vec<Node>,
    pub(crate) carries: Vec<Carry>,
    pub(crate) xs: Vec<Var>,
    pub(crate) captured: Vec<Var>,
    pub(crate) ports: Vec<Port>,
    /// For each node of an adjoint step: the node of the forward step it rebuilds.
    pub(crate) rebuilds: Vec<Option<u32>>,
}

/// A scan on a tape. Inputs of its node: initial states, sequences, captured values.
#[derive(Clone, Debug)]
pub(crate) struct ScanOp {
    pub(crate) step: Step,
    pub(crate) reverse: bool,
    /// The scan this one is the adjoint of.
    pub(crate) adjoint_of: Option<Var>,
}

/// Applies `step` at every step of time.
///
/// `step(tape, carry, x) -> (carry, y)` is called once, with placeholders; `carry` starts as given, `xs` are
/// sequences (`[T,N,..]`, or `[T,..]` for values the rows share). Returns the last state and the stacked outputs
/// (`[T,N,..]`). Values of the enclosing tape without a time axis may be used inside the step.
///
/// ```
/// use retrograd_engine::{scan, matmul, core_ops::add, DType, Shape, Tape};
/// # fn main() -> retrograd_engine::Result<()> {
/// let mut tape = Tape::new();
/// let w = tape.param("w", DType::F32, [3, 3])?;
/// let x = tape.input("x", DType::F32, Shape::sequence([3]))?;
/// let h0 = tape.param("h0", DType::F32, [3])?;
/// let (last, all) = scan(&mut tape, h0, x, |tape, h, x| {
///     let wh = matmul(tape, h, w)?;
///     let h = add(tape, wh, x)?;
///     Ok((h, h))
/// })?;
/// assert_eq!(tape.shape(last)?.to_string(), "[N,3]");
/// assert_eq!(tape.shape(all)?.to_string(), "[T,N,3]");
/// # Ok(()) }
/// ```
///
/// Errors: a state that changes type from step to step (named); a sequence without a time axis; whatever `step`
/// returns.
pub fn scan<C: State, X: State, Y: State>(
    tape: &mut Tape,
    carry: C,
    xs: X,
    step: impl FnOnce(&mut Tape, C, X) -> Result<(C, Y)>,
) -> Result<(C, Y)> {
    Scan::new().run(tape, carry, xs, step)
}

impl Scan {
    /// Forward in time, all rows to the end, gradients to the first step.
    pub fn new() -> Scan {
        Scan::default()
    }

    /// Whether to walk from the last step to the first.
    pub fn reverse(mut self, reverse: bool) -> Scan {
        self.reverse = reverse;
        self
    }

    /// Number of steps of each row, `[N]` of `I32`. A row that has ended keeps its state, its outputs are zero
    /// and it adds nothing to any gradient.
    pub fn lengths(mut self, lengths: Option<Var>) -> Scan {
        self.lengths = lengths;
        self
    }

    /// How far gradients reach back.
    pub fn horizon(mut self, horizon: Horizon) -> Scan {
        self.horizon = horizon;
        self
    }

    /// Records the loop; see [`scan`].
    pub fn run<C: State, X: State, Y: State>(
        &self,
        tape: &mut Tape,
        carry: C,
        xs: X,
        step: impl FnOnce(&mut Tape, C, X) -> Result<(C, Y)>,
    ) -> Result<(C, Y)> {
        if tape.is_step() {
            return Err(Error::argument("scan", "a scan inside the step of a scan is not supported"));
        }
        if self.horizon == Horizon::Steps(0) {
            return Err(Error::argument("scan", "a horizon of 0 steps; at least 1"));
        }
        let inits = carry
            .parts()?
            .into_iter()
            .map(|(name, v)| Ok((name, expand(tape, v, Lead::N)?)))
            .collect::<Result<Vec<_>>>()?;
        let sequences = xs.parts()?;
        let mut inner = Tape::enter(tape);
        let recorded = self.record(&mut inner, &carry, &inits, &xs, &sequences, step);
        inner.leave(tape);
        let (builder, y) = recorded?;

        let inits: Vec<Var> = inits.iter().map(|(_, v)| *v).collect();
        let sequences: Vec<Var> = sequences.iter().map(|(_, v)| *v).collect();
        let (scan, ports) = builder.finish(tape, inner, &inits, &sequences, self.reverse, None)?;
        let carries = inits.len();
        let mut next = 0;
        let last = carry.map_parts(&mut |_, _| {
            next += 1;
            Ok(ports[next - 1])
        })?;
        let mut next = 2 * carries;
        let stacked = y.map_parts(&mut |_, _| {
            next += 1;
            Ok(ports[next - 1])
        })?;
        tape.label(scan, if self.reverse { "scan (reverse)" } else { "scan" });
        Ok((last, stacked))
    }

    fn record<C: State, X: State, Y: State>(
        &self,
        inner: &mut Tape,
        carry: &C,
        inits: &[(String, Var)],
        xs: &X,
        sequences: &[(String, Var)],
        step: impl FnOnce(&mut Tape, C, X) -> Result<(C, Y)>,
    ) -> Result<(Builder, Y)> {
        let mut builder = Builder::default();
        for (name, v) in inits {
            let ty = inner.ty(*v)?.clone();
            builder.add_carry(inner, ty, name);
        }
        for (name, v) in sequences {
            let ty = inner.ty(*v)?.clone();
            builder.add_x(inner, &ty, name)?;
        }
        let mut states = builder.carries.clone();
        if let Horizon::Steps(k) = self.horizon {
            for h in &mut states {
                let dtype = inner.dtype(*h)?;
                let cut = chunk_start(inner, k, self.reverse, dtype)?;
                let stopped = stop_gradient(inner, *h)?;
                *h = select(inner, cut, stopped, *h)?;
            }
        }
        let mut next = states.into_iter();
        let c = carry.map_parts(&mut |_, v| Ok(next.next().unwrap_or(v)))?;
        let mut next = builder.xs.clone().into_iter();
        let x = xs.map_parts(&mut |_, v| Ok(next.next().unwrap_or(v)))?;
        let (new_carry, y) = step(inner, c, x)?;

        let new = new_carry.parts()?;
        if new.len() != inits.len() {
            let (expected, got) = (format!("{} parts", inits.len()), format!("{} parts", new.len()));
            return Err(Error::shape("scan", "carry", expected, got));
        }
        let mask = match self.lengths {
            Some(lengths) => Some(active_mask(inner, lengths, DType::F32)?),
            None => None,
        };
        for (i, (name, v)) in new.into_iter().enumerate() {
            let v = inner.resolve(v)?;
            let mut v = expand(inner, v, Lead::N)?;
            let (old, got) = (inner.ty(builder.carries[i])?.clone(), inner.ty(v)?.clone());
            if old != got {
                return Err(Error::shape("scan", format!("carry `{name}` after the step"), old, got));
            }
            if let Some(mask) = mask {
                v = keep_ended(inner, mask, v, builder.carries[i])?;
            }
            builder.outputs.push(v);
        }
        for (_, v) in y.parts()? {
            let mut v = inner.resolve(v)?;
            if let Some(mask) = mask {
                v = expand(inner, v, Lead::N)?;
                let zero = inner.scalar(v, 0.0)?;
                v = keep_ended(inner, mask, v, zero)?;
            }
            builder.stack(v);
        }
        Ok((builder, y))
    }
}

/// A step being recorded: the placeholders and outputs chosen so far.
#[derive(Default)]
struct Builder {
    carries: Vec<Var>,
    xs: Vec<Var>,
    outputs: Vec<Var>,
    extra: Vec<PortKind>,
    rebuilds: HashMap<Var, u32>,
}

impl Builder {
    fn add_carry(&mut self, inner: &mut Tape, ty: Ty, name: &str) -> Var {
        let v = inner.add(NodeKind::Carry(self.carries.len()), SmallVec::new(), ty);
        inner.label(v, name);
        self.carries.push(v);
        v
    }

    fn add_x(&mut self, inner: &mut Tape, outer: &Ty, name: &str) -> Result<Var> {
        if !outer.shape.lead.has_t() {
            let what = format!("sequence `{name}`");
            return Err(Error::shape("scan", what, "a time axis [T,..] or [T,N,..]", &outer.shape));
        }
        let lead = Lead::from_axes(false, outer.shape.lead.has_n());
        let ty = Ty::new(outer.dtype, Shape { lead, dims: outer.shape.dims.clone() });
        let v = inner.add(NodeKind::X(self.xs.len()), SmallVec::new(), ty);
        inner.label(v, name);
        self.xs.push(v);
        Ok(v)
    }

    /// Adds a stacked output; its number among the extra ports.
    fn stack(&mut self, v: Var) -> usize {
        self.extra.push(PortKind::Stack(v));
        self.extra.len() - 1
    }

    fn sum(&mut self, v: Var) -> usize {
        self.extra.push(PortKind::Sum(v));
        self.extra.len() - 1
    }

    /// Moves what does not vary with time out to `tape`, and records the scan there. Returns it and its ports:
    /// last states, histories, then the extra ones.
    fn finish(
        self,
        tape: &mut Tape,
        inner: Tape,
        inits: &[Var],
        sequences: &[Var],
        reverse: bool,
        adjoint_of: Option<Var>,
    ) -> Result<(Var, Vec<Var>)> {
        let hoisted = Hoist::new(&inner, &self).run(tape, &inner)?;
        let map = |v: Var| hoisted.map[&v.index];
        let mut rebuilds = vec![None; hoisted.nodes.len()];
        for (v, forward) in &self.rebuilds {
            if let Some(new) = hoisted.map.get(&v.index) {
                rebuilds[new.index as usize] = Some(*forward);
            }
        }
        let ty = |v: Var| &hoisted.nodes[v.index as usize].ty;
        let stacked =
            |t: &Ty| Ty::new(t.dtype, Shape { lead: t.shape.lead.join(Lead::T), dims: t.shape.dims.clone() });
        let carries: Vec<Carry> = (self.carries.iter().zip(&self.outputs))
            .map(|(&i, &o)| Carry { input: map(i), output: map(o) })
            .collect();
        let mut ports = Vec::new();
        for (i, c) in carries.iter().enumerate() {
            ports.push(Port { kind: PortKind::Final(i), ty: ty(c.input).clone() });
        }
        for (i, c) in carries.iter().enumerate() {
            ports.push(Port { kind: PortKind::History(i), ty: stacked(ty(c.input)) });
        }
        for kind in &self.extra {
            ports.push(match *kind {
                PortKind::Sum(v) => Port { kind: PortKind::Sum(map(v)), ty: ty(map(v)).clone() },
                PortKind::Stack(v) => Port { kind: PortKind::Stack(map(v)), ty: stacked(ty(map(v))) },
                PortKind::Final(i) | PortKind::History(i) => {
                    Port { kind: kind.clone(), ty: stacked(ty(carries[i].input)) }
                }
            });
        }
        let step = Step {
            id: hoisted.id,
            xs: self.xs.iter().map(|&v| map(v)).collect(),
            carries,
            captured: hoisted.captured_inner.clone(),
            ports,
            rebuilds,
            nodes: hoisted.nodes,
        };
        let port_tys: Vec<Ty> = step.ports.iter().map(|p| p.ty.clone()).collect();
        let inputs = inits.iter().chain(sequences).chain(&hoisted.captured_outer).copied().collect();
        let op = ScanOp { step, reverse, adjoint_of };
        // The node itself has no value; its type is that of nothing.
        let none = Ty::new(DType::F32, Shape::shared([0]));
        let scan = tape.add(NodeKind::Scan(Arc::new(op)), inputs, none);
        let ports = port_tys
            .into_iter()
            .enumerate()
            .map(|(i, ty)| tape.add(NodeKind::Port(i), SmallVec::from_slice(&[scan]), ty))
            .collect();
        Ok((scan, ports))
    }
}

/// The pass that splits a recorded step into what varies with time and what does not.
struct Hoist {
    reachable: Vec<bool>,
    varying: Vec<bool>,
    id: u32,
    nodes: Vec<Node>,
    map: HashMap<u32, Var>,
    captured_outer: Vec<Var>,
    captured_inner: Vec<Var>,
}

impl Hoist {
    fn new(inner: &Tape, builder: &Builder) -> Hoist {
        let n = inner.nodes.len();
        let mut reachable = vec![false; n];
        let mut stack: Vec<Var> =
            builder.carries.iter().chain(&builder.xs).chain(&builder.outputs).copied().collect();
        for port in &builder.extra {
            if let PortKind::Stack(v) | PortKind::Sum(v) = port {
                stack.push(*v);
            }
        }
        while let Some(v) = stack.pop() {
            if !std::mem::replace(&mut reachable[v.index as usize], true) {
                stack.extend(&inner.nodes[v.index as usize].inputs);
            }
        }
        let mut varying = vec![false; n];
        for (i, node) in inner.nodes.iter().enumerate() {
            varying[i] = match &node.kind {
                NodeKind::Carry(_) | NodeKind::X(_) => true,
                NodeKind::Op(op) => {
                    op.varies_with_step() || node.inputs.iter().any(|v| varying[v.index as usize])
                }
                _ => false,
            };
        }
        let id = Tape::new().id;
        Hoist {
            reachable,
            varying,
            id,
            nodes: Vec::new(),
            map: HashMap::new(),
            captured_outer: Vec::new(),
            captured_inner: Vec::new(),
        }
    }

    fn run(mut self, tape: &mut Tape, inner: &Tape) -> Result<Hoist> {
        let mut outside: HashMap<u32, Var> = HashMap::new();
        for i in 0..inner.nodes.len() as u32 {
            let at = i as usize;
            if !self.reachable[at] {
                continue;
            }
            let node = &inner.nodes[at];
            if self.varying[at] {
                let mut inputs = SmallVec::new();
                for v in &node.inputs {
                    inputs.push(self.place(tape, inner, v.index, &mut outside)?);
                }
                self.keep(i, Node { inputs, ..node.clone() });
            } else {
                // Recorded where it is needed: as a captured value, or outside.
                self.place(tape, inner, i, &mut outside)?;
            }
        }
        Ok(self)
    }

    fn keep(&mut self, old: u32, node: Node) -> Var {
        let v = Var { tape: self.id, index: self.nodes.len() as u32 };
        self.nodes.push(node);
        self.map.insert(old, v);
        v
    }

    /// The node of the new step that stands for node `i` of the recorded one.
    fn place(
        &mut self,
        tape: &mut Tape,
        inner: &Tape,
        i: u32,
        outside: &mut HashMap<u32, Var>,
    ) -> Result<Var> {
        if let Some(&v) = self.map.get(&i) {
            return Ok(v);
        }
        let node = &inner.nodes[i as usize];
        if let NodeKind::Const(t) = &node.kind
            && t.len() == 1
        {
            return Ok(self.keep(i, node.clone()));
        }
        let outer = self.outside(tape, inner, i, outside)?;
        if let Some(k) = self.captured_outer.iter().position(|&o| o == outer) {
            let v = self.captured_inner[k];
            self.map.insert(i, v);
            return Ok(v);
        }
        let kind = NodeKind::Captured(self.captured_outer.len());
        let label = tape.node(outer)?.label.clone();
        let v = self.keep(i, Node { kind, inputs: SmallVec::new(), ty: node.ty.clone(), label });
        self.captured_outer.push(outer);
        self.captured_inner.push(v);
        Ok(v)
    }

    /// Records node `i`, which does not vary with time, on the enclosing tape.
    fn outside(
        &mut self,
        tape: &mut Tape,
        inner: &Tape,
        i: u32,
        memo: &mut HashMap<u32, Var>,
    ) -> Result<Var> {
        if let Some(&v) = memo.get(&i) {
            return Ok(v);
        }
        let node = &inner.nodes[i as usize];
        let v = match &node.kind {
            NodeKind::Captured(k) => inner.captured[*k].0,
            NodeKind::Const(t) => tape.constant(t.clone()),
            NodeKind::Op(op) => {
                let inputs = node
                    .inputs
                    .iter()
                    .map(|v| self.outside(tape, inner, v.index, memo))
                    .collect::<Result<Vec<_>>>()?;
                tape.push_arc(op.clone(), &inputs)?
            }
            other => return Err(Error::argument("scan", format!("bug: {other:?} does not vary with time"))),
        };
        memo.insert(i, v);
        Ok(v)
    }
}

/// Copies the nodes of a step onto `inner`, with the states read from their histories.
fn rebuild(
    inner: &mut Tape,
    builder: &mut Builder,
    op: &ScanOp,
    histories: &[Var],
    xs: &[Var],
    captured: &[Var],
) -> Result<Vec<Var>> {
    let mut map: Vec<Var> = Vec::with_capacity(op.step.nodes.len());
    for (i, node) in op.step.nodes.iter().enumerate() {
        let v = match &node.kind {
            NodeKind::Carry(k) => histories[*k],
            NodeKind::X(k) => xs[*k],
            NodeKind::Captured(k) => inner.resolve(captured[*k])?,
            NodeKind::Const(t) => inner.constant(t.clone()),
            NodeKind::Op(f) => {
                let inputs: SmallVec<[Var; 4]> = node.inputs.iter().map(|v| map[v.index as usize]).collect();
                inner.push_arc(f.clone(), &inputs)?
            }
            NodeKind::Param(_) | NodeKind::Input(_) | NodeKind::Scan(_) | NodeKind::Port(_) => {
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
    let mut sequences: Vec<Var> = histories.iter().chain(parts.xs).copied().collect();

    let mut inner = Tape::enter(tape);
    let recorded = (|| -> Result<_> {
        let inner = &mut inner;
        let mut builder = Builder::default();
        let label = |k: usize| op.step.nodes[op.step.carries[k].input.index as usize].label.clone();
        for i in 0..carries {
            let name = format!("{}_bar", label(i).unwrap_or_default());
            builder.add_carry(inner, op.step.ports[i].ty.clone(), &name);
        }
        for (i, h) in histories.iter().enumerate() {
            let ty = inner.ty(*h)?.clone();
            builder.add_x(inner, &ty, &label(i).unwrap_or_default())?;
        }
        for (x, placeholder) in parts.xs.iter().zip(&op.step.xs) {
            let ty = inner.ty(*x)?.clone();
            let name = op.step.nodes[placeholder.index as usize].label.clone().unwrap_or_default();
            builder.add_x(inner, &ty, &name)?;
        }
        let history_xs = builder.xs[..carries].to_vec();
        let input_xs = builder.xs[carries..].to_vec();
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
        let bars = autodiff::vjp(inner, &seeds, &wrt)?;
        for i in 0..carries {
            let bar = match (bars[i], history_bars[i]) {
                (Some(a), Some(b)) => add(inner, a, b)?,
                (Some(a), None) | (None, Some(a)) => a,
                (None, None) => fill(inner, op.step.ports[i].ty.clone(), 0.0)?,
            };
            builder.outputs.push(bar);
        }
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
        Ok((builder, x_ports, tails))
    })();
    inner.leave(tape);
    let (builder, x_ports, tails) = recorded?;
    let nodes = inner.nodes.clone();
    let (adjoint, ports) = builder.finish(tape, inner, &h_bars, &sequences, !op.reverse, Some(scan))?;
    tape.label(adjoint, "adjoint scan");

    let mut out: Vec<Option<Var>> = Vec::with_capacity(inputs.len());
    for i in 0..carries {
        out.push(needs[i].then_some(ports[i]));
    }
    let extra = &ports[2 * carries..];
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
            } else if !sums.contains_key(&v) {
                sums.insert(v, builder.sum(v));
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
