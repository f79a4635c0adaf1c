//! A kernel with a lock for each VMA: faults and pins take that of one VMA at a time, and never that of all.

use std::cell::{Cell, RefCell};

use pagepin::fault::{Fault, FaultError, FaultOutcome, handle_fault};
use pagepin::frame::Layout;
use pagepin::pin::{PhysRun, PinError, PinFlags, Write, pin_user_pages};
use pagepin::{Access, AddressSpace, Backing, Mm, PageAddr, Unlimited, Vma, Vmas};

use crate::machine::{A, Machine, PAGE, Process, RW, range};

/// Two VMAs of one page each at [`A`], over the tables of a process.
struct LockPerVma<'s, 'm, L: Layout> {
    process: &'s Process<'m, L>,
    vmas: [Vma; 2],
    /// The VMA whose lock is held.
    held: Cell<Option<Vma>>,
    /// The pages for which a lock was taken.
    taken: RefCell<Vec<u64>>,
}

impl<'s, 'm, L: Layout> LockPerVma<'s, 'm, L> {
    fn new(process: &'s Process<'m, L>) -> Self {
        let vma = |page| Vma::new(range(process, A + page * PAGE, PAGE), Backing::Anonymous, RW).unwrap();
        Self { process, vmas: [vma(0), vma(1)], held: Cell::new(None), taken: RefCell::default() }
    }

    fn find(&self, page: PageAddr) -> Option<Vma> {
        self.vmas.into_iter().find(|vma| vma.contains(page))
    }
}

// SAFETY: the tests that use it have one thread.
unsafe impl<L: Layout> Sync for LockPerVma<'_, '_, L> {}

// SAFETY: one thread; nothing changes the VMAs.
unsafe impl<'m, L: Layout> AddressSpace for LockPerVma<'_, 'm, L> {
    type Kernel = &'m Machine<L>;
    type Budget = Unlimited;

    fn mm(&self) -> &Mm<&'m Machine<L>> {
        self.process.mm()
    }

    fn with_vmas(&self, _: &mut dyn FnMut(&dyn Vmas)) -> Result<(), pagepin::Reentered> {
        panic!("the lock of all VMAs");
    }

    fn with_vma_at(&self, page: PageAddr, look: &mut dyn FnMut(&dyn Vmas)) -> Result<(), pagepin::Reentered> {
        assert_eq!(self.held.get(), None, "one at a time");
        self.taken.borrow_mut().push(page.address());
        self.held.set(self.find(page));
        look(self);
        self.held.set(None);
        Ok(())
    }

    fn budget(&self) -> &Unlimited {
        &Unlimited
    }
}

// SAFETY: the VMAs do not overlap.
unsafe impl<L: Layout> Vmas for LockPerVma<'_, '_, L> {
    fn vma_at(&self, page: PageAddr) -> Option<Vma> {
        let vma = self.find(page);
        assert_eq!(vma, self.held.get(), "a VMA whose lock is not held");
        vma
    }
}

fn faults_and_pins_take_the_lock_of_one_vma_at_a_time<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    process.map(A, 2 * PAGE, RW).unwrap();
    let space = LockPerVma::new(&process);
    let fault = |address| {
        handle_fault(&space, Fault { address, access: Access::Write, key_denied: false, malformed_table: false })
    };
    assert_eq!(fault(A + PAGE + 7), Ok(FaultOutcome::MappedFresh));
    assert_eq!(fault(A + 2 * PAGE), Err(FaultError::NoVma));
    assert_eq!(space.taken.take(), [A + PAGE, A + 2 * PAGE]);
    let pin = |pages| {
        let runs = vec![PhysRun::default(); 3];
        pin_user_pages(&space, Write, range(&process, A, pages * PAGE), PinFlags::empty(), runs)
    };
    assert_eq!(pin(2).unwrap().complete().map(drop).err(), None);
    assert_eq!(space.taken.take(), [A, A + PAGE]);
    assert_eq!(pin(3).unwrap().complete().map(drop).err(), Some(PinError::NoVma), "a part");
    assert_eq!(space.taken.take(), [A, A + PAGE, A + 2 * PAGE]);
}

every_layout!(faults_and_pins_take_the_lock_of_one_vma_at_a_time);
