//! Householder recurrence: orthogonal matrices as products of reflections.
//!
//! Mhammedi, Hellicar, Rahman, Bailey, 2017, "Efficient orthogonal parametrisation of recurrent neural networks using
//! Householder reflections", ICML, arXiv:1612.00188; with the cell `rnn`, `activation=leaky_relu` and a learned first
//! state it is the oRNN. Letters of the paper: number of reflections `m`.
//!
//! ```text
//! W_g = H(u_1) ⋯ H(u_m),   H(u) = I − 2 u uᵀ / ‖u‖²                                         (1)  uᴴ if complex
//! W_g h = h − U T⁻¹ Uᵀ h,   T = strictly upper part of Uᵀ U, plus half of its diagonal      (2)
//! ```
//!
//! `u_j` is zero above entry `j`. With `m = N` every orthogonal matrix (of one determinant) is such a product.
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `W.U` | `[N, G·m]` | the cell's, else normal; above the diagonal 0, columns of length 1 | columns `u_j` of the gates, in the cell's order |
//!
//! `G·(N·m − m·(m−1)/2)` numbers; what is above the diagonal is stored and stays 0.
//!
//! `W_g` does not depend on the lengths of the `u_j`, and is orthogonal for any. The paper sets them to 1 after every
//! update, which changes how far the next one turns them; that is the constraint `unit-norm` (`along=column`,
//! `params=*.W.U`).
//!
//! **Differs from the paper**: the projection is a constraint of its own, see above. With `m = N` the paper's last
//! reflection is a sign that is chosen; here it is −1. Complex states (then unitary) and more than one gate are ours.

use std::sync::Arc;

use crate::declare::Declare;
use crate::error::Result;
use crate::init::Init;
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::operators::ivh::BoundIvh;
use crate::reflections::{self, REFLECTIONS, reflections_option};
use crate::settings::{OptionDoc, Options};
use crate::table::OperatorEntry;

/// Products of Householder reflections; see the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Householder {
    /// Number of reflections `m`; `None` takes a quarter of the hidden size, at least 1.
    pub reflections: Option<usize>,
    /// Whether the reflections stay as they begin.
    pub frozen: bool,
}

/// Table entry of [`Householder`].
pub const HOUSEHOLDER: OperatorEntry = OperatorEntry {
    name: "householder",
    summary: "orthogonal (unitary) products of Householder reflections: about N·reflections numbers (oRNN with cell rnn)",
    options: &[
        REFLECTIONS,
        OptionDoc {
            key: "freeze",
            default: "false",
            doc: "keep the reflections as they begin; true or false",
        },
    ],
    build: |options: &Options<'_>| {
        Ok(Arc::new(Householder {
            reflections: reflections_option(options)?,
            frozen: options.flag("freeze")?,
        }))
    },
};

impl RecurrentOperator for Householder {
    fn name(&self) -> &'static str {
        HOUSEHOLDER.name
    }

    fn declare(&self, ctx: &mut Declare<'_>, r: Recurrence<'_>) -> Result<Box<dyn BoundOperator>> {
        let count = reflections::reflections(HOUSEHOLDER.name, self.reflections, r.n)?;
        let init = r.init.unwrap_or(Init::Normal(0.01));
        let u = reflections::declare(&mut ctx.scope(r.name), "U", &r, count, init)?;
        if self.frozen {
            ctx.freeze(r.name);
        }
        let thin = reflections::thin(ctx.tape(), u, &r, count, false)?;
        Ok(Box::new(BoundIvh(thin))) // eq. (2)
    }
}
