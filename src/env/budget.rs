//! Who pays for pins.

use core::fmt;

use crate::errno::ENOMEM;
use crate::primitive::{AtomicU64, Ordering, const_fn};

/// How long a pin lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinTerm {
    /// For one transfer.
    Short,
    /// For as long as user space wants ([`PinFlags::LONGTERM`](crate::pin::PinFlags::LONGTERM)).
    Long,
}

/// The owner of an mm may not pin more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetExceeded;

impl BudgetExceeded {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        ENOMEM
    }
}

impl fmt::Display for BudgetExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the pin budget is exhausted")
    }
}

impl core::error::Error for BudgetExceeded {}

/// A limit on what an mm pins. Asked before anything is taken, so that a limit is an error and never a saturated
/// counter that user space can probe.
///
/// A pin keeps whole leaves: one page of a 2 MiB leaf costs 512 ([`PhysRun::held_pages`](crate::pin::PhysRun::held_pages)). How large
/// leaves are is found when they are pinned, so the rest of them is asked for then, and if it is refused everything is given back.
/// Two pins of parts of a leaf cost it twice, as two pins of a page do.
///
/// Gets are short and are not charged.
pub trait PinBudget: Sync {
    /// May `pages` base pages (more) be pinned?
    ///
    /// # Errors
    /// [`BudgetExceeded`]: nothing was charged.
    fn charge(&self, pages: u64, term: PinTerm) -> Result<(), BudgetExceeded>;

    /// `pages` of earlier charges for the same term are no longer pinned. May be called from interrupt context.
    fn uncharge(&self, pages: u64, term: PinTerm);
}

// A budget may be shared: by reference, or by count.
impl<T: PinBudget + ?Sized> PinBudget for &T {
    #[inline(always)]
    fn charge(&self, pages: u64, term: PinTerm) -> Result<(), BudgetExceeded> {
        (**self).charge(pages, term)
    }
    #[inline(always)]
    fn uncharge(&self, pages: u64, term: PinTerm) {
        (**self).uncharge(pages, term);
    }
}

#[cfg(feature = "alloc")]
impl<T: PinBudget + Send + ?Sized> PinBudget for alloc::sync::Arc<T> {
    #[inline(always)]
    fn charge(&self, pages: u64, term: PinTerm) -> Result<(), BudgetExceeded> {
        (**self).charge(pages, term)
    }
    #[inline(always)]
    fn uncharge(&self, pages: u64, term: PinTerm) {
        (**self).uncharge(pages, term);
    }
}

/// No limit.
#[derive(Clone, Copy, Debug)]
pub struct Unlimited;

impl PinBudget for Unlimited {
    #[inline(always)]
    fn charge(&self, _: u64, _: PinTerm) -> Result<(), BudgetExceeded> {
        Ok(())
    }
    #[inline(always)]
    fn uncharge(&self, _: u64, _: PinTerm) {}
}

/// A fixed number of base pages, all pins together.
///
/// ```
/// use pagepin::{PinBudget, PinLimit, PinTerm};
/// let limit = PinLimit::new(8);
/// limit.charge(6, PinTerm::Short).unwrap();
/// assert!(limit.charge(3, PinTerm::Short).is_err());
/// assert_eq!(limit.used(), 6);
/// ```
#[derive(Debug)]
pub struct PinLimit {
    limit: u64,
    used: AtomicU64,
}

impl PinLimit {
    const_fn! {
        /// At most `limit` base pages; `u64::MAX` means no limit, and then nothing is counted.
        #[must_use]
        pub const fn new(limit: u64) -> Self {
            Self { limit, used: AtomicU64::new(0) }
        }
    }

    /// Base pages charged now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

impl PinBudget for PinLimit {
    #[inline]
    fn charge(&self, pages: u64, _: PinTerm) -> Result<(), BudgetExceeded> {
        if self.limit == u64::MAX {
            return Ok(());
        }
        let within = |used: u64| used.checked_add(pages).filter(|sum| *sum <= self.limit);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within) {
            Ok(_) => Ok(()),
            Err(_) => Err(BudgetExceeded),
        }
    }

    #[inline]
    fn uncharge(&self, pages: u64, _: PinTerm) {
        if self.limit != u64::MAX {
            // Safe code may call this too often. The limit is then its own affair, but the count does not wrap.
            let less = |used: u64| Some(used.saturating_sub(pages));
            let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }
}

/// Two limits: for pins that end with their transfer, and for those that last as long as user space wants. A process that may lend
/// much for a moment need not be one that may keep it.
///
/// ```
/// use pagepin::{PinBudget, PinLimits, PinTerm};
/// let limits = PinLimits::new(1024, 16);
/// assert!(limits.charge(17, PinTerm::Long).is_err());
/// assert!(limits.charge(17, PinTerm::Short).is_ok());
/// assert_eq!((limits.used(PinTerm::Short), limits.used(PinTerm::Long)), (17, 0));
/// ```
#[derive(Debug)]
pub struct PinLimits {
    short: PinLimit,
    long: PinLimit,
}

impl PinLimits {
    const_fn! {
        /// At most so many base pages of each; `u64::MAX` means no limit, and then nothing is counted.
        #[must_use]
        pub const fn new(short: u64, long: u64) -> Self {
            Self { short: PinLimit::new(short), long: PinLimit::new(long) }
        }
    }

    /// Base pages charged now.
    #[must_use]
    pub fn used(&self, term: PinTerm) -> u64 {
        self.of(term).used()
    }

    #[inline(always)]
    const fn of(&self, term: PinTerm) -> &PinLimit {
        match term {
            PinTerm::Short => &self.short,
            PinTerm::Long => &self.long,
        }
    }
}

impl PinBudget for PinLimits {
    #[inline]
    fn charge(&self, pages: u64, term: PinTerm) -> Result<(), BudgetExceeded> {
        self.of(term).charge(pages, term)
    }

    #[inline]
    fn uncharge(&self, pages: u64, term: PinTerm) {
        self.of(term).uncharge(pages, term);
    }
}
