//! What a VMA does when a pinned page of it is unmapped or discarded, and what the end of an address space says of pinned pages.

use std::collections::BTreeMap;
use std::sync::Mutex;

use pagepin::fault::FaultError;
use pagepin::frame::{Dirty, Layout, Wide};
use pagepin::pin::{PhysRun, PinError, PinFlags, Read, Write};
use pagepin::space::{Advice, Sharing, SpaceError, SpaceOptions, Unmapped, UserSpace, first_pinned_page};
use pagepin::{
    AddressSpace, Env, Extras, LeafSize, Levels, MapOptions, ObjectId, PageAddr, Pfn, PinLedger, PinRecord, PinnedRun,
    Platform, SpaceEnd, StillPinned, Vma, VmaError, VmaFlags,
};

use crate::machine::{A, Machine, NONE, PAGE, Process, R, RW, first_byte, range};

const REFUSE: VmaFlags = VmaFlags::REFUSE_UNMAP_PINNED;
const DEFER: VmaFlags = VmaFlags::DEFER_UNMAP_PINNED;

fn with(flags: VmaFlags) -> MapOptions {
    MapOptions::new(RW).flags(flags)
}

/// `pages` pages at [`A`] with these flags, each holding a number from `first` on.
fn process<L: Layout>(machine: &Machine<L>, pages: u64, flags: VmaFlags) -> Process<'_, L> {
    let process = machine.process();
    process.map(A, pages * PAGE, with(flags)).unwrap();
    machine.put_pages(&process, A, pages, 10);
    process
}

fn pinned<T>(page: u64) -> Result<T, SpaceError> {
    Err(SpaceError::Pinned(PageAddr::containing(page)))
}

fn flags<L: Layout>(process: &Process<'_, L>, address: u64) -> Option<VmaFlags> {
    process.vma_at(address).unwrap().map(|vma| vma.flags())
}

/// Unmap and discard name the page, and nothing at all was changed, wherever the range begins.
fn a_refusing_vma_keeps_its_pinned_pages<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = process(&machine, 4, REFUSE);
    process.map(A + 4 * PAGE, 2 * PAGE, RW).unwrap();
    machine.put_pages(&process, A + 4 * PAGE, 2, 1);
    let pins = machine.pin::<Read>(&process, A + 2 * PAGE, 1).unwrap();
    let before = machine.image(&[&process]);
    for (start, pages) in [(A, 4), (A + 2 * PAGE, 1), (A - PAGE, 8), (A + 2 * PAGE, 3)] {
        assert_eq!(process.unmap(start, pages * PAGE), pinned(A + 2 * PAGE));
        assert_eq!(process.discard(start, pages * PAGE), pinned(A + 2 * PAGE));
    }
    before.assert_same(&machine.image(&[&process]), "refused");
    assert_eq!(process.unmap(A, 2 * PAGE).unwrap().pages, 2, "not pinned");
    assert_eq!(process.discard(A + 3 * PAGE, 3 * PAGE).unwrap().pages, 3, "not pinned");
    drop(pins);
    assert_eq!(process.unmap(A, 8 * PAGE).unwrap().pages, 1);
}

/// What a walker of another mm holds for a moment is no pin of this one.
fn a_stale_walkers_momentary_pin_does_not_stop_unmap<L: Layout>() {
    for discard in [false, true] {
        let machine = Machine::<L>::new(64);
        let process = process(&machine, 2, REFUSE);
        let (flushes, frame) = (machine.flushes(), machine.frame_at(&process, A + PAGE).0);
        machine.word(frame).try_pin_exclusive().unwrap();
        let walker_leaves = || {
            assert!(machine.flushes() > flushes);
            _ = machine.word(frame).unpin(Dirty::No).unwrap();
        };
        let unmap = || if discard { process.discard(A, 2 * PAGE) } else { process.unmap(A, 2 * PAGE) };
        let result = machine.during_grace_period(walker_leaves, unmap);
        assert_eq!(result, Ok(Unmapped { pages: 2, ..Unmapped::default() }));
    }
}

/// Until the last pin goes: the frames are this mm's, a device's writes as well, nobody can touch or pin them, nobody inherits them,
/// and nothing else gets their addresses.
fn a_deferred_unmap_keeps_pages_and_addresses<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = process(&machine, 4, DEFER);
    let pins = machine.pin::<Write>(&process, A + PAGE, 1).unwrap();
    let again = machine.pin::<Read>(&process, A + PAGE, 1).unwrap();
    let frame = pins.runs()[0].first();
    let unmapped = process.unmap(A, 3 * PAGE);
    assert_eq!(unmapped, Ok(Unmapped { deferred_pages: 3, ..Unmapped::default() }));
    assert_eq!(flags(&process, A), Some(DEFER | VmaFlags::UNMAP_DEFERRED | VmaFlags::DONT_FORK));
    assert_eq!(flags(&process, A + 3 * PAGE), Some(DEFER), "the rest");
    assert!(process.vma_at(A).unwrap().unwrap().max_rights().is_empty(), "nor may anybody give them rights");
    for page in 0..3 {
        for cpu in 0..2 {
            assert_eq!(machine.load(cpu, &process, A + page * PAGE, 1), Err(FaultError::AccessDenied));
        }
        assert_eq!(machine.pin::<Read>(&process, A + page * PAGE, 1).err(), Some(PinError::AccessDenied));
        let forced = machine.pin_slow::<Write>(&process, A + page * PAGE, 1, PinFlags::FORCE);
        assert_eq!(forced.err(), Some(PinError::AccessDenied));
    }
    // To the process it is not there, and yet nobody else's.
    assert_eq!(process.protect(A, PAGE, R), Err(SpaceError::NoVma));
    assert_eq!(process.protect(A + 2 * PAGE, 2 * PAGE, NONE), Err(SpaceError::NoVma));
    assert_eq!(process.advise(A, PAGE, Advice::DoFork), Err(SpaceError::NoVma));
    assert_eq!(process.discard(A, 3 * PAGE), Ok(Unmapped::default()));
    assert_eq!(process.map(A + 2 * PAGE, PAGE, RW), Err(SpaceError::Overlap));
    let child = process.fork().unwrap();
    assert_eq!((flags(&child, A), flags(&child, A + 3 * PAGE)), (None, Some(DEFER)));
    // Asked again, and asked to be done with: it waits.
    assert_eq!(process.unmap(A, 3 * PAGE), unmapped);
    assert_eq!(process.finish_deferred(), unmapped);
    assert_eq!(machine.leaf(&process, A + PAGE).unwrap().frame(), frame);
    drop(pins);
    assert_eq!(process.finish_deferred(), unmapped, "one more");
    machine.audit(&[&process, &child], &BTreeMap::from([(frame, (1, 1))]));
    drop(again);
    assert_eq!(process.finish_deferred(), Ok(Unmapped { pages: 3, ..Unmapped::default() }));
    assert!(machine.word(frame).snapshot().is_free());
    assert_eq!((flags(&process, A), process.map(A, 3 * PAGE, RW)), (None, Ok(())));
    assert_eq!(process.finish_deferred(), Ok(Unmapped::default()));
    machine.put(&process, A, 1);
}

/// Of a range over several VMAs each does as it says, and what nobody pins goes at once.
fn each_vma_does_as_it_says<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    let options = [with(DEFER).data(1), RW.into(), with(DEFER).data(2), with(DEFER).data(3)];
    for (index, options) in (0..).zip(options) {
        process.map(A + 3 * index * PAGE, 2 * PAGE, options).unwrap();
        machine.put_pages(&process, A + 3 * index * PAGE, 2, 1);
    }
    let pin = |page| machine.pin::<Write>(&process, A + page * PAGE, 1).unwrap();
    // The first deferring, the one that just reports, and the last; the third is free to go.
    let pins = [pin(1), pin(4), pin(9)];
    let plain = PinnedRun { start: A + 4 * PAGE, run: pins[1].runs()[0] };
    let unmapped = process.unmap(A + PAGE, 20 * PAGE).unwrap();
    assert_eq!((unmapped.pages, unmapped.pinned_pages, unmapped.deferred_pages), (4, 1, 3));
    assert_eq!(unmapped.still_pinned.runs(), [plain]);
    let vmas: Vec<_> = process.vmas().map(Result::unwrap).collect();
    let shape: Vec<_> = vmas.iter().map(|vma| ((vma.start().address() - A) / PAGE, vma.pages(), vma.data())).collect();
    assert_eq!(shape, [(0, 1, 1), (1, 1, 1), (9, 2, 3)]);
    let [first, reported, last] = pins;
    drop(last);
    let unmapped = process.finish_deferred().unwrap();
    assert_eq!((unmapped.pages, unmapped.deferred_pages), (2, 1));
    drop((first, reported));
    // An unmap over what waits completes it as well.
    assert_eq!(process.unmap(A, 2 * PAGE).unwrap().pages, 2);
    assert_eq!(process.vmas().count(), 0);
    assert_eq!(process.finish_deferred(), Ok(Unmapped::default()));
}

/// Neighbours that were unmapped one after the other are alike in everything, and yet the one does not wait for the other's pins.
fn deferred_unmaps_side_by_side_wait_for_their_own_pins<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = process(&machine, 3, DEFER);
    let mut pins = [0, 1, 2].map(|page| machine.pin::<Write>(&process, A + page * PAGE, 1).ok());
    for page in [0, 2, 1] {
        assert_eq!(process.unmap(A + page * PAGE, PAGE).unwrap().deferred_pages, 1);
    }
    assert_eq!(process.vmas().count(), 3);
    for (page, left) in [(1, 2), (0, 1), (2, 0)] {
        assert_eq!(process.finish_deferred().unwrap().pages, 0);
        pins[page] = None;
        let unmapped = process.finish_deferred().unwrap();
        assert_eq!((unmapped.pages, unmapped.deferred_pages), (1, left));
        assert_eq!(process.map(A + page as u64 * PAGE, PAGE, RW), Ok(()));
    }
}

/// An unmap of a part of what waits takes that part from it, and makes at most two of one.
fn a_part_of_what_waits_is_completed_by_itself<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = process(&machine, 3, DEFER);
    let pins = machine.pin::<Write>(&process, A + PAGE, 1).unwrap();
    assert_eq!(process.unmap(A, 3 * PAGE).unwrap().deferred_pages, 3);
    assert_eq!(process.unmap(A, PAGE).unwrap(), Unmapped { pages: 1, ..Unmapped::default() });
    assert_eq!(process.unmap(A + PAGE, PAGE).unwrap().deferred_pages, 1);
    assert_eq!(process.finish_deferred().unwrap(), Unmapped { pages: 1, deferred_pages: 1, ..Unmapped::default() });
    drop(pins);
    assert_eq!(process.finish_deferred().unwrap().pages, 1);
    assert_eq!(process.vmas().count(), 0);
}

/// A refusal anywhere in the range comes before anything is deferred.
fn a_refusal_comes_before_a_deferral<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = process(&machine, 2, DEFER);
    process.map(A + 2 * PAGE, PAGE, with(REFUSE)).unwrap();
    machine.put(&process, A + 2 * PAGE, 1);
    let pins = [A, A + 2 * PAGE].map(|page| machine.pin::<Read>(&process, page, 1).unwrap());
    let before = machine.image(&[&process]);
    assert_eq!(process.unmap(A, 3 * PAGE), pinned(A + 2 * PAGE));
    assert_eq!(process.discard(A, PAGE), pinned(A), "what is discarded comes back, so there is nothing to defer");
    before.assert_same(&machine.image(&[&process]), "refused");
    drop(pins);
}

/// A walker that found the page before it was unmapped pins it, and then finds it gone: it has not pinned it.
fn a_walkers_momentary_pin_does_not_defer<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = process(&machine, 1, DEFER);
    let frame = machine.frame_at(&process, A).0;
    machine.word(frame).try_pin_exclusive().unwrap();
    let walker_leaves = || _ = machine.word(frame).unpin(Dirty::No).unwrap();
    let result = machine.during_grace_period(walker_leaves, || process.unmap(A, PAGE));
    assert_eq!(result, Ok(Unmapped { pages: 1, ..Unmapped::default() }));
}

fn large_leaves_wait_whole<L: Layout>() {
    let (size, address) = (LeafSize::Size2MiB, 1 << 30);
    let machine = Machine::<L>::new(2048);
    let process = machine.process();
    process.map(address, 2 * size.bytes(), with(DEFER)).unwrap();
    let block = machine.block(size);
    machine.install(&process, address, size, block, 7);
    let pins = machine.pin::<Read>(&process, address + 3 * PAGE, PAGE).unwrap();
    assert_eq!(process.unmap(address, size.bytes()).unwrap().deferred_pages, 512);
    assert_eq!(process.finish_deferred().unwrap().deferred_pages, 512);
    drop(pins);
    assert_eq!(process.finish_deferred().unwrap().pages, 512);
    assert!(machine.word(block).snapshot().is_free());
}

/// Taking rights is one question, unmapping another.
fn one_policy_does_not_imply_the_other<L: Layout>() {
    for (flags, protects, unmaps) in [
        (VmaFlags::REFUSE_PROTECT_PINNED, false, true),
        (REFUSE, true, false),
        (DEFER, true, true),
        (DEFER | VmaFlags::REFUSE_PROTECT_PINNED, false, true),
        (REFUSE | VmaFlags::REFUSE_PROTECT_PINNED, false, false),
    ] {
        let machine = Machine::<L>::new(64);
        let process = process(&machine, 1, flags);
        let pins = machine.pin::<Read>(&process, A, 1).unwrap();
        assert_eq!(process.protect(A, PAGE, R).is_ok(), protects, "{flags:?}");
        assert_eq!(process.unmap(A, PAGE).is_ok(), unmaps, "{flags:?}");
        drop(pins);
        process.finish_deferred().unwrap();
    }
}

/// The policy stays with the parts, and with a child's; VMAs that differ in it are not joined.
fn a_policy_is_split_and_inherited<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = process(&machine, 3, REFUSE);
    process.map(A + 3 * PAGE, PAGE, RW).unwrap();
    process.protect(A + PAGE, PAGE, R).unwrap();
    let child = process.fork().unwrap();
    for process in [&process, &child] {
        let all = [0, 1, 2, 3].map(|page| flags(process, A + page * PAGE).unwrap());
        assert_eq!(all, [REFUSE, REFUSE, REFUSE, VmaFlags::empty()]);
    }
    child.protect(A + PAGE, PAGE, RW).unwrap();
    assert_eq!(child.vmas().count(), 2);
    let pins = machine.pin::<Write>(&child, A + 2 * PAGE, 1).unwrap();
    assert_eq!(child.unmap(A, 3 * PAGE), pinned(A + 2 * PAGE));
    process.unmap(A, 3 * PAGE).unwrap();
    drop(pins);
}

/// For a kernel that has VMAs of its own.
fn the_first_pinned_page_is_named<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = process(&machine, 4, VmaFlags::empty());
    // SAFETY: checked by the process; there is one thread.
    let first = |start, pages| unsafe { first_pinned_page(process.mm(), range(&process, start, pages * PAGE)) };
    assert_eq!(first(A, 4), Ok(None));
    let pins = machine.pin::<Read>(&process, A + PAGE, 2 * PAGE).unwrap();
    assert_eq!(first(A, 4), Ok(Some(PageAddr::containing(A + PAGE))));
    assert_eq!(first(A + 2 * PAGE, 2), Ok(Some(PageAddr::containing(A + 2 * PAGE))));
    assert_eq!((first(A, 1), first(A + 3 * PAGE, 20)), (Ok(None), Ok(None)));
    drop(pins);
}

#[test]
fn contradictions_are_refused() {
    let range = pagepin::UserRange::pages_only(Levels::Four.user_half(), A, PAGE).unwrap();
    for flags in [REFUSE | DEFER, VmaFlags::UNMAP_DEFERRED, VmaFlags::all()] {
        let vma = Vma::new(range, pagepin::Backing::Anonymous, with(flags));
        assert_eq!(vma, Err(VmaError::InvalidFlags), "{flags:?}");
    }
}

/// The report has a bound, and says how much it left out.
fn a_report_has_room_for_so_many_runs<L: Layout>() {
    let machine = Machine::<L>::new(128);
    machine.memory().scatter(true);
    let pages = 2 * StillPinned::RUNS as u64;
    let process = process(&machine, pages, VmaFlags::empty());
    let pins = machine.pin::<Write>(&process, A, pages * PAGE).unwrap();
    let frames: Vec<_> = pins.runs().to_vec();
    let unmapped = process.unmap(A, pages * PAGE).unwrap();
    let expected = frames.iter().scan(A, |start, run| {
        let pinned = PinnedRun { start: *start, run: *run };
        *start += run.pages() * PAGE;
        Some(pinned)
    });
    let expected: Vec<_> = expected.take(StillPinned::RUNS).collect();
    let listed: u64 = expected.iter().map(|run| run.run.pages()).sum();
    assert_eq!((unmapped.still_pinned.runs(), unmapped.pinned_pages), (&expected[..], pages));
    assert_eq!(unmapped.still_pinned.missed_pages(), pages - listed);
    assert!(listed < pages);
    drop(pins);
}

/// An exit waits for nothing and refuses nothing, and says what stays.
fn exit_says_what_stays_pinned<L: Layout>() {
    for flags in [VmaFlags::empty(), REFUSE, DEFER] {
        let machine = Machine::<L>::new(64);
        let process = process(&machine, 4, flags);
        let pins = machine.pin::<Write>(&process, A + PAGE, 1).unwrap();
        let run = PinnedRun { start: A + PAGE, run: pins.runs()[0] };
        let pins = pins.into_owned();
        process.unmap(A, 4 * PAGE).map_or_else(|_| (), |_| ());
        let left = process.exit();
        if flags.is_empty() {
            assert_eq!(left, Unmapped::default());
        } else {
            assert_eq!((left.pages, left.pinned_pages, left.still_pinned.runs()), (4, 1, &[run][..]));
        }
        drop(pins);
    }
}

/// A ledger that keeps nothing, and hears of ends.
#[derive(Default)]
struct Ends(Mutex<Vec<Told>>);

/// Top table, tag, pinned pages and their runs.
type Told = (Pfn, u64, u64, Vec<PinnedRun>);

impl PinLedger for Ends {
    type Ticket = ();
    const KEEPS: bool = false;
    fn record(&self, _: &PinRecord<'_>) {}
    fn forget(&self, (): ()) {}
    fn space_ends(&self, end: &SpaceEnd<'_>) {
        self.0.lock().unwrap().push((end.space, end.tag, end.pinned_pages, end.still_pinned.runs().to_vec()));
    }
}

/// Whichever way an address space ends, the kernel hears of it once.
#[test]
fn whoever_drops_an_address_space_tells_the_ledger() {
    let (machine, ends) = (Machine::<Wide>::new(64), Ends::default());
    // SAFETY: one machine is every part.
    let kernel = unsafe { Platform::new(&machine, &machine, &machine, &machine, &machine) };
    let kernel = kernel.with_extras(Extras::new().ledger(&ends));
    for drops in [false, true] {
        let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
        space.map(A, 4 * PAGE, RW).unwrap();
        space.set_tag(7);
        let pins =
            space.pin(Write, space.range(A + PAGE, 2 * PAGE).unwrap(), [PhysRun::default(); 2]).unwrap().into_owned();
        let root = space.root();
        if drops {
            drop(space);
        } else {
            assert_eq!(space.exit().pinned_pages, 2);
        }
        let told = core::mem::take(&mut *ends.0.lock().unwrap());
        let [(space, tag, pages, runs)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((*space, *tag, *pages), (root, 7, 2));
        assert_eq!(runs.iter().map(|run| run.run).collect::<Vec<_>>(), pins.runs());
        drop(pins);
    }
    assert_eq!(kernel.statistics().bugs_caught, 0);
}

every_layout!(
    a_refusing_vma_keeps_its_pinned_pages,
    a_stale_walkers_momentary_pin_does_not_stop_unmap,
    a_refusal_comes_before_a_deferral,
    a_walkers_momentary_pin_does_not_defer,
    large_leaves_wait_whole,
    one_policy_does_not_imply_the_other,
    a_policy_is_split_and_inherited,
    the_first_pinned_page_is_named,
    a_report_has_room_for_so_many_runs,
    exit_says_what_stays_pinned,
    a_deferred_unmap_keeps_pages_and_addresses,
    each_vma_does_as_it_says,
    deferred_unmaps_side_by_side_wait_for_their_own_pins,
    a_part_of_what_waits_is_completed_by_itself,
);

/// What is borrowed is the object's: a pin that somebody has of it is no pin of this mm's pages.
#[test]
fn a_borrowed_page_that_others_have_pinned_is_unmapped() {
    const FILE: ObjectId = ObjectId(3);
    let machine = Machine::<Wide>::new(64);
    machine.shelf().add(FILE, 1);
    let (shared, private) = (machine.process(), machine.process());
    shared.map_object(A, PAGE, FILE, 0, Sharing::Shared, RW).unwrap();
    private.map_object(A, PAGE, FILE, 0, Sharing::Private, with(REFUSE)).unwrap();
    assert_eq!(machine.get(&private, A), first_byte(0));
    let pins = machine.pin::<Write>(&shared, A, 1).unwrap();
    assert!(private.unmap(A, PAGE).is_ok());
    drop(pins);
    drop((shared, private));
    machine.clear_shelf();
}
