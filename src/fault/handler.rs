//! The entry point for the kernel's page-fault exception.

use super::{FaultError, FaultOutcome, Request, Unresolved, resolve, resolve_elsewhere};
use crate::addr::{PageAddr, UserRange};
use crate::env::Env;
use crate::env::{AddressSpace, Mm, Vmas};
use crate::paging::Tables;
use crate::rights::Access;
use crate::vma::Terms;

/// A page fault on a user address, whoever caused it: user code or a kernel copy.
///
/// On x86_64, `fault_from_error_code` makes one from `CR2` and the error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The address that was accessed.
    pub address: u64,
    /// How.
    pub access: Access,
    /// Hardware says that a protection key denied it.
    pub key_denied: bool,
    /// Hardware says that a reserved bit is set in some entry.
    pub malformed_table: bool,
}

/// Resolves a fault of the thread that runs in `space`, or says why the access is not possible.
///
/// After `Ok` the access is retried. The caller holds none of the mm's locks; a kernel copy that may fault must not
/// hold them either.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// let read = Fault { address: 0x10123, access: Access::Read, key_denied: false, malformed_table: false };
/// handle_fault(&space, read)?;
/// assert_eq!(handle_fault(&space, Fault { address: 0x20000, ..read }), Err(FaultError::NoVma));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`FaultError`], one variant per cause.
#[inline]
pub fn handle_fault(space: &(impl AddressSpace + ?Sized), fault: Fault) -> Result<FaultOutcome, FaultError> {
    let mut result = Err(FaultError::NoVma);
    let page = PageAddr::containing(fault.address);
    space.with_vma_at(page, &mut |vmas| result = fault_in_vmas(space.mm(), vmas, fault))?;
    if result == Err(FaultError::NoVma) {
        space.grow(page, fault.access)?;
        space.with_vma_at(page, &mut |vmas| result = fault_in_vmas(space.mm(), vmas, fault))?;
    }
    result
}

/// The same with the mm lock held.
pub(crate) fn fault_in_vmas<K: Env>(
    mm: &Mm<K>,
    vmas: &(impl Vmas + ?Sized),
    fault: Fault,
) -> Result<FaultOutcome, FaultError> {
    match vmas.vma_at(PageAddr::containing(fault.address)) {
        Some(vma) => fault_in_vma(mm, vmas, vma.terms(), fault),
        None => Err(no_vma(mm, fault)),
    }
}

/// What a fault outside of every VMA is.
#[cold]
#[inline(never)]
pub(crate) fn no_vma<K: Env>(mm: &Mm<K>, fault: Fault) -> FaultError {
    match fault {
        Fault { malformed_table: true, .. } => FaultError::MalformedTable,
        Fault { key_denied: true, .. } => FaultError::ProtectionKey,
        // No VMA lies outside the user half, so this is the only case in which the address can be a bad one.
        Fault { address, .. } => {
            UserRange::new(mm.levels().user_half(), address, 1).err().map_or(FaultError::NoVma, FaultError::Address)
        }
    }
}

/// The fault, in a VMA of these terms.
#[inline(always)]
pub(crate) fn fault_in_vma<K: Env>(
    mm: &Mm<K>,
    vmas: &(impl Vmas + ?Sized),
    vma: Terms,
    fault: Fault,
) -> Result<FaultOutcome, FaultError> {
    if fault.malformed_table {
        return Err(FaultError::MalformedTable);
    }
    if fault.key_denied {
        return Err(FaultError::ProtectionKey);
    }
    let page = PageAddr::containing(fault.address);
    if vma.is_shared() {
        // Nothing there is this mm's own.
        return resolve_elsewhere(mm, vmas, (page, vma), Request::of(fault.access));
    }
    let result = match fault.access {
        Access::Read => resolve(mm, vma, page, Request::Read),
        Access::Write => resolve(mm, vma, page, Request::Write),
        Access::Execute => resolve(mm, vma, page, Request::Execute),
    };
    match result {
        Ok(outcome) => Ok(outcome),
        // Only a page of a foreign VMA without an entry is refused so.
        Err(Unresolved::Foreign) => fill_foreign(mm, vmas, page, fault.access),
        Err(Unresolved::Elsewhere) => resolve_elsewhere(mm, vmas, (page, vma), Request::of(fault.access)),
        Err(error) => Err(error.into()),
    }
}

#[cold]
fn fill_foreign<K: Env>(
    mm: &Mm<K>,
    vmas: &(impl Vmas + ?Sized),
    page: PageAddr,
    access: Access,
) -> Result<FaultOutcome, FaultError> {
    vmas.fault_foreign(page, access)?;
    // Otherwise the access would fault again without end.
    // SAFETY: inside the section of the mm lock in which `vmas` were looked at.
    let filled = !unsafe { Tables::under_mm_lock(mm) }.find(page)?.entry.is_empty();
    if filled { Ok(FaultOutcome::MappedFresh) } else { Err(FaultError::NotFilled) }
}
