//! Gradients of every cell on every operator through a short scan, against finite differences.
#![allow(clippy::unwrap_used)]

mod common;

use common::{inputs, layer, random, spec};
use retrograd_cells::{Init, Input, Loss, Model, ModelSpec, OPERATORS, Readout, combinations};
use retrograd_engine::{Params, Tensor, Var, gradcheck};

/// Checks the gradient of the loss by every trained parameter, and by `x` if it is dense.
fn check(what: &str, spec: ModelSpec) -> Option<String> {
    let model = Model::new(spec).unwrap();
    let mut recorded = model.record(5).unwrap();
    let data = inputs(&model, 4, 3);
    // First values are often 0 or equal, where mistakes hide and where a ReLU has no derivative.
    let moved = |(name, t): (&str, &Tensor)| {
        let noise = random(name, t.dtype(), t.dims(), Init::Normal(0.2));
        let mut moved = t.clone();
        moved.fill_with(|i| t.get(i) + noise.get(i));
        (name.to_string(), moved)
    };
    let params = away_from_jumps(&recorded.params, recorded.params.iter().map(moved).collect());
    let mut wrt: Vec<Var> = recorded.trainable_vars();
    if let (Input::Dense(_), Some((_, x, _))) =
        (model.spec().input, recorded.tape.inputs().find(|(name, _, _)| *name == "x"))
    {
        wrt.push(x);
    }
    // Differences of a loss of order 1 by numbers that hardly change it are right to a few units of the ninth digit.
    let tolerance = 3e-9;
    let options = gradcheck::Options { max_components: 24, directions: 2, tolerance, ..Default::default() };
    let loss = recorded.loss;
    let report = gradcheck::check_reference(&mut recorded.tape, &[loss], &wrt, &[&data, &params], &options);
    let report = report.unwrap();
    (!report.passed()).then(|| format!("{what}: {report}"))
}

/// modReLU of a real number jumps at 0 where its bias is not negative, and some cells begin with inputs so small that
/// many differences cross the jump: there biases are negative.
fn away_from_jumps(first: &Params, moved: Params) -> Params {
    let small = first.get("layer0.U").is_some_and(|u| (0..u.len()).all(|i| u.get(i).norm() < 0.02));
    let gated = first.get("layer0.b_c").is_some();
    let one = |(name, value): (&str, &Tensor)| {
        let mut value = value.clone();
        if name == "layer0.b_c" || (name == "layer0.b" && small && !gated) {
            value.fill_with(|i| (-0.03 - 0.01 * i as f64).into());
        }
        (name.to_string(), value)
    };
    moved.iter().map(one).collect()
}

fn all_pass(failures: Vec<Option<String>>) {
    let failures: Vec<String> = failures.into_iter().flatten().collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_cell_on_every_operator() {
    let mut failures = Vec::new();
    for (cell, operator) in combinations() {
        let layer = layer(cell.name, &[], operator.name, &[], 6);
        let mut s = spec(Input::Dense(2), vec![layer], Readout::EveryStep, 3, Loss::SoftmaxCrossEntropy);
        s.learn_h0 = true;
        failures.push(check(&format!("{} on {}", cell.name, operator.name), s));
    }
    all_pass(failures);
}

#[test]
fn every_option() {
    // Settings away from the defaults, and the loss and read-out they are checked with.
    let rows: &[(&str, &[(&str, &str)])] = &[
        ("rnn", &[("activation", "relu"), ("recurrent_init", "orthogonal")]),
        ("rnn", &[("layer_norm", "true")]),
        ("lstm", &[("peephole", "true"), ("cell_to_output", "true")]),
        ("lstm", &[("chrono", "10")]),
        ("gru", &[("reset", "after"), ("carry_bias", "2")]),
        ("kru", &[("modrelu", "exact")]),
        ("irnn", &[("K", "2"), ("eta_steps", "3"), ("eta", "0.4"), ("twice", "false")]),
        (
            "irnn",
            &[("K", "3"), ("start", "zero"), ("activation", "sigmoid"), ("alpha", "0.7"), ("eta", "0.5")],
        ),
        ("irnn", &[("K", "1"), ("activation", "tanh"), ("eta_steps", "9")]),
        ("irnn", &[("K", "2"), ("eta", "0.4"), ("depth", "3"), ("activation", "tanh")]),
        ("irnn", &[("K", "2"), ("eta", "0.4"), ("identity", "plus"), ("activation", "tanh")]),
        (
            "irnn",
            &[("K", "2"), ("eta", "0.4"), ("identity", "plus"), ("start", "zero"), ("activation", "tanh")],
        ),
        ("rc_urnn", &[("modrelu", "exact")]),
        ("fc_urnn", &[("modrelu", "rc-urnn")]),
        ("eurnn", &[("field", "real")]),
        ("eurnn", &[("read", "both-parts"), ("modrelu", "fc-urnn")]),
        ("nru", &[("heads", "1"), ("memory", "9"), ("layer_norm", "true")]),
        ("nru", &[("heads", "3"), ("head_activation", "relu"), ("p", "2")]),
        ("nru", &[("heads", "2"), ("combine", "sum"), ("heads_see_input", "true")]),
        ("rnn", &[("activation", "leaky_relu"), ("layer_norm", "true")]),
        ("janet", &[("chrono", "20"), ("beta", "0.5")]),
        ("fastrnn", &[("activation", "relu"), ("recurrent_init", "orthogonal")]),
        ("fastrnn", &[("input_rank", "2")]),
        ("fastgrnn", &[("input_rank", "2")]),
        ("ugrnn", &[("input_rank", "2")]),
        ("antisymmetric_rnn", &[("gated", "true"), ("epsilon", "0.7")]),
        ("sru", &[("rates", "0.3,0.9"), ("summary", "3"), ("output", "5")]),
    ];
    let mut failures = Vec::new();
    for (i, (cell, set)) in rows.iter().enumerate() {
        let readout = if i % 2 == 0 { Readout::Last } else { Readout::EveryStep };
        let layer = layer(cell, set, "dense", &[], 4);
        let s = spec(Input::Symbols(5), vec![layer], readout, 2, Loss::BinaryCrossEntropy);
        failures.push(check(&format!("{cell} with {set:?}"), s));
    }
    all_pass(failures);
}

#[test]
fn every_option_of_an_operator() {
    let rows: &[(&str, &str, &[(&str, &str)])] = &[
        ("gru", "kron", &[("factors", "3x2")]),
        ("gru", "lr", &[("rank", "2"), ("tied", "true")]),
        ("gru", "lrd", &[("rank", "5"), ("tied", "true")]),
        ("lstm", "lrd", &[("rank", "3"), ("diagonal_init", "constant:0.5")]),
        ("kru", "lrd", &[("rank", "2")]),
        ("rnn", "ivh", &[("rank", "6")]),
        ("kru", "block_diagonal", &[("blocks", "2")]),
        ("gru", "antisymmetric", &[("gamma", "0.5")]),
        ("gru", "householder", &[("reflections", "6")]),
        ("kru", "householder", &[("reflections", "4")]),
        ("lstm", "svd", &[("reflections", "3"), ("margin", "0.5")]),
        ("kru", "svd", &[("reflections", "2"), ("margin", "1")]),
        ("kru", "rc", &[("fourier", "false")]),
        ("kru", "rc", &[("scale", "true")]),
        ("eurnn", "eunn", &[("capacity", "5")]),
        ("gru", "eunn", &[("capacity", "3")]),
    ];
    let mut failures = Vec::new();
    for (cell, operator, set) in rows {
        let layer = layer(cell, &[], operator, set, 6);
        let s = spec(Input::Dense(2), vec![layer], Readout::Last, 2, Loss::SquaredError);
        failures.push(check(&format!("{cell} on {operator} with {set:?}"), s));
    }
    all_pass(failures);
}

/// Inner steps run to their fixed point, differentiated without going through them. The residual is far below what
/// differences see, and the matrices are small enough for one solution.
#[test]
fn fixed_points() {
    let mut failures = Vec::new();
    for (solver, gradient) in
        [("damped", "implicit"), ("damped", "unrolled"), ("anderson", "implicit"), ("broyden", "implicit")]
    {
        let set = [
            ("solver", solver),
            ("gradient", gradient),
            ("K", if solver == "damped" { "40" } else { "12" }),
            ("rate", if solver == "damped" { "0.8" } else { "1" }),
            ("tolerance", "1e-14"),
            ("activation", "tanh"),
            ("twice", "false"),
            ("recurrent_init", "constant:0"),
        ];
        let layer = layer("irnn", &set, "dense", &[], 3);
        let mut s = spec(Input::Dense(2), vec![layer], Readout::EveryStep, 2, Loss::SquaredError);
        s.learn_h0 = true;
        failures.push(check(&format!("irnn with {set:?}"), s));
    }
    all_pass(failures);
}

/// Masks of every kind, and a table of symbols.
#[test]
fn dropout_and_embeddings() {
    let mut failures = Vec::new();
    for (cell, operator, set, shared) in [
        ("gru", "lrd", &[("rank", "2")][..], false),
        ("gru", "lrd", &[("rank", "2"), ("tied", "true")], true),
        ("lstm", "lrd", &[("rank", "2")], false),
        ("irnn", "ivh", &[], false),
        ("kru", "kron", &[], false),
    ] {
        for embedding in [None, Some(3)] {
            // First values with which no rectifier is so near its kink that differences cross it.
            let first = if cell == "irnn" { &[("recurrent_init", "normal:0.1")][..] } else { &[] };
            let layers = vec![layer(cell, first, operator, set, 4), layer(cell, first, operator, set, 4)];
            let mut s = spec(Input::Symbols(5), layers, Readout::EveryStep, 2, Loss::SquaredError);
            (s.dropout, s.recurrent_dropout, s.input_dropout, s.readout_dropout) = (0.2, 0.3, 0.2, 0.4);
            (s.shared_masks, s.embedding) = (shared, embedding);
            failures.push(check(&format!("{cell} on {operator} with masks, embedding {embedding:?}"), s));
        }
    }
    all_pass(failures);
}

/// Directions and lengths in place of matrices.
#[test]
fn weight_normalization() {
    let mut failures = Vec::new();
    // Every operator under a cell of more than one gate, and one under complex states.
    let known = combinations();
    let takes = |cell: &str, operator: &str| known.iter().any(|(c, o)| (c.name, o.name) == (cell, operator));
    let pairs = OPERATORS.iter().flat_map(|o| [("lstm", o.name), ("kru", o.name), ("irnn", o.name)]);
    for (cell, operator) in pairs.filter(|(cell, operator)| takes(cell, operator)) {
        let layers = vec![layer(cell, &[], operator, &[], 6)];
        let mut s = spec(Input::Symbols(4), layers, Readout::EveryStep, 2, Loss::SquaredError);
        s.weight_norm = true;
        failures.push(check(&format!("{cell} on {operator} with weight normalization"), s));
    }
    all_pass(failures);
}

/// The style of rotations that needs a power of two.
#[test]
fn rotations_in_the_fft_style() {
    let mut failures = Vec::new();
    for cell in ["eurnn", "goru", "lstm"] {
        let layer = layer(cell, &[], "eunn", &[("style", "fft")], 8);
        let s = spec(Input::Dense(2), vec![layer], Readout::EveryStep, 2, Loss::SquaredError);
        failures.push(check(&format!("{cell} on rotations in the FFT style"), s));
    }
    all_pass(failures);
}

#[test]
fn stacks() {
    let mut failures = Vec::new();
    for bidirectional in [false, true] {
        for readout in [Readout::Last, Readout::EveryStep] {
            for lengths in [false, true] {
                let layers = vec![layer("kru", &[], "kron", &[], 4), layer("gru", &[], "dense", &[], 3)];
                let mut s = spec(Input::Dense(2), layers, readout, 2, Loss::SquaredError);
                (s.bidirectional, s.lengths, s.masked) = (bidirectional, lengths, !lengths);
                s.dropout = 0.25;
                let what =
                    format!("two layers, bidirectional {bidirectional}, {readout:?}, lengths {lengths}");
                failures.push(check(&what, s));
            }
        }
    }
    all_pass(failures);
}
