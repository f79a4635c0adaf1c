//! Objects that become shorter or longer, get holes, and go.

use core::iter;
use core::ops::Range;

use pagepin::space::Copies;
use pagepin::{Env, ObjectId, PAGE_SIZE};

use super::inner::{Record, STEP, check_length, key, object_of, page_of, wait_for, wait_for_some};
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
    /// [`StoreError::NoObject`], `PastEnd`, `Denied`; [`StoreError::NotReady`]: a page that would be cut off, or in which the object would end, is written back,
    /// or another thread does the same.
    pub fn set_length<K: Env>(
        &self,
        kernel: &K,
        shown: &impl Shown,
        id: ObjectId,
        length: u64,
    ) -> Result<(), StoreError> {
        check_length(length)?;
        let (old, file) = self.begin_change(kernel, id, |old| (old.min(length) / PAGE_SIZE) as u32..u32::MAX)?;
        let (kept, gone) = (old.min(length), old.min(length).div_ceil(PAGE_SIZE) as u32..u32::MAX);
        // Longer it is when nothing of before is left.
        self.with(kernel, |inner| inner.object_mut(id).map(|object| object.length = kept))?;
        if length < old {
            self.drop_pages(kernel, id, &gone);
            shown.forget(id, gone, Copies::Forget);
        }
        // Of a file that becomes longer, too: what was written behind its end, by who shows its last page, was nobody's.
        self.clear_end(kernel, id, kept);
        if file && length != old {
            self.device.cut(id, kept);
        }
        self.with(kernel, |inner| {
            let object = inner.object_mut(id)?;
            (object.length, object.going) = (length, None);
            Ok(())
        })
    }

    /// These pages of the object read as zeroes from now on, for everybody but private copies, and for who has them pinned: as in
    /// [`set_length`](Self::set_length), those frames are nobody's then. Of a page that is to be zeroes in part, the part is [written](Self::write).
    ///
    /// # Errors
    /// [`StoreError::NoObject`], `Denied`; [`StoreError::NotReady`]: one of these pages is written back, or another thread changes the object.
    pub fn punch<K: Env>(
        &self,
        kernel: &K,
        shown: &impl Shown,
        id: ObjectId,
        pages: Range<u32>,
    ) -> Result<(), StoreError> {
        let (_, file) = self.begin_change(kernel, id, |_| pages.clone())?;
        if file {
            // Before the pages go: who reads one again finds the hole.
            self.device.punch(id, pages.clone());
        }
        self.drop_pages(kernel, id, &pages);
        shown.forget(id, pages, Copies::Keep);
        self.with(kernel, |inner| inner.object_mut(id).map(|object| object.going = None))
    }

    /// Pages of the object are about to go, by its length of before: the device writes none of them, and will not. Its length, and whether it is a
    /// file.
    fn begin_change<K: Env>(
        &self,
        kernel: &K,
        id: ObjectId,
        going: impl Fn(u64) -> Range<u32>,
    ) -> Result<(u64, bool), StoreError> {
        let (length, file, writes) = self.with(kernel, |inner| {
            let object = inner.object_mut(id)?;
            if !object.properties.writable {
                return Err(StoreError::Denied);
            }
            if object.going.is_some() {
                return Err(StoreError::NotReady(wait_for_some(id)));
            }
            object.going = Some(going(object.length));
            Ok((object.length, object.properties.file, object.writes))
        })?;
        let (pages, mut written) = (going(length), None);
        let mut next = Some(pages.start).filter(|_| writes > 0);
        while let Some(from) = next.filter(|_| written.is_none()) {
            next = self.with(kernel, |inner| {
                let look = |page, record: &Record| written = written.or(record.writing.map(|_| page));
                inner.each_of(id, from..pages.end, look)
            });
        }
        if let Some(page) = written {
            self.with(kernel, |inner| inner.object_mut(id).map(|object| object.going = None))?;
            return Err(StoreError::NotReady(wait_for(id, page)));
        }
        Ok((length, file))
    }

    /// Takes out and gives back what the cache has of these pages.
    fn drop_pages<K: Env>(&self, kernel: &K, id: ObjectId, pages: &Range<u32>) {
        loop {
            let mut taken = [const { None }; STEP];
            let more = self.with(kernel, |inner| inner.take_some(id, pages, &mut taken));
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
            if object.going.is_some() || object.writes > 0 {
                return Err(StoreError::NotReady(wait_for_some(id)));
            }
            (object.going, object.leaving, object.length) = (Some(0..u32::MAX), true, 0);
            Ok(())
        })?;
        self.drop_pages(kernel, id, &(0..u32::MAX));
        self.with(kernel, |inner| inner.destroy(id));
        Ok(())
    }

    /// The pages of the object that are in memory, by their numbers, each looked up by itself.
    pub fn cached<'a, K: Env>(&'a self, kernel: &'a K, id: ObjectId) -> impl Iterator<Item = u32> + 'a {
        let mut next = Some(key(id, 0));
        iter::from_fn(move || {
            let found = self.with(kernel, |inner| inner.index.from(next?).map(|(found, _)| found))?;
            next = found.checked_add(1);
            (object_of(found) == id).then_some(page_of(found))
        })
    }
}
