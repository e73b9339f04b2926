//! Errors of this crate.

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. Every variant names the culprit and, where two values disagree, both.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Access to a tensor failed.
    #[error(transparent)]
    Engine(#[from] retrograd_engine::Error),
    /// A name that is in no table.
    #[error("unknown {kind} `{got}`{}; known: {known}", hint(.nearest))]
    UnknownName {
        /// `optimizer`, `schedule`, `penalty`, `constraint`, ...
        kind: &'static str,
        /// Name that came.
        got: String,
        /// Nearest known name, if one is near.
        nearest: Option<String>,
        /// All known names.
        known: String,
    },
    /// A setting that its owner does not have.
    #[error("{owner}: unknown setting `{key}`{}; known: {known}", hint(.nearest))]
    UnknownKey {
        /// What is being built.
        owner: &'static str,
        /// Key that came.
        key: String,
        /// Nearest known key, if one is near.
        nearest: Option<String>,
        /// All known keys.
        known: String,
    },
    /// A setting whose value does not fit.
    #[error("{owner}: setting `{key}`, expected {expected}, got `{got}`")]
    Value {
        /// What is being built.
        owner: &'static str,
        /// Key.
        key: String,
        /// What would fit.
        expected: String,
        /// Value that came.
        got: String,
    },
    /// Text that is not `key=value`.
    #[error("settings: expected key=value, got `{got}`")]
    Syntax {
        /// Text that came.
        got: String,
    },
    /// A tensor of the wrong type or sizes.
    #[error("{what}: expected {expected}, got {got}")]
    Mismatch {
        /// Which tensor.
        what: String,
        /// Type and sizes that would fit.
        expected: String,
        /// Type and sizes that came.
        got: String,
    },
    /// A tensor that should be there.
    #[error("{what} is not there")]
    Missing {
        /// Which tensor.
        what: String,
    },
    /// A tensor that belongs to nothing.
    #[error("{what} belongs to no parameter")]
    Unexpected {
        /// Which tensor.
        what: String,
    },
    /// A network that could not answer what an optimiser asked about its curvature.
    #[error("curvature: {what}")]
    Curvature {
        /// Why.
        what: String,
    },
    /// A gradient that is NaN or infinite, under the policy that stops.
    #[error("gradient of `{name}` is not finite: element {index} is {value}")]
    NotFinite {
        /// Parameter.
        name: String,
        /// First bad element, in memory order.
        index: usize,
        /// Its value.
        value: String,
    },
    /// A selection of parameters that selects none.
    #[error("{owner}: no parameter matches `{pattern}`; parameters: {known}")]
    NoMatch {
        /// Penalty or constraint.
        owner: &'static str,
        /// The selection.
        pattern: String,
        /// Names of all parameters.
        known: String,
    },
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|n| format!(", did you mean `{n}`?")).unwrap_or_default()
}

/// The known name that `got` begins, or else the nearest one, if it is near enough to be a slip of the pen.
pub(crate) fn nearest<'a>(got: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    let got = got.to_ascii_lowercase();
    if let Some(longer) = known.clone().into_iter().find(|k| k.to_ascii_lowercase().starts_with(&got)) {
        return Some(longer.to_string());
    }
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&got, &k.to_ascii_lowercase()), k))
        .min_by_key(|&(distance, _)| distance)
        .filter(|&(distance, k)| distance <= 1 + k.len().min(got.len()) / 3)
        .map(|(_, k)| k.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_offered_and_far_ones_are_not() {
        let known = ["sgd", "rmsprop", "adam", "adamw"];
        assert_eq!(nearest("amad", known).as_deref(), Some("adam"));
        assert_eq!(nearest("RMSprob", known).as_deref(), Some("rmsprop"));
        assert_eq!(nearest("", []), None);
        assert_eq!(nearest("rms", known).as_deref(), Some("rmsprop"));
        assert_eq!(nearest("levenberg", known), None);
    }
}
