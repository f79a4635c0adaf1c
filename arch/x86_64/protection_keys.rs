//! Protection keys for user pages (SDM vol. 3, 4.6.2): a 4-bit key in each leaf, two bits of rights per key in PKRU.

use crate::rights::Access;

/// What each of the 16 protection keys denies at the moment: the value of PKRU.
///
/// ```
/// use pagepin::Access::{Execute, Read, Write};
/// use pagepin::KeyRights;
/// let rights = KeyRights::from_pkru(0b10 << 2); // key 1: no writing
/// assert!(rights.permits(1, Read) && !rights.permits(1, Write) && rights.permits(0, Write));
/// assert!(KeyRights::from_pkru(0b01 << 2).permits(1, Execute), "no key stands in the way of a fetch");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRights {
    pkru: u32,
}

impl KeyRights {
    /// Nothing is denied: protection keys are off, or the access is not made on behalf of the running thread.
    pub const ALLOW_ALL: Self = Self { pkru: 0 };

    /// From the PKRU register: bit `2k` denies all access through key `k`, bit `2k + 1` denies writes.
    #[must_use]
    pub const fn from_pkru(pkru: u32) -> Self {
        Self { pkru }
    }

    /// Whether key `key` (0..16) permits the access.
    #[must_use]
    pub const fn permits(self, key: u8, access: Access) -> bool {
        let denied = match access {
            Access::Read => self.denied(false),
            Access::Write => self.denied(true),
            Access::Execute => 0,
        };
        denied & (1 << (key & 15)) == 0
    }

    /// One bit for each key: set if the access is denied.
    #[inline(always)]
    pub(crate) const fn denied(self, write: bool) -> u16 {
        if self.pkru == 0 { 0 } else { self.denied_by_some(write) }
    }

    #[cold]
    const fn denied_by_some(self, write: bool) -> u16 {
        let (mut denied, mut key) = (0, 0);
        while key < 16 {
            let rights = self.pkru >> (2 * key);
            if rights & 1 != 0 || (write && rights & 2 != 0) {
                denied |= 1 << key;
            }
            key += 1;
        }
        denied
    }
}
