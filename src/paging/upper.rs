//! [`Upper`]: what an entry above the lowest level means. This is the only place that says which are malformed.

use crate::addr::Pfn;
use crate::arch::{Demand, Entry, LeafSize, Level};

/// What an entry above the lowest level is.
///
/// Entries of the lowest level are all leaves, and are judged by whoever uses them: faults and pins refuse one that is
/// not for user code; fork, protect and unmap treat it as the leaf it is, by the word of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upper {
    /// Nothing.
    Empty,
    /// It leads to a table.
    Table(Pfn),
    /// A large leaf, present or prot-none.
    Leaf(LeafSize),
    /// A large leaf that another CPU owns.
    Owned,
    /// Nothing that the crate makes or hardware accepts in the user half: a leaf where the format has none, an entry that
    /// is not for user code, or one that is not present and yet not empty.
    Malformed,
}

impl Upper {
    /// What `entry` of a table of `level`, which is not the lowest, means.
    #[inline(always)]
    pub(crate) fn of(entry: Entry, level: Level) -> Self {
        if Demand::<false>::passes_to_table(entry) {
            return Self::Table(entry.table_frame());
        }
        if entry.is_empty() {
            return Self::Empty;
        }
        if entry.is_owned() {
            return Self::Owned;
        }
        let usable = Demand::<false>::passes(entry) || entry.is_prot_none();
        if usable && entry.is_leaf_at(level) { Self::large(level) } else { Self::Malformed }
    }

    /// The same of an entry that is for user code and says that it is a leaf.
    #[inline(always)]
    pub(crate) fn large(level: Level) -> Self {
        level.leaf_size().map_or(Self::Malformed, Self::Leaf)
    }
}
