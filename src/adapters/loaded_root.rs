//! The kernel's root, as the processor that runs this has it.

use x86_64::instructions::tables::{sgdt, sidt};
use x86_64::registers::control::{Cr3, Cr4, Cr4Flags};
use x86_64::registers::read_rip;

use crate::arch::Levels;
use crate::env::PhysMap;
use crate::space::{KernelHalf, KernelHalfError, Vital};

impl KernelHalf {
    /// The kernel half of the root that is loaded, if other roots can be made from it: the code that runs, the stack, the
    /// descriptor tables and the direct map are in it, and nothing is in the user half.
    ///
    /// ```no_run
    /// # use pagepin::{OffsetPhysMap, space::{KernelHalf, KernelHalfError, SpaceOptions}};
    /// # fn example(map: &OffsetPhysMap) -> Result<SpaceOptions, KernelHalfError> {
    /// // SAFETY: in ring 0, and the boot loader's tables are never freed.
    /// let half = unsafe { KernelHalf::loaded(map) }?;
    /// # Ok(SpaceOptions::new(half))
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`KernelHalfError`]. See [`documents::layout`](crate::documents::layout) for what to do about it.
    ///
    /// # Safety
    /// The processor is in ring 0; `map` reaches the loaded tables; they live as long as the kernel, or, those of the user half,
    /// until that is empty.
    pub unsafe fn loaded(map: &impl PhysMap) -> Result<Self, KernelHalfError> {
        // SAFETY: forwarded from the caller.
        let half = unsafe { Self::of_cr3() };
        half.check(map, half.vital_here(map))?;
        Ok(half)
    }

    /// As [`KernelHalf::loaded`], of a root in whose user half is what a boot loader left behind: that half is emptied first,
    /// if nothing vital is there.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # fn boot(map: &OffsetPhysMap) -> Result<SpaceOptions, KernelHalfError> {
    /// // SAFETY: in ring 0; the boot loader's tables live for ever, and nobody uses what it mapped in the lower half.
    /// let half = unsafe { KernelHalf::take_over(map) }?;
    /// # Ok(SpaceOptions::new(half))
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`KernelHalfError::WouldVanish`]: nothing was changed.
    ///
    /// # Safety
    /// As [`KernelHalf::loaded`]. Nobody uses what is mapped in the user half, on any processor: no boot information, no frame
    /// buffer, no variable of the kernel. Nobody else changes the root meanwhile.
    pub unsafe fn take_over(map: &impl PhysMap) -> Result<Self, KernelHalfError> {
        // SAFETY: forwarded from the caller.
        let half = unsafe { Self::of_cr3() };
        // SAFETY: forwarded from the caller.
        unsafe { half.clear_user_half(map, half.vital_here(map)) }?;
        x86_64::instructions::tlb::flush_all();
        Ok(half)
    }

    /// # Safety
    /// As [`KernelHalf::loaded`].
    unsafe fn of_cr3() -> Self {
        let levels = if Cr4::read().contains(Cr4Flags::L5_PAGING) { Levels::Five } else { Levels::Four };
        // SAFETY: what is loaded is a root with as many levels as the processor was told; the rest is forwarded.
        unsafe { Self::new(Cr3::read().0.into(), levels) }
    }

    /// What this processor uses at this moment.
    fn vital_here(self, map: &impl PhysMap) -> impl Iterator<Item = (Vital, u64)> {
        let here = 0u8;
        let root = self.root().map(|root| (Vital::DirectMap, map.frame_ptr(root).addr() as u64));
        let code = (Vital::Code, read_rip().as_u64());
        let stack = (Vital::Stack, (&raw const here).addr() as u64);
        let tables = [(Vital::Gdt, sgdt().base.as_u64()), (Vital::Idt, sidt().base.as_u64())];
        [code, stack].into_iter().chain(tables).chain(root)
    }
}
