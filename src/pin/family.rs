//! The calls: one acquisition, in its forms.

#![forbid(unsafe_code)]

use super::acquire::{Path, Wanted, end_runs};
use super::collected::{Acquired, Collected};
use super::pinned::ledger;
use super::release::{release_run, release_runs};
use super::run::Runs;
use super::{GotPages, PinAccess, PinError, PinFlags, Pinned, PinnedPages, RawPins, RunBuffer};
use crate::addr::{RangeError, UserRange};
use crate::arch::KeyRights;
use crate::env::{AddressSpace, BudgetExceeded, Counted, Env, ExtraParts, FrameTable, PinBudget};
use crate::env::{PinLedger, PinRecord, PinTerm, Through, count};
use crate::frame::{Dirty, Layout};

/// Refuses a range that this address space has no page of.
#[inline(always)]
fn check_range<S: AddressSpace + ?Sized>(space: &S, range: UserRange) -> Result<(), RangeError> {
    // It may have been checked against another one, with more levels: a walk would reach an alias.
    if range.end() > space.mm().levels().user_half().end() { Err(RangeError::NonCanonical) } else { Ok(()) }
}

#[inline(always)]
fn pin<S: AddressSpace + ?Sized, A: PinAccess, B: RunBuffer>(
    wanted: Wanted<'_, S>,
    path: Path,
    mut buffer: B,
) -> Result<PinnedPages<'_, S, A, B>, PinError> {
    let Wanted { space, range, flags, .. } = wanted;
    if !flags.are_usual() {
        return pin_unusual(wanted, path, buffer);
    }
    check_range(space, range)?;
    let (budget, pages) = (space.budget(), range.pages());
    budget.charge(pages, flags.term())?;
    // Returned from here, so that the usual result is not put together in memory first.
    if let Some(acquired) = wanted.acquire_one_run::<A, true>(path, buffer.as_mut()) {
        return paid::<S, A, B>(space, flags, pages, Collected { buffer, range, acquired });
    }
    if path == Path::Slow { pin_slow(wanted, buffer) } else { pin_many(wanted, path, buffer) }
}

/// Outlined: where a caller has fast and slow forms, the registers are for the fast one.
#[inline(never)]
fn pin_slow<S: AddressSpace + ?Sized, A: PinAccess, B: RunBuffer>(
    wanted: Wanted<'_, S>,
    buffer: B,
) -> Result<PinnedPages<'_, S, A, B>, PinError> {
    pin_many(wanted, Path::Slow, buffer)
}

/// The rest of [`pin`]: any number of runs, charged for.
#[inline(always)]
fn pin_many<S: AddressSpace + ?Sized, A: PinAccess, B: RunBuffer>(
    wanted: Wanted<'_, S>,
    path: Path,
    mut buffer: B,
) -> Result<PinnedPages<'_, S, A, B>, PinError> {
    let acquired = wanted.acquire::<A, true>(path, buffer.as_mut());
    pinned(wanted, buffer, acquired)
}

/// With flags that are checked, or that have a path of their own.
#[cold]
#[inline(never)]
fn pin_unusual<S: AddressSpace + ?Sized, A: PinAccess, B: RunBuffer>(
    wanted: Wanted<'_, S>,
    path: Path,
    mut buffer: B,
) -> Result<PinnedPages<'_, S, A, B>, PinError> {
    let Wanted { space, range, flags, .. } = wanted;
    flags.check(true, A::WRITES, path != Path::Fast)?;
    let alone = flags.contains(PinFlags::SOLE);
    if alone && !<<S::Kernel as Env>::Frames as FrameTable>::Layout::HAS_SOLE {
        return Err(PinError::NoSole);
    }
    check_range(space, range)?;
    space.budget().charge(range.pages(), flags.term())?;
    let mut runs = Runs::new(buffer.as_mut());
    let stopped = match flags {
        _ if alone => wanted.acquire_alone::<A>(&mut runs),
        _ if wanted.is_for_long() => wanted.acquire_for_long::<A>(path, &mut runs),
        _ => return pin_many(wanted, path, buffer),
    };
    let stopped = end_runs::<_, true>(wanted.env(), &mut runs, stopped);
    count(wanted.env(), Counted::acquired(true), runs.pages());
    let acquired = Acquired { runs: runs.used(), pages: runs.pages(), stopped };
    pinned(wanted, buffer, acquired)
}

/// What an acquisition came to that all of its range was charged for.
#[inline(always)]
fn pinned<S: AddressSpace + ?Sized, A: PinAccess, B: RunBuffer>(
    wanted: Wanted<'_, S>,
    buffer: B,
    acquired: Acquired,
) -> Result<PinnedPages<'_, S, A, B>, PinError> {
    let Wanted { space, range, flags, .. } = wanted;
    match acquired {
        Acquired { pages: 0, stopped: Some(reason), .. } => {
            space.budget().uncharge(range.pages(), flags.term());
            Err(reason)
        }
        _ => paid::<S, A, B>(space, flags, range.pages(), Collected { buffer, range, acquired }),
    }
}

/// A guard of what was pinned after `charged` base pages were charged for it, if the budget has enough for what is held.
#[inline(always)]
fn paid<S: AddressSpace + ?Sized, A: PinAccess, B: RunBuffer>(
    space: &S,
    flags: PinFlags,
    charged: u64,
    collected: Collected<B>,
) -> Result<PinnedPages<'_, S, A, B>, PinError> {
    if let Err(error) = settle(space.budget(), flags.term(), charged, collected.held_pages()) {
        release_runs::<S::Kernel, true>(space.mm().env(), collected.runs(), Dirty::No);
        space.budget().uncharge(charged, flags.term());
        return Err(error.into());
    }
    Ok(recorded::<S, A, B>(space, flags, collected))
}

/// Makes the charge for an acquisition, which was for the pages asked for, one for the pages held: large leaves cost more, and pages
/// that are missing cost nothing. How large the leaves are is known only now.
#[inline(always)]
fn settle(budget: &impl PinBudget, term: PinTerm, charged: u64, held: u64) -> Result<(), BudgetExceeded> {
    if held > charged {
        return budget.charge(held - charged, term);
    }
    if held < charged {
        budget.uncharge(charged - held, term);
    }
    Ok(())
}

/// Pins what is missing, under the mm lock, into the rest of the buffer.
fn resume<S: AddressSpace + ?Sized, A: PinAccess, B: RunBuffer>(
    pins: PinnedPages<'_, S, A, B>,
    keys: KeyRights,
) -> PinnedPages<'_, S, A, B> {
    let (space, RawPins { collected: Collected { mut buffer, range, acquired }, flags, ticket, .. }) =
        pins.into_parts();
    let before = acquired.pages;
    let (env, budget, missing) = (space.mm().env(), space.budget(), range.pages() - acquired.pages);
    let acquired = if let Err(error) = budget.charge(missing, flags.term()) {
        Acquired { stopped: Some(error.into()), ..acquired }
    } else {
        let mut runs = Runs::resumed(buffer.as_mut(), acquired.runs, acquired.pages);
        let held = runs.held_pages();
        let wanted = Wanted { space, range, flags, keys };
        let stopped = match flags {
            _ if flags.contains(PinFlags::SOLE) => wanted.acquire_alone::<A>(&mut runs),
            _ if wanted.is_for_long() => wanted.acquire_slow::<A, true, true>(&mut runs),
            _ => wanted.acquire_slow::<A, true, false>(&mut runs),
        };
        let mut stopped = end_runs::<_, true>(env, &mut runs, stopped);
        if let Err(error) = settle(budget, flags.term(), missing, runs.held_pages() - held) {
            runs.roll_back(before, |run| release_run::<S::Kernel, true>(env, &run, Dirty::No));
            budget.uncharge(missing, flags.term());
            stopped = Some(error.into());
        }
        count(env, Counted::acquired(true), runs.pages() - before);
        Acquired { runs: runs.used(), pages: runs.pages(), stopped }
    };
    let collected = Collected { buffer, range, acquired };
    if acquired.pages == before {
        return Pinned::new(space, flags, collected, ticket);
    }
    ledger(space.mm().env()).forget(ticket);
    recorded::<S, A, B>(space, flags, collected)
}

/// A guard of what was pinned, which the kernel's ledger is told of.
#[inline(always)]
fn recorded<S: AddressSpace + ?Sized, A: PinAccess, B: RunBuffer>(
    space: &S,
    flags: PinFlags,
    collected: Collected<B>,
) -> PinnedPages<'_, S, A, B> {
    let ledger = ledger(space.mm().env());
    let (root, range) = (space.mm().root(), collected.range);
    let tag = if keeps_ledger::<S::Kernel>() { space.tag() } else { 0 };
    let runs = if keeps_ledger::<S::Kernel>() { collected.runs() } else { &[] };
    let record = PinRecord { through: Through::space(root), tag, range, runs, access: A::ACCESS, term: flags.term() };
    let ticket = ledger.record(&record);
    Pinned::new(space, flags, collected, ticket)
}

const fn keeps_ledger<K: Env>() -> bool {
    <<K::Extras as ExtraParts>::Ledger as PinLedger>::KEEPS
}

impl<S: AddressSpace + ?Sized, A: PinAccess, B: RunBuffer> PinnedPages<'_, S, A, B> {
    /// Goes on at the first page that is missing, as [`pin_user_pages`] does, into the rest of the buffer. What is pinned
    /// stays pinned, so each attempt can only gain pages: after [`PinError::NotReady`], wait for what it names and resume;
    /// after [`PinError::WouldFault`] of a form that never faults, resume where faults are possible.
    ///
    /// ```
    /// # use pagepin::{AddressSpace, NotReady, UserRange, pin::*};
    /// # fn example<S: AddressSpace>(space: &S, range: UserRange, wait: impl Fn(NotReady)) -> Result<(), PinError> {
    /// let mut pins = loop {
    ///     match pin_user_pages_fast(space, Write, range, PinFlags::empty(), [PhysRun::default(); 8]) {
    ///         Err(PinError::NotReady(what)) => wait(what), // the first page: nothing is pinned yet
    ///         result => break result?,
    ///     }
    /// };
    /// while let Some(Stopped { reason: PinError::NotReady(what), .. }) = pins.stopped() {
    ///     wait(what);
    ///     pins = pins.resume();
    /// }
    /// let pinned = pins.complete()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "dropping it unpins the pages at once"]
    pub fn resume(self) -> Self {
        let keys = self.lender().key_rights();
        resume(self, keys)
    }

    /// As [`resume`](Self::resume), for pins of [`pin_user_pages_remote`]: the caller's protection keys do not apply.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
    /// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
    /// let range = space.range(0x10000, 0x2000)?;
    /// let pins = pin_user_pages_remote(&space, Read, range, PinFlags::empty(), [PhysRun::default(); 2])?;
    /// assert_eq!(pins.resume_remote().pages(), 2); // nothing was missing
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "dropping it unpins the pages at once"]
    pub fn resume_remote(self) -> Self {
        resume(self, KeyRights::ALLOW_ALL)
    }
}

fn get<S: AddressSpace + ?Sized, A: PinAccess, B: RunBuffer>(
    wanted: Wanted<'_, S>,
    path: Path,
    mut buffer: B,
) -> Result<GotPages<'_, S::Kernel, B>, PinError> {
    wanted.flags.check(false, A::WRITES, path != Path::Fast)?;
    check_range(wanted.space, wanted.range)?;
    let one = wanted.acquire_one_run::<A, false>(path, buffer.as_mut());
    match one.unwrap_or_else(|| wanted.acquire::<A, false>(path, buffer.as_mut())) {
        Acquired { pages: 0, stopped: Some(reason), .. } => Err(reason),
        acquired => Ok(GotPages::new(wanted.env(), Collected { buffer, range: wanted.range, acquired })),
    }
}

macro_rules! family {
    ($(
        $(#[$doc:meta])*
        $pin:ident, $(#[$get_doc:meta])* $get:ident: $path:expr, $keys:expr;
    )*) => {$(
        $(#[$doc])*
        ///
        /// On success at least one page is pinned, from the start of `range` on; [`stopped`](Pinned::stopped) says whether and
        /// why there are fewer than asked for.
        ///
        /// # Errors
        /// [`PinError`]: nothing is pinned. Pages that were faulted in stay with the mm.
        #[inline]
        pub fn $pin<S: AddressSpace + ?Sized, A: PinAccess, B: RunBuffer>(
            space: &S,
            _access: A,
            range: UserRange,
            flags: PinFlags,
            buffer: B,
        ) -> Result<PinnedPages<'_, S, A, B>, PinError> {
            let keys: fn(&S) -> KeyRights = $keys;
            pin(Wanted { space, range, flags, keys: keys(space) }, $path, buffer)
        }

        $(#[$get_doc])*
        ///
        /// # Errors
        /// [`PinError`]: nothing is referenced.
        pub fn $get<S: AddressSpace + ?Sized, A: PinAccess, B: RunBuffer>(
            space: &S,
            _access: A,
            range: UserRange,
            flags: PinFlags,
            buffer: B,
        ) -> Result<GotPages<'_, S::Kernel, B>, PinError> {
            let keys: fn(&S) -> KeyRights = $keys;
            get::<S, A, B>(Wanted { space, range, flags, keys: keys(space) }, $path, buffer)
        }
    )*};
}

family! {
    /// Pins the pages of `range` in the caller's address space, faulting them in as needed, under the mm lock.
    pin_user_pages,
    /// References the pages of `range`, faulting them in as needed, under the mm lock: [`pin_user_pages`] without the
    /// promise.
    get_user_pages: Path::Slow, S::key_rights;

    /// Pins the pages of `range` in the caller's address space: without locks as far as the pages are present and this
    /// mm's own, then as [`pin_user_pages`] for the rest.
    pin_user_pages_fast,
    /// References the pages of `range`: without locks as far as they are present, then as [`get_user_pages`].
    get_user_pages_fast: Path::FastThenSlow, S::key_rights;

    /// Pins what of `range` can be pinned without a fault, a lock or a sleep: from interrupt context, too, if the read
    /// side can be entered there. What needs more stops it with [`PinError::WouldFault`].
    pin_user_pages_fast_only,
    /// References what of `range` can be referenced without a fault, a lock or a sleep.
    get_user_pages_fast_only: Path::Fast, S::key_rights;

    /// Pins the pages of `range` in another address space (a debugger, a device that serves several mms). The caller's
    /// protection keys do not apply. Under that mm's lock, as on Linux. Not for safety: the [`ReadSide`](crate::ReadSide) covers
    /// every CPU that walks, whatever address space it has loaded.
    pin_user_pages_remote,
    /// References the pages of `range` in another address space.
    get_user_pages_remote: Path::Slow, |_| KeyRights::ALLOW_ALL;
}
