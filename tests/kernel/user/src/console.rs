//! Printing: a line is formatted into a buffer and written by one call, so that
//! lines of different threads do not mix.

use core::fmt::{self, Write};

use pagepin_abi::WRITE_MAX;

use crate::calls;

struct Line {
    bytes: [u8; WRITE_MAX as usize],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            // What does not fit is lost.
            if let Some(slot) = self.bytes.get_mut(self.len) {
                *slot = byte;
                self.len += 1;
            }
        }
        Ok(())
    }
}

pub fn print(args: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; WRITE_MAX as usize], len: 0 };
    let _ = line.write_fmt(args);
    let _ = calls::write(line.bytes.as_ptr() as u64, line.len as u64);
}

#[macro_export]
macro_rules! println {
    ($($arg:tt)*) => {
        $crate::console::print(format_args!("{}\n", format_args!($($arg)*)))
    };
}
