//! Copying and clearing on a host that is not x86_64, where host tests run, and under a checker of threads, to which string
//! instructions are invisible (`pagepin_portable_copy`).
//!
//! As with string instructions, what is not the caller's own may be accessed by others at the same moment: it is accessed
//! by relaxed atomics, so that nothing here races in the sense of the language. All of them are of one byte, since atomics
//! of two sizes on one place would race after all: a frame is copied while somebody writes a byte of it through a pin. Also
//! compiled for the unit tests, which hold this and the string instructions to the same.

use core::sync::atomic::{AtomicU8, Ordering};

/// Copies `bytes` (a multiple of 8) from `from` to `to`.
///
/// # Safety
/// Both must be mapped, 8-byte aligned and valid for `bytes`, and must not overlap; `to` is not accessed by anyone else.
pub(crate) unsafe fn copy_frames(from: *const u8, to: *mut u8, bytes: u64) {
    let from = from.cast_mut();
    for offset in 0..bytes as usize {
        // SAFETY: the caller vouches for both blocks, and `offset` lies within them; who writes the source meanwhile is
        // hardware, user code or an atomic access of one byte.
        let byte = unsafe { AtomicU8::from_ptr(from.add(offset)) }.load(Ordering::Relaxed);
        // SAFETY: as above; nobody else accesses the target.
        unsafe { to.add(offset).write(byte) };
    }
}

/// Reads `to.len()` bytes of any alignment at `from`. Others may access them meanwhile.
///
/// # Safety
/// `from` must be mapped and valid for as many bytes as `to` has, none of which lies in `to`.
pub(crate) unsafe fn read_bytes(from: *const u8, to: &mut [u8]) {
    let from = from.cast_mut();
    for (offset, byte) in to.iter_mut().enumerate() {
        // SAFETY: the caller vouches for the source, in which `offset` lies; who else accesses it does so atomically, or is
        // hardware or user code.
        *byte = unsafe { AtomicU8::from_ptr(from.add(offset)) }.load(Ordering::Relaxed);
    }
}

/// Writes `from` to as many bytes of any alignment at `to`. Others may access those meanwhile.
///
/// # Safety
/// `to` must be mapped and valid for as many bytes as `from` has, none of which lies in `from`.
pub(crate) unsafe fn write_bytes(from: &[u8], to: *mut u8) {
    for (offset, byte) in from.iter().enumerate() {
        // SAFETY: the caller vouches for the target, in which `offset` lies; who else accesses it does so atomically, or is
        // hardware or user code.
        unsafe { AtomicU8::from_ptr(to.add(offset)) }.store(*byte, Ordering::Relaxed);
    }
}

/// Clears `bytes` (a multiple of 8) at `to`.
///
/// # Safety
/// `to` must be mapped, 8-byte aligned and valid for `bytes`, and is not accessed by anyone else.
pub(crate) unsafe fn zero_frames(to: *mut u8, bytes: u64) {
    // SAFETY: the caller vouches for the block, and that it is nobody else's.
    unsafe { to.cast::<u64>().write_bytes(0, (bytes / 8) as usize) };
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    const WORDS: usize = 512;
    /// Beside the target on both sides, and not to be touched.
    const MARK: u64 = 0xdead_beef_dead_beef;

    type Copy = unsafe fn(*const u8, *mut u8, u64);
    type Clear = unsafe fn(*mut u8, u64);

    /// What is in memory after a copy between two marks, and after the copy has been cleared.
    fn run(copy: Copy, clear: Clear) -> [Vec<u64>; 2] {
        let source: Vec<u64> = (0..WORDS as u64).map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let mut target = vec![MARK; WORDS + 2];
        let (from, bytes) = (source.as_ptr().cast(), 8 * WORDS as u64);
        // SAFETY: both are `bytes` long, aligned for u64 and this test's own.
        unsafe { copy(from, target[1..].as_mut_ptr().cast(), bytes) };
        assert_eq!(target[1..=WORDS], source[..]);
        let copied = target.clone();
        // SAFETY: as above.
        unsafe { clear(target[1..].as_mut_ptr().cast(), bytes) };
        [copied, target]
    }

    #[test]
    fn frames_are_copied_and_cleared_to_the_last_byte_and_no_further() {
        for [copied, cleared] in [run(super::copy_frames, super::zero_frames), native()] {
            assert_eq!((copied[0], copied[WORDS + 1]), (MARK, MARK));
            assert_eq!((cleared[0], cleared[WORDS + 1]), (MARK, MARK));
            assert!(cleared[1..=WORDS].iter().all(|word| *word == 0));
        }
    }

    /// With what the library uses on this host.
    fn native() -> [Vec<u64>; 2] {
        run(crate::arch::copy_frames, crate::arch::zero_frames)
    }

    type Read = unsafe fn(*const u8, &mut [u8]);
    type Write = unsafe fn(&[u8], *mut u8);

    #[test]
    fn bytes_are_read_and_written_wherever_they_begin_and_end() {
        let ways: [(Read, Write); 2] =
            [(super::read_bytes, super::write_bytes), (crate::arch::read_bytes, crate::arch::write_bytes)];
        let shared: Vec<u8> = (1..=40).collect();
        for (read, write) in ways {
            for (first, length) in [(0, 40), (3, 17), (9, 1), (40, 0)] {
                let (mut own, mut other) = (vec![0; length], vec![0; shared.len()]);
                // SAFETY: `first` and `length` lie within both, which are this test's own.
                unsafe {
                    read(shared[first..].as_ptr(), &mut own);
                    write(&own, other[first..].as_mut_ptr());
                }
                let (end, mut expected) = (first + length, vec![0; shared.len()]);
                expected[first..end].copy_from_slice(&shared[first..end]);
                assert_eq!(own, shared[first..end]);
                assert_eq!(other, expected);
            }
        }
    }
}
