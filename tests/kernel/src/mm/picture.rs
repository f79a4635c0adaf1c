//! Frames as a person can see them.

use alloc::{string::String, vec::Vec};
use core::fmt::Write;

use pagepin::{Env, FrameTable, Pfn, frame::Snapshot, paging::Slot};
use pagepin_abi::{Error, FrameBits};

use super::{AddressSpace, kernel};
use crate::{memory, memory::PAGE, println};

/// What a page is mapped to.
pub struct Mapped {
    pub pfn: Pfn,
    pub writable: bool,
    pub slot: Slot,
}

impl Mapped {
    pub fn of(slot: Slot) -> Option<Self> {
        let entry = slot.entry;
        let pfn = entry.leaf_frame(slot.size());
        entry.is_present().then_some(Self { pfn, writable: entry.is_writable(), slot })
    }

    fn letter(&self) -> char {
        if self.slot.entry.is_special() {
            return '0';
        }
        seen(self.pfn).map_or('?', letter)
    }
}

fn seen(pfn: Pfn) -> Option<Snapshot> {
    kernel().frames().frame(pfn).map(|frame| frame.snapshot())
}

/// Free, pinned, exclusive or shared.
fn letter(seen: Snapshot) -> char {
    match seen {
        _ if seen.is_free() => '.',
        _ if seen.pins > 0 => 'P',
        _ if seen.exclusive => 'E',
        _ => 'S',
    }
}

/// As [`pagepin_abi::MmCall::Frame`] returns it.
pub fn pack(mapped: Mapped) -> u64 {
    let seen = seen(mapped.pfn);
    FrameBits {
        present: true,
        writable: mapped.writable,
        exclusive: seen.is_some_and(|seen| seen.exclusive),
        pins: seen.map_or(0, |seen| seen.pins as u16),
        refs: seen.map_or(0, |seen| seen.refs as u16),
    }
    .to_bits()
}

/// Most pages of one picture.
const PAGES_MAX: u64 = 16;

/// Prints the pages `addr..addr + len` of the caller, called by the name at `name`
/// (up to 8 letters in a register), and the frames behind them.
pub fn print(space: &AddressSpace, addr: u64, len: u64, name: u64) -> Result<(), Error> {
    let range = space.space.range(addr, len).map_err(|_| Error::Invalid)?;
    let bytes: Vec<u8> = name.to_le_bytes().into_iter().filter(u8::is_ascii_graphic).collect();
    let name = String::from_utf8_lossy(&bytes);
    for index in 0..range.pages().min(PAGES_MAX) {
        let page = range.first_page().offset(index);
        let Some(mapped) = space.mapped(page)? else {
            println!("      {name:<7} {:#x}  nothing", page.address());
            continue;
        };
        let rights = if mapped.writable { "read-write" } else { "read-only" };
        let (refs, pins) = seen(mapped.pfn).map_or((0, 0), |seen| (seen.refs, seen.pins));
        println!(
            "      {name:<7} {:#x}  {rights:<10}  -> frame {:#07x} [{}]  references {refs}, pins {pins}",
            page.address(),
            mapped.pfn.number(),
            mapped.letter(),
        );
    }
    Ok(())
}

/// The whole of memory in one line, and the frames in use, 64 to a line.
pub fn print_memory(title: &str) {
    let free = memory::free_frames();
    let anonymous = |seen: &Snapshot| seen.kind == pagepin::frame::FrameKind::Anonymous;
    let used: String = (free.start..free.end)
        .filter_map(|pfn| seen(Pfn::new(pfn)).filter(anonymous).map(letter).filter(|&letter| letter != '.'))
        .collect();
    let mut line = String::new();
    let _ = write!(line, "      {title}: {} MiB free [.]", (super::free_frame_count() * PAGE) >> 20);
    for (letter, name) in [('E', "exclusive"), ('S', "shared"), ('P', "pinned")] {
        let _ = write!(line, ", {} {name} [{letter}]", used.matches(letter).count());
    }
    println!("{line}");
    for row in used.as_bytes().chunks(64) {
        println!("        [{}]", String::from_utf8_lossy(row));
    }
}
