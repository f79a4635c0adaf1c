//! Shuttle scenarios: whole operations of the library, on more CPUs and mms than loom can explore, under random
//! schedules and under those with few preemptions (PCT). Memory is sequentially consistent here: what an ordering is
//! for, the loom models show.
//!
//! Run by `cargo xtask shuttle`.

extern crate pagepin_shuttle as pagepin;

mod bytes;
mod checker;
mod family;
#[path = "../kernel/mod.rs"]
#[expect(dead_code, reason = "the loom models use all of it")]
mod kernel;
mod kinds;
#[path = "../../kit/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the host tests use all of it")]
mod kit;
mod mix;
mod mm;
mod one_mm;
mod pins;
mod recycle;
mod roles;
#[path = "../runner.rs"]
mod runner;
mod stale;

fn main() -> std::process::ExitCode {
    let scenarios =
        [mix::SCENARIOS, one_mm::SCENARIOS, kinds::SCENARIOS, family::SCENARIOS, stale::SCENARIOS, recycle::SCENARIOS]
            .concat();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [replay, schedule, name] if replay == "--replay" => {
            runner::end_at_first_panic();
            checker::replay(schedule, runner::find(&scenarios, name).body);
            println!("nothing was noticed");
            std::process::ExitCode::SUCCESS
        }
        _ => runner::main(&scenarios, include_str!("names.txt")),
    }
}
