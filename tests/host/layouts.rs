//! What is true of `Biased10` and `Split23x4x4` alone: the price of one count for both kinds, and of three small ones.

use pagepin::ReadSide;
use pagepin::frame::{
    Biased10, CountError, Dirty, FrameKind, FrameWord, Layout, Ownership, Released, Split23x4x4, Split23x8, Wide,
};
use pagepin::pin::{PinError, PinFlags, Read, Write};

use crate::forms::{self, Form};
use crate::machine::{A, Machine, PAGE, range};

/// A frame of one mapping and `more` plain references.
fn referenced<L: Layout>(more: u64) -> FrameWord<L> {
    let frame = FrameWord::new();
    frame.hand_out(FrameKind::Anonymous, 0, Ownership::Exclusive).unwrap();
    frame.try_freeze(1).unwrap();
    frame.unfreeze(1 + more).unwrap();
    frame
}

/// S1: with one count, 1024 references are a pin to whoever asks; two counters are not deceived.
#[test]
fn a_thousand_references_read_as_a_pin_in_one_count_only() {
    fn reads_as_pinned<L: Layout>(refs: u64) -> bool {
        let frame = referenced::<L>(refs - 1);
        let pinned = frame.snapshot().pins != 0;
        let refused = frame.try_share() == Err(CountError::Pinned);
        assert_eq!(frame.try_claim(), Err(if pinned { CountError::Pinned } else { CountError::Referenced }));
        assert_eq!(pinned, refused);
        pinned
    }
    for refs in [2, 1023, 1024, 1025, 5000] {
        assert_eq!(reads_as_pinned::<Biased10>(refs), refs >= 1024, "{refs}");
        assert!(!reads_as_pinned::<Split23x4x4>(refs));
    }
}

/// What the false pin costs: fork copies a page that it could have shared.
#[test]
fn references_make_fork_copy_in_one_count_only() {
    fn shared_with_child<L: Layout>() -> bool {
        let machine = Machine::<L>::new(64);
        let process = machine.populated(1, 1);
        let frame = machine.frame_at(&process, A).0;
        (0..1023).for_each(|_| machine.word(frame).try_get().unwrap());
        let child = process.fork().unwrap();
        let shared = machine.frame_at(&child, A).0 == frame;
        assert_eq!(machine.get(&child, A), 1, "right in either case");
        (0..1023).for_each(|_| assert!(machine.word(frame).put().is_ok()));
        shared
    }
    assert!(!shared_with_child::<Biased10>());
    assert!(shared_with_child::<Split23x4x4>());
}

/// The count is one: at its limit, references and pins are refused alike, and it never reads as frozen.
#[test]
fn one_count_stops_at_its_limit_for_both_kinds() {
    type Word = FrameWord<Biased10>;
    let frame = referenced::<Biased10>(Word::MAX_REFS - 1);
    let word = frame.snapshot();
    assert_eq!((word.refs, word.pins, word.frozen), (1023 + Word::MAX_PINS, Word::MAX_PINS, false));
    assert_eq!(frame.try_get(), Err(CountError::Overflow));
    assert_eq!(frame.try_get_user(), Err(CountError::Overflow));
    assert_eq!(frame.try_pin_exclusive(), Err(CountError::Overflow));
    assert_eq!(frame.snapshot(), word);
    assert_eq!(frame.put(), Ok(Released::Held { pinned: true }));
    assert_eq!(frame.try_get(), Ok(()));
}

/// The wrong release is not noticed where nothing tells the kinds apart; but the count is right again when both were wrong.
#[test]
fn one_count_cannot_tell_the_wrong_release() {
    let frame = referenced::<Biased10>(0);
    frame.try_pin().unwrap();
    assert_eq!(frame.put(), Ok(Released::Held { pinned: true }));
    assert_eq!(frame.put(), Ok(Released::Held { pinned: false }), "a part of the pin");
    assert_eq!(frame.unpin(Dirty::No), Err(CountError::Underflow));
    for _ in 0..1022 {
        assert_eq!(frame.put(), Ok(Released::Held { pinned: false }));
    }
    assert_eq!(frame.put(), Ok(Released::Last { order: 0, kind: FrameKind::Anonymous }));
    assert_eq!(frame.put(), Err(CountError::Underflow));
}

/// S14: with one count there is no value that says "all pins and room for references", and the call says so.
#[test]
fn one_count_has_no_sole_pins() {
    let machine = Machine::<Biased10>::new(64);
    let process = machine.populated(1, 1);
    assert_eq!(machine.pin_slow::<Write>(&process, A, PAGE, PinFlags::SOLE).err(), Some(PinError::NoSole));
    assert_eq!(process.budget().used(), 0);
    let frame = referenced::<Biased10>(0);
    assert_eq!(frame.try_pin_sole(), Err(CountError::NoSole));
    assert_eq!(frame.unpin_sole(Dirty::No), Err(CountError::Underflow));
}

/// S3: a frame holds gets or pins, and each release is of its own kind.
#[test]
fn gets_and_pins_exclude_each_other_where_both_are_counted() {
    let frame = referenced::<Split23x4x4>(0);
    (0..15).for_each(|_| frame.try_get_user().unwrap());
    let word = frame.snapshot();
    assert_eq!((word.refs, word.pins, word.frozen), (16, 0, false));
    assert_eq!(frame.try_get_user(), Err(CountError::Overflow));
    assert_eq!(frame.try_pin(), Err(CountError::OtherKind));
    assert_eq!(frame.try_pin_exclusive(), Err(CountError::OtherKind));
    assert_eq!(frame.unpin(Dirty::Yes), Err(CountError::Underflow));
    assert_eq!(frame.try_claim(), Err(CountError::Referenced));
    assert_eq!(frame.try_freeze(16), Err(CountError::Referenced), "gets are nobody's to account for");
    assert_eq!(frame.put(), Ok(Released::Held { pinned: false }), "the mapping goes");
    assert_eq!(frame.put(), Err(CountError::Underflow), "what is left are gets");
    assert_eq!(frame.try_get(), Ok(()), "and keep the frame");
    (0..15).for_each(|_| assert_eq!(frame.put_user(), Ok(Released::Held { pinned: false })));
    assert_eq!(frame.put_user(), Err(CountError::Underflow));
    (0..13).for_each(|_| frame.try_pin_exclusive().unwrap());
    assert_eq!((frame.snapshot().pins, frame.snapshot().frozen), (13, false));
    assert_eq!(frame.try_pin(), Err(CountError::Overflow));
    assert_eq!(frame.try_get_user(), Err(CountError::OtherKind));
    assert_eq!(frame.put(), Ok(Released::Held { pinned: true }));
    (1..13).for_each(|_| assert_eq!(frame.unpin(Dirty::No), Ok(Released::Held { pinned: true })));
    assert_eq!(frame.unpin(Dirty::No), Ok(Released::Last { order: 0, kind: FrameKind::Anonymous }));
}

/// The last get frees, as the last of the others does.
#[test]
fn the_last_get_frees_the_frame() {
    let machine = Machine::<Split23x4x4>::new(64);
    let process = machine.populated(1, 1);
    let got = machine.reference::<Read>(&process, A, PAGE).unwrap();
    process.unmap(A, PAGE).unwrap();
    let frame = got.runs()[0].first();
    assert_eq!(machine.word(frame).snapshot().refs, 1);
    drop(got);
    assert!(machine.word(frame).snapshot().is_free());
}

/// Whoever wants the other kind is told which, by every form, and nothing is held.
#[test]
fn the_other_kind_is_an_error_of_its_own() {
    let machine = Machine::<Split23x4x4>::new(64);
    let process = machine.populated(1, 1);
    let word = || machine.frame_at(&process, A).1;
    let pinned = machine.pin::<Write>(&process, A, PAGE).unwrap();
    assert_eq!(machine.reference::<Read>(&process, A, PAGE).err(), Some(PinError::OtherKind));
    assert_eq!(word().refs, 2);
    drop(pinned);
    let got = machine.reference::<Read>(&process, A, PAGE).unwrap();
    assert_eq!(machine.pin::<Write>(&process, A, PAGE).err(), Some(PinError::OtherKind));
    assert_eq!(machine.pin_slow::<Read>(&process, A, PAGE, PinFlags::empty()).err(), Some(PinError::OtherKind));
    assert_eq!(word().refs, 2);
    drop(got);
}

/// Whether a frame with a mapping and so many more references, and no pin, reads as pinned; and whether fork copies it.
fn needless<L: Layout>(more: u64) -> (bool, bool) {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(1, 1);
    let frame = machine.frame_at(&process, A).0;
    let word = machine.word(frame);
    word.try_freeze(1).unwrap();
    word.unfreeze(1 + more).unwrap();
    let pinned = word.snapshot().pins != 0;
    let child = process.fork().unwrap();
    let copied = machine.frame_at(&child, A).0 != frame;
    drop(child);
    (0..more).for_each(|_| assert!(word.put().is_ok()));
    (pinned, copied)
}

/// Plain references with which frames are tried, one of them a mapping's.
const REFERENCES: [u64; 5] = [1, 2, 1023, 1024, 5000];

/// What is said of the pin after the last for which there is room.
fn one_pin_more<L: Layout>() -> CountError {
    let frame = referenced::<L>(0);
    (0..FrameWord::<L>::MAX_PINS).for_each(|_| frame.try_pin().unwrap());
    frame.try_pin().unwrap_err()
}

/// What is said of the get after the last for which there is room.
fn one_get_more<L: Layout>() -> CountError {
    let references = if L::SEPARATE_GETS { 1 } else { FrameWord::<L>::MAX_REFS };
    let frame = referenced::<L>(references - 1);
    if L::SEPARATE_GETS {
        (0..FrameWord::<L>::MAX_GETS).for_each(|_| frame.try_get_user().unwrap());
    }
    frame.try_get_user().unwrap_err()
}

/// A fork, and at each step of it another CPU that pins a page without a lock. How many of those pins were granted, how many refused, and under
/// how many the page was shared or replaced all the same.
fn fork_race<L: Layout>() -> [u64; 3] {
    let mut outcomes = [0; 3];
    for step in 0.. {
        let machine = Machine::<L>::new(64);
        let parent = machine.populated(3, 10);
        let page = range(&parent, A + PAGE, 1);
        let mut pins = None;
        let pin = || pins = forms::pin::<Write, L>(Form::FastOnly, &parent, page, PinFlags::empty(), 1).ok();
        let walk = machine.enter();
        let (child, fired) = machine.race_at(step, pin, || parent.fork().unwrap());
        drop(walk);
        if !fired {
            break;
        }
        let frames = [&parent, &child].map(|process| machine.frame_at(process, A + PAGE).0);
        outcomes[match pins.as_ref().map(|pins| pins.runs()[0].first()) {
            Some(frame) if frames[0] == frame && frames[1] != frame => 0,
            Some(_) => 2,
            None => 1,
        }] += 1;
    }
    outcomes
}

/// One column of the page: what is said of a layout, and how it came out.
fn column<L: Layout>() -> [(&'static str, String); 12] {
    let tried = REFERENCES.map(|refs| needless::<L>(refs - 1));
    let pinned_from = REFERENCES.into_iter().zip(tried).find(|(_, (pinned, _))| *pinned);
    let copies = tried.iter().filter(|(_, copied)| *copied).count();
    let refs = FrameWord::<L>::MAX_REFS;
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let both = if L::SEPARATE_GETS {
        "no"
    } else if L::EXACT {
        "yes"
    } else {
        "yes, in one count"
    };
    let gets = if L::SEPARATE_GETS { FrameWord::<L>::MAX_GETS.to_string() } else { "as references".to_owned() };
    [
        ("bytes a frame", size_of::<FrameWord<L>>().to_string()),
        ("most references", refs.to_string()),
        ("most gets (`try_get_user`)", gets),
        ("most pins", FrameWord::<L>::MAX_PINS.to_string()),
        ("one pin more", one_pin_more::<L>().to_string()),
        ("one get more", one_get_more::<L>().to_string()),
        ("one reference more", referenced::<L>(refs - 1).try_get().unwrap_err().to_string()),
        ("references that read as a pin", pinned_from.map_or_else(|| "never".to_owned(), |(refs, _)| refs.to_string())),
        ("needless copies by fork, of 5 pages", copies.to_string()),
        ("gets and pins of one frame at a time", both.to_owned()),
        ("a pinner who wants no other (`SOLE`)", yes(L::HAS_SOLE)),
        (
            "pins at each step of a fork: granted, refused, lost",
            fork_race::<L>().map(|count| count.to_string()).join(", "),
        ),
    ]
}

#[test]
fn the_page_of_layouts_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/LAYOUTS.md");
    let committed = std::fs::read_to_string(path).unwrap();
    let (before, rest) = committed.split_once("<!-- host -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- host end -->\n").unwrap();
    let names = [Wide::NAME, Split23x8::NAME, Split23x4x4::NAME, Biased10::NAME];
    let columns = [column::<Wide>(), column::<Split23x8>(), column::<Split23x4x4>(), column::<Biased10>()];
    let line = |first: &str, cells: [&str; 4]| format!("| {first} | {} |\n", cells.join(" | "));
    let row = |index: usize| line(columns[0][index].0, columns.each_ref().map(|column| column[index].1.as_str()));
    let table =
        [line("", names), "|---|---:|---:|---:|---:|\n".to_owned()].into_iter().chain((0..columns[0].len()).map(row));
    let page = format!("{before}<!-- host -->\n{}<!-- host end -->\n{after}", table.collect::<String>());
    if std::env::var_os("PAGEPIN_BLESS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    assert!(committed == page, "docs/LAYOUTS.md differs from the code; PAGEPIN_BLESS=1 rewrites it");
    let measured =
        committed.split_once("<!-- measured -->\n").and_then(|(_, rest)| rest.split_once("<!-- end -->\n")).unwrap().0;
    let listed: Vec<&str> =
        measured.lines().next().unwrap().split(" | ").skip(1).map(|cell| cell.trim_end_matches(" |")).collect();
    assert_eq!(listed, names, "`cargo xtask layouts` writes them");
}
