//! A plan as a picture: the arena over the items of a run, and the phases of every scan.

use std::fmt::Write as _;

use super::explain::Plan;
use super::ir::{BufKind, Call};
use super::outer::{Item, Role, ScanItem};
use super::step::Stage;

/// Sizes of the picture, in its own units.
const WIDTH: f64 = 960.0;
const LEFT: f64 = 96.0;
const TOP: f64 = 64.0;
const HEIGHT: f64 = 320.0;
const LINE: f64 = 18.0;
/// Least width of a scan's column in those of a call.
const SCAN: f64 = 8.0;

const STYLE: &str = "\
text { font: 12px system-ui, sans-serif; fill: #333 } .big { font-size: 15px; font-weight: 600 } \
.small { font-size: 10px } .axis { stroke: #999; fill: none } rect { stroke: #fff; stroke-width: 0.5 } \
.buffer { fill: #7fa8d9 } .recorded { fill: #e0a458 } .work { fill: #9bbf85 } .sums { fill: #c58fc0 } \
.loop { fill: #d9775f } .batched { fill: #7fa8d9 } \
@media (prefers-color-scheme: dark) { text { fill: #ddd } rect { stroke: #222 } }";

/// A block of the arena.
struct Block {
    class: &'static str,
    label: String,
    offset: usize,
    bytes: usize,
    from: usize,
    to: usize,
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn cut(text: &str, width: f64) -> String {
    // About six units a letter.
    let room = (width / 6.0) as usize;
    match text.chars().count() > room {
        true => text.chars().take(room.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_string(),
    }
}

impl Plan {
    /// The plan as a picture (SVG): which block of the arena is whose and when, to scale, and what every scan does
    /// at once for a chunk of steps and what step by step.
    pub fn svg(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.draw(&mut out);
        out
    }

    fn blocks(&self) -> Vec<Block> {
        let (outer, memory) = (&self.outer, &self.decision.memory);
        let mut blocks = Vec::new();
        for (i, slot) in memory.outer.iter().enumerate() {
            let (Some(slot), Some((from, to))) = (slot, outer.lives[i]) else { continue };
            let buf = &outer.bufs[i];
            // Bound tensors are the caller's, but complex ones are taken apart into the arena.
            let bound = matches!(buf.kind, BufKind::Bound(_) | BufKind::Constant(_));
            if !bound || buf.dtype.is_complex() {
                let (label, bytes) = (buf.label.clone(), slot.plane * buf.dtype.size());
                blocks.push(Block { class: "buffer", label, offset: slot.offset, bytes, from, to });
            }
        }
        for (pair, &(from, to)) in memory.pairs.iter().zip(&outer.pair_lives) {
            let label = "recorded states and values".into();
            blocks.push(Block { class: "recorded", label, offset: pair.offset, bytes: pair.bytes, from, to });
        }
        for (&at, scan) in &memory.scans {
            let mut block = |class, label: &str, offset, bytes| {
                let label = label.into();
                blocks.push(Block { class, label, offset, bytes, from: at, to: at });
            };
            block("work", "workspaces of the threads", scan.work, scan.lane * scan.lanes);
            block("sums", "sums of the tiles", scan.tile_base, scan.tile * scan.tiles);
        }
        blocks
    }

    fn draw(&self, f: &mut String) -> std::fmt::Result {
        let memory = &self.decision.memory;
        let items = &self.outer.items;
        let scans: Vec<(usize, &ScanItem)> = (items.iter().enumerate())
            .filter_map(|(at, item)| if let Item::Scan(s) = item { Some((at, &**s)) } else { None })
            .collect();
        let phases: usize = scans.iter().map(|(_, s)| 2 + s.run.stages.len()).sum();
        let height = TOP + HEIGHT + 40.0 + LINE * phases as f64;
        writeln!(
            f,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"><style>{STYLE}</style>"#
        )?;
        let text = |f: &mut String, x: f64, y: f64, class: &str, t: &str| {
            writeln!(f, r#"<text x="{x:.1}" y="{y:.1}" class="{class}">{}</text>"#, escape(t))
        };
        let head =
            format!("T = {} steps, N = {} rows: peak {} bytes", memory.steps, memory.rows, self.peak_bytes());
        text(f, 12.0, 24.0, "big", &head)?;
        let held = match self.segments() {
            None => "whole sequences are recorded".to_string(),
            Some((leaf, slots)) => format!(
                "segments of {leaf} steps are recorded, {slots} checkpoints, {} steps run again",
                self.extra_forward_steps()
            ),
        };
        text(f, 12.0, 44.0, "", &format!("{held}; {} threads", self.threads))?;

        // Columns.
        // Scans are few and matter most: together at least half of the picture.
        let calls = (items.len() - scans.len()) as f64;
        let of_scan = (calls / scans.len().max(1) as f64).max(SCAN);
        let wide = |item: &Item| if matches!(item, Item::Scan(_)) { of_scan } else { 1.0 };
        let unit = (WIDTH - LEFT - 12.0) / items.iter().map(wide).sum::<f64>().max(1.0);
        let mut edges = vec![LEFT];
        for item in items {
            edges.push(edges[edges.len() - 1] + unit * wide(item));
        }
        let edge = |i: usize| edges[i.min(edges.len() - 1)];
        let scale = HEIGHT / memory.bytes.max(1) as f64;
        for b in self.blocks().iter().filter(|b| b.bytes > 0) {
            let (x, w) = (edge(b.from), edge(b.to + 1) - edge(b.from));
            let (h, y) = (b.bytes as f64 * scale, TOP + HEIGHT - (b.offset + b.bytes) as f64 * scale);
            writeln!(
                f,
                r#"<rect x="{x:.1}" y="{y:.1}" width="{w:.1}" height="{h:.1}" class="{}"><title>{}: {} bytes at {}, items {} to {}</title></rect>"#,
                b.class,
                escape(&b.label),
                b.bytes,
                b.offset,
                b.from,
                b.to
            )?;
            if h > 13.0 && w > 40.0 {
                text(f, x + 4.0, y + h / 2.0 + 4.0, "small", &cut(&b.label, w - 8.0))?;
            }
        }
        let base = TOP + HEIGHT;
        writeln!(f, r#"<path d="M{LEFT} {TOP}V{base}H{}" class="axis"/>"#, WIDTH - 12.0)?;
        text(f, 12.0, TOP + 10.0, "small", &memory.bytes.to_string())?;
        text(f, 12.0, base, "small", "0 bytes")?;
        for (at, s) in &scans {
            let w = edge(at + 1) - edge(*at);
            text(f, edge(*at) + 4.0, base + 14.0, "small", &cut(&format!("{at} {}", s.label), w - 4.0))?;
        }

        // Phases.
        let mut y = base + 40.0;
        for (at, s) in scans {
            let way = if s.reverse { ", backwards in time" } else { "" };
            let kept = match s.role {
                Role::Forward(p) => format!("; keeps states, {}", self.outer.pairs[p].keep_names.join(", ")),
                _ => String::new(),
            };
            let kept = kept.trim_end_matches(", ");
            text(f, 12.0, y, "", &cut(&format!("{at} {}{way}{kept}", s.label), WIDTH - 24.0))?;
            y += LINE;
            for stage in &s.run.stages {
                let (class, what) = match stage {
                    Stage::Batched(_) => ("batched", "chunk at once"),
                    Stage::Loop(_) => ("loop", "step by step"),
                };
                let calls: Vec<String> = stage.calls().iter().map(|c: &Call| c.instr.name()).collect();
                let names = calls.join(" · ");
                writeln!(
                    f,
                    r#"<rect x="24" y="{:.1}" width="84" height="14" class="{class}"><title>{}</title></rect>"#,
                    y - 11.0,
                    escape(&names)
                )?;
                text(f, 28.0, y, "small", what)?;
                text(f, 116.0, y, "small", &cut(&names, WIDTH - 128.0))?;
                y += LINE;
            }
            y += LINE;
        }
        f.push_str("</svg>\n");
        Ok(())
    }
}
