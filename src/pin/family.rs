//! The calls: one acquisition, in its forms.

#![forbid(unsafe_code)]

use super::collected::{Acquired, Collected};
use super::pinned::ledger;
use super::release::release_run;
use super::run::Runs;
use super::walk::{Stop, Walk};
use super::{GotPages, PhysRun, PinAccess, PinError, PinFlags, Pinned, PinnedPages, RawPins, RunBuffer};
use crate::addr::{PageAddr, RangeError, UserRange};
use crate::arch::{Demand, KeyRights};
use crate::env::{
    AddressSpace, Counted, Env, ExtraParts, FrameTable, PinBudget, PinLedger, PinRecord, ReadSide, Vmas, count,
};
use crate::fault::{self, Request};
use crate::frame::{Dirty, Layout};
use crate::rights::{Access, Rights};
use crate::vma::Vma;

/// Which paths a form takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    Fast,
    FastThenSlow,
    Slow,
}

/// What an acquisition asks for. Passed by value, so that the fast path needs none of it in memory.
struct Wanted<'a, S: ?Sized> {
    space: &'a S,
    range: UserRange,
    flags: PinFlags,
    keys: KeyRights,
}

/// A page is faulted in at most this often before the call gives up as contended. Under the mm lock one fault is
/// enough; more means that the kernel's own VMAs are changing.
const MAX_FAULTS_PER_PAGE: u32 = 16;

impl<S: ?Sized> Clone for Wanted<'_, S> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: ?Sized> Copy for Wanted<'_, S> {}

impl<'a, S: AddressSpace + ?Sized> Wanted<'a, S> {
    #[inline(always)]
    fn env(&self) -> &'a S::Kernel {
        self.space.mm().env()
    }

    /// The whole range, if that is one page or lies in one large leaf.
    #[inline(always)]
    fn acquire_one_run<A: PinAccess, const PIN: bool>(self, path: Path, buffer: &mut [PhysRun]) -> Option<Acquired> {
        let place = buffer.first_mut().filter(|_| path != Path::Slow)?;
        let run = if A::WRITES { self.acquire_one_leaf::<true, PIN>() } else { self.acquire_one_leaf::<false, PIN>() }?;
        *place = run;
        count(self.env(), Counted::acquired(PIN), run.pages());
        Some(Acquired { runs: 1, pages: run.pages(), stopped: None })
    }

    /// The whole range in any number of runs, without locks as far as that is possible and wanted.
    #[inline(always)]
    fn acquire<A: PinAccess, const PIN: bool>(self, path: Path, buffer: &mut [PhysRun]) -> Acquired {
        let mut runs = Runs::new(buffer);
        let fast = match path {
            Path::Slow => Some(Stop::Unready),
            _ if A::WRITES => self.acquire_fast::<true, PIN>(&mut runs),
            _ => self.acquire_fast::<false, PIN>(&mut runs),
        };
        let stopped = match fast {
            // Whoever changes the page may be done by the time that the slow path looks.
            Some(Stop::Contended) if path == Path::Fast => Some(PinError::WouldFault),
            Some(stop) if path == Path::Fast || stop == Stop::Full => Some(stop.into()),
            Some(_) => self.acquire_slow::<A, PIN>(&mut runs),
            None => None,
        };
        count(self.env(), Counted::acquired(PIN), runs.pages());
        Acquired { runs: runs.used(), pages: runs.pages(), stopped }
    }

    #[inline(always)]
    fn acquire_one_leaf<const WRITE: bool, const PIN: bool>(self) -> Option<PhysRun> {
        let walk = Walk::<S::Kernel, WRITE> { mm: self.space.mm(), demand: Demand::new(self.keys) };
        let _inside = self.env().read_side().enter();
        walk.one_leaf::<PIN>(self.range.first_page(), self.range.end_page())
    }

    #[inline(never)]
    fn acquire_fast<const WRITE: bool, const PIN: bool>(self, runs: &mut Runs<'_>) -> Option<Stop> {
        self.walk::<WRITE, PIN>(self.range.end_page(), runs)
    }

    /// Collects what is present up to `end`, beginning at the first missing page.
    #[inline(always)]
    fn walk<const WRITE: bool, const PIN: bool>(&self, end: PageAddr, runs: &mut Runs<'_>) -> Option<Stop> {
        let walk = Walk::<S::Kernel, WRITE> { mm: self.space.mm(), demand: Demand::new(self.keys) };
        let first = self.range.first_page();
        loop {
            let inside = self.env().read_side().enter();
            let stop = walk.run::<PIN>(first.offset(runs.pages()), end, runs);
            drop(inside);
            if stop.is_some() || first.offset(runs.pages()) >= end {
                return stop;
            }
        }
    }

    #[inline(never)]
    fn acquire_slow<A: PinAccess, const PIN: bool>(self, runs: &mut Runs<'_>) -> Option<PinError> {
        while runs.pages() < self.range.pages() {
            let page = self.range.first_page().offset(runs.pages());
            let mut stopped = Some(PinError::NoVma);
            let look = &mut |vmas: &dyn Vmas| stopped = self.acquire_in_vma::<A, PIN>(vmas, page, runs).err();
            if let Err(reentered) = self.space.with_vma_at(page, look) {
                return Some(reentered.into());
            }
            if stopped.is_some() {
                return stopped;
            }
        }
        None
    }

    /// As [`Wanted::acquire_slow`], with all pins of each frame. An ordinary pin makes each page ready, and is given back before
    /// the sole one is tried.
    #[cold]
    #[inline(never)]
    fn acquire_alone<A: PinAccess>(self, runs: &mut Runs<'_>) -> Option<PinError> {
        let (first, end) = (self.range.first_page(), self.range.end_page());
        let mut attempts = (first, 0);
        while runs.pages() < self.range.pages() {
            let page = first.offset(runs.pages());
            attempts = if attempts.0 == page { (page, attempts.1 + 1) } else { (page, 1) };
            if attempts.1 > MAX_FAULTS_PER_PAGE {
                return Some(PinError::Contended);
            }
            if !self.flags.contains(PinFlags::NOFAULT) {
                let (mut ready, one) = ([PhysRun::default()], UserRange::of_pages(page, page.offset(1)));
                let one_page = Wanted { range: one, flags: PinFlags::empty(), ..self };
                if let Some(error) = one_page.acquire_slow::<A, true>(&mut Runs::new(&mut ready)) {
                    return Some(error);
                }
                release_run::<S::Kernel, true>(self.env(), ready[0], Dirty::No);
            }
            // The mm need not be one that runs, so its VMA keeps the tables.
            let mut stop = None;
            let look = &mut |_: &dyn Vmas| {
                let _inside = self.env().read_side().enter();
                let (mm, keys) = (self.space.mm(), self.keys);
                stop = match A::WRITES {
                    true => Walk::<_, true> { mm, demand: Demand::new(keys) }.leaf_alone(page, end, runs),
                    false => Walk::<_, false> { mm, demand: Demand::new(keys) }.leaf_alone(page, end, runs),
                };
            };
            if let Err(reentered) = self.space.with_vma_at(page, look) {
                return Some(reentered.into());
            }
            match stop {
                // Unready since it was made ready: once more.
                None => {}
                Some(Stop::Unready | Stop::Raced) if !self.flags.contains(PinFlags::NOFAULT) => {}
                Some(stop) => return Some(stop.into()),
            }
        }
        None
    }

    /// What of the range lies in the VMA of `page`, its first missing one.
    fn acquire_in_vma<A: PinAccess, const PIN: bool>(
        &self,
        vmas: &dyn Vmas,
        page: PageAddr,
        runs: &mut Runs<'_>,
    ) -> Result<(), PinError> {
        let vma = vmas.vma_at(page).ok_or(PinError::NoVma)?;
        let end = vma.end().min(self.range.end_page());
        let request = self.request::<A>(&vma)?;
        match request {
            Request::Write => self.acquire_pages::<true, PIN>(vmas, &vma, end, request, runs),
            // A forced write takes a page that is read-only for user code; the pin itself insists on EXCLUSIVE.
            _ => self.acquire_pages::<false, PIN>(vmas, &vma, end, request, runs),
        }
    }

    /// The pages up to `end`, all in `vma`, which permits `request`.
    fn acquire_pages<const WRITE: bool, const PIN: bool>(
        &self,
        vmas: &dyn Vmas,
        vma: &Vma,
        end: PageAddr,
        request: Request,
        runs: &mut Runs<'_>,
    ) -> Result<(), PinError> {
        let first = self.range.first_page();
        let mut faults = (first, 0);
        loop {
            let Some(stop) = self.walk::<WRITE, PIN>(end, runs) else { return Ok(()) };
            let a_fault_mends_it = matches!(stop, Stop::Unready | Stop::Raced);
            if !a_fault_mends_it || self.flags.contains(PinFlags::NOFAULT) {
                return Err(stop.into());
            }
            let page = first.offset(runs.pages());
            faults = if faults.0 == page { (page, faults.1 + 1) } else { (page, 1) };
            if faults.1 > MAX_FAULTS_PER_PAGE {
                return Err(PinError::Contended);
            }
            self.make_ready(vmas, vma, page, request)?;
        }
    }

    /// A fault on `page` by the pin itself.
    #[inline(always)]
    fn make_ready(&self, vmas: &dyn Vmas, vma: &Vma, page: PageAddr, request: Request) -> Result<(), PinError> {
        let (mm, access) = (self.space.mm(), if request == Request::Unshare { Access::Read } else { Access::Write });
        vmas.make_ready(page, access).map_err(PinError::NotReady)?;
        // Spelled out, so that each is compiled for its one request.
        match request {
            Request::Write => fault::resolve(mm, vma, page, Request::Write)?,
            Request::Unshare => fault::resolve(mm, vma, page, Request::Unshare)?,
            other => fault::resolve(mm, vma, page, other)?,
        };
        Ok(())
    }

    /// What is asked of the pages of `vma`, if it permits that.
    fn request<A: PinAccess>(&self, vma: &Vma) -> Result<Request, PinError> {
        if !self.keys.permits(vma.key(), A::WRITES) {
            return Err(PinError::ProtectionKey);
        }
        let request = match A::WRITES {
            true if vma.rights().contains(Rights::WRITE) => Request::Write,
            true if self.flags.contains(PinFlags::FORCE) => Request::ForcedWrite,
            true => return Err(PinError::AccessDenied),
            // A read pin must see what its mm writes later; a plain reference need not, but the zero frame, which
            // is never counted, cannot be given to either.
            false => Request::Unshare,
        };
        // Asked here, because a page that is already there never reaches the fault handler.
        if !fault::permits(vma, request) {
            return Err(PinError::AccessDenied);
        }
        if vma.backing().is_foreign() { Err(PinError::NotPinnable) } else { Ok(request) }
    }
}

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
        return Ok(recorded::<S, A, B>(space, flags, Collected { buffer, range, acquired }));
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
    if !alone {
        return pin_many(wanted, path, buffer);
    }
    let mut runs = Runs::new(buffer.as_mut());
    let stopped = wanted.acquire_alone::<A>(&mut runs);
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
    let (budget, pages) = (space.budget(), range.pages());
    if acquired.pages < pages {
        budget.uncharge(pages - acquired.pages, flags.term());
    }
    match acquired {
        Acquired { pages: 0, stopped: Some(reason), .. } => Err(reason),
        _ => Ok(recorded::<S, A, B>(space, flags, Collected { buffer, range, acquired })),
    }
}

/// Pins what is missing, under the mm lock, into the rest of the buffer.
fn resume<S: AddressSpace + ?Sized, A: PinAccess, B: RunBuffer>(
    pins: PinnedPages<'_, S, A, B>,
    keys: KeyRights,
) -> PinnedPages<'_, S, A, B> {
    let (space, RawPins { collected: Collected { mut buffer, range, acquired }, flags, ticket, .. }) =
        pins.into_parts();
    let before = acquired.pages;
    let (budget, missing) = (space.budget(), range.pages() - acquired.pages);
    let acquired = if let Err(error) = budget.charge(missing, flags.term()) {
        Acquired { stopped: Some(error.into()), ..acquired }
    } else {
        let mut runs = Runs::resumed(buffer.as_mut(), acquired.runs, acquired.pages);
        let wanted = Wanted { space, range, flags, keys };
        let stopped = match flags.contains(PinFlags::SOLE) {
            false => wanted.acquire_slow::<A, true>(&mut runs),
            true => wanted.acquire_alone::<A>(&mut runs),
        };
        let gained = runs.pages() - acquired.pages;
        count(space.mm().env(), Counted::acquired(true), gained);
        budget.uncharge(missing - gained, flags.term());
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
    let record = PinRecord { space: root, tag, range, runs, writes: A::WRITES, term: flags.term() };
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
    /// protection keys do not apply. Always under that mm's lock: a lockless walk is only safe in a running mm.
    pin_user_pages_remote,
    /// References the pages of `range` in another address space.
    get_user_pages_remote: Path::Slow, |_| KeyRights::ALLOW_ALL;
}
