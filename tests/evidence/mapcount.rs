//! S6: whether a page may be written in place, or is this mm's own, by how many map it.

use pagepin::frame::Wide;
use pagepin::pin::Read;

use super::Case;
use crate::machine::{A, Machine, PAGE};

pub(super) const REUSE: Case = Case {
    idea: "a write fault reuses a page that is mapped once",
    source: "CVE-2020-29374, LWN, *Patching until the COWs come home* (2021), S6",
    test: "reuse_by_map_count_shows_what_is_written_later",
    idea_fails: || {
        child_sees(true)
            .then(|| "a child that keeps a reference and unmaps reads what its parent writes later".to_owned())
    },
    ours_fails: || child_sees(false).then(|| "the child sees it".to_owned()),
    instead: "reuse only if every reference is this mapping (INV-7)",
};

pub(super) const UNSHARE: Case = Case {
    idea: "a read pin needs no copy of a page that is mapped once",
    source: "LWN, *Patching until the COWs come home* (2021), S6",
    test: "unshare_by_map_count_loses_coherence",
    idea_fails: || {
        pin_is_stale(true)
            .then(|| "fork after the pin, then a write: the device reads a page that its process has left".to_owned())
    },
    ours_fails: || pin_is_stale(false).then(|| "the device reads an old page".to_owned()),
    instead: "a pin makes the page exclusive, and keeps it so (INV-3, INV-11)",
};

/// The child references the page, unmaps it, and reads what its parent has written.
fn child_sees(by_map_count: bool) -> bool {
    let machine = Machine::<Wide>::new(64);
    let parent = machine.populated(1, 1);
    let child = parent.fork().unwrap();
    let kept = machine.reference::<Read>(&child, A, PAGE).unwrap();
    let frame = kept.runs()[0].first();
    child.unmap(A, PAGE).unwrap();
    let mapped_once = machine.leaves(&parent).0.iter().filter(|leaf| leaf.frame() == frame).count() == 1;
    if by_map_count && mapped_once {
        machine.memory().write(frame.address(), 42);
    } else {
        machine.put(&parent, A, 42);
    }
    machine.memory().read(frame.address()) == 42
}

/// A page is pinned for reading, its process forks and writes, and the device reads what it has pinned.
fn pin_is_stale(by_map_count: bool) -> bool {
    let machine = Machine::<Wide>::new(64);
    let parent = machine.populated(1, 1);
    let child = parent.fork().unwrap();
    // Mapped by both, so this much is agreed: it is copied for the pin. When the child has gone it is mapped once.
    drop(child);
    let (frame, pin, get) = if by_map_count {
        let get = machine.reference::<Read>(&parent, A, PAGE).unwrap();
        (get.runs()[0].first(), None, Some(get))
    } else {
        let pin = machine.pin::<Read>(&parent, A, PAGE).unwrap();
        (pin.runs()[0].first(), Some(pin), None)
    };
    let second = parent.fork().unwrap();
    machine.put(&parent, A, 42);
    let stale = machine.memory().read(frame.address()) != 42;
    drop((second, pin, get));

    stale
}
