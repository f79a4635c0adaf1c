//! What the library says of whole address spaces: counts, lists, and the audit, which must find each kind of damage.

use std::collections::BTreeMap;

use pagepin::fault::Fault;
use pagepin::frame::{Layout, Wide};
use pagepin::paging::{Slot, Tables};
use pagepin::pin::{PhysRun, Read, Write};
use pagepin::space::{Audited, Finding, Resident, SpaceError, SpaceOptions, UserSpace, audit};
use pagepin::{
    Access, AddressSpace, Entry, Env, FrameRequest, FrameSource, FrameTable, LeafSize, Levels, MapOptions, MemoryType,
    PageAddr, Pfn, PhysMap, Rights,
};

use crate::machine::{A, LARGE, Machine, PAGE, R, RW};

#[path = "../machine/doc_kernel.rs"]
pub(crate) mod doc_kernel;

use doc_kernel::Kernel;

type Space<'k> = UserSpace<&'k Kernel>;

fn space(kernel: &Kernel) -> Space<'_> {
    UserSpace::new(kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap()
}

fn touch(space: &Space<'_>, address: u64, access: Access) {
    space.fault(Fault { address, access, key_denied: false, malformed_table: false }).unwrap();
}

/// Three pages written, two read only.
fn furnished(kernel: &Kernel) -> Space<'_> {
    let space = space(kernel);
    space.map(A, 8 * PAGE, RW).unwrap();
    (0..3).for_each(|page| touch(&space, A + page * PAGE, Access::Write));
    (5..7).for_each(|page| touch(&space, A + page * PAGE, Access::Read));
    space
}

fn slot(space: &Space<'_>, address: u64) -> Slot {
    // SAFETY: one thread.
    unsafe { Tables::under_mm_lock(space.mm()) }.find(PageAddr::containing(address)).unwrap()
}

fn frame(space: &Space<'_>, address: u64) -> Pfn {
    slot(space, address).entry.leaf_frame(LeafSize::Size4KiB)
}

fn findings<'k>(kernel: &'k Kernel, spaces: &[&Space<'k>]) -> (Audited, Vec<Finding>) {
    let mut found = Vec::new();
    let audited = audit(kernel, spaces.iter().copied(), &mut |finding| found.push(finding)).unwrap();
    assert_eq!(audited.bugs, found.iter().filter(|finding| finding.is_bug()).count() as u64);
    (audited, found)
}

#[test]
fn resident_memory_is_counted_by_what_it_is() {
    let kernel = doc_kernel::kernel();
    let parent = furnished(&kernel);
    // SAFETY: no program runs.
    unsafe { parent.map_foreign(A + 8 * PAGE, PAGE, Pfn::new(0x9_0000), MemoryType::UNCACHED, RW) }.unwrap();
    let counts = Resident { exclusive: 3, zero: 2, foreign: 1, tables: 4, ..Resident::default() };
    assert_eq!(parent.resident(), Ok(counts));
    assert_eq!(counts.frames(), 7);
    let child = parent.fork().unwrap();
    touch(&child, A, Access::Write);
    assert_eq!(parent.resident(), Ok(Resident { exclusive: 0, shared: 3, ..counts }));
    assert_eq!(child.resident(), Ok(Resident { exclusive: 1, shared: 2, ..counts }));
    drop(child);
    parent.protect(A, PAGE, Rights::empty()).unwrap();
    assert_eq!(
        parent.resident(),
        Ok(Resident { exclusive: 0, shared: 3, ..counts }),
        "kept, and nobody claimed them yet"
    );
}

#[test]
fn a_dump_shows_vmas_and_runs_of_pages() {
    let kernel = doc_kernel::kernel();
    let space = furnished(&kernel);
    space.map(A + 16 * PAGE, PAGE, MapOptions::new(R).data(0x77)).unwrap();
    let (first, zero) = (frame(&space, A), kernel.source().zero_frame().unwrap());
    let text = space.dump().to_string();
    let lines: Vec<_> = text.lines().collect();
    let expected = [
        format!("root {:?}, 2 VMAs, pages: 3 exclusive, 0 shared, 2 zero, 0 foreign; 4 tables", space.root()),
        format!("{:#x}..{:#x} rw- Anonymous", A, A + 8 * PAGE),
        format!("  {A:#x} 3 pages -> {first:?} rw- Frame(Anonymous, refs 1, pins 0, exclusive)"),
        format!("  {:#x} 2 pages -> {zero:?} r-- the zero frame", A + 5 * PAGE),
        format!("{:#x}..{:#x} r-- Anonymous, data 0x77", A + 16 * PAGE, A + 17 * PAGE),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn leaks_are_what_is_in_use_when_nothing_should_be() {
    let kernel = doc_kernel::kernel();
    let leaks = || kernel.frames().leaks(&mut |_, _| {}).unwrap();
    let space = furnished(&kernel);
    assert_eq!(leaks(), 3 + 4);
    let lost = frame(&space, A);
    // SAFETY: lost on purpose, and given back below.
    let word = unsafe { kernel.frames().frame(lost).unwrap().word() };
    word.try_get().unwrap();
    drop(space);
    let mut found = Vec::new();
    kernel.frames().leaks(&mut |frame, word| found.push((frame, word.refs)));
    assert_eq!(found, [(lost, 1)]);
    let _ = word.put();
    assert_eq!(leaks(), 0);
}

fn an_audit_explains_all_that_is_in_use<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.populated(4, 10);
    let child = parent.fork().unwrap();
    machine.put(&child, A, 1);
    let mut runs = [PhysRun::default(); 4];
    let pins = parent.pin(Write, parent.range(A + PAGE, 2 * PAGE).unwrap(), &mut runs[..]).unwrap();
    let again = parent.pin(Read, parent.range(A + PAGE, PAGE).unwrap(), [PhysRun::default(); 1]).unwrap();
    let pinned = [1, 2].map(|page| machine.frame_at(&parent, A + page * PAGE).0);
    let mut held = BTreeMap::new();
    let audited = audit(&machine, [&parent, &child, &parent], &mut |finding| match finding {
        Finding::Held { frame, references, pins } => _ = held.insert(frame, (references, pins)),
        bug => panic!("{bug}"),
    });
    let (_, tables) = (machine.leaves(&parent), machine.leaves(&parent).1.len() + machine.leaves(&child).1.len());
    assert_eq!(audited, Ok(Audited { mappings: 8, tables: tables as u64, bugs: 0 }), "the one twice counts once");
    assert_eq!(held, BTreeMap::from([(pinned[0], (0, 2)), (pinned[1], (0, 1))]));
    // Without the child, what it alone has is unexplained, and what both have is held once more.
    let mut held = 0;
    let alone = audit(&machine, [&parent], &mut |finding| held += u64::from(!finding.is_bug())).unwrap();
    assert_eq!((alone.bugs, alone.mappings), (0, 4));
    assert!(held > 4, "{held}");
    drop((pins, again));
}

every_layout!(an_audit_explains_all_that_is_in_use);

/// Damages something, audits, mends it.
fn found_after<'k>(
    kernel: &'k Kernel,
    spaces: &[&Space<'k>],
    damage: impl FnOnce(),
    mend: impl FnOnce(),
) -> Vec<Finding> {
    assert_eq!(findings(kernel, spaces).1, [], "before");
    damage();
    let (_, found) = findings(kernel, spaces);
    mend();
    assert_eq!(findings(kernel, spaces).1, [], "after");
    found
}

#[test]
fn each_kind_of_damage_is_found() {
    let kernel = &doc_kernel::kernel();
    let parent = furnished(kernel);
    let child = parent.fork().unwrap();
    touch(&child, A + PAGE, Access::Write);
    let spaces = [&parent, &child];
    let both = frame(&parent, A);
    let only = frame(&child, A + PAGE);
    // SAFETY: damage, mended before anybody else looks.
    let word = |frame| unsafe { kernel.frames().frame(frame).unwrap().word() };
    let set = |slot: Slot, entry: Entry| {
        // SAFETY: as above.
        unsafe { kernel.phys_map().store_entry(slot.at, entry) };
    };

    let found = found_after(kernel, &spaces, || _ = word(both).put(), || word(both).try_get().unwrap());
    assert_eq!(found, [Finding::TooFewReferences { frame: both, mappings: 2, references: 1 }]);

    let found = found_after(kernel, &spaces, || word(both).try_get().unwrap(), || _ = word(both).put());
    assert_eq!(found, [Finding::Held { frame: both, references: 1, pins: 0 }]);

    let at = slot(&parent, A);
    let writable = Entry::from_bits(at.entry.bits() | 2);
    let found = found_after(kernel, &spaces, || set(at, writable), || set(at, at.entry));
    assert_eq!(found, [Finding::WritableNotExclusive { frame: both }]);

    // The child's own frame in the parent, too, in the place of the one they shared.
    let at = slot(&parent, A + PAGE);
    let theirs = at.entry.leaf_frame(LeafSize::Size4KiB);
    let mapped = Entry::from_bits(only.address() | at.entry.bits() & 0xfff);
    let found = found_after(
        kernel,
        &spaces,
        || {
            set(at, mapped);
            word(only).try_get().unwrap();
        },
        || {
            set(at, at.entry);
            let _ = word(only).put();
        },
    );
    let left = Finding::Held { frame: theirs, references: 1, pins: 0 };
    assert_eq!(found, [Finding::ExclusiveMappedTwice { frame: only }, left]);

    let at = slot(&parent, A + 7 * PAGE);
    let nowhere = Entry::leaf(Pfn::new(0x1234_5678), LeafSize::Size4KiB, R, 0);
    let found = found_after(kernel, &spaces, || set(at, nowhere), || set(at, Entry::EMPTY));
    assert_eq!(found, [Finding::NoWord { frame: Pfn::new(0x1234_5678) }]);

    let at = slot(&parent, A + 8 * PAGE);
    let zero = Entry::leaf(kernel.source().zero_frame().unwrap(), LeafSize::Size4KiB, R, 0).special();
    let found = found_after(kernel, &spaces, || set(at, zero), || set(at, Entry::EMPTY));
    let page = PageAddr::containing(A + 8 * PAGE);
    assert_eq!(found, [Finding::OutsideVma { space: 0, page }]);

    let table = slot(&child, A).at.table();
    let found = found_after(kernel, &spaces, || word(table).try_get().unwrap(), || _ = word(table).put());
    assert_eq!(found, [Finding::NotATable { frame: table }]);

    let pin = child.pin(Read, child.range(A + PAGE, 1).unwrap(), [PhysRun::default(); 1]).unwrap();
    assert_eq!(findings(kernel, &spaces).1, [Finding::Held { frame: only, references: 0, pins: 1 }]);
    drop(pin);

    let root = Slot { at: pagepin::EntryAddr::new(child.root(), 0), ..slot(&child, A) };
    // SAFETY: the root is the child's.
    let above = unsafe { kernel.phys_map().load_entry(root.at) };
    set(root, Entry::from_bits(above.bits() | 0x80));
    let (audited, found) = findings(kernel, &spaces);
    assert!(found.contains(&Finding::Malformed { space: 1 }) && audited.bugs == 1, "{found:?}");
    assert_eq!(child.resident(), Err(SpaceError::MalformedTable));
    assert!(child.dump().to_string().contains("malformed"));
    set(root, above);
    assert_eq!(findings(kernel, &spaces).1, []);
}

#[test]
fn findings_explain_themselves() {
    let frame = Pfn::new(5);
    let all = [
        (Finding::Malformed { space: 1 }, "space 1: the tables are malformed"),
        (Finding::NoWord { frame }, "Pfn(0x5) is mapped and has no word"),
        (Finding::TooFewReferences { frame, mappings: 2, references: 1 }, "Pfn(0x5) has 2 mappings and 1 references"),
        (Finding::WritableNotExclusive { frame }, "Pfn(0x5) is mapped writable and not exclusive"),
        (Finding::ExclusiveMappedTwice { frame }, "Pfn(0x5) is exclusive and mapped by several spaces"),
        (Finding::PinnedNotExclusive { frame }, "Pfn(0x5) is pinned and not exclusive"),
        (Finding::NotATable { frame }, "Pfn(0x5) is a table and not counted as one"),
        (
            Finding::Held { frame, references: 0, pins: 3 },
            "Pfn(0x5) has 0 references and 3 pins that no entry explains",
        ),
    ];
    for (finding, text) in all {
        assert_eq!(finding.to_string(), text);
    }
}

#[test]
fn a_frame_source_of_the_documentation_gives_all_back() {
    let kernel = doc_kernel::kernel();
    let free = kernel.source().free_frames();
    drop(furnished(&kernel).fork().unwrap());
    assert_eq!((kernel.source().free_frames(), kernel.source().refused()), (free, 0));
    assert!(kernel.source().allocate(FrameRequest::movable(0)).is_some());
}

/// A frame that no entry maps any more, and that is pinned, has no reference that is not the pin's.
#[test]
fn a_pinned_frame_that_was_unmapped_is_held_by_its_pin_alone() {
    let kernel = doc_kernel::kernel();
    let space = furnished(&kernel);
    let pin = space.pin(Write, space.range(A, PAGE).unwrap(), [PhysRun::default(); 1]).unwrap();
    let frame = pin.runs()[0].first();
    space.unmap(A, PAGE).unwrap();
    assert_eq!(findings(&kernel, &[&space]).1, [Finding::Held { frame, references: 0, pins: 1 }]);
    drop(pin);
    assert_eq!(findings(&kernel, &[&space]).1, []);
}

#[test]
fn memory_of_an_mm_is_private_memory_and_tables() {
    let counts = Resident { exclusive: 1, shared: 20, tables: 300, zero: 7, foreign: 7, ..Resident::default() };
    assert_eq!(counts.frames(), 321);
}

/// Large leaves count by their pages, and share a line as others do; tokens never do.
#[test]
fn a_dump_shows_large_leaves_and_tokens() {
    let machine = Machine::<Wide>::new(4096);
    let (process, size) = (machine.process(), LeafSize::Size2MiB);
    process.map(LARGE, 2 * size.bytes(), RW).unwrap();
    let first = machine.block(size);
    machine.install(&process, LARGE, size, first, 7);
    let second = machine.block(size);
    assert_eq!(second, first.offset(size.pages()), "neighbours");
    machine.install(&process, LARGE + size.bytes(), size, second, 7);
    process.map(A, 2 * PAGE, RW).unwrap();
    machine.put_pages(&process, A, 2, 1);
    // The upper page first, so that the bits of the two tokens follow one another as those of frames do.
    assert_eq!(process.swap_out(A + PAGE, PAGE).unwrap().pages, 1);
    assert_eq!(process.swap_out(A, PAGE).unwrap().pages, 1);
    let text = process.dump().to_string();
    assert!(text.contains(&format!("  {LARGE:#x} 1024 pages -> {first:?} rwx")), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains(" 1 pages -> token ")).count(), 2, "{text}");
    assert_eq!(format!("{:?}", process.dump()), text);
}
