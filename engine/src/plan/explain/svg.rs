//! A plan as a picture: plain shapes and text on white, readable without anything outside the file.
//!
//! From the top: a lane for each scan with the phases of a chunk in proportion to their predicted operations;
//! where the time of a run went, if one was timed; bytes in use over the course of the run; and the position in time over the course of the run, in which
//! replaying shows as the staircase known from the papers on checkpointing.

mod canvas;
mod chart;
mod time;

use std::collections::{HashMap, HashSet};

use super::Plan;
use super::names::counted;
use super::summary::{PlanSummary, ScanSummary};
use super::timeline::{Event, LAYERS, What, walk};
use super::units::{bytes, flops, percent, plural};
use crate::profile::Profile;
use canvas::{Align, Canvas, INK, MUTED, Style, clip};
use chart::{Areas, Strokes, ticks};

/// Pixels: the picture, and the plots inside.
const WIDTH: f64 = 1200.0;
const LEFT: f64 = 150.0;
const PLOT: f64 = 1020.0;

const AHEAD: &str = "#b3d4ee";
const LOOP: &str = "#fbc98e";
const BETWEEN: &str = "#d5cbe8";
const AFTER: &str = "#b8e0c0";

const LAYER_COLORS: [&str; LAYERS.len()] = ["#d9d9d9", "#f2dfa0", "#9cc7e8", "#8fd1a8", "#c9e8c8"];
const BUDGET: &str = "#c0392b";

const ADVANCE: &str = "#8a8a8a";
const RECORD: &str = "#1b8a4b";
const BACKWARD: &str = "#d1602a";
const PLAIN: &str = "#3b6fb6";
const MARK: &str = "#2f7fc1";

/// The picture.
pub(super) fn of(plan: &Plan, profile: Option<&Profile>) -> String {
    let s = plan.summary();
    let mut c = Canvas::new(WIDTH);
    let mut y = title(&mut c, &s);
    if !s.scans.is_empty() {
        y = lanes(&mut c, &s, y);
    }
    if let Some(profile) = profile {
        y = time::section(&mut c, &s, profile, y);
    }
    let total = walk(plan, &mut |_| {});
    let x = |at: f64| LEFT + if total > 0.0 { at / total * PLOT } else { 0.0 };
    y = memory(&mut c, plan, &s, &x, y);
    if !s.scans.is_empty() && s.steps > 0 {
        y = staircase(&mut c, plan, &s, &x, y);
    }
    work_axis(&mut c, total, y);
    c.finish(y + 44.0)
}

fn title(c: &mut Canvas, s: &PlanSummary) -> f64 {
    let (t, n) = (plural(s.steps as u64, "step"), plural(s.rows as u64, "row"));
    c.text(24.0, 34.0, &format!("Plan for T = {t}, N = {n}"), Style::size(20.0).bold());
    let budget = s.budget.map_or(String::new(), |b| format!(" of {} allowed", bytes(b)));
    let replay = match &s.replay {
        Some(r) => format!(
            "{} of {}, {}, {} run again",
            plural(r.segments as u64, "segment"),
            plural(r.leaf as u64, "step"),
            plural(r.slots as u64, "checkpoint slot"),
            plural(r.extra_forward_steps, "step")
        ),
        None if !s.walks.is_empty() => "states walked back".into(),
        None => "nothing replayed".into(),
    };
    let text = format!(
        "{}, {}  ·  peak {}{budget}  ·  {replay}  ·  {}",
        plural(s.threads as u64, "thread"),
        s.isa,
        bytes(s.peak_bytes),
        flops(s.flops),
    );
    let slower = if s.slowdown == 1.0 { String::new() } else { format!(", × {:.2}", s.slowdown) };
    c.text(24.0, 56.0, &(text + &slower), Style::size(13.0).color(MUTED));
    84.0
}

fn section(c: &mut Canvas, y: f64, title: &str, note: &str) -> f64 {
    c.text(24.0, y + 14.0, title, Style::size(14.0).bold());
    c.text(WIDTH - 30.0, y + 14.0, note, Style::size(11.5).color(MUTED).align(Align::End));
    y + 26.0
}

fn lanes(c: &mut Canvas, s: &PlanSummary, y: f64) -> f64 {
    let note = "width in proportion to predicted operations; ticks: step by step";
    let mut y = section(c, y, "Phases of a chunk", note);
    let most = s.scans.iter().map(|x| x.step_flops).fold(0.0, f64::max);
    for scan in &s.scans {
        y = lane(c, scan, if most > 0.0 { PLOT / most } else { 0.0 }, y);
    }
    y + 8.0
}

fn color(name: &str, step_by_step: bool) -> &'static str {
    match (name, step_by_step) {
        (_, true) => LOOP,
        ("after", _) => AFTER,
        ("ahead" | "all at once", _) => AHEAD,
        _ => BETWEEN,
    }
}

fn lane(c: &mut Canvas, s: &ScanSummary, scale: f64, y: f64) -> f64 {
    const HEIGHT: f64 = 62.0;
    let small = Style::size(11.0).color(MUTED);
    c.text(24.0, y + 17.0, &clip(&s.label, LEFT - 34.0, 13.0), Style::size(13.0).bold());
    let arrow = if s.reverse { "← backwards in time" } else { "→ forward in time" };
    c.text(24.0, y + 32.0, arrow, small);
    let (tiles, rows) = (plural(s.tiles as u64, "tile"), plural(s.tile_rows as u64, "row"));
    c.text(24.0, y + 46.0, &format!("{tiles} of {rows}"), small);
    c.text(24.0, y + 60.0, &format!("{} a chunk", plural(s.chunk as u64, "step")), small);
    let mut x = LEFT;
    let mut below = Vec::new();
    for p in s.phases.iter().filter(|p| p.name != "once") {
        let w = p.flops * scale;
        let fill = color(&p.name, p.step_by_step);
        c.rect(x, y, w.max(1.0), HEIGHT, fill);
        let cell = w / s.chunk.max(1) as f64;
        if p.step_by_step && cell >= 5.0 {
            for k in 1..s.chunk {
                c.line(
                    (x + k as f64 * cell, y + HEIGHT - 9.0),
                    (x + k as f64 * cell, y + HEIGHT),
                    "#c98b3f",
                    0.8,
                );
            }
        }
        c.outline(x, y, w.max(1.0), HEIGHT, "#6b6b6b");
        let operations: Vec<String> = p.calls.iter().flat_map(|c| c.operations.clone()).collect();
        let operations = counted(&operations).join(", ");
        // Bold letters are wider.
        let fits = |text: &str| canvas::measure(text, 13.0) + 12.0 < w;
        let head = format!("{} {}", p.name, percent(p.share));
        if fits(&p.name) {
            c.text(x + 7.0, y + 17.0, if fits(&head) { &head } else { &p.name }, Style::size(12.5).bold());
            let work = format!("{} a step", flops(p.flops));
            c.text(x + 7.0, y + 32.0, &clip(&work, w - 12.0, 11.0), Style::size(11.0));
            c.text(x + 7.0, y + 46.0, &clip(&operations, w - 12.0, 11.0), Style::size(11.0));
        } else {
            below.push(format!("{} {}: {operations}", p.name, percent(p.share)));
        }
        x += w;
    }
    for (what, values) in [("kept", &s.kept), ("rebuilt", &s.rebuilt)] {
        if !values.is_empty() {
            below.push(format!("{what}: {}", counted(values).join(", ")));
        }
    }
    let once = s.phases.iter().find(|p| p.name == "once");
    if let Some(once) = once {
        let written: Vec<String> = once.calls.iter().flat_map(|c| c.operations.clone()).collect();
        below.push(format!("once a run: {}", counted(&written).join(", ")));
    }
    if s.replay_flops > 0.0 {
        below.push(format!("replayed forward steps: {} in the run", flops(s.replay_flops)));
    }
    let text = clip(&below.join("   ·   "), PLOT, 11.0);
    c.text(LEFT, y + HEIGHT + 14.0, &text, small);
    y + HEIGHT + 28.0
}

/// A color key from the right edge of the plots.
fn key(c: &mut Canvas, y: f64, entries: &[(&str, &str, bool)]) {
    let mut x = LEFT;
    for (name, color, line) in entries {
        if *line {
            c.line((x, y - 4.0), (x + 16.0, y - 4.0), color, 2.5);
        } else {
            c.rect(x, y - 10.0, 14.0, 11.0, color);
            c.outline(x, y - 10.0, 14.0, 11.0, "#8a8a8a");
        }
        c.text(x + 21.0, y, name, Style::size(11.0));
        x += 21.0 + canvas::measure(name, 11.0) + 20.0;
    }
}

fn memory(c: &mut Canvas, plan: &Plan, s: &PlanSummary, x: &dyn Fn(f64) -> f64, y: f64) -> f64 {
    const HEIGHT: f64 = 210.0;
    let y = section(c, y, "Memory", "in use as filled; one arena is allocated for the whole run");
    let mut areas = Areas::new(PLOT as usize);
    walk(plan, &mut |e: &Event| areas.add(x(e.start) - LEFT, x(e.end) - LEFT, &e.before, &e.after));
    let layers = LAYERS.iter().zip(LAYER_COLORS).zip(areas.used());
    let layers = layers.filter(|(_, used)| *used).map(|((name, color), _)| (*name, color, false));
    key(c, y + 10.0, &layers.collect::<Vec<_>>());
    let top = y + 30.0;
    let bottom = top + HEIGHT;
    let peak = s.peak_bytes as f64;
    let near = s.budget.map(|b| b as f64).filter(|&b| b <= 1.6 * peak);
    let high = near.unwrap_or(peak).max(peak).max(1.0) * 1.08;
    let at = |b: f64| bottom - b / high * HEIGHT;
    for tick in ticks(high, true) {
        c.line((LEFT, at(tick)), (LEFT + PLOT, at(tick)), "#e6e6e6", 1.0);
        c.text(
            LEFT - 8.0,
            at(tick) + 4.0,
            &round(bytes(tick as usize)),
            Style::size(11.0).color(MUTED).align(Align::End),
        );
    }
    for (path, color) in areas.paths(LEFT, &at).iter().zip(LAYER_COLORS) {
        c.fill_path(path, color);
    }
    c.line((LEFT, bottom), (LEFT + PLOT, bottom), INK, 1.0);
    c.line((LEFT, top), (LEFT, bottom), INK, 1.0);
    c.dashed((LEFT, at(peak)), (LEFT + PLOT, at(peak)), INK);
    let below = near.is_some_and(|b| at(peak) - at(b) < 18.0);
    let shift = if below { 14.0 } else { -5.0 };
    let text = format!("peak {}", bytes(s.peak_bytes));
    c.halo(LEFT + 8.0, at(peak) + shift, &text, Style::size(12.0).bold());
    if let Some(budget) = s.budget {
        let text = format!("budget {}", bytes(budget));
        let style = Style::size(12.0).bold().color(BUDGET).align(Align::End);
        match near {
            Some(b) => {
                c.line((LEFT, at(b)), (LEFT + PLOT, at(b)), BUDGET, 1.5);
                c.halo(LEFT + PLOT - 8.0, at(b) - 5.0, &text, style);
            }
            None => c.halo(LEFT + PLOT - 8.0, top + 8.0, &format!("{text}, above"), style),
        }
    }
    bottom + 26.0
}

/// A number without zeros at its end: `1.00 MiB` is `1 MiB`.
fn round(text: String) -> String {
    match text.split_once(' ') {
        Some(("0", _)) => "0".into(),
        Some((number, unit)) if number.contains('.') => {
            format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text,
    }
}

fn staircase(c: &mut Canvas, plan: &Plan, s: &PlanSummary, x: &dyn Fn(f64) -> f64, y: f64) -> f64 {
    const HEIGHT: f64 = 260.0;
    let y = section(c, y, "Position in time", "steps before the present state, over the course of the run");
    let top = y + 42.0;
    let bottom = top + HEIGHT;
    let at = |step: usize| bottom - step as f64 / s.steps as f64 * HEIGHT;
    for tick in ticks(s.steps as f64, false) {
        let y = bottom - tick / s.steps as f64 * HEIGHT;
        c.line((LEFT, y), (LEFT + PLOT, y), "#e6e6e6", 1.0);
        let text = super::units::grouped(tick as u64);
        c.text(LEFT - 8.0, y + 4.0, &text, Style::size(11.0).color(MUTED).align(Align::End));
    }
    let stores = {
        let mut n = 0usize;
        walk(plan, &mut |e| n += usize::from(matches!(e.what, What::Store { .. })));
        n
    };
    // Many marks are drawn on a coarser grid, one for each cell.
    let grid = if stores > 400 { 4.0 } else { 1.0 };
    let cell = |v: f64| (v / grid).round() as i64;
    let mut seen = HashSet::new();
    let mut held: HashMap<(usize, usize), (f64, f64)> = HashMap::new();
    let mut marks = Vec::new();
    let mut strokes: [(What, Strokes); 4] =
        [What::Advance, What::Plain, What::Record, What::Backward].map(|w| (w, Strokes::default()));
    let mut spans: HashMap<usize, (f64, f64)> = HashMap::new();
    walk(plan, &mut |e: &Event| {
        let (start, end) = (x(e.start), x(e.end));
        let span = spans.entry(e.item).or_insert((start, end));
        span.1 = end;
        match e.what {
            What::Store { pair, slot } => {
                held.insert((pair, slot), (start, at(e.from)));
            }
            What::Free { pair, slot } => {
                if let Some((from, y)) = held.remove(&(pair, slot))
                    && seen.insert((cell(from), cell(start), cell(y)))
                {
                    marks.push((from, start, y));
                }
            }
            what => {
                if let Some((_, s)) = strokes.iter_mut().find(|(w, _)| *w == what) {
                    s.line((start, at(e.from)), (end, at(e.to)));
                }
            }
        }
    });
    for scan in &s.scans {
        let Some(&(from, to)) = spans.get(&scan.item) else { continue };
        c.line((from, top - 14.0), (from, bottom), "#bdbdbd", 1.0);
        let text = clip(&scan.label, to - from - 8.0, 11.5);
        c.text(from + 5.0, top - 5.0, &text, Style::size(11.5).color(MUTED));
    }
    for (from, to, y) in &marks {
        c.line((*from, *y), (*to, *y), "#a9cdea", 0.9);
    }
    let mut entries = Vec::new();
    for (what, s) in strokes {
        let (name, color, width) = match what {
            What::Advance => ("forward, nothing recorded", ADVANCE, 1.1),
            What::Record => ("forward, recorded", RECORD, 2.2),
            What::Backward => ("adjoint", BACKWARD, 2.2),
            _ => ("keeps nothing", PLAIN, 1.6),
        };
        let path = s.finish();
        if !path.is_empty() {
            entries.push((name, color, true));
        }
        c.stroke_path(&path, color, width);
    }
    if !marks.is_empty() {
        entries.push(("checkpoint, and for how long it is held", MARK, true));
    }
    key(c, y + 10.0, &entries);
    for (from, _, y) in &marks {
        c.dot(*from, *y, if grid > 1.0 { 1.4 } else { 2.4 }, MARK);
    }
    c.line((LEFT, bottom), (LEFT + PLOT, bottom), INK, 1.0);
    c.line((LEFT, top), (LEFT, bottom), INK, 1.0);
    bottom + 4.0
}

fn work_axis(c: &mut Canvas, total: f64, y: f64) {
    let small = Style::size(11.0).color(MUTED);
    for tick in ticks(total.max(1.0), false) {
        let x = LEFT + tick / total.max(1.0) * PLOT;
        c.line((x, y - 4.0), (x, y + 1.0), INK, 1.0);
        let text = round(flops(tick));
        let text = text.trim_end_matches("flop").trim_end();
        c.text(x, y + 14.0, text, small.align(Align::Middle));
    }
    c.text(LEFT + PLOT, y + 30.0, "predicted operations since the start of the run", small.align(Align::End));
}
