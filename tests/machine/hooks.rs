//! Closures that run at a chosen moment inside an operation: how one thread produces a race deterministically.

use std::cell::{Cell, RefCell};

use pagepin::CurrentCpu;

thread_local! {
    /// Hooks that are running, one in another: each is what another CPU does meanwhile.
    static RUNNING: Cell<usize> = const { Cell::new(0) };
}

/// A hook is running; over when this is dropped, by a panic too.
struct Running;

impl Running {
    fn new() -> Self {
        RUNNING.set(RUNNING.get() + 1);
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.set(RUNNING.get() - 1);
    }
}

/// The CPU that plays now, for the library: of the machine's own CPUs user code says which it is.
pub(crate) struct Playing;

// SAFETY: there is one thread, and what a hook interrupts goes on when the hook is over.
unsafe impl CurrentCpu for Playing {
    fn current_cpu(&self) -> usize {
        RUNNING.get()
    }
}

/// How often the point is still passed, and what runs then.
type Armed = (u64, Box<dyn FnOnce()>);

/// A closure that runs once, the n-th time its point is reached.
#[derive(Default)]
pub(crate) struct Hook {
    armed: RefCell<Option<Armed>>,
    fired: Cell<bool>,
}

impl Hook {
    /// The point was reached.
    pub(crate) fn reach(&self) {
        let mut armed = self.armed.borrow_mut();
        match armed.take() {
            Some((0, hook)) => {
                drop(armed);
                self.fired.set(true);
                let running = Running::new();
                hook();
                drop(running);
            }
            Some((left, hook)) => *armed = Some((left - 1, hook)),
            None => {}
        }
    }

    /// Runs `work` with `hook` at the point's occurrence number `at`; whether it was reached.
    pub(crate) fn during<'h, R>(&self, at: u64, hook: impl FnOnce() + 'h, work: impl FnOnce() -> R) -> (R, bool) {
        struct Disarm<'s>(&'s Hook);
        impl Drop for Disarm<'_> {
            fn drop(&mut self) {
                self.0.armed.borrow_mut().take();
            }
        }
        let hook: Box<dyn FnOnce() + 'h> = Box::new(hook);
        // SAFETY: only the lifetime changes; `Disarm` drops the closure before this function returns or unwinds, so it
        // does not outlive what it borrows.
        let hook = unsafe { std::mem::transmute::<Box<dyn FnOnce() + 'h>, Box<dyn FnOnce() + 'static>>(hook) };
        self.fired.set(false);
        let outer = self.armed.borrow_mut().replace((at, hook));
        assert!(outer.is_none(), "one hook at a time");
        let disarm = Disarm(self);
        let result = work();
        drop(disarm);
        (result, self.fired.get())
    }
}
