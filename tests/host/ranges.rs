//! Ranges from user space at every edge, for every operation that takes one (INV-15).

use pagepin::Access;
use pagepin::fault::{Fault, FaultError};
use pagepin::frame::Wide;
use pagepin::pin::PinError;
use pagepin::space::SpaceError;
use pagepin::{Levels, PageAddr, RangeError, UserRange};

use crate::machine::{LARGE, Machine, PAGE, R, RW};

const LEVELS: [(Levels, u32); 2] = [(Levels::Four, 47), (Levels::Five, 56)];

#[test]
fn ranges_are_checked_at_every_edge() {
    for (levels, bits) in LEVELS {
        let half = 1u64 << bits;
        let end = half - PAGE;
        assert_eq!((levels.user_half().end(), levels.user_half().kernel_start()), (end, half.wrapping_neg()));
        let new = |start, length| UserRange::new(levels.user_half(), start, length);
        for start in [0, 5, end, half, u64::MAX] {
            assert_eq!(new(start, 0), Err(RangeError::Empty));
        }
        assert!(new(0, 1).is_ok() && new(0, end).is_ok() && new(end - 1, 1).is_ok());
        assert_eq!(new(0, end).unwrap(), levels.user_half().range());
        for (start, length) in [(end, 1), (end - 1, 2), (0, end + 1), (half - 1, 1), (half, 1), (half, half)] {
            assert_eq!(new(start, length), Err(RangeError::NonCanonical), "{start:#x} + {length:#x}");
        }
        let kernel = levels.user_half().kernel_start();
        assert_eq!(new(kernel - 1, 1), Err(RangeError::NonCanonical));
        assert_eq!(new(kernel, 1), Err(RangeError::KernelHalf));
        assert_eq!(new(u64::MAX, 1), Err(RangeError::KernelHalf));
        assert_eq!(new(0, u64::MAX), Err(RangeError::NonCanonical));
        for (start, length) in [(u64::MAX, 2), (1, u64::MAX), (2, u64::MAX), (kernel, kernel.wrapping_neg() + 1)] {
            let wraps = start.checked_add(length - 1).is_none();
            assert_eq!(new(start, length) == Err(RangeError::Wraps), wraps, "{start:#x} + {length:#x}");
        }
        let pages = |start, length| UserRange::pages_only(levels.user_half(), start, length);
        assert!(pages(0, PAGE).is_ok() && pages(end - PAGE, PAGE).is_ok());
        assert_eq!(pages(1, PAGE), Err(RangeError::Unaligned));
        assert_eq!(pages(PAGE, PAGE - 1), Err(RangeError::Unaligned));
        assert_eq!(pages(PAGE + 8, PAGE + 8), Err(RangeError::Unaligned));
        assert_eq!(pages(end, PAGE), Err(RangeError::NonCanonical));
    }
}

#[test]
fn pages_of_a_range_are_counted_to_the_byte() {
    for (start, length, first, pages, offset) in [
        (0, 1, 0, 1, 0),
        (0xfff, 1, 0, 1, 0xfff),
        (0xfff, 2, 0, 2, 0xfff),
        (0x1000, 0x1000, 0x1000, 1, 0),
        (0x1001, 0x1000, 0x1000, 2, 1),
        (0x1fff, 0x2002, 0x1000, 4, 0xfff),
    ] {
        let range = UserRange::new(Levels::Four.user_half(), start, length).unwrap();
        assert_eq!((range.first_page().address(), range.pages(), range.offset_in_page()), (first, pages, offset));
        assert_eq!((range.start(), range.length(), range.end()), (start, length, start + length));
        assert_eq!(range.end_page(), PageAddr::containing(first).offset(pages));
    }
    let range = UserRange::new(Levels::Four.user_half(), 0x1ff0, 0x20).unwrap();
    assert_eq!(format!("{range:?}"), "UserRange(0x1ff0..0x2010)");
}

#[test]
fn operations_refuse_what_is_not_user_memory() {
    for (levels, _) in LEVELS {
        let machine = Machine::<Wide>::new(16);
        let process = machine.process_of(levels);
        let kernel = levels.user_half().kernel_start();
        for (start, length, error) in [
            (0, 0, RangeError::Empty),
            (kernel, PAGE, RangeError::KernelHalf),
            (u64::MAX - PAGE + 1, 2 * PAGE, RangeError::Wraps),
            (levels.user_half().end(), PAGE, RangeError::NonCanonical),
            (levels.user_half().end() - PAGE, 2 * PAGE, RangeError::NonCanonical),
        ] {
            let wanted = Err(SpaceError::Range(error));
            assert_eq!(process.map(start, length, R), wanted);
            assert_eq!(process.protect(start, length, R), wanted);
            assert_eq!(process.unmap(start, length).map(drop), wanted);
            assert_eq!(process.discard(start, length).map(drop), wanted);
            assert_eq!(process.range(start, length), Err(error));
        }
        for address in [levels.user_half().end(), kernel - 1, kernel, u64::MAX] {
            for access in [Access::Read, Access::Write, Access::Execute] {
                let fault = Fault { address, access, key_denied: false, malformed_table: false };
                assert!(matches!(process.fault(fault), Err(FaultError::Address(_))), "{address:#x}");
            }
        }
    }
}

/// What hardware reports about keys and reserved bits is believed.
#[test]
fn faults_that_hardware_explains_are_not_resolved() {
    let machine = Machine::<Wide>::new(16);
    let process = machine.populated(1, 1);
    let fault = Fault { address: crate::machine::A, access: Access::Read, key_denied: false, malformed_table: false };
    assert_eq!(process.fault(Fault { key_denied: true, ..fault }), Err(FaultError::ProtectionKey));
    assert_eq!(process.fault(Fault { malformed_table: true, ..fault }), Err(FaultError::MalformedTable));
    assert_eq!(process.fault(Fault { address: 0, ..fault }), Err(FaultError::NoVma));
}

/// An entry that is neither present, prot-none nor empty is nothing that the library leaves behind.
#[test]
fn entries_of_unknown_origin_are_not_touched() {
    let machine = Machine::<Wide>::new(16);
    let process = machine.populated(2, 1);
    let a = crate::machine::A;
    let leaf = machine.leaf(&process, a).unwrap();
    let bits = leaf.bits & !1;
    machine.poke(leaf.at, bits);
    for access in [Access::Read, Access::Write] {
        let fault = Fault { address: a, access, key_denied: false, malformed_table: false };
        assert_eq!(process.fault(fault), Err(FaultError::MalformedTable));
    }
    let pins = machine.pin_slow::<pagepin::pin::Read>(&process, a, 1, pagepin::pin::PinFlags::empty());
    assert_eq!(pins.err(), Some(PinError::MalformedTable));
    assert_eq!(machine.slot(leaf.at).load(std::sync::atomic::Ordering::Relaxed), bits);
    machine.poke(leaf.at, leaf.bits);
}

/// A large leaf that the processor would not let user code use, or an entry without rights that is no leaf, is nobody's to
/// guess at.
#[test]
fn a_large_entry_of_unknown_origin_is_not_touched() {
    let (machine, size) = (Machine::<Wide>::new(2048), pagepin::LeafSize::Size2MiB);
    let process = machine.process();
    process.map(LARGE, size.bytes(), RW).unwrap();
    machine.install(&process, LARGE, size, machine.block(size), 7);
    let leaf = machine.leaf(&process, LARGE).unwrap();
    let (present, user, page_size, prot_none) = (1, 1 << 2, 1 << 7, 1 << pagepin::SOFTWARE_BITS[1]);
    for bits in [leaf.bits & !user, leaf.bits & !present, leaf.bits & !(present | page_size) | prot_none] {
        machine.poke(leaf.at, bits);
        let fault = Fault { address: LARGE, access: Access::Write, key_denied: false, malformed_table: false };
        assert_eq!(process.fault(fault), Err(FaultError::MalformedTable), "{bits:#x}");
        assert_eq!(process.resident(), Err(SpaceError::MalformedTable), "{bits:#x}");
        assert_eq!(machine.slot(leaf.at).load(std::sync::atomic::Ordering::Relaxed), bits);
    }
    machine.poke(leaf.at, leaf.bits);
}

/// Limits and overflow are never EFAULT, and every error has a text.
#[test]
fn errors_map_to_error_numbers() {
    let (again, memory, access, fault, invalid, space, overflow) = (11, 12, 13, 14, 22, 28, 75);
    for (error, number) in [
        (PinError::Range(RangeError::Empty), invalid),
        (PinError::Range(RangeError::Unaligned), invalid),
        (PinError::Range(RangeError::Wraps), overflow),
        (PinError::Range(RangeError::KernelHalf), fault),
        (PinError::Range(RangeError::NonCanonical), fault),
        (PinError::InvalidFlags, invalid),
        (PinError::NoVma, fault),
        (PinError::AccessDenied, fault),
        (PinError::ProtectionKey, access),
        (PinError::NotPinnable, fault),
        (PinError::WouldFault, again),
        (PinError::NoMemory, memory),
        (PinError::CountOverflow, memory),
        (PinError::BudgetExceeded, memory),
        (PinError::BufferTooSmall, space),
        (PinError::Incomplete, again),
        (PinError::Contended, again),
        (PinError::MalformedTable, fault),
    ] {
        assert_eq!(error.errno(), number, "{error:?}");
        assert!(!error.to_string().is_empty());
    }
}
