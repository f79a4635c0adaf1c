//! What to install where there is no apt.

use super::bundle::Bundle;

/// The names of other package managers for what a bundle brings; they belong to the bundle of that name.
struct Names {
    bundle: &'static str,
    dnf: &'static str,
    pacman: &'static str,
    brew: &'static str,
    nix: &'static str,
}

/// Homebrew's and Nix's compilers come without the source of `core`; rustup is what they have for that.
const NAMES: [Names; 3] = [
    Names { bundle: "rust", dnf: "rust cargo rust-src clippy", pacman: "rust rust-src", brew: "rustup", nix: "rustup" },
    Names { bundle: "llvm", dnf: "llvm lld", pacman: "llvm lld", brew: "llvm lld", nix: "llvm lld" },
    Names { bundle: "qemu", dnf: "qemu-system-x86", pacman: "qemu-system-x86", brew: "qemu", nix: "qemu" },
];

/// One message with all that is missing, for each package manager that there may be.
pub(crate) fn without_apt(missing: &[Bundle], lacks_compiler: bool) -> String {
    let of = |name: fn(&Names) -> &'static str, before: &str| -> String {
        let wanted = NAMES.iter().filter(|names| missing.iter().any(|bundle| bundle.name == names.bundle));
        wanted.flat_map(|names| name(names).split(' ')).map(|name| format!(" {before}{name}")).collect()
    };
    let lines: String = missing.iter().map(|bundle| format!("\n  {}: {}", bundle.name, bundle.why)).collect();
    let mut message = format!(
        "this machine has no apt to fetch these with:{lines}\n\
         They are used when they are there. Install them with one of\n  \
         dnf install{}\n  pacman -S{}\n  brew install{}\n  nix shell{}",
        of(|names| names.dnf, ""),
        of(|names| names.pacman, ""),
        of(|names| names.brew, ""),
        of(|names| names.nix, "nixpkgs#"),
    );
    if lacks_compiler {
        message +=
            "\nWith rustup, `rustup update stable && rustup component add rust-src llvm-tools` brings all but QEMU.";
    }
    message
}
