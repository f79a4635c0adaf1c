//! Two private pages of the same bytes become one; whoever holds or changes one of them comes first.

use pagepin::frame::{Layout, Wide};
use pagepin::pin::{Read, Write};
use pagepin::space::{MergeError, Sharing};
use pagepin::{LeafSize, ObjectId, Pfn};

use crate::machine::{A, LARGE, Machine, PAGE, Process, R, RW};

fn frame<L: Layout>(machine: &Machine<L>, process: &Process<'_, L>, address: u64) -> Pfn {
    machine.frame_at(process, address).0
}

/// Two processes with two pages each, all of which hold 7.
fn alike<L: Layout>(machine: &Machine<L>) -> (Process<'_, L>, Process<'_, L>) {
    let two = (machine.populated(2, 7), machine.populated(2, 7));
    machine.put(&two.0, A + PAGE, 7);
    machine.put(&two.1, A + PAGE, 7);
    two
}

/// All four become one frame, and each write brings its writer a page of its own.
fn alike_pages_share_a_frame_until_one_is_written<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let (one, two) = alike(&machine);
    let allocated = machine.memory().allocated().len();
    drop(machine.pin::<Write>(&one, A, 1).unwrap());
    assert_eq!(one.merge(A, &two, A), Ok(()));
    assert_eq!(one.merge(A + PAGE, &one, A), Ok(()));
    assert_eq!(two.merge(A + PAGE, &one, A), Ok(()));
    assert_eq!(machine.memory().allocated().len(), allocated - 3);
    let shared = frame(&machine, &two, A);
    assert!(machine.word(shared).snapshot().dirty, "a device wrote one of them");
    for (process, address) in [(&one, A), (&one, A + PAGE), (&two, A + PAGE)] {
        assert_eq!(frame(&machine, process, address), shared);
        assert!(!Machine::<L>::is_writable(machine.leaf(process, address).unwrap().bits));
    }
    assert_eq!(one.merge(A, &two, A), Err(MergeError::Same));
    machine.put(&one, A, 8);
    let pin = machine.pin::<Read>(&two, A, 1).unwrap();
    machine.put(&two, A, 9);
    let mut seen = [0];
    pin.complete().unwrap().copy_to(0, &mut seen).unwrap();
    assert_eq!(seen, [9]);
    let read = |process: &Process<'_, L>| [A, A + PAGE].map(|address| machine.get(process, address));
    assert_eq!((read(&one), read(&two)), ([8, 7], [9, 7]));
    let child = one.fork().unwrap();
    assert_eq!(two.merge(A + PAGE, &child, A + PAGE), Err(MergeError::Same));
    machine.audit(&[&one, &two, &child], &Default::default());
}

/// A pin, a get, another process or a slot keeps the page that was to go; a pin keeps the one that was to stay.
fn whoever_holds_a_page_keeps_it<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let (one, two) = alike(&machine);
    for (pinned, reads) in [(&one, true), (&one, false), (&two, true), (&two, false)] {
        let before = [frame(&machine, &one, A), frame(&machine, &two, A)];
        let read = reads.then(|| machine.pin::<Read>(pinned, A, 1).unwrap());
        let write = (!reads).then(|| machine.pin::<Write>(pinned, A, 1).unwrap());
        assert_eq!(one.merge(A, &two, A), Err(MergeError::Pinned));
        machine.dma_write(frame(&machine, pinned, A).address() + 1, &[3]);
        assert_eq!(machine.get(pinned, A + 1), 3);
        machine.put(pinned, A + 1, 0);
        assert_eq!([frame(&machine, &one, A), frame(&machine, &two, A)], before);
        drop((read, write));
    }
    let got = machine.reference::<Read>(&one, A, 1).unwrap();
    assert_eq!(one.merge(A, &two, A), Err(MergeError::Shared));
    drop(got);
    let child = one.fork().unwrap();
    assert_eq!(one.merge(A, &two, A), Err(MergeError::Shared));
    assert_eq!(two.merge(A, &one, A), Ok(()), "what stays may have any number of holders");
    assert_eq!(machine.word(frame(&machine, &two, A)).snapshot().refs, 3);
    drop(child);
    assert_eq!(one.swap_out(A, PAGE).unwrap().pages, 1);
    assert_eq!(two.merge(A + PAGE, &one, A), Err(MergeError::NotPrivate));
    assert_eq!(machine.get(&one, A), 7);
    machine.audit(&[&one, &two], &Default::default());
}

/// Bytes that differ, by the first or the last of them: each keeps its page, and both can be written.
fn different_pages_stay_apart<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let (one, two) = alike(&machine);
    for offset in [0, PAGE - 1] {
        machine.put(&one, A + offset, 200);
        let before = [frame(&machine, &one, A), frame(&machine, &two, A)];
        assert_eq!(one.merge(A, &two, A), Err(MergeError::Different));
        assert!(Machine::<L>::is_writable(machine.leaf(&one, A).unwrap().bits));
        machine.put(&two, A + 5, 5);
        machine.put(&one, A + 5, 5);
        assert_eq!([frame(&machine, &one, A), frame(&machine, &two, A)], before);
        machine.put(&one, A + offset, machine.get(&two, A + offset));
    }
    assert_eq!(one.merge(A, &two, A), Ok(()));
}

/// What another CPU writes by a translation of before, until the flush is acknowledged, counts.
fn a_write_before_the_flush_is_seen<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let (one, two) = alike(&machine);
    // Its entry is read-only from then on, so that the next flush is the other page's.
    assert_eq!(two.merge(A + PAGE, &two, A), Ok(()));
    let race = || machine.store(1, &one, A, 66, 1).unwrap();
    machine.store(1, &one, A, 7, 1).unwrap();
    machine.before_acknowledgement(race, || assert_eq!(one.merge(A, &two, A), Err(MergeError::Different)));
    assert_eq!((machine.get(&one, A), machine.get(&two, A)), (66, 7));
    // And of the page that is to stay.
    machine.store(1, &one, A, 66, 1).unwrap();
    machine.put(&two, A, 7);
    let race = || machine.store(1, &one, A, 7, 1).unwrap();
    machine.before_acknowledgement(race, || assert_eq!(two.merge(A, &one, A), Ok(())));
    assert_eq!((machine.get(&one, A), machine.get(&two, A)), (7, 7));
}

/// Others merge the two the other way round, write, fork, pin or end, before each of the exchanges: no deadlock, and no byte is lost.
fn others_come_between<L: Layout>() {
    for (at, other) in (0..3).flat_map(|at| (0..6).map(move |other| (at, other))) {
        let machine = Machine::<L>::new(64);
        let (one, two) = alike(&machine);
        let (mut child, mut pin, mut expected) = (None, None, (7, 7));
        let race = || match other {
            0 => assert!(two.merge(A, &one, A).is_ok() || at == 1),
            1 => {
                machine.put(&two, A, 9);
                expected.1 = 9;
            }
            2 => {
                machine.put(&one, A, 9);
                expected.0 = 9;
            }
            3 => child = Some(one.swap_out(A, PAGE).unwrap()),
            4 => pin = machine.pin::<Write>(&one, A, 1).ok(),
            _ => pin = machine.pin::<Write>(&two, A, 1).ok(),
        };
        let (result, raced) = machine.at_exchange(at, race, || one.merge(A, &two, A));
        assert_eq!(raced, at < 2, "{at} {other}: {result:?}");
        assert_eq!((machine.get(&one, A), machine.get(&two, A)), if raced { expected } else { (7, 7) }, "{at} {other}");
        if let Some(pin) = &pin {
            let process = if other == 4 { &one } else { &two };
            assert_eq!(pin.runs()[0].first(), frame(&machine, process, A));
        }
        drop(pin);
        machine.audit(&[&one, &two], &Default::default());
    }
}

/// Another merge takes the page's frame between the look at its entry and the look at its frame, which is free then.
fn a_page_that_changes_its_frame_is_looked_at_again<L: Layout>() {
    // The page that stays may have any number of holders; the other has one more by now.
    for (lookup, stays, expected) in [(0, true, Ok(())), (2, false, Err(MergeError::Shared))] {
        let machine = Machine::<L>::new(64);
        let (one, two) = alike(&machine);
        let race = || match stays {
            true => assert_eq!(two.merge(A, &one, A + PAGE), Ok(())),
            false => assert_eq!(one.merge(A, &two, A + PAGE), Ok(())),
        };
        assert_eq!(machine.before_lookup(lookup, race, || one.merge(A, &two, A)), expected);
        assert_eq!((machine.get(&one, A), machine.get(&two, A)), (7, 7));
        machine.audit(&[&one, &two], &Default::default());
    }
}

/// Arguments of user space, and pages that are none of private memory.
fn what_cannot_be_merged_is_refused_by_name<L: Layout>() {
    let (machine, other) = (Machine::<L>::new(4096), Machine::<L>::new(64));
    machine.shelf().add(ObjectId(3), 4);
    let (one, two) = alike(&machine);
    assert_eq!(one.merge(A, &one, A), Err(MergeError::Same));
    assert!(Machine::<L>::is_writable(machine.leaf(&one, A).unwrap().bits));
    for address in [A + 1, 1 << 47, u64::MAX - 4095, u64::MAX] {
        assert!(matches!(one.merge(address, &two, A), Err(MergeError::Range(_))));
        assert!(matches!(one.merge(A, &two, address), Err(MergeError::Range(_))));
    }
    let large = LeafSize::Size2MiB;
    one.map(LARGE, large.bytes(), RW).unwrap();
    machine.install(&one, LARGE, large, machine.block(large), 0x67);
    one.map(A + 8 * PAGE, 3 * PAGE, RW).unwrap();
    assert_eq!(machine.get(&one, A + 8 * PAGE), 0);
    machine.put(&one, A + 9 * PAGE, 7);
    one.protect(A + 9 * PAGE, PAGE, pagepin::Rights::empty()).unwrap();
    one.map_object(A + 16 * PAGE, PAGE, ObjectId(3), 0, Sharing::Private, R).unwrap();
    one.map_object(A + 17 * PAGE, PAGE, ObjectId(3), 0, Sharing::Shared, R).unwrap();
    machine.get(&one, A + 16 * PAGE);
    machine.get(&one, A + 17 * PAGE);
    for page in [8, 9, 10, 16, 17] {
        assert_eq!(one.merge(A + page * PAGE, &two, A), Err(MergeError::NotPrivate), "{page}");
        assert_eq!(two.merge(A, &one, A + page * PAGE), Err(MergeError::NotPrivate), "{page}");
    }
    assert_eq!(one.merge(LARGE + PAGE, &two, A), Err(MergeError::NotPrivate));
    assert_eq!(two.merge(A, &one, LARGE), Err(MergeError::NotPrivate));
    assert_eq!(one.merge(A + 20 * PAGE, &two, A), Err(MergeError::NoVma));
    assert_eq!(one.merge(A, &two, A + 20 * PAGE), Err(MergeError::NoVma));
    let stranger = other.populated(1, 7);
    assert_eq!(one.merge(A + PAGE, &stranger, A), Err(MergeError::OtherKernel));
    assert_eq!(machine.get(&one, A), 7);
    drop((one, two));
    machine.clear_shelf();
}

every_layout!(
    alike_pages_share_a_frame_until_one_is_written,
    whoever_holds_a_page_keeps_it,
    different_pages_stay_apart,
    a_write_before_the_flush_is_seen,
    others_come_between,
    a_page_that_changes_its_frame_is_looked_at_again,
    what_cannot_be_merged_is_refused_by_name,
);

/// Nobody is told that a page was written which was not.
#[test]
fn a_page_that_is_kept_becomes_dirty_only_by_what_it_replaces() {
    let machine = Machine::<Wide>::new(64);
    let (one, two) = alike(&machine);
    let dirty = || machine.word(frame(&machine, &two, A)).snapshot().dirty;
    // A device wrote the page that was to go, and it stays.
    machine.put(&one, A, 200);
    drop(machine.pin::<Write>(&one, A, 1).unwrap());
    assert_eq!(one.merge(A, &two, A), Err(MergeError::Different));
    assert!(!dirty(), "they are not one");
    assert_eq!(one.merge(A + PAGE, &two, A), Ok(()));
    assert!(!dirty(), "no device wrote either");
}
