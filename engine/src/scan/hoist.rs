//! The phase *once*: what does not vary with time leaves the step as it is recorded.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::PortKind;
use super::builder::Builder;
use crate::error::{Error, Result};
use crate::tape::{Node, NodeKind, Tape, Var};

/// The pass that splits a recorded step into what varies with time and what does not.
pub(super) struct Hoist {
    reachable: Vec<bool>,
    /// Nodes the scan itself reads: next states and outputs.
    roots: Vec<bool>,
    varying: Vec<bool>,
    pub(super) id: u32,
    pub(super) nodes: Vec<Node>,
    pub(super) map: HashMap<u32, Var>,
    pub(super) captured_outer: Vec<Var>,
    captured_inner: Vec<Var>,
}

impl Hoist {
    pub(super) fn new(inner: &Tape, builder: &Builder) -> Hoist {
        let n = inner.nodes.len();
        let mut reachable = vec![false; n];
        let mut stack: Vec<Var> =
            builder.carries.iter().chain(&builder.xs).chain(&builder.outputs).copied().collect();
        for port in &builder.extra {
            if let PortKind::Stack(v) | PortKind::Sum(v) = port {
                stack.push(*v);
            }
        }
        let inverse = builder.inverse.iter().flat_map(|inverse| inverse.after.iter().chain(&inverse.before));
        stack.extend(inverse);
        let mut roots = vec![false; n];
        stack.iter().for_each(|v| roots[v.index as usize] = true);
        while let Some(v) = stack.pop() {
            if !std::mem::replace(&mut reachable[v.index as usize], true) {
                stack.extend(&inner.nodes[v.index as usize].inputs);
            }
        }
        let mut varying = vec![false; n];
        for (i, node) in inner.nodes.iter().enumerate() {
            varying[i] = match &node.kind {
                NodeKind::Carry(_) | NodeKind::After(_) | NodeKind::X(_) => true,
                NodeKind::Op(op) => {
                    op.varies_with_step() || node.inputs.iter().any(|v| varying[v.index as usize])
                }
                _ => false,
            };
        }
        let id = Tape::new().id;
        Hoist {
            reachable,
            roots,
            varying,
            id,
            nodes: Vec::new(),
            map: HashMap::new(),
            captured_outer: Vec::new(),
            captured_inner: Vec::new(),
        }
    }

    pub(super) fn run(mut self, tape: &mut Tape, inner: &Tape) -> Result<Hoist> {
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
            } else if self.roots[at] {
                // What only values outside need is recorded with them.
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
