//! The host tests: the library on an emulated machine (see `machine`), one file per topic.

#[path = "../machine/mod.rs"]
mod machine;
#[path = "../oracle/mod.rs"]
mod oracle;

/// Runs each generic test for every layout of the frame word.
macro_rules! both_layouts {
    ($($name:ident),* $(,)?) => {
        mod wide {
            $(#[test] fn $name() { super::$name::<pagepin::frame::Wide>(); })*
        }
        mod split {
            $(#[test] fn $name() { super::$name::<pagepin::frame::Split23x8>(); })*
        }
    };
}

mod adapters;
mod boot_memory;
mod bug_hall;
mod decision_driven;
mod decision_table;
mod embedding;
mod errors;
mod extras;
mod failures;
mod fetches;
mod fork_cow;
mod fork_entries;
mod forms;
mod frame_model;
mod frame_source;
mod frame_word;
mod mm_lock;
mod pin_family;
mod pin_terms;
mod protect;
mod random;
mod ranges;
mod refusals;
mod the_machine;
mod tlb;
mod undo;
mod unmap;
mod vma_locks;
mod vmas;
mod walker_races;
mod walker_refusals;
mod walker_runs;
