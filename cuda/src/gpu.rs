//! A device and the buffers on it.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytemuck::Pod;
use retrograd_engine::device::Products;

use crate::device::Loaded;
use crate::driver::{Arg, Counts, Description, Driver, Grid, Kernel};
use crate::emulator::Emulator;
use crate::error::{Error, Result};

/// A device that runs the kernels of this crate. Clones are the same device. Programs of the engine
/// run on it as an [`engine::device::Device`](retrograd_engine::device::Device).
#[derive(Clone, Debug)]
pub struct Gpu {
    pub(crate) driver: Arc<dyn Driver>,
    /// Bytes of buffers that are alive.
    used: Arc<AtomicU64>,
    /// Bytes that programs copied to it.
    pub(crate) written: Arc<AtomicU64>,
    /// What programs of the engine have loaded.
    pub(crate) loaded: Arc<Loaded>,
    /// How programs form products there.
    pub(crate) products: Products,
}

impl Gpu {
    fn of(driver: Arc<dyn Driver>) -> Gpu {
        let (used, written, loaded) = (Arc::default(), Arc::default(), Arc::default());
        Gpu { driver, used, written, loaded, products: Products::Exact }
    }

    /// The device with programs of the engine that form products with matrices in single precision like this. Those that
    /// have been made stay as they are.
    pub fn with_products(self, products: Products) -> Gpu {
        Gpu { products, ..self }
    }

    /// Bytes of this device's buffers that are alive, counted here.
    pub fn used_bytes(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Bytes that programs of the engine have copied to it so far.
    pub fn written_bytes(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// A place on the device. Errors: out of memory.
    pub(crate) fn allocate(&self, bytes: u64) -> Result<u64> {
        let address = self.driver.allocate(bytes)?;
        self.used.fetch_add(bytes, Relaxed);
        Ok(address)
    }

    /// Gives a place of so many bytes back.
    pub(crate) fn release(&self, address: u64, bytes: u64) {
        self.driver.release(address);
        self.used.fetch_sub(bytes, Relaxed);
    }

    /// Opens device `ordinal` of the machine.
    ///
    /// Errors: no driver; no device; no such device; a driver or a chip older than the kernels.
    pub fn open(ordinal: u32) -> Result<Gpu> {
        #[cfg(target_os = "linux")]
        {
            Ok(Gpu::of(Arc::new(crate::driver::real::Real::open(ordinal)?)))
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = ordinal;
            Err(Error::NoDriver { reason: "the driver is looked for on Linux alone".into() })
        }
    }

    /// The device that interprets the kernels' PTX on the processor, with bounds and races checked; its blocks have
    /// as much shared memory as an H100's, and it runs as many at once as that has multiprocessors. Many thousand times
    /// slower than a chip: for tests.
    pub fn emulated() -> Gpu {
        Gpu::emulated_with(227 << 10)
    }

    /// The same with another amount of shared memory, which decides between variants of some kernels.
    pub fn emulated_with(shared_bytes: u32) -> Gpu {
        Gpu::emulated_as(shared_bytes, 132)
    }

    /// The same with another number of multiprocessors as well. Each runs one block at once, so that is how many blocks can
    /// wait for each other.
    pub fn emulated_as(shared_bytes: u32, multiprocessors: u32) -> Gpu {
        Gpu::of(Arc::new(Emulator::new(shared_bytes, multiprocessors)))
    }

    /// PTX instructions that all threads of the emulated device have executed; `None` on a real one.
    pub fn instructions(&self) -> Option<u64> {
        self.counts().map(|counts| counts.instructions)
    }

    /// What kernels have done on the emulated device; `None` on a real one.
    pub fn counts(&self) -> Option<Counts> {
        self.driver.counts()
    }

    /// Graphs that programs have launched so far; none on the emulated device, nor where launches wait.
    pub fn graphs(&self) -> u64 {
        self.driver.graphs()
    }

    /// What the device is.
    pub fn describe(&self) -> &Description {
        self.driver.describe()
    }

    /// Free bytes of the device's memory.
    pub fn free_bytes(&self) -> Result<u64> {
        self.driver.free_bytes()
    }

    /// Waits for all kernels. Errors: one of them failed.
    pub fn synchronize(&self) -> Result<()> {
        self.driver.synchronize()
    }

    /// A buffer of `len` zeros. Errors: out of memory.
    pub fn zeros<T: Pod>(&self, len: usize) -> Result<Buffer<T>> {
        let buffer = self.uninitialized(len)?;
        if len > 0 {
            self.driver.zero(buffer.address, buffer.bytes())?;
        }
        Ok(buffer)
    }

    /// A buffer that kernels write before anybody reads it. Errors: out of memory.
    pub(crate) fn uninitialized<T: Pod>(&self, len: usize) -> Result<Buffer<T>> {
        let bytes = (len as u64).saturating_mul(size_of::<T>() as u64);
        let address = if bytes == 0 { 0 } else { self.allocate(bytes)? };
        Ok(Buffer { gpu: self.clone(), address, len, of: PhantomData })
    }

    /// A buffer with these values. Errors: out of memory.
    pub fn upload<T: Pod>(&self, values: &[T]) -> Result<Buffer<T>> {
        let buffer = self.uninitialized(values.len())?;
        if !values.is_empty() {
            self.driver.write(buffer.address, bytemuck::cast_slice(values))?;
        }
        Ok(buffer)
    }

    /// The one way to a kernel, beside the sequences of programs. Callers are the typed functions of
    /// [`kernels`](crate::kernels), which have checked the arguments.
    pub(crate) fn launch(&self, kernel: Kernel<'_>, grid: Grid, args: &[Arg]) -> Result<()> {
        if self.does_something(kernel.name, grid)? { self.driver.launch(kernel, grid, args) } else { Ok(()) }
    }

    /// Whether a grid has blocks. Errors: it needs more shared memory than there is.
    pub(crate) fn does_something(&self, kernel: &'static str, grid: Grid) -> Result<bool> {
        let limit = self.describe().shared_bytes;
        if grid.blocks.0 == 0 || grid.blocks.1 == 0 {
            return Ok(false);
        }
        if grid.shared_bytes > limit {
            let (asked, limit) = (u64::from(grid.shared_bytes), u64::from(limit));
            return Err(Error::SharedMemory { kernel, asked, limit });
        }
        Ok(true)
    }
}

/// Numbers on a device, given back when dropped.
#[derive(Debug)]
pub struct Buffer<T> {
    gpu: Gpu,
    address: u64,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Pod> Buffer<T> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn bytes(&self) -> u64 {
        self.len as u64 * size_of::<T>() as u64
    }

    /// The values, after all kernels before. Errors: one of them failed.
    pub fn download(&self) -> Result<Vec<T>> {
        let mut values = vec![T::zeroed(); self.len];
        if self.len > 0 {
            self.gpu.driver.read(self.address, bytemuck::cast_slice_mut(&mut values))?;
        }
        Ok(values)
    }

    /// Replaces the values. Errors: another number of them.
    pub fn write(&mut self, values: &[T]) -> Result<()> {
        if values.len() != self.len {
            let (expected, got) = (self.len as u64, values.len() as u64);
            return Err(Error::Size { kernel: "write", argument: "values".into(), expected, got });
        }
        if self.len > 0 { self.gpu.driver.write(self.address, bytemuck::cast_slice(values)) } else { Ok(()) }
    }

    /// As an argument that the kernel reads.
    pub(crate) fn input(&self) -> Arg {
        Arg::Address(self.address)
    }

    /// As an argument that the kernel writes.
    pub(crate) fn output(&mut self) -> Arg {
        Arg::Address(self.address)
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.address != 0 {
            self.gpu.release(self.address, self.len as u64 * size_of::<T>() as u64);
        }
    }
}
