//! COM1.

use core::fmt::{self, Write};

use spin::mutex::SpinMutex;
use uart_16550::{Config, Uart16550Tty, backend::PioBackend};

static CONSOLE: SpinMutex<Option<Uart16550Tty<PioBackend>>> = SpinMutex::new(None);

pub(crate) fn init() {
    // SAFETY: COM1 is at its architectural port, and nothing else here drives it.
    *CONSOLE.lock() = unsafe { Uart16550Tty::new_port(0x3f8, Config::default()) }.ok();
}

/// Prints a line.
pub fn print(line: fmt::Arguments<'_>) {
    if let Some(tty) = CONSOLE.lock().as_mut() {
        // The port reports no errors.
        let _ = tty.write_fmt(format_args!("{line}\n"));
    }
}

/// Prints a line.
#[macro_export]
macro_rules! println {
    ($($arg:tt)*) => {
        $crate::console::print(format_args!($($arg)*))
    };
}
