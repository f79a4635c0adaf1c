//! Random operations on a file that processes show, shared and private, against plain bytes: written by threads and devices, forked, cut off and
//! grown, with holes punched, and written back.

use std::collections::BTreeMap;
use std::ops::Range;

use pagepin::fault::FaultError;
use pagepin::frame::{CountError, Layout};
use pagepin::pin::{OwnedPins, Owner, PhysRun, Write, pin_object_pages};
use pagepin::space::Sharing;
use pagepin::{ObjectId, Unlimited, pin::PinFlags};
use proptest::prelude::*;

use crate::machine::{A, Machine, PAGE, Process, RW, first_byte, runs};

const FILE: ObjectId = ObjectId(3);
const PAGES: u32 = 4;
/// Most processes and pins at a time.
const MOST: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Step {
    Load(usize, u32),
    Store(usize, u32, u8),
    Fork(usize),
    Exit(usize),
    Discard(usize, u32),
    SwapOut(usize),
    /// By a process, or by the object's number.
    Pin(Option<usize>, u32),
    Unpin(usize),
    DeviceWrite(usize, u8),
    SetLength(u32),
    Punch(u32),
    WriteBack(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (who, page, byte) = (0..MOST, 0..PAGES, 1u8..0x80);
    let step = prop_oneof![
        4 => (who.clone(), page.clone()).prop_map(|(who, page)| Step::Load(who, page)),
        6 => (who.clone(), page.clone(), byte.clone()).prop_map(|(who, page, byte)| Step::Store(who, page, byte)),
        2 => who.clone().prop_map(Step::Fork),
        1 => who.clone().prop_map(Step::Exit),
        1 => (who.clone(), page.clone()).prop_map(|(who, page)| Step::Discard(who, page)),
        1 => who.clone().prop_map(Step::SwapOut),
        3 => (prop::option::of(who.clone()), page.clone()).prop_map(|(who, page)| Step::Pin(who, page)),
        2 => who.clone().prop_map(Step::Unpin),
        4 => (who, byte).prop_map(|(which, byte)| Step::DeviceWrite(which, byte)),
        1 => (0..=PAGES).prop_map(Step::SetLength),
        1 => page.clone().prop_map(Step::Punch),
        3 => page.prop_map(Step::WriteBack),
    ];
    prop::collection::vec(step, 1..120)
}

/// A page of the file.
#[derive(Clone, Copy, Debug)]
struct Page {
    byte: u8,
    /// Written since it was last written back.
    written: bool,
}

/// A process: whether it shares the file, and what it has copied of it.
#[derive(Clone, Debug)]
struct Reference {
    shares: bool,
    own: BTreeMap<u32, u8>,
}

/// Whose byte a device writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    File(u32),
    Own(usize, u32),
    /// What was the file's or a process's is the device's alone.
    Nobody,
}

type Pins<'m, L> = OwnedPins<&'m Machine<L>, Unlimited, Write, Vec<PhysRun>>;

enum Held<'m, L: Layout> {
    ByObject(Pins<'m, L>),
    Shown(OwnedPins<&'m Machine<L>, std::sync::Arc<pagepin::PinLimit>, Write, Vec<PhysRun>>),
}

struct World<'m, L: Layout> {
    machine: &'m Machine<L>,
    file: BTreeMap<u32, Page>,
    length: u32,
    /// By numbers that are not used again.
    processes: BTreeMap<usize, (Process<'m, L>, Reference)>,
    next: usize,
    pins: Vec<(Held<'m, L>, Target)>,
}

impl<'m, L: Layout> World<'m, L> {
    fn add(&mut self, process: Process<'m, L>, reference: Reference) {
        self.processes.insert(self.next, (process, reference));
        self.next += 1;
    }

    fn who(&self, which: usize) -> usize {
        *self.processes.keys().nth(which % self.processes.len()).unwrap()
    }

    fn byte(&self, who: usize, page: u32) -> Option<u8> {
        self.processes[&who].1.own.get(&page).copied().or_else(|| self.file.get(&page).map(|page| page.byte))
    }

    fn write(&mut self, who: usize, page: u32, byte: u8) {
        let reference = &mut self.processes.get_mut(&who).unwrap().1;
        if reference.shares {
            self.file.insert(page, Page { byte, written: true });
        } else {
            reference.own.insert(page, byte);
        }
    }

    /// What is cut off is nobody's but its pinner's.
    fn forget(&mut self, pages: Range<u32>, copies: bool) {
        for (process, reference) in self.processes.values_mut() {
            process
                .forget_object(
                    FILE,
                    pages.clone(),
                    if copies { pagepin::space::Copies::Forget } else { pagepin::space::Copies::Keep },
                )
                .unwrap();
            reference.own.retain(|page, _| !copies || !pages.contains(page));
        }
        for (_, target) in &mut self.pins {
            let (page, goes) = match *target {
                Target::File(page) => (page, true),
                Target::Own(_, page) => (page, copies),
                Target::Nobody => continue,
            };
            if goes && pages.contains(&page) {
                *target = Target::Nobody;
            }
        }
        self.file.retain(|page, _| !pages.contains(page));
    }

    fn leave(&mut self, who: usize, pages: Range<u32>) {
        for (_, target) in &mut self.pins {
            if matches!(*target, Target::Own(owner, page) if owner == who && pages.contains(&page)) {
                *target = Target::Nobody;
            }
        }
    }

    fn pin(&mut self, who: Option<usize>, page: u32) {
        let held = match who {
            None => {
                let owner = Owner::new(self.machine, Unlimited);
                let pins = pin_object_pages(owner, Write, FILE, page..page + 1, PinFlags::empty(), runs(1));
                pins.map(Held::ByObject).ok()
            }
            Some(who) => {
                let process = &self.processes[&who].0;
                let pins = self.machine.pin::<Write>(process, A + u64::from(page) * PAGE, 1);
                pins.map(|pins| Held::Shown(pins.into_owned())).ok()
            }
        };
        let there = who.map_or(self.file.get(&page).map(|page| page.byte), |who| self.byte(who, page));
        assert_eq!(held.is_some(), there.is_some(), "a pin of page {page}");
        let (Some(held), Some(byte)) = (held, there) else { return };
        let target = match who {
            Some(who) if !self.processes[&who].1.shares => {
                self.write(who, page, byte);
                Target::Own(who, page)
            }
            _ => Target::File(page),
        };
        self.pins.push((held, target));
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Load(which, page) => {
                let who = self.who(which);
                let found = self.machine.load(0, &self.processes[&who].0, A + u64::from(page) * PAGE, 1);
                assert_eq!(found, self.byte(who, page).map(u64::from).ok_or(FaultError::PastEnd));
            }
            Step::Store(which, page, byte) => {
                let who = self.who(which);
                let there = self.byte(who, page).is_some();
                let done = self.machine.store(1, &self.processes[&who].0, A + u64::from(page) * PAGE, byte.into(), 1);
                assert_eq!(done, if there { Ok(()) } else { Err(FaultError::PastEnd) });
                if there {
                    self.write(who, page, byte);
                }
            }
            Step::Fork(which) if self.processes.len() < MOST => {
                let (process, reference) = &self.processes[&self.who(which)];
                let child = (process.fork().unwrap(), reference.clone());
                self.add(child.0, child.1);
            }
            Step::Exit(which) if self.processes.len() > 2 => {
                let who = self.who(which);
                self.leave(who, 0..PAGES);
                self.processes.remove(&who);
            }
            Step::Fork(_) | Step::Exit(_) => {}
            Step::Discard(which, page) => {
                let who = self.who(which);
                self.processes[&who].0.discard(A + u64::from(page) * PAGE, PAGE).unwrap();
                self.leave(who, page..page + 1);
                self.processes.get_mut(&who).unwrap().1.own.remove(&page);
            }
            Step::SwapOut(which) => {
                self.processes[&self.who(which)].0.swap_out(A, u64::from(PAGES) * PAGE).unwrap();
                self.machine.write_out();
            }
            Step::Pin(which, page) if self.pins.len() < MOST => self.pin(which.map(|which| self.who(which)), page),
            Step::Pin(..) => {}
            Step::Unpin(which) if !self.pins.is_empty() => drop(self.pins.swap_remove(which % self.pins.len())),
            Step::DeviceWrite(which, byte) if !self.pins.is_empty() => {
                let (held, target) = &self.pins[which % self.pins.len()];
                self.machine.dma_write(first(held), &[byte]);
                match *target {
                    Target::File(page) => _ = self.file.insert(page, Page { byte, written: true }),
                    Target::Own(who, page) => _ = self.processes.get_mut(&who).unwrap().1.own.insert(page, byte),
                    Target::Nobody => {}
                }
            }
            Step::Unpin(_) | Step::DeviceWrite(..) => {}
            Step::SetLength(length) => {
                let old = std::mem::replace(&mut self.length, length);
                self.machine.cut(FILE, length);
                self.forget(length..PAGES, true);
                self.machine.shelf().grow(FILE, length);
                (old..length).for_each(|page| self.comes_anew(page));
            }
            Step::Punch(page) => {
                self.machine.punch(FILE, page);
                self.forget(page..page + 1, false);
                if page < self.length {
                    self.comes_anew(page);
                }
            }
            Step::WriteBack(page) => self.write_back(page),
        }
    }

    fn comes_anew(&mut self, page: u32) {
        self.file.insert(page, Page { byte: first_byte(page), written: false });
    }

    /// While it goes on nobody writes; what was written before is noted.
    fn write_back(&mut self, page: u32) {
        let Some(frame) = self.machine.shelf().frame(FILE, page) else { return };
        let pinned = self.pins.iter().any(|(_, target)| *target == Target::File(page));
        let was_dirty = match self.machine.begin_writeback(FILE, page) {
            Ok(was_dirty) => was_dirty,
            Err(error) => return assert!(pinned && error == CountError::Pinned, "{error:?}"),
        };
        assert!(!pinned, "a pinned page was closed");
        self.processes.values().for_each(|(process, _)| process.write_protect_object(FILE, page..page + 1).unwrap());
        let noted = was_dirty || self.machine.word(frame).snapshot().dirty;
        assert!(noted || !self.file[&page].written, "page {page} was written, and nobody knows");
        for (process, _) in self.processes.values().filter(|(_, reference)| reference.shares) {
            let leaf = self.machine.leaf(process, A + u64::from(page) * PAGE);
            assert!(leaf.is_none_or(|leaf| !leaf.is_writable()), "page {page} can be written while it is written back");
        }
        _ = self.machine.word(frame).take_dirty();
        self.machine.end_writeback(FILE, page);
        self.file.get_mut(&page).unwrap().written = false;
    }

    /// Devices and processes see one page where they should, and every count has its reason.
    fn check(&self) {
        for (held, target) in &self.pins {
            let byte = match *target {
                Target::File(page) => self.file.get(&page).map(|page| page.byte),
                Target::Own(who, page) => self.byte(who, page),
                Target::Nobody => None,
            };
            assert!(byte.is_none_or(|byte| self.machine.dma_read(first(held)) == byte), "INV-11: {target:?}");
        }
        let mut counts: crate::kit::Held = BTreeMap::new();
        for (held, _) in &self.pins {
            let counts = counts.entry(pagepin::Pfn::containing(first(held))).or_default();
            *counts = (counts.0 + 1, counts.1 + 1);
        }
        let processes: Vec<_> = self.processes.values().map(|(process, _)| process).collect();
        self.machine.audit(&processes, &counts);
    }
}

fn first<L: Layout>(held: &Held<'_, L>) -> u64 {
    let runs = match held {
        Held::ByObject(pins) => pins.runs(),
        Held::Shown(pins) => pins.runs(),
    };
    runs[0].first().address()
}

fn run<L: Layout>(steps: Vec<Step>) {
    let machine = Machine::<L>::new(256);
    machine.shelf().add(FILE, PAGES);
    {
        let (file, processes, pins) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let mut world = World { machine: &machine, file, length: PAGES, processes, next: 0, pins };
        (0..PAGES).for_each(|page| world.comes_anew(page));
        for (sharing, shares) in [(Sharing::Shared, true), (Sharing::Private, false)] {
            let process = machine.process();
            process.map_object(A, u64::from(PAGES) * PAGE, FILE, 0, sharing, RW).unwrap();
            world.add(process, Reference { shares, own: BTreeMap::new() });
        }
        for step in steps {
            world.apply(step);
            world.check();
        }
        for who in world.processes.keys().copied().collect::<Vec<_>>() {
            for page in 0..PAGES {
                let found = machine.load(2, &world.processes[&who].0, A + u64::from(page) * PAGE, 1);
                assert_eq!(found, world.byte(who, page).map(u64::from).ok_or(FaultError::PastEnd));
            }
        }
        world.pins.clear();
    }
    machine.clear_shelf();
}

proptest! {
    #![proptest_config(crate::random_cases(100))]

    #[test]
    fn a_file_is_one_for_all_who_share_it(steps in steps()) {
        run::<pagepin::frame::Wide>(steps);
    }
}
