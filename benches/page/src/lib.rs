//! Pages and pictures of what the benchmarks measured.
//!
//! [`publish`] makes the README's table and its picture of the figures that are committed; [`write_page`] draws the last runs
//! of `cargo xtask bench`, with and without `--host`, on one page.

mod host;
mod html;
mod instructions;
#[path = "../../../xtask/src/linux.rs"]
#[expect(dead_code, reason = "xtask prints the rest")]
mod linux;
#[path = "../../../xtask/src/page.rs"]
#[cfg_attr(not(test), expect(dead_code, reason = "xtask reads what stands there as well"))]
mod page;
mod plot;
#[path = "../../host/src/report.rs"]
mod report;

use std::path::Path;

use anyhow::{Context, Result};

const PAGE: &str = "target/bench.html";

/// Commits the figures of the last run: copies them to `docs`, and writes the README's table and picture.
///
/// # Errors
/// There was no run, or a file cannot be read or written.
pub fn publish(project: &Path) -> Result<()> {
    let (from, to) = (project.join(instructions::MEASURED), project.join(instructions::COMMITTED));
    std::fs::copy(&from, to).with_context(|| format!("reading {}", from.display()))?;
    for (file, text) in published(project)? {
        std::fs::write(project.join(file), text).with_context(|| format!("writing {file}"))?;
    }
    Ok(())
}

/// The README and its picture as the committed figures make them.
///
/// # Errors
/// A file is missing, or a figure in it.
pub fn published(project: &Path) -> Result<[(&'static str, String); 2]> {
    instructions::published(project)
}

/// Draws the last runs.
///
/// # Errors
/// The page cannot be written. A run that was never made, or by another version, is none.
pub fn write_page(project: &Path) -> Result<()> {
    let page = html::page(project)?;
    std::fs::write(project.join(PAGE), page).with_context(|| format!("writing {PAGE}"))
}
