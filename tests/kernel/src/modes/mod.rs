//! What the boot CPU does once the machine is up.

mod bench;
mod demo;
mod drivers;
mod files;
pub mod five_levels;
mod iommu;
mod kernel_tests;
mod ready_made;
mod scenes;
mod stale;
mod storm;
mod user_copies;
mod user_tests;

use alloc::string::String;

use pagepin_abi::{Program, Status};

use crate::{mm, println, process, sched, single_step};

/// Outcome of one test, with the reason for a failure.
pub type Outcome = Result<(), String>;

struct Score {
    passed: u32,
    failed: u32,
}

impl Score {
    fn count(&mut self, name: &str, outcome: Outcome) {
        match outcome {
            Ok(()) => {
                self.passed += 1;
                println!("@test {name} ok");
            }
            Err(why) => {
                self.failed += 1;
                println!("@test {name} FAILED {why}");
            }
        }
    }
}

/// Runs a mode, and says whether all went well.
pub fn run(mode: &str) -> bool {
    let mut score = Score { passed: 0, failed: 0 };
    match mode {
        "test" => {
            kernel_tests::run(&mut |name, outcome| score.count(name, outcome));
            user_tests::run(&mut |name, outcome| score.count(name, outcome));
            files::run(&mut |name, outcome| score.count(name, outcome));
            scenes::run(&mut |name, outcome| score.count(name, outcome));
            storm::run_short(&mut |name, outcome| score.count(name, outcome));
        }
        "iommu" => iommu::run(&mut |name, outcome| score.count(name, outcome)),
        "atomics" => {
            score.count("locked_instructions_are_seen", single_step::check());
            bench::atomics();
        }
        "bench" => {
            bench::run();
            for (name, program) in [("cost", Program::Cost), ("faults", Program::Faults)] {
                score.count(name, expect(run_program(program, bench::copy_ticks()), Status::Exited(0)));
            }
        }
        _ => run_with_options(mode, &mut score),
    }
    println!("@done passed={} failed={}", score.passed, score.failed);
    score.failed == 0
}

/// Modes that may be followed by a colon and options.
fn run_with_options(mode: &str, score: &mut Score) {
    let (name, options) = mode.split_once(':').unwrap_or((mode, ""));
    match name {
        "demo" => demo::run(options, &mut |name, outcome| score.count(name, outcome)),
        "storm" => storm::run(options, &mut |name, outcome| score.count(name, outcome)),
        other => score.count("mode", Err(alloc::format!("unknown: {other}"))),
    }
}

/// Runs a program and all its descendants to their end, this CPU helping.
fn run_program(program: Program, argument: u64) -> Result<Status, pagepin_abi::Error> {
    let pid = process::spawn(program, argument, 0)?;
    let mut status = None;
    sched::run_until(|| {
        status = status.or_else(|| process::reap(pid));
        status.is_some() && process::is_quiet()
    });
    mm::store::objects().clear_memory(mm::kernel());
    status.ok_or(pagepin_abi::Error::NotFound)
}

/// Runs a program that must come to this end and give back all that it took.
fn run_balanced(program: Program, argument: u64, wanted: Status) -> Outcome {
    balanced(|| expect(run_program(program, argument), wanted))
}

/// Does something that must give back all that it took.
fn balanced(act: impl FnOnce() -> Outcome) -> Outcome {
    let before = mm::free_frame_count();
    act()?;
    mm::leftovers()?;
    match mm::free_frame_count() {
        after if after == before => Ok(()),
        after => Err(alloc::format!("{before} free frames before, {after} after")),
    }
}

fn expect(status: Result<Status, pagepin_abi::Error>, wanted: Status) -> Outcome {
    match status {
        Ok(status) if status == wanted => Ok(()),
        other => Err(alloc::format!("{other:?} instead of {wanted:?}")),
    }
}
