//! Four CPUs in one mm: faults, pins, forks, changes of rights, discards and unmaps, while one of them sends pages to slots, or takes
//! entries and keeps them for long, as an owner whose virtual CPU is not scheduled.

use pagepin::model::Safeguard;
use pagepin::paging::Tables as PageTables;
use pagepin::{AddressSpace, PageAddr, Rights, Vmas};
use shuttle::thread;

use super::bytes::{FOREIGN, FREED, NEVER_WAS, NOISY, QUIET, WRONG};
use super::checker::{Bound, PAGES, Tables};
use super::kernel::{Epoch, PAGE, Side, with_kernel};
use super::mm::{Mm, RW, below};
use super::pins::Held;
use super::roles;
use super::runner::{Model, Twin};

/// Any of the checks may notice.
const ANY: &[&str] = &[
    WRONG,
    FOREIGN,
    NEVER_WAS,
    FREED,
    "INV-",
    "references without a holder",
    "below zero",
    "freed twice",
    "a fault: ",
];

const TWINS: &[Twin] = &[
    (Safeguard::PinNeedsExclusive, ANY),
    (Safeguard::ShareNeedsNoPins, ANY),
    (Safeguard::FlushBeforePublish, ANY),
    (Safeguard::FlushAfterFork, ANY),
    (Safeguard::FlushBeforeRelease, ANY),
    (Safeguard::OwnedIsWaitedFor, ANY),
];

pub(crate) const SCENARIOS: &[Model] =
    &[Model { name: "one mm, an owner that takes its time", bound: Bound(6_000), body: one_mm, twins: TWINS }];

/// How often others run while an entry is owned.
const TURNS: u64 = 40;

impl<R: Side> Mm<R> {
    /// Takes the entry of `page`, keeps it, and gives it back as it was.
    fn own_for_long(&self, page: u64) {
        let look = &mut |_: &dyn Vmas| {
            // SAFETY: inside the section.
            let mut tables = unsafe { PageTables::under_mm_lock(self.space.mm()) };
            let slot = tables.find(PageAddr::containing(page * PAGE)).expect("tables in order");
            if !slot.entry.is_present() {
                return;
            }
            // SAFETY: found under this lock, and a leaf; it is given back below.
            if let Some(broken) = unsafe { tables.break_leaf(slot) } {
                (0..below(TURNS)).for_each(|_| thread::yield_now());
                broken.restore();
            }
        };
        self.space.with_vmas(look).expect("in no section");
    }
}

fn one_mm() {
    with_kernel::<Epoch>(60, Tables, |kernel| {
        let mm = Mm::new(kernel, 1);
        QUIET.for_each(|page| mm.write(page));
        let held = roles::play(kernel, &mm, [change, touch, pin, own]);
        roles::finish(kernel, &mm, held);
    });
}

fn any_page() -> u64 {
    PAGES[below(PAGES.len() as u64) as usize]
}

/// What holds the mm lock alone.
fn change(mm: &Mm<Epoch>, _: &mut Vec<Held<Epoch>>) {
    match below(6) {
        0..2 => drop(mm.fork().inspect(|child| child.write(*QUIET.start()))),
        2 => mm.protect(QUIET, [RW, Rights::READ][below(2) as usize]),
        3 => mm.protect(NOISY, [RW, Rights::empty()][below(2) as usize]),
        4 => mm.discard_noisy(),
        _ => {
            mm.unmap_noisy();
            mm.map_noisy();
        }
    }
}

fn touch(mm: &Mm<Epoch>, _: &mut Vec<Held<Epoch>>) {
    mm.touch(any_page());
}

fn pin(mm: &Mm<Epoch>, held: &mut Vec<Held<Epoch>>) {
    roles::pin(mm, held, || (any_page(), 1 + below(2)));
}

fn own(mm: &Mm<Epoch>, _: &mut Vec<Held<Epoch>>) {
    match below(3) {
        0 => mm.swap_out([QUIET, NOISY][below(2) as usize].clone()),
        1 => mm.kernel.write_out(),
        _ => mm.own_for_long(any_page()),
    }
}
