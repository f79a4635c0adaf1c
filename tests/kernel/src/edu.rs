//! QEMU's `edu` device (docs/specs/edu.rst in QEMU): a bus master with a buffer of
//! one page. A transfer starts about 100 ms after its command, which is what makes it
//! useful here: there is time to fork, unmap or write while it is under way.

use pagepin_abi::Error;
use spin::{Once, mutex::SpinMutex};

use crate::{memory, pci, poll::Poll};

const VENDOR: u16 = 0x1234;
const DEVICE: u16 = 0x11e8;
const IDENTIFICATION: u64 = 0x00;
const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const COMMAND: u64 = 0x98;
const START: u64 = 1;
const FROM_DEVICE: u64 = 2;

/// Where the device's own buffer is, in its address space.
const BUFFER: u64 = 0x4_0000;
/// QEMU ends the whole emulation on a transfer that reaches the end of the buffer,
/// so that one byte less than the page is the most there is.
pub const BUFFER_BYTES: u64 = 4095;
/// Reach of the device, as set by `dma_mask=0xffffffff`.
const REACH: u64 = 1 << 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToDevice,
    FromDevice,
}

static FOUND: Once<pci::Device> = Once::new();
/// Between looking whether the device is idle and starting a transfer.
static STARTING: SpinMutex<(), Poll> = SpinMutex::new(());

/// Looks for the device; without it every call gives [`Error::NoDevice`].
pub fn init() -> Result<(), Error> {
    let device = pci::enable(VENDOR, DEVICE).ok_or(Error::NoDevice)?;
    FOUND.call_once(|| device);
    let id = read(IDENTIFICATION)? as u32;
    if id & 0xff != 0xed { Err(Error::NoDevice) } else { Ok(()) }
}

/// Device and function on the first bus, if it is there.
pub fn function() -> Option<u8> {
    FOUND.get().map(|device| device.function)
}

fn register(offset: u64) -> Result<*mut u8, Error> {
    FOUND.get().map(|device| memory::direct(device.base + offset)).ok_or(Error::NoDevice)
}

/// Registers below 0x80 are 32 bits wide, the others may be read with 32 too.
fn read(offset: u64) -> Result<u64, Error> {
    let register = register(offset)?.cast::<u32>();
    // SAFETY: a register of the device, in the direct map; reading has no effect.
    Ok(u64::from(unsafe { register.read_volatile() }))
}

fn write(offset: u64, value: u64) -> Result<(), Error> {
    let register = register(offset)?.cast::<u64>();
    // SAFETY: a register of the device, in the direct map; `start` sees to it that
    // the addresses it holds are those of memory lent to the device.
    unsafe { register.write_volatile(value) };
    Ok(())
}

/// Whether a transfer is under way.
pub fn is_busy() -> Result<bool, Error> {
    Ok(read(COMMAND)? & START != 0)
}

/// Starts moving `len` bytes between memory, by the device's addresses, and the device's
/// buffer.
///
/// # Safety
///
/// The addresses are physical ones, unless an IOMMU gives them another meaning, or none.
/// The memory they lead to stays what it is, and nobody minds the device reading or
/// writing it, until [`is_busy`] is false again.
pub unsafe fn start(address: u64, offset: u64, len: u64, direction: Direction) -> Result<(), Error> {
    let buffer_end = offset.checked_add(len).ok_or(Error::Invalid)?;
    let memory_end = address.checked_add(len).ok_or(Error::Invalid)?;
    if len == 0 || buffer_end > BUFFER_BYTES || memory_end > REACH {
        return Err(Error::Invalid);
    }
    let _guard = STARTING.lock();
    if is_busy()? {
        return Err(Error::Busy);
    }
    let inner = BUFFER + offset;
    let (source, destination, command) = match direction {
        Direction::ToDevice => (address, inner, START),
        Direction::FromDevice => (inner, address, START | FROM_DEVICE),
    };
    write(SOURCE, source)?;
    write(DESTINATION, destination)?;
    write(COUNT, len)?;
    write(COMMAND, command)
}

/// Spins until no transfer is under way.
pub fn wait_idle() {
    crate::poll::until(|| !is_busy().unwrap_or(false));
}
