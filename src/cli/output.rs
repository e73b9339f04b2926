//! What the program prints, and how it ends.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use serde_json::Value;

use super::Result;

/// Exit status of a check that failed (gradients that are wrong).
const FAILED: u8 = 1;
/// Exit status of every error.
const ERROR: u8 = 2;
/// Exit status of a run that was interrupted: 128 and the signal's number.
pub(super) const INTERRUPTED: u8 = 130;

/// What a command has to say at its end.
pub(crate) struct Report {
    /// The object that `--json` prints.
    json: Value,
    status: u8,
}

impl Report {
    /// A command that did what was asked.
    pub(crate) fn new(json: Value) -> Report {
        Report { json, status: 0 }
    }

    /// A check that was made and failed, if `failed`.
    pub(crate) fn failed_if(mut self, failed: bool) -> Report {
        if failed {
            self.status = FAILED;
        }
        self
    }

    /// Work that was interrupted and saved, if `interrupted`.
    pub(crate) fn interrupted_if(mut self, interrupted: bool) -> Report {
        if interrupted {
            self.status = INTERRUPTED;
        }
        self
    }
}

/// Standard output: text for people, or one JSON object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// With or without `--json`.
    pub(crate) fn new(json: bool) -> Output {
        Output { json }
    }

    /// Whether `--json` was given.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// Prints a line (or several) for people; nothing with `--json`.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        if !self.json {
            print(text.as_ref());
        }
    }

    /// Prints the end of a command; its exit status.
    pub(crate) fn finish(&self, result: Result<Report>) -> ExitCode {
        match result {
            Ok(report) => {
                if self.json {
                    print(&report.json.to_string());
                }
                ExitCode::from(report.status)
            }
            Err(error) => {
                let text = one_line(&error.to_string());
                if self.json {
                    print(&serde_json::json!({ "error": text }).to_string());
                }
                complain(&text)
            }
        }
    }
}

/// Nobody may be reading any more (`retrograd list | head`); that is no error of ours.
fn print(text: &str) {
    writeln!(io::stdout().lock(), "{text}").ok();
}

fn complain(text: &str) -> ExitCode {
    writeln!(io::stderr().lock(), "error: {text}").ok();
    ExitCode::from(ERROR)
}

/// Answers a command line that asks for help or cannot be understood.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            error.print().ok();
            ExitCode::SUCCESS
        }
        _ => {
            let text = error.render().to_string();
            // What follows the usage is the same for every error.
            let text = text.split("\n\nUsage:").next().unwrap_or_default();
            let text = text.trim().strip_prefix("error: ").unwrap_or(text);
            complain(&one_line(text.trim_end_matches("For more information, try '--help'.")))
        }
    }
}

/// Text in one line: line breaks become spaces, paragraphs are parted by semicolons.
fn one_line(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|p| p.split_whitespace().collect::<Vec<_>>().join(" "));
    paragraphs.filter(|p| !p.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn messages_become_one_line() {
        let text = "unexpected argument '--sed' found\n\n  tip: a similar argument exists: '--seed'\n";
        assert_eq!(
            one_line(text),
            "unexpected argument '--sed' found; tip: a similar argument exists: '--seed'"
        );
    }
}
