//! Getting pins back from those who hold them.

use std::mem::ManuallyDrop;
use std::sync::Mutex;

use pagepin::frame::Wide;
use pagepin::pin::{
    Answer, Asked, Held, Lent, Outcome, Owner, PhysRun, PinFlags, PinGuard, PinnedPages, PinnedRange, RegisterError,
    Revocable, RevocableSet, Revoke, Write, pin_user_pages,
};
use pagepin::{AddressSpace, PinLimit, UserRange};

use crate::machine::{A, Machine, PAGE, Process, range};

type Owned<'m> = PinnedRange<Owner<&'m Machine<Wide>, std::sync::Arc<PinLimit>>, Write, [PhysRun; 2]>;
type LentOut<'m> = Lent<Owner<&'m Machine<Wide>, std::sync::Arc<PinLimit>>, Write, [PhysRun; 2]>;

fn pinned<'m>(process: &Process<'m, Wide>, page: u64, pages: u64) -> Owned<'m> {
    let range = range(process, A + page * PAGE, pages * PAGE);
    let pins = pin_user_pages(process, Write, range, PinFlags::LONGTERM, [PhysRun::default(); 2]);
    pins.and_then(PinnedPages::complete).unwrap().into_owned()
}

/// Where a driver keeps a pin. Driver, entry and pin name one another, as statics of a kernel do, so none of them may have an end of
/// its own.
type Place<'a, G> = Mutex<Option<ManuallyDrop<Held<'a, G>>>>;

fn put<'a, G: PinGuard>(place: &Place<'a, G>, held: Held<'a, G>) {
    *place.lock().unwrap() = Some(ManuallyDrop::new(held));
}

fn take<'a, G: PinGuard>(place: &Place<'a, G>) -> Option<Held<'a, G>> {
    place.lock().unwrap().take().map(ManuallyDrop::into_inner)
}

/// A driver that does what the test says when it is asked, and notes it.
struct Driver<'t> {
    asked: Mutex<Vec<u64>>,
    act: &'t (dyn Fn() -> Answer + Sync),
}

impl<'t> Driver<'t> {
    fn new(act: &'t (dyn Fn() -> Answer + Sync)) -> Self {
        Self { asked: Mutex::new(Vec::new()), act }
    }
}

impl Revoke for Driver<'_> {
    fn revoke(&self, range: UserRange) -> Answer {
        self.asked.lock().unwrap().push(range.start());
        (self.act)()
    }
}

/// Each pin of the range is asked for, and no other; what was promised and not done is no grant.
#[test]
fn a_range_is_asked_for_pin_by_pin() {
    let machine = Machine::<Wide>::new(64);
    let (process, other) = (machine.populated(8, 1), machine.populated(8, 1));
    let place: Place<'_, Owned<'_>> = Mutex::new(None);
    let give_back = || {
        drop(take(&place));
        Answer::Refused
    };
    let generous = Driver::new(&give_back);
    let (late, stubborn) = (Driver::new(&|| Answer::Later(50)), Driver::new(&|| Answer::Refused));
    let liar = Driver::new(&|| Answer::Granted);
    let set = RevocableSet::new();
    let entries =
        [&generous, &late, &stubborn, &liar, &stubborn].map(|driver| Revocable::new(&set, driver as &dyn Revoke));
    let root = process.root();
    put(&place, pinned(&process, 0, 2).register(&entries[0], &process).unwrap());
    let held = [(1, 2), (2, 3), (3, 4)]
        .map(|(entry, page)| pinned(&process, page, 1).register(&entries[entry], &process).unwrap());
    let elsewhere = pinned(&other, 0, 2).register(&entries[4], &other).unwrap();
    let mut seen = Vec::new();
    let asked = set.ask(root, range(&process, A + PAGE, 4 * PAGE), |of, what| seen.push((of.start(), what)));
    seen.sort_by_key(|(start, _)| *start);
    let at = |page| A + page * PAGE;
    let wanted =
        [(at(0), Outcome::Granted), (at(2), Outcome::Later(50)), (at(3), Outcome::Refused), (at(4), Outcome::Refused)];
    assert_eq!(seen, wanted);
    assert_eq!(asked, Asked { granted: 1, later: 1, deadline: 50, refused: 2, ..Asked::default() });
    assert!(!asked.is_clear());
    assert_eq!(machine.frame_at(&process, A).1.pins, 0);
    assert_eq!(*stubborn.asked.lock().unwrap(), [at(3)], "not the other process's");
    drop(held);
    assert_eq!(set.ask(root, range(&process, A, 8 * PAGE), |_, _| ()), Asked::default());
    assert_eq!(elsewhere.keep().range().pages(), 2);
    assert!(set.ask(other.root(), range(&other, A, 8 * PAGE), |_, _| ()).is_clear(), "whoever keeps it is not asked");
}

/// Who is asked may ask, pin and register again: the set is that of the beginning, so it ends.
#[test]
fn drivers_that_pin_and_ask_when_asked_come_to_an_end() {
    let machine = Machine::<Wide>::new(64);
    let process = machine.populated(4, 1);
    let (root, all) = (process.root(), range(&process, A, 4 * PAGE));
    let set = RevocableSet::new();
    let places: [Place<'_, Owned<'_>>; 2] = [Mutex::new(None), Mutex::new(None)];
    let nested = Mutex::new(Vec::new());
    let act = |me: usize| {
        set.ask(root, all, |_, what| nested.lock().unwrap().push(what));
        let held = take(&places[me]);
        let another = pinned(&process, 3, 1);
        drop((held, another));
        Answer::Refused
    };
    let acts: [&(dyn Fn() -> Answer + Sync); 2] = [&|| act(0), &|| act(1)];
    let drivers = acts.map(Driver::new);
    let entries = [0, 1].map(|me| Revocable::new(&set, &drivers[me] as &dyn Revoke));
    for (me, place) in places.iter().enumerate() {
        put(place, pinned(&process, me as u64, 1).register(&entries[me], &process).unwrap());
    }
    let asked = set.ask(root, all, |_, _| ());
    // The one that is asked first meets itself being asked, and asks the other, which meets both.
    let [busy, granted] = [Outcome::BeingAsked, Outcome::Granted];
    assert_eq!(*nested.lock().unwrap(), [busy, busy, busy, granted]);
    assert_eq!((asked.granted, asked.is_clear()), (1, true));
    assert!((0..4).all(|page| machine.frame_at(&process, A + page * PAGE).1.pins == 0));
    // Registered again at once, the entry is another pin's, for another time.
    let again = pinned(&process, 0, 1).register(&entries[0], &process).unwrap();
    assert_eq!(
        pinned(&process, 1, 1).register(&entries[0], &process).err().map(|(_, why)| why),
        Some(RegisterError::InUse)
    );
    drop(again);
}

/// A pin that ends with its transfer is not worth asking for; who is refused has the pins still.
#[test]
fn only_long_term_pins_are_registered() {
    let machine = Machine::<Wide>::new(64);
    let process = machine.populated(1, 1);
    let driver = Driver::new(&|| Answer::Refused);
    let set = RevocableSet::new();
    let entry = Revocable::new(&set, &driver);
    let short = machine.pin::<Write>(&process, A, PAGE).unwrap().complete().unwrap();
    let (short, why) = short.register(&entry, &process).unwrap_err();
    assert_eq!(
        (why, short.flags(), machine.frame_at(&process, A).1.pins),
        (RegisterError::NotLongTerm, PinFlags::empty(), 1)
    );
    drop(short);
    let numbers =
        [RegisterError::NotLongTerm, RegisterError::OtherSpace, RegisterError::InUse].map(RegisterError::errno);
    assert_eq!(numbers, [22, 22, 16]);
}

/// Pins that know their address space are not registered for another, where nobody would find them.
#[test]
fn pins_are_registered_for_their_own_space() {
    let machine = Machine::<Wide>::new(64);
    let (process, other) = (machine.populated(1, 1), machine.populated(1, 1));
    let driver = Driver::new(&|| Answer::Refused);
    let set = RevocableSet::new();
    let entry = Revocable::new(&set, &driver);
    let range = range(&process, A, PAGE);
    let pins =
        pin_user_pages(&process, Write, range, PinFlags::LONGTERM, [PhysRun::default()]).unwrap().complete().unwrap();
    let (pins, why) = pins.register(&entry, &other).unwrap_err();
    assert_eq!((why, machine.frame_at(&process, A).1.pins), (RegisterError::OtherSpace, 1));
    let held = pins.register(&entry, &process).unwrap();
    assert_eq!(set.ask(process.root(), range, |_, _| ()).refused, 1);
    drop(held);
}

/// A driver that takes its pin out of the set while it is asked for has not given it back, whatever it says; and the entry is free again.
#[test]
fn a_pin_that_is_kept_when_asked_for_is_refused() {
    let machine = Machine::<Wide>::new(64);
    let process = machine.populated(1, 1);
    let place: Place<'_, Owned<'_>> = Mutex::new(None);
    let kept = Mutex::new(None);
    let keep = || {
        *kept.lock().unwrap() = take(&place).map(|held| ManuallyDrop::new(held.keep()));
        Answer::Granted
    };
    let driver = Driver::new(&keep);
    let set = RevocableSet::new();
    let entry = Revocable::new(&set, &driver);
    put(&place, pinned(&process, 0, 1).register(&entry, &process).unwrap());
    let asked = set.ask(process.root(), range(&process, A, PAGE), |_, what| assert_eq!(what, Outcome::Refused));
    assert_eq!(asked, Asked { refused: 1, ..Asked::default() });
    assert_eq!(machine.frame_at(&process, A).1.pins, 1);
    assert!(set.ask(process.root(), range(&process, A, PAGE), |_, _| ()).is_clear(), "it is not registered any more");
    let pins = kept.lock().unwrap().take().map(ManuallyDrop::into_inner).unwrap();
    drop(pins.register(&entry, &process).unwrap());
    assert_eq!(machine.frame_at(&process, A).1.pins, 0);
}

/// A device at work: what its driver gives up is not given to anybody, and who asked is told so.
#[test]
fn what_is_given_up_under_a_device_is_quarantined() {
    let machine = Machine::<Wide>::new(64);
    let process = machine.populated(1, 1);
    let frame = machine.frame_at(&process, A).0;
    let place: Place<'_, LentOut<'_>> = Mutex::new(None);
    let give_up = || {
        drop(take(&place));
        Answer::Granted
    };
    let driver = Driver::new(&give_up);
    let set = RevocableSet::new();
    let entry = Revocable::new(&set, &driver);
    let lent = pinned(&process, 0, 1).register(&entry, &process).unwrap().lend_to(5);
    // SAFETY: there is no device.
    let back = unsafe { lent.complete() };
    let lent = back.lend_to(5);
    assert!(format!("{lent:?}").contains("device: 5"), "{lent:?}");
    assert!(format!("{entry:?}").contains("Revocable"), "{entry:?}");
    let run = lent.runs()[0];
    put(&place, lent);
    let asked = set.ask(process.mm().root(), range(&process, A, PAGE), |_, _| ());
    assert_eq!((asked.quarantined, asked.granted, asked.is_clear()), (1, 0, true));
    process.unmap(A, PAGE).unwrap();
    assert_eq!(machine.word(frame).snapshot().pins, 1, "no later owner");
    // SAFETY: the device of this test has stopped.
    unsafe { pagepin::pin::unpin_user_runs(&machine, &[run], pagepin::frame::Dirty::No) };
    // This kernel has no quarantine, so that the loss was counted as a bug.
    machine.expect_bugs(1);
    machine.expect_surplus(0);
}

/// Neighbours of a range are not asked, and who has kept a pin is asked again.
#[test]
fn pins_are_asked_for_as_long_as_they_are_held_and_no_others() {
    let machine = Machine::<Wide>::new(64);
    let process = machine.populated(8, 1);
    let answers = [Answer::Later(3), Answer::Refused, Answer::Granted];
    let acts = answers.map(|answer| move || answer);
    let drivers = [Driver::new(&acts[0]), Driver::new(&acts[1]), Driver::new(&acts[2])];
    let set = RevocableSet::new();
    let entries = [0, 1, 2].map(|driver| Revocable::new(&set, &drivers[driver] as &dyn Revoke));
    let root = process.root();
    let held = [(0, 2, 2), (1, 4, 1), (2, 5, 1)]
        .map(|(entry, page, pages)| pinned(&process, page, pages).register(&entries[entry], &process).unwrap());
    let ask = |page: u64, pages: u64| set.ask(root, range(&process, A + page * PAGE, pages * PAGE), |_, _| ());
    assert_eq!((ask(0, 2), ask(6, 2)), (Asked::default(), Asked::default()));
    let [later, refused] =
        [Asked { later: 1, deadline: 3, ..Asked::default() }, Asked { refused: 1, ..Asked::default() }];
    for _ in 0..2 {
        assert_eq!((ask(0, 3), ask(3, 1), ask(4, 1), ask(5, 3)), (later, later, refused, refused));
    }
    drop(held);
    assert_eq!(ask(0, 8), Asked::default());
}

/// What is registered while others are asked is not of those that are asked for.
#[test]
fn a_pin_that_comes_meanwhile_is_not_asked_for() {
    let machine = Machine::<Wide>::new(64);
    let process = machine.populated(4, 1);
    let (root, all) = (process.root(), range(&process, A, 4 * PAGE));
    let set = RevocableSet::new();
    let (places, inner) = ([const { Mutex::new(None) }; 2], Mutex::new(Asked::default()));
    let newcomer = Driver::new(&|| Answer::Refused);
    // In the set already, and behind the one that is asked first.
    let early = Revocable::new(&set, &newcomer as &dyn Revoke);
    drop(pinned(&process, 0, 1).register(&early, &process).unwrap());
    let act = || {
        *inner.lock().unwrap() = set.ask(root, all, |_, _| ());
        let places: &[Place<'_, Owned<'_>>; 2] = &places;
        put(&places[1], pinned(&process, 1, 1).register(&early, &process).unwrap());
        Answer::Refused
    };
    let driver = Driver::new(&act);
    let late = Revocable::new(&set, &driver as &dyn Revoke);
    put(&places[0], pinned(&process, 2, 1).register(&late, &process).unwrap());
    assert_eq!(set.ask(root, all, |_, _| ()), Asked { refused: 1, ..Asked::default() });
    assert_eq!(*inner.lock().unwrap(), Asked { being_asked: 1, ..Asked::default() });
    assert!(newcomer.asked.lock().unwrap().is_empty());
    places.iter().for_each(|place| drop(take(place)));
}

#[test]
fn nobody_holds_anything_only_if_nobody_kept_put_off_or_is_busy() {
    let none = Asked { granted: 3, quarantined: 2, deadline: 9, ..Asked::default() };
    assert!(none.is_clear());
    for (later, refused, being_asked) in [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (1, 0, 1), (1, 1, 1)] {
        assert!(!Asked { later, refused, being_asked, ..none }.is_clear());
    }
}
