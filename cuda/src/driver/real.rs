//! The driver of the machine, through `cust`; through its raw bindings where `cust` has no call.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cust::CudaFlags;
use cust::context::{Context, CurrentContext};
use cust::device::{Device, DeviceAttribute};
use cust::error::CudaError;
use cust::event::{Event, EventFlags};
use cust::function::{BlockSize, Function};
use cust::memory::{DevicePointer, cuda_free, cuda_malloc, mem_get_info};
use cust::stream::{Stream, StreamFlags};
use cust::sys::{self, CUresult, cudaError_enum};

use super::graph::{self, Graph, Part};
use super::staging::Staging;
use super::symbols;
use super::{Arg, Description, Driver, Grid, Kernel, Launch, Module, Sequence};
use crate::error::{Error, Result};

/// CUDA version whose drivers load the PTX that is checked in: `.version 7.8`.
pub(crate) const NEEDS_DRIVER: i32 = 11_080;
/// Chip the PTX is made for: `.target sm_80`.
pub(crate) const NEEDS_COMPUTE: (u32, u32) = (8, 0);

/// A device of the machine.
#[derive(Debug)]
pub(crate) struct Real {
    description: Description,
    /// Kernels that were started since the device was last waited for, each once.
    running: Mutex<Vec<&'static str>>,
    /// Set by the first kernel that fails: the context is lost then.
    lost: Mutex<Option<Error>>,
    /// Largest dynamic shared memory asked for so far, by kernel.
    shared: Mutex<HashMap<(String, &'static str), u32>>,
    /// Blocks that run at once, of kernels by module and name, with so many threads and bytes of shared memory.
    resident: Mutex<HashMap<(String, &'static str, u32, u32), u32>>,
    /// Sequences that were started once, without parts, and those that were for a second time.
    sequences: Mutex<HashMap<u64, Option<Vec<Part>>>>,
    /// Graphs launched.
    graphs: AtomicU64,
    modules: Mutex<Modules>,
    staging: Mutex<Staging>,
    /// Whether a launch waits for its kernel.
    one_by_one: bool,
    stream: Stream,
    context: Context,
}

type Modules = HashMap<String, cust::module::Module>;

/// Environment variable that, set to 1, makes every launch wait for its kernel: a fault then names that kernel alone.
const ONE_BY_ONE: &str = "RETROGRAD_LAUNCHES_WAIT";

pub(super) fn failed(call: &'static str) -> impl Fn(CudaError) -> Error {
    move |code| Error::Driver { call, code: format!("{code:?}") }
}

/// What is behind a lock; a panic elsewhere has not left it half written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The raw code as a result.
pub(super) fn check(call: &'static str, code: CUresult) -> Result<()> {
    match code {
        cudaError_enum::CUDA_SUCCESS => Ok(()),
        code => Err(Error::Driver { call, code: format!("{code:?}") }),
    }
}

/// Arguments as a kernel reads them: each from the low bytes of a word, since devices and hosts are little-endian.
pub(super) fn values(args: &[Arg]) -> Vec<u64> {
    args.iter().map(|arg| arg.bits().0).collect()
}

/// Where each of them is.
pub(super) fn places(values: &mut [u64]) -> Vec<*mut c_void> {
    values.iter_mut().map(|v| std::ptr::from_mut(v).cast()).collect()
}

impl Real {
    /// Opens a device: see [`Gpu::open`](crate::Gpu::open).
    pub(crate) fn open(ordinal: u32) -> Result<Real> {
        symbols::library().map_err(|reason| Error::NoDriver { reason: reason.to_owned() })?;
        let version = cust::CudaApiVersion::get().map_or(0, |v| v.major() * 1000 + v.minor() * 10);
        match cust::init(CudaFlags::empty()) {
            Ok(()) => {}
            Err(CudaError::NoDevice) => return Err(Error::NoDevice { version }),
            Err(code) => {
                let reason = format!("{} answers cuInit with {code:?}", symbols::LIBRARY);
                return Err(Error::NoDriver { reason });
            }
        }
        if version < NEEDS_DRIVER {
            return Err(Error::OldDriver { got: version, needs: NEEDS_DRIVER });
        }
        let count = Device::num_devices().map_err(failed("counting devices"))?;
        if count == 0 {
            return Err(Error::NoDevice { version });
        }
        if ordinal >= count {
            return Err(Error::Ordinal { asked: ordinal, count });
        }
        let device = Device::get_device(ordinal).map_err(failed("taking the device"))?;
        let description = describe(device, version)?;
        if description.compute < NEEDS_COMPUTE {
            let (device, got) = (description.name, description.compute);
            return Err(Error::Architecture { device, got, needs: NEEDS_COMPUTE });
        }
        let context = Context::new(device).map_err(failed("taking the primary context"))?;
        let stream = Stream::new(StreamFlags::NON_BLOCKING, None).map_err(failed("making a stream"))?;
        Ok(Real {
            description,
            running: Mutex::default(),
            lost: Mutex::default(),
            shared: Mutex::default(),
            resident: Mutex::default(),
            sequences: Mutex::default(),
            graphs: AtomicU64::new(0),
            modules: Mutex::default(),
            staging: Mutex::new(Staging::new()?),
            one_by_one: std::env::var_os(ONE_BY_ONE).is_some_and(|v| v == "1"),
            stream,
            context,
        })
    }

    /// Makes the context current; a lost device stays lost.
    fn enter(&self) -> Result<()> {
        if let Some(lost) = &*lock(&self.lost) {
            return Err(lost.clone());
        }
        CurrentContext::set_current(&self.context).map_err(failed("making the context current"))
    }

    /// Waits for the stream and gives a failure to the kernels that ran.
    fn wait(&self) -> Result<()> {
        let waited = self.stream.synchronize();
        let kernels = std::mem::take(&mut *lock(&self.running));
        waited.map_err(|code| {
            let error = Error::Fault { kernels, code: format!("{code:?}") };
            *lock(&self.lost) = Some(error.clone());
            error
        })
    }

    /// Notes kernels that were started, the latest last. Errors: by the driver's code they were not.
    fn started(&self, kernels: &[&'static str], code: CUresult) -> Result<()> {
        let mut running = lock(&self.running);
        if code != cudaError_enum::CUDA_SUCCESS {
            let kernels = running.iter().chain(kernels).copied().collect();
            return Err(Error::Fault { kernels, code: format!("{code:?}") });
        }
        running.retain(|name| !kernels.contains(name));
        running.extend(kernels);
        Ok(())
    }

    fn load(&self, module: &Module) -> Result<()> {
        let mut modules = lock(&self.modules);
        if modules.contains_key(module.name.as_ref()) {
            return Ok(());
        }
        let loaded = cust::module::Module::from_ptx(&module.ptx, &[])
            .map_err(|_| why_not_loaded(module, self.description.driver))?;
        modules.insert(module.name.to_string(), loaded);
        Ok(())
    }

    /// A kernel of a module that is loaded, ready to be launched like this.
    fn function<'m>(&self, modules: &'m Modules, kernel: Kernel<'_>, grid: Grid) -> Result<Function<'m>> {
        let function = modules.get(kernel.module.name.as_ref()).map(|m| m.get_function(kernel.name));
        let Some(Ok(function)) = function else {
            let reason = format!("has no kernel {}", kernel.name);
            return Err(Error::Module { module: kernel.module.name.to_string(), reason });
        };
        self.allow_shared(kernel, &function, grid.shared_bytes)?;
        if grid.cooperative {
            let limit = u64::from(self.occupancy(kernel, &function, grid)?);
            let asked = u64::from(grid.blocks.0) * u64::from(grid.blocks.1);
            if asked > limit {
                return Err(Error::Cooperative { kernel: kernel.name, asked, limit });
            }
        }
        Ok(function)
    }

    /// Divides a sequence and makes graphs of what can be one. What the driver has no graphs or no memory for is launched
    /// one by one as before.
    fn divide(&self, sequence: &Sequence) -> Result<Vec<Part>> {
        self.load(&sequence.module)?;
        let modules = lock(&self.modules);
        let part = |(range, graph): (Range<usize>, bool)| {
            if !graph {
                return Ok(Part::Launches(range));
            }
            let launches = &sequence.launches[range.clone()];
            let function = |l: &Launch| self.function(&modules, sequence.kernel(l), l.grid);
            let functions: Vec<Function<'_>> = launches.iter().map(function).collect::<Result<_>>()?;
            match Graph::new(&functions, launches) {
                Ok(graph) => Ok(Part::Graph(graph)),
                Err(cudaError_enum::CUDA_ERROR_NOT_SUPPORTED | cudaError_enum::CUDA_ERROR_OUT_OF_MEMORY) => {
                    Ok(Part::Launches(range))
                }
                Err(code) => {
                    // A kernel that was started before may be what failed.
                    self.wait()?;
                    Err(Error::Driver { call: "making a graph", code: format!("{code:?}") })
                }
            }
        };
        graph::parts(&sequence.launches).into_iter().map(part).collect()
    }

    /// Launches some of a sequence one by one.
    fn launch_each(&self, sequence: &Sequence, range: Range<usize>) -> Result<()> {
        let launches = &sequence.launches[range];
        launches.iter().try_for_each(|l| self.launch(sequence.kernel(l), l.grid, &l.args))
    }

    /// Starts the kernel of this name, which is ready to be launched like this.
    fn launch_ready(
        &self,
        name: &'static str,
        function: &Function<'_>,
        grid: Grid,
        args: &[Arg],
    ) -> Result<()> {
        let mut values = values(args);
        let mut places = places(&mut values);
        let ((x, y), stream) = (grid.blocks, self.stream.as_inner());
        // SAFETY: the function is of a module that is loaded. The typed launch function, or for a program the engine's list
        // of launches, made the arguments for this kernel's parameters, in order; each is read before the call returns. The
        // buffers behind the addresses are borrowed by the caller, and freeing one waits for the stream.
        let code = unsafe {
            match grid.cooperative {
                false => sys::cuLaunchKernel(
                    function.to_raw(),
                    x,
                    y,
                    1,
                    grid.threads,
                    1,
                    1,
                    grid.shared_bytes,
                    stream,
                    places.as_mut_ptr(),
                    std::ptr::null_mut(),
                ),
                true => sys::cuLaunchCooperativeKernel(
                    function.to_raw(),
                    x,
                    y,
                    1,
                    grid.threads,
                    1,
                    1,
                    grid.shared_bytes,
                    stream,
                    places.as_mut_ptr(),
                ),
            }
        };
        self.started(&[name], code)?;
        if self.one_by_one { self.wait() } else { Ok(()) }
    }

    /// Notes on the stream when everything before has ended.
    fn record(&self, event: &Event) -> Result<()> {
        event.record(&self.stream).or_else(|code| {
            // A kernel that was started before may be what failed.
            self.wait()?;
            Err(failed("recording an event")(code))
        })
    }

    /// Lets a kernel have more dynamic shared memory than 48 KiB.
    fn allow_shared(&self, kernel: Kernel<'_>, function: &Function<'_>, bytes: u32) -> Result<()> {
        let mut allowed = lock(&self.shared);
        let allowed = allowed.entry((kernel.module.name.to_string(), kernel.name)).or_insert(48 << 10);
        if bytes > *allowed {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function belongs to a module that is loaded; the call only sets a limit.
            let code = unsafe { sys::cuFuncSetAttribute(function.to_raw(), attribute, bytes as i32) };
            check("allowing shared memory", code)?;
            *allowed = bytes;
        }
        Ok(())
    }

    /// How many blocks of a kernel that may have the shared memory run at once; asked once of each.
    fn occupancy(&self, kernel: Kernel<'_>, function: &Function<'_>, grid: Grid) -> Result<u32> {
        let mut known = lock(&self.resident);
        let key = (kernel.module.name.to_string(), kernel.name, grid.threads, grid.shared_bytes);
        if let Some(blocks) = known.get(&key) {
            return Ok(*blocks);
        }
        let each = function
            .max_active_blocks_per_multiprocessor(BlockSize::x(grid.threads), grid.shared_bytes as usize)
            .map_err(failed("asking for the occupancy"))?;
        let blocks = each.saturating_mul(self.description.multiprocessors);
        known.insert(key, blocks);
        Ok(blocks)
    }
}

fn describe(device: Device, driver: i32) -> Result<Description> {
    let attribute =
        |a| device.get_attribute(a).map(|v| v.max(0) as u32).map_err(failed("asking for an attribute"));
    // What a program does without; drivers may keep these to themselves.
    let told = |a| attribute(a).map_or(0, u64::from);
    // Those that `cust` does not name.
    let other = |a: sys::CUdevice_attribute_enum| {
        let mut value = 0;
        // SAFETY: `value` is written, the device exists.
        let code = unsafe { sys::cuDeviceGetAttribute(&mut value, a, device.as_raw()) };
        check("asking for an attribute", code).map(|()| value.max(0) as u32)
    };
    let shared = sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
    let cooperative = sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH;
    Ok(Description {
        name: device.name().map_err(failed("asking for the name"))?,
        compute: (
            attribute(DeviceAttribute::ComputeCapabilityMajor)?,
            attribute(DeviceAttribute::ComputeCapabilityMinor)?,
        ),
        driver,
        memory_bytes: device.total_memory().map_err(failed("asking for the memory"))? as u64,
        shared_bytes: other(shared)?,
        multiprocessors: attribute(DeviceAttribute::MultiprocessorCount)?,
        cooperative: other(cooperative).is_ok_and(|yes| yes > 0),
        clock_hz: told(DeviceAttribute::ClockRate) * 1000,
        // Two transfers a cycle, of so many bits.
        memory_bytes_per_second: told(DeviceAttribute::MemoryClockRate)
            * 1000
            * 2
            * told(DeviceAttribute::GlobalMemoryBusWidth)
            / 8,
        cache_bytes: told(DeviceAttribute::L2CacheSize),
        emulated: false,
    })
}

/// Loads once more to hear the code and the words that `cust` does not pass on.
fn why_not_loaded(module: &Module, driver: i32) -> Error {
    use sys::CUjit_option_enum::{CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    let Ok(text) = CString::new(module.ptx.as_bytes()) else {
        return Error::Module { module: module.name.to_string(), reason: "the PTX holds a zero byte".into() };
    };
    let mut log = vec![0u8; 4096];
    let mut options = [CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    let mut values = [log.as_mut_ptr().cast::<c_void>(), log.len() as *mut c_void];
    let mut handle = std::ptr::null_mut();
    // SAFETY: two options with two values, of which the second is a size by the driver's convention; `log` outlives
    // the call, `text` ends in a zero byte.
    let code = unsafe {
        sys::cuModuleLoadDataEx(
            &mut handle,
            text.as_ptr().cast(),
            2,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    if code == cudaError_enum::CUDA_ERROR_UNSUPPORTED_PTX_VERSION {
        return Error::OldDriver { got: driver, needs: NEEDS_DRIVER };
    }
    let words = String::from_utf8_lossy(&log);
    let words = words.trim_matches(['\0', '\n', ' ']);
    Error::Module {
        module: module.name.to_string(),
        reason: format!("{code:?} {words}").trim_end().to_owned(),
    }
}

impl Driver for Real {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn free_bytes(&self) -> Result<u64> {
        self.enter()?;
        mem_get_info().map(|(free, _)| free as u64).map_err(failed("asking for free memory"))
    }

    fn allocate(&self, bytes: u64) -> Result<u64> {
        self.enter()?;
        // SAFETY: the place is given back by `release`, once, by the buffer that owns it.
        match unsafe { cuda_malloc::<u8>(bytes as usize) } {
            Ok(place) => Ok(place.as_raw()),
            Err(CudaError::OutOfMemory) => {
                let (free, total) = mem_get_info().unwrap_or_default();
                Err(Error::OutOfMemory { asked: bytes, free: free as u64, total: total as u64 })
            }
            Err(code) => Err(failed("allocating")(code)),
        }
    }

    fn release(&self, address: u64) {
        // Kernels that were started may still use the place; freeing waits for them. A lost device has nothing left.
        if self.enter().is_ok() {
            // SAFETY: `allocate` gave the address, and its only owner gives it back.
            let _ = unsafe { cuda_free(DevicePointer::<u8>::from_raw(address)) };
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.enter()?;
        lock(&self.staging).copy(&self.stream, address, bytes).or_else(|error| {
            // A kernel that was started before may be what failed.
            self.wait()?;
            Err(error)
        })
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.enter()?;
        // SAFETY: the buffer that owns the address is as long as `bytes`, which outlive the wait.
        let code = unsafe {
            sys::cuMemcpyDtoHAsync_v2(bytes.as_mut_ptr().cast(), address, bytes.len(), self.stream.as_inner())
        };
        check("copying from the device", code)?;
        self.wait()
    }

    fn zero(&self, address: u64, bytes: u64) -> Result<()> {
        self.enter()?;
        // SAFETY: the buffer that owns the address has `bytes`.
        let code = unsafe { sys::cuMemsetD8Async(address, 0, bytes as usize, self.stream.as_inner()) };
        check("setting to zero", code)
    }

    fn launch(&self, kernel: Kernel<'_>, grid: Grid, args: &[Arg]) -> Result<()> {
        self.enter()?;
        self.load(kernel.module)?;
        let modules = lock(&self.modules);
        let function = self.function(&modules, kernel, grid)?;
        self.launch_ready(kernel.name, &function, grid, args)
    }

    fn start(&self, sequence: &Sequence) -> Result<()> {
        let all = 0..sequence.launches.len();
        if self.one_by_one {
            return self.launch_each(sequence, all);
        }
        self.enter()?;
        let mut sequences = lock(&self.sequences);
        let Some(parts) = sequences.get_mut(&sequence.number) else {
            sequences.insert(sequence.number, None);
            return self.launch_each(sequence, all);
        };
        if parts.is_none() {
            *parts = Some(self.divide(sequence)?);
        }
        for part in parts.iter().flatten() {
            match part {
                Part::Graph(graph) => {
                    self.started(&graph.kernels, graph.launch(&self.stream))?;
                    self.graphs.fetch_add(1, Relaxed);
                }
                Part::Launches(range) => self.launch_each(sequence, range.clone())?,
            }
        }
        Ok(())
    }

    fn time(&self, sequence: &Sequence) -> Result<Vec<f64>> {
        self.enter()?;
        self.load(&sequence.module)?;
        let modules = lock(&self.modules);
        let launches = &sequence.launches;
        // Whatever can be done before is no part of the time.
        let function = |l: &Launch| self.function(&modules, sequence.kernel(l), l.grid);
        let functions: Vec<Function<'_>> = launches.iter().map(function).collect::<Result<_>>()?;
        let event = |_| Event::new(EventFlags::DEFAULT).map_err(failed("making an event"));
        let start = event(0)?;
        let ends: Vec<Event> = (0..launches.len()).map(event).collect::<Result<_>>()?;
        self.record(&start)?;
        for ((function, launch), end) in functions.iter().zip(launches).zip(&ends) {
            self.launch_ready(launch.kernel, function, launch.grid, &launch.args)?;
            self.record(end)?;
        }
        self.wait()?;
        let seconds = |(start, end): (&Event, &Event)| {
            let milliseconds = end.elapsed_time_f32(start).map_err(failed("reading an event"))?;
            Ok(f64::from(milliseconds) * 1e-3)
        };
        std::iter::once(&start).chain(&ends).zip(&ends).map(seconds).collect()
    }

    fn forget(&self, sequence: u64) {
        let parts = lock(&self.sequences).remove(&sequence).flatten().unwrap_or_default();
        let graphs = parts.iter().any(|part| matches!(part, Part::Graph(_)));
        // They may still run. If one of them fails, the next call tells it.
        if graphs && self.enter().is_ok() {
            let _ = self.wait();
        }
    }

    fn graphs(&self) -> u64 {
        self.graphs.load(Relaxed)
    }

    fn resident(&self, kernel: Kernel<'_>, threads: u32, shared_bytes: u32) -> Result<u32> {
        self.enter()?;
        self.load(kernel.module)?;
        let modules = lock(&self.modules);
        let function = self.function(&modules, kernel, Grid::row(1, threads, shared_bytes))?;
        self.occupancy(kernel, &function, Grid::row(1, threads, shared_bytes))
    }

    fn unload(&self, module: &Module) {
        // Kernels of it may still run: the driver waits for them. A lost device has nothing left.
        if self.enter().is_ok() {
            lock(&self.modules).remove(module.name.as_ref());
            lock(&self.shared).retain(|of, _| of.0 != module.name);
            lock(&self.resident).retain(|of, _| of.0 != module.name);
        }
    }

    fn synchronize(&self) -> Result<()> {
        self.enter()?;
        self.wait()
    }
}
