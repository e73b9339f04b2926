//! Recurrent cells and recurrent operators of retrograd: the product *cell × operator × initialization*.
//!
//! A [`Cell`] says what happens in one step; a [`RecurrentOperator`] says what its recurrent matrices are; an [`Init`]
//! says how they begin. Every cell runs on every operator, so `lstm` on `kron` is the KRU-LSTM. A [`Model`] stacks
//! layers, reads out and compares with targets, and records all of it on a tape to be differentiated and planned.
//!
//! ```
//! use retrograd_cells::{Input, Layer, Loss, Model, ModelSpec, Readout, Settings, cell, operator};
//! let layer = Layer {
//!     cell: cell("lstm", &Settings::new())?,
//!     operator: operator("kron", &Settings::new().with("factors", "2x5"))?,
//!     hidden: 10,
//! };
//! let spec = ModelSpec::new(Input::Dense(3), vec![layer], Readout::Last, 1, Loss::SquaredError);
//! let mut model = Model::new(spec)?.record(1)?;
//! let wrt = model.trainable_vars();
//! let gradients = retrograd_engine::grad(&mut model.tape, model.loss, &wrt)?;
//! assert_eq!(gradients.len(), 2 * 4 + 4);
//! assert_eq!(model.input_names(), ["x", "target"]);
//! # Ok::<(), retrograd_cells::Error>(())
//! ```
//!
//! # How to add a cell
//!
//! A cell outside this crate is as good as one inside: implement [`Cell`], which declares parameters, and
//! [`BoundCell`], whose `step` is plain operations on the tape. Inside this crate that is one file in `src/cells`,
//! its `mod` line and its row in the table below; programs, benches and tests then know it by name.
//!
//! ```
//! use std::sync::Arc;
//! use retrograd_cells::*;
//! use retrograd_engine::{Tape, Var};
//! use retrograd_ops as ops;
//!
//! /// Minimal gated unit with a trace of what it has seen: a state of two parts.
//! #[derive(Debug)]
//! struct Traced;
//!
//! #[derive(Debug)]
//! struct BoundTraced { u: InputMap, w: Box<dyn BoundOperator>, n: usize }
//!
//! impl Cell for Traced {
//!     fn name(&self) -> &'static str { "traced" }
//!     fn declare(&self, ctx: &mut Declare<'_>, input: Input, n: usize, operator: &dyn RecurrentOperator)
//!         -> Result<Box<dyn BoundCell>>
//!     {
//!         let u = InputMap::declare(ctx, input, 2, n, false, Init::Glorot)?;
//!         let b = ctx.real("b", &[2 * n], Init::Zeros)?;
//!         let w = Recurrence { name: "W", gates: &["f", "n"], n, complex: false, init: None };
//!         let w = operator.declare(ctx, w)?;
//!         Ok(Box::new(BoundTraced { u: u.with_bias(b), w, n }))
//!     }
//! }
//!
//! impl BoundCell for BoundTraced {
//!     fn state(&self) -> Vec<StatePart> {
//!         ["h", "m"].map(|name| StatePart { name, width: self.n, complex: false }).to_vec()
//!     }
//!     fn step(&self, tape: &mut Tape, state: &[Var], x: Var) -> retrograd_engine::Result<Vec<Var>> {
//!         let (h, m) = (state[0], state[1]);
//!         let ux = self.u.apply(tape, x)?;
//!         let wh = self.w.apply_all(tape, h, 0..2)?;
//!         let f = ops::add(tape, wh[0], ux[0])?;
//!         let f = ops::sigmoid(tape, f)?;         // f = σ(W_f h + U_f x + b_f)
//!         let n = ops::add(tape, wh[1], ux[1])?;
//!         let n = ops::tanh(tape, n)?;            // n = tanh(W_n h + U_n x + b_n)
//!         let step = ops::sub(tape, n, m)?;
//!         let step = ops::mul(tape, f, step)?;
//!         let m = ops::add(tape, m, step)?;       // m' = m + f ⊙ (n − m)
//!         let h = ops::tanh(tape, m)?;            // h' = tanh(m')
//!         Ok(vec![h, m])
//!     }
//! }
//!
//! let layer = Layer { cell: Arc::new(Traced), operator: operator("kron", &Settings::new())?, hidden: 6 };
//! let spec = ModelSpec::new(Input::Symbols(9), vec![layer], Readout::EveryStep, 4, Loss::SoftmaxCrossEntropy);
//! let model = Model::new(spec)?.record(1)?;
//! let names: Vec<&str> = model.params.names().collect();
//! assert_eq!(names[..4], ["layer0.U", "layer0.b", "layer0.W.f.0", "layer0.W.f.1"]);
//! assert_eq!(model.states.len(), 2);
//! # Ok::<(), Error>(())
//! ```
//!
//! # How to add an operator
//!
//! Implement [`RecurrentOperator`], which declares one map for each gate, and [`BoundOperator`], which applies one.
//! Inside this crate that is one file in `src/operators`, its `mod` line and its row in the table.
//!
//! ```
//! use std::sync::Arc;
//! use retrograd_cells::*;
//! use retrograd_engine::{Tape, Var};
//!
//! /// `W = diag(d)`.
//! #[derive(Debug)]
//! struct Diagonal;
//!
//! #[derive(Debug)]
//! struct BoundDiagonal(Vec<Var>);
//!
//! impl RecurrentOperator for Diagonal {
//!     fn name(&self) -> &'static str { "diagonal" }
//!     fn declare(&self, ctx: &mut Declare<'_>, r: Recurrence<'_>) -> Result<Box<dyn BoundOperator>> {
//!         let init = r.init.unwrap_or(Init::Constant(0.9));
//!         let mut gates = Vec::new();
//!         for gate in r.gates {
//!             let (mut ctx, name) = (ctx.scope(r.name), format!("{gate}d"));
//!             gates.push(if r.complex { ctx.complex(&name, &[r.n], init)? } else { ctx.real(&name, &[r.n], init)? });
//!         }
//!         Ok(Box::new(BoundDiagonal(gates)))
//!     }
//! }
//!
//! impl BoundOperator for BoundDiagonal {
//!     fn apply(&self, tape: &mut Tape, h: Var, gate: usize) -> retrograd_engine::Result<Var> {
//!         retrograd_ops::mul(tape, h, self.0[gate])
//!     }
//! }
//!
//! for entry in CELLS {
//!     let layer = Layer { cell: entry.make(&Settings::new())?, operator: Arc::new(Diagonal), hidden: 8 };
//!     let spec = ModelSpec::new(Input::Dense(2), vec![layer], Readout::Last, 1, Loss::SquaredError);
//!     Model::new(spec)?.record(1)?;
//! }
//! # Ok::<(), Error>(())
//! ```
#![forbid(unsafe_code)]

pub mod cell;
pub mod declare;
pub mod error;
pub mod init;
mod low_rank;
mod masked;
pub mod model;
mod modrelu_rnn;
pub mod networks;
pub mod operator;
mod reflections;
pub mod settings;
pub mod table;

pub use cell::{BoundCell, Cell, Input, InputMap, StatePart, UNCONVERGED};
pub use declare::{Declare, ParamStore};
pub use error::{Error, Result};
pub use init::Init;
pub use model::{Layer, Loss, Mode, Model, ModelSpec, Probe, Readout, Recorded, StateSlot};
pub use networks::{NETWORKS, Network, network};
pub use operator::{BoundOperator, Recurrence, RecurrentOperator};
pub use settings::{OptionDoc, Options, Settings};
pub use table::{CellEntry, OperatorEntry, cell, cell_entry, combinations, operator, operator_entry};

/// The table of a folder: one row for each file.
///
/// ```ignore
/// table! { CELLS: crate::CellEntry; rnn::RNN, lstm::LSTM }
/// // expands to
/// //   pub static CELLS: &[&crate::CellEntry] = &[&rnn::RNN, &lstm::LSTM];
/// ```
macro_rules! table {
    ($(#[$meta:meta])* $name:ident: $entry:ty; $($file:ident :: $row:ident),+ $(,)?) => {
        $(#[$meta])*
        pub static $name: &[&$entry] = &[$(&$file::$row),+];
    };
}

/// The cells, a file each.
pub mod cells {
    pub mod antisymmetric_rnn;
    pub mod eurnn;
    pub mod fastgrnn;
    pub mod fastrnn;
    pub mod fc_urnn;
    pub mod goru;
    pub mod gru;
    pub mod irnn;
    pub mod janet;
    pub mod kru;
    pub mod lstm;
    pub mod nru;
    pub mod rc_urnn;
    pub mod rnn;
    pub mod sru;
    pub mod ugrnn;
    pub mod unicornn;

    pub use antisymmetric_rnn::AntisymmetricRnn;
    pub use eurnn::Eurnn;
    pub use fastgrnn::FastGrnn;
    pub use fastrnn::FastRnn;
    pub use fc_urnn::FcUrnn;
    pub use goru::Goru;
    pub use gru::Gru;
    pub use irnn::Irnn;
    pub use janet::Janet;
    pub use kru::Kru;
    pub use lstm::Lstm;
    pub use nru::Nru;
    pub use rc_urnn::RcUrnn;
    pub use rnn::Rnn;
    pub use sru::Sru;
    pub use ugrnn::Ugrnn;
    pub use unicornn::Unicornn;

    table! {
        /// Every cell.
        CELLS: crate::CellEntry;
        rnn::RNN, lstm::LSTM, gru::GRU, kru::KRU, irnn::IRNN, nru::NRU, janet::JANET, ugrnn::UGRNN,
        fastrnn::FASTRNN, fastgrnn::FASTGRNN, antisymmetric_rnn::ANTISYMMETRIC_RNN, sru::SRU, rc_urnn::RC_URNN,
        fc_urnn::FC_URNN, eurnn::EURNN, goru::GORU, unicornn::UNICORNN
    }
}

/// The recurrent operators, a file each.
pub mod operators {
    pub mod antisymmetric;
    pub mod block_diagonal;
    pub mod dense;
    pub mod diagonal;
    pub mod eunn;
    pub mod householder;
    pub mod ivh;
    pub mod kron;
    pub mod lr;
    pub mod lrd;
    pub mod rc;
    pub mod svd;
    pub mod unitary;

    pub use antisymmetric::Antisymmetric;
    pub use block_diagonal::BlockDiagonal;
    pub use dense::Dense;
    pub use diagonal::Diagonal;
    pub use eunn::Eunn;
    pub use householder::Householder;
    pub use ivh::Ivh;
    pub use kron::Kron;
    pub use lr::Lr;
    pub use lrd::Lrd;
    pub use rc::Rc;
    pub use svd::Svd;
    pub use unitary::Unitary;

    table! {
        /// Every recurrent operator.
        OPERATORS: crate::OperatorEntry;
        dense::DENSE, kron::KRON, lr::LR, lrd::LRD, ivh::IVH, diagonal::DIAGONAL, block_diagonal::BLOCK_DIAGONAL,
        antisymmetric::ANTISYMMETRIC, householder::HOUSEHOLDER, svd::SVD, rc::RC, unitary::UNITARY, eunn::EUNN
    }
}

pub use cells::CELLS;
pub use operators::OPERATORS;
