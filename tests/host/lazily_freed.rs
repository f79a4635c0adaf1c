//! Pages whose contents were given up: they may go until they are written, by whomever, and what is held stays.

use pagepin::frame::Layout;
use pagepin::pin::{PinFlags, Read, Write, pin_user_pages_fast_only};
use pagepin::space::{LazilyFreed, Reclaimed, Resident, Sharing, SpaceError};
use pagepin::{LeafSize, ObjectId, Zone};

use crate::machine::{A, FAR, LARGE, Machine, PAGE, Process, R, RW, range, runs};

const DIRTY: u64 = 1 << 6;

fn bytes<L: Layout>(machine: &Machine<L>, process: &Process<'_, L>, pages: u64) -> Vec<u8> {
    (0..pages).map(|page| machine.get(process, A + page * PAGE)).collect()
}

fn freed(pages: u64, shared_pages: u64) -> Result<LazilyFreed, SpaceError> {
    let mut freed = LazilyFreed::default();
    (freed.pages, freed.shared_pages) = (pages, shared_pages);
    Ok(freed)
}

/// Pages that went, were written, are pinned, are shared.
fn reclaimed([pages, written, pinned, shared]: [u64; 4]) -> Result<Reclaimed, SpaceError> {
    let mut reclaimed = Reclaimed::default();
    (reclaimed.pages, reclaimed.written_pages) = (pages, written);
    (reclaimed.pinned_pages, reclaimed.shared_pages) = (pinned, shared);
    Ok(reclaimed)
}

/// Four pages at [`A`] that held 10 to 13 when they were given up.
fn given_up<L: Layout>(machine: &Machine<L>) -> Process<'_, L> {
    let process = machine.populated(4, 10);
    assert_eq!(process.free_lazily(A, 4 * PAGE), freed(4, 0));
    process
}

/// More pages than go at a time, and over the end of a table. What is only read goes all the same, and reads as zeroes then.
fn what_is_not_written_goes_and_what_is_written_stays<L: Layout>() {
    const PAGES: u64 = 90;
    let machine = Machine::<L>::new(256);
    let process = machine.process();
    let start = A / (512 * PAGE) * (512 * PAGE) + 467 * PAGE;
    process.map(start, PAGES * PAGE, RW).unwrap();
    machine.put_pages(&process, start, PAGES, 10);
    let before = machine.memory().allocated().len();
    assert_eq!(process.reclaim_freed(start, PAGES * PAGE), reclaimed([0; 4]), "nobody gave anything up");
    assert_eq!(process.free_lazily(start, PAGES * PAGE), freed(PAGES, 0));
    assert_eq!(machine.get(&process, start + 7 * PAGE), 17, "it is there until it is taken");
    let faults = process.env().memory().allocations();
    machine.put(&process, start + 5 * PAGE, 99);
    assert_eq!(process.env().memory().allocations(), faults);
    assert_eq!(process.reclaim_freed(start, PAGES * PAGE), reclaimed([PAGES - 1, 1, 0, 0]));
    assert_eq!(machine.memory().allocated().len() as u64, before as u64 - (PAGES - 1));
    assert_eq!(process.resident().unwrap().exclusive, 1);
    assert_eq!([5, 7, 60].map(|page| machine.get(&process, start + page * PAGE)), [99, 0, 0]);
    assert_eq!(
        process.reclaim_freed(start, PAGES * PAGE),
        reclaimed([0; 4]),
        "what was written is its process's again"
    );
    machine.audit(&[&process], &Default::default());
}

/// After the flush no CPU writes by a translation that says the page is known to be dirty; before, a write may go with the page.
fn a_write_by_a_translation_of_before_is_noted<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(2, 10);
    machine.put(&process, A, 20);
    let late = || machine.store(0, &process, A + PAGE, 30, 1).unwrap();
    machine.before_acknowledgement(late, || assert_eq!(process.free_lazily(A, 2 * PAGE), freed(2, 0)));
    machine.put(&process, A, 21);
    assert_eq!(process.reclaim_freed(A, 2 * PAGE), reclaimed([1, 1, 0, 0]));
    assert_eq!(bytes(&machine, &process, 2), [21, 0]);
}

/// The write comes in front of the exchange that takes its page: it is seen in what is taken.
fn a_write_at_any_step_is_not_lost<L: Layout>() {
    for at in 0..4 {
        let machine = Machine::<L>::new(64);
        let process = given_up(&machine);
        let race = || machine.put(&process, A + at * PAGE, 77);
        let (out, raced) = machine.at_exchange(at, race, || process.reclaim_freed(A, 4 * PAGE));
        assert_eq!((out, raced), (reclaimed([3, 1, 0, 0]), true));
        assert_eq!(machine.get(&process, A + at * PAGE), 77);
        machine.audit(&[&process], &Default::default());
    }
}

/// Linux 6c8e2a256915. A pin keeps the page while there is one; what its holder may have written stays when it has ended.
fn what_is_pinned_stays_and_what_a_device_writes_is_kept<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(4, 10);
    let early = machine.pin::<Write>(&process, A, 1).unwrap();
    assert_eq!(process.free_lazily(A, 4 * PAGE), freed(4, 0));
    let write = machine.pin::<Write>(&process, A + PAGE, 1).unwrap();
    let read = machine.pin::<Read>(&process, A + 2 * PAGE, 1).unwrap();
    assert_eq!(process.reclaim_freed(A, 4 * PAGE), reclaimed([1, 0, 3, 0]));
    for (pin, page, byte) in [(&early, 0, 50), (&write, 1, 51)] {
        let frame = pin.runs()[0].first();
        assert_eq!(machine.frame_at(&process, A + page * PAGE).0, frame);
        machine.dma_write(frame.address(), &[byte]);
    }
    drop((early, write, read));
    assert_eq!(process.reclaim_freed(A, 4 * PAGE), reclaimed([1, 2, 0, 0]), "a read pin says nothing of writes");
    assert_eq!(bytes(&machine, &process, 4), [50, 51, 0, 0]);
    machine.audit(&[&process], &Default::default());
}

/// At each exchange a device pins the page, writes, and lets go.
fn a_pin_that_comes_and_goes_is_not_lost<L: Layout>() {
    for at in 0..6 {
        let machine = Machine::<L>::new(64);
        let process = given_up(&machine);
        let mut written = false;
        let race = || {
            let page = range(&process, A + PAGE, 1);
            let pin = pin_user_pages_fast_only(&process, Write, page, PinFlags::empty(), runs(1));
            if let Ok(pin) = pin {
                machine.dma_write(pin.runs()[0].first().address(), &[88]);
                written = true;
            }
        };
        machine.at_exchange(at, race, || process.reclaim_freed(A, 4 * PAGE).unwrap());
        assert_eq!(machine.get(&process, A + PAGE), if written { 88 } else { 0 }, "{at}");
    }
}

/// A plain reference keeps the page, too.
fn what_is_got_stays<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = given_up(&machine);
    let got = machine.reference::<Read>(&process, A, 1).unwrap();
    assert_eq!(process.reclaim_freed(A, 4 * PAGE), reclaimed([3, 0, 0, 1]));
    drop(got);
    assert_eq!(process.reclaim_freed(A, 4 * PAGE), reclaimed([1, 0, 0, 0]));
}

/// A child has given nothing up: what it shares stays, and so does its own when the parent has gone. A fork that fails changes none of it.
fn a_child_has_given_nothing_up<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = given_up(&machine);
    machine.put(&parent, A, 20);
    machine.memory().allow(Some(2));
    assert!(parent.fork().is_err());
    machine.memory().allow(None);
    let pin = machine.pin::<Write>(&parent, A + PAGE, 1).unwrap();
    machine.dma_write(pin.runs()[0].first().address(), &[21]);
    let child = parent.fork().unwrap();
    drop(pin);
    assert_eq!(child.reclaim_freed(A, 4 * PAGE), reclaimed([0; 4]));
    assert_eq!(parent.reclaim_freed(A, 4 * PAGE), reclaimed([0, 1, 0, 3]), "the second was written, by a device");
    assert_eq!(child.free_lazily(A, 4 * PAGE), freed(1, 3), "what it has alone is the copy of what was pinned");
    drop(parent);
    assert_eq!(bytes(&machine, &child, 4), [20, 21, 12, 13]);
    assert_eq!(child.reclaim_freed(A, 4 * PAGE), reclaimed([1, 0, 0, 0]));
    assert_eq!(bytes(&machine, &child, 4), [20, 0, 12, 13]);
    machine.audit(&[&child], &Default::default());
}

/// The parent's page goes when the child has gone; and if it was written between, it stays.
fn a_page_is_ones_own_again_when_the_child_has_gone<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = given_up(&machine);
    let child = parent.fork().unwrap();
    machine.put(&child, A + PAGE, 31);
    drop(child);
    machine.put(&parent, A, 30);
    assert_eq!(parent.reclaim_freed(A, 4 * PAGE), reclaimed([3, 1, 0, 0]));
    assert_eq!(bytes(&machine, &parent, 4), [30, 0, 0, 0]);
}

/// What is in a slot goes at once, with its slot, and a page that is given up goes to a slot like any other: it comes back, and is kept.
fn slots_and_pages_that_were_given_up<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(4, 10);
    assert_eq!(process.swap_out(A, 2 * PAGE).unwrap().pages, 2);
    machine.write_out();
    assert_eq!(process.free_lazily(A, 4 * PAGE), freed(4, 0));
    assert_eq!((machine.slots().holders().len(), process.resident().unwrap().swapped), (0, 0));
    assert_eq!(process.swap_out(A + 2 * PAGE, 2 * PAGE).unwrap().pages, 2);
    machine.write_out();
    assert_eq!(bytes(&machine, &process, 4), [0, 0, 12, 13]);
    assert_eq!(process.reclaim_freed(A, 4 * PAGE), reclaimed([0; 4]));
    let child = process.fork().unwrap();
    assert_eq!(process.swap_out(A, 4 * PAGE).unwrap().pages, 2);
    assert_eq!(process.free_lazily(A, 4 * PAGE), freed(2, 0), "the slots of its own");
    assert_eq!((bytes(&machine, &process, 4), bytes(&machine, &child, 4)), (vec![0; 4], vec![0, 0, 12, 13]));
}

/// A page that moves to other addresses, or loses its rights and gets them back, is still given up; one that gets another frame is kept.
fn what_becomes_of_the_mark<L: Layout>() {
    let machine = Machine::<L>::new(128);
    let process = given_up(&machine);
    process.move_pages(A, 4 * PAGE, FAR).unwrap();
    process.protect(FAR, PAGE, R).unwrap();
    process.protect(FAR, PAGE, RW).unwrap();
    for rights in [pagepin::Rights::empty(), RW] {
        process.protect(FAR + PAGE, PAGE, rights).unwrap();
    }
    machine.put(&process, FAR + 2 * PAGE, 22);
    process.protect(FAR + 2 * PAGE, PAGE, R).unwrap();
    assert_eq!(process.relocate(FAR + 3 * PAGE, PAGE, Zone::Unmovable).unwrap().pages, 1);
    assert_eq!(process.reclaim_freed(FAR, 4 * PAGE), reclaimed([2, 1, 0, 0]));
    assert_eq!([2, 3].map(|page| machine.get(&process, FAR + page * PAGE)), [22, 13]);
    machine.audit(&[&process], &Default::default());
}

/// Of two pages that became one, neither goes while the other is there; and what either writes is kept.
fn merged_pages_stay<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let (one, two) = (machine.populated(2, 7), machine.populated(2, 7));
    assert_eq!((one.free_lazily(A, 2 * PAGE), two.free_lazily(A, 2 * PAGE)), (freed(2, 0), freed(2, 0)));
    drop(machine.pin::<Write>(&one, A + PAGE, 1).unwrap());
    assert_eq!((one.merge(A, &two, A), one.merge(A + PAGE, &two, A + PAGE)), (Ok(()), Ok(())));
    assert_eq!(two.reclaim_freed(A, 2 * PAGE), reclaimed([0, 0, 0, 2]));
    assert_eq!(one.reclaim_freed(A, 2 * PAGE), reclaimed([0; 4]), "it has the other's frame");
    drop(one);
    assert_eq!(two.reclaim_freed(A, 2 * PAGE), reclaimed([1, 1, 0, 0]), "somebody wrote the second");
    assert_eq!(bytes(&machine, &two, 2), [0, 8]);
}

/// What cannot be given up stays: pages of objects, copies of them, the zero frame, foreign memory, large leaves, pages without rights.
fn what_is_not_anonymous_memory_stays<L: Layout>() {
    const FILE: ObjectId = ObjectId(3);
    let machine = Machine::<L>::new(1024);
    machine.shelf().add(FILE, 4);
    let process = machine.process();
    process.map(A, 4 * PAGE, RW).unwrap();
    assert_eq!(machine.get(&process, A), 0);
    machine.put(&process, A + PAGE, 1);
    process.protect(A + PAGE, PAGE, pagepin::Rights::empty()).unwrap();
    for (page, sharing) in [(4, Sharing::Shared), (8, Sharing::Private)] {
        process.map_object(A + page * PAGE, 2 * PAGE, FILE, 0, sharing, RW).unwrap();
        machine.put(&process, A + page * PAGE, 9);
        machine.get(&process, A + (page + 1) * PAGE);
    }
    // SAFETY: nobody has the frame.
    unsafe { process.map_foreign(A + 12 * PAGE, PAGE, pagepin::Pfn::new(0x8_0000), pagepin::MemoryType::UNCACHED, RW) }
        .unwrap();
    let before = process.resident().unwrap();
    assert_eq!(process.free_lazily(A, 64 * PAGE), freed(0, 0));
    assert_eq!(process.reclaim_freed(A, 64 * PAGE), reclaimed([0; 4]));
    assert_eq!(process.resident().unwrap(), before);
    process.map(LARGE, LeafSize::Size2MiB.bytes(), RW).unwrap();
    let block = machine.block(LeafSize::Size2MiB);
    machine.install(&process, LARGE, LeafSize::Size2MiB, block, 0x8000_0000_0000_0067);
    assert_eq!(process.free_lazily(LARGE, LeafSize::Size2MiB.bytes()), freed(0, 0));
    drop(process);
    machine.clear_shelf();
}

/// Ranges that are none are refused, and what is not there is nothing.
fn ranges_are_checked<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = given_up(&machine);
    for (start, length) in [(A + 1, PAGE), (A, 0), (A, PAGE - 1), (u64::MAX - PAGE + 1, PAGE), (1 << 47, PAGE)] {
        assert!(matches!(process.free_lazily(start, length), Err(SpaceError::Range(_))));
        assert!(matches!(process.reclaim_freed(start, length), Err(SpaceError::Range(_))));
    }
    process.unmap(A, 4 * PAGE).unwrap();
    assert_eq!(
        (process.free_lazily(A, 4 * PAGE), process.reclaim_freed(A, 4 * PAGE)),
        (freed(0, 0), reclaimed([0; 4]))
    );
    assert_eq!(process.resident().unwrap(), Resident { tables: 1, ..Resident::default() });
}

/// What was written before, by user code or a device that has gone, is given up with the rest.
fn what_is_written_to_again_is_given_up_again<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = given_up(&machine);
    for round in 0..3 {
        machine.put(&process, A, 40 + round);
        drop(machine.pin::<Write>(&process, A, 1).unwrap());
        assert!(machine.leaf(&process, A).unwrap().bits & DIRTY != 0);
        assert_eq!(process.free_lazily(A, PAGE), freed(1, 0));
        assert!(machine.leaf(&process, A).unwrap().bits & DIRTY == 0);
    }
    assert_eq!(process.reclaim_freed(A, PAGE), reclaimed([1, 0, 0, 0]));
    assert_eq!(machine.get(&process, A), 0);
}

every_layout!(
    what_is_not_written_goes_and_what_is_written_stays,
    a_write_by_a_translation_of_before_is_noted,
    a_write_at_any_step_is_not_lost,
    what_is_pinned_stays_and_what_a_device_writes_is_kept,
    a_pin_that_comes_and_goes_is_not_lost,
    what_is_got_stays,
    a_child_has_given_nothing_up,
    a_page_is_ones_own_again_when_the_child_has_gone,
    slots_and_pages_that_were_given_up,
    what_becomes_of_the_mark,
    merged_pages_stay,
    what_is_not_anonymous_memory_stays,
    ranges_are_checked,
    what_is_written_to_again_is_given_up_again,
);
