//! S14: one pinner at a time, for everybody.

use pagepin::frame::Wide;
use pagepin::pin::{PinFlags, Read};

use super::Case;
use crate::machine::{A, Machine, PAGE};

pub(super) const CASE: Case = Case {
    idea: "a page has one pinner at a time, always (`try_gup_pin`)",
    source: "LWN, *Explicit pinning of user-space pages* (2019), S14",
    test: "one_pinner_for_everybody_refuses_the_second_reader",
    idea_fails: || two_readers(PinFlags::SOLE),
    ours_fails: || two_readers(PinFlags::empty()),
    instead: "pins are counted; who needs to be alone says so (`PinFlags::SOLE`)",
};

/// Two devices read one page: a network card and a disk send the same buffer.
fn two_readers(flags: PinFlags) -> Option<String> {
    let machine = Machine::<Wide>::new(64);
    let process = machine.populated(1, 1);
    let card = machine.pin_slow::<Read>(&process, A, PAGE, flags).unwrap();
    let disk = machine.pin_slow::<Read>(&process, A, PAGE, flags);
    let refused =
        disk.as_ref().err().map(|error| format!("the second of two devices that only read is refused ({error})"));
    drop((card, disk));
    refused
}
