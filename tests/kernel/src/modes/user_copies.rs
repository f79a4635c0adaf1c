//! The library's copies from and to user memory, faults included, in a space that this CPU enters for the purpose.

use alloc::{format, sync::Arc};
use core::sync::atomic::{AtomicU64, Ordering};

use pagepin::{
    RangeError,
    fault::FaultError,
    space::UserSpace,
    uaccess::{self, UserCopyError, UserCopyRefusal},
};
use pagepin_abi::{PROT_WRITE, USER_END};
use x86_64::registers::{
    control::{Cr3, Cr4, Cr4Flags},
    rflags::{self, RFlags},
};

use super::{Outcome, kernel_tests::check};
use crate::{
    memory::{self, PAGE},
    mm::{self, AddressSpace, Kernel},
    smp,
};

const START: u64 = 0x5000_0000;

fn why(error: impl core::fmt::Debug) -> alloc::string::String {
    format!("{error:?}")
}

/// Runs in a space with two pages of memory, behind which nothing is.
fn in_a_space(test: fn(&UserSpace<&'static Kernel>) -> Outcome) -> Outcome {
    let before = mm::free_frame_count();
    let space = Arc::new(AddressSpace::new().map_err(why)?);
    space.map(START, 2 * PAGE, PROT_WRITE).map_err(why)?;
    mm::enter(&space);
    let outcome = test(space.user_space());
    mm::leave();
    drop(space);
    outcome.and(check(mm::free_frame_count() == before, "a frame is lost"))
}

fn refused(copied: usize, reason: UserCopyRefusal) -> Result<(), UserCopyError> {
    Err(UserCopyError { copied, reason })
}

const NO_VMA: UserCopyRefusal = UserCopyRefusal::Fault(FaultError::NoVma);

pub fn come_to_where_they_can() -> Outcome {
    in_a_space(|space| {
        let text = *b"over the edge";
        // Pages that nobody has touched, and the edge between them.
        uaccess::copy_to_user(space, START + PAGE - 4, &text).map_err(why)?;
        let mut back = [0; 13];
        uaccess::copy_from_user(space, &mut back, START + PAGE - 4).map_err(why)?;
        check(back == text, "other bytes came back")?;
        uaccess::clear_user(space, START + PAGE - 2, 4).map_err(why)?;
        uaccess::copy_from_user(space, &mut back, START + PAGE - 4).map_err(why)?;
        check(back == *b"ov\0\0\0\0he edge", "other bytes were cleared")?;
        // To the end of what is mapped, and no further.
        let mut eight = *b"********";
        let end = START + 2 * PAGE - 3;
        let read = uaccess::copy_from_user(space, &mut eight, end);
        check(read == refused(3, NO_VMA), &why(read))?;
        check(eight == *b"\0\0\0*****", "more was written than copied")?;
        check(uaccess::copy_to_user(space, end, &text) == refused(3, NO_VMA), "a write past the end")?;
        check(uaccess::clear_user(space, end, 8) == refused(3, NO_VMA), "clearing past the end")?;
        // Read-only, and nothing at all.
        space.protect(START, PAGE, pagepin::Rights::READ).map_err(why)?;
        let denied = refused(0, UserCopyRefusal::Fault(FaultError::AccessDenied));
        check(uaccess::copy_to_user(space, START, &text) == denied, "a write to memory that is read-only")?;
        uaccess::copy_from_user(space, &mut back, START).map_err(why)?;
        uaccess::copy_from_user(space, &mut [], 0).map_err(why)
    })
}

/// With SMAP on, access is open for the copies and nobody else. Without SMAP in this processor, this is the test above.
pub fn open_access_for_themselves_alone() -> Outcome {
    const SMAP: u32 = 1 << 20;
    if core::arch::x86_64::__cpuid_count(7, 0).ebx & SMAP == 0 {
        crate::println!("@skip user_copies_open_access_for_themselves_alone the processor has no SMAP");
        return Ok(());
    }
    // SAFETY: the processor has it, and the kernel touches user memory by these copies alone.
    unsafe { Cr4::update(|cr4| cr4.insert(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION)) };
    let outcome = come_to_where_they_can();
    let open = rflags::read().contains(RFlags::ALIGNMENT_CHECK);
    // SAFETY: as it was.
    unsafe { Cr4::update(|cr4| cr4.remove(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION)) };
    outcome.and(check(!open, "access stays open"))
}

pub fn of_bad_addresses_are_refused() -> Outcome {
    in_a_space(|space| {
        let half = UserCopyRefusal::Range(RangeError::KernelHalf);
        let hole = UserCopyRefusal::Range(RangeError::NonCanonical);
        let bad = [
            (0, NO_VMA),
            (0x7000_0000, NO_VMA),
            (USER_END - 8, hole),
            (memory::direct_map_offset(), half),
            (u64::MAX, UserCopyRefusal::Range(RangeError::Wraps)),
        ];
        let mut buffer = [7; 16];
        for (address, reason) in bad {
            let results = [
                uaccess::copy_from_user(space, &mut buffer, address),
                uaccess::copy_to_user(space, address, &buffer),
                uaccess::clear_user(space, address, 16),
            ];
            check(results == [refused(0, reason); 3], &format!("{address:#x}: {results:?}"))?;
        }
        check(buffer == [7; 16], "a refused copy has written")
    })
}

pub fn strings_end_at_their_nul() -> Outcome {
    in_a_space(|space| {
        let mut buffer = [0; 16];
        // Across an edge, and up to the last byte there is.
        for start in [START + PAGE - 3, START + 2 * PAGE - 6] {
            uaccess::copy_to_user(space, start, b"hello\0").map_err(why)?;
            let string = uaccess::strncpy_from_user(space, &mut buffer, start).map_err(why)?;
            check(string == b"hello", &format!("{string:?}"))?;
        }
        let short = uaccess::strncpy_from_user(space, &mut buffer[..5], START + PAGE - 3);
        let reason = short.err().map(|error| (error.copied, error.reason));
        check(reason == Some((5, UserCopyRefusal::Unterminated)), &format!("{reason:?}"))?;
        uaccess::copy_to_user(space, START + 2 * PAGE - 2, b"no").map_err(why)?;
        let endless = uaccess::strncpy_from_user(space, &mut buffer, START + 2 * PAGE - 2);
        check(endless.err().map(|error| (error.copied, error.reason)) == Some((2, NO_VMA)), "a string without an end")
    })
}

pub fn need_the_space_they_name() -> Outcome {
    in_a_space(|_| {
        let other = AddressSpace::new().map_err(why)?;
        other.map(START, PAGE, PROT_WRITE).map_err(why)?;
        let wrong = refused(0, UserCopyRefusal::NotCurrent);
        check(uaccess::copy_to_user(other.user_space(), START, b"x") == wrong, "into another space")?;
        mm::leave();
        let left = AddressSpace::new().map_err(why)?;
        check(uaccess::copy_to_user(left.user_space(), START, b"x") == wrong, "into a space that was never entered")
    })
}

/// Each CPU goes in and out, and the space ends while its root is still loaded on all of them.
pub fn a_space_that_ends_leaves_every_cpu() -> Outcome {
    static ROOT: AtomicU64 = AtomicU64::new(0);
    static SPACE: spin::Once<alloc::sync::Weak<AddressSpace>> = spin::Once::new();
    let before = mm::free_frame_count();
    let space = Arc::new(AddressSpace::new().map_err(why)?);
    SPACE.call_once(|| Arc::downgrade(&space));
    smp::on_every_cpu(|_| {
        let space = SPACE.get().and_then(|space| space.upgrade()).expect("its owner waits");
        mm::enter(&space);
        mm::leave();
        assert!(is_loaded(space.root()), "left, and loaded until another is entered");
    });
    let root = space.root();
    check(Arc::strong_count(&space) == 1, "a CPU that has left it holds a share")?;
    drop(space);
    ROOT.store(root, Ordering::Relaxed);
    smp::on_every_cpu(|_| assert!(!is_loaded(ROOT.load(Ordering::Relaxed)), "the root of what has ended"));
    check(mm::free_frame_count() == before, "a frame is lost")
}

fn is_loaded(root: u64) -> bool {
    Cr3::read().0.start_address().as_u64() == root
}
