//! VMAs: what a stretch of user address space is for, as far as memory management asks.

#![forbid(unsafe_code)]

mod options;

use crate::addr::{PageAddr, UserRange};
use crate::arch::MemoryType;
use crate::rights::Rights;
use options::KEYS;
pub use options::{MapOptions, VmaError, VmaFlags};

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
    options: MapOptions,
    filling: Filling,
    /// Of an object: which, and its page at the VMA's first. Otherwise 0. Apart from [`Filling`], so that a VMA has 32 bytes.
    object: u32,
    page: u32,
    start: PageAddr,
    end: PageAddr,
}

/// What of a VMA decides about a fault: its rights, its key, and what kind of thing fills it. Eight bytes, so that a fault copies no more
/// of the VMA that it has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Terms {
    options: MapOptions,
    filling: Filling,
}

static_assertions::const_assert!(size_of::<Terms>() == 8);

impl Terms {
    #[inline(always)]
    pub(crate) const fn rights(self) -> Rights {
        self.options.rights
    }
    #[inline(always)]
    pub(crate) const fn max_rights(self) -> Rights {
        self.options.max_rights
    }
    #[inline(always)]
    pub(crate) const fn key(self) -> u8 {
        self.options.key_and_flags.key()
    }
    #[inline(always)]
    pub(crate) const fn is_anonymous(self) -> bool {
        self.filling.is_anonymous()
    }
    #[inline(always)]
    pub(crate) const fn is_foreign(self) -> bool {
        self.filling.is_foreign()
    }
    /// As [`Backing::is_shared`].
    #[inline(always)]
    pub(crate) const fn is_shared(self) -> bool {
        self.filling.has(Filling::SHARED)
    }
    /// As [`Backing::is_private`].
    #[inline(always)]
    pub(crate) const fn is_private(self) -> bool {
        !self.filling.has(Filling::SHARED | Filling::FOREIGN)
    }
    /// Nobody pins its pages: [`VmaFlags::UNPINNABLE`].
    #[inline(always)]
    pub(crate) const fn is_unpinnable(self) -> bool {
        self.filling.has(Filling::UNPINNABLE)
    }
    /// Pages of an object fill it.
    #[inline(always)]
    pub(crate) const fn is_object(self) -> bool {
        self.filling.is_object()
    }
    /// Anonymous, and pinned as any other: one look.
    #[inline(always)]
    pub(crate) const fn is_plain(self) -> bool {
        self.filling.kind == 0
    }
    /// The same for a fault whose page is to stay where it is: new frames are taken where they may.
    pub(crate) const fn staying(self) -> Self {
        if self.is_foreign() {
            return self;
        }
        Self { filling: Filling { memory: Filling::STAYS, ..self.filling }, ..self }
    }

    /// Whether it was made [`staying`](Self::staying). Not asked of foreign memory, for which no frame is taken.
    #[inline(always)]
    pub(crate) const fn stays(self) -> bool {
        self.filling.memory.pat_index() == Filling::STAYS.pat_index()
    }
}

/// A [`Backing`] without its numbers. No enum: the bits that say which it is would be taken apart and put together again with every copy of an
/// `Option<Vma>`, which would keep its own tag in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Filling {
    /// The bits below; none: anonymous.
    kind: u8,
    /// Of foreign memory. All other is write-back, so that in [`Terms`] this has room for [`STAYS`](Self::STAYS).
    memory: MemoryType,
}

impl Filling {
    /// An object's pages, and that they are shared.
    const OBJECT: u8 = 1 << 0;
    const SHARED: u8 = 1 << 1;
    const FOREIGN: u8 = 1 << 2;
    /// As the flag of this name says, which it stays with, for who asks about both at once.
    const UNPINNABLE: u8 = 1 << 3;

    /// Of memory that is not foreign: pages are about to be pinned for long.
    const STAYS: MemoryType = MemoryType::UNCACHED;

    const fn own(kind: u8) -> Self {
        Self { kind, memory: MemoryType::WRITE_BACK }
    }

    const fn foreign(memory: MemoryType) -> Self {
        Self { kind: Self::FOREIGN, memory }
    }

    #[inline(always)]
    const fn has(self, kind: u8) -> bool {
        self.kind & kind != 0
    }

    #[inline(always)]
    const fn is_anonymous(self) -> bool {
        !self.has(Self::OBJECT | Self::FOREIGN)
    }

    #[inline(always)]
    const fn is_foreign(self) -> bool {
        self.has(Self::FOREIGN)
    }

    #[inline(always)]
    const fn is_object(self) -> bool {
        self.has(Self::OBJECT)
    }
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
        let (mut filling, object, page) = match backing {
            Backing::Anonymous => (Filling::own(0), 0, 0),
            Backing::Foreign(memory) => (Filling::foreign(memory), 0, 0),
            Backing::Object { id, page, shared: false } => (Filling::own(Filling::OBJECT), id.0, page),
            Backing::Object { id, page, shared: true } => (Filling::own(Filling::OBJECT | Filling::SHARED), id.0, page),
        };
        if flags.contains(VmaFlags::UNPINNABLE) {
            filling.kind |= Filling::UNPINNABLE;
        }
        if filling.is_object() && range.pages() > u64::from(u32::MAX - page) {
            return Err(VmaError::PageOverflow);
        }
        let vma = Self { start: range.first_page(), end: range.end_page(), options, filling, object, page };
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
        self.options.rights
    }

    /// What it may ever be given: a forced write needs `WRITE` here.
    #[must_use]
    #[inline(always)]
    pub const fn max_rights(&self) -> Rights {
        self.options.max_rights
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
        match self.filling {
            anonymous if anonymous.is_anonymous() => Backing::Anonymous,
            foreign if foreign.is_foreign() => Backing::Foreign(foreign.memory),
            object => {
                Backing::Object { id: ObjectId(self.object), page: self.page, shared: object.has(Filling::SHARED) }
            }
        }
    }

    /// What decides about a fault.
    #[inline(always)]
    pub(crate) const fn terms(&self) -> Terms {
        Terms { options: self.options, filling: self.filling }
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
        if !self.filling.is_object() {
            return None;
        }
        // Neither wraps: a VMA ends before the last page that an object can have.
        Some((ObjectId(self.object), self.page + self.start.pages_to(page) as u32))
    }

    /// Protection key of its pages (0..16).
    #[must_use]
    #[inline(always)]
    pub const fn key(&self) -> u8 {
        self.options.key_and_flags.key()
    }

    /// What operations do otherwise with it.
    #[must_use]
    #[inline(always)]
    pub const fn flags(&self) -> VmaFlags {
        self.options.key_and_flags.flags()
    }

    /// The kernel's own number: see [`MapOptions::data`].
    #[must_use]
    pub const fn data(&self) -> u16 {
        self.options.data
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
        if !self.options.max_rights.contains(rights) {
            return Err(VmaError::RightsExceedMax);
        }
        Ok(Self { options: MapOptions { rights, ..self.options }, ..self })
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
        Ok(Self { options: self.options.flags(flags), ..self })
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
        let options = MapOptions { rights: Rights::empty(), max_rights: Rights::empty(), ..self.options.flags(flags) };
        Self { options, ..self }
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
        let alike = (self.options, self.filling, self.object) == (upper.options, upper.filling, upper.object);
        let follows = self.object_page(self.end).is_none_or(|(_, page)| page == upper.page);
        let waits = self.flags().contains(VmaFlags::UNMAP_DEFERRED);
        (self.end == upper.start && alike && follows && !waits).then_some(Self { end: upper.end, ..self })
    }
}
