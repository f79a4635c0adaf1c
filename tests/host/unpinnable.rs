//! VMAs whose pages nobody pins or gets, and in which everything else is as in others.

use pagepin::frame::Layout;
use pagepin::pin::{self, Owner, PhysRun, PinAccess, PinError, PinFlags, Read, Write};
use pagepin::space::{Advice, Copies, LazilyFreed, MergeError, Relocated, Sharing, SwappedOut};
use pagepin::{MapOptions, ObjectId, PageAddr, Unlimited, VmaError, VmaFlags, Zone};

use crate::forms::{self, FORMS, Form};
use crate::machine::{A, FAR, Machine, NONE, PAGE, Process, R, RW, range, runs};

const FILE: ObjectId = ObjectId(3);

fn secret() -> MapOptions {
    MapOptions::new(RW).flags(VmaFlags::UNPINNABLE)
}

/// Whose pages they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Nobody,
    File(Sharing),
}

const KINDS: [Of; 3] = [Of::Nobody, Of::File(Sharing::Private), Of::File(Sharing::Shared)];

/// Four unpinnable pages at [`A`]: untouched, read, written, and written before a fork whose child is gone.
fn pages<L: Layout>(machine: &Machine<L>, of: Of) -> Process<'_, L> {
    let process = machine.process();
    match of {
        Of::Nobody => process.map(A, 4 * PAGE, secret()).unwrap(),
        Of::File(sharing) => {
            machine.shelf().add(FILE, 4);
            process.map_object(A, 4 * PAGE, FILE, 0, sharing, secret()).unwrap();
        }
    }
    machine.put(&process, A + 3 * PAGE, 3);
    drop(process.fork().unwrap());
    machine.get(&process, A + PAGE);
    machine.put(&process, A + 2 * PAGE, 2);
    process
}

fn is_refused<X: PinAccess, L: Layout>(machine: &Machine<L>, process: &Process<'_, L>, page: u64, form: Form) {
    let at = range(process, A + page * PAGE, PAGE);
    // What takes no lock knows no VMA.
    let refusal = |error| error == PinError::NotPinnable || (form == Form::FastOnly && error == PinError::WouldFault);
    let before = machine.image(&[process]);
    for flags in [PinFlags::empty(), PinFlags::FORCE, PinFlags::LONGTERM, PinFlags::SOLE] {
        let known = match flags {
            PinFlags::SOLE => L::HAS_SOLE && form != Form::FastOnly,
            PinFlags::FORCE => X::WRITES && form != Form::FastOnly,
            _ => true,
        };
        if known {
            let error = forms::pin::<X, L>(form, process, at, flags, 1).unwrap_err();
            assert!(refusal(error), "{form:?} {flags:?}: {error:?}");
        }
    }
    let error = forms::get::<X, L>(form, process, at, PinFlags::empty(), 1).unwrap_err();
    assert!(refusal(error), "{form:?}: {error:?}");
    before.assert_same(&machine.image(&[process]), "a refusal");
}

/// Whatever fills it, whatever has become of the page, for reading or writing, and nothing has changed.
fn no_form_takes_a_page<L: Layout>() {
    for of in KINDS {
        let machine = Machine::<L>::new(64);
        let process = pages(&machine, of);
        for form in FORMS {
            for page in 0..4 {
                is_refused::<Read, L>(&machine, &process, page, form);
                is_refused::<Write, L>(&machine, &process, page, form);
            }
        }
        // Nor any that comes of it.
        let child = process.fork().unwrap();
        process.protect(A, 4 * PAGE, R).unwrap();
        process.protect(A, 4 * PAGE, NONE).unwrap();
        process.protect(A, 4 * PAGE, RW).unwrap();
        machine.put_pages(&process, A, 4, 20);
        process.move_pages(A, 4 * PAGE, FAR).unwrap();
        process.move_pages(FAR, 4 * PAGE, A).unwrap();
        assert_eq!([0, 1, 2, 3].map(|page| machine.get(&process, A + page * PAGE)), [20, 21, 22, 23]);
        for form in FORMS {
            for page in 0..4 {
                for process in [&process, &child] {
                    is_refused::<Read, L>(&machine, process, page, form);
                    is_refused::<Write, L>(&machine, process, page, form);
                }
            }
        }
        machine.audit(&[&process, &child], &Default::default());
        drop((process, child));
        machine.clear_shelf();
    }
}

/// A range that ends in such a VMA is pinned up to it.
fn a_pin_ends_before_it<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(2, 10);
    process.map(A + 2 * PAGE, 2 * PAGE, secret()).unwrap();
    machine.put_pages(&process, A + 2 * PAGE, 2, 12);
    let pins = machine.pin::<Write>(&process, A, 4 * PAGE).unwrap();
    assert_eq!((pins.pages(), pins.stopped().unwrap().reason), (2, PinError::NotPinnable));
}

/// Copied on write between parent and child, and the last one keeps its frame.
fn fork_copies_on_write<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    process.map(A, 2 * PAGE, secret()).unwrap();
    machine.put_pages(&process, A, 2, 1);
    let child = process.fork().unwrap();
    machine.put(&process, A, 5);
    machine.put(&child, A + PAGE, 6);
    assert_eq!([A, A + PAGE].map(|at| machine.get(&process, at)), [5, 2]);
    assert_eq!([A, A + PAGE].map(|at| machine.get(&child, at)), [1, 6]);
    machine.audit(&[&process, &child], &Default::default());
    let frame = machine.frame_at(&child, A).0;
    drop(process);
    machine.put(&child, A, 7);
    assert_eq!(machine.frame_at(&child, A).0, frame, "nobody else has it");
    assert_eq!(child.resident().unwrap().exclusive, 2);
}

/// A fork that fails gives back what the child had, and the parent what it could do.
fn a_fork_that_fails_is_undone<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    process.map(A, 4 * PAGE, secret()).unwrap();
    process.map(FAR, PAGE, RW).unwrap();
    machine.put_pages(&process, A, 4, 1);
    machine.put(&process, FAR, 1);
    let before = machine.image(&[&process]);
    let mut failed = 0;
    loop {
        machine.memory().allow(Some(failed));
        let child = process.fork();
        machine.memory().allow(None);
        if child.is_ok() {
            break;
        }
        before.assert_same(&machine.image(&[&process]), format_args!("{failed} frames"));
        failed += 1;
    }
    assert!(failed > 5, "tables for both places");
}

/// A lockless walk that has come too late counts a frame for a moment. Fork copies it then.
fn fork_copies_what_a_late_walk_has_counted<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    process.map(A, PAGE, secret()).unwrap();
    machine.put(&process, A, 1);
    let frame = machine.frame_at(&process, A).0;
    machine.word(frame).try_pin_exclusive().unwrap();
    let child = process.fork().unwrap();
    _ = machine.word(frame).unpin(pagepin::frame::Dirty::No).unwrap();
    assert_ne!(machine.frame_at(&child, A).0, frame);
    machine.put(&process, A, 2);
    assert_eq!((machine.get(&child, A), machine.frame_at(&process, A).0), (1, frame));
    is_refused::<Write, L>(&machine, &child, 0, Form::Fast);
}

/// They stay where they are.
fn they_go_nowhere<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    process.map(A, 2 * PAGE, secret()).unwrap();
    machine.put_pages(&process, A, 2, 1);
    let other = machine.populated(1, 1);
    let before = machine.image(&[&process]);
    assert_eq!(process.swap_out(A, 2 * PAGE), Ok(SwappedOut::default()));
    assert_eq!(process.relocate(A, 2 * PAGE, Zone::Unmovable), Ok(Relocated::default()));
    assert_eq!(process.free_lazily(A, 2 * PAGE), Ok(LazilyFreed::default()));
    before.assert_same(&machine.image(&[&process]), "nothing goes");
    let frame = machine.frame_at(&process, A);
    assert_eq!(process.merge(A, &other, A), Err(MergeError::NotPrivate));
    assert_eq!(other.merge(A, &process, A), Err(MergeError::NotPrivate));
    assert_eq!(machine.frame_at(&process, A), frame);
}

/// A file that is cut off takes copies along, or leaves them.
fn a_hole_leaves_copies_and_a_truncation_does_not<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = pages(&machine, Of::File(Sharing::Private));
    let before = machine.image(&[&process]);
    assert_eq!(process.forget_object(FILE, 2..4, Copies::Keep).unwrap().pages, 0);
    before.assert_same(&machine.image(&[&process]), "copies are the process's");
    assert_eq!(process.forget_object(FILE, 0..2, Copies::Keep).unwrap().pages, 1, "that it had read");
    assert_eq!(process.forget_object(FILE, 0..4, Copies::Forget).unwrap().pages, 2);
    drop(process);
    machine.clear_shelf();
}

/// What is written through such a leaf is noted when it goes, and pins by the object's number are reported.
fn an_objects_page_is_released_as_any_other<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = pages(&machine, Of::File(Sharing::Shared));
    let frame = machine.shelf().frame(FILE, 2).unwrap();
    assert!(!machine.word(frame).snapshot().dirty);
    let owner = Owner::new(&machine, Unlimited);
    let pins = pin::pin_object_pages(owner, Read, FILE, 2..3, PinFlags::empty(), runs(1)).unwrap();
    let unmapped = process.unmap(A, 4 * PAGE).unwrap();
    assert_eq!((unmapped.pages, unmapped.pinned_pages), (3, 1));
    assert_eq!(unmapped.still_pinned.runs()[0].start, A + 2 * PAGE);
    assert_eq!(pins.runs(), [PhysRun::from_parts(frame, 1, 0)]);
    assert!(machine.word(frame).snapshot().dirty);
    drop((pins, process));
    machine.clear_shelf();
}

/// It is said when the memory is mapped, and then for good; what else is said goes on.
fn it_is_said_once<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    process.map(A, 2 * PAGE, secret()).unwrap();
    process.map(A + 2 * PAGE, PAGE, RW).unwrap();
    let vma = process.vma_at(A).unwrap().unwrap();
    assert_eq!(vma.end(), PageAddr::containing(A + 2 * PAGE), "not joined with the other");
    assert_eq!(vma.with_flags(VmaFlags::empty()), Err(VmaError::InvalidFlags));
    let usual = process.vma_at(A + 2 * PAGE).unwrap().unwrap();
    assert_eq!(usual.with_flags(VmaFlags::UNPINNABLE), Err(VmaError::InvalidFlags));
    process.advise(A, PAGE, Advice::DontFork).unwrap();
    let flags = process.vma_at(A).unwrap().unwrap().flags();
    assert_eq!(flags, VmaFlags::UNPINNABLE | VmaFlags::DONT_FORK);
}

every_layout!(
    no_form_takes_a_page,
    a_pin_ends_before_it,
    fork_copies_on_write,
    a_fork_that_fails_is_undone,
    fork_copies_what_a_late_walk_has_counted,
    they_go_nowhere,
    a_hole_leaves_copies_and_a_truncation_does_not,
    an_objects_page_is_released_as_any_other,
    it_is_said_once,
);
