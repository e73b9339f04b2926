//! Fetching data files: over HTTPS, resumed where it was cut, checked by SHA-256, put in place atomically.
//!
//! A download grows in `NAME.part` beside its destination. What is there already is asked for no more
//! (`Range`), if the server can do that. Only a file with the right checksum gets the name of the
//! destination.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::catalog::{Access, DataFile};
use crate::error::{Error, Result};
use crate::readers::music;

/// No data file is larger; a server that sends more is cut off.
const LIMIT: u64 = 1 << 32;
/// Attempts while the connection is cut.
const ATTEMPTS: usize = 3;

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are here, with those of an earlier attempt.
    pub done: u64,
    /// Bytes of the whole file, if the server says.
    pub total: Option<u64>,
}

/// What fetching did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The file was there already, with the right checksum.
    Present,
    /// The file was downloaded.
    Fetched {
        /// Bytes that an earlier attempt had left.
        resumed_at: u64,
    },
}

/// Fetches `url` to `dest`. Errors: no answer or not a good one, more bytes than the file can have, another
/// checksum (nothing is left behind), a folder that cannot be written. After any error but the last two, what
/// has come so far is kept for the next call.
pub fn fetch(url: &str, dest: &Path, sha256: &str, progress: &mut dyn FnMut(Progress)) -> Result<Outcome> {
    if dest.is_file() && digest(dest)? == sha256.to_lowercase() {
        return Ok(Outcome::Present);
    }
    let part = beside(dest, "part")?;
    let outcome = download(url, &part, LIMIT, progress)?;
    let got = digest(&part)?;
    if got == sha256.to_lowercase() {
        rename(&part, dest)?;
        return Ok(outcome);
    }
    remove(&part)?;
    if let Outcome::Fetched { resumed_at: 1.. } = outcome {
        // What was left may be of another file: once more from the start.
        return fetch(url, dest, sha256, progress);
    }
    Err(checksum(url, sha256, &got))
}

/// Fetches a file of the catalog into a data folder, from `url` if given, else from where it is published.
/// Errors: those of [`fetch`] for the last address tried; a file that needs an address and has none.
pub fn fetch_file(
    file: &DataFile,
    data: &Path,
    url: Option<&str>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Outcome> {
    let dest = data.join(file.path);
    let addresses: &[&str] = match (&url, &file.access) {
        (Some(url), _) => std::slice::from_ref(url),
        (None, Access::Published(addresses)) => addresses,
        (None, Access::PianoRolls(address)) => return fetch_piano_rolls(file, address, &dest, progress),
        (None, Access::Manual(_)) => &[],
    };
    let mut last = match file.access {
        Access::Manual(why) => Error::Fetch { url: file.path.into(), what: format!("not fetched: {why}") },
        _ => Error::Fetch { url: file.path.into(), what: "no address".into() },
    };
    for address in addresses {
        match fetch(address, &dest, file.sha256, progress) {
            // A folder that cannot be written is no better with another address.
            Err(e @ Error::Fetch { .. }) => last = e,
            other => return other,
        }
    }
    Err(last)
}

/// Fetches piano-rolls in another spelling and brings them into the canonical one.
pub fn fetch_piano_rolls(
    file: &DataFile,
    url: &str,
    dest: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Outcome> {
    if dest.is_file() && digest(dest)? == file.sha256 {
        return Ok(Outcome::Present);
    }
    let (raw, part) = (beside(dest, "raw.part")?, beside(dest, "part")?);
    let outcome = download(url, &raw, LIMIT, progress)?;
    let converted = music::read(&raw).and_then(|rolls| music::to_text(dest, &rolls));
    // Whatever came is complete; a next call must not continue it.
    remove(&raw)?;
    fs::write(&part, converted?).map_err(|e| Error::io(&part, "write", e))?;
    let got = digest(&part)?;
    if got != file.sha256 {
        remove(&part)?;
        return Err(checksum(url, file.sha256, &got));
    }
    rename(&part, dest)?;
    Ok(outcome)
}

/// SHA-256 of a file, in lower-case hexadecimal.
pub fn digest(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).map_err(|e| Error::io(path, "read", e))? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            n => hash.update(&buffer[..n]),
        }
    }
}

fn checksum(url: &str, expected: &str, got: &str) -> Error {
    Error::Fetch { url: url.into(), what: format!("checksum {got}, expected {expected}; nothing kept") }
}

/// `dest` with `.extension` after its name, its folder made.
fn beside(dest: &Path, extension: &str) -> Result<PathBuf> {
    if let Some(folder) = dest.parent() {
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, "make folder", e))?;
    }
    let mut name = dest.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    Ok(name.into())
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| Error::io(to, "put in place", e))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, "remove", e)),
        _ => Ok(()),
    }
}

/// What one attempt came to.
enum Attempt {
    /// All of it is here.
    Complete,
    /// The connection was cut, for this reason.
    Cut(String),
    /// What was left cannot be continued.
    Restart,
}

/// Brings `part` to the end of `url`, going on where it ends.
fn download(url: &str, part: &Path, limit: u64, progress: &mut dyn FnMut(Progress)) -> Result<Outcome> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_recv_body(Some(Duration::from_secs(900)))
        .http_status_as_error(false)
        .build()
        .into();
    let length = || fs::metadata(part).map_or(0, |m| m.len());
    let mut resumed_at = length();
    let mut reason = String::new();
    for _ in 0..ATTEMPTS {
        match attempt(&agent, url, part, length(), limit, progress)? {
            Attempt::Complete => return Ok(Outcome::Fetched { resumed_at }),
            Attempt::Cut(why) => reason = why,
            Attempt::Restart => {
                remove(part)?;
                resumed_at = 0;
                reason = "the server does not continue what was begun".into();
            }
        }
    }
    let kept = length();
    Err(Error::Fetch { url: url.into(), what: format!("{reason}; {kept} bytes kept, call again to go on") })
}

fn attempt(
    agent: &ureq::Agent,
    url: &str,
    part: &Path,
    have: u64,
    limit: u64,
    progress: &mut dyn FnMut(Progress),
) -> Result<Attempt> {
    let fail = |what: String| Err(Error::Fetch { url: url.into(), what });
    let mut request = agent.get(url).header("Accept-Encoding", "identity");
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let response = match request.call() {
        Ok(response) => response,
        Err(e @ (ureq::Error::Io(_) | ureq::Error::Timeout(_))) => return Ok(Attempt::Cut(e.to_string())),
        Err(e) => return fail(e.to_string()),
    };
    let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
    let start = match response.status().as_u16() {
        200 => 0,
        206 => match header("content-range").and_then(range) {
            Some(start) if start == have => have,
            _ => return Ok(Attempt::Restart),
        },
        416 if have > 0 => {
            // Nothing after what is here: complete if the server says that it is as long.
            let total = header("content-range").and_then(|r| r.strip_prefix("bytes */")?.parse().ok());
            return Ok(if total == Some(have) { Attempt::Complete } else { Attempt::Restart });
        }
        status => return fail(format!("the server answers {status}")),
    };
    let total = header("content-length").and_then(|n| n.parse::<u64>().ok()).map(|n| n.saturating_add(start));
    if total.is_some_and(|t| t > limit) {
        return fail(format!("{} bytes, expected at most {limit}", total.unwrap_or(0)));
    }

    let mut options = OpenOptions::new();
    let options = if start > 0 { options.append(true) } else { options.write(true).truncate(true) };
    let mut file = options.create(true).open(part).map_err(|e| Error::io(part, "write", e))?;
    let mut body = response.into_body().into_reader();
    let (mut done, mut buffer) = (start, vec![0; 1 << 16]);
    loop {
        progress(Progress { done, total });
        let n = match body.read(&mut buffer) {
            Ok(n) => n,
            Err(e) => return Ok(Attempt::Cut(e.to_string())),
        };
        if n == 0 {
            break;
        }
        done += n as u64;
        if done > limit {
            return fail(format!("more than {limit} bytes"));
        }
        file.write_all(&buffer[..n]).map_err(|e| Error::io(part, "write", e))?;
    }
    file.sync_all().map_err(|e| Error::io(part, "write", e))?;
    match total {
        Some(total) if done < total => Ok(Attempt::Cut(format!("cut after {done} of {total} bytes"))),
        _ => Ok(Attempt::Complete),
    }
}

/// First byte of a `Content-Range: bytes first-last/total`.
fn range(header: &str) -> Option<u64> {
    header.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}
