//! Entries put in by hand: large leaves, and paths that are damaged on purpose.

use pagepin::frame::{FrameKind, Layout, Ownership};
use pagepin::paging::Tables;
use pagepin::{AddressSpace, Entry, EntryAddr, Env, FrameRequest, FrameSource, LeafSize, Mm, Pfn};

use super::{Machine, Process};

impl<L: Layout> Machine<L> {
    /// A block of anonymous memory, exclusive, with one reference for an entry to come. Its bytes are what they are.
    pub(crate) fn block(&self, size: LeafSize) -> Pfn {
        self.try_block(size).expect("no block of this size")
    }

    /// The same, if there is one.
    pub(crate) fn try_block(&self, size: LeafSize) -> Option<Pfn> {
        let frame = self.allocate(FrameRequest::movable(size.order()))?;
        self.word(frame).hand_out(FrameKind::Anonymous, size.order(), Ownership::Exclusive).unwrap();
        Some(frame)
    }

    /// Maps `frame`, whose reference the entry takes over, with the low bits `bits` (rights and software bits).
    pub(crate) fn install(&self, process: &Process<'_, L>, address: u64, size: LeafSize, frame: Pfn, bits: u64) {
        self.install_in(process.mm(), address, size, frame, bits);
    }

    /// The same, in an mm of whichever kernel over this machine.
    pub(crate) fn install_in<K: Env>(&self, mm: &Mm<K>, address: u64, size: LeafSize, frame: Pfn, bits: u64) {
        // SAFETY: there is one thread, and it is in no operation.
        let mut tables = unsafe { Tables::under_mm_lock(mm) };
        let page = pagepin::PageAddr::containing(address);
        // SAFETY: the tests' addresses lie in the user half.
        let at = unsafe { tables.place(page, size) }.unwrap();
        let large = if size == LeafSize::Size4KiB { 0 } else { 0x80 };
        let entry = Entry::from_bits(frame.address() | bits | large);
        // SAFETY: `at` was found just now; the caller gives a reference away.
        unsafe { tables.fill(at, size, entry) }.expect("nothing is mapped there");
    }

    /// The places of the entries on the way to `address`, from the root down, as far as they are present.
    pub(crate) fn path(&self, process: &Process<'_, L>, address: u64) -> Vec<(u32, EntryAddr, u64)> {
        let (mut table, mut path) = (process.root(), Vec::new());
        for level in (1..=super::depth(process.mm().levels())).rev() {
            let at = EntryAddr::new(table, (address >> (12 + 9 * (level - 1))) & 511);
            let bits = self.slot(at).load(std::sync::atomic::Ordering::Acquire);
            path.push((level, at, bits));
            if bits & 1 == 0 || bits & 0x80 != 0 {
                break;
            }
            table = Pfn::containing(bits & 0x000f_ffff_ffff_f000);
        }
        path
    }

    /// The place and the bits of the entry of `level` on the way to `address`. Followed whatever the entries above say.
    pub(crate) fn entry(&self, process: &Process<'_, L>, address: u64, level: u32) -> (EntryAddr, u64) {
        let mut table = process.root();
        for here in (level..=super::depth(process.mm().levels())).rev() {
            let at = EntryAddr::new(table, (address >> (12 + 9 * (here - 1))) & 511);
            let bits = self.slot(at).load(std::sync::atomic::Ordering::Acquire);
            if here == level {
                return (at, bits);
            }
            table = Pfn::containing(bits & 0x000f_ffff_ffff_f000);
        }
        panic!("there is no level {level}");
    }
}
