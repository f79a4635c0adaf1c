//! A block that is split: one exchange of its head's word, and every count is found in every part.

use pagepin::frame::{CountError, Dirty, FrameKind, FrameWord, Layout, Ownership, Released, Snapshot};

fn block<L: Layout, const FRAMES: usize>() -> [FrameWord<L>; FRAMES] {
    let words: [FrameWord<L>; FRAMES] = core::array::from_fn(|_| FrameWord::new());
    words[0].hand_out(FrameKind::Anonymous, FRAMES.trailing_zeros() as u8, Ownership::Exclusive).unwrap();
    words
}

fn split<L: Layout>(words: &[FrameWord<L>], to: u8) -> Result<(), CountError> {
    words[0].try_split(to, |part| words.get(part << to))
}

fn states<L: Layout>(words: &[FrameWord<L>]) -> Vec<Snapshot> {
    words.iter().map(FrameWord::snapshot).collect()
}

/// Gives one pin of the block back that was taken when it was whole.
fn unpin<L: Layout>(words: &[FrameWord<L>]) -> Vec<Released> {
    let (mut next, mut released) = (0, Vec::new());
    while next < words.len() {
        let (outcome, order) = words[next].unpin_of_block(Dirty::No).unwrap();
        released.push(outcome);
        next += 1 << order;
    }
    released
}

every_layout!(
    each_part_has_the_references_pins_and_marks_of_the_block,
    what_was_pinned_before_is_unpinned_part_by_part,
    a_large_block_is_split_into_smaller_ones_first,
    what_cannot_be_split_says_why_and_stays;
    many_at_a_time: gets_and_pins_are_in_every_part;
    two_counters: a_sole_pin_is_one_of_every_part
);

fn each_part_has_the_references_pins_and_marks_of_the_block<L: Layout>() {
    let words = block::<L, 4>();
    words[0].try_pin_exclusive_of(2).unwrap();
    words[0].mark_dirty().unwrap();
    let before = words[0].snapshot();
    split(&words, 0).unwrap();
    assert_eq!(states(&words), [Snapshot { order: 0, ..before }; 4]);
}

fn what_was_pinned_before_is_unpinned_part_by_part<L: Layout>() {
    let words = block::<L, 4>();
    words[0].try_pin_exclusive_of(2).unwrap();
    words[0].try_pin_exclusive_of(2).unwrap();
    assert_eq!(unpin(&words).len(), 1, "a whole block has one count");
    split(&words, 0).unwrap();
    // Of one part the mapping goes first: then the pin is the last.
    assert_eq!(words[2].put(), Ok(Released::Held { pinned: true }));
    let held = Released::Held { pinned: false };
    assert_eq!(unpin(&words), [held, held, Released::Last { order: 0, kind: FrameKind::Anonymous }, held]);
    assert!(words[2].snapshot().is_free() && words[3].snapshot().exclusive);
}

fn a_large_block_is_split_into_smaller_ones_first<L: Layout>() {
    let words = block::<L, 8>();
    words[0].try_pin_exclusive_of(3).unwrap();
    split(&words, 1).unwrap();
    let heads: Vec<_> = words.iter().step_by(2).map(FrameWord::snapshot).collect();
    assert!(heads.iter().all(|head| head.order == 1 && head.pins == 1 && *head == heads[0]));
    assert!(words.iter().skip(1).step_by(2).all(|tail| tail.snapshot().is_free()));
    // One of them goes further; the pin is given back all the same.
    split(&words[2..4], 0).unwrap();
    assert_eq!(unpin(&words).len(), 5);
    assert!([0, 2, 3, 4, 6].map(|head| words[head].snapshot()).iter().all(|word| word.pins == 0 && word.refs == 1));
}

fn what_cannot_be_split_says_why_and_stays<L: Layout>() {
    let words = block::<L, 2>();
    let refuses = |error| {
        let before = states(&words);
        assert_eq!(split(&words, 0), Err(error));
        assert_eq!(states(&words), before);
    };
    assert_eq!(split(&words, 1), Err(CountError::OtherOrder), "it is no larger");
    assert_eq!(words[0].try_split(0, |_| None), Err(CountError::InUse), "a part has no word");
    words[1].hand_out(FrameKind::Table, 0, Ownership::Shared).unwrap();
    refuses(CountError::InUse);
    let _ = words[1].put().unwrap();
    words[0].try_freeze(1).unwrap();
    refuses(CountError::Frozen);
    words[0].unfreeze(1).unwrap();
    words[0].try_share().unwrap();
    refuses(CountError::NotExclusive);
    let _ = words[0].put().unwrap();
    refuses(CountError::Free);
    words[0].hand_out(FrameKind::Device, 1, Ownership::Exclusive).unwrap();
    refuses(CountError::NotPrivate);
    // What was given before a part was found in use is taken back.
    let words = block::<L, 4>();
    words[3].hand_out(FrameKind::Table, 0, Ownership::Shared).unwrap();
    assert_eq!(split(&words, 0), Err(CountError::InUse));
    assert!(words[1].snapshot().is_free() && words[2].snapshot().is_free() && words[0].order() == 2);
}

fn gets_and_pins_are_in_every_part<L: Layout>() {
    let words = block::<L, 2>();
    words[0].try_get_user().unwrap();
    words[0].try_pin_exclusive_of(1).unwrap();
    split(&words, 0).unwrap();
    assert!(states(&words).iter().all(|word| (word.refs, word.pins) == (3, 1)));
    assert_eq!(words[1].put_of_block(), Ok((Released::Held { pinned: true }, 0)));
}

fn a_sole_pin_is_one_of_every_part<L: Layout>() {
    let words = block::<L, 2>();
    words[0].try_pin_sole().unwrap();
    split(&words, 0).unwrap();
    for word in &words {
        assert_eq!(word.try_pin(), Err(CountError::Sole));
        assert_eq!(word.unpin_sole(Dirty::Yes), Ok(Released::Held { pinned: false }));
    }
}
