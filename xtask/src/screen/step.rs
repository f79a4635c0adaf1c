//! The step at hand: its log, the end of that, and how far it has come.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Show;

/// How many lines of the log are shown when a step fails.
const LAST_LINES: usize = 40;
/// How much of the last one stands in a sign of life.
const LINE_WIDTH: usize = 60;
const SPINNER: &str = "{spinner} {prefix} {elapsed} {msg:.dim}";
const COUNTER: &str = "{spinner} {prefix} {elapsed} {pos} {wide_msg:.dim}";
const BAR: &str = "{spinner} {prefix} {elapsed} [{bar:24.green}] {pos}/{len} {wide_msg:.dim}";

pub(super) struct Step {
    heading: String,
    pub(super) show: Show,
    pub(super) bar: ProgressBar,
    pub(super) last_print: Instant,
    file: File,
    path: PathBuf,
    start: Instant,
    last: VecDeque<String>,
    progress: Option<(u64, Option<u64>, &'static str)>,
}

impl Step {
    pub(super) fn begin(heading: &str, path: &Path, show: Show) -> Result<Self> {
        path.parent().map_or(Ok(()), fs::create_dir_all).with_context(|| format!("the place of {}", path.display()))?;
        let file = File::create(path).with_context(|| format!("writing {}", path.display()))?;
        // Invisible until it is added to a screen with a terminal.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        bar.set_prefix(heading.to_owned());
        set_style(&bar, SPINNER);
        let now = Instant::now();
        let (heading, path) = (heading.to_owned(), path.to_owned());
        let last = VecDeque::with_capacity(LAST_LINES);
        Ok(Self { heading, show, bar, last_print: now, file, path, start: now, last, progress: None })
    }

    pub(super) fn log(&mut self, line: &str) {
        // A full disk shows in the step's programs soon enough.
        let _ = writeln!(self.file, "{line}");
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line.to_owned());
    }

    pub(super) fn progress(&mut self, done: u64, total: Option<u64>, unit: &'static str) {
        let shape = |progress: &Option<(u64, Option<u64>, _)>| progress.map(|(_, total, _)| total.is_some());
        let before = shape(&self.progress);
        self.progress = Some((done, total, unit));
        if before != shape(&self.progress) {
            set_style(&self.bar, if total.is_some() { BAR } else { COUNTER });
        }
        if let Some(total) = total {
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
    }

    pub(super) fn last_lines(&self) -> String {
        let lines: String = self.last.iter().map(|line| format!("  {line}\n")).collect();
        format!("--- last {} lines; all of them: {}\n{lines}---", self.last.len(), self.path.display())
    }

    /// For instance `[4/13] models: 1 min 30 s, 5 of 19 models`, or the last line where nothing is counted.
    pub(super) fn how_far(&self) -> String {
        let elapsed = time(self.start.elapsed());
        match self.progress {
            Some((done, Some(total), unit)) => format!("{}: {elapsed}, {done} of {total} {unit}", self.heading),
            Some((done, None, unit)) => format!("{}: {elapsed}, {done} {unit}", self.heading),
            None => self.last.back().map_or_else(
                || format!("{}: {elapsed}", self.heading),
                |line| format!("{}: {elapsed}, {:.LINE_WIDTH$}", self.heading, line.trim()),
            ),
        }
    }
}

fn set_style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
}

/// Seconds below a minute, minutes and seconds above.
pub(crate) fn time(elapsed: Duration) -> String {
    match elapsed.as_secs() {
        0..60 => format!("{:.1} s", elapsed.as_secs_f64()),
        seconds => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}
