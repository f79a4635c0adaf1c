//! S15: write-back leaves out what is pinned, or reads it while a device writes, or calls it clean.

use pagepin::ObjectId;
use pagepin::frame::{CountError, Wide};
use pagepin::pin::Write;
use pagepin::space::Sharing;

use super::Case;
use crate::machine::{A, Machine, PAGE, Process, RW};

pub(super) const CASE: Case = Case {
    idea: "write-back skips pinned pages",
    source: "LWN, *Explicit pinning of user-space pages* (2019), S15",
    test: "writeback_that_skips_pinned_pages_never_writes_them",
    idea_fails: || reaches_disk(true),
    ours_fails: || reaches_disk(false),
    instead: "a pinned page is written from a copy (`FrameWord::try_close` says that it is pinned), and stays dirty",
};

pub(super) const IN_PLACE: Case = Case {
    idea: "a page is written back from where it is, pinned or not",
    source: "LWN, *The trouble with get_user_pages()* (2018), S15",
    test: "writeback_in_place_writes_half_of_what_a_device_writes",
    idea_fails: || checksum_on_disk(false),
    ours_fails: || checksum_on_disk(true),
    instead: "a pinned page is written from a copy; one that is not is closed, and cannot be pinned while it is written",
};

pub(super) const CLEAN: Case = Case {
    idea: "a page is clean when it was written back, pinned or not",
    source: "LWN, *The trouble with get_user_pages()* (2018), S15",
    test: "a_pinned_page_that_was_called_clean_loses_a_write",
    idea_fails: called_clean,
    ours_fails: written_after_the_pin,
    instead: "a page that is pinned for writing is never clean, so that who unpins it, in an interrupt perhaps, calls nobody",
};

pub(super) const FILE: ObjectId = ObjectId(3);

/// A process that shows the only page of a file.
pub(super) fn shown(machine: &Machine<Wide>) -> Process<'_, Wide> {
    machine.shelf().add(FILE, 1);
    let process = machine.process();
    process.map_object(A, PAGE, FILE, 0, Sharing::Shared, RW).unwrap();
    process
}

/// A page that is pinned for good and written by a device from time to time; how far behind the disk is after a hundred rounds.
fn reaches_disk(skips: bool) -> Option<String> {
    const ROUNDS: u8 = 100;
    let machine = Machine::<Wide>::new(64);
    let process = shown(&machine);
    let pins = machine.pin::<Write>(&process, A, 1).unwrap();
    let page = pins.runs()[0].first().address();
    let (mut disk, mut furthest) = (0, 0);
    for round in 1..=ROUNDS {
        machine.dma_write(page, &[round]);
        match machine.begin_writeback(FILE, 0) {
            Err(CountError::Pinned) if skips => {}
            // A copy of this moment: the device may go on writing, and the page is dirty still.
            Err(CountError::Pinned) => disk = machine.dma_read(page),
            other => panic!("it is pinned: {other:?}"),
        }
        furthest = furthest.max(round - disk);
    }
    drop(pins);
    drop(process);
    machine.clear_shelf();
    (furthest > 1).then(|| {
        format!("under a pin without an end data never reaches the disk: {furthest} of {ROUNDS} writes are behind")
    })
}

/// A page with a checksum is on its way to the disk, half of it is there, when a device writes all of it: by a pin that it has, or by one that
/// it asks for then. `closes`: the page is closed first, or copied if that is refused.
fn checksum_on_disk(closes: bool) -> Option<String> {
    let sum = |page: &[u8]| page.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    let torn = [true, false].into_iter().find(|pinned| {
        let machine = Machine::<Wide>::new(64);
        let process = shown(&machine);
        let early = machine.pin::<Write>(&process, A, 8).unwrap();
        let page = early.runs()[0].first().address();
        machine.dma_write(page, &[1; 8]);
        let early = pinned.then_some(early);
        let closed = closes && machine.begin_writeback(FILE, 0).is_ok();
        let byte = |at: usize| machine.dma_read(page + at as u64);
        let copy: [u8; 8] = std::array::from_fn(byte);
        let mut disk = [0; 8];
        for at in 0..8 {
            if at == 4 {
                let late = (!pinned).then(|| machine.pin::<Write>(&process, A, 8).ok()).flatten();
                if early.is_some() || late.is_some() {
                    machine.dma_write(page, &[2; 8]);
                }
            }
            disk[at] = if closes && !closed { copy[at] } else { byte(at) };
        }
        if closed {
            machine.end_writeback(FILE, 0);
        }
        drop(early);
        drop(process);
        machine.clear_shelf();
        sum(&disk) != sum(&copy)
    });
    torn.map(|_| {
        "the device writes while the disk reads: what is on the disk is half old, half new, under a checksum of the old"
            .to_owned()
    })
}

/// The idea, of which the library has no part: a dirty page is written back under a pin and clean then. The device writes once more, and its pin
/// is given back, in an interrupt, where nobody can be told.
fn called_clean() -> Option<String> {
    let (mut page, mut disk, mut dirty) = (1, 0, true);
    let mut write_back = |page, dirty: &mut bool| {
        if std::mem::take(dirty) {
            disk = page;
        }
        disk
    };
    write_back(page, &mut dirty);
    page = 2;
    (write_back(page, &mut dirty) != page).then(|| "what the device writes after that is in no page that anybody writes back: it is lost when the page is dropped".to_owned())
}

/// The same by the library: the release of the pin notes in the frame's word that it was written, and the next write-back finds that.
fn written_after_the_pin() -> Option<String> {
    let machine = Machine::<Wide>::new(64);
    let process = shown(&machine);
    let pins = machine.pin::<Write>(&process, A, 1).unwrap();
    let page = pins.runs()[0].first().address();
    let mut disk = 0;
    let mut write_back = || {
        process.write_protect_object(FILE, 0..1).unwrap();
        match machine.begin_writeback(FILE, 0) {
            Ok(was_written) => {
                disk = if was_written { machine.dma_read(page) } else { disk };
                machine.end_writeback(FILE, 0);
            }
            Err(_) => disk = machine.dma_read(page),
        }
        disk
    };
    machine.dma_write(page, &[1]);
    assert_eq!(write_back(), 1, "under the pin, as a copy");
    machine.dma_write(page, &[2]);
    drop(pins);
    let lost = write_back() != 2;
    drop(process);
    machine.clear_shelf();
    lost.then(|| "the write is lost".to_owned())
}
