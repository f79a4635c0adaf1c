//! What was asked for has a test, or says what it waits for.

use crate::bug_hall_page::exists;
use crate::{markdown, tree};

#[test]
fn every_request_names_a_test_that_exists_or_what_it_waits_for() {
    let page = tree::text("docs/MODEL.md");
    let tables = markdown::tables(&page);
    let table = tables.iter().find(|table| table.heading.last().is_some_and(|cell| cell == "shown by"));
    let rows = &table.expect("the table of what was asked for").rows;
    assert_eq!(
        rows.iter().map(|row| row[0].clone()).collect::<Vec<_>>(),
        (1..=15).map(|n| format!("S{n}")).collect::<Vec<_>>()
    );
    for row in rows {
        let quoted = markdown::code_spans(&row[3]);
        let named: Vec<(&str, &str)> = quoted.iter().filter_map(|name| name.split_once("::")).collect();
        for (module, name) in &named {
            assert!(exists(module, name), "{}: there is no test {module}::{name}", row[0]);
        }
        assert!(!named.is_empty() || row[2].contains("page kinds"), "{}: neither shown nor waiting", row[0]);
    }
}
