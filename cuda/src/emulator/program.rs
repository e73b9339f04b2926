//! A kernel made ready to run: registers are numbers, jumps are places, operations are functions.

use std::collections::HashMap;

use super::arithmetic::{Alu, alu};
use super::parse::{Entry, File, Operand, Statement, Variable, width_of};

/// An instruction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instruction {
    /// What it does.
    pub(super) run: Run,
    /// Register of the guard; [`NO_GUARD`] where it always runs.
    pub(super) guard: u32,
    /// Value the guard must have.
    pub(super) when: bool,
    /// Registers: result, operands.
    pub(super) d: u32,
    pub(super) a: u32,
    pub(super) b: u32,
    pub(super) c: u32,
    /// Registers a load or store has beyond the first one, in `d`.
    pub(super) more: [u32; 3],
    /// Offset of an access, target of a jump.
    pub(super) offset: i64,
    /// Line in the PTX.
    pub(super) line: u32,
}

/// No guard.
pub(super) const NO_GUARD: u32 = u32::MAX;

/// Kinds of instructions.
#[derive(Clone, Copy, Debug)]
pub(super) enum Run {
    /// On registers alone.
    Alu(Alu),
    /// From memory at `a + offset`.
    Load { space: Space, width: u8, count: u8, signed: bool },
    /// To memory at `a + offset`.
    Store { space: Space, width: u8, count: u8 },
    /// From the word at `a + offset` in global memory, ordered with the adds of other blocks.
    Poll { acquires: bool },
    /// `b` to the word at `a + offset` in global memory; what it was before.
    Add { acquires: bool, releases: bool },
    /// What the thread has seen of other blocks and has done becomes ordered.
    Fence,
    /// To the instruction `offset`.
    Jump,
    /// `bar.sync 0`.
    Barrier,
    /// `shfl.sync`: value `a`, lane or distance `b`, bounds `c`, mask `more[0]`; whether it was in bounds to
    /// `more[1]` unless that is [`NO_GUARD`].
    Shuffle(Lanes),
    /// `mma.sync`: the registers are entry `offset` of [`Program::tensors`].
    Tensor(Factors),
    /// The thread ends.
    Exit,
}

/// Memories. An address of the generic space says itself which one it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    Global,
    Shared,
    Local,
    Param,
    Generic,
}

/// From which lane a shuffle takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lanes {
    Up,
    Down,
    Xor,
    Index,
}

/// What a product of a warp has its factors in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Factors {
    Tf32,
    Bf16,
}

/// Registers of a product of a warp: results, left factor, right factor, sums that results are added to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tensor {
    pub(super) to: [u32; 4],
    pub(super) left: [u32; 4],
    pub(super) right: [u32; 2],
    pub(super) sums: [u32; 4],
}

/// Registers that say where a thread is, in the order of [`Program::specials`].
pub(super) const SPECIALS: [&str; 13] = [
    "%tid.x",
    "%tid.y",
    "%tid.z",
    "%ntid.x",
    "%ntid.y",
    "%ntid.z",
    "%ctaid.x",
    "%ctaid.y",
    "%ctaid.z",
    "%nctaid.x",
    "%nctaid.y",
    "%nctaid.z",
    "%laneid",
];

/// Where shared and local memory begin in the generic space. Buffers lie below.
pub(super) const SHARED_WINDOW: u64 = 0x7f00_0000_0000_0000;
/// See [`SHARED_WINDOW`].
pub(super) const LOCAL_WINDOW: u64 = 0x7f80_0000_0000_0000;

/// A kernel.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) code: Vec<Instruction>,
    pub(super) tensors: Vec<Tensor>,
    /// What the registers of a thread hold at first: zeros, constants, and room for the special ones.
    pub(super) registers: Vec<u64>,
    /// First of the special registers.
    pub(super) specials: usize,
    /// Size and place of each parameter.
    pub(super) params: Vec<(usize, usize)>,
    pub(super) param_bytes: usize,
    /// Static shared memory; dynamic shared memory begins here.
    pub(super) shared_bytes: usize,
    pub(super) local_bytes: usize,
    pub(super) max_threads: u32,
}

/// Names while a kernel is read.
struct Names {
    registers: HashMap<String, u32>,
    constants: HashMap<u64, u32>,
    values: Vec<u64>,
    labels: HashMap<String, i64>,
    params: HashMap<String, u64>,
    shared: HashMap<String, u64>,
    local: HashMap<String, u64>,
    tensors: Vec<Tensor>,
}

fn place(variables: &[Variable], mut at: u64, into: &mut HashMap<String, u64>) -> u64 {
    for v in variables {
        at = at.next_multiple_of(u64::from(v.align.max(1)));
        into.insert(v.name.clone(), at);
        at += u64::from(v.bytes);
    }
    at
}

impl Program {
    /// Makes a kernel of a file ready. Errors: the line, and what the emulator does not know.
    pub(super) fn new(file: &File, entry: &Entry) -> Result<Program, String> {
        let mut names = Names {
            registers: HashMap::new(),
            constants: HashMap::new(),
            values: Vec::new(),
            labels: HashMap::new(),
            params: HashMap::new(),
            shared: HashMap::new(),
            local: HashMap::new(),
            tensors: Vec::new(),
        };
        for (prefix, count) in &entry.registers {
            if *count == 0 {
                names.new_register(prefix.clone());
            }
            for i in 0..*count {
                names.new_register(format!("{prefix}{i}"));
            }
        }
        for (label, at) in &entry.labels {
            names.labels.insert(label.clone(), *at as i64);
        }
        let param_bytes = place(&entry.params, 0, &mut names.params);
        let params =
            entry.params.iter().map(|p| (p.bytes as usize, names.params[&p.name] as usize)).collect();
        let (dynamic, fixed): (Vec<_>, Vec<_>) = file.shared.iter().cloned().partition(|v| v.bytes == 0);
        let end = place(&entry.shared, 0, &mut names.shared);
        let end = place(&fixed, end, &mut names.shared).next_multiple_of(16);
        place(&dynamic, end, &mut names.shared);
        let local_bytes = place(&entry.local, 0, &mut names.local);
        let specials = names.values.len();
        for name in SPECIALS {
            names.new_register(name.to_owned());
        }
        let mut code = Vec::with_capacity(entry.statements.len() + 1);
        for s in &entry.statements {
            code.push(names.instruction(s).map_err(|what| format!("line {}: {what}", s.line))?);
        }
        let line = entry.statements.last().map_or(0, |s| s.line);
        code.push(Instruction { run: Run::Exit, line, ..BLANK });
        Ok(Program {
            code,
            tensors: names.tensors,
            registers: names.values,
            specials,
            params,
            param_bytes: param_bytes as usize,
            shared_bytes: end as usize,
            local_bytes: local_bytes as usize,
            max_threads: entry.max_threads.unwrap_or(1024),
        })
    }
}

/// Parts of loads and stores that are not plain.
const ORDERED: [&str; 5] = ["volatile", "relaxed", "acquire", "release", "mmio"];

const BLANK: Instruction = Instruction {
    run: Run::Exit,
    guard: NO_GUARD,
    when: true,
    d: 0,
    a: 0,
    b: 0,
    c: 0,
    more: [NO_GUARD; 3],
    offset: 0,
    line: 0,
};

impl Names {
    fn new_register(&mut self, name: String) -> u32 {
        let at = self.values.len() as u32;
        self.values.push(0);
        self.registers.insert(name, at);
        at
    }

    fn constant(&mut self, bits: u64) -> u32 {
        let values = &mut self.values;
        *self.constants.entry(bits).or_insert_with(|| {
            values.push(bits);
            values.len() as u32 - 1
        })
    }

    /// Register that holds an operand; numbers and addresses of variables get one of their own.
    fn word(&mut self, text: &str) -> Result<u32, String> {
        if let Some(at) = self.registers.get(text) {
            return Ok(*at);
        }
        if text == "_" {
            return Ok(self.new_register("_".into()));
        }
        if let Some(bits) = number(text) {
            return Ok(self.constant(bits));
        }
        if let Some(at) = self.shared.get(text).or_else(|| self.local.get(text)).copied() {
            return Ok(self.constant(at));
        }
        Err(format!("{text} is no register, variable or number"))
    }

    fn operand(&mut self, s: &Statement, i: usize) -> Result<u32, String> {
        match s.operands.get(i) {
            Some(Operand::Word(text)) => self.word(text),
            other => Err(format!("operand {i} of {} is {other:?}", s.op)),
        }
    }

    fn instruction(&mut self, s: &Statement) -> Result<Instruction, String> {
        let mut inst = Instruction { line: s.line, ..BLANK };
        if let Some((register, when)) = &s.guard {
            inst.guard = self.word(register)?;
            inst.when = *when;
        }
        let parts: Vec<&str> = s.op.split('.').collect();
        match parts[0] {
            "ld" | "st" => self.access(s, &parts, &mut inst)?,
            "atom" => self.add(s, &parts, &mut inst)?,
            "fence" | "membar" => {
                if !["fence.acq_rel.gpu", "fence.acq_rel.sys", "membar.gl"].contains(&s.op.as_str()) {
                    return Err(format!("the emulator does not know {}", s.op));
                }
                inst.run = Run::Fence;
            }
            "bra" => {
                let Some(Operand::Word(label)) = s.operands.first() else {
                    return Err("a jump to nowhere".into());
                };
                inst.offset = *self.labels.get(label).ok_or_else(|| format!("no label {label}"))?;
                inst.run = Run::Jump;
            }
            "ret" | "exit" => inst.run = Run::Exit,
            "bar" if parts.get(1) == Some(&"sync") => {
                if s.operands != [Operand::Word("0".into())] {
                    return Err("only barrier 0 of all threads".into());
                }
                inst.run = Run::Barrier;
            }
            "barrier" if s.op == "barrier.sync" && s.operands == [Operand::Word("0".into())] => {
                inst.run = Run::Barrier;
            }
            "shfl" => self.shuffle(s, &parts, &mut inst)?,
            "mma" => self.tensor(s, &mut inst)?,
            "cvta" => self.generic_address(s, &parts, &mut inst)?,
            "mov" if matches!(s.operands.get(1), Some(Operand::Vector(_))) => {
                return Err(format!("{} of a vector", s.op));
            }
            _ => {
                let function = alu(&s.op).ok_or_else(|| format!("the emulator does not know {}", s.op))?;
                inst.run = Run::Alu(function);
                inst.d = self.operand(s, 0)?;
                let places = [&mut inst.a, &mut inst.b, &mut inst.c];
                if s.operands.len() > places.len() + 1 {
                    return Err(format!("{} with {} operands", s.op, s.operands.len()));
                }
                for (i, place) in places.into_iter().enumerate().take(s.operands.len() - 1) {
                    *place = self.operand(s, i + 1)?;
                }
            }
        }
        Ok(inst)
    }

    fn access(&mut self, s: &Statement, parts: &[&str], inst: &mut Instruction) -> Result<(), String> {
        let load = parts[0] == "ld";
        let space = match () {
            () if parts.contains(&"global") => Space::Global,
            () if parts.contains(&"shared") => Space::Shared,
            () if parts.contains(&"local") => Space::Local,
            () if parts.contains(&"param") => Space::Param,
            () if parts.contains(&"const") => return Err("constant memory".into()),
            () => Space::Generic,
        };
        let ty = parts[parts.len() - 1];
        let width =
            width_of(ty).filter(|w| [1, 2, 4, 8].contains(w)).ok_or_else(|| format!("type of {}", s.op))?;
        let (value, address) = if load { (0, 1) } else { (1, 0) };
        let registers = match s.operands.get(value) {
            Some(Operand::Word(word)) => vec![self.word(word)?],
            Some(Operand::Vector(words)) => words.iter().map(|w| self.word(w)).collect::<Result<_, _>>()?,
            other => return Err(format!("value of {} is {other:?}", s.op)),
        };
        let count = registers.len();
        if ![1, 2, 4].contains(&count) {
            return Err(format!("{} of {count} values", s.op));
        }
        inst.d = registers[0];
        inst.more[..count - 1].copy_from_slice(&registers[1..]);
        let Some(Operand::Address(base, offset)) = s.operands.get(address) else {
            return Err(format!("{} without address", s.op));
        };
        inst.offset = *offset;
        inst.a = match self.params.get(base).copied() {
            Some(at) if space == Space::Param => self.constant(at),
            _ => self.word(base)?,
        };
        let (width, count) = (width as u8, count as u8);
        inst.run = match (load, s.op.as_str()) {
            (true, "ld.relaxed.gpu.global.u32") if count == 1 => Run::Poll { acquires: false },
            (true, "ld.acquire.gpu.global.u32") if count == 1 => Run::Poll { acquires: true },
            _ if parts.iter().any(|part| ORDERED.contains(part)) => {
                return Err(format!("the emulator does not know {}", s.op));
            }
            (true, _) => Run::Load { space, width, count, signed: ty.starts_with('s') },
            (false, _) => Run::Store { space, width, count },
        };
        Ok(())
    }

    /// `atom[.order].gpu.global.add.u32`
    fn add(&mut self, s: &Statement, parts: &[&str], inst: &mut Instruction) -> Result<(), String> {
        let (acquires, releases) = match parts[1..] {
            ["gpu", "global", "add", "u32"] | ["relaxed", "gpu", "global", "add", "u32"] => (false, false),
            ["acquire", "gpu", "global", "add", "u32"] => (true, false),
            ["release", "gpu", "global", "add", "u32"] => (false, true),
            ["acq_rel", "gpu", "global", "add", "u32"] => (true, true),
            _ => return Err(format!("the emulator does not know {}", s.op)),
        };
        let Some(Operand::Address(base, offset)) = s.operands.get(1) else {
            return Err(format!("{} without address", s.op));
        };
        inst.run = Run::Add { acquires, releases };
        (inst.d, inst.a, inst.b) = (self.operand(s, 0)?, self.word(base)?, self.operand(s, 2)?);
        inst.offset = *offset;
        Ok(())
    }

    fn shuffle(&mut self, s: &Statement, parts: &[&str], inst: &mut Instruction) -> Result<(), String> {
        let lanes = match parts.get(1..4) {
            Some(["sync", "up", "b32"]) => Lanes::Up,
            Some(["sync", "down", "b32"]) => Lanes::Down,
            Some(["sync", "bfly", "b32"]) => Lanes::Xor,
            Some(["sync", "idx", "b32"]) => Lanes::Index,
            _ => return Err(format!("the emulator does not know {}", s.op)),
        };
        inst.run = Run::Shuffle(lanes);
        match s.operands.first() {
            Some(Operand::Pair(d, p)) => {
                inst.d = self.word(d)?;
                inst.more[1] = self.word(p)?;
            }
            _ => inst.d = self.operand(s, 0)?,
        }
        inst.a = self.operand(s, 1)?;
        inst.b = self.operand(s, 2)?;
        inst.c = self.operand(s, 3)?;
        inst.more[0] = self.operand(s, 4)?;
        Ok(())
    }

    fn tensor(&mut self, s: &Statement, inst: &mut Instruction) -> Result<(), String> {
        let factors = match s.op.as_str() {
            "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32" => Factors::Tf32,
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32" => Factors::Bf16,
            _ => return Err(format!("the emulator does not know {}", s.op)),
        };
        let tensor = Tensor {
            to: self.registers_of(s, 0)?,
            left: self.registers_of(s, 1)?,
            right: self.registers_of(s, 2)?,
            sums: self.registers_of(s, 3)?,
        };
        inst.offset = self.tensors.len() as i64;
        self.tensors.push(tensor);
        inst.run = Run::Tensor(factors);
        Ok(())
    }

    /// The registers in braces of an operand.
    fn registers_of<const N: usize>(&mut self, s: &Statement, i: usize) -> Result<[u32; N], String> {
        let words = match s.operands.get(i) {
            Some(Operand::Vector(words)) => words.clone(),
            other => return Err(format!("operand {i} of {} is {other:?}", s.op)),
        };
        let registers: Vec<u32> = words.iter().map(|w| self.word(w)).collect::<Result<_, _>>()?;
        registers.try_into().map_err(|_| format!("operand {i} of {} has {} words", s.op, words.len()))
    }

    /// `cvta[.to].space`: generic addresses of buffers are their addresses; shared and local memory have a window.
    fn generic_address(
        &mut self,
        s: &Statement,
        parts: &[&str],
        inst: &mut Instruction,
    ) -> Result<(), String> {
        let to = parts.contains(&"to");
        let window = match () {
            () if parts.contains(&"shared") => SHARED_WINDOW,
            () if parts.contains(&"local") => LOCAL_WINDOW,
            () => 0,
        };
        let window = if to { window.wrapping_neg() } else { window };
        inst.run = Run::Alu(alu("add.u64").ok_or("add.u64")?);
        inst.d = self.operand(s, 0)?;
        inst.a = self.operand(s, 1)?;
        inst.b = self.constant(window);
        Ok(())
    }
}

/// A number as PTX writes it: decimal, hexadecimal, `0f` and `0d` with the bits of a floating-point number.
fn number(text: &str) -> Option<u64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let digits = digits.strip_suffix(['U', 'u']).unwrap_or(digits);
    let value = if let Some(hex) = digits.strip_prefix("0f").or_else(|| digits.strip_prefix("0F")) {
        u64::from(u32::from_str_radix(hex, 16).ok()?)
    } else if let Some(hex) = digits.strip_prefix("0d").or_else(|| digits.strip_prefix("0D")) {
        u64::from_str_radix(hex, 16).ok()?
    } else if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        u64::from_str_radix(hex, 16).ok()?
    } else {
        digits.parse().ok()?
    };
    Some(if negative { value.wrapping_neg() } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_ptx_writes_them() {
        let rows = [
            ("12", Some(12)),
            ("-1", Some(u64::MAX)),
            ("0x1F", Some(31)),
            ("0f3F800000", Some(u64::from(1f32.to_bits()))),
            ("0dBFF0000000000000", Some((-1f64).to_bits())),
            ("%r1", None),
        ];
        for (text, expected) in rows {
            assert_eq!(number(text), expected, "{text}");
        }
    }
}
