//! Pages that come from elsewhere: from slots, and from objects.

use pagepin::fault::FaultError;
use pagepin::frame::{CountError, FrameKind, Layout};
use pagepin::pin::{PinError, PinFlags, Read, Write};
use pagepin::space::{Copies, Resident, Sharing, SpaceError, SwappedOut};
use pagepin::{Access, MapOptions, NotReady, ObjectId, Rights, VmaFlags};

use crate::machine::{A, FAR, Machine, PAGE, Process, R, READING, RW, WRITE_BACK, first_byte};

pub(crate) const FILE: ObjectId = ObjectId(3);

/// Four pages at [`A`] that hold 10 to 13, all in slots.
fn swapped<L: Layout>(machine: &Machine<L>) -> Process<'_, L> {
    let process = machine.populated(4, 10);
    assert_eq!(process.swap_out(A, 4 * PAGE), Ok(SwappedOut { pages: 4, pinned_pages: 0 }));
    assert_eq!(process.resident().unwrap(), Resident { swapped: 4, tables: 4, ..Resident::default() });
    process
}

pub(crate) fn bytes<L: Layout>(machine: &Machine<L>, process: &Process<'_, L>, pages: u64) -> Vec<u8> {
    (0..pages).map(|page| machine.get(process, A + page * PAGE)).collect()
}

/// What went comes back, whether its slot remembers the frame or has written it out; and when nobody holds a slot, nothing is left of it.
fn pages_come_back_from_their_slots<L: Layout>() {
    for write_out in [false, true] {
        let machine = Machine::<L>::new(64);
        let process = swapped(&machine);
        if write_out {
            machine.write_out();
            assert_eq!(machine.slots().frames(), []);
        }
        assert_eq!(bytes(&machine, &process, 4), [10, 11, 12, 13]);
        assert_eq!((machine.slots().holders().len(), machine.slots().frames().len()), (0, 0));
        machine.put(&process, A, 77);
        assert_eq!(bytes(&machine, &process, 4), [77, 11, 12, 13]);
        assert_eq!(process.resident().unwrap().exclusive, 1, "read, and claimed when it is written");
        machine.audit(&[&process], &Default::default());
    }
}

/// The contents of a page that is seen first through a pin are its contents, not zeroes.
fn a_page_that_a_pin_sees_first_has_its_contents<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = swapped(&machine);
    machine.write_out();
    let read = machine.pin::<Read>(&process, A, 2 * PAGE).unwrap().complete().unwrap();
    let mut seen = [0; 1];
    read.copy_to(PAGE, &mut seen).unwrap();
    assert_eq!(seen, [11]);
    let write = machine.pin::<Write>(&process, A + 2 * PAGE, 2 * PAGE).unwrap().complete().unwrap();
    write.copy_to(0, &mut seen).unwrap();
    assert_eq!(seen, [12]);
    machine.put(&process, A + 2 * PAGE, 99);
    write.copy_to(0, &mut seen).unwrap();
    assert_eq!(seen, [99], "the pin is of the page that the process has");
    drop((read, write));
    machine.audit(&[&process], &Default::default());
}

/// A page that has no frame to come back in says so, which is no wait for a device; and nothing has changed.
fn a_page_without_memory_to_come_back_in_says_so<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = swapped(&machine);
    machine.write_out();
    let before = machine.image(&[&process]);
    machine.memory().allow(Some(0));
    assert_eq!(machine.load(0, &process, A, 1).err(), Some(FaultError::NoMemory));
    assert_eq!(machine.pin::<Read>(&process, A, 1).err(), Some(PinError::NoMemory));
    machine.memory().allow(None);
    before.assert_same(&machine.image(&[&process]), "no memory");
    assert_eq!(bytes(&machine, &process, 4), [10, 11, 12, 13]);
}

/// A pinned page keeps its frame and its entry; its neighbours go.
fn what_is_pinned_stays<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(4, 10);
    let pins = machine.pin::<Write>(&process, A + PAGE, 1).unwrap();
    let frame = machine.frame_at(&process, A + PAGE).0;
    assert_eq!(process.swap_out(A, 4 * PAGE), Ok(SwappedOut { pages: 3, pinned_pages: 1 }));
    assert_eq!(machine.frame_at(&process, A + PAGE).0, frame);
    machine.dma_write(frame.address(), &[55]);
    assert_eq!(machine.get(&process, A + PAGE), 55);
    machine.put(&process, A + PAGE, 56);
    assert_eq!(machine.frame_at(&process, A + PAGE).0, frame, "a write after it does not move the page away");
    assert_eq!(machine.dma_read(frame.address()), 56);
    drop(pins);
    assert_eq!(process.swap_out(A, 4 * PAGE), Ok(SwappedOut { pages: 1, pinned_pages: 0 }));
    assert_eq!(bytes(&machine, &process, 4), [10, 56, 12, 13]);
}

/// No write is lost that a CPU makes by a translation of before, until the flush.
fn a_write_by_a_stale_translation_goes_with_the_page<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(1, 10);
    machine.before_acknowledgement(
        || machine.store(0, &process, A, 66, 1).unwrap(),
        || assert_eq!(process.swap_out(A, PAGE).unwrap().pages, 1),
    );
    machine.write_out();
    assert_eq!(machine.get(&process, A), 66);
}

/// Parent and child hold a token each, and each gets a page of its own when it writes. A fork that fails takes its holders back.
fn fork_duplicates_tokens<L: Layout>() {
    for write_out in [false, true] {
        let machine = Machine::<L>::new(64);
        let parent = swapped(&machine);
        let child = parent.fork().unwrap();
        assert!(machine.slots().holders().values().all(|holders| *holders == 2));
        if write_out {
            machine.write_out();
        }
        machine.put(&parent, A, 20);
        assert_eq!(bytes(&machine, &child, 4), [10, 11, 12, 13]);
        machine.put(&child, A + PAGE, 30);
        assert_eq!(bytes(&machine, &parent, 4), [20, 11, 12, 13]);
        assert_eq!(machine.slots().holders().len(), 0);
        machine.audit(&[&parent, &child], &Default::default());
    }
    let machine = Machine::<L>::new(64);
    let parent = swapped(&machine);
    let before = machine.slots().holders();
    for allowed in 0..4 {
        machine.slots().allow_duplicates(allowed);
        assert_eq!(parent.fork().err(), Some(pagepin::space::ForkError::NoMemory));
        assert_eq!(machine.slots().holders(), before);
    }
    assert_eq!(bytes(&machine, &parent, 4), [10, 11, 12, 13]);
}

/// Every way to end a mapping lets go of its tokens.
fn what_is_unmapped_lets_go_of_its_slots<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = swapped(&machine);
    assert_eq!(process.discard(A, PAGE).unwrap().pages, 1);
    assert_eq!(machine.slots().holders().len(), 3);
    assert_eq!(machine.get(&process, A), 0);
    assert_eq!(process.unmap(A + PAGE, PAGE).unwrap().pages, 1);
    assert_eq!(machine.slots().holders().len(), 2);
    let child = process.fork().unwrap();
    drop(process);
    assert_eq!(machine.slots().holders().len(), 2);
    assert_eq!(machine.get(&child, A + 2 * PAGE), 12);
    drop(child);
    assert_eq!(machine.slots().holders().len(), 0);
}

/// Pages that are not ready yet, whose device fails, or whose slots run out: an error by name, and nothing changed.
fn slots_that_fail_change_nothing<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = swapped(&machine);
    machine.write_out();
    let fault = |access| machine.load(0, &process, A, 1).err().filter(|_| access == Access::Read);
    machine.slots().delay(2);
    assert!(matches!(fault(Access::Read), Some(FaultError::NotReady(NotReady(_)))));
    let pin = machine.pin::<Write>(&process, A, 4 * PAGE).err();
    assert!(matches!(pin, Some(PinError::NotReady(_))), "{pin:?}");
    machine.slots().lose(true);
    assert_eq!(fault(Access::Read), Some(FaultError::Failed));
    assert_eq!(machine.pin::<Read>(&process, A, 1).err(), Some(PinError::Failed));
    machine.slots().lose(false);
    assert_eq!(process.resident().unwrap().swapped, 4);
    machine.slots().evict_after_fetch(3);
    assert_eq!(bytes(&machine, &process, 4), [10, 11, 12, 13]);
    // Gone for ever between fetch and bring: the access is tried again, and nobody loops without end.
    let again = swapped(&machine);
    machine.slots().evict_after_fetch(1000);
    let pin = machine.pin::<Read>(&again, A, 1).err();
    assert_eq!(pin, Some(PinError::Contended));
    machine.slots().evict_after_fetch(0);
    machine.slots().leave_room(0);
    assert_eq!(process.swap_out(A, PAGE), Err(SpaceError::NoSlot));
    assert_eq!(machine.get(&process, A), 10);
    machine.slots().leave_room(2);
    assert_eq!(process.swap_out(A, 4 * PAGE).unwrap().pages, 2);
    assert_eq!(bytes(&machine, &process, 4), [10, 11, 12, 13]);
}

/// A slot is given up and reserved again between the look at a token and owning its entry: the same number, another page.
fn a_token_that_was_used_again_brings_what_it_stands_for_now<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(2, 10);
    assert_eq!(process.swap_out(A, PAGE).unwrap().pages, 1);
    let race = || {
        // The page comes back by another thread, changes, and goes again: to the same slot.
        machine.put(&process, A, 40);
        assert_eq!(process.swap_out(A, PAGE).unwrap().pages, 1);
        machine.write_out();
    };
    let value = machine.at_exchange(0, race, || machine.get(&process, A)).0;
    assert_eq!(value, 40);
    machine.audit(&[&process], &Default::default());
}

/// A process that shares an object of four pages at [`A`].
pub(crate) fn sharing<L: Layout>(machine: &Machine<L>, sharing: Sharing) -> Process<'_, L> {
    let process = machine.process();
    process.map_object(A, 4 * PAGE, FILE, 0, sharing, RW).unwrap();
    process
}

/// All who share an object see what each writes, by CPU and by device, and the object is asked before the first write.
fn a_shared_object_is_one_for_all<L: Layout>() {
    let machine = Machine::<L>::new(64);
    machine.shelf().add(FILE, 4);
    let (one, other) = (sharing(&machine, Sharing::Shared), sharing(&machine, Sharing::Shared));
    assert_eq!(bytes(&machine, &one, 4), [0, 1, 2, 3].map(first_byte));
    assert_eq!(machine.shelf().writes(), 0);
    machine.put(&one, A, 5);
    assert_eq!((machine.get(&other, A), machine.shelf().writes()), (5, 1));
    let child = one.fork().unwrap();
    machine.put(&child, A + PAGE, 6);
    assert_eq!((machine.get(&one, A + PAGE), machine.shelf().writes()), (6, 2));
    let pins = machine.pin::<Write>(&other, A + 2 * PAGE, 1).unwrap();
    let frame = machine.shelf().frame(FILE, 2).unwrap();
    assert_eq!(pins.runs()[0].first(), frame);
    machine.dma_write(frame.address(), &[7]);
    assert_eq!([&one, &other, &child].map(|process| machine.get(process, A + 2 * PAGE)), [7; 3]);
    let grandchild = child.fork().unwrap();
    machine.dma_write(frame.address(), &[8]);
    assert_eq!(machine.get(&grandchild, A + 2 * PAGE), 8, "fork moves no page of an object");
    drop(pins);
    assert!(machine.word(frame).snapshot().dirty);
    assert_eq!(machine.shelf().mapped_pages(FILE), 16);
    drop((one, other, child, grandchild));
    assert_eq!(machine.shelf().mapped_pages(FILE), 0);
    machine.clear_shelf();
}

/// Through a private mapping nobody writes to the object, and a pin, even one that reads, is of this mm's own copy.
fn a_private_mapping_leaves_the_object_alone<L: Layout>() {
    let machine = Machine::<L>::new(64);
    machine.shelf().add(FILE, 4);
    let (one, shared) = (sharing(&machine, Sharing::Private), sharing(&machine, Sharing::Shared));
    assert_eq!(bytes(&machine, &one, 2), [0, 1].map(first_byte));
    assert_eq!(one.resident().unwrap().object, 2);
    machine.put(&shared, A, 9);
    assert_eq!(machine.get(&one, A), 9, "not copied yet");
    let read = machine.pin::<Read>(&one, A, 2 * PAGE).unwrap().complete().unwrap();
    assert!(read.runs().iter().all(|run| machine.word(run.first()).kind() == FrameKind::Anonymous));
    machine.put(&one, A, 1);
    let mut seen = [0];
    read.copy_to(0, &mut seen).unwrap();
    assert_eq!((seen, machine.get(&shared, A)), ([1], 9));
    machine.put(&one, A + 2 * PAGE, 2);
    assert_eq!(machine.get(&shared, A + 2 * PAGE), first_byte(2));
    let child = one.fork().unwrap();
    assert_eq!(bytes(&machine, &child, 4), [1, first_byte(1), 2, first_byte(3)]);
    machine.put(&child, A + 3 * PAGE, 3);
    assert_eq!(machine.get(&one, A + 3 * PAGE), first_byte(3));
    drop(read);
    // A page of one's own goes to a slot as every other.
    assert_eq!(one.swap_out(A, 4 * PAGE).unwrap().pages, 3);
    machine.write_out();
    assert_eq!(bytes(&machine, &one, 4), [1, first_byte(1), 2, first_byte(3)]);
    machine.audit(&[&one, &shared, &child], &Default::default());
    drop((one, shared, child));
    machine.clear_shelf();
}

/// A read pin of what was borrowed is unshared by the fast form, the slow one and the one that never waits for a lock alike.
fn a_borrowed_page_is_never_pinned_as_it_is<L: Layout>() {
    let machine = Machine::<L>::new(64);
    machine.shelf().add(FILE, 4);
    let process = sharing(&machine, Sharing::Private);
    assert_eq!(bytes(&machine, &process, 4), [0, 1, 2, 3].map(first_byte));
    let no_fault = machine.pin_slow::<Read>(&process, A, PAGE, PinFlags::NOFAULT).err();
    assert_eq!(no_fault, Some(PinError::WouldFault));
    let pins = machine.pin_slow::<Read>(&process, A, 4 * PAGE, PinFlags::empty()).unwrap();
    let frames = machine.shelf().frames();
    assert!(pins.runs().iter().all(|run| !frames.contains(&run.first())));
    drop(pins);
    let got = machine.reference::<Read>(&process, A, PAGE).unwrap();
    assert!(got.runs().iter().all(|run| !frames.contains(&run.first())));
    drop(got);
    drop(process);
    machine.clear_shelf();
}

/// While a page is written back nobody pins it, whoever writes asks again, and what was written is not forgotten.
fn write_back_closes_a_page<L: Layout>() {
    let machine = Machine::<L>::new(64);
    machine.shelf().add(FILE, 4);
    let process = sharing(&machine, Sharing::Shared);
    machine.put(&process, A, 5);
    let pins = machine.pin::<Read>(&process, A, 1).unwrap();
    assert_eq!(machine.begin_writeback(FILE, 0), Err(CountError::Pinned));
    drop(pins);
    let frame = machine.shelf().frame(FILE, 0).unwrap();
    assert_eq!(machine.begin_writeback(FILE, 0), Ok(false), "what is written is noted in the entry, still");
    process.write_protect_object(FILE, 0..4).unwrap();
    assert!(machine.word(frame).snapshot().dirty);
    for pin in [machine.pin::<Read>(&process, A, 1).err(), machine.pin::<Write>(&process, A, 1).err()] {
        assert_eq!(pin, Some(PinError::NotReady(WRITE_BACK)));
    }
    machine.shelf().delay_writes(1);
    machine.end_writeback(FILE, 0);
    process.write_protect_object(FILE, 0..4).unwrap();
    let asked = machine.shelf().writes();
    assert_eq!(machine.store(0, &process, A, 6, 1).err(), Some(FaultError::NotReady(WRITE_BACK)));
    machine.put(&process, A, 6);
    assert_eq!(machine.shelf().writes(), asked + 1);
    drop(machine.pin::<Write>(&process, A, 1).unwrap());
    machine.shelf().refuse_writes();
    assert_eq!(machine.store(0, &process, A + PAGE, 6, 1).err(), Some(FaultError::AccessDenied));
    drop(process);
    machine.clear_shelf();
}

/// Rights that come back do not bring the right to write without asking.
fn protect_does_not_write_behind_the_objects_back<L: Layout>() {
    let machine = Machine::<L>::new(64);
    machine.shelf().add(FILE, 4);
    let process = sharing(&machine, Sharing::Shared);
    machine.put(&process, A, 5);
    for rights in [R, RW, Rights::empty(), RW] {
        process.protect(A, 4 * PAGE, rights).unwrap();
    }
    assert!(!Machine::<L>::is_writable(machine.leaf(&process, A).unwrap().bits));
    machine.put(&process, A, 6);
    assert_eq!(machine.shelf().writes(), 2);
    drop(process);
    machine.clear_shelf();
}

/// What is cut off goes from everybody, pinned or not; who looks it up at that very moment does not keep it.
fn a_truncation_takes_the_pages_from_everybody<L: Layout>() {
    let machine = Machine::<L>::new(64);
    machine.shelf().add(FILE, 4);
    let (one, private) = (sharing(&machine, Sharing::Shared), sharing(&machine, Sharing::Private));
    assert_eq!(bytes(&machine, &one, 4), bytes(&machine, &private, 4));
    machine.put(&private, A + 3 * PAGE, 1);
    let pins = machine.pin::<Write>(&one, A + 2 * PAGE, 2 * PAGE).unwrap();
    machine.cut(FILE, 2);
    let gone = one.forget_object(FILE, 2..u32::MAX, Copies::Forget).unwrap();
    assert_eq!((gone.pages, gone.pinned_pages, gone.still_pinned.runs()[0].start), (2, 2, A + 2 * PAGE));
    assert_eq!(private.forget_object(FILE, 2..u32::MAX, Copies::Forget).unwrap().pages, 2);
    for process in [&one, &private] {
        assert_eq!(machine.load(0, process, A + 2 * PAGE, 1).err(), Some(FaultError::PastEnd));
        assert_eq!(machine.pin::<Read>(process, A + 3 * PAGE, 1).err(), Some(PinError::PastEnd));
    }
    assert_eq!(bytes(&machine, &one, 2), [0, 1].map(first_byte));
    drop(pins);
    // Between the look-up and the entry.
    for (access, process) in [(Access::Read, &one), (Access::Read, &private), (Access::Write, &private)] {
        machine.shelf().add(ObjectId(9), 1);
        process
            .map_object(
                FAR,
                PAGE,
                ObjectId(9),
                0,
                if std::ptr::eq(process, &one) { Sharing::Shared } else { Sharing::Private },
                RW,
            )
            .unwrap();
        machine.shelf().cut_after_page();
        let result = match access {
            Access::Write => machine.store(0, process, FAR, 1, 1).err(),
            _ => machine.load(0, process, FAR, 1).err(),
        };
        assert_eq!(result, Some(FaultError::PastEnd), "{access:?}");
        assert!(machine.leaf(process, FAR).is_none());
        process.unmap(FAR, PAGE).unwrap();
    }
    drop((one, private));
    machine.clear_shelf();
}

/// Holes that are punched leave copies alone.
fn a_punched_hole_leaves_copies<L: Layout>() {
    let machine = Machine::<L>::new(64);
    machine.shelf().add(FILE, 4);
    let private = sharing(&machine, Sharing::Private);
    assert_eq!(machine.get(&private, A), first_byte(0));
    machine.put(&private, A + PAGE, 1);
    assert_eq!(private.forget_object(FILE, 0..2, Copies::Keep).unwrap().pages, 1);
    assert_eq!(machine.get(&private, A + PAGE), 1);
    drop(private);
    machine.clear_shelf();
}

/// A VMA of an object keeps its place in the object when it is split, joined, and partly unmapped; it says how much of the object is shown.
fn parts_of_a_vma_show_the_same_pages<L: Layout>() {
    let machine = Machine::<L>::new(64);
    machine.shelf().add(FILE, 12);
    let process = machine.process();
    process.map_object(A, 4 * PAGE, FILE, 5, Sharing::Shared, RW).unwrap();
    process.protect(A + PAGE, PAGE, R).unwrap();
    assert_eq!(
        process.vma_at(A + 2 * PAGE).unwrap().unwrap().object_page(pagepin::PageAddr::containing(A + 3 * PAGE)),
        Some((FILE, 8))
    );
    process.protect(A + PAGE, PAGE, RW).unwrap();
    assert_eq!(process.vma_at(A).unwrap().unwrap().pages(), 4, "joined again");
    process.map_object(A + 4 * PAGE, PAGE, FILE, 9, Sharing::Shared, RW).unwrap();
    process.map_object(A + 5 * PAGE, PAGE, FILE, 9, Sharing::Shared, RW).unwrap();
    assert_eq!(process.vma_at(A).unwrap().unwrap().pages(), 5, "what follows in the object, and no more");
    assert_eq!(bytes(&machine, &process, 6), [5, 6, 7, 8, 9, 9].map(first_byte));
    process.unmap(A + PAGE, 2 * PAGE).unwrap();
    assert_eq!(machine.shelf().mapped_pages(FILE), 4);
    assert_eq!(machine.get(&process, A + 3 * PAGE), first_byte(8));
    let shown = |start, page, id| process.map_object(start, PAGE, id, page, Sharing::Shared, RW);
    assert_eq!(shown(A + PAGE, u32::MAX, FILE), Err(SpaceError::PageOverflow));
    assert_eq!(shown(A + PAGE, 0, ObjectId(99)), Err(SpaceError::NoObject));
    assert_eq!(shown(A, 0, FILE), Err(SpaceError::Overlap));
    let wiped = MapOptions::new(RW).flags(VmaFlags::WIPE_ON_FORK);
    assert_eq!(process.map_object(FAR, PAGE, FILE, 0, Sharing::Private, wiped), Err(SpaceError::InvalidFlags));
    assert_eq!(machine.shelf().mapped_pages(FILE), 4);
    drop(process);
    machine.clear_shelf();
}

/// A page that has to be read first is waited for by its reader, with nothing held; and each allocation fails once.
fn objects_that_fail_change_nothing<L: Layout>() {
    let machine = Machine::<L>::new(64);
    machine.shelf().add(FILE, 4);
    let process = sharing(&machine, Sharing::Private);
    machine.shelf().delay(2);
    assert_eq!(machine.load(0, &process, A, 1).err(), Some(FaultError::NotReady(READING)));
    assert_eq!(machine.pin::<Write>(&process, A, 1).err(), Some(PinError::NotReady(READING)));
    for failing in 0..6 {
        let allocations = machine.memory().refusals();
        machine.memory().fail_once(Some(failing));
        let result = machine.pin::<Read>(&process, A, 4 * PAGE).map(drop);
        machine.memory().fail_once(None);
        if machine.memory().refusals() != allocations {
            assert!(matches!(result, Err(PinError::NoMemory) | Ok(())), "{result:?}");
        }
        machine.audit(&[&process], &Default::default());
        process.discard(A, 4 * PAGE).unwrap();
    }
    drop(process);
    machine.clear_shelf();
}

every_layout!(
    pages_come_back_from_their_slots,
    a_page_that_a_pin_sees_first_has_its_contents,
    a_page_without_memory_to_come_back_in_says_so,
    what_is_pinned_stays,
    a_write_by_a_stale_translation_goes_with_the_page,
    fork_duplicates_tokens,
    what_is_unmapped_lets_go_of_its_slots,
    slots_that_fail_change_nothing,
    a_token_that_was_used_again_brings_what_it_stands_for_now,
    a_shared_object_is_one_for_all,
    a_private_mapping_leaves_the_object_alone,
    a_borrowed_page_is_never_pinned_as_it_is,
    write_back_closes_a_page,
    protect_does_not_write_behind_the_objects_back,
    a_truncation_takes_the_pages_from_everybody,
    a_punched_hole_leaves_copies,
    parts_of_a_vma_show_the_same_pages,
    objects_that_fail_change_nothing,
);
