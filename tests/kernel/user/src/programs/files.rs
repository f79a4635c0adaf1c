//! A file that is mapped, shared and private; the disk past the cache; and memory that goes to swap. The disk holds a pattern at first, of which these
//! programs make the complement, in places that whoever started the machine knows.

use pagepin_abi::{
    DIRECT_PAGES, FILE_PAGES, FROM_DEVICE, MmCall, PIN_READ, PIN_WRITE, PROT_WRITE, SHARED_PAGES, Status, TO_DEVICE,
};

use crate::calls;

const PAGE: u64 = 4096;
const FILE: u64 = 0x3000_0000;
const COPY: u64 = 0x3100_0000;
const DATA: u64 = 0x3200_0000;
/// One page of the file is written by a device, the others behind it by a child.
const BY_DEVICE: u64 = SHARED_PAGES;
const BY_CHILD: core::ops::Range<u64> = SHARED_PAGES + 1..SHARED_PAGES + 4;

/// What the disk holds at first in page `page`, in the byte number `at`.
fn on_disk(page: u64, at: u64) -> u8 {
    ((page * PAGE + at) % 251) as u8
}

fn load(addr: u64) -> u8 {
    // SAFETY: the callers have mapped the address.
    unsafe { (addr as *const u8).read_volatile() }
}

fn store(addr: u64, byte: u8) {
    // SAFETY: as above.
    unsafe { (addr as *mut u8).write_volatile(byte) };
}

/// Whether each byte of a page is what it should be.
fn holds(addr: u64, byte: impl Fn(u64) -> u8) -> bool {
    (0..PAGE).all(|at| load(addr + at) == byte(at))
}

fn fill(addr: u64, byte: impl Fn(u64) -> u8) {
    (0..PAGE).for_each(|at| store(addr + at, byte(at)));
}

fn end_well(child: u64) {
    assert_eq!(calls::wait(child), Ok(Status::Exited(0)));
}

pub fn shared_and_private() {
    calls::map_file(FILE, FILE_PAGES * PAGE, PROT_WRITE, 0, true).unwrap();
    calls::map_file(COPY, FILE_PAGES * PAGE, PROT_WRITE, 0, false).unwrap();
    for page in 0..SHARED_PAGES {
        assert!(holds(COPY + page * PAGE, |at| on_disk(page, at)));
        fill(FILE + page * PAGE, |at| !on_disk(page, at));
        assert!(holds(COPY + page * PAGE, |at| !on_disk(page, at)), "it was not copied yet");
    }
    fill(COPY, |_| 7);
    assert!(holds(FILE, |at| !on_disk(0, at)));
    let child = calls::fork().unwrap();
    if child == 0 {
        assert!(holds(COPY, |_| 7));
        fill(COPY + PAGE, |_| 8);
        for page in BY_CHILD {
            fill(FILE + page * PAGE, |at| !on_disk(page, at));
        }
        calls::exit(0);
    }
    end_well(child);
    assert!(holds(COPY + PAGE, |at| !on_disk(1, at)));
    for page in BY_CHILD {
        assert!(holds(FILE + page * PAGE, |at| !on_disk(page, at)));
    }
    // A device writes a page that is written back meanwhile, from a copy, and once more when it is done.
    let page = FILE + BY_DEVICE * PAGE;
    let pin = calls::dev_pin(page, PAGE, PIN_WRITE).unwrap();
    let mut bytes = [0; PAGE as usize];
    for (byte, at) in bytes.iter_mut().zip(0..) {
        *byte = !on_disk(BY_DEVICE, at);
    }
    calls::sync_file().unwrap();
    calls::dev_poke(pin, 0, &bytes).unwrap();
    calls::sync_file().unwrap();
    assert!(holds(page, |at| !on_disk(BY_DEVICE, at)));
    calls::dev_unpin(pin).unwrap();
    calls::sync_file().unwrap();
}

/// Children that read and write the disk at the same time, each a part of it, by memory that is pinned.
pub fn direct() {
    const CHILDREN: u64 = 4;
    const EACH: u64 = DIRECT_PAGES / 2 / CHILDREN;
    let children = [0, 1, 2, 3].map(|number| {
        let child = calls::fork().unwrap();
        if child == 0 {
            direct_part(number * EACH, EACH);
            calls::exit(0);
        }
        child
    });
    children.into_iter().for_each(end_well);
}

fn direct_part(first: u64, pages: u64) {
    calls::map(DATA, pages * PAGE, PROT_WRITE).unwrap();
    let pin = calls::dev_pin(DATA, pages * PAGE, PIN_WRITE).unwrap();
    // The child of a process that has memory pinned has other memory.
    let child = calls::fork().unwrap();
    if child == 0 {
        fill(DATA, |_| 9);
        calls::exit(0);
    }
    calls::transfer_file(pin, first, FROM_DEVICE).unwrap();
    end_well(child);
    calls::dev_unpin(pin).unwrap();
    for page in 0..pages {
        let on_disk = |at| on_disk(FILE_PAGES + first + page, at);
        assert!(holds(DATA + page * PAGE, on_disk));
        fill(DATA + page * PAGE, |at| !on_disk(at));
    }
    let pin = calls::dev_pin(DATA, pages * PAGE, PIN_READ).unwrap();
    calls::transfer_file(pin, DIRECT_PAGES / 2 + first, TO_DEVICE).unwrap();
    calls::dev_unpin(pin).unwrap();
}

/// Processes whose memory goes to swap again and again, while they use it.
pub fn swap() {
    const CHILDREN: u64 = 3;
    const PAGES: u64 = 24;
    let children = [0; CHILDREN as usize].map(|_| {
        let child = calls::fork().unwrap();
        if child == 0 {
            swap_part(PAGES);
            calls::exit(0);
        }
        child
    });
    swap_part(PAGES);
    children.into_iter().for_each(end_well);
}

fn swap_part(pages: u64) {
    let byte = |page: u64, round: u64| move |at: u64| (at * 3 + page * 17 + round * 31) as u8;
    calls::map(DATA, pages * PAGE, PROT_WRITE).unwrap();
    (0..pages).for_each(|page| fill(DATA + page * PAGE, byte(page, 0)));
    for round in 0..2 {
        assert_eq!(calls::swap_out(DATA, pages * PAGE), Ok(pages));
        assert_eq!(calls::mm(MmCall::Frame as u64, DATA, 0, 0), Ok(0), "nothing is mapped");
        (0..pages).for_each(|page| assert!(holds(DATA + page * PAGE, byte(page, round))));
        (0..pages).for_each(|page| fill(DATA + page * PAGE, byte(page, round + 1)));
    }
    // A child has what is in swap, too; a page that is pinned stays.
    let pin = calls::dev_pin(DATA, PAGE, PIN_WRITE).unwrap();
    assert_eq!(calls::swap_out(DATA, pages * PAGE), Ok(pages - 1));
    let child = calls::fork().unwrap();
    if child == 0 {
        (1..pages).for_each(|page| assert!(holds(DATA + page * PAGE, byte(page, 2))));
        fill(DATA + PAGE, |_| 1);
        calls::exit(0);
    }
    calls::dev_poke(pin, 0, &[77; 16]).unwrap();
    assert!(holds(DATA, |at| if at < 16 { 77 } else { byte(0, 2)(at) }));
    end_well(child);
    (1..pages).for_each(|page| assert!(holds(DATA + page * PAGE, byte(page, 2))));
    calls::dev_unpin(pin).unwrap();
}
