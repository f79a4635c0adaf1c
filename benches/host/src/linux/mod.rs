//! What this host's Linux takes for the same, as a program sees it: with the system call, and with the trap of a fault.

pub(crate) mod memory;
mod operations;
mod pins;

use std::fs;

use crate::report::Report;
pub(crate) use operations::operations;
pub(crate) use pins::{Buffer, Pins};

/// How the host pins, and who it is.
pub(crate) struct Host {
    pub(crate) pins: Pins,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self { pins: Pins::new() }
    }

    /// A report of nothing yet.
    pub(crate) fn describe(&self) -> Report {
        let uname = rustix::system::uname();
        let part = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        Report {
            processor: processor().unwrap_or_else(|| part(uname.machine())),
            kernel: format!("{} {}", part(uname.sysname()), part(uname.release())),
            load: load().unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            pins_by: self.pins.name().to_owned(),
            ..Report::default()
        }
    }
}

fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
