//! One thread: random operations on address spaces that all threads share, and on children of its own.

use std::sync::atomic::Ordering;
use std::thread;

use pagepin::Access;
use pagepin::fault::{Fault, FaultError};
use pagepin::frame::{Dirty, Layout};
use pagepin::pin::{self, PhysRun, PinError, PinFlags, RawPins, Read, Write};
use pagepin::space::{SpaceError, SpaceOptions, UserSpace};
use pagepin::{AddressSpace, Env, PAGE_SIZE, Pfn, ReadSide, Rights, Unlimited, UserRange};

use crate::kernel::{Kernel, THREADS, run_as_cpu};
use crate::kit::Root;
use crate::marks::{MARKED_PAGES, Marks};

/// Pages that stay mapped: their contents are known.
const QUIET: u64 = 0x7f_1220_0000;
/// Pages that come and go, with tables of their own.
const NOISY: u64 = 0x7f_1260_0000;
/// What the table of the noisy pages spans.
const NOISY_SPAN: u64 = 0x20_0000;
const NOISY_PAGES: u64 = 6;
const MAX_CHILDREN: usize = 2;
const MAX_HELD: usize = 6;
const RW: Rights = Rights::READ.union(Rights::WRITE);

/// An address space and what its quiet pages hold.
pub(crate) struct Space<'k, L: Layout, R: ReadSide + Sync> {
    space: UserSpace<&'k Kernel<'k, L, R>>,
    marks: Marks,
}

impl<'k, L: Layout, R: ReadSide + Sync> Space<'k, L, R> {
    pub(crate) fn new(kernel: &'k Kernel<'k, L, R>) -> Self {
        let space = UserSpace::new(kernel, SpaceOptions::without_kernel_half(pagepin::Levels::Four)).unwrap();
        space.map(QUIET, MARKED_PAGES as u64 * PAGE_SIZE, RW).unwrap();
        space.map(NOISY, NOISY_PAGES * PAGE_SIZE, RW).unwrap();
        Self { space, marks: Marks::default() }
    }

    pub(crate) fn root(&self) -> Root {
        Root { table: self.space.root(), levels: self.space.mm().levels() }
    }

    pub(crate) fn fork(&self) -> Self {
        let (space, marks) = self.marks.across(|| self.space.fork().unwrap());
        Self { space, marks }
    }
}

/// A page that stays pinned for a while, as if a device worked with it.
struct Held {
    pins: RawPins<Write, Vec<PhysRun>>,
    /// What this thread wrote into its word.
    value: u64,
    /// The shared address space and the quiet page that it is.
    place: Option<(usize, usize)>,
}

pub(crate) struct Worker<'w, 'k, L: Layout, R: ReadSide + Sync> {
    kernel: &'k Kernel<'k, L, R>,
    shared: &'w [Space<'k, L, R>],
    children: Vec<Space<'k, L, R>>,
    held: Vec<Held>,
    index: usize,
    random: u64,
    value: u64,
}

impl<'w, 'k, L: Layout, R: ReadSide + Sync> Worker<'w, 'k, L, R> {
    pub(crate) fn new(kernel: &'k Kernel<'k, L, R>, shared: &'w [Space<'k, L, R>], index: usize, seed: u64) -> Self {
        run_as_cpu(index);
        let random = seed ^ (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { kernel, shared, children: Vec::new(), held: Vec::new(), index, random, value: 0 }
    }

    /// A number below `end` (SplitMix64).
    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// One operation.
    pub(crate) fn step(&mut self) {
        // The children are taken out, so that they can be used while the rest of `self` changes.
        let children = std::mem::take(&mut self.children);
        let place = self.below((self.shared.len() + children.len()) as u64) as usize;
        let shared = place < self.shared.len();
        let space = if shared { &self.shared[place] } else { &children[place - self.shared.len()] };
        let mut born = None;
        match self.below(32) {
            0..6 => self.mark(space, shared.then_some(place)),
            6..12 => self.look(space),
            12..17 => self.scribble(space),
            17..20 => self.reference(space),
            20..23 => self.fault(space),
            23..25 => born = Some(space.fork()),
            25 => self.protect(space),
            26 => drop(space.space.discard(NOISY + self.below(NOISY_PAGES) * PAGE_SIZE, 2 * PAGE_SIZE).unwrap()),
            27..29 => self.remap(space),
            29 => self.write_through_held(),
            _ => self.release_one(),
        }
        self.children = children;
        self.children.extend(born);
        if self.children.len() > MAX_CHILDREN {
            let oldest = self.below(self.children.len() as u64) as usize;
            drop(self.children.swap_remove(oldest));
        }
    }

    /// Pins a quiet page for writing and writes into this thread's word of it.
    fn mark(&mut self, space: &Space<'k, L, R>, shared: Option<usize>) {
        let page = self.below(MARKED_PAGES as u64);
        let range = pages(space, QUIET + page * PAGE_SIZE, 1);
        let flags = PinFlags::empty();
        let pins = match pin::pin_user_pages_fast(&space.space, Write, range, flags, vec![PhysRun::default(); 1]) {
            Ok(pins) => pins.into_raw(),
            Err(error) => return expected(error),
        };
        let page = page as usize;
        let word = self.kernel.phys_map().word(pins.runs()[0].first(), self.index);
        space.marks.check(page, self.index, word);
        self.value += 1;
        space.marks.write(page, self.index, word, self.value);
        self.hold(pins, shared.map(|space| (space, page)));
    }

    /// Reads all words of some quiet pages through a read pin.
    fn look(&mut self, space: &Space<'k, L, R>) {
        let first = self.below(MARKED_PAGES as u64);
        let count = 1 + self.below(MARKED_PAGES as u64 - first);
        let range = pages(space, QUIET + first * PAGE_SIZE, count);
        let (flags, runs) = (PinFlags::empty(), vec![PhysRun::default(); MARKED_PAGES]);
        let pins = if self.below(4) == 0 {
            pin::pin_user_pages_fast_only(&space.space, Read, range, flags, runs)
        } else {
            pin::pin_user_pages_fast(&space.space, Read, range, flags, runs)
        };
        match pins {
            Ok(pins) => {
                for (page, frame) in (first as usize..).zip(frames(pins.runs())) {
                    for thread in 0..THREADS {
                        space.marks.check(page, thread, self.kernel.phys_map().word(frame, thread));
                    }
                }
            }
            Err(error) => expected(error),
        }
    }

    /// Pins noisy pages and writes into them; the frames stay this thread's until unpinned, whatever the others do.
    fn scribble(&mut self, space: &Space<'k, L, R>) {
        let range = self.some_noisy_pages(space);
        let runs = vec![PhysRun::default(); NOISY_PAGES as usize];
        let flags = PinFlags::empty();
        match pin::pin_user_pages_fast(&space.space, Write, range, flags, runs) {
            Ok(pins) => {
                let pins = pins.into_raw();
                self.value += 1;
                for frame in frames(pins.runs()) {
                    self.kernel.phys_map().word(frame, self.index).store(self.value, Ordering::Relaxed);
                }
                self.hold(pins, None);
            }
            Err(error) => expected(error),
        }
    }

    /// References pages and reads them: no promise but that they stay allocated.
    fn reference(&mut self, space: &Space<'k, L, R>) {
        let range = self.some_noisy_pages(space);
        let (flags, runs) = (PinFlags::empty(), vec![PhysRun::default(); NOISY_PAGES as usize]);
        match pin::get_user_pages_fast(&space.space, Read, range, flags, runs) {
            Ok(gets) => {
                for frame in frames(gets.runs()) {
                    let poison = u64::from_ne_bytes([0xde; 8]);
                    let found = self.kernel.phys_map().word(frame, self.index).load(Ordering::Relaxed);
                    assert_ne!(found, poison, "{frame:?} was freed while it was referenced");
                }
            }
            Err(error) => expected(error),
        }
    }

    fn fault(&mut self, space: &Space<'k, L, R>) {
        let quiet = self.below(2) == 0;
        let (base, count) = if quiet { (QUIET, MARKED_PAGES as u64) } else { (NOISY, NOISY_PAGES) };
        let address = base + self.below(count) * PAGE_SIZE;
        let access = if self.below(2) == 0 { Access::Read } else { Access::Write };
        let result = space.space.fault(Fault { address, access, key_denied: false, malformed_table: false });
        assert!(matches!(result, Ok(_) | Err(FaultError::NoVma | FaultError::AccessDenied)), "{result:?}");
    }

    /// Takes rights of the quiet pages away, or gives them back.
    fn protect(&mut self, space: &Space<'k, L, R>) {
        let first = self.below(MARKED_PAGES as u64);
        let start = QUIET + first * PAGE_SIZE;
        let rights = [RW, RW, Rights::READ, Rights::empty()][self.below(4) as usize];
        space.space.protect(start, PAGE_SIZE, rights).unwrap();
        if rights != RW {
            thread::yield_now();
            space.space.protect(start, PAGE_SIZE, RW).unwrap();
        }
    }

    /// Unmaps the noisy pages, which frees their table, and maps some anew.
    fn remap(&mut self, space: &Space<'k, L, R>) {
        let _ = space.space.unmap(NOISY, NOISY_SPAN).unwrap();
        let pages = 1 + self.below(NOISY_PAGES);
        let result = space.space.map(NOISY, pages * PAGE_SIZE, RW);
        assert!(matches!(result, Ok(()) | Err(SpaceError::Overlap)), "{result:?}");
    }

    fn some_noisy_pages(&mut self, space: &Space<'k, L, R>) -> UserRange {
        let first = self.below(NOISY_PAGES);
        let count = 1 + self.below(NOISY_PAGES - first);
        pages(space, NOISY + first * PAGE_SIZE, count)
    }

    fn hold(&mut self, pins: RawPins<Write, Vec<PhysRun>>, place: Option<(usize, usize)>) {
        self.held.push(Held { pins, value: self.value, place });
        if self.held.len() > MAX_HELD || self.below(2) == 0 {
            self.release_one();
        }
    }

    /// A pinned page is still the page that was pinned: in its frame and, if that stays mapped, for its address space.
    fn write_through_held(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let choice = self.below(self.held.len() as u64) as usize;
        // A page that is held twice has the later of its numbers.
        if let Some((space, page)) = self.held[choice].place {
            let word = self.kernel.phys_map().word(self.held[choice].pins.runs()[0].first(), self.index);
            self.shared[space].marks.check(page, self.index, word);
            self.value += 1;
            self.shared[space].marks.write(page, self.index, word, self.value);
        }
    }

    fn release_one(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let choice = self.below(self.held.len() as u64) as usize;
        let held = self.held.swap_remove(choice);
        for frame in frames(held.pins.runs()) {
            let found = self.kernel.phys_map().word(frame, self.index).load(Ordering::Relaxed);
            let possible = (held.value..=self.value).contains(&found);
            assert!(possible, "{frame:?} was pinned and holds {found:#x} instead of {:#x} or more", held.value);
        }
        // SAFETY: pinned through this kernel, and given back once.
        unsafe { pin::unpin_user_pages(self.kernel, &Unlimited, held.pins, Dirty::Yes) };
    }

    /// Gives everything back.
    pub(crate) fn finish(mut self) {
        while !self.held.is_empty() {
            self.release_one();
        }
    }
}

fn pages<L: Layout, R: ReadSide + Sync>(space: &Space<'_, L, R>, start: u64, count: u64) -> UserRange {
    space.space.range(start, count * PAGE_SIZE).unwrap()
}

fn frames(runs: &[PhysRun]) -> impl Iterator<Item = Pfn> {
    runs.iter().flat_map(|run| run.first().number()..run.end().number()).map(Pfn::new)
}

/// What other threads can cause.
fn expected(error: PinError) {
    let others = matches!(error, PinError::NoVma | PinError::AccessDenied | PinError::WouldFault | PinError::Contended);
    assert!(others, "{error:?}");
}
