//! The scenes of `pagepin_abi::Scene`: what each is about, and its two runs.

use pagepin_abi::{Program, Scene, SceneRun, Status};

use super::{Outcome, balanced, drivers, run_balanced};
use crate::{mm, notes, percpu, println};

pub struct Card {
    pub act: Act,
    pub letter: char,
    pub title: &'static str,
    /// What it is about.
    pub story: &'static [&'static str],
    /// What the twin leaves out.
    pub twin: &'static str,
    /// What the library does instead.
    pub library: &'static str,
    /// What is lost without it, in a few words.
    pub loss: &'static str,
    /// Names of the two tests.
    tests: [&'static str; 2],
    /// Threads that spin for each other need a CPU each.
    cpus: usize,
}

/// What plays a scene.
#[derive(Clone, Copy)]
pub enum Act {
    Program(Scene),
    /// The kernel's own drivers: with the twin or not, telling or not.
    Kernel(fn(bool, bool) -> Outcome),
}

pub const CARDS: &[Card] = &[
    Card {
        act: Act::Program(Scene::DeviceWrites),
        letter: 'a',
        title: "A device writes into a page while its process forks",
        story: &[
            "Fork shares every page, and whoever writes first moves to a copy. A device knows nothing of that:",
            "it goes on writing to the frame it was given. If the process has moved, the bytes are lost.",
        ],
        twin: "the frame is held by a plain reference, which keeps it allocated and that is all",
        library: "the frame is pinned, so fork copies it for the child, and the parent stays",
        loss: "the device's bytes",
        tests: ["scene_a_device_write_survives_fork", "scene_a_twin_loses_data"],
        cpus: 1,
    },
    Card {
        act: Act::Program(Scene::DeviceReads),
        letter: 'b',
        title: "A device reads a page that its process writes after a fork",
        story: &["The other direction: the process prepares what the device will send, forks, and changes it."],
        twin: "a plain reference again",
        library: "a pin for reading holds the process to its frame just the same",
        loss: "the new text: the old one was sent",
        tests: ["scene_b_device_sends_what_was_written_last", "scene_b_twin_loses_data"],
        cpus: 1,
    },
    Card {
        act: Act::Program(Scene::OldReference),
        letter: 'c',
        title: "A child keeps a reference to a page it has unmapped (CVE-2020-29374)",
        story: &[
            "After fork, a child refers to a frame without mapping it (`vmsplice` did that). When the parent",
            "writes, may it keep the frame? Who only counts mappings says yes, and the child can look on.",
        ],
        twin: "a write keeps the frame when nobody else maps it",
        library: "a write keeps the frame only when this mapping explains every reference to it",
        loss: "a secret: the child reads it",
        tests: ["scene_c_child_sees_no_later_write", "scene_c_twin_loses_data"],
        cpus: 1,
    },
    Card {
        act: Act::Program(Scene::ReadPin),
        letter: 'd',
        title: "A page that fork has shared is pinned for reading, and written then",
        story: &["Here the fork comes first. The page is shared when a device gets it, and the next write copies."],
        twin: "a plain reference to the shared frame",
        library: "a pin takes no shared frame: the page is copied first, then pinned",
        loss: "the process's later writes",
        tests: ["scene_d_read_pin_sees_later_writes", "scene_d_twin_loses_data"],
        cpus: 1,
    },
    Card {
        act: Act::Program(Scene::ThreeThreads),
        letter: 'e',
        title: "Three threads, one page, an outdated translation (golang/go 34988)",
        story: &[
            "Each CPU remembers where pages are. When one thread's write moves a page to a copy, the others",
            "must forget the old frame: but before the copy is mapped, or after?",
        ],
        twin: "the copy is mapped first, then the other CPUs are told",
        library: "break, flush, publish: no CPU can use the copy while another has the old frame",
        loss: "a write: another thread reads on in the old frame",
        tests: ["scene_e_no_write_is_missed_by_a_third_thread", "scene_e_twin_loses_data"],
        cpus: 3,
    },
    Card {
        act: Act::Kernel(drivers::leaked_pin),
        letter: 'g',
        title: "A driver forgets what it has pinned, and the process ends",
        story: &[
            "The frames stay allocated, as they must: a device could be writing. But whose they are is not in",
            "any count, and months later a machine is out of memory.",
        ],
        twin: "counts alone",
        library: "a ledger knows of each pin who has it, of which process, and since when",
        loss: "two frames: nobody knows who has them, so nobody may free them",
        tests: ["scene_g_the_leak_report_names_the_driver", "scene_g_twin_loses_data"],
        cpus: 1,
    },
    Card {
        act: Act::Kernel(drivers::revoked_pins),
        letter: 'h',
        title: "Memory is wanted back from three drivers while a device is at work",
        story: &[
            "One driver is done with it, one will be, and one does not know how to stop its device. The process",
            "has to end all the same, and its memory goes to the next one: also the page that is written just now?",
        ],
        twin: "what a driver does not give back is taken from it",
        library: "each is asked; what is refused goes to quarantine, until the device is reset",
        loss: "a page of another process: the device writes into it",
        tests: ["scene_h_no_later_owner_is_written_to", "scene_h_twin_loses_data"],
        cpus: 1,
    },
];

impl Card {
    pub fn has_cpus(&self) -> bool {
        percpu::online().count() >= self.cpus
    }

    pub fn test(&self, twin: bool) -> &'static str {
        self.tests[usize::from(twin)]
    }

    /// One run; well if the library loses nothing, and if the twin does.
    pub fn run(&self, twin: bool, verbose: bool) -> Outcome {
        notes::clear();
        let outcome = match self.act {
            Act::Program(scene) => {
                let run = SceneRun { scene, twin, verbose };
                run_balanced(Program::Scene, run.to_bits(), Status::Exited(u32::from(twin)))
            }
            Act::Kernel(play) => balanced(|| play(twin, verbose)),
        };
        // Whatever became of the one who set it.
        mm::delay_flushes(0);
        outcome
    }
}

pub fn run(report: &mut dyn FnMut(&str, Outcome)) {
    CARDS.iter().for_each(|card| run_both(card, report));
}

/// With the library and with the twin.
pub fn run_both(card: &Card, report: &mut dyn FnMut(&str, Outcome)) {
    for twin in [false, true] {
        let name = card.test(twin);
        if card.has_cpus() {
            report(name, card.run(twin, false));
        } else {
            println!("@skip {name} needs {} cpus", card.cpus);
        }
    }
}
