//! Operations on VMAs: map, unmap, protect, discard, fork, exit.

use std::ops::Range;
use std::sync::Arc;

use pagepin::frame::Layout;
use pagepin::space::{Advice, ForkError, ProtectPolicy, SpaceError, Unmapped};
use pagepin::{MapOptions, PageAddr, Pfn, PinLimit, Rights};

use super::model::{Backing, cleared, whole_pages};
use super::{Effect, World, memory_type};
use crate::machine::PAGE;

/// Most processes at a time.
const MAX_PROCESSES: usize = 4;
/// Longer VMAs are not mapped, nor protected: the model has an entry for each page.
const MAX_MAPPED_BYTES: u64 = 1 << 20;
const MAX_PROTECTED_PAGES: u64 = 1 << 20;

impl<L: Layout> World<'_, L> {
    /// What became of an operation that needs no frames.
    fn judge<T>(&self, result: Result<T, SpaceError>, wanted: Result<T, SpaceError>) -> Effect
    where
        T: PartialEq + std::fmt::Debug,
    {
        assert!(!self.starved(), "it needs no frames");
        assert_eq!(result, wanted);
        if result.is_ok() { Effect::Anything } else { Effect::Nothing }
    }

    /// `choice`: the upper bound on later rights, and a protection key.
    pub(super) fn map(
        &mut self,
        who: usize,
        start: u64,
        length: u64,
        choice: Option<(Rights, u8)>,
        rights: Rights,
    ) -> Effect {
        if length > MAX_MAPPED_BYTES {
            return Effect::Nothing;
        }
        let (process, model) = &mut self.processes[who];
        let result = match choice {
            None => process.map(start, length, rights),
            Some((max_rights, key)) => {
                process.map(start, length, MapOptions::new(rights).max_rights(max_rights).key(key))
            }
        };
        let (max_rights, key) = choice.unwrap_or((Rights::all(), 0));
        let range = whole_pages(self.options.kernel_half.levels(), start, length);
        let wanted = range.and_then(|range| model.map(range, (rights, max_rights, key), cleared));
        self.judge(result, wanted)
    }

    pub(super) fn map_foreign(&mut self, who: usize, start: u64, length: u64, rights: Rights, first: Pfn) -> Effect {
        if length > MAX_MAPPED_BYTES {
            return Effect::Nothing;
        }
        // SAFETY: registers of the emulated machine.
        let result = unsafe { self.processes[who].0.map_foreign(start, length, first, memory_type(first), rights) };
        if self.starved() {
            assert_eq!(result, Err(SpaceError::NoMemory));
            return Effect::Nothing;
        }
        let registers = |page: u64| Backing::Registers(first.offset(page - start / PAGE));
        let range = whole_pages(self.options.kernel_half.levels(), start, length);
        let wanted = range.and_then(|range| self.processes[who].1.map(range, (rights, rights, 0), registers));
        self.judge(result, wanted)
    }

    /// What an unmap of `range` takes away: what the entries said before it.
    fn mapped(&self, who: usize, range: &Range<u64>, foreign: bool) -> Unmapped {
        let mut unmapped = Unmapped::default();
        for leaf in self.seen.leaves(who).iter().filter(|leaf| range.contains(&(leaf.address / PAGE))) {
            let page = self.processes[who].1.page(leaf.address);
            let is_foreign = page.is_some_and(|page| page.register(0).is_some());
            if foreign || !is_foreign {
                unmapped.pages += leaf.size.pages();
                unmapped.pinned_pages += if self.seen.is_pinned(leaf) { leaf.size.pages() } else { 0 };
            }
        }
        unmapped
    }

    pub(super) fn unmap(&mut self, who: usize, start: u64, length: u64) -> Effect {
        let result = self.processes[who].0.unmap(start, length);
        let wanted = whole_pages(self.options.kernel_half.levels(), start, length).and_then(|range| {
            let unmapped = self.mapped(who, &range, true);
            self.processes[who].1.unmap(range).map(|()| unmapped)
        });
        self.judge(result, wanted)
    }

    pub(super) fn discard(&mut self, who: usize, start: u64, length: u64) -> Effect {
        let result = self.processes[who].0.discard(start, length);
        let wanted = whole_pages(self.options.kernel_half.levels(), start, length).and_then(|range| {
            let unmapped = self.mapped(who, &range, false);
            self.processes[who].1.discard(range).map(|()| unmapped)
        });
        self.judge(result, wanted)
    }

    pub(super) fn protect(&mut self, who: usize, start: u64, length: u64, rights: Rights) -> Effect {
        let range = whole_pages(self.options.kernel_half.levels(), start, length);
        if range.as_ref().is_ok_and(|range| range.end - range.start >= MAX_PROTECTED_PAGES) {
            return Effect::Nothing;
        }
        let result = self.processes[who].0.protect(start, length, rights);
        let wanted = range.and_then(|range| {
            self.processes[who].1.may_protect(&range, rights)?;
            self.reject_pinned(who, &range, rights)?;
            self.processes[who].1.protect(range, rights);
            Ok(())
        });
        self.judge(result, wanted)
    }

    pub(super) fn advise(&mut self, who: usize, start: u64, length: u64, advice: Advice) -> Effect {
        let result = self.processes[who].0.advise(start, length, advice);
        let range = whole_pages(self.options.kernel_half.levels(), start, length);
        let wanted = range.and_then(|range| self.processes[who].1.advise(range, advice));
        self.judge(result, wanted)
    }

    /// By policy, a page that is pinned keeps the rights that its VMA gives it, whatever its entry grants at the moment.
    fn reject_pinned(&self, who: usize, range: &Range<u64>, rights: Rights) -> Result<(), SpaceError> {
        if self.options.protect_policy == ProtectPolicy::Allow {
            return Ok(());
        }
        let inside = self.seen.leaves(who).iter().filter(|leaf| range.contains(&(leaf.address / PAGE)));
        let mut loses = inside.filter(|leaf| {
            let now = self.processes[who].1.page(leaf.address).map_or(Rights::empty(), |page| page.mapping.rights);
            let writes = now.contains(Rights::WRITE) && !rights.contains(Rights::WRITE);
            writes || (rights.is_empty() && !now.is_empty())
        });
        let pinned = loses.find(|leaf| self.seen.is_pinned(leaf));
        pinned.map_or(Ok(()), |leaf| Err(SpaceError::Pinned(PageAddr::containing(leaf.address))))
    }

    pub(super) fn fork(&mut self, who: usize) -> Effect {
        if self.processes.len() == MAX_PROCESSES {
            return Effect::Nothing;
        }
        let (process, model) = &self.processes[who];
        let forked = process.fork_with_budget(Arc::new(PinLimit::new(self.pin_limit)));
        if self.starved() {
            assert_eq!(forked.err(), Some(ForkError::NoMemory));
            return Effect::Nothing;
        }
        let child = (forked.unwrap(), model.fork(self.forked));
        self.processes.push(child);
        self.forked += 1;
        Effect::Anything
    }

    pub(super) fn exit(&mut self, who: usize) -> Effect {
        if self.processes.len() == 1 {
            return Effect::Nothing;
        }
        drop(self.processes.swap_remove(who));
        Effect::Anything
    }
}
