//! The bytes of pages, as their process knows them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use pagepin::Pfn;
use pagepin::frame::Layout;

use crate::machine::{Machine, PAGE};

static ZEROES: [u8; PAGE as usize] = [0; PAGE as usize];

/// The bytes behind one leaf: a page, or the 512 of a large leaf.
#[derive(Debug)]
pub(crate) struct Block {
    pages: usize,
    /// None as long as all are zero.
    bytes: Vec<u8>,
    /// Pages that were written, and the first and last.
    touched: BTreeSet<usize>,
    /// The frame in which every byte was found.
    found_in: Option<Pfn>,
    /// Its process has given it up, and nobody has written it since.
    pub(crate) given_up: bool,
    /// It was written since it was made, or last written back.
    pub(crate) written: bool,
}

pub(crate) type SharedBlock = Rc<RefCell<Block>>;

impl Block {
    fn new(pages: usize, bytes: Vec<u8>) -> Self {
        Self { pages, bytes, touched: BTreeSet::from([0, pages - 1]), found_in: None, given_up: false, written: false }
    }

    pub(crate) fn cleared() -> SharedBlock {
        Rc::new(RefCell::new(Self::new(1, Vec::new())))
    }

    /// A page of the same byte all over.
    pub(crate) fn filled(byte: u8) -> SharedBlock {
        Rc::new(RefCell::new(Self::new(1, vec![byte; PAGE as usize])))
    }

    /// `pages` pages, no two of them alike.
    pub(crate) fn patterned(pages: usize, seed: u8) -> SharedBlock {
        let mut bytes = vec![seed; pages * PAGE as usize];
        for (page, bytes) in bytes.chunks_exact_mut(PAGE as usize).enumerate() {
            bytes.fill(page as u8 ^ seed);
            bytes[page] = (page >> 8) as u8 ^ !seed;
        }
        Rc::new(RefCell::new(Self::new(pages, bytes)))
    }

    /// The same bytes, from now on with a life of their own.
    pub(crate) fn copied(&self) -> SharedBlock {
        Rc::new(RefCell::new(Self {
            bytes: self.bytes.clone(),
            touched: self.touched.clone(),
            found_in: None,
            given_up: false,
            written: false,
            ..*self
        }))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn page(&self, page: usize) -> &[u8] {
        let start = page * PAGE as usize;
        self.bytes.get(start..start + PAGE as usize).unwrap_or(&ZEROES)
    }

    pub(crate) fn is_zero(&self) -> bool {
        (0..self.pages).all(|page| self.page(page) == ZEROES)
    }

    /// From now on every byte is compared again.
    pub(crate) fn forget_where(&mut self) {
        self.found_in = None;
    }

    /// Compares the block with the frames from `first` on: every page of it, except that the pages of a large leaf that
    /// nobody wrote are only compared when the leaf has got other frames.
    pub(crate) fn check<L: Layout>(&mut self, machine: &Machine<L>, first: Pfn) {
        let check = |page: usize| {
            let frame = first.offset(page as u64);
            let same = machine.memory().holds(frame, self.page(page));
            assert!(same, "INV-11: {frame:?} does not hold what its process wrote in page {page} of the leaf");
        };
        if self.found_in == Some(first) {
            self.touched.iter().copied().for_each(check);
        } else {
            (0..self.pages).for_each(check);
            self.found_in = Some(first);
        }
    }
}

/// One page of a block. Whoever pins a page has another name for it.
#[derive(Clone, Debug)]
pub(crate) struct Bytes {
    pub(crate) block: SharedBlock,
    pub(crate) page: usize,
}

impl Bytes {
    /// The byte at `address`, of which only the place in the page counts.
    pub(crate) fn get(&self, address: u64) -> u8 {
        self.block.borrow().page(self.page)[(address % PAGE) as usize]
    }

    pub(crate) fn set(&self, address: u64, byte: u8) {
        let block = &mut *self.block.borrow_mut();
        (block.given_up, block.written) = (false, true);
        block.bytes.resize(block.pages * PAGE as usize, 0);
        block.bytes[self.page * PAGE as usize + (address % PAGE) as usize] = byte;
        block.touched.insert(self.page);
    }

    /// Compares the page with `frame`.
    pub(crate) fn is_in<L: Layout>(&self, machine: &Machine<L>, frame: Pfn) -> bool {
        machine.memory().holds(frame, self.block.borrow().page(self.page))
    }

    /// The frame in which the block of this page begins, if this page is in `frame`.
    pub(crate) fn block_in(&self, frame: Pfn) -> Pfn {
        Pfn::new(frame.number() - self.page as u64)
    }
}
