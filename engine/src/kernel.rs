//! Structured kernels: what an operation that is neither pointwise nor a product brings to the CPU.

use crate::cpu::Real;
use crate::cpu::butterfly::{RowsMut, RowsRef};
use crate::device::DeviceKernel;
use crate::op::Ty;

/// How a structured operation treats the rows of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowRule {
    /// Row `r` of the output depends on row `r` of the inputs with a row axis, and on the shared inputs.
    PerRow,
    /// The output has no row axis and is a **sum** over rows (and steps) of contributions. The kernel adds to
    /// what the output already holds, in ascending order of rows; it may first sum the rows of a call. (Which rows
    /// go into one call depends on the problem alone, not on the budget or the threads.)
    Reduce,
}

/// A kernel of its own.
pub trait Structured {
    /// How rows are treated.
    fn rows(&self) -> RowRule {
        RowRule::PerRow
    }

    /// Runs in single precision.
    fn run_f32(&self, args: Args<'_, f32>);

    /// Runs in double precision.
    fn run_f64(&self, args: Args<'_, f64>);

    /// Real elements of scratch memory a call needs (it does not depend on the number of rows).
    fn scratch(&self, inputs: &[Ty]) -> usize {
        let _ = inputs;
        0
    }

    /// Operations a second, by what [`Op::flops`](crate::Op::flops) counts, over those of a matrix product: what plans are
    /// compared by, so a rough figure does. Most kernels do about as well as pointwise chains.
    fn efficiency(&self) -> f64 {
        0.12
    }

    /// How it runs on a [device](crate::device); `None` where it does not yet.
    fn device(&self) -> Option<&dyn DeviceKernel> {
        None
    }

    /// Whether the kernel reads [`Args::origin`]; then it is called for one step at a time.
    fn needs_origin(&self) -> bool {
        false
    }
}

/// Where in the whole batch and sequence a call's rows lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Number of the step.
    pub step: usize,
    /// Number of the first row.
    pub row: usize,
    /// Steps in all.
    pub steps: usize,
    /// Rows in all.
    pub batch: usize,
}

/// Arguments of a kernel call.
pub struct Args<'a, R: Real> {
    /// Rows to process (1 where nothing has a row axis).
    pub rows: usize,
    /// Inputs in order.
    pub inputs: &'a [In<'a, R>],
    /// Output; for [`RowRule::Reduce`] to be added to.
    pub output: Out<'a, R>,
    /// Scratch of the size asked for; contents arbitrary.
    pub scratch: &'a mut [R],
    /// Where the rows lie.
    pub origin: Origin,
}

/// An input: real and imaginary planes, rows `row_stride` apart (0: the same for every row).
#[derive(Clone, Copy, Debug)]
pub struct In<'a, R: Real> {
    pub(crate) re: &'a [R],
    pub(crate) im: &'a [R],
    pub(crate) index: &'a [i32],
    pub(crate) row_stride: usize,
    pub(crate) width: usize,
    pub(crate) dims: &'a [usize],
}

impl<'a, R: Real> In<'a, R> {
    /// A real or complex input (`im` empty for real) whose rows are `row_stride` apart. For tests of kernels.
    pub fn new(re: &'a [R], im: &'a [R], row_stride: usize, dims: &'a [usize]) -> In<'a, R> {
        In { re, im, index: &[], row_stride, width: dims.iter().product(), dims }
    }

    /// An index input.
    pub fn indices(index: &'a [i32], row_stride: usize, dims: &'a [usize]) -> In<'a, R> {
        In { re: &[], im: &[], index, row_stride, width: dims.iter().product(), dims }
    }

    /// Elements of one entry.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Ordinary axes.
    pub fn dims(&self) -> &'a [usize] {
        self.dims
    }

    /// Whether there is an imaginary plane.
    pub fn is_complex(&self) -> bool {
        !self.im.is_empty()
    }

    /// Real parts of row `r`. Empty for an index input.
    pub fn row(&self, r: usize) -> &'a [R] {
        let at = r * self.row_stride;
        &self.re[at..at + self.width]
    }

    /// Imaginary parts of row `r`. Panics for a real input.
    pub fn row_im(&self, r: usize) -> &'a [R] {
        let at = r * self.row_stride;
        &self.im[at..at + self.width]
    }

    /// All rows of both planes.
    pub fn planes(&self) -> RowsRef<'a, R> {
        RowsRef { re: self.re, im: self.im, stride: self.row_stride }
    }

    /// Indices of row `r`. Panics for an input that is not `I32`.
    pub fn index_row(&self, r: usize) -> &'a [i32] {
        let at = r * self.row_stride;
        &self.index[at..at + self.width]
    }
}

/// The output: real and imaginary planes, rows `row_stride` apart.
#[derive(Debug)]
pub struct Out<'a, R: Real> {
    pub(crate) re: &'a mut [R],
    pub(crate) im: &'a mut [R],
    pub(crate) row_stride: usize,
    pub(crate) width: usize,
    pub(crate) dims: &'a [usize],
}

impl<'a, R: Real> Out<'a, R> {
    /// A real or complex output (`im` empty for real) whose rows are `row_stride` apart. For tests of kernels.
    pub fn new(re: &'a mut [R], im: &'a mut [R], row_stride: usize, dims: &'a [usize]) -> Out<'a, R> {
        Out { re, im, row_stride, width: dims.iter().product(), dims }
    }

    /// Elements of one entry.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Ordinary axes.
    pub fn dims(&self) -> &'a [usize] {
        self.dims
    }

    /// Whether there is an imaginary plane.
    pub fn is_complex(&self) -> bool {
        !self.im.is_empty()
    }

    /// Real parts of row `r` (row 0 for a reduction).
    pub fn row(&mut self, r: usize) -> &mut [R] {
        let at = r * self.row_stride;
        &mut self.re[at..at + self.width]
    }

    /// Imaginary parts of row `r`. Panics for a real output.
    pub fn row_im(&mut self, r: usize) -> &mut [R] {
        let at = r * self.row_stride;
        &mut self.im[at..at + self.width]
    }

    /// All rows of both planes.
    pub fn planes(&mut self) -> RowsMut<'_, R> {
        RowsMut { re: self.re, im: self.im, stride: self.row_stride }
    }

    /// Real and imaginary parts of row `r` at once.
    pub fn row_pair(&mut self, r: usize) -> (&mut [R], &mut [R]) {
        let at = r * self.row_stride;
        let im = if self.im.is_empty() { &mut [][..] } else { &mut self.im[at..at + self.width] };
        (&mut self.re[at..at + self.width], im)
    }
}

/// Implements the two methods of [`Structured`] by one generic function of the type:
/// `fn kernel<R: Real>(&self, args: Args<'_, R>)`.
///
/// ```ignore
/// impl Structured for Softmax { structured_kernel!(); }
/// // expands to
/// //   fn run_f32(&self, args: Args<'_, f32>) { self.kernel(args) }
/// //   fn run_f64(&self, args: Args<'_, f64>) { self.kernel(args) }
/// ```
#[macro_export]
macro_rules! structured_kernel {
    () => {
        fn run_f32(&self, args: $crate::kernel::Args<'_, f32>) {
            self.kernel(args)
        }
        fn run_f64(&self, args: $crate::kernel::Args<'_, f64>) {
            self.kernel(args)
        }
    };
}

/// Picks the method of [`Structured`] for a type.
pub(crate) trait RunStructured: Real {
    fn run_structured(kernel: &dyn Structured, args: Args<'_, Self>);
}

impl RunStructured for f32 {
    fn run_structured(kernel: &dyn Structured, args: Args<'_, f32>) {
        kernel.run_f32(args);
    }
}

impl RunStructured for f64 {
    fn run_structured(kernel: &dyn Structured, args: Args<'_, f64>) {
        kernel.run_f64(args);
    }
}
