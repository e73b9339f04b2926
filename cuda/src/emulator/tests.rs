//! The emulator against kernels that are right, and kernels that are wrong in one way each.

use super::{Cause, Fault};
use crate::driver::{Arg, Grid, Kernel, Module};
use crate::error::{Error, Result};
use crate::gpu::Gpu;

/// A kernel with a pointer and a number as parameters, two registers of each kind loaded, and room for a body.
macro_rules! module {
    ($name:literal, $body:literal) => {{
        static MODULE: Module = Module::fixed(
            $name,
            concat!(
                ".version 7.8\n.target sm_80\n.address_size 64\n",
                ".extern .shared .align 16 .b8 dynamic[];\n",
                ".visible .entry k(\n\t.param .u64 k_param_0,\n\t.param .u32 k_param_1\n)\n.maxntid 256, 1, 1\n{\n",
                "\t.reg .pred %p<9>;\n\t.reg .b32 %r<99>;\n\t.reg .f32 %f<99>;\n\t.reg .f64 %fd<9>;\n",
                "\t.reg .b64 %rd<99>;\n\t.shared .align 4 .b8 fixed[256];\n",
                "\tld.param.u64 %rd1, [k_param_0];\n\tld.param.u32 %r1, [k_param_1];\n",
                "\tcvta.to.global.u64 %rd1, %rd1;\n\tmov.u32 %r2, %tid.x;\n\tmov.u32 %r3, %ctaid.x;\n",
                "\tmul.wide.u32 %rd2, %r2, 4;\n\tadd.s64 %rd3, %rd1, %rd2;\n\tshl.b32 %r4, %r2, 2;\n",
                "\tmov.u32 %r5, fixed;\n\tadd.s32 %r6, %r5, %r4;\n",
                $body,
                "\nret;\n}\n"
            ),
        );
        Kernel { module: &MODULE, name: "k" }
    }};
}

/// Runs a kernel on `blocks` of `threads` with a buffer of `len` words.
fn run(kernel: Kernel<'static>, blocks: u32, threads: u32, len: usize) -> Result<Vec<u32>> {
    let gpu = Gpu::emulated();
    let mut buffer = gpu.zeros::<u32>(len)?;
    gpu.launch(kernel, Grid::row(blocks, threads, 64), &[buffer.output(), Arg::I32(7)])?;
    buffer.download()
}

fn fault(kernel: Kernel<'static>, blocks: u32, threads: u32, len: usize) -> Fault {
    match run(kernel, blocks, threads, len) {
        Err(Error::Emulated(fault)) => fault,
        other => panic!("{}: expected a fault, got {other:?}", kernel.module.name),
    }
}

#[test]
fn neighbours_through_shared_memory() -> Result<()> {
    let kernel = module!(
        "neighbours",
        "st.shared.u32 [%r6], %r2; bar.sync 0; xor.b32 %r7, %r4, 4; add.s32 %r8, %r5, %r7;
         ld.shared.u32 %r9, [%r8]; mad.lo.s32 %r9, %r9, 10, %r1; st.global.u32 [%rd3], %r9;"
    );
    assert_eq!(run(kernel, 1, 4, 4)?, [17, 7, 37, 27]);
    Ok(())
}

#[test]
fn without_the_barrier_it_is_a_race() {
    let kernel = module!(
        "race",
        "st.shared.u32 [%r6], %r2; xor.b32 %r7, %r4, 4; add.s32 %r8, %r5, %r7; ld.shared.u32 %r9, [%r8];"
    );
    // Thread 0 reads what nobody has written yet; with more than one value in place it is thread 1's race.
    assert_eq!(fault(kernel, 1, 4, 4).what, Cause::Uninitialized { address: 4 });
    let kernel = module!(
        "race2",
        "st.shared.u32 [%r6], %r2; bar.sync 0; xor.b32 %r7, %r4, 4; add.s32 %r8, %r5, %r7;
         ld.shared.u32 %r9, [%r8]; st.shared.u32 [%r6], %r9;"
    );
    let found = fault(kernel, 1, 4, 4);
    assert_eq!(found.thread, 1, "{found}");
    let text = found.to_string();
    assert!(
        text.contains("reads the word of shared memory at 0x0 that thread 0 wrote, with no barrier"),
        "{text}"
    );
}

#[test]
fn reading_and_then_writing_without_a_barrier_is_a_race() {
    let kernel = module!(
        "anti",
        "st.shared.u32 [%r6], %r2; bar.sync 0; ld.shared.u32 %r9, [%r5]; setp.eq.s32 %p1, %r2, 3;
         @%p1 st.shared.u32 [%r5], %r9;"
    );
    let found = fault(kernel, 1, 4, 4);
    assert!(
        matches!(&found.what, Cause::Race { access: "writes", did: "read", other, .. } if other == "other threads"),
        "{found}"
    );
}

#[test]
fn two_writers_of_a_word_are_a_race_within_and_across_blocks() -> Result<()> {
    let kernel = module!("writers", "st.global.u32 [%rd1], %r2;");
    let found = fault(kernel, 1, 2, 4);
    assert!(
        matches!(found.what, Cause::Race { access: "writes", did: "wrote", space: "global", .. }),
        "{found}"
    );
    // One thread a block: nothing orders blocks, not even barriers.
    let kernel = module!("blocks", "bar.sync 0; st.global.u32 [%rd1], %r2; bar.sync 0;");
    let found = fault(kernel, 2, 1, 4);
    assert!(found.to_string().contains("that thread 0 of block 0 wrote"), "{found}");
    assert_eq!(found.block, 1);
    // A launch of one block is in order.
    assert_eq!(run(kernel, 1, 1, 1)?, [0]);
    Ok(())
}

#[test]
fn a_block_may_not_write_what_another_reads() {
    let kernel = module!(
        "reader",
        "ld.global.u32 %r9, [%rd1]; setp.eq.s32 %p1, %r3, 1; @%p1 st.global.u32 [%rd1], %r9;"
    );
    let found = fault(kernel, 2, 1, 1);
    assert!(matches!(found.what, Cause::Race { access: "writes", did: "read", .. }), "{found}");
}

#[test]
fn accesses_outside_are_named() {
    let kernel = module!("outside", "st.global.u32 [%rd3], %r2;");
    let found = fault(kernel, 1, 5, 4);
    assert_eq!(found.thread, 4);
    assert!(
        found
            .to_string()
            .contains("writes 4 bytes of global memory at 0x100000010, byte 16 of a buffer of 16"),
        "{found}"
    );
    let kernel = module!("null", "mov.u64 %rd4, 0; ld.global.f32 %f1, [%rd4];");
    assert!(fault(kernel, 1, 1, 4).to_string().contains("which is null"));
    let kernel = module!("shared", "st.shared.u32 [%r5+320], %r2;");
    assert!(fault(kernel, 1, 1, 4).to_string().contains("at 0x140, of which there are 320 bytes"));
    let kernel = module!("odd", "ld.global.v2.f32 {%f1, %f2}, [%rd1+4];");
    assert!(matches!(fault(kernel, 1, 1, 4).what, Cause::Misaligned { bytes: 8, .. }));
}

#[test]
fn a_barrier_that_not_all_threads_come_to() {
    let kernel = module!("left", "setp.eq.s32 %p1, %r2, 2; @%p1 ret; bar.sync 0;");
    let found = fault(kernel, 1, 4, 4);
    assert_eq!(found.what, Cause::Barrier { other: 2, does: "has ended".into() });
    let kernel = module!(
        "apart",
        "setp.eq.s32 %p1, %r2, 2; @%p1 bra OTHER; bar.sync 0; bra END; OTHER: bar.sync 0; END: mov.u32 %r9, 0;"
    );
    let text = fault(kernel, 1, 4, 4).to_string();
    assert!(text.contains("waits at a barrier, while thread 2 waits at the barrier of PTX line"), "{text}");
}

#[test]
fn shuffles() -> Result<()> {
    let kernel = module!("down", "shfl.sync.down.b32 %r9|%p1, %r2, 1, 31, -1; st.global.u32 [%rd3], %r9;");
    let got = run(kernel, 1, 32, 32)?;
    assert_eq!(got[..3], [1, 2, 3]);
    assert_eq!(got[31], 31);
    let kernel = module!("xor", "shfl.sync.bfly.b32 %r9, %r2, 5, 31, -1; st.global.u32 [%rd3], %r9;");
    let expected: Vec<u32> = (0..32).map(|i| i ^ 5).collect();
    assert_eq!(run(kernel, 1, 32, 32)?, expected);
    let kernel = module!("index", "shfl.sync.idx.b32 %r9, %r2, 3, 6175, -1; st.global.u32 [%rd3], %r9;");
    let expected: Vec<u32> = (0..32).map(|i| i / 8 * 8 + 3).collect();
    assert_eq!(run(kernel, 1, 32, 32)?, expected);
    let kernel = module!("up", "shfl.sync.up.b32 %r9, %r2, 2, 0, -1; st.global.u32 [%rd3], %r9;");
    assert_eq!(run(kernel, 1, 32, 32)?[..5], [0, 1, 0, 1, 2]);
    let kernel = module!(
        "alone",
        "setp.eq.s32 %p1, %r2, 9; @%p1 bra E; shfl.sync.down.b32 %r9, %r2, 1, 31, -1; E: bar.sync 0;"
    );
    let found = fault(kernel, 1, 32, 32);
    assert!(matches!(found.what, Cause::Shuffle { other: 9, .. }), "{found}");
    Ok(())
}

/// A warp's product of ones with columns of their own numbers, by a matrix of ones: eight times the number of the column.
#[test]
fn products_of_a_warp() -> Result<()> {
    let kernel = module!(
        "product",
        "mov.b32 %r10, 0x3f800000; shr.u32 %r11, %r2, 2; cvt.rn.f32.s32 %f1, %r11; cvt.rna.tf32.f32 %r12, %f1;
         mov.f32 %f2, 0f3F800000; mov.f32 %f3, %f2; mov.f32 %f4, %f2; mov.f32 %f5, %f2;
         mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f2, %f3, %f4, %f5}, {%r10, %r10, %r10, %r10}, {%r12, %r12}, {%f2, %f3, %f4, %f5};
         st.global.f32 [%rd3], %f3;"
    );
    let of_columns = |got: Vec<u32>, each: f32| {
        for (lane, bits) in got.into_iter().enumerate() {
            let column = 2 * (lane % 4) + 1;
            assert_eq!(f32::from_bits(bits), 1.0 + each * column as f32, "lane {lane}");
        }
    };
    of_columns(run(kernel, 1, 32, 32)?, 8.0);
    // Two halves of 1 in each register.
    let kernel = module!(
        "halves",
        "mov.b32 %r10, 0x3f803f80; shr.u32 %r11, %r2, 2; cvt.rn.f32.s32 %f1, %r11;
         cvt.rn.bf16x2.f32 %r12, %f1, %f1;
         mov.f32 %f2, 0f3F800000; mov.f32 %f3, %f2; mov.f32 %f4, %f2; mov.f32 %f5, %f2;
         mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f2, %f3, %f4, %f5}, {%r10, %r10, %r10, %r10}, {%r12, %r12}, {%f2, %f3, %f4, %f5};
         st.global.f32 [%rd3], %f3;"
    );
    of_columns(run(kernel, 1, 32, 32)?, 16.0);
    let kernel = module!(
        "rounded",
        "mov.b32 %f1, 0x3f801000; cvt.rna.tf32.f32 %r9, %f1; st.global.u32 [%rd1], %r9;
         mov.b32 %f1, 0x3f800fff; cvt.rna.tf32.f32 %r9, %f1; st.global.u32 [%rd1+4], %r9;
         mov.b32 %f2, 0x3f808000; mov.b32 %f3, 0xbf818000;
         cvt.rn.bf16x2.f32 %r9, %f3, %f2; st.global.u32 [%rd1+8], %r9;"
    );
    assert_eq!(run(kernel, 1, 1, 3)?, [0x3f80_2000, 0x3f80_0000, 0xbf82_3f80]);

    // A lane that is not there, and too few threads for a warp.
    let kernel = module!(
        "absent",
        "setp.eq.s32 %p1, %r2, 9; @%p1 bra E;
         mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f2, %f3, %f4, %f5}, {%r10, %r10, %r10, %r10}, {%r12, %r12}, {%f2, %f3, %f4, %f5}; E: bar.sync 0;"
    );
    let found = fault(kernel, 1, 32, 32);
    assert!(matches!(found.what, Cause::Tensor { other: 9, .. }), "{found}");
    let kernel = module!(
        "few",
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f2, %f3, %f4, %f5}, {%r10, %r10, %r10, %r10}, {%r12, %r12}, {%f2, %f3, %f4, %f5};"
    );
    let text = fault(kernel, 1, 40, 40).to_string();
    assert!(text.contains("waits in a product of its warp, while thread 40 is not there"), "{text}");
    Ok(())
}

/// Results of single operations, computed by hand or by Rust on the same bits.
#[test]
fn arithmetic() -> Result<()> {
    let kernel = module!(
        "arithmetic",
        "mov.f32 %f1, 0f40400000; mov.f32 %f2, 0fBF000000;
         fma.rn.f32 %f3, %f1, %f2, %f2; st.global.f32 [%rd1], %f3;
         ex2.approx.ftz.f32 %f3, %f1; st.global.f32 [%rd1+4], %f3;
         div.rn.f32 %f3, %f1, %f2; st.global.f32 [%rd1+8], %f3;
         mov.u32 %r9, -7; shr.s32 %r10, %r9, 1; st.global.u32 [%rd1+12], %r10;
         div.s32 %r10, %r9, 2; st.global.u32 [%rd1+16], %r10;
         rem.s32 %r10, %r9, 4; st.global.u32 [%rd1+20], %r10;
         mul.hi.u32 %r10, %r9, 2; st.global.u32 [%rd1+24], %r10;
         cvt.rzi.s32.f32 %r10, %f2; st.global.u32 [%rd1+28], %r10;
         cvt.rn.f32.s32 %f3, %r9; st.global.f32 [%rd1+32], %f3;
         setp.gt.f32 %p1, %f1, %f2; selp.u32 %r10, 5, 6, %p1; st.global.u32 [%rd1+36], %r10;
         mov.f32 %f4, 0f7FC00000; max.f32 %f3, %f4, %f1; st.global.f32 [%rd1+40], %f3;
         setp.ltu.f32 %p1, %f4, %f1; selp.u32 %r10, 5, 6, %p1; st.global.u32 [%rd1+44], %r10;
         cvt.f64.f32 %fd1, %f2; add.f64 %fd1, %fd1, 0d3FF0000000000000; cvt.rn.f32.f64 %f3, %fd1;
         st.global.f32 [%rd1+48], %f3;
         shl.b32 %r10, %r9, 32; st.global.u32 [%rd1+52], %r10;
         ld.global.s8 %r10, [%rd1+12]; st.global.u32 [%rd1+56], %r10;
         @!%p1 st.global.u32 [%rd1+60], %r1;"
    );
    let f = |v: f32| v.to_bits();
    let i = |v: i32| v as u32;
    let expected =
        [f(-2.0), f(8.0), f(-6.0), i(-4), i(-3), i(-3), 1, 0, f(-7.0), 5, f(3.0), 5, f(0.5), 0, i(-4), 0];
    assert_eq!(run(kernel, 1, 1, 16)?, expected);
    Ok(())
}

#[test]
fn loops_and_memory_of_the_thread() -> Result<()> {
    let kernel = module!(
        "loops",
        ".local .align 8 .b8 mine[16]; mov.u64 %rd9, mine; cvta.local.u64 %rd10, %rd9; mov.u32 %r9, 0; mov.u32 %r10, 0;
         AGAIN: add.s32 %r10, %r10, %r9; add.s32 %r9, %r9, 1; setp.le.s32 %p1, %r9, %r2; @%p1 bra AGAIN;
         st.u32 [%rd10+8], %r10; ld.local.u32 %r11, [%rd9+8]; st.global.u32 [%rd3], %r11;"
    );
    assert_eq!(run(kernel, 1, 5, 5)?, [0, 1, 3, 6, 10]);
    Ok(())
}

#[test]
fn what_is_not_understood_does_not_load() {
    let kernel = module!("atomics", "atom.global.add.u32 %r9, [%rd1], 1;");
    let message = run(kernel, 1, 1, 1).map_err(|e| e.to_string());
    assert_eq!(
        message,
        Err("module atomics: line 27: the emulator does not know atom.global.add.u32".to_owned())
    );
    let kernel = module!("nowhere", "bra NOWHERE;");
    let message = run(kernel, 1, 1, 1).map_err(|e| e.to_string());
    assert_eq!(message, Err("module nowhere: line 27: no label NOWHERE".to_owned()));
}

#[test]
fn launches_are_checked() -> Result<()> {
    let kernel = module!("checked", "mov.u32 %r9, 0;");
    let gpu = Gpu::emulated();
    let mut buffer = gpu.zeros::<u32>(1)?;
    let threads = gpu.launch(kernel, Grid::row(1, 257, 0), &[buffer.output(), Arg::I32(0)]);
    assert_eq!(threads.map_err(|e| e.to_string()), Err("k: number of threads is 257, 1 to 256".into()));
    let args = gpu.launch(kernel, Grid::row(1, 1, 0), &[buffer.output(), Arg::I64(0)]);
    let expected = "module checked: k takes parameters of [8, 4] bytes, is given [8, 8]";
    assert_eq!(args.map_err(|e| e.to_string()), Err(expected.into()));
    let shared = gpu.launch(kernel, Grid::row(1, 1, 1 << 20), &[buffer.output(), Arg::I32(0)]);
    assert!(matches!(shared, Err(Error::SharedMemory { limit: 232_448, .. })), "{shared:?}");
    let memory = gpu.zeros::<u8>(5 << 30).map(|b| b.len()).map_err(|e| e.to_string());
    let expected = "out of device memory: asked for 5368709120 bytes, 4294967292 of 4294967296 are free";
    assert_eq!(memory, Err(expected.into()));
    Ok(())
}

/// Buffers that were given back are not there any more, though their place would be.
#[test]
fn memory_that_was_given_back() -> Result<()> {
    let kernel = module!("freed", "st.global.u32 [%rd1], %r2;");
    let gpu = Gpu::emulated();
    let address = gpu.zeros::<u32>(4)?.output();
    let result = gpu.launch(kernel, Grid::row(1, 1, 0), &[address, Arg::I32(0)]);
    assert!(
        matches!(result, Err(Error::Emulated(Fault { what: Cause::OutOfBounds { .. }, .. }))),
        "{result:?}"
    );
    Ok(())
}
