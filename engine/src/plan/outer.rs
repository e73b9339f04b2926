//! Planning the whole: what is needed, which scans are paired with their adjoints, and the calls between them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::ir::{Buf, BufKind, Call, Operand, Over, Place};
use super::keep::{self, Keep};
use super::lower::{Lowerer, Packs, packed_buf};
use super::step::{External, Request, Saved, StepProgram, is_reduction, live_nodes, plan_step};
use crate::cpu::Isa;
use crate::device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Class, Ty};
use crate::scan::{PortKind, ScanOp, Step, Walk};
use crate::shape::{Dims, Shape};
use crate::stash::Stash;
use crate::tape::{Node, NodeKind, Tape, Var};
use crate::tensor::Tensor;

/// One item of the outer program.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Call(Box<Call>),
    Scan(Box<ScanItem>),
}

/// How a scan takes part in keeping and replaying.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Role {
    /// Runs once, keeps nothing.
    Plain,
    /// Records for the adjoint of this pair.
    Forward(usize),
    /// Walks back over what this pair recorded, replaying where that was not everything.
    Adjoint(usize),
}

/// A scan and where its inputs and outputs are.
#[derive(Clone, Debug)]
pub(crate) struct ScanItem {
    pub(crate) role: Role,
    /// All outputs; records if the role is forward.
    pub(crate) run: StepProgram,
    /// Forward role: all outputs without recording (segments that will be replayed).
    pub(crate) sweep: Option<StepProgram>,
    /// Adjoint role: the forward step without outputs, advancing and recording.
    pub(crate) replay: Option<Replay>,
    /// Adjoint role, states walked back: number of the first of them among its own states.
    pub(crate) walked_from: Option<usize>,
    /// Operands of the scan's inputs, where needed.
    pub(crate) inputs: BTreeMap<usize, Operand>,
    pub(crate) packs: HashMap<(usize, bool), Operand>,
    /// Stacked outputs.
    pub(crate) outs: Vec<Operand>,
    pub(crate) sums: Vec<Operand>,
    /// Last states wanted: number of the state and where to.
    pub(crate) finals: Vec<(usize, Operand)>,
    pub(crate) reverse: bool,
    pub(crate) mixes_rows: bool,
    /// Rows that a block of a device takes; `None` for threads of the processor.
    pub(crate) block_rows: Option<usize>,
    /// Blocks of a device that share a tile.
    pub(crate) team: usize,
    /// Bytes of one row's values that its adjoint has at once, about (of the scan it is the adjoint of).
    pub(crate) value_bytes: usize,
    /// Bytes of the largest matrix that its steps multiply by (of the scan it is the adjoint of).
    pub(crate) matrix_bytes: usize,
    pub(crate) label: String,
    /// Adjoint step: values of the forward step that it computes again.
    pub(crate) rebuilt: Vec<String>,
}

/// The forward step as the adjoint replays it.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    pub(crate) advance: StepProgram,
    pub(crate) record: StepProgram,
    pub(crate) inputs: BTreeMap<usize, Operand>,
    pub(crate) packs: HashMap<(usize, bool), Operand>,
}

/// What a pair of scans shares: the states and values of a segment, and the slots of checkpoints.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) states: BTreeMap<usize, (DType, usize)>,
    /// Type, width and whether it has rows.
    pub(crate) kept: Vec<(DType, usize, bool)>,
    pub(crate) keep_names: Vec<String>,
    /// Bytes, for a row and step, of all values that the adjoint reads.
    pub(crate) everything: usize,
    /// How the states are walked back to; then those are all that is kept, and only every so many steps.
    pub(crate) walk: Option<Walk>,
}

impl Pair {
    /// States of which every step of a segment is kept.
    pub(crate) fn recorded(&self) -> BTreeMap<usize, (DType, usize)> {
        if self.walk.is_some() { BTreeMap::new() } else { self.states.clone() }
    }
}

/// A lowered program, for any number of steps and rows.
#[derive(Debug)]
pub(crate) struct Outer {
    pub(crate) bufs: Vec<Buf>,
    pub(crate) items: Vec<Item>,
    pub(crate) outputs: Vec<(Place, Ty)>,
    pub(crate) bound: Vec<(String, Ty)>,
    pub(crate) constants: Vec<Tensor>,
    pub(crate) pairs: Vec<Pair>,
    /// First and last item in which each temporary buffer lives.
    pub(crate) lives: Vec<Option<(usize, usize)>>,
    /// First and last item of each pair.
    pub(crate) pair_lives: Vec<(usize, usize)>,
    pub(crate) scratch: usize,
    /// Bytes of the tables of a device; `None` for the processor.
    pub(crate) tables: Option<usize>,
}

impl Outer {
    /// For a device: other tiles, no scratch of the processor's kernels, but room for a team to count itself in. `teams` are
    /// the sizes of those of the scans.
    pub(crate) fn for_device(mut self, teams: &[usize]) -> Outer {
        self.scratch = 0;
        self.tables = Some(0);
        let scans = self.items.iter_mut().filter_map(|item| match item {
            Item::Scan(s) => Some(s),
            Item::Call(_) => None,
        });
        for (s, &team) in scans.zip(teams) {
            s.block_rows = Some(device::rows_of(team));
            s.team = team;
            s.run.scratch = usize::from(team > 1);
            let replay = s.replay.iter_mut().flat_map(|r| [&mut r.advance, &mut r.record]);
            s.sweep.iter_mut().chain(replay).for_each(|p| p.scratch = 0);
        }
        self
    }
}

impl Outer {
    /// Whether there is anything to choose about what is kept.
    pub(crate) fn chooses(&self) -> bool {
        self.pairs.iter().any(|p| p.walk.is_none())
    }
}

/// What the rest of the program asks of a scan.
#[derive(Default, Debug)]
struct Demand {
    ports: BTreeSet<usize>,
    /// `sum_steps` of a stacked output: port and the node that sums it.
    step_sums: Vec<(usize, u32)>,
    /// Set by the adjoint of this scan.
    pair: Option<PairDemand>,
}

#[derive(Debug, Clone)]
struct PairDemand {
    pair: usize,
    keeps: Vec<Var>,
    carries: BTreeSet<usize>,
}

/// What a scan does, before lowering.
struct ScanDecision {
    stacks: Vec<(usize, Var)>,
    sums: Vec<(SumTo, Var)>,
    finals: Vec<(usize, usize)>,
    saved: HashMap<u32, Saved>,
    saved_reverse: bool,
    /// Forward scan whose states this adjoint reads from the pair.
    forward: Option<(u32, PairDemand)>,
    recorded: Option<PairDemand>,
    inputs: BTreeSet<usize>,
    rebuilt: Vec<String>,
}

#[derive(Clone, Copy)]
enum SumTo {
    Port(usize),
    Node(u32),
}

struct NoPacks;

impl Packs for NoPacks {
    fn outside(&mut self, _: &mut Vec<Buf>, _: u32, _: bool, _: usize, _: usize) -> Option<Operand> {
        None
    }
}

fn scan_of(tape: &Tape, i: u32) -> Option<&ScanOp> {
    match &tape.nodes[i as usize].kind {
        NodeKind::Scan(op) => Some(op),
        _ => None,
    }
}

/// The label of a node, or the name of its operation.
fn name_of(node: &Node) -> String {
    match (&node.label, &node.kind) {
        (Some(label), _) => label.clone(),
        (None, NodeKind::Op(op)) => op.name().into(),
        _ => String::new(),
    }
}

/// If node `i` sums over time a stacked output of a scan: the scan and the port.
fn summed_port(tape: &Tape, i: u32) -> Option<(u32, usize)> {
    let node = &tape.nodes[i as usize];
    let NodeKind::Op(op) = &node.kind else { return None };
    if !matches!(op.class(), Class::SumSteps) {
        return None;
    }
    let input = &tape.nodes[node.inputs[0].index as usize];
    let NodeKind::Port(k) = input.kind else { return None };
    let scan = input.inputs[0].index;
    let stacked = matches!(scan_of(tape, scan)?.step.ports[k].kind, PortKind::Stack(_));
    stacked.then_some((scan, k))
}

/// Scans whose states are read only by their own adjoint, and that adjoint.
fn pairable(tape: &Tape, outputs: &[Var]) -> HashMap<u32, u32> {
    let mut reach = vec![false; tape.nodes.len()];
    let mut stack: Vec<Var> = outputs.to_vec();
    while let Some(v) = stack.pop() {
        if !std::mem::replace(&mut reach[v.index as usize], true) {
            stack.extend(&tape.nodes[v.index as usize].inputs);
        }
    }
    // Readers of each scan's histories.
    let mut readers: HashMap<u32, BTreeSet<u32>> = HashMap::new();
    let history = |v: &Var| {
        let node = &tape.nodes[v.index as usize];
        let NodeKind::Port(k) = node.kind else { return None };
        let scan = node.inputs[0].index;
        let port = &scan_of(tape, scan)?.step.ports[k];
        matches!(port.kind, PortKind::History(_)).then_some(scan)
    };
    for (i, node) in tape.nodes.iter().enumerate().filter(|(i, _)| reach[*i]) {
        for scan in node.inputs.iter().filter_map(history) {
            readers.entry(scan).or_default().insert(i as u32);
        }
    }
    for v in outputs {
        if let Some(scan) = history(v) {
            readers.entry(scan).or_default().insert(u32::MAX);
        }
    }
    let mut pairs = HashMap::new();
    for (scan, by) in readers {
        let Some(&adjoint) = by.first().filter(|_| by.len() == 1) else { continue };
        // What walks back over a record of its own makes none: its states are handed out.
        let walks = scan_of(tape, scan).is_some_and(|op| op.walk.is_some());
        let own = !walks
            && (adjoint as usize) < tape.nodes.len()
            && scan_of(tape, adjoint).and_then(|op| op.adjoint_of).is_some_and(|v| v.index == scan);
        if own {
            pairs.insert(scan, adjoint);
        }
    }
    pairs
}

/// The scan that `i`, and what `i` is the adjoint of, is the adjoint of; `i` itself if it is none.
fn forward_of(tape: &Tape, mut i: u32) -> u32 {
    while let Some(of) = scan_of(tape, i).and_then(|op| op.adjoint_of) {
        i = of.index;
    }
    i
}

/// Whether the rows of a scan, or of one of its adjoints (which take the same tiles), cannot be split.
fn mixes_rows(tape: &Tape, i: u32) -> bool {
    let forward = |i| forward_of(tape, i);
    let family = forward(i);
    (0..tape.nodes.len() as u32)
        .any(|j| scan_of(tape, j).is_some_and(|op| forward(j) == family && step_mixes_rows(&op.step)))
}

/// Whether a step uses a sum over rows in a way that the parts of the tiles cannot be put together afterwards: they
/// can as long as sums are only added to sums and mapped linearly, and leave the step.
fn step_mixes_rows(step: &Step) -> bool {
    let mut live = vec![false; step.nodes.len()];
    let mut stack: Vec<Var> = step.carries.iter().map(|c| c.output).collect();
    stack.extend(step.ports.iter().filter_map(|p| match p.kind {
        PortKind::Stack(v) | PortKind::Sum(v) => Some(v),
        PortKind::Final(_) | PortKind::History(_) => None,
    }));
    while let Some(v) = stack.pop() {
        if !std::mem::replace(&mut live[v.index as usize], true) {
            stack.extend(&step.nodes[v.index as usize].inputs);
        }
    }
    let mut partial = vec![false; step.nodes.len()];
    for (i, node) in step.nodes.iter().enumerate().filter(|(i, _)| live[*i]) {
        let parts = node.inputs.iter().filter(|v| partial[v.index as usize]).count();
        if parts > 0 {
            let linear = matches!(&node.kind, NodeKind::Op(op) if op.is_linear());
            if !linear || parts < node.inputs.len() || node.ty.shape.lead.has_n() {
                return true;
            }
        }
        partial[i] = parts > 0 || is_reduction(step, i as u32);
    }
    step.carries.iter().any(|c| partial[c.output.index as usize])
}

/// Lowers a tape.
pub(crate) fn lower(tape: &Tape, outputs: &[Var], isa: Isa, keep: Keep, stash: Stash) -> Result<Outer> {
    let n = tape.nodes.len();
    let pairs_of = pairable(tape, outputs);
    let mut live = vec![false; n];
    let mut demands: HashMap<u32, Demand> = HashMap::new();
    let mut decisions: HashMap<u32, ScanDecision> = HashMap::new();
    let mut pairs: Vec<Pair> = Vec::new();
    for v in outputs {
        live[v.index as usize] = true;
    }
    for i in (0..n as u32).rev() {
        if !live[i as usize] {
            continue;
        }
        let node = &tape.nodes[i as usize];
        match &node.kind {
            NodeKind::Port(k) => {
                let scan = node.inputs[0].index;
                live[scan as usize] = true;
                demands.entry(scan).or_default().ports.insert(*k);
            }
            NodeKind::Scan(op) => {
                let demand = demands.remove(&i).unwrap_or_default();
                let mut decision = decide(tape, i, op, demand, &pairs_of, (keep, stash), &mut pairs)?;
                if let (Some(walk), Some(forward)) = (op.walk, op.adjoint_of) {
                    // Adjoints of one scan share what it keeps.
                    let shared = demands.get(&forward.index).and_then(|d| d.pair.clone());
                    decision.forward = walked(tape, op, forward.index, walk, shared, &mut pairs);
                }
                for &k in &decision.inputs {
                    live[node.inputs[k].index as usize] = true;
                }
                if let Some((forward, pair)) = &decision.forward {
                    live[*forward as usize] = true;
                    demands.entry(*forward).or_default().pair = Some(pair.clone());
                }
                decisions.insert(i, decision);
            }
            _ => match summed_port(tape, i) {
                Some((scan, port)) => {
                    live[scan as usize] = true;
                    demands.entry(scan).or_default().step_sums.push((port, i));
                }
                None => node.inputs.iter().for_each(|v| live[v.index as usize] = true),
            },
        }
    }

    // Depth: how many scans lie before a node.
    let mut depth = vec![0usize; n];
    let mut deepest = 0;
    for i in 0..n {
        if !live[i] {
            continue;
        }
        let node = &tape.nodes[i];
        let mut at = match summed_port(tape, i as u32) {
            Some((scan, _)) => depth[scan as usize] + 1,
            None => match &node.kind {
                NodeKind::Port(_) => depth[node.inputs[0].index as usize] + 1,
                NodeKind::Scan(_) => {
                    let d = &decisions[&(i as u32)];
                    d.inputs.iter().map(|&k| depth[node.inputs[k].index as usize]).max().unwrap_or(0)
                }
                _ => node.inputs.iter().map(|v| depth[v.index as usize]).max().unwrap_or(0),
            },
        };
        if let Some(d) = decisions.get(&(i as u32))
            && let Some((forward, _)) = d.forward
        {
            at = at.max(depth[forward as usize] + 1);
        }
        depth[i] = at;
        deepest = deepest.max(at);
    }

    let mut low = Lowerer::new(&tape.nodes, &live, isa, false);
    let (mut bound, mut constants) = (Vec::new(), Vec::new());
    for (i, node) in tape.nodes.iter().enumerate().filter(|(i, _)| live[*i]) {
        let (kind, label) = match &node.kind {
            NodeKind::Param(name) | NodeKind::Input(name) => {
                bound.push((name.clone(), node.ty.clone()));
                (BufKind::Bound(bound.len() - 1), name.clone())
            }
            NodeKind::Const(t) if t.len() == 1 && t.dtype().is_differentiable() => {
                let z = t.get(0);
                low.places.insert(i as u32, Place::Scalar { re: z.re, im: z.im });
                continue;
            }
            NodeKind::Const(t) => {
                constants.push(t.clone());
                (BufKind::Constant(constants.len() - 1), "constant".into())
            }
            _ => continue,
        };
        let buf = Buf {
            kind,
            dtype: node.ty.dtype,
            width: node.ty.shape.width(),
            lead: node.ty.shape.lead,
            unread: false,
            label,
        };
        let buf = low.add_buf(buf);
        let whole = low.whole(buf, &node.ty.shape.dims);
        low.places.insert(i as u32, Place::At(whole));
    }
    low.roots.extend(outputs.iter().map(|v| v.index));
    for i in (0..n).filter(|&i| live[i]) {
        if let Some(d) = decisions.get(&(i as u32)) {
            low.roots.extend(d.inputs.iter().map(|&k| tape.nodes[i].inputs[k].index));
        }
    }

    let mut items = Vec::new();
    let mut pair_lives = vec![(usize::MAX, 0); pairs.len()];
    for at in 0..=deepest {
        let list: Vec<u32> = (0..n as u32)
            .filter(|&i| {
                let op = matches!(tape.nodes[i as usize].kind, NodeKind::Op(_));
                live[i as usize] && depth[i as usize] == at && op && summed_port(tape, i).is_none()
            })
            .collect();
        let mut calls = Vec::new();
        low.lower(&list, &|_| true, &mut NoPacks, &mut calls)?;
        items.extend(calls.into_iter().map(|c| Item::Call(Box::new(c))));
        for i in (0..n as u32).filter(|&i| live[i as usize] && depth[i as usize] == at) {
            if let Some(decision) = decisions.get(&i) {
                let mut calls = Vec::new();
                let item = lower_scan(tape, i, decision, &decisions, isa, &mut low, &mut calls)?;
                items.extend(calls.into_iter().map(|c| Item::Call(Box::new(c))));
                if let Role::Forward(p) | Role::Adjoint(p) = item.role {
                    let here = items.len();
                    pair_lives[p] = (pair_lives[p].0.min(here), pair_lives[p].1.max(here));
                }
                items.push(Item::Scan(Box::new(item)));
            }
        }
    }

    let outputs = outputs
        .iter()
        .map(|v| {
            let place = low.places.get(&v.index).cloned();
            let place = place.ok_or_else(|| Error::argument("plan", "bug: an output without a place"))?;
            Ok((place, tape.nodes[v.index as usize].ty.clone()))
        })
        .collect::<Result<Vec<_>>>()?;
    let lives = liveness(&low.bufs, &items, &outputs);
    let scratch = items
        .iter()
        .map(|item| match item {
            Item::Call(c) => c.instr.scratch(),
            Item::Scan(_) => 0,
        })
        .max()
        .unwrap_or(0);
    Ok(Outer {
        bufs: low.bufs,
        items,
        outputs,
        bound,
        constants,
        pairs,
        lives,
        pair_lives,
        scratch,
        tables: None,
    })
}

/// The pair of a scan and an adjoint that walks its states back.
fn walked(
    tape: &Tape,
    adjoint: &ScanOp,
    forward: u32,
    walk: Walk,
    shared: Option<PairDemand>,
    pairs: &mut Vec<Pair>,
) -> Option<(u32, PairDemand)> {
    if let Some(pair) = shared {
        return Some((forward, pair));
    }
    let step = &scan_of(tape, forward)?.step;
    let carries: BTreeSet<usize> = (0..step.carries.len()).collect();
    let of = |k: usize| (step.ports[k].ty.dtype, step.ports[k].ty.shape.width());
    // What would be read of a record: the states, and what the adjoint computes of the step again.
    let again = |(i, node): &(usize, &Node)| {
        let computed =
            matches!(&node.kind, NodeKind::Op(op) if !matches!(op.class(), Class::Layout(_) | Class::Expand));
        computed && adjoint.step.rebuilds[*i].is_some() && node.ty.shape.lead.has_n()
    };
    let values: usize =
        adjoint.step.nodes.iter().enumerate().filter(again).map(|(_, node)| node.ty.entry_bytes()).sum();
    let states: usize = step.ports[..step.carries.len()].iter().map(|p| p.ty.entry_bytes()).sum();
    pairs.push(Pair {
        states: carries.iter().map(|&k| (k, of(k))).collect(),
        kept: Vec::new(),
        keep_names: Vec::new(),
        everything: states + values,
        walk: Some(walk),
    });
    Some((forward, PairDemand { pair: pairs.len() - 1, keeps: Vec::new(), carries }))
}

fn decide(
    tape: &Tape,
    i: u32,
    op: &ScanOp,
    demand: Demand,
    pairs_of: &HashMap<u32, u32>,
    (keep, stash): (Keep, Stash),
    pairs: &mut Vec<Pair>,
) -> Result<ScanDecision> {
    let step = &op.step;
    let (mut stacks, mut sums, mut finals) = (Vec::new(), Vec::new(), Vec::new());
    for &p in &demand.ports {
        match step.ports[p].kind {
            PortKind::Final(k) => finals.push((k, p)),
            PortKind::History(k) => stacks.push((p, step.carries[k].input)),
            PortKind::Stack(v) => stacks.push((p, v)),
            PortKind::Sum(v) => sums.push((SumTo::Port(p), v)),
        }
    }
    for (port, node) in demand.step_sums {
        if let PortKind::Stack(v) = step.ports[port].kind {
            sums.push((SumTo::Node(node), v));
        }
    }
    let mut request = Request {
        step,
        reverse: op.reverse,
        isa: Isa::detect(),
        stacks: stacks.iter().map(|s| s.1).collect(),
        sums: sums.iter().map(|s| s.1).collect(),
        keeps: demand.pair.as_ref().map(|p| p.keeps.clone()).unwrap_or_default(),
        carries: finals.iter().map(|f| f.0).collect(),
        saved: HashMap::new(),
        saved_reverse: false,
    };
    if let Some(pair) = &demand.pair {
        request.carries.extend(&pair.carries);
    }
    let mut forward = None;
    if let Some(f) = op.adjoint_of
        && pairs_of.get(&f.index) == Some(&i)
        && let Some(fop) = scan_of(tape, f.index)
    {
        let (live, _) = live_nodes(&request);
        let kept = keep::choose(&fop.step, step, &live, keep, stash);
        request.saved = kept.saved;
        request.saved_reverse = fop.reverse;
        // Only what the adjoint still reads.
        let (live, _) = live_nodes(&request);
        let mut carries = BTreeSet::new();
        let mut used = vec![false; kept.keeps.len()];
        for (node, saved) in &request.saved {
            match *saved {
                Saved::State { carry, .. } if live[*node as usize] => {
                    carries.insert(carry);
                }
                Saved::Kept(k) => used[k] |= live[*node as usize],
                _ => {}
            }
        }
        debug_assert!(used.iter().all(|u| *u), "bug: a value is kept that the adjoint does not read");
        let fnode = |v: &Var| &fop.step.nodes[v.index as usize];
        // Replaying a segment needs every state the states depend on.
        let closure = Request {
            step: &fop.step,
            reverse: fop.reverse,
            isa: Isa::detect(),
            stacks: vec![],
            sums: vec![],
            keeps: kept.keeps.clone(),
            carries: carries.clone(),
            saved: HashMap::new(),
            saved_reverse: false,
        };
        let (_, carries) = live_nodes(&closure);
        pairs.push(Pair {
            states: carries
                .iter()
                .map(|&k| {
                    let ty = &fop.step.ports[k].ty;
                    (k, (ty.dtype, ty.shape.width()))
                })
                .collect(),
            kept: kept
                .keeps
                .iter()
                .map(|v| (fnode(v).ty.dtype, fnode(v).ty.shape.width(), fnode(v).ty.shape.lead.has_n()))
                .collect(),
            keep_names: kept.keeps.iter().map(|v| name_of(fnode(v))).collect(),
            everything: kept.everything,
            walk: None,
        });
        let demand = PairDemand { pair: pairs.len() - 1, keeps: kept.keeps, carries };
        forward = Some((f.index, demand));
    }
    let (live, carries) = live_nodes(&request);
    let computes = |node: &Node| match &node.kind {
        NodeKind::Op(op) => !matches!(op.class(), Class::Layout(_) | Class::Expand),
        _ => false,
    };
    let rebuilt = (0..step.nodes.len())
        .filter(|&j| live[j] && step.rebuilds[j].is_some() && !request.saved.contains_key(&(j as u32)))
        .map(|j| &step.nodes[j])
        .filter(|node| computes(node))
        .map(name_of)
        .collect();
    let mut inputs: BTreeSet<usize> = carries.clone();
    for (j, node) in step.nodes.iter().enumerate() {
        if !live[j] || request.saved.contains_key(&(j as u32)) {
            continue;
        }
        match node.kind {
            NodeKind::X(k) => {
                inputs.insert(step.carries.len() + k);
            }
            NodeKind::Captured(k) => {
                inputs.insert(step.carries.len() + step.xs.len() + k);
            }
            _ => {}
        }
    }
    Ok(ScanDecision {
        stacks,
        sums,
        finals,
        saved: request.saved,
        saved_reverse: request.saved_reverse,
        forward,
        recorded: demand.pair,
        inputs,
        rebuilt,
    })
}

fn request<'a>(op: &'a ScanOp, d: &ScanDecision, isa: Isa, outputs: bool, record: bool) -> Request<'a> {
    let mut r = Request {
        step: &op.step,
        reverse: op.reverse,
        isa,
        stacks: vec![],
        sums: vec![],
        keeps: vec![],
        carries: BTreeSet::new(),
        saved: d.saved.clone(),
        saved_reverse: d.saved_reverse,
    };
    if outputs {
        r.stacks = d.stacks.iter().map(|s| s.1).collect();
        r.sums = d.sums.iter().map(|s| s.1).collect();
        r.carries = d.finals.iter().map(|f| f.0).collect();
    }
    if let Some(pair) = &d.recorded {
        r.carries.extend(&pair.carries);
        if record {
            r.keeps = pair.keeps.clone();
        }
    }
    r
}

/// Bytes of the largest matrix that the steps of a scan, or of the one it is the adjoint of, multiply by.
fn family_matrix(tape: &Tape, i: u32) -> usize {
    let Some(op) = scan_of(tape, forward_of(tape, i)) else { return 0 };
    let of = |node: &Node| match &node.kind {
        NodeKind::Op(o) if matches!(o.class(), Class::MatMul(_)) => {
            op.step.nodes[node.inputs[1].index as usize].ty.entry_bytes()
        }
        _ => 0,
    };
    op.step.nodes.iter().map(of).max().unwrap_or(0)
}

/// About how many bytes of a row's values the adjoint of a step has at once: five of the size of its states, but at least
/// what its products take and give, which their gradients read at the end of a chunk.
fn family_values(tape: &Tape, i: u32) -> usize {
    let Some(op) = scan_of(tape, forward_of(tape, i)) else { return 0 };
    let states: usize = op.step.ports[..op.step.carries.len()].iter().map(|p| p.ty.entry_bytes()).sum();
    let of = |node: &Node| match &node.kind {
        NodeKind::Op(o) if matches!(o.class(), Class::MatMul(_)) && node.ty.shape.lead.has_n() => {
            op.step.nodes[node.inputs[0].index as usize].ty.entry_bytes() + node.ty.entry_bytes()
        }
        _ => 0,
    };
    let products: usize = op.step.nodes.iter().map(of).sum();
    products.max(states.saturating_mul(5))
}

fn lower_scan(
    tape: &Tape,
    i: u32,
    d: &ScanDecision,
    decisions: &HashMap<u32, ScanDecision>,
    isa: Isa,
    low: &mut Lowerer<'_>,
    calls: &mut Vec<Call>,
) -> Result<ScanItem> {
    let node = &tape.nodes[i as usize];
    let op = scan_of(tape, i).ok_or_else(|| Error::argument("plan", "bug: not a scan"))?;
    let mixes = mixes_rows(tape, i);
    let plan = |op: &ScanOp, d: &ScanDecision, outputs: bool, record: bool| -> Result<StepProgram> {
        let mut program = plan_step(&request(op, d, isa, outputs, record))?;
        program.mixes_rows = mixes;
        Ok(program)
    };
    let run = plan(op, d, true, true)?;
    let mut role = Role::Plain;
    let mut sweep = None;
    if let Some(pair) = &d.recorded {
        role = Role::Forward(pair.pair);
        if op.step.inverse.is_none() {
            sweep = Some(plan(op, d, true, false)?);
        }
    }
    let mut inputs = BTreeMap::new();
    for &k in &d.inputs {
        inputs.insert(k, input_operand(tape, low, node.inputs[k], calls)?);
    }
    let mut packs = HashMap::new();
    add_packs(tape, low, isa, &run, &node.inputs, &mut packs, calls)?;
    if let Some(sweep) = &sweep {
        add_packs(tape, low, isa, sweep, &node.inputs, &mut packs, calls)?;
    }
    let mut replay = None;
    if let Some((_, pair)) = &d.forward {
        role = Role::Adjoint(pair.pair);
    }
    if let Some((f, _)) = d.forward.as_ref().filter(|_| op.walk.is_none()) {
        let fop = scan_of(tape, *f).ok_or_else(|| Error::argument("plan", "bug: not a scan"))?;
        let fd = &decisions[f];
        let (advance, record) = (plan(fop, fd, false, false)?, plan(fop, fd, false, true)?);
        let fnode = &tape.nodes[*f as usize];
        let mut finputs = BTreeMap::new();
        let mut fpacks = HashMap::new();
        for program in [&advance, &record] {
            for e in &program.externals {
                if let External::Input(k) = e {
                    finputs.insert(*k, input_operand(tape, low, fnode.inputs[*k], calls)?);
                }
            }
            add_packs(tape, low, isa, program, &fnode.inputs, &mut fpacks, calls)?;
        }
        replay = Some(Replay { advance, record, inputs: finputs, packs: fpacks });
    }

    // Outputs.
    let mut out_buf = |ty: &Ty, label: &str| {
        let (lead, width) = (ty.shape.lead, ty.shape.width());
        let buf =
            Buf { kind: BufKind::Temp, dtype: ty.dtype, width, lead, unread: false, label: label.into() };
        let buf = low.add_buf(buf);
        low.whole(buf, &ty.shape.dims)
    };
    let port_var = |p: usize| i + 1 + p as u32;
    let mut placed = Vec::new();
    let mut outs = Vec::new();
    for (p, _) in &d.stacks {
        let o = out_buf(&op.step.ports[*p].ty, "stacked output");
        placed.push((port_var(*p), o.clone()));
        outs.push(o);
    }
    let mut sums = Vec::new();
    for (to, v) in &d.sums {
        let ty = &op.step.nodes[v.index as usize].ty;
        let ty = Ty::new(ty.dtype, Shape { lead: ty.shape.lead, dims: ty.shape.dims.clone() });
        let o = out_buf(&ty, "sum over time");
        placed.push((
            match to {
                SumTo::Port(p) => port_var(*p),
                SumTo::Node(n) => *n,
            },
            o.clone(),
        ));
        sums.push(o);
    }
    let mut finals = Vec::new();
    for (k, p) in &d.finals {
        let o = out_buf(&op.step.ports[*p].ty, "last state");
        placed.push((port_var(*p), o.clone()));
        finals.push((*k, o));
    }
    for (v, o) in placed {
        low.places.insert(v, Place::At(o));
    }
    Ok(ScanItem {
        role,
        run,
        sweep,
        replay,
        walked_from: op
            .walk
            .and(d.forward.as_ref())
            .and_then(|(f, _)| Some(scan_of(tape, *f)?.step.carries.len())),
        inputs,
        packs,
        outs,
        sums,
        finals,
        reverse: op.reverse,
        mixes_rows: mixes,
        block_rows: None,
        team: 1,
        value_bytes: family_values(tape, i),
        matrix_bytes: family_matrix(tape, i),
        label: node.label.clone().unwrap_or_else(|| "scan".into()),
        rebuilt: d.rebuilt.clone(),
    })
}

fn input_operand(tape: &Tape, low: &mut Lowerer<'_>, v: Var, calls: &mut Vec<Call>) -> Result<Operand> {
    match low.places.get(&v.index).cloned() {
        Some(Place::At(o)) => Ok(o),
        Some(Place::Scalar { re, im }) => {
            let ty = &tape.nodes[v.index as usize].ty;
            let ty = Ty::new(ty.dtype, Shape::shared(&ty.shape.dims));
            let out = low.fresh(&ty, false, "constant".into());
            let over = Over { steps: false, rows: false };
            calls.push(Call { instr: super::ir::Instr::Fill { out: out.clone(), re, im }, over, flops: 0.0 });
            low.places.insert(v.index, Place::At(out.clone()));
            Ok(out)
        }
        None => Err(Error::argument("plan", format!("bug: input {} of a scan has no place", v.index))),
    }
}

fn add_packs(
    tape: &Tape,
    low: &mut Lowerer<'_>,
    isa: Isa,
    program: &StepProgram,
    inputs: &[Var],
    packs: &mut HashMap<(usize, bool), Operand>,
    calls: &mut Vec<Call>,
) -> Result<()> {
    for e in &program.externals {
        let External::Packed { input, transpose, k, m, dtype } = *e else { continue };
        if packs.contains_key(&(input, transpose)) {
            continue;
        }
        let b = input_operand(tape, low, inputs[input], calls)?;
        let buf = packed_buf(isa, dtype, k, m, BufKind::Temp);
        let dims = Dims::from_slice(&[buf.width]);
        let buf = low.add_buf(buf);
        let out = low.whole(buf, &dims);
        let over = Over { steps: false, rows: false };
        let instr = super::ir::Instr::Pack { b, out: out.clone(), transpose, k, m };
        calls.push(Call { instr, over, flops: 0.0 });
        packs.insert((input, transpose), out);
    }
    Ok(())
}

/// Operands of the outer program that an item touches.
pub(crate) fn touched(item: &Item) -> Vec<&Operand> {
    match item {
        Item::Call(call) => call.instr.reads().into_iter().chain(call.instr.writes()).collect(),
        Item::Scan(s) => {
            let own = s.inputs.values().chain(s.packs.values()).chain(&s.outs).chain(&s.sums);
            let mut all: Vec<&Operand> = own.chain(s.finals.iter().map(|f| &f.1)).collect();
            if let Some(r) = &s.replay {
                all.extend(r.inputs.values().chain(r.packs.values()));
            }
            all
        }
    }
}

pub(crate) fn liveness(bufs: &[Buf], items: &[Item], outputs: &[(Place, Ty)]) -> Vec<Option<(usize, usize)>> {
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; bufs.len()];
    let mut touch = |buf: usize, at: usize| {
        lives[buf] = Some(match lives[buf] {
            Some((a, b)) => (a.min(at), b.max(at)),
            None => (at, at),
        });
    };
    for (at, item) in items.iter().enumerate() {
        touched(item).into_iter().for_each(|o| touch(o.buf, at));
    }
    for (place, _) in outputs {
        if let Place::At(o) = place {
            touch(o.buf, items.len());
        }
    }
    for (i, b) in bufs.iter().enumerate() {
        // Bound values and constants live from the start.
        if matches!(b.kind, BufKind::Bound(_) | BufKind::Constant(_))
            && let Some((a, _)) = &mut lives[i]
        {
            *a = 0;
        }
    }
    lives
}
