//! `cargo xtask mutants`: does some test fail for every small change of the library?
//!
//! `cargo-mutants` makes the changes; `.cargo/mutants.toml` says where, and which tests run. What survives must be among
//! the survivors that `docs/MUTANTS.md` gives reasons for. The score by file goes into that page.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::child;
use crate::page::{self, Page};
use crate::screen::{self, Show};
use crate::setup::{self, Tool};
use crate::steps::{Steps, Summary};

const TOOL: Tool = Tool { name: "cargo-mutants", version: "27.1.0", why: "it changes the library in small ways" };
const PAGE: &str = "docs/MUTANTS.md";
const HEADINGS: [&str; 6] = ["file", "mutants", "do not build", "caught", "of these by time", "survive"];
const TOTAL: &str = "**all**";

/// Tests that take most of the time, by parts of their names. They see what the others have let pass.
const SLOW: [&str; 3] = ["failures", "refusals", "walker_races"];
/// Of each random test, until then.
const FEW_CASES: &str = "40";

/// How the mutants of one file ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Score {
    unviable: u64,
    caught: u64,
    timeouts: u64,
    survivors: u64,
}

/// Runs the campaign over `places` (files and directories; none: all of the library). Every survivor has to be a reviewed
/// one, and every reviewed one has to survive.
pub(crate) fn run(project: &Path, places: &[String], jobs: Option<usize>) -> Steps {
    let mut steps = Steps::new(project, 4);
    let jobs = jobs.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let tool = steps.value("set-up", Show::Last, || Ok((Summary::default(), setup::tool(project, &TOOL)?)));
    let Some(program) = tool else { return steps };
    let campaign = Campaign { program, project, places, jobs };
    let quick = steps.value("quick-tests", Show::All, || {
        let outcomes = campaign.pass(&[], &SLOW, &[("PROPTEST_CASES", FEW_CASES)])?;
        Ok((Summary::note("details in target/mutants"), outcomes))
    });
    let Some(mut outcomes) = quick else { return steps };
    let slow = steps.run("all-tests", Show::All, || {
        if outcomes.survivors.is_empty() && outcomes.timeouts.is_empty() {
            return Ok(Summary::note("the quick tests let none pass"));
        }
        let second = campaign.pass(&["--iterate"], &[], &[])?;
        outcomes.caught.extend(second.caught);
        outcomes.unviable.extend(second.unviable);
        (outcomes.timeouts, outcomes.survivors) = (second.timeouts, second.survivors);
        Ok(Summary::note("what the quick tests let pass"))
    });
    if slow {
        steps.run("review", Show::All, || review(project, &outcomes));
    }
    steps
}

/// Writes the page, and compares what survives with what it says.
fn review(project: &Path, outcomes: &Outcomes) -> Result<Summary> {
    let page_file = project.join(PAGE);
    let page = Page::read(&page_file)?;
    let measured = outcomes.scores();
    let reviewed: Vec<String> =
        reviewed(&page.text).into_iter().filter(|mutant| measured.contains_key(file(mutant))).collect();
    let surprises = unmatched(&outcomes.survivors, &reviewed);
    let outdated = unmatched(&reviewed, &outcomes.survivors);
    let say = |what: &str, mutant: &String| screen::output(&format!("{what}: {mutant}"));
    surprises.iter().for_each(|mutant| say("survives, and nobody has said why it may", mutant));
    outdated.iter().for_each(|mutant| say(&format!("is caught, and {PAGE} says it survives"), mutant));
    let scores = merged(page.measured(), measured);
    let table = render(&scores);
    std::fs::write(&page_file, page.with(&table)?).with_context(|| format!("writing {PAGE}"))?;
    screen::output(&table);
    let note = format!("{} not reviewed, {} outdated", surprises.len(), outdated.len());
    let (passed, failed) = (outcomes.caught.len() as u64, (surprises.len() + outdated.len()) as u64);
    Ok(Summary { note, passed, failed })
}

struct Campaign<'a> {
    program: PathBuf,
    project: &'a Path,
    places: &'a [String],
    jobs: usize,
}

impl Campaign<'_> {
    /// One run of `cargo-mutants` with all tests but those that `skipped` names.
    fn pass(&self, arguments: &[&str], skipped: &[&str], environment: &[(&str, &str)]) -> Result<Outcomes> {
        let output = self.project.join("target/mutants");
        std::fs::create_dir_all(&output).with_context(|| format!("making {}", output.display()))?;
        let mut mutants = setup::selected(Command::new(&self.program), self.project);
        mutants.current_dir(self.project).args(["mutants", "--package", "pagepin", "--colors", "never"]);
        mutants.arg("--jobs").arg(self.jobs.to_string()).arg("--output").arg(&output).args(arguments);
        mutants.args(self.places.iter().flat_map(|place| ["--file".to_owned(), files(place)]));
        mutants.args(["--", "--lib", "--test", "host", "--"]);
        mutants.args(skipped.iter().flat_map(|test| ["--skip", test]));
        let status = child::watch(mutants.envs(environment.iter().copied()), |_, line| screen::output(line))?;
        // 2: some were missed, 3: some took too long. Both are judged by who asked.
        if !matches!(status.code(), Some(0 | 2 | 3)) {
            bail!("cargo-mutants: {status}");
        }
        let list = |name: &str| -> Result<Vec<String>> {
            let file = output.join("mutants.out").join(name);
            let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            Ok(text.lines().map(without_place).collect())
        };
        Ok(Outcomes {
            unviable: list("unviable.txt")?,
            caught: list("caught.txt")?,
            timeouts: list("timeout.txt")?,
            survivors: list("missed.txt")?,
        })
    }
}

struct Outcomes {
    unviable: Vec<String>,
    caught: Vec<String>,
    timeouts: Vec<String>,
    survivors: Vec<String>,
}

impl Outcomes {
    fn scores(&self) -> BTreeMap<String, Score> {
        let mut scores = BTreeMap::<String, Score>::new();
        let mut add = |mutants: &[String], count: fn(&mut Score)| {
            mutants.iter().for_each(|mutant| count(scores.entry(file(mutant).to_owned()).or_default()));
        };
        add(&self.unviable, |score| score.unviable += 1);
        add(&self.caught, |score| score.caught += 1);
        add(&self.timeouts, |score| {
            score.caught += 1;
            score.timeouts += 1;
        });
        add(&self.survivors, |score| score.survivors += 1);
        scores
    }
}

/// The pattern for the files of a place, as the module tree reaches them.
fn files(place: &str) -> String {
    let place = place.trim_end_matches('/');
    let detour = if place.starts_with("src") { "" } else { "src/../" };
    let all = if place.ends_with(".rs") { "" } else { "/*.rs" };
    format!("{detour}{place}{all}")
}

/// `src/../arch/x86_64/entry.rs:7:9: replace …` without line and column, which change with every edit above it.
fn without_place(mutant: &str) -> String {
    let (file, rest) = mutant.split_once(':').unwrap_or((mutant, ""));
    let what = rest.splitn(3, ':').nth(2).unwrap_or(rest);
    format!("{}:{what}", file.strip_prefix("src/../").unwrap_or(file))
}

/// The file that a mutant is in.
fn file(mutant: &str) -> &str {
    mutant.split(':').next().unwrap_or(mutant)
}

/// The mutants in the page's fences, each as often as it may survive.
fn reviewed(page: &str) -> Vec<String> {
    page.split("```text\n")
        .skip(1)
        .filter_map(|part| part.split("```").next())
        .flat_map(str::lines)
        .map(str::to_owned)
        .collect()
}

/// What `these` has and `those` has not, or has less often.
fn unmatched(these: &[String], those: &[String]) -> Vec<String> {
    let mut those = those.to_vec();
    let is_surplus = |mutant: &&String| match those.iter().position(|other| other == *mutant) {
        Some(found) => {
            those.swap_remove(found);
            false
        }
        None => true,
    };
    these.iter().filter(is_surplus).cloned().collect()
}

/// `measured`, and for the other files what the page has from an earlier run.
fn merged(table: &str, measured: BTreeMap<String, Score>) -> BTreeMap<String, Score> {
    let row = |cells: Vec<&str>| {
        let number = |column: usize| cells.get(column)?.parse().ok();
        let score = Score { unviable: number(2)?, caught: number(3)?, timeouts: number(4)?, survivors: number(5)? };
        Some(((*cells.first()?).to_owned(), score))
    };
    let mut scores: BTreeMap<_, _> = page::rows(table).into_iter().filter_map(row).collect();
    scores.remove(TOTAL);
    scores.extend(measured);
    scores
}

fn render(scores: &BTreeMap<String, Score>) -> String {
    let row = |name: &str, score: Score| {
        let Score { unviable, caught, timeouts, survivors } = score;
        let numbers = [unviable + caught + survivors, unviable, caught, timeouts, survivors];
        [name.to_owned()].into_iter().chain(numbers.map(|number| number.to_string())).collect()
    };
    let total = scores.values().fold(Score::default(), |sum, score| Score {
        unviable: sum.unviable + score.unviable,
        caught: sum.caught + score.caught,
        timeouts: sum.timeouts + score.timeouts,
        survivors: sum.survivors + score.survivors,
    });
    let rows = scores.iter().map(|(name, score)| row(name, *score)).chain([row(TOTAL, total)]);
    let share = 100.0 * total.caught as f64 / (total.caught + total.survivors).max(1) as f64;
    format!("{}\nOf those that build, {share:.1} % are caught.\n", page::table(&HEADINGS, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn a_mutant_is_known_by_its_file_and_what_it_changes() {
        let mutant = without_place("src/frame/mod.rs:128:59: replace | with ^ in PageFrame<L>::hand_out");
        assert_eq!(mutant, "src/frame/mod.rs: replace | with ^ in PageFrame<L>::hand_out");
        assert_eq!(file(&mutant), "src/frame/mod.rs");
        let mutant = without_place("src/../arch/x86_64/entry.rs:7:9: replace Entry::bits -> u64 with 0");
        assert_eq!(mutant, "arch/x86_64/entry.rs: replace Entry::bits -> u64 with 0");
        assert_eq!(file(&mutant), "arch/x86_64/entry.rs");
    }

    #[test]
    fn places_are_found_where_the_module_tree_has_them() {
        assert_eq!(files("src/frame/"), "src/frame/*.rs");
        assert_eq!(files("src/mm.rs"), "src/mm.rs");
        assert_eq!(files("arch/x86_64/entry.rs"), "src/../arch/x86_64/entry.rs");
    }

    #[test]
    fn a_reviewed_mutant_may_survive_as_often_as_it_is_listed() {
        let page = "text\n```text\na: x\na: x\n```\nmore\n```text\nb: y\n```\n";
        let reviewed = reviewed(page);
        assert_eq!(reviewed, strings(&["a: x", "a: x", "b: y"]));
        assert_eq!(unmatched(&strings(&["a: x", "a: x", "a: x"]), &reviewed), strings(&["a: x"]));
        assert_eq!(unmatched(&reviewed, &strings(&["a: x", "b: y"])), strings(&["a: x"]));
    }

    #[test]
    fn files_that_were_not_run_keep_their_score() {
        let old = Score { unviable: 1, caught: 5, timeouts: 2, survivors: 3 };
        let new = Score { caught: 7, ..Score::default() };
        let table = render(&[("src/a".to_owned(), old), ("src/b".to_owned(), old)].into());
        let scores = merged(&table, [("src/b".to_owned(), new)].into());
        assert_eq!(scores, [("src/a".to_owned(), old), ("src/b".to_owned(), new)].into());
        assert!(render(&scores).contains("| **all** | 16 | 1 | 12 | 2 | 3 |"));
        assert!(render(&scores).ends_with("Of those that build, 80.0 % are caught.\n"));
    }
}
