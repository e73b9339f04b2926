//! FastGRNN-LSQ: low rank, sparse in three phases, quantized at the end, and resumable in the middle of it.
#![allow(clippy::unwrap_used, clippy::panic)]

use retrograd::train::{TrainConfig, Trainer};

#[test]
fn low_rank_sparse_quantized() {
    let mut config = TrainConfig::new("adding", "fastgrnn", Some("lr")).unwrap();
    config
        .set_all([
            "T=8",
            "train=200",
            "valid=20",
            "test=20",
            "batch=20",
            "eval_batch=20",
            "hidden=12",
            "rank=3",
            "input_rank=2",
            "nonlinearity=quantized",
            "optimizer=adam",
            "lr=1e-2",
            "steps=60",
            "constraint=sparse,grid",
            "sparse.keep=0.3",
            "sparse.from=20",
            "sparse.fix=40",
            "sparse.every=5",
            "sparse.params=layer0.U*,layer0.W*",
            "grid.from=60",
            "grid.params=layer0.U*,layer0.W*",
        ])
        .unwrap();
    let mut trainer = Trainer::new(config).unwrap();
    let names = ["layer0.U", "layer0.U.2", "layer0.W.L", "layer0.W.R"];
    let mut losses = Vec::new();
    while trainer.ended().is_none() {
        losses.push(trainer.step().unwrap().loss);
        let step = trainer.position().step;
        let zeros = |name: &str| {
            let w = trainer.params().require(name).unwrap();
            (w.len(), (0..w.len()).filter(|&i| w.get(i).re == 0.0).count())
        };
        for name in names {
            let (all, zeros) = zeros(name);
            match step {
                ..=20 => assert_eq!(zeros, 0, "{name} after {step}"),
                40.. => {
                    assert!(zeros >= all - (0.3 * all as f64).ceil() as usize, "{name} after {step}: {zeros}")
                }
                _ => {}
            }
        }
    }
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    assert!(mean(&losses[50..]) < mean(&losses[..10]), "{losses:?}");
    // Bytes: at most 255 levels, all multiples of the largest over 127.
    for name in names {
        let w = trainer.params().require(name).unwrap();
        let largest = (0..w.len()).map(|i| w.get(i).re.abs()).fold(0.0, f64::max);
        for i in 0..w.len() {
            let level = w.get(i).re / largest * 127.0;
            assert!((level - level.round()).abs() < 1e-3, "{name}: {level}");
        }
    }
}
