//! Recurrent cells and recurrent operators of retrograd.
#![forbid(unsafe_code)]

pub mod cell;
pub mod declare;
pub mod error;
pub mod init;
pub mod model;
pub mod operator;
pub mod settings;
pub mod table;

pub use cell::{BoundCell, Cell, Input, InputMap, StatePart};
pub use declare::{Declare, ParamStore};
pub use error::{Error, Result};
pub use init::Init;
pub use model::{Layer, Loss, Mode, Model, ModelSpec, Readout, Recorded, StateSlot};
pub use operator::{BoundOperator, Recurrence, RecurrentOperator};
pub use settings::{OptionDoc, Options, Settings};
pub use table::{CellEntry, OperatorEntry, cell, cell_entry, operator, operator_entry};

/// Exports each entry's type and makes the table:
///
/// ```ignore
/// table! { CELLS: CellEntry; rnn::{RNN, Rnn} }
/// // pub use rnn::Rnn;
/// // pub static CELLS: &[&CellEntry] = &[&rnn::RNN];
/// ```
macro_rules! table {
    ($(#[$meta:meta])* $name:ident: $entry:ty; $($file:ident :: $row:ident),+ $(,)?) => {
        $(#[$meta])*
        pub static $name: &[&$entry] = &[$(&$file::$row),+];
    };
}

/// The cells, a file each.
pub mod cells {
    pub mod gru;
    pub mod kru;
    pub mod lstm;
    pub mod rnn;

    pub use gru::Gru;
    pub use kru::Kru;
    pub use lstm::Lstm;
    pub use rnn::Rnn;

    table! {
        /// Every cell.
        CELLS: crate::CellEntry; rnn::RNN, lstm::LSTM, gru::GRU, kru::KRU
    }
}

/// The recurrent operators, a file each.
pub mod operators {
    pub mod dense;
    pub mod kron;

    pub use dense::Dense;
    pub use kron::Kron;

    table! {
        /// Every recurrent operator.
        OPERATORS: crate::OperatorEntry; dense::DENSE, kron::KRON
    }
}

pub use cells::CELLS;
pub use operators::OPERATORS;
