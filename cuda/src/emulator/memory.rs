//! Memory of the emulated device: bytes, and who used each word last.

use super::fault::Cause;

/// Who used a word since the launch began.
#[derive(Clone, Copy, Debug)]
struct Word {
    writer: u32,
    write_epoch: u32,
    /// The thread that read it in `read_epoch`, or [`MANY`].
    reader: u32,
    read_epoch: u32,
    /// The block that read it, ever, or [`MANY`].
    reader_block: u32,
}

const NOBODY: u32 = u32::MAX;
const MANY: u32 = u32::MAX - 1;
const FRESH: Word =
    Word { writer: NOBODY, write_epoch: 0, reader: NOBODY, read_epoch: 0, reader_block: NOBODY };

/// Who accesses: a thread by its number in the grid, and how many barriers its block has passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who {
    pub(super) thread: u32,
    pub(super) threads_of_block: u32,
    pub(super) epoch: u32,
}

impl Who {
    fn block(self) -> u32 {
        self.thread / self.threads_of_block
    }

    fn name(self, thread: u32) -> String {
        match thread {
            MANY => "other threads".into(),
            thread if thread / self.threads_of_block == self.block() => {
                format!("thread {}", thread % self.threads_of_block)
            }
            thread => {
                format!(
                    "thread {} of block {}",
                    thread % self.threads_of_block,
                    thread / self.threads_of_block
                )
            }
        }
    }
}

impl Word {
    /// Notes a read. Error: a writer it may not read from.
    fn read(&mut self, who: Who) -> Result<(), (String, &'static str)> {
        if self.writer != NOBODY && self.writer != who.thread {
            let same_block = self.writer / who.threads_of_block == who.block();
            if !same_block || self.write_epoch == who.epoch {
                return Err((who.name(self.writer), "wrote"));
            }
        }
        if self.reader == NOBODY || self.read_epoch != who.epoch {
            (self.reader, self.read_epoch) = (who.thread, who.epoch);
        } else if self.reader != who.thread {
            self.reader = MANY;
        }
        if self.reader_block == NOBODY {
            self.reader_block = who.block();
        } else if self.reader_block != who.block() {
            self.reader_block = MANY;
        }
        Ok(())
    }

    /// Notes a write. Error: another user.
    fn write(&mut self, who: Who) -> Result<(), (String, &'static str)> {
        if self.writer != NOBODY && self.writer != who.thread {
            let same_block = self.writer / who.threads_of_block == who.block();
            if !same_block || self.write_epoch == who.epoch {
                return Err((who.name(self.writer), "wrote"));
            }
        }
        if self.reader_block != NOBODY && self.reader_block != who.block() {
            let other = if self.reader_block == MANY {
                "other blocks".into()
            } else {
                format!("block {}", self.reader_block)
            };
            return Err((other, "read"));
        }
        if self.reader != NOBODY && self.reader != who.thread && self.read_epoch == who.epoch {
            return Err((who.name(self.reader), "read"));
        }
        (self.writer, self.write_epoch) = (who.thread, who.epoch);
        Ok(())
    }
}

/// Bytes with the record of their users.
#[derive(Debug, Default)]
pub(super) struct Watched {
    bytes: Vec<u8>,
    words: Vec<Word>,
    /// Launch the record belongs to.
    launch: u64,
}

/// A place to load from or store to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    pub(super) space: &'static str,
    /// For messages.
    pub(super) address: u64,
    /// In the bytes.
    pub(super) at: usize,
    pub(super) width: usize,
    pub(super) count: usize,
}

impl Watched {
    /// `len` bytes that hold NaN until they are written.
    pub(super) fn new(len: usize) -> Watched {
        Watched { bytes: vec![0xff; len], words: Vec::new(), launch: 0 }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// A new record for a new launch; for shared memory, for a new block.
    pub(super) fn watch(&mut self, launch: u64) {
        if self.launch != launch || self.words.is_empty() {
            self.launch = launch;
            self.words.clear();
            self.words.resize(self.bytes.len().div_ceil(4), FRESH);
        }
    }

    fn words(&self, access: Access) -> std::ops::RangeInclusive<usize> {
        access.at / 4..=(access.at + access.width * access.count - 1) / 4
    }

    fn race(access: Access, word: usize, verb: &'static str, other: (String, &'static str)) -> Cause {
        let address = access.address - access.at as u64 + 4 * word as u64;
        Cause::Race { access: verb, space: access.space, address, other: other.0, did: other.1 }
    }

    /// Notes a read of shared memory, which nobody fills but the block.
    pub(super) fn check_written(&self, access: Access) -> Result<(), Cause> {
        match self.words(access).find(|w| self.words[*w].writer == NOBODY) {
            Some(word) => {
                Err(Cause::Uninitialized { address: access.address - access.at as u64 + 4 * word as u64 })
            }
            None => Ok(()),
        }
    }

    /// Reads `count` values into the low bits of `into`.
    pub(super) fn load(&mut self, access: Access, who: Who, into: &mut [u64; 4]) -> Result<(), Cause> {
        for word in self.words(access) {
            self.words[word].read(who).map_err(|other| Self::race(access, word, "reads", other))?;
        }
        for (i, value) in into.iter_mut().enumerate().take(access.count) {
            *value = read(&self.bytes, access.at + i * access.width, access.width);
        }
        Ok(())
    }

    /// Writes `count` values from the low bits of `from`.
    pub(super) fn store(&mut self, access: Access, who: Who, from: &[u64; 4]) -> Result<(), Cause> {
        for word in self.words(access) {
            self.words[word].write(who).map_err(|other| Self::race(access, word, "writes", other))?;
        }
        for (i, value) in from.iter().enumerate().take(access.count) {
            write(&mut self.bytes, access.at + i * access.width, access.width, *value);
        }
        Ok(())
    }
}

/// `width` bytes, little-endian.
pub(super) fn read(bytes: &[u8], at: usize, width: usize) -> u64 {
    match bytes[at..at + width] {
        [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
        ref bytes => bytes.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b)),
    }
}

/// See [`read`].
pub(super) fn write(bytes: &mut [u8], at: usize, width: usize, value: u64) {
    bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
}

/// A buffer.
#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) base: u64,
    pub(super) memory: Watched,
}

/// The buffers of a device. Addresses are never used twice, and between buffers there is room that belongs to none.
#[derive(Debug)]
pub(super) struct Buffers {
    list: Vec<Allocation>,
    next: u64,
    /// Number of the buffer found last.
    last: usize,
    pub(super) used: u64,
}

const FIRST: u64 = 0x1_0000_0000;
const GAP: u64 = 4096;

impl Buffers {
    pub(super) fn new() -> Buffers {
        Buffers { list: Vec::new(), next: FIRST, last: 0, used: 0 }
    }

    pub(super) fn allocate(&mut self, bytes: u64) -> u64 {
        let base = self.next;
        self.next = (base + bytes + GAP).next_multiple_of(256);
        self.used += bytes;
        self.list.push(Allocation { base, memory: Watched::new(bytes as usize) });
        base
    }

    pub(super) fn release(&mut self, address: u64) {
        if let Ok(i) = self.list.binary_search_by_key(&address, |a| a.base) {
            self.used -= self.list[i].memory.bytes.len() as u64;
            self.list.remove(i);
            self.last = 0;
        }
    }

    /// Looks for the buffer that holds `bytes` at `address`; [`Buffers::found`] is it. Whether there is one.
    pub(super) fn find(&mut self, address: u64, bytes: u64) -> bool {
        let holds = |a: &Allocation| {
            let at = address.wrapping_sub(a.base);
            address >= a.base && at.checked_add(bytes).is_some_and(|end| end <= a.memory.bytes.len() as u64)
        };
        if self.list.get(self.last).is_some_and(holds) {
            return true;
        }
        let behind = self.list.partition_point(|a| a.base <= address);
        match behind.checked_sub(1).filter(|i| holds(&self.list[*i])) {
            Some(i) => self.last = i,
            None => return false,
        }
        true
    }

    /// The buffer found last, and the place of `address` in it.
    pub(super) fn found(&mut self, address: u64) -> (&mut Watched, usize) {
        let found = &mut self.list[self.last];
        let at = (address - found.base) as usize;
        (&mut found.memory, at)
    }

    /// Where an address lies that no buffer holds.
    pub(super) fn near(&self, address: u64) -> String {
        if address == 0 {
            return "which is null".into();
        }
        let behind = self.list.partition_point(|a| a.base <= address);
        match behind.checked_sub(1).map(|i| &self.list[i]) {
            Some(a) => {
                let (len, at) = (a.memory.bytes.len(), address - a.base);
                format!("byte {at} of a buffer of {len}")
            }
            None => "before every buffer".into(),
        }
    }
}
