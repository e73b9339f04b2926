//! The cuda crate of retrograd.
