//! [`CurrentSpace`]: in which address space each CPU is, and what the page-fault handler makes of that.

use core::cell::UnsafeCell;
use core::convert::Infallible;
use core::fmt;
use core::ops::Deref;

use x86_64::structures::idt::PageFaultErrorCode;

use super::{InterruptsOff, fault_from_error_code};
use crate::env::{AddressSpace, CurrentCpu, Env, SwitchMm};
use crate::fault::{FaultError, handle_fault};
use crate::space::KernelHalfError;
use crate::uaccess::fixup;

#[cfg(feature = "alloc")]
use crate::{env::PinBudget, space::UserSpace};

/// Something with an address space: a `UserSpace`, or the process of a kernel that has one in it.
///
/// # Implementation safety
/// `space` of a value is always the same address space, and `may_load` is `Ok` only if its root maps the kernel.
pub unsafe trait HasSpace {
    /// The address space.
    type Space: AddressSpace;

    /// The address space.
    fn space(&self) -> &Self::Space;

    /// Whether its root can be loaded. Asked whenever a CPU enters it.
    ///
    /// # Errors
    /// [`KernelHalfError`].
    fn may_load(&self) -> Result<(), KernelHalfError>;
}

// SAFETY: an address space is its own; its options say what was put into its root.
#[cfg(feature = "alloc")]
unsafe impl<K: Env, C: PinBudget> HasSpace for UserSpace<K, C> {
    type Space = Self;

    fn space(&self) -> &Self {
        self
    }

    /// In debug builds all of the kernel half is looked at.
    fn may_load(&self) -> Result<(), KernelHalfError> {
        match self.has_kernel_half() {
            false => Err(KernelHalfError::NoKernel),
            true if cfg!(debug_assertions) => self.check_root(),
            true => Ok(()),
        }
    }
}

/// A share in something with an address space, which is not dropped while there is a share: `Arc<T>` or `&'static T`.
///
/// # Implementation safety
/// All clones lead to the same value at the same place, which lives as long as one of them. Cloning does nothing else.
pub unsafe trait Share: Clone + Deref<Target: HasSpace> {}

// SAFETY: what the counts keep alive stays where it is; cloning counts.
#[cfg(feature = "alloc")]
unsafe impl<T: HasSpace> Share for alloc::sync::Arc<T> {}

// SAFETY: the value lives for ever, where it is.
unsafe impl<T: HasSpace> Share for &'static T {}

/// The kernel of what a share leads to.
type KernelOf<S> = <<<S as Deref>::Target as HasSpace>::Space as AddressSpace>::Kernel;

/// What the page-fault handler does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFault {
    /// It returns: the access will succeed.
    Resolved,
    /// It returns to this address instead: a user copy sees to the fault.
    ResumeAt(u64),
    /// The program made an access that is not possible: signal, or end it; after [`FaultError::NotReady`] or `NoMemory`, let it wait.
    Refused(FaultError),
    /// The kernel made an access that is not possible, and no user copy: a bug of the kernel.
    KernelBug,
}

/// In which address space each CPU is, for up to `CPUS` CPUs. A kernel has one, in a static.
///
/// A CPU that has [entered](Self::enter) an address space holds a share in it, so that it cannot end; one that has
/// [left](Self::leave) it has none, though its root may still be loaded, and an address space that ends is taken off it first.
///
/// ```
/// # use pagepin::{space::UserSpace, *};
/// # use std::sync::Arc;
/// # type Kernel = Platform<OffsetPhysMap, FlatFrameTable<'static>, BuddySource<'static>, SingleCpu, SingleCpu>;
/// # struct Machine;
/// # unsafe impl CurrentCpu for Machine { fn current_cpu(&self) -> usize { 0 } }
/// # struct Thread { space: Arc<UserSpace<&'static Kernel>> }
/// static CURRENT: CurrentSpace<Arc<UserSpace<&'static Kernel>>, Machine, 1> = CurrentSpace::new(Machine);
///
/// /// The scheduler, before it goes on with a thread.
/// fn switch_to(next: &Thread) {
///     CURRENT.enter(next.space.clone()).expect("made with a kernel half");
/// }
/// ```
pub struct CurrentSpace<S, C, const CPUS: usize> {
    cpu: C,
    each: [Slot<S>; CPUS],
}

/// What one CPU is in.
#[repr(align(64))]
struct Slot<S>(UnsafeCell<Option<S>>);

// SAFETY: a slot is used by its CPU alone, with interrupts off; what is in it may have come from another, as `Send` permits.
unsafe impl<S: Send> Sync for Slot<S> {}

impl<S, C, const CPUS: usize> CurrentSpace<S, C, CPUS> {
    /// Every CPU is in none.
    #[must_use]
    pub const fn new(cpu: C) -> Self {
        Self { cpu, each: [const { Slot(UnsafeCell::new(None)) }; CPUS] }
    }
}

impl<S: Share, C: CurrentCpu, const CPUS: usize> CurrentSpace<S, C, CPUS>
where
    <KernelOf<S> as Env>::Shootdown: SwitchMm,
{
    /// Uses this CPU's slot. `work` runs with interrupts off, and drops no share: that may end an address space.
    fn with_slot<T>(&self, work: impl FnOnce(&mut Option<S>) -> T) -> T {
        let _off = InterruptsOff::new();
        let slot = &self.each[self.cpu.current_cpu()];
        // SAFETY: only this CPU uses the slot, nothing interrupts it until the end, and `work`, which is one of the functions
        // below, does not come here again.
        work(unsafe { &mut *slot.0.get() })
    }

    /// The calling CPU leaves the address space that it is in, and enters this one. If its root is still loaded, this costs
    /// next to nothing.
    ///
    /// # Errors
    /// [`KernelHalfError`]: the CPU is where it was.
    pub fn enter(&self, space: S) -> Result<(), KernelHalfError> {
        space.may_load()?;
        let before = self.with_slot(|slot| {
            let mm = space.space().mm();
            // SAFETY: the root maps the kernel, as `HasSpace` says. It lives as long as the share in the slot, and when that
            // is gone, until `leave_mm` has returned, with which the address space ends.
            unsafe { mm.env().shootdown().switch_mm(mm.root()) };
            slot.replace(space)
        });
        drop(before);
        Ok(())
    }

    /// Replaces the address space that the calling CPU is in, and does not come back: the end of `exec`.
    ///
    /// What a function that never returns still has is never dropped: an `Arc` of the old program kept on its stack keeps all
    /// of that program's memory for ever. So `start`, which leaves for user mode, must be [`Copy`], as no owner of anything is,
    /// and `space` has gone to this CPU before it runs. The old space ends here, if no other share of it is left.
    ///
    /// ```no_run
    /// # use std::sync::Arc;
    /// # use pagepin::{*, space::*};
    /// # fn example<K: Env<Shootdown: SwitchMm>, C: CurrentCpu>(current: &CurrentSpace<Arc<UserSpace<K>>, C, 8>, kernel: K,
    /// #     options: SpaceOptions, entry: u64, stack: u64) -> Result<(), SpaceError> {
    /// # fn enter_user_mode(_: u64, _: u64) -> ! { loop {} }
    /// let new = UserSpace::new(kernel, options)?;
    /// // ... load the program; up to here an error leaves the old one as it is ...
    /// let Err(_) = current.exec(Arc::new(new), || enter_user_mode(entry, stack));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`KernelHalfError`]: the CPU is where it was, and `space` is dropped.
    pub fn exec<F: FnOnce() -> Infallible + Copy>(&self, space: S, start: F) -> Result<Infallible, KernelHalfError> {
        self.enter(space).map(|()| start())
    }

    /// The calling CPU leaves the address space that it is in: for idle, and for threads of the kernel. The root stays loaded
    /// until another is entered or the address space ends.
    ///
    /// ```
    /// # use pagepin::{space::UserSpace, *};
    /// # use std::sync::Arc;
    /// # type Kernel = Platform<OffsetPhysMap, FlatFrameTable<'static>, BuddySource<'static>, SingleCpu, SingleCpu>;
    /// # struct Machine;
    /// # unsafe impl CurrentCpu for Machine { fn current_cpu(&self) -> usize { 0 } }
    /// # static CURRENT: CurrentSpace<Arc<UserSpace<&'static Kernel>>, Machine, 1> = CurrentSpace::new(Machine);
    /// /// The scheduler, when nothing is ready.
    /// fn idle() {
    ///     CURRENT.leave();
    ///     // ... wait for an interrupt
    /// }
    /// ```
    pub fn leave(&self) {
        let before = self.with_slot(|slot| {
            if let Some(space) = slot {
                space.space().mm().env().shootdown().enter_lazy_tlb();
            }
            slot.take()
        });
        drop(before);
    }

    /// What the calling CPU is in. A share of one's own, so no lock is held, and the CPU may be left meanwhile.
    ///
    /// ```
    /// # use pagepin::{space::UserSpace, *};
    /// # use std::sync::Arc;
    /// # type Kernel = Platform<OffsetPhysMap, FlatFrameTable<'static>, BuddySource<'static>, SingleCpu, SingleCpu>;
    /// # struct Machine;
    /// # unsafe impl CurrentCpu for Machine { fn current_cpu(&self) -> usize { 0 } }
    /// # static CURRENT: CurrentSpace<Arc<UserSpace<&'static Kernel>>, Machine, 1> = CurrentSpace::new(Machine);
    /// /// A system call.
    /// fn sys_discard(start: u64, length: u64) -> Result<(), i32> {
    ///     let space = CURRENT.get().expect("called by a process");
    ///     space.discard(start, length).map(|_| ()).map_err(|error| error.errno())
    /// }
    /// ```
    #[must_use]
    pub fn get(&self) -> Option<S> {
        self.with_slot(|slot| slot.clone())
    }

    /// All that a page-fault handler decides: from `CR2` (raw), the error code and the instruction.
    ///
    /// A fault of the program is resolved, with whatever locks that takes, so the handler holds none. A fault of the kernel is
    /// never resolved: it is a user copy's, which sees to it itself, or it is a bug.
    ///
    /// ```
    /// # use pagepin::{PageFault, fault::FaultError};
    /// # use x86_64::{registers::control::Cr2, structures::idt::PageFaultErrorCode};
    /// # use pagepin::{space::UserSpace, *};
    /// # use std::sync::Arc;
    /// # type Kernel = Platform<OffsetPhysMap, FlatFrameTable<'static>, BuddySource<'static>, SingleCpu, SingleCpu>;
    /// # struct Machine;
    /// # unsafe impl CurrentCpu for Machine { fn current_cpu(&self) -> usize { 0 } }
    /// # static CURRENT: CurrentSpace<Arc<UserSpace<&'static Kernel>>, Machine, 1> = CurrentSpace::new(Machine);
    /// # struct Frame { rip: u64 }
    /// # fn kill(_: FaultError) {}
    /// fn page_fault(frame: &mut Frame, code: PageFaultErrorCode) {
    ///     match CURRENT.page_fault(Cr2::read_raw(), code, frame.rip) {
    ///         PageFault::Resolved => {}
    ///         PageFault::ResumeAt(rip) => frame.rip = rip,
    ///         PageFault::Refused(error) => kill(error),
    ///         PageFault::KernelBug => panic!("page fault at {:#x}", frame.rip),
    ///     }
    /// }
    /// ```
    pub fn page_fault(&self, address: u64, code: PageFaultErrorCode, rip: u64) -> PageFault {
        if !code.contains(PageFaultErrorCode::USER_MODE) {
            return fixup(rip, code).map_or(PageFault::KernelBug, PageFault::ResumeAt);
        }
        // A program that runs in no address space of this kernel's is a bug as well.
        let Some(space) = self.get() else { return PageFault::KernelBug };
        match handle_fault(space.space(), fault_from_error_code(address, code)) {
            Ok(_) => PageFault::Resolved,
            Err(error) => PageFault::Refused(error),
        }
    }
}

impl<S, C, const CPUS: usize> fmt::Debug for CurrentSpace<S, C, CPUS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CurrentSpace").finish_non_exhaustive()
    }
}
