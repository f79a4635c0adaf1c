//! Pins of an object's pages, by its number and theirs.

use std::sync::Arc;

use pagepin::frame::{CountError, Layout};
use pagepin::pin::{OwnedPins, Owner, PhysRun, PinAccess, PinError, PinFlags, Read, Write, pin_object_pages};
use pagepin::space::Sharing;
use pagepin::{ObjectId, PinLimit, RangeError, Unlimited};

use crate::machine::{A, Machine, PAGE, Process, READING, RW, WRITE_BACK, runs};

const FILE: ObjectId = ObjectId(3);

type Pins<'m, L, X> = OwnedPins<&'m Machine<L>, Unlimited, X, Vec<PhysRun>>;

fn pin<L: Layout, X: PinAccess>(
    machine: &Machine<L>,
    pages: std::ops::Range<u32>,
    flags: PinFlags,
) -> Result<Pins<'_, L, X>, PinError> {
    pin_object_pages(Owner::new(machine, Unlimited), X::default(), FILE, pages, flags, runs(8))
}

fn usual<L: Layout, X: PinAccess>(
    machine: &Machine<L>,
    pages: std::ops::Range<u32>,
) -> Result<Pins<'_, L, X>, PinError> {
    pin(machine, pages, PinFlags::empty())
}

fn sharing<L: Layout>(machine: &Machine<L>, sharing: Sharing) -> Process<'_, L> {
    let process = machine.process();
    process.map_object(A, 4 * PAGE, FILE, 0, sharing, RW).unwrap();
    process
}

/// What the device writes is what shared mappings show, whoever has them, and private ones that have copied do not.
fn they_are_the_pages_that_mappings_show<L: Layout>() {
    let machine = Machine::<L>::new(64);
    machine.shelf().add(FILE, 4);
    let pins = usual::<L, Write>(&machine, 1..4).unwrap().complete().unwrap();
    assert_eq!((pins.range().start(), pins.range().length()), (PAGE, 3 * PAGE), "bytes of the object");
    assert_eq!(machine.shelf().writes(), 3, "it was asked");
    let (shared, private) = (sharing(&machine, Sharing::Shared), sharing(&machine, Sharing::Private));
    machine.put(&private, A + PAGE, 5);
    pins.copy_from(0, &[9]).unwrap();
    assert_eq!([&shared, &private].map(|process| machine.get(process, A + PAGE)), [9, 5]);
    machine.put(&shared, A + 2 * PAGE, 7);
    let mut seen = [0];
    pins.copy_to(PAGE, &mut seen).unwrap();
    assert_eq!(seen, [7]);
    let child = shared.fork().unwrap();
    assert_eq!(machine.get(&child, A + PAGE), 9);
    drop((shared, private, child));
    pins.copy_from(2 * PAGE, &[4]).unwrap();
    drop(pins);
    let frame = machine.shelf().frame(FILE, 3).unwrap();
    assert!(machine.word(frame).snapshot().dirty, "what a device wrote will be written back");
    assert_eq!(machine.get(&sharing(&machine, Sharing::Private), A + 3 * PAGE), 4);
    machine.clear_shelf();
}

/// While a page is pinned its write-back does not begin, and while that goes on nobody pins it.
fn pins_and_write_back_exclude_each_other<L: Layout>() {
    let machine = Machine::<L>::new(64);
    machine.shelf().add(FILE, 4);
    let read = usual::<L, Read>(&machine, 0..1).unwrap();
    assert_eq!(machine.shelf().writes(), 0);
    assert_eq!(machine.begin_writeback(FILE, 0), Err(CountError::Pinned));
    drop(read);
    assert_eq!(machine.begin_writeback(FILE, 0), Ok(false));
    let wait = Some(PinError::NotReady(WRITE_BACK));
    assert_eq!((usual::<L, Read>(&machine, 0..2).err(), usual::<L, Write>(&machine, 0..2).err()), (wait, wait));
    machine.end_writeback(FILE, 0);
    assert_eq!(usual::<L, Write>(&machine, 0..2).unwrap().pages(), 2);
    machine.clear_shelf();
}

/// What is cut off stays allocated for the device; what is cut off between look-up and pin is not pinned.
fn a_truncation_leaves_the_device_its_pages<L: Layout>() {
    let machine = Machine::<L>::new(64);
    machine.shelf().add(FILE, 4);
    let pins = usual::<L, Write>(&machine, 0..4).unwrap().complete().unwrap();
    machine.cut(FILE, 0);
    pins.copy_from(3 * PAGE, &[1]).unwrap();
    assert_eq!(usual::<L, Read>(&machine, 0..1).err(), Some(PinError::PastEnd));
    drop(pins);
    machine.shelf().add(FILE, 4);
    machine.shelf().cut_after_page();
    assert_eq!(usual::<L, Read>(&machine, 2..4).err(), Some(PinError::PastEnd));
    assert_eq!(usual::<L, Read>(&machine, 0..3).unwrap().pages(), 2);
    machine.clear_shelf();
}

/// Each refusal by name, with nothing pinned and nothing charged.
fn refusals_leave_nothing<L: Layout>() {
    let machine = Machine::<L>::new(64);
    machine.shelf().add(FILE, 4);
    assert_eq!(usual::<L, Read>(&machine, 2..2).err(), Some(PinError::Range(RangeError::Empty)));
    let backwards = std::ops::Range { start: 3, end: 2 };
    assert_eq!(usual::<L, Read>(&machine, backwards).err(), Some(PinError::Range(RangeError::Empty)));
    assert_eq!(usual::<L, Read>(&machine, 4..u32::MAX).err(), Some(PinError::PastEnd));
    for flags in [PinFlags::NOFAULT, PinFlags::FORCE, PinFlags::SOLE, PinFlags::SOLE | PinFlags::LONGTERM] {
        assert_eq!(pin::<L, Write>(&machine, 0..1, flags).err(), Some(PinError::InvalidFlags));
    }
    machine.shelf().delay(1);
    assert_eq!(usual::<L, Read>(&machine, 0..1).err(), Some(PinError::NotReady(READING)));
    machine.shelf().delay_writes(1);
    assert_eq!(usual::<L, Write>(&machine, 0..1).err(), Some(PinError::NotReady(WRITE_BACK)));
    machine.memory().allow(Some(0));
    assert_eq!(usual::<L, Write>(&machine, 3..4).err(), Some(PinError::NoMemory));
    machine.memory().allow(None);
    let budget = Arc::new(PinLimit::new(3));
    let charged = |pages, buffer| {
        let owner = Owner::new(&machine, budget.clone());
        pin_object_pages(owner, Read, FILE, pages, PinFlags::empty(), runs(buffer))
    };
    assert_eq!(charged(0..4, 8).err(), Some(PinError::BudgetExceeded));
    assert_eq!(charged(0..1, 0).err(), Some(PinError::BufferTooSmall));
    assert_eq!(budget.used(), 0);
    let some = charged(2..5, 8).unwrap();
    let stopped = some.stopped().unwrap();
    assert_eq!((stopped.page_index, stopped.reason, budget.used()), (2, PinError::PastEnd, 2));
    drop(some);
    assert_eq!(budget.used(), 0);
    machine.shelf().refuse_writes();
    assert_eq!(usual::<L, Write>(&machine, 0..1).err(), Some(PinError::AccessDenied));
    machine.clear_shelf();
}

/// For long: no page of an object that is written back for writing, and none that may not stay where it is.
fn pins_for_long_are_of_what_may_stay<L: Layout>() {
    let machine = Machine::<L>::new(64);
    machine.memory().divide();
    machine.shelf().add(FILE, 4);
    assert_eq!(pin::<L, Write>(&machine, 0..1, PinFlags::LONGTERM).unwrap().pages(), 1);
    machine.shelf().write_back(FILE, true);
    assert_eq!(pin::<L, Write>(&machine, 0..1, PinFlags::LONGTERM).err(), Some(PinError::WrittenBack));
    assert_eq!(pin::<L, Read>(&machine, 0..1, PinFlags::LONGTERM).unwrap().pages(), 1);
    assert_eq!(usual::<L, Write>(&machine, 0..1).unwrap().pages(), 1);
    machine.shelf().write_back(FILE, false);
    machine.shelf().place_among_movable(true);
    assert_eq!(pin::<L, Read>(&machine, 1..2, PinFlags::LONGTERM).err(), Some(PinError::CannotMove));
    assert_eq!(usual::<L, Read>(&machine, 1..2).unwrap().pages(), 1);
    machine.clear_shelf();
}

every_layout!(
    pins_for_long_are_of_what_may_stay,
    they_are_the_pages_that_mappings_show,
    pins_and_write_back_exclude_each_other,
    a_truncation_leaves_the_device_its_pages,
    refusals_leave_nothing,
);
