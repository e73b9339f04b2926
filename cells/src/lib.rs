//! Recurrent cells and recurrent operators of retrograd.
