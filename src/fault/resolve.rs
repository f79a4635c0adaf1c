//! Carrying a decision out, with no lock around a clear, a copy or a flush.
//!
//! The faults of an mm run side by side under its shared mm lock; the entry arbitrates (see [`Tables`]). What is new is made ready
//! with nothing owned, and then takes its place by one exchange from the entry that was seen; who is late gives back what
//! it made and looks again. A frame that is to be kept is judged once its entry is owned.

use spin::relax::RelaxStrategy;

use super::{Action, FrameView, Refusal, Request, State, decide};
use crate::addr::{PageAddr, Pfn};
use crate::arch::{Entry, LeafSize};
use crate::env::{EntryAddr, Env, FrameRequest, FrameSource, FrameTable, Mm, OwnedFrame, PhysMap, Zone};
use crate::env::{bug_caught, counted_frame, is_part, release, release_block};
use crate::frame::{CountError, FrameKind, PageFrame};
use crate::paging::{OldLeaf, Slot, TableError, Tables};
use crate::primitive::safeguard;
use crate::rights::Rights;
use crate::vma::Terms;

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
    /// The object's page was mapped, or may be written from now on.
    MappedObject,
    /// The page came back from where its token said that it was.
    Brought,
}

/// Why a page could not be made fit: the causes among those of [`FaultError`](super::FaultError) that are found among the
/// tables. One byte, where that has to have room for what a kernel waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unresolved {
    AccessDenied,
    Foreign,
    NoMemory,
    MalformedTable,
    /// The object or the slot of the page has to be asked: [`resolve_elsewhere`](super::resolve_elsewhere).
    Elsewhere,
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
/// What is usual is decided at the first look: a page of this mm, or none yet, in a table that is there. Inlined where the
/// request is a constant, so that the decision shrinks to the rows it can reach. Without optimisation nothing shrinks, and each
/// caller would keep all of its values on the stack, once for each request.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn resolve<K: Env>(
    mm: &Mm<K>,
    vma: Terms,
    page: PageAddr,
    request: Request,
) -> Result<FaultOutcome, Unresolved> {
    // SAFETY: every caller is inside a section of the mm lock, from which it has the VMA.
    let mut tables = unsafe { Tables::under_mm_lock(mm) };
    if let Some(slot) = tables.find_lowest(page) {
        if let Some(outcome) = act_on_usual(&mut tables, slot, vma, request)? {
            return Ok(outcome);
        }
        if slot.entry.is_token() {
            return Err(Unresolved::Elsewhere);
        }
    }
    resolve_by_looking_again(mm, vma, page, request)
}

/// What follows if `slot`, of the lowest level, is empty, or maps a frame of this mm or an anonymous one. `None`: it does not,
/// or look again.
#[inline(always)]
fn act_on_usual<'k, K: Env>(
    tables: &mut Tables<'k, K>,
    slot: Slot,
    vma: Terms,
    request: Request,
) -> Result<Option<FaultOutcome>, Unresolved> {
    let entry = slot.entry;
    if entry.is_empty() {
        return match vma.is_plain() {
            true => act::<_, false>(tables, slot, State::Empty, None, vma, request),
            false if vma.is_object() => Err(Unresolved::Elsewhere),
            false => LOOK_AGAIN,
        };
    }
    let Some((frame, view)) = observe_anonymous(tables.env(), &slot) else {
        return LOOK_AGAIN;
    };
    let state = State::Anonymous { writable: entry.is_writable(), frame: view };
    act::<_, false>(tables, slot, state, Some(frame), vma, request)
}

/// As [`resolve`], whatever is found, as often as it takes.
#[cold]
#[inline(never)]
pub(super) fn resolve_by_looking_again<K: Env>(
    mm: &Mm<K>,
    vma: Terms,
    page: PageAddr,
    request: Request,
) -> Result<FaultOutcome, Unresolved> {
    // Each round but the last ends because another CPU owns the entry, and will publish, or has changed it; or, once, because
    // rights were restored.
    loop {
        if let Some(outcome) = look_again(mm, vma, page, request)? {
            return Ok(outcome);
        }
    }
}

/// One round. By itself, since there is mostly one: in a loop, what all rounds have in common would be made ready for many.
#[inline(never)]
fn look_again<K: Env>(
    mm: &Mm<K>,
    vma: Terms,
    page: PageAddr,
    request: Request,
) -> Result<Option<FaultOutcome>, Unresolved> {
    // SAFETY: as in `resolve`.
    let mut tables = unsafe { Tables::under_mm_lock(mm) };
    let slot = tables.find(page)?;
    let Some((state, frame)) = observe(mm.env(), &slot)? else {
        K::Relax::relax();
        return LOOK_AGAIN;
    };
    act::<_, true>(&mut tables, slot, state, frame, vma, request)
}

/// What follows from what was found in `slot`. `None`: look again. `ANY`: the VMA may be unpinnable; otherwise that was seen not to be so, and is not
/// asked once more.
#[cfg_attr(not(debug_assertions), inline(always))]
fn act<'k, K: Env, const ANY: bool>(
    tables: &mut Tables<'k, K>,
    slot: Slot,
    state: State,
    frame: Option<FrameRef<'k, K>>,
    vma: Terms,
    request: Request,
) -> Result<Option<FaultOutcome>, Unresolved> {
    match decide(state, vma, request) {
        // Of a frame that had left the entry when its word was looked at, nothing follows.
        Action::Refuse(_) if safeguard!(RefusalLooksAgain => tables.has_changed(&slot)) => LOOK_AGAIN,
        Action::Refuse(refusal) => Err(refusal.into()),
        Action::Nothing => {
            note_use(tables, slot, request);
            Ok(Some(FaultOutcome::Spurious))
        }
        Action::RestoreRights => {
            restore_rights(tables, slot);
            LOOK_AGAIN
        }
        Action::MapZero => map_zero(tables, slot, vma),
        Action::MapFresh { writable } => map_fresh::<_, ANY>(tables, slot, vma, writable),
        action @ (Action::Reuse | Action::Claim { .. }) => {
            Ok(keep(tables, slot, frame, action != Action::Claim { writable: false }))
        }
        Action::Copy { writable } => copy::<_, ANY>(tables, slot, vma, frame, writable),
        Action::Bring | Action::MapObject | Action::CopyObject { .. } | Action::WriteObject => {
            Err(Unresolved::Elsewhere)
        }
    }
}

/// Sets accessed, and for a write dirty, in an entry that permits the access: where hardware does not set them itself, their
/// absence is what faulted.
#[inline(always)]
fn note_use<K: Env>(tables: &mut Tables<'_, K>, slot: Slot, request: Request) {
    let used = match request {
        Request::Read | Request::Execute => slot.entry.accessed(),
        Request::Write if slot.entry.is_writable() => slot.entry.accessed().dirtied(),
        // A pin's holder has not used the page yet; what it writes is noted when it lets go.
        Request::Write | Request::Unshare | Request::ForcedWrite => slot.entry,
    };
    if used != slot.entry {
        // SAFETY: found under this lock; nothing else differs.
        unsafe { tables.note_use(slot.at, slot.entry, used) };
    }
}

pub(super) type FrameRef<'k, K> = &'k PageFrame<<<K as Env>::Frames as FrameTable>::Layout>;

/// What an entry maps, and its frame if that is counted.
type Observed<'k, K> = (State, Option<FrameRef<'k, K>>);

/// What an entry maps, in the terms of the decision. `None`: another CPU owns it.
pub(super) fn observe<'k, K: Env>(env: &'k K, slot: &Slot) -> Result<Option<Observed<'k, K>>, Unresolved> {
    let entry = slot.entry;
    if !entry.is_present() {
        return match entry {
            _ if entry.is_empty() => Ok(Some((State::Empty, None))),
            _ if entry.is_prot_none() => Ok(Some((State::ProtNone, None))),
            _ if entry.is_token() => Ok(Some((State::Token, None))),
            _ if safeguard!(OwnedIsWaitedFor => entry.is_owned()) => Ok(None),
            _ => Err(Unresolved::MalformedTable),
        };
    }
    if !entry.is_counted() {
        let zero = env.source().zero_frame() == Some(entry.leaf_frame(slot.size()));
        return Ok(Some((if zero { State::Zero } else { State::Foreign { writable: entry.is_writable() } }, None)));
    }
    let counted = match slot.size() {
        // The same twice, but here the masks are constants.
        LeafSize::Size4KiB => counted_frame(env, entry, LeafSize::Size4KiB),
        large => counted_frame(env, entry, large),
    };
    let (_, frame) = counted.ok_or(Unresolved::MalformedTable)?;
    let (writable, (exclusive, sole, anonymous)) = (entry.is_writable(), frame.word.exclusive_sole_and_anonymous());
    // `EXCLUSIVE` says that the frame is this mm's, or open to pins by whoever maps it. Of others the kind says whose they are. An
    // anonymous frame that is marked as borrowed is this mm's, and unpinnable, or a part of a block.
    let state = if entry.is_borrowed() && (!anonymous || is_part(entry, slot.size(), frame)) {
        State::Borrowed { writable }
    } else if exclusive || anonymous {
        State::Anonymous { writable, frame: FrameView { exclusive, sole } }
    } else {
        not_anonymous(frame.word.kind(), writable)
    };
    Ok(Some((state, Some(frame))))
}

/// The same of a base leaf whose frame is this mm's, or anonymous.
#[inline(always)]
pub(super) fn observe_anonymous<'k, K: Env>(env: &'k K, slot: &Slot) -> Option<(FrameRef<'k, K>, FrameView)> {
    let entry = slot.entry;
    if !entry.is_present() || !entry.is_user() || entry.is_special() {
        return None;
    }
    let frame = env.frames().frame(entry.leaf_frame(LeafSize::Size4KiB))?;
    let (exclusive, sole, anonymous) = frame.word.exclusive_sole_and_anonymous();
    if !exclusive && !anonymous {
        return None;
    }
    Some((frame, FrameView { exclusive, sole }))
}

#[cold]
fn not_anonymous(kind: FrameKind, writable: bool) -> State {
    match kind {
        FrameKind::Anonymous | FrameKind::File | FrameKind::Device => State::Borrowed { writable },
        FrameKind::Unmanaged | FrameKind::Zero | FrameKind::Table => State::Foreign { writable },
    }
}

/// What is asked of the source for a page of `vma`.
#[inline(always)]
pub(super) const fn frame_for(vma: Terms, size: LeafSize) -> FrameRequest {
    let zone = if vma.stays() { Zone::Unmovable } else { Zone::Movable };
    FrameRequest { order: size.order(), zone }
}

/// The leaf for a frame in `vma`; not writable unless `writable`.
pub(super) fn leaf(frame: Pfn, size: LeafSize, vma: Terms, writable: bool) -> Entry {
    let mut rights = vma.rights();
    rights.set(Rights::WRITE, writable);
    Entry::leaf(frame, size, rights, vma.key())
}

/// The leaf as it is in `vma`: with a mark, if nobody may pin it.
pub(super) fn marked(leaf: Entry, vma: Terms) -> Entry {
    if vma.is_unpinnable() { leaf.borrowed() } else { leaf }
}

/// Brings a page back that had lost all rights, read-only.
#[cold]
fn restore_rights<K: Env>(tables: &mut Tables<'_, K>, slot: Slot) {
    // SAFETY: found under this lock, and it is a leaf; published here and now.
    if let Some(broken) = unsafe { tables.break_leaf(slot) } {
        let entry = broken.entry().rights_restored();
        // SAFETY: the same frame, read-only, where nothing was permitted.
        unsafe { broken.republish(entry) };
    }
}

/// Keeps the frame, which seemed to be this mm's alone, and permits writes if asked. `None`: it is not; look again.
///
/// Decided once the entry is owned. Before, the frame could have left this entry and come back to it as something else between
/// the look at the entry and the look at its word.
#[inline(always)]
fn keep<K: Env>(
    tables: &mut Tables<'_, K>,
    slot: Slot,
    frame: Option<FrameRef<'_, K>>,
    writable: bool,
) -> Option<FaultOutcome> {
    let frame = frame?;
    let too_early = if safeguard!(OwnsBeforeJudging => true) { false } else { frame.word.is_own_or_claimed() };
    // SAFETY: found under this lock, and it is a leaf; published here and now.
    let broken = unsafe { tables.break_leaf(slot) }?;
    // A lockless walker may hold it for a moment; then the next look says that it is not the only reference.
    if !too_early && !frame.word.is_own_or_claimed() {
        broken.restore();
        return None;
    }
    let entry = broken.entry();
    // SAFETY: the same frame, with the right to write, if at all, since it is exclusive; it stays so, since EXCLUSIVE changes
    // hands only with the entry owned or the mm lock held exclusively.
    unsafe { broken.republish(if writable { entry.made_writable() } else { entry }) };
    Some(FaultOutcome::Reused)
}

/// What was found was too late for the change, or has one: look again.
const LOOK_AGAIN: Result<Option<FaultOutcome>, Unresolved> = Ok(None);

#[inline(never)]
fn map_zero<K: Env>(tables: &mut Tables<'_, K>, slot: Slot, vma: Terms) -> Result<Option<FaultOutcome>, Unresolved> {
    let Some(zero) = tables.env().source().zero_frame() else {
        return map_fresh::<_, true>(tables, slot, vma, false);
    };
    // SAFETY: found under this lock; the page lies in a VMA, and VMAs lie in the user half.
    let Some(at) = place_of(unsafe { tables.place_at(&slot, LeafSize::Size4KiB) })? else { return LOOK_AGAIN };
    let entry = leaf(zero, LeafSize::Size4KiB, vma, false).special();
    // SAFETY: the place is of this size, under this lock; a special entry owns no reference, and it is read-only.
    Ok(unsafe { tables.fill(at, LeafSize::Size4KiB, entry) }.is_ok().then_some(FaultOutcome::MappedZero))
}

#[inline(always)]
fn map_fresh<K: Env, const ANY: bool>(
    tables: &mut Tables<'_, K>,
    slot: Slot,
    vma: Terms,
    writable: bool,
) -> Result<Option<FaultOutcome>, Unresolved> {
    let frame = OwnedFrame::zeroed(tables.env(), frame_for(vma, LeafSize::Size4KiB)).ok_or(Unresolved::NoMemory)?;
    // SAFETY: found under this lock; the page lies in a VMA, and VMAs lie in the user half.
    let Some(at) = place_of(unsafe { tables.place_at(&slot, LeafSize::Size4KiB) })? else { return LOOK_AGAIN };
    let entry = leaf(frame.frame(), LeafSize::Size4KiB, vma, writable);
    let entry = if ANY { marked(entry, vma) } else { entry };
    // SAFETY: the place is of this size, under this lock; the frame's one reference goes to the entry, and it was handed out
    // exclusive.
    if unsafe { tables.fill(at, LeafSize::Size4KiB, entry) }.is_err() {
        return LOOK_AGAIN;
    }
    frame.into_entry();
    Ok(Some(FaultOutcome::MappedFresh))
}

/// The place for a base page. `None`: another CPU has put a large leaf there meanwhile.
#[inline(always)]
pub(super) fn place_of(place: Result<EntryAddr, TableError>) -> Result<Option<EntryAddr>, Unresolved> {
    match place {
        Ok(at) => Ok(Some(at)),
        Err(TableError::LargeLeaf) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Break -> flush -> publish a copy (zeroes, where there is no frame to copy), then release what was there.
///
/// The copy is made with nothing owned, so that nobody waits for it. A plain reference keeps the frame what it is meanwhile: no
/// mm can claim it, so nobody may write it, and it is not handed out again.
#[inline(always)]
fn copy<'k, K: Env, const ANY: bool>(
    tables: &mut Tables<'k, K>,
    slot: Slot,
    vma: Terms,
    frame: Option<FrameRef<'k, K>>,
    writable: bool,
) -> Result<Option<FaultOutcome>, Unresolved> {
    let (env, size) = (tables.env(), slot.size());
    let (original, copy) = match frame {
        None => (None, OwnedFrame::zeroed(env, frame_for(vma, size))),
        Some(frame) => match Original::hold(tables, &slot, frame) {
            // SAFETY: the reference keeps the block allocated, and it was a leaf of this size when that was taken.
            Ok(original) => unsafe {
                let copy = OwnedFrame::copied(env, slot.entry.leaf_frame(size), frame_for(vma, size));
                (Some(original), copy)
            },
            Err(Unheld::Changed) => return LOOK_AGAIN,
            Err(Unheld::Full) => return copy_owned(tables, slot, vma, writable),
            Err(Unheld::NotInUse) => return Err(Unresolved::MalformedTable),
        },
    };
    let copy = copy.ok_or(Unresolved::NoMemory)?;
    let entry = slot.entry.of_copy(copy.frame(), size, writable);
    let entry = if ANY { marked(entry, vma) } else { entry };
    // SAFETY: the slot was found under this lock, and the state said that it holds a leaf; published here and now.
    let Some(broken) = (unsafe { tables.break_leaf(slot) }) else { return LOOK_AGAIN };
    copy.into_entry();
    // SAFETY: the copy is of the same size; its one reference goes to the entry, and it was handed out exclusive.
    let old = unsafe { broken.flush().publish(entry) };
    match original {
        Some(original) => original.put_with(old),
        None => _ = old.release(env),
    }
    Ok(Some(FaultOutcome::Copied))
}

/// The same of a frame that takes no reference more, because its count is at the limit: others wait for this copy.
#[cold]
fn copy_owned<K: Env>(
    tables: &mut Tables<'_, K>,
    slot: Slot,
    vma: Terms,
    writable: bool,
) -> Result<Option<FaultOutcome>, Unresolved> {
    let (env, size) = (tables.env(), slot.size());
    let copy = OwnedFrame::allocate(env, frame_for(vma, size)).ok_or(Unresolved::NoMemory)?;
    // SAFETY: as in `copy`.
    let Some(broken) = (unsafe { tables.break_leaf(slot) }) else { return LOOK_AGAIN };
    let copy = copy.into_entry();
    // SAFETY: the reference of the entry, which is owned, keeps the original allocated, a leaf of this size; the copy was just
    // allocated, in this order, and nobody else knows it.
    unsafe { env.phys_map().copy_frames(broken.entry().leaf_frame(size), copy, size.order()) };
    // SAFETY: as in `copy`.
    let old = unsafe { broken.flush().publish(marked(slot.entry.of_copy(copy, size, writable), vma)) };
    old.release(env);
    Ok(Some(FaultOutcome::Copied))
}

/// A frame that is being copied, or the head of the block that it is a part of, with a plain reference of its own.
struct Original<'k, K: Env> {
    env: &'k K,
    pfn: Pfn,
    frame: FrameRef<'k, K>,
}

/// Why a frame got no reference.
pub(super) enum Unheld {
    /// The entry does not map it any more, or it has become this mm's own.
    Changed,
    /// It has as many as it may have.
    Full,
    /// Nobody uses it, and an entry maps it.
    NotInUse,
}

/// Takes a plain reference to the frame that `slot` maps, so that it stays what it is.
#[inline(always)]
pub(super) fn hold<'k, K: Env>(tables: &Tables<'k, K>, slot: &Slot, frame: FrameRef<'k, K>) -> Result<(), Unheld> {
    // What a part is borrowed from may be larger than the part.
    let order = if slot.entry.is_borrowed() { frame.word.order() } else { slot.size().order() };
    match frame.word.try_get_of(Some(order)) {
        Ok(()) => {}
        Err(_) if tables.has_changed(slot) => return Err(Unheld::Changed),
        Err(CountError::Overflow) => return Err(Unheld::Full),
        Err(_) => return Err(Unheld::NotInUse),
    }
    // The look at the entry was before: since then the frame can have left it, and been handed out again.
    let became_own = || {
        let (exclusive, _, anonymous) = frame.word.exclusive_sole_and_anonymous();
        exclusive && (anonymous || !slot.entry.is_borrowed())
    };
    let another = safeguard!(CopyLooksAgain => tables.has_changed(slot) || became_own());
    if another {
        put_back(tables.env(), slot, frame, order);
        return Err(Unheld::Changed);
    }
    Ok(())
}

/// What was held is another mm's by now, and may have been split since.
#[cold]
fn put_back<K: Env>(env: &K, slot: &Slot, frame: FrameRef<'_, K>, order: u8) {
    let first = slot.entry.leaf_frame(slot.size());
    // The word is that of the leaf's first frame, or of the head of a block which had that in it.
    let heads =
        [LeafSize::Size4KiB, LeafSize::Size2MiB, LeafSize::Size1GiB].map(|size| first.block_start(size.order()));
    let is_its = |head: &Pfn| env.frames().frame(*head).is_some_and(|word| core::ptr::eq(word, frame));
    match heads.into_iter().find(is_its) {
        Some(head) => release_block(env, head, order, |word| word.put_of_block()),
        None => bug_caught(env),
    }
}

impl<'k, K: Env> Original<'k, K> {
    #[inline(always)]
    fn hold(tables: &Tables<'k, K>, slot: &Slot, frame: FrameRef<'k, K>) -> Result<Self, Unheld> {
        hold(tables, slot, frame)?;
        let pfn = slot.entry.leaf_frame(slot.size());
        // Held, it is what it is.
        let pfn = if slot.entry.is_borrowed() { pfn.block_start(frame.word.order()) } else { pfn };
        Ok(Self { env: tables.env(), pfn, frame })
    }

    /// Puts it together with the reference of the entry that was taken from the value seen, and so mapped this frame.
    #[inline(always)]
    fn put_with(self, old: OldLeaf) {
        release(self.env, self.pfn, self.frame.word.put_mapping_and_ref(old.dirty()));
        core::mem::forget(self);
    }
}

impl<K: Env> Drop for Original<'_, K> {
    fn drop(&mut self) {
        release(self.env, self.pfn, self.frame.word.put());
    }
}
