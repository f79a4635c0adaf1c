//! Pages that are made ready before they are touched, and the parts of objects that a range shows.

use pagepin::fault::FaultError;
use pagepin::frame::Layout;
use pagepin::pin::Write;
use pagepin::space::{Resident, Sharing, SpaceError, Unpopulated};
use pagepin::{Access, NotReady, ObjectId, PageAddr};

use crate::machine::{A, Machine, PAGE, R, READING, RW, first_byte};

const FILE: ObjectId = ObjectId(3);

fn stopped(address: u64, reason: FaultError) -> Result<(), Unpopulated> {
    Err(Unpopulated { page: PageAddr::containing(address), reason })
}

/// More than one section has, over the end of a table; what a thread does then takes no fault.
fn what_was_populated_takes_no_fault<L: Layout>() {
    const PAGES: u64 = 200;
    let machine = Machine::<L>::new(512);
    let process = machine.process();
    let start = A / (512 * PAGE) * (512 * PAGE) + 412 * PAGE;
    process.map(start, PAGES * PAGE, RW).unwrap();
    assert_eq!(process.populate(start, PAGES * PAGE, Access::Read), Ok(()));
    assert_eq!(process.resident().unwrap(), Resident { zero: PAGES, tables: 5, ..Resident::default() });
    assert_eq!(process.populate(start, PAGES * PAGE, Access::Write), Ok(()));
    assert_eq!(process.resident().unwrap(), Resident { exclusive: PAGES, tables: 5, ..Resident::default() });
    for page in 0..PAGES {
        assert!(machine.attempt(0, &process, start + page * PAGE, Access::Write).is_ok());
    }
    let child = process.fork().unwrap();
    assert_eq!(child.populate(start, PAGES * PAGE, Access::Write), Ok(()));
    assert_eq!(child.resident().unwrap().exclusive, PAGES);
    machine.audit(&[&process, &child], &Default::default());
}

/// Each cause by its name, with the page that it is about, and what comes before is there.
fn what_stops_it_is_named<L: Layout>() {
    let machine = Machine::<L>::new(64);
    machine.shelf().add(FILE, 3);
    let process = machine.process();
    process.map(A, 2 * PAGE, RW).unwrap();
    process.map(A + 2 * PAGE, PAGE, R).unwrap();
    process.map_object(A + 4 * PAGE, 4 * PAGE, FILE, 0, Sharing::Shared, RW).unwrap();
    assert_eq!(process.populate(A, 4 * PAGE, Access::Write), stopped(A + 2 * PAGE, FaultError::AccessDenied));
    assert_eq!(process.resident().unwrap().exclusive, 2);
    assert_eq!(process.populate(A, 4 * PAGE, Access::Read), stopped(A + 3 * PAGE, FaultError::NoVma));
    machine.shelf().delay(1);
    assert_eq!(
        process.populate(A + 4 * PAGE, PAGE, Access::Read),
        stopped(A + 4 * PAGE, FaultError::NotReady(READING))
    );
    assert_eq!(process.populate(A + 4 * PAGE, 4 * PAGE, Access::Write), stopped(A + 7 * PAGE, FaultError::PastEnd));
    assert_eq!((machine.shelf().writes(), process.resident().unwrap().object), (3, 3));
    process.discard(A, 2 * PAGE).unwrap();
    machine.memory().allow(Some(1));
    assert_eq!(process.populate(A, 2 * PAGE, Access::Write), stopped(A + PAGE, FaultError::NoMemory));
    machine.memory().allow(None);
    for (start, length) in [(A + 1, PAGE), (A, 0), (u64::MAX - PAGE + 1, PAGE), (1 << 47, PAGE)] {
        let refused = process.populate(start, length, Access::Read).unwrap_err();
        assert!(matches!(refused.reason, FaultError::Address(_)), "{refused}");
    }
    assert_eq!(
        process.populate(A, 1 << 46, Access::Read).unwrap_err().reason,
        FaultError::NoVma,
        "it ends at the first hole"
    );
    drop(process);
    machine.clear_shelf();
}

/// An object that is never ready ends each call at the same page, and none of them spins.
fn an_object_that_is_never_ready_is_asked_once<L: Layout>() {
    let machine = Machine::<L>::new(64);
    machine.shelf().add(FILE, 4);
    let process = machine.process();
    process.map_object(A, 4 * PAGE, FILE, 0, Sharing::Private, RW).unwrap();
    machine.shelf().delay(u64::MAX);
    for _ in 0..3 {
        let stopped = process.populate(A, 4 * PAGE, Access::Write).unwrap_err();
        assert_eq!((stopped.page.address(), stopped.reason), (A, FaultError::NotReady(READING)));
        let pin = machine.pin::<Write>(&process, A, 4 * PAGE).err();
        assert!(matches!(pin, Some(pagepin::pin::PinError::NotReady(NotReady(_)))));
    }
    machine.shelf().delay(0);
    assert_eq!(process.populate(A, 4 * PAGE, Access::Write), Ok(()));
    assert_eq!((machine.get(&process, A), process.resident().unwrap().exclusive), (first_byte(0), 4));
    drop(process);
    machine.clear_shelf();
}

#[test]
fn where_it_stopped_and_why_is_said() {
    let error = Unpopulated { page: PageAddr::containing(A + 1), reason: FaultError::NoMemory };
    assert_eq!(error.to_string(), format!("the page at {A:#x}: {}", FaultError::NoMemory));
    assert_eq!((error.errno(), FaultError::NoMemory.errno()), (12, 12));
}

/// Shared parts alone, cut to the range; a hole is told at the end.
fn the_shared_parts_of_a_range<L: Layout>() {
    let machine = Machine::<L>::new(64);
    machine.shelf().add(FILE, 20);
    let process = machine.process();
    let parts = |start, length| process.shared_parts(start, length).unwrap().collect::<Vec<_>>();
    process.map_object(A, 4 * PAGE, FILE, 2, Sharing::Shared, RW).unwrap();
    process.map_object(A + 4 * PAGE, 4 * PAGE, FILE, 0, Sharing::Private, RW).unwrap();
    process.map(A + 8 * PAGE, 2 * PAGE, RW).unwrap();
    process.map_object(A + 10 * PAGE, 2 * PAGE, FILE, 9, Sharing::Shared, R).unwrap();
    assert_eq!(parts(A, 12 * PAGE), [Ok((FILE, 2..6)), Ok((FILE, 9..11))]);
    assert_eq!(parts(A + PAGE, 2 * PAGE), [Ok((FILE, 3..5))]);
    assert_eq!(parts(A + 4 * PAGE, 6 * PAGE), []);
    process.unmap(A + 9 * PAGE, PAGE).unwrap();
    assert_eq!(parts(A, 12 * PAGE), [Ok((FILE, 2..6)), Ok((FILE, 9..11)), Err(SpaceError::NoVma)]);
    assert_eq!(parts(A + 11 * PAGE, 4 * PAGE), [Ok((FILE, 10..11)), Err(SpaceError::NoVma)]);
    assert_eq!(parts(A - PAGE, PAGE), [Err(SpaceError::NoVma)]);
    assert!(matches!(process.shared_parts(A, 0).err(), Some(SpaceError::Range(_))));
    drop(process);
    machine.clear_shelf();
}

every_layout!(
    what_was_populated_takes_no_fault,
    what_stops_it_is_named,
    an_object_that_is_never_ready_is_asked_once,
    the_shared_parts_of_a_range,
);
