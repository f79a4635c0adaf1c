//! Named, timed steps of one run and the summary they end in.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::table::{self, Align};

/// The summary has one line a step; the whole of a long reason was printed when the step ended.
const NOTE_WIDTH: usize = 72;

/// What a step that went through has to say, and the tests it ran.
#[derive(Default)]
pub(crate) struct Summary {
    pub(crate) note: String,
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Summary {
    pub(crate) fn note(text: impl Into<String>) -> Self {
        Self { note: text.into(), ..Self::default() }
    }
}

struct Step {
    name: &'static str,
    elapsed: Duration,
    summary: Summary,
    ok: bool,
}

#[derive(Default)]
pub(crate) struct Steps(Vec<Step>);

impl Steps {
    pub(crate) fn run(&mut self, name: &'static str, step: impl FnOnce() -> Result<Summary>) {
        println!("\n=== {name}");
        let start = Instant::now();
        let result = step();
        let elapsed = start.elapsed();
        let (summary, ok) = match result {
            Ok(summary) => {
                let ok = summary.failed == 0;
                (summary, ok)
            }
            // A step that fails without a failing test still has to show in the closing count.
            Err(error) => (Summary { note: format!("{error:#}"), passed: 0, failed: 1 }, false),
        };
        println!("=== {name}: {} after {:.1} s", verdict(ok), elapsed.as_secs_f64());
        if !ok && !summary.note.is_empty() {
            println!("{}", summary.note);
        }
        self.0.push(Step { name, elapsed, summary, ok });
    }

    /// Prints table and closing line; true when there is nothing to complain about.
    pub(crate) fn close(&self) -> bool {
        let rows: Vec<Vec<String>> = self
            .0
            .iter()
            .map(|step| {
                let note = step.summary.note.lines().next().unwrap_or_default();
                let note: String = note.chars().take(NOTE_WIDTH).collect();

                vec![
                    step.name.to_owned(),
                    verdict(step.ok).to_owned(),
                    format!("{:.1}", step.elapsed.as_secs_f64()),
                    note,
                ]
            })
            .collect();
        let columns = [("step", Align::Left), ("result", Align::Left), ("seconds", Align::Right), ("", Align::Left)];
        println!("\n{}", table::render(&columns, &rows));
        let sum = |count: fn(&Summary) -> u64| self.0.iter().map(|step| count(&step.summary)).sum();
        let (passed, failed): (u64, u64) = (sum(|s| s.passed), sum(|s| s.failed));
        println!("{passed} passed, {failed} failed");
        self.0.iter().all(|step| step.ok)
    }
}

fn verdict(ok: bool) -> &'static str {
    if ok { "ok" } else { "FAILED" }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn step_that_fails_without_tests_counts_as_one_failure() {
        let mut steps = Steps::default();
        steps.run("good", || Ok(Summary { passed: 2, ..Summary::default() }));
        assert!(steps.close());
        steps.run("bad", || bail!("broken"));
        assert!(!steps.close());
        assert_eq!(steps.0.iter().map(|step| step.summary.failed).sum::<u64>(), 1);
    }
}
