//! The process between xtask and a program: it ends the program, and all that descends from it, when xtask is gone.
//!
//! It is a subreaper: whatever loses its parent below it becomes its own child. So it is done when it has no child left,
//! and no descendant gets away by forking, by a process group or by a session of its own.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use super::{environment, interrupt};

/// First argument of an xtask that is to be a supervisor.
const ENTRY: &str = "--supervise";
const SET: &str = "--set";
const UNSET: &str = "--unset";
const DIRECTORY: &str = "--directory";
const PROGRAM: &str = "--";

/// What shells return for a program that they do not find.
pub(crate) const NOT_STARTED: i32 = 127;
/// Between the request to end and the end by force.
const GRACE: Duration = Duration::from_secs(2);
/// After which a process that cannot be killed, such as another user's, is left alone.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two rounds of killing: each may hand over new orphans.
const ROUND: Duration = Duration::from_millis(20);

/// This very program, even if a build has replaced its file meanwhile.
#[cfg(not(test))]
pub(crate) fn program() -> PathBuf {
    if cfg!(target_os = "linux") {
        "/proc/self/exe".into()
    } else {
        std::env::current_exe().unwrap_or_else(|_| "xtask".into())
    }
}

/// A test program cannot be a supervisor; the real one is built along with it, for the tests under `xtask/tests`.
#[cfg(test)]
pub(crate) fn program() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this program");
    test.parent().and_then(|deps| deps.parent()).expect("target/debug/deps").join("xtask")
}

/// The arguments with which a supervisor runs `command`. The environment of the command is not the supervisor's: it may
/// name libraries that are not for xtask.
pub(crate) fn arguments(command: &Command) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![ENTRY.into()];
    for (name, value) in environment(command) {
        match value {
            Some(value) => arguments.extend([SET.into(), name, value]),
            None => arguments.extend([UNSET.into(), name]),
        }
    }
    if let Some(directory) = command.get_current_dir() {
        arguments.extend([DIRECTORY.into(), directory.into()]);
    }
    arguments.extend([PROGRAM.into(), command.get_program().to_owned()]);
    arguments.extend(command.get_args().map(OsStr::to_owned));
    arguments
}

/// The command that a supervisor was asked to run; nothing if these are a person's arguments.
fn command(mut arguments: impl Iterator<Item = OsString>) -> Option<Command> {
    if arguments.next()? != ENTRY {
        return None;
    }
    let (mut environment, mut directory) = (Vec::new(), None);
    loop {
        let word = arguments.next()?;
        match word.to_str()? {
            SET => environment.push((arguments.next()?, Some(arguments.next()?))),
            UNSET => environment.push((arguments.next()?, None)),
            DIRECTORY => directory = Some(arguments.next()?),
            PROGRAM => break,
            _ => return None,
        }
    }
    let mut command = Command::new(arguments.next()?);
    command.args(arguments);
    for (name, value) in environment {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(directory) = directory {
        command.current_dir(directory);
    }
    Some(command)
}

enum Event {
    /// Xtask is gone, or has lost interest.
    Abandoned,
    /// The program has ended, with this code.
    Ended(i32),
    /// No child is left.
    Alone,
}

/// If this process is to be a supervisor: what it was, as an exit code.
pub(crate) fn run() -> Option<u8> {
    let mut command = command(std::env::args_os().skip(1))?;
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        eprintln!("xtask: orphans will not be found: {error}");
    }
    let (sender, events) = mpsc::channel();
    // Before the program starts: a signal to the group must not end its supervisor alone.
    watch_signals(sender.clone());
    let name = command.get_program().to_owned();
    #[expect(clippy::disallowed_methods, reason = "the supervised program itself")]
    let child = match command.stdin(Stdio::null()).spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("{}: {error}", name.display());
            return u8::try_from(NOT_STARTED).ok();
        }
    };
    reap(&child, sender.clone());
    watch_leash(sender);
    let mut code = None;
    match events.recv() {
        Ok(Event::Ended(status)) => code = Some(status),
        Ok(Event::Alone) | Err(_) => return Some(u8::MAX),
        Ok(Event::Abandoned) => {}
    }
    let start = Instant::now();
    signal_all(Signal::TERM);
    let mut pause = GRACE;
    while start.elapsed() < PATIENCE {
        match events.recv_timeout(pause) {
            Ok(Event::Abandoned) => {}
            Ok(Event::Ended(status)) => code = code.or(Some(status)),
            Ok(Event::Alone) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                pause = ROUND;
                signal_children(Signal::KILL);
            }
        }
    }
    Some(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}

fn watch_signals(sender: Sender<Event>) {
    match signal_hook::iterator::Signals::new(interrupt::SIGNALS) {
        Ok(mut signals) => {
            std::thread::spawn(move || while signals.forever().any(|_| sender.send(Event::Abandoned).is_ok()) {});
        }
        Err(error) => eprintln!("xtask: signals will not be heard: {error}"),
    }
}

/// Standard input is a pipe that nobody writes to: its end says that xtask has closed it or has died.
fn watch_leash(sender: Sender<Event>) {
    std::thread::spawn(move || {
        let mut byte = [0];
        while matches!(std::io::stdin().read(&mut byte), Ok(read) if read > 0) {}
        sender.send(Event::Abandoned)
    });
}

/// Collects the program, and every orphan that was handed over.
fn reap(child: &Child, sender: Sender<Event>) {
    let program = Pid::from_child(child);
    std::thread::spawn(move || {
        loop {
            match rustix::process::wait(WaitOptions::empty()) {
                Ok(Some((pid, status))) if pid == program => {
                    let _ = sender.send(Event::Ended(code(status)));
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return sender.send(Event::Alone),
            }
        }
    });
}

/// As shells have it: a program that a signal has ended has 128 more than the signal's number.
fn code(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| Some(128 + status.terminating_signal()?)).unwrap_or(i32::from(u8::MAX))
}

fn signal_all(signal: Signal) {
    let own = rustix::process::getpid();
    if rustix::process::getpgrp() == own {
        // This process is in the group, and hears its own signal without harm.
        let _ = rustix::process::kill_process_group(own, signal);
    }
    signal_children(signal);
}

/// A child that is gone by now is what is wanted; one of another user has to end by itself.
fn signal_children(signal: Signal) {
    for child in children() {
        let _ = rustix::process::kill_process(child, signal);
    }
}

/// The kernel lists the children of each thread.
fn children() -> Vec<Pid> {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect::<Vec<_>>())
        .collect()
}

/// Ends what a supervisor has left behind that was killed itself.
pub(crate) fn kill_group(supervisor: &Child) {
    let _ = rustix::process::kill_process_group(Pid::from_child(supervisor), Signal::KILL);
}
