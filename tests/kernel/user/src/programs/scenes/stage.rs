//! What all scenes need: a page, a child that takes turns with its parent, a voice.

use core::fmt;

use pagepin_abi::{MmCall, PIN_PLAIN, PROT_WRITE, Status};

use crate::{calls, println};

pub const PAGE: u64 = 4096;
/// The page that it is all about.
pub const THE_PAGE: u64 = 0x2000_0000;
/// One beside it.
pub const OTHER_PAGE: u64 = THE_PAGE + 16 * PAGE;
/// Much longer than any turn takes.
const PATIENCE_US: u64 = 60_000_000;

pub struct Stage {
    pub twin: bool,
    pub verbose: bool,
}

macro_rules! say {
    ($stage:expr, $($text:tt)*) => { $stage.say(format_args!($($text)*)) };
}
pub(super) use say;

impl Stage {
    /// A sentence for who watches.
    pub fn say(&self, text: fmt::Arguments<'_>) {
        if self.verbose {
            println!("  {text}");
        }
    }

    /// Shows the frame behind the caller's page; `who` has at most 8 letters.
    pub fn picture(&self, who: &str) {
        if self.verbose {
            let mut name = [b' '; 8];
            name.iter_mut().zip(who.bytes()).for_each(|(to, from)| *to = from);
            calls::mm(MmCall::Picture as u64, THE_PAGE, PAGE, u64::from_le_bytes(name)).unwrap();
        }
    }

    /// Shows all of memory.
    pub fn memory(&self) {
        if self.verbose {
            calls::mm(MmCall::Memory as u64, 0, 0, 0).unwrap();
        }
    }

    /// Flags of a pin, or of what the twin takes instead.
    pub fn pin_flags(&self, flags: u64) -> u64 {
        if self.twin { flags | PIN_PLAIN } else { flags }
    }

    /// Whether `found` is `wanted`. Says so, unless nobody listens and it is no surprise.
    pub fn compare(&self, whose: &str, wanted: &[u8], found: &[u8]) -> bool {
        let same = wanted == found;
        if self.verbose || !(same || self.twin) {
            let verdict = if same { "as it should be" } else { "WRONG" };
            println!("    {whose}: {verdict}");
            println!("      found    \"{}\"", Text(found));
            if !same {
                println!("      expected \"{}\"", Text(wanted));
            }
        }
        same
    }

    /// Waits until the note in `slot` says `value`.
    pub fn await_note(&self, slot: u64, value: u64) {
        let end = calls::now() + PATIENCE_US;
        while calls::read_note(slot).unwrap() != value {
            assert!(calls::now() < end, "nobody leaves note {value} in slot {slot}");
            calls::yield_now();
        }
    }

    /// Whether the child has exited and says that all was well.
    pub fn child_is_content(&self, child: u64) -> bool {
        match calls::wait(child).unwrap() {
            Status::Exited(0) => true,
            Status::Exited(1) => false,
            other => panic!("the child ended with {other:?}"),
        }
    }
}

/// Bytes as a person reads them.
struct Text<'a>(&'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let printable = |byte: u8| if byte == b' ' || byte.is_ascii_graphic() { byte as char } else { '.' };
        self.0.iter().try_for_each(|&byte| write!(f, "{}", printable(byte)))
    }
}

/// Gives the process a page, filled with `text` and then with `rest`.
pub fn fill_page(addr: u64, text: &[u8], rest: u8) {
    calls::map(addr, PAGE, PROT_WRITE).unwrap();
    write(addr, text);
    (text.len() as u64..PAGE).for_each(|offset| write(addr + offset, &[rest]));
}

/// Plain stores of this program.
pub fn write(addr: u64, bytes: &[u8]) {
    for (index, &byte) in bytes.iter().enumerate() {
        // SAFETY: the scenes write to pages that they have mapped and that hold no object.
        unsafe { ((addr + index as u64) as *mut u8).write_volatile(byte) };
    }
}

/// Plain loads of this program.
pub fn read<const N: usize>(addr: u64) -> [u8; N] {
    // SAFETY: as in `write`.
    core::array::from_fn(|index| unsafe { ((addr + index as u64) as *const u8).read_volatile() })
}

/// Whether the whole page consists of this byte.
pub fn page_is_all(addr: u64, byte: u8) -> bool {
    (0..PAGE).all(|offset| read(addr + offset) == [byte])
}
