//! Runs: what is contiguous becomes one, nothing else does, and a buffer that is too small gives a partial result.

use pagepin::frame::{Layout, Wide};
use pagepin::pin::{PhysRun, PinError, PinFlags, Read, Stopped, Write, pin_user_pages};
use pagepin::space::SpaceOptions;
use pagepin::{FrameRequest, FrameSource, KeyRights, LeafSize, Levels, MapOptions, PAGE_SIZE, Pfn};

use crate::forms::{self, FORMS, Form};
use crate::machine::{A, LARGE, Machine, PAGE, Process, RW, range, runs};

/// The last page of a level-1 table: ranges from here cross into the next one.
const EDGE: u64 = 0x7f_1220_0000;
const PRESENT_RW: u64 = 7;

/// What the pin of `pages` pages must return, from the entries.
fn expected<L: Layout>(machine: &Machine<L>, process: &Process<'_, L>, address: u64, pages: u64) -> Vec<PhysRun> {
    let mut runs: Vec<PhysRun> = Vec::new();
    for page in 0..pages {
        let frame = machine.frame_at(process, address + page * PAGE).0;
        match runs.last_mut() {
            Some(last) if last.end() == frame => {
                *last = PhysRun::from_parts(last.first(), last.pages() as u32 + 1, 0);
            }
            _ => runs.push(PhysRun::from_parts(frame, 1, 0)),
        }
    }
    runs
}

/// Eight pages over two tables; some of them neighbours in memory, some not.
fn mixed<L: Layout>(machine: &Machine<L>) -> Process<'_, L> {
    let process = machine.process();
    let start = EDGE - 4 * PAGE;
    process.map(start, 8 * PAGE, RW).unwrap();
    for (page, scattered) in
        [(0, true), (4, true), (1, false), (2, false), (3, false), (5, false), (6, true), (7, false)]
    {
        machine.memory().scatter(scattered);
        machine.put(&process, start + page * PAGE, page as u8 + 1);
    }
    process
}

fn buffers_of_every_size_give_the_runs_that_fit<L: Layout>() {
    let machine = Machine::<L>::new(128);
    let process = mixed(&machine);
    let start = EDGE - 4 * PAGE;
    for first in 0..8 {
        for pages in 1..=8 - first {
            let address = start + first * PAGE;
            let wanted = expected(&machine, &process, address, pages);
            for form in FORMS {
                for size in 0..=wanted.len() + 1 {
                    let bytes = range(&process, address + 7, pages * PAGE - 100);
                    let result = forms::pin::<Write, L>(form, &process, bytes, PinFlags::empty(), size);
                    let got = forms::get::<Read, L>(form, &process, bytes, PinFlags::empty(), size);
                    if size == 0 {
                        assert_eq!(result.err(), Some(PinError::BufferTooSmall));
                        assert_eq!(got.err(), Some(PinError::BufferTooSmall));
                        continue;
                    }
                    let (pins, gets) = (result.unwrap(), got.unwrap());
                    let fit = size.min(wanted.len());
                    let count: u64 = wanted[..fit].iter().map(PhysRun::pages).sum();
                    assert_eq!((pins.runs(), pins.pages()), (&wanted[..fit], count), "{form:?} {first}+{pages}");
                    assert_eq!((gets.runs(), gets.pages()), (&wanted[..fit], count), "{form:?} {first}+{pages}");
                    let reason = PinError::BufferTooSmall;
                    let stopped = (fit < wanted.len()).then_some(Stopped { page_index: count, reason });
                    assert_eq!((pins.stopped(), gets.stopped()), (stopped, stopped));
                    for run in pins.runs() {
                        for frame in run.first().number()..run.end().number() {
                            let word = machine.word(Pfn::new(frame)).snapshot();
                            assert_eq!((word.refs, word.pins), (3, 1), "an entry, a pin, a reference");
                        }
                    }
                    assert_eq!(pins.complete().is_ok(), fit == wanted.len());
                }
            }
        }
    }
}

/// A page that needs a fault in the middle: the fast form stops there, the others go on.
fn a_hole_stops_the_fast_form_only<L: Layout>() {
    let machine = Machine::<L>::new(128);
    let process = mixed(&machine);
    let start = EDGE - 4 * PAGE;
    process.discard(start + 5 * PAGE, PAGE).unwrap();
    let all = range(&process, start, 8 * PAGE);
    let pins = forms::pin::<Write, L>(Form::FastOnly, &process, all, PinFlags::empty(), 8).unwrap();
    assert_eq!(pins.stopped(), Some(Stopped { page_index: 5, reason: PinError::WouldFault }));
    assert_eq!(pins.pages(), 5);
    drop(pins);
    for form in [Form::Fast, Form::Slow, Form::Remote] {
        let stopped = forms::pin::<Write, L>(form, &process, all, PinFlags::NOFAULT, 8).unwrap();
        assert_eq!(stopped.stopped(), Some(Stopped { page_index: 5, reason: PinError::WouldFault }), "{form:?}");
        assert_eq!(stopped.complete().err(), Some(PinError::WouldFault));
    }
    let pins = forms::pin::<Write, L>(Form::Fast, &process, all, PinFlags::empty(), 8).unwrap();
    assert_eq!((pins.pages(), pins.stopped()), (8, None));
    assert_eq!(pins.runs(), expected(&machine, &process, start, 8));
}

struct Large<'m, L: Layout> {
    process: Process<'m, L>,
    blocks: Vec<Pfn>,
}

/// Leaves of `size`, one after the other from `address` on; the blocks in the order that `order` gives.
fn large<'m, L: Layout>(machine: &'m Machine<L>, address: u64, size: LeafSize, order: &[usize]) -> Large<'m, L> {
    let process = machine.process_of(Levels::Five);
    process.map(address, size.bytes() * order.len() as u64, RW).unwrap();
    let mut found: Vec<Pfn> = order.iter().map(|_| machine.block(size)).collect();
    found.sort();
    let blocks: Vec<Pfn> = order.iter().map(|place| found[*place]).collect();
    for (index, block) in blocks.iter().enumerate() {
        machine.install(&process, address + index as u64 * size.bytes(), size, *block, PRESENT_RW);
    }
    Large { process, blocks }
}

fn counts<L: Layout>(machine: &Machine<L>, blocks: &[Pfn]) -> Vec<(u64, u64)> {
    blocks.iter().map(|block| machine.word(*block).snapshot()).map(|word| (word.refs, word.pins)).collect()
}

/// Every form gives the same runs and counts, and gives them back.
fn check_large<L: Layout>(
    machine: &Machine<L>,
    large: &Large<'_, L>,
    address: u64,
    pages: u64,
    wanted: &[PhysRun],
    held: &[bool],
) {
    let process = &large.process;
    for form in FORMS {
        let before = counts(machine, &large.blocks);
        let bytes = range(process, address, pages * PAGE_SIZE);
        let acquired = pagepin::Env::statistics(machine).pins_acquired;
        let pins = forms::pin::<Read, L>(form, process, bytes, PinFlags::empty(), wanted.len()).unwrap();
        assert_eq!((pins.runs(), pins.pages(), pins.stopped()), (wanted, pages, None), "{form:?}");
        let extra = |held: &bool| u64::from(*held);
        let with_pins = before.iter().zip(held).map(|(now, held)| (now.0 + extra(held), now.1 + extra(held)));
        assert!(counts(machine, &large.blocks).into_iter().eq(with_pins), "{form:?}: one hold per leaf");
        assert_eq!(pagepin::Env::statistics(machine).pins_acquired - acquired, pages);
        let total: u64 = pins.complete().unwrap().byte_runs().map(|run| run.length).sum();
        assert_eq!(total, pages * PAGE_SIZE);
        assert_eq!(counts(machine, &large.blocks), before, "{form:?}: given back");
        let gets = forms::get::<Write, L>(form, process, bytes, PinFlags::empty(), wanted.len()).unwrap();
        assert_eq!(gets.runs(), wanted, "{form:?}");
        drop(gets);
        assert_eq!(counts(machine, &large.blocks), before, "{form:?}: given back");
    }
}

fn leaves_of_two_mebibytes_are_one_hold_each<L: Layout>() {
    let machine = Machine::<L>::new(4096);
    let (address, size) = (3 << 30, LeafSize::Size2MiB);
    // In memory: 0 and 1 are neighbours, 3 and 2 are not.
    let large = large(&machine, address, size, &[0, 1, 3, 2]);
    let [first, _, third, fourth] = large.blocks[..] else { unreachable!() };
    let run = |first, pages| PhysRun::from_parts(first, pages, 9);
    let check = |page: u64, pages, wanted: &[PhysRun], held: [bool; 4]| {
        check_large(&machine, &large, address + page * PAGE, pages, wanted, &held);
    };
    check(0, 1, &[run(first, 1)], [true, false, false, false]);
    check(0, 512, &[run(first, 512)], [true, false, false, false]);
    check(511, 1, &[run(first.offset(511), 1)], [true, false, false, false]);
    check(100, 200, &[run(first.offset(100), 200)], [true, false, false, false]);
    check(0, 1024, &[run(first, 1024)], [true, true, false, false]);
    check(500, 20, &[run(first.offset(500), 20)], [true, true, false, false]);
    check(511, 2, &[run(first.offset(511), 2)], [true, true, false, false]);
    check(1000, 100, &[run(first.offset(1000), 24), run(third, 76)], [false, true, true, false]);
    check(0, 2048, &[run(first, 1024), run(third, 512), run(fourth, 512)], [true; 4]);
    check(1535, 2, &[run(third.offset(511), 1), run(fourth, 1)], [false, false, true, true]);
}

fn too_small_a_buffer_stops_at_a_leaf<L: Layout>() {
    let machine = Machine::<L>::new(4096);
    let (address, size) = (3 << 30, LeafSize::Size2MiB);
    let large = large(&machine, address, size, &[0, 1, 3, 2]);
    for form in FORMS {
        let all = range(&large.process, address, 4 * size.bytes());
        let none = forms::pin::<Read, L>(form, &large.process, all, PinFlags::empty(), 0);
        assert_eq!(none.err(), Some(PinError::BufferTooSmall), "{form:?}");
        let pins = forms::pin::<Read, L>(form, &large.process, all, PinFlags::empty(), 2).unwrap();
        let stopped = Stopped { page_index: 1536, reason: PinError::BufferTooSmall };
        assert_eq!((pins.pages(), pins.stopped()), (1536, Some(stopped)));
        assert_eq!(counts(&machine, &large.blocks), [(2, 1), (2, 1), (2, 1), (1, 0)]);
    }
    assert_eq!(counts(&machine, &large.blocks), [(1, 0); 4]);
}

/// A leaf of 1 GiB, then one of 2 MiB, then base pages: three runs, though all are neighbours in memory or not.
fn leaves_of_every_size_in_one_range<L: Layout>() {
    let machine = Machine::<L>::new(3 << 18);
    let (gigabyte, address) = (LeafSize::Size1GiB, 5 << 30);
    let huge = large(&machine, address, gigabyte, &[0]);
    let process = &huge.process;
    let after = address + gigabyte.bytes();
    process.map(after, 3 * LeafSize::Size2MiB.bytes(), RW).unwrap();
    let middle = machine.block(LeafSize::Size2MiB);
    machine.install(process, after, LeafSize::Size2MiB, middle, PRESENT_RW);
    let small = after + LeafSize::Size2MiB.bytes();
    machine.put(process, small, 1);
    let base = machine.frame_at(process, small).0;
    let block = huge.blocks[0];
    let (run, pages) = (PhysRun::from_parts, gigabyte.pages());
    for (page, count) in [(0, 1), (0, pages), (pages - 1, 1), (12_345, 100_000)] {
        let part = run(block.offset(page), count as u32, 18);
        check_large(&machine, &huge, address + page * PAGE, count, &[part], &[true]);
    }
    for form in FORMS {
        let bytes = range(process, address + (pages - 3) * PAGE, (3 + 512 + 1) * PAGE);
        let pins = forms::pin::<Write, L>(form, process, bytes, PinFlags::empty(), 3).unwrap();
        let wanted = [run(block.offset(pages - 3), 3, 18), run(middle, 512, 9), run(base, 1, 0)];
        assert_eq!((pins.runs(), pins.stopped()), (&wanted[..], None), "{form:?}");
        assert_eq!(counts(&machine, &[block, middle, base]), [(2, 1); 3]);
    }
    assert_eq!(counts(&machine, &[block, middle, base]), [(1, 0); 3]);
    assert!(machine.word(block).snapshot().dirty && machine.word(middle).snapshot().dirty);
}

/// Three lowest tables, and a page too many: a walk that loses count between tables stops too early or too late.
fn a_range_over_three_tables_is_pinned_page_for_page<L: Layout>() {
    let machine = Machine::<L>::new(1024);
    let (process, start, pages) = (machine.process(), EDGE - 2 * PAGE, 2 + 512 + 2);
    process.map(start, (pages + 1) * PAGE, RW).unwrap();
    machine.put_pages(&process, start, pages, 1);
    let wanted = expected(&machine, &process, start, pages);
    for form in FORMS {
        let all = range(&process, start, pages * PAGE);
        let pins = forms::pin::<Write, L>(form, &process, all, PinFlags::empty(), wanted.len()).unwrap();
        assert_eq!((pins.runs(), pins.stopped()), (&wanted[..], None), "{form:?}");
        let more = range(&process, start, (pages + 1) * PAGE);
        let flags = if form == Form::FastOnly { PinFlags::empty() } else { PinFlags::NOFAULT };
        let Ok(pins) = forms::pin::<Write, L>(form, &process, more, flags, wanted.len() + 1) else {
            assert_eq!(form, Form::Remote, "other flags");
            continue;
        };
        let stopped = Stopped { page_index: pages, reason: PinError::WouldFault };
        assert_eq!((pins.pages(), pins.stopped()), (pages, Some(stopped)), "{form:?}");
    }
}

every_layout!(
    a_range_over_three_tables_is_pinned_page_for_page,
    a_hole_stops_the_fast_form_only,
    leaves_of_two_mebibytes_are_one_hold_each,
    too_small_a_buffer_stops_at_a_leaf,
    leaves_of_every_size_in_one_range;
    many_at_a_time: buffers_of_every_size_give_the_runs_that_fit,
);

/// What was collected of another VMA before does not move the walk through this one.
#[test]
fn a_slow_walk_over_two_vmas_and_two_tables_takes_each_page_once() {
    let machine = Machine::<Wide>::new(128);
    let process = machine.process();
    process.map(EDGE - 6 * PAGE, 3 * PAGE, MapOptions::new(RW).data(1)).unwrap();
    process.map(EDGE - 3 * PAGE, 23 * PAGE, RW).unwrap();
    machine.put_pages(&process, EDGE - 6 * PAGE, 26, 1);
    let all = range(&process, EDGE - 6 * PAGE, 26 * PAGE);
    let pins = pin_user_pages(&process, Write, all, PinFlags::empty(), runs(32)).unwrap();
    let frames: Vec<Pfn> =
        pins.runs().iter().flat_map(|run| (0..run.pages()).map(|page| run.first().offset(page))).collect();
    let mapped: Vec<Pfn> = (0..26).map(|page| machine.frame_at(&process, EDGE + page * PAGE - 6 * PAGE).0).collect();
    assert_eq!((frames, pins.stopped()), (mapped, None));
}

/// A key that denies nothing here is no reason to refuse a large leaf.
#[test]
fn a_large_leaf_of_another_key_is_pinned_without_a_lock() {
    fn key_five_denied() -> KeyRights {
        KeyRights::from_pkru(1 << 10)
    }
    let machine = Machine::<Wide>::new(2048);
    let options = SpaceOptions { key_rights: Some(key_five_denied), ..SpaceOptions::without_kernel_half(Levels::Four) };
    let process = machine.process_with(options);
    process.map(LARGE, LeafSize::Size2MiB.bytes(), RW).unwrap();
    machine.install(&process, LARGE, LeafSize::Size2MiB, machine.block(LeafSize::Size2MiB), 7);
    let some = || range(&process, LARGE + PAGE, 10 * PAGE);
    for form in [Form::FastOnly, Form::Slow] {
        let pins = forms::pin::<Write, Wide>(form, &process, some(), PinFlags::empty(), 1).unwrap();
        assert_eq!(pins.pages(), 10, "{form:?}");
    }
}

/// A page whose frame is the next one of memory does not continue a large leaf: it has a count of its own.
#[test]
fn a_base_page_behind_a_large_leaf_begins_a_run() {
    let machine = Machine::<Wide>::new(2048);
    let (process, size) = (machine.process(), LeafSize::Size2MiB);
    let edge = LARGE + size.bytes();
    process.map(LARGE, size.bytes() + 2 * PAGE, RW).unwrap();
    let block = machine.block(size);
    machine.install(&process, LARGE, size, block, 7);
    // The table is there, and the lowest free frame is the one behind the block.
    machine.put(&process, edge + PAGE, 1);
    let behind = block.offset(size.pages());
    let mut taken = Vec::new();
    loop {
        let frame = machine.allocate(FrameRequest::movable(0)).unwrap();
        taken.push(frame);
        if frame == behind {
            break;
        }
    }
    // SAFETY: just allocated.
    unsafe { machine.free(taken.pop().unwrap(), 0) };
    machine.put(&process, edge, 2);
    assert_eq!(machine.frame_at(&process, edge).0, behind);
    // SAFETY: as above.
    taken.into_iter().for_each(|frame| unsafe { machine.free(frame, 0) });
    let over = || range(&process, edge - 2 * PAGE, 3 * PAGE);
    for form in [Form::FastOnly, Form::Slow] {
        let pins = forms::pin::<Write, Wide>(form, &process, over(), PinFlags::empty(), 4).unwrap();
        let shape: Vec<_> = pins.runs().iter().map(|run| (run.first(), run.pages(), run.order())).collect();
        assert_eq!(shape, [(block.offset(510), 2, 9), (behind, 1, 0)], "{form:?}");
        drop(pins);
        assert_eq!((machine.word(block).snapshot().pins, machine.word(behind).snapshot().pins), (0, 0));
    }
}

/// No more pages are copied and pinned at a time than there are runs for.
#[test]
fn copies_that_have_no_room_are_not_pinned() {
    let machine = Machine::<Wide>::new(64);
    machine.memory().scatter(true);
    let process = machine.populated(3, 1);
    let child = process.fork().unwrap();
    machine.put(&process, A, 9);
    let all = range(&process, A, 3 * PAGE);
    let pins = pin_user_pages(&process, Write, all, PinFlags::empty(), runs(2)).unwrap();
    assert_eq!((pins.pages(), pins.stopped().map(|stopped| stopped.reason)), (2, Some(PinError::BufferTooSmall)));
    drop(pins);
    assert!((0..3).all(|page| machine.frame_at(&process, A + page * PAGE).1.pins == 0));
    drop(child);
}
