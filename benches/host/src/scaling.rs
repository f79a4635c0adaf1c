//! Two threads, each on a CPU of its own, against one.

use std::hint::black_box;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Instant;

use pagepin::{Env as _, OffsetPhysMap};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::compare::{ROUNDS, median};
use crate::machine::{CPUS, Machine, run_as_cpu};
use crate::report::{Figure, Scaling, ScalingRow};
use crate::subject::{Pins, Space, in_order, mapped, touched, write_all};

/// Below that, two threads that share nothing are in each other's way, or somebody else is in theirs.
const NEEDED: f64 = 1.9;
/// Attempts at rounds in which they are not.
const ATTEMPTS: usize = 100;
/// Pages of one thread: whole tables, so that the two write different ones, and words on different lines.
const PAGES: u64 = 4096;
/// Pages of one thread that pins, and how often.
const PINNED: u64 = 512;
const TIMES: usize = 40;
/// Turns of the loop of the control: some milliseconds.
const SPINS: u64 = 4_000_000;

type Kernel = &'static crate::machine::Kernel<OffsetPhysMap>;

/// What one thread does; the argument is its CPU.
type Work<'a> = dyn Fn(usize) + Sync + 'a;

struct Scene {
    key: &'static str,
    title: &'static str,
    goal: Option<f64>,
    contains: &'static str,
    /// How many times as much two threads get done as one.
    measure: fn(&Threads, Kernel) -> f64,
}

const SCENES: [Scene; 6] = [
    Scene {
        key: "zero_one_mm",
        title: "first touch, one mm",
        goal: Some(1.8),
        contains: "two threads, different 2 MiB regions of one mm; with the clearing",
        measure: |threads, kernel| faults(threads, kernel, Kind::Zero),
    },
    Scene {
        key: "copy_one_mm",
        title: "write fault that copies, one mm",
        goal: Some(1.8),
        contains: "the same; with the copy, nothing is flushed",
        measure: |threads, kernel| faults(threads, kernel, Kind::Copy),
    },
    Scene {
        key: "reuse_one_mm",
        title: "write fault that needs no copy, one mm",
        goal: Some(1.8),
        contains: "the same, after the child's exit",
        measure: |threads, kernel| faults(threads, kernel, Kind::Reuse),
    },
    Scene {
        key: "pin_two_mms",
        title: "pin and unpin one page a call, two mms",
        goal: Some(1.9),
        contains: "each thread in an mm of its own",
        measure: |threads, kernel| pins(threads, kernel, 2, 1),
    },
    Scene {
        key: "pin_one_mm",
        title: "pin and unpin one page a call, one mm",
        goal: None,
        contains: "different 2 MiB regions of one mm",
        measure: |threads, kernel| pins(threads, kernel, 1, 1),
    },
    Scene {
        key: "pin_512_two_mms",
        title: "pin and unpin 512 pages a call, two mms",
        goal: None,
        contains: "each thread in an mm of its own",
        measure: |threads, kernel| pins(threads, kernel, 2, PINNED),
    },
];

/// The CPUs that the two threads run on.
struct Threads {
    cpus: [CpuSet; CPUS],
}

impl Threads {
    fn new() -> Option<Self> {
        let all = sched_getaffinity(None).ok()?;
        let mut each = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu)).map(|cpu| {
            let mut one = CpuSet::new();
            one.set(cpu);
            one
        });
        Some(Self { cpus: [each.next()?, each.next()?] })
    }

    /// Nanoseconds from the moment when all of the first `count` threads begin until the last has ended.
    fn run(&self, count: usize, work: &Work<'_>) -> f64 {
        let barrier = Barrier::new(count);
        let one = |cpu: usize| {
            let _ = sched_setaffinity(None, &self.cpus[cpu]);
            run_as_cpu(cpu);
            barrier.wait();
            let start = Instant::now();
            work(cpu);
            (start, Instant::now())
        };
        let times: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..count).map(|cpu| scope.spawn(move || one(cpu))).collect();
            threads.into_iter().map(|thread| thread.join().expect("it ends")).collect()
        });
        let start = times.iter().map(|(start, _)| *start).min();
        let end = times.iter().map(|(_, end)| *end).max();
        end.zip(start).map_or(f64::NAN, |(end, start)| (end - start).as_nanos() as f64)
    }

    /// How many times as much two threads get done as one.
    fn gain(&self, mut prepared: impl FnMut(usize) -> f64) -> f64 {
        2.0 * prepared(1) / prepared(2)
    }

    /// Of a loop in registers.
    fn control(&self) -> f64 {
        let spin = |_: usize| {
            let mut value = 1u64;
            for _ in 0..SPINS {
                value = black_box(value).wrapping_mul(3);
            }
        };
        self.gain(|count| self.run(count, &spin))
    }
}

pub(crate) fn measure() -> Scaling {
    let Some(threads) = Threads::new() else {
        let row = |scene: &Scene| row(scene, Figure::Missing("not measurable here: there is one CPU".to_owned()));
        return Scaling { control: 1.0, needed: NEEDED, rows: SCENES.iter().map(row).collect() };
    };
    let kernel = Machine::new().kernel();
    let mut controls = Vec::new();
    let rows = SCENES.iter().map(|scene| row(scene, times(scene, &threads, kernel, &mut controls))).collect();
    Scaling { control: median(controls), needed: NEEDED, rows }
}

/// The median of rounds before and after which the two CPUs were free.
fn times(scene: &Scene, threads: &Threads, kernel: Kernel, controls: &mut Vec<f64>) -> Figure {
    eprintln!("two threads: {}", scene.title);
    let mut rounds = Vec::new();
    for _ in 0..ATTEMPTS {
        let before = threads.control();
        let gain = if before < NEEDED { None } else { Some((scene.measure)(threads, kernel)) };
        let control = if gain.is_none() { before } else { before.min(threads.control()) };
        controls.push(control);
        rounds.extend(gain.filter(|_| control >= NEEDED));
        if rounds.len() == ROUNDS {
            return Figure::Measured(median(rounds));
        }
    }
    let free = rounds.len();
    Figure::Missing(format!(
        "not measurable here: the two CPUs were free in {free} of {ATTEMPTS} rounds, and {ROUNDS} are needed"
    ))
}

fn row(scene: &Scene, times: Figure) -> ScalingRow {
    ScalingRow {
        key: scene.key.to_owned(),
        title: scene.title.to_owned(),
        times,
        goal: scene.goal,
        contains: scene.contains.to_owned(),
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Zero,
    Copy,
    Reuse,
}

fn faults(threads: &Threads, kernel: Kernel, kind: Kind) -> f64 {
    threads.gain(|count| {
        let parent = mapped(kernel, 2 * PAGES);
        let write = |space: &Space<_>, count| {
            threads.run(count, &|cpu| write_all(space, cpu as u64 * PAGES..(cpu as u64 + 1) * PAGES))
        };
        let taken = match kind {
            Kind::Zero => write(&parent, count),
            Kind::Copy | Kind::Reuse => {
                // By both, so that each writes frames of its own CPU.
                write(&parent, CPUS);
                let child = parent.fork().expect("memory for a child");
                match kind {
                    Kind::Copy => write(&child, count),
                    _ => {
                        drop(child);
                        write(&parent, count)
                    }
                }
            }
        };
        drop(parent);
        kernel.source().tidy();
        taken
    })
}

/// In an mm each, or both in one.
fn pins(threads: &Threads, kernel: Kernel, mms: usize, call: u64) -> f64 {
    threads.gain(|count| {
        let spaces: Vec<_> = (0..mms).map(|_| Arc::new(touched(kernel, 2 * PINNED, in_order))).collect();
        let each: Vec<_> = (0..CPUS)
            .map(|cpu| {
                let first = cpu as u64 * PINNED;
                Mutex::new(Pins::new(spaces[cpu % mms].clone(), first..first + PINNED, call))
            })
            .collect();
        let taken = threads.run(count, &|cpu| {
            let mut pins = each[cpu].lock().expect("one thread has it");
            for _ in 0..TIMES {
                pins.pin();
                pins.unpin();
            }
        });
        drop((each, spaces));
        kernel.source().tidy();
        taken
    })
}
