//! Two threads, each on a CPU of its own, against one.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{
    AtomicUsize,
    Ordering::{AcqRel, Acquire},
};
use std::sync::{Arc, Mutex};
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
const ATTEMPTS: usize = 30;
/// Of one thread and of two, the fastest of so many runs makes a round; each is so short that it fits between others' work.
const TURNS: usize = 12;
/// Pages of one thread: whole tables, so that the two write different ones, and words on different lines.
const PAGES: u64 = 2048;
/// Pages of one thread that pins, and how often.
const PINNED: u64 = 512;
const TIMES: usize = 40;
/// Turns of the loop of the control: half a millisecond.
const SPINS: u64 = 500_000;

type Kernel = &'static crate::machine::Kernel<OffsetPhysMap>;

/// What one thread does; the argument is its CPU.
type Work<'a> = dyn Fn(usize) + Sync + 'a;

struct Scene {
    key: &'static str,
    title: &'static str,
    goal: Option<f64>,
    contains: &'static str,
    /// Nanoseconds of so many threads.
    measure: fn(&Threads, Kernel, usize) -> f64,
}

const SCENES: [Scene; 6] = [
    Scene {
        key: "zero_one_mm",
        title: "first touch, one mm",
        goal: Some(1.8),
        contains: "two threads, different 2 MiB regions of one mm; with the clearing",
        measure: |threads, kernel, count| faults(threads, kernel, count, Kind::Zero),
    },
    Scene {
        key: "copy_one_mm",
        title: "write fault that copies, one mm",
        goal: Some(1.8),
        contains: "the same; with the copy, nothing is flushed",
        measure: |threads, kernel, count| faults(threads, kernel, count, Kind::Copy),
    },
    Scene {
        key: "reuse_one_mm",
        title: "write fault that needs no copy, one mm",
        goal: Some(1.8),
        contains: "the same, after the child's exit",
        measure: |threads, kernel, count| faults(threads, kernel, count, Kind::Reuse),
    },
    Scene {
        key: "pin_two_mms",
        title: "pin and unpin one page a call, two mms",
        goal: Some(1.9),
        contains: "each thread in an mm of its own",
        measure: |threads, kernel, count| pins(threads, kernel, count, 2, 1),
    },
    Scene {
        key: "pin_one_mm",
        title: "pin and unpin one page a call, one mm",
        goal: None,
        contains: "different 2 MiB regions of one mm",
        measure: |threads, kernel, count| pins(threads, kernel, count, 1, 1),
    },
    Scene {
        key: "pin_512_two_mms",
        title: "pin and unpin 512 pages a call, two mms",
        goal: None,
        contains: "each thread in an mm of its own",
        measure: |threads, kernel, count| pins(threads, kernel, count, 2, PINNED),
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
        let ready = AtomicUsize::new(0);
        let one = |cpu: usize| {
            let _ = sched_setaffinity(None, &self.cpus[cpu]);
            run_as_cpu(cpu);
            // Without the kernel, which would wake one after the other.
            ready.fetch_add(1, AcqRel);
            while ready.load(Acquire) < count {
                spin_loop();
            }
            let start = Instant::now();
            work(cpu);
            (start, Instant::now())
        };
        let one = &one;
        let times: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..count).map(|cpu| scope.spawn(move || one(cpu))).collect();
            threads.into_iter().map(|thread| thread.join().expect("it ends")).collect()
        });
        let start = times.iter().map(|(start, _)| *start).min();
        let end = times.iter().map(|(_, end)| *end).max();
        end.zip(start).map_or(f64::NAN, |(end, start)| (end - start).as_nanos() as f64)
    }

    /// Of a loop in registers.
    fn control(&self, count: usize) -> f64 {
        let spin = |_: usize| {
            let mut value = 1u64;
            for _ in 0..SPINS {
                value = black_box(value).wrapping_mul(3);
            }
        };
        self.run(count, &spin)
    }

    /// How many times as much two threads get done as one: of the control, and of the scene, in turns.
    fn round(&self, scene: &Scene, kernel: Kernel) -> [f64; 2] {
        let mut fastest = [[f64::INFINITY; CPUS]; 2];
        for _ in 0..TURNS {
            for count in 1..=CPUS {
                let now = [self.control(count), (scene.measure)(self, kernel, count)];
                fastest[0][count - 1] = fastest[0][count - 1].min(now[0]);
                fastest[1][count - 1] = fastest[1][count - 1].min(now[1]);
            }
        }
        fastest.map(|[one, two]| CPUS as f64 * one / two)
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

/// The median of rounds in which the two CPUs were free.
fn times(scene: &Scene, threads: &Threads, kernel: Kernel, controls: &mut Vec<f64>) -> Figure {
    eprintln!("two threads: {}", scene.title);
    let mut rounds = Vec::new();
    for _ in 0..ATTEMPTS {
        let [control, gain] = threads.round(scene, kernel);
        controls.push(control);
        rounds.extend(Some(gain).filter(|_| control >= NEEDED));
        if rounds.len() == ROUNDS {
            return Figure::Measured(median(rounds));
        }
    }
    let free = rounds.len();
    Figure::Missing(format!("not measurable here: two CPUs were free in {free} of {ATTEMPTS} rounds"))
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

fn faults(threads: &Threads, kernel: Kernel, count: usize, kind: Kind) -> f64 {
    let parent = mapped(kernel, 2 * PAGES);
    let write = |space: &Space<_>, count| {
        threads.run(count, &|cpu| write_all(space, cpu as u64 * PAGES..(cpu as u64 + 1) * PAGES))
    };
    let mut child = None;
    if !matches!(kind, Kind::Zero) {
        // By both, so that each writes frames of its own CPU.
        write(&parent, CPUS);
        child = parent.fork().ok();
    }
    let taken = match kind {
        Kind::Copy => write(child.as_ref().expect("memory for a child"), count),
        Kind::Zero | Kind::Reuse => {
            drop(child.take());
            write(&parent, count)
        }
    };
    drop((child, parent));
    kernel.source().tidy();
    taken
}

/// In an mm each, or both in one.
fn pins(threads: &Threads, kernel: Kernel, count: usize, mms: usize, call: u64) -> f64 {
    let spaces: Vec<_> = (0..mms).map(|_| Arc::new(touched(kernel, 2 * PINNED, in_order))).collect();
    let pins = |cpu: usize| {
        let first = cpu as u64 * PINNED;
        Mutex::new(Pins::new(spaces[cpu % mms].clone(), first..first + PINNED, call))
    };
    let each: Vec<_> = (0..CPUS).map(pins).collect();
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
}
