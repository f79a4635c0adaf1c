//! Counting where only one CPU counts.

/// Adds to a total in one instruction that reads and writes: no interrupt comes between, and no bus lock is paid for CPUs
/// that do not come.
///
/// # Safety
/// `total` is that of an atomic of 8 bytes, alive. Other CPUs may load it meanwhile: to them this is a relaxed load and a
/// relaxed store.
#[inline(always)]
pub(crate) unsafe fn add_on_this_cpu(total: *mut u64, count: u64) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller vouches for the place, of which exactly 8 bytes are touched.
    unsafe {
        core::arch::asm!(
            "add qword ptr [{total}], {count}",
            total = in(reg) total,
            count = in(reg) count,
            options(nostack),
        );
    }
    // Where there is no such instruction, an atomic one.
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: the caller vouches for the place.
    unsafe { core::sync::atomic::AtomicU64::from_ptr(total) }.fetch_add(count, core::sync::atomic::Ordering::Relaxed);
}
