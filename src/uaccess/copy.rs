//! The copies, and what they do about a fault.

use x86_64::structures::idt::PageFaultErrorCode;

use super::{UserCopyError, UserCopyRefusal};
use crate::addr::{PAGE_SIZE, UserRange};
use crate::arch::user_copy::{self, Stopped};
use crate::env::{AddressSpace, Env, ExtraParts, NoPreempt, SwitchMm};
use crate::fault::{Fault, handle_fault};
use crate::rights::Access;

/// A byte is tried at most this often before the copy gives up as contended. Each time a fault has made its page ready, and
/// somebody has taken it away again before the copy came to it.
const MAX_FAULTS_PER_BYTE: u32 = 16;

/// Where a page fault in ring 0 goes on that is not the kernel's fault: the instruction at `rip` is that of a user copy, which
/// then sees to it. `None`: it is a bug of the kernel.
///
/// ```
/// # use pagepin::uaccess::fixup;
/// # use x86_64::structures::idt::PageFaultErrorCode;
/// fn page_fault_in_ring_0(rip: &mut u64, code: PageFaultErrorCode) {
///     *rip = fixup(*rip, code).expect("a page fault of the kernel");
/// }
/// ```
#[must_use]
pub fn fixup(rip: u64, code: PageFaultErrorCode) -> Option<u64> {
    let key = code.contains(PageFaultErrorCode::PROTECTION_KEY);
    user_copy::fixup(rip, key, code.contains(PageFaultErrorCode::MALFORMED_TABLE))
}

/// One copy, piece by piece: `touch` is told how many bytes are done and what the end of the user half is, and goes on from there.
fn access<S: AddressSpace + ?Sized>(
    space: &S,
    address: u64,
    length: usize,
    access: Access,
    mut touch: impl FnMut(usize, u64) -> (usize, Stopped),
) -> Result<(), UserCopyError>
where
    <S::Kernel as Env>::Shootdown: SwitchMm,
{
    if length == 0 {
        return Ok(());
    }
    let mm = space.mm();
    let refused = |copied, reason| Err(UserCopyError { copied, reason });
    let half = mm.levels().user_half();
    if let Err(error) = UserRange::new(half, address, length as u64) {
        return refused(0, UserCopyRefusal::Range(error));
    }
    if !mm.env().shootdown().is_current(mm.root()) {
        return refused(0, UserCopyRefusal::NotCurrent);
    }
    if mm.env().extras().no_preempt().is_entered() {
        return refused(0, UserCopyRefusal::InSection);
    }
    let (mut copied, mut faults) = (0, 0);
    loop {
        let (missing, stopped) = touch(copied, half.end());
        let before = core::mem::replace(&mut copied, length - missing);
        if missing == 0 {
            return Ok(());
        }
        faults = if copied == before { faults + 1 } else { 1 };
        if faults > MAX_FAULTS_PER_BYTE {
            return refused(copied, UserCopyRefusal::Contended);
        }
        let fault = Fault {
            address: address + copied as u64,
            access,
            key_denied: stopped == Stopped::Key,
            malformed_table: stopped == Stopped::Malformed,
        };
        if let Err(error) = handle_fault(space, fault) {
            return refused(copied, UserCopyRefusal::Fault(error));
        }
    }
}

/// Fills `to` from user memory at `from` of `space`, in which the calling CPU is.
///
/// Others may write the source meanwhile: what is copied is then some of both, and a check of it is a check of the copy alone.
///
/// ```
/// # use pagepin::{AddressSpace, Env, SwitchMm, uaccess::*};
/// /// A system call that is passed the address of two numbers.
/// fn sys_add<S: AddressSpace>(space: &S, numbers: u64) -> Result<u64, i32>
/// where
///     <S::Kernel as Env>::Shootdown: SwitchMm,
/// {
///     let mut bytes = [0; 16];
///     copy_from_user(space, &mut bytes, numbers).map_err(UserCopyError::errno)?;
///     let numbers = bytes.chunks_exact(8).map(|number| u64::from_le_bytes(number.try_into().unwrap()));
///     Ok(numbers.fold(0, u64::wrapping_add))
/// }
/// ```
///
/// # Errors
/// [`UserCopyError`]: so much of `to` was filled.
pub fn copy_from_user<S: AddressSpace + ?Sized>(space: &S, to: &mut [u8], from: u64) -> Result<(), UserCopyError>
where
    <S::Kernel as Env>::Shootdown: SwitchMm,
{
    access(space, from, to.len(), Access::Read, |copied, end| {
        // SAFETY: the CPU is in this mm, so this is ring 0, and nothing of the kernel is in the user half, which changes only
        // through the crate.
        unsafe { user_copy::copy_from_user(&mut to[copied..], from + copied as u64, end) }
    })
}

/// Stores `from` to user memory at `to` of `space`, in which the calling CPU is.
///
/// ```
/// # use pagepin::{AddressSpace, Env, SwitchMm, uaccess::*};
/// /// A system call that tells the time.
/// fn sys_time<S: AddressSpace>(space: &S, to: u64, now: u64) -> Result<(), i32>
/// where
///     <S::Kernel as Env>::Shootdown: SwitchMm,
/// {
///     copy_to_user(space, to, &now.to_le_bytes()).map_err(UserCopyError::errno)
/// }
/// ```
///
/// # Errors
/// [`UserCopyError`]: so many bytes were stored.
pub fn copy_to_user<S: AddressSpace + ?Sized>(space: &S, to: u64, from: &[u8]) -> Result<(), UserCopyError>
where
    <S::Kernel as Env>::Shootdown: SwitchMm,
{
    access(space, to, from.len(), Access::Write, |copied, end| {
        // SAFETY: as in `copy_from_user`.
        unsafe { user_copy::copy_to_user(to + copied as u64, &from[copied..], end) }
    })
}

/// Stores `length` zeroes to user memory at `to` of `space`, in which the calling CPU is.
///
/// ```
/// # use pagepin::{AddressSpace, Env, SwitchMm, uaccess::*};
/// /// What the loader does behind the data of a program.
/// fn clear_bss<S: AddressSpace>(space: &S, start: u64, length: usize) -> Result<(), i32>
/// where
///     <S::Kernel as Env>::Shootdown: SwitchMm,
/// {
///     clear_user(space, start, length).map_err(UserCopyError::errno)
/// }
/// ```
///
/// # Errors
/// [`UserCopyError`]: so many bytes were stored.
pub fn clear_user<S: AddressSpace + ?Sized>(space: &S, to: u64, length: usize) -> Result<(), UserCopyError>
where
    <S::Kernel as Env>::Shootdown: SwitchMm,
{
    access(space, to, length, Access::Write, |copied, end| {
        // SAFETY: as in `copy_from_user`.
        unsafe { user_copy::clear_user(to + copied as u64, length - copied, end) }
    })
}

/// The string of bytes at user address `from` of `space` up to its first NUL, which is not a part of it; in `to`, of which the rest
/// is undefined. No page behind that of the NUL is touched.
///
/// ```
/// # use pagepin::{AddressSpace, Env, SwitchMm, uaccess::*};
/// /// A system call that is passed a path.
/// fn sys_open<S: AddressSpace>(space: &S, path: u64) -> Result<usize, i32>
/// where
///     <S::Kernel as Env>::Shootdown: SwitchMm,
/// {
///     let mut buffer = [0; 256];
///     let path = strncpy_from_user(space, &mut buffer, path).map_err(UserCopyError::errno)?;
///     Ok(path.len())
/// }
/// ```
///
/// # Errors
/// [`UserCopyError`]: of a string without an end, `to` is full ([`UserCopyRefusal::Unterminated`]).
pub fn strncpy_from_user<'b, S: AddressSpace + ?Sized>(
    space: &S,
    to: &'b mut [u8],
    from: u64,
) -> Result<&'b [u8], UserCopyError>
where
    <S::Kernel as Env>::Shootdown: SwitchMm,
{
    let mut copied = 0;
    while copied < to.len() {
        // What wraps around is no user address, and refused as such.
        let at = from.wrapping_add(copied as u64);
        let in_page = (PAGE_SIZE - at % PAGE_SIZE) as usize;
        let end = to.len().min(copied + in_page);
        let piece = &mut to[copied..end];
        let result = copy_from_user(space, piece, at);
        // Of a piece that ends early, too: the page may have been taken away behind the string.
        let done = result.map_or_else(|error| error.copied, |()| piece.len());
        if let Some(length) = piece[..done].iter().position(|byte| *byte == 0) {
            return Ok(&to[..copied + length]);
        }
        result.map_err(|error| UserCopyError { copied: copied + error.copied, ..error })?;
        copied = end;
    }
    Err(UserCopyError { copied, reason: UserCopyRefusal::Unterminated })
}
