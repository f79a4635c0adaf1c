//! The oracle: operations with arguments from user space, on the emulated machine and on a reference without sharing.
//!
//! Operations come as bytes ([`decode`]), whoever draws them: `proptest` in the host tests, `libFuzzer` in `fuzz/`.
//! What one of them finds is a file that the other can run.
//!
//! The reference says what each operation returns, error for error. After each of them everything is compared:
//!
//! | invariant | compared by |
//! |---|---|
//! | INV-1, 2, 3, 6 | the audit of the machine: entries and words of all frames |
//! | INV-4 | INV-3 after each step: no pinned frame lost `EXCLUSIVE` |
//! | INV-5 | the audit's descent: every entry is a mapping, present or prot-none |
//! | INV-7 | [`check`]: a frame that was reused too early holds the bytes of one process only |
//! | INV-8, 12, 13 | the machine, at each change of an entry and each free; [`check`]: no TLB grants more than the tables |
//! | INV-9 | [`check`]: no entry grants more than its VMA; [`pins`]: which writes are permitted |
//! | INV-10 | the audit: the counts are those of the pins and gets that are held; the balance when the machine goes |
//! | INV-11 | [`check`]: every byte of each process, through its tables, and of each pin |
//! | INV-14 | [`check`]: after a refusal entries, tables and words are those from before |
//! | objects | [`files`]: each page is one for all who share it; who has copied it sees his own; no write is lost to write-back |
//! | unpinnable memory | [`check`]: each entry of its own says it, and no other; [`pins`]: nobody gets it |
//! | resident counts | [`check`]: they are those of the entries |
//! | INV-15 | there is no panic and no other error than the reference's |

mod access;
mod check;
mod contents;
mod decode;
mod files;
mod large;
mod pins;
mod places;
mod reference;
mod vmas;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

#[cfg(not(pagepin_one_layout))]
use pagepin::frame::{Biased10, Split23x4x4, Split23x8};
use pagepin::frame::{Layout, Wide};
use pagepin::space::SpaceOptions;
use pagepin::{KeyRights, MapOptions, MemoryType, Pfn, Rights, Vma, VmaFlags};

use crate::machine::{CPUS, Machine, Process};

use check::Seen;
use decode::{DEVICES, Op, Script, Step, Words};
pub(crate) use decode::{MAX_OPS, RECORD};
use files::File;
use pins::{Dma, Gets};
use reference::Reference;

/// More than most scripts fill.
const FRAMES: usize = 1024;
/// Five large leaves and what lies around them.
const FRAMES_WITH_LARGE: usize = 6 * 512;

/// Objects there are.
const FILES: usize = 2;

/// More than are mapped from any of a device's frames on.
const DEVICE_PAGES: u64 = 0x200;

thread_local! {
    /// The PKRU of CPU 0, on which pins are made.
    static PKRU: Cell<u32> = const { Cell::new(0) };
}

/// What an operation may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Anything,
    /// Counts of frames, but no entry.
    Counts,
    /// Out of memory: there may be other empty tables than before.
    EmptyTables,
    /// It was refused (INV-14).
    Nothing,
}

struct World<'m, L: Layout> {
    machine: &'m Machine<L>,
    options: SpaceOptions,
    policy: VmaFlags,
    pin_limit: u64,
    /// Most pins and gets of a frame, which has one kind at a time, where words count both.
    kinds: Option<(u64, u64)>,
    processes: Vec<(Process<'m, L>, Reference)>,
    /// Processes there were so far.
    forked: usize,
    files: [Rc<File>; FILES],
    pins: Vec<Dma>,
    gets: Vec<Gets>,
    /// What was stored in device registers.
    registers: BTreeMap<u64, u8>,
    pkru: [u32; CPUS],
    /// Allocations that had failed before this operation.
    refusals: u64,
    /// Look-ups of pages that were still to be delayed before this operation.
    delays: u64,
    /// What there was after the last operation.
    seen: Seen,
}

impl<L: Layout> World<'_, L> {
    /// Carries out an operation and checks everything.
    fn step(&mut self, Step { who, op, allowed }: Step) {
        self.note_refusals();
        self.machine.memory().allow(allowed);
        let effect = self.apply(who % self.processes.len(), op);
        self.machine.memory().allow(None);
        self.check(effect);
    }

    fn apply(&mut self, who: usize, op: Op) -> Effect {
        match op {
            Op::Map(start, length, rights) => {
                let usual = MapOptions::new(rights).flags(self.policy);
                self.map(who, start, length, usual, (rights, Rights::all(), 0, self.policy))
            }
            Op::MapWithKey(start, length, rights, max_rights, key, policy) => {
                let options = MapOptions::new(rights).max_rights(max_rights).key(key).flags(policy);
                self.map(who, start, length, options, (rights, max_rights, key, policy))
            }
            Op::MapObject(start, length, rights, shown) => self.map_object(who, (start, length), rights, shown),
            Op::SetLength(file, length) => self.set_length(file, length),
            Op::Punch(file, page) => self.punch(file, page),
            Op::WriteBack(file) => self.write_back(file),
            Op::PinObject(file, pages, wanted) => self.pin_object(who, file, pages, &wanted),
            Op::Delay(lookups) => self.delay(lookups),
            Op::MapForeign(start, length, rights, first) => self.map_foreign(who, start, length, rights, first),
            Op::MapLarge(start, rights, seed) => self.map_large(who, start, rights, seed),
            Op::Unmap(start, length) => self.unmap(who, start, length),
            Op::Discard(start, length) => self.discard(who, start, length),
            Op::Protect(start, length, rights) => self.protect(who, start, length, rights),
            Op::Advise(start, length, advice) => self.advise(who, start, length, advice),
            Op::FinishDeferred => self.finish_deferred(who),
            Op::SwapOut(start, length) => self.swap_out(who, start, length),
            Op::WriteOut => self.write_out(),
            Op::FreeLazily(start, length) => self.free_lazily(who, start, length),
            Op::ReclaimFreed(start, length) => self.reclaim_freed(who, start, length),
            Op::Relocate(start, length) => self.relocate(who, start, length),
            Op::Move(start, length, to) => self.move_pages(who, start, length, to),
            Op::Merge(address, other, kept) => self.merge(who, address, other % self.processes.len(), kept),
            Op::Fork => self.fork(who),
            Op::Exit => self.exit(who),
            Op::Load(address, cpu) => self.load(who, address, cpu),
            Op::Store(address, cpu, byte) => self.store(who, address, cpu, byte),
            Op::Execute(address, cpu) => self.execute(who, address, cpu),
            Op::WildFault(address, bits) => self.wild_fault(who, address, bits),
            Op::Keys(cpu, pkru) => self.set_keys(cpu, pkru),
            Op::Pin(wanted) => self.pin(who, &wanted),
            Op::Get(wanted) => self.get(who, &wanted),
            Op::Unpin(index) => self.unpin(index),
            Op::Put(index) => self.put(index),
            Op::DeviceWrite(index, at, byte) => self.device_write(index, at, byte),
            Op::DeviceRead(index, at) => self.device_read(index, at),
        }
    }

    /// Whether there is a limit for pins; without one they are not counted.
    fn limited(&self) -> bool {
        self.pin_limit != u64::MAX
    }

    /// What is refused from now on is refused to this operation.
    fn note_refusals(&mut self) {
        self.refusals = self.machine.memory().refusals();
        self.delays = self.machine.shelf().delays();
    }

    /// Whether this operation was refused memory.
    fn starved(&self) -> bool {
        self.machine.memory().refusals() > self.refusals
    }

    /// Whether an object was asked in this operation that was not ready.
    fn delayed(&self) -> bool {
        self.machine.shelf().delays() < self.delays
    }
}

/// As what a device's frame is accessed.
fn memory_type(frame: Pfn) -> MemoryType {
    let (_, memory) = DEVICES.into_iter().filter(|(first, _)| *first <= frame).max_by_key(|(first, _)| *first).unwrap();
    memory
}

/// Runs the operations that `bytes` stand for, checking after each.
pub(crate) fn run(bytes: &[u8]) {
    let script = Script::decode(bytes);
    match script.words {
        Words::Wide => run_in::<Wide>(script),
        #[cfg(not(pagepin_one_layout))]
        Words::Split23x8 => run_in::<Split23x8>(script),
        #[cfg(not(pagepin_one_layout))]
        Words::Split23x4x4 => run_in::<Split23x4x4>(script),
        #[cfg(not(pagepin_one_layout))]
        Words::Biased10 => run_in::<Biased10>(script),
        #[cfg(pagepin_one_layout)]
        _ => run_in::<Wide>(script),
    }
}

fn run_in<L: Layout>(script: Script) {
    let Script { levels, policy, pin_limit, .. } = script;
    let machine = Machine::<L>::new(if script.large { FRAMES_WITH_LARGE } else { FRAMES });
    machine.memory().scatter(script.scattered);
    if !script.zero_frame {
        machine.without_zero_frame();
    }
    for (first, memory) in DEVICES {
        machine.memory().set_register_type(first..first.offset(DEVICE_PAGES), memory.pat_index());
    }
    PKRU.set(0);
    let key_rights: fn() -> KeyRights = || KeyRights::from_pkru(PKRU.get());
    let key_rights = Some(key_rights);
    let options = SpaceOptions { key_rights, ..SpaceOptions::without_kernel_half(levels) };
    let mut world = World {
        machine: &machine,
        options,
        policy,
        pin_limit,
        kinds: L::SEPARATE_GETS.then_some((13, 15)),
        processes: vec![(machine.process_within(pin_limit, options), Reference::default())],
        forked: 1,
        files: files::all(&machine),
        pins: Vec::new(),
        gets: Vec::new(),
        registers: BTreeMap::new(),
        pkru: [0; CPUS],
        refusals: 0,
        delays: 0,
        seen: Seen::default(),
    };
    world.check(Effect::Anything);
    script.steps.into_iter().for_each(|step| world.step(step));
    while !world.pins.is_empty() {
        world.apply(0, Op::Unpin(0));
        world.check(Effect::Anything);
    }
    world.note_refusals();
    for who in 0..world.processes.len() {
        world.apply(who, Op::FinishDeferred);
        world.check(Effect::Anything);
        let waits = |vma: Vma| vma.flags().contains(VmaFlags::UNMAP_DEFERRED);
        assert!(!world.processes[who].0.vmas().any(|vma| waits(vma.unwrap())), "an unmap waits without a pin");
    }
    while !world.gets.is_empty() {
        world.apply(0, Op::Put(0));
        world.check(Effect::Counts);
    }
    drop(world);
    machine.clear_shelf();
}
