//! References to pages that fork has shared, without a device.

use pagepin_abi::{MmCall, PIN_PLAIN, PIN_READ, TWIN_MAPCOUNT};

use super::stage::{PAGE, Stage, THE_PAGE, fill_page, read, say, write};
use crate::calls;

/// Slots for notes, and the notes in them.
const CHILD: u64 = 0;
const PARENT: u64 = 1;
const UNMAPPED: u64 = 1;
const WRITTEN: u64 = 1;

const LEN: usize = 32;
const HARMLESS: &[u8; LEN] = b"Nothing that a child may not see";
const SECRET: &[u8; LEN] = b"The parent's password: swordfish";

pub fn old_reference(stage: &Stage) -> bool {
    say!(stage, "A process has a page without secrets, and forks.");
    fill_page(THE_PAGE, HARMLESS, b' ');
    let child = calls::fork().unwrap();
    if child == 0 {
        calls::exit(u32::from(!child_keeps_a_reference(stage)));
    }
    if stage.twin {
        calls::mm(MmCall::Twin as u64, TWIN_MAPCOUNT, 0, 0).unwrap();
    }
    stage.await_note(CHILD, UNMAPPED);
    stage.picture("parent");
    say!(stage, "The parent now writes a password into its page.");
    write(THE_PAGE, SECRET);
    stage.picture("parent");
    calls::note(PARENT, WRITTEN).unwrap();
    let mut kept = stage.child_is_content(child);
    kept &= read::<LEN>(THE_PAGE) == *SECRET;
    kept
}

/// As `vmsplice` allows: the frame goes into a pipe, the page out of the address space.
fn child_keeps_a_reference(stage: &Stage) -> bool {
    stage.picture("child");
    let reference = calls::dev_pin(THE_PAGE, PAGE, PIN_READ | PIN_PLAIN).unwrap();
    calls::unmap(THE_PAGE, PAGE).unwrap();
    say!(stage, "The child has taken a plain reference to the frame and unmapped its page:");
    stage.picture("child");
    calls::note(CHILD, UNMAPPED).unwrap();
    stage.await_note(PARENT, WRITTEN);
    let mut found = [0; LEN];
    calls::dev_peek(reference, 0, &mut found).unwrap();
    stage.compare("what the child sees through its reference", HARMLESS, &found)
}

const BEFORE: &[u8; LEN] = b"What was in the page before fork";
const AFTER: &[u8; LEN] = b"What the process has written now";

pub fn read_pin(stage: &Stage) -> bool {
    say!(stage, "A process has a page with some text, and forks. The child stays, and does nothing.");
    fill_page(THE_PAGE, BEFORE, b' ');
    let child = calls::fork().unwrap();
    if child == 0 {
        stage.await_note(PARENT, WRITTEN);
        calls::exit(u32::from(read::<LEN>(THE_PAGE) != *BEFORE));
    }
    stage.picture("parent");
    say!(stage, "The parent lends the page to a device that will read it.");
    let pin = calls::dev_pin(THE_PAGE, PAGE, stage.pin_flags(PIN_READ)).unwrap();
    stage.picture("parent");
    say!(stage, "Then it writes another text.");
    write(THE_PAGE, AFTER);
    stage.picture("parent");
    let mut found = [0; LEN];
    calls::dev_peek(pin, 0, &mut found).unwrap();
    let mut kept = stage.compare("what the device sees", AFTER, &found);
    calls::note(PARENT, WRITTEN).unwrap();
    kept &= stage.child_is_content(child);
    calls::dev_unpin(pin).unwrap();
    kept
}
