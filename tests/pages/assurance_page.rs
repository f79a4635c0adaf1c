//! `docs/ASSURANCE.md` speaks of every invariant, and of nothing that does not exist.

use std::collections::BTreeSet;

use crate::{markdown, tree};

const PAGE: &str = "docs/ASSURANCE.md";

/// The numbers that follow `INV-`, with what lies between the two of `INV-1 to INV-4`.
fn invariants(text: &str) -> BTreeSet<u32> {
    let mut named = BTreeSet::new();
    let mut last: Option<u32> = None;
    for part in text.split("INV-").skip(1) {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let Ok(number) = part[..digits].parse() else { continue };
        named.extend(last.unwrap_or(number)..=number);
        last = (&part[digits..] == " to ").then_some(number);
    }
    named
}

#[test]
fn every_invariant_has_a_promise() {
    let of_model: BTreeSet<u32> = column(&tree::text("docs/MODEL.md"), "", 0);
    let promised = column(&tree::text(PAGE), "promise", 0);
    assert!(of_model.len() >= 15, "{of_model:?}");
    let missing: Vec<_> = of_model.difference(&promised).collect();
    assert!(missing.is_empty(), "no promise for INV-{missing:?}");
}

/// The invariants that a column of a table names.
fn column(page: &str, first: &str, column: usize) -> BTreeSet<u32> {
    markdown::table(page, first).rows.iter().flat_map(|row| invariants(&row[column])).collect()
}

#[test]
fn files_that_it_names_exist() {
    for text in markdown::code_spans(&tree::text(PAGE)) {
        assert!(!text.contains('/') || text.contains(' ') || tree::exists(&text), "no {text}");
    }
}

#[test]
fn ranges_of_invariants_are_read() {
    assert_eq!(invariants("(INV-1 to INV-4) and INV-12, INV-x"), BTreeSet::from([1, 2, 3, 4, 12]));
}

/// What can be counted is as many as the page says.
#[test]
fn its_numbers_are_those_of_the_tree() {
    let page = tree::text(PAGE).split_whitespace().collect::<Vec<_>>().join(" ");
    let lines_with = |file: &str, part: &str| tree::text(file).lines().filter(|line| line.contains(part)).count();
    let pairs: usize = ["guards", "pins", "replace", "trust"]
        .map(|kind| lines_with(&format!("src/must_not_compile/{kind}.rs"), "    compiles {"))
        .iter()
        .sum();
    assert!(page.contains(&format!("| {pairs} pairs |")), "{pairs} pairs of what must not compile");
    let models = tree::text("tests/models/loom/names.txt").lines().count();
    assert!(page.contains(&format!("in {models} models")), "{models} models of loom");
    let twins = ["No", "One", "Two", "Three", "Four", "Five"][lines_with("tests/threads/main.rs", "(\"twin_")];
    assert!(page.contains(&format!("{twins} twins (")), "{twins} twins under ThreadSanitizer");
}
