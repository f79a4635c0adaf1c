//! Objects that become shorter or longer, and go.

use core::iter;

use pagepin::{Env, ObjectId, PAGE_SIZE};

use super::inner::{STEP, check_length, key, page_of, wait_for_some};
use super::{Cache, Shown};
use crate::device::FileDevice;
use crate::error::StoreError;

/// What a shorter page's end is filled with.
const ZEROES: [u8; PAGE_SIZE as usize] = [0; PAGE_SIZE as usize];

impl<D: FileDevice> Cache<D> {
    /// Makes the object so many bytes long. What is cut off is gone for everybody, private copies included, but for who has it pinned: pins keep
    /// their frames, which are nobody's then. What is added reads as zeroes.
    ///
    /// # Errors
    /// [`StoreError::NoObject`], `PastEnd`, `Denied`; [`StoreError::NotReady`]: a page is written back, or another thread does the same.
    pub fn set_length<K: Env>(
        &self,
        kernel: &K,
        shown: &impl Shown,
        id: ObjectId,
        length: u64,
    ) -> Result<(), StoreError> {
        check_length(length)?;
        let (old, file) = self.with(kernel, |inner| {
            let object = inner.object_mut(id)?;
            if !object.properties.writable {
                return Err(StoreError::Denied);
            }
            // The device may write none of what it is told to cut off.
            if object.changing || object.writes > 0 {
                return Err(StoreError::NotReady(wait_for_some(id)));
            }
            object.changing = true;
            // Longer it is when nothing of before is left.
            let old = object.length;
            object.length = old.min(length);
            Ok((old, object.properties.file))
        })?;
        let (kept, first) = (old.min(length), old.min(length).div_ceil(PAGE_SIZE) as u32);
        if length < old {
            self.drop_pages(kernel, id, first);
            shown.forget(id, first..u32::MAX);
        }
        // Of a file that becomes longer, too: what was written behind its end, by who shows its last page, was nobody's.
        self.clear_end(kernel, id, kept);
        if file && length != old {
            self.device.cut(id, kept);
        }
        self.with(kernel, |inner| {
            let object = inner.object_mut(id)?;
            (object.length, object.changing) = (length, false);
            Ok(())
        })
    }

    /// Takes out and gives back what the cache has of the object, from a page on.
    fn drop_pages<K: Env>(&self, kernel: &K, id: ObjectId, first: u32) {
        loop {
            let mut taken = [const { None }; STEP];
            let more = self.with(kernel, |inner| inner.take_some(id, first, &mut taken));
            taken.into_iter().flatten().for_each(|page| page.put(kernel));
            if !more {
                return;
            }
        }
    }

    /// The last page ends where the object does. One that is being read is cleared there when it comes, one that is not in memory by the device.
    fn clear_end<K: Env>(&self, kernel: &K, id: ObjectId, length: u64) {
        let (page, within) = ((length / PAGE_SIZE) as u32, (length % PAGE_SIZE) as usize);
        let page = self.with(kernel, |inner| {
            let record = inner.index.get(key(id, page)).filter(|_| within > 0);
            record.and_then(|record| record.here()?.get(kernel))
        });
        if let Some(page) = page {
            page.copy_from(kernel, within, &ZEROES[within..]);
            page.put(kernel);
        }
    }

    /// The object is no more, with all that was not written back. Its number may be given to another.
    ///
    /// # Errors
    /// [`StoreError::NoObject`]; [`StoreError::Shown`]: unmap it first, and try again; [`StoreError::NotReady`]: a page is written back.
    pub fn remove<K: Env>(&self, kernel: &K, id: ObjectId) -> Result<(), StoreError> {
        self.with(kernel, |inner| {
            let object = inner.object_mut(id)?;
            if object.shown > 0 {
                return Err(StoreError::Shown);
            }
            if object.changing || object.writes > 0 {
                return Err(StoreError::NotReady(wait_for_some(id)));
            }
            (object.changing, object.leaving, object.length) = (true, true, 0);
            Ok(())
        })?;
        self.drop_pages(kernel, id, 0);
        self.with(kernel, |inner| inner.destroy(id));
        Ok(())
    }

    /// The pages of the object that are in memory, by their numbers, each looked up by itself.
    pub fn cached<'a, K: Env>(&'a self, kernel: &'a K, id: ObjectId) -> impl Iterator<Item = u32> + 'a {
        let mut next = Some(key(id, 0));
        iter::from_fn(move || {
            let found = self.with(kernel, |inner| inner.index.from(next?).map(|(found, _)| found))?;
            next = found.checked_add(1);
            (found >> 32 == u64::from(id.0)).then_some(page_of(found))
        })
    }
}
