//! [`EntryChange`]: what can be done to an entry in memory in one step, whatever hardware sets in it meanwhile.

use super::Entry;

/// Some bits of an entry, to be cleared or set. A format says by constants which change takes a right away: in one format a
/// bit permits writes, in another it forbids them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryChange {
    /// Clears these bits.
    Clear(u64),
    /// Sets these bits.
    Set(u64),
}

impl EntryChange {
    /// The entry that `entry` becomes.
    ///
    /// ```
    /// use pagepin::{Entry, EntryChange};
    /// assert_eq!(EntryChange::Clear(0b10).of(Entry::from_bits(0b11)), Entry::from_bits(0b01));
    /// ```
    #[must_use]
    pub const fn of(self, entry: Entry) -> Entry {
        Entry::from_bits(match self {
            Self::Clear(bits) => entry.bits() & !bits,
            Self::Set(bits) => entry.bits() | bits,
        })
    }
}
