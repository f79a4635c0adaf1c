//! What to fetch next on a given machine: a pure function, so that machines nobody has at hand can be tried in tests.

use std::fmt;

use super::advice;
use super::bundle::{Bundle, Family};
use super::machine::{Apt, Compiler, Machine, OLDEST, Source, Version};

pub(crate) const BOOTIMAGE_VERSION: &str = "0.10.5";

/// What the command at hand is going to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Build and boot the kernel.
    Boot,
    /// Lint it as well.
    Lint,
}

/// Where apt's packages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// Unpacked below `target/tools`.
    Private,
    /// Installed, by root.
    System(Privilege),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    Root,
    Sudo,
    None,
}

/// A component of the rustup toolchain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Component {
    pub(crate) name: &'static str,
    why: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    RustupAdd(Vec<Component>),
    /// Fetch the package lists.
    AptUpdate(Route),
    /// Fetch packages and unpack them.
    Unpack(Vec<Bundle>),
    AptInstall(Vec<Bundle>, Privilege),
    Bootimage,
}

/// The next things to do; none when the machine is ready. `Err` tells a person what to do instead.
pub(crate) fn next(machine: &Machine, need: Need, route: Route) -> Result<Option<Action>, String> {
    if machine.rustup_may_add
        && let Some(components) = missing_components(machine)
    {
        return Ok(Some(Action::RustupAdd(components)));
    }
    let missing = missing_bundles(machine, need);
    if !missing.is_empty() {
        return with_apt(machine, missing, need, route).map(Some);
    }
    Ok((!machine.bootimage).then_some(Action::Bootimage))
}

/// What is missing, by name.
pub(crate) fn missing(machine: &Machine, need: Need) -> Vec<String> {
    let bootimage = (!machine.bootimage).then(|| format!("bootimage {BOOTIMAGE_VERSION}, from crates.io"));
    missing_bundles(machine, need).iter().map(Bundle::to_string).chain(bootimage).collect()
}

/// `None` when adding components would not make the selected toolchain sufficient.
fn missing_components(machine: &Machine) -> Option<Vec<Component>> {
    let Compiler { version, cargo, rust_src, .. } = machine.selected.as_ref()?;
    let mut components = Vec::new();
    if !rust_src {
        components.push(Component { name: "rust-src", why: "source of core, built for the kernel's target" });
    }
    if !machine.selected_llvm {
        components.push(Component { name: "llvm-tools", why: "assembles the boot image" });
    }
    (*version >= OLDEST && *cargo && !components.is_empty()).then_some(components)
}

fn missing_bundles(machine: &Machine, need: Need) -> Vec<Bundle> {
    let mut bundles = Vec::new();
    let compiler = machine.kernel_compiler(need);
    if compiler.is_none() {
        bundles.push(Bundle::compiler(family(machine.apt)));
    }
    // A compiler that has yet to come brings no LLVM tools of its own.
    if compiler.map_or(machine.llvm.is_none(), |source: Source| machine.kernel_llvm(source).is_none()) {
        bundles.push(Bundle::llvm());
    }
    if machine.emulator.is_none() {
        bundles.push(Bundle::emulator());
    }
    bundles
}

fn is_current(version: Option<Version>) -> bool {
    version.is_some_and(|version| version >= OLDEST)
}

fn family(apt: Option<Apt>) -> Family {
    match apt {
        Some(apt) if !is_current(apt.web) && is_current(apt.plain) => Family::Plain,
        _ => Family::Web,
    }
}

fn with_apt(machine: &Machine, missing: Vec<Bundle>, need: Need, route: Route) -> Result<Action, String> {
    let lacks_compiler = machine.kernel_compiler(need).is_none();
    let Some(apt) = machine.apt else { return Err(advice::without_apt(&missing, lacks_compiler)) };
    if route == Route::System(Privilege::None) {
        let names: Vec<_> = missing.iter().flat_map(|bundle| &bundle.packages).map(String::as_str).collect();
        return Err(format!(
            "an installation into the system needs root or sudo, and neither is at hand; run as root:\n  \
             apt-get update && apt-get install --no-install-recommends {}\n\
             Without --system the packages are unpacked below target/tools, for which nobody has to be root.",
            names.join(" ")
        ));
    }
    if !apt.updated {
        return Ok(Action::AptUpdate(route));
    }
    if lacks_compiler && !is_current(apt.web) && !is_current(apt.plain) {
        return Err(format!(
            "apt offers no Rust {OLDEST} or newer; with rustup: `rustup update stable` and \
             `rustup component add rust-src llvm-tools`"
        ));
    }
    Ok(match route {
        Route::Private => Action::Unpack(missing),
        Route::System(privilege) => Action::AptInstall(missing, privilege),
    })
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "set-up: ")?;
        match self {
            Self::RustupAdd(components) => {
                write!(f, "adding to the rustup toolchain, from rustup's servers (about 40 MB):")?;
                components.iter().try_for_each(|c| write!(f, "\n  {:<12} {}", c.name, c.why))
            }
            Self::AptUpdate(Route::Private) => {
                write!(f, "fetching apt's package lists, into target/tools (about 15 MB)")
            }
            Self::AptUpdate(Route::System(_)) => write!(f, "fetching apt's package lists"),
            Self::Unpack(bundles) => {
                write!(f, "these come as Debian packages, into target/tools; nothing is installed into the system:")?;
                bundles.iter().try_for_each(|bundle| write!(f, "\n  {bundle}"))
            }
            Self::AptInstall(bundles, _) => {
                write!(f, "installing into the system with apt:")?;
                bundles.iter().try_for_each(|bundle| write!(f, "\n  {bundle}"))
            }
            Self::Bootimage => write!(
                f,
                "installing bootimage {BOOTIMAGE_VERSION} from crates.io into target/tools; it joins kernel and \
                 bootloader to a disk image"
            ),
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
