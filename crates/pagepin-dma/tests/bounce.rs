//! Bounce buffers, with a device that behaves worse than hardware: it reads and writes behind the end, stops early, and is late.

#[path = "../../../tests/machine/doc_kernel.rs"]
mod doc_kernel;

use std::cell::RefCell;
use std::collections::BTreeSet;

use doc_kernel::{Kernel, Memory};
use pagepin::pin::{PhysRun, PinnedRange, Read, Write};
use pagepin::space::{SpaceOptions, UserSpace};
use pagepin::{Env, FrameRequest, FrameSource, Levels, PAGE_SIZE, Pfn, PhysMap, Rights};
use pagepin_dma::{BounceFrames, Device, NoBounceFrame, Piece};

type Space<'k> = UserSpace<&'k Kernel>;

/// Three pages, of which the range has the end of the first, the second and the start of the third.
const START: u64 = 0x10000;
const AT: u64 = START + 0xf00;
const LENGTH: u64 = 0x1300;
/// Pieces of the range, and the bytes in each.
const PIECES: [u64; 3] = [0x100, 0x1000, 0x200];

/// Frames of the kernel's below a limit, few.
struct Pool(RefCell<Vec<Pfn>>);

// SAFETY: they were taken out of the frame source, and are in the pool once.
unsafe impl BounceFrames for Pool {
    fn take(&self) -> Option<Pfn> {
        self.0.borrow_mut().pop()
    }

    unsafe fn give_back(&self, frame: Pfn) {
        self.0.borrow_mut().push(frame);
    }
}

impl Pool {
    fn left(&self) -> BTreeSet<Pfn> {
        self.0.borrow().iter().copied().collect()
    }
}

/// A process with three pages, whose bytes are known.
struct Scene<'k> {
    space: Space<'k>,
    device: Device<'k, Memory, &'k Pool>,
}

// SAFETY: forwards.
unsafe impl BounceFrames for &Pool {
    fn take(&self) -> Option<Pfn> {
        (**self).take()
    }

    unsafe fn give_back(&self, frame: Pfn) {
        // SAFETY: forwarded.
        unsafe { (**self).give_back(frame) }
    }
}

fn user_byte(offset: u64) -> u8 {
    (offset % 251) as u8
}

impl<'k> Scene<'k> {
    /// The device's limit comes from the frames of the three pages.
    fn new(kernel: &'k Kernel, pool: &'k Pool, limit: impl Fn([Pfn; 3]) -> u64) -> Self {
        let space = UserSpace::new(kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
        space.map(START, 3 * PAGE_SIZE, Rights::READ | Rights::WRITE).unwrap();
        let frames = [0, 1, 2].map(|page| {
            let all = space.range(START + page * PAGE_SIZE, PAGE_SIZE).unwrap();
            let pinned = space.pin(Write, all, [PhysRun::default(); 1]).unwrap();
            let bytes: Vec<u8> = (0..PAGE_SIZE).map(|offset| user_byte(page * PAGE_SIZE + offset)).collect();
            pinned.copy_from(0, &bytes).unwrap();
            pinned.runs()[0].first()
        });
        Self { space, device: Device::new(kernel.phys_map(), pool, limit(frames)) }
    }

    fn pin<A: pagepin::pin::PinAccess>(&self, access: A) -> PinnedRange<&Space<'k>, A, [PhysRun; 3]> {
        self.space.pin(access, self.space.range(AT, LENGTH).unwrap(), [PhysRun::default(); 3]).unwrap()
    }

    /// The bytes of the three pages.
    fn bytes(&self) -> Vec<u8> {
        let all = self.space.range(START, 3 * PAGE_SIZE).unwrap();
        let mut bytes = vec![0; 3 * PAGE_SIZE as usize];
        self.space.pin(Read, all, [PhysRun::default(); 3]).unwrap().copy_to(0, &mut bytes).unwrap();
        bytes
    }
}

/// The device writes, from its list alone: as much as it wants, and to the end of each frame that it was shown.
fn device_writes(kernel: &Kernel, pieces: &[Piece], bytes: u64, beyond: bool) {
    let mut left = bytes;
    for piece in pieces {
        let room = PAGE_SIZE - piece.address() % PAGE_SIZE;
        let count = if beyond && piece.is_bounced() { room } else { piece.length().min(left) };
        let start = kernel.phys_map().frame_ptr(Pfn::containing(piece.address()));
        for offset in 0..count {
            // SAFETY: within the frame, which is this kernel's memory.
            unsafe { start.add((piece.address() % PAGE_SIZE + offset) as usize).write(0xdd) };
        }
        left = left.saturating_sub(piece.length());
    }
}

fn expected(written: u64) -> Vec<u8> {
    let in_range = |offset: u64| (AT - START..AT - START + written).contains(&offset);
    (0..3 * PAGE_SIZE).map(|offset| if in_range(offset) { 0xdd } else { user_byte(offset) }).collect()
}

#[test]
fn what_the_device_reaches_is_not_bounced() {
    let kernel = doc_kernel::kernel();
    let pool = low_pool(&kernel, 0);
    let scene = Scene::new(&kernel, &pool, |_| u64::MAX);
    let transfer = scene.device.prepare(scene.pin(Write)).expect("no frame is needed");
    assert!(transfer.pieces().iter().all(|piece| !piece.is_bounced()));
    assert_eq!(transfer.pieces().iter().map(Piece::length).collect::<Vec<_>>(), PIECES);
    device_writes(&kernel, transfer.pieces(), LENGTH, false);
    // SAFETY: the device is a function that has returned.
    drop(unsafe { transfer.complete(LENGTH) });
    assert_eq!(scene.bytes(), expected(LENGTH));
}

#[test]
fn out_of_reach_pieces_come_back_byte_by_byte_whatever_is_written_behind_them() {
    for unreachable in 0..3 {
        let kernel = doc_kernel::kernel();
        let pool = low_pool(&kernel, 3);
        let scene = Scene::new(&kernel, &pool, |frames| frames[unreachable].address());
        let before = pool.left();
        let transfer = scene.device.prepare(scene.pin(Write)).expect("frames enough");
        assert!(transfer.pieces()[unreachable].is_bounced());
        assert!(
            transfer.pieces().iter().filter(|piece| piece.is_bounced()).all(|piece| piece.address() % PAGE_SIZE == 0)
        );
        device_writes(&kernel, transfer.pieces(), LENGTH, true);
        // SAFETY: the device is a function that has returned.
        drop(unsafe { transfer.complete(LENGTH) });
        assert_eq!(scene.bytes(), expected(LENGTH), "page {unreachable}");
        assert_eq!(pool.left(), before);
    }
}

#[test]
fn transfer_that_ends_early_leaves_the_rest_as_threads_wrote_it() {
    let kernel = doc_kernel::kernel();
    let pool = low_pool(&kernel, 3);
    let scene = Scene::new(&kernel, &pool, |frames| frames.iter().min().unwrap().address());
    for written in [0, 1, 0xff, 0x100, 0x101, 0x10ff, LENGTH - 1] {
        let transfer = scene.device.prepare(scene.pin(Write)).expect("frames enough");
        assert!(transfer.pieces().iter().all(Piece::is_bounced));
        // It writes garbage into all of them, and then says how much of that counts.
        device_writes(&kernel, transfer.pieces(), LENGTH, true);
        // A thread writes behind what the device will have written.
        scene.pin(Write).copy_from(LENGTH - 1, &[0x77]).unwrap();
        // SAFETY: the device is a function that has returned.
        drop(unsafe { transfer.complete(written) });
        let mut expected = expected(written);
        expected[(AT - START + LENGTH - 1) as usize] = 0x77;
        assert_eq!(scene.bytes(), expected, "{written}");
        // As before for the next.
        let back: Vec<u8> = (0..LENGTH).map(|offset| user_byte(AT - START + offset)).collect();
        scene.pin(Write).copy_from(0, &back).unwrap();
    }
}

#[test]
fn device_that_reads_sees_the_range_and_zeroes() {
    let kernel = doc_kernel::kernel();
    let pool = low_pool(&kernel, 3);
    for frame in pool.left() {
        // SAFETY: a frame of the pool, which nobody uses.
        unsafe { kernel.phys_map().frame_ptr(frame).write_bytes(0xee, PAGE_SIZE as usize) }; // somebody's secret
    }
    let scene = Scene::new(&kernel, &pool, |frames| frames.iter().min().unwrap().address());
    let transfer = scene.device.prepare(scene.pin(Read)).expect("frames enough");
    let mut seen = Vec::new();
    for piece in transfer.pieces() {
        let start = kernel.phys_map().frame_ptr(Pfn::containing(piece.address()));
        // SAFETY: a frame of this kernel's memory, which nobody writes now.
        let page = unsafe { std::slice::from_raw_parts(start, PAGE_SIZE as usize) };
        seen.extend_from_slice(&page[..piece.length() as usize]);
        assert!(page[piece.length() as usize..].iter().all(|byte| *byte == 0));
    }
    assert_eq!(seen, scene.bytes()[(AT - START) as usize..][..LENGTH as usize]);
    // SAFETY: the device is a function that has returned.
    drop(unsafe { transfer.complete() });
    assert_eq!(pool.left().len(), 3);
}

#[test]
fn without_bounce_frames_nothing_has_happened() {
    for frames in 0..3 {
        let kernel = doc_kernel::kernel();
        let pool = low_pool(&kernel, frames);
        let scene = Scene::new(&kernel, &pool, |frames| frames.iter().min().unwrap().address());
        let before = pool.left();
        let Err((pinned, NoBounceFrame)) = scene.device.prepare(scene.pin(Write)) else {
            panic!("{frames} were enough")
        };
        assert_eq!(pool.left(), before);
        drop(pinned);
        assert_eq!(scene.bytes(), expected(0));
        assert_eq!(kernel.statistics().bugs_caught, 0);
    }
}

#[test]
fn bounce_frames_beyond_the_limit_are_not_used() {
    let kernel = doc_kernel::kernel();
    let pool = low_pool(&kernel, 3);
    let scene = Scene::new(&kernel, &pool, |_| PAGE_SIZE);
    let before = pool.left();
    assert!(scene.device.prepare(scene.pin(Write)).is_err());
    assert_eq!(pool.left(), before);
}

#[test]
fn late_device_writes_into_nobodys_memory() {
    let kernel = doc_kernel::kernel();
    let pool = low_pool(&kernel, 3);
    let scene = Scene::new(&kernel, &pool, |frames| frames.iter().min().unwrap().address());
    let transfer = scene.device.prepare(scene.pin(Write)).expect("frames enough");
    let pieces = transfer.pieces().to_vec();
    drop(transfer); // the driver gives up
    assert!(pool.left().is_empty(), "frames that a device may write were handed on");
    device_writes(&kernel, &pieces, LENGTH, true);
    assert_eq!(scene.bytes(), expected(0));
}

/// Frames below all that a process gets afterwards: of all that are free, the lowest.
fn low_pool(kernel: &Kernel, frames: usize) -> Pool {
    let take = || kernel.source().allocate(FrameRequest::unmovable(0));
    let mut all: Vec<Pfn> = std::iter::from_fn(take).collect();
    all.sort();
    let high = all.split_off(frames);
    // SAFETY: each was just taken, alone.
    high.into_iter().for_each(|frame| unsafe { kernel.source().free(frame, 0) });
    Pool(RefCell::new(all))
}
