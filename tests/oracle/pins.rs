//! Pins and gets in all their forms: which pages, in which frames, and why no more.

use std::sync::Arc;

use pagepin::frame::{Dirty, Layout};
use pagepin::pin::{self, PhysRun, PinAccess, PinError, PinFlags, RawGets, RawPins, Read, Write};
use pagepin::{LeafSize, Pfn, PinLimit, Rights, UserRange, VmaFlags};

use super::contents::Bytes;
use super::decode::Acquire;
use super::files::File;
use super::reference::{Backing, Page, key_denies};
use super::{Effect, World};
use crate::forms::{self, Form};
use crate::machine::{Machine, PAGE, Pins, READING};

/// Pins that a device works with.
pub(super) struct Dma {
    pub(super) raw: Raw,
    /// Each page's frame and, in the reference, the bytes it is another name for.
    pub(super) pages: Vec<(Pfn, Bytes)>,
    /// The process that took them, and what is charged for them, which outlives it.
    pub(super) owner: usize,
    pub(super) budget: Arc<PinLimit>,
}

pub(super) enum Raw {
    Read(RawPins<Read, Vec<PhysRun>>),
    Write(RawPins<Write, Vec<PhysRun>>),
}

pub(super) type Gets = RawGets<Vec<PhysRun>>;

/// Whether a pin or a get becomes a raw one: pages, runs and the reason why there are no more.
pub(super) type Acquired<T> = Result<(T, Vec<PhysRun>, Option<PinError>), PinError>;

impl Raw {
    pub(super) fn runs(&self) -> &[PhysRun] {
        match self {
            Self::Read(raw) => raw.runs(),
            Self::Write(raw) => raw.runs(),
        }
    }
}

impl Acquire {
    fn never_faults(&self) -> bool {
        self.form == Form::FastOnly || self.flags.contains(PinFlags::NOFAULT)
    }

    fn writes_for_long(&self) -> bool {
        self.write && self.flags.contains(PinFlags::LONGTERM)
    }

    /// Whether an object would never be written back for this pin.
    pub(super) fn is_written_back_of(&self, file: &File) -> bool {
        self.writes_for_long() && file.written_back
    }

    fn is_alone(&self) -> bool {
        self.flags.contains(PinFlags::SOLE)
    }

    fn has_valid_flags(&self, pin: bool) -> bool {
        let forced = self.flags.contains(PinFlags::FORCE);
        let for_pins_only = self.flags.intersects(PinFlags::FORCE | PinFlags::LONGTERM | PinFlags::SOLE);
        let (alone, slow) = (self.is_alone(), self.form != Form::FastOnly);
        (pin || !for_pins_only) && (!forced || (self.write && slow && !alone)) && (!alone || slow)
    }

    /// Whether the VMA of `page` permits it to a thread with this PKRU.
    fn permits(&self, page: Option<Page<'_>>, pkru: u32) -> Result<Bytes, PinError> {
        let mapping = page.ok_or(PinError::NoVma)?.mapping;
        if self.form != Form::Remote && key_denies(pkru, mapping.key, self.write) {
            return Err(PinError::ProtectionKey);
        }
        let private = match &mapping.backing {
            Backing::Anonymous(_) => true,
            Backing::Object(shown) => !shown.shared,
            Backing::Registers(_) => false,
        };
        let forced = self.flags.contains(PinFlags::FORCE) && mapping.max_rights.contains(Rights::WRITE) && private;
        if mapping.rights.is_empty() || (self.write && !mapping.rights.contains(Rights::WRITE) && !forced) {
            return Err(PinError::AccessDenied);
        }
        if mapping.flags.contains(VmaFlags::UNPINNABLE) {
            return Err(PinError::NotPinnable);
        }
        if matches!(&mapping.backing, Backing::Object(shown) if shown.shared && self.is_written_back_of(&shown.file)) {
            return Err(PinError::WrittenBack);
        }
        let page = page.filter(|page| !page.is_past_end()).ok_or(PinError::PastEnd)?;
        page.bytes().ok_or(PinError::NotPinnable)
    }
}

pub(super) fn frames(runs: &[PhysRun]) -> impl Iterator<Item = Pfn> {
    runs.iter().flat_map(|run| run.first().number()..run.end().number()).map(Pfn::new)
}

/// What pins of `runs` are charged: each leaf that they have a part of, as a whole.
pub(super) fn cost(runs: &[PhysRun]) -> u64 {
    runs.iter().map(|run| (super::check::heads(&[*run]).count() as u64) << run.order()).sum()
}

/// Whether `next` could be part of `run`. Large leaves are joined at their edges only.
pub(super) fn continues(run: &PhysRun, next: &PhysRun) -> bool {
    let at_an_edge = next.first() == next.first().block_start(next.order());
    run.order() == next.order() && run.end() == next.first() && at_an_edge
}

impl<L: Layout> World<'_, L> {
    pub(super) fn pin(&mut self, who: usize, wanted: &Acquire) -> Effect {
        let process = &self.processes[who].0;
        let Ok(range) = process.range(wanted.start, wanted.length) else { return Effect::Nothing };
        let result = if wanted.write {
            self.pin_for::<Write>(who, range, wanted).map(|(raw, runs, stopped)| (Raw::Write(raw), runs, stopped))
        } else {
            self.pin_for::<Read>(who, range, wanted).map(|(raw, runs, stopped)| (Raw::Read(raw), runs, stopped))
        };
        self.adopt(who);
        let reference = &self.processes[who].1;
        if !wanted.has_valid_flags(true) {
            assert_eq!(result.err(), Some(PinError::InvalidFlags));
            return Effect::Nothing;
        }
        if wanted.is_alone() && !L::HAS_SOLE {
            assert_eq!(result.err(), Some(PinError::NoSole));
            return Effect::Nothing;
        }
        if self.limited() && reference.charged + range.pages() > self.pin_limit {
            assert_eq!(result.err(), Some(PinError::BudgetExceeded));
            return Effect::Nothing;
        }
        if result.as_ref().err() == Some(&PinError::BudgetExceeded) {
            // Pages were made ready before it was known what their leaves cost.
            let leaves = self.seen.leaves(who).iter().filter(|leaf| leaf.size != LeafSize::Size4KiB);
            let touched =
                leaves.filter(|leaf| leaf.address < range.end() && range.start() < leaf.address + leaf.size.bytes());
            let most = range.pages() + touched.map(|leaf| leaf.size.pages()).sum::<u64>();
            assert!(self.limited() && reference.charged + most > self.pin_limit, "refused within the limit");
            return Effect::Anything;
        }
        let (pages, effect) = self.judge_acquired(who, range, wanted, true, &result);
        let Ok((raw, runs, _)) = result else { return effect };
        let (process, reference) = &mut self.processes[who];
        let budget = process.budget().clone();
        reference.charged += cost(&runs);
        assert!(reference.charged <= self.pin_limit);
        let owner = reference.id;
        self.pins.push(Dma { raw, pages, owner, budget });
        effect
    }

    fn pin_for<X: PinAccess>(
        &self,
        who: usize,
        range: UserRange,
        wanted: &Acquire,
    ) -> Acquired<RawPins<X, Vec<PhysRun>>> {
        let process = &self.processes[who].0;
        let pins: Pins<'_, '_, L, X> = forms::pin(wanted.form, process, range, wanted.flags, wanted.buffer)?;
        let (runs, stopped) = (pins.runs().to_vec(), pins.stopped());
        assert_eq!(pins.pages(), frames(&runs).count() as u64);
        assert!(stopped.is_none_or(|stopped| stopped.page_index == pins.pages()));
        let Some(stopped) = stopped else {
            // All of it: then there is also a view of the bytes, exactly those that were asked for.
            let pins = pins.complete()?;
            let bytes: u64 = pins.byte_runs().map(|run| run.length).sum();
            let first = pins.byte_runs().next().map(|run| run.address % PAGE);
            assert_eq!((bytes, first), (wanted.length, Some(wanted.start % PAGE)));
            return Ok((pins.into_raw(), runs, None));
        };
        Ok((pins.into_raw(), runs, Some(stopped.reason)))
    }

    pub(super) fn get(&mut self, who: usize, wanted: &Acquire) -> Effect {
        let process = &self.processes[who].0;
        let Ok(range) = process.range(wanted.start, wanted.length) else { return Effect::Nothing };
        let get = if wanted.write { forms::get::<Write, L> } else { forms::get::<Read, L> };
        let gets = get(wanted.form, process, range, wanted.flags, wanted.buffer);
        let result = gets.map(|gets| {
            let (runs, stopped) = (gets.runs().to_vec(), gets.stopped());
            (gets.into_raw(), runs, stopped.map(|stopped| stopped.reason))
        });
        self.adopt(who);
        if !wanted.has_valid_flags(false) {
            assert_eq!(result.err(), Some(PinError::InvalidFlags));
            return Effect::Nothing;
        }
        let (pages, effect) = self.judge_acquired(who, range, wanted, false, &result);
        // Of this moment: nothing is promised for later but that the frames stay allocated.
        for (frame, bytes) in pages {
            assert!(bytes.is_in(self.machine, frame), "a reference to {frame:?}, which is another page");
        }
        self.gets.extend(result.map(|(raw, ..)| raw));
        effect
    }

    /// Compares what an acquisition with valid flags got with what is permitted.
    fn judge_acquired<T>(
        &self,
        who: usize,
        range: UserRange,
        wanted: &Acquire,
        pin: bool,
        result: &Acquired<T>,
    ) -> (Vec<(Pfn, Bytes)>, Effect) {
        let reference = &self.processes[who].1;
        let addresses = (0..range.pages()).map(|page| range.first_page().offset(page).address());
        let mut permitted = addresses.map(|address| wanted.permits(reference.page(address), self.pkru[0]));
        let (runs, stopped) = match result {
            Ok((_, runs, stopped)) => (&runs[..], *stopped),
            Err(error) => (&[][..], Some(*error)),
        };
        assert!(runs.windows(2).all(|pair| !continues(&pair[0], &pair[1])), "one run would do: {runs:?}");
        let acquired = frames(runs).enumerate().map(|(index, frame)| {
            let page = reference.page(range.first_page().offset(index as u64).address());
            assert!(
                page.is_none_or(|page| !page.is_borrowed()),
                "{frame:?} is an object's, and the mapping is private"
            );
            let bytes = permitted.next().expect("more pages than were asked for");
            (frame, bytes.expect("a page was acquired that may not be"))
        });
        let pages: Vec<_> = acquired.collect();
        for head in super::check::heads(runs) {
            assert_eq!(self.conflict(head, wanted, pin), None, "{head:?} is held otherwise");
        }
        let next = permitted.next();
        let first_missing = range.first_page().offset(pages.len() as u64).address();
        let needs_fault = || self.needs_fault(who, first_missing, wanted, pin);
        let starved = matches!(stopped, Some(PinError::NoMemory | PinError::NotReady(_)));
        let elsewhere = self.seen.is_elsewhere(who, first_missing);
        assert_eq!(starved, self.starved() || self.delayed());
        let delayed = stopped == Some(PinError::NotReady(READING));
        assert_eq!(delayed, self.delayed());
        assert!(elsewhere || delayed || !matches!(stopped, Some(PinError::NotReady(_))));
        match (stopped, next) {
            (None, None) => {}
            (Some(PinError::NoMemory | PinError::NotReady(_)), Some(Ok(_))) => {}
            (Some(PinError::BufferTooSmall), Some(Ok(_))) => assert_eq!(runs.len(), wanted.buffer),
            (Some(PinError::WouldFault), Some(Ok(_))) => assert!(wanted.never_faults() && needs_fault()),
            // Without the lock it does not learn more, unless the entry says it.
            (Some(PinError::WouldFault), Some(Err(_))) if wanted.form == Form::FastOnly => {}
            (Some(PinError::NotPinnable), Some(Err(_))) if wanted.form == Form::FastOnly => {
                assert!(self.seen.leaf(who, first_missing).is_some_and(|leaf| leaf.is_special()));
            }
            // Nobody asks an object either.
            (Some(PinError::WouldFault), Some(Err(PinError::PastEnd))) if wanted.never_faults() => {}
            (Some(PinError::WouldFault), Some(Err(_))) if wanted.is_alone() && wanted.never_faults() => {}
            // The page is there, and a full buffer ends the walk before its VMA is looked at.
            (Some(PinError::BufferTooSmall), Some(Err(PinError::WrittenBack))) => assert_eq!(runs.len(), wanted.buffer),
            // Nor does a sole pin that never faults: a full buffer ends it before it looks at the page.
            (Some(PinError::BufferTooSmall), Some(Err(_))) if wanted.is_alone() && wanted.never_faults() => {
                assert_eq!(runs.len(), wanted.buffer);
            }
            (Some(reason @ (PinError::Sole | PinError::OtherKind | PinError::CountOverflow)), Some(Ok(_))) => {
                let frame = self.frame_behind(who, first_missing).expect("nobody holds a page that is not there");
                assert_eq!(Some(reason), self.conflict(frame, wanted, pin));
            }
            (Some(reason), Some(Err(error))) => assert_eq!(reason, error),
            (stopped, next) => panic!("stopped by {stopped:?} where {next:?} is right"),
        }
        let effect = match (pages.is_empty(), stopped) {
            // Found too small for a page that was made ready first.
            (true, Some(PinError::BufferTooSmall)) if !wanted.never_faults() => Effect::Anything,
            // And so was one that somebody else holds.
            (true, Some(PinError::Sole | PinError::OtherKind | PinError::CountOverflow)) if !wanted.never_faults() => {
                Effect::Anything
            }
            // It came for want of memory to copy it.
            (true, _) if starved && elsewhere => Effect::Anything,
            // The object may have the page by now.
            (true, _) if starved && self.shows_object(who, first_missing) => Effect::Anything,
            (true, _) => Effect::Nothing,
            (false, _) if wanted.never_faults() => Effect::Counts,
            (false, _) => Effect::Anything,
        };
        (pages, effect)
    }

    /// Why a frame cannot be held, by who held it before.
    pub(super) fn conflict(&self, head: Pfn, wanted: &Acquire, pin: bool) -> Option<PinError> {
        let word = self.seen.word(head)?;
        let gets = self.gets.iter().filter(|gets| self.counted(gets.runs()).any(|held| held == head)).count();
        let gets = gets as u64;
        let limits = self.kinds.filter(|_| word.pins + gets != 0);
        match limits {
            Some(_) if if pin { gets != 0 } else { word.pins != 0 } => Some(PinError::OtherKind),
            _ if pin && (word.sole || (wanted.is_alone() && word.pins != 0)) => Some(PinError::Sole),
            Some((pins, _)) if pin && word.pins == pins => Some(PinError::CountOverflow),
            Some((_, most)) if !pin && gets == most => Some(PinError::CountOverflow),
            _ => None,
        }
    }

    /// Whether a page that may be acquired is not ready for it, by the entries from before.
    fn needs_fault(&self, who: usize, address: u64, wanted: &Acquire, pin: bool) -> bool {
        let Some(leaf) = self.seen.leaf(who, address) else { return true };
        let writable =
            self.processes[who].1.page(address).is_some_and(|page| page.mapping.rights.contains(Rights::WRITE));
        let exclusive = self.machine.word(leaf.frame()).snapshot().exclusive && !leaf.is_borrowed();
        let writes = wanted.write && writable && !Machine::<L>::is_writable(leaf.bits);
        // Without its VMA nobody knows whether the object is written back.
        let unknown = wanted.form == Form::FastOnly && wanted.writes_for_long() && self.shows_object(who, address);
        !leaf.is_present() || leaf.is_special() || writes || (pin && !exclusive) || unknown
    }

    pub(super) fn unpin(&mut self, index: usize) -> Effect {
        if self.pins.is_empty() {
            return Effect::Nothing;
        }
        let Dma { raw, owner, budget, .. } = self.pins.swap_remove(index % self.pins.len());
        if let Some((_, reference)) = self.processes.iter_mut().find(|(_, reference)| reference.id == owner) {
            reference.charged -= cost(raw.runs());
        }
        match raw {
            // SAFETY: pinned through this machine, and given back once.
            Raw::Read(raw) => unsafe { drop(pin::unpin_user_pages(self.machine, &budget, raw, Dirty::No)) },
            Raw::Write(raw) => {
                let heads: Vec<_> = self.counted(raw.runs()).collect();
                // SAFETY: as above.
                unsafe { drop(pin::unpin_user_pages(self.machine, &budget, raw, Dirty::Yes)) };
                let words = heads.into_iter().map(|head| self.machine.word(head).snapshot());
                assert!(words.into_iter().all(|word| word.is_free() || word.dirty), "what a device wrote is lost");
            }
        }
        Effect::Anything
    }

    pub(super) fn put(&mut self, index: usize) -> Effect {
        if self.gets.is_empty() {
            return Effect::Nothing;
        }
        let gets = self.gets.swap_remove(index % self.gets.len());
        // SAFETY: referenced through this machine, and given back once.
        unsafe { pin::put_user_pages(self.machine, gets) };
        Effect::Counts
    }

    pub(super) fn device_write(&mut self, index: usize, at: u64, byte: u8) -> Effect {
        if !self.pins.is_empty() {
            let dma = &self.pins[index % self.pins.len()];
            let (frame, bytes) = &dma.pages[(at / PAGE) as usize % dma.pages.len()];
            if matches!(dma.raw, Raw::Write(_)) {
                self.machine.dma_write(frame.address() + at % PAGE, &[byte]);
                // Whoever has a device write into code sees to the instruction caches. What is not code yet is not his.
                if self.seen.is_code(*frame) {
                    self.machine.memory().sync_instructions(*frame, 1);
                }
                bytes.set(at, byte);
            }
        }
        Effect::Nothing
    }

    pub(super) fn device_read(&mut self, index: usize, at: u64) -> Effect {
        if !self.pins.is_empty() {
            let dma = &self.pins[index % self.pins.len()];
            let (frame, bytes) = &dma.pages[(at / PAGE) as usize % dma.pages.len()];
            assert_eq!(self.machine.dma_read(frame.address() + at % PAGE), bytes.get(at), "INV-11");
        }
        Effect::Nothing
    }
}
