//! Readers on small files in the exact formats, and on files nobody should have written.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::path::Path;

use proptest::prelude::*;
use retrograd_datasets::readers::{cifar, idx, music, npy, reviews, sphere, table, text, wav};
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

#[test]
fn wav_files() -> Check {
    let folder = tempfile::tempdir()?;
    let good = support::wav(16_000, &[1, -2, i16::MAX, i16::MIN]);
    let read = wav::read(&put(folder.path(), "a.wav", &good))?;
    assert_eq!(read, wav::Recording { rate: 16_000, samples: vec![1, -2, i16::MAX, i16::MIN] });
    let with = |at: usize, bytes: &[u8]| [&good[..at], bytes, &good[at + bytes.len()..]].concat();
    for (bytes, want) in [
        (vec![], "not a WAV file"),
        (good[..20].to_vec(), "not a WAV file"),
        (good[..48].to_vec(), "not a WAV file"),
        (with(0, b"RIFX"), "not a WAV file"),
        (with(40, &u32::MAX.to_le_bytes()), ""),
        (with(40, &4_000_000u32.to_le_bytes()), "claims 2000000 samples in 52 bytes"),
        (with(24, &0u32.to_le_bytes()), "not a WAV file"),
        (with(22, &[2]), ""),
        (with(34, &[8]), ""),
    ] {
        let got = reason(wav::parse(Path::new("test"), &bytes));
        assert!(got != "no error" && got.contains(want), "{got:?} does not say {want:?}");
    }
    Ok(())
}

#[test]
fn sphere_files_and_phones() -> Check {
    let path = Path::new("test");
    let good = support::sphere(16_000, &[5, -6, 7]);
    assert_eq!(sphere::parse(path, &good)?, wav::Recording { rate: 16_000, samples: vec![5, -6, 7] });
    let text = String::from_utf8_lossy(&good[..1024]).into_owned();
    let with = |from: &str, to: &str| {
        let mut header = text.replacen(from, to, 1).into_bytes();
        header.resize(1024, b' ');
        header.extend(&good[1024..]);
        header
    };
    let big = sphere::parse(path, &with("format -s2 01", "format -s2 10"))?;
    assert_eq!(big.samples, [5i16.swap_bytes(), (-6i16).swap_bytes(), 7i16.swap_bytes()]);
    for (bytes, want) in [
        (vec![], "expected \"NIST_1A\\n\""),
        (b"NIST_1A\n".to_vec(), "no length of the header"),
        (with("   1024", "    -10"), "no length of the header"),
        (with("   1024", "9999999"), "no length of the header"),
        (good[..900].to_vec(), "truncated: 900 bytes, the header has 1024"),
        (with("end_head", "end_heat"), "no end_head"),
        (with("sample_count -i 3", "sample_count -i 4"), "4 samples of 2 bytes claimed, 6 bytes follow"),
        (with("sample_count -i 3", "sample_count -i 9223372036854775808"), "claimed, 6 bytes follow"),
        (with("sample_count -i 3", "sample_count -i x"), "`sample_count` is \"x\""),
        (with("sample_rate", "sample_rite"), "has no `sample_rate`"),
        (with("sample_rate -i 16000", "sample_rate -i 0"), "`sample_rate` is 0"),
        (with("channel_count -i 1", "channel_count -i 2"), "`channel_count` is 2, expected 1"),
        (with("sample_n_bytes -i 2", "sample_n_bytes -i 1"), "`sample_n_bytes` is 1, expected 2"),
        (with("format -s2 01", "format -s2 11"), "expected 01 or 10"),
        (
            with("sample_min -i", "sample_coding -s26 pcm,embedded-shorten-v2.00\nsample_min -i"),
            "sample_coding",
        ),
    ] {
        let got = reason(sphere::parse(path, &bytes));
        assert!(got.contains(want), "{got:?} does not say {want:?}");
    }
    let phones = sphere::parse_phones(path, "0 10 h#\n\n10 25 IX\n")?;
    assert_eq!(phones[1], sphere::Phone { from: 10, to: 25, name: "ix".into() });
    for (content, want) in [
        ("", "no phones"),
        ("0 10", "line 1 is \"0 10\""),
        ("0 10 a\n9 12 b", "line 2 is \"9 12 b\", expected `from to phone` from sample 10"),
        ("0 0 a", "line 1"),
        ("-1 5 a", "line 1"),
        ("0 99999999999999999999999 a", "line 1"),
    ] {
        let got = reason(sphere::parse_phones(path, content));
        assert!(got.contains(want), "{got:?} does not say {want:?}");
    }
    Ok(())
}

#[test]
fn npy_files() -> Check {
    let path = Path::new("test");
    let read = |bytes: &[u8]| npy::parse::<f32>(path, bytes, bytes.len() as u64);
    let data: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let good = support::npy("<f4", &[2, 1], &data);
    assert_eq!(read(&good)?, npy::Array { dims: vec![2, 1], data: vec![1.5, -2.0] });
    // Version 2 has a longer length.
    let second = [b"\x93NUMPY\x02\x00", &good[8..10], &[0, 0], &good[10..]].concat();
    assert_eq!(read(&second)?.data, [1.5, -2.0]);
    assert_eq!(npy::parse::<u8>(path, &support::npy("|u1", &[3], &[7, 8, 9])[..], 200)?.data, [7, 8, 9]);
    for (bytes, want) in [
        (vec![], "begins with []"),
        (b"\x93NUMPX\x01\x00".to_vec(), "begins with"),
        (b"\x93NUMPY\x03\x00".to_vec(), "version 3"),
        (good[..60].to_vec(), "truncated: 50 of 118 bytes of the header"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(), "a header of 4294967295 bytes"),
        (good[..good.len() - 1].to_vec(), "truncated: sizes [2, 1], 7 of 8 bytes"),
        ([&good[..], &[0]].concat(), "bytes after the elements of [2, 1]"),
        (support::npy("<f8", &[1], &data), "elements <f8 in C order, expected <f4"),
        (support::npy("<f4", &[1 << 40, 1 << 40], &data), "claim more than"),
        (support::npy("<f4", &[100_000], &data), "claim more than the 136 bytes"),
        (b"\x93NUMPY\x01\x00\x02\x00{}".to_vec(), "is not a dict"),
    ] {
        let got = reason(read(&bytes));
        assert!(got.contains(want), "{got:?} does not say {want:?}");
    }
    Ok(())
}

#[test]
fn windows_that_are_none() -> Check {
    let folder = support::small_data();
    put(folder.path(), "har/x_train.npy.gz", gzip(&support::npy("<f4", &[0, 128, 6], &[])));
    for file in ["y_train", "subject_train"] {
        put(folder.path(), &format!("har/{file}.npy.gz"), gzip(&support::npy("|u1", &[0], &[])));
    }
    let message = task("hapt", &Options::new().with_data(folder.path())).err().unwrap().to_string();
    assert!(message.contains("no windows in the train split"), "{message}");
    Ok(())
}

#[test]
fn images_tables_and_reviews() -> Check {
    let path = Path::new("test");
    let good = support::cifar(2);
    assert_eq!(cifar::parse(path, &good)?.labels, [0, 1]);
    assert_eq!(cifar::parse(path, &good)?.pixels[3072], 5);
    let mut wrong = good.clone();
    wrong[3073] = 10;
    for (bytes, want) in [
        (&wrong[..], "label 1 is 10, expected less than 10"),
        (&good[..6145], "6145 bytes, expected records of 3073"),
        (&[], "0 bytes"),
    ] {
        let got = reason(cifar::parse(path, bytes));
        assert!(got.contains(want), "{got:?} does not say {want:?}");
    }

    assert_eq!(table::parse(path, "1,2\n\n -3.5e-1 4\r\n", 2)?, [1.0, 2.0, -0.35, 4.0]);
    for (content, want) in [
        ("1 2\n3", "line 2: 1 numbers, expected 2"),
        ("1 nan", "line 1: \"nan\" is no finite number"),
        ("1 1e99", "line 1: \"1e99\" is no finite number"),
        (" \n", "no numbers"),
    ] {
        let got = reason(table::parse(path, content, 2));
        assert!(got.contains(want), "{got:?} does not say {want:?}");
    }
    let folder = tempfile::tempdir()?;
    for content in ["3\n7", "3\n-1", "3\n2.5"] {
        let got = reason(table::read_integers(&put(folder.path(), "labels", content), 1..=6));
        assert!(got.contains("line 2") && got.contains("from 1 to 6"), "{got}");
    }

    let read = |content: &[u8]| {
        let mut seen = vec![];
        let each = |review: reviews::Review, class| {
            seen.push((class, review.words().collect::<Vec<_>>().join(" ")));
            Ok(())
        };
        reviews::for_each(&put(folder.path(), "reviews", content), 2, each).map(|_| seen)
    };
    let two = b"{\"stars\":5,\"text\":\"It's A-1!\"}\n\n{\"text\":\"\",\"stars\":1.0}\nnot read";
    assert_eq!(read(two)?, [(4, "it's a 1".to_string()), (0, String::new())]);
    for (content, want) in [
        (&b"{\"stars\":3}"[..], "line 1: missing field `text`"),
        (b"\n{\"stars\":3.5,\"text\":\"\"}", "line 2: 3.5 stars"),
        (b"\xff\n", "damaged or not text"),
        (&vec![b' '; (1 << 20) + 5], "line 1: more than 1048576 bytes"),
    ] {
        let got = reason(read(content));
        assert!(got.contains(want), "{got:?} does not say {want:?}");
    }
    Ok(())
}

/// A good file of every binary reader, and a reader that checks what it gives.
fn binary_files() -> Vec<(Vec<u8>, fn(&[u8]))> {
    vec![
        (support::wav(16_000, &[1, 2, 3, 4]), |bytes| {
            if let Ok(r) = wav::parse(Path::new("test"), bytes) {
                assert!(2 * r.samples.len() <= bytes.len() && r.rate > 0);
            }
        }),
        (support::sphere(16_000, &[1, 2, 3, 4]), |bytes| {
            if let Ok(r) = sphere::parse(Path::new("test"), bytes) {
                assert!(2 * r.samples.len() <= bytes.len() && r.rate > 0);
            }
        }),
        (support::npy("<f4", &[2, 3], &[7; 24]), |bytes| {
            if let Ok(a) = npy::parse::<f32>(Path::new("test"), bytes, bytes.len() as u64) {
                assert_eq!(a.data.len(), a.dims.iter().product::<usize>());
            }
        }),
        (support::cifar(1), |bytes| {
            if let Ok(images) = cifar::parse(Path::new("test"), bytes) {
                assert_eq!(images.pixels.len(), images.labels.len() * cifar::BYTES);
            }
        }),
        (b"0 10 h#\n10 25 ix\n".to_vec(), |bytes| {
            if let Ok(text) = std::str::from_utf8(bytes)
                && let Ok(phones) = sphere::parse_phones(Path::new("test"), text)
            {
                assert!(phones.iter().all(|p| p.from < p.to));
                assert!(phones.windows(2).all(|p| p[0].to <= p[1].from));
            }
        }),
        (b"  1.0e-1 2\n3,4\n".to_vec(), |bytes| {
            if let Ok(text) = std::str::from_utf8(bytes)
                && let Ok(numbers) = table::parse(Path::new("test"), text, 2)
            {
                assert!(numbers.len() % 2 == 0 && numbers.iter().all(|x| x.is_finite()));
            }
        }),
    ]
}

proptest! {
    #[test]
    fn damaged_files_are_refused_or_consistent(
        which in 0usize..6,
        changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..6),
        cut in proptest::option::of(any::<u16>()),
        more in proptest::collection::vec(any::<u8>(), 0..9),
    ) {
        let (mut bytes, check) = binary_files().swap_remove(which);
        for (at, value) in changes {
            let at = usize::from(at) % bytes.len();
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(usize::from(cut) % (bytes.len() + 1));
        }
        bytes.extend(more);
        check(&bytes);
    }

    #[test]
    fn damaged_headers_are_refused_or_consistent(
        which in 0usize..3, at in 0usize..130, value in any::<[u8; 4]>(), wide in any::<bool>(),
    ) {
        // The header alone, where one change matters most.
        let (mut bytes, check) = binary_files().swap_remove(which);
        let at = at.min(bytes.len() - 4);
        let n = if wide { 4 } else { 1 };
        bytes[at..at + n].copy_from_slice(&value[..n]);
        check(&bytes);
    }

    #[test]
    fn any_bytes_are_no_recording(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for (_, check) in binary_files() {
            check(&bytes);
        }
        let folder = tempfile::tempdir()?;
        let file = put(folder.path(), "reviews", &bytes);
        prop_assert!(reviews::for_each(&file, 3, |_, _| Ok(())).is_err() || bytes.iter().all(u8::is_ascii_whitespace));
    }

    #[test]
    fn damaged_reviews_are_refused_or_read(at in 0usize..40, value in any::<u8>(), zip in any::<bool>()) {
        let mut bytes = br#"{"stars":5,"text":"It's A-1! \u00e9"}"#.to_vec();
        let at = at % bytes.len();
        bytes[at] = value;
        let folder = tempfile::tempdir()?;
        let file = put(folder.path(), "reviews", if zip { gzip(&bytes) } else { bytes });
        if let Ok(count) = reviews::for_each(&file, 3, |_, class| { assert!(class < 5); Ok(()) }) {
            prop_assert!(count <= 3);
        }
    }

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
