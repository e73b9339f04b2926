//! EUNN: efficient unitary recurrence by layers of plane rotations.
//!
//! Jing, Shen, Dubček, Peurifoy, Skirlo, LeCun, Tegmark, Soljačić, 2017, "Tunable efficient unitary neural networks
//! (EUNN) and their application to RNNs", ICML, arXiv:1612.05231. On the cell `eurnn` it is the EURNN, on `goru` the
//! GORU.
//!
//! ```text
//! W = diag(e^{iω}) F_L … F_2 F_1                                        (1)
//! (F h)_p = cos θ · h_p − e^{iφ} sin θ · h_q                            (2)  for every pair (p, q) of a layer
//! (F h)_q = sin θ · h_p + e^{iφ} cos θ · h_q
//! ```
//!
//! Style `tunable`: `L` layers, the `capacity`, that pair neighbors `(0,1), (2,3), …` and `(1,2), (3,4), …` in turn; with
//! `L = N` every unitary matrix is reached. Style `fft`: `log₂ N` layers that pair elements `N/2, N/4, …, 1` apart.
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `W.theta` or `W.gate.theta` | `[R]` | the cell's, else uniform ±π | angles `θ`, layer after layer |
//! | `W.phi` | `[R]` | the same | phases `φ`; complex states alone |
//! | `W.omega` | `[N]` | the same | angles `ω` of the diagonal; complex states alone |
//!
//! `R = L N/2 − ⌊L/2⌋` rotations for even `N`, in the style `fft` `(N/2) log₂ N`: `2R + N` numbers for each gate, of a
//! real state `R`. `W` is unitary whatever the angles.
//!
//! **Differs from the paper**: the phase stands on the second column of a rotation, as in the program, and not on its
//! first row; the families of matrices are the same. Angles begin within ±π, in the program within ±3.14.

use std::f64::consts::PI;
use std::sync::Arc;

use retrograd_engine::{Tape, Var};
use retrograd_ops::{self as ops, RotationStyle};

use crate::declare::Declare;
use crate::error::{Error, Result};
use crate::init::Init;
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::settings::{OptionDoc, Options};
use crate::table::OperatorEntry;

/// Layers of plane rotations; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eunn {
    /// Which elements are paired.
    pub style: RotationStyle,
    /// Whether the angles stay as they begin.
    pub frozen: bool,
}

impl Default for Eunn {
    fn default() -> Eunn {
        Eunn { style: RotationStyle::Tunable { capacity: 2 }, frozen: false }
    }
}

/// Table entry of [`Eunn`].
pub const EUNN: OperatorEntry = OperatorEntry {
    name: "eunn",
    summary: "layers of plane rotations, unitary for any angles (as published with cells eurnn, goru)",
    options: &[
        OptionDoc { key: "capacity", default: "2", doc: "number of layers in the tunable style, from 1" },
        OptionDoc {
            key: "style",
            default: "tunable",
            doc: "tunable (layers of neighbors) or fft (log2 N layers, for a hidden size that is a power of two)",
        },
        OptionDoc { key: "freeze", default: "false", doc: "keep the angles as they begin; true or false" },
    ],
    build: |options: &Options<'_>| {
        let bad = || options.bad("capacity", "a whole number from 1");
        let capacity = options.count("capacity")?.ok_or_else(bad)?;
        let styles = [("tunable", RotationStyle::Tunable { capacity }), ("fft", RotationStyle::Fft)];
        Ok(Arc::new(Eunn { style: options.choice("style", &styles)?, frozen: options.flag("freeze")? }))
    },
};

impl RecurrentOperator for Eunn {
    fn name(&self) -> &'static str {
        EUNN.name
    }

    fn declare(&self, ctx: &mut Declare<'_>, r: Recurrence<'_>) -> Result<Box<dyn BoundOperator>> {
        if self.style == RotationStyle::Fft && !r.n.is_power_of_two() {
            let below = r.n.checked_ilog2().map(|k| 1 << k);
            let above = r.n.checked_next_power_of_two().unwrap_or(usize::MAX / 2 + 1);
            return Err(Error::PowerOfTwo { hidden: r.n, below, above });
        }
        let count = self.style.count(r.n)?;
        let init = r.init.unwrap_or(Init::Uniform(PI));
        let mut gates = Vec::new();
        for gate in r.gates {
            let mut ctx = ctx.scope(&r.gate_name(gate));
            let theta = ctx.real("theta", &[count], init)?;
            let phases = match r.complex {
                true => Some((ctx.real("phi", &[count], init)?, ctx.real("omega", &[r.n], init)?)),
                false => None,
            };
            gates.push((theta, phases));
        }
        if self.frozen {
            ctx.freeze(r.name);
        }
        Ok(Box::new(BoundEunn { style: self.style, gates }))
    }
}

#[derive(Debug)]
struct BoundEunn {
    style: RotationStyle,
    /// `θ`, and of complex states `φ` and `ω`.
    gates: Vec<(Var, Option<(Var, Var)>)>,
}

impl BoundOperator for BoundEunn {
    fn apply(&self, tape: &mut Tape, h: Var, gate: usize) -> retrograd_engine::Result<Var> {
        let (theta, phases) = self.gates[gate];
        let y = ops::rotations(tape, h, theta, phases.map(|(phi, _)| phi), self.style)?; // eq. (2)
        let Some((_, omega)) = phases else { return Ok(y) };
        let turn = ops::cis(tape, omega)?;
        ops::mul(tape, y, turn) // eq. (1)
    }
}
