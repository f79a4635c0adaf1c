//! Ctrl-C and its relatives: the first one lets xtask end its children and say what was done, the second one ends xtask.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use anyhow::{Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The signals that ask a program to end.
pub(crate) const SIGNALS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

static RECEIVED: AtomicI32 = AtomicI32::new(0);

/// From now on a signal is noted.
pub(crate) fn listen() -> Result<()> {
    let again = Arc::new(AtomicBool::new(false));
    for signal in SIGNALS {
        // In this order: the second of them to arrive finds the flag that the first has set.
        signal_hook::flag::register_conditional_shutdown(signal, exit_code(signal), Arc::clone(&again))?;
        signal_hook::flag::register(signal, Arc::clone(&again))?;
    }
    let mut signals = signal_hook::iterator::Signals::new(SIGNALS)?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            RECEIVED.store(signal, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// The status that a shell expects of a program ended by the signal that has come.
pub(crate) fn received() -> Option<i32> {
    match RECEIVED.load(Ordering::Relaxed) {
        0 => None,
        signal => Some(exit_code(signal)),
    }
}

/// An error once xtask has been asked to end.
pub(crate) fn check() -> Result<()> {
    if received().is_some() {
        bail!("interrupted");
    }
    Ok(())
}

fn exit_code(signal: i32) -> i32 {
    128 + signal
}
