//! An Intel IOMMU (VT-d), just as much as an embedding needs to lend memory to a device:
//! one domain with the one device in it, which reaches what is mapped and nothing else.
//!
//! Only mode `iommu` switches it on, in a machine that has one; everywhere else devices
//! see physical memory as it is.
//!
//! The order that keeps a device off memory that is no longer lent: the end of a [`Window`]
//! unmaps, invalidates, and returns when the unit says that it is done. That is what the
//! library's `Lent::complete` asks for, before the pin can be given back.

mod registers;
mod tables;

use alloc::vec::Vec;

use pagepin_abi::Error;
use spin::{Once, mutex::SpinMutex};

use crate::{edu, memory::PAGE, mm, poll::Poll};

pub use registers::Fault;
use registers::Unit;
use tables::{Access, Domain, WINDOW_PAGES, WINDOW_START};

struct Iommu {
    unit: Unit,
    domain: Domain,
    /// Which pages of the window are lent.
    used: Vec<bool>,
}

static IOMMU: Once<SpinMutex<Iommu, Poll>> = Once::new();

/// Confines the device; from here on it reaches nothing that is not lent.
pub fn enable() -> Result<(), Error> {
    let device = edu::function().ok_or(Error::NoDevice)?;
    let unit = Unit::find()?;
    let domain = Domain::new(device)?;
    unit.translate(domain.root_table())?;
    let used = alloc::vec![false; WINDOW_PAGES];
    IOMMU.call_once(|| SpinMutex::new(Iommu { unit, domain, used }));
    Ok(())
}

/// Whether the device sees only what is lent to it.
pub fn is_enabled() -> bool {
    IOMMU.is_completed()
}

/// Forgets every cached translation: after a twin that has left some behind.
pub fn invalidate_all() {
    if let Some(iommu) = IOMMU.get() {
        iommu.lock().unit.invalidate_all();
    }
}

/// The first access that the unit has blocked since this was last called.
pub fn take_fault() -> Option<Fault> {
    IOMMU.get()?.lock().unit.take_fault()
}

/// Memory that the device reaches, as one range of its addresses whatever the frames are.
pub struct Window {
    first: usize,
    frames: Vec<u64>,
    /// Where in its first page the range begins.
    skip: u64,
    invalidates: bool,
}

impl Window {
    /// Lends these pieces of memory, of which all but the first begin and all but the last
    /// end at page boundaries. `None` without an IOMMU.
    ///
    /// Nothing has to be invalidated: the unit does not cache what is not there
    /// ([`Unit::find`] insists), and what was there before was invalidated at its end.
    pub fn new(segments: &[(u64, u64)], writable: bool) -> Result<Option<Self>, Error> {
        let Some(iommu) = IOMMU.get() else { return Ok(None) };
        let skip = segments.first().map_or(0, |&(start, _)| start % PAGE);
        let frames: Vec<u64> = segments
            .iter()
            .flat_map(|&(start, length)| (start / PAGE..(start + length).div_ceil(PAGE)).map(|pfn| pfn * PAGE))
            .collect();
        if frames.is_empty() {
            return Err(Error::Invalid);
        }
        let access = if writable { Access::ReadWrite } else { Access::Read };
        let mut iommu = iommu.lock();
        let free = |pages: &[bool]| pages.iter().all(|used| !used);
        let first = iommu.used.windows(frames.len()).position(free).ok_or(Error::Limit)?;
        for (page, &frame) in (first..).zip(&frames) {
            iommu.used[page] = true;
            iommu.domain.map(page, frame, access);
        }
        Ok(Some(Self { first, frames, skip, invalidates: true }))
    }

    /// Where the device finds the first byte.
    pub fn address(&self) -> u64 {
        WINDOW_START + self.first as u64 * PAGE + self.skip
    }

    /// The twin: unmaps in the end, and leaves what the unit has cached.
    pub fn forget_to_invalidate(&mut self) {
        self.invalidates = false;
    }
}

impl Drop for Window {
    /// When this returns, the device cannot reach the memory any more.
    ///
    /// # Panics
    ///
    /// If by then a frame was free already: whoever ends the pin first is found here.
    fn drop(&mut self) {
        let Some(iommu) = IOMMU.get() else { return };
        let mut iommu = iommu.lock();
        for (page, &frame) in (self.first..).zip(&self.frames) {
            iommu.domain.unmap(page);
            if self.invalidates {
                iommu.unit.invalidate_page(WINDOW_START + page as u64 * PAGE);
            }
            iommu.used[page] = false;
            assert!(mm::is_in_use(frame), "frame {frame:#x} was given back while the device could reach it");
        }
    }
}
