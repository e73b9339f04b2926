//! Blocks of the Fisher information: which parameters belong together, what is remembered of each, how it is inverted.
//!
//! A block keeps running sums of its statistics and a cached inverse, both as `f64` tensors of the optimiser's state, so
//! that a checkpoint holds all of it to the bit.

use std::ops::Range;

use faer::linalg::solvers::DenseSolveCore;
use faer::{Mat, Scale, Side, c64};
use retrograd_engine::{DType, Params, Tensor};

use super::approximation::{Approximation, Culprit, Damping, Inverse, Lengths, Unfit, mean_length};
use super::matrix::{composite, loaded, matrix, stored};
use super::structure::{MapSpec, Moments, Structure, lengths_of_map};
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

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MapBlock {
    pub(crate) spec: MapSpec,
    /// Places of the parts' statistics among the structure's maps, and their outputs.
    pub(crate) parts: Vec<(usize, Range<usize>)>,
    inputs: usize,
    complex: bool,
    /// Whether the statistics of the inputs are complex too.
    complex_inputs: bool,
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
}

/// A tensor of the state: name, type and sizes.
pub(crate) type Place = (String, DType, Vec<usize>);

fn count(tensor: &Tensor) -> usize {
    tensor.len() * tensor.dtype().planes()
}

impl MapBlock {
    fn owner(&self) -> &str {
        let bias = || self.spec.bias.as_ref().map_or("", |(name, _)| name);
        self.spec.weight.as_deref().unwrap_or_else(bias)
    }

    fn key(&self, suffix: &str) -> String {
        format!("{}/kfac.{}.{suffix}", self.owner(), self.spec.outputs.start)
    }

    /// Size of a real factor for `n` numbers.
    fn real(&self, n: usize) -> usize {
        if self.complex { 2 * n } else { n }
    }

    fn places(&self, approximation: Approximation) -> Vec<Place> {
        let c64 = |complex: bool| if complex { DType::C64 } else { DType::F64 };
        let lag = approximation != Approximation::Independence && self.spec.every_step;
        let mut out = Vec::new();
        let mut put = |name: String, dtype: DType, dims: &[usize]| out.push((name, dtype, dims.to_vec()));
        let n = self.inputs;
        let diagonal = self.spec.lookup;
        match diagonal {
            true => put(self.key("A0"), DType::F64, &[n]),
            false => put(self.key("A0"), c64(self.complex_inputs), &[n, n]),
        }
        if lag && !diagonal {
            put(self.key("A1"), c64(self.complex_inputs), &[n, n]);
        }
        let kind = if diagonal { Approximation::Independence } else { approximation };
        for (k, (_, outputs)) in self.parts.iter().enumerate() {
            let (m, part) = (outputs.len(), |s: &str| self.key(&format!("{s}{k}")));
            put(part("G0."), c64(self.complex), &[m, m]);
            if lag && !diagonal {
                put(part("G1."), c64(self.complex), &[m, m]);
            }
            let (n, m) = (self.real(n), self.real(m));
            match kind {
                Approximation::Independence => {
                    put(part("i.A."), DType::F64, &[n, if diagonal { 1 } else { n }]);
                    put(part("i.G."), DType::F64, &[m, m]);
                }
                Approximation::Option1 { .. } => {
                    put(part("i.LA."), DType::F64, &[n, n]);
                    put(part("i.LG."), DType::F64, &[m, m]);
                    put(part("i.Y."), DType::F64, &[m, n]);
                }
                Approximation::Option2 => {
                    for (s, size) in [("i.PA.", n), ("i.KA.", n), ("i.PG.", m), ("i.KG.", m)] {
                        put(part(s), DType::F64, &[size, size]);
                    }
                    put(part("i.Y."), DType::F64, &[m, n]);
                }
            }
        }
        out
    }

    fn accumulate(&self, moments: &Moments, decay: f64, tensors: &mut Params) -> Result<()> {
        for (k, (at, _)) in self.parts.iter().enumerate() {
            let map = &moments.maps[*at];
            let terms = moments.count(&self.spec);
            let mut add = |suffix: String, sum: Option<&Tensor>| -> Result<()> {
                let key = self.key(&suffix);
                let Some(sum) = sum else { return Ok(()) };
                match tensors.get_mut(&key) {
                    Some(average) => blend(&key, average, sum, decay, (1.0 - decay) / terms),
                    None => Ok(()),
                }
            };
            if k == 0 {
                let constant;
                let (a0, a1) = match &map.a0 {
                    Some(a0) => (Some(a0), map.a1.as_ref()),
                    None => {
                        // The input is 1: all that is not at the first step has one before it.
                        let lengths = lengths_of_map(&moments.lengths, &self.spec);
                        let pairs = lengths.iter().map(|&(t, p)| (t - 1) as f64 * p).sum::<f64>();
                        let rows = (moments.rows * self.spec.uses) as f64;
                        constant = [terms, pairs * rows].map(|x| Tensor::full(DType::F64, [1, 1], x));
                        let [a, b] = &constant;
                        (a.as_ref().ok(), b.as_ref().ok())
                    }
                };
                add("A0".into(), a0)?;
                add("A1".into(), a1)?;
            }
            add(format!("G0.{k}"), Some(&map.g0))?;
            add(format!("G1.{k}"), map.g1.as_ref())?;
        }
        Ok(())
    }

    fn invert(
        &self,
        how: Inversion,
        lengths: &Lengths,
        weight: f64,
        tensors: &Params,
    ) -> Result<Vec<(String, Tensor)>> {
        let lengths = lengths_of_map(lengths, &self.spec);
        let average = |suffix: &str| -> Result<Option<Mat<f64>>> {
            let key = self.key(suffix);
            tensors.get(&key).map(|t| Ok(Scale(1.0 / weight) * composite(t, self.complex))).transpose()
        };
        let require = |m: Option<Mat<f64>>, suffix: &str| {
            m.ok_or_else(|| Error::Missing { what: format!("optimiser state `{}`", self.key(suffix)) })
        };
        let (a0, a1) = (require(average("A0")?, "A0")?, average("A1")?);
        // A complex number is two real ones with half the mean square each.
        let share = if self.complex { 0.5 } else { 1.0 };
        let mut parts = Vec::new();
        let (mut trace, mut outputs) = (0.0, 0);
        for k in 0..self.parts.len() {
            let suffix = format!("G0.{k}");
            let g0 = Scale(share) * require(average(&suffix)?, &suffix)?;
            let g1 = average(&format!("G1.{k}"))?.map(|g| Scale(share) * g);
            trace += (0..g0.nrows()).map(|i| g0[(i, i)]).sum::<f64>();
            outputs += g0.nrows();
            parts.push((g0, g1));
        }
        let diagonal = a0.ncols() == 1;
        let mean_a =
            (0..a0.nrows()).map(|i| a0[(i, if diagonal { 0 } else { i })]).sum::<f64>() / a0.nrows() as f64;
        let uses = self.spec.uses as f64;
        let strength = how.lambda / (mean_length(lengths) * uses).powf(how.power);
        let mean_g = trace / outputs.max(1) as f64;
        let damping = match how.pi {
            true => Damping::factored(strength, mean_a, mean_g),
            false => Damping::factored(strength, 1.0, 1.0),
        };
        let found = Inverse::of_parts(how.approximation, &a0, a1.as_ref(), &parts, damping, lengths, uses)
            .map_err(|culprit| self.unfit(culprit))?;
        let mut out = Vec::new();
        for (k, inverse) in found.iter().enumerate() {
            let mut put = |suffix: &str, m: &Mat<f64>| -> Result<()> {
                out.push((self.key(&format!("{suffix}{k}")), stored(m)?));
                Ok(())
            };
            match inverse {
                Inverse::Independence { a, g } => {
                    put("i.A.", a)?;
                    put("i.G.", g)?;
                }
                Inverse::Option1 { a, g, y } => {
                    put("i.LA.", a)?;
                    put("i.LG.", g)?;
                    put("i.Y.", y)?;
                }
                Inverse::Option2 { pa, ka, pg, kg, y } => {
                    put("i.PA.", pa)?;
                    put("i.KA.", ka)?;
                    put("i.PG.", pg)?;
                    put("i.KG.", kg)?;
                    put("i.Y.", y)?;
                }
            }
        }
        Ok(out)
    }

    fn unfit(&self, (factor, unfit): Culprit) -> Error {
        let what = format!("statistics {factor} of `{}`", self.owner());
        let (expected, got) = match unfit {
            Unfit::Singular => ("a damping above 0", "a singular matrix"),
            Unfit::NotFinite => ("finite numbers", "a matrix that is not finite"),
        };
        Error::Mismatch { what, expected: expected.into(), got: got.into() }
    }

    fn inverse(&self, k: usize, approximation: Approximation, tensors: &Params) -> Result<Inverse> {
        let load = |suffix: &str| -> Result<Mat<f64>> {
            let key = self.key(&format!("{suffix}{k}"));
            let missing = || Error::Missing { what: format!("optimiser state `{key}`") };
            loaded(&key, tensors.get(&key).ok_or_else(missing)?)
        };
        let kind = if self.spec.lookup { Approximation::Independence } else { approximation };
        Ok(match kind {
            Approximation::Independence => Inverse::Independence { a: load("i.A.")?, g: load("i.G.")? },
            Approximation::Option1 { .. } => {
                Inverse::Option1 { a: load("i.LA.")?, g: load("i.LG.")?, y: load("i.Y.")? }
            }
            Approximation::Option2 => Inverse::Option2 {
                pa: load("i.PA.")?,
                ka: load("i.KA.")?,
                pg: load("i.PG.")?,
                kg: load("i.KG.")?,
                y: load("i.Y.")?,
            },
        })
    }

    fn apply(
        &self,
        approximation: Approximation,
        tensors: &Params,
        z: &Params,
        out: &mut Params,
    ) -> Result<()> {
        let weight = self.spec.weight.as_ref().and_then(|w| z.get(w).map(|t| (w, t)));
        let bias = self.spec.bias.as_ref().and_then(|(b, start)| z.get(b).map(|t| (b, *start, t)));
        let own = self.inputs - usize::from(self.spec.bias.is_some());
        let row = |j: usize| self.spec.outputs.start + j;
        // Place of output j and input i in the tensor of the matrix.
        let place = |t: &Tensor, j: usize, i: usize| match self.spec.transposed {
            true => row(j) * own + i,
            false => i * t.dims()[1] + row(j),
        };
        for (k, (_, outputs)) in self.parts.iter().enumerate() {
            let from = outputs.start - self.spec.outputs.start;
            let m = outputs.len();
            let gradient = matrix(m, self.inputs, self.complex, |j, i| match (weight, bias) {
                (Some((_, w)), _) if i < own => w.get(place(w, from + j, i)),
                (_, Some((_, start, b))) if i >= own => b.get(start + from + j),
                _ => c64::new(0.0, 0.0),
            });
            let moved = self.inverse(k, approximation, tensors)?.apply(&gradient);
            let number = |j: usize, i: usize| {
                let im = if self.complex { moved[(m + j, i)] } else { 0.0 };
                c64::new(moved[(j, i)], im)
            };
            let mut write = |name: &str, f: &dyn Fn(&Tensor, usize) -> Option<c64>| {
                if let Some(tensor) = out.get_mut(name) {
                    let before = tensor.clone();
                    tensor.fill_with(|at| f(&before, at).unwrap_or_else(|| before.get(at)));
                }
            };
            if let Some((name, w)) = weight {
                let columns = w.dims()[1];
                write(name, &|_, at| {
                    let (r, c) = (at / columns, at % columns);
                    let (j, i) = if self.spec.transposed { (r, c) } else { (c, r) };
                    let j = j.checked_sub(row(from)).filter(|&j| j < m)?;
                    Some(number(j, i))
                });
            }
            if let Some((name, start, _)) = bias {
                write(name, &|_, at| {
                    let j = at.checked_sub(start + from).filter(|&j| j < m)?;
                    Some(number(j, own))
                });
            }
        }
        Ok(())
    }
}

/// `average ← decay · average + share · sum`. Errors: sizes that differ, numbers that are not finite.
fn blend(key: &str, average: &mut Tensor, sum: &Tensor, decay: f64, share: f64) -> Result<()> {
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

    /// New cached inverses. `weight` is the running weight of the averages.
    pub(crate) fn invert(
        &self,
        how: Inversion,
        lengths: &Lengths,
        weight: f64,
        tensors: &Params,
    ) -> Result<Vec<(String, Tensor)>> {
        let get = |key: &str| {
            let missing = || Error::Missing { what: format!("optimiser state `{key}`") };
            tensors.get(key).ok_or_else(missing)
        };
        match self {
            Block::Map(m) => m.invert(how, lengths, weight, tensors),
            Block::Full { param, size } => {
                let f = get(&format!("{param}/kfac.F"))?;
                let damped = Mat::from_fn(*size, *size, |i, j| {
                    f.get(i * size + j).re / weight + if i == j { how.lambda } else { 0.0 }
                });
                let llt = damped.llt(Side::Lower).map_err(|_| Error::Mismatch {
                    what: format!("statistics of `{param}`"),
                    expected: "a damping above 0".into(),
                    got: "a singular matrix".into(),
                })?;
                Ok(vec![(format!("{param}/kfac.i.F"), stored(&llt.inverse())?)])
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

    /// Writes the product of the cached inverse with the gradients `z` into `out`, which holds tensors of their sizes.
    pub(crate) fn apply(
        &self,
        approximation: Approximation,
        tensors: &Params,
        z: &Params,
        out: &mut Params,
    ) -> Result<()> {
        let (param, full) = match self {
            Block::Map(m) => return m.apply(approximation, tensors, z, out),
            Block::Full { param, .. } => (param, true),
            Block::Diagonal { param, .. } => (param, false),
        };
        let (Some(z), Some(to)) = (z.get(param), out.get_mut(param)) else { return Ok(()) };
        let key = format!("{param}/kfac.i.{}", if full { "F" } else { "D" });
        let missing = || Error::Missing { what: format!("optimiser state `{key}`") };
        let inverse = tensors.get(&key).ok_or_else(missing)?;
        let g = components(z);
        let n = g.len();
        let moved: Vec<f64> = (0..n)
            .map(|i| match full {
                true => (0..n).map(|j| inverse.get(i * n + j).re * g[j]).sum(),
                false => inverse.get(i).re * g[i],
            })
            .collect();
        match to.dtype().is_complex() {
            true => to.fill_with(|i| c64::new(moved[2 * i], moved[2 * i + 1])),
            false => to.fill_with(|i| moved[i].into()),
        }
        Ok(())
    }
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
        let complex = first.dtype().is_complex();
        blocks.push(Block::Map(MapBlock {
            spec: spec.clone(),
            parts: vec![(at, spec.outputs.clone())],
            inputs,
            complex,
            complex_inputs: complex && !spec.lookup && spec.weight.is_some(),
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
