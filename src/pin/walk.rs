//! The walker: from a range of pages to counted frames, without faulting.
//!
//! One walker serves all forms: it runs inside a [`ReadSide`](crate::ReadSide) guard, with the mm lock or without. It
//! loads each entry once and walks the *value*, checks rights, counts the frame, and then **re-reads** the entry, and after the
//! table's last page the entry that led to the table. If one changed, the mapping may have gone, and the frame may be
//! somebody else's by now: the counts are undone. The mm lock does not spare it that: faults of other threads replace entries
//! under it.
//!
//! Why the re-read is enough: a frame is recycled only after its entry was broken, so a walker that counted a recycled
//! frame sees a changed entry; and exclusivity is tested in the very step that counts the pin, so fork either sees
//! the pin or the pinner sees the frame shared. Entries further up need no second look: of a table that leaves the tree with
//! all below it, nothing is given back before the walkers that are in it have left.

use super::run::Runs;
use super::{PhysRun, PinError};
use crate::addr::{PageAddr, Pfn};
use crate::arch::{self, Demand, Entry, LeafSize, Level};
use crate::env::{EntryAddr, Env, FrameTable, Mm, PhysMap};
use crate::frame::{CountError, Dirty, Layout, PageFrame};
use crate::paging::Upper;
use crate::pin::release::release_run;
use crate::primitive::{Ordering, fence, safeguard};

/// Why a walk ended before its range did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// No room for another run.
    Full,
    /// Nothing mapped, not writable, special, or shared: a fault can mend it.
    Unready,
    /// The entry or the frame changed during the walk.
    Raced,
    /// The tables were damaged.
    Malformed,
    /// Not ordinary memory.
    NotPinnable,
    /// A protection key denies the access.
    ProtectionKey,
    /// The frame's count is at its limit.
    CountOverflow,
    /// Somebody pinned the frame, and one of the two wants no other.
    Sole,
    /// The frame is held by gets, or for a get by pins, and its word counts one kind at a time.
    OtherKind,
    /// The frame is in a state that a fault does not mend.
    Contended,
}

/// What it means to who asked, where a fault is no way out.
impl From<Stop> for PinError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Full => Self::BufferTooSmall,
            Stop::Unready | Stop::Raced => Self::WouldFault,
            Stop::Malformed => Self::MalformedTable,
            Stop::NotPinnable => Self::NotPinnable,
            Stop::ProtectionKey => Self::ProtectionKey,
            Stop::CountOverflow => Self::CountOverflow,
            Stop::OtherKind => Self::OtherKind,
            Stop::Sole => Self::Sole,
            Stop::Contended => Self::Contended,
        }
    }
}

/// A walk leaves the read side after it has been to so many places of leaves, or a table's end later.
const MAX_PLACES_PER_GUARD: u64 = arch::ENTRIES;

/// Counts a frame, or a block by its head: a pin, or a plain reference. One look at its word decides, so that it may be recycled
/// meanwhile, as a block of another order even; and a frame that is not this mm's own, of whatever kind, is not pinned but unshared first.
#[inline(always)]
fn hold<L: Layout, const PIN: bool>(frame: &PageFrame<L>, order: u8) -> Result<(), CountError> {
    if PIN { frame.word.try_pin_exclusive_of(order) } else { frame.word.try_get_user_of(Some(order)) }
}

/// [`hold`] a single frame if nothing is unusual. False: nothing was changed, and `hold` must say why.
#[inline(always)]
fn hold_usual<L: Layout, const PIN: bool>(frame: &PageFrame<L>) -> bool {
    if PIN { frame.word.pin_usual(Some(0)) } else { frame.word.try_get_user_of(Some(0)).is_ok() }
}

/// Undoes [`hold`] for a run.
#[inline(always)]
fn undo<K: Env, const PIN: bool>(env: &K, run: PhysRun) {
    release_run::<K, PIN>(env, &run, Dirty::No)
}

/// One walk's constant part: whose tables, and for reading or (`WRITE`) writing.
pub(super) struct Walk<'a, K: Env, const WRITE: bool> {
    pub(super) mm: &'a Mm<K>,
    pub(super) demand: Demand<WRITE>,
}

/// An entry as it was seen.
#[derive(Clone, Copy)]
struct Seen {
    at: EntryAddr,
    entry: Entry,
}

impl<'a, K: Env, const WRITE: bool> Walk<'a, K, WRITE> {
    #[inline(always)]
    fn env(&self) -> &'a K {
        self.mm.env()
    }

    /// Collects the pages from `first` up to `end`, at least one, in `runs`, with a pin (`PIN`) or a plain reference on
    /// each. A walk ends early, with no reason to stop, when it has been to enough places: its caller leaves the
    /// read side, which must not be held for as long as user space likes, and goes on from there.
    #[inline(always)]
    pub(super) fn run<const PIN: bool>(&self, first: PageAddr, end: PageAddr, runs: &mut Runs<'_>) -> Option<Stop> {
        let mut page = first;
        let mut visited = 0;
        loop {
            let before = page;
            let (stop, places) = match self.descend(page) {
                Err(stop) => (Some(stop), 0),
                Ok(Place::Table { first, above }) => {
                    let stop = self.take_table::<PIN>(first, above, end, &mut page, runs);
                    (stop, before.pages_to(page))
                }
                Ok(Place::Leaf(leaf)) => (self.take_leaf::<PIN>(leaf, end, &mut page, runs), 1),
            };
            visited += places;
            if stop.is_some() || page >= end || visited >= MAX_PLACES_PER_GUARD {
                return stop;
            }
        }
    }

    /// All pages from `first` up to `end`, if one leaf maps them: one run, and no bookkeeping for more. `None`: nothing is
    /// held, and [`Walk::run`] finds out why.
    #[inline(always)]
    pub(super) fn one_leaf<const PIN: bool>(&self, first: PageAddr, end: PageAddr) -> Option<PhysRun> {
        // Two calls rather than one after the match: in the first the size is a constant.
        match self.descend(first).ok()? {
            Place::Table { first: at, above } if first.offset(1) == end => {
                let leaf = Leaf { seen: self.see(at), above: Some(above), size: LeafSize::Size4KiB };
                self.hold_leaf::<PIN>(&leaf).ok()?;
                Some(PhysRun::from_parts(leaf.seen.entry.leaf_frame(LeafSize::Size4KiB), 1, 0))
            }
            Place::Leaf(leaf) if leaf.part(first, end).pages() == first.pages_to(end) => {
                self.hold_leaf::<PIN>(&leaf).ok()?;
                Some(leaf.part(first, end))
            }
            _ => None,
        }
    }

    /// The leaf at `page`, or as much of it as lies before `end`, with all pins of its frame. Nothing is held of a leaf for which
    /// `runs` has no room.
    #[cold]
    pub(super) fn leaf_alone(&self, page: PageAddr, end: PageAddr, runs: &mut Runs<'_>) -> Option<Stop> {
        let leaf = match self.descend(page) {
            Err(stop) => return Some(stop),
            Ok(Place::Table { first, above }) => {
                Leaf { seen: self.see(first), above: Some(above), size: LeafSize::Size4KiB }
            }
            Ok(Place::Leaf(leaf)) => leaf,
        };
        let run = leaf.part(page, end).sole();
        let Some(room) = runs.room_for(&run) else { return Some(Stop::Full) };
        let undo = |head: PhysRun| release_run::<K, true>(self.env(), &head.sole(), Dirty::No);
        if let Err(stop) = self.hold_leaf_by(&leaf, |frame, order| frame.word.try_pin_sole_of(Some(order)), undo) {
            return Some(stop);
        }
        runs.push(room, run);
        None
    }

    /// From the root to the lowest table, or the large leaf, that maps `page`.
    #[inline(always)]
    fn descend(&self, page: PageAddr) -> Result<Place, Stop> {
        let root = Entry::table(self.mm.root());
        let mut above = Seen { at: EntryAddr::below(root, 0), entry: root };
        if let Some(level) = self.mm.levels().extra() {
            above = self.see(EntryAddr::below(above.entry, level.index(page.address())));
            if !Demand::<WRITE>::passes_to_table(above.entry) {
                return Err(self.no_table(above, level).err().unwrap_or(Stop::Malformed));
            }
        }
        for level in Level::UPPER {
            above = self.see(EntryAddr::below(above.entry, level.index(page.address())));
            if !Demand::<WRITE>::passes_to_table(above.entry) {
                return self.no_table(above, level);
            }
        }
        Ok(Place::Table { first: EntryAddr::below(above.entry, Level::LOWEST.index(page.address())), above })
    }

    /// What an upper entry is that does not let the walk pass to a table.
    #[inline(always)]
    fn no_table(&self, seen: Seen, level: Level) -> Result<Place, Stop> {
        if !Demand::<WRITE>::passes(seen.entry) {
            return Err(Stop::Unready);
        }
        // It is for user code and leads to no table.
        match Upper::large(level) {
            Upper::Leaf(size) => Ok(Place::Leaf(Leaf { seen, above: None, size })),
            _ => Err(Stop::Malformed),
        }
    }

    #[inline(always)]
    fn load(&self, at: EntryAddr) -> Entry {
        // SAFETY: the root lives as long as the mm, and every table below it until the guard or the lock, which the
        // caller holds, is given up. Outside the user half the walk ends at the root. The index is one of a level.
        unsafe { self.env().phys_map().load_entry(at) }
    }

    #[inline(always)]
    fn see(&self, at: EntryAddr) -> Seen {
        Seen { at, entry: self.load(at) }
    }

    /// Whether an entry still maps what it did. Hardware may have set accessed or dirty.
    #[inline(always)]
    fn unchanged(&self, seen: Seen) -> bool {
        let now = self.load(seen.at);
        now == seen.entry || now.same_mapping(seen.entry)
    }

    /// The base pages up to `end`, as far as this table goes.
    #[inline(always)]
    fn take_table<const PIN: bool>(
        &self,
        first: EntryAddr,
        above: Seen,
        end: PageAddr,
        page: &mut PageAddr,
        runs: &mut Runs<'_>,
    ) -> Option<Stop> {
        let before = runs.pages();
        let count = (arch::ENTRIES - Level::LOWEST.index(page.address())).min(page.pages_to(end));
        let places = Places { first, count };
        let (map, frames) = (self.env().phys_map(), self.env().frames());
        // Threads that restrict a protection key are rare; only they pay for looking at each leaf's.
        let mut stop = if self.demand.depends_on_keys() {
            take_entries::<K, PIN, WRITE, true>(map, frames, self.env(), self.demand, places, runs)
        } else {
            take_entries::<K, PIN, WRITE, false>(map, frames, self.env(), self.demand, places, runs)
        };
        if stop == Some(Stop::Contended) {
            let at = places.first.offset(runs.pages() - before);
            stop =
                Some(self.look_again::<PIN>(Leaf { seen: self.see(at), above: Some(above), size: LeafSize::Size4KiB }));
        }
        if safeguard!(AboveReread => !self.unchanged(above)) {
            runs.roll_back(before, |run| undo::<K, PIN>(self.env(), run));
            stop = Some(Stop::Raced);
        }
        *page = page.offset(runs.pages() - before);
        stop
    }

    /// Why a frame could not be counted that nobody has, or that somebody holds for a change, now that its entry was loaded again.
    #[cold]
    fn look_again<const PIN: bool>(&self, leaf: Leaf) -> Stop {
        match self.hold_leaf::<PIN>(&leaf) {
            Err(stop) => stop,
            Ok(()) => {
                undo::<K, PIN>(self.env(), PhysRun::from_parts(leaf.seen.entry.leaf_frame(leaf.size), 1, 0));
                Stop::Raced
            }
        }
    }

    /// One large leaf, or as much of it as lies in the range.
    #[inline(always)]
    fn take_leaf<const PIN: bool>(
        &self,
        leaf: Leaf,
        end: PageAddr,
        page: &mut PageAddr,
        runs: &mut Runs<'_>,
    ) -> Option<Stop> {
        let run = leaf.part(*page, end);
        let Some(room) = runs.room_for(&run) else { return Some(Stop::Full) };
        if let Err(stop) = self.hold_leaf::<PIN>(&leaf) {
            return Some(stop);
        }
        runs.push(room, run);
        *page = page.offset(run.pages());
        None
    }

    /// One atomic step on the (head) frame of a leaf of any size.
    #[inline(always)]
    fn hold_leaf<const PIN: bool>(&self, leaf: &Leaf) -> Result<(), Stop> {
        self.hold_leaf_by(leaf, hold::<_, PIN>, |head| undo::<K, PIN>(self.env(), head))
    }

    #[inline(always)]
    fn hold_leaf_by(
        &self,
        leaf: &Leaf,
        hold: impl FnOnce(&PageFrame<<K::Frames as FrameTable>::Layout>, u8) -> Result<(), CountError>,
        undo: impl FnOnce(PhysRun),
    ) -> Result<(), Stop> {
        let &Leaf { seen, above, size } = leaf;
        let permitted = self.demand.permits::<false>(seen.entry)
            && !(self.demand.depends_on_keys() && self.demand.key_denies(seen.entry));
        if !permitted {
            return Err(refusal::<WRITE>(self.demand, seen.entry));
        }
        let head = seen.entry.leaf_frame(size);
        let frame = self.env().frames().frame(head).ok_or(Stop::NotPinnable)?;
        hold(frame, size.order()).map_err(|error| refused(error, || self.unchanged(seen)))?;
        let raced = safeguard!(LeafReread => !self.unchanged(seen))
            || safeguard!(AboveReread => above.is_some_and(|above| !self.unchanged(above)));
        if raced {
            undo(PhysRun::from_parts(head, 1, size.order()));
            return Err(Stop::Raced);
        }
        Ok(())
    }
}

/// Where a walk to a page ends.
enum Place {
    /// At the page's entry in a lowest table, to which `above` led.
    Table { first: EntryAddr, above: Seen },
    /// At a large leaf.
    Leaf(Leaf),
}

/// A leaf, and for a base page the entry that led to its table.
struct Leaf {
    seen: Seen,
    above: Option<Seen>,
    size: LeafSize,
}

impl Leaf {
    /// What of the leaf lies in `first..end`; `first` does.
    #[inline(always)]
    fn part(&self, first: PageAddr, end: PageAddr) -> PhysRun {
        let size = self.size;
        let inside = (first.address() & (size.bytes() - 1)) / crate::addr::PAGE_SIZE;
        let pages = (size.pages() - inside).min(first.pages_to(end));
        PhysRun::from_parts(self.seen.entry.leaf_frame(size).offset(inside), pages as u32, size.order())
    }
}

/// Consecutive entries of a table at the lowest level.
#[derive(Clone, Copy)]
struct Places {
    first: EntryAddr,
    count: u64,
}

/// The hot loop of the crate: one atomic step per page.
///
/// Outlined, with the two maps as arguments of their own: shared references to types without interior mutability are what
/// lets the compiler keep their fields in registers across the atomic steps.
#[inline(never)]
fn take_entries<K: Env, const PIN: bool, const WRITE: bool, const KEYS: bool>(
    map: &K::PhysMap,
    frames: &K::Frames,
    env: &K,
    demand: Demand<WRITE>,
    places: Places,
    runs: &mut Runs<'_>,
) -> Option<Stop> {
    // SAFETY: the walk that found the table keeps it alive; the places end where the table does.
    let load = |at: EntryAddr| unsafe { map.load_entry(at) };
    let Places { mut first, mut count } = places;
    let mut open = runs.open();
    let mut entry = load(first);
    let stop = loop {
        if !demand.permits::<KEYS>(entry) {
            break Some(refusal::<WRITE>(demand, entry));
        }
        let pfn = entry.leaf_frame(LeafSize::Size4KiB);
        let Some(frame) = frames.frame(pfn) else {
            break Some(Stop::NotPinnable);
        };
        if !open.add(pfn) {
            break Some(Stop::Full);
        }
        if let Err(error) = hold::<_, PIN>(frame, 0) {
            open.take_back();
            // Whether the entry is what it was is for the caller to find out: here it would cost each page a register.
            break Some(if error == CountError::OtherOrder { Stop::Contended } else { refused(error, || true) });
        }
        if safeguard!(LeafReread => load(first) != entry && !load(first).same_mapping(entry)) {
            open.take_back();
            undo::<K, PIN>(env, PhysRun::from_parts(pfn, 1, 0));
            break Some(Stop::Raced);
        }
        count -= 1;
        if count == 0 {
            break None;
        }
        first = first.offset(1);
        // Most pages lie in memory behind the one before, with the same rights: one comparison says so.
        let expected = entry.of_next_frame();
        entry = load(first);
        if entry == expected {
            let taken = take_neighbours::<K, PIN>(map, frames, env, Places { first, count }, entry, open.next());
            open.extend(taken);
            count -= taken;
            if count == 0 {
                break None;
            }
            first = first.offset(taken);
            entry = load(first);
        }
    };
    open.close();
    runs.added(places.count - count);
    stop
}

/// The pages in `places` that map one frame after the other from `first`, by entries of which the first is `expected` and the
/// others say the same of the next frame. Ends at whatever deserves a look of its own.
#[inline(never)]
fn take_neighbours<K: Env, const PIN: bool>(
    map: &K::PhysMap,
    frames: &K::Frames,
    env: &K,
    places: Places,
    mut expected: Entry,
    first: Pfn,
) -> u64 {
    let mut taken = 0;
    while taken < places.count {
        // SAFETY: as in `take_entries`.
        let seen = || unsafe { map.load_entry(places.first.offset(taken)) };
        if seen() != expected {
            break;
        }
        let frame = first.offset(taken);
        if !frames.frame(frame).is_some_and(hold_usual::<_, PIN>) {
            break;
        }
        if safeguard!(LeafReread => seen() != expected) {
            undo::<K, PIN>(env, PhysRun::from_parts(frame, 1, 0));
            break;
        }
        expected = expected.of_next_frame();
        taken += 1;
    }
    taken
}

/// Why a leaf does not permit the access.
#[cold]
fn refusal<const WRITE: bool>(demand: Demand<WRITE>, leaf: Entry) -> Stop {
    if leaf.is_special() {
        // A special leaf that permits writes is not the zero frame (INV-6) but foreign memory, or of an unpinnable VMA, and no
        // fault makes it anything else. Of one that only permits reads, the slow path finds out what it is.
        let for_nobody = WRITE && Demand::<WRITE>::passes(leaf);
        return if for_nobody { Stop::NotPinnable } else { Stop::Unready };
    }
    if leaf.is_present() && demand.key_denies(leaf) { Stop::ProtectionKey } else { Stop::Unready }
}

/// Why the frame of an entry, which is unchanged or not, cannot be counted.
#[cold]
fn refused(error: CountError, unchanged: impl Fn() -> bool) -> Stop {
    // The refusal was a relaxed load. Pairs with the release by which the frame went: whoever let it go had broken the entry.
    fence(Ordering::Acquire);
    match error {
        CountError::NotExclusive => Stop::Unready,
        CountError::Free | CountError::Frozen | CountError::OtherOrder if !unchanged() => Stop::Raced,
        // A large leaf over frames that were not handed out as one block has no word that stands for all of it.
        CountError::OtherOrder => Stop::NotPinnable,
        CountError::Overflow => Stop::CountOverflow,
        CountError::OtherKind => Stop::OtherKind,
        CountError::Sole => Stop::Sole,
        CountError::NotPinnable => Stop::NotPinnable,
        _ => Stop::Contended,
    }
}
