//! Published networks by the names their papers give them: points of the product *cell × operator × settings*.
//!
//! A name stands for what is written beside it and nothing else, so that `kru-lstm` is the cell `lstm` on the operator
//! `kron`. Every cell's own name is a network too: the cell as it was published.

use crate::error::{Error, Result, nearest};
use crate::table::operator_entry;

/// A setting and its value.
pub type Setting = (&'static str, &'static str);

/// A network by name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Network {
    /// Name, in lower case.
    pub name: &'static str,
    /// What it is and where it is from, in a line.
    pub summary: &'static str,
    /// Its cell.
    pub cell: &'static str,
    /// Settings of the cell that are not the defaults.
    pub cell_set: &'static [Setting],
    /// Its operator.
    pub operator: &'static str,
    /// Settings of the operator that are not the defaults.
    pub operator_set: &'static [Setting],
}

const fn row(
    name: &'static str,
    cell: &'static str,
    cell_set: &'static [Setting],
    operator: &'static str,
    operator_set: &'static [Setting],
    summary: &'static str,
) -> Network {
    Network { name, summary, cell, cell_set, operator, operator_set }
}

/// Every network that is not a cell as it stands.
pub static NETWORKS: &[Network] = &[
    row(
        "identity-rnn",
        "rnn",
        &[("activation", "relu"), ("recurrent_init", "identity")],
        "dense",
        &[],
        "IRNN: rectified linear units that begin with the identity (Le, Jaitly, Hinton 2015)",
    ),
    row(
        "rnn-id",
        "rnn",
        &[("activation", "relu"), ("recurrent_init", "identity"), ("layer_norm", "true")],
        "dense",
        &[],
        "the same with layer normalization (Chandar et al. 2019)",
    ),
    row(
        "rnn-orth",
        "rnn",
        &[("recurrent_init", "orthogonal"), ("layer_norm", "true")],
        "dense",
        &[],
        "a random orthogonal matrix to begin with, layer normalization (Chandar et al. 2019)",
    ),
    row(
        "indrnn",
        "rnn",
        &[("activation", "relu")],
        "diagonal",
        &[],
        "independently recurrent network: every unit sees itself alone (Li et al. 2018)",
    ),
    row(
        "ornn",
        "rnn",
        &[("activation", "leaky_relu")],
        "householder",
        &[],
        "orthogonal network: a product of reflections (Mhammedi et al. 2017)",
    ),
    row(
        "spectral-rnn",
        "rnn",
        &[("activation", "relu")],
        "svd",
        &[],
        "singular values within a margin of 1 (Zhang, Lei, Dhillon 2018)",
    ),
    row("kru-rnn", "rnn", &[], "kron", &[], "tanh and a real Kronecker product (Jose, Cisse, Fleuret 2018)"),
    row(
        "kru-fixed",
        "kru",
        &[],
        "kron",
        &[("freeze", "true")],
        "KRU with a random unitary matrix that stays, as published for copying (Jose, Cisse, Fleuret 2018)",
    ),
    row("kru-lstm", "lstm", &[], "kron", &[], "LSTM on Kronecker products (Jose, Cisse, Fleuret 2018)"),
    row("kru-gru", "gru", &[], "kron", &[], "GRU on Kronecker products"),
    row(
        "lstm-chrono",
        "lstm",
        &[("chrono", "200")],
        "dense",
        &[],
        "biases for dependencies of up to `chrono` steps, here 200 (Tallec, Ollivier 2018)",
    ),
    row(
        "janet-chrono",
        "janet",
        &[("chrono", "200")],
        "dense",
        &[],
        "the same for JANET (van der Westhuizen, Lasenby 2018)",
    ),
    row(
        "lstm-urnn",
        "lstm",
        &[("cell_to_output", "true")],
        "dense",
        &[],
        "the LSTM of the uRNN's program: its output gate sees the new cell (Arjovsky, Shah, Bengio 2016)",
    ),
    row("lr-gru", "gru", &[("carry_bias", "4")], "lr", &[], "GRU on low-rank products (Miceli Barone 2018)"),
    row(
        "lrd-gru",
        "gru",
        &[("carry_bias", "4")],
        "lrd",
        &[],
        "GRU on low-rank products plus diagonals (Miceli Barone 2018)",
    ),
    row(
        "lrd-gru-tied",
        "gru",
        &[("carry_bias", "4")],
        "lrd",
        &[("tied", "true")],
        "the same, its gates sharing the factor applied first (Miceli Barone 2018)",
    ),
    row(
        "lrd-gru-lm",
        "gru",
        &[("reset", "after"), ("recurrent_init", "normal:0.01")],
        "lrd",
        &[("tied", "true")],
        "the GRU of the language models: reset after the product (Miceli Barone 2018)",
    ),
    row("lrd-lstm", "lstm", &[], "lrd", &[], "LSTM on low-rank products plus diagonals (Miceli Barone 2018)"),
    row("sirnn", "irnn", &[("K", "1")], "ivh", &[], "iRNN of one inner step (Kag, Zhang, Saligrama 2020)"),
    row(
        "irnn-plus",
        "irnn",
        &[("identity", "plus")],
        "ivh",
        &[],
        "iRNN with the previous state subtracted: Jacobians tend to I, not −I (a remark of Kag et al. 2020)",
    ),
    row(
        "irnn-deep",
        "irnn",
        &[("depth", "2")],
        "ivh",
        &[],
        "iRNN with a deep transition (Kag, Zhang, Saligrama 2020)",
    ),
    row(
        "antisymmetric-rnn-gated",
        "antisymmetric_rnn",
        &[("gated", "true")],
        "antisymmetric",
        &[],
        "AntisymmetricRNN with its gate (Chang et al. 2019)",
    ),
    row("fastgrnn-lr", "fastgrnn", &[], "lr", &[], "FastGRNN of low rank (Kusupati et al. 2018)"),
    row(
        "fastgrnn-lsq",
        "fastgrnn",
        &[("nonlinearity", "quantized")],
        "lr",
        &[],
        "the same with nonlinearities of straight lines; constraint=sparse,grid is the rest of its training",
    ),
    row(
        "eurnn-real",
        "eurnn",
        &[("field", "real")],
        "eunn",
        &[("style", "fft")],
        "EURNN of real rotations in the FFT style, a power of two of them (Jing et al. 2017)",
    ),
    row(
        "goru-fft",
        "goru",
        &[],
        "eunn",
        &[("style", "fft")],
        "GORU as published: rotations in the FFT style, hidden size a power of two (Jing et al. 2019)",
    ),
    row(
        "nru-relu",
        "nru",
        &[("head_activation", "relu")],
        "dense",
        &[],
        "NRU with rectified linear heads, as for language models (Chandar et al. 2019)",
    ),
];

/// The network of that name, capitals or not: a row of [`NETWORKS`], or a cell on the operator it was published with.
///
/// ```
/// use retrograd_cells::network;
/// let found = network("KRU-LSTM")?;
/// assert_eq!((found.cell, found.operator), ("lstm", "kron"));
/// assert_eq!(network("nru")?.operator, "dense");
/// assert_eq!(network("kru-lsmt").unwrap_err().to_string(), "unknown cell `kru-lsmt`; did you mean `kru-lstm`?");
/// # Ok::<(), retrograd_cells::Error>(())
/// ```
///
/// Errors: unknown, with the nearest known name.
pub fn network(name: &str) -> Result<Network> {
    if let Some(found) = NETWORKS.iter().find(|n| n.name.eq_ignore_ascii_case(name)) {
        return Ok(*found);
    }
    let own = crate::CELLS.iter().find(|c| c.name.eq_ignore_ascii_case(name));
    own.map(|c| row(c.name, c.name, &[], c.operator, &[], c.summary)).ok_or_else(|| {
        let known = || crate::CELLS.iter().map(|c| c.name).chain(NETWORKS.iter().map(|n| n.name));
        Error::UnknownName {
            kind: "cell",
            name: name.into(),
            nearest: nearest(name, known()),
            known: known().map(String::from).collect(),
        }
    })
}

impl Network {
    /// The same cell on another operator, of which it has no settings; on its own one if `None`.
    ///
    /// Errors: an operator that is in no table, with the nearest known name.
    pub fn on(self, operator: Option<&str>) -> Result<Network> {
        match operator {
            Some(name) if name != self.operator => {
                Ok(Network { operator: operator_entry(name)?.name, operator_set: &[], ..self })
            }
            _ => Ok(self),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::settings::Settings;
    use crate::table::cell_entry;

    #[test]
    fn every_network_is_made_and_has_a_name_of_its_own() {
        let mut names: BTreeSet<&str> = crate::CELLS.iter().map(|c| c.name).collect();
        names.extend(crate::OPERATORS.iter().map(|o| o.name));
        for n in NETWORKS {
            assert!(names.insert(n.name), "{}", n.name);
            assert_eq!(n.name, n.name.to_lowercase());
            let cell = cell_entry(n.cell).unwrap();
            cell.make(&n.cell_set.iter().copied().collect::<Settings>()).unwrap();
            let operator = operator_entry(n.operator).unwrap();
            operator.make(&n.operator_set.iter().copied().collect::<Settings>()).unwrap();
            // A row that is a cell as it stands says nothing.
            assert!(
                cell.operator != n.operator || !n.cell_set.is_empty() || !n.operator_set.is_empty(),
                "{}",
                n.name
            );
            assert_eq!(network(&n.name.to_uppercase()).unwrap(), *n);
        }
    }

    #[test]
    fn another_operator() {
        let tied = network("lrd-gru-tied").unwrap();
        assert_eq!(tied.on(None).unwrap(), tied);
        assert_eq!(tied.on(Some("lrd")).unwrap(), tied);
        let dense = tied.on(Some("dense")).unwrap();
        assert_eq!((dense.operator, dense.operator_set.len(), dense.cell_set), ("dense", 0, tied.cell_set));
        assert!(tied.on(Some("dens")).is_err());
    }
}
