//! `cargo xtask loom`: the models of `tests/models/loom`, a package that compiles the library's sources on loom's atomics.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::childenv::host_cargo;
use crate::models;
use crate::screen::Show;
use crate::steps::{Steps, Summary};

pub(crate) const NAMES: &str = include_str!("../../tests/models/loom/names.txt");

/// A part of a model's name, for the command line.
pub(crate) fn name(text: &str) -> Result<String, String> {
    models::part(text, NAMES)
}

/// Runs the models whose names have one of these parts; none: all.
pub(crate) fn run(project: &Path, parts: &[String]) -> Steps {
    let mut steps = Steps::new(project, 1);
    steps.run("models", Show::All, || models::run(&cargo(project, parts), "models"));
    steps
}

/// All models, as a check.
pub(crate) fn check(project: &Path) -> Result<Summary> {
    models::run(&cargo(project, &[]), "models")
}

fn cargo(project: &Path, parts: &[String]) -> Command {
    let mut cargo = host_cargo(project);
    cargo.args(["run", "--release", "--package", "pagepin-loom", "--"]).args(parts);
    cargo
}
