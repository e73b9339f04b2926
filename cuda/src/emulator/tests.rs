//! The emulator against kernels that are right, and kernels that are wrong in one way each.

use super::{Cause, Fault};
use crate::driver::{Arg, Grid, Kernel, Module};
use crate::error::{Error, Result};
use crate::gpu::Gpu;

/// A kernel with a pointer and a number as parameters, two registers of each kind loaded, and room for a body.
macro_rules! module {
    ($name:literal, $body:expr) => {{
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
fn halves_of_a_word_are_used_by_themselves() -> Result<()> {
    let kernel = module!(
        "halves",
        "mul.wide.u32 %rd4, %r2, 2; add.s64 %rd4, %rd1, %rd4; add.s32 %r7, %r2, 0x10001;
         st.global.u16 [%rd4], %r7; bar.sync 0; ld.global.u32 %r8, [%rd3]; bar.sync 0;
         add.s32 %r8, %r8, %r1; st.global.u32 [%rd3], %r8; ld.global.u16 %r9, [%rd4];"
    );
    // Thread 1 reads a half of the word that thread 0 has written as a whole.
    assert_eq!(fault(kernel, 1, 4, 4).thread, 1);
    let kernel = module!(
        "halves2",
        "mul.wide.u32 %rd4, %r2, 2; add.s64 %rd4, %rd1, %rd4; add.s32 %r7, %r2, 0x10001;
         st.global.u16 [%rd4], %r7; bar.sync 0; ld.global.u32 %r8, [%rd3]; bar.sync 0;
         add.s32 %r8, %r8, %r1; st.global.u32 [%rd3], %r8;"
    );
    assert_eq!(run(kernel, 1, 4, 4)?, [0x2_0008, 0x4_000a, 7, 7]);
    let kernel = module!(
        "halves3",
        "mul.wide.u32 %rd4, %r2, 2; add.s64 %rd4, %rd1, %rd4; st.global.u16 [%rd4], %r2;
         ld.global.u32 %r8, [%rd1];"
    );
    assert_eq!(fault(kernel, 1, 4, 4).thread, 1);
    let kernel = module!(
        "halves4",
        "shr.u32 %r7, %r2, 1; mul.wide.u32 %rd4, %r7, 2; add.s64 %rd4, %rd1, %rd4; st.global.u16 [%rd4], %r2;"
    );
    assert!(matches!(fault(kernel, 1, 4, 4).what, Cause::Race { access: "writes", .. }));
    let kernel =
        module!("halves5", "st.shared.u16 [%r6], %r2; ld.shared.u16 %r7, [%r6]; ld.shared.u32 %r8, [%r6];");
    assert_eq!(fault(kernel, 1, 1, 4).what, Cause::Uninitialized { address: 0 });
    Ok(())
}

#[test]
fn numbers_of_16_bits() -> Result<()> {
    let kernel = module!(
        "halves6",
        ".reg .b16 %h<9>;
         cvt.rn.bf16.f32 %h1, 0f3F808000; cvt.u32.u16 %r7, %h1; st.global.u32 [%rd1], %r7;
         cvt.rn.bf16.f32 %h1, 0f3F818000; cvt.u32.u16 %r7, %h1; st.global.u32 [%rd1+4], %r7;
         cvt.rn.f16.f32 %h2, 0f477FF000; cvt.u32.u16 %r7, %h2; st.global.u32 [%rd1+8], %r7;
         cvt.rn.f16.f32 %h2, 0f3F801000; st.global.b16 [%rd1+12], %h2; ld.global.b16 %h3, [%rd1+12];
         cvt.f32.f16 %f1, %h3; st.global.f32 [%rd1+12], %f1;"
    );
    // Ties to even; beyond 65504 infinite.
    assert_eq!(run(kernel, 1, 1, 4)?, [0x3f80, 0x3f82, 0x7c00, 1f32.to_bits()]);
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
    for kernel in [
        module!("other", "atom.relaxed.gpu.global.max.u32 %r9, [%rd1], 1;"),
        module!("near", "ld.relaxed.cta.global.u32 %r9, [%rd1];"),
        module!("store", "st.release.gpu.global.u32 [%rd1], %r9;"),
        module!("volatile", "ld.volatile.global.u32 %r9, [%rd1];"),
        module!("strong", "fence.sc.gpu;"),
        module!("block", "membar.cta;"),
    ] {
        let message = run(kernel, 1, 1, 1).map_err(|e| e.to_string());
        assert!(message.as_ref().is_err_and(|m| m.contains("the emulator does not know")), "{message:?}");
    }
    let kernel = module!("nowhere", "bra NOWHERE;");
    let message = run(kernel, 1, 1, 1).map_err(|e| e.to_string());
    assert_eq!(message, Err("module nowhere: line 27: no label NOWHERE".to_owned()));
}

/// Runs a kernel on blocks that wait for each other, on a device that has room for 4.
fn run_together(kernel: Kernel<'static>, blocks: u32, threads: u32, len: usize) -> Result<Vec<u32>> {
    let gpu = Gpu::emulated_as(227 << 10, 4);
    let mut buffer = gpu.zeros::<u32>(len)?;
    let grid = Grid { cooperative: true, ..Grid::row(blocks, threads, 64) };
    gpu.launch(kernel, grid, &[buffer.output(), Arg::I32(7)])?;
    buffer.download()
}

fn fault_together(kernel: Kernel<'static>, blocks: u32, threads: u32, len: usize) -> Fault {
    match run_together(kernel, blocks, threads, len) {
        Err(Error::Emulated(fault)) => fault,
        other => panic!("{}: expected a fault, got {other:?}", kernel.module.name),
    }
}

/// A meeting of 4 blocks, which count in word 16: a barrier, how thread 0 adds, how it polls, what it does then, a barrier.
macro_rules! meeting {
    ($first:literal, $add:literal, $poll:literal, $then:literal, $last:literal) => {
        concat!(
            $first,
            "setp.ne.s32 %p8, %r2, 0; @%p8 bra SKIP;",
            $add,
            ".gpu.global.add.u32 %r90, [%rd1+64], 1; or.b32 %r91, %r90, 3; add.s32 %r91, %r91, 1; AGAIN: ld.",
            $poll,
            ".gpu.global.u32 %r92, [%rd1+64]; sub.s32 %r92, %r92, %r91; setp.lt.s32 %p8, %r92, 0; @%p8 bra AGAIN;",
            $then,
            "SKIP:",
            $last
        )
    };
    () => {
        meeting!(
            "bar.sync 0;",
            "fence.acq_rel.gpu; atom.relaxed",
            "relaxed",
            "fence.acq_rel.gpu;",
            "bar.sync 0;"
        )
    };
}

/// A kernel of 4 blocks of 2 threads, in 7 rounds. In each a thread writes its word, in the set of words that round number
/// and `$sets` have in common; meets; and reads the word of the other thread of the next block. The words from 17 on are
/// sums of what was read.
macro_rules! rounds {
    ($name:literal, $sets:literal, $meeting:expr) => {
        module!(
            $name,
            concat!(
                "mov.u32 %r20, 0; mov.u32 %r21, 0; shl.b32 %r10, %r3, 1; add.s32 %r10, %r10, %r2;
                 add.s32 %r11, %r3, 1; and.b32 %r11, %r11, 3; shl.b32 %r11, %r11, 1; xor.b32 %r12, %r2, 1;
                 add.s32 %r11, %r11, %r12; ROUND: and.b32 %r13, %r20, ",
                $sets,
                "; shl.b32 %r13, %r13, 3; add.s32 %r14, %r13, %r10; mul.wide.u32 %rd4, %r14, 4;
                 add.s64 %rd4, %rd1, %rd4; mad.lo.s32 %r15, %r20, 100, %r10; st.global.u32 [%rd4], %r15;",
                $meeting,
                "add.s32 %r14, %r13, %r11; mul.wide.u32 %rd5, %r14, 4; add.s64 %rd5, %rd1, %rd5;
                 ld.global.u32 %r16, [%rd5]; add.s32 %r21, %r21, %r16;
                 add.s32 %r20, %r20, 1; setp.lt.s32 %p1, %r20, %r1; @%p1 bra ROUND;
                 mul.wide.u32 %rd6, %r10, 4; add.s64 %rd6, %rd1, %rd6; st.global.u32 [%rd6+68], %r21;"
            )
        )
    };
}

#[test]
fn blocks_meet() -> Result<()> {
    let kernels = [
        rounds!("fences", 1, meeting!()),
        rounds!(
            "system",
            1,
            meeting!("bar.sync 0;", "membar.gl; atom", "relaxed", "fence.acq_rel.sys;", "bar.sync 0;")
        ),
        rounds!("qualified", 1, meeting!("bar.sync 0;", "atom.release", "acquire", "", "bar.sync 0;")),
        rounds!("both", 1, meeting!("bar.sync 0;", "atom.acq_rel", "acquire", "", "bar.sync 0;")),
    ];
    // In round k word i of its set holds 100 k + i.
    let sums: Vec<u32> = (0..8).map(|i| 100 * 21 + 7 * (((i + 2) % 8) ^ 1)).collect();
    for kernel in kernels {
        let got = run_together(kernel, 4, 2, 25)?;
        assert_eq!(got[16], 4 * 7, "{}", kernel.module.name);
        assert_eq!(got[17..], sums, "{}", kernel.module.name);
    }
    Ok(())
}

#[test]
fn a_meeting_of_which_a_part_is_missing() {
    // Block 3 comes last and is the first to go on. Without the last barrier thread 1 of block 0 is, and reads too early.
    let read = "reads the word of global memory at 0x100000004 that thread 1 of block 0 wrote";
    let early = "writes the word of global memory at 0x100000008 that thread 1 of block 0 read";
    // In one set the next round writes what another block may still read.
    let late = "writes the word of global memory at 0x100000000 that thread 1 of block 3 read";
    let rows = [
        (
            rounds!(
                "first barrier",
                1,
                meeting!(
                    "",
                    "fence.acq_rel.gpu; atom.relaxed",
                    "relaxed",
                    "fence.acq_rel.gpu;",
                    "bar.sync 0;"
                )
            ),
            read,
        ),
        (
            rounds!(
                "first fence",
                1,
                meeting!("bar.sync 0;", "atom.relaxed", "relaxed", "fence.acq_rel.gpu;", "bar.sync 0;")
            ),
            read,
        ),
        (
            rounds!(
                "acquire alone",
                1,
                meeting!("bar.sync 0;", "atom.acquire", "acquire", "", "bar.sync 0;")
            ),
            read,
        ),
        (
            rounds!(
                "second fence",
                1,
                meeting!("bar.sync 0;", "fence.acq_rel.gpu; atom.relaxed", "relaxed", "", "bar.sync 0;")
            ),
            read,
        ),
        (
            rounds!(
                "release alone",
                1,
                meeting!("bar.sync 0;", "atom.release", "relaxed", "", "bar.sync 0;")
            ),
            read,
        ),
        (
            rounds!(
                "last barrier",
                1,
                meeting!(
                    "bar.sync 0;",
                    "fence.acq_rel.gpu; atom.relaxed",
                    "relaxed",
                    "fence.acq_rel.gpu;",
                    ""
                )
            ),
            early,
        ),
        (rounds!("barriers alone", 1, "bar.sync 0;"), early),
        (rounds!("one set", 0, meeting!()), late),
    ];
    for (kernel, expected) in rows {
        let found = fault_together(kernel, 4, 2, 25).to_string();
        assert!(found.contains(expected), "{}: {found}", kernel.module.name);
    }
}

/// A kernel of which block 0 does one thing, and all others another.
macro_rules! apart {
    ($name:literal, $zero:expr, $others:expr) => {
        module!($name, concat!("setp.ne.s32 %p7, %r3, 0; @%p7 bra OTHERS;", $zero, "ret; OTHERS:", $others))
    };
}

/// Waits until word 1 holds a number.
macro_rules! until {
    ($number:literal) => {
        concat!(
            "AGAIN: ld.relaxed.gpu.global.u32 %r92, [%rd1+4]; setp.lo.u32 %p8, %r92, ",
            $number,
            "; @%p8 bra AGAIN;"
        )
    };
}

/// An add publishes what is before the fence before it, and what others have published in its word.
#[test]
fn what_an_add_publishes() -> Result<()> {
    macro_rules! published {
        ($name:literal, $zero:literal) => {
            apart!($name, $zero, concat!(until!(1), "fence.acq_rel.gpu; ld.global.u32 %r9, [%rd1];"))
        };
    }
    let kernel = published!(
        "in order",
        "st.global.u32 [%rd1], %r1; fence.acq_rel.gpu; atom.relaxed.gpu.global.add.u32 %r9, [%rd1+4], 1;"
    );
    assert_eq!(run_together(kernel, 2, 1, 2)?, [7, 1]);
    for kernel in [
        published!(
            "behind the fence",
            "fence.acq_rel.gpu; st.global.u32 [%rd1], %r1; atom.relaxed.gpu.global.add.u32 %r9, [%rd1+4], 1;"
        ),
        published!(
            "behind the add",
            "fence.acq_rel.gpu; atom.relaxed.gpu.global.add.u32 %r9, [%rd1+4], 1; st.global.u32 [%rd1], %r1;"
        ),
        published!(
            "behind the release",
            "atom.release.gpu.global.add.u32 %r9, [%rd1+4], 1; st.global.u32 [%rd1], %r1;"
        ),
    ] {
        let found = fault_together(kernel, 2, 1, 2).to_string();
        assert!(
            found.contains("reads the word of global memory at 0x100000000 that thread 0 of block 0 wrote"),
            "{found}"
        );
    }
    // What another thread of the block has done, without a barrier and with one.
    let kernel = published!(
        "another thread",
        "setp.eq.s32 %p1, %r2, 1; @%p1 bra ADD; st.global.u32 [%rd1], %r1; ret;
         ADD: fence.acq_rel.gpu; atom.relaxed.gpu.global.add.u32 %r9, [%rd1+4], 1;"
    );
    let found = fault_together(kernel, 2, 2, 2).to_string();
    assert!(
        found.contains("reads the word of global memory at 0x100000000 that thread 0 of block 0 wrote"),
        "{found}"
    );
    let kernel = published!(
        "another thread before",
        "setp.eq.s32 %p1, %r2, 1; @!%p1 st.global.u32 [%rd1], %r1; bar.sync 0; @!%p1 ret;
         fence.acq_rel.gpu; atom.relaxed.gpu.global.add.u32 %r9, [%rd1+4], 1;"
    );
    assert_eq!(run_together(kernel, 2, 2, 2)?, [7, 1]);
    Ok(())
}

/// What a thread has taken up others of its block have behind a barrier, and other blocks if it publishes in turn.
#[test]
fn what_is_handed_on() -> Result<()> {
    macro_rules! taken {
        ($name:literal, $fence:literal, $barrier:literal) => {
            apart!(
                $name,
                "setp.eq.s32 %p1, %r2, 0; @%p1 st.global.u32 [%rd1], %r1; @%p1 fence.acq_rel.gpu;
                 @%p1 atom.relaxed.gpu.global.add.u32 %r9, [%rd1+4], 1;",
                concat!(
                    until!(1),
                    "setp.eq.s32 %p1, %r2, 0;",
                    $fence,
                    $barrier,
                    "setp.eq.s32 %p1, %r2, 1; @%p1 ld.global.u32 %r9, [%rd1];"
                )
            )
        };
    }
    let read = "reads the word of global memory at 0x100000000 that thread 0 of block 0 wrote";
    let kernel = taken!("by thread 0", "@%p1 fence.acq_rel.gpu;", "bar.sync 0;");
    assert_eq!(run_together(kernel, 2, 2, 2)?, [7, 1]);
    for kernel in
        [taken!("without barrier", "@%p1 fence.acq_rel.gpu;", ""), taken!("without fence", "", "bar.sync 0;")]
    {
        let found = fault_together(kernel, 2, 2, 2).to_string();
        assert!(found.contains(read), "{}: {found}", kernel.module.name);
    }

    // Block 1 waits for block 0, and block 2 in another word for block 1.
    macro_rules! chain {
        ($name:literal, $between:literal) => {
            apart!(
                $name,
                "st.global.u32 [%rd1], %r1; fence.acq_rel.gpu; atom.relaxed.gpu.global.add.u32 %r9, [%rd1+4], 1;",
                concat!(
                    "setp.eq.s32 %p1, %r3, 2; @%p1 bra LAST;",
                    until!(1),
                    $between,
                    "atom.relaxed.gpu.global.add.u32 %r9, [%rd1+8], 1; ret;
                     LAST: ld.acquire.gpu.global.u32 %r92, [%rd1+8]; setp.eq.u32 %p8, %r92, 0; @%p8 bra LAST;
                     ld.global.u32 %r9, [%rd1];"
                )
            )
        };
    }
    assert_eq!(run_together(chain!("fence", "fence.acq_rel.gpu;"), 3, 1, 3)?, [7, 1, 1]);
    let kernel = chain!("fences", "fence.acq_rel.gpu; bar.sync 0; fence.acq_rel.gpu;");
    assert_eq!(run_together(kernel, 3, 1, 3)?, [7, 1, 1]);
    let found = fault_together(chain!("no fence", ""), 3, 1, 3).to_string();
    assert!(found.contains(read), "{found}");

    // Block 1 adds to the same word without a fence: that hands on what block 0 has published there.
    let kernel = apart!(
        "same word",
        "st.global.u32 [%rd1], %r1; fence.acq_rel.gpu; atom.relaxed.gpu.global.add.u32 %r9, [%rd1+4], 1;",
        "AGAIN: ld.relaxed.gpu.global.u32 %r92, [%rd1+4]; setp.lo.u32 %p8, %r92, %r3; @%p8 bra AGAIN;
         setp.eq.s32 %p1, %r3, 1; @%p1 bra ADD; fence.acq_rel.gpu; ld.global.u32 %r9, [%rd1];
         ADD: atom.relaxed.gpu.global.add.u32 %r9, [%rd1+4], 1;"
    );
    assert_eq!(run_together(kernel, 3, 1, 2)?, [7, 3]);
    Ok(())
}

#[test]
fn a_word_that_several_blocks_read() -> Result<()> {
    // All threads of blocks read, and those for which `$but` does not hold publish that. Block 0 waits for as many and writes.
    macro_rules! readers {
        ($name:literal, $but:literal, $many:literal) => {
            apart!(
                $name,
                concat!(until!($many), "fence.acq_rel.gpu; st.global.u32 [%rd1], %r1;"),
                concat!(
                    "ld.global.u32 %r9, [%rd1]; setp.",
                    $but,
                    "; @%p1 ret; fence.acq_rel.gpu; atom.relaxed.gpu.global.add.u32 %r9, [%rd1+4], 1;"
                )
            )
        };
    }
    assert_eq!(run_together(readers!("all", "gt.u32 %p1, %r3, 3", 3), 4, 1, 2)?, [7, 3]);
    assert_eq!(run_together(readers!("one", "gt.u32 %p1, %r3, 3", 1), 2, 1, 2)?, [7, 1]);
    let rows = [
        (readers!("but the first", "eq.u32 %p1, %r3, 1", 2), 4, 1, "thread 0 of block 1"),
        (readers!("but the last", "eq.u32 %p1, %r3, 3", 2), 4, 1, "thread 0 of block 3"),
        (readers!("but the second", "eq.u32 %p1, %r3, 2", 1), 3, 1, "thread 0 of block 2"),
        (readers!("last threads", "lt.u32 %p1, %r2, 1", 3), 4, 2, "threads of block 1"),
        (readers!("last thread", "lt.u32 %p1, %r2, 1", 1), 2, 2, "threads of block 1"),
    ];
    for (kernel, blocks, threads, who) in rows {
        let found = fault_together(kernel, blocks, threads, 2).to_string();
        let expected = format!("writes the word of global memory at 0x100000000 that {who} read");
        assert!(found.contains(&expected), "{}: {found}", kernel.module.name);
    }

    // Of block 1 thread 1 reads, of block 2 both do; each thread 1 publishes.
    let kernel = apart!(
        "both of the second",
        concat!(until!(2), "fence.acq_rel.gpu; st.global.u32 [%rd1], %r1;"),
        "setp.eq.s32 %p1, %r2, 0; setp.eq.s32 %p2, %r3, 1; and.pred %p2, %p1, %p2; @%p2 ret;
         ld.global.u32 %r9, [%rd1]; @%p1 ret;
         fence.acq_rel.gpu; atom.relaxed.gpu.global.add.u32 %r9, [%rd1+4], 1;"
    );
    let found = fault_together(kernel, 3, 2, 2).to_string();
    assert!(
        found.contains("writes the word of global memory at 0x100000000 that threads of block 2 read"),
        "{found}"
    );

    // Thread 0 of block 2 writes, behind the meeting all threads of the others read: in every second round, or in all.
    macro_rules! spread {
        ($name:literal, $every:literal) => {
            module!(
                $name,
                concat!(
                    "mov.u32 %r20, 0; setp.eq.s32 %p2, %r3, 2; setp.eq.s32 %p3, %r2, 0; and.pred %p3, %p2, %p3;
                     ROUND: and.b32 %r21, %r20, ",
                    $every,
                    "; setp.eq.s32 %p4, %r21, 0; and.pred %p5, %p4, %p3; @%p5 st.global.u32 [%rd1], %r20;",
                    meeting!(),
                    "not.pred %p6, %p2; and.pred %p5, %p4, %p6; @%p5 ld.global.u32 %r9, [%rd1];
                     add.s32 %r20, %r20, 1; setp.lt.s32 %p1, %r20, %r1; @%p1 bra ROUND;"
                )
            )
        };
    }
    let got = run_together(spread!("every second", 1), 4, 3, 17)?;
    assert_eq!((got[0], got[16]), (6, 4 * 7));
    let found = fault_together(spread!("every", 0), 4, 3, 17).to_string();
    assert!(found.contains("block 2, thread 0"), "{found}");
    assert!(
        found.contains("writes the word of global memory at 0x100000000 that threads of block 3 read"),
        "{found}"
    );
    Ok(())
}

#[test]
fn words_of_atomics_are_not_used_plainly() -> Result<()> {
    let rows = [
        (
            apart!("added, read", "atom.gpu.global.add.u32 %r9, [%rd1], 1;", "ld.global.u32 %r9, [%rd1];"),
            "reads",
            "wrote",
        ),
        (
            apart!("added, written", "atom.gpu.global.add.u32 %r9, [%rd1], 1;", "st.global.u32 [%rd1], 1;"),
            "writes",
            "wrote",
        ),
        (
            apart!(
                "polled, written",
                "ld.relaxed.gpu.global.u32 %r9, [%rd1];",
                "bar.sync 0; st.global.u32 [%rd1], 1;"
            ),
            "writes",
            "read",
        ),
        (
            apart!("written, added", "st.global.u32 [%rd1], 1;", "atom.gpu.global.add.u32 %r9, [%rd1], 1;"),
            "writes",
            "wrote",
        ),
        (
            apart!("written, polled", "st.global.u32 [%rd1], 1;", "ld.relaxed.gpu.global.u32 %r9, [%rd1];"),
            "reads",
            "wrote",
        ),
        (
            apart!("read, added", "ld.global.u32 %r9, [%rd1];", "atom.gpu.global.add.u32 %r9, [%rd1], 1;"),
            "writes",
            "read",
        ),
    ];
    for (kernel, verb, done) in rows {
        let found = fault_together(kernel, 2, 1, 1).to_string();
        let expected =
            format!("{verb} the word of global memory at 0x100000000 that thread 0 of block 0 {done}");
        assert!(found.contains(&expected), "{}: {found}", kernel.module.name);
    }
    let kernel =
        apart!("read, polled", "ld.global.u32 %r9, [%rd1];", "ld.relaxed.gpu.global.u32 %r9, [%rd1];");
    assert_eq!(run_together(kernel, 2, 1, 1)?, [0]);
    // Threads of a block, without a barrier.
    let kernel = module!(
        "one block",
        "setp.eq.s32 %p1, %r2, 0; @%p1 atom.gpu.global.add.u32 %r9, [%rd1], 1; @%p1 ret; ld.global.u32 %r9, [%rd1];"
    );
    let found = fault_together(kernel, 1, 2, 1).to_string();
    assert!(found.contains("reads the word of global memory at 0x100000000 that thread 0 wrote"), "{found}");
    Ok(())
}

#[test]
fn blocks_that_do_not_come() -> Result<()> {
    let kernel = rounds!("left", 1, concat!("setp.eq.s32 %p7, %r3, 2; @%p7 ret;", meeting!()));
    let found = fault_together(kernel, 4, 2, 25);
    assert_eq!((found.block, found.thread), (0, 0), "{found}");
    assert_eq!(found.what, Cause::Blocks { address: 0x1_0000_0040, value: 3 });
    let line = kernel.module.ptx.lines().position(|line| line.contains("AGAIN: ld.relaxed"));
    assert_eq!(line.map(|line| line as u32 + 1), Some(found.line), "{found}");
    assert!(
        found
            .to_string()
            .ends_with("waits for blocks that do not come: the word of global memory at 0x100000040 stays 3"),
        "{found}"
    );
    // Blocks that run one after the other.
    let found = fault(rounds!("one by one", 1, meeting!()), 4, 2, 25);
    assert_eq!((found.block, found.thread), (0, 0), "{found}");
    assert_eq!(found.what, Cause::Blocks { address: 0x1_0000_0040, value: 1 });
    // The rest of the block waits at a barrier, and of the warp in a shuffle.
    let kernel = module!(
        "in a warp",
        "setp.eq.s32 %p1, %r2, 5; @!%p1 bra ON; AGAIN: ld.acquire.gpu.global.u32 %r9, [%rd1]; setp.eq.s32 %p2, %r9, 0;
         @%p2 bra AGAIN; ON: shfl.sync.down.b32 %r9, %r2, 1, 31, -1; bar.sync 0;"
    );
    let found = fault(kernel, 1, 64, 64);
    assert_eq!((found.thread, found.what), (5, Cause::Blocks { address: 0x1_0000_0000, value: 0 }));
    Ok(())
}

/// Blocks that run one after the other may use what earlier ones have published, if they do not wait for it.
#[test]
fn the_last_block_reads_what_all_have_written() -> Result<()> {
    macro_rules! last {
        ($name:literal, $fence:literal) => {
            module!(
                $name,
                concat!(
                    "mul.wide.u32 %rd4, %r3, 4; add.s64 %rd4, %rd1, %rd4; add.s32 %r9, %r3, 1; st.global.u32 [%rd4+4], %r9;",
                    $fence,
                    "atom.relaxed.gpu.global.add.u32 %r10, [%rd1], 1; setp.ne.s32 %p1, %r10, 2; @%p1 ret;",
                    $fence,
                    "ld.global.u32 %r11, [%rd1+4]; ld.global.u32 %r12, [%rd1+8]; mad.lo.s32 %r9, %r11, 10, %r12;
                     st.global.u32 [%rd1+16], %r9;"
                )
            )
        };
    }
    assert_eq!(run(last!("fenced", "fence.acq_rel.gpu;"), 3, 1, 5)?, [3, 1, 2, 3, 12]);
    let found = fault(last!("unfenced", ""), 3, 1, 5).to_string();
    assert!(
        found.contains("reads the word of global memory at 0x100000004 that thread 0 of block 0 wrote"),
        "{found}"
    );
    Ok(())
}

#[test]
fn more_blocks_than_run_at_once() -> Result<()> {
    let kernel = module!("many", "mov.u32 %r9, 0;");
    let error = run_together(kernel, 5, 1, 1);
    assert_eq!(error, Err(Error::Cooperative { kernel: "k", asked: 5, limit: 4 }));
    assert_eq!(run_together(kernel, 4, 1, 1)?, [0]);
    // They need not wait for each other.
    assert_eq!(run(kernel, 500, 1, 1)?, [0]);
    assert_eq!(Gpu::emulated_as(1 << 10, 4).driver.resident(kernel, 32, 0)?, 4);
    assert_eq!(Gpu::emulated().driver.resident(kernel, 32, 0)?, 132);
    Ok(())
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
