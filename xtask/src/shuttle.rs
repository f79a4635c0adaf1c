//! `cargo xtask shuttle`: the scenarios of `tests/models/shuttle`, a package that compiles the library's sources on
//! shuttle's atomics and locks.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::child;
use crate::childenv::host_cargo;
use crate::models;
use crate::screen::Show;
use crate::steps::{Steps, Summary};

pub(crate) const NAMES: &str = include_str!("../../tests/models/shuttle/names.txt");

/// A part of a scenario's name, for the command line.
pub(crate) fn name(text: &str) -> Result<String, String> {
    models::part(text, NAMES)
}

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
    #[arg(long, value_name = "SCHEDULE", requires = "scenarios")]
    replay: Option<String>,
}

/// Runs the scenarios whose names have one of these parts; none: all.
pub(crate) fn run(project: &Path, parts: &[String], schedules: &Schedules) -> Steps {
    let mut steps = Steps::new(project, 1);
    let cargo = cargo(project, parts, schedules);
    steps.run("scenarios", Show::All, || match &schedules.replay {
        // One schedule of one scenario prints what it pleases.
        Some(_) => child::succeed(&cargo).map(|()| Summary::note("nothing was noticed")),
        None => models::run(&cargo, "scenarios"),
    });
    steps
}

/// All scenarios, as a check.
pub(crate) fn check(project: &Path) -> Result<Summary> {
    models::run(&cargo(project, &[], &Schedules::default()), "scenarios")
}

fn cargo(project: &Path, parts: &[String], schedules: &Schedules) -> Command {
    let mut cargo = host_cargo(project);
    cargo.args(["run", "--release", "--package", "pagepin-shuttle", "--"]);
    if let Some(schedule) = &schedules.replay {
        cargo.args(["--replay", schedule]);
    }
    cargo.args(parts);
    let settings = [("PAGEPIN_SHUTTLE_SCHEDULES", schedules.iterations), ("PAGEPIN_SHUTTLE_SEED", schedules.seed)];
    for (name, value) in settings {
        cargo.envs(value.map(|value| (name, value.to_string())));
    }
    cargo
}
