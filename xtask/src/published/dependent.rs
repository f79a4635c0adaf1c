//! A kernel that depends on the library, of an older edition and with cargo's first resolver, which gives every package
//! all the features that anybody asks for, for whatever target: it gets the library and what that needs, and builds.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::child::succeed;
use crate::kernel::KernelToolchain;
use crate::steps::Summary;

const TARGET: &str = "x86_64-unknown-none";

/// All that may be in its lock file beside itself: the library, its five dependencies, and what `x86_64` needs.
const PACKAGES: [&str; 9] =
    ["bit_field", "bitflags", "const_fn", "pagepin", "rustversion", "spin", "static_assertions", "volatile", "x86_64"];
const NAME: &str = "dependent";

const LIBRARY: &str = "\
#![no_std]

pub use pagepin::space::UserSpace;

/// The kernel's TLB flush.
///
/// # Safety
/// One CPU, in ring 0.
pub unsafe fn flush() -> impl pagepin::Shootdown {
    pagepin::SingleCpu::new()
}
";

/// It depends on the unpacked package in `package`.
pub(crate) fn check(project: &Path, package: &Path, toolchain: &KernelToolchain) -> Result<Summary> {
    let directory = project.join("target/dependent");
    write(&directory, package)?;
    // Asking for anything writes the lock file.
    succeed(toolchain.cargo_in(&directory).args(["tree", "--quiet", "--depth", "0"]))?;
    let packages = check_lock(&directory.join("Cargo.lock"))?;
    let mut cargo = toolchain.cargo_in(&directory);
    // A kernel that runs loom over code of its own sets this for every crate.
    cargo.env("RUSTFLAGS", "--cfg loom --cfg shuttle");
    cargo.env("CARGO_TARGET_DIR", directory.join("target")).env("CARGO_PROFILE_DEV_DEBUG", "0");
    succeed(cargo.args(["build", "-Zbuild-std=core,alloc,compiler_builtins", "--target", TARGET]))?;
    Ok(Summary::note(format!("{packages} packages in its lock file")))
}

fn check_lock(file: &Path) -> Result<usize> {
    let lock = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let (found, expected) = (names(&lock), PACKAGES.into_iter().chain([NAME]).collect::<BTreeSet<_>>());
    let difference: Vec<_> = found.symmetric_difference(&expected).copied().collect();
    if !difference.is_empty() {
        bail!("the lock file of a kernel differs from what is expected by {}", difference.join(", "));
    }
    Ok(found.len())
}

fn write(directory: &Path, package: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    let write = |name: &str, text: &str| {
        let file = directory.join(name);
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
    };
    write("Cargo.toml", &manifest(package))?;
    write("lib.rs", LIBRARY)?;
    // The library's own versions: what is published elsewhere today changes nothing here.
    let lock = package.join("Cargo.lock");
    fs::copy(&lock, directory.join("Cargo.lock")).with_context(|| format!("copying {}", lock.display()))?;
    Ok(())
}

fn manifest(library: &Path) -> String {
    // A TOML string in single quotes has no escapes.
    format!(
        "[package]\nname = \"{NAME}\"\nversion = \"0.0.0\"\nedition = \"2018\"\n\n\
         [lib]\npath = \"lib.rs\"\n\n\
         [dependencies]\npagepin = {{ path = '{}', features = [\"alloc\", \"instructions\"] }}\n\n\
         [workspace]\nresolver = \"1\"\n",
        library.display()
    )
}

/// The packages in a lock file.
fn names(lock: &str) -> BTreeSet<&str> {
    lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_of_a_lock_file_is_seen() {
        let lock = "version = 4\n\n[[package]]\nname = \"spin\"\nversion = \"1\"\n\n[[package]]\nname = \"x86_64\"\n\
                    dependencies = [\n \"bitflags\",\n]\n";
        assert_eq!(names(lock), BTreeSet::from(["spin", "x86_64"]));
    }
}
