//! Machines that are no x86_64: the library compiles for them, and its tests on them.
//!
//! Page tables are x86_64's everywhere; what changes is what a processor can do. That is enough to develop a kernel on
//! another host, or to keep the library in a kernel that is built for several machines.

use std::path::Path;

use anyhow::Result;

use crate::child::succeed;
use crate::kernel::KernelToolchain;
use crate::powerset::{LIBRARY, STORE};
use crate::steps::Summary;

struct Check {
    targets: &'static [&'static str],
    /// The standard library's crates to build for them.
    standard: &'static str,
    /// What is compiled.
    what: &'static [&'static str],
}

const CHECKS: [Check; 2] = [
    Check {
        targets: &["aarch64-unknown-none", "riscv64gc-unknown-none-elf"],
        standard: "-Zbuild-std=core,alloc,compiler_builtins",
        what: &["--lib"],
    },
    Check {
        targets: &["aarch64-unknown-linux-gnu"],
        standard: "-Zbuild-std=std,panic_abort",
        what: &["--lib", "--tests", "--examples"],
    },
];

pub(crate) fn check(project: &Path, toolchain: &KernelToolchain) -> Result<Summary> {
    for Check { targets, standard, what } in CHECKS {
        let mut cargo = toolchain.cargo_in(project);
        cargo.args(["check", standard, "--package", LIBRARY, "--package", STORE, "--all-features"]).args(what);
        cargo.args(targets.iter().flat_map(|target| ["--target", target]));
        // Warnings too: an unused import shows that a `cfg` was forgotten.
        cargo.args(["-Zwarnings", "--config", "build.warnings='deny'"]);
        // Nobody debugs what is only checked; without this the standard libraries take twice the room and time.
        cargo.env("CARGO_TARGET_DIR", project.join("target/elsewhere")).env("CARGO_PROFILE_DEV_DEBUG", "0");
        succeed(&cargo)?;
    }
    let targets: Vec<&str> = CHECKS.iter().flat_map(|check| check.targets).copied().collect();
    Ok(Summary::note(targets.join(", ")))
}
