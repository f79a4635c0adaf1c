//! From and to the types of the `x86_64` crate, so that a kernel on that crate writes no conversions.

use spin::mutex::SpinMutex;
use spin::relax::{RelaxStrategy, Spin};
use x86_64::addr::VirtAddrNotValid;
use x86_64::structures::idt::PageFaultErrorCode;
use x86_64::structures::paging::{FrameAllocator, FrameDeallocator, PhysFrame, Size4KiB};
use x86_64::{PhysAddr, VirtAddr};

use super::interrupts;
use crate::addr::{PageAddr, Pfn};
use crate::env::{FrameRequest, FrameSource};
use crate::fault::Fault;
use crate::rights::Access;

impl From<PhysFrame<Size4KiB>> for Pfn {
    fn from(frame: PhysFrame<Size4KiB>) -> Self {
        Self::containing(frame.start_address().as_u64())
    }
}

impl From<Pfn> for PhysFrame<Size4KiB> {
    fn from(frame: Pfn) -> Self {
        Self::containing_address(PhysAddr::new_truncate(frame.address()))
    }
}

/// Fails for a page above 47 bits, which only an mm with five levels has: `VirtAddr` is a 48-bit type.
impl TryFrom<PageAddr> for VirtAddr {
    type Error = VirtAddrNotValid;

    fn try_from(page: PageAddr) -> Result<Self, VirtAddrNotValid> {
        Self::try_new(page.address())
    }
}

/// The fault that the processor reports by `CR2` (raw: with five levels it has 57 bits) and the error code it pushed
/// (SDM vol. 3, 4.7).
///
/// ```
/// use pagepin::{Access, fault_from_error_code};
/// use x86_64::structures::idt::PageFaultErrorCode;
/// let code = PageFaultErrorCode::CAUSED_BY_WRITE | PageFaultErrorCode::USER_MODE;
/// assert_eq!(fault_from_error_code(0x1000, code).access, Access::Write);
/// ```
#[must_use]
pub fn fault_from_error_code(address: u64, code: PageFaultErrorCode) -> Fault {
    let access = if code.contains(PageFaultErrorCode::INSTRUCTION_FETCH) {
        Access::Execute
    } else if code.contains(PageFaultErrorCode::CAUSED_BY_WRITE) {
        Access::Write
    } else {
        Access::Read
    };
    Fault {
        address,
        access,
        key_denied: code.contains(PageFaultErrorCode::PROTECTION_KEY),
        malformed_table: code.contains(PageFaultErrorCode::MALFORMED_TABLE),
    }
}

/// A [`FrameSource`] over any allocator with the `x86_64` crate's frame traits.
///
/// The allocator sits behind a spin lock that is held with interrupts off: by itself in ring 0 with feature `instructions`, so
/// that frames may be freed from interrupt context; without the feature, by the kernel around every use. These allocators hand out single frames, so there are no large leaves.
///
/// ```
/// use pagepin::{FrameAllocatorSource, FrameRequest, FrameSource, Pfn};
/// use x86_64::structures::paging::{FrameAllocator, FrameDeallocator, PhysFrame};
/// /// Frames from 1 MiB on.
/// struct Bump(u64);
/// // SAFETY: each once.
/// unsafe impl FrameAllocator<x86_64::structures::paging::Size4KiB> for Bump {
///     fn allocate_frame(&mut self) -> Option<PhysFrame> {
///         self.0 += 1;
///         Some(Pfn::new(0xff + self.0).into())
///     }
/// }
/// impl FrameDeallocator<x86_64::structures::paging::Size4KiB> for Bump {
///     unsafe fn deallocate_frame(&mut self, _: PhysFrame) {}
/// }
/// // SAFETY: nobody uses the frames.
/// let source: FrameAllocatorSource<Bump> = unsafe { FrameAllocatorSource::new(Bump(0), None) };
/// assert_eq!(source.allocate(FrameRequest::movable(0)), Some(Pfn::new(0x100)));
/// assert_eq!(source.with(|allocator| allocator.0), 1);
/// ```
#[derive(Debug)]
pub struct FrameAllocatorSource<A, R = Spin> {
    allocator: SpinMutex<A, R>,
    zero_frame: Option<Pfn>,
}

impl<A, R: RelaxStrategy> FrameAllocatorSource<A, R> {
    /// # Safety
    /// `allocator` hands out unused frames that the kernel's `PhysMap` reaches, and accepts them back; `zero_frame`, if
    /// any, is a cleared frame that nobody ever writes.
    pub const unsafe fn new(allocator: A, zero_frame: Option<Pfn>) -> Self {
        Self { allocator: SpinMutex::new(allocator), zero_frame }
    }

    /// Runs `work` on the allocator.
    pub fn with<T>(&self, work: impl FnOnce(&mut A) -> T) -> T {
        interrupts::kept_out(|| work(&mut self.allocator.lock()))
    }
}

// SAFETY: the constructor's caller vouches for the allocator.
unsafe impl<A, R> FrameSource for FrameAllocatorSource<A, R>
where
    A: FrameAllocator<Size4KiB> + FrameDeallocator<Size4KiB> + Send,
    R: RelaxStrategy,
{
    fn allocate(&self, request: FrameRequest) -> Option<Pfn> {
        (request.order == 0).then(|| self.with(FrameAllocator::allocate_frame)).flatten().map(Pfn::from)
    }

    unsafe fn free(&self, frame: Pfn, _order: u8) {
        // SAFETY: the caller gives back a frame that came from `allocate` and that nobody uses.
        self.with(|allocator| unsafe { allocator.deallocate_frame(frame.into()) });
    }

    fn zero_frame(&self) -> Option<Pfn> {
        self.zero_frame
    }
}
