//! Errors of the cells crate.

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong when a model is described and recorded. Every variant names the culprit.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that is in no table.
    #[error("unknown {kind} `{name}`; {}", suggestion(.nearest, .known))]
    UnknownName {
        /// `cell`, `operator`, ...
        kind: &'static str,
        /// Name that came.
        name: String,
        /// Known name closest to it, if any is close.
        nearest: Option<String>,
        /// All known names.
        known: Vec<String>,
    },
    /// A setting the owner does not have.
    #[error("{owner}: unknown setting `{key}`; {}", suggestion(.nearest, .known))]
    UnknownKey {
        /// Cell or operator.
        owner: String,
        /// Key that came.
        key: String,
        /// Known key closest to it, if any is close.
        nearest: Option<String>,
        /// All known keys.
        known: Vec<String>,
    },
    /// A setting whose value does not fit.
    #[error("{owner}: setting `{key}` = `{value}`, expected {expected}")]
    Value {
        /// Cell or operator.
        owner: String,
        /// Key.
        key: String,
        /// Value that came.
        value: String,
        /// What would fit, in words.
        expected: String,
    },
    /// Kronecker factors whose sizes do not multiply to the hidden size.
    #[error(
        "kron: factors {factors} multiply to {product}, hidden size is {hidden}; \
         use hidden size {nearest}, or factors={prime}"
    )]
    Factors {
        /// Factors asked for, as `2x3x5`.
        factors: String,
        /// Their product.
        product: usize,
        /// Hidden size asked for.
        hidden: usize,
        /// Hidden sizes closest to the one asked for that these factors reach by repeating or dropping the last.
        nearest: String,
        /// Prime factors of the hidden size.
        prime: String,
    },
    /// A low-rank product whose rank is above the hidden size.
    #[error("{operator}: rank {rank}, at most the hidden size {hidden}")]
    Rank {
        /// Operator.
        operator: &'static str,
        /// Rank asked for.
        rank: usize,
        /// Hidden size asked for.
        hidden: usize,
    },
    /// An operator on complex states in a cell whose state is real.
    #[error("{operator}: needs a complex state, the cell's is real")]
    Field {
        /// Operator.
        operator: &'static str,
    },
    /// Rotations in the FFT style of a size that is no power of two.
    #[error(
        "eunn: rotations in the FFT style pair off a power of two, hidden size is {hidden}; use hidden size {}, or \
         style=tunable",
        either(.below, .above)
    )]
    PowerOfTwo {
        /// Hidden size asked for.
        hidden: usize,
        /// The nearest smaller power of two, if there is one.
        below: Option<usize>,
        /// The nearest larger one.
        above: usize,
    },
    /// A memory that the heads of an NRU cannot divide.
    #[error(
        "nru: {heads} heads times a memory of {memory} is {}, not a square; use memory {}",
        heads.saturating_mul(*memory),
        either(.below, .above)
    )]
    Memory {
        /// Number of heads.
        heads: usize,
        /// Size of the memory asked for.
        memory: usize,
        /// The nearest smaller size that fits, if there is one.
        below: Option<usize>,
        /// The nearest larger size that fits.
        above: usize,
    },
    /// A model description that contradicts itself or is out of range.
    #[error("model: {what}")]
    Model {
        /// What is wrong, with both values.
        what: String,
    },
    /// Recording failed.
    #[error(transparent)]
    Engine(#[from] retrograd_engine::Error),
}

impl Error {
    /// Shorthand for [`Error::Model`].
    pub fn model(what: impl Into<String>) -> Error {
        Error::Model { what: what.into() }
    }
}

fn either(below: &Option<usize>, above: &usize) -> String {
    below.map_or_else(|| above.to_string(), |below| format!("{below} or {above}"))
}

fn suggestion(nearest: &Option<String>, known: &[String]) -> String {
    match (nearest, known) {
        (Some(name), _) => format!("did you mean `{name}`?"),
        (None, []) => "there are none".into(),
        (None, known) => format!("known: {}", known.join(", ")),
    }
}

/// The known name closest to `name`, if a third of its letters or more are right.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let distance = |k: &str| strsim::damerau_levenshtein(&name.to_lowercase(), k);
    let best = known.map(|k| (distance(k), k)).min()?;
    let longest = name.chars().count().max(best.1.chars().count());
    (3 * best.0 <= 2 * longest && best.0 < longest).then(|| best.1.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions() {
        let known = ["rnn", "lstm", "gru", "kru"];
        assert_eq!(nearest("lsmt", known.into_iter()).as_deref(), Some("lstm"));
        assert_eq!(nearest("KRU", known.into_iter()).as_deref(), Some("kru"));
        assert_eq!(nearest("transformer", known.into_iter()), None);
    }
}
