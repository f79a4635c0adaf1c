//! Who pins what: what a kernel may be told of every pin.

#![forbid(unsafe_code)]

use core::fmt;

use super::{Env, ExtraParts, PinTerm, StillPinned};
use crate::addr::{Pfn, PhysRun, UserRange};
use crate::rights::Access;
use crate::vma::ObjectId;

/// Through what pins were taken: an address space or an object. One word, so that a record costs no more.
///
/// ```
/// use pagepin::{ObjectId, Pfn, Through};
/// let (space, object) = (Through::space(Pfn::new(7)), Through::object(ObjectId(3)));
/// assert_eq!((space.as_space(), space.as_object()), (Some(Pfn::new(7)), None));
/// assert_eq!((object.as_space(), object.as_object()), (None, Some(ObjectId(3))));
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Through(u64);

impl Through {
    /// What no frame number reaches.
    const OBJECT: u64 = 1 << 63;
    /// Neither: frames that a device did not give back.
    pub(crate) const FRAMES: Self = Self(1 << 62);

    /// An address space, by its top table.
    #[must_use]
    #[inline(always)]
    pub const fn space(root: Pfn) -> Self {
        Self(root.number())
    }

    /// An object, whoever shows it.
    #[must_use]
    pub const fn object(id: ObjectId) -> Self {
        Self(Self::OBJECT | id.0 as u64)
    }

    /// The top table of the address space, if it is one.
    #[must_use]
    pub const fn as_space(self) -> Option<Pfn> {
        if self.0 & (Self::OBJECT | Self::FRAMES.0) == 0 { Some(Pfn::new(self.0)) } else { None }
    }

    /// The object, if it is one.
    #[must_use]
    pub const fn as_object(self) -> Option<ObjectId> {
        if self.0 & Self::OBJECT != 0 { Some(ObjectId(self.0 as u32)) } else { None }
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    #[inline(always)]
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Through {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.as_space(), self.as_object()) {
            (Some(root), _) => write!(f, "Space({root:?})"),
            (_, Some(object)) => object.fmt(f),
            _ => f.write_str("Frames"),
        }
    }
}

/// One acquisition, as a [`PinLedger`] hears of it.
#[derive(Clone, Copy, Debug)]
pub struct PinRecord<'a> {
    /// The address space, or the object.
    pub through: Through,
    /// Who it is for: [`AddressSpace::tag`](crate::AddressSpace::tag).
    pub tag: u64,
    /// What was asked for, of the addresses of the one or the bytes of the other; pinned are the first pages of it, as many as `runs` have.
    pub range: UserRange,
    /// The frames.
    pub runs: &'a [PhysRun],
    /// What the holder may do with them: read, or write as well.
    pub access: Access,
    /// For how long.
    pub term: PinTerm,
}

/// How an address space ended.
#[derive(Clone, Copy, Debug)]
pub struct SpaceEnd<'a> {
    /// Its top table, which is freed next.
    pub space: Pfn,
    /// Who it was for: [`AddressSpace::tag`](crate::AddressSpace::tag).
    pub tag: u64,
    /// Base pages that it had mapped and that stay pinned.
    pub pinned_pages: u64,
    /// Which.
    pub still_pinned: &'a StillPinned,
}

/// A book about pins: each acquisition is entered when it is made, and struck out when it ends. Pins are counted all the same; a
/// ledger knows whose they are. `()` keeps none, and costs nothing. [`LedgerTable`](crate::LedgerTable) is a ready-made one.
///
/// A guard carries the ticket of its record, and so do the raw pins that it may become. All methods may be called from interrupt
/// context, and on several CPUs at once.
pub trait PinLedger: Sync {
    /// Finds the record again.
    type Ticket: Copy + Send;

    /// Whether there is anything to record. If not, nobody puts a record together.
    const KEEPS: bool = true;

    /// Enters an acquisition.
    fn record(&self, record: &PinRecord<'_>) -> Self::Ticket;

    /// It has ended. Called before the frames are given back, so that no record names a frame that is somebody else's by now.
    fn forget(&self, ticket: Self::Ticket);

    /// It is for somebody else: [`Pinned::tagged`](crate::pin::Pinned::tagged).
    fn retag(&self, ticket: Self::Ticket, tag: u64) {
        let _ = (ticket, tag);
    }

    /// Its device did not say that it has stopped: [`Lent`](crate::pin::Lent).
    fn quarantine(&self, ticket: Self::Ticket) {
        let _ = ticket;
    }

    /// A run was released by its number, without a ticket. Which record it was of can only be guessed.
    fn released_by_number(&self, run: PhysRun) {
        let _ = run;
    }

    /// An address space has ended: by `UserSpace::exit`, or because it was dropped. What is recorded
    /// of it was left behind. A kernel that keeps no records, and wants to hear of frames that stay pinned, has a ledger with
    /// nothing else but this.
    fn space_ends(&self, end: &SpaceEnd<'_>) {
        let _ = end;
    }
}

/// What the guards of kernel `K` carry.
pub type Ticket<K> = <<<K as Env>::Extras as ExtraParts>::Ledger as PinLedger>::Ticket;

/// No ledger.
impl PinLedger for () {
    type Ticket = ();
    const KEEPS: bool = false;

    #[inline(always)]
    fn record(&self, _: &PinRecord<'_>) {}
    #[inline(always)]
    fn forget(&self, (): ()) {}
}

impl<T: PinLedger + ?Sized> PinLedger for &T {
    type Ticket = T::Ticket;
    const KEEPS: bool = T::KEEPS;

    #[inline(always)]
    fn record(&self, record: &PinRecord<'_>) -> T::Ticket {
        (**self).record(record)
    }
    #[inline(always)]
    fn forget(&self, ticket: T::Ticket) {
        (**self).forget(ticket);
    }
    #[inline(always)]
    fn retag(&self, ticket: T::Ticket, tag: u64) {
        (**self).retag(ticket, tag);
    }
    #[inline(always)]
    fn quarantine(&self, ticket: T::Ticket) {
        (**self).quarantine(ticket);
    }
    #[inline(always)]
    fn released_by_number(&self, run: PhysRun) {
        (**self).released_by_number(run);
    }
    #[inline(always)]
    fn space_ends(&self, end: &SpaceEnd<'_>) {
        (**self).space_ends(end);
    }
}
