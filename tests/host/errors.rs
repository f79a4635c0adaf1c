//! Errors say what went wrong: each variant in words of its own, and no cause is lost where one error becomes another.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Debug;

use pagepin::fault::FaultError;
use pagepin::frame::CountError;
use pagepin::paging::TableError;
use pagepin::pin::{OutOfRange, PinError, RegisterError, UserVecError};
use pagepin::space::{ForkError, MergeError, ProtectError, SpaceError, ZapError};
use pagepin::{
    BudgetExceeded, ForeignFault, GrowError, NotReady, ObjectError, PageAddr, RangeError, Reentered, TokenError,
    VmaError,
};

/// Each error with a part of its text that no other variant has.
fn explains<E: Error + Copy + Debug>(errors: &[(E, &str)]) {
    for (error, part) in errors {
        assert!(error.to_string().contains(part), "{error:?}: {error}");
    }
    let texts: BTreeSet<String> = errors.iter().map(|(error, _)| error.to_string()).collect();
    assert_eq!(texts.len(), errors.len(), "two variants say the same");
}

#[test]
fn every_variant_explains_itself() {
    explains(&[
        (RangeError::Empty, "empty"),
        (RangeError::Wraps, "wraps"),
        (RangeError::NonCanonical, "canonical"),
        (RangeError::KernelHalf, "kernel half"),
        (RangeError::Unaligned, "aligned"),
    ]);
    explains(&[
        (CountError::Free, "free"),
        (CountError::Frozen, "frozen"),
        (CountError::NotExclusive, "shared between address spaces"),
        (CountError::NotPinnable, "never pinned"),
        (CountError::Overflow, "limit"),
        (CountError::Underflow, "released more often"),
        (CountError::Pinned, "is pinned"),
        (CountError::Referenced, "other references"),
        (CountError::InUse, "in use"),
        (CountError::OtherOrder, "another size"),
        (CountError::NotPrivate, "object's or a driver's"),
    ]);
    explains(&[
        (TableError::Malformed, "malformed"),
        (TableError::LargeLeaf, "leaf"),
        (TableError::NoMemory, "no memory"),
    ]);
    explains(&[
        (FaultError::Address(RangeError::KernelHalf), "kernel half"),
        (FaultError::NoVma, "no VMA"),
        (FaultError::GuardGap, "too near"),
        (FaultError::GrowthLimit, "as many pages"),
        (FaultError::AccessDenied, "does not permit"),
        (FaultError::ProtectionKey, "key"),
        (FaultError::Foreign, "foreign"),
        (FaultError::NoMemory, "memory"),
        (FaultError::NotReady(NotReady(1)), "not there yet"),
        (FaultError::NotFilled, "did not fill"),
        (FaultError::MalformedTable, "malformed"),
    ]);
    explains(&[
        (ForeignFault::NotMapped, "nothing maps"),
        (ForeignFault::NoMemory, "memory"),
        (ForeignFault::NotReady(NotReady(1)), "yet"),
    ]);
    explains(&[(NotReady(1), "not there yet")]);
    explains(&[
        (TokenError::Full, "no slot"),
        (TokenError::Lost, "lost"),
        (TokenError::NoMemory, "no memory"),
        (TokenError::NotReady(NotReady(1)), "not there yet"),
    ]);
    explains(&[
        (GrowError::NoVma, "none grows"),
        (GrowError::AccessDenied, "does not permit"),
        (GrowError::GuardGap, "too near"),
        (GrowError::Limit, "as many pages"),
        (GrowError::Reentered(Reentered), "section of an mm lock"),
    ]);
    explains(&[(BudgetExceeded, "budget")]);
    explains(&[(Reentered, "inside a section of an mm lock")]);
    explains(&[
        (ObjectError::NoObject, "no such object"),
        (ObjectError::PastEnd, "beyond the end"),
        (ObjectError::Denied, "does not permit"),
        (ObjectError::NotPinnable, "never pinned"),
        (ObjectError::NoMemory, "out of memory"),
        (ObjectError::Failed, "could not be read"),
        (ObjectError::NotReady(NotReady(1)), "not there yet"),
    ]);
    explains(&[
        (ForkError::NoMemory, "out of memory"),
        (ForkError::CountOverflow, "limit"),
        (ForkError::Frozen, "migrated"),
        (ForkError::MalformedTable, "malformed"),
    ]);
    explains(&[
        (ZapError::LargeLeaf, "large leaf"),
        (ZapError::NoMemory, "memory"),
        (ZapError::MalformedTable, "malformed"),
    ]);
    explains(&[(OutOfRange, "outside the pinned range")]);
}

#[test]
fn every_variant_of_spaces_and_pins_explains_itself() {
    let page = PageAddr::containing(0x7000);
    explains(&[
        (ProtectError::LargeLeaf, "large leaf"),
        (ProtectError::Pinned(page), "0x7000 is pinned"),
        (ProtectError::MalformedTable, "malformed"),
    ]);
    explains(&[
        (SpaceError::Range(RangeError::Unaligned), "aligned"),
        (SpaceError::Overlap, "overlaps"),
        (SpaceError::NoVma, "no VMA"),
        (SpaceError::AccessDenied, "more rights"),
        (SpaceError::Pinned(page), "0x7000 is pinned"),
        (SpaceError::LargeLeaf, "large leaf"),
        (SpaceError::InvalidKey, "no such protection key"),
        (SpaceError::InvalidFlags, "contradict"),
        (SpaceError::TooManyVmas, "too many"),
        (SpaceError::NoRoom, "no free addresses"),
        (SpaceError::NoMemory, "out of memory"),
        (SpaceError::MalformedTable, "malformed"),
    ]);
    explains(&[
        (VmaError::RightsExceedMax, "more rights"),
        (VmaError::InvalidKey, "no such protection key"),
        (VmaError::InvalidFlags, "contradict"),
    ]);
    explains(&[
        (PinError::Range(RangeError::Empty), "empty"),
        (PinError::InvalidFlags, "flags"),
        (PinError::NoVma, "no VMA"),
        (PinError::AccessDenied, "does not permit"),
        (PinError::ProtectionKey, "key"),
        (PinError::NotPinnable, "not ordinary memory"),
        (PinError::WouldFault, "faulted in"),
        (PinError::NoMemory, "out of memory"),
        (PinError::NoPinnableMemory, "there is no memory that may"),
        (PinError::KeptByPin, "by another pin"),
        (PinError::KeptByReference, "referred to by others"),
        (PinError::CannotMove, "of a kind that is not moved"),
        (PinError::WrittenBack, "written back"),
        (PinError::CountOverflow, "limit"),
        (PinError::BudgetExceeded, "budget"),
        (PinError::BufferTooSmall, "buffer"),
        (PinError::Incomplete, "only a part"),
        (PinError::Contended, "kept changing"),
        (PinError::NotReady(NotReady(1)), "not there yet"),
        (PinError::MalformedTable, "malformed"),
    ]);
    explains(&[
        (UserVecError::TooManyRanges, "more ranges"),
        (UserVecError::TooLong, "more bytes"),
        (UserVecError::Range { index: 3, error: RangeError::Wraps }, "range 3: start + length wraps"),
        (UserVecError::NoMemory, "out of memory"),
    ]);
    explains(&[
        (MergeError::Range(RangeError::Unaligned), "aligned"),
        (MergeError::NoVma, "no VMA"),
        (MergeError::Same, "one page already"),
        (MergeError::NotPrivate, "private memory"),
        (MergeError::Pinned, "is pinned"),
        (MergeError::Shared, "somebody else refers"),
        (MergeError::Different, "differ"),
        (MergeError::CountOverflow, "limit"),
        (MergeError::Contended, "kept changing"),
        (MergeError::OtherKernel, "two kernels"),
        (MergeError::MalformedTable, "malformed"),
    ]);
    explains(&[
        (RegisterError::NotLongTerm, "not a long-term pin"),
        (RegisterError::OtherSpace, "another address space"),
        (RegisterError::InUse, "already"),
    ]);
}

#[cfg(all(feature = "instructions", target_arch = "x86_64"))]
#[test]
fn user_copies_say_how_far_they_came_and_why_not_further() {
    use pagepin::uaccess::{UserCopyError, UserCopyRefusal as Refusal};
    let error = |reason| UserCopyError { copied: 7, reason };
    let causes = [
        (Refusal::Range(RangeError::Wraps), "wraps", RangeError::KernelHalf.errno()),
        (Refusal::Fault(FaultError::NoVma), "no VMA", FaultError::NoVma.errno()),
        (Refusal::Fault(FaultError::AccessDenied), "does not permit", FaultError::NoVma.errno()),
        (Refusal::Fault(FaultError::NoMemory), "out of memory", FaultError::NoMemory.errno()),
        (Refusal::Fault(FaultError::NotReady(NotReady(1))), "not there yet", NotReady(1).errno()),
        (Refusal::Contended, "kept changing", NotReady(1).errno()),
        (Refusal::NotCurrent, "not in this address space", FaultError::NoVma.errno()),
        (Refusal::InSection, "holds an mm lock", 35),
        (Refusal::Unterminated, "does not end", 36),
    ];
    explains(&causes.map(|(reason, part, _)| (error(reason), part)));
    for (reason, _, number) in causes {
        assert!(error(reason).to_string().starts_with("after 7 bytes: "));
        assert_eq!(error(reason).errno(), number, "{reason:?}");
    }
}

#[test]
fn no_cause_is_lost_on_the_way_out() {
    let tables = [TableError::NoMemory, TableError::LargeLeaf, TableError::Malformed];
    assert_eq!(
        tables.map(FaultError::from),
        [FaultError::NoMemory, FaultError::MalformedTable, FaultError::MalformedTable],
        "a fault has no size of its own that a leaf could be in the way of"
    );
    assert_eq!(tables.map(PinError::from), [PinError::NoMemory, PinError::MalformedTable, PinError::MalformedTable]);
    assert_eq!(tables.map(SpaceError::from), [SpaceError::NoMemory, SpaceError::LargeLeaf, SpaceError::MalformedTable]);
    assert_eq!(
        tables.map(ForkError::from),
        [ForkError::NoMemory, ForkError::MalformedTable, ForkError::MalformedTable]
    );
    let zap = [ZapError::NoMemory, ZapError::LargeLeaf, ZapError::MalformedTable];
    assert_eq!(tables.map(ZapError::from), zap);
    assert_eq!(
        tables.map(ProtectError::from),
        [ProtectError::NoMemory, ProtectError::LargeLeaf, ProtectError::MalformedTable]
    );
    assert_eq!(zap.map(SpaceError::from), tables.map(SpaceError::from));
    assert_eq!(SpaceError::from(ProtectError::NoMemory), SpaceError::NoMemory);
    let page = PageAddr::containing(0x7000);
    let protect = [ProtectError::LargeLeaf, ProtectError::Pinned(page), ProtectError::MalformedTable];
    assert_eq!(
        protect.map(SpaceError::from),
        [SpaceError::LargeLeaf, SpaceError::Pinned(page), SpaceError::MalformedTable]
    );
    let foreign = [ForeignFault::NotMapped, ForeignFault::NoMemory, ForeignFault::NotReady(NotReady(9))];
    let faults = [FaultError::Foreign, FaultError::NoMemory, FaultError::NotReady(NotReady(9))];
    assert_eq!(foreign.map(FaultError::from), faults);
    let tokens = [TokenError::Full, TokenError::NoMemory, TokenError::Lost, TokenError::NotReady(NotReady(9))]
        .map(FaultError::from);
    let faults = [FaultError::NoMemory, FaultError::NoMemory, FaultError::Failed, FaultError::NotReady(NotReady(9))];
    assert_eq!(tokens, faults);
    let faults = [
        (FaultError::Address(RangeError::Wraps), PinError::Range(RangeError::Wraps)),
        (FaultError::NoVma, PinError::NoVma),
        (FaultError::GuardGap, PinError::NoVma),
        (FaultError::GrowthLimit, PinError::NoVma),
        (FaultError::AccessDenied, PinError::AccessDenied),
        (FaultError::ProtectionKey, PinError::ProtectionKey),
        (FaultError::Foreign, PinError::NotPinnable),
        (FaultError::NoMemory, PinError::NoMemory),
        (FaultError::NotReady(NotReady(9)), PinError::NotReady(NotReady(9))),
        (FaultError::NotFilled, PinError::NotPinnable),
        (FaultError::MalformedTable, PinError::MalformedTable),
    ];
    assert!(faults.iter().all(|(fault, pin)| PinError::from(*fault) == *pin));
    let counts = [CountError::Overflow, CountError::Frozen, CountError::Free, CountError::Underflow];
    let fork = [ForkError::CountOverflow, ForkError::Frozen, ForkError::MalformedTable, ForkError::MalformedTable];
    assert_eq!(counts.map(ForkError::from), fork);
    let counts = [CountError::Sole, CountError::NoSole, CountError::OtherKind];
    assert_eq!(counts.map(PinError::from), [PinError::Sole, PinError::NoSole, PinError::OtherKind]);
    let counts = [CountError::Pinned, CountError::Overflow, CountError::Frozen];
    assert_eq!(counts.map(MergeError::from), [MergeError::Pinned, MergeError::CountOverflow, MergeError::Shared]);
}

/// A system call can hand on what it was told.
#[test]
fn every_error_has_a_number_of_linux() {
    let (again, memory, access, fault, busy, exists, invalid) = (11, 12, 13, 14, 16, 17, 22);
    let (io, no_such, no_space, deadlock, overflow, unsupported) = (5, 6, 28, 35, 75, 95);
    let page = PageAddr::containing(0x1000);
    let ranges = [
        (RangeError::Empty, invalid),
        (RangeError::Unaligned, invalid),
        (RangeError::Wraps, overflow),
        (RangeError::NonCanonical, fault),
        (RangeError::KernelHalf, fault),
    ];
    ranges.iter().for_each(|(error, number)| {
        assert_eq!(error.errno(), *number, "{error:?}");
        // An address that faults is told as the range would be; where a call makes or changes mappings, it is the argument
        // that is wrong.
        assert_eq!(FaultError::Address(*error).errno(), *number, "{error:?}");
        assert_eq!(SpaceError::Range(*error).errno(), invalid, "{error:?}");
    });
    let counts = [
        (CountError::Overflow, memory),
        (CountError::Frozen, again),
        (CountError::NotExclusive, again),
        (CountError::Referenced, again),
        (CountError::Pinned, busy),
        (CountError::NotPinnable, fault),
        (CountError::Free, invalid),
        (CountError::Underflow, invalid),
        (CountError::InUse, invalid),
        (CountError::NoSuchOrder, invalid),
        (CountError::OtherKind, busy),
        (CountError::Sole, busy),
        (CountError::NoSole, unsupported),
    ];
    counts.iter().for_each(|(error, number)| assert_eq!(error.errno(), *number, "{error:?}"));
    let faults = [
        (FaultError::NoVma, fault),
        (FaultError::GuardGap, fault),
        (FaultError::GrowthLimit, memory),
        (FaultError::AccessDenied, access),
        (FaultError::ProtectionKey, access),
        (FaultError::Foreign, fault),
        (FaultError::NoMemory, memory),
        (FaultError::NotReady(NotReady(1)), again),
        (FaultError::NotFilled, fault),
        (FaultError::MalformedTable, fault),
    ];
    faults.iter().for_each(|(error, number)| assert_eq!(error.errno(), *number, "{error:?}"));
    let spaces = [
        (SpaceError::Overlap, exists),
        (SpaceError::NoVma, memory),
        (SpaceError::AccessDenied, access),
        (SpaceError::Pinned(page), busy),
        (SpaceError::LargeLeaf, invalid),
        (SpaceError::InvalidKey, invalid),
        (SpaceError::TooManyVmas, memory),
        (SpaceError::NoRoom, memory),
        (SpaceError::NoMemory, memory),
        (SpaceError::MalformedTable, fault),
        (SpaceError::InvalidFlags, invalid),
        (SpaceError::PageOverflow, overflow),
        (SpaceError::NoObject, no_such),
        (SpaceError::NoSlot, memory),
        (SpaceError::Reentered, deadlock),
    ];
    spaces.iter().for_each(|(error, number)| assert_eq!(error.errno(), *number, "{error:?}"));
    let tables = [TableError::Malformed, TableError::LargeLeaf, TableError::NoMemory].map(TableError::errno);
    assert_eq!(tables, [fault, invalid, memory]);
    assert_eq!([ZapError::LargeLeaf, ZapError::MalformedTable].map(ZapError::errno), [invalid, fault]);
    let protects = [ProtectError::LargeLeaf, ProtectError::Pinned(page), ProtectError::MalformedTable];
    assert_eq!(protects.map(ProtectError::errno), [invalid, busy, fault]);
    assert_eq!([ForeignFault::NotMapped, ForeignFault::NoMemory].map(ForeignFault::errno), [fault, memory]);
    assert_eq!((OutOfRange.errno(), BudgetExceeded.errno()), (invalid, memory));
    let list = [UserVecError::TooManyRanges, UserVecError::TooLong, UserVecError::NoMemory];
    assert_eq!(list.map(UserVecError::errno), [invalid, invalid, memory]);
    let wraps = UserVecError::Range { index: 3, error: RangeError::Wraps };
    assert_eq!(wraps.errno(), overflow);
    let pins = [
        (PinError::Range(RangeError::Wraps), overflow),
        (PinError::InvalidFlags, invalid),
        (PinError::NoVma, fault),
        (PinError::AccessDenied, fault),
        (PinError::ProtectionKey, access),
        (PinError::NotPinnable, fault),
        (PinError::PastEnd, fault),
        (PinError::Failed, io),
        (PinError::WouldFault, again),
        (PinError::NoMemory, memory),
        (PinError::NoPinnableMemory, memory),
        (PinError::KeptByPin, busy),
        (PinError::KeptByReference, busy),
        (PinError::CannotMove, unsupported),
        (PinError::WrittenBack, unsupported),
        (PinError::CountOverflow, memory),
        (PinError::Sole, busy),
        (PinError::NoSole, unsupported),
        (PinError::OtherKind, busy),
        (PinError::BudgetExceeded, memory),
        (PinError::BufferTooSmall, no_space),
        (PinError::Incomplete, again),
        (PinError::Contended, again),
        (PinError::NotReady(NotReady(1)), again),
        (PinError::Reentered, deadlock),
        (PinError::MalformedTable, fault),
    ];
    pins.iter().for_each(|(error, number)| assert_eq!(error.errno(), *number, "{error:?}"));
    let merges = [
        (MergeError::Range(RangeError::Wraps), overflow),
        (MergeError::NoVma, fault),
        (MergeError::Same, invalid),
        (MergeError::NotPrivate, fault),
        (MergeError::Pinned, busy),
        (MergeError::Shared, busy),
        (MergeError::Different, invalid),
        (MergeError::CountOverflow, memory),
        (MergeError::Contended, again),
        (MergeError::OtherKernel, invalid),
        (MergeError::Reentered, deadlock),
        (MergeError::MalformedTable, fault),
    ];
    merges.iter().for_each(|(error, number)| assert_eq!(error.errno(), *number, "{error:?}"));
    let vmas = [VmaError::RightsExceedMax, VmaError::InvalidKey, VmaError::InvalidFlags, VmaError::PageOverflow];
    assert_eq!(vmas.map(VmaError::errno), [access, invalid, invalid, overflow]);
    let objects = [
        (ObjectError::NoObject, no_such),
        (ObjectError::PastEnd, no_such),
        (ObjectError::Denied, access),
        (ObjectError::NotPinnable, fault),
        (ObjectError::NoMemory, memory),
        (ObjectError::Failed, io),
        (ObjectError::NotReady(NotReady(1)), again),
    ];
    objects.iter().for_each(|(error, number)| assert_eq!(error.errno(), *number, "{error:?}"));
    assert_eq!([NotReady(1), NotReady(9)].map(NotReady::errno), [again, again]);
    let growth = [
        GrowError::NoVma,
        GrowError::GuardGap,
        GrowError::AccessDenied,
        GrowError::Limit,
        GrowError::Reentered(Reentered),
    ];
    assert_eq!(growth.map(GrowError::errno), [fault, fault, access, memory, deadlock]);
    let tokens = [TokenError::Full, TokenError::NoMemory, TokenError::Lost, TokenError::NotReady(NotReady(1))];
    assert_eq!(tokens.map(TokenError::errno), [memory, memory, io, again]);
}
