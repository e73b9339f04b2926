//! KRU: Kronecker recurrent unit.
//!
//! Jose, Cisse, Fleuret, 2017, "Kronecker Recurrent Units", arXiv:1705.10142. modReLU is that of Arjovsky, Shah, Bengio,
//! 2016, "Unitary evolution recurrent neural networks", ICML.
//!
//! ```text
//! z_t = W h_{t−1} + U x_t                      (1)  complex; W = W_0 ⊗ … ⊗ W_{F−1}
//! h_t = z_t · max(|z_t| + b, 0) / (|z_t| + ε)  (2)  modReLU, real b inside the modulus; ε by its form
//! o_t = [Re h_t; Im h_t]                       (3)  what the read-out V and the next layer see
//! ```
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `U` | `[C, H]` complex | Glorot on each part | input weights |
//! | `W` | the operator's, complex | `recurrent_init`, else Haar unitary | recurrent weights |
//! | `b` | `[H]` | uniform ±0.01 | bias of the modulus |
//! | `h` | `[N, H]` complex | 0 or learned | state |
//!
//! **Differs from the paper**: the paper writes `σ(W h + U x + b)` and cites Arjovsky et al. for σ; its parameter
//! counts fit a real `b` inside the modulus, and so it is here. It gives no ε, and the default has none: with the 1e-5
//! of Arjovsky et al., whose first state is not zero, a zero state stays zero while the input is zero (blank pixels,
//! silence) and the slope there is `b/ε`, up to 1000 for every such step, so gradients overflow. The paper gives no
//! initialization but that of `W` for the copy task. A complex read-out of a real target is a real map of eq. (3).

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

/// Kronecker recurrent unit; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kru {
    /// Which modReLU.
    pub modrelu: ModReluForm,
    /// How the recurrent factors begin; `None` leaves it to the operator.
    pub recurrent_init: Option<Init>,
}

impl Default for Kru {
    fn default() -> Kru {
        Kru { modrelu: ModReluForm::Exact, recurrent_init: None }
    }
}

/// Table entry of [`Kru`].
pub const KRU: CellEntry = CellEntry {
    name: "kru",
    summary: "Kronecker recurrent unit: complex state, modReLU, recurrent matrix as a Kronecker product",
    operator: "kron",
    options: &[
        OptionDoc {
            key: "modrelu",
            default: "exact",
            doc: "where modReLU adds a small number, as in published programs: exact (nowhere), rc-urnn (1e-5), \
                  fc-urnn, lrd or eurnn; these overflow after a hundred steps of zero input from a zero state",
        },
        RECURRENT_INIT,
    ],
    build: |options: &Options<'_>| {
        Ok(Arc::new(Kru {
            modrelu: options.choice("modrelu", &FORMS)?,
            recurrent_init: options.init("recurrent_init")?,
        }))
    },
};

impl Cell for Kru {
    fn name(&self) -> &'static str {
        KRU.name
    }

    fn declare(
        &self,
        ctx: &mut Declare<'_>,
        input: Input,
        hidden: usize,
        operator: &dyn RecurrentOperator,
    ) -> Result<Box<dyn BoundCell>> {
        let network = ModReluRnn {
            complex: true,
            input_init: Init::Glorot,
            recurrent_init: self.recurrent_init,
            bias_init: Init::Uniform(0.01),
            first_state: Init::Zeros,
            modrelu: self.modrelu,   // eq. (2)
            shown: Shown::BothParts, // eq. (3)
        };
        network.declare(ctx, input, hidden, operator) // eq. (1)
    }
}
