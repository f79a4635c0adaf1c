//! The frame word: every transition, every refusal, and the counts at their limits.

use pagepin::frame::{
    CountError, Dirty, FrameKind, FrameWord, Layout, Ownership, PageFrame, Released, Shared, Split23x8,
};

fn anonymous<L: Layout>(ownership: Ownership) -> FrameWord<L> {
    let frame = FrameWord::new();
    frame.hand_out(FrameKind::Anonymous, 0, ownership).unwrap();
    frame
}

/// Sets the reference count of a frame that has one reference.
fn set_refs<L: Layout>(frame: &FrameWord<L>, refs: u64) {
    frame.try_freeze(1).unwrap();
    frame.unfreeze(refs).unwrap();
}

const HELD: Result<Released, CountError> = Ok(Released::Held { pinned: false });
const HELD_PINNED: Result<Released, CountError> = Ok(Released::Held { pinned: true });

fn dirt_is_taken_once_and_an_objects_page_alone_is_opened<L: Layout>() {
    let frame = anonymous::<L>(Ownership::Shared);
    assert_eq!(frame.take_dirty(), Ok(false));
    frame.mark_dirty().unwrap();
    assert_eq!((frame.take_dirty(), frame.take_dirty(), frame.snapshot().dirty), (Ok(true), Ok(false), false));
    assert_eq!((frame.open(), frame.snapshot().exclusive), (Err(CountError::NotExclusive), false));
    let file = FrameWord::<L>::new();
    file.hand_out(FrameKind::File, 0, Ownership::Shared).unwrap();
    assert_eq!((file.open(), file.snapshot().exclusive), (Ok(()), true));
}

fn a_free_frame_refuses_everything_but_being_handed_out<L: Layout>() {
    let frame = FrameWord::<L>::new();
    assert!(frame.snapshot().is_free() && !frame.snapshot().is_sole());
    assert_eq!(frame.try_get(), Err(CountError::Free));
    assert_eq!(frame.try_pin_exclusive(), Err(CountError::Free));
    assert_eq!(frame.try_pin(), Err(CountError::Free));
    assert_eq!(frame.put(), Err(CountError::Underflow));
    assert_eq!(frame.unpin(Dirty::Yes), Err(CountError::Underflow));
    assert_eq!(frame.try_share(), Err(CountError::Free));
    assert_eq!(frame.try_share_with_child(), Err(CountError::Free));
    assert_eq!(frame.unshare_with_child(Shared { was_exclusive: true }), Err(CountError::Underflow));
    assert_eq!(frame.try_claim(), Err(CountError::Free));
    assert_eq!(frame.try_freeze(0), Err(CountError::Free));
    assert_eq!(frame.try_freeze(1), Err(CountError::Free));
    assert_eq!(frame.unfreeze(1), Err(CountError::Underflow));
    assert!(frame.snapshot().is_free());
    assert_eq!(frame.hand_out(FrameKind::Anonymous, 3, Ownership::Exclusive), Ok(()));
    let word = frame.snapshot();
    assert_eq!((word.refs, word.pins, word.exclusive, word.frozen, word.dirty), (1, 0, true, false, false));
    assert_eq!((word.kind, word.order, frame.kind(), frame.order()), (FrameKind::Anonymous, 3, word.kind, 3));
    assert_eq!(frame.hand_out(FrameKind::Table, 0, Ownership::Shared), Err(CountError::InUse));
    assert_eq!(frame.put(), Ok(Released::Last { order: 3, kind: FrameKind::Anonymous }));
}

fn a_frozen_frame_refuses_everything_but_being_unfrozen<L: Layout>() {
    let frame = anonymous::<L>(Ownership::Exclusive);
    frame.try_get().unwrap();
    assert_eq!(frame.try_freeze(1), Err(CountError::Referenced));
    frame.try_freeze(2).unwrap();
    let word = frame.snapshot();
    assert!(word.frozen && !word.is_free() && word.refs == 0 && word.pins == 0);
    assert!(word.exclusive, "it is only out of circulation");
    assert_eq!(frame.hand_out(FrameKind::Anonymous, 0, Ownership::Exclusive), Err(CountError::InUse));
    assert_eq!(frame.try_get(), Err(CountError::Frozen));
    assert_eq!(frame.try_pin_exclusive(), Err(CountError::Frozen));
    assert_eq!(frame.try_pin(), Err(CountError::Frozen));
    assert_eq!(frame.put(), Err(CountError::Underflow));
    assert_eq!(frame.unpin(Dirty::No), Err(CountError::Underflow));
    assert_eq!(frame.try_share(), Err(CountError::Frozen));
    assert_eq!(frame.try_share_with_child(), Err(CountError::Frozen));
    assert_eq!(frame.unshare_with_child(Shared { was_exclusive: true }), Err(CountError::Underflow));
    assert_eq!(frame.try_claim(), Err(CountError::Frozen));
    assert_eq!(frame.try_freeze(2), Err(CountError::Frozen));
    assert_eq!(frame.unfreeze(0), Err(CountError::Underflow));
    assert_eq!(frame.unfreeze(FrameWord::<L>::MAX_REFS + 1), Err(CountError::Overflow));
    assert_eq!(frame.snapshot(), word);
    frame.unfreeze(2).unwrap();
    let word = frame.snapshot();
    assert_eq!((word.refs, word.exclusive, word.kind), (2, true, FrameKind::Anonymous));
    assert_eq!(frame.unfreeze(2), Err(CountError::Underflow), "not frozen");
    frame.try_share().unwrap();
    frame.try_freeze(2).unwrap();
    assert!(frame.snapshot().frozen && !frame.snapshot().exclusive);
    assert_eq!(frame.try_pin(), Err(CountError::Frozen));
    assert_eq!(frame.try_share(), Err(CountError::Frozen));
    assert_eq!(frame.hand_out(FrameKind::Anonymous, 0, Ownership::Exclusive), Err(CountError::InUse));
    frame.unfreeze(1).unwrap();
    assert!(!frame.snapshot().exclusive && frame.snapshot().is_sole());
}

/// INV-3, INV-4: pins and sharing exclude each other, in both orders.
fn pins_and_sharing_exclude_each_other<L: Layout>() {
    let frame = anonymous::<L>(Ownership::Exclusive);
    frame.try_pin().unwrap();
    assert_eq!(frame.try_share(), Err(CountError::Pinned));
    assert_eq!(frame.try_share_with_child(), Err(CountError::Pinned));
    assert_eq!(frame.try_freeze(2), Err(CountError::Pinned));
    assert_eq!(frame.try_claim(), Err(CountError::Pinned));
    assert!(frame.snapshot().exclusive);
    assert_eq!(frame.unpin(Dirty::No), HELD);
    assert_eq!(frame.try_share_with_child(), Ok(Shared { was_exclusive: true }));
    assert_eq!(frame.snapshot().refs, 2);
    assert_eq!(frame.try_pin_exclusive(), Err(CountError::NotExclusive));
    assert_eq!(frame.try_pin(), Err(CountError::NotExclusive));
    assert_eq!(frame.try_share_with_child(), Ok(Shared { was_exclusive: false }));
    assert_eq!(frame.try_share(), Ok(Shared { was_exclusive: false }));
    assert_eq!(frame.snapshot().refs, 3);
}

/// INV-7: claimed only when the one mapping explains every reference.
fn a_claim_needs_the_sole_reference<L: Layout>() {
    let frame = anonymous::<L>(Ownership::Exclusive);
    frame.try_share_with_child().unwrap();
    assert_eq!(frame.try_claim(), Err(CountError::Referenced));
    assert_eq!(frame.put(), HELD);
    assert!(frame.snapshot().is_sole() && !frame.snapshot().exclusive);
    assert_eq!(frame.try_claim(), Ok(()));
    assert!(frame.snapshot().exclusive);
    assert_eq!(frame.try_claim(), Ok(()), "already its own");
    assert_eq!(frame.try_pin_exclusive(), Ok(()));
}

/// INV-14: fork's undo gives back exactly what it took.
fn undoing_a_share_restores_the_word<L: Layout>() {
    for ownership in [Ownership::Exclusive, Ownership::Shared] {
        let frame = anonymous::<L>(ownership);
        let before = frame.snapshot();
        let shared = frame.try_share_with_child().unwrap();
        assert_eq!(shared.was_exclusive, ownership == Ownership::Exclusive);
        frame.unshare_with_child(shared).unwrap();
        assert_eq!(frame.snapshot(), before);
        assert_eq!(frame.unshare_with_child(shared), Err(CountError::Underflow), "no child left");
    }
}

/// INV-10: a reference is not given back as a pin, nor a pin as a reference.
fn releases_of_the_wrong_kind_are_refused<L: Layout>() {
    let frame = anonymous::<L>(Ownership::Exclusive);
    assert_eq!(frame.unpin(Dirty::Yes), Err(CountError::Underflow));
    frame.try_pin().unwrap();
    assert_eq!(frame.put(), HELD_PINNED, "the mapping goes, the pin stays");
    assert_eq!(frame.put(), Err(CountError::Underflow), "what is left is a pin");
    frame.try_pin().unwrap();
    assert_eq!(frame.unpin(Dirty::No), HELD_PINNED);
    assert_eq!(frame.unpin(Dirty::No), Ok(Released::Last { order: 0, kind: FrameKind::Anonymous }));
    assert!(frame.snapshot().is_free() && !frame.snapshot().exclusive);
}

fn only_some_kinds_are_pinnable<L: Layout>() {
    let pinned = |kind, ownership| {
        let frame = FrameWord::<L>::new();
        frame.hand_out(kind, 0, ownership).unwrap();
        assert_eq!((frame.kind(), frame.snapshot().kind), (kind, kind));
        (frame.try_pin(), frame.try_get())
    };
    assert_eq!(pinned(FrameKind::Anonymous, Ownership::Exclusive), (Ok(()), Ok(())));
    assert_eq!(pinned(FrameKind::Anonymous, Ownership::Shared), (Err(CountError::NotExclusive), Ok(())));
    for kind in [FrameKind::Table, FrameKind::Zero, FrameKind::Unmanaged] {
        assert_eq!(pinned(kind, Ownership::Shared), (Err(CountError::NotPinnable), Ok(())), "{kind:?}");
    }
    for kind in [FrameKind::File, FrameKind::Device] {
        assert_eq!(pinned(kind, Ownership::Shared), (Ok(()), Ok(())), "{kind:?}");
    }
}

fn dirt_is_noted_and_goes_with_the_last_reference<L: Layout>() {
    for by_unpin in [Dirty::Yes, Dirty::No] {
        let frame = anonymous::<L>(Ownership::Exclusive);
        frame.try_pin().unwrap();
        assert_eq!(frame.unpin(by_unpin), HELD);
        assert_eq!(frame.snapshot().dirty, by_unpin == Dirty::Yes);
        frame.mark_dirty().unwrap();
        frame.mark_dirty().unwrap();
        frame.try_pin().unwrap();
        assert_eq!(frame.unpin(Dirty::Yes), HELD);
        frame.try_get().unwrap();
        assert_eq!(frame.put_mapping(Dirty::Yes), HELD);
        let word = frame.snapshot();
        assert_eq!(
            (word.dirty, word.refs, word.pins, word.exclusive, word.kind),
            (true, 1, 0, true, FrameKind::Anonymous)
        );
        assert_eq!(frame.put(), Ok(Released::Last { order: 0, kind: FrameKind::Anonymous }));
        frame.hand_out(FrameKind::Anonymous, 0, Ownership::Shared).unwrap();
        assert!(!frame.snapshot().dirty && !frame.snapshot().exclusive);
    }
}

/// S11: a count at its limit refuses, and nothing wraps into another field.
fn references_stop_at_the_limit<L: Layout>() {
    let frame = anonymous::<L>(Ownership::Exclusive);
    set_refs(&frame, FrameWord::<L>::MAX_REFS - 1);
    frame.try_get().unwrap();
    let word = frame.snapshot();
    assert_eq!((word.refs, word.pins, word.exclusive), (FrameWord::<L>::MAX_REFS, 0, true));
    assert_eq!(frame.try_get(), Err(CountError::Overflow));
    assert_eq!(frame.try_share_with_child(), Err(CountError::Overflow));
    assert_eq!(frame.try_claim(), Err(CountError::Referenced));
    assert_eq!(frame.snapshot(), word);
    let pins = FrameWord::<L>::MAX_PINS;
    (0..pins).for_each(|_| frame.try_pin_exclusive().unwrap());
    let full = frame.snapshot();
    assert_eq!((full.refs, full.pins, full.exclusive, full.kind), (word.refs + pins, pins, true, word.kind));
    assert_eq!(frame.try_pin(), Err(CountError::Overflow));
    assert_eq!(frame.try_get(), Err(CountError::Overflow));
    assert_eq!(frame.snapshot(), full);
    (0..pins).for_each(|_| assert!(frame.unpin(Dirty::No).is_ok()));
    assert_eq!(frame.snapshot(), word);
}

fn pins_stop_at_the_limit<L: Layout>() {
    let frame = anonymous::<L>(Ownership::Exclusive);
    let limit = FrameWord::<L>::MAX_PINS;
    for count in 0..limit {
        let step = if count % 2 == 0 { frame.try_pin() } else { frame.try_pin_exclusive() };
        assert_eq!(step, Ok(()), "pin {count}");
    }
    let word = frame.snapshot();
    assert_eq!((word.refs, word.pins, word.frozen, word.exclusive), (limit + 1, limit, false, true));
    assert_eq!(frame.try_pin(), Err(CountError::Overflow));
    assert_eq!(frame.try_pin_exclusive(), Err(CountError::Overflow));
    assert_eq!(frame.try_get(), Ok(()), "references have room");
    assert_eq!(frame.put(), HELD_PINNED);
    for _ in 1..limit {
        assert_eq!(frame.unpin(Dirty::No), HELD_PINNED);
    }
    assert_eq!(frame.unpin(Dirty::No), HELD);
    assert!(frame.snapshot().is_sole());
    assert!(limit >= 13 && FrameWord::<L>::MAX_REFS > 1 << 22);
}

/// The mapping that is taken away under the most pins does not read as frozen.
fn all_pins_and_no_mapping_is_not_frozen<L: Layout>() {
    let frame = anonymous::<L>(Ownership::Exclusive);
    (0..FrameWord::<L>::MAX_PINS).for_each(|_| frame.try_pin().unwrap());
    assert_eq!(frame.put(), HELD_PINNED);
    let word = frame.snapshot();
    assert!(!word.frozen && word.pins == FrameWord::<L>::MAX_PINS && word.refs == FrameWord::<L>::MAX_PINS);
    (1..FrameWord::<L>::MAX_PINS).for_each(|_| assert_eq!(frame.unpin(Dirty::Yes), HELD_PINNED));
    assert_eq!(frame.unpin(Dirty::Yes), Ok(Released::Last { order: 0, kind: FrameKind::Anonymous }));
}

/// "Nothing was changed" includes the mark and what the frame is said to hold.
fn a_refusal_changes_no_bit<L: Layout>() {
    let frame = anonymous::<L>(Ownership::Exclusive);
    let before = frame.snapshot();
    assert_eq!(frame.unpin(Dirty::Yes), Err(CountError::Underflow));
    assert_eq!(frame.hand_out(FrameKind::Table, 3, Ownership::Shared), Err(CountError::InUse));
    assert_eq!(frame.snapshot(), before);
    frame.try_pin().unwrap();
    assert_eq!(frame.put(), HELD_PINNED);
    let pinned = frame.snapshot();
    assert_eq!(frame.put_mapping(Dirty::Yes), Err(CountError::Underflow));
    assert_eq!(frame.snapshot(), pinned);
    assert_eq!(frame.unpin(Dirty::No), Ok(Released::Last { order: 0, kind: FrameKind::Anonymous }));
    assert_eq!(frame.mark_dirty(), Err(CountError::Free));
    assert!(frame.hand_out(FrameKind::Anonymous, 0, Ownership::Shared).is_ok(), "the word is all zeroes");
}

fn an_order_that_does_not_fit_is_refused<L: Layout>() {
    let frame = FrameWord::<L>::new();
    let largest = FrameWord::<L>::MAX_ORDER;
    for order in [largest + 1, u8::MAX] {
        assert_eq!(frame.hand_out(FrameKind::Anonymous, order, Ownership::Exclusive), Err(CountError::NoSuchOrder));
        assert!(frame.snapshot().is_free());
    }
    frame.hand_out(FrameKind::Anonymous, largest, Ownership::Exclusive).unwrap();
    let word = frame.snapshot();
    assert_eq!((word.order, word.refs, word.pins, word.exclusive), (largest, 1, 0, true));
    assert_eq!(frame.put(), Ok(Released::Last { order: largest, kind: FrameKind::Anonymous }));
}

#[test]
fn a_split_word_takes_253_pins() {
    assert_eq!(FrameWord::<Split23x8>::MAX_PINS, 253);
}

fn debug_text_names_the_state<L: Layout>() {
    let frame = FrameWord::<L>::default();
    assert_eq!(format!("{frame:?}"), "Frame(free)");
    assert_eq!(format!("{:?}", PageFrame::<L>::new()), "Frame(free)");
    frame.hand_out(FrameKind::Anonymous, 9, Ownership::Exclusive).unwrap();
    frame.try_pin().unwrap();
    frame.mark_dirty().unwrap();
    assert_eq!(format!("{frame:?}"), "Frame(Anonymous, refs 2, pins 1, exclusive, dirty, order 9)");
    assert_eq!(frame.unpin(Dirty::No), HELD);
    frame.try_freeze(1).unwrap();
    assert_eq!(format!("{frame:?}"), "Frame(Anonymous, frozen)");
    let plain = anonymous::<L>(Ownership::Shared);
    assert_eq!(format!("{plain:?}"), "Frame(Anonymous, refs 1, pins 0)");
}

fn a_page_that_is_open_stays_open<L: Layout>() {
    let frame = FrameWord::<L>::new();
    frame.hand_out(FrameKind::File, 0, Ownership::Shared).unwrap();
    for _ in 0..2 {
        frame.open().unwrap();
        assert!(frame.snapshot().exclusive);
    }
}

every_layout!(
    a_page_that_is_open_stays_open,
    a_free_frame_refuses_everything_but_being_handed_out,
    a_frozen_frame_refuses_everything_but_being_unfrozen,
    pins_and_sharing_exclude_each_other,
    a_claim_needs_the_sole_reference,
    undoing_a_share_restores_the_word,
    only_some_kinds_are_pinnable,
    dirt_is_noted_and_goes_with_the_last_reference,
    dirt_is_taken_once_and_an_objects_page_alone_is_opened,
    pins_stop_at_the_limit,
    all_pins_and_no_mapping_is_not_frozen,
    an_order_that_does_not_fit_is_refused,
    debug_text_names_the_state;
    told_apart: releases_of_the_wrong_kind_are_refused, references_stop_at_the_limit, a_refusal_changes_no_bit,
);
