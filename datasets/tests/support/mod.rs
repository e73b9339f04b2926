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

/// `count` CIFAR records: byte `b` of image `i` is `(5 i + b) mod 256`, its label `i mod 10`.
pub(crate) fn cifar(count: usize) -> Vec<u8> {
    let record = |i: usize| std::iter::once((i % 10) as u8).chain((0..3072).map(move |b| (5 * i + b) as u8));
    (0..count).flat_map(record).collect()
}

/// The files of the full set, plain and gzip, and of the part.
pub(crate) fn small_cifar(folder: &Path) {
    for i in 1..=5 {
        put(folder, &format!("cifar10/data_batch_{i}.bin"), cifar(5));
    }
    put(folder, "cifar10/test_batch.bin.gz", gzip(&cifar(6)));
    put(folder, "cifar10/data_batch_5_last1000.bin.gz", gzip(&cifar(4)));
    put(folder, "cifar10/test_batch_first1000.bin.gz", gzip(&cifar(3)));
}

/// UCI HAR in its own layout: value of signal `c` in window `i` at step `t` is `c + i + t / 100`; 10 windows of 5 people
/// for training, 4 for test; labels 1 to 6 in turn.
pub(crate) fn small_har(folder: &Path) {
    let signals = [
        "body_acc_x",
        "body_acc_y",
        "body_acc_z",
        "body_gyro_x",
        "body_gyro_y",
        "body_gyro_z",
        "total_acc_x",
        "total_acc_y",
        "total_acc_z",
    ];
    for (split, count) in [("train", 10), ("test", 4)] {
        let base = format!("UCI HAR Dataset/{split}");
        for (c, signal) in signals.iter().enumerate() {
            let line = |i: usize| {
                let numbers = (0..128).map(|t| format!("  {:.7e}", (c + i) as f64 + t as f64 / 100.0));
                numbers.collect::<String>() + "\n"
            };
            let text: String = (0..count).map(line).collect();
            put(folder, &format!("{base}/Inertial Signals/{signal}_{split}.txt"), text);
        }
        let lines =
            |value: fn(usize) -> usize| (0..count).map(|i| format!("{}\n", value(i))).collect::<String>();
        put(folder, &format!("{base}/y_{split}.txt"), lines(|i| i % 6 + 1));
        put(folder, &format!("{base}/subject_{split}.txt"), lines(|i| i / 2 + 1));
    }
}

/// An `.npy` file of version 1 as NumPy writes it.
pub(crate) fn npy(descr: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}{comma}), }}", sizes.join(", "));
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

/// 15 training and 13 test windows of 6 channels with labels 1 to 12 in turn, of 5 people.
pub(crate) fn small_hapt(folder: &Path) {
    for (split, count) in [("train", 15usize), ("test", 13)] {
        let values = (0..count * 128 * 6).flat_map(|i| ((i % 97) as f32 + (i / 768) as f32).to_le_bytes());
        let file = npy("<f4", &[count, 128, 6], &values.collect::<Vec<u8>>());
        put(folder, &format!("har/x_{split}.npy.gz"), gzip(&file));
        let bytes =
            |value: fn(usize) -> u8| npy("|u1", &[count], &(0..count).map(value).collect::<Vec<u8>>());
        put(folder, &format!("har/y_{split}.npy.gz"), gzip(&bytes(|i| (i % 12) as u8 + 1)));
        put(folder, &format!("har/subject_{split}.npy.gz"), gzip(&bytes(|i| (i % 5) as u8 + 1)));
    }
}

/// A recording of 120 steps of 2 channels: step `t` is `t` and `(7 t) mod 11`.
pub(crate) fn small_series(folder: &Path) {
    let values = (0..120u16).flat_map(|t| [t as f32, (7 * t % 11) as f32]).flat_map(f32::to_le_bytes);
    let values: Vec<u8> = values.collect();
    put(folder, "series.npy", npy("<f4", &[120, 2], &values));
    put(folder, "series.raw", values);
}

/// Two people and ten segments of each of the 19 activities.
pub(crate) fn small_dsa(folder: &Path) {
    for (a, p, s) in (1..=19).flat_map(|a| (1..=2).flat_map(move |p| (1..=10).map(move |s| (a, p, s)))) {
        let number = |t: usize, c: usize| format!("{}.{:04}", (a + c) % 7, (97 * t + 31 * s + c) % 10_000);
        let line = |t| (0..45).map(|c| number(t, c)).collect::<Vec<_>>().join(",") + "\n";
        put(folder, &format!("dsa/a{a:02}/p{p}/s{s:02}.txt"), (0..125).map(line).collect::<String>());
    }
}

/// A WAV file of one channel of 16-bit samples, as it is published: 44 bytes, then the samples.
pub(crate) fn wav(rate: u32, samples: &[i16]) -> Vec<u8> {
    let bytes = 2 * samples.len() as u32;
    let mut file = b"RIFF".to_vec();
    file.extend((36 + bytes).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend(rate.to_le_bytes());
    file.extend((2 * rate).to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend(bytes.to_le_bytes());
    samples.iter().for_each(|s| file.extend(s.to_le_bytes()));
    file
}

pub(crate) const WORDS: [&str; 30] = [
    "yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "zero", "one", "two", "three",
    "four", "five", "six", "seven", "eight", "nine", "bed", "bird", "cat", "dog", "happy", "house", "marvin",
    "sheila", "tree", "wow",
];

/// Four recordings of each word, one of which validates and one tests, and background noise.
pub(crate) fn small_speech(folder: &Path) {
    let mut lists = [String::new(), String::new()];
    for (w, word) in WORDS.iter().enumerate() {
        for i in 0..4 {
            let name = format!("{word}/0{i}b4f8d7_nohash_{w}.wav");
            // Some shorter than a second, one longer.
            let length = [16_000, 11_000, 15_999, 16_001][i];
            let sample =
                |t: usize| (3000.0 * (t as f64 * (w + 2) as f64 * 0.01).sin()) as i16 + (t * i % 31) as i16;
            put(
                folder,
                &format!("speech_commands/{name}"),
                wav(16_000, &(0..length).map(sample).collect::<Vec<_>>()),
            );
            if i > 1 {
                lists[i - 2].push_str(&format!("{name}\n"));
            }
        }
    }
    put(folder, "speech_commands/validation_list.txt", &lists[0]);
    put(folder, "speech_commands/testing_list.txt", &lists[1]);
    let noise: Vec<i16> = (0..20_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 18) as i16).collect();
    put(folder, "speech_commands/_background_noise_/white_noise.wav", wav(16_000, &noise));
}

/// A NIST SPHERE file as on the discs of TIMIT.
pub(crate) fn sphere(rate: u32, samples: &[i16]) -> Vec<u8> {
    let mut header = format!(
        "NIST_1A\n   1024\ndatabase_id -s5 TIMIT\ndatabase_version -s3 1.0\nutterance_id -s8 aks0_sa1\n\
         channel_count -i 1\nsample_count -i {}\nsample_rate -i {rate}\nsample_min -i -2191\nsample_max -i 2790\n\
         sample_n_bytes -i 2\nsample_byte_format -s2 01\nsample_sig_bits -i 16\nend_head\n",
        samples.len()
    )
    .into_bytes();
    header.resize(1024, b' ');
    samples.iter().for_each(|s| header.extend(s.to_le_bytes()));
    header
}

/// Two training speakers with three sentences each and a test speaker, in capitals; each also reads an `SA` sentence.
pub(crate) fn small_timit(folder: &Path) {
    for (speaker, part) in [("FCJF0", "TRAIN/DR1"), ("MDAB0", "TRAIN/DR2"), ("FAKS0", "TEST/DR1")] {
        for (i, sentence) in ["SA1", "SI1027", "SX37", "SX127"].iter().enumerate() {
            let length = 1600 + 400 * i;
            let sample = |t: usize| (2000.0 * (t as f64 * (i + 1) as f64 * 0.05).sin()) as i16;
            let at = format!("timit/{part}/{speaker}/{sentence}");
            put(folder, &format!("{at}.WAV"), sphere(16_000, &(0..length).map(sample).collect::<Vec<_>>()));
            put(folder, &format!("{at}.PHN"), format!("0 700 h#\n700 1100 sh\n1100 {length} ix\n"));
        }
    }
}

/// Twenty reviews of a few words.
pub(crate) fn small_yelp(folder: &Path) {
    let line = |i: usize| {
        let text = format!("Good, GOOD food - I'd {} \\u00e9t\\u00e9", "go again! ".repeat(i % 5));
        let stars = i % 5 + 1;
        format!(
            "{{\"review_id\":\"r{i}\",\"user_id\":\"u\",\"stars\":{stars}.0,\"text\":\"{text}\",\"date\":\"2016\"}}\n"
        )
    };
    put(folder, "yelp/yelp_academic_dataset_review.json", (0..20).map(line).collect::<String>());
}

/// A folder with all of the above.
pub(crate) fn small_data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    small_mnist(folder.path());
    small_ptb(folder.path());
    small_music(folder.path());
    small_cifar(folder.path());
    small_har(folder.path());
    small_hapt(folder.path());
    small_series(folder.path());
    small_dsa(folder.path());
    small_speech(folder.path());
    small_timit(folder.path());
    small_yelp(folder.path());
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
