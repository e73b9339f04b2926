//! Matrix products of every kind: by a matrix that all rows share, of one pair a row, with vectors.

use retrograd_engine::layout::{Layout, layout};
use retrograd_engine::matmul::{self as engine, MatMul, RowContract};
use retrograd_engine::{Dims, Error, Lead, Result, Tape, Var};

use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{MatMulFlags, batch_matmul};

/// Matrix product: `y = a b`.
///
/// Shapes: `a [.., M, K]`, `b [.., K, P] -> y [.., M, P]`; a vector `[K]` on either side is a row or a column and its
/// axis goes away. By a matrix without batch axes, `b [K, P]`, every axis of `a` but the last is a row; otherwise
/// there is one product a row, and axes before the last two broadcast.
/// Rule: `a_bar = y_bar bᴴ`, `b_bar = aᴴ y_bar`; keeps both.   Domain: all numbers.
/// Errors: no axis; `K` differs; axes that do not broadcast; single with double precision.
pub fn matmul(tape: &mut Tape, a: Var, b: Var) -> Result<Var> {
    matmul_with(tape, a, b, MatMulFlags::default())
}

/// [`matmul()`] with operands transposed in their last two axes or conjugated. A vector is not transposed.
pub fn matmul_with(tape: &mut Tape, a: Var, b: Var, flags: MatMulFlags) -> Result<Var> {
    let (a_shape, b_shape) = (tape.shape(a)?.clone(), tape.shape(b)?.clone());
    let (a_rank, b_rank) = (a_shape.dims.len(), b_shape.dims.len());
    for (name, shape) in [("a", &a_shape), ("b", &b_shape)] {
        if shape.dims.is_empty() {
            return Err(Error::shape("matmul", name, "at least one axis", shape));
        }
    }
    let transpose_a = flags.transpose_a && a_rank > 1;
    let transpose_b = flags.transpose_b && b_rank > 1;
    let flags = MatMulFlags { transpose_a, transpose_b, ..flags };
    if b_shape.lead == Lead::Shared && b_rank == 2 {
        if transpose_a && !transpose_b && a_shape.lead == Lead::Shared && a_rank == 2 {
            let flags = RowContract { conj_left: flags.conj_a, conj_right: flags.conj_b };
            return engine::row_contract(tape, a, b, flags);
        }
        let a = if transpose_a { swap_last(tape, a)? } else { a };
        let flags = MatMul { transpose_b, conj_a: flags.conj_a, conj_b: flags.conj_b };
        return engine::matmul_with(tape, a, b, flags);
    }
    let a = if a_rank == 1 { with_axis(tape, a, 0)? } else { a };
    let b = if b_rank == 1 { with_axis(tape, b, 1)? } else { b };
    let y = batch_matmul(tape, a, b, flags)?;
    let mut dims = tape.shape(y)?.dims.clone();
    if b_rank == 1 {
        dims.pop();
    }
    if a_rank == 1 {
        dims.remove(dims.len() - if b_rank == 1 { 1 } else { 2 });
    }
    layout(tape, y, Layout::Reshape { dims })
}

/// The last two axes exchanged.
fn swap_last(tape: &mut Tape, x: Var) -> Result<Var> {
    let rank = tape.shape(x)?.dims.len();
    let mut order: Dims = (0..rank).collect();
    order.swap(rank - 1, rank - 2);
    layout(tape, x, Layout::Permute { order })
}

/// An axis of one element put in.
fn with_axis(tape: &mut Tape, x: Var, at: usize) -> Result<Var> {
    let mut dims = tape.shape(x)?.dims.clone();
    dims.insert(at, 1);
    layout(tape, x, Layout::Reshape { dims })
}

const TRANSPOSE_A: MatMulFlags =
    MatMulFlags { transpose_a: true, conj_a: true, transpose_b: false, conj_b: false };
const TRANSPOSE_B: MatMulFlags =
    MatMulFlags { transpose_a: false, conj_a: false, transpose_b: true, conj_b: true };
const BOTH: MatMulFlags = MatMulFlags { transpose_a: true, conj_a: false, transpose_b: true, conj_b: true };

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "matmul",
    summary: "matrix product",
    cases: &[
        Case {
            label: "rows by a shared matrix",
            inputs: &[Arg::either("N K", Domain::Any), Arg::either("K P", Domain::Any)],
            build: |tape, x| matmul(tape, x[0], x[1]),
        },
        Case {
            label: "rows of rows by a shared transposed matrix",
            inputs: &[Arg::either("N B K", Domain::Any), Arg::either("P K", Domain::Any)],
            build: |tape, x| matmul_with(tape, x[0], x[1], TRANSPOSE_B),
        },
        Case {
            label: "shared matrices, the first transposed",
            inputs: &[Arg::either("K M", Domain::Any), Arg::either("K P", Domain::Any)],
            build: |tape, x| matmul_with(tape, x[0], x[1], TRANSPOSE_A),
        },
        Case {
            label: "shared matrices, both transposed",
            inputs: &[Arg::either("K M", Domain::Any), Arg::either("P K", Domain::Any)],
            build: |tape, x| matmul_with(tape, x[0], x[1], BOTH),
        },
        Case {
            label: "rows' own matrices",
            inputs: &[Arg::either("N M K", Domain::Any), Arg::either("N K P", Domain::Any)],
            build: |tape, x| matmul(tape, x[0], x[1]),
        },
        Case {
            label: "shared matrix by rows' vectors",
            inputs: &[Arg::either("M K", Domain::Any), Arg::either("N K", Domain::Any)],
            build: |tape, x| matmul(tape, x[0], x[1]),
        },
        Case {
            label: "rows' vectors by rows' matrices",
            inputs: &[Arg::either("N K", Domain::Any), Arg::either("N D K P", Domain::Any)],
            build: |tape, x| matmul(tape, x[0], x[1]),
        },
        Case {
            label: "rows' vectors",
            inputs: &[Arg::either("N K", Domain::Any), Arg::either("N K", Domain::Any)],
            build: |tape, x| matmul(tape, x[0], x[1]),
        },
    ],
};

#[cfg(test)]
mod tests {
    use retrograd_engine::{DType, Shape};

    use super::*;

    #[test]
    fn shapes() -> Result<()> {
        let mut tape = Tape::new();
        let mut value = |name: &str, shape: Shape| tape.input(name, DType::F32, shape);
        let vector = value("vector", Shape::rows([3]))?;
        let matrix = value("matrix", Shape::rows([2, 3]))?;
        let stack = value("stack", Shape::rows([5, 3, 4]))?;
        let shared = value("shared", Shape::shared([3, 4]))?;
        let scalar = value("scalar", Shape::rows([]))?;
        let rows = [
            (vector, vector, "[N]"),
            (matrix, vector, "[N,2]"),
            (vector, stack, "[N,5,4]"),
            (matrix, stack, "[N,5,2,4]"),
            (vector, shared, "[N,4]"),
            (matrix, shared, "[N,2,4]"),
        ];
        for (a, b, expected) in rows {
            let y = matmul(&mut tape, a, b)?;
            assert_eq!(tape.shape(y)?.to_string(), expected);
        }
        let transposed = MatMulFlags { transpose_a: true, ..Default::default() };
        assert!(matmul_with(&mut tape, matrix, shared, transposed).is_err());
        assert!(matmul(&mut tape, scalar, shared).is_err());
        assert!(matmul(&mut tape, vector, scalar).is_err());
        assert!(matmul(&mut tape, shared, vector).is_err());
        Ok(())
    }
}
