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
    /// `1 / sqrt(a² + b²)`; 0 where both are 0, or so small (denormal) that it would be infinite.
    RecipHypot,
    Lt,
    Le,
    Eq,
}

/// Functions of three real arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ternary {
    /// `a·b + c`, one rounding where the instruction set has it.
    MulAdd,
    /// `c − a·b`, one rounding where the instruction set has it.
    NegMulAdd,
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

impl Instr {
    /// How long it takes beside an addition, roughly, on processors with wide vectors: divisions and square roots wait for
    /// one slow unit, and functions are polynomials of some twenty terms. Constants cost nothing.
    pub fn effort(&self) -> f64 {
        const SLOW: f64 = 8.0;
        const FUNCTION: f64 = 22.0;
        match self {
            Instr::Const { .. } => 0.0,
            Instr::Unary { op: Unary::Sqrt | Unary::Recip, .. } => SLOW,
            Instr::Unary { op: Unary::Neg | Unary::Abs | Unary::Sign | Unary::Floor, .. } => 1.0,
            Instr::Unary { .. } => FUNCTION,
            Instr::Binary { op: Binary::Div | Binary::Hypot | Binary::RecipHypot, .. } => SLOW,
            Instr::Binary { op: Binary::Pow, .. } => 2.0 * FUNCTION,
            Instr::Load { .. } | Instr::Binary { .. } | Instr::Ternary { .. } | Instr::Store { .. } => 1.0,
        }
    }
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

/// Builds a [`ScalarProgram`] from arithmetic on [`Num`]s. Real and complex numbers mix as in mathematics.
#[derive(Debug, Default)]
pub struct Expr {
    program: ScalarProgram,
}

impl Expr {
    /// An empty program.
    pub fn new() -> Expr {
        Expr::default()
    }

    fn fresh(&mut self) -> Reg {
        let r = self.program.registers;
        self.program.registers += 1;
        r as Reg
    }

    /// The next input, one slot for a real number and two for a complex one.
    pub fn load(&mut self, complex: bool) -> Num {
        let re = self.load_plane();
        if complex { Num::Complex(re, self.load_plane()) } else { Num::Real(re) }
    }

    fn load_plane(&mut self) -> Reg {
        let dst = self.fresh();
        let slot = self.program.loads as u16;
        self.program.loads += 1;
        self.program.instrs.push(Instr::Load { dst, slot });
        dst
    }

    /// Declares the next output (one slot, or two for a complex number).
    pub fn store(&mut self, value: Num) {
        let planes = match value {
            Num::Real(r) => [Some(r), None],
            Num::Complex(re, im) => [Some(re), Some(im)],
        };
        for src in planes.into_iter().flatten() {
            let slot = self.program.stores as u16;
            self.program.stores += 1;
            self.program.instrs.push(Instr::Store { slot, src });
        }
    }

    /// The finished program.
    pub fn finish(self) -> ScalarProgram {
        self.program
    }

    /// Applies a real function to a register.
    pub fn unary(&mut self, op: Unary, a: Reg) -> Reg {
        let dst = self.fresh();
        self.program.instrs.push(Instr::Unary { op, dst, a });
        dst
    }

    /// Applies a real function to two registers.
    pub fn binary(&mut self, op: Binary, a: Reg, b: Reg) -> Reg {
        let dst = self.fresh();
        self.program.instrs.push(Instr::Binary { op, dst, a, b });
        dst
    }

    /// Applies a real function to three registers.
    pub fn ternary(&mut self, op: Ternary, a: Reg, b: Reg, c: Reg) -> Reg {
        let dst = self.fresh();
        self.program.instrs.push(Instr::Ternary { op, dst, a, b, c });
        dst
    }

    /// A constant in a register.
    pub fn constant_reg(&mut self, value: f64) -> Reg {
        let dst = self.fresh();
        self.program.instrs.push(Instr::Const { dst, value });
        dst
    }

    /// A real constant.
    pub fn constant(&mut self, value: f64) -> Num {
        Num::Real(self.constant_reg(value))
    }

    /// Real and imaginary registers; a real number gets a zero.
    pub fn parts(&mut self, a: Num) -> (Reg, Reg) {
        match a {
            Num::Real(re) => (re, self.constant_reg(0.0)),
            Num::Complex(re, im) => (re, im),
        }
    }

    /// Applies a real function to a real number; to both parts of a complex one.
    pub fn map(&mut self, op: Unary, a: Num) -> Num {
        match a {
            Num::Real(r) => Num::Real(self.unary(op, r)),
            Num::Complex(re, im) => Num::Complex(self.unary(op, re), self.unary(op, im)),
        }
    }

    /// A real function of two real numbers (real parts are taken of complex ones).
    pub fn zip(&mut self, op: Binary, a: Num, b: Num) -> Num {
        Num::Real(self.binary(op, a.re(), b.re()))
    }

    /// `−a`.
    pub fn neg(&mut self, a: Num) -> Num {
        self.map(Unary::Neg, a)
    }

    /// `a + b`.
    pub fn add(&mut self, a: Num, b: Num) -> Num {
        match (a, b) {
            (Num::Real(a), Num::Real(b)) => Num::Real(self.binary(Binary::Add, a, b)),
            (Num::Complex(re, im), Num::Real(b)) | (Num::Real(b), Num::Complex(re, im)) => {
                Num::Complex(self.binary(Binary::Add, re, b), im)
            }
            (Num::Complex(ar, ai), Num::Complex(br, bi)) => {
                Num::Complex(self.binary(Binary::Add, ar, br), self.binary(Binary::Add, ai, bi))
            }
        }
    }

    /// `a − b`.
    pub fn sub(&mut self, a: Num, b: Num) -> Num {
        match (a, b) {
            (Num::Real(a), Num::Real(b)) => Num::Real(self.binary(Binary::Sub, a, b)),
            (Num::Complex(re, im), Num::Real(b)) => Num::Complex(self.binary(Binary::Sub, re, b), im),
            (Num::Real(a), Num::Complex(br, bi)) => {
                Num::Complex(self.binary(Binary::Sub, a, br), self.unary(Unary::Neg, bi))
            }
            (Num::Complex(ar, ai), Num::Complex(br, bi)) => {
                Num::Complex(self.binary(Binary::Sub, ar, br), self.binary(Binary::Sub, ai, bi))
            }
        }
    }

    /// `a · b`.
    pub fn mul(&mut self, a: Num, b: Num) -> Num {
        match (a, b) {
            (Num::Real(a), Num::Real(b)) => Num::Real(self.binary(Binary::Mul, a, b)),
            (Num::Complex(re, im), Num::Real(b)) | (Num::Real(b), Num::Complex(re, im)) => {
                Num::Complex(self.binary(Binary::Mul, re, b), self.binary(Binary::Mul, im, b))
            }
            (Num::Complex(ar, ai), Num::Complex(br, bi)) => {
                let (rr, ri) = (self.binary(Binary::Mul, ar, br), self.binary(Binary::Mul, ar, bi));
                let re = self.ternary(Ternary::NegMulAdd, ai, bi, rr);
                Num::Complex(re, self.ternary(Ternary::MulAdd, ai, br, ri))
            }
        }
    }

    /// `a / b`.
    pub fn div(&mut self, a: Num, b: Num) -> Num {
        match (a, b) {
            (Num::Real(a), Num::Real(b)) => Num::Real(self.binary(Binary::Div, a, b)),
            (Num::Complex(re, im), Num::Real(b)) => {
                Num::Complex(self.binary(Binary::Div, re, b), self.binary(Binary::Div, im, b))
            }
            (a, Num::Complex(br, bi)) => {
                // Divide numerator and denominator by |b| first, so that |b|² cannot overflow or vanish.
                let m = self.binary(Binary::Hypot, br, bi);
                let (ur, ui) = (self.binary(Binary::Div, br, m), self.binary(Binary::Div, bi, m));
                let ui = self.unary(Unary::Neg, ui);
                let top = self.mul(a, Num::Complex(ur, ui));
                self.div(top, Num::Real(m))
            }
        }
    }

    /// Complex conjugate; a real number itself.
    pub fn conj(&mut self, a: Num) -> Num {
        match a {
            Num::Real(_) => a,
            Num::Complex(re, im) => Num::Complex(re, self.unary(Unary::Neg, im)),
        }
    }

    /// `|a|`, real.
    pub fn abs(&mut self, a: Num) -> Num {
        Num::Real(match a {
            Num::Real(r) => self.unary(Unary::Abs, r),
            Num::Complex(re, im) => self.binary(Binary::Hypot, re, im),
        })
    }

    /// `if_true` where the real number `condition` is not zero, else `if_false`.
    pub fn select(&mut self, condition: Num, if_true: Num, if_false: Num) -> Num {
        let c = condition.re();
        match (if_true, if_false) {
            (Num::Real(a), Num::Real(b)) => Num::Real(self.ternary(Ternary::Select, c, a, b)),
            (a, b) => {
                let ((ar, ai), (br, bi)) = (self.parts(a), self.parts(b));
                Num::Complex(
                    self.ternary(Ternary::Select, c, ar, br),
                    self.ternary(Ternary::Select, c, ai, bi),
                )
            }
        }
    }

    /// Splices another program in: its loads read `args` (one register per slot), its stores are returned.
    pub fn splice(&mut self, program: &ScalarProgram, args: &[Reg]) -> Vec<Reg> {
        let mut map = vec![0 as Reg; program.registers];
        let mut out = vec![0 as Reg; program.stores];
        for instr in &program.instrs {
            match *instr {
                Instr::Const { dst, value } => map[dst as usize] = self.constant_reg(value),
                Instr::Load { dst, slot } => map[dst as usize] = args[slot as usize],
                Instr::Unary { op, dst, a } => map[dst as usize] = self.unary(op, map[a as usize]),
                Instr::Binary { op, dst, a, b } => {
                    map[dst as usize] = self.binary(op, map[a as usize], map[b as usize]);
                }
                Instr::Ternary { op, dst, a, b, c } => {
                    map[dst as usize] = self.ternary(op, map[a as usize], map[b as usize], map[c as usize]);
                }
                Instr::Store { slot, src } => out[slot as usize] = map[src as usize],
            }
        }
        out
    }
}
