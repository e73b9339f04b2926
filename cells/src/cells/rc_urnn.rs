//! RC uRNN: restricted-capacity unitary recurrent network (the uRNN of the paper; "restricted capacity" is what later
//! papers call it).
//!
//! Arjovsky, Shah, Bengio, 2016, "Unitary evolution recurrent neural networks", ICML, arXiv:1511.06464.
//!
//! ```text
//! z_t = W h_{t−1} + V x_t                          (7)  complex; W the operator, here `rc`
//! h_t = z_t · max(|z_t| + b, 0) / (|z_t| + ε)      (8)  modReLU
//! o_t = U [Re h_t; Im h_t] + c                          the read-out is the model's
//! ```
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `U` | `[C, H]` complex | uniform on ±√(6/(C + 2H)), each part | input weights `V` |
//! | `W` | the operator's | `recurrent_init`, else the operator's own | recurrent weights |
//! | `b` | `[H]` | uniform ±0.01 | bias of the modulus |
//! | `h` | `[N, H]` complex | learned: uniform on ±√(3/2H), each part; else 0 | state |
//!
//! With a learned first state and the operator `rc` it has `2HC + 7H + H + 2H` numbers and `2HO + O` of the read-out.
//!
//! **Differs from the paper**: ε = 1e-5 is the program's, which the paper does not mention. The first state of the
//! program is learned; here it is where the model says so (`learn_h0=true`, as in the published settings). With a first
//! state of zero and a hundred steps of zero input gradients overflow, since the slope of eq. (8) is `b/ε` there.

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

/// Restricted-capacity unitary recurrent network; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RcUrnn {
    /// Which modReLU.
    pub modrelu: ModReluForm,
    /// How the operator begins; `None` leaves it to the operator.
    pub recurrent_init: Option<Init>,
}

impl Default for RcUrnn {
    fn default() -> RcUrnn {
        RcUrnn { modrelu: ModReluForm::RcUrnn, recurrent_init: None }
    }
}

/// Table entry of [`RcUrnn`].
pub const RC_URNN: CellEntry = CellEntry {
    name: "rc_urnn",
    summary: "unitary recurrent network of restricted capacity: complex state, modReLU",
    operator: "rc",
    options: &[
        OptionDoc {
            key: "modrelu",
            default: "rc-urnn",
            doc: "where modReLU adds a small number: rc-urnn (1e-5, as published; wants learn_h0=true), exact, \
                  fc-urnn, lrd or eurnn",
        },
        RECURRENT_INIT,
    ],
    build: |options: &Options<'_>| {
        Ok(Arc::new(RcUrnn {
            modrelu: options.choice("modrelu", &FORMS)?,
            recurrent_init: options.init("recurrent_init")?,
        }))
    },
};

impl Cell for RcUrnn {
    fn name(&self) -> &'static str {
        RC_URNN.name
    }

    fn declare(
        &self,
        ctx: &mut Declare<'_>,
        input: Input,
        hidden: usize,
        operator: &dyn RecurrentOperator,
    ) -> Result<Box<dyn BoundCell>> {
        // eq. (7), (8)
        ModReluRnn::urnn(input, hidden, self.recurrent_init, self.modrelu)
            .declare(ctx, input, hidden, operator)
    }
}
