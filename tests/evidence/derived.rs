//! S13: "pinned" is what references there are beyond the mappings.

use pagepin::frame::Wide;
use pagepin::pin::Read;

use super::Case;
use crate::machine::{A, Machine, PAGE, Process};

pub(super) const CASE: Case = Case {
    idea: "pins are references minus mappings",
    source: "LWN, *The trouble with get_user_pages()* (2018), S13",
    test: "references_minus_mappings_see_pins_that_are_none",
    idea_fails: || false_pins(|machine, process| derived(machine, process) != 0),
    ours_fails: || false_pins(|machine, process| machine.frame_at(process, A).1.pins != 0),
    instead: "pins have a count of their own",
};

/// The number that the idea goes by. All mappings are counted, which a kernel could do only with every table locked.
fn derived(machine: &Machine<Wide>, process: &Process<'_, Wide>) -> u64 {
    let (frame, word) = machine.frame_at(process, A);
    word.refs - machine.leaves(process).0.iter().filter(|leaf| leaf.frame() == frame).count() as u64
}

/// A look at the bytes by somebody who takes a plain reference.
fn false_pins(is_pinned: impl Fn(&Machine<Wide>, &Process<'_, Wide>) -> bool) -> Option<String> {
    let machine = Machine::<Wide>::new(64);
    let process = machine.populated(1, 1);
    let before = is_pinned(&machine, &process);
    let look = machine.reference::<Read>(&process, A, PAGE).unwrap();
    let meanwhile = is_pinned(&machine, &process);
    drop(look);
    (!before && meanwhile)
        .then(|| "whoever looks at a page for a moment has \"pinned\" it: a false pin, and fork copies".to_owned())
}
