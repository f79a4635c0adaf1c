//! The host tests: the library on an emulated machine (see `machine`), one file per topic.

#[path = "../evidence/mod.rs"]
mod evidence;
#[path = "../machine/kept.rs"]
mod kept;
#[path = "../kit/mod.rs"]
mod kit;
#[path = "../machine/mod.rs"]
mod machine;
#[path = "../matrix/mod.rs"]
mod matrix;
#[path = "../oracle/mod.rs"]
mod oracle;

/// Runs each generic test for every layout of the frame word, and some but for one: those after `many_at_a_time` hold gets and
/// pins of one frame, or more than `Split23x4x4` counts, those after `told_apart` have more references than `Biased10` tells
/// from pins, those after `two_counters` are neither's. What is true of these two instead is in `layouts`. Those after `long` take
/// long, and run in one layout of two counters and in that of one.
///
/// With `--cfg pagepin_one_layout` there is `Wide` alone: a quarter of the code to compile, which is what a mutant costs.
macro_rules! every_layout {
    (
        $($name:ident),* $(,)?
        $(; many_at_a_time: $($many:ident),* $(,)?)?
        $(; told_apart: $($apart:ident),* $(,)?)?
        $(; two_counters: $($two:ident),* $(,)?)?
        $(; long: $($long:ident),* $(,)?)?
    ) => {
        every_layout!(@ wide Wide: $($name)* $($($many)*)? $($($apart)*)? $($($two)*)? $($($long)*)?);
        #[cfg(not(pagepin_one_layout))]
        every_layout!(@ split23x8 Split23x8: $($name)* $($($many)*)? $($($apart)*)? $($($two)*)?);
        #[cfg(not(pagepin_one_layout))]
        every_layout!(@ split23x4x4 Split23x4x4: $($name)* $($($apart)*)?);
        #[cfg(not(pagepin_one_layout))]
        every_layout!(@ biased10 Biased10: $($name)* $($($many)*)? $($($long)*)?);
    };
    (@ $module:ident $layout:ident: $($name:ident)*) => {
        mod $module {
            $(#[test] fn $name() { super::$name::<pagepin::frame::$layout>(); })*
        }
    };
}

/// Random tests have so many cases, or as many as the environment says.
fn random_cases(cases: u32) -> proptest::prelude::ProptestConfig {
    let asked_for = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let cases = asked_for.unwrap_or(cases);
    proptest::prelude::ProptestConfig { cases, failure_persistence: None, ..Default::default() }
}

mod adapters;
mod answers;
mod batches;
mod block_charges;
mod boot_memory;
mod bug_hall;
mod decision_driven;
mod decision_table;
mod device_frames;
mod drivers;
mod elsewhere;
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
mod growth;
mod inspect;
mod ipi_shootdown;
mod kernel_bits;
mod kernel_half;
mod layouts;
mod lazily_freed;
mod ledger;
mod lend;
mod long_term;
mod matrix_here;
mod memory_types;
mod merge;
mod mm_lock;
mod moves;
mod object_pages;
mod object_pins;
mod objects_random;
mod pin_family;
mod pin_terms;
mod pinned_page;
mod pinned_policies;
mod placement;
mod populate;
mod protect;
mod random;
mod ranges;
mod references;
mod refusals;
mod relocate;
mod revoke;
mod side_by_side;
#[cfg(all(feature = "instructions", target_arch = "x86_64"))]
mod sizes;
mod sole;
mod split_leaf;
mod split_word;
mod staying;
mod steps;
mod stored;
mod the_machine;
mod tlb;
mod undo;
mod unmap;
mod unpinnable;
mod vma_locks;
mod vmas;
mod walker_races;
mod walker_refusals;
mod walker_runs;
