//! A step while it is recorded.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::hoist::Hoist;
use super::walk::{Inverse, Walk};
use super::{Carry, Port, PortKind, ScanOp, Step};
use crate::core_ops::fill;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::Ty;
use crate::shape::{Lead, Shape};
use crate::statistics::{Pending, Watch, held};
use crate::tape::{NodeKind, Tape, Var};

/// A step being recorded: the placeholders and outputs chosen so far.
#[derive(Default)]
pub(super) struct Builder {
    pub(super) carries: Vec<Var>,
    pub(super) xs: Vec<Var>,
    pub(super) outputs: Vec<Var>,
    pub(super) extra: Vec<PortKind>,
    pub(super) rebuilds: HashMap<Var, u32>,
    /// The inverse of the step: the state after it, the state before it computed from that, and what is asked of it.
    pub(super) inverse: Option<Inverse>,
    /// Of an adjoint step: how the states that it carries behind the cotangents are walked back to.
    pub(super) walk: Option<Walk>,
}

impl Builder {
    pub(super) fn add_carry(&mut self, inner: &mut Tape, ty: Ty, name: &str) -> Var {
        let v = inner.add(NodeKind::Carry(self.carries.len()), SmallVec::new(), ty);
        inner.label(v, name);
        self.carries.push(v);
        v
    }

    pub(super) fn add_x(&mut self, inner: &mut Tape, outer: &Ty, name: &str) -> Result<Var> {
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
    pub(super) fn stack(&mut self, v: Var) -> usize {
        self.extra.push(PortKind::Stack(v));
        self.extra.len() - 1
    }

    /// Adds a sum over time; its number among the extra ports. Gradients often share one.
    pub(super) fn sum(&mut self, v: Var) -> usize {
        if let Some(known) = self.extra.iter().position(|p| *p == PortKind::Sum(v)) {
            return known;
        }
        self.extra.push(PortKind::Sum(v));
        self.extra.len() - 1
    }

    /// Records the statistics of the uses that were found in an adjoint step.
    pub(super) fn watched(&mut self, inner: &mut Tape, found: &mut Watch) -> Result<Vec<Pending>> {
        self.summing(inner, |inner, hold, sum| found.inside(inner, hold, sum))
    }

    /// Records sums that may hold a value until the next step visited, in a state of its own that is 0 at first.
    pub(super) fn summing<T>(
        &mut self,
        inner: &mut Tape,
        record: impl FnOnce(
            &mut Tape,
            &mut dyn FnMut(&mut Tape, Var) -> Result<Var>,
            &mut dyn FnMut(Var) -> usize,
        ) -> Result<T>,
    ) -> Result<T> {
        let mut holding = Builder { carries: std::mem::take(&mut self.carries), ..Builder::default() };
        let mut sums = Builder { extra: std::mem::take(&mut self.extra), ..Builder::default() };
        let mut hold = |inner: &mut Tape, v: Var| -> Result<Var> {
            let (output, ty) = held(inner, v)?;
            let before = holding.add_carry(inner, ty, "held");
            holding.outputs.push(output);
            Ok(before)
        };
        let recorded = record(inner, &mut hold, &mut |v| sums.sum(v));
        self.carries = holding.carries;
        self.outputs.extend(holding.outputs);
        self.extra = sums.extra;
        recorded
    }

    /// First values of the states that [`Builder::summing`] added, after those in `inits`.
    pub(super) fn first_held(&self, tape: &mut Tape, inner: &Tape, inits: &mut Vec<Var>) -> Result<()> {
        for carry in &self.carries[inits.len()..] {
            let ty = inner.nodes[carry.index as usize].ty.clone();
            inits.push(fill(tape, ty, 0.0)?);
        }
        Ok(())
    }

    /// Moves what does not vary with time out to `tape`, and records the scan there. Returns it and its ports:
    /// last states, histories, then the extra ones.
    pub(super) fn finish(
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
        let inverse = self.inverse.map(|inverse| Inverse {
            after: inverse.after.into_iter().map(map).collect(),
            before: inverse.before.into_iter().map(map).collect(),
            walk: inverse.walk,
        });
        let step = Step {
            inverse,
            id: hoisted.id,
            xs: self.xs.iter().map(|&v| map(v)).collect(),
            carries,
            ports,
            rebuilds,
            nodes: hoisted.nodes,
        };
        let port_tys: Vec<Ty> = step.ports.iter().map(|p| p.ty.clone()).collect();
        let inputs = inits.iter().chain(sequences).chain(&hoisted.captured_outer).copied().collect();
        let op = ScanOp { step, reverse, adjoint_of, walk: self.walk };
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
