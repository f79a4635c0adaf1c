//! No program that xtask has started outlives it, however xtask ends. Cargo is played by a script with descendants of
//! every kind that could get away.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// One child that is waited for, one in a session of its own that hears no request to end, and one whose parent is gone.
const CARGO: &str = r#"#!/bin/sh
setsid sh -c 'trap "" TERM HUP INT; echo $$ >"$0"; for t in 1 2 3; do sleep 100; done' "$PIDS.session" &
(sh -c 'echo $$ >"$0"; exec sleep 300' "$PIDS.orphan" &)
echo $$ >"$PIDS.program"
sleep 300
"#;
const KINDS: [&str; 3] = ["session", "orphan", "program"];
const LIMIT: Duration = Duration::from_secs(60);

/// An xtask that waits for the script, and the processes of the script.
struct Scene {
    directory: PathBuf,
    xtask: Child,
    descendants: Vec<Pid>,
}

impl Scene {
    fn start(name: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let (cargo, pids) = (directory.join("cargo"), directory.join("pid"));
        fs::write(&cargo, CARGO).unwrap();
        make_executable(&cargo);
        let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
        xtask.arg("loom").env("CARGO", &cargo).env("PIDS", &pids);
        xtask.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        #[expect(clippy::disallowed_methods, reason = "this program is the parent of xtask")]
        let xtask = xtask.spawn().unwrap();
        let descendants = KINDS.iter().map(|kind| pid_in(&pids.with_extension(kind))).collect();
        Self { directory, xtask, descendants }
    }

    fn end_by(mut self, signal: Signal) -> ExitStatus {
        rustix::process::kill_process(Pid::from_child(&self.xtask), signal).unwrap();
        let status = self.xtask.wait().unwrap();
        let start = Instant::now();
        while self.descendants.iter().any(|pid| is_alive(*pid)) {
            assert!(start.elapsed() < LIMIT, "{:?} outlive xtask", self.descendants);
            std::thread::sleep(Duration::from_millis(20));
        }
        fs::remove_dir_all(&self.directory).unwrap();
        status
    }
}

fn make_executable(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

fn pid_in(file: &Path) -> Pid {
    let start = Instant::now();
    loop {
        let pid = fs::read_to_string(file).ok().and_then(|text| Pid::from_raw(text.trim().parse().ok()?));
        if let Some(pid) = pid {
            return pid;
        }
        assert!(start.elapsed() < LIMIT, "{} was not written", file.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process that has ended and is only not yet collected does nothing any more.
fn is_alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn nothing_outlives_an_xtask_that_is_killed() {
    let status = Scene::start("killed").end_by(Signal::KILL);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
}

#[test]
fn nothing_outlives_an_xtask_that_is_asked_to_end() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut scene = Scene::start(&format!("signal-{code}"));
        let descendants = std::mem::take(&mut scene.descendants);
        assert_eq!(scene.end_by(signal).code(), Some(code));
        // Such an xtask has waited for them.
        assert!(!descendants.into_iter().any(is_alive));
    }
}
