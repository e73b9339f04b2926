//! Where a run stands: everything besides tensors that the rest of it depends on.

use serde::{Deserialize, Serialize};

use super::network::Totals;

/// Where a run stands. Stored in every checkpoint, to the bit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Updates made, skipped ones included.
    pub step: u64,
    /// Epochs completed.
    pub epoch: u64,
    /// Next batch of the epoch.
    pub index: usize,
    /// Updates in a row whose gradients were not finite.
    pub not_finite: u32,
    /// Evaluations without a new best, in a row.
    pub bad: u64,
    /// Step of the last evaluation.
    pub evaluated: Option<u64>,
    /// Best evaluation.
    pub best: Option<Best>,
    /// Sums over training batches since the last evaluation.
    #[serde(with = "totals")]
    pub since: Totals,
}

/// The best evaluation on validation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Step at which it was made.
    pub step: u64,
    /// Metric.
    #[serde(with = "number")]
    pub metric: f64,
}

/// Numbers as text, which unlike JSON's numbers may be NaN or infinite, and comes back to the same bits.
mod number {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &f64, s: S) -> Result<S::Ok, S::Error> {
        value.to_string().serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(|_| D::Error::custom(format!("`{text}` is not a number")))
    }
}

mod totals {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Totals, number};

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Stored {
        #[serde(with = "number")]
        loss: f64,
        #[serde(with = "number")]
        hits: f64,
        #[serde(with = "number")]
        count: f64,
    }

    pub(super) fn serialize<S: Serializer>(t: &Totals, s: S) -> Result<S::Ok, S::Error> {
        Stored { loss: t.loss, hits: t.hits, count: t.count }.serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Totals, D::Error> {
        let Stored { loss, hits, count } = Stored::deserialize(d)?;
        Ok(Totals { loss, hits, count })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn stored_to_the_bit() {
        let since = Totals { loss: f64::INFINITY, hits: 0.1 + 0.2, count: 1e300 };
        let best = Some(Best { step: u64::MAX, metric: 1.0 / 3.0 });
        let position = Position { step: 7, since, best, evaluated: Some(5), ..Position::default() };
        let text = serde_json::to_string(&position).unwrap();
        assert_eq!(serde_json::from_str::<Position>(&text).unwrap(), position);
        let nan = Position { since: Totals { loss: f64::NAN, ..since }, ..position };
        let back: Position = serde_json::from_str(&serde_json::to_string(&nan).unwrap()).unwrap();
        assert!(back.since.loss.is_nan());
        assert!(serde_json::from_str::<Position>("{\"step\":1}").is_err());
    }
}
