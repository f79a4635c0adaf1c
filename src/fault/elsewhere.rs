//! Faults on pages that come from elsewhere: an object's, and those that went to a slot.
//!
//! All of it is what [`resolve`](super::resolve) has no business with: it may have to wait, and says so ([`NotReady`](crate::NotReady))
//! with nothing held. The order is that of every fault: what is new is made ready with nothing owned, and takes its place by one
//! exchange from nothing; what is there already is owned first and decided then.

use super::decision::{Action, Request};
use super::resolve::{Unresolved, frame_for, leaf, observe, place_of, resolve_by_looking_again};
use super::{FaultError, FaultOutcome, decide};
use crate::addr::{PageAddr, Pfn};
use crate::arch::{Entry, LeafSize};
use crate::env::{
    EntryAddr, Env, ExtraParts, FrameTable, Mm, ObjectError, Objects, OwnedFrame, TokenError, Tokens, Vmas, release,
};
use crate::paging::{Slot, Tables};
use crate::primitive::safeguard;
use crate::rights::Access;
use crate::vma::{ObjectId, Terms, Vma};

/// A page is looked at so often before the access is tried again, and faults again. More than a few only where others keep changing the page.
const MOST_ROUNDS: u32 = 16;

/// As [`resolve`](super::resolve), for what it leaves to this; for a page that is to `stay` where it is, or not. The caller is inside a section of the mm lock, in
/// which `vmas` are looked at.
#[cold]
#[inline(never)]
pub(crate) fn resolve_elsewhere<K: Env>(
    mm: &Mm<K>,
    vmas: &(impl Vmas + ?Sized),
    page: PageAddr,
    request: Request,
    stays: bool,
) -> Result<FaultOutcome, FaultError> {
    let vma = &vmas.vma_at(page).ok_or(FaultError::NoVma)?;
    let terms = if stays { vma.terms().staying() } else { vma.terms() };
    let (mut done, mut failed) = (FaultOutcome::Spurious, false);
    for _ in 0..MOST_ROUNDS {
        // SAFETY: the caller is inside a section of the mm lock, from which it has the VMA.
        let mut tables = unsafe { Tables::under_mm_lock(mm) };
        let slot = tables.find(page)?;
        let action = observe(mm.env(), &slot)?.map(|(state, _)| decide(state, terms, request));
        let changed = match action {
            Some(Action::Bring) => match bring(&mut tables, slot, vma) {
                // It may have been said of what the slot held before the token came back here. Once more, then.
                Err(FaultError::Failed) if !failed => {
                    failed = true;
                    None
                }
                changed => changed?,
            },
            Some(Action::MapObject) => map_object(&mut tables, slot, vma, request)?,
            Some(Action::CopyObject { writable }) => copy_object(&mut tables, slot, (vma, terms), writable)?,
            Some(Action::WriteObject) => write_object(&mut tables, slot, vma)?,
            // As everywhere, or another CPU owns it.
            _ => match resolve_by_looking_again(mm, terms, page, request) {
                Ok(FaultOutcome::Spurious) => return Ok(done),
                Err(Unresolved::Elsewhere) => None,
                resolved => return Ok(resolved?),
            },
        };
        done = changed.unwrap_or(done);
    }
    Ok(done)
}

/// What was done. `None`: nothing, since the entry is another by now.
type Changed = Result<Option<FaultOutcome>, FaultError>;

/// The token's page, read-only. Whose it is, its word says to the next look: when the last holder of the token has let go of it, the
/// frame is this entry's alone.
fn bring<K: Env>(tables: &mut Tables<'_, K>, slot: Slot, vma: &Vma) -> Changed {
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
            let entry = leaf(frame, LeafSize::Size4KiB, vma.terms(), false);
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
    pub(crate) fn of(env: &'k K, (id, page): (ObjectId, u32), access: Access) -> Result<Self, ObjectError> {
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
fn map_object<K: Env>(tables: &mut Tables<'_, K>, slot: Slot, vma: &Vma, request: Request) -> Changed {
    let Some(of) = vma.object_page(slot.page) else { return Ok(None) };
    let held = HeldPage::of(tables.env(), of, request.access())?;
    // SAFETY: found under this lock; the page lies in a VMA, and VMAs lie in the user half.
    let Some(at) = place_of(unsafe { tables.place_at(&slot, LeafSize::Size4KiB) })? else { return Ok(None) };
    let entry = leaf(held.frame, LeafSize::Size4KiB, vma.terms(), false);
    let entry = if vma.terms().is_shared() { entry } else { entry.borrowed() };
    // SAFETY: the place is of this size, under this lock; the reference goes to the entry, which is read-only.
    if unsafe { tables.fill(at, LeafSize::Size4KiB, entry) }.is_err() {
        return Ok(None);
    }
    let frame = held.frame;
    held.into_entry();
    still_the_objects(tables, (slot.page, at, entry), of, frame)?;
    Ok(Some(FaultOutcome::MappedObject))
}

/// A copy of the object's page, of this mm alone.
fn copy_object<K: Env>(tables: &mut Tables<'_, K>, slot: Slot, (vma, terms): (&Vma, Terms), writable: bool) -> Changed {
    let Some(of) = vma.object_page(slot.page) else { return Ok(None) };
    let held = HeldPage::of(tables.env(), of, Access::Read)?;
    // SAFETY: the reference keeps the page allocated.
    let copy = unsafe { OwnedFrame::copied(tables.env(), held.frame, frame_for(terms, LeafSize::Size4KiB)) }
        .ok_or(FaultError::NoMemory)?;
    // SAFETY: as in `map_object`.
    let Some(at) = place_of(unsafe { tables.place_at(&slot, LeafSize::Size4KiB) })? else { return Ok(None) };
    let entry = leaf(copy.frame(), LeafSize::Size4KiB, terms, writable);
    // SAFETY: as in `map_object`; the copy is exclusive.
    if unsafe { tables.fill(at, LeafSize::Size4KiB, entry) }.is_err() {
        return Ok(None);
    }
    copy.into_entry();
    still_the_objects(tables, (slot.page, at, entry), of, held.frame)?;
    Ok(Some(FaultOutcome::Copied))
}

/// What has just been published came of an object's page. If that was cut off meanwhile, whoever did it may have passed here before, and
/// would not come again.
fn still_the_objects<K: Env>(
    tables: &mut Tables<'_, K>,
    (page, at, entry): (PageAddr, EntryAddr, Entry),
    (id, index): (ObjectId, u32),
    frame: Pfn,
) -> Result<(), FaultError> {
    let env = tables.env();
    if safeguard!(StillTheObjects => !env.extras().objects().still(id, index, frame)) {
        let slot = Slot { at, entry, level: LeafSize::Size4KiB.level(), page };
        // SAFETY: filled under this lock, and it is a leaf; published here and now. What took it out meanwhile has released it.
        if let Some(broken) = unsafe { tables.break_leaf(slot) } {
            broken.flush().leave_empty().release(env);
        }
    }
    Ok(())
}

/// Permits writes to the object's page, if the object does.
fn write_object<K: Env>(tables: &mut Tables<'_, K>, slot: Slot, vma: &Vma) -> Changed {
    let Some((id, index)) = vma.object_page(slot.page) else { return Ok(None) };
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
