//! Counts the locked instructions of some work, by executing it one instruction at a time: with the trap flag set the CPU
//! comes back after each, and the next is looked at before it runs.

use alloc::format;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::modes::Outcome;

const TRAP_FLAG: u64 = 1 << 8;
/// Longest instruction of the architecture.
const LONGEST: u64 = 15;

/// On the boot CPU alone: the mode that counts has no other work.
static STEPPING: AtomicBool = AtomicBool::new(false);
static LOCKED: AtomicU64 = AtomicU64::new(0);

/// Locked instructions that `work` executes.
#[inline(never)]
pub fn locked_instructions(work: &mut dyn FnMut()) -> u64 {
    LOCKED.store(0, Ordering::Relaxed);
    STEPPING.store(true, Ordering::Relaxed);
    // SAFETY: the trap comes to `look`, which returns behind it; the flags are otherwise as they were.
    unsafe { asm!("pushfq", "or qword ptr [rsp], {flag}", "popfq", flag = const TRAP_FLAG) };
    work();
    // SAFETY: as above.
    unsafe { asm!("pushfq", "and qword ptr [rsp], {others}", "popfq", others = const !TRAP_FLAG as i64) };
    STEPPING.store(false, Ordering::Relaxed);
    LOCKED.load(Ordering::Relaxed)
}

/// Counts the instruction at `rip`, which is about to run, if it is locked; false if nobody is stepping.
pub fn look(rip: u64) -> bool {
    if !STEPPING.load(Ordering::Relaxed) {
        return false;
    }
    // SAFETY: the CPU is about to fetch it, and what it does not fetch of these bytes is text as well.
    let byte = |at: u64| unsafe { ((rip + at) as *const u8).read() };
    if is_locked(byte) {
        // Not a locked instruction by itself: nothing else counts.
        LOCKED.store(LOCKED.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
    true
}

/// A `lock` among the prefixes, or an exchange with memory, which locks by itself. Intel SDM volume 2, "Instruction Format".
fn is_locked(byte: impl Fn(u64) -> u8) -> bool {
    let prefixes = (0..LONGEST).find(|at| !matches!(byte(*at), 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf2 | 0xf3));
    let Some(mut at) = prefixes else { return false };
    if byte(at) == 0xf0 {
        return true;
    }
    if matches!(byte(at), 0x40..=0x4f) {
        at += 1;
    }
    matches!(byte(at), 0x86 | 0x87) && byte(at + 1) < 0xc0
}

/// Whether the count is right for instructions that are known.
pub fn check() -> Outcome {
    let word = AtomicU64::new(0);
    let known = |work: &mut dyn FnMut(), wanted: u64| match locked_instructions(work) {
        counted if counted == wanted => Ok(()),
        counted => Err(format!("{counted} locked instructions instead of {wanted}")),
    };
    known(&mut || {}, 0)?;
    known(&mut || word.store(word.load(Ordering::Acquire) + 1, Ordering::Release), 0)?;
    known(&mut || _ = word.fetch_add(1, Ordering::Relaxed), 1)?;
    known(&mut || _ = word.swap(1, Ordering::Relaxed), 1)?;
    known(&mut || (0..100).for_each(|_| _ = word.compare_exchange(1, 1, Ordering::Relaxed, Ordering::Relaxed)), 100)
}
