//! Who pins what: what a kernel may be told of every pin.

#![forbid(unsafe_code)]

use super::{Env, ExtraParts, PinTerm, StillPinned};
use crate::addr::{Pfn, PhysRun, UserRange};

/// One acquisition, as a [`PinLedger`] hears of it.
#[derive(Clone, Copy, Debug)]
pub struct PinRecord<'a> {
    /// The top table of the address space.
    pub space: Pfn,
    /// Who it is for: [`AddressSpace::tag`](crate::AddressSpace::tag).
    pub tag: u64,
    /// What was asked for; pinned are the first pages of it, as many as `runs` have.
    pub range: UserRange,
    /// The frames.
    pub runs: &'a [PhysRun],
    /// The holder may write.
    pub writes: bool,
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
