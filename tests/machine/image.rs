//! Everything that a failed operation must leave alone (INV-14), to compare two moments of a machine, or the same moment
//! of two machines.

use std::fmt;

use pagepin::frame::{Layout, Snapshot};
use pagepin::{AddressSpace, Env, PAGE_SIZE, PageAddr, Pfn, Vma};

use super::memory::{FIRST, Use};
use super::{A, FAR, FOREIGN, LARGE, Machine, PAGE, Process, UNTOUCHED};

/// Where tests have VMAs: first address and pages. Every page of these is asked for its VMA.
const WINDOWS: [(u64, u64); 5] =
    [(A - 32 * PAGE, 128), (UNTOUCHED - PAGE, 64), (FAR - PAGE, 64), (FOREIGN - PAGE, 64), (LARGE - PAGE, 2048)];

/// All of physical memory, its frame words and what it is used for, and what processes have beyond their tables. Tables
/// are compared as the memory they are: every entry of every level, with the accessed and dirty bits and the kernel half.
#[derive(PartialEq, Eq)]
pub(crate) struct Image {
    frames: Vec<Frame>,
    /// Pins and references that are held, and bugs that the library has caught.
    held: [u64; 3],
    processes: Vec<ProcessImage>,
}

#[derive(PartialEq, Eq)]
struct Frame {
    used: Use,
    /// `None`: free.
    word: Option<Snapshot>,
    /// The 8-byte words of a frame in use.
    content: Vec<u64>,
}

#[derive(Debug, PartialEq, Eq)]
struct ProcessImage {
    root: Pfn,
    vmas: Vec<Vma>,
    /// Pages charged to its budget.
    charged: u64,
}

impl<L: Layout> Machine<L> {
    /// The machine with these processes.
    pub(crate) fn image(&self, processes: &[&Process<'_, L>]) -> Image {
        let uses = self.memory().uses.borrow().clone();
        let frame = |(index, used): (u64, Use)| {
            let frame = Pfn::new(FIRST + index);
            let word = self.word(frame).snapshot();
            let content = if used == Use::Free { Vec::new() } else { self.memory().frame_words(frame) };
            Frame { used, word: (!word.is_free()).then_some(word), content }
        };
        let counters = self.statistics();
        Image {
            frames: (0..).zip(uses).map(frame).collect(),
            held: [
                counters.pins_acquired - counters.pins_released,
                counters.gets_acquired - counters.gets_released,
                counters.bugs_caught,
            ],
            processes: processes.iter().map(|process| process_image(process)).collect(),
        }
    }
}

fn process_image<L: Layout>(process: &Process<'_, L>) -> ProcessImage {
    let mut vmas = Vec::new();
    process
        .with_vmas(&mut |look| {
            for (start, pages) in WINDOWS {
                let mut page = PageAddr::containing(start);
                while page.address() < start + pages * PAGE_SIZE {
                    let vma = look.vma_at(page);
                    page = vma.map_or(page.offset(1), |vma| vma.end());
                    vmas.extend(vma);
                }
            }
        })
        .unwrap();
    ProcessImage { root: process.root(), vmas, charged: process.budget().used() }
}

impl Image {
    /// Every difference to a later image, or to that of a machine that should be in the same state.
    fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (index, (was, is)) in self.frames.iter().zip(&other.frames).enumerate() {
            let frame = FIRST + index as u64;
            if (was.used, was.word) != (is.used, is.word) {
                found.push(format!("{frame:#x}: {:?} {:?} -> {:?} {:?}", was.used, was.word, is.used, is.word));
            }
            for (index, (was, is)) in was.content.iter().zip(&is.content).enumerate() {
                if was != is {
                    found.push(format!("{frame:#x}: word {index} is {was:#x} -> {is:#x}"));
                }
            }
        }
        if self.held != other.held {
            found.push(format!("pins, references, bugs caught: {:?} -> {:?}", self.held, other.held));
        }
        for (was, is) in self.processes.iter().zip(&other.processes) {
            if was != is {
                found.push(format!("{was:?}\n -> {is:?}"));
            }
        }
        if self.processes.len() != other.processes.len() {
            found.push(format!("{} -> {} processes", self.processes.len(), other.processes.len()));
        }
        found
    }

    /// Panics with every difference, if there is any.
    #[track_caller]
    pub(crate) fn assert_same(&self, other: &Self, when: impl fmt::Display) {
        let found = self.differences(other);
        assert!(found.is_empty() && self == other, "INV-14, {when}:\n{}", found.join("\n"));
    }
}
