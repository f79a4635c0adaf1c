//! Access to page-table entries, with a watch on the order of things: break, flush, publish, free.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use pagepin::frame::{FrameKind, Layout};
use pagepin::{
    CurrentCpu, Entry, EntryAddr, EntryCell, EntryChange, FlushRange, LeafSize, PageAddr, Pfn, PhysMap, ReadSide,
    Shootdown,
};

use super::Machine;
use super::hooks::Playing;
use super::memory::Use;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// What an entry is while a CPU owns it.
const OWNED: u64 = ADDRESS;

/// What happened to entries and frames, in flushes and grace periods since then.
#[derive(Default)]
pub(crate) struct Protocol {
    flushes: Cell<u64>,
    additions: Cell<u64>,
    executables: Cell<u64>,
    grace_periods: Cell<u64>,
    /// Places whose present entry was taken away, and when, and what it was.
    broken_places: RefCell<HashMap<u64, (u64, u64)>>,
    /// Entries that are owned, by the CPU that plays.
    owned: RefCell<HashMap<usize, u64>>,
    /// Frames and tables whose present entry was taken away, and when.
    broken_frames: RefCell<HashMap<Pfn, Unlinked>>,
    /// The table above each table.
    above: RefCell<HashMap<Pfn, Pfn>>,
    /// What leaves name in tables that have left the tree, and where: a walker may still read them.
    detached: RefCell<HashMap<Pfn, u64>>,
    /// Roots that some CPU has run on: before that nothing of them can be cached.
    ran: RefCell<HashSet<Pfn>>,
}

#[derive(Clone, Copy)]
struct Unlinked {
    flushes: u64,
    grace_periods: u64,
    table: bool,
    ran: bool,
}

impl Protocol {
    pub(super) fn forget(&self, frame: Pfn) {
        self.broken_frames.borrow_mut().remove(&frame);
        self.broken_places.borrow_mut().retain(|place, _| Pfn::containing(*place) != frame);
        self.above.borrow_mut().remove(&frame);
        self.detached.borrow_mut().remove(&frame);
        self.ran.borrow_mut().remove(&frame);
    }

    /// A CPU uses the tables under `root`.
    pub(super) fn runs_on(&self, root: Pfn) {
        self.ran.borrow_mut().insert(root);
    }

    fn root_of(&self, table: Pfn) -> Pfn {
        // A table may be linked below another before that one is in a tree.
        let above = self.above.borrow();
        std::iter::successors(Some(table), |table| above.get(table).copied()).last().unwrap_or(table)
    }

    fn linked(&self, at: EntryAddr, table: Pfn) {
        self.above.borrow_mut().insert(table, at.table());
    }

    /// When the table, or one above it, left the tree: from then on nobody finds what is in it any more.
    fn left(&self, table: Pfn) -> Option<Unlinked> {
        let (above, broken) = (self.above.borrow(), self.broken_frames.borrow());
        let tables = std::iter::successors(Some(table), |table| above.get(table).copied());
        tables.filter_map(|table| broken.get(&table)).filter(|unlinked| unlinked.table).last().copied()
    }

    /// INV-12 and INV-13 in their strict form: not only is no stale translation there, the flush (and the wait for
    /// walkers) did happen between the break and the free. Whether the frame was a table.
    pub(super) fn check_free(&self, frame: Pfn) -> bool {
        let place = self.detached.borrow_mut().remove(&frame);
        assert_eq!(place, None, "INV-13: {frame:?} freed, and a walker may find it in a table that left the tree");
        let left = self.left(frame);
        let Some(unlinked) = self.broken_frames.borrow_mut().remove(&frame).or(left) else { return false };
        let flushed = self.flushes.get() > unlinked.flushes;
        assert!(flushed || !unlinked.ran, "INV-12: {frame:?} freed before the flush");
        let waited = self.grace_periods.get() > unlinked.grace_periods;
        assert!(
            waited || !unlinked.table || !unlinked.ran,
            "INV-13: table {frame:?} freed without waiting for walkers"
        );
        unlinked.table
    }

    fn broken(&self, at: EntryAddr, old: u64, table: bool) {
        let (flushes, grace_periods) = (self.flushes.get(), self.grace_periods.get());
        let ran = self.ran.borrow().contains(&self.root_of(at.table()));
        if let Some(left) = self.left(at.table()) {
            // Nobody could come to it since its table left.
            let frame = Pfn::containing(old & ADDRESS);
            self.detached.borrow_mut().remove(&frame);
            self.broken_frames.borrow_mut().insert(frame, Unlinked { table, ..left });
            return;
        }
        if ran {
            self.broken_places.borrow_mut().insert(at.address(), (flushes, old));
        }
        if ran || table {
            let frame = Pfn::containing(old & ADDRESS);
            self.broken_frames.borrow_mut().insert(frame, Unlinked { flushes, grace_periods, table, ran });
        }
    }

    fn published(&self, at: EntryAddr, new: u64) {
        let Some((since, old)) = self.broken_places.borrow_mut().remove(&at.address()) else { return };
        // What a stale translation permits, the same frame with as many rights permits.
        let weaker = (old & WRITABLE) > (new & WRITABLE) || (old & NO_EXECUTE) < (new & NO_EXECUTE);
        if (old ^ new) & ADDRESS == 0 && !weaker {
            self.broken_frames.borrow_mut().remove(&Pfn::containing(old & ADDRESS));
            return;
        }
        assert!(self.flushes.get() > since, "INV-8: a new entry was published before the old one was flushed");
    }

    /// Whoever owns an entry waits for nothing but a flush: others wait for it. (A CPU that waits for another's entry is stopped
    /// by the machine whether it owns some or not.)
    pub(super) fn may_wait(&self) {
        assert!(
            self.owned.borrow().get(&Playing.current_cpu()).is_none_or(|owned| *owned == 0) || std::thread::panicking(),
            "an owner of an entry asks for something that may wait"
        );
    }
}

impl<L: Layout> Machine<L> {
    /// The entry in memory.
    pub(crate) fn slot(&self, at: EntryAddr) -> &AtomicU64 {
        let (table, memory) = (at.table(), self.memory());
        match memory.use_of(table) {
            Some(Use::Allocated { .. }) => {}
            Some(Use::Limbo) if self.read_guards() > 0 => {}
            Some(_) if std::thread::panicking() => {}
            other => panic!("INV-13: an entry of {table:?} was accessed, which is {other:?}"),
        }
        // SAFETY: the table page lies within the arena and the offset within the page; entries are always accessed as
        // atomics.
        unsafe { AtomicU64::from_ptr(memory.pointer(table).add((at.address() & 0xff8) as usize).cast().as_ptr()) }
    }

    /// Notes what is found from `table` on, which has left the tree.
    fn note_detached(&self, table: Pfn) {
        let words = self.memory().frame_words(table).into_iter();
        for (bits, index) in words.zip(0..).filter(|(bits, _)| *bits != 0) {
            let at = EntryAddr::new(table, index);
            let frame = Pfn::containing(bits & ADDRESS);
            match self.table().frame(frame).filter(|_| bits & PRESENT != 0) {
                Some(word) if word.kind() == FrameKind::Table => self.note_detached(frame),
                Some(_) => _ = self.protocol().detached.borrow_mut().insert(frame, at.address()),
                None => {}
            }
        }
    }

    /// What becomes of the order of things when an entry changes from `old` to `new`.
    fn watch(&self, at: EntryAddr, old: u64, new: u64) {
        let target = |bits: u64| Pfn::containing(bits & ADDRESS);
        let moved = target(old) != target(new);
        let (was, is) = (old & PRESENT != 0, new & PRESENT != 0);
        if std::thread::panicking() {
            return;
        }
        assert!(!(was && is && moved), "INV-8: the present entry {old:#x} became {new:#x} in one step");
        let is_table = |bits| self.table().frame(target(bits)).is_some_and(|word| word.kind() == FrameKind::Table);
        let protocol = self.protocol();
        if is && is_table(new) {
            protocol.linked(at, target(new));
        }
        if was && !is {
            protocol.broken(at, old, is_table(old));
            if is_table(old) {
                self.note_detached(target(old));
            }
        }
        if !was && is {
            protocol.published(at, new);
        }
        if (new == OWNED) != (old == OWNED) {
            let mut owned = protocol.owned.borrow_mut();
            let owned = owned.entry(Playing.current_cpu()).or_default();
            *owned = if new == OWNED { *owned + 1 } else { *owned - 1 };
        }
    }
}

use pagepin::FrameTable as _;

// SAFETY: the arena lives as long as the machine and is contiguous.
unsafe impl<L: Layout> PhysMap for Machine<L> {
    fn frame_ptr(&self, frame: Pfn) -> *mut u8 {
        self.memory().pointer(frame).as_ptr()
    }

    unsafe fn load_entry(&self, at: EntryAddr) -> Entry {
        self.walk_step();
        let loads = &self.inner().loads;
        loads.set(loads.get() + 1);
        self.note(|work| work.loads += 1);
        EntryCell::new(self.slot(at)).load()
    }

    unsafe fn store_entry(&self, at: EntryAddr, entry: Entry) {
        let old = self.slot(at).swap(entry.bits(), Ordering::AcqRel);
        self.watch(at, old, entry.bits());
    }

    unsafe fn change_entry(&self, at: EntryAddr, change: EntryChange) -> Entry {
        let old = EntryCell::new(self.slot(at)).change(change);
        self.watch(at, old.bits(), change.of(old).bits());
        old
    }

    unsafe fn exchange_entry(&self, at: EntryAddr, old: Entry, new: Entry) -> Result<(), Entry> {
        self.inner().exchange_hook.reach();
        EntryCell::new(self.slot(at)).exchange(old, new)?;
        self.watch(at, old.bits(), new.bits());
        Ok(())
    }
}

/// A lockless walk in progress.
pub(crate) struct Walking<'m> {
    guards: &'m Cell<u64>,
    walks: Option<&'m Cell<u64>>,
    over: &'m dyn GracePeriod,
}

pub(crate) trait GracePeriod {
    fn over(&self);
}

impl<L: Layout> GracePeriod for Machine<L> {
    fn over(&self) {
        self.memory().grace_period_over();
    }
}

impl Drop for Walking<'_> {
    fn drop(&mut self) {
        if let Some(walks) = self.walks {
            walks.set(walks.get() - 1);
        }
        self.guards.set(self.guards.get() - 1);
        if self.guards.get() == 0 {
            self.over.over();
        }
    }
}

// SAFETY: tables that are freed during a walk keep their bytes until it has ended, which is what a walker sees of a
// `synchronize` that waits for it.
unsafe impl<L: Layout> ReadSide for Machine<L> {
    type Guard<'a> = Walking<'a>;

    fn enter(&self) -> Walking<'_> {
        let guards = &self.inner().guards;
        if guards.get() == 0 {
            self.inner().guarded_steps.set(0);
        }
        guards.set(guards.get() + 1);
        // What may come between the steps of a walk takes the mm lock, so there is no such step where that is held.
        let walks = (self.sections() == 0).then_some(&self.inner().walks);
        if let Some(walks) = walks {
            walks.set(walks.get() + 1);
        }
        Walking { guards, walks, over: self }
    }

    fn synchronize(&self) {
        self.inner().grace_hook.reach();
        let count = &self.protocol().grace_periods;
        count.set(count.get() + 1);
    }
}

// SAFETY: the translations are dropped on every CPU before the call returns.
unsafe impl<L: Layout> Shootdown for Machine<L> {
    fn entries_added(&self, _: Pfn) {
        let count = &self.protocol().additions;
        count.set(count.get() + 1);
    }

    fn before_execute(&self, _: Pfn, frame: Pfn, size: LeafSize) {
        let count = &self.protocol().executables;
        count.set(count.get() + 1);
        self.memory().sync_instructions(frame, size.pages());
    }

    fn flush(&self, root: Pfn, range: FlushRange) {
        // The request is out, no CPU has answered yet: the worst moment for the others to access memory.
        self.inner().flush_hook.reach();
        self.note(|work| work.flushes += 1);
        let (first, end) = match range.pages() {
            Some((first, pages)) => (first, first.offset(pages)),
            None => (PageAddr::containing(0), PageAddr::containing(1 << 63)),
        };
        self.cpus().forget(root, first.address(), end.address());
        // x86 would forget these in any case; a processor that need not is worse.
        if !matches!(range, FlushRange::Leaves { .. }) {
            self.cpus().forget_uppers(root, first.address(), end.address());
        }
        let count = &self.protocol().flushes;
        count.set(count.get() + 1);
    }
}

impl<L: Layout> Machine<L> {
    /// How often the library said that entries were added.
    pub(crate) fn entries_added(&self) -> u64 {
        self.protocol().additions.get()
    }

    /// How often the library said that a leaf is to be executable.
    pub(crate) fn executables(&self) -> u64 {
        self.protocol().executables.get()
    }

    /// Flushes so far.
    pub(crate) fn flushes(&self) -> u64 {
        self.protocol().flushes.get()
    }

    /// Takes the right to write out of the entry at `at`, as hardware never does: for wrong sequences.
    pub(crate) fn poke(&self, at: EntryAddr, bits: u64) {
        self.slot(at).store(bits, Ordering::Release);
    }

    /// Whether the entry permits writes.
    pub(crate) fn is_writable(bits: u64) -> bool {
        bits & WRITABLE != 0
    }
}
