//! `cargo xtask loom`: the models of `tests/models/loom`, a package that compiles the library's sources on loom's atomics.

use std::path::Path;

use anyhow::Result;

use crate::child;
use crate::childenv::host_cargo;
use crate::screen;

/// Returns whether every model held and every negative twin was caught; the test program has printed them all.
/// `models` are parts of the names of those to run; none: all.
pub(crate) fn run(project: &Path, models: &[String]) -> Result<bool> {
    println!("building the models (to run them takes minutes)");
    let mut cargo = host_cargo(project);
    cargo.args(["run", "--release", "--package", "pagepin-loom", "--"]).args(models);
    let status = child::watch(&cargo, |_, line| screen::output(line))?;
    Ok(status.success())
}
