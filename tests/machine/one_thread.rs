//! Interior state for a value that the library wants to be `Sync` although one thread emulates every CPU.

thread_local! {
    /// Its address is another one in each thread that lives. Asked for at every access to the machine, so nothing has to be made first.
    static THIS: u8 = const { 0 };
}

fn this() -> usize {
    THIS.with(|this| std::ptr::from_ref(this).addr())
}

/// A value that only the thread that made it can reach.
pub(crate) struct OneThread<T> {
    owner: usize,
    value: T,
}

// SAFETY: `get` refuses every thread but the owner, so nothing is shared.
unsafe impl<T> Sync for OneThread<T> {}

impl<T> OneThread<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { owner: this(), value }
    }

    pub(crate) fn get(&self) -> &T {
        assert!(this() == self.owner, "an emulated machine belongs to one thread");
        &self.value
    }
}
