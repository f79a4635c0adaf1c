//! The nightly compiler, for what stable does not offer: sanitizers and coverage for a fuzzer.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::child::{self, succeed};
use crate::childenv;
use crate::screen;
use crate::setup::{self, Tool};

/// The only target that the campaigns run on; naming it keeps their flags away from build scripts.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Makes sure that there is a nightly toolchain. Its standard library is used as it comes, without instrumentation.
pub(crate) fn ensure(project: &Path) -> Result<()> {
    let mut probe = run(project, "rustc");
    // Without this rustup may fetch the toolchain before anyone said so.
    probe.env("RUSTUP_AUTO_INSTALL", "0").arg("--version");
    match child::output(&probe) {
        Ok(output) if output.status.success() => Ok(()),
        Ok(_) => {
            screen::say(
                "set-up: installing the nightly toolchain, from rustup's servers; stable has neither sanitizers nor branch coverage",
            );
            succeed(rustup(project).args(["toolchain", "install", "nightly", "--profile", "minimal"]))
        }
        Err(error) => {
            bail!("this command needs a nightly compiler, and rustup, which brings it, does not start: {error}")
        }
    }
}

/// The project's own `cargo-fuzz`.
pub(crate) fn cargo_fuzz(project: &Path) -> Result<PathBuf> {
    let why = "it builds libFuzzer and the target together";
    setup::tool(project, &Tool { name: "cargo-fuzz", version: "0.13.2", why })
}

/// The directory of LLVM's `llvm-cov` and `llvm-profdata` that understand what the nightly compiler writes: its own, or
/// Debian's of the same LLVM.
pub(crate) fn llvm_tools(project: &Path) -> Result<PathBuf> {
    let output = |arguments: &[&str]| -> Result<String> {
        let output = child::output(run(project, "rustc").args(arguments))?;
        Ok(String::from_utf8(output.stdout)?)
    };
    let sysroot = output(&["--print", "sysroot"])?;
    let own = Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).join("bin");
    let is_complete =
        |directory: &Path| directory.join("llvm-cov").is_file() && directory.join("llvm-profdata").is_file();
    if is_complete(&own) {
        return Ok(own);
    }
    let version = output(&["-vV"])?;
    let major = llvm_major(&version).context("the nightly compiler does not say which LLVM it has")?;
    let system = PathBuf::from(format!("/usr/lib/llvm-{major}/bin"));
    if is_complete(&system) {
        return Ok(system);
    }
    if !setup::rustup_may_download() {
        return setup::coverage_tools(project, major);
    }
    screen::say("set-up: adding llvm-tools to the nightly toolchain, from rustup's servers: llvm-cov");
    succeed(rustup(project).args(["component", "add", "--toolchain", "nightly", "llvm-tools"]))?;
    Ok(own)
}

/// The first number of the line `LLVM version: 22.1.4`.
fn llvm_major(version: &str) -> Option<&str> {
    version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.split('.').next()
}

/// `program` with the nightly toolchain, started in the project's root.
pub(crate) fn run(project: &Path, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut rustup = rustup(project);
    rustup.args(["run", "nightly"]).arg(program);
    rustup
}

/// rustup, started in the project's root.
pub(crate) fn rustup(project: &Path) -> Command {
    let mut rustup = Command::new("rustup");
    rustup.current_dir(project);
    childenv::isolate(&mut rustup, &[], project);
    rustup
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_says_which_llvm_it_has() {
        assert_eq!(llvm_major("rustc 1.97.0-nightly\nhost: x\nLLVM version: 22.1.4\n"), Some("22"));
        assert_eq!(llvm_major("rustc 1.97.0\n"), None);
    }
}
