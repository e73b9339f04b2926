//! A GPU as a device of the engine: programs run on it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use retrograd_engine::device::{Argument, Device, Kernel as Written, Launch as Listed, Products};
use retrograd_engine::{Error as EngineError, Rates};

use crate::driver::{Arg, Grid, Kernel, Launch, Module, Sequence};
use crate::error::Error;
use crate::gpu::Gpu;
use crate::ptx;

/// Threads of a block on the emulated device: more than a warp, and not all of the second one.
const EMULATED_THREADS: u32 = 40;

/// Kernels of a program that is alive.
#[derive(Debug)]
struct Program {
    module: Arc<Module>,
    kernels: Vec<One>,
}

/// A kernel of a program.
#[derive(Clone, Copy, Debug)]
struct One {
    name: &'static str,
    shared_bytes: u32,
    /// Whether its blocks wait for each other.
    waits: bool,
}

/// The programs on a device, their sequences of launches, and the bytes of their arenas by address.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    programs: Mutex<HashMap<u64, Arc<Program>>>,
    sequences: Mutex<HashMap<u64, Arc<Sequence>>>,
    arenas: Mutex<HashMap<u64, u64>>,
}

/// Numbers of modules and of sequences: no two have the same, whatever the device.
static NEXT: AtomicU64 = AtomicU64::new(0);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The one copy of a name. There are as many as the largest program has kernels, and they stay.
fn name_of(text: String) -> &'static str {
    static NAMES: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut names = lock(&NAMES);
    let names = names.get_or_insert_default();
    match names.get(text.as_str()) {
        Some(name) => name,
        None => {
            let name: &'static str = Box::leak(text.into_boxed_str());
            names.insert(name);
            name
        }
    }
}

impl Gpu {
    fn failed(&self, error: Error) -> EngineError {
        match error {
            Error::OutOfMemory { asked, .. } => EngineError::OutOfMemory {
                what: format!("the run's arena on {} ({error})", self.describe().name),
                bytes: asked as usize,
            },
            error => EngineError::Device { device: self.describe().name.clone(), what: error.to_string() },
        }
    }

    fn bug(&self, what: String) -> EngineError {
        EngineError::Device { device: self.describe().name.clone(), what: format!("bug: {what}") }
    }

    fn program(&self, kernels: u64) -> Result<Arc<Program>, EngineError> {
        let found = lock(&self.loaded.programs).get(&kernels).cloned();
        found.ok_or_else(|| self.bug(format!("no program {kernels}")))
    }

    fn found(&self, sequence: u64) -> Result<Arc<Sequence>, EngineError> {
        let found = lock(&self.loaded.sequences).get(&sequence).cloned();
        found.ok_or_else(|| self.bug(format!("no sequence {sequence}")))
    }

    fn kernel(&self, program: &Program, index: usize) -> Result<One, EngineError> {
        let missing = || self.bug(format!("no kernel {index} in {}", program.module.name));
        program.kernels.get(index).copied().ok_or_else(missing)
    }

    /// A launch as the driver has it; `None` if it has no blocks.
    fn listed(&self, program: &Program, launch: &Listed) -> Result<Option<Launch>, EngineError> {
        let kernel = self.kernel(program, launch.index)?;
        let row = Grid::row(launch.blocks, Device::threads(self), kernel.shared_bytes);
        let grid = Grid { cooperative: kernel.waits, ..row };
        let args = launch.args.iter().map(|arg| match *arg {
            Argument::Address(address) => Arg::Address(address),
            Argument::Int(number) => Arg::I32(number),
        });
        let kernel = kernel.name;
        let there = self.does_something(kernel, grid).map_err(|e| self.failed(e))?;
        Ok(there.then(|| Launch { kernel, grid, args: args.collect() }))
    }
}

impl Device for Gpu {
    fn name(&self) -> String {
        self.describe().name.clone()
    }

    fn shared_bytes(&self) -> usize {
        self.describe().shared_bytes as usize
    }

    fn multiprocessors(&self) -> usize {
        self.describe().multiprocessors as usize
    }

    fn together(&self) -> usize {
        if self.describe().cooperative { Device::multiprocessors(self) } else { 1 }
    }

    fn rates(&self) -> Rates {
        /// Lanes of a multiprocessor: additions a cycle.
        const LANES: f64 = 128.0;
        /// How much faster tensor cores form a product as loops have them, bound by reading factors.
        const TENSOR: f64 = 4.0;
        /// Part of the peak that code without a word for the chip reaches; part of its bandwidth that memory does.
        const REACHED: (f64, f64) = (0.3, 0.8);
        /// How much faster the shared cache is than memory.
        const NEAR: f64 = 2.5;
        /// What a driver that does not say it is taken to mean: those of an A100.
        const TYPICAL: (u64, u64, u64) = (1_410_000_000, 1_555_000_000_000, 40 << 20);
        let what = self.describe();
        let told = |number: u64, typical: u64| if number > 0 { number } else { typical };
        let (clock, memory, shared) = (
            told(what.clock_hz, TYPICAL.0),
            told(what.memory_bytes_per_second, TYPICAL.1),
            told(what.cache_bytes, TYPICAL.2) as usize,
        );
        let additions = LANES * clock as f64 * REACHED.0;
        let product = 2.0 * additions * if self.products == Products::Exact { 1.0 } else { TENSOR };
        let memory = memory as f64 * REACHED.1;
        let (structured, near) = (2.0 * additions, NEAR * memory);
        // What a thread writes it does not find in a cache of its own.
        Rates { product, structured, pointwise: additions, memory, near, cache: 0, shared }
    }

    fn threads(&self) -> u32 {
        if self.describe().emulated { EMULATED_THREADS } else { ptx::MOST_THREADS }
    }

    fn products(&self) -> Products {
        self.products
    }

    fn used_bytes(&self) -> usize {
        Gpu::used_bytes(self) as usize
    }

    fn allocate(&self, bytes: usize) -> Result<u64, EngineError> {
        let address = Gpu::allocate(self, bytes as u64).map_err(|e| self.failed(e))?;
        lock(&self.loaded.arenas).insert(address, bytes as u64);
        Ok(address)
    }

    fn release(&self, address: u64) {
        if let Some(bytes) = lock(&self.loaded.arenas).remove(&address) {
            Gpu::release(self, address, bytes);
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), EngineError> {
        self.written.fetch_add(bytes.len() as u64, Relaxed);
        self.driver.write(address, bytes).map_err(|e| self.failed(e))
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), EngineError> {
        self.driver.read(address, bytes).map_err(|e| self.failed(e))
    }

    fn load(&self, kernels: &[Written]) -> Result<u64, EngineError> {
        let number = NEXT.fetch_add(1, Relaxed);
        let (name, ptx) = (Cow::Owned(format!("program {number}")), Cow::Owned(ptx::module(kernels)));
        let module = Arc::new(Module { name, ptx });
        if let Some(folder) = std::env::var_os(KEEP_VARIABLE) {
            let file = std::path::Path::new(&folder).join(format!("program{number}.ptx"));
            std::fs::write(&file, module.ptx.as_bytes()).map_err(|e| EngineError::Device {
                device: self.name(),
                what: format!("{}: {e}", file.display()),
            })?;
        }
        let named = |(i, k): (usize, &Written)| One {
            name: name_of(ptx::entry_name(k, i)),
            shared_bytes: k.shared_bytes as u32,
            waits: k.team > 1,
        };
        let kernels = kernels.iter().enumerate().map(named).collect();
        lock(&self.loaded.programs).insert(number, Arc::new(Program { module, kernels }));
        Ok(number)
    }

    fn unload(&self, kernels: u64) {
        let Some(program) = lock(&self.loaded.programs).remove(&kernels) else { return };
        let left: Vec<u64> = (lock(&self.loaded.sequences).values())
            .filter(|s| Arc::ptr_eq(&s.module, &program.module))
            .map(|s| s.number)
            .collect();
        left.into_iter().for_each(|sequence| self.forget(sequence));
        self.driver.unload(&program.module);
    }

    fn resident(&self, kernels: u64, index: usize) -> Result<usize, EngineError> {
        let program = self.program(kernels)?;
        let kernel = self.kernel(&program, index)?;
        let named = Kernel { module: &program.module, name: kernel.name };
        let blocks = self.driver.resident(named, Device::threads(self), kernel.shared_bytes);
        blocks.map(|n| n as usize).map_err(|e| self.failed(e))
    }

    fn sequence(&self, kernels: u64, launches: Vec<Listed>) -> Result<u64, EngineError> {
        let program = self.program(kernels)?;
        let launches = launches.iter().filter_map(|launch| self.listed(&program, launch).transpose());
        let launches = launches.collect::<Result<_, _>>()?;
        let number = NEXT.fetch_add(1, Relaxed);
        let sequence = Sequence { number, module: program.module.clone(), launches };
        lock(&self.loaded.sequences).insert(number, Arc::new(sequence));
        Ok(number)
    }

    fn start(&self, sequence: u64) -> Result<(), EngineError> {
        self.driver.start(&*self.found(sequence)?).map_err(|e| self.failed(e))
    }

    fn time(&self, sequence: u64) -> Result<Vec<f64>, EngineError> {
        self.driver.time(&*self.found(sequence)?).map_err(|e| self.failed(e))
    }

    fn forget(&self, sequence: u64) {
        if lock(&self.loaded.sequences).remove(&sequence).is_some() {
            self.driver.forget(sequence);
        }
    }
}

/// Environment variable: a folder in which the PTX of every program is written, to be read or assembled.
pub(crate) const KEEP_VARIABLE: &str = "RETROGRAD_PTX";
