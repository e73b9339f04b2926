//! Blocks of the Fisher information: which parameters belong together, what is remembered of each, how it is inverted.
//!
//! A block keeps running sums of its statistics in double precision and a cached inverse in that of the parameters, both
//! as tensors of the optimiser's state, so that a checkpoint holds all of it to the bit.

use faer::linalg::solvers::DenseSolveCore;
use faer::{Mat, Side, c64};
use retrograd_engine::{DType, Params, Tensor};

use super::approximation::{Approximation, Half, Lengths};
use super::map::{Factor, MapBlock, Moved, moved_part};
use super::matrix::stored;
use super::parallel;
use super::shrink::{samples, towards_diagonal};
use super::structure::{Moments, Structure};
use crate::elementwise::{Real, with_real};
use crate::error::{Error, Result};

/// The running weight of all averages, among the state's tensors.
pub(crate) const WEIGHT: &str = "/kfac.weight";

/// What a block of the Fisher information is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Block {
    /// Kronecker factors of a linear map, its outputs in parts.
    Map(MapBlock),
    /// The matrix itself, of a tensor's real components.
    Full { param: String, size: usize },
    /// Its diagonal.
    Diagonal { param: String, size: usize },
}

/// How blocks are damped and inverted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Inversion {
    pub(crate) approximation: Approximation,
    pub(crate) lambda: f64,
    /// `p` of `λ / T^p`.
    pub(crate) power: f64,
    /// Whether π balances the two factors.
    pub(crate) pi: bool,
    /// Decay of the averages.
    pub(crate) decay: f64,
}

/// A tensor of the state: name, type and sizes.
pub(crate) type Place = (String, DType, Vec<usize>);

fn count(tensor: &Tensor) -> usize {
    tensor.len() * tensor.dtype().planes()
}

/// `average ← decay · average + share · sum`. Errors: sizes that differ, numbers that are not finite.
pub(crate) fn blend(key: &str, average: &mut Tensor, sum: &Tensor, decay: f64, share: f64) -> Result<()> {
    if average.len() != sum.len() || (sum.dtype().is_complex() && !average.dtype().is_complex()) {
        let text = |t: &Tensor| format!("{} {:?}", t.dtype(), t.dims());
        let what = format!("statistics of `{key}`");
        return Err(Error::Mismatch { what, expected: text(average), got: text(sum) });
    }
    if !sum.is_finite() {
        let at = (0..sum.len()).find(|&i| !sum.get(i).is_finite()).unwrap_or(0);
        let (name, value) = (format!("statistics {key}"), sum.get(at).to_string());
        return Err(Error::NotFinite { name, index: at, value });
    }
    if sum.dtype().is_complex() == average.dtype().is_complex() {
        return with_real!(sum, key, R => {
            let terms = sum.components::<R>()?;
            for (a, &x) in average.components_mut::<f64>()?.iter_mut().zip(terms) {
                *a = *a * decay + x.wide() * share;
            }
            Ok(())
        });
    }
    let before = average.clone();
    average.fill_with(|i| before.get(i) * decay + sum.get(i) * share);
    Ok(())
}

impl Block {
    /// Name for people: parameters and kind.
    pub(crate) fn describe(&self) -> (String, &'static str) {
        match self {
            Block::Map(m) => {
                let bias = m.spec.bias.as_ref().map(|(b, _)| b.as_str());
                let names: Vec<&str> = m.spec.weight.as_deref().into_iter().chain(bias).collect();
                let kind = match (m.spec.lookup, m.spec.every_step) {
                    (true, _) => "embedding",
                    (_, true) => "recurrent map",
                    _ => "map",
                };
                (names.join(" + "), kind)
            }
            Block::Full { param, .. } => (param.clone(), "full"),
            Block::Diagonal { param, .. } => (param.clone(), "diagonal"),
        }
    }

    /// Parameters it holds.
    pub(crate) fn params(&self) -> Vec<&str> {
        match self {
            Block::Map(m) => {
                let bias = m.spec.bias.as_ref().map(|(b, _)| b.as_str());
                m.spec.weight.as_deref().into_iter().chain(bias).collect()
            }
            Block::Full { param, .. } | Block::Diagonal { param, .. } => vec![param],
        }
    }

    /// What it keeps in the state.
    pub(crate) fn places(&self, approximation: Approximation) -> Vec<Place> {
        match self {
            Block::Map(m) => m.places(approximation),
            Block::Full { param, size } => {
                ["F", "i.F"].map(|s| (format!("{param}/kfac.{s}"), DType::F64, vec![*size, *size])).to_vec()
            }
            Block::Diagonal { param, size } => {
                ["D", "i.D"].map(|s| (format!("{param}/kfac.{s}"), DType::F64, vec![*size])).to_vec()
            }
        }
    }

    /// Adds a batch to the running sums.
    pub(crate) fn accumulate(&self, moments: &Moments, decay: f64, tensors: &mut Params) -> Result<()> {
        let (param, size, full) = match self {
            Block::Map(m) => return m.accumulate(moments, decay, tensors),
            Block::Full { param, size } => (param, *size, true),
            Block::Diagonal { param, size } => (param, *size, false),
        };
        let missing = || Error::Missing { what: format!("statistics of `{param}`") };
        // Rows are independent with mean 0 under drawn targets, so the square of their sum has the mean of the sum of
        // their squares: one gradient of the batch is an unbiased sample.
        let g = components(moments.gradients.get(param).ok_or_else(missing)?);
        let dims = if full { vec![size, size] } else { vec![size] };
        let mut sum = Tensor::zeros(DType::F64, dims)?;
        sum.fill_with(|k| match full {
            true => (g[k / size] * g[k % size]).into(),
            false => (g[k] * g[k]).into(),
        });
        let key = format!("{param}/kfac.{}", if full { "F" } else { "D" });
        let missing = || Error::Missing { what: format!("optimiser state `{key}`") };
        let average = tensors.get_mut(&key).ok_or_else(missing)?;
        blend(&key, average, &sum, decay, (1.0 - decay) / moments.rows.max(1) as f64)
    }

    /// A new cached inverse of a block that is no map. `weight` is the running weight of the averages.
    fn inverted(&self, how: Inversion, weight: f64, tensors: &Params) -> Result<Vec<(String, Tensor)>> {
        let get = |key: &str| {
            let missing = || Error::Missing { what: format!("optimiser state `{key}`") };
            tensors.get(key).ok_or_else(missing)
        };
        match self {
            Block::Map(_) => Ok(Vec::new()),
            Block::Full { param, size } => {
                let f = get(&format!("{param}/kfac.F"))?;
                let average = Mat::from_fn(*size, *size, |i, j| f.get(i * size + j).re / weight);
                let mut damped = towards_diagonal(&average, samples(how.decay, weight));
                (0..*size).for_each(|i| damped[(i, i)] += how.lambda);
                let llt = damped.llt(Side::Lower).map_err(|_| Error::Mismatch {
                    what: format!("statistics of `{param}`"),
                    expected: "a damping above 0".into(),
                    got: "a singular matrix".into(),
                })?;
                Ok(vec![(format!("{param}/kfac.i.F"), stored(&llt.inverse(), DType::F64)?)])
            }
            Block::Diagonal { param, size } => {
                let d = get(&format!("{param}/kfac.D"))?;
                let mut inverse = Tensor::zeros(DType::F64, [*size])?;
                inverse.fill_with(|i| {
                    let damped = d.get(i).re / weight + how.lambda;
                    if damped > 0.0 { (1.0 / damped).into() } else { 0.0.into() }
                });
                Ok(vec![(format!("{param}/kfac.i.D"), inverse)])
            }
        }
    }

    /// Parts that are multiplied one by one.
    fn parts(&self) -> usize {
        match self {
            Block::Map(m) => m.parts.len(),
            _ => 1,
        }
    }

    /// The product of a part's cached inverse with the gradients `z`.
    fn moved(&self, k: usize, approximation: Approximation, tensors: &Params, z: &Params) -> Result<Moved> {
        let (param, full) = match self {
            Block::Map(m) => return moved_part(m, k, approximation, tensors, z),
            Block::Full { param, .. } => (param, true),
            Block::Diagonal { param, .. } => (param, false),
        };
        let Some(z) = z.get(param) else { return Ok(Moved::Nothing) };
        let key = format!("{param}/kfac.i.{}", if full { "F" } else { "D" });
        let missing = || Error::Missing { what: format!("optimiser state `{key}`") };
        let inverse = tensors.get(&key).ok_or_else(missing)?;
        let g = components(z);
        let n = g.len();
        let moved = (0..n).map(|i| match full {
            true => (0..n).map(|j| inverse.get(i * n + j).re * g[j]).sum(),
            false => inverse.get(i).re * g[i],
        });
        Ok(Moved::Components(moved.collect()))
    }

    /// Writes what [`Block::moved`] gave for a part to its places.
    fn put(&self, k: usize, moved: &Moved, out: &mut Params) -> Result<()> {
        match (self, moved) {
            (Block::Map(m), Moved::Single(moved)) => m.put(k, moved, out),
            (Block::Map(m), Moved::Double(moved)) => m.put(k, moved, out),
            (Block::Full { param, .. } | Block::Diagonal { param, .. }, Moved::Components(moved)) => {
                match out.get_mut(param) {
                    Some(to) if to.dtype().is_complex() => {
                        to.fill_with(|i| c64::new(moved[2 * i], moved[2 * i + 1]));
                    }
                    Some(to) => to.fill_with(|i| moved[i].into()),
                    None => {}
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The product of the cached inverses with the gradients `z`, into `out`, which holds tensors of their sizes.
pub(crate) fn apply_all(
    blocks: &[Block],
    approximation: Approximation,
    tensors: &Params,
    z: &Params,
    out: &mut Params,
    threads: usize,
) -> Result<()> {
    let jobs: Vec<(&Block, usize)> =
        blocks.iter().flat_map(|b| (0..b.parts()).map(move |k| (b, k))).collect();
    let moved = parallel::each(jobs.len(), threads, |i| {
        let (block, k) = jobs[i];
        block.moved(k, approximation, tensors, z)
    });
    for ((block, k), moved) in jobs.into_iter().zip(moved) {
        block.put(k, &moved?, out)?;
    }
    Ok(())
}

/// Mean curvature along a parameter: of maps, or, where there is none, of other blocks.
///
/// Blocks of a few numbers are left out: of a step size or a factor that a whole matrix is made of they are thousands of
/// times as curved as everything else, and would decide alone.
pub(crate) fn mean_curvature(
    blocks: &[Block],
    lengths: &Lengths,
    weight: f64,
    tensors: &Params,
) -> Result<f64> {
    let (mut maps, mut others) = ((0.0, 0), (0.0, 0));
    let add = |sum: &mut (f64, usize), (trace, size): (f64, usize)| *sum = (sum.0 + trace, sum.1 + size);
    for block in blocks {
        let (key, size, stride) = match block {
            Block::Map(m) => {
                add(&mut maps, m.trace(lengths, weight, tensors)?);
                continue;
            }
            Block::Full { param, size } => (format!("{param}/kfac.F"), *size, size + 1),
            Block::Diagonal { param, size } => (format!("{param}/kfac.D"), *size, 1),
        };
        let missing = || Error::Missing { what: format!("optimiser state `{key}`") };
        let average = tensors.get(&key).ok_or_else(missing)?;
        add(&mut others, ((0..size).map(|i| average.get(i * stride).re).sum::<f64>() / weight, size));
    }
    let (trace, size) = if maps.1 > 0 { maps } else { others };
    Ok(if size > 0 { trace / size as f64 } else { 0.0 })
}

/// New cached inverses of all blocks. `weight` is the running weight of the averages.
///
/// Errors: a factor that is singular without damping, or not finite.
pub(crate) fn invert_all(
    blocks: &[Block],
    how: Inversion,
    lengths: &Lengths,
    weight: f64,
    tensors: &Params,
    threads: usize,
) -> Result<Vec<(String, Tensor)>> {
    let maps: Vec<&MapBlock> =
        blocks.iter().filter_map(|b| if let Block::Map(m) = b { Some(m) } else { None }).collect();
    let factors: Vec<(&MapBlock, Factor)> =
        maps.iter().flat_map(|&m| m.factors().into_iter().map(move |f| (m, f))).collect();
    let halves = parallel::each(factors.len(), threads, |i| {
        let (map, factor) = factors[i];
        map.half(factor, how, lengths, weight, tensors)
    });
    let halves: Vec<Half> = halves.into_iter().collect::<Result<_>>()?;
    // Part k of a map: the half of the inputs, then that of the outputs.
    let mut pairs = Vec::new();
    let mut input = 0;
    for (at, &(map, factor)) in factors.iter().enumerate() {
        match factor {
            Factor::Input => input = at,
            Factor::Output(k) => pairs.push((map, k, input, at)),
        }
    }
    let joined = parallel::each(pairs.len(), threads, |i| {
        let (map, k, input, output) = pairs[i];
        map.joined(k, &halves[input], &halves[output], lengths)
    });
    let others = blocks.iter().map(|block| block.inverted(how, weight, tensors));
    Ok(joined.into_iter().chain(others).collect::<Result<Vec<_>>>()?.concat())
}

/// Real components, those of a complex number side by side.
fn components(t: &Tensor) -> Vec<f64> {
    let complex = t.dtype().is_complex();
    (0..t.len())
        .flat_map(|i| {
            let z = t.get(i);
            if complex { vec![z.re, z.im] } else { vec![z.re] }
        })
        .collect()
}

/// What a caller may ask for a parameter instead of what its use suggests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// Kronecker factors where it is a linear map.
    Map,
    /// The full matrix.
    Full,
    /// The diagonal.
    Diagonal,
    /// None: Adam.
    Adam,
}

/// The blocks of a network's parameters, in their order, and the parameters without one.
///
/// A linear map has Kronecker factors unless its inputs are more than `most_inputs`; any other tensor of at most `full` real
/// numbers has the full matrix, a longer vector the diagonal, and what is left goes to Adam. `asked` overrides.
pub(crate) fn choose(
    structure: &Structure,
    params: &Params,
    most_inputs: usize,
    full: usize,
    asked: &dyn Fn(&str) -> Option<BlockKind>,
) -> (Vec<Block>, Vec<String>) {
    let mut blocks: Vec<Block> = Vec::new();
    let mut left = Vec::new();
    let mut held: Vec<String> = Vec::new();
    let as_map = |name: &str| asked(name).is_none_or(|kind| kind == BlockKind::Map);
    for (at, spec) in structure.maps.iter().enumerate() {
        let names = spec.weight.iter().chain(spec.bias.as_ref().map(|(b, _)| b));
        let tensors: Option<Vec<&Tensor>> = names.clone().map(|n| params.get(n)).collect();
        let Some(tensors) = tensors else { continue };
        let Some(first) = tensors.first() else { continue };
        let inputs = match &spec.weight {
            Some(_) if first.dims().len() == 2 => {
                first.dims()[usize::from(spec.transposed)] + usize::from(spec.bias.is_some())
            }
            Some(_) => continue,
            None => 1,
        };
        let too_wide = inputs > most_inputs && !spec.lookup;
        if too_wide || !names.clone().all(|n| as_map(n)) {
            continue;
        }
        held.extend(names.cloned());
        // Parts of one use of a matrix follow each other.
        if let Some(Block::Map(last)) = blocks.last_mut()
            && last.spec.weight == spec.weight
            && last.spec.input == spec.input
            && last.spec.bias.as_ref().map(|b| &b.0) == spec.bias.as_ref().map(|b| &b.0)
            && last.spec.outputs.end == spec.outputs.start
            && spec.weight.is_some()
        {
            last.spec.outputs.end = spec.outputs.end;
            last.parts.push((at, spec.outputs.clone()));
            continue;
        }
        let dtype = first.dtype();
        blocks.push(Block::Map(MapBlock {
            spec: spec.clone(),
            parts: vec![(at, spec.outputs.clone())],
            inputs,
            dtype,
            complex_inputs: dtype.is_complex() && !spec.lookup && spec.weight.is_some(),
        }));
    }
    for (name, tensor) in params.iter().filter(|(n, _)| !held.iter().any(|h| h == n)) {
        let (param, size) = (name.to_string(), count(tensor));
        let kind = asked(name).unwrap_or(match tensor.dims().len() {
            _ if size <= full => BlockKind::Full,
            0 | 1 => BlockKind::Diagonal,
            _ => BlockKind::Adam,
        });
        match kind {
            BlockKind::Full => blocks.push(Block::Full { param, size }),
            BlockKind::Diagonal => blocks.push(Block::Diagonal { param, size }),
            BlockKind::Map | BlockKind::Adam => left.push(param),
        }
    }
    (blocks, left)
}
