//! The hidden size at which a network has as many parameters as wanted.

use crate::run::{Error, Result};

/// A hidden size and what a network of it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sized {
    /// Hidden size.
    pub hidden: usize,
    /// Trained real numbers.
    pub parameters: usize,
}

/// Largest hidden size that is tried.
const LARGEST: usize = 1 << 14;
/// Sizes around the best that are tried one by one: some operators have few sizes.
const AROUND: usize = 4;

/// The hidden size at which `count` comes nearest to `target`; of two that are as near the smaller. `count` is about
/// increasing, and an error at sizes that a network cannot have.
///
/// Errors: no size that works, with the last reason.
pub fn at_most_near(target: usize, count: impl Fn(usize) -> Result<usize>) -> Result<Sized> {
    let mut best: Option<Sized> = None;
    let mut reason = Error::config("hidden", "no size was tried");
    let mut consider = |hidden: usize, best: &mut Option<Sized>| match count(hidden) {
        Ok(parameters) => {
            let away = |n: usize| n.abs_diff(target);
            if best.is_none_or(|b| (away(parameters), hidden) < (away(b.parameters), b.hidden)) {
                *best = Some(Sized { hidden, parameters });
            }
            Some(parameters)
        }
        Err(error) => {
            reason = error;
            None
        }
    };
    // Doubling brackets the target; powers of two are also what is hardest to miss by halving.
    let (mut low, mut high) = (1, LARGEST);
    let mut size = 2;
    while size <= LARGEST {
        match consider(size, &mut best) {
            Some(parameters) if parameters > target => {
                high = size;
                break;
            }
            Some(_) => low = size,
            None => {}
        }
        size *= 2;
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        // A size that does not work says nothing about the direction: a neighbor does.
        let near = (middle..high.min(middle + AROUND)).find_map(|n| consider(n, &mut best).map(|p| (n, p)));
        match near {
            Some((_, parameters)) if parameters > target => high = middle,
            Some((n, _)) => low = n,
            None => high = middle,
        }
    }
    for n in low.saturating_sub(AROUND).max(1)..=low + AROUND {
        consider(n, &mut best);
    }
    best.ok_or(reason)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_size_is_found() {
        let square = |n: usize| Ok(n * n + 3 * n);
        assert_eq!(at_most_near(23_500, square).unwrap(), Sized { hidden: 152, parameters: 23_560 });
        // Powers of two alone, and even numbers alone.
        let powers = |n: usize| if n.is_power_of_two() { Ok(10 * n) } else { Err(Error::config("n", "no")) };
        assert_eq!(at_most_near(23_500, powers).unwrap().hidden, 2048);
        let even = |n: usize| if n.is_multiple_of(2) { Ok(n * n) } else { Err(Error::config("n", "odd")) };
        assert_eq!(at_most_near(23_500, even).unwrap().hidden, 154);
        assert!(at_most_near(10, |_| Err(Error::config("n", "never"))).is_err());
        // More than the target at every size.
        assert_eq!(at_most_near(10, |n| Ok(1000 + n)).unwrap().hidden, 1);
    }
}
