//! [`SingleCpu`]: the read side and the shootdown of a kernel that runs on one CPU.

use core::marker::PhantomData;

use x86_64::instructions::{interrupts, tlb};

use crate::addr::Pfn;
use crate::env::{FlushRange, ReadSide, Shootdown};

/// Beyond this many pages one full flush is cheaper than one `invlpg` each (the bound Linux uses on x86).
const MAX_SINGLE_FLUSHES: u64 = 33;

/// For a kernel that runs on one CPU: walkers switch interrupts off, flushes are local.
///
/// Flushing needs ring 0; making one is therefore `unsafe`.
#[derive(Debug)]
pub struct SingleCpu {
    _private: (),
}

impl SingleCpu {
    /// # Safety
    /// The kernel runs in ring 0 on exactly one CPU, with `CR4.PCIDE` off.
    #[must_use]
    pub const unsafe fn new() -> Self {
        Self { _private: () }
    }
}

/// Keeps interrupts off; they come back as they were when it is dropped.
#[derive(Debug)]
pub struct InterruptsOff {
    were_on: bool,
    /// The state belongs to this CPU.
    not_send: PhantomData<*const ()>,
}

impl Drop for InterruptsOff {
    fn drop(&mut self) {
        if self.were_on {
            interrupts::enable();
        }
    }
}

// SAFETY: with interrupts off nothing else runs on the only CPU, so no table can be freed during a walk, and no walk is
// in progress when `synchronize` is called.
unsafe impl ReadSide for SingleCpu {
    type Guard<'a> = InterruptsOff;

    fn enter(&self) -> InterruptsOff {
        let were_on = interrupts::are_enabled();
        interrupts::disable();
        InterruptsOff { were_on, not_send: PhantomData }
    }

    fn synchronize(&self) {}
}

// SAFETY: the only CPU's TLB is flushed before the call returns.
unsafe impl Shootdown for SingleCpu {
    fn flush(&self, _root: Pfn, range: FlushRange) {
        match range.pages() {
            Some((first, pages)) if pages <= MAX_SINGLE_FLUSHES => {
                for page in 0..pages {
                    match first.offset(page).try_into() {
                        Ok(address) => tlb::flush(address),
                        Err(_) => tlb::flush_all(),
                    }
                }
            }
            _ => tlb::flush_all(),
        }
    }
}
