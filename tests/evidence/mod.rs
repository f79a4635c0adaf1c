//! Ideas that were proposed and refused, each as a small trial that shows the failure that was predicted, beside what the library
//! does. No interface: what is here is for the argument. `docs/EVIDENCE.md` is made from it.

mod charge;
mod derived;
mod mapcount;
mod mapping;
mod one_pinner;
mod writeback;

use std::fmt::Write as _;

/// An idea, and what came of it.
struct Case {
    idea: &'static str,
    /// Where it was argued.
    source: &'static str,
    test: &'static str,
    /// What the idea does wrong, tried out.
    idea_fails: fn() -> Option<String>,
    /// What the library does wrong in the same situation: nothing.
    ours_fails: fn() -> Option<String>,
    instead: &'static str,
}

const CASES: [Case; 9] = [
    derived::CASE,
    mapcount::REUSE,
    mapcount::UNSHARE,
    mapping::CASE,
    one_pinner::CASE,
    writeback::CASE,
    writeback::IN_PLACE,
    writeback::CLEAN,
    charge::CASE,
];

macro_rules! evidence {
    ($($name:ident: $case:expr;)*) => {$(
        #[test]
        fn $name() {
            let case: Case = $case;
            assert_eq!(case.test, stringify!($name));
            assert!((case.idea_fails)().is_some(), "it does not fail: {}", case.idea);
            assert_eq!((case.ours_fails)(), None);
        }
    )*};
}

evidence! {
    references_minus_mappings_see_pins_that_are_none: derived::CASE;
    reuse_by_map_count_shows_what_is_written_later: mapcount::REUSE;
    unshare_by_map_count_loses_coherence: mapcount::UNSHARE;
    a_count_in_the_mapping_outlives_the_mapping: mapping::CASE;
    one_pinner_for_everybody_refuses_the_second_reader: one_pinner::CASE;
    writeback_that_skips_pinned_pages_never_writes_them: writeback::CASE;
    writeback_in_place_writes_half_of_what_a_device_writes: writeback::IN_PLACE;
    a_pinned_page_that_was_called_clean_loses_a_write: writeback::CLEAN;
    charging_the_first_pin_leaves_pins_that_nobody_paid_for: charge::CASE;
}

fn page() -> String {
    let mut page = String::from(
        "# Evidence\n\nIdeas that were argued for on the Linux memory-management list and elsewhere, and that pagepin does not follow. \
         Each is a small\ntrial in `tests/evidence` that runs with the host tests: the idea has to fail there, and what the library \
         does must not. This\npage is printed by them (`PAGEPIN_BLESS=1 cargo test --all-features --test host evidence` rewrites it).\n\n\
         | idea | what goes wrong | instead | test | argued in |\n|---|---|---|---|---|\n",
    );
    for case in CASES {
        let failure = (case.idea_fails)().unwrap_or_else(|| "nothing".to_owned());
        let _ = writeln!(
            page,
            "| {} | {failure} | {} | `evidence::{}` | {} |",
            case.idea, case.instead, case.test, case.source
        );
    }
    page.push_str("\nThe layouts that lost the argument are not refused: they are there, measured side by side.\n");
    page
}

#[test]
fn the_page_of_evidence_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/EVIDENCE.md");
    let page = page();
    if std::env::var_os("PAGEPIN_BLESS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == page, "docs/EVIDENCE.md differs from the tests; PAGEPIN_BLESS=1 rewrites it");
}
