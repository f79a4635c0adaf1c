//! What was asked for has a test, or says what it waits for.

use crate::bug_hall_page::exists;
use crate::{markdown, tree};

/// Each row has a cell that names tests, all of which exist, or one that says what it waits for.
fn is_shown_or_waits(heading: &str) -> Vec<Vec<String>> {
    let table = markdown::table(&tree::text("docs/MODEL.md"), heading);
    let column = |name: &str| table.heading.iter().position(|cell| cell == name).unwrap_or_else(|| panic!("no {name}"));
    let (here, shown_by) = (column("here"), column("shown by"));
    for row in &table.rows {
        let quoted = markdown::code_spans(&row[shown_by]);
        let named: Vec<(&str, &str)> = quoted.iter().filter_map(|name| name.split_once("::")).collect();
        for (module, name) in &named {
            assert!(exists(module, name), "{}: there is no test {module}::{name}", row[0]);
        }
        assert!(!named.is_empty() || row[here].contains("page kinds"), "{}: neither shown nor waiting", row[0]);
    }
    table.rows
}

#[test]
fn every_request_names_a_test_that_exists_or_what_it_waits_for() {
    let numbers: Vec<_> = is_shown_or_waits("request").into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(numbers, (1..=15).map(|n| format!("S{n}")).collect::<Vec<_>>());
    assert!(!is_shown_or_waits("also asked for").is_empty());
}
