//! Builds the test kernel's boot image, and boots it for tests.
//!
//! `tests/kernel` is a workspace of its own for a bare-metal target; its `.cargo/config.toml` says how it is built.
//! First come the ring-3 programs, whose ELF file the kernel embeds, then the kernel, then the bootloader around it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::child::{self, succeed};
use crate::childenv;
use crate::disk;
use crate::qemu::{Boot, Cpus, DISK, Echo, Image, Outcome, TEST_MODE};
use crate::screen;
use crate::setup::{self, Need, Toolchain};
use crate::steps::Summary;

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

/// The programs and the environment that the kernel is built with.
pub(crate) struct KernelToolchain {
    project: PathBuf,
    programs: Toolchain,
}

impl KernelToolchain {
    /// Fetches what is missing for `need`.
    pub(crate) fn prepare(project: &Path, need: Need) -> Result<Self> {
        let programs = setup::prepare(project, need)?;
        Ok(Self { project: project.to_owned(), programs })
    }

    /// Whether the kernel can be linted, too.
    pub(crate) fn clippy(&self) -> bool {
        self.programs.clippy
    }

    /// Which compiler it is, and where it comes from.
    pub(crate) fn description(&self) -> String {
        self.programs.description()
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let first: Vec<&Path> = self.programs.path.iter().map(PathBuf::as_path).collect();
        childenv::isolate(&mut command, &first, &self.project);
        command
            .current_dir(self.workspace())
            .env("CARGO", &self.programs.cargo)
            .env("RUSTC", &self.programs.rustc)
            // Building `core` for the kernel's target is the one unstable thing this needs.
            .env("RUSTC_BOOTSTRAP", "1");
        command
    }

    /// Its cargo in `directory`, for targets whose `core` has to be built.
    pub(crate) fn cargo_in(&self, directory: &Path) -> Command {
        let mut cargo = self.command(&self.programs.cargo);
        cargo.current_dir(directory);
        cargo
    }

    fn workspace(&self) -> PathBuf {
        self.project.join("tests/kernel")
    }

    /// Builds the programs that run in ring 3.
    pub(crate) fn build_user(&self, profile: Profile) -> Result<PathBuf> {
        let mut cargo = self.command(&self.programs.cargo);
        cargo.args(["build", "--package", USER_PACKAGE]).args(profile.flag());
        succeed(&cargo)?;
        let elf = [Path::new("target"), Path::new(TARGET), Path::new(profile.directory())]
            .iter()
            .fold(self.workspace(), |path, part| path.join(part))
            .join(USER_PACKAGE);
        if elf.is_file() { Ok(elf) } else { bail!("{} was not built", elf.display()) }
    }

    /// Builds everything into a disk image.
    pub(crate) fn build_image(&self, profile: Profile) -> Result<Image> {
        self.build_image_with(profile, "Wide")
    }

    /// With frame words of this layout.
    pub(crate) fn build_image_with(&self, profile: Profile, layout: &str) -> Result<Image> {
        let user = self.build_user(profile)?;
        let mut bootimage = self.bootimage(profile);
        self.make_image(bootimage.env("PAGEPIN_USER_ELF", user).env("PAGEPIN_LAYOUT", layout))
    }

    /// Builds one of the kernels in `examples` into a disk image.
    pub(crate) fn build_example(&self, name: &str) -> Result<Image> {
        let mut bootimage = self.bootimage(Profile::Release);
        self.make_image(bootimage.current_dir(self.project.join("examples").join(name)))
    }

    /// Builds the kernel of the tutorial, which has the examples' boot loader and need not build it again.
    pub(crate) fn build_typed(&self, directory: &Path) -> Result<Image> {
        let mut bootimage = self.bootimage(Profile::Debug);
        self.make_image(bootimage.current_dir(directory).env("CARGO_TARGET_DIR", self.built_examples()))
    }

    /// What the examples are built into.
    pub(crate) fn built_examples(&self) -> PathBuf {
        self.project.join("examples/machine/target")
    }

    fn bootimage(&self, profile: Profile) -> Command {
        let mut bootimage = self.command(&setup::bootimage(&self.project));
        bootimage.arg("bootimage").args(profile.flag()).args(["--manifest-path", "Cargo.toml"]);
        bootimage
    }

    fn make_image(&self, bootimage: &Command) -> Result<Image> {
        let mut image = None;
        let status = child::watch(bootimage, |_, line| {
            screen::output(line);
            image = created_image(line).or(image.take());
        })?;
        match image {
            Some(disk) if status.success() => Ok(Image { disk, emulator: self.programs.emulator.clone() }),
            _ => bail!("bootimage ended with {status} and without an image"),
        }
    }

    /// Lints the test kernel, its ring-3 programs and the example kernels; without clippy, the compiler's own warnings are
    /// what is denied.
    pub(crate) fn lint(&self) -> Result<()> {
        let user = self.build_user(Profile::Release)?;
        succeed(self.lint_of(&self.workspace()).env("PAGEPIN_USER_ELF", user))?;
        succeed(&self.lint_of(&self.project.join("examples/machine")))
    }

    /// The command that lints the workspace in this folder.
    pub(crate) fn lint_of(&self, workspace: &Path) -> Command {
        let mut cargo = self.cargo_in(workspace);
        if self.clippy() {
            cargo.args(["clippy", "--workspace", "--release", "--", "-D", "warnings"]);
        } else {
            // RUSTFLAGS would replace the flags in the kernel's own configuration.
            let deny = ["-Zwarnings", "--config", "build.warnings='deny'"];
            cargo.args(["check", "--workspace", "--release"]).args(deny);
        }
        cargo
    }
}

/// Boots a mode that runs tests, on four CPUs. The note of the result says what was wrong.
pub(crate) fn tests(image: &Image, mode: &str, limit: Duration) -> Result<Summary> {
    let disk = (mode == TEST_MODE).then(|| image.disk.with_file_name(DISK));
    disk.as_deref().map_or(Ok(()), disk::write)?;
    let mut outcome = Boot { image, mode, cpus: Cpus::Threads(4), limit, echo: Echo::Human }.run()?;
    if let Some(Err(error)) = disk.as_deref().map(disk::check) {
        outcome.failure.get_or_insert(format!("{error:#}"));
    }
    Ok(judge(&outcome))
}

/// What the kernel's tests came to, which are not believed if the boot as such has failed.
pub(crate) fn judge(outcome: &Outcome) -> Summary {
    let mut objections = outcome.transcript.objections();
    objections.extend(outcome.failure.clone());
    let transcript = &outcome.transcript;
    let (passed, failing) = (transcript.passed, transcript.failed());
    let failed = if failing == 0 && !objections.is_empty() { 1 } else { failing };
    let named = transcript.failures.iter().map(|(name, why)| format!("{name}: {why}"));
    let complaints: Vec<String> = named.chain(objections).collect();
    let note = if complaints.is_empty() { format!("{passed} tests") } else { complaints.join("\n") };
    Summary { note, passed, failed }
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
