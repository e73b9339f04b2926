//! One call of a plan over a span of steps and rows.

use smallvec::SmallVec;

use super::frame::{Frame, View};
use super::team::Member;
use crate::cpu::gemm::{Rows, gemm_tn_raw};
use crate::cpu::{self, Accumulate, Compiled, Isa, Real};
use crate::dtype::DType;
use crate::kernel::{Args, In, Origin, Out, RunStructured};
use crate::matmul::{MatMul, RowContract};
use crate::op::{Class, Op};
use crate::plan::ir::{Buf, Call, Instr, Operand, Over, Spread};

/// The steps and rows at hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// First step and the step after the last.
    pub(crate) steps: (usize, usize),
    /// First row and the row after the last, as the buffers count them.
    pub(crate) rows: (usize, usize),
    /// Whether time goes backwards.
    pub(crate) reverse: bool,
    /// Number of the buffers' first row in the whole batch.
    pub(crate) first_row: usize,
    pub(crate) total_steps: usize,
    pub(crate) total_rows: usize,
}

impl Span {
    /// Entries that a call over these steps and rows runs over.
    pub(crate) fn entries(&self, over: Over) -> u64 {
        let of = |over: bool, (from, to): (usize, usize)| if over { to.saturating_sub(from) } else { 1 };
        of(over.steps, self.steps) as u64 * of(over.rows, self.rows) as u64
    }
}

/// What a call works with.
pub(crate) struct Context<'a> {
    pub(crate) frame: &'a Frame,
    pub(crate) bufs: &'a [Buf],
    pub(crate) isa: Isa,
    pub(crate) span: Span,
}

/// A run of rows that a kernel can take at once.
#[derive(Clone, Copy)]
struct Block {
    step: usize,
    row: usize,
    rows: usize,
    /// Rows of several steps follow each other; with one row a step, the distance is that between steps.
    by_step: bool,
}

impl Context<'_> {
    fn dtype(&self, o: &Operand) -> DType {
        self.bufs[o.buf].dtype
    }

    fn view<R>(&self, o: &Operand, plane: usize, b: Block) -> View<R> {
        let v = self.frame.view(o, plane, b.step, b.row);
        if b.by_step { View { stride: self.frame.loc(o).step, ..v } } else { v }
    }

    /// The blocks of a call: one if every operand's rows follow each other from step to step, else one a step.
    fn blocks(
        &self,
        call: &Call,
        operands: &[&Operand],
        outs: &[&Operand],
        together: bool,
    ) -> SmallVec<[Block; 8]> {
        let (t0, t1) =
            if call.over.steps { self.span.steps } else { (self.span.steps.0, self.span.steps.0 + 1) };
        let (r0, r1) = if call.over.rows { self.span.rows } else { (0, 1) };
        let (steps, rows) = (t1.saturating_sub(t0), r1.saturating_sub(r0));
        if steps == 0 || rows == 0 {
            return SmallVec::new();
        }
        if steps == 1 {
            return SmallVec::from_slice(&[Block { step: t0, row: r0, rows, by_step: false }]);
        }
        let follows = |o: &&Operand| {
            let loc = self.frame.loc(o);
            if rows == 1 { true } else { loc.step == rows * loc.row }
        };
        let moves = |o: &&Operand| self.frame.loc(o).step != 0;
        if together && operands.iter().all(follows) && outs.iter().all(|o| follows(o) && moves(o)) {
            return SmallVec::from_slice(&[Block {
                step: t0,
                row: r0,
                rows: steps * rows,
                by_step: rows == 1,
            }]);
        }
        let block = |step| Block { step, row: r0, rows, by_step: false };
        if self.span.reverse { (t0..t1).rev().map(block).collect() } else { (t0..t1).map(block).collect() }
    }
}

/// Runs a member's share of a call: columns of a product, rows of what has rows; the rest is the first member's.
pub(crate) fn run_share(cx: &Context<'_>, call: &Call, scratch: &mut [u64], member: Member<'_>) {
    if member.of() == 1 {
        return run_call(cx, call, scratch);
    }
    match &call.instr {
        Instr::MatMul { a, packed, out, flags, k, m } => match cx.dtype(out).real() {
            DType::F64 => matmul::<f64>(cx, call, a, packed, out, *flags, *k, *m, member),
            _ => matmul::<f32>(cx, call, a, packed, out, *flags, *k, *m, member),
        },
        Instr::RowContract { l, r, out, flags, accumulate: true } if cx.frame.loc(out).step == 0 => {
            match cx.dtype(out).real() {
                DType::F64 => row_contract::<f64>(cx, call, l, r, out, *flags, true, member),
                _ => row_contract::<f32>(cx, call, l, r, out, *flags, true, member),
            }
        }
        instr => {
            let sums = match instr {
                Instr::RowContract { .. } | Instr::Pack { .. } => true,
                Instr::Structured { reduce, .. } => *reduce,
                Instr::Accumulate { out, .. } => cx.frame.loc(out).row == 0,
                _ => false,
            };
            if sums || !call.over.rows {
                if member.leads() {
                    run_call(cx, call, scratch);
                }
                return;
            }
            let (from, to) = cx.span.rows;
            let part = member.part(to - from, 1);
            let span = Span { rows: (from + part.0, from + part.1), ..cx.span };
            if part.0 < part.1 {
                run_call(&Context { span, ..*cx }, call, scratch);
            }
        }
    }
}

/// Runs a call. `scratch` holds at least what the call's plan asks for.
pub(crate) fn run_call(cx: &Context<'_>, call: &Call, scratch: &mut [u64]) {
    let real = match &call.instr {
        Instr::Pointwise { real, .. } => *real,
        Instr::Fill { out, .. } | Instr::Move { out, .. } | Instr::Accumulate { out, .. } => {
            cx.dtype(out).real()
        }
        Instr::MatMul { out, .. } | Instr::RowContract { out, .. } | Instr::Pack { out, .. } => {
            cx.dtype(out).real()
        }
        Instr::Structured { out, .. } => cx.dtype(out).real(),
        Instr::Cast { input, out } => return cast(cx, call, input, out),
    };
    match real {
        DType::F64 => run_as::<f64>(cx, call, bytemuck::cast_slice_mut(scratch)),
        DType::I32 => move_indices(cx, call),
        _ => run_as::<f32>(cx, call, bytemuck::cast_slice_mut(scratch)),
    }
}

fn run_as<R: RunStructured>(cx: &Context<'_>, call: &Call, scratch: &mut [R]) {
    match &call.instr {
        Instr::Pointwise { program, ins, outs, segments, width, .. } => {
            pointwise(cx, call, program, ins, outs, *segments, *width, scratch);
        }
        Instr::MatMul { a, packed, out, flags, k, m } => {
            matmul::<R>(cx, call, a, packed, out, *flags, *k, *m, Member::ALONE)
        }
        Instr::Pack { b, out, transpose, k, m } => {
            for block in cx.blocks(call, &[b], &[out], false) {
                for plane in 0..cx.dtype(b).planes() {
                    let (k, m) = (*k, *m);
                    // SAFETY: whole buffers; the packed one is written by nobody else.
                    unsafe {
                        let source = cx.view::<R>(b, plane, block).slice(1, k * m);
                        let len = cpu::packed_len::<R>(cx.isa, k, m);
                        let dst = cx.view::<R>(out, plane, block).slice_mut(1, len);
                        let ldb = if *transpose { k } else { m };
                        cpu::pack::<R>(cx.isa, k, m, source, ldb, *transpose, dst);
                    }
                }
            }
        }
        Instr::RowContract { l, r, out, flags, accumulate } => {
            row_contract::<R>(cx, call, l, r, out, *flags, *accumulate, Member::ALONE);
        }
        Instr::Structured { op, ins, out, reduce, accumulate, .. } => {
            structured(cx, call, op.as_ref(), ins, out, *reduce, *accumulate, scratch);
        }
        Instr::Move { input, out, map } => {
            let width = out.width();
            for block in cx.blocks(call, &[input], &[out], true) {
                for plane in 0..cx.dtype(out).planes() {
                    let (from, to) = (cx.view::<R>(input, plane, block), cx.view::<R>(out, plane, block));
                    for r in 0..block.rows {
                        // SAFETY: rows of the operands; input and output do not overlap.
                        unsafe {
                            let x =
                                View { ptr: from.ptr.add(r * from.stride), ..from }.slice(1, input.width());
                            let y = View { ptr: to.ptr.add(r * to.stride), ..to }.slice_mut(1, width);
                            match map {
                                None => y.copy_from_slice(x),
                                Some(map) => y.iter_mut().zip(map.iter()).for_each(|(y, &j)| {
                                    *y = if j < 0 { R::ZERO } else { x[j as usize] };
                                }),
                            }
                        }
                    }
                }
            }
        }
        Instr::Fill { out, re, im } => {
            for block in cx.blocks(call, &[], &[out], true) {
                fill_block(cx, out, block, R::from_f64(*re), R::from_f64(*im));
            }
        }
        Instr::Accumulate { input, out } => {
            for block in cx.blocks(call, &[input, out], &[out], false) {
                for plane in 0..cx.dtype(out).planes() {
                    let (from, to) = (cx.view::<R>(input, plane, block), cx.view::<R>(out, plane, block));
                    for r in 0..block.rows {
                        // SAFETY: rows of the operands; input and output do not overlap.
                        unsafe {
                            let x = View { ptr: from.ptr.add(r * from.stride), ..from }.slice(1, out.width());
                            let y = View { ptr: to.ptr.add(r * to.stride), ..to }.slice_mut(1, out.width());
                            y.iter_mut().zip(x).for_each(|(y, &x)| *y += x);
                        }
                    }
                }
            }
        }
        Instr::Cast { .. } => {}
    }
}

fn fill_block<R: Real>(cx: &Context<'_>, out: &Operand, block: Block, re: R, im: R) {
    for (plane, value) in [re, im].into_iter().enumerate().take(cx.dtype(out).planes()) {
        fill_plane(cx, out, plane, block, value);
    }
}

fn fill_plane<R: Real>(cx: &Context<'_>, out: &Operand, plane: usize, block: Block, value: R) {
    let to = cx.view::<R>(out, plane, block);
    for r in 0..block.rows {
        // SAFETY: a row of the operand, written by this call alone.
        unsafe { View { ptr: to.ptr.add(r * to.stride), ..to }.slice_mut(1, out.width()).fill(value) };
    }
}

/// Zeros in columns `first..last` of a plane whose entries are rows of `m`.
fn fill_columns<R: Real>(
    cx: &Context<'_>,
    out: &Operand,
    plane: usize,
    block: Block,
    m: usize,
    (first, last): (usize, usize),
) {
    let to = cx.view::<R>(out, plane, block);
    for r in 0..block.rows {
        for sub in 0..out.width() / m.max(1) {
            // SAFETY: a part of a row of the operand, written by this call alone.
            unsafe {
                let ptr = to.ptr.add(r * to.stride + sub * m + first);
                View { ptr, ..to }.slice_mut(1, last - first).fill(R::ZERO);
            }
        }
    }
}

#[allow(clippy::too_many_arguments)]
fn pointwise<R: Real>(
    cx: &Context<'_>,
    call: &Call,
    program: &Compiled,
    ins: &[(Operand, usize, Spread)],
    outs: &[(Operand, usize)],
    segments: usize,
    width: usize,
    scratch: &mut [R],
) {
    let reads: SmallVec<[&Operand; 8]> = ins.iter().map(|(o, ..)| o).collect();
    let writes: SmallVec<[&Operand; 8]> = outs.iter().map(|(o, _)| o).collect();
    let length = width / segments;
    for block in cx.blocks(call, &reads, &writes, true) {
        let views: SmallVec<[View<R>; 16]> =
            ins.iter().map(|(o, plane, _)| cx.view::<R>(o, *plane, block)).collect();
        let mut outs: SmallVec<[cpu::Out<R>; 8]> = outs
            .iter()
            .map(|(o, plane)| {
                let v = cx.view::<R>(o, *plane, block);
                let stream = cx.frame.streams && cx.bufs[o.buf].unread;
                cpu::Out { ptr: v.ptr, row_stride: v.stride, stream }
            })
            .collect();
        for segment in 0..segments {
            let ins: SmallVec<[cpu::In<R>; 16]> = views
                .iter()
                .zip(ins)
                .map(|(v, (.., spread))| cpu::In {
                    ptr: v.ptr.wrapping_add(spread.offset(segment, length)),
                    row_stride: v.stride,
                    col_stride: usize::from(length > 1 && spread.elements()),
                })
                .collect();
            // SAFETY: operands lie in their blocks; results overlap neither operands nor each other.
            unsafe { program.run(cx.isa, block.rows, length, &ins, &outs, scratch) };
            for out in &mut outs {
                out.ptr = out.ptr.wrapping_add(length);
            }
        }
    }
}

/// Terms of one plane of a complex product: whether to subtract, plane of `a`, plane of `b`.
type Terms = SmallVec<[(bool, usize, usize); 2]>;

/// Terms of the real and imaginary plane of `a' b'`.
fn product_terms(a_complex: bool, b_complex: bool, conj_a: bool, conj_b: bool) -> [Terms; 2] {
    let mut re = Terms::from_slice(&[(false, 0, 0)]);
    let mut im = Terms::new();
    if b_complex {
        im.push((conj_b, 0, 1));
    }
    if a_complex {
        im.push((conj_a, 1, 0));
    }
    if a_complex && b_complex {
        // −(±ai)(±bi)
        re.push((conj_a == conj_b, 1, 1));
    }
    [re, im]
}

fn matmul<R: Real>(
    cx: &Context<'_>,
    call: &Call,
    a: &Operand,
    packed: &Operand,
    out: &Operand,
    flags: MatMul,
    k: usize,
    m: usize,
    member: Member<'_>,
) {
    // Whole panels of the packed matrix.
    let (first, last) = member.part(m, R::panel(cx.isa) * R::lanes(cx.isa));
    if first == last && m > 0 {
        return;
    }
    let (a_complex, b_complex) = (cx.dtype(a).is_complex(), cx.dtype(packed).is_complex());
    let terms = product_terms(a_complex, b_complex, flags.conj_a, flags.conj_b);
    // The packed matrix may change from step to step, so it counts as an operand of the block.
    let fixed = cx.frame.loc(packed).step == 0;
    for block in cx.blocks(call, &[a], &[out], fixed) {
        for (plane, terms) in terms.iter().enumerate().take(cx.dtype(out).planes()) {
            let to = cx.view::<R>(out, plane, block);
            let mut order: Terms = terms.clone();
            order.sort_by_key(|t| t.0);
            let mut accumulate = Accumulate::Set;
            if order.first().is_none_or(|t| t.0) {
                // This plane alone: the other one may hold its result already.
                fill_columns::<R>(cx, out, plane, block, m, (first, last));
                accumulate = Accumulate::Add;
            }
            for (subtract, pa, pb) in order {
                let how = match (accumulate, subtract) {
                    (_, true) => Accumulate::Sub,
                    (how, false) => how,
                };
                let from = cx.view::<R>(a, pa, block);
                let weights = cx.view::<R>(packed, pb, Block { by_step: false, row: 0, ..block });
                let sub = a.width() / k.max(1);
                let merged = sub == 1 || (from.stride == a.width() && to.stride == out.width());
                let (calls, rows) = match (sub, merged) {
                    (1, _) => (1, block.rows),
                    (_, true) => (1, block.rows * sub),
                    (_, false) => (block.rows, sub),
                };
                let (lda, ldc) = if sub == 1 { (from.stride, to.stride) } else { (k, m) };
                for c in 0..calls {
                    // SAFETY: the operands lie in their blocks; the result overlaps neither of them.
                    unsafe {
                        let (x, y) = (from.ptr.add(c * from.stride), to.ptr.add(c * to.stride + first));
                        let (w, cols) = (weights.ptr.add(k * first), last - first);
                        cpu::gemm::gemm_packed_raw(cx.isa, rows, k, cols, x, lda, w, y, ldc, how);
                    }
                }
                accumulate = Accumulate::Add;
            }
        }
    }
}

fn row_contract<R: Real>(
    cx: &Context<'_>,
    call: &Call,
    l: &Operand,
    r: &Operand,
    out: &Operand,
    flags: RowContract,
    accumulate: bool,
    member: Member<'_>,
) {
    let (l_complex, r_complex) = (cx.dtype(l).is_complex(), cx.dtype(r).is_complex());
    let terms = product_terms(l_complex, r_complex, flags.conj_left, flags.conj_right);
    let (i, j) = (*l.dims.last().unwrap_or(&1), *r.dims.last().unwrap_or(&1));
    let sub = l.width() / i.max(1);
    let (first, last) = member.part(j, R::panel(cx.isa) * R::lanes(cx.isa));
    if first == last && j > 0 {
        return;
    }
    let per_step = cx.frame.loc(out).step != 0;
    if !accumulate {
        fill_empty_sum::<R>(cx, call, out);
    }
    // Rows of a whole chunk are summed in one chain, in the order of time; chunks are fixed by the problem.
    let mut blocks = cx.blocks(call, &[l, r], &[out], false);
    let mut steps = 1;
    if !per_step && let Some(first) = blocks.iter().min_by_key(|b| b.step).copied() {
        steps = blocks.len();
        blocks = SmallVec::from_slice(&[first]);
        if !accumulate {
            fill_block(cx, out, Block { rows: 1, ..first }, R::ZERO, R::ZERO);
        }
    }
    for block in blocks {
        let place = Block { rows: 1, row: 0, ..block };
        if per_step {
            fill_block(cx, out, place, R::ZERO, R::ZERO);
        }
        for (plane, terms) in terms.iter().enumerate().take(cx.dtype(out).planes()) {
            let z = cx.view::<R>(out, plane, place).ptr.wrapping_add(first);
            for &(subtract, pl, pr) in terms {
                let how = if subtract { Accumulate::Sub } else { Accumulate::Add };
                let rows_of = |o: &Operand, plane, column| {
                    let view = cx.view::<R>(o, plane, block);
                    let ptr = view.ptr.cast_const().wrapping_add(column);
                    Rows { ptr, stride: view.stride, group: cx.frame.loc(o).step }
                };
                let (left, right) = (rows_of(l, pl, 0), rows_of(r, pr, first));
                // An entry of several rows: they follow each other.
                let merged = sub == 1 || (left.stride == l.width() && right.stride == r.width());
                let count = last - first;
                // SAFETY: the operands lie in their blocks; the result overlaps neither of them.
                unsafe {
                    if merged {
                        let narrow = |rows: Rows<R>, width: usize| {
                            if sub == 1 { rows } else { Rows { stride: width, ..rows } }
                        };
                        let (left, right) = (narrow(left, i), narrow(right, j));
                        gemm_tn_raw(cx.isa, (steps, block.rows * sub), i, count, left, right, z, j, how);
                        continue;
                    }
                    for (step, row) in (0..steps).flat_map(|s| (0..block.rows).map(move |r| (s, r))) {
                        let entry = |rows: Rows<R>, width: usize| Rows {
                            ptr: rows.ptr.wrapping_add(step * rows.group + row * rows.stride),
                            stride: width,
                            group: 0,
                        };
                        gemm_tn_raw(cx.isa, (1, sub), i, count, entry(left, i), entry(right, j), z, j, how);
                    }
                }
            }
        }
    }
}

/// Zeros in a sum that has nothing to add: no rows or no steps.
fn fill_empty_sum<R: Real>(cx: &Context<'_>, call: &Call, out: &Operand) {
    let empty = |over: bool, (from, to): (usize, usize)| over && from >= to;
    if empty(call.over.rows, cx.span.rows) || empty(call.over.steps, cx.span.steps) {
        let (t0, t1) = if cx.frame.loc(out).step != 0 { cx.span.steps } else { (0, 1) };
        for step in t0..t1 {
            fill_block(cx, out, Block { step, row: 0, rows: 1, by_step: false }, R::ZERO, R::ZERO);
        }
    }
}

fn structured<R: RunStructured>(
    cx: &Context<'_>,
    call: &Call,
    op: &dyn Op,
    ins: &[Operand],
    out: &Operand,
    reduce: bool,
    accumulate: bool,
    scratch: &mut [R],
) {
    let Class::Structured(kernel) = op.class() else { return };
    let reads: SmallVec<[&Operand; 8]> = ins.iter().collect();
    let per_step = cx.frame.loc(out).step != 0;
    let together = !kernel.needs_origin() && (!reduce || !per_step);
    if reduce && !accumulate {
        fill_empty_sum::<R>(cx, call, out);
    }
    let blocks = if reduce {
        let moving = [out];
        let blocks = cx.blocks(call, &reads, if per_step { &moving } else { &[] }, together);
        if !per_step
            && !accumulate
            && let Some(first) = blocks.first()
        {
            let place = Block { rows: 1, row: 0, by_step: false, ..*first };
            fill_block(cx, out, place, R::ZERO, R::ZERO);
        }
        blocks
    } else {
        cx.blocks(call, &reads, &[out], together)
    };
    for block in blocks {
        let place = if reduce { Block { rows: 1, row: 0, by_step: false, ..block } } else { block };
        if reduce && per_step {
            fill_block(cx, out, place, R::ZERO, R::ZERO);
        }
        let inputs: SmallVec<[In<'_, R>; 8]> = ins
            .iter()
            .map(|o| {
                let width = o.width();
                // SAFETY: operands of the call; nothing writes them while the kernel runs.
                unsafe {
                    if cx.dtype(o) == DType::I32 {
                        let v = cx.view::<i32>(o, 0, block);
                        let len = if width == 0 { 0 } else { (block.rows - 1) * v.stride + width };
                        let index = if len == 0 { &[] } else { std::slice::from_raw_parts(v.ptr, len) };
                        return In::indices(index, v.stride, &o.dims);
                    }
                    let v = cx.view::<R>(o, 0, block);
                    let im: &[R] = if cx.dtype(o).is_complex() {
                        cx.view::<R>(o, 1, block).slice(block.rows, width)
                    } else {
                        &[]
                    };
                    In::new(v.slice(block.rows, width), im, v.stride, &o.dims)
                }
            })
            .collect();
        let width = out.width();
        // SAFETY: the result of the call; it overlaps no operand, and its planes do not overlap.
        let output = unsafe {
            let v = cx.view::<R>(out, 0, place);
            let im: &mut [R] = if cx.dtype(out).is_complex() {
                cx.view::<R>(out, 1, place).slice_mut(place.rows, width)
            } else {
                &mut []
            };
            Out::new(v.slice_mut(place.rows, width), im, v.stride, &out.dims)
        };
        let origin = Origin {
            step: block.step,
            row: cx.span.first_row + block.row,
            steps: cx.span.total_steps,
            batch: cx.span.total_rows,
        };
        let args = Args { rows: block.rows, inputs: &inputs, output, scratch: &mut *scratch, origin };
        R::run_structured(kernel, args);
    }
}

fn cast(cx: &Context<'_>, call: &Call, input: &Operand, out: &Operand) {
    for block in cx.blocks(call, &[input], &[out], true) {
        for plane in 0..cx.dtype(out).planes() {
            match (cx.dtype(input).real(), cx.dtype(out).real()) {
                (DType::F32, DType::F64) => cast_plane::<f32, f64>(cx, input, out, plane, block),
                (DType::F64, DType::F32) => cast_plane::<f64, f32>(cx, input, out, plane, block),
                (DType::F64, _) => cast_plane::<f64, f64>(cx, input, out, plane, block),
                _ => cast_plane::<f32, f32>(cx, input, out, plane, block),
            }
        }
    }
}

fn cast_plane<A: Real, B: Real>(
    cx: &Context<'_>,
    input: &Operand,
    out: &Operand,
    plane: usize,
    block: Block,
) {
    let (from, to) = (cx.view::<A>(input, plane, block), cx.view::<B>(out, plane, block));
    for r in 0..block.rows {
        // SAFETY: rows of the operands; input and output do not overlap.
        unsafe {
            let x = View { ptr: from.ptr.add(r * from.stride), ..from }.slice(1, out.width());
            let y = View { ptr: to.ptr.add(r * to.stride), ..to }.slice_mut(1, out.width());
            y.iter_mut().zip(x).for_each(|(y, x)| *y = B::from_f64(x.to_f64()));
        }
    }
}

/// Rearranges indices: they have no arithmetic, so they are moved as the bits of an `f32`.
fn move_indices(cx: &Context<'_>, call: &Call) {
    if let Instr::Move { .. } = &call.instr {
        run_as::<f32>(cx, call, &mut []);
    }
}
