//! A kernel with VMAs of its own, which also fills foreign memory on demand.

use pagepin::frame::Layout;
use pagepin::paging::{TableError, Tables};
use pagepin::{
    Access, AddressSpace, Backing, Entry, ForeignFault, LeafSize, Mm, PageAddr, Pfn, Rights, Unlimited, Vma, Vmas,
};

use crate::machine::{Machine, Process, range};

/// One VMA of the kernel's own over the tables of a process. There is one thread, so the lock is none.
pub(crate) struct OwnVmas<'s, 'm, L: Layout> {
    process: &'s Process<'m, L>,
    pub(crate) vma: Vma,
}

impl<'s, 'm, L: Layout> OwnVmas<'s, 'm, L> {
    pub(crate) fn new(process: &'s Process<'m, L>, (start, end): (u64, u64), rights: Rights, backing: Backing) -> Self {
        let vma = Vma::new(range(process, start, end - start), backing, rights).unwrap();
        Self { process, vma }
    }
}

// SAFETY: one thread changes VMAs and mappings, and not while it looks.
unsafe impl<'m, L: Layout> AddressSpace for OwnVmas<'_, 'm, L> {
    type Kernel = &'m Machine<L>;
    type Budget = Unlimited;

    fn mm(&self) -> &Mm<&'m Machine<L>> {
        self.process.mm()
    }

    fn with_vmas(&self, look: &mut dyn FnMut(&dyn Vmas)) -> Result<(), pagepin::Reentered> {
        look(self);
        Ok(())
    }

    fn budget(&self) -> &Unlimited {
        &Unlimited
    }
}

// SAFETY: there is one VMA.
unsafe impl<L: Layout> Vmas for OwnVmas<'_, '_, L> {
    fn vma_at(&self, page: PageAddr) -> Option<Vma> {
        self.vma.contains(page).then_some(self.vma)
    }

    fn fault_foreign(&self, page: PageAddr, _: Access) -> Result<(), ForeignFault> {
        // SAFETY: asked by a fault, which holds the mm lock.
        let mut tables = unsafe { Tables::under_mm_lock(self.process.mm()) };
        // SAFETY: a page of the VMA, which lies in the user half.
        let at = unsafe { tables.place(page, LeafSize::Size4KiB) }.map_err(|error| match error {
            TableError::NoMemory => ForeignFault::NoMemory,
            _ => ForeignFault::NotMapped,
        })?;
        let entry = Entry::leaf(Pfn::new(0xfee0), LeafSize::Size4KiB, self.vma.rights(), 0).special();
        let entry = entry.with_memory_type(LeafSize::Size4KiB, self.vma.backing().memory_type());
        // SAFETY: placed under this lock; device registers have no references. Who was faster mapped the same.
        let _ = unsafe { tables.fill(at, LeafSize::Size4KiB, entry) };
        Ok(())
    }
}
