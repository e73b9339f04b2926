//! The block of a linear map: averages of its statistics, its inverse, and products with that.

use std::ops::Range;

use faer::traits::RealField;
use faer::{Mat, MatRef, Scale};
use retrograd_engine::{DType, Params, Tensor};

use super::approximation::{Approximation, Damping, Half, Inverse, Lengths, Unfit, mean_length};
use super::block::{Inversion, Place, blend};
use super::matrix::{composite, loaded, stored};
use super::product::View;
use super::structure::{MapSpec, Moments, lengths_of_map};
use crate::elementwise::Real;
use crate::error::{Error, Result};

/// Kronecker factors of a linear map with its bias, the outputs in parts with a `G` each.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MapBlock {
    pub(crate) spec: MapSpec,
    /// Places of the parts' statistics among the structure's maps, and their outputs.
    pub(crate) parts: Vec<(usize, Range<usize>)>,
    /// Inputs, that of the bias included.
    pub(crate) inputs: usize,
    /// Of the parameters.
    pub(crate) dtype: DType,
    /// Whether the statistics of the inputs are complex too.
    pub(crate) complex_inputs: bool,
}

/// A factor of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Factor {
    Input,
    Output(usize),
}

/// A row of a part's gradient for one input: in `tensor`, from element `start`, `stride` apart.
struct Line<'a> {
    tensor: &'a str,
    start: usize,
    stride: usize,
}

impl MapBlock {
    fn owner(&self) -> &str {
        let bias = || self.spec.bias.as_ref().map_or("", |(name, _)| name);
        self.spec.weight.as_deref().unwrap_or_else(bias)
    }

    fn key(&self, suffix: &str) -> String {
        format!("{}/kfac.{}.{suffix}", self.owner(), self.spec.outputs.start)
    }

    fn complex(&self) -> bool {
        self.dtype.is_complex()
    }

    /// Size of a real factor for `n` numbers.
    fn real(&self, n: usize) -> usize {
        if self.complex() { 2 * n } else { n }
    }

    /// What is assumed about time: a map that is used once a sequence has none, and that of one-hot inputs is diagonal.
    fn kind(&self, approximation: Approximation) -> Approximation {
        match self.spec.lookup || !self.spec.every_step {
            true => Approximation::Independence,
            false => approximation,
        }
    }

    /// Cached matrices: those of the inputs and those of each part, with their rows and columns.
    fn cached(&self, approximation: Approximation) -> Vec<(String, usize, usize)> {
        let n = self.real(self.inputs);
        let kind = self.kind(approximation);
        let mut out: Vec<(String, usize, usize)> = match kind {
            Approximation::Independence if self.spec.lookup => vec![("i.A".into(), n, 1)],
            Approximation::Independence => vec![("i.A".into(), n, n)],
            Approximation::Option1 { .. } => vec![("i.LA".into(), n, n)],
            Approximation::Option2 => vec![("i.PA".into(), n, n), ("i.KA".into(), n, n)],
        };
        for (k, (_, outputs)) in self.parts.iter().enumerate() {
            let m = self.real(outputs.len());
            let mut part =
                |s: &str, rows: usize, columns: usize| out.push((format!("{s}{k}"), rows, columns));
            match kind {
                Approximation::Independence => part("i.G.", m, m),
                Approximation::Option1 { .. } => {
                    part("i.LG.", m, m);
                    part("i.Y.", m, n);
                }
                Approximation::Option2 => {
                    part("i.PG.", m, m);
                    part("i.KG.", m, m);
                    part("i.Y.", m, n);
                }
            }
        }
        out
    }

    pub(crate) fn places(&self, approximation: Approximation) -> Vec<Place> {
        let number = |complex: bool| if complex { DType::C64 } else { DType::F64 };
        let lag = self.kind(approximation) != Approximation::Independence;
        let n = self.inputs;
        let mut out = match self.spec.lookup {
            true => vec![(self.key("A0"), DType::F64, vec![n])],
            false => vec![(self.key("A0"), number(self.complex_inputs), vec![n, n])],
        };
        if lag {
            out.push((self.key("A1"), number(self.complex_inputs), vec![n, n]));
        }
        for (k, (_, outputs)) in self.parts.iter().enumerate() {
            let dims = vec![outputs.len(); 2];
            out.push((self.key(&format!("G0.{k}")), number(self.complex()), dims.clone()));
            if lag {
                out.push((self.key(&format!("G1.{k}")), number(self.complex()), dims));
            }
        }
        let cached = self.cached(approximation).into_iter();
        // Column after column.
        out.extend(cached.map(|(s, rows, columns)| (self.key(&s), self.dtype.real(), vec![columns, rows])));
        out
    }

    pub(crate) fn accumulate(&self, moments: &Moments, decay: f64, tensors: &mut Params) -> Result<()> {
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

    /// Factors that are decomposed one by one.
    pub(crate) fn factors(&self) -> Vec<Factor> {
        std::iter::once(Factor::Input).chain((0..self.parts.len()).map(Factor::Output)).collect()
    }

    fn average(&self, suffix: &str, tensors: &Params) -> Result<Tensor> {
        let key = self.key(suffix);
        let missing = || Error::Missing { what: format!("optimiser state `{key}`") };
        tensors.get(&key).cloned().ok_or_else(missing)
    }

    /// A complex number is two real ones with half the mean square each.
    fn share(&self) -> f64 {
        if self.complex() { 0.5 } else { 1.0 }
    }

    /// Mean diagonal elements of `A_0` and `G_0` as real matrices, and the numbers of parameters they belong to.
    fn means(&self, weight: f64, tensors: &Params) -> Result<(f64, f64, usize)> {
        let diagonal = |t: &Tensor| -> (f64, usize) {
            let n = t.dims().first().copied().unwrap_or(1);
            let step = if t.dims().len() > 1 { n + 1 } else { 1 };
            ((0..n).map(|i| t.get(i * step).re).sum(), n)
        };
        let (trace_a, inputs) = diagonal(&self.average("A0", tensors)?);
        let (mut trace_g, mut outputs) = (0.0, 0);
        for k in 0..self.parts.len() {
            let (trace, n) = diagonal(&self.average(&format!("G0.{k}"), tensors)?);
            (trace_g, outputs) = (trace_g + trace, outputs + n);
        }
        let mean_a = trace_a / weight / inputs.max(1) as f64;
        let mean_g = self.share() * trace_g / weight / outputs.max(1) as f64;
        Ok((mean_a, mean_g, self.real(inputs * outputs)))
    }

    /// Uses of the map in a row, of mean length.
    fn uses(&self, lengths: &Lengths) -> f64 {
        mean_length(lengths_of_map(lengths, &self.spec)) * self.spec.uses as f64
    }

    /// The trace of the block as if steps were independent, and its size.
    pub(crate) fn trace(&self, lengths: &Lengths, weight: f64, tensors: &Params) -> Result<(f64, usize)> {
        let (mean_a, mean_g, size) = self.means(weight, tensors)?;
        Ok((self.uses(lengths) * mean_a * mean_g * size as f64, size))
    }

    fn damping(&self, how: Inversion, lengths: &Lengths, weight: f64, tensors: &Params) -> Result<Damping> {
        let (mean_a, mean_g, _) = self.means(weight, tensors)?;
        let strength = how.lambda / self.uses(lengths).powf(how.power);
        Ok(match how.pi {
            true => Damping::factored(strength, mean_a, mean_g),
            false => Damping::factored(strength, 1.0, 1.0),
        })
    }

    /// Decomposes one factor. `weight` is the running weight of the averages.
    pub(crate) fn half(
        &self,
        factor: Factor,
        how: Inversion,
        lengths: &Lengths,
        weight: f64,
        tensors: &Params,
    ) -> Result<Half> {
        let damping = self.damping(how, lengths, weight, tensors)?;
        let kind = self.kind(how.approximation);
        let load = |suffix: &str, share: f64| -> Result<Mat<f64>> {
            Ok(Scale(share / weight) * composite(&self.average(suffix, tensors)?, self.complex()))
        };
        let lagged = |suffix: &str, share: f64| -> Result<Option<Mat<f64>>> {
            let wanted = kind != Approximation::Independence;
            wanted.then(|| load(suffix, share)).transpose()
        };
        match factor {
            Factor::Input => {
                let (a0, a1) = (load("A0", 1.0)?, lagged("A1", 1.0)?);
                Half::of_inputs(kind, &a0, a1.as_ref(), damping).map_err(|u| self.unfit("A", u))
            }
            Factor::Output(k) => {
                let g0 = load(&format!("G0.{k}"), self.share())?;
                let g1 = lagged(&format!("G1.{k}"), self.share())?;
                Half::new(kind, &g0, g1.as_ref(), damping.g).map_err(|u| self.unfit("G", u))
            }
        }
    }

    /// Cached matrices of one part from its two halves; those of the inputs come with the first part.
    pub(crate) fn joined(
        &self,
        k: usize,
        input: &Half,
        output: &Half,
        lengths: &Lengths,
    ) -> Result<Vec<(String, Tensor)>> {
        let lengths = lengths_of_map(lengths, &self.spec);
        let found = Inverse::join(input, output, lengths, self.spec.uses as f64);
        let part = |s: &str| format!("{s}{k}");
        let (inputs, outputs): (Vec<(&str, &Mat<f64>)>, Vec<(String, &Mat<f64>)>) = match &found {
            Inverse::Independence { a, g } => (vec![("i.A", a)], vec![(part("i.G."), g)]),
            Inverse::Option1 { a, g, y } => (vec![("i.LA", a)], vec![(part("i.LG."), g), (part("i.Y."), y)]),
            Inverse::Option2 { pa, ka, pg, kg, y } => (
                vec![("i.PA", pa), ("i.KA", ka)],
                vec![(part("i.PG."), pg), (part("i.KG."), kg), (part("i.Y."), y)],
            ),
        };
        let inputs = inputs.into_iter().filter(|_| k == 0).map(|(s, m)| (s.to_string(), m));
        let dtype = self.dtype.real();
        inputs.chain(outputs).map(|(s, m)| Ok((self.key(&s), stored(m, dtype)?))).collect()
    }

    fn unfit(&self, factor: &str, unfit: Unfit) -> Error {
        let what = format!("statistics {factor} of `{}`", self.owner());
        let (expected, got) = match unfit {
            Unfit::Singular => ("a damping above 0", "a singular matrix"),
            Unfit::NotFinite => ("finite numbers", "a matrix that is not finite"),
        };
        Error::Mismatch { what, expected: expected.into(), got: got.into() }
    }

    fn view<'a, R: Real>(
        &self,
        k: usize,
        approximation: Approximation,
        tensors: &'a Params,
    ) -> Result<View<'a, R>> {
        let whole = |suffix: &str| -> Result<MatRef<'a, R>> {
            let key = self.key(suffix);
            let missing = || Error::Missing { what: format!("optimiser state `{key}`") };
            loaded(&key, tensors.get(&key).ok_or_else(missing)?)
        };
        let part = |suffix: &str| whole(&format!("{suffix}{k}"));
        Ok(match self.kind(approximation) {
            Approximation::Independence => View::Independence { a: whole("i.A")?, g: part("i.G.")? },
            Approximation::Option1 { .. } => {
                View::Option1 { a: whole("i.LA")?, g: part("i.LG.")?, y: part("i.Y.")? }
            }
            Approximation::Option2 => View::Option2 {
                pa: whole("i.PA")?,
                ka: whole("i.KA")?,
                pg: part("i.PG.")?,
                kg: part("i.KG.")?,
                y: part("i.Y.")?,
            },
        })
    }

    /// Where a part's gradient for input `i` is, if it has one.
    fn line(&self, k: usize, i: usize, tensors: &Params) -> Option<Line<'_>> {
        let first = self.parts[k].1.start;
        let own = self.inputs - usize::from(self.spec.bias.is_some());
        if i >= own {
            let (tensor, start) = self.spec.bias.as_ref()?;
            return Some(Line { tensor, start: start + first - self.spec.outputs.start, stride: 1 });
        }
        let tensor = self.spec.weight.as_deref()?;
        let columns = *tensors.get(tensor)?.dims().get(1)?;
        Some(match self.spec.transposed {
            true => Line { tensor, start: first * columns + i, stride: columns },
            false => Line { tensor, start: i * columns + first, stride: 1 },
        })
    }

    /// The product of a part's cached inverse with the gradients `z`.
    pub(crate) fn moved<R: Real + RealField>(
        &self,
        k: usize,
        approximation: Approximation,
        tensors: &Params,
        z: &Params,
    ) -> Result<Mat<R>> {
        let (m, n) = (self.parts[k].1.len(), self.inputs);
        let mut gradient = Mat::<R>::zeros(self.real(m), self.real(n));
        for i in 0..n {
            let Some(Line { tensor, start, stride }) = self.line(k, i, z) else { continue };
            let Some(from) = z.get(tensor) else { continue };
            let from = from.components::<R>()?;
            if !self.complex() {
                let from = from[start..].iter().step_by(stride);
                gradient.col_as_slice_mut(i).iter_mut().zip(from).for_each(|(x, &g)| *x = g);
                continue;
            }
            for j in 0..m {
                let at = 2 * (start + j * stride);
                let (re, im) = (from[at], from[at + 1]);
                (gradient[(j, i)], gradient[(m + j, n + i)]) = (re, re);
                (gradient[(m + j, i)], gradient[(j, n + i)]) = (im, -im);
            }
        }
        Ok(self.view::<R>(k, approximation, tensors)?.apply(gradient.as_ref()))
    }

    /// Writes what [`MapBlock::moved`] gave for a part to its places.
    pub(crate) fn put<R: Real + RealField>(&self, k: usize, moved: &Mat<R>, out: &mut Params) -> Result<()> {
        let m = self.parts[k].1.len();
        for i in 0..self.inputs {
            let Some(Line { tensor, start, stride }) = self.line(k, i, out) else { continue };
            let Some(to) = out.get_mut(tensor) else { continue };
            let to = to.components_mut::<R>()?;
            let column = moved.col_as_slice(i);
            if !self.complex() {
                let to = to[start..].iter_mut().step_by(stride);
                to.zip(column).for_each(|(x, &d)| *x = d);
                continue;
            }
            for j in 0..m {
                let at = 2 * (start + j * stride);
                (to[at], to[at + 1]) = (column[j], column[m + j]);
            }
        }
        Ok(())
    }
}

/// Runs with the real type of a map's parameters.
pub(crate) fn moved_part(
    block: &MapBlock,
    k: usize,
    approximation: Approximation,
    tensors: &Params,
    z: &Params,
) -> Result<Moved> {
    match block.dtype.real() {
        DType::F32 => Ok(Moved::Single(block.moved(k, approximation, tensors, z)?)),
        _ => Ok(Moved::Double(block.moved(k, approximation, tensors, z)?)),
    }
}

/// What a product gave.
#[derive(Debug)]
pub(crate) enum Moved {
    Single(Mat<f32>),
    Double(Mat<f64>),
    /// Components of a full or diagonal block.
    Components(Vec<f64>),
    /// Nothing to move: the parameter has no gradient.
    Nothing,
}
