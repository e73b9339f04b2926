//! Memory of the emulated device: bytes, and who used each word last.

use super::fault::Cause;
use super::order::{Clock, Crowd, MANY, Order, User, Who};

/// Who used a word since the launch began.
#[derive(Clone, Copy, Debug)]
struct Word {
    /// The thread that wrote it last; [`ATOMIC`] if atomics have used it since, [`SPLIT`] if its halves have been used.
    writer: u32,
    /// When it did; of [`ATOMIC`] the number of the record in [`Beside::atomics`], of [`SPLIT`] in [`Watched::halves`].
    write_stamp: u32,
    /// The thread of `reader_block` that read it, or [`MANY`]; of several blocks the number of their record in
    /// [`Beside::crowds`].
    reader: u32,
    /// When it did.
    read_stamp: u32,
    /// The block that read it, or [`MANY`].
    reader_block: u32,
}

const NOBODY: u32 = u32::MAX;
const ATOMIC: u32 = u32::MAX - 2;
const SPLIT: u32 = u32::MAX - 3;
const FRESH: Word =
    Word { writer: NOBODY, write_stamp: 0, reader: NOBODY, read_stamp: 0, reader_block: NOBODY };

/// Who used a word that atomics use.
#[derive(Clone, Debug, Default)]
struct Atomic {
    /// Who wrote it plainly, before.
    writer: Option<User>,
    adds: Crowd,
    /// Loads that are ordered with the adds.
    polls: Crowd,
    /// What the adds have published.
    clock: Clock,
}

/// Records that few words need.
#[derive(Debug, Default)]
struct Beside {
    atomics: Vec<Atomic>,
    crowds: Vec<Crowd>,
}

/// Another user, and what it did.
type Other = (String, &'static str);

impl Word {
    /// Whether this block alone has written it, and what it holds may be used or replaced. If not, [`Word::check_writer`]
    /// says more.
    #[inline]
    fn written_before(&self, who: &Who) -> bool {
        self.writer == NOBODY
            || self.writer == who.thread
            || self.writer.wrapping_sub(who.first) < who.threads_of_block && self.write_stamp < who.since
    }

    /// Error: a writer whose value may not be used or replaced.
    #[cold]
    fn check_writer(&self, who: &Who, order: &Order<'_>, beside: &Beside) -> Result<(), Other> {
        let unordered = if self.writer == ATOMIC {
            let atomic = &beside.atomics[self.write_stamp as usize];
            let writer = atomic.writer.filter(|user| !order.before(*user, who));
            writer.or_else(|| atomic.adds.against(who, order))
        } else {
            Some(self.last_writer(who)).filter(|user| !order.before(*user, who))
        };
        unordered.map_or(Ok(()), |user| Err((who.name(user), "wrote")))
    }

    fn last_writer(&self, who: &Who) -> User {
        User { thread: self.writer, block: self.writer / who.threads_of_block, stamp: self.write_stamp }
    }

    /// The readers, if they are of one block.
    fn last_reader(&self) -> User {
        User { thread: self.reader, block: self.reader_block, stamp: self.read_stamp }
    }

    /// Whether this block alone has read it, and the value may be taken away. If not, [`Word::check_readers`] says more.
    #[inline]
    fn read_before(&self, who: &Who) -> bool {
        self.reader_block == NOBODY
            || self.reader_block == who.block && (self.read_stamp < who.since || self.reader == who.thread)
    }

    /// Error: a reader from whom the value may not be taken away.
    #[cold]
    fn check_readers(&self, who: &Who, order: &Order<'_>, beside: &Beside) -> Result<(), Other> {
        let unordered = match self.reader_block {
            NOBODY => None,
            MANY if self.reader == NOBODY => return Err(("other blocks".into(), "read")),
            MANY => beside.crowds[self.reader as usize].against(who, order),
            _ => Some(self.last_reader()).filter(|user| !order.before(*user, who)),
        };
        unordered.map_or(Ok(()), |user| Err((who.name(user), "read")))
    }

    /// Notes a read. Error: a writer it may not read from.
    #[inline]
    fn read(&mut self, who: &Who, order: &Order<'_>, beside: &mut Beside) -> Result<(), Other> {
        if !self.written_before(who) {
            self.check_writer(who, order, beside)?;
        }
        if self.reader_block == who.block || self.reader_block == NOBODY {
            if self.reader_block == NOBODY || self.read_stamp < who.since {
                (self.reader, self.reader_block) = (who.thread, who.block);
            } else if self.reader != who.thread {
                self.reader = MANY;
            }
            self.read_stamp = who.stamp;
        } else if self.reader_block != MANY || order.cooperative {
            self.read_by_another_block(who, order, &mut beside.crowds);
        }
        Ok(())
    }

    #[cold]
    fn read_by_another_block(&mut self, who: &Who, order: &Order<'_>, crowds: &mut Vec<Crowd>) {
        if self.reader_block == MANY {
            crowds[self.reader as usize].note(who, order);
        } else if order.before(self.last_reader(), who) {
            (self.reader, self.read_stamp, self.reader_block) = (who.thread, who.stamp, who.block);
        } else {
            let before = self.last_reader();
            (self.reader, self.reader_block) = (NOBODY, MANY);
            if order.cooperative {
                let mut crowd = Crowd::from(before);
                crowd.note(who, order);
                self.reader = crowds.len() as u32;
                crowds.push(crowd);
            }
        }
    }

    /// Notes a write. Error: another user.
    #[inline]
    fn write(&mut self, who: &Who, order: &Order<'_>, beside: &Beside) -> Result<(), Other> {
        if !self.written_before(who) || !self.read_before(who) {
            self.check_writer_and_readers(who, order, beside)?;
        }
        (self.writer, self.write_stamp) = (who.thread, who.stamp);
        Ok(())
    }

    #[cold]
    fn check_writer_and_readers(
        &mut self,
        who: &Who,
        order: &Order<'_>,
        beside: &Beside,
    ) -> Result<(), Other> {
        if !self.written_before(who) {
            self.check_writer(who, order, beside)?;
        }
        self.check_readers(who, order, beside)?;
        if self.writer == ATOMIC
            && let Some(user) = beside.atomics[self.write_stamp as usize].polls.against(who, order)
        {
            return Err((who.name(user), "read"));
        }
        if self.reader_block != who.block {
            // They are ordered before whatever is ordered after this write.
            self.reader_block = NOBODY;
        }
        Ok(())
    }

    /// Notes an atomic, which only plain accesses have to be ordered with. Error: one that is not.
    fn atomic<'b>(
        &mut self,
        who: &Who,
        order: &Order<'_>,
        adds: bool,
        beside: &'b mut Beside,
    ) -> Result<&'b mut Atomic, Other> {
        if self.writer != ATOMIC {
            let writer = (self.writer != NOBODY).then(|| self.last_writer(who));
            (self.writer, self.write_stamp) = (ATOMIC, beside.atomics.len() as u32);
            beside.atomics.push(Atomic { writer, ..Atomic::default() });
        }
        if adds {
            self.check_readers(who, order, beside)?;
        }
        let atomic = &mut beside.atomics[self.write_stamp as usize];
        if let Some(user) = atomic.writer.filter(|user| !order.before(*user, who)) {
            return Err((who.name(user), "wrote"));
        }
        if adds { &mut atomic.adds } else { &mut atomic.polls }.note(who, order);
        Ok(atomic)
    }
}

/// Bytes with the record of their users.
#[derive(Debug, Default)]
pub(super) struct Watched {
    bytes: Vec<u8>,
    words: Vec<Word>,
    /// Of words of which halves have been used.
    halves: Vec<[Word; 2]>,
    beside: Beside,
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
        Watched { bytes: vec![0xff; len], ..Watched::default() }
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
            self.halves.clear();
            self.beside = Beside::default();
        }
    }

    fn words(&self, access: Access) -> std::ops::RangeInclusive<usize> {
        access.at / 4..=(access.at + access.width * access.count - 1) / 4
    }

    fn race(access: Access, word: usize, verb: &'static str, other: Other) -> Cause {
        let address = access.address - access.at as u64 + 4 * word as u64;
        Cause::Race { access: verb, space: access.space, address, other: other.0, did: other.1 }
    }

    /// Notes an access in the record of a word, or in those of its halves.
    #[inline]
    fn note(
        &mut self,
        access: Access,
        word: usize,
        note: impl Fn(&mut Word, &mut Beside) -> Result<(), Other>,
    ) -> Result<(), Other> {
        let record = &mut self.words[word];
        let narrow = access.width * access.count < 4;
        if narrow && record.writer != SPLIT && record.writer != ATOMIC {
            self.halves.push([*record; 2]);
            *record = Word { writer: SPLIT, write_stamp: self.halves.len() as u32 - 1, ..FRESH };
        }
        if record.writer != SPLIT {
            return note(record, &mut self.beside);
        }
        let halves = &mut self.halves[record.write_stamp as usize];
        halves_of(access, word).try_for_each(|half| note(&mut halves[half], &mut self.beside))
    }

    /// Makes a word whole before an atomic uses it, which everybody else who used its halves has to come before.
    fn joined(
        &mut self,
        word: usize,
        check: impl Fn(&Word, &Beside) -> Result<(), Other>,
    ) -> Result<(), Other> {
        let record = &mut self.words[word];
        if record.writer == SPLIT {
            let halves = &self.halves[record.write_stamp as usize];
            halves.iter().try_for_each(|half| check(half, &self.beside))?;
            *record = FRESH;
        }
        Ok(())
    }

    /// Notes a read of shared memory, which nobody fills but the block.
    pub(super) fn check_written(&self, access: Access) -> Result<(), Cause> {
        let missing = |w: &usize| match self.words[*w] {
            Word { writer: SPLIT, write_stamp, .. } => {
                let halves = &self.halves[write_stamp as usize];
                halves_of(access, *w).any(|half| halves[half].writer == NOBODY)
            }
            word => word.writer == NOBODY,
        };
        match self.words(access).find(missing) {
            Some(word) => {
                Err(Cause::Uninitialized { address: access.address - access.at as u64 + 4 * word as u64 })
            }
            None => Ok(()),
        }
    }

    /// Reads `count` values into the low bits of `into`.
    pub(super) fn load(
        &mut self,
        access: Access,
        who: &Who,
        order: &Order<'_>,
        into: &mut [u64; 4],
    ) -> Result<(), Cause> {
        for word in self.words(access) {
            self.note(access, word, |word, beside| word.read(who, order, beside))
                .map_err(|other| Self::race(access, word, "reads", other))?;
        }
        for (i, value) in into.iter_mut().enumerate().take(access.count) {
            *value = read(&self.bytes, access.at + i * access.width, access.width);
        }
        Ok(())
    }

    /// Writes `count` values from the low bits of `from`.
    pub(super) fn store(
        &mut self,
        access: Access,
        who: &Who,
        order: &Order<'_>,
        from: &[u64; 4],
    ) -> Result<(), Cause> {
        for word in self.words(access) {
            self.note(access, word, |word, beside| word.write(who, order, beside))
                .map_err(|other| Self::race(access, word, "writes", other))?;
        }
        for (i, value) in from.iter().enumerate().take(access.count) {
            write(&mut self.bytes, access.at + i * access.width, access.width, *value);
        }
        Ok(())
    }

    /// Reads the word of an access as atomics do: it, and what was published in it.
    pub(super) fn poll(
        &mut self,
        access: Access,
        who: &Who,
        order: &Order<'_>,
    ) -> Result<(u32, &Clock), Cause> {
        let word = access.at / 4;
        let atomic = self
            .joined(word, |half, beside| half.check_writer(who, order, beside))
            .and_then(|()| self.words[word].atomic(who, order, false, &mut self.beside))
            .map_err(|other| Self::race(access, word, "reads", other))?;
        Ok((read(&self.bytes, access.at, 4) as u32, &atomic.clock))
    }

    /// Adds to the word of an access and publishes a clock in it. What the word was, and what has been published in it.
    pub(super) fn add(
        &mut self,
        access: Access,
        who: &Who,
        order: &Order<'_>,
        (by, published): (u32, &Clock),
    ) -> Result<(u32, &Clock), Cause> {
        let word = access.at / 4;
        let atomic = self
            .joined(word, |half, beside| {
                half.check_writer(who, order, beside)?;
                half.check_readers(who, order, beside)
            })
            .and_then(|()| self.words[word].atomic(who, order, true, &mut self.beside))
            .map_err(|other| Self::race(access, word, "writes", other))?;
        atomic.clock.join(published);
        let old = read(&self.bytes, access.at, 4) as u32;
        write(&mut self.bytes, access.at, 4, u64::from(old.wrapping_add(by)));
        Ok((old, &atomic.clock))
    }
}

/// The halves of a word that an access uses.
fn halves_of(access: Access, word: usize) -> std::ops::RangeInclusive<usize> {
    let (first, last) = (access.at, access.at + access.width * access.count - 1);
    let of = |at: usize| at.saturating_sub(4 * word).min(3) / 2;
    of(first)..=of(last)
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
