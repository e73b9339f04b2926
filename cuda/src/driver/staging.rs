//! Copies to the device that nobody waits for: through two halves of pinned memory that take turns.

use cust::error::CudaResult;
use cust::event::{Event, EventFlags};
use cust::memory::LockedBuffer;
use cust::stream::Stream;
use cust::sys;

use super::real::{check, failed};
use crate::error::Result;

/// Bytes of a half. What is larger goes in pieces, one filled while the other is on its way.
const BYTES: usize = 4 << 20;
/// Where a copy begins in a half: at multiples of a cache line.
const ALIGN: usize = 64;

/// Pinned memory, and how far it is taken.
#[derive(Debug)]
pub(super) struct Staging {
    halves: [Half; 2],
    /// The one that is being filled, and its bytes that are.
    now: usize,
    filled: usize,
}

#[derive(Debug)]
struct Half {
    place: LockedBuffer<u8>,
    /// Everything before has left the half.
    sent: Event,
}

impl Half {
    fn new() -> CudaResult<Half> {
        Ok(Half { place: LockedBuffer::new(&0, BYTES)?, sent: Event::new(EventFlags::DISABLE_TIMING)? })
    }
}

impl Staging {
    /// Errors: the driver has no pinned memory left.
    pub(super) fn new() -> Result<Staging> {
        let half = || Half::new().map_err(failed("taking pinned memory"));
        Ok(Staging { halves: [half()?, half()?], now: 0, filled: 0 })
    }

    /// Starts a copy to the device, after everything on the stream; `bytes` may change as soon as it returns. The owner of
    /// `address` has room for them. Errors: the driver's, also those of what was started before.
    pub(super) fn copy(&mut self, stream: &Stream, address: u64, bytes: &[u8]) -> Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            if self.filled >= BYTES {
                self.turn(stream)?;
            }
            let len = (bytes.len() - done).min(BYTES - self.filled);
            let to = &mut self.halves[self.now].place[self.filled..self.filled + len];
            to.copy_from_slice(&bytes[done..done + len]);
            // SAFETY: the buffer that owns the address has room, as the caller says; this part of the half is not written
            // again before `sent` has come.
            let code = unsafe {
                sys::cuMemcpyHtoDAsync_v2(address + done as u64, to.as_ptr().cast(), len, stream.as_inner())
            };
            check("copying to the device", code)?;
            self.filled += len.next_multiple_of(ALIGN);
            done += len;
        }
        Ok(())
    }

    /// The other half, once it has left.
    fn turn(&mut self, stream: &Stream) -> Result<()> {
        self.halves[self.now].sent.record(stream).map_err(failed("recording an event"))?;
        (self.now, self.filled) = (1 - self.now, 0);
        self.halves[self.now].sent.synchronize().map_err(failed("waiting for a copy"))
    }
}
