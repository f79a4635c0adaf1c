//! Blocks: a split by one exchange of the head's word x those who hold the block, come to it, or found a part of it in an earlier life.

use std::sync::Arc;

use loom::thread;
use pagepin::frame::{
    Biased10, Dirty, FrameKind, FrameWord, Layout, Ownership, Released, Split23x4x4, Split23x8, Wide,
};
use pagepin::model::Safeguard;

use super::checker::Bound;
use super::runner::{Model, Twin};

const LEFT: &str = "a count is left, or one too many was given back";

pub(crate) const MODELS: &[Model] = &[
    split_x_unpin("split x unpin of the whole (wide)", split_or_unpin::<Wide>),
    split_x_unpin("split x unpin of the whole (split)", split_or_unpin::<Split23x8>),
    split_x_unpin("split x unpin of the whole (three counts)", split_or_unpin::<Split23x4x4>),
    split_x_unpin("split x unpin of the whole (one count)", split_or_unpin::<Biased10>),
    split_x_pin("split x pin (wide)", split_or_pin::<Wide>),
    split_x_pin("split x pin (split)", split_or_pin::<Split23x8>),
    split_x_pin("split x pin (three counts)", split_or_pin::<Split23x4x4>),
    split_x_pin("split x pin (one count)", split_or_pin::<Biased10>),
];

const fn split_x_unpin(name: &'static str, body: fn()) -> Model {
    let twins: &[Twin] = &[
        (Safeguard::PartsBeforeHead, &[LEFT]),
        (Safeguard::PartsByDifference, &[LEFT]),
        (Safeguard::WordOrdering, &[LEFT]),
    ];
    Model { name, bound: Bound::AtMost(3), body, twins }
}

const fn split_x_pin(name: &'static str, body: fn()) -> Model {
    let twins: &[Twin] = &[(Safeguard::CountsByOrder, &[LEFT])];
    Model { name, bound: Bound::AtMost(3), body, twins }
}

/// A block of two frames, with one reference and `pins` pins.
struct Block<L: Layout>([FrameWord<L>; 2]);

impl<L: Layout + 'static> Block<L> {
    fn new(pins: u64) -> Arc<Self> {
        let block = Self([FrameWord::new(), FrameWord::new()]);
        block.0[0].hand_out(FrameKind::Anonymous, 1, Ownership::Exclusive).expect("a new frame");
        (0..pins).for_each(|_| block.0[0].try_pin_exclusive_of(1).expect("a block"));
        Arc::new(block)
    }

    fn split(&self) {
        self.0[0].try_split(0, |part| self.0.get(part)).expect("an exclusive block");
    }

    /// Gives back a pin that was taken when this was a block.
    fn unpin_all(&self) {
        let held = |word: &FrameWord<L>| {
            let (released, order) = word.unpin_of_block(Dirty::No).expect(LEFT);
            assert!(matches!(released, Released::Held { .. }), "{LEFT}");
            order
        };
        if held(&self.0[0]) == 0 {
            held(&self.0[1]);
        }
    }

    /// Each frame has its mapping's reference and `pins` pins, by which it is held.
    fn has(&self, pins: u64) {
        for word in self.0.each_ref().map(FrameWord::snapshot) {
            assert_eq!((word.refs - word.pins, word.pins, word.order, word.exclusive), (1, pins, 0, true), "{LEFT}");
        }
    }
}

/// Of two pins of the whole one is given back meanwhile; a walker has the second frame in hand by an entry of an earlier life.
fn split_or_unpin<L: Layout + 'static>() {
    let block = Block::<L>::new(2);
    let holder = thread::spawn({
        let block = Arc::clone(&block);
        move || block.unpin_all()
    });
    let walker = thread::spawn({
        let block = Arc::clone(&block);
        move || {
            if block.0[1].try_pin_exclusive_of(0).is_ok() {
                assert!(matches!(block.0[1].unpin(Dirty::No), Ok(Released::Held { .. })), "{LEFT}");
            }
        }
    });
    block.split();
    holder.join().expect("no panic");
    walker.join().expect("no panic");
    block.has(1);
    block.unpin_all();
    block.has(0);
}

/// A walker that has the large leaf in hand, and one that has the first frame as a page: each counts what it looked for, or nothing.
fn split_or_pin<L: Layout + 'static>() {
    let block = Block::<L>::new(0);
    let of_block = thread::spawn({
        let block = Arc::clone(&block);
        move || {
            if block.0[0].try_pin_exclusive_of(1).is_ok() {
                block.unpin_all();
            }
        }
    });
    let of_page = thread::spawn({
        let block = Arc::clone(&block);
        move || {
            if block.0[0].try_pin_exclusive_of(0).is_ok() {
                assert!(matches!(block.0[0].unpin(Dirty::No), Ok(Released::Held { .. })), "{LEFT}");
            }
        }
    });
    block.split();
    of_block.join().expect("no panic");
    of_page.join().expect("no panic");
    block.has(0);
}
