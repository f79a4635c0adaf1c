//! What this machine has to build and boot the test kernel with.
//!
//! The kernel needs more than a compiler: the source of `core` (built for the kernel's own target), LLVM's binary
//! tools and a linker (`bootimage` assembles the disk image with them), and QEMU. Two compilers are considered: the
//! rustup toolchain that runs xtask, and Debian's packages, which bring all of this without rustup's servers.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{child, qemu, sysroot};

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
    pub(crate) llvm_tools: bool,
    pub(crate) linker: bool,
    pub(crate) clippy: bool,
}

impl Compiler {
    /// Clippy is not asked for: without it the kernel still builds and boots.
    pub(crate) fn builds_kernel(&self) -> bool {
        self.version >= OLDEST && self.cargo && self.rust_src && self.llvm_tools && self.linker
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    Root,
    Sudo,
    None,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Apt {
    pub(crate) privilege: Privilege,
    /// Whether the package lists were fetched by this run; a fresh container has none.
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
    /// Whether `rustup component add` may be tried for it.
    pub(crate) rustup_may_add: bool,
    /// The compiler under `/usr/bin`.
    pub(crate) debian: Option<Compiler>,
    pub(crate) apt: Option<Apt>,
    pub(crate) qemu: bool,
    pub(crate) bootimage: bool,
}

/// Where the kernel's compiler comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Selected,
    Debian,
}

impl Machine {
    pub(crate) fn inspect(project: &Path) -> Self {
        let from_rustup = std::env::var_os("RUSTUP_TOOLCHAIN").is_some();
        Self {
            selected: inspect_selected(),
            rustup_may_add: from_rustup && rustup_may_download() && find("rustup").is_some(),
            debian: inspect_debian(),
            apt: inspect_apt(),
            qemu: find(qemu::PROGRAM).is_some(),
            bootimage: bootimage(project).is_file(),
        }
    }

    /// The rustup toolchain is preferred: it is the one the project names.
    pub(crate) fn kernel_compiler(&self) -> Option<Source> {
        if self.selected.as_ref().is_some_and(Compiler::builds_kernel) {
            Some(Source::Selected)
        } else if self.debian.as_ref().is_some_and(Compiler::builds_kernel) {
            Some(Source::Debian)
        } else {
            None
        }
    }

    pub(crate) fn kernel_clippy(&self) -> bool {
        let compiler = match self.kernel_compiler() {
            Some(Source::Selected) => &self.selected,
            Some(Source::Debian) => &self.debian,
            None => return false,
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
pub(crate) fn version_line(program: &OsStr) -> Option<String> {
    output(Path::new(program), &["--version"])?.lines().next().map(str::to_owned)
}

fn inspect_selected() -> Option<Compiler> {
    let sysroot = selected_sysroot()?;
    let rustc = sysroot.join("bin/rustc");
    let (version, host) = release(&rustc)?;
    let tools = sysroot.join("lib/rustlib").join(host).join("bin");
    Some(Compiler {
        version,
        cargo: sysroot.join("bin/cargo").is_file(),
        rust_src: has_rust_src(&sysroot),
        llvm_tools: tools.join("llvm-objcopy").is_file(),
        linker: tools.join("rust-lld").is_file(),
        clippy: sysroot.join("bin/cargo-clippy").is_file(),
    })
}

fn inspect_debian() -> Option<Compiler> {
    let (version, _) = release(Path::new("/usr/bin/rustc"))?;
    Some(Compiler {
        version,
        cargo: Path::new("/usr/bin/cargo").is_file(),
        rust_src: has_rust_src(Path::new("/usr")),
        llvm_tools: sysroot::llvm_tools().is_some(),
        linker: sysroot::linker().is_some(),
        clippy: Path::new("/usr/bin/cargo-clippy").is_file(),
    })
}

fn inspect_apt() -> Option<Apt> {
    find("apt-get")?;
    let root = output(Path::new("id"), &["-u"]).is_some_and(|uid| uid.trim() == "0");
    let privilege = match (root, find("sudo")) {
        (true, _) => Privilege::Root,
        (false, Some(_)) => Privilege::Sudo,
        (false, None) => Privilege::None,
    };
    let offered = |package: &str| {
        let policy = output(Path::new("apt-cache"), &["policy", package])?;
        candidate(&policy)
    };
    Some(Apt { privilege, updated: false, web: offered("rustc-web"), plain: offered("rustc") })
}

/// The version `apt-cache policy` would install.
fn candidate(policy: &str) -> Option<Version> {
    policy.lines().find_map(|line| line.trim().strip_prefix("Candidate:")).and_then(Version::parse)
}

/// Version and host triple of a compiler, or nothing when it does not run.
fn release(rustc: &Path) -> Option<(Version, String)> {
    let text = output(rustc, &["-vV"])?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    Some((Version::parse(field("release: ")?)?, field("host: ")?.to_owned()))
}

fn has_rust_src(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").is_file()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn output(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = child::output(Command::new(program).args(arguments)).ok()?;
    if output.status.success() { String::from_utf8(output.stdout).ok() } else { None }
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
    fn candidate_is_what_apt_would_install() {
        let policy = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1\n  Version table:\n";
        assert_eq!(candidate(policy), Some(Version(1, 96)));
        assert_eq!(candidate("rustc-web:\n  Candidate: (none)\n"), None);
        assert_eq!(candidate(""), None);
    }
}
