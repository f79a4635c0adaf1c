//! Finding one device on the first PCI bus, through the legacy configuration ports.

use pci_types::{Bar, CommandRegister, ConfigRegionAccess, EndpointHeader, PciAddress, PciHeader};
use x86_64::instructions::port::Port;

struct ConfigPorts;

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;

fn select(address: PciAddress, offset: u16) {
    let value = 1 << 31
        | u32::from(address.bus()) << 16
        | u32::from(address.device()) << 11
        | u32::from(address.function()) << 8
        | u32::from(offset & 0xfc);
    // SAFETY: selects a configuration register, without further effect.
    unsafe { Port::<u32>::new(ADDRESS).write(value) };
}

/// A word of a function's configuration. Only called by the boot CPU.
pub fn read(address: PciAddress, offset: u16) -> u32 {
    select(address, offset);
    // SAFETY: reading the header registers has no side effects.
    unsafe { Port::<u32>::new(DATA).read() }
}

/// The same, written: the caller chose the register and its value.
pub fn write(address: PciAddress, offset: u16, value: u32) {
    select(address, offset);
    // SAFETY: what a device does with its configuration is the caller's business, who drives it.
    unsafe { Port::<u32>::new(DATA).write(value) };
}

impl ConfigRegionAccess for ConfigPorts {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        read(address, offset)
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        write(address, offset, value);
    }
}

pub struct Device {
    /// Physical address of its first memory window.
    pub base: u64,
    /// Device and function on the bus, as an IOMMU counts them.
    pub function: u8,
}

/// Finds a device and makes it a bus master. Only called by the boot CPU.
pub fn enable(vendor: u16, device: u16) -> Option<Device> {
    let ports = &ConfigPorts;
    for slot in 0..32 {
        let header = PciHeader::new(PciAddress::new(0, 0, slot, 0));
        if header.id(ports) != (vendor, device) {
            continue;
        }
        let mut endpoint = EndpointHeader::from_header(header, ports)?;
        let Some(Bar::Memory32 { address, .. }) = endpoint.bar(0, ports) else {
            return None;
        };
        endpoint.update_command(ports, |command| {
            command | CommandRegister::BUS_MASTER_ENABLE | CommandRegister::MEMORY_ENABLE
        });
        return Some(Device { base: u64::from(address), function: slot << 3 });
    }
    None
}
