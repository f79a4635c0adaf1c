//! Faults, fork, protect, unmap and exit, as this host does them.

use std::io;
use std::os::fd::OwnedFd;

use rustix::mm::{Advice, MprotectFlags, madvise, mprotect};
use rustix::pipe::pipe;
use rustix::process::{Pid, WaitOptions, waitpid};

use super::memory::Region;
use super::pins::{Buffer, Pins};
use crate::compare::nanoseconds;
use crate::rows::{CALL, PAGES};

const LENGTH: usize = PAGES as usize * 4096;

/// In the order of the library's turn, and then what fork and exit take without this memory. Of pages that cannot be pinned,
/// unshare is no number.
pub(crate) fn operations(pins: &Pins) -> [f64; 10] {
    let region = Region::new(LENGTH, false);
    let zero = nanoseconds(|| region.write_all());
    let (fork_without, fork) = (fork_without(&region), fork());
    let waiting = Child::start(|| {});
    let copy = nanoseconds(|| region.write_all());
    waiting.end();
    Child::start(|| {}).end();
    let reuse = nanoseconds(|| region.write_all());
    let waiting = Child::start(|| {});
    let unshare = pins.turn(&Buffer::new(&region, CALL)).map_or(f64::NAN, |[pin, _]| pin);
    waiting.end();
    region.write_all();
    // SAFETY: the region is this function's, and not read until it is gone.
    let protect = nanoseconds(|| unsafe { mprotect(region.start(), LENGTH, MprotectFlags::READ).expect("a mapping") });
    let unmap = nanoseconds(|| drop(region));
    let (exit_without, exit) = (exit_with(4096), exit_with(LENGTH));
    let figures = [zero, fork, copy, exit, reuse, unshare, protect, unmap, fork_without, exit_without];
    figures.map(|figure| figure / PAGES as f64)
}

/// A child process, which waits until it is told to end.
struct Child {
    pid: Pid,
    go: OwnedFd,
    /// What the call of fork took.
    forked: f64,
}

impl Child {
    /// The child does `work` first, and nothing else; when this returns it has.
    fn start(work: impl FnOnce()) -> Self {
        Self::try_start(work).expect("a process")
    }

    fn try_start(work: impl FnOnce()) -> io::Result<Self> {
        let ((wait, go), (done, tell)) = (pipe()?, pipe()?);
        let mut pid = 0;
        // SAFETY: this process has one thread now, so the child finds no lock held; it ends without returning.
        let forked = nanoseconds(|| pid = unsafe { libc::fork() });
        if pid == 0 {
            drop((go, done));
            work();
            drop(tell);
            let _ = rustix::io::read(&wait, &mut [0]);
            // SAFETY: ends this process, at once.
            unsafe { libc::_exit(0) };
        }
        let pid = Pid::from_raw(pid).filter(|_| pid > 0).ok_or_else(io::Error::last_os_error)?;
        drop((wait, tell));
        rustix::io::read(&done, &mut [0])?;
        Ok(Self { pid, go, forked })
    }

    /// Nanoseconds until it is gone.
    fn end(self) -> f64 {
        nanoseconds(|| {
            drop(self.go);
            waitpid(Some(self.pid), WaitOptions::empty()).expect("a child");
        })
    }
}

fn fork() -> f64 {
    let child = Child::start(|| {});
    let forked = child.forked;
    child.end();
    forked
}

fn fork_without(region: &Region) -> f64 {
    let advise = |advice| {
        // SAFETY: only children are concerned, which do not look at it.
        unsafe { madvise(region.start(), region.length(), advice).expect("a mapping") };
    };
    advise(Advice::LinuxDontFork);
    let forked = fork();
    advise(Advice::LinuxDoFork);
    forked
}

/// The end of a process that has so much memory of its own.
fn exit_with(length: usize) -> f64 {
    let child = Child::start(|| {
        let region = Region::new(length, false);
        region.write_all();
        std::mem::forget(region);
    });
    child.end()
}
