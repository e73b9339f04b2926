//! A profile as JSON: what `bench` and `explain --time` print with `--json`.

use retrograd::engine::profile::{Profile, ProfileLine, Work};
use serde_json::{Value, json};

/// Shares of the threads' time that sum to 1. `outside` are seconds on one thread beside the run itself.
pub(crate) struct Shares {
    /// In the order of [`Work::ALL`].
    works: [f64; Work::ALL.len()],
    idle: f64,
}

impl Shares {
    pub(crate) fn new(profile: &Profile, outside: f64) -> Shares {
        let whole = profile.thread_seconds() + profile.threads as f64 * outside;
        let share = |seconds: f64| if whole > 0.0 { seconds / whole } else { 0.0 };
        let works = Work::ALL
            .map(|work| share(profile.seconds(work) + if work == Work::Other { outside } else { 0.0 }));
        let idle = share(profile.idle_seconds() + (profile.threads - 1) as f64 * outside);
        Shares { works, idle }
    }

    /// Columns under [`Shares::titles`].
    pub(crate) fn columns(&self) -> String {
        self.works
            .iter()
            .chain([&self.idle])
            .map(|s| format!("{:>13}", format!("{:.1} %", 100.0 * s)))
            .collect()
    }

    /// Their headings, as wide.
    pub(crate) fn titles() -> String {
        ["products", "pointwise", "moving data", "other", "idle"].map(|t| format!("{t:>13}")).concat()
    }

    pub(crate) fn json(&self) -> Value {
        let [products, pointwise, movement, other] = self.works;
        json!({
            "products": products, "pointwise": pointwise, "data_movement": movement, "everything_else": other,
            "idle": self.idle,
        })
    }
}

/// Everything a profile knows.
pub(crate) fn profile(p: &Profile) -> Value {
    json!({
        "steps": p.steps,
        "rows": p.rows,
        "threads": p.threads,
        "device": p.device,
        "wall_seconds": p.wall_seconds,
        "thread_seconds": p.thread_seconds(),
        "idle_seconds": p.idle_seconds(),
        "flops": p.flops(),
        "shares": Shares::new(p, 0.0).json(),
        "lines": p.lines.iter().map(|l| line(p, l)).collect::<Vec<_>>(),
    })
}

/// One line of a profile.
pub(crate) fn line(p: &Profile, l: &ProfileLine) -> Value {
    json!({
        "item": l.item,
        "scan": l.scan,
        "pass": l.pass.map(|pass| pass.name()),
        "phase": l.phase,
        "step_by_step": l.step_by_step,
        "instruction": l.instruction,
        "operations": l.operations,
        "reads": l.reads,
        "writes": l.writes,
        "work": l.work.name(),
        "seconds": l.seconds,
        "share": p.share(l.seconds),
        "calls": l.calls,
        "flops": l.flops,
        "bytes": l.bytes,
        "flops_per_second": l.flops_per_second(),
        "bytes_per_second": l.bytes_per_second(),
    })
}
