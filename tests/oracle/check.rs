//! What is compared after each step.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use pagepin::frame::{FrameKind, Layout, Snapshot};
use pagepin::pin::PhysRun;
use pagepin::space::Resident;
use pagepin::{AddressSpace, PageAddr, Pfn, Rights, Token, Vma, VmaFlags};

use super::contents::SharedBlock;
use super::decode::windows;
use super::reference::{Backing, Mapping, Reference};
use super::{Effect, World, memory_type};
use crate::kit::Leaf;
use crate::machine::{FIRST, Machine, PAGE};

/// What hardware sets in an entry.
const ACCESSED_AND_DIRTY: u64 = 0x60;
const NO_EXECUTE: u64 = 1 << 63;

/// Entries, tables and words after a step: all that a refused operation could change (INV-14), as words of free frames
/// and empty entries are what is not here.
#[derive(Default)]
pub(super) struct Seen {
    leaves: Vec<Vec<Leaf>>,
    /// What is in slots, by address.
    tokens: Vec<BTreeMap<u64, Token>>,
    tables: Vec<Vec<Pfn>>,
    /// Those of tables are not among them.
    words: BTreeMap<Pfn, Snapshot>,
}

impl Seen {
    /// The leaves of a process, by address.
    pub(super) fn leaves(&self, who: usize) -> &[Leaf] {
        &self.leaves[who]
    }

    pub(super) fn leaf(&self, who: usize, address: u64) -> Option<&Leaf> {
        leaf_at(&self.leaves[who], address)
    }

    pub(super) fn tokens(&self, who: usize) -> &BTreeMap<u64, Token> {
        &self.tokens[who]
    }

    /// Whether a page is in a slot.
    pub(super) fn is_elsewhere(&self, who: usize, address: u64) -> bool {
        self.tokens[who].contains_key(&(address & !(PAGE - 1)))
    }

    pub(super) fn is_pinned(&self, leaf: &Leaf) -> bool {
        !leaf.is_special() && self.words.get(&leaf.frame()).is_some_and(|word| word.pins != 0)
    }

    /// Whether a pin keeps its frame when it goes: one by an object's number, of a page that is borrowed.
    pub(super) fn is_kept(&self, leaf: &Leaf) -> bool {
        let counted = !leaf.is_special() || leaf.is_borrowed();
        counted && self.word(leaf.frame()).is_some_and(|word| word.pins != 0)
    }

    pub(super) fn word(&self, frame: Pfn) -> Option<Snapshot> {
        self.words.get(&frame).copied()
    }

    /// Whether user code may fetch from the frame.
    pub(super) fn is_code(&self, frame: Pfn) -> bool {
        let fetches = |leaf: &&Leaf| leaf.is_present() && leaf.bits & NO_EXECUTE == 0;
        let covers = |leaf: &Leaf| (leaf.frame()..leaf.frame().offset(leaf.size.pages())).contains(&frame);
        self.leaves.iter().flatten().filter(fetches).any(covers)
    }

    /// Compares it with what there was before an operation.
    fn check(&self, before: &Self, effect: Effect) {
        if effect == Effect::Anything {
            return;
        }
        assert_eq!(self.leaves, before.leaves, "INV-14: entries");
        assert_eq!(self.tokens, before.tokens, "INV-14: tokens");
        if effect != Effect::EmptyTables {
            assert_eq!(self.tables, before.tables, "INV-14: tables");
        }
        if effect != Effect::Counts {
            assert_eq!(self.words, before.words, "INV-14: words");
        }
    }
}

fn leaf_at(leaves: &[Leaf], address: u64) -> Option<&Leaf> {
    let after = leaves.partition_point(|leaf| leaf.address <= address);
    leaves[..after].last().filter(|leaf| address - leaf.address < leaf.size.bytes())
}

/// The frames whose words counted for `runs` when they were acquired.
pub(super) fn heads(runs: &[PhysRun]) -> impl Iterator<Item = Pfn> {
    runs.iter().flat_map(|run| {
        let first = run.first().block_start(run.order()).number();
        (first..run.end().number()).step_by(1 << run.order()).map(Pfn::new)
    })
}

impl<L: Layout> World<'_, L> {
    /// Compares everything with the reference, after a step that may have had `effect`.
    pub(super) fn check(&mut self, effect: Effect) {
        let seen = self.audit();
        seen.check(&self.seen, effect);
        self.seen = seen;
        let mut blocks = Blocks::default();
        for (who, (process, reference)) in self.processes.iter().enumerate() {
            process.with_vmas(&mut |vmas| check_vmas(reference, |page| vmas.vma_at(page))).unwrap();
            let limited = self.limited();
            assert_eq!(process.budget().used(), if limited { reference.charged } else { 0 }, "the budget");
            self.check_entries(reference, self.seen.leaves(who), &self.seen.tokens[who], &mut blocks);
            self.check_resident(who);
        }
        for (frame, bytes) in self.pins.iter().flat_map(|dma| &dma.pages) {
            blocks.add(*frame, &bytes.block);
        }
        self.check_files(|frame, block| blocks.add(frame, &block));
        blocks.check(self.machine);
        let right = |(address, byte): (&u64, &u8)| self.machine.memory().read(*address) == *byte;
        assert!(self.registers.iter().all(right), "a device register was changed");
        self.check_translations();
    }

    /// The frames that stand for all of a block: as many as it has been split into.
    fn parts(&self, first: Pfn, order: u8) -> impl Iterator<Item = Pfn> {
        let end = first.offset(1 << order);
        let next =
            move |head: &Pfn| Some(head.offset(1 << self.machine.word(*head).order())).filter(|next| *next < end);
        std::iter::successors(Some(first), next)
    }

    /// The frames whose words count for `runs` now.
    pub(super) fn counted(&self, runs: &[PhysRun]) -> impl Iterator<Item = Pfn> {
        runs.iter().flat_map(|run| heads(&[*run]).flat_map(|head| self.parts(head, run.order())).collect::<Vec<_>>())
    }

    /// What a process is said to have is what it has.
    fn check_resident(&self, who: usize) {
        let tables = self.seen.tables[who].len() as u64;
        let mut wanted = Resident { tables, swapped: self.seen.tokens[who].len() as u64, ..Resident::default() };
        for leaf in self.seen.leaves(who) {
            let word = self.seen.word(leaf.counted(self.machine));
            let counter = match word {
                Some(word) if leaf.is_borrowed() && word.kind != FrameKind::Anonymous => &mut wanted.object,
                _ if leaf.is_special() && leaf.frame() == Pfn::new(FIRST) => &mut wanted.zero,
                _ if leaf.is_special() && !leaf.is_borrowed() => &mut wanted.foreign,
                Some(word) if word.kind == FrameKind::File => &mut wanted.object,
                Some(word) if word.exclusive => &mut wanted.exclusive,
                _ => &mut wanted.shared,
            };
            *counter += leaf.size.pages();
        }
        assert_eq!(self.processes[who].0.resident(), Ok(wanted));
    }

    /// Counts (INV-10): each frame's are those of the entries, pins and gets.
    fn audit(&self) -> Seen {
        let mut held: BTreeMap<Pfn, (u64, u64)> = BTreeMap::new();
        for head in self.pins.iter().flat_map(|dma| self.counted(dma.raw.runs())) {
            let counts = held.entry(head).or_default();
            *counts = (counts.0 + 1, counts.1 + 1);
        }
        for head in self.gets.iter().flat_map(|gets| self.counted(gets.runs())) {
            held.entry(head).or_default().0 += 1;
        }
        let processes: Vec<_> = self.processes.iter().map(|(process, _)| process).collect();
        let (mut leaves, tables): (Vec<_>, Vec<_>) = self.machine.audit(&processes, &held).into_iter().unzip();
        leaves.iter_mut().flatten().for_each(|leaf: &mut Leaf| leaf.bits &= !ACCESSED_AND_DIRTY);
        let blocks = self.machine.memory().allocated().into_iter();
        let words = blocks.flat_map(|(frame, order)| self.parts(frame, order));
        let words = words.map(|frame| (frame, self.machine.word(frame).snapshot()));
        let words: BTreeMap<_, _> = words.filter(|(_, word)| word.kind != FrameKind::Table).collect();
        assert!(held.keys().all(|frame| words.contains_key(frame)), "a frame was freed that is held");
        let tokens = processes.iter().map(|process| self.machine.tokens(process).into_iter().collect()).collect();
        Seen { leaves, tokens, tables, words }
    }

    /// INV-12: no TLB grants what the tables do not.
    fn check_translations(&self) {
        for cached in self.machine.cpus().translations() {
            let who = self.processes.iter().position(|(process, _)| process.root() == cached.root);
            let leaf = who.and_then(|who| self.seen.leaf(who, cached.base)).filter(|leaf| leaf.is_present());
            let granted = leaf.is_some_and(|leaf| {
                leaf.frame().address() + (cached.base - leaf.address) == cached.physical
                    && (!cached.writable || Machine::<L>::is_writable(leaf.bits))
                    && (!cached.executable || leaf.bits & NO_EXECUTE == 0)
            });
            assert!(granted, "INV-12: a TLB still has {cached:x?}, the tables {leaf:x?}");
        }
    }
}

/// The pages of the reference and their frames, each place once.
#[derive(Default)]
struct Blocks {
    known: BTreeSet<(Pfn, *const ())>,
    blocks: Vec<(Pfn, SharedBlock)>,
    in_slots: Vec<(Token, SharedBlock)>,
}

impl Blocks {
    fn add(&mut self, first: Pfn, block: &SharedBlock) {
        if self.known.insert((first, Rc::as_ptr(block).cast())) {
            self.blocks.push((first, block.clone()));
        }
    }

    fn check<L: Layout>(self, machine: &Machine<L>) {
        self.blocks.into_iter().for_each(|(first, block)| block.borrow().check(machine, first));
        for (token, block) in self.in_slots {
            assert!(machine.slot_holds(token, block.borrow().bytes()), "INV-11: {token:?} does not hold its page");
        }
    }
}

/// The VMAs are those of the reference, around it are none.
fn check_vmas(reference: &Reference, vma_at: impl Fn(PageAddr) -> Option<Vma>) {
    let expected = |mapping: &Mapping, vma: &Vma, page: PageAddr| {
        let backing = match &mapping.backing {
            Backing::Registers(frame) => pagepin::Backing::Foreign(memory_type(*frame)),
            Backing::Anonymous(_) => pagepin::Backing::Anonymous,
            Backing::Object(shown) => {
                assert_eq!(vma.object_page(page), Some((shown.file.id, shown.page)));
                vma.backing()
            }
        };
        let vma = (vma.rights(), vma.max_rights(), vma.key(), vma.flags(), vma.backing());
        vma == (mapping.rights, mapping.max_rights, mapping.key, mapping.flags, backing)
    };
    for (first, mapping) in reference.mappings() {
        let page = PageAddr::containing(first * PAGE);
        let vma = vma_at(page);
        assert!(vma.is_some_and(|vma| expected(mapping, &vma, page)), "{mapping:?} became {vma:?}");
    }
    for address in windows() {
        assert_eq!(vma_at(PageAddr::containing(address)).is_some(), reference.page(address).is_some(), "{address:#x}");
    }
}

impl<L: Layout> World<'_, L> {
    /// Every entry belongs to a mapping and says no more than it, and nothing that was stored is without one.
    fn check_entries(
        &self,
        reference: &Reference,
        leaves: &[Leaf],
        tokens: &BTreeMap<u64, Token>,
        blocks: &mut Blocks,
    ) {
        let mut explained = 0;
        for (first, mapping) in reference.mappings() {
            let leaf = leaf_at(leaves, first * PAGE);
            explained += u64::from(leaf.is_some());
            if let Some(leaf) = leaf {
                let rights = mapping.rights;
                let writable = !Machine::<L>::is_writable(leaf.bits) || rights.contains(Rights::WRITE);
                let executable = leaf.bits & NO_EXECUTE != 0 || rights.contains(Rights::EXECUTE);
                let modest = !leaf.is_present() || (writable && executable && !rights.is_empty());
                assert!(modest, "INV-9: {leaf:x?} says more than {rights:?}");
                assert_eq!(leaf.bits >> 59 & 15, u64::from(mapping.key), "the protection key of {leaf:x?}");
            }
            match (&mapping.backing, leaf) {
                (Backing::Registers(frame), leaf) => {
                    let expected = |leaf: &Leaf| {
                        let index = leaf.bits >> 3 & 3 | (leaf.bits >> 7 & 1) << 2;
                        leaf.is_special() && leaf.frame() == *frame && index == memory_type(*frame).pat_index().into()
                    };
                    assert!(leaf.is_some_and(expected), "{frame:?}: {leaf:x?}");
                }
                (Backing::Anonymous(block), Some(leaf)) => {
                    let is_zero = leaf.is_special() && leaf.frame() == Pfn::new(FIRST);
                    let secret = mapping.flags.contains(VmaFlags::UNPINNABLE);
                    let is_part = self.machine.word(leaf.counted(self.machine)).order() > leaf.size.order();
                    assert!(is_zero || is_part || leaf.is_borrowed() == secret, "who pins it? {leaf:x?}");
                    blocks.add(leaf.frame().offset(first - leaf.address / PAGE), block);
                }
                (Backing::Object(shown), leaf) => {
                    let token = tokens.get(&(first * PAGE)).filter(|_| leaf.is_none());
                    explained += u64::from(token.is_some());
                    match (self.check_shown(shown, leaf), token, leaf) {
                        (Some(block), Some(token), _) => blocks.in_slots.push((*token, block.clone())),
                        (Some(block), None, Some(leaf)) => blocks.add(leaf.frame(), block),
                        (None, None, _) => {}
                        _ => panic!("page {first:#x} was lost: {shown:?}"),
                    }
                }
                (Backing::Anonymous(block), None) if let Some(token) = tokens.get(&(first * PAGE)) => {
                    explained += 1;
                    blocks.in_slots.push((*token, block.clone()));
                }
                (Backing::Anonymous(block), None) => {
                    assert!(block.borrow().is_zero(), "page {first:#x} was lost");
                }
            }
        }
        let pages: u64 = leaves.iter().map(|leaf| leaf.size.pages()).sum();
        assert_eq!(explained, pages + tokens.len() as u64, "an entry outside every VMA");
    }
}
