//! The library embedded by hand: an [`AddressSpace`] of the kernel's own, device memory that is mapped on demand, and an
//! environment put together from parts behind references.

use std::cell::Cell;

use pagepin::Access;
use pagepin::fault::{Fault, FaultError, FaultOutcome, handle_fault};
use pagepin::frame::{FrameKind, Layout, Ownership, Wide};
use pagepin::paging::Tables;
use pagepin::pin::{
    PhysRun, PinError, PinFlags, Read, Stopped, Write, pin_user_pages, pin_user_pages_fast, pin_user_pages_remote,
};
use pagepin::space::{SpaceOptions, UserSpace, fork_vmas, free_tables};
use pagepin::{
    AddressSpace, Backing, Entry, Env, FlushRange, ForeignFault, FrameRequest, FrameSource, FrameTable, LeafSize,
    Levels, MemoryType, Mm, NotReady, PageAddr, Pfn, Platform, ReadSide, Shootdown, Unlimited, UserRange, Vma, Vmas,
};

use crate::machine::{A, Machine, PAGE, Process, RW, range};

/// Where the registers lie: outside the arena.
const REGISTERS: Pfn = Pfn::new(0xfee0);
/// Address of the registers.
const DEVICE: u64 = A + 16 * PAGE;

/// Two pages of memory at [`A`], two of registers at [`DEVICE`] of which the second has none behind it.
struct OwnSpace<'m, L: Layout> {
    machine: &'m Machine<L>,
    mm: Mm<&'m Machine<L>>,
    /// The last access to the registers that was asked to be mapped.
    asked: Cell<Option<(PageAddr, Access)>>,
    /// The registers are not ready.
    slow: Cell<bool>,
    /// Says that it has filled the registers' entry, and has not.
    lies: Cell<bool>,
}

// SAFETY: the tests that use it have one thread.
unsafe impl<L: Layout> Sync for OwnSpace<'_, L> {}

impl<'m, L: Layout> OwnSpace<'m, L> {
    fn new(machine: &'m Machine<L>) -> Self {
        let root = machine.allocate(FrameRequest::unmovable(0)).unwrap();
        machine.word(root).hand_out(FrameKind::Table, 0, Ownership::Shared).unwrap();
        let bytes = 0..PAGE;
        bytes.for_each(|byte| machine.memory().write(root.address() + byte, 0));
        // SAFETY: the root is cleared, this value's own, and given back after it.
        let mm = unsafe { Mm::new(machine, root, Levels::Four) };
        let (slow, lies) = Default::default();
        Self { machine, mm, asked: Cell::new(None), slow, lies }
    }

    fn vmas() -> [Vma; 2] {
        let pages = |start| UserRange::new(Levels::Four.user_half(), start, 2 * PAGE).unwrap();
        let vma = |start, backing| Vma::new(pages(start), backing, RW).unwrap();
        [vma(A, Backing::Anonymous), vma(DEVICE, Backing::Foreign(MemoryType::UNCACHED))]
    }

    fn fault(&self, address: u64, access: Access) -> Result<FaultOutcome, FaultError> {
        handle_fault(self, Fault { address, access, key_denied: false, malformed_table: false })
    }
}

impl<L: Layout> Drop for OwnSpace<'_, L> {
    fn drop(&mut self) {
        // SAFETY: nobody uses this mm any more.
        unsafe { free_tables(&self.mm) };
        let root = self.mm.root();
        _ = self.machine.word(root).put().unwrap();
        // SAFETY: allocated in `new`, and its tables are gone.
        unsafe { self.machine.free(root, 0) };
    }
}

// SAFETY: the VMAs do not overlap, and nothing outside them is filled.
unsafe impl<L: Layout> Vmas for OwnSpace<'_, L> {
    fn vma_at(&self, page: PageAddr) -> Option<Vma> {
        Self::vmas().into_iter().find(|vma| vma.contains(page))
    }

    fn fault_foreign(&self, page: PageAddr, access: Access) -> Result<(), ForeignFault> {
        self.asked.set(Some((page, access)));
        if self.slow.get() {
            return Err(ForeignFault::NotReady(NotReady(7)));
        }
        if self.lies.get() {
            return Ok(());
        }
        if page.address() != DEVICE {
            return Err(ForeignFault::NotMapped);
        }
        // SAFETY: asked by a fault, which holds the mm lock.
        let mut tables = unsafe { Tables::under_mm_lock(&self.mm) };
        // SAFETY: a page of the user half.
        let at = unsafe { tables.place(page, LeafSize::Size4KiB) }.map_err(|_| ForeignFault::NoMemory)?;
        let entry = Entry::leaf(REGISTERS, LeafSize::Size4KiB, RW, 0).special();
        let entry = entry.with_memory_type(LeafSize::Size4KiB, MemoryType::UNCACHED);
        // SAFETY: found under this lock; registers are not counted. Who was faster mapped the same.
        let _ = unsafe { tables.fill(at, LeafSize::Size4KiB, entry) };
        Ok(())
    }
}

// SAFETY: one thread; nothing changes the VMAs.
unsafe impl<'m, L: Layout> AddressSpace for OwnSpace<'m, L> {
    type Kernel = &'m Machine<L>;
    type Budget = Unlimited;

    fn mm(&self) -> &Mm<&'m Machine<L>> {
        &self.mm
    }
    fn with_vmas(&self, look: &mut dyn FnMut(&dyn Vmas)) -> Result<(), pagepin::Reentered> {
        look(self);
        Ok(())
    }

    fn budget(&self) -> &Unlimited {
        &Unlimited
    }
}

fn faults_of_a_kernel_with_own_vmas_are_resolved<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let space = OwnSpace::new(&machine);
    assert_eq!(space.fault(A, Access::Read), Ok(FaultOutcome::MappedZero));
    assert_eq!(space.fault(A, Access::Write), Ok(FaultOutcome::Copied));
    assert_eq!(space.fault(A + PAGE, Access::Write), Ok(FaultOutcome::MappedFresh));
    assert_eq!(space.fault(A + 2 * PAGE, Access::Read), Err(FaultError::NoVma));
    assert_eq!(space.fault(A, Access::Execute), Err(FaultError::AccessDenied));
    assert_eq!(space.asked.get(), None, "the kernel is asked about device memory only");
    assert_eq!(space.tag(), 0, "nobody says for whom");
}

/// The kernel maps the registers when it is asked, and is told which access it was.
fn device_memory_is_mapped_on_demand<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let space = OwnSpace::new(&machine);
    for access in [Access::Read, Access::Write] {
        let behind = PageAddr::containing(DEVICE + PAGE);
        assert_eq!(space.fault(behind.address(), access), Err(FaultError::Foreign), "nothing is behind it");
        assert_eq!(space.asked.take(), Some((behind, access)));
    }
    machine.memory().allow(Some(0));
    assert_eq!(space.fault(DEVICE, Access::Write), Err(FaultError::NoMemory));
    machine.memory().allow(None);
    assert_eq!(space.fault(DEVICE + 8, Access::Write), Ok(FaultOutcome::MappedFresh));
    space.asked.take();
    assert_eq!(space.fault(DEVICE, Access::Write), Ok(FaultOutcome::Spurious), "it is mapped by now");
    assert_eq!(space.fault(DEVICE, Access::Execute), Err(FaultError::AccessDenied));
    assert_eq!(space.asked.take(), None);
    let range = UserRange::new(Levels::Four.user_half(), DEVICE, 1).unwrap();
    let pins = pin_user_pages(&space, Read, range, PinFlags::empty(), [PhysRun::default()]);
    assert_eq!(pins.err(), Some(PinError::NotPinnable));
}

/// Nothing is held while the kernel fetches a page, each attempt gains one, and what was pinned stays pinned.
fn a_pin_is_resumed_page_by_page_as_they_get_ready<L: Layout>() {
    for remote in [false, true] {
        let machine = Machine::<L>::new(64);
        let process = swapped(&machine);
        let range = UserRange::new(Levels::Four.user_half(), A + 5, 2 * PAGE - 10).unwrap();
        let pin = || {
            let runs = [PhysRun::default(); 2];
            if remote {
                pin_user_pages_remote(&process, Write, range, PinFlags::empty(), runs)
            } else {
                pin_user_pages_fast(&process, Write, range, PinFlags::empty(), runs)
            }
        };
        machine.slots().delay(1);
        assert!(matches!(pin().err(), Some(PinError::NotReady(_))), "nothing is pinned");
        machine.get(&process, A);
        machine.slots().delay(1);
        let pins = pin().unwrap();
        assert!(is_not_ready(pins.stopped()) && pins.pages() == 1);
        let first = pins.runs()[0];
        // The locks are free: others fault and change mappings meanwhile.
        machine.put(&process, A, 1);
        process.map(A + 2 * PAGE, PAGE, RW).unwrap();
        let pins = if remote { pins.resume_remote() } else { pins.resume() };
        assert_eq!((pins.pages(), pins.stopped()), (2, None));
        assert_eq!(pins.runs()[0].first(), first.first());
        let pins = pins.resume();
        let counters = machine.statistics();
        assert_eq!((pins.pages(), counters.pins_acquired), (2, 2), "there was nothing to resume");
        pins.complete().unwrap().copy_from(0, b"all of it").unwrap();
    }
}

/// Two pages at [`A`], in slots, and their frames are gone.
fn swapped<L: Layout>(machine: &Machine<L>) -> Process<'_, L> {
    let process = machine.populated(2, 10);
    assert_eq!(process.swap_out(A, 2 * PAGE).unwrap().pages, 2);
    machine.write_out();
    process
}

fn is_not_ready(stopped: Option<Stopped>) -> bool {
    matches!(stopped, Some(Stopped { page_index: 1, reason: PinError::NotReady(_) }))
}

/// However often a page is not ready, that is not contention.
fn a_page_that_is_never_ready_stays_not_ready<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = swapped(&machine);
    machine.get(&process, A);
    machine.slots().delay(200);
    let range = UserRange::new(Levels::Four.user_half(), A, 2 * PAGE).unwrap();
    let mut pins = pin_user_pages(&process, Read, range, PinFlags::empty(), [PhysRun::default(); 2]).unwrap();
    for _ in 0..100 {
        assert!(is_not_ready(pins.stopped()));
        pins = pins.resume();
    }
    assert_eq!(pins.pages(), 1);
}

fn a_fault_says_what_the_page_waits_for<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let space = OwnSpace::new(&machine);
    space.slow.set(true);
    for access in [Access::Read, Access::Write] {
        assert_eq!(space.fault(DEVICE, access), Err(FaultError::NotReady(NotReady(7))));
    }
}

/// Otherwise the access would fault for ever.
fn a_kernel_that_fills_nothing_is_told<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let space = OwnSpace::new(&machine);
    space.lies.set(true);
    assert_eq!(space.fault(DEVICE, Access::Write), Err(FaultError::NotFilled));
    space.lies.set(false);
    assert_eq!(space.fault(DEVICE, Access::Write), Ok(FaultOutcome::MappedFresh));
}

fn a_kernel_with_own_vmas_forks_and_pins<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let (parent, child) = (OwnSpace::new(&machine), OwnSpace::new(&machine));
    parent.fault(A, Access::Write).unwrap();
    parent.fault(DEVICE, Access::Write).unwrap();
    let range = UserRange::new(Levels::Four.user_half(), A, PAGE).unwrap();
    let pin = |space| {
        let runs = [PhysRun::default()];
        pin_user_pages_fast(space, Write, range, PinFlags::empty(), runs).unwrap().complete()
    };
    let pinned = pin(&parent).unwrap();
    pinned.copy_from(0, b"old").unwrap();
    // SAFETY: these are the VMAs of both, and there is one thread.
    let forked = unsafe { fork_vmas(&parent.mm, &child.mm, &OwnSpace::<L>::vmas()) }.unwrap();
    assert_eq!((forked.copied_pages, forked.shared_pages), (1, 0), "registers are neither");
    pinned.copy_from(0, b"new").unwrap();
    let (mut of_child, mut of_parent) = ([0; 3], [0; 3]);
    pin(&child).unwrap().copy_to(0, &mut of_child).unwrap();
    pin(&parent).unwrap().copy_to(0, &mut of_parent).unwrap();
    assert_eq!((&of_child, &of_parent), (b"old", b"new"));
    assert_eq!(child.fault(DEVICE, Access::Write), Ok(FaultOutcome::Spurious));
    drop(pinned);
}

/// What fork reports is base pages, whatever the size of the leaves.
fn fork_counts_base_pages<L: Layout>() {
    let machine = Machine::<L>::new(4096);
    let (parent, child) = (machine.process(), machine.process());
    let (size, start) = (LeafSize::Size2MiB, 1 << 30);
    parent.map(start, 2 * size.bytes(), RW).unwrap();
    for address in [start, start + size.bytes()] {
        let block = machine.block(size);
        machine.install(&parent, address, size, block, 7);
    }
    let pinned = machine.pin::<Write>(&parent, start, PAGE).unwrap();
    let vma = Vma::new(range(&parent, start, 2 * size.bytes()), Backing::Anonymous, RW).unwrap();
    // SAFETY: this is the parent's VMA, there is one thread, and the child is new.
    let forked = unsafe { fork_vmas(parent.mm(), child.mm(), &[vma]) }.unwrap();
    assert_eq!((forked.copied_pages, forked.shared_pages), (512, 512));
    drop(pinned);
}

/// What is borrowed does all that its owner does: an environment may be put together from references.
#[test]
fn an_environment_of_references_is_one() {
    let machine = Machine::<Wide>::new(64);
    // SAFETY: one machine is every part.
    let platform = unsafe { Platform::new(&machine, &machine, &machine, &machine, &machine) };
    let zero = <&Machine as FrameSource>::zero_frame(&&machine).unwrap();
    assert_eq!(platform.source().zero_frame(), Some(zero));
    let parent = UserSpace::new(&platform, SpaceOptions::without_kernel_half(pagepin::Levels::Four)).unwrap();
    assert!(std::ptr::eq(*parent.env(), &raw const platform));
    parent.map(A, 3 * PAGE, RW).unwrap();
    let range = parent.range(A, 3 * PAGE).unwrap();
    let write = || {
        let runs = [PhysRun::default(); 3];
        pin_user_pages_fast(&parent, Write, range, PinFlags::empty(), runs).unwrap().complete()
    };
    write().unwrap().copy_from(0, b"old").unwrap();
    let flushes = machine.flushes();
    let child = parent.fork().unwrap();
    assert_eq!(machine.flushes(), flushes + 1, "the references forward");
    write().unwrap().copy_from(0, b"new").unwrap();
    let runs = [PhysRun::default(); 3];
    let found = pin_user_pages_fast(&child, Read, range, PinFlags::empty(), runs).unwrap();
    let mut bytes = [0; 3];
    found.complete().unwrap().copy_to(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"old");
    let values = platform.statistics();
    assert_eq!((values.pins_acquired, values.pins_released), (9, 9));
    platform.read_side().synchronize();
    drop(platform.read_side().enter());
    platform.shootdown().flush(parent.root(), FlushRange::Everything);
    let first = Pfn::new(zero.number() + 1);
    assert!(platform.frames().run(first, 2).is_some() && platform.frames().frame(first).is_some());
}

/// A frame source that can be made to hand out a certain frame.
struct Liar<'m, L: Layout> {
    machine: &'m Machine<L>,
    next: Cell<Option<Pfn>>,
}

// SAFETY: one thread.
unsafe impl<L: Layout> Sync for Liar<'_, L> {}

// SAFETY: it is not sound when it lies, and the library has to notice that by the frame's word.
unsafe impl<L: Layout> FrameSource for Liar<'_, L> {
    fn allocate(&self, request: FrameRequest) -> Option<Pfn> {
        self.next.take().or_else(|| self.machine.allocate(request))
    }
    unsafe fn free(&self, frame: Pfn, order: u8) {
        // SAFETY: forwarded from the caller.
        unsafe { self.machine.free(frame, order) };
    }
}

/// What the source must not have handed out is left alone, and noted.
fn a_frame_that_is_in_use_is_not_taken_from_the_source<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let source = Liar { machine: &machine, next: Cell::new(None) };
    // SAFETY: the source lies, which is what is tested.
    let kernel = unsafe { Platform::new(&machine, &machine, source, &machine, &machine) };
    let process = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(pagepin::Levels::Four)).unwrap();
    process.map(A, 2 * PAGE, RW).unwrap();
    let page = |address| process.range(address, 1).unwrap();
    let pin = |address| {
        let runs = [PhysRun::default()];
        pin_user_pages_fast(&process, Write, page(address), PinFlags::empty(), runs)
    };
    let pinned = pin(A).unwrap();
    let used = pinned.runs()[0].first();
    let before = machine.word(used).snapshot();
    for (lie, bugs) in [(used, 1), (REGISTERS, 2)] {
        kernel.source().next.set(Some(lie));
        assert_eq!(pin(A + PAGE).err(), Some(PinError::NoMemory), "{lie:?}");
        assert_eq!(kernel.statistics().bugs_caught, bugs);
        assert_eq!(machine.word(used).snapshot(), before);
    }
    assert!(pin(A + PAGE).is_ok());
    drop(pinned);
}

/// What a kernel prints when something is wrong says what it is and where.
#[test]
fn debug_texts_name_the_thing_and_its_place() {
    let machine = Machine::<Wide>::new(64);
    let process = machine.populated(1, 1);
    let root = format!("{:?}", process.root());
    // SAFETY: there is one thread, and it is in no operation.
    let tables = unsafe { Tables::under_mm_lock(process.mm()) };
    for text in [format!("{:?}", process.mm()), format!("{process:?}"), format!("{tables:?}")] {
        assert!(text.contains(&root), "{text}");
    }
    let place = format!("{A:#x}");
    let gets = machine.reference::<Read>(&process, A, PAGE).unwrap();
    let pins = machine.pin::<Read>(&process, A, PAGE).unwrap();
    for text in [format!("{gets:?}"), format!("{pins:?}"), format!("{:?}", range(&process, A, PAGE))] {
        assert!(text.contains(&place), "{text}");
    }
}

/// Where nothing is mapped there is no large page either, at whatever level the search ended.
#[test]
fn an_empty_slot_is_of_one_page() {
    let machine = Machine::<Wide>::new(64);
    let process = machine.populated(1, 1);
    // SAFETY: there is one thread, and it is in no operation.
    let tables = unsafe { Tables::under_mm_lock(process.mm()) };
    for address in [A + PAGE, A + (1 << 21), A + (1 << 30), A + (1 << 39)] {
        let page = PageAddr::containing(address);
        let slot = tables.find(page).unwrap();
        assert_eq!((slot.size(), slot.first_page()), (LeafSize::Size4KiB, page), "{slot:?}");
        assert!(slot.entry.is_empty());
    }
}

every_layout!(
    faults_of_a_kernel_with_own_vmas_are_resolved,
    device_memory_is_mapped_on_demand,
    a_pin_is_resumed_page_by_page_as_they_get_ready,
    a_page_that_is_never_ready_stays_not_ready,
    a_fault_says_what_the_page_waits_for,
    a_kernel_that_fills_nothing_is_told,
    a_kernel_with_own_vmas_forks_and_pins,
    fork_counts_base_pages,
    a_frame_that_is_in_use_is_not_taken_from_the_source,
);
