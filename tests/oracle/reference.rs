//! What processes see, without any sharing: every page has bytes of its own, and a pin is another name for them.

use std::collections::BTreeMap;
use std::ops::Range;

use pagepin::Access;
use pagepin::fault::FaultError;
use pagepin::space::{Advice, SpaceError};
use pagepin::{Levels, Pfn, RangeError, Rights, VmaFlags};

use super::contents::{Block, Bytes, SharedBlock};
use super::files::Shown;
use crate::machine::{PAGE, depth};

/// What is behind a page.
#[derive(Clone, Debug)]
pub(crate) enum Backing {
    Anonymous(SharedBlock),
    /// Device registers from this frame on: every process has the same.
    Registers(Pfn),
    Object(Shown),
}

/// One page. Of how large a leaf it is a part is the library's business.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    pub(crate) rights: Rights,
    /// What it may ever be given.
    pub(crate) max_rights: Rights,
    pub(crate) key: u8,
    /// What fork does with it.
    pub(crate) flags: VmaFlags,
    pub(crate) backing: Backing,
}

impl Mapping {
    /// Whether its unmap waits for pins.
    pub(crate) fn is_leaving(&self) -> bool {
        self.flags.contains(VmaFlags::UNMAP_DEFERRED)
    }

    /// Whether it has any that a process can discard.
    pub(crate) fn has_contents(&self) -> bool {
        !matches!(self.backing, Backing::Registers(_)) && !self.is_leaving()
    }

    /// Whether it has any that a process can give up for when they are wanted.
    pub(crate) fn has_memory(&self) -> bool {
        matches!(self.backing, Backing::Anonymous(_)) && !self.is_leaving()
    }
}

/// A page of a mapping.
#[derive(Clone, Copy)]
pub(crate) struct Page<'m> {
    pub(crate) mapping: &'m Mapping,
}

impl Page<'_> {
    /// Its bytes, unless they are registers, or the object ends before.
    pub(crate) fn bytes(&self) -> Option<Bytes> {
        match &self.mapping.backing {
            Backing::Anonymous(block) => Some(Bytes { block: block.clone() }),
            Backing::Object(shown) => Some(Bytes { block: shown.block()? }),
            Backing::Registers(_) => None,
        }
    }

    /// Whether an object ends before it.
    pub(crate) fn is_past_end(&self) -> bool {
        matches!(&self.mapping.backing, Backing::Object(shown) if shown.block().is_none())
    }

    /// Whether it is a page of an object, of which its process would have to make a copy of its own.
    pub(crate) fn is_borrowed(&self) -> bool {
        matches!(&self.mapping.backing, Backing::Object(shown) if !shown.shared && shown.own.is_none())
    }

    /// Where `address`, which lies in this page, is in the device.
    pub(crate) fn register(&self, address: u64) -> Option<u64> {
        match self.mapping.backing {
            Backing::Anonymous(_) | Backing::Object(_) => None,
            Backing::Registers(frame) => Some(frame.address() + address % PAGE),
        }
    }

    /// Whether a page fault on it can be resolved.
    pub(crate) fn permits(&self, access: Access) -> Result<(), FaultError> {
        let rights = self.mapping.rights;
        let permitted = match access {
            Access::Read => !rights.is_empty(),
            Access::Write => rights.contains(Rights::WRITE),
            Access::Execute => rights.contains(Rights::EXECUTE),
        };
        match permitted {
            false => Err(FaultError::AccessDenied),
            true if self.is_past_end() => Err(FaultError::PastEnd),
            true => Ok(()),
        }
    }
}

/// Whether a thread with this PKRU is denied the access.
pub(crate) fn key_denies(pkru: u32, key: u8, write: bool) -> bool {
    let rights = pkru >> (2 * key);
    rights & 1 != 0 || (write && rights & 2 != 0)
}

/// The pages of a range, by number, or why it is none.
pub(crate) fn whole_pages(levels: Levels, start: u64, length: u64) -> Result<Range<u64>, SpaceError> {
    let half = 1u64 << (12 + 9 * depth(levels) - 1);
    let error = match length.checked_sub(1).map(|rest| start.checked_add(rest)) {
        None => RangeError::Empty,
        Some(None) => RangeError::Wraps,
        // The page below the hole is not for users.
        Some(Some(last)) if last >= half - PAGE => {
            if start >= half.wrapping_neg() {
                RangeError::KernelHalf
            } else {
                RangeError::NonCanonical
            }
        }
        _ if (start | length) % PAGE != 0 => RangeError::Unaligned,
        _ => return Ok(start / PAGE..start / PAGE + length / PAGE),
    };
    Err(SpaceError::Range(error))
}

/// One process: its mappings by their first page.
#[derive(Default)]
pub(crate) struct Reference {
    mappings: BTreeMap<u64, Mapping>,
    /// Stays with the process, wherever that is kept.
    pub(crate) id: usize,
    /// Pages that its pins were charged for.
    pub(crate) charged: u64,
}

impl Reference {
    pub(crate) fn page(&self, address: u64) -> Option<Page<'_>> {
        Some(Page { mapping: self.mappings.get(&(address / PAGE))? })
    }

    /// The pages of objects, by their numbers.
    pub(crate) fn shown_mut(&mut self) -> impl Iterator<Item = (u64, &mut Shown)> {
        self.mappings.iter_mut().filter_map(|(first, mapping)| match &mut mapping.backing {
            Backing::Object(shown) => Some((*first, shown)),
            _ => None,
        })
    }

    pub(crate) fn mappings(&self) -> impl Iterator<Item = (u64, &Mapping)> {
        self.mappings.iter().map(|(first, mapping)| (*first, mapping))
    }

    /// The mappings that `range` touches, by their first page.
    pub(crate) fn touching(&self, range: &Range<u64>) -> impl Iterator<Item = (u64, &Mapping)> {
        self.mappings.range(range.start..range.end.max(range.start)).map(|(first, mapping)| (*first, mapping))
    }

    /// Maps what `backing` makes of each page's number.
    pub(crate) fn map(
        &mut self,
        range: Range<u64>,
        (rights, max_rights, key, flags): (Rights, Rights, u8, VmaFlags),
        backing: impl Fn(u64) -> Backing,
    ) -> Result<(), SpaceError> {
        if !max_rights.contains(rights) {
            return Err(SpaceError::AccessDenied);
        }
        if self.touching(&range).next().is_some() {
            return Err(SpaceError::Overlap);
        }
        let mapping = |page| Mapping { rights, max_rights, key, flags, backing: backing(page) };
        self.mappings.extend(range.map(|page| (page, mapping(page))));
        Ok(())
    }

    /// Puts pages with contents where nothing is.
    pub(crate) fn map_blocks(&mut self, first: u64, rights: Rights, blocks: impl Iterator<Item = SharedBlock>) {
        let (max_rights, flags, key) = (Rights::all(), VmaFlags::empty(), 0);
        let mapping = |block| Mapping { rights, max_rights, key, flags, backing: Backing::Anonymous(block) };
        self.mappings.extend((first..).zip(blocks.map(mapping)));
    }

    /// Unmaps all but the pages that wait: those nobody may access or inherit.
    pub(crate) fn unmap(&mut self, range: Range<u64>, waits: impl Fn(u64) -> bool) {
        self.mappings.retain(|first, _| !range.contains(first) || waits(*first));
        for (_, mapping) in self.mappings.range_mut(range) {
            (mapping.rights, mapping.max_rights) = (Rights::empty(), Rights::empty());
            mapping.flags |= VmaFlags::UNMAP_DEFERRED | VmaFlags::DONT_FORK;
        }
    }

    /// Why pages cannot move, if they cannot.
    pub(crate) fn may_move(&self, from: &Range<u64>, into: &Range<u64>) -> Result<(), SpaceError> {
        if from.start < into.end && into.start < from.end {
            return Err(SpaceError::Overlap);
        }
        self.reject_holes(from)?;
        if self.touching(into).next().is_some() {
            return Err(SpaceError::Overlap);
        }
        Ok(())
    }

    pub(crate) fn move_pages(&mut self, from: Range<u64>, to: u64) {
        let moving: Vec<_> = self.touching(&from).map(|(first, _)| first).collect();
        for first in moving {
            let mapping = self.mappings.remove(&first).unwrap();
            self.mappings.insert(first - from.start + to, mapping);
        }
    }

    pub(crate) fn discard(&mut self, range: Range<u64>) {
        let lost = self.touching(&range).filter(|(_, mapping)| mapping.has_contents());
        let lost: Vec<_> = lost.map(|(first, mapping)| (first, mapping.clone())).collect();
        for (page, mapping) in lost {
            let backing = match &mapping.backing {
                Backing::Object(shown) => Backing::Object(shown.uncopied()),
                _ => cleared(page),
            };
            self.mappings.insert(page, Mapping { backing, ..mapping });
        }
    }

    /// Whether every page of `range` is mapped, and not unmapped as far as its process knows.
    fn reject_holes(&self, range: &Range<u64>) -> Result<(), SpaceError> {
        let pages = self.touching(range).filter(|(_, mapping)| !mapping.is_leaving()).count() as u64;
        if pages == range.end - range.start { Ok(()) } else { Err(SpaceError::NoVma) }
    }

    /// Why `protect` is refused, if it is.
    pub(crate) fn may_protect(&self, range: &Range<u64>, rights: Rights) -> Result<(), SpaceError> {
        self.reject_holes(range)?;
        if self.touching(range).any(|(_, mapping)| !mapping.max_rights.contains(rights)) {
            return Err(SpaceError::AccessDenied);
        }
        Ok(())
    }

    pub(crate) fn protect(&mut self, range: Range<u64>, rights: Rights) {
        self.mappings.range_mut(range).for_each(|(_, mapping)| mapping.rights = rights);
    }

    /// What a child is to get of a range, from now on.
    pub(crate) fn advise(&mut self, range: Range<u64>, advice: Advice) -> Result<(), SpaceError> {
        self.reject_holes(&range)?;
        let wipes = |mapping: &Mapping| matches!(mapping.backing, Backing::Anonymous(_));
        if advice == Advice::WipeOnFork && !self.touching(&range).all(|(_, mapping)| wipes(mapping)) {
            return Err(SpaceError::InvalidFlags);
        }
        let (flag, set) = match advice {
            Advice::DontFork => (VmaFlags::DONT_FORK, true),
            Advice::DoFork => (VmaFlags::DONT_FORK, false),
            Advice::WipeOnFork => (VmaFlags::WIPE_ON_FORK, true),
            Advice::KeepOnFork => (VmaFlags::WIPE_ON_FORK, false),
        };
        self.mappings.range_mut(range).for_each(|(_, mapping)| mapping.flags.set(flag, set));
        Ok(())
    }

    /// A child: the same bytes at this moment, and none in common from now on but the device's.
    pub(crate) fn fork(&self, id: usize) -> Self {
        let mut child = Self { mappings: BTreeMap::new(), id, charged: 0 };
        for (first, mapping) in self.mappings().filter(|(_, mapping)| !mapping.flags.contains(VmaFlags::DONT_FORK)) {
            match &mapping.backing {
                Backing::Anonymous(_) if mapping.flags.contains(VmaFlags::WIPE_ON_FORK) => {
                    child.mappings.insert(first, Mapping { backing: cleared(first), ..mapping.clone() });
                }
                Backing::Anonymous(block) => {
                    let backing = Backing::Anonymous(block.borrow().copied());
                    child.mappings.insert(first, Mapping { backing, ..mapping.clone() });
                }
                Backing::Object(shown) => {
                    let backing = Backing::Object(shown.inherited());
                    child.mappings.insert(first, Mapping { backing, ..mapping.clone() });
                }
                Backing::Registers(_) => _ = child.mappings.insert(first, mapping.clone()),
            }
        }
        child
    }
}

/// An anonymous page that nobody has touched.
pub(crate) fn cleared(_page: u64) -> Backing {
    Backing::Anonymous(Block::cleared())
}
