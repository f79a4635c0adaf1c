//! Four CPUs in one mm with every kind of page: faults and pins, forks, changes of rights and unmaps, while pages go to slots, get other
//! frames, become one with a child's, move to another table and back, and a file that is shown is cut off and comes again.

use pagepin::frame::FrameKind;
use pagepin::model::Safeguard;
use pagepin::space::{Copies, MergeError, Sharing, SpaceError};
use pagepin::{Env, ExtraParts, Objects, Rights, Zone};

use super::bytes::{FOREIGN, FREED, MOVED_TO, MOVES, NEVER_WAS, NOISY, QUIET, WRONG};
use super::checker::{Bound, Tables};
use super::kernel::{Epoch, FILE, PAGE, Side, with_kernel};
use super::kit::Plug;
use super::mm::{Mm, RW, below, extent};
use super::pins::{Form, Held};
use super::roles;
use super::runner::{Model, Twin};

const CUT_OFF: &str = "a page is mapped that was cut off";

/// Any of the checks may notice.
const ANY: &[&str] = &[
    WRONG,
    FOREIGN,
    NEVER_WAS,
    FREED,
    CUT_OFF,
    "INV-",
    "references without a holder",
    "below zero",
    "freed twice",
    "a slot was",
    "bugs caught",
    "a fault: ",
];

const TWINS: &[Twin] = &[
    (Safeguard::ShareNeedsNoPins, ANY),
    (Safeguard::FreezeNeedsNoPins, ANY),
    (Safeguard::FreezeNeedsSoleReference, ANY),
    (Safeguard::FlushBeforePublish, ANY),
    (Safeguard::FlushAfterMove, ANY),
    (Safeguard::StillTheObjects, &[CUT_OFF]),
];

pub(crate) const SCENARIOS: &[Model] =
    &[Model { name: "one mm, every kind of page", bound: Bound(6_000), body: every_kind, twins: TWINS }];

/// Shows the file's page, beside the noisy ones.
const SHOWN: u64 = 512;
/// Where there may be a page.
const PLACES: [u64; 7] = [1, 2, MOVES, MOVED_TO, 513, 514, SHOWN];

impl<R: Side> Mm<R> {
    fn show_file(&self) {
        self.kernel.write_file(self.bytes.next_value());
        let sharing = [Sharing::Shared, Sharing::Private][below(2) as usize];
        self.space.map_object(SHOWN * PAGE, PAGE, FILE, 0, sharing, RW).expect("an empty page");
    }

    fn truncate(&self) {
        self.kernel.cut_file();
        self.space.forget_object(FILE, 0..u32::MAX, Copies::Forget).expect("tables in order");
    }

    /// A page of the file is the one that it has now.
    fn check_shown(&self) {
        let Some(frame) = self.kernel.mapped(&self.space, SHOWN) else { return };
        let is_files = self.kernel.snapshot(frame).kind == FrameKind::File;
        assert!(!is_files || self.kernel.extras().objects().still(FILE, 0, frame), "{CUT_OFF}");
    }

    fn relocate(&self, pages: std::ops::RangeInclusive<u64>) {
        let (start, length) = extent(pages);
        match self.space.relocate(start, length, Zone::Unmovable) {
            Ok(_) | Err(SpaceError::NoMemory) => {}
            Err(error) => panic!("relocate: {error}"),
        }
    }

    /// The page goes to its other address, or comes back.
    fn move_to_and_fro(&self) {
        for (from, to) in [(MOVES, MOVED_TO), (MOVED_TO, MOVES)] {
            match self.space.move_pages(from * PAGE, PAGE, to * PAGE) {
                Ok(()) => return,
                Err(SpaceError::NoVma | SpaceError::Overlap | SpaceError::NoMemory) => {}
                Err(error) => panic!("move: {error}"),
            }
        }
    }

    /// A child gets a copy of a page, which then becomes one with this mm's, if nobody has written that.
    fn merge_with_child(&self, page: u64) {
        let Some(child) = self.fork() else { return };
        if let Some(pinned) = child.pin(Form::Slow, false, page, 1) {
            pinned.release();
        }
        let (one, other) = (&self.space, &child.space);
        let merged = match below(2) {
            0 => one.merge(page * PAGE, other, page * PAGE),
            _ => other.merge(page * PAGE, one, page * PAGE),
        };
        match merged {
            Err(MergeError::Range(_) | MergeError::NoVma | MergeError::OtherKernel | MergeError::MalformedTable) => {
                panic!("merge: {merged:?}")
            }
            _ => child.read(page),
        }
        child.write(page);
        child.check();
    }
}

fn every_kind() {
    with_kernel::<Epoch>(60, Tables, |kernel| {
        let mm = Mm::with_page_that_moves(kernel, 1);
        mm.show_file();
        QUIET.for_each(|page| mm.write(page));
        let held = roles::play(kernel, &mm, [change, touch, pin, own]);
        mm.check_shown();
        mm.truncate();
        roles::finish(kernel, &mm, held);
    });
}

fn any_place() -> u64 {
    // The last is the likeliest.
    PLACES[(below(PLACES.len() as u64 + 2) as usize).min(PLACES.len() - 1)]
}

/// What holds the mm lock alone, and what the file does.
fn change(mm: &Mm<Epoch>, _: &mut Vec<Held<Epoch>>) {
    match below(10) {
        0..3 => mm.move_to_and_fro(),
        3..6 => {
            mm.truncate();
            mm.kernel.write_file(mm.bytes.next_value());
        }
        6 => drop(mm.fork().inspect(|child| child.write(*QUIET.start()))),
        7 => mm.protect(QUIET, [RW, Rights::READ][below(2) as usize]),
        8 => mm.discard_noisy(),
        _ => {
            mm.unmap_noisy();
            mm.map_noisy();
        }
    }
}

fn touch(mm: &Mm<Epoch>, _: &mut Vec<Held<Epoch>>) {
    mm.touch(any_place());
}

fn pin(mm: &Mm<Epoch>, held: &mut Vec<Held<Epoch>>) {
    roles::pin(mm, held, || (any_place(), 1));
}

/// What owns entries beside faults.
fn own(mm: &Mm<Epoch>, _: &mut Vec<Held<Epoch>>) {
    let pages = [QUIET, NOISY, MOVED_TO..=MOVED_TO][below(3) as usize].clone();
    match below(6) {
        0..2 => mm.swap_out(pages),
        2 => mm.kernel.write_out(),
        3..5 => mm.relocate(pages),
        _ => mm.merge_with_child(1 + below(2)),
    }
}
