//! `cargo xtask layouts`: the test kernel with each layout of the frame words, measured; writes `docs/LAYOUTS.md`.
//!
//! The part of that page that needs no kernel is printed by the host tests.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::kernel::{KernelToolchain, Profile};
use crate::page::{self, Page};
use crate::protocol::Transcript;
use crate::qemu::{Boot, Cpus, Echo, Image};
use crate::screen::{self, Show};
use crate::setup::Need;
use crate::steps::{Steps, Summary};

/// As the kernel's build script knows them.
const LAYOUTS: [&str; 4] = ["Wide", "Split23x8", "Split23x4x4", "Biased10"];
const PAGE: &str = "docs/LAYOUTS.md";
const LIMIT: Duration = Duration::from_secs(600);
/// What is read of the modes `bench` and `atomics`: the key, and how the page calls it.
const FIGURES: [(&str, &str); 5] = [
    ("pin_fast_4k_b512", "instructions: fast pin, 512 pages a call"),
    ("pin_fast_4k_b1", "fast pin, 1 page a call"),
    ("unpin_4k", "unpin"),
    ("fork_4k", "fork"),
    ("unshare_net", "read pin of a page shared by fork, without the copy"),
];
const ATOMICS: [(&str, &str); 4] = [
    ("atomics_pin_b512", "locked instructions: fast pin, 512 pages a call"),
    ("atomics_pin_b1", "fast pin, 1 page a call"),
    ("atomics_pin_slow_b1", "slow pin, 1 page a call"),
    ("atomics_unpin", "unpin"),
];
/// What the kernel prints at the end of each scene. Those behind the storm pin by other calls, where nobody counts.
const HIGHEST: [(&str, &str); 6] = [
    ("highest_pins_a", "most pins of a frame at once: scene a"),
    ("highest_pins_b", "scene b"),
    ("highest_pins_c", "scene c"),
    ("highest_pins_d", "scene d"),
    ("highest_pins_e", "scene e"),
    ("highest_pins_f", "scene f, the storm"),
];

pub(crate) fn run(project: &Path) -> Steps {
    let mut steps = Steps::new(project, 2 + LAYOUTS.len());
    let prepare = || {
        let toolchain = KernelToolchain::prepare(project, Need::Boot)?;
        Ok((Summary::note(toolchain.description()), toolchain))
    };
    let Some(toolchain) = steps.value("set-up", Show::Last, prepare) else { return steps };
    let mut columns = Vec::new();
    for layout in LAYOUTS {
        let Some(column) = steps.value(layout, Show::Last, || measure(&toolchain, layout)) else { return steps };
        columns.push(column);
    }
    steps.run("page", Show::All, || write(project, &columns));
    steps
}

/// Builds and boots the kernel with one layout: the cells of its column.
fn measure(toolchain: &KernelToolchain, layout: &str) -> Result<(Summary, Vec<String>)> {
    let image = toolchain.build_image_with(Profile::Release, layout)?;
    let mut cells = figures(&boot(&image, "bench", Cpus::Counted)?, FIGURES, 1)?;
    cells.extend(figures(&boot(&image, "atomics", Cpus::Counted)?, ATOMICS, 2)?);
    let scenes = boot(&image, "demo", Cpus::Threads(4))?;
    cells.extend(figures(&scenes, HIGHEST, 0)?);
    let all = scenes.passed + scenes.failed();
    cells.push(format!("{} of {all}", scenes.passed));
    let note = format!("{} of {all} tests of the scenes", scenes.passed);
    Ok((Summary { note, passed: scenes.passed, failed: scenes.failed() }, cells))
}

/// The figures of these keys, each of which the kernel has to have printed.
fn figures<const N: usize>(printed: &Transcript, wanted: [(&str, &str); N], decimals: usize) -> Result<Vec<String>> {
    let find = |(key, _): &(&str, _)| {
        let found = printed.bench.iter().find(|(known, _)| known == key);
        found
            .map(|(_, value)| format!("{value:.decimals$}"))
            .with_context(|| format!("no {key} in the kernel's output"))
    };
    wanted.iter().map(find).collect()
}

fn boot(image: &Image, mode: &str, cpus: Cpus) -> Result<Transcript> {
    Ok(Boot { image, mode, cpus, limit: LIMIT, echo: Echo::Human }.run()?.transcript)
}

fn write(project: &Path, columns: &[Vec<String>]) -> Result<Summary> {
    let headings: Vec<&str> = ["per page"].into_iter().chain(LAYOUTS).collect();
    let names = FIGURES.iter().chain(&ATOMICS).chain(&HIGHEST).map(|(_, name)| *name);
    let names = names.chain(["tests of the scenes that hold"]);
    let row = |(index, name): (usize, &str)| {
        [name.to_owned()].into_iter().chain(columns.iter().map(|column| column[index].clone())).collect()
    };
    let table = page::table(&headings, names.enumerate().map(row));
    let file = project.join(PAGE);
    std::fs::write(&file, Page::read(&file)?.with(&table)?).with_context(|| format!("writing {PAGE}"))?;
    screen::output(&table);
    Ok(Summary::note(PAGE))
}
