//! Sequences of launches as graphs of the driver, which starts a graph's kernels with less work than each of them alone.
//!
//! `cust` 0.3.2 keeps its graphs to itself, so these are made with the raw bindings. Their nodes are added one by one, not
//! captured from a stream, so nothing that another thread does can come between.

use std::ops::Range;
use std::ptr;

use cust::function::Function;
use cust::stream::Stream;
use cust::sys::{self, CUresult, cudaError_enum};

use super::Launch;
use super::real::{places, values};

/// Most kernels of a graph: what the driver makes of one grows with them.
const MOST: usize = 2048;
/// Fewer are launched as quickly without one.
const FEWEST: usize = 4;

/// A part of a sequence.
#[derive(Debug)]
pub(super) enum Part {
    /// Is launched at once.
    Graph(Graph),
    /// These are launched one by one.
    Launches(Range<usize>),
}

/// Divides a sequence into parts; says which of them are to be graphs. Cooperative launches are not: the bindings (CUDA
/// 11.4) cannot ask for them there.
pub(super) fn parts(launches: &[Launch]) -> Vec<(Range<usize>, bool)> {
    let (mut parts, mut at) = (Vec::new(), 0);
    for alike in launches.chunk_by(|a, b| a.grid.cooperative == b.grid.cooperative) {
        for part in alike.chunks(MOST) {
            let graph = part.len() >= FEWEST && !part[0].grid.cooperative;
            parts.push((at..at + part.len(), graph));
            at += part.len();
        }
    }
    parts
}

/// Kernels, each of which starts when the one before has ended. Whoever has it makes its context current and waits for the
/// stream before dropping it.
#[derive(Debug)]
pub(super) struct Graph {
    exec: sys::CUgraphExec,
    /// Names of its kernels, each once, in order of their last launch.
    pub(super) kernels: Vec<&'static str>,
}

// SAFETY: the driver ties an executable graph to no thread; the lock around all of them lets one use it at a time. It is
// dropped by `forget`, with the context current and the stream idle: every sequence of the engine holds its device, so none
// is left when that goes.
unsafe impl Send for Graph {}

/// What an executable graph is made from.
struct Template(sys::CUgraph);

impl Drop for Template {
    fn drop(&mut self) {
        // SAFETY: `cuGraphCreate` gave it, and nothing else gives it back. Executable graphs do not need it.
        let _ = unsafe { sys::cuGraphDestroy(self.0) };
    }
}

fn done(code: CUresult) -> Result<(), CUresult> {
    if code == cudaError_enum::CUDA_SUCCESS { Ok(()) } else { Err(code) }
}

impl Graph {
    /// Of launches with their functions, whose module is loaded for as long as the graph is there and whose shared memory is
    /// allowed. Errors: the driver's code.
    pub(super) fn new(functions: &[Function<'_>], launches: &[Launch]) -> Result<Graph, CUresult> {
        let mut graph = ptr::null_mut();
        // SAFETY: `graph` is written.
        done(unsafe { sys::cuGraphCreate(&mut graph, 0) })?;
        let graph = Template(graph);
        let mut last = ptr::null_mut();
        for (i, (function, launch)) in functions.iter().zip(launches).enumerate() {
            let mut values = values(&launch.args);
            let mut places = places(&mut values);
            let node = sys::CUDA_KERNEL_NODE_PARAMS {
                func: function.to_raw(),
                gridDimX: launch.grid.blocks.0,
                gridDimY: launch.grid.blocks.1,
                gridDimZ: 1,
                blockDimX: launch.grid.threads,
                blockDimY: 1,
                blockDimZ: 1,
                sharedMemBytes: launch.grid.shared_bytes,
                kernelParams: places.as_mut_ptr(),
                extra: ptr::null_mut(),
            };
            let before = last;
            // SAFETY: the node before, if there is one, is of this graph; the arguments are those of the kernel's
            // parameters, in order, as in a launch, and are copied by the call. The addresses among them are valid when
            // the graph is launched, as whoever starts the sequence promises.
            done(unsafe {
                sys::cuGraphAddKernelNode(&mut last, graph.0, &before, usize::from(i > 0), &node)
            })?;
        }
        let mut exec = ptr::null_mut();
        // SAFETY: `exec` is written; the graph is whole.
        done(unsafe { sys::cuGraphInstantiateWithFlags(&mut exec, graph.0, 0) })?;
        Ok(Graph { exec, kernels: names(launches) })
    }

    /// Starts its kernels after everything on the stream. Returns the driver's code.
    pub(super) fn launch(&self, stream: &Stream) -> CUresult {
        // SAFETY: the graph has not been destroyed, and its module is loaded, as whoever made it promised.
        unsafe { sys::cuGraphLaunch(self.exec, stream.as_inner()) }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: `cuGraphInstantiateWithFlags` gave it, and nothing else gives it back; it does not run, as whoever drops it
        // has made sure.
        let _ = unsafe { sys::cuGraphExecDestroy(self.exec) };
    }
}

/// Names of kernels, each once, in order of their last launch.
fn names(launches: &[Launch]) -> Vec<&'static str> {
    let mut names = Vec::new();
    for launch in launches.iter().rev() {
        if !names.contains(&launch.kernel) {
            names.push(launch.kernel);
        }
    }
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Grid;

    fn launches(kernels: impl IntoIterator<Item = (&'static str, bool)>) -> Vec<Launch> {
        let of = |(kernel, cooperative)| {
            let grid = Grid { cooperative, ..Grid::row(1, 32, 0) };
            Launch { kernel, grid, args: Vec::new() }
        };
        kernels.into_iter().map(of).collect()
    }

    #[test]
    fn long_sequences_are_several_graphs_and_short_ones_none() {
        let of = |n: usize| parts(&launches((0..n).map(|_| ("a", false))));
        assert_eq!(of(0), []);
        assert_eq!(of(3), [(0..3, false)]);
        assert_eq!(of(4), [(0..4, true)]);
        assert_eq!(of(MOST), [(0..MOST, true)]);
        assert_eq!(
            of(2 * MOST + 1),
            [(0..MOST, true), (MOST..2 * MOST, true), (2 * MOST..2 * MOST + 1, false)]
        );
    }

    #[test]
    fn cooperative_launches_are_in_no_graph() {
        let all = [5, 1, 2, 6, 4].into_iter().zip([false, true, false, true, false]);
        let all = launches(all.flat_map(|(n, cooperative)| (0..n).map(move |_| ("a", cooperative))));
        assert_eq!(parts(&all), [(0..5, true), (5..6, false), (6..8, false), (8..14, false), (14..18, true)]);
    }

    #[test]
    fn the_last_kernel_is_named_last() {
        let all = launches(["a", "b", "a", "c", "b", "b"].map(|kernel| (kernel, false)));
        assert_eq!(names(&all), ["a", "c", "b"]);
    }
}
