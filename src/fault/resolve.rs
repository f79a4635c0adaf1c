//! Carrying a decision out.
//!
//! Look, decide, allocate, copy and publish happen under one hold of the table lock, so that nothing can change between
//! the decision and the action and there is nothing to look at twice. The flush that a copy needs waits for other CPUs
//! far longer than copying a page takes, and it must happen under the lock in any case: until it is over, an empty-looking
//! entry must not be taken for an untouched page.

use super::{Action, FrameView, Refusal, Request, State, decide};
use crate::addr::{PageAddr, Pfn};
use crate::arch::{Entry, LeafSize};
use crate::env::{Env, FrameSource, FrameTable, Mm, OwnedFrame};
use crate::frame::{FrameKind, PageFrame};
use crate::paging::{Slot, TableError, Tables};
use crate::rights::Rights;
use crate::vma::Vma;

/// How a fault was resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultOutcome {
    /// The entry already granted the access.
    Spurious,
    /// The zero frame was mapped.
    MappedZero,
    /// A cleared frame was mapped.
    MappedFresh,
    /// The frame was this mm's own; at most the entry changed.
    Reused,
    /// A copy replaced the shared frame.
    Copied,
}

/// Why a page could not be made fit: the causes among those of [`FaultError`](super::FaultError) that are found with the
/// table lock held. One byte, where that has to have room for what a kernel waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unresolved {
    AccessDenied,
    Foreign,
    NoMemory,
    MalformedTable,
}

impl From<TableError> for Unresolved {
    fn from(error: TableError) -> Self {
        match error {
            TableError::NoMemory => Self::NoMemory,
            TableError::Malformed | TableError::LargeLeaf => Self::MalformedTable,
        }
    }
}

impl From<Refusal> for Unresolved {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Denied => Self::AccessDenied,
            Refusal::Foreign => Self::Foreign,
        }
    }
}

/// Makes `page` of `vma` fit for `request`. The caller holds the mm lock (for reading).
///
/// Inlined where the request is a constant, so that the decision shrinks to the rows it can reach.
#[inline(always)]
pub(crate) fn resolve<K: Env>(
    mm: &Mm<K>,
    vma: &Vma,
    page: PageAddr,
    request: Request,
) -> Result<FaultOutcome, Unresolved> {
    let mut tables = Tables::lock(mm);
    let env = mm.env();
    // Bounded: the only action that asks again restores rights, after which the page is not prot-none.
    loop {
        let slot = tables.find(page)?;
        let (state, frame) = observe(env, &slot)?;
        match decide(state, vma, request) {
            Action::Refuse(refusal) => return Err(refusal.into()),
            Action::Nothing => {
                note_use(tables, slot, request);
                return Ok(FaultOutcome::Spurious);
            }
            // SAFETY: found under this lock; the frame stays, and W is taken away: the decision is asked again.
            Action::RestoreRights => unsafe { tables.adjust(slot.at, slot.size(), slot.entry, Entry::rights_restored) },
            Action::Reuse => return Ok(make_writable(tables, slot)),
            Action::MapZero => return map_zero(tables, slot, vma),
            Action::MapFresh { writable } => return map_fresh(tables, slot, vma, writable),
            Action::Claim { writable } => {
                return match frame.map(|frame| frame.word.try_claim()) {
                    Some(Ok(())) if writable => Ok(make_writable(tables, slot)),
                    Some(Ok(())) => Ok(FaultOutcome::Reused),
                    // A lockless walker holds it for a moment. The copy is always right.
                    _ => copy(tables, slot, vma, state, writable),
                };
            }
            Action::Copy { writable } => return copy(tables, slot, vma, state, writable),
        }
    }
}

/// Sets accessed, and for a write dirty, in an entry that permits the access: where hardware does not set them itself, their
/// absence is what faulted.
#[inline(always)]
fn note_use<K: Env>(mut tables: Tables<'_, K>, slot: Slot, request: Request) {
    let used = |entry: Entry| match request {
        Request::Read | Request::Execute => entry.accessed(),
        Request::Write if entry.is_writable() => entry.accessed().dirtied(),
        // A pin's holder has not used the page yet; what it writes is noted when it lets go.
        Request::Write | Request::Unshare | Request::ForcedWrite => entry,
    };
    if used(slot.entry) != slot.entry {
        // SAFETY: found under this lock; frame and rights stay.
        unsafe { tables.adjust(slot.at, slot.size(), slot.entry, used) };
    }
}

type FrameRef<'k, K> = &'k PageFrame<<<K as Env>::Frames as FrameTable>::Layout>;

/// What an entry maps, in the terms of the decision.
#[inline(always)]
fn observe<'k, K: Env>(env: &'k K, slot: &Slot) -> Result<(State, Option<FrameRef<'k, K>>), Unresolved> {
    let entry = slot.entry;
    if !entry.is_present() {
        return match entry {
            _ if entry.is_empty() => Ok((State::Empty, None)),
            _ if entry.is_prot_none() => Ok((State::ProtNone, None)),
            _ => Err(Unresolved::MalformedTable),
        };
    }
    let pfn = match slot.size() {
        // The same twice, but here the masks are constants.
        LeafSize::Size4KiB => entry.leaf_frame(LeafSize::Size4KiB),
        large => entry.leaf_frame(large),
    };
    if entry.is_special() {
        let zero = env.source().zero_frame() == Some(pfn);
        return Ok((if zero { State::Zero } else { State::Foreign { writable: entry.is_writable() } }, None));
    }
    let frame = env.frames().frame(pfn).ok_or(Unresolved::MalformedTable)?;
    let (writable, (exclusive, sole, anonymous)) = (entry.is_writable(), frame.word.exclusive_sole_and_anonymous());
    // `EXCLUSIVE` says that the frame is this mm's, whatever it holds. Of others the kind says whose they are.
    let state = if exclusive || anonymous {
        State::Anonymous { writable, frame: FrameView { exclusive, sole } }
    } else {
        not_anonymous(frame.word.kind(), writable)
    };
    Ok((state, Some(frame)))
}

#[cold]
fn not_anonymous(kind: FrameKind, writable: bool) -> State {
    match kind {
        FrameKind::Anonymous | FrameKind::File | FrameKind::Device => State::Borrowed { writable },
        FrameKind::Unmanaged | FrameKind::Zero | FrameKind::Table => State::Foreign { writable },
    }
}

/// The leaf for a frame in `vma`; not writable unless `writable`.
fn leaf(frame: Pfn, size: LeafSize, vma: &Vma, writable: bool) -> Entry {
    let mut rights = vma.rights();
    rights.set(Rights::WRITE, writable);
    Entry::leaf(frame, size, rights, vma.key())
}

/// The frame is exclusive, and stays so while the lock is held: only its mapper can share it.
fn make_writable<K: Env>(mut tables: Tables<'_, K>, slot: Slot) -> FaultOutcome {
    // SAFETY: found under this lock; the frame stays, and it is exclusive.
    unsafe { tables.adjust(slot.at, slot.size(), slot.entry, Entry::made_writable) };
    FaultOutcome::Reused
}

#[inline(never)]
fn map_zero<K: Env>(mut tables: Tables<'_, K>, slot: Slot, vma: &Vma) -> Result<FaultOutcome, Unresolved> {
    let Some(zero) = tables.env().source().zero_frame() else {
        return map_fresh(tables, slot, vma, false);
    };
    // SAFETY: found under this lock; the page lies in a VMA, and VMAs lie in the user half.
    let at = unsafe { tables.place_at(&slot, LeafSize::Size4KiB) }?;
    let entry = leaf(zero, LeafSize::Size4KiB, vma, false).special();
    // SAFETY: the place is of this size, under this lock, and nothing is mapped there; a special entry owns no reference,
    // and it is read-only.
    unsafe { tables.fill(at, LeafSize::Size4KiB, entry) };
    Ok(FaultOutcome::MappedZero)
}

#[inline(never)]
fn map_fresh<K: Env>(
    mut tables: Tables<'_, K>,
    slot: Slot,
    vma: &Vma,
    writable: bool,
) -> Result<FaultOutcome, Unresolved> {
    let frame = OwnedFrame::zeroed(tables.env(), FrameKind::Anonymous, 0).ok_or(Unresolved::NoMemory)?;
    // SAFETY: found under this lock; the page lies in a VMA, and VMAs lie in the user half.
    let at = unsafe { tables.place_at(&slot, LeafSize::Size4KiB) }?;
    let entry = leaf(frame.into_entry(), LeafSize::Size4KiB, vma, writable);
    // SAFETY: the place is of this size, under this lock, and nothing is mapped there; the frame's one reference goes to
    // the entry, and it was handed out exclusive.
    unsafe { tables.fill(at, LeafSize::Size4KiB, entry) };
    Ok(FaultOutcome::MappedFresh)
}

/// Break -> flush -> publish a copy (zeroes, for the zero frame), then release what was there.
#[inline(never)]
fn copy<K: Env>(
    mut tables: Tables<'_, K>,
    slot: Slot,
    vma: &Vma,
    state: State,
    writable: bool,
) -> Result<FaultOutcome, Unresolved> {
    let (env, size) = (tables.env(), slot.size());
    let copy = match state {
        State::Zero => OwnedFrame::zeroed(env, FrameKind::Anonymous, size.order()),
        // SAFETY: the entry keeps the block allocated, and it is a leaf of this size. It is shared, so nobody may write
        // it: what is copied is what every mapper sees.
        _ => unsafe { OwnedFrame::copied(env, slot.entry.leaf_frame(size), size.order()) },
    };
    let entry = leaf(copy.ok_or(Unresolved::NoMemory)?.into_entry(), size, vma, writable);
    // SAFETY: the slot was found under this lock, and the state says that it holds a leaf; it is flushed here and now.
    let settled = unsafe { tables.break_leaf(slot) }.flush();
    // SAFETY: the copy is of the same size; its one reference goes to the entry, and it was handed out exclusive.
    let old = unsafe { settled.publish(entry) };
    old.release(env);
    Ok(FaultOutcome::Copied)
}
