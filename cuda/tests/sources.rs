//! The checked-in PTX is that of the sources beside it: their hash stands in its second line. Without Python or a
//! compiler; `cuda/kernels/check` compiles them again and compares every byte.

use std::path::Path;

use retrograd_cuda::kernels::MODULES;
use sha2::{Digest, Sha256};

/// The file and what it includes, each once, in order of first mention: what `compile.py` hashes.
fn parts(folder: &Path, name: &str, seen: &mut Vec<String>) -> std::io::Result<()> {
    if seen.iter().any(|s| s == name) {
        return Ok(());
    }
    seen.push(name.to_owned());
    for line in std::fs::read_to_string(folder.join(name))?.lines() {
        if let Some(name) = line.strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"')) {
            parts(folder, name, seen)?;
        }
    }
    Ok(())
}

#[test]
fn ptx_carries_the_hash_of_its_sources() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    for module in MODULES {
        let mut files = Vec::new();
        parts(&folder, &format!("{}.cu", module.name), &mut files)?;
        let mut hash = Sha256::new();
        for name in &files {
            hash.update(name.as_bytes());
            hash.update([0]);
            hash.update(std::fs::read(folder.join(name))?);
            hash.update([0]);
        }
        let digest: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        let expected = format!("// sources sha256 {digest}");
        let found = module.ptx.lines().nth(1).unwrap_or("");
        assert_eq!(found, expected, "{}.ptx is not of these sources: run cuda/kernels/build", module.name);
    }
    Ok(())
}

#[test]
fn every_source_is_in_the_table() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        if path.extension().is_some_and(|e| e == "cu") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            assert!(MODULES.iter().any(|m| m.name == name), "{name}.cu has no row in kernels/mod.rs");
        }
    }
    Ok(())
}

#[test]
fn ptx_loads_on_the_drivers_that_the_documentation_names() {
    for module in MODULES {
        let line = |word: &str| module.ptx.lines().find(|l| l.starts_with(word)).unwrap_or("").to_owned();
        assert_eq!(line(".version"), ".version 7.8", "{}", module.name);
        assert_eq!(line(".target"), ".target sm_80", "{}", module.name);
    }
}
