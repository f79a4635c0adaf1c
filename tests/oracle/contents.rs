//! The bytes of pages, as their process knows them.

use std::cell::RefCell;
use std::rc::Rc;

use pagepin::Pfn;
use pagepin::frame::Layout;

use crate::machine::{Machine, PAGE};

static ZEROES: [u8; PAGE as usize] = [0; PAGE as usize];

/// The bytes of a page.
#[derive(Debug)]
pub(crate) struct Block {
    /// None as long as all are zero.
    bytes: Vec<u8>,
    /// Its process has given it up, and nobody has written it since.
    pub(crate) given_up: bool,
    /// It was written since it was made, or last written back.
    pub(crate) written: bool,
}

pub(crate) type SharedBlock = Rc<RefCell<Block>>;

impl Block {
    fn new(bytes: Vec<u8>) -> SharedBlock {
        Rc::new(RefCell::new(Self { bytes, given_up: false, written: false }))
    }

    pub(crate) fn cleared() -> SharedBlock {
        Self::new(Vec::new())
    }

    /// A page of the same byte all over.
    pub(crate) fn filled(byte: u8) -> SharedBlock {
        Self::new(vec![byte; PAGE as usize])
    }

    /// Page `page` of a block in which no two are alike.
    pub(crate) fn patterned(page: usize, seed: u8) -> SharedBlock {
        let mut bytes = vec![page as u8 ^ seed; PAGE as usize];
        bytes[page] = (page >> 8) as u8 ^ !seed;
        Self::new(bytes)
    }

    /// The same bytes, from now on with a life of their own.
    pub(crate) fn copied(&self) -> SharedBlock {
        Self::new(self.bytes.clone())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        if self.bytes.is_empty() { &ZEROES } else { &self.bytes }
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.bytes() == ZEROES
    }

    /// Compares the page with `frame`.
    pub(crate) fn check<L: Layout>(&self, machine: &Machine<L>, frame: Pfn) {
        assert!(machine.memory().holds(frame, self.bytes()), "INV-11: {frame:?} does not hold what its process wrote");
    }
}

/// A page, by another name. Who pins it has one.
#[derive(Clone, Debug)]
pub(crate) struct Bytes {
    pub(crate) block: SharedBlock,
}

impl Bytes {
    /// The byte at `address`, of which only the place in the page counts.
    pub(crate) fn get(&self, address: u64) -> u8 {
        self.block.borrow().bytes()[(address % PAGE) as usize]
    }

    pub(crate) fn set(&self, address: u64, byte: u8) {
        let block = &mut *self.block.borrow_mut();
        (block.given_up, block.written) = (false, true);
        block.bytes.resize(PAGE as usize, 0);
        block.bytes[(address % PAGE) as usize] = byte;
    }

    /// Compares the page with `frame`.
    pub(crate) fn is_in<L: Layout>(&self, machine: &Machine<L>, frame: Pfn) -> bool {
        machine.memory().holds(frame, self.block.borrow().bytes())
    }
}
