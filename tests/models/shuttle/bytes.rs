//! What the pages of an mm hold, kept beside the library.
//!
//! Shuttle runs one thread at a time and changes over only before an access to one of its atomics. So what is noted
//! here right after the access, by ordinary means, is noted in the same moment, and is exact: whatever a fork, a copy or
//! a flush is doing just then, a page holds what its mm wrote last (INV-11).
//!
//! In every page each CPU has a word of its own, into which it writes ever larger numbers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::checker::WORDS;

/// Pages 1 to 3 stay mapped: what they hold is known.
pub(crate) const QUIET: std::ops::RangeInclusive<u64> = 1..=3;
/// One of them may move, in the scenario of every kind of page: what is at its other address is it, too.
pub(crate) const MOVES: u64 = 3;
pub(crate) const MOVED_TO: u64 = 515;
/// These come and go, with the table that maps them: it is known whose they are.
pub(crate) const NOISY: std::ops::RangeInclusive<u64> = 513..=514;

pub(crate) const WRONG: &str = "INV-11: a page does not hold what its mm wrote last";
pub(crate) const FOREIGN: &str = "a page holds what another process wrote";
pub(crate) const NEVER_WAS: &str = "a child has a page that its parent did not have during the fork";
pub(crate) const FREED: &str = "a freed frame was used";
/// How an access by a stale translation shows: by what it reads or writes, or by where.
pub(crate) const STALE: &[&str] = &[WRONG, FOREIGN, NEVER_WAS, FREED];
pub(crate) const FROZEN: &str = "a page was written after the right to write was taken away";

type Words = [[u64; WORDS]; 3];

/// The contents of one mm, which outlive it while a page is pinned.
pub(crate) struct Bytes {
    /// Whose they are: an mm and all that were forked off it.
    family: u64,
    quiet: Mutex<Words>,
    /// Nobody may write.
    frozen: AtomicBool,
}

impl Bytes {
    /// Those of the first mm of a family.
    pub(crate) fn new(family: u64) -> Self {
        Self { family, quiet: Mutex::new(Words::default()), frozen: AtomicBool::new(false) }
    }

    fn quiet(&self) -> MutexGuard<'_, Words> {
        self.quiet.lock().expect("a model ends at its first panic")
    }

    /// A number larger than all before, which says whose it is.
    pub(crate) fn next_value(&self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        (self.family << 48) + NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// `value` has just been written to `word` of `page`.
    pub(crate) fn wrote(&self, page: u64, word: usize, value: u64) {
        assert!(!self.frozen.load(Ordering::Relaxed), "{FROZEN}");
        if let Some(index) = known(page) {
            self.quiet()[index][word] = value;
        }
    }

    /// `found` was read from `page`, which this mm has or had.
    pub(crate) fn check_owner(&self, page: u64, found: u64) {
        assert!(found == 0 || found >> 48 == self.family, "{FOREIGN}: {found:#x} in page {page}");
    }

    /// `found` has just been read from `word` of `page`.
    pub(crate) fn check(&self, page: u64, word: usize, found: u64) {
        self.check_owner(page, found);
        if let Some(index) = known(page) {
            let wrote = self.quiet()[index][word];
            assert!(found == wrote, "{WRONG}: word {word} of page {page} is {found:#x}, not {wrote:#x}");
        }
    }

    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::Relaxed);
    }

    /// Runs `fork`, and notes what the child that it returns has, of which `load` tells: for each word something that
    /// the parent had meanwhile. From now on nobody but the child changes it.
    pub(crate) fn across<C>(
        &self,
        fork: impl FnOnce() -> Option<C>,
        load: impl Fn(&C, u64, usize) -> u64,
    ) -> Option<(C, Self)> {
        let before = *self.quiet();
        let child = fork()?;
        let after = *self.quiet();
        let bytes = Self::new(self.family);
        for (index, page) in QUIET.enumerate() {
            for word in 0..WORDS {
                let (least, most) = (before[index][word], after[index][word]);
                let found = load(&child, page, word);
                assert!((least..=most).contains(&found), "{NEVER_WAS}: {found:#x} in page {page}");
                bytes.quiet()[index][word] = found;
            }
        }
        Some((child, bytes))
    }
}

/// Which of the pages whose contents are known it is.
fn known(page: u64) -> Option<usize> {
    let page = if page == MOVED_TO { MOVES } else { page };
    QUIET.contains(&page).then(|| (page - QUIET.start()) as usize)
}
