//! The twins: fault handlers as small kernels write them. Each leaves out one thing
//! that the library does, and each loses something because of it.

use alloc::{
    sync::{Arc, Weak},
    vec::Vec,
};
use core::sync::atomic::{AtomicU64, Ordering};

use pagepin::frame::{FrameKind, Ownership};
use pagepin::{Entry, Env, FrameRequest, FrameSource, FrameTable, PageAddr, Pfn, PhysMap, paging::Tables};
use pagepin_abi::{Error, TWIN_MAPCOUNT, TWIN_NONE, TWIN_PUBLISH_FIRST};
use spin::mutex::SpinMutex;
use x86_64::structures::idt::PageFaultErrorCode;

use super::{
    AddressSpace, kernel,
    picture::Mapped,
    platform::{self, put},
};
use crate::{memory, poll::Poll, shootdown};

/// Which twin handles the faults of a space.
#[derive(Default)]
pub struct Choice(AtomicU64);

impl Choice {
    #[inline(always)]
    pub fn is_chosen(&self) -> bool {
        self.0.load(Ordering::Relaxed) != TWIN_NONE
    }

    pub fn choose(&self, twin: u64) -> Result<(), Error> {
        if !matches!(twin, TWIN_NONE | TWIN_MAPCOUNT | TWIN_PUBLISH_FIRST) {
            return Err(Error::Invalid);
        }
        self.0.store(twin, Ordering::Relaxed);
        Ok(())
    }
}

/// All spaces, for counting the mappings of a frame.
static SPACES: SpinMutex<Vec<Weak<AddressSpace>>, Poll> = SpinMutex::new(Vec::new());

/// Makes a space known to the twin that counts mappings.
pub fn register(space: &Arc<AddressSpace>) {
    let mut spaces = SPACES.lock();
    spaces.retain(|space| space.strong_count() > 0);
    spaces.push(Arc::downgrade(space));
}

/// How many spaces map the page to this frame. Fork keeps addresses, so one look per
/// space is enough.
fn mapcount(page: PageAddr, pfn: Pfn) -> usize {
    let spaces: Vec<_> = SPACES.lock().iter().filter_map(Weak::upgrade).collect();
    spaces.iter().filter(|space| matches!(space.mapped(page), Ok(Some(mapped)) if mapped.pfn == pfn)).count()
}

/// Handles a write to a page that is there but read-only; whether it did.
#[cold]
pub fn fault(space: &AddressSpace, address: u64, code: PageFaultErrorCode) -> bool {
    if !code.contains(PageFaultErrorCode::CAUSED_BY_WRITE) {
        return false;
    }
    let page = PageAddr::containing(address);
    let Ok(Some(mapped)) = space.mapped(page) else { return false };
    if mapped.slot.entry.is_special() || mapped.writable {
        return mapped.writable;
    }
    match space.twin.0.load(Ordering::Relaxed) {
        TWIN_MAPCOUNT => reuse_by_mapcount(space, &mapped, page),
        TWIN_PUBLISH_FIRST => publish_first(space, &mapped, page),
        _ => false,
    }
}

const WRITABLE: u64 = 1 << 1;

/// Stores an entry, if it still is what it was; the twins leave out other things.
fn replace_entry(space: &AddressSpace, mapped: &Mapped, page: PageAddr, bits: u64) -> bool {
    let mut replaced = false;
    let looked = pagepin::AddressSpace::with_vmas(&space.space, &mut |_| {
        // SAFETY: inside a section of the mm lock.
        let tables = unsafe { Tables::under_mm_lock(pagepin::AddressSpace::mm(&space.space)) };
        let Some(slot) = tables.find(page).ok().filter(|slot| slot.entry == mapped.slot.entry) else { return };
        // SAFETY: an entry of a live table. What it maps is allowed or not, that is what the
        // twins are about.
        replaced = unsafe { kernel().phys_map().exchange_entry(slot.at, slot.entry, Entry::from_bits(bits)) }.is_ok();
    });
    looked.is_ok() && replaced
}

/// "Only I map it, so it is mine": forgets that there are references which are not
/// mappings (CVE-2020-29374).
fn reuse_by_mapcount(space: &AddressSpace, mapped: &Mapped, page: PageAddr) -> bool {
    if mapcount(page, mapped.pfn) != 1 {
        return false;
    }
    // When the entry has changed, the access is made again.
    let _ = replace_entry(space, mapped, page, mapped.slot.entry.bits() | WRITABLE);
    true
}

/// Copies, maps the copy, and flushes last (golang/go issue 34988).
fn publish_first(space: &AddressSpace, mapped: &Mapped, page: PageAddr) -> bool {
    let kernel = kernel();
    let Some(copy) = kernel.source().allocate(FrameRequest::movable(0)) else { return false };
    let Some(frame) = kernel.frames().frame(copy) else { return false };
    // SAFETY: the source has just given it to us.
    if unsafe { frame.word() }.hand_out(FrameKind::Anonymous, 0, Ownership::Exclusive).is_err() {
        return false;
    }
    // SAFETY: the new frame is ours; of the old one, which nobody may write while it is
    // shared, a copy that comes too late is given up below.
    unsafe { kernel.phys_map().copy_frames(mapped.pfn, copy, 0) };
    let bits = mapped.slot.entry.bits() & !(Pfn::new((1 << 40) - 1).address()) | copy.address() | WRITABLE;
    if !replace_entry(space, mapped, page, bits) {
        // SAFETY: it has the one reference, which no entry took over.
        unsafe { put(copy) };
        return true;
    }
    platform::wait_before_flush();
    shootdown::flush(space.root(), page.address() / memory::PAGE, 1);
    // SAFETY: the entry that owned it names the copy now.
    unsafe { put(mapped.pfn) };
    true
}
