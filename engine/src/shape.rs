//! Shapes of recorded values: leading batch axes by name, trailing axes by size.
//!
//! A plan is made once and holds for any number of steps `T` and rows `N`. Recorded shapes therefore never
//! contain those numbers: a value either has no batch axis ([`Lead::Shared`]), a row axis ([`Lead::N`]), a time
//! axis ([`Lead::T`]) or both ([`Lead::TN`]), and after it a list of ordinary sizes.

use smallvec::SmallVec;

/// Sizes of ordinary axes, the rightmost varying fastest.
pub type Dims = SmallVec<[usize; 4]>;

/// The batch axes in front of a recorded value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lead {
    /// None: parameters and constants.
    Shared,
    /// `[N, ..]`: one entry for each row of the batch; states inside a step.
    N,
    /// `[T, ..]`: one entry for each step, the same for all rows.
    T,
    /// `[T, N, ..]`: sequences.
    TN,
}

impl Lead {
    /// The smallest set of batch axes that contains both.
    pub fn join(self, other: Lead) -> Lead {
        Lead::from_axes(self.has_t() || other.has_t(), self.has_n() || other.has_n())
    }

    /// The lead with these axes.
    pub fn from_axes(t: bool, n: bool) -> Lead {
        match (t, n) {
            (false, false) => Lead::Shared,
            (false, true) => Lead::N,
            (true, false) => Lead::T,
            (true, true) => Lead::TN,
        }
    }

    /// Whether there is a time axis.
    pub fn has_t(self) -> bool {
        matches!(self, Lead::T | Lead::TN)
    }

    /// Whether there is a row axis.
    pub fn has_n(self) -> bool {
        matches!(self, Lead::N | Lead::TN)
    }

    /// Number of entries for these extents, `None` on overflow.
    pub fn count(self, steps: usize, rows: usize) -> Option<usize> {
        match self {
            Lead::Shared => Some(1),
            Lead::N => Some(rows),
            Lead::T => Some(steps),
            Lead::TN => steps.checked_mul(rows),
        }
    }
}

/// Shape of a recorded value: batch axes, then sizes. Displays as `[T,N,128]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Batch axes in front.
    pub lead: Lead,
    /// Ordinary axes.
    pub dims: Dims,
}

impl Shape {
    /// `[dims..]`, no batch axis.
    pub fn shared(dims: impl AsRef<[usize]>) -> Shape {
        Shape::new(Lead::Shared, dims)
    }

    /// `[N, dims..]`.
    pub fn rows(dims: impl AsRef<[usize]>) -> Shape {
        Shape::new(Lead::N, dims)
    }

    /// `[T, dims..]`.
    pub fn steps(dims: impl AsRef<[usize]>) -> Shape {
        Shape::new(Lead::T, dims)
    }

    /// `[T, N, dims..]`.
    pub fn sequence(dims: impl AsRef<[usize]>) -> Shape {
        Shape::new(Lead::TN, dims)
    }

    /// Batch axes and sizes.
    pub fn new(lead: Lead, dims: impl AsRef<[usize]>) -> Shape {
        Shape { lead, dims: Dims::from_slice(dims.as_ref()) }
    }

    /// Number of elements of one entry: the product of the ordinary axes (1 for none).
    pub fn width(&self) -> usize {
        self.dims.iter().product()
    }

    /// The concrete sizes for `steps` and `rows`.
    pub fn concrete(&self, steps: usize, rows: usize) -> Dims {
        let mut dims = Dims::new();
        if self.lead.has_t() {
            dims.push(steps);
        }
        if self.lead.has_n() {
            dims.push(rows);
        }
        dims.extend_from_slice(&self.dims);
        dims
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[")?;
        let lead: &[&str] = match self.lead {
            Lead::Shared => &[],
            Lead::N => &["N"],
            Lead::T => &["T"],
            Lead::TN => &["T", "N"],
        };
        let mut first = true;
        for part in lead.iter().map(|s| s.to_string()).chain(self.dims.iter().map(usize::to_string)) {
            if !first {
                f.write_str(",")?;
            }
            first = false;
            f.write_str(&part)?;
        }
        f.write_str("]")
    }
}

/// Broadcast of two lists of sizes by the usual rule (aligned at the right, 1 stretches); `None` if they differ.
pub fn broadcast_dims(a: &[usize], b: &[usize]) -> Option<Dims> {
    let n = a.len().max(b.len());
    let at = |d: &[usize], i: usize| if i + d.len() >= n { d[i + d.len() - n] } else { 1 };
    (0..n)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// Broadcast of two recorded shapes: leads join, sizes broadcast.
pub fn broadcast(a: &Shape, b: &Shape) -> Option<Shape> {
    Some(Shape { lead: a.lead.join(b.lead), dims: broadcast_dims(&a.dims, &b.dims)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_and_broadcast() {
        assert_eq!(Shape::sequence([128]).to_string(), "[T,N,128]");
        assert_eq!(Shape::shared([]).to_string(), "[]");
        assert_eq!(broadcast(&Shape::rows([4, 1]), &Shape::shared([3])), Some(Shape::rows([4, 3])));
        assert_eq!(broadcast(&Shape::rows([4]), &Shape::steps([1])), Some(Shape::sequence([4])));
        assert_eq!(broadcast(&Shape::rows([4]), &Shape::shared([3])), None);
    }
}
