//! The kernel's heap refuses: an error for the caller, never the end of the kernel (INV-14, INV-15).
//!
//! What the library takes from the heap is the map of VMAs of each address space, which user space makes grow. Here every
//! allocation of an operation fails once; one without a way to fail would abort the test.

#[path = "../threads/kernel.rs"]
mod kernel;
#[path = "../kit/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the other tests use all of it")]
mod kit;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use pagepin::Access;
use pagepin::fault::{Fault, FaultError};
use pagepin::frame::{Snapshot, Wide};
use pagepin::pin::{PhysRun, PinError, PinFlags, Read, pin_user_pages_fast};
use pagepin::space::{Advice, ForkError, SpaceError, SpaceOptions, UserSpace};
use pagepin::{AddressSpace, MemoryType, PAGE_SIZE, PageAddr, Pfn, Rights, Vma};

use kernel::{Kernel, Memory, NoGrace, epochs, frame_words, kernel, run_as_cpu};
use kit::Root;

/// The system's allocator, of which a thread can ask one failure.
struct Unreliable;

thread_local! {
    static UNTIL_FAILURE: Cell<Option<u64>> = const { Cell::new(None) };
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: the system's allocator, except that an allocation may fail. Growing is allocating, copying and freeing.
unsafe impl GlobalAlloc for Unreliable {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        let left = UNTIL_FAILURE.get();
        UNTIL_FAILURE.set(left.and_then(|left| left.checked_sub(1)));
        if left == Some(0) {
            return std::ptr::null_mut();
        }
        // SAFETY: forwarded from the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: forwarded from the caller; all memory comes from `alloc`.
        unsafe { System.dealloc(pointer, layout) };
    }
}

#[global_allocator]
static HEAP: Unreliable = Unreliable;

const A: u64 = 0x7f_1234_5000;
const RW: Rights = Rights::READ.union(Rights::WRITE);
/// VMAs that the map has room for before it grows (a chunk), of ten pages each and apart.
const VMAS: u64 = 64;
const STRIDE: u64 = 16 * PAGE_SIZE;

type Space<'k> = UserSpace<&'k Kernel<'k, Wide, NoGrace>>;

/// What the operations say, in one type that needs no memory.
#[derive(Debug, PartialEq, Eq)]
enum Error {
    Space(SpaceError),
    Fork(ForkError),
    Fault(FaultError),
    Pin(PinError),
}

struct Operation {
    name: &'static str,
    /// Allocations from the heap.
    allocations: u64,
    /// What it says when one fails.
    error: Error,
    run: fn(&Space<'_>) -> Result<(), Error>,
}

const NO_VMA: Error = Error::Space(SpaceError::NoMemory);

const OPERATIONS: [Operation; 14] = [
    Operation {
        name: "map the first VMA",
        // The list of chunks, and a chunk.
        allocations: 2,
        error: NO_VMA,
        run: |space| {
            let new = UserSpace::new(space.env(), SpaceOptions::without_kernel_half(pagepin::Levels::Four))
                .map_err(Error::Space)?;
            new.map(A, PAGE_SIZE, RW).map_err(Error::Space)
        },
    },
    Operation {
        name: "map",
        allocations: 1,
        error: NO_VMA,
        run: |space| space.map(A + VMAS * STRIDE, PAGE_SIZE, RW).map_err(Error::Space),
    },
    Operation {
        name: "map_foreign",
        // A chunk, and the note of what is under way.
        allocations: 2,
        error: NO_VMA,
        run: |space| {
            // SAFETY: nobody accesses the memory of this process.
            unsafe { space.map_foreign(A + VMAS * STRIDE, PAGE_SIZE, Pfn::new(0xfee0), MemoryType::UNCACHED, RW) }
                .map_err(Error::Space)
        },
    },
    Operation {
        name: "protect a part",
        allocations: 1,
        error: NO_VMA,
        run: |space| space.protect(A + PAGE_SIZE, PAGE_SIZE, Rights::READ).map_err(Error::Space),
    },
    Operation {
        name: "protect a whole VMA",
        allocations: 0,
        error: NO_VMA,
        run: |space| space.protect(A, 10 * PAGE_SIZE, Rights::READ).map_err(Error::Space),
    },
    Operation {
        name: "unmap a part",
        allocations: 1,
        error: NO_VMA,
        run: |space| space.unmap(A + PAGE_SIZE, PAGE_SIZE).map(drop).map_err(Error::Space),
    },
    Operation {
        name: "unmap whole VMAs",
        allocations: 0,
        error: NO_VMA,
        run: |space| space.unmap(A - STRIDE, 3 * STRIDE).map(drop).map_err(Error::Space),
    },
    Operation {
        name: "move a part",
        // The note of what is under way, and a chunk.
        allocations: 2,
        error: NO_VMA,
        run: |space| space.move_pages(A + PAGE_SIZE, PAGE_SIZE, A + 12 * PAGE_SIZE).map_err(Error::Space),
    },
    Operation {
        name: "advise",
        allocations: 1,
        error: NO_VMA,
        run: |space| space.advise(A + PAGE_SIZE, PAGE_SIZE, Advice::DontFork).map_err(Error::Space),
    },
    Operation {
        name: "discard",
        allocations: 0,
        error: NO_VMA,
        run: |space| space.discard(A + PAGE_SIZE, STRIDE).map(drop).map_err(Error::Space),
    },
    Operation {
        name: "fork",
        // The list of chunks, and two chunks with room to grow.
        allocations: 3,
        error: Error::Fork(ForkError::NoMemory),
        run: |space| space.fork().map(drop).map_err(Error::Fork),
    },
    Operation {
        name: "new",
        allocations: 0,
        error: NO_VMA,
        run: |space| {
            UserSpace::new(*space.env(), SpaceOptions::without_kernel_half(pagepin::Levels::Four))
                .map(drop)
                .map_err(Error::Space)
        },
    },
    Operation {
        name: "fault",
        allocations: 0,
        error: Error::Fault(FaultError::NoMemory),
        run: |space| {
            let fault = Fault { address: A + 5, access: Access::Write, key_denied: false, malformed_table: false };
            space.fault(fault).map(drop).map_err(Error::Fault)
        },
    },
    Operation {
        name: "pin and unpin",
        allocations: 0,
        error: Error::Pin(PinError::NoMemory),
        run: |space| {
            let range = space.range(A, 10 * PAGE_SIZE).map_err(|error| Error::Pin(error.into()))?;
            let mut runs = [PhysRun::default(); 10];
            let pins = pin_user_pages_fast(space, Read, range, PinFlags::empty(), &mut runs[..]);
            pins.and_then(|pins| pins.complete()).map(drop).map_err(Error::Pin)
        },
    },
];

/// Everything a process has, and every frame's word.
#[derive(Debug, PartialEq, Eq)]
struct Image {
    vmas: Vec<Vma>,
    words: Vec<Snapshot>,
}

fn image(space: &Space<'_>, words: &[pagepin::frame::PageFrame]) -> Image {
    let mut vmas = Vec::new();
    space
        .with_vmas(&mut |look| {
            let pages = (0..(VMAS + 2) * STRIDE / PAGE_SIZE).map(|page| PageAddr::containing(A - STRIDE).offset(page));
            vmas.extend(pages.filter_map(|page| look.vma_at(page)));
        })
        .unwrap();
    Image { vmas, words: words.iter().map(pagepin::frame::PageFrame::snapshot).collect() }
}

/// Runs `operation` on a fresh process while the allocation after `until_failure` fails; what it said, and how often it
/// allocated.
fn run(operation: &Operation, until_failure: Option<u64>) -> (Result<(), Error>, u64) {
    let memory = Memory::new(false);
    let words = frame_words::<Wide>();
    // One thread: there is no walker to wait for.
    let kernel = kernel(&memory, &words, NoGrace(epochs()));
    let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(pagepin::Levels::Four)).unwrap();
    (0..VMAS).for_each(|index| space.map(A + index * STRIDE, 10 * PAGE_SIZE, RW).unwrap());
    let before = image(&space, &words);
    let allocations = ALLOCATIONS.get();
    UNTIL_FAILURE.set(until_failure);
    let result = (operation.run)(&space);
    UNTIL_FAILURE.set(None);
    let allocations = ALLOCATIONS.get() - allocations;
    if result.is_err() {
        assert_eq!(image(&space, &words), before, "INV-14: {}", operation.name);
        assert_eq!((operation.run)(&space), Ok(()), "{}, tried again", operation.name);
    }
    let root = Root { table: space.root(), levels: space.mm().levels() };
    kit::audit(&kernel, &[root], &kit::Held::new());
    drop(space);
    kit::check_balance(&kernel, (0, 0));
    (result, allocations)
}

#[test]
fn a_heap_that_refuses_is_an_error_and_changes_nothing() {
    run_as_cpu(0);
    for operation in &OPERATIONS {
        assert_eq!(run(operation, None), (Ok(()), operation.allocations), "{}", operation.name);
        for until_failure in 0..operation.allocations {
            let (result, _) = run(operation, Some(until_failure));
            assert_eq!(result.as_ref(), Err(&operation.error), "{}", operation.name);
        }
    }
}
