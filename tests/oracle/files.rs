//! Objects: what shows them, what has copied them, and what they do to both.

use std::cell::RefCell;
use std::fmt::{Debug, Formatter};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use pagepin::frame::{CountError, Layout};
use pagepin::pin::{Owner, PhysRun, PinAccess, PinError, PinFlags, RawPins, Read, Write, pin_object_pages};
use pagepin::space::{Copies, Sharing, SpaceError};
use pagepin::{ObjectId, Pfn, PinLimit, RangeError, Rights};

use super::contents::{Block, Bytes, SharedBlock};
use super::decode::{Acquire, OBJECT_PAGES};
use super::pins::{Acquired, Dma, Raw, continues, cost, frames};
use super::reference::{Backing, whole_pages};
use super::vmas::{MAX_MAPPED_BYTES, Taken};
use super::{Effect, FILES, World};
use crate::kit::Leaf;
use crate::machine::{Machine, PAGE, READING, first_byte, runs};

/// Pages of an object at first: fewer than can be mapped.
const PAGES_AT_FIRST: u32 = 6;

/// An object: its pages as all who share it see them.
pub(crate) struct File {
    pub(crate) id: ObjectId,
    /// What is written to it goes to a disk.
    pub(crate) written_back: bool,
    pages: RefCell<Vec<SharedBlock>>,
}

impl File {
    /// Nothing: it ends before the page.
    pub(crate) fn block(&self, page: u32) -> Option<SharedBlock> {
        self.pages.borrow().get(page as usize).cloned()
    }

    fn length(&self) -> u32 {
        self.pages.borrow().len() as u32
    }

    /// So many pages, the first of them as before.
    fn set_length(&self, length: u32) {
        let mut pages = self.pages.borrow_mut();
        pages.truncate(length as usize);
        let old = pages.len() as u32;
        pages.extend((old..length).map(|page| Block::filled(first_byte(page))));
    }
}

/// A page of an object, as a mapping shows it.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) file: Rc<File>,
    pub(crate) page: u32,
    pub(crate) shared: bool,
    /// What its process has copied of it: never of one that is shared.
    pub(crate) own: Option<SharedBlock>,
}

impl Debug for Shown {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let (how, copied) = (if self.shared { "shared" } else { "private" }, self.own.is_some());
        write!(f, "page {} of {:?}, {how}, copied: {copied}", self.page, self.file.id)
    }
}

impl Shown {
    pub(crate) fn block(&self) -> Option<SharedBlock> {
        self.own.clone().or_else(|| self.file.block(self.page))
    }

    /// The same, without the copy.
    pub(crate) fn uncopied(&self) -> Self {
        Self { own: None, ..self.clone() }
    }

    /// What a child gets of it.
    pub(crate) fn inherited(&self) -> Self {
        Self { own: self.own.as_ref().map(|own| own.borrow().copied()), ..self.clone() }
    }
}

/// The objects of a new world.
pub(super) fn all<L: Layout>(machine: &Machine<L>) -> [Rc<File>; FILES] {
    std::array::from_fn(|number| {
        let id = ObjectId(number as u32 + 1);
        let file = File { id, written_back: number != 0, pages: RefCell::default() };
        file.set_length(PAGES_AT_FIRST);
        machine.shelf().add(id, PAGES_AT_FIRST);
        machine.shelf().write_back(id, file.written_back);
        Rc::new(file)
    })
}

impl<L: Layout> World<'_, L> {
    pub(super) fn map_object(
        &mut self,
        who: usize,
        (start, length): (u64, u64),
        rights: Rights,
        (file, first, shared): (usize, u32, bool),
    ) -> Effect {
        if length > MAX_MAPPED_BYTES {
            return Effect::Nothing;
        }
        let file = self.files[file].clone();
        let sharing = if shared { Sharing::Shared } else { Sharing::Private };
        let options = pagepin::MapOptions::new(rights).flags(self.policy);
        let (process, reference) = &mut self.processes[who];
        let result = process.map_object(start, length, file.id, first, sharing, options);
        let range = whole_pages(self.options.kernel_half.levels(), start, length);
        let wanted = range.and_then(|range| {
            if range.end - range.start > u64::from(u32::MAX - first) {
                return Err(SpaceError::PageOverflow);
            }
            let shown = |page: u64| (page - start / PAGE) as u32 + first;
            let shown = |page| Shown { file: file.clone(), page: shown(page), shared, own: None };
            reference.map(range, (rights, Rights::all(), 0, self.policy), |page| Backing::Object(shown(page)))
        });
        self.judge(result, wanted)
    }

    /// What private mappings of a process have copied since the last look is its own from now on.
    pub(super) fn adopt(&mut self, who: usize) {
        let (process, reference) = &mut self.processes[who];
        let mut borrowed = reference.shown_mut().filter(|(_, shown)| !shown.shared && shown.own.is_none()).peekable();
        if borrowed.peek().is_none() {
            return;
        }
        let (leaves, _) = self.machine.leaves(process);
        for (page, shown) in borrowed {
            if leaves.iter().any(|leaf| leaf.address == page * PAGE && !leaf.is_borrowed()) {
                shown.own = shown.file.block(shown.page).map(|block| block.borrow().copied());
            }
        }
    }

    pub(super) fn shows_object(&self, who: usize, address: u64) -> bool {
        let page = self.processes[who].1.page(address);
        page.is_some_and(|page| matches!(page.mapping.backing, Backing::Object(_)))
    }

    /// The frame that an entry has, or would get.
    pub(super) fn frame_behind(&self, who: usize, address: u64) -> Option<Pfn> {
        let of_object = || match &self.processes[who].1.page(address)?.mapping.backing {
            Backing::Object(shown) => self.machine.shelf().frame(shown.file.id, shown.page),
            _ => None,
        };
        self.seen.leaf(who, address).map(Leaf::frame).or_else(of_object)
    }

    /// What an entry for a page of an object says, and the block that it maps, or that is in a slot, if it is the process's own.
    pub(super) fn check_shown<'s>(&self, shown: &'s Shown, leaf: Option<&Leaf>) -> Option<&'s SharedBlock> {
        let (id, page) = (shown.file.id, shown.page);
        let Some(leaf) = leaf else { return shown.own.as_ref() };
        assert_eq!(leaf.is_borrowed(), !shown.shared && shown.own.is_none(), "{shown:?}: {leaf:x?}");
        if shown.own.is_none() {
            assert_eq!(self.machine.shelf().frame(id, page), Some(leaf.frame()), "not page {page} of the object");
            let expected = !leaf.is_writable() || self.machine.shelf().expects_writes(id, page);
            assert!(expected, "page {page} can be written, and the object does not know");
        }
        shown.own.as_ref()
    }

    /// What objects have in memory, and how many show them.
    pub(super) fn check_files(&self, mut add: impl FnMut(Pfn, SharedBlock)) {
        for file in &self.files {
            for page in 0..OBJECT_PAGES {
                let (block, frame) = (file.block(page), self.machine.shelf().frame(file.id, page));
                match (block, frame) {
                    (Some(block), Some(frame)) => add(frame, block),
                    (Some(block), None) => assert!(!block.borrow().written, "page {page} was lost"),
                    (None, frame) => assert_eq!(frame, None, "page {page} was cut off"),
                }
            }
            let shows = |backing: &Backing| matches!(backing, Backing::Object(shown) if Rc::ptr_eq(&shown.file, file));
            let mappings = self.processes.iter().flat_map(|(_, reference)| reference.mappings());
            let showing = mappings.filter(|(_, mapping)| shows(&mapping.backing)).count();
            assert_eq!(self.machine.shelf().mapped_pages(file.id), showing as u64, "who shows {:?}", file.id);
        }
    }

    pub(super) fn set_length(&mut self, file: usize, length: u32) -> Effect {
        let file = self.files[file].clone();
        self.machine.cut(file.id, length);
        self.forget(&file, length..u32::MAX, Copies::Forget);
        self.machine.shelf().grow(file.id, length);
        file.set_length(length);
        Effect::Anything
    }

    pub(super) fn punch(&mut self, file: usize, page: u32) -> Effect {
        let file = self.files[file].clone();
        self.machine.punch(file.id, page);
        self.forget(&file, page..page + 1, Copies::Keep);
        if let Some(block) = file.pages.borrow_mut().get_mut(page as usize) {
            *block = Block::filled(first_byte(page));
        }
        Effect::Anything
    }

    /// Every process is told that the object has given these pages up.
    fn forget(&mut self, file: &Rc<File>, pages: Range<u32>, copies: Copies) {
        for who in 0..self.processes.len() {
            let result = self.processes[who].0.forget_object(file.id, pages.clone(), copies);
            let goes = |shown: &Shown| Rc::ptr_eq(&shown.file, file) && pages.contains(&shown.page);
            let goes = |shown: &Shown| goes(shown) && (copies == Copies::Forget || shown.own.is_none());
            let mut wanted = Taken::default();
            for (first, mapping) in self.processes[who].1.mappings() {
                if matches!(&mapping.backing, Backing::Object(shown) if goes(shown)) {
                    wanted.append(self.taken(who, &(first..first + 1), |_| true));
                }
            }
            assert_eq!(Taken::from(result.unwrap()), wanted);
            let gone = self.processes[who].1.shown_mut().filter(|(_, shown)| goes(shown));
            gone.for_each(|(_, shown)| shown.own = None);
        }
    }

    pub(super) fn write_back(&mut self, file: usize) -> Effect {
        let file = self.files[file].clone();
        (0..file.length()).for_each(|page| self.write_back_page(&file, page));
        Effect::Anything
    }

    /// While it goes on nobody writes; what was written before is noted.
    fn write_back_page(&self, file: &File, page: u32) {
        let Some(frame) = self.machine.shelf().frame(file.id, page) else { return };
        let pinned = self.seen.word(frame).is_some_and(|word| word.pins != 0);
        let was_dirty = match self.machine.begin_writeback(file.id, page) {
            Ok(was_dirty) => was_dirty,
            Err(error) => return assert!(pinned && error == CountError::Pinned, "{error:?}"),
        };
        assert!(!pinned, "a pinned page was closed");
        for (process, _) in &self.processes {
            process.write_protect_object(file.id, page..page + 1).unwrap();
        }
        let block = file.block(page).expect("a page that there is");
        let noted = was_dirty || self.machine.word(frame).snapshot().dirty;
        assert!(noted || !block.borrow().written, "page {page} was written, and nobody knows");
        _ = self.machine.word(frame).take_dirty();
        self.machine.end_writeback(file.id, page);
        block.borrow_mut().written = false;
    }

    pub(super) fn delay(&mut self, lookups: u64) -> Effect {
        self.machine.shelf().delay(lookups);
        Effect::Nothing
    }

    pub(super) fn pin_object(&mut self, who: usize, file: usize, pages: Range<u32>, wanted: &Acquire) -> Effect {
        let file = self.files[file].clone();
        let budget = self.processes[who].0.budget().clone();
        let result = if wanted.write {
            self.pin_object_for::<Write>(&budget, file.id, pages.clone(), wanted)
                .map(|(raw, runs, stopped)| (Raw::Write(raw), runs, stopped))
        } else {
            self.pin_object_for::<Read>(&budget, file.id, pages.clone(), wanted)
                .map(|(raw, runs, stopped)| (Raw::Read(raw), runs, stopped))
        };
        let reference = &self.processes[who].1;
        let refused = match pages.len() as u64 {
            _ if !PinFlags::LONGTERM.contains(wanted.flags) => Some(PinError::InvalidFlags),
            0 => Some(PinError::Range(RangeError::Empty)),
            length if self.limited() && reference.charged + length > self.pin_limit => Some(PinError::BudgetExceeded),
            _ => None,
        };
        if let Some(error) = refused {
            assert_eq!(result.err(), Some(error));
            return Effect::Nothing;
        }
        let dma = self.judge_object_pins(&file, pages, wanted, &result);
        let Ok((raw, runs, _)) = result else { return Effect::Anything };
        let reference = &mut self.processes[who].1;
        reference.charged += cost(&runs);
        self.pins.push(Dma { raw, pages: dma, owner: reference.id, budget });
        Effect::Anything
    }

    fn pin_object_for<X: PinAccess>(
        &self,
        budget: &Arc<PinLimit>,
        id: ObjectId,
        pages: Range<u32>,
        wanted: &Acquire,
    ) -> Acquired<RawPins<X, Vec<PhysRun>>> {
        let owner = Owner::new(self.machine, budget.clone());
        let pins = pin_object_pages(owner, X::default(), id, pages, wanted.flags, runs(wanted.buffer))?;
        let (runs, stopped) = (pins.runs().to_vec(), pins.stopped().map(|stopped| stopped.reason));
        Ok((pins.into_raw(), runs, stopped))
    }

    /// The pages that were pinned, with their bytes; and why there are no more.
    fn judge_object_pins<T>(
        &self,
        file: &File,
        mut pages: Range<u32>,
        wanted: &Acquire,
        result: &Acquired<T>,
    ) -> Vec<(Pfn, Bytes)> {
        let (runs, stopped) = match result {
            Ok((_, runs, stopped)) => (&runs[..], *stopped),
            Err(error) => (&[][..], Some(*error)),
        };
        assert!(runs.windows(2).all(|pair| !continues(&pair[0], &pair[1])), "one run would do: {runs:?}");
        let pinned = frames(runs).map(|frame| {
            let page = pages.next().expect("more pages than were asked for");
            assert_eq!(self.machine.shelf().frame(file.id, page), Some(frame));
            assert_eq!(self.conflict(frame, wanted, true), None, "{frame:?} is held otherwise");
            let expected = !wanted.write || self.machine.shelf().expects_writes(file.id, page);
            assert!(expected, "a device writes page {page}, and the object does not know");
            (frame, Bytes { block: file.block(page).expect("a page that there is") })
        });
        let pinned: Vec<_> = pinned.collect();
        let next = pages.next();
        assert!(pinned.is_empty() || !wanted.is_written_back_of(file), "for long, and written back");
        let held = || self.conflict(self.machine.shelf().frame(file.id, next?)?, wanted, true);
        match stopped {
            None => assert_eq!(next, None),
            Some(PinError::WrittenBack) => assert!(wanted.is_written_back_of(file) && next.is_some()),
            Some(PinError::PastEnd) => assert!(next.is_some_and(|page| page >= file.length())),
            Some(PinError::BufferTooSmall) => assert_eq!(runs.len(), wanted.buffer),
            Some(PinError::NoMemory) => assert!(self.starved()),
            Some(PinError::NotReady(READING)) => assert!(self.delayed()),
            Some(reason) => assert_eq!(held(), Some(reason)),
        }
        pinned
    }
}
