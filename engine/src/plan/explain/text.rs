//! A plan as text, no line wider than [`WIDTH`] columns.

use std::fmt::{self, Write as _};

use super::names;
use super::summary::{
    CallSummary, MemoryKind, MemoryLine, PhaseSummary, PlanSummary, ScanRole, ScanSummary, WalkSummary,
};
use super::units::{bytes, flops, percent, plural};

/// Columns.
pub(super) const WIDTH: usize = 106;

/// Width of the text to the left of a call's numbers.
const LEFT: usize = 68;

/// Values of a kind that are listed one by one.
const LISTED: usize = 8;

pub(super) fn of(s: &PlanSummary) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = Text { out: &mut out }.plan(s);
    out
}

struct Text<'a> {
    out: &'a mut String,
}

impl Text<'_> {
    fn plan(&mut self, s: &PlanSummary) -> fmt::Result {
        let (t, n) = (plural(s.steps as u64, "step"), plural(s.rows as u64, "row"));
        let by = match s.isa {
            "device" => "on a device".to_string(),
            isa => format!("{}, {isa}", plural(s.threads as u64, "thread")),
        };
        writeln!(self.out, "plan for T = {t}, N = {n}: {by}")?;
        self.head(s)?;
        writeln!(self.out)?;
        self.memory(s)?;
        let mut outside = s.outside.iter().peekable();
        for scan in &s.scans {
            let before: Vec<&CallSummary> =
                std::iter::from_fn(|| outside.next_if(|c| c.item < scan.item)).collect();
            self.outside(&before)?;
            self.scan(s, scan)?;
        }
        self.outside(&outside.collect::<Vec<_>>())?;
        writeln!(self.out)?;
        let legend = "flop and bytes of a call are those of one row and step, or of one entry outside the loops; \
                      shared bytes are read or written once for all rows of a tile";
        wrap(legend, WIDTH).iter().try_for_each(|line| writeln!(self.out, "{line}"))
    }

    /// A term and what there is to say about it, indented under itself.
    fn term(&mut self, term: &str, text: &str) -> fmt::Result {
        for (i, line) in wrap(text, WIDTH - 12).iter().enumerate() {
            writeln!(self.out, "  {:<10}{line}", if i == 0 { term } else { "" })?;
        }
        Ok(())
    }

    fn head(&mut self, s: &PlanSummary) -> fmt::Result {
        let budget = match s.budget {
            Some(b) => format!("of {} allowed", bytes(b)),
            None => "without a budget".into(),
        };
        let (arena, outputs) = (bytes(s.arena_bytes), bytes(s.output_bytes));
        let peak = bytes(s.peak_bytes);
        self.term("peak", &format!("{peak} {budget}: one arena of {arena}, outputs {outputs}"))?;
        if let Some(first) = s.scans.first() {
            let cut = |x: &ScanSummary| (x.tiles, x.tile_rows, x.chunk);
            if s.scans.iter().all(|x| cut(x) == cut(first)) {
                self.term("tiles", &cut_text(first))?;
            }
        }
        for walk in &s.walks {
            self.term("walked back", &walk_text(walk))?;
        }
        let keeps = |x: &&ScanSummary| x.role == ScanRole::Forward && !x.kept.is_empty();
        for scan in s.scans.iter().filter(keeps) {
            let held = if s.stash.rounds() { format!(", as {}", s.stash) } else { String::new() };
            self.term("kept", &format!("{}{held}", names::counted(&scan.kept).join(", ")))?;
        }
        for scan in s.scans.iter().filter(|x| !x.rebuilt.is_empty()) {
            let all = if s.rebuilds_everything { " (only states are kept)" } else { "" };
            self.term("rebuilt", &format!("{}{all}", names::counted(&scan.rebuilt).join(", ")))?;
        }
        let replayed = match &s.replay {
            None if !s.walks.is_empty() => "nothing".into(),
            None => "nothing; whole sequences are recorded".into(),
            Some(r) => format!(
                "{} of {}, {}; none is advanced over more than {}; {} of forward work more than one pass",
                plural(r.segments as u64, "segment"),
                plural(r.leaf as u64, "step"),
                plural(r.slots as u64, "checkpoint slot"),
                times(r.repetitions),
                plural(r.extra_forward_steps, "step"),
            ),
        };
        self.term("replayed", &replayed)?;
        let extra = if s.slowdown == 1.0 {
            String::new()
        } else {
            format!(", {:.2} times those of the plan without a budget", s.slowdown)
        };
        self.term("work", &format!("{} a run{extra}", flops(s.flops)))
    }

    fn memory_line(&mut self, name: &str, numbers: [String; 4]) -> fmt::Result {
        let [entry, total, peak, items] = numbers;
        let line = format!("{:<52}{entry:>13}{total:>12}{peak:>14}{items:>12}", fit(name, 52));
        writeln!(self.out, "{}", line.trim_end())
    }

    fn memory(&mut self, s: &PlanSummary) -> fmt::Result {
        let heading = ["a step, row", "bytes", "at the peak", "items"].map(String::from);
        self.memory_line("memory", heading)?;
        let mut at = 0;
        while let Some(first) = s.memory.get(at) {
            let lines: Vec<&MemoryLine> =
                s.memory[at..].iter().take_while(|l| l.kind == first.kind).collect();
            at += lines.len();
            self.memory_kind(first.kind, &lines)?;
        }
        let peak = bytes(s.memory.iter().map(|l| l.at_peak).sum());
        let last = format!("at {}", s.peak_item);
        self.memory_line("peak", [String::new(), String::new(), peak, last])
    }

    fn memory_kind(&mut self, kind: MemoryKind, lines: &[&MemoryLine]) -> fmt::Result {
        let sum = |f: fn(&MemoryLine) -> usize| lines.iter().map(|l| f(l)).sum::<usize>();
        let items = |l: &MemoryLine| match l.items {
            (a, b) if a == b => a.to_string(),
            (a, b) => format!("{a}..{b}"),
        };
        let entry = |n: usize| if n == 0 { String::new() } else { bytes(n) };
        if let [one] = lines {
            let name = format!("  {}: {}", kind.name(), one.name);
            let numbers = [entry(one.entry_bytes), bytes(one.bytes), bytes(one.at_peak), items(one)];
            return self.memory_line(&name, numbers);
        }
        let numbers = [
            entry(sum(|l| l.entry_bytes)),
            bytes(sum(|l| l.bytes)),
            bytes(sum(|l| l.at_peak)),
            String::new(),
        ];
        self.memory_line(&format!("  {}", kind.name()), numbers)?;
        let mut order: Vec<&MemoryLine> = lines.to_vec();
        if order.len() > LISTED {
            order.sort_by_key(|l| std::cmp::Reverse(l.bytes));
        }
        let shown = if order.len() > LISTED { LISTED - 1 } else { order.len() };
        for l in &order[..shown] {
            let numbers = [entry(l.entry_bytes), bytes(l.bytes), bytes(l.at_peak), items(l)];
            self.memory_line(&format!("    {}", l.name), numbers)?;
        }
        let rest = &order[shown..];
        if !rest.is_empty() {
            let of = |f: fn(&MemoryLine) -> usize| bytes(rest.iter().map(|l| f(l)).sum());
            let numbers = [String::new(), of(|l| l.bytes), of(|l| l.at_peak), String::new()];
            self.memory_line(&format!("    {} smaller ones", rest.len()), numbers)?;
        }
        Ok(())
    }

    fn heading(&mut self, title: &str) -> fmt::Result {
        writeln!(self.out)?;
        writeln!(self.out, "{:<LEFT$}{:>10}{:>14}{:>13}", fit(title, LEFT), "flop", "bytes", "shared")
    }

    fn outside(&mut self, calls: &[&CallSummary]) -> fmt::Result {
        let (Some(first), Some(last)) = (calls.first(), calls.last()) else { return Ok(()) };
        let items = if first.item == last.item {
            format!("item {}", first.item)
        } else {
            format!("items {}..{}", first.item, last.item)
        };
        self.heading(&format!("outside the loops ({items})"))?;
        calls.iter().try_for_each(|c| self.call(c, true))
    }

    fn scan(&mut self, plan: &PlanSummary, s: &ScanSummary) -> fmt::Result {
        let direction = if s.reverse { "backwards in time" } else { "forward in time" };
        self.heading(&format!("{} (item {}), {direction}", s.label, s.item))?;
        let cut = |x: &ScanSummary| (x.tiles, x.tile_rows, x.chunk);
        if plan.scans.iter().any(|x| cut(x) != cut(s)) {
            self.term("tiles", &cut_text(s))?;
        }
        for phase in &s.phases {
            self.phase(phase)?;
        }
        let replay = if s.replay_flops > 0.0 {
            format!(", and {} of replayed forward steps in the run", flops(s.replay_flops))
        } else {
            String::new()
        };
        writeln!(self.out, "  together {} a step for all rows{replay}", flops(s.step_flops))
    }

    fn phase(&mut self, p: &PhaseSummary) -> fmt::Result {
        let how = match (p.name.as_str(), p.step_by_step) {
            ("once", _) => format!("{} a run", flops(p.flops)),
            (_, true) => format!("step by step, {} a step, {}", flops(p.flops), percent(p.share)),
            (_, false) => format!("a chunk at once, {} a step, {}", flops(p.flops), percent(p.share)),
        };
        writeln!(self.out, "  {}: {how}", p.name)?;
        p.calls.iter().try_for_each(|c| self.call(c, p.name == "once"))
    }

    fn call(&mut self, c: &CallSummary, outer: bool) -> fmt::Result {
        let number = if outer { format!("{:>5}  ", c.item) } else { "    ".into() };
        let entries = match (outer, c.every_step, c.every_row) {
            (true, true, true) | (false, true, true) => "",
            (_, true, false) => " (every step)",
            (true, false, true) => " (every row)",
            (true, false, false) => " (once)",
            (false, false, _) => " (every chunk)",
        };
        let text =
            format!("{}({}) -> {}{entries}", c.operations.join("+"), c.reads.join(", "), c.writes.join(", "));
        let indent = number.chars().count();
        for (i, line) in wrap(&text, LEFT - indent - 2).iter().enumerate() {
            let hang = if i == 0 { String::new() } else { "  ".into() };
            let left = format!("{}{hang}{line}", if i == 0 { number.as_str() } else { &"       "[..indent] });
            if i == 0 {
                let shared = if c.shared_bytes == 0 { String::new() } else { bytes(c.shared_bytes) };
                let line = format!("{left:<LEFT$}{:>10}{:>14}{shared:>13}", amount(c.flops), bytes(c.bytes));
                writeln!(self.out, "{}", line.trim_end())?;
            } else {
                writeln!(self.out, "{left}")?;
            }
        }
        Ok(())
    }
}

fn walk_text(w: &WalkSummary) -> String {
    format!(
        "{}, from one kept every {}; off by at most {:.1e} of the largest ({} roundings a step, expansion {})",
        names::counted(&w.states).join(", "),
        plural(w.every as u64, "step"),
        w.bound,
        w.roundings.round(),
        w.expansion
    )
}

fn cut_text(s: &ScanSummary) -> String {
    let (tiles, rows) = (plural(s.tiles as u64, "tile"), plural(s.tile_rows as u64, "row"));
    let chunks = format!("{tiles} of {rows}, in chunks of {}", plural(s.chunk as u64, "step"));
    match (s.members, s.team) {
        (1, 1) => chunks,
        (1, n) => format!("{chunks}; {n} blocks share a tile"),
        (n, _) => format!("{chunks}; {n} threads share every call"),
    }
}

fn times(n: usize) -> String {
    match n {
        1 => "once".into(),
        2 => "twice".into(),
        n => format!("{n} times"),
    }
}

/// Operations without the word.
fn amount(n: f64) -> String {
    flops(n).trim_end_matches("flop").trim_end().into()
}

/// At most `width` columns, an ellipsis for what is left out.
pub(super) fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.into();
    }
    let head: String = text.chars().take(width.saturating_sub(2)).collect();
    format!("{}… ", head.trim_end())
}

/// Lines of at most `width` columns, broken after spaces and plus signs where possible.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split_inclusive([' ', '+']) {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let last = lines.len() - 1;
            let used = lines[last].chars().count();
            let bare = word.len() - usize::from(word.last() == Some(&' '));
            if used + bare <= width {
                lines[last].extend(&word);
                break;
            }
            if used == 0 {
                lines[last].extend(word.drain(..width));
            }
            lines.push(String::new());
        }
    }
    lines.into_iter().map(|l| l.trim_end().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_where_they_may_be() {
        assert_eq!(wrap("a+b c", 10), ["a+b c"]);
        assert_eq!(wrap("one+two+three", 8), ["one+two+", "three"]);
        assert_eq!(wrap("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(wrap("", 3), [""]);
        assert_eq!(fit("abcdef", 6), "abcdef");
        assert_eq!(fit("abcdefg", 6), "abcd… ");
    }
}
