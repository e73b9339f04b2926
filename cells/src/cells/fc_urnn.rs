//! FC uRNN: full-capacity unitary recurrent network.
//!
//! Wisdom, Powers, Hershey, Le Roux, Atlas, 2016, "Full-capacity unitary recurrent neural networks", NIPS,
//! arXiv:1611.00035.
//!
//! ```text
//! z_t = W h_{t−1} + V x_t                          (1)  complex; W the operator, here any unitary matrix
//! h_t = z_t · max(m + b, 0) / (m + ε)              (2)  modReLU with m = √(|z_t|² + ε)
//! o_t = U [Re h_t; Im h_t] + c                     (3)  the read-out is the model's
//! W ← (I + η/2 A)⁻¹ (I − η/2 A) W                  (9)  the update, A = G Wᴴ − W Gᴴ with the gradient G
//! ```
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `U` | `[C, H]` complex | uniform on ±√(6/(C + 2H)), each part | input weights `V` |
//! | `W` | the operator's | `recurrent_init`, else the operator's own: a random matrix of `rc` | recurrent weights |
//! | `b` | `[H]` | uniform ±0.01 | bias of the modulus |
//! | `h` | `[N, H]` complex | learned: uniform on ±√(3/2H), each part; else 0 | state |
//!
//! With a learned first state it has `2HC + 2H² + H + 2H` numbers and `2HO + O` of the read-out; the authors count `H²`
//! for `W`, the dimension of the unitary group.
//!
//! Eq. (9) is an optimizer's: training makes it on the matrices that the operator says are unitary, with settings
//! `cayley.lr` and `cayley.scaling`.
//!
//! **Differs from the paper**: both ε, 1e-5, are the program's. The first state is learned where the model says so
//! (`learn_h0=true`, as in the published settings).

use std::sync::Arc;

use retrograd_ops::ModReluForm;

use crate::cell::{BoundCell, Cell, Input};
use crate::cells::rnn::RECURRENT_INIT;
use crate::declare::Declare;
use crate::error::Result;
use crate::init::Init;
use crate::modrelu_rnn::{FORMS, ModReluRnn};
use crate::operator::RecurrentOperator;
use crate::settings::{OptionDoc, Options};
use crate::table::CellEntry;

/// Full-capacity unitary recurrent network; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FcUrnn {
    /// Which modReLU.
    pub modrelu: ModReluForm,
    /// How the operator begins; `None` leaves it to the operator.
    pub recurrent_init: Option<Init>,
}

impl Default for FcUrnn {
    fn default() -> FcUrnn {
        FcUrnn { modrelu: ModReluForm::FcUrnn, recurrent_init: None }
    }
}

/// Table entry of [`FcUrnn`].
pub const FC_URNN: CellEntry = CellEntry {
    name: "fc_urnn",
    summary: "unitary recurrent network of full capacity: complex state, modReLU, any unitary matrix",
    operator: "unitary",
    options: &[
        OptionDoc {
            key: "modrelu",
            default: "fc-urnn",
            doc: "where modReLU adds a small number: fc-urnn (1e-5 twice, as published; wants learn_h0=true), exact, \
                  rc-urnn, lrd or eurnn",
        },
        RECURRENT_INIT,
    ],
    build: |options: &Options<'_>| {
        Ok(Arc::new(FcUrnn {
            modrelu: options.choice("modrelu", &FORMS)?,
            recurrent_init: options.init("recurrent_init")?,
        }))
    },
};

impl Cell for FcUrnn {
    fn name(&self) -> &'static str {
        FC_URNN.name
    }

    fn declare(
        &self,
        ctx: &mut Declare<'_>,
        input: Input,
        hidden: usize,
        operator: &dyn RecurrentOperator,
    ) -> Result<Box<dyn BoundCell>> {
        // eq. (1), (2), (3)
        ModReluRnn::urnn(input, hidden, self.recurrent_init, self.modrelu)
            .declare(ctx, input, hidden, operator)
    }
}
