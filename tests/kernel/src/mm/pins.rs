//! What a process's devices may use.

use alloc::{vec, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering};

use pagepin::pin::{
    GotPages, Lent, Owner, PhysRun, PinAccess, PinError, PinFlags, PinnedPages, RawGets, Read, Write,
    get_user_pages_fast, get_user_pages_remote, pin_user_pages_fast, pin_user_pages_remote, put_user_pages,
};
use pagepin::{Env, FrameTable, Unlimited, UserRange};
use pagepin_abi::{Error, PIN_KEEP_CACHED, PIN_LONGTERM, PIN_PLAIN, PIN_READ, PIN_WRITE};

use super::{AddressSpace, Kernel, errors, kernel, store};
use crate::{iommu::Window, memory::PAGE, poll::Poll};

/// Most pages a handle stands for.
const PAGES_MAX: u64 = 1024;

/// Physical address and length of each piece, in order.
type Segments = Vec<(u64, u64)>;

/// User memory lent to a device. Ends with the value.
pub struct Pin {
    held: Option<Held>,
    /// What the device reaches of it, where an IOMMU decides that.
    window: Option<Window>,
    segments: Segments,
    writable: bool,
}

/// Whose memory is pinned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// That of the process that runs on this CPU.
    Own,
    Others,
}

type Owned<A> = Lent<Owner<&'static Kernel, Unlimited>, A, Vec<PhysRun>>;

/// Owned, because the table of handles outlives the borrow of the address space.
enum Held {
    Read(Owned<Read>),
    Write(Owned<Write>),
    /// What a kernel without pins takes: the frame stays allocated, and that is all.
    Plain(RawGets<Vec<PhysRun>>),
}

/// The most pins that any frame had right after it was pinned.
static HIGHEST: AtomicU64 = AtomicU64::new(0);

/// Looks at the words of what was pinned just now.
fn note_pins(runs: &[PhysRun]) {
    for run in runs {
        let first = run.first().block_start(run.order());
        for index in (0..run.pages()).step_by(1 << run.order()) {
            let pins = kernel().frames().frame(first.offset(index)).map_or(0, |frame| frame.snapshot().pins);
            HIGHEST.fetch_max(pins, Ordering::Relaxed);
        }
    }
}

/// The most pins that a frame had at once since it was last asked.
pub fn take_highest_pins() -> u64 {
    HIGHEST.swap(0, Ordering::Relaxed)
}

/// For the disk, by doing what it has to do, or while another CPU does.
fn wait() {
    store::work();
    <Poll as spin::RelaxStrategy>::relax();
}

impl Pin {
    pub fn new(space: &AddressSpace, whose: Whose, addr: u64, len: u64, flags: u64) -> Result<Self, Error> {
        let known = PIN_READ | PIN_WRITE | PIN_LONGTERM | PIN_PLAIN | PIN_KEEP_CACHED;
        if flags & !known != 0 || flags & (PIN_READ | PIN_WRITE) == 0 {
            return Err(Error::Invalid);
        }
        let range = space.space.range(addr, len).map_err(|_| Error::Invalid)?;
        if range.pages() > PAGES_MAX {
            return Err(Error::Limit);
        }
        let writable = flags & PIN_WRITE != 0;
        let long = if flags & PIN_LONGTERM != 0 { PinFlags::LONGTERM } else { PinFlags::empty() };
        let (held, segments) = match (flags & PIN_PLAIN != 0, writable) {
            (true, true) => Self::plain::<Write>(space, whose, range)?,
            (true, false) => Self::plain::<Read>(space, whose, range)?,
            (false, true) => {
                let (pins, segments) = Self::pinned::<Write>(space, whose, range, long)?;
                (Held::Write(pins), segments)
            }
            (false, false) => {
                let (pins, segments) = Self::pinned::<Read>(space, whose, range, long)?;
                (Held::Read(pins), segments)
            }
        };
        let mut pin = Self { held: Some(held), window: None, segments, writable };
        // From here on the frames stay, so now the device may reach them.
        pin.window = Window::new(&pin.segments, writable)?;
        if let Some(window) = pin.window.as_mut().filter(|_| flags & PIN_KEEP_CACHED != 0) {
            window.forget_to_invalidate();
        }
        Ok(pin)
    }

    fn pinned<A: PinAccess>(
        space: &AddressSpace,
        whose: Whose,
        range: UserRange,
        flags: PinFlags,
    ) -> Result<(Owned<A>, Segments), Error> {
        let pinned = loop {
            let buffer = vec![PhysRun::default(); range.pages() as usize];
            let pinned = match whose {
                Whose::Own => pin_user_pages_fast(&space.space, A::default(), range, flags, buffer),
                Whose::Others => pin_user_pages_remote(&space.space, A::default(), range, flags, buffer),
            };
            match pinned.and_then(PinnedPages::complete) {
                // It is read, or written: by whom of those who wait does not matter.
                Err(PinError::NotReady(_)) => wait(),
                other => break other.map_err(errors::pin)?,
            }
        };
        note_pins(pinned.runs());
        let segments = pinned.byte_runs().map(|run| (run.address, run.length)).collect();
        Ok((pinned.into_owned().lend(), segments))
    }

    fn plain<A: PinAccess>(space: &AddressSpace, whose: Whose, range: UserRange) -> Result<(Held, Segments), Error> {
        let buffer = vec![PhysRun::default(); range.pages() as usize];
        let none = PinFlags::empty();
        let got: Result<GotPages<'_, &'static Kernel, _>, _> = match whose {
            Whose::Own => get_user_pages_fast(&space.space, A::default(), range, none, buffer),
            Whose::Others => get_user_pages_remote(&space.space, A::default(), range, none, buffer),
        };
        let got = got.map_err(errors::pin)?;
        if let Some(stopped) = got.stopped() {
            return Err(errors::pin(stopped.reason));
        }
        let (mut skip, mut left) = (range.offset_in_page(), range.length());
        let mut segments = Vec::new();
        for run in got.runs() {
            let length = (run.pages() * PAGE - skip).min(left);
            segments.push((run.first().address() + skip, length));
            (skip, left) = (0, left - length);
        }
        Ok((Held::Plain(got.into_raw()), segments))
    }

    /// Where `offset` is in physical memory, and how many bytes follow it there.
    pub fn segment(&self, mut offset: u64) -> Option<(u64, u64)> {
        for &(address, length) in &self.segments {
            if offset < length {
                return Some((address + offset, length - offset));
            }
            offset -= length;
        }
        None
    }

    /// All of it, in order.
    pub fn segments(&self) -> &[(u64, u64)] {
        &self.segments
    }

    /// Where the device finds `offset`, and how many bytes it finds from there on.
    pub fn device_segment(&self, offset: u64) -> Option<(u64, u64)> {
        let Some(window) = &self.window else { return self.segment(offset) };
        let length: u64 = self.segments.iter().map(|&(_, length)| length).sum();
        (offset < length).then(|| (window.address() + offset, length - offset))
    }

    /// Whether the device may write.
    pub fn is_writable(&self) -> bool {
        self.writable
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        // First the device loses its access, cached translations included; only then may
        // the frames become somebody else's.
        drop(self.window.take());
        match self.held.take() {
            // SAFETY: a handle is not given back while the device is busy with it, and the
            // device has just lost the pages, where an IOMMU decides that (but for the twin).
            Some(Held::Read(lent)) => drop(unsafe { lent.complete() }),
            // SAFETY: as above.
            Some(Held::Write(lent)) => drop(unsafe { lent.complete() }),
            // SAFETY: taken through the same kernel.
            Some(Held::Plain(raw)) => unsafe { put_user_pages(kernel(), raw) },
            None => {}
        }
    }
}
