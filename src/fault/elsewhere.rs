//! Faults on pages that come from elsewhere: an object's, and those that went to a slot.
//!
//! All of it is what [`resolve`](super::resolve) has no business with: it may have to wait, and says so ([`NotReady`](crate::NotReady))
//! with nothing held. The order is that of every fault: what is new is made ready with nothing owned, and takes its place by one
//! exchange from nothing; what is there already is owned first and decided then.

use super::decision::{Action, Request};
use super::resolve::{Unresolved, frame_for, leaf, marked, observe, place_of, resolve_by_looking_again};
use super::{FaultError, FaultOutcome, decide};
use crate::addr::{PageAddr, Pfn};
use crate::arch::{Entry, LeafSize};
use crate::env::{
    EntryAddr, Env, ExtraParts, FrameTable, Mm, ObjectError, Objects, OwnedFrame, TokenError, Tokens, Vmas, release,
};
use crate::paging::{Slot, Tables};
use crate::primitive::safeguard;
use crate::rights::Access;
use crate::vma::{ObjectId, Terms};

/// A page is looked at so often before the access is tried again, and faults again. More than a few only where others keep changing the page.
const MOST_ROUNDS: u32 = 16;

/// As [`resolve`](super::resolve), for what it leaves to this: a page of a VMA with these terms. The caller is inside a section of the mm lock, in
/// which `vmas` are looked at.
#[cold]
#[inline(never)]
pub(crate) fn resolve_elsewhere<K: Env>(
    mm: &Mm<K>,
    vmas: &(impl Vmas + ?Sized),
    (page, terms): (PageAddr, Terms),
    request: Request,
) -> Result<FaultOutcome, FaultError> {
    let (mut done, mut failed) = (FaultOutcome::Spurious, false);
    for _ in 0..MOST_ROUNDS {
        let next = look(mm, vmas, (page, terms), request, &mut failed)?;
        if let Next::Enough(outcome) | Next::Usual(Some(outcome)) | Next::LookAgain(Some(outcome)) = next {
            done = outcome;
        }
        match next {
            Next::Enough(_) => break,
            Next::LookAgain(_) => {}
            Next::Usual(_) => match resolve_by_looking_again(mm, terms, page, request) {
                Ok(FaultOutcome::Spurious) => break,
                Err(Unresolved::Elsewhere) => {}
                resolved => return Ok(resolved?),
            },
        }
    }
    Ok(done)
}

/// What one look has done, and what comes next.
enum Next {
    /// The request needs no more.
    Enough(FaultOutcome),
    /// It is a page as others are, or another CPU owns it.
    Usual(Option<FaultOutcome>),
    LookAgain(Option<FaultOutcome>),
}

/// One round. By itself, since there is mostly one: in a loop, what all rounds have in common would be made ready for many.
#[inline(never)]
fn look<K: Env>(
    mm: &Mm<K>,
    vmas: &(impl Vmas + ?Sized),
    (page, terms): (PageAddr, Terms),
    request: Request,
    failed: &mut bool,
) -> Result<Next, FaultError> {
    let shown = || vmas.vma_at(page)?.object_page(page);
    // SAFETY: the caller is inside a section of the mm lock, from which it has the VMA.
    let mut tables = unsafe { Tables::under_mm_lock(mm) };
    let slot = tables.find(page)?;
    let Some((state, _)) = observe(mm.env(), &slot)? else { return Ok(Next::Usual(None)) };
    let action = decide(state, terms, request);
    let changed = match action {
        Action::Bring => match bring(&mut tables, slot, terms) {
            // It may have been said of what the slot held before the token came back here. Once more, then.
            Err(FaultError::Failed) if !*failed => {
                *failed = true;
                None
            }
            changed => changed?,
        },
        Action::MapObject => map_object(&mut tables, slot, (shown(), terms), request)?,
        Action::CopyObject { writable } => copy_object(&mut tables, slot, (shown(), terms), writable)?,
        Action::WriteObject => write_object(&mut tables, slot, shown())?,
        _ => return Ok(Next::Usual(None)),
    };
    Ok(match changed {
        Some(outcome) if is_enough(action, request) => Next::Enough(outcome),
        Some(outcome) if action == Action::Bring => Next::Usual(Some(outcome)),
        changed => Next::LookAgain(changed),
    })
}

/// Whether `request` needs no second look once this was done for it.
fn is_enough(action: Action, request: Request) -> bool {
    match request {
        Request::Read | Request::Execute => true,
        Request::Write => matches!(action, Action::WriteObject | Action::CopyObject { .. }),
        Request::Unshare | Request::ForcedWrite => matches!(action, Action::CopyObject { .. }),
    }
}

/// An object, and the number of its page.
pub(crate) type ObjectPage = (ObjectId, u32);

/// What was done. `None`: nothing, since the entry is another by now.
type Changed = Result<Option<FaultOutcome>, FaultError>;

/// The token's page, read-only. Whose it is, its word says to the next look: when the last holder of the token has let go of it, the
/// frame is this entry's alone.
fn bring<K: Env>(tables: &mut Tables<'_, K>, slot: Slot, terms: Terms) -> Changed {
    let Some(token) = slot.entry.as_token() else { return Ok(None) };
    let env = tables.env();
    let tokens = env.extras().tokens();
    if let Err(error) = tokens.fetch(env, token) {
        // A token that has gone from its entry means nothing any more.
        return if tables.has_changed(&slot) { Ok(None) } else { Err(error.into()) };
    }
    let too_early = if safeguard!(BringsWhatItOwns => true) { None } else { Some(tokens.bring(env, token)) };
    // SAFETY: found under this lock, and it is a token; published here and now.
    let Some(broken) = (unsafe { tables.break_leaf(slot) }) else {
        if let Some(Ok(frame)) = too_early {
            drop(HeldPage { env, frame });
        }
        return Ok(None);
    };
    match too_early.unwrap_or_else(|| tokens.bring(env, token)) {
        Ok(frame) => {
            let entry = marked(leaf(frame, LeafSize::Size4KiB, terms, false), terms).in_place_of(slot.entry);
            // SAFETY: a leaf of the lowest level, whose reference came with the frame; it is read-only.
            unsafe { broken.fill(entry) };
            tokens.release(env, token);
            Ok(Some(FaultOutcome::Brought))
        }
        Err(error) => {
            broken.put_back();
            match error {
                // It was fetched, and has gone again.
                TokenError::NotReady(_) => Ok(None),
                error => Err(error.into()),
            }
        }
    }
}

/// A page of an object, with a reference.
pub(crate) struct HeldPage<'k, K: Env> {
    env: &'k K,
    pub(crate) frame: Pfn,
}

impl<'k, K: Env> HeldPage<'k, K> {
    pub(crate) fn of(env: &'k K, (id, page): ObjectPage, access: Access) -> Result<Self, ObjectError> {
        Ok(Self { env, frame: env.extras().objects().page(env, id, page, access)? })
    }

    fn into_entry(self) {
        core::mem::forget(self);
    }
}

impl<K: Env> Drop for HeldPage<'_, K> {
    fn drop(&mut self) {
        if let Some(frame) = self.env.frames().frame(self.frame) {
            release(self.env, self.frame, frame.word.put());
        }
    }
}

/// The object's page as it is, read-only.
fn map_object<K: Env>(
    tables: &mut Tables<'_, K>,
    slot: Slot,
    (of, terms): (Option<ObjectPage>, Terms),
    request: Request,
) -> Changed {
    let Some(of) = of else { return Ok(None) };
    let held = HeldPage::of(tables.env(), of, request.access())?;
    // SAFETY: found under this lock; the page lies in a VMA, and VMAs lie in the user half.
    let Some(at) = place_of(unsafe { tables.place_at(&slot, LeafSize::Size4KiB) })? else { return Ok(None) };
    let entry = leaf(held.frame, LeafSize::Size4KiB, terms, false);
    let entry = if terms.is_shared() { marked(entry, terms) } else { entry.borrowed() };
    // SAFETY: the place is of this size, under this lock; the reference goes to the entry, which is read-only.
    if unsafe { tables.fill(at, LeafSize::Size4KiB, entry) }.is_err() {
        return Ok(None);
    }
    let frame = held.frame;
    held.into_entry();
    Ok(still_the_objects(tables, (slot.page, at, entry), of, frame).then_some(FaultOutcome::MappedObject))
}

/// A copy of the object's page, of this mm alone.
fn copy_object<K: Env>(
    tables: &mut Tables<'_, K>,
    slot: Slot,
    (of, terms): (Option<ObjectPage>, Terms),
    writable: bool,
) -> Changed {
    let Some(of) = of else { return Ok(None) };
    let held = HeldPage::of(tables.env(), of, Access::Read)?;
    // SAFETY: the reference keeps the page allocated.
    let copy = unsafe { OwnedFrame::copied(tables.env(), held.frame, frame_for(terms, LeafSize::Size4KiB)) }
        .ok_or(FaultError::NoMemory)?;
    // SAFETY: as in `map_object`.
    let Some(at) = place_of(unsafe { tables.place_at(&slot, LeafSize::Size4KiB) })? else { return Ok(None) };
    let entry = marked(leaf(copy.frame(), LeafSize::Size4KiB, terms, writable), terms);
    // SAFETY: as in `map_object`; the copy is exclusive.
    if unsafe { tables.fill(at, LeafSize::Size4KiB, entry) }.is_err() {
        return Ok(None);
    }
    copy.into_entry();
    Ok(still_the_objects(tables, (slot.page, at, entry), of, held.frame).then_some(FaultOutcome::Copied))
}

/// Whether what has just been published came of what still is the object's page. If that was cut off meanwhile, whoever did it may have passed
/// here before, and would not come again: so it is taken out.
fn still_the_objects<K: Env>(
    tables: &mut Tables<'_, K>,
    (page, at, entry): (PageAddr, EntryAddr, Entry),
    (id, index): ObjectPage,
    frame: Pfn,
) -> bool {
    let env = tables.env();
    let gone = safeguard!(StillTheObjects => !env.extras().objects().still(id, index, frame));
    if gone {
        let slot = Slot { at, entry, level: LeafSize::Size4KiB.level(), page };
        // SAFETY: filled under this lock, and it is a leaf; published here and now. What took it out meanwhile has released it.
        if let Some(broken) = unsafe { tables.break_leaf(slot) } {
            broken.flush().leave_empty().release(env);
        }
    }
    !gone
}

/// Permits writes to the object's page, if the object does.
fn write_object<K: Env>(tables: &mut Tables<'_, K>, slot: Slot, of: Option<ObjectPage>) -> Changed {
    let Some((id, index)) = of else { return Ok(None) };
    let env = tables.env();
    let objects = env.extras().objects();
    let frame = slot.entry.leaf_frame(LeafSize::Size4KiB);
    let too_early =
        if safeguard!(AsksWhatItOwns => true) { None } else { Some(objects.will_write(env, id, index, frame)) };
    // SAFETY: found under this lock, and it is a leaf; published here and now.
    let Some(broken) = (unsafe { tables.break_leaf(slot) }) else { return Ok(None) };
    match too_early.unwrap_or_else(|| objects.will_write(env, id, index, frame)) {
        Ok(()) => {
            let entry = broken.entry().made_writable();
            // SAFETY: the same frame, of an object, which expects writes from now on.
            unsafe { broken.republish(entry) };
            Ok(Some(FaultOutcome::MappedObject))
        }
        Err(error) => {
            broken.restore();
            Err(error.into())
        }
    }
}
