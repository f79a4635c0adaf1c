//! One page-table entry, as a value. Entries in memory are only touched through [`PhysMap`](crate::PhysMap).

use core::fmt;

use static_assertions::const_assert;

use super::software_bits::{BORROWED, FORK_EXCLUSIVE, FORK_WRITABLE, KERNEL_BITS, PROT_NONE, SPECIAL};
use super::{EntryChange, KeyRights, LeafSize, Level, MemoryType, Token};
use crate::addr::Pfn;
use crate::frame::Shared;
use crate::rights::Rights;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
/// The memory type's lowest bit (PWT), and the next (PCD). The third (PAT) has a place by the size of the leaf.
const PWT: u64 = 1 << 3;
const PCD: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// In levels 2 and 3: this entry is a leaf. In level 1 the same bit belongs to the memory type; in 4 and 5 it is
/// reserved.
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const KEY_SHIFT: u32 = 59;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// After the highest physical address that an entry can have.
pub(crate) const PHYSICAL_END: u64 = ADDRESS + 0x1000;

/// The value of a page-table entry.
///
/// ```
/// use pagepin::{Entry, LeafSize, Levels, MemoryType, Pfn, Rights};
/// let size = LeafSize::Size4KiB;
/// let leaf = Entry::leaf(Pfn::new(0x42), size, Rights::READ | Rights::WRITE, 0);
/// assert!(leaf.is_leaf_at(size.level()) && leaf.leaf_frame(size) == Pfn::new(0x42));
/// assert!(leaf.same_mapping(Entry::from_bits(leaf.bits())));
/// let device = leaf.special().with_memory_type(size, MemoryType::UNCACHED);
/// assert!(device.is_special() && device.memory_type(size) == MemoryType::UNCACHED);
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Entry(u64);

impl Entry {
    /// No mapping.
    pub const EMPTY: Self = Self(0);

    /// A CPU has taken the entry that was here and will publish another. Not present; its address is one that no
    /// processor has memory at, since one with L1TF may read there on speculation.
    pub(crate) const OWNED: Self = Self(ADDRESS);

    /// The entry with these bits.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The entry's bits.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// An entry that points to the table page `table`; rights are decided at the leaf.
    pub(crate) const fn table(table: Pfn) -> Self {
        Self(table.address() | PRESENT | WRITABLE | USER)
    }

    /// The same for the kernel alone.
    pub(crate) const fn kernel_table(table: Pfn) -> Self {
        Self::table(table).not_for_users()
    }

    /// An upper entry below which nothing is for user code, whatever the entries there say.
    #[must_use]
    pub(crate) const fn not_for_users(self) -> Self {
        Self(self.0 & !USER)
    }

    /// A user leaf of `size` for the block that starts at `frame`, with `rights`; without `WRITE` in `rights` it is
    /// read-only whatever the VMA allows.
    #[must_use]
    pub fn leaf(frame: Pfn, size: LeafSize, rights: Rights, key: u8) -> Self {
        let mut bits = frame.address() | PRESENT | USER | ACCESSED | (u64::from(key & 15) << KEY_SHIFT);
        if rights.contains(Rights::WRITE) {
            bits |= WRITABLE | DIRTY;
        }
        if !rights.contains(Rights::EXECUTE) {
            bits |= NO_EXECUTE;
        }
        if size != LeafSize::Size4KiB {
            bits |= LARGE;
        }
        Self(bits)
    }

    /// Marks a leaf as one that pins must not take as it is.
    #[must_use]
    pub const fn special(self) -> Self {
        Self(self.0 | SPECIAL)
    }

    /// Marks a leaf as one whose frame is counted and another's: a page of an object in a private VMA.
    #[must_use]
    pub(crate) const fn borrowed(self) -> Self {
        Self(self.0 | SPECIAL | BORROWED)
    }

    /// Marks a leaf of this mm's own as one whose contents user space has given up, and nobody has written since: from now on a write sets the
    /// dirty bit again. (Of the two bits of a page that is borrowed the second by itself.)
    #[cfg(feature = "alloc")]
    #[must_use]
    pub(crate) const fn lazily_freed(self) -> Self {
        Self((self.0 & !DIRTY) | BORROWED)
    }

    /// The same leaf without that mark.
    #[cfg(feature = "alloc")]
    #[must_use]
    pub(crate) const fn kept(self) -> Self {
        Self(self.0 & !BORROWED)
    }

    /// Stands for a page that is elsewhere. The token's number is stored inverted, so that the address is one at which no processor has
    /// memory, since one with L1TF may read there on speculation; and it keeps off the bits that hardware sets.
    ///
    /// ```
    /// use pagepin::{Entry, Token};
    /// let entry = Entry::token(Token::new(3).unwrap());
    /// assert!(!entry.is_present() && !entry.is_empty() && !entry.has_frame());
    /// ```
    #[must_use]
    pub const fn token(token: Token) -> Self {
        Self(!(token.number() << 12) & ADDRESS | SPECIAL)
    }

    /// The token, if it is one.
    ///
    /// ```
    /// use pagepin::{Entry, Token};
    /// let token = Token::new(3);
    /// assert_eq!(token.map(Entry::token).and_then(Entry::as_token), token);
    /// assert_eq!(Entry::EMPTY.as_token(), None);
    /// ```
    #[must_use]
    pub const fn as_token(self) -> Option<Token> {
        if self.is_token() { Token::new(!self.0 >> 12 & (ADDRESS >> 12)) } else { None }
    }

    /// A page that is elsewhere.
    #[inline(always)]
    pub(crate) const fn is_token(self) -> bool {
        self.0 & (PRESENT | USER | PROT_NONE | SPECIAL) == SPECIAL
    }

    /// The leaf of `size`, with accesses through it of type `memory`; [`Entry::leaf`] makes it write-back.
    #[must_use]
    pub const fn with_memory_type(self, size: LeafSize, memory: MemoryType) -> Self {
        let [low, middle, high] = memory_bits(size);
        let index = memory.pat_index();
        let bits = if index & 1 != 0 { low } else { 0 }
            | if index & 2 != 0 { middle } else { 0 }
            | if index & 4 != 0 { high } else { 0 };
        Self(self.0 & !(low | middle | high) | bits)
    }

    /// The type of accesses through the leaf of `size`.
    #[must_use]
    pub const fn memory_type(self, size: LeafSize) -> MemoryType {
        let [low, middle, high] = memory_bits(size);
        let index = (self.0 & low != 0) as u8 | ((self.0 & middle != 0) as u8) << 1 | ((self.0 & high != 0) as u8) << 2;
        // Three bits.
        match MemoryType::from_pat_index(index) {
            Some(memory) => memory,
            None => MemoryType::WRITE_BACK,
        }
    }

    /// The kernel's own bits, in their places: see [`KERNEL_BITS`](crate::KERNEL_BITS).
    ///
    /// ```
    /// use pagepin::{Entry, KERNEL_BITS, LeafSize, Pfn, Rights};
    /// let leaf = Entry::leaf(Pfn::new(0x42), LeafSize::Size4KiB, Rights::READ, 0);
    /// let lowest = 1 << KERNEL_BITS.trailing_zeros();
    /// let marked = leaf.with_kernel_bits(lowest);
    /// assert_eq!((marked.kernel_bits(), marked.with_kernel_bits(0)), (lowest, leaf));
    /// assert_eq!(leaf.with_kernel_bits(u64::MAX).kernel_bits(), KERNEL_BITS);
    /// ```
    #[must_use]
    #[inline(always)]
    pub const fn kernel_bits(self) -> u64 {
        self.0 & KERNEL_BITS
    }

    /// The same with these bits of the kernel's own; others are left out.
    ///
    /// ```
    /// # use pagepin::{Entry, KERNEL_BITS, Token};
    /// let token = Token::new(7).unwrap();
    /// let marked = Entry::token(token).with_kernel_bits(KERNEL_BITS);
    /// assert_eq!(marked.as_token(), Some(token));
    /// ```
    #[must_use]
    #[inline(always)]
    pub const fn with_kernel_bits(self, bits: u64) -> Self {
        Self(self.0 & !KERNEL_BITS | bits & KERNEL_BITS)
    }

    /// The leaf of a copy, which is this mm's own, in place of this one: the same rights but for writing, the same key and bits of the kernel's.
    #[inline(always)]
    pub(crate) const fn of_copy(self, frame: Pfn, size: LeafSize, writable: bool) -> Self {
        let entry = self.with_frame(frame, size).0 & !(SPECIAL | WRITABLE | DIRTY) | ACCESSED;
        Self(if writable { entry | WRITABLE | DIRTY } else { entry })
    }

    /// The same for the page that `old` was for: with its bits of the kernel's own. This one was just made, and has none.
    #[inline(always)]
    pub(crate) const fn in_place_of(self, old: Self) -> Self {
        Self(self.0 | old.kernel_bits())
    }

    /// Hardware may use it.
    #[inline(always)]
    pub const fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    /// Nothing at all.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Present, or prot-none: there is a frame behind it.
    #[inline(always)]
    pub const fn has_frame(self) -> bool {
        self.0 & (PRESENT | PROT_NONE) != 0
    }

    /// The page is populated but has no rights at the moment.
    pub const fn is_prot_none(self) -> bool {
        self.0 & (PRESENT | PROT_NONE) == PROT_NONE
    }

    /// A CPU has taken what was here.
    #[inline(always)]
    pub(crate) const fn is_owned(self) -> bool {
        self.0 == Self::OWNED.0
    }

    /// A leaf that pins must not take as it is, or a token.
    #[inline(always)]
    pub const fn is_special(self) -> bool {
        self.0 & SPECIAL != 0
    }

    /// A leaf whose frame is another's, and has a reference for it.
    #[inline(always)]
    pub const fn is_borrowed(self) -> bool {
        self.was_borrowed() && self.has_frame()
    }

    /// The same, or what is left of such a leaf that was broken.
    #[inline(always)]
    pub(crate) const fn was_borrowed(self) -> bool {
        self.0 & (SPECIAL | BORROWED) == SPECIAL | BORROWED
    }

    /// A leaf whose contents were given up, and not written through it since if it is not dirty.
    #[must_use]
    pub const fn is_lazily_freed(self) -> bool {
        self.0 & (SPECIAL | BORROWED) == BORROWED && self.has_frame()
    }

    /// User code reaches the frame through it, and it is no special one: whether the frame is this mm's own, its kind says.
    #[inline(always)]
    pub(crate) const fn is_ordinary(self) -> bool {
        self.0 & (PRESENT | USER | SPECIAL) == PRESENT | USER
    }

    /// A leaf that holds a reference to its frame.
    #[inline(always)]
    pub(crate) const fn is_counted(self) -> bool {
        self.has_frame() && self.0 & (SPECIAL | BORROWED) != SPECIAL
    }

    /// Whether an entry of a table at `level` is a leaf.
    #[inline(always)]
    pub fn is_leaf_at(self, level: Level) -> bool {
        level == Level::LOWEST || self.0 & LARGE != 0
    }

    /// User code may use it.
    #[inline(always)]
    pub const fn is_user(self) -> bool {
        self.0 & USER != 0
    }

    /// Writes are permitted by this entry.
    #[inline(always)]
    pub const fn is_writable(self) -> bool {
        self.0 & WRITABLE != 0
    }

    /// Instruction fetches are permitted by this entry.
    pub const fn is_executable(self) -> bool {
        self.0 & NO_EXECUTE == 0
    }

    /// User code may fetch instructions through this leaf.
    #[inline(always)]
    pub(crate) const fn permits_fetches(self) -> bool {
        self.0 & (PRESENT | USER | NO_EXECUTE) == PRESENT | USER
    }

    /// Hardware wrote through it.
    #[inline(always)]
    pub const fn is_dirty(self) -> bool {
        self.0 & DIRTY != 0
    }

    /// Its protection key.
    pub const fn key(self) -> u8 {
        (self.0 >> KEY_SHIFT) as u8 & 15
    }

    /// The table page that a non-leaf entry points to.
    ///
    /// ```
    /// use pagepin::{Entry, Pfn};
    /// assert_eq!(Entry::from_bits(0x42000 | 0b111).table_frame(), Pfn::new(0x42));
    /// ```
    #[inline(always)]
    pub const fn table_frame(self) -> Pfn {
        Pfn::containing(self.table_address())
    }

    /// Its physical address.
    #[inline(always)]
    pub(crate) const fn table_address(self) -> u64 {
        self.0 & ADDRESS
    }

    /// The first frame of a leaf of `size`. The low address bits of a large leaf belong to the memory type (PAT).
    #[inline(always)]
    pub const fn leaf_frame(self, size: LeafSize) -> Pfn {
        Pfn::containing(self.0 & ADDRESS & !(size.bytes() - 1))
    }

    /// The same in all but the frame, which is the next. The one after the last is not an entry that maps anything.
    #[inline(always)]
    pub(crate) const fn of_next_frame(self) -> Self {
        Self(self.0.wrapping_add(1 << 12))
    }

    /// The first of the leaves of the next smaller size that say the same of their parts as this leaf of `size`.
    pub(crate) const fn first_part(self, size: LeafSize) -> Self {
        let part = size.part_size();
        let large = if matches!(part, LeafSize::Size4KiB) { 0 } else { LARGE };
        let [low, middle, high] = memory_bits(size);
        Self((self.0 & !(LARGE | low | middle | high)) | large).with_memory_type(part, self.memory_type(size))
    }

    /// The same of the frames that lie `pages` further on.
    #[inline(always)]
    pub(crate) const fn further(self, pages: u64) -> Self {
        Self(self.0.wrapping_add(pages << 12))
    }

    /// The same up to the accessed and dirty bits, which hardware sets on its own.
    #[inline(always)]
    pub const fn same_mapping(self, other: Self) -> bool {
        (self.0 ^ other.0) & !(ACCESSED | DIRTY) == 0
    }

    /// Permits writes, as after a fault: hardware need not come back to set the two bits.
    pub(crate) const fn made_writable(self) -> Self {
        Self(self.0 | WRITABLE | DIRTY | ACCESSED)
    }

    /// With the accessed bit.
    #[inline(always)]
    pub(crate) const fn accessed(self) -> Self {
        Self(self.0 | ACCESSED)
    }

    /// With the dirty bit.
    #[inline(always)]
    pub(crate) const fn dirtied(self) -> Self {
        Self(self.0 | DIRTY)
    }

    /// Without the dirty bit.
    #[cfg(feature = "alloc")]
    pub(crate) const fn cleaned(self) -> Self {
        Self(self.0 & !DIRTY)
    }

    /// Without the right to write.
    #[cfg(feature = "alloc")]
    pub(crate) const fn write_protected(self) -> Self {
        Self(self.0 & !WRITABLE)
    }

    /// Not present, the rest kept so that it can be released or brought back; see [`Entry::rights_restored`].
    pub(crate) const fn prot_none(self) -> Self {
        Self((self.0 & !PRESENT) | PROT_NONE)
    }

    /// A prot-none entry brought back, read-only.
    pub(crate) const fn rights_restored(self) -> Self {
        Self((self.0 & !(PROT_NONE | WRITABLE)) | PRESENT | USER)
    }

    /// What an entry was before its present bit was cleared. One that is empty, prot-none or a token was never present.
    #[inline(always)]
    pub(crate) const fn unbroken(self) -> Self {
        if self.is_empty() || self.is_prot_none() || self.is_token() { self } else { Self(self.0 | PRESENT) }
    }

    /// The same rights on another block of frames, which is ordinary memory of this mm's own, with no notes of an earlier fork and contents that
    /// nobody has given up.
    pub(crate) const fn with_frame(self, frame: Pfn, size: LeafSize) -> Self {
        let address = ADDRESS & !(size.bytes() - 1);
        Self((self.0 & !(address | FORK_EXCLUSIVE | FORK_WRITABLE | BORROWED)) | frame.address())
            .with_memory_type(size, MemoryType::WRITE_BACK)
    }

    /// The child's entry for a frame shared by fork: read-only, untouched, with the undo note. The child has given nothing up.
    #[inline(always)]
    pub(crate) const fn for_child(self, shared: Shared) -> Self {
        let note =
            if shared.was_exclusive { FORK_EXCLUSIVE } else { 0 } | if self.is_writable() { FORK_WRITABLE } else { 0 };
        Self((self.0 & !(WRITABLE | ACCESSED | DIRTY | BORROWED | FORK_EXCLUSIVE | FORK_WRITABLE)) | note)
    }

    /// Not an entry, but every bit that one of the two has.
    #[inline(always)]
    pub(crate) const fn mixed_with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The undo note of [`Entry::for_child`]: what the share found, and whether the parent's entry was writable.
    pub(crate) const fn fork_note(self) -> (Shared, bool) {
        (Shared { was_exclusive: self.0 & FORK_EXCLUSIVE != 0 }, self.0 & FORK_WRITABLE != 0)
    }

    /// Makes an entry not present, and changes nothing else.
    pub(crate) const BREAK: EntryChange = EntryChange::Clear(PRESENT);
    /// Takes the right to write, and nothing else, away.
    pub(crate) const WRITE_PROTECT: EntryChange = EntryChange::Clear(WRITABLE);
    /// Undoes [`Entry::WRITE_PROTECT`].
    pub(crate) const PERMIT_WRITES: EntryChange = EntryChange::Set(WRITABLE);
}

/// The bits of the memory type in a leaf of `size`, from the lowest. In the lowest level PAT lies where upper levels say that
/// they are a leaf, and there it is the lowest of the address bits that a large leaf has no use for.
const fn memory_bits(size: LeafSize) -> [u64; 3] {
    let pat = match size {
        LeafSize::Size4KiB => 1 << 7,
        LeafSize::Size2MiB | LeafSize::Size1GiB => 1 << 12,
    };
    [PWT, PCD, pat]
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("Entry(empty)");
        }
        if self.is_owned() {
            return f.write_str("Entry(owned)");
        }
        if let Some(token) = self.as_token() {
            return write!(f, "Entry({token:?})");
        }
        write!(f, "Entry({:#x}", self.0 & ADDRESS)?;
        let names = [
            (PRESENT, " P"),
            (WRITABLE, " W"),
            (USER, " U"),
            (PWT, " PWT"),
            (PCD, " PCD"),
            (ACCESSED, " A"),
            (DIRTY, " D"),
            (LARGE, " large/PAT"),
            (NO_EXECUTE, " NX"),
            (SPECIAL, " special"),
            (BORROWED, if self.is_special() { " borrowed" } else { " lazily freed" }),
            (PROT_NONE, " prot-none"),
        ];
        for (bit, name) in names {
            if self.0 & bit != 0 {
                f.write_str(name)?;
            }
        }
        write!(f, " key {})", self.key())
    }
}

/// Other rights for leaves, so that each takes few instructions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewRights {
    clear: u64,
    set: u64,
    /// What brings a prot-none leaf back.
    restore: u64,
}

impl NewRights {
    /// `rights`, but for the right to write, which each leaf has or not; with none, prot-none.
    pub(crate) const fn new(rights: Rights, key: u8) -> Self {
        if rights.is_empty() {
            return Self { clear: PRESENT | WRITABLE, set: PROT_NONE, restore: 0 };
        }
        let execute = if rights.contains(Rights::EXECUTE) { 0 } else { NO_EXECUTE };
        let set = execute | (key as u64 & 15) << KEY_SHIFT;
        Self { clear: WRITABLE | NO_EXECUTE | 15 << KEY_SHIFT, set, restore: PRESENT | USER }
    }

    /// The leaf `old`, present or prot-none, with these rights; written if `write`.
    #[inline(always)]
    pub(crate) const fn apply(self, old: Entry, write: bool) -> Entry {
        let entry = (old.0 & !self.clear) | self.set | if write { WRITABLE } else { 0 };
        if old.is_present() { Entry(entry) } else { self.restored(entry) }
    }

    #[cold]
    const fn restored(self, entry: u64) -> Entry {
        Entry(if self.restore == 0 { entry } else { (entry & !PROT_NONE) | self.restore })
    }

    /// Fetches are among them.
    pub(crate) const fn permit_fetches(self) -> bool {
        self.restore != 0 && self.set & NO_EXECUTE == 0
    }
}

/// What a walk that reads, or writes (`WRITE`), requires of every entry it passes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand<const WRITE: bool> {
    /// Protection keys that deny the access.
    denied_keys: u16,
}

impl<const WRITE: bool> Demand<WRITE> {
    /// Hardware grants a right only if every level does.
    const RIGHTS: u64 = PRESENT | USER | if WRITE { WRITABLE } else { 0 };

    /// Present, user-accessible, writable if `WRITE`; leaves not special; keys that `keys` denies refuse.
    #[inline]
    pub(crate) const fn new(keys: KeyRights) -> Self {
        Self { denied_keys: keys.denied(WRITE) }
    }

    /// Whether any protection key denies the access, so that leaves must be asked for theirs.
    #[inline(always)]
    pub(crate) const fn depends_on_keys(&self) -> bool {
        self.denied_keys != 0
    }

    /// Whether an upper entry lets the walk pass, to a table or a large leaf.
    #[inline(always)]
    pub(crate) const fn passes(entry: Entry) -> bool {
        entry.0 & Self::RIGHTS == Self::RIGHTS
    }

    /// Whether an upper entry lets the walk pass to a table: one look for the usual case.
    #[inline(always)]
    pub(crate) const fn passes_to_table(entry: Entry) -> bool {
        entry.0 & (Self::RIGHTS | LARGE) == Self::RIGHTS
    }

    /// Whether a leaf grants the access; its key is looked at if `KEYS`.
    #[inline(always)]
    pub(crate) const fn permits<const KEYS: bool>(&self, leaf: Entry) -> bool {
        leaf.0 & (Self::RIGHTS | SPECIAL) == Self::RIGHTS && !(KEYS && self.key_denies(leaf))
    }

    /// Whether the leaf's protection key denies the access.
    pub(crate) const fn key_denies(&self, leaf: Entry) -> bool {
        self.denied_keys & (1 << leaf.key()) != 0
    }
}

// What is not present is one of five, and each is told apart by its bits alone: nothing, a page without rights, an entry that is
// owned, a token, and, between the two passes of an unmap, what is left of a present one (which is for user code).
const_assert!(!Entry::OWNED.is_present() && !Entry::OWNED.has_frame() && !Entry::OWNED.is_empty());
const_assert!(!Entry::OWNED.is_user() && !Entry::OWNED.is_token());
const _: () = {
    let mut numbers = [0, 1, Token::MAX.number()].as_slice();
    while let [number, rest @ ..] = numbers {
        let Some(token) = Token::new(*number) else { panic!("a number that a token can have") };
        let entry = Entry::token(token);
        assert!(
            !entry.is_present() && !entry.has_frame() && !entry.is_empty() && !entry.is_owned() && !entry.is_user()
        );
        assert!(entry.bits() & (ACCESSED | DIRTY) == 0 && entry.bits() & 1 << 51 != 0);
        assert!(matches!(entry.as_token(), Some(same) if same.number() == *number));
        numbers = rest;
    }
    let leaf = Entry(ADDRESS | PRESENT | USER).borrowed();
    let (without_rights, left) = (leaf.prot_none(), leaf.0 & !PRESENT);
    assert!(!without_rights.is_token() && without_rights.is_borrowed() && without_rights.is_counted());
    assert!(!Entry(left).is_token() && !Entry(left).is_prot_none() && !Entry(left).is_owned());
    let freed = Entry(ADDRESS | PRESENT | USER | BORROWED);
    assert!(freed.is_lazily_freed() && freed.is_counted() && !freed.was_borrowed() && !leaf.is_lazily_freed());
};
