//! The library's ready-made parts for a kernel on one CPU, as the README puts them
//! together: interrupts off, local flushes, an allocator with the traits of `x86_64`.

use alloc::{boxed::Box, format};

use pagepin::frame::PageFrame;
use pagepin::space::{SpaceOptions, UserSpace};
use pagepin::{
    Access, FlatFrameTable, FrameAllocatorSource, FrameRequest, FrameSource, OffsetPhysMap, Pfn, Platform, Rights,
    SingleCpu,
    fault::{Fault, FaultOutcome},
    pin::{PhysRun, PinFlags, PinnedPages, Write, pin_user_pages_fast},
};
use x86_64::structures::paging::{FrameAllocator, FrameDeallocator, PhysFrame, Size4KiB};

use super::Outcome;
use crate::{memory, mm};

/// This kernel's own pool, behind the traits of the `x86_64` crate.
struct Pool;

// SAFETY: the pool hands out each frame once.
unsafe impl FrameAllocator<Size4KiB> for Pool {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        pagepin::Env::source(mm::kernel()).allocate(FrameRequest::movable(0)).map(PhysFrame::from)
    }
}

impl FrameDeallocator<Size4KiB> for Pool {
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame) {
        // SAFETY: the caller gives back what `allocate_frame` handed out.
        unsafe { pagepin::Env::source(mm::kernel()).free(frame.into(), 0) };
    }
}

type OneCpu = Platform<OffsetPhysMap, FlatFrameTable<'static>, FrameAllocatorSource<Pool>, SingleCpu, SingleCpu>;

const VMA: u64 = 0x5000_0000;

/// Maps, faults, pins, forks and copies on write with them.
pub fn ready_made_parts_work() -> Outcome {
    let free = memory::free_frames();
    let words: Box<[PageFrame]> = (free.start..free.end).map(|_| PageFrame::new()).collect();
    let words: &'static [PageFrame] = Box::leak(words);
    let outcome = {
        // SAFETY: the direct map is the bootloader's; these frames come from the pool and
        // are given back to it before this ends; no other CPU ever loads these tables.
        let kernel: OneCpu = unsafe {
            Platform::new(
                OffsetPhysMap::new(memory::direct_map_offset()),
                FlatFrameTable::new(Pfn::new(free.start), words),
                FrameAllocatorSource::new(Pool, None),
                SingleCpu::new(),
                SingleCpu::new(),
            )
        };
        life_of_two(&kernel)
    };
    let used = words.iter().position(|word| !word.snapshot().is_free());
    // SAFETY: leaked above; the kernel that referred to them is gone, and `words` is not
    // used any more.
    drop(unsafe { Box::from_raw(core::ptr::from_ref(words).cast_mut()) });
    outcome.and(used.map_or(Ok(()), |index| Err(format!("frame {} is still in use", free.start + index as u64))))
}

fn write_fault(address: u64) -> Fault {
    Fault { address, access: Access::Write, key_denied: false, malformed_table: false }
}

fn life_of_two(kernel: &OneCpu) -> Outcome {
    let why = |what: &str| format!("{what} failed");
    let parent =
        UserSpace::new(kernel, SpaceOptions::without_kernel_half(pagepin::Levels::Four)).map_err(|_| why("a space"))?;
    parent.map(VMA, 2 * memory::PAGE, Rights::READ | Rights::WRITE).map_err(|_| why("map"))?;
    let range = parent.range(VMA + 100, memory::PAGE).map_err(|_| why("a range"))?;
    let pinned = pin_user_pages_fast(&parent, Write, range, PinFlags::empty(), [PhysRun::default(); 2])
        .and_then(PinnedPages::complete)
        .map_err(|error| format!("pin: {error}"))?;
    pinned.copy_from(0, b"device").map_err(|_| why("a copy"))?;
    let child = parent.fork().map_err(|_| why("fork"))?;
    drop(pinned);
    let grandchild = child.fork().map_err(|_| why("another fork"))?;
    for (space, wanted) in [(&grandchild, FaultOutcome::Copied), (&child, FaultOutcome::Reused)] {
        let outcome = space.fault(write_fault(VMA));
        if outcome != Ok(wanted) {
            return Err(format!("{outcome:?} instead of {wanted:?}"));
        }
    }
    if !x86_64::instructions::interrupts::are_enabled() { Ok(()) } else { Err(why("keeping interrupts off")) }
}
