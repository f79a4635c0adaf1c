//! S12: how often the pages of a file are pinned is counted in the file's mapping.

use super::Case;

pub(super) const CASE: Case = Case {
    idea: "pins are counted in the file mapping of their pages",
    source: "LWN, *The trouble with get_user_pages()* (2018), S12",
    test: "a_count_in_the_mapping_outlives_the_mapping",
    idea_fails: || truncate_and_unpin(true),
    ours_fails: || truncate_and_unpin(false),
    instead: "the count is in the frame's word, which is there as long as the frame is",
};

/// A file as far as this needs it: frame numbers, and a count.
struct Mapping {
    alive: bool,
    pins: u64,
}

/// A page of a file is pinned, the file is truncated and its mapping goes, and then the pin is given back.
fn truncate_and_unpin(in_mapping: bool) -> Option<String> {
    let mut mappings = vec![Mapping { alive: true, pins: 0 }];
    // The frame knows its mapping, by number, until the page leaves it.
    let (mut of, mut word) = (Some(0), 0);
    let pin = |mappings: &mut Vec<Mapping>, of: Option<usize>, word: &mut u64| match of {
        Some(mapping) if in_mapping => mappings[mapping].pins += 1,
        _ => *word += 1,
    };
    pin(&mut mappings, of, &mut word);
    // Truncation: the page leaves its mapping, which is freed; another file is opened where it was.
    of = of.filter(|_| !in_mapping);
    mappings[0] = Mapping { alive: false, pins: mappings[0].pins };
    // The release: whose count is it?
    match of {
        None if in_mapping => {
            let left = &mappings[0];
            let why = "the page has left the mapping before its pin is given back: what is counted down is freed, or somebody else's";
            (!left.alive && left.pins == 1).then(|| why.to_owned())
        }
        _ => {
            word -= 1;
            (word != 0).then(|| "the count is wrong".to_owned())
        }
    }
}
