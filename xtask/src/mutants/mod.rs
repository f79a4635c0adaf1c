//! `cargo xtask mutants`: does some test fail for every small change of the library?
//!
//! `cargo-mutants` says which changes there are. `pagepin-mutants` (`tests/mutants`) puts all of them into one program and
//! switches on one at a time; what can be told by a build of its own only, `cargo-mutants` builds. What survives must be among the
//! survivors that `docs/MUTANTS.md` gives reasons for.
//!
//! The [score](scores) of each file goes into that page, with what names the state that was tested: files that are as they were
//! tested are left out.

mod scores;
mod tree;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

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

/// How the tests are built that a mutant has to pass.
const CHOICE: [&str; 4] = ["--features", "alloc", "--profile", "switched"];
const RANDOM_CASES: (&str, &str) = ("PROPTEST_CASES", "40");
/// The first failure decides. The test programs take this option from a nightly toolchain only, or with the variable.
const FAIL_FAST: [&str; 3] = ["-Z", "unstable-options", "--fail-fast"];
const NIGHTLY_OPTIONS: (&str, &str) = ("RUSTC_BOOTSTRAP", "1");
/// A mutant that waits for ever is found out by its time; a busy machine must not look like one.
const LONGEST: &str = "600";

/// What a campaign is over.
#[derive(Debug, clap::Args)]
pub(crate) struct Wanted {
    /// Files and directories of the library, such as src/frame; none: all
    places: Vec<String>,
    /// Also files that are as they were when they were tested last
    #[arg(long)]
    again: bool,
}

/// Every survivor has to be a reviewed one, and every reviewed one has to survive.
pub(crate) fn run(project: &Path, wanted: &Wanted) -> Steps {
    let mut steps = Steps::new(project, 4);
    let set_up = || {
        let program = setup::tool(project, &TOOL)?;
        let files = files(project, wanted)?;
        let note = format!("{} files to test", files.len());
        Ok((Summary::note(note), Campaign { program, project, files, tree: Tree::whole(project)? }))
    };
    let Some(campaign) = steps.value("set-up", Show::Last, set_up) else { return steps };
    let Some(mut ends) = steps.value("switched", Show::Last, || campaign.switched()) else { return steps };
    steps.run("apart", Show::Last, || campaign.apart(&mut ends));
    steps.run("survivors", Show::All, || campaign.write(&ends));
    steps
}

/// The files to test.
fn files(project: &Path, wanted: &Wanted) -> Result<Vec<String>> {
    let scores = Scores::of(&Page::read(&project.join(PAGE))?);
    let in_place = |file: &&String| {
        wanted.places.is_empty() || wanted.places.iter().any(|place| tree::is_in(file, place.trim_end_matches('/')))
    };
    let library = tree::library(project)?;
    let mut files = Vec::new();
    for file in library.iter().filter(in_place) {
        let current = tree::id(project, file)?;
        if wanted.again || !scores.tested(file).is_some_and(|tested| tested.is_of(&current)) {
            files.push(file.clone());
        }
    }
    Ok(files)
}

struct Campaign<'a> {
    program: PathBuf,
    project: &'a Path,
    files: Vec<String>,
    tree: Tree,
}

/// How a mutant ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Caught,
    ByTime,
    Survives,
    DoesNotBuild,
    /// It takes a build of its own to know.
    Apart,
}

/// Each mutant, as `cargo-mutants` names it.
type Ends = Vec<(String, End)>;

impl Campaign<'_> {
    /// All mutants of the files in one program, of which one at a time is switched on.
    fn switched(&self) -> Result<(Summary, Ends)> {
        if self.files.is_empty() {
            return Ok((Summary::note("nothing to test"), Ends::new()));
        }
        let folder = self.project.join("target/mutants");
        let switched = Tree::without_library(self.project)?;
        let (list, result) = (folder.join("list.json"), folder.join("switched.json"));
        let mut listed = self.command(&self.program);
        listed.args(["mutants", "--list", "--json", "--package", "pagepin", "--colors", "never"]);
        listed.args(self.files.iter().flat_map(|file| ["--file".to_owned(), as_the_module_tree_has_it(file)]));
        let output = child::output(&listed)?;
        child::successful(&listed, output.status)?;
        std::fs::write(&list, output.stdout).context("writing the list of mutants")?;
        let mut program = childenv::host_cargo(self.project);
        program.args(["run", "--quiet", "--package", "pagepin-mutants", "--"]);
        program.args([self.tree.root(), switched.root(), &list, &result]).arg(ONE_LAYOUT.1).args(CHOICE);
        child::succeed(program.envs([RANDOM_CASES]))?;
        let text = std::fs::read(&result).context("reading how the mutants ended")?;
        let ends = ends(&serde_json::from_slice(&text).context("how the mutants ended")?)?;
        let count = |wanted| ends.iter().filter(|(_, end)| *end == wanted).count();
        let note = format!("{} of {} wait for a build of their own", count(End::Apart), ends.len());
        Ok((Summary { note, passed: (count(End::Caught) + count(End::ByTime)) as u64, failed: 0 }, ends))
    }

    /// The others by `cargo-mutants`, which builds each.
    fn apart(&self, ends: &mut Ends) -> Result<Summary> {
        // The sources as they are.
        self.tree.refresh()?;
        let mut done = 0;
        for file in &self.files {
            let of_file = |(name, end): &&(String, End)| *end == End::Apart && is_of(name, file);
            let named: Vec<String> = ends.iter().filter(of_file).map(|(name, _)| name.clone()).collect();
            if named.is_empty() {
                continue;
            }
            screen::say(format!("{file}: {}", named.len()));
            done += named.len();
            let outcomes = self.pass(file, &named)?;
            for (name, end) in ends.iter_mut().filter(|(name, _)| named.contains(name)) {
                let found = outcomes.iter().find(|(outcome, _)| outcome == name);
                *end = found.with_context(|| format!("nothing is said about {name}"))?.1;
            }
        }
        Ok(Summary::note(format!("{done} with a build of their own")))
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = setup::selected(Command::new(program), self.project);
        command.current_dir(self.tree.root()).envs([ONE_LAYOUT, RANDOM_CASES, NIGHTLY_OPTIONS]);
        command
    }

    /// One run of `cargo-mutants`, over those of a file's mutants that are named.
    fn pass(&self, file: &str, named: &[String]) -> Result<Ends> {
        let output = self.project.join("target/mutants");
        let mut mutants = self.command(&self.program);
        mutants.args(["mutants", "--in-place", "--package", "pagepin", "--colors", "never", "--baseline", "skip"]);
        mutants.args(["--timeout", LONGEST, "--output"]).arg(&output);
        mutants.args(["--file".to_owned(), as_the_module_tree_has_it(file)]);
        mutants.args(named.iter().flat_map(|name| ["--re".to_owned(), exactly(name)]));
        mutants.args(["--", "--lib", "--test", "host", "--"]).args(FAIL_FAST);
        let status = child::watch(&mutants, |_, line| screen::output(line))?;
        // 2: some were missed, 3: some took too long. Both are judged by who asked.
        if !matches!(status.code(), Some(0 | 2 | 3)) {
            bail!("cargo-mutants: {status}");
        }
        let mut ends = Ends::new();
        for (list, end) in [
            ("unviable.txt", End::DoesNotBuild),
            ("caught.txt", End::Caught),
            ("timeout.txt", End::ByTime),
            ("missed.txt", End::Survives),
        ] {
            let list = output.join("mutants.out").join(list);
            let text = std::fs::read_to_string(&list).with_context(|| format!("reading {}", list.display()))?;
            ends.extend(text.lines().map(|name| (name.to_owned(), end)));
        }
        Ok(ends)
    }

    /// Writes the page; survivors that differ from what it says are failures.
    fn write(&self, ends: &Ends) -> Result<Summary> {
        let page_file = self.project.join(PAGE);
        let page = Page::read(&page_file)?;
        let tested = |name: &&String| self.files.iter().any(|file| is_of(name, file));
        let survivors = ends.iter().filter(|(_, end)| *end == End::Survives).map(|(name, _)| without_place(name));
        let survivors: Vec<String> = survivors.collect();
        let reviewed: Vec<String> = scores::reviewed(&page.text).iter().filter(tested).cloned().collect();
        let surprises = scores::unmatched(&survivors, &reviewed);
        let outdated = scores::unmatched(&reviewed, &survivors);
        surprises.iter().for_each(|mutant| screen::say(format!("survives, and nobody has said why it may: {mutant}")));
        outdated.iter().for_each(|mutant| screen::say(format!("is caught, and {PAGE} says it survives: {mutant}")));
        let mut scores = Scores::of(&page);
        for file in &self.files {
            // Somebody may have worked on it meanwhile: it is the copy that was tested.
            let tested = Tested::today(&tree::id(self.tree.root(), file)?);
            scores.set(file, score(ends.iter().filter(|(name, _)| is_of(name, file))), tested);
        }
        let others = scores::unreviewed(&page.text).into_iter().filter(|mutant| !tested(&mutant));
        let unreviewed: Vec<String> = others.chain(surprises.iter().cloned()).collect();
        let beyond = scores::beyond(&page.text).len() as u64;
        let table = scores.render(&tree::library(self.project)?, beyond, &unreviewed);
        std::fs::write(&page_file, page.with(&table)?).with_context(|| format!("writing {PAGE}"))?;
        let surprises = surprises.len() + outdated.len();
        let note = format!("{} survive, {surprises} surprises", survivors.len());
        Ok(Summary { note, passed: 0, failed: surprises as u64 })
    }
}

/// What `pagepin-mutants` says of each.
fn ends(result: &Value) -> Result<Ends> {
    let of_one = |mutant: &Value| {
        // What is computed when the tests are compiled was computed without the mutant.
        let constant = mutant["constant"] == true;
        let end = match mutant["end"].as_str()? {
            "caught" => End::Caught,
            "time" => End::ByTime,
            "unviable" => End::DoesNotBuild,
            "survives" | "unreached" if !constant => End::Survives,
            "survives" | "unreached" | "apart" => End::Apart,
            _ => return None,
        };
        Some((mutant["name"].as_str()?.to_owned(), end))
    };
    let list = result["mutants"].as_array().context("no list")?;
    list.iter().map(|mutant| of_one(mutant).with_context(|| format!("{mutant}"))).collect()
}

fn score<'a>(ends: impl Iterator<Item = &'a (String, End)>) -> Score {
    ends.fold(Score::default(), |mut score, (_, end)| {
        score.unviable += u64::from(*end == End::DoesNotBuild);
        score.caught += u64::from(matches!(end, End::Caught | End::ByTime));
        score.timeouts += u64::from(*end == End::ByTime);
        score.survivors += u64::from(matches!(end, End::Survives | End::Apart));
        score
    })
}

/// Whether a mutant, with its place or without, is one of this file.
fn is_of(name: &str, file: &str) -> bool {
    name.strip_prefix("src/../").unwrap_or(name).strip_prefix(file).is_some_and(|rest| rest.starts_with(':'))
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
