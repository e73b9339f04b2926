//! What an operation says about itself for tests, gradient checks and benches: inputs to try it on.
//!
//! Every public operation has an [`OpSpec`]; [`OPS`](crate::OPS) lists them. A [`Case`] states the inputs as
//! letters and domains, and how to call the operation; a [`Sampler`] binds the letters to sizes and draws
//! numbers, the same for the same seed.

use num_complex::Complex64;
use retrograd_engine::{DType, Error, Lead, Params, Result, Shape, Tape, Tensor, Var};

/// An operation, as tests and the command line see it.
#[derive(Debug)]
pub struct OpSpec {
    /// Name, as the public function.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Ways to call it.
    pub cases: &'static [Case],
}

/// One way to call an operation.
pub struct Case {
    /// What is special about it, in a few words.
    pub label: &'static str,
    /// Inputs in order.
    pub inputs: &'static [Arg],
    /// Records the call.
    pub build: fn(&mut Tape, &[Var]) -> Result<Var>,
}

/// An input of a case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arg {
    /// Axes separated by blanks. `N` (rows) and `T` (steps) in front are batch axes; other letters stand for
    /// random sizes, the same letter for the same size; digits are literal; nothing is a shared scalar.
    pub dims: &'static str,
    /// Real, complex, or indices.
    pub field: Field,
    /// Where the numbers lie.
    pub domain: Domain,
}

impl Arg {
    /// An input.
    pub const fn new(dims: &'static str, field: Field, domain: Domain) -> Arg {
        Arg { dims, field, domain }
    }

    /// A real input.
    pub const fn real(dims: &'static str, domain: Domain) -> Arg {
        Arg::new(dims, Field::Real, domain)
    }

    /// A complex input.
    pub const fn complex(dims: &'static str, domain: Domain) -> Arg {
        Arg::new(dims, Field::Complex, domain)
    }

    /// An input tried both real and complex.
    pub const fn either(dims: &'static str, domain: Domain) -> Arg {
        Arg::new(dims, Field::Either, domain)
    }

    /// An index input with entries less than `below` (a letter or a number).
    pub const fn index(dims: &'static str, below: &'static str) -> Arg {
        Arg::new(dims, Field::Index { below }, Domain::Any)
    }
}

/// What kind of numbers an input holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Real.
    Real,
    /// Complex.
    Complex,
    /// Tried in both.
    Either,
    /// `I32`, from 0 to less than `below`.
    Index {
        /// A letter of the case or a number.
        below: &'static str,
    },
}

/// Where an input's numbers lie, so that a sampler never sits on a kink or a pole by accident.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Domain {
    /// Parts in (−2, 2).
    Any,
    /// Real part in (0.3, 2.3); an imaginary part is any.
    Positive,
    /// Parts in (0.05, 0.95).
    Unit,
    /// Modulus in (0.3, 2), any sign or phase.
    AwayFromZero,
    /// Parts pairwise at least 0.1 apart, from each other, from 0, and from those of the other separated inputs.
    Separated,
    /// Parts in this interval.
    Between(f64, f64),
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case")
            .field("label", &self.label)
            .field("inputs", &self.inputs)
            .finish_non_exhaustive()
    }
}

/// A recorded case with values for its inputs.
#[derive(Debug)]
pub struct Recorded {
    /// The tape.
    pub tape: Tape,
    /// Inputs of the case: parameters where they have no batch axis, named `x0`, `x1`, ...
    pub inputs: Vec<Var>,
    /// What the case returns.
    pub output: Var,
    /// Values of the inputs by name.
    pub values: Params,
}

impl Case {
    /// The choices of real (`false`) and complex (`true`) for the inputs.
    pub fn fields(&self) -> Vec<Vec<bool>> {
        let mut choices = vec![Vec::new()];
        for arg in self.inputs {
            let both: &[bool] = match arg.field {
                Field::Either => &[false, true],
                Field::Complex => &[true],
                Field::Real | Field::Index { .. } => &[false],
            };
            choices = choices
                .iter()
                .flat_map(|chosen: &Vec<bool>| {
                    both.iter().map(|&c| chosen.iter().copied().chain([c]).collect::<Vec<bool>>())
                })
                .collect();
        }
        choices
    }

    /// Records the case on a new tape over the real type `real`, with sampled values.
    ///
    /// Errors: `complex` does not have one entry for each input; whatever the operation returns.
    pub fn record(&self, real: DType, complex: &[bool], sampler: &mut Sampler) -> Result<Recorded> {
        if complex.len() != self.inputs.len() {
            let (expected, got) = (self.inputs.len(), complex.len());
            return Err(Error::shape("case", "choices of field", expected, got));
        }
        let mut tape = Tape::new();
        let mut values = Params::new();
        let mut inputs = Vec::new();
        for (i, (arg, &complex)) in self.inputs.iter().zip(complex).enumerate() {
            let dtype = match arg.field {
                Field::Index { .. } => DType::I32,
                _ if complex => real.complex().unwrap_or(real),
                _ => real.real(),
            };
            let name = format!("x{i}");
            let shape = sampler.shape(arg)?;
            inputs.push(match shape.lead {
                Lead::Shared => tape.param(&name, dtype, &shape.dims)?,
                _ => tape.input(&name, dtype, shape)?,
            });
            values.insert(name, sampler.tensor(arg, dtype)?);
        }
        let output = (self.build)(&mut tape, &inputs)?;
        Ok(Recorded { tape, inputs, output, values })
    }
}

/// Binds letters to sizes and draws numbers; equal seeds give equal samples.
#[derive(Clone, Debug)]
pub struct Sampler {
    state: u64,
    sizes: Vec<(&'static str, usize)>,
    separated: usize,
}

impl Sampler {
    /// A sampler.
    pub fn new(seed: u64) -> Sampler {
        Sampler { state: seed, sizes: Vec::new(), separated: 0 }
    }

    /// A sampler in which no letter of the case stands for 1, and no two for the same size, since an axis of size 1
    /// hides mistakes.
    pub fn roomy(seed: u64, case: &Case) -> Sampler {
        let mut sampler = Sampler::new(seed);
        let letters = case.inputs.iter().flat_map(|arg| arg.dims.split_whitespace());
        for letter in letters.filter(|l| l.parse::<usize>().is_err()) {
            if sampler.sizes.iter().all(|(known, _)| *known != letter) {
                let size = 2 + sampler.sizes.len();
                sampler.sizes.push((letter, size));
            }
        }
        sampler
    }

    /// Binds a letter beforehand.
    pub fn with_size(mut self, letter: &'static str, size: usize) -> Sampler {
        self.sizes.push((letter, size));
        self
    }

    /// The size of a letter, bound to one of 1 to 5 where it is not bound yet; of digits, their number.
    pub fn size(&mut self, letter: &'static str) -> usize {
        if let Ok(n) = letter.parse() {
            return n;
        }
        if let Some(&(_, n)) = self.sizes.iter().find(|(l, _)| *l == letter) {
            return n;
        }
        let n = 1 + (self.next() % 5) as usize;
        self.sizes.push((letter, n));
        n
    }

    /// The recorded shape of an input. Errors: a batch axis behind an ordinary one.
    pub fn shape(&mut self, arg: &Arg) -> Result<Shape> {
        let mut axes = arg.dims.split_whitespace().peekable();
        let t = axes.next_if_eq(&"T").is_some();
        let n = axes.next_if_eq(&"N").is_some();
        let mut shape = Shape::new(Lead::from_axes(t, n), []);
        for axis in axes {
            if axis == "T" || axis == "N" {
                return Err(Error::argument("spec", format!("axes `{}`: {axis} is not in front", arg.dims)));
            }
            let size = self.size(axis);
            shape.dims.push(size);
        }
        Ok(shape)
    }

    /// Values of an input, batch axes included. Errors: as [`Sampler::shape`].
    pub fn tensor(&mut self, arg: &Arg, dtype: DType) -> Result<Tensor> {
        let shape = self.shape(arg)?;
        let (steps, rows) = (
            if shape.lead.has_t() { self.size("T") } else { 1 },
            if shape.lead.has_n() { self.size("N") } else { 1 },
        );
        let mut tensor = Tensor::zeros(dtype, shape.concrete(steps, rows))?;
        if let Field::Index { below } = arg.field {
            let below = self.size(below).max(1) as u64;
            tensor.fill_with(|_| Complex64::new((self.next() % below) as f64, 0.0));
            return Ok(tensor);
        }
        if arg.domain == Domain::Separated {
            let values = self.separated(tensor.len() * dtype.planes());
            let planes = dtype.planes();
            tensor.fill_with(|i| {
                Complex64::new(values[i * planes], if planes == 2 { values[i * 2 + 1] } else { 0.0 })
            });
            return Ok(tensor);
        }
        let complex = dtype.is_complex();
        tensor.fill_with(|_| self.number(arg.domain, complex));
        Ok(tensor)
    }

    /// A random tensor of the type and sizes given, parts in (−1, 1): directions for directional derivatives.
    pub fn direction(&mut self, dtype: DType, dims: &[usize]) -> Result<Tensor> {
        let mut tensor = Tensor::zeros(dtype, dims)?;
        let complex = dtype.is_complex();
        tensor.fill_with(|_| self.number(Domain::Between(-1.0, 1.0), complex));
        Ok(tensor)
    }

    fn number(&mut self, domain: Domain, complex: bool) -> Complex64 {
        let (lo, hi) = match domain {
            Domain::Any | Domain::Separated => (-2.0, 2.0),
            Domain::Positive => (0.3, 2.3),
            Domain::Unit => (0.05, 0.95),
            Domain::AwayFromZero => (0.3, 2.0),
            Domain::Between(lo, hi) => (lo, hi),
        };
        let first = self.between(lo, hi);
        match (domain, complex) {
            (Domain::AwayFromZero, true) => Complex64::from_polar(first, self.between(-3.1, 3.1)),
            (Domain::AwayFromZero, false) if self.next().is_multiple_of(2) => Complex64::new(-first, 0.0),
            (Domain::Positive, true) => Complex64::new(first, self.between(-2.0, 2.0)),
            (_, true) => Complex64::new(first, self.between(lo, hi)),
            (_, false) => Complex64::new(first, 0.0),
        }
    }

    /// Magnitudes 0.3·k + 0.1·j for input j, in random order and with random signs.
    fn separated(&mut self, n: usize) -> Vec<f64> {
        let offset = 0.1 * (self.separated % 3) as f64;
        self.separated += 1;
        let mut values: Vec<f64> = (1..=n).map(|k| 0.3 * k as f64 + offset).collect();
        for i in (1..n).rev() {
            let j = (self.next() % (i as u64 + 1)) as usize;
            values.swap(i, j);
        }
        for v in &mut values {
            if self.next().is_multiple_of(2) {
                *v = -*v;
            }
        }
        values
    }

    fn between(&mut self, lo: f64, hi: f64) -> f64 {
        let unit = ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        lo + (hi - lo) * unit
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_equal_samples_and_letters_hold() -> Result<()> {
        let arg = Arg::either("N C C", Domain::Any);
        let (a, b) = (Sampler::new(7).tensor(&arg, DType::C64)?, Sampler::new(7).tensor(&arg, DType::C64)?);
        assert!(a.bit_eq(&b));
        assert_eq!(a.dims()[1], a.dims()[2]);
        assert_ne!(a, Sampler::new(8).tensor(&arg, DType::C64)?);
        Ok(())
    }

    #[test]
    fn separated_inputs_are_separated() -> Result<()> {
        let mut sampler = Sampler::new(3);
        let mut all = vec![0.0];
        for _ in 0..3 {
            let x = sampler.tensor(&Arg::real("5 4", Domain::Separated), DType::F64)?;
            all.extend_from_slice(x.as_slice::<f64>()?);
        }
        all.sort_by(f64::total_cmp);
        assert!(all.windows(2).all(|w| w[1] - w[0] > 0.0999), "{all:?}");
        Ok(())
    }

    #[test]
    fn a_batch_axis_behind_an_ordinary_one_is_an_error() {
        assert!(Sampler::new(1).shape(&Arg::real("C N", Domain::Any)).is_err());
    }
}
