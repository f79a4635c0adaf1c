//! Everything at once: random operations of four CPUs on two families of mms that all of them share.

use std::sync::{Arc, Mutex, MutexGuard};

use pagepin::Rights;
use pagepin::model::Safeguard;

use super::bytes::{FOREIGN, FREED, NEVER_WAS, NOISY, QUIET, WRONG};
use super::checker::{Bound, CPUS, PAGES, Tables};
use super::kernel::{Epoch, InterruptsOff, Kernel, Side, with_kernel};
use super::mm::{Mm, RW, below};
use super::pins::{FORMS, Held};
use super::runner::{Model, Twin};

/// A twin of the mix may be noticed by any of its checks.
const ANY: &[&str] =
    &[WRONG, FOREIGN, NEVER_WAS, FREED, "INV-", "references without a holder", "below zero", "freed twice"];

pub(crate) const SCENARIOS: &[Model] = &[
    Model { name: "mix (epochs)", bound: Bound(8_000), body: || mix::<Epoch>(60), twins: TWINS },
    Model { name: "mix (interrupts off)", bound: Bound(8_000), body: || mix::<InterruptsOff>(60), twins: TWINS },
    Model { name: "mix, short of memory", bound: Bound(8_000), body: || mix::<Epoch>(26), twins: TWINS },
];

const TWINS: &[Twin] = &[
    (Safeguard::PinNeedsExclusive, ANY),
    (Safeguard::ShareNeedsNoPins, ANY),
    (Safeguard::ClaimNeedsSoleReference, ANY),
    (Safeguard::FlushBeforePublish, ANY),
    (Safeguard::FlushAfterFork, ANY),
    (Safeguard::FlushBeforeRelease, ANY),
];

const MOST_MMS: usize = 4;
const MOST_HELD: usize = 4;
/// Operations of each CPU.
const OPERATIONS: usize = 8;

/// What the CPUs share. The locks are the test's own, held for no step of the library, so that they order nothing.
struct World<R: Side> {
    mms: Mutex<Vec<Arc<Mm<R>>>>,
    held: Mutex<Vec<Held<R>>>,
}

/// An index below `end`. The first are the likeliest, so that the CPUs meet.
fn low(end: usize) -> usize {
    below(end as u64).min(below(end as u64)) as usize
}

fn mix<R: Side>(frames: u32) {
    with_kernel::<R>(frames, Tables, |kernel| {
        let mms = (1..=2).map(|family| Mm::new(kernel, family)).collect();
        let world = Arc::new(World { mms: Mutex::new(mms), held: Mutex::new(Vec::new()) });
        let others: Vec<_> = (1..CPUS)
            .map(|cpu| {
                let world = Arc::clone(&world);
                kernel.on_cpu(cpu, move || world.run())
            })
            .collect();
        world.run();
        others.into_iter().for_each(|cpu| cpu.join().expect("no panic"));
        world.finish(kernel);
    });
}

impl<R: Side> World<R> {
    fn mms(&self) -> MutexGuard<'_, Vec<Arc<Mm<R>>>> {
        self.mms.lock().expect("a model ends at its first panic")
    }

    fn held(&self) -> MutexGuard<'_, Vec<Held<R>>> {
        self.held.lock().expect("a model ends at its first panic")
    }

    fn run(&self) {
        (0..OPERATIONS).for_each(|_| self.step());
    }

    /// One operation.
    fn step(&self) {
        let mm = {
            let mms = self.mms();
            Arc::clone(&mms[low(mms.len())])
        };
        let page = PAGES[low(PAGES.len())];
        match below(24) {
            0..5 => mm.write(page),
            5..8 => mm.read(page),
            8..14 => self.pin(&mm, page),
            14 => mm.get(page),
            15..17 => self.release(),
            17..20 => self.replace(mm.fork()),
            20 => mm.protect([QUIET, NOISY][below(2) as usize].clone(), [RW, Rights::READ][below(2) as usize]),
            21 => mm.protect(NOISY, [RW, Rights::empty()][below(2) as usize]),
            22 => mm.discard_noisy(),
            _ => {
                mm.unmap_noisy();
                mm.map_noisy();
            }
        }
    }

    /// Pins some pages, lets the device work with them, and hands them over to whoever releases them.
    fn pin(&self, mm: &Mm<R>, first: u64) {
        let pages = 1 + below(2);
        let Some(held) = mm.pin(FORMS[below(FORMS.len() as u64) as usize], below(3) != 0, first, pages) else { return };
        held.read();
        held.write();
        held.read();
        self.held().push(held);
        if self.held().len() > MOST_HELD {
            self.release();
        }
    }

    /// Some CPU's pin ends on this one.
    fn release(&self) {
        let held = {
            let mut held = self.held();
            if held.is_empty() {
                return;
            }
            let index = below(held.len() as u64) as usize;
            held.swap_remove(index)
        };
        held.write();
        held.release();
    }

    /// A child comes, and if there are too many another mm goes, once no CPU runs it any more.
    fn replace(&self, child: Option<Arc<Mm<R>>>) {
        let gone = {
            let mut mms = self.mms();
            mms.extend(child);
            (mms.len() > MOST_MMS).then(|| mms.swap_remove(below(MOST_MMS as u64) as usize))
        };
        drop(gone);
    }

    fn finish(&self, kernel: &Kernel<R>) {
        let (mms, held) = (core::mem::take(&mut *self.mms()), core::mem::take(&mut *self.held()));
        let pinned: Vec<_> = held.iter().flat_map(Held::frames).collect();
        kernel.audit(&mms.iter().map(|mm| &mm.space).collect::<Vec<_>>(), &pinned);
        mms.iter().for_each(|mm| mm.check());
        held.into_iter().for_each(Held::release);
        mms.iter().for_each(|mm| mm.check());
    }
}
