//! The command line. Names of steps, scenes, models and scenarios are checked here, before anything is built.

use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand};

use crate::{check, demo, example, loom, models, mutants, shuttle};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Build, boot, test and measure pagepin")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Task,
    /// Print the result as one JSON object on standard output, and all else on standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Show all that the programs print; without it, that is only in the logs under target/xtask
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
}

#[derive(Subcommand)]
pub(crate) enum Task {
    /// Fetch what the other commands need, without running them
    ///
    /// Every command does this itself first. What the machine has is used if it is good enough. What is missing comes as
    /// Debian packages where apt is; they are unpacked below target/tools, without root, and nothing is installed into the
    /// system. With PAGEPIN_TOOLS=private in the environment, what the system has is passed over.
    /// Takes three minutes on two CPUs. Downloads at most 160 MB, and takes 900 MB of the disk.
    Setup {
        /// Install the missing packages into the system, as root or with sudo, instead of unpacking them
        #[arg(long)]
        system: bool,
    },
    /// Boot the test kernel in QEMU and watch it fork, pin and copy
    ///
    /// Takes a minute on two CPUs; the first time some five minutes more, for tools and kernel. Of the disk it takes 1.6 GB.
    Demo {
        /// Show only these scenes, such as `a,c`
        #[arg(long = "scene", value_name = "SCENE", value_delimiter = ',', value_parser = scene_letters())]
        scenes: Vec<String>,
        /// List the scenes
        #[arg(long)]
        list: bool,
    },
    /// Run every check: format, lints, host tests, docs, feature subsets, models, kernel tests
    ///
    /// Takes 10 to 15 minutes on two CPUs, and 5 GB of the disk. A single step takes seconds to a few minutes.
    Test {
        /// Run only these steps, such as `format,lint`
        #[arg(long = "step", value_name = "STEP", value_delimiter = ',', value_parser = check::names())]
        steps: Vec<String>,
        /// List the steps
        #[arg(long)]
        list: bool,
    },
    /// Count instructions per page in QEMU and compare with Linux; writes target/bench.json and target/bench.html
    ///
    /// Takes ten seconds once the kernel is built, and as much of the disk as the demo. On the host it takes half a minute, or two
    /// where other programs are at work.
    Bench {
        /// Measure nanoseconds on this machine instead, beside a bare loop and this host's Linux, without QEMU; writes
        /// target/bench-host.json
        #[arg(long)]
        host: bool,
        /// Commit what was counted: writes docs/bench.json, docs/bench.svg and the table in README.md
        #[arg(long, conflicts_with = "host")]
        publish: bool,
    },
    /// Random operations on four CPUs at once, for as long as asked; any wrong byte, count or frame fails
    ///
    /// Takes as long as it is told once the kernel is built, and as much of the disk as the demo.
    Storm {
        /// How long
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=7 * 24 * 60))]
        minutes: u32,
        /// Seed of the first run, which counts up from there; without it, one that differs each time
        #[arg(long)]
        seed: Option<u32>,
    },
    /// Let libFuzzer look for operations on which the library and the reference of the host tests disagree
    ///
    /// Takes as long as it is told, after some minutes of building the first time. Needs a nightly toolchain.
    Fuzz {
        /// For how long
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Afterwards make fuzz/corpus.tar.gz of the fewest scripts that reach all that was reached, now and before
        #[arg(long)]
        keep: bool,
    },
    /// Run the library from real threads under ThreadSanitizer, and twins that it must report
    ///
    /// Takes as long as it is told and at most a minute for the twins. Needs a nightly toolchain.
    Tsan {
        /// For how long, without the twins
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
    /// Check the models under tests/models/loom and their negative twins: every interleaving of the lock-free parts, in bounds
    ///
    /// Takes five minutes on two CPUs, one of them to build.
    Loom {
        /// Parts of the names of the models to run; none: all
        #[arg(value_parser = loom::name)]
        models: Vec<String>,
        /// List the models
        #[arg(long)]
        list: bool,
    },
    /// Run the scenarios under tests/models/shuttle and their negative twins: whole operations on four CPUs, random schedules
    ///
    /// Takes two minutes on two CPUs, unless more schedules are asked for.
    Shuttle {
        /// Parts of the names of the scenarios to run; none: all
        #[arg(value_parser = shuttle::name)]
        scenarios: Vec<String>,
        #[command(flatten)]
        schedules: shuttle::Schedules,
        /// List the scenarios
        #[arg(long)]
        list: bool,
    },
    /// Change the library in small ways, one at a time, and look whether a test notices; writes docs/MUTANTS.md
    ///
    /// Takes half a minute for a mutant, and many hours for all of the library; what was tested stays tested, so it may be stopped
    /// and started again.
    Mutants(mutants::Wanted),
    /// Count the lines and branches of the library that the host tests reach; writes docs/COVERAGE.md
    ///
    /// Takes some minutes. Needs a nightly toolchain.
    Coverage,
    /// Measure the test kernel with each layout of the frame words; writes docs/LAYOUTS.md
    ///
    /// Takes ten minutes: four kernels are built and run their scenes.
    Layouts,
    /// Run the demo and draw what it looks like; writes docs/demo.svg
    ///
    /// Takes as long as the demo.
    Picture,
    /// Build and boot the example kernels: one with one CPU, one with four, one with a disk
    ///
    /// Takes ten seconds once they are built, and some minutes the first time.
    Example {
        /// Which; none: all
        #[arg(value_parser = PossibleValuesParser::new(example::KERNELS.iter().map(|(name, _)| *name)))]
        kernels: Vec<String>,
    },
    /// Type in what the pages of docs/tutorial say, boot it, and compare what they say will be seen
    ///
    /// Takes two minutes on two CPUs. What was typed stays in target/tutorial/kernel.
    Tutorial {
        /// The last page to do; none: all
        step: Option<usize>,
    },
    /// Build and boot the test kernel, its output untouched (for working on the kernel)
    ///
    /// Takes what the mode takes, and as much of the disk as the demo.
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

fn scene_letters() -> PossibleValuesParser {
    PossibleValuesParser::new(demo::SCENES.iter().map(|(letter, _)| *letter))
}

impl Task {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Setup { .. } => "setup",
            Self::Demo { .. } => "demo",
            Self::Test { .. } => "test",
            Self::Bench { .. } => "bench",
            Self::Storm { .. } => "storm",
            Self::Fuzz { .. } => "fuzz",
            Self::Tsan { .. } => "tsan",
            Self::Loom { .. } => "loom",
            Self::Shuttle { .. } => "shuttle",
            Self::Mutants(_) => "mutants",
            Self::Coverage => "coverage",
            Self::Layouts => "layouts",
            Self::Picture => "picture",
            Self::Example { .. } => "example",
            Self::Tutorial { .. } => "tutorial",
            Self::Kernel { .. } => "kernel",
        }
    }

    /// What there is to choose from, if that was asked for.
    pub(crate) fn list(&self) -> Option<String> {
        let lines: Vec<String> = match self {
            Self::Demo { list: true, .. } => {
                demo::SCENES.iter().map(|(letter, title)| format!("{letter}  {title}")).collect()
            }
            Self::Test { list: true, .. } => {
                check::CHECKS.iter().map(|check| format!("{:<14}{}", check.name, check.about)).collect()
            }
            Self::Loom { list: true, .. } => models::names(loom::NAMES).map(str::to_owned).collect(),
            Self::Shuttle { list: true, .. } => models::names(shuttle::NAMES).map(str::to_owned).collect(),
            _ => return None,
        };
        Some(lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    fn parse(words: &str) -> Result<Task, clap::Error> {
        Cli::try_parse_from(["xtask"].into_iter().chain(words.split(' '))).map(|cli| cli.command)
    }

    #[test]
    fn names_that_nobody_knows_are_refused_with_those_that_are_known() {
        for (words, known) in [
            ("test --step lnt", "lint-kernel"),
            ("demo --scene a,z", "a, b, c, d, e, f, g, h"),
            ("loom pine", "share x pin (wide)"),
            ("shuttle mox", "mix (epochs)"),
        ] {
            let Err(error) = parse(words) else { panic!("{words} was taken") };
            assert!(matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation), "{words}");
            assert!(error.to_string().contains(known), "{error}");
        }
    }

    #[test]
    fn several_names_are_taken_in_both_ways() {
        for words in ["test --step lint,docs", "test --step lint --step docs"] {
            let Ok(Task::Test { steps, list: false }) = parse(words) else { panic!("{words} was not taken") };
            assert_eq!(steps, ["lint", "docs"]);
        }
    }

    #[test]
    fn lists_name_all_that_can_be_asked_for() {
        for (words, lines, line) in [
            ("test --list", check::CHECKS.len(), "lint-kernel"),
            ("demo --list", demo::SCENES.len(), "c  A child keeps"),
            ("loom --list", models::names(loom::NAMES).count(), "fork x fork x write"),
            ("shuttle --list", models::names(shuttle::NAMES).count(), "mix, short of memory"),
        ] {
            let list = parse(words).ok().and_then(|task| task.list()).expect(words);
            assert_eq!(list.lines().count(), lines, "{words}");
            assert!(list.lines().any(|text| text.starts_with(line)), "{words}");
        }
        assert!(parse("test").is_ok_and(|task| task.list().is_none()));
    }

    #[test]
    fn help_says_how_long_each_command_takes() {
        use clap::CommandFactory;
        for command in Cli::command().get_subcommands() {
            let help = command.get_long_about().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Takes "), "{}", command.get_name());
        }
    }

    #[test]
    fn json_may_stand_on_either_side_of_the_command() {
        for words in [["xtask", "--json", "bench"], ["xtask", "bench", "--json"]] {
            assert!(Cli::try_parse_from(words).is_ok_and(|cli| cli.json));
        }
    }
}
