//! What the unit reads in memory (VT-d specification, "Root Entry", "Context Entry",
//! "Second-Level Paging Entries"): which device is in which domain, and what the domain maps.
//!
//! The unit need not see what is in the CPU's caches, so every entry is flushed from them.

use alloc::vec::Vec;
use core::arch::asm;

use pagepin_abi::Error;

use crate::{
    memory::{self, PAGE},
    mm,
};

/// The domain's number; hardware may reserve 0.
pub const DOMAIN: u64 = 1;

/// Device addresses that are lent: above all memory of this machine, so that an address of
/// one kind is never one of the other, and below 4 GiB, which is the device's reach.
pub const WINDOW_START: u64 = 0x8000_0000;
/// Each leaf table maps 2 MiB.
const LEAF_TABLES: usize = 64;
const ENTRIES: usize = 512;
pub const WINDOW_PAGES: usize = LEAF_TABLES * ENTRIES;

const PRESENT: u64 = 1;
/// In the upper half of a context entry: tables of three levels, 39 bits.
const THREE_LEVELS: u64 = 1;
const DOMAIN_SHIFT: u32 = 8;

/// Bits of an entry of the domain's tables. Upper entries allow both.
const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;

/// What the device may do to a page.
#[derive(Clone, Copy)]
pub enum Access {
    Read,
    ReadWrite,
}

/// Stores an entry where the unit sees it.
fn write(table: u64, index: u64, entry: u64) {
    memory::write_entry(table, index, entry);
    // SAFETY: changes no memory; the entry was just stored through the same address.
    unsafe {
        asm!("clflush [{}]", "mfence", in(reg) memory::direct(table + index * 8), options(nostack, preserves_flags));
    }
}

/// The tables of one domain with one device, all made at once.
pub struct Domain {
    root: u64,
    /// In the order of the window.
    leaves: Vec<u64>,
}

impl Domain {
    /// Maps nothing. `device` is device and function on the first bus; no other device
    /// has an entry, so that the unit blocks all they do.
    pub fn new(device: u8) -> Result<Self, Error> {
        let [root, contexts, top, middle] = [mm::table()?, mm::table()?, mm::table()?, mm::table()?];
        let context = u64::from(device) * 2;
        write(contexts, context + 1, DOMAIN << DOMAIN_SHIFT | THREE_LEVELS);
        write(contexts, context, top | PRESENT);
        write(root, 0, contexts | PRESENT);
        write(top, WINDOW_START >> 30 & 511, middle | READ | WRITE);
        let mut leaves = Vec::new();
        for index in 0..LEAF_TABLES as u64 {
            let leaf = mm::table()?;
            write(middle, (WINDOW_START >> 21 & 511) + index, leaf | READ | WRITE);
            leaves.push(leaf);
        }
        Ok(Self { root, leaves })
    }

    pub fn root_table(&self) -> u64 {
        self.root
    }

    /// Makes a page of the window lead to a frame.
    pub fn map(&self, page: usize, frame: u64, access: Access) {
        assert!(frame.is_multiple_of(PAGE));
        let rights = match access {
            Access::Read => READ,
            Access::ReadWrite => READ | WRITE,
        };
        self.set(page, frame | rights);
    }

    /// The unit may go on using what it has cached.
    pub fn unmap(&self, page: usize) {
        self.set(page, 0);
    }

    fn set(&self, page: usize, entry: u64) {
        write(self.leaves[page / ENTRIES], (page % ENTRIES) as u64, entry);
    }
}

// A context entry is two words, and one table has those of all devices of a bus.
const _: () = assert!(256 * 2 * 8 == PAGE);
const _: () = assert!((WINDOW_START >> 21 & 511) as usize + LEAF_TABLES <= ENTRIES);
