//! Checks of the whole machine: every table of every address space against every frame word.

use std::collections::BTreeMap;

use pagepin::frame::{FrameKind, Layout, Snapshot};
use pagepin::{AddressSpace, EntryAddr, Env, FrameTable, LeafSize, PAGE_SIZE, Pfn, SOFTWARE_BITS};

use super::memory::{FIRST, Use};
use super::{Machine, Process};

/// Entries that are looked at together.
const GLANCE: usize = 32;

/// A leaf entry, present or prot-none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// First virtual address.
    pub(crate) address: u64,
    pub(crate) at: EntryAddr,
    pub(crate) bits: u64,
    pub(crate) size: LeafSize,
}

impl Leaf {
    pub(crate) fn frame(&self) -> Pfn {
        Pfn::containing(self.bits & 0x000f_ffff_ffff_f000 & !(self.size.bytes() - 1))
    }
    pub(crate) fn is_special(&self) -> bool {
        self.bits >> SOFTWARE_BITS[0] & 1 != 0
    }
    pub(crate) fn is_present(&self) -> bool {
        self.bits & 1 != 0
    }
}

impl<L: Layout> Machine<L> {
    /// The leaf entries of an address space and its table pages, by a naive descent.
    pub(crate) fn leaves(&self, space: &Process<'_, L>) -> (Vec<Leaf>, Vec<Pfn>) {
        let (mut leaves, mut tables) = (Vec::new(), Vec::new());
        let top = super::depth(space.mm().levels());
        self.descend(space.root(), top, 0, &mut leaves, &mut tables);
        (leaves, tables)
    }

    fn descend(&self, table: Pfn, level: u32, base: u64, leaves: &mut Vec<Leaf>, tables: &mut Vec<Pfn>) {
        tables.push(table);
        let user = if tables.len() == 1 { 256 } else { 512 };
        // At once, and most of a table at a glance: this is the most frequent loop of all the tests.
        assert!(matches!(self.memory().use_of(table), Some(Use::Allocated { .. })), "INV-13: {table:?} is in use");
        let words = self.memory().frame_words(table);
        let used = (0..user).step_by(GLANCE).filter(|first| words[*first..first + GLANCE] != [0; GLANCE]);
        for index in used.flat_map(|first| first..first + GLANCE) {
            let (index, bits) = (index as u64, words[index]);
            let at = EntryAddr::new(table, index);
            if bits == 0 {
                continue;
            }
            let address = base + (index << (12 + 9 * (level - 1)));
            let has_frame = bits & 1 != 0 || bits >> SOFTWARE_BITS[1] & 1 != 0;
            assert!(has_frame, "a broken entry was left behind: {bits:#x} at level {level}");
            if level == 1 || bits & 0x80 != 0 {
                let size = match level {
                    1 => LeafSize::Size4KiB,
                    2 => LeafSize::Size2MiB,
                    3 => LeafSize::Size1GiB,
                    _ => panic!("a leaf at level {level}"),
                };
                leaves.push(Leaf { address, at, bits, size });
            } else {
                self.descend(Pfn::containing(bits & 0x000f_ffff_ffff_f000), level - 1, address, leaves, tables);
            }
        }
    }

    /// The leaf that maps `address`.
    #[track_caller]
    pub(crate) fn leaf(&self, space: &Process<'_, L>, address: u64) -> Option<Leaf> {
        let (leaves, _) = self.leaves(space);
        leaves.into_iter().find(|leaf| leaf.address <= address && address - leaf.address < leaf.size.bytes())
    }

    /// The frame behind `address` and its word.
    #[track_caller]
    pub(crate) fn frame_at(&self, space: &Process<'_, L>, address: u64) -> (Pfn, Snapshot) {
        let leaf = self.leaf(space, address).unwrap_or_else(|| panic!("nothing is mapped at {address:#x}"));
        (leaf.frame(), self.word(leaf.frame()).snapshot())
    }

    /// INV-1, INV-2, INV-6 and the reference counts, over all address spaces. `held`: references and pins on frames
    /// that are not explained by entries. Returns the leaves and tables of each space.
    #[track_caller]
    pub(crate) fn audit(
        &self,
        spaces: &[&Process<'_, L>],
        held: &BTreeMap<Pfn, (u64, u64)>,
    ) -> Vec<(Vec<Leaf>, Vec<Pfn>)> {
        let mut mappings: BTreeMap<Pfn, Vec<(usize, Leaf)>> = BTreeMap::new();
        let seen: Vec<_> = spaces.iter().map(|space| self.leaves(space)).collect();
        for (mm, (leaves, tables)) in seen.iter().enumerate() {
            for &table in tables {
                let word = self.word(table).snapshot();
                assert_eq!((word.kind, word.refs, word.pins), (FrameKind::Table, 1, 0), "{table:?}");
            }
            for &leaf in leaves {
                if leaf.is_special() {
                    let zero = leaf.frame() == Pfn::new(FIRST);
                    assert!(!zero || !Self::is_writable(leaf.bits), "INV-6: the zero frame is writable: {leaf:x?}");
                } else {
                    mappings.entry(leaf.frame()).or_default().push((mm, leaf));
                }
            }
        }
        for (frame, entries) in &mappings {
            let word = self.word(*frame).snapshot();
            assert_eq!(word.kind, FrameKind::Anonymous, "{frame:?} {word:?}");
            let writable = entries.iter().any(|(_, leaf)| Self::is_writable(leaf.bits));
            assert!(!writable || word.exclusive, "INV-1: writable but not exclusive: {frame:?} {word:?}");
            let shared = entries.iter().any(|(mm, _)| *mm != entries[0].0);
            assert!(!shared || !word.exclusive, "INV-2: exclusive, but mapped by several: {frame:?} {word:?}");
            assert!(word.pins == 0 || word.exclusive, "INV-3: pinned but not exclusive: {frame:?} {word:?}");
        }
        for (frame, _) in self.memory().allocated() {
            let word = self.word(frame).snapshot();
            if word.kind == FrameKind::Table {
                continue;
            }
            let mapped = mappings.get(&frame).map_or(0, |entries| entries.len() as u64);
            let (refs, pins) = held.get(&frame).copied().unwrap_or_default();
            assert_eq!((word.refs, word.pins), (mapped + refs, pins), "{frame:?}: {mapped} mappings, {word:?}");
        }
        self.check_zero_frame();
        seen
    }

    fn check_zero_frame(&self) {
        let zero = Pfn::new(FIRST);
        assert!(self.memory().frame_words(zero).iter().all(|word| *word == 0), "INV-6: the zero frame was written");
        let untouched = self.table().frame(zero).unwrap().snapshot().is_free();
        assert!(untouched, "INV-6: the zero frame was counted");
    }

    /// Nothing is held any more: every frame is back, every word free, every acquisition released (INV-10).
    #[track_caller]
    pub(crate) fn check_balance(&self) {
        self.check_zero_frame();
        assert_eq!(self.memory().allocated(), [], "frames were lost");
        for index in 0..self.memory().uses.borrow().len() as u64 {
            let word = self.word(Pfn::new(FIRST + index));
            assert!(word.snapshot().is_free(), "{:#x}: {word:?}", FIRST + index);
        }
        let counters = self.statistics();
        let surplus = self.inner().expected_surplus.get();
        assert_eq!(counters.pins_acquired + surplus, counters.pins_released, "INV-10: pins");
        assert_eq!(counters.gets_acquired, counters.gets_released, "INV-10: references");
        assert_eq!(counters.bugs_caught, self.inner().expected_bugs.get(), "bugs caught by the library");
    }

    /// The fake device writes `bytes` to physical memory, whoever owns it now.
    pub(crate) fn dma_write(&self, address: u64, bytes: &[u8]) {
        bytes.iter().zip(address..).for_each(|(byte, address)| self.memory().write(address, *byte));
    }

    /// The fake device reads one byte.
    pub(crate) fn dma_read(&self, address: u64) -> u8 {
        self.memory().read(address)
    }

    /// The physical address of a mapped virtual one.
    #[track_caller]
    pub(crate) fn physical(&self, space: &Process<'_, L>, address: u64) -> u64 {
        let leaf = self.leaf(space, address).unwrap();
        leaf.frame().address() + (address - leaf.address)
    }
}

const _: () = assert!(PAGE_SIZE == 4096);
