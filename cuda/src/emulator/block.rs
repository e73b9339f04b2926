//! One block: its threads, one after the other from barrier to barrier.

use retrograd_engine::device::WARP;

use super::arithmetic;
use super::fault::{Cause, Fault};
use super::memory::{Access, Buffers, Watched, Who, read, write};
use super::program::{
    Factors, Instruction, LOCAL_WINDOW, Lanes, NO_GUARD, Program, Run, SHARED_WINDOW, Space, Tensor,
};
use crate::driver::{Counts, Grid};

/// A thread that has run for so long is taken to be caught in a loop.
const ENDLESS: u64 = 20_000_000_000;

/// What a thread is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Running,
    /// At the barrier with this number in the code.
    Waiting(usize),
    /// At the instruction with this number in the code that lanes of a warp carry out together.
    Meeting(usize),
    Done,
}

#[derive(Debug)]
struct Thread {
    registers: Vec<u64>,
    local: Vec<u8>,
    at: usize,
    doing: Doing,
}

/// Runs blocks of one launch.
#[derive(Debug)]
pub(super) struct Blocks<'a> {
    kernel: &'static str,
    program: &'a Program,
    grid: Grid,
    params: Vec<u8>,
    buffers: &'a mut Buffers,
    launch: u64,
    shared: Watched,
    /// Barriers this block has passed.
    epoch: u32,
    block: u32,
    threads: Vec<Thread>,
    /// Of all blocks.
    pub(super) counts: Counts,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(
        kernel: &'static str,
        program: &'a Program,
        grid: Grid,
        params: Vec<u8>,
        buffers: &'a mut Buffers,
        launch: u64,
    ) -> Blocks<'a> {
        let (threads, shared) = (Vec::new(), Watched::default());
        Blocks {
            kernel,
            program,
            grid,
            params,
            buffers,
            launch,
            shared,
            epoch: 0,
            block: 0,
            threads,
            counts: Counts::default(),
        }
    }

    /// Runs block `block` of the grid to its end.
    pub(super) fn run(&mut self, block: u32) -> Result<(), Fault> {
        self.block = block;
        self.epoch = 0;
        let shared = self.program.shared_bytes + self.grid.shared_bytes as usize;
        self.shared = Watched::new(shared);
        self.shared.watch(1);
        let threads = self.grid.threads;
        self.threads.clear();
        for t in 0..threads {
            let mut registers = self.program.registers.clone();
            let (x, y) = (block % self.grid.blocks.0, block / self.grid.blocks.0);
            let grid = self.grid.blocks;
            let specials = [t, 0, 0, threads, 1, 1, x, y, 0, grid.0, grid.1, 1, t % WARP as u32];
            for (i, value) in specials.into_iter().enumerate() {
                registers[self.program.specials + i] = u64::from(value);
            }
            let local = vec![0xff; self.program.local_bytes];
            self.threads.push(Thread { registers, local, at: 0, doing: Doing::Running });
        }
        loop {
            for warp in (0..threads as usize).step_by(WARP) {
                self.run_warp(warp)?;
            }
            if self.barrier()? {
                return Ok(());
            }
        }
    }

    /// Every thread of a warp up to a barrier or its end.
    fn run_warp(&mut self, warp: usize) -> Result<(), Fault> {
        let lanes = warp..(warp + WARP).min(self.threads.len());
        loop {
            for t in lanes.clone() {
                if self.threads[t].doing == Doing::Running {
                    self.run_thread(t)?;
                }
            }
            let Some(first) = lanes.clone().find(|t| matches!(self.threads[*t].doing, Doing::Meeting(_)))
            else {
                return Ok(());
            };
            self.together(first, lanes.clone())?;
        }
    }

    /// Passes the barrier that all threads have come to. Whether they have all ended instead.
    fn barrier(&mut self) -> Result<bool, Fault> {
        let Some(waiting) = self.threads.iter().position(|t| t.doing != Doing::Done) else { return Ok(true) };
        let here = self.threads[waiting].doing;
        if let Some(other) = self.threads.iter().position(|t| t.doing != here) {
            let Doing::Waiting(at) = here else { return Ok(false) };
            let cause = Cause::Barrier { other: other as u32, does: self.does(other) };
            return Err(self.fault(waiting, at, cause));
        }
        for thread in &mut self.threads {
            thread.doing = Doing::Running;
        }
        self.epoch += 1;
        Ok(false)
    }

    fn does(&self, thread: usize) -> String {
        let line = |at: usize| self.program.code[at].line;
        match self.threads[thread].doing {
            Doing::Running => "runs".into(),
            Doing::Waiting(at) => format!("waits at the barrier of PTX line {}", line(at)),
            Doing::Meeting(at) => match self.program.code[at].run {
                Run::Tensor(_) => format!("waits in the product of PTX line {}", line(at)),
                _ => format!("waits in the shuffle of PTX line {}", line(at)),
            },
            Doing::Done => "has ended".into(),
        }
    }

    fn fault(&self, thread: usize, at: usize, what: Cause) -> Fault {
        let line = self.program.code[at].line;
        Fault { kernel: self.kernel, block: self.block, thread: thread as u32, line, what }
    }

    /// What lane `first` waits in.
    fn together(&mut self, first: usize, lanes: std::ops::Range<usize>) -> Result<(), Fault> {
        let Doing::Meeting(at) = self.threads[first].doing else { return Ok(()) };
        let inst = self.program.code[at];
        match inst.run {
            Run::Shuffle(kind) => self.shuffle((first, at), lanes, inst, kind),
            Run::Tensor(factors) => {
                self.tensor((first, at), lanes, self.program.tensors[inst.offset as usize], factors)
            }
            _ => Ok(()),
        }
    }

    /// The product that lane `first` waits in: of all lanes.
    fn tensor(
        &mut self,
        (first, at): (usize, usize),
        lanes: std::ops::Range<usize>,
        tensor: Tensor,
        factors: Factors,
    ) -> Result<(), Fault> {
        let absent = lanes.clone().find(|t| self.threads[*t].doing != Doing::Meeting(at));
        if let Some(other) = absent {
            let cause = Cause::Tensor { other: other as u32, does: self.does(other) };
            return Err(self.fault(first, at, cause));
        }
        if lanes.len() < WARP {
            let does = format!("is not there: {} threads are no warp", lanes.len());
            return Err(self.fault(first, at, Cause::Tensor { other: lanes.end as u32, does }));
        }
        let of = |t: usize, r: u32| self.threads[t].registers[r as usize] as u32;
        let values: Vec<([u32; 4], [u32; 2], [u32; 4])> = (lanes.clone())
            .map(|t| {
                (tensor.left.map(|r| of(t, r)), tensor.right.map(|r| of(t, r)), tensor.sums.map(|r| of(t, r)))
            })
            .collect();
        for (t, sums) in lanes.zip(arithmetic::tensor(factors, &values)) {
            let thread = &mut self.threads[t];
            for (r, sum) in tensor.to.into_iter().zip(sums) {
                thread.registers[r as usize] = u64::from(sum);
            }
            (thread.at, thread.doing) = (at + 1, Doing::Running);
        }
        Ok(())
    }

    /// The shuffle that lane `first` waits in.
    fn shuffle(
        &mut self,
        (first, at): (usize, usize),
        lanes: std::ops::Range<usize>,
        inst: Instruction,
        kind: Lanes,
    ) -> Result<(), Fault> {
        let register = |threads: &[Thread], t: usize, r: u32| threads[t].registers[r as usize] as u32;
        let mask = register(&self.threads, first, inst.more[0]);
        let here = |t: usize| mask >> (t - lanes.start) & 1 == 1;
        for t in lanes.clone().filter(|t| here(*t)) {
            let doing = self.threads[t].doing;
            let agrees = doing == Doing::Meeting(at) && register(&self.threads, t, inst.more[0]) == mask;
            if !agrees && doing != Doing::Done {
                let cause = Cause::Shuffle { mask, other: t as u32, does: self.does(t) };
                return Err(self.fault(first, at, cause));
            }
        }
        if !here(first) {
            let cause = Cause::Shuffle { mask, other: first as u32, does: "is not among them".into() };
            return Err(self.fault(first, at, cause));
        }
        let taking: Vec<usize> =
            lanes.clone().filter(|t| here(*t) && self.threads[*t].doing != Doing::Done).collect();
        let values: Vec<Option<u32>> = (0..WARP)
            .map(|lane| lanes.start + lane)
            .map(|t| taking.contains(&t).then(|| register(&self.threads, t, inst.a)))
            .collect();
        for t in taking {
            let lane = (t - lanes.start) as u32;
            let (b, c) = (register(&self.threads, t, inst.b), register(&self.threads, t, inst.c));
            let (by, clamp, segment) = (b & 31, c & 31, c >> 8 & 31);
            let (lowest, highest) = (lane & segment, lane & segment | clamp & !segment);
            let (from, inside) = match kind {
                Lanes::Up => (lane.wrapping_sub(by), lane as i32 - by as i32 >= highest as i32),
                Lanes::Down => (lane + by, lane + by <= highest),
                Lanes::Xor => (lane ^ by, lane ^ by <= highest),
                Lanes::Index => (lowest | by & !segment, (lowest | by & !segment) <= highest),
            };
            let from = if inside { from } else { lane };
            // A lane that takes no part has nothing to give: NaN.
            let value = values.get(from as usize).copied().flatten().unwrap_or(u32::MAX);
            let thread = &mut self.threads[t];
            thread.registers[inst.d as usize] = u64::from(value);
            if inst.more[1] != NO_GUARD {
                thread.registers[inst.more[1] as usize] = u64::from(inside);
            }
            thread.at = at + 1;
            thread.doing = Doing::Running;
        }
        Ok(())
    }

    /// A thread up to a barrier, a shuffle or its end.
    fn run_thread(&mut self, t: usize) -> Result<(), Fault> {
        let mut thread = std::mem::replace(
            &mut self.threads[t],
            Thread { registers: Vec::new(), local: Vec::new(), at: 0, doing: Doing::Running },
        );
        let result = self.follow(t, &mut thread);
        self.threads[t] = thread;
        result.map_err(|(at, cause)| self.fault(t, at, cause))
    }

    fn follow(&mut self, t: usize, thread: &mut Thread) -> Result<(), (usize, Cause)> {
        let program = self.program;
        let code = &program.code[..];
        let who = Who {
            thread: self.block * self.grid.threads + t as u32,
            threads_of_block: self.grid.threads,
            epoch: self.epoch,
        };
        let mut at = thread.at;
        let mut run = 0u64;
        let registers = &mut thread.registers[..];
        loop {
            let inst = &code[at];
            run += 1;
            if inst.guard != NO_GUARD && (registers[inst.guard as usize] != 0) != inst.when {
                at += 1;
                continue;
            }
            match inst.run {
                Run::Alu(function) => function(registers, inst),
                Run::Load { space, width, count, signed } => self
                    .load(inst, (space, width, count, signed), who, registers, &thread.local)
                    .map_err(|cause| (at, cause))?,
                Run::Store { space, width, count } => self
                    .store(inst, (space, width, count), who, registers, &mut thread.local)
                    .map_err(|cause| (at, cause))?,
                Run::Jump => {
                    at = inst.offset as usize;
                    if run > ENDLESS {
                        return Err((at, Cause::Endless { instructions: run }));
                    }
                    continue;
                }
                Run::Barrier => {
                    (thread.at, thread.doing) = (at + 1, Doing::Waiting(at));
                    break;
                }
                Run::Shuffle(_) | Run::Tensor(_) => {
                    (thread.at, thread.doing) = (at, Doing::Meeting(at));
                    break;
                }
                Run::Exit => {
                    (thread.at, thread.doing) = (at, Doing::Done);
                    break;
                }
            }
            at += 1;
        }
        self.counts.instructions += run;
        Ok(())
    }

    fn load(
        &mut self,
        inst: &Instruction,
        (space, width, count, signed): (Space, u8, u8, bool),
        who: Who,
        registers: &mut [u64],
        local: &[u8],
    ) -> Result<(), Cause> {
        let address = registers[inst.a as usize].wrapping_add(inst.offset as u64);
        let (space, address) = resolve(space, address);
        let (width, count) = (usize::from(width), usize::from(count));
        let mut values = [0u64; 4];
        match space {
            Space::Global | Space::Generic => {
                let launch = self.launch;
                let (memory, access) = global(self.buffers, address, width, count, "reads")?;
                memory.watch(launch);
                memory.load(access, who, &mut values)?;
            }
            Space::Shared => {
                let access = within("shared", address, width, count, self.shared.bytes().len(), "reads")?;
                self.shared.check_written(access)?;
                self.counts.shared_accesses += 1;
                self.shared.load(access, who, &mut values)?;
            }
            Space::Local => {
                let access = within("local", address, width, count, local.len(), "reads")?;
                for (i, value) in values.iter_mut().enumerate().take(count) {
                    *value = read(local, access.at + i * width, width);
                }
            }
            Space::Param => {
                let access = within("parameter", address, width, count, self.params.len(), "reads")?;
                for (i, value) in values.iter_mut().enumerate().take(count) {
                    *value = read(&self.params, access.at + i * width, width);
                }
            }
        }
        for (i, value) in values.into_iter().enumerate().take(count) {
            let value = match (signed, width) {
                (true, 1) => i64::from(value as i8) as u64,
                (true, 2) => i64::from(value as i16) as u64,
                (true, 4) => i64::from(value as i32) as u64,
                _ => value,
            };
            registers[target(inst, i) as usize] = value;
        }
        Ok(())
    }

    fn store(
        &mut self,
        inst: &Instruction,
        (space, width, count): (Space, u8, u8),
        who: Who,
        registers: &[u64],
        local: &mut [u8],
    ) -> Result<(), Cause> {
        let address = registers[inst.a as usize].wrapping_add(inst.offset as u64);
        let (space, address) = resolve(space, address);
        let (width, count) = (usize::from(width), usize::from(count));
        let mut values = [0u64; 4];
        for (i, value) in values.iter_mut().enumerate().take(count) {
            *value = registers[target(inst, i) as usize];
        }
        match space {
            Space::Global | Space::Generic | Space::Param => {
                let launch = self.launch;
                let (memory, access) = global(self.buffers, address, width, count, "writes")?;
                memory.watch(launch);
                memory.store(access, who, &values)
            }
            Space::Shared => {
                let access = within("shared", address, width, count, self.shared.bytes().len(), "writes")?;
                self.counts.shared_accesses += 1;
                self.shared.store(access, who, &values)
            }
            Space::Local => {
                let access = within("local", address, width, count, local.len(), "writes")?;
                for (i, value) in values.iter().enumerate().take(count) {
                    write(local, access.at + i * width, width, *value);
                }
                Ok(())
            }
        }
    }
}

/// Register of value `i` of an access.
fn target(inst: &Instruction, i: usize) -> u32 {
    if i == 0 { inst.d } else { inst.more[i - 1] }
}

/// The memory a generic address means, and the address there. Shared addresses are 32 bits wide.
fn resolve(space: Space, address: u64) -> (Space, u64) {
    match space {
        Space::Generic if address >= LOCAL_WINDOW => (Space::Local, address - LOCAL_WINDOW),
        Space::Generic if address >= SHARED_WINDOW => (Space::Shared, address - SHARED_WINDOW),
        Space::Generic => (Space::Global, address),
        Space::Shared => (space, address & 0xffff_ffff),
        space => (space, address),
    }
}

fn aligned(space: &'static str, address: u64, bytes: usize, access: &'static str) -> Result<(), Cause> {
    let bytes = bytes as u32;
    if address.is_multiple_of(u64::from(bytes)) {
        Ok(())
    } else {
        Err(Cause::Misaligned { access, space, bytes, address })
    }
}

fn global<'a>(
    buffers: &'a mut Buffers,
    address: u64,
    width: usize,
    count: usize,
    access: &'static str,
) -> Result<(&'a mut Watched, Access), Cause> {
    let bytes = width * count;
    if !buffers.find(address, bytes as u64) {
        let (bytes, near) = (bytes as u32, buffers.near(address));
        return Err(Cause::OutOfBounds { access, space: "global", bytes, address, near });
    }
    aligned("global", address, bytes, access)?;
    let (memory, at) = buffers.found(address);
    Ok((memory, Access { space: "global", address, at, width, count }))
}

fn within(
    space: &'static str,
    address: u64,
    width: usize,
    count: usize,
    len: usize,
    access: &'static str,
) -> Result<Access, Cause> {
    let bytes = width * count;
    if address.checked_add(bytes as u64).is_none_or(|end| end > len as u64) {
        let near = format!("of which there are {len} bytes");
        return Err(Cause::OutOfBounds { access, space, bytes: bytes as u32, address, near });
    }
    aligned(space, address, bytes, access)?;
    Ok(Access { space, address, at: address as usize, width, count })
}
