//! S12: how often the pages of a file are pinned is counted in the file's mapping.

use pagepin::frame::Wide;
use pagepin::pin::Write;
use pagepin::space::Copies;

use super::Case;
use super::writeback::{FILE, shown};
use crate::machine::{A, Machine};

pub(super) const CASE: Case = Case {
    idea: "pins are counted in the file mapping of their pages",
    source: "LWN, *The trouble with get_user_pages()* (2018), S12",
    test: "a_count_in_the_mapping_outlives_the_mapping",
    idea_fails: counted_in_the_mapping,
    ours_fails: counted_in_the_word,
    instead: "the count is in the frame's word, which is there as long as the frame is",
};

/// A file as far as the idea needs it.
struct Mapping {
    alive: bool,
    pins: u64,
}

/// A page of a file is pinned, the file is truncated and its mapping goes, and then the pin is given back: whose count is it?
fn counted_in_the_mapping() -> Option<String> {
    let mut mapping = Mapping { alive: true, pins: 0 };
    // The frame knows its mapping until the page leaves it.
    let mut of = Some(&mut mapping);
    if let Some(mapping) = &mut of {
        mapping.pins += 1;
    }
    // Truncation: the page leaves its mapping, which is freed; another file is opened where it was.
    if let Some(mapping) = of.take() {
        mapping.alive = false;
    }
    (of.is_none() && !mapping.alive && mapping.pins == 1).then(|| {
        "the page has left the mapping before its pin is given back: what is counted down is freed, or somebody else's".to_owned()
    })
}

/// The same by the library: the frame is counted while it is held, and free when it is not.
fn counted_in_the_word() -> Option<String> {
    let machine = Machine::<Wide>::new(64);
    let process = shown(&machine);
    let pins = machine.pin::<Write>(&process, A, 1).unwrap().into_owned();
    let frame = pins.runs()[0].first();
    machine.cut(FILE, 0);
    let gone = process.forget_object(FILE, 0..u32::MAX, Copies::Forget).unwrap();
    drop(process);
    machine.clear_shelf();
    let held = machine.word(frame).snapshot();
    drop(pins);
    let seen = (gone.pinned_pages, held.refs, held.pins, machine.word(frame).snapshot().is_free());
    (seen != (1, 1, 1, true))
        .then(|| format!("pages unmapped while pinned, holders, pins among them, free at the end: {seen:?}"))
}
