//! Replay on the CPU.
//!
//! Every thread takes tiles of rows and runs the whole sequence for them, with no synchronisation until the end.
//! Where rows are few and the matrix of a step is larger than a cache, they share the calls of one tile, as a team.
//! Within a tile time goes by in chunks: the batched stages of a step run over all rows and steps of a chunk in
//! one call, the loops step by step. The order of every sum is fixed by the problem (tiles by the number of rows,
//! chunks by the rows of a tile), so neither threads nor budgets nor schedules change a bit of a result.

mod call;
mod drift;
mod frame;
mod scan;
mod team;

pub(crate) use call::{Context, Span, run_call};
pub(crate) use drift::Drifts;
pub(crate) use frame::{Arena, Frame, Loc};
pub(crate) use scan::{Piece, ScanRun, run_piece, run_scan};
