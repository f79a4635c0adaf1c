//! What each CPU has to itself (found through GS) and what it shows to others.
//!
//! In the kernel GS always holds the address of this CPU's [`PerCpu`]; `swapgs`
//! exchanges it with the (unused) user value at the ring boundary.

use alloc::boxed::Box;
use core::{
    arch::asm,
    cell::{Cell, UnsafeCell},
    mem::offset_of,
    sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
};

use x86_64::{
    VirtAddr,
    registers::model_specific::{GsBase, KernelGsBase},
    structures::tss::TaskStateSegment,
};

pub const MAX_CPUS: usize = 16;

/// Read and written by the assembly of `trap.rs` at the offsets below.
#[repr(C, align(16))]
pub struct PerCpu {
    kernel_rsp: Cell<u64>,
    user_rsp: Cell<u64>,
    pub tss: UnsafeCell<TaskStateSegment>,
    index: u32,
    /// The last broadcast this CPU took part in.
    pub broadcast_seen: Cell<u64>,
    /// Turns this CPU spent waiting, for `poll.rs`.
    pub spins: Cell<u32>,
}

/// Stack pointer of [`crate::trap::enter`]'s caller while ring 3 runs.
pub const KERNEL_RSP: usize = offset_of!(PerCpu, kernel_rsp);
/// Where `syscall` puts the user's stack pointer for a moment.
pub const USER_RSP: usize = offset_of!(PerCpu, user_rsp);
/// `RSP0` of the task state segment: the end of the running thread's context, so
/// that the CPU itself stores the first five registers into the context.
pub const RSP0: usize = offset_of!(PerCpu, tss) + offset_of!(TaskStateSegment, privilege_stack_table);

/// The part of a CPU that other CPUs look at.
pub struct Shared {
    pub online: AtomicBool,
    pub apic_id: AtomicU32,
    /// In or on its way into `hlt`, for want of a thread.
    pub idle: AtomicBool,
}

static SHARED: [Shared; MAX_CPUS] =
    [const { Shared { online: AtomicBool::new(false), apic_id: AtomicU32::new(0), idle: AtomicBool::new(false) } };
        MAX_CPUS];

static READY: AtomicBool = AtomicBool::new(false);

/// Whether [`this`] may be used on the boot CPU. The others do not touch a lock
/// before their own block is there.
pub fn is_ready() -> bool {
    READY.load(Ordering::Relaxed)
}

/// No CPU with this or a higher index has been set up.
static KNOWN: AtomicUsize = AtomicUsize::new(0);

/// Gives the calling CPU its block. Once per CPU.
pub fn init(index: u32, apic_id: u32) {
    KNOWN.fetch_max(index as usize + 1, Ordering::SeqCst);
    let block = Box::leak(Box::new(PerCpu {
        kernel_rsp: Cell::new(0),
        user_rsp: Cell::new(0),
        tss: UnsafeCell::new(TaskStateSegment::new()),
        index,
        broadcast_seen: Cell::new(0),
        spins: Cell::new(0),
    }));
    GsBase::write(VirtAddr::from_ptr(block));
    KernelGsBase::write(VirtAddr::zero());
    READY.store(true, Ordering::Relaxed);
    let shared = shared(index as usize);
    shared.apic_id.store(apic_id, Ordering::Relaxed);
}

/// Whether this CPU is set up completely, interrupts included.
pub fn is_online() -> bool {
    shared(index()).online.load(Ordering::Relaxed)
}

/// Index of this CPU, `0..online`.
pub fn index() -> usize {
    let index: u32;
    // SAFETY: GS holds the address of this CPU's block, whose `index` is immutable.
    unsafe {
        asm!("mov {:e}, gs:[{}]", out(reg) index, const offset_of!(PerCpu, index),
             options(nostack, readonly, preserves_flags));
    }
    index as usize
}

/// Block of this CPU. It is not `Sync`, and kernel code never moves to another CPU,
/// so that the reference stays on the CPU it belongs to.
pub fn this() -> &'static PerCpu {
    // SAFETY: GS holds the address of a leaked block that only this CPU uses.
    unsafe { &*GsBase::read().as_ptr::<PerCpu>() }
}

pub fn shared(index: usize) -> &'static Shared {
    &SHARED[index]
}

/// All CPUs that take part, with their indices.
#[inline]
pub fn online() -> impl Iterator<Item = (usize, &'static Shared)> {
    let known = KNOWN.load(Ordering::SeqCst).min(MAX_CPUS);
    SHARED[..known].iter().enumerate().filter(|(_, cpu)| cpu.online.load(Ordering::SeqCst))
}
