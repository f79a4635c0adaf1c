//! `cargo xtask tsan`: the stress test of `tests/threads` under ThreadSanitizer, and twins that it must report.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::child;
use crate::nightly::{self, TARGET};
use crate::screen;

/// Tests that must pass; they share the time.
const TESTS: [&str; 2] = ["threads_agree_with_wide_words", "threads_agree_with_split_words"];
/// Tests in which a part of the kernel is wrong; a report within [`TWIN_SECONDS`] is wanted.
const TWINS: [&str; 2] = ["twin_without_a_grace_period", "twin_with_relaxed_entries"];
const TWIN_SECONDS: u64 = 30;
/// How ThreadSanitizer's reports begin.
const REPORT: &str = "WARNING: ThreadSanitizer: data race";

/// Returns whether nothing was reported but the twins.
pub(crate) fn run(project: &Path, seconds: u64) -> Result<bool> {
    nightly::ensure(project)?;
    let each = (seconds / TESTS.len() as u64).max(1);
    let mut good = true;
    for test in TESTS {
        println!("\n=== {test}: {each} s");
        let outcome = run_test(project, test, each, true)?;
        let passed = outcome.passed && !outcome.reported;
        println!("=== {test}: {}", if passed { "ok" } else { "FAILED" });
        good &= passed;
    }
    for twin in TWINS {
        println!("\n=== {twin}: at most {TWIN_SECONDS} s");
        let outcome = run_test(project, twin, TWIN_SECONDS, false)?;
        println!("=== {twin}: {}", if outcome.reported { "reported, as it must be" } else { "NOT REPORTED" });
        good &= outcome.reported;
    }
    Ok(good)
}

struct Outcome {
    /// The test program ended well.
    passed: bool,
    /// ThreadSanitizer has found a data race.
    reported: bool,
}

fn run_test(project: &Path, test: &str, seconds: u64, show: bool) -> Result<Outcome> {
    let mut reported = false;
    let status = child::watch(&test_command(project, test, seconds), |_, line| {
        let report = line.contains(REPORT);
        reported |= report;
        // Of a twin's report the first line says enough.
        if show || report || !reported {
            screen::output(line);
        }
    })?;
    Ok(Outcome { passed: status.success(), reported })
}

fn test_command(project: &Path, test: &str, seconds: u64) -> Command {
    let mut cargo = nightly::run(project, "cargo");
    cargo.args(["test", "--test", "threads", "--features", "alloc", "--target", TARGET]);
    cargo.args(["--target-dir", "target/tsan", "--", test]);
    cargo.env("RUSTFLAGS", "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer");
    // Checked as in a debug build, but fast enough to race.
    cargo.env("CARGO_PROFILE_DEV_OPT_LEVEL", "2");
    cargo.env("PAGEPIN_STRESS_SECONDS", seconds.to_string());
    if std::env::var_os("TSAN_OPTIONS").is_none() {
        cargo.env("TSAN_OPTIONS", "halt_on_error=1");
    }
    cargo
}
