//! Pins for as long as user space wants: each page lies where it may stay, or is moved there, or the reason why not is named.

use pagepin::frame::Layout;
use pagepin::pin::{PinAccess, PinError, PinFlags, Read, Write, pin_user_pages, pin_user_pages_fast_only};
use pagepin::space::{Sharing, SpaceOptions};
use pagepin::{LeafSize, Levels, MapOptions, ObjectId, Pfn, PinBudget, PinTerm, Rights, Zone};

use crate::forms::{self, FORMS, Form};
use crate::machine::{A, FAR, LARGE, Machine, PAGE, Pins, Process, R, RW, first_byte, range, runs};

const FILE: ObjectId = ObjectId(3);
pub(crate) const LONG: PinFlags = PinFlags::LONGTERM;

/// A machine with two zones, in one of which pages may stay; processes get their pages in the other.
pub(crate) fn divided<L: Layout>(frames: usize) -> Machine<L> {
    let machine = Machine::<L>::new(frames);
    machine.memory().divide();
    machine
}

pub(crate) fn pin<'p, 'm, X: PinAccess, L: Layout>(
    form: Form,
    process: &'p Process<'m, L>,
    address: u64,
    pages: u64,
) -> Result<Pins<'p, 'm, L, X>, PinError> {
    forms::pin::<X, L>(form, process, range(process, address, pages * PAGE), LONG, 1024)
}

/// Whether the pins are of the frames that the process has, all of them where they may stay.
pub(crate) fn all_stay<X: PinAccess, L: Layout>(
    machine: &Machine<L>,
    process: &Process<'_, L>,
    pins: &Pins<'_, '_, L, X>,
) {
    let pinned: Vec<_> = pins.runs().iter().flat_map(|run| (0..run.pages()).map(|i| run.first().offset(i))).collect();
    assert_eq!((pinned.len() as u64, pins.stopped()), (pins.range().pages(), None));
    for (page, frame) in (0..).zip(pinned) {
        assert_eq!(machine.frame_at(process, pins.range().first_page().address() + page * PAGE).0, frame);
        assert!(machine.memory().is_in(Zone::Unmovable, frame));
    }
}

/// Pages that are there move, those that are not are made where they stay; a short pin leaves both where they are. Those that stay
/// are pinned without a lock.
fn pages_move_to_where_they_may_stay<L: Layout>() {
    for form in FORMS {
        let machine = divided::<L>(256);
        let process = machine.populated(40, 10);
        process.map(A + 40 * PAGE, 4 * PAGE, RW).unwrap();
        let short = machine.pin::<Write>(&process, A, 44 * PAGE).unwrap();
        assert!(short.runs().iter().all(|run| machine.memory().is_in(Zone::Movable, run.first())));
        drop(short);
        process.discard(A + 40 * PAGE, 4 * PAGE).unwrap();
        let long = pin::<Write, L>(form, &process, A, 44);
        if form == Form::FastOnly {
            assert_eq!(long.err(), Some(PinError::WouldFault), "nothing moves without a lock");
            drop(pin::<Read, L>(Form::Slow, &process, A, 43).unwrap());
            let long = pin::<Write, L>(form, &process, A, 44).unwrap();
            assert_eq!(
                long.stopped().map(|stopped| (stopped.page_index, stopped.reason)),
                Some((40, PinError::WouldFault))
            );
            continue;
        }
        let long = long.unwrap();
        all_stay(&machine, &process, &long);
        machine.dma_write(machine.frame_at(&process, A + 2 * PAGE).0.address(), &[55]);
        let read: Vec<_> = (0..44).map(|page| machine.get(&process, A + page * PAGE)).collect();
        let written = (10..50).map(|byte| if byte == 12 { 55 } else { byte }).chain([0; 4]);
        assert_eq!(read, written.collect::<Vec<_>>());
        assert_eq!(process.relocate(A, 44 * PAGE, Zone::Movable).unwrap().pinned_pages, 44);
        let allocations = machine.memory().allocations();
        all_stay(&machine, &process, &pin::<Write, L>(Form::FastOnly, &process, A, 44).unwrap());
        assert_eq!(machine.memory().allocations(), allocations);
    }
}

/// What is new is made where it stays: no page is allocated twice.
fn new_pages_are_made_where_they_stay<L: Layout>() {
    let machine = divided::<L>(512);
    machine.shelf().add(FILE, 4);
    let process = machine.process();
    process.map(A, 80 * PAGE, RW).unwrap();
    machine.put(&process, A, 1);
    let before = machine.memory().allocations();
    all_stay(&machine, &process, &pin::<Write, L>(Form::Slow, &process, A + PAGE, 3).unwrap());
    assert_eq!(machine.memory().allocations() - before, 3);
    // The zero frame, many at a time and alone.
    (4..74).for_each(|page| assert_eq!(machine.get(&process, A + page * PAGE), 0));
    let before = machine.memory().allocations();
    all_stay(&machine, &process, &pin::<Read, L>(Form::Fast, &process, A + 4 * PAGE, 69).unwrap());
    all_stay(&machine, &process, &pin::<Read, L>(Form::Fast, &process, A + 73 * PAGE, 1).unwrap());
    assert_eq!(machine.memory().allocations() - before, 70);
    process.map_object(A + 80 * PAGE, 4 * PAGE, FILE, 0, Sharing::Private, RW).unwrap();
    assert_eq!(machine.get(&process, A + 80 * PAGE), first_byte(0));
    let before = machine.memory().allocations();
    all_stay(&machine, &process, &pin::<Read, L>(Form::Fast, &process, A + 80 * PAGE, 2).unwrap());
    assert_eq!(machine.memory().allocations() - before, 3, "two copies, and a page of the object");
    drop(process);
    machine.clear_shelf();
}

/// One range over VMAs of all kinds: present, shared with a child, swapped out, zeroes, untouched, read-only, borrowed, an object's
/// own, and a copy of that.
fn all_kinds_in_one_range<X: PinAccess, L: Layout>() {
    let machine = divided::<L>(512);
    machine.shelf().add(FILE, 8);
    let process = machine.populated(6, 10);
    let child = process.fork().unwrap();
    machine.put(&process, A, 20);
    process.map(A + 6 * PAGE, 3 * PAGE, RW).unwrap();
    assert_eq!(machine.get(&process, A + 6 * PAGE), 0);
    machine.put(&process, A + 8 * PAGE, 18);
    assert_eq!(process.swap_out(A + 4 * PAGE, 5 * PAGE).unwrap().pages, 3);
    process.map_object(A + 9 * PAGE, 3 * PAGE, FILE, 0, Sharing::Private, RW).unwrap();
    assert_eq!(machine.get(&process, A + 9 * PAGE), first_byte(0));
    machine.put(&process, A + 10 * PAGE, 30);
    process.map_object(A + 12 * PAGE, 2 * PAGE, FILE, 4, Sharing::Shared, RW).unwrap();
    process.map(A + 14 * PAGE, PAGE, MapOptions::new(if X::WRITES { RW } else { R })).unwrap();
    let before: Vec<_> = (0..15).map(|page| machine.get(&process, A + page * PAGE)).collect();
    let pins = pin::<X, L>(Form::Fast, &process, A, 15).unwrap();
    all_stay(&machine, &process, &pins);
    let pins = pins.complete().unwrap();
    for page in 0..15 {
        let mut seen = [0; 1];
        pins.copy_to(page * PAGE, &mut seen).unwrap();
        assert_eq!((seen[0], machine.get(&process, A + page * PAGE)), (before[page as usize], before[page as usize]));
        if page < 14 {
            machine.put(&process, A + page * PAGE, 100 + page as u8);
            pins.copy_to(page * PAGE, &mut seen).unwrap();
            assert_eq!(seen[0], 100 + page as u8, "INV-11");
        }
    }
    assert_eq!((0..6).map(|page| machine.get(&child, A + page * PAGE)).collect::<Vec<_>>(), [10, 11, 12, 13, 14, 15]);
    drop(pins);
    machine.audit(&[&process, &child], &Default::default());
    drop((process, child));
    machine.clear_shelf();
}

fn all_kinds_in_one_range_are_pinned<L: Layout>() {
    all_kinds_in_one_range::<Read, L>();
    all_kinds_in_one_range::<Write, L>();
}

/// A pin of all of six pages, refused at page `at`: by name, after a bounded number of attempts, with the budget as it was. What was
/// pinned before it is a shorter pin.
fn refused_at<L: Layout>(machine: &Machine<L>, process: &Process<'_, L>, at: u64, reason: PinError) {
    let budget = || {
        // All there is can be charged, and one more cannot.
        process.budget().charge(64, PinTerm::Long).unwrap();
        assert!(process.budget().charge(1, PinTerm::Long).is_err());
        process.budget().uncharge(64, PinTerm::Long);
    };
    budget();
    for form in [Form::Fast, Form::Slow, Form::Remote] {
        let (allocations, flushes) = (machine.memory().allocations(), machine.flushes());
        let pins = pin::<Write, L>(form, process, A, 6);
        if at == 0 {
            assert_eq!(pins.err(), Some(reason), "{form:?}");
        } else {
            let pins = pins.unwrap();
            assert_eq!(pins.stopped().map(|stopped| (stopped.page_index, stopped.reason)), Some((at, reason)));
            assert_eq!(pins.complete().err(), Some(reason));
        }
        assert!(machine.memory().allocations() - allocations < 64 && machine.flushes() - flushes < 64);
        budget();
    }
}

/// Whoever pins or refers to a page keeps it where it is; when they let go, it moves.
fn a_page_that_others_keep_is_named<L: Layout>() {
    for at in [0, 3, 5] {
        let machine = divided::<L>(256);
        let process = machine.process_within(64, SpaceOptions::without_kernel_half(Levels::Four));
        process.map(A, 6 * PAGE, RW).unwrap();
        machine.put_pages(&process, A, 6, 10);
        let page = range(&process, A + at * PAGE, PAGE);
        let short = pin_user_pages(&process, Read, page, PinFlags::empty(), runs(1)).unwrap().into_raw();
        process.budget().uncharge(1, PinTerm::Short);
        refused_at(&machine, &process, at, PinError::KeptByPin);
        process.budget().charge(1, PinTerm::Short).unwrap();
        // SAFETY: taken through this kernel, and this budget.
        let short = unsafe { pagepin::pin::Pinned::from_raw(&process, short) };
        drop(short);
        if at != 0 {
            let got = machine.reference::<Read>(&process, A + at * PAGE, 1);
            let got = got.unwrap();
            // `Split23x4x4` has gets apart, and pins none of those.
            let kept = machine.word(machine.frame_at(&process, A + at * PAGE).0).try_pin();
            let reason = match kept {
                Ok(()) => {
                    _ = machine
                        .word(machine.frame_at(&process, A + at * PAGE).0)
                        .unpin(pagepin::frame::Dirty::No)
                        .unwrap();
                    PinError::KeptByReference
                }
                Err(_) => PinError::OtherKind,
            };
            refused_at(&machine, &process, at, reason);
            drop(got);
        }
        let pins = pin::<Write, L>(Form::Fast, &process, A, 6).unwrap();
        all_stay(&machine, &process, &pins);
        drop(pins);
        assert_eq!(
            (0..6).map(|page| machine.get(&process, A + page * PAGE)).collect::<Vec<_>>(),
            [10, 11, 12, 13, 14, 15]
        );
    }
}

/// A source that never finds a place good enough, large leaves, and objects whose pages lie among what moves: an error, and an end.
fn a_page_that_never_may_stay_ends_the_pin<L: Layout>() {
    let machine = divided::<L>(4096);
    machine.shelf().add(FILE, 8);
    let process = machine.process_within(64, SpaceOptions::without_kernel_half(Levels::Four));
    process.map(A, 6 * PAGE, RW).unwrap();
    machine.put_pages(&process, A, 6, 10);
    machine.memory().forbid_to_stay(Pfn::new(0)..Pfn::new(u64::MAX));
    refused_at(&machine, &process, 0, PinError::Contended);
    machine.memory().forbid_to_stay(Pfn::new(0)..Pfn::new(0));
    process.unmap(A + 4 * PAGE, 2 * PAGE).unwrap();
    machine.shelf().place_among_movable(true);
    process.map_object(A + 4 * PAGE, 2 * PAGE, FILE, 0, Sharing::Shared, RW).unwrap();
    refused_at(&machine, &process, 4, PinError::CannotMove);
    let short = pin_user_pages(&process, Write, range(&process, A, 6 * PAGE), PinFlags::empty(), runs(8)).unwrap();
    assert_eq!(short.pages(), 6);
    drop(short);
    drop(process);
    let process = machine.process();
    let large = LeafSize::Size2MiB;
    process.map(LARGE - 2 * PAGE, large.bytes() + 2 * PAGE, RW).unwrap();
    machine.install(&process, LARGE, large, machine.block(large), 0x67);
    machine.put_pages(&process, LARGE - 2 * PAGE, 2, 10);
    for (first, pages, kept) in [(LARGE - 2 * PAGE, 6, 2), (LARGE - PAGE, 513, 1)] {
        for form in [Form::Fast, Form::Slow] {
            let pins = pin::<Write, L>(form, &process, first, pages).unwrap();
            assert_eq!((pins.pages(), pins.stopped().unwrap().reason), (kept, PinError::CannotMove));
        }
        let fast = pin::<Write, L>(Form::FastOnly, &process, first, pages).unwrap();
        assert_eq!((fast.pages(), fast.stopped().unwrap().reason), (kept, PinError::WouldFault));
    }
    assert_eq!(pin::<Read, L>(Form::Fast, &process, LARGE + 7 * PAGE, 2).err(), Some(PinError::CannotMove));
    machine.audit(&[&process], &Default::default());
    drop(process);
    machine.clear_shelf();
}

/// A device that writes for as long as user space wants, and a disk that is to have the file: refused by name, and only that.
fn a_file_that_is_written_back_is_not_pinned_for_long_for_writing<L: Layout>() {
    let machine = divided::<L>(128);
    machine.shelf().add(FILE, 8);
    machine.shelf().write_back(FILE, true);
    let process = machine.process();
    process.map_object(A, 2 * PAGE, FILE, 0, Sharing::Shared, RW).unwrap();
    process.map_object(A + 2 * PAGE, 2 * PAGE, FILE, 0, Sharing::Private, RW).unwrap();
    machine.put(&process, A, 1);
    for form in FORMS {
        let refused = if form == Form::FastOnly { PinError::WouldFault } else { PinError::WrittenBack };
        assert_eq!(pin::<Write, L>(form, &process, A, 2).err(), Some(refused), "{form:?}");
        let sole = forms::pin::<Write, L>(form, &process, range(&process, A, PAGE), LONG | PinFlags::SOLE, 1).err();
        assert!(matches!(sole, Some(PinError::WrittenBack | PinError::NoSole | PinError::InvalidFlags)), "{sole:?}");
        if form != Form::FastOnly {
            drop(pin::<Read, L>(form, &process, A, 2).unwrap().complete().unwrap());
            drop(pin::<Write, L>(form, &process, A + 2 * PAGE, 2).unwrap().complete().unwrap());
            drop(machine.pin::<Write>(&process, A, 2 * PAGE).unwrap().complete().unwrap());
            let mixed = pin::<Write, L>(form, &process, A, 4).err();
            assert_eq!(mixed, Some(PinError::WrittenBack));
        }
    }
    drop(pin::<Read, L>(Form::FastOnly, &process, A, 2).unwrap().complete().unwrap());
    machine.shelf().write_back(FILE, false);
    drop(pin::<Write, L>(Form::Fast, &process, A, 4).unwrap().complete().unwrap());
    assert_eq!(pin::<Write, L>(Form::FastOnly, &process, A, 2).err(), Some(PinError::WouldFault), "only its VMA knows");
    drop(process);
    machine.clear_shelf();
}

/// Memory runs out, or fails once, at each allocation: what was pinned before is a shorter pin, and the budget has the rest back.
fn every_allocation_fails_once<L: Layout>() {
    const PAGES: u64 = 44;
    let scene = |machine: &Machine<L>| {
        machine.memory().divide();
    };
    for once in [false, true] {
        for allowed in 0.. {
            let machine = Machine::<L>::new(256);
            scene(&machine);
            let process = machine.process_within(PAGES, SpaceOptions::without_kernel_half(Levels::Four));
            process.map(A, PAGES * PAGE, RW).unwrap();
            machine.put_pages(&process, A, 40, 10);
            let limit =
                |some: Option<u64>| if once { machine.memory().fail_once(some) } else { machine.memory().allow(some) };
            limit(Some(allowed));
            let pins = pin::<Write, L>(Form::Fast, &process, A, PAGES);
            limit(None);
            let refused = machine.memory().refusals() != 0;
            let pages = match &pins {
                Ok(pins) => {
                    let missing = |pages| if pages < 40 { PinError::NoPinnableMemory } else { PinError::NoMemory };
                    let expected = (pins.pages() < PAGES).then(|| missing(pins.pages()));
                    assert_eq!(pins.stopped().map(|stopped| stopped.reason), expected);
                    pins.pages()
                }
                Err(error) => {
                    assert_eq!(*error, PinError::NoPinnableMemory);
                    0
                }
            };
            process.budget().charge(PAGES - pages, PinTerm::Long).unwrap();
            assert!(process.budget().charge(1, PinTerm::Long).is_err());
            process.budget().uncharge(PAGES - pages, PinTerm::Long);
            let resumed = pins.map(|pins| pins.resume()).or_else(|_| pin::<Write, L>(Form::Slow, &process, A, PAGES));
            all_stay(&machine, &process, resumed.as_ref().unwrap());
            drop(resumed);
            let read: Vec<_> = (0..PAGES).map(|page| machine.get(&process, A + page * PAGE)).collect();
            assert_eq!(read, (10..50).chain([0; 4]).collect::<Vec<u8>>());
            machine.audit(&[&process], &Default::default());
            if !refused {
                assert_eq!(allowed, PAGES, "each page is allocated once");
                break;
            }
        }
    }
}

/// At each exchange of it another thread pins a page, or lets its pin go, where it was: what is pinned is what the process has.
fn pins_of_others_come_between<L: Layout>() {
    for at in 0.. {
        let machine = divided::<L>(128);
        let process = machine.populated(4, 10);
        let mut others = Vec::new();
        let race = || {
            for page in 0..4 {
                let page = range(&process, A + page * PAGE, 1);
                others.extend(pin_user_pages_fast_only(&process, Write, page, PinFlags::empty(), runs(1)).ok());
            }
        };
        let (long, raced) = machine.at_exchange(at, race, || pin::<Write, L>(Form::Slow, &process, A, 4));
        let pages = match &long {
            Ok(long) => {
                let kept = long.pages() < 4;
                assert_eq!(long.stopped().map(|stopped| stopped.reason), kept.then_some(PinError::KeptByPin));
                long.pages()
            }
            Err(error) => {
                assert_eq!(*error, PinError::KeptByPin);
                0
            }
        };
        let frames: Vec<_> = (0..4).map(|page| machine.frame_at(&process, A + page * PAGE).0).collect();
        assert!(frames.iter().take(pages as usize).all(|frame| machine.memory().is_in(Zone::Unmovable, *frame)));
        assert!(others.iter().all(|pin| frames.contains(&pin.runs()[0].first())));
        let read: Vec<_> = (0..4).map(|page| machine.get(&process, A + page * PAGE)).collect();
        assert_eq!(read, [10, 11, 12, 13]);
        drop(others);
        let long = long.map(|long| long.resume()).or_else(|_| pin::<Write, L>(Form::Slow, &process, A, 4)).unwrap();
        all_stay(&machine, &process, &long);
        if !raced {
            break;
        }
    }
}

/// Never faulting, alone, by force, and in one step after another.
fn the_other_flags_mean_what_they_mean<L: Layout>() {
    let machine = divided::<L>(512);
    let process = machine.populated(6, 10);
    assert_eq!(pin::<Write, L>(Form::Slow, &process, A + 4 * PAGE, 1).unwrap().pages(), 1);
    let all = range(&process, A, 6 * PAGE);
    for form in [Form::Fast, Form::Slow] {
        let pin = |range, flags| forms::pin::<Write, L>(form, &process, range, flags, 8);
        assert_eq!(pin(all, LONG | PinFlags::NOFAULT).err(), Some(PinError::WouldFault));
        let stays = range(&process, A + 4 * PAGE, 2 * PAGE);
        let some = pin(stays, LONG | PinFlags::NOFAULT).unwrap();
        assert_eq!((some.pages(), some.stopped().unwrap().reason), (1, PinError::WouldFault));
    }
    if L::HAS_SOLE {
        assert_eq!(
            forms::pin::<Write, L>(Form::Slow, &process, all, LONG | PinFlags::SOLE | PinFlags::NOFAULT, 8).err(),
            Some(PinError::WouldFault)
        );
        let sole = forms::pin::<Write, L>(Form::Slow, &process, all, LONG | PinFlags::SOLE, 8).unwrap();
        all_stay(&machine, &process, &sole);
        assert!(sole.runs().iter().all(pagepin::pin::PhysRun::is_sole));
        assert_eq!(machine.pin::<Read>(&process, A, 1).err(), Some(PinError::Sole));
    }
    process.map(FAR, 2 * PAGE, MapOptions::new(R).max_rights(Rights::all())).unwrap();
    drop(machine.pin_slow::<Write>(&process, FAR, PAGE, PinFlags::FORCE).unwrap());
    let forced =
        forms::pin::<Write, L>(Form::Slow, &process, range(&process, FAR, 2 * PAGE), LONG | PinFlags::FORCE, 8);
    all_stay(&machine, &process, &forced.unwrap());
}

/// In the middle of a run, which comes to an end there, and nothing else moves.
fn one_frame_of_a_run_may_not_stay<L: Layout>() {
    let machine = divided::<L>(128);
    let process = machine.populated(6, 10);
    drop(pin::<Write, L>(Form::Slow, &process, A, 6).unwrap());
    let frame = machine.frame_at(&process, A + 3 * PAGE).0;
    machine.memory().forbid_to_stay(frame..frame.offset(1));
    let all = range(&process, A, 6 * PAGE);
    for form in [Form::Fast, Form::Slow] {
        let pins = forms::pin::<Write, L>(form, &process, all, LONG | PinFlags::NOFAULT, 8).unwrap();
        assert_eq!((pins.runs().len(), pins.pages(), pins.stopped().unwrap().reason), (1, 3, PinError::WouldFault));
    }
    let pins = pin::<Write, L>(Form::FastOnly, &process, A, 6).unwrap();
    let allocations = machine.memory().allocations();
    let pins = pins.resume();
    all_stay(&machine, &process, &pins);
    assert_ne!(machine.frame_at(&process, A + 3 * PAGE).0, frame);
    assert_eq!(machine.memory().allocations() - allocations, 1);
}

/// More pages than one section is for, in parts, over the ends of tables.
fn many_pages_in_many_sections<L: Layout>() {
    const PAGES: u64 = 1300;
    let machine = divided::<L>(4096);
    let process = machine.process();
    process.map(A, PAGES * PAGE, RW).unwrap();
    machine.put_pages(&process, A, PAGES, 1);
    drop(pin::<Read, L>(Form::Slow, &process, A + 600 * PAGE, 5).unwrap());
    let long = pin::<Write, L>(Form::Fast, &process, A, PAGES).unwrap();
    all_stay(&machine, &process, &long);
    drop(long);
    (0..PAGES).for_each(|page| assert_eq!(machine.get(&process, A + page * PAGE), (1 + page) as u8));
}

every_layout!(
    pages_move_to_where_they_may_stay,
    new_pages_are_made_where_they_stay,
    all_kinds_in_one_range_are_pinned,
    a_page_that_others_keep_is_named,
    a_page_that_never_may_stay_ends_the_pin,
    a_file_that_is_written_back_is_not_pinned_for_long_for_writing,
    every_allocation_fails_once,
    pins_of_others_come_between,
    the_other_flags_mean_what_they_mean,
    one_frame_of_a_run_may_not_stay,
    many_pages_in_many_sections,
);
