//! A device behind an IOMMU: it reaches what is lent to it, as it is lent, and as long.
//!
//! What counts is what memory says afterwards. Blocked accesses are recorded as well, but
//! an emulated unit need not record one whose translation it has cached.

use pagepin_abi::{BlockedAccess, FROM_DEVICE, MmCall, PIN_KEEP_CACHED, PIN_READ, PIN_WRITE, PROT_WRITE, TO_DEVICE};

use super::stage::{OTHER_PAGE, PAGE, Stage, THE_PAGE, fill_page, page_is_all, read, say, write};
use crate::calls;

const LEN: usize = 64;
type Text = [u8; LEN];
const FROM_THE_DEVICE: &Text = b"These 64 bytes are in the device, which will write them anywhere";
const OWN: &Text = b"These 64 bytes are in a page that the device may only read from!";

/// Pages of the process that gets the frame next; one table has the entries of all.
const VICTIMS: u64 = THE_PAGE + 64 * PAGE;
const VICTIM_PAGES: u64 = 64;
/// Places in the device's buffer: nothing else uses them.
const SECOND: u64 = 1024;
const THIRD: u64 = 2048;

/// In a page, past what the device has written.
const ELSEWHERE: u64 = 2048;

/// As the VT-d specification numbers reasons.
const NO_WRITE: u8 = 5;
const NO_READ: u8 = 6;

/// Slots for notes, and the notes in them.
const CHILD: u64 = 0;
const PARENT: u64 = 1;
const FRAME: u64 = 2;
const PREPARED: u64 = 1;
const OWNS_THE_FRAME: u64 = 2;
const GIVEN_BACK: u64 = 1;
const STRUCK: u64 = 2;

fn physical(addr: u64) -> u64 {
    calls::mm(MmCall::PhysicalAddress as u64, addr, 0, 0).unwrap()
}

fn stray(address: u64, device_offset: u64, direction: u64) {
    calls::dev_stray(address, device_offset, LEN as u64, direction).unwrap();
    calls::dev_dma_wait().unwrap();
}

fn transfer(pin: u64, device_offset: u64, len: u64, direction: u64) {
    calls::dev_dma_start(pin, 0, device_offset, len, direction).unwrap();
    calls::dev_dma_wait().unwrap();
}

/// Puts the text where a device that strays has it at hand, and zeroes where it reads to.
fn load_device() {
    fill_page(OTHER_PAGE, FROM_THE_DEVICE, 0);
    let pin = calls::dev_pin(OTHER_PAGE, PAGE, PIN_READ).unwrap();
    transfer(pin, 0, PAGE - 1, TO_DEVICE);
    calls::dev_unpin(pin).unwrap();
    calls::unmap(OTHER_PAGE, PAGE).unwrap();
    assert_eq!(calls::dev_blocked(), Ok(BlockedAccess::None));
}

/// What the device has in its buffer.
fn device_has(device_offset: u64) -> Text {
    calls::map(OTHER_PAGE, PAGE, PROT_WRITE).unwrap();
    let pin = calls::dev_pin(OTHER_PAGE, PAGE, PIN_WRITE).unwrap();
    transfer(pin, device_offset, LEN as u64, FROM_DEVICE);
    calls::dev_unpin(pin).unwrap();
    let found = read(OTHER_PAGE);
    calls::unmap(OTHER_PAGE, PAGE).unwrap();
    found
}

/// Whether the first access blocked since the last look is this one.
fn is_recorded(address: u64, write: bool) -> bool {
    let reason = if write { NO_WRITE } else { NO_READ };
    let wanted = BlockedAccess::OfDevice { page: address & !(PAGE - 1), write, reason };
    let found = calls::dev_blocked().unwrap();
    if found != wanted {
        crate::println!("    blocked: {found:?} instead of {wanted:?}");
    }
    found == wanted
}

/// The positive control: two frames that are no neighbours are one range to the device, at
/// addresses that are not theirs; bytes go both ways.
pub fn lent_range(stage: &Stage) -> bool {
    const BYTES: u64 = 4000;
    const FROM: u64 = THE_PAGE + 3000;
    let pattern = |index: u64| (index * 7 + index / 256) as u8;
    fill_page(THE_PAGE, &[], b'A');
    fill_page(OTHER_PAGE, &[], b'-');
    fill_page(THE_PAGE + PAGE, &[], b'A');
    (0..BYTES).for_each(|index| write(FROM + index, &[pattern(index)]));
    let (first, second) = (physical(THE_PAGE), physical(THE_PAGE + PAGE));
    assert_ne!(first + PAGE, second, "the frames are neighbours: nothing to be shown");

    let pin = calls::dev_pin(FROM, BYTES, PIN_WRITE).unwrap();
    let address = calls::dev_address(pin, 0).unwrap();
    let mut kept = address % PAGE == FROM % PAGE && address & !(PAGE - 1) != first;
    transfer(pin, 0, BYTES, TO_DEVICE);
    (0..BYTES).for_each(|index| write(FROM + index, b"?"));
    transfer(pin, 0, BYTES, FROM_DEVICE);
    kept &= (0..BYTES).all(|index| read(FROM + index) == [pattern(index)]);
    kept &= stage.compare("before the range", b"A", &read::<1>(FROM - 1));
    kept &= stage.compare("after the range", b"A", &read::<1>(FROM + BYTES));
    kept &= calls::dev_blocked() == Ok(BlockedAccess::None);
    calls::dev_unpin(pin).unwrap();
    kept
}

pub fn lent_for_reading(stage: &Stage) -> bool {
    load_device();
    fill_page(THE_PAGE, OWN, b' ');
    let pin = calls::dev_pin(THE_PAGE, PAGE, PIN_READ).unwrap();
    let address = calls::dev_address(pin, 0).unwrap();

    // The unit has nothing cached.
    stray(address, 0, FROM_DEVICE);
    let mut kept = stage.compare("after a write that was blocked", OWN, &read::<LEN>(THE_PAGE));
    kept &= is_recorded(address, true);

    // Reading is what it was lent for; then the unit has it cached.
    transfer(pin, SECOND, LEN as u64, TO_DEVICE);
    kept &= calls::dev_blocked() == Ok(BlockedAccess::None);
    stray(address, 0, FROM_DEVICE);
    kept &= stage.compare("after another", OWN, &read::<LEN>(THE_PAGE));
    kept &= stage.compare("what the device has read", OWN, &device_has(SECOND));
    calls::dev_blocked().unwrap();

    // Memory's own address means nothing to the device.
    let frame = physical(THE_PAGE);
    stray(frame, 0, FROM_DEVICE);
    kept &= stage.compare("after a write to the frame's own address", OWN, &read::<LEN>(THE_PAGE));
    kept &= is_recorded(frame, true);
    calls::dev_unpin(pin).unwrap();
    kept
}

pub fn stray_access(stage: &Stage) -> bool {
    load_device();
    let child = calls::fork().unwrap();
    if child == 0 {
        calls::exit(u32::from(!owns_the_frame_next(stage)));
    }
    stage.await_note(CHILD, PREPARED);
    fill_page(THE_PAGE, &[], b'A');
    let flags = if stage.twin { PIN_WRITE | PIN_KEEP_CACHED } else { PIN_WRITE };
    let pin = calls::dev_pin(THE_PAGE, PAGE, flags).unwrap();
    let address = calls::dev_address(pin, 0).unwrap();
    transfer(pin, 0, LEN as u64, FROM_DEVICE);
    assert_eq!(read(THE_PAGE), *FROM_THE_DEVICE, "the device does not reach what is lent to it");
    assert_eq!(calls::dev_blocked(), Ok(BlockedAccess::None));
    say!(stage, "The device has written. Its memory is taken back, and another process gets the frame.");
    calls::note(FRAME, physical(THE_PAGE)).unwrap();
    calls::dev_unpin(pin).unwrap();
    calls::unmap(THE_PAGE, PAGE).unwrap();
    calls::note(PARENT, GIVEN_BACK).unwrap();
    stage.await_note(CHILD, OWNS_THE_FRAME);

    say!(stage, "The device goes on: it writes and reads at the address it once had.");
    stray(address, 0, FROM_DEVICE);
    let mut kept = stage.twin || is_recorded(address, true);
    stray(address + ELSEWHERE, THIRD, TO_DEVICE);
    kept &= stage.twin || is_recorded(address, false);
    calls::note(PARENT, STRUCK).unwrap();
    let victim_is_content = stage.child_is_content(child);
    let leaked = device_has(THIRD).contains(&b'V');
    if stage.twin {
        // Lost both ways, or the twin is none.
        assert_eq!(victim_is_content, leaked, "one of the two was not cached");
        return victim_is_content;
    }
    kept && victim_is_content && !leaked
}

/// The other process. Its tables are there before the frame is free, so that the frame can
/// only become one of its pages.
fn owns_the_frame_next(stage: &Stage) -> bool {
    let page = |index: u64| VICTIMS + index * PAGE;
    calls::map(VICTIMS, VICTIM_PAGES * PAGE, PROT_WRITE).unwrap();
    let fill = |index: u64| (0..PAGE).for_each(|offset| write(page(index) + offset, b"V"));
    fill(0);
    calls::note(CHILD, PREPARED).unwrap();
    stage.await_note(PARENT, GIVEN_BACK);
    let frame = calls::read_note(FRAME).unwrap();
    (1..VICTIM_PAGES).for_each(fill);
    let mine = (1..VICTIM_PAGES).any(|index| physical(page(index)) == frame);
    assert!(mine, "the frame {frame:#x} went to somebody else");
    calls::note(CHILD, OWNS_THE_FRAME).unwrap();
    stage.await_note(PARENT, STRUCK);
    (0..VICTIM_PAGES).all(|index| page_is_all(page(index), b'V'))
}
