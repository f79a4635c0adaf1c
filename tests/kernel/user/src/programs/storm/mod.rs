//! The storm: as many processes as there are CPUs do random things to their memory, each
//! with a second thread that pins and unpins the same pages, and each compares what it
//! finds with a model of what it should find. Their memory is of every kind there is: base
//! pages, from the zero frame on, large leaves, and that of a device.
//!
//! Exit code 0: every byte was right. 1: some were not, as it must be with the twin, which
//! takes plain references instead of pins. The seed repeats the operations, though not
//! how the CPUs meet.

mod children;
mod large;
mod layout;
mod memory;
mod model;
mod operations;
mod pinner;
mod random;
mod untouched;
mod worker;

use pagepin_abi::{MmCall, Status, StormRun};

use self::memory::WORKERS_MAX;
use crate::calls;

pub fn run(argument: u64) -> u32 {
    let run = StormRun::from_bits(argument);
    let workers = usize::from(run.workers).min(WORKERS_MAX);
    let mut pids = [0; WORKERS_MAX];
    for (number, pid) in pids.iter_mut().enumerate().take(workers) {
        *pid = calls::fork().unwrap();
        if *pid == 0 {
            calls::exit(worker::work(run, number as u64));
        }
    }
    let mut right = true;
    for (number, &pid) in pids.iter().enumerate().take(workers) {
        match calls::wait(pid) {
            Ok(Status::Exited(0)) => {}
            Ok(Status::Exited(1)) => right = false,
            other => panic!("worker {number} ended with {other:?}"),
        }
    }
    let held = calls::mm(MmCall::PinsHeld as u64, 0, 0, 0);
    assert_eq!(held, Ok(0), "pins are held by nobody");
    u32::from(!right)
}
