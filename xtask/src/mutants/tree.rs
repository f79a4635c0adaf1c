//! A copy of the project in which mutants are made: it keeps what was built, so that a mutant costs the compilation of the
//! library and its tests, and nobody's sources are touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::child;

pub(super) struct Tree {
    project: PathBuf,
    root: PathBuf,
    /// Whether the library's own sources are those of the project; else somebody writes others.
    with_library: bool,
}

impl Tree {
    /// A copy of all, below `target`, up to date.
    pub(super) fn whole(project: &Path) -> Result<Self> {
        Self::copy(project, "tree", true)
    }

    /// One whose library somebody else writes.
    pub(super) fn without_library(project: &Path) -> Result<Self> {
        Self::copy(project, "switched", false)
    }

    fn copy(project: &Path, name: &str, with_library: bool) -> Result<Self> {
        let root = project.join("target/mutants").join(name);
        let tree = Self { project: project.to_owned(), root, with_library };
        tree.refresh()?;
        Ok(tree)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Copies what differs, also what an interrupted run has left changed, and takes away what is no part of the project any
    /// more: tests read whole folders.
    pub(super) fn refresh(&self) -> Result<()> {
        let mut files = files(&self.project, &[])?;
        files.retain(|file| self.with_library || !LIBRARY.iter().any(|place| is_in(file, place)));
        let list = self.root.join("target/files");
        let before = fs::read_to_string(&list).unwrap_or_default();
        for gone in before.lines().filter(|file| !files.iter().any(|other| other == file)) {
            let _ = fs::remove_file(self.root.join(gone));
        }
        for file in &files {
            let (from, to) = (self.project.join(file), self.root.join(file));
            let new = fs::read(&from).with_context(|| format!("reading {}", from.display()))?;
            if fs::read(&to).is_ok_and(|old| old == new) {
                continue;
            }
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
            }
            fs::write(&to, new).with_context(|| format!("writing {}", to.display()))?;
        }
        fs::create_dir_all(self.root.join("target")).context("making the copy's target")?;
        fs::write(&list, files.join("\n")).with_context(|| format!("writing {}", list.display()))
    }
}

/// Where the library's own sources are.
const LIBRARY: [&str; 2] = ["src", "arch"];

/// What git knows below `places`, or would if it were added.
fn files(project: &Path, places: &[&str]) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(project).args(["ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate", "--"]);
    let listed = said(git.args(places))?;
    // What was deleted and not committed is still in the index.
    Ok(listed.lines().filter(|file| project.join(file).is_file()).map(str::to_owned).collect())
}

/// The files of the library in which mutants are made: not those that are parts of models or tests.
pub(super) fn library(project: &Path) -> Result<Vec<String>> {
    let mut files = files(project, &LIBRARY)?;
    files.retain(|file| file.ends_with(".rs") && !is_in(file, "src/model") && !file.ends_with("/tests.rs"));
    files.sort();
    Ok(files)
}

/// Whether `file` is `place` or lies below it.
pub(super) fn is_in(file: &str, place: &str) -> bool {
    file.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The id that git gives to what is in a file.
pub(super) fn id(project: &Path, file: &str) -> Result<String> {
    Ok(said(Command::new("git").current_dir(project).args(["hash-object", "--", file]))?.trim().to_owned())
}

fn said(command: &Command) -> Result<String> {
    let output = child::output(command)?;
    child::successful(command, output.status)?;
    String::from_utf8(output.stdout).context("a name that is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_file_or_a_folder() {
        assert!(is_in("src/pin/walk.rs", "src/pin") && is_in("src/pin/walk.rs", "src/pin/walk.rs"));
        assert!(!is_in("src/pinned.rs", "src/pin"));
    }
}
