//! `cargo xtask shuttle`: the scenarios of `tests/models/shuttle`, a package that compiles the library's sources on
//! shuttle's atomics and locks.

use std::path::Path;

use anyhow::Result;

use crate::child;
use crate::childenv::host_cargo;
use crate::screen;

/// Which schedules to run.
#[derive(Default, clap::Args)]
pub(crate) struct Schedules {
    /// How many of each kind, for each scenario, if that is more than the scenario's own number
    #[arg(long)]
    iterations: Option<u64>,
    /// The seed from which all are made; without it, the one with which every twin is caught
    #[arg(long)]
    seed: Option<u64>,
    /// Only the one that a failure of the named scenario has printed
    #[arg(long, value_name = "SCHEDULE")]
    replay: Option<String>,
}

/// Returns whether every scenario held and every negative twin was caught; the test program has printed them all.
/// `scenarios` are parts of the names of those to run; none: all.
pub(crate) fn run(project: &Path, scenarios: &[String], schedules: &Schedules) -> Result<bool> {
    println!("building the scenarios");
    let mut cargo = host_cargo(project);
    cargo.args(["run", "--release", "--package", "pagepin-shuttle", "--"]);
    if let Some(schedule) = &schedules.replay {
        cargo.args(["--replay", schedule]);
    }
    cargo.args(scenarios);
    let settings = [("PAGEPIN_SHUTTLE_SCHEDULES", schedules.iterations), ("PAGEPIN_SHUTTLE_SEED", schedules.seed)];
    for (name, value) in settings {
        cargo.envs(value.map(|value| (name, value.to_string())));
    }
    let status = child::watch(&cargo, |_, line| screen::output(line))?;
    Ok(status.success())
}
