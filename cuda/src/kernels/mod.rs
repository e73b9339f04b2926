//! The kernels: one module of PTX for each `.cu` file, one safe typed function for each kernel.
//!
//! The PTX is made ahead of time by `cuda/kernels/build` and checked in; `tests/sources.rs` holds it to the hash of
//! its sources.

pub mod adam;
mod dense;
pub mod gru;
pub mod irnn;
pub mod kru;
pub mod lstm;
pub mod matmul;
pub mod reduce;
pub mod rnn;
pub mod softmax;

use crate::driver::Module;
use crate::error::{Error, Result};
use crate::gpu::Buffer;
use bytemuck::Pod;

/// The table of modules: one row for each `.cu` file.
///
/// ```ignore
/// modules! { KRU = "kru"; }
/// // expands to
/// //   pub(crate) static KRU: Module = Module::fixed("kru", include_str!("../../kernels/kru.ptx"));
/// //   pub static MODULES: &[&Module] = &[&KRU];
/// ```
macro_rules! modules {
    ($($ident:ident = $name:literal;)*) => {
        $(pub(crate) static $ident: Module =
            Module::fixed($name, include_str!(concat!("../../kernels/", $name, ".ptx")));)*
        /// All modules.
        pub static MODULES: &[&Module] = &[$(&$ident),*];
    };
}

modules! {
    ADAM = "adam";
    GRU = "gru";
    IRNN = "irnn";
    KRU = "kru";
    KRU_CHAIN = "kru_chain";
    LSTM = "lstm";
    MATMUL = "matmul";
    REDUCE = "reduce";
    RNN = "rnn";
    SOFTMAX = "softmax";
}

/// Number of elements of an argument, which is checked by [`Expect::of`].
#[derive(Clone, Debug)]
pub(crate) struct Expect {
    kernel: &'static str,
    argument: String,
    elements: u64,
    /// Whether more elements are welcome too.
    or_more: bool,
}

impl Expect {
    /// An argument with its letters (`ux [T,N,H]`) and what they are. Errors: more elements than there are addresses.
    pub(crate) fn new(kernel: &'static str, argument: &str, sizes: &[usize]) -> Result<Expect> {
        let product = sizes.iter().try_fold(1u64, |p, s| p.checked_mul(*s as u64)).filter(|p| *p < 1 << 60);
        let argument = format!("{argument}={}", crate::error::times(sizes));
        match product {
            Some(elements) => Ok(Expect { kernel, argument, elements, or_more: false }),
            None => Err(Error::Unsupported {
                kernel,
                argument: "number of elements",
                got: argument,
                expected: "less than 2^60".into(),
            }),
        }
    }

    /// An argument of at least so many elements.
    pub(crate) fn at_least(kernel: &'static str, argument: &str, elements: usize) -> Result<Expect> {
        Ok(Expect { or_more: true, ..Expect::new(kernel, argument, &[elements])? })
    }

    /// Checks a buffer. Errors: another number of elements.
    pub(crate) fn of<T: Pod>(self, buffer: &Buffer<T>) -> Result<()> {
        let got = buffer.len() as u64;
        if got == self.elements || self.or_more && got > self.elements {
            return Ok(());
        }
        Err(Error::Size { kernel: self.kernel, argument: self.argument, expected: self.elements, got })
    }

    /// Checks a buffer that may be left out.
    pub(crate) fn of_any<T: Pod>(self, buffer: Option<&Buffer<T>>) -> Result<()> {
        buffer.map_or(Ok(()), |buffer| self.of(buffer))
    }
}

/// A number of blocks or elements as the type of a kernel's parameter. Errors: too large.
pub(crate) fn fit<T: TryFrom<usize>>(
    kernel: &'static str,
    argument: &'static str,
    value: usize,
) -> Result<T> {
    T::try_from(value).map_err(|_| Error::Unsupported {
        kernel,
        argument,
        got: value.to_string(),
        expected: "less than 2^31".into(),
    })
}
