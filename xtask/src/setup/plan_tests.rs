//! Machines a person may sit at, and what each is told to fetch.

use super::super::machine::Place;
use super::*;

fn compiler(version: Version, complete: bool) -> Compiler {
    Compiler { version, cargo: true, rust_src: complete, clippy: complete }
}

/// A fresh Debian with a rustup toolchain that lacks the kernel's components, and rustup may not download.
fn fresh() -> Machine {
    Machine {
        selected: Some(compiler(Version(1, 96), false)),
        selected_llvm: false,
        rustup_may_add: false,
        system: None,
        private: None,
        llvm: None,
        emulator: None,
        apt: Some(Apt { updated: true, web: Some(Version(1, 96)), plain: Some(Version(1, 63)) }),
        bootimage: false,
    }
}

fn with_components(mut machine: Machine) -> Machine {
    machine.selected = Some(compiler(Version(1, 96), true));
    machine.selected_llvm = true;
    machine
}

fn bundles(bundles: &[Bundle]) -> Vec<&str> {
    bundles.iter().flat_map(|bundle| &bundle.packages).map(String::as_str).collect()
}

fn names(action: &Action) -> Vec<&str> {
    match action {
        Action::RustupAdd(components) => components.iter().map(|component| component.name).collect(),
        Action::AptUpdate(_) => vec!["update"],
        Action::Unpack(found) | Action::AptInstall(found, _) => bundles(found),
        Action::Bootimage => vec!["bootimage"],
    }
}

fn action(machine: &Machine, need: Need) -> Option<Action> {
    next(machine, need, Route::Private).expect("a plan")
}

fn plan(machine: &Machine, need: Need) -> Vec<String> {
    action(machine, need).iter().flat_map(|action| names(action)).map(str::to_owned).collect()
}

const COMPILER: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"];
const LLVM: [&str; 2] = ["llvm", "lld"];
const QEMU: [&str; 2] = ["qemu-system-x86", "seabios"];

#[test]
fn complete_rustup_toolchain_needs_only_qemu_and_bootimage() {
    let mut machine = with_components(fresh());
    assert_eq!(plan(&machine, Need::Lint), QEMU);
    machine.emulator = Some(Place::System);
    assert_eq!(plan(&machine, Need::Lint), ["bootimage"]);
    machine.bootimage = true;
    assert_eq!(action(&machine, Need::Lint), None);
}

#[test]
fn rustup_is_asked_first_where_it_may_download() {
    let mut machine = fresh();
    machine.rustup_may_add = true;
    assert_eq!(plan(&machine, Need::Boot), ["rust-src", "llvm-tools"]);
}

#[test]
fn refused_rustup_leads_to_packages_that_are_unpacked_and_not_installed() {
    let machine = fresh();
    assert!(matches!(action(&machine, Need::Lint), Some(Action::Unpack(_))));
    assert_eq!(plan(&machine, Need::Lint), [&COMPILER[..], &LLVM, &QEMU].concat());
}

#[test]
fn what_was_unpacked_earlier_is_not_fetched_again() {
    let mut machine = fresh();
    machine.private = Some(compiler(Version(1, 96), true));
    assert_eq!(plan(&machine, Need::Lint), [LLVM, QEMU].concat());
    machine.llvm = Some(Place::Private);
    machine.emulator = Some(Place::Private);
    machine.bootimage = true;
    assert_eq!(action(&machine, Need::Lint), None);
    assert_eq!(machine.kernel_compiler(Need::Lint), Some(Source::Packages(Place::Private)));
}

#[test]
fn package_lists_are_fetched_before_packages_are_chosen() {
    let mut machine = fresh();
    machine.apt = Some(Apt { updated: false, web: None, plain: None });
    assert_eq!(plan(&machine, Need::Boot), ["update"]);
}

#[test]
fn newer_debian_uses_the_plain_names() {
    let mut machine = fresh();
    machine.apt = Some(Apt { updated: true, web: None, plain: Some(Version(1, 97)) });
    let compiler = ["rustc", "cargo", "rust-src", "rust-clippy"];
    assert_eq!(plan(&machine, Need::Lint), [&compiler[..], &LLVM, &QEMU].concat());
}

#[test]
fn outdated_rustup_toolchain_gains_nothing_from_components() {
    let mut machine = fresh();
    machine.selected = Some(compiler(Version(1, 88), false));
    machine.rustup_may_add = true;
    assert_eq!(plan(&machine, Need::Boot).first().map(String::as_str), Some("rustc-web"));
}

#[test]
fn outdated_compilers_are_passed_over_and_the_systems_llvm_is_used() {
    let mut machine = fresh();
    machine.system = Some(compiler(Version(1, 85), true));
    machine.private = Some(compiler(Version(1, 94), true));
    machine.llvm = Some(Place::System);
    assert_eq!(plan(&machine, Need::Boot), [&COMPILER[..], &QEMU].concat());
    machine.system = Some(compiler(Version(1, 96), true));
    assert_eq!(plan(&machine, Need::Boot), QEMU);
}

#[test]
fn a_compiler_with_the_source_of_core_takes_llvm_from_elsewhere() {
    let mut machine = fresh();
    machine.selected = Some(compiler(Version(1, 96), true));
    assert_eq!(plan(&machine, Need::Lint), [LLVM, QEMU].concat());
}

#[test]
fn a_system_compiler_without_clippy_does_for_booting() {
    let mut machine = fresh();
    machine.system = Some(Compiler { clippy: false, ..compiler(Version(1, 96), true) });
    assert_eq!(plan(&machine, Need::Boot), [LLVM, QEMU].concat());
    assert_eq!(plan(&machine, Need::Lint), [&COMPILER[..], &LLVM, &QEMU].concat());
    machine.apt = None;
    assert_eq!(machine.kernel_compiler(Need::Lint), Some(Source::Packages(Place::System)));
}

#[test]
fn apt_without_a_current_compiler_says_so() {
    let mut machine = fresh();
    machine.apt = Some(Apt { updated: true, web: None, plain: Some(Version(1, 75)) });
    let message = next(&machine, Need::Boot, Route::Private).expect_err("nothing to install");
    assert!(message.contains("no Rust 1.95") && message.contains("rustup component add"), "{message}");
}

#[test]
fn nobody_has_to_be_root_unless_they_want_an_installation() {
    let machine = with_components(fresh());
    let system = |privilege| next(&machine, Need::Boot, Route::System(privilege));
    assert!(matches!(system(Privilege::Sudo), Ok(Some(Action::AptInstall(_, Privilege::Sudo)))));
    let message = system(Privilege::None).expect_err("cannot install");
    assert!(message.contains("--no-install-recommends qemu-system-x86 seabios"), "{message}");
    assert!(message.contains("Without --system"), "{message}");
}

#[test]
fn without_apt_one_message_names_the_packages_of_each_manager() {
    let mut machine = fresh();
    machine.apt = None;
    let message = next(&machine, Need::Boot, Route::Private).expect_err("cannot fetch");
    for line in [
        "dnf install rust cargo rust-src clippy llvm lld qemu-system-x86",
        "pacman -S rust rust-src llvm lld qemu-system-x86",
        "brew install rustup llvm lld qemu",
        "nix shell nixpkgs#rustup nixpkgs#llvm nixpkgs#lld nixpkgs#qemu",
        "rustup component add rust-src llvm-tools",
    ] {
        assert!(message.contains(line), "{line} in {message}");
    }
    let mut machine = with_components(machine);
    machine.apt = None;
    let message = next(&machine, Need::Boot, Route::Private).expect_err("cannot fetch");
    assert!(message.contains("pacman -S qemu-system-x86\n") && !message.contains("rustup"), "{message}");
}

#[test]
fn all_that_is_missing_is_known_by_name_without_a_network() {
    let mut machine = fresh();
    machine.apt = Some(Apt { updated: false, web: None, plain: None });
    let all = missing(&machine, Need::Lint).join("\n");
    for name in [&COMPILER[..], &LLVM, &QEMU, &["bootimage"]].concat() {
        assert!(all.contains(name), "{name} in {all}");
    }
}
