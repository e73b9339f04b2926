//! Differentiable operations of retrograd.
