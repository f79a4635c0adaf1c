//! Shuttle, as the parts in `tests/models` ask for it, and the size of the kernel that it drives.

use pagepin::model::AtomicU64;
use pagepin::{Entry, EntryCell};
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

pub(crate) use shuttle::sync::{Mutex, MutexGuard, atomic};
pub(crate) use shuttle::{thread, thread_local};

pub(crate) const CPUS: usize = 4;
/// Entries that are kept of each table. Upper tables use 0 and 1, lowest ones 1 to 3.
pub(crate) const ENTRIES: usize = 4;
/// The pages that there can be, of two lowest tables.
pub(crate) const PAGES: &[u64] = &[1, 2, 3, 513, 514];
/// 8-byte words that are kept of each page: one for each CPU to write.
pub(crate) const WORDS: usize = CPUS;
pub(crate) const ZERO_FRAME: bool = true;
/// How often an access may fault before it succeeds: each fork on another CPU can come between a fault and the next try.
pub(crate) const MOST_FAULTS: usize = 64;

/// More steps than any execution that gets somewhere.
const MAX_STEPS: usize = 200_000;
/// Switches of priority under PCT, and one more.
const DEPTH: usize = 3;
const STACK_BYTES: usize = 0x2_0000;

/// Schedules of each kind.
#[derive(Clone, Copy)]
pub(crate) struct Bound(pub(crate) usize);

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}

fn run(scheduler: impl Scheduler + 'static, body: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.max_steps = MaxSteps::FailAfter(MAX_STEPS);
    config.stack_size = STACK_BYTES;
    // That orderings are not modelled is known here.
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(body);
}

/// Runs the one schedule that a failure has printed.
pub(crate) fn replay(schedule: &str, body: fn()) {
    run(ReplayScheduler::new_from_encoded(schedule), body);
}

impl Bound {
    /// `PAGEPIN_SHUTTLE_SCHEDULES` asks for more.
    fn schedules(self) -> usize {
        setting("PAGEPIN_SHUTTLE_SCHEDULES").map_or(self.0, |schedules| self.0.max(schedules as usize))
    }

    /// What the bound is, for the report.
    pub(crate) fn describe(self) -> String {
        let schedules = self.schedules();
        format!("({schedules} random, {schedules} PCT depth {DEPTH})")
    }

    /// Which execution it was that was the `executions`th.
    pub(crate) fn place(self, executions: u64) -> String {
        match executions.checked_sub(self.schedules() as u64) {
            None | Some(0) => format!("random schedule {executions}"),
            Some(executions) => format!("PCT schedule {executions}"),
        }
    }

    /// How to see the failure of `name` again.
    pub(crate) fn repeat(self, name: &str) -> String {
        format!("that schedule alone: cargo xtask shuttle '{name}' --replay <the schedule above>")
    }

    /// Runs `body` in as many random schedules, and then in as many with few preemptions. One seed makes all of them,
    /// so that a longer run begins with the shorter one.
    pub(crate) fn check(self, body: impl Fn() + Clone + Send + Sync + 'static) {
        let (schedules, seed) = (self.schedules(), setting("PAGEPIN_SHUTTLE_SEED").unwrap_or(1));
        run(RandomScheduler::new_from_seed(seed, schedules), body.clone());
        run(PctScheduler::new_from_seed(seed, DEPTH, schedules), body);
    }
}

/// Tables may change at any time.
#[derive(Clone, Copy)]
pub(crate) struct Tables;

impl Tables {
    /// Loads entry 0 of a table.
    pub(crate) fn load_first(self, entry: &AtomicU64) -> Entry {
        EntryCell::new(entry).load()
    }
}

/// With the interface of loom's, which watches accesses; here one runs at a time, and whoever may be interrupted before
/// an access asks again after it.
pub(crate) struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    pub(crate) fn with<O>(&self, read: impl FnOnce(*const T) -> O) -> O {
        read(self.0.get())
    }

    pub(crate) fn with_mut<O>(&self, write: impl FnOnce(*mut T) -> O) -> O {
        write(self.0.get())
    }
}
