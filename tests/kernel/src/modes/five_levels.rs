//! Tables of five levels, walked by a processor. It can be told so (`CR4.LA57`) only before paging is on, and the boot loader turns it on
//! with four. So before the other CPUs are started, one of them begins with five, does what is here, and halts: then it is
//! started once more, like the others.
//!
//! The kernel is where it was: its addresses are those of the last entry of a fifth table, which leads to the boot loader's root.

use alloc::{boxed::Box, format, string::String};

use pagepin::{
    Env, FlatFrameTable, FrameAllocatorSource, OffsetPhysMap, Pfn, Platform, Rights, SingleCpu, SwitchMm,
    fault::FaultError,
    fault_from_error_code,
    frame::PageFrame,
    pin::{PhysRun, PinFlags, PinnedPages, Read, Write, pin_user_pages_fast},
    space::{KernelHalf, SpaceOptions, UserSpace},
    uaccess::{UserCopyError, UserCopyRefusal, copy_from_user, copy_to_user},
};
use spin::Once;
use x86_64::registers::control::{Cr4, Cr4Flags};
use x86_64::structures::idt::PageFaultErrorCode;

use super::{Outcome, kernel_tests::check, ready_made::Pool};
use crate::{
    apic, cpu, gdt, idt, ipi,
    memory::{self, PAGE},
    percpu, println, smp,
    trap::{self, Trap, UserContext},
};

/// What came of it.
static SEEN: Once<Outcome> = Once::new();

/// Before the other CPUs are started.
pub fn visit() {
    if cpu::knows_five_levels() {
        smp::start_one_with_five_levels(begin, || SEEN.is_completed());
    }
}

extern "C" fn begin(index: u32) -> ! {
    percpu::init(index, apic::id());
    gdt::init();
    idt::init();
    cpu::init();
    SEEN.call_once(look);
    loop {
        // Interrupts are off: until it is started again.
        x86_64::instructions::hlt();
    }
}

/// As a test of the kernel.
pub fn five_levels_are_walked() -> Outcome {
    SEEN.get().cloned().unwrap_or_else(|| {
        println!("@skip five_levels_are_walked no other CPU, or none that knows them");
        Ok(())
    })
}

type Kernel = Platform<OffsetPhysMap, FlatFrameTable<'static>, FrameAllocatorSource<Pool>, SingleCpu, SingleCpu>;

fn look() -> Outcome {
    check(Cr4::read().contains(Cr4Flags::L5_PAGING), "the CPU has four levels")?;
    let free = memory::free_frames();
    let words: &'static [PageFrame] = Box::leak((free.start..free.end).map(|_| PageFrame::new()).collect());
    // SAFETY: the bootloader has mapped all memory at this offset.
    let map = unsafe { OffsetPhysMap::new(memory::direct_map_offset()) };
    let outcome = {
        // SAFETY: these frames come from the pool and are given back to it before this ends; no other CPU ever loads these tables.
        let kernel: Kernel = unsafe {
            let frames = FlatFrameTable::new(Pfn::new(free.start), words);
            Platform::new(map, frames, FrameAllocatorSource::new(Pool, None), SingleCpu::new(), SingleCpu::new())
        };
        // SAFETY: in ring 0; the tables live for ever. What the lower half has was for the start, which is over.
        let half = unsafe { KernelHalf::take_over(kernel.phys_map()) };
        half.map_err(why).and_then(|half| {
            life_of_two(&kernel, SpaceOptions::new(half))?;
            a_program(&kernel, SpaceOptions::new(half))
        })
    };
    let used = words.iter().filter(|word| !word.snapshot().is_free()).count();
    // SAFETY: leaked above; the kernel that referred to them is gone.
    drop(unsafe { Box::from_raw(core::ptr::from_ref(words).cast_mut()) });
    outcome.and(check(used == 0, &format!("{used} frames are still in use")))
}

fn why(error: impl core::fmt::Debug) -> String {
    format!("{error:?}")
}

/// With four levels the first two would be one page, and the others no addresses at all: the first behind the lower half of four levels, one in
/// the middle, and the last two pages but one that a process may have.
const PLACES: [u64; 5] =
    [0x0000_1234_5678_9000, 0x0001_1234_5678_9000, 1 << 47, 0x00ab_cdef_0123_4000, (1 << 56) - 4 * PAGE];

type Space<'k> = UserSpace<&'k Kernel>;

fn enter(space: &Space<'_>) {
    // SAFETY: its root has the kernel half, and ends only after this CPU has left it.
    unsafe { SwitchMm::switch_mm(space.env().shootdown(), space.root()) };
}

/// What the processor finds by itself.
fn load(address: u64) -> u64 {
    // SAFETY: the callers have seen to it that the space that is loaded maps the page.
    unsafe { (address as *const u64).read_volatile() }
}

fn life_of_two(kernel: &Kernel, options: SpaceOptions) -> Outcome {
    let parent = UserSpace::new(kernel, options).map_err(why)?;
    enter(&parent);
    for place in PLACES {
        parent.map(place, 2 * PAGE, Rights::READ | Rights::WRITE).map_err(why)?;
        // The first access of each page faults.
        copy_to_user(&parent, place, &place.to_le_bytes()).map_err(why)?;
        copy_to_user(&parent, place + PAGE, &(place + PAGE).to_le_bytes()).map_err(why)?;
    }
    let as_stored = || PLACES.iter().all(|&place| load(place) == place && load(place + PAGE) == place + PAGE);
    check(as_stored(), "what was stored at one address is seen at another")?;

    // One page of each is pinned, and a device writes it after fork.
    let first = |place| parent.range(place, 8).map_err(why);
    let mut pins = alloc::vec::Vec::new();
    for place in PLACES {
        let pin = pin_user_pages_fast(&parent, Write, first(place)?, PinFlags::NOFAULT, [PhysRun::default(); 1]);
        pins.push(pin.and_then(PinnedPages::complete).map_err(why)?);
    }
    let child = parent.fork().map_err(why)?;
    for (pin, place) in pins.iter().zip(PLACES) {
        pin.copy_from(0, &(!place).to_le_bytes()).map_err(why)?;
        copy_to_user(&parent, place + PAGE, &7u64.to_le_bytes()).map_err(why)?;
    }
    let is_parents = |place| load(place) == !place && load(place + PAGE) == 7;
    check(PLACES.into_iter().all(is_parents), "the parent does not see what was written")?;
    enter(&child);
    check(as_stored(), "the child sees what its parent wrote later")?;
    drop(pins);

    // A read pin of what is shared no more, and the end of half of it.
    for place in PLACES {
        let range = child.range(place + PAGE, 8).map_err(why)?;
        let pin = child.pin(Read, range, [PhysRun::default(); 1]).map_err(why)?;
        let mut bytes = [0; 8];
        pin.copy_to(0, &mut bytes).map_err(why)?;
        check(u64::from_le_bytes(bytes) == place + PAGE, "a pin finds another page")?;
        drop(pin);
        child.unmap(place, PAGE).map_err(why)?;
        let gone = Err(UserCopyError { copied: 0, reason: UserCopyRefusal::Fault(FaultError::NoVma) });
        check(copy_from_user(&child, &mut bytes, place) == gone, "an unmapped page is there")?;
        check(load(place + PAGE) == place + PAGE, "its neighbour is not")?;
    }
    enter(&parent);
    check(PLACES.into_iter().all(is_parents), "the parent has lost something")
}

/// Where the program below is.
const CODE: u64 = 0x0042_4242_4242_4000;
/// `mov [rdi], rsi`, `mov rax, [rdi]`, `int 0x80`.
const PROGRAM: [u8; 8] = [0x48, 0x89, 0x37, 0x48, 0x8b, 0x07, 0xcd, 0x80];

/// A program in ring 3, at each of the places: its faults, a fork of it, and what the fork writes then.
fn a_program(kernel: &Kernel, options: SpaceOptions) -> Outcome {
    let parent = UserSpace::new(kernel, options).map_err(why)?;
    enter(&parent);
    parent.map(CODE, PAGE, Rights::READ | Rights::WRITE).map_err(why)?;
    copy_to_user(&parent, CODE, &PROGRAM).map_err(why)?;
    parent.protect(CODE, PAGE, Rights::READ | Rights::EXECUTE).map_err(why)?;
    for place in PLACES {
        parent.map(place, PAGE, Rights::READ | Rights::WRITE).map_err(why)?;
        check(store_in_ring_3(&parent, place, place)? > 0, "the first store faults")?;
    }
    let child = parent.fork().map_err(why)?;
    enter(&child);
    for place in PLACES {
        check(store_in_ring_3(&child, place, !place)? > 0, "what is shared is not written")?;
    }
    enter(&parent);
    check(PLACES.into_iter().all(|place| load(place) == place), "the child's program wrote its parent's memory")
}

/// The program stores `value` and finds it there; how many faults that took.
fn store_in_ring_3(space: &Space<'_>, place: u64, value: u64) -> Result<u32, String> {
    let mut context = UserContext::new(CODE, 0);
    (context.rdi, context.rsi) = (place, value);
    let mut faults = 0;
    loop {
        match trap::enter(&mut context) {
            Trap::Syscall => break,
            Trap::Interrupt { vector } => ipi::acknowledge(vector),
            Trap::PageFault { address, code } => {
                let code = PageFaultErrorCode::from_bits_truncate(code);
                space.fault(fault_from_error_code(address, code)).map_err(why)?;
                faults += 1;
            }
            exception => return Err(why(exception)),
        }
    }
    check(context.rax == value && load(place) == value, "the program does not find what it stored")?;
    Ok(faults)
}
