//! Taking mappings away, and the VMAs they lie in.

use std::collections::BTreeMap;

use pagepin::fault::FaultError;
use pagepin::frame::{Layout, Wide};
use pagepin::pin::{PhysRun, Read, Write};
use pagepin::space::{EmptyTables, SpaceError, Unmapped, ZapError, zap_pages};
use pagepin::{AddressSpace, Env, LeafSize, Levels, MemoryType, PageAddr, Pfn, PinnedRun, RangeError};

use crate::machine::{A, CPUS, FAR, LARGE, Machine, NONE, PAGE, Process, R, RW, range};

const NOTHING: fn() -> Unmapped = Unmapped::default;

fn vmas<L: Layout>(process: &Process<'_, L>, first: u64, pages: u64) -> Vec<bool> {
    let mut found = Vec::new();
    process
        .with_vmas(&mut |vmas| {
            for page in 0..pages {
                let page = PageAddr::containing(first).offset(page);
                let vma = vmas.vma_at(page);
                assert!(vma.is_none_or(|vma| vma.contains(page)));
                found.push(vma.is_some());
            }
        })
        .unwrap();
    found
}

fn a_hole_splits_the_vma_and_frees_what_was_in_it<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(5, 10);
    let before = machine.memory().allocated().len();
    assert_eq!(process.unmap(A + PAGE, 2 * PAGE), Ok(Unmapped { pages: 2, ..Unmapped::default() }));
    assert_eq!(machine.memory().allocated().len(), before - 2);
    assert_eq!(vmas(&process, A, 5), [true, false, false, true, true]);
    for cpu in 0..CPUS {
        assert_eq!(machine.load(cpu, &process, A + PAGE, 1), Err(FaultError::NoVma));
        assert_eq!(machine.load(cpu, &process, A + 3 * PAGE, 1), Ok(13));
    }
    assert_eq!(process.unmap(A - 4 * PAGE, 64 * PAGE), Ok(Unmapped { pages: 3, ..Unmapped::default() }), "over holes");
    assert_eq!(process.unmap(A, 5 * PAGE), Ok(NOTHING()));
    process.map(A, 5 * PAGE, RW).unwrap();
    assert_eq!(machine.get(&process, A), 0, "nothing of the old contents");
}

/// INV-13: tables go with their last page, and only then.
fn tables_go_with_their_last_page<L: Layout>() {
    for levels in [Levels::Four, Levels::Five] {
        let machine = Machine::<L>::new(64);
        let process = machine.process_of(levels);
        let tables = |process| machine.leaves(process).1.len();
        assert_eq!(tables(&process), 1);
        process.map(A, 2 * PAGE, RW).unwrap();
        machine.put_pages(&process, A, 2, 1);
        let near = (A & !0x1f_ffff) + 0x20_0000;
        process.map(near, PAGE, RW).unwrap();
        machine.put(&process, near, 3);
        let all = tables(&process);
        assert_eq!(all, if levels == Levels::Four { 5 } else { 6 });
        process.unmap(A, PAGE).unwrap();
        assert_eq!(tables(&process), all, "its other page is in use");
        process.unmap(A + PAGE, PAGE).unwrap();
        assert_eq!(tables(&process), all - 1);
        process.unmap(near, PAGE).unwrap();
        assert_eq!(tables(&process), 1);
        // Prot-none, zero and foreign entries keep tables, and go.
        process.map(A, 2 * PAGE, RW).unwrap();
        assert_eq!(machine.get(&process, A), 0);
        process.protect(A, PAGE, NONE).unwrap();
        process.unmap(A + PAGE, PAGE).unwrap();
        assert_eq!(tables(&process), all - 1);
        process.unmap(A, PAGE).unwrap();
        assert_eq!(tables(&process), 1);
    }
}

/// A device that still works on a page: the page leaves its mm, but not the device, and unmap says so.
fn an_unmapped_pinned_page_survives_until_it_is_unpinned<L: Layout>() {
    for discard in [false, true] {
        let machine = Machine::<L>::new(64);
        let process = machine.populated(3, 10);
        let pins = machine.pin::<Write>(&process, A + PAGE, 1).unwrap();
        let frame = pins.runs()[0].first();
        let gone = if discard { process.discard(A, 3 * PAGE) } else { process.unmap(A, 3 * PAGE) };
        let gone = gone.unwrap();
        assert_eq!((gone.pages, gone.pinned_pages, gone.deferred_pages), (3, 1, 0));
        let left = PinnedRun { start: A + PAGE, run: PhysRun::from_parts(frame, 1, 0) };
        assert_eq!((gone.still_pinned.runs(), gone.still_pinned.missed_pages()), (&[left][..], 0));
        assert!(machine.word(frame).snapshot().dirty, "what user code wrote is noted when its entry goes");
        if discard {
            assert_eq!(machine.get(&process, A + PAGE), 0);
            machine.put(&process, A + PAGE, 1);
            assert_ne!(machine.frame_at(&process, A + PAGE).0, frame);
        }
        machine.dma_write(frame.address(), &[99]);
        machine.audit(&[&process], &BTreeMap::from([(frame, (1, 1))]));
        drop(pins);
        assert!(machine.word(frame).snapshot().is_free());
    }
}

fn exit_frees_all_but_pinned_pages<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(3, 10);
    let pins = machine.pin::<Read>(&process, A, 2 * PAGE).unwrap().into_owned();
    drop(process);
    assert_eq!(machine.memory().allocated().len(), 2);
    drop(pins);
    assert_eq!(machine.memory().allocated().len(), 0);
}

/// What the end of an mm costs depends on its tables, not on how large its address space is.
fn the_end_of_a_small_mm_is_short<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(1, 1);
    let tables = machine.memory().allocated().len() as u64 - 1;
    let before = machine.loads();
    drop(process);
    let loads = machine.loads() - before;
    // Each of the seven passes looks once at each entry, and finds its way to each table and page.
    assert!(loads < 8 * tables * 512, "{loads} loads of entries for {tables} tables");
}

/// MADV_DONTNEED: the VMA stays, the next access finds zeroes, foreign memory is left alone.
fn discarded_pages_read_as_zero<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(3, 10);
    // SAFETY: registers of the emulated machine.
    unsafe { process.map_foreign(A + 4 * PAGE, PAGE, Pfn::new(0xfee0), MemoryType::UNCACHED, RW).unwrap() };
    machine.put(&process, A + 4 * PAGE, 44);
    let child = process.fork().unwrap();
    process.protect(A + 2 * PAGE, PAGE, NONE).unwrap();
    assert_eq!(process.discard(A + PAGE, 8 * PAGE), Ok(Unmapped { pages: 2, ..Unmapped::default() }));
    process.protect(A + 2 * PAGE, PAGE, RW).unwrap();
    let contents = [0, 1, 2, 4].map(|page| machine.get(&process, A + page * PAGE));
    assert_eq!(contents, [10, 0, 0, 44]);
    assert_eq!([0, 1, 2].map(|page| machine.get(&child, A + page * PAGE)), [10, 11, 12]);
    assert_eq!(process.discard(A, 0).err(), Some(SpaceError::Range(RangeError::Empty)));
    assert_eq!(process.discard(A + 100 * PAGE, PAGE), Ok(NOTHING()));
}

fn overlaps_and_bad_ranges_are_refused<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    process.map(A, 4 * PAGE, RW).unwrap();
    for (start, pages) in [(A, 4), (A - PAGE, 2), (A + 3 * PAGE, 2), (A + PAGE, 1), (A - PAGE, 64)] {
        assert_eq!(process.map(start, pages * PAGE, R), Err(SpaceError::Overlap));
        let uncached = MemoryType::UNCACHED;
        // SAFETY: refused, so nothing is mapped.
        let foreign = unsafe { process.map_foreign(start, pages * PAGE, Pfn::new(0xfee0), uncached, R) };
        assert_eq!(foreign, Err(SpaceError::Overlap));
    }
    process.map(A + 4 * PAGE, PAGE, R).unwrap();
    process.map(A - PAGE, PAGE, R).unwrap();
    for bad in [(A + 1, PAGE), (A, PAGE + 1)] {
        let error = Some(SpaceError::Range(RangeError::Unaligned));
        assert_eq!(process.map(bad.0 + (1 << 40), bad.1, R).err(), error);
        assert_eq!(process.unmap(bad.0, bad.1).err(), error);
        assert_eq!(process.discard(bad.0, bad.1).err(), error);
    }
    let wraps = SpaceError::Range(RangeError::Wraps);
    assert_eq!(process.map(PAGE, u64::MAX - PAGE + 1, R).err(), Some(SpaceError::Range(RangeError::NonCanonical)));
    assert_eq!(process.unmap(2 * PAGE, (u64::MAX - PAGE) + 1), Err(wraps));
}

/// The whole user half in one call, and its first and last page.
fn the_ends_of_the_user_half_work<L: Layout>() {
    for levels in [Levels::Four, Levels::Five] {
        let machine = Machine::<L>::new(64);
        let process = machine.process_of(levels);
        let last = levels.user_half().end() - PAGE;
        process.map(0, levels.user_half().end(), RW).unwrap();
        for address in [0, 1, last - 1, last + PAGE - 1] {
            machine.put(&process, address, 7);
            assert_eq!(machine.get(&process, address), 7);
        }
        let pins = machine.pin::<Write>(&process, last, PAGE).unwrap();
        drop(pins);
        let child = process.fork().unwrap();
        assert_eq!(machine.get(&child, last + PAGE - 1), 7);
        process.protect(0, levels.user_half().end(), R).unwrap();
        assert!(machine.store(1, &process, last, 1, 1).is_err());
        assert_eq!(process.unmap(0, levels.user_half().end()), Ok(Unmapped { pages: 3, ..Unmapped::default() }));
        assert_eq!(machine.leaves(&process).1.len(), 1);
        drop(child);
    }
}

fn large_leaves_are_unmapped_whole<L: Layout>() {
    let (size, address) = (LeafSize::Size2MiB, 1 << 30);
    let machine = Machine::<L>::new(2048);
    let process = machine.process();
    process.map(address, 2 * size.bytes(), RW).unwrap();
    let block = machine.block(size);
    machine.install(&process, address, size, block, 7);
    (0..CPUS).for_each(|cpu| machine.store(cpu, &process, address + 9 * PAGE, 1, 1).unwrap());
    let pins = machine.pin::<Read>(&process, address + 3 * PAGE, PAGE).unwrap();
    let unmapped = process.unmap(address, size.bytes()).unwrap();
    assert_eq!((unmapped.pages, unmapped.pinned_pages), (512, 512), "the leaf counts as a whole");
    let left = PinnedRun { start: address, run: PhysRun::from_parts(block, 512, 9) };
    assert_eq!(unmapped.still_pinned.runs(), [left]);
    assert_eq!(machine.word(block).snapshot().pins, 1);
    drop(pins);
    assert!(machine.word(block).snapshot().is_free());
}

/// What somebody else damaged is given up, and counted; nothing is lost in silence, and no CPU keeps any of it.
fn the_end_of_a_damaged_mm_loses_nothing_in_silence<L: Layout>() {
    let (present, user, large) = (1, 4, 0x80);
    // (level, flipped bits, frames that are lost below)
    let damages =
        [(1, user, 0), (2, user, 2), (2, present, 2), (3, user, 3), (4, user, 4), (4, large, 4), (4, present, 4)];
    for (level, flipped, lost) in damages {
        let machine = Machine::<L>::new(64);
        // Nothing else is mapped, so that nothing else is flushed.
        let process = machine.process();
        process.map(FAR, PAGE, RW).unwrap();
        (0..CPUS).for_each(|cpu| machine.store(cpu, &process, FAR, 7, 1).unwrap());
        let (at, bits) = machine.entry(&process, FAR, level);
        machine.poke(at, bits ^ flipped);
        drop(process);
        assert_eq!(machine.memory().allocated().len(), lost, "level {level}, {flipped:#x}");
        assert_eq!(machine.statistics().bugs_caught, u64::from(lost > 0));
        // What was lost stays lost.
        std::mem::forget(machine);
    }
}

/// A range of bytes is unmapped with all pages that it touches.
fn a_page_is_unmapped_if_one_byte_of_it_is<L: Layout>() {
    for (start, length, pages) in [(A, PAGE + 1, 2), (A + PAGE - 1, 2, 2), (A + 5, 1, 1), (A + PAGE - 1, PAGE + 2, 3)] {
        let machine = Machine::<L>::new(64);
        let process = machine.populated(4, 1);
        let range = range(&process, start, length);
        // SAFETY: checked by the process, and there is one thread.
        let unmapped = unsafe { zap_pages(process.mm(), range, EmptyTables::Keep) };
        assert_eq!(unmapped, Ok(Unmapped { pages, ..Unmapped::default() }), "{start:#x} {length:#x}");
        let left = machine.leaves(&process).0;
        assert!(left.iter().all(|leaf| leaf.address + PAGE <= start || leaf.address >= start + length));
    }
}

/// A process at the limit of VMAs may still give memory back, and change whole VMAs.
#[test]
fn the_limit_of_vmas_stops_what_adds_vmas_only() {
    let machine = Machine::<pagepin::frame::Wide>::new(16);
    let process = machine.process();
    let vma = |index: u64| A + index * 4 * PAGE;
    let mut count = 0;
    while process.map(vma(count), 3 * PAGE, RW).is_ok() {
        count += 1;
    }
    assert_eq!(count, 65_530);
    assert_eq!(process.map(vma(count), PAGE, RW), Err(SpaceError::TooManyVmas));
    assert_eq!(process.unmap(vma(7) + PAGE, PAGE).err(), Some(SpaceError::TooManyVmas), "a split");
    assert_eq!(process.protect(vma(7), PAGE, R), Err(SpaceError::TooManyVmas), "a split");
    assert_eq!(vmas(&process, vma(7), 3), [true; 3], "unchanged");
    assert_eq!(process.protect(vma(7), 3 * PAGE, R), Ok(()));
    assert_eq!(process.unmap(vma(8), 3 * PAGE), Ok(NOTHING()));
    assert_eq!(process.map(vma(count), PAGE, RW), Ok(()));
}

fn a_large_leaf_goes_from_a_table_that_stays<L: Layout>() {
    let (machine, size) = (Machine::<L>::new(4096), LeafSize::Size2MiB);
    let process = machine.process();
    let next = LARGE + size.bytes();
    process.map(LARGE, 2 * size.bytes(), RW).unwrap();
    let blocks = [LARGE, next].map(|address| {
        let block = machine.block(size);
        machine.install(&process, address, size, block, 7);
        block
    });
    let gone = Unmapped { pages: size.pages(), ..Unmapped::default() };
    assert_eq!(process.unmap(LARGE, size.bytes()), Ok(gone));
    assert!(machine.word(blocks[0]).snapshot().is_free() && machine.leaf(&process, next).is_some());
    assert_eq!(process.discard(next, size.bytes()), Ok(gone));
    assert!(machine.word(blocks[1]).snapshot().is_free());
}

every_layout!(
    a_large_leaf_goes_from_a_table_that_stays,
    a_hole_splits_the_vma_and_frees_what_was_in_it,
    tables_go_with_their_last_page,
    an_unmapped_pinned_page_survives_until_it_is_unpinned,
    exit_frees_all_but_pinned_pages,
    the_end_of_a_small_mm_is_short,
    discarded_pages_read_as_zero,
    overlaps_and_bad_ranges_are_refused,
    the_ends_of_the_user_half_work,
    large_leaves_are_unmapped_whole,
    the_end_of_a_damaged_mm_loses_nothing_in_silence,
    a_page_is_unmapped_if_one_byte_of_it_is,
);

#[test]
fn zap_pages_cuts_a_large_leaf() {
    let machine = Machine::<Wide>::new(2048);
    let (process, size) = (machine.process(), LeafSize::Size2MiB);
    process.map(LARGE, size.bytes(), RW).unwrap();
    machine.install(&process, LARGE, size, machine.block(size), 7);
    machine.put(&process, LARGE, 9);
    let zap = |start, length| {
        // SAFETY: one thread.
        unsafe { zap_pages(process.mm(), range(&process, start, length), EmptyTables::Keep) }
            .map(|unmapped| unmapped.pages)
    };
    machine.memory().allow(Some(0));
    assert_eq!(zap(LARGE + PAGE, size.bytes() - PAGE), Err(ZapError::NoMemory));
    machine.memory().allow(None);
    assert_eq!(zap(LARGE + PAGE, size.bytes() - PAGE), Ok(511));
    assert_eq!(machine.get(&process, LARGE), 9);
}

/// Tables go from the highest level down, so a step may take some far behind the place that it has come to: what CPUs have of those
/// is flushed as well (INV-12, which the machine watches).
#[test]
fn a_step_flushes_all_that_its_tables_had() {
    const GIB: u64 = 1 << 30;
    const START: u64 = 1 << 40;
    const TABLE: u64 = LeafSize::Size2MiB.bytes();
    let machine = Machine::<Wide>::new(1024);
    let process = machine.process();
    process.map(START, 3 * GIB, RW).unwrap();
    // Keeps the table of the first GiB. More tables in it than a step takes; and two GiB that go as a whole.
    machine.put(&process, START, 1);
    (1..81).for_each(|table| machine.put(&process, START + table * TABLE, 1));
    for far in [GIB, GIB + 9 * TABLE, 2 * GIB, 2 * GIB + 9 * TABLE] {
        machine.put(&process, START + far, 1);
    }
    assert_eq!(process.unmap(START + TABLE, 3 * GIB - TABLE).unwrap().pages, 84);
    assert_eq!(machine.get(&process, START), 1);
}
