//! Second moments of linear maps, taken where their gradients are.
//!
//! A linear map `s = a W + b` meets an input `a` and, in the adjoint, a cotangent `g` of `s`; its gradient is the sum
//! over time of their outer products. Methods that precondition a gradient by Kronecker factors of its covariance
//! (Martens, Grosse 2015, "Optimizing neural networks with Kronecker-factored approximate curvature"; Martens, Ba,
//! Johnson 2018, for recurrent networks) need four more sums of the same kind:
//!
//! ```text
//! A_0 = Σ_t ā_t ā_tᴴ    A_1 = Σ_t ā_{t+1} ā_tᴴ    G_0 = Σ_t g_t g_tᴴ    G_1 = Σ_t g_{t+1} g_tᴴ
//! ```
//!
//! over steps and rows, `ā = [a; 1]` where a bias is added to the product. [`vjp_with_statistics`] records them in the
//! adjoint scan itself: `A_0` and `G_0` are deferred contractions of the values the weight gradient contracts, and the
//! step before comes from one more state of the adjoint, which holds the value of the step it visited last. Nothing
//! depends on that state but the sum, so it is on no loop: the plan takes all four for a whole chunk of time at once,
//! carries the state's one row from chunk to chunk and from segment to segment, and accounts for every byte of it.
//! Where nobody asks for them nothing of this is recorded.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use crate::autodiff;
use crate::core_ops::{active_mask, add, concat, conj, fill, keep_ended, stop_gradient};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::{Layout, layout};
use crate::matmul::{RowContract, row_contract};
use crate::op::{Class, Io, Op, Ty};
use crate::scan;
use crate::shape::{Lead, Shape};
use crate::tape::{NodeKind, Tape, Var};

/// What statistics are taken.
#[derive(Clone, Copy, Debug)]
pub struct StatisticsOptions {
    /// Number of steps of each row, `[N]` of `I32`, as given to the scans: a step past a row's end adds nothing.
    pub lengths: Option<Var>,
    /// Whether `A_1` and `G_1` are wanted.
    pub lag: bool,
    /// Most outputs of a map that share one `G`; a wider map is cut into equal parts, each with its own.
    pub widest: usize,
}

impl Default for StatisticsOptions {
    fn default() -> StatisticsOptions {
        StatisticsOptions { lengths: None, lag: true, widest: usize::MAX }
    }
}

/// The statistics of a linear map, sums over all its rows, steps and uses.
#[derive(Clone, Debug)]
pub struct MapStatistics {
    /// The matrix; `None` for a bias that belongs to no product.
    pub weight: Option<Var>,
    /// Whether the matrix is used as `[outputs, inputs]`.
    pub transposed: bool,
    /// A vector added to the product, and its element at `outputs.start`. Its coordinate of `ā` is the last.
    pub bias: Option<(Var, usize)>,
    /// Outputs these are for, as places of the parameter `weight` (of `bias` where there is none).
    pub outputs: Range<usize>,
    /// Whether inputs choose rows of the matrix; `a0` is then the diagonal of `A_0`.
    pub lookup: bool,
    /// Whether the map is used at every step.
    pub every_step: bool,
    /// Times the map is used in one row at one step, in all its uses.
    pub repeats: usize,
    /// `A_0` `[I,I]`, or `[I]` of a lookup; `None` where the input is the constant 1.
    pub a0: Option<Var>,
    /// `A_1` `[I,I]`, rows the later step; `None` without a lag.
    pub a1: Option<Var>,
    /// `G_0` `[J,J]`.
    pub g0: Var,
    /// `G_1` `[J,J]`, rows the later step; `None` without a lag.
    pub g1: Option<Var>,
}

/// What [`vjp_with_statistics`] found.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Linear maps; parts of one that share inputs have the same `a0`.
    pub maps: Vec<MapStatistics>,
    /// Parameters asked for that are no such maps, or also something else.
    pub without: Vec<Var>,
}

/// [`vjp`](crate::vjp), and the statistics of the linear maps among the parameters `of`.
///
/// A parameter is such a map if all it does with what varies by row is multiply it, be added to such a product, or have
/// rows chosen of it ([`Op::is_lookup`]); slices of a parameter along its outputs may do so apart. What it does together
/// with parameters alone, as both of `V` and `H` in the middle of `(I + V H)² = I + V (2 I + H V) H`, has no part in the
/// statistics. Complex maps have Hermitian statistics.
///
/// The cotangents given decide what the `G` are: for the Fisher information those of `−log p` of each row, undivided,
/// at targets drawn from the model.
///
/// ```
/// use retrograd_engine::statistics::{StatisticsOptions, vjp_with_statistics};
/// use retrograd_engine::{DType, Params, Program, RunOptions, Shape, Tape, Tensor, matmul, scan};
/// # fn main() -> retrograd_engine::Result<()> {
/// let mut tape = Tape::new();
/// let w = tape.param("w", DType::F64, [2, 2])?;
/// let h0 = tape.param("h0", DType::F64, [2])?;
/// let x = tape.input("x", DType::F64, Shape::sequence([2]))?;
/// let bar = tape.input("bar", DType::F64, Shape::rows([2]))?;
/// let (last, ()) = scan(&mut tape, h0, x, |tape, h, x| {
///     let wh = matmul(tape, h, w)?;
///     Ok((retrograd_engine::core_ops::add(tape, wh, x)?, ()))
/// })?;
/// let options = StatisticsOptions::default();
/// let (_, found) = vjp_with_statistics(&mut tape, &[(last, bar)], &[w], &[w], &options)?;
/// let program = Program::new(&tape, &[found.maps[0].g0], RunOptions::default())?;
/// # let _ = program; Ok(()) }
/// ```
///
/// Errors: as [`vjp`](crate::vjp); a value of `of` that is not in `wrt`.
pub fn vjp_with_statistics(
    tape: &mut Tape,
    seeds: &[(Var, Var)],
    wrt: &[Var],
    of: &[Var],
    options: &StatisticsOptions,
) -> Result<(Vec<Option<Var>>, Statistics)> {
    if options.widest == 0 {
        return Err(Error::argument("statistics", "maps cut into parts of 0 outputs; at least 1"));
    }
    let mut params = Vec::new();
    for &v in of {
        let v = tape.resolve(v)?;
        if !wrt.contains(&v) {
            return Err(Error::argument(
                "statistics",
                format!("{v:?} is not among the values of the gradient"),
            ));
        }
        params.push(v);
    }
    let mut watch = Watch::new(tape, &params, *options)?;
    let bars = autodiff::vjp_watched(tape, seeds, wrt, Some(&mut watch))?;
    let sites = std::mem::take(&mut watch.sites);
    for site in join_biases(sites) {
        watch.outside(tape, &site)?;
    }
    Ok((bars, watch.finish(tape, &params)?))
}

/// A parameter, or a slice of one along one axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Part {
    /// Number among the parameters asked for.
    pub(crate) param: usize,
    /// Axis it is a slice along, if it is one.
    axis: Option<usize>,
    start: usize,
    len: usize,
}

/// What is watched for while cotangents are recorded on one tape.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Values of the tape that are parameters or slices of some.
    parts: HashMap<Var, Part>,
    options: StatisticsOptions,
    /// Uses on this tape.
    sites: Vec<Site>,
    /// Uses whose statistics are recorded.
    maps: Vec<(usize, MapStatistics)>,
    /// Parameters that are something else too.
    spoiled: Vec<usize>,
}

#[derive(Clone, Debug)]
enum Role {
    Product { transposed: bool },
    Lookup { op: Arc<dyn Op>, inputs: SmallVec<[Var; 4]>, output: Var },
    Bias,
}

/// One use of a parameter: where its input and its cotangent are.
#[derive(Clone, Debug)]
struct Site {
    part: Part,
    role: Role,
    input: Option<Var>,
    g: Var,
    bias: Option<Part>,
}

/// Gives each bias to the product whose output it is added to, which has the same cotangent: the last one in the order
/// of parameters. A bias without a product stays alone.
fn join_biases(sites: Vec<Site>) -> Vec<Site> {
    let is_bias = |s: &Site| matches!(s.role, Role::Bias);
    let (biases, mut rest): (Vec<Site>, Vec<Site>) = sites.into_iter().partition(is_bias);
    for bias in biases {
        let fits =
            |s: &&mut Site| matches!(s.role, Role::Product { .. }) && s.g == bias.g && s.bias.is_none();
        match rest.iter_mut().filter(fits).max_by_key(|s| s.part.param) {
            Some(site) => site.bias = Some(bias.part),
            None => rest.push(bias),
        }
    }
    rest
}

impl Watch {
    fn new(tape: &Tape, params: &[Var], options: StatisticsOptions) -> Result<Watch> {
        let mut watch =
            Watch { parts: HashMap::new(), options, sites: vec![], maps: vec![], spoiled: vec![] };
        for (i, node) in tape.nodes.iter().enumerate() {
            let v = Var { tape: tape.id, index: i as u32 };
            if let Some(param) = params.iter().position(|&p| p == v) {
                watch.parts.insert(v, Part { param, axis: None, start: 0, len: 0 });
            } else if let NodeKind::Op(op) = &node.kind
                && let Class::Layout(&Layout::Slice { axis, start, len }) = op.class()
                && let Some(&part) = watch.parts.get(&node.inputs[0])
                && part.axis.is_none_or(|a| a == axis)
            {
                watch.parts.insert(v, Part { axis: Some(axis), start: part.start + start, len, ..part });
            }
        }
        Ok(watch)
    }

    /// What a value of the tape is of a parameter.
    pub(crate) fn part(&self, v: Var) -> Option<Part> {
        self.parts.get(&v).copied()
    }

    /// The same watch for the step of a scan, whose placeholders `inner` stand for parts.
    pub(crate) fn enter(&self, inner: impl IntoIterator<Item = (Var, Part)>) -> Watch {
        let parts = inner.into_iter().collect();
        Watch { parts, options: self.options, sites: vec![], maps: vec![], spoiled: vec![] }
    }

    /// Notes what an operation does with its input number `k`, if that is watched: `bar` is the cotangent its rule gave
    /// for it, not yet summed back to its shape.
    pub(crate) fn note(
        &mut self,
        tape: &mut Tape,
        op: &Arc<dyn Op>,
        io: Io<'_>,
        k: usize,
        y_bar: Var,
        bar: Var,
    ) -> Result<()> {
        let Some(part) = self.part(io.inputs[k]) else { return Ok(()) };
        if self.parts.contains_key(&io.output) {
            return Ok(());
        }
        // What parameters alone make, a middle `V H` of thin matrices for instance, is the same for every row: no map of
        // rows, and no hindrance to being one elsewhere.
        if !tape.lead(io.output)?.has_n() {
            return Ok(());
        }
        let varies = |v: Var| Ok::<_, Error>(tape.lead(v)?.has_n());
        let (dims, g) = (tape.shape(io.inputs[k])?.dims.clone(), tape.ty(y_bar)?.clone());
        let complex = |v: Var| Ok::<_, Error>(tape.dtype(v)?.is_complex());
        let real_of_complex = !complex(io.inputs[k])? && g.dtype.is_complex();
        let mut site = Site { part, role: Role::Bias, input: None, g: y_bar, bias: None };
        match op.class() {
            Class::MatMul(m) if k == 1 && varies(io.inputs[0])? && !m.conj_b => {
                let real_of_complex = real_of_complex || (!complex(io.inputs[1])? && complex(io.inputs[0])?);
                let outputs = usize::from(!m.transpose_b);
                if real_of_complex || part.axis.is_some_and(|a| a != outputs) {
                    self.spoiled.push(part.param);
                    return Ok(());
                }
                let a = io.inputs[0];
                site.input = Some(if m.conj_a { conj(tape, a)? } else { a });
                site.role = Role::Product { transposed: m.transpose_b };
            }
            _ if op.is_lookup() && k == 0 && dims.len() == 2 && part.axis.is_none() && varies(y_bar)? => {
                site.role = Role::Lookup {
                    op: op.clone(),
                    inputs: io.inputs.iter().copied().collect(),
                    output: io.output,
                };
            }
            _ if op.name() == "add"
                && bar == y_bar
                && varies(y_bar)?
                && !real_of_complex
                && dims.len() == 1
                && g.shape.dims == dims => {}
            _ => {
                self.spoiled.push(part.param);
                return Ok(());
            }
        }
        self.sites.push(site);
        Ok(())
    }

    /// Records the statistics of the uses found in the step of an adjoint scan; see [`Pending`].
    pub(crate) fn inside(
        &mut self,
        inner: &mut Tape,
        carry: &mut dyn FnMut(&mut Tape, Var) -> Result<Var>,
        sum: &mut dyn FnMut(Var) -> usize,
    ) -> Result<Vec<Pending>> {
        let sites = join_biases(std::mem::take(&mut self.sites));
        let mut out = Vec::new();
        let mut before: HashMap<Var, Var> = HashMap::new();
        for site in sites {
            let mut lagged = |inner: &mut Tape, v: Var| -> Result<Var> {
                match before.get(&v) {
                    Some(&known) => Ok(known),
                    None => {
                        let held = carry(inner, v)?;
                        before.insert(v, held);
                        Ok(held)
                    }
                }
            };
            for moments in self.moments(inner, &site, true, &mut lagged)? {
                out.push(Pending {
                    a0: moments.a0.map(&mut *sum),
                    a1: moments.a1.map(&mut *sum),
                    g0: sum(moments.g0),
                    g1: moments.g1.map(&mut *sum),
                    map: moments,
                    param: site.part.param,
                });
            }
        }
        Ok(out)
    }

    /// Takes over what was found in a step, its sums now the ports of the adjoint scan.
    pub(crate) fn leave(&mut self, inner: Watch, pending: Vec<Pending>, ports: &[Var]) {
        self.spoiled.extend(inner.spoiled);
        for p in pending {
            let var = |k: usize| ports[k];
            let map = MapStatistics {
                a0: p.a0.map(var),
                a1: p.a1.map(var),
                g0: ports[p.g0],
                g1: p.g1.map(var),
                ..p.map
            };
            self.maps.push((p.param, map));
        }
    }

    /// A use outside every scan: at one step, or at all of them at once.
    fn outside(&mut self, tape: &mut Tape, site: &Site) -> Result<()> {
        let mut none = |_: &mut Tape, v: Var| Ok(v);
        if !tape.lead(site.g)?.has_t() {
            for map in self.moments(tape, site, false, &mut none)? {
                self.maps.push((site.part.param, map));
            }
            return Ok(());
        }
        // A scan without a state of its own walks over the stacked values.
        let lookup = matches!(site.role, Role::Lookup { .. });
        if lookup {
            self.spoiled.push(site.part.param);
            return Ok(());
        }
        let mut walk = self.enter([]);
        let values = [site.input, Some(site.g)];
        let (pending, ports) = scan::sums(tape, &values, |inner, xs, carry, sum| {
            let stand_in = Site { input: xs[0], g: xs[1].unwrap_or(site.g), ..site.clone() };
            walk.sites = vec![stand_in];
            walk.inside(inner, carry, sum)
        })?;
        self.leave(walk, pending, &ports);
        Ok(())
    }

    /// The contractions of one use; `lagged` gives the value a step later in time (walked over before).
    fn moments(
        &self,
        tape: &mut Tape,
        site: &Site,
        every_step: bool,
        lagged: &mut dyn FnMut(&mut Tape, Var) -> Result<Var>,
    ) -> Result<Vec<MapStatistics>> {
        let mask = match self.options.lengths.filter(|_| every_step) {
            Some(lengths) => {
                let lengths = tape.resolve(lengths)?;
                Some(active_mask(tape, lengths, DType::F32)?)
            }
            None => None,
        };
        let active = |tape: &mut Tape, v: Var| -> Result<Var> {
            match mask {
                Some(mask) => {
                    let zero = tape.scalar(v, 0.0)?;
                    keep_ended(tape, mask, v, zero)
                }
                None => Ok(v),
            }
        };
        let squares = RowContract { conj_left: false, conj_right: true };
        let g_ty = tape.ty(site.g)?.clone();
        let width = g_ty.shape.dims.last().copied().unwrap_or(1);
        let repeats = g_ty.shape.width() / width.max(1);
        let lag = every_step && self.options.lag;
        let g = active(tape, site.g)?;
        let (mut a0, mut a1, mut lookup) = (None, None, false);
        match (&site.role, site.input) {
            (Role::Lookup { op, inputs, output }, _) => {
                // The gradient of a sum of all outputs counts how often each row was chosen.
                lookup = true;
                let one = fill(tape, g_ty.clone(), 1.0)?;
                let one = active(tape, one)?;
                let io = Io { inputs, output: *output, needs: &[true, false] };
                let counts = op.vjp(tape, io, one)?;
                let Some(&Some(counts)) = counts.first() else {
                    return Err(Error::argument("statistics", format!("`{}` gave no cotangent", op.name())));
                };
                let counts = layout(tape, counts, Layout::Slice { axis: 1, start: 0, len: 1 })?;
                let n = tape.shape(counts)?.dims[0];
                a0 = Some(layout(tape, counts, Layout::Reshape { dims: smallvec![n] })?);
            }
            (_, Some(input)) => {
                let ty = tape.ty(input)?.clone();
                let mut x = input;
                if site.bias.is_some() {
                    let mut dims = ty.shape.dims.clone();
                    let axis = dims.len() - 1;
                    dims[axis] = 1;
                    let one = fill(tape, Ty::new(ty.dtype, Shape { lead: ty.shape.lead, dims }), 1.0)?;
                    x = concat(tape, &[input, one], axis)?;
                }
                let x = active(tape, x)?;
                a0 = Some(row_contract(tape, x, x, squares)?);
                if lag {
                    let later = lagged(tape, x)?;
                    a1 = Some(row_contract(tape, later, x, squares)?);
                }
            }
            _ => {}
        }
        let lag = lag && !lookup;
        let later = if lag { Some(lagged(tape, g)?) } else { None };
        let bias_only = matches!(site.role, Role::Bias);
        let cuts = width.div_ceil(self.options.widest).max(1);
        let axis = g_ty.shape.dims.len().saturating_sub(1);
        let mut out = Vec::new();
        for cut in 0..cuts {
            let (from, to) = (cut * width / cuts, (cut + 1) * width / cuts);
            let slice = |tape: &mut Tape, v: Var| {
                layout(tape, v, Layout::Slice { axis, start: from, len: to - from })
            };
            let now = slice(tape, g)?;
            let g0 = row_contract(tape, now, now, squares)?;
            let g1 = match later {
                Some(later) => {
                    let later = slice(tape, later)?;
                    Some(row_contract(tape, later, now, squares)?)
                }
                None => None,
            };
            let place = |part: &Part| part.start + from..part.start + to;
            out.push(MapStatistics {
                // Filled in at the end, where the parameters are known.
                weight: None,
                transposed: matches!(site.role, Role::Product { transposed: true }),
                bias: site.bias.map(|b| (Var { tape: 0, index: b.param as u32 }, b.start + from)),
                outputs: place(&site.part),
                lookup,
                every_step,
                repeats,
                a0: if bias_only { None } else { a0 },
                a1: if bias_only { None } else { a1 },
                g0,
                g1,
            });
        }
        Ok(out)
    }

    fn finish(self, tape: &mut Tape, params: &[Var]) -> Result<Statistics> {
        let Watch { maps, mut spoiled, .. } = self;
        // Parts of one parameter that overlap without being the same, and biases in two places.
        let mut biased: HashMap<usize, (usize, Range<usize>)> = HashMap::new();
        for (i, (param, map)) in maps.iter().enumerate() {
            let (r, bias) = (&map.outputs, map.bias.map(|(b, _)| b.index as usize));
            for (other, m) in &maps[..i] {
                let apart = m.outputs.end <= r.start || r.end <= m.outputs.start;
                let same = (&m.outputs, m.transposed, m.lookup, m.every_step)
                    == (r, map.transposed, map.lookup, map.every_step)
                    && m.bias.map(|(b, at)| (b.index, at)) == map.bias.map(|(b, at)| (b.index, at));
                if other == param && !apart && !same {
                    spoiled.push(*param);
                }
            }
            if let Some(b) = bias {
                let here = (*param, 0..0);
                if biased.insert(b, here).is_some_and(|(p, _)| p != *param) {
                    spoiled.push(b);
                }
            }
        }
        // A bias alone somewhere and with a product elsewhere.
        for (param, _) in &maps {
            if biased.contains_key(param) {
                spoiled.push(*param);
            }
        }
        let bad = |param: usize| spoiled.contains(&param);
        let mut out = Statistics::default();
        let mut covered = vec![false; params.len()];
        for (param, mut map) in maps {
            if bad(param) || map.bias.is_some_and(|(b, _)| bad(b.index as usize)) {
                continue;
            }
            covered[param] = true;
            if let Some((b, _)) = &mut map.bias {
                covered[b.index as usize] = true;
                *b = params[b.index as usize];
            }
            match tape.shape(params[param])?.dims.len() {
                1 => map.bias = Some((params[param], map.outputs.start)),
                _ => map.weight = Some(params[param]),
            }
            let twice = |m: &&mut MapStatistics| {
                (m.weight, m.bias, &m.outputs) == (map.weight, map.bias, &map.outputs)
            };
            match out.maps.iter_mut().find(twice) {
                Some(known) => {
                    let both = |tape: &mut Tape, a: Option<Var>, b: Option<Var>| -> Result<Option<Var>> {
                        a.zip(b).map(|(a, b)| add(tape, a, b)).transpose()
                    };
                    known.a0 = both(tape, known.a0, map.a0)?;
                    known.a1 = both(tape, known.a1, map.a1)?;
                    known.g0 = add(tape, known.g0, map.g0)?;
                    known.g1 = both(tape, known.g1, map.g1)?;
                    known.repeats += map.repeats;
                }
                None => out.maps.push(map),
            }
        }
        out.without = params.iter().zip(&covered).filter(|(_, c)| !**c).map(|(&p, _)| p).collect();
        Ok(out)
    }
}

/// A use found in a step, with its sums as numbers of the adjoint scan's extra ports.
#[derive(Debug)]
pub(crate) struct Pending {
    param: usize,
    map: MapStatistics,
    a0: Option<usize>,
    a1: Option<usize>,
    g0: usize,
    g1: Option<usize>,
}

/// Lets an adjoint hold a value until its next step: the value as an operation of its own, which has one place.
pub(crate) fn held(inner: &mut Tape, v: Var) -> Result<(Var, Ty)> {
    let held = stop_gradient(inner, v)?;
    let mut ty = inner.ty(held)?.clone();
    ty.shape.lead = Lead::N;
    Ok((held, ty))
}
