//! A directory in which the packages of one bundle are unpacked, and the programs in it.
//!
//! Nothing is installed: no script of a package runs, and nothing outside of the directory changes. A program in it finds
//! its data relative to itself; its libraries it finds because it is started by a launcher, a small script that names
//! the root's library directories to this program alone.
//!
//! A root comes into being under another name and is renamed when it is complete, so that one that was interrupted is never
//! mistaken for it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::bundle::Bundle;
use super::machine;
use crate::child::succeed;

/// Lists the packages of a root; written last.
const STAMP: &str = "PACKAGES";
/// The directory of the launchers.
const LAUNCHERS: &str = "launch";

/// Where a bundle is, or will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Root(PathBuf);

impl Root {
    pub(crate) fn of(project: &Path, bundle: &str) -> Self {
        Self(machine::packages(project).join(bundle))
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.0.join(STAMP).is_file()
    }

    /// Whether something began and did not come to its end.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.partial().is_dir()
    }

    /// What was unpacked: a line for each package.
    #[cfg(test)]
    pub(crate) fn packages(&self) -> Option<String> {
        fs::read_to_string(self.0.join(STAMP)).ok()
    }

    /// What is unpacked, below `usr/`.
    pub(crate) fn usr(&self) -> PathBuf {
        self.0.join("usr")
    }

    /// Where the launchers are; each has the name of its program.
    pub(crate) fn launchers(&self) -> PathBuf {
        self.0.join(LAUNCHERS)
    }

    fn partial(&self) -> PathBuf {
        self.0.with_added_extension("partial")
    }

    /// Unpacks `archives`; `packages` is what they are called in the stamp.
    pub(crate) fn unpack(&self, bundle: &Bundle, archives: &[PathBuf], packages: &[String]) -> Result<()> {
        // The dynamic linker knows no way to write such a name into a list.
        if self.0.to_string_lossy().contains([':', ';']) {
            bail!("{}: programs cannot be told of libraries in a directory whose name holds a colon", self.0.display());
        }
        let partial = self.partial();
        remove(&partial)?;
        fs::create_dir_all(&partial).with_context(|| format!("making {}", partial.display()))?;
        for archive in archives {
            succeed(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(&partial))?;
        }
        for unneeded in bundle.unneeded {
            remove(&partial.join("usr").join(unneeded))?;
        }
        write_launchers(&partial, &bundle.programs)?;
        let stamp = packages.iter().map(|package| format!("{package}\n")).collect::<String>();
        fs::write(partial.join(STAMP), stamp).with_context(|| format!("writing {STAMP}"))?;
        remove(&self.0)?;
        fs::rename(&partial, &self.0).with_context(|| format!("renaming {}", partial.display()))
    }

    /// Starts every program once: a library may be missing all the same, or have gone since.
    pub(crate) fn verify(&self) -> Result<()> {
        let launchers = fs::read_dir(self.launchers()).with_context(|| format!("reading {}", self.0.display()))?;
        for launcher in launchers {
            let launcher = launcher?.path();
            // LLVM's linker has to be told which linker it is.
            let flavor: &[&str] = if launcher.ends_with("lld") { &["-flavor", "gnu"] } else { &[] };
            machine::said(Command::new(&launcher).args(flavor).arg("--version"))
                .with_context(|| format!("{} does not run on this system", launcher.display()))?;
        }
        Ok(())
    }
}

fn file_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

fn write_launchers(root: &Path, programs: &[String]) -> Result<()> {
    let directory = root.join(LAUNCHERS);
    fs::create_dir_all(&directory)?;
    let libraries = library_directories(root)?;
    for program in programs {
        write_program(&directory.join(file_name(program)), &launcher(program, &libraries))?;
    }
    Ok(())
}

/// A script that finds its root wherever that has been moved to, also through a link.
fn launcher(program: &str, libraries: &[String]) -> String {
    let path: String = libraries.iter().map(|directory| format!("$root/{directory}:")).collect();
    format!(
        "#!/bin/sh\n\
         # Runs a program of this root with the libraries of this root.\n\
         root=$(dirname \"$(dirname \"$(readlink -f \"$0\")\")\")\n\
         LD_LIBRARY_PATH=\"{path}$LD_LIBRARY_PATH\"\n\
         LD_LIBRARY_PATH=\"${{LD_LIBRARY_PATH%:}}\"\n\
         export LD_LIBRARY_PATH\n\
         exec \"$root/usr/{program}\" \"$@\"\n"
    )
}

/// The directories that Debian's dynamic linker searches, in `root`: `lib`, `usr/lib` and, below them, the one that is named
/// after the system's architecture, whatever that is.
fn library_directories(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for base in ["usr/lib", "lib"] {
        let Ok(entries) = fs::read_dir(root.join(base)) else { continue };
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.contains("-linux-") && root.join(base).join(&name).is_dir() {
                found.push(format!("{base}/{name}"));
            }
        }
        found.push(base.to_owned());
    }
    Ok(found)
}

/// Leaves an unchanged file alone: a build that runs at the same time may be executing it.
pub(super) fn write_program(path: &Path, text: &str) -> Result<()> {
    let write = || {
        if fs::read_to_string(path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        fs::write(path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
    };
    write().with_context(|| format!("writing {}", path.display()))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("deleting {}", path.display()))
        }
        _ => Ok(()),
    }
}
