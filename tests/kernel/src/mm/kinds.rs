//! Memory of other kinds than base pages that come on first use: large leaves, and the
//! memory of a device.

use pagepin::frame::{FrameKind, Ownership};
use pagepin::{
    AddressSpace as _, Entry, Env, FrameRequest, FrameSource, FrameTable, LeafSize, MemoryType, PageAddr, Pfn, PhysMap,
    Rights, paging::Tables,
};
use pagepin_abi::{DEVICE_PAGES, Error, LARGE_BYTES, USER_START};

use super::{AddressSpace, errors, kernel, platform::put, rights};
use crate::memory;

const LARGE: LeafSize = LeafSize::Size2MiB;
const _: () = assert!(LARGE.bytes() == LARGE_BYTES);

impl AddressSpace {
    /// Zero-filled memory, there at once, as one leaf. What fails leaves nothing behind.
    pub fn map_large(&self, addr: u64, prot: u64) -> Result<(), Error> {
        if addr < USER_START || !addr.is_multiple_of(LARGE_BYTES) {
            return Err(Error::Invalid);
        }
        let rights = rights(prot)?;
        // First without rights: no thread can make a base page there before the leaf is in its place.
        self.space.map(addr, LARGE_BYTES, Rights::empty()).map_err(errors::space)?;
        let placed = self
            .place_block(PageAddr::containing(addr))
            .and_then(|()| self.space.protect(addr, LARGE_BYTES, rights).map_err(errors::space));
        if placed.is_err() {
            self.space.unmap(addr, LARGE_BYTES).map_err(errors::space)?;
        }
        placed
    }

    /// Puts an exclusive block of zeroes where a VMA is and nothing is mapped.
    fn place_block(&self, page: PageAddr) -> Result<(), Error> {
        let block = zeroed_block().ok_or(Error::NoMemory)?;
        let mut result = Err(Error::NotFound);
        // Another thread may have unmapped the VMA; while this runs none can.
        let look = self.space.with_vmas(&mut |vmas| {
            if vmas.vma_at(page).is_some_and(|vma| page.pages_to(vma.end()) >= LARGE.pages()) {
                result = self.fill(page, block);
            }
        });
        result = result.and(look.map_err(|_| Error::Fault));
        if result.is_err() {
            // SAFETY: it has the one reference, which no entry took over.
            unsafe { put(block) };
        }
        result
    }

    fn fill(&self, page: PageAddr, block: Pfn) -> Result<(), Error> {
        // SAFETY: inside the section of the mm lock that the caller is in.
        let mut tables = unsafe { Tables::under_mm_lock(self.space.mm()) };
        // SAFETY: a VMA contains the page, so it lies in the user half.
        let at = unsafe { tables.place(page, LARGE) }.map_err(|error| errors::space(error.into()))?;
        // SAFETY: found under this lock, in a VMA; the block is exclusive, and the entry owns its one reference from
        // here on, or the caller keeps it.
        unsafe { tables.fill(at, LARGE, Entry::leaf(block, LARGE, Rights::READ, 0)) }.map_err(|_| Error::Busy)
    }

    /// Device memory from its page `first` on.
    pub fn map_device(&self, addr: u64, len: u64, prot: u64, first: u64) -> Result<(), Error> {
        let end = first.checked_add(len.div_ceil(memory::PAGE));
        if addr < USER_START || end.is_none_or(|end| end > DEVICE_PAGES) {
            return Err(Error::Invalid);
        }
        let frame = Pfn::new(memory::device_frames().start + first);
        // It is RAM, and in the direct map as such.
        // SAFETY: the memory of the device is the programs' to use and nobody else's.
        unsafe { self.space.map_foreign(addr, len, frame, MemoryType::WRITE_BACK, rights(prot)?) }
            .map_err(errors::space)
    }
}

fn zeroed_block() -> Option<Pfn> {
    let kernel = kernel();
    let block = kernel.source().allocate(FrameRequest::movable(LARGE.order()))?;
    let head = kernel.frames().frame(block)?;
    // SAFETY: the source has just given it to us.
    unsafe { head.word() }.hand_out(FrameKind::Anonymous, LARGE.order(), Ownership::Exclusive).ok()?;
    // SAFETY: the block was just allocated.
    unsafe { kernel.phys_map().clear_frames(block, LARGE.order()) };
    Some(block)
}

/// Clears what programs see before they have stored anything.
pub fn init() {
    let frames = memory::device_frames();
    let bytes = (frames.end - frames.start) * memory::PAGE;
    // SAFETY: RAM in the direct map that was set aside for this; no program runs yet.
    unsafe { memory::direct(frames.start * memory::PAGE).write_bytes(0, bytes as usize) };
}
