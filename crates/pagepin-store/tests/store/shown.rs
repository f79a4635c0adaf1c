//! Objects that processes of the emulated machine show: shared, private, forked, pinned, cut off, written back.

use pagepin::fault::FaultError;
use pagepin::frame::FrameKind;
use pagepin::pin::{PinError, PinFlags, Read, Write};
use pagepin::space::Sharing;
use pagepin::{NotReady, ObjectId};
use pagepin_store::{FilePage, Properties, StoreError, WhenPinned, WrittenBack};

use crate::files::{All, Machine, Process, bytes, end, machine, on_disk, showing};
use crate::kept::{OBJECTS, PAGES};
use crate::machine::{A, PAGE, RW};

fn write_back(machine: &Machine, all: &[&Process<'_>], file: ObjectId, when: WhenPinned) -> WrittenBack {
    machine.cache().write_back(machine, &All(all), file, 0..u32::MAX, when).unwrap()
}

fn disk(machine: &Machine, file: ObjectId) -> [u8; 4] {
    [0, 1, 2, 3].map(|page| machine.cache().device().get(FilePage { object: file, page })[0])
}

/// Who shares a file sees what the others write, who has it privately does not; children are as their parents, and the disk gets what is the
/// file's, once.
#[test]
fn a_file_is_shared_and_private() {
    let (machine, file) = machine(4);
    let (one, other) = (showing(&machine, file, 4, Sharing::Shared), showing(&machine, file, 4, Sharing::Shared));
    let private = showing(&machine, file, 4, Sharing::Private);
    assert_eq!(bytes(&machine, &private), [0, 1, 2, 3].map(on_disk));
    machine.put(&one, A, 1);
    machine.put(&private, A + PAGE, 2);
    let (child, private_child) = (one.fork().unwrap(), private.fork().unwrap());
    machine.put(&child, A + 2 * PAGE, 3);
    machine.put(&private_child, A + 3 * PAGE, 4);
    assert_eq!(bytes(&machine, &other), [1, on_disk(1), 3, on_disk(3)]);
    assert_eq!(bytes(&machine, &private), [1, 2, 3, on_disk(3)]);
    assert_eq!(bytes(&machine, &private_child), [1, 2, 3, 4]);
    let all = [&one, &other, &private, &child, &private_child];
    machine.audit(&all, &Default::default());
    assert_eq!(machine.cache().pages(&machine, file), Ok((4, 20)));

    let before = machine.cache().device().requests();
    let done = write_back(&machine, &all, file, WhenPinned::Bounce);
    assert_eq!(done, WrittenBack { direct: 2, ..WrittenBack::default() });
    assert_eq!(disk(&machine, file), [1, on_disk(1), 3, on_disk(3)]);
    assert_eq!(write_back(&machine, &all, file, WhenPinned::Bounce), WrittenBack::default());
    assert_eq!(machine.cache().device().requests(), before + 2, "what nobody has written since is clean");
    machine.put(&other, A, 5);
    assert_eq!(write_back(&machine, &all, file, WhenPinned::Bounce).direct, 1);
    assert_eq!(disk(&machine, file)[0], 5);
    machine.audit(&all, &Default::default());
    assert_eq!(machine.cache().remove(&machine, file), Err(StoreError::Shown));
    drop((one, other, private, child, private_child));
    end(&machine, file);
}

/// While a page is written back it is closed to pins and writes, which are told to wait, and reads go on; what the disk fails to write
/// stays dirty.
#[test]
fn a_page_that_is_written_back_is_closed() {
    let (machine, file) = machine(4);
    let process = showing(&machine, file, 4, Sharing::Shared);
    machine.put(&process, A, 1);
    machine.cache().device().answer_late(true);
    assert_eq!(write_back(&machine, &[&process], file, WhenPinned::Bounce).started, 1);
    let later = NotReady(u64::from(file.0) << 32);
    assert_eq!(machine.get(&process, A), 1);
    assert_eq!(machine.store(0, &process, A, 2, 1), Err(FaultError::NotReady(later)));
    assert_eq!(machine.pin::<Read>(&process, A, 1).err(), Some(PinError::NotReady(later)));
    assert_eq!(write_back(&machine, &[&process], file, WhenPinned::Bounce), WrittenBack::default(), "it is clean");
    let shorter = machine.cache().set_length(&machine, &All(&[&process]), file, 1);
    assert_eq!(shorter, Err(StoreError::NotReady(later)), "the disk may write what would be cut off");
    assert_eq!(machine.cache().evict(&machine, 10), 0);

    machine.cache().device().fail(true);
    let (request, result) = machine.cache().device().end_write(&machine, 0).unwrap();
    assert_eq!(machine.cache().write_ended(&machine, request, result), later);
    machine.cache().device().fail(false);
    let pin = machine.pin::<Write>(&process, A, 1).unwrap();
    drop(pin);
    let again = write_back(&machine, &[&process], file, WhenPinned::Bounce);
    assert_eq!((again.direct, again.started, again.failed), (1, 1, true));
    let (request, result) = machine.cache().device().end_write(&machine, 0).unwrap();
    machine.cache().write_ended(&machine, request, result);
    assert_eq!(disk(&machine, file)[0], 1);
    assert_eq!(write_back(&machine, &[&process], file, WhenPinned::Bounce), WrittenBack::default());
    drop(process);
    end(&machine, file);
}

/// A write through a translation that a CPU still has when its page is write-protected is among those that are written, or notes that it
/// was.
#[test]
fn a_write_by_a_stale_translation_is_written_back() {
    let (machine, file) = machine(4);
    let process = showing(&machine, file, 4, Sharing::Shared);
    machine.put(&process, A, 1);
    let work = || assert_eq!(write_back(&machine, &[&process], file, WhenPinned::Bounce).direct, 1);
    machine.before_acknowledgement(|| machine.store(0, &process, A, 2, 1).unwrap(), work);
    assert_eq!(disk(&machine, file)[0], 2);
    drop(process);
    end(&machine, file);
}

/// A pinned page is written from a copy, or later; in both cases it is never called clean while it is pinned, and what a device writes through
/// the pin gets to the disk.
#[test]
fn a_pinned_page_is_written_as_a_copy_or_later() {
    let (machine, file) = machine(4);
    let process = showing(&machine, file, 4, Sharing::Shared);
    let pin = machine.pin::<Write>(&process, A + PAGE, 1).unwrap();
    let frame = machine.cache().frame(&machine, file, 1).unwrap();
    assert_eq!(pin.runs()[0].first(), frame);
    machine.dma_write(frame.address(), &[7]);
    let later = write_back(&machine, &[&process], file, WhenPinned::Defer);
    assert_eq!(later, WrittenBack { deferred: 1, ..WrittenBack::default() });
    assert_eq!(disk(&machine, file)[1], on_disk(1));
    let copied = write_back(&machine, &[&process], file, WhenPinned::Bounce);
    assert_eq!(copied, WrittenBack { bounced: 1, ..WrittenBack::default() });
    assert_eq!(disk(&machine, file)[1], 7);
    // A late disk writes the copy as it was.
    machine.cache().device().answer_late(true);
    assert_eq!(write_back(&machine, &[&process], file, WhenPinned::Bounce).started, 1);
    machine.dma_write(frame.address(), &[8]);
    assert_eq!(write_back(&machine, &[&process], file, WhenPinned::Bounce).busy, 1, "one at a time");
    let (request, result) = machine.cache().device().end_write(&machine, 0).unwrap();
    assert_ne!(request.page().frame(), frame);
    machine.cache().write_ended(&machine, request, result);
    assert_eq!(disk(&machine, file)[1], 7);
    machine.cache().device().answer_late(false);
    drop(pin);
    assert_eq!(write_back(&machine, &[&process], file, WhenPinned::Defer).direct, 1);
    assert_eq!(disk(&machine, file)[1], 8);
    // No memory for a copy: later.
    let pin = machine.pin::<Read>(&process, A + PAGE, 1).unwrap();
    machine.put(&process, A + PAGE, 9);
    machine.memory().allow(Some(0));
    assert_eq!(write_back(&machine, &[&process], file, WhenPinned::Bounce).deferred, 1);
    machine.memory().allow(None);
    drop(pin);
    assert_eq!(write_back(&machine, &[&process], file, WhenPinned::Bounce).direct, 1);
    assert_eq!(disk(&machine, file)[1], 9);
    drop(process);
    end(&machine, file);
}

/// What is cut off is gone for all, copies included; who has it pinned keeps a frame that is nobody's file any more.
#[test]
fn a_pin_keeps_what_is_cut_off_from_nobody_else() {
    let (machine, file) = machine(4);
    let (shared, private) = (showing(&machine, file, 4, Sharing::Shared), showing(&machine, file, 4, Sharing::Private));
    assert_eq!(bytes(&machine, &shared), [0, 1, 2, 3].map(on_disk));
    machine.put(&private, A + 2 * PAGE, 4);
    let pin = machine.pin::<Write>(&shared, A + 2 * PAGE, 1).unwrap();
    let frame = machine.cache().frame(&machine, file, 2).unwrap();
    let all = All(&[&shared, &private]);
    machine.cache().set_length(&machine, &all, file, PAGE + 16).unwrap();
    for process in all.0 {
        assert_eq!(machine.get(process, A + PAGE), on_disk(1));
        assert_eq!(machine.load(0, process, A + 2 * PAGE, 1), Err(FaultError::PastEnd));
    }
    assert_eq!(machine.get(&shared, A + PAGE + 15), on_disk(1));
    assert_eq!(machine.get(&shared, A + PAGE + 16), 0, "the last page ends where the file does");
    assert_eq!((machine.word(frame).kind(), machine.word(frame).snapshot().pins), (FrameKind::File, 1));
    machine.dma_write(frame.address(), &[0x66]);
    machine.cache().set_length(&machine, &all, file, 4 * PAGE).unwrap();
    assert_eq!(machine.get(&shared, A + 2 * PAGE), 0, "what is added is zeroes");
    assert_ne!(machine.cache().frame(&machine, file, 2), Some(frame));
    drop(pin);
    machine.audit(all.0, &Default::default());
    drop((shared, private));
    end(&machine, file);
}

/// A file is cut off between the look-up of its page and the entry.
#[test]
fn a_page_that_was_cut_off_meanwhile_is_not_kept() {
    let (machine, file) = machine(4);
    let process = showing(&machine, file, 4, Sharing::Shared);
    machine.get(&process, A);
    let cut = || machine.cache().set_length(&machine, &All(&[&process]), file, PAGE).unwrap();
    let (found, fired) = machine.at_exchange(0, cut, || machine.load(0, &process, A + PAGE, 1));
    assert!(fired);
    assert_eq!(found, Err(FaultError::PastEnd));
    machine.audit(&[&process], &Default::default());
    drop(process);
    end(&machine, file);
}

/// What is read late is waited for, by one request; what fails is an error to who asks next, and is read again after that. A page that was
/// cut off while it was read is nobody's when it comes.
#[test]
fn a_late_disk_is_waited_for() {
    let (machine, file) = machine(4);
    let process = showing(&machine, file, 4, Sharing::Shared);
    let disk = machine.cache().device();
    disk.answer_late(true);
    let later = NotReady(u64::from(file.0) << 32 | 1);
    for _ in 0..3 {
        assert_eq!(machine.load(0, &process, A + PAGE, 1), Err(FaultError::NotReady(later)));
        assert_eq!(machine.pin::<Write>(&process, A + PAGE, 1).err(), Some(PinError::NotReady(later)));
    }
    assert_eq!(disk.requests(), 1);
    disk.fail(true);
    let (request, result) = disk.end_read(&machine, 0).unwrap();
    assert_eq!(machine.cache().read_ended(&machine, request, result), later);
    disk.fail(false);
    assert_eq!(machine.load(0, &process, A + PAGE, 1), Err(FaultError::Failed));
    assert_eq!(machine.load(0, &process, A + PAGE, 1), Err(FaultError::NotReady(later)));
    let (request, result) = disk.end_read(&machine, 0).unwrap();
    machine.cache().read_ended(&machine, request, result);
    assert_eq!(machine.get(&process, A + PAGE), on_disk(1));

    assert!(machine.load(0, &process, A + 2 * PAGE, 1).is_err());
    let all = All(&[&process]);
    machine.cache().set_length(&machine, &all, file, 2 * PAGE).unwrap();
    machine.cache().set_length(&machine, &all, file, 4 * PAGE).unwrap();
    assert!(machine.load(0, &process, A + 2 * PAGE, 1).is_err());
    let (stale, result) = disk.end_read(&machine, 0).unwrap();
    machine.cache().read_ended(&machine, stale, result);
    assert!(machine.load(0, &process, A + 2 * PAGE, 1).is_err(), "the second read is not over");
    let (request, result) = disk.end_read(&machine, 0).unwrap();
    machine.cache().read_ended(&machine, request, result);
    assert_eq!(machine.get(&process, A + 2 * PAGE), 0);
    drop(process);
    end(&machine, file);
}

/// What the disk has behind the end of a file is not shown, nor does it come back when the file grows.
#[test]
fn what_is_behind_the_end_stays_there() {
    let machine = Machine::new(64);
    let file = machine.cache().create(&machine, Properties::file(), PAGE + 16).unwrap();
    (0..2).for_each(|page| machine.cache().device().put(FilePage { object: file, page }, 0x99));
    let process = showing(&machine, file, 4, Sharing::Shared);
    assert_eq!((machine.get(&process, A + PAGE + 15), machine.get(&process, A + PAGE + 16)), (0x99, 0));
    machine.put(&process, A + PAGE + 20, 1);
    machine.cache().set_length(&machine, &All(&[&process]), file, 2 * PAGE).unwrap();
    assert_eq!(machine.get(&process, A + PAGE + 20), 0);
    drop(process);
    end(&machine, file);
}

/// There is never more than was made room for: clean pages that nobody has make room for others, and when there is none it is an error.
#[test]
fn a_full_cache_evicts_what_is_clean() {
    let machine = Machine::new(64);
    let pages = u64::from(PAGES);
    let file = machine.cache().create(&machine, Properties::file(), 2 * pages * PAGE).unwrap();
    let process = machine.process();
    process.map_object(A, 2 * pages * PAGE, file, 0, Sharing::Shared, RW).unwrap();
    let mut byte = [0];
    (0..pages).for_each(|page| _ = machine.cache().read(&machine, file, page * PAGE, &mut byte).unwrap());
    (0..4).for_each(|page| machine.put(&process, A + page * PAGE, 1));
    (pages..2 * pages - 4).for_each(|page| _ = machine.get(&process, A + page * PAGE));
    assert_eq!(machine.cache().resident(&machine), PAGES as usize);
    let full = machine.load(0, &process, A + (2 * pages - 1) * PAGE, 1);
    assert_eq!(full, Err(FaultError::NoMemory), "all are mapped");
    process.discard(A, 2 * pages * PAGE).unwrap();
    assert_eq!(machine.get(&process, A + (2 * pages - 1) * PAGE), 0);
    assert!((0..4).all(|page| machine.cache().frame(&machine, file, page).is_some()), "they are dirty");
    write_back(&machine, &[&process], file, WhenPinned::Defer);
    assert_eq!(machine.cache().evict(&machine, u32::MAX), PAGES - 1);
    // The frame source has none left: one comes from the cache.
    machine.get(&process, A);
    process.discard(A, PAGE).unwrap();
    machine.memory().allow(Some(0));
    assert_eq!(machine.load(0, &process, A + PAGE, 1), Err(FaultError::NoMemory));
    machine.memory().allow(None);
    assert_eq!(machine.get(&process, A), 1);
    machine.audit(&[&process], &Default::default());
    drop(process);
    end(&machine, file);
}

/// Shared anonymous memory, a memfd: zeroes at first, one for all who share it, never written anywhere.
#[test]
fn memory_objects_are_zeroes_at_first() {
    let machine = Machine::new(64);
    let memory = machine.cache().create(&machine, Properties::memory(), 4 * PAGE).unwrap();
    let process = showing(&machine, memory, 4, Sharing::Shared);
    assert_eq!(bytes(&machine, &process), [0; 4]);
    machine.put(&process, A, 1);
    machine.cache().write(&machine, memory, PAGE - 1, &[2, 3]).unwrap();
    let child = process.fork().unwrap();
    assert_eq!(machine.load(0, &child, A + PAGE - 1, 2), Ok(0x0302));
    assert_eq!(write_back(&machine, &[&process], memory, WhenPinned::Bounce), WrittenBack::default());
    drop(process);
    assert_eq!(machine.get(&child, A), 1);
    assert_eq!(machine.cache().evict(&machine, 10), 0);
    assert_eq!(machine.cache().device().requests(), 0);
    drop(child);
    end(&machine, memory);
}

/// What an object is not for, and what there is not: a precise error, and nothing changed.
#[test]
fn refusals_say_why() {
    let (machine, file) = machine(4);
    let cache = machine.cache();
    let (sealed, secret) = (Properties::file().read_only(), Properties::memory().unpinnable());
    let sealed = cache.create(&machine, sealed, 4 * PAGE).unwrap();
    let secret = cache.create(&machine, secret, 4 * PAGE).unwrap();
    let process = machine.process();
    process.map_object(A, 4 * PAGE, sealed, 0, Sharing::Shared, RW).unwrap();
    assert_eq!(machine.store(0, &process, A, 1, 1), Err(FaultError::AccessDenied));
    assert_eq!(cache.write(&machine, sealed, 0, &[1]), Err(StoreError::Denied));
    assert_eq!(cache.set_length(&machine, &(), sealed, 0), Err(StoreError::Denied));
    process.unmap(A, 4 * PAGE).unwrap();
    process.map_object(A, 4 * PAGE, secret, 0, Sharing::Shared, RW).unwrap();
    machine.put(&process, A, 1);
    assert_eq!(machine.pin::<Read>(&process, A, 1).err(), Some(PinError::NotPinnable));
    drop(process);

    let full = (2..OBJECTS - 1).map(|_| cache.create(&machine, Properties::memory(), 0).unwrap());
    let full: Vec<ObjectId> = full.collect();
    assert_eq!(cache.create(&machine, Properties::memory(), 0), Err(StoreError::Full));
    let longest = u64::from(u32::MAX) * PAGE;
    assert_eq!(cache.set_length(&machine, &(), file, longest + 1), Err(StoreError::PastEnd));
    cache.set_length(&machine, &(), file, longest).unwrap();
    assert_eq!(cache.write(&machine, file, longest - 1, &[1, 2]), Err(StoreError::PastEnd));
    assert_eq!(cache.write(&machine, file, u64::MAX, &[1]), Err(StoreError::PastEnd));
    cache.write(&machine, file, longest - 1, &[1]).unwrap();
    assert_eq!(cache.read(&machine, file, longest - 1, &mut [0; 4]), Ok(1));
    assert_eq!(cache.read(&machine, file, longest, &mut [0; 4]), Ok(0));
    for object in [sealed, secret, file].into_iter().chain(full) {
        cache.remove(&machine, object).unwrap();
        assert_eq!(cache.length(&machine, object), Err(StoreError::NoObject));
    }
    let none = ObjectId(u32::MAX);
    assert_eq!(cache.remove(&machine, none), Err(StoreError::NoObject));
    assert_eq!(cache.write_back(&machine, &(), none, 0..1, WhenPinned::Defer), Err(StoreError::NoObject));
    assert!(machine.process().map_object(A, PAGE, none, 0, Sharing::Shared, RW).is_err());
}

/// A file is written back, so no device may write it for as long as it likes; memory is not.
#[test]
fn only_memory_is_pinned_for_long_for_writing() {
    let (machine, file) = machine(4);
    let memory = machine.cache().create(&machine, Properties::memory(), 4 * PAGE).unwrap();
    for (object, refused) in [(file, Some(PinError::WrittenBack)), (memory, None)] {
        let process = showing(&machine, object, 4, Sharing::Shared);
        let write = machine.pin_slow::<Write>(&process, A, PAGE, PinFlags::LONGTERM);
        assert_eq!(write.as_ref().err(), refused.as_ref());
        drop(write);
        drop(process);
        machine.cache().remove(&machine, object).unwrap();
    }
}
