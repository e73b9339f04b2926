//! Named tensors in declaration order: parameters, gradients, optimiser state.

use indexmap::IndexMap;

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Tensors by name, visited in the order they were declared. Names are the keys of gradients, optimiser state
/// and files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params(IndexMap<String, Tensor>);

impl Params {
    /// No tensors.
    pub fn new() -> Params {
        Params::default()
    }

    /// Adds a tensor, or replaces the one of that name in its place.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.0.insert(name.into(), tensor);
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// The tensor of that name, mutable.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Tensor> {
        self.0.get_mut(name)
    }

    /// The tensor of that name, or an error that names it.
    pub fn require(&self, name: &str) -> Result<&Tensor> {
        self.get(name).ok_or_else(|| Error::Binding { name: name.into(), what: "not there".into() })
    }

    /// Removes and returns the tensor of that name, keeping the order of the others.
    pub fn remove(&mut self, name: &str) -> Option<Tensor> {
        self.0.shift_remove(name)
    }

    /// Names and tensors in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// Names and tensors in order, mutable.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&str, &mut Tensor)> {
        self.0.iter_mut().map(|(k, v)| (k.as_str(), v))
    }

    /// Names in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of real numbers in all tensors (a complex element counts 2).
    pub fn real_count(&self) -> usize {
        self.0.values().map(|t| t.len() * t.dtype().planes()).sum()
    }
}

impl FromIterator<(String, Tensor)> for Params {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(iter: I) -> Params {
        Params(iter.into_iter().collect())
    }
}

impl IntoIterator for Params {
    type Item = (String, Tensor);
    type IntoIter = indexmap::map::IntoIter<String, Tensor>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
