//! What a gradient check found.

use std::fmt::{Display, Formatter};

/// Result of [`check`](super::check). Plain data; `Display` says it in a few lines.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Derivatives of the outputs.
    pub first: Order,
    /// Derivatives of the gradient, if asked for.
    pub second: Option<Order>,
    /// Largest error allowed.
    pub tolerance: f64,
    /// Largest ratio of the adjoint identity allowed.
    pub adjoint_limit: f64,
    /// Evaluations it took.
    pub runs: usize,
}

/// Derivatives of one order.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// For each value differentiated by.
    pub values: Vec<ValueReport>,
    /// The adjoint identity, if asked for.
    pub adjoint: Option<Adjoint>,
}

/// Derivatives by one parameter or input.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueReport {
    /// Name of the value.
    pub name: String,
    /// Derivatives compared.
    pub checked: usize,
    /// Those whose error is above the tolerance.
    pub failed: usize,
    /// The one with the largest error.
    pub worst: Option<Entry>,
}

/// One derivative, computed twice.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// 1 for a derivative of the outputs, 2 for one of the gradient.
    pub order: usize,
    /// Name of the parameter or input.
    pub value: String,
    /// Index along each axis of the bound tensor, batch axes first; empty for a direction.
    pub index: Vec<usize>,
    /// Which component was moved.
    pub part: Part,
    /// From the recorded rules.
    pub ad: f64,
    /// From finite differences.
    pub fd: f64,
    /// How far the last two steps of the difference disagree, in the units of `fd`.
    pub uncertainty: f64,
    /// Relative error; see the [module](super). Infinite if one of the two is not finite.
    pub error: f64,
}

/// A component of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A real element.
    Real,
    /// The real part of a complex element.
    Re,
    /// The imaginary part of a complex element.
    Im,
    /// Every element at once, along a random direction.
    Direction,
}

/// The adjoint identity for one random tangent and cotangent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adjoint {
    /// `⟨Jv, u⟩`, from the `jvp` rules.
    pub forward: f64,
    /// `⟨v, J*u⟩`, from the `vjp` rules.
    pub reverse: f64,
    /// Their difference in units of rounding; see the [module](super). Infinite if not finite.
    pub ratio: f64,
}

impl Adjoint {
    pub(super) fn new(forward: f64, reverse: f64, size_j: f64, size_v: f64, n: usize) -> Adjoint {
        let difference = (forward - reverse).abs();
        let unit = size_j.max(size_v) * n as f64 * f64::EPSILON;
        let ratio = if difference == 0.0 { 0.0 } else { difference / unit };
        Adjoint { forward, reverse, ratio: if ratio.is_nan() { f64::INFINITY } else { ratio } }
    }
}

impl ValueReport {
    /// Computes the errors of the entries; `floor` is the least size they are relative to.
    pub(super) fn new(name: String, entries: Vec<Entry>, tolerance: f64, floor: f64) -> ValueReport {
        let checked = entries.len();
        let mean = entries.iter().map(|e| e.ad * e.ad).sum::<f64>() / checked.max(1) as f64;
        let rms = if mean.is_finite() { mean.sqrt() } else { 0.0 };
        let (mut failed, mut worst) = (0, None::<Entry>);
        for mut entry in entries {
            let difference = (entry.ad - entry.fd).abs();
            let size = entry.ad.abs().max(entry.fd.abs()).max(rms).max(floor);
            entry.error = if difference == 0.0 { 0.0 } else { difference / size };
            if !difference.is_finite() || entry.error.is_nan() {
                entry.error = f64::INFINITY;
            }
            failed += (entry.error > tolerance) as usize;
            if worst.as_ref().is_none_or(|w| entry.error > w.error) {
                worst = Some(entry);
            }
        }
        ValueReport { name, checked, failed, worst }
    }
}

impl Order {
    fn sum(&self, f: impl Fn(&ValueReport) -> usize) -> usize {
        self.values.iter().map(f).sum()
    }
}

impl Report {
    fn orders(&self) -> impl Iterator<Item = &Order> {
        std::iter::once(&self.first).chain(&self.second)
    }

    /// Whether every derivative and every adjoint identity is within its limit.
    pub fn passed(&self) -> bool {
        self.failed() == 0 && self.adjoint_ratio() < self.adjoint_limit
    }

    /// Number of derivatives compared.
    pub fn checked(&self) -> usize {
        self.orders().map(|o| o.sum(|v| v.checked)).sum()
    }

    /// Number of derivatives whose error is above the tolerance.
    pub fn failed(&self) -> usize {
        self.orders().map(|o| o.sum(|v| v.failed)).sum()
    }

    /// The derivative with the largest error of all.
    pub fn worst(&self) -> Option<&Entry> {
        let entries = self.orders().flat_map(|o| &o.values).filter_map(|v| v.worst.as_ref());
        entries.max_by(|a, b| a.error.total_cmp(&b.error))
    }

    /// The largest ratio of the adjoint identities; 0 if none was checked.
    pub fn adjoint_ratio(&self) -> f64 {
        self.orders().filter_map(|o| o.adjoint).map(|a| a.ratio).fold(0.0, f64::max)
    }
}

impl Display for Part {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Part::Real => "",
            Part::Re => " real part",
            Part::Im => " imaginary part",
            Part::Direction => " along a direction",
        })
    }
}

impl Display for Entry {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`", self.value)?;
        if self.part != Part::Direction {
            write!(f, "{:?}", self.index)?;
        }
        let order = if self.order == 2 { " (second order)" } else { "" };
        write!(f, "{}{order}: recorded {:.12e}, finite difference {:.12e}", self.part, self.ad, self.fd)?;
        write!(f, " ± {:.0e}, error {:.1e}", self.uncertainty, self.error)
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let verdict = if self.passed() { "passed" } else { "FAILED" };
        let (failed, checked) = (self.failed(), self.checked());
        write!(
            f,
            "gradient check {verdict}: {failed} of {checked} derivatives off by more than {:.0e}",
            self.tolerance
        )?;
        if let Some(worst) = self.worst() {
            write!(f, "\n  worst: {worst}")?;
        }
        for value in self.orders().flat_map(|o| &o.values).filter(|v| v.failed > 0) {
            write!(f, "\n  `{}`: {} of {} off", value.name, value.failed, value.checked)?;
        }
        for (i, adjoint) in self.orders().enumerate().filter_map(|(i, o)| o.adjoint.map(|a| (i, a))) {
            let Adjoint { forward, reverse, ratio } = adjoint;
            let limit = self.adjoint_limit;
            write!(
                f,
                "\n  adjoint identity, order {}: {forward:.12e} by jvp, {reverse:.12e} by vjp,",
                i + 1
            )?;
            write!(f, " ratio {ratio:.1e} (limit {limit})")?;
        }
        Ok(())
    }
}
