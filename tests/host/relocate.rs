//! Pages that get other frames: the same bytes, rights and dirty bits, and whoever holds a frame keeps it.

use pagepin::fault::FaultError;
use pagepin::frame::Layout;
use pagepin::pin::{PinError, PinFlags, Read, Write, get_user_pages_fast_only, pin_user_pages_fast_only};
use pagepin::space::{Relocated, Sharing, SpaceError};
use pagepin::{LeafSize, ObjectId, Pfn, Rights, Zone};

use crate::machine::{A, LARGE, Machine, PAGE, Process, R, RW, range, runs};

const DIRTY: u64 = 1 << 6;

/// A machine with two zones, and a process with pages in the movable one that hold numbers from 10 on.
fn divided<L: Layout>(frames: usize) -> Machine<L> {
    let machine = Machine::<L>::new(frames);
    machine.memory().divide();
    machine
}

fn frames<L: Layout>(machine: &Machine<L>, process: &Process<'_, L>, pages: u64) -> Vec<Pfn> {
    (0..pages).map(|page| machine.frame_at(process, A + page * PAGE).0).collect()
}

fn bytes<L: Layout>(machine: &Machine<L>, process: &Process<'_, L>, pages: u64) -> Vec<u8> {
    (0..pages).map(|page| machine.get(process, A + page * PAGE)).collect()
}

fn moved(pages: u64, pinned_pages: u64, shared_pages: u64) -> Result<Relocated, SpaceError> {
    let mut moved = Relocated::default();
    (moved.pages, moved.pinned_pages, moved.shared_pages) = (pages, pinned_pages, shared_pages);
    Ok(moved)
}

/// More pages than are moved at a time, and over the end of a table.
fn a_page_that_moves_keeps_everything_but_its_frame<L: Layout>() {
    const PAGES: u64 = 90;
    let machine = divided::<L>(512);
    let process = machine.process();
    let start = A + 512 * PAGE - 45 * PAGE;
    process.map(start, PAGES * PAGE, Rights::all()).unwrap();
    machine.put_pages(&process, start, PAGES, 10);
    process.protect(start + 50 * PAGE, 10 * PAGE, R).unwrap();
    assert_eq!(machine.execute(1, &process, start), Ok(()));
    // Written by a device that has gone, which the frame's word alone knows of.
    drop(machine.pin::<Write>(&process, start + 3 * PAGE, 1).unwrap());
    let allocated = machine.memory().allocated().len();
    let before: Vec<_> = (0..PAGES).map(|page| machine.leaf(&process, start + page * PAGE).unwrap()).collect();
    assert_eq!(process.relocate(start, PAGES * PAGE, Zone::Unmovable), moved(PAGES, 0, 0));
    for (page, before) in (0..PAGES).zip(before) {
        let after = machine.leaf(&process, start + page * PAGE).unwrap();
        let rights = |bits: u64| bits & !(before.frame().address() | after.frame().address());
        assert_eq!(rights(after.bits), rights(before.bits));
        assert!(after.bits & DIRTY != 0 && machine.memory().is_in(Zone::Unmovable, after.frame()));
        assert!(machine.word(before.frame()).snapshot().is_free());
        assert_eq!(machine.word(after.frame()).snapshot().dirty, page == 3);
    }
    assert_eq!(machine.memory().allocated().len(), allocated);
    let read: Vec<_> = (0..PAGES).map(|page| machine.get(&process, start + page * PAGE)).collect();
    assert_eq!(read, (10..10 + PAGES as u8).collect::<Vec<_>>());
    assert_eq!(machine.store(0, &process, start + 50 * PAGE, 1, 1).err(), Some(FaultError::AccessDenied));
    assert_eq!(machine.execute(1, &process, start), Ok(()), "the new frame was announced");
    machine.put(&process, start, 99);
    machine.audit(&[&process], &Default::default());
}

/// The pin came first: the frame is the device's, and the entry is what it was. Its neighbours go.
fn what_is_pinned_or_held_stays<L: Layout>() {
    let machine = divided::<L>(128);
    let process = machine.populated(6, 10);
    let pin = machine.pin::<Write>(&process, A + PAGE, 1).unwrap();
    let got = machine.reference::<Read>(&process, A + 3 * PAGE, 1).unwrap();
    let before = frames(&machine, &process, 6);
    assert_eq!(process.relocate(A, 6 * PAGE, Zone::Unmovable), moved(4, 1, 1));
    let after = frames(&machine, &process, 6);
    let stayed: Vec<_> = (0..6).filter(|page| before[*page] == after[*page]).collect();
    assert_eq!(stayed, [1, 3]);
    machine.dma_write(after[1].address(), &[55]);
    assert_eq!(bytes(&machine, &process, 6), [10, 55, 12, 13, 14, 15]);
    machine.put(&process, A + PAGE, 56);
    assert_eq!(machine.dma_read(after[1].address()), 56);
    drop((pin, got));
    assert_eq!(process.relocate(A, 6 * PAGE, Zone::Movable), moved(6, 0, 0));
    assert_eq!(bytes(&machine, &process, 6), [10, 56, 12, 13, 14, 15]);
}

/// At each exchange of the move another thread pins the page, or finds it gone and gets it where it is now: a pin is of the page
/// that the process has.
fn a_pin_that_comes_between_wins_or_sees_the_new_frame<L: Layout>() {
    for at in 0..6 {
        let machine = divided::<L>(128);
        let process = machine.populated(4, 10);
        let mut pins = Vec::new();
        let race = || {
            for page in 0..4 {
                let page = range(&process, A + page * PAGE, 1);
                pins.extend(pin_user_pages_fast_only(&process, Write, page, PinFlags::empty(), runs(1)).ok());
            }
        };
        let (out, raced) = machine.at_exchange(at, race, || process.relocate(A, 4 * PAGE, Zone::Unmovable).unwrap());
        assert_eq!(raced, at < 4);
        assert_eq!(out.pages + out.pinned_pages, 4);
        assert_eq!(out.pinned_pages, if raced { 4 - at } else { 0 });
        assert_eq!(pins.len() as u64, out.pinned_pages);
        let frames = frames(&machine, &process, 4);
        assert!(pins.iter().all(|pin| frames.contains(&pin.runs()[0].first())));
        assert_eq!(bytes(&machine, &process, 4), [10, 11, 12, 13]);
    }
}

/// Until the flush is acknowledged other CPUs write by their translations; nobody pins meanwhile.
fn a_write_by_a_stale_translation_goes_with_the_page<L: Layout>() {
    let machine = divided::<L>(64);
    let process = machine.populated(1, 10);
    let race = || {
        machine.store(0, &process, A, 66, 1).unwrap();
        let pin = pin_user_pages_fast_only(&process, Write, range(&process, A, 1), PinFlags::empty(), runs(1));
        assert_eq!(pin.err(), Some(PinError::WouldFault));
    };
    machine.before_acknowledgement(race, || assert_eq!(process.relocate(A, PAGE, Zone::Unmovable), moved(1, 0, 0)));
    assert_eq!(machine.get(&process, A), 66);
}

/// What parent and child share has two entries, and a frame that a slot remembers two holders.
fn what_is_shared_or_elsewhere_stays<L: Layout>() {
    let machine = divided::<L>(128);
    let parent = machine.populated(3, 10);
    let child = parent.fork().unwrap();
    machine.put(&child, A, 20);
    assert_eq!(child.relocate(A, 3 * PAGE, Zone::Unmovable), moved(1, 0, 2));
    assert_eq!(parent.relocate(A, PAGE, Zone::Unmovable), moved(1, 0, 0), "not exclusive, and nobody else's");
    drop(child);
    assert_eq!(parent.relocate(A, 3 * PAGE, Zone::Unmovable), moved(3, 0, 0));
    machine.put(&parent, A, 11);
    assert_eq!(bytes(&machine, &parent, 3), [11, 11, 12]);
    assert_eq!(parent.swap_out(A, 2 * PAGE).unwrap().pages, 2);
    let before = machine.slots().holders();
    assert_eq!(parent.relocate(A, 3 * PAGE, Zone::Movable), moved(1, 0, 0));
    assert_eq!(machine.slots().holders(), before);
    let other = parent.fork().unwrap();
    assert_eq!(machine.get(&parent, A), 11, "brought, and the slot has it still");
    assert_eq!(parent.relocate(A, PAGE, Zone::Movable), moved(0, 0, 1));
    assert_eq!(bytes(&machine, &other, 3), [11, 11, 12]);
    machine.audit(&[&parent, &other], &Default::default());
}

/// Large leaves, the zero frame, pages of objects and those without rights are left alone; a copy of an object's page is private memory.
fn what_is_no_private_base_page_is_left_alone<L: Layout>() {
    let machine = divided::<L>(4096);
    machine.shelf().add(ObjectId(3), 4);
    let process = machine.process();
    let large = LeafSize::Size2MiB;
    process.map(LARGE, large.bytes(), RW).unwrap();
    machine.install(&process, LARGE, large, machine.block(large), 0x67);
    process.map(A, 3 * PAGE, RW).unwrap();
    assert_eq!(machine.get(&process, A), 0);
    machine.put(&process, A + PAGE, 9);
    process.protect(A + PAGE, PAGE, Rights::empty()).unwrap();
    assert_eq!(process.relocate(LARGE, large.bytes(), Zone::Unmovable), moved(0, 0, 0));
    assert_eq!(process.relocate(A, 3 * PAGE, Zone::Unmovable), moved(0, 0, 0));
    process.map_object(A + 8 * PAGE, 4 * PAGE, ObjectId(3), 0, Sharing::Private, RW).unwrap();
    assert_ne!(machine.get(&process, A + 8 * PAGE), 0);
    machine.put(&process, A + 9 * PAGE, 7);
    assert_eq!(process.relocate(A + 8 * PAGE, 4 * PAGE, Zone::Unmovable), moved(1, 0, 0));
    assert_eq!(machine.get(&process, A + 9 * PAGE), 7);
    process.map_object(A + 16 * PAGE, 4 * PAGE, ObjectId(3), 0, Sharing::Shared, RW).unwrap();
    machine.put(&process, A + 16 * PAGE, 7);
    assert_eq!(process.relocate(A + 16 * PAGE, 4 * PAGE, Zone::Unmovable), moved(0, 0, 0));
    for (start, length) in [(A + 1, PAGE), (A, 5), (1 << 47, PAGE), (u64::MAX - 4095, PAGE), (A, u64::MAX)] {
        assert!(matches!(process.relocate(start, length, Zone::Movable), Err(SpaceError::Range(_))), "{start:#x}");
    }
    drop(process);
    machine.clear_shelf();
}

/// Each allocation fails once, and then all: what has moved has, and the rest is as it was.
fn without_memory_pages_stay<L: Layout>() {
    const PAGES: u64 = 40;
    let machine = divided::<L>(256);
    let process = machine.populated(PAGES, 10);
    for failing in 0..=PAGES {
        machine.memory().fail_once(Some(failing));
        let out = process.relocate(A, PAGES * PAGE, Zone::Unmovable);
        machine.memory().fail_once(None);
        // Of up to 32 at a time those before it go, and it is tried again, unless it is the first.
        let expected = match failing {
            0 => Err(SpaceError::NoMemory),
            32 => moved(32, 0, 0),
            _ => moved(PAGES, 0, 0),
        };
        assert_eq!(out, expected);
        assert_eq!(bytes(&machine, &process, PAGES), (10..10 + PAGES as u8).collect::<Vec<_>>());
    }
    for allowed in 0..PAGES {
        machine.memory().allow(Some(allowed));
        let out = process.relocate(A, PAGES * PAGE, Zone::Movable);
        machine.memory().allow(None);
        assert_eq!(out, if allowed == 0 { Err(SpaceError::NoMemory) } else { moved(allowed, 0, 0) });
        machine.audit(&[&process], &Default::default());
    }
    assert_eq!(bytes(&machine, &process, PAGES), (10..10 + PAGES as u8).collect::<Vec<_>>());
}

/// Each of two pages is claimed by a write when its entry is about to be owned, and written.
fn a_page_that_another_cpu_changes_is_counted<L: Layout>() {
    for at in 0..2 {
        let machine = divided::<L>(64);
        let process = machine.populated(2, 10);
        machine.put(&process, A + PAGE, 11);
        drop(process.fork().unwrap());
        let race = || machine.put(&process, A + at * PAGE, 9);
        let (out, raced) = machine.at_exchange(at, race, || process.relocate(A, 2 * PAGE, Zone::Unmovable));
        // The second is looked at again, since the run ends before it.
        assert!(raced && out == if at == 0 { moved(1, 0, 1) } else { moved(2, 0, 0) }, "{out:?}");
        assert_eq!(bytes(&machine, &process, 2), if at == 0 { [9, 11] } else { [10, 9] });
        machine.audit(&[&process], &Default::default());
    }
}

/// Between the look at a page and its entry being owned somebody takes a reference: the frame stays.
fn a_reference_that_comes_between_keeps_the_frame<L: Layout>() {
    let machine = divided::<L>(64);
    let process = machine.populated(2, 10);
    let before = frames(&machine, &process, 2);
    let mut got = None;
    let page = range(&process, A, 1);
    let race = || got = get_user_pages_fast_only(&process, Read, page, PinFlags::empty(), runs(1)).ok();
    let (out, raced) = machine.at_exchange(0, race, || process.relocate(A, 2 * PAGE, Zone::Unmovable));
    assert!(raced && got.is_some());
    assert_eq!(out, moved(1, 0, 1));
    let after = frames(&machine, &process, 2);
    assert_eq!((after[0] == before[0], after[1] == before[1]), (true, false));
    drop(got);
    assert_eq!(bytes(&machine, &process, 2), [10, 11]);
}

/// Not the crate's doing, but a kernel can: a base leaf of a frame that heads a block.
fn the_head_of_a_block_stays<L: Layout>() {
    let machine = divided::<L>(4096);
    let process = machine.process();
    process.map(A, PAGE, RW).unwrap();
    machine.install(&process, A, LeafSize::Size4KiB, machine.block(LeafSize::Size2MiB), 7);
    assert_eq!(process.relocate(A, PAGE, Zone::Unmovable), moved(0, 0, 1));
}

every_layout!(
    a_reference_that_comes_between_keeps_the_frame,
    the_head_of_a_block_stays,
    a_page_that_moves_keeps_everything_but_its_frame,
    what_is_pinned_or_held_stays,
    a_pin_that_comes_between_wins_or_sees_the_new_frame,
    a_write_by_a_stale_translation_goes_with_the_page,
    what_is_shared_or_elsewhere_stays,
    what_is_no_private_base_page_is_left_alone,
    without_memory_pages_stay,
    a_page_that_another_cpu_changes_is_counted,
);
