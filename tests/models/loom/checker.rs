//! Loom, as the parts in `tests/models` ask for it, and the size of the kernel that it can explore.

pub(crate) use loom::cell::UnsafeCell;
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};
pub(crate) use loom::{thread, thread_local};
use pagepin::model::AtomicU64;
use pagepin::{Entry, EntryCell};

pub(crate) const CPUS: usize = 3;
/// Entries that are kept of each table: 0, by which upper tables lead to the one lowest table, and pages 1 and 2.
pub(crate) const ENTRIES: usize = 3;
/// 8-byte words that are kept of each page.
pub(crate) const WORDS: usize = 1;
pub(crate) const ZERO_FRAME: bool = false;
/// How often an access may fault before it succeeds.
pub(crate) const MOST_FAULTS: usize = 4;

/// What loom says when two accesses to one `UnsafeCell` are not ordered.
pub(crate) const UNORDERED: &str = "Causality violation";

/// The most operations of one execution.
const MAX_BRANCHES: usize = 20_000;

/// Most preemptive switches in one execution (switches at a lock or at the end of a thread are free).
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtMost(usize),
    All,
}

impl Bound {
    /// `LOOM_MAX_PREEMPTIONS` wins, for longer runs.
    fn preemptions(self) -> Option<usize> {
        let most = std::env::var("LOOM_MAX_PREEMPTIONS").ok().map(|most| most.parse().expect("a number"));
        match self {
            Self::AtMost(bound) => most.or(Some(bound)),
            Self::All => most,
        }
    }

    /// What the bound is, for the report.
    pub(crate) fn describe(self) -> String {
        let bound = self.preemptions().map_or("all".to_owned(), |most| format!("<= {most}"));
        format!("preemptions {bound:<5}")
    }

    /// Which execution it was that was the `executions`th.
    pub(crate) fn place(self, executions: u64) -> String {
        format!("execution {executions}")
    }

    /// How to see the failure of `name` again.
    pub(crate) fn repeat(self, name: &str) -> String {
        format!("every run comes to the same: cargo xtask loom '{name}'")
    }

    /// Runs `body` in every execution within the bound.
    pub(crate) fn check(self, body: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.max_branches = MAX_BRANCHES;
        builder.preemption_bound = self.preemptions();
        builder.check(body);
    }
}

/// What happens to tables while threads run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tables {
    /// Entries of upper tables that two threads can see do not change.
    Stay,
    /// They are broken and the tables freed.
    Go,
}

impl Tables {
    /// Loads entry 0 of a table.
    pub(crate) fn load_first(self, entry: &AtomicU64) -> Entry {
        match self {
            Self::Stay => Entry::from_bits(entry.load_settled(atomic::Ordering::Acquire)),
            Self::Go => EntryCell::new(entry).load(),
        }
    }
}
