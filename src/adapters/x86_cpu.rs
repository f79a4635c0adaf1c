//! [`X86Cpu`]: `INVLPG`, `CR3` and `CLI`.

/// The processor that runs this, by x86's instructions: a [`LocalCpu`](crate::LocalCpu) with feature `instructions`.
#[derive(Clone, Copy, Debug)]
pub struct X86Cpu;

#[cfg(all(feature = "instructions", target_arch = "x86_64"))]
pub use instructions::InterruptsOff;

#[cfg(all(feature = "instructions", target_arch = "x86_64"))]
mod instructions {
    use core::marker::PhantomData;

    use x86_64::instructions::{interrupts, tlb};
    use x86_64::registers::control::{Cr3, Cr3Flags, Cr4, Cr4Flags};

    use super::X86Cpu;
    use crate::addr::Pfn;
    use crate::env::{FlushRange, LocalCpu};

    /// Beyond this many pages one full flush is cheaper than one `invlpg` each (the bound Linux uses on x86).
    const MAX_SINGLE_FLUSHES: u64 = 33;

    /// Keeps interrupts off; they come back as they were when it is dropped.
    #[derive(Debug)]
    pub struct InterruptsOff {
        were_on: bool,
        /// The state belongs to this CPU.
        not_send: PhantomData<*const ()>,
    }

    impl InterruptsOff {
        #[inline(always)]
        pub(in crate::adapters) fn new() -> Self {
            let were_on = interrupts::are_enabled();
            if were_on {
                interrupts::disable();
            }
            Self { were_on, not_send: PhantomData }
        }
    }

    impl Drop for InterruptsOff {
        #[inline(always)]
        fn drop(&mut self) {
            if self.were_on {
                interrupts::enable();
            }
        }
    }

    // SAFETY: with the interrupt flag clear nothing else runs here. `INVLPG` forgets a leaf of any size and all upper entries
    // (Intel SDM volume 3, 4.10.4.1); a write to `CR3` forgets all but global translations, which no user page has, as
    // `CR4.PCIDE` is clear.
    unsafe impl LocalCpu for X86Cpu {
        type InterruptsOff = InterruptsOff;

        #[inline(always)]
        fn interrupts_off(&self) -> InterruptsOff {
            InterruptsOff::new()
        }

        fn flush(&self, range: FlushRange) {
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

        fn has_tags(&self) -> bool {
            Cr4::read().contains(Cr4Flags::PCID)
        }

        fn loaded_root(&self) -> Pfn {
            Cr3::read().0.into()
        }

        unsafe fn load_root(&self, root: Pfn) {
            // SAFETY: the caller says that the root maps the kernel, and lives.
            unsafe { Cr3::write(root.into(), Cr3Flags::empty()) };
        }
    }
}
