//! Small data folders in the exact formats, and access to the real one.
#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::{Compression, write::GzEncoder};
use retrograd_datasets::data_dir;

pub(crate) type Check = Result<(), Box<dyn std::error::Error>>;

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An IDX file: sizes in front of elements, as they come.
pub(crate) fn idx(dims: &[u32], data: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|d| file.extend(d.to_be_bytes()));
    file.extend(data);
    file
}

pub(crate) fn put(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

/// 24 training and 5 test images: pixel `p` of image `i` is `(7 i + p) mod 256`, its label `i mod 10`.
pub(crate) fn small_mnist(folder: &Path) {
    for (name, count) in [("train", 24u32), ("t10k", 5)] {
        let images: Vec<u8> = (0..count).flat_map(|i| (0..784).map(move |p| (7 * i + p) as u8)).collect();
        let labels: Vec<u8> = (0..count).map(|i| (i % 10) as u8).collect();
        put(folder, &format!("mnist/{name}-images-idx3-ubyte.gz"), gzip(&idx(&[count, 28, 28], &images)));
        put(folder, &format!("mnist/{name}-labels-idx1-ubyte.gz"), gzip(&idx(&[count], &labels)));
    }
}

/// Sentences as words and spelled out.
pub(crate) fn small_ptb(folder: &Path) {
    let texts = [
        ("train", vec!["the cat <unk> sat", "the dog sat on the cat", "a cat"]),
        ("valid", vec!["the dog <unk>", "a dog"]),
        ("test", vec!["on the dog"]),
    ];
    for (split, lines) in texts {
        let words: String = lines.iter().map(|l| format!(" {l} \n")).collect();
        put(folder, &format!("ptb/ptb.{split}.txt"), words);
        let symbols: String = lines
            .iter()
            .flat_map(|l| l.chars().chain(['\n']))
            .flat_map(|c| [if c == ' ' { '_' } else { c }, ' '])
            .collect();
        put(folder, &format!("ptb/ptb.char.{split}.txt"), symbols);
    }
}

pub(crate) const ROLLS: &str = r#"{"train":[[[60,64],[],[21,108],[60]],[[60],[61]],[[70]]],
"valid":[[[60],[61],[62]]],"test":[[[],[60]],[[21],[22],[23],[24],[25]]]}"#;

pub(crate) fn small_music(folder: &Path) {
    for name in ["jsb_chorales", "piano_midi", "nottingham", "musedata"] {
        put(folder, &format!("music/{name}.json"), ROLLS);
    }
}

/// A folder with all of the above.
pub(crate) fn small_data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    small_mnist(folder.path());
    small_ptb(folder.path());
    small_music(folder.path());
    folder
}

/// The path of a real data file; prints a line and gives `None` where it is not there.
pub(crate) fn real(file: &str) -> Option<PathBuf> {
    let path = data_dir::find(None, file).ok();
    if path.is_none() {
        println!("skipped: {file} is not here");
    }
    path
}
