//! Values on the command line.

use std::sync::Arc;

use retrograd::engine::device::Products;

/// Bytes: a whole or decimal number and a unit, `500k`, `1.5GB`, `64MiB`. `k`, `M`, `G`, `T` alone and with `B` are
/// powers of 1000, with `iB` of 1024.
pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let (number, unit) = (text[..end].replace('_', ""), text[end..].trim().to_ascii_lowercase());
    let scale: f64 = match unit.as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1024f64.powi(2),
        "gib" => 1024f64.powi(3),
        "tib" => 1024f64.powi(4),
        _ => {
            return Err(format!(
                "`{unit}` is no unit of bytes, expected one of B, kB, MB, GB, TB, KiB, MiB, GiB, TiB"
            ));
        }
    };
    let value =
        number.parse::<f64>().map_err(|_| "expected a number of bytes, as 64MiB, 1GB or 500k".to_string())?;
    let bytes = value * scale;
    if !(1.0..=usize::MAX as f64).contains(&bytes) {
        return Err(format!("{bytes:.0} bytes, expected at least 1 and at most {}", usize::MAX));
    }
    Ok(bytes as usize)
}

/// How values are kept for the backward pass.
pub(crate) fn stash(text: &str) -> Result<retrograd::engine::Stash, String> {
    use retrograd::engine::Stash;
    Stash::by_name(text).ok_or_else(|| format!("expected one of {}", Stash::ALL.map(Stash::name).join(", ")))
}

/// A device: the CPU, a GPU by its number, or the GPU that the program emulates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    Cpu,
    Cuda(u32),
    Emulated,
}

/// `cpu`, `cuda`, `cuda:N`, `emulated`.
pub(crate) fn device(text: &str) -> Result<Device, String> {
    match text {
        "cpu" => Ok(Device::Cpu),
        "cuda" => Ok(Device::Cuda(0)),
        "emulated" => Ok(Device::Emulated),
        text => text
            .strip_prefix("cuda:")
            .and_then(|n| n.parse().ok())
            .map(Device::Cuda)
            .ok_or_else(|| "expected cpu, cuda, cuda:N or emulated".into()),
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(0) => f.write_str("cuda"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
            Device::Emulated => f.write_str("emulated"),
        }
    }
}

impl Device {
    /// The GPU. Errors: it is not there; the CPU is meant; the program was built without.
    #[cfg(feature = "cuda")]
    pub(crate) fn gpu(self) -> super::Result<retrograd::cuda::Gpu> {
        match self {
            Device::Cpu => Err(retrograd::Error::config("device", "cpu has no kernels of whole sequences")),
            Device::Cuda(number) => Ok(retrograd::cuda::Gpu::open(number)?),
            Device::Emulated => Ok(retrograd::cuda::Gpu::emulated()),
        }
    }
}

/// Where programs run, and how products are formed there.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Place {
    /// Where it runs: cpu, cuda, cuda:N, or emulated, which is for tests; elsewhere than on the CPU sums round otherwise
    #[arg(long, default_value = "cpu", value_parser = device)]
    pub(crate) device: Device,
    /// How a GPU forms products with matrices in single precision: exact, or on tensor cores with factors rounded to
    /// tf32 or bf16; sums and gradients of matrices stay in single precision
    #[arg(long, value_name = "TYPE", default_value = "exact", value_parser = products)]
    pub(crate) products: Products,
}

impl Place {
    /// What programs run on: `None` for the CPU. Errors: it is not there; the program was built without; rounded products
    /// on the CPU.
    pub(crate) fn engine(self) -> super::Result<Option<Arc<dyn retrograd::engine::device::Device>>> {
        let Place { device, products } = self;
        if device == Device::Cpu {
            if products != Products::Exact {
                let what = format!("{products} is of a GPU's tensor cores, not of --device cpu");
                return Err(retrograd::Error::config("products", what));
            }
            return Ok(None);
        }
        #[cfg(feature = "cuda")]
        {
            Ok(Some(Arc::new(device.gpu()?.with_products(products))))
        }
        #[cfg(not(feature = "cuda"))]
        {
            Err(retrograd::Error::config("device", "this program was built without CUDA"))
        }
    }
}

/// How a GPU forms products.
fn products(text: &str) -> Result<Products, String> {
    let names = || Products::ALL.map(Products::name).join(", ");
    Products::by_name(text).ok_or_else(|| format!("expected one of {}", names()))
}

/// A whole number from 1.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    match text.replace('_', "").parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("expected a whole number from 1".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let rows = [
            ("64MiB", Some(64 << 20)),
            ("1GB", Some(1_000_000_000)),
            ("500k", Some(500_000)),
            ("1.5KiB", Some(1536)),
            ("4096", Some(4096)),
            ("2 GiB", Some(2 << 30)),
            ("0", None),
            ("", None),
            ("MiB", None),
            ("12 parsecs", None),
            ("-1k", None),
            ("99999999TB", None),
        ];
        for (text, expected) in rows {
            assert_eq!(bytes(text).ok(), expected, "{text}");
        }
        let devices = ["cpu", "cuda", "cuda:3", "cuda:x", "gpu"].map(|text| device(text).ok());
        assert_eq!(devices, [Some(Device::Cpu), Some(Device::Cuda(0)), Some(Device::Cuda(3)), None, None]);
        assert_eq!((positive("1_000"), positive("0").is_err()), (Ok(1000), true));
    }
}
