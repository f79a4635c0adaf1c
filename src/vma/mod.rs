//! VMAs: what a stretch of user address space is for, as far as memory management asks.

#![forbid(unsafe_code)]

mod options;
mod terms;

use crate::addr::{PageAddr, UserRange};
use crate::arch::MemoryType;
use crate::rights::Rights;
use options::KEYS;
pub use options::{MapOptions, VmaError, VmaFlags};
pub(crate) use terms::Terms;

/// A number by which the kernel's [`Objects`](crate::Objects) know a file, a memfd, or any other thing that has pages of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub u32);

/// What fills the pages of a VMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backing {
    /// Zero-filled private memory, copied on write after fork.
    Anonymous,
    /// Frames that are not the crate's to count: device registers, foreign memory. Never pinned, shared by fork. Whoever maps
    /// them knows how they may be accessed.
    Foreign(MemoryType),
    /// Pages of an object.
    Object {
        /// Which.
        id: ObjectId,
        /// The object's page that the first of the VMA shows; the others follow.
        page: u32,
        /// What is written becomes the object's, and a pin is one of the object's page (`MAP_SHARED`). Otherwise the first write, or pin,
        /// makes a copy of the page (`MAP_PRIVATE`).
        shared: bool,
    },
}

impl Backing {
    /// Whether the frames are not the crate's to count.
    #[must_use]
    #[inline(always)]
    pub const fn is_foreign(self) -> bool {
        matches!(self, Self::Foreign(_))
    }

    /// How the pages are accessed: private memory is write-back.
    #[must_use]
    pub const fn memory_type(self) -> MemoryType {
        match self {
            Self::Anonymous | Self::Object { .. } => MemoryType::WRITE_BACK,
            Self::Foreign(memory) => memory,
        }
    }

    /// Whether its pages are an object's, for everybody who maps them.
    #[must_use]
    #[inline(always)]
    pub const fn is_shared(self) -> bool {
        matches!(self, Self::Object { shared: true, .. })
    }

    /// Whether what is written stays this mm's.
    #[must_use]
    #[inline(always)]
    pub const fn is_private(self) -> bool {
        matches!(self, Self::Anonymous | Self::Object { shared: false, .. })
    }
}

/// A stretch of pages with the same rights and backing.
///
/// It has at least one page, a protection key that there is, and no right beyond its `max_rights`.
///
/// The logical right to write is [`rights`](Self::rights), never the W bit of an entry: a page that is copied on write is
/// read-only in hardware and writable by right.
///
/// ```
/// use pagepin::{Backing, Levels, PageAddr, Rights, UserRange, Vma, VmaFlags};
/// let range = UserRange::pages_only(Levels::Four.user_half(), 0x10000, 0x4000).unwrap();
/// let vma = Vma::new(range, Backing::Anonymous, Rights::READ | Rights::WRITE)?;
/// assert!(vma.pages() == 4 && vma.contains(PageAddr::containing(0x13fff)) && vma.pages_are_inherited());
/// let (lower, upper) = vma.split_at(PageAddr::containing(0x12000)).unwrap();
/// assert_eq!(lower.with_rights(Rights::READ)?.try_join(upper), None); // they differ now
/// assert_eq!(lower.try_join(upper), Some(vma));
/// assert!(!vma.with_flags(VmaFlags::DONT_FORK)?.pages_are_inherited());
/// # Ok::<(), pagepin::VmaError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Vma {
    // Before the addresses: behind them, the compiler copies a VMA in parts that overlap, and the loads of the copy wait for
    // two stores each, a quarter of a fault's time.
    terms: Terms,
    /// Of an object: which, and its page at the VMA's first. Otherwise 0.
    object: u32,
    page: u32,
    start: PageAddr,
    end: PageAddr,
}

static_assertions::const_assert!(size_of::<Vma>() == 32);

impl Vma {
    /// The pages of `range`.
    ///
    /// # Errors
    /// [`VmaError`].
    pub fn new(range: UserRange, backing: Backing, options: impl Into<MapOptions>) -> Result<Self, VmaError> {
        let options = options.into();
        let flags = options.key_and_flags.flags();
        if options.key_and_flags.key() >= KEYS {
            return Err(VmaError::InvalidKey);
        }
        let (object, page) = match backing {
            Backing::Anonymous | Backing::Foreign(_) => (0, 0),
            Backing::Object { id, page, .. } => (id.0, page),
        };
        let terms = Terms::new(options, backing);
        if terms.is_object() && range.pages() > u64::from(u32::MAX - page) {
            return Err(VmaError::PageOverflow);
        }
        let vma = Self { start: range.first_page(), end: range.end_page(), terms, object, page };
        vma.with_rights(options.rights)?.with_flags(flags)
    }

    /// First page.
    #[must_use]
    #[inline(always)]
    pub const fn start(&self) -> PageAddr {
        self.start
    }

    /// The page after the last.
    #[must_use]
    #[inline(always)]
    pub const fn end(&self) -> PageAddr {
        self.end
    }

    /// What user code may do now.
    #[must_use]
    #[inline(always)]
    pub const fn rights(&self) -> Rights {
        self.terms.rights()
    }

    /// What it may ever be given: a forced write needs `WRITE` here.
    #[must_use]
    #[inline(always)]
    pub const fn max_rights(&self) -> Rights {
        self.terms.max_rights()
    }

    /// What fills it.
    ///
    /// ```
    /// use pagepin::{Backing, Levels, Rights, UserRange, Vma};
    /// let range = UserRange::pages_only(Levels::Four.user_half(), 0x10000, 0x4000).unwrap();
    /// let vma = Vma::new(range, Backing::Anonymous, Rights::READ)?;
    /// assert!(vma.backing().is_private() && !vma.backing().is_shared() && !vma.backing().is_foreign());
    /// # Ok::<(), pagepin::VmaError>(())
    /// ```
    #[must_use]
    #[inline(always)]
    pub const fn backing(&self) -> Backing {
        match self.terms {
            anonymous if anonymous.is_anonymous() => Backing::Anonymous,
            foreign if foreign.is_foreign() => Backing::Foreign(foreign.memory()),
            object => Backing::Object { id: ObjectId(self.object), page: self.page, shared: object.is_shared() },
        }
    }

    /// What decides about a fault.
    #[inline(always)]
    pub(crate) const fn terms(&self) -> Terms {
        self.terms
    }

    /// The object that fills `page`, which lies in the VMA, and the number of that page in it.
    ///
    /// ```
    /// use pagepin::{Backing, Levels, ObjectId, PageAddr, Rights, UserRange, Vma};
    /// let range = UserRange::pages_only(Levels::Four.user_half(), 0x10000, 0x4000).unwrap();
    /// let backing = Backing::Object { id: ObjectId(7), page: 5, shared: true };
    /// let (lower, upper) = Vma::new(range, backing, Rights::READ)?.split_at(PageAddr::containing(0x12000)).unwrap();
    /// assert_eq!(upper.object_page(PageAddr::containing(0x13000)), Some((ObjectId(7), 8)));
    /// assert!(lower.try_join(upper).is_some(), "they follow one another in the object");
    /// # Ok::<(), pagepin::VmaError>(())
    /// ```
    #[must_use]
    pub const fn object_page(&self, page: PageAddr) -> Option<(ObjectId, u32)> {
        if !self.terms.is_object() {
            return None;
        }
        // Neither wraps: a VMA ends before the last page that an object can have.
        Some((ObjectId(self.object), self.page + self.start.pages_to(page) as u32))
    }

    /// Protection key of its pages (0..16).
    #[must_use]
    #[inline(always)]
    pub const fn key(&self) -> u8 {
        self.terms.key()
    }

    /// What operations do otherwise with it.
    #[must_use]
    #[inline(always)]
    pub const fn flags(&self) -> VmaFlags {
        self.terms.flags()
    }

    /// The kernel's own number: see [`MapOptions::data`].
    #[must_use]
    pub const fn data(&self) -> u16 {
        self.terms.data()
    }

    /// Whether a child of fork gets the pages with the VMA. It finds those of an object that is shared when it wants them.
    #[must_use]
    pub const fn pages_are_inherited(&self) -> bool {
        !self.flags().intersects(VmaFlags::DONT_FORK.union(VmaFlags::WIPE_ON_FORK)) && !self.terms().is_shared()
    }

    /// Pages in the VMA.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.start.pages_to(self.end)
    }

    /// Whether `page` lies in it.
    #[must_use]
    pub fn contains(&self, page: PageAddr) -> bool {
        self.start <= page && page < self.end
    }

    /// The same pages with other rights.
    ///
    /// # Errors
    /// [`VmaError::RightsExceedMax`].
    pub fn with_rights(self, rights: Rights) -> Result<Self, VmaError> {
        if !self.terms.max_rights().contains(rights) {
            return Err(VmaError::RightsExceedMax);
        }
        Ok(Self { terms: self.terms.with_rights(rights), ..self })
    }

    /// The same pages with other flags.
    ///
    /// # Errors
    /// [`VmaError::InvalidFlags`].
    pub fn with_flags(self, flags: VmaFlags) -> Result<Self, VmaError> {
        let both = VmaFlags::REFUSE_UNMAP_PINNED.union(VmaFlags::DEFER_UNMAP_PINNED);
        let only_anonymous = VmaFlags::WIPE_ON_FORK.union(VmaFlags::GROWS_DOWN);
        let other_kind = flags.intersects(only_anonymous) && !self.terms().is_anonymous();
        let other_pages = flags.contains(VmaFlags::UNPINNABLE) != self.terms().is_unpinnable();
        if other_kind || other_pages || flags.contains(both) || flags.contains(VmaFlags::UNMAP_DEFERRED) {
            return Err(VmaError::InvalidFlags);
        }
        Ok(Self { terms: self.terms.with_flags(flags), ..self })
    }

    /// The same pages while their unmap waits for pins: for nobody to access or inherit.
    ///
    /// ```
    /// use pagepin::{Backing, Levels, Rights, UserRange, Vma};
    /// let range = UserRange::pages_only(Levels::Four.user_half(), 0x10000, 0x4000).unwrap();
    /// let vma = Vma::new(range, Backing::Anonymous, Rights::READ)?.with_unmap_deferred();
    /// assert!(vma.rights().is_empty() && !vma.pages_are_inherited());
    /// # Ok::<(), pagepin::VmaError>(())
    /// ```
    #[must_use]
    pub const fn with_unmap_deferred(self) -> Self {
        let flags = self.flags().union(VmaFlags::UNMAP_DEFERRED).union(VmaFlags::DONT_FORK);
        Self { terms: self.terms.with_flags(flags).without_rights(), ..self }
    }

    /// The parts below `page` and from it on, if both have pages.
    #[must_use]
    pub fn split_at(self, page: PageAddr) -> Option<(Self, Self)> {
        let upper = || Self { start: page, page: self.object_page(page).map_or(0, |(_, page)| page), ..self };
        (self.start < page && page < self.end).then(|| (Self { end: page, ..self }, upper()))
    }

    /// Its part in `first..end`, if it has some.
    #[cfg(feature = "alloc")]
    pub(crate) fn part(self, first: PageAddr, end: PageAddr) -> Option<Self> {
        let upper = if first > self.start { self.split_at(first)?.1 } else { self };
        if end < upper.end { Some(upper.split_at(end)?.0) } else { Some(upper) }
    }

    /// The same with pages below it, down to `start`. Of anonymous memory, which has no numbers of pages.
    #[cfg(feature = "alloc")]
    pub(crate) const fn extended_down(self, start: PageAddr) -> Self {
        Self { start, ..self }
    }

    /// The same at other addresses.
    #[cfg(feature = "alloc")]
    pub(crate) const fn moved_to(self, start: PageAddr) -> Self {
        Self { start, end: start.offset(self.pages()), ..self }
    }

    /// This and the VMA `upper` as one, if `upper` begins where this ends and nothing else tells them apart. Unmaps that wait are never
    /// joined: each waits for its own pins.
    #[must_use]
    pub fn try_join(self, upper: Self) -> Option<Self> {
        let alike = (self.terms, self.object) == (upper.terms, upper.object);
        let follows = self.object_page(self.end).is_none_or(|(_, page)| page == upper.page);
        let waits = self.flags().contains(VmaFlags::UNMAP_DEFERRED);
        (self.end == upper.start && alike && follows && !waits).then_some(Self { end: upper.end, ..self })
    }
}
