//! Where the time of a run went: kinds of work over all threads, and stages of each scan.

use super::canvas::{self, Canvas, Style, clip};
use super::{AFTER, LEFT, PLOT, color};
use crate::plan::explain::summary::PlanSummary;
use crate::plan::explain::units::{percent, seconds};
use crate::profile::{Pass, Profile, ProfileLine, Work};

const WORK_COLORS: [&str; Work::ALL.len()] = ["#e39a6f", "#8fbfe0", "#d9c77e", "#b7a9d6"];
const IDLE: &str = "#eeeeee";
const OWN: &str = "#d0d0d0";

const HEIGHT: f64 = 30.0;

/// A part of a bar.
struct Part {
    name: String,
    seconds: f64,
    fill: &'static str,
}

/// Draws the section from `y`; where it ends.
pub(super) fn section(c: &mut Canvas, s: &PlanSummary, p: &Profile, y: f64) -> f64 {
    let (whole, note) = match p.device {
        None => ("all threads", "width in proportion to the seconds of all threads together"),
        Some(_) => ("the run", "width in proportion to the seconds; launches by the device's clock"),
    };
    let title = format!("Time of a run: {}", seconds(p.wall_seconds));
    let mut y = super::section(c, y, &title, note);
    let scale = if p.thread_seconds() > 0.0 { PLOT / p.thread_seconds() } else { 0.0 };
    let mut parts: Vec<Part> = Work::ALL
        .into_iter()
        .zip(WORK_COLORS)
        .map(|(work, fill)| Part { name: work.name().into(), seconds: p.seconds(work), fill })
        .collect();
    parts.push(Part { name: "idle".into(), seconds: p.idle_seconds(), fill: IDLE });
    y = row(c, p, whole, &parts, scale, y);
    for scan in &s.scans {
        let lines = p.lines.iter().filter(|l| l.scan.is_some() && l.item == scan.item);
        y = row(c, p, &scan.label, &stages(lines), scale, y);
    }
    let outside = p.lines.iter().filter(|l| l.scan.is_none()).map(|l| l.seconds).sum();
    let outside = Part { name: "calls outside the loops".into(), seconds: outside, fill: AFTER };
    row(c, p, "outside", &[outside], scale, y) + 8.0
}

/// The stages of a scan's lines, and last the executor's own work.
fn stages<'a>(lines: impl Iterator<Item = &'a ProfileLine>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut own = Part { name: "states, sums".into(), seconds: 0.0, fill: OWN };
    for l in lines {
        let name = match l.pass {
            None => {
                own.seconds += l.seconds;
                continue;
            }
            Some(Pass::Run) => l.phase.clone(),
            Some(pass) => format!("{} ({})", l.phase, pass.name()),
        };
        match parts.iter_mut().find(|p| p.name == name) {
            Some(part) => part.seconds += l.seconds,
            None => parts.push(Part { name, seconds: l.seconds, fill: color(&l.phase, l.step_by_step) }),
        }
    }
    parts.push(own);
    parts
}

fn row(c: &mut Canvas, p: &Profile, label: &str, parts: &[Part], scale: f64, y: f64) -> f64 {
    c.text(24.0, y + 19.0, &clip(label, LEFT - 34.0, 13.0), Style::size(13.0).bold());
    let mut x = LEFT;
    let mut below = Vec::new();
    for part in parts.iter().filter(|part| part.seconds > 0.0) {
        let w = part.seconds * scale;
        c.rect(x, y, w, HEIGHT, part.fill);
        c.outline(x, y, w, HEIGHT, "#6b6b6b");
        let text = format!("{} {}", part.name, percent(p.share(part.seconds)));
        if canvas::measure(&text, 11.5) + 10.0 < w {
            c.text(x + 6.0, y + 19.0, &text, Style::size(11.5));
        } else {
            below.push(text);
        }
        x += w;
    }
    if below.is_empty() {
        return y + HEIGHT + 8.0;
    }
    let text = clip(&below.join("   ·   "), PLOT, 11.0);
    c.text(LEFT, y + HEIGHT + 13.0, &text, Style::size(11.0).color(canvas::MUTED));
    y + HEIGHT + 24.0
}
