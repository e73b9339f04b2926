//! A GPU as a device of the engine: programs run on it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use retrograd_engine::Error as EngineError;
use retrograd_engine::device::{Argument, Device, Kernel as Written, Products};

use crate::driver::{Arg, Grid, Kernel, Module};
use crate::error::Error;
use crate::gpu::Gpu;
use crate::ptx;

/// Threads of a block on the emulated device: more than a warp, and not all of the second one.
const EMULATED_THREADS: u32 = 40;

/// Kernels of a program that is alive.
#[derive(Debug)]
struct Program {
    module: Module,
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

/// The programs on a device, and the bytes of their arenas by address.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    programs: Mutex<HashMap<u64, Arc<Program>>>,
    arenas: Mutex<HashMap<u64, u64>>,
}

/// Numbers of modules: no two have the same name, whatever the device.
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

    /// Kernel `index` of a program.
    fn kernel(&self, kernels: u64, index: usize) -> Result<(Arc<Program>, One), EngineError> {
        let program = lock(&self.loaded.programs).get(&kernels).cloned();
        program.and_then(|p| p.kernels.get(index).copied().map(|one| (p, one))).ok_or_else(|| {
            let what = format!("bug: no kernel {index} of program {kernels}");
            EngineError::Device { device: self.describe().name.clone(), what }
        })
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
        let module =
            Module { name: Cow::Owned(format!("program {number}")), ptx: Cow::Owned(ptx::module(kernels)) };
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
        if let Some(program) = lock(&self.loaded.programs).remove(&kernels) {
            self.driver.unload(&program.module);
        }
    }

    fn resident(&self, kernels: u64, index: usize) -> Result<usize, EngineError> {
        let (program, one) = self.kernel(kernels, index)?;
        let kernel = Kernel { module: &program.module, name: one.name };
        let blocks = self.driver.resident(kernel, Device::threads(self), one.shared_bytes);
        blocks.map(|n| n as usize).map_err(|e| self.failed(e))
    }

    fn launch(&self, kernels: u64, index: usize, blocks: u32, args: &[Argument]) -> Result<(), EngineError> {
        let (program, one) = self.kernel(kernels, index)?;
        let args: Vec<Arg> = (args.iter())
            .map(|arg| match *arg {
                Argument::Address(address) => Arg::Address(address),
                Argument::Int(number) => Arg::I32(number),
            })
            .collect();
        let kernel = Kernel { module: &program.module, name: one.name };
        let row = Grid::row(blocks, Device::threads(self), one.shared_bytes);
        let grid = Grid { cooperative: one.waits, ..row };
        self.launch(kernel, grid, &args).map_err(|e| self.failed(e))
    }
}

/// Environment variable: a folder in which the PTX of every program is written, to be read or assembled.
pub(crate) const KEEP_VARIABLE: &str = "RETROGRAD_PTX";
