//! A file's sizes are claims: reading a damaged one never asks for more memory than the file warrants.
#![allow(clippy::unwrap_used)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use proptest::prelude::*;
use retrograd_datasets::readers::{cifar, idx, music, npy, reviews, sphere, table, text, wav};

/// The system's allocator; it notes the largest request of each thread.
struct Noting;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(size: usize) {
    // A thread that is ending has no counter any more.
    LARGEST.try_with(|largest| largest.set(largest.get().max(size))).ok();
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promises are those of the same method.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Noting = Noting;

/// The largest single request while `read` runs.
fn largest(read: impl FnOnce()) -> usize {
    LARGEST.set(0);
    read();
    LARGEST.get()
}

type Reader = (&'static str, Vec<u8>, fn(&[u8]));

/// Every reader with a good file.
fn readers() -> Vec<Reader> {
    fn as_text(bytes: &[u8], read: impl FnOnce(&Path, &str)) {
        if let Ok(content) = std::str::from_utf8(bytes) {
            read(Path::new("test"), content);
        }
    }
    vec![
        ("idx", support::idx(&[2, 3, 3], &[7; 18]), |b| {
            idx::parse(Path::new("test"), b, b.len() as u64).ok();
        }),
        ("npy", support::npy("<f4", &[2, 3], &[7; 24]), |b| {
            npy::parse::<f32>(Path::new("test"), b, b.len() as u64).ok();
        }),
        ("wav", support::wav(16_000, &[1, 2, 3, 4]), |b| {
            wav::parse(Path::new("test"), b).ok();
        }),
        ("sphere", support::sphere(16_000, &[1, 2, 3, 4]), |b| {
            sphere::parse(Path::new("test"), b).ok();
        }),
        ("cifar", support::cifar(1), |b| {
            cifar::parse(Path::new("test"), b).ok();
        }),
        ("phones", b"0 10 h#\n10 25 ix\n".to_vec(), |b| {
            as_text(b, |path, text| {
                sphere::parse_phones(path, text).ok();
            });
        }),
        ("table", b"  1.0e-1 2\n3,4\n".to_vec(), |b| {
            as_text(b, |path, text| {
                table::parse(path, text, 2).ok();
            });
        }),
        ("music", br#"{"train":[[[60],[]]],"valid":[[[21,108]]],"test":[[[60,64]]]}"#.to_vec(), |b| {
            as_text(b, |path, text| {
                music::parse(path, text).ok();
            });
        }),
        ("characters", b"t h e _ c a t \n ".to_vec(), |b| {
            as_text(b, |path, content| {
                text::characters(path, content, true).ok();
                text::words(path, content).ok();
            });
        }),
        ("reviews", br#"{"stars":5,"text":"It's A-1!"}"#.to_vec(), |b| {
            if let Ok(folder) = tempfile::tempdir() {
                let file = support::put(folder.path(), "reviews", b);
                reviews::for_each(&file, 3, |review, _| {
                    review.words().for_each(drop);
                    Ok(())
                })
                .ok();
            }
        }),
    ]
}

/// What a reader may ask for at once: a few numbers for every byte, and a page of its own.
fn warranted(bytes: usize) -> usize {
    64 * bytes + (1 << 16)
}

/// Sizes of 2³² − 1 and the like in every place of every header.
#[test]
fn hostile_sizes() {
    for (name, good, read) in readers() {
        for at in 0..good.len() {
            for claim in [&[0xff; 4][..], &[0x7f, 0xff, 0xff, 0xff], &[0xff, 0xff, 0xff, 0x7f], &[0xff; 8]] {
                let mut bytes = good.clone();
                let end = (at + claim.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&claim[..end - at]);
                let asked = largest(|| read(&bytes));
                assert!(asked <= warranted(bytes.len()), "{name}: {asked} bytes, {claim:?} at {at}");
            }
        }
    }
    // Headers in words: digits in place of digits.
    for (name, good, read) in readers() {
        for at in (0..good.len()).filter(|&at| good[at].is_ascii_digit()) {
            let mut bytes = good.clone();
            bytes.splice(at..=at, *b"999999999999");
            let asked = largest(|| read(&bytes));
            assert!(asked <= warranted(bytes.len()), "{name}: {asked} bytes, nines at {at}");
        }
    }
}

proptest! {
    #[test]
    fn damaged_files(
        which in 0usize..10,
        changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..6),
        cut in proptest::option::of(any::<u16>()),
    ) {
        let (name, mut bytes, read) = readers().swap_remove(which);
        for (at, value) in changes {
            let at = usize::from(at) % bytes.len();
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(usize::from(cut) % (bytes.len() + 1));
        }
        let asked = largest(|| read(&bytes));
        prop_assert!(asked <= warranted(bytes.len()), "{name}: {asked} bytes of {}", bytes.len());
    }
}
