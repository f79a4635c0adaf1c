//! [`ObjectStore`], and [`Objects`] over it.

use super::{Stored, StoredPage};
use crate::addr::Pfn;
use crate::env::{Env, ObjectError, Objects};
use crate::frame::FrameKind;
use crate::rights::Access;
use crate::vma::ObjectId;

/// What has pages of its own, in safe code: [`Stored`] makes [`Objects`] of it, whose conditions stand here as advice. Who breaks them
/// loses bytes, and never memory.
///
/// All methods are called inside a section of an mm lock: they wait for nobody, and call nothing of this crate for the mm. `will_write` and
/// `still` come before or after a page is taken out or closed, as under one lock that is held for a moment.
pub trait ObjectStore: Sync {
    /// A reference to the object's page, for an access of this kind: the same page, until the object gives it up.
    ///
    /// # Errors
    /// [`ObjectError`].
    fn page<K: Env>(&self, kernel: &K, id: ObjectId, page: u32, access: Access) -> Result<StoredPage, ObjectError>;

    /// The first write since the page was last written back, or ever: see [`Objects::will_write`].
    ///
    /// # Errors
    /// [`ObjectError`]: the entry stays read-only.
    fn will_write(&self, id: ObjectId, page: u32, frame: Pfn) -> Result<(), ObjectError>;

    /// Whether `frame` is the object's page, still.
    fn still(&self, id: ObjectId, page: u32, frame: Pfn) -> bool;

    /// A pin was refused, since the page is not open. Whether it will be.
    ///
    /// # Errors
    /// [`ObjectError::NotReady`] while it is written back, [`ObjectError::NotPinnable`].
    fn may_pin(&self, id: ObjectId, page: u32) -> Result<(), ObjectError>;

    /// Whether what is written to the object goes to a disk, in time: see [`Objects::is_written_back`].
    fn is_written_back(&self, id: ObjectId) -> bool {
        let _ = id;
        false
    }

    /// So many pages more of address spaces show the object.
    ///
    /// # Errors
    /// [`ObjectError::NoObject`]: then they do not.
    fn mapped(&self, id: ObjectId, pages: u64) -> Result<(), ObjectError>;

    /// So many fewer.
    fn unmapped(&self, id: ObjectId, pages: u64);
}

// SAFETY: a `StoredPage` is a frame of the kernel that counts it and a plain reference, which is given away here, and its kind is looked at.
// That it is the same page until it was given up, and that nothing waits, concerns bytes, and who waits, and is the store's part.
unsafe impl<S: ObjectStore> Objects for Stored<S> {
    fn page<K: Env>(&self, kernel: &K, id: ObjectId, page: u32, access: Access) -> Result<Pfn, ObjectError> {
        let page = self.0.page(kernel, id, page, access)?;
        page.into_reference(kernel, FrameKind::File).ok_or(ObjectError::Failed)
    }

    fn will_write<K: Env>(&self, _: &K, id: ObjectId, page: u32, frame: Pfn) -> Result<(), ObjectError> {
        self.0.will_write(id, page, frame)
    }

    fn still(&self, id: ObjectId, page: u32, frame: Pfn) -> bool {
        self.0.still(id, page, frame)
    }

    fn may_pin(&self, id: ObjectId, page: u32) -> Result<(), ObjectError> {
        self.0.may_pin(id, page)
    }

    fn is_written_back(&self, id: ObjectId) -> bool {
        self.0.is_written_back(id)
    }

    fn mapped(&self, id: ObjectId, pages: u64) -> Result<(), ObjectError> {
        self.0.mapped(id, pages)
    }

    fn unmapped<K: Env>(&self, _: &K, id: ObjectId, pages: u64) {
        self.0.unmapped(id, pages);
    }
}
