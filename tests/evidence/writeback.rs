//! S15: write-back leaves out what is pinned, or reads it while a device writes, or calls it clean.

use super::Case;

pub(super) const CASE: Case = Case {
    idea: "write-back skips pinned pages",
    source: "LWN, *Explicit pinning of user-space pages* (2019), S15",
    test: "writeback_that_skips_pinned_pages_never_writes_them",
    idea_fails: || reaches_disk(true),
    ours_fails: || reaches_disk(false),
    instead: "a pinned page is written from a copy, and stays dirty (the rule for pages of files, when there are any)",
};

pub(super) const IN_PLACE: Case = Case {
    idea: "a page is written back from where it is, pinned or not",
    source: "LWN, *The trouble with get_user_pages()* (2018), S15",
    test: "writeback_in_place_writes_half_of_what_a_device_writes",
    idea_fails: || checksum_on_disk(false),
    ours_fails: || checksum_on_disk(true),
    instead: "a pinned page is written from a copy; a page that is not pinned cannot be while it is written (the rule for pages of files)",
};

pub(super) const CLEAN: Case = Case {
    idea: "a page is clean when it was written back, pinned or not",
    source: "LWN, *The trouble with get_user_pages()* (2018), S15",
    test: "a_pinned_page_that_was_called_clean_loses_a_write",
    idea_fails: || dirty_by_whom(true),
    ours_fails: || dirty_by_whom(false),
    instead: "a page that is pinned for writing is never clean, so that who unpins it, in an interrupt perhaps, calls nobody",
};

/// A page with a checksum is on its way to the disk, half of it is there, when a device writes all of it. `copies`: the pinned
/// page was copied when it was looked at.
fn checksum_on_disk(copies: bool) -> Option<String> {
    let mut page = [1u8; 8];
    let sum = |page: &[u8; 8]| page.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    let (copy, checksum) = (page, sum(&page));
    let mut disk = [0; 8];
    for at in 0..8 {
        if at == 4 {
            page = [2; 8];
        }
        disk[at] = if copies { copy[at] } else { page[at] };
    }
    (sum(&disk) != checksum)
        .then(|| "the device writes while the disk reads: what is on the disk is half old, half new, under a checksum of the old".to_owned())
}

/// Written back under a pin; then the device writes once more and its pin is given back, in an interrupt, where nobody can be told.
fn dirty_by_whom(clean: bool) -> Option<String> {
    let (mut page, mut disk, mut dirty) = (1u64, 0u64, true);
    let mut write_back = |page: u64, dirty: &mut bool, pinned: bool| {
        if *dirty {
            disk = page;
            *dirty = pinned && !clean;
        }
        disk
    };
    write_back(page, &mut dirty, true);
    page = 2;
    let disk = write_back(page, &mut dirty, false);
    (disk != page).then(|| "what the device writes after that is in no page that anybody writes back: it is lost when the page is dropped".to_owned())
}

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
