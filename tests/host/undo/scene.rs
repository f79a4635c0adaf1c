//! Where operations are tried: processes with a bit of everything, and pins that others hold.

use pagepin::frame::{Dirty, Layout};
use pagepin::pin::{self, PhysRun, RawGets, RawPins, Read, Write};
use pagepin::space::{Advice, SpaceOptions};
use pagepin::{LeafSize, Levels, MapOptions, MemoryType, Pfn, Unlimited, VmaFlags};

use crate::machine::{A, FAR, FOREIGN, Image, LARGE, Machine, NONE, PAGE, Process, R, RW};

/// Processes, of which the first acts, and what devices hold of their memory.
pub(crate) struct Scene<'m, L: Layout> {
    machine: &'m Machine<L>,
    pub(crate) processes: Vec<Process<'m, L>>,
    write_pins: Vec<RawPins<Write, Vec<PhysRun>>>,
    gets: Vec<RawGets<Vec<PhysRun>>>,
}

impl<'m, L: Layout> Scene<'m, L> {
    fn new(machine: &'m Machine<L>, processes: impl IntoIterator<Item = Process<'m, L>>) -> Self {
        let processes = processes.into_iter().collect();
        Self { machine, processes, write_pins: Vec::new(), gets: Vec::new() }
    }

    /// The process that acts.
    pub(crate) fn process(&self) -> &Process<'m, L> {
        &self.processes[0]
    }

    fn pinned(mut self, address: u64, pages: u64) -> Self {
        let pins = self.machine.pin::<Write>(self.process(), address, pages * PAGE).unwrap().into_raw();
        self.write_pins.push(pins);
        self
    }

    fn referenced(mut self, address: u64) -> Self {
        let gets = self.machine.reference::<Read>(self.process(), address, PAGE).unwrap();
        let gets = gets.into_raw();
        self.gets.push(gets);
        self
    }

    /// The machine with all processes, and `more` of them.
    pub(crate) fn image(&self, machine: &Machine<L>, more: Option<&Process<'m, L>>) -> Image {
        machine.image(&self.processes.iter().chain(more).collect::<Vec<_>>())
    }
}

impl<L: Layout> Drop for Scene<'_, L> {
    fn drop(&mut self) {
        // SAFETY: taken through this machine, and given back once.
        self.write_pins.drain(..).for_each(|pins| unsafe {
            pin::unpin_user_pages(self.machine, &Unlimited, pins, Dirty::Yes);
        });
        // SAFETY: as above.
        self.gets.drain(..).for_each(|gets| unsafe { pin::put_user_pages(self.machine, gets) });
    }
}

/// A process without VMAs.
pub(crate) fn empty<L: Layout>(machine: &Machine<L>) -> Scene<'_, L> {
    Scene::new(machine, [machine.process()])
}

/// Five levels, nothing mapped yet.
pub(crate) fn five_levels<L: Layout>(machine: &Machine<L>) -> Scene<'_, L> {
    let process = machine.process_of(Levels::Five);
    process.map(A, 4 * PAGE, RW).unwrap();
    Scene::new(machine, [process])
}

/// Four pages that nobody has touched, the last two in another table, and a VMA after them that cannot be written.
pub(crate) fn four_pages<L: Layout>(machine: &Machine<L>) -> Scene<'_, L> {
    let process = machine.process();
    process.map(FOREIGN, 4 * PAGE, RW).unwrap();
    process.map(FOREIGN + 4 * PAGE, PAGE, R).unwrap();
    Scene::new(machine, [process])
}

/// The same without a zero frame.
pub(crate) fn without_zero_frame<L: Layout>(machine: &Machine<L>) -> Scene<'_, L> {
    machine.without_zero_frame();
    four_pages(machine)
}

/// Six pages at `A`, each with its own number.
pub(crate) fn populated<L: Layout>(machine: &Machine<L>) -> Scene<'_, L> {
    Scene::new(machine, [machine.populated(6, 10)])
}

/// The same, no two pages next to each other in memory.
pub(crate) fn one_by_one<L: Layout>(machine: &Machine<L>) -> Scene<'_, L> {
    machine.memory().scatter(true);
    populated(machine)
}

/// The same, of which the second is not user code's by its entry and the fifth is pinned.
pub(crate) fn kernel_entry<L: Layout>(machine: &Machine<L>) -> Scene<'_, L> {
    let process = machine.populated(6, 10);
    let leaf = machine.leaf(&process, A + PAGE).unwrap();
    machine.poke(leaf.at, leaf.bits & !4);
    Scene::new(machine, [process]).pinned(A + 4 * PAGE, 1)
}

/// The same with a process beside it that has nothing.
pub(crate) fn with_empty_child<L: Layout>(machine: &Machine<L>) -> Scene<'_, L> {
    Scene::new(machine, [machine.populated(6, 10), machine.process()]).pinned(A + 4 * PAGE, 1)
}

/// The same, of which a child gets the third page empty and the fourth not at all.
pub(crate) fn advised<L: Layout>(machine: &Machine<L>) -> Scene<'_, L> {
    let process = machine.populated(6, 10);
    process.advise(A + 2 * PAGE, PAGE, Advice::WipeOnFork).unwrap();
    process.advise(A + 3 * PAGE, PAGE, Advice::DontFork).unwrap();
    Scene::new(machine, [process]).pinned(A + 3 * PAGE, 2)
}

/// The same after its only child has gone.
pub(crate) fn orphaned<L: Layout>(machine: &Machine<L>) -> Scene<'_, L> {
    let parent = machine.populated(6, 10);
    drop(parent.fork().unwrap());
    Scene::new(machine, [parent])
}

/// One huge VMA with pages below three entries of the root.
pub(crate) fn wide<L: Layout>(machine: &Machine<L>) -> Scene<'_, L> {
    let process = machine.process();
    process.map(A, 2 * FAR + PAGE - A, RW).unwrap();
    for address in [A, FAR, 2 * FAR] {
        machine.put(&process, address, 7);
    }
    Scene::new(machine, [process])
}

/// The same with a VMA for each.
pub(crate) fn apart<L: Layout>(machine: &Machine<L>) -> Scene<'_, L> {
    let process = machine.process();
    for address in [A, FAR, 2 * FAR] {
        process.map(address, PAGE, RW).unwrap();
        machine.put(&process, address, 7);
    }
    Scene::new(machine, [process])
}

/// Room for four pages of foreign memory between others of the same rights: the tables of both ends are there.
pub(crate) fn gap<L: Layout>(machine: &Machine<L>) -> Scene<'_, L> {
    let process = machine.process();
    // SAFETY: registers of the emulated machine.
    unsafe {
        process.map_foreign(FOREIGN - PAGE, PAGE, Pfn::new(0xfee0), MemoryType::UNCACHED, RW).unwrap();
        process.map_foreign(FOREIGN + 4 * PAGE, PAGE, Pfn::new(0xfee5), MemoryType::UNCACHED, RW).unwrap();
    }
    Scene::new(machine, [process])
}

/// The same with a child.
pub(crate) fn forked<L: Layout>(machine: &Machine<L>) -> Scene<'_, L> {
    let parent = machine.populated(6, 10);
    let child = parent.fork().unwrap();
    Scene::new(machine, [parent, child])
}

/// Six pages, of which a policy forbids to take rights from those that are pinned.
pub(crate) fn refusing<L: Layout>(machine: &Machine<L>) -> Scene<'_, L> {
    six_pages(machine, machine.process(), VmaFlags::REFUSE_PROTECT_PINNED.union(VmaFlags::REFUSE_UNMAP_PINNED))
}

/// Six pages, of which four may be pinned.
pub(crate) fn limited<L: Layout>(machine: &Machine<L>) -> Scene<'_, L> {
    six_pages(machine, machine.process_within(4, SpaceOptions::without_kernel_half(Levels::Four)), VmaFlags::empty())
}

fn six_pages<'m, L: Layout>(machine: &'m Machine<L>, process: Process<'m, L>, flags: VmaFlags) -> Scene<'m, L> {
    process.map(A, 6 * PAGE, MapOptions::new(RW).flags(flags)).unwrap();
    machine.put_pages(&process, A, 6, 10);
    Scene::new(machine, [process])
}

/// A bit of everything, over several tables: pages that are dirty, read-only, without rights, untouched, the zero frame,
/// pinned, referenced, device registers.
pub(crate) fn furnished<L: Layout>(machine: &Machine<L>) -> Scene<'_, L> {
    Scene::new(machine, [furnished_process(machine)]).pinned(A + 4 * PAGE, 1).pinned(FAR, 1).referenced(A + PAGE)
}

/// The same with a child, so that some pages are shared already, some are this process's own again, and one of those is
/// read-only.
pub(crate) fn contended<L: Layout>(machine: &Machine<L>) -> Scene<'_, L> {
    let parent = furnished_process(machine);
    let child = parent.fork().unwrap();
    machine.put(&parent, A, 20);
    drop(machine.pin::<Read>(&parent, A + PAGE, 1).unwrap());
    Scene::new(machine, [parent, child]).pinned(A + 4 * PAGE, 1).pinned(FAR, 1)
}

fn furnished_process<L: Layout>(machine: &Machine<L>) -> Process<'_, L> {
    let process = machine.populated(5, 10);
    process.map(FAR, 3 * PAGE, RW).unwrap();
    machine.put(&process, FAR, 1);
    assert_eq!(machine.get(&process, FAR + PAGE), 0, "the zero frame");
    process.map(A + 16 * PAGE, PAGE, RW).unwrap();
    machine.put(&process, A + 16 * PAGE, 9);
    process.protect(A + 2 * PAGE, PAGE, NONE).unwrap();
    process.protect(A + 3 * PAGE, PAGE, R).unwrap();
    // SAFETY: registers of the emulated machine.
    unsafe { process.map_foreign(FAR + 8 * PAGE, PAGE, Pfn::new(0xfee0), MemoryType::UNCACHED, RW).unwrap() };
    process
}

/// Three large leaves in a row. The first is shared with a child, the second too and nobody's to write, the third is
/// pinned.
pub(crate) fn large<L: Layout>(machine: &Machine<L>) -> Scene<'_, L> {
    let (process, size) = (machine.process(), LeafSize::Size2MiB);
    process.map(LARGE, 2 * size.bytes(), RW).unwrap();
    for index in 0..2 {
        let block = machine.block(size);
        machine.install(&process, LARGE + index * size.bytes(), size, block, 7);
        machine.put(&process, LARGE + index * size.bytes() + 5 * PAGE, 30 + index as u8);
    }
    let child = process.fork().unwrap();
    process.protect(LARGE + size.bytes(), size.bytes(), R).unwrap();
    process.map(LARGE + 2 * size.bytes(), size.bytes(), RW).unwrap();
    let block = machine.block(size);
    machine.install(&process, LARGE + 2 * size.bytes(), size, block, 7);
    Scene::new(machine, [process, child]).pinned(LARGE + 2 * size.bytes() + PAGE, 1)
}
