//! What a recorded step keeps for its adjoint.
//!
//! The adjoint step as recorded rebuilds every value of the step from the states. Values that are expensive to
//! rebuild (products, structured kernels) can be kept instead, or anything cheap computed from them that cuts
//! them off from where they are needed: the cheapest such set, in bytes, is a minimum cut. Among minimum cuts the
//! one nearest to the use is taken, because it leaves least to rebuild.

use std::collections::{HashMap, VecDeque};

use super::lower::scales;
use super::step::Saved;
use crate::op::Class;
use crate::scan::Step;
use crate::stash::Stash;
use crate::tape::{NodeKind, Var};

/// How much of a step is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Keep {
    /// Enough that nothing expensive is computed twice.
    Values,
    /// States only; everything else is rebuilt, in parallel over a chunk of time.
    States,
}

/// The decision for one pair of scans.
pub(crate) struct Kept {
    /// Values of the forward step, in order.
    pub(crate) keeps: Vec<Var>,
    /// What they replace in the adjoint step.
    pub(crate) saved: HashMap<u32, Saved>,
    /// Bytes, for a row and step, of all values that the adjoint reads.
    pub(crate) everything: usize,
}

/// Decides for a step, its adjoint, and the nodes of the adjoint that are needed at all.
pub(crate) fn choose(forward: &Step, adjoint: &Step, live: &[bool], keep: Keep, stash: Stash) -> Kept {
    let carries = forward.carries.len();
    let mut saved: HashMap<u32, Saved> = HashMap::new();
    for (carry, x) in adjoint.xs[..carries].iter().enumerate() {
        saved.insert(x.index, Saved::State { carry, after: false });
    }
    for (i, origin) in adjoint.rebuilds.iter().enumerate() {
        let Some(f) = origin else { continue };
        if let Some(carry) = forward.carries.iter().position(|c| c.output.index == *f) {
            saved.insert(i as u32, Saved::State { carry, after: true });
        }
    }
    // Rebuilt nodes that are needed, directly by the adjoint proper or to rebuild one that is.
    let rebuilt = |i: usize| adjoint.rebuilds[i].is_some() && !saved.contains_key(&(i as u32));
    let n = adjoint.nodes.len();
    let mut direct = vec![false; n];
    let mut used = |v: Var| direct[v.index as usize] = true;
    for port in &adjoint.ports {
        if let crate::scan::PortKind::Stack(v) | crate::scan::PortKind::Sum(v) = port.kind {
            used(v);
        }
    }
    for c in &adjoint.carries {
        used(c.output);
    }
    for (i, node) in adjoint.nodes.iter().enumerate() {
        if live[i] && adjoint.rebuilds[i].is_none() {
            node.inputs.iter().for_each(|&v| used(v));
        }
    }
    let everything = read(forward, adjoint, live, &direct, &saved);
    if keep == Keep::States {
        return Kept { keeps: Vec::new(), saved, everything };
    }
    let mut needed: Vec<bool> = (0..n).map(|i| live[i] && direct[i] && rebuilt(i)).collect();
    for i in (0..n).rev() {
        if needed[i] {
            for v in &adjoint.nodes[i].inputs {
                if rebuilt(v.index as usize) {
                    needed[v.index as usize] = true;
                }
            }
        }
    }

    // Each node is an edge 2i -> 2i+1 with its bytes; 2n is the source, 2n+1 the sink.
    const FREE: u64 = u64::MAX / 4;
    let (source, sink) = (2 * n, 2 * n + 1);
    let mut flow = Flow::new(2 * n + 2);
    for i in (0..n).filter(|&i| needed[i]) {
        let node = &adjoint.nodes[i];
        flow.edge(2 * i, 2 * i + 1, (stash.bytes(node.ty.dtype) * node.ty.shape.width()) as u64);
        let cheap = match &node.kind {
            NodeKind::Op(op) => op.is_cheap() || scales(&adjoint.nodes, node).is_some(),
            _ => true,
        };
        if !cheap {
            flow.edge(source, 2 * i, FREE);
        }
        if direct[i] {
            flow.edge(2 * i + 1, sink, FREE);
        }
        for v in &node.inputs {
            if needed[v.index as usize] {
                flow.edge(2 * v.index as usize + 1, 2 * i, FREE);
            }
        }
    }
    let near_sink = flow.cut_near_sink(source, sink);
    let mut keeps = Vec::new();
    for i in (0..n).filter(|&i| needed[i] && !near_sink[2 * i] && near_sink[2 * i + 1]) {
        let Some(f) = adjoint.rebuilds[i] else { continue };
        saved.insert(i as u32, Saved::Kept(keeps.len()));
        keeps.push(Var { tape: forward.id, index: f });
    }
    Kept { keeps, saved, everything }
}

/// Bytes of the values of the forward step, for a row and step, that the adjoint proper reads: of a view, those of
/// what it views; of a state, before and after a step, once.
fn read(
    forward: &Step,
    adjoint: &Step,
    live: &[bool],
    direct: &[bool],
    saved: &HashMap<u32, Saved>,
) -> usize {
    let mut wanted = direct.to_vec();
    let mut states = vec![false; forward.carries.len()];
    let mut bytes = 0;
    for (i, node) in adjoint.nodes.iter().enumerate().rev().filter(|(i, _)| live[*i]) {
        let view =
            matches!(&node.kind, NodeKind::Op(op) if matches!(op.class(), Class::Layout(_) | Class::Expand));
        match saved.get(&(i as u32)) {
            _ if !wanted[i] => {}
            Some(Saved::State { carry, .. }) => states[*carry] = true,
            _ if adjoint.rebuilds[i].is_none() => {}
            _ if view => node.inputs.iter().for_each(|v| wanted[v.index as usize] = true),
            _ if matches!(node.kind, NodeKind::Op(_)) && node.ty.shape.lead.has_n() => {
                bytes += node.ty.entry_bytes();
            }
            _ => {}
        }
    }
    let of_states = forward.carries.iter().zip(&states).filter(|(_, used)| **used);
    bytes + of_states.map(|(c, _)| forward.nodes[c.output.index as usize].ty.entry_bytes()).sum::<usize>()
}

/// Maximum flow by shortest augmenting paths (Edmonds and Karp 1972); the graphs have tens of nodes.
struct Flow {
    edges: Vec<(usize, u64)>,
    from: Vec<Vec<usize>>,
}

impl Flow {
    fn new(nodes: usize) -> Flow {
        Flow { edges: Vec::new(), from: vec![Vec::new(); nodes] }
    }

    fn edge(&mut self, a: usize, b: usize, capacity: u64) {
        self.from[a].push(self.edges.len());
        self.edges.push((b, capacity));
        self.from[b].push(self.edges.len());
        self.edges.push((a, 0));
    }

    fn augment(&mut self, source: usize, sink: usize) -> bool {
        let mut via = vec![usize::MAX; self.from.len()];
        let mut queue = VecDeque::from([source]);
        while let Some(at) = queue.pop_front() {
            for &e in &self.from[at] {
                let (to, left) = self.edges[e];
                if left > 0 && via[to] == usize::MAX && to != source {
                    via[to] = e;
                    queue.push_back(to);
                }
            }
        }
        if via[sink] == usize::MAX {
            return false;
        }
        let mut least = u64::MAX;
        let mut at = sink;
        while at != source {
            least = least.min(self.edges[via[at]].1);
            at = self.edges[via[at] ^ 1].0;
        }
        at = sink;
        while at != source {
            self.edges[via[at]].1 -= least;
            self.edges[via[at] ^ 1].1 += least;
            at = self.edges[via[at] ^ 1].0;
        }
        true
    }

    /// Nodes that can still reach the sink once the flow is maximal.
    fn cut_near_sink(mut self, source: usize, sink: usize) -> Vec<bool> {
        while self.augment(source, sink) {}
        let mut reaches = vec![false; self.from.len()];
        let mut queue = VecDeque::from([sink]);
        reaches[sink] = true;
        while let Some(at) = queue.pop_front() {
            for &e in &self.from[at] {
                // The edge towards `at` is the partner of one that leaves it.
                let (other, _) = self.edges[e];
                if self.edges[e ^ 1].1 > 0 && !std::mem::replace(&mut reaches[other], true) {
                    queue.push_back(other);
                }
            }
        }
        reaches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_is_the_cheapest_and_nearest_to_the_use() {
        // source -> a(10) -> b(4) -> c(4) -> sink
        let mut flow = Flow::new(8);
        for (i, bytes) in [10, 4, 4].into_iter().enumerate() {
            flow.edge(2 * i, 2 * i + 1, bytes);
        }
        flow.edge(6, 0, 1 << 40);
        flow.edge(1, 2, 1 << 40);
        flow.edge(3, 4, 1 << 40);
        flow.edge(5, 7, 1 << 40);
        let near = flow.cut_near_sink(6, 7);
        assert_eq!((near[2], near[3], near[4], near[5]), (false, false, false, true));
    }
}
