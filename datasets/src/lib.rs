//! The datasets crate of retrograd.
