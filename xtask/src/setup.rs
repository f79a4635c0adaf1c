//! Fetches what the machine lacks, after saying what, from where and why.
//!
//! What is missing is decided by [`plan`]. After each round of its actions the machine is looked at again: a refused
//! rustup download leads to Debian's packages, a fetched package list to a choice of packages.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::child::{succeed, succeed_interactively};
use crate::childenv;
use crate::plan::{self, Action, BOOTIMAGE_VERSION, Need, Package};
use crate::toolchain::{self, Machine, Privilege};

/// Debian's compiler conflicts with Debian's rustup package: fail rather than remove what the user has.
const APT_INSTALL: &[&str] = &["install", "--yes", "--no-install-recommends", "--no-remove"];

/// Brings the machine to the point where `need` can be met, or says what stands in the way.
pub(crate) fn ensure(project: &Path, need: Need) -> Result<Machine> {
    let mut machine = Machine::inspect(project);
    let mut done: Vec<Action> = Vec::new();
    loop {
        let actions = plan::next(&machine, need).map_err(anyhow::Error::msg)?;
        if actions.is_empty() {
            return Ok(machine);
        }
        for action in actions {
            if done.contains(&action) {
                bail!("this has been done and the machine still lacks it; {action}");
            }
            println!("{action}");
            match (&action, perform(&action, &machine, project)) {
                (_, Ok(())) => {}
                (Action::RustupAdd(_), Err(error)) => {
                    println!("rustup could not: {error:#}; looking elsewhere");
                }
                (_, Err(error)) => return Err(error),
            }
            done.push(action);
        }
        machine = Machine::inspect(project);
        // Whether or not rustup said it worked: what it did not bring by now has to come from elsewhere.
        machine.rustup_may_add &= !done.iter().any(|action| matches!(action, Action::RustupAdd(_)));
        if let Some(apt) = &mut machine.apt {
            apt.updated = done.contains(&Action::AptUpdate);
        }
    }
}

fn perform(action: &Action, machine: &Machine, project: &Path) -> Result<()> {
    let names = |packages: &[Package]| packages.iter().map(|p| p.name).collect::<Vec<_>>();
    let command = match action {
        Action::RustupAdd(components) => {
            let mut rustup = Command::new("rustup");
            rustup.args(["component", "add"]).args(names(components));
            rustup
        }
        Action::AptUpdate => return succeed_interactively(&apt_get(machine, &["update"], &[])),
        Action::AptInstall(packages) => {
            return succeed_interactively(&apt_get(machine, APT_INSTALL, &names(packages)));
        }
        Action::Bootimage => install(project, "bootimage", BOOTIMAGE_VERSION),
    };
    succeed(&command)
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
    let program = toolchain::tool(project, name);
    if !program.is_file() {
        println!("set-up: installing {name} {version} from crates.io into target/tools; {why}");
        succeed(&install(project, name, version)).with_context(|| format!("installing {name}"))?;
    }
    Ok(program)
}

fn install(project: &Path, name: &str, version: &str) -> Command {
    let mut cargo = selected(childenv::host_cargo(project), project);
    cargo.args(["install", name, "--version", version, "--locked", "--root"]).arg(toolchain::tools(project));
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

/// Installs one of Debian's packages, after saying what for.
pub(crate) fn debian_package(project: &Path, name: &str, why: &str) -> Result<()> {
    let machine = Machine::inspect(project);
    match &machine.apt {
        None => bail!("this machine has no apt, and {name} (by Debian's name) is missing: {why}"),
        Some(apt) if apt.privilege == Privilege::None => {
            bail!("neither root nor sudo is at hand; run as root: apt-get install --no-install-recommends {name}")
        }
        Some(_) => println!("set-up: installing with apt: {name}, {why}"),
    }
    succeed_interactively(&apt_get(&machine, &["update"], &[]))?;
    succeed_interactively(&apt_get(&machine, APT_INSTALL, &[name]))
}

fn apt_get(machine: &Machine, arguments: &[&str], packages: &[&str]) -> Command {
    let mut words = vec!["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
    if machine.apt.as_ref().is_some_and(|apt| apt.privilege == Privilege::Sudo) {
        // Nobody can type a password when there is no terminal: better to fail than to wait.
        let asking: &[&str] = if std::io::stdin().is_terminal() { &["sudo"] } else { &["sudo", "-n"] };
        words.splice(0..0, asking.iter().copied());
    }
    words.extend(arguments.iter().chain(packages).copied());
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().unwrap_or("env"));
    command.args(words);
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchain::Apt;

    #[test]
    fn apt_is_reached_through_sudo_only_when_not_root() {
        let program = |privilege| {
            let apt = Apt { privilege, updated: false, web: None, plain: None };
            let machine = Machine {
                selected: None,
                rustup_may_add: false,
                debian: None,
                apt: Some(apt),
                qemu: false,
                bootimage: false,
            };
            apt_get(&machine, &["update"], &[]).get_program().to_owned()
        };
        assert_eq!(program(Privilege::Root), "env");
        assert_eq!(program(Privilege::Sudo), "sudo");
    }
}
