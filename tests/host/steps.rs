//! Long operations leave the mm lock between steps of bounded length, and what others see meanwhile.

use std::cell::Cell;

use pagepin::fault::FaultError;
use pagepin::frame::Wide;
use pagepin::pin::{PhysRun, PinFlags, Read, Write, pin_user_pages};
use pagepin::space::{Advice, Placement, Resident, SpaceError, Unmapped};
use pagepin::{LeafSize, MapOptions, MemoryType, PageAddr, Pfn, VmaFlags};

use crate::machine::{A, LARGE, Machine, NONE, PAGE, Process, R, RW, range};

/// Where tables begin.
const START: u64 = 1 << 40;
const TABLE: u64 = LeafSize::Size2MiB.bytes();

type M = Machine<Wide>;

fn pages(pages: u64) -> Unmapped {
    Unmapped { pages, ..Unmapped::default() }
}

/// A process with `pages` pages from [`START`] on, `stride` bytes apart, in one VMA, and a page behind it which keeps the upper
/// tables.
fn spread(machine: &M, pages: u64, stride: u64) -> (Process<'_, Wide>, u64) {
    let (process, length) = (machine.process(), pages * stride);
    process.map(START, length, RW).unwrap();
    process.map(START + length, PAGE, RW).unwrap();
    machine.put(&process, START + length, 1);
    (0..pages).for_each(|page| machine.put(&process, START + page * stride, page as u8));
    (process, length)
}

/// The entries that a step may look at, in a table or two of each level and in those that it is about. 16 tables of leaves, each
/// in four passes at most.
const MOST_LOADS: u64 = 64 * 512;

#[test]
fn unmap_takes_some_tables_at_a_time_and_frees_them_without_the_lock() {
    let machine = M::new(1024);
    let (process, length) = spread(&machine, 200, TABLE);
    let (most, sections) = machine.longest_section(|| {
        assert_eq!(process.unmap(START, length), Ok(pages(200)));
    });
    assert!(sections >= 200 / 32, "{sections} sections");
    assert_eq!((most.freed, most.flushes), (0, 1));
    assert!(most.loads < MOST_LOADS, "{most:?}");
    assert_eq!(machine.get(&process, START + length), 1);
}

#[test]
fn the_end_of_an_mm_needs_no_lock() {
    let machine = M::new(1024);
    let (process, _) = spread(&machine, 200, TABLE);
    let (_, sections) = machine.longest_section(|| drop(process));
    assert_eq!(sections, 0);
}

/// A stretch that is as long as it can be, with pages far apart: nearly all tables are there for one page.
#[test]
fn a_long_range_is_unmapped_in_a_few_steps() {
    let machine = M::new(2048);
    let (process, length) = spread(&machine, 300, 1 << 32);
    let (most, sections) = machine.longest_section(|| {
        assert_eq!(process.unmap(START, length), Ok(pages(300)));
    });
    assert_eq!(most.freed, 0);
    assert!(most.loads < 4 * MOST_LOADS && sections < 16, "{most:?}, {sections} sections");
}

#[test]
fn discard_protect_and_advise_leave_the_lock_between_steps() {
    let machine = M::new(16 * 1024);
    let tables = 20;
    let (process, length) = spread(&machine, tables * 512, PAGE);
    let places = tables * 512;
    let (most, sections) = machine.longest_section(|| process.protect(START, length, R).unwrap());
    assert!(sections > 2 && most.loads < places && most.flushes == 1, "{most:?}, {sections} sections");
    assert!(machine.store(1, &process, START + 7 * PAGE, 1, 1).is_err());
    assert!(machine.store(1, &process, START + length - PAGE, 1, 1).is_err());
    let (most, sections) = machine.longest_section(|| {
        assert_eq!(process.discard(START, length), Ok(pages(places)));
    });
    assert!(sections > 2 && most.loads < 2 * places && most.freed < places / 2 && most.flushes == 1, "{most:?}");
    assert_eq!(process.vmas().count(), 2, "joined again");
}

/// Nothing of a VMA is touched but what was named.
#[test]
fn a_part_in_the_middle_of_a_vma_is_discarded() {
    let machine = M::new(64);
    let process = machine.populated(4, 1);
    assert_eq!(process.discard(A + PAGE, PAGE), Ok(pages(1)));
    assert_eq!(process.discard(A, PAGE), Ok(pages(1)));
    assert_eq!([0, 1, 2, 3].map(|page| machine.get(&process, A + page * PAGE)), [0, 0, 3, 4]);
}

/// As many VMAs as there can be, each with a page of its own VMA between two holes.
#[test]
fn many_vmas_are_changed_some_at_a_time() {
    let machine = M::new(64);
    let process = machine.process();
    let (vmas, each) = (60_000, 2 * PAGE);
    (0..vmas).for_each(|vma| process.map(START + vma * each, each, if vma % 2 == 0 { RW } else { R }).unwrap());
    machine.put(&process, START, 1);
    let length = vmas * each;
    let (_, sections) = machine.longest_section(|| process.advise(START, length, Advice::DontFork).unwrap());
    assert!(sections > vmas / 8192, "{sections} sections");
    let (_, sections) = machine.longest_section(|| process.protect(START, length, RW).unwrap());
    assert!(sections > vmas / 8192, "{sections} sections");
    assert_eq!(process.vmas().count(), 1, "all alike");
    assert_eq!(process.unmap(START, length), Ok(pages(1)));
    assert_eq!(process.vmas().count(), 0);
}

/// Between two steps of an unmap nobody finds its VMAs, and nobody maps anything in their place.
#[test]
fn a_range_that_is_half_unmapped_is_reserved() {
    let machine = M::new(1024);
    let (process, length) = spread(&machine, 100, TABLE);
    let last = START + 99 * TABLE;
    let child = Cell::new(None);
    let meanwhile = || {
        for address in [START, START + length / 2, last] {
            assert_eq!(process.map(address, PAGE, RW), Err(SpaceError::Overlap));
            assert!(process.vma_at(address).unwrap().is_none());
        }
        // What is not gone yet is used by its entry; what has gone is not there any more.
        assert_eq!(machine.load(1, &process, last, 1), Ok(99));
        assert_eq!(machine.load(1, &process, START, 1), Err(FaultError::NoVma));
        assert_eq!(process.protect(START, length, NONE), Err(SpaceError::NoVma));
        assert_eq!(process.discard(START, length), Ok(pages(0)));
        let placed = process.map_anywhere(length, Placement::new().near(START), RW).unwrap();
        assert!(placed.start() >= START + length);
        process.unmap(placed.start(), length).unwrap();
        child.set(Some(process.fork().unwrap()));
    };
    let unmapped = machine.during_grace_period(meanwhile, || process.unmap(START, length));
    assert_eq!(unmapped, Ok(pages(100)));
    let child = child.take().unwrap();
    assert_eq!(machine.load(0, &child, last, 1), Err(FaultError::NoVma), "a child has none of it");
    assert_eq!(process.map(START, length, RW), Ok(()));
    assert_eq!(machine.get(&process, last), 0);
}

/// Two that unmap the same at once: both return when all of it has gone.
#[test]
fn unmaps_of_one_range_side_by_side() {
    let machine = M::new(1024);
    let (process, length) = spread(&machine, 100, TABLE);
    let other = Cell::new(0);
    let meanwhile = || {
        let half = 64 * TABLE;
        other.set(process.unmap(START + length - half, half).unwrap().pages);
        assert_eq!(process.map(START + length - PAGE, PAGE, RW), Err(SpaceError::Overlap), "the first is not done");
    };
    let unmapped = machine.during_grace_period(meanwhile, || process.unmap(START, length).unwrap());
    assert_eq!(unmapped.pages + other.get(), 100);
    assert_eq!(other.get(), 64);
    process.map(START, length, RW).unwrap();
}

/// 20 tables of pages, in one VMA with these flags.
fn dense(machine: &M, flags: VmaFlags) -> Process<'_, Wide> {
    let process = machine.process();
    process.map(START, PLACES * PAGE, MapOptions::new(RW).flags(flags)).unwrap();
    process.map(START + PLACES * PAGE, PAGE, RW).unwrap();
    machine.put(&process, START + PLACES * PAGE, 1);
    fill(&process, PLACES);
    process
}

const PLACES: u64 = 18 * 512;

/// Faults pages in, by a pin of all of them.
fn fill(process: &Process<'_, Wide>, pages: u64) {
    let runs = vec![PhysRun::default(); pages as usize];
    let pinned = pin_user_pages(process, Write, range(process, START, pages * PAGE), PinFlags::empty(), runs).unwrap();
    assert_eq!(pinned.pages(), pages);
}

/// Runs what visits [`PLACES`] places, some times; how many entries it looked at while it held the lock once, at most.
fn in_steps(machine: &M, what: &str, work: impl FnOnce()) -> u64 {
    let (most, sections) = machine.longest_section(work);
    assert!(sections > 2, "{what}: {sections} sections");
    assert!(most.loads < 2 * PLACES && most.freed < PLACES / 2, "{what}: {most:?}");
    most.loads
}

#[test]
fn policies_about_pins_leave_the_lock_between_steps() {
    let machine = M::new(16 * 1024);
    let last = START + (PLACES - 1) * PAGE;
    let process = dense(&machine, VmaFlags::REFUSE_UNMAP_PINNED | VmaFlags::REFUSE_PROTECT_PINNED);
    let pin = machine.pin::<Read>(&process, last, 1).unwrap();
    let pinned = SpaceError::Pinned(PageAddr::containing(last));
    _ = in_steps(&machine, "refused", || assert_eq!(process.unmap(START, PLACES * PAGE), Err(pinned)));
    _ = in_steps(&machine, "not discarded", || assert_eq!(process.discard(START, PLACES * PAGE), Err(pinned)));
    _ = in_steps(&machine, "not protected", || assert_eq!(process.protect(START, PLACES * PAGE, R), Err(pinned)));
    drop(pin);
    _ = in_steps(&machine, "not refused", || assert_eq!(process.unmap(START, PLACES * PAGE), Ok(pages(PLACES))));
}

#[test]
fn a_deferred_unmap_leaves_the_lock_between_steps() {
    let machine = M::new(16 * 1024);
    let last = START + (PLACES - 1) * PAGE;
    let process = dense(&machine, VmaFlags::DEFER_UNMAP_PINNED);
    let pin = machine.pin::<Read>(&process, last, 1).unwrap();
    let deferred = Unmapped { deferred_pages: PLACES, ..Unmapped::default() };
    _ = in_steps(&machine, "deferred", || assert_eq!(process.unmap(START, PLACES * PAGE), Ok(deferred)));
    assert!(machine.load(1, &process, START, 1).is_err() && machine.load(1, &process, last, 1).is_err());
    _ = in_steps(&machine, "deferred still", || assert_eq!(process.finish_deferred(), Ok(deferred)));
    drop(pin);
    _ = in_steps(&machine, "finished", || assert_eq!(process.finish_deferred(), Ok(pages(PLACES))));
    assert_eq!(process.map(START, PLACES * PAGE, RW), Ok(()));
}

/// While one thread defers an unmap, pages that wait can be pinned by their entries: nobody else completes it then.
#[test]
fn a_deferral_that_is_under_way_is_not_finished_by_another() {
    let machine = M::new(64);
    let process = machine.process();
    let defer = MapOptions::new(RW).flags(VmaFlags::DEFER_UNMAP_PINNED);
    process.map(A, PAGE, defer).unwrap();
    process.map(START, PAGE, RW).unwrap();
    process.map(START + TABLE, 2 * PAGE, defer).unwrap();
    [A, START, START + TABLE].into_iter().for_each(|address| machine.put(&process, address, 1));
    let pin = machine.pin::<Read>(&process, A, 1).unwrap();
    process.unmap(A, PAGE).unwrap();
    drop(pin);
    // The table of the first page goes while the others wait, and nobody has looked at their pins yet.
    let wait = Unmapped { deferred_pages: 1 + 2, ..Unmapped::default() };
    let meanwhile = || assert_eq!(process.finish_deferred(), Ok(wait));
    assert_eq!(machine.during_grace_period(meanwhile, || process.unmap(START, 2 * TABLE)), Ok(pages(2)));
    assert_eq!(process.finish_deferred(), Ok(pages(1)));
}

#[test]
fn a_look_at_everything_leaves_the_lock_between_steps() {
    let machine = M::new(16 * 1024);
    let process = machine.process();
    process.map(START, PLACES * PAGE, RW).unwrap();
    // Every other page: each is a line of its own.
    (0..PLACES).step_by(2).for_each(|page| machine.put(&process, START + page * PAGE, 1));
    let resident = Resident { exclusive: PLACES / 2, tables: 1 + 1 + 1 + PLACES / 512, ..Resident::default() };
    let looked = in_steps(&machine, "resident", || assert_eq!(process.resident(), Ok(resident)));
    assert!(looked < PLACES / 2 + PLACES / 4, "{looked} entries");
    let mut text = String::new();
    _ = in_steps(&machine, "dump", || text = process.dump().to_string());
    assert_eq!(text.lines().count() as u64, 2 + PLACES / 2);
}

/// 100 tables of leaves, each of which costs as much as if it was full.
#[test]
fn what_is_resident_is_counted_some_tables_at_a_time() {
    let machine = M::new(1024);
    let (process, _) = spread(&machine, 100, TABLE);
    let (most, sections) = machine.longest_section(|| assert_eq!(process.resident().unwrap().exclusive, 101));
    assert!(sections >= 100 * 512 / (8 * 512) && most.loads < MOST_LOADS, "{most:?}, {sections} sections");
}

/// Present or not, pinned or got, a slow acquisition leaves the lock after some hundred pages.
#[test]
fn slow_pins_leave_the_lock_between_steps() {
    let machine = M::new(16 * 1024);
    let process = machine.process();
    process.map(START, PLACES * PAGE, RW).unwrap();
    for what in ["untouched", "present"] {
        let (most, sections) = machine.longest_section(|| fill(&process, PLACES));
        assert!(sections >= PLACES / 2048 && most.loads < 2 * PLACES, "{what}: {most:?}, {sections} sections");
    }
}

#[test]
fn foreign_memory_is_mapped_in_steps_and_its_range_is_reserved() {
    let machine = M::new(64);
    let process = machine.process();
    let map = |pages| {
        // SAFETY: no program runs.
        unsafe { process.map_foreign(START, pages * PAGE, Pfn::new(0x9_0000), MemoryType::UNCACHED, RW) }
    };
    _ = in_steps(&machine, "foreign", || map(PLACES).unwrap());
    assert_eq!(process.resident().unwrap().foreign, PLACES);
    process.unmap(START, PLACES * PAGE).unwrap();
    // More tables than there are frames: what was filled in the steps before goes again.
    _ = in_steps(&machine, "no memory", || assert_eq!(map(80 * 512), Err(SpaceError::NoMemory)));
    assert_eq!(process.resident().unwrap(), Resident { tables: 1, ..Resident::default() });
    map(PLACES).unwrap();
}

/// Between two steps of the check somebody else puts a large leaf over the beginning of the range.
#[test]
fn a_large_leaf_that_comes_over_an_edge_meanwhile_is_cut() {
    let machine = M::new(2048);
    let process = machine.process();
    process.map(LARGE, TABLE, RW).unwrap();
    machine.install(&process, LARGE, LeafSize::Size2MiB, machine.block(LeafSize::Size2MiB), 7);
    machine.put(&process, LARGE, 9);
    process.map(START + TABLE, 80 * TABLE, RW).unwrap();
    (1..81).for_each(|table| machine.put(&process, START + table * TABLE, table as u8));
    let first = START + TABLE / 2;
    let meanwhile = || process.move_pages(LARGE, TABLE, START).unwrap();
    let (unmapped, raced) = machine.between_sections(0, meanwhile, || process.unmap(first, START + 81 * TABLE - first));
    assert_eq!((unmapped.map(|unmapped| unmapped.pages), raced), (Ok(256 + 80), true));
    assert_eq!(machine.get(&process, START), 9, "what lies in front of the range stays");
}
