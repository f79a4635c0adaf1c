//! Interior state for a value that the library wants to be `Sync` although one thread emulates every CPU.

use std::thread::{self, ThreadId};

thread_local! {
    /// Asked for at every access to the machine, so it is not looked up in the thread's handle each time.
    static THIS: ThreadId = thread::current().id();
}

/// A value that only the thread that made it can reach.
pub(crate) struct OneThread<T> {
    owner: ThreadId,
    value: T,
}

// SAFETY: `get` refuses every thread but the owner, so nothing is shared.
unsafe impl<T> Sync for OneThread<T> {}

impl<T> OneThread<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { owner: THIS.with(|this| *this), value }
    }

    pub(crate) fn get(&self) -> &T {
        assert_eq!(THIS.with(|this| *this), self.owner, "an emulated machine belongs to one thread");
        &self.value
    }
}
