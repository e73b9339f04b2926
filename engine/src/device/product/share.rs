//! How the terms of a product are shared: in classes always, and among the threads of a block at a step.

/// Terms beside each other that are of one class.
pub(super) const RUN: usize = 4;
/// Fewest runs that are worth a class of their own.
const RUNS: usize = 2;
/// Most classes.
const CLASSES: usize = 8;
/// Most rows, and most columns, of a thread's tile.
const SIDE: [usize; 4] = [1, 2, 4, 8];
/// Most registers for the sums of a thread's tile.
const SUMS: usize = 64;
/// Bytes that a thread reads at once.
pub(super) const WORD: usize = 16;
/// What the threads of a block wait for each other when they meet, in terms of a tile of one element.
const MEETING: f64 = 30.0;

/// Classes that a sum of `k` terms is formed in.
pub(super) fn classes(k: usize) -> usize {
    let most = (k / (RUN * RUNS)).clamp(1, CLASSES);
    1 << most.ilog2()
}

/// Bytes of shared memory, of so many in all, that a block leaves free of matrices for panels and sums.
pub(in crate::device) fn reserve(shared_bytes: usize) -> usize {
    shared_bytes / 8
}

/// A product at one step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Problem {
    /// Rows of a tile, at most; columns of the block; terms.
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) k: usize,
    /// Planes of the left factor, the matrix, and the product.
    pub(super) planes: [usize; 3],
    /// Bytes of a component.
    pub(super) size: usize,
    pub(super) threads: usize,
    /// Bytes of shared memory that are free.
    pub(super) bytes: usize,
}

/// How the threads of a block share a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Rows and columns of a thread's tile.
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Groups of rows and of columns that are formed at once, each by as many threads as there are classes.
    pub(super) row_groups: usize,
    pub(super) column_groups: usize,
    /// Terms of a panel.
    pub(super) width: usize,
}

impl Shape {
    /// The one that is expected to take least time; `None`: there is no room, or nothing to do.
    pub(super) fn of(p: &Problem) -> Option<Shape> {
        let mut best: Option<(f64, Shape)> = None;
        for rows in SIDE {
            for columns in SIDE {
                if let Some(shape) = Shape::with(p, rows, columns) {
                    let cost = shape.cost(p);
                    if best.is_none_or(|b| cost < b.0) {
                        best = Some((cost, shape));
                    }
                }
            }
        }
        best.map(|b| b.1)
    }

    /// With tiles of so many rows and columns, if that fits.
    fn with(p: &Problem, rows: usize, columns: usize) -> Option<Shape> {
        let [.., planes] = p.planes;
        if rows * columns * planes * p.size > SUMS * 4 || p.rows * p.columns * p.k == 0 {
            return None;
        }
        let classes = classes(p.k);
        let units = p.threads / classes;
        if units == 0 {
            return None;
        }
        let (all_rows, all_columns) = (p.rows.div_ceil(rows), p.columns.div_ceil(columns));
        let column_groups = all_columns.min(units);
        let row_groups = all_rows.min(units / column_groups);
        let shape = Shape { rows, columns, row_groups, column_groups, width: 0 };
        let of_panel = row_groups * rows * p.planes[0] * p.size;
        let most = (p.bytes / of_panel).saturating_sub(shape.gap(p.size));
        // Panels begin with the first class.
        let round = RUN * classes;
        let all = p.k.next_multiple_of(RUN);
        let width = if all <= most { all } else { most / round * round };
        let shape = Shape { width, ..shape };
        let there = width > 0 && shape.panel_bytes(p) <= p.bytes && shape.sum_bytes(p) <= p.bytes;
        there.then_some(shape)
    }

    /// Elements between rows of the panel, so that threads with rows beside each other read from different banks.
    pub(super) fn gap(&self, size: usize) -> usize {
        WORD / size
    }

    pub(super) fn panel_bytes(&self, p: &Problem) -> usize {
        self.row_groups * self.rows * (self.width + self.gap(p.size)) * p.planes[0] * p.size
    }

    /// Bytes of the classes' sums.
    pub(super) fn sum_bytes(&self, p: &Problem) -> usize {
        match classes(p.k) {
            1 => 0,
            classes => {
                classes
                    * self.row_groups
                    * self.column_groups
                    * self.rows
                    * self.columns
                    * p.planes[2]
                    * p.size
            }
        }
    }

    /// About what it takes: for each term a thread multiplies four times as fast as it reads words, and the threads meet.
    fn cost(&self, p: &Problem) -> f64 {
        let [a, b, _] = p.planes;
        let words = (p.size / 4) as f64;
        let products = (self.rows * self.columns * a * b) as f64 * words;
        let reads = (self.rows * a * p.size) as f64 / WORD as f64 + (self.columns * b) as f64 * words;
        let classes = classes(p.k);
        let portions = p.rows.div_ceil(self.rows * self.row_groups)
            * p.columns.div_ceil(self.columns).div_ceil(self.column_groups);
        let panels = p.k.div_ceil(self.width);
        let meetings = 2 * panels + if classes > 1 { 2 } else { 0 };
        let terms = (p.k as f64 / classes as f64) * (products / 4.0).max(reads);
        portions as f64 * (terms + meetings as f64 * MEETING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(rows: usize, columns: usize, k: usize) -> Problem {
        Problem { rows, columns, k, planes: [1; 3], size: 4, threads: 256, bytes: 90 << 10 }
    }

    #[test]
    fn more_terms_are_formed_in_more_classes() {
        for (k, expected) in [(0, 1), (15, 1), (16, 2), (31, 2), (32, 4), (63, 4), (64, 8), (4096, 8)] {
            assert_eq!(classes(k), expected, "{k} terms");
        }
    }

    /// What fits, with all threads busy where there is enough for them.
    #[test]
    fn shapes_fit() {
        for (rows, columns, k) in [
            (32, 64, 512),
            (32, 16, 2048),
            (4, 128, 128),
            (4, 1000, 100),
            (1, 1, 9),
            (3, 5, 17),
            (128, 32, 1024),
        ] {
            for (planes, size) in [([1; 3], 4), ([2; 3], 4), ([1; 3], 8), ([2; 3], 8)] {
                for bytes in [1 << 10, 9 << 10, 90 << 10] {
                    let p = Problem { planes, size, bytes, ..problem(rows, columns, k) };
                    let Some(shape) = Shape::of(&p) else {
                        assert!(bytes < 90 << 10, "{p:?}");
                        continue;
                    };
                    assert!(
                        shape.panel_bytes(&p) <= bytes && shape.sum_bytes(&p) <= bytes,
                        "{p:?} {shape:?}"
                    );
                    assert!(shape.row_groups * shape.column_groups * classes(k) <= 256, "{p:?} {shape:?}");
                    assert!(shape.width >= k || shape.width % (RUN * classes(k)) == 0, "{p:?} {shape:?}");
                }
            }
        }
        // A team of 32 with the columns of an LSTM of 512 states; the same backward; a block by itself.
        for (rows, columns, k, tile) in [(32, 64, 512, 64), (32, 16, 2048, 16), (4, 128, 128, 16)] {
            let shape = Shape::of(&problem(rows, columns, k)).expect("there is room");
            assert_eq!(shape.rows * shape.columns, tile, "{shape:?}");
            assert_eq!(shape.row_groups * shape.column_groups, 32, "{shape:?}");
        }
    }
}
