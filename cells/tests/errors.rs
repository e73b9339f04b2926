//! Every way to describe a model wrongly has a message that names the culprit.
#![allow(clippy::unwrap_used)]

mod common;

use common::{layer, settings, spec};
use retrograd_cells::{CELLS, Input, Loss, Model, ModelSpec, Readout, cell, operator};
use retrograd_engine::{DType, Horizon};

fn message(change: impl FnOnce(&mut ModelSpec)) -> String {
    let layers = vec![layer("kru", &[], "kron", &[], 6)];
    let mut s = spec(Input::Dense(2), layers, Readout::Last, 1, Loss::SquaredError);
    change(&mut s);
    match Model::new(s).and_then(|m| m.record(0)) {
        Ok(_) => "no error".into(),
        Err(e) => e.to_string(),
    }
}

#[test]
fn models() {
    let rows: Vec<(&str, String)> = vec![
        ("no error", message(|_| {})),
        ("model: no layers, at least 1", message(|s| s.layers.clear())),
        ("model: 0 outputs, at least 1", message(|s| s.output = 0)),
        ("model: dropout 1, expected 0 <= dropout < 1", message(|s| s.dropout = 1.0)),
        ("model: dropout NaN, expected 0 <= dropout < 1", message(|s| s.dropout = f64::NAN)),
        ("model: element type bf16, expected f32 or f64", message(|s| s.dtype = DType::BF16)),
        ("model: a horizon of 0 steps, at least 1", message(|s| s.horizon = Horizon::Steps(0))),
        (
            "model: stateful and bidirectional: a backward state has no next batch to go to",
            message(|s| (s.stateful, s.bidirectional) = (true, true)),
        ),
        (
            "model: stateful and learn_h0: the first state is either carried or learned",
            message(|s| (s.stateful, s.learn_h0) = (true, true)),
        ),
        ("model: input size 0 and hidden size 6, at least 1", message(|s| s.input = Input::Dense(0))),
        ("model: input size 2 and hidden size 0, at least 1", message(|s| s.layers[0].hidden = 0)),
        (
            "kron: factors 2x3 multiply to 6, hidden size is 7; use hidden size 6 or 18, or factors=7",
            message(|s| s.layers = vec![layer("lstm", &[], "kron", &[("factors", "2x3")], 7)]),
        ),
        (
            "lrd: rank 8, at most the hidden size 7",
            message(|s| s.layers = vec![layer("gru", &[], "lrd", &[("rank", "8")], 7)]),
        ),
        (
            "model: block_diagonal: 4 blocks do not divide the hidden size 7; use blocks=1 or 7",
            message(|s| s.layers = vec![layer("gru", &[], "block_diagonal", &[("blocks", "4")], 7)]),
        ),
        (
            "model: householder: 8 reflections, at most the hidden size 7",
            message(|s| s.layers = vec![layer("rnn", &[], "householder", &[("reflections", "8")], 7)]),
        ),
        (
            "eunn: rotations in the FFT style pair off a power of two, hidden size is 7; use hidden size 4 or 8, or \
             style=tunable",
            message(|s| s.layers = vec![layer("goru", &[], "eunn", &[("style", "fft")], 7)]),
        ),
        (
            "model: sru: summary of 3 to 7 statistics on operator kron, which is square; use operator dense",
            message(|s| s.layers = vec![layer("sru", &[("summary", "3")], "kron", &[], 7)]),
        ),
        (
            "nru: 4 heads times a memory of 60 is 240, not a square; use memory 49 or 64",
            message(|s| s.layers = vec![layer("nru", &[("memory", "60")], "dense", &[], 7)]),
        ),
    ];
    for (expected, got) in rows {
        assert_eq!(got, expected);
    }
}

#[test]
fn names_and_settings() {
    let of_cell = |name: &str, set: &[(&str, &str)]| cell(name, &settings(set)).unwrap_err().to_string();
    let of_operator =
        |name: &str, set: &[(&str, &str)]| operator(name, &settings(set)).unwrap_err().to_string();
    let rows = [
        ("unknown cell `kur`; did you mean `kru`?", of_cell("kur", &[])),
        ("unknown operator `kronn`; did you mean `kron`?", of_operator("kronn", &[])),
        (
            "lstm: unknown setting `forgetbias`; did you mean `forget_bias`?",
            of_cell("lstm", &[("forgetbias", "1")]),
        ),
        (
            "rnn: setting `activation` = `sigmoid`, expected tanh or relu or leaky_relu",
            of_cell("rnn", &[("activation", "sigmoid")]),
        ),
        (
            "lstm: setting `chrono` = `2`, expected at least 3 steps, or none",
            of_cell("lstm", &[("chrono", "2")]),
        ),
        (
            "kru: setting `modrelu` = `goru`, expected exact or rc-urnn or fc-urnn or lrd or eurnn",
            of_cell("kru", &[("modrelu", "goru")]),
        ),
        (
            "kron: setting `factors` = `2x0`, expected sizes of at least 1 joined by x, as 2x2x5, or auto",
            of_operator("kron", &[("factors", "2x0")]),
        ),
        ("irnn: setting `K` = `0`, expected at least 1 inner step", of_cell("irnn", &[("K", "0")])),
        ("nru: setting `heads` = `none`, expected at least 1 head", of_cell("nru", &[("heads", "none")])),
        ("nru: setting `p` = `0.5`, expected at least 1", of_cell("nru", &[("p", "0.5")])),
        (
            "nru: setting `memory` = `-1`, expected a whole number of at least 1, or auto",
            of_cell("nru", &[("memory", "-1")]),
        ),
        (
            "janet: setting `chrono` = `1`, expected at least 3 steps, or none",
            of_cell("janet", &[("chrono", "1")]),
        ),
        (
            "sru: setting `rates` = `0.5,1`, expected numbers from 0 to less than 1, joined by commas",
            of_cell("sru", &[("rates", "0.5,1")]),
        ),
        (
            "sru: setting `summary` = `0`, expected a whole number of at least 1, or auto",
            of_cell("sru", &[("summary", "0")]),
        ),
        (
            "block_diagonal: setting `blocks` = `0`, expected a whole number of at least 1, or auto",
            of_operator("block_diagonal", &[("blocks", "0")]),
        ),
        (
            "householder: setting `reflections` = `all`, expected a whole number of at least 1, or auto",
            of_operator("householder", &[("reflections", "all")]),
        ),
        (
            "svd: setting `margin` = `1.5`, expected a number from 0 to 1",
            of_operator("svd", &[("margin", "1.5")]),
        ),
        (
            "lr: setting `rank` = `0`, expected a whole number of at least 1, or auto",
            of_operator("lr", &[("rank", "0")]),
        ),
        (
            "lrd: setting `diagonal_init` = `identity`, expected zeros, constant:C, uniform:A or normal:S",
            of_operator("lrd", &[("diagonal_init", "identity")]),
        ),
    ];
    for (expected, got) in rows {
        assert_eq!(got, expected);
    }
    let names: Vec<&str> = CELLS.iter().map(|c| c.name).collect();
    assert_eq!(
        of_cell("transformer", &[]),
        format!("unknown cell `transformer`; known: {}", names.join(", "))
    );
    let unknown = of_operator("dense", &[("factors", "2x2")]);
    assert!(unknown.starts_with("dense: unknown setting `factors`"), "{unknown}");
    let init = of_cell("gru", &[("recurrent_init", "ortogonal")]);
    assert!(init.contains("expected zeros, constant:C"), "{init}");
}
