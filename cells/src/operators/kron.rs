//! Kronecker-factored recurrence.
//!
//! Jose, Cisse, Fleuret, 2017, "Kronecker Recurrent Units", arXiv:1705.10142.
//!
//! For every gate, `W h = (W_0 ⊗ W_1 ⊗ … ⊗ W_{F−1}) h` without ever forming `W`: `N Σ_f P_f` multiply-adds a row.
//! `W` is unitary if every factor is; a soft unitary penalty `λ Σ_f ‖W_fᴴ W_f − I‖²` on the factors (their names
//! are in [`ParamStore::trained_factors`](crate::ParamStore::trained_factors)) keeps it near.
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `W.f` or `W.gate.f` | `[P_f, P_f]` | the cell's, else Haar orthogonal or unitary | factor `f`, 0 outermost; acts on columns, as published |
//!
//! **Differs from the paper**: the paper does not list its factorizations; the default, the prime factors of `N`
//! in ascending order, is the one its parameter counts imply except for `N = 500` (`2 x 250` there). It states an
//! initialization (random unitary) for the copy task alone; it is the default everywhere here.

use retrograd_engine::{Tape, Var};
use retrograd_ops as ops;

use crate::declare::Declare;
use crate::error::{Error, Result};
use crate::init::Init;
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::settings::{OptionDoc, Options};
use crate::table::OperatorEntry;

/// Kronecker products of small square factors, complex where the state is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kron {
    /// Sizes of the factors, outermost first; `None` takes the prime factors of the hidden size.
    pub factors: Option<Vec<usize>>,
    /// Whether the factors stay as they begin.
    pub frozen: bool,
}

/// Table entry of [`Kron`].
pub const KRON: OperatorEntry = OperatorEntry {
    name: "kron",
    summary: "Kronecker products of small factors: 4·log2 N numbers for each gate with 2x2 factors",
    options: &[
        OptionDoc {
            key: "factors",
            default: "auto",
            doc: "sizes of the square factors, outermost first, as 2x2x5; auto: prime factors of the hidden size",
        },
        OptionDoc { key: "freeze", default: "false", doc: "keep the factors as they begin; true or false" },
    ],
    build: |options: &Options<'_>| {
        let factors = match options.text("factors") {
            "auto" => None,
            text => Some(parse(text).ok_or_else(|| {
                options.bad("factors", "sizes of at least 1 joined by x, as 2x2x5, or auto")
            })?),
        };
        Ok(std::sync::Arc::new(Kron { factors, frozen: options.flag("freeze")? }))
    },
};

fn parse(text: &str) -> Option<Vec<usize>> {
    let size = |s: &str| s.trim().parse().ok().filter(|n| *n > 0);
    text.split(['x', '×', ',']).map(size).collect()
}

/// Prime factors of `n` in ascending order (`[1]` for 1).
pub fn prime_factors(n: usize) -> Vec<usize> {
    let (mut rest, mut p, mut found) = (n, 2, Vec::new());
    while p * p <= rest {
        while rest.is_multiple_of(p) {
            found.push(p);
            rest /= p;
        }
        p += 1;
    }
    if rest > 1 || found.is_empty() {
        found.push(rest);
    }
    found
}

fn show(factors: &[usize]) -> String {
    factors.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

impl Kron {
    /// Sizes of the factors for a hidden size. Errors: they do not multiply to it.
    pub fn sizes(&self, n: usize) -> Result<Vec<usize>> {
        let Some(factors) = &self.factors else { return Ok(prime_factors(n)) };
        let product = factors.iter().try_fold(1usize, |p, &f| p.checked_mul(f)).unwrap_or(usize::MAX);
        if product == n {
            return Ok(factors.clone());
        }
        Err(Error::Factors {
            factors: show(factors),
            product,
            hidden: n,
            nearest: nearest_sizes(factors, n),
            prime: show(&prime_factors(n)),
        })
    }
}

/// The sizes just below and above `n` that these factors reach when the last one is dropped or repeated.
fn nearest_sizes(factors: &[usize], n: usize) -> String {
    let (last, head) = factors.split_last().map_or((1, &[][..]), |(l, h)| (*l, h));
    let mut size = head.iter().try_fold(1usize, |p, &f| p.checked_mul(f)).unwrap_or(usize::MAX);
    let mut reached = vec![size];
    while last > 1 && size < n {
        size = size.saturating_mul(last);
        reached.push(size);
    }
    if !head.is_empty() || last > 1 {
        reached.push(factors.iter().fold(1usize, |p, &f| p.saturating_mul(f)));
    }
    let below = reached.iter().filter(|s| **s < n && **s > 1).max();
    let above = reached.iter().filter(|s| **s > n).min();
    match (below, above) {
        (Some(a), Some(b)) => format!("{a} or {b}"),
        (Some(a), None) | (None, Some(a)) => a.to_string(),
        (None, None) => "1".into(),
    }
}

impl RecurrentOperator for Kron {
    fn name(&self) -> &'static str {
        KRON.name
    }

    fn declare(&self, ctx: &mut Declare<'_>, r: Recurrence<'_>) -> Result<Box<dyn BoundOperator>> {
        let sizes = self.sizes(r.n)?;
        let init = r.init.unwrap_or(Init::Orthogonal);
        let mut gates = Vec::new();
        for gate in r.gates {
            let mut factors = Vec::new();
            for (f, &p) in sizes.iter().enumerate() {
                let dot = if gate.is_empty() { "" } else { "." };
                let name = format!("{}{dot}{gate}.{f}", r.name);
                // Under weight normalization rows of the product have the lengths of the outermost factor's rows.
                factors.push(match f {
                    0 => ctx.blocks(&name, [p, p], 1, r.complex, init)?,
                    _ => ctx.first_blocks(&name, [p, p], 1, r.complex, init)?,
                });
                ctx.mark_factor(&name);
            }
            gates.push(factors);
        }
        if self.frozen {
            ctx.freeze(r.name);
        }
        Ok(Box::new(BoundKron { gates }))
    }
}

#[derive(Debug)]
struct BoundKron {
    gates: Vec<Vec<Var>>,
}

impl BoundOperator for BoundKron {
    fn apply(&self, tape: &mut Tape, h: Var, gate: usize) -> retrograd_engine::Result<Var> {
        ops::kron_apply(tape, h, &self.gates[gate])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn factorizations() {
        for (n, expected) in [
            (1, &[1][..]),
            (100, &[2, 2, 5, 5]),
            (45, &[3, 3, 5]),
            (411, &[3, 137]),
            (993, &[3, 331]),
            (512, &[2; 9]),
        ] {
            assert_eq!(Kron::default().sizes(n).unwrap(), expected, "{n}");
        }
    }

    #[test]
    fn sizes_that_do_not_fit() {
        let kron = |f: &[usize]| Kron { factors: Some(f.to_vec()), frozen: false };
        assert_eq!(kron(&[2, 250]).sizes(500).unwrap(), [2, 250]);
        let message = kron(&[3, 137]).sizes(400).unwrap_err().to_string();
        let expected = "kron: factors 3x137 multiply to 411, hidden size is 400; \
                        use hidden size 3 or 411, or factors=2x2x2x2x5x5";
        assert_eq!(message, expected);
        let message = kron(&[2, 2]).sizes(100).unwrap_err().to_string();
        assert!(message.contains("use hidden size 64 or 128"), "{message}");
        assert_eq!(parse("2x2,5"), Some(vec![2, 2, 5]));
        assert_eq!(parse("2x0"), None);
    }
}
