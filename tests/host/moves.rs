//! Pages that move to other addresses: with all that they are, or not at all.

use std::cell::Cell;

use pagepin::fault::FaultError;
use pagepin::frame::{Layout, Wide};
use pagepin::paging::Tables;
use pagepin::pin::{PhysRun, PinFlags, Read, Write, pin_user_pages};
use pagepin::space::{Resident, Sharing, SpaceError};
use pagepin::{AddressSpace, LeafSize, MapOptions, MemoryType, ObjectId, PageAddr, Pfn, Rights, VmaFlags};

use crate::machine::{A, FAR, LARGE, Machine, NONE, PAGE, Process, R, RW, first_byte, range};

const FILE: ObjectId = ObjectId(3);
/// Where pages go: in its table, they lie elsewhere than at [`A`], and reach over its end.
const TO: u64 = FAR + 0x3f_e000;

/// Every state that a page can be in, from [`A`] on: what it holds, if anything.
fn furnished<L: Layout>(machine: &Machine<L>) -> (Process<'_, L>, Process<'_, L>, [u8; 7]) {
    let process = machine.populated(7, 10);
    assert_eq!(process.swap_out(A + PAGE, PAGE).unwrap().pages, 1);
    let child = process.fork().unwrap();
    machine.put(&process, A, 20);
    process.protect(A + 3 * PAGE, PAGE, R).unwrap();
    process.discard(A + 4 * PAGE, 2 * PAGE).unwrap();
    assert_eq!(machine.get(&process, A + 4 * PAGE), 0, "the zero frame");
    process.protect(A + 6 * PAGE, PAGE, NONE).unwrap();
    (process, child, [20, 11, 12, 13, 0, 0, 16])
}

/// Contents, rights, tokens and counts go along, and nothing is left behind.
fn pages_in_every_state_move<L: Layout>() {
    let machine = Machine::<L>::new(96);
    let (process, child, bytes) = furnished(&machine);
    let before = process.resident().unwrap();
    let vmas: Vec<_> = process.vmas().map(|vma| vma.unwrap()).collect();
    process.move_pages(A, 7 * PAGE, TO).unwrap();
    let after = process.resident().unwrap();
    // Two tables of the lowest level, since it reaches over an end.
    assert_eq!(after, Resident { tables: before.tables + 1, ..before });
    let moved: Vec<_> = process.vmas().map(|vma| vma.unwrap()).collect();
    let shape = |vma: &pagepin::Vma| (vma.pages(), vma.rights(), vma.max_rights());
    assert!(vmas.iter().map(shape).eq(moved.iter().map(shape)) && moved[0].start().address() == TO);
    assert_eq!(machine.load(0, &process, A, 1), Err(FaultError::NoVma));
    machine.audit(&[&process, &child], &Default::default());
    assert!(
        machine.load(0, &process, TO + 6 * PAGE, 1).is_err()
            && machine.store(0, &process, TO + 3 * PAGE, 1, 1).is_err()
    );
    process.protect(TO + 6 * PAGE, PAGE, R).unwrap();
    for (page, byte) in (0..).zip(bytes) {
        assert_eq!(machine.get(&process, TO + page * PAGE), byte);
    }
    assert_eq!([1, 2].map(|page| machine.get(&child, A + page * PAGE)), [11, 12]);
    machine.put(&process, TO + 2 * PAGE, 99);
    assert_eq!(machine.get(&child, A + 2 * PAGE), 12, "copied on write as before");
    process.map(A, 7 * PAGE, RW).unwrap();
    assert_eq!(machine.get(&process, A), 0);
    process.move_pages(TO, 7 * PAGE, FAR + (1 << 39)).unwrap();
    machine.audit(&[&process, &child], &Default::default());
}

/// A part of a VMA leaves the rest, and what lands beside its like is joined with it. An upper neighbour is the old place.
fn a_part_moves_and_joins<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    let options = MapOptions::new(RW).key(3).data(5).flags(VmaFlags::DONT_FORK);
    process.map(A, 4 * PAGE, options).unwrap();
    machine.put_pages(&process, A, 4, 1);
    process.move_pages(A + PAGE, 2 * PAGE, A + 4 * PAGE).unwrap();
    let vmas: Vec<_> = process.vmas().map(|vma| vma.unwrap()).collect();
    assert_eq!(
        vmas.iter().map(|vma| (vma.start().address(), vma.pages())).collect::<Vec<_>>(),
        [(A, 1), (A + 3 * PAGE, 3)]
    );
    assert!(vmas.iter().all(|vma| (vma.key(), vma.data(), vma.flags()) == (3, 5, VmaFlags::DONT_FORK)));
    assert_eq!([0, 3, 4, 5].map(|page| machine.get(&process, A + page * PAGE)), [1, 4, 2, 3]);
    process.move_pages(A + 4 * PAGE, 2 * PAGE, A + PAGE).unwrap();
    assert_eq!(process.vmas().count(), 1);
    assert_eq!([0, 1, 2, 3].map(|page| machine.get(&process, A + page * PAGE)), [1, 2, 3, 4]);
    machine.audit(&[&process], &Default::default());
}

/// Pins and gets are of the page where it is now: what a device writes is read there, and fork copies it.
fn pins_follow<L: Layout>() {
    let machine = Machine::<L>::new(64);
    for flags in [VmaFlags::empty(), VmaFlags::REFUSE_UNMAP_PINNED, VmaFlags::DEFER_UNMAP_PINNED] {
        let process = machine.process();
        process.map(A, 2 * PAGE, MapOptions::new(RW).flags(flags)).unwrap();
        machine.put_pages(&process, A, 2, 1);
        let pins = machine.pin::<Write>(&process, A, 1).unwrap();
        let frame = pins.runs()[0].first();
        process.move_pages(A, 2 * PAGE, TO).unwrap();
        assert_eq!(machine.frame_at(&process, TO).0, frame);
        machine.dma_write(frame.address(), &[77]);
        assert_eq!(machine.get(&process, TO), 77);
        let child = process.fork().unwrap();
        machine.put(&process, TO, 78);
        assert_eq!((machine.dma_read(frame.address()), machine.get(&child, TO)), (78, 77));
        drop((pins, child));
        machine.audit(&[&process], &Default::default());
    }
}

/// INV-8: when it returns no CPU uses the old addresses; and until then what is written there is not lost.
fn the_old_addresses_are_gone_on_every_cpu<L: Layout>() {
    let machine = Machine::<L>::new(64);
    // The third page keeps the table, which would be flushed if it went.
    let process = machine.populated(3, 1);
    (0..4).for_each(|cpu| assert_eq!(machine.store(cpu, &process, A + PAGE, 9, 1), Ok(())));
    machine.before_acknowledgement(
        || machine.store(2, &process, A + PAGE, 66, 1).unwrap(),
        || process.move_pages(A, 2 * PAGE, TO).unwrap(),
    );
    assert_eq!(machine.get(&process, TO + PAGE), 66);
    for cpu in 0..4 {
        assert_eq!(machine.load(cpu, &process, A + PAGE, 1), Err(FaultError::NoVma));
        assert_eq!(machine.store(cpu, &process, A + PAGE, 1, 1), Err(FaultError::NoVma));
    }
}

/// Precise errors, nothing changed.
fn what_cannot_move_stays<L: Layout>() {
    let machine = Machine::<L>::new(96);
    let (process, child, _) = furnished(&machine);
    process.map(FAR, PAGE, RW).unwrap();
    let defer = MapOptions::new(RW).flags(VmaFlags::DEFER_UNMAP_PINNED);
    process.map(A + 7 * PAGE, PAGE, defer).unwrap();
    let pins = machine.pin::<Read>(&process, A + 7 * PAGE, 1).unwrap();
    process.unmap(A + 7 * PAGE, PAGE).unwrap();
    let before = machine.image(&[&process, &child]);
    let refused = |start, pages: u64, to, why| {
        assert_eq!(process.move_pages(start, pages * PAGE, to), Err(why));
        before.assert_same(&machine.image(&[&process, &child]), format!("{why:?}"));
    };
    for to in [A, A + PAGE, A + 6 * PAGE, A - 6 * PAGE] {
        refused(A, 7, to, SpaceError::Overlap);
    }
    refused(A, 7, FAR - 6 * PAGE, SpaceError::Overlap);
    refused(A, 7, A + 7 * PAGE, SpaceError::Overlap);
    refused(A, 8, TO, SpaceError::NoVma);
    refused(A - PAGE, 3, TO, SpaceError::NoVma);
    for (start, length, to) in [(A + 1, PAGE, TO), (A, PAGE + 1, TO), (A, PAGE, TO + 1), (A, 0, TO), (A, PAGE, 1 << 47)]
    {
        assert!(matches!(process.move_pages(start, length, to), Err(SpaceError::Range(_))));
    }
    assert!(matches!(process.move_pages(A, !0xfff, TO), Err(SpaceError::Range(_))));
    before.assert_same(&machine.image(&[&process, &child]), "ranges");
    drop(pins);
}

/// INV-14: each allocation fails once.
fn a_move_without_memory_changes_nothing<L: Layout>() {
    let machine = Machine::<L>::new(96);
    let (process, child, _) = furnished(&machine);
    let before = machine.image(&[&process, &child]);
    let needed = (0..).find(|allowed| {
        machine.memory().allow(Some(*allowed));
        let result = process.move_pages(A, 7 * PAGE, TO);
        machine.memory().allow(None);
        if result.is_err() {
            assert_eq!(result, Err(SpaceError::NoMemory));
            before.assert_same(&machine.image(&[&process, &child]), format!("after {allowed} allocations"));
        }
        result.is_ok()
    });
    assert_eq!(needed, Some(4), "two upper tables, and two of leaves");
}

/// Large leaves go to places for large leaves; an empty table there makes way.
fn large_leaves_move_as_a_whole<L: Layout>() {
    let machine = Machine::<L>::new(2048);
    let (process, size) = (machine.process(), LeafSize::Size2MiB);
    let bytes = size.bytes();
    process.map(LARGE, bytes + PAGE, RW).unwrap();
    let block = machine.block(size);
    machine.install(&process, LARGE, size, block, 7);
    machine.put(&process, LARGE + 7 * PAGE, 1);
    machine.put(&process, LARGE + bytes, 2);
    // A table without entries is left at the new place.
    process.map(FAR, bytes, RW).unwrap();
    machine.put(&process, FAR + PAGE, 1);
    process.discard(FAR, bytes).unwrap();
    process.map(FAR + bytes, PAGE, RW).unwrap();
    process.unmap(FAR + bytes, PAGE).unwrap();
    let pins = machine.pin::<Write>(&process, LARGE, 1).unwrap();
    process.protect(FAR, bytes, R).unwrap();
    assert_eq!(process.move_pages(LARGE, bytes + PAGE, FAR), Err(SpaceError::Overlap));
    process.move_pages(FAR, bytes, FAR + 8 * bytes).unwrap();
    process.move_pages(LARGE, bytes + PAGE, FAR).unwrap();
    assert_eq!(machine.frame_at(&process, FAR).0, block);
    assert_eq!((machine.get(&process, FAR + 7 * PAGE), machine.get(&process, FAR + bytes)), (1, 2));
    drop(pins);
    machine.audit(&[&process], &Default::default());
}

/// Registers stay where they are on the bus, and keep their type.
fn foreign_memory_moves<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    // SAFETY: registers of the emulated machine.
    unsafe { process.map_foreign(A, 2 * PAGE, Pfn::new(0xfee0), MemoryType::UNCACHED, RW) }.unwrap();
    let bits = machine.leaf(&process, A + PAGE).unwrap().bits;
    process.move_pages(A, 2 * PAGE, TO).unwrap();
    assert_eq!(machine.leaf(&process, TO + PAGE).unwrap().bits, bits);
}

/// The same pages of the object are shown, and it is asked before the next write; a private VMA keeps its copies.
fn objects_are_shown_at_the_new_place<L: Layout>() {
    let machine = Machine::<L>::new(64);
    machine.shelf().add(FILE, 8);
    let process = machine.process();
    process.map_object(A, 4 * PAGE, FILE, 2, Sharing::Shared, RW).unwrap();
    process.map_object(A + 4 * PAGE, 4 * PAGE, FILE, 2, Sharing::Private, RW).unwrap();
    machine.put(&process, A, 5);
    machine.put(&process, A + 4 * PAGE, 6);
    assert_eq!([1, 5].map(|page| machine.get(&process, A + page * PAGE)), [first_byte(3); 2]);
    let pins = machine.pin::<Write>(&process, A + PAGE, 1).unwrap();
    let (before, asked) = (process.resident().unwrap(), machine.shelf().writes());
    process.move_pages(A + PAGE, 7 * PAGE, TO).unwrap();
    process.move_pages(A, PAGE, TO - PAGE).unwrap();
    assert_eq!(process.resident().unwrap().object, before.object);
    assert_eq!(machine.shelf().mapped_pages(FILE), 8);
    assert_eq!(process.vmas().count(), 2, "joined: the pages follow one another in the object");
    assert!(machine.word(machine.shelf().frame(FILE, 2).unwrap()).snapshot().dirty);
    assert_eq!([0, 1, 2, 4, 5].map(|page| machine.get(&process, TO - PAGE + page * PAGE)), [5, 0x83, 0x84, 6, 0x83]);
    machine.dma_write(pins.runs()[0].first().address(), &[9]);
    assert_eq!(machine.get(&process, TO), 9);
    machine.put(&process, TO - PAGE, 7);
    assert_eq!(machine.shelf().writes(), asked + 1);
    drop(pins);
    // What was given up in the middle of a pass over all that shows it does not arrive.
    machine.cut(FILE, 3);
    process.move_pages(TO - PAGE, 8 * PAGE, A).unwrap();
    assert!(machine.leaf(&process, A + PAGE).is_none() && machine.leaf(&process, A + 5 * PAGE).is_none());
    assert_eq!(machine.load(0, &process, A + PAGE, 1), Err(FaultError::PastEnd));
    assert_eq!([0, 4].map(|page| machine.get(&process, A + page * PAGE)), [7, 6]);
    drop(process);
    machine.clear_shelf();
}

/// Where tables begin, and how many pages there are.
const START: u64 = 1 << 40;
const PLACES: u64 = 18 * 512;
const NEW: u64 = (2 << 40) + 5 * PAGE;

/// [`PLACES`] pages in one VMA.
fn dense(machine: &Machine<Wide>) -> Process<'_, Wide> {
    let process = machine.process();
    process.map(START, PLACES * PAGE, RW).unwrap();
    let runs = vec![PhysRun::default(); PLACES as usize];
    drop(pin_user_pages(&process, Write, range(&process, START, PLACES * PAGE), PinFlags::empty(), runs).unwrap());
    (0..PLACES).step_by(500).for_each(|page| machine.put(&process, START + page * PAGE, (page / 500) as u8));
    process
}

#[track_caller]
fn holds(machine: &Machine<Wide>, process: &Process<'_, Wide>, start: u64) {
    for page in (0..PLACES).step_by(500) {
        assert_eq!(machine.get(process, start + page * PAGE), (page / 500) as u8);
    }
}

#[test]
fn a_long_move_leaves_the_lock_between_steps_and_reserves_both_places() {
    let machine = Machine::new(32 * 1024);
    let process = dense(&machine);
    let child = Cell::new(None);
    let meanwhile = || {
        assert_eq!(process.map(NEW + (PLACES - 1) * PAGE, PAGE, RW), Err(SpaceError::Overlap));
        assert_eq!(process.map(START, PAGE, RW), Err(SpaceError::Overlap));
        assert_eq!(process.move_pages(START, PLACES * PAGE, FAR << 2), Err(SpaceError::NoVma));
        assert_eq!(machine.load(1, &process, START, 1), Err(FaultError::NoVma));
        child.set(Some(process.fork().unwrap()));
    };
    let move_it = || process.move_pages(START, PLACES * PAGE, NEW);
    let (_, sections) = machine.longest_section(|| {
        // Three passes that make tables, the last with the first step.
        let (moved, reached) = machine.between_sections(2, meanwhile, move_it);
        assert!(moved == Ok(()) && reached);
    });
    let flushes = machine.flushes();
    assert!(sections > 4, "{sections} sections");
    holds(&machine, &process, NEW);
    let child = child.take().expect("a child of the middle");
    let parts: Vec<_> = child.vmas().map(|vma| vma.unwrap()).map(|vma| (vma.start().address(), vma.pages())).collect();
    let [(_, rest), (NEW, moved)] = parts[..] else { panic!("{parts:x?}") };
    assert_eq!(rest + moved, PLACES);
    for page in (0..PLACES).step_by(500) {
        let address = if page < moved { NEW + page * PAGE } else { START + page * PAGE };
        assert_eq!(machine.get(&child, address), (page / 500) as u8);
    }
    let (most, _) = machine.longest_section(|| process.move_pages(NEW, PLACES * PAGE, START).unwrap());
    assert!(most.flushes <= 2 && most.freed == 0 && most.loads < 3 * PLACES, "{most:?}");
    assert!(machine.flushes() - flushes < 16);
    holds(&machine, &process, START);
    machine.audit(&[&process, &child], &Default::default());
}

/// Somebody unmaps some of it between two steps: what has moved goes back.
#[test]
fn a_move_that_is_disturbed_goes_back() {
    let machine = Machine::new(16 * 1024);
    let process = dense(&machine);
    let last = START + (PLACES - 1) * PAGE;
    let tables = process.resident().unwrap().tables;
    let disturb = || _ = process.unmap(last, PAGE).unwrap();
    let move_it = || process.move_pages(START, PLACES * PAGE, NEW);
    assert_eq!(machine.between_sections(2, disturb, move_it), (Err(SpaceError::NoVma), true));
    holds(&machine, &process, START);
    assert_eq!(process.resident().unwrap(), Resident { exclusive: PLACES - 1, tables, ..Resident::default() });
    let vmas: Vec<_> = process.vmas().map(|vma| vma.unwrap()).collect();
    assert_eq!((vmas.len(), vmas[0].start(), vmas[0].pages()), (1, PageAddr::containing(START), PLACES - 1));
    process.map(NEW, PLACES * PAGE, RW).unwrap();
    process.map(last, PAGE, RW).unwrap();
    machine.audit(&[&process], &Default::default());
}

/// Many VMAs, whose edges all move.
#[test]
fn many_vmas_move() {
    let machine = Machine::<Wide>::new(64);
    let process = machine.process();
    let rights = |page| if page % 2 == 0 { RW } else { Rights::READ };
    (0..10_000).for_each(|page| process.map(START + page * PAGE, PAGE, rights(page)).unwrap());
    machine.put(&process, START + 9_000 * PAGE, 4);
    process.move_pages(START, 10_000 * PAGE, NEW).unwrap();
    assert_eq!(process.vmas().count(), 10_000);
    assert_eq!(machine.get(&process, NEW + 9_000 * PAGE), 4);
    let tail = 5_000 * PAGE;
    process.move_pages(NEW + tail, tail, START).unwrap();
    process.protect(NEW, tail, RW).unwrap();
    assert_eq!(process.vmas().count(), 5_001);
}

every_layout!(
    pages_in_every_state_move,
    a_part_moves_and_joins,
    pins_follow,
    the_old_addresses_are_gone_on_every_cpu,
    what_cannot_move_stays,
    a_move_without_memory_changes_nothing,
    large_leaves_move_as_a_whole,
    foreign_memory_moves,
    objects_are_shown_at_the_new_place,
);

/// Right above and right below the old place.
#[test]
fn pages_move_to_the_addresses_next_to_theirs() {
    let machine = Machine::<Wide>::new(64);
    let process = machine.populated(2, 10);
    for (from, to) in [(A, A + 2 * PAGE), (A + 2 * PAGE, A)] {
        process.move_pages(from, 2 * PAGE, to).unwrap();
        assert_eq!([0, 1].map(|page| machine.get(&process, to + page * PAGE)), [10, 11]);
    }
    machine.audit(&[&process], &Default::default());
}

/// Where a large leaf is to go, a table without entries makes way, whoever left it there.
#[test]
fn an_empty_table_makes_way_for_a_large_leaf() {
    let machine = Machine::<Wide>::new(2048);
    let (process, size) = (machine.process(), LeafSize::Size2MiB);
    process.map(LARGE, size.bytes(), RW).unwrap();
    let block = machine.block(size);
    machine.install(&process, LARGE, size, block, 7);
    // SAFETY: one thread, in no operation; the address lies in the user half.
    unsafe { Tables::under_mm_lock(process.mm()).place(PageAddr::containing(FAR), LeafSize::Size4KiB) }.unwrap();
    process.move_pages(LARGE, size.bytes(), FAR).unwrap();
    assert_eq!(machine.frame_at(&process, FAR).0, block);
    machine.audit(&[&process], &Default::default());
}

/// Tables without entries are not made anew at the other place.
#[test]
fn nothing_takes_no_tables_along() {
    let machine = Machine::<Wide>::new(64);
    let process = machine.populated(2, 10);
    process.discard(A, 2 * PAGE).unwrap();
    process.move_pages(A, 2 * PAGE, TO).unwrap();
    assert_eq!(process.resident().unwrap(), Resident { tables: 1, ..Resident::default() });
}
