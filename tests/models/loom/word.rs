//! The frame word by itself.
//!
//! In each model is a stale walker: it found the frame in an entry that is gone by now, counts the frame at any time, sees that, and lets
//! go. In *freeze x pin* and *last put x speculative get* the others are such walkers.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread::{self, JoinHandle};
use pagepin::frame::{
    Biased10, CountError, Dirty, FrameKind, FrameWord, Layout, Ownership, Released, Split23x4x4, Split23x8, Wide,
};
use pagepin::model::Safeguard;

use super::checker::{Bound, UNORDERED};
use super::runner::{Model, Twin};

const SECOND: &str = "a second pinner";
const BOTH: &str = "gets and pins on one frame";
const TAKEN: &str = "what a walker counted has gone, or the mapping's reference";
const SHARED: &str = "INV-3: a pinned frame was shared";

pub(crate) const MODELS: &[Model] = &[
    share_x_pin("share x pin (wide)", share_or_pin::<Wide>),
    share_x_pin("share x pin (split)", share_or_pin::<Split23x8>),
    share_x_pin("share x pin (three counts)", share_or_pin::<Split23x4x4>),
    share_x_pin("share x pin (one count)", share_or_pin::<Biased10>),
    freeze_x_pin("freeze x pin (wide)", freeze_or_pin::<Wide>),
    freeze_x_pin("freeze x pin (split)", freeze_or_pin::<Split23x8>),
    freeze_x_pin("freeze x pin (three counts)", freeze_or_pin::<Split23x4x4>),
    freeze_x_pin("freeze x pin (one count)", freeze_or_pin::<Biased10>),
    sole_x_pin("sole x pin (wide)", sole_or_pin::<Wide>),
    sole_x_pin("sole x pin (split)", sole_or_pin::<Split23x8>),
    sole_x_pin("sole x pin (three counts)", sole_or_pin::<Split23x4x4>),
    Model {
        name: "get x pin (three counts)",
        bound: Bound::AtMost(4),
        body: get_or_pin,
        twins: &[(Safeguard::OneKindAtATime, &[BOTH])],
    },
    claim_x_put("claim x the sharer's last put (wide)", claim_after_put::<Wide>),
    claim_x_put("claim x the sharer's last put (split)", claim_after_put::<Split23x8>),
    claim_x_put("claim x the sharer's last put (three counts)", claim_after_put::<Split23x4x4>),
    claim_x_put("claim x the sharer's last put (one count)", claim_after_put::<Biased10>),
    put_x_get("last put x speculative get (word, wide)", put_or_get::<Wide>),
    put_x_get("last put x speculative get (word, split)", put_or_get::<Split23x8>),
    put_x_get("last put x speculative get (word, three counts)", put_or_get::<Split23x4x4>),
    put_x_get("last put x speculative get (word, one count)", put_or_get::<Biased10>),
];

const fn share_x_pin(name: &'static str, body: fn()) -> Model {
    let twins: &[Twin] = &[(Safeguard::PinNeedsExclusive, &[SHARED]), (Safeguard::ShareNeedsNoPins, &[SHARED])];
    Model { name, bound: Bound::AtMost(4), body, twins }
}

const fn freeze_x_pin(name: &'static str, body: fn()) -> Model {
    let twins: &[Twin] = &[(Safeguard::FreezeNeedsNoPins, &[UNORDERED]), (Safeguard::WordOrdering, &[UNORDERED])];
    Model { name, bound: Bound::AtMost(3), body, twins }
}

const fn sole_x_pin(name: &'static str, body: fn()) -> Model {
    let twins: &[Twin] =
        &[(Safeguard::SoleNeedsNoPins, &[UNORDERED, SECOND, TAKEN]), (Safeguard::WordOrdering, &[UNORDERED])];
    Model { name, bound: Bound::AtMost(3), body, twins }
}

const fn claim_x_put(name: &'static str, body: fn()) -> Model {
    let twins: &[Twin] = &[(Safeguard::ClaimNeedsSoleReference, &[UNORDERED]), (Safeguard::WordOrdering, &[UNORDERED])];
    Model { name, bound: Bound::All, body, twins }
}

const fn put_x_get(name: &'static str, body: fn()) -> Model {
    let twins: &[Twin] = &[(Safeguard::FreeRefuses, &[UNORDERED]), (Safeguard::WordOrdering, &[UNORDERED])];
    Model { name, bound: Bound::All, body, twins }
}

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

impl<L: Layout + 'static> Held<L> {
    fn spawn<T: 'static>(self: &Arc<Self>, act: impl FnOnce(&Self) -> T + 'static) -> JoinHandle<T> {
        let frame = Arc::clone(self);
        thread::spawn(move || act(&frame))
    }

    /// A stale walker that pins, and looks around while it does.
    fn stale_pin(self: &Arc<Self>, look: fn(&Self)) -> JoinHandle<()> {
        self.spawn(move |frame| {
            if frame.word.try_pin_exclusive().is_ok() {
                look(frame);
                assert!(matches!(frame.word.unpin(Dirty::No), Ok(Released::Held { .. })), "{TAKEN}");
            }
        })
    }

    /// A stale walker that gets.
    fn stale_get(self: &Arc<Self>) -> JoinHandle<()> {
        self.spawn(|frame| {
            frame.word.try_get().expect("a mapped frame");
            assert_eq!(frame.word.put(), Ok(Released::Held { pinned: false }), "{TAKEN}");
        })
    }
}

/// INV-3, INV-4: a pin comes first and the share is refused, or the share does and the pin is. A refusal for the walker's pin is one
/// of the former: the frame stays what it was, and the pin that stays finds it so.
fn share_or_pin<L: Layout + 'static>() {
    let frame = Held::<L>::new(Ownership::Exclusive);
    let pinner = frame.spawn(|frame| frame.word.try_pin_exclusive());
    let walker = frame.stale_pin(|frame| assert!(frame.word.snapshot().exclusive, "{SHARED}"));
    let shared = frame.word.try_share_with_child();
    let pinned = pinner.join().expect("no panic");
    walker.join().expect("no panic");
    assert_eq!(pinned.is_ok(), shared == Err(CountError::Pinned), "{SHARED}");
    let word = frame.word.snapshot();
    assert_eq!((word.exclusive, word.pins, word.refs), (pinned.is_ok(), pinned.is_ok().into(), 2), "{SHARED}");
}

/// S14: who has all pins has the contents to itself, until it gives them back; who has one only reads.
fn sole_or_pin<L: Layout + 'static>() {
    let frame = Held::<L>::new(Ownership::Exclusive);
    let pinner = frame.spawn(|frame| match frame.word.try_pin_exclusive() {
        Ok(()) => {
            frame.read();
            let _ = frame.word.unpin(Dirty::No).expect(SECOND);
        }
        Err(error) => assert_eq!(error, CountError::Sole),
    });
    let walker = frame.stale_pin(|_| ());
    match frame.word.try_pin_sole() {
        Ok(()) => {
            frame.write();
            let _ = frame.word.unpin_sole(Dirty::Yes).expect(SECOND);
        }
        Err(error) => assert_eq!(error, CountError::Sole),
    }
    pinner.join().expect("no panic");
    walker.join().expect("no panic");
    let word = frame.word.snapshot();
    assert!((word.refs, word.pins, word.sole, word.exclusive) == (1, 0, false, true), "{SECOND}");
}

/// S3: whichever comes first keeps the other kind out until it is given back. The walker's pin keeps out gets, and no pin.
fn get_or_pin() {
    let frame = Held::<Split23x4x4>::new(Ownership::Exclusive);
    let getter = frame.spawn(|frame| frame.word.try_get_user());
    let walker = frame.stale_pin(|_| ());
    let pinned = frame.word.try_pin_exclusive();
    walker.join().expect("no panic");
    let got = getter.join().expect("no panic");
    assert!(pinned.is_ok() != got.is_ok(), "{BOTH}, or neither");
    let refused = pinned.err().or(got.err());
    assert_eq!(refused, Some(CountError::OtherKind));
}

/// A migration that froze the frame has it to itself: whoever pinned it has gone, and nobody comes.
fn freeze_or_pin<L: Layout + 'static>() {
    let frame = Held::<L>::new(Ownership::Exclusive);
    let pinners = [(); 2].map(|()| {
        frame.spawn(|frame| match frame.word.try_pin_exclusive() {
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

/// INV-7: who claims a frame may write it, since the other has read what it wanted and gone. A claim that is refused because of them, or of
/// the walker, is not when they have gone.
fn claim_after_put<L: Layout + 'static>() {
    let frame = Held::<L>::new(Ownership::Shared);
    frame.word.try_get().expect("the child's mapping");
    let child = frame.spawn(|frame| {
        frame.read();
        assert_eq!(frame.word.put(), Ok(Released::Held { pinned: false }));
    });
    let walker = frame.stale_get();
    if frame.word.try_claim().is_ok() {
        frame.write();
    }
    child.join().expect("no panic");
    walker.join().expect("no panic");
    assert_eq!(frame.word.try_claim(), Ok(()), "they have gone");
}

/// Whoever sees the last reference go owns the frame: one of the two, once, after all that the other did.
fn put_or_get<L: Layout + 'static>() {
    let frame = Held::<L>::new(Ownership::Exclusive);
    let getter = frame.spawn(|frame| {
        frame.word.try_get().is_ok_and(|()| {
            frame.read();
            freed(frame)
        })
    });
    let mine = freed(&frame);
    let other = getter.join().expect("no panic");
    assert!(!(mine && other), "the last reference went twice");
    assert!(mine || other, "the frame was lost");
}

fn freed<L: Layout>(frame: &Held<L>) -> bool {
    let last = matches!(frame.word.put().expect("a reference is held"), Released::Last { .. });
    if last {
        frame.write();
    }
    last
}
