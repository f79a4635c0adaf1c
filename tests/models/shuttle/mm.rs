//! One mm as a process has it: what its threads do, each on a CPU of its own.

use std::sync::Arc;

use pagepin::Access;
use pagepin::fault::FaultError;
use pagepin::space::{ForkError, SpaceError, SpaceOptions, UserSpace};
use pagepin::{CurrentCpu, Rights};
use shuttle::rand::{Rng, thread_rng};

use super::bytes::{Bytes, MOVED_TO, MOVES, NOISY, QUIET};
use super::checker::WORDS;
use super::kernel::{Kernel, PAGE, Side, ThisCpu};

pub(crate) const RW: Rights = Rights::READ.union(Rights::WRITE);

/// A number below `end`, from the schedule.
pub(crate) fn below(end: u64) -> u64 {
    thread_rng().gen_range(0..end)
}

/// Where `pages` begin, and how long they are.
pub(crate) fn extent(pages: std::ops::RangeInclusive<u64>) -> (u64, u64) {
    (pages.start() * PAGE, (pages.end() - pages.start() + 1) * PAGE)
}

pub(crate) struct Mm<R: Side> {
    pub(crate) kernel: &'static Kernel<R>,
    pub(crate) space: UserSpace<&'static Kernel<R>>,
    pub(crate) bytes: Arc<Bytes>,
    one_moves: bool,
}

impl<R: Side> Mm<R> {
    /// The first of `family`.
    pub(crate) fn new(kernel: &'static Kernel<R>, family: u64) -> Arc<Self> {
        Self::first(kernel, family, false)
    }

    /// The same, and one of its quiet pages may move.
    pub(crate) fn with_page_that_moves(kernel: &'static Kernel<R>, family: u64) -> Arc<Self> {
        Self::first(kernel, family, true)
    }

    fn first(kernel: &'static Kernel<R>, family: u64, one_moves: bool) -> Arc<Self> {
        let space = UserSpace::new(kernel, SpaceOptions::without_kernel_half(pagepin::Levels::Four))
            .expect("memory for a root");
        for pages in [QUIET, NOISY] {
            let (start, length) = extent(pages);
            space.map(start, length, RW).expect("an empty space");
        }
        Arc::new(Self { kernel, space, bytes: Arc::new(Bytes::new(family)), one_moves })
    }

    /// User code writes to `page`, if it may.
    pub(crate) fn write(&self, page: u64) {
        let cpu = ThisCpu.current_cpu();
        expected(self.kernel.access(&self.space, page, Access::Write, |frame| {
            let value = self.bytes.next_value();
            self.kernel.memory.store(frame, cpu, value);
            self.bytes.wrote(page, cpu, value);
        }));
    }

    /// User code reads all of `page`, if it may.
    pub(crate) fn read(&self, page: u64) {
        expected(self.kernel.access(&self.space, page, Access::Read, |frame| {
            for word in 0..WORDS {
                self.bytes.check(page, word, self.kernel.memory.load(frame, word));
            }
        }));
    }

    /// User code writes to `page` or reads it.
    pub(crate) fn touch(&self, page: u64) {
        if below(2) == 0 { self.write(page) } else { self.read(page) }
    }

    /// A child. `None`: out of memory.
    pub(crate) fn fork(&self) -> Option<Arc<Self>> {
        let Self { kernel, one_moves, .. } = *self;
        let fork = || match self.space.fork() {
            Ok(child) => Some(child),
            Err(error) => {
                assert_eq!(error, ForkError::NoMemory);
                None
            }
        };
        let load = |child: &_, page, word| holds(kernel, child, one_moves, page, word);
        let (space, bytes) = self.bytes.across(fork, load)?;
        Some(Arc::new(Self { kernel, space, bytes: Arc::new(bytes), one_moves }))
    }

    pub(crate) fn protect(&self, pages: std::ops::RangeInclusive<u64>, rights: Rights) {
        let (start, length) = extent(pages);
        match self.space.protect(start, length, rights) {
            Ok(()) | Err(SpaceError::NoVma) => {}
            Err(error) => panic!("protect: {error}"),
        }
    }

    /// The noisy pages go, and their table with them.
    pub(crate) fn unmap_noisy(&self) {
        let (start, length) = extent(NOISY);
        self.space.unmap(start, length).expect("whole pages");
    }

    /// They come back, empty, unless another thread was faster.
    pub(crate) fn map_noisy(&self) {
        let (start, length) = extent(NOISY);
        match self.space.map(start, length, RW) {
            Ok(()) | Err(SpaceError::Overlap) => {}
            Err(error) => panic!("map: {error}"),
        }
    }

    /// What there is of `pages` goes to slots, as far as there are some.
    pub(crate) fn swap_out(&self, pages: std::ops::RangeInclusive<u64>) {
        let (start, length) = extent(pages);
        match self.space.swap_out(start, length) {
            Ok(_) | Err(SpaceError::NoSlot) => {}
            Err(error) => panic!("swap-out: {error}"),
        }
    }

    pub(crate) fn discard_noisy(&self) {
        let (start, length) = extent(NOISY);
        self.space.discard(start, length).expect("whole pages");
    }

    /// Every quiet page holds what it should, wherever it is.
    pub(crate) fn check(&self) {
        for page in QUIET {
            for word in 0..WORDS {
                self.bytes.check(page, word, holds(self.kernel, &self.space, self.one_moves, page, word));
            }
        }
    }
}

/// What a word of a quiet page holds, wherever the page is. Nobody else uses the address space.
fn holds<R: Side>(
    kernel: &Kernel<R>,
    space: &UserSpace<&'static Kernel<R>>,
    one_moves: bool,
    page: u64,
    word: usize,
) -> u64 {
    let moved = || kernel.memory.walk(space.root(), MOVED_TO).is_some_and(|entry| !entry.is_empty());
    kernel.holds(space, if one_moves && page == MOVES && moved() { MOVED_TO } else { page }, word)
}

/// Faults that the scenarios bring about: a page that is not mapped just now, not writable, or not in the file, or no memory.
fn expected(result: Result<(), FaultError>) {
    match result {
        Ok(()) | Err(FaultError::NoVma | FaultError::AccessDenied | FaultError::NoMemory | FaultError::PastEnd) => {}
        Err(error) => panic!("a fault: {error}"),
    }
}
