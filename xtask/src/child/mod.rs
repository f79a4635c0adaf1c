//! How every program is started: through here, so that none outlives xtask.
//!
//! Between xtask and the program stands a supervisor: xtask itself, started a second time, which holds the reading end of
//! a pipe as its standard input. However xtask dies, that pipe comes to its end, and the [`supervisor`] ends the program
//! and all that descends from it. It has a process group of its own, so that Ctrl-C reaches xtask alone, which then
//! drops its children in order (see [`interrupt`]).
//!
//! A parent-death signal would not do: it is tied to the thread that forked, and QEMU below cargo would not get it.

pub(crate) mod interrupt;
pub(crate) mod supervisor;

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::screen;

/// How long a look at the output lasts before the next look for an interruption.
const GLANCE: Duration = Duration::from_millis(100);
/// Lines that may wait to be read.
const BACKLOG: usize = 64;

/// Which of a program's two streams a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// What a running program does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Line(Stream, String),
    /// Nothing until the deadline.
    TimeOut,
    /// Both streams are closed.
    End,
}

/// A program and its descendants. To drop it ends them all.
pub(crate) struct Running {
    name: String,
    supervisor: Child,
    /// While it is open, the supervisor lets the program run.
    leash: Option<ChildStdin>,
    lines: Receiver<(Stream, String)>,
}

impl Running {
    pub(crate) fn start(command: &Command) -> Result<Self> {
        let (mut supervisor, name) = spawn(command, Stdio::piped, true)?;
        let (sender, lines) = mpsc::sync_channel(BACKLOG);
        if let Some(stdout) = supervisor.stdout.take() {
            read_lines(stdout, Stream::Out, sender.clone());
        }
        if let Some(stderr) = supervisor.stderr.take() {
            read_lines(stderr, Stream::Err, sender);
        }
        let leash = supervisor.stdin.take();
        Ok(Self { name, supervisor, leash, lines })
    }

    /// The next line, or that none has come by `deadline`. An interruption of xtask is an error.
    pub(crate) fn next(&mut self, deadline: Option<Instant>) -> Result<Event> {
        loop {
            interrupt::check()?;
            // A program that never stops talking runs into the deadline as well.
            let left = deadline.map_or(GLANCE, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(Event::TimeOut);
            }
            match self.lines.recv_timeout(left.min(GLANCE)) {
                Ok((stream, line)) => return Ok(Event::Line(stream, line)),
                Err(RecvTimeoutError::Disconnected) => return Ok(Event::End),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Waits for the end; nothing if it does not come by `deadline`.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        loop {
            interrupt::check()?;
            if let Some(status) = self.supervisor.try_wait()? {
                return judged(status, &self.name).map(Some);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(None);
            }
            std::thread::sleep(GLANCE / 10);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.leash.take());
        let ended = self.supervisor.wait();
        // Only a supervisor that was itself killed leaves its group behind.
        if ended.is_ok_and(|status| status.signal().is_some()) {
            supervisor::kill_group(&self.supervisor);
        }
    }
}

/// Runs a program to its end and shows each line to `line`.
pub(crate) fn watch(command: &Command, mut line: impl FnMut(Stream, &str)) -> Result<ExitStatus> {
    let mut running = Running::start(command)?;
    while let Event::Line(stream, text) = running.next(None)? {
        line(stream, &text);
    }
    running.wait(None)?.context("no deadline, and no end")
}

/// Runs a program whose output belongs to the log of the step at hand.
pub(crate) fn succeed(command: &Command) -> Result<()> {
    successful(command, watch(command, |_, line| screen::output(line))?)
}

/// Runs a program that may ask the person at the terminal for something, such as a password.
pub(crate) fn succeed_interactively(command: &Command) -> Result<()> {
    // In xtask's own process group: only that one may read from the terminal.
    let (mut supervisor, name) = spawn(command, Stdio::inherit, false)?;
    let leash = supervisor.stdin.take();
    let mut running = Running { name, supervisor, leash, lines: mpsc::sync_channel(0).1 };
    successful(command, running.wait(None)?.context("no deadline, and no end")?)
}

/// The error of a program that has failed names it and its arguments.
pub(crate) fn successful(command: &Command, status: ExitStatus) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let words: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    bail!("{} {}: {status}", name(command), words.join(" "))
}

/// All that a program says, for a question that is answered at once.
pub(crate) fn output(command: &Command) -> Result<Output> {
    let (mut supervisor, name) = spawn(command, Stdio::piped, true)?;
    // `wait_with_output` would close the leash first.
    let leash = supervisor.stdin.take();
    let output = supervisor.wait_with_output()?;
    drop(leash);
    interrupt::check()?;
    judged(output.status, &name)?;
    Ok(output)
}

fn spawn(command: &Command, stream: fn() -> Stdio, own_group: bool) -> Result<(Child, String)> {
    interrupt::check()?;
    let name = name(command);
    let mut supervisor = Command::new(supervisor::program());
    supervisor.args(supervisor::arguments(command)).stdin(Stdio::piped()).stdout(stream()).stderr(stream());
    if own_group {
        supervisor.process_group(0);
    }
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    let child = supervisor.spawn().with_context(|| format!("starting the supervisor of {name}"))?;
    Ok((child, name))
}

/// A program that could not be started is an error, not one that failed.
fn judged(status: ExitStatus, name: &str) -> Result<ExitStatus> {
    if status.code() == Some(supervisor::NOT_STARTED) {
        bail!("{name} could not be started");
    }
    Ok(status)
}

/// The last part of a program's path.
fn name(command: &Command) -> String {
    let program = command.get_program();
    Path::new(program).file_name().unwrap_or(program).display().to_string()
}

fn read_lines(stream: impl Read + Send + 'static, kind: Stream, sender: SyncSender<(Stream, String)>) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut bytes = Vec::new();
        // A dying kernel may print anything; bytes that are not text are shown as such, not dropped.
        while matches!(reader.read_until(b'\n', &mut bytes), Ok(read) if read > 0) {
            let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned();
            bytes.clear();
            if sender.send((kind, text)).is_err() {
                break;
            }
        }
    });
}

/// What a command changes in its environment, for the supervisor to repeat.
fn environment(command: &Command) -> impl Iterator<Item = (OsString, Option<OsString>)> + '_ {
    command.get_envs().map(|(name, value)| (name.to_owned(), value.map(OsStr::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut sh = Command::new("sh");
        sh.args(["-c", script]);
        sh
    }

    fn said(command: &Command) -> String {
        String::from_utf8(output(command).expect("it runs").stdout).expect("text")
    }

    #[test]
    fn both_streams_and_the_status_come_through() {
        let mut lines = Vec::new();
        let command = sh("echo out; echo err >&2; exit 33");
        let status = watch(&command, |stream, line| lines.push((stream, line.to_owned()))).unwrap();
        lines.sort_by_key(|(stream, _)| *stream == Stream::Err);
        assert_eq!(lines, [(Stream::Out, "out".to_owned()), (Stream::Err, "err".to_owned())]);
        assert_eq!(status.code(), Some(33));
    }

    #[test]
    fn environment_and_directory_reach_the_program_and_not_its_supervisor() {
        let mut command = sh("echo $A; echo ${HOME-none}; pwd; echo \"$1\"");
        command.args(["sh", "a b=c"]).env("A", "x y").env_remove("HOME").current_dir("/");
        // The supervisor itself would not start with these libraries.
        command.env("LD_PRELOAD_OF_NOBODY", "1");
        assert_eq!(said(&command), "x y\nnone\n/\na b=c\n");
    }

    #[test]
    fn a_program_is_looked_for_on_the_path_that_it_will_see() {
        assert!(output(Command::new("true").env("PATH", "/nowhere")).is_err());
        assert!(output(&Command::new("no-such-program")).is_err());
    }

    #[test]
    fn what_a_program_leaves_behind_ends_with_it() {
        // The background process keeps the pipe open: without its end this would take a minute.
        let start = Instant::now();
        assert!(watch(&sh("sleep 60 & exit 0"), |_, _| {}).unwrap().success());
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
