//! The mm lock of a kernel that has a slot for each CPU: readers note there which lock they read.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;
use pagepin::model::{MmLock, Safeguard};
use pagepin::{CpuCounters, CpuReaders, Extras, Reentered};

use super::checker::{Bound, CPUS, UNORDERED};
use super::kernel::{ThisCpu, Yield, on_cpu};
use super::runner::Model;

pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "mm lock with slots: reader x writer",
        bound: Bound::AtMost(4),
        body: reader_and_writer,
        twins: &[
            (Safeguard::ReadersWait, &[UNORDERED]),
            (Safeguard::NoteFence, &[UNORDERED]),
            (Safeguard::WriterWaitsForNotes, &[UNORDERED]),
        ],
    },
    Model {
        name: "mm lock with slots: reader of two x writer",
        bound: Bound::AtMost(3),
        body: reader_of_two_and_writer,
        twins: &[(Safeguard::NoteOrdering, &[UNORDERED]), (Safeguard::WriterWaitsForNotes, &[UNORDERED])],
    },
    Model {
        name: "mm lock with slots: writer x readers",
        bound: Bound::AtMost(1),
        body: writer_and_readers,
        twins: &[(Safeguard::WriterWaitsForNotes, &[UNORDERED]), (Safeguard::ReadersWait, &[UNORDERED])],
    },
];

type Slots = Extras<(), CpuCounters<ThisCpu, CPUS>, (), (), CpuReaders<ThisCpu, CPUS>>;

/// What a lock is for, whose users loom watches.
struct Watched(UnsafeCell<u64>);

// SAFETY: loom reports two accesses that are not ordered.
unsafe impl Send for Watched {}
// SAFETY: as above.
unsafe impl Sync for Watched {}

struct Kernel {
    slots: Slots,
    locks: [MmLock<Watched, Yield>; 2],
}

impl Kernel {
    fn new() -> Arc<Self> {
        let slots = Extras::new().counters(CpuCounters::new(ThisCpu)).mm_readers(CpuReaders::new(ThisCpu));
        Arc::new(Self { slots, locks: core::array::from_fn(|_| MmLock::new(Watched(UnsafeCell::new(0)))) })
    }

    fn read(&self, lock: usize) -> u64 {
        let section = self.locks[lock].read(&self.slots).expect("in no section");
        assert_eq!(self.locks[lock].read(&self.slots).err(), Some(Reentered), "a section in a section");
        // SAFETY: loom reports a write that is not ordered with this read.
        section.0.with(|value| unsafe { *value })
    }

    fn write(&self, lock: usize) {
        let section = self.locks[lock].write(&self.slots).expect("in no section");
        // SAFETY: loom reports an access that is not ordered with this write.
        section.0.with_mut(|value| unsafe { *value += 1 });
    }
}

fn spawn(kernel: &Arc<Kernel>, cpu: usize, act: fn(&Kernel)) -> thread::JoinHandle<()> {
    let kernel = Arc::clone(kernel);
    on_cpu(cpu, move || act(&kernel))
}

/// A reader sees all of the write or nothing, and afterwards no less.
fn reader_and_writer() {
    let kernel = Kernel::new();
    let writer = spawn(&kernel, 1, |kernel| kernel.write(0));
    let (first, second) = (kernel.read(0), kernel.read(0));
    assert!(first <= second && second <= 1, "the write was taken back");
    writer.join().expect("no panic");
    assert_eq!(kernel.read(0), 1);
}

/// A CPU that leaves one lock and enters another was in the first until it left.
fn reader_of_two_and_writer() {
    let kernel = Kernel::new();
    let writer = spawn(&kernel, 1, |kernel| kernel.write(0));
    assert!(kernel.read(0) <= 1);
    assert_eq!(kernel.read(1), 0);
    writer.join().expect("no panic");
}

/// Readers on both sides of a write.
fn writer_and_readers() {
    let kernel = Kernel::new();
    let others = [1, 2].map(|cpu| spawn(&kernel, cpu, |kernel| assert!(kernel.read(0) <= 1)));
    kernel.write(0);
    let _ = others.map(|other| other.join().expect("no panic"));
    assert_eq!(kernel.read(0), 1);
}
