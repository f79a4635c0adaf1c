//! Four CPUs in one mm: faults, pins, forks, changes of rights, discards and unmaps, while one of them sends pages to slots, or takes
//! entries and keeps them for long, as an owner whose virtual CPU is not scheduled.

use std::sync::Arc;

use pagepin::model::Safeguard;
use pagepin::paging::Tables as PageTables;
use pagepin::{AddressSpace, PageAddr, Rights, Vmas};
use shuttle::thread;

use super::bytes::{FOREIGN, FREED, NEVER_WAS, NOISY, QUIET, WRONG};
use super::checker::{Bound, CPUS, PAGES, Tables};
use super::kernel::{Epoch, PAGE, Side, with_kernel};
use super::mm::{Mm, RW, below};
use super::pins::{FORMS, Form, Held};
use super::runner::{Model, Twin};

/// What a CPU does in the mm, and the pins it keeps.
type Role = fn(&Mm<Epoch>, &mut Vec<Held<Epoch>>);

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

/// Operations of each CPU.
const OPERATIONS: usize = 8;
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
        let roles: [Role; CPUS] = [change, touch, pin, own];
        let run = |role: Role, mm: Arc<Mm<Epoch>>| {
            move || {
                let mut held = Vec::new();
                (0..OPERATIONS).for_each(|_| role(&mm, &mut held));
                held
            }
        };
        let others: Vec<_> = (1..CPUS).map(|cpu| kernel.on_cpu(cpu, run(roles[cpu], Arc::clone(&mm)))).collect();
        let mut held = run(roles[0], Arc::clone(&mm))();
        held.extend(others.into_iter().flat_map(|cpu| cpu.join().expect("no panic")));
        let pinned: Vec<_> = held.iter().flat_map(Held::frames).collect();
        kernel.audit(&[&mm.space], &pinned);
        mm.check();
        held.into_iter().for_each(Held::release);
        mm.check();
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

/// Pins, with a device that works; the older of two goes.
fn pin(mm: &Mm<Epoch>, held: &mut Vec<Held<Epoch>>) {
    let form: Form = FORMS[below(FORMS.len() as u64) as usize];
    let Some(pinned) = mm.pin(form, below(3) != 0, any_page(), 1 + below(2)) else { return };
    pinned.read();
    pinned.write();
    pinned.read();
    held.push(pinned);
    if held.len() > 2 {
        let oldest = held.remove(0);
        oldest.write();
        oldest.release();
    }
}

fn own(mm: &Mm<Epoch>, _: &mut Vec<Held<Epoch>>) {
    match below(3) {
        0 => mm.swap_out([QUIET, NOISY][below(2) as usize].clone()),
        1 => mm.kernel.write_out(),
        _ => mm.own_for_long(any_page()),
    }
}
