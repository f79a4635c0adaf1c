//! What the walker must not take: every defect at every level, for pins and for plain references.

use std::cell::Cell;

use pagepin::frame::{CountError, Dirty, FrameKind, FrameWord, Layout, Ownership};
use pagepin::pin::{PinAccess, PinError, PinFlags, Read, Write};
use pagepin::space::{ForkError, SpaceOptions};
use pagepin::{Access, Env, FrameSource, KeyRights, LeafSize, Levels, MapOptions, Pfn, SOFTWARE_BITS};

use crate::forms::{self, FORMS, Form};
use crate::machine::{A, Machine, PAGE, Process, R, RW, range};

const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const LARGE: u64 = 0x80;
const SPECIAL: u64 = 1 << SOFTWARE_BITS[0];

/// Asks for one page without locks; nothing may be left counted.
fn refused<X: PinAccess, L: Layout>(process: &Process<'_, L>) -> [Option<PinError>; 2] {
    let page = range(process, A, 1);
    let none = PinFlags::empty();
    let pinned = forms::pin::<X, L>(Form::FastOnly, process, page, none, 4).err();
    let got = forms::get::<X, L>(Form::FastOnly, process, page, none, 4).err();
    [pinned, got]
}

fn both(error: PinError) -> [Option<PinError>; 2] {
    [Some(error); 2]
}

fn rights_missing_at_any_level_refuse<L: Layout>() {
    for levels in [Levels::Four, Levels::Five] {
        let machine = Machine::<L>::new(64);
        let process = machine.process_of(levels);
        process.map(A, PAGE, RW).unwrap();
        machine.put(&process, A, 1);
        let word = machine.frame_at(&process, A).1;
        let path = machine.path(&process, A);
        assert_eq!(path.len() as u32, crate::machine::depth(levels));
        for (level, at, bits) in path {
            for missing in [P, U] {
                machine.poke(at, bits & !missing);
                assert_eq!(refused::<Read, L>(&process), both(PinError::WouldFault), "{level} {missing}");
                assert_eq!(refused::<Write, L>(&process), both(PinError::WouldFault), "{level} {missing}");
            }
            machine.poke(at, bits & !W);
            assert_eq!(refused::<Write, L>(&process), both(PinError::WouldFault), "level {level}: W");
            assert_eq!(refused::<Read, L>(&process), [None; 2], "level {level}: reads need no W");
            machine.poke(at, bits);
        }
        assert_eq!(refused::<Write, L>(&process), [None; 2]);
        assert_eq!(machine.frame_at(&process, A).1, pagepin::frame::Snapshot { dirty: true, ..word });
    }
}

/// In levels 4 and 5 the page-size bit is reserved.
fn a_leaf_where_hardware_has_none_is_malformed<L: Layout>() {
    for levels in [Levels::Four, Levels::Five] {
        let machine = Machine::<L>::new(64);
        let process = machine.process_of(levels);
        process.map(A, PAGE, RW).unwrap();
        machine.put(&process, A, 1);
        for (level, at, bits) in machine.path(&process, A) {
            if level < 4 {
                continue;
            }
            machine.poke(at, bits | LARGE);
            assert_eq!(refused::<Read, L>(&process), both(PinError::MalformedTable), "level {level}");
            for form in FORMS {
                let result = forms::pin::<Write, L>(form, &process, range(&process, A, 1), PinFlags::empty(), 1);
                assert_eq!(result.err(), Some(PinError::MalformedTable), "level {level}, {form:?}");
            }
            machine.poke(at, bits);
        }
    }
}

fn special_and_prot_none_leaves_are_left_to_the_slow_path<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(1, 1);
    let leaf = machine.leaf(&process, A).unwrap();
    // A special leaf that may be written is not the zero frame, and no fault helps.
    for (bits, to_write) in [
        (leaf.bits | SPECIAL, PinError::NotPinnable),
        (leaf.bits & !W | SPECIAL, PinError::WouldFault),
        (leaf.bits & !P | 1 << SOFTWARE_BITS[1], PinError::WouldFault),
    ] {
        machine.poke(leaf.at, bits);
        assert_eq!(refused::<Read, L>(&process), both(PinError::WouldFault));
        assert_eq!(refused::<Write, L>(&process), both(to_write));
    }
    machine.poke(leaf.at, leaf.bits);
    // The zero frame, as the crate itself maps it.
    process.map(A + PAGE, PAGE, RW).unwrap();
    assert_eq!(machine.get(&process, A + PAGE), 0);
    let page = range(&process, A + PAGE, 1);
    let result = forms::get::<Read, L>(Form::FastOnly, &process, page, PinFlags::empty(), 1);
    assert_eq!(result.err(), Some(PinError::WouldFault), "INV-6");
}

fn frames_outside_the_frame_table_are_never_pinned<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    process.map(A, PAGE, RW).unwrap();
    // A present leaf without the special bit, as another part of the kernel may have made it.
    machine.install(&process, A, LeafSize::Size4KiB, Pfn::new(0xfee00), P | W | U);
    for form in FORMS {
        let page = range(&process, A, 1);
        let pinned = forms::pin::<Read, L>(form, &process, page, PinFlags::empty(), 1);
        assert_eq!(pinned.err(), Some(PinError::NotPinnable), "{form:?}");
        let got = forms::get::<Write, L>(form, &process, page, PinFlags::empty(), 1);
        assert_eq!(got.err(), Some(PinError::NotPinnable), "{form:?}");
    }
}

/// INV-3: the word decides, not the entry.
fn a_shared_frame_is_not_pinned_without_a_fault<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(1, 1);
    let child = process.fork().unwrap();
    let word = machine.frame_at(&process, A).1;
    assert_eq!(refused::<Read, L>(&process), [Some(PinError::WouldFault), None], "only a plain reference");
    // Even through an entry that is writable by mistake.
    let leaf = machine.leaf(&process, A).unwrap();
    machine.poke(leaf.at, leaf.bits | W);
    assert_eq!(refused::<Write, L>(&process)[0], Some(PinError::WouldFault));
    machine.poke(leaf.at, leaf.bits);
    let now = machine.frame_at(&process, A).1;
    assert_eq!((now.refs, now.pins), (word.refs, word.pins));
    drop(child);
}

fn frozen_free_and_full_frames_are_refused<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(1, 1);
    let frame = machine.frame_at(&process, A).0;
    let page = || range(&process, A, 1);
    let slow = || forms::pin::<Write, L>(Form::Slow, &process, page(), PinFlags::empty(), 1).err();
    machine.word(frame).try_freeze(1).unwrap();
    assert_eq!(refused::<Read, L>(&process), both(PinError::WouldFault));
    assert_eq!(slow(), Some(PinError::Contended));
    machine.word(frame).unfreeze(FrameWord::<L>::MAX_REFS).unwrap();
    assert_eq!(refused::<Read, L>(&process), [None, Some(PinError::CountOverflow)]);
    machine.word(frame).try_freeze(FrameWord::<L>::MAX_REFS).unwrap();
    machine.word(frame).unfreeze(1).unwrap();
    (0..FrameWord::<L>::MAX_PINS).for_each(|_| machine.word(frame).try_pin().unwrap());
    for form in FORMS {
        let result = forms::pin::<Write, L>(form, &process, page(), PinFlags::empty(), 1);
        assert_eq!(result.err(), Some(PinError::CountOverflow), "{form:?}");
    }
    (0..FrameWord::<L>::MAX_PINS).for_each(|_| assert!(machine.word(frame).unpin(Dirty::No).is_ok()));
}

/// An entry maps a frame that nobody uses: some part of the kernel has given back what was not its own. A lockless walker, which may
/// come too late for any frame, leaves it alone and nothing is said. Who holds the entry has to get its reference; that this fails
/// is reported, and nothing was changed.
fn a_grab_that_may_fail_is_refused_and_one_that_must_not_is_reported<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(1, 1);
    let child = process.fork().unwrap();
    let frame = machine.frame_at(&process, A).0;
    let word = machine.word(frame);
    (0..2).for_each(|_| assert!(word.put().is_ok()));
    let before = machine.image(&[&process, &child]);
    assert_eq!(refused::<Read, L>(&process), both(PinError::WouldFault));
    assert_eq!(machine.statistics().bugs_caught, 0);
    assert!(machine.store(0, &process, A, 2, 1).is_err());
    assert!(forms::pin::<Read, L>(Form::Slow, &process, range(&process, A, 1), PinFlags::empty(), 1).is_err());
    assert_eq!(process.fork().err(), Some(ForkError::MalformedTable));
    before.assert_same(&machine.image(&[&process, &child]), "refused");
    word.hand_out(FrameKind::Anonymous, 0, Ownership::Shared).unwrap();
    word.try_get().unwrap();
}

/// Linux retried long-term pins without end while a page could not be moved. A page that no fault makes ready, here for want
/// of the right to write in an upper entry, ends the call.
fn a_page_that_no_fault_makes_ready_ends_the_pin<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(1, 1);
    let path = machine.path(&process, A);
    let (_, above, bits) = path[path.len() - 2];
    machine.poke(above, bits & !W);
    let before = machine.image(&[&process]);
    for form in [Form::Fast, Form::Slow, Form::Remote] {
        let result = forms::pin::<Write, L>(form, &process, range(&process, A, 1), PinFlags::empty(), 1);
        assert_eq!(result.err(), Some(PinError::Contended), "{form:?}");
    }
    before.assert_same(&machine.image(&[&process]), "refused");
    machine.poke(above, bits);
}

/// A large leaf over frames that were handed out one by one has no word that stands for all of it.
fn a_large_leaf_over_single_frames_is_refused<L: Layout>() {
    let machine = Machine::<L>::new(2048);
    let process = machine.process();
    let address = 1 << 30;
    process.map(address, LeafSize::Size2MiB.bytes(), RW).unwrap();
    let block = machine.block(LeafSize::Size2MiB);
    // Handed out again, as a single frame.
    assert!(machine.word(block).put().is_ok());
    machine.word(block).hand_out(FrameKind::Anonymous, 0, Ownership::Exclusive).unwrap();
    machine.install(&process, address, LeafSize::Size2MiB, block, P | W | U);
    let word = machine.word(block).snapshot();
    for form in FORMS {
        let some = range(&process, address + 5 * PAGE, 2 * PAGE);
        let pinned = forms::pin::<Read, L>(form, &process, some, PinFlags::empty(), 1);
        assert_eq!(pinned.err(), Some(PinError::NotPinnable), "{form:?}");
        let got = forms::get::<Read, L>(form, &process, some, PinFlags::empty(), 1);
        assert_eq!(got.err(), Some(PinError::NotPinnable), "{form:?}");
    }
    assert_eq!(machine.word(block).snapshot(), word);
    let leaf = machine.leaf(&process, address).unwrap();
    machine.poke(leaf.at, 0);
    assert!(machine.word(block).put().is_ok());
    // SAFETY: allocated with this order by `block`, and its entry is gone.
    unsafe { machine.free(block, 9) };
}

thread_local! {
    static PKRU: Cell<u32> = const { Cell::new(0) };
}

/// SDM vol. 3, 4.6.2: a key that denies access denies reads too; one that denies writes, only those.
fn protection_keys_are_obeyed_except_by_remote_pins<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let key_rights = || KeyRights::from_pkru(PKRU.get());
    let process = machine
        .process_with(SpaceOptions { key_rights: Some(key_rights), ..SpaceOptions::without_kernel_half(Levels::Four) });
    process.map(A, PAGE, MapOptions::new(RW).key(5)).unwrap();
    machine.put(&process, A, 1);
    let (access_denied, write_denied, others) = (1 << 10, 1 << 11, !(3 << 10));
    for (pkru, read, write) in [(access_denied, false, false), (write_denied, true, false), (others, true, true)] {
        PKRU.set(pkru);
        machine.cpus().set_pkru(0, pkru);
        for form in FORMS {
            let page = range(&process, A, 1);
            let none = PinFlags::empty();
            let wanted = |allowed: bool| (!allowed && form != Form::Remote).then_some(PinError::ProtectionKey);
            assert_eq!(forms::pin::<Read, L>(form, &process, page, none, 1).err(), wanted(read));
            assert_eq!(forms::pin::<Write, L>(form, &process, page, none, 1).err(), wanted(write));
            assert_eq!(forms::get::<Read, L>(form, &process, page, none, 1).err(), wanted(read));
        }
        // The emulated hardware agrees.
        assert_eq!(machine.load(0, &process, A, 1).is_ok(), read, "{pkru:#x}");
        assert_eq!(machine.store(0, &process, A, 1, 1).is_ok(), write, "{pkru:#x}");
    }
    PKRU.set(0);
    assert!(
        KeyRights::from_pkru(access_denied).permits(4, Access::Write)
            && !KeyRights::from_pkru(access_denied).permits(5, Access::Read)
    );
}

/// FORCE asks the VMA what it may be given, also when the page is there already (INV-9).
fn force_needs_the_vma_to_permit_writes_some_day<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    process.map(A, PAGE, MapOptions::new(R).max_rights(R)).unwrap();
    drop(machine.pin::<Read>(&process, A, 1).unwrap());
    for form in [Form::Fast, Form::Slow, Form::Remote] {
        let page = range(&process, A, 1);
        let result = forms::pin::<Write, L>(form, &process, page, PinFlags::FORCE, 1);
        let wanted = if form == Form::Fast {
            [PinError::AccessDenied, PinError::InvalidFlags]
        } else {
            [PinError::AccessDenied; 2]
        };
        assert!(wanted.contains(&result.err().unwrap()), "{form:?}");
    }
}

#[test]
fn count_errors_explain_themselves() {
    let errors = [CountError::Free, CountError::Frozen, CountError::NotExclusive, CountError::NotPinnable];
    assert!(errors.iter().all(|error| !error.to_string().is_empty()));
    assert_eq!(PinError::from(CountError::Overflow), PinError::CountOverflow);
    assert_eq!(PinError::from(CountError::NotPinnable), PinError::NotPinnable);
    assert_eq!(PinError::from(CountError::Frozen), PinError::Contended);
}

every_layout!(
    rights_missing_at_any_level_refuse,
    a_leaf_where_hardware_has_none_is_malformed,
    special_and_prot_none_leaves_are_left_to_the_slow_path,
    frames_outside_the_frame_table_are_never_pinned,
    a_grab_that_may_fail_is_refused_and_one_that_must_not_is_reported,
    a_shared_frame_is_not_pinned_without_a_fault,
    a_page_that_no_fault_makes_ready_ends_the_pin,
    a_large_leaf_over_single_frames_is_refused,
    protection_keys_are_obeyed_except_by_remote_pins,
    force_needs_the_vma_to_permit_writes_some_day;
    two_counters: frozen_free_and_full_frames_are_refused,
);
