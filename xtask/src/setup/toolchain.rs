//! The programs with which the kernel is built and booted, once all of them are there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::machine::{self, Llvm, Machine, Place, Source};
use super::plan::Need;
use super::root::Root;
use super::sysroot;
use crate::qemu;

pub(crate) struct Toolchain {
    /// In front of everything else on `PATH`: `bootimage` calls `rustc`, and rustc calls `rust-lld`, by name.
    pub(crate) path: Vec<PathBuf>,
    pub(crate) cargo: PathBuf,
    pub(crate) rustc: PathBuf,
    /// Whether the kernel can be linted, too.
    pub(crate) clippy: bool,
    /// QEMU.
    pub(crate) emulator: PathBuf,
    origin: &'static str,
}

impl Toolchain {
    /// The one that `machine` has after set-up.
    pub(super) fn find(project: &Path, machine: &Machine, need: Need) -> Result<Self> {
        let source = machine.kernel_compiler(need).context("no compiler for the kernel")?;
        let (bin, origin) = match source {
            Source::Selected => {
                let sysroot = machine::selected_sysroot().context("rustc has no sysroot")?;
                (sysroot.join("bin"), "of the toolchain that runs xtask")
            }
            Source::Packages(Place::System) => (PathBuf::from("/usr/bin"), "of the system"),
            Source::Packages(Place::Private) => (Root::of(project, "rust").launchers(), "of target/tools"),
        };
        let (cargo, rustc) = (bin.join("cargo"), bin.join("rustc"));
        let tools = match machine.kernel_llvm(source).context("no LLVM tools for the kernel")? {
            Llvm::Selected => None,
            Llvm::Packages(Place::System) => Some(sysroot::system_llvm().context("LLVM's tools have gone")?),
            Llvm::Packages(Place::Private) => Some(sysroot::Llvm::in_directory(&Root::of(project, "llvm").launchers())),
        };
        let mut path = vec![bin];
        if let Some(llvm) = tools {
            path.insert(0, sysroot::create(project, &rustc, &llvm)?);
        }
        let emulator = match machine.emulator.context("no QEMU")? {
            Place::System => qemu::PROGRAM.into(),
            Place::Private => Root::of(project, "qemu").launchers().join(qemu::PROGRAM),
        };
        Ok(Self { path, cargo, rustc, clippy: machine.clippy(source), emulator, origin })
    }

    /// Which compiler it came to, without the parentheses behind its version.
    pub(crate) fn description(&self) -> String {
        let line = machine::version_line(&self.rustc).unwrap_or_default();
        let version = line.split_once(" (").map_or(line.as_str(), |(version, _)| version);
        format!("{version}, {}", self.origin)
    }

    pub(crate) fn emulator_version(&self) -> String {
        machine::version_line(&self.emulator).unwrap_or_default()
    }
}
