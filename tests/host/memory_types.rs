//! How accesses to memory that is not the library's go through the caches: as whoever maps it says. The machine refuses an
//! access by another type than a frame has.

use pagepin::frame::Layout;
use pagepin::pin::Read;
use pagepin::{AddressSpace, Backing, Entry, LeafSize, MemoryType, PageAddr, Pfn, Rights, Vma};

use crate::machine::{A, LARGE, Machine, NONE, PAGE, Process, R, RW, range};

const DEVICE: Pfn = Pfn::new(0xfd00);
const SIZES: [LeafSize; 3] = [LeafSize::Size4KiB, LeafSize::Size2MiB, LeafSize::Size1GiB];
/// PWT and PCD.
const LOW: u64 = 0x18;

fn all() -> impl Iterator<Item = MemoryType> {
    (0..8).map(|index| MemoryType::from_pat_index(index).unwrap())
}

/// PAT in a leaf of this size.
fn pat(size: LeafSize) -> u64 {
    if size == LeafSize::Size4KiB { 1 << 7 } else { 1 << 12 }
}

/// SDM vol. 3, tables 4-15 to 4-20: bits 3 and 4, and bit 7 or 12 by the size of the leaf.
#[test]
fn a_memory_type_is_three_bits_of_a_leaf() {
    for size in SIZES {
        let leaf = Entry::leaf(Pfn::new(1 << 18), size, Rights::all(), 5);
        assert_eq!(leaf.memory_type(size), MemoryType::WRITE_BACK);
        for memory in all() {
            let index = u64::from(memory.pat_index());
            let typed = leaf.with_memory_type(size, memory);
            let bits = index << 3 & LOW | if index & 4 != 0 { pat(size) } else { 0 };
            assert_eq!(typed.bits(), leaf.bits() & !pat(size) | bits | large(size), "{size:?} {memory:?}");
            assert_eq!((typed.memory_type(size), typed.leaf_frame(size)), (memory, Pfn::new(1 << 18)));
            for other in all() {
                assert_eq!(typed.with_memory_type(size, other), leaf.with_memory_type(size, other));
            }
        }
    }
}

/// Bit 7 is PAT in the lowest level only.
fn large(size: LeafSize) -> u64 {
    if size == LeafSize::Size4KiB { 0 } else { 1 << 7 }
}

/// Encodings of SDM vol. 3, table 12-10: 0 uncached, 1 write-combining, 4 write-through, 6 write-back, 7 uncached unless an
/// MTRR says otherwise.
#[test]
fn the_register_holds_what_the_names_say() {
    const AFTER_RESET: u64 = 0x0007_0406_0007_0406;
    let field = |pat: u64, memory: MemoryType| pat >> (8 * memory.pat_index()) & 0xff;
    let names = [
        (MemoryType::WRITE_BACK, 6, 6),
        (MemoryType::WRITE_THROUGH, 4, 4),
        (MemoryType::UNCACHED, 0, 0),
        (MemoryType::WRITE_COMBINING, 1, 7),
    ];
    for (memory, programmed, reset) in names {
        assert_eq!((field(MemoryType::PAT, memory), field(AFTER_RESET, memory)), (programmed, reset), "{memory:?}");
    }
    let differing = all().filter(|memory| field(MemoryType::PAT, *memory) != field(AFTER_RESET, *memory));
    assert_eq!(differing.collect::<Vec<_>>(), [MemoryType::WRITE_COMBINING]);
    assert_eq!(MemoryType::from_pat_index(8), None);
    let printed = [MemoryType::UNCACHED, MemoryType::from_pat_index(7).unwrap()].map(|memory| format!("{memory:?}"));
    assert_eq!(printed, ["Uncached", "MemoryType(PAT 7)"]);
}

fn accessed_as<L: Layout>(machine: &Machine<L>, process: &Process<'_, L>, address: u64) -> MemoryType {
    let leaf = machine.leaf(process, address).unwrap();
    Entry::from_bits(leaf.bits).memory_type(leaf.size)
}

/// What protect, a fork and a while without rights make of it.
fn foreign_memory_keeps_its_type<L: Layout>() {
    for memory in all() {
        let machine = Machine::<L>::new(64);
        machine.memory().set_register_type(DEVICE..DEVICE.offset(2), memory.pat_index());
        let process = machine.process();
        // SAFETY: registers of the emulated machine.
        unsafe { process.map_foreign(A, 2 * PAGE, DEVICE, memory, RW).unwrap() };
        machine.put(&process, A, 1);
        process.protect(A, PAGE, R).unwrap();
        assert_eq!(machine.get(&process, A), 1);
        process.protect(A, 2 * PAGE, NONE).unwrap();
        assert_eq!(accessed_as(&machine, &process, A), memory, "without rights");
        let child = process.fork().unwrap();
        for process in [&process, &child] {
            process.protect(A, 2 * PAGE, RW).unwrap();
            machine.put(process, A + PAGE, 2);
            assert_eq!(machine.get(process, A), 1);
            assert_eq!(accessed_as(&machine, process, A), memory);
            process
                .with_vmas(&mut |vmas| {
                    let vma = vmas.vma_at(PageAddr::containing(A)).unwrap();
                    assert_eq!((vma.backing(), vma.backing().memory_type()), (Backing::Foreign(memory), memory));
                })
                .unwrap();
        }
    }
}

/// Foreign memory without rights has its type from the beginning.
fn a_map_without_rights_has_its_type<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    // SAFETY: as above.
    unsafe { process.map_foreign(A, PAGE, DEVICE, MemoryType::WRITE_COMBINING, NONE).unwrap() };
    assert_eq!(accessed_as(&machine, &process, A), MemoryType::WRITE_COMBINING);
}

/// A kernel may have put a large leaf with a type of its own. What fork shares keeps it; a copy is ordinary memory.
fn a_copy_is_ordinary_memory<L: Layout>() {
    let size = LeafSize::Size2MiB;
    for pinned in [false, true] {
        let machine = Machine::<L>::new(2048);
        let parent = machine.process();
        parent.map(LARGE, size.bytes(), RW).unwrap();
        let block = machine.block(size);
        machine.install(&parent, LARGE, size, block, 7 | LOW | 1 << 12);
        let pins = pinned.then(|| machine.pin::<Read>(&parent, LARGE, 1).unwrap());
        let child = parent.fork().unwrap();
        let index = |process| accessed_as(&machine, process, LARGE).pat_index();
        assert_eq!((index(&parent), index(&child)), (7, if pinned { 0 } else { 7 }));
        assert_eq!(machine.frame_at(&child, LARGE).0 == block, !pinned);
        drop((child, pins));
    }
}

/// A VMA has one type.
fn memory_of_two_types_is_two_vmas<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    let vma = |address, backing| Vma::new(range(&process, address, PAGE), backing, RW).unwrap();
    let (uncached, combining) = (MemoryType::UNCACHED, MemoryType::WRITE_COMBINING);
    let lower = vma(A, Backing::Foreign(uncached));
    assert_eq!(lower.try_join(vma(A + PAGE, Backing::Foreign(combining))), None);
    assert_eq!(lower.try_join(vma(A + PAGE, Backing::Anonymous)), None);
    assert_eq!(lower.try_join(vma(A + PAGE, Backing::Foreign(uncached))).map(|vma| vma.pages()), Some(2));
    assert_eq!(Backing::Anonymous.memory_type(), MemoryType::WRITE_BACK);
}

every_layout!(
    foreign_memory_keeps_its_type,
    a_map_without_rights_has_its_type,
    a_copy_is_ordinary_memory,
    memory_of_two_types_is_two_vmas,
);
