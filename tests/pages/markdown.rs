//! Markdown, as far as the tests ask: tables, links, code and headings.

use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// A table, as it is written.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) place: Range<usize>,
    pub(crate) heading: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

fn events(page: &str) -> impl Iterator<Item = (Event<'_>, Range<usize>)> {
    Parser::new_ext(page, Options::ENABLE_TABLES).into_offset_iter()
}

pub(crate) fn tables(page: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for (event, place) in events(page) {
        match event {
            Event::Start(Tag::Table(_)) => tables.push(Table { place, heading: Vec::new(), rows: Vec::new() }),
            Event::Start(Tag::TableRow) => tables.last_mut().expect("a row is in a table").rows.push(Vec::new()),
            Event::Start(Tag::TableCell) => {
                let table = tables.last_mut().expect("a cell is in a table");
                // A row's borders are no part of a cell.
                let cell = page[place].trim_matches('|').trim().to_owned();
                table.rows.last_mut().unwrap_or(&mut table.heading).push(cell);
            }
            _ => {}
        }
    }
    tables
}

/// The one table whose first column has this heading.
pub(crate) fn table(page: &str, first: &str) -> Table {
    let mut found = tables(page).into_iter().filter(|table| table.heading.first().is_some_and(|cell| cell == first));
    let table = found.next().unwrap_or_else(|| panic!("no table of `{first}`"));
    assert!(found.next().is_none(), "two tables of `{first}`");
    table
}

/// What is written as code within lines of text.
pub(crate) fn code_spans(page: &str) -> Vec<String> {
    let code = |(event, _)| if let Event::Code(text) = event { Some(text.into_string()) } else { None };
    events(page).filter_map(code).collect()
}

/// Where links and pictures point.
pub(crate) fn links(page: &str) -> Vec<String> {
    let target = |(event, _)| match event {
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => Some(dest_url.into_string()),
        _ => None,
    };
    events(page).filter_map(target).collect()
}

/// The fenced blocks of code: what follows the fence, and the code.
pub(crate) fn fences(page: &str) -> Vec<(String, String)> {
    let mut fences = Vec::new();
    let mut inside = false;
    for (event, _) in events(page) {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(kind))) => {
                inside = true;
                fences.push((kind.into_string(), String::new()));
            }
            Event::End(TagEnd::CodeBlock) => inside = false,
            Event::Text(text) if inside => fences.last_mut().expect("its beginning was seen").1.push_str(&text),
            _ => {}
        }
    }
    fences
}

/// Level, text and place of each heading.
pub(crate) fn headings(page: &str) -> Vec<(HeadingLevel, String, usize)> {
    let mut headings = Vec::new();
    let mut inside = false;
    for (event, place) in events(page) {
        match event {
            Event::Start(Tag::Heading { level, .. }) => {
                inside = true;
                headings.push((level, String::new(), place.start));
            }
            Event::End(TagEnd::Heading(_)) => inside = false,
            Event::Text(text) | Event::Code(text) if inside => {
                headings.last_mut().expect("its beginning was seen").1.push_str(&text);
            }
            _ => {}
        }
    }
    headings
}

/// The fragments by which links name the headings.
pub(crate) fn anchors(page: &str) -> Vec<String> {
    let anchor = |text: &str| -> String {
        let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings(page).iter().map(|(_, text, _)| anchor(text)).collect()
}

/// A heading and all that stands under it.
pub(crate) fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let all = headings(page);
    let at = all.iter().position(|(_, text, _)| text == heading).unwrap_or_else(|| panic!("no section `{heading}`"));
    let (level, _, start) = all[at];
    let end = all[at + 1..].iter().find(|(next, _, _)| *next <= level).map_or(page.len(), |(_, _, start)| *start);
    &page[start..end]
}

#[test]
fn tables_are_read_as_they_are_written() {
    let page = "# A\n\n| a | `b` |\n|---|---:|\n| [x](y) | `p \\| q` |\n| | 2 |\n\nText | no table\n";
    let [table] = &tables(page)[..] else { panic!("one table") };
    assert_eq!(table.heading, ["a", "`b`"]);
    assert_eq!(table.rows, [["[x](y)", "`p \\| q`"], ["", "2"]]);
    assert!(page[table.place.clone()].starts_with("| a |") && page[table.place.clone()].ends_with("| 2 |\n"));
}

#[test]
fn code_and_links_are_told_apart() {
    let page = "## A `b` (c)\n[x](y#z) `[no](link)` ![p](q)\n\n```rust,no_run\n`a`\n\nb\n```\n### D\n## E\n";
    assert_eq!(links(page), ["y#z", "q"]);
    assert_eq!(code_spans(page), ["b", "[no](link)"]);
    assert_eq!(fences(page), [("rust,no_run".into(), "`a`\n\nb\n".into())]);
    assert_eq!(anchors(page), ["a-b-c", "d", "e"]);
    assert_eq!(section(page, "D"), "### D\n");
    assert!(section(page, "A b (c)").ends_with("### D\n"));
}
