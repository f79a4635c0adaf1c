//! Holes, truncation beside write-back, frames for who is short of memory, and how much of an object is pinned.

use std::ops::Range;

use pagepin::pin::{Owner, PhysRun, PinFlags, Read, Write, pin_object_pages};
use pagepin::space::{Copies, Sharing};
use pagepin::{NotReady, ObjectId, Unlimited};
use pagepin_store::{FilePage, Properties, Shown, StoreError, WhenPinned};

use crate::files::{All, Machine, Process, bytes, end, machine, on_disk, showing};
use crate::kept::PAGES;
use crate::machine::{A, PAGE};

/// A hole reads as zeroes for who shares the file and who reads it, on the disk as well; private copies stay, and pins keep their frames.
#[test]
fn a_hole_is_zeroes_for_all_but_private_copies() {
    for kind in [Properties::file(), Properties::memory()] {
        let machine = Machine::new(64);
        let object = machine.cache().create(&machine, kind, 4 * PAGE).unwrap();
        let (shared, private) =
            (showing(&machine, object, 4, Sharing::Shared), showing(&machine, object, 4, Sharing::Private));
        (0..4).for_each(|page| machine.put(&shared, A + page * PAGE, 10 + page as u8));
        machine.put(&private, A + PAGE, 20);
        assert_eq!(bytes(&machine, &private), [10, 20, 12, 13]);
        let pin = machine.pin::<Write>(&shared, A + 2 * PAGE, 1).unwrap();
        let frame = pin.runs()[0].first();
        machine.cache().punch(&machine, &All(&[&shared, &private]), object, 1..3).unwrap();
        machine.dma_write(frame.address(), &[66]);
        assert_eq!((bytes(&machine, &shared), bytes(&machine, &private)), ([10, 0, 0, 13], [10, 20, 0, 13]));
        assert_ne!(machine.cache().frame(&machine, object, 2), Some(frame));
        drop(pin);
        machine.put(&shared, A + PAGE, 5);
        machine.cache().write_back(&machine, &All(&[&shared, &private]), object, 0..9, WhenPinned::Bounce).unwrap();
        let disk = |page| machine.cache().device().get(FilePage { object, page })[0];
        let is_file = kind == Properties::file();
        assert_eq!([0, 1, 2, 3].map(disk), if is_file { [10, 5, 0, 13] } else { [0; 4] });
        machine.audit(&[&shared, &private], &Default::default());
        drop((shared, private));
        end(&machine, object);
    }
    let (machine, file) = machine(4);
    for empty in [9..12, 2..2, u32::MAX - 1..u32::MAX] {
        machine.cache().punch(&machine, &(), file, empty).unwrap();
    }
    let mut byte = [0];
    machine.cache().read(&machine, file, 2 * PAGE, &mut byte).unwrap();
    assert_eq!(byte, [on_disk(2)]);
    let sealed = machine.cache().create(&machine, Properties::memory().read_only(), PAGE).unwrap();
    assert_eq!(machine.cache().punch(&machine, &(), sealed, 0..1), Err(StoreError::Denied));
    assert_eq!(machine.cache().punch(&machine, &(), ObjectId(99), 0..1), Err(StoreError::NoObject));
    end(&machine, file);
}

/// Who finds the page between the hole and its mappings finds the hole: at each exchange, and when the mappings go.
#[test]
fn a_fault_beside_a_punch_finds_the_hole() {
    struct Faulting<'p, 'm>(&'p Machine, &'p Process<'m>);
    impl Shown for Faulting<'_, '_> {
        fn write_protect(&self, _: ObjectId, _: Range<u32>) {}
        fn forget(&self, id: ObjectId, pages: Range<u32>, copies: Copies) {
            assert_eq!(self.0.get(self.1, A + PAGE), on_disk(1), "its entry is there, still");
            self.1.forget_object(id, pages.clone(), copies).unwrap();
            assert_eq!(self.0.get(self.1, A + PAGE), 0);
        }
    }
    let (machine, file) = machine(4);
    let process = showing(&machine, file, 4, Sharing::Shared);
    assert_eq!(machine.get(&process, A + PAGE), on_disk(1));
    machine.cache().punch(&machine, &Faulting(&machine, &process), file, 1..2).unwrap();
    let punch = || machine.cache().punch(&machine, &All(&[&process]), file, 2..3).unwrap();
    let (found, fired) = machine.at_exchange(0, punch, || machine.load(0, &process, A + 2 * PAGE, 1));
    assert_eq!((found, fired), (Ok(0), true));
    machine.audit(&[&process], &Default::default());
    drop(process);
    end(&machine, file);
}

/// Only a page that would be cut off, or in which the file would end, holds a truncation up; it is named, and nothing has changed. The same of holes,
/// and beside either no write-back of what goes begins.
#[test]
fn a_truncation_waits_for_what_it_cuts_off_alone() {
    let (machine, file) = machine(4);
    let (cache, disk) = (machine.cache(), machine.cache().device());
    let process = showing(&machine, file, 4, Sharing::Shared);
    let all = All(&[&process]);
    assert_eq!(bytes(&machine, &process), [0, 1, 2, 3].map(on_disk));
    machine.put(&process, A + PAGE, 1);
    disk.answer_late(true);
    assert_eq!(cache.write_back(&machine, &all, file, 0..9, WhenPinned::Bounce).unwrap().started, 1);
    let later = NotReady(u64::from(file.0) << 32 | 1);
    for length in [0, PAGE, PAGE + 1, 2 * PAGE - 1] {
        assert_eq!(cache.set_length(&machine, &all, file, length), Err(StoreError::NotReady(later)), "{length}");
        assert_eq!(cache.length(&machine, file), Ok(4 * PAGE));
    }
    for pages in [0..4, 1..2] {
        assert_eq!(cache.punch(&machine, &all, file, pages), Err(StoreError::NotReady(later)));
    }
    assert_eq!(bytes(&machine, &process)[1], 1, "all is as it was");
    cache.punch(&machine, &all, file, 2..3).unwrap();
    cache.set_length(&machine, &all, file, 3 * PAGE).unwrap();
    cache.set_length(&machine, &all, file, 4 * PAGE).unwrap();
    let some = NotReady(u64::from(file.0) << 32 | u64::from(u32::MAX));
    drop(process);
    assert_eq!(cache.remove(&machine, file), Err(StoreError::NotReady(some)));
    let (request, result) = disk.end_write(&machine, 0).unwrap();
    assert_eq!(cache.write_ended(&machine, request, result), later);
    disk.answer_late(false);
    cache.set_length(&machine, &(), file, PAGE).unwrap();
    assert_eq!(disk.get(FilePage { object: file, page: 1 })[0], 0);
    end(&machine, file);
}

/// While pages go, their write-back does not begin: the disk would get what is cut off.
#[test]
fn what_goes_is_not_written() {
    struct Writing<'p>(&'p Machine, ObjectId);
    impl Shown for Writing<'_> {
        fn write_protect(&self, _: ObjectId, _: Range<u32>) {}
        fn forget(&self, _: ObjectId, _: Range<u32>, _: Copies) {
            let (machine, file) = (self.0, self.1);
            machine.cache().write(machine, file, 0, &[7]).unwrap();
            // The page comes back for a moment: the hole is there already.
            let mut byte = [9];
            machine.cache().read(machine, file, PAGE, &mut byte).unwrap();
            assert_eq!(byte, [0]);
            machine.cache().write(machine, file, PAGE, &[8]).unwrap();
            let done = machine.cache().write_back(machine, &(), file, 0..9, WhenPinned::Bounce).unwrap();
            assert_eq!((done.direct, done.busy), (1, 1));
            let again = machine.cache().punch(machine, &(), file, 0..1);
            assert!(matches!(again, Err(StoreError::NotReady(_))), "one at a time");
        }
    }
    let (machine, file) = machine(4);
    machine.cache().punch(&machine, &Writing(&machine, file), file, 1..2).unwrap();
    assert_eq!(machine.cache().write_back(&machine, &(), file, 0..9, WhenPinned::Bounce).unwrap().direct, 1);
    let disk = |page| machine.cache().device().get(FilePage { object: file, page })[0];
    assert_eq!([disk(0), disk(1)], [7, 8]);
    end(&machine, file);
}

/// Under pressure pages that are shown go as well, the clean and unpinned ones, and those that were not used for longest first; who shows
/// them takes a fault and finds the same bytes.
#[test]
fn a_kernel_under_pressure_gets_frames_back() {
    let (machine, file) = machine(8);
    let cache = machine.cache();
    let (one, other) = (showing(&machine, file, 8, Sharing::Shared), showing(&machine, file, 8, Sharing::Private));
    let all = All(&[&one, &other]);
    for page in 0..8 {
        assert_eq!(machine.get(&one, A + page * PAGE), machine.get(&other, A + page * PAGE));
    }
    machine.put(&one, A, 1);
    machine.put(&other, A + PAGE, 2);
    let pin = machine.pin::<Read>(&one, A + 2 * PAGE, 1).unwrap();
    let before = machine.memory().allocated().len();
    assert_eq!(cache.evict(&machine, u32::MAX), 0, "all are shown");
    assert_eq!(cache.reclaim(&machine, &all, 2), 2);
    // One page is dirty in an entry alone, which nobody knows before it is taken: it stays, and so does what is pinned.
    assert_eq!(cache.reclaim(&machine, &all, u32::MAX), 4);
    assert_eq!(machine.memory().allocated().len(), before - 6);
    assert_eq!(cache.reclaim(&machine, &all, u32::MAX), 0);
    let there = |page| cache.frame(&machine, file, page).is_some();
    assert_eq!([0, 1, 2, 3].map(there), [true, false, true, false]);
    assert_eq!(pin.runs()[0].first(), machine.frame_at(&one, A + 2 * PAGE).0);
    assert_eq!(bytes(&machine, &one), [1, on_disk(1), on_disk(2), on_disk(3)]);
    assert_eq!(bytes(&machine, &other), [1, 2, on_disk(2), on_disk(3)], "a private copy is nobody's to take");
    drop(pin);
    cache.write_back(&machine, &all, file, 0..9, WhenPinned::Bounce).unwrap();
    assert_eq!(cache.reclaim(&machine, &all, u32::MAX), 4, "what is written back goes");
    assert_eq!(bytes(&machine, &one)[0], 1);
    machine.audit(&[&one, &other], &Default::default());
    drop((one, other));
    end(&machine, file);
}

/// What was looked up since the hand passed has another chance; memory objects, which have no other place, stay.
#[test]
fn what_is_used_stays_longer() {
    let (machine, file) = machine(PAGES);
    let cache = machine.cache();
    let mut byte = [0];
    let mut read = |page: u32| _ = cache.read(&machine, file, u64::from(page) * PAGE, &mut byte).unwrap();
    (0..PAGES).for_each(&mut read);
    // A round in which every page loses its mark, and the first goes.
    assert_eq!(cache.evict(&machine, 1), 1);
    let there = |page: &u32| cache.frame(&machine, file, *page).is_some();
    let rest: Vec<u32> = (0..PAGES).filter(there).collect();
    rest.iter().filter(|page| *page % 2 == 0).for_each(|page| read(*page));
    let used = rest.iter().filter(|page| *page % 2 == 0).count() as u32;
    assert_eq!(cache.evict(&machine, PAGES - 1 - used), PAGES - 1 - used);
    assert!((0..PAGES).filter(there).all(|page| page % 2 == 0), "the others went first");
    assert_eq!(cache.reclaim(&machine, &(), u32::MAX), used);
    let memory = cache.create(&machine, Properties::memory(), 2 * PAGE).unwrap();
    cache.write(&machine, memory, 0, &[1]).unwrap();
    assert_eq!((cache.reclaim(&machine, &(), u32::MAX), cache.evict(&machine, u32::MAX)), (0, 0));
    cache.remove(&machine, memory).unwrap();
    end(&machine, file);
}

/// How much of an object is pinned: through whichever mapping, by its number, more than once or not; copies are not the object's, nor is what was cut off.
#[test]
fn the_pinned_total_of_an_object() {
    let (machine, file) = machine(4);
    let cache = machine.cache();
    let (one, other) = (showing(&machine, file, 4, Sharing::Shared), showing(&machine, file, 4, Sharing::Private));
    assert_eq!(cache.pinned(&machine, file), Ok(0));
    let shown = machine.pin::<Read>(&one, A, 2 * PAGE).unwrap();
    let copy = machine.pin::<Write>(&other, A + 3 * PAGE, 1).unwrap();
    assert_eq!(cache.pinned(&machine, file), Ok(2));
    let owner = Owner::new(&machine, Unlimited);
    let by_number = pin_object_pages(owner, Read, file, 1..3, PinFlags::empty(), [PhysRun::default(); 4]).unwrap();
    assert_eq!(cache.pinned(&machine, file), Ok(3));
    cache.set_length(&machine, &All(&[&one, &other]), file, 2 * PAGE).unwrap();
    assert_eq!(cache.pinned(&machine, file), Ok(2));
    drop((shown, copy));
    assert_eq!(cache.pinned(&machine, file), Ok(1));
    drop(by_number);
    assert_eq!((cache.pinned(&machine, file), cache.pinned(&machine, ObjectId(9))), (Ok(0), Err(StoreError::NoObject)));
    drop((one, other));
    end(&machine, file);
}
