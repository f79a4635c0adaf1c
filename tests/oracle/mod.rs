//! The oracle: operations with arguments from user space, on the emulated machine and on a model without sharing
//! (INV-11, INV-15).
//!
//! Operations come as bytes ([`decode`]), whoever draws them: `proptest` in the host tests, `libFuzzer` in `fuzz/`.
//! What one of them finds is a file that the other can run.

mod decode;
mod model;

use std::collections::BTreeMap;

use pagepin::fault::{Fault, FaultAccess};
use pagepin::frame::{Layout, Split23x8, Wide};
use pagepin::pin::{self, PhysRun, PinFlags, RawGets, RawPins, Read, Write};
use pagepin::space::SpaceOptions;
use pagepin::{Levels, Pfn, Rights};

use crate::forms::{self, Form};
use crate::machine::{Machine, PAGE, Process};

pub(crate) use decode::{MAX_OPS, RECORD};
use decode::{Op, Script};
use model::{Bytes, Model, whole_pages};

/// More than the longest script can fill, as long as nothing large is forked.
const FRAMES: usize = 1024;
const MAX_FORKED_FRAMES: usize = FRAMES / 4;

/// Pins that a device works with: frames and, in the model, the same bytes.
struct Dma {
    raw: Raw,
    frames: Vec<Pfn>,
    bytes: Vec<Bytes>,
}

enum Raw {
    Read(RawPins<Read, Vec<PhysRun>>),
    Write(RawPins<Write, Vec<PhysRun>>),
}

struct World<'m, L: Layout> {
    machine: &'m Machine<L>,
    levels: Levels,
    processes: Vec<(Process<'m, L>, Model)>,
    pins: Vec<Dma>,
    gets: Vec<RawGets<Vec<PhysRun>>>,
}

fn frames(runs: &[PhysRun]) -> Vec<Pfn> {
    runs.iter().flat_map(|run| run.first().number()..run.end().number()).map(Pfn::new).collect()
}

impl<L: Layout> World<'_, L> {
    /// Carries out `op` in process `who`.
    fn apply(&mut self, who: usize, op: Op) {
        let (machine, end) = (self.machine, self.levels.user_end());
        let count = self.processes.len();
        let who = who % count;
        let (process, model) = &mut self.processes[who];
        match op {
            // Not much more than the machine has memory for.
            Op::Map(_, length, _) if length > 1 << 20 => {}
            Op::Map(start, length, rights) => {
                let wanted = whole_pages(start, length, end).is_some_and(|range| model.map(range, rights));
                assert_eq!(process.map(start, length, rights).is_ok(), wanted);
            }
            Op::Unmap(start, length) => {
                let range = whole_pages(start, length, end);
                assert_eq!(process.unmap(start, length).is_ok(), range.is_some());
                range.into_iter().for_each(|range| model.unmap(range));
            }
            Op::Protect(start, length, rights) => {
                let range = whole_pages(start, length, end).filter(|range| range.end - range.start < 1 << 20);
                let wanted = range.is_some_and(|range| model.protect(range, rights));
                assert_eq!(process.protect(start, length, rights).is_ok(), wanted);
            }
            Op::Discard(start, length) => {
                let range = whole_pages(start, length, end);
                assert_eq!(process.discard(start, length).is_ok(), range.is_some());
                range.into_iter().for_each(|range| model.discard(range));
            }
            Op::Load(address, cpu) if address < end => {
                let page = model.page(address).filter(|page| !page.rights.is_empty());
                let wanted = page.map(|page| page.bytes.borrow()[(address % PAGE) as usize]);
                assert_eq!(machine.load(cpu, process, address, 1).ok().map(|value| value as u8), wanted);
            }
            Op::Store(address, cpu, byte) if address < end => {
                let page = model.page(address).filter(|page| page.rights.contains(Rights::WRITE));
                let stored = machine.store(cpu, process, address, u64::from(byte), 1);
                assert_eq!(stored.is_ok(), page.is_some());
                page.into_iter().for_each(|page| page.bytes.borrow_mut()[(address % PAGE) as usize] = byte);
            }
            Op::Execute(address, cpu) if address < end => {
                let wanted = model.page(address).is_some_and(|page| page.rights.contains(Rights::EXECUTE));
                assert_eq!(machine.execute(cpu, process, address).is_ok(), wanted);
            }
            Op::Load(..) | Op::Store(..) | Op::Execute(..) => {}
            Op::WildFault(address, bits) => {
                let access = [FaultAccess::Read, FaultAccess::Write, FaultAccess::Execute][usize::from(bits % 3)];
                let (key_denied, malformed_table) = (bits & 64 != 0, bits & 128 != 0);
                let _ = process.fault(Fault { address, access, key_denied, malformed_table });
            }
            Op::Fork if count < 4 && machine.memory().allocated().len() < MAX_FORKED_FRAMES => {
                let child = (process.fork().unwrap(), model.fork());
                self.processes.push(child);
            }
            Op::Exit if count > 1 => drop(self.processes.swap_remove(who)),
            Op::Fork | Op::Exit => {}
            Op::Pin { start, length, write, force, form, buffer } => {
                let Ok(range) = process.range(start, length) else { return };
                let may = move |page: &model::Page| {
                    let needed = if write && !force { Rights::WRITE } else { page.rights };
                    !page.rights.is_empty() && page.rights.contains(needed)
                };
                let wanted = model.prefix(start, length, may);
                let flags = if force && write { PinFlags::FORCE } else { PinFlags::empty() };
                let (raw, runs) = if write {
                    let Ok(pins) = forms::pin::<Write, L>(form, machine, process, range, flags, buffer) else {
                        return assert!(wanted.is_empty() || buffer == 0 || flags != PinFlags::empty());
                    };
                    let runs = pins.runs().to_vec();
                    (Raw::Write(pins.into_raw()), runs)
                } else {
                    let Ok(pins) = forms::pin::<Read, L>(form, machine, process, range, flags, buffer) else {
                        return assert!(wanted.is_empty() || buffer == 0);
                    };
                    let runs = pins.runs().to_vec();
                    (Raw::Read(pins.into_raw()), runs)
                };
                let frames = frames(&runs);
                // A buffer that is full is the only reason for less than what is permitted.
                assert!(frames.len() == wanted.len() || (frames.len() < wanted.len() && runs.len() == buffer));
                self.pins.push(Dma { raw, bytes: wanted[..frames.len()].to_vec(), frames });
            }
            Op::Get { start, length, write } => {
                let Ok(range) = process.range(start, length) else { return };
                let none = PinFlags::empty();
                let gets = if write {
                    forms::get::<Write, L>(Form::Fast, machine, process, range, none, 4)
                } else {
                    forms::get::<Read, L>(Form::Fast, machine, process, range, none, 4)
                };
                self.gets.extend(gets.map(|gets| gets.into_raw()));
            }
            Op::Unpin(index) if !self.pins.is_empty() => {
                let dma = self.pins.swap_remove(index % self.pins.len());
                match dma.raw {
                    // SAFETY: pinned through this machine, and given back once.
                    Raw::Read(raw) => unsafe { pin::unpin_user_pages(machine, raw) },
                    // SAFETY: as above.
                    Raw::Write(raw) => unsafe { pin::unpin_user_pages(machine, raw) },
                }
            }
            Op::Put(index) if !self.gets.is_empty() => {
                let gets = self.gets.swap_remove(index % self.gets.len());
                // SAFETY: referenced through this machine, and given back once.
                unsafe { pin::put_user_pages(machine, gets) };
            }
            Op::DeviceWrite(index, at, byte) if !self.pins.is_empty() => {
                let dma = &self.pins[index % self.pins.len()];
                let page = (at / PAGE) as usize % dma.frames.len();
                if matches!(dma.raw, Raw::Write(_)) {
                    machine.dma_write(dma.frames[page].address() + at % PAGE, &[byte]);
                    dma.bytes[page].borrow_mut()[(at % PAGE) as usize] = byte;
                }
            }
            Op::DeviceRead(index, at) if !self.pins.is_empty() => {
                let dma = &self.pins[index % self.pins.len()];
                let page = (at / PAGE) as usize % dma.frames.len();
                let wanted = dma.bytes[page].borrow()[(at % PAGE) as usize];
                assert_eq!(machine.dma_read(dma.frames[page].address() + at % PAGE), wanted, "INV-11");
            }
            Op::Unpin(_) | Op::Put(_) | Op::DeviceWrite(..) | Op::DeviceRead(..) => {}
        }
    }

    fn check_counts(&self) {
        let mut held: BTreeMap<Pfn, (u64, u64)> = BTreeMap::new();
        for frame in self.pins.iter().flat_map(|dma| &dma.frames) {
            let counts = held.entry(*frame).or_default();
            *counts = (counts.0 + 1, counts.1 + 1);
        }
        for frame in self.gets.iter().flat_map(|gets| frames(gets.runs())) {
            held.entry(frame).or_default().0 += 1;
        }
        let processes: Vec<_> = self.processes.iter().map(|(process, _)| process).collect();
        self.machine.audit(&processes, &held);
    }

    /// Every byte of every page is what the model says, through the tables and through the pins.
    fn check_contents(&self) {
        for (process, model) in &self.processes {
            let (leaves, _) = self.machine.leaves(process);
            for (number, page) in model.pages() {
                let leaf = leaves.iter().find(|leaf| leaf.address == number * PAGE);
                let bytes = page.bytes.borrow();
                match leaf {
                    None => assert!(bytes.iter().all(|byte| *byte == 0), "page {number:#x} was lost"),
                    Some(leaf) => self.check_frame(leaf.frame(), &bytes),
                }
            }
            assert!(leaves.iter().all(|leaf| model.page(leaf.address).is_some()), "an entry outside every area");
        }
        for dma in &self.pins {
            for (frame, bytes) in dma.frames.iter().zip(&dma.bytes) {
                self.check_frame(*frame, &bytes.borrow());
            }
        }
    }

    fn check_frame(&self, frame: Pfn, bytes: &[u8]) {
        let words = self.machine.memory().frame_words(frame);
        let same = words.iter().zip(bytes.chunks(8)).all(|(word, bytes)| word.to_le_bytes() == bytes);
        assert!(same, "{frame:?} does not hold what its process wrote");
    }
}

/// Runs the operations that `bytes` stand for, checking after each.
pub(crate) fn run(bytes: &[u8]) {
    let script = Script::decode(bytes);
    if script.split_words { run_in::<Split23x8>(script) } else { run_in::<Wide>(script) }
}

fn run_in<L: Layout>(script: Script) {
    let Script { levels, scattered, ops, .. } = script;
    let machine = Machine::<L>::new(FRAMES);
    machine.memory().scatter(scattered);
    let first = machine.process_with(SpaceOptions { levels, ..SpaceOptions::default() });
    let processes = vec![(first, Model::default())];
    let mut world = World { machine: &machine, levels, processes, pins: Vec::new(), gets: Vec::new() };
    for (who, op) in ops {
        world.apply(who, op);
        world.check_counts();
    }
    world.check_contents();
    while !world.pins.is_empty() {
        world.apply(0, Op::Unpin(0));
    }
    while !world.gets.is_empty() {
        world.apply(0, Op::Put(0));
    }
    world.check_contents();
}
