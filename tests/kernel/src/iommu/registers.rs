//! The unit's registers (VT-d specification, "Register Descriptions"). Invalidation goes
//! through registers, not through the queue: slower, and over when the register says so.

use pagepin_abi::Error;

use super::tables::DOMAIN;
use crate::{memory, poll, time};

/// Where this chipset (q35) has its only unit. A real kernel asks the DMAR table.
const BASE: u64 = 0xfed9_0000;

const VERSION: u64 = 0x00;
const CAPABILITY: u64 = 0x08;
const EXTENDED_CAPABILITY: u64 = 0x10;
const GLOBAL_COMMAND: u64 = 0x18;
const GLOBAL_STATUS: u64 = 0x1c;
const ROOT_TABLE: u64 = 0x20;
const CONTEXT_COMMAND: u64 = 0x28;
const FAULT_STATUS: u64 = 0x34;

/// Capability: writes to the tables need a flush of a buffer; absent entries are cached;
/// tables of three levels; single pages can be invalidated.
const NEEDS_WRITE_FLUSH: u64 = 1 << 4;
const CACHES_ABSENT: u64 = 1 << 7;
const THREE_LEVELS: u64 = 1 << 9;
const BY_PAGE: u64 = 1 << 39;

/// Global command and status: translation is on; the root table is taken over.
const TRANSLATE: u32 = 1 << 31;
const SET_ROOT: u32 = 1 << 30;
/// Status bits that a command has to repeat to keep what they stand for.
const LASTING: u32 = 0x96ff_ffff;

/// Top bit of both invalidation commands: set to begin, clear when over.
const UNDER_WAY: u64 = 1 << 63;
const CONTEXT_ALL: u64 = 1 << 61;
const IOTLB_ALL: u64 = 1 << 60;
const IOTLB_PAGE: u64 = 3 << 60;
/// Reads and writes of the device that are on their way go first.
const DRAIN: u64 = 3 << 48;
const DOMAIN_SHIFT: u32 = 32;

/// Fault status: faults came that found no free record.
const FAULT_OVERFLOW: u32 = 1;
/// Upper half of a fault record: there is one; it was a read.
const FAULTED: u64 = 1 << 63;
const WAS_READ: u64 = 1 << 62;

/// Far more than the unit takes for anything.
const PATIENCE_US: u64 = 1_000_000;

/// An access that was blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Page of the device's address space.
    pub page: u64,
    /// Bus, device and function.
    pub source: u16,
    /// As the specification numbers them: 5 is a write, 6 a read that no entry permits.
    pub reason: u8,
    pub write: bool,
}

pub struct Unit {
    /// Offsets of the registers whose place the unit chooses.
    iotlb: u64,
    fault_record: u64,
}

fn read32(offset: u64) -> u32 {
    // SAFETY: the direct map covers the 4 GiB below which the registers are; reading one
    // has no effect, and where no unit is nobody answers.
    unsafe { memory::direct(BASE + offset).cast::<u32>().read_volatile() }
}

fn read64(offset: u64) -> u64 {
    // SAFETY: as above.
    unsafe { memory::direct(BASE + offset).cast::<u64>().read_volatile() }
}

fn write32(offset: u64, value: u32) {
    // SAFETY: as above. Only called once a unit was found; what the unit then does to
    // memory the tables decide, which map what is lent and nothing else.
    unsafe { memory::direct(BASE + offset).cast::<u32>().write_volatile(value) };
}

fn write64(offset: u64, value: u64) {
    // SAFETY: as above.
    unsafe { memory::direct(BASE + offset).cast::<u64>().write_volatile(value) };
}

/// A unit that does not come to an end leaves the device with access that nobody can take
/// back: there is nothing to go on with.
fn wait(what: &str, done: impl Fn() -> bool) {
    let end = time::now() + PATIENCE_US;
    poll::until(|| {
        assert!(time::now() < end, "the IOMMU does not end: {what}");
        done()
    });
}

impl Unit {
    /// The machine's unit, if it is there and of the kind that this driver is for.
    pub fn find() -> Result<Self, Error> {
        if !matches!(read32(VERSION), 0x10..=0xff) {
            return Err(Error::NoDevice);
        }
        let capability = read64(CAPABILITY);
        let wanted = THREE_LEVELS | BY_PAGE;
        if capability & wanted != wanted || capability & (NEEDS_WRITE_FLUSH | CACHES_ABSENT) != 0 {
            return Err(Error::NotSupported);
        }
        let iotlb = (read64(EXTENDED_CAPABILITY) >> 8 & 0x3ff) * 16;
        let fault_record = (capability >> 24 & 0x3ff) * 16;
        Ok(Self { iotlb, fault_record })
    }

    fn command(bit: u32) {
        write32(GLOBAL_COMMAND, read32(GLOBAL_STATUS) & LASTING | bit);
        wait("a command", || read32(GLOBAL_STATUS) & bit != 0);
    }

    /// Takes over the tables and translates from then on.
    pub fn translate(&self, root_table: u64) -> Result<(), Error> {
        if read32(GLOBAL_STATUS) & TRANSLATE != 0 {
            return Err(Error::Busy);
        }
        write64(ROOT_TABLE, root_table);
        Self::command(SET_ROOT);
        write64(CONTEXT_COMMAND, UNDER_WAY | CONTEXT_ALL);
        wait("invalidation of contexts", || read64(CONTEXT_COMMAND) & UNDER_WAY == 0);
        self.invalidate_all();
        Self::command(TRANSLATE);
        self.take_fault();
        Ok(())
    }

    pub fn invalidate_all(&self) {
        self.invalidate(IOTLB_ALL);
    }

    /// Forgets one page of the domain's address space.
    pub fn invalidate_page(&self, page: u64) {
        // The address register is in front of the command's. Its low bits, here 0, say that
        // it is one page and that upper entries may have changed as well.
        write64(self.iotlb, page);
        self.invalidate(IOTLB_PAGE | DOMAIN << DOMAIN_SHIFT);
    }

    fn invalidate(&self, what: u64) {
        let command = self.iotlb + 8;
        // The tables were written before this, and `tables` has put a fence behind it.
        write64(command, UNDER_WAY | what | DRAIN);
        wait("invalidation", || read64(command) & UNDER_WAY == 0);
    }

    /// Reads the one fault record that is used, and clears it and the overflow: further
    /// faults are recorded only then.
    pub fn take_fault(&self) -> Option<Fault> {
        let (low, high) = (read64(self.fault_record), read64(self.fault_record + 8));
        if high & FAULTED != 0 {
            write64(self.fault_record + 8, FAULTED);
        }
        write32(FAULT_STATUS, FAULT_OVERFLOW);
        (high & FAULTED != 0).then_some(Fault {
            page: low & !0xfff,
            source: high as u16,
            reason: (high >> 32) as u8,
            write: high & WAS_READ == 0,
        })
    }
}
