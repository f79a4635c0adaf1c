//! Pins of many pages that need a copy: one flush for up to 64 of them, frames born pinned, and others in between.

use std::collections::BTreeMap;

use pagepin::frame::Layout;
use pagepin::pin::{PinAccess, PinError, PinFlags, Read, Write};
use pagepin::space::UserSpace;
use pagepin::{Pfn, PinLimit};

use crate::forms::{self, Form};
use crate::machine::{A, FOREIGN, Machine, PAGE, Process, RW, range};

/// What the pages are before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pages {
    /// Shared with the child.
    Shared,
    /// The zero frame.
    Zero,
    /// One of each in turn.
    Mixed,
}

struct Scene<'m, L: Layout> {
    process: Process<'m, L>,
    child: UserSpace<&'m Machine<L>, std::sync::Arc<PinLimit>>,
    pages: Pages,
}

impl<'m, L: Layout> Scene<'m, L> {
    fn new(machine: &'m Machine<L>, pages: Pages, count: u64) -> Self {
        let process = machine.process();
        process.map(A, count * PAGE, RW).unwrap();
        for page in 0..count {
            match byte(pages, page) {
                0 => assert_eq!(machine.get(&process, A + page * PAGE), 0),
                byte => machine.put(&process, A + page * PAGE, byte),
            }
        }
        let child = process.fork().unwrap();
        Self { process, child, pages }
    }

    /// The frames of `pins` are those that the pages map, and nobody else's.
    fn check(&self, machine: &Machine<L>, pinned: &[Pfn]) {
        for (page, frame) in pinned.iter().enumerate() {
            assert_eq!(machine.frame_at(&self.process, A + page as u64 * PAGE).0, *frame, "INV-11");
            assert!(machine.word(*frame).snapshot().exclusive, "INV-3");
        }
        let held: BTreeMap<_, _> = pinned.iter().map(|frame| (*frame, (1, 1))).collect();
        machine.audit(&[&self.process, &self.child], &held);
    }

    fn check_child(&self, machine: &Machine<L>, count: u64) {
        for page in 0..count {
            assert_eq!(machine.get(&self.child, A + page * PAGE), byte(self.pages, page), "the child's page changed");
        }
    }
}

/// What page number `page` holds; 0 is read and not written.
fn byte(pages: Pages, page: u64) -> u8 {
    match pages {
        Pages::Shared => 1 + page as u8,
        Pages::Zero => 0,
        Pages::Mixed => (page as u8 % 2) * (1 + page as u8),
    }
}

fn frames(runs: &[pagepin::pin::PhysRun]) -> Vec<Pfn> {
    runs.iter().flat_map(|run| (0..run.pages()).map(|index| run.first().offset(index))).collect()
}

fn flushes_once_for_64<X: PinAccess, L: Layout>(pages: Pages, form: Form) {
    const COUNT: u64 = 150;
    let machine = Machine::<L>::new(600);
    let scene = Scene::new(&machine, pages, COUNT);
    let before = (machine.flushes(), machine.memory().allocations());
    let pins = forms::pin::<X, L>(form, &scene.process, range(&scene.process, A, COUNT * PAGE), PinFlags::empty(), 200)
        .unwrap();
    assert_eq!(pins.pages(), COUNT);
    assert_eq!(machine.flushes() - before.0, COUNT.div_ceil(64), "{pages:?}");
    assert_eq!(machine.memory().allocations() - before.1, COUNT);
    let pinned = frames(pins.runs());
    scene.check(&machine, &pinned);
    for (page, frame) in pinned.iter().enumerate() {
        assert_eq!(machine.dma_read(frame.address()), byte(pages, page as u64));
        if X::WRITES {
            machine.dma_write(frame.address(), &[7]);
            assert_eq!(machine.get(&scene.process, A + page as u64 * PAGE), 7);
        }
    }
    drop(pins);
    scene.check(&machine, &[]);
    scene.check_child(&machine, COUNT);
}

/// However they are shared, and whoever asks.
fn many_pages_are_flushed_together<L: Layout>() {
    for pages in [Pages::Shared, Pages::Zero, Pages::Mixed] {
        for form in [Form::Fast, Form::Slow, Form::Remote] {
            flushes_once_for_64::<Read, L>(pages, form);
            flushes_once_for_64::<Write, L>(pages, form);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Rival {
    Load,
    Store,
    ReadPin,
    WritePin,
}

/// Four pages, and another CPU that comes first at each exchange. It asks for the last page, which nobody owns by then.
fn whoever_comes_first_keeps_its_page<L: Layout>() {
    const COUNT: u64 = 4;
    const LAST: u64 = A + (COUNT - 1) * PAGE;
    let mut races = 0;
    for pages in [Pages::Shared, Pages::Zero, Pages::Mixed] {
        for rival in [Rival::Load, Rival::Store, Rival::ReadPin, Rival::WritePin] {
            for step in 0.. {
                let machine = Machine::<L>::new(128);
                let scene = Scene::new(&machine, pages, COUNT);
                let (process, mut last) = (&scene.process, byte(pages, COUNT - 1));
                let page = range(process, LAST, 1);
                let race = || match rival {
                    Rival::Load => assert_eq!(machine.load(1, process, LAST, 1).unwrap(), u64::from(last)),
                    Rival::Store => {
                        last = 99;
                        machine.store(1, process, LAST, 99, 1).unwrap();
                    }
                    Rival::ReadPin => {
                        drop(forms::pin::<Read, L>(Form::Slow, process, page, PinFlags::empty(), 1).unwrap());
                    }
                    Rival::WritePin => {
                        drop(forms::pin::<Write, L>(Form::Slow, process, page, PinFlags::empty(), 1).unwrap());
                    }
                };
                let all = range(process, A, COUNT * PAGE);
                let pin = || forms::pin::<Read, L>(Form::Slow, process, all, PinFlags::empty(), 4).unwrap();
                let (pins, fired) = machine.at_exchange(step, race, pin);
                assert_eq!(pins.pages(), COUNT, "{pages:?}, {rival:?} at {step}");
                let pinned = frames(pins.runs());
                scene.check(&machine, &pinned);
                assert_eq!(
                    machine.dma_read(pinned[COUNT as usize - 1].address()),
                    last,
                    "{pages:?}, {rival:?} at {step}"
                );
                drop(pins);
                scene.check(&machine, &[]);
                scene.check_child(&machine, COUNT);
                if !fired {
                    break;
                }
                races += 1;
            }
        }
    }
    assert!(races >= 3 * 4 * 4, "{races}");
}

/// While the flush is not acknowledged, others have what the old translations show, and the pages are nobody's to pin.
fn a_slow_flush_holds_up_these_pages_alone<L: Layout>() {
    let machine = Machine::<L>::new(128);
    let scene = Scene::new(&machine, Pages::Shared, 4);
    let process = &scene.process;
    assert_eq!(machine.load(1, process, A + PAGE, 1).unwrap(), 2);
    let meanwhile = || {
        assert_eq!(machine.load(1, process, A + PAGE, 1).unwrap(), 2, "by the translation that CPU 1 has");
        let page = range(process, A + PAGE, 1);
        let pin = forms::pin::<Read, L>(Form::FastOnly, process, page, PinFlags::empty(), 1);
        assert_eq!(pin.err(), Some(PinError::WouldFault));
        machine.store(2, process, A + 3 * PAGE, 10, 1).unwrap();
    };
    let pin = || forms::pin::<Read, L>(Form::Slow, process, range(process, A, 3 * PAGE), PinFlags::empty(), 3).unwrap();
    let pins = machine.before_acknowledgement(meanwhile, pin);
    scene.check(&machine, &frames(pins.runs()));
    drop(pins);
    assert_eq!(machine.get(process, A + 3 * PAGE), 10);
}

/// Memory runs out in the middle: the pages before are pinned and charged, the error is named, and no copy is lost.
fn an_allocation_that_fails_ends_the_pin_there<L: Layout>() {
    const COUNT: u64 = 6;
    for pages in [Pages::Shared, Pages::Zero, Pages::Mixed] {
        for failing in 0..COUNT {
            let machine = Machine::<L>::new(128);
            let scene = Scene::new(&machine, pages, COUNT);
            let all = range(&scene.process, A, COUNT * PAGE);
            machine.memory().fail_once(Some(failing));
            let result = forms::pin::<Read, L>(Form::Slow, &scene.process, all, PinFlags::empty(), 8);
            machine.memory().fail_once(None);
            let Ok(pins) = result else {
                assert_eq!((result.err(), failing), (Some(PinError::NoMemory), 0));
                scene.check(&machine, &[]);
                continue;
            };
            let stopped = pins.stopped().unwrap();
            assert_eq!((stopped.page_index, stopped.reason), (failing, PinError::NoMemory), "{pages:?}");
            assert_eq!(scene.process.budget().used(), failing);
            scene.check(&machine, &frames(pins.runs()));
            let pins = pins.resume();
            assert_eq!(pins.pages(), COUNT);
            scene.check(&machine, &frames(pins.runs()));
        }
    }
}

/// A buffer without room for as many runs ends the pin, and nothing that was copied for it is lost.
fn runs_without_room_end_the_pin<L: Layout>() {
    for room in 1..5 {
        let machine = Machine::<L>::new(128);
        machine.memory().scatter(true);
        let scene = Scene::new(&machine, Pages::Shared, 6);
        let all = range(&scene.process, A, 6 * PAGE);
        let pins = forms::pin::<Read, L>(Form::Slow, &scene.process, all, PinFlags::empty(), room).unwrap();
        assert_eq!(pins.stopped().unwrap().reason, PinError::BufferTooSmall);
        assert_eq!(pins.pages(), room as u64);
        scene.check(&machine, &frames(pins.runs()));
    }
}

/// What lies in the next table is copied by itself.
fn a_batch_ends_with_its_table<L: Layout>() {
    // Four pages before the end of a table.
    const START: u64 = FOREIGN - 2 * PAGE;
    let machine = Machine::<L>::new(128);
    let process = machine.process();
    process.map(START, 8 * PAGE, RW).unwrap();
    machine.put_pages(&process, START, 8, 10);
    let child = process.fork().unwrap();
    let before = machine.flushes();
    let all = range(&process, START, 8 * PAGE);
    let pins = forms::pin::<Write, L>(Form::Slow, &process, all, PinFlags::empty(), 8).unwrap();
    assert_eq!((pins.pages(), machine.flushes() - before), (8, 2));
    let pinned = frames(pins.runs());
    for (page, frame) in pinned.iter().enumerate() {
        assert_eq!(machine.frame_at(&process, START + page as u64 * PAGE).0, *frame, "INV-11");
        assert_eq!(machine.dma_read(frame.address()), 10 + page as u8);
    }
    let held: BTreeMap<_, _> = pinned.iter().map(|frame| (*frame, (1, 1))).collect();
    machine.audit(&[&process, &child], &held);
}

/// Memory runs out for the third page, and the second is taken by another CPU meanwhile: the first is pinned, and the rest is
/// asked for as before.
fn a_failure_behind_a_page_that_was_taken_is_none<L: Layout>() {
    const COUNT: u64 = 4;
    let machine = Machine::<L>::new(128);
    let scene = Scene::new(&machine, Pages::Shared, COUNT);
    let process = &scene.process;
    let all = range(process, A, COUNT * PAGE);
    machine.memory().fail_once(Some(2));
    let race = || machine.store(1, process, A + PAGE, 99, 1).unwrap();
    let pin = || forms::pin::<Read, L>(Form::Slow, process, all, PinFlags::empty(), 4).unwrap();
    let (pins, raced) = machine.at_exchange(1, race, pin);
    machine.memory().fail_once(None);
    assert!(raced);
    assert_eq!(pins.pages(), COUNT);
    let pinned = frames(pins.runs());
    scene.check(&machine, &pinned);
    assert_eq!(machine.dma_read(pinned[1].address()), 99);
    drop(pins);
    scene.check(&machine, &[]);
    scene.check_child(&machine, COUNT);
}

every_layout!(
    a_batch_ends_with_its_table,
    a_failure_behind_a_page_that_was_taken_is_none,
    a_slow_flush_holds_up_these_pages_alone,
    an_allocation_that_fails_ends_the_pin_there,
    many_pages_are_flushed_together,
    runs_without_room_end_the_pin,
    whoever_comes_first_keeps_its_page,
);
