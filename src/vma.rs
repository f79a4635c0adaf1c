//! What a stretch of user address space is for: the part of a VMA that memory management asks about.

#![forbid(unsafe_code)]

use crate::addr::PageAddr;
use crate::rights::Rights;

/// What fills the pages of a VMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backing {
    /// Zero-filled private memory, copied on write after fork.
    Anonymous,
    /// Frames that are not the crate's to count: device registers, foreign memory. Never pinned, shared by fork.
    Foreign,
}

/// A stretch of pages with the same rights and backing.
///
/// The logical right to write is `rights`, never the W bit of an entry: a page that is copied on write is read-only in
/// hardware and writable by right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vma {
    /// First page.
    pub start: PageAddr,
    /// The page after the last.
    pub end: PageAddr,
    /// What user code may do now.
    pub rights: Rights,
    /// What it may ever be given: a forced write needs `WRITE` here.
    pub max_rights: Rights,
    /// What fills it.
    pub backing: Backing,
    /// Protection key of its pages (0..16).
    pub key: u8,
}

impl Vma {
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
}
