//! What the emulated device refuses.

/// A fault of a kernel on the emulated device: where, and what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kernel}, block {block}, thread {thread}, PTX line {line}: {what}")]
pub struct Fault {
    /// Name of the kernel.
    pub kernel: &'static str,
    /// Number of the block.
    pub block: u32,
    /// Number of the thread in its block.
    pub thread: u32,
    /// Line of the instruction in the PTX.
    pub line: u32,
    /// What it did.
    pub what: Cause,
}

/// What an instruction did wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// An access outside every buffer, or outside the block's shared or the thread's local memory.
    #[error("{access} {bytes} bytes of {space} memory at {address:#x}, {near}")]
    OutOfBounds {
        /// `reads` or `writes`.
        access: &'static str,
        /// Which memory.
        space: &'static str,
        /// Size of the access.
        bytes: u32,
        /// First byte of the access.
        address: u64,
        /// Where that is.
        near: String,
    },
    /// An address that is no multiple of the access's size.
    #[error("{access} {bytes} bytes of {space} memory at {address:#x}, which is not aligned to them")]
    Misaligned {
        /// `reads` or `writes`.
        access: &'static str,
        /// Which memory.
        space: &'static str,
        /// Size of the access.
        bytes: u32,
        /// First byte of the access.
        address: u64,
    },
    /// Two threads use a word, one of them writes it, and nothing orders them.
    #[error(
        "{access} the word of {space} memory at {address:#x} that {other} {did}, with no barrier between them"
    )]
    Race {
        /// `reads` or `writes`.
        access: &'static str,
        /// Which memory.
        space: &'static str,
        /// The word.
        address: u64,
        /// The other thread.
        other: String,
        /// `wrote` or `read`.
        did: &'static str,
    },
    /// Shared memory is read that nobody has written.
    #[error("reads shared memory at {address:#x} before anybody wrote it")]
    Uninitialized {
        /// The word.
        address: u64,
    },
    /// Threads of a block do not come to the same barrier.
    #[error("waits at a barrier, while thread {other} {does}")]
    Barrier {
        /// A thread that is not there.
        other: u32,
        /// What it does instead.
        does: String,
    },
    /// Lanes of a warp do not come to the same shuffle.
    #[error("waits in a shuffle of the lanes {mask:#010x}, while thread {other} {does}")]
    Shuffle {
        /// Lanes that take part.
        mask: u32,
        /// A thread that is not there.
        other: u32,
        /// What it does instead.
        does: String,
    },
    /// A warp is not whole where it forms a product.
    #[error("waits in a product of its warp, while thread {other} {does}")]
    Tensor {
        /// A thread that is not there.
        other: u32,
        /// What it does instead.
        does: String,
    },
    /// A thread polls a word that nobody changes any more, and no block can do anything else.
    #[error("waits for blocks that do not come: the word of global memory at {address:#x} stays {value}")]
    Blocks {
        /// The word.
        address: u64,
        /// What it holds.
        value: u32,
    },
    /// A thread has run for so long that it will not end.
    #[error("has run {instructions} instructions without end")]
    Endless {
        /// How many.
        instructions: u64,
    },
}
