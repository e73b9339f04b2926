//! What is said where there is no driver, and no device. These run everywhere and are decided by what is there.

#![allow(clippy::panic)]

use retrograd_cuda::{Error, Gpu};

/// Whether the loader finds a driver, asked by another way than the crate does.
fn has_driver() -> bool {
    let folders = [
        "/usr/lib",
        "/usr/lib64",
        "/lib",
        "/lib64",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
    ];
    let named = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = folders.into_iter().chain(named.split(':')).filter(|f| !f.is_empty());
    folders.into_iter().any(|f| std::path::Path::new(f).join("libcuda.so.1").exists())
}

#[test]
fn a_machine_without_a_driver_is_told_so_in_one_line() {
    match Gpu::open(0) {
        Err(error @ Error::NoDriver { .. }) => {
            let text = error.to_string();
            assert!(text.starts_with("no CUDA driver: "), "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
        other => assert!(has_driver(), "no driver was found beside the program, and yet: {other:?}"),
    }
}

#[test]
fn a_device_that_does_not_exist_is_refused() {
    let error = Gpu::open(1 << 20).map(|gpu| gpu.describe().clone());
    assert!(
        matches!(
            error,
            Err(Error::Ordinal { asked: 1_048_576, .. } | Error::NoDriver { .. } | Error::NoDevice { .. })
        ),
        "{error:?}"
    );
}

#[test]
#[ignore = "needs a CUDA device"]
fn a_device_says_what_it_is() -> Result<(), Error> {
    let gpu = Gpu::open(0)?;
    let what = gpu.describe();
    assert!(what.compute >= (8, 0) && !what.emulated && what.multiprocessors > 0, "{what:?}");
    assert!(what.shared_bytes >= 96 << 10, "{what:?}");
    assert!(gpu.free_bytes()? <= what.memory_bytes, "{what:?}");
    Ok(())
}

#[test]
#[ignore = "needs a CUDA device"]
fn more_memory_than_there_is() -> Result<(), Error> {
    let gpu = Gpu::open(0)?;
    let bytes = gpu.describe().memory_bytes as usize;
    match gpu.zeros::<u8>(2 * bytes) {
        Err(Error::OutOfMemory { asked, free, total }) => {
            assert_eq!(asked, 2 * bytes as u64);
            assert!(free <= total, "{free} {total}");
        }
        other => panic!("{:?}", other.map(|b| b.len())),
    }
    // The device is as usable as before.
    assert_eq!(gpu.upload(&[1.0f32, 2.0])?.download()?, [1.0, 2.0]);
    Ok(())
}
