//! Sets of Debian packages, each of which is one thing that the machine may lack.

use std::fmt;

/// Packages that are fetched, unpacked and thrown away together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bundle {
    /// The directory of its root.
    pub(crate) name: String,
    pub(crate) packages: Vec<String>,
    /// What is called in it, below `usr/`.
    pub(crate) programs: Vec<String>,
    /// What takes much room in it and is never looked at.
    pub(crate) unneeded: &'static [&'static str],
    pub(crate) why: &'static str,
}

/// Debian's stable releases carry a current compiler under the `-web` names (for browsers); testing and later
/// releases under the plain ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Web,
    Plain,
}

impl Family {
    pub(crate) fn compiler(self) -> &'static str {
        match self {
            Self::Web => "rustc-web",
            Self::Plain => "rustc",
        }
    }
}

/// The programs of LLVM that `bootimage` and the bootloader look for; `llvm-objdump` is only looked at, as a sign of the
/// right directory.
pub(crate) const LLVM_TOOLS: [&str; 4] = ["llvm-objcopy", "llvm-objdump", "llvm-size", "llvm-ar"];
pub(crate) const LINKER: &str = "lld";

impl Bundle {
    pub(crate) fn compiler(family: Family) -> Self {
        let packages = match family {
            Family::Web => ["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"],
            Family::Plain => ["rustc", "cargo", "rust-src", "rust-clippy"],
        };
        Self {
            name: "rust".to_owned(),
            packages: packages.map(str::to_owned).to_vec(),
            programs: ["rustc", "cargo", "cargo-clippy"].map(|name| format!("bin/{name}")).to_vec(),
            unneeded: &["lib/rustlib/src/rust/compiler", "lib/rustlib/src/rust/src", "share/doc", "share/man"],
            why: "compiler for the test kernel, with the source of core",
        }
    }

    /// The compiler of the release `version`, such as `1.85`, without what else belongs to a toolchain.
    pub(crate) fn older_compiler(family: Family, version: &str) -> Self {
        let packages = match family {
            Family::Web => ["rustc-web", "libstd-rust-web-dev"],
            Family::Plain => ["rustc", "libstd-rust-dev"],
        };
        Self {
            name: format!("rust-{version}"),
            packages: packages.map(|package| format!("{package}={version}.*")).to_vec(),
            programs: vec!["bin/rustc".to_owned()],
            unneeded: &["share/doc", "share/man"],
            why: "the oldest compiler that the library supports",
        }
    }

    pub(crate) fn llvm() -> Self {
        Self {
            name: "llvm".to_owned(),
            packages: ["llvm", "lld"].map(str::to_owned).to_vec(),
            programs: LLVM_TOOLS.iter().chain([&LINKER]).map(|name| format!("bin/{name}")).collect(),
            unneeded: &["share/doc", "share/man"],
            why: "llvm-objcopy assembles the boot image, lld links the kernel",
        }
    }

    pub(crate) fn emulator() -> Self {
        Self {
            name: "qemu".to_owned(),
            // The firmware is a dependency already; here it says that it is wanted even where the system has one.
            packages: ["qemu-system-x86", "seabios"].map(str::to_owned).to_vec(),
            programs: vec![format!("bin/{}", crate::qemu::PROGRAM)],
            unneeded: &["share/doc", "share/man"],
            why: "the machine the kernel boots on",
        }
    }

    /// LLVM's coverage tools, which have to be of the compiler's own version.
    pub(crate) fn coverage_tools(version: &str) -> Self {
        Self {
            name: format!("llvm-{version}"),
            packages: vec![format!("llvm-{version}")],
            programs: ["llvm-cov", "llvm-profdata"].map(|name| format!("lib/llvm-{version}/bin/{name}")).to_vec(),
            unneeded: &["share/doc", "share/man"],
            why: "llvm-cov of the LLVM that the nightly compiler has",
        }
    }
}

impl fmt::Display for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.packages.join(" "), self.why)
    }
}
