//! S15: write-back leaves out what is pinned.

use super::Case;

pub(super) const CASE: Case = Case {
    idea: "write-back skips pinned pages",
    source: "LWN, *Explicit pinning of user-space pages* (2019), S15",
    test: "writeback_that_skips_pinned_pages_never_writes_them",
    idea_fails: || reaches_disk(true),
    ours_fails: || reaches_disk(false),
    instead: "a pinned page is written from a copy, and stays dirty (the rule for pages of files, when there are any)",
};

/// A page that is pinned for good and written from time to time; how far behind the disk is after a hundred rounds.
fn reaches_disk(skips: bool) -> Option<String> {
    let (mut page, mut disk, pinned) = (0u64, 0u64, true);
    let mut furthest = 0;
    for round in 1..=100 {
        page = round;
        if !(pinned && skips) {
            // A copy of this moment: the device may go on writing, and the page is dirty still.
            disk = page;
        }
        furthest = furthest.max(page - disk);
    }
    (furthest > 1).then(|| {
        format!("under a pin without an end data never reaches the disk: {furthest} of {page} writes are behind")
    })
}
