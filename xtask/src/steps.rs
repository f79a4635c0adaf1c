//! The steps of a command: numbered, timed, each with a log, and what they came to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::child::interrupt;
use crate::screen::{self, ASIDE, BAD, GOOD, Show, time};

/// How often a running step is looked at.
const GLANCE: Duration = Duration::from_secs(1);
/// Columns for a step's name.
const NAME_WIDTH: usize = 14;
/// Of a step's note in its closing line; the whole of a long reason stands above it.
const NOTE_WIDTH: usize = 56;

/// What a step that went through has to say, and the tests it ran.
#[derive(Debug, Default, PartialEq, Eq)]
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ok,
    Failed,
    Interrupted,
}

impl Verdict {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "FAILED",
            Self::Interrupted => "interrupted",
        }
    }
}

/// A step that has ended.
pub(crate) struct Step {
    /// From 1, in the order in which they began.
    number: usize,
    pub(crate) name: String,
    pub(crate) elapsed: Duration,
    pub(crate) summary: Summary,
    pub(crate) verdict: Verdict,
    pub(crate) log: PathBuf,
}

pub(crate) struct Steps {
    project: PathBuf,
    total: usize,
    begun: Arc<AtomicUsize>,
    start: Instant,
    pub(crate) ended: Vec<Step>,
}

impl Steps {
    pub(crate) fn new(project: &Path, total: usize) -> Self {
        Self { project: project.to_owned(), total, begun: Arc::default(), start: Instant::now(), ended: Vec::new() }
    }

    /// Two threads with steps of their own, which are one list in the end.
    pub(crate) fn side_by_side(&mut self, one: impl FnOnce(&mut Self), other: impl FnOnce(&mut Self) + Send) {
        let mut others = Self { project: self.project.clone(), begun: self.begun.clone(), ended: Vec::new(), ..*self };
        thread::scope(|scope| {
            scope.spawn(|| other(&mut others));
            one(self);
        });
        self.ended.append(&mut others.ended);
        self.ended.sort_by_key(|step| step.number);
    }

    /// Whether the step went well. None begins after an interruption.
    pub(crate) fn run(&mut self, name: &str, show: Show, step: impl FnOnce() -> Result<Summary>) -> bool {
        self.value(name, show, || Ok((step()?, ()))).is_some()
            && self.ended.last().is_some_and(|step| step.verdict == Verdict::Ok)
    }

    /// The same for a step from which others need something.
    pub(crate) fn value<T>(
        &mut self,
        name: &str,
        show: Show,
        step: impl FnOnce() -> Result<(Summary, T)>,
    ) -> Option<T> {
        if interrupt::received().is_some() {
            return None;
        }
        let width = self.total.to_string().len();
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let heading = format!("[{number:>width$}/{}] {name}", self.total);
        let log = self.project.join("target/xtask").join(name).with_extension("log");
        let start = Instant::now();
        let result = screen::begin(&heading, &log, show).and_then(|()| {
            let _alive = Heart::beat();
            step()
        });
        let elapsed = start.elapsed();
        let (summary, value) = match result {
            Ok((summary, value)) => (summary, Some(value)),
            // A step that fails without a failing test still has to show in the closing count.
            Err(error) => (Summary { note: format!("{error:#}"), passed: 0, failed: 1 }, None),
        };
        let verdict = match (interrupt::received(), summary.failed) {
            (Some(_), _) => Verdict::Interrupted,
            (None, 0) => Verdict::Ok,
            (None, _) => Verdict::Failed,
        };
        let step = Step { number, name: name.to_owned(), elapsed, summary, verdict, log };
        if verdict == Verdict::Failed {
            screen::log(&step.summary.note);
        }
        screen::end(&closing_line(&heading, width, &step), verdict == Verdict::Failed);
        if verdict == Verdict::Failed && step.summary.note.chars().count() > NOTE_WIDTH {
            screen::say(&step.summary.note);
        }
        self.ended.push(step);
        value
    }

    pub(crate) fn passed(&self) -> u64 {
        self.ended.iter().map(|step| step.summary.passed).sum()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.ended.iter().map(|step| step.summary.failed).sum()
    }

    /// Since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let worse = self.ended.iter().map(|step| step.verdict).find(|verdict| *verdict != Verdict::Ok);
        let unfinished = if interrupt::received().is_some() { Verdict::Interrupted } else { Verdict::Failed };
        worse.unwrap_or(if self.ended.len() == self.total { Verdict::Ok } else { unfinished })
    }

    /// Whether all that should have run has, and well.
    pub(crate) fn all_well(&self) -> bool {
        self.verdict() == Verdict::Ok
    }
}

fn closing_line(heading: &str, digits: usize, step: &Step) -> String {
    let style = if step.verdict == Verdict::Ok { GOOD } else { BAD };
    let word = step.verdict.word();
    let width = NAME_WIDTH + 2 * digits + 4;
    let seconds = time(step.elapsed);
    let note = first_line(&step.summary.note);
    let line = format!("{heading:<width$} {style}{word:<6}{style:#} {seconds:>12}  {ASIDE}{note}{ASIDE:#}");
    if note.is_empty() { format!("{heading:<width$} {style}{word:<6}{style:#} {seconds:>12}") } else { line }
}

/// As much of the note as a line has room for.
pub(crate) fn first_line(note: &str) -> String {
    let line = note.lines().next().unwrap_or_default();
    if line.chars().count() <= NOTE_WIDTH {
        return line.to_owned();
    }
    let start: String = line.chars().take(NOTE_WIDTH - 3).collect();
    format!("{start}...")
}

/// Shows that a long step is alive, until it is dropped.
struct Heart(#[expect(dead_code, reason = "its end is what counts")] mpsc::Sender<()>);

impl Heart {
    fn beat() -> Self {
        let (sender, stop) = mpsc::channel();
        std::thread::spawn(move || {
            while stop.recv_timeout(GLANCE) == Err(RecvTimeoutError::Timeout) {
                screen::sign_of_life();
            }
        });
        Self(sender)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn steps(total: usize) -> Steps {
        Steps::new(&std::env::temp_dir().join(format!("pagepin-xtask-{}", std::process::id())), total)
    }

    #[test]
    fn step_that_fails_without_tests_counts_as_one_failure() {
        let mut steps = steps(2);
        assert!(steps.run("good", Show::Last, || Ok(Summary { passed: 2, ..Summary::default() })));
        assert!(!steps.all_well(), "one step has not run");
        assert!(!steps.run("bad", Show::Last, || bail!("broken")));
        assert!(!steps.all_well());
        assert_eq!((steps.passed(), steps.failed()), (2, 1));
        assert!(std::fs::read_to_string(&steps.ended[1].log).unwrap().contains("broken"));
    }

    #[test]
    fn failing_tests_fail_the_step_and_leave_its_value() {
        let mut steps = steps(1);
        let value = steps.value("tests", Show::Last, || Ok((Summary { failed: 3, ..Summary::default() }, 7)));
        assert_eq!(value, Some(7));
        assert_eq!(steps.ended[0].verdict, Verdict::Failed);
    }

    #[test]
    fn steps_side_by_side_are_one_list_in_the_order_of_their_beginnings() {
        let mut steps = steps(5);
        let begin = |steps: &mut Steps, name: &str| {
            steps.run(name, Show::Last, || Ok(Summary { passed: 1, ..Summary::default() }));
        };
        begin(&mut steps, "first");
        steps.side_by_side(
            |steps| ["a", "b"].into_iter().for_each(|name| begin(steps, name)),
            |steps| ["c", "d"].into_iter().for_each(|name| begin(steps, name)),
        );
        assert!(steps.all_well() && steps.passed() == 5);
        assert!(steps.ended.is_sorted_by_key(|step| step.number), "each has a number of its own");
        let place = |name: &str| steps.ended.iter().position(|step| step.name == name);
        assert!(place("first") == Some(0) && place("a") < place("b") && place("c") < place("d"));
    }

    #[test]
    fn closing_lines_stand_in_columns() {
        let step = |name: &str, note: &str| Step {
            number: 1,
            name: name.to_owned(),
            elapsed: Duration::from_millis(1500),
            summary: Summary::note(note),
            verdict: Verdict::Ok,
            log: PathBuf::new(),
        };
        let plain = |text: String| anstream::adapter::strip_str(&text).to_string();
        let long = plain(closing_line("[12/13] kernel-tests", 2, &step("kernel-tests", "31 tests")));
        let short = plain(closing_line("[ 1/13] docs", 2, &step("docs", "")));
        assert_eq!(long, "[12/13] kernel-tests   ok            1.5 s  31 tests");
        assert_eq!(short, "[ 1/13] docs           ok            1.5 s");
        assert_eq!(first_line(&"x".repeat(80)).len(), NOTE_WIDTH);
    }
}
