//! Scalar expressions: the body of a pointwise operation, independent of element type and device.
//!
//! A pointwise operation describes one element as a straight-line program over **real** registers; complex
//! numbers are pairs of registers ([`Num::Complex`]). The planner splices the programs of a chain of operations
//! into one, and a backend runs it over vectors (CPU) or threads (GPU). This is the only definition of a
//! pointwise operation there is: derivative rules are recorded from operations, so nothing is written twice.

/// Index of a register of a [`ScalarProgram`].
pub type Reg = u16;

/// Functions of one real argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Unary {
    Neg,
    Abs,
    /// −1, 0 or 1; 0 at ±0; NaN at NaN.
    Sign,
    Sqrt,
    /// `1 / x`.
    Recip,
    Exp,
    Expm1,
    Log,
    Log1p,
    Sin,
    Cos,
    Tanh,
    /// `1 / (1 + exp(−x))`.
    Sigmoid,
    /// `log(1 + exp(x))` without overflow.
    Softplus,
    Floor,
}

/// Functions of two real arguments. Comparisons give 1 or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    /// The larger; NaN if either is NaN.
    Max,
    /// The smaller; NaN if either is NaN.
    Min,
    /// `a^b` with the conventions of IEEE 754 `pow`.
    Pow,
    /// `sqrt(a² + b²)` without overflow.
    Hypot,
    Lt,
    Le,
    Eq,
}

/// Functions of three real arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ternary {
    /// `a·b + c`, one rounding where the instruction set has it.
    MulAdd,
    /// `b` where `a` is not zero (NaN counts as not zero), else `c`. Never mixes: a NaN not chosen is not seen.
    Select,
}

/// One instruction; `dst` is written once in a program as it is built (single assignment).
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Instr {
    /// `dst = value`.
    Const { dst: Reg, value: f64 },
    /// `dst = operand number slot`.
    Load { dst: Reg, slot: u16 },
    /// `dst = op(a)`.
    Unary { op: Unary, dst: Reg, a: Reg },
    /// `dst = op(a, b)`.
    Binary { op: Binary, dst: Reg, a: Reg, b: Reg },
    /// `dst = op(a, b, c)`.
    Ternary { op: Ternary, dst: Reg, a: Reg, b: Reg, c: Reg },
    /// `output number slot = src`.
    Store { slot: u16, src: Reg },
}

/// A straight-line program over real registers: loads, arithmetic, stores.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScalarProgram {
    /// Instructions in order.
    pub instrs: Vec<Instr>,
    /// Number of registers used.
    pub registers: usize,
    /// Number of real input planes (`Load` slots).
    pub loads: usize,
    /// Number of real output planes (`Store` slots).
    pub stores: usize,
}

/// A scalar value while an expression is being built: one register, or two for a complex number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Num {
    /// A real number.
    Real(Reg),
    /// A complex number, real and imaginary part.
    Complex(Reg, Reg),
}

impl Num {
    /// The real part.
    pub fn re(self) -> Reg {
        match self {
            Num::Real(r) | Num::Complex(r, _) => r,
        }
    }
}
