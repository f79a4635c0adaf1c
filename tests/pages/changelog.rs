//! `CHANGELOG.md` keeps its form: versions, and under each the six kinds of change.

use pulldown_cmark::HeadingLevel;

use crate::{markdown, tree};

const KINDS: [&str; 6] = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];

/// Whether a heading is `[Unreleased]`, or a version and its day.
fn is_version(heading: &str) -> bool {
    let is_day = |day: &str| day.len() == 10 && day.chars().all(|c| c.is_ascii_digit() || c == '-');
    heading == "[Unreleased]" || heading.split_once("] - ").is_some_and(|(_, day)| is_day(day))
}

#[test]
fn changes_stand_under_their_kind() {
    let headings = markdown::headings(&tree::text("CHANGELOG.md"));
    let mut kinds = Vec::new();
    for (level, heading, _) in &headings[1..] {
        match level {
            HeadingLevel::H2 => {
                assert!(is_version(heading), "`{heading}` is no version");
                kinds.clear();
            }
            _ => {
                let kind = KINDS.iter().position(|kind| kind == heading);
                let kind = kind.unwrap_or_else(|| panic!("`{heading}` is no kind of change"));
                assert!(kinds.last().is_none_or(|last| *last < kind), "{heading} comes twice, or too late");
                kinds.push(kind);
            }
        }
    }
    assert_eq!(headings.get(1).map(|(_, heading, _)| &heading[..]), Some("[Unreleased]"));
    assert!(!kinds.is_empty(), "a version without changes");
}
