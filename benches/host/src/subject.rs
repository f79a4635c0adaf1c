//! The library at work: what one turn of it takes.

use std::mem::forget;
use std::ops::Range;
use std::sync::Arc;

use pagepin::fault::Fault;
use pagepin::frame::{Dirty, FrameKind, Ownership};
use pagepin::paging::Tables;
use pagepin::pin::{PhysRun, PinFlags, Read, Write, pin_user_pages, pin_user_pages_fast, unpin_user_runs};
use pagepin::space::{KernelHalf, SpaceOptions, UserSpace};
use pagepin::{
    Access, AddressSpace as _, Entry, Env, FrameRequest, FrameSource, FrameTable, LeafSize, Levels, PAGE_SIZE,
    PageAddr, PhysMap, Rights, UserRange,
};

use crate::compare::nanoseconds;
use crate::machine::Kernel;
use crate::rows::{CALL, LEAVES, PAGES};

pub(crate) type Space<M> = UserSpace<&'static Kernel<M>>;

pub(crate) const VMA: u64 = 0x1_0000_0000;
const READ_WRITE: Rights = Rights::READ.union(Rights::WRITE);
/// Pages of a large leaf.
const LEAF: u64 = 512;

pub(crate) trait Map: PhysMap + Sync + 'static {}
impl<M: PhysMap + Sync + 'static> Map for M {}

/// With `pages` pages of private memory that nobody has touched.
pub(crate) fn mapped<M: Map>(kernel: &'static Kernel<M>, pages: u64) -> Space<M> {
    let space = Space::new(kernel, SpaceOptions::new(KernelHalf::none(Levels::Four))).expect("memory for a table");
    space.map(VMA, pages * PAGE_SIZE, READ_WRITE).expect("room for a VMA");
    space
}

#[inline(always)]
pub(crate) fn write<M: Map>(space: &Space<M>, page: u64) {
    let address = VMA + page * PAGE_SIZE;
    let fault = Fault { address, access: Access::Write, key_denied: false, malformed_table: false };
    space.fault(fault).expect("memory for a page");
}

pub(crate) fn write_all<M: Map>(space: &Space<M>, pages: Range<u64>) {
    pages.for_each(|page| write(space, page));
}

/// All of it written, in this order.
pub(crate) fn touched<M: Map>(kernel: &'static Kernel<M>, pages: u64, order: fn(u64) -> u64) -> Space<M> {
    let space = mapped(kernel, pages);
    (0..pages).for_each(|page| write(&space, order(page)));
    space
}

pub(crate) fn in_order(page: u64) -> u64 {
    page
}

/// Neighbours in memory are far apart in the address space.
pub(crate) fn scattered(page: u64) -> u64 {
    page / 512 * 512 + page * 205 % 512
}

/// The ranges that are pinned by a call each, and what the calls find.
pub(crate) struct Pins<M: Map> {
    space: Arc<Space<M>>,
    ranges: Vec<UserRange>,
    runs: Vec<PhysRun>,
    slow: bool,
}

impl<M: Map> Pins<M> {
    /// In calls of `call` pages.
    pub(crate) fn new(space: Arc<Space<M>>, pages: Range<u64>, call: u64) -> Self {
        let range = |first: u64| space.range(VMA + first * PAGE_SIZE, call * PAGE_SIZE).expect("a user range");
        let ranges: Vec<_> = pages.clone().step_by(call as usize).map(range).collect();
        Self { space, ranges, runs: vec![PhysRun::default(); (pages.end - pages.start) as usize], slow: false }
    }

    /// By the path with the lock.
    pub(crate) fn slow(self) -> Self {
        Self { slow: true, ..self }
    }

    fn per_call(&self) -> usize {
        self.runs.len() / self.ranges.len()
    }

    #[inline(never)]
    pub(crate) fn pin(&mut self) {
        let (per_call, flags) = (self.per_call(), PinFlags::empty());
        for (range, runs) in self.ranges.iter().zip(self.runs.chunks_exact_mut(per_call)) {
            let pinned = match self.slow {
                false => pin_user_pages_fast(&*self.space, Write, *range, flags, runs),
                true => pin_user_pages(&*self.space, Write, *range, flags, runs),
            };
            // As a driver that keeps the runs and looks at nothing else.
            forget(pinned.expect("pages that are there"));
        }
    }

    #[inline(never)]
    pub(crate) fn unpin(&mut self) {
        for runs in self.runs.chunks_exact(self.per_call()) {
            let used = runs.iter().take_while(|run| run.pages() != 0).count();
            // SAFETY: `pin` took these pins through this kernel; nobody else gives them back.
            unsafe { unpin_user_runs(self.space.env(), &runs[..used], Dirty::Yes) };
        }
    }

    /// A page's pin and unpin; or a leaf's, if the ranges are leaves.
    pub(crate) fn turn(&mut self, units: u64) -> [f64; 2] {
        let figures = [nanoseconds(|| self.pin()), nanoseconds(|| self.unpin())];
        figures.map(|figure| figure / units as f64)
    }
}

/// Leaves of 2 MiB, mapped by hand, pinned by a call each.
pub(crate) fn large_leaves<M: Map>(kernel: &'static Kernel<M>) -> Pins<M> {
    let space = mapped(kernel, LEAVES * LEAF);
    for leaf in 0..LEAVES {
        let size = LeafSize::Size2MiB;
        let block = kernel.source().allocate(FrameRequest::movable(size.order())).expect("a block");
        let head = kernel.frames().frame(block).expect("a frame of this memory");
        // SAFETY: the source has just given it to us.
        let word = unsafe { head.word() };
        word.hand_out(FrameKind::Anonymous, size.order(), Ownership::Exclusive).expect("a free frame");
        // SAFETY: there is one thread, and it is in no operation.
        let mut tables = unsafe { Tables::under_mm_lock(space.mm()) };
        let page = PageAddr::containing(VMA + leaf * LEAF * PAGE_SIZE);
        // SAFETY: the VMA lies in the user half.
        let at = unsafe { tables.place(page, size) }.expect("memory for a table");
        // SAFETY: the VMA is new; the block is ours and exclusive, and the entry owns it now.
        unsafe { tables.fill(at, size, Entry::leaf(block, size, READ_WRITE, 0)) }.expect("nothing there");
    }
    Pins::new(Arc::new(space), 0..LEAVES * LEAF, LEAF)
}

/// Fault zero, fork, fault copy, exit, fault reuse, unshare, protect, unmap: of one page each.
pub(crate) fn operations<M: Map>(kernel: &'static Kernel<M>) -> [f64; 8] {
    let length = PAGES * PAGE_SIZE;
    let parent = mapped(kernel, PAGES);
    let zero = nanoseconds(|| write_all(&parent, 0..PAGES));
    let mut child = None;
    let fork = nanoseconds(|| child = parent.fork().ok());
    let child = child.expect("memory for a child");
    let copy = nanoseconds(|| write_all(&child, 0..PAGES));
    // All that it has is its own by now.
    let exit = nanoseconds(|| drop(child));
    let reuse = nanoseconds(|| write_all(&parent, 0..PAGES));
    let unshare = unshare(&parent);
    write_all(&parent, 0..PAGES);
    let protect = nanoseconds(|| parent.protect(VMA, length, Rights::READ).expect("a VMA"));
    let unmap = nanoseconds(|| assert!(parent.unmap(VMA, length).is_ok_and(|unmapped| unmapped.pages == PAGES)));
    drop(parent);
    kernel.source().tidy();
    [zero, fork, copy, exit, reuse, unshare, protect, unmap].map(|figure| figure / PAGES as f64)
}

/// A child pins what it shares, for reading.
fn unshare<M: Map>(parent: &Space<M>) -> f64 {
    let child = parent.fork().expect("memory for a child");
    let mut runs = vec![PhysRun::default(); CALL as usize];
    let mut taken = 0.0;
    for first in (0..PAGES).step_by(CALL as usize) {
        let range = child.range(VMA + first * PAGE_SIZE, CALL * PAGE_SIZE).expect("a user range");
        let mut pinned = None;
        taken += nanoseconds(|| {
            pinned = pin_user_pages_fast(&child, Read, range, PinFlags::empty(), &mut runs[..]).ok();
        });
        assert!(pinned.is_some_and(|pinned| pinned.pages() == CALL));
    }
    taken
}
