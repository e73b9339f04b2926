//! The rows and columns of a product that a thread forms together, in registers.

use super::share::RUN;
use crate::device::call::Term;
use crate::device::code::{Building, Code, Op, Type, Value};
use crate::device::emit::Emit;

/// So many sums that are 0.
pub(super) fn sums(s: &mut Emit<'_>, ty: Type, count: usize) -> Vec<Value> {
    (0..count).map(|_| s.code.variable(Code::real(ty, 0.0))).collect()
}

/// Where the next terms of the left factor are read.
pub(super) enum Starts {
    /// Of each row, plane by plane.
    Rows(Vec<Value>),
    /// In shared memory, a run at once: bytes from row to row and from plane to plane.
    Panel { start: Value, rows: usize, row: usize, plane: usize },
}

/// The rows and columns of a product that a thread forms together.
pub(super) struct Tile<'t> {
    pub(super) ty: Type,
    pub(super) terms: &'t [Vec<Term>],
    /// Of the left factor and the matrix.
    pub(super) planes: [usize; 2],
    pub(super) columns: usize,
    pub(super) classes: usize,
    /// Elements from a row of the matrix to the next.
    pub(super) matrix: usize,
    pub(super) starts: Starts,
    /// Where the next terms of the matrix are read: of each column, plane by plane.
    pub(super) weights: Vec<Value>,
    /// Of each row and column, plane by plane.
    pub(super) sums: Vec<Value>,
}

impl Tile<'_> {
    /// The next `count` terms of the left factor: of each row, plane by plane, term by term.
    fn left(&self, s: &mut Emit<'_>, count: usize) -> Vec<Vec<Value>> {
        match &self.starts {
            Starts::Rows(starts) => {
                let of = |start: &Value| (0..count).map(|u| s.code.load(self.ty, *start, u)).collect();
                starts.iter().map(of).collect()
            }
            Starts::Panel { start, rows, row, plane } => {
                let at = (0..*rows).flat_map(|i| (0..self.planes[0]).map(move |p| i * row + p * plane));
                at.map(|skip| s.code.load_run(self.ty, *start, skip, count)).collect()
            }
        }
    }

    /// Adds the next `count` terms.
    fn run(&self, s: &mut Emit<'_>, count: usize) {
        let left = self.left(s, count);
        let [planes, matrix_planes] = self.planes;
        for u in 0..count {
            let w: Vec<Value> =
                self.weights.iter().map(|w| s.code.load(self.ty, *w, u * self.matrix)).collect();
            let of_row = self.columns * self.terms.len();
            for (x, sums) in left.chunks(planes).zip(self.sums.chunks(of_row)) {
                for (w, sums) in w.chunks(matrix_planes).zip(sums.chunks(self.terms.len())) {
                    for (sum, terms) in sums.iter().zip(self.terms) {
                        for &(subtract, pa, pb) in terms {
                            s.term(*sum, subtract, x[pa][u], w[pb]);
                        }
                    }
                }
            }
        }
    }

    /// Moves on by so many terms.
    fn forward(&self, s: &mut Emit<'_>, count: usize) {
        let size = self.ty.bytes();
        match &self.starts {
            Starts::Rows(starts) => starts.iter().for_each(|start| s.code.advance(*start, count * size)),
            Starts::Panel { start, .. } => s.code.advance(*start, count * size),
        }
        self.weights.iter().for_each(|weight| s.code.advance(*weight, count * self.matrix * size));
    }

    /// Adds the terms of a class among the next `width`, from its first run on, which is the next to be read.
    pub(super) fn class(&self, s: &mut Emit<'_>, class: Value, width: usize) {
        let (runs, tail) = (width / RUN, width % RUN);
        s.each_by(class, runs, self.classes, |s, _| {
            self.run(s, RUN);
            self.forward(s, RUN * self.classes);
        });
        match tail {
            0 => {}
            _ if self.classes == 1 => self.run(s, tail),
            _ => {
                let last = s.code.eq(class, runs % self.classes);
                s.when(last, |s| self.run(s, tail));
            }
        }
    }

    /// Adds all `k` terms, which are read from these addresses on.
    pub(super) fn all_classes(
        &self,
        s: &mut Emit<'_>,
        k: usize,
        starts: &[Value],
        weights: &[Value],
    ) -> Vec<Value> {
        if self.classes == 1 {
            self.class(s, Value::Int(0), k);
            return self.sums.clone();
        }
        let totals = sums(s, self.ty, self.sums.len());
        let size = self.ty.bytes();
        s.each(0, self.classes, |s, class| {
            self.sums.iter().for_each(|sum| s.code.set(*sum, Code::real(self.ty, 0.0)));
            if let Starts::Rows(next) = &self.starts {
                for (next, start) in next.iter().zip(starts) {
                    let first = s.code.offset(*start, class, RUN * size);
                    s.code.set(*next, first);
                }
            }
            for (next, start) in self.weights.iter().zip(weights) {
                let first = s.code.offset(*start, class, RUN * self.matrix * size);
                s.code.set(*next, first);
            }
            self.class(s, class, k);
            for (total, sum) in totals.iter().zip(&self.sums) {
                s.code.op_into(*total, Op::Add, &[*total, *sum]);
            }
        });
        totals
    }
}
