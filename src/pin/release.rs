//! Giving pins and references back: no locks, no allocation, callable from interrupt context.
//!
//! The guards ([`Pinned`](super::Pinned), [`PinnedRange`](super::PinnedRange), [`GotPages`](super::GotPages)) release
//! themselves. The functions here are for what left a guard through `into_raw` and comes back from a foreign ABI.

use super::pinned::ledger;
use super::{PhysRun, PinAccess, RawGets, RawPins, RunBuffer};
use crate::addr::Pfn;
use crate::env::{Counted, Env, FrameTable, PinBudget, PinLedger, Ticket, count, release, release_block};
use crate::frame::{Dirty, Layout, PageFrame};

/// Unpins frames in few instructions each; stops at the first that needs [`release_carefully`], or at the end.
#[inline(never)]
fn unpin_mapped<L: Layout, const DIRTY: bool>(frames: &[PageFrame<L>]) -> usize {
    frames.iter().position(|frame| !frame.word.unpin_mapped(Dirty::when(DIRTY))).unwrap_or(frames.len())
}

/// Any release: the last reference among them.
#[inline(never)]
fn release_carefully<K: Env, const PIN: bool>(env: &K, pfn: Pfn, frame: &PageFrame<impl Layout>, dirty: Dirty) {
    let outcome = if PIN { frame.word.unpin(dirty) } else { frame.word.put_user() };
    release(env, pfn, outcome);
}

/// Gives back what a run holds: one count per frame, or per large leaf.
#[inline(always)]
pub(crate) fn release_run<K: Env, const PIN: bool>(env: &K, run: &PhysRun, dirty: Dirty) {
    if !(PIN && unpin_one_page(env.frames(), run, dirty)) {
        release_pages::<K, PIN>(env, run, dirty);
    }
}

/// The same for more than one page, or with care.
#[inline(never)]
fn release_pages<K: Env, const PIN: bool>(env: &K, run: &PhysRun, dirty: Dirty) {
    let base_pages = if run.is_of_base_pages() { env.frames().run(run.first(), run.pages()) } else { None };
    if let Some(frames) = base_pages {
        let mut next = 0;
        while let Some(rest) = frames.get(next..).filter(|rest| !rest.is_empty()) {
            if PIN {
                next += match dirty {
                    Dirty::No => unpin_mapped::<_, false>(rest),
                    Dirty::Yes => unpin_mapped::<_, true>(rest),
                };
            }
            if let Some(frame) = frames.get(next) {
                release_carefully::<K, PIN>(env, run.first().offset(next as u64), frame, dirty);
                next += 1;
            }
        }
        return;
    }
    match PIN && run.is_sole() {
        false => release_heads::<K, PIN>(env, run, dirty),
        true => release_sole(env, run, dirty),
    }
}

/// Gives back a run that holds all pins of each frame.
#[cold]
#[inline(never)]
fn release_sole<K: Env>(env: &K, run: &PhysRun, dirty: Dirty) {
    for head in run.heads() {
        release_block(env, head, run.order(), |word| word.unpin_sole_of_block(dirty));
    }
}

/// As [`release_run`], asking the frame table for each word.
#[inline(never)]
fn release_heads<K: Env, const PIN: bool>(env: &K, run: &PhysRun, dirty: Dirty) {
    for head in run.heads() {
        match env.frames().frame(head) {
            Some(frame) if PIN && frame.word.unpin_mapped_of(dirty, run.order()) => {}
            _ if PIN => release_block(env, head, run.order(), |word| word.unpin_of_block(dirty)),
            _ => release_block(env, head, run.order(), |word| word.put_user_of_block()),
        }
    }
}

/// Gives back every run and counts them.
#[inline(always)]
pub(super) fn release_runs<K: Env, const PIN: bool>(env: &K, runs: &[PhysRun], dirty: Dirty) {
    let pages = match runs {
        [run] => {
            release_run::<K, PIN>(env, run, dirty);
            run.pages()
        }
        _ => release_many::<K, PIN>(env, runs, dirty),
    };
    count(env, Counted::released(PIN), pages);
}

/// Gives back every run, and says how many pages they were.
#[inline(never)]
fn release_many<K: Env, const PIN: bool>(env: &K, runs: &[PhysRun], dirty: Dirty) -> u64 {
    let (mut next, mut pages) = (0, 0);
    while let Some(rest) = runs.get(next..).filter(|rest| !rest.is_empty()) {
        if PIN {
            let unpinned = match dirty {
                Dirty::No => unpin_single_pages::<_, false>(env.frames(), rest),
                Dirty::Yes => unpin_single_pages::<_, true>(env.frames(), rest),
            };
            next += unpinned;
            pages += unpinned as u64;
        }
        if let Some(run) = runs.get(next) {
            pages += run.pages();
            release_run::<K, PIN>(env, run, dirty);
            next += 1;
        }
    }
    pages
}

/// [`unpin_mapped`] for runs of one page each; stops at the first that is none, or that needs a careful release.
///
/// Outlined: see `take_entries` of the walker. The table's fields stay in registers across the loop only if the table is an argument.
#[inline(never)]
fn unpin_single_pages<F: FrameTable, const DIRTY: bool>(frames: &F, runs: &[PhysRun]) -> usize {
    runs.iter().position(|run| !unpin_one_page(frames, run, Dirty::when(DIRTY))).unwrap_or(runs.len())
}

/// Unpins a run of one page, if it is one and takes no care. False: nothing was changed.
#[inline(always)]
fn unpin_one_page<F: FrameTable>(frames: &F, run: &PhysRun, dirty: Dirty) -> bool {
    run.is_one_base_page() && frames.frame(run.first()).is_some_and(|frame| frame.word.unpin_mapped(dirty))
}

/// Unpins what the runs hold: Linux's `unpin_user_page`, `unpin_user_page_range` and their `_dirty` forms.
///
/// The charge on a budget, if there is one, stays the caller's business ([`PhysRun::held_pages`]). A ledger finds no ticket: a record that has these frames
/// is *orphaned*, and says so.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// let pinned = pin_user_pages(&space, Write, space.range(0x10000, 1)?, PinFlags::empty(), [PhysRun::default(); 1])?;
/// let raw = pinned.into_raw();
/// // SAFETY: the pin left its guard above.
/// unsafe { unpin_user_runs(&kernel, raw.runs(), Dirty::Yes) };
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Safety
/// The caller owns the pins that the runs stand for, taken through the same kernel.
pub unsafe fn unpin_user_runs<K: Env>(kernel: &K, runs: &[PhysRun], dirty: Dirty) {
    runs.iter().for_each(|run| ledger(kernel).released_by_number(*run));
    release_runs::<K, true>(kernel, runs, dirty);
}

/// Unpins what [`Pinned::into_raw`](super::Pinned::into_raw) gave away, and uncharges `budget`: Linux's
/// `unpin_user_pages` and `unpin_user_pages_dirty_lock`. What was pinned for reading is never marked dirty.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// let pinned = pin_user_pages(&space, Write, space.range(0x10000, 1)?, PinFlags::empty(), [PhysRun::default(); 1])?;
/// let raw = pinned.into_raw();
/// // SAFETY: pinned through this kernel.
/// let buffer = unsafe { unpin_user_pages(&&kernel, &Unlimited, raw, Dirty::Yes) };
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Safety
/// The pins were taken through the same kernel.
pub unsafe fn unpin_user_pages<K: Env, A: PinAccess, B: RunBuffer>(
    kernel: &K,
    budget: &(impl PinBudget + ?Sized),
    pins: RawPins<A, B, Ticket<K>>,
    dirty: Dirty,
) -> B {
    ledger(kernel).forget(pins.ticket);
    release_runs::<K, true>(kernel, pins.runs(), if A::WRITES { dirty } else { Dirty::No });
    budget.uncharge(pins.charged_pages(), pins.flags().term());
    pins.collected.buffer
}

/// Gives back what [`GotPages::into_raw`](super::GotPages::into_raw) gave away.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// let got = get_user_pages(&space, Read, space.range(0x10000, 1)?, PinFlags::empty(), [PhysRun::default(); 1])?;
/// // SAFETY: taken through this kernel.
/// unsafe { put_user_pages(&kernel, got.into_raw()) };
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Safety
/// The references were taken through the same kernel.
pub unsafe fn put_user_pages<K: Env, B: RunBuffer>(kernel: &K, gets: RawGets<B>) {
    release_runs::<K, false>(kernel, gets.runs(), Dirty::No);
}
