//! `cargo xtask tsan`: the stress test of `tests/threads` under ThreadSanitizer, and twins that it must report.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::child;
use crate::nightly::{self, TARGET};
use crate::screen::{self, Show};
use crate::steps::{Steps, Summary};

/// Tests that must pass; they share the time.
const TESTS: [&str; 3] =
    ["threads_agree_with_wide_words", "threads_agree_with_split_words", "holders_of_one_page_copy_at_once"];
/// Tests in which a part of the kernel is wrong; a report within [`TWIN_SECONDS`] is wanted.
const TWINS: [&str; 3] = ["twin_without_a_grace_period", "twin_with_relaxed_entries", "twin_with_volatile_copies"];
const TWIN_SECONDS: u64 = 30;
/// How ThreadSanitizer's reports begin.
const REPORT: &str = "WARNING: ThreadSanitizer: data race";

/// Nothing may be reported but the twins.
pub(crate) fn run(project: &Path, seconds: u64) -> Steps {
    let mut steps = Steps::new(project, 1 + TESTS.len() + TWINS.len());
    if !steps.run("set-up", Show::Last, || nightly::ensure(project).map(|()| Summary::default())) {
        return steps;
    }
    let each = (seconds / TESTS.len() as u64).max(1);
    for test in TESTS {
        steps.run(test, Show::Last, || match run_test(project, test, each)? {
            Outcome { passed: true, reported: false } => Ok(Summary { passed: 1, ..Summary::note("nothing reported") }),
            Outcome { reported: true, .. } => bail!("a data race"),
            Outcome { passed: false, .. } => bail!("the test program failed"),
        });
    }
    for twin in TWINS {
        steps.run(twin, Show::Last, || match run_test(project, twin, TWIN_SECONDS)?.reported {
            true => Ok(Summary { passed: 1, ..Summary::note("reported, as it must be") }),
            false => bail!("not reported within {TWIN_SECONDS} s"),
        });
    }
    steps
}

struct Outcome {
    /// The test program ended well.
    passed: bool,
    /// ThreadSanitizer has found a data race.
    reported: bool,
}

fn run_test(project: &Path, test: &str, seconds: u64) -> Result<Outcome> {
    let mut reported = false;
    let status = child::watch(&test_command(project, test, seconds), |_, line| {
        reported |= line.contains(REPORT);
        screen::output(line);
    })?;
    Ok(Outcome { passed: status.success(), reported })
}

fn test_command(project: &Path, test: &str, seconds: u64) -> Command {
    let mut cargo = nightly::run(project, "cargo");
    cargo.args(["test", "--test", "threads", "--features", "alloc", "--target", TARGET]);
    cargo.args(["--target-dir", "target/tsan", "--", test]);
    cargo.env("RUSTFLAGS", "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer --cfg pagepin_portable_copy");
    // Checked as in a debug build, but fast enough to race.
    cargo.env("CARGO_PROFILE_DEV_OPT_LEVEL", "2");
    cargo.env("PAGEPIN_STRESS_SECONDS", seconds.to_string());
    if std::env::var_os("TSAN_OPTIONS").is_none() {
        cargo.env("TSAN_OPTIONS", "halt_on_error=1");
    }
    cargo
}
