//! Builds the test kernel's boot image, and the two commands that only boot it.
//!
//! `tests/kernel` is a workspace of its own for a bare-metal target; its `.cargo/config.toml` says how it is built.
//! First come the ring-3 programs, whose ELF file the kernel embeds, then the kernel, then the bootloader around it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::child::{self, succeed};
use crate::plan::Need;
use crate::qemu::{Boot, Cpus, Echo, Outcome};
use crate::screen;
use crate::setup;
use crate::steps::Summary;
use crate::toolchain::{self, Source};
use crate::{childenv, sysroot};

const TARGET: &str = "x86_64-unknown-none";
const USER_PACKAGE: &str = "pagepin-user";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Release,
    Debug,
}

impl Profile {
    fn directory(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Debug => "debug",
        }
    }

    fn flag(self) -> Option<&'static str> {
        match self {
            Self::Release => Some("--release"),
            Self::Debug => None,
        }
    }
}

/// The compiler, tools and environment the kernel is built with.
pub(crate) struct KernelToolchain {
    project: PathBuf,
    /// In front of everything else on `PATH`: `bootimage` calls `rustc`, and rustc calls `rust-lld`, by name.
    path: Vec<PathBuf>,
    cargo: PathBuf,
    rustc: PathBuf,
    /// Whether the kernel can be linted, too.
    pub(crate) clippy: bool,
}

impl KernelToolchain {
    /// Installs what is missing for `need` and says which toolchain it came to.
    pub(crate) fn prepare(project: &Path, need: Need) -> Result<Self> {
        let machine = setup::ensure(project, need)?;
        let source = machine.kernel_compiler().context("no toolchain for the kernel")?;
        let (path, bin, origin) = match source {
            Source::Selected => {
                let sysroot = toolchain::selected_sysroot().context("rustc has no sysroot")?;
                let bin = sysroot.join("bin");
                (vec![bin.clone()], bin, "of this rustup toolchain")
            }
            Source::Debian => {
                let bin = PathBuf::from("/usr/bin");
                (vec![sysroot::create(project)?.bin, bin.clone()], bin, "of Debian's packages")
            }
        };
        let (cargo, rustc) = (bin.join("cargo"), bin.join("rustc"));
        let version = toolchain::version_line(rustc.as_os_str()).unwrap_or_default();
        println!("kernel toolchain: {version}, {origin}");
        Ok(Self { project: project.to_owned(), path, cargo, rustc, clippy: machine.kernel_clippy() })
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let first: Vec<&Path> = self.path.iter().map(PathBuf::as_path).collect();
        childenv::isolate(&mut command, &first, &self.project);
        command
            .current_dir(self.workspace())
            .env("CARGO", &self.cargo)
            .env("RUSTC", &self.rustc)
            // Building `core` for the kernel's target is the one unstable thing this needs.
            .env("RUSTC_BOOTSTRAP", "1");
        command
    }

    fn workspace(&self) -> PathBuf {
        self.project.join("tests/kernel")
    }

    /// Builds the programs that run in ring 3.
    pub(crate) fn build_user(&self, profile: Profile) -> Result<PathBuf> {
        let mut cargo = self.command(&self.cargo);
        cargo.args(["build", "--package", USER_PACKAGE]).args(profile.flag());
        succeed(&cargo)?;
        let elf = [Path::new("target"), Path::new(TARGET), Path::new(profile.directory())]
            .iter()
            .fold(self.workspace(), |path, part| path.join(part))
            .join(USER_PACKAGE);
        if elf.is_file() { Ok(elf) } else { bail!("{} was not built", elf.display()) }
    }

    /// Builds everything and returns the disk image.
    pub(crate) fn build_image(&self, profile: Profile) -> Result<PathBuf> {
        let user = self.build_user(profile)?;
        let mut bootimage = self.command(&toolchain::bootimage(&self.project));
        bootimage.arg("bootimage").args(profile.flag());
        bootimage.args(["--manifest-path", "Cargo.toml"]).env("PAGEPIN_USER_ELF", user);
        let mut image = None;
        let status = child::watch(&bootimage, |_, line| {
            screen::output(line);
            image = created_image(line).or(image.take());
        })?;
        match image {
            Some(image) if status.success() => Ok(image),
            _ => bail!("bootimage ended with {status} and without an image"),
        }
    }

    /// Lints kernel and ring-3 programs; without clippy, the compiler's own warnings are what is denied.
    pub(crate) fn lint(&self) -> Result<()> {
        let user = self.build_user(Profile::Release)?;
        let mut cargo = self.command(&self.cargo);
        if self.clippy {
            cargo.args(["clippy", "--workspace", "--release", "--", "-D", "warnings"]);
        } else {
            // RUSTFLAGS would replace the flags in the kernel's own configuration.
            let deny = ["-Zwarnings", "--config", "build.warnings='deny'"];
            cargo.args(["check", "--workspace", "--release"]).args(deny);
        }
        succeed(cargo.env("PAGEPIN_USER_ELF", user))
    }
}

/// `cargo xtask demo`
pub(crate) fn demo(project: &Path) -> Result<bool> {
    let image = KernelToolchain::prepare(project, Need::Boot)?.build_image(Profile::Release)?;
    let outcome = Boot {
        image: &image,
        mode: "demo",
        cpus: Cpus::Threads(4),
        limit: Duration::from_secs(300),
        echo: Echo::Human,
    }
    .run()?;
    Ok(ended_well(&outcome))
}

/// `cargo xtask kernel`
pub(crate) fn develop(project: &Path, mode: &str, smp: u32, profile: Profile) -> Result<bool> {
    let image = KernelToolchain::prepare(project, Need::Boot)?.build_image(profile)?;
    let cpus = if mode == "bench" { Cpus::Counted } else { Cpus::Threads(smp) };
    let limit = Duration::from_secs(3600);
    let outcome = Boot { image: &image, mode, cpus, limit, echo: Echo::Raw }.run()?;
    if let Some(failure) = &outcome.failure {
        println!("{failure}");
    }
    Ok(outcome.failure.is_none())
}

/// Boots a mode that runs tests, on four CPUs. The note of the result says what was wrong.
pub(crate) fn tests(image: &Path, mode: &str, limit: Duration) -> Result<Summary> {
    let outcome = Boot { image, mode, cpus: Cpus::Threads(4), limit, echo: Echo::Human }.run()?;
    let mut objections = outcome.transcript.objections();
    if !ended_well(&outcome) {
        objections.extend(outcome.failure.clone());
    }
    let transcript = &outcome.transcript;
    let (passed, failing) = (transcript.passed, transcript.failed());
    let failed = if failing == 0 && !objections.is_empty() { 1 } else { failing };
    let named = transcript.failures.iter().map(|(name, why)| format!("{name}: {why}"));
    let complaints: Vec<String> = named.chain(objections).collect();
    let note = if complaints.is_empty() { format!("{passed} tests") } else { complaints.join("\n") };
    Ok(Summary { note, passed, failed })
}

/// Says why a boot failed, if it did.
pub(crate) fn ended_well(outcome: &Outcome) -> bool {
    if let Some(failure) = &outcome.failure {
        outcome.print_tail();
        println!("{failure}");
    }
    outcome.failure.is_none()
}

/// The path in bootimage's closing line, "Created bootimage for `name` at `path`".
fn created_image(line: &str) -> Option<PathBuf> {
    let (_, path) = line.strip_prefix("Created bootimage for `")?.split_once("` at `")?;
    path.strip_suffix('`').map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_path_is_read_from_bootimages_closing_line() {
        let line = "Created bootimage for `pagepin-kernel` at `/p/a b/bootimage-pagepin-kernel.bin`";
        assert_eq!(created_image(line), Some("/p/a b/bootimage-pagepin-kernel.bin".into()));
        assert_eq!(created_image("Building bootloader"), None);
    }
}
