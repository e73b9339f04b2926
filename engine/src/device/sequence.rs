//! Launches that are started again and again.

use std::sync::Arc;

use super::{Device, Launch};
use crate::error::Result;

/// Launches of loaded kernels that follow each other, forgotten when dropped. What they read and write at is fixed by their
/// arguments; whoever starts them has it there.
#[derive(Debug)]
pub struct Sequence {
    device: Arc<dyn Device>,
    number: u64,
}

impl Sequence {
    /// Of kernels loaded as `kernels`. Errors: the device's.
    pub fn new(device: &Arc<dyn Device>, kernels: u64, launches: Vec<Launch>) -> Result<Sequence> {
        Ok(Sequence { device: device.clone(), number: device.sequence(kernels, launches)? })
    }

    /// Starts all of them, in order. Errors: the device's.
    pub fn start(&self) -> Result<()> {
        self.device.start(self.number)
    }

    /// Starts all of them, in order, and waits. Returns the seconds of each that has blocks: [`Device::time`]. Errors: the
    /// device's.
    pub fn time(&self) -> Result<Vec<f64>> {
        self.device.time(self.number)
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        self.device.forget(self.number);
    }
}
