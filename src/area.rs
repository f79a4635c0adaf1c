//! What a stretch of user address space is for: the part of a VMA that memory management asks about.

use bitflags::bitflags;

use crate::addr::PageAddr;

bitflags! {
    /// Rights of user code on an area. On x86_64 a page that may be written or executed can also be read.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Rights: u8 {
        /// Loads.
        const READ = 1;
        /// Stores.
        const WRITE = 2;
        /// Instruction fetches.
        const EXECUTE = 4;
    }
}

/// What fills the pages of an area.
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
pub struct Area {
    /// First page.
    pub start: PageAddr,
    /// The page after the last.
    pub end: PageAddr,
    /// What user code may do now.
    pub rights: Rights,
    /// What it may ever be given: a forced write needs `WRITE` here.
    pub may: Rights,
    /// What fills it.
    pub backing: Backing,
    /// Protection key of its pages (0..16).
    pub key: u8,
}

impl Area {
    /// Pages in the area.
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
