//! The optim crate of retrograd.
