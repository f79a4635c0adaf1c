//! [`Lent`]: pinned pages that a device may be using, which are not given back before it has stopped.
//!
//! A guard that releases itself is right for a copy, and wrong for DMA: on an early return, or when a request is given up, it would
//! hand the frames on while the device still writes them. So whoever starts a device lends it the range first. The way back is
//! `unsafe`, since only the driver can know; and who takes none leaves the frames where they are, in the kernel's [`Quarantine`].

use core::fmt;
use core::mem::ManuallyDrop;

use super::pinned::ledger;
use super::release::release_runs;
use super::{ByteRun, Lender, PhysRun, PinAccess, PinnedRange, RunBuffer};
use crate::addr::UserRange;
use crate::env::{
    Env, ExtraParts, LedgerTable, LostLoan, PinBudget, PinLedger, PinRecord, Quarantine, Through, bug_caught,
};
use crate::frame::Dirty;
use crate::primitive::const_fn;
use crate::rights::Access;

/// A pinned range that a device may be using. See [`PinnedRange::lend`].
///
/// Dropping it does **not** unpin: the pins go to the kernel's [`Quarantine`], and the charge for them back to the budget, since what
/// holds the frames from now on is not the process.
#[must_use = "dropping it sends the pages to quarantine"]
pub struct Lent<L: Lender, A: PinAccess, B: RunBuffer> {
    range: ManuallyDrop<PinnedRange<L, A, B>>,
    device: u64,
}

impl<L: Lender, A: PinAccess, B: RunBuffer> PinnedRange<L, A, B> {
    /// For a device to use, from now on. To be called before the device is told of the addresses.
    ///
    /// ```
    /// # use pagepin::pin::{Lender, PhysRun, PinnedRange, Write};
    /// # fn start(address: u64, length: u64) {}
    /// # fn wait_for_completion() -> Result<(), ()> { Ok(()) }
    /// # fn example<L: Lender>(pinned: PinnedRange<L, Write, [PhysRun; 1]>) -> Result<(), ()> {
    /// let lent = pinned.lend();
    /// lent.byte_runs().for_each(|run| start(run.address, run.length));
    /// wait_for_completion()?; // on an error the pages are quarantined
    /// // SAFETY: the device has reported the end of the transfer, which is its last access.
    /// let pinned = unsafe { lent.complete() };
    /// # Ok(())
    /// # }
    /// ```
    pub fn lend(self) -> Lent<L, A, B> {
        self.lend_to(0)
    }

    /// As [`lend`](Self::lend), to a device with a number of the kernel's own, by which a quarantine knows whose reset it waits for.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
    /// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
    /// let pinned = space.pin(Write, space.range(0x10000, 512)?, [PhysRun::default(); 1])?;
    /// let lent = pinned.lend_to(3);
    /// assert_eq!(lent.device(), 3);
    /// // SAFETY: no device was told of the addresses.
    /// drop(unsafe { lent.complete() });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lend_to(self, device: u64) -> Lent<L, A, B> {
        Lent { range: ManuallyDrop::new(self), device }
    }
}

impl<L: Lender, A: PinAccess, B: RunBuffer> Lent<L, A, B> {
    /// The bytes of the range in physical memory, in order.
    pub fn byte_runs(&self) -> impl Iterator<Item = ByteRun> + '_ {
        self.range.byte_runs()
    }

    /// The range that is lent.
    #[must_use]
    pub fn range(&self) -> UserRange {
        self.range.range()
    }

    /// The frames.
    #[must_use]
    pub fn runs(&self) -> &[PhysRun] {
        self.range.runs()
    }

    /// The device to which it is lent.
    #[must_use]
    pub fn device(&self) -> u64 {
        self.device
    }

    /// The device has stopped: the range is the caller's again.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
    /// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
    /// let lent = space.pin(Write, space.range(0x10000, 512)?, [PhysRun::default(); 1])?.lend();
    /// // SAFETY: no device was told of the addresses.
    /// let pinned = unsafe { lent.complete() };
    /// assert_eq!(pinned.range().length(), 512);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Safety
    /// The device does not access the pages any more, and will not because of anything that it was told of them: the transfer has
    /// ended, or the device was reset; and, with an IOMMU, they are unmapped there and no translation of them is cached.
    pub unsafe fn complete(self) -> PinnedRange<L, A, B> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, nor used again.
        unsafe { ManuallyDrop::take(&mut this.range) }
    }
}

impl<L: Lender, A: PinAccess, B: RunBuffer> Drop for Lent<L, A, B> {
    fn drop(&mut self) {
        // SAFETY: a value is dropped once, and the range not used after that.
        let (lender, pins) = unsafe { ManuallyDrop::take(&mut self.range) }.into_pages().into_parts();
        let (kernel, term) = (lender.kernel(), pins.flags().term());
        ledger(kernel).quarantine(pins.ticket);
        let loan =
            LostLoan { device: self.device, range: pins.collected.range, runs: pins.runs(), access: A::ACCESS, term };
        let quarantine = kernel.extras().quarantine();
        if keeps(quarantine) {
            quarantine.hold(&loan)
        } else {
            bug_caught(kernel)
        }
        lender.budget().uncharge(pins.charged_pages(), term);
    }
}

const fn keeps<Q: Quarantine>(_: &Q) -> bool {
    Q::KEEPS
}

impl<L: Lender, A: PinAccess, B: RunBuffer> fmt::Debug for Lent<L, A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("range", &*self.range).field("device", &self.device).finish()
    }
}

/// A run of frames in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The device that may be using it.
    pub device: u64,
    /// Where the user range begins.
    pub start: u64,
    /// Its bytes.
    pub length: u64,
    /// The frames, all or a part of the range.
    pub run: PhysRun,
    /// What the device may do with them.
    pub access: Access,
    /// Since when, by the table's clock.
    pub since: u64,
}

/// A [`Quarantine`] with room for `N` runs: no lock, no allocation. Runs for which there is none stay pinned for ever, and are counted.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # fn ticks() -> u64 { 0 }
/// static QUARANTINE: QuarantineTable<64> = QuarantineTable::new(ticks);
/// let kernel = kernel.with_extras(Extras::new().quarantine(&QUARANTINE));
/// let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// drop(space.pin(Write, space.range(0x10000, 512)?, [PhysRun::default(); 1])?.lend_to(3)); // the driver gave up
/// assert_eq!(QUARANTINE.runs().map(|run| run.device).collect::<Vec<_>>(), [3]);
/// // SAFETY: device 3 was reset.
/// assert_eq!(unsafe { QUARANTINE.device_was_reset(&&kernel, 3) }, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct QuarantineTable<const N: usize>(LedgerTable<N>);

impl<const N: usize> QuarantineTable<N> {
    const_fn! {
        /// An empty one, which dates what comes by `clock`; see [`LedgerTable::new`].
        #[must_use]
        pub const fn new(clock: fn() -> u64) -> Self {
            Self(LedgerTable::new(clock))
        }
    }

    /// What is in it.
    pub fn runs(&self) -> impl Iterator<Item = Quarantined> + '_ {
        self.0.records().map(|entry| Quarantined {
            device: entry.tag,
            start: entry.start,
            length: entry.length,
            run: entry.run,
            access: entry.access,
            since: entry.time,
        })
    }

    /// Runs that did not fit.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.missed()
    }

    /// Gives the frames back that `device` had. How many runs there were.
    ///
    /// # Safety
    /// The device was reset, or is gone: it will not access any of them, as [`Lent::complete`] says. All of them were lent through
    /// `kernel`.
    pub unsafe fn device_was_reset<K: Env>(&self, kernel: &K, device: u64) -> usize {
        let mut released = 0;
        self.0.take_matching(|entry| entry.tag == device, &mut |entry| {
            ledger(kernel).released_by_number(entry.run);
            release_runs::<K, true>(kernel, &[entry.run], Dirty::when(entry.access == Access::Write));
            released += 1;
        });
        released
    }
}

impl<const N: usize> Quarantine for QuarantineTable<N> {
    fn hold(&self, loan: &LostLoan<'_>) {
        let &LostLoan { device, range, runs, access, term } = loan;
        self.0.record(&PinRecord { through: Through::FRAMES, tag: device, range, runs, access, term });
    }
}
