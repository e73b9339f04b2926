//! Memory meter: how many bytes of tensor and arena storage live now, and how many ever did at once.
//!
//! Counts what the engine allocates for numbers (tensors, arenas, workspaces). The counters are global to the
//! process; a caller who wants the peak of one region resets it first with [`reset_peak`].

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static CURRENT: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// Bytes alive now.
pub fn current_bytes() -> usize {
    CURRENT.load(Relaxed)
}

/// Most bytes alive at once since the start or the last [`reset_peak`].
pub fn peak_bytes() -> usize {
    PEAK.load(Relaxed)
}

/// Starts a new peak at what is alive now; returns that.
pub fn reset_peak() -> usize {
    let now = current_bytes();
    PEAK.store(now, Relaxed);
    now
}

pub(crate) fn allocated(bytes: usize) {
    let now = CURRENT.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(now, Relaxed);
}

pub(crate) fn freed(bytes: usize) {
    CURRENT.fetch_sub(bytes, Relaxed);
}
