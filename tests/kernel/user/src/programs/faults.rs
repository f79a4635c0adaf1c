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

#[derive(Clone, Copy)]
enum Touch {
    Load,
    Store,
}

/// Ticks for one access to each of `pages` pages.
#[inline(always)]
fn touch(from_page: u64, pages: u64, how: Touch) -> u64 {
    let first = VMA + from_page * PAGE;
    // SAFETY: every x86_64 has the instruction, and ring 3 may use it.
    let start = unsafe { _rdtsc() };
    for page in 0..pages {
        let at = (first + page * PAGE) as *mut u64;
        // SAFETY: the VMA is mapped for writing.
        unsafe {
            match how {
                Touch::Load => _ = at.read_volatile(),
                Touch::Store => at.write_volatile(page),
            }
        }
    }
    // SAFETY: as above.
    unsafe { _rdtsc() - start }
}

/// Ticks per page, in hundredths, of accesses that fault, without the loop.
#[inline(always)]
fn per_page(how: Touch) -> u64 {
    let faulting = touch(SMALL, LARGE, how) - touch(0, SMALL, how);
    let plain = touch(SMALL, LARGE, how) - touch(0, SMALL, how);
    (faulting - plain) * 100 / (LARGE - SMALL)
}

fn report(key: &str, hundredths: u64) {
    println!("@bench {key} {}.{:02}", hundredths / 100, hundredths % 100);
}

pub fn measure(copy_ticks: u64) {
    calls::map(VMA, (SMALL + LARGE) * PAGE, PROT_WRITE).unwrap();
    // Clearing takes as many steps as copying, 8 bytes at a time.
    report("fault_zero_net", per_page(Touch::Store) - copy_ticks * 100);
    let child = calls::fork().unwrap();
    if child == 0 {
        report("fault_copy_net", per_page(Touch::Store) - copy_ticks * 100);
        calls::exit(0);
    }
    assert_eq!(calls::wait(child), Ok(Status::Exited(0)));
    report("fault_reuse", per_page(Touch::Store));
    swap_in();
    object();
}

/// Pages that went to swap, and whose frames nobody has given to anybody else: so there is nothing to read or copy.
fn swap_in() {
    for (key, how) in [("swap_in_4k", Touch::Load), ("swap_in_write_4k", Touch::Store)] {
        assert_eq!(calls::swap_out(VMA, (SMALL + LARGE) * PAGE), Ok(SMALL + LARGE));
        report(key, per_page(how));
    }
    calls::unmap(VMA, (SMALL + LARGE) * PAGE).unwrap();
}

/// Memory that another mapping has filled.
fn object() {
    calls::map_memory(VMA, (SMALL + LARGE) * PAGE, PROT_WRITE, 0, true).unwrap();
    touch(0, SMALL + LARGE, Touch::Store);
    calls::unmap(VMA, (SMALL + LARGE) * PAGE).unwrap();
    calls::map_memory(VMA, (SMALL + LARGE) * PAGE, PROT_WRITE, 0, true).unwrap();
    report("fault_object", per_page(Touch::Load));
    report("fault_will_write", per_page(Touch::Store));
}
