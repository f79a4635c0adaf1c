//! `cargo xtask tutorial`: does what the pages in `docs/tutorial` say, and compares what they say will be seen.

mod page;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::child::succeed;
use crate::childenv::host_cargo;
use crate::kernel::KernelToolchain;
use crate::protocol::Line;
use crate::qemu::{Boot, Cpus, Echo};
use crate::screen::Show;
use crate::setup::Need;
use crate::steps::{Steps, Summary};
use page::{Files, Part, agrees, parse, type_in};

const LIMIT: Duration = Duration::from_secs(120);
/// A page that needs more than one CPU says so by this.
const SEVERAL_CPUS: &str = "`-smp 4`";

/// All pages up to the one with this number; none: all.
pub(crate) fn run(project: &Path, last: Option<usize>) -> Steps {
    let pages = pages(project).unwrap_or_default();
    let pages = &pages[..last.unwrap_or(pages.len()).min(pages.len())];
    let mut steps = Steps::new(project, 1 + pages.len());
    let toolchain = steps.value("set-up", Show::Last, || {
        ensure!(!pages.is_empty(), "docs/tutorial has no pages");
        let toolchain = KernelToolchain::prepare(project, Need::Boot)?;
        Ok((Summary::note(toolchain.description()), toolchain))
    });
    let Some(toolchain) = toolchain else { return steps };
    let mut kernel = Kernel::new(project, &toolchain);
    for page in pages {
        let name = page.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !steps.run(&name, Show::All, || kernel.follow(page, Echo::Raw)) {
            break;
        }
    }
    steps
}

/// All of them, for the gate.
pub(crate) fn check(project: &Path, toolchain: &KernelToolchain) -> Result<Summary> {
    let pages = pages(project)?;
    let mut kernel = Kernel::new(project, toolchain);
    for page in &pages {
        kernel.follow(page, Echo::Raw)?;
    }
    let mut lint = toolchain.lint_of(&kernel.directory());
    succeed(lint.env("CARGO_TARGET_DIR", toolchain.built_examples()))?;
    Ok(Summary::note(format!("{} pages", pages.len())))
}

/// The pages in their order, which is that of their names.
fn pages(project: &Path) -> Result<Vec<PathBuf>> {
    let folder = project.join("docs/tutorial");
    let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut pages = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    pages.sort();
    Ok(pages)
}

/// The kernel that a reader would have by now.
struct Kernel<'a> {
    project: &'a Path,
    toolchain: &'a KernelToolchain,
    files: Files,
}

impl<'a> Kernel<'a> {
    fn new(project: &'a Path, toolchain: &'a KernelToolchain) -> Self {
        Self { project, toolchain, files: Files::new() }
    }

    fn directory(&self) -> PathBuf {
        self.project.join("target/tutorial/kernel")
    }

    fn follow(&mut self, page: &Path, echo: Echo) -> Result<Summary> {
        let text = fs::read_to_string(page).with_context(|| format!("reading {}", page.display()))?;
        // Where instructions are the clock, the device takes its 100 ms however busy this machine is.
        let cpus = if text.contains(SEVERAL_CPUS) { Cpus::Threads(4) } else { Cpus::Counted };
        for part in parse(&text).with_context(|| page.display().to_string())? {
            match part {
                Part::Type { file, place, text } => type_in(&mut self.files, &file, &place, &text)?,
                Part::Boot { expected } => self.boot(&expected, cpus, echo)?,
            }
        }
        Ok(Summary::default())
    }

    fn boot(&self, expected: &[String], cpus: Cpus, echo: Echo) -> Result<()> {
        self.write()?;
        succeed(host_cargo(self.project).args(["fmt", "--check"]).current_dir(self.directory()))?;
        let image = self.toolchain.build_typed(&self.directory())?;
        let mut said = Vec::new();
        let boot = Boot { image: &image, mode: "tutorial", cpus, limit: LIMIT, echo };
        let outcome = boot.run_with(|line| {
            if let Line::Human(line) = line {
                said.push(line.clone());
            }
        })?;
        let agree =
            said.len() == expected.len() && said.iter().zip(expected).all(|(line, expected)| agrees(line, expected));
        ensure!(agree, "the serial line says:\n{}\nthe page:\n{}", said.join("\n"), expected.join("\n"));
        outcome.failure.map_or(Ok(()), |failure| bail!(failure))
    }

    /// The folder that a reader has, beside the clone, and nothing of an earlier run but what cargo made.
    fn write(&self) -> Result<()> {
        let directory = self.directory();
        let clone = directory.with_file_name("pagepin");
        for old in ["src", ".cargo"] {
            remove(fs::remove_dir_all(directory.join(old)))?;
        }
        remove(fs::remove_file(directory.join("build.rs")))?;
        for (file, text) in &self.files {
            let file = directory.join(file);
            file.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        }
        // Lines as long as the pages show.
        fs::write(directory.with_file_name("rustfmt.toml"), "max_width = 96\nuse_small_heuristics = \"Max\"\n")?;
        remove(fs::remove_file(&clone))?;
        std::os::unix::fs::symlink(self.project, &clone)?;
        // The versions of the examples: what is published elsewhere today changes nothing here.
        fs::copy(self.project.join("examples/machine/Cargo.lock"), directory.join("Cargo.lock"))?;
        Ok(())
    }
}

/// What was not there need not be removed.
fn remove(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
