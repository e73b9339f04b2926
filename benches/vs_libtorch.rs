//! This engine beside libtorch: loss and every gradient of the same weights and inputs.
//!
//! ```text
//! LIBTORCH_USE_PYTORCH=1 cargo bench --bench vs_libtorch --features libtorch
//! ```
//!
//! needs PyTorch 2.13 in the Python on the path, and its `torch/lib` folder in `LD_LIBRARY_PATH`. Both sides agree to
//! a thousandth of the largest entry of each gradient before any time is taken. IDs read
//! `vs_libtorch/lstm/T784_N100_C1_H128/retrograd`. With `--request FILE` this is libtorch as a worker of
//! `benches/peers/run`, which measures each side in a process of its own and is the comparison to quote.

#[cfg(feature = "libtorch")]
#[path = "peers/case.rs"]
mod case;
#[cfg(feature = "libtorch")]
#[path = "peers/libtorch.rs"]
mod libtorch;
#[cfg(feature = "libtorch")]
#[path = "peers/mgu.rs"]
mod mgu;

#[cfg(not(feature = "libtorch"))]
fn main() {
    println!(
        "vs_libtorch: turned on by `LIBTORCH_USE_PYTORCH=1 cargo bench --bench vs_libtorch --features libtorch`, \
         see benches/peers/README.md"
    );
}

#[cfg(feature = "libtorch")]
fn main() -> case::Fallible<()> {
    match case::Request::from_args()? {
        Some(request) => libtorch::work(&request),
        None => libtorch::side_by_side(),
    }
}
