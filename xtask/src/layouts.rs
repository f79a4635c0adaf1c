//! `cargo xtask layouts`: the test kernel with each layout of the frame words, measured; writes `docs/LAYOUTS.md`.
//!
//! The part of that page that needs no kernel is printed by the host tests.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::kernel::{KernelToolchain, Profile};
use crate::page::{self, Page};
use crate::qemu::{Boot, Cpus, Echo, Image};
use crate::screen::{self, Show};
use crate::setup::Need;
use crate::steps::{Steps, Summary};

/// As the kernel's build script knows them.
const LAYOUTS: [&str; 4] = ["Wide", "Split23x8", "Split23x4x4", "Biased10"];
const PAGE: &str = "docs/LAYOUTS.md";
const LIMIT: Duration = Duration::from_secs(600);
/// What is read of mode `bench`.
const FIGURES: [&str; 5] = ["pin_fast_4k_b512", "pin_fast_4k_b1", "unpin_4k", "fork_4k", "unshare_net"];
/// What the kernel prints at the end of the scenes.
const HIGHEST: &str = "highest_pins";

pub(crate) fn run(project: &Path) -> Steps {
    let mut steps = Steps::new(project, 2 + LAYOUTS.len());
    let prepare = || {
        let toolchain = KernelToolchain::prepare(project, Need::Boot)?;
        Ok((Summary::note(toolchain.description()), toolchain))
    };
    let Some(toolchain) = steps.value("set-up", Show::Last, prepare) else { return steps };
    let mut rows = Vec::new();
    for layout in LAYOUTS {
        let Some(row) = steps.value(layout, Show::Last, || measure(&toolchain, layout)) else { return steps };
        rows.push(row);
    }
    steps.run("page", Show::All, || write(project, rows));
    steps
}

/// Builds and boots the kernel with one layout: cells of its row.
fn measure(toolchain: &KernelToolchain, layout: &str) -> Result<(Summary, Vec<String>)> {
    let image = toolchain.build_image_with(Profile::Release, layout)?;
    let bench = boot(&image, "bench", Cpus::Counted)?;
    let value =
        |figures: &[(String, f64)], key: &str| figures.iter().find(|(known, _)| known == key).map(|(_, value)| *value);
    let figures =
        FIGURES.map(|key| value(&bench.bench, key).map_or_else(|| "-".to_owned(), |value| format!("{value:.1}")));
    let scenes = boot(&image, "demo", Cpus::Threads(4))?;
    let highest = value(&scenes.bench, HIGHEST).with_context(|| format!("no {HIGHEST} in the kernel's output"))?;
    let note = format!("{} of {} tests of the scenes", scenes.passed, scenes.passed + scenes.failed());
    let mut row = vec![layout.to_owned()];
    row.extend(figures);
    row.extend([format!("{highest:.0}"), format!("{} of {}", scenes.passed, scenes.passed + scenes.failed())]);
    Ok((Summary { note, passed: scenes.passed, failed: 0 }, row))
}

fn boot(image: &Image, mode: &str, cpus: Cpus) -> Result<crate::protocol::Transcript> {
    Ok(Boot { image, mode, cpus, limit: LIMIT, echo: Echo::Human }.run()?.transcript)
}

fn write(project: &Path, rows: Vec<Vec<String>>) -> Result<Summary> {
    let headings: Vec<&str> =
        ["layout"].into_iter().chain(FIGURES).chain(["most pins on a frame", "scenes that hold"]).collect();
    let table = page::table(&headings, rows);
    let file = project.join(PAGE);
    std::fs::write(&file, Page::read(&file)?.with(&table)?).with_context(|| format!("writing {PAGE}"))?;
    screen::output(&table);
    Ok(Summary::note(PAGE))
}
