//! Which pages an object, its write-back and the swapper take, and which they leave.

use pagepin::frame::Wide;
use pagepin::pin::{PinFlags, Write};
use pagepin::space::{Copies, Sharing, SwappedOut};
use pagepin::{ObjectId, Rights, Zone};

use crate::elsewhere::{FILE, bytes, sharing};
use crate::machine::{A, Machine, PAGE, R, RW, first_byte};

/// A copy is this mm's own: whether the object's page is open to pins is nothing to it, even if it has just moved.
#[test]
fn a_copy_is_pinned_while_the_objects_page_is_written_back() {
    let machine = Machine::<Wide>::new(64);
    machine.shelf().add(FILE, 4);
    let process = sharing(&machine, Sharing::Private);
    machine.put_pages(&process, A, 2, 1);
    machine.begin_writeback(FILE, 0).unwrap();
    // The frame goes between the look at its entry and the pin, so that the page is made ready that is.
    let race = || _ = process.relocate(A, PAGE, Zone::Unmovable).unwrap();
    let pins = machine.before_lookup(0, race, || machine.pin_slow::<Write>(&process, A, 2 * PAGE, PinFlags::empty()));
    let pins = pins.unwrap();
    assert_eq!((pins.pages(), pins.stopped()), (2, None));
    drop(pins);
    machine.end_writeback(FILE, 0);
    drop(process);
    machine.clear_shelf();
}

#[test]
fn only_the_pages_that_are_named_of_the_object_that_is_named_are_forgotten() {
    const OTHER: ObjectId = ObjectId(4);
    let machine = Machine::<Wide>::new(64);
    machine.shelf().add(FILE, 8);
    machine.shelf().add(OTHER, 8);
    let process = machine.process();
    process.map_object(A, 4 * PAGE, FILE, 2, Sharing::Shared, RW).unwrap();
    process.map_object(A + 8 * PAGE, 4 * PAGE, OTHER, 2, Sharing::Shared, RW).unwrap();
    for page in [0, 1, 2, 3, 8, 9, 10, 11] {
        _ = machine.get(&process, A + page * PAGE);
    }
    assert_eq!(process.resident().unwrap().object, 8);
    assert_eq!(process.forget_object(FILE, 3..5, Copies::Keep).unwrap().pages, 2);
    let left: Vec<u64> = (0..12).filter(|page| machine.leaf(&process, A + page * PAGE).is_some()).collect();
    assert_eq!(left, [0, 3, 8, 9, 10, 11]);
    drop(process);
    machine.clear_shelf();
}

/// What was only read, or is a copy, is none of write-back's business; what was written is, whatever its rights are now.
#[test]
fn write_back_protects_what_was_written_and_nothing_else() {
    let machine = Machine::<Wide>::new(64);
    machine.shelf().add(FILE, 4);
    let (shared, private) = (sharing(&machine, Sharing::Shared), sharing(&machine, Sharing::Private));
    assert_eq!(bytes(&machine, &shared, 4), [0, 1, 2, 3].map(first_byte));
    machine.put(&private, A + PAGE, 7);
    let flushes = machine.flushes();
    shared.write_protect_object(FILE, 0..4).unwrap();
    private.write_protect_object(FILE, 0..4).unwrap();
    assert_eq!(machine.flushes(), flushes, "nothing was written");
    assert!(Machine::<Wide>::is_writable(machine.leaf(&private, A + PAGE).unwrap().bits));
    machine.put(&shared, A, 5);
    shared.protect(A, 4 * PAGE, R).unwrap();
    let known = machine.begin_writeback(FILE, 0).unwrap();
    shared.write_protect_object(FILE, 0..4).unwrap();
    assert!(known || machine.word(machine.shelf().frame(FILE, 0).unwrap()).snapshot().dirty);
    machine.end_writeback(FILE, 0);
    drop((shared, private));
    machine.clear_shelf();
}

/// A page without rights is not there for who looks for pages to swap.
#[test]
fn a_page_without_rights_stays_in_memory() {
    let machine = Machine::<Wide>::new(64);
    let process = machine.populated(2, 10);
    process.protect(A, PAGE, Rights::empty()).unwrap();
    assert_eq!(process.swap_out(A, 2 * PAGE), Ok(SwappedOut { pages: 1, pinned_pages: 0 }));
    process.protect(A, PAGE, R).unwrap();
    assert_eq!(bytes(&machine, &process, 2), [10, 11]);
}
