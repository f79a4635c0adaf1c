//! QEMU's firmware configuration device, read through its ports
//! (docs/specs/fw_cfg.rst in QEMU). `-fw_cfg name=opt/pagepin/mode,string=bench`
//! chooses what one and the same image does.

use alloc::{string::String, vec, vec::Vec};

use x86_64::instructions::port::Port;

const SELECTOR: u16 = 0x510;
const DATA: u16 = 0x511;
const KEY_SIGNATURE: u16 = 0x00;
const KEY_CPU_COUNT: u16 = 0x05;
const KEY_DIRECTORY: u16 = 0x19;
/// A longer value is not meant for us.
const VALUE_MAX: usize = 4096;

/// Selecting an item starts reading at its beginning.
fn select(key: u16) {
    // SAFETY: the selector port of fw_cfg has no effect on memory.
    unsafe { Port::<u16>::new(SELECTOR).write(key) };
}

fn byte() -> u8 {
    // SAFETY: as above; reading advances the device's cursor only.
    unsafe { Port::<u8>::new(DATA).read() }
}

fn bytes<const N: usize>() -> [u8; N] {
    core::array::from_fn(|_| byte())
}

fn is_present() -> bool {
    select(KEY_SIGNATURE);
    bytes() == *b"QEMU"
}

/// How many CPUs the machine has; their APIC identifiers are `0..count` as long as
/// the topology on the command line is the plain `-smp N`.
pub fn cpu_count() -> Option<u16> {
    if !is_present() {
        return None;
    }
    select(KEY_CPU_COUNT);
    Some(u16::from_le_bytes(bytes()))
}

/// The string stored under `name`.
pub fn string(name: &str) -> Option<String> {
    if !is_present() {
        return None;
    }
    select(KEY_DIRECTORY);
    let count = u32::from_be_bytes(bytes());
    for _ in 0..count {
        let size = u32::from_be_bytes(bytes()) as usize;
        let key = u16::from_be_bytes(bytes());
        let _reserved: [u8; 2] = bytes();
        let entry: [u8; 56] = bytes();
        let entry_name = entry.split(|&b| b == 0).next();
        if entry_name == Some(name.as_bytes()) && size <= VALUE_MAX {
            select(key);
            let mut value: Vec<u8> = vec![0; size];
            value.fill_with(byte);
            return String::from_utf8(value).ok();
        }
    }
    None
}
