//! Readers on small files in the exact formats, and on files nobody should have written.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::path::Path;

use proptest::prelude::*;
use retrograd_datasets::readers::{idx, music, text};
use retrograd_datasets::{Error, Options, task};
use support::{Check, ROLLS, gzip, idx as idx_file, put};

fn parse(bytes: &[u8]) -> Result<idx::Idx, Error> {
    idx::parse(Path::new("test"), bytes, bytes.len() as u64)
}

fn reason<T>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Data { reason, .. }) => reason,
        Err(other) => format!("another error: {other}"),
        Ok(_) => "no error".into(),
    }
}

#[test]
fn idx_plain_and_gzip() -> Check {
    let folder = tempfile::tempdir()?;
    let bytes = idx_file(&[2, 3], &[1, 2, 3, 4, 5, 6]);
    let want = idx::Idx { dims: vec![2, 3], data: vec![1, 2, 3, 4, 5, 6] };
    assert_eq!(idx::read(&put(folder.path(), "plain", &bytes))?, want);
    assert_eq!(idx::read(&put(folder.path(), "gzip", gzip(&bytes)))?, want);
    assert!(matches!(idx::read(&folder.path().join("none")), Err(Error::Io { action: "open", .. })));
    Ok(())
}

#[test]
fn idx_errors() -> Check {
    let good = idx_file(&[2, 3], &[1, 2, 3, 4, 5, 6]);
    let table: [(Vec<u8>, &str); 8] = [
        (vec![], "truncated: 0 bytes"),
        (good[..3].to_vec(), "truncated: 3 bytes"),
        (good[..9].to_vec(), "truncated: 5 bytes of sizes for 2 axes"),
        (good[..17].to_vec(), "truncated: sizes [2, 3], 5 elements"),
        ([&good[..], &[0]].concat(), "bytes after the 6 elements of [2, 3]"),
        ([&[0, 0, 9, 2], &good[4..]].concat(), "magic [00, 00, 09, 02]"),
        ([&[0, 0, 8, 9], &good[4..]].concat(), "magic [00, 00, 08, 09]"),
        (idx_file(&[u32::MAX, u32::MAX, u32::MAX], &[1]), "claim more than the 17 bytes"),
    ];
    for (bytes, want) in table {
        let got = reason(parse(&bytes));
        assert!(got.contains(want), "{got:?} does not say {want:?}");
    }
    // A gzip of a header that claims two thousand million images, a cut and a damaged stream.
    let folder = tempfile::tempdir()?;
    let hostile = put(folder.path(), "hostile", gzip(&idx_file(&[2_000_000_000], &[0; 100])));
    assert!(reason(idx::read(&hostile)).contains("claim more than"));
    let whole = gzip(&idx_file(&[5000], &(0..5000u32).map(|i| (i * i) as u8).collect::<Vec<_>>()));
    let cut = put(folder.path(), "cut", &whole[..whole.len() / 2]);
    assert!(reason(idx::read(&cut)).contains("damaged after"), "{}", reason(idx::read(&cut)));
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x55;
    let got = reason(idx::read(&put(folder.path(), "damaged", damaged)));
    assert!(got.contains("damaged"), "{got}");
    Ok(())
}

#[test]
fn labelled_images_must_agree() -> Check {
    let folder = tempfile::tempdir()?;
    let images = put(folder.path(), "images", idx_file(&[2, 1, 1], &[1, 2]));
    let table = [
        (idx_file(&[3], &[0, 1, 2]), "3 labels for 2 images"),
        (idx_file(&[2], &[0, 10]), "label 1 is 10, expected less than 10"),
        (idx_file(&[2, 1], &[0, 1]), "2 axes, expected 1"),
    ];
    for (bytes, want) in table {
        let labels = put(folder.path(), "labels", bytes);
        assert_eq!(reason(idx::read_labelled(&images, &labels, 10)), want);
    }
    Ok(())
}

#[test]
fn mnist_of_another_size_is_an_error() -> Check {
    let folder = support::small_data();
    let name = "mnist/t10k-images-idx3-ubyte.gz";
    put(folder.path(), name, idx_file(&[5, 28, 29], &vec![0; 5 * 28 * 29]));
    let got = reason(task("mnist", &Options::new().with_data(folder.path())));
    assert!(got.contains("[5, 28, 29]"), "{got}");
    Ok(())
}

#[test]
fn character_errors() {
    let path = Path::new("test");
    for (content, want) in [
        ("a b", "3 bytes, expected pairs"),
        ("", "0 bytes, expected pairs"),
        ("a bc", "byte 3 is 0x63, expected a blank"),
        ("ä b ", "byte 0 is 0xc3, expected ASCII"),
    ] {
        let got = reason(text::characters(path, content, false));
        assert!(got.contains(want), "{got}");
    }
    assert_eq!(text::words(path, " \n \n").err().map(|e| e.to_string()).as_deref(), Some("test: no words"));
}

#[test]
fn unknown_symbols() -> Check {
    let path = Path::new("test");
    let letters = text::Vocabulary::alphabetical(&["b", "a", "b"]);
    assert_eq!(letters.encode(path, &["b", "a"])?, [1, 0]);
    assert!(reason(letters.encode(path, &["a", "z"])).contains("symbol 1 is \"z\""));
    let words = text::Vocabulary::by_frequency(&["x", "<unk>", "y", "y"]);
    assert_eq!(words.encode(path, &["y", "never"])?, [0, 1]);
    assert_eq!((words.symbol(2), words.symbol(3), words.symbol(-1)), (Some("x"), None, None));
    Ok(())
}

#[test]
fn text_that_is_not() -> Check {
    let folder = tempfile::tempdir()?;
    let path = put(folder.path(), "text", [0xff, 0xfe, 0x00]);
    assert!(reason(text::read(&path)).contains("damaged or not text"));
    // A small file that inflates beyond what any text has.
    let bomb = put(folder.path(), "bomb", gzip(&vec![b' '; (1 << 28) + 1]));
    assert!(std::fs::metadata(&bomb)?.len() < 1 << 20);
    assert!(reason(text::read(&bomb)).contains("more than 268435456 bytes"));
    Ok(())
}

#[test]
fn piano_rolls() -> Check {
    let path = Path::new("test");
    let rolls = music::parse(path, ROLLS)?;
    assert_eq!((rolls.train.len(), rolls.valid.len(), rolls.test.len()), (3, 1, 2));
    assert_eq!(rolls.train[0][2].columns().collect::<Vec<_>>(), [0, 87]);
    assert_eq!(music::to_text(path, &rolls)?, ROLLS.replace('\n', ""));
    for (content, want) in [
        ("", "EOF"),
        ("[]", "invalid"),
        (r#"{"train":[[[60]]],"valid":[[[60]]]}"#, "missing field `test`"),
        (r#"{"train":[[[60]]],"valid":[],"test":[[[60]]]}"#, "no sequences in `valid`"),
        (r#"{"train":[[[20]]],"valid":[],"test":[]}"#, "note 20, expected 21 to 108"),
        (r#"{"train":[[[109]]],"valid":[],"test":[]}"#, "note 109, expected 21 to 108"),
        (r#"{"train":[[[60,60]]],"valid":[],"test":[]}"#, "note 60 twice"),
        (r#"{"train":[[[1e99]]],"valid":[],"test":[]}"#, "invalid type"),
        (r#"{"train":[[[60]]],"valid":[[[60]]],"test":[[[60]]],"more":1}"#, "unknown field"),
    ] {
        let got = reason(music::parse(path, content));
        assert!(got.contains(want), "{content}: {got}");
    }
    let nested = "[".repeat(100_000);
    assert!(reason(music::parse(path, &format!("{{\"train\":{nested}"))).contains("line 1"));
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let path = Path::new("test");
        if let Ok(idx) = parse(&bytes) {
            prop_assert_eq!(idx.data.len(), idx.dims.iter().product::<usize>());
        }
        if let Ok(content) = std::str::from_utf8(&bytes) {
            let _ = music::parse(path, content);
            let _ = text::words(path, content);
            if let Ok(symbols) = text::characters(path, content, true) {
                prop_assert!(!symbols.is_empty() && symbols.len() <= bytes.len() / 2);
            }
        }
    }

    #[test]
    fn damaged_idx_is_refused_or_consistent(
        at in 0usize..30, value in any::<u8>(), cut in 0usize..31, zip in any::<bool>()
    ) {
        let mut bytes = idx_file(&[2, 3, 3], &[7; 18]);
        bytes.truncate(cut.max(1));
        let at = at % bytes.len();
        bytes[at] = value;
        let folder = tempfile::tempdir()?;
        let file = if zip { gzip(&bytes) } else { bytes };
        if let Ok(idx) = idx::read(&put(folder.path(), "file", file)) {
            prop_assert_eq!(idx.data.len(), idx.dims.iter().product::<usize>());
        }
    }

    #[test]
    fn idx_round_trip(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        let folder = tempfile::tempdir()?;
        let path = put(folder.path(), "file", gzip(&idx_file(&[data.len() as u32], &data)));
        prop_assert_eq!(idx::read(&path)?.data, data);
    }

    #[test]
    fn damaged_piano_rolls_are_refused_or_read(at in 0usize..110, value in 32u8..127) {
        let mut bytes = ROLLS.as_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] = value;
        let content = String::from_utf8(bytes)?;
        if let Ok(rolls) = music::parse(Path::new("test"), &content) {
            let again = music::to_text(Path::new("test"), &rolls)?;
            prop_assert_eq!(music::parse(Path::new("test"), &again)?, rolls);
        }
    }
}
