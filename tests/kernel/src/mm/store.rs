//! Files and swap: a cache and slots of `pagepin-store` over the disk. What else can be shown is in [`objects`](super::objects).
//!
//! The disk answers late: a request is put into a queue, the fault says that the page is not ready, and whoever was told so does what is in the queue,
//! with nothing held, before it tries again.

use alloc::{collections::VecDeque, sync::Arc, vec::Vec};
use core::ops::Range;

use pagepin::space::Copies;
use pagepin::{Env, ExtraParts, FreshPage, ObjectId, PAGE_SIZE, Stored, StoredPage};
use pagepin_abi::{DIRECT_PAGES, Error, FILE_PAGES, SWAP_PAGES};
use pagepin_store::{
    Answer, Cache, Device, DeviceError, FileDevice, FilePage, Properties, ReadRequest, Slots, StoreError, WhenPinned,
    WriteRequest,
};
use spin::{Once, mutex::SpinMutex};

use super::{kernel, objects::Objects};
use crate::{disk, edu::Direction, poll::Poll, process};

/// Pages of the disk: the file's, those that are read and written past the cache, and swap.
const DIRECT: u64 = FILE_PAGES;
const SWAP: u64 = FILE_PAGES + DIRECT_PAGES;
/// Fewer than the file has: so pages are evicted.
const CACHED_PAGES: u32 = FILE_PAGES as u32 - 4;

/// More than the disk has pages for: what has a slot behind them stays in memory.
const SLOTS: u32 = 4096;

pub type Shown = Stored<Objects>;
pub type Swapped = Stored<Slots<Queue>>;

static SHOWN: Once<Shown> = Once::new();
static SWAPPED: Once<Swapped> = Once::new();
/// The file, if there is a disk.
static FILE: Once<ObjectId> = Once::new();

/// Before the kernel's platform is made.
pub fn parts() -> (&'static Shown, &'static Swapped) {
    let objects = || Objects::new(Cache::new(Queue, 1, CACHED_PAGES)?);
    let shown = SHOWN.call_once(|| Stored(objects().expect("room on the heap")));
    let swapped = SWAPPED.call_once(|| Stored(Slots::new(Queue, SLOTS).expect("room on the heap")));
    (shown, swapped)
}

/// Once the disk has been looked for, and is there.
pub fn init() {
    let file = files().create(kernel(), Properties::file(), FILE_PAGES * PAGE_SIZE);
    FILE.call_once(|| file.expect("room for a file"));
}

fn files() -> &'static Cache<Queue> {
    &objects().files
}

pub fn objects() -> &'static Objects {
    &ExtraParts::objects(kernel().extras()).0
}

fn slots() -> &'static Slots<Queue> {
    &ExtraParts::tokens(kernel().extras()).0
}

pub fn file() -> Result<ObjectId, Error> {
    FILE.get().copied().ok_or(Error::NoDevice)
}

enum Request {
    ReadFile(ReadRequest<FilePage>),
    WriteFile(WriteRequest<FilePage>),
    ReadSwap(ReadRequest<u64>),
    WriteSwap(WriteRequest<u64>),
}

static REQUESTS: SpinMutex<VecDeque<Request>, Poll> = SpinMutex::new(VecDeque::new());

/// The disk, through the queue: as many requests as there are pages on their way.
pub struct Queue;

impl Device<FilePage> for Queue {
    fn read<K: Env>(&self, _: &K, request: ReadRequest<FilePage>) -> Answer<ReadRequest<FilePage>> {
        REQUESTS.lock().push_back(Request::ReadFile(request));
        Answer::Later
    }

    fn write<K: Env>(&self, _: &K, request: WriteRequest<FilePage>) -> Answer<WriteRequest<FilePage>> {
        REQUESTS.lock().push_back(Request::WriteFile(request));
        Answer::Later
    }
}

impl Device<u64> for Queue {
    fn read<K: Env>(&self, _: &K, request: ReadRequest<u64>) -> Answer<ReadRequest<u64>> {
        REQUESTS.lock().push_back(Request::ReadSwap(request));
        Answer::Later
    }

    fn write<K: Env>(&self, _: &K, request: WriteRequest<u64>) -> Answer<WriteRequest<u64>> {
        REQUESTS.lock().push_back(Request::WriteSwap(request));
        Answer::Later
    }
}

impl FileDevice for Queue {
    /// The file is as long as it is.
    fn cut(&self, _: ObjectId, _: u64) {}

    /// Nobody punches holes.
    fn punch(&self, _: ObjectId, _: Range<u32>) {}
}

fn read(page: u64, into: &FreshPage) -> Result<(), DeviceError> {
    let piece = (into.frame().address(), PAGE_SIZE);
    // SAFETY: the frame is nobody else's while it is being made.
    unsafe { disk::transfer(page * PAGE_SIZE, &[piece], Direction::FromDevice) }.map_err(|_| DeviceError)
}

fn write(page: u64, from: &StoredPage) -> Result<(), DeviceError> {
    let piece = (from.frame().address(), PAGE_SIZE);
    // SAFETY: the reference keeps the frame.
    unsafe { disk::transfer(page * PAGE_SIZE, &[piece], Direction::ToDevice) }.map_err(|_| DeviceError)
}

/// Does what the disk was asked for, with nothing held.
pub fn work() {
    loop {
        let Some(request) = REQUESTS.lock().pop_front() else { return };
        match request {
            Request::ReadFile(mut request) => {
                let result = read(u64::from(request.at().page), request.page());
                files().read_ended(kernel(), request, result);
            }
            Request::WriteFile(request) => {
                let result = write(u64::from(request.at().page), request.page());
                files().write_ended(kernel(), request, result);
            }
            Request::ReadSwap(mut request) => {
                let result = read(SWAP + request.at(), request.page());
                slots().read_ended(kernel(), request, result);
            }
            Request::WriteSwap(request) => {
                let has_place = request.at() < SWAP_PAGES;
                let result = if has_place { write(SWAP + request.at(), request.page()) } else { Err(DeviceError) };
                slots().write_ended(kernel(), request, result);
            }
        }
    }
}

/// Every process's address space.
struct All(Vec<Arc<super::AddressSpace>>);

impl pagepin_store::Shown for All {
    fn write_protect(&self, id: ObjectId, pages: Range<u32>) {
        for space in &self.0 {
            space.space.write_protect_object(id, pages.clone()).expect("sound tables");
        }
    }

    fn forget(&self, id: ObjectId, pages: Range<u32>, copies: Copies) {
        for space in &self.0 {
            space.space.forget_object(id, pages.clone(), copies).expect("sound tables");
        }
    }
}

fn error(error: StoreError) -> Error {
    match error {
        StoreError::NoMemory => Error::NoMemory,
        StoreError::NotReady(_) => Error::Busy,
        _ => Error::NotFound,
    }
}

/// Writes to the disk what was written of the file before this call.
pub fn sync() -> Result<(), Error> {
    loop {
        let all = All(process::spaces());
        let done = files().write_back(kernel(), &all, file()?, 0..u32::MAX, WhenPinned::Bounce).map_err(error)?;
        work();
        if done.failed || done.deferred > 0 {
            return Err(Error::NoMemory);
        }
        if done.busy == 0 {
            return Ok(());
        }
    }
}

/// Frames are wanted back: those of pages that are swapped out are written to the disk first.
pub fn write_out() -> u64 {
    let done = slots().write_out(kernel(), u32::MAX);
    work();
    u64::from(done.freed + done.started)
}

/// Between the disk, past the cache, and pinned memory.
///
/// # Safety
/// As for [`disk::transfer`].
pub unsafe fn direct(page: u64, pieces: &[(u64, u64)], direction: Direction) -> Result<(), Error> {
    let pages = pieces.iter().map(|(_, length)| length).sum::<u64>().div_ceil(PAGE_SIZE);
    if page.checked_add(pages).is_none_or(|end| end > DIRECT_PAGES) {
        return Err(Error::Invalid);
    }
    // SAFETY: forwarded from the caller.
    unsafe { disk::transfer((DIRECT + page) * PAGE_SIZE, pieces, direction) }
}

/// When no process is left: nothing is in swap, and of the file nothing is in memory that is not on the disk.
pub fn settle() -> Result<(), alloc::string::String> {
    sync().map_err(|error| alloc::format!("{error:?}"))?;
    files().evict(kernel(), u32::MAX);
    let (cached, swapped) = (files().resident(kernel()), slots().used(kernel()));
    if (cached, swapped) == (0, 0) {
        Ok(())
    } else {
        Err(alloc::format!("{cached} pages cached, {swapped} slots used"))
    }
}
