//! The serial console. One lock per line, so that lines of different CPUs do not
//! mix.

use core::fmt::{self, Write};

use spin::mutex::SpinMutex;
use uart_16550::{Config, Uart16550Tty, backend::PioBackend};

use crate::poll::Poll;

const COM1: u16 = 0x3f8;

type Tty = Uart16550Tty<PioBackend>;

static CONSOLE: SpinMutex<Option<Tty>, Poll> = SpinMutex::new(None);

fn open() -> Option<Tty> {
    // SAFETY: COM1 is at its architectural port, and nothing else here drives it.
    unsafe { Tty::new_port(COM1, Config::default()) }.ok()
}

pub fn init() {
    *CONSOLE.lock() = open();
}

pub fn print(args: fmt::Arguments<'_>) {
    if let Some(tty) = CONSOLE.lock().as_mut() {
        // The port reports no errors.
        let _ = tty.write_fmt(args);
    }
}

/// Prints without the lock, for a CPU that may be holding it.
pub fn print_at_any_cost(args: fmt::Arguments<'_>) {
    if let Some(mut tty) = open() {
        let _ = tty.write_fmt(args);
    }
}

#[macro_export]
macro_rules! println {
    ($($arg:tt)*) => {
        $crate::console::print(format_args!("{}\n", format_args!($($arg)*)))
    };
}
