//! A piece of a device's memory.

use std::sync::Arc;

use super::Device;
use crate::dtype::{DType, Element};
use crate::error::Result;
use crate::tensor::Tensor;

/// Bytes on a device, given back when dropped.
#[derive(Debug)]
pub struct Region {
    device: Arc<dyn Device>,
    address: u64,
    bytes: usize,
}

impl Region {
    /// So many bytes; they hold anything. Errors: the device has not as many.
    pub fn new(device: &Arc<dyn Device>, bytes: usize) -> Result<Region> {
        let address = if bytes == 0 { 0 } else { device.allocate(bytes)? };
        Ok(Region { device: device.clone(), address, bytes })
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Where they begin; a multiple of 256.
    pub fn address(&self) -> u64 {
        self.address
    }

    pub(super) fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// Whether they are on this device.
    pub fn is_on(&self, device: &Arc<dyn Device>) -> bool {
        Arc::ptr_eq(&self.device, device)
    }

    /// Copies to byte `offset`. Errors: the device's.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.device.write(self.address + offset as u64, bytes)
    }

    /// Copies from byte `offset`. Errors: the device's, and those of what was started before.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.device.read(self.address + offset as u64, bytes)
    }

    /// Copies a tensor there; complex ones are taken apart into planes of so many numbers.
    pub(super) fn write_tensor(&self, offset: usize, plane: usize, tensor: &Tensor) -> Result<()> {
        match tensor.dtype() {
            DType::C32 => self.write_planes::<f32>(offset, plane, tensor),
            DType::C64 => self.write_planes::<f64>(offset, plane, tensor),
            _ => self.write(offset, tensor.as_bytes()),
        }
    }

    fn write_planes<R: Element + bytemuck::Pod>(
        &self,
        offset: usize,
        plane: usize,
        tensor: &Tensor,
    ) -> Result<()> {
        let pairs: &[R] = tensor.components()?;
        for number in 0..2 {
            let part: Vec<R> = pairs.iter().skip(number).step_by(2).copied().collect();
            self.write(offset + number * plane * size_of::<R>(), bytemuck::cast_slice(&part))?;
        }
        Ok(())
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.device.release(self.address);
        }
    }
}
