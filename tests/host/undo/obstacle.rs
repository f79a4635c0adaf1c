//! What can stand in the way of an operation.

use pagepin::frame::{Dirty, FrameWord, Layout};
use pagepin::{PinBudget, PinTerm};

use super::Scene;
use crate::machine::{Machine, PAGE, RW};

/// Something in the way of an operation. Addresses are those of the scene's first process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Obstacle {
    /// Memory runs out after so many allocations.
    OutOfMemory { after: u64 },
    /// One allocation fails, and those after it succeed.
    OneFailure { after: u64 },
    /// The frame there is frozen by a migration.
    Frozen(u64),
    /// The frame there has as many references as it may have.
    ManyReferences(u64),
    /// The frame there has as many pins as it may have.
    ManyPins(u64),
    /// The frame there is pinned.
    Pinned(u64),
    /// The entry of this level on the way there was damaged: these bits are flipped.
    Damaged { address: u64, level: u32, flipped: u64 },
    /// So many pages are charged to the process's budget already.
    Charged(u64),
    /// The process has so many VMAs more, from here on.
    ManyVmas { from: u64, count: u64 },
}

impl Obstacle {
    /// Sets it up.
    pub(crate) fn put<L: Layout>(&self, machine: &Machine<L>, scene: &Scene<'_, L>) {
        let word = |address| machine.word(machine.frame_at(scene.process(), address).0);
        match *self {
            Self::OutOfMemory { .. } | Self::OneFailure { .. } => {}
            Self::Frozen(address) => {
                let word = word(address);
                word.try_freeze(word.snapshot().refs).unwrap();
            }
            Self::ManyReferences(address) => set_references(word(address), FrameWord::<L>::MAX_REFS),
            Self::ManyPins(address) => {
                let word = word(address);
                (0..FrameWord::<L>::MAX_PINS).for_each(|_| word.try_pin().unwrap());
            }
            Self::Pinned(address) => word(address).try_pin().unwrap(),
            Self::Damaged { .. } => self.flip(machine, scene),
            Self::Charged(pages) => scene.process().budget().charge(pages, PinTerm::Short).unwrap(),
            Self::ManyVmas { from, count } => {
                // A page apart, so that they do not merge.
                (0..count).for_each(|index| scene.process().map(from + 2 * index * PAGE, PAGE, RW).unwrap());
            }
        }
    }

    /// Takes it away.
    pub(crate) fn lift<L: Layout>(&self, machine: &Machine<L>, scene: &Scene<'_, L>) {
        let word = |address| machine.word(machine.frame_at(scene.process(), address).0);
        let mappings = |address| {
            let frame = machine.frame_at(scene.process(), address).0;
            let leaves = scene.processes.iter().flat_map(|process| machine.leaves(process).0);
            leaves.filter(|leaf| leaf.frame() == frame).count() as u64
        };
        match *self {
            Self::OutOfMemory { .. } | Self::OneFailure { .. } => {}
            Self::Frozen(address) => word(address).unfreeze(mappings(address)).unwrap(),
            Self::ManyReferences(address) => set_references(word(address), mappings(address)),
            Self::ManyPins(address) => {
                let word = word(address);
                (0..FrameWord::<L>::MAX_PINS).for_each(|_| assert!(word.unpin(Dirty::No).is_ok()));
            }
            Self::Pinned(address) => assert!(word(address).unpin(Dirty::No).is_ok()),
            Self::Damaged { .. } => self.flip(machine, scene),
            Self::Charged(pages) => scene.process().budget().uncharge(pages, PinTerm::Short),
            Self::ManyVmas { from, count } => _ = scene.process().unmap(from, 2 * count * PAGE).unwrap(),
        }
    }

    fn flip<L: Layout>(&self, machine: &Machine<L>, scene: &Scene<'_, L>) {
        let Self::Damaged { address, level, flipped } = *self else { return };
        let (at, bits) = machine.entry(scene.process(), address, level);
        machine.poke(at, bits ^ flipped);
    }

    /// The operation begins.
    pub(crate) fn arm<L: Layout>(&self, machine: &Machine<L>) {
        match *self {
            Self::OutOfMemory { after } => machine.memory().allow(Some(after)),
            Self::OneFailure { after } => machine.memory().fail_once(Some(after)),
            _ => {}
        }
    }

    /// The operation is over.
    pub(crate) fn disarm<L: Layout>(&self, machine: &Machine<L>) {
        machine.memory().allow(None);
        machine.memory().fail_once(None);
    }
}

/// Gives a frame that is not pinned another number of references.
fn set_references<L: Layout>(word: &FrameWord<L>, refs: u64) {
    word.try_freeze(word.snapshot().refs).unwrap();
    word.unfreeze(refs).unwrap();
}
