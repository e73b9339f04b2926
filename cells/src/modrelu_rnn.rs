//! What the unitary networks have in common: `h_t = modReLU(W h_{t−1} + U x_t; b)` for any recurrent operator.

use retrograd_engine::core_ops::concat;
use retrograd_engine::{Tape, Var};
use retrograd_ops::{self as ops, ModReluForm};

use crate::cell::{BoundCell, Input, InputMap, StatePart};
use crate::declare::Declare;
use crate::error::Result;
use crate::init::Init;
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};

/// Values of the option for the modReLU: the forms a complex number has.
pub(crate) const FORMS: [(&str, ModReluForm); 5] = [
    ("exact", ModReluForm::Exact),
    ("rc-urnn", ModReluForm::RcUrnn),
    ("fc-urnn", ModReluForm::FcUrnn),
    ("lrd", ModReluForm::Lrd),
    ("eurnn", ModReluForm::Eurnn),
];

/// What the read-out and the next layer see of a complex state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// `[Re h; Im h]`.
    BothParts,
    /// `Re h`.
    RealPart,
}

/// A network before it has a size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ModReluRnn {
    /// Whether the state is complex.
    pub(crate) complex: bool,
    /// How `U` begins.
    pub(crate) input_init: Init,
    /// How the operator begins; `None` leaves it to the operator.
    pub(crate) recurrent_init: Option<Init>,
    /// How `b` begins.
    pub(crate) bias_init: Init,
    /// How a learned first state begins.
    pub(crate) first_state: Init,
    /// Which modReLU.
    pub(crate) modrelu: ModReluForm,
    /// What others see.
    pub(crate) shown: Shown,
}

impl ModReluRnn {
    /// As the programs of the RC and the FC uRNN begin: `U` Glorot uniform as a real matrix `[C, 2H]`.
    pub(crate) fn urnn(
        input: Input,
        hidden: usize,
        recurrent_init: Option<Init>,
        modrelu: ModReluForm,
    ) -> ModReluRnn {
        ModReluRnn {
            complex: true,
            input_init: Init::Uniform((6.0 / (input.size() + 2 * hidden) as f64).sqrt()),
            recurrent_init,
            bias_init: Init::Uniform(0.01),
            first_state: Init::Uniform((3.0 / (2 * hidden) as f64).sqrt()),
            modrelu,
            shown: Shown::BothParts,
        }
    }

    /// Declares `U [C, H]`, the operator as `W`, and `b [H]`.
    pub(crate) fn declare(
        self,
        ctx: &mut Declare<'_>,
        input: Input,
        hidden: usize,
        operator: &dyn RecurrentOperator,
    ) -> Result<Box<dyn BoundCell>> {
        let u = InputMap::declare(ctx, input, 1, hidden, self.complex, self.input_init)?;
        let (complex, init) = (self.complex, self.recurrent_init);
        let w = Recurrence { name: "W", gates: &[""], n: hidden, complex, init };
        let w = operator.declare(ctx, w)?;
        let b = ctx.real("b", &[hidden], self.bias_init)?;
        Ok(Box::new(Bound { of: self, u, w, b, hidden }))
    }
}

#[derive(Debug)]
struct Bound {
    of: ModReluRnn,
    u: InputMap,
    w: Box<dyn BoundOperator>,
    b: Var,
    hidden: usize,
}

impl BoundCell for Bound {
    fn state(&self) -> Vec<StatePart> {
        vec![StatePart { name: "h", width: self.hidden, complex: self.of.complex }]
    }

    fn step(&self, tape: &mut Tape, state: &[Var], x: Var) -> retrograd_engine::Result<Vec<Var>> {
        let h = state[0];
        let ux = self.u.apply(tape, x)?[0];
        let wh = self.w.apply(tape, h, 0)?;
        let z = ops::add(tape, wh, ux)?; // z = W h + U x
        let h = ops::modrelu(tape, z, self.b, self.of.modrelu)?; // h' = modReLU(z; b)
        Ok(vec![h])
    }

    fn output(&self, tape: &mut Tape, state: &[Var]) -> retrograd_engine::Result<Var> {
        if !self.of.complex {
            return Ok(state[0]);
        }
        let re = ops::real(tape, state[0])?;
        if self.of.shown == Shown::RealPart {
            return Ok(re);
        }
        let im = ops::imag(tape, state[0])?;
        concat(tape, &[re, im], 0)
    }

    fn output_width(&self) -> usize {
        let parts = if self.of.complex && self.of.shown == Shown::BothParts { 2 } else { 1 };
        parts * self.hidden
    }

    fn first_state(&self) -> Init {
        self.of.first_state
    }
}
