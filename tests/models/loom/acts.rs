//! What the threads of a model do.

use std::sync::Arc;

use pagepin::Access;
use pagepin::fault::FaultError;
use pagepin::frame::Dirty;
use pagepin::pin::{
    PhysRun, PinAccess, PinFlags, PinnedPages, RawPins, Read, Write, get_user_pages_fast_only, pin_user_pages,
    pin_user_pages_fast, pin_user_pages_fast_only, unpin_user_pages,
};
use pagepin::space::{SpaceOptions, UserSpace};
use pagepin::{LeafSize, MapOptions, Pfn, Rights, Unlimited, UserRange, VmaFlags};

use super::kernel::{Kernel, PAGE, Side};

pub(crate) type Space<R> = Arc<UserSpace<&'static Kernel<R>>>;
pub(crate) type Pins<A> = RawPins<A, [PhysRun; 2]>;

impl<R: Side> Kernel<R> {
    /// An address space with the pages 1 and 2, of which the first holds `value`.
    pub(crate) fn space(&'static self, value: u64) -> Space<R> {
        let space = self.empty_space();
        self.write(&space, 1, value);
        space
    }

    /// An address space in which nothing was touched yet: a root and no other table.
    pub(crate) fn empty_space(&'static self) -> Space<R> {
        self.space_with(VmaFlags::empty())
    }

    /// One whose first page may be written through its entry, and was not yet: its right to write was taken and given back.
    pub(crate) fn clean_space(&'static self) -> Space<R> {
        let space = self.empty_space();
        assert_eq!(self.read(&space, 1), 0);
        for rights in [Rights::READ, Rights::READ | Rights::WRITE] {
            space.protect(PAGE, 2 * PAGE, rights).expect("nobody refuses");
        }
        let entry = self.memory.walk(space.root(), 1).expect("a table");
        assert!(entry.is_writable() && !entry.is_dirty());
        space
    }

    /// One that refuses to take the right to write from pages that are pinned. Nothing was touched in it yet.
    pub(crate) fn strict_space(&'static self) -> Space<R> {
        self.space_with(VmaFlags::REFUSE_PROTECT_PINNED)
    }

    /// One whose VMA has flags. Nothing was touched in it yet.
    pub(crate) fn space_with(&'static self, flags: VmaFlags) -> Space<R> {
        let space =
            UserSpace::new(self, SpaceOptions::without_kernel_half(pagepin::Levels::Four)).expect("memory for a root");
        let options = MapOptions::new(Rights::READ | Rights::WRITE).flags(flags);
        space.map(PAGE, 2 * PAGE, options).expect("an empty space");
        Arc::new(space)
    }

    /// User code loads from `page`, through this CPU's TLB.
    pub(crate) fn read(&self, space: &UserSpace<&'static Self>, page: u64) -> u64 {
        let value = self.access(space, page, Access::Read, |frame| self.memory.load(frame, 0));
        value.expect("the page can be faulted in")
    }

    /// The same, where there may be no such page.
    pub(crate) fn try_read(&self, space: &UserSpace<&'static Self>, page: u64) -> Option<u64> {
        match self.access(space, page, Access::Read, |frame| self.memory.load(frame, 0)) {
            Ok(value) => Some(value),
            Err(error) => {
                assert_eq!(error, FaultError::NoVma);
                None
            }
        }
    }

    /// Whether a page that is mapped is known to have been written.
    pub(crate) fn is_noted(&self, space: &UserSpace<&'static Self>, page: u64) -> bool {
        let entry = self.memory.walk(space.root(), page).filter(|entry| entry.has_frame()).expect("a page");
        entry.is_dirty() || self.memory.snapshot(entry.leaf_frame(LeafSize::Size4KiB)).dirty
    }

    /// User code stores to `page`, through this CPU's TLB, where there may be no such page.
    pub(crate) fn try_write(&self, space: &UserSpace<&'static Self>, page: u64, value: u64) -> Option<()> {
        let done = self.access(space, page, Access::Write, |frame| self.memory.store(frame, 0, value));
        done.map_err(|error| assert_eq!(error, FaultError::NoVma)).ok()
    }

    /// User code stores to `page`, through this CPU's TLB.
    pub(crate) fn write(&self, space: &UserSpace<&'static Self>, page: u64, value: u64) {
        let done = self.access(space, page, Access::Write, |frame| self.memory.store(frame, 0, value));
        done.expect("the page can be faulted in");
    }

    /// A device writes 5 to the first of these pages.
    pub(crate) fn store_by(&self, pins: Option<Pins<Write>>) -> Option<Pins<Write>> {
        pins.inspect(|pins| self.memory.store(first_frame(pins), 0, 5))
    }

    /// Pins the first `pages` pages, or as many as there are, without locks.
    pub(crate) fn pin_fast_only<A: PinAccess>(&self, space: &UserSpace<&'static Self>, pages: u64) -> Option<Pins<A>> {
        let (range, runs) = (range(pages), [PhysRun::default(); 2]);
        pin_user_pages_fast_only(space, A::default(), range, PinFlags::empty(), runs).ok().map(PinnedPages::into_raw)
    }

    /// Pins the first `pages` pages, under the lock if need be.
    pub(crate) fn pin_fast<A: PinAccess>(&self, space: &UserSpace<&'static Self>, pages: u64) -> Option<Pins<A>> {
        let (range, runs) = (range(pages), [PhysRun::default(); 2]);
        pin_user_pages_fast(space, A::default(), range, PinFlags::empty(), runs).ok().map(PinnedPages::into_raw)
    }

    /// Pins the first `pages` pages, under the lock.
    pub(crate) fn pin_slow<A: PinAccess>(&self, space: &UserSpace<&'static Self>, pages: u64) -> Option<Pins<A>> {
        let (range, runs) = (range(pages), [PhysRun::default(); 2]);
        pin_user_pages(space, A::default(), range, PinFlags::empty(), runs).ok().map(PinnedPages::into_raw)
    }

    pub(crate) fn unpin<A: PinAccess>(&self, pins: Option<Pins<A>>) {
        if let Some(pins) = pins {
            // SAFETY: they were taken through this kernel, of which there is one.
            unsafe { unpin_user_pages(self, &Unlimited, pins, Dirty::Yes) };
        }
    }

    /// What page 1 holds, through a reference that is taken and given back without locks.
    pub(crate) fn get_fast_only_and_load(&self, space: &UserSpace<&'static Self>) -> Option<u64> {
        let runs = [PhysRun::default(); 1];
        let got = get_user_pages_fast_only(space, Read, range(1), PinFlags::empty(), runs).ok()?;
        Some(self.memory.load(got.runs()[0].first(), 0))
    }
}

pub(crate) fn range(pages: u64) -> UserRange {
    UserRange::new(pagepin::Levels::Four.user_half(), PAGE, pages * PAGE).expect("user pages")
}

/// The frames that are pinned.
pub(crate) fn frames<A: PinAccess>(pins: &Option<Pins<A>>) -> Vec<Pfn> {
    let runs = pins.iter().flat_map(RawPins::runs);
    runs.flat_map(|run| (0..run.pages()).map(|index| run.first().offset(index))).collect()
}

pub(crate) fn first_frame<A: PinAccess>(pins: &Pins<A>) -> Pfn {
    pins.runs()[0].first()
}
