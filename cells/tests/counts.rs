//! Parameter counts of the published models, from Jose, Cisse, Fleuret 2017 (tables 2 to 4), Miceli Barone 2018, Kag,
//! Zhang, Saligrama 2020 and Chandar et al. 2019; of others, the formulas of their papers at sizes of ours. Where a paper rounds (`20.2k`, `97.67 KB`), the row holds the whole
//! number it rounds.
//! A complex number counts 2 unless the row says that entries are counted once.

use retrograd_cells::{
    Input, Layer, Loss, Model, ModelSpec, OPERATORS, Readout, Result, Settings, cell, combinations, operator,
};

struct Row {
    paper: &'static str,
    cell: &'static str,
    operator: &'static str,
    /// Settings of the cell.
    cell_set: &'static [(&'static str, &'static str)],
    /// Settings of the operator.
    set: &'static [(&'static str, &'static str)],
    /// Hidden size, inputs, outputs.
    sizes: [usize; 3],
    learn_h0: bool,
    /// What the paper counts beside or instead of all real numbers.
    counting: Counting,
    recurrent: Option<usize>,
    total: Option<usize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Counting {
    /// Every real number.
    All,
    /// Entries of factors once, complex or not.
    EntriesOnce,
    /// Biases of gates not counted.
    NoGateBias,
    /// One of the gates' input matrices.
    OneInputMatrix,
    /// Not the read-out.
    NoReadout,
    /// Neither the read-out nor step sizes.
    NoReadoutNorEta,
    /// Of reflections, not what is above the diagonal.
    Trapezoids,
    /// Neither the input matrix nor the bias of the modulus.
    NoInput,
    /// A unitary matrix as the dimension of the unitary group.
    GroupDimension,
}
use Counting::{
    All, EntriesOnce, GroupDimension, NoGateBias, NoInput, NoReadout, NoReadoutNorEta, OneInputMatrix,
    Trapezoids,
};

const fn row(
    paper: &'static str,
    cell: &'static str,
    operator: &'static str,
    sizes: [usize; 3],
    recurrent: Option<usize>,
    total: usize,
) -> Row {
    let total = Some(total);
    Row {
        paper,
        cell,
        operator,
        cell_set: &[],
        set: &[],
        sizes,
        learn_h0: false,
        counting: All,
        recurrent,
        total,
    }
}

const ROWS: &[Row] = &[
    row("KRU copy", "kru", "kron", [128, 10, 9], Some(56), 5_057),
    row("KRU adding", "kru", "kron", [512, 2, 1], Some(72), 3_657),
    row("KRU pixel MNIST", "kru", "kron", [512, 1, 10], Some(72), 11_858),
    row("KRU PTB 411", "kru", "kron", [411, 50, 50], Some(37_556), 120_217),
    row("KRU PTB 993", "kru", "kron", [993, 50, 50], Some(219_140), 418_783),
    Row {
        set: &[("factors", "2x250")],
        ..row("KRU-LSTM PTB 500", "lstm", "kron", [500, 50, 50], Some(250_016), 377_066)
    },
    // Totals of the JSB, Piano-midi and TIMIT rows fit no consistent input and output size.
    Row {
        counting: EntriesOnce,
        total: None,
        ..row("KRU JSB 100", "kru", "kron", [100, 88, 88], Some(58), 0)
    },
    Row { total: None, ..row("KRU-LSTM JSB 45", "lstm", "kron", [45, 88, 88], Some(172), 0) },
    Row {
        set: &[("factors", "128x16")],
        counting: EntriesOnce,
        total: None,
        ..row("KRU TIMIT 2048", "kru", "kron", [2048, 1, 1], Some(16_640), 0)
    },
    Row {
        set: &[("factors", "128x16")],
        total: None,
        ..row("KRU-LSTM TIMIT 2048", "lstm", "kron", [2048, 1, 1], Some(66_560), 0)
    },
    // Baselines of the same tables. The full-capacity unitary network is a KRU on a dense matrix.
    row("RNN copy", "rnn", "dense", [128, 10, 9], None, 18_953),
    row("LSTM copy", "lstm", "dense", [128, 10, 9], None, 72_329),
    row("FC uRNN copy", "kru", "dense", [128, 10, 9], None, 37_769),
    row("RNN adding", "rnn", "dense", [128, 2, 1], None, 16_897),
    row("LSTM adding", "lstm", "dense", [128, 2, 1], None, 67_201),
    row("FC uRNN adding", "kru", "dense", [128, 2, 1], None, 33_665),
    row("LSTM pixel MNIST", "lstm", "dense", [128, 1, 10], Some(65_536), 67_850),
    Row {
        learn_h0: true,
        ..row("FC uRNN pixel MNIST 512", "kru", "dense", [512, 1, 10], Some(524_288), 537_098)
    },
    Row {
        learn_h0: true,
        ..row("FC uRNN pixel MNIST 116", "kru", "dense", [116, 1, 10], Some(26_912), 29_822)
    },
    row("RNN PTB 300", "rnn", "dense", [300, 50, 50], None, 120_350),
    row("RNN PTB 600", "rnn", "dense", [600, 50, 50], None, 420_650),
    Row { counting: NoGateBias, ..row("LSTM PTB 150", "lstm", "dense", [150, 50, 50], None, 127_550) },
    Row { counting: NoGateBias, ..row("LSTM PTB 300", "lstm", "dense", [300, 50, 50], None, 435_050) },
    // The unitary networks, as the tables of the KRU paper, their authors and Chandar et al. count them.
    row("RC uRNN copy", "rc_urnn", "rc", [470, 10, 9], Some(3_290), 21_629),
    row("RC uRNN adding", "rc_urnn", "rc", [512, 2, 1], Some(3_584), 7_169),
    row("RC uRNN pixel MNIST", "rc_urnn", "rc", [512, 1, 10], Some(3_584), 15_370),
    Row {
        learn_h0: true,
        ..row("RC uRNN pixel MNIST, first state", "rc_urnn", "rc", [512, 1, 10], Some(3_584), 16_394)
    },
    row("FC uRNN copy", "fc_urnn", "unitary", [128, 10, 9], Some(32_768), 37_769),
    Row {
        learn_h0: true,
        ..row("FC uRNN pixel MNIST 512", "fc_urnn", "unitary", [512, 1, 10], Some(524_288), 537_098)
    },
    // N² + 25 N + 10 as the authors count.
    Row {
        learn_h0: true,
        counting: GroupDimension,
        ..row("FC uRNN pixel MNIST 116, authors", "fc_urnn", "unitary", [116, 1, 10], Some(13_456), 16_366)
    },
    Row {
        counting: NoInput,
        ..row("EURNN pixel MNIST 1024", "eurnn", "eunn", [1024, 1, 10], Some(3_070), 13_320)
    },
    // N log₂ N + N angles in the FFT style.
    Row {
        set: &[("style", "fft")],
        total: None,
        ..row("EURNN in the FFT style", "eurnn", "eunn", [512, 1, 10], Some(512 * 9 + 512), 0)
    },
    Row {
        cell_set: &[("field", "real")],
        set: &[("style", "fft")],
        ..row("EURNN permuted MNIST 1024, real", "eurnn", "eunn", [1024, 1, 10], Some(5_120), 17_418)
    },
    // 3NC + 2N² + 3N and the angles of the FFT style; C = 10, 9 outputs.
    Row {
        set: &[("style", "fft")],
        ..row("GORU 128", "goru", "eunn", [128, 10, 9], Some(448), 3_840 + 32_768 + 384 + 448 + 1_161)
    },
    // Miceli Barone 2018.
    Row { counting: OneInputMatrix, ..row("GRU MNIST 128", "gru", "dense", [128, 1, 10], None, 50_954) },
    Row { counting: OneInputMatrix, ..row("GRU PTB 1000", "gru", "dense", [1000, 51, 51], None, 3_105_051) },
    row("LSTM PTB 1000", "lstm", "dense", [1000, 50, 50], None, 4_254_050),
    low_rank("LR-GRU MNIST 128/24", "lr", &[("rank", "24")], [128, 1, 10], 20_234),
    low_rank("LR-GRU MNIST 512/4", "lr", &[("rank", "4")], [512, 1, 10], 19_466),
    low_rank("LRD-GRU MNIST 64/24", "lrd", &[("rank", "24")], [64, 1, 10], 10_314),
    low_rank("LRD-GRU MNIST 128/24", "lrd", &[("rank", "24")], [128, 1, 10], 20_618),
    low_rank("LRD-GRU MNIST 256/24", "lrd", &[("rank", "24")], [256, 1, 10], 41_226),
    Row {
        // The 39 168 published for the recurrent part count the biases of the gates.
        recurrent: Some(39_168 - 3 * 128),
        ..low_rank("LRD-GRU memory 128/50", "lrd", &[("rank", "50")], [128, 10, 10], 41_738)
    },
    low_rank("LRD-GRU PTB 1000/64", "lrd", &[("rank", "64")], [1000, 51, 51], 492_051),
    low_rank("LRD-GRU PTB 3298/128", "lrd", &[("rank", "128")], [3298, 51, 51], 2_889_099),
    low_rank("LRD-GRU PTB 5459/64", "lrd", &[("rank", "64")], [5459, 51, 51], 2_685_879),
    low_rank("tied LRD-GRU PTB 5459/64", "lrd", TIED_64, [5459, 51, 51], 1_987_127),
    low_rank("tied LRD-GRU PTB 4480/128", "lrd", TIED_128, [4480, 51, 51], 2_777_651),
    low_rank("tied LRD-GRU PTB 6985/64", "lrd", TIED_64, [6985, 51, 51], 2_542_591),
    // The one row of that table that counts all input matrices.
    Row { counting: All, ..low_rank("tied LRD-GRU PTB 1000/64", "lrd", TIED_64, [1000, 51, 51], 466_051) },
    Row {
        set: &[("rank", "300")],
        total: None,
        ..row("LRD-LSTM PTB 1740/300", "lstm", "lrd", [1740, 50, 50], Some(4_182_960), 0)
    },
    // Kag, Zhang, Saligrama 2020: sizes in KB of four-byte numbers, with step sizes.
    yelp(&[("K", "1"), ("eta_steps", "300")], 25_004),
    yelp(&[("K", "2"), ("eta_steps", "300")], 25_304),
    yelp(&[("K", "3"), ("eta_steps", "300")], 25_604),
    Row {
        counting: NoReadoutNorEta,
        set: &[("rank", "20")],
        ..row("iRNN HAR-2", "irnn", "ivh", [80, 9, 2], None, 4_000)
    },
    // 288 KB with the input matrix of 256 x 256; biases and step sizes are not counted.
    Row {
        set: &[("rank", "16")],
        total: None,
        ..row("iRNN PTB 256/16", "irnn", "ivh", [256, 256, 10], Some(8_192), 0)
    },
    // Chandar et al. 2019: about 165k and 23.5k.
    Row {
        cell_set: &[("memory", "256")],
        ..row("NRU pixel MNIST", "nru", "dense", [212, 1, 10], None, 165_554)
    },
    Row { cell_set: &[("memory", "64")], ..row("NRU copy", "nru", "dense", [80, 10, 9], None, 23_569) },
    // The oRNN in the tables of Jose, Cisse, Fleuret 2017.
    Row {
        set: &[("reflections", "32")],
        learn_h0: true,
        counting: Trapezoids,
        ..row("oRNN pixel MNIST 256/32", "rnn", "householder", [256, 1, 10], Some(7_696), 11_034)
    },
    Row {
        set: &[("reflections", "512")],
        learn_h0: true,
        counting: Trapezoids,
        ..row("oRNN PTB 512/512", "rnn", "householder", [512, 49, 49], Some(131_328), 182_577)
    },
    // 2·n_r·N + N, C·N, N: stored, as published.
    Row {
        set: &[("reflections", "32")],
        counting: NoReadout,
        ..row("Spectral-RNN 128/32", "rnn", "svd", [128, 1, 10], Some(8_320), 8_576)
    },
    // N(N−1)/2 + C·N + N.
    Row {
        counting: NoReadout,
        ..row("AntisymmetricRNN 128", "antisymmetric_rnn", "antisymmetric", [128, 1, 10], Some(8_128), 8_384)
    },
    // FastRNN on PTB, 513 KB in Kag, Zhang, Saligrama 2020: 2·256² + 256 + 2 four-byte numbers.
    Row { counting: NoReadout, ..row("FastRNN PTB", "fastrnn", "dense", [256, 256, 10], None, 131_330) },
    // N² + C·N + 2·N + 2.
    Row { counting: NoReadout, ..row("FastGRNN 100", "fastgrnn", "dense", [100, 9, 6], None, 11_102) },
    // 2(N² + C·N + N).
    Row { counting: NoReadout, ..row("UGRNN 100", "ugrnn", "dense", [100, 9, 6], None, 22_000) },
    Row { counting: NoReadout, ..row("JANET pixel MNIST", "janet", "dense", [128, 1, 10], None, 33_280) },
    // R·H·(D + O) + C·H + D·H + D + H + O.
    Row {
        cell_set: &[("summary", "60"), ("output", "100")],
        counting: NoReadout,
        ..row("SRU 200/60", "sru", "dense", [200, 1, 10], None, 172_560)
    },
];

/// A column of a matrix of reflections begins on the diagonal.
fn above_diagonal(dims: &[usize]) -> usize {
    dims[1] * (dims[1] - 1) / 2
}

/// iRNN on Yelp-5: 128 units, 128 inputs, rank 32. 97.67, 98.84 and 100.02 KB are these numbers over 256.
const fn yelp(cell_set: &'static [(&'static str, &'static str)], total: usize) -> Row {
    let set = &[("rank", "32")];
    Row {
        cell_set,
        set,
        counting: NoReadout,
        ..row("iRNN Yelp-5", "irnn", "ivh", [128, 128, 5], None, total)
    }
}

const TIED_64: &[(&str, &str)] = &[("rank", "64"), ("tied", "true")];
const TIED_128: &[(&str, &str)] = &[("rank", "128"), ("tied", "true")];

/// A GRU on a low-rank operator, as Miceli Barone counts.
const fn low_rank(
    paper: &'static str,
    operator: &'static str,
    set: &'static [(&'static str, &'static str)],
    sizes: [usize; 3],
    total: usize,
) -> Row {
    Row { set, counting: OneInputMatrix, ..row(paper, "gru", operator, sizes, None, total) }
}

fn counts(row: &Row) -> Result<(usize, usize)> {
    let [hidden, inputs, outputs] = row.sizes;
    // The numbers do not matter here, and zeros come faster than orthogonal matrices.
    let init: Settings = row.cell_set.iter().copied().chain([("recurrent_init", "zeros")]).collect();
    let layer = Layer {
        cell: cell(row.cell, &init)?,
        operator: operator(row.operator, &row.set.iter().copied().collect())?,
        hidden,
    };
    let input = Input::Dense(inputs);
    let mut spec = ModelSpec::new(input, vec![layer], Readout::EveryStep, outputs, Loss::SoftmaxCrossEntropy);
    spec.learn_h0 = row.learn_h0;
    let params = Model::new(spec)?.declare(0)?.into_params();
    let (mut recurrent, mut total) = (0, 0);
    // Indices are no parameters.
    let indices: usize =
        params.iter().filter(|(_, t)| !t.dtype().is_differentiable()).map(|(_, t)| t.len()).sum();
    for (name, tensor) in params.iter().filter(|(_, t)| t.dtype().is_differentiable()) {
        let numbers = tensor.len() * tensor.dtype().planes();
        let counted = match row.counting {
            EntriesOnce if name.starts_with("layer0.W") => tensor.len(),
            NoGateBias if name == "layer0.b" => 0,
            OneInputMatrix if name == "layer0.U" => numbers / 3,
            NoReadout | NoReadoutNorEta if name.starts_with("readout") => 0,
            NoReadoutNorEta if name == "layer0.eta" => 0,
            Trapezoids if name == "layer0.W.U" => numbers - above_diagonal(tensor.dims()),
            NoInput if name == "layer0.U" || name == "layer0.b" => 0,
            GroupDimension if name == "layer0.W" => tensor.len(),
            _ => numbers,
        };
        total += counted;
        if name.starts_with("layer0.W") {
            recurrent += counted;
        }
    }
    if row.counting == All {
        assert_eq!(total + indices, params.real_count(), "{}", row.paper);
    }
    Ok((recurrent, total))
}

#[test]
fn published_counts() -> Result<()> {
    let mut wrong = Vec::new();
    for row in ROWS {
        let (recurrent, total) = counts(row)?;
        let fits = |expected: Option<usize>, got| expected.is_none_or(|e| e == got);
        if !fits(row.recurrent, recurrent) || !fits(row.total, total) {
            wrong.push(format!(
                "{}: recurrent {recurrent} (published {:?}), total {total} ({:?})",
                row.paper, row.recurrent, row.total
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Units of the layers that combinations are counted on: a power of two, so that every operator has it.
const N: usize = 8;

/// Real numbers of an operator for `g` matrices of `N` rows at its defaults, `p` real numbers to a number of the state.
type Count = fn(g: usize, p: usize) -> usize;

const OPERATOR_COUNTS: &[(&str, Count)] = &[
    ("dense", |g, p| g * N * N * p),
    ("kron", |g, p| g * 3 * 4 * p),
    ("lr", |g, p| 2 * g * N * (N / 4) * p),
    ("lrd", |g, p| (2 * g * N * (N / 4) + g * N) * p),
    ("ivh", |g, p| 2 * g * N * (N / 4) * p),
    ("diagonal", |g, p| g * N * p),
    ("block_diagonal", |g, p| g * N * N / 4 * p),
    ("antisymmetric", |g, p| g * N * (N - 1) / 2 * p),
    ("householder", |g, p| g * N * (N / 4) * p),
    // Singular values are real.
    ("svd", |g, p| g * (2 * N * (N / 4) * p + N)),
    ("rc", |g, _| 7 * g * N),
    ("unitary", |g, p| g * N * N * p),
    // Two layers of rotations, of real states without phases and the diagonal.
    ("eunn", |g, p| g * if p == 2 { 2 * (N - 1) + N } else { N - 1 }),
];

/// What a cell has beside its recurrent matrices does not depend on the operator, and an operator has as many numbers as
/// its equation says for as many matrices as the cell has.
#[test]
fn every_combination_has_what_its_parts_have() -> Result<()> {
    let names: Vec<&str> = OPERATOR_COUNTS.iter().map(|(name, _)| *name).collect();
    assert!(OPERATORS.iter().all(|o| names.contains(&o.name)), "an operator without a row");
    let parts = |cell_name: &str, operator_name: &str| -> Result<(usize, usize, bool)> {
        let layer = Layer {
            cell: cell(cell_name, &Settings::new())?,
            operator: operator(operator_name, &Settings::new())?,
            hidden: N,
        };
        let input = Input::Dense(3);
        let spec = ModelSpec::new(input, vec![layer], Readout::Last, 2, Loss::SquaredError);
        let params = Model::new(spec)?.declare(0)?.into_params();
        let (mut recurrent, mut rest, mut complex) = (0, 0, false);
        for (name, tensor) in params.iter().filter(|(_, t)| t.dtype().is_differentiable()) {
            let numbers = tensor.len() * tensor.dtype().planes();
            if name == "layer0.W" || name.starts_with("layer0.W.") {
                recurrent += numbers;
            } else {
                rest += numbers;
                complex |= name == "layer0.U" && tensor.dtype().is_complex();
            }
        }
        Ok((recurrent, rest, complex))
    };
    let mut wrong = Vec::new();
    for (cell, operator) in combinations() {
        let (dense, rest, complex) = parts(cell.name, "dense")?;
        let planes = if complex { 2 } else { 1 };
        let gates = dense / (N * N * planes);
        assert!(gates >= 1 && gates * N * N * planes == dense, "{}: {dense} on dense", cell.name);
        let (_, count) = OPERATOR_COUNTS[names.iter().position(|n| *n == operator.name).unwrap_or(0)];
        let found = parts(cell.name, operator.name)?;
        let expected = (count(gates, planes), rest);
        if (found.0, found.1) != expected {
            wrong.push(format!("{} on {}: {found:?}, expected {expected:?}", cell.name, operator.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
