//! What moves for a pin and what stays: only long-term pins move pages, and none without a lock.

use pagepin::frame::Wide;
use pagepin::pin::{PinError, PinFlags, Read, Write};
use pagepin::{MemoryType, Pfn, Zone};

use crate::forms::{self, Form};
use crate::long_term::{LONG, all_stay, divided, pin};
use crate::machine::{A, PAGE, RW, range};

/// What is pinned alone, by force or in two calls, and not for long, stays where it is, and is held as it was asked for.
#[test]
fn pins_that_do_not_last_move_nothing() {
    let machine = divided::<Wide>(256);
    let process = machine.populated(4, 10);
    let all = || range(&process, A, 4 * PAGE);
    let frames = || (0..4).map(|page| machine.frame_at(&process, A + page * PAGE).0).collect::<Vec<_>>();
    let before = frames();
    for form in [Form::Fast, Form::Slow, Form::Remote] {
        for flags in [PinFlags::FORCE, PinFlags::SOLE] {
            let pins = forms::pin::<Write, Wide>(form, &process, all(), flags, 8).unwrap();
            assert_eq!((pins.pages(), frames()), (4, before.clone()), "{form:?}, {flags:?}");
        }
    }
    process.discard(A + 2 * PAGE, 2 * PAGE).unwrap();
    let part = forms::pin::<Write, Wide>(Form::FastOnly, &process, all(), PinFlags::empty(), 8).unwrap();
    assert_eq!(part.pages(), 2);
    let pins = part.resume();
    assert_eq!((pins.pages(), pins.stopped()), (4, None));
    assert!(pins.runs().iter().all(|run| !run.is_sole()));
    assert!(frames().iter().all(|frame| machine.memory().is_in(Zone::Movable, *frame)));
    assert_eq!(machine.pin::<Read>(&process, A, 4 * PAGE).unwrap().pages(), 4, "not alone");
}

/// Without a lock nothing moves; what no lock would mend is said at once.
#[test]
fn without_a_lock_the_reason_is_the_right_one() {
    let machine = divided::<Wide>(256);
    let process = machine.process();
    process.map(A, 4 * PAGE, RW).unwrap();
    // In this order, so that the first two are no neighbours in memory, here or there.
    [0, 3, 1].into_iter().for_each(|page| machine.put(&process, A + page * PAGE, 1));
    let two = || range(&process, A, 2 * PAGE);
    let long = |buffer| forms::pin::<Write, Wide>(Form::FastOnly, &process, two(), LONG, buffer);
    assert_eq!(long(1).err(), Some(PinError::WouldFault), "it does not fit, and it may not stay");
    for page in [0, 3, 1] {
        drop(pin::<Write, Wide>(Form::Slow, &process, A + page * PAGE, 1).unwrap());
    }
    let one = long(1).unwrap();
    assert_eq!(one.stopped().map(|stopped| (stopped.page_index, stopped.reason)), Some((1, PinError::BufferTooSmall)));
    drop(one);
    // SAFETY: registers of the emulated machine.
    unsafe { process.map_foreign(A + 8 * PAGE, PAGE, Pfn::new(0xfee0), MemoryType::UNCACHED, RW) }.unwrap();
    let foreign = pin::<Write, Wide>(Form::FastOnly, &process, A + 8 * PAGE, 1);
    assert_eq!(foreign.err(), Some(PinError::NotPinnable));
}

/// Whoever kept the page lets go between two attempts.
#[test]
fn a_page_that_is_kept_for_a_moment_moves_then() {
    let machine = divided::<Wide>(128);
    let process = machine.populated(1, 10);
    let short = machine.pin::<Read>(&process, A, PAGE).unwrap();
    let (long, raced) = machine.between_sections(0, || drop(short), || pin::<Write, Wide>(Form::Slow, &process, A, 1));
    assert!(raced);
    all_stay(&machine, &process, &long.unwrap());
}
