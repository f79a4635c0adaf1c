//! What this machine has to build and boot the test kernel with.
//!
//! The kernel needs more than a compiler: the source of `core` (built for the kernel's own target), LLVM's binary
//! tools and a linker (`bootimage` assembles the disk image with them), and QEMU. Three places are looked at: the toolchain
//! that runs xtask, the system, and what set-up has unpacked below `target/tools` earlier.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::plan::Need;
use super::root::Root;
use super::sysroot;
use crate::{child, qemu};

/// The oldest release whose cargo knows `-Zjson-target-spec`, which `bootimage` passes.
pub(crate) const OLDEST: Version = Version(1, 95);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32);

impl Version {
    /// Reads the leading `major.minor` of a version such as `1.96.0+dfsg1-1`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().split(|c: char| !c.is_ascii_digit());
        Some(Self(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// One installed compiler and what lies beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compiler {
    pub(crate) version: Version,
    pub(crate) cargo: bool,
    pub(crate) rust_src: bool,
    pub(crate) clippy: bool,
}

impl Compiler {
    /// Clippy is not asked for: without it the kernel still builds and boots.
    fn builds_core(&self) -> bool {
        self.version >= OLDEST && self.cargo && self.rust_src
    }
}

/// Whether a program is of the system or was unpacked by set-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    System,
    Private,
}

/// Where the kernel's compiler comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The toolchain that runs xtask.
    Selected,
    Packages(Place),
}

/// Where LLVM's binary tools and linker come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Llvm {
    /// The `llvm-tools` of the toolchain that runs xtask.
    Selected,
    Packages(Place),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Apt {
    /// Whether the package lists were fetched by this run.
    pub(crate) updated: bool,
    /// The newest compiler offered under each package family's name.
    pub(crate) web: Option<Version>,
    pub(crate) plain: Option<Version>,
}

/// All that the set-up plan depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    /// The compiler of the toolchain that runs xtask.
    pub(crate) selected: Option<Compiler>,
    /// Whether that one has the `llvm-tools` component.
    pub(crate) selected_llvm: bool,
    /// Whether `rustup component add` may be tried for it.
    pub(crate) rustup_may_add: bool,
    /// The compiler under `/usr/bin`.
    pub(crate) system: Option<Compiler>,
    /// The compiler in its private root.
    pub(crate) private: Option<Compiler>,
    /// LLVM's tools and linker outside of the selected toolchain.
    pub(crate) llvm: Option<Place>,
    pub(crate) emulator: Option<Place>,
    pub(crate) apt: Option<Apt>,
    pub(crate) bootimage: bool,
}

/// Which of the machine's programs count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tools {
    /// Those of the system and of rustup first.
    Any,
    /// Those below `target/tools` only, as on a machine that has nothing but a host compiler.
    Private,
}

impl Tools {
    const VARIABLE: &str = "PAGEPIN_TOOLS";

    pub(crate) fn from_environment() -> Result<Self> {
        Self::named(std::env::var_os(Self::VARIABLE).as_deref())
    }

    fn named(value: Option<&OsStr>) -> Result<Self> {
        match value {
            None => Ok(Self::Any),
            Some(value) if value == "private" => Ok(Self::Private),
            Some(value) => bail!("{}={}: the only value is `private`", Self::VARIABLE, value.display()),
        }
    }
}

impl Machine {
    pub(crate) fn inspect(project: &Path, tools: Tools) -> Self {
        let any = tools == Tools::Any;
        let from_rustup = std::env::var_os("RUSTUP_TOOLCHAIN").is_some();
        let selected = if any { selected_sysroot() } else { None };
        Self {
            selected: selected.as_deref().and_then(|sysroot| inspect_compiler(sysroot, &sysroot.join("bin"))),
            selected_llvm: selected.as_deref().is_some_and(has_llvm_tools),
            rustup_may_add: any && from_rustup && rustup_may_download() && find("rustup").is_some(),
            system: if any { inspect_compiler(Path::new("/usr"), Path::new("/usr/bin")) } else { None },
            private: private(project, "rust").and_then(|root| inspect_compiler(&root.usr(), &root.launchers())),
            llvm: if any && sysroot::system_llvm().is_some() {
                Some(Place::System)
            } else {
                private(project, "llvm").map(|_| Place::Private)
            },
            emulator: inspect_emulator(project, any),
            apt: find("apt-get").and(find("dpkg-deb")).map(|_| Apt { updated: false, web: None, plain: None }),
            bootimage: bootimage(project).is_file(),
        }
    }

    /// The toolchain that runs xtask is preferred: it is the one the project names. One without clippy is passed over
    /// for linting where there can be a better one.
    pub(crate) fn kernel_compiler(&self, need: Need) -> Option<Source> {
        let good = |compiler: &Option<Compiler>| compiler.as_ref().is_some_and(Compiler::builds_core);
        let lints = self.system.as_ref().is_some_and(|compiler| compiler.clippy);
        if good(&self.selected) {
            Some(Source::Selected)
        } else if good(&self.system) && (need == Need::Boot || lints || self.apt.is_none()) {
            Some(Source::Packages(Place::System))
        } else if good(&self.private) {
            Some(Source::Packages(Place::Private))
        } else {
            None
        }
    }

    /// Any LLVM will do for any compiler: it only sees finished ELF files.
    pub(crate) fn kernel_llvm(&self, source: Source) -> Option<Llvm> {
        if source == Source::Selected && self.selected_llvm {
            return Some(Llvm::Selected);
        }
        self.llvm.map(Llvm::Packages)
    }

    pub(crate) fn clippy(&self, source: Source) -> bool {
        let compiler = match source {
            Source::Selected => &self.selected,
            Source::Packages(Place::System) => &self.system,
            Source::Packages(Place::Private) => &self.private,
        };
        compiler.as_ref().is_some_and(|compiler| compiler.clippy)
    }
}

/// Whether rustup may fetch what nobody asked it for: the user can forbid that.
pub(crate) fn rustup_may_download() -> bool {
    !std::env::var("RUSTUP_AUTO_INSTALL").is_ok_and(|value| value == "0")
}

/// Tools live in the project, so that no global installation is touched or depended on.
pub(crate) fn tools(project: &Path) -> PathBuf {
    project.join("target/tools")
}

/// Where packages are unpacked, each bundle in a directory of its own.
pub(crate) fn packages(project: &Path) -> PathBuf {
    tools(project).join("debian")
}

/// A program among the [`tools`], installed or not.
pub(crate) fn tool(project: &Path, name: &str) -> PathBuf {
    tools(project).join("bin").join(name)
}

pub(crate) fn bootimage(project: &Path) -> PathBuf {
    tool(project, "cargo-bootimage")
}

/// The sysroot of the toolchain that runs xtask.
pub(crate) fn selected_sysroot() -> Option<PathBuf> {
    let beside = std::env::var_os("CARGO").map(|cargo| Path::new(&cargo).with_file_name("rustc"));
    let rustc = beside.filter(|rustc| rustc.is_file()).unwrap_or_else(|| "rustc".into());
    output(&rustc, &["--print", "sysroot"]).map(|path| PathBuf::from(path.trim()))
}

/// First line of a program's `--version`.
pub(crate) fn version_line(program: &Path) -> Option<String> {
    output(program, &["--version"])?.lines().next().map(str::to_owned)
}

/// The compiler whose libraries are in `sysroot` and whose programs are in `bin`.
fn inspect_compiler(sysroot: &Path, bin: &Path) -> Option<Compiler> {
    let (version, _) = release(&bin.join("rustc"))?;
    let has = |program: &str| bin.join(program).is_file();
    let source = sysroot.join("lib/rustlib/src/rust/library/Cargo.lock");
    Some(Compiler { version, cargo: has("cargo"), rust_src: source.is_file(), clippy: has("cargo-clippy") })
}

fn has_llvm_tools(sysroot: &Path) -> bool {
    let Some((_, host)) = release(&sysroot.join("bin/rustc")) else { return false };
    let tools = sysroot.join("lib/rustlib").join(host).join("bin");
    tools.join("llvm-objcopy").is_file() && tools.join("rust-lld").is_file()
}

/// The root of `bundle`, if its programs still run: a library of the system may have gone since it was unpacked.
fn private(project: &Path, bundle: &str) -> Option<Root> {
    let root = Root::of(project, bundle);
    (root.is_complete() && root.verify().is_ok()).then_some(root)
}

fn inspect_emulator(project: &Path, any: bool) -> Option<Place> {
    let suits = |program: &Path| output(program, &["-device", "help"]).is_some_and(|listing| has_devices(&listing));
    let system = if any { find(qemu::PROGRAM) } else { None };
    if system.is_some_and(|program| suits(&program)) {
        return Some(Place::System);
    }
    let root = private(project, "qemu")?;
    suits(&root.launchers().join(qemu::PROGRAM)).then_some(Place::Private)
}

/// Distributions leave out devices, so that a QEMU is judged by those it lists and not by its version.
fn has_devices(listing: &str) -> bool {
    qemu::DEVICES.iter().all(|device| listing.contains(&format!("name \"{device}\"")))
}

/// The version `apt-cache policy` would install.
pub(super) fn candidate(policy: &str) -> Option<Version> {
    policy.lines().find_map(|line| line.trim().strip_prefix("Candidate:")).and_then(Version::parse)
}

/// Version and host triple of a compiler, or nothing when it does not run.
fn release(rustc: &Path) -> Option<(Version, String)> {
    let text = output(rustc, &["-vV"])?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    Some((Version::parse(field("release: ")?)?, field("host: ")?.to_owned()))
}

/// A program on the `PATH`.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// What a command that works says; what it says when it fails is the error.
pub(super) fn said(command: &Command) -> Result<String> {
    let output = child::output(command)?;
    if !output.status.success() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn output(program: &Path, arguments: &[&str]) -> Option<String> {
    said(Command::new(program).args(arguments)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_every_origin_are_read() {
        assert_eq!(Version::parse("1.96.0+dfsg1-1~deb12u2"), Some(Version(1, 96)));
        assert_eq!(Version::parse(" 1.95.0"), Some(Version(1, 95)));
        assert_eq!(Version::parse("1.97.0-nightly"), Some(Version(1, 97)));
        assert_eq!(Version::parse("(none)"), None);
        assert!(Version(1, 100) > Version(1, 99));
    }

    #[test]
    fn a_qemu_without_a_device_that_the_kernel_needs_is_passed_over() {
        let listing =
            |devices: &[&str]| devices.iter().map(|name| format!("name \"{name}\", bus PCI\n")).collect::<String>();
        assert!(has_devices(&listing(&qemu::DEVICES)));
        assert!(!has_devices(&listing(&["education", "isa-debug-exit", "intel-iommu"])));
        assert!(!has_devices(""));
    }

    #[test]
    fn the_systems_tools_are_passed_over_for_who_asks_for_it_in_the_right_words() {
        assert_eq!(Tools::named(None).ok(), Some(Tools::Any));
        assert_eq!(Tools::named(Some("private".as_ref())).ok(), Some(Tools::Private));
        assert!(Tools::named(Some("system".as_ref())).is_err());
    }

    #[test]
    fn candidate_is_what_apt_would_install() {
        let policy = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1\n  Version table:\n";
        assert_eq!(candidate(policy), Some(Version(1, 96)));
        assert_eq!(candidate("rustc-web:\n  Candidate: (none)\n"), None);
        assert_eq!(candidate(""), None);
    }
}
