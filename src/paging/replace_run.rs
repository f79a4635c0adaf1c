//! Break -> flush -> publish for leaves side by side, with one flush for all of them.
//!
//! The same three steps as for one leaf ([`Broken`](super::Broken)), in types of their own. The entries are taken by trying alone:
//! whoever owns some waits for no other, since its owner may be waiting for one of these.

use crate::addr::PageAddr;
use crate::arch::{Entry, LeafSize};
use crate::env::{EntryAddr, Env, ExtraParts, FlushRange, NoPreempt, PhysMap, StayGuard};
use crate::primitive::safeguard;

use super::Tables;

/// Base leaves side by side that hardware can no longer load, but that TLBs may still hold. This CPU owns their places.
#[must_use = "publish something: others wait for it"]
pub(crate) struct BrokenRun<'t, 'a, K: Env + 'a> {
    tables: &'t mut Tables<'a, K>,
    first: EntryAddr,
    page: PageAddr,
    count: u64,
    stay: StayGuard<'a, K>,
}

/// The same when no CPU can use them any more.
#[must_use = "publish something: others wait for it"]
pub(crate) struct SettledRun<'t, 'a, K: Env + 'a> {
    tables: &'t mut Tables<'a, K>,
    first: EntryAddr,
    count: u64,
    _stay: StayGuard<'a, K>,
}

impl<'a, K: Env> Tables<'a, K> {
    /// Takes the base leaves from `first` on, which maps `page`, out of use and into ownership: those of `seen`, up to the first
    /// that is not what was seen any more. What was taken is noted there, with the bits that hardware has set.
    ///
    /// # Safety
    /// As [`Tables::break_leaf`], for each; all lie in one table, where `first` and the places behind it hold what was seen.
    #[inline(always)]
    pub(crate) unsafe fn break_run(
        &mut self,
        first: EntryAddr,
        page: PageAddr,
        seen: &mut [Entry],
    ) -> BrokenRun<'_, 'a, K> {
        let stay = self.env().extras().no_preempt().enter();
        let mut count = 0;
        for seen in seen {
            // SAFETY: forwarded from the caller.
            match unsafe { self.take(first.offset(count), *seen) } {
                Some(taken) => *seen = taken,
                None if safeguard!(RefusalEndsRun => true) => break,
                None => {}
            }
            count += 1;
        }
        BrokenRun { tables: self, first, page, count, stay }
    }
}

impl<'t, 'a, K: Env> BrokenRun<'t, 'a, K> {
    /// How many were taken.
    #[inline(always)]
    pub(crate) fn count(&self) -> usize {
        self.count as usize
    }

    /// Returns after every CPU has acknowledged that the old translations are gone.
    #[inline(always)]
    pub(crate) fn flush(self) -> SettledRun<'t, 'a, K> {
        let range = FlushRange::Leaves { first: self.page, pages: self.count };
        if self.count != 0 {
            safeguard!(FlushBeforePublish; self.tables.flush(range));
        }
        SettledRun { tables: self.tables, first: self.first, count: self.count, _stay: self.stay }
    }
}

impl<K: Env> SettledRun<'_, '_, K> {
    /// Maps the leaves of `new` where the old ones were, as many as were taken. The reference of each old entry is the caller's
    /// now.
    ///
    /// # Safety
    /// As [`Settled::publish`](super::Settled::publish), for each.
    #[inline(always)]
    pub(crate) unsafe fn publish(self, new: &[Entry]) {
        debug_assert!(new.len() >= self.count as usize, "an entry stays owned");
        for (index, &new) in (0..self.count).zip(new) {
            self.tables.before_execute(Entry::EMPTY, new, LeafSize::Size4KiB);
            // SAFETY: the mm lock is held through `tables`; the place is this CPU's, and what was there is flushed.
            unsafe { self.tables.map().store_entry(self.first.offset(index), new) };
        }
        if self.count != 0 {
            self.tables.added();
        }
    }
}
