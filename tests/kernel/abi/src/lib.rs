//! What the kernel and its ring-3 programs agree on: call numbers, error codes,
//! layout of the address space, and which programs exist.
//!
//! A call puts its number in `rax` and its arguments in `rdi, rsi, rdx, r10, r8`,
//! executes `syscall` or `int 0x80`, and finds the result in `rax`: a value, or
//! the negated [`Error`]. `rcx` and `r11` are lost.
#![no_std]

/// First address past what a process may use. The last page below the canonical
/// boundary stays out, so that no return address can be non-canonical.
pub const USER_END: u64 = 0x0000_7fff_ffff_f000;
/// Addresses below this are never mapped.
pub const USER_START: u64 = 0x1_0000;
/// Top of the first thread's stack.
pub const STACK_TOP: u64 = 0x0000_7fff_ff00_0000;
/// Size of the first thread's stack.
pub const STACK_BYTES: u64 = 64 * 1024;
/// Reading here with a two-byte instruction traps, and the kernel just steps over
/// it: the cost of the bare trap round trip.
pub const FAULT_PROBE: u64 = 0x8000;

macro_rules! numbered {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u64)]
        pub enum $name { $($(#[$vmeta])* $variant = $value,)* }

        impl $name {
            /// The variant with this number.
            #[must_use]
            pub const fn from_number(number: u64) -> Option<Self> {
                match number {
                    $($value => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

mod device;
mod stage;
mod tally;

pub use device::BlockedAccess;
pub use stage::{Scene, SceneRun, StormRun};
pub use tally::Tally;

numbered! {
    /// System calls. Lengths and offsets are in bytes, times in microseconds.
    Call {
        /// `()`: does nothing.
        Null = 0,
        /// `(addr, len, prot)`: zero-filled memory at exactly this place.
        Map = 1,
        /// `(addr, len)`.
        Unmap = 2,
        /// `(addr, len, prot)`.
        Protect = 3,
        /// `(addr, len)`: contents go, mapping stays and reads as zero.
        Discard = 4,
        /// `() -> pid`, 0 in the child.
        Fork = 5,
        /// `(entry, stack_top, arg)`: a thread in this address space; `arg` arrives in `rdi`.
        SpawnThread = 6,
        /// `()`: ends the calling thread only.
        ExitThread = 7,
        /// `(code)`: ends the process.
        Exit = 8,
        /// `(pid) -> Status` as bits; each process can be waited for once.
        Wait = 9,
        /// `(ptr, len)`: to the console, at most [`WRITE_MAX`] bytes.
        Write = 10,
        /// `() -> index of this CPU`.
        Cpu = 11,
        /// `()`: lets others run.
        Yield = 12,
        /// `(microseconds)`.
        Sleep = 13,
        /// `() -> microseconds since boot`.
        Now = 14,
        /// `(program, arg) -> pid`: a new process.
        SpawnProcess = 15,
        /// `(addr, len, flags) -> handle`: see [`PIN_READ`], [`PIN_WRITE`], [`PIN_LONGTERM`].
        DevPin = 16,
        /// `(handle)`.
        DevUnpin = 17,
        /// `(handle, offset, device offset, len, direction)`: see [`TO_DEVICE`].
        DevDmaStart = 18,
        /// `()`: returns when the device is done.
        DevDmaWait = 19,
        /// `(handle, offset, buf, len)`: reads the pinned frames as the device sees them.
        DevPeek = 20,
        /// `(handle, offset, buf, len)`: writes the pinned frames.
        DevPoke = 21,
        /// `(number, a, b, c) -> value`: left to the memory system under test.
        Mm = 22,
        /// `(slot, value)`: leaves a note for other processes, below [`NOTES`]. Each program begins with zeroes.
        Note = 23,
        /// `(slot) -> value` of the last note.
        ReadNote = 24,
        /// `(handle, offset) -> address` at which the device finds it.
        DevAddress = 25,
        /// `(address, device offset, len, direction)`: a transfer that nobody asked for. Only where an IOMMU can stop it.
        DevStray = 26,
        /// `() -> BlockedAccess`: the first since the last call, as bits.
        DevBlocked = 27,
        /// `(addr, prot)`: zero-filled memory of [`LARGE_BYTES`] as one leaf of that size.
        MapLarge = 28,
        /// `(addr, len, prot, page)`: the device's own memory from this page of it on, see [`DEVICE_PAGES`].
        MapDevice = 29,
        /// `(addr, len, flags, pid) -> handle`: as [`Call::DevPin`], memory of another process.
        DevPinRemote = 30,
        /// `(addr, len, prot, page, shared)`: the file on the disk, from this page of it on, see [`FILE_PAGES`].
        MapFile = 31,
        /// `()`: what was written of the file is on the disk afterwards.
        SyncFile = 32,
        /// `(addr, len) -> pages` that went to swap, and from there to the disk.
        SwapOut = 33,
        /// `(handle, page, direction)`: all that is pinned, between its memory and the disk, past the cache; see [`DIRECT_PAGES`].
        TransferFile = 34,
        /// `(addr, len, prot, page, shared)`: the memory that all processes can show, from this page of it on, see [`SHARED_MEMORY_PAGES`].
        MapMemory = 35,
    }
}

numbered! {
    /// Why a call failed.
    Error {
        /// A pointer argument does not lead to memory of this process.
        Fault = 1,
        /// An argument is out of its range.
        Invalid = 2,
        /// No frame or no table.
        NoMemory = 3,
        /// No such call number.
        NoSuchCall = 4,
        /// No such process, handle or mapping.
        NotFound = 5,
        /// The device or the range is in use.
        Busy = 6,
        /// More processes, threads or handles than the kernel keeps.
        Limit = 7,
        /// Not in this kernel, or not with this memory: device memory cannot be pinned, a large leaf not be split.
        NotSupported = 8,
        /// The memory does not allow what was asked for.
        Denied = 9,
        /// The device is missing.
        NoDevice = 10,
    }
}

numbered! {
    /// Ring-3 programs; the number goes to `_start` in `rdi`, the argument in `rsi`.
    Program {
        Hello = 0,
        NullCalls = 1,
        BadCalls = 2,
        PageFault = 3,
        GeneralProtection = 4,
        Threads = 5,
        Children = 6,
        Memory = 7,
        Fork = 8,
        ThreadDies = 9,
        Sleep = 10,
        Cost = 11,
        HostileRegisters = 12,
        Faults = 13,
        Scene = 20,
        Storm = 21,
        BadPins = 22,
        KernelCopies = 23,
        Files = 24,
        DirectIo = 25,
        Swap = 26,
    }
}

/// Bits of a protection argument; readable is implied.
pub const PROT_WRITE: u64 = 1;
/// See [`PROT_WRITE`].
pub const PROT_EXEC: u64 = 2;
/// No access at all; goes with no other bit.
pub const PROT_NONE: u64 = 4;

/// The device reads the range.
pub const PIN_READ: u64 = 1;
/// The device writes the range.
pub const PIN_WRITE: u64 = 2;
/// The pin may stay for long.
pub const PIN_LONGTERM: u64 = 4;
/// Not a pin but a plain reference: what a kernel without pins would take.
pub const PIN_PLAIN: u64 = 8;
/// Giving it back leaves what the IOMMU has cached: what a kernel may forget.
pub const PIN_KEEP_CACHED: u64 = 16;

numbered! {
    /// What [`Call::Mm`] can be asked.
    MmCall {
        /// `(addr, len, name)`: prints the pages and the frames behind them; `name` is up to 8 letters.
        Picture = 0,
        /// `(addr) -> FrameBits`: 0 if nothing is mapped.
        Frame = 1,
        /// `(microseconds)`: every TLB flush of the memory system begins that much later.
        DelayFlushes = 2,
        /// `(twin)`: the faults of this address space go to a hand-rolled handler first.
        Twin = 3,
        /// `() -> pins that are held now, by anyone`.
        PinsHeld = 4,
        /// `()`: prints all frames that hold memory of processes.
        Memory = 5,
        /// `(addr) -> physical address` of the page: 0 if nothing is mapped.
        PhysicalAddress = 6,
    }
}

/// The library alone.
pub const TWIN_NONE: u64 = 0;
/// Reuses a page that only one address space maps.
pub const TWIN_MAPCOUNT: u64 = 1;
/// Maps a copy before the old translation is flushed.
pub const TWIN_PUBLISH_FIRST: u64 = 2;

/// What [`MmCall::Frame`] says about a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameBits {
    pub present: bool,
    pub writable: bool,
    pub exclusive: bool,
    pub pins: u16,
    pub refs: u16,
}

impl FrameBits {
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.present as u64
            | (self.writable as u64) << 1
            | (self.exclusive as u64) << 2
            | (self.pins as u64) << 16
            | (self.refs as u64) << 32
    }

    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            present: bits & 1 != 0,
            writable: bits & 2 != 0,
            exclusive: bits & 4 != 0,
            pins: (bits >> 16) as u16,
            refs: (bits >> 32) as u16,
        }
    }
}

/// Directions of a transfer.
pub const TO_DEVICE: u64 = 0;
/// See [`TO_DEVICE`].
pub const FROM_DEVICE: u64 = 1;

/// Alignment and size of what [`Call::MapLarge`] maps.
pub const LARGE_BYTES: u64 = 2 << 20;
/// Pages of memory that a device has of its own, and that programs may map. Holds what was stored last, whoever did.
pub const DEVICE_PAGES: u64 = 512;

/// Pages of the disk: first those of the file.
pub const FILE_PAGES: u64 = 32;
/// Pages of the file that are written through one mapping.
pub const SHARED_PAGES: u64 = 16;
/// Behind the file: pages for [`Call::TransferFile`].
pub const DIRECT_PAGES: u64 = 32;
/// And behind these: swap.
pub const SWAP_PAGES: u64 = 128;

/// Pages of [`Call::MapMemory`]: zeroes, until a process stores something there, and again when no process is left.
pub const SHARED_MEMORY_PAGES: u64 = 4096;

/// How many notes there are.
pub const NOTES: u64 = 8;

/// Longest single [`Call::Write`].
pub const WRITE_MAX: u64 = 512;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// By [`Call::Exit`], or with its last thread (code 0).
    Exited(u32),
    /// By an exception with this vector.
    Killed(u8),
}

impl Status {
    const KILLED: u64 = 1 << 32;

    /// As [`Call::Wait`] returns it.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        match self {
            Self::Exited(code) => code as u64,
            Self::Killed(vector) => Self::KILLED | vector as u64,
        }
    }

    /// Inverse of [`Status::to_bits`].
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        if bits & Self::KILLED == 0 { Self::Exited(bits as u32) } else { Self::Killed(bits as u8) }
    }
}
