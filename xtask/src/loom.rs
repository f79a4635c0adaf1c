//! `cargo xtask loom`: the models of `tests/loom`, built with `--cfg loom`.
//!
//! The flag reaches every crate of the build, so it has a target directory of its own.

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
    cargo.args(["test", "--release", "--package", "pagepin", "--features", "alloc", "--test", "loom"]);
    cargo.arg("--target-dir").arg(project.join("target/loom")).arg("--").args(models);
    let status = child::watch(cargo.env("RUSTFLAGS", "--cfg loom"), |_, line| screen::output(line))?;
    Ok(status.success())
}
