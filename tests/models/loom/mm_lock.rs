//! The mm lock by itself. The other models have loom's own lock in its place.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;
use pagepin::model::{FairRwLock, Safeguard};
use spin::relax::RelaxStrategy;

use super::checker::{Bound, UNORDERED};
use super::runner::Model;

// More preemptions than these make loom try every turn that two waiting threads can give each other.
pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "mm lock: reader x writer",
        bound: Bound::All,
        body: reader_and_writer,
        twins: &[
            (Safeguard::ReadersWait, &[UNORDERED]),
            (Safeguard::WriterWaitsForReaders, &[UNORDERED]),
            (Safeguard::RwLockOrdering, &[UNORDERED]),
        ],
    },
    Model {
        name: "mm lock: writer x writer",
        bound: Bound::All,
        body: writer_and_writer,
        twins: &[(Safeguard::WritersWait, &[UNORDERED]), (Safeguard::RwLockOrdering, &[UNORDERED])],
    },
    Model {
        name: "mm lock: readers x writers",
        bound: Bound::AtMost(1),
        body: readers_and_writers,
        twins: &[
            (Safeguard::ReadersWait, &[UNORDERED]),
            (Safeguard::WritersWait, &[UNORDERED]),
            (Safeguard::WriterWaitsForReaders, &[UNORDERED]),
            (Safeguard::RwLockOrdering, &[UNORDERED]),
        ],
    },
];

/// Lets loom run another thread.
struct Yield;

impl RelaxStrategy for Yield {
    fn relax() {
        thread::yield_now();
    }
}

/// What the lock is for, whose users loom watches.
struct Watched(UnsafeCell<u64>);

// SAFETY: loom reports two accesses that are not ordered.
unsafe impl Send for Watched {}
// SAFETY: as above.
unsafe impl Sync for Watched {}

type Lock = FairRwLock<Watched, Yield>;

fn lock() -> Arc<Lock> {
    Arc::new(Lock::new(Watched(UnsafeCell::new(0))))
}

fn read(lock: &Lock) -> u64 {
    // SAFETY: loom reports a write that is not ordered with this read.
    lock.read().0.with(|value| unsafe { *value })
}

fn write(lock: &Lock) {
    // SAFETY: loom reports an access that is not ordered with this write.
    lock.write().0.with_mut(|value| unsafe { *value += 1 });
}

/// Runs `act` in a thread of its own.
fn spawn(lock: &Arc<Lock>, act: fn(&Lock)) -> thread::JoinHandle<()> {
    let lock = Arc::clone(lock);
    thread::spawn(move || act(&lock))
}

/// A reader sees all of the write or nothing, and afterwards no less.
fn reader_and_writer() {
    let lock = lock();
    let writer = spawn(&lock, write);
    let (first, second) = (read(&lock), read(&lock));
    assert!(first <= second && second <= 1, "the write was taken back");
    writer.join().expect("no panic");
    assert_eq!(read(&lock), 1);
}

/// No write is lost.
fn writer_and_writer() {
    let lock = lock();
    let other = spawn(&lock, write);
    write(&lock);
    other.join().expect("no panic");
    assert_eq!(read(&lock), 2, "a write was lost");
}

/// Both, with readers on both sides of the writes.
fn readers_and_writers() {
    let lock = lock();
    let others = [spawn(&lock, write), spawn(&lock, |lock| assert!(read(lock) <= 2))];
    assert!(read(&lock) <= 1);
    write(&lock);
    let _ = others.map(|other| other.join().expect("no panic"));
    assert_eq!(read(&lock), 2, "a write was lost");
}
