//! Translations that some CPU still has while the entry that they come from changes.

use std::sync::Arc;

use pagepin::Rights;
use pagepin::model::Safeguard;

use super::bytes::{FROZEN, NEVER_WAS, QUIET, WRONG};
use super::checker::{Bound, CPUS, Tables};
use super::kernel::{Epoch, with_kernel};
use super::mm::{Mm, RW};
use super::runner::Model;

pub(crate) const SCENARIOS: &[Model] = &[
    Model {
        name: "fork x copy x write by a stale entry",
        bound: Bound(8_000),
        body: fork_copy_write,
        twins: &[(Safeguard::FlushAfterFork, &[WRONG, NEVER_WAS]), (Safeguard::FlushBeforePublish, &[WRONG])],
    },
    Model {
        name: "protect x writes by stale entries",
        bound: Bound(8_000),
        body: protect_and_write,
        twins: &[(Safeguard::FlushAfterProtect, &[FROZEN])],
    },
];

const PAGE: u64 = 1;

/// The case of three threads: one forks, one writes and gets a copy, and one writes by the entry it has had all along.
/// Its write must be there when it looks, and none of theirs may reach the child.
fn fork_copy_write() {
    with_kernel::<Epoch>(40, Tables, |kernel| {
        let parent = Mm::new(kernel, 1);
        let writers = [2, 3].map(|cpu| {
            let parent = Arc::clone(&parent);
            kernel.on_cpu(cpu, move || {
                for _ in 0..16 {
                    parent.touch(PAGE);
                }
            })
        });
        let forker = kernel.on_cpu(1, {
            let parent = Arc::clone(&parent);
            move || {
                let child = parent.fork().expect("memory");
                child.read(PAGE);
                child.read(PAGE);
                child
            }
        });
        let child = parent.fork().expect("memory");
        child.read(PAGE);
        let _ = writers.map(|writer| writer.join().expect("no panic"));
        let mms = [forker.join().expect("no panic"), child, parent];
        kernel.audit(&mms.each_ref().map(|mm| &mm.space), &[]);
        mms.iter().for_each(|mm| mm.check());
    });
}

/// When protect returns, every CPU obeys: those that run the mm, whatever they have cached, and never those of its child.
fn protect_and_write() {
    with_kernel::<Epoch>(40, Tables, |kernel| {
        let mm = Mm::new(kernel, 1);
        let child = mm.fork().expect("memory");
        let writers = [2, CPUS - 1].map(|cpu| {
            let mms = [Arc::clone(&mm), Arc::clone(&child), Arc::clone(&mm)];
            kernel.on_cpu(cpu, move || {
                for mm in mms.iter().cycle().take(8) {
                    mm.touch(PAGE);
                }
            })
        });
        for _ in 0..2 {
            mm.protect(QUIET, Rights::READ);
            mm.bytes.freeze(true);
            mm.read(PAGE);
            mm.read(PAGE);
            mm.bytes.freeze(false);
            mm.protect(QUIET, RW);
            mm.write(PAGE);
        }
        let _ = writers.map(|writer| writer.join().expect("no panic"));
        kernel.audit(&[&mm.space, &child.space], &[]);
        [&mm, &child].iter().for_each(|mm| mm.check());
    });
}
