//! Blocks: each one's threads run one after the other from barrier to barrier. Blocks that wait for each other take
//! turns, in order.

use std::collections::HashMap;
use std::ops::Range;

use retrograd_engine::device::WARP;

use super::arithmetic;
use super::fault::{Cause, Fault};
use super::memory::{Access, Buffers, Watched, read, write};
use super::order::{Clock, Order, Ties, Who};
use super::program::{
    Factors, Instruction, LOCAL_WINDOW, Lanes, NO_GUARD, Program, Run, SHARED_WINDOW, Space, Tensor,
};
use crate::driver::{Counts, Grid};

/// A thread that has run for so long is taken to be caught in a loop.
const ENDLESS: u64 = 20_000_000_000;

/// After so many turns of all blocks in which threads polled and nothing came of it, nothing will.
const PATIENCE: u32 = 1000;

/// What a thread is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Running,
    /// At the barrier with this number in the code.
    Waiting(usize),
    /// At the instruction with this number in the code that lanes of a warp carry out together.
    Meeting(usize),
    /// Behind the instruction with this number in the code, which read `value` from a word that other blocks add to.
    Polling {
        at: usize,
        address: u64,
        value: u32,
    },
    Done,
}

/// How the threads of a block stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// All at a barrier, and have passed it.
    Passed,
    /// Some of them polling.
    Polls,
    /// All at their end.
    Ended,
}

#[derive(Debug)]
struct Thread {
    registers: Vec<u64>,
    local: Vec<u8>,
    at: usize,
    doing: Doing,
    /// Instructions since it last waited for something else than a word.
    polled: u64,
    /// Of those that use atomics.
    ties: Option<Box<Ties>>,
}

/// A block that runs.
#[derive(Debug, Default)]
struct Block {
    number: u32,
    shared: Watched,
    /// Time: grows with every barrier, and with every fence of a thread.
    stamp: u32,
    /// The time after the last barrier.
    since: u32,
    threads: Vec<Thread>,
    /// What all threads know of other blocks.
    known: Clock,
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
    /// The one whose turn it is.
    block: Block,
    /// What words held that were polled.
    seen: HashMap<u64, u32>,
    /// Whether anything but polling in vain has happened in this turn of all blocks.
    moved: bool,
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
        Blocks {
            kernel,
            program,
            grid,
            params,
            buffers,
            launch,
            block: Block::default(),
            seen: HashMap::new(),
            moved: false,
            counts: Counts::default(),
        }
    }

    /// Runs blocks of the grid to their end, side by side.
    pub(super) fn run(&mut self, numbers: Range<u32>) -> Result<(), Fault> {
        let mut blocks: Vec<Block> = numbers.map(|number| self.start(number)).collect();
        let mut in_vain = 0;
        while !blocks.is_empty() {
            self.moved = false;
            let mut left = Vec::with_capacity(blocks.len());
            for block in blocks {
                self.block = block;
                if self.turn()? == Stop::Polls {
                    left.push(std::mem::take(&mut self.block));
                }
            }
            blocks = left;
            in_vain = if self.moved { 0 } else { in_vain + 1 };
            if in_vain > PATIENCE && !blocks.is_empty() {
                self.block = blocks.swap_remove(0);
                return self.nobody_comes();
            }
        }
        Ok(())
    }

    /// Block `number` of the grid before its first instruction.
    fn start(&self, number: u32) -> Block {
        let mut shared = Watched::new(self.program.shared_bytes + self.grid.shared_bytes as usize);
        shared.watch(1);
        let (threads, grid) = (self.grid.threads, self.grid.blocks);
        let (x, y) = (number % grid.0, number / grid.0);
        let thread = |t: u32| {
            let mut registers = self.program.registers.clone();
            let specials = [t, 0, 0, threads, 1, 1, x, y, 0, grid.0, grid.1, 1, t % WARP as u32];
            for (i, value) in specials.into_iter().enumerate() {
                registers[self.program.specials + i] = u64::from(value);
            }
            let local = vec![0xff; self.program.local_bytes];
            Thread { registers, local, at: 0, doing: Doing::Running, polled: 0, ties: None }
        };
        let threads = (0..threads).map(thread).collect();
        Block { number, shared, threads, ..Block::default() }
    }

    /// The block runs until all its threads wait or have ended, at least one of them polling.
    fn turn(&mut self) -> Result<Stop, Fault> {
        for thread in &mut self.block.threads {
            if let Doing::Polling { .. } = thread.doing {
                thread.doing = Doing::Running;
            }
        }
        loop {
            for warp in (0..self.block.threads.len()).step_by(WARP) {
                self.run_warp(warp)?;
            }
            match self.barrier()? {
                Stop::Passed => self.moved = true,
                stop => return Ok(stop),
            }
        }
    }

    /// The fault of a block that polls in vain.
    fn nobody_comes(&self) -> Result<(), Fault> {
        for (t, thread) in self.block.threads.iter().enumerate() {
            if let Doing::Polling { at, address, value } = thread.doing {
                return Err(self.fault(t, at, Cause::Blocks { address, value }));
            }
        }
        Ok(())
    }

    /// Every thread of a warp up to a barrier or its end; or up to where one polls, for which the others wait.
    fn run_warp(&mut self, warp: usize) -> Result<(), Fault> {
        let lanes = warp..(warp + WARP).min(self.block.threads.len());
        loop {
            for t in lanes.clone() {
                if self.block.threads[t].doing == Doing::Running {
                    self.run_thread(t)?;
                }
            }
            if lanes.clone().any(|t| matches!(self.block.threads[t].doing, Doing::Polling { .. })) {
                return Ok(());
            }
            let Some(first) =
                lanes.clone().find(|t| matches!(self.block.threads[*t].doing, Doing::Meeting(_)))
            else {
                return Ok(());
            };
            self.together(first, lanes.clone())?;
        }
    }

    /// Passes the barrier that all threads have come to, unless they have all ended or some poll.
    fn barrier(&mut self) -> Result<Stop, Fault> {
        let threads = &self.block.threads;
        let Some(waiting) = threads.iter().position(|t| t.doing != Doing::Done) else {
            return Ok(Stop::Ended);
        };
        let here = threads[waiting].doing;
        let other = threads.iter().position(|t| t.doing != here);
        let Doing::Waiting(at) = here else { return Ok(Stop::Polls) };
        if let Some(other) = other {
            if threads.iter().any(|t| matches!(t.doing, Doing::Polling { .. })) {
                return Ok(Stop::Polls);
            }
            let cause = Cause::Barrier { other: other as u32, does: self.does(other) };
            return Err(self.fault(waiting, at, cause));
        }
        let block = &mut self.block;
        for thread in &mut block.threads {
            thread.doing = Doing::Running;
            if let Some(ties) = &mut thread.ties {
                block.known.join(&std::mem::take(&mut ties.acquired));
            }
        }
        block.stamp += 1;
        block.since = block.stamp;
        Ok(Stop::Passed)
    }

    fn does(&self, thread: usize) -> String {
        let line = |at: usize| self.program.code[at].line;
        match self.block.threads[thread].doing {
            Doing::Running => "runs".into(),
            Doing::Waiting(at) => format!("waits at the barrier of PTX line {}", line(at)),
            Doing::Meeting(at) => match self.program.code[at].run {
                Run::Tensor(_) => format!("waits in the product of PTX line {}", line(at)),
                _ => format!("waits in the shuffle of PTX line {}", line(at)),
            },
            Doing::Polling { at, .. } => format!("polls in PTX line {}", line(at)),
            Doing::Done => "has ended".into(),
        }
    }

    fn fault(&self, thread: usize, at: usize, what: Cause) -> Fault {
        let line = self.program.code[at].line;
        Fault { kernel: self.kernel, block: self.block.number, thread: thread as u32, line, what }
    }

    /// What lane `first` waits in.
    fn together(&mut self, first: usize, lanes: Range<usize>) -> Result<(), Fault> {
        let Doing::Meeting(at) = self.block.threads[first].doing else { return Ok(()) };
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
        lanes: Range<usize>,
        tensor: Tensor,
        factors: Factors,
    ) -> Result<(), Fault> {
        let absent = lanes.clone().find(|t| self.block.threads[*t].doing != Doing::Meeting(at));
        if let Some(other) = absent {
            let cause = Cause::Tensor { other: other as u32, does: self.does(other) };
            return Err(self.fault(first, at, cause));
        }
        if lanes.len() < WARP {
            let does = format!("is not there: {} threads are no warp", lanes.len());
            return Err(self.fault(first, at, Cause::Tensor { other: lanes.end as u32, does }));
        }
        let of = |t: usize, r: u32| self.block.threads[t].registers[r as usize] as u32;
        let values: Vec<([u32; 4], [u32; 2], [u32; 4])> = (lanes.clone())
            .map(|t| {
                (tensor.left.map(|r| of(t, r)), tensor.right.map(|r| of(t, r)), tensor.sums.map(|r| of(t, r)))
            })
            .collect();
        for (t, sums) in lanes.zip(arithmetic::tensor(factors, &values)) {
            let thread = &mut self.block.threads[t];
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
        lanes: Range<usize>,
        inst: Instruction,
        kind: Lanes,
    ) -> Result<(), Fault> {
        let register = |threads: &[Thread], t: usize, r: u32| threads[t].registers[r as usize] as u32;
        let mask = register(&self.block.threads, first, inst.more[0]);
        let here = |t: usize| mask >> (t - lanes.start) & 1 == 1;
        for t in lanes.clone().filter(|t| here(*t)) {
            let doing = self.block.threads[t].doing;
            let agrees =
                doing == Doing::Meeting(at) && register(&self.block.threads, t, inst.more[0]) == mask;
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
            lanes.clone().filter(|t| here(*t) && self.block.threads[*t].doing != Doing::Done).collect();
        let values: Vec<Option<u32>> = (0..WARP)
            .map(|lane| lanes.start + lane)
            .map(|t| taking.contains(&t).then(|| register(&self.block.threads, t, inst.a)))
            .collect();
        for t in taking {
            let lane = (t - lanes.start) as u32;
            let (b, c) = (register(&self.block.threads, t, inst.b), register(&self.block.threads, t, inst.c));
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
            let thread = &mut self.block.threads[t];
            thread.registers[inst.d as usize] = u64::from(value);
            if inst.more[1] != NO_GUARD {
                thread.registers[inst.more[1] as usize] = u64::from(inside);
            }
            thread.at = at + 1;
            thread.doing = Doing::Running;
        }
        Ok(())
    }

    /// A thread up to a barrier, a shuffle, a poll or its end.
    fn run_thread(&mut self, t: usize) -> Result<(), Fault> {
        let mut thread = std::mem::replace(
            &mut self.block.threads[t],
            Thread {
                registers: Vec::new(),
                local: Vec::new(),
                at: 0,
                doing: Doing::Running,
                polled: 0,
                ties: None,
            },
        );
        let result = self.follow(t, &mut thread);
        self.block.threads[t] = thread;
        result.map_err(|(at, cause)| self.fault(t, at, cause))
    }

    fn follow(&mut self, t: usize, thread: &mut Thread) -> Result<(), (usize, Cause)> {
        let program = self.program;
        let code = &program.code[..];
        let first = self.block.number * self.grid.threads;
        let mut who = Who {
            thread: first + t as u32,
            first,
            block: self.block.number,
            threads_of_block: self.grid.threads,
            stamp: self.block.stamp,
            since: self.block.since,
        };
        let mut at = thread.at;
        let before = thread.polled;
        let (mut run, mut stored) = (before, false);
        thread.polled = 0;
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
                    .load(
                        inst,
                        (space, width, count, signed),
                        &who,
                        registers,
                        &thread.local,
                        thread.ties.as_deref(),
                    )
                    .map_err(|cause| (at, cause))?,
                Run::Store { space, width, count } => {
                    stored = true;
                    self.store(
                        inst,
                        (space, width, count),
                        &who,
                        registers,
                        &mut thread.local,
                        thread.ties.as_deref(),
                    )
                    .map_err(|cause| (at, cause))?;
                }
                Run::Poll { acquires } => {
                    let ties = thread.ties.get_or_insert_default();
                    let (address, value) =
                        self.poll(inst, acquires, &who, registers, ties).map_err(|cause| (at, cause))?;
                    self.moved |= stored || self.seen.insert(address, value) != Some(value);
                    (thread.at, thread.doing) = (at + 1, Doing::Polling { at, address, value });
                    thread.polled = run;
                    break;
                }
                Run::Add { acquires, releases } => {
                    let ties = thread.ties.get_or_insert_default();
                    self.add(inst, (acquires, releases), &who, registers, ties)
                        .map_err(|cause| (at, cause))?;
                    who.stamp = self.block.stamp;
                    self.moved = true;
                }
                Run::Fence => {
                    who.stamp = self.fence(&who, thread.ties.get_or_insert_default());
                }
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
        self.counts.instructions += run - before;
        Ok(())
    }

    fn load(
        &mut self,
        inst: &Instruction,
        (space, width, count, signed): (Space, u8, u8, bool),
        who: &Who,
        registers: &mut [u64],
        local: &[u8],
        ties: Option<&Ties>,
    ) -> Result<(), Cause> {
        let order = Order { known: &self.block.known, ties, cooperative: self.grid.cooperative };
        let address = registers[inst.a as usize].wrapping_add(inst.offset as u64);
        let (space, address) = resolve(space, address);
        let (width, count) = (usize::from(width), usize::from(count));
        let mut values = [0u64; 4];
        match space {
            Space::Global | Space::Generic => {
                let launch = self.launch;
                let (memory, access) = global(self.buffers, address, width, count, "reads")?;
                memory.watch(launch);
                memory.load(access, who, &order, &mut values)?;
            }
            Space::Shared => {
                let access =
                    within("shared", address, width, count, self.block.shared.bytes().len(), "reads")?;
                self.block.shared.check_written(access)?;
                self.counts.shared_accesses += 1;
                self.block.shared.load(access, who, &order, &mut values)?;
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

    /// Reads a word that other blocks add to: its address, and what it holds.
    #[cold]
    fn poll(
        &mut self,
        inst: &Instruction,
        acquires: bool,
        who: &Who,
        registers: &mut [u64],
        ties: &mut Ties,
    ) -> Result<(u64, u32), Cause> {
        let order = Order { known: &self.block.known, ties: Some(ties), cooperative: self.grid.cooperative };
        let address = registers[inst.a as usize].wrapping_add(inst.offset as u64);
        let (memory, access) = global(self.buffers, address, 4, 1, "reads")?;
        memory.watch(self.launch);
        let (value, clock) = memory.poll(access, who, &order)?;
        ties.saw(clock, acquires);
        registers[inst.d as usize] = u64::from(value);
        Ok((address, value))
    }

    /// What the thread has seen and done becomes ordered. The time after it.
    #[cold]
    fn fence(&mut self, who: &Who, ties: &mut Ties) -> u32 {
        ties.fence(&self.block.known, who);
        self.block.stamp += 1;
        self.block.stamp
    }

    #[cold]
    fn add(
        &mut self,
        inst: &Instruction,
        (acquires, releases): (bool, bool),
        who: &Who,
        registers: &mut [u64],
        ties: &mut Ties,
    ) -> Result<(), Cause> {
        self.counts.atomics += 1;
        let block = &mut self.block;
        let all = releases.then(|| ties.everything(&block.known, who));
        let published = all.as_ref().unwrap_or(&ties.published);
        let order = Order { known: &block.known, ties: Some(ties), cooperative: self.grid.cooperative };
        let address = registers[inst.a as usize].wrapping_add(inst.offset as u64);
        let by = registers[inst.b as usize] as u32;
        let (memory, access) = global(self.buffers, address, 4, 1, "writes")?;
        memory.watch(self.launch);
        let (old, clock) = memory.add(access, who, &order, (by, published))?;
        ties.saw(clock, acquires);
        registers[inst.d as usize] = u64::from(old);
        block.stamp += u32::from(releases);
        Ok(())
    }

    fn store(
        &mut self,
        inst: &Instruction,
        (space, width, count): (Space, u8, u8),
        who: &Who,
        registers: &[u64],
        local: &mut [u8],
        ties: Option<&Ties>,
    ) -> Result<(), Cause> {
        let order = Order { known: &self.block.known, ties, cooperative: self.grid.cooperative };
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
                memory.store(access, who, &order, &values)
            }
            Space::Shared => {
                let access =
                    within("shared", address, width, count, self.block.shared.bytes().len(), "writes")?;
                self.counts.shared_accesses += 1;
                self.block.shared.store(access, who, &order, &values)
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
