//! What page faults cost from ring 3 to ring 3, per page. Each figure is the difference
//! of two sizes, so that what is not per page drops out, less the loop around the
//! access, less the copying or clearing itself (its cost is the argument).

use core::arch::x86_64::_rdtsc;

use pagepin_abi::{PROT_WRITE, Status};

use crate::{calls, println};

const VMA: u64 = 0x4000_0000;
const PAGE: u64 = 4096;
const SMALL: u64 = 512;
const LARGE: u64 = 1536;

/// Ticks for one store to each of `pages` pages.
fn touch(from_page: u64, pages: u64) -> u64 {
    let first = VMA + from_page * PAGE;
    // SAFETY: every x86_64 has the instruction, and ring 3 may use it.
    let start = unsafe { _rdtsc() };
    for page in 0..pages {
        // SAFETY: the VMA is mapped for writing.
        unsafe { ((first + page * PAGE) as *mut u64).write_volatile(page) };
    }
    // SAFETY: as above.
    unsafe { _rdtsc() - start }
}

/// Ticks per page, in hundredths, of stores that fault, without the loop.
fn per_page() -> u64 {
    let faulting = touch(SMALL, LARGE) - touch(0, SMALL);
    let plain = touch(SMALL, LARGE) - touch(0, SMALL);
    (faulting - plain) * 100 / (LARGE - SMALL)
}

fn report(key: &str, hundredths: u64) {
    println!("@bench {key} {}.{:02}", hundredths / 100, hundredths % 100);
}

pub fn measure(copy_ticks: u64) {
    calls::map(VMA, (SMALL + LARGE) * PAGE, PROT_WRITE).unwrap();
    // Clearing takes as many steps as copying, 8 bytes at a time.
    report("fault_zero_net", per_page() - copy_ticks * 100);
    let child = calls::fork().unwrap();
    if child == 0 {
        report("fault_copy_net", per_page() - copy_ticks * 100);
        calls::exit(0);
    }
    assert_eq!(calls::wait(child), Ok(Status::Exited(0)));
    report("fault_reuse", per_page());
}
