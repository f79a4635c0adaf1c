//! Each answer of the kernel's objects and slots is a refusal once: an error by name, nothing changed, and the next attempt does it.

use pagepin::fault::FaultError;
use pagepin::frame::Layout;
use pagepin::pin::{Owner, PinFlags, Read, Write, pin_object_pages};
use pagepin::space::Sharing;
use pagepin::{Access, ObjectId, Unlimited};

use crate::machine::{A, FAR, Machine, PAGE, Process, RW, first_byte, runs};

const FILE: ObjectId = ObjectId(3);
/// A page of the file that is shared, one that is private, and memory that is in a slot. A page before each is there.
const SHARED: u64 = A + PAGE;
const PRIVATE: u64 = A + 5 * PAGE;
const SWAPPED: u64 = A + 9 * PAGE;

type Work<L> = fn(&Machine<L>, &Process<'_, L>) -> Result<(), String>;

fn said<T, E: core::fmt::Debug>(result: Result<T, E>) -> Result<(), String> {
    result.map(drop).map_err(|error| format!("{error:?}"))
}

fn load<L: Layout>(machine: &Machine<L>, process: &Process<'_, L>, address: u64) -> Result<(), String> {
    said(machine.load(0, process, address, 1))
}

fn store<L: Layout>(machine: &Machine<L>, process: &Process<'_, L>, address: u64) -> Result<(), String> {
    said(machine.store(0, process, address, 7, 1))
}

fn pin<L: Layout>(machine: &Machine<L>, process: &Process<'_, L>, address: u64, writes: bool) -> Result<(), String> {
    if writes {
        said(
            machine
                .pin_slow::<Write>(process, address, PAGE, PinFlags::empty())
                .and_then(|pins| pins.complete().map(drop)),
        )
    } else {
        said(machine.pin::<Read>(process, address, PAGE).and_then(|pins| pins.complete().map(drop)))
    }
}

/// What asks objects or slots, and how many of the answers can be refusals.
fn works<L: Layout>() -> [(&'static str, u64, Work<L>); 19] {
    [
        ("load of a shared page", 2, |machine, process| load(machine, process, SHARED)),
        ("load of a private page", 2, |machine, process| load(machine, process, PRIVATE)),
        ("load of a page in a slot", 2, |machine, process| load(machine, process, SWAPPED)),
        ("store to a shared page", 3, |machine, process| store(machine, process, SHARED)),
        ("first store to a shared page that is there", 1, |machine, process| store(machine, process, SHARED - PAGE)),
        ("store to a private page", 2, |machine, process| store(machine, process, PRIVATE)),
        ("store to a page in a slot", 2, |machine, process| store(machine, process, SWAPPED)),
        ("read pin of a shared page", 2, |machine, process| pin(machine, process, SHARED, false)),
        ("write pin of a shared page", 3, |machine, process| pin(machine, process, SHARED, true)),
        ("read pin of a private page", 2, |machine, process| pin(machine, process, PRIVATE, false)),
        ("write pin of a private page", 2, |machine, process| pin(machine, process, PRIVATE, true)),
        ("read pin of a page in a slot", 2, |machine, process| pin(machine, process, SWAPPED, false)),
        ("write pin of a page in a slot", 2, |machine, process| pin(machine, process, SWAPPED, true)),
        ("read pin by object", 2, |machine, _| {
            let owner = Owner::new(machine, Unlimited);
            said(pin_object_pages(owner, Read, FILE, 1..2, PinFlags::empty(), runs(1)))
        }),
        ("write pin by object", 3, |machine, _| {
            let owner = Owner::new(machine, Unlimited);
            said(pin_object_pages(owner, Write, FILE, 1..2, PinFlags::empty(), runs(1)))
        }),
        ("populate", 3, |_, process| {
            process.populate(SHARED, PAGE, Access::Write).map_err(|stopped| format!("{:?}", stopped.reason))
        }),
        ("map", 1, |_, process| said(process.map_object(FAR, PAGE, FILE, 0, Sharing::Shared, RW))),
        ("swap-out", 1, |_, process| said(process.swap_out(SWAPPED - PAGE, PAGE))),
        ("fork", 1, |_, process| said(process.fork())),
    ]
}

/// What user code has at the four pages that are played with.
fn bytes<L: Layout>(machine: &Machine<L>, process: &Process<'_, L>) -> [u8; 3] {
    [SHARED, PRIVATE, SWAPPED].map(|address| machine.get(process, address))
}

/// The process, with pages of the file in memory, and a page in a slot that remembers its frame, so that nothing has to be read.
fn prepare<L: Layout>(machine: &Machine<L>, forks: bool) -> Process<'_, L> {
    machine.shelf().add(FILE, 4);
    let warm = machine.process();
    warm.map_object(A, 4 * PAGE, FILE, 0, Sharing::Shared, RW).unwrap();
    (0..4).for_each(|page| _ = machine.get(&warm, A + page * PAGE));
    let process = machine.process();
    process.map(SWAPPED - PAGE, 2 * PAGE, RW).unwrap();
    // A child of fork that cannot show an object is a bug of the kernel's: objects are asked when they are mapped.
    if !forks {
        process.map_object(SHARED - PAGE, 2 * PAGE, FILE, 0, Sharing::Shared, RW).unwrap();
        process.map_object(PRIVATE - PAGE, 2 * PAGE, FILE, 0, Sharing::Private, RW).unwrap();
        machine.get(&process, SHARED - PAGE);
        machine.get(&process, PRIVATE - PAGE);
    }
    machine.put(&process, SWAPPED - PAGE, 20);
    machine.put(&process, SWAPPED, 21);
    assert_eq!(process.swap_out(SWAPPED, PAGE).unwrap().pages, 1);
    process
}

/// Plays `work` with the refusal of one store after so many answers. Whether there was one.
fn refuse<L: Layout>((name, work): (&str, Work<L>), of_slots: bool, after: u64) -> bool {
    let machine = Machine::<L>::new(96);
    let forks = name == "fork";
    let process = prepare(&machine, forks);
    let before = machine.image(&[&process]);
    let refusal = if of_slots { machine.slots().refusal() } else { machine.shelf().refusal() };
    refusal.after(Some(after));
    let result = work(&machine, &process);
    let refused = !refusal.is_left();
    refusal.after(None);
    if let Err(why) = &result {
        assert!(refused, "{name}: {why} without a refusal");
        let known = ["Failed", "NoMemory", "NotReady", "NoObject", "NoSlot", "PastEnd"];
        assert!(known.iter().any(|known| why.starts_with(known)), "{name}: {why}");
        let when = format!("{name}: {why} after {after} answers");
        // What is to be written is shown first, and the object asked then: shown it stays, read-only.
        if after == 2 && !name.contains("by object") {
            let other = Machine::<L>::new(96);
            let shown = prepare(&other, false);
            load(&other, &shown, SHARED).unwrap();
            other.image(&[&shown]).assert_same(&machine.image(&[&process]), when);
            drop(shown);
            other.clear_shelf();
        } else {
            before.assert_same(&machine.image(&[&process]), when);
        }
        assert_eq!(work(&machine, &process), Ok(()), "{name}, once more");
    }
    machine.audit(&[&process], &Default::default());
    let wrote =
        |address: u64, was: u8| if name.contains("store") && machine.get(&process, address) == 7 { 7 } else { was };
    if !forks {
        let wanted = [wrote(SHARED, first_byte(1)), wrote(PRIVATE, first_byte(1)), wrote(SWAPPED, 21)];
        assert_eq!(bytes(&machine, &process), wanted, "{name} after {after} answers");
    }
    drop(process);
    machine.clear_shelf();
    refused
}

fn each_answer_is_a_refusal_once<L: Layout>() {
    for (name, answers, work) in works::<L>() {
        let mut refusals = 0;
        for of_slots in [false, true] {
            let mut after = 0;
            while refuse((name, work), of_slots, after) {
                after += 1;
            }
            refusals += after;
        }
        assert_eq!(refusals, answers, "{name}");
    }
}

/// A page that is written back is not open, and whether it will be is asked: whatever the answer, nothing is pinned.
fn a_pin_of_a_closed_page_says_what_the_object_says<L: Layout>() {
    let machine = Machine::<L>::new(96);
    let process = prepare(&machine, false);
    machine.begin_writeback(FILE, 0).unwrap();
    assert_eq!(machine.begin_writeback(FILE, 0), Ok(false), "twice is no more than once");
    process.write_protect_object(FILE, 0..1).unwrap();
    let before = machine.image(&[&process]);
    for after in [None, Some(0), Some(1)] {
        machine.shelf().refusal().after(after);
        let refused = pin(&machine, &process, SHARED - PAGE, false).unwrap_err();
        assert!(refused.starts_with("NotReady") || refused == "Failed", "{refused}");
        before.assert_same(&machine.image(&[&process]), refused);
    }
    machine.end_writeback(FILE, 0);
    assert_eq!(pin(&machine, &process, SHARED - PAGE, false), Ok(()));
    drop(process);
    machine.clear_shelf();
}

/// A page that the object gives up for ever, whenever it has been shown, ends each access: none of them spins.
fn an_object_that_always_takes_its_page_back_ends_the_access<L: Layout>() {
    let machine = Machine::<L>::new(96);
    machine.shelf().add(FILE, 2);
    let process = machine.process();
    process.map_object(A, 2 * PAGE, FILE, 0, Sharing::Shared, RW).unwrap();
    machine.get(&process, A);
    machine.shelf().never_still(true);
    let fault = process.fault(pagepin::fault::Fault {
        address: A + PAGE,
        access: Access::Read,
        key_denied: false,
        malformed_table: false,
    });
    assert!(
        fault.is_ok() || fault == Err(FaultError::PastEnd),
        "{fault:?}: the access is tried again, and faults again"
    );
    assert_eq!(pin(&machine, &process, A + PAGE, false), Err("Contended".into()));
    let owner = Owner::new(&machine, Unlimited);
    let pins = pin_object_pages(owner, Read, FILE, 1..2, PinFlags::empty(), runs(1));
    assert_eq!(said(pins), Err("Contended".into()));
    machine.shelf().never_still(false);
    assert_eq!(machine.get(&process, A + PAGE), first_byte(1));
    machine.audit(&[&process], &Default::default());
    drop(process);
    machine.clear_shelf();
}

every_layout!(
    each_answer_is_a_refusal_once,
    a_pin_of_a_closed_page_says_what_the_object_says,
    an_object_that_always_takes_its_page_back_ends_the_access,
);
