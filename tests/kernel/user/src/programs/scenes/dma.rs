//! A device at work on a page while its process forks.
//!
//! The device copies about 100 ms after it was told to: that is the window in which the
//! process forks and writes.

use pagepin_abi::{FROM_DEVICE, PIN_READ, PIN_WRITE, TO_DEVICE};

use super::stage::{OTHER_PAGE, PAGE, Stage, THE_PAGE, fill_page, page_is_all, read, say, write};
use crate::calls;

/// What was done within this time was certainly done before the device copied.
const WINDOW_US: u64 = 95_000;
/// How often a machine may be too busy for that.
const ATTEMPTS: u32 = 10;
/// Where the parent writes during the window.
const OWN_OFFSET: u64 = 2000;

/// Slots for notes, and the notes in them.
const CHILD: u64 = 0;
const PARENT: u64 = 1;
const LOOKED: u64 = 1;
const OVER: u64 = 1;

const LEN: usize = 64;
type Text = [u8; LEN];
const FROM_THE_DEVICE: &Text = b"These are the 64 bytes that the device writes by itself, later. ";
const OLD: &Text = b"Old text: in the page since before the process forked, now stale";
const NEW: &Text = b"New text: written after the fork, before the device has read it.";

/// Tries until an attempt was fast enough to fit in the window.
fn in_window(stage: &Stage, attempt: fn(&Stage) -> Option<bool>) -> bool {
    for _ in 0..ATTEMPTS {
        if let Some(kept) = attempt(stage) {
            return kept;
        }
        say!(stage, "(The machine was too slow: the device was done first. Once more.)");
    }
    panic!("the machine is too slow for a window of {WINDOW_US} us");
}

/// Moves bytes between the start of a page of this process and the device's buffer.
fn transfer(addr: u64, flags: u64, direction: u64) {
    let pin = calls::dev_pin(addr, LEN as u64, flags).unwrap();
    calls::dev_dma_start(pin, 0, 0, LEN as u64, direction).unwrap();
    calls::dev_dma_wait().unwrap();
    calls::dev_unpin(pin).unwrap();
}

/// The time between the command to the device and what it does.
struct Window {
    pin: u64,
    child: u64,
    began: u64,
}

/// Lends the page to the device, forks while the device has not begun, and lets the child
/// look at its page before anything else happens. `None` in the child.
fn open_window(stage: &Stage, flags: u64, direction: u64) -> Option<Window> {
    calls::note(CHILD, 0).unwrap();
    calls::note(PARENT, 0).unwrap();
    let pin = calls::dev_pin(THE_PAGE, PAGE, stage.pin_flags(flags)).unwrap();
    stage.picture("parent");
    let began = calls::now();
    calls::dev_dma_start(pin, 0, 0, LEN as u64, direction).unwrap();
    say!(stage, "The device is told to begin in 100 ms. Meanwhile the process forks.");
    let child = calls::fork().unwrap();
    if child == 0 {
        stage.picture("child");
        calls::note(CHILD, LOOKED).unwrap();
        return None;
    }
    stage.await_note(CHILD, LOOKED);
    stage.picture("parent");
    stage.memory();
    Some(Window { pin, child, began })
}

impl Window {
    /// Lets the device finish; whether everything up to this call was before it began.
    fn close(&self, stage: &Stage) -> bool {
        let fits = calls::now() - self.began < WINDOW_US;
        stage.picture("parent");
        calls::dev_dma_wait().unwrap();
        say!(stage, "The device is done.");
        calls::note(PARENT, OVER).unwrap();
        fits
    }
}

pub fn device_writes(stage: &Stage) -> bool {
    fill_page(OTHER_PAGE, FROM_THE_DEVICE, 0);
    transfer(OTHER_PAGE, PIN_READ, TO_DEVICE);
    calls::unmap(OTHER_PAGE, PAGE).unwrap();
    in_window(stage, device_writes_once)
}

fn device_writes_once(stage: &Stage) -> Option<bool> {
    say!(stage, "A process fills a page with 'A' and lends it to a device, which will write to it.");
    fill_page(THE_PAGE, &[], b'A');
    let Some(window) = open_window(stage, PIN_WRITE, FROM_DEVICE) else {
        stage.await_note(PARENT, OVER);
        stage.picture("child");
        let same = stage.compare("the child's page", &[b'A'; LEN], &read::<LEN>(THE_PAGE));
        calls::exit(u32::from(!(same && page_is_all(THE_PAGE, b'A'))));
    };
    say!(stage, "The parent writes one byte, 'p', elsewhere in the page.");
    write(THE_PAGE + OWN_OFFSET, b"p");
    let fits = window.close(stage);
    let mut kept = stage.child_is_content(window.child);
    let whose = "what the parent finds where the device wrote";
    kept &= stage.compare(whose, FROM_THE_DEVICE, &read::<LEN>(THE_PAGE));
    kept &= stage.compare("and where it wrote itself", b"ApA", &read::<3>(THE_PAGE + OWN_OFFSET - 1));
    calls::dev_unpin(window.pin).unwrap();
    calls::unmap(THE_PAGE, PAGE).unwrap();
    fits.then_some(kept)
}

pub fn device_reads(stage: &Stage) -> bool {
    in_window(stage, device_reads_once)
}

fn device_reads_once(stage: &Stage) -> Option<bool> {
    say!(stage, "A process writes a text into a page and lends it to a device, which will read it.");
    fill_page(THE_PAGE, OLD, b' ');
    let Some(window) = open_window(stage, PIN_READ, TO_DEVICE) else {
        stage.await_note(PARENT, OVER);
        stage.picture("child");
        let same = stage.compare("the child's page", OLD, &read::<LEN>(THE_PAGE));
        calls::exit(u32::from(!same));
    };
    say!(stage, "The parent replaces the text, in time for the device.");
    write(THE_PAGE, NEW);
    let fits = window.close(stage);
    let mut kept = stage.child_is_content(window.child);
    fill_page(OTHER_PAGE, &[], b'?');
    transfer(OTHER_PAGE, PIN_WRITE, FROM_DEVICE);
    kept &= stage.compare("what the device has read", NEW, &read::<LEN>(OTHER_PAGE));
    calls::dev_unpin(window.pin).unwrap();
    calls::unmap(THE_PAGE, PAGE).unwrap();
    calls::unmap(OTHER_PAGE, PAGE).unwrap();
    fits.then_some(kept)
}
