//! Races with a lockless walk, each at every step of it: before every load of an entry and every look-up of a frame.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use pagepin::frame::Layout;
use pagepin::pin::{PinAccess, PinError, PinFlags, Read, Write};
use pagepin::{EntryAddr, Pfn};

use crate::forms::{self, Form};
use crate::machine::{Machine, NONE, PAGE, Process, R, RW, range};

/// The first page of a level-1 table; the range of these tests has two pages on each side.
const EDGE: u64 = 0x7f_1220_0000;
const START: u64 = EDGE - 2 * PAGE;
const PAGES: u64 = 4;

struct Scene<'m, L: Layout> {
    machine: &'m Machine<L>,
    process: Process<'m, L>,
    /// Gets whatever frame is free first, so a recycled frame lands here.
    other: Process<'m, L>,
}

impl<'m, L: Layout> Scene<'m, L> {
    fn new(machine: &'m Machine<L>) -> Self {
        let (process, other) = (machine.process(), machine.process());
        // Tables first, so that only data frames are taken during the race, and the pages are neighbours in memory as well.
        let beside = [START - PAGE, START + PAGES * PAGE];
        for page in beside {
            process.map(page, PAGE, RW).unwrap();
            machine.put(&process, page, 1);
        }
        process.map(START, PAGES * PAGE, RW).unwrap();
        machine.put_pages(&process, START, PAGES, 1);
        let frame = |page: u64| machine.leaf(&process, START + page * PAGE).unwrap().frame();
        assert!((1..PAGES).all(|page| frame(page) == frame(page - 1).offset(1)), "neighbours");
        for page in beside {
            process.unmap(page, PAGE).unwrap();
        }
        other.map(START, 64 * PAGE, RW).unwrap();
        machine.put_pages(&other, START + 61 * PAGE, 3, 9);
        Self { machine, process, other }
    }
}

/// What another CPU does in the middle of the walk.
type Race<L> = for<'a, 'm> fn(&'a Scene<'m, L>, &'a mut Option<Process<'m, L>>);

fn races<L: Layout>() -> [(&'static str, Race<L>); 11] {
    [
        ("unmap", |scene, _| _ = scene.process.unmap(START, PAGES * PAGE).unwrap()),
        ("unmap one page", |scene, _| _ = scene.process.unmap(EDGE, PAGE).unwrap()),
        ("discard", |scene, _| _ = scene.process.discard(START + PAGE, 2 * PAGE).unwrap()),
        ("unmap and reuse by another mm", |scene, _| {
            scene.process.unmap(START, PAGES * PAGE).unwrap();
            scene.machine.put_pages(&scene.other, START, PAGES, 0x80);
        }),
        ("discard and reuse by another mm", |scene, _| {
            // The tables stay, so that only the leaf tells.
            scene.process.discard(START, PAGES * PAGE).unwrap();
            scene.machine.put_pages(&scene.other, START, PAGES, 0x80);
        }),
        ("discard and touch in reverse", |scene, _| {
            scene.process.discard(START, PAGES * PAGE).unwrap();
            (0..PAGES).rev().for_each(|page| scene.machine.put(&scene.process, START + page * PAGE, 0x70));
        }),
        ("unmap, map again and touch in reverse", |scene, _| {
            scene.process.unmap(START, PAGES * PAGE).unwrap();
            scene.process.map(START, PAGES * PAGE, RW).unwrap();
            (0..PAGES).rev().for_each(|page| scene.machine.put(&scene.process, START + page * PAGE, 0x70));
        }),
        ("fork", |scene, child| *child = Some(scene.process.fork().unwrap())),
        ("fork and copy on write", |scene, child| {
            *child = Some(scene.process.fork().unwrap());
            scene.machine.put_pages(&scene.process, START, PAGES, 0x60);
        }),
        ("write-protect", |scene, _| scene.process.protect(START, PAGES * PAGE, R).unwrap()),
        ("take all rights", |scene, _| scene.process.protect(EDGE - PAGE, 2 * PAGE, NONE).unwrap()),
    ]
}

/// One race at one step. Whether the walk was that long.
fn race_once<X: PinAccess, L: Layout>(
    (name, race): (&str, Race<L>),
    (first, pages): (u64, u64),
    (form, pin): (Form, bool),
    step: u64,
) -> bool {
    let machine = Machine::<L>::new(96);
    let scene = Scene::new(&machine);
    let mut child = None;
    let all = range(&scene.process, first, pages * PAGE);
    let what = format!("{name}, {pages} pages, {form:?}, pin {pin}, write {}, step {step}", X::WRITES);
    let mut held: BTreeMap<Pfn, (u64, u64)> = BTreeMap::new();
    let mut hold = |runs: &[pagepin::pin::PhysRun]| {
        for run in runs {
            for frame in run.first().number()..run.end().number() {
                let counts = held.entry(Pfn::new(frame)).or_default();
                *counts = (counts.0 + 1, counts.1 + u64::from(pin));
            }
        }
    };
    let none = PinFlags::empty();
    let run_race = || race(&scene, &mut child);
    let (mut pins, mut gets) = (None, None);
    let fired = if pin {
        let call = || forms::pin::<X, L>(form, &scene.process, all, none, 8);
        let (result, fired) = machine.race_at(step, run_race, call);
        pins = result.ok();
        fired
    } else {
        let call = || forms::get::<X, L>(form, &scene.process, all, none, 8);
        let (result, fired) = machine.race_at(step, run_race, call);
        gets = result.ok();
        fired
    };
    pins.iter().for_each(|pins| hold(pins.runs()));
    gets.iter().for_each(|gets| hold(gets.runs()));
    let spaces: Vec<_> = [&scene.process, &scene.other].into_iter().chain(child.as_ref()).collect();
    // Exact counts (INV-10), INV-1 to INV-3; a count left on a frame that was recycled would show here.
    machine.audit(&spaces, &held);
    // No frame of another process was taken.
    let (foreign, _) = machine.leaves(&scene.other);
    for frame in held.keys() {
        assert!(foreign.iter().all(|leaf| leaf.frame() != *frame), "{what}: took {frame:?} of another process");
    }
    if pin && name == "discard and touch in reverse" {
        // Each pinned frame is mapped where it was found, or nowhere any more; never at another page.
        let frames = pins.iter().flat_map(|pins| pins.runs().to_vec());
        let frames = frames.flat_map(|run| run.first().number()..run.end().number()).map(Pfn::new);
        for (page, frame) in frames.enumerate() {
            let page = first + page as u64 * PAGE;
            for other in (0..PAGES).map(|other| START + other * PAGE).filter(|other| *other != page) {
                let mapped = machine.leaf(&scene.process, other).map(|leaf| leaf.frame());
                assert_ne!(mapped, Some(frame), "{what}: {page:#x} is pinned where {other:#x} is");
            }
        }
    }
    // INV-11, as far as the page is still mapped and was not remapped by the race itself.
    if pin && name.starts_with("fork") {
        let runs: Vec<_> = pins.iter().flat_map(|pins| pins.runs().to_vec()).collect();
        let frames = runs.iter().flat_map(|run| run.first().number()..run.end().number());
        for (page, frame) in frames.enumerate() {
            let mapped = machine.frame_at(&scene.process, first + page as u64 * PAGE).0;
            assert_eq!(mapped, Pfn::new(frame), "{what}: INV-3, page {page}");
        }
    }
    drop((pins, gets));
    machine.audit(&spaces, &BTreeMap::new());
    let counters = pagepin::Env::statistics(&machine);
    assert_eq!(counters.pins_acquired, counters.pins_released, "{what}");
    fired
}

fn every_race_at_every_step<X: PinAccess, L: Layout>() {
    // One page, the last of its table, and a range over two tables.
    for (pages, at_least) in [((EDGE - PAGE, 1), 4), ((START, PAGES), 15)] {
        for race in races::<L>() {
            for form in [(Form::FastOnly, true), (Form::FastOnly, false), (Form::Fast, true)] {
                let steps = (0..).take_while(|step| race_once::<X, L>(race, pages, form, *step)).count();
                assert!(steps > at_least, "{}: the walk has only {steps} steps", race.0);
            }
        }
    }
}

fn races_with_a_read_pin_leave_exact_counts<L: Layout>() {
    every_race_at_every_step::<Read, L>();
}

fn races_with_a_write_pin_leave_exact_counts<L: Layout>() {
    every_race_at_every_step::<Write, L>();
}

/// The entry above the leaf table changes, and no leaf below does: as a large leaf that replaces the table would do it.
/// Whenever that happens during the walk, nothing of the table is kept.
fn a_change_of_the_entry_above_undoes_the_whole_table<L: Layout>() {
    for (pin, count) in [(true, 2), (false, 2), (true, 1), (false, 1)] {
        for step in 0.. {
            let machine = Machine::<L>::new(64);
            let scene = Scene::new(&machine);
            let (process, none) = (&scene.process, PinFlags::empty());
            let path = machine.path(process, EDGE);
            let (level, above, bits) = path[path.len() - 2];
            assert_eq!(level, 2);
            // The other table, whose entries map other pages at these indices, or none.
            let elsewhere = machine.path(process, START)[path.len() - 2].2;
            let pages = range(process, EDGE, count * PAGE);
            let change = || machine.poke(above, elsewhere);
            let (acquired, fired) = if pin {
                let call = || forms::pin::<Write, L>(Form::FastOnly, process, pages, none, 4).map(drop);
                machine.race_at(step, change, call)
            } else {
                let call = || forms::get::<Write, L>(Form::FastOnly, process, pages, none, 4).map(drop);
                machine.race_at(step, change, call)
            };
            machine.poke(above, bits);
            let frame = machine.frame_at(process, EDGE);
            assert_eq!((frame.1.refs, frame.1.pins), (1, 0), "step {step}");
            if !fired {
                assert_eq!(acquired, Ok(()));
                assert!(step > 4 + count, "the walk has only {step} steps");
                break;
            }
            assert_eq!(acquired, Err(PinError::WouldFault), "step {step}");
        }
    }
}

/// A leaf changes to another frame: the page is not returned with the frame that was there, unless it changed later.
fn a_change_of_the_leaf_is_noticed<L: Layout>() {
    // The first of its table, and one that continues a run.
    (2..4).for_each(a_change_of_one_leaf_is_noticed::<L>);
}

fn a_change_of_one_leaf_is_noticed<L: Layout>(page: u64) {
    for step in 0.. {
        let machine = Machine::<L>::new(64);
        let scene = Scene::new(&machine);
        let process = &scene.process;
        let leaf = machine.leaf(process, START + page * PAGE).unwrap();
        let pages = range(process, START, PAGES * PAGE);
        let change = || machine.poke(leaf.at, leaf.bits & !1);
        let call = || forms::pin::<Write, L>(Form::FastOnly, process, pages, PinFlags::empty(), 4);
        let (result, fired) = machine.race_at(step, change, call);
        let count = result.as_ref().map_or(0, |pins| pins.pages());
        assert!(count == page || count == PAGES, "step {step}: {count} pages");
        let seen = result.as_ref().ok().and_then(|pins| pins.stopped()).map(|stopped| stopped.reason);
        assert!(count == PAGES || seen == Some(PinError::WouldFault));
        drop(result);
        machine.poke(leaf.at, leaf.bits);
        machine.audit(&[process, &scene.other], &BTreeMap::new());
        if !fired {
            break;
        }
    }
}

/// Hardware sets accessed and dirty at any time: no reason to give up.
fn accessed_and_dirty_may_change_during_the_walk<L: Layout>() {
    for step in 0.. {
        let machine = Machine::<L>::new(64);
        let scene = Scene::new(&machine);
        let process = &scene.process;
        let pages: Vec<EntryAddr> = (0..PAGES)
            .flat_map(|page| machine.path(process, START + page * PAGE))
            .map(|(_, at, bits)| {
                machine.poke(at, bits & !0x60);
                at
            })
            .collect();
        let hardware = || {
            pages.iter().for_each(|at| _ = machine.slot(*at).fetch_or(0x60, Ordering::AcqRel));
        };
        let all = range(process, START, PAGES * PAGE);
        let call = || forms::pin::<Write, L>(Form::FastOnly, process, all, PinFlags::empty(), 4);
        let (result, fired) = machine.race_at(step, hardware, call);
        assert_eq!(result.unwrap().pages(), PAGES, "step {step}");
        if !fired {
            break;
        }
    }
}

/// A large leaf goes away between its load and its re-read, and its block is somebody else's by then.
fn a_large_leaf_that_goes_away_is_noticed<L: Layout>() {
    let (size, address) = (pagepin::LeafSize::Size2MiB, 1 << 30);
    for step in 0.. {
        let machine = Machine::<L>::new(1024);
        let (process, other) = (machine.process(), machine.process());
        for process in [&process, &other] {
            process.map(address, size.bytes(), RW).unwrap();
        }
        let block = machine.block(size);
        machine.install(&process, address, size, block, 7);
        let some = range(&process, address + PAGE, 100 * PAGE);
        let recycle = || {
            process.unmap(address, size.bytes()).unwrap();
            // Not yet free if the walk holds it already: then it must give it back.
            if machine.word(block).snapshot().is_free() {
                let again = machine.block(size);
                assert_eq!(again, block, "there is only one");
                machine.install(&other, address, size, again, 7);
            }
        };
        let call = || forms::pin::<Write, L>(Form::FastOnly, &process, some, PinFlags::empty(), 1);
        let (result, fired) = machine.race_at(step, recycle, call);
        let word = machine.word(block).snapshot();
        if !fired {
            assert_eq!((result.unwrap().pages(), word.pins), (100, 1));
            break;
        }
        assert_eq!(result.err(), Some(PinError::WouldFault), "step {step}");
        let recycled = machine.leaf(&other, address).is_some();
        assert_eq!((word.refs, word.pins), (u64::from(recycled), 0), "step {step}");
    }
}

every_layout!(
    a_change_of_the_entry_above_undoes_the_whole_table,
    a_change_of_the_leaf_is_noticed,
    accessed_and_dirty_may_change_during_the_walk,
    a_large_leaf_that_goes_away_is_noticed;
    long: races_with_a_read_pin_leave_exact_counts,
    races_with_a_write_pin_leave_exact_counts,
);
