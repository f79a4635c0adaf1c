//! A place of a [`LedgerTable`](crate::LedgerTable) for one run, which is read while it may change.

#![forbid(unsafe_code)]

use super::{LedgerEntry, PinRecord, PinTerm, Through};
use crate::addr::{Pfn, PhysRun};
use crate::primitive::{AtomicU64, Ordering, const_fn, fence, safeguard};
use crate::rights::Access;

/// What of a slot's state says whether it holds a run. The high half is its generation, which changes when it is given back.
const PHASE: u64 = 0b1;
const FREE: u64 = 0;
const LIVE: u64 = 1;
pub(super) const ORPHANED: u64 = 1 << 2;
pub(super) const LEFT_BEHIND: u64 = 1 << 3;
pub(super) const QUARANTINED: u64 = 1 << 4;
const MARKS: u64 = ORPHANED | LEFT_BEHIND | QUARANTINED;
pub(super) const GENERATION: u64 = 1 << 32;
/// The half of a link, ticket or head that is a slot's number and 1; 0 is none.
pub(super) const NUMBER: u64 = GENERATION - 1;

/// Positions of bits of [`Slot::shape`] above what is a run's.
const WRITES: u32 = 40;
const LONG: u32 = 41;

#[derive(Debug)]
pub(super) struct Slot {
    state: AtomicU64,
    /// While it is free: the next free one. Its number and 1.
    pub(super) next: AtomicU64,
    /// The ticket of the acquisition's next run.
    pub(super) link: AtomicU64,
    through: AtomicU64,
    start: AtomicU64,
    length: AtomicU64,
    first: AtomicU64,
    shape: AtomicU64,
    time: AtomicU64,
    pub(super) tag: AtomicU64,
}

impl Slot {
    const_fn! {
        pub(super) const fn new() -> Self {
            Self {
                state: AtomicU64::new(FREE),
                next: AtomicU64::new(0),
                link: AtomicU64::new(0),
                through: AtomicU64::new(0),
                start: AtomicU64::new(0),
                length: AtomicU64::new(0),
                first: AtomicU64::new(0),
                shape: AtomicU64::new(0),
                time: AtomicU64::new(0),
                tag: AtomicU64::new(0),
            }
        }
    }

    /// Fills a slot that this CPU took; what it is known by from now on.
    #[inline]
    pub(super) fn fill(&self, index: usize, record: &PinRecord<'_>, run: &PhysRun, link: u64, time: u64) -> u64 {
        let generation = self.state.load(Ordering::Relaxed);
        // With the reader's acquiring fence: whoever reads a field stored below finds that the slot was given back before.
        safeguard!(LedgerFence; fence(Ordering::Release));
        let shape = run.shape()
            | u64::from(record.access == Access::Write) << WRITES
            | u64::from(record.term == PinTerm::Long) << LONG;
        self.link.store(link, Ordering::Relaxed);
        self.through.store(record.through.bits(), Ordering::Relaxed);
        self.start.store(record.range.start(), Ordering::Relaxed);
        self.length.store(record.range.length(), Ordering::Relaxed);
        self.first.store(run.first().number(), Ordering::Relaxed);
        self.shape.store(shape, Ordering::Relaxed);
        self.time.store(time, Ordering::Relaxed);
        self.tag.store(record.tag, Ordering::Relaxed);
        // With the acquiring first look of a reader: who finds it live finds the fields.
        self.state.store(generation | LIVE, safeguard!(LedgerPublish: Ordering::Release));
        generation | (index as u64 + 1)
    }

    /// What it holds, if that does not change meanwhile.
    pub(super) fn read(&self) -> Option<(u64, LedgerEntry)> {
        let state = self.state.load(Ordering::Acquire);
        if state & PHASE != LIVE {
            return None;
        }
        let shape = self.shape.load(Ordering::Relaxed);
        let run = PhysRun::of_shape(Pfn::new(self.first.load(Ordering::Relaxed)), shape);
        let entry = LedgerEntry {
            through: Through::from_bits(self.through.load(Ordering::Relaxed)),
            tag: self.tag.load(Ordering::Relaxed),
            start: self.start.load(Ordering::Relaxed),
            length: self.length.load(Ordering::Relaxed),
            run,
            access: if shape >> WRITES & 1 != 0 { Access::Write } else { Access::Read },
            term: if shape >> LONG & 1 != 0 { PinTerm::Long } else { PinTerm::Short },
            time: self.time.load(Ordering::Relaxed),
            orphaned: state & ORPHANED != 0,
            left_behind: state & LEFT_BEHIND != 0,
            quarantined: state & QUARANTINED != 0,
        };
        // See `fill`.
        fence(Ordering::Acquire);
        let now = self.state.load(Ordering::Relaxed);
        let changed = safeguard!(LedgerReread => (now ^ state) & !MARKS != 0);
        if changed { None } else { Some((state, entry)) }
    }

    /// From live, in this generation, to free in the next. False: it is not live.
    #[inline]
    pub(super) fn end(&self, generation: u64) -> bool {
        let next = generation.wrapping_add(GENERATION) | FREE;
        // Releases what was read of the slot before it is given up, to whoever fills it next.
        let usual = self.state.compare_exchange(generation | LIVE, next, Ordering::AcqRel, Ordering::Relaxed);
        // It may have marks.
        usual.is_ok() || self.change(generation, |_| Some(next))
    }

    /// From live, in this generation, to what `next` makes of it. False: it is not, or `next` makes nothing of it.
    #[cold]
    #[inline(never)]
    pub(super) fn change(&self, generation: u64, next: impl Fn(u64) -> Option<u64>) -> bool {
        let is_live = |state: u64| state & !NUMBER == generation && state & PHASE == LIVE;
        let change = |state: u64| if is_live(state) { next(state) } else { None };
        // As `end`.
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).is_ok()
    }
}
