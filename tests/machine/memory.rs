//! Physical memory with real bytes, and the frame source over it: poison, failure injection, double-free detection.

use std::alloc::{alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::ptr::NonNull;

use pagepin::frame::{FrameKind, Layout, Released};
use pagepin::{DeviceFrames, ExtraParts, FrameRequest, FrameSource, FrameTable, PAGE_SIZE, Pfn, Zone};

use super::Machine;

/// First frame of the machine's memory; not 0, and aligned for 1 GiB blocks.
pub(crate) const FIRST: u64 = 0x4_0000;
/// What freed memory holds. As an entry it is not present.
const POISON: u64 = 0xdede_dede_dede_dede;
/// Machines with more frames than this keep their untouched memory unbacked, so it is not poisoned.
const MAX_POISONED_FRAMES: usize = 16 * 1024;

/// Fields of the PAT after a reset.
const WRITE_BACK: u8 = 0;
const UNCACHED: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Free,
    /// The zero frame.
    Reserved,
    Allocated {
        order: u8,
    },
    /// Not the first of its block.
    Tail,
    /// A table that was freed while a lockless walk was in progress: a real `synchronize` would have waited, so its
    /// bytes stay until the walk has ended.
    Limbo,
}

pub(crate) struct Memory {
    raw: NonNull<u8>,
    layout: std::alloc::Layout,
    base: NonNull<u8>,
    pub(super) uses: RefCell<Vec<Use>>,
    /// The blocks among them that are allocated, and their orders.
    blocks: RefCell<BTreeMap<usize, u8>>,
    /// The frames in limbo.
    limbo: RefCell<Vec<usize>>,
    poisoned: bool,
    scattered: Cell<bool>,
    /// The upper half is what can be moved, and the lower half what stays.
    divided: Cell<bool>,
    may_not_stay: RefCell<Range<Pfn>>,
    cursor: Cell<usize>,
    /// Allocations that still succeed.
    allowed: Cell<Option<u64>>,
    /// Allocations before the one that fails.
    until_failure: Cell<Option<u64>>,
    allocations: Cell<u64>,
    /// Allocations that failed.
    refusals: Cell<u64>,
    /// Bytes outside the arena: device registers.
    registers: RefCell<HashMap<u64, u8>>,
    /// How registers are to be accessed, where that is not [`UNCACHED`].
    register_types: RefCell<Vec<(Range<Pfn>, u8)>>,
    /// Frames that were written after the instruction caches last forgot them are not among these, as of hardware whose
    /// fetches do not see stores.
    fetchable: RefCell<HashSet<Pfn>>,
}

impl Memory {
    pub(super) fn new(frames: usize) -> Self {
        // Not page-aligned by the allocator: then it would touch every page to clear it.
        let layout = std::alloc::Layout::from_size_align((frames + 1) * PAGE_SIZE as usize, 16).unwrap();
        // SAFETY: the size is not 0.
        let raw = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        let skip = raw.as_ptr().align_offset(PAGE_SIZE as usize);
        // SAFETY: at most one page is skipped, and one more than asked for was allocated.
        let base = unsafe { raw.add(skip) };
        let mut uses = vec![Use::Free; frames];
        uses[0] = Use::Reserved;
        let memory = Self {
            raw,
            layout,
            base,
            uses: RefCell::new(uses),
            blocks: RefCell::default(),
            limbo: RefCell::default(),
            poisoned: frames <= MAX_POISONED_FRAMES,
            scattered: Cell::new(false),
            divided: Cell::new(false),
            may_not_stay: RefCell::new(Pfn::new(0)..Pfn::new(0)),
            cursor: Cell::new(1),
            allowed: Cell::new(None),
            until_failure: Cell::new(None),
            allocations: Cell::new(0),
            refusals: Cell::new(0),
            registers: RefCell::default(),
            register_types: RefCell::default(),
            fetchable: RefCell::default(),
        };
        if memory.poisoned {
            (1..frames).for_each(|index| memory.poison(index));
        }
        memory
    }

    /// From now on the registers in `frames` are to be accessed by the type in field `index` of the PAT.
    pub(crate) fn set_register_type(&self, frames: Range<Pfn>, index: u8) {
        self.register_types.borrow_mut().push((frames, index));
    }

    /// A CPU accesses `address` by the type in field `index` of the PAT. What the kernel has in its direct map is cached there;
    /// a real machine may lose bytes, or stop, if it is accessed otherwise too.
    pub(super) fn check_type(&self, address: u64, index: u8) {
        let frame = Pfn::containing(address);
        let types = self.register_types.borrow();
        let registers =
            || types.iter().find(|(frames, _)| frames.contains(&frame)).map_or(UNCACHED, |(_, index)| *index);
        let wanted = self.index(frame).map_or_else(registers, |_| WRITE_BACK);
        assert_eq!(index, wanted, "{frame:?} is accessed by another memory type than it has");
    }

    /// The index of a frame of the arena.
    pub(super) fn index(&self, frame: Pfn) -> Option<usize> {
        let index = frame.number().checked_sub(FIRST)? as usize;
        (index < self.uses.borrow().len()).then_some(index)
    }

    pub(super) fn use_of(&self, frame: Pfn) -> Option<Use> {
        let index = frame.number().checked_sub(FIRST)? as usize;
        self.uses.borrow().get(index).copied()
    }

    pub(super) fn pointer(&self, frame: Pfn) -> NonNull<u8> {
        let index = self.index(frame).unwrap_or_else(|| panic!("no memory at {frame:?}"));
        // SAFETY: the index lies within the arena.
        unsafe { self.base.add(index * PAGE_SIZE as usize) }
    }

    fn words(&self, index: usize) -> *mut [u64; 512] {
        // SAFETY: the frame lies within the arena.
        unsafe { self.base.add(index * PAGE_SIZE as usize) }.cast().as_ptr()
    }

    fn poison(&self, index: usize) {
        // SAFETY: the frame lies within the arena; one thread emulates everything, and no reference to it exists.
        unsafe { self.words(index).write([POISON; 512]) };
    }

    /// The 8-byte words of a frame.
    pub(crate) fn frame_words(&self, frame: Pfn) -> Vec<u64> {
        // SAFETY: as in `poison`.
        unsafe { self.words(self.index(frame).unwrap()).read() }.to_vec()
    }

    /// Whether an allocated frame holds `bytes`.
    pub(crate) fn holds(&self, frame: Pfn, bytes: &[u8]) -> bool {
        assert!(matches!(self.use_of(frame), Some(Use::Allocated { .. } | Use::Tail | Use::Reserved)), "{frame:?}");
        // SAFETY: the frame lies within the arena; nobody writes until the bytes are compared.
        unsafe { std::slice::from_raw_parts(self.pointer(frame).as_ptr(), PAGE_SIZE as usize) == bytes }
    }

    /// Reads one byte of physical memory, as a CPU or a device does.
    pub(crate) fn read(&self, address: u64) -> u8 {
        let frame = Pfn::containing(address);
        match self.use_of(frame) {
            None => self.registers.borrow().get(&address).copied().unwrap_or(0),
            Some(Use::Free | Use::Limbo) => panic!("a read of freed memory at {address:#x}"),
            // SAFETY: the byte lies within the frame.
            Some(_) => unsafe { self.pointer(frame).add((address % PAGE_SIZE) as usize).read() },
        }
    }

    /// The instruction caches forget `pages` frames from `first` on.
    pub(crate) fn sync_instructions(&self, first: Pfn, pages: u64) {
        self.fetchable.borrow_mut().extend((0..pages).map(|page| first.offset(page)));
    }

    /// Instructions are fetched from physical memory.
    pub(super) fn fetch(&self, address: u64) {
        let frame = Pfn::containing(address);
        assert!(self.fetchable.borrow().contains(&frame), "stale instructions: nobody said that {frame:?} is executed");
    }

    /// Writes one byte of physical memory.
    pub(crate) fn write(&self, address: u64, byte: u8) {
        let frame = Pfn::containing(address);
        match self.use_of(frame) {
            None => _ = self.registers.borrow_mut().insert(address, byte),
            Some(Use::Allocated { .. } | Use::Tail) => {
                self.fetchable.borrow_mut().remove(&frame);
                // SAFETY: the byte lies within the frame.
                unsafe { self.pointer(frame).add((address % PAGE_SIZE) as usize).write(byte) }
            }
            Some(other) => panic!("a write to {other:?} memory at {address:#x}"),
        }
    }

    /// From now on there are two zones: the lower half of memory is for what stays where it is.
    pub(crate) fn divide(&self) {
        self.divided.set(true);
    }

    /// From now on these frames may not be pinned for long, wherever they are.
    pub(crate) fn forbid_to_stay(&self, frames: Range<Pfn>) {
        self.may_not_stay.replace(frames);
    }

    /// Whether a frame lies in a zone, where there are two.
    pub(crate) fn is_in(&self, zone: Zone, frame: Pfn) -> bool {
        let middle = self.uses.borrow().len() / 2;
        !self.divided.get() || (self.index(frame).unwrap() >= middle) == (zone == Zone::Movable)
    }

    fn find(&self, FrameRequest { order, zone, .. }: FrameRequest) -> Option<usize> {
        let (uses, blocks) = (self.uses.borrow(), 1usize << order);
        let free = |start: usize| uses[start..start + blocks].iter().all(|used| *used == Use::Free);
        let starts = uses.len() / blocks;
        let first = if self.scattered.get() {
            // A step that shares no factor with the number of places visits all of them.
            self.cursor.set(self.cursor.get().wrapping_add(starts / 2 + 3));
            self.cursor.get()
        } else {
            0
        };
        let is_in_zone = |start: &usize| !self.divided.get() || (start >= &(uses.len() / 2)) == (zone == Zone::Movable);
        (0..starts).map(|step| (first + step) % starts * blocks).filter(is_in_zone).find(|start| free(*start))
    }

    /// Whether the next allocation fails on purpose.
    fn is_refused(&self) -> bool {
        let left = self.until_failure.get();
        self.until_failure.set(left.and_then(|left| left.checked_sub(1)));
        let allowed = self.allowed.get();
        self.allowed.set(allowed.map(|allowed| allowed.saturating_sub(1)));
        left == Some(0) || allowed == Some(0)
    }

    fn take(&self, request: FrameRequest) -> Option<Pfn> {
        self.allocations.set(self.allocations.get() + 1);
        let taken = self.try_take(request);
        if taken.is_none() {
            self.refusals.set(self.refusals.get() + 1);
        }
        taken
    }

    fn try_take(&self, request: FrameRequest) -> Option<Pfn> {
        if self.is_refused() {
            return None;
        }
        let (start, order) = (self.find(request)?, request.order);
        let mut uses = self.uses.borrow_mut();
        uses[start] = Use::Allocated { order };
        self.blocks.borrow_mut().insert(start, order);
        uses[start + 1..start + (1 << order)].fill(Use::Tail);
        if self.poisoned {
            for index in start..start + (1 << order) {
                // SAFETY: as in `poison`.
                let intact = unsafe { self.words(index).read() } == [POISON; 512];
                assert!(intact, "frame {:#x} was written after it was freed", FIRST + index as u64);
            }
        }
        Some(Pfn::new(FIRST + start as u64))
    }

    /// A block of which a piece comes back becomes that piece and others, each as large as can be.
    fn split_for(&self, piece: Pfn, order: u8) {
        let Some(index) = self.index(piece).filter(|index| index.trailing_zeros() >= u32::from(order)) else { return };
        let mut blocks = self.blocks.borrow_mut();
        let Some((start, whole)) = blocks.range(..=index).next_back().map(|(start, whole)| (*start, *whole)) else {
            return;
        };
        if index >= start + (1 << whole) || whole <= order {
            return;
        }
        let (mut uses, mut start) = (self.uses.borrow_mut(), start);
        for half in (order..whole).rev() {
            let upper = start + (1 << half);
            for head in [start, upper] {
                blocks.insert(head, half);
                uses[head] = Use::Allocated { order: half };
            }
            if index >= upper {
                start = upper;
            }
        }
    }

    fn give_back(&self, start: usize, order: u8) {
        let mut uses = self.uses.borrow_mut();
        self.blocks.borrow_mut().remove(&start);
        for index in start..start + (1 << order) {
            uses[index] = Use::Free;
            self.fetchable.borrow_mut().remove(&Pfn::new(FIRST + index as u64));
            if self.poisoned {
                self.poison(index);
            }
        }
    }

    fn keep_in_limbo(&self, index: usize) {
        self.blocks.borrow_mut().remove(&index);
        self.uses.borrow_mut()[index] = Use::Limbo;
        self.limbo.borrow_mut().push(index);
    }

    /// Ends the wait of tables in limbo.
    pub(super) fn grace_period_over(&self) {
        self.limbo.take().into_iter().for_each(|index| self.give_back(index, 0));
    }

    /// Frames that are allocated.
    pub(crate) fn allocated(&self) -> Vec<(Pfn, u8)> {
        let blocks = self.blocks.borrow();
        blocks.iter().map(|(index, order)| (Pfn::new(FIRST + *index as u64), *order)).collect()
    }

    pub(crate) fn allocations(&self) -> u64 {
        self.allocations.get()
    }

    /// How many of them failed.
    pub(crate) fn refusals(&self) -> u64 {
        self.refusals.get()
    }

    /// From now on `allowed` allocations succeed (`None`: as many as there is memory for).
    pub(crate) fn allow(&self, allowed: Option<u64>) {
        self.allowed.set(allowed);
    }

    /// After `allocations` more one fails (`None`: none does), and those after it succeed.
    pub(crate) fn fail_once(&self, allocations: Option<u64>) {
        self.until_failure.set(allocations);
    }

    /// Hands out neighbours as far apart as possible.
    pub(crate) fn scatter(&self, scattered: bool) {
        self.scattered.set(scattered);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout and freed once.
        unsafe { dealloc(self.raw.as_ptr(), self.layout) };
    }
}

// SAFETY: blocks come from disjoint places of the arena, aligned because the arena begins at a 1 GiB boundary.
unsafe impl<L: Layout> FrameSource for Machine<L> {
    fn allocate(&self, request: FrameRequest) -> Option<Pfn> {
        self.protocol().may_wait();
        let frame = self.memory().take(request)?;
        for index in 0..1 << request.order {
            self.protocol().forget(frame.offset(index));
        }
        Some(frame)
    }

    unsafe fn free(&self, frame: Pfn, order: u8) {
        if std::thread::panicking() {
            // Something was wrong already; one report is enough.
            return;
        }
        self.note(|work| work.freed += 1);
        let memory = self.memory();
        memory.split_for(frame, order);
        let found = memory.use_of(frame);
        assert_eq!(found, Some(Use::Allocated { order }), "freed twice, or never allocated: {frame:?}");
        assert!(self.word(frame).snapshot().is_free(), "freed with references: {frame:?} {:?}", self.word(frame));
        for index in 0..1 << order {
            self.cpus().assert_forgotten(frame.offset(index));
        }
        let was_table = self.protocol().check_free(frame);
        let index = memory.index(frame).unwrap();
        if was_table && self.read_guards() > 0 {
            memory.keep_in_limbo(index);
        } else {
            memory.give_back(index, order);
        }
    }

    fn zero_frame(&self) -> Option<Pfn> {
        self.inner().has_zero_frame.get().then_some(Pfn::new(FIRST))
    }

    fn may_stay(&self, frame: Pfn) -> bool {
        !self.memory().may_not_stay.borrow().contains(&frame) && self.memory().is_in(Zone::Unmovable, frame)
    }
}

/// Gives up a plain reference of the test's own, and the frame if it was the last.
pub(crate) fn release<K: pagepin::Env>(kernel: &K, frame: Pfn) {
    let word = kernel.frames().frame(frame).unwrap();
    // SAFETY: the reference is the caller's.
    match unsafe { word.word() }.put().unwrap() {
        Released::Held { .. } => {}
        Released::Last { order, kind: FrameKind::Device } => kernel.extras().device_frames().released(frame, order),
        // SAFETY: that was the last reference.
        Released::Last { order, .. } => unsafe { kernel.source().free(frame, order) },
    }
}
