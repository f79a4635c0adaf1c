//! Copies that the kernel makes into and out of this program: their faults take the same
//! way through the library as those of the program itself.

use pagepin_abi::{Error, FrameBits, MmCall, PIN_READ, PIN_WRITE, PROT_NONE, PROT_WRITE, Status};

use crate::calls;

const PAGE: u64 = 4096;
/// What is pinned, and copied from or to.
const DEVICE: u64 = 0x2000_0000;
const TARGET: u64 = DEVICE + 16 * PAGE;

fn load(addr: u64) -> u8 {
    // SAFETY: the callers have mapped the address.
    unsafe { (addr as *const u8).read_volatile() }
}

fn fill(addr: u64, byte: u8) {
    // SAFETY: as above, and writable; no object is there.
    (addr..addr + PAGE).for_each(|addr| unsafe { (addr as *mut u8).write_volatile(byte) });
}

fn is_all(addr: u64, byte: u8) -> bool {
    (addr..addr + PAGE).all(|addr| load(addr) == byte)
}

fn frame(addr: u64) -> FrameBits {
    FrameBits::from_bits(calls::mm(MmCall::Frame as u64, addr, 0, 0).unwrap())
}

/// The kernel writes `len` bytes to `to`.
fn kernel_writes(pin: u64, to: u64, len: u64) -> calls::Result {
    calls::decode(calls::raw(pagepin_abi::Call::DevPeek as u64, [pin, 0, to, len, 0])).map(drop)
}

/// The kernel reads `len` bytes from `from`.
fn kernel_reads(pin: u64, from: u64, len: u64) -> calls::Result {
    calls::decode(calls::raw(pagepin_abi::Call::DevPoke as u64, [pin, 0, from, len, 0])).map(drop)
}

pub fn run() {
    calls::map(DEVICE, PAGE, PROT_WRITE).unwrap();
    fill(DEVICE, b'd');
    let pin = calls::dev_pin(DEVICE, PAGE, PIN_WRITE).unwrap();
    untouched_pages(pin);
    shared_pages(pin);
    refused_pages(pin);
    calls::dev_unpin(pin).unwrap();
}

fn untouched_pages(pin: u64) {
    calls::map(TARGET, 4 * PAGE, PROT_WRITE).unwrap();
    // Read: the zero frame, and nothing of its own.
    kernel_reads(pin, TARGET, PAGE).unwrap();
    assert!(is_all(DEVICE, 0) && frame(TARGET).present && !frame(TARGET).writable);
    fill(DEVICE, b'd');
    // Written where nothing was, and where the zero frame was.
    for target in [TARGET + PAGE, TARGET] {
        kernel_writes(pin, target, PAGE).unwrap();
        assert!(is_all(target, b'd') && frame(target).exclusive);
    }
    // Across the edge of two pages.
    kernel_writes(pin, TARGET + 3 * PAGE - 1, 2).unwrap();
    assert_eq!([load(TARGET + 3 * PAGE - 1), load(TARGET + 3 * PAGE)], *b"dd");
    assert!(load(TARGET + 2 * PAGE) == 0 && load(TARGET + 3 * PAGE + 1) == 0);
    calls::unmap(TARGET, 4 * PAGE).unwrap();
}

fn shared_pages(pin: u64) {
    calls::map(TARGET, 2 * PAGE, PROT_WRITE).unwrap();
    fill(TARGET, b'p');
    fill(TARGET + PAGE, b'p');
    let child = calls::fork().unwrap();
    if child == 0 {
        let own = calls::dev_pin(DEVICE, PAGE, PIN_READ).unwrap();
        kernel_writes(own, TARGET, PAGE).unwrap();
        assert!(is_all(TARGET, b'd') && is_all(TARGET + PAGE, b'p'));
        calls::exit(0);
    }
    assert_eq!(calls::wait(child), Ok(Status::Exited(0)));
    assert!(is_all(TARGET, b'p'), "the child's copy went into the parent's page");
    // A page that is pinned stays where it is when the kernel writes it after a fork.
    let target = calls::dev_pin(TARGET, PAGE, PIN_READ).unwrap();
    let child = calls::fork().unwrap();
    if child == 0 {
        let _ = calls::sleep(u64::MAX);
    }
    kernel_writes(pin, TARGET, PAGE).unwrap();
    let mut seen = [0; 2];
    calls::dev_peek(target, PAGE - 2, &mut seen).unwrap();
    assert_eq!(seen, *b"dd");
    calls::dev_unpin(target).unwrap();
    calls::unmap(TARGET, 2 * PAGE).unwrap();
}

fn refused_pages(pin: u64) {
    calls::map(TARGET, 3 * PAGE, PROT_WRITE).unwrap();
    (0..3).for_each(|page| fill(TARGET + page * PAGE, b'r'));
    calls::protect(TARGET + PAGE, PAGE, 0).unwrap();
    assert_eq!(kernel_writes(pin, TARGET + PAGE, 1), Err(Error::Fault));
    kernel_reads(pin, TARGET + PAGE, 1).unwrap();
    // As much as goes, and then the error.
    assert_eq!(kernel_writes(pin, TARGET + PAGE - 1, 2), Err(Error::Fault));
    assert!(is_all(TARGET + PAGE, b'r'));
    calls::protect(TARGET + PAGE, PAGE, PROT_NONE).unwrap();
    assert_eq!(kernel_reads(pin, TARGET + PAGE, 1), Err(Error::Fault));
    assert_eq!(calls::write(TARGET + PAGE, 1), Err(Error::Fault));
    calls::unmap(TARGET + PAGE, PAGE).unwrap();
    assert_eq!(kernel_reads(pin, TARGET + PAGE, 1), Err(Error::Fault));
    calls::unmap(TARGET, 3 * PAGE).unwrap();
}
