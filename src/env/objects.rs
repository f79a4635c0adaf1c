//! [`Objects`]: what has pages of its own, and lends them to address spaces.

use core::fmt;

use super::{Env, NotReady};
use crate::addr::Pfn;
use crate::errno::{EACCES, EAGAIN, EFAULT, EIO, ENOMEM, ENXIO};
use crate::rights::Access;
use crate::vma::ObjectId;

/// Why an object has no such page for this access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ObjectError {
    /// There is no such object.
    NoObject,
    /// It ends before the page, or has a hole there that cannot be filled.
    PastEnd,
    /// It cannot be written, or the page cannot.
    Denied,
    /// Its pages are never pinned.
    NotPinnable,
    /// Out of memory.
    NoMemory,
    /// Reading the page failed.
    Failed,
    /// Not yet. Whoever touched the page waits, with nothing held, and tries again.
    NotReady(NotReady),
}

impl ObjectError {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::NoObject | Self::PastEnd => ENXIO,
            Self::Denied => EACCES,
            Self::NotPinnable => EFAULT,
            Self::NoMemory => ENOMEM,
            Self::Failed => EIO,
            Self::NotReady(_) => EAGAIN,
        }
    }
}

impl fmt::Display for ObjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoObject => "there is no such object",
            Self::PastEnd => "beyond the end of the object",
            Self::Denied => "the object does not permit the access",
            Self::NotPinnable => "the object's pages are never pinned",
            Self::NoMemory => "out of memory",
            Self::Failed => "the page could not be read",
            Self::NotReady(_) => "the page is not there yet",
        })
    }
}

impl core::error::Error for ObjectError {}

/// Files, memfds, shared memory: what has pages of its own, which VMAs show ([`Backing::Object`](crate::Backing::Object)). `()`: there
/// are none.
///
/// A page of an object is a frame whose kind is [`File`](crate::frame::FrameKind::File), or [`Device`](crate::frame::FrameKind::Device) if it is a
/// driver's, with a plain reference of the object's as
/// long as it is the object's. While it is *open* to pins its word is `EXCLUSIVE`: that bit means the same for pages of objects as for
/// private memory, "who maps this may pin it", so that the walker asks no second question. An object whose pages are never pinned
/// hands them out [`Shared`](crate::frame::Ownership::Shared).
///
/// The crate asks for a page, publishes it, and asks then whether it still is the object's ([`still`](Self::still)). So an object
/// that is cut off first takes its pages out, and then unmaps them from every address space that shows it
/// (`UserSpace::forget_object`): whoever comes in between finds that the page is not the object's any more. What has to do with frames is told the kernel, a part of
/// which this is.
///
/// # Implementation safety
/// [`page`](Self::page) returns a frame of this kernel, of one of these kinds, with a plain reference more, which is the caller's. Until the object
/// gives the page up, it is always the same frame. `will_write` and `still` are called while the caller owns an entry, has just
/// published it, or has pinned the page: they wait for nobody. Each comes before or after what it asks about, that a page is taken out or closed, as under one
/// lock held for a moment: a plain load could miss that, while whoever does it misses the entry. None calls back into the crate for this mm.
pub unsafe trait Objects: Sync {
    /// The object's page, for an access of this kind, through a mapping that is shared or not.
    ///
    /// # Errors
    /// [`ObjectError`].
    fn page<K: Env>(&self, kernel: &K, id: ObjectId, page: u32, access: Access) -> Result<Pfn, ObjectError>;

    /// The first write through a shared mapping since the page was last written back, or ever. From `Ok` on the page may be written at any
    /// time, until the object has write-protected its mappings, and by devices until nobody pins it. It only tries.
    ///
    /// # Errors
    /// [`ObjectError`]: the entry stays read-only.
    fn will_write<K: Env>(&self, kernel: &K, id: ObjectId, page: u32, frame: Pfn) -> Result<(), ObjectError>;

    /// Whether `frame` is the object's page, still.
    fn still(&self, id: ObjectId, page: u32, frame: Pfn) -> bool;

    /// A pin was refused, since the page is not open. Whether it will be.
    ///
    /// # Errors
    /// [`ObjectError::NotReady`] while it is written back, [`ObjectError::NotPinnable`].
    fn may_pin(&self, id: ObjectId, page: u32) -> Result<(), ObjectError>;

    /// Whether what is written to the object goes to a disk, in time. A device that writes for as long as user space wants would never let
    /// that end, so its shared pages are not pinned in this way (a long-term pin for writing says
    /// [`WrittenBack`](crate::pin::PinError::WrittenBack)). Always the same for an object.
    fn is_written_back(&self, id: ObjectId) -> bool {
        let _ = id;
        false
    }

    /// So many pages more of address spaces show the object.
    ///
    /// # Errors
    /// [`ObjectError::NoObject`]: then they do not.
    fn mapped(&self, id: ObjectId, pages: u64) -> Result<(), ObjectError>;

    /// So many fewer. When none is left, nobody shows it.
    fn unmapped<K: Env>(&self, kernel: &K, id: ObjectId, pages: u64);
}

// SAFETY: there are no objects, so no page is ever returned.
unsafe impl Objects for () {
    fn page<K: Env>(&self, _: &K, _: ObjectId, _: u32, _: Access) -> Result<Pfn, ObjectError> {
        Err(ObjectError::NoObject)
    }
    fn will_write<K: Env>(&self, _: &K, _: ObjectId, _: u32, _: Pfn) -> Result<(), ObjectError> {
        Err(ObjectError::NoObject)
    }
    fn still(&self, _: ObjectId, _: u32, _: Pfn) -> bool {
        false
    }
    fn may_pin(&self, _: ObjectId, _: u32) -> Result<(), ObjectError> {
        Err(ObjectError::NoObject)
    }
    fn mapped(&self, _: ObjectId, _: u64) -> Result<(), ObjectError> {
        Err(ObjectError::NoObject)
    }
    fn unmapped<K: Env>(&self, _: &K, _: ObjectId, _: u64) {}
}

// SAFETY: forwards to an implementation.
unsafe impl<T: Objects> Objects for &T {
    fn page<K: Env>(&self, kernel: &K, id: ObjectId, page: u32, access: Access) -> Result<Pfn, ObjectError> {
        (**self).page(kernel, id, page, access)
    }
    fn will_write<K: Env>(&self, kernel: &K, id: ObjectId, page: u32, frame: Pfn) -> Result<(), ObjectError> {
        (**self).will_write(kernel, id, page, frame)
    }
    fn still(&self, id: ObjectId, page: u32, frame: Pfn) -> bool {
        (**self).still(id, page, frame)
    }
    fn may_pin(&self, id: ObjectId, page: u32) -> Result<(), ObjectError> {
        (**self).may_pin(id, page)
    }
    fn is_written_back(&self, id: ObjectId) -> bool {
        (**self).is_written_back(id)
    }
    fn mapped(&self, id: ObjectId, pages: u64) -> Result<(), ObjectError> {
        (**self).mapped(id, pages)
    }
    fn unmapped<K: Env>(&self, kernel: &K, id: ObjectId, pages: u64) {
        (**self).unmapped(kernel, id, pages);
    }
}
