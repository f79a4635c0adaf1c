//! The library's ready-made parts for a kernel on one CPU, as the README puts them
//! together: interrupts off, local flushes, an allocator with the traits of `x86_64`. And
//! those for several CPUs, all of which work in one space.

use alloc::{boxed::Box, format, sync::Arc};
use core::sync::atomic::{AtomicU64, Ordering};

use pagepin::frame::PageFrame;
use pagepin::space::{SpaceOptions, UserSpace};
use pagepin::{
    Access, AddressSpace, CurrentSpace, Extras, FlatFrameTable, FrameAllocatorSource, FrameRequest, FrameSource,
    IpiShootdown, OffsetPhysMap, Pfn, Platform, Rights, SectionCount, SingleCpu,
    fault::{Fault, FaultOutcome},
    pin::{PhysRun, PinFlags, PinnedPages, Write, pin_user_pages_fast},
    space::KernelHalf,
    uaccess::{UserCopyError, UserCopyRefusal, copy_from_user, copy_to_user},
};
use spin::Once;
use x86_64::structures::paging::{FrameAllocator, FrameDeallocator, PhysFrame, Size4KiB};

use super::Outcome;
use crate::{
    memory, mm,
    percpu::MAX_CPUS,
    poll::Poll,
    shootdown::{Machine, SMP},
    smp,
};

/// This kernel's own pool, behind the traits of the `x86_64` crate.
pub struct Pool;

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

type Smp = &'static IpiShootdown<Machine, MAX_CPUS>;
type Counting = Extras<SectionCount<Machine, MAX_CPUS>>;
type SeveralCpus =
    Platform<OffsetPhysMap, FlatFrameTable<'static>, FrameAllocatorSource<Pool, Poll>, Smp, Smp, Poll, Counting>;
type Space = UserSpace<&'static SeveralCpus>;

static CURRENT: CurrentSpace<Arc<Space>, Machine, MAX_CPUS> = CurrentSpace::new(Machine);
static SHARED: Once<Arc<Space>> = Once::new();
static ROUNDS_DONE: AtomicU64 = AtomicU64::new(0);
const ROUNDS: u64 = 100;
/// Of each CPU: a lowest table of its own, so that unmapping frees tables under the others' walks.
const APART: u64 = 1 << 21;

/// All CPUs map, copy, pin and unmap in one space at a time: each flush concerns all others, each
/// table that goes waits for their walks, and who comes back from being lazy finds what was left out.
pub fn ready_made_parts_work_on_several_cpus() -> Outcome {
    let free = memory::free_frames();
    let words: Box<[PageFrame]> = (free.start..free.end).map(|_| PageFrame::new()).collect();
    let words: &'static [PageFrame] = Box::leak(words);
    // SAFETY: the direct map is the bootloader's; these frames come from the pool and are given
    // back to it before this ends; all CPUs have joined, and `Poll` answers.
    let kernel: SeveralCpus = unsafe {
        Platform::with_relax(
            OffsetPhysMap::new(memory::direct_map_offset()),
            FlatFrameTable::new(Pfn::new(free.start), words),
            FrameAllocatorSource::new(Pool, None),
            &SMP,
            &SMP,
        )
    }
    .with_extras(Extras::new().no_preempt(SectionCount::new(Machine)));
    let kernel: &'static SeveralCpus = Box::leak(Box::new(kernel));
    // SAFETY: the bootloader's root, and the tables of its upper half, are never freed.
    let half = unsafe { KernelHalf::new(Pfn::containing(memory::boot_root()), pagepin::Levels::Four) };
    let space = Arc::new(UserSpace::new(kernel, SpaceOptions::new(half)).map_err(|error| format!("{error}"))?);
    SHARED.call_once(|| space.clone());
    smp::on_every_cpu(|cpu| (0..ROUNDS).for_each(|round| work(cpu as u64, round)));
    let wanted = ROUNDS * crate::percpu::online().count() as u64;
    let done = ROUNDS_DONE.load(Ordering::Relaxed);
    if done != wanted {
        return Err(format!("{done} of {wanted} rounds went well"));
    }
    copies_in_sections_are_refused(&space)?;
    let unfreed = |word: &PageFrame| !word.snapshot().is_free();
    space.unmap(VMA, 16 * APART).map_err(|error| format!("{error}"))?;
    // The space itself stays, in the static: its root, and nothing else.
    match words.iter().filter(|word| unfreed(word)).count() {
        1 => Ok(()),
        used => Err(format!("{used} frames are still in use")),
    }
}

/// One round of one CPU, counted if all of it was right.
fn work(cpu: u64, round: u64) {
    let Some(space) = SHARED.get() else { return };
    let page = VMA + cpu * APART;
    let text = (cpu << 32 | round).to_le_bytes();
    let (mut copied, mut pinned) = ([0; 8], [0; 8]);
    let stored = CURRENT.enter(space.clone()).is_ok()
        && space.map(page, memory::PAGE, Rights::READ | Rights::WRITE).is_ok()
        && copy_to_user(&**space, page + 5, &text).is_ok();
    let read = stored
        && copy_from_user(&**space, &mut copied, page + 5).is_ok()
        && space.range(page + 5, 8).is_ok_and(|range| {
            let pins = space.pin(Write, range, [PhysRun::default(); 1]);
            pins.is_ok_and(|pins| pins.copy_to(0, &mut pinned).is_ok())
        })
        && (copied, pinned) == (text, text);
    let well =
        read && space.unmap(page, memory::PAGE).is_ok() && copy_from_user(&**space, &mut copied, page + 5).is_err();
    CURRENT.leave();
    ROUNDS_DONE.fetch_add(well.into(), Ordering::Relaxed);
}

fn copies_in_sections_are_refused(space: &Arc<Space>) -> Outcome {
    CURRENT.enter(space.clone()).map_err(|error| format!("{error}"))?;
    space.map(VMA, memory::PAGE, Rights::READ | Rights::WRITE).map_err(|error| format!("{error}"))?;
    let mut inside = Ok(());
    let looked = space.with_vmas(&mut |_| inside = copy_to_user(&**space, VMA, b"x"));
    looked.map_err(|error| format!("{error}"))?;
    let outside = copy_to_user(&**space, VMA, b"x");
    CURRENT.leave();
    let refused = Err(UserCopyError { copied: 0, reason: UserCopyRefusal::InSection });
    if (inside, outside) == (refused, Ok(())) { Ok(()) } else { Err(format!("{inside:?}, {outside:?}")) }
}
