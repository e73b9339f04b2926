//! Errors of the engine.

use crate::dtype::DType;

/// Result of the engine's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. Every variant names the culprit and the values that do not fit.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Shapes that do not fit an operation.
    #[error("{op}: {what}, expected {expected}, got {got}")]
    Shape {
        /// Operation.
        op: &'static str,
        /// Which argument or axis.
        what: String,
        /// What would fit.
        expected: String,
        /// What came.
        got: String,
    },
    /// An element type an operation does not take.
    #[error("{op}: element type of {what}, expected {expected}, got {got}")]
    DType {
        /// Operation.
        op: &'static str,
        /// Which argument.
        what: String,
        /// Types that would fit, in words.
        expected: String,
        /// Type that came.
        got: DType,
    },
    /// An argument out of its range.
    #[error("{op}: {what}")]
    Argument {
        /// Operation or function.
        op: &'static str,
        /// What is wrong, with both values.
        what: String,
    },
    /// A derivative that does not exist.
    #[error("{op}: no {rule} rule, {why}")]
    NoRule {
        /// Operation.
        op: &'static str,
        /// `vjp` or `jvp`.
        rule: &'static str,
        /// Why.
        why: String,
    },
    /// A value of one tape used on another.
    #[error("{op}: value {var} belongs to another tape")]
    ForeignVar {
        /// Operation.
        op: &'static str,
        /// The value.
        var: String,
    },
    /// A name that is not bound, or bound to something that does not fit.
    #[error("binding `{name}`: {what}")]
    Binding {
        /// Name of the input or parameter.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// A memory budget that no plan can meet.
    #[error(
        "a budget of {} is too small: this run needs at least {} ({smallest} bytes); {dominant}",
        crate::plan::bytes(*.budget), crate::plan::bytes(*.smallest)
    )]
    Budget {
        /// Budget asked for, bytes.
        budget: usize,
        /// Smallest budget that works, bytes.
        smallest: usize,
        /// What most of the smallest budget is for.
        dominant: String,
    },
    /// States that were walked back to further from those that were there than the bound.
    #[error(
        "walk_back: states {every} steps back are off by {found:.1e}, expected at most {bound:.1e} by an expansion of \
         {expansion}: keep states more often"
    )]
    Drift {
        /// Steps between kept states.
        every: usize,
        /// What the inverse was said to enlarge an error by, at most.
        expansion: f64,
        /// Bound that follows, relative to the largest entry of the states.
        bound: f64,
        /// What was found.
        found: f64,
    },
    /// Memory that the system does not have.
    #[error("out of memory: {what} needs {}", crate::plan::bytes(*.bytes))]
    OutOfMemory {
        /// What it was for.
        what: String,
        /// Bytes asked for.
        bytes: usize,
    },
    /// A device that failed, or that was asked for what it does not have.
    #[error("{device}: {what}")]
    Device {
        /// The device's name.
        device: String,
        /// The backend's words.
        what: String,
    },
    /// A program with something that runs on the processor only.
    #[error("operation {op} does not run on a device: {what}")]
    NoDeviceKernel {
        /// The operation, or the operations that were fused.
        op: String,
        /// Why.
        what: String,
    },
    /// Sizes whose product cannot be counted or stored.
    #[error("{what}: {sizes} elements overflow")]
    Overflow {
        /// What was to be sized.
        what: String,
        /// The sizes.
        sizes: String,
    },
}

impl Error {
    /// Shorthand for [`Error::Shape`].
    pub fn shape(
        op: &'static str,
        what: impl Into<String>,
        expected: impl ToString,
        got: impl ToString,
    ) -> Error {
        Error::Shape { op, what: what.into(), expected: expected.to_string(), got: got.to_string() }
    }

    /// Shorthand for [`Error::DType`].
    pub fn dtype(op: &'static str, what: impl Into<String>, expected: impl ToString, got: DType) -> Error {
        Error::DType { op, what: what.into(), expected: expected.to_string(), got }
    }

    /// Shorthand for [`Error::Argument`].
    pub fn argument(op: &'static str, what: impl Into<String>) -> Error {
        Error::Argument { op, what: what.into() }
    }
}
