//! `cargo xtask <command>`: everything a person does with this repository beyond plain `cargo build`.
//!
//! [`setup`] finds out what the machine has and fetches what is missing; [`kernel`] turns the test kernel into a bootable image, [`qemu`] boots it and [`protocol`] understands what it prints.
//! [`check`], [`mod@loom`], [`mod@shuttle`], [`storm`] and [`mod@bench`] are the commands that judge the result; [`mod@fuzz`] and [`tsan`] are
//! campaigns that run for as long as one likes, with the [`nightly`] compiler. [`mutants`] and [`coverage`] judge the
//! tests, and write down what they find.

mod bench;
mod check;
mod child;
mod childenv;
mod coverage;
mod fuzz;
mod kernel;
mod linux;
mod loom;
mod mutants;
mod nightly;
mod page;
mod powerset;
mod protocol;
mod qemu;
mod screen;
mod setup;
mod shuttle;
mod steps;
mod storm;
mod table;
mod tsan;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Build, boot, test and measure pagepin")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Fetch what the other commands need, without running them
    ///
    /// Every command does this itself first. What the machine has is used if it is good enough. What is missing comes as
    /// Debian packages where apt is; they are unpacked below target/tools, without root, and nothing is installed into the
    /// system. With PAGEPIN_TOOLS=private in the environment, what the system has is passed over.
    Setup {
        /// Install the missing packages into the system, as root or with sudo, instead of unpacking them
        #[arg(long)]
        system: bool,
    },
    /// Boot the test kernel in QEMU and watch it fork, pin and copy
    Demo,
    /// Run every check: format, lints, host tests, docs, feature subsets, kernel tests
    Test,
    /// Count instructions per page in QEMU and compare with Linux; writes target/bench.json
    Bench,
    /// Random operations on four CPUs at once, for as long as asked; any wrong byte, count or frame fails
    Storm {
        /// How long
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=7 * 24 * 60))]
        minutes: u32,
        /// Seed of the first run, which counts up from there; without it, one that differs each time
        #[arg(long)]
        seed: Option<u32>,
    },
    /// Let libFuzzer look for operations on which the library and the model of the host tests disagree
    Fuzz {
        /// For how long
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Run the library from real threads under ThreadSanitizer, and twins that it must report
    Tsan {
        /// For how long, without the twins
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
    /// Check the models under tests/models/loom and their negative twins: every interleaving of the lock-free parts, in bounds
    Loom {
        /// Parts of the names of the models to run; none: all
        models: Vec<String>,
    },
    /// Run the scenarios under tests/models/shuttle and their negative twins: whole operations on four CPUs, random schedules
    Shuttle {
        /// Parts of the names of the scenarios to run; none: all
        scenarios: Vec<String>,
        #[command(flatten)]
        schedules: shuttle::Schedules,
    },
    /// Change the library in small ways, one at a time, and look whether a test notices; writes docs/MUTANTS.md
    Mutants {
        /// Files and directories of the library, such as src/frame; none: all
        places: Vec<String>,
        /// Mutants tested at the same time; without it, as many as there are CPUs
        #[arg(long)]
        jobs: Option<usize>,
    },
    /// Count the lines and branches of the library that the host tests reach; writes docs/COVERAGE.md
    Coverage,
    /// Build and boot the test kernel, its output untouched (for working on the kernel)
    Kernel {
        /// What the kernel should do, as handed to it through fw_cfg
        #[arg(long, default_value = "demo")]
        mode: String,
        /// Number of CPUs; mode bench counts instructions and always has one
        #[arg(long, default_value_t = 4)]
        smp: u32,
        /// Optimised build (the default)
        #[arg(long, conflicts_with = "debug")]
        release: bool,
        /// Unoptimised build
        #[arg(long)]
        debug: bool,
    },
}

fn main() -> ExitCode {
    if let Some(code) = child::supervisor::run() {
        return code.into();
    }
    let root = project_root();
    if let Err(error) = child::interrupt::listen() {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    match run(Cli::parse().command, &root) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            child::interrupt::received()
                .and_then(|code| u8::try_from(code).ok())
                .map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

/// `Ok(false)` is a run that finished and was found wanting; it has already said why.
fn run(task: Task, root: &Path) -> Result<bool> {
    match task {
        Task::Setup { system } => setup::run(root, system),
        Task::Demo => kernel::demo(root),
        Task::Test => Ok(check::run(root)),
        Task::Bench => bench::run(root),
        Task::Storm { minutes, seed } => storm::run(root, minutes, seed),
        Task::Fuzz { seconds } => fuzz::run(root, seconds),
        Task::Tsan { seconds } => tsan::run(root, seconds),
        Task::Loom { models } => loom::run(root, &models),
        Task::Shuttle { scenarios, schedules } => shuttle::run(root, &scenarios, &schedules),
        Task::Mutants { places, jobs } => mutants::run(root, &places, jobs),
        Task::Coverage => coverage::run(root),
        Task::Kernel { mode, smp, release: _, debug } => {
            let profile = if debug { kernel::Profile::Debug } else { kernel::Profile::Release };
            kernel::develop(root, &mode, smp, profile)
        }
    }
}

/// Cargo says at run time where the crate is; the compile-time answer serves a binary started by hand.
fn project_root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let here = PathBuf::from(here);
    here.parent().map_or_else(|| here.clone(), Path::to_path_buf)
}
