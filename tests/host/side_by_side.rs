//! Faults of one mm side by side: at each exchange of an entry by one, another CPU comes first.

use pagepin::frame::Layout;
use pagepin::pin::{PinFlags, Read, Write};
use pagepin::space::UserSpace;

use crate::forms::{self, Form};
use crate::machine::{A, Machine, NONE, PAGE, Process, R, RW, range};

/// What the page of [`A`] is before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    /// Nothing, and no table for it.
    NoTable,
    /// Nothing, in a table that is there.
    Untouched,
    /// The zero frame.
    Zero,
    /// Shared with the child.
    Shared,
    /// Was shared with a child that is gone.
    Left,
    /// This mm's own, read-only.
    ReadOnly,
    /// Without rights for a while.
    Restored,
}

const PAGES: [Page; 7] =
    [Page::NoTable, Page::Untouched, Page::Zero, Page::Shared, Page::Left, Page::ReadOnly, Page::Restored];

/// What a CPU does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Load,
    Store,
    ReadPin,
    WritePin,
    /// The child goes.
    Exit,
}

const ACTS: [Act; 4] = [Act::Load, Act::Store, Act::ReadPin, Act::WritePin];

type Child<'m, L> = std::cell::RefCell<Option<UserSpace<&'m Machine<L>, std::sync::Arc<pagepin::PinLimit>>>>;

struct Scene<'m, L: Layout> {
    machine: &'m Machine<L>,
    process: Process<'m, L>,
    child: Child<'m, L>,
    /// What the first byte is.
    byte: u8,
}

impl<'m, L: Layout> Scene<'m, L> {
    fn new(machine: &'m Machine<L>, page: Page) -> Self {
        let process = machine.process();
        process.map(A, 2 * PAGE, RW).unwrap();
        let mut scene = Self { machine, process, child: Child::default(), byte: 0 };
        match page {
            Page::NoTable => {}
            Page::Untouched => machine.put(&scene.process, A + PAGE, 1),
            Page::Zero => assert_eq!(machine.get(&scene.process, A), 0),
            Page::Shared | Page::Left | Page::ReadOnly | Page::Restored => {
                machine.put(&scene.process, A, 7);
                scene.byte = 7;
            }
        }
        match page {
            Page::Shared | Page::Left => {
                let child = scene.process.fork().unwrap();
                *scene.child.borrow_mut() = (page == Page::Shared).then_some(child);
            }
            Page::ReadOnly => {
                scene.process.protect(A, PAGE, R).unwrap();
                scene.process.protect(A, PAGE, RW).unwrap();
                // As if the entry had not been given the right at once.
                let leaf = machine.leaf(&scene.process, A).unwrap();
                machine.poke(leaf.at, leaf.bits & !2);
            }
            Page::Restored => {
                scene.process.protect(A, PAGE, NONE).unwrap();
                scene.process.protect(A, PAGE, RW).unwrap();
                let leaf = machine.leaf(&scene.process, A).unwrap();
                machine.poke(leaf.at, leaf.bits & !3 | 1 << pagepin::SOFTWARE_BITS[1]);
            }
            _ => {}
        }
        scene
    }

    /// What it stores, if anything.
    fn act(&self, cpu: usize, act: Act) -> Option<u8> {
        let (machine, process) = (self.machine, &self.process);
        let page = range(process, A, 1);
        let byte = 20 + cpu as u8;
        match act {
            Act::Load => {
                let seen = machine.load(cpu, process, A, 1).unwrap() as u8;
                assert!(seen == self.byte || seen >= 20, "a page of another: {seen}");
            }
            Act::Store => {
                machine.store(cpu, process, A, u64::from(byte), 1).unwrap();
                return Some(byte);
            }
            Act::ReadPin => {
                let pins = forms::pin::<Read, L>(Form::Slow, process, page, PinFlags::empty(), 1).unwrap();
                let frame = pins.runs()[0].first();
                assert_eq!(machine.frame_at(process, A).0, frame, "INV-11");
                let seen = machine.dma_read(frame.address());
                assert!(seen == self.byte || seen >= 20, "a page of another: {seen}");
            }
            Act::WritePin => {
                let pins = forms::pin::<Write, L>(Form::Slow, process, page, PinFlags::empty(), 1).unwrap();
                let frame = pins.runs()[0].first();
                assert_eq!(machine.frame_at(process, A).0, frame, "INV-11");
                machine.dma_write(frame.address(), &[byte]);
                return Some(byte);
            }
            Act::Exit => drop(self.child.take()),
        }
        None
    }
}

/// Nothing is lost, leaked or left behind, whoever is first; and somebody is late now and then.
fn whoever_comes_late_looks_again<L: Layout>() {
    let mut races = 0;
    for page in PAGES {
        let rivals = ACTS.into_iter().chain((page == Page::Shared).then_some(Act::Exit));
        for (act, rival) in rivals.flat_map(|rival| ACTS.map(|act| (act, rival))) {
            for step in 0.. {
                let machine = Machine::<L>::new(64);
                let scene = Scene::new(&machine, page);
                let mut by_rival = None;
                let race = || by_rival = scene.act(1, rival);
                let (stored, fired) = machine.at_exchange(step, race, || scene.act(0, act));
                if !fired {
                    break;
                }
                races += 1;
                let now = machine.get(&scene.process, A);
                let right = [stored, by_rival].into_iter().flatten().collect::<Vec<_>>();
                assert!(
                    right.contains(&now) || (right.is_empty() && now == scene.byte),
                    "{page:?}, {act:?} and {rival:?} at {step}: {now} of {right:?}"
                );
                let child = scene.child.borrow();
                let mut all = vec![&scene.process];
                all.extend(child.as_ref());
                machine.audit(&all, &std::collections::BTreeMap::new());
                if let Some(child) = &*child {
                    assert_eq!(machine.get(child, A), 7, "the child's page changed");
                }
            }
        }
    }
    assert!(races > 100, "{races}");
}

/// While the copy's flush is not acknowledged its owner is slow: others read by the old translation, pin nothing without a
/// lock, and fault on other pages.
fn a_slow_owner_holds_up_its_page_alone<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let scene = Scene::new(&machine, Page::Shared);
    machine.put(&scene.process, A + PAGE, 9);
    assert_eq!(machine.load(1, &scene.process, A, 1).unwrap(), 7);
    let meanwhile = || {
        assert_eq!(machine.load(1, &scene.process, A, 1).unwrap(), 7, "by the translation that CPU 1 has");
        let page = range(&scene.process, A, 1);
        let pin = forms::pin::<Read, L>(Form::FastOnly, &scene.process, page, PinFlags::empty(), 1);
        assert_eq!(pin.err(), Some(pagepin::pin::PinError::WouldFault));
        machine.store(2, &scene.process, A + PAGE, 10, 1).unwrap();
        assert_eq!(machine.get(&scene.process, A + PAGE), 10);
    };
    machine.before_acknowledgement(meanwhile, || machine.put(&scene.process, A, 8));
    assert_eq!(machine.get(&scene.process, A), 8);
}

/// A frame whose references are at their limit takes none for the copy, and is copied all the same.
fn a_frame_with_all_its_references_is_copied<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let scene = Scene::new(&machine, Page::Shared);
    let word = machine.word(machine.frame_at(&scene.process, A).0);
    let frozen = word.snapshot().refs;
    word.try_freeze(frozen).unwrap();
    word.unfreeze(pagepin::frame::FrameWord::<L>::MAX_REFS).unwrap();
    machine.put(&scene.process, A, 8);
    let before = word.snapshot().refs;
    assert_eq!(before, pagepin::frame::FrameWord::<L>::MAX_REFS - 1);
    word.try_freeze(before).unwrap();
    word.unfreeze(1).unwrap();
    assert_eq!(machine.get(scene.child.borrow().as_ref().unwrap(), A), 7);
}

/// Somebody takes a reference between the look at a page and its claim: it is copied.
fn a_reference_that_comes_between_prevents_the_claim<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let scene = Scene::new(&machine, Page::Left);
    let frame = machine.frame_at(&scene.process, A).0;
    let race = || machine.word(frame).try_get().unwrap();
    let ((), raced) = machine.at_exchange(0, race, || machine.put(&scene.process, A, 8));
    assert!(raced);
    assert_ne!(machine.frame_at(&scene.process, A).0, frame);
    assert_eq!((machine.dma_read(frame.address()), machine.word(frame).snapshot().exclusive), (7, false));
    crate::machine::memory::release(&machine, frame);
}

every_layout!(a_reference_that_comes_between_prevents_the_claim, a_slow_owner_holds_up_its_page_alone, whoever_comes_late_looks_again; told_apart: a_frame_with_all_its_references_is_copied);
