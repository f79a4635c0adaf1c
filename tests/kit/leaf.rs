//! Leaves and tables, by a descent that is not the library's.

use pagepin::{Entry, EntryAddr, LeafSize, Levels, Pfn, SOFTWARE_BITS, Token};

use super::{Plug, Root};

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const SPECIAL: u64 = 1 << SOFTWARE_BITS[0];
const PROT_NONE: u64 = 1 << SOFTWARE_BITS[1];
const BORROWED: u64 = 1 << SOFTWARE_BITS[4];
const USER: u64 = 1 << 2;

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
        Pfn::containing(self.bits & ADDRESS & !(self.size.bytes() - 1))
    }

    pub(crate) fn is_special(&self) -> bool {
        self.bits & SPECIAL != 0
    }

    /// Its frame has a reference for it.
    pub(crate) fn is_counted(&self) -> bool {
        self.bits & (SPECIAL | BORROWED) != SPECIAL
    }

    /// The frame whose word has the reference: its own, or the head of the block that it is a part of.
    pub(crate) fn counted(&self, kernel: &(impl Plug + ?Sized)) -> Pfn {
        let heads = [0, 9, 18].map(|order| (order, self.frame().block_start(order)));
        let in_use = |(order, head): &(u8, Pfn)| {
            let word = kernel.snapshot(*head);
            !word.is_free() && word.order >= *order
        };
        match self.is_borrowed() {
            true => heads.into_iter().find(in_use).map_or(self.frame(), |(_, head)| head),
            false => self.frame(),
        }
    }

    /// Its frame is an object's, and the VMA is private; or it is a part of a block that others have as well; or the VMA is unpinnable.
    pub(crate) fn is_borrowed(&self) -> bool {
        self.bits & (SPECIAL | BORROWED) == SPECIAL | BORROWED
    }

    pub(crate) fn is_present(&self) -> bool {
        self.bits & PRESENT != 0
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.bits & WRITABLE != 0
    }
}

/// The leaves of an address space by their addresses, and its tables, the top one first.
pub(crate) fn leaves(kernel: &(impl Plug + ?Sized), root: Root) -> (Vec<Leaf>, Vec<Pfn>) {
    let found = descend_from(kernel, root);
    (found.leaves, found.tables)
}

/// The tokens of an address space by their addresses.
pub(crate) fn tokens(kernel: &(impl Plug + ?Sized), root: Root) -> Vec<(u64, Token)> {
    descend_from(kernel, root).tokens
}

#[derive(Default)]
struct Found {
    leaves: Vec<Leaf>,
    tables: Vec<Pfn>,
    tokens: Vec<(u64, Token)>,
}

fn descend_from(kernel: &(impl Plug + ?Sized), root: Root) -> Found {
    let mut found = Found::default();
    let top = if root.levels == Levels::Four { 4 } else { 5 };
    descend(kernel, (root.table, top, 0), &mut found);
    found
}

fn descend(kernel: &(impl Plug + ?Sized), (table, level, base): (Pfn, u32, u64), found: &mut Found) {
    // The kernel's half of the top table is its own business.
    let places = if found.tables.is_empty() { 256 } else { 512 };
    found.tables.push(table);
    for (at, bits) in kernel.entries(table, places) {
        let address = base + ((at.address() % 4096 / 8) << (12 + 9 * (level - 1)));
        if level == 1 && is_token(bits) {
            found.tokens.push((address, Entry::from_bits(bits).as_token().expect("a token")));
            continue;
        }
        assert!(bits & (PRESENT | PROT_NONE) != 0, "a broken entry was left behind: {bits:#x} at level {level}");
        if level != 1 && bits & LARGE == 0 {
            descend(kernel, (Pfn::containing(bits & ADDRESS), level - 1, address), found);
            continue;
        }
        let size = match level {
            1 => LeafSize::Size4KiB,
            2 => LeafSize::Size2MiB,
            3 => LeafSize::Size1GiB,
            _ => panic!("a leaf at level {level}"),
        };
        found.leaves.push(Leaf { address, at, bits, size });
    }
}

/// An entry that stands for a page which is elsewhere.
pub(crate) fn is_token(bits: u64) -> bool {
    bits & (PRESENT | USER | PROT_NONE | SPECIAL) == SPECIAL
}
