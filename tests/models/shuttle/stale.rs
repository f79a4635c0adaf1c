//! Translations that some CPU still has while the entry that they come from changes.

use std::sync::Arc;

use pagepin::Rights;
use pagepin::model::Safeguard;

use super::bytes::{FROZEN, QUIET, STALE};
use super::checker::{Bound, CPUS, Tables};
use super::kernel::{Epoch, with_kernel};
use super::mm::{Mm, RW};
use super::runner::Model;

pub(crate) const SCENARIOS: &[Model] = &[
    Model {
        name: "fork x copy x write by a stale entry",
        bound: Bound(8_000),
        body: fork_copy_write,
        twins: &[(Safeguard::FlushAfterFork, STALE), (Safeguard::FlushBeforePublish, STALE)],
    },
    Model {
        name: "protect x writes by stale entries",
        bound: Bound(8_000),
        body: protect_and_write,
        twins: &[(Safeguard::FlushAfterProtect, &[FROZEN])],
    },
];

const PAGE: u64 = 1;

/// The case of three threads: after a fork, one writes and gets a copy, one finds the copy in the tables and writes to it,
/// and one reads or writes by the entry that it has had all along. Each must see what the others wrote, and none of it
/// may reach the child.
fn fork_copy_write() {
    with_kernel::<Epoch>(40, Tables, |kernel| {
        let parent = Mm::new(kernel, 1);
        let program = [1, 2, 3].map(|cpu| {
            let parent = Arc::clone(&parent);
            kernel.on_cpu(cpu, move || {
                for _ in 0..16 {
                    parent.touch(PAGE);
                }
            })
        });
        let children = [(); 2].map(|()| {
            let child = parent.fork().expect("memory");
            child.read(PAGE);
            child
        });
        let _ = program.map(|thread| thread.join().expect("no panic"));
        let [first, second] = &children;
        kernel.audit(&[&parent.space, &first.space, &second.space], &[]);
        [&parent, first, second].iter().for_each(|mm| mm.check());
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
