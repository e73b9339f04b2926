//! Downloads from a small server on this machine.
#![allow(clippy::unwrap_used, clippy::panic)]
#![cfg(feature = "fetch")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use retrograd_datasets::Error;
use retrograd_datasets::catalog::{Access, DataFile, file};
use retrograd_datasets::fetch::{Outcome, Progress, digest, fetch, fetch_file, fetch_piano_rolls};
use support::{Check, ROLLS, put};

/// How the server behaves.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Answers ranges.
    Ranges,
    /// Ignores ranges.
    Whole,
    /// Answers ranges but cuts each answer after so many bytes.
    Cut(usize),
    /// Finds nothing.
    NotFound,
    /// Answers every range with another one.
    WrongRange,
}

struct Server {
    url: String,
    /// First byte asked for in each request.
    asked: Arc<Mutex<Vec<Option<usize>>>>,
}

fn serve(content: Vec<u8>, manner: Manner) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/file", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(vec![]));
    let log = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = answer(stream, &content, manner, &log);
        }
    });
    Server { url, asked }
}

fn answer(
    mut stream: TcpStream,
    content: &[u8],
    manner: Manner,
    log: &Mutex<Vec<Option<usize>>>,
) -> std::io::Result<()> {
    let mut range = None;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?.to_lowercase();
        if let Some(value) = line.strip_prefix("range: bytes=") {
            range = value.trim_end_matches('-').parse::<usize>().ok();
        }
        if line.is_empty() {
            break;
        }
    }
    log.lock().unwrap().push(range);
    let total = content.len();
    let (status, extra, body) = match (manner, range) {
        (Manner::NotFound, _) => ("404 Not Found", String::new(), &b"nothing here"[..]),
        (Manner::WrongRange, Some(_)) => (
            "206 Partial Content",
            format!("Content-Range: bytes 1-{}/{total}\r\n", total - 1),
            &content[1..],
        ),
        (Manner::Ranges | Manner::Cut(_), Some(start)) if start >= total => {
            ("416 Range Not Satisfiable", format!("Content-Range: bytes */{total}\r\n"), &b""[..])
        }
        (Manner::Ranges | Manner::Cut(_), Some(start)) => {
            let extra = format!("Content-Range: bytes {start}-{}/{total}\r\n", total - 1);
            ("206 Partial Content", extra, &content[start..])
        }
        _ => ("200 OK", String::new(), content),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{extra}Connection: close\r\n\r\n",
        body.len()
    )?;
    let sent = if let Manner::Cut(most) = manner { body.len().min(most) } else { body.len() };
    stream.write_all(&body[..sent])
}

fn content() -> Vec<u8> {
    (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn sha256(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    digest(&put(folder.path(), "file", bytes)).unwrap()
}

fn part(dest: &Path) -> std::path::PathBuf {
    dest.with_file_name("file.part")
}

#[test]
fn known_digest() -> Check {
    // FIPS 180-2, appendix B.1.
    assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    Ok(())
}

#[test]
fn whole_file_with_progress_then_present() -> Check {
    let (folder, bytes) = (tempfile::tempdir()?, content());
    let (dest, sum) = (folder.path().join("deep/er/file"), sha256(&bytes));
    let server = serve(bytes.clone(), Manner::Ranges);
    let mut seen: Vec<Progress> = vec![];
    let outcome = fetch(&server.url, &dest, &sum, &mut |p| seen.push(p))?;
    assert_eq!(outcome, Outcome::Fetched { resumed_at: 0 });
    assert_eq!(std::fs::read(&dest)?, bytes);
    assert!(!part(&dest).exists());
    assert_eq!(seen.first(), Some(&Progress { done: 0, total: Some(300_000) }));
    assert_eq!(seen.last(), Some(&Progress { done: 300_000, total: Some(300_000) }));
    assert!(seen.is_sorted_by_key(|p| p.done));
    assert_eq!(fetch(&server.url, &dest, &sum.to_uppercase(), &mut |_| ())?, Outcome::Present);
    assert_eq!(*server.asked.lock().unwrap(), [None]);
    Ok(())
}

#[test]
fn goes_on_where_an_earlier_run_stopped() -> Check {
    let (folder, bytes) = (tempfile::tempdir()?, content());
    let dest = folder.path().join("file");
    for (manner, kept, asked) in [
        (Manner::Ranges, 100_000, vec![Some(100_000)]),
        // Complete but not yet renamed.
        (Manner::Ranges, 300_000, vec![Some(300_000)]),
        // A server that sends all of it anyway.
        (Manner::Whole, 100_000, vec![Some(100_000)]),
        // A server that answers with another range: from the start.
        (Manner::WrongRange, 100_000, vec![Some(100_000), None]),
    ] {
        std::fs::remove_file(&dest).ok();
        put(folder.path(), "file.part", &bytes[..kept]);
        let server = serve(bytes.clone(), manner);
        fetch(&server.url, &dest, &sha256(&bytes), &mut |_| ())?;
        assert_eq!(std::fs::read(&dest)?, bytes);
        assert_eq!(*server.asked.lock().unwrap(), asked);
    }
    Ok(())
}

#[test]
fn leftovers_of_another_file_are_thrown_away() -> Check {
    let (folder, bytes) = (tempfile::tempdir()?, content());
    let dest = folder.path().join("file");
    // Of the same length or shorter, and longer than the file.
    for leftover in [1000, 400_000] {
        std::fs::remove_file(&dest).ok();
        put(folder.path(), "file.part", vec![7; leftover]);
        let server = serve(bytes.clone(), Manner::Ranges);
        let outcome = fetch(&server.url, &dest, &sha256(&bytes), &mut |_| ())?;
        assert_eq!(outcome, Outcome::Fetched { resumed_at: 0 });
        assert_eq!(std::fs::read(&dest)?, bytes);
        assert_eq!(*server.asked.lock().unwrap(), [Some(leftover), None]);
    }
    Ok(())
}

#[test]
fn cut_connections_are_resumed_and_what_came_is_kept() -> Check {
    let (folder, bytes) = (tempfile::tempdir()?, content());
    let (dest, sum) = (folder.path().join("file"), sha256(&bytes));
    // Two cuts, three attempts.
    let server = serve(bytes.clone(), Manner::Cut(120_000));
    assert_eq!(fetch(&server.url, &dest, &sum, &mut |_| ())?, Outcome::Fetched { resumed_at: 0 });
    assert_eq!(std::fs::read(&dest)?, bytes);
    assert_eq!(*server.asked.lock().unwrap(), [None, Some(120_000), Some(240_000)]);

    // Too many cuts: an error, and the next call goes on.
    std::fs::remove_file(&dest)?;
    let server = serve(bytes.clone(), Manner::Cut(60_000));
    match fetch(&server.url, &dest, &sum, &mut |_| ()) {
        Err(Error::Fetch { what, .. }) => assert!(what.contains("180000 bytes kept"), "{what}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::metadata(part(&dest))?.len(), 180_000);
    assert!(!dest.exists());
    assert_eq!(fetch(&server.url, &dest, &sum, &mut |_| ())?, Outcome::Fetched { resumed_at: 180_000 });
    assert_eq!(std::fs::read(&dest)?, bytes);
    Ok(())
}

#[test]
fn wrong_checksums_missing_files_and_dead_servers_leave_nothing() -> Check {
    let (folder, bytes) = (tempfile::tempdir()?, content());
    let dest = folder.path().join("file");
    let message = |url: &str, sum: &str| match fetch(url, &dest, sum, &mut |_| ()) {
        Err(Error::Fetch { url: named, what }) if named == url => what,
        other => panic!("{other:?}"),
    };
    let wrong = message(&serve(bytes.clone(), Manner::Ranges).url, &"0".repeat(64));
    assert!(wrong.contains(&sha256(&bytes)) && wrong.contains(&"0".repeat(64)), "{wrong}");
    let missing = message(&serve(bytes, Manner::NotFound).url, &"0".repeat(64));
    assert!(missing.contains("404"), "{missing}");
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let dead = format!("http://{}/file", listener.local_addr()?);
    drop(listener);
    assert!(message(&dead, &"0".repeat(64)).contains("refused"));
    assert!(!message("no address", "").is_empty());
    assert!(!dest.exists() && !part(&dest).exists());

    // A folder that cannot be made.
    put(folder.path(), "occupied", "");
    let blocked = fetch(&dead, &folder.path().join("occupied/file"), "", &mut |_| ());
    assert!(matches!(blocked, Err(Error::Io { action: "make folder", .. })), "{blocked:?}");
    Ok(())
}

#[test]
fn catalog_files() -> Check {
    let folder = tempfile::tempdir()?;
    let licensed = file("ptb/ptb.train.txt").unwrap();
    match fetch_file(licensed, folder.path(), None, &mut |_| ()) {
        Err(Error::Fetch { what, .. }) => assert!(what.contains("Linguistic Data Consortium"), "{what}"),
        other => panic!("{other:?}"),
    }
    // With an address of the user's own it is fetched; here, one with other content.
    let server = serve(content(), Manner::Ranges);
    let refused = fetch_file(licensed, folder.path(), Some(&server.url), &mut |_| ());
    assert!(matches!(refused, Err(Error::Fetch { .. })), "{refused:?}");

    // The second address is tried when the first has nothing.
    let bytes = content();
    let leak = |s: String| -> &'static str { Box::leak(s.into_boxed_str()) };
    let first = leak(serve(vec![], Manner::NotFound).url);
    let second = leak(serve(bytes.clone(), Manner::Whole).url);
    let listed = DataFile {
        path: "set/file",
        bytes: 300_000,
        sha256: leak(sha256(&bytes)),
        source: "a test",
        license: "none",
        access: Access::Published(Box::leak(Box::new([first, second]))),
    };
    assert_eq!(fetch_file(&listed, folder.path(), None, &mut |_| ())?, Outcome::Fetched { resumed_at: 0 });
    assert_eq!(std::fs::read(folder.path().join("set/file"))?, bytes);
    assert!(listed.is_free() && !licensed.is_free());
    Ok(())
}

#[test]
fn piano_rolls_in_another_spelling() -> Check {
    let folder = tempfile::tempdir()?;
    let dest = folder.path().join("rolls.json");
    let canonical = ROLLS.replace('\n', "");
    let sum: &'static str = Box::leak(sha256(canonical.as_bytes()).into_boxed_str());
    let rolls = DataFile { path: "rolls.json", sha256: sum, ..*file("music/jsb_chorales.json").unwrap() };
    // Splits in another order, blanks, notes falling.
    let other = r#"{"test": [[[], [60]], [[21], [22], [23], [24], [25]]], "valid": [[[60], [61], [62]]],
        "train": [[[64, 60], [], [108, 21], [60]], [[60], [61]], [[70]]]}"#;
    let server = serve(other.into(), Manner::Ranges);
    fetch_piano_rolls(&rolls, &server.url, &dest, &mut |_| ())?;
    assert_eq!(std::fs::read_to_string(&dest)?, canonical);
    assert_eq!(fetch_piano_rolls(&rolls, &server.url, &dest, &mut |_| ())?, Outcome::Present);

    let damaged = serve(b"{}".to_vec(), Manner::Ranges);
    std::fs::remove_file(&dest)?;
    assert!(matches!(fetch_piano_rolls(&rolls, &damaged.url, &dest, &mut |_| ()), Err(Error::Data { .. })));
    let wrong = serve(ROLLS.replace("[70]", "[71]").into(), Manner::Ranges);
    assert!(matches!(fetch_piano_rolls(&rolls, &wrong.url, &dest, &mut |_| ()), Err(Error::Fetch { .. })));
    assert_eq!(std::fs::read_dir(folder.path())?.count(), 0);
    Ok(())
}
