//! Fetches what the machine lacks, after saying what, from where and why.
//!
//! What is missing is decided by [`plan`]. After each round of its actions the machine is looked at again: a refused
//! rustup download leads to Debian's packages, a fetched package list to a choice of packages.

use std::io::IsTerminal;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::childenv;
use crate::plan::{self, Action, BOOTIMAGE_VERSION, Need, Package};
use crate::toolchain::{self, Machine, Privilege};

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
    let mut command = match action {
        Action::RustupAdd(components) => {
            let mut rustup = Command::new("rustup");
            rustup.args(["component", "add"]).args(names(components));
            rustup
        }
        Action::AptUpdate => apt_get(machine, &["update"], &[]),
        // Debian's compiler conflicts with Debian's rustup package: fail rather than remove what the user has.
        Action::AptInstall(packages) => {
            apt_get(machine, &["install", "--yes", "--no-install-recommends", "--no-remove"], &names(packages))
        }
        Action::Bootimage => {
            let mut cargo = childenv::host_cargo(project);
            childenv::isolate(&mut cargo, &[], project);
            if let Some(toolchain) = std::env::var_os("RUSTUP_TOOLCHAIN") {
                cargo.env("RUSTUP_TOOLCHAIN", toolchain);
            }
            install(cargo, project, "bootimage", BOOTIMAGE_VERSION)
        }
    };
    let status = command.status().with_context(|| format!("starting {:?}", command.get_program()))?;
    if status.success() { Ok(()) } else { bail!("{command:?} ended with {status}") }
}

/// `cargo install` of a tool into the project, where [`toolchain::tool`] finds it.
pub(crate) fn install(mut cargo: Command, project: &Path, name: &str, version: &str) -> Command {
    cargo.args(["install", name, "--version", version, "--locked", "--root"]).arg(toolchain::tools(project));
    cargo
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
