//! The ledger: who pins what, since when, and what nobody gave back.

use std::cell::Cell;

use pagepin::frame::{Dirty, Wide};
use pagepin::pin::{
    Owner, PhysRun, PinFlags, PinnedPages, Read, Write, pin_object_pages, pin_user_pages, unpin_user_pages,
    unpin_user_runs,
};
use pagepin::space::{KernelHalf, Sharing, SpaceOptions, UserSpace};
use pagepin::{
    Access, AddressSpace, Env, Extras, LeafSize, LedgerEntry, LedgerTable, Levels, ObjectId, Pfn, PinLedger, PinRecord,
    PinTerm, Platform, SpaceEnd, StillPinned, Through, Unlimited, UserRange,
};

use crate::machine::{A, LARGE, Machine, PAGE, RW};

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
}

fn now() -> u64 {
    NOW.get()
}

type Parts<'m> = &'m Machine<Wide>;
type Kernel<'m, const N: usize> =
    Platform<Parts<'m>, Parts<'m>, Parts<'m>, Parts<'m>, Parts<'m>, spin::relax::Spin, Recorded<'m, N>>;
type Recorded<'m, const N: usize> = Extras<(), pagepin::Counters, &'m LedgerTable<N>>;

fn kernel<'m, const N: usize>(machine: Parts<'m>, ledger: &'m LedgerTable<N>) -> Kernel<'m, N> {
    // SAFETY: one machine is every part.
    let kernel = unsafe { Platform::new(machine, machine, machine, machine, machine) };
    kernel.with_extras(Extras::new().ledger(ledger))
}

fn space<'k, const N: usize>(kernel: &'k Kernel<'k, N>, tag: u64) -> UserSpace<&'k Kernel<'k, N>> {
    let space = UserSpace::new(kernel, SpaceOptions::new(KernelHalf::none(Levels::Four))).unwrap();
    space.set_tag(tag);
    space.map(A, 16 * PAGE, RW).unwrap();
    space
}

fn pages<const N: usize>(space: &UserSpace<&Kernel<'_, N>>, first: u64, count: u64) -> UserRange {
    space.range(A + first * PAGE, count * PAGE).unwrap()
}

/// Frames of a machine that scatters them, so that each page is a run.
fn scattered() -> Machine<Wide> {
    let machine = Machine::new(128);
    machine.memory().scatter(true);
    machine
}

#[test]
fn a_record_says_who_what_how_and_since_when() {
    let (machine, ledger) = (scattered(), LedgerTable::<32>::new(now));
    let kernel = kernel(&machine, &ledger);
    let (one, other) = (space(&kernel, 7), space(&kernel, 8));
    NOW.set(100);
    let buffer = [PhysRun::default(); 8];
    let long = pin_user_pages(&one, Write, pages(&one, 0, 3), PinFlags::LONGTERM, buffer).unwrap();
    NOW.set(200);
    let short = pin_user_pages(&other, Read, pages(&other, 1, 1), PinFlags::empty(), buffer).unwrap();
    let run = long.runs()[1];
    let found: Vec<_> = ledger.who_pins(run.first()).collect();
    let wanted = LedgerEntry {
        through: Through::space(one.root()),
        tag: 7,
        start: A,
        length: 3 * PAGE,
        run,
        access: Access::Write,
        term: PinTerm::Long,
        time: 100,
        orphaned: false,
        left_behind: false,
        quarantined: false,
    };
    assert_eq!(found, [wanted]);
    assert_eq!(ledger.records().count(), long.runs().len() + 1);
    assert_eq!(ledger.pins_of(7).map(|entry| entry.run.pages()).sum::<u64>(), 3);
    assert_eq!(
        ledger.pins_of(8).map(|entry| (entry.access, entry.term)).collect::<Vec<_>>(),
        [(Access::Read, PinTerm::Short)]
    );
    assert_eq!((ledger.older_than(200).count(), ledger.older_than(100).count()), (long.runs().len(), 0));
    let short = short.tagged(42);
    assert_eq!((ledger.pins_of(8).count(), ledger.pins_of(42).count()), (0, 1));
    let frame = short.runs()[0].first();
    drop(short);
    assert_eq!((ledger.who_pins(frame).count(), ledger.pins_of(7).count()), (0, long.runs().len()));
    drop(long);
    assert_eq!((ledger.records().count(), ledger.missed(), ledger.misused()), (0, 0, 0));
}

/// A record names a space or an object, and says which.
#[test]
fn what_pins_went_through_is_told_apart() {
    let (root, id) = (Pfn::new(1), ObjectId(3));
    let (space, object) = (Through::space(root), Through::object(id));
    assert_eq!((space.as_space(), space.as_object()), (Some(root), None));
    assert_eq!((object.as_space(), object.as_object()), (None, Some(id)));
    assert_eq!([format!("{space:?}"), format!("{object:?}")], [format!("Space({root:?})"), format!("{id:?}")]);
}

/// However the pins come back, the record goes; what ends without a guard finds its ticket in the raw pins.
#[test]
fn every_way_back_strikes_the_record_out() {
    let (machine, ledger) = (scattered(), LedgerTable::<32>::new(now));
    let kernel = kernel(&machine, &ledger);
    let space = space(&kernel, 1);
    let pin =
        || pin_user_pages(&space, Write, pages(&space, 0, 4), PinFlags::empty(), [PhysRun::default(); 4]).unwrap();
    let held = |count: usize| assert_eq!(ledger.records().count(), count);
    let runs = pin().runs().len();
    held(0);
    let raw = pin().into_raw();
    held(runs);
    // SAFETY: they were just taken, through this kernel.
    unsafe { unpin_user_pages(&&kernel, &Unlimited, raw, Dirty::No) };
    held(0);
    let raw = pin().into_raw();
    // SAFETY: the same lender.
    let back = unsafe { PinnedPages::from_raw(&space, raw) };
    held(runs);
    let owned = back.complete().unwrap().into_owned();
    held(runs);
    owned.release();
    held(0);
    drop(pin().complete());
    held(0);
}

/// What a resumed pin gained is recorded as well, once.
#[test]
fn a_resumed_pin_is_recorded_whole() {
    let (machine, ledger) = (scattered(), LedgerTable::<32>::new(now));
    let kernel = kernel(&machine, &ledger);
    let space = space(&kernel, 1);
    let buffer = [PhysRun::default(); 6];
    drop(pin_user_pages(&space, Write, pages(&space, 0, 2), PinFlags::empty(), buffer).unwrap());
    let part = pin_user_pages(&space, Write, pages(&space, 0, 6), PinFlags::NOFAULT, buffer).unwrap();
    assert_eq!(part.pages(), 2);
    let same = part.resume();
    assert_eq!((same.pages(), ledger.records().map(|entry| entry.run.pages()).sum::<u64>()), (2, 2));
    drop(pin_user_pages(&space, Write, pages(&space, 2, 4), PinFlags::empty(), buffer).unwrap());
    let all = same.resume();
    assert_eq!((all.pages(), ledger.records().map(|entry| entry.run.pages()).sum::<u64>()), (6, 6));
    drop(all);
    assert_eq!((ledger.records().count(), ledger.misused()), (0, 0));
}

/// Full is counted, never an error; what is not recorded has no ticket that could do harm.
#[test]
fn a_full_ledger_counts_what_it_misses() {
    let (machine, ledger) = (scattered(), LedgerTable::<3>::new(now));
    let kernel = kernel(&machine, &ledger);
    let space = space(&kernel, 1);
    let pin = |first| {
        let range = pages(&space, first, 2);
        pin_user_pages(&space, Write, range, PinFlags::empty(), [PhysRun::default(); 2]).unwrap()
    };
    let pins = [pin(0), pin(4), pin(8)];
    let runs: usize = pins.iter().map(|pins| pins.runs().len()).sum();
    assert_eq!((ledger.records().count(), ledger.missed()), (3, runs as u64 - 3));
    drop(pins);
    assert_eq!((ledger.records().count(), ledger.misused()), (0, 0));
    drop(pin(2));
    assert_eq!(ledger.missed(), runs as u64 - 3, "there is room again");
}

/// A number finds no ticket: the record stays, and says so.
#[test]
fn pins_released_by_number_leave_an_orphan() {
    let (machine, ledger) = (scattered(), LedgerTable::<8>::new(now));
    let kernel = kernel(&machine, &ledger);
    let space = space(&kernel, 1);
    let pin = || pin_user_pages(&space, Write, pages(&space, 0, 1), PinFlags::empty(), [PhysRun::default()]).unwrap();
    let raw = pin().into_raw();
    let run = raw.runs()[0];
    // SAFETY: the pin is given back by its number, and not again.
    unsafe { unpin_user_runs(&&kernel, &[run], Dirty::No) };
    assert_eq!(ledger.records().map(|entry| (entry.run, entry.orphaned)).collect::<Vec<_>>(), [(run, true)]);
    let another = pin();
    assert_eq!(ledger.who_pins(run.first()).filter(|entry| !entry.orphaned).count(), 1);
    assert_eq!((ledger.strike_orphans(), ledger.records().count()), (1, 1));
    drop(another);
    assert_eq!((ledger.records().count(), ledger.misused()), (0, 0));
    // Whoever releases them once more, by the ticket, strikes out nobody else's record, and the word refuses as well.
    let held = pin().into_raw();
    let gone = pin().into_raw();
    // SAFETY: the pins are given back by number, once for each.
    unsafe { unpin_user_runs(&&kernel, &[gone.runs()[0]], Dirty::No) };
    assert_eq!(ledger.strike_orphans(), 1);
    // SAFETY: not what the function asks for: the pins are gone, and so is what the ticket was for. It is of one of the two.
    unsafe { unpin_user_pages(&&kernel, &Unlimited, gone, Dirty::No) };
    // SAFETY: as above, for the other of the two.
    unsafe { unpin_user_pages(&&kernel, &Unlimited, held, Dirty::No) };
    assert_eq!((ledger.records().count(), ledger.misused()), (0, 1));
    assert_eq!(kernel.statistics().bugs_caught, 1, "of three releases of two pins");
    drop(raw);
}

/// The leak report: what was pinned in a space that has ended.
#[test]
fn what_outlives_its_space_is_reported() {
    let (machine, ledger) = (scattered(), LedgerTable::<8>::new(now));
    let kernel = kernel(&machine, &ledger);
    let (process, other) = (space(&kernel, 7), space(&kernel, 8));
    let buffer = [PhysRun::default()];
    let leaked =
        pin_user_pages(&process, Write, pages(&process, 0, 1), PinFlags::empty(), buffer).unwrap().into_owned();
    let kept = pin_user_pages(&other, Write, pages(&other, 0, 1), PinFlags::empty(), buffer).unwrap();
    assert_eq!(ledger.left_behind().count(), 0);
    let root = process.root();
    drop(process);
    let left: Vec<_> = ledger.left_behind().collect();
    assert_eq!(
        left.iter().map(|entry| (entry.tag, entry.through.as_space(), entry.run)).collect::<Vec<_>>(),
        [(7, Some(root), leaked.runs()[0])]
    );
    drop(leaked);
    assert_eq!((ledger.left_behind().count(), ledger.records().count()), (0, 1));
    drop(kept);
}

/// The same for whom pins are made: a driver that is unloaded, while the address space goes on.
#[test]
fn what_outlives_its_tag_is_reported() {
    let (machine, ledger) = (scattered(), LedgerTable::<8>::new(now));
    let kernel = kernel(&machine, &ledger);
    let space = space(&kernel, 1);
    let pin = |page, tag| {
        let pins = pin_user_pages(&space, Write, pages(&space, page, 1), PinFlags::empty(), [PhysRun::default()]);
        pins.unwrap().tagged(tag)
    };
    let (leaked, others, done) = (pin(0, 7), pin(1, 8), pin(2, 7));
    drop(done);
    assert_eq!((ledger.tag_ends(9), ledger.left_behind().count()), (0, 0));
    assert_eq!(ledger.tag_ends(7), 1);
    let left: Vec<_> = ledger.left_behind().map(|entry| (entry.tag, entry.run)).collect();
    assert_eq!(left, [(7, leaked.runs()[0])]);
    // Somebody else takes the driver's work over.
    let taken_over = leaked.tagged(8);
    assert_eq!((ledger.tag_ends(7), ledger.pins_of(8).count()), (0, 2));
    drop((taken_over, others));
    assert_eq!((ledger.left_behind().count(), ledger.misused()), (0, 0));
}

/// A pin that needs no address space is the object's, in the book as well.
#[test]
fn a_pin_by_object_names_the_object() {
    const FILE: ObjectId = ObjectId(3);
    let (machine, ledger) = (scattered(), LedgerTable::<8>::new(now));
    machine.shelf().add(FILE, 4);
    {
        let parts: Parts<'_> = &machine;
        // SAFETY: one machine is every part.
        let kernel: Platform<_, _, _, _, _, spin::relax::Spin> =
            unsafe { Platform::new(parts, parts, parts, parts, parts) };
        let kernel = kernel.with_extras(Extras::new().ledger(&ledger).objects(machine.shelf()));
        let space = UserSpace::new(&kernel, SpaceOptions::new(KernelHalf::none(Levels::Four))).unwrap();
        space.map_object(A, 4 * PAGE, FILE, 0, Sharing::Shared, RW).unwrap();
        let owner = Owner::new(&kernel, Unlimited);
        let by_object = pin_object_pages(owner, Write, FILE, 1..3, PinFlags::empty(), [PhysRun::default(); 4]).unwrap();
        let range = space.range(A, PAGE).unwrap();
        let shown = pin_user_pages(&space, Write, range, PinFlags::empty(), [PhysRun::default()]).unwrap().into_owned();
        let root = space.root();
        drop(space);
        let of = |entry: LedgerEntry| (entry.through, entry.start, entry.left_behind);
        let mut records: Vec<_> = ledger.records().map(of).collect();
        records.sort_by_key(|record| record.1);
        let object = (Through::object(FILE), PAGE, false);
        assert_eq!(
            records,
            [object, object, (Through::space(root), A, true)],
            "bytes of the object, addresses of the other"
        );
        // How much of an object is pinned is told by its frames, whoever has pinned it and however.
        let pins = |frame: &Pfn| machine.word(*frame).snapshot().pins;
        assert_eq!(machine.shelf().frames().iter().map(pins).collect::<Vec<_>>(), [1, 1, 1]);
        drop((by_object, shown));
        assert_eq!(machine.shelf().frames().iter().map(pins).sum::<u64>(), 0);
        assert_eq!(ledger.records().count(), 0);
    }
    machine.clear_shelf();
}

/// A large leaf is pinned by its head, whichever part of it was asked for.
#[test]
fn any_frame_of_a_pinned_leaf_has_its_pinner() {
    let (machine, ledger) = (Machine::<Wide>::new(2048), LedgerTable::<8>::new(now));
    let kernel = kernel(&machine, &ledger);
    let space = UserSpace::new(&kernel, SpaceOptions::new(KernelHalf::none(Levels::Four))).unwrap();
    space.map(LARGE, 512 * PAGE, RW).unwrap();
    let block = machine.block(LeafSize::Size2MiB);
    machine.install_in(space.mm(), LARGE, LeafSize::Size2MiB, block, 7);
    let range = space.range(LARGE + 100 * PAGE, PAGE).unwrap();
    let pinned = pin_user_pages(&space, Write, range, PinFlags::empty(), [PhysRun::default()]).unwrap();
    for (offset, count) in [(0, 1), (100, 1), (511, 1), (512, 0)] {
        assert_eq!(ledger.who_pins(block.offset(offset)).count(), count, "{offset}");
    }
    assert_eq!(ledger.who_pins(Pfn::new(block.number() - 1)).count(), 0);
    drop(pinned);
}

/// Records of many runs come and go in any order, beside a plain list of what there is.
#[test]
fn the_table_agrees_with_a_list() {
    let ledger = LedgerTable::<16>::new(now);
    let mut held: Vec<(pagepin::LedgerTicket, Vec<PhysRun>)> = Vec::new();
    let mut random = 1u64;
    for step in 0..4000u64 {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let choice = random >> 33;
        if choice % 2 == 0 || held.is_empty() {
            let runs: Vec<_> = (0..choice / 2 % 4).map(|i| PhysRun::from_parts(Pfn::new(step * 8 + i), 1, 0)).collect();
            let missed = ledger.missed();
            let ticket = record(&ledger, &runs);
            // The last runs are recorded first.
            held.push((ticket, runs[(ledger.missed() - missed) as usize..].to_vec()));
        } else {
            ledger.forget(held.swap_remove(choice as usize / 2 % held.len()).0);
        }
        let key = |run: &PhysRun| run.first().number();
        let mut wanted: Vec<_> = held.iter().flat_map(|(_, runs)| runs).map(key).collect();
        let mut found: Vec<_> = ledger.records().map(|entry| key(&entry.run)).collect();
        wanted.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, wanted, "step {step}");
    }
    assert_eq!(ledger.misused(), 0);
    assert!(ledger.missed() > 0, "it was full at times");
}

/// Frames `first..first + pages`, recorded as one run.
fn enter<const N: usize>(ledger: &LedgerTable<N>, first: u64, pages: u32) -> pagepin::LedgerTicket {
    record(ledger, &[run(first, pages)])
}

fn record<const N: usize>(ledger: &LedgerTable<N>, runs: &[PhysRun]) -> pagepin::LedgerTicket {
    let range = UserRange::new(Levels::Four.user_half(), A, PAGE).unwrap();
    let (access, term) = (Access::Write, PinTerm::Short);
    ledger.record(&PinRecord { through: Through::space(Pfn::new(1)), tag: 0, range, runs, access, term })
}

fn run(first: u64, pages: u32) -> PhysRun {
    PhysRun::from_parts(Pfn::new(first), pages, 0)
}

fn entry<const N: usize>(ledger: &LedgerTable<N>, first: u64) -> LedgerEntry {
    ledger.records().find(|entry| entry.run.first() == Pfn::new(first)).unwrap()
}

/// What is released by number is looked for as that run first; a run that merely has a frame of it comes after.
#[test]
fn a_number_names_the_record_of_exactly_that_run() {
    let ledger = LedgerTable::<8>::new(now);
    let tickets = [(8, 8), (10, 1), (16, 1)].map(|(first, pages)| enter(&ledger, first, pages));
    let orphaned = || [8, 10, 16].map(|first| entry(&ledger, first).orphaned);
    ledger.released_by_number(run(10, 1));
    assert_eq!(orphaned(), [false, true, false]);
    ledger.released_by_number(run(10, 1));
    assert_eq!(orphaned(), [true, true, false], "there is none left that is exactly this");
    ledger.released_by_number(run(10, 1));
    assert_eq!(orphaned(), [true, true, false], "and now there is none at all");
    tickets.into_iter().for_each(|ticket| ledger.forget(ticket));
    assert_eq!((ledger.records().count(), ledger.misused()), (0, 0));
}

/// Slots are used again, tickets never.
#[test]
fn a_ticket_is_of_one_record() {
    let ledger = LedgerTable::<1>::new(now);
    let mut old = Vec::new();
    for first in 1..5 {
        let ticket = enter(&ledger, first, 1);
        assert!(!old.contains(&ticket));
        for stale in &old {
            ledger.forget(*stale);
            ledger.quarantine(*stale);
            ledger.retag(*stale, 9);
        }
        let now = entry(&ledger, first);
        assert_eq!((now.tag, now.quarantined, ledger.records().count()), (0, false, 1));
        old.push(ticket);
        ledger.forget(ticket);
    }
    assert_eq!(ledger.misused(), 3 * (1 + 2 + 3));
}

/// A quarantined run is given back by its own number, however often it was put there.
#[test]
fn a_quarantined_run_is_known_by_its_number() {
    let ledger = LedgerTable::<8>::new(now);
    for ticket in [1, 2].map(|first| enter(&ledger, first, 1)) {
        ledger.quarantine(ticket);
        ledger.quarantine(ticket);
    }
    ledger.released_by_number(run(2, 1));
    let left: Vec<_> = ledger.records().map(|entry| (entry.run, entry.quarantined)).collect();
    assert_eq!(left, [(run(1, 1), true)]);
}

#[test]
fn a_run_is_pinned_from_its_first_frame_to_its_last() {
    let ledger = LedgerTable::<8>::new(now);
    let ticket = enter(&ledger, 8, 8);
    let pinners = |frame| ledger.who_pins(Pfn::new(frame)).count();
    assert_eq!([7, 8, 15, 16, 17].map(pinners), [0, 1, 1, 0, 0]);
    ledger.forget(ticket);
}

#[test]
fn a_number_does_not_name_the_records_beside_it() {
    let ledger = LedgerTable::<8>::new(now);
    let tickets = [9, 11].map(|first| enter(&ledger, first, 1));
    ledger.released_by_number(run(10, 1));
    assert_eq!([9, 11].map(|first| entry(&ledger, first).orphaned), [false; 2]);
    tickets.into_iter().for_each(|ticket| ledger.forget(ticket));
}

/// The next space may have the same top table.
#[test]
fn what_was_left_behind_stays_so_whatever_space_ends_next() {
    let ledger = LedgerTable::<8>::new(now);
    let ticket = enter(&ledger, 1, 1);
    let still_pinned = &StillPinned::default();
    for _ in 0..2 {
        ledger.space_ends(&SpaceEnd { space: Pfn::new(1), tag: 0, pinned_pages: 1, still_pinned });
        assert_eq!(ledger.left_behind().count(), 1);
    }
    ledger.forget(ticket);
}
