//! Programs that have run for a while are made into machine code: one loop that keeps every value in registers,
//! instead of one loop an instruction over blocks in the L1 cache.
//!
//! The operations are recorded from the same generic code that the loops over blocks are compiled from ([`record`](fn@record)),
//! so both give the same bits, and which of them ran can be told from the time only. Code is assembled for AVX-512
//! ([`assemble`](mod@assemble)), once for each program, element type, set of operands that have one value a row and set of
//! results that are not read soon; elsewhere, and
//! where `RETROGRAD_JIT` is `off`, the loops over blocks remain.

mod assemble;
mod codes;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use memmap2::{Mmap, MmapOptions};

use super::block::{RunArgs, flatten};
pub(in crate::cpu) use super::record::{Recording, record};
use super::{BLOCK, In, Out};
use crate::cpu::isa::Isa;
use crate::cpu::real::Real;
use assemble::{
    Assembled, Job, LAST_LANES, OFFSET, PAIR_BYTES, POINTERS, ROWS_LEFT, VECTOR, WHOLE_BYTES, assemble,
};

/// Environment variable; `off` leaves programs to the loops over blocks.
const JIT_VARIABLE: &str = "RETROGRAD_JIT";

/// Instructions times elements that a program has to run before it is made into code: about as much time as that takes.
const WARM: u64 = 1 << 20;
/// Operands and results a table has room for.
const MOST_POINTERS: usize = 60;

/// Code of one program, as it is needed.
#[derive(Clone, Default)]
pub(super) struct Cache(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Instructions times elements so far.
    done: AtomicU64,
    /// In the order in which they were first needed. No lock: threads look here at every call.
    versions: [OnceLock<Version>; MOST_VERSIONS],
}

/// Versions of one program that are made into code; what would be another is left to the loops over blocks.
const MOST_VERSIONS: usize = 32;

struct Version {
    double: bool,
    scalars: u64,
    streams: u64,
    /// None if the program cannot be made into code.
    code: Option<Machine>,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cache")
    }
}

/// What is kept for speed does not tell programs apart.
impl PartialEq for Cache {
    fn eq(&self, _: &Cache) -> bool {
        true
    }
}

/// Code that can be run.
struct Machine {
    code: Mmap,
    /// As the code reads them.
    constants: Vec<u8>,
    spills: usize,
}

/// What the code is called with: words of the table, constants, room for values. Gives 1 where a guard stopped it
/// before the vector at the table's offset in the row that is left, else 0.
type Entry = unsafe extern "sysv64" fn(*mut u64, *const u8, *mut u8) -> u64;

fn enabled() -> bool {
    static ENABLED: OnceLock<bool> = OnceLock::new();
    *ENABLED.get_or_init(|| std::env::var_os(JIT_VARIABLE).is_none_or(|v| v != "off") && !cfg!(miri))
}

impl Machine {
    fn new(job: &Job<'_>) -> Option<Machine> {
        let Assembled { code, constants, spills } = assemble(job)?;
        let element = if job.double { 8 } else { 4 };
        let constants = constants.iter().flat_map(|c| c.to_le_bytes()[..element].to_vec()).collect();
        let mut memory = MmapOptions::new().len(code.len()).map_anon().ok()?;
        memory[..code.len()].copy_from_slice(&code);
        Some(Machine { code: memory.make_exec().ok()?, constants, spills })
    }

    /// Runs from the beginning of the table's rows.
    ///
    /// # Safety
    ///
    /// The processor has AVX-512. The table describes rows that can be read and written; `spills` has room for as many
    /// vectors as the code needs.
    unsafe fn run(&self, table: &mut [u64], spills: *mut u8) -> bool {
        // SAFETY: the mapping begins with a function of this type, which `assemble` has made; the rest is the caller's
        // word.
        unsafe {
            let entry = std::mem::transmute::<*const u8, Entry>(self.code.as_ptr());
            entry(table.as_mut_ptr(), self.constants.as_ptr(), spills) == 0
        }
    }
}

/// Runs a program by its code, if it has some by now.
///
/// # Safety
///
/// The contract of [`Compiled::run`](super::Compiled::run), which checked the arguments.
pub(super) unsafe fn run<R: Real>(isa: Isa, args: &mut RunArgs<'_, R>) -> bool {
    if isa != Isa::Avx512 || !enabled() {
        return false;
    }
    let cache = &args.program.jit.0;
    let work = (args.rows * args.width * args.program.steps.len()) as u64;
    // Only an estimate: which way a program runs changes no bit.
    if cache.done.load(Ordering::Relaxed) < WARM {
        cache.done.fetch_add(work, Ordering::Relaxed);
        return false;
    }
    // SAFETY: the caller's word.
    unsafe { run_code(isa, args) }
}

/// As [`run`], without waiting.
///
/// # Safety
///
/// As for [`run`].
unsafe fn run_code<R: Real>(isa: Isa, args: &mut RunArgs<'_, R>) -> bool {
    let flat = flatten(args);
    let (rows, width, ins) = match &flat {
        Some(flat) => (1, args.rows * args.width, &flat[..]),
        None => (args.rows, args.width, args.ins),
    };
    // Vectors mostly empty: the loops over blocks join rows.
    if (rows > 1 && 2 * width < R::lanes(isa)) || ins.len() + args.outs.len() > MOST_POINTERS {
        return false;
    }
    let scalars = ins.iter().enumerate().fold(0, |bits, (i, x)| bits | u64::from(x.col_stride == 0) << i);
    let aligned = |bytes: usize| bytes.is_multiple_of(VECTOR);
    let streams = args.outs.iter().enumerate().fold(0, |bits, (i, o)| {
        let fits = aligned(o.ptr.addr()) && (rows == 1 || aligned(o.row_stride * size_of::<R>()));
        bits | u64::from(o.stream && fits) << i
    });
    let double = size_of::<R>() == 8;
    let program = args.program;
    for version in &program.jit.0.versions {
        let Some(found) = version.get() else {
            version.get_or_init(|| {
                let (loads, stores) = (program.loads, program.stores);
                let code = R::record(isa, program).and_then(|recording| {
                    Machine::new(&Job { recording: &recording, loads, stores, scalars, streams, double })
                });
                Version { double, scalars, streams, code }
            });
            break;
        };
        if found.double == double && found.scalars == scalars && found.streams == streams {
            let Some(machine) = &found.code else { return false };
            // SAFETY: the caller's word; flattened operands are the same elements.
            return unsafe { run_machine(isa, machine, args, rows, width, ins) };
        }
    }
    // Next time; this once the loops over blocks will do.
    false
}

/// Runs the code over all rows; where a guard stops it, the loops over blocks do the next block.
///
/// # Safety
///
/// As for [`run`]; `ins` over `rows` × `width` are the operands.
unsafe fn run_machine<R: Real>(
    isa: Isa,
    machine: &Machine,
    args: &mut RunArgs<'_, R>,
    rows: usize,
    width: usize,
    ins: &[In<R>],
) -> bool {
    let element = size_of::<R>();
    let lanes = VECTOR / element;
    let spills = args.scratch.as_mut_ptr().cast::<u8>();
    if machine.spills * VECTOR > size_of_val(args.scratch) {
        return false;
    }
    let outs = args.outs;
    let pointers = ins.len() + outs.len();
    let (mut row, mut column) = (0, 0);
    // Only as long as it has to be: most calls are short.
    let mut table: smallvec::SmallVec<[u64; POINTERS + 2 * MOST_POINTERS]> =
        smallvec::SmallVec::from_elem(0, POINTERS + 2 * pointers);
    loop {
        table[ROWS_LEFT] = (rows - row) as u64;
        table[WHOLE_BYTES] = (width / lanes * VECTOR) as u64;
        table[PAIR_BYTES] = table[WHOLE_BYTES].saturating_sub(VECTOR as u64);
        table[LAST_LANES] = (1 << (width % lanes)) - 1;
        table[OFFSET] = (column * element) as u64;
        let operands = ins.iter().map(|i| (i.ptr, i.row_stride));
        let results = outs.iter().map(|o| (o.ptr.cast_const(), o.row_stride));
        for (i, (ptr, stride)) in operands.chain(results).enumerate() {
            table[POINTERS + i] = ptr.wrapping_add(row * stride).expose_provenance() as u64;
            table[POINTERS + pointers + i] = (stride * element) as u64;
        }
        // SAFETY: the caller's word that all rows can be read and written, and that the processor has AVX-512; the
        // scratch has room, as just checked.
        if unsafe { machine.run(&mut table, spills) } {
            return true;
        }
        row = rows - table[ROWS_LEFT] as usize;
        column = table[OFFSET] as usize / element;
        let length = BLOCK.min(width - column);
        let from =
            |i: &In<R>| In { ptr: i.ptr.wrapping_add(row * i.row_stride + column * i.col_stride), ..*i };
        let to = |o: &Out<R>| Out { ptr: o.ptr.wrapping_add(row * o.row_stride + column), ..*o };
        let ins: smallvec::SmallVec<[In<R>; 16]> = ins.iter().map(from).collect();
        let outs: smallvec::SmallVec<[Out<R>; 16]> = outs.iter().map(to).collect();
        let block = RunArgs {
            program: args.program,
            rows: 1,
            width: length,
            ins: &ins,
            outs: &outs,
            scratch: &mut *args.scratch,
        };
        // SAFETY: the block lies in the domain that the caller has given its word for.
        unsafe { R::pointwise(isa, block) };
        column += length;
        if column == width {
            (row, column) = (row + 1, 0);
        }
        if row == rows {
            return true;
        }
    }
}
