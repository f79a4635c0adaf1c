//! The package that `cargo publish` would send, unpacked: it builds, documents as docs.rs would do it, and passes its tests,
//! with nothing around it and with other software bits in the entries than in the working tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::child::succeed;
use crate::childenv::host_cargo;
use crate::host_tests::{self, ONE_LAYOUT, ONE_LAYOUT_TARGET};
use crate::powerset::LIBRARY;
use crate::steps::Summary;

/// What docs.rs writes at an item that needs a feature.
const BADGE: &str = "Available on <strong>crate feature <code>alloc</code></strong> only";
/// A page that has to have it.
const BADGED: &str = "struct.UserSpace.html";

/// Of each random test, which ran at length in the working tree.
const CASES: &str = "60";
/// Where a kernel that uses the usual ones itself could have them.
const SOFTWARE_BITS: &str = "11,58,54,9,55";

pub(crate) struct Package {
    project: PathBuf,
    directory: PathBuf,
}

impl Package {
    /// Packs the library as it is in the working tree and unpacks it again, which cargo does to see whether it builds.
    pub(crate) fn unpack(project: &Path) -> Result<Self> {
        let place = project.join("target/package");
        // An older version's would lie beside it.
        if place.exists() {
            fs::remove_dir_all(&place).with_context(|| format!("deleting {}", place.display()))?;
        }
        let mut cargo = host_cargo(project);
        cargo.args(["package", "--package", LIBRARY, "--allow-dirty", "--all-features", "--target-dir", "target"]);
        succeed(&cargo)?;
        let entries = fs::read_dir(&place).with_context(|| format!("reading {}", place.display()))?;
        let mut directories =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.join("Cargo.toml").is_file());
        let directory = directories.next().context("cargo package has left no unpacked package")?;
        Ok(Self { project: project.to_owned(), directory })
    }

    /// Where its manifest is.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Documents it and runs its tests.
    pub(crate) fn check(&self) -> Result<Summary> {
        self.document()?;
        let mut cargo = self.cargo();
        cargo.args(["test", "--all-features", "--no-fail-fast", "--lib", "--tests", "--examples"]);
        host_tests::run(cargo.env("PROPTEST_CASES", CASES).env("PAGEPIN_SOFTWARE_BITS", SOFTWARE_BITS), true)
    }

    /// As docs.rs does, which has a nightly compiler, and turns every warning into an error.
    fn document(&self) -> Result<()> {
        let mut cargo = self.cargo();
        cargo.args(["doc", "--no-deps", "--all-features"]);
        cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTDOCFLAGS", "--cfg docsrs -D warnings");
        succeed(&cargo)?;
        let pages = self.target().join("doc").join(LIBRARY);
        let page = find(&pages, BADGED).with_context(|| format!("no {BADGED} below {}", pages.display()))?;
        if !fs::read_to_string(&page)?.contains(BADGE) {
            bail!("{} does not say which feature the item needs", page.display());
        }
        Ok(())
    }

    fn cargo(&self) -> Command {
        let mut cargo = host_cargo(&self.directory);
        cargo.env("CARGO_TARGET_DIR", self.target()).env(ONE_LAYOUT.0, ONE_LAYOUT.1);
        cargo
    }

    fn target(&self) -> PathBuf {
        self.project.join(ONE_LAYOUT_TARGET)
    }
}

/// A file of this name, in `directory` or below.
fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    let file = directory.join(name);
    if file.is_file() {
        return Some(file);
    }
    let entries = fs::read_dir(directory).ok()?;
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).find_map(|path| find(&path, name))
}
