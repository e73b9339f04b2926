//! How fast this machine is: measured once for each type of number, kept in a file, and what plans are chosen by from
//! then on. It decides which of several plans with the same results is run, never a result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use retrograd_engine::cpu::{Denormals, Isa, Pool};
use retrograd_engine::device::Device;
use retrograd_engine::plan::RATES_VARIABLE;
use retrograd_engine::{DType, Rates};

use super::atomic::write_atomic;
use super::error::{Error, Result};

/// Where measured rates are kept: `retrograd/rates.json` in `XDG_CACHE_HOME`, or in `.cache` of the home folder.
pub fn file() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    base.map(|base| base.join("retrograd").join("rates.json"))
}

/// Those measured on this machine for numbers of this precision; `None` if there are none, or if the environment says
/// others ([`RATES_VARIABLE`]). What the file has and cannot be read is as if it were not there. They are those of the
/// processor: a device says itself what it can do.
pub fn known(dtype: DType, device: Option<&dyn Device>) -> Option<Rates> {
    if device.is_some() || std::env::var_os(RATES_VARIABLE).is_some() {
        return None;
    }
    let isa = Isa::select().ok()?;
    read(&file()?, isa, dtype)
}

/// Measures them, on so many threads (`None`: as many as the machine has), and keeps them. Returns them with the file,
/// which is `None` where there is no place for it.
///
/// Errors: zero threads, an unknown instruction set in the environment, a file that cannot be written.
pub fn measure(dtype: DType, threads: Option<usize>) -> Result<(Rates, Option<PathBuf>)> {
    let isa = Isa::select()?;
    let rates = Rates::measure(isa, dtype, &Pool::new(threads, Denormals::default())?);
    let Some(file) = file() else { return Ok((rates, None)) };
    keep(&file, isa, dtype, rates)?;
    Ok((rates, Some(file)))
}

type Table = BTreeMap<String, String>;

/// What a line of the file is for: machines may share a home folder.
fn key(isa: Isa, dtype: DType) -> String {
    format!("{}, {isa:?}, {}", processor(), dtype.real())
}

fn read(file: &Path, isa: Isa, dtype: DType) -> Option<Rates> {
    let table: Table = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    Rates::typical(isa).with(table.get(&key(isa, dtype))?).ok()
}

fn keep(file: &Path, isa: Isa, dtype: DType, rates: Rates) -> Result<()> {
    let old = std::fs::read(file).ok();
    let mut table: Table = old.and_then(|old| serde_json::from_slice(&old).ok()).unwrap_or_default();
    table.insert(key(isa, dtype), rates.to_string());
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    let text =
        serde_json::to_vec_pretty(&table).map_err(|e| Error::Io { path: file.into(), source: e.into() })?;
    write_atomic(file, &text)
}

/// The name of the processor, where the system tells it, and how many there are.
fn processor() -> String {
    let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = told.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{count} x {}", name.map_or(std::env::consts::ARCH, |(_, name)| name.trim()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_kept_by_type_and_damage_is_as_if_there_were_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/b/rates.json");
        let isa = Isa::Portable;
        assert_eq!(read(&file, isa, DType::F32), None);
        let typical = Rates::typical(isa);
        let (single, double) = (Rates { product: 3e9, ..typical }, Rates { memory: 5e9, ..typical });
        keep(&file, isa, DType::F32, single).unwrap();
        keep(&file, isa, DType::C64, double).unwrap();
        assert_eq!(read(&file, isa, DType::C32), Some(single));
        assert_eq!(read(&file, isa, DType::F64), Some(double));
        for damaged in ["", "{", "[]", "{\"x\":1}"] {
            std::fs::write(&file, damaged).unwrap();
            assert_eq!(read(&file, isa, DType::F32), None, "{damaged}");
        }
        // What cannot be read is replaced.
        keep(&file, isa, DType::F32, double).unwrap();
        assert_eq!(read(&file, isa, DType::F32), Some(double));
    }
}
