//! On what terms pages are held: the budget's term, protection keys of forced writes, marks, guards of bounded length.

use std::sync::Mutex;

use pagepin::frame::{FrameKind, Layout, Ownership};
use pagepin::pin::{self, PhysRun, PinError, PinFlags, PinnedPages, Read, Write};
use pagepin::space::SpaceOptions;
use pagepin::{
    AddressSpace, BudgetExceeded, FrameRequest, FrameSource, KeyRights, LeafSize, Levels, MapOptions, Mm, Pfn,
    PinBudget, PinTerm, Rights, SOFTWARE_BITS, Vmas,
};

use crate::forms::{self, FORMS, Form};
use crate::machine::{A, Machine, PAGE, Process, R, RW, range};

/// What was charged and given back, in order.
#[derive(Default)]
pub(crate) struct Terms(Mutex<Vec<(i64, PinTerm)>>);

impl Terms {
    pub(crate) fn take(&self) -> Vec<(i64, PinTerm)> {
        core::mem::take(&mut self.0.lock().unwrap())
    }
}

impl PinBudget for Terms {
    fn charge(&self, pages: u64, term: PinTerm) -> Result<(), BudgetExceeded> {
        self.0.lock().unwrap().push((pages as i64, term));
        Ok(())
    }
    fn uncharge(&self, pages: u64, term: PinTerm) {
        self.0.lock().unwrap().push((-(pages as i64), term));
    }
}

/// A process with a budget of the test's own.
pub(crate) struct Charged<'p, 'm, L: Layout>(pub(crate) &'p Process<'m, L>, pub(crate) Terms);

// SAFETY: forwards.
unsafe impl<'m, L: Layout> AddressSpace for Charged<'_, 'm, L> {
    type Kernel = &'m Machine<L>;
    type Budget = Terms;

    fn mm(&self) -> &Mm<&'m Machine<L>> {
        self.0.mm()
    }
    fn with_vmas(&self, look: &mut dyn FnMut(&dyn Vmas)) -> Result<(), pagepin::Reentered> {
        self.0.with_vmas(look)
    }
    fn budget(&self) -> &Terms {
        &self.1
    }
}

fn the_term_is_that_of_the_flags<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(2, 1);
    let space = Charged(&process, Terms::default());
    let page = range(&process, A, PAGE);
    for (flags, term) in [(PinFlags::LONGTERM, PinTerm::Long), (PinFlags::empty(), PinTerm::Short)] {
        for raw in [false, true] {
            let pins = pin::pin_user_pages(&space, Write, page, flags, vec![PhysRun::default(); 1]).unwrap();
            if raw {
                // SAFETY: the same kernel and budget.
                drop(unsafe { PinnedPages::from_raw(&space, pins.into_raw()) });
            } else {
                drop(pins);
            }
            assert_eq!(space.1.take(), [(1, term), (-1, term)]);
        }
    }
}

fn forced_writes_obey_write_disabled_keys<L: Layout>() {
    fn write_disabled() -> KeyRights {
        KeyRights::from_pkru(1 << 3)
    }
    let machine = Machine::<L>::new(64);
    let process = machine.process_with(SpaceOptions {
        key_rights: Some(write_disabled),
        ..SpaceOptions::without_kernel_half(Levels::Four)
    });
    process.map(A, PAGE, MapOptions::new(R).max_rights(Rights::all()).key(1)).unwrap();
    let pins = machine.pin_slow::<Write>(&process, A, 1, PinFlags::FORCE);
    assert_eq!(pins.err(), Some(PinError::ProtectionKey));
}

fn a_look_does_not_dirty<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(1, 1);
    let frame = machine.frame_at(&process, A).0;
    drop(machine.reference::<Read>(&process, A, 1).unwrap());
    drop(machine.pin::<Read>(&process, A, 1).unwrap());
    assert!(!machine.word(frame).snapshot().dirty);
}

/// INV-15: a read side is held for a bounded time, whatever range user space names.
fn a_walk_leaves_the_read_side_again_and_again<L: Layout>() {
    const PAGES: u64 = 4000;
    /// Two tables' pages, each looked at four times, and the ways to them.
    const BOUND: u64 = 2 * 512 * 4 + 32;
    let machine = Machine::<L>::new(4200);
    let process = machine.process();
    process.map(A, PAGES * PAGE, RW).unwrap();
    machine.put_pages(&process, A, PAGES, 1);
    let all = range(&process, A, PAGES * PAGE);
    for form in [Form::FastOnly, Form::Fast] {
        let pins = forms::pin::<Read, L>(form, &process, all, PinFlags::empty(), 4000).unwrap();
        assert_eq!((pins.pages(), pins.stopped()), (PAGES, None));
        drop(pins);
        let gets = forms::get::<Read, L>(form, &process, all, PinFlags::empty(), 4000).unwrap();
        assert_eq!(gets.pages(), PAGES);
    }
    assert!((1000..BOUND).contains(&machine.longest_guard()), "{}", machine.longest_guard());
}

/// A kernel may have put device memory in an anonymous VMA.
fn foreign_memory_in_an_anonymous_vma_is_not_pinnable<L: Layout>() {
    let machine = Machine::<L>::new(64);
    for (rights, max_rights, flags) in [(RW, Rights::all(), PinFlags::empty()), (R, Rights::all(), PinFlags::FORCE)] {
        for bits in [5, 7] {
            let process = machine.process();
            process.map(A, PAGE, MapOptions::new(rights).max_rights(max_rights).key(0)).unwrap();
            machine.install(&process, A, LeafSize::Size4KiB, Pfn::new(0xfee0), bits | 1 << SOFTWARE_BITS[0]);
            let write = machine.pin_slow::<Write>(&process, A, 1, flags).err();
            let wanted = if bits == 5 && flags.is_empty() { PinError::AccessDenied } else { PinError::NotPinnable };
            assert_eq!(write, Some(wanted), "{flags:?}, {bits}");
            for form in [Form::Fast, Form::Slow, Form::Remote] {
                let read = forms::pin::<Read, L>(form, &process, range(&process, A, 1), PinFlags::empty(), 1);
                assert_eq!(read.err(), Some(PinError::NotPinnable), "{form:?}");
            }
        }
    }
}

/// A page of a file in a private VMA is not this mm's, whatever its count says: it is copied, and the copy is pinned.
fn a_files_page_is_copied_before_it_is_pinned<L: Layout>() {
    for form in FORMS {
        let machine = Machine::<L>::new(64);
        let process = machine.process();
        process.map(A, PAGE, RW).unwrap();
        let frame = machine.allocate(FrameRequest::movable(0)).unwrap();
        machine.word(frame).hand_out(FrameKind::File, 0, Ownership::Shared).unwrap();
        machine.memory().write(frame.address(), 0x5a);
        // The file's own reference.
        machine.word(frame).try_get().unwrap();
        machine.install(&process, A, LeafSize::Size4KiB, frame, 5);
        let pins = forms::pin::<Read, L>(form, &process, range(&process, A, 1), PinFlags::empty(), 1);
        if form == Form::FastOnly {
            assert_eq!(pins.err(), Some(PinError::WouldFault));
        } else {
            let pins = pins.unwrap();
            assert_ne!(pins.runs()[0].first(), frame, "{form:?}");
            assert_eq!(machine.dma_read(pins.runs()[0].first().address()), 0x5a);
            machine.put(&process, A, 1);
            assert_eq!(machine.dma_read(pins.runs()[0].first().address()), 1, "INV-11");
        }
        assert_eq!(machine.memory().read(frame.address()), 0x5a);
        drop(process);
        assert!(machine.word(frame).put().is_ok());
        // SAFETY: that was the last reference.
        unsafe { machine.free(frame, 0) };
    }
}

every_layout!(
    the_term_is_that_of_the_flags,
    forced_writes_obey_write_disabled_keys,
    a_look_does_not_dirty,
    a_walk_leaves_the_read_side_again_and_again,
    foreign_memory_in_an_anonymous_vma_is_not_pinnable,
    a_files_page_is_copied_before_it_is_pinned,
);
