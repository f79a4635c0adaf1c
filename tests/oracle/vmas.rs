//! Operations on VMAs: map, unmap, protect, discard, fork, exit.

use std::ops::Range;
use std::sync::Arc;

use pagepin::frame::Layout;
use pagepin::space::{Advice, ForkError, SpaceError, Unmapped};
use pagepin::{MapOptions, PageAddr, Pfn, PinLimit, Rights, Vma, VmaFlags};

use super::reference::{Backing, Mapping, cleared, whole_pages};
use super::{Effect, World, memory_type};
use crate::kit::Leaf;
use crate::machine::PAGE;

/// Most processes at a time.
const MAX_PROCESSES: usize = 4;
/// Longer VMAs are not mapped, nor protected: the reference has an entry for each page.
pub(super) const MAX_MAPPED_BYTES: u64 = 1 << 20;
const MAX_PROTECTED_PAGES: u64 = 1 << 20;

/// What was unmapped, with an address and a frame for each page that stays pinned, as many as a report has runs for.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pages: u64,
    pinned: Vec<(u64, Pfn)>,
    deferred_pages: u64,
    missed_pages: u64,
}

impl Taken {
    pub(super) fn append(&mut self, other: Self) {
        self.pages += other.pages;
        self.pinned.extend(other.pinned);
    }
}

impl From<Unmapped> for Taken {
    fn from(unmapped: Unmapped) -> Self {
        let Unmapped { pages, pinned_pages, still_pinned, deferred_pages, .. } = unmapped;
        let runs = still_pinned.runs().iter();
        let of_run = |run: &pagepin::PinnedRun| {
            let (start, first) = (run.start, run.run.first());
            (0..run.run.pages()).map(move |i| (start + i * PAGE, first.offset(i)))
        };
        let pinned: Vec<_> = runs.flat_map(of_run).collect();
        let missed_pages = still_pinned.missed_pages();
        assert_eq!(pinned.len() as u64 + missed_pages, pinned_pages);
        Self { pages, pinned, deferred_pages, missed_pages }
    }
}

/// The reference's is complete.
impl PartialEq for Taken {
    fn eq(&self, reference: &Self) -> bool {
        (self.pages, self.deferred_pages) == (reference.pages, reference.deferred_pages)
            && self.pinned.len() as u64 + self.missed_pages == reference.pinned.len() as u64
            && reference.pinned.starts_with(&self.pinned)
    }
}

/// Which pages of a leaf lie in a range of pages.
fn inside(leaf: &Leaf, range: &Range<u64>) -> Range<u64> {
    let (first, pages) = (leaf.address / PAGE, leaf.size.pages());
    range.start.saturating_sub(first).min(pages)..range.end.saturating_sub(first).min(pages)
}

impl<L: Layout> World<'_, L> {
    /// What became of an operation that needs no frames.
    pub(super) fn judge<T>(&self, result: Result<T, SpaceError>, wanted: Result<T, SpaceError>) -> Effect
    where
        T: PartialEq + std::fmt::Debug,
    {
        assert!(!self.starved(), "it needs no frames");
        assert_eq!(result, wanted);
        if result.is_ok() { Effect::Anything } else { Effect::Nothing }
    }

    /// `said`: what `options` say.
    pub(super) fn map(
        &mut self,
        who: usize,
        start: u64,
        length: u64,
        options: MapOptions,
        said: (Rights, Rights, u8, VmaFlags),
    ) -> Effect {
        if length > MAX_MAPPED_BYTES {
            return Effect::Nothing;
        }
        let (process, reference) = &mut self.processes[who];
        let result = process.map(start, length, options);
        let range = whole_pages(self.options.kernel_half.levels(), start, length);
        let wanted = range.and_then(|range| reference.map(range, said, cleared));
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
        let wanted =
            range.and_then(|range| self.processes[who].1.map(range, (rights, rights, 0, VmaFlags::empty()), registers));
        self.judge(result, wanted)
    }

    /// What is taken away with the leaves in `range` that are `wanted`, by the entries from before.
    pub(super) fn taken(&self, who: usize, range: &Range<u64>, wanted: impl Fn(&Mapping) -> bool) -> Taken {
        let mut taken = Taken::default();
        let of = |address: u64| self.processes[who].1.page(address).is_some_and(|page| wanted(page.mapping));
        let tokens = self.seen.tokens(who).keys();
        taken.pages += tokens.filter(|address| range.contains(&(**address / PAGE)) && of(**address)).count() as u64;
        for leaf in self.seen.leaves(who) {
            for index in inside(leaf, range).filter(|index| of(leaf.address + index * PAGE)) {
                taken.pages += 1;
                if self.seen.is_kept(leaf) {
                    taken.pinned.push((leaf.address + index * PAGE, leaf.frame().offset(index)));
                }
            }
        }
        taken
    }

    /// Whether there was no memory for the table of a large leaf that is cut: then nothing has changed but how large leaves are.
    fn cannot_cut<T: std::fmt::Debug>(&self, result: &Result<T, SpaceError>) -> bool {
        let starved = self.starved();
        assert!(!starved || matches!(result, Err(SpaceError::NoMemory)), "{result:?}");
        starved
    }

    pub(super) fn unmap(&mut self, who: usize, start: u64, length: u64) -> Effect {
        let vmas: Vec<_> = self.processes[who].0.vmas().map(Result::unwrap).collect();
        let result = self.processes[who].0.unmap(start, length);
        if self.cannot_cut(&result) {
            return Effect::Anything;
        }
        let wanted = whole_pages(self.options.kernel_half.levels(), start, length).and_then(|range| {
            self.reject_unmap(who, &range, VmaFlags::REFUSE_UNMAP_PINNED)?;
            let waiting = self.waiting(who, &range, &vmas);
            let waits = |page: u64| waiting.iter().any(|part| part.contains(&page));
            let mut taken = Taken::default();
            let leaves = self.seen.leaves(who).iter();
            let leaves = leaves.flat_map(|leaf| inside(leaf, &range).map(|index| leaf.address / PAGE + index));
            let tokens = self.seen.tokens(who).keys().map(|address| address / PAGE).filter(|page| range.contains(page));
            for page in leaves.chain(tokens) {
                taken.append(self.taken(who, &(page..page + 1), |_| !waits(page)));
            }
            taken.deferred_pages = waiting.iter().map(|part| part.end - part.start).sum();
            self.processes[who].1.unmap(range, waits);
            Ok(taken)
        });
        self.judge(result.map(Taken::from), wanted)
    }

    /// The parts of VMAs in `range` that wait for pins.
    fn waiting(&self, who: usize, range: &Range<u64>, vmas: &[Vma]) -> Vec<Range<u64>> {
        let deferring = |vma: &&Vma| vma.flags().intersects(VmaFlags::DEFER_UNMAP_PINNED | VmaFlags::UNMAP_DEFERRED);
        let number = |page: PageAddr| page.address() / PAGE;
        let part = |vma: &Vma| number(vma.start()).max(range.start)..number(vma.end()).min(range.end);
        let parts = vmas.iter().filter(deferring).map(part).filter(|part| !part.is_empty());
        let pinned = |part: &Range<u64>| {
            let mut inside = self.seen.leaves(who).iter().filter(|leaf| part.contains(&(leaf.address / PAGE)));
            inside.any(|leaf| self.seen.is_pinned(leaf))
        };
        parts.filter(pinned).collect()
    }

    pub(super) fn finish_deferred(&mut self, who: usize) -> Effect {
        let vmas: Vec<_> = self.processes[who].0.vmas().map(Result::unwrap).collect();
        let result = self.processes[who].0.finish_deferred();
        let all = 0..u64::MAX;
        let waiting = self.waiting(who, &all, &vmas);
        let waits = |page: u64| waiting.iter().any(|part| part.contains(&page));
        let mut wanted = Taken::default();
        let left = self.processes[who].1.mappings().filter(|(_, mapping)| mapping.is_leaving());
        let left: Vec<_> = left.map(|(first, _)| first).collect();
        for page in left {
            if waits(page) {
                wanted.deferred_pages += 1;
            } else {
                wanted.append(self.taken(who, &(page..page + 1), |_| true));
                self.processes[who].1.unmap(page..page + 1, |_| false);
            }
        }
        self.judge(result.map(Taken::from), Ok(wanted))
    }

    pub(super) fn discard(&mut self, who: usize, start: u64, length: u64) -> Effect {
        let result = self.processes[who].0.discard(start, length);
        if self.cannot_cut(&result) {
            return Effect::Anything;
        }
        let wanted = whole_pages(self.options.kernel_half.levels(), start, length).and_then(|range| {
            let taken = self.taken(who, &range, Mapping::has_contents);
            self.reject_unmap(who, &range, VmaFlags::REFUSE_UNMAP_PINNED | VmaFlags::DEFER_UNMAP_PINNED)?;
            self.processes[who].1.discard(range);
            Ok(taken)
        });
        self.judge(result.map(Taken::from), wanted)
    }

    /// By policy, a page that is pinned stays.
    fn reject_unmap(&self, who: usize, range: &Range<u64>, refusing: VmaFlags) -> Result<(), SpaceError> {
        self.reject_pinned_of(who, range, |mapping| mapping.flags.intersects(refusing) && !mapping.is_leaving())
    }

    /// Refuses the first page that is pinned in a mapping that `refuses`.
    fn reject_pinned_of(
        &self,
        who: usize,
        range: &Range<u64>,
        refuses: impl Fn(&Mapping) -> bool,
    ) -> Result<(), SpaceError> {
        let pinned = self.seen.leaves(who).iter().filter(|leaf| self.seen.is_pinned(leaf));
        let mut pages = pinned.flat_map(|leaf| inside(leaf, range).map(|index| leaf.address + index * PAGE));
        let first = pages.find(|page| self.processes[who].1.page(*page).is_some_and(|page| refuses(page.mapping)));
        first.map_or(Ok(()), |page| Err(SpaceError::Pinned(PageAddr::containing(page))))
    }

    pub(super) fn protect(&mut self, who: usize, start: u64, length: u64, rights: Rights) -> Effect {
        let range = whole_pages(self.options.kernel_half.levels(), start, length);
        if range.as_ref().is_ok_and(|range| range.end - range.start >= MAX_PROTECTED_PAGES) {
            return Effect::Nothing;
        }
        let result = self.processes[who].0.protect(start, length, rights);
        if self.cannot_cut(&result) {
            return Effect::Anything;
        }
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
        if self.cannot_cut(&result) {
            return Effect::Anything;
        }
        let range = whole_pages(self.options.kernel_half.levels(), start, length);
        let wanted = range.and_then(|range| self.processes[who].1.advise(range, advice));
        self.judge(result, wanted)
    }

    /// By policy, a page that is pinned keeps the rights that its VMA gives it, whatever its entry grants at the moment.
    fn reject_pinned(&self, who: usize, range: &Range<u64>, rights: Rights) -> Result<(), SpaceError> {
        self.reject_pinned_of(who, range, |mapping| {
            let writes = mapping.rights.contains(Rights::WRITE) && !rights.contains(Rights::WRITE);
            let loses = writes || (rights.is_empty() && !mapping.rights.is_empty());
            loses && mapping.flags.contains(VmaFlags::REFUSE_PROTECT_PINNED)
        })
    }

    pub(super) fn fork(&mut self, who: usize) -> Effect {
        if self.processes.len() == MAX_PROCESSES {
            return Effect::Nothing;
        }
        let (process, reference) = &self.processes[who];
        let forked = process.fork_with_budget(Arc::new(PinLimit::new(self.pin_limit)));
        if self.starved() {
            assert_eq!(forked.err(), Some(ForkError::NoMemory));
            return Effect::Nothing;
        }
        let child = (forked.unwrap(), reference.fork(self.forked));
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
