//! The library under test, plugged in: address spaces, faults and pins of this kernel.

mod errors;
mod frames;
mod kinds;
mod objects;
mod picture;
mod pins;
mod platform;
pub mod store;
mod twin;

use alloc::sync::Arc;

use pagepin::space::{KernelHalf, KernelHalfError, Sharing, SpaceOptions, UserSpace};
use pagepin::{
    CurrentSpace, Env as _, FrameTable as _, HasSpace, ObjectId, PageAddr, PageFault, Pfn, Rights,
    fault::{FaultError, FaultOutcome},
    fault_from_error_code,
    paging::Tables,
    pin,
};
use pagepin_abi::{Error, LARGE_BYTES, MmCall, PROT_EXEC, PROT_NONE, PROT_WRITE, USER_START};
use spin::Once;
use x86_64::structures::idt::PageFaultErrorCode;

use crate::{memory, percpu, shootdown::Machine};

pub use frames::{free_count as free_frame_count, kernel_frame, make_blocks_scarce};
pub use objects::memory;
pub use picture::print_memory;
pub use pins::{Pin, Whose, take_highest_pins};
pub use platform::{Booked, Kernel, LEDGER, QUARANTINE, booked, delay_flushes, kernel};
pub use twin::register;

/// What all roots have in common.
static KERNEL_HALF: Once<KernelHalf> = Once::new();

/// Before the first address space.
pub fn init() {
    platform::init();
    // Kernel code, stacks and data are all in the upper half, so the lower one can belong to processes, and null pointers fault.
    // SAFETY: in ring 0, on the only CPU so far; the boot loader's tables are never freed, and what it mapped in the lower half
    // was for itself.
    let half = unsafe { KernelHalf::take_over(kernel().phys_map()) };
    KERNEL_HALF.call_once(|| half.unwrap_or_else(|error| panic!("{error}")));
    kinds::init();
    store::objects().create_memory(kernel());
}

/// One process's memory.
pub struct AddressSpace {
    space: UserSpace<&'static Kernel>,
    twin: twin::Choice,
}

fn rights(prot: u64) -> Result<Rights, Error> {
    if prot == PROT_NONE {
        return Ok(Rights::empty());
    }
    if prot & !(PROT_WRITE | PROT_EXEC) != 0 {
        return Err(Error::Invalid);
    }
    let mut rights = Rights::READ;
    rights.set(Rights::WRITE, prot & PROT_WRITE != 0);
    rights.set(Rights::EXECUTE, prot & PROT_EXEC != 0);
    Ok(rights)
}

impl AddressSpace {
    /// Nothing mapped in the lower half, the kernel in the upper.
    pub fn new() -> Result<Self, Error> {
        let options = SpaceOptions::new(*KERNEL_HALF.get().expect("mm::init comes first"));
        Ok(Self { space: UserSpace::new(kernel(), options).map_err(errors::space)?, twin: twin::Choice::default() })
    }

    pub fn root(&self) -> u64 {
        self.space.root().address()
    }

    pub fn user_space(&self) -> &UserSpace<&'static Kernel> {
        &self.space
    }

    pub fn map(&self, addr: u64, len: u64, prot: u64) -> Result<(), Error> {
        if addr < USER_START {
            return Err(Error::Invalid);
        }
        self.space.map(addr, len, rights(prot)?).map_err(errors::space)
    }

    /// The file from a page of it on, shared or private.
    pub fn map_file(&self, addr: u64, len: u64, prot: u64, page: u64, shared: bool) -> Result<(), Error> {
        self.map_object(store::file()?, addr, len, prot, page, shared)
    }

    /// The memory that processes share, from a page of it on; or a private copy of it.
    pub fn map_memory(&self, addr: u64, len: u64, prot: u64, page: u64, shared: bool) -> Result<(), Error> {
        self.map_object(objects::memory(), addr, len, prot, page, shared)
    }

    fn map_object(&self, id: ObjectId, addr: u64, len: u64, prot: u64, page: u64, shared: bool) -> Result<(), Error> {
        if addr < USER_START {
            return Err(Error::Invalid);
        }
        let page = u32::try_from(page).map_err(|_| Error::Invalid)?;
        let sharing = if shared { Sharing::Shared } else { Sharing::Private };
        self.space.map_object(addr, len, id, page, sharing, rights(prot)?).map_err(errors::space)
    }

    /// How many pages went to the disk.
    pub fn swap_out(&self, addr: u64, len: u64) -> Result<u64, Error> {
        let out = self.space.swap_out(addr, len).map_err(errors::space)?;
        store::write_out();
        Ok(out.pages)
    }

    /// Returns how many pages left while pinned.
    pub fn unmap(&self, addr: u64, len: u64) -> Result<u64, Error> {
        self.space.unmap(addr, len).map(|unmapped| unmapped.pinned_pages).map_err(errors::space)
    }

    pub fn protect(&self, addr: u64, len: u64, prot: u64) -> Result<(), Error> {
        self.space.protect(addr, len, rights(prot)?).map_err(errors::space)
    }

    /// Returns how many pages left while pinned.
    pub fn discard(&self, addr: u64, len: u64) -> Result<u64, Error> {
        self.space.discard(addr, len).map(|unmapped| unmapped.pinned_pages).map_err(errors::space)
    }

    pub fn fork(&self) -> Result<Self, Error> {
        let space = self.space.fork().map_err(errors::fork)?;
        Ok(Self { space, twin: twin::Choice::default() })
    }

    /// Makes the access possible, or says why not.
    #[inline]
    pub fn fault(&self, address: u64, code: u64) -> Result<FaultOutcome, FaultError> {
        let code = PageFaultErrorCode::from_bits_truncate(code);
        if self.twin.is_chosen() && twin::fault(self, address, code) {
            return Ok(FaultOutcome::Spurious);
        }
        let fault = fault_from_error_code(address, code);
        self.space.fault(fault)
    }

    /// Stores into this space from outside, whatever the protection: for the loader.
    pub fn load(&self, addr: u64, bytes: &[u8]) -> Result<(), Error> {
        for (index, part) in bytes.chunks(memory::PAGE as usize).enumerate() {
            let start = addr + index as u64 * memory::PAGE;
            let range = self.space.range(start, part.len() as u64).map_err(|_| Error::Fault)?;
            let (force, buffer) = (pin::PinFlags::FORCE, [pin::PhysRun::default(); 2]);
            pin::pin_user_pages_remote(&self.space, pin::Write, range, force, buffer)
                .and_then(pin::PinnedPages::complete)
                .map_err(errors::pin)?
                .copy_from(0, part)
                .map_err(|_| Error::Fault)?;
        }
        Ok(())
    }

    /// Calls of the memory system's own (see [`pagepin_abi::Call::Mm`]).
    pub fn call(&self, number: u64, [a, b, c]: [u64; 3]) -> Result<u64, Error> {
        match MmCall::from_number(number).ok_or(Error::NoSuchCall)? {
            MmCall::Picture => picture::print(self, a, b, c).map(|()| 0),
            MmCall::Frame => Ok(self.frame_of(a)?.map_or(0, picture::pack)),
            MmCall::DelayFlushes => {
                platform::delay_flushes(a.min(1_000_000));
                Ok(0)
            }
            MmCall::Twin => self.twin.choose(a).map(|()| 0),
            MmCall::PhysicalAddress => Ok(self.frame_of(a)?.map_or(0, |mapped| mapped.pfn.address())),
            MmCall::Memory => {
                picture::print_memory("all of memory");
                Ok(0)
            }
            MmCall::PinsHeld => {
                let counters = pagepin::Env::statistics(kernel());
                Ok(counters.pins_acquired - counters.pins_released)
            }
        }
    }

    /// The frame that the page of `addr` is mapped to, with the entry that says so.
    fn frame_of(&self, addr: u64) -> Result<Option<picture::Mapped>, Error> {
        let range = self.space.range(addr, 1).map_err(|_| Error::Invalid)?;
        self.mapped(range.first_page())
    }

    fn mapped(&self, page: PageAddr) -> Result<Option<picture::Mapped>, Error> {
        let mut slot = None;
        let look = pagepin::AddressSpace::with_vmas(&self.space, &mut |_| {
            // SAFETY: inside a section of the mm lock.
            let tables = unsafe { Tables::under_mm_lock(pagepin::AddressSpace::mm(&self.space)) };
            slot = tables.find(page).ok();
        });
        look.map_err(|_| Error::Fault)?;
        Ok(picture::Mapped::of(slot.ok_or(Error::Fault)?))
    }
}

/// In which space each CPU is.
static CURRENT: CurrentSpace<Arc<AddressSpace>, Machine, { percpu::MAX_CPUS }> = CurrentSpace::new(Machine);

// SAFETY: the space is a field, and says itself what is in its root.
unsafe impl HasSpace for AddressSpace {
    type Space = UserSpace<&'static Kernel>;

    fn space(&self) -> &Self::Space {
        &self.space
    }

    fn may_load(&self) -> Result<(), KernelHalfError> {
        self.space.may_load()
    }
}

/// Makes `space` the one that this CPU translates with, until [`leave`].
pub fn enter(space: &Arc<AddressSpace>) {
    CURRENT.enter(space.clone()).expect("every space is made with the kernel's half");
}

/// This CPU has nothing more to do in the space that it is in.
pub fn leave() {
    CURRENT.leave();
}

/// What to do about a page fault in the kernel.
pub fn kernel_fault(address: u64, code: u64, rip: u64) -> PageFault {
    CURRENT.page_fault(address, PageFaultErrorCode::from_bits_truncate(code), rip)
}

/// A frame for a page table of the kernel's own.
pub fn table() -> Result<u64, Error> {
    kernel_frame().ok_or(Error::NoMemory)
}

/// What is left of the library's work when no process is: anything is a leak.
pub fn leftovers() -> Result<(), alloc::string::String> {
    let counters = pagepin::Env::statistics(kernel());
    if counters.pins_acquired != counters.pins_released
        || counters.gets_acquired != counters.gets_released
        || counters.bugs_caught != 0
    {
        return Err(alloc::format!("{counters:?}"));
    }
    let mut first = Ok(());
    let leaks = kernel().frames().leaks(&mut |frame, word| {
        if first.is_ok() {
            first = Err(alloc::format!("{frame:?}: {word:?}"));
        }
    });
    assert!(leaks.is_some(), "the table cannot be listed");
    first
}

/// Whether anyone refers to this frame of the pool; frames outside of it always are.
pub fn is_in_use(frame: u64) -> bool {
    let table = pagepin::Env::frames(kernel());
    let seen = |address| pagepin::FrameTable::frame(table, Pfn::containing(address)).map(|frame| frame.snapshot());
    // Of a block, only the head has a word that says so.
    let head = seen(frame & !(LARGE_BYTES - 1));
    seen(frame).is_none_or(|frame| !frame.is_free()) || head.is_some_and(|head| !head.is_free() && head.order > 0)
}

/// Pins user memory for a device, or takes the plain reference that a twin uses.
pub fn pin(space: &Arc<AddressSpace>, whose: Whose, addr: u64, len: u64, flags: u64) -> Result<Pin, Error> {
    Pin::new(space, whose, addr, len, flags)
}
