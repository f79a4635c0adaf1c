//! `cargo xtask shuttle`: the scenarios of `tests/shuttle`, built with `--cfg shuttle`.
//!
//! The flag reaches every crate of the build, so it has a target directory of its own.

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
    cargo.args(["test", "--release", "--package", "pagepin", "--features", "alloc", "--test", "shuttle"]);
    cargo.arg("--target-dir").arg(project.join("target/shuttle")).arg("--");
    if let Some(schedule) = &schedules.replay {
        cargo.args(["--replay", schedule]);
    }
    cargo.args(scenarios).env("RUSTFLAGS", "--cfg shuttle");
    let settings = [("PAGEPIN_SHUTTLE_SCHEDULES", schedules.iterations), ("PAGEPIN_SHUTTLE_SEED", schedules.seed)];
    for (name, value) in settings {
        cargo.envs(value.map(|value| (name, value.to_string())));
    }
    let status = child::watch(&cargo, |_, line| screen::output(line))?;
    Ok(status.success())
}
