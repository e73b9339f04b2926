//! A device that interprets the kernels' PTX on the processor.
//!
//! It runs the very text that a driver would load, thread by thread from barrier to barrier, and is stricter than a
//! chip: every access is held against the buffers (addresses are never given twice, and between buffers lies room
//! that belongs to none), two threads that use a word without anything that orders them are a [`Fault`] even if the
//! values would have come out right, reading shared memory that nobody wrote is a fault, and so is a barrier or a
//! shuffle that not all threads come to. Fresh buffers hold NaN.
//!
//! # Blocks that wait for each other
//!
//! Blocks of a cooperative launch take turns, in order: each runs until all its threads wait at a barrier, have ended, or
//! have read a word with `ld.relaxed` or `ld.acquire`, which is how one waits for others. So a launch does the same every
//! time. Blocks of any other launch run one after the other. Where threads poll, and for many turns of all blocks nothing
//! changes, it is a fault.
//!
//! Within a block its barriers alone order accesses. Between blocks it is what PTX's memory model says of them, exactly: a
//! thread's `atom.add` publishes what it has done before its last fence, what its block has done before the last barrier
//! before that, and what it knew of others; a thread that reads the word afterwards has that from its next fence on, and
//! its block from the next barrier on. `.release` and `.acquire` of an instruction are a fence for that instruction.
//! Everything else between blocks is a race. Atomics and polls of the same word need no order among each other, but with
//! plain accesses of the word they do.
//!
//! # What it is not
//!
//! A measure of speed (the seconds of a profiled launch are those of its interpretation); a chip's rounding of approximations (they are computed exactly here); a model of warps that run
//! out of step (each runs to the next barrier at once, which finds the same races, because a race is found by who touched
//! what between two barriers, in whatever order; lanes of a warp do not shuffle while one of them polls), nor of memory
//! that is slow to show what was written (what a chip might show late is a race). Of atomics it has the one addition that
//! blocks meet with, and no textures, no calls: kernels that use others do not load.

mod arithmetic;
mod block;
mod fault;
mod memory;
mod order;
mod parse;
mod program;
#[cfg(test)]
#[allow(clippy::panic)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub use fault::{Cause, Fault};

use crate::driver::{Arg, Counts, Description, Driver, Grid, Kernel, Launch, Module, Sequence};
use crate::error::{Error, Result};
use block::Blocks;
use memory::Buffers;
use program::Program;

/// The emulated device, with 4 GiB.
#[derive(Debug)]
pub(crate) struct Emulator {
    description: Description,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    buffers: Buffers,
    modules: HashMap<String, HashMap<String, Program>>,
    /// Those that have been started and not been forgotten.
    sequences: HashSet<u64>,
    launches: u64,
    counts: Counts,
}

impl Emulator {
    /// A device without buffers, whose blocks have so much shared memory, and which runs so many of them at once.
    pub(crate) fn new(shared_bytes: u32, multiprocessors: u32) -> Emulator {
        let description = Description {
            name: "emulated device".into(),
            compute: (9, 0),
            driver: 0,
            memory_bytes: 4 << 30,
            shared_bytes,
            multiprocessors,
            cooperative: true,
            clock_hz: 1_980_000_000,
            memory_bytes_per_second: 3_350_000_000_000,
            cache_bytes: 50 << 20,
            emulated: true,
        };
        let (buffers, counts) = (Buffers::new(), Counts::default());
        let (modules, sequences) = (HashMap::new(), HashSet::new());
        let state = State { buffers, modules, sequences, launches: 0, counts };
        Emulator { description, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_start(&self, sequence: &Sequence) {
        let state = &mut *self.state();
        state.counts.starts += 1;
        state.counts.sequences += u64::from(state.sequences.insert(sequence.number));
    }
}

/// Reads a module. Errors: what is not understood, with its line.
fn load(module: &Module) -> Result<HashMap<String, Program>> {
    let failed = |reason: String| Error::Module { module: module.name.to_string(), reason };
    let file = parse::parse(&module.ptx).map_err(failed)?;
    let kernels = file.entries.iter().map(|entry| Ok((entry.name.clone(), Program::new(&file, entry)?)));
    kernels.collect::<std::result::Result<_, String>>().map_err(failed)
}

/// The parameters as a kernel finds them. Errors: another number of them, or other sizes.
fn pack(kernel: Kernel<'_>, program: &Program, args: &[Arg]) -> Result<Vec<u8>> {
    let sizes: Vec<usize> = program.params.iter().map(|p| p.0).collect();
    let got: Vec<usize> = args.iter().map(|a| a.bits().1).collect();
    if sizes != got {
        let reason = format!("{} takes parameters of {sizes:?} bytes, is given {got:?}", kernel.name);
        return Err(Error::Module { module: kernel.module.name.to_string(), reason });
    }
    let mut bytes = vec![0; program.param_bytes];
    for (arg, (size, at)) in args.iter().zip(&program.params) {
        memory::write(&mut bytes, *at, *size, arg.bits().0);
    }
    Ok(bytes)
}

impl Driver for Emulator {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn free_bytes(&self) -> Result<u64> {
        Ok(self.description.memory_bytes.saturating_sub(self.state().buffers.used))
    }

    fn allocate(&self, bytes: u64) -> Result<u64> {
        let (free, total) = (self.free_bytes()?, self.description.memory_bytes);
        if bytes > free {
            return Err(Error::OutOfMemory { asked: bytes, free, total });
        }
        Ok(self.state().buffers.allocate(bytes))
    }

    fn release(&self, address: u64) {
        self.state().buffers.release(address);
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        let mut state = self.state();
        if !state.buffers.find(address, bytes.len() as u64) {
            return Err(Error::Driver { call: "copying to the device", code: state.buffers.near(address) });
        }
        let (memory, at) = state.buffers.found(address);
        memory.bytes_mut()[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        let mut state = self.state();
        if !state.buffers.find(address, bytes.len() as u64) {
            return Err(Error::Driver { call: "copying from the device", code: state.buffers.near(address) });
        }
        let (memory, at) = state.buffers.found(address);
        bytes.copy_from_slice(&memory.bytes()[at..at + bytes.len()]);
        Ok(())
    }

    fn zero(&self, address: u64, bytes: u64) -> Result<()> {
        self.write(address, &vec![0; bytes as usize])
    }

    fn launch(&self, kernel: Kernel<'_>, grid: Grid, args: &[Arg]) -> Result<()> {
        let state = &mut *self.state();
        if !state.modules.contains_key(kernel.module.name.as_ref()) {
            state.modules.insert(kernel.module.name.to_string(), load(kernel.module)?);
        }
        let Some(program) = state.modules[kernel.module.name.as_ref()].get(kernel.name) else {
            let reason = format!("has no kernel {}", kernel.name);
            return Err(Error::Module { module: kernel.module.name.to_string(), reason });
        };
        if grid.threads == 0 || grid.threads > program.max_threads {
            let expected = format!("1 to {}", program.max_threads);
            let got = grid.threads.to_string();
            return Err(Error::Unsupported {
                kernel: kernel.name,
                argument: "number of threads",
                got,
                expected,
            });
        }
        let asked = u64::from(grid.blocks.0) * u64::from(grid.blocks.1);
        let limit = u64::from(self.resident(kernel, grid.threads, grid.shared_bytes)?);
        if grid.cooperative && asked > limit {
            return Err(Error::Cooperative { kernel: kernel.name, asked, limit });
        }
        let params = pack(kernel, program, args)?;
        state.launches += 1;
        let mut blocks = Blocks::new(kernel.name, program, grid, params, &mut state.buffers, state.launches);
        let all = 0..grid.blocks.0 * grid.blocks.1;
        if grid.cooperative {
            blocks.run(all)?;
        } else {
            for block in all {
                blocks.run(block..block + 1)?;
            }
        }
        let Counts { instructions, shared_accesses, atomics, .. } = blocks.counts;
        state.counts.instructions += instructions;
        state.counts.shared_accesses += shared_accesses;
        state.counts.atomics += atomics;
        Ok(())
    }

    /// One block on each multiprocessor.
    fn resident(&self, _: Kernel<'_>, _: u32, _: u32) -> Result<u32> {
        Ok(self.description.multiprocessors)
    }

    fn counts(&self) -> Option<Counts> {
        let state = self.state();
        Some(Counts { launches: state.launches, ..state.counts })
    }

    fn start(&self, sequence: &Sequence) -> Result<()> {
        self.count_start(sequence);
        let each = |l: &Launch| self.launch(sequence.kernel(l), l.grid, &l.args);
        sequence.launches.iter().try_for_each(each)
    }

    /// The seconds that the interpretation of each launch takes.
    fn time(&self, sequence: &Sequence) -> Result<Vec<f64>> {
        self.count_start(sequence);
        let each = |l: &Launch| {
            let start = Instant::now();
            self.launch(sequence.kernel(l), l.grid, &l.args)?;
            Ok(start.elapsed().as_secs_f64())
        };
        sequence.launches.iter().map(each).collect()
    }

    fn forget(&self, sequence: u64) {
        let state = &mut *self.state();
        state.counts.forgotten += u64::from(state.sequences.remove(&sequence));
    }

    fn unload(&self, module: &Module) {
        self.state().modules.remove(module.name.as_ref());
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
}
