//! The machine as the test kit sees it, and what it finds there.

use std::collections::BTreeMap;

use pagepin::frame::{Layout, Snapshot};
use pagepin::{AddressSpace, CounterValues, EntryAddr, Env, PAGE_SIZE, Pfn, Token};

use super::memory::{FIRST, Use};
use super::{Machine, Process};
use crate::kit::{self, Leaf, Plug, Root};

/// Entries that are looked at together.
const GLANCE: usize = 32;

impl<L: Layout> Plug for Machine<L> {
    /// At once, and most of a table at a glance: this is the most frequent loop of all the tests.
    fn entries(&self, table: Pfn, places: u64) -> Vec<(EntryAddr, u64)> {
        assert!(matches!(self.memory().use_of(table), Some(Use::Allocated { .. })), "INV-13: {table:?} is in use");
        let words = self.memory().frame_words(table);
        let used = (0..places as usize).step_by(GLANCE).filter(|first| words[*first..first + GLANCE] != [0; GLANCE]);
        let places = used.flat_map(|first| first..first + GLANCE).filter(|index| words[*index] != 0);
        places.map(|index| (EntryAddr::new(table, index as u64), words[index])).collect()
    }

    fn snapshot(&self, frame: Pfn) -> Snapshot {
        self.word(frame).snapshot()
    }

    fn frames(&self) -> Vec<Pfn> {
        (0..self.memory().uses.borrow().len() as u64).map(|index| Pfn::new(FIRST + index)).collect()
    }

    fn allocated(&self) -> Vec<Pfn> {
        self.memory().allocated().into_iter().map(|(frame, _)| frame).collect()
    }

    fn zero_frame(&self) -> Option<(Pfn, bool)> {
        let zero = Pfn::new(FIRST);
        Some((zero, self.memory().frame_words(zero).iter().all(|word| *word == 0)))
    }

    fn counters(&self) -> CounterValues {
        self.statistics()
    }
}

fn root<L: Layout>(space: &Process<'_, L>) -> Root {
    Root { table: space.root(), levels: space.mm().levels() }
}

impl<L: Layout> Machine<L> {
    /// The leaf entries of an address space and its table pages.
    pub(crate) fn leaves(&self, space: &Process<'_, L>) -> kit::Seen {
        kit::leaves(self, root(space))
    }

    /// The tokens of an address space, by address.
    pub(crate) fn tokens(&self, space: &Process<'_, L>) -> Vec<(u64, Token)> {
        kit::tokens(self, root(space))
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

    /// See [`kit::audit`]; what slots and objects hold is known, and each token has as many holders as there are entries.
    #[track_caller]
    pub(crate) fn audit(&self, spaces: &[&Process<'_, L>], held: &kit::Held) -> Vec<kit::Seen> {
        let roots: Vec<_> = spaces.iter().map(|space| root(space)).collect();
        let mut held = held.clone();
        let (frames, tokens) = self.kept();
        for frame in frames {
            held.entry(frame).or_default().0 += 1;
        }
        let mut holders: BTreeMap<Token, u64> = BTreeMap::new();
        for (_, token) in roots.iter().flat_map(|root| kit::tokens(self, *root)) {
            *holders.entry(token).or_default() += 1;
        }
        assert_eq!(holders, tokens, "who holds a slot");
        kit::audit(self, &roots, &held)
    }

    /// See [`kit::check_balance`].
    #[track_caller]
    pub(crate) fn check_balance(&self) {
        kit::check_balance(self, (self.inner().expected_surplus.get(), self.inner().expected_bugs.get()));
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
