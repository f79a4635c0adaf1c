//! The test programs of the library with its mutants: which tests reach which of them, and what these say.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::library::{Build, Library};
use crate::sites::Site;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Caught,
    ByTime,
    Survives,
}

/// Of one test program.
#[derive(Clone, Debug)]
struct Test {
    program: usize,
    name: String,
}

pub(crate) struct Tests {
    directory: PathBuf,
    programs: Vec<PathBuf>,
    tests: Vec<Test>,
}

/// The tests that reach a place, by the number of its first mutant; the quick ones first.
pub(crate) struct Reached {
    by_site: BTreeMap<u32, Vec<usize>>,
    times: Vec<Duration>,
}

/// The tests of a mutant run in groups, of which the first takes so long, and each of the others so many times as long.
const QUICK: Duration = Duration::from_secs(8);
const FIRST_GROUP: Duration = Duration::from_millis(60);
const GROWTH: u32 = 4;
/// A mutant that computes for ever is known by the processor time, so that a busy machine does not look like one; what only
/// waits, by the clock.
const PATIENCE: u32 = 6;
const LEAST_SECONDS: u64 = 3;
const LONGEST_WAIT: Duration = Duration::from_secs(90);
const GLANCE: Duration = Duration::from_millis(1);

impl Reached {
    /// How long the tests take, and the longest of them.
    pub(crate) fn summary(&self, tests: &Tests) -> String {
        let total: Duration = self.times.iter().sum();
        let mut order: Vec<_> = (0..self.times.len()).collect();
        order.sort_by_key(|test| Reverse(self.times[*test]));
        let longest: Vec<_> = order
            .iter()
            .take(20)
            .map(|test| format!("{} {:.1?}", tests.tests[*test].name, self.times[*test]))
            .collect();
        format!("{} places are reached; {total:.1?} altogether, {}", self.by_site.len(), longest.join(", "))
    }
}

impl Tests {
    pub(crate) fn build(build: &Build<'_>) -> Result<Self> {
        let messages = build.cargo(&["test", "--no-run", "--package", "pagepin", "--lib", "--test", "host"])?;
        for message in &messages {
            if message["reason"] == "compiler-message" && message["message"]["level"] == "error" {
                bail!("the tests do not build: {}", message["message"]["rendered"].as_str().unwrap_or_default());
            }
        }
        let programs: Vec<PathBuf> =
            messages.iter().filter_map(|message| message["executable"].as_str()).map(PathBuf::from).collect();
        let mut tests = Vec::new();
        ensure!(programs.len() == 2, "{} test programs", programs.len());
        for (program, path) in programs.iter().enumerate() {
            let list = Command::new(path).args(["--list", "--format", "terse"]).output().context("listing tests")?;
            let list = String::from_utf8(list.stdout).context("names of tests")?;
            let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
            tests.extend(names.map(|name| Test { program, name: name.to_owned() }));
        }
        ensure!(!tests.is_empty(), "no tests");
        Ok(Self { directory: build.tree.to_owned(), programs, tests })
    }

    pub(crate) fn count(&self) -> usize {
        self.tests.len()
    }

    fn command(&self, tests: &[usize]) -> Command {
        let mut command = Command::new(&self.programs[self.tests[tests[0]].program]);
        command.current_dir(&self.directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.args(["-Z", "unstable-options", "--fail-fast", "--test-threads", "1", "--exact"]);
        command.args(tests.iter().map(|test| &self.tests[*test].name));
        command.env("RUSTC_BOOTSTRAP", "1").env("PROPTEST_MAX_SHRINK_ITERS", "0");
        command.env_remove("PAGEPIN_MUTANT").env_remove("PAGEPIN_REACHED");
        command
    }

    /// Runs each test once without a mutant.
    pub(crate) fn reached(&self) -> Result<Reached> {
        let work = |test: usize| -> Result<(Vec<u32>, Duration)> {
            let list = self.directory.join(format!("target/reached-{test}"));
            let start = Instant::now();
            let mut command = self.command(&[test]);
            command.env("PAGEPIN_REACHED", &list);
            let status = command.status().context("a test program")?;
            let time = start.elapsed();
            ensure!(status.success(), "{} fails without a mutant", self.tests[test].name);
            let bytes = std::fs::read(&list).context("what is reached")?;
            std::fs::remove_file(&list).context("removing what was reached")?;
            let numbers = bytes.chunks_exact(4).map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]));
            Ok((numbers.collect(), time))
        };
        let done = in_parallel(self.tests.len(), work)?;
        let mut by_site: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        let times: Vec<Duration> = done.iter().map(|(_, time)| *time).collect();
        for (test, (sites, _)) in done.iter().enumerate() {
            sites.iter().for_each(|site| by_site.entry(*site).or_default().push(test));
        }
        by_site.values_mut().for_each(|tests| tests.sort_by_key(|test| times[*test]));
        Ok(Reached { by_site, times })
    }

    /// How each mutant ends that some test reaches, but for those that are known.
    pub(crate) fn judge(
        &self,
        library: &Library,
        reached: &Reached,
        known: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<u32, End>> {
        let left_out = &library.left_out;
        let numbers = |site: &Site| -> Vec<u32> {
            let unknown = (site.first..).zip(&site.mutants).filter(|(_, mutant)| !known.contains_key(&mutant.name));
            unknown.map(|(number, _)| number).collect()
        };
        let of_site = library.sites().filter(|site| !left_out.sites.contains(&site.first)).filter_map(|site| {
            let tests = reached.by_site.get(&site.first)?;
            Some(numbers(site).into_iter().map(move |number| (number, tests)))
        });
        let wanted: Vec<_> = of_site.flatten().filter(|(number, _)| !left_out.mutants.contains(number)).collect();
        println!("{} mutants are reached", wanted.len());
        // Most are caught by tests that take little time; only what these let pass meets the others.
        let mut ends = self.run(&wanted, |tests| &tests[..quick(tests, &reached.times)], &reached.times)?;
        let rest: Vec<_> = wanted.iter().filter(|(number, _)| ends[number] == End::Survives).cloned().collect();
        println!("{} are left", rest.len());
        ends.extend(self.run(&rest, |tests| &tests[quick(tests, &reached.times)..], &reached.times)?);
        Ok(ends)
    }

    fn run(
        &self,
        wanted: &[(u32, &Vec<usize>)],
        of: impl Fn(&[usize]) -> &[usize] + Sync,
        times: &[Duration],
    ) -> Result<BTreeMap<u32, End>> {
        let done = AtomicUsize::new(0);
        let ends = in_parallel(wanted.len(), |index| {
            let (number, tests) = wanted[index];
            let end = self.mutant(number, of(tests), times)?;
            println!("{} of {}: {number} {end:?}", done.fetch_add(1, Ordering::Relaxed) + 1, wanted.len());
            Ok(end)
        })?;
        Ok(wanted.iter().map(|(number, _)| *number).zip(ends).collect())
    }

    fn mutant(&self, number: u32, tests: &[usize], times: &[Duration]) -> Result<End> {
        let mut rest = tests.iter().copied().peekable();
        let mut budget = FIRST_GROUP;
        while rest.peek().is_some() {
            let mut groups = vec![Vec::new(); self.programs.len()];
            let mut expected = Duration::ZERO;
            while let Some(test) = rest.next_if(|_| expected < budget) {
                expected += times[test];
                groups[self.tests[test].program].push(test);
            }
            budget *= GROWTH;
            for group in groups.iter().filter(|group| !group.is_empty()) {
                let mut command = self.command(group);
                command.env("PAGEPIN_MUTANT", number.to_string());
                match run(&mut command, expected)? {
                    Some(status) if status.success() => {}
                    Some(status) if std::os::unix::process::ExitStatusExt::signal(&status) != Some(XCPU) => {
                        return Ok(End::Caught);
                    }
                    _ => return Ok(End::ByTime),
                }
            }
        }
        Ok(End::Survives)
    }
}

/// How many of the first of these take little time together.
fn quick(tests: &[usize], times: &[Duration]) -> usize {
    let mut sum = Duration::ZERO;
    let within = |test: &&usize| {
        sum += times[**test];
        sum < QUICK
    };
    tests.iter().take_while(within).count()
}

/// The signal of who has used up his processor time.
const XCPU: i32 = 24;

/// Nothing if it took too long.
fn run(command: &mut Command, expected: Duration) -> Result<Option<ExitStatus>> {
    let mut child = command.spawn().context("a test program")?;
    let seconds = (expected * PATIENCE).as_secs() + LEAST_SECONDS;
    let pid = Pid::from_child(&child);
    // It may be over already.
    let _ = prlimit(Some(pid), Resource::Cpu, Rlimit { current: Some(seconds), maximum: Some(seconds + 1) });
    let _ = prlimit(Some(pid), Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let end = Instant::now() + LONGEST_WAIT + expected * PATIENCE;
    loop {
        if let Some(status) = child.try_wait().context("waiting for a test program")? {
            return Ok(Some(status));
        }
        if Instant::now() > end {
            child.kill().context("ending a test program")?;
            child.wait().context("waiting for a test program")?;
            return Ok(None);
        }
        thread::sleep(GLANCE);
    }
}

/// The results of `work` for each number below `count`, in order.
fn in_parallel<T: Send>(count: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let worker = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return;
            }
            let result = work(index);
            results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((index, result));
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(worker);
        }
    });
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
