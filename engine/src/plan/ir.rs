//! What a plan is made of: buffers, operands, instructions.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::cpu::Compiled;
use crate::dtype::DType;
use crate::matmul::{MatMul, RowContract};
use crate::op::Op;
use crate::shape::{Dims, Lead};

/// Number of a buffer in its program.
pub(crate) type BufId = usize;

/// Where the bytes of a buffer live.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum BufKind {
    /// Allocated by liveness: in a step, one entry per row for values that never leave their loop (`steps` false)
    /// or one per row and step of a chunk.
    Temp,
    /// State number `i` of a scan: one more slot than steps.
    State(usize),
    /// Kept value number `k` of a recorded scan.
    Kept(usize),
    /// State number `i` of the scan a step is the adjoint of.
    KeptState(usize),
    /// A value of the enclosing program, by its place in the step's list of external operands.
    External(usize),
    /// Running sum number `s` of the scan.
    Sum(usize),
    /// Stack number `s` of values without a row axis; one per tile, put together afterwards.
    SharedStack(usize),
    /// Parameter or input of the program, by number.
    Bound(usize),
    /// Constant of the program, by number.
    Constant(usize),
}

/// A buffer: `[T?, N?, width]` per real plane.
#[derive(Clone, Debug)]
pub(crate) struct Buf {
    pub(crate) kind: BufKind,
    pub(crate) dtype: DType,
    /// Elements of one entry.
    pub(crate) width: usize,
    /// Which batch axes it has. In a step, a time axis means one entry for each step of the chunk or segment.
    pub(crate) lead: Lead,
    /// A kept value that the program that keeps it does not read.
    pub(crate) unread: bool,
    /// For `explain`.
    pub(crate) label: String,
}

/// A view of a buffer: `width` elements of every entry from `col`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Operand {
    pub(crate) buf: BufId,
    pub(crate) col: usize,
    pub(crate) dims: Dims,
    /// Slots to add to the number of the step (states are stored before and after each step).
    pub(crate) shift: usize,
}

impl Operand {
    pub(crate) fn width(&self) -> usize {
        self.dims.iter().product()
    }
}

/// Where a value is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Place {
    /// In a buffer.
    At(Operand),
    /// Nowhere: the same number everywhere.
    Scalar { re: f64, im: f64 },
}

/// Which entries an instruction runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Over {
    /// All steps at hand (else once).
    pub(crate) steps: bool,
    /// All rows at hand (else one).
    pub(crate) rows: bool,
}

/// How a pointwise operand meets the elements of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Spread {
    /// An element each.
    Own,
    /// One element for all.
    One,
    /// It broadcasts: a part of it for each segment.
    Part {
        /// The part has an element for each of the segment (else one for all).
        elements: bool,
        /// Where the part of a segment is.
        axes: SmallVec<[Axis; 2]>,
    },
}

/// An axis of the segments of an entry: segment `s` is at `s / every % count` of it, `step` elements apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Axis {
    pub(crate) every: usize,
    pub(crate) count: usize,
    pub(crate) step: usize,
}

impl Spread {
    /// The offset of the operand's first element for segment `s`, with `length` elements a segment.
    pub(crate) fn offset(&self, s: usize, length: usize) -> usize {
        match self {
            Spread::Own => s * length,
            Spread::One => 0,
            Spread::Part { axes, .. } => axes.iter().map(|a| s / a.every % a.count * a.step).sum(),
        }
    }

    /// Whether each element of a segment has its own.
    pub(crate) fn elements(&self) -> bool {
        matches!(self, Spread::Own | Spread::Part { elements: true, .. })
    }
}

/// One kernel call.
#[derive(Clone, Debug)]
pub(crate) enum Instr {
    /// A fused chain of pointwise operations. Operands name a plane each (0 real, 1 imaginary). The elements of an
    /// entry are so many equal segments.
    Pointwise {
        program: Arc<Compiled>,
        ins: Vec<(Operand, usize, Spread)>,
        outs: Vec<(Operand, usize)>,
        segments: usize,
        width: usize,
        real: DType,
        names: Vec<&'static str>,
        /// What an entry takes, in additions.
        effort: f64,
    },
    /// `out = a' b'` with `b` packed.
    MatMul { a: Operand, packed: Operand, out: Operand, flags: MatMul, k: usize, m: usize },
    /// Packs the matrix `b` for [`Instr::MatMul`].
    Pack { b: Operand, out: Operand, transpose: bool, k: usize, m: usize },
    /// `out += Σ l ⊗ r`; starts from zero unless `accumulate`.
    RowContract { l: Operand, r: Operand, out: Operand, flags: RowContract, accumulate: bool },
    /// A structured kernel. `reduce`: adds to the output, which starts from zero unless `accumulate`.
    Structured {
        op: Arc<dyn Op>,
        ins: Vec<Operand>,
        out: Operand,
        reduce: bool,
        accumulate: bool,
        scratch: usize,
    },
    /// Elements rearranged: `out[j] = input[map[j]]` (0 for −1); no map is a copy.
    Move { input: Operand, out: Operand, map: Option<Arc<[i32]>> },
    /// The same real number everywhere.
    Fill { out: Operand, re: f64, im: f64 },
    /// Another precision.
    Cast { input: Operand, out: Operand },
    /// `out += input`, step by step.
    Accumulate { input: Operand, out: Operand },
}

/// A kernel call and the entries it runs over.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) instr: Instr,
    pub(crate) over: Over,
    /// Floating-point operations of one entry.
    pub(crate) flops: f64,
}

impl Instr {
    /// Name for `explain`.
    pub(crate) fn name(&self) -> String {
        match self {
            Instr::Pointwise { names, .. } => names.join("+"),
            Instr::MatMul { .. } => "matmul".into(),
            Instr::Pack { .. } => "pack".into(),
            Instr::RowContract { .. } => "row_contract".into(),
            Instr::Structured { op, .. } => op.name().into(),
            Instr::Move { map: None, .. } => "copy".into(),
            Instr::Move { .. } => "rearrange".into(),
            Instr::Fill { .. } => "fill".into(),
            Instr::Cast { .. } => "cast".into(),
            Instr::Accumulate { .. } => "accumulate".into(),
        }
    }

    /// Operands read.
    pub(crate) fn reads(&self) -> Vec<&Operand> {
        match self {
            Instr::Pointwise { ins, .. } => ins.iter().map(|(o, ..)| o).collect(),
            Instr::MatMul { a, packed, .. } => vec![a, packed],
            Instr::Pack { b, .. } => vec![b],
            Instr::RowContract { l, r, out, accumulate, .. } => {
                if *accumulate {
                    vec![l, r, out]
                } else {
                    vec![l, r]
                }
            }
            Instr::Structured { ins, .. } => ins.iter().collect(),
            Instr::Move { input, .. } | Instr::Cast { input, .. } => vec![input],
            Instr::Fill { .. } => vec![],
            Instr::Accumulate { input, out } => vec![input, out],
        }
    }

    /// Operands written.
    pub(crate) fn writes(&self) -> Vec<&Operand> {
        match self {
            Instr::Pointwise { outs, .. } => outs.iter().map(|(o, _)| o).collect(),
            Instr::MatMul { out, .. }
            | Instr::Pack { out, .. }
            | Instr::RowContract { out, .. }
            | Instr::Structured { out, .. }
            | Instr::Move { out, .. }
            | Instr::Fill { out, .. }
            | Instr::Cast { out, .. }
            | Instr::Accumulate { out, .. } => vec![out],
        }
    }

    /// Real elements of scratch memory a call needs.
    pub(crate) fn scratch(&self) -> usize {
        match self {
            Instr::Pointwise { program, .. } => program.scratch_len(),
            Instr::Structured { scratch, .. } => *scratch,
            _ => 0,
        }
    }
}
