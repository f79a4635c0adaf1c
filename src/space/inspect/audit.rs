//! [`audit`]: every entry of every address space against every frame's word.

use alloc::vec::Vec;
use core::fmt;

use super::{Leaf, counted, leaves, tables_of};
use crate::addr::{PageAddr, Pfn};
use crate::env::{Env, FrameTable};
use crate::frame::{FrameKind, Snapshot};
use crate::paging::Tables;
use crate::space::{SpaceError, UserSpace};

/// What [`audit`] found. `space` counts the spaces as they were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The tables of the space are damaged. What is behind the damage was not looked at.
    Malformed {
        /// Which space.
        space: usize,
    },
    /// A page is mapped where there is no VMA.
    OutsideVma {
        /// Which space.
        space: usize,
        /// Which page.
        page: PageAddr,
    },
    /// An entry counts a frame that the frame table does not know.
    NoWord {
        /// Which frame.
        frame: Pfn,
    },
    /// More entries than references: the frame will be freed while it is mapped.
    TooFewReferences {
        /// Which frame.
        frame: Pfn,
        /// Entries that map it.
        mappings: u64,
        /// Plain references that it has.
        references: u64,
    },
    /// A page of private memory can be written by user code, and its frame is not exclusive (INV-1).
    WritableNotExclusive {
        /// Which frame.
        frame: Pfn,
    },
    /// A frame is exclusive, and several spaces map it (INV-2).
    ExclusiveMappedTwice {
        /// Which frame.
        frame: Pfn,
    },
    /// A frame of private memory is pinned, and not exclusive (INV-3).
    PinnedNotExclusive {
        /// Which frame.
        frame: Pfn,
    },
    /// A table's frame is not counted as one.
    NotATable {
        /// Which frame.
        frame: Pfn,
    },
    /// No bug by itself: a frame has references or pins beyond the entries of these spaces. A device uses it, a space that was
    /// not given maps it, or it leaks.
    Held {
        /// Which frame.
        frame: Pfn,
        /// Plain references beyond the entries.
        references: u64,
        /// Pins.
        pins: u64,
    },
}

impl Finding {
    /// Whether this must never be.
    #[must_use]
    pub const fn is_bug(self) -> bool {
        !matches!(self, Self::Held { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { space } => write!(f, "space {space}: the tables are malformed"),
            Self::OutsideVma { space, page } => write!(f, "space {space}: {page:?} is mapped and in no VMA"),
            Self::NoWord { frame } => write!(f, "{frame:?} is mapped and has no word"),
            Self::TooFewReferences { frame, mappings, references } => {
                write!(f, "{frame:?} has {mappings} mappings and {references} references")
            }
            Self::WritableNotExclusive { frame } => write!(f, "{frame:?} is mapped writable and not exclusive"),
            Self::ExclusiveMappedTwice { frame } => write!(f, "{frame:?} is exclusive and mapped by several spaces"),
            Self::PinnedNotExclusive { frame } => write!(f, "{frame:?} is pinned and not exclusive"),
            Self::NotATable { frame } => write!(f, "{frame:?} is a table and not counted as one"),
            Self::Held { frame, references, pins } => {
                write!(f, "{frame:?} has {references} references and {pins} pins that no entry explains")
            }
        }
    }
}

/// What an [`audit`] looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audited {
    /// Leaves that are counted.
    pub mappings: u64,
    /// Tables.
    pub tables: u64,
    /// Findings that are bugs.
    pub bugs: u64,
}

/// A counted leaf of a space.
#[derive(Clone, Copy)]
struct Mapping {
    frame: Pfn,
    space: usize,
    writable: bool,
}

/// Looks at every entry of `spaces`, and at every word of the kernel's frames if its [`FrameTable`] lists them. `found` hears of
/// what does not agree, and of what is [`Held`](Finding::Held).
///
/// With a layout that does not tell many references from pins (`Biased10`), a frame that very many spaces share may be found to be
/// pinned.
///
/// All mm locks are held exclusively from beginning to end, for as long as that takes, so user code that faults waits: this is for
/// who looks for a bug, and nothing that a process may ask for. Pins come and go meanwhile,
/// and with them what is held.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, space::*};
/// # let kernel = &doc_kernel::kernel();
/// # let parent = UserSpace::new(kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
/// # let child = parent.fork().unwrap();
/// let audited = audit(kernel, [&parent, &child], &mut |finding| println!("{finding}"))?;
/// assert_eq!((audited.tables, audited.bugs), (2, 0));
/// # Ok::<(), SpaceError>(())
/// ```
///
/// # Errors
/// [`SpaceError::NoMemory`]: the list of all mappings does not fit the heap. [`SpaceError::Reentered`].
pub fn audit<'a, K: Env + 'a, C: 'a>(
    kernel: &impl Env,
    spaces: impl IntoIterator<Item = &'a UserSpace<K, C>>,
    found: &mut dyn FnMut(Finding),
) -> Result<Audited, SpaceError> {
    let mut spaces = try_collect(spaces.into_iter().enumerate())?;
    // Always in the same order, so that two audits do not wait for each other; and nobody twice.
    spaces.sort_unstable_by_key(|(_, space)| core::ptr::from_ref(*space));
    spaces.dedup_by_key(|(_, space)| core::ptr::from_ref(*space));
    let (mut sections, mut seen) = (Vec::new(), Seen::default());
    sections.try_reserve_exact(spaces.len())?;
    let mut looked = Ok(());
    for (index, space) in &spaces {
        let extras = space.env().extras();
        let vmas = match sections.last() {
            None => space.vmas.write(extras)?,
            Some(held) => space.vmas.write_beside(extras, held),
        };
        // SAFETY: the mm lock is held for writing, through `vmas`.
        let tables = unsafe { Tables::under_mm_lock(&space.mm) };
        looked = looked.and_then(|()| seen.look_at(*index, &tables, |page| vmas.has_pages(page), found));
        sections.push(vmas);
    }
    let audited = looked.map(|()| seen.judge(kernel, found));
    // In the order that those who stay on their CPU are told to keep.
    while sections.pop().is_some() {}
    audited
}

fn try_collect<T>(items: impl Iterator<Item = T>) -> Result<Vec<T>, SpaceError> {
    let mut all = Vec::new();
    for item in items {
        all.try_reserve(1)?;
        all.push(item);
    }
    Ok(all)
}

/// What the spaces have.
#[derive(Default)]
struct Seen {
    mappings: Vec<Mapping>,
    tables: Vec<Pfn>,
    bugs: u64,
}

impl Seen {
    fn tell(&mut self, found: &mut dyn FnMut(Finding), finding: Finding) {
        self.bugs += u64::from(finding.is_bug());
        found(finding);
    }

    fn look_at<K: Env>(
        &mut self,
        space: usize,
        tables: &Tables<'_, K>,
        in_vma: impl Fn(PageAddr) -> bool,
        found: &mut dyn FnMut(Finding),
    ) -> Result<(), SpaceError> {
        let mut room: Result<(), SpaceError> = Ok(());
        let walked = leaves(tables, |leaf: Leaf| {
            if !in_vma(leaf.page) {
                self.tell(found, Finding::OutsideVma { space, page: leaf.page });
            }
            room = room.and_then(|()| Ok(self.mappings.try_reserve(1)?));
            if room.is_ok() && leaf.entry.is_counted() {
                self.mappings.push(Mapping { frame: counted(tables, &leaf).0, space, writable: leaf.is_writable() });
            }
        });
        room?;
        let mut room: Result<(), SpaceError> = Ok(());
        let walked = walked.and(tables_of(tables, |table| {
            room = room.and_then(|()| Ok(self.tables.try_reserve(1)?));
            if room.is_ok() {
                self.tables.push(table);
            }
        }));
        if walked.is_err() {
            self.tell(found, Finding::Malformed { space });
        }
        room
    }

    fn judge(mut self, kernel: &impl Env, found: &mut dyn FnMut(Finding)) -> Audited {
        self.mappings.sort_unstable_by_key(|mapping| mapping.frame);
        self.tables.sort_unstable();
        let (mappings, tables) = (core::mem::take(&mut self.mappings), core::mem::take(&mut self.tables));
        let word = |frame| kernel.frames().frame(frame).map(|frame| frame.snapshot());
        for of_one in mappings.chunk_by(|one, other| one.frame == other.frame) {
            match word(of_one[0].frame) {
                Some(word) => self.judge_frame(of_one, word, found),
                None => self.tell(found, Finding::NoWord { frame: of_one[0].frame }),
            }
        }
        for &frame in &tables {
            if !word(frame).is_some_and(|word| word.kind == FrameKind::Table && word.is_sole()) {
                self.tell(found, Finding::NotATable { frame });
            }
        }
        kernel.frames().leaks(&mut |frame, word| {
            let mapped = mappings.binary_search_by_key(&frame, |mapping| mapping.frame).is_ok();
            if !mapped && tables.binary_search(&frame).is_err() {
                found(Finding::Held { frame, references: word.refs - word.pins, pins: word.pins });
            }
        });
        Audited { mappings: mappings.len() as u64, tables: tables.len() as u64, bugs: self.bugs }
    }

    /// A frame that `mappings` map.
    fn judge_frame(&mut self, mappings: &[Mapping], word: Snapshot, found: &mut dyn FnMut(Finding)) {
        let (frame, count) = (mappings[0].frame, mappings.len() as u64);
        let references = word.refs - word.pins;
        let private = word.kind == FrameKind::Anonymous;
        if references < count {
            self.tell(found, Finding::TooFewReferences { frame, mappings: count, references });
        }
        if private && !word.exclusive && mappings.iter().any(|mapping| mapping.writable) {
            self.tell(found, Finding::WritableNotExclusive { frame });
        }
        if private && word.exclusive && mappings.iter().any(|mapping| mapping.space != mappings[0].space) {
            self.tell(found, Finding::ExclusiveMappedTwice { frame });
        }
        if private && !word.exclusive && word.pins != 0 {
            self.tell(found, Finding::PinnedNotExclusive { frame });
        }
        if references > count || word.pins != 0 {
            found(Finding::Held { frame, references: references.saturating_sub(count), pins: word.pins });
        }
    }
}
