//! The oldest compiler that the library says it supports compiles it: `rust-version` in the manifest is what is
//! checked, not what is believed. Tests and tools may need a newer one.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::child::{self, succeed};
use crate::childenv::host_cargo;
use crate::nightly::rustup;
use crate::powerset::{self, LIBRARY, STORE};
use crate::screen;
use crate::setup;
use crate::steps::Summary;

pub(crate) fn check(project: &Path) -> Result<Summary> {
    let release = rust_version(project)?;
    let compiler = find(project, &release)?;
    let version = said(Command::new(&compiler).arg("--version"))?;
    if !version.starts_with(&format!("rustc {release}.")) {
        bail!("{} is {}, not {release}", compiler.display(), version.trim());
    }
    for (package, features) in
        [(LIBRARY, "--no-default-features"), (LIBRARY, "--all-features"), (STORE, "--all-features")]
    {
        let mut cargo = host_cargo(project);
        cargo.args(["check", "--package", package, "--lib", "--target-dir", "target/oldest", features]);
        succeed(cargo.env("RUSTC", &compiler))?;
    }
    Ok(Summary::note(version.trim()))
}

/// The release in the library's manifest, such as `1.85`.
fn rust_version(project: &Path) -> Result<String> {
    let library = powerset::library(host_cargo(project))?;
    library["rust_version"].as_str().map(str::to_owned).context("the library's manifest has no rust-version")
}

/// The compiler of that release: rustup's if it is there or may be fetched, else Debian's.
fn find(project: &Path, release: &str) -> Result<PathBuf> {
    let installed = || {
        let path = said(rustup(project).args(["which", "--toolchain", release, "rustc"])).ok()?;
        Some(PathBuf::from(path.trim()))
    };
    if let Some(compiler) = installed() {
        return Ok(compiler);
    }
    if setup::rustup_may_download() {
        screen::say(format!("set-up: installing Rust {release} from rustup's servers: the oldest that is supported"));
        let arguments = ["toolchain", "install", release, "--profile", "minimal"];
        match succeed(rustup(project).args(arguments)) {
            Ok(()) => return installed().context("rustup has installed a toolchain and does not know it"),
            Err(error) => screen::say(format!("rustup could not: {error:#}; looking elsewhere")),
        }
    }
    setup::older_compiler(project, release)
}

fn said(command: &Command) -> Result<String> {
    let output = child::output(command)?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}
