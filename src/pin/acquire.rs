//! [`Wanted`]: the pages of one call, collected without locks and, for what needs it, by faults under the mm lock.

#![forbid(unsafe_code)]

use super::collected::Acquired;
use super::long_term::Moves;
use super::release::release_run;
use super::run::Runs;
use super::walk::{Stop, Walk};
use super::{PhysRun, PinAccess, PinError, PinFlags};
use crate::addr::{PageAddr, UserRange};
use crate::arch::{Demand, KeyRights};
use crate::env::{AddressSpace, Counted, DeviceFrames, Env, ExtraParts, Objects, ReadSide, Vmas, count};
use crate::fault::{self, FaultError, FaultOutcome, Request, Unresolved};
use crate::frame::Dirty;
use crate::rights::Rights;
use crate::vma::{Backing, Vma};

/// The drivers that own frames.
type DevicesOf<K> = <<K as Env>::Extras as ExtraParts>::DeviceFrames;

/// Which paths a form takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    Fast,
    FastThenSlow,
    Slow,
}

/// What an acquisition asks for. Passed by value, so that the fast path needs none of it in memory.
pub(super) struct Wanted<'a, S: ?Sized> {
    pub(super) space: &'a S,
    pub(super) range: UserRange,
    pub(super) flags: PinFlags,
    pub(super) keys: KeyRights,
}

/// A page is faulted in at most this often before the call gives up as contended. Under the mm lock one fault is
/// enough; more means that the kernel's own VMAs are changing.
pub(super) const MAX_FAULTS_PER_PAGE: u32 = 16;

/// With so many pages, and what the last walk or batch of copies had beyond, a slow acquisition leaves the mm lock and takes it again:
/// others wait for no more than it takes to clear or to copy them.
const MOST_PAGES_PER_SECTION: u64 = 512;

impl<S: ?Sized> Clone for Wanted<'_, S> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: ?Sized> Copy for Wanted<'_, S> {}

/// Ends the runs of what was collected where owners of frames do. What has no room then is given back.
#[inline(always)]
pub(super) fn end_runs<K: Env, const PIN: bool>(
    env: &K,
    runs: &mut Runs<'_>,
    stopped: Option<PinError>,
) -> Option<PinError> {
    if DevicesOf::<K>::EXIST && !end_where_owners_do::<K, PIN>(env, runs) {
        return Some(PinError::BufferTooSmall);
    }
    stopped
}

#[cold]
fn end_where_owners_do<K: Env, const PIN: bool>(env: &K, runs: &mut Runs<'_>) -> bool {
    let devices = env.extras().device_frames();
    let of_one = |run: &PhysRun| devices.of_one_owner(run.first(), run.pages());
    runs.split(of_one, |run| release_run::<K, PIN>(env, &run, Dirty::No))
}

impl<'a, S: AddressSpace + ?Sized> Wanted<'a, S> {
    #[inline(always)]
    pub(super) fn is_for_long(&self) -> bool {
        self.flags.contains(PinFlags::LONGTERM)
    }

    #[inline(always)]
    pub(super) fn env(&self) -> &'a S::Kernel {
        self.space.mm().env()
    }

    /// The whole range, if that is one page or lies in one large leaf.
    #[inline(always)]
    pub(super) fn acquire_one_run<A: PinAccess, const PIN: bool>(
        self,
        path: Path,
        buffer: &mut [PhysRun],
    ) -> Option<Acquired> {
        let place = buffer.first_mut().filter(|_| path != Path::Slow)?;
        let (first, end) = (self.range.first_page(), self.range.end_page());
        let run = match A::WRITES {
            true => self.acquire_one_leaf::<true, PIN>(first, end),
            false => self.acquire_one_leaf::<false, PIN>(first, end),
        }?;
        *place = run;
        count(self.env(), Counted::acquired(PIN), run.pages());
        Some(Acquired { runs: 1, pages: run.pages(), stopped: None })
    }

    /// The whole range in any number of runs, without locks as far as that is possible and wanted.
    #[inline(always)]
    pub(super) fn acquire<A: PinAccess, const PIN: bool>(self, path: Path, buffer: &mut [PhysRun]) -> Acquired {
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
            Some(_) => self.acquire_slow::<A, PIN, false>(&mut runs),
            None => None,
        };
        let stopped = end_runs::<S::Kernel, PIN>(self.env(), &mut runs, stopped);
        count(self.env(), Counted::acquired(PIN), runs.pages());
        Acquired { runs: runs.used(), pages: runs.pages(), stopped }
    }

    #[inline(always)]
    fn acquire_one_leaf<const WRITE: bool, const PIN: bool>(&self, first: PageAddr, end: PageAddr) -> Option<PhysRun> {
        let walk = Walk::<S::Kernel, WRITE> { mm: self.space.mm(), demand: Demand::new(self.keys) };
        let _inside = self.env().read_side().enter();
        walk.one_leaf::<PIN>(first, end)
    }

    #[inline(never)]
    pub(super) fn acquire_fast<const WRITE: bool, const PIN: bool>(self, runs: &mut Runs<'_>) -> Option<Stop> {
        self.walk::<WRITE, PIN>(self.range.end_page(), runs, |_| true)
    }

    /// Collects what is present up to `end`, beginning at the first missing page, as long as it `runs_on`.
    #[inline(always)]
    fn walk<const WRITE: bool, const PIN: bool>(
        &self,
        end: PageAddr,
        runs: &mut Runs<'_>,
        runs_on: impl Fn(&Runs<'_>) -> bool,
    ) -> Option<Stop> {
        let walk = Walk::<S::Kernel, WRITE> { mm: self.space.mm(), demand: Demand::new(self.keys) };
        let first = self.range.first_page();
        loop {
            let inside = self.env().read_side().enter();
            let stop = walk.run::<PIN>(first.offset(runs.pages()), end, runs);
            drop(inside);
            if stop.is_some() || first.offset(runs.pages()) >= end || !runs_on(runs) {
                return stop;
            }
        }
    }

    /// Under the mm lock, faulting in what is missing; `LONG`: in frames that may stay. (Told apart at compile time, since one page a
    /// call is not much more than this function's own instructions.)
    #[inline(never)]
    pub(super) fn acquire_slow<A: PinAccess, const PIN: bool, const LONG: bool>(
        self,
        runs: &mut Runs<'_>,
    ) -> Option<PinError> {
        let mut moves = Moves::default();
        while runs.pages() < self.range.pages() {
            let page = self.range.first_page().offset(runs.pages());
            let mut stopped = Some(PinError::NoVma);
            let look = &mut |vmas: &dyn Vmas| {
                stopped = self.acquire_in_vma::<A, PIN, LONG>(vmas, page, runs).err();
                if LONG {
                    stopped = self.move_what_may_not_stay(vmas, page, runs, &mut moves, stopped);
                }
            };
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
    pub(super) fn acquire_alone<A: PinAccess>(self, runs: &mut Runs<'_>) -> Option<PinError> {
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
                let one_page = Wanted { range: one, flags: self.flags.intersection(PinFlags::LONGTERM), ..self };
                let runs = &mut Runs::new(&mut ready);
                let stopped = match self.is_for_long() {
                    false => one_page.acquire_slow::<A, true, false>(runs),
                    true => one_page.acquire_slow::<A, true, true>(runs),
                };
                if stopped.is_some() {
                    return stopped;
                }
                release_run::<S::Kernel, true>(self.env(), &ready[0], Dirty::No);
            }
            // The mm need not be one that runs, so its VMA keeps the tables.
            let (mut stop, mut refused, before) = (None, None, runs.pages());
            let look = &mut |vmas: &dyn Vmas| {
                if self.is_for_long() {
                    let permitted = |vma: Vma| self.request::<A, true>(&vma);
                    refused = vmas.vma_at(page).ok_or(PinError::NoVma).and_then(permitted).err();
                    if refused.is_some() {
                        return;
                    }
                }
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
            if refused.is_some() {
                return refused;
            }
            if self.is_for_long() && !self.keep_what_may_stay(before, runs, |_| true) && stop.is_none() {
                stop = Some(Stop::Unready);
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
    fn acquire_in_vma<A: PinAccess, const PIN: bool, const LONG: bool>(
        &self,
        vmas: &dyn Vmas,
        page: PageAddr,
        runs: &mut Runs<'_>,
    ) -> Result<(), PinError> {
        let vma = vmas.vma_at(page).ok_or(PinError::NoVma)?;
        let end = vma.end().min(self.range.end_page());
        let request = self.request::<A, LONG>(&vma)?;
        match request {
            Request::Write => self.acquire_pages::<true, PIN, LONG>(vmas, &vma, end, request, runs),
            // A forced write takes a page that is read-only for user code; the pin itself insists on EXCLUSIVE.
            _ => self.acquire_pages::<false, PIN, LONG>(vmas, &vma, end, request, runs),
        }
    }

    /// The pages up to `end`, all in `vma`, which permits `request`; or some of them, and then no fewer than one section is for.
    fn acquire_pages<const WRITE: bool, const PIN: bool, const LONG: bool>(
        &self,
        vmas: &dyn Vmas,
        vma: &Vma,
        end: PageAddr,
        request: Request,
        runs: &mut Runs<'_>,
    ) -> Result<(), PinError> {
        let first = self.range.first_page();
        let page = first.offset(runs.pages());
        if page.offset(1) == end && runs.room() > 0 {
            if let Some(run) = self.acquire_one_leaf::<WRITE, PIN>(page, end) {
                runs.add(run);
                return Ok(());
            }
        }
        let (mut faults, before) = ((first, 0), runs.pages());
        let is_enough = |runs: &Runs<'_>| runs.pages() - before >= MOST_PAGES_PER_SECTION;
        loop {
            let Some(stop) = self.walk::<WRITE, PIN>(end, runs, |runs| !is_enough(runs)) else { return Ok(()) };
            let a_fault_mends_it = matches!(stop, Stop::Unready | Stop::Raced);
            if !a_fault_mends_it || self.flags.contains(PinFlags::NOFAULT) {
                return Err(stop.into());
            }
            let page = first.offset(runs.pages());
            faults = if faults.0 == page { (page, faults.1 + 1) } else { (page, 1) };
            if faults.1 > MAX_FAULTS_PER_PAGE {
                return Err(PinError::Contended);
            }
            self.make_ready::<PIN, LONG>(vmas, vma, page, end, request, runs)?;
            // It may have pinned all of them; a walk is of one page at least.
            if first.offset(runs.pages()) >= end || is_enough(runs) {
                return Ok(());
            }
        }
    }

    /// A fault on `page` by the pin itself. Where a copy is needed, the pages up to `end` may be copied with it, and pinned.
    #[inline(never)]
    fn make_ready<const PIN: bool, const LONG: bool>(
        &self,
        vmas: &dyn Vmas,
        vma: &Vma,
        page: PageAddr,
        end: PageAddr,
        request: Request,
        runs: &mut Runs<'_>,
    ) -> Result<(), PinError> {
        let mm = self.space.mm();
        let terms = if LONG { vma.terms().staying() } else { vma.terms() };
        let most = page.pages_to(end).min(runs.room());
        if PIN && most > 1 {
            let pinned = |frame| runs.add(PhysRun::from_parts(frame, 1, 0));
            if fault::copy_pinned(mm, terms, page, most, request, pinned)? != 0 {
                return Ok(());
            }
        }
        // Spelled out, so that each is compiled for its one request.
        let resolved = match request {
            Request::Write => fault::resolve(mm, terms, page, Request::Write),
            Request::Unshare => fault::resolve(mm, terms, page, Request::Unshare),
            other => fault::resolve(mm, terms, page, other),
        };
        match resolved {
            Err(Unresolved::Elsewhere) => _ = fault::resolve_elsewhere(mm, vmas, (page, terms), request)?,
            Ok(FaultOutcome::Spurious) if PIN && vma.backing().is_shared() => self.ask_to_pin(vma, page)?,
            resolved => _ = resolved?,
        }
        Ok(())
    }

    /// A page of an object is there as wanted, and perhaps not open to pins.
    #[cold]
    fn ask_to_pin(&self, vma: &Vma, page: PageAddr) -> Result<(), PinError> {
        let Some((id, index)) = vma.object_page(page) else { return Ok(()) };
        let may = self.env().extras().objects().may_pin(id, index);
        may.map_err(|error| FaultError::from(error).into())
    }

    /// What is asked of the pages of `vma`, if it permits that.
    fn request<A: PinAccess, const LONG: bool>(&self, vma: &Vma) -> Result<Request, PinError> {
        if !self.keys.permits(vma.key(), A::ACCESS) {
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
        if !fault::permits(vma.terms(), request) {
            return Err(PinError::AccessDenied);
        }
        if vma.terms().is_plain() {
            return Ok(request);
        }
        match vma.backing() {
            _ if vma.terms().is_unpinnable() => Err(PinError::NotPinnable),
            Backing::Foreign(_) => Err(PinError::NotPinnable),
            Backing::Object { id, shared: true, .. }
                if LONG && A::WRITES && self.env().extras().objects().is_written_back(id) =>
            {
                Err(PinError::WrittenBack)
            }
            _ => Ok(request),
        }
    }
}
