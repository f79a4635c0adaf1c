//! How a worker reaches its memory: by loads and stores, through a second mapping of
//! what is the device's, and through pins.

use core::ops::Range;

use pagepin_abi::{DEVICE_PAGES, Error, PROT_NONE};

use super::layout::{self, BASES, PAGE, WORDS};
use crate::calls;

/// The worker's share of device memory once more, for reading only, whatever happens to its pages.
const WINDOW: u64 = 0x3a00_0000;
/// What the storm can have workers for.
pub const WORKERS_MAX: usize = DEVICE_PAGES as usize / BASES;

/// The page of device memory that a worker maps as this page.
pub fn device_page(worker: u64, page: usize) -> u64 {
    worker * BASES as u64 + page as u64
}

/// Clears the worker's share of device memory, and maps it for [`load_device`].
pub fn open_window(worker: u64) {
    let bytes = BASES as u64 * PAGE;
    calls::map_device(WINDOW, bytes, pagepin_abi::PROT_WRITE, device_page(worker, 0)).unwrap();
    for word in 0..BASES * WORDS {
        // SAFETY: just mapped, and nothing else uses it yet.
        unsafe { (WINDOW as *mut u64).add(word).write_volatile(0) };
    }
    // A right once given up does not come back to memory mapped without it.
    calls::unmap(WINDOW, bytes).unwrap();
    calls::map_device(WINDOW, bytes, 0, device_page(worker, 0)).unwrap();
    assert_eq!(calls::protect(WINDOW, bytes, pagepin_abi::PROT_WRITE), Err(Error::Denied));
    assert_eq!(calls::map_device(WINDOW, bytes, PROT_NONE, device_page(worker, 0)), Err(Error::Busy));
}

/// A load from what is, or would be, mapped as this page.
pub fn load_device(page: usize, index: usize) -> u64 {
    // SAFETY: the window stays mapped.
    unsafe { (WINDOW as *const u64).add(page * WORDS + index).read_volatile() }
}

/// A load of this program from a page of the VMA.
pub fn load(page: usize, index: usize) -> u64 {
    // SAFETY: the worker reads pages only where its model says that they are readable.
    unsafe { ((layout::address(page) + 8 * index as u64) as *const u64).read_volatile() }
}

/// A store of this program.
pub fn store(page: usize, place: usize, word: u64) {
    // SAFETY: as for loads; the VMA holds no object.
    unsafe { (layout::place_address(page, place) as *mut u64).write_volatile(word) };
}

/// Makes a call again that failed for want of memory: the kernel refuses some large blocks on purpose. What
/// operations come next is not to depend on whose it refused.
pub fn insist<T>(mut call: impl FnMut() -> calls::Result<T>) -> calls::Result<T> {
    loop {
        match call() {
            Err(Error::NoMemory) => calls::yield_now(),
            other => return other,
        }
    }
}

/// A pin of a page, or of a part of a large one.
#[derive(Clone, Copy)]
pub struct Pin {
    handle: u64,
    pub page: usize,
    first: usize,
    end: usize,
}

impl Pin {
    /// Of the words `part` of a page: whole base pages.
    pub fn new(page: usize, part: &Range<usize>, flags: u64) -> calls::Result<Self> {
        let (address, bytes) = (layout::address(page) + 8 * part.start as u64, 8 * part.len() as u64);
        let handle = insist(|| calls::dev_pin(address, bytes, flags))?;
        Ok(Self { handle, page, first: part.start, end: part.end })
    }

    pub fn handle(&self) -> u64 {
        self.handle
    }

    pub fn part(&self) -> Range<usize> {
        self.first..self.end
    }

    /// Whether the place lies in what is pinned.
    pub fn has(&self, place: usize) -> bool {
        self.part().contains(&layout::index(self.page, place))
    }

    /// Writes a place as a device does.
    pub fn poke(&self, place: usize, word: u64) {
        let offset = layout::index(self.page, place) - self.first;
        calls::dev_poke(self.handle, 8 * offset as u64, &word.to_le_bytes()).unwrap();
    }

    /// Loads words as a device does.
    pub fn view(&self) -> impl FnMut(usize) -> u64 + use<> {
        let (pin, mut base_page) = (*self, [0; WORDS]);
        if !layout::is_large(pin.page) {
            peek(pin.handle, 0, &mut base_page);
        }
        move |index| {
            if layout::is_large(pin.page) {
                let mut bytes = [0; 8];
                calls::dev_peek(pin.handle, 8 * (index - pin.first) as u64, &mut bytes).unwrap();
                u64::from_le_bytes(bytes)
            } else {
                base_page[index]
            }
        }
    }

    pub fn release(self) {
        calls::dev_unpin(self.handle).unwrap();
    }
}

/// Reads a base page through a pin.
pub fn peek(pin: u64, offset: u64, words: &mut [u64; WORDS]) {
    // SAFETY: any bytes are words, and nothing is left over.
    let (_, bytes, _) = unsafe { words.align_to_mut::<u8>() };
    calls::dev_peek(pin, offset, bytes).unwrap();
}
