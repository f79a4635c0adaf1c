//! Memory of this process.

use std::ffi::c_void;
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

const LARGE: usize = 2 << 20;
const PAGE: usize = 4096;

/// Private memory, aligned to 2 MiB. Unmapped when dropped.
pub(crate) struct Region {
    start: NonNull<u8>,
    length: usize,
}

impl Region {
    /// That nobody has touched, in pages of 4 KiB, or in large ones if the host gives any.
    pub(crate) fn new(length: usize, large: bool) -> Self {
        let (read_write, private) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping, wherever there is room.
        let memory = unsafe { mmap_anonymous(ptr::null_mut(), length + LARGE, read_write, private) };
        let memory = memory.expect("memory").cast::<u8>();
        let before = memory.addr().next_multiple_of(LARGE) - memory.addr();
        let start = memory.wrapping_add(before);
        let advice = if large { Advice::LinuxHugepage } else { Advice::LinuxNoHugepage };
        // SAFETY: what lies before and after the region in the new mapping is nobody's.
        unsafe {
            if before != 0 {
                munmap(memory.cast(), before).expect("a mapping");
            }
            if before != LARGE {
                munmap(start.wrapping_add(length).cast(), LARGE - before).expect("a mapping");
            }
            // A host without large pages refuses, and has none.
            let _ = madvise(start.cast(), length, advice);
        }
        Self { start: NonNull::new(start).expect("an address"), length }
    }

    pub(crate) fn start(&self) -> *mut c_void {
        self.start.as_ptr().cast()
    }

    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Writes to each page, one fault each if it is not there.
    pub(crate) fn write_all(&self) {
        self.write_in_order(|page| page);
    }

    pub(crate) fn write_in_order(&self, order: impl Fn(u64) -> u64) {
        for page in 0..(self.length / PAGE) as u64 {
            // SAFETY: within the region, which is writable and this process's.
            unsafe { self.start.add(order(page) as usize * PAGE).write_volatile(1) }
        }
    }

    /// Forgets that it is to be unmapped.
    fn leak(self) -> NonNull<u8> {
        let start = self.start;
        std::mem::forget(self);
        start
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: a mapping of this length, which nobody uses any more.
        unsafe { munmap(self.start(), self.length).expect("a mapping") };
    }
}

/// Zeroed memory for ever, all of it there, in large pages if the host gives any: as a kernel maps its own.
pub(crate) fn populated(length: u64) -> NonNull<u8> {
    let region = Region::new((length as usize).next_multiple_of(LARGE), true);
    for page in 0..region.length / PAGE {
        // SAFETY: within the region.
        unsafe { region.start.add(page * PAGE).write_volatile(0) }
    }
    region.leak()
}
