//! Planning a step: which loop or batched stage every node belongs to, and the calls of each stage.
//!
//! The states of a step depend on each other; states that depend on each other in a circle form one loop. The
//! loops are ordered by dependency, and everything that lies on no path from a state to a state of the same loop
//! runs in a *batched* stage before, between or after the loops, over a whole chunk of steps at once. With one
//! loop this is *ahead*, *carry* and *after*; a stack of layers gets a loop for each layer, and the input
//! product of a layer is batched although it depends on the layer below.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::ir::{Buf, BufId, BufKind, Call, Instr, Operand, Over, Place};
use super::lower::{Lowerer, Packs, packed_buf, scales};
use crate::cpu::Isa;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::kernel::RowRule;
use crate::op::Class;
use crate::scan::Step;
use crate::shape::{Dims, Lead};
use crate::tape::{NodeKind, Var};

/// Something of the enclosing program that a step reads or writes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum External {
    /// Input number of the scan (states, sequences, captured values in that order).
    Input(usize),
    /// The packed form of a captured matrix.
    Packed { input: usize, transpose: bool, k: usize, m: usize, dtype: DType },
    /// Stacked output number.
    Out(usize),
}

/// What stands for a node that is read back instead of computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Saved {
    /// State number before (or after) the step of the scan this one is the adjoint of.
    State { carry: usize, after: bool },
    /// Kept value number.
    Kept(usize),
}

/// What a step is asked for.
pub(crate) struct Request<'a> {
    pub(crate) step: &'a Step,
    pub(crate) reverse: bool,
    pub(crate) isa: Isa,
    /// Values stacked over time.
    pub(crate) stacks: Vec<Var>,
    /// Values summed over time.
    pub(crate) sums: Vec<Var>,
    /// Values to keep for the adjoint.
    pub(crate) keeps: Vec<Var>,
    /// States wanted at the end or for the adjoint.
    pub(crate) carries: BTreeSet<usize>,
    /// Nodes read back, and the direction of the scan they belong to.
    pub(crate) saved: HashMap<u32, Saved>,
    pub(crate) saved_reverse: bool,
}

/// A part of a chunk's work.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// Over all steps of the chunk at once.
    Batched(Vec<Call>),
    /// Step by step.
    Loop(Vec<Call>),
}

impl Stage {
    pub(crate) fn calls(&self) -> &[Call] {
        match self {
            Stage::Batched(calls) | Stage::Loop(calls) => calls,
        }
    }
}

/// A running sum or a stack of values without rows, and whether tiles contribute parts of it.
#[derive(Clone, Debug)]
pub(crate) struct Collected {
    pub(crate) buf: BufId,
    /// Each tile has its own rows (a sum with a row axis).
    pub(crate) rows: bool,
    /// Each tile has a part of the sum; otherwise all tiles have the same.
    pub(crate) partial: bool,
}

/// A planned step.
#[derive(Clone, Debug)]
pub(crate) struct StepProgram {
    pub(crate) bufs: Vec<Buf>,
    pub(crate) stages: Vec<Stage>,
    pub(crate) externals: Vec<External>,
    /// Buffers of the states it carries, by number of the state.
    pub(crate) states: BTreeMap<usize, BufId>,
    pub(crate) sums: Vec<Collected>,
    /// Stacked outputs without rows: output number and buffer.
    pub(crate) shared_stacks: Vec<(usize, Collected)>,
    pub(crate) reverse: bool,
    /// Whether rows of the batch depend on each other, so that they cannot be split over tiles.
    pub(crate) mixes_rows: bool,
    /// First and last call in which each temporary buffer lives.
    pub(crate) lives: Vec<Option<(usize, usize)>>,
    /// Real elements of scratch memory.
    pub(crate) scratch: usize,
}

impl StepProgram {
    pub(crate) fn shift_before(reverse: bool) -> usize {
        usize::from(reverse)
    }
    pub(crate) fn shift_after(reverse: bool) -> usize {
        usize::from(!reverse)
    }
}

struct StepPacks<'a> {
    step: &'a Step,
    isa: Isa,
    externals: &'a mut Vec<External>,
}

impl Packs for StepPacks<'_> {
    fn outside(
        &mut self,
        bufs: &mut Vec<Buf>,
        b: u32,
        transpose: bool,
        k: usize,
        m: usize,
    ) -> Option<Operand> {
        let node = &self.step.nodes[b as usize];
        let NodeKind::Captured(c) = node.kind else { return None };
        let input = self.step.carries.len() + self.step.xs.len() + c;
        let external = External::Packed { input, transpose, k, m, dtype: node.ty.dtype };
        let kind = BufKind::External(self.externals.len());
        self.externals.push(external);
        let buf = packed_buf(self.isa, node.ty.dtype, k, m, kind);
        let dims = Dims::from_slice(&[buf.width]);
        bufs.push(buf);
        Some(Operand { buf: bufs.len() - 1, col: 0, dims, shift: 0 })
    }
}

/// Whether node `i` sums over rows.
pub(crate) fn is_reduction(step: &Step, i: u32) -> bool {
    match &step.nodes[i as usize].kind {
        NodeKind::Op(op) => match op.class() {
            Class::RowContract(_) => true,
            Class::Structured(s) => s.rows() == RowRule::Reduce,
            _ => false,
        },
        _ => false,
    }
}

/// Nodes a request needs, and the states.
pub(crate) fn live_nodes(r: &Request<'_>) -> (Vec<bool>, BTreeSet<usize>) {
    let step = r.step;
    let mut live = vec![false; step.nodes.len()];
    let mut carries = BTreeSet::new();
    let mut stack: Vec<Var> = r.stacks.iter().chain(&r.sums).chain(&r.keeps).copied().collect();
    let mut wanted: Vec<usize> = r.carries.iter().copied().collect();
    loop {
        while let Some(v) = stack.pop() {
            if std::mem::replace(&mut live[v.index as usize], true) || r.saved.contains_key(&v.index) {
                continue;
            }
            let node = &step.nodes[v.index as usize];
            if let NodeKind::Carry(i) = node.kind {
                wanted.push(i);
            }
            stack.extend(&node.inputs);
        }
        match wanted.pop() {
            Some(i) => {
                if carries.insert(i) {
                    stack.push(step.carries[i].output);
                    stack.push(step.carries[i].input);
                }
            }
            None => return (live, carries),
        }
    }
}

/// Which stage each node runs in: even numbers are batched, odd ones are loops.
struct Strata {
    stage: Vec<usize>,
    /// First batched stage in which a state is known for all steps.
    carry_avail: BTreeMap<usize, usize>,
    in_loop: Vec<bool>,
    carry_loop: BTreeMap<usize, usize>,
}

fn strata(r: &Request<'_>, live: &[bool], carries: &BTreeSet<usize>) -> Result<Strata> {
    let step = r.step;
    if step.carries.len() > 128 {
        let got = step.carries.len();
        return Err(Error::shape("scan", "number of state parts", "at most 128", got));
    }
    let is_source = |i: usize| r.saved.contains_key(&(i as u32));
    let made = |i: usize| matches!(step.nodes[i].kind, NodeKind::Op(_) | NodeKind::Carry(_));
    let n = step.nodes.len();
    let mut depends = vec![0u128; n];
    for (i, node) in step.nodes.iter().enumerate().filter(|(i, _)| live[*i] && !is_source(*i)) {
        depends[i] = match node.kind {
            NodeKind::Carry(k) => 1 << k,
            _ => node.inputs.iter().fold(0, |d, v| d | depends[v.index as usize]),
        };
    }
    let mut reaches = vec![0u128; n];
    for &k in carries {
        reaches[step.carries[k].output.index as usize] |= 1 << k;
    }
    for i in (0..n).rev().filter(|&i| live[i] && !is_source(i)) {
        for v in &step.nodes[i].inputs {
            reaches[v.index as usize] |= reaches[i];
        }
    }
    // after[k]: states that state k's next value depends on, through any number of steps.
    let mut after: BTreeMap<usize, u128> =
        carries.iter().map(|&k| (k, depends[step.carries[k].output.index as usize])).collect();
    for &via in carries {
        let through = after[&via];
        for set in after.values_mut() {
            if *set >> via & 1 == 1 {
                *set |= through;
            }
        }
    }
    // The circle of each state that depends on itself, as a set.
    let circle: BTreeMap<usize, u128> = carries
        .iter()
        .filter(|&&k| after[&k] >> k & 1 == 1)
        .map(|&k| {
            let set = carries
                .iter()
                .filter(|&&j| after[&k] >> j & 1 == 1 && after[&j] >> k & 1 == 1)
                .fold(0u128, |s, &j| s | 1 << j);
            (k, set)
        })
        .collect();
    let loop_of =
        |i: usize| circle.values().copied().find(|&set| depends[i] & set != 0 && reaches[i] & set != 0);

    let mut loop_stage: BTreeMap<u128, usize> = circle.values().map(|&set| (set, 1)).collect();
    let mut stage = vec![0usize; n];
    let mut avail_carry: BTreeMap<usize, usize> = carries.iter().map(|&k| (k, 0)).collect();
    for _ in 0..2 * carries.len() + 2 {
        let before = (stage.clone(), loop_stage.clone(), avail_carry.clone());
        for (i, node) in step.nodes.iter().enumerate().filter(|(i, _)| live[*i]) {
            if is_source(i) {
                continue;
            }
            if let NodeKind::Carry(k) = node.kind {
                stage[i] = avail_carry[&k];
                continue;
            }
            let own = loop_of(i);
            let mut at = 0;
            for v in &node.inputs {
                let j = v.index as usize;
                if is_source(j) {
                    continue;
                }
                let of = match step.nodes[j].kind {
                    NodeKind::Carry(k) => circle.get(&k).copied(),
                    _ => loop_of(j),
                };
                if own.is_some() && of == own {
                    continue;
                }
                at = at.max(match of {
                    Some(set) => loop_stage[&set] + 1,
                    None => stage[j],
                });
            }
            match own {
                Some(set) => {
                    if let Some(s) = loop_stage.get_mut(&set) {
                        *s = (*s).max(at + 1);
                    }
                    stage[i] = loop_stage[&set];
                }
                None => stage[i] = at,
            }
        }
        for &k in carries {
            let out = step.carries[k].output.index as usize;
            let at = match circle.get(&k) {
                Some(set) => loop_stage[set] + 1,
                None if is_source(out) => 0,
                None => match loop_of(out) {
                    Some(set) => loop_stage[&set] + 1,
                    // What the step makes in a batched stage is known in the next one: within the stage it may be read before
                    // it is written. What is there before the step is copied first.
                    None if made(out) => stage[out] + 2,
                    None => stage[out],
                },
            };
            avail_carry.insert(k, at);
        }
        if before == (stage.clone(), loop_stage.clone(), avail_carry.clone()) {
            break;
        }
    }
    let mut in_loop = vec![false; n];
    for i in 0..n {
        if live[i]
            && !is_source(i)
            && !matches!(step.nodes[i].kind, NodeKind::Carry(_))
            && let Some(set) = loop_of(i)
        {
            stage[i] = loop_stage[&set];
            in_loop[i] = true;
        }
    }
    let carry_loop = circle.iter().map(|(&k, set)| (k, loop_stage[set])).collect();
    let mut strata = Strata { stage, carry_avail: avail_carry, in_loop, carry_loop };
    sink(r, live, carries, &mut strata);
    Ok(strata)
}

/// Moves pointwise values from batched stages into the loop that is their only user, where they need not be written
/// to memory and read again: if what they are computed from is no larger than what the loop reads of them. Views go
/// along.
fn sink(r: &Request<'_>, live: &[bool], carries: &BTreeSet<usize>, strata: &mut Strata) {
    let step = r.step;
    let n = step.nodes.len();
    let is_source = |i: usize| r.saved.contains_key(&(i as u32));
    // Nodes to be found elsewhere than in a loop.
    let mut pinned = vec![false; n];
    r.stacks.iter().chain(&r.sums).chain(&r.keeps).for_each(|v| pinned[v.index as usize] = true);
    carries.iter().for_each(|&k| pinned[step.carries[k].output.index as usize] = true);
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); n];
    for (i, node) in step.nodes.iter().enumerate().filter(|(i, _)| live[*i] && !is_source(*i)) {
        node.inputs.iter().for_each(|v| users[v.index as usize].push(i));
    }
    // The loop that every use of a pointwise node leads to.
    let mut to: Vec<Option<usize>> = vec![None; n];
    for i in (0..n).rev().filter(|&i| live[i] && !is_source(i) && !pinned[i] && !strata.in_loop[i]) {
        let node = &step.nodes[i];
        let movable = matches!(&node.kind, NodeKind::Op(op)
            if matches!(op.class(), Class::Pointwise(_) | Class::Layout(_) | Class::Expand)
                || scales(&step.nodes, node).is_some());
        if !movable || !node.ty.shape.lead.has_n() {
            continue;
        }
        let loop_of = |&u: &usize| if strata.in_loop[u] { Some(strata.stage[u]) } else { to[u] };
        let mut loops = users[i].iter().map(loop_of);
        if let Some(Some(first)) = loops.next()
            && loops.all(|l| l == Some(first))
        {
            to[i] = Some(first);
        }
    }
    // Groups of them that are connected.
    let mut group: Vec<usize> = (0..n).collect();
    for i in (0..n).filter(|&i| to[i].is_some()) {
        for v in &step.nodes[i].inputs {
            let j = v.index as usize;
            if to[j] == to[i] {
                let (from, into) = (group[j], group[i]);
                group.iter_mut().filter(|g| **g == from).for_each(|g| *g = into);
            }
        }
    }
    let groups: BTreeSet<usize> = (0..n).filter(|&i| to[i].is_some()).map(|i| group[i]).collect();
    // A group that sinks may bring in what makes another one worth it.
    let mut waiting = groups;
    while let Some(g) = waiting
        .iter()
        .copied()
        .find(|&g| worth_sinking(step, &users, &strata.in_loop, &|i| to[i].is_some() && group[i] == g))
    {
        waiting.remove(&g);
        for i in (0..n).filter(|&i| to[i].is_some() && group[i] == g) {
            strata.stage[i] = to[i].unwrap_or(strata.stage[i]);
            strata.in_loop[i] = true;
        }
    }
}

/// Whether the values in the group are computed from no more bytes than the loop reads of them, not counting what the
/// loop reads anyway.
fn worth_sinking(
    step: &Step,
    users: &[Vec<usize>],
    in_loop: &[bool],
    member: &dyn Fn(usize) -> bool,
) -> bool {
    let bytes = |i: usize| step.nodes[i].ty.entry_bytes();
    let members: Vec<usize> = (0..step.nodes.len()).filter(|&i| member(i)).collect();
    let read_by_loop = |i: usize| users[i].iter().any(|&u| in_loop[u]);
    let read: usize = members.iter().filter(|&&i| read_by_loop(i)).map(|&i| bytes(i)).sum();
    let inputs: BTreeSet<usize> = (members.iter().flat_map(|&i| &step.nodes[i].inputs))
        .map(|v| v.index as usize)
        .filter(|&j| !member(j) && step.nodes[j].ty.shape.lead.has_n() && !read_by_loop(j))
        .collect();
    inputs.iter().map(|&j| bytes(j)).sum::<usize>() <= read
}

/// Plans a step.
pub(crate) fn plan_step(r: &Request<'_>) -> Result<StepProgram> {
    let step = r.step;
    let (live, carries) = live_nodes(r);
    let strata = strata(r, &live, &carries)?;
    let mut low = Lowerer::new(&step.nodes, &live, r.isa, true);
    let mut externals = Vec::new();
    let (before, after) = (StepProgram::shift_before(r.reverse), StepProgram::shift_after(r.reverse));

    // Buffers of states and placeholders.
    let mut states = BTreeMap::new();
    for &k in &carries {
        let node = &step.nodes[step.carries[k].input.index as usize];
        let buf = low.add_buf(Buf {
            kind: BufKind::State(k),
            dtype: node.ty.dtype,
            width: node.ty.shape.width(),
            lead: Lead::TN,
            unread: false,
            label: node.label.clone().unwrap_or_else(|| format!("state {k}")),
        });
        states.insert(k, buf);
    }
    let mut saved_bufs: HashMap<(bool, usize), BufId> = HashMap::new();
    for (i, node) in step.nodes.iter().enumerate().filter(|(i, _)| live[*i]) {
        let dims = &node.ty.shape.dims;
        let buf = |kind: BufKind, lead: Lead| Buf {
            kind,
            dtype: node.ty.dtype,
            width: node.ty.shape.width(),
            lead,
            unread: false,
            label: node.label.clone().unwrap_or_default(),
        };
        let place = if let Some(saved) = r.saved.get(&(i as u32)) {
            let (key, kind, shift) = match *saved {
                Saved::State { carry, after } => {
                    let shift = if after {
                        StepProgram::shift_after(r.saved_reverse)
                    } else {
                        StepProgram::shift_before(r.saved_reverse)
                    };
                    ((true, carry), BufKind::KeptState(carry), shift)
                }
                Saved::Kept(k) => ((false, k), BufKind::Kept(k), 0),
            };
            let buf = match saved_bufs.get(&key) {
                Some(&b) => b,
                None => {
                    let lead = Lead::from_axes(true, node.ty.shape.lead.has_n());
                    let b = low.add_buf(buf(kind, lead));
                    saved_bufs.insert(key, b);
                    b
                }
            };
            Place::At(Operand { buf, col: 0, dims: dims.clone(), shift })
        } else {
            match &node.kind {
                NodeKind::Carry(k) => {
                    Place::At(Operand { buf: states[k], col: 0, dims: dims.clone(), shift: before })
                }
                NodeKind::X(j) => {
                    let kind = BufKind::External(externals.len());
                    externals.push(External::Input(step.carries.len() + j));
                    let b = low.add_buf(buf(kind, node.ty.shape.lead.join(Lead::T)));
                    Place::At(low.whole(b, dims))
                }
                NodeKind::Captured(c) => {
                    let kind = BufKind::External(externals.len());
                    externals.push(External::Input(step.carries.len() + step.xs.len() + c));
                    let b = low.add_buf(buf(kind, node.ty.shape.lead));
                    Place::At(low.whole(b, dims))
                }
                NodeKind::Const(t) => {
                    let z = t.get(0);
                    Place::Scalar { re: z.re, im: z.im }
                }
                _ => continue,
            }
        };
        low.places.insert(i as u32, place);
    }

    // Where results go. The first demand on a value is its destination, the others are copies.
    let mut partial = vec![false; step.nodes.len()];
    for (i, node) in step.nodes.iter().enumerate().filter(|(i, _)| live[*i]) {
        let rows_in = node.inputs.iter().any(|v| step.nodes[v.index as usize].ty.shape.lead.has_n());
        partial[i] = (is_reduction(step, i as u32) && rows_in)
            || (!node.ty.shape.lead.has_n() && node.inputs.iter().any(|v| partial[v.index as usize]));
    }
    let mut copies: Vec<(Var, Operand)> = Vec::new();
    let mut shared_stacks = Vec::new();
    let mut demand = |low: &mut Lowerer<'_>, v: Var, out: Operand| {
        let plain_op = !r.saved.contains_key(&v.index)
            && match &step.nodes[v.index as usize].kind {
                NodeKind::Op(op) => !matches!(op.class(), Class::Expand),
                _ => false,
            };
        if plain_op && !low.dest.contains_key(&v.index) {
            low.dest.insert(v.index, out);
        } else {
            copies.push((v, out));
        }
    };
    for (k, &v) in r.stacks.iter().enumerate() {
        let ty = &step.nodes[v.index as usize].ty;
        let kind = if ty.shape.lead.has_n() {
            externals.push(External::Out(k));
            BufKind::External(externals.len() - 1)
        } else {
            BufKind::SharedStack(shared_stacks.len())
        };
        let lead = ty.shape.lead.join(Lead::T);
        let width = ty.shape.width();
        let buf =
            low.add_buf(Buf { kind, dtype: ty.dtype, width, lead, unread: false, label: "output".into() });
        if !ty.shape.lead.has_n() {
            shared_stacks.push((k, Collected { buf, rows: false, partial: partial[v.index as usize] }));
        }
        let out = low.whole(buf, &ty.shape.dims);
        demand(&mut low, v, out);
    }
    for (k, &v) in r.keeps.iter().enumerate() {
        let ty = &step.nodes[v.index as usize].ty;
        let lead = Lead::from_axes(true, ty.shape.lead.has_n());
        let label = step.nodes[v.index as usize].label.clone().unwrap_or_else(|| format!("kept {k}"));
        let buf = low.add_buf(Buf {
            kind: BufKind::Kept(k),
            dtype: ty.dtype,
            width: ty.shape.width(),
            lead,
            unread: false,
            label,
        });
        let out = low.whole(buf, &ty.shape.dims);
        demand(&mut low, v, out);
    }
    for &k in &carries {
        let v = step.carries[k].output;
        let dims = step.nodes[v.index as usize].ty.shape.dims.clone();
        demand(&mut low, v, Operand { buf: states[&k], col: 0, dims, shift: after });
    }
    let mut sums = Vec::new();
    let mut accumulated: Vec<(Var, Operand)> = Vec::new();
    for (s, &v) in r.sums.iter().enumerate() {
        if let Some(first) = r.sums[..s].iter().position(|&u| u == v) {
            let again: Collected = Collected::clone(&sums[first]);
            sums.push(again);
            continue;
        }
        let ty = &step.nodes[v.index as usize].ty;
        let rows = ty.shape.lead.has_n();
        let lead = Lead::from_axes(false, rows);
        let width = ty.shape.width();
        let buf = low.add_buf(Buf {
            kind: BufKind::Sum(s),
            dtype: ty.dtype,
            width,
            lead,
            unread: false,
            label: "sum".into(),
        });
        let out = low.whole(buf, &ty.shape.dims);
        sums.push(Collected { buf, rows, partial: partial[v.index as usize] });
        let used_inside = (0..step.nodes.len())
            .any(|i| live[i] && step.nodes[i].inputs.contains(&v) && !r.saved.contains_key(&(i as u32)));
        let direct = is_reduction(step, v.index)
            && !r.saved.contains_key(&v.index)
            && !used_inside
            && !low.dest.contains_key(&v.index)
            && !low.sums.contains_key(&v.index);
        if direct {
            low.sums.insert(v.index, out);
        } else {
            accumulated.push((v, out));
        }
    }
    for (v, _) in copies.iter().chain(&accumulated) {
        low.roots.insert(v.index);
    }

    // Calls of each stage.
    let mut by_stage: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for i in 0..step.nodes.len() {
        let op = matches!(step.nodes[i].kind, NodeKind::Op(_));
        if live[i] && op && !r.saved.contains_key(&(i as u32)) {
            by_stage.entry(strata.stage[i]).or_default().push(i as u32);
        }
    }
    let stage_of = |v: Var| -> usize {
        match step.nodes[v.index as usize].kind {
            NodeKind::Carry(k) if !r.saved.contains_key(&v.index) => strata.carry_avail[&k],
            _ if r.saved.contains_key(&v.index) => 0,
            _ => strata.stage[v.index as usize],
        }
    };
    for (v, out) in &copies {
        // A state that is its own next value is copied step by step in a loop of its own.
        let own = match (&step.nodes[v.index as usize].kind, low.bufs[out.buf].kind.clone()) {
            (NodeKind::Carry(_), BufKind::State(k)) => strata.carry_loop.get(&k).copied(),
            _ => None,
        };
        by_stage.entry(own.unwrap_or_else(|| stage_of(*v))).or_default();
    }
    for (v, _) in &accumulated {
        by_stage.entry(stage_of(*v)).or_default();
    }
    let mut used_by_other_stage = vec![false; step.nodes.len()];
    for (i, node) in
        step.nodes.iter().enumerate().filter(|(i, _)| live[*i] && !r.saved.contains_key(&(*i as u32)))
    {
        for v in &node.inputs {
            if strata.stage[i] != strata.stage[v.index as usize] {
                used_by_other_stage[v.index as usize] = true;
                // An alias passes the need on to what it is an alias of.
                let mut at = *v;
                while let NodeKind::Op(op) = &step.nodes[at.index as usize].kind
                    && matches!(op.class(), Class::Layout(_) | Class::Expand)
                {
                    at = step.nodes[at.index as usize].inputs[0];
                    used_by_other_stage[at.index as usize] = true;
                }
            }
        }
    }
    let chunked = |i: u32| !strata.in_loop[i as usize] || used_by_other_stage[i as usize];
    let mut stages = Vec::new();
    for (&s, list) in &by_stage {
        let mut calls = Vec::new();
        // What is there already is copied before anything of the stage reads the copy: the value a state holds back for
        // one step may be read in the stage that knows it.
        let there = |v: &Var| {
            r.saved.contains_key(&v.index)
                || !matches!(step.nodes[v.index as usize].kind, NodeKind::Op(_) | NodeKind::Carry(_))
        };
        for (v, out) in copies.iter().filter(|(v, _)| there(v) && stage_of(*v) == s) {
            let rows = low.bufs[out.buf].lead.has_n();
            low.copy(*v, out.clone(), Over { steps: true, rows }, &mut calls)?;
        }
        {
            let mut packs = StepPacks { step, isa: r.isa, externals: &mut externals };
            low.lower(list, &chunked, &mut packs, &mut calls)?;
        }
        for (v, out) in &copies {
            let own = match (&step.nodes[v.index as usize].kind, &low.bufs[out.buf].kind) {
                (NodeKind::Carry(_), BufKind::State(k)) => strata.carry_loop.get(k).copied(),
                _ => None,
            };
            if !there(v) && own.unwrap_or_else(|| stage_of(*v)) == s {
                let rows = low.bufs[out.buf].lead.has_n();
                low.copy(*v, out.clone(), Over { steps: true, rows }, &mut calls)?;
            }
        }
        for (v, out) in &accumulated {
            if stage_of(*v) == s {
                let rows = low.bufs[out.buf].lead.has_n();
                let input = match low.places.get(&v.index) {
                    Some(Place::At(o)) => o.clone(),
                    Some(&Place::Scalar { re, im }) => {
                        let ty = step.nodes[v.index as usize].ty.clone();
                        let o = low.fresh(&ty, true, "constant".into());
                        let over = Over { steps: true, rows };
                        calls.push(Call { instr: Instr::Fill { out: o.clone(), re, im }, over, flops: 0.0 });
                        o
                    }
                    None => return Err(Error::argument("plan", "bug: a sum of nothing")),
                };
                let instr = Instr::Accumulate { input, out: out.clone() };
                calls.push(Call { instr, over: Over { steps: true, rows }, flops: 0.0 });
            }
        }
        if calls.is_empty() {
            continue;
        }
        if s % 2 == 0 {
            for call in &mut calls {
                // What does not change within the chunk is computed once a chunk.
                let constant = call
                    .instr
                    .writes()
                    .iter()
                    .all(|o| low.bufs[o.buf].kind == BufKind::Temp && !low.bufs[o.buf].lead.has_t());
                if constant {
                    call.over.steps = false;
                }
            }
            stages.push(Stage::Batched(calls));
        } else {
            stages.push(Stage::Loop(calls));
        }
    }
    let read: BTreeSet<BufId> =
        stages.iter().flat_map(|s| s.calls()).flat_map(|c| c.instr.reads()).map(|o| o.buf).collect();
    for (i, buf) in low.bufs.iter_mut().enumerate() {
        buf.unread = matches!(buf.kind, BufKind::Kept(_)) && !read.contains(&i);
    }
    let lives = liveness(&low.bufs, &stages);
    let scratch = stages.iter().flat_map(|s| s.calls()).map(|c| c.instr.scratch()).max().unwrap_or(0);
    Ok(StepProgram {
        bufs: low.bufs,
        stages,
        externals,
        states,
        sums,
        shared_stacks,
        reverse: r.reverse,
        mixes_rows: false,
        lives,
        scratch,
    })
}

/// First and last call in which each temporary buffer lives. A buffer with an entry for each step lives through
/// the whole of any loop that touches it.
fn liveness(bufs: &[Buf], stages: &[Stage]) -> Vec<Option<(usize, usize)>> {
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; bufs.len()];
    let mut at = 0;
    for stage in stages {
        let end = at + stage.calls().len();
        for (i, call) in stage.calls().iter().enumerate() {
            for o in call.instr.reads().into_iter().chain(call.instr.writes()) {
                let buf = &bufs[o.buf];
                if buf.kind != BufKind::Temp {
                    continue;
                }
                let whole = matches!(stage, Stage::Loop(_)) && buf.lead.has_t();
                let span = if whole { (at, end.saturating_sub(1)) } else { (at + i, at + i) };
                lives[o.buf] = Some(match lives[o.buf] {
                    Some((a, b)) => (a.min(span.0), b.max(span.1)),
                    None => span,
                });
            }
        }
        at = end;
    }
    lives
}
