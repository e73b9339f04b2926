//! Lowering: from nodes of a tape to calls over buffers.
//!
//! The same code lowers the outer program and every stage of a step. Pointwise operations are grouped by level:
//! a node's level is one more than that of its inputs, except along an edge between two pointwise nodes over the
//! same domain, where it stays. Nodes of one level and one domain form one fused call; edges between groups go
//! strictly up, so the groups cannot depend on each other in a circle.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use smallvec::SmallVec;

use super::ir::{Axis, Buf, BufKind, Call, Instr, Operand, Over, Place, Spread};
use crate::core_ops::Concat;
use crate::cpu::{Compiled, Isa, packed_len};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::expr::{Expr, Num, Reg};
use crate::kernel::RowRule;
use crate::layout::Layout;
use crate::matmul::MatMul;
use crate::op::{Class, Op, Ty};
use crate::shape::{Dims, Lead};
use crate::tape::{Node, NodeKind, Var};

/// Where a packed right-hand side comes from.
pub(crate) trait Packs {
    /// The packed form of `b` if it is prepared outside; `None` if the lowered code must pack it itself.
    fn outside(
        &mut self,
        bufs: &mut Vec<Buf>,
        b: u32,
        transpose: bool,
        k: usize,
        m: usize,
    ) -> Option<Operand>;
}

/// State of lowering one graph.
pub(crate) struct Lowerer<'a> {
    pub(crate) nodes: &'a [Node],
    pub(crate) isa: Isa,
    /// In a step every operation runs over the steps at hand.
    pub(crate) in_step: bool,
    pub(crate) places: HashMap<u32, Place>,
    pub(crate) bufs: Vec<Buf>,
    /// Destinations chosen before lowering.
    pub(crate) dest: HashMap<u32, Operand>,
    /// Running sums that reductions add to directly.
    pub(crate) sums: HashMap<u32, Operand>,
    /// Nodes whose value is needed beyond the calls that use it here.
    pub(crate) roots: HashSet<u32>,
    packs: HashMap<(u32, bool), Operand>,
    users: HashMap<u32, Vec<u32>>,
}

/// Shortest segment worth a pass of its own.
const SHORTEST_SEGMENT: usize = 32;

/// Sizes over which an operand is read, axis by axis: its own and the entry's, the last axis first.
fn aligned(from: &[usize], to: &[usize]) -> Option<SmallVec<[(usize, usize); 6]>> {
    let own = from.iter().rev().copied().chain(std::iter::repeat(1));
    let axes: SmallVec<_> = own.zip(to.iter().rev().copied()).collect();
    (from.len() <= to.len() && axes.iter().all(|(own, to)| own == to || *own == 1)).then_some(axes)
}

/// How many of the last axes an operand can meet at once: it has all of their elements, or one for all of them.
fn inner_axes(axes: &[(usize, usize)]) -> usize {
    let wide = |&&(_, to): &&(usize, usize)| to > 1;
    let elements = axes.iter().find(wide).is_some_and(|(own, _)| *own > 1);
    axes.iter().take_while(|(own, to)| *to == 1 || (*own > 1) == elements).count()
}

/// The fewest segments of an entry of `to` such that a broadcasting operand has all elements of a segment or one for
/// it; `None` where these would be too short.
fn segments_for(from: &[usize], to: &[usize]) -> Option<usize> {
    let axes = aligned(from, to)?;
    let (inner, outer) = axes.split_at(inner_axes(&axes));
    let sizes = |axes: &[(usize, usize)]| axes.iter().map(|(_, to)| to).product::<usize>();
    (sizes(inner) >= SHORTEST_SEGMENT).then(|| sizes(outer))
}

/// How an operand that broadcasts is read over an entry of so many segments; `None` where it is not of one kind within
/// them.
fn part(segments: usize, from: &[usize], to: &[usize]) -> Option<Spread> {
    let sizes = aligned(from, to)?;
    let length = to.iter().product::<usize>() / segments;
    let (mut inner, mut met, mut step) = (0, 1, 1);
    while met < length {
        let (own, to) = sizes.get(inner)?;
        (met, step) = (met * to, step * own);
        inner += 1;
    }
    if met != length || inner > inner_axes(&sizes) {
        return None;
    }
    let (mut axes, mut every) = (SmallVec::new(), 1);
    for &(own, count) in &sizes[inner..] {
        if own > 1 {
            axes.push(Axis { every, count, step });
        }
        (every, step) = (every * count, step * own);
    }
    Some(Spread::Part { elements: sizes[..inner].iter().any(|(own, _)| *own > 1), axes })
}

/// Elements of a packed matrix, all planes counted once.
fn packed_width(isa: Isa, real: DType, k: usize, m: usize) -> usize {
    match real {
        DType::F64 => packed_len::<f64>(isa, k, m),
        _ => packed_len::<f32>(isa, k, m),
    }
}

/// The buffer of a packed matrix.
pub(crate) fn packed_buf(isa: Isa, dtype: DType, k: usize, m: usize, kind: BufKind) -> Buf {
    let width = packed_width(isa, dtype.real(), k, m);
    Buf { kind, dtype, width, lead: Lead::Shared, unread: false, label: format!("packed {k}×{m}") }
}

/// The flags of a matrix product with rows of a single number: an outer product, which is pointwise.
pub(crate) fn scales<'a>(nodes: &[Node], node: &'a Node) -> Option<&'a MatMul> {
    let NodeKind::Op(op) = &node.kind else { return None };
    let Class::MatMul(flags) = op.class() else { return None };
    (nodes[node.inputs[0].index as usize].ty.shape.width() == 1).then_some(flags)
}

impl<'a> Lowerer<'a> {
    pub(crate) fn new(nodes: &'a [Node], live: &[bool], isa: Isa, in_step: bool) -> Lowerer<'a> {
        let mut users: HashMap<u32, Vec<u32>> = HashMap::new();
        for (i, node) in nodes.iter().enumerate().filter(|(i, _)| live[*i]) {
            for v in &node.inputs {
                users.entry(v.index).or_default().push(i as u32);
            }
        }
        Lowerer {
            nodes,
            isa,
            in_step,
            places: HashMap::new(),
            bufs: Vec::new(),
            dest: HashMap::new(),
            sums: HashMap::new(),
            roots: HashSet::new(),
            packs: HashMap::new(),
            users,
        }
    }

    pub(crate) fn add_buf(&mut self, buf: Buf) -> usize {
        self.bufs.push(buf);
        self.bufs.len() - 1
    }

    /// A whole buffer as an operand.
    pub(crate) fn whole(&self, buf: usize, dims: &Dims) -> Operand {
        Operand { buf, col: 0, dims: dims.clone(), shift: 0 }
    }

    pub(crate) fn fresh(&mut self, ty: &Ty, steps: bool, label: String) -> Operand {
        let lead = Lead::from_axes(steps, ty.shape.lead.has_n());
        let buf =
            Buf { kind: BufKind::Temp, dtype: ty.dtype, width: ty.shape.width(), lead, unread: false, label };
        let buf = self.add_buf(buf);
        self.whole(buf, &ty.shape.dims)
    }

    fn label(&self, i: u32) -> String {
        let node = &self.nodes[i as usize];
        match (&node.label, &node.kind) {
            (Some(label), _) => label.clone(),
            (None, NodeKind::Op(op)) => op.name().to_string(),
            (None, _) => String::new(),
        }
    }

    pub(crate) fn over(&self, ty: &Ty) -> Over {
        Over { steps: self.in_step || ty.shape.lead.has_t(), rows: ty.shape.lead.has_n() }
    }

    fn has_steps(&self, i: u32, chunked: &dyn Fn(u32) -> bool) -> bool {
        if self.in_step { chunked(i) } else { self.nodes[i as usize].ty.shape.lead.has_t() }
    }

    /// The destination of node `i`: chosen before, or a new buffer.
    fn target(&mut self, i: u32, chunked: &dyn Fn(u32) -> bool) -> Operand {
        if let Some(o) = self.dest.get(&i) {
            return o.clone();
        }
        let ty = self.nodes[i as usize].ty.clone();
        let steps = self.has_steps(i, chunked);
        let label = self.label(i);
        self.fresh(&ty, steps, label)
    }

    fn place(&self, v: Var) -> Result<Place> {
        self.places.get(&v.index).cloned().ok_or_else(|| {
            let node = &self.nodes[v.index as usize];
            Error::argument("plan", format!("bug: value {} ({:?}) has no place", v.index, node.kind))
        })
    }

    /// The operand of a value; a scalar is written out first.
    fn operand(&mut self, v: Var, calls: &mut Vec<Call>) -> Result<Operand> {
        match self.place(v)? {
            Place::At(o) => Ok(o),
            Place::Scalar { re, im } => {
                let ty = self.nodes[v.index as usize].ty.clone();
                let ty = Ty::new(ty.dtype, crate::Shape::shared(&ty.shape.dims));
                let out = self.fresh(&ty, false, "constant".into());
                let over = Over { steps: self.in_step, rows: false };
                calls.push(Call { instr: Instr::Fill { out: out.clone(), re, im }, over, flops: 0.0 });
                Ok(out)
            }
        }
    }

    /// Copies a value into `out`, over the entries of `over`.
    pub(crate) fn copy(&mut self, v: Var, out: Operand, over: Over, calls: &mut Vec<Call>) -> Result<()> {
        let instr = match self.place(v)? {
            Place::At(input) if input == out => return Ok(()),
            Place::At(input) => Instr::Move { input, out, map: None },
            Place::Scalar { re, im } => Instr::Fill { out, re, im },
        };
        calls.push(Call { instr, over, flops: 0.0 });
        Ok(())
    }

    fn domain(&self, i: u32) -> Option<(Lead, usize, DType)> {
        let node = &self.nodes[i as usize];
        match &node.kind {
            NodeKind::Op(op)
                if matches!(op.class(), Class::Pointwise(_)) || scales(self.nodes, node).is_some() =>
            {
                let lead = node.ty.shape.lead;
                let real = node.ty.dtype.real();
                Some((lead, node.ty.shape.width(), real))
            }
            _ => None,
        }
    }

    /// Lowers `list` (node numbers in recording order). `chunked(i)`: the value of `i` outlives its loop.
    pub(crate) fn lower(
        &mut self,
        list: &[u32],
        chunked: &dyn Fn(u32) -> bool,
        packs: &mut dyn Packs,
        calls: &mut Vec<Call>,
    ) -> Result<()> {
        let mut level: HashMap<u32, usize> = HashMap::new();
        let mut units: BTreeMap<(usize, u32), Vec<u32>> = BTreeMap::new();
        let mut groups: HashMap<(usize, (Lead, usize, DType)), u32> = HashMap::new();
        for &i in list {
            let domain = self.domain(i);
            let mut at = 0;
            for v in &self.nodes[i as usize].inputs {
                if let Some(&l) = level.get(&v.index) {
                    let together = domain.is_some() && self.domain(v.index) == domain;
                    at = at.max(if together { l } else { l + 1 });
                }
            }
            level.insert(i, at);
        }
        self.delay(list, &mut level);
        for &i in list {
            let at = level[&i];
            let first = match self.domain(i) {
                Some(d) => *groups.entry((at, d)).or_insert(i),
                None => i,
            };
            units.entry((at, first)).or_default().push(i);
        }
        self.join_into_concats(list, chunked);
        self.join_into_reshapes(list, chunked);
        for ((_, first), unit) in units {
            if self.domain(first).is_some() {
                self.pointwise(&unit, chunked, calls)?;
            } else {
                self.single(first, chunked, packs, calls)?;
            }
        }
        Ok(())
    }

    /// Moves a pointwise node to the level of its users where these are all pointwise over the same entries: there it
    /// need not be written.
    fn delay(&self, list: &[u32], level: &mut HashMap<u32, usize>) {
        for &i in list.iter().rev() {
            let Some(domain) = self.domain(i) else { continue };
            if self.roots.contains(&i) || self.dest.contains_key(&i) {
                continue;
            }
            let of = |u: &u32| level.get(u).copied().filter(|_| self.domain(*u) == Some(domain));
            let users = self.users.get(&i).into_iter().flatten().map(of);
            if let Some(Some(latest)) = users.min() {
                level.insert(i, latest);
            }
        }
    }

    /// Lets the inputs of a concatenation be written in place where that is possible.
    fn join_into_concats(&mut self, list: &[u32], chunked: &dyn Fn(u32) -> bool) {
        let inside: HashSet<u32> = list.iter().copied().collect();
        for &c in list.iter().rev() {
            let node = &self.nodes[c as usize];
            let Some(concat) = as_concat(node) else { continue };
            if node.ty.shape.dims[..concat.axis].iter().any(|&d| d != 1) {
                continue;
            }
            let out = self.target(c, chunked);
            self.dest.insert(c, out.clone());
            let mut col = out.col;
            for v in self.nodes[c as usize].inputs.clone() {
                let part = &self.nodes[v.index as usize];
                let width = part.ty.shape.width();
                let fits = inside.contains(&v.index) && self.may_write(v.index, c, &out, chunked);
                if fits {
                    let dims = part.ty.shape.dims.clone();
                    self.dest.insert(v.index, Operand { buf: out.buf, col, dims, shift: out.shift });
                }
                col += width;
            }
        }
    }

    /// Whether node `i` may be written where its user has it, in `out`: it has no other destination and writes every
    /// element once, wherever that lies.
    fn may_write(&self, i: u32, user: u32, out: &Operand, chunked: &dyn Fn(u32) -> bool) -> bool {
        let (part, node) = (&self.nodes[i as usize], &self.nodes[user as usize]);
        let writes_once = match &part.kind {
            NodeKind::Op(op) => match op.class() {
                Class::Pointwise(_) | Class::MatMul(_) => true,
                Class::Structured(s) => s.rows() == RowRule::PerRow,
                _ => false,
            },
            _ => false,
        };
        writes_once
            && part.ty.shape.lead == node.ty.shape.lead
            && part.ty.dtype == node.ty.dtype
            && !self.dest.contains_key(&i)
            && (self.bufs[out.buf].lead.has_t() || !self.has_steps(i, chunked))
    }

    /// Lets what is only given another shape be written where it is wanted in that shape.
    fn join_into_reshapes(&mut self, list: &[u32], chunked: &dyn Fn(u32) -> bool) {
        let inside: HashSet<u32> = list.iter().copied().collect();
        for &i in list.iter().rev() {
            let node = &self.nodes[i as usize];
            let NodeKind::Op(op) = &node.kind else { continue };
            if !matches!(op.class(), Class::Layout(Layout::Reshape { .. })) {
                continue;
            }
            let Some(out) = self.dest.get(&i).cloned() else { continue };
            let v = node.inputs[0].index;
            if inside.contains(&v) && self.may_write(v, i, &out, chunked) {
                let dims = self.nodes[v as usize].ty.shape.dims.clone();
                self.dest.insert(v, Operand { dims, ..out });
            }
        }
    }

    /// How many segments the entries of a group have, such that what broadcasts from outside it can be read where it
    /// lies.
    fn segments(&self, group: &[u32], inside: &HashSet<u32>) -> Result<usize> {
        let mut segments = 1;
        for i in group {
            let node = &self.nodes[*i as usize];
            let (to, width) = (&node.ty.shape.dims, node.ty.shape.width());
            for v in node.inputs.iter().filter(|v| !inside.contains(&v.index)) {
                if let Place::At(o) = self.place(*v)?
                    && o.width() != width
                    && o.width() != 1
                {
                    segments = segments.max(segments_for(&o.dims, to).unwrap_or(1));
                }
            }
        }
        Ok(segments)
    }

    fn pointwise(
        &mut self,
        group: &[u32],
        chunked: &dyn Fn(u32) -> bool,
        calls: &mut Vec<Call>,
    ) -> Result<()> {
        let inside: HashSet<u32> = group.iter().copied().collect();
        let mut e = Expr::new();
        let mut ins: Vec<(Operand, usize, Spread)> = Vec::new();
        let segments = self.segments(group, &inside)?;
        let mut loaded: Vec<Reg> = Vec::new();
        let mut nums: HashMap<u32, Num> = HashMap::new();
        let mut names = Vec::new();
        let mut flops = 0.0;
        let ty = self.nodes[group[0] as usize].ty.clone();
        let width = ty.shape.width();
        let mut load = |e: &mut Expr, o: &Operand, plane: usize, spread: &Spread| -> Reg {
            if let Some(k) = ins.iter().position(|(x, p, s)| x == o && *p == plane && s == spread) {
                return loaded[k];
            }
            let reg = e.load(false).re();
            ins.push((o.clone(), plane, spread.clone()));
            loaded.push(reg);
            reg
        };
        for &i in group {
            let node = &self.nodes[i as usize];
            let NodeKind::Op(op) = &node.kind else { continue };
            let mut args = Vec::with_capacity(node.inputs.len());
            for v in node.inputs.clone() {
                if let Some(&num) = nums.get(&v.index).filter(|_| inside.contains(&v.index)) {
                    args.push(num);
                    continue;
                }
                let input = &self.nodes[v.index as usize].ty;
                let complex = input.dtype.is_complex();
                args.push(match self.place(v)? {
                    Place::Scalar { re, im } if complex => {
                        Num::Complex(e.constant_reg(re), e.constant_reg(im))
                    }
                    Place::Scalar { re, .. } => e.constant(re),
                    Place::At(o) => {
                        let to = &node.ty.shape.dims;
                        let from = o.width();
                        let (o, spread) = if from == width {
                            (o, Spread::Own)
                        } else if from == 1 {
                            (o, Spread::One)
                        } else if let Some(spread) = part(segments, &o.dims, to) {
                            (o, spread)
                        } else {
                            (self.stretch(v, o, to, calls)?, Spread::Own)
                        };
                        let re = load(&mut e, &o, 0, &spread);
                        if complex { Num::Complex(re, load(&mut e, &o, 1, &spread)) } else { Num::Real(re) }
                    }
                });
            }
            let value = match (op.class(), scales(self.nodes, node)) {
                (Class::Pointwise(body), _) => body.expr(&mut e, &args),
                (_, Some(flags)) => {
                    let a = if flags.conj_a { e.conj(args[0]) } else { args[0] };
                    let b = if flags.conj_b { e.conj(args[1]) } else { args[1] };
                    e.mul(a, b)
                }
                _ => continue,
            };
            nums.insert(i, value);
            names.push(op.name());
            let inputs: Vec<Ty> =
                node.inputs.iter().map(|v| self.nodes[v.index as usize].ty.clone()).collect();
            flops += op.flops(&inputs, &node.ty);
        }
        let mut outs = Vec::new();
        for &i in group {
            let needed = self.roots.contains(&i)
                || self.dest.contains_key(&i)
                || self.users.get(&i).is_some_and(|u| u.iter().any(|u| !inside.contains(u)));
            if !needed {
                continue;
            }
            let out = self.target(i, chunked);
            let num = nums[&i];
            e.store(num);
            outs.push((out.clone(), 0));
            if matches!(num, Num::Complex(..)) {
                outs.push((out.clone(), 1));
            }
            self.places.insert(i, Place::At(out));
        }
        if outs.is_empty() {
            return Ok(());
        }
        let scalar = e.finish();
        let element: f64 = scalar.instrs.iter().map(crate::expr::Instr::effort).sum();
        let effort = element * ty.shape.width() as f64;
        let program = Arc::new(Compiled::new(&scalar));
        let real = ty.dtype.real();
        let over = self.over(&ty);
        let instr = Instr::Pointwise { program, ins, outs, segments, width, real, names, effort };
        calls.push(Call { instr, over, flops });
        Ok(())
    }

    /// Writes out a broadcast that no way of reading spares.
    fn stretch(&mut self, v: Var, o: Operand, dims: &Dims, calls: &mut Vec<Call>) -> Result<Operand> {
        let ty = self.nodes[v.index as usize].ty.clone();
        let map = Layout::Broadcast { dims: dims.clone() }.map(&o.dims)?;
        let wide = Ty::new(ty.dtype, crate::Shape { lead: ty.shape.lead, dims: dims.clone() });
        // The value is read where it is used, so one slot does inside a loop; a batched stage needs one per step.
        let steps = self.bufs[o.buf].lead.has_t();
        let out = self.fresh(&wide, steps, "broadcast".into());
        let over = self.over(&wide);
        let map = Some(Arc::from(map));
        calls.push(Call { instr: Instr::Move { input: o, out: out.clone(), map }, over, flops: 0.0 });
        Ok(out)
    }

    fn single(
        &mut self,
        i: u32,
        chunked: &dyn Fn(u32) -> bool,
        packs: &mut dyn Packs,
        calls: &mut Vec<Call>,
    ) -> Result<()> {
        let node = &self.nodes[i as usize];
        let NodeKind::Op(op) = &node.kind else {
            return Err(Error::argument("plan", format!("bug: {:?} to lower", node.kind)));
        };
        let op: Arc<dyn Op> = op.clone();
        let (ty, inputs) = (node.ty.clone(), node.inputs.clone());
        let tys: Vec<Ty> = inputs.iter().map(|v| self.nodes[v.index as usize].ty.clone()).collect();
        let flops = op.flops(&tys, &ty);
        match op.class() {
            Class::Pointwise(_) => Err(Error::argument("plan", "bug: a pointwise operation alone")),
            Class::Expand => {
                let place = self.place(inputs[0])?;
                self.places.insert(i, place);
                Ok(())
            }
            Class::Layout(layout) => self.layout(i, layout, inputs[0], &tys[0], chunked, calls),
            Class::Cast => {
                let input = self.operand(inputs[0], calls)?;
                let out = self.target(i, chunked);
                self.places.insert(i, Place::At(out.clone()));
                calls.push(Call { instr: Instr::Cast { input, out }, over: self.over(&ty), flops: 0.0 });
                Ok(())
            }
            Class::SumSteps => {
                let input = self.operand(inputs[0], calls)?;
                let out = self.target(i, chunked);
                self.places.insert(i, Place::At(out.clone()));
                let once = Over { steps: false, rows: ty.shape.lead.has_n() };
                let zero = Instr::Fill { out: out.clone(), re: 0.0, im: 0.0 };
                calls.push(Call { instr: zero, over: once, flops: 0.0 });
                let over = Over { steps: true, rows: ty.shape.lead.has_n() };
                calls.push(Call { instr: Instr::Accumulate { input, out }, over, flops });
                Ok(())
            }
            Class::MatMul(flags) => {
                let (k, m) = dims_of(flags, &tys[1]);
                let a = self.operand(inputs[0], calls)?;
                let packed = self.packed(inputs[1], flags.transpose_b, k, m, packs, calls)?;
                let out = self.target(i, chunked);
                self.places.insert(i, Place::At(out.clone()));
                let instr = Instr::MatMul { a, packed, out, flags: *flags, k, m };
                calls.push(Call { instr, over: self.over(&ty), flops });
                Ok(())
            }
            Class::RowContract(flags) => {
                let l = self.operand(inputs[0], calls)?;
                let r = self.operand(inputs[1], calls)?;
                let (out, accumulate) = self.reduction(i, chunked);
                let over = self.reduce_over(&tys);
                let instr = Instr::RowContract { l, r, out, flags: *flags, accumulate };
                calls.push(Call { instr, over, flops });
                Ok(())
            }
            Class::Structured(kernel) => {
                let reduce = kernel.rows() == RowRule::Reduce;
                let scratch = kernel.scratch(&tys);
                if let Some(concat) = as_concat(&self.nodes[i as usize])
                    && ty.shape.dims[..concat.axis].iter().all(|&d| d == 1)
                {
                    return self.concat(i, &inputs, calls);
                }
                let mut ins = Vec::with_capacity(inputs.len());
                for v in &inputs {
                    ins.push(self.operand(*v, calls)?);
                }
                let (out, accumulate, over) = if reduce {
                    let (out, accumulate) = self.reduction(i, chunked);
                    (out, accumulate, self.reduce_over(&tys))
                } else {
                    let out = self.target(i, chunked);
                    self.places.insert(i, Place::At(out.clone()));
                    (out, false, self.over(&ty))
                };
                let instr = Instr::Structured { op: op.clone(), ins, out, reduce, accumulate, scratch };
                calls.push(Call { instr, over, flops });
                Ok(())
            }
        }
    }

    fn reduce_over(&self, tys: &[Ty]) -> Over {
        let lead = tys.iter().fold(Lead::Shared, |l, t| l.join(t.shape.lead));
        Over { steps: self.in_step || lead.has_t(), rows: lead.has_n() }
    }

    /// Where a reduction goes: straight into a running sum if it has one.
    fn reduction(&mut self, i: u32, chunked: &dyn Fn(u32) -> bool) -> (Operand, bool) {
        if let Some(sum) = self.sums.get(&i) {
            return (sum.clone(), true);
        }
        let out = if self.in_step && !self.dest.contains_key(&i) {
            let ty = self.nodes[i as usize].ty.clone();
            let label = self.label(i);
            self.fresh(&ty, true, label)
        } else {
            self.target(i, chunked)
        };
        self.places.insert(i, Place::At(out.clone()));
        (out, false)
    }

    fn concat(&mut self, i: u32, inputs: &[Var], calls: &mut Vec<Call>) -> Result<()> {
        let out = self
            .dest
            .get(&i)
            .cloned()
            .ok_or_else(|| Error::argument("plan", "bug: concat without a place"))?;
        let over = self.over(&self.nodes[i as usize].ty.clone());
        let mut col = out.col;
        for &v in inputs {
            let dims = self.nodes[v.index as usize].ty.shape.dims.clone();
            let part = Operand { buf: out.buf, col, dims, shift: out.shift };
            col += part.width();
            self.copy(v, part, over, calls)?;
        }
        self.places.insert(i, Place::At(out));
        Ok(())
    }

    fn layout(
        &mut self,
        i: u32,
        layout: &Layout,
        v: Var,
        ty: &Ty,
        chunked: &dyn Fn(u32) -> bool,
        calls: &mut Vec<Call>,
    ) -> Result<()> {
        let out_ty = self.nodes[i as usize].ty.clone();
        let place = self.place(v)?;
        let aliased = !self.dest.contains_key(&i);
        // What only pointwise operations read is stretched as they read it.
        let read_in_place = aliased
            && matches!(layout, Layout::Broadcast { .. })
            && !self.roots.contains(&i)
            && self.users.get(&i).is_some_and(|users| users.iter().all(|&u| self.domain(u).is_some()));
        match place {
            Place::At(_) if read_in_place => {
                self.places.insert(i, place);
                return Ok(());
            }
            Place::Scalar { .. } if !matches!(layout, Layout::Pad { .. }) && aliased => {
                self.places.insert(i, place);
                return Ok(());
            }
            Place::At(ref o) => {
                if let Some(start) = layout.as_run(&ty.shape.dims) {
                    let o = Operand { col: o.col + start, dims: out_ty.shape.dims.clone(), ..o.clone() };
                    if aliased || self.dest.get(&i) == Some(&o) {
                        self.places.insert(i, Place::At(o));
                        return Ok(());
                    }
                }
            }
            _ => {}
        }
        let input = self.operand(v, calls)?;
        let out = self.target(i, chunked);
        self.places.insert(i, Place::At(out.clone()));
        let map = Some(Arc::from(layout.map(&ty.shape.dims)?));
        calls.push(Call { instr: Instr::Move { input, out, map }, over: self.over(&out_ty), flops: 0.0 });
        Ok(())
    }

    fn packed(
        &mut self,
        b: Var,
        transpose: bool,
        k: usize,
        m: usize,
        packs: &mut dyn Packs,
        calls: &mut Vec<Call>,
    ) -> Result<Operand> {
        if let Some(o) = self.packs.get(&(b.index, transpose)) {
            return Ok(o.clone());
        }
        let outside = packs.outside(&mut self.bufs, b.index, transpose, k, m);
        let packed = match outside {
            Some(o) => o,
            None => {
                let source = self.operand(b, calls)?;
                let dtype = self.nodes[b.index as usize].ty.dtype;
                let mut buf = packed_buf(self.isa, dtype, k, m, BufKind::Temp);
                // A matrix that changes from step to step is packed at every step of the stage.
                let varies = self.in_step;
                buf.lead = Lead::from_axes(varies, false);
                let dims = Dims::from_slice(&[buf.width]);
                let buf = self.add_buf(buf);
                let out = self.whole(buf, &dims);
                let over = Over { steps: varies, rows: false };
                calls.push(Call {
                    instr: Instr::Pack { b: source, out: out.clone(), transpose, k, m },
                    over,
                    flops: 0.0,
                });
                out
            }
        };
        self.packs.insert((b.index, transpose), packed.clone());
        Ok(packed)
    }
}

fn dims_of(flags: &MatMul, b: &Ty) -> (usize, usize) {
    let d = &b.shape.dims;
    if flags.transpose_b { (d[1], d[0]) } else { (d[0], d[1]) }
}

fn as_concat(node: &Node) -> Option<Concat> {
    match &node.kind {
        NodeKind::Op(op) => (op.as_ref() as &dyn std::any::Any).downcast_ref::<Concat>().copied(),
        _ => None,
    }
}
