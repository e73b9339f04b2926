//! Where the time of a run went, as text with bars.

use std::fmt::{self, Write as _};

use super::text::{WIDTH, fit};
use super::units::{percent, plural, seconds};
use crate::profile::{Pass, Profile, ProfileLine, Work};

/// Columns of the names and of the bars.
const NAME: usize = 50;
const BAR: usize = 16;

/// Lines with a smaller share of the threads' time are put together.
const SHOWN: f64 = 0.001;

impl Profile {
    /// The profile as text: kinds of work, then every scan with its stages and instructions, with bars.
    pub fn explain(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = Text { out: &mut out, profile: self }.all();
        out
    }

    /// The lines that took longest, as text: a heading and a line each.
    pub fn explain_top(&self, n: usize) -> String {
        let mut out = String::new();
        let mut text = Text { out: &mut out, profile: self };
        // Writing to a string cannot fail.
        let what = if self.device.is_some() { "launches and copies" } else { "instructions" };
        let _ = text.heading(&format!("{what} that took longest")).and_then(|()| {
            self.top(n).into_iter().try_for_each(|l| {
                let place = match (&l.scan, l.phase.as_str()) {
                    (None, _) => String::new(),
                    (Some(scan), "") => format!("{scan}: "),
                    (Some(scan), phase) => format!("{scan}, {phase}{}: ", form(l.pass)),
                };
                text.line(&format!("  {place}{}", l.text()), l)
            })
        });
        out
    }
}

/// A bar for a share, in eighths of a column; a sliver for what is not nothing.
fn bar(share: f64, width: usize) -> String {
    let eighths = (share.clamp(0.0, 1.0) * 8.0 * width as f64).round() as usize;
    let eighths = if share > 0.0 { eighths.max(1) } else { 0 };
    let mut out = "█".repeat(eighths / 8);
    out.extend(['▏', '▎', '▍', '▌', '▋', '▊', '▉'].get((eighths % 8).wrapping_sub(1)));
    out
}

/// The form of a step behind its stage; nothing for the scan itself.
fn form(pass: Option<Pass>) -> String {
    match pass {
        None | Some(Pass::Run) => String::new(),
        Some(pass) => format!(" ({})", pass.name()),
    }
}

/// Billions a second; nothing for none.
fn giga(rate: f64) -> String {
    match rate * 1e-9 {
        0.0 => String::new(),
        r if r >= 99.95 => format!("{r:.0}"),
        r if r >= 9.995 => format!("{r:.1}"),
        r => format!("{r:.2}"),
    }
}

struct Text<'a, 'b> {
    out: &'b mut String,
    profile: &'a Profile,
}

impl Text<'_, '_> {
    fn all(&mut self) -> fmt::Result {
        let p = self.profile;
        let (t, n) = (plural(p.steps as u64, "step"), plural(p.rows as u64, "row"));
        let (on, whole) = match &p.device {
            None => (plural(p.threads as u64, "thread"), "all threads"),
            Some(device) => (device.clone(), "the run"),
        };
        writeln!(self.out, "time of a run of T = {t}, N = {n} on {on}: {}", seconds(p.wall_seconds))?;
        writeln!(self.out)?;
        self.heading(whole)?;
        for work in Work::ALL {
            let lines: Vec<&ProfileLine> = p.lines.iter().filter(|l| l.work == work).collect();
            self.sum(&format!("  {}", work.name()), &lines)?;
        }
        self.row("  idle", p.idle_seconds(), 0.0, 0.0)?;
        let mut rest = &p.lines[..];
        while let Some(first) = rest.first() {
            let same = |l: &&ProfileLine| l.scan == first.scan && (l.item == first.item || l.scan.is_none());
            let (group, after) = rest.split_at(rest.iter().take_while(same).count());
            rest = after;
            self.group(group)?;
        }
        writeln!(self.out)?;
        let legend = match p.device {
            None => {
                "shares are of all threads' time; rates are those of one thread; bytes are those of the operands"
            }
            Some(_) => {
                "launches by the device's clock, copies by the host's; bytes are those of the operands"
            }
        };
        debug_assert!(legend.len() <= WIDTH);
        writeln!(self.out, "{legend}")
    }

    fn heading(&mut self, title: &str) -> fmt::Result {
        writeln!(
            self.out,
            "{:<NAME$} {:<BAR$}{:>8}{:>10}{:>10}{:>9}",
            fit(title, NAME),
            "",
            "share",
            "time",
            "Gflop/s",
            "GB/s"
        )
    }

    fn row(&mut self, name: &str, s: f64, flops: f64, bytes: f64) -> fmt::Result {
        let share = self.profile.share(s);
        let rate = |x: f64| if s > 0.0 { giga(x / s) } else { String::new() };
        let line = format!(
            "{:<NAME$} {:<BAR$}{:>8}{:>10}{:>10}{:>9}",
            fit(name, NAME),
            bar(share, BAR),
            percent(share),
            seconds(s),
            rate(flops),
            rate(bytes)
        );
        writeln!(self.out, "{}", line.trim_end())
    }

    fn line(&mut self, name: &str, l: &ProfileLine) -> fmt::Result {
        self.row(name, l.seconds, l.flops, l.bytes)
    }

    fn sum(&mut self, name: &str, lines: &[&ProfileLine]) -> fmt::Result {
        let sum = |f: fn(&ProfileLine) -> f64| lines.iter().map(|l| f(l)).sum::<f64>();
        self.row(name, sum(|l| l.seconds), sum(|l| l.flops), sum(|l| l.bytes))
    }

    /// The lines of a scan, or some between scans.
    fn group(&mut self, lines: &[ProfileLine]) -> fmt::Result {
        writeln!(self.out)?;
        let all: Vec<&ProfileLine> = lines.iter().collect();
        match lines.first() {
            Some(ProfileLine { scan: Some(scan), item, .. }) => {
                self.sum(&format!("{scan} (item {item})"), &all)?;
            }
            _ => self.sum("outside the loops", &all)?,
        }
        let (own, called): (Vec<&ProfileLine>, Vec<&ProfileLine>) =
            all.into_iter().partition(|l| l.pass.is_none());
        let mut rest = &called[..];
        while let Some(first) = rest.first() {
            let same = |l: &&&ProfileLine| l.pass == first.pass && l.phase == first.phase;
            let (stage, after) = rest.split_at(rest.iter().take_while(same).count());
            rest = after;
            if stage.iter().all(|l| l.calls == 0) {
                continue;
            }
            let name = format!("  {}{}", first.phase, form(first.pass));
            match stage {
                [one] if !one.instruction => self.line(&format!("{name}: {}", one.text()), one)?,
                _ => {
                    self.sum(&name, stage)?;
                    self.lines("    ", stage)?;
                }
            }
        }
        self.lines("  ", &own)
    }

    /// Lines in order; those that took next to nothing in one.
    fn lines(&mut self, indent: &str, lines: &[&ProfileLine]) -> fmt::Result {
        let small = |l: &&&ProfileLine| self.profile.share(l.seconds) < SHOWN;
        let rest: Vec<&ProfileLine> = lines.iter().filter(small).copied().collect();
        let shown: Vec<&ProfileLine> = lines.iter().filter(|l| !small(l)).copied().collect();
        shown.into_iter().try_for_each(|l| self.line(&format!("{indent}{}", l.text()), l))?;
        match rest[..] {
            [] => Ok(()),
            [one] => self.line(&format!("{indent}{}", one.text()), one),
            _ => self.sum(&format!("{indent}{} smaller ones", rest.len()), &rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_and_rates() {
        let table = [(0.0, ""), (1e-9, "▏"), (0.25, "██"), (0.5625, "████▌"), (2.0, "████████")];
        for (share, expected) in table {
            assert_eq!(bar(share, 8), expected, "{share}");
        }
        let table = [(0.0, ""), (1.234e9, "1.23"), (12.34e9, "12.3"), (123.4e9, "123")];
        for (rate, expected) in table {
            assert_eq!(giga(rate), expected, "{rate}");
        }
    }
}
