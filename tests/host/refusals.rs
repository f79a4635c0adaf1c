//! Every operation that is refused in the middle, for another reason than memory: each error gives back what it took.

use std::fmt::Display;

use pagepin::Access;
use pagepin::frame::{FrameWord, Layout};
use pagepin::pin::{PinFlags, Read, Write};
use pagepin::space::SpaceError;
use pagepin::{MapOptions, MemoryType, PageAddr, Pfn};

use crate::forms::{self, FORMS, Form};
use crate::machine::{A, FAR, FOREIGN, Machine, NONE, PAGE, R, RW, UNTOUCHED, range};
use crate::undo::{
    Done, Obstacle, Operation, Scene, apart, done, fault, few_pages, fork_vmas, gap, kernel_entry, limited, one_by_one,
    operation, pinning, populated, refusing, wide, with_empty_child,
};

/// INV-14 for one operation that `obstacle` stops with an error that begins with `why`.
#[track_caller]
fn refused<L: Layout>(operation: &Operation<L>, obstacle: Obstacle, why: impl Display) {
    let refused = operation.fails_without_a_trace(&obstacle, &operation.ideal(0));
    let refused = refused.unwrap_or_else(|| panic!("{}: nothing in the way, {obstacle:?}", operation.name));
    assert!(refused.why.starts_with(&why.to_string()), "{}, {obstacle:?}: {refused:?}", operation.name);
}

fn pages_of_six() -> impl Iterator<Item = u64> {
    (0..6).map(|page| A + page * PAGE)
}

/// A migration holds one of the frames, whichever.
fn a_frozen_frame_stops_forks_and_pins_without_a_trace<L: Layout>() {
    let fork = operation::<L>("fork", 4, populated, |_, scene| done(scene.process().fork()));
    for address in pages_of_six() {
        refused(&fork, Obstacle::Frozen(address), "Frozen");
        for operation in few_pages::<L>() {
            let lockless = operation.name.contains("FastOnly");
            refused(&operation, Obstacle::Frozen(address), if lockless { "WouldFault" } else { "Contended" });
        }
    }
}

/// One of the frames has as many references as it may have, and can neither be shared nor referenced.
fn a_full_count_of_references_stops_forks_and_gets_without_a_trace<L: Layout>() {
    let fork = operation::<L>("fork", 4, populated, |_, scene| done(scene.process().fork()));
    for address in pages_of_six() {
        refused(&fork, Obstacle::ManyReferences(address), "CountOverflow");
        for operation in few_pages::<L>().iter().filter(|operation| operation.name.contains("get")) {
            refused(operation, Obstacle::ManyReferences(address), "CountOverflow");
        }
    }
    let child =
        operation::<L>("fork_vmas", 4, with_empty_child, |machine, scene| fork_vmas(machine, scene, A + 6 * PAGE));
    refused(&child, Obstacle::ManyReferences(A + 5 * PAGE), "CountOverflow");
}

/// One of the frames has as many pins as it may have.
fn a_full_count_of_pins_stops_pins_without_a_trace<L: Layout>() {
    let pins = few_pages::<L>().into_iter().filter(|operation| operation.name.contains("pin"));
    // Counting to two million takes a while: where there are so many, one page and form of pins will do.
    let few = FrameWord::<L>::MAX_PINS < 1000;
    let pins: Vec<_> = pins.filter(|operation| few || operation.name.contains("Slow write")).collect();
    for address in pages_of_six().filter(|address| few || *address == A + 3 * PAGE) {
        for operation in &pins {
            refused(operation, Obstacle::ManyPins(address), "CountOverflow");
        }
    }
}

/// The budget is for the whole range or for none of it.
fn an_exhausted_budget_stops_pins_without_a_trace<L: Layout>() {
    for form in FORMS {
        for flags in [PinFlags::empty(), PinFlags::LONGTERM] {
            let pin = pinning::<Write, L>("four pages", form, 0, limited, (A, 4), flags);
            for charged in 1..=4 {
                refused(&pin, Obstacle::Charged(charged), "BudgetExceeded");
            }
        }
    }
}

/// A policy protects pinned pages, wherever in the range they are.
fn a_pinned_page_stops_protect_without_a_trace<L: Layout>() {
    for rights in [R, NONE] {
        let protect =
            operation::<L>("protect", 0, refusing, move |_, scene| done(scene.process().protect(A, 6 * PAGE, rights)));
        for address in pages_of_six() {
            refused(&protect, Obstacle::Pinned(address), format!("Pinned({:?})", PageAddr::containing(address)));
        }
    }
}

/// A process with as many VMAs as it may have can give memory back, but not in pieces.
fn the_limit_on_vmas_stops_operations_without_a_trace<L: Layout>() {
    let from = UNTOUCHED + (1 << 30);
    let all_but = |free: u64| Obstacle::ManyVmas { from, count: 65_530 - 1 - free };
    let process = |run: fn(&Scene<'_, L>) -> Result<(), SpaceError>| {
        operation::<L>("at the limit", 0, populated, move |_, scene| done(run(scene)))
    };
    let map = process(|scene| scene.process().map(UNTOUCHED, PAGE, RW));
    // SAFETY: registers of the emulated machine.
    let foreign = process(|scene| unsafe {
        scene.process().map_foreign(UNTOUCHED, PAGE, Pfn::new(0xfee0), MemoryType::UNCACHED, RW)
    });
    let hole = process(|scene| scene.process().unmap(A + PAGE, PAGE).map(drop));
    let middle = process(|scene| scene.process().protect(A + PAGE, PAGE, R));
    for operation in [map, foreign, hole, middle] {
        refused(&operation, all_but(0), "TooManyVmas");
    }
    let middle = process(|scene| scene.process().protect(A + PAGE, PAGE, R));
    refused(&middle, all_but(1), "TooManyVmas");
    let whole = process(|scene| scene.process().unmap(A, 6 * PAGE).map(drop));
    assert!(whole.fails_without_a_trace(&all_but(0), &whole.ideal(0)).is_none());
}

/// Bits of entries: present, user, page size, and one of the address, beyond all memory.
const P: u64 = 1;
const U: u64 = 1 << 2;
const LEAF: u64 = 1 << 7;
const NOWHERE: u64 = 1 << 45;

/// Tables that somebody else damaged, behind what was done already: what was done is undone.
fn damage_in_the_middle_stops_operations_without_a_trace<L: Layout>() {
    let damaged = |address, level, flipped| Obstacle::Damaged { address, level, flipped };
    let malformed = "MalformedTable";
    let fork = operation::<L>("fork", 4, populated, |_, scene| done(scene.process().fork()));
    for address in pages_of_six() {
        refused(&fork, damaged(address, 1, NOWHERE), malformed);
    }
    let fork = operation::<L>("fork", 9, wide, |_, scene| done(scene.process().fork()));
    refused(&fork, damaged(2 * FAR, 4, LEAF), malformed);
    // What the entry of the second page is missing is found by no search, but it was shared and has to be taken back.
    let fork = operation::<L>("fork", 5, kernel_entry, |_, scene| done(scene.process().fork()));
    refused(&fork, damaged(A + 5 * PAGE, 1, NOWHERE), malformed);

    for rights in [R, NONE] {
        let length = 2 * FAR + PAGE - A;
        let protect =
            operation::<L>("protect", 0, wide, move |_, scene| done(scene.process().protect(A, length, rights)));
        refused(&protect, damaged(FAR, 4, LEAF), malformed);
        refused(&protect, damaged(A, 2, U), malformed);
    }
    let length = 2 * FAR + 2 * PAGE - A;
    let discard =
        operation::<L>("discard", 0, apart, move |_, scene| done(scene.process().discard(A, length).map(drop)));
    refused(&discard, damaged(FAR, 4, LEAF), malformed);
    refused(&discard, damaged(FAR, 3, U), malformed);
    let unmap = operation::<L>("unmap", 0, apart, move |_, scene| done(scene.process().unmap(A, length).map(drop)));
    refused(&unmap, damaged(A, 3, U), malformed);
    refused(&unmap, damaged(2 * FAR + PAGE, 4, LEAF), malformed);

    let foreign = |name, rights| {
        operation::<L>(name, 0, gap, move |_, scene| {
            // SAFETY: registers of the emulated machine.
            done(unsafe {
                scene.process().map_foreign(FOREIGN, 4 * PAGE, Pfn::new(0xfee1), MemoryType::UNCACHED, rights)
            })
        })
    };
    for rights in [RW, NONE] {
        refused(&foreign("map_foreign", rights), damaged(FOREIGN + 2 * PAGE, 2, U), malformed);
        refused(&foreign("map_foreign", rights), damaged(FOREIGN + 2 * PAGE, 2, P), malformed);
        refused(&foreign("map_foreign", rights), damaged(FOREIGN + 2 * PAGE, 2, LEAF), "LargeLeaf");
    }
}

/// A fault or pin that meets damage on its way changes nothing.
fn damage_on_the_way_stops_faults_and_pins_without_a_trace<L: Layout>() {
    let fault = operation::<L>("write next to others", 0, populated, |_, scene| {
        done(fault(scene.process(), A, Access::Write).map(drop))
    });
    for level in 1..=4 {
        let obstacle = Obstacle::Damaged { address: A, level, flipped: U };
        refused(&fault, obstacle, "MalformedTable");
    }
    for form in [Form::Fast, Form::Slow, Form::Remote] {
        let pin = pinning::<Read, L>("six pages", form, 0, one_by_one, (A, 6), PinFlags::empty());
        for address in pages_of_six() {
            refused(&pin, Obstacle::Damaged { address, level: 1, flipped: U }, "MalformedTable");
            refused(&pin, Obstacle::Damaged { address, level: 1, flipped: NOWHERE }, "NotPinnable");
        }
    }
}

/// What user space asks for and is not to be had, at once.
fn bad_requests_change_nothing<L: Layout>() {
    let bad = |why, run: for<'s, 'm> fn(&'m Machine<L>, &'s Scene<'m, L>) -> Done<'s, 'm, L>| {
        let refused = operation::<L>(why, 0, populated, run).refuses();
        assert!(refused.why.starts_with(why), "{why}: {refused:?}");
    };
    bad("Overlap", |_, scene| done(scene.process().map(A - PAGE, 2 * PAGE, RW)));
    bad("AccessDenied", |_, scene| done(scene.process().map(UNTOUCHED, PAGE, MapOptions::new(RW).max_rights(R))));
    bad("InvalidKey", |_, scene| done(scene.process().map(UNTOUCHED, PAGE, MapOptions::new(RW).key(16))));
    bad("Overlap", |_, scene| {
        // SAFETY: registers of the emulated machine.
        done(unsafe { scene.process().map_foreign(A, PAGE, Pfn::new(0xfee0), MemoryType::UNCACHED, RW) })
    });
    bad("NoVma", |_, scene| done(scene.process().protect(A + 5 * PAGE, 2 * PAGE, R)));
    bad("Range", |_, scene| done(scene.process().unmap(A + 1, PAGE).map(drop)));
    bad("Range", |_, scene| done(scene.process().discard(u64::MAX - 1, 9 * PAGE).map(drop)));
    bad("AccessDenied", |_, scene| done(fault(scene.process(), A, Access::Execute).map(drop)));
    bad("NoVma", |_, scene| done(fault(scene.process(), FAR, Access::Write).map(drop)));
    bad("BufferTooSmall", |_, scene| {
        let (process, none) = (scene.process(), PinFlags::empty());
        done(forms::pin::<Write, L>(Form::Fast, process, range(process, A, 6 * PAGE), none, 0))
    });
    bad("NoVma", |_, scene| {
        let (process, long) = (scene.process(), PinFlags::LONGTERM);
        done(forms::pin::<Write, L>(Form::Slow, process, range(process, UNTOUCHED, 1 << 45), long, 8))
    });
    bad("InvalidFlags", |_, scene| {
        let (process, force) = (scene.process(), PinFlags::FORCE);
        done(forms::get::<Write, L>(Form::Slow, process, range(process, A, 6 * PAGE), force, 8))
    });
}

every_layout!(
    a_frozen_frame_stops_forks_and_pins_without_a_trace,
    a_full_count_of_pins_stops_pins_without_a_trace,
    an_exhausted_budget_stops_pins_without_a_trace,
    a_pinned_page_stops_protect_without_a_trace,
    the_limit_on_vmas_stops_operations_without_a_trace,
    damage_in_the_middle_stops_operations_without_a_trace,
    damage_on_the_way_stops_faults_and_pins_without_a_trace,
    bad_requests_change_nothing;
    two_counters: a_full_count_of_references_stops_forks_and_gets_without_a_trace,
);
