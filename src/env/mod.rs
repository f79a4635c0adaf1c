//! What a kernel provides. One small trait per duty, `&self` methods, no globals.
//!
//! | trait | duty | ready-made |
//! |---|---|---|
//! | [`PhysMap`] | physical frame -> pointer | [`OffsetPhysMap`] |
//! | [`FrameTable`] | frame number -> [`PageFrame`](crate::PageFrame) | [`FlatFrameTable`] |
//! | [`FrameSource`] | allocate and free frames | [`FrameAllocatorSource`](crate::FrameAllocatorSource) |
//! | [`ReadSide`] | keep table pages alive during a lockless walk | `SingleCpu`, [`EpochReadSide`](crate::EpochReadSide) |
//! | [`Shootdown`] | flush TLBs and wait for the acknowledgement | `SingleCpu` |
//! | [`PinBudget`] | limit what an mm pins | [`PinLimit`], [`Unlimited`] |
//! | [`AddressSpace`](crate::AddressSpace) | VMAs and locks of one mm | `UserSpace` (feature `alloc`) |
//!
//! [`Platform`] bundles one of each into an [`Env`], which is what the operations are generic over.

mod address_space;
mod budget;
mod counters;
mod frame_source;
mod frame_table;
mod mm;
mod phys_map;
mod read_side;
mod shootdown;

use spin::relax::{RelaxStrategy, Spin};

use core::marker::PhantomData;

use crate::primitive::const_fn;

pub use address_space::{AddressSpace, ForeignFault, Vmas};
pub use budget::{BudgetExceeded, PinBudget, PinLimit, PinTerm, Unlimited};
pub use counters::{CounterValues, Counters};
pub use frame_source::FrameSource;
pub(crate) use frame_source::{OwnedFrame, release};
pub use frame_table::{FlatFrameTable, FrameTable};
pub use mm::Mm;
pub use phys_map::{EntryAddr, OffsetPhysMap, PhysMap};
pub use read_side::ReadSide;
pub use shootdown::{FlushRange, Shootdown};

/// Everything the operations need from a kernel, by part.
///
/// Most kernels use [`Platform`]; implementing this trait directly is for those that keep the parts elsewhere.
pub trait Env: Sync {
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
    /// The statistics.
    fn counters(&self) -> &Counters;
}

/// A reference to a kernel is one: what each mm of a kernel that lives for ever holds.
impl<E: Env + ?Sized> Env for &E {
    type PhysMap = E::PhysMap;
    type Frames = E::Frames;
    type Source = E::Source;
    type ReadSide = E::ReadSide;
    type Shootdown = E::Shootdown;
    type Relax = E::Relax;

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
    fn counters(&self) -> &Counters {
        (**self).counters()
    }
}

/// One of each part.
#[derive(Debug)]
pub struct Platform<P, F, S, R, D, X = Spin> {
    /// The direct map.
    pub phys_map: P,
    /// The frame table.
    pub frames: F,
    /// The frame source.
    pub source: S,
    /// The read side of lockless walks.
    pub read_side: R,
    /// The TLB shootdown.
    pub shootdown: D,
    /// The statistics.
    pub counters: Counters,
    /// What a CPU does while it waits for a lock.
    pub relax: PhantomData<fn() -> X>,
}

impl<P, F, S, R, D, X> Platform<P, F, S, R, D, X> {
    const_fn! {
        /// Bundles the parts.
        pub const fn new(phys_map: P, frames: F, source: S, read_side: R, shootdown: D) -> Self {
            Self { phys_map, frames, source, read_side, shootdown, counters: Counters::new(), relax: PhantomData }
        }
    }
}

impl<P, F, S, R, D, X> Env for Platform<P, F, S, R, D, X>
where
    P: PhysMap + Sync,
    F: FrameTable + Sync,
    S: FrameSource + Sync,
    R: ReadSide + Sync,
    D: Shootdown + Sync,
    X: RelaxStrategy,
{
    type PhysMap = P;
    type Frames = F;
    type Source = S;
    type ReadSide = R;
    type Shootdown = D;
    type Relax = X;

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
    fn counters(&self) -> &Counters {
        &self.counters
    }
}

static_assertions::assert_obj_safe!(PhysMap, FrameSource, Shootdown, PinBudget);
