//! A plan as JSON: all of its [`PlanSummary`].

use retrograd::engine::plan::{CallSummary, MemoryLine, PhaseSummary, PlanSummary, ScanSummary};
use serde_json::{Value, json};

/// The summary of a plan.
pub(crate) fn summary(s: &PlanSummary) -> Value {
    json!({
        "steps": s.steps,
        "rows": s.rows,
        "threads": s.threads,
        "isa": s.isa,
        "budget": s.budget,
        "peak_bytes": s.peak_bytes,
        "arena_bytes": s.arena_bytes,
        "output_bytes": s.output_bytes,
        "memory": s.memory.iter().map(memory).collect::<Vec<_>>(),
        "peak_item": s.peak_item,
        "items": s.items,
        "replay": s.replay.as_ref().map(|r| json!({
            "segments": r.segments, "leaf": r.leaf, "slots": r.slots, "repetitions": r.repetitions,
            "extra_forward_steps": r.extra_forward_steps,
        })),
        "rebuilds_everything": s.rebuilds_everything,
        "stash": s.stash.name(),
        "flops": s.flops,
        "slowdown": s.slowdown,
        "scans": s.scans.iter().map(scan).collect::<Vec<_>>(),
        "outside": s.outside.iter().map(call).collect::<Vec<_>>(),
    })
}

fn memory(l: &MemoryLine) -> Value {
    json!({
        "kind": l.kind.name(), "name": l.name, "entry_bytes": l.entry_bytes, "bytes": l.bytes,
        "at_peak": l.at_peak, "items": [l.items.0, l.items.1],
    })
}

fn scan(s: &ScanSummary) -> Value {
    let passes = s.passes.iter();
    json!({
        "item": s.item,
        "label": s.label,
        "role": format!("{:?}", s.role).to_lowercase(),
        "reverse": s.reverse,
        "tiles": s.tiles,
        "tile_rows": s.tile_rows,
        "chunk": s.chunk,
        "members": s.members,
        "kept": s.kept,
        "rebuilt": s.rebuilt,
        "passes": passes
            .map(|p| json!({ "pass": p.pass.name(), "steps": p.steps, "chunks": p.chunks }))
            .collect::<Vec<_>>(),
        "phases": s.phases.iter().map(phase).collect::<Vec<_>>(),
        "step_flops": s.step_flops,
        "replay_flops": s.replay_flops,
    })
}

fn phase(p: &PhaseSummary) -> Value {
    json!({
        "name": p.name, "step_by_step": p.step_by_step, "flops": p.flops, "share": p.share,
        "calls": p.calls.iter().map(call).collect::<Vec<_>>(),
    })
}

fn call(c: &CallSummary) -> Value {
    json!({
        "item": c.item, "operations": c.operations, "reads": c.reads, "writes": c.writes,
        "every_step": c.every_step, "every_row": c.every_row, "flops": c.flops, "bytes": c.bytes,
        "shared_bytes": c.shared_bytes, "total_flops": c.total_flops,
    })
}
