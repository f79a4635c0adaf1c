//! Memory calls of one process, and fork.

use pagepin_abi::{Error, PROT_WRITE, Status};

use crate::calls;

const VMA: u64 = 0x2000_0000;
const PAGE: u64 = 4096;

fn store(addr: u64, value: u64) {
    // SAFETY: the callers have mapped the address, or want the fault.
    unsafe { (addr as *mut u64).write_volatile(value) };
}

fn load(addr: u64) -> u64 {
    // SAFETY: as above.
    unsafe { (addr as *const u64).read_volatile() }
}

/// Whether a child that makes this access is killed by a page fault.
fn faults(access: impl FnOnce()) -> bool {
    let child = calls::fork().unwrap();
    if child == 0 {
        access();
        calls::exit(0);
    }
    calls::wait(child) == Ok(Status::Killed(14))
}

pub fn calls() {
    calls::map(VMA, 4 * PAGE, PROT_WRITE).unwrap();
    assert_eq!(calls::map(VMA + PAGE, PAGE, 0), Err(Error::Busy));
    for page in 0..4 {
        assert_eq!(load(VMA + page * PAGE), 0);
        store(VMA + page * PAGE, page + 1);
    }
    calls::discard(VMA + PAGE, PAGE).unwrap();
    assert_eq!(load(VMA + PAGE), 0);
    assert_eq!(load(VMA), 1);
    calls::protect(VMA + 2 * PAGE, PAGE, 0).unwrap();
    assert_eq!(load(VMA + 2 * PAGE), 3);
    assert!(faults(|| store(VMA + 2 * PAGE, 1)));
    assert!(!faults(|| store(VMA, 1)));
    calls::unmap(VMA + 3 * PAGE, PAGE).unwrap();
    assert!(faults(|| {
        load(VMA + 3 * PAGE);
    }));
    assert_eq!(calls::write(VMA + 3 * PAGE, 8), Err(Error::Fault));
}

pub fn fork() {
    calls::map(VMA, PAGE, PROT_WRITE).unwrap();
    store(VMA, 1);
    let child = calls::fork().unwrap();
    if child == 0 {
        assert_eq!(load(VMA), 1);
        store(VMA, 2);
        calls::exit(7);
    }
    assert_eq!(calls::wait(child), Ok(Status::Exited(7)));
    assert_eq!(load(VMA), 1);
    assert_eq!(calls::wait(child), Err(Error::NotFound));
}
