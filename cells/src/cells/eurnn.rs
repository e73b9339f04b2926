//! EURNN: efficient unitary recurrent network.
//!
//! Jing, Shen, Dubček, Peurifoy, Skirlo, LeCun, Tegmark, Soljačić, 2017, "Tunable efficient unitary neural networks
//! (EUNN) and their application to RNNs", ICML, arXiv:1612.05231.
//!
//! ```text
//! z_t = W h_{t−1} + U x_t                          (1)  W the operator, here `eunn`
//! h_t = z_t / n · max(n + b, 0),  n = |z_t| + 0.01 (2)  modReLU as in the program
//! o_t = Re h_t                                     (3)  what the read-out and the next layer see
//! ```
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `U` | `[C, H]` complex | uniform ±0.01, each part | input weights |
//! | `W` | the operator's | `recurrent_init`, else the operator's own | recurrent weights |
//! | `b` | `[H]` | 0 | bias of the modulus |
//! | `h` | `[N, H]` complex | 0 or learned | state |
//!
//! With `field=real` states, input weights and rotations are real, and eq. (2) is `sign(z) · max(|z| + 0.01 + b, 0)`.
//!
//! **Differs from the paper**: eq. (2) with its 0.01 and eq. (3) are the program's; the paper has `n = |z|` and says
//! nothing of the read-out. The program's read-out begins uniform on ±√(6/(O + C)) with a bias of 0.01; here it is
//! the model's, Glorot and 0.

use std::sync::Arc;

use retrograd_ops::ModReluForm;

use crate::cell::{BoundCell, Cell, Input};
use crate::cells::rnn::RECURRENT_INIT;
use crate::declare::Declare;
use crate::error::Result;
use crate::init::Init;
use crate::modrelu_rnn::{FORMS, ModReluRnn, Shown};
use crate::operator::RecurrentOperator;
use crate::settings::{OptionDoc, Options};
use crate::table::CellEntry;

/// Efficient unitary recurrent network; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Eurnn {
    /// Whether states are complex.
    pub complex: bool,
    /// Which modReLU.
    pub modrelu: ModReluForm,
    /// Whether the read-out sees imaginary parts too.
    pub both_parts: bool,
    /// How the operator begins; `None` leaves it to the operator.
    pub recurrent_init: Option<Init>,
}

impl Default for Eurnn {
    fn default() -> Eurnn {
        Eurnn { complex: true, modrelu: ModReluForm::Eurnn, both_parts: false, recurrent_init: None }
    }
}

/// Table entry of [`Eurnn`].
pub const EURNN: CellEntry = CellEntry {
    name: "eurnn",
    summary: "efficient unitary recurrent network: modReLU, plane rotations, read-out of real parts",
    operator: "eunn",
    options: &[
        OptionDoc { key: "field", default: "complex", doc: "numbers of the state: complex or real" },
        OptionDoc {
            key: "modrelu",
            default: "eurnn",
            doc: "where modReLU adds a small number: eurnn (0.01, as published), exact, rc-urnn, fc-urnn or lrd",
        },
        OptionDoc {
            key: "read",
            default: "real-part",
            doc: "what the read-out sees of a complex state: real-part (as published) or both-parts",
        },
        RECURRENT_INIT,
    ],
    build: |options: &Options<'_>| {
        Ok(Arc::new(Eurnn {
            complex: options.choice("field", &[("complex", true), ("real", false)])?,
            modrelu: options.choice("modrelu", &FORMS)?,
            both_parts: options.choice("read", &[("real-part", false), ("both-parts", true)])?,
            recurrent_init: options.init("recurrent_init")?,
        }))
    },
};

impl Cell for Eurnn {
    fn name(&self) -> &'static str {
        EURNN.name
    }

    fn declare(
        &self,
        ctx: &mut Declare<'_>,
        input: Input,
        hidden: usize,
        operator: &dyn RecurrentOperator,
    ) -> Result<Box<dyn BoundCell>> {
        let network = ModReluRnn {
            complex: self.complex,
            input_init: Init::Uniform(0.01),
            recurrent_init: self.recurrent_init,
            bias_init: Init::Zeros,
            first_state: Init::Zeros,
            modrelu: self.modrelu, // eq. (2)
            shown: if self.both_parts { Shown::BothParts } else { Shown::RealPart }, // eq. (3)
        };
        network.declare(ctx, input, hidden, operator) // eq. (1)
    }
}
