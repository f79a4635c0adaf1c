//! [`pin_object_pages`]: pages of an object by its number and theirs, whoever shows them.

#![forbid(unsafe_code)]

use core::ops::Range;

use super::acquire::end_runs;
use super::collected::{Acquired, Collected};
use super::pinned::ledger;
use super::release::release_run;
use super::run::Runs;
use super::{Lender, OwnedPins, Owner, PhysRun, PinAccess, PinError, PinFlags, Pinned, RunBuffer};
use crate::addr::{PAGE_SIZE, RangeError, UserRange};
use crate::arch::Levels;
use crate::env::{Counted, Env, ExtraParts, FrameSource, FrameTable, NoPreempt, Objects, count};
use crate::env::{PinBudget, PinLedger, PinRecord, Through};
use crate::fault::{FaultError, HeldPage};
use crate::frame::{CountError, Dirty};
use crate::rights::Access;
use crate::vma::ObjectId;

/// How often a page is looked up that goes while it is being pinned.
const MOST_ATTEMPTS: u32 = 16;

/// Pins `pages` of an object, for a device that works with the object itself: whether some address space shows them does not
/// matter. Shared mappings show the very pages; what private ones have copied is not concerned. Fork, unmap and exit of whoever shows them
/// leave these pins alone; a truncation cuts the pages off, and they stay allocated until they are unpinned.
///
/// Nothing waits and no lock of an mm is taken: pages that have to be read, or are written back, give
/// [`PinError::NotReady`]. The guard's [`range`](Pinned::range) is that of the object's bytes. What is missing, if
/// [`stopped`](Pinned::stopped) says so, is pinned by another call. A [`LONGTERM`](PinFlags::LONGTERM) pin moves no page, and is refused where
/// one through a mapping would be; other flags have no meaning here. The kernel's [`PinLedger`] hears the
/// object's number; [`tagged`](Pinned::tagged) says whose the pins are.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, pin::*};
/// # let kernel = doc_kernel::kernel();
/// let owner = Owner::new(&kernel, Unlimited);
/// let pins = pin_object_pages(owner, Write, ObjectId(1), 0..4, PinFlags::empty(), [PhysRun::default(); 4]);
/// assert_eq!(pins.err(), Some(PinError::PastEnd)); // this kernel has no objects
/// ```
///
/// # Errors
/// Those of [`pin_user_pages`](super::pin_user_pages) that concern objects, budget and buffer: `PastEnd` (also of an object that there is not),
/// `AccessDenied`, `NotPinnable`, `NotReady`, `NoMemory`, `Failed`, `BudgetExceeded`, `BufferTooSmall`, `CountOverflow`, `OtherKind`, `Sole`,
/// `WrittenBack`, `CannotMove`, `InvalidFlags`, `Range` (no page), `Contended` (the page was replaced again and again). Nothing is pinned.
pub fn pin_object_pages<K: Env, C: PinBudget, A: PinAccess, B: RunBuffer>(
    owner: Owner<K, C>,
    _access: A,
    id: ObjectId,
    pages: Range<u32>,
    flags: PinFlags,
    mut buffer: B,
) -> Result<OwnedPins<K, C, A, B>, PinError> {
    if !PinFlags::LONGTERM.contains(flags) {
        return Err(PinError::InvalidFlags);
    }
    let wanted = pages.end.checked_sub(pages.start).filter(|wanted| *wanted != 0).ok_or(RangeError::Empty)?;
    let (start, length) = (u64::from(pages.start) * PAGE_SIZE, u64::from(wanted) * PAGE_SIZE);
    let range = UserRange::new(Levels::Five.user_half(), start, length)?;
    let term = flags.term();
    owner.budget().charge(range.pages(), term)?;
    let mut runs = Runs::new(buffer.as_mut());
    let kernel = owner.kernel();
    let stopped = pages.into_iter().find_map(|page| pin_page::<K, A>(kernel, (id, page), flags, &mut runs).err());
    let stopped = end_runs::<K, true>(kernel, &mut runs, stopped);
    count(kernel, Counted::acquired(true), runs.pages());
    let acquired = Acquired { runs: runs.used(), pages: runs.pages(), stopped };
    owner.budget().uncharge(range.pages() - acquired.pages, term);
    if let (0, Some(reason)) = (acquired.pages, stopped) {
        return Err(reason);
    }
    let collected = Collected { buffer, range, acquired };
    let (through, runs) = (Through::object(id), collected.runs());
    let record = PinRecord { through, tag: 0, range, runs, access: A::ACCESS, term: flags.term() };
    let ticket = ledger(owner.kernel()).record(&record);
    Ok(Pinned::new(owner, flags, collected, ticket))
}

/// Pins one page, and adds it to the runs.
fn pin_page<K: Env, A: PinAccess>(
    kernel: &K,
    (id, page): (ObjectId, u32),
    flags: PinFlags,
    runs: &mut Runs<'_>,
) -> Result<(), PinError> {
    let objects = kernel.extras().objects();
    let for_long = flags.contains(PinFlags::LONGTERM);
    if for_long && A::WRITES && objects.is_written_back(id) {
        return Err(PinError::WrittenBack);
    }
    let access = if A::WRITES { Access::Write } else { Access::Read };
    for _ in 0..MOST_ATTEMPTS {
        // As wherever objects are asked.
        let _stay = kernel.extras().no_preempt().enter();
        let held = HeldPage::of(kernel, (id, page), access).map_err(FaultError::from)?;
        let pfn = held.frame;
        let run = PhysRun::from_parts(pfn, 1, 0);
        let frame = kernel.frames().frame(pfn).ok_or(PinError::NotPinnable)?;
        let room = runs.room_for(&run).ok_or(PinError::BufferTooSmall)?;
        match frame.word.try_pin_exclusive() {
            Ok(()) => {}
            Err(CountError::NotExclusive) => {
                // Closed, or opened again since.
                objects.may_pin(id, page).map_err(FaultError::from)?;
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        // Nobody begins to write it back any more, so what is asked now holds until it is unpinned. Cut off since it was looked up, it would be
        // a page of nothing.
        let permitted = if !objects.still(id, page, pfn) {
            None
        } else if for_long && !kernel.source().may_stay(pfn) {
            Some(Err(PinError::CannotMove))
        } else if A::WRITES {
            Some(objects.will_write(kernel, id, page, pfn).map_err(|error| FaultError::from(error).into()))
        } else {
            Some(Ok(()))
        };
        if permitted == Some(Ok(())) {
            runs.push(room, run);
            return Ok(());
        }
        release_run::<K, true>(kernel, &run, Dirty::No);
        if let Some(refused) = permitted {
            return refused;
        }
    }
    Err(PinError::Contended)
}
