//! The library's environment in this kernel.

use core::sync::atomic::{AtomicU64, Ordering};

use pagepin::{
    Counters, CpuReaders, Env, Extras, FlatFrameTable, FlushRange, FrameSource, FrameTable, LedgerTable, OffsetPhysMap,
    Pfn, Platform, ReadSide, Region, Shootdown, SwitchMm, frame::Released, frames_from_regions, pin::QuarantineTable,
};
use spin::Once;

use super::{
    frames::Frames,
    store::{self, Shown, Swapped},
};
use crate::{
    memory,
    percpu::MAX_CPUS,
    poll::Poll,
    shootdown::{Machine, SMP},
    time,
};

/// How the frames' words are packed: what `PAGEPIN_LAYOUT` names at build time, or the default.
#[cfg(layout = "Biased10")]
pub type Words = pagepin::frame::Biased10;
#[cfg(layout = "Split23x4x4")]
pub type Words = pagepin::frame::Split23x4x4;
#[cfg(layout = "Split23x8")]
pub type Words = pagepin::frame::Split23x8;
#[cfg(layout = "Wide")]
pub type Words = pagepin::frame::Wide;

pub type Kernel = Platform<OffsetPhysMap, FlatFrameTable<'static, Words>, Frames, InterruptsOff, Ipi, Poll, PerCpu>;

/// What each CPU keeps for itself, and where pages are that no address space has.
type PerCpu = Extras<(), Counters, (), (), CpuReaders<Machine, MAX_CPUS>, &'static Swapped, &'static Shown>;

static KERNEL: Once<Kernel> = Once::new();

pub fn init() {
    let free = memory::free_frames();
    let regions = [Region::usable(free.start * memory::PAGE, free.end * memory::PAGE)];
    KERNEL.call_once(|| {
        // SAFETY: the bootloader has mapped all memory at this offset.
        let map = unsafe { OffsetPhysMap::new(memory::direct_map_offset()) };
        // SAFETY: these frames are RAM that nobody uses, and in the direct map.
        let (table, source) = unsafe { frames_from_regions(&map, regions) }.unwrap_or_else(|error| panic!("{error}"));
        let table = table.into_flat().expect("all of it is one region");
        // SAFETY: table and source were made for each other and for the map.
        let platform = unsafe { Platform::with_relax(map, table, Frames(source), InterruptsOff, Ipi) };
        let (shown, swapped) = store::parts();
        platform.with_extras(Extras::new().mm_readers(CpuReaders::new(Machine)).tokens(swapped).objects(shown))
    });
}

/// The same parts, with a book about pins and a place for those whose device did not stop: for the scenes about these.
pub type Booked = Platform<
    &'static OffsetPhysMap,
    &'static FlatFrameTable<'static, Words>,
    &'static Frames,
    InterruptsOff,
    Ipi,
    Poll,
    Extras<(), Counters, &'static LedgerTable<128>, &'static QuarantineTable<8>>,
>;

/// Dates are microseconds.
pub static LEDGER: LedgerTable<128> = LedgerTable::new(time::now);
pub static QUARANTINE: QuarantineTable<8> = QuarantineTable::new(time::now);

pub fn booked() -> &'static Booked {
    static BOOKED: Once<Booked> = Once::new();
    BOOKED.call_once(|| {
        let of = kernel();
        // SAFETY: the parts of one kernel, all of them.
        let platform = unsafe { Platform::with_relax(of.phys_map(), of.frames(), of.source(), InterruptsOff, Ipi) };
        platform.with_extras(Extras::new().ledger(&LEDGER).quarantine(&QUARANTINE))
    })
}

pub fn kernel() -> &'static Kernel {
    KERNEL.get().expect("mm::init comes first")
}

/// Gives back a reference to a frame.
///
/// # Safety
/// The caller owns one.
pub unsafe fn put(pfn: Pfn) {
    let kernel = kernel();
    // SAFETY: the caller owns the reference, and the frame is freed if it was the last.
    let released = kernel.frames().frame(pfn).map(|frame| unsafe { frame.word() }.put());
    if let Some(Ok(Released::Last { order, .. })) = released {
        // SAFETY: that was the last reference.
        unsafe { kernel.source().free(pfn, order) };
    }
}

/// Lockless walks of this kernel: interrupts are off in all of its code, and a walk is
/// made only in the space that the CPU has loaded, so the shootdown that follows the
/// unlinking of a table waits for it.
#[derive(Debug)]
pub struct InterruptsOff;

// SAFETY: see above; a flush of pages whose tables go interrupts every CPU that has the root
// loaded, and a CPU in a walk neither takes interrupts nor polls.
unsafe impl ReadSide for InterruptsOff {
    type Guard<'a> = ();

    #[inline(always)]
    fn enter(&self) {}

    fn synchronize(&self) {}
}

#[derive(Debug)]
pub struct Ipi;

/// How long a flush waits before it begins, in microseconds: for scenes that want to
/// look into the time between a changed entry and the acknowledgement.
static DELAY: AtomicU64 = AtomicU64::new(0);

pub fn delay_flushes(microseconds: u64) {
    DELAY.store(microseconds, Ordering::Relaxed);
}

/// The delay, if one is set.
pub fn wait_before_flush() {
    let delay = DELAY.load(Ordering::Relaxed);
    if delay != 0 {
        time::spin_microseconds(delay);
    }
}

// SAFETY: the library's shootdown, perhaps later.
unsafe impl Shootdown for Ipi {
    fn flush(&self, root: Pfn, range: FlushRange) {
        wait_before_flush();
        SMP.flush(root, range);
    }

    fn leave_mm(&self, root: Pfn) {
        SMP.leave_mm(root);
    }
}

// SAFETY: the library's.
unsafe impl SwitchMm for Ipi {
    unsafe fn switch_mm(&self, root: Pfn) {
        // SAFETY: forwarded from the caller.
        unsafe { SMP.switch_mm(root) };
    }

    fn enter_lazy_tlb(&self) {
        SMP.enter_lazy_tlb();
    }

    fn is_current(&self, root: Pfn) -> bool {
        SMP.is_current(root)
    }
}
