//! Errors say what went wrong: each variant in words of its own, and no cause is lost where one error becomes another.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Debug;

use pagepin::fault::FaultError;
use pagepin::frame::CountError;
use pagepin::paging::TableError;
use pagepin::pin::{OutOfRange, PinError};
use pagepin::space::{ForkError, ProtectError, SpaceError, ZapError};
use pagepin::{ForeignFault, PageAddr, RangeError, VmaError};

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
    ]);
    explains(&[
        (TableError::Malformed, "malformed"),
        (TableError::LargeLeaf, "leaf"),
        (TableError::NoMemory, "no memory"),
    ]);
    explains(&[
        (FaultError::Address(RangeError::KernelHalf), "kernel half"),
        (FaultError::NoVma, "no VMA"),
        (FaultError::AccessDenied, "does not permit"),
        (FaultError::ProtectionKey, "key"),
        (FaultError::Foreign, "foreign"),
        (FaultError::NoMemory, "memory"),
        (FaultError::MalformedTable, "malformed"),
    ]);
    explains(&[
        (ForkError::NoMemory, "out of memory"),
        (ForkError::CountOverflow, "limit"),
        (ForkError::Frozen, "migrated"),
        (ForkError::MalformedTable, "malformed"),
    ]);
    explains(&[(ZapError::LargeLeaf, "large leaf"), (ZapError::MalformedTable, "malformed")]);
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
        (SpaceError::TooManyVmas, "too many"),
        (SpaceError::NoMemory, "out of memory"),
        (SpaceError::MalformedTable, "malformed"),
    ]);
    explains(&[(VmaError::RightsExceedMax, "more rights"), (VmaError::InvalidKey, "no such protection key")]);
    explains(&[
        (PinError::Range(RangeError::Empty), "empty"),
        (PinError::InvalidFlags, "flags"),
        (PinError::NoVma, "no VMA"),
        (PinError::AccessDenied, "does not permit"),
        (PinError::ProtectionKey, "key"),
        (PinError::NotPinnable, "not ordinary memory"),
        (PinError::WouldFault, "faulted in"),
        (PinError::NoMemory, "out of memory"),
        (PinError::CountOverflow, "limit"),
        (PinError::BudgetExceeded, "budget"),
        (PinError::BufferTooSmall, "buffer"),
        (PinError::Incomplete, "only a part"),
        (PinError::Contended, "kept changing"),
        (PinError::MalformedTable, "malformed"),
    ]);
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
    assert_eq!(tables.map(ZapError::from), [ZapError::MalformedTable, ZapError::LargeLeaf, ZapError::MalformedTable]);
    assert_eq!(
        tables.map(ProtectError::from),
        [ProtectError::MalformedTable, ProtectError::LargeLeaf, ProtectError::MalformedTable]
    );
    let zap = [ZapError::LargeLeaf, ZapError::MalformedTable];
    assert_eq!(zap.map(SpaceError::from), [SpaceError::LargeLeaf, SpaceError::MalformedTable]);
    let page = PageAddr::containing(0x7000);
    let protect = [ProtectError::LargeLeaf, ProtectError::Pinned(page), ProtectError::MalformedTable];
    assert_eq!(
        protect.map(SpaceError::from),
        [SpaceError::LargeLeaf, SpaceError::Pinned(page), SpaceError::MalformedTable]
    );
    let foreign = [ForeignFault::NotMapped, ForeignFault::NoMemory];
    assert_eq!(foreign.map(FaultError::from), [FaultError::Foreign, FaultError::NoMemory]);
    let faults = [
        (FaultError::Address(RangeError::Wraps), PinError::Range(RangeError::Wraps)),
        (FaultError::NoVma, PinError::NoVma),
        (FaultError::AccessDenied, PinError::AccessDenied),
        (FaultError::ProtectionKey, PinError::ProtectionKey),
        (FaultError::Foreign, PinError::NotPinnable),
        (FaultError::NoMemory, PinError::NoMemory),
        (FaultError::MalformedTable, PinError::MalformedTable),
    ];
    assert!(faults.iter().all(|(fault, pin)| PinError::from(*fault) == *pin));
    let counts = [CountError::Overflow, CountError::Frozen, CountError::Free, CountError::Underflow];
    let fork = [ForkError::CountOverflow, ForkError::Frozen, ForkError::MalformedTable, ForkError::MalformedTable];
    assert_eq!(counts.map(ForkError::from), fork);
}
