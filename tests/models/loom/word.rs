//! The frame word by itself.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;
use pagepin::frame::{CountError, Dirty, FrameKind, FrameWord, Layout, Ownership, Released, Split23x8, Wide};
use pagepin::model::Safeguard;

use super::checker::{Bound, UNORDERED};
use super::runner::Model;

const SHARED: &str = "INV-3: a pinned frame was shared";

pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "share x pin (wide)",
        bound: Bound::All,
        body: share_or_pin::<Wide>,
        twins: &[(Safeguard::PinNeedsExclusive, &[SHARED]), (Safeguard::ShareNeedsNoPins, &[SHARED])],
    },
    Model {
        name: "share x pin (split)",
        bound: Bound::All,
        body: share_or_pin::<Split23x8>,
        twins: &[(Safeguard::PinNeedsExclusive, &[SHARED]), (Safeguard::ShareNeedsNoPins, &[SHARED])],
    },
    Model {
        name: "freeze x pin (wide)",
        bound: Bound::AtMost(3),
        body: freeze_or_pin::<Wide>,
        twins: &[(Safeguard::FreezeNeedsNoPins, &[UNORDERED]), (Safeguard::WordOrdering, &[UNORDERED])],
    },
    Model {
        name: "freeze x pin (split)",
        bound: Bound::AtMost(3),
        body: freeze_or_pin::<Split23x8>,
        twins: &[(Safeguard::FreezeNeedsNoPins, &[UNORDERED]), (Safeguard::WordOrdering, &[UNORDERED])],
    },
    Model {
        name: "claim x the sharer's last put",
        bound: Bound::All,
        body: claim_after_put,
        twins: &[(Safeguard::ClaimNeedsSoleReference, &[UNORDERED]), (Safeguard::WordOrdering, &[UNORDERED])],
    },
    Model {
        name: "last put x speculative get (word)",
        bound: Bound::All,
        body: put_or_get,
        twins: &[(Safeguard::FreeRefuses, &[UNORDERED]), (Safeguard::WordOrdering, &[UNORDERED])],
    },
];

/// A frame with one reference and its contents, whose users loom watches.
struct Held<L: Layout> {
    word: FrameWord<L>,
    contents: UnsafeCell<u64>,
}

impl<L: Layout> Held<L> {
    fn new(ownership: Ownership) -> Arc<Self> {
        let held = Self { word: FrameWord::new(), contents: UnsafeCell::new(0) };
        held.word.hand_out(FrameKind::Anonymous, 0, ownership).expect("a new frame");
        Arc::new(held)
    }

    fn read(&self) {
        // SAFETY: loom reports a write that is not ordered with this read.
        self.contents.with(|contents| unsafe { *contents });
    }

    fn write(&self) {
        // SAFETY: loom reports an access that is not ordered with this write.
        self.contents.with_mut(|contents| unsafe { *contents += 1 });
    }
}

// SAFETY: loom watches `contents`; the word is atomic.
unsafe impl<L: Layout> Sync for Held<L> {}

/// INV-3, INV-4: the pins come first and the share is refused, or the share does and they are.
fn share_or_pin<L: Layout>() {
    let frame = Held::<L>::new(Ownership::Exclusive);
    let pinners = [(); 2].map(|()| {
        let frame = Arc::clone(&frame);
        thread::spawn(move || frame.word.try_pin_exclusive())
    });
    let shared = frame.word.try_share_with_child();
    for pinned in pinners.map(|pinner| pinner.join().expect("no panic")) {
        assert_eq!(pinned.is_ok(), frame.word.snapshot().exclusive, "{SHARED}");
        assert_eq!(pinned.is_ok(), shared == Err(CountError::Pinned), "{SHARED}");
    }
}

/// A migration that froze the frame has it to itself: whoever pinned it has gone, and nobody comes.
fn freeze_or_pin<L: Layout>() {
    let frame = Held::<L>::new(Ownership::Exclusive);
    let pinners = [(); 2].map(|()| {
        let frame = Arc::clone(&frame);
        thread::spawn(move || match frame.word.try_pin_exclusive() {
            Ok(()) => {
                frame.read();
                let held = frame.word.unpin(Dirty::No);
                assert!(matches!(held, Ok(Released::Held { .. })), "the mapping's reference is left");
            }
            Err(error) => assert_eq!(error, CountError::Frozen),
        })
    });
    if frame.word.try_freeze(1).is_ok() {
        frame.write();
        frame.word.unfreeze(1).expect("it is frozen");
    }
    let _ = pinners.map(|pinner| pinner.join().expect("no panic"));
    let word = frame.word.snapshot();
    assert!((word.refs, word.pins, word.exclusive, word.frozen) == (1, 0, true, false));
}

/// INV-7: who claims a frame may write it, since the other has read what it wanted and gone.
fn claim_after_put() {
    let frame = Held::<Wide>::new(Ownership::Shared);
    frame.word.try_get().expect("the child's mapping");
    let child = {
        let frame = Arc::clone(&frame);
        thread::spawn(move || {
            frame.read();
            assert_eq!(frame.word.put(), Ok(Released::Held { pinned: false }));
        })
    };
    if frame.word.try_claim().is_ok() {
        frame.write();
    }
    child.join().expect("no panic");
}

/// Whoever sees the last reference go owns the frame: one of the two, once, after all that the other did.
fn put_or_get() {
    let frame = Held::<Wide>::new(Ownership::Exclusive);
    let getter = {
        let frame = Arc::clone(&frame);
        thread::spawn(move || {
            frame.word.try_get().is_ok_and(|()| {
                frame.read();
                freed(&frame)
            })
        })
    };
    let mine = freed(&frame);
    let other = getter.join().expect("no panic");
    assert!(!(mine && other), "the last reference went twice");
    assert!(mine || other, "the frame was lost");
}

fn freed(frame: &Held<Wide>) -> bool {
    let last = matches!(frame.word.put().expect("a reference is held"), Released::Last { .. });
    if last {
        frame.write();
    }
    last
}
