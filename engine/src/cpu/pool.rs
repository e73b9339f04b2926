//! Worker threads, with denormal numbers flushed to zero while a task runs.

use std::sync::Arc;

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

use crate::error::{Error, Result};

/// What arithmetic does with denormal numbers while a task runs.
///
/// Gradients that vanish over time become denormal, and arithmetic with those is a hundred times slower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Denormals {
    /// Results and operands below the smallest normal number count as 0.
    #[default]
    Flush,
    /// IEEE 754's gradual underflow.
    Keep,
}

/// A pool of worker threads. A clone is the same pool.
#[derive(Clone, Debug)]
pub struct Pool {
    /// None: tasks run one after the other on the calling thread.
    workers: Option<Arc<rayon::ThreadPool>>,
    threads: usize,
    denormals: Denormals,
}

impl Pool {
    /// A pool of so many threads; `None` is one for each core. One thread is the calling one.
    ///
    /// Errors: zero threads, or threads that the system does not give.
    pub fn new(threads: Option<usize>, denormals: Denormals) -> Result<Pool> {
        let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
        if threads == 0 {
            return Err(Error::argument("pool", "number of threads is 0, expected at least 1"));
        }
        let workers = if threads == 1 {
            None
        } else {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|i| format!("retrograd-{i}"))
                .build()
                .map_err(|e| Error::argument("pool", format!("cannot start {threads} threads: {e}")))?;
            Some(Arc::new(pool))
        };
        Ok(Pool { workers, threads, denormals })
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// What tasks do with denormal numbers.
    pub fn denormals(&self) -> Denormals {
        self.denormals
    }

    /// Runs `task(0)`, ..., `task(n_tasks - 1)`, in any order and at the same time, and returns when all are done.
    ///
    /// A single task runs on the calling thread. The floating-point mode is set around every task and then put
    /// back, on the calling thread too. A panic of a task is passed on.
    pub fn run(&self, n_tasks: usize, task: impl Fn(usize) + Sync) {
        let denormals = self.denormals;
        match &self.workers {
            Some(workers) if n_tasks > 1 => workers.install(|| {
                (0..n_tasks)
                    .into_par_iter()
                    .with_max_len(1)
                    .for_each(|i| with_denormals(denormals, || task(i)));
            }),
            _ => (0..n_tasks).for_each(|i| with_denormals(denormals, || task(i))),
        }
    }

    /// Runs `task(0)`, ..., `task(threads - 1)` at the same time, each on a thread of its own, so that they may wait
    /// for each other. The floating-point mode is set as by [`Pool::run`]. Nobody else may use the pool meanwhile.
    pub(crate) fn together(&self, task: impl Fn(usize) + Sync) {
        let denormals = self.denormals;
        match &self.workers {
            Some(workers) => {
                workers.broadcast(|worker| with_denormals(denormals, || task(worker.index())));
            }
            None => with_denormals(denormals, || task(0)),
        }
    }
}

/// Runs `task` on this thread with the given treatment of denormal numbers, and puts the old one back.
pub fn with_denormals<T>(denormals: Denormals, task: impl FnOnce() -> T) -> T {
    let _restore = Mode::set(denormals);
    opaque(task)
}

/// A call the optimizer does not look into, so that no arithmetic moves across a change of mode.
#[inline(never)]
fn opaque<T>(task: impl FnOnce() -> T) -> T {
    std::hint::black_box(task)()
}

/// The mode to put back.
struct Mode(control::Word);

impl Mode {
    fn set(denormals: Denormals) -> Mode {
        let old = control::read();
        let new = match denormals {
            Denormals::Flush => old | control::FLUSH,
            Denormals::Keep => old & !control::FLUSH,
        };
        control::write(new);
        Mode(old)
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        control::write(self.0);
    }
}

#[cfg(target_arch = "x86_64")]
mod control {
    pub(super) type Word = u32;
    /// Flush to zero (bit 15) and denormals are zero (bit 6) of MXCSR.
    pub(super) const FLUSH: Word = 1 << 15 | 1 << 6;

    pub(super) fn read() -> Word {
        let mut word: Word = 0;
        // SAFETY: stores four bytes to a local of four bytes.
        unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut word, options(nostack, preserves_flags)) };
        word
    }

    pub(super) fn write(word: Word) {
        // SAFETY: `word` is a control word read before, but for the two bits that flush: no exception is
        // unmasked and rounding stays to nearest. Results are those of IEEE 754 except near zero, which is what
        // the caller asked for; the previous word is restored before the caller's caller goes on.
        unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &word, options(nostack, preserves_flags)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod control {
    pub(super) type Word = u64;
    /// Flush to zero (bit 24) of FPCR, which covers operands too.
    pub(super) const FLUSH: Word = 1 << 24;

    pub(super) fn read() -> Word {
        let word: Word;
        // SAFETY: reads a register.
        unsafe { std::arch::asm!("mrs {}, fpcr", out(reg) word, options(nostack, preserves_flags)) };
        word
    }

    pub(super) fn write(word: Word) {
        // SAFETY: `word` is a control word read before, but for the bit that flushes; see the other target.
        unsafe { std::arch::asm!("msr fpcr, {}", in(reg) word, options(nostack, preserves_flags)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod control {
    pub(super) type Word = u32;
    pub(super) const FLUSH: Word = 0;

    pub(super) fn read() -> Word {
        0
    }

    pub(super) fn write(_word: Word) {}
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use std::hint::black_box;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn half_of_smallest_is_zero() -> bool {
        black_box(f32::MIN_POSITIVE) * black_box(0.5) == 0.0
    }

    #[test]
    fn every_task_runs_once_in_its_mode() {
        let flushes = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));
        for threads in [Some(1), Some(3), None] {
            for (denormals, zero) in [(Denormals::Flush, flushes), (Denormals::Keep, false)] {
                let pool = Pool::new(threads, denormals).unwrap();
                for n in [0, 1, 2, 17] {
                    let seen: Vec<_> = (0..n).map(|_| AtomicUsize::new(0)).collect();
                    pool.clone().run(n, |i| {
                        seen[i].fetch_add(1, Ordering::Relaxed);
                        assert_eq!(half_of_smallest_is_zero(), zero, "{denormals:?} {threads:?}");
                    });
                    assert!(seen.iter().all(|s| s.load(Ordering::Relaxed) == 1));
                    assert!(!half_of_smallest_is_zero(), "mode of the caller is put back");
                }
            }
        }
    }

    #[test]
    fn a_panic_passes_on_and_the_mode_is_put_back() {
        for threads in [1, 2] {
            let pool = Pool::new(Some(threads), Denormals::Flush).unwrap();
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                pool.run(4, |i| {
                    if i == 2 {
                        panic!("task {i}")
                    }
                });
            }));
            assert!(result.is_err());
            assert!(!half_of_smallest_is_zero());
            pool.run(2, |_| ());
        }
    }

    #[test]
    fn no_threads_is_an_error() {
        assert!(Pool::new(Some(0), Denormals::Keep).is_err());
    }
}
