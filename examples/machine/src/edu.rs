//! QEMU's `edu` device (docs/specs/edu.rst there): it moves bytes between memory and a buffer of its own, by physical addresses,
//! about 100 ms after it was told to. Time enough to fork.

use pci_types::{Bar, CommandRegister, ConfigRegionAccess, EndpointHeader, PciAddress, PciHeader};
use spin::Once;
use x86_64::instructions::port::Port;

use crate::direct;

const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const COMMAND: u64 = 0x98;
/// The device's buffer, in its own address space, and how much of it may be used.
const BUFFER: u64 = 0x4_0000;
const BUFFER_BYTES: u64 = 4095;

static REGISTERS: Once<u64> = Once::new();

struct ConfigPorts;

fn select(address: PciAddress, offset: u16) {
    let function = u32::from(address.device()) << 11 | u32::from(address.function()) << 8;
    let value = 1 << 31 | u32::from(address.bus()) << 16 | function | u32::from(offset & 0xfc);
    // SAFETY: chooses a configuration register, and no more.
    unsafe { Port::<u32>::new(0xcf8).write(value) };
}

impl ConfigRegionAccess for ConfigPorts {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        select(address, offset);
        // SAFETY: reading a header changes nothing.
        unsafe { Port::<u32>::new(0xcfc).read() }
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        select(address, offset);
        // SAFETY: the caller chose register and value.
        unsafe { Port::<u32>::new(0xcfc).write(value) };
    }
}

/// Finds the device. Whether there is one.
pub fn init() -> bool {
    for slot in 0..32 {
        let header = PciHeader::new(PciAddress::new(0, 0, slot, 0));
        if header.id(ConfigPorts) != (0x1234, 0x11e8) {
            continue;
        }
        let Some(mut endpoint) = EndpointHeader::from_header(header, ConfigPorts) else {
            return false;
        };
        let Some(Bar::Memory32 { address, .. }) = endpoint.bar(0, ConfigPorts) else {
            return false;
        };
        let on = CommandRegister::BUS_MASTER_ENABLE | CommandRegister::MEMORY_ENABLE;
        endpoint.update_command(ConfigPorts, |command| command | on);
        REGISTERS.call_once(|| u64::from(address));
        return true;
    }
    false
}

fn register(offset: u64) -> Option<*mut u64> {
    REGISTERS.get().map(|base| direct(base + offset).cast())
}

/// Whether it is at work.
pub fn is_busy() -> bool {
    // SAFETY: a register of the device, in the direct map; reading it changes nothing.
    register(COMMAND).is_some_and(|command| unsafe { command.cast::<u32>().read_volatile() } & 1 != 0)
}

/// Moves `length` bytes from physical `address` into the device's buffer, or back. False: it is busy, missing, or cannot.
///
/// # Safety
/// The bytes stay what they are, and nobody minds the device reading them, or writing them, until it is no longer busy.
pub unsafe fn start(address: u64, length: u64, into_memory: bool) -> bool {
    if length > BUFFER_BYTES || is_busy() {
        return false;
    }
    let (from, to) = if into_memory { (BUFFER, address) } else { (address, BUFFER) };
    let command = if into_memory { 3 } else { 1 };
    for (offset, value) in [(SOURCE, from), (DESTINATION, to), (COUNT, length), (COMMAND, command)] {
        let Some(register) = register(offset) else { return false };
        // SAFETY: a register of the device, in the direct map; the caller vouches for the addresses.
        unsafe { register.write_volatile(value) };
    }
    true
}
