//! The CUDA backend of retrograd. **It is not written yet**: this crate compiles, links to nothing and answers every
//! question with [`NoDevice::NotBuilt`], so that a program can already ask and fall back to the processor.
//!
//! ```
//! match retrograd_cuda::available() {
//!     Ok(devices) => match devices {},
//!     Err(why) => assert!(why.to_string().contains("not built in")),
//! }
//! ```
//!
//! # What will be here
//!
//! - Devices, modules, streams and memory through the driver alone, loaded at run time: nothing is linked, and a
//!   machine without a driver gets an error of this crate instead of a program that does not start.
//! - Kernels in CUDA C++, compiled ahead of time to PTX that is checked in beside its source with the source's
//!   hash, one safe typed launch function each.
//! - A step whose recurrent operator fits one block: the whole sequence in one launch per direction.
//! - Tests that need a device ignored with that reason, never passed in silence.
#![forbid(unsafe_code)]

/// The devices that can be used. This build has no backend, so there is no such value; the type holds the place
/// in signatures, and a `match` on it needs no arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {}

/// Why there is no device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoDevice {
    /// This version has no CUDA backend, whatever the machine has.
    #[error("CUDA is not built in: version {version} of retrograd-cuda has no kernels, use the processor")]
    NotBuilt {
        /// Version of this crate.
        version: &'static str,
    },
}

/// The devices of this machine. Errors: always, in this version, with [`NoDevice::NotBuilt`]; the machine is not
/// looked at.
pub fn available() -> Result<Devices, NoDevice> {
    Err(NoDevice::NotBuilt { version: env!("CARGO_PKG_VERSION") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_that_it_is_not_built_in() {
        let why = available().map(|devices| match devices {});
        let expected = NoDevice::NotBuilt { version: env!("CARGO_PKG_VERSION") };
        assert_eq!(why, Err::<(), _>(expected));
        assert!(expected.to_string().starts_with("CUDA is not built in"), "{expected}");
    }
}
