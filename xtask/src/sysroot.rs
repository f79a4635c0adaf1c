//! A private sysroot through which `bootimage` finds Debian's LLVM tools.
//!
//! `bootimage`, and the bootloader's build script, run `rustc --print sysroot` and expect rustup's layout under the
//! answer: `lib/rustlib/<host>/bin/llvm-objcopy` and friends. Debian installs the tools elsewhere. Instead of writing
//! into `/usr`, a directory under `target/` holds links in that layout, and a `rustc` in front of the real one on
//! `PATH` names it. Cargo is told the real compiler through `RUSTC` and never meets this one.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// `llvm-objdump` is only looked at, as a sign of the right directory.
const TOOLS: &[&str] = &["llvm-objcopy", "llvm-objdump", "llvm-size", "llvm-ar"];

/// Where the pieces of a private sysroot lie.
pub(crate) struct PrivateSysroot {
    /// Goes in front of everything else on `PATH`.
    pub(crate) bin: PathBuf,
}

/// Creates or refreshes the private sysroot of `project`.
pub(crate) fn create(project: &Path) -> Result<PrivateSysroot> {
    let base = project.join("target/tools/debian");
    let sysroot = base.join("sysroot");
    // The tools are looked for under every directory of rustlib, whatever it is called.
    let tools = sysroot.join("lib/rustlib/host/bin");
    let bin = base.join("bin");
    for dir in [&tools, &bin] {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    for (name, target) in TOOLS.iter().zip(llvm_tools().context("LLVM's tools are not installed")?) {
        link(&target, &tools.join(name))?;
    }
    link(&linker().context("lld is not installed")?, &bin.join("rust-lld"))?;
    let wrapper = bin.join("rustc");
    write_program(&wrapper, &script(&sysroot)).with_context(|| format!("writing {}", wrapper.display()))?;
    Ok(PrivateSysroot { bin })
}

/// The tools in the order of [`TOOLS`], all of one LLVM version, the newest that is complete.
pub(crate) fn llvm_tools() -> Option<Vec<PathBuf>> {
    let plain = std::iter::once(String::new());
    let newest_first = (14..=40).rev().map(|version| format!("-{version}"));
    newest_first.chain(plain).find_map(|suffix| {
        let all: Vec<_> = TOOLS.iter().map(|tool| usr_bin(&format!("{tool}{suffix}"))).collect();
        all.iter().all(|tool| tool.is_file()).then_some(all)
    })
}

/// Debian's own `rust-lld` may point to an lld that is not installed, so lld is asked for by name.
pub(crate) fn linker() -> Option<PathBuf> {
    let newest_first = (14..=40).rev().map(|version| format!("lld-{version}"));
    newest_first.chain(["lld".to_owned()]).map(|name| usr_bin(&name)).find(|path| path.is_file())
}

fn usr_bin(name: &str) -> PathBuf {
    Path::new("/usr/bin").join(name)
}

fn script(sysroot: &Path) -> String {
    let quoted = sysroot.display().to_string().replace('\'', r"'\''");
    format!(
        "#!/bin/sh\n\
         # Names the directory of links beside this file; for all else it is the real compiler.\n\
         if [ \"$*\" = '--print sysroot' ]; then\n    printf '%s\\n' '{quoted}'\n\
         else\n    exec /usr/bin/rustc \"$@\"\nfi\n"
    )
}

fn link(target: &Path, link: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|old| old == target) {
        return Ok(());
    }
    if link.symlink_metadata().is_ok() {
        fs::remove_file(link)?;
    }
    symlink(target, link).with_context(|| format!("linking {}", link.display()))
}

/// Leaves an unchanged file alone: a build that runs at the same time may be executing it.
fn write_program(path: &Path, text: &str) -> std::io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn wrapper_names_the_private_sysroot_even_with_a_quote_in_it() {
        let text = script(Path::new("/a'b/sysroot"));
        let out = crate::child::output(Command::new("sh").args(["-c", &text, "rustc", "--print", "sysroot"]));
        let out = out.expect("sh runs");
        assert_eq!(String::from_utf8_lossy(&out.stdout), "/a'b/sysroot\n");
    }
}
