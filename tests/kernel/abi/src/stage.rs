//! What the programs of the scenes and of the storm are told, packed into one argument.

numbered! {
    /// Situations in which memory is lost by a kernel that leaves something out.
    Scene {
        /// A device writes into a page while its process forks.
        DeviceWrites = 0,
        /// A device reads a page that its process writes after a fork.
        DeviceReads = 1,
        /// A child keeps a reference to a page that it has unmapped (CVE-2020-29374).
        OldReference = 2,
        /// A page that fork has shared is pinned for reading, and written then.
        ReadPin = 3,
        /// Three threads, one page, and a translation that is out of date.
        ThreeThreads = 4,
        /// What is lent through an IOMMU, the device can use; nothing is blocked.
        LentRange = 5,
        /// What is lent for reading, the device cannot write.
        LentForReading = 6,
        /// A device goes on after its memory was taken back and given to another process.
        StrayAccess = 7,
    }
}

/// Argument of [`Program::Scene`](crate::Program::Scene).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SceneRun {
    pub scene: Scene,
    /// Whether the library is replaced by its twin.
    pub twin: bool,
    /// Whether the program tells what it does. It always tells what it did not expect.
    pub verbose: bool,
}

impl SceneRun {
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.scene as u64 | (self.twin as u64) << 8 | (self.verbose as u64) << 9
    }

    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        let (twin, verbose) = (bits & 1 << 8 != 0, bits & 1 << 9 != 0);
        match Scene::from_number(bits & 0xff) {
            Some(scene) => Some(Self { scene, twin, verbose }),
            None => None,
        }
    }
}

/// Argument of [`Program::Storm`](crate::Program::Storm).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StormRun {
    /// Where the random numbers begin.
    pub seed: u32,
    /// Operations of each worker.
    pub rounds: u16,
    /// Processes that work at the same time.
    pub workers: u8,
    /// Whether plain references are taken instead of pins.
    pub twin: bool,
}

impl StormRun {
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.seed as u64 | (self.rounds as u64) << 32 | (self.workers as u64) << 48 | (self.twin as u64) << 56
    }

    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self { seed: bits as u32, rounds: (bits >> 32) as u16, workers: (bits >> 48) as u8, twin: bits & 1 << 56 != 0 }
    }
}
