//! apt, asked to choose and fetch packages without touching the system.
//!
//! Package lists, downloads and state lie in a directory of the project, so that neither root nor the system's locks are
//! needed. apt still reads the system's sources, keys, preferences and proxy, and verifies all that it fetches.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::bundle::Bundle;
use super::machine::{self, Version};
use super::status::{self, View};
use crate::child::succeed;

/// Commands that administrators hang into apt are about the system, which is left alone here. Shorter downloads; several
/// attempts; no second user, who could not write into the project.
const CONFIGURATION: &str = "\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
Acquire::Languages \"none\";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";
Acquire::Retries \"3\";
APT::Sandbox::User \"\";
APT::Install-Recommends \"false\";
Dir::Cache::pkgcache \"\";
Dir::Cache::srcpkgcache \"\";
";

/// apt with directories of its own.
pub(crate) struct PrivateApt {
    directory: PathBuf,
    /// dpkg's list of what is installed in the system.
    status: PathBuf,
    /// More lines of configuration; tests have sources of their own.
    configuration: String,
}

/// One package to unpack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Archive {
    /// `name_version_architecture.deb`.
    pub(crate) file: String,
    pub(crate) bytes: u64,
    /// Where it is already, if its source is a directory of this machine.
    local: Option<PathBuf>,
}

impl Archive {
    /// `name=version`, as apt would be asked for it.
    pub(crate) fn package(&self) -> String {
        let mut parts = self.file.split('_');
        let (name, version) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        format!("{name}={}", version.replace("%3a", ":"))
    }
}

/// The packages that make a bundle complete on this system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) bundle: Bundle,
    pub(crate) view: View,
    pub(crate) archives: Vec<Archive>,
    /// Such as `106 MB`, in apt's words.
    pub(crate) unpacked: Option<String>,
}

impl PrivateApt {
    pub(crate) fn new(project: &Path) -> Self {
        Self {
            directory: machine::packages(project).join("apt"),
            status: "/var/lib/dpkg/status".into(),
            configuration: CONFIGURATION.to_owned(),
        }
    }

    /// Fetches the package lists.
    pub(crate) fn update(&self) -> Result<()> {
        succeed(self.command("apt-get", View::Libraries)?.arg("update"))?;
        // An unreachable server is a warning to apt.
        if !self.has_lists() {
            bail!("apt-get update: no package list could be fetched");
        }
        Ok(())
    }

    /// Whether there are package lists, of whatever day.
    pub(crate) fn has_lists(&self) -> bool {
        let Ok(lists) = fs::read_dir(self.directory.join("lists")) else { return false };
        lists.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    }

    /// The version of `package` that would be installed.
    pub(crate) fn offers(&self, package: &str) -> Option<Version> {
        let policy = machine::said(self.command("apt-cache", View::Libraries).ok()?.args(["policy", package])).ok()?;
        machine::candidate(&policy)
    }

    /// Chooses the packages of `bundle` and all that they need beyond what `view` lets them use of the system.
    pub(crate) fn select(&self, bundle: &Bundle, view: View) -> Result<Selection> {
        let mut apt = self.command("apt-get", view)?;
        // In an empty directory nothing has been downloaded, so that the list is complete.
        apt.args(["-o", "Dir::Cache::archives=none"]);
        apt.args(["install", "--yes", "--print-uris"]).args(&bundle.packages);
        let listing =
            machine::said(&apt).with_context(|| format!("choosing packages for {}", bundle.packages.join(" ")))?;
        let archives = listing.lines().filter_map(archive).collect();
        let unpacked = listing.lines().find_map(additional_space).map(str::to_owned);
        Ok(Selection { bundle: bundle.clone(), view, archives, unpacked })
    }

    /// Fetches what is not there yet, and returns where all of it is.
    pub(crate) fn download(&self, selection: &Selection) -> Result<Vec<PathBuf>> {
        let mut apt = self.command("apt-get", selection.view)?;
        apt.args(["install", "--yes", "--download-only"]).args(&selection.bundle.packages);
        succeed(&apt)?;
        Ok(selection.archives.iter().map(|archive| self.place(archive)).collect())
    }

    /// How much of `selection` has still to come.
    pub(crate) fn missing_bytes(&self, selection: &Selection) -> u64 {
        let missing = selection.archives.iter().filter(|archive| !self.place(archive).is_file());
        missing.map(|archive| archive.bytes).sum()
    }

    /// Deletes the downloads, which are of no use once they are unpacked.
    pub(crate) fn forget(&self, selection: &Selection) -> Result<()> {
        for archive in selection.archives.iter().filter(|archive| archive.local.is_none()) {
            let file = self.place(archive);
            fs::remove_file(&file).with_context(|| format!("deleting {}", file.display()))?;
        }
        Ok(())
    }

    fn place(&self, archive: &Archive) -> PathBuf {
        archive.local.clone().unwrap_or_else(|| self.directory.join("archives").join(&archive.file))
    }

    fn command(&self, program: &str, view: View) -> Result<Command> {
        for directory in ["lists/partial", "archives/partial", "none/partial"] {
            let directory = self.directory.join(directory);
            fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        }
        let write = |name, text: &str| {
            let file = self.directory.join(name);
            fs::write(&file, text).with_context(|| format!("writing {}", file.display())).map(|()| file)
        };
        let system = fs::read(&self.status).with_context(|| format!("reading {}", self.status.display()))?;
        write("status", &status::seen_through(view, &String::from_utf8_lossy(&system)))?;
        let configuration = write("apt.conf", &self.configured()?)?;
        let mut apt = Command::new(program);
        // Its words are read.
        apt.env("LC_ALL", "C").arg("-c").arg(configuration);
        Ok(apt)
    }

    /// The configuration file, read after the system's.
    fn configured(&self) -> Result<String> {
        let directory = self.directory.to_str().filter(|path| !path.contains(['"', '\n']));
        let directory =
            directory.with_context(|| format!("apt cannot use a directory of this name: {:?}", self.directory))?;
        let names = ["State", "State::lists", "State::status", "Cache", "Cache::archives"];
        let places = names.iter().zip(["", "lists", "status", "", "archives"]);
        let places = places.map(|(name, place)| format!("Dir::{name} \"{directory}/{place}\";\n"));
        Ok(places.chain([self.configuration.clone()]).collect())
    }
}

/// Reads `'http://…/x_1_amd64.deb' x_1_amd64.deb 1234 SHA256:…`.
fn archive(line: &str) -> Option<Archive> {
    let (uri, rest) = line.strip_prefix('\'')?.split_once("' ")?;
    let mut words = rest.split(' ');
    let (file, bytes) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
    Some(Archive { file, bytes, local: uri.strip_prefix("file:").map(PathBuf::from) })
}

/// The size in `After this operation, 106 MB of additional disk space will be used.`
fn additional_space(line: &str) -> Option<&str> {
    line.strip_prefix("After this operation, ")?.split_once(" of additional").map(|(size, _)| size)
}

#[cfg(test)]
#[path = "apt_tests.rs"]
mod tests;
