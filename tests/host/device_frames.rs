//! Frames that belong to drivers: their owner hears of the last release, wherever it is, and a run is of one owner.

use pagepin::frame::{Dirty, Layout};
use pagepin::pin::{self, Owner, PhysRun, PinError, PinFlags, Read, Write, pin_user_pages_fast_only};
use pagepin::space::{Copies, Sharing};
use pagepin::{ObjectId, Pfn, Unlimited};

use crate::forms::{self, FORMS, Form};
use crate::machine::{A, Machine, PAGE, Process, RW, range, runs};

const CARD: ObjectId = ObjectId(9);

/// A process that shows four pages of one driver at `A`, has touched them, and is the last to refer to them.
fn last_to_know<L: Layout>(machine: &Machine<L>) -> (Process<'_, L>, Vec<Pfn>) {
    let frames = machine.lend_frames(CARD, &[1; 4]);
    let process = machine.process();
    process.map_object(A, 4 * PAGE, CARD, 0, Sharing::Shared, RW).unwrap();
    (0..4).for_each(|page| machine.put(&process, A + page * PAGE, 10 + page as u8));
    machine.cut(CARD, 0);
    assert_eq!(machine.returned(), []);
    (process, frames)
}

type Way<L> = for<'m> fn(&'m Machine<L>, Process<'m, L>);

fn unmapped_at_once<L: Layout>(_: &Machine<L>, process: Process<'_, L>) {
    process.unmap(A, 4 * PAGE).unwrap();
}

fn unmapped_one_by_one<L: Layout>(_: &Machine<L>, process: Process<'_, L>) {
    process.map(A + 8 * PAGE, PAGE, RW).unwrap();
    (0..4).for_each(|page| _ = process.unmap(A + page * PAGE, PAGE).unwrap());
}

fn discarded<L: Layout>(_: &Machine<L>, process: Process<'_, L>) {
    process.discard(A, 4 * PAGE).unwrap();
}

fn ended<L: Layout>(_: &Machine<L>, process: Process<'_, L>) {
    drop(process);
}

fn forgotten<L: Layout>(_: &Machine<L>, process: Process<'_, L>) {
    process.forget_object(CARD, 0..4, Copies::Forget).unwrap();
}

fn unpinned<L: Layout>(machine: &Machine<L>, process: Process<'_, L>) {
    let pins = machine.pin::<Write>(&process, A, 4 * PAGE).unwrap();
    assert_eq!(process.unmap(A, 4 * PAGE).unwrap().pinned_pages, 4);
    assert_eq!(machine.returned(), []);
    drop(pins);
}

fn unpinned_apart<L: Layout>(machine: &Machine<L>, process: Process<'_, L>) {
    for page in [3, 1, 0, 2] {
        let pins = machine.pin::<Read>(&process, A + page * PAGE, PAGE).unwrap();
        process.unmap(A + page * PAGE, PAGE).unwrap();
        drop(pins);
    }
}

fn unpinned_by_number<L: Layout>(machine: &Machine<L>, process: Process<'_, L>) {
    let raw = machine.pin::<Write>(&process, A, 4 * PAGE).unwrap().into_raw();
    process.unmap(A, 4 * PAGE).unwrap();
    // SAFETY: pinned through this kernel, above.
    unsafe { pin::unpin_user_runs(&machine, raw.runs(), Dirty::Yes) };
}

fn unpinned_alone<L: Layout>(machine: &Machine<L>, process: Process<'_, L>) {
    let flags = if L::HAS_SOLE { PinFlags::SOLE } else { PinFlags::empty() };
    let pins = machine.pin_slow::<Write>(&process, A, 4 * PAGE, flags).unwrap();
    process.unmap(A, 4 * PAGE).unwrap();
    drop(pins);
}

fn put<L: Layout>(machine: &Machine<L>, process: Process<'_, L>) {
    let gets = machine.reference::<Read>(&process, A, 4 * PAGE).unwrap();
    process.unmap(A, 4 * PAGE).unwrap();
    drop(gets);
}

/// A walker has counted the frame when its page goes, and gives it up.
fn undone_by_a_walker<L: Layout>(machine: &Machine<L>, process: Process<'_, L>) {
    for page in 0..4 {
        let pages = range(&process, A + page * PAGE, PAGE);
        let mut raced = false;
        for at in 0..64 {
            let race = || {
                if machine.word(machine.frame_at(&process, pages.first_page().address()).0).snapshot().pins != 0 {
                    process.unmap(pages.first_page().address(), PAGE).unwrap();
                    raced = true;
                }
            };
            let (pins, _) = machine.race_at(at, race, || {
                pin_user_pages_fast_only(&process, Write, pages, PinFlags::empty(), runs(1)).err()
            });
            if raced {
                assert_eq!(pins, Some(PinError::WouldFault));
                break;
            }
        }
        assert!(raced);
    }
}

/// Whoever gives the last reference up, the owner has the frame, and nobody else.
fn the_owner_hears_of_every_last_release<L: Layout>() {
    let ways: [(&str, Way<L>); 11] = [
        ("unmapped at once", unmapped_at_once),
        ("unmapped one by one", unmapped_one_by_one),
        ("discarded", discarded),
        ("ended", ended),
        ("forgotten", forgotten),
        ("unpinned", unpinned),
        ("unpinned apart", unpinned_apart),
        ("unpinned by number", unpinned_by_number),
        ("unpinned alone", unpinned_alone),
        ("put", put),
        ("undone by a walker", undone_by_a_walker),
    ];
    for (name, way) in ways {
        let machine = Machine::<L>::new(64);
        let (process, frames) = last_to_know(&machine);
        way(&machine, process);
        assert_eq!(machine.returned(), frames, "{name}");
        machine.clear_shelf();
    }
}

/// A private mapping of it reads the driver's pages, and has copies of its own of what it writes or pins.
fn a_private_mapping_copies<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let frames = machine.lend_frames(CARD, &[1; 4]);
    let process = machine.process();
    process.map_object(A, 4 * PAGE, CARD, 0, Sharing::Private, RW).unwrap();
    assert_eq!((0..3).map(|page| machine.get(&process, A + page * PAGE)).collect::<Vec<_>>(), [0, 1, 2]);
    machine.put(&process, A, 77);
    let pins = machine.pin::<Read>(&process, A + PAGE, PAGE).unwrap();
    assert!(!frames.contains(&pins.runs()[0].first()));
    machine.cut(CARD, 0);
    assert_eq!(
        machine.returned(),
        [frames[0], frames[1], frames[3]],
        "whose copies the process has, or that nobody wanted"
    );
    drop(pins);
    drop(process);
    assert_eq!(machine.returned(), frames[2..3]);
    machine.clear_shelf();
}

/// Frames side by side, of two drivers and of nobody: a run is of one of them, in every form, also where the buffer is too small.
fn a_run_ends_where_its_owner_does<L: Layout>() {
    let machine = Machine::<L>::new(128);
    let frames = machine.lend_frames(CARD, &[1, 1, 2, 2, 2, 1]);
    assert!((0..6).all(|page| frames[page as usize] == frames[0].offset(page)));
    let process = machine.process();
    process.map_object(A, 6 * PAGE, CARD, 0, Sharing::Shared, RW).unwrap();
    (0..6).for_each(|page| machine.put(&process, A + page * PAGE, 1));
    let of = |first: usize, pages| PhysRun::from_parts(frames[first], pages, 0);
    let all = range(&process, A, 6 * PAGE);
    let pins_of = |page: usize| machine.word(frames[page]).snapshot().pins;
    for form in FORMS {
        for flags in [PinFlags::empty(), PinFlags::LONGTERM] {
            for room in 1..8 {
                if flags == PinFlags::LONGTERM && form == Form::FastOnly {
                    continue;
                }
                let pins = forms::pin::<Write, L>(form, &process, all, flags, room).unwrap();
                let expected = [of(0, 2), of(2, 3), of(5, 1)];
                assert_eq!(pins.runs(), &expected[..room.min(3)], "{form:?}");
                assert_eq!(
                    pins.stopped().map(|stopped| stopped.reason),
                    (room < 3).then_some(PinError::BufferTooSmall)
                );
                let held = pins.pages() as usize;
                assert!((0..6).all(|page| pins_of(page) == u64::from(page < held)), "undone exactly");
                drop(pins);
                assert!((0..6).all(|page| pins_of(page) == 0));
            }
        }
        let gets = forms::get::<Read, L>(form, &process, all, PinFlags::empty(), 8).unwrap();
        assert_eq!(gets.runs(), [of(0, 2), of(2, 3), of(5, 1)]);
    }
    if L::HAS_SOLE {
        let sole = machine.pin_slow::<Write>(&process, A, 6 * PAGE, PinFlags::SOLE).unwrap();
        assert_eq!(sole.runs(), [of(0, 2).sole(), of(2, 3).sole(), of(5, 1).sole()]);
    }
    // In two steps: what was there is not joined with what comes.
    process.discard(A + PAGE, 5 * PAGE).unwrap();
    let first = pin_user_pages_fast_only(&process, Write, all, PinFlags::empty(), runs(8)).unwrap();
    assert_eq!(first.runs(), [of(0, 1)]);
    assert_eq!(first.resume().runs(), [of(0, 2), of(2, 3), of(5, 1)]);
    drop(process);
    machine.clear_shelf();
    assert_eq!(machine.returned(), frames);
}

/// A driver's frame beside a process's own: two runs.
fn private_memory_beside_a_drivers_is_another_run<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    process.map(A, PAGE, RW).unwrap();
    machine.put(&process, A, 1);
    let own = machine.frame_at(&process, A).0;
    let frames = machine.lend_frames(CARD, &[1]);
    process.map_object(A + PAGE, PAGE, CARD, 0, Sharing::Shared, RW).unwrap();
    machine.put(&process, A + PAGE, 1);
    let pins = machine.pin::<Write>(&process, A, 2 * PAGE).unwrap();
    assert_eq!(pins.runs(), [PhysRun::from_parts(own, 1, 0), PhysRun::from_parts(frames[0], 1, 0)]);
    drop(pins);
    drop(process);
    machine.clear_shelf();
    assert_eq!(machine.returned(), frames);
}

/// The same where both go: what is freed in a run is the process's alone.
fn a_drivers_frame_behind_a_process_s_own_goes_to_its_driver<L: Layout>() {
    for ends in [false, true] {
        let machine = Machine::<L>::new(64);
        let process = machine.process();
        // The first makes the tables.
        process.map(A, 2 * PAGE, RW).unwrap();
        machine.put_pages(&process, A, 2, 1);
        let frames = machine.lend_frames(CARD, &[1]);
        assert_eq!(frames[0], machine.frame_at(&process, A + PAGE).0.offset(1));
        process.map_object(A + 2 * PAGE, PAGE, CARD, 0, Sharing::Shared, RW).unwrap();
        machine.put(&process, A + 2 * PAGE, 1);
        machine.cut(CARD, 0);
        match ends {
            false => _ = process.unmap(A, 3 * PAGE).unwrap(),
            true => drop(process),
        }
        assert_eq!(machine.returned(), frames);
        machine.clear_shelf();
    }
}

/// As many owners as pages.
fn every_page_has_another_owner<L: Layout>() {
    const PAGES: u64 = 700;
    let machine = Machine::<L>::new(1024);
    let owners: Vec<_> = (0..PAGES).map(|page| page % 2).collect();
    let frames = machine.lend_frames(CARD, &owners);
    let process = machine.process();
    process.map_object(A, PAGES * PAGE, CARD, 0, Sharing::Shared, RW).unwrap();
    let all = range(&process, A, PAGES * PAGE);
    let pins = pin::pin_user_pages(&process, Write, all, PinFlags::empty(), runs(1000)).unwrap();
    assert_eq!((pins.runs().len() as u64, pins.pages()), (PAGES, PAGES));
    drop(pins);
    let pins = pin::pin_user_pages(&process, Write, all, PinFlags::empty(), runs(300)).unwrap();
    assert_eq!((pins.runs().len(), pins.pages()), (300, 300));
    drop(pins);
    drop(process);
    machine.clear_shelf();
    assert_eq!(machine.returned(), frames);
}

/// Pins by object end where owners do as well, and by those pins the owner gets its pages back.
fn pins_by_object_end_where_owners_do<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let frames = machine.lend_frames(CARD, &[1, 1, 2]);
    let by_object = |buffer| {
        let owner = Owner::new(&machine, Unlimited);
        pin::pin_object_pages(owner, Write, CARD, 0..3, PinFlags::empty(), runs(buffer)).unwrap()
    };
    let pins = by_object(3);
    assert_eq!(pins.runs(), [PhysRun::from_parts(frames[0], 2, 0), PhysRun::from_parts(frames[2], 1, 0)]);
    let some = by_object(1);
    assert_eq!((some.pages(), some.stopped().unwrap().reason), (2, PinError::BufferTooSmall));
    drop(some);
    machine.clear_shelf();
    assert_eq!(machine.returned(), []);
    drop(pins);
    assert_eq!(machine.returned(), frames);
}

every_layout!(
    pins_by_object_end_where_owners_do,
    the_owner_hears_of_every_last_release,
    a_private_mapping_copies,
    a_run_ends_where_its_owner_does,
    private_memory_beside_a_drivers_is_another_run,
    a_drivers_frame_behind_a_process_s_own_goes_to_its_driver,
    every_page_has_another_owner,
);
