//! Work shared out to threads, with the same result for any number of them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `f(0), …, f(n − 1)`, by at most `threads` threads, this one among them.
pub(crate) fn each<T: Send>(n: usize, threads: usize, f: impl Fn(usize) -> T + Sync) -> Vec<T> {
    if threads.min(n) <= 1 {
        return (0..n).map(f).collect();
    }
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(n)));
    let work = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= n {
                break;
            }
            let found = f(i);
            done.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((i, found));
        }
    };
    std::thread::scope(|scope| {
        (1..threads.min(n)).for_each(|_| {
            scope.spawn(work);
        });
        work();
    });
    let mut done = done.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, found)| found).collect()
}

#[cfg(test)]
mod tests {
    use super::each;

    #[test]
    fn results_come_in_order() {
        for threads in [0, 1, 2, 7] {
            assert_eq!(each(5, threads, |i| i * i), [0, 1, 4, 9, 16]);
        }
        assert!(each(0, 3, |i| i).is_empty());
    }
}
