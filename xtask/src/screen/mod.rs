//! What a person sees while xtask works, and the logs.
//!
//! On a terminal the step at hand has a line of its own below all that is printed, with a spinner or a bar. Elsewhere
//! there are plain lines only: a step's beginning, its end, and a sign of life every half minute. The whole output of a
//! step's programs goes to its log. Each thread may have a step of its own at hand.

mod step;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use indicatif::{MultiProgress, ProgressDrawTarget};

use step::Step;
pub(crate) use step::time;

pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(crate) const HEADING: Style = Style::new().bold();
/// What must go wrong.
pub(crate) const AS_PLANNED: Style = AnsiColor::Yellow.on_default();
/// Grey: dimmed text can hardly be read in a picture.
pub(crate) const ASIDE: Style = AnsiColor::BrightBlack.on_default();

/// Between two signs of life where there is no terminal.
const SILENCE: Duration = Duration::from_secs(30);
/// Of each second in which the spinner moves.
const TICK: Duration = Duration::from_millis(100);

/// What becomes of the lines that a step's programs print, beyond the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// The last one stands beside the spinner.
    Last,
    /// They are what the person came for.
    All,
}

static SCREEN: LazyLock<Mutex<Screen>> = LazyLock::new(|| {
    // Unit tests look at screens of their own.
    Mutex::new(if cfg!(test) {
        Screen::new(std::io::sink(), ProgressDrawTarget::hidden())
    } else {
        Screen::on_stdout()
    })
});

fn screen() -> MutexGuard<'static, Screen> {
    // A screen is no worse for a panic between two of its lines.
    SCREEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Standard output is for a program to read: people get standard error.
pub(crate) fn leave_stdout() {
    *screen() = Screen::on_stderr();
}

/// From now on all lines of all programs are shown.
pub(crate) fn be_verbose() {
    screen().verbose = true;
}

/// A line, or several, for the person.
pub(crate) fn say(text: impl AsRef<str>) {
    screen().say(text.as_ref());
}

/// A line of a program that xtask runs.
pub(crate) fn output(line: &str) {
    let mut screen = screen();
    screen.log(line);
    screen.show(line);
}

/// A line for the log alone.
pub(crate) fn log(line: &str) {
    screen().log(line);
}

/// A line that is logged in another form.
pub(crate) fn show(line: &str) {
    screen().show(line);
}

/// How much of the step is done, of how much if that is known, and what the numbers count.
pub(crate) fn progress(done: u64, total: Option<u64>, unit: &'static str) {
    screen().progress(done, total, unit);
}

pub(crate) fn begin(heading: &str, log: &Path, show: Show) -> Result<()> {
    screen().begin(heading, log, show)
}

/// Ends the step with its closing line; its last lines come before that if it failed.
pub(crate) fn end(closing: &str, failed: bool) {
    screen().end(closing, failed);
}

/// To be called now and then.
pub(crate) fn sign_of_life() {
    screen().sign_of_life(SILENCE);
}

/// From now on what is said is also collected, with its colours.
pub(crate) fn record() {
    screen().record = Some(String::new());
}

pub(crate) fn recorded() -> String {
    screen().record.take().unwrap_or_default()
}

struct Screen {
    out: Box<dyn Write + Send>,
    bars: MultiProgress,
    verbose: bool,
    /// Those at hand, and in which thread.
    steps: Vec<(ThreadId, Step)>,
    record: Option<String>,
}

impl Screen {
    fn new(out: impl Write + Send + 'static, target: ProgressDrawTarget) -> Self {
        let bars = MultiProgress::with_draw_target(target);
        Self { out: Box::new(out), bars, verbose: false, steps: Vec::new(), record: None }
    }

    fn on_stdout() -> Self {
        Self::new(anstream::stdout(), bars_if(std::io::stdout().is_terminal(), ProgressDrawTarget::stdout))
    }

    fn on_stderr() -> Self {
        Self::new(anstream::stderr(), bars_if(std::io::stderr().is_terminal(), ProgressDrawTarget::stderr))
    }

    fn print(&mut self, text: &str) {
        let (bars, out) = (&self.bars, &mut self.out);
        // A reader that has gone away does not stop the work.
        bars.suspend(|| {
            let _ = writeln!(out, "{text}").and_then(|()| out.flush());
        });
        if let Some(step) = self.step() {
            step.last_print = Instant::now();
        }
    }

    /// This thread's.
    fn step(&mut self) -> Option<&mut Step> {
        let this = thread::current().id();
        self.steps.iter_mut().find(|(thread, _)| *thread == this).map(|(_, step)| step)
    }

    fn say(&mut self, text: &str) {
        if let Some(record) = &mut self.record {
            record.push_str(text);
            record.push('\n');
        }
        self.print(text);
    }

    fn log(&mut self, line: &str) {
        if let Some(step) = self.step() {
            step.log(line);
        }
    }

    fn show(&mut self, line: &str) {
        let verbose = self.verbose;
        match self.step() {
            Some(step) if step.show == Show::Last && !verbose => step.bar.set_message(line.trim().to_owned()),
            Some(step) if step.show == Show::All => self.say(line),
            _ => self.print(line),
        }
    }

    fn progress(&mut self, done: u64, total: Option<u64>, unit: &'static str) {
        if let Some(step) = self.step() {
            step.progress(done, total, unit);
        }
    }

    fn begin(&mut self, heading: &str, log: &Path, show: Show) -> Result<()> {
        let mut step = Step::begin(heading, log, show)?;
        if self.bars.is_hidden() {
            self.print(&format!("{heading} ..."));
        } else {
            step.bar = self.bars.add(step.bar);
            step.bar.enable_steady_tick(TICK);
        }
        self.steps.push((thread::current().id(), step));
        Ok(())
    }

    fn end(&mut self, closing: &str, failed: bool) {
        let this = thread::current().id();
        let Some(at) = self.steps.iter().position(|(thread, _)| *thread == this) else { return };
        let (_, step) = self.steps.remove(at);
        step.bar.finish_and_clear();
        self.bars.remove(&step.bar);
        // Who has seen the lines needs not see them again.
        if failed && step.show == Show::Last && !self.verbose {
            self.print(&step.last_lines());
        }
        self.say(closing);
    }

    fn sign_of_life(&mut self, silence: Duration) {
        let silent = |step: &Step| step.bar.is_hidden() && step.last_print.elapsed() >= silence;
        let mut texts = Vec::new();
        for (_, step) in self.steps.iter_mut().filter(|(_, step)| silent(step)) {
            step.last_print = Instant::now();
            texts.push(step.how_far());
        }
        texts.iter().for_each(|text| self.print(text));
    }
}

fn bars_if(terminal: bool, target: fn() -> ProgressDrawTarget) -> ProgressDrawTarget {
    if terminal { target() } else { ProgressDrawTarget::hidden() }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
