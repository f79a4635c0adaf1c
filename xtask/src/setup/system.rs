//! apt, asked to install into the system: only for who asks for it.

use std::io::IsTerminal;
use std::process::Command;

use super::machine::{self, Version};
use super::plan::Privilege;

/// Debian's compiler conflicts with Debian's rustup package, and its QEMU with newer tools of QEMU: fail rather than
/// remove what the user has.
const INSTALL: &[&str] = &["install", "--yes", "--no-install-recommends", "--no-remove"];

pub(super) fn privilege() -> Privilege {
    let root = machine::said(Command::new("id").arg("-u")).is_ok_and(|uid| uid.trim() == "0");
    match (root, machine::find("sudo")) {
        (true, _) => Privilege::Root,
        (false, Some(_)) => Privilege::Sudo,
        (false, None) => Privilege::None,
    }
}

pub(super) fn update(privilege: Privilege) -> Command {
    let mut apt = apt_get(privilege);
    apt.arg("update");
    apt
}

pub(super) fn install<'a>(privilege: Privilege, packages: impl Iterator<Item = &'a String>) -> Command {
    let mut apt = apt_get(privilege);
    apt.args(INSTALL).args(packages);
    apt
}

/// The version of `package` that would be installed.
pub(super) fn offers(package: &str) -> Option<Version> {
    let policy = machine::said(Command::new("apt-cache").env("LC_ALL", "C").args(["policy", package])).ok()?;
    machine::candidate(&policy)
}

fn apt_get(privilege: Privilege) -> Command {
    let mut words = vec!["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
    if privilege == Privilege::Sudo {
        // Nobody can type a password when there is no terminal: better to fail than to wait.
        let asking: &[&str] = if std::io::stdin().is_terminal() { &["sudo"] } else { &["sudo", "-n"] };
        words.splice(0..0, asking.iter().copied());
    }
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().unwrap_or("env"));
    command.args(words);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apt_is_reached_through_sudo_only_when_not_root() {
        let program = |privilege| update(privilege).get_program().to_owned();
        assert_eq!(program(Privilege::Root), "env");
        assert_eq!(program(Privilege::Sudo), "sudo");
    }
}
