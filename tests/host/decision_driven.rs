//! Every row of the decision table, carried out by the real handler on the machine.

use std::collections::BTreeMap;

use pagepin::Access;
use pagepin::fault::decision::{Action, Refusal, Request, Row, State, all_rows};
use pagepin::fault::{Fault, FaultError, FaultOutcome};
use pagepin::frame::{FrameKind, Layout, Ownership};
use pagepin::pin::{PinError, PinFlags, Read, Write};
use pagepin::space::{Sharing, SpaceOptions};
use pagepin::{Backing, FrameRequest, FrameSource, LeafSize, MapOptions, MemoryType, ObjectId, Pfn, Rights};

use crate::machine::{A, FIRST, Machine, PAGE, Process, RW, WRITE_BACK, first_byte};

/// Where foreign memory lies: outside the arena.
const REGISTERS: Pfn = Pfn::new(0xfee0);
const NOT_DIRTY: u64 = !0x60;

/// A process whose page at `A` is in the row's state, with the row's VMA, and what else is needed to keep it so.
struct Scene<'m, L: Layout> {
    process: Process<'m, L>,
    /// Shares the page.
    child: Option<Process<'m, L>>,
    /// References that no mapping explains: (refs, pins).
    held: (u64, u64),
}

/// Builds the state through the library's own operations. `None`: the crate never makes it so.
fn scene<'m, L: Layout>(machine: &'m Machine<L>, row: &Row) -> Option<Scene<'m, L>> {
    let process = machine.process_with(SpaceOptions::without_kernel_half(pagepin::Levels::Four));
    let mut scene = Scene { process, child: None, held: (0, 0) };
    let process = &scene.process;
    if let Backing::Object { id, shared, .. } = row.backing {
        return object_scene(scene, id, shared, row);
    }
    if row.backing.is_foreign() {
        if matches!(row.state, State::Borrowed { .. }) {
            return None;
        }
        if let State::Foreign { writable } = row.state {
            if !row.max_rights.contains(row.rights) || writable != row.rights.contains(Rights::WRITE) {
                return None;
            }
            // SAFETY: registers of the emulated machine.
            unsafe { process.map_foreign(A, PAGE, REGISTERS, MemoryType::UNCACHED, row.rights).unwrap() };
            return Some(scene);
        }
        // SAFETY: as above.
        unsafe { process.map_foreign(A, PAGE, REGISTERS, MemoryType::UNCACHED, row.rights).unwrap() };
        let leaf = machine.leaf(process, A)?;
        machine.poke(leaf.at, 0);
        return Some(scene);
    }
    let writable_first = row.max_rights.contains(Rights::WRITE);
    let rights = if writable_first { RW } else { Rights::READ };
    process.map(A, PAGE, MapOptions::new(rights).max_rights(row.max_rights)).unwrap();
    match row.state {
        State::Empty => {}
        State::Zero => assert_eq!(machine.get(process, A), 0),
        State::ProtNone | State::Anonymous { .. } if !writable_first => {
            // Never writable, so its own frame comes from a read pin.
            drop(machine.pin::<Read>(process, A, 1).unwrap());
        }
        State::ProtNone | State::Anonymous { .. } => machine.put(process, A, 0x5a),
        State::Foreign { .. } => return None,
        State::Token => {
            if !writable_first {
                return None;
            }
            machine.put(process, A, 0x5a);
            assert_eq!(process.swap_out(A, PAGE).unwrap().pages, 1);
        }
        State::Borrowed { writable } => {
            let frame = machine.allocate(FrameRequest::movable(0)).unwrap();
            machine.word(frame).hand_out(FrameKind::File, 0, Ownership::Shared).unwrap();
            machine.memory().write(frame.address(), 0x5a);
            machine.install(process, A, LeafSize::Size4KiB, frame, if writable { 7 } else { 5 });
        }
    }
    let word = || machine.word(machine.leaf(process, A).unwrap().frame());
    if let State::Anonymous { frame, .. } = row.state {
        match (frame.exclusive, frame.sole) {
            (true, true) => {}
            (true, false) => {
                word().try_get().unwrap();
                scene.held = (1, 0);
            }
            (false, sole) => {
                let child = process.fork().unwrap();
                scene.child = (!sole).then_some(child);
            }
        }
    }
    process.protect(A, PAGE, row.rights).unwrap();
    if let Some(leaf) = machine.leaf(process, A) {
        // The states that protect leaves behind only on the way: the entry says less or more than the VMA.
        match row.state {
            State::ProtNone => machine.poke(leaf.at, (leaf.bits & !3) | 1 << pagepin::SOFTWARE_BITS[1]),
            State::Anonymous { writable, .. } => {
                let bits = (leaf.bits | 5) & !(1 << pagepin::SOFTWARE_BITS[1]) & !2;
                machine.poke(leaf.at, bits | if writable { 2 } else { 0 });
                pagepin::Shootdown::flush(machine, process.root(), pagepin::FlushRange::Everything);
            }
            State::Zero => {
                let bits = (leaf.bits | 5) & !(1 << pagepin::SOFTWARE_BITS[1]);
                machine.poke(leaf.at, bits);
            }
            _ => {}
        }
    }
    Some(scene)
}

/// The same for a VMA that shows an object.
fn object_scene<'m, L: Layout>(scene: Scene<'m, L>, id: ObjectId, shared: bool, row: &Row) -> Option<Scene<'m, L>> {
    let (machine, process) = (*scene.process.env(), &scene.process);
    machine.shelf().add(id, 1);
    let sharing = if shared { Sharing::Shared } else { Sharing::Private };
    let first = if row.max_rights.contains(Rights::WRITE) { RW } else { Rights::READ };
    process.map_object(A, PAGE, id, 0, sharing, MapOptions::new(first).max_rights(row.max_rights)).unwrap();
    let writes = first.contains(Rights::WRITE);
    match (row.state, shared) {
        (State::Empty, _) => {}
        (State::Token, false) if writes => {
            machine.put(process, A, 0x5a);
            assert_eq!(process.swap_out(A, PAGE).unwrap().pages, 1);
        }
        (State::Borrowed { writable: false }, false) => assert_eq!(machine.get(process, A), first_byte(0)),
        (State::Anonymous { writable: false, frame }, true) if frame.exclusive => {
            assert_eq!(machine.get(process, A), first_byte(0));
        }
        (State::Anonymous { writable: true, .. }, true) if writes => machine.put(process, A, 0x5a),
        (State::Borrowed { writable }, true) => {
            if writable {
                if !writes {
                    return None;
                }
                machine.put(process, A, 0x5a);
            }
            assert_eq!(machine.get(process, A), if writable { 0x5a } else { first_byte(0) });
            machine.begin_writeback(id, 0).unwrap();
        }
        // The rest is as in anonymous VMAs.
        _ => return None,
    }
    let writable = matches!(row.state, State::Borrowed { writable: true } | State::Anonymous { writable: true, .. });
    if writable != row.rights.contains(Rights::WRITE) && shared && writable {
        return None;
    }
    if row.rights.is_empty() && row.state != State::Empty && row.state != State::Token {
        return None;
    }
    process.protect(A, PAGE, row.rights).unwrap();
    Some(scene)
}

/// Asks the handler, or for the pin requests the slow path of the pin family.
fn ask<L: Layout>(
    machine: &Machine<L>,
    process: &Process<'_, L>,
    request: Request,
) -> Result<Option<FaultOutcome>, Refused> {
    let fault = |access| {
        let fault = Fault { address: A + 5, access, key_denied: false, malformed_table: false };
        process.fault(fault).map(Some).map_err(Refused::Fault)
    };
    match request {
        Request::Read => fault(Access::Read),
        Request::Write => fault(Access::Write),
        Request::Execute => fault(Access::Execute),
        Request::Unshare => {
            machine.pin_slow::<Read>(process, A, 1, PinFlags::empty()).map(|_| None).map_err(Refused::Pin)
        }
        Request::ForcedWrite => {
            machine.pin_slow::<Write>(process, A, 1, PinFlags::FORCE).map(|_| None).map_err(Refused::Pin)
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Refused {
    Fault(FaultError),
    Pin(PinError),
}

fn expected_outcome(action: Action) -> Option<FaultOutcome> {
    Some(match action {
        Action::Nothing => FaultOutcome::Spurious,
        Action::MapZero => FaultOutcome::MappedZero,
        Action::MapFresh { .. } => FaultOutcome::MappedFresh,
        Action::Reuse | Action::Claim { .. } => FaultOutcome::Reused,
        Action::Copy { .. } => FaultOutcome::Copied,
        _ => return None,
    })
}

/// A row of a VMA that shows an object: what is mapped afterwards, whose it is, and what it holds.
fn check_object_row<L: Layout>(row: &Row) {
    let machine = Machine::<L>::new(48);
    let Some(scene) = scene(&machine, row) else { return machine.clear_shelf() };
    let Backing::Object { id, shared, .. } = row.backing else { unreachable!() };
    if shared && row.request == Request::ForcedWrite && row.rights.contains(Rights::WRITE) {
        // It is an ordinary write.
        drop(scene);
        return machine.clear_shelf();
    }
    let process = &scene.process;
    let before = machine.leaf(process, A);
    let result = ask(&machine, process, row.request);
    let after = machine.leaf(process, A);
    let closed = matches!(row.state, State::Borrowed { .. }) && shared;
    let writes = matches!(row.request, Request::Write | Request::ForcedWrite);
    if let Action::Refuse(_) = row.action {
        assert!(matches!(result, Err(Refused::Fault(FaultError::AccessDenied) | Refused::Pin(PinError::AccessDenied))));
        assert_eq!(before, after, "{row:?}");
    } else if closed && row.request == Request::Unshare {
        assert_eq!(result, Err(Refused::Pin(PinError::NotReady(WRITE_BACK))), "{row:?}");
    } else {
        assert!(result.is_ok(), "{row:?}: {result:?}");
        let leaf = after.unwrap_or_else(|| panic!("{row:?}: nothing is mapped"));
        let of_object = machine.shelf().frame(id, 0) == Some(leaf.frame());
        let writable = Machine::<L>::is_writable(leaf.bits);
        let wanted = match row.state {
            State::Token => 0x5a,
            _ if before.is_some_and(|leaf| Machine::<L>::is_writable(leaf.bits)) => 0x5a,
            _ => first_byte(0),
        };
        assert_eq!(machine.memory().read(leaf.frame().address()), wanted, "{row:?}");
        if shared {
            assert!(of_object && !leaf.is_special(), "{row:?}: {leaf:x?}");
            assert!(writable || !writes, "{row:?}: {leaf:x?}");
            // Nobody writes without the object's knowing.
            assert_eq!(writable, machine.shelf().writes() != 0, "{row:?}: {leaf:x?}");
        } else {
            let own = writes || row.request == Request::Unshare || row.state == State::Token;
            assert_eq!((of_object, leaf.is_borrowed()), (!own, !own), "{row:?}: {leaf:x?}");
            assert_eq!(writable, writes && row.rights.contains(Rights::WRITE), "{row:?}: {leaf:x?}");
        }
    }
    machine.audit(&[process], &BTreeMap::new());
    drop(scene);
    machine.clear_shelf();
}

fn check_row<L: Layout>(row: &Row) {
    if matches!(row.backing, Backing::Object { .. }) {
        return check_object_row::<L>(row);
    }
    let machine = Machine::<L>::new(48);
    let Some(scene) = scene(&machine, row) else { return };
    let process = &scene.process;
    let before = machine.leaf(process, A);
    let content = before.map(|leaf| if leaf.is_special() { 0 } else { machine.memory().read(leaf.frame().address()) });
    let result = ask(&machine, process, row.request);
    let after = machine.leaf(process, A);
    let same_mapping = before.map(|leaf| leaf.bits & NOT_DIRTY) == after.map(|leaf| leaf.bits & NOT_DIRTY);
    match row.action {
        Action::Refuse(refusal) => {
            let wanted = match (row.request, refusal) {
                (Request::Unshare | Request::ForcedWrite, Refusal::Foreign) => Refused::Pin(PinError::NotPinnable),
                (Request::Unshare | Request::ForcedWrite, Refusal::Denied) => Refused::Pin(PinError::AccessDenied),
                (_, Refusal::Foreign) => Refused::Fault(FaultError::Foreign),
                (_, Refusal::Denied) => Refused::Fault(FaultError::AccessDenied),
            };
            // A forced write to foreign memory is refused for either reason.
            let either = row.backing.is_foreign() && result == Err(Refused::Pin(PinError::NotPinnable));
            assert!(either || result == Err(wanted), "{row:?}: {result:?}");
            assert!(same_mapping, "{row:?}: refused, but changed to {after:x?}");
        }
        Action::Bring => {
            assert!(result.is_ok(), "{row:?}: {result:?}");
            let leaf = after.unwrap_or_else(|| panic!("{row:?}: nothing is mapped"));
            assert_eq!(machine.memory().read(leaf.frame().address()), 0x5a, "{row:?}");
            assert_eq!(machine.slots().holders().len(), 0, "{row:?}: the token is gone");
        }
        // The state behind the prot-none entry is that of an exclusive frame.
        Action::RestoreRights => {
            assert!(result.is_ok(), "{row:?}: {result:?}");
            let leaf = after.unwrap();
            assert!(leaf.is_present() && leaf.frame() == before.unwrap().frame(), "{row:?}: {leaf:x?}");
        }
        action => {
            let outcome = result.unwrap_or_else(|error| panic!("{row:?}: {error:?}"));
            if outcome.is_some() {
                assert_eq!(outcome, expected_outcome(action), "{row:?}");
            }
            let leaf = after.unwrap_or_else(|| panic!("{row:?}: nothing is mapped"));
            let writable = Machine::<L>::is_writable(leaf.bits);
            let frame = leaf.frame();
            let stays = before.is_some_and(|leaf| leaf.frame() == frame);
            match action {
                Action::Nothing => assert!(same_mapping, "{row:?}: {after:x?}"),
                Action::MapZero => assert!(frame == Pfn::new(FIRST) && leaf.is_special() && !writable, "{row:?}"),
                Action::MapFresh { writable: wanted } => assert!(!stays && writable == wanted, "{row:?}: {leaf:x?}"),
                Action::Reuse => assert!(stays && writable, "{row:?}: {leaf:x?}"),
                Action::Claim { writable: wanted } => assert!(stays && writable == wanted, "{row:?}: {leaf:x?}"),
                Action::Copy { writable: wanted } => assert!(!stays && writable == wanted, "{row:?}: {leaf:x?}"),
                other => unreachable!("{other:?} in an anonymous VMA with nothing elsewhere"),
            }
            if !leaf.is_special() {
                let byte = machine.memory().read(frame.address());
                assert_eq!(byte, content.unwrap_or(0), "{row:?}: the bytes changed");
                if action != Action::Nothing {
                    assert!(machine.word(frame).snapshot().exclusive, "{row:?}");
                }
            }
        }
    }
    let borrowed = matches!(row.state, State::Borrowed { .. }) && same_mapping;
    if row.backing == Backing::Anonymous && !borrowed {
        let mut held = BTreeMap::new();
        if let Some(leaf) = before.filter(|leaf| scene.held.0 > 0 && !leaf.is_special()) {
            held.insert(leaf.frame(), scene.held);
        }
        let spaces: Vec<_> = std::iter::once(process).chain(scene.child.as_ref()).collect();
        machine.audit(&spaces, &held);
    }
    if scene.held.0 > 0 {
        let frame = before.unwrap().frame();
        assert!(machine.word(frame).put().is_ok());
    }
}

fn every_row_is_carried_out_as_decided<L: Layout>() {
    let mut rows = 0;
    for row in all_rows() {
        check_row::<L>(&row);
        rows += 1;
    }
    assert_eq!(rows, 960);
}

/// A claim that fails because a lockless walker holds the frame for a moment becomes a copy, which is always right.
fn a_claim_that_loses_to_a_walker_copies<L: Layout>() {
    let machine = Machine::<L>::new(48);
    let process = machine.populated(1, 9);
    drop(process.fork().unwrap());
    let (frame, word) = machine.frame_at(&process, A);
    assert!(word.is_sole() && !word.exclusive);
    machine.word(frame).try_get().unwrap();
    let fault = Fault { address: A, access: Access::Write, key_denied: false, malformed_table: false };
    assert_eq!(process.fault(fault), Ok(FaultOutcome::Copied));
    assert_ne!(machine.frame_at(&process, A).0, frame);
    assert_eq!(machine.get(&process, A), 9);
    assert!(matches!(machine.word(frame).put(), Ok(pagepin::frame::Released::Last { .. })));
    // SAFETY: that was the last reference.
    unsafe { pagepin::FrameSource::free(&machine, frame, 0) };
}

/// Where hardware sets neither accessed nor dirty, a fault on an entry that permits the access does: it would come back for ever.
fn a_fault_sets_accessed_and_dirty_where_they_are_missing<L: Layout>() {
    for (access, set) in [(Access::Read, 0x20), (Access::Write, 0x60)] {
        let machine = Machine::<L>::new(48);
        let process = machine.populated(1, 9);
        let leaf = machine.leaf(&process, A).unwrap();
        machine.poke(leaf.at, leaf.bits & NOT_DIRTY);
        let added = machine.entries_added();
        let fault = || process.fault(Fault { address: A, access, key_denied: false, malformed_table: false });
        assert_eq!(fault(), Ok(FaultOutcome::Spurious));
        assert_eq!(machine.leaf(&process, A).unwrap().bits, leaf.bits & NOT_DIRTY | set, "{access:?}");
        assert_eq!(machine.entries_added(), added + 1);
        assert_eq!(fault(), Ok(FaultOutcome::Spurious));
        assert_eq!(machine.entries_added(), added + 1, "nothing to add");
    }
}

/// A processor that needs a barrier before it sees a new entry is told of each.
fn the_shootdown_is_told_of_entries_that_were_added<L: Layout>() {
    let machine = Machine::<L>::new(48);
    let process = machine.process();
    process.map(A, 2 * PAGE, RW).unwrap();
    let told = |what: &str, work: &dyn Fn()| {
        let before = machine.entries_added();
        work();
        assert!(machine.entries_added() > before, "{what}");
    };
    told("the zero frame", &|| assert_eq!(machine.get(&process, A), 0));
    told("a copy", &|| machine.put(&process, A, 1));
    told("a cleared frame", &|| machine.put(&process, A + PAGE, 1));
    told("other rights", &|| process.protect(A, PAGE, Rights::empty()).unwrap());
    told("rights again", &|| process.protect(A, PAGE, RW).unwrap());
    drop(process.fork().unwrap());
    told("writable again", &|| machine.put(&process, A, 1));
}

/// Without a zero frame a read gets a cleared frame of its own, read-only until it is written.
fn without_a_zero_frame_reads_get_a_frame<L: Layout>() {
    let machine = Machine::<L>::new(48);
    machine.without_zero_frame();
    let process = machine.process();
    process.map(A, PAGE, RW).unwrap();
    assert_eq!(machine.get(&process, A), 0);
    let (frame, word) = machine.frame_at(&process, A);
    assert!(word.exclusive && !Machine::<L>::is_writable(machine.leaf(&process, A).unwrap().bits));
    machine.put(&process, A, 1);
    assert_eq!(machine.frame_at(&process, A).0, frame, "reused");
}

/// Hardware sets accessed and dirty while the handler changes the entry: both are kept.
fn bits_set_by_hardware_meanwhile_are_kept<L: Layout>() {
    let machine = Machine::<L>::new(48);
    let process = machine.populated(1, 9);
    process.protect(A, PAGE, Rights::READ).unwrap();
    let leaf = machine.leaf(&process, A).unwrap();
    machine.poke(leaf.at, leaf.bits & NOT_DIRTY);
    let hardware = || machine.poke(leaf.at, leaf.bits & NOT_DIRTY | 0x60);
    machine.before_exchange(hardware, || process.protect(A, PAGE, Rights::READ | Rights::EXECUTE).unwrap());
    let now = machine.leaf(&process, A).unwrap().bits;
    assert_eq!(now & 0x60, 0x60);
    assert_eq!(now >> 63, 0);
}

every_layout!(
    every_row_is_carried_out_as_decided,
    a_claim_that_loses_to_a_walker_copies,
    a_fault_sets_accessed_and_dirty_where_they_are_missing,
    the_shootdown_is_told_of_entries_that_were_added,
    without_a_zero_frame_reads_get_a_frame,
    bits_set_by_hardware_meanwhile_are_kept,
);
