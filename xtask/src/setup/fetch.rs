//! From a list of bundles to their roots.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::apt::{Archive, PrivateApt, Selection};
use super::bundle::Bundle;
use super::root::Root;
use super::status::VIEWS;
use crate::screen;

/// Says what will be downloaded, then does it.
pub(super) fn unpack(apt: &PrivateApt, project: &Path, bundles: &[Bundle]) -> Result<()> {
    let first = bundles.iter().map(|bundle| select(apt, bundle, 0)).collect::<Result<Vec<_>>>()?;
    for (_, selection) in &first {
        if Root::of(project, &selection.bundle.name).was_interrupted() {
            screen::say(format!("set-up: {} was left half unpacked and is unpacked anew", selection.bundle.name));
        }
        announce(apt, selection);
    }
    let total: u64 = first.iter().map(|(_, selection)| apt.missing_bytes(selection)).sum();
    screen::say(format!("set-up: {} to download in all", megabytes(total)));
    first.into_iter().try_for_each(|(attempt, selection)| realize(apt, project, attempt, selection))
}

/// The packages for `bundle` through the first view from `attempt` on through which apt finds any.
fn select(apt: &PrivateApt, bundle: &Bundle, attempt: usize) -> Result<(usize, Selection)> {
    let mut failures = Vec::new();
    for (index, view) in VIEWS.iter().enumerate().skip(attempt) {
        match apt.select(bundle, *view) {
            Ok(selection) => return Ok((index, selection)),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    bail!("{}", failures.join("\n"))
}

/// Downloads and unpacks; if the programs then do not run, once more with fewer of the system's libraries.
fn realize(apt: &PrivateApt, project: &Path, mut attempt: usize, mut selection: Selection) -> Result<()> {
    let root = Root::of(project, &selection.bundle.name);
    loop {
        let archives = apt.download(&selection)?;
        let packages: Vec<String> = selection.archives.iter().map(Archive::package).collect();
        screen::say(format!("set-up: unpacking {} packages for {}", archives.len(), selection.bundle.name));
        root.unpack(&selection.bundle, &archives, &packages)?;
        let Err(error) = root.verify() else { return apt.forget(&selection) };
        attempt += 1;
        if attempt == VIEWS.len() {
            return Err(error);
        }
        screen::say(format!("set-up: {error:#}; fetching more of its libraries"));
        (attempt, selection) = select(apt, &selection.bundle, attempt).context("after a first attempt")?;
        announce(apt, &selection);
    }
}

fn announce(apt: &PrivateApt, selection: &Selection) {
    let unpacked = selection.unpacked.as_deref().map(|size| format!(", at most {size} unpacked")).unwrap_or_default();
    screen::say(format!(
        "set-up: {}: {} packages, {} to download{unpacked}",
        selection.bundle.name,
        selection.archives.len(),
        megabytes(apt.missing_bytes(selection)),
    ));
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}
