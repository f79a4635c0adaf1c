//! A sysroot through which `bootimage` finds LLVM's tools that are not rustup's.
//!
//! `bootimage`, and the bootloader's build script, run `rustc --print sysroot` and expect rustup's layout under the
//! answer: `lib/rustlib/<host>/bin/llvm-objcopy` and friends. Distributions install the tools elsewhere. Instead of writing
//! there, a directory under `target/` holds links in that layout, and a `rustc` in front of the real one on
//! `PATH` names it. Cargo is told the real compiler through `RUSTC` and never meets this one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::bundle::{LINKER, LLVM_TOOLS};
use super::machine::{find, tools};
use super::root::write_program;

/// LLVM's binary tools, in the order of [`LLVM_TOOLS`], and its linker.
pub(crate) struct Llvm {
    tools: Vec<PathBuf>,
    linker: PathBuf,
}

impl Llvm {
    /// All of them in one directory, under their plain names.
    pub(crate) fn in_directory(directory: &Path) -> Self {
        Self { tools: LLVM_TOOLS.map(|tool| directory.join(tool)).to_vec(), linker: directory.join(LINKER) }
    }
}

/// The system's: the tools all of one version, the newest that is complete.
///
/// Debian's own `rust-lld` may point to an lld that is not installed, so lld is asked for by name.
pub(crate) fn system_llvm() -> Option<Llvm> {
    let suffixes = || (14..=40).rev().map(|version| format!("-{version}")).chain([String::new()]);
    let complete =
        |suffix: String| LLVM_TOOLS.iter().map(|tool| find(&format!("{tool}{suffix}"))).collect::<Option<_>>();
    let linker = suffixes().find_map(|suffix| find(&format!("{LINKER}{suffix}")))?;
    Some(Llvm { tools: suffixes().find_map(complete)?, linker })
}

/// Creates or refreshes the sysroot of `project` for `rustc`. What it returns goes in front of everything else on `PATH`.
pub(crate) fn create(project: &Path, rustc: &Path, llvm: &Llvm) -> Result<PathBuf> {
    let sysroot = tools(project).join("sysroot");
    // The tools are looked for under every directory of rustlib, whatever it is called.
    let tools = sysroot.join("lib/rustlib/host/bin");
    let bin = sysroot.join("bin");
    for dir in [&tools, &bin] {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    for (name, target) in LLVM_TOOLS.iter().zip(&llvm.tools) {
        link(target, &tools.join(name))?;
    }
    link(&llvm.linker, &bin.join("rust-lld"))?;
    write_program(&bin.join("rustc"), &script(&sysroot, rustc))?;
    Ok(bin)
}

fn script(sysroot: &Path, rustc: &Path) -> String {
    let quoted = |path: &Path| path.display().to_string().replace('\'', r"'\''");
    format!(
        "#!/bin/sh\n\
         # Names the directory of links beside this file; for all else it is the real compiler.\n\
         if [ \"$*\" = '--print sysroot' ]; then\n    printf '%s\\n' '{}'\n\
         else\n    exec '{}' \"$@\"\nfi\n",
        quoted(sysroot),
        quoted(rustc)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn wrapper_names_the_private_sysroot_even_with_a_quote_in_it() {
        let text = script(Path::new("/a'b/sysroot"), Path::new("/usr/bin/rustc"));
        let out = crate::child::output(Command::new("sh").args(["-c", &text, "rustc", "--print", "sysroot"]));
        let out = out.expect("sh runs");
        assert_eq!(String::from_utf8_lossy(&out.stdout), "/a'b/sysroot\n");
    }
}
