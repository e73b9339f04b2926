//! How far states that are walked back to are from those that were there.

use std::sync::atomic::{AtomicU64, Ordering};

use super::frame::Loc;
use crate::dtype::DType;
use crate::plan::ir::Buf;

/// The largest difference that a run found, relative to the largest entry of the states: of each pair of scans.
#[derive(Debug)]
pub(crate) struct Drifts(Vec<AtomicU64>);

impl Drifts {
    pub(crate) fn new(pairs: usize) -> Drifts {
        Drifts((0..pairs).map(|_| AtomicU64::new(0)).collect())
    }

    /// Notes what a tile found.
    pub(crate) fn note(&self, pair: usize, found: f64) {
        // Numbers that are not negative are ordered as their bits are.
        if let Some(largest) = self.0.get(pair) {
            largest.fetch_max(found.to_bits(), Ordering::Relaxed);
        }
    }

    /// The largest of each pair.
    pub(crate) fn found(&self) -> Vec<f64> {
        self.0.iter().map(|bits| f64::from_bits(bits.load(Ordering::Relaxed))).collect()
    }
}

/// Largest entry of kept states, and largest difference of walked ones from them. States that are not finite say nothing:
/// what was lost before is not lost on the way back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Compared {
    largest: f64,
    difference: f64,
}

impl Compared {
    /// Relative to the largest entry.
    pub(super) fn drift(self) -> f64 {
        if self.difference > 0.0 { self.difference / self.largest.max(f64::MIN_POSITIVE) } else { 0.0 }
    }

    /// Counts the entries of a slot, and if given what was walked back to.
    pub(super) fn slot(&mut self, kept: &Loc, slot: usize, walked: Option<&Loc>, rows: usize, buf: &Buf) {
        match buf.dtype.real() {
            DType::F32 => self.entries::<f32>(kept, slot, walked, rows, buf),
            DType::F64 => self.entries::<f64>(kept, slot, walked, rows, buf),
            // Counters are exact.
            _ => {}
        }
    }

    fn entries<R: Copy + Into<f64>>(
        &mut self,
        kept: &Loc,
        slot: usize,
        walked: Option<&Loc>,
        rows: usize,
        buf: &Buf,
    ) {
        for plane in 0..buf.dtype.planes() {
            for r in 0..rows {
                let at = plane * kept.plane + slot * kept.step + r * kept.row;
                // SAFETY: a row of a checkpoint, which nothing writes now.
                let kept = unsafe { std::slice::from_raw_parts(kept.ptr.cast::<R>().add(at), buf.width) };
                let most = kept.iter().map(|&x| x.into().abs()).filter(|x| x.is_finite());
                self.largest = most.fold(self.largest, f64::max);
                let Some(walked) = walked else { continue };
                let at = plane * walked.plane + r * walked.row;
                // SAFETY: the same row of the present state, which is this tile's.
                let walked = unsafe { std::slice::from_raw_parts(walked.ptr.cast::<R>().add(at), buf.width) };
                let off = kept.iter().zip(walked).filter(|(k, _)| Into::<f64>::into(**k).is_finite());
                let off = off.map(|(&k, &w)| (k.into() - w.into()).abs());
                // A walked state that is no number is as far off as can be.
                let off = off.map(|x| if x.is_nan() { f64::INFINITY } else { x });
                self.difference = off.fold(self.difference, f64::max);
            }
        }
    }
}
