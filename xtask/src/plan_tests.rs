//! Machines a person may sit at, and what each is told to install.

use super::*;

fn compiler(version: Version, complete: bool) -> Compiler {
    Compiler { version, cargo: true, rust_src: complete, llvm_tools: complete, linker: true, clippy: complete }
}

/// A fresh Debian with a rustup toolchain that lacks the kernel's components, and rustup may not download.
fn fresh() -> Machine {
    Machine {
        selected: Some(compiler(Version(1, 96), false)),
        rustup_may_add: false,
        debian: None,
        apt: Some(Apt {
            privilege: Privilege::Root,
            updated: true,
            web: Some(Version(1, 96)),
            plain: Some(Version(1, 63)),
        }),
        qemu: false,
        bootimage: false,
    }
}

fn names(actions: &[Action]) -> Vec<&'static str> {
    let mut names = Vec::new();
    for action in actions {
        match action {
            Action::RustupAdd(packages) => {
                names.push("rustup");
                names.extend(packages.iter().map(|p| p.name));
            }
            Action::AptUpdate => names.push("update"),
            Action::AptInstall(packages) => names.extend(packages.iter().map(|p| p.name)),
            Action::Bootimage => names.push("bootimage"),
        }
    }
    names
}

fn plan(machine: &Machine, need: Need) -> Vec<&'static str> {
    names(&next(machine, need).expect("a plan"))
}

#[test]
fn complete_rustup_toolchain_needs_only_qemu_and_bootimage() {
    let mut machine = fresh();
    machine.selected = Some(compiler(Version(1, 96), true));
    assert_eq!(plan(&machine, Need::Lint), ["qemu-system-x86"]);
    machine.qemu = true;
    assert_eq!(plan(&machine, Need::Lint), ["bootimage"]);
    machine.bootimage = true;
    assert!(plan(&machine, Need::Lint).is_empty());
}

#[test]
fn rustup_is_asked_first_where_it_may_download() {
    let mut machine = fresh();
    machine.rustup_may_add = true;
    assert_eq!(plan(&machine, Need::Boot), ["rustup", "rust-src", "llvm-tools"]);
}

#[test]
fn refused_rustup_leads_to_debian() {
    let machine = fresh();
    assert_eq!(
        plan(&machine, Need::Lint),
        ["rustc-web", "cargo-web", "rust-web-src", "llvm", "lld", "rust-web-clippy", "qemu-system-x86"]
    );
    assert!(!plan(&machine, Need::Boot).contains(&"rust-web-clippy"));
}

#[test]
fn package_lists_are_fetched_before_packages_are_chosen() {
    let mut machine = fresh();
    machine.apt = Some(Apt { privilege: Privilege::Sudo, updated: false, web: None, plain: None });
    assert_eq!(plan(&machine, Need::Boot), ["update"]);
}

#[test]
fn newer_debian_uses_the_plain_names() {
    let mut machine = fresh();
    machine.apt = Some(Apt { privilege: Privilege::Sudo, updated: true, web: None, plain: Some(Version(1, 97)) });
    assert_eq!(
        plan(&machine, Need::Lint),
        ["rustc", "cargo", "rust-src", "llvm", "lld", "rust-clippy", "qemu-system-x86"]
    );
}

#[test]
fn outdated_rustup_toolchain_gains_nothing_from_components() {
    let mut machine = fresh();
    machine.selected = Some(compiler(Version(1, 88), false));
    machine.rustup_may_add = true;
    assert_eq!(plan(&machine, Need::Boot).first(), Some(&"rustc-web"));
}

#[test]
fn outdated_debian_compiler_is_replaced_and_only_missing_tools_are_added() {
    let mut machine = fresh();
    machine.debian = Some(compiler(Version(1, 85), true));
    assert_eq!(plan(&machine, Need::Boot), ["rustc-web", "cargo-web", "rust-web-src", "qemu-system-x86"]);
    machine.debian = Some(Compiler { linker: false, ..compiler(Version(1, 96), true) });
    assert_eq!(plan(&machine, Need::Boot), ["lld", "qemu-system-x86"]);
}

#[test]
fn apt_without_a_current_compiler_says_so() {
    let mut machine = fresh();
    machine.apt = Some(Apt { privilege: Privilege::Root, updated: true, web: None, plain: Some(Version(1, 75)) });
    let message = next(&machine, Need::Boot).expect_err("nothing to install");
    assert!(message.contains("no Rust 1.95") && message.contains("rustup component add"), "{message}");
}

#[test]
fn without_root_or_sudo_the_exact_command_is_told() {
    let mut machine = fresh();
    machine.selected = Some(compiler(Version(1, 96), true));
    if let Some(apt) = &mut machine.apt {
        apt.privilege = Privilege::None;
    }
    let message = next(&machine, Need::Boot).expect_err("cannot install");
    assert!(message.ends_with("--no-install-recommends qemu-system-x86"), "{message}");
}

#[test]
fn without_apt_the_missing_programs_are_listed() {
    let mut machine = fresh();
    machine.apt = None;
    let message = next(&machine, Need::Boot).expect_err("cannot install");
    for name in ["rustc-web", "llvm", "lld", "qemu-system-x86"] {
        assert!(message.contains(name), "{name} in {message}");
    }
}
