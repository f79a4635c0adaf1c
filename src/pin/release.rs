//! Giving pins and references back: no locks, no allocation, callable from interrupt context.
//!
//! The guards ([`PinnedPages`](super::PinnedPages), [`PinnedRange`](super::PinnedRange), [`GotPages`](super::GotPages))
//! release themselves. The functions here are for runs that left a guard through `into_raw` and come back from a
//! completion interrupt or a foreign ABI; they do not uncharge a budget, since who took the runs took the charge over.

use super::{Access, PhysRun, RawGets, RawPins, RunBuffer};
use crate::addr::Pfn;
use crate::env::{Env, FrameTable, release};
use crate::frame::{Dirty, Layout, PageFrame};

/// Unpins frames in few instructions each; stops at the first that needs [`release_carefully`], or at the end.
#[inline(never)]
fn unpin_mapped<L: Layout, const DIRTY: bool>(frames: &[PageFrame<L>]) -> usize {
    frames.iter().position(|frame| !frame.unpin_mapped(Dirty::when(DIRTY))).unwrap_or(frames.len())
}

/// Any release: the last reference among them.
#[inline(never)]
fn release_carefully<K: Env, const PIN: bool>(env: &K, pfn: Pfn, frame: &PageFrame<impl Layout>, dirty: Dirty) {
    let outcome = if PIN { frame.unpin(dirty) } else { frame.put_mapping(dirty) };
    release(env, pfn, outcome);
}

/// Gives back what a run holds: one count per frame, or per large leaf.
#[inline(always)]
pub(crate) fn release_run<K: Env, const PIN: bool>(env: &K, run: PhysRun, dirty: Dirty) {
    if PIN
        && (run.pages(), run.order()) == (1, 0)
        && env.frames().frame(run.first()).is_some_and(|frame| frame.unpin_mapped(dirty))
    {
        return;
    }
    if run.order() == 0
        && let Some(frames) = env.frames().run(run.first(), run.pages())
    {
        let mut next = 0;
        while let Some(rest) = frames.get(next..)
            && !rest.is_empty()
        {
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
    release_heads::<K, PIN>(env, run, dirty);
}

/// As [`release_run`], asking the frame table for each word.
#[inline(never)]
fn release_heads<K: Env, const PIN: bool>(env: &K, run: PhysRun, dirty: Dirty) {
    for head in run.heads() {
        match env.frames().frame(head) {
            Some(frame) if PIN && frame.unpin_mapped(dirty) => {}
            Some(frame) => release_carefully::<K, PIN>(env, head, frame, dirty),
            None => env.counters().bug_caught(),
        }
    }
}

/// Gives back every run and counts them.
#[inline]
pub(super) fn release_runs<K: Env, const PIN: bool>(env: &K, runs: &[PhysRun], dirty: Dirty) {
    let mut pages = 0;
    for run in runs {
        pages += run.pages();
        release_run::<K, PIN>(env, *run, dirty);
    }
    env.counters().released(PIN, pages);
}

/// Unpins one page that was pinned as a base page.
///
/// # Safety
/// The caller owns one pin on `frame`, taken through the same kernel.
pub unsafe fn unpin_user_page<K: Env>(env: &K, frame: Pfn) {
    release_runs::<K, true>(env, &[PhysRun::from_parts(frame, 1, 0)], Dirty::No);
}

/// As [`unpin_user_page`], and notes that the page was written.
///
/// # Safety
/// As [`unpin_user_page`].
pub unsafe fn unpin_user_page_dirty<K: Env>(env: &K, frame: Pfn) {
    release_runs::<K, true>(env, &[PhysRun::from_parts(frame, 1, 0)], Dirty::Yes);
}

/// Unpins `pages` consecutive frames from `first` that were pinned as base pages.
///
/// # Safety
/// The caller owns one pin on each, taken through the same kernel.
pub unsafe fn unpin_user_page_range<K: Env>(env: &K, first: Pfn, pages: u32) {
    release_runs::<K, true>(env, &[PhysRun::from_parts(first, pages, 0)], Dirty::No);
}

/// As [`unpin_user_page_range`], and notes that the pages were written.
///
/// # Safety
/// As [`unpin_user_page_range`].
pub unsafe fn unpin_user_page_range_dirty<K: Env>(env: &K, first: Pfn, pages: u32) {
    release_runs::<K, true>(env, &[PhysRun::from_parts(first, pages, 0)], Dirty::Yes);
}

/// Unpins what a run of any leaf size holds.
///
/// # Safety
/// The caller owns the pins that the run stands for, taken through the same kernel.
pub unsafe fn unpin_user_run<K: Env>(env: &K, run: PhysRun) {
    release_runs::<K, true>(env, &[run], Dirty::No);
}

/// As [`unpin_user_run`], and notes that the pages were written.
///
/// # Safety
/// As [`unpin_user_run`].
pub unsafe fn unpin_user_run_dirty<K: Env>(env: &K, run: PhysRun) {
    release_runs::<K, true>(env, &[run], Dirty::Yes);
}

/// Unpins what [`PinnedPages::into_raw`](super::PinnedPages::into_raw) gave away. Pages pinned for writing are marked
/// dirty.
///
/// # Safety
/// The pins were taken through the same kernel.
pub unsafe fn unpin_user_pages<K: Env, A: Access, B: RunBuffer>(env: &K, pins: RawPins<A, B>) {
    release_runs::<K, true>(env, pins.runs(), Dirty::when(A::WRITES));
}

/// As [`unpin_user_pages`]; `dirty` tells whether the device did write.
///
/// # Safety
/// As [`unpin_user_pages`].
pub unsafe fn unpin_user_pages_dirty<K: Env, B: RunBuffer>(env: &K, pins: RawPins<super::Write, B>, dirty: bool) {
    release_runs::<K, true>(env, pins.runs(), Dirty::when(dirty));
}

/// Gives back what [`GotPages::into_raw`](super::GotPages::into_raw) gave away.
///
/// # Safety
/// The references were taken through the same kernel.
pub unsafe fn put_user_pages<K: Env, B: RunBuffer>(env: &K, gets: RawGets<B>) {
    release_runs::<K, false>(env, gets.runs(), Dirty::No);
}
