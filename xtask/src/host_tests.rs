//! Runs `cargo test` and understands what it prints.

use std::process::Command;

use anyhow::{Result, bail};

use crate::child::{self, Stream};
use crate::screen;
use crate::steps::Summary;

/// A quarter of the code to compile and to run: for tests that the step of all layouts runs as well.
pub(crate) const ONE_LAYOUT: (&str, &str) = ("RUSTFLAGS", "--cfg pagepin_one_layout");
/// Of what is compiled so.
pub(crate) const ONE_LAYOUT_TARGET: &str = "target/one-layout";

/// What the lines so far came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    /// Tests that have ended, and those of all test programs that have begun.
    ended: u64,
    begun: u64,
    passed: u64,
    failed: u64,
}

impl Count {
    /// Takes in one line; true if it tells how far the tests are.
    fn read(&mut self, line: &str) -> bool {
        if let Some((passed, failed)) = result_line(line) {
            self.passed += passed;
            self.failed += failed;
            return false;
        }
        match line.strip_prefix("running ").and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok()) {
            Some(tests) => self.begun += tests,
            None if line.starts_with("test ") && line.contains(" ... ") => self.ended += 1,
            None => return false,
        }
        true
    }
}

/// Adds up the results of all test programs that `cargo` runs. Without `must_run` there may be none.
pub(crate) fn run(cargo: &Command, must_run: bool) -> Result<Summary> {
    let mut count = Count::default();
    let status = child::watch(cargo, |stream, line| {
        screen::output(line);
        if stream == Stream::Out && count.read(line) {
            screen::progress(count.ended, Some(count.begun), "tests");
        }
    })?;
    let Count { passed, mut failed, .. } = count;
    if must_run && passed + failed == 0 {
        bail!("no test ran ({status})");
    }
    if !status.success() && failed == 0 {
        // A test program that aborts, or a target that does not build, prints no result line.
        failed = 1;
    }
    let note = if failed > 0 { format!("cargo test: {status}") } else { format!("{passed} tests") };
    Ok(Summary { note, passed, failed })
}

/// Passed and failed of a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
fn result_line(line: &str) -> Option<(u64, u64)> {
    let (_, counts) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
    let count = |word: &str| counts.split(';').find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok());
    Some((count("passed")?, count("failed")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_of_cargo_test_are_read() {
        let line = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out";
        assert_eq!(result_line(line), Some((12, 0)));
        let line = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(result_line(line), Some((3, 2)));
        assert_eq!(result_line("test result: "), None);
        assert_eq!(result_line("running 3 tests"), None);
    }

    #[test]
    fn tests_that_have_ended_are_counted_among_those_that_will_run() {
        let mut count = Count::default();
        let lines = [
            "running 2 tests",
            "test a::b ... ok",
            "test c has been running for over 60 seconds",
            "test c ... FAILED",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
            "running 1 test",
        ];
        let telling: Vec<bool> = lines.iter().map(|line| count.read(line)).collect();
        assert_eq!(telling, [true, true, false, true, false, true]);
        assert_eq!(count, Count { ended: 2, begun: 3, passed: 1, failed: 1 });
    }

    #[test]
    fn programs_that_run_no_test_do_not_pass() {
        let sh = |script: &str| {
            let mut sh = Command::new("sh");
            sh.args(["-c", script]);
            sh
        };
        assert!(run(&sh("exit 0"), true).is_err());
        assert_eq!(run(&sh("exit 0"), false).unwrap().failed, 0);
        assert_eq!(run(&sh("echo 'test result: ok. 3 passed; 0 failed'; exit 101"), true).unwrap().failed, 1);
    }
}
