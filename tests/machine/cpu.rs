//! Emulated CPUs: TLBs and paging-structure caches that forget only when told to, and a page walker written from the
//! Intel SDM (vol. 3, chapter 4), not from the library.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use pagepin::Access;
use pagepin::fault::FaultError;
use pagepin::frame::Layout;
use pagepin::{AddressSpace, EntryAddr, Levels, PAGE_SIZE, Pfn, fault_from_error_code};
use x86_64::structures::idt::PageFaultErrorCode as Code;

use super::Machine;
use crate::kit::{self, Attempt};

/// CPUs of every machine.
pub(crate) const CPUS: usize = 4;
/// Physical address bits; the ones above, up to bit 51, are reserved in entries.
const PHYSICAL_BITS: u32 = 46;
/// How often an access is tried again after its fault was resolved.
const MAX_RETRIES: usize = 8;

/// One cached translation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Translation {
    pub(crate) root: Pfn,
    pub(crate) base: u64,
    bytes: u64,
    pub(crate) physical: u64,
    pub(crate) writable: bool,
    pub(crate) executable: bool,
    key: u32,
    /// The field of the PAT that says how it is accessed.
    memory_type: u8,
    /// The dirty bit was set when it was loaded, so a write needs no walk.
    dirty: bool,
}

/// One cached upper entry: walks of its region begin at `table`.
#[derive(Clone, Copy, Debug)]
struct Upper {
    root: Pfn,
    base: u64,
    bytes: u64,
    table: Pfn,
    /// Level of `table`.
    level: u32,
    user: bool,
    writable: bool,
    executable: bool,
}

#[derive(Default)]
struct Cpu {
    tlb: Vec<Translation>,
    uppers: Vec<Upper>,
    pkru: u32,
}

/// All CPUs.
pub(crate) struct Cpus {
    cpus: RefCell<[Cpu; CPUS]>,
}

impl Cpus {
    pub(super) fn new() -> Self {
        Self { cpus: RefCell::new(std::array::from_fn(|_| Cpu::default())) }
    }

    /// The answer to a shootdown.
    pub(super) fn forget(&self, root: Pfn, first: u64, end: u64) {
        let inside = |base: u64, bytes: u64| base < end && first < base + bytes;
        for cpu in self.cpus.borrow_mut().iter_mut() {
            cpu.tlb.retain(|entry| entry.root != root || !inside(entry.base, entry.bytes));
        }
    }

    /// And if tables were unlinked.
    pub(super) fn forget_uppers(&self, root: Pfn, first: u64, end: u64) {
        let inside = |base: u64, bytes: u64| base < end && first < base + bytes;
        for cpu in self.cpus.borrow_mut().iter_mut() {
            cpu.uppers.retain(|upper| upper.root != root || !inside(upper.base, upper.bytes));
        }
    }

    /// INV-12: nobody can reach a frame that is being freed.
    pub(super) fn assert_forgotten(&self, frame: Pfn) {
        for (number, cpu) in self.cpus.borrow().iter().enumerate() {
            let maps = |entry: &&Translation| (entry.physical..entry.physical + entry.bytes).contains(&frame.address());
            if let Some(entry) = cpu.tlb.iter().find(maps) {
                panic!("INV-12: {frame:?} is freed, but CPU {number} still has {entry:x?}");
            }
            let upper = cpu.uppers.iter().find(|upper| upper.table == frame || upper.root == frame);
            assert!(upper.is_none(), "INV-12: table {frame:?} is freed, but CPU {number} still has {upper:x?}");
        }
    }

    /// What the TLBs hold.
    pub(crate) fn translations(&self) -> Vec<Translation> {
        self.cpus.borrow().iter().flat_map(|cpu| cpu.tlb.iter().copied()).collect()
    }

    /// Whether the TLB of `cpu` permits it to fetch from `address`.
    fn executes(&self, cpu: usize, root: Pfn, address: u64) -> bool {
        let covers = |entry: &&Translation| entry.root == root && address.wrapping_sub(entry.base) < entry.bytes;
        self.cpus.borrow()[cpu].tlb.iter().find(covers).is_some_and(|entry| entry.executable)
    }

    pub(crate) fn set_pkru(&self, cpu: usize, pkru: u32) {
        self.cpus.borrow_mut()[cpu].pkru = pkru;
    }
}

/// What one attempt to access memory came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trap {
    /// Not a canonical address.
    GeneralProtection,
    PageFault(Code),
}

fn canonical(levels: Levels, address: u64) -> bool {
    let bits = if levels == Levels::Four { 48 } else { 57 };
    let upper = address >> (bits - 1);
    upper == 0 || upper == u64::MAX >> (bits - 1)
}

struct Walker<'m, L: Layout> {
    machine: &'m Machine<L>,
    cpu: usize,
    root: Pfn,
    levels: Levels,
    access: Access,
}

impl<L: Layout> Walker<'_, L> {
    fn fault(&self, mut code: Code) -> Trap {
        code |= Code::USER_MODE;
        code.set(Code::CAUSED_BY_WRITE, self.access == Access::Write);
        code.set(Code::INSTRUCTION_FETCH, self.access == Access::Execute);
        Trap::PageFault(code)
    }

    /// Section 4.6: the rights of the whole path, then the protection key, for data accesses only.
    fn check(&self, user: bool, writable: bool, executable: bool, key: u32) -> Result<(), Trap> {
        let allowed = user
            && match self.access {
                Access::Read => true,
                Access::Write => writable,
                Access::Execute => executable,
            };
        if !allowed {
            return Err(self.fault(Code::PROTECTION_VIOLATION));
        }
        let rights = self.machine.cpus().cpus.borrow()[self.cpu].pkru >> (2 * key);
        let denied = rights & 1 != 0 || (rights & 2 != 0 && self.access == Access::Write);
        if denied && self.access != Access::Execute {
            return Err(self.fault(Code::PROTECTION_VIOLATION | Code::PROTECTION_KEY));
        }
        Ok(())
    }

    /// Tables 4-14 to 4-20: which bits must be 0.
    fn reserved(level: u32, entry: u64) -> bool {
        let physical = (1u64 << 52) - (1 << PHYSICAL_BITS);
        let page_size = entry & 0x80 != 0;
        let by_level = match level {
            4 | 5 => 0x80,
            3 if page_size => 0x3fff_e000,
            2 if page_size => 0x1f_e000,
            _ => 0,
        };
        entry & (physical | by_level) != 0
    }

    /// Table 4-13 and section 4.9.2: PWT, PCD, and PAT by the size of the page.
    fn memory_type(level: u32, entry: u64) -> u8 {
        let bit = |number: u32| (entry >> number & 1) as u8;
        bit(3) | bit(4) << 1 | bit(if level == 1 { 7 } else { 12 }) << 2
    }

    fn walk(&self, address: u64) -> Result<Translation, Trap> {
        let top = super::depth(self.levels);
        let cached = {
            let cpus = self.machine.cpus().cpus.borrow();
            let covers = |upper: &&Upper| upper.root == self.root && address.wrapping_sub(upper.base) < upper.bytes;
            cpus[self.cpu].uppers.iter().filter(covers).min_by_key(|upper| upper.level).copied()
        };
        let (mut table, mut level) = (self.root, top);
        let (mut user, mut writable, mut executable) = (true, true, true);
        if let Some(upper) = cached {
            (table, level) = (upper.table, upper.level);
            (user, writable, executable) = (upper.user, upper.writable, upper.executable);
        }
        loop {
            let shift = 12 + 9 * (level - 1);
            let bytes = 1u64 << shift;
            let slot = self.machine.slot(EntryAddr::new(table, (address >> shift) & 511));
            let entry = slot.load(Ordering::Relaxed);
            if entry & 1 == 0 {
                return Err(self.fault(Code::empty()));
            }
            if Self::reserved(level, entry) {
                return Err(self.fault(Code::PROTECTION_VIOLATION | Code::MALFORMED_TABLE));
            }
            user &= entry & 4 != 0;
            writable &= entry & 2 != 0;
            executable &= entry >> 63 == 0;
            let leaf = level == 1 || entry & 0x80 != 0;
            let (mut set, key) = (0x20, (entry >> 59 & 15) as u32);
            if leaf {
                self.check(user, writable, executable, key)?;
                if self.access == Access::Write {
                    set |= 0x40;
                }
            }
            if slot.compare_exchange(entry, entry | set, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            let base = address & !(bytes - 1);
            if leaf {
                let physical = entry & 0x000f_ffff_ffff_f000 & !(bytes - 1);
                let dirty = (entry | set) & 0x40 != 0;
                let memory_type = Self::memory_type(level, entry);
                let root = self.root;
                return Ok(Translation { root, base, bytes, physical, writable, executable, key, memory_type, dirty });
            }
            table = Pfn::containing(entry & 0x000f_ffff_ffff_f000);
            level -= 1;
            let upper = Upper { root: self.root, base, bytes, table, level, user, writable, executable };
            let uppers = &mut self.machine.cpus().cpus.borrow_mut()[self.cpu].uppers;
            if !uppers.iter().any(|known| (known.root, known.base, known.level) == (self.root, base, level)) {
                uppers.push(upper);
            }
        }
    }

    /// Where the access goes, through the TLB. A fault drops what the TLB had for the address (section 4.10.4.1).
    fn translate(&self, address: u64) -> Result<u64, Trap> {
        if !canonical(self.levels, address) {
            return Err(Trap::GeneralProtection);
        }
        let covers = |entry: &Translation| entry.root == self.root && address.wrapping_sub(entry.base) < entry.bytes;
        let cached = self.machine.cpus().cpus.borrow()[self.cpu].tlb.iter().find(|entry| covers(entry)).copied();
        let result = match cached {
            Some(hit) if hit.dirty || self.access != Access::Write => {
                self.check(true, hit.writable, hit.executable, hit.key).map(|()| hit)
            }
            _ => self.walk(address),
        };
        let mut cpus = self.machine.cpus().cpus.borrow_mut();
        let cpu = &mut cpus[self.cpu];
        match result {
            Ok(entry) => {
                cpu.tlb.retain(|known| !covers(known));
                cpu.tlb.push(entry);
                let physical = entry.physical + (address - entry.base);
                self.machine.memory().check_type(physical, entry.memory_type);
                Ok(physical)
            }
            Err(trap) => {
                cpu.tlb.retain(|known| !covers(known));
                let root = self.root;
                cpu.uppers.retain(|upper| upper.root != root || address.wrapping_sub(upper.base) >= upper.bytes);
                Err(trap)
            }
        }
    }
}

type Space<'k, L> = super::Process<'k, L>;

impl<L: Layout> Machine<L> {
    /// One attempt of `cpu` to access the byte at `address`: the physical address, or the trap. Nothing is resolved.
    pub(crate) fn attempt(&self, cpu: usize, space: &Space<'_, L>, address: u64, access: Access) -> Result<u64, Trap> {
        self.protocol().runs_on(space.root());
        Walker { machine: self, cpu, root: space.root(), levels: space.mm().levels(), access }.translate(address)
    }

    /// An access with its faults resolved.
    fn access(&self, cpu: usize, space: &Space<'_, L>, address: u64, access: Access) -> Result<u64, FaultError> {
        let attempt = || match self.attempt(cpu, space, address, access) {
            Ok(physical) => Attempt::Done(physical),
            Err(Trap::GeneralProtection) => panic!("{address:#x} is not canonical"),
            Err(Trap::PageFault(code)) => Attempt::Fault(fault_from_error_code(address, code)),
        };
        kit::access(MAX_RETRIES, attempt, |fault| space.fault(fault))
    }

    /// User code on `cpu` loads `length` (1..=8) bytes.
    pub(crate) fn load(&self, cpu: usize, space: &Space<'_, L>, address: u64, length: u64) -> Result<u64, FaultError> {
        let mut bytes = [0; 8];
        for i in 0..length {
            bytes[i as usize] = self.memory().read(self.access(cpu, space, address + i, Access::Read)?);
        }
        Ok(u64::from_le_bytes(bytes))
    }

    /// User code on `cpu` stores the low `length` (1..=8) bytes of `value`; all or none, as an instruction does.
    pub(crate) fn store(
        &self,
        cpu: usize,
        space: &Space<'_, L>,
        address: u64,
        value: u64,
        length: u64,
    ) -> Result<(), FaultError> {
        self.access(cpu, space, address, Access::Write)?;
        self.access(cpu, space, address + length - 1, Access::Write)?;
        for i in 0..length {
            let physical = self.access(cpu, space, address + i, Access::Write)?;
            self.memory().write(physical, value.to_le_bytes()[i as usize]);
            // Code that writes code does what its CPU asks for.
            if self.cpus().executes(cpu, space.root(), address + i) {
                self.memory().sync_instructions(Pfn::containing(physical), 1);
            }
        }
        Ok(())
    }

    /// User code on `cpu` executes the byte at `address`.
    pub(crate) fn execute(&self, cpu: usize, space: &Space<'_, L>, address: u64) -> Result<(), FaultError> {
        self.access(cpu, space, address, Access::Execute).map(|physical| self.memory().fetch(physical))
    }

    /// CPU 0 loads one byte.
    #[track_caller]
    pub(crate) fn get(&self, space: &Space<'_, L>, address: u64) -> u8 {
        self.load(0, space, address, 1).unwrap() as u8
    }

    /// CPU 0 stores one byte.
    #[track_caller]
    pub(crate) fn put(&self, space: &Space<'_, L>, address: u64, byte: u8) {
        self.store(0, space, address, u64::from(byte), 1).unwrap();
    }

    /// CPU 0 stores one byte in each of `pages` pages: `first`, `first + 1`, …
    #[track_caller]
    pub(crate) fn put_pages(&self, space: &Space<'_, L>, address: u64, pages: u64, first: u8) {
        (0..pages).for_each(|page| self.put(space, address + page * PAGE_SIZE, first.wrapping_add(page as u8)));
    }
}
