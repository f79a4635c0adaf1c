//! `cargo xtask <command>`: everything a person does with this repository beyond plain `cargo build`.
//!
//! [`cli`] reads the command line. [`setup`] finds out what the machine has and fetches what is missing; [`kernel`] turns the
//! test kernel into a bootable image, [`qemu`] boots it and [`protocol`] understands what it prints. Every program is
//! started by [`child`]. A command is a row of [`steps`], shown on the [`screen`], and ends in a [`report`].
//!
//! [`example`] boots the kernels that are examples, [`tutorial`] those that its pages make. [`published`] looks at the library as others get it.
//!
//! [`check`], [`mod@loom`], [`mod@shuttle`], [`storm`] and [`mod@bench`] are the commands that judge the result;
//! [`mod@fuzz`] and [`tsan`] are campaigns that run for as long as one likes, with the [`nightly`] compiler. [`mutants`] and
//! [`coverage`] judge the tests, and write down what they find, as [`layouts`] does for the layouts of the frame words.
// Standard output may belong to a program (`--json`), and below it may be a bar: all goes through `screen`.
#![deny(clippy::print_stdout)]

mod bench;
mod check;
mod child;
mod childenv;
mod cli;
mod corpus;
mod coverage;
mod demo;
mod develop;
mod disk;
mod example;
mod fuzz;
mod host_tests;
mod image;
mod kernel;
mod layouts;
mod linux;
mod loom;
mod models;
mod mutants;
mod nightly;
mod page;
mod picture;
mod powerset;
mod protocol;
mod published;
mod qemu;
mod report;
mod screen;
mod setup;
mod shuttle;
mod steps;
mod storm;
mod table;
mod tsan;
mod tutorial;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use cli::{Cli, Task};
use report::Details;

fn main() -> ExitCode {
    if let Some(code) = child::supervisor::run() {
        return code.into();
    }
    let cli = Cli::parse();
    if let Some(list) = cli.command.list() {
        // Who closes the pipe has read enough.
        let _ = writeln!(std::io::stdout(), "{list}");
        return ExitCode::SUCCESS;
    }
    if cli.json {
        screen::leave_stdout();
    }
    if cli.verbose {
        screen::be_verbose();
    }
    let result = child::interrupt::listen().and_then(|()| run(cli, &project_root()));
    match (child::interrupt::received(), result) {
        (Some(code), _) => u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from),
        (None, Ok(true)) => ExitCode::SUCCESS,
        (None, Ok(false)) => ExitCode::FAILURE,
        (None, Err(error)) => {
            screen::say(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// `Ok(false)` is a run that finished and was found wanting; it has already said why.
fn run(cli: Cli, root: &Path) -> Result<bool> {
    let name = cli.command.name();
    let plain = |steps| (steps, Details::new());
    let picture = matches!(cli.command, Task::Picture);
    if picture {
        screen::record();
    }
    let (steps, details) = match cli.command {
        Task::Setup { system } => plain(setup::run(root, system)),
        Task::Demo { scenes, .. } => demo::run(root, &scenes),
        Task::Picture => demo::run(root, &[]),
        Task::Test { steps, .. } => plain(check::run(root, &steps)),
        Task::Bench { host: true, .. } => bench::host::run(root),
        Task::Bench { publish, .. } => bench::run(root, publish),
        Task::Storm { minutes, seed } => plain(storm::run(root, minutes, seed)),
        Task::Fuzz { seconds, keep } => plain(fuzz::run(root, seconds, keep)),
        Task::Tsan { seconds } => plain(tsan::run(root, seconds)),
        Task::Loom { models, .. } => plain(loom::run(root, &models)),
        Task::Shuttle { scenarios, schedules, .. } => plain(shuttle::run(root, &scenarios, &schedules)),
        Task::Mutants(wanted) => plain(mutants::run(root, &wanted)),
        Task::Coverage => plain(coverage::run(root)),
        Task::Layouts => plain(layouts::run(root)),
        Task::Example { kernels } => plain(example::run(root, &kernels)),
        Task::Tutorial { step } => plain(tutorial::run(root, step)),
        Task::Kernel { mode, smp, release: _, debug } => {
            let profile = if debug { kernel::Profile::Debug } else { kernel::Profile::Release };
            plain(develop::run(root, &mode, smp, profile))
        }
    };
    let well = report::close(name, &steps, details, cli.json)?;
    if picture && well {
        picture::write(root, &screen::recorded())?;
    }
    Ok(well)
}

/// Cargo says at run time where the crate is; the compile-time answer serves a binary started by hand.
fn project_root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let here = PathBuf::from(here);
    here.parent().map_or_else(|| here.clone(), Path::to_path_buf)
}
