//! Which parameters a penalty, a constraint or an exception applies to.

use std::sync::Arc;

use retrograd_engine::Params;

use crate::error::{Error, Result};

/// A selection of parameters by name: patterns with `*` for any text, or a predicate.
///
/// ```
/// use retrograd_optim::Select;
/// let factors = Select::patterns("*.W, readout/*");
/// assert!(factors.contains("cell.W") && factors.contains("readout/V") && !factors.contains("cell.Wx"));
/// let recurrent = Select::predicate("recurrent", |name| name.ends_with("recurrent"));
/// assert!(recurrent.contains("gru.recurrent"));
/// ```
#[derive(Clone)]
pub struct Select {
    text: String,
    predicate: Option<Arc<dyn Fn(&str) -> bool + Send + Sync>>,
}

impl Select {
    /// Every parameter.
    pub fn all() -> Select {
        Select::patterns("*")
    }

    /// Names that match one of the comma-separated patterns; `*` stands for any text, empty text for nothing.
    pub fn patterns(text: impl Into<String>) -> Select {
        Select { text: text.into(), predicate: None }
    }

    /// Names for which `predicate` holds; `text` describes them in messages.
    pub fn predicate(
        text: impl Into<String>,
        predicate: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Select {
        Select { text: text.into(), predicate: Some(Arc::new(predicate)) }
    }

    /// Whether `name` is selected.
    pub fn contains(&self, name: &str) -> bool {
        match &self.predicate {
            Some(predicate) => predicate(name),
            None => self.text.split(',').any(|pattern| matches(pattern.trim(), name)),
        }
    }

    /// The patterns, or the description of the predicate.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The names of `params` that are selected. Errors: none is.
    pub fn names(&self, owner: &'static str, params: &Params) -> Result<Vec<String>> {
        let names: Vec<_> = params.names().filter(|n| self.contains(n)).map(String::from).collect();
        if names.is_empty() {
            let known = params.names().collect::<Vec<_>>().join(", ");
            return Err(Error::NoMatch { owner, pattern: self.text.clone(), known });
        }
        Ok(names)
    }
}

impl std::fmt::Debug for Select {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Select({:?})", self.text)
    }
}

/// Whether `name` matches `pattern`: the pieces between the stars in order, the first and last anchored.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut pieces: Vec<_> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        match name.find(piece) {
            Some(at) => name = &name[at + piece.len()..],
            None => return false,
        }
    }
    name.len() >= last.len() && name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        let rows = [
            ("", "a", false),
            ("*", "", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("a*a", "a", false),
            ("a*b*c", "a..b..c", true),
            ("a*b*c", "a..c..b", false),
            ("*ab", "aab", true),
        ];
        for (pattern, name, expected) in rows {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
