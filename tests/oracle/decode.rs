//! From bytes to operations: [`RECORD`] bytes each, after one byte for the machine. Every string of bytes is a script.

use std::ops::Range;

use pagepin::pin::PinFlags;
use pagepin::space::Advice;
use pagepin::{LeafSize, Levels, MemoryType, Pfn, Rights, VmaFlags};

use crate::forms::{FORMS, Form};
use crate::machine::{CPUS, NONE, PAGE, R, RW, RX};

use super::FILES;

/// Bytes that an operation takes; what is missing at the end is 0.
pub(crate) const RECORD: usize = 9;
/// Operations in the longest script; what comes after is ignored.
pub(crate) const MAX_OPS: usize = 100;

/// The windows that most addresses lie in: six pages on each side of a table's edge; on a machine with large leaves,
/// where one can begin and end here, also of the next.
const EDGE: u64 = 0x7f_1220_0000;
const LARGE: u64 = LeafSize::Size2MiB.bytes();
const WINDOW: u64 = 6;
/// Addresses at which something ends.
const EDGES: [u64; 12] = [
    0,
    1,
    PAGE,
    u64::MAX,
    u64::MAX - PAGE + 1,
    1 << 47,
    (1 << 47) - PAGE,
    (1 << 47) - 2 * PAGE,
    1 << 56,
    (1 << 56) - 2 * PAGE,
    1 << 63,
    0xffff_8000_0000_0000,
];
const LENGTHS: [u64; 5] = [0, u64::MAX, 1 << 46, 1 << 57, u64::MAX - PAGE + 1];
const LARGE_LENGTHS: [u64; 8] = [LARGE, LARGE, LARGE, LARGE, 2 * LARGE, 3 * LARGE, LARGE - PAGE, LARGE + PAGE];
/// Values of a record's length that stand for those of large leaves, and those for which it begins with one, too.
const LARGE_SIZES: Range<u8> = 100..200;
const WHOLE_LEAVES: Range<u8> = 100..180;
const RIGHTS: [Rights; 8] = [RW, RW, RW, R, RX, NONE, Rights::all(), Rights::WRITE];
const FLAGS: [PinFlags; 16] = [
    PinFlags::empty(),
    PinFlags::empty(),
    PinFlags::FORCE,
    PinFlags::NOFAULT,
    PinFlags::LONGTERM,
    PinFlags::NOFAULT.union(PinFlags::FORCE),
    PinFlags::NOFAULT.union(PinFlags::LONGTERM),
    PinFlags::NOFAULT.union(PinFlags::LONGTERM).union(PinFlags::FORCE),
    PinFlags::empty(),
    PinFlags::NOFAULT,
    PinFlags::SOLE,
    PinFlags::SOLE,
    PinFlags::SOLE.union(PinFlags::LONGTERM),
    PinFlags::SOLE.union(PinFlags::NOFAULT),
    PinFlags::SOLE.union(PinFlags::FORCE),
    PinFlags::SOLE.union(PinFlags::NOFAULT).union(PinFlags::LONGTERM),
];
/// What a VMA does about pinned pages.
const POLICIES: [VmaFlags; 8] = [
    VmaFlags::empty(),
    VmaFlags::REFUSE_PROTECT_PINNED,
    VmaFlags::REFUSE_UNMAP_PINNED,
    VmaFlags::DEFER_UNMAP_PINNED,
    VmaFlags::DEFER_UNMAP_PINNED,
    VmaFlags::REFUSE_PROTECT_PINNED.union(VmaFlags::REFUSE_UNMAP_PINNED),
    VmaFlags::REFUSE_PROTECT_PINNED.union(VmaFlags::DEFER_UNMAP_PINNED),
    VmaFlags::DEFER_UNMAP_PINNED.union(VmaFlags::DONT_FORK),
];
/// First frames of the devices, by what they are accessed as. None is mapped over two of them.
pub(crate) const DEVICES: [(Pfn, MemoryType); 3] = [
    (Pfn::new(0xfee0), MemoryType::UNCACHED),
    (Pfn::new(0xf000), MemoryType::WRITE_COMBINING),
    (Pfn::new(0xe000), MemoryType::WRITE_BACK),
];
const ADVICE: [Advice; 6] =
    [Advice::DontFork, Advice::DontFork, Advice::WipeOnFork, Advice::WipeOnFork, Advice::DoFork, Advice::KeepOnFork];
/// Most pages of an object.
pub(crate) const OBJECT_PAGES: u32 = 8;
/// Pages that a process may pin where that is limited: on a machine with large leaves two of them more.
const PIN_LIMIT: u64 = 12;
const PIN_LIMIT_WITH_LARGE: u64 = PIN_LIMIT + 2 * LARGE / PAGE;

/// The arguments of a pin or a get.
#[derive(Clone, Debug)]
pub(crate) struct Acquire {
    pub(crate) start: u64,
    pub(crate) length: u64,
    pub(crate) write: bool,
    pub(crate) flags: PinFlags,
    pub(crate) form: Form,
    pub(crate) buffer: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Map(u64, u64, Rights),
    /// With an upper bound on later rights, a protection key, and what is done about pinned pages, or that nobody pins them.
    MapWithKey(u64, u64, Rights, Rights, u8, VmaFlags),
    MapForeign(u64, u64, Rights, Pfn),
    /// Pages of an object: which, from which page on, and whether they are shared.
    MapObject(u64, u64, Rights, (usize, u32, bool)),
    /// An object is cut off, or grows.
    SetLength(usize, u32),
    Punch(usize, u32),
    /// What is not pinned.
    WriteBack(usize),
    /// By the object's number and the pages'.
    PinObject(usize, Range<u32>, Acquire),
    /// So many look-ups of pages find that they are not ready.
    Delay(u64),
    /// One large leaf.
    MapLarge(u64, Rights, u8),
    Unmap(u64, u64),
    Protect(u64, u64, Rights),
    Discard(u64, u64),
    Advise(u64, u64, Advice),
    FinishDeferred,
    SwapOut(u64, u64),
    /// What slots remember goes to the disk.
    WriteOut,
    /// What user space gives up, and the kernel takes when it wants it.
    FreeLazily(u64, u64),
    ReclaimFreed(u64, u64),
    Relocate(u64, u64),
    Move(u64, u64, u64),
    /// A page and another process's, or one of the same process.
    Merge(u64, usize, u64),
    Load(u64, usize),
    Store(u64, usize, u8),
    Execute(u64, usize),
    Fork,
    Exit,
    Pin(Acquire),
    Get(Acquire),
    Unpin(usize),
    Put(usize),
    DeviceWrite(usize, u64, u8),
    DeviceRead(usize, u64),
    WildFault(u64, u8),
    /// From now on the CPU's threads have this PKRU.
    Keys(usize, u32),
}

/// What a run does, and on which machine.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) levels: Levels,
    /// Frames are not handed out in order.
    pub(crate) scattered: bool,
    pub(crate) words: Words,
    /// What every VMA does about pinned pages that is not mapped otherwise.
    pub(crate) policy: VmaFlags,
    pub(crate) zero_frame: bool,
    pub(crate) pin_limit: u64,
    /// There is memory for large leaves. That takes time, so it takes two bits.
    pub(crate) large: bool,
    pub(crate) steps: Vec<Step>,
}

/// Layouts of frame words.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Words {
    Wide,
    Split23x8,
    Split23x4x4,
    Biased10,
}

#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// The number of the process that does it.
    pub(crate) who: usize,
    pub(crate) op: Op,
    /// Allocations that succeed before memory runs out.
    pub(crate) allowed: Option<u64>,
}

impl Script {
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let (machine, records) = bytes.split_first().unwrap_or((&0, &[]));
        let bit = |number: u8| machine >> number & 1 != 0;
        let large = bit(6) && bit(7);
        Self {
            levels: if bit(0) { Levels::Five } else { Levels::Four },
            scattered: bit(1),
            words: match (bit(7) && !large, bit(2)) {
                (false, false) => Words::Wide,
                (false, true) => Words::Split23x8,
                (true, false) => Words::Split23x4x4,
                (true, true) => Words::Biased10,
            },
            policy: if bit(3) { VmaFlags::REFUSE_PROTECT_PINNED } else { VmaFlags::empty() },
            zero_frame: !bit(4),
            pin_limit: match (bit(5), large) {
                (false, _) => u64::MAX,
                (true, false) => PIN_LIMIT,
                (true, true) => PIN_LIMIT_WITH_LARGE,
            },
            large,
            steps: records.chunks(RECORD).take(MAX_OPS).map(|record| decode(record, large)).collect(),
        }
    }
}

fn decode(bytes: &[u8], large: bool) -> Step {
    let mut record = [0; RECORD];
    record[..bytes.len()].copy_from_slice(bytes);
    let [what, who, place, low, high, size, choice, index, byte] = record;
    let number = u64::from(u16::from_le_bytes([low, high]));
    let (mut start, length) = (address(place, number, large), length(size, number, large));
    if large && WHOLE_LEAVES.contains(&size) {
        start &= !(LARGE - 1);
    }
    let rights = RIGHTS[usize::from(choice % 8)];
    let (cpu, index) = (usize::from(index) % CPUS, usize::from(index % 64));
    let (write, at, buffer) = (byte & 1 != 0, number % (5 * PAGE), index % 8);
    let any_form = || {
        let (form, flags) = (FORMS[usize::from(choice % 4)], FLAGS[usize::from(choice >> 2) % FLAGS.len()]);
        Acquire { start, length, write, flags, form, buffer }
    };
    let op = match what {
        228..232 => {
            let (device, _) = DEVICES[index / 8 % DEVICES.len()];
            Op::MapForeign(start, length, rights, device.offset(index as u64 % 8))
        }
        232..237 if large => Op::MapLarge(EDGE - LARGE + u64::from(place % 3) * LARGE, rights, byte),
        183..188 | 220..222 => Op::SwapOut(start, length),
        188 | 222 => Op::WriteOut,
        189..191 | 223 => Op::Relocate(start, length),
        191..197 | 224..226 => {
            // Often to where nothing is, and back.
            let away = |bit: u8| if byte & bit != 0 { LARGE } else { 0 };
            Op::Move(start.wrapping_add(away(1)), length, address(choice, number, large).wrapping_add(away(2)))
        }
        197..201 | 226 => {
            let page = |address: u64| if byte & 7 == 0 { address } else { address & !(PAGE - 1) };
            Op::Merge(page(start), usize::from(choice), page(address(size, number, large)))
        }
        125 | 201 | 202 | 209..212 => Op::FreeLazily(start, length),
        182 | 203..207 => Op::ReclaimFreed(start, length),
        227 => Op::FinishDeferred,
        126..129 => {
            let page = if byte < 250 { u32::from(byte >> 1) % OBJECT_PAGES } else { u32::MAX - 2 };
            Op::MapObject(start, length, rights, (index % FILES, page, byte & 1 != 0))
        }
        129..132 if byte & 1 != 0 => Op::SetLength(index % FILES, number as u32 % (OBJECT_PAGES + 1)),
        129..132 => Op::Punch(index % FILES, number as u32 % OBJECT_PAGES),
        132..135 => Op::WriteBack(index % FILES),
        135..137 => {
            let first = number as u32 % OBJECT_PAGES;
            Op::PinObject(index % FILES, first..first + u32::from(size % 5), any_form())
        }
        137 => Op::Delay(u64::from(byte % 2) + 1),
        237..241 => {
            let (max_rights, key, policy) = (RIGHTS[usize::from(byte % 8)], index as u8 % 8, POLICIES[index / 8]);
            let secret = if byte >> 3 & 3 == 3 { VmaFlags::UNPINNABLE } else { VmaFlags::empty() };
            Op::MapWithKey(start, length, rights, max_rights, key, policy | secret)
        }
        // Memory with key 0 can always be used, as nearly all of it has that key.
        241..245 => Op::Keys(cpu, number as u32 & !3),
        245..251 => Op::Pin(any_form()),
        251.. => Op::Get(any_form()),
        _ => match what % 57 {
            5 if what >= 57 => Op::Advise(start, length, ADVICE[usize::from(choice) % ADVICE.len()]),
            0..6 => Op::Map(start, length, rights),
            6..8 => Op::Unmap(start, length),
            8..11 => Op::Protect(start, length, rights),
            11 => Op::Discard(start, length),
            12..18 => Op::Load(start, cpu),
            18..30 => Op::Store(start, cpu, byte),
            30 => Op::Execute(start, cpu),
            31..34 => Op::Fork,
            34 => Op::Exit,
            35..41 => {
                let form = [Form::Fast, Form::Slow, Form::Remote][usize::from(byte >> 1) % 3];
                let flags = if write && byte >> 3 >= 26 { PinFlags::FORCE } else { PinFlags::empty() };
                Op::Pin(Acquire { start, length, write, flags, form, buffer })
            }
            41..43 => Op::Get(Acquire { start, length, write, flags: PinFlags::empty(), form: Form::Fast, buffer: 4 }),
            43..46 => Op::Unpin(index),
            46..48 => Op::Put(index),
            48..54 => Op::DeviceWrite(index, at, byte),
            54..56 => Op::DeviceRead(index, at),
            56 if what < 114 => Op::WildFault(start, byte),
            _ => Op::Advise(start, length, ADVICE[usize::from(choice) % ADVICE.len()]),
        },
    };
    let allowed = who.checked_sub(232).map(|allowed| u64::from(allowed / 3));
    Step { who: usize::from(who % 4), op, allowed }
}

/// The pages of both windows.
pub(crate) fn windows() -> impl Iterator<Item = u64> {
    let window = |edge: u64| (0..2 * WINDOW).map(move |page| edge - WINDOW * PAGE + page * PAGE);
    [EDGE, EDGE + LARGE].into_iter().flat_map(window)
}

/// Mostly a page of a window, sometimes a byte inside one, rarely an edge of the address space.
fn address(place: u8, number: u64, large: bool) -> u64 {
    let edge = if large && (place / 12) & 1 != 0 { EDGE + LARGE } else { EDGE };
    let page = edge - WINDOW * PAGE + u64::from(place) % (2 * WINDOW) * PAGE;
    match place / 12 {
        0..15 => page,
        15..20 => page + number % PAGE,
        _ => EDGES[usize::from(place - 240) % EDGES.len()],
    }
}

/// Mostly some whole pages, sometimes some bytes, rarely something absurd.
fn length(size: u8, number: u64, large: bool) -> u64 {
    match size {
        _ if large && LARGE_SIZES.contains(&size) => LARGE_LENGTHS[usize::from(size) % LARGE_LENGTHS.len()],
        0..200 => (u64::from(size) % 5 + 1) * PAGE,
        200..240 => number % (5 * PAGE - 1) + 1,
        _ => LENGTHS[usize::from(size) % LENGTHS.len()],
    }
}
