//! Fetches what the machine lacks, after saying what, from where and why.
//!
//! [`machine`] finds out what there is, [`plan`] decides what is missing. After each action the machine is looked at
//! again: a refused rustup download leads to Debian's packages, a fetched package list to a choice of packages. Packages
//! come in sets ([`bundle`]); [`apt`] chooses and downloads them, told by [`status`] what it may rely on, and
//! [`root`] unpacks them below `target/tools`. Nothing is installed into the system, unless with [`system`] for who asks.

mod advice;
mod apt;
mod bundle;
mod fetch;
mod machine;
mod plan;
mod root;
mod status;
mod sysroot;
mod system;
mod toolchain;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use self::apt::PrivateApt;
use self::bundle::Bundle;
use self::machine::{Apt, Machine, Tools};
pub(crate) use self::machine::{bootimage, rustup_may_download, version_line};
pub(crate) use self::plan::Need;
use self::plan::{Action, BOOTIMAGE_VERSION, Route};
pub(crate) use self::toolchain::Toolchain;
use crate::child::{succeed, succeed_interactively};
use crate::childenv;
use crate::screen::{self, Show};
use crate::steps::{Steps, Summary};

/// `cargo xtask setup`
pub(crate) fn run(project: &Path, into_system: bool) -> Steps {
    let mut steps = Steps::new(project, 1);
    steps.run("set-up", Show::All, || {
        let route = if into_system { Route::System(system::privilege()) } else { Route::Private };
        let toolchain = ensure(project, Need::Lint, route)?;
        screen::say(format!("set-up: kernel toolchain: {}", toolchain.description()));
        screen::say(format!("set-up: {}", toolchain.emulator_version()));
        let megabytes = disk_usage(&machine::tools(project)) / 1_000_000;
        screen::say(format!("set-up: target/tools holds {megabytes} MB, and deleting it undoes everything"));
        Ok(Summary::note("complete"))
    });
    steps
}

/// Brings the machine to the point where `need` can be met, or says what stands in the way.
pub(crate) fn prepare(project: &Path, need: Need) -> Result<Toolchain> {
    ensure(project, need, Route::Private)
}

fn ensure(project: &Path, need: Need, route: Route) -> Result<Toolchain> {
    let tools = Tools::from_environment()?;
    let mut set_up = SetUp { project, need, done: Vec::new(), apt: PrivateApt::new(project) };
    let mut machine = set_up.look(tools);
    let mut lock = None;
    while let Some(action) = plan::next(&machine, need, route).map_err(anyhow::Error::msg)? {
        if lock.is_none() {
            // Another command may be about to do the same, and may have done it by now.
            lock = Some(self::lock(project)?);
        } else {
            set_up.act(action, &machine)?;
        }
        machine = set_up.look(tools);
    }
    Toolchain::find(project, &machine, need)
}

/// One set-up's way from what is there to what is needed.
struct SetUp<'a> {
    project: &'a Path,
    need: Need,
    done: Vec<Action>,
    apt: PrivateApt,
}

impl SetUp<'_> {
    fn look(&self, tools: Tools) -> Machine {
        let mut machine = Machine::inspect(self.project, tools);
        // Whether or not rustup said it worked: what it did not bring by now has to come from elsewhere.
        machine.rustup_may_add &= !self.done.iter().any(|action| matches!(action, Action::RustupAdd(_)));
        let updated = self.done.iter().find_map(|action| match action {
            Action::AptUpdate(route) => Some(*route),
            _ => None,
        });
        if let (Some(route), Some(_)) = (updated, machine.apt) {
            let offers = |package| match route {
                Route::Private => self.apt.offers(package),
                Route::System(_) => system::offers(package),
            };
            let [web, plain] = [bundle::Family::Web, bundle::Family::Plain].map(|family| offers(family.compiler()));
            machine.apt = Some(Apt { updated: true, web, plain });
        }
        machine
    }

    fn act(&mut self, action: Action, machine: &Machine) -> Result<()> {
        if self.done.contains(&action) {
            bail!("this has been done and the machine still lacks it; {action}");
        }
        screen::say(format!("{action}"));
        match (&action, self.perform(&action)) {
            (_, Ok(())) => {}
            (Action::RustupAdd(_), Err(error)) => {
                screen::say(format!("rustup could not: {error:#}; looking elsewhere"))
            }
            (Action::AptUpdate(Route::Private), Err(error)) if self.apt.has_lists() => {
                screen::say(format!("set-up: not all package lists are new: {error:#}"));
            }
            (_, Err(error)) => return Err(self.unfinished(machine, &error)),
        }
        self.done.push(action);
        Ok(())
    }

    fn perform(&self, action: &Action) -> Result<()> {
        match action {
            Action::RustupAdd(components) => {
                let names = components.iter().map(|component| component.name);
                succeed(Command::new("rustup").args(["component", "add"]).args(names))
            }
            Action::AptUpdate(Route::Private) => self.apt.update(),
            Action::AptUpdate(Route::System(privilege)) => succeed_interactively(&system::update(*privilege)),
            Action::Unpack(bundles) => fetch::unpack(&self.apt, self.project, bundles),
            Action::AptInstall(bundles, privilege) => {
                let packages = bundles.iter().flat_map(|bundle| &bundle.packages);
                succeed_interactively(&system::install(*privilege, packages))
            }
            Action::Bootimage => succeed(&install(self.project, "bootimage", BOOTIMAGE_VERSION)),
        }
    }

    /// What did not work, with what was missing before and what may be done about it.
    fn unfinished(&self, machine: &Machine, error: &anyhow::Error) -> anyhow::Error {
        let missing: String = plan::missing(machine, self.need).iter().map(|name| format!("\n  {name}")).collect();
        anyhow!(
            "set-up did not come to its end: {error:#}\nIt was to bring:{missing}\n\
             What has come is kept: the same command goes on from there, for example once there is a network."
        )
    }
}

/// Held for as long as something is fetched.
fn lock(project: &Path) -> Result<File> {
    let tools = machine::tools(project);
    fs::create_dir_all(&tools).with_context(|| format!("making {}", tools.display()))?;
    let file = File::create(tools.join("lock"))?;
    if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        screen::say("set-up: waiting for another set-up of this directory to end");
        file.lock()?;
    }
    Ok(file)
}

/// A program of crates.io that a command needs.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// What for.
    pub(crate) why: &'static str,
}

/// Where the project's own `tool` is. It is installed there first, if need be.
pub(crate) fn tool(project: &Path, tool: &Tool) -> Result<PathBuf> {
    let Tool { name, version, why } = tool;
    let program = machine::tool(project, name);
    if !program.is_file() {
        screen::say(format!("set-up: installing {name} {version} from crates.io into target/tools; {why}"));
        succeed(&install(project, name, version)).with_context(|| format!("installing {name}"))?;
    }
    Ok(program)
}

fn install(project: &Path, name: &str, version: &str) -> Command {
    let mut cargo = selected(childenv::host_cargo(project), project);
    cargo.args(["install", name, "--version", version, "--locked", "--root"]).arg(machine::tools(project));
    cargo
}

/// `command` as if it were started by hand, with the toolchain that runs xtask.
pub(crate) fn selected(mut command: Command, project: &Path) -> Command {
    childenv::isolate(&mut command, &[], project);
    if let Some(toolchain) = std::env::var_os("RUSTUP_TOOLCHAIN") {
        command.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    command
}

/// The directory of `llvm-cov` and `llvm-profdata` of this version of LLVM, unpacked first if need be.
pub(crate) fn coverage_tools(project: &Path, version: &str) -> Result<PathBuf> {
    unpacked(project, &[Bundle::coverage_tools(version)]).map(|root| root.launchers())
}

/// rustc of the release `version`, such as `1.85`, unpacked first if need be. Debian keeps older ones beside the one that
/// it offers first.
pub(crate) fn older_compiler(project: &Path, version: &str) -> Result<PathBuf> {
    let families = [bundle::Family::Web, bundle::Family::Plain];
    let choices = families.map(|family| Bundle::older_compiler(family, version));
    unpacked(project, &choices).map(|root| root.launchers().join("rustc"))
}

/// The root of the first of `choices` that apt has.
fn unpacked(project: &Path, choices: &[Bundle]) -> Result<root::Root> {
    let found = || {
        let roots = choices.iter().map(|bundle| root::Root::of(project, &bundle.name));
        roots.into_iter().find(root::Root::is_complete)
    };
    if let Some(root) = found() {
        return Ok(root);
    }
    let wanted = choices.iter().map(Bundle::to_string).collect::<Vec<_>>().join(", or ");
    if machine::find("apt-get").is_none() {
        bail!("this machine has no apt, and this is missing: {wanted}");
    }
    let _lock = lock(project)?;
    let apt = PrivateApt::new(project);
    apt.update()?;
    let mut failures = Vec::new();
    for bundle in choices {
        match fetch::unpack(&apt, project, std::slice::from_ref(bundle)) {
            Ok(()) => return found().context("what was unpacked is not there"),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    bail!("could not fetch {wanted}: {}", failures.join("\n"))
}

fn disk_usage(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_usage(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
