//! The storm: random operations on all CPUs at once, on memory of every kind, with the library
//! and with its twin.
//!
//! As a mode of its own for long runs: `storm`, or `storm:seed=7,rounds=2000,runs=10` with
//! whatever is to differ from the default. Run `n` has seed `seed + n`. `minutes=30` in place
//! of `runs` goes on until that time has passed or something is wrong; the twin then only
//! has the first run, to show that the storm can tell.

use alloc::format;

use pagepin_abi::{NOTES, Program, Status, StormRun, Tally};

use super::{Outcome, run_balanced};
use crate::{fw_cfg, mm, notes, percpu, println, time};

/// Names of the test of the library and of its twin.
pub const TESTS: [&str; 2] = ["storm_finds_every_byte_right", "storm_twin_finds_wrong_bytes"];
/// Rounds of each worker in a short run: a second or two.
pub const ROUNDS: u16 = 3000;
/// The twin has lost something long before.
pub const TWIN_ROUNDS: u16 = 500;

#[derive(Clone, Copy)]
struct Plan {
    seed: u32,
    rounds: u16,
    runs: u32,
    /// Takes the place of `runs` unless it is 0.
    minutes: u32,
}

/// A seed from the command line, or one that nobody had before.
pub fn first_seed() -> u32 {
    let given = fw_cfg::string("opt/pagepin/seed").and_then(|seed| seed.trim().parse().ok());
    given.unwrap_or_else(|| (time::ticks() / 64) as u32)
}

impl Plan {
    fn parse(options: &str, rounds: u16) -> Result<Self, alloc::string::String> {
        let mut plan = Self { seed: first_seed(), rounds, runs: 1, minutes: 0 };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let wrong = || format!("storm does not understand `{option}`");
            let (name, value) = option.split_once('=').ok_or_else(wrong)?;
            match name {
                "seed" => plan.seed = value.parse().map_err(|_| wrong())?,
                "rounds" => plan.rounds = value.parse().map_err(|_| wrong())?,
                "runs" => plan.runs = value.parse().map_err(|_| wrong())?,
                "minutes" => plan.minutes = value.parse().map_err(|_| wrong())?,
                _ => return Err(wrong()),
            }
        }
        Ok(plan)
    }
}

/// Well if every byte was right, or, with the twin, if some were not.
pub fn run_once(seed: u32, rounds: u16, twin: bool) -> Outcome {
    notes::clear();
    let workers = percpu::online().count() as u8;
    let run = StormRun { seed, rounds, workers, twin };
    let start = time::now();
    mm::make_blocks_scarce(true);
    let outcome = run_balanced(Program::Storm, run.to_bits(), Status::Exited(u32::from(twin)));
    mm::make_blocks_scarce(false);
    let kind = if twin { "plain references" } else { "pins" };
    let milliseconds = (time::now() - start) / 1000;
    println!("storm with {kind}: seed={seed},rounds={rounds}, {workers} workers, {milliseconds} ms");
    let counts = counts();
    let [zero, large, split, device, unforked] = counts;
    println!(
        "  {zero} zero frames pinned, {large} writes to large leaves, {split} changes of a part of them, \
         {device} stores by children into device memory, {unforked} forks without memory"
    );
    let missing = !twin && rounds >= ROUNDS && counts.contains(&0);
    let outcome = outcome.and(if missing { Err("something never happened".into()) } else { Ok(()) });
    outcome.map_err(|why| format!("seed={seed},rounds={rounds}: {why}"))
}

/// What the workers have counted, together.
fn counts() -> [u64; 5] {
    let tallies = (0..NOTES).filter_map(|slot| notes::read(slot).ok()).map(Tally::from_bits);
    tallies.fold([0; 5], |sum, Tally { zero, large, split, device, unforked }| {
        let counts = [zero, large, split, device, unforked];
        core::array::from_fn(|place| sum[place] + counts[place])
    })
}

/// The mode of its own.
pub fn run(options: &str, report: &mut dyn FnMut(&str, Outcome)) {
    match Plan::parse(options, ROUNDS) {
        Ok(plan) if plan.minutes > 0 => run_for_minutes(plan, report),
        Ok(plan) => (0..plan.runs).for_each(|number| {
            let seed = plan.seed.wrapping_add(number);
            report(TESTS[0], run_once(seed, plan.rounds, false));
            report(TESTS[1], run_once(seed, plan.rounds, true));
        }),
        Err(why) => report("storm", Err(why)),
    }
}

/// Stops at the first failure: what follows one would say little.
fn run_for_minutes(plan: Plan, report: &mut dyn FnMut(&str, Outcome)) {
    let begin = time::now();
    let seconds = || (time::now() - begin) / 1_000_000;
    report(TESTS[1], run_once(plan.seed, TWIN_ROUNDS, true));
    let total = u64::from(plan.minutes) * 60;
    let mut seed = plan.seed;
    while seconds() < total {
        let outcome = run_once(seed, plan.rounds, false);
        let failed = outcome.is_err();
        report(TESTS[0], outcome);
        if failed {
            break;
        }
        seed = seed.wrapping_add(1);
        println!("storm: {} runs in {} of {total} s", seed.wrapping_sub(plan.seed), seconds());
    }
}

/// As part of all tests: short.
pub fn run_short(report: &mut dyn FnMut(&str, Outcome)) {
    let seed = first_seed();
    report(TESTS[0], run_once(seed, ROUNDS, false));
    report(TESTS[1], run_once(seed, TWIN_ROUNDS, true));
}
