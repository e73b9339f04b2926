//! The engine's own operations under their public names.

pub use retrograd_engine::core_ops::{
    add, cast, conj, expand, extent, fill, imag, neg, real, select as where_, stop_gradient, times_i,
    to_complex, zeros_like,
};
use retrograd_engine::op::Ty;
use retrograd_engine::{Lead, Shape};

use crate::mul;
use crate::spec::{Arg, Case, Domain, OpSpec};

pub(crate) static ADD: OpSpec = OpSpec {
    name: "add",
    summary: "sum, element by element",
    cases: &[
        Case {
            label: "equal shapes",
            inputs: &[Arg::either("N C", Domain::Any), Arg::either("N C", Domain::Any)],
            build: |tape, x| add(tape, x[0], x[1]),
        },
        Case {
            label: "broadcast",
            inputs: &[Arg::either("N 1 C", Domain::Any), Arg::either("D 1", Domain::Any)],
            build: |tape, x| add(tape, x[0], x[1]),
        },
        Case {
            label: "with itself",
            inputs: &[Arg::either("N C", Domain::Any)],
            build: |tape, x| add(tape, x[0], x[0]),
        },
    ],
};

pub(crate) static NEG: OpSpec = OpSpec {
    name: "neg",
    summary: "the opposite number",
    cases: &[Case {
        label: "real and complex",
        inputs: &[Arg::either("N C", Domain::Any)],
        build: |tape, x| neg(tape, x[0]),
    }],
};

pub(crate) static REAL: OpSpec = OpSpec {
    name: "real",
    summary: "real part",
    cases: &[Case {
        label: "real and complex",
        inputs: &[Arg::either("N C", Domain::Any)],
        build: |tape, x| real(tape, x[0]),
    }],
};

pub(crate) static IMAG: OpSpec = OpSpec {
    name: "imag",
    summary: "imaginary part",
    cases: &[Case {
        label: "real and complex",
        inputs: &[Arg::either("N C", Domain::Any)],
        build: |tape, x| imag(tape, x[0]),
    }],
};

pub(crate) static CONJ: OpSpec = OpSpec {
    name: "conj",
    summary: "complex conjugate",
    cases: &[Case {
        label: "real and complex",
        inputs: &[Arg::either("N C", Domain::Any)],
        build: |tape, x| conj(tape, x[0]),
    }],
};

pub(crate) static TO_COMPLEX: OpSpec = OpSpec {
    name: "to_complex",
    summary: "the complex number with this real part",
    cases: &[Case {
        label: "real and complex",
        inputs: &[Arg::either("N C", Domain::Any)],
        build: |tape, x| to_complex(tape, x[0]),
    }],
};

pub(crate) static TIMES_I: OpSpec = OpSpec {
    name: "times_i",
    summary: "product with i",
    cases: &[Case {
        label: "real and complex",
        inputs: &[Arg::either("N C", Domain::Any)],
        build: |tape, x| times_i(tape, x[0]),
    }],
};

pub(crate) static WHERE: OpSpec = OpSpec {
    name: "where_",
    summary: "one of two, by a condition",
    cases: &[
        Case {
            label: "by sign",
            inputs: &[
                Arg::real("N C", Domain::Separated),
                Arg::either("N C", Domain::Any),
                Arg::either("N C", Domain::Any),
            ],
            build: |tape, x| {
                let condition = crate::compare::positive(tape, x[0])?;
                where_(tape, condition, x[1], x[2])
            },
        },
        Case {
            label: "broadcast",
            inputs: &[
                Arg::real("N 1", Domain::Separated),
                Arg::either("C", Domain::Any),
                Arg::either("", Domain::Any),
            ],
            build: |tape, x| {
                let condition = crate::compare::positive(tape, x[0])?;
                where_(tape, condition, x[1], x[2])
            },
        },
    ],
};

pub(crate) static EXPAND: OpSpec = OpSpec {
    name: "expand",
    summary: "the same for every row or step",
    cases: &[Case {
        label: "over rows",
        inputs: &[Arg::either("C", Domain::Any), Arg::real("N C", Domain::Any)],
        build: |tape, x| {
            let rows = expand(tape, x[0], Lead::N)?;
            mul(tape, rows, x[1])
        },
    }],
};

pub(crate) static EXTENT: OpSpec = OpSpec {
    name: "extent",
    summary: "number of rows or steps",
    cases: &[Case {
        label: "of rows",
        inputs: &[Arg::either("N C", Domain::Any)],
        build: |tape, x| {
            let dtype = tape.dtype(x[0])?;
            let rows = extent(tape, Lead::N, dtype)?;
            mul(tape, x[0], rows)
        },
    }],
};

pub(crate) static FILL: OpSpec = OpSpec {
    name: "fill",
    summary: "one number everywhere",
    cases: &[Case {
        label: "of a type",
        inputs: &[Arg::either("N C", Domain::Any)],
        build: |tape, x| {
            let ty = Ty::new(tape.dtype(x[0])?, Shape::rows([]));
            let halves = fill(tape, ty, 0.5)?;
            let dims = tape.shape(x[0])?.dims.clone();
            let halves = crate::broadcast(tape, halves, &dims)?;
            mul(tape, x[0], halves)
        },
    }],
};

pub(crate) static ZEROS_LIKE: OpSpec = OpSpec {
    name: "zeros_like",
    summary: "zeros of the type of a value",
    cases: &[Case {
        label: "added",
        inputs: &[Arg::either("N C", Domain::Any)],
        build: |tape, x| {
            let zeros = zeros_like(tape, x[0])?;
            add(tape, x[0], zeros)
        },
    }],
};

#[cfg(test)]
mod tests {
    use retrograd_engine::{DType, Params, Result, Tape, Tensor, Var, grad, reference};

    use super::*;
    use crate::testing::{c, check, check_complex, check_real, r};

    #[test]
    fn parts() -> Result<()> {
        check_complex(real, &[(c(1.0, 2.0), r(1.0), r(1.0))])?;
        check_complex(imag, &[(c(1.0, 2.0), r(2.0), c(0.0, 1.0))])?;
        check_complex(conj, &[(c(1.0, 2.0), c(1.0, -2.0), r(1.0))])?;
        check_complex(times_i, &[(c(1.0, 2.0), c(-2.0, 1.0), c(0.0, -1.0))])?;
        check_real(imag, &[(3.0, 0.0, 0.0)])
    }

    #[test]
    fn a_nan_not_chosen_is_not_seen() -> Result<()> {
        let op = |tape: &mut Tape, x: &[Var]| where_(tape, x[0], x[1], x[2]);
        let nan = r(f64::NAN);
        check(
            op,
            &[false, false, false],
            &[
                (&[r(1.0), r(2.0), nan], r(2.0), &[r(0.0), r(1.0), r(0.0)]),
                (&[r(0.0), nan, r(3.0)], r(3.0), &[r(0.0), r(0.0), r(1.0)]),
                (&[nan, r(2.0), r(3.0)], r(2.0), &[r(0.0), r(1.0), r(0.0)]),
            ],
        )
    }

    #[test]
    fn stop_gradient_stops() -> Result<()> {
        check_real(
            |tape, x| {
                let y = stop_gradient(tape, x)?;
                mul(tape, x, y)
            },
            &[(3.0, 9.0, 3.0)],
        )
    }

    #[test]
    fn a_cast_gives_the_gradient_in_the_type_of_the_input() -> Result<()> {
        let mut tape = Tape::new();
        let x = tape.param("x", DType::C32, [])?;
        let y = cast(&mut tape, x, DType::F64)?;
        let loss = crate::abs2(&mut tape, y)?;
        let x_bar = grad(&mut tape, loss, &[x])?[0];
        assert_eq!((tape.dtype(y)?, tape.dtype(x_bar)?), (DType::C64, DType::C32));
        let mut value = Tensor::zeros(DType::C32, [])?;
        value.fill_with(|_| c(1.5, -2.0));
        let values = Params::from_iter([("x".to_string(), value)]);
        assert_eq!(reference::evaluate(&tape, &[x_bar], &[&values])?[0].get(0), c(3.0, -4.0));
        let i = tape.param("i", DType::I32, [])?;
        assert!(cast(&mut tape, i, DType::F64).is_err());
        Ok(())
    }
}
