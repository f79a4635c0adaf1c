//! What a program can ask of the device and of the memory system that it must not get.
//! Every answer is the precise error, and nothing stays pinned.

use pagepin_abi::{
    Call, DEVICE_PAGES, Error, FROM_DEVICE, LARGE_BYTES, MmCall, NOTES, PIN_LONGTERM, PIN_PLAIN, PIN_READ, PIN_WRITE,
    PROT_EXEC, PROT_NONE, PROT_WRITE, Status, TO_DEVICE, USER_END,
};

use crate::calls;

const PAGE: u64 = 4096;
const VMA: u64 = 0x2000_0000;
/// What the kernel gives out at most.
const PAGES_MAX: u64 = 1024;
const HANDLES_MAX: usize = 64;

const WRITABLE: u64 = VMA;
const READ_ONLY: u64 = VMA + PAGE;
const HIDDEN: u64 = VMA + 2 * PAGE;
const HOLE: u64 = VMA + 3 * PAGE;

fn pins_held() -> u64 {
    calls::mm(MmCall::PinsHeld as u64, 0, 0, 0).unwrap()
}

pub fn run() {
    calls::map(VMA, 3 * PAGE, PROT_WRITE).unwrap();
    for page in [WRITABLE, READ_ONLY, HIDDEN] {
        // SAFETY: mapped just now.
        unsafe { (page as *mut u8).write_volatile(1) };
    }
    calls::protect(READ_ONLY, PAGE, 0).unwrap();
    calls::protect(HIDDEN, PAGE, PROT_NONE).unwrap();
    ranges();
    rights();
    kinds();
    flags();
    handles();
    transfers();
    changes_of_memory();
    calls_of_the_memory_system();
    assert_eq!(pins_held(), 0);
}

const NOT_USER_MEMORY: &[(u64, u64)] = &[
    (VMA, 0),
    (u64::MAX, 0),
    (VMA, u64::MAX),
    (PAGE, u64::MAX - PAGE + 2),
    (u64::MAX - PAGE + 1, 2 * PAGE),
    (u64::MAX, 1),
    (u64::MAX, 2),
    (1 << 47, PAGE),
    (1 << 63, PAGE),
    ((1 << 47) - PAGE, 2 * PAGE),
    (0xffff_8000_0000_0000, PAGE),
    (0xffff_ffff_8000_0000, PAGE),
    (VMA, 1 << 48),
];

fn ranges() {
    for &(addr, len) in NOT_USER_MEMORY {
        for flags in [PIN_READ, PIN_WRITE, PIN_READ | PIN_PLAIN, PIN_WRITE | PIN_LONGTERM] {
            assert_eq!(calls::dev_pin(addr, len, flags), Err(Error::Invalid), "{addr:#x} {len:#x}");
        }
    }
    for len in [PAGES_MAX * PAGE + 1, 1 << 40, USER_END - VMA] {
        assert_eq!(calls::dev_pin(VMA, len, PIN_READ), Err(Error::Limit), "{len:#x}");
    }
    // A hole at once, behind a page that could be pinned, and at the very end.
    for (addr, len) in [(0, PAGE), (HOLE, 1), (USER_END - PAGE, PAGE), (HOLE, PAGES_MAX * PAGE)] {
        for flags in [PIN_READ, PIN_WRITE, PIN_READ | PIN_PLAIN, PIN_WRITE | PIN_PLAIN] {
            assert_eq!(calls::dev_pin(addr, len, flags), Err(Error::Fault), "{addr:#x} {len:#x}");
        }
    }
    calls::protect(HIDDEN, PAGE, PROT_WRITE).unwrap();
    for flags in [PIN_READ, PIN_READ | PIN_PLAIN] {
        assert_eq!(calls::dev_pin(VMA + 1, 3 * PAGE, flags), Err(Error::Fault));
    }
    calls::protect(HIDDEN, PAGE, PROT_NONE).unwrap();
    assert_eq!(pins_held(), 0);
}

fn rights() {
    for flags in [PIN_READ, PIN_WRITE, PIN_READ | PIN_PLAIN, PIN_WRITE | PIN_PLAIN] {
        assert_eq!(calls::dev_pin(HIDDEN, PAGE, flags), Err(Error::Denied));
        // From a page that could be pinned into one that cannot.
        assert_eq!(calls::dev_pin(HIDDEN - 1, 2, flags), Err(Error::Denied));
    }
    for flags in [PIN_WRITE, PIN_WRITE | PIN_LONGTERM, PIN_WRITE | PIN_PLAIN] {
        assert_eq!(calls::dev_pin(READ_ONLY, PAGE, flags), Err(Error::Denied));
        assert_eq!(calls::dev_pin(WRITABLE, 2 * PAGE, flags), Err(Error::Denied));
    }
    let pin = calls::dev_pin(WRITABLE, 2 * PAGE, PIN_READ).unwrap();
    assert_eq!(pins_held(), 2);
    calls::dev_unpin(pin).unwrap();
    assert_eq!(pins_held(), 0);
}

/// What cannot be pinned at all, and whose memory is nowhere.
fn kinds() {
    calls::map_device(HOLE, PAGE, 0, 0).unwrap();
    assert_eq!(calls::dev_pin(HOLE, PAGE, PIN_READ), Err(Error::NotSupported));
    assert_eq!(calls::dev_pin(HOLE, PAGE, PIN_WRITE), Err(Error::Denied));
    assert_eq!(calls::protect(HOLE, PAGE, PROT_WRITE), Err(Error::Denied));
    calls::unmap(HOLE, PAGE).unwrap();
    for pid in [0, u64::MAX] {
        assert_eq!(calls::dev_pin_remote(WRITABLE, PAGE, PIN_READ, pid), Err(Error::NotFound));
    }
}

fn flags() {
    for flags in
        [0, PIN_LONGTERM, PIN_PLAIN, PIN_LONGTERM | PIN_PLAIN, 16, 32, PIN_READ | 32, PIN_WRITE | 1 << 63, u64::MAX]
    {
        assert_eq!(calls::dev_pin(WRITABLE, PAGE, flags), Err(Error::Invalid), "{flags:#x}");
    }
}

fn handles() {
    let mut byte = [0];
    for handle in [0, 1, HANDLES_MAX as u64, 1 << 32, u64::MAX] {
        assert_eq!(calls::dev_unpin(handle), Err(Error::NotFound));
        assert_eq!(calls::dev_peek(handle, 0, &mut byte), Err(Error::NotFound));
        assert_eq!(calls::dev_poke(handle, 0, &byte), Err(Error::NotFound));
        assert_eq!(calls::dev_dma_start(handle, 0, 0, 1, TO_DEVICE), Err(Error::NotFound));
    }
    // As many as there may be, and one more, which leaves nothing behind.
    let mut pins = [0; HANDLES_MAX];
    pins.iter_mut().for_each(|pin| *pin = calls::dev_pin(WRITABLE, PAGE, PIN_WRITE).unwrap());
    assert_eq!(calls::dev_pin(WRITABLE, PAGE, PIN_WRITE), Err(Error::Limit));
    assert_eq!(pins_held(), HANDLES_MAX as u64);
    // A child has none of them.
    let child = calls::fork().unwrap();
    if child == 0 {
        assert_eq!(calls::dev_unpin(pins[0]), Err(Error::NotFound));
        assert_eq!(calls::dev_poke(pins[1], 0, &byte), Err(Error::NotFound));
        calls::exit(0);
    }
    assert_eq!(calls::wait(child), Ok(Status::Exited(0)));
    pins.iter().for_each(|&pin| calls::dev_unpin(pin).unwrap());
    assert_eq!(calls::dev_unpin(pins[0]), Err(Error::NotFound));
    assert_eq!(pins_held(), 0);
}

fn transfers() {
    let pin = calls::dev_pin(WRITABLE + 100, 200, PIN_READ).unwrap();
    let mut bytes = [0; 16];
    for offset in [185, 200, PAGE, u64::MAX - 8, u64::MAX] {
        assert_eq!(calls::dev_peek(pin, offset, &mut bytes), Err(Error::Invalid), "{offset:#x}");
    }
    calls::dev_peek(pin, 184, &mut bytes).unwrap();
    assert_eq!(calls::dev_poke(pin, 0, &bytes), Err(Error::Denied));
    assert_eq!(calls::dev_dma_start(pin, 0, 0, 16, FROM_DEVICE), Err(Error::Denied));
    assert_eq!(calls::dev_dma_start(pin, 0, 0, 16, 2), Err(Error::Invalid));
    for (offset, device_offset, len) in
        [(0, 0, 0), (0, 0, 201), (200, 0, 1), (1, 0, u64::MAX), (0, 4090, 6), (0, u64::MAX, 2), (u64::MAX, 0, 1)]
    {
        let result = calls::dev_dma_start(pin, offset, device_offset, len, TO_DEVICE);
        assert_eq!(result, Err(Error::Invalid), "{offset:#x} {device_offset:#x} {len:#x}");
    }
    // The last two bytes of the pin, but to and from where no memory is.
    for (call, buffer) in [(Call::DevPeek, HOLE), (Call::DevPeek, READ_ONLY), (Call::DevPeek, 0xffff_8000_0000_0000)] {
        assert_eq!(calls::decode(calls::raw(call as u64, [pin, 198, buffer, 2, 0])), Err(Error::Fault));
    }
    assert_eq!(calls::decode(calls::raw(Call::DevPeek as u64, [pin, 0, READ_ONLY, u64::MAX, 0])), Err(Error::Fault));
    assert_eq!(calls::decode(calls::raw(Call::DevPeek as u64, [pin, 0, WRITABLE, u64::MAX, 0])), Err(Error::Invalid));
    // One transfer at a time, and its memory cannot be taken away from it.
    calls::dev_dma_start(pin, 0, 0, 16, TO_DEVICE).unwrap();
    assert_eq!(calls::dev_dma_start(pin, 0, 0, 16, TO_DEVICE), Err(Error::Busy));
    assert_eq!(calls::dev_unpin(pin), Err(Error::Busy));
    calls::dev_dma_wait().unwrap();
    calls::dev_unpin(pin).unwrap();
    // Not even by the end of the process.
    let child = calls::fork().unwrap();
    if child == 0 {
        let pin = calls::dev_pin(WRITABLE, PAGE, PIN_WRITE).unwrap();
        calls::dev_dma_start(pin, 0, 0, 16, FROM_DEVICE).unwrap();
        calls::unmap(WRITABLE, PAGE).unwrap();
        calls::exit(0);
    }
    assert_eq!(calls::wait(child), Ok(Status::Exited(0)));
    assert_eq!(pins_held(), 0);
}

fn changes_of_memory() {
    for &(addr, len) in NOT_USER_MEMORY {
        assert_eq!(calls::protect(addr, len, 0), Err(Error::Invalid), "{addr:#x} {len:#x}");
        assert_eq!(calls::discard(addr, len), Err(Error::Invalid), "{addr:#x} {len:#x}");
        assert_eq!(calls::unmap(addr, len), Err(Error::Invalid), "{addr:#x} {len:#x}");
    }
    for prot in [8, PROT_NONE | PROT_WRITE, PROT_NONE | PROT_EXEC, u64::MAX] {
        assert_eq!(calls::protect(WRITABLE, PAGE, prot), Err(Error::Invalid));
        assert_eq!(calls::map(HOLE, PAGE, prot), Err(Error::Invalid));
    }
    assert_eq!(calls::protect(WRITABLE, 4 * PAGE, 0), Err(Error::NotFound));
    assert_eq!(calls::map(HIDDEN, 2 * PAGE, 0), Err(Error::Busy));
    for addr in [PAGE, VMA + PAGE, USER_END, u64::MAX, u64::MAX - LARGE_BYTES + 1] {
        assert_eq!(calls::map_large(addr, PROT_WRITE), Err(Error::Invalid), "{addr:#x}");
    }
    assert_eq!(calls::map_large(VMA, PROT_WRITE), Err(Error::Busy));
    for (len, page) in [(PAGE, DEVICE_PAGES), (2 * PAGE, DEVICE_PAGES - 1), (PAGE, u64::MAX), (u64::MAX, 0), (0, 0)] {
        assert_eq!(calls::map_device(HOLE, len, 0, page), Err(Error::Invalid), "{len:#x} {page:#x}");
    }
    // The page goes while it is pinned: who unmaps is told.
    let pin = calls::dev_pin(WRITABLE, PAGE, PIN_WRITE).unwrap();
    let left = calls::decode(calls::raw(Call::Discard as u64, [WRITABLE, PAGE, 0, 0, 0]));
    assert_eq!((left, pins_held()), (Ok(1), 1));
    calls::dev_unpin(pin).unwrap();
}

fn calls_of_the_memory_system() {
    for number in [64, 1 << 32, u64::MAX] {
        assert_eq!(calls::mm(number, 0, 0, 0), Err(Error::NoSuchCall));
    }
    for &(addr, len) in NOT_USER_MEMORY {
        assert_eq!(calls::mm(MmCall::Picture as u64, addr, len, u64::MAX), Err(Error::Invalid));
        if addr != VMA && addr != PAGE && addr < 1 << 47 {
            continue;
        }
        let outside = addr >= 1 << 47;
        assert_eq!(calls::mm(MmCall::Frame as u64, addr, len, 0).is_err(), outside, "{addr:#x}");
    }
    assert_eq!(calls::mm(MmCall::Frame as u64, HOLE, 0, 0), Ok(0));
    for twin in [3, u64::MAX] {
        assert_eq!(calls::mm(MmCall::Twin as u64, twin, 0, 0), Err(Error::Invalid));
    }
    for slot in [NOTES, u64::MAX] {
        assert_eq!((calls::note(slot, 1), calls::read_note(slot)), (Err(Error::Invalid), Err(Error::Invalid)));
    }
}
