//! From bytes to operations: [`RECORD`] bytes each, after one byte for the machine. Every string of bytes is a script.

use pagepin::{Levels, Rights};

use crate::forms::Form;
use crate::machine::{CPUS, NONE, PAGE, R, RW, RX};

/// Bytes that an operation takes; what is missing at the end is 0.
pub(crate) const RECORD: usize = 9;
/// Operations in the longest script; what comes after is ignored.
pub(crate) const MAX_OPS: usize = 100;

/// The window that most addresses lie in: six pages on each side of a table's edge.
const EDGE: u64 = 0x7f_1220_0000;
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
const RIGHTS: [Rights; 8] = [RW, RW, RW, R, RX, NONE, Rights::all(), Rights::WRITE];

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Map(u64, u64, Rights),
    Unmap(u64, u64),
    Protect(u64, u64, Rights),
    Discard(u64, u64),
    Load(u64, usize),
    Store(u64, usize, u8),
    Execute(u64, usize),
    Fork,
    Exit,
    Pin { start: u64, length: u64, write: bool, force: bool, form: Form, buffer: usize },
    Get { start: u64, length: u64, write: bool },
    Unpin(usize),
    Put(usize),
    DeviceWrite(usize, u64, u8),
    DeviceRead(usize, u64),
    WildFault(u64, u8),
}

/// What a run does, and on which machine.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) levels: Levels,
    /// Frames are not handed out in order.
    pub(crate) scattered: bool,
    /// [`Split23x8`](pagepin::frame::Split23x8) rather than `Wide`.
    pub(crate) split_words: bool,
    /// Each with the number of the process that does it.
    pub(crate) ops: Vec<(usize, Op)>,
}

impl Script {
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let (machine, records) = bytes.split_first().unwrap_or((&0, &[]));
        let levels = if machine & 1 == 0 { Levels::Four } else { Levels::Five };
        let ops = records.chunks(RECORD).take(MAX_OPS).map(decode).collect();
        Self { levels, scattered: machine & 2 != 0, split_words: machine & 4 != 0, ops }
    }
}

fn decode(bytes: &[u8]) -> (usize, Op) {
    let mut record = [0; RECORD];
    record[..bytes.len()].copy_from_slice(bytes);
    let [what, who, place, low, high, size, rights, index, byte] = record;
    let number = u64::from(u16::from_le_bytes([low, high]));
    let (start, length, rights) = (address(place, number), length(size, number), RIGHTS[usize::from(rights % 8)]);
    let (cpu, index) = (usize::from(index) % CPUS, usize::from(index % 64));
    let (write, at) = (byte & 1 != 0, number % (5 * PAGE));
    let op = match what % 57 {
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
            Op::Pin { start, length, write, force: byte >> 3 >= 26, form, buffer: index % 8 }
        }
        41..43 => Op::Get { start, length, write },
        43..46 => Op::Unpin(index),
        46..48 => Op::Put(index),
        48..54 => Op::DeviceWrite(index, at, byte),
        54..56 => Op::DeviceRead(index, at),
        _ => Op::WildFault(start, byte),
    };
    (usize::from(who % 4), op)
}

/// Mostly a page of the window, sometimes a byte inside one, rarely an edge of the address space.
fn address(place: u8, number: u64) -> u64 {
    let page = EDGE - WINDOW * PAGE + u64::from(place) % (2 * WINDOW) * PAGE;
    match place / 12 {
        0..15 => page,
        15..20 => page + number % PAGE,
        _ => EDGES[usize::from(place - 240) % EDGES.len()],
    }
}

/// Mostly some whole pages, sometimes some bytes, rarely something absurd.
fn length(size: u8, number: u64) -> u64 {
    match size {
        0..200 => (u64::from(size) % 5 + 1) * PAGE,
        200..240 => number % (5 * PAGE - 1) + 1,
        _ => LENGTHS[usize::from(size) % LENGTHS.len()],
    }
}
