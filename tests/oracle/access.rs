//! What user code does: loads, stores, instruction fetches, and faults that no instruction causes.

use pagepin::Access;
use pagepin::fault::{Fault, FaultError};
use pagepin::frame::Layout;

use super::reference::{Page, key_denies, whole_pages};
use super::{Effect, PKRU, World};
use crate::machine::{PAGE, READING};

impl<L: Layout> World<'_, L> {
    /// What a fault at `address` comes to, and the page.
    fn faults(&self, who: usize, address: u64, access: Access) -> Result<Page<'_>, FaultError> {
        let page = self.processes[who].1.page(address).ok_or(FaultError::NoVma)?;
        page.permits(access)?;
        Ok(page)
    }

    /// The same for an access of `cpu`, whose protection keys have a say, though not in instruction fetches.
    fn accesses(&self, who: usize, address: u64, access: Access, cpu: usize) -> Result<Page<'_>, FaultError> {
        let page = self.faults(who, address, access)?;
        let denied = key_denies(self.pkru[cpu], page.mapping.key, access == Access::Write);
        if denied && access != Access::Execute { Err(FaultError::ProtectionKey) } else { Ok(page) }
    }

    fn judge_access<T>(
        &self,
        (who, address): (usize, u64),
        result: Result<T, FaultError>,
        wanted: Result<T, FaultError>,
    ) -> Effect
    where
        T: PartialEq + std::fmt::Debug,
    {
        if self.starved() && self.seen.is_elsewhere(who, address) {
            // It may have come for want of memory to copy it.
            assert!(matches!(result, Err(FaultError::NoMemory | FaultError::NotReady(_))), "{result:?}");
            return Effect::Anything;
        }
        if self.starved() {
            assert_eq!(result, Err(FaultError::NoMemory));
            // The object may have the page by now, and nobody shows it.
            return if self.shows_object(who, address) { Effect::Anything } else { Effect::Nothing };
        }
        if self.delayed() {
            assert!(wanted.is_ok() && self.shows_object(who, address));
            assert_eq!(result, Err(FaultError::NotReady(READING)));
            return Effect::Nothing;
        }
        assert_eq!(result, wanted);
        match result {
            // A key is asked when the page is there.
            Ok(_) | Err(FaultError::ProtectionKey) => Effect::Anything,
            Err(_) => Effect::Nothing,
        }
    }

    /// Whether instructions of user code can have the address at all.
    fn is_for_users(&self, address: u64) -> bool {
        whole_pages(self.options.kernel_half.levels(), address & !(PAGE - 1), PAGE).is_ok()
    }

    pub(super) fn load(&mut self, who: usize, address: u64, cpu: usize) -> Effect {
        if !self.is_for_users(address) {
            return Effect::Nothing;
        }
        let result = self.machine.load(cpu, &self.processes[who].0, address, 1);
        let wanted = self.accesses(who, address, Access::Read, cpu).map(|page| match page.register(address) {
            Some(register) => self.registers.get(&register).copied().unwrap_or(0),
            None => page.bytes().unwrap().get(address),
        });
        self.judge_access((who, address), result, wanted.map(u64::from))
    }

    pub(super) fn store(&mut self, who: usize, address: u64, cpu: usize, byte: u8) -> Effect {
        if !self.is_for_users(address) {
            return Effect::Nothing;
        }
        let result = self.machine.store(cpu, &self.processes[who].0, address, u64::from(byte), 1);
        self.adopt(who);
        let page = self.accesses(who, address, Access::Write, cpu);
        let effect = self.judge_access((who, address), result, page.map(|_| ()));
        let places = page.map(|page| (page.register(address), page.bytes()));
        match (result, places) {
            (Ok(()), Ok((Some(register), _))) => _ = self.registers.insert(register, byte),
            (Ok(()), Ok((_, Some(bytes)))) => bytes.set(address, byte),
            _ => {}
        }
        effect
    }

    pub(super) fn execute(&mut self, who: usize, address: u64, cpu: usize) -> Effect {
        if !self.is_for_users(address) {
            return Effect::Nothing;
        }
        let result = self.machine.execute(cpu, &self.processes[who].0, address);
        let wanted = self.accesses(who, address, Access::Execute, cpu).map(|_| ());
        self.judge_access((who, address), result, wanted)
    }

    /// A fault at any address, which hardware might not report.
    pub(super) fn wild_fault(&mut self, who: usize, address: u64, bits: u8) -> Effect {
        let access = [Access::Read, Access::Write, Access::Execute][usize::from(bits % 3)];
        let (key_denied, malformed_table) = (bits & 64 != 0, bits & 128 != 0);
        let result = self.processes[who].0.fault(Fault { address, access, key_denied, malformed_table });
        if malformed_table || key_denied {
            let wanted = if malformed_table { FaultError::MalformedTable } else { FaultError::ProtectionKey };
            assert_eq!(result, Err(wanted));
            return Effect::Nothing;
        }
        if !self.is_for_users(address) {
            assert!(matches!(result, Err(FaultError::Address(_))), "{result:?}");
            return Effect::Nothing;
        }
        if access == Access::Write {
            self.adopt(who);
        }
        let wanted = self.faults(who, address, access).map(|_| ());
        self.judge_access((who, address), result.map(|_| ()), wanted)
    }

    pub(super) fn set_keys(&mut self, cpu: usize, pkru: u32) -> Effect {
        self.machine.cpus().set_pkru(cpu, pkru);
        self.pkru[cpu] = pkru;
        PKRU.set(self.pkru[0]);
        Effect::Nothing
    }
}
