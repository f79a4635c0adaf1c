//! What is looked at before a root is loaded, on tables that are only memory.

use pagepin::space::{KernelHalf, KernelHalfError, SpaceOptions, UserSpace, Vital};
use pagepin::{
    BuddySource, Entry, EntryAddr, Env, FlushRange, FrameRequest, FrameSource, Levels, PAGE_SIZE, Pfn, PhysMap,
    Platform, ReadSide, Region, Shootdown, SpanFrameTable,
};

const FRAMES: u64 = 1024;

/// Physical memory from 0 on, all of it.
struct Memory(Box<[u64]>);

// SAFETY: the bytes live as long as this, at one place; no test asks for a frame beyond them.
unsafe impl PhysMap for Memory {
    fn frame_ptr(&self, frame: Pfn) -> *mut u8 {
        assert!(frame.number() < FRAMES);
        let aligned = self.0.as_ptr().addr().next_multiple_of(PAGE_SIZE as usize) - self.0.as_ptr().addr();
        self.0.as_ptr().cast::<u8>().wrapping_add(aligned + frame.address() as usize).cast_mut()
    }
}

struct OneCpu;

// SAFETY: one thread.
unsafe impl ReadSide for OneCpu {
    type Guard<'a> = ();
    fn enter(&self) {}
    fn synchronize(&self) {}
}

// SAFETY: no processor has these tables.
unsafe impl Shootdown for OneCpu {
    fn flush(&self, _: Pfn, _: FlushRange) {}
}

type Kernel = Platform<Memory, SpanFrameTable<'static>, BuddySource<'static>, OneCpu, OneCpu>;

fn kernel() -> Kernel {
    let memory = Memory(vec![0; (FRAMES as usize + 1) * 512].into());
    // SAFETY: the memory is this kernel's alone.
    unsafe { Platform::from_regions(memory, [Region::usable(0, FRAMES * PAGE_SIZE)], OneCpu, OneCpu) }.unwrap()
}

const PRESENT: u64 = 1;
const USER: u64 = 4;
const LARGE: u64 = 0x80;

fn table(kernel: &Kernel) -> Pfn {
    let table = kernel.source().allocate(FrameRequest::unmovable(0)).unwrap();
    // SAFETY: it was just handed out.
    unsafe { kernel.phys_map().clear_frames(table, 0) };
    table
}

fn set(kernel: &Kernel, table: Pfn, index: u64, bits: u64) {
    // SAFETY: a table of this test.
    unsafe { kernel.phys_map().store_entry(EntryAddr::new(table, index), Entry::from_bits(bits)) };
}

fn get(kernel: &Kernel, table: Pfn, index: u64) -> u64 {
    // SAFETY: a table of this test.
    unsafe { kernel.phys_map().load_entry(EntryAddr::new(table, index)) }.bits()
}

/// A root with a direct map at entry 256 and a kernel at the top.
fn root(kernel: &Kernel) -> Pfn {
    let root = table(kernel);
    for index in [256, 511] {
        set(kernel, root, index, table(kernel).address() | PRESENT | USER);
    }
    root
}

fn half(root: Pfn, levels: Levels) -> KernelHalf {
    // SAFETY: the root is a table of this test.
    unsafe { KernelHalf::new(root, levels) }
}

const CODE: (Vital, u64) = (Vital::Code, 0xffff_ffff_8020_0000);
const MAP: (Vital, u64) = (Vital::DirectMap, 0xffff_8000_0000_0000);

#[test]
fn what_would_vanish_is_named_with_its_address() {
    let kernel = kernel();
    let half = half(root(&kernel), Levels::Four);
    let check = |vital: &[(Vital, u64)]| half.check(kernel.phys_map(), vital.iter().copied());
    assert_eq!(check(&[CODE, MAP]), Ok(()));
    let lost = [
        (Vital::Stack, 0x7000),
        (Vital::Other, 0x4444_4444_0000),
        (Vital::Other, 0x0000_8000_0000_0000),
        (Vital::Idt, 0xffff_9000_0000_0000),
        (Vital::Gdt, 0xffff_7fff_ffff_ffff),
    ];
    for (what, address) in lost {
        assert_eq!(
            check(&[CODE, (what, address), (Vital::Stack, 0)]),
            Err(KernelHalfError::WouldVanish(what, address))
        );
    }
    let error = check(&lost).unwrap_err();
    assert_eq!(error.to_string(), "the stack at 0x7000 would not be mapped by another root");
    assert_eq!(error.errno(), 14);
}

#[test]
fn a_root_whose_user_half_is_in_use_is_refused_until_that_is_emptied() {
    for levels in [Levels::Four, Levels::Five] {
        let kernel = kernel();
        let root = root(&kernel);
        let half = half(root, levels);
        // 0x0000_0080_4020_0000 with four levels: entries 1, 1 and 1.
        let (third, second) = (table(&kernel), table(&kernel));
        set(&kernel, root, 1, third.address() | PRESENT);
        set(&kernel, third, 1, second.address() | PRESENT);
        set(&kernel, second, 1, 0x20_0000 | PRESENT | LARGE);
        let address = match levels {
            Levels::Four => 0x80_4020_0000,
            // The same one level higher, where the last is a leaf of 1 GiB.
            Levels::Five => 0x1_0080_4000_0000,
        };
        let in_use = Err(KernelHalfError::UserHalfInUse(address));
        let map = match levels {
            Levels::Four => MAP,
            Levels::Five => (Vital::DirectMap, 0xff00_0000_0000_0000),
        };
        assert_eq!(half.check(kernel.phys_map(), [CODE, map]), in_use);
        // SAFETY: nobody uses these tables.
        let clear = |vital| unsafe { half.clear_user_half(kernel.phys_map(), [CODE, vital]) };
        let lost = (Vital::Stack, address + 8);
        assert_eq!(clear(lost), Err(KernelHalfError::WouldVanish(lost.0, lost.1)));
        assert_eq!(half.check(kernel.phys_map(), [CODE]), in_use, "nothing was changed");
        assert_eq!(clear(map), Ok(()));
        assert_eq!(half.check(kernel.phys_map(), [CODE, map]), Ok(()));
    }
}

#[test]
fn new_roots_have_the_kernel_half_and_none_of_it_for_user_code() {
    let kernel = kernel();
    let root = root(&kernel);
    let space = UserSpace::new(&kernel, SpaceOptions::new(half(root, Levels::Four))).unwrap();
    for index in 0..512 {
        assert_eq!(get(&kernel, space.root(), index), get(&kernel, root, index) & !USER, "{index}");
    }
    assert_eq!(space.check_root(), Ok(()));
    let child = space.fork().unwrap();
    assert_eq!(child.check_root(), Ok(()));
}

/// What the kernel maps later is in living spaces, or the space says that it is not.
#[test]
fn entries_that_the_kernel_adds_later_are_missed_unless_they_were_filled() {
    let kernel = kernel();
    let root = root(&kernel);
    let half = half(root, Levels::Four);
    let before = UserSpace::new(&kernel, SpaceOptions::new(half)).unwrap();
    // SAFETY: nobody else knows the root.
    assert_eq!(unsafe { half.fill(&kernel) }, Ok(254));
    assert_eq!(before.check_root(), Err(KernelHalfError::Outdated(0xffff_8080_0000_0000)));
    let after = UserSpace::new(&kernel, SpaceOptions::new(half)).unwrap();
    assert_eq!(after.check_root(), Ok(()));
    let filled = get(&kernel, root, 300);
    assert_eq!(filled & 0x87, 3, "present, writable, not for user code");
    set(&kernel, Pfn::containing(filled), 5, 0x1000 | PRESENT);
    assert_eq!(get(&kernel, Pfn::containing(get(&kernel, after.root(), 300)), 5), 0x1000 | PRESENT);
    // SAFETY: as above.
    assert_eq!(unsafe { half.fill(&kernel) }, Ok(0));
}

#[test]
fn filling_says_that_memory_ran_out() {
    let kernel = kernel();
    let root = root(&kernel);
    while kernel.source().allocate(FrameRequest::movable(0)).is_some() {}
    // SAFETY: nobody else knows the root.
    let error = unsafe { half(root, Levels::Four).fill(&kernel) }.unwrap_err();
    assert_eq!((error.errno(), error.to_string().as_str()), (12, "out of memory for tables of the kernel half"));
}

#[test]
fn a_space_without_a_kernel_says_so() {
    let kernel = kernel();
    let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    assert_eq!(space.check_root(), Err(KernelHalfError::NoKernel));
    assert_eq!(KernelHalf::none(Levels::Five).check(kernel.phys_map(), []), Err(KernelHalfError::NoKernel));
    assert_eq!((0..512).find(|index| get(&kernel, space.root(), *index) != 0), None);
}

#[test]
fn the_first_entry_of_the_kernel_half_is_named_by_its_address() {
    let kernel = kernel();
    let root = root(&kernel);
    let space = UserSpace::new(&kernel, SpaceOptions::new(half(root, Levels::Four))).unwrap();
    assert!(space.has_kernel_half());
    set(&kernel, root, 256, table(&kernel).address() | PRESENT);
    assert_eq!(space.check_root(), Err(KernelHalfError::Outdated(0xffff_8000_0000_0000)));
    let without = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    assert!(!without.has_kernel_half());
}

#[test]
fn the_first_page_of_a_user_half_in_use_is_named() {
    let kernel = kernel();
    let root = root(&kernel);
    let (third, second) = (table(&kernel), table(&kernel));
    set(&kernel, root, 1, third.address() | PRESENT);
    set(&kernel, third, 2, second.address() | PRESENT);
    set(&kernel, second, 3, 0x20_0000 | PRESENT | LARGE);
    let address = 1 << 39 | 2 << 30 | 3 << 21;
    let checked = half(root, Levels::Four).check(kernel.phys_map(), [CODE]);
    assert_eq!(checked, Err(KernelHalfError::UserHalfInUse(address)));
}
