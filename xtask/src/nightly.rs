//! The nightly compiler, for what stable does not offer: sanitizers and coverage for a fuzzer.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::kernel::succeed;
use crate::{childenv, setup, toolchain};

/// The only target that the campaigns run on; naming it keeps their flags away from build scripts.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";

const CARGO_FUZZ_VERSION: &str = "0.13.2";

/// Makes sure that there is a nightly toolchain. Its standard library is used as it comes, without instrumentation.
pub(crate) fn ensure(project: &Path) -> Result<()> {
    let mut probe = run(project, "rustc");
    // Without this rustup may fetch the toolchain before anyone said so.
    probe.env("RUSTUP_AUTO_INSTALL", "0").arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    match probe.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => {
            println!("set-up: installing the nightly toolchain, from rustup's servers; stable has no sanitizers");
            succeed(rustup(project).args(["toolchain", "install", "nightly", "--profile", "minimal"]))
        }
        Err(error) => {
            bail!("this command needs a nightly compiler, and rustup, which brings it, does not start: {error}")
        }
    }
}

/// The project's own `cargo-fuzz`.
pub(crate) fn cargo_fuzz(project: &Path) -> Result<PathBuf> {
    let program = toolchain::tool(project, "cargo-fuzz");
    if !program.is_file() {
        println!(
            "set-up: installing cargo-fuzz {CARGO_FUZZ_VERSION} from crates.io into target/tools; \
             it builds libFuzzer and the target together"
        );
        let mut install = setup::install(run(project, "cargo"), project, "cargo-fuzz", CARGO_FUZZ_VERSION);
        succeed(&mut install).context("installing cargo-fuzz")?;
    }
    Ok(program)
}

/// `program` with the nightly toolchain, started in the project's root.
pub(crate) fn run(project: &Path, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut rustup = rustup(project);
    rustup.args(["run", "nightly"]).arg(program);
    rustup
}

fn rustup(project: &Path) -> Command {
    let mut rustup = Command::new("rustup");
    rustup.current_dir(project);
    childenv::isolate(&mut rustup, &[], project);
    rustup
}
