//! What a kernel provides. One small trait per duty, `&self` methods, no globals.
//!
//! | trait | duty | ready-made |
//! |---|---|---|
//! | [`PhysMap`] | physical frame -> pointer | [`OffsetPhysMap`] |
//! | [`FrameTable`] | frame number -> [`PageFrame`](crate::frame::PageFrame) | [`SpanFrameTable`](crate::SpanFrameTable), [`FlatFrameTable`] |
//! | [`FrameSource`] | allocate and free frames | [`BuddySource`](crate::BuddySource), [`FrameAllocatorSource`](crate::FrameAllocatorSource) |
//! | [`ReadSide`] | keep table pages alive during a lockless walk | `SingleCpu`, [`IpiShootdown`](crate::IpiShootdown), [`EpochReadSide`](crate::EpochReadSide) |
//! | [`Shootdown`] | flush TLBs and wait for the acknowledgement | `SingleCpu`, [`IpiShootdown`](crate::IpiShootdown) over [`Cpus`] |
//! | [`SwitchMm`] | load roots, and know which CPU uses which | the same |
//! | [`PinBudget`] | limit what an mm pins | [`PinLimit`], [`PinLimits`], [`Unlimited`] |
//! | [`NoPreempt`] | keep a thread on its CPU | `()` |
//! | [`PinLedger`] | know who pins what | `()`, [`LedgerTable`] |
//! | [`Quarantine`] | keep pins whose device may be at work | `()`, [`QuarantineTable`](crate::pin::QuarantineTable) |
//! | [`MmReaders`] | note which CPU reads which mm | `()`, [`CpuReaders`] |
//! | [`Objects`] | files and other things that have pages of their own | `()`, [`Stored`](crate::Stored) |
//! | [`Tokens`] | where pages are kept that are not in memory | `()`, [`Stored`](crate::Stored) |
//! | [`DeviceFrames`] | memory that drivers own | `()` |
//! | [`Statistics`] | where totals are kept | [`Counters`], [`CpuCounters`] |
//! | [`AddressSpace`](crate::AddressSpace) | VMAs and locks of one mm | `UserSpace` (feature `alloc`) |
//!
//! [`Platform`] bundles one of each into an [`Env`], which is what the operations are generic over.

mod address_space;
mod budget;
mod counters;
mod cpus;
mod device_frames;
mod extras;
mod frame_source;
mod frame_table;
mod ledger;
mod ledger_slot;
mod ledger_table;
mod mm;
mod mm_readers;
mod no_preempt;
mod objects;
mod phys_map;
mod quarantine;
mod read_side;
mod shootdown;
mod still_pinned;
mod switch_mm;
mod tokens;

use spin::relax::{RelaxStrategy, Spin};

use core::marker::PhantomData;

use crate::primitive::const_fn;

pub use address_space::{AddressSpace, ForeignFault, GrowError, NotReady, Reentered, Vmas};
pub use budget::{BudgetExceeded, PinBudget, PinLimit, PinLimits, PinTerm, Unlimited};
pub(crate) use counters::{Counted, bug_caught, count};
pub use counters::{CounterValues, Counters, CpuCounters, Statistics};
pub use cpus::{Cpus, LocalCpu};
pub use device_frames::DeviceFrames;
pub use extras::{ExtraParts, Extras};
pub use frame_source::{FrameRequest, FrameSource, Zone};
pub(crate) use frame_source::{FreedRun, OwnedFrame, born_pinned, counted_frame, is_part, release, release_block};
pub use frame_table::{FlatFrameTable, FrameTable};
pub use ledger::{PinLedger, PinRecord, SpaceEnd, Through, Ticket};
pub use ledger_table::{LedgerEntry, LedgerTable, LedgerTicket};
pub use mm::Mm;
#[cfg(feature = "alloc")]
pub(crate) use mm_readers::ReaderSlot;
pub use mm_readers::{CpuReaders, MmReaders};
pub(crate) use no_preempt::StayGuard;
pub use no_preempt::{CurrentCpu, NoPreempt};
pub use objects::{ObjectError, Objects};
pub use phys_map::{EntryAddr, EntryCell, OffsetPhysMap, PhysMap};
pub use quarantine::{LostLoan, Quarantine};
pub use read_side::ReadSide;
pub use shootdown::{FlushRange, Shootdown};
pub use still_pinned::{PinnedRun, StillPinned};
pub use switch_mm::SwitchMm;
pub use tokens::{TokenError, Tokens};

/// Everything the operations need from a kernel, by part.
///
/// Most kernels use [`Platform`]; implementing this trait directly is for those that keep the parts elsewhere.
///
/// # Implementation safety
/// Each method always returns the same part, and the parts belong together: the map reaches the memory of the source's
/// frames, and the table has their words. A frame goes back to the source that it came from, and an entry is flushed
/// where it was broken, because of this.
pub unsafe trait Env: Sync {
    /// See [`PhysMap`].
    type PhysMap: PhysMap;
    /// See [`FrameTable`].
    type Frames: FrameTable;
    /// See [`FrameSource`].
    type Source: FrameSource;
    /// See [`ReadSide`].
    type ReadSide: ReadSide;
    /// See [`Shootdown`].
    type Shootdown: Shootdown;
    /// What a CPU does while it waits for one of the crate's locks.
    ///
    /// A kernel whose locks are taken with interrupts off must answer other CPUs' flush requests here, or two CPUs
    /// wait for each other: one for the lock, the other for the acknowledgement.
    type Relax: RelaxStrategy;
    /// What has a default.
    type Extras: ExtraParts;

    /// The direct map.
    fn phys_map(&self) -> &Self::PhysMap;
    /// The frame table.
    fn frames(&self) -> &Self::Frames;
    /// The frame source.
    fn source(&self) -> &Self::Source;
    /// The read side of lockless walks.
    fn read_side(&self) -> &Self::ReadSide;
    /// The TLB shootdown.
    fn shootdown(&self) -> &Self::Shootdown;
    /// What has a default: see [`Extras`].
    fn extras(&self) -> &Self::Extras;

    /// The statistics now.
    fn statistics(&self) -> CounterValues {
        self.extras().counters().values()
    }
}

// SAFETY: forwards to an implementation. A reference to a kernel is one: what each mm of a kernel that lives for ever holds.
unsafe impl<E: Env + ?Sized> Env for &E {
    type PhysMap = E::PhysMap;
    type Frames = E::Frames;
    type Source = E::Source;
    type ReadSide = E::ReadSide;
    type Shootdown = E::Shootdown;
    type Relax = E::Relax;
    type Extras = E::Extras;

    #[inline(always)]
    fn phys_map(&self) -> &E::PhysMap {
        (**self).phys_map()
    }
    #[inline(always)]
    fn frames(&self) -> &E::Frames {
        (**self).frames()
    }
    #[inline(always)]
    fn source(&self) -> &E::Source {
        (**self).source()
    }
    #[inline(always)]
    fn read_side(&self) -> &E::ReadSide {
        (**self).read_side()
    }
    #[inline(always)]
    fn shootdown(&self) -> &E::Shootdown {
        (**self).shootdown()
    }
    #[inline(always)]
    fn extras(&self) -> &E::Extras {
        (**self).extras()
    }
}

/// One of each part, and the [`Extras`].
///
/// The parts are private: a platform is one kernel, and half of another's would not belong to it.
#[derive(Debug)]
pub struct Platform<P, F, S, R, D, X = Spin, E = Extras> {
    phys_map: P,
    frames: F,
    source: S,
    read_side: R,
    shootdown: D,
    extras: E,
    relax: PhantomData<fn() -> X>,
}

impl<P, F, S, R, D> Platform<P, F, S, R, D> {
    const_fn! {
        /// Bundles the parts of a kernel whose waiting CPUs spin.
        ///
        /// # Safety
        /// The parts belong together, as [`Env`] says: the map reaches the memory of the source's frames, and the table has
        /// their words. The kernel does not preempt its own threads, or says how it is kept from that: see
        /// [`Extras::no_preempt`].
        pub const unsafe fn new(phys_map: P, frames: F, source: S, read_side: R, shootdown: D) -> Self {
            // SAFETY: forwarded from the caller.
            unsafe { Self::with_relax(phys_map, frames, source, read_side, shootdown) }
        }
    }
}

impl<P, F, S, R, D, X> Platform<P, F, S, R, D, X> {
    const_fn! {
        /// Bundles the parts of a kernel whose waiting CPUs do something else, named by the type: see [`Env::Relax`].
        ///
        /// # Safety
        /// As [`Platform::new`].
        pub const unsafe fn with_relax(phys_map: P, frames: F, source: S, read_side: R, shootdown: D) -> Self {
            Self { phys_map, frames, source, read_side, shootdown, extras: Extras::new(), relax: PhantomData }
        }
    }
}

impl<P, F, S, R, D, X> Platform<P, F, S, R, D, X> {
    /// With parts in place of defaults.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// let kernel = kernel.with_extras(Extras::new().counters(Counters::new()));
    /// assert_eq!(kernel.statistics().bugs_caught, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_extras<E: ExtraParts>(self, extras: E) -> Platform<P, F, S, R, D, X, E> {
        let Self { phys_map, frames, source, read_side, shootdown, relax, extras: _ } = self;
        Platform { phys_map, frames, source, read_side, shootdown, relax, extras }
    }
}

// SAFETY: each method returns a field, which does not change; that they belong together is the constructor's caller's word.
unsafe impl<P, F, S, R, D, X, E> Env for Platform<P, F, S, R, D, X, E>
where
    P: PhysMap + Sync,
    F: FrameTable + Sync,
    S: FrameSource + Sync,
    R: ReadSide + Sync,
    D: Shootdown + Sync,
    X: RelaxStrategy,
    E: ExtraParts,
{
    type PhysMap = P;
    type Frames = F;
    type Source = S;
    type ReadSide = R;
    type Shootdown = D;
    type Relax = X;
    type Extras = E;

    #[inline(always)]
    fn phys_map(&self) -> &P {
        &self.phys_map
    }
    #[inline(always)]
    fn frames(&self) -> &F {
        &self.frames
    }
    #[inline(always)]
    fn source(&self) -> &S {
        &self.source
    }
    #[inline(always)]
    fn read_side(&self) -> &R {
        &self.read_side
    }
    #[inline(always)]
    fn shootdown(&self) -> &D {
        &self.shootdown
    }
    #[inline(always)]
    fn extras(&self) -> &E {
        &self.extras
    }
}

static_assertions::assert_obj_safe!(PhysMap, FrameSource, Shootdown, PinBudget);
