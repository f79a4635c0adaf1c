//! Shuttle scenarios: whole operations of the library, on more CPUs and mms than loom can explore, under random
//! schedules and under those with few preemptions (PCT). Memory is sequentially consistent here: what an ordering is
//! for, the loom models show.
//!
//! Run by `cargo xtask shuttle`. Without `--cfg shuttle` this program is empty.

#[cfg(shuttle)]
mod bytes;
#[cfg(shuttle)]
mod checker;
#[cfg(shuttle)]
mod family;
#[cfg(shuttle)]
#[path = "../model/kernel/mod.rs"]
mod kernel;
#[cfg(shuttle)]
mod mix;
#[cfg(shuttle)]
mod mm;
#[cfg(shuttle)]
mod pins;
#[cfg(shuttle)]
mod recycle;
#[cfg(shuttle)]
#[path = "../model/runner.rs"]
mod runner;
#[cfg(shuttle)]
mod stale;

#[cfg(shuttle)]
fn main() -> std::process::ExitCode {
    let scenarios = [mix::SCENARIOS, family::SCENARIOS, stale::SCENARIOS, recycle::SCENARIOS].concat();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [replay, schedule, name] if replay == "--replay" => {
            runner::end_at_first_panic();
            checker::replay(schedule, runner::find(&scenarios, name).body);
            println!("nothing was noticed");
            std::process::ExitCode::SUCCESS
        }
        _ => runner::main(&scenarios),
    }
}

#[cfg(not(shuttle))]
fn main() {}
