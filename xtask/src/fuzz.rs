//! `cargo xtask fuzz`: libFuzzer makes up operations for the oracle of the host tests.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::child::{self, succeed};
use crate::corpus;
use crate::nightly::{self, TARGET};
use crate::screen::{self, Show};
use crate::steps::{Steps, Summary};

/// Longest input: one byte for the machine and as many operations as a script has (`tests/oracle`).
pub(crate) const MAX_LENGTH: u64 = 1 + 9 * 100;
/// The scripts that are kept, packed.
pub(crate) const CORPUS: &str = "fuzz/corpus.tar.gz";
/// The same as files, what was found besides since the target directory is there, and what is to be kept of both.
const SEEDS: &str = "target/fuzz/seeds";
const FOUND: &str = "target/fuzz/corpus";
const KEPT: &str = "target/fuzz/kept";
/// Between two lines of progress.
const INTERVAL: Duration = Duration::from_secs(5);

/// What libFuzzer has told so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    executions: u64,
    edges: u64,
    features: u64,
}

pub(crate) fn run(project: &Path, seconds: u64, keep: bool) -> Steps {
    let mut steps = Steps::new(project, if keep { 3 } else { 2 });
    let set_up = || {
        nightly::ensure(project)?;
        let program = nightly::cargo_fuzz(project)?;
        let scripts = corpus::unpack(&project.join(CORPUS), &project.join(SEEDS))?;
        Ok((Summary::note(format!("{scripts} scripts of {CORPUS}")), program))
    };
    let Some(program) = steps.value("set-up", Show::Last, set_up) else { return steps };
    // A script that fails is a regression, and none to keep here.
    if steps.run("fuzz", Show::All, || fuzz(project, &program, seconds)) && keep {
        steps.run("keep", Show::Last, || kept(project, &program));
    }
    steps
}

/// Packs the fewest scripts that reach what all of them do.
fn kept(project: &Path, program: &Path) -> Result<Summary> {
    let kept = project.join(KEPT);
    let _ = std::fs::remove_dir_all(&kept);
    let mut command = target(project, program, &[KEPT, SEEDS, FOUND])?;
    command.arg("-merge=1").arg(format!("-max_len={MAX_LENGTH}"));
    succeed(&command)?;
    let scripts = corpus::pack(&kept, &project.join(CORPUS))?;
    Ok(Summary::note(format!("{scripts} scripts in {CORPUS}")))
}

fn fuzz(project: &Path, program: &Path, seconds: u64) -> Result<Summary> {
    let mut command = target(project, program, &[FOUND, SEEDS, "tests/oracle/regressions"])?;
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={MAX_LENGTH}"));
    command.args(["-print_final_stats=1", "-timeout=60", "-len_control=0"]);
    let (mut progress, mut shown) = (Progress::default(), Instant::now());
    let status = child::watch(&command, |_, line| {
        if !progress.read(line) {
            return screen::output(line);
        }
        screen::log(line);
        screen::progress(progress.executions, None, "executions");
        if shown.elapsed() >= INTERVAL {
            shown = Instant::now();
            screen::show(&progress.to_string());
        }
    })?;
    if !status.success() {
        bail!(
            "{progress}\nOnce it is mended, keep the input as tests/oracle/regressions/<name>.script: the host tests run \
             those."
        );
    }
    Ok(Summary { note: progress.to_string(), passed: 1, failed: 0 })
}

/// The fuzzer over these directories, the first of which it writes; its own options follow.
fn target(project: &Path, program: &Path, directories: &[&str]) -> Result<Command> {
    for directory in directories {
        let directory = project.join(directory);
        std::fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    }
    let mut command = nightly::run(project, program);
    // The machine of the tests checks memory itself; an address sanitizer would only make it slower.
    command.args(["run", "operations", "--sanitizer", "none", "--release", "--target", TARGET]);
    command.args(["--target-dir", "target/fuzz"]).args(directories).arg("--");
    Ok(command)
}

impl Progress {
    /// Takes in one line; false if it is not one of progress.
    fn read(&mut self, line: &str) -> bool {
        if let Some(total) = line.strip_prefix("stat::number_of_executed_units:") {
            self.executions = total.trim().parse().unwrap_or(self.executions);
            return true;
        }
        // Neither addresses of functions nor the dictionary it recommends are of use to a person.
        if ["stat::", "\tNEW_FUNC", "######", "\""].iter().any(|start| line.starts_with(start)) {
            return true;
        }
        let Some(rest) = line.strip_prefix('#') else { return false };
        let mut words = rest.split_whitespace();
        let Some(Ok(executions)) = words.next().map(str::parse) else { return false };
        self.executions = executions;
        while let Some(word) = words.next() {
            let place = match word {
                "cov:" => &mut self.edges,
                "ft:" => &mut self.features,
                _ => continue,
            };
            *place = words.next().and_then(|number| number.parse().ok()).unwrap_or(*place);
        }
        true
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} executions, {} edges, {} features covered", self.executions, self.edges, self.features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_libfuzzer_are_read() {
        let mut progress = Progress::default();
        assert!(progress.read("#2048\tpulse  cov: 1205 ft: 6170 corp: 164/31Kb lim: 901 exec/s: 682 rss: 48Mb"));
        assert_eq!(progress, Progress { executions: 2048, edges: 1205, features: 6170 });
        assert!(progress.read("#3000\tDONE"));
        assert!(progress.read("stat::number_of_executed_units: 3001"));
        assert!(progress.read("stat::average_exec_per_sec:     300"));
        assert_eq!(progress, Progress { executions: 3001, edges: 1205, features: 6170 });
        assert!(!progress.read("thread '<unnamed>' panicked at src/lib.rs:1:1:"));
        assert!(!progress.read("# a heading"));
    }
}
