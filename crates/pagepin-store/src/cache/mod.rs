//! [`Cache`]: objects and their pages.

mod inner;
mod length;
mod pages;
mod reclaim;
mod write_back;

use core::ops::Range;

use pagepin::space::Copies;
use pagepin::{Env, ExtraParts, NoPreempt, ObjectId, Pfn};
use spin::mutex::SpinMutex;

use crate::device::FileDevice;
use crate::error::StoreError;

use inner::{Inner, key};
pub use write_back::{WhenPinned, WrittenBack};

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties {
    file: bool,
    writable: bool,
    pinnable: bool,
}

impl Properties {
    /// Memory that objects show: a memfd, a file of a tmpfs, shared anonymous memory. Its pages are zeroes at first, and stay in memory.
    #[must_use]
    pub const fn memory() -> Self {
        Self { file: false, writable: true, pinnable: true }
    }

    /// A file of the device.
    #[must_use]
    pub const fn file() -> Self {
        Self { file: true, ..Self::memory() }
    }

    /// Nobody writes it.
    #[must_use]
    pub const fn read_only(self) -> Self {
        Self { writable: false, ..self }
    }

    /// Its pages are never pinned where they are shared.
    #[must_use]
    pub const fn unpinnable(self) -> Self {
        Self { pinnable: false, ..self }
    }
}

/// Every address space that shows objects, of which a kernel has the list: each method does for all what
/// [`UserSpace`](https://docs.rs/pagepin/latest/pagepin/space/struct.UserSpace.html) has for one. It is called with no lock held.
///
/// An address space that begins to show an object while it is asked may be missing: it finds the object as it is by then.
pub trait Shown {
    /// `UserSpace::write_protect_object`.
    fn write_protect(&self, id: ObjectId, pages: Range<u32>);

    /// `UserSpace::forget_object`.
    fn forget(&self, id: ObjectId, pages: Range<u32>, copies: Copies);
}

/// No address space shows anything.
impl Shown for () {
    fn write_protect(&self, _: ObjectId, _: Range<u32>) {}
    fn forget(&self, _: ObjectId, _: Range<u32>, _: Copies) {}
}

/// Objects and their pages, of which as many as there is room for are in memory.
///
/// The pages of files are written back by [`write_back`](Self::write_back), when the kernel says so. When there is no room for another page,
/// one is evicted that is clean and that nobody else has.
pub struct Cache<D> {
    device: D,
    inner: SpinMutex<Inner>,
}

impl<D: FileDevice> Cache<D> {
    /// Room for so many objects and pages. `None`: the heap has none.
    pub fn new(device: D, objects: u32, pages: u32) -> Option<Self> {
        Some(Self { device, inner: SpinMutex::new(Inner::new(objects, pages)?) })
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    fn with<K: Env, R>(&self, kernel: &K, work: impl FnOnce(&mut Inner) -> R) -> R {
        let _stay = ExtraParts::no_preempt(kernel.extras()).enter();
        work(&mut self.inner.lock())
    }

    /// A new object of `length` bytes.
    ///
    /// # Errors
    /// [`StoreError::Full`]; [`StoreError::PastEnd`]: longer than an object can be, `u32::MAX` pages.
    pub fn create<K: Env>(&self, kernel: &K, properties: Properties, length: u64) -> Result<ObjectId, StoreError> {
        self.with(kernel, |inner| inner.create(properties, length))
    }

    /// How long the object is, in bytes.
    ///
    /// # Errors
    /// [`StoreError::NoObject`].
    pub fn length<K: Env>(&self, kernel: &K, id: ObjectId) -> Result<u64, StoreError> {
        self.with(kernel, |inner| Ok(inner.object(id)?.length))
    }

    /// How many pages of the object are in memory, and how many pages of address spaces show it.
    ///
    /// # Errors
    /// [`StoreError::NoObject`].
    pub fn pages<K: Env>(&self, kernel: &K, id: ObjectId) -> Result<(u32, u64), StoreError> {
        self.with(kernel, |inner| inner.object(id).map(|object| (object.pages, object.shown)))
    }

    /// How many pages of the object are pinned, by whomever and however: each is told by its frame. Pages that were cut off are the object's no
    /// more.
    ///
    /// # Errors
    /// [`StoreError::NoObject`].
    pub fn pinned<K: Env>(&self, kernel: &K, id: ObjectId) -> Result<u32, StoreError> {
        self.with(kernel, |inner| inner.object(id).map(drop))?;
        let (mut pinned, mut next) = (0, Some(0));
        while let Some(from) = next {
            next = self.with(kernel, |inner| {
                inner.each_of(id, from..u32::MAX, |_, record| {
                    let word = record.here().and_then(|page| page.snapshot(kernel));
                    pinned += u32::from(word.is_some_and(|word| word.pins > 0));
                })
            });
        }
        Ok(pinned)
    }

    /// The frame of a page of the object, if it is in memory.
    pub fn frame<K: Env>(&self, kernel: &K, id: ObjectId, page: u32) -> Option<Pfn> {
        self.with(kernel, |inner| Some(inner.index.get(key(id, page))?.here()?.frame()))
    }

    /// How many pages are in memory, of all objects, or on their way.
    pub fn resident<K: Env>(&self, kernel: &K) -> usize {
        self.with(kernel, |inner| inner.index.len())
    }
}
