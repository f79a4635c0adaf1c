//! What every kernel of the tests is asked, whatever its memory, its atomics and its TLBs are made of.
//!
//! There are three: the emulated machine of the host tests and the fuzzer (`tests/machine`), the kernel of real threads and of
//! the heap that refuses (`tests/threads`), and that of the model checkers (`tests/models`). Each is a [`Plug`]: it says where
//! frames, words and entries are kept. What must be true of them is said here, once: the [`audit`], the balance at the end, and how an
//! access is tried until its faults are resolved.

mod audit;
mod balance;
mod leaf;
mod user;

pub(crate) use audit::{Held, Seen, audit};
pub(crate) use balance::check_balance;
pub(crate) use leaf::{Leaf, leaves, tokens};
pub(crate) use user::{Attempt, access};

use pagepin::frame::Snapshot;
use pagepin::{CounterValues, EntryAddr, Levels, Pfn};

/// An address space, as a CPU knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Root {
    pub(crate) table: Pfn,
    pub(crate) levels: Levels,
}

/// Where a kernel of the tests keeps things. Asked by one thread, when no other changes anything.
pub(crate) trait Plug {
    /// The places of a table, among its first `places`, whose entries are not empty, and what these are.
    fn entries(&self, table: Pfn, places: u64) -> Vec<(EntryAddr, u64)>;

    /// What the word of a frame says.
    fn snapshot(&self, frame: Pfn) -> Snapshot;

    /// Every frame that the library may count in.
    fn frames(&self) -> Vec<Pfn>;

    /// The first frame of each block that is handed out, the frame of zeroes not among them.
    fn allocated(&self) -> Vec<Pfn>;

    /// The frame of zeroes, and whether that is what it holds.
    fn zero_frame(&self) -> Option<(Pfn, bool)>;

    /// The library's statistics.
    fn counters(&self) -> CounterValues;
}
