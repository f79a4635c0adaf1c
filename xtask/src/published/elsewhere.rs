//! Machines that are no x86_64: the library compiles for them, and its tests on them.
//!
//! Page tables are x86_64's everywhere; what changes is what a processor can do. That is enough to develop a kernel on
//! another host, or to keep the library in a kernel that is built for several machines.

use std::path::Path;

use anyhow::Result;

use crate::child::succeed;
use crate::kernel::KernelToolchain;
use crate::powerset::LIBRARY;
use crate::steps::Summary;

struct Check {
    target: &'static str,
    /// The standard library's crates to build for it.
    standard: &'static str,
    /// What is compiled.
    what: &'static [&'static str],
}

const CORE: &str = "-Zbuild-std=core,alloc,compiler_builtins";
const STD: &str = "-Zbuild-std=std,panic_abort";

const CHECKS: [Check; 3] = [
    Check { target: "aarch64-unknown-none", standard: CORE, what: &["--lib"] },
    Check { target: "riscv64gc-unknown-none-elf", standard: CORE, what: &["--lib"] },
    Check { target: "aarch64-unknown-linux-gnu", standard: STD, what: &["--lib", "--tests", "--examples"] },
];

pub(crate) fn check(project: &Path, toolchain: &KernelToolchain) -> Result<Summary> {
    for Check { target, standard, what } in CHECKS {
        let mut cargo = toolchain.cargo_in(project);
        cargo.args(["check", standard, "--target", target, "--package", LIBRARY, "--all-features"]).args(what);
        // Warnings too: an unused import shows that a `cfg` was forgotten.
        cargo.args(["-Zwarnings", "--config", "build.warnings='deny'"]);
        // Nobody debugs what is only checked; without this the standard libraries take twice the room and time.
        cargo.env("CARGO_TARGET_DIR", project.join("target/elsewhere")).env("CARGO_PROFILE_DEV_DEBUG", "0");
        succeed(&cargo)?;
    }
    Ok(Summary::note(CHECKS.map(|check| check.target).join(", ")))
}
