//! What to install next on a given machine: a pure function, so that machines nobody has at hand can be tried in tests.

use std::fmt;

use crate::toolchain::{Apt, Compiler, Machine, OLDEST, Privilege, Source, Version};

pub(crate) const BOOTIMAGE_VERSION: &str = "0.10.5";

/// What the command at hand is going to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Build and boot the kernel.
    Boot,
    /// Lint it as well.
    Lint,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    why: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    RustupAdd(Vec<Package>),
    AptUpdate,
    AptInstall(Vec<Package>),
    Bootimage,
}

/// Debian's stable releases carry a current compiler under the `-web` names (for browsers); testing and later
/// releases under the plain ones.
struct Family {
    rustc: &'static str,
    cargo: &'static str,
    src: &'static str,
    clippy: &'static str,
}

const WEB: Family = Family { rustc: "rustc-web", cargo: "cargo-web", src: "rust-web-src", clippy: "rust-web-clippy" };
const PLAIN: Family = Family { rustc: "rustc", cargo: "cargo", src: "rust-src", clippy: "rust-clippy" };

/// The next things to install; none when the machine is ready. `Err` tells a person what to do instead.
pub(crate) fn next(machine: &Machine, need: Need) -> Result<Vec<Action>, String> {
    if machine.kernel_compiler().is_none()
        && machine.rustup_may_add
        && let Some(components) = machine.selected.as_ref().and_then(missing_components)
    {
        return Ok(vec![Action::RustupAdd(components)]);
    }
    let packages = missing_packages(machine, need);
    if !packages.is_empty() {
        return with_apt(machine, packages);
    }
    if !machine.bootimage {
        return Ok(vec![Action::Bootimage]);
    }
    Ok(Vec::new())
}

/// `None` when adding components would not make this toolchain sufficient.
fn missing_components(compiler: &Compiler) -> Option<Vec<Package>> {
    let mut components = Vec::new();
    if !compiler.rust_src {
        components.push(Package { name: "rust-src", why: "source of core, built for the kernel's target" });
    }
    if !compiler.llvm_tools || !compiler.linker {
        components.push(Package { name: "llvm-tools", why: "assembles the boot image" });
    }
    let current = compiler.version >= OLDEST && compiler.cargo;
    if current && !components.is_empty() { Some(components) } else { None }
}

fn missing_packages(machine: &Machine, need: Need) -> Vec<Package> {
    let mut packages = Vec::new();
    let mut want = |name, why| packages.push(Package { name, why });
    let family = family(machine.apt.as_ref());
    if machine.kernel_compiler().is_none() {
        let found = machine.debian.as_ref();
        let current = found.filter(|compiler| compiler.version >= OLDEST);
        let lacks = |has: fn(&Compiler) -> bool| !current.is_some_and(has);
        if current.is_none() {
            want(family.rustc, "compiler for the test kernel");
        }
        if lacks(|compiler| compiler.cargo) {
            want(family.cargo, "builds the test kernel with it");
        }
        if lacks(|compiler| compiler.rust_src) {
            want(family.src, "source of core, built for the kernel's target");
        }
        // LLVM's tools and linker need not be as new as the compiler: they only see finished ELF files.
        if !found.is_some_and(|compiler| compiler.llvm_tools) {
            want("llvm", "llvm-objcopy assembles the boot image");
        }
        if !found.is_some_and(|compiler| compiler.linker) {
            want("lld", "links the kernel");
        }
    }
    let from_debian = machine.kernel_compiler() != Some(Source::Selected);
    let clippy = machine.debian.as_ref().is_some_and(|compiler| compiler.clippy);
    if need == Need::Lint && from_debian && !clippy {
        want(family.clippy, "lints the test kernel");
    }
    if !machine.qemu {
        want("qemu-system-x86", "the machine the kernel boots on");
    }
    packages
}

fn family(apt: Option<&Apt>) -> &'static Family {
    let current = |version: Option<Version>| version.is_some_and(|version| version >= OLDEST);
    match apt {
        Some(apt) if !current(apt.web) && current(apt.plain) => &PLAIN,
        _ => &WEB,
    }
}

fn with_apt(machine: &Machine, packages: Vec<Package>) -> Result<Vec<Action>, String> {
    let names = packages.iter().map(|package| package.name).collect::<Vec<_>>().join(" ");
    let Some(apt) = &machine.apt else {
        let lines: String = packages.iter().map(|p| format!("\n  {:<16} {}", p.name, p.why)).collect();
        let rust = if machine.kernel_compiler().is_some() {
            ""
        } else {
            "\nWith rustup, `rustup update stable && rustup component add rust-src llvm-tools` replaces all but QEMU."
        };
        return Err(format!("this machine has no apt, and these are missing (by Debian's names):{lines}{rust}"));
    };
    if apt.privilege == Privilege::None {
        return Err(format!(
            "packages are missing and neither root nor sudo is at hand; run as root:\n  \
             apt-get update && apt-get install --no-install-recommends {names}"
        ));
    }
    if !apt.updated {
        return Ok(vec![Action::AptUpdate]);
    }
    let wants_rust = [WEB.rustc, PLAIN.rustc].iter().any(|rustc| names.split(' ').any(|n| n == *rustc));
    if wants_rust && apt.web.max(apt.plain).is_none_or(|offered| offered < OLDEST) {
        return Err(format!(
            "apt offers no Rust {OLDEST} or newer; with rustup: `rustup update stable` and \
             `rustup component add rust-src llvm-tools`"
        ));
    }
    Ok(vec![Action::AptInstall(packages)])
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (heading, packages): (_, &[Package]) = match self {
            Self::RustupAdd(components) => ("adding to the rustup toolchain, from rustup's servers", components),
            Self::AptUpdate => return write!(f, "set-up: fetching apt's package lists"),
            Self::AptInstall(packages) => ("installing with apt", packages),
            Self::Bootimage => {
                return write!(
                    f,
                    "set-up: installing bootimage {BOOTIMAGE_VERSION} from crates.io into target/tools; \
                     it joins kernel and bootloader to a disk image"
                );
            }
        };
        write!(f, "set-up: {heading}:")?;
        packages.iter().try_for_each(|p| write!(f, "\n  {:<16} {}", p.name, p.why))
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
