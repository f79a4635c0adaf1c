//! `cargo xtask mutants`: does some test fail for every small change of the library?
//!
//! `cargo-mutants` makes the changes; `.cargo/mutants.toml` says how they are built. What survives must be among
//! the survivors that `docs/MUTANTS.md` gives reasons for.
//!
//! File by file, and after each its [score](scores) goes into that page, with what names the state that was tested. So a
//! campaign can be stopped at any time and taken up again: files that are as they were tested are left out.

mod scores;
mod tree;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::scores::{Score, Scores, Tested};
use self::tree::Tree;
use crate::child;
use crate::childenv;
use crate::host_tests::ONE_LAYOUT;
use crate::page::Page;
use crate::screen::{self, Show};
use crate::setup::{self, Tool};
use crate::steps::{Steps, Summary};

const TOOL: Tool = Tool { name: "cargo-mutants", version: "27.1.0", why: "it changes the library in small ways" };
const PAGE: &str = "docs/MUTANTS.md";

/// The first failure decides. The test programs take this option from a nightly toolchain only, or with the variable.
const FAIL_FAST: [&str; 3] = ["-Z", "unstable-options", "--fail-fast"];
const NIGHTLY_OPTIONS: (&str, &str) = ("RUSTC_BOOTSTRAP", "1");

/// What is asked of a mutant.
struct Tests {
    /// Parts of the names of tests that are left out.
    skipped: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
}

/// What takes little time to build and to run: one layout of the frame word instead of four, and few random cases.
const QUICK: Tests = Tests {
    skipped: &["failures", "refusals", "walker_races", "steps::"],
    environment: &[("PROPTEST_CASES", "40"), ONE_LAYOUT],
};
/// They see what the others have let pass.
const ALL: Tests = Tests { skipped: &[], environment: &[] };

/// A mutant that waits for ever is found out by its time; a busy machine must not look like one.
const PATIENCE: u32 = 5;
const SHORTEST_LIMIT: Duration = Duration::from_secs(60);

/// What a campaign is over.
#[derive(Debug, clap::Args)]
pub(crate) struct Wanted {
    /// Files and directories of the library, such as src/frame; none: all
    places: Vec<String>,
    /// Also files that are as they were when they were tested last
    #[arg(long)]
    again: bool,
    /// Begin with no further file after so many minutes
    #[arg(long)]
    minutes: Option<u64>,
}

/// Every survivor has to be a reviewed one, and every reviewed one has to survive.
pub(crate) fn run(project: &Path, wanted: &Wanted) -> Steps {
    let mut steps = Steps::new(project, 3);
    let set_up = || {
        let program = setup::tool(project, &TOOL)?;
        let files = files(project, wanted)?;
        let note = format!("{} files to test", files.len());
        Ok((Summary::note(note), (Campaign { program, project, tree: Tree::copy(project)? }, files)))
    };
    let Some((campaign, files)) = steps.value("set-up", Show::Last, set_up) else { return steps };
    let unchanged = || Ok((Summary::note("the quick tests pass without a mutant"), campaign.without_mutants(&QUICK)?));
    let Some(quick) = steps.value("unchanged", Show::Last, unchanged) else { return steps };
    steps.run("mutants", Show::All, || campaign.all(&files, wanted.minutes, quick));
    steps
}

/// The files to test: first what never was.
fn files(project: &Path, wanted: &Wanted) -> Result<Vec<String>> {
    let scores = Scores::of(&Page::read(&project.join(PAGE))?);
    let in_place = |file: &&String| {
        wanted.places.is_empty() || wanted.places.iter().any(|place| tree::is_in(file, place.trim_end_matches('/')))
    };
    let library = tree::library(project)?;
    let mut files = Vec::new();
    for file in library.iter().filter(in_place) {
        let current = tree::id(project, file)?;
        match scores.tested(file) {
            Some(tested) if tested.is_of(&current) && !wanted.again => {}
            tested => files.push((tested.is_some(), file.clone())),
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, file)| file).collect())
}

struct Campaign<'a> {
    program: PathBuf,
    project: &'a Path,
    tree: Tree,
}

impl Campaign<'_> {
    /// Runs the tests as they are: how long a mutant may take, which is built already or nearly so.
    fn without_mutants(&self, tests: &Tests) -> Result<Duration> {
        let cargo = |run: bool| {
            let mut cargo = self.command(childenv::host_cargo(self.project).get_program(), tests);
            cargo.args(["test", "--quiet", "--package", "pagepin", "--features", "alloc", "--profile", "mutants"]);
            cargo.args(["--lib", "--test", "host"]);
            if run {
                cargo.arg("--").args(arguments(tests))
            } else {
                cargo.arg("--no-run")
            };
            child::succeed(&cargo)
        };
        cargo(false)?;
        let start = Instant::now();
        cargo(true).context("a test fails without any mutant")?;
        Ok((start.elapsed() * PATIENCE).max(SHORTEST_LIMIT))
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>, tests: &Tests) -> Command {
        let mut command = setup::selected(Command::new(program), self.project);
        command.current_dir(self.tree.root()).envs(tests.environment.iter().copied()).envs([NIGHTLY_OPTIONS]);
        command
    }

    fn all(&self, files: &[String], minutes: Option<u64>, quick: Duration) -> Result<Summary> {
        let end = minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
        let mut limits = (quick, None);
        let (mut tested, mut caught, mut surprises) = (0, 0, 0);
        for file in files {
            if end.is_some_and(|end| Instant::now() > end) {
                break;
            }
            screen::say(format!("{file} ({} of {})", tested + 1, files.len()));
            // As it is now: somebody may have worked on it since the campaign began.
            self.tree.refresh()?;
            let id = tree::id(self.tree.root(), file)?;
            let outcomes = self.file(file, &mut limits)?;
            caught += outcomes.caught.len() + outcomes.timeouts.len();
            surprises += self.write(file, &outcomes, Tested::today(&id))?;
            tested += 1;
        }
        let note = format!("{tested} of {} files, {surprises} surprises", files.len());
        Ok(Summary { note, passed: caught as u64, failed: surprises as u64 })
    }

    /// All mutants of one file: the quick tests, and what they let pass once more with all. How long those may take is measured when
    /// they are needed first.
    fn file(&self, file: &str, (quick, all): &mut (Duration, Option<Duration>)) -> Result<Outcomes> {
        let mut outcomes = self.pass(file, &[], &QUICK, *quick)?;
        if !outcomes.survivors.is_empty() {
            self.tree.refresh()?;
            let all = match all {
                Some(limit) => *limit,
                None => *all.insert(self.without_mutants(&ALL)?),
            };
            let second = self.pass(file, &std::mem::take(&mut outcomes.survivors), &ALL, all)?;
            outcomes.caught.extend(second.caught);
            outcomes.unviable.extend(second.unviable);
            outcomes.timeouts.extend(second.timeouts);
            outcomes.survivors = second.survivors;
        }
        Ok(outcomes)
    }

    /// One run of `cargo-mutants`, over those of a file's mutants that are named; none: all.
    fn pass(&self, file: &str, named: &[String], tests: &Tests, limit: Duration) -> Result<Outcomes> {
        let output = self.project.join("target/mutants");
        let mut mutants = self.command(&self.program, tests);
        mutants.args(["mutants", "--in-place", "--package", "pagepin", "--colors", "never", "--baseline", "skip"]);
        mutants.arg("--timeout").arg(limit.as_secs().to_string()).arg("--output").arg(&output);
        mutants.args(["--file".to_owned(), as_the_module_tree_has_it(file)]);
        mutants.args(named.iter().flat_map(|name| ["--re".to_owned(), exactly(name)]));
        mutants.args(["--", "--lib", "--test", "host", "--"]).args(arguments(tests));
        let status = child::watch(&mutants, |_, line| screen::output(line))?;
        // 2: some were missed, 3: some took too long. Both are judged by who asked.
        if !matches!(status.code(), Some(0 | 2 | 3)) {
            bail!("cargo-mutants: {status}");
        }
        let list = |name: &str| -> Result<Vec<String>> {
            let file = output.join("mutants.out").join(name);
            let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            Ok(text.lines().map(str::to_owned).collect())
        };
        Ok(Outcomes {
            unviable: list("unviable.txt")?,
            caught: list("caught.txt")?,
            timeouts: list("timeout.txt")?,
            survivors: list("missed.txt")?,
        })
    }

    /// Writes the page; how many survivors differ from what it says.
    fn write(&self, file: &str, outcomes: &Outcomes, tested: Tested) -> Result<usize> {
        let page_file = self.project.join(PAGE);
        let page = Page::read(&page_file)?;
        let survivors: Vec<String> = outcomes.survivors.iter().map(|mutant| without_place(mutant)).collect();
        let prefix = format!("{file}: ");
        let reviewed: Vec<String> =
            scores::reviewed(&page.text).into_iter().filter(|mutant| mutant.starts_with(&prefix)).collect();
        let surprises = scores::unmatched(&survivors, &reviewed);
        let outdated = scores::unmatched(&reviewed, &survivors);
        surprises.iter().for_each(|mutant| screen::say(format!("survives, and nobody has said why it may: {mutant}")));
        outdated.iter().for_each(|mutant| screen::say(format!("is caught, and {PAGE} says it survives: {mutant}")));
        let mut scores = Scores::of(&page);
        scores.set(file, outcomes.score(), tested);
        let table = scores.render(&tree::library(self.project)?);
        std::fs::write(&page_file, page.with(&table)?).with_context(|| format!("writing {PAGE}"))?;
        Ok(surprises.len() + outdated.len())
    }
}

/// Names as `cargo-mutants` gives them.
#[derive(Debug, Default)]
struct Outcomes {
    unviable: Vec<String>,
    caught: Vec<String>,
    timeouts: Vec<String>,
    survivors: Vec<String>,
}

impl Outcomes {
    fn score(&self) -> Score {
        let count = |names: &[String]| names.len() as u64;
        Score {
            unviable: count(&self.unviable),
            caught: count(&self.caught) + count(&self.timeouts),
            timeouts: count(&self.timeouts),
            survivors: count(&self.survivors),
        }
    }
}

/// What the test programs are told.
fn arguments(tests: &Tests) -> impl Iterator<Item = &'static str> {
    FAIL_FAST.into_iter().chain(tests.skipped.iter().flat_map(|test| ["--skip", *test]))
}

/// `cargo-mutants` follows the module tree, which reaches `arch` by a detour.
fn as_the_module_tree_has_it(file: &str) -> String {
    if file.starts_with("src") { file.to_owned() } else { format!("src/../{file}") }
}

/// A pattern for this name and no other.
fn exactly(name: &str) -> String {
    let escaped =
        |c: char| if c.is_alphanumeric() || c == ' ' { c.to_string() } else { format!("\\x{{{:x}}}", c as u32) };
    format!("^{}$", name.chars().map(escaped).collect::<String>())
}

/// `src/../arch/x86_64/entry.rs:7:9: replace …` without line and column, which change with every edit above it.
fn without_place(mutant: &str) -> String {
    let (file, rest) = mutant.split_once(':').unwrap_or((mutant, ""));
    let what = rest.splitn(3, ':').nth(2).unwrap_or(rest);
    format!("{}:{what}", file.strip_prefix("src/../").unwrap_or(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutant_is_known_by_its_file_and_what_it_changes() {
        let mutant = without_place("src/frame/mod.rs:128:59: replace | with ^ in PageFrame<L>::hand_out");
        assert_eq!(mutant, "src/frame/mod.rs: replace | with ^ in PageFrame<L>::hand_out");
        let mutant = without_place("src/../arch/x86_64/entry.rs:7:9: replace Entry::bits -> u64 with 0");
        assert_eq!(mutant, "arch/x86_64/entry.rs: replace Entry::bits -> u64 with 0");
    }

    #[test]
    fn files_are_found_where_the_module_tree_has_them() {
        assert_eq!(as_the_module_tree_has_it("src/vma.rs"), "src/vma.rs");
        assert_eq!(as_the_module_tree_has_it("arch/x86_64/entry.rs"), "src/../arch/x86_64/entry.rs");
    }

    #[test]
    fn a_pattern_is_for_one_name() {
        assert_eq!(exactly("a.rs:1: x -> (y)"), r"^a\x{2e}rs\x{3a}1\x{3a} x \x{2d}\x{3e} \x{28}y\x{29}$");
    }
}
