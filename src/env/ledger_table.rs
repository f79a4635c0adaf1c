//! [`LedgerTable`]: a ledger of fixed size, without a lock.
//!
//! A slot holds one run. Slots that are free form a stack (its head counts, so that a slot that comes back meanwhile is not taken for
//! the one that was there); the runs of one acquisition are linked, each by the ticket of the next. Readers take no part in this: they
//! look at the slot's state, read, and look again. A record that changed meanwhile is passed by.

#![forbid(unsafe_code)]

use super::ledger_slot::{GENERATION, LEFT_BEHIND, NUMBER, ORPHANED, QUARANTINED, Slot};
use super::{PinLedger, PinRecord, PinTerm, SpaceEnd, Through};
use crate::addr::{Pfn, PhysRun};
use crate::primitive::{AtomicU64, Ordering, const_fn, safeguard};
use crate::rights::Access;

/// A run of pinned frames, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The address space, or the object.
    pub through: Through,
    /// Who it is for.
    pub tag: u64,
    /// Where the range that was asked for begins.
    pub start: u64,
    /// Its bytes.
    pub length: u64,
    /// The frames: all or a part of the range.
    pub run: PhysRun,
    /// What the holder may do with them.
    pub access: Access,
    /// For how long.
    pub term: PinTerm,
    /// When it was pinned, by the ledger's clock.
    pub time: u64,
    /// Frames of it were released by number. It is not known whether this is the record that they were of.
    pub orphaned: bool,
    /// Its address space has ended, or whom it was for.
    pub left_behind: bool,
    /// Its device did not say that it has stopped.
    pub quarantined: bool,
}

/// Finds a record of a [`LedgerTable`] again. Of a pin that was not recorded: none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerTicket(u64);

/// A [`PinLedger`] with room for `N` runs: no lock, no allocation, usable in interrupts. When it is full, pins are not recorded but
/// counted as [`missed`](Self::missed).
///
/// ```
/// # use pagepin::{Extras, LedgerTable, Pfn};
/// # fn ticks() -> u64 { 0 }
/// static LEDGER: LedgerTable<1024> = LedgerTable::new(ticks);
/// let extras = Extras::new().ledger(&LEDGER);
/// for entry in LEDGER.who_pins(Pfn::new(0x1234)) {
///     println!("{} since {}", entry.tag, entry.time);
/// }
/// ```
#[derive(Debug)]
pub struct LedgerTable<const N: usize> {
    slots: [Slot; N],
    /// The first free slot that was used before; above, how often the stack changed.
    free: AtomicU64,
    /// Slots that were ever used.
    used: AtomicU64,
    missed: AtomicU64,
    misused: AtomicU64,
    clock: fn() -> u64,
}

#[cfg(not(pagepin_checker))]
const fn slots<const N: usize>() -> [Slot; N] {
    [const { Slot::new() }; N]
}

#[cfg(pagepin_checker)]
fn slots<const N: usize>() -> [Slot; N] {
    core::array::from_fn(|_| Slot::new())
}

impl<const N: usize> LedgerTable<N> {
    const_fn! {
        /// An empty one, which dates its records by `clock`: in whatever unit, and from interrupt context, too.
        #[must_use]
        pub const fn new(clock: fn() -> u64) -> Self {
            Self {
                slots: slots(),
                free: AtomicU64::new(0),
                used: AtomicU64::new(0),
                missed: AtomicU64::new(0),
                misused: AtomicU64::new(0),
                clock,
            }
        }
    }

    /// Every record.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # fn ticks() -> u64 { 5 }
    /// static LEDGER: LedgerTable<64> = LedgerTable::new(ticks);
    /// let kernel = kernel.with_extras(Extras::new().ledger(&LEDGER));
    /// let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
    /// space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
    /// let pinned = space.pin(Write, space.range(0x10000, 1)?, [PhysRun::default(); 1])?.tagged(7).into_owned();
    /// assert_eq!((LEDGER.records().count(), LEDGER.pins_of(7).count(), LEDGER.older_than(5).count()), (1, 1, 0));
    /// drop(space);
    /// assert_eq!(LEDGER.left_behind().count(), 1);
    /// drop(pinned);
    /// assert_eq!((LEDGER.records().count(), LEDGER.missed(), LEDGER.misused(), LEDGER.strike_orphans()), (0, 0, 0, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn records(&self) -> impl Iterator<Item = LedgerEntry> + '_ {
        self.slots().filter_map(|slot| slot.read().map(|(_, entry)| entry))
    }

    /// Who pins `frame`, or a large leaf that it is a part of.
    pub fn who_pins(&self, frame: Pfn) -> impl Iterator<Item = LedgerEntry> + '_ {
        self.records().filter(move |entry| entry.run.keeps(frame))
    }

    /// What is pinned for `tag`.
    ///
    /// ```
    /// use pagepin::LedgerTable;
    /// static LEDGER: LedgerTable<8> = LedgerTable::new(|| 0);
    /// assert_eq!(LEDGER.pins_of(7).count(), 0);
    /// ```
    pub fn pins_of(&self, tag: u64) -> impl Iterator<Item = LedgerEntry> + '_ {
        self.records().filter(move |entry| entry.tag == tag)
    }

    /// What was pinned before `time`, and still is.
    ///
    /// ```
    /// use pagepin::LedgerTable;
    /// static LEDGER: LedgerTable<8> = LedgerTable::new(|| 0);
    /// assert_eq!(LEDGER.older_than(1).count(), 0);
    /// ```
    pub fn older_than(&self, time: u64) -> impl Iterator<Item = LedgerEntry> + '_ {
        self.records().filter(move |entry| entry.time < time)
    }

    /// Whoever `tag` stands for has ended: a process, a driver that is unloaded, a guest. What it has pinned still is
    /// [left behind](Self::left_behind). How many records there are of it. Address spaces need no such word: the end of one is
    /// [told](PinLedger::space_ends) by the library.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// static LEDGER: LedgerTable<8> = LedgerTable::new(|| 0);
    /// let kernel = kernel.with_extras(Extras::new().ledger(&LEDGER));
    /// let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
    /// space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
    /// let pinned = space.pin(Write, space.range(0x10000, 1)?, [PhysRun::default(); 1])?.tagged(7);
    /// // The driver is unloaded. Its space is there still; its pins should not be.
    /// assert_eq!(LEDGER.tag_ends(7), 1);
    /// assert_eq!(LEDGER.left_behind().map(|entry| entry.tag).collect::<Vec<_>>(), [7]);
    /// # drop(pinned);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn tag_ends(&self, tag: u64) -> usize {
        self.leave_behind(|entry| entry.tag == tag)
    }

    /// What outlived its address space, or whom it was for: the leak report. A request whose pins outlive the process by design is in it
    /// until it is completed.
    ///
    /// ```
    /// use pagepin::LedgerTable;
    /// static LEDGER: LedgerTable<8> = LedgerTable::new(|| 0);
    /// assert!(LEDGER.left_behind().next().is_none(), "a process has left pins behind");
    /// ```
    pub fn left_behind(&self) -> impl Iterator<Item = LedgerEntry> + '_ {
        self.records().filter(|entry| entry.left_behind)
    }

    /// Runs that were not recorded, for want of room.
    ///
    /// ```
    /// use pagepin::LedgerTable;
    /// static LEDGER: LedgerTable<8> = LedgerTable::new(|| 0);
    /// assert!(LEDGER.missed() == 0 && LEDGER.misused() == 0 && LEDGER.strike_orphans() == 0);
    /// ```
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// Tickets that came back a second time.
    ///
    /// ```
    /// # use pagepin::LedgerTable;
    /// # static LEDGER: LedgerTable<8> = LedgerTable::new(|| 0);
    /// assert_eq!(LEDGER.misused(), 0, "somebody gave a ticket back twice");
    /// ```
    #[must_use]
    pub fn misused(&self) -> u64 {
        self.misused.load(Ordering::Relaxed)
    }

    /// Strikes out the orphaned records, which no ticket will. How many there were.
    ///
    /// ```
    /// # use pagepin::LedgerTable;
    /// # static LEDGER: LedgerTable<8> = LedgerTable::new(|| 0);
    /// assert_eq!(LEDGER.strike_orphans(), 0); // all pins came back with their tickets
    /// ```
    pub fn strike_orphans(&self) -> usize {
        let orphans = self.slots().enumerate().filter_map(|(index, slot)| {
            let (state, entry) = slot.read()?;
            (entry.orphaned && self.give_back(index, state & !NUMBER)).then_some(())
        });
        orphans.count()
    }

    /// Strikes out every record that is `wanted`, and hands it to `taken`: each to one caller, however many there are.
    pub(crate) fn take_matching(&self, wanted: impl Fn(&LedgerEntry) -> bool, taken: &mut dyn FnMut(LedgerEntry)) {
        for (index, slot) in self.slots().enumerate() {
            if let Some((state, entry)) = slot.read().filter(|(_, entry)| wanted(entry)) {
                if self.give_back(index, state & !NUMBER) {
                    taken(entry);
                }
            }
        }
    }

    /// Marks the records that are `theirs`. How many.
    fn leave_behind(&self, theirs: impl Fn(&LedgerEntry) -> bool) -> usize {
        let theirs = |slot: &&Slot| {
            let state = slot.read().filter(|(_, entry)| theirs(entry)).map(|(state, _)| state);
            state.is_some_and(|state| slot.change(state & !NUMBER, |state| Some(state | LEFT_BEHIND)))
        };
        self.slots().filter(theirs).count()
    }

    /// The slots that were ever used.
    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().take(self.used.load(Ordering::Relaxed) as usize)
    }

    /// A slot that is nobody else's.
    #[inline]
    fn take(&self) -> Option<(usize, &Slot)> {
        // Acquires what the last user of the slot released when it put the slot there.
        let mut head = self.free.load(Ordering::Acquire);
        while let Some(index) = index(head) {
            let slot = self.slots.get(index)?;
            let next = slot.next.load(Ordering::Relaxed);
            let rest = changed(head) | next;
            match self.free.compare_exchange_weak(head, rest, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return Some((index, slot)),
                Err(now) => head = now,
            }
        }
        let more = |used: u64| (used < N as u64).then_some(used + 1);
        let index = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()? as usize;
        Some((index, self.slots.get(index)?))
    }

    /// Frees a slot that is live in this generation. False: it is not, any more.
    #[inline]
    fn give_back(&self, index: usize, generation: u64) -> bool {
        let Some(slot) = self.slots.get(index).filter(|slot| slot.end(generation)) else { return false };
        let mut head = self.free.load(Ordering::Relaxed);
        loop {
            slot.next.store(head & NUMBER, Ordering::Relaxed);
            let pushed = changed(head) | (index as u64 + 1);
            match self.free.compare_exchange_weak(head, pushed, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => head = now,
            }
        }
    }

    /// Visits the live slots of a ticket and then forgets about its ticket or not, as `visit` likes.
    fn each_run(&self, ticket: LedgerTicket, mut visit: impl FnMut(usize, &Slot, u64) -> bool) {
        let mut link = ticket.0;
        while let Some(index) = index(link) {
            let Some(slot) = self.slots.get(index) else { return };
            // Read before the slot may be given back; if it was before, `visit` will refuse.
            let next = slot.link.load(Ordering::Relaxed);
            if !visit(index, slot, link & !NUMBER) {
                self.misused.fetch_add(1, Ordering::Relaxed);
                return;
            }
            link = next;
        }
    }
}

/// The slot that a link, ticket or head names.
const fn index(link: u64) -> Option<usize> {
    match link & NUMBER {
        0 => None,
        number => Some(number as usize - 1),
    }
}

/// The count beside another head than this.
#[inline(always)]
fn changed(head: u64) -> u64 {
    let step = if safeguard!(LedgerCount => true) { GENERATION } else { 0 };
    (head & !NUMBER).wrapping_add(step)
}

impl<const N: usize> PinLedger for LedgerTable<N> {
    type Ticket = LedgerTicket;

    #[inline]
    fn record(&self, record: &PinRecord<'_>) -> LedgerTicket {
        let (mut link, time) = (0, (self.clock)());
        for run in record.runs.iter().rev() {
            match self.take() {
                Some((index, slot)) => link = slot.fill(index, record, run, link, time),
                None => _ = self.missed.fetch_add(1, Ordering::Relaxed),
            }
        }
        LedgerTicket(link)
    }

    #[inline]
    fn forget(&self, ticket: LedgerTicket) {
        self.each_run(ticket, |index, _, generation| self.give_back(index, generation));
    }

    fn retag(&self, ticket: LedgerTicket, tag: u64) {
        self.each_run(ticket, |_, slot, generation| {
            // The ticket is the caller's, so nobody else gives the slot back meanwhile.
            let live = slot.change(generation, Some);
            if live {
                slot.tag.store(tag, Ordering::Relaxed);
            }
            live
        });
    }

    fn quarantine(&self, ticket: LedgerTicket) {
        self.each_run(ticket, |_, slot, generation| slot.change(generation, |state| Some(state | QUARANTINED)));
    }

    fn released_by_number(&self, run: PhysRun) {
        let candidates = || {
            let slots = self.slots().enumerate();
            slots.filter_map(|(index, slot)| slot.read().map(|(state, entry)| (index, slot, state & !NUMBER, entry)))
        };
        // A quarantined run is released by number by its quarantine, which has it to itself.
        let quarantined = |(_, _, _, entry): &(usize, &Slot, u64, LedgerEntry)| entry.quarantined && entry.run == run;
        if candidates().find(quarantined).is_some_and(|(index, _, generation, _)| self.give_back(index, generation)) {
            return;
        }
        let touched = |entry: &LedgerEntry| run.first() < entry.run.end() && entry.run.first() < run.end();
        // Who comes first strikes a record; another CPU with the same number strikes the next.
        let strike = |state: u64| {
            let struck = safeguard!(LedgerStrikesOnce => state & ORPHANED != 0);
            (!struck).then_some(state | ORPHANED)
        };
        loop {
            let exact = candidates().find(|(_, _, _, entry)| entry.run == run && !entry.orphaned);
            let found = exact.or_else(|| candidates().find(|(_, _, _, entry)| touched(entry) && !entry.orphaned));
            let Some((_, slot, generation, _)) = found else { return };
            // If not, somebody else has got somewhere.
            if slot.change(generation, strike) {
                return;
            }
        }
    }

    fn space_ends(&self, &SpaceEnd { space, .. }: &SpaceEnd<'_>) {
        self.leave_behind(|entry| entry.through == Through::space(space));
    }
}
