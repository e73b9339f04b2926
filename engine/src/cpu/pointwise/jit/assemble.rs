//! From recorded operations to AVX-512 code: a loop over rows, in it one over the vectors of a row, in it the
//! operations in their order, and all stores after the last of them.
//!
//! Each operation waits for the one before it, and the processor looks ahead no further than some two vectors' worth of
//! them. So two vectors are worked on in turns, where there are registers for both.
//!
//! Registers: values are loaded where they are first read and stay until they are needed elsewhere; then the one
//! whose next reader is farthest goes, to memory if it cannot be had again from an operand or a constant. Constants
//! are read from memory, spread over a vector by the instruction that reads them; those read most get the
//! registers that nothing else needs.

use std::collections::HashMap;

use iced_x86::{
    BlockEncoder, BlockEncoderOptions, Code, Instruction, InstructionBlock, MemoryOperand, Register,
};

use super::super::record::{Id, Node, Prim, Recording};
use super::codes::Codes;

/// Bytes of a vector register.
pub(super) const VECTOR: usize = 64;

// Words of the table that the code is called with.

/// Rows to do, counted down.
pub(super) const ROWS_LEFT: usize = 0;
/// Bytes of the whole vectors of a row.
pub(super) const WHOLE_BYTES: usize = 1;
/// Mask of the lanes behind them.
pub(super) const LAST_LANES: usize = 2;
/// Byte of the first row to begin at; where a guard stopped.
pub(super) const OFFSET: usize = 3;
/// Byte of a row before which two whole vectors begin.
pub(super) const PAIR_BYTES: usize = 4;
/// The first rows of operands and results; then, as many, bytes from row to row.
pub(super) const POINTERS: usize = 5;

/// Machine code and what it needs.
pub(super) struct Assembled {
    pub(super) code: Vec<u8>,
    /// Bits of the constants, each as wide as an element.
    pub(super) constants: Vec<u64>,
    /// Vectors of memory for values that have no register.
    pub(super) spills: usize,
}

/// What code is assembled from.
pub(super) struct Job<'a> {
    pub(super) recording: &'a Recording,
    /// Operands.
    pub(super) loads: usize,
    /// Results.
    pub(super) stores: usize,
    /// Bit `i`: operand `i` has one value a row.
    pub(super) scalars: u64,
    /// Bit `i`: result `i`, whose rows begin at multiples of a vector, goes past the caches.
    pub(super) streams: u64,
    /// Whether elements are f64.
    pub(super) double: bool,
}

const TABLE: Register = Register::RDI;
const CONSTANTS: Register = Register::RSI;
const SPILLS: Register = Register::RDX;
const COLUMN: Register = Register::RCX;
const TEMPORARY: Register = Register::RAX;
const ROW_POINTERS: [Register; 10] = [
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::RBX,
    Register::RBP,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];
/// Those of the pointers' registers that belong to the caller.
const SAVED: [Register; 6] =
    [Register::RBX, Register::RBP, Register::R12, Register::R13, Register::R14, Register::R15];
const ZMM: usize = 32;
/// Holds the lanes of the last vector of a row.
const TAIL_MASK: Register = Register::K7;
/// Masks for comparisons: `k1` to `k6`.
const MASKS: usize = 6;

/// The code, or none for a program that it has no means for.
pub(super) fn assemble(job: &Job<'_>) -> Option<Assembled> {
    // Once to see how many vectors at once there are registers for and which are left over, once to give those to
    // constants.
    let one = Assembler::new(job, false, &[]).whole()?;
    let two = Assembler::new(job, true, &[]).whole().filter(|two| two.spills == 0);
    let (pairs, first) = match two {
        Some(two) => (true, two),
        None => (false, one),
    };
    let free = if first.spills > 0 { 0 } else { ZMM - first.most_registers };
    let mut constants: Vec<(usize, u64)> = first.constant_reads.iter().map(|(&bits, &n)| (n, bits)).collect();
    constants.sort_unstable_by_key(|&(n, bits)| (std::cmp::Reverse(n), bits));
    let fixed: Vec<u64> = constants.iter().take(free).map(|&(_, bits)| bits).collect();
    Assembler::new(job, pairs, &fixed).whole()?.finish()
}

/// What is done in one round of a loop: the operations over one vector, or over several, each in turn.
struct Body {
    nodes: Vec<Node>,
    /// By node: how many vectors ahead of the column its operand lies.
    ahead: Vec<usize>,
    /// Where each node is read, as positions among the nodes; the stores follow.
    uses: Vec<Vec<u32>>,
    /// Results, their values, and how many vectors ahead of the column they go.
    stores: Vec<(u16, Id, usize)>,
}

impl Body {
    /// What a store or a guard needs, in order.
    fn new(job: &Job<'_>, vectors: usize) -> Body {
        let recorded = &job.recording.nodes;
        let mut needed = vec![false; recorded.len()];
        for &(_, id) in &job.recording.stores {
            needed[id as usize] = true;
        }
        for (id, node) in recorded.iter().enumerate().rev() {
            needed[id] |= node.prim == Prim::Guard;
            if needed[id] {
                node.args().iter().for_each(|&a| needed[a as usize] = true);
            }
        }
        let mut body = Body { nodes: Vec::new(), ahead: Vec::new(), uses: Vec::new(), stores: Vec::new() };
        // By vector and recorded node; what is the same for all vectors is there once.
        let mut here: Vec<Vec<Id>> = vec![vec![0; recorded.len()]; vectors];
        for id in (0..recorded.len()).filter(|&id| needed[id]) {
            let node = recorded[id];
            let same = match node.prim {
                Prim::Constant(_) => true,
                Prim::In(i) => job.scalars >> i & 1 == 1,
                _ => node.args().iter().all(|&a| here[0][a as usize] == here[vectors - 1][a as usize]),
            };
            for v in 0..vectors {
                if v > 0 && (same || vectors == 1) {
                    here[v][id] = here[0][id];
                    continue;
                }
                let next = body.nodes.len();
                let mut args = [0; 3];
                for (to, &a) in args.iter_mut().zip(node.args()) {
                    *to = here[v][a as usize];
                    body.uses[*to as usize].push(next as u32);
                }
                here[v][id] = next as Id;
                body.nodes.push(Node { prim: node.prim, args });
                body.ahead.push(v);
                body.uses.push(Vec::new());
            }
        }
        for &(slot, id) in &job.recording.stores {
            for (v, here) in here.iter().enumerate() {
                let at = body.nodes.len() + body.stores.len();
                body.uses[here[id as usize] as usize].push(at as u32);
                body.stores.push((slot, here[id as usize], v));
            }
        }
        body
    }
}

/// An instruction's last operand.
#[derive(Clone, Copy)]
enum Operand {
    Register(Register),
    Memory(MemoryOperand),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Label {
    Row,
    Pair,
    Odd,
    Column,
    Last,
    RowEnd,
    Bail,
    Exit,
}

struct Assembler<'a> {
    job: &'a Job<'a>,
    codes: Codes,
    code: Vec<Instruction>,
    labels: HashMap<Label, u64>,
    branches: Vec<(usize, Label)>,
    constants: Vec<u64>,
    constant_slot: HashMap<u64, usize>,
    /// How often code reads each constant from memory.
    constant_reads: HashMap<u64, usize>,
    /// Constants with a register of their own, and which.
    fixed: Vec<(u64, usize)>,
    /// Whether there is a loop over two vectors at once.
    pairs: bool,
    spills: usize,
    most_registers: usize,
    // Of one body:
    body: Body,
    /// Whether it is the one for the last, partial vector of a row.
    last: bool,
    spilled: usize,
    at: u32,
    register_of: Vec<Option<usize>>,
    mask_of: Vec<Option<usize>>,
    spill_of: Vec<Option<usize>>,
    held: [Option<Id>; ZMM],
    pinned: u32,
    masks: [bool; MASKS],
}

impl<'a> Assembler<'a> {
    fn new(job: &'a Job<'a>, pairs: bool, fixed: &[u64]) -> Assembler<'a> {
        Assembler {
            job,
            codes: Codes { double: job.double },
            code: Vec::new(),
            labels: HashMap::new(),
            branches: Vec::new(),
            constants: Vec::new(),
            constant_slot: HashMap::new(),
            constant_reads: HashMap::new(),
            fixed: fixed.iter().enumerate().map(|(i, &bits)| (bits, ZMM - 1 - i)).collect(),
            pairs,
            spills: 0,
            most_registers: 0,
            body: Body::new(job, 1),
            last: false,
            spilled: 0,
            at: 0,
            register_of: Vec::new(),
            mask_of: Vec::new(),
            spill_of: Vec::new(),
            held: [None; ZMM],
            pinned: 0,
            masks: [false; MASKS],
        }
    }

    /// All of the code.
    fn whole(mut self) -> Option<Self> {
        let pointers = (self.job.loads + self.job.stores).min(ROW_POINTERS.len());
        for r in SAVED {
            self.emit(Instruction::with1(Code::Push_r64, r).ok()?);
        }
        for (i, &r) in ROW_POINTERS[..pointers].iter().enumerate() {
            self.emit(Instruction::with2(Code::Mov_r64_rm64, r, word(POINTERS + i)).ok()?);
        }
        for (bits, register) in self.fixed.clone() {
            let from = self.constant(bits);
            self.emit(Instruction::with2(self.codes.broadcast(), zmm(register), plain(from)).ok()?);
        }
        self.emit(Instruction::with2(Code::VEX_Kmovw_kr_km16, TAIL_MASK, word(LAST_LANES)).ok()?);
        self.emit(Instruction::with2(Code::Mov_r64_rm64, COLUMN, word(OFFSET)).ok()?);

        self.label(Label::Row);
        if self.pairs {
            self.emit(Instruction::with2(Code::Cmp_r64_rm64, COLUMN, word(PAIR_BYTES)).ok()?);
            self.branch(Code::Jae_rel32_64, Label::Odd)?;
            self.label(Label::Pair);
            let one = std::mem::replace(&mut self.body, Body::new(self.job, 2));
            self.body(false)?;
            self.body = one;
            self.emit(Instruction::with2(Code::Add_rm64_imm32, COLUMN, 2 * VECTOR as i32).ok()?);
            self.emit(Instruction::with2(Code::Cmp_r64_rm64, COLUMN, word(PAIR_BYTES)).ok()?);
            self.branch(Code::Jb_rel32_64, Label::Pair)?;
            self.label(Label::Odd);
        }
        self.emit(Instruction::with2(Code::Cmp_r64_rm64, COLUMN, word(WHOLE_BYTES)).ok()?);
        self.branch(Code::Jae_rel32_64, Label::Last)?;
        self.label(Label::Column);
        self.body(false)?;
        self.emit(Instruction::with2(Code::Add_rm64_imm8, COLUMN, VECTOR as i32).ok()?);
        self.emit(Instruction::with2(Code::Cmp_r64_rm64, COLUMN, word(WHOLE_BYTES)).ok()?);
        self.branch(Code::Jb_rel32_64, Label::Column)?;

        self.label(Label::Last);
        self.emit(Instruction::with2(Code::Cmp_rm64_imm8, word(LAST_LANES), 0).ok()?);
        self.branch(Code::Je_rel32_64, Label::RowEnd)?;
        self.body(true)?;

        self.label(Label::RowEnd);
        self.emit(Instruction::with2(Code::Xor_r32_rm32, Register::ECX, Register::ECX).ok()?);
        self.emit(Instruction::with2(Code::Xor_r32_rm32, Register::EAX, Register::EAX).ok()?);
        self.emit(Instruction::with2(Code::Sub_rm64_imm8, word(ROWS_LEFT), 1).ok()?);
        self.branch(Code::Je_rel32_64, Label::Exit)?;
        let all = self.job.loads + self.job.stores;
        for i in 0..all {
            let stride = word(POINTERS + all + i);
            match ROW_POINTERS.get(i) {
                Some(&r) => self.emit(Instruction::with2(Code::Add_r64_rm64, r, stride).ok()?),
                None => {
                    self.emit(Instruction::with2(Code::Mov_r64_rm64, TEMPORARY, stride).ok()?);
                    self.emit(Instruction::with2(Code::Add_rm64_r64, word(POINTERS + i), TEMPORARY).ok()?);
                }
            }
        }
        self.branch(Code::Jmp_rel32_64, Label::Row)?;

        self.label(Label::Bail);
        self.emit(Instruction::with2(Code::Mov_rm64_r64, word(OFFSET), COLUMN).ok()?);
        self.emit(Instruction::with2(Code::Mov_r32_imm32, Register::EAX, 1).ok()?);
        self.label(Label::Exit);
        for r in SAVED.into_iter().rev() {
            self.emit(Instruction::with1(Code::Pop_r64, r).ok()?);
        }
        if self.job.streams != 0 {
            // Before anything that tells other threads.
            self.emit(Instruction::with(Code::Sfence));
        }
        self.emit(Instruction::with(Code::VEX_Vzeroupper));
        self.emit(Instruction::with(Code::Retnq));
        Some(self)
    }

    /// The bytes.
    fn finish(mut self) -> Option<Assembled> {
        for (at, label) in std::mem::take(&mut self.branches) {
            self.code[at].set_near_branch64(*self.labels.get(&label)?);
        }
        // Nothing in the code depends on where it lies.
        let block = InstructionBlock::new(&self.code, 0);
        let code = BlockEncoder::encode(64, block, BlockEncoderOptions::NONE).ok()?.code_buffer;
        Some(Assembled { code, constants: self.constants, spills: self.spills })
    }

    fn emit(&mut self, mut instruction: Instruction) {
        instruction.set_ip(self.code.len() as u64 + 1);
        self.code.push(instruction);
    }

    /// The next instruction is called so.
    fn label(&mut self, label: Label) {
        self.labels.insert(label, self.code.len() as u64 + 1);
    }

    fn branch(&mut self, code: Code, label: Label) -> Option<()> {
        self.branches.push((self.code.len(), label));
        self.emit(Instruction::with_branch(code, 0).ok()?);
        Some(())
    }

    fn node(&self, id: Id) -> Node {
        self.body.nodes[id as usize]
    }

    /// The operations of the body and the stores of what they make.
    fn body(&mut self, last: bool) -> Option<()> {
        self.last = last;
        self.spilled = 0;
        let nodes = self.body.nodes.len();
        for table in [&mut self.register_of, &mut self.mask_of, &mut self.spill_of] {
            table.clear();
            table.resize(nodes, None);
        }
        self.held = [None; ZMM];
        self.masks = [false; MASKS];
        for (id, node) in self.body.nodes.iter().enumerate() {
            let Prim::Constant(bits) = node.prim else { continue };
            if let Some(&(_, register)) = self.fixed.iter().find(|&&(fixed, _)| fixed == bits) {
                self.register_of[id] = Some(register);
                self.held[register] = Some(id as Id);
            }
        }
        for id in 0..nodes {
            self.at = id as u32;
            self.pinned = 0;
            self.operation(id as Id)?;
        }
        for k in 0..self.body.stores.len() {
            let (slot, id, ahead) = self.body.stores[k];
            self.at = (nodes + k) as u32;
            self.pinned = 0;
            let from = self.register(id)?;
            let to = self.pointer(self.job.loads + usize::from(slot), Some(ahead))?;
            let past = self.job.streams >> slot & 1 == 1 && !last;
            let code = if past { self.codes.store_past() } else { self.codes.store() };
            let mut store = Instruction::with2(code, to, from).ok()?;
            if last {
                store.set_op_mask(TAIL_MASK);
            }
            self.emit(store);
            self.release(id);
        }
        Some(())
    }

    fn operation(&mut self, id: Id) -> Option<()> {
        let node = self.node(id);
        let [a, b, c] = node.args;
        match node.prim {
            Prim::In(_) | Prim::Constant(_) => return Some(()),
            Prim::MulAdd | Prim::NegMulAdd => return self.fused(id, node),
            Prim::Lt | Prim::Le | Prim::Eq => {
                let x = self.register(a)?;
                let y = self.operand(b)?;
                self.release_all(&node);
                let mask = self.masks.iter().position(|taken| !taken)?;
                self.masks[mask] = true;
                self.mask_of[id as usize] = Some(mask);
                let (code, how) = self.codes.compare(node.prim);
                self.emit(match y {
                    Operand::Register(y) => Instruction::with4(code, k(mask), x, y, how).ok()?,
                    Operand::Memory(y) => Instruction::with4(code, k(mask), x, y, how).ok()?,
                });
            }
            Prim::Guard => {
                let mask = k(self.mask_of[a as usize]?);
                self.emit(Instruction::with2(Code::VEX_Kortestw_kr_kr, mask, mask).ok()?);
                self.branch(Code::Jne_rel32_64, Label::Bail)?;
                self.release(a);
            }
            Prim::Select => {
                let mask = k(self.mask_of[a as usize]?);
                let zero = self.node(c).prim == Prim::Constant(0);
                let mut instruction = if zero {
                    let x = self.register(b)?;
                    self.release_all(&node);
                    let to = self.fresh(id)?;
                    let mut copy = Instruction::with2(self.codes.load(), to, x).ok()?;
                    copy.set_zeroing_masking(true);
                    copy
                } else {
                    let y = self.register(c)?;
                    let x = self.operand(b)?;
                    self.release_all(&node);
                    let to = self.fresh(id)?;
                    three(self.codes.blend(), to, y, x)?
                };
                instruction.set_op_mask(mask);
                self.emit(instruction);
            }
            prim if prim.arity() == 1 => {
                let x = self.operand(a)?;
                self.release_all(&node);
                let to = self.fresh(id)?;
                let (code, immediate) = self.codes.unary(prim)?;
                self.emit(match (x, immediate) {
                    (Operand::Register(x), None) => Instruction::with2(code, to, x).ok()?,
                    (Operand::Memory(x), None) => Instruction::with2(code, to, x).ok()?,
                    (Operand::Register(x), Some(i)) => Instruction::with3(code, to, x, i).ok()?,
                    (Operand::Memory(x), Some(i)) => Instruction::with3(code, to, x, i).ok()?,
                });
            }
            prim => {
                let commutes =
                    matches!(prim, Prim::Add | Prim::Mul | Prim::And | Prim::Or | Prim::Xor) && a != b;
                let (a, b) =
                    if commutes && self.in_memory(a) && !self.in_memory(b) { (b, a) } else { (a, b) };
                let x = self.register(a)?;
                let y = self.operand(b)?;
                self.release_all(&node);
                let to = self.fresh(id)?;
                self.emit(three(self.codes.binary(prim)?, to, x, y)?);
            }
        }
        Some(())
    }

    /// `± a·b + c`, in whichever of the three forms spares a copy.
    fn fused(&mut self, id: Id, node: Node) -> Option<()> {
        let [mut a, mut b, c] = node.args;
        if self.in_memory(a) && !self.in_memory(b) {
            (a, b) = (b, a);
        }
        let from_memory =
            |s: &Self, id: Id| s.in_memory(id) && [a, b, c].iter().filter(|&&x| x == id).count() == 1;
        // One operand at most may be in memory: an addend that dies in its register is the best place for the sum.
        let (memory_b, memory_c) =
            if from_memory(self, b) { (true, false) } else { (false, from_memory(self, c)) };
        let ra = self.register(a)?;
        let (rb, rc);
        if memory_c {
            rb = Operand::Register(self.register(b)?);
            rc = self.operand(c)?;
        } else {
            rc = Operand::Register(self.register(c)?);
            rb = if memory_b { self.operand(b)? } else { Operand::Register(self.register(b)?) };
        }
        let dies = |s: &Self, id: Id| !s.is_fixed(id) && s.dies(id);
        let (a_dies, b_dies, c_dies) = (dies(self, a), dies(self, b), dies(self, c));
        let form = |s: &Self, n| s.codes.form(node.prim == Prim::NegMulAdd, n);
        let instruction = match (rb, rc) {
            (Operand::Register(rb), Operand::Memory(rc)) => {
                let (to, other) = if a_dies {
                    (self.take(id, a, &node)?, rb)
                } else if b_dies {
                    (self.take(id, b, &node)?, ra)
                } else {
                    self.release_all(&node);
                    let to = self.fresh(id)?;
                    self.copy(to, ra)?;
                    (to, rb)
                };
                three(form(self, 213), to, other, Operand::Memory(rc))?
            }
            (Operand::Memory(rb), Operand::Register(rc)) => {
                if c_dies {
                    let to = self.take(id, c, &node)?;
                    three(form(self, 231), to, ra, Operand::Memory(rb))?
                } else if a_dies {
                    let to = self.take(id, a, &node)?;
                    three(form(self, 132), to, rc, Operand::Memory(rb))?
                } else {
                    self.release_all(&node);
                    let to = self.fresh(id)?;
                    self.copy(to, rc)?;
                    three(form(self, 231), to, ra, Operand::Memory(rb))?
                }
            }
            (Operand::Register(rb), Operand::Register(rc)) => {
                if c_dies {
                    let to = self.take(id, c, &node)?;
                    three(form(self, 231), to, ra, Operand::Register(rb))?
                } else if a_dies {
                    let to = self.take(id, a, &node)?;
                    three(form(self, 213), to, rb, Operand::Register(rc))?
                } else if b_dies {
                    let to = self.take(id, b, &node)?;
                    three(form(self, 213), to, ra, Operand::Register(rc))?
                } else {
                    self.release_all(&node);
                    let to = self.fresh(id)?;
                    self.copy(to, rc)?;
                    three(form(self, 231), to, ra, Operand::Register(rb))?
                }
            }
            (Operand::Memory(_), Operand::Memory(_)) => return None,
        };
        self.emit(instruction);
        Some(())
    }

    /// The result takes over the register of an argument that is not read again.
    fn take(&mut self, id: Id, from: Id, node: &Node) -> Option<Register> {
        let r = self.register_of[from as usize].take()?;
        self.held[r] = None;
        self.release_all(node);
        self.held[r] = Some(id);
        self.register_of[id as usize] = Some(r);
        Some(zmm(r))
    }

    fn copy(&mut self, to: Register, from: Register) -> Option<()> {
        self.emit(Instruction::with2(self.codes.load(), to, from).ok()?);
        Some(())
    }

    /// Whether no instruction after this one reads the value.
    fn dies(&self, id: Id) -> bool {
        self.body.uses[id as usize].last().is_none_or(|&at| at <= self.at)
    }

    fn next_use(&self, id: Id) -> u32 {
        let uses = &self.body.uses[id as usize];
        uses.get(uses.partition_point(|&at| at < self.at)).copied().unwrap_or(u32::MAX)
    }

    fn is_fixed(&self, id: Id) -> bool {
        matches!(self.node(id).prim, Prim::Constant(bits) if self.fixed.iter().any(|&(fixed, _)| fixed == bits))
    }

    /// Whether an instruction would rather read it from memory than have it loaded.
    fn in_memory(&self, id: Id) -> bool {
        if self.register_of[id as usize].is_some() {
            return false;
        }
        match self.node(id).prim {
            Prim::Constant(_) => true,
            Prim::In(i) => self.scalar(i) || (!self.last && self.body.uses[id as usize].len() == 1),
            _ => self.dies(id),
        }
    }

    fn scalar(&self, i: u16) -> bool {
        self.job.scalars >> i & 1 == 1
    }

    /// The value as an instruction's last operand.
    fn operand(&mut self, id: Id) -> Option<Operand> {
        if !self.in_memory(id) {
            return Some(Operand::Register(self.register(id)?));
        }
        Some(Operand::Memory(match self.node(id).prim {
            Prim::Constant(bits) => self.constant(bits),
            Prim::In(i) => self.input(id, i)?,
            _ => spill(self.spill_of[id as usize]?),
        }))
    }

    /// The value in a register, which stays its own until the instruction is done.
    fn register(&mut self, id: Id) -> Option<Register> {
        if let Some(r) = self.register_of[id as usize] {
            self.pinned |= 1 << r;
            return Some(zmm(r));
        }
        let to = self.fresh(id)?;
        let mut load = match self.node(id).prim {
            Prim::Constant(bits) => {
                let from = self.constant(bits);
                Instruction::with2(self.codes.broadcast(), to, plain(from)).ok()?
            }
            Prim::In(i) => {
                let from = self.input(id, i)?;
                let code = if self.scalar(i) { self.codes.broadcast() } else { self.codes.load() };
                Instruction::with2(code, to, plain(from)).ok()?
            }
            _ => {
                let from = spill(self.spill_of[id as usize]?);
                Instruction::with2(self.codes.load(), to, from).ok()?
            }
        };
        if self.last && matches!(self.node(id).prim, Prim::In(i) if !self.scalar(i)) {
            load.set_op_mask(TAIL_MASK);
            load.set_zeroing_masking(true);
        }
        self.emit(load);
        Some(to)
    }

    /// A register for a value, taken from another if there is none left.
    fn fresh(&mut self, id: Id) -> Option<Register> {
        let free = (0..ZMM).find(|&r| self.held[r].is_none());
        let r = match free {
            Some(r) => r,
            None => {
                let (r, victim) = (0..ZMM)
                    .filter(|r| self.pinned >> r & 1 == 0)
                    .filter_map(|r| Some((r, self.held[r]?)))
                    .filter(|&(_, v)| !self.is_fixed(v))
                    .max_by_key(|&(_, v)| self.next_use(v))?;
                let again = matches!(self.node(victim).prim, Prim::In(_) | Prim::Constant(_));
                if !again && self.spill_of[victim as usize].is_none() {
                    self.spill_of[victim as usize] = Some(self.spilled);
                    let to = spill(self.spilled);
                    self.spilled += 1;
                    self.spills = self.spills.max(self.spilled);
                    self.emit(Instruction::with2(self.codes.store(), to, zmm(r)).ok()?);
                }
                self.register_of[victim as usize] = None;
                r
            }
        };
        self.held[r] = Some(id);
        self.register_of[id as usize] = Some(r);
        self.pinned |= 1 << r;
        self.most_registers = self.most_registers.max(self.held.iter().flatten().count());
        Some(zmm(r))
    }

    fn release_all(&mut self, node: &Node) {
        node.args().iter().for_each(|&a| self.release(a));
    }

    /// Frees the register or mask of a value that is not read again.
    fn release(&mut self, id: Id) {
        if !self.dies(id) || self.is_fixed(id) {
            return;
        }
        if let Some(r) = self.register_of[id as usize].take() {
            self.held[r] = None;
        }
        if let Some(mask) = self.mask_of[id as usize].take() {
            self.masks[mask] = false;
        }
    }

    /// Where a constant lies, to be spread by the instruction that reads it.
    fn constant(&mut self, bits: u64) -> MemoryOperand {
        *self.constant_reads.entry(bits).or_default() += 1;
        let next = self.constants.len();
        let slot = *self.constant_slot.entry(bits).or_insert(next);
        if slot == next {
            self.constants.push(bits);
        }
        let element = if self.job.double { 8 } else { 4 };
        memory(CONSTANTS, Register::None, slot * element, true)
    }

    /// Where the operand `i` that a node stands for lies.
    fn input(&mut self, id: Id, i: u16) -> Option<MemoryOperand> {
        let ahead = (!self.scalar(i)).then_some(self.body.ahead[id as usize]);
        self.pointer(usize::from(i), ahead)
    }

    /// Where operand or result `i` lies: so many vectors ahead of the column, or one value for the row.
    fn pointer(&mut self, i: usize, ahead: Option<usize>) -> Option<MemoryOperand> {
        let base = match ROW_POINTERS.get(i) {
            Some(&r) => r,
            None => {
                self.emit(Instruction::with2(Code::Mov_r64_rm64, TEMPORARY, word(POINTERS + i)).ok()?);
                TEMPORARY
            }
        };
        Some(match ahead {
            Some(vectors) => memory(base, COLUMN, VECTOR * vectors, false),
            None => memory(base, Register::None, 0, true),
        })
    }
}

fn three(code: Code, to: Register, x: Register, y: Operand) -> Option<Instruction> {
    match y {
        Operand::Register(y) => Instruction::with3(code, to, x, y).ok(),
        Operand::Memory(y) => Instruction::with3(code, to, x, y).ok(),
    }
}

fn zmm(i: usize) -> Register {
    Register::ZMM0 + i as u32
}

fn k(mask: usize) -> Register {
    Register::K1 + mask as u32
}

fn memory(base: Register, index: Register, displacement: usize, spread: bool) -> MemoryOperand {
    MemoryOperand::new(base, index, 1, displacement as i64, 1, spread, Register::None)
}

/// Word `i` of the table.
fn word(i: usize) -> MemoryOperand {
    memory(TABLE, Register::None, 8 * i, false)
}

fn spill(i: usize) -> MemoryOperand {
    memory(SPILLS, Register::None, VECTOR * i, false)
}

/// The operand of an instruction that does nothing but spread, which says so itself.
fn plain(mut operand: MemoryOperand) -> MemoryOperand {
    operand.is_broadcast = false;
    operand
}
