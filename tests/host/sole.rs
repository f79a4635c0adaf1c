//! S14: one pinner at a time (`PinFlags::SOLE`).

use std::sync::atomic::{AtomicU64, Ordering};

use pagepin::frame::{CountError, Dirty, Layout, Wide};
use pagepin::pin::{
    PhysRun, PinError, PinFlags, PinnedPages, Read, Stopped, Write, pin_user_pages, pin_user_pages_fast,
    unpin_user_pages, unpin_user_runs,
};
use pagepin::space::{SpaceOptions, UserSpace};
use pagepin::{FrameRequest, FrameSource, LeafSize, Levels, Pfn, Platform, Zone};

use crate::forms::{self, FORMS, Form};
use crate::machine::{A, LARGE, Machine, PAGE, Process, RW, range, runs};

const SOLE: PinFlags = PinFlags::SOLE;

/// By each form but the lockless, whoever came first keeps the other out, and each release lets the next one in.
fn there_is_one_pinner_at_a_time<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(1, 1);
    let page = || range(&process, A, PAGE);
    let word = || machine.frame_at(&process, A).1;
    let free = word();
    for form in [Form::Slow, Form::Fast, Form::Remote] {
        let sole = forms::pin::<Write, L>(form, &process, page(), SOLE, 1).unwrap();
        assert!(sole.runs()[0].is_sole() && sole.runs()[0].order() == 0);
        assert_eq!((word().pins, word().refs, word().sole, word().exclusive), (1, 2, true, true));
        for other in FORMS {
            let refused = forms::pin::<Read, L>(other, &process, page(), PinFlags::empty(), 1);
            assert_eq!(refused.err(), Some(PinError::Sole), "{form:?}, {other:?}");
        }
        assert_eq!(forms::pin::<Write, L>(form, &process, page(), SOLE, 1).err(), Some(PinError::Sole));
        drop(sole);
        assert_eq!((word().pins, word().sole, word().dirty), (0, false, true));
        let ordinary = forms::pin::<Read, L>(form, &process, page(), PinFlags::empty(), 1).unwrap();
        assert_eq!(forms::pin::<Read, L>(form, &process, page(), SOLE, 1).err(), Some(PinError::Sole));
        drop(ordinary);
    }
    assert_eq!((word().refs, word().pins), (free.refs, free.pins));
}

/// Fork leaves a page with one pinner to its parent, as it does with any pin; the mapping may go before the pin.
fn a_sole_pin_is_a_pin<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(2, 1);
    let sole = machine.pin_slow::<Write>(&process, A, 2 * PAGE, SOLE).unwrap();
    let (frame, child) = (machine.frame_at(&process, A).0, process.fork().unwrap());
    assert_ne!(machine.frame_at(&child, A).0, frame);
    assert_eq!(process.unmap(A, PAGE).unwrap().pinned_pages, 1);
    let word = machine.word(frame).snapshot();
    assert_eq!((word.refs, word.sole, word.frozen), (1, true, false));
    drop(sole);
    assert!(machine.word(frame).snapshot().is_free());
}

/// A run says how it is held, so that whichever way it comes back it is given back in one step.
fn sole_pins_come_back_in_every_way<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(3, 1);
    let pin = || machine.pin_slow::<Write>(&process, A, 3 * PAGE, SOLE).unwrap();
    let words = || [0, 1, 2].map(|page| machine.frame_at(&process, A + page * PAGE).1.refs);
    let raw = pin().into_raw();
    assert_eq!(words(), [2; 3]);
    // SAFETY: they were just taken, through this kernel.
    unsafe { unpin_user_pages(&machine, process.budget(), raw, Dirty::No) };
    assert_eq!(words(), [1; 3]);
    let raw = pin().into_raw();
    // SAFETY: the same lender.
    drop(unsafe { PinnedPages::from_raw(&process, raw) });
    drop(pin().into_owned());
    let by_number = pin().into_raw();
    for run in by_number.runs() {
        // As it comes from a foreign ABI.
        let again = PhysRun::from_parts(run.first(), run.pages() as u32, run.order());
        assert_eq!((again != *run, again.sole()), (true, *run));
        // SAFETY: the pins of this run are given back once.
        unsafe { unpin_user_runs(&machine, &[*run], Dirty::Yes) };
    }
    assert_eq!(words(), [1; 3]);
    pagepin::PinBudget::uncharge(process.budget(), 3, pagepin::PinTerm::Short);
}

/// A sole pin that comes back as an ordinary one, or the reverse, is a bug that takes no pin from anybody.
fn the_wrong_release_takes_nothing<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(1, 1);
    let (frame, word) = (machine.frame_at(&process, A).0, || machine.frame_at(&process, A).1);
    let ordinary = PhysRun::from_parts(frame, 1, 0);
    let sole = machine.pin_slow::<Write>(&process, A, PAGE, SOLE).unwrap();
    let held = word();
    assert_eq!(machine.word(frame).unpin(Dirty::Yes), Err(CountError::Sole));
    // SAFETY: not what was taken, which the word bears: who has all pins has them still.
    unsafe { unpin_user_runs(&machine, &[ordinary], Dirty::No) };
    assert_eq!(word(), held);
    assert_eq!(machine.pin::<Read>(&process, A, PAGE).err(), Some(PinError::Sole));
    drop(sole);
    assert_eq!((word().pins, word().refs), (0, 1));
    let pinned = machine.pin::<Read>(&process, A, PAGE).unwrap();
    let held = word();
    // SAFETY: as above.
    unsafe { unpin_user_runs(&machine, &[ordinary.sole()], Dirty::Yes) };
    assert_eq!(word(), held);
    drop(pinned);
    machine.expect_bugs(1);
    machine.expect_surplus(2);
}

/// A range stops at the first page that another has, and can be resumed when that is given back.
fn a_range_stops_at_the_first_page_that_is_pinned<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(4, 1);
    let other = machine.pin::<Read>(&process, A + 2 * PAGE, PAGE).unwrap();
    let sole = machine.pin_slow::<Write>(&process, A, 4 * PAGE, SOLE).unwrap();
    assert_eq!((sole.pages(), sole.stopped()), (2, Some(Stopped { page_index: 2, reason: PinError::Sole })));
    assert_eq!(process.budget().used(), 3);
    drop(other);
    let sole = sole.resume();
    assert_eq!((sole.pages(), sole.stopped(), process.budget().used()), (4, None, 4));
    assert!(sole.runs().iter().all(PhysRun::is_sole));
    assert!((0..4).all(|page| machine.frame_at(&process, A + page * PAGE).1.sole));
    assert_eq!(sole.complete().unwrap().byte_runs().map(|run| run.length).sum::<u64>(), 4 * PAGE);
}

/// A large leaf is one frame's word.
fn a_large_leaf_has_one_pinner<L: Layout>() {
    let machine = Machine::<L>::new(2048);
    let process: Process<'_, L> = machine.process();
    process.map(LARGE, 512 * PAGE, RW).unwrap();
    machine.install(&process, LARGE, LeafSize::Size2MiB, machine.block(LeafSize::Size2MiB), 7);
    let part = |first: u64, flags| {
        pin_user_pages_fast(&process, Write, range(&process, LARGE + first * PAGE, PAGE), flags, runs(1))
    };
    let sole = part(3, SOLE).unwrap();
    assert_eq!((sole.runs()[0].order(), sole.runs()[0].is_sole()), (9, true));
    assert_eq!(part(400, SOLE).err(), Some(PinError::Sole));
    assert_eq!(part(400, PinFlags::empty()).err(), Some(PinError::Sole));
    drop(sole);
    assert!(part(400, PinFlags::empty()).is_ok());
}

/// What takes no lock, and what takes no pins, does not know it.
fn sole_is_for_pins_that_may_take_a_lock<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(1, 1);
    let page = || range(&process, A, PAGE);
    let invalid = Some(PinError::InvalidFlags);
    assert_eq!(forms::pin::<Write, L>(Form::FastOnly, &process, page(), SOLE, 1).err(), invalid);
    for form in FORMS {
        assert_eq!(forms::get::<Write, L>(form, &process, page(), SOLE, 1).err(), invalid, "{form:?}");
    }
}

every_layout!(
    sole_is_for_pins_that_may_take_a_lock;
    told_apart: there_is_one_pinner_at_a_time, a_sole_pin_is_a_pin, sole_pins_come_back_in_every_way, the_wrong_release_takes_nothing,
    a_range_stops_at_the_first_page_that_is_pinned, a_large_leaf_has_one_pinner,
);

/// The attempts are counted for each page, and not for the range.
#[test]
fn a_long_range_has_one_pinner() {
    let machine = Machine::<Wide>::new(64);
    let process = machine.populated(20, 1);
    for flags in [SOLE, SOLE | PinFlags::NOFAULT] {
        let sole = machine.pin_slow::<Write>(&process, A, 20 * PAGE, flags).unwrap();
        assert_eq!((sole.pages(), sole.stopped()), (20, None), "{flags:?}");
        assert!((0..20).all(|page| machine.frame_at(&process, A + page * PAGE).1.sole));
    }
}

/// Whoever moves the page between the look at its entry and the pin: it is tried again.
#[test]
fn a_page_that_moves_meanwhile_is_tried_again() {
    for at in 0..3 {
        let machine = Machine::<Wide>::new(64);
        let process = machine.populated(1, 1);
        let race = || _ = process.relocate(A, PAGE, Zone::Unmovable).unwrap();
        let sole = machine.before_lookup(at, race, || machine.pin_slow::<Write>(&process, A, PAGE, SOLE));
        let sole = sole.unwrap();
        assert_eq!(sole.runs()[0].first(), machine.frame_at(&process, A).0, "look-up {at}");
        drop(sole);
        assert_eq!(machine.frame_at(&process, A).1.pins, 0);
    }
}

/// A source that says of a frame that it may stay, and then that it may not, again and again.
struct Fickle<'m> {
    machine: &'m Machine<Wide>,
    asked: AtomicU64,
}

// SAFETY: forwarded to the machine.
unsafe impl FrameSource for Fickle<'_> {
    fn allocate(&self, request: FrameRequest) -> Option<Pfn> {
        self.machine.allocate(request)
    }
    unsafe fn free(&self, frame: Pfn, order: u8) {
        // SAFETY: forwarded from the caller.
        unsafe { self.machine.free(frame, order) }
    }
    fn zero_frame(&self) -> Option<Pfn> {
        self.machine.zero_frame()
    }
    fn may_stay(&self, _: Pfn) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed) % 2 == 0
    }
}

/// It ends, after as many attempts as there are for a page.
#[test]
fn a_page_that_is_never_ready_is_given_up() {
    let machine = Machine::<Wide>::new(64);
    let source = Fickle { machine: &machine, asked: AtomicU64::new(0) };
    // SAFETY: one machine is every part.
    let kernel = unsafe { Platform::new(&machine, &machine, &source, &machine, &machine) };
    let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    space.map(A, PAGE, RW).unwrap();
    let page = space.range(A, PAGE).unwrap();
    let pins = pin_user_pages(&space, Write, page, SOLE | PinFlags::LONGTERM, [PhysRun::default(); 1]);
    assert_eq!(pins.err(), Some(PinError::Contended));
    assert_eq!(source.asked.load(Ordering::Relaxed), 2 * 16, "twice for each attempt");
}
