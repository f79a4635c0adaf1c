//! [`FreshPage`] and [`StoredPage`]: a frame that nobody else knows, and a reference to one that others may have.

use crate::addr::{PAGE_SIZE, Pfn};
use crate::arch;
use crate::env::{Env, FrameRequest, FrameTable, OwnedFrame, PhysMap, bug_caught, release};
use crate::frame::{CountError, FrameKind, PageFrame, Snapshot};

/// A frame, by the word that counts for it: numbers mean something in one kernel only, and the place of a word tells whose it is.
#[derive(Debug, PartialEq, Eq)]
struct Counted {
    frame: Pfn,
    word: usize,
}

type Word<'k, K> = &'k PageFrame<<<K as Env>::Frames as FrameTable>::Layout>;

impl Counted {
    /// `frame` has a reference, which is this one's.
    fn new<K: Env>(kernel: &K, frame: Pfn) -> Option<Self> {
        kernel.frames().frame(frame).map(|word| Self { frame, word: core::ptr::from_ref(word).addr() })
    }

    /// `None`: it is another kernel's, which is the caller's bug.
    fn of<'k, K: Env>(&self, kernel: &'k K) -> Option<Word<'k, K>> {
        let word = kernel.frames().frame(self.frame);
        let word = word.filter(|word| core::ptr::from_ref(*word).addr() == self.word);
        if word.is_none() {
            bug_caught(kernel);
        }
        word
    }

    fn put<K: Env>(self, kernel: &K) {
        if let Some(word) = self.of(kernel) {
            release(kernel, self.frame, word.word.put());
        }
    }
}

/// A page that is being made: its frame is nobody else's, and zeroed at first. A device that reads into it owns it meanwhile.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::FreshPage;
/// # let kernel = doc_kernel::kernel();
/// # let before = kernel.source().free_frames();
/// # use pagepin::Env;
/// let mut fresh = FreshPage::of_object(&kernel).ok_or("no memory")?;
/// fresh.bytes(&kernel).ok_or("another kernel's")?[..5].copy_from_slice(b"hello"); // or a device does, at fresh.frame()
/// let page = fresh.finish(&kernel); // open to pins
/// assert!(page.snapshot(&kernel).is_some_and(|word| word.exclusive));
/// page.put(&kernel);
/// let page = FreshPage::of_slot(&kernel).ok_or("no memory")?.finish_closed();
/// assert!(page.snapshot(&kernel).is_some_and(|word| !word.exclusive));
/// page.put(&kernel);
/// FreshPage::of_object(&kernel).ok_or("no memory")?.put(&kernel); // the device has failed
/// # assert_eq!(kernel.source().free_frames(), before);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// There is no `Drop`, since a page does not know its kernel: what is not [finished](Self::finish) or [put](Self::put) back is lost.
#[must_use = "its frame is lost"]
#[derive(Debug)]
pub struct FreshPage(Counted);

impl FreshPage {
    /// A page for an object. `None`: out of memory.
    pub fn of_object<K: Env>(kernel: &K) -> Option<Self> {
        let owned = OwnedFrame::staying(kernel, FrameKind::File)?;
        Counted::new(kernel, owned.into_entry()).map(Self)
    }

    /// A page for a slot, which is to be private memory again. `None`: out of memory.
    pub fn of_slot<K: Env>(kernel: &K) -> Option<Self> {
        let owned = OwnedFrame::zeroed(kernel, FrameRequest::movable(0))?;
        let page = Counted::new(kernel, owned.into_entry())?;
        // Whoever brings it claims it, if nobody else has it by then.
        if page.of(kernel)?.word.try_share().is_err() {
            bug_caught(kernel);
        }
        Some(Self(page))
    }

    /// Its number: what a device is told that reads into it.
    #[must_use]
    pub fn frame(&self) -> Pfn {
        self.0.frame
    }

    /// Its bytes. `None`: it is another kernel's.
    pub fn bytes<'a, K: Env>(&'a mut self, kernel: &'a K) -> Option<&'a mut [u8; PAGE_SIZE as usize]> {
        self.0.of(kernel)?;
        // SAFETY: the frame came from this kernel's source, so the map has it; it was zeroed, it is in no entry and in no other handle,
        // and this one is borrowed for as long as the slice.
        Some(unsafe { &mut *kernel.phys_map().frame_ptr(self.0.frame).cast() })
    }

    /// The page is complete. One of an object is open to pins.
    pub fn finish<K: Env>(self, kernel: &K) -> StoredPage {
        let page = self.finish_closed();
        if page.kind(kernel) == Some(FrameKind::File) {
            page.open(kernel);
        }
        page
    }

    /// The page is complete, and never pinned unless it is [opened](StoredPage::open).
    pub fn finish_closed(self) -> StoredPage {
        StoredPage(self.0)
    }

    /// Gives the frame back.
    pub fn put<K: Env>(self, kernel: &K) {
        self.0.put(kernel);
    }
}

/// A plain reference to a page of an object, or to one that went to a slot.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::FreshPage;
/// # let kernel = doc_kernel::kernel();
/// let page = FreshPage::of_object(&kernel).ok_or("no memory")?.finish(&kernel);
/// assert!(page.copy_from(&kernel, 0, b"hello")); // a system call writes to the file
/// // Write-back: closed to pins, written by a device that has a reference of its own, and opened again.
/// assert_eq!(page.close(&kernel), Ok(true)); // it was written
/// let to_device = page.get(&kernel).ok_or("too many references")?;
/// let mut bytes = [0; 5];
/// assert!(to_device.copy_to(&kernel, 0, &mut bytes) && &bytes == b"hello");
/// assert_eq!(to_device.frame(), page.frame());
/// to_device.put(&kernel);
/// page.open(&kernel);
/// page.mark_dirty(&kernel); // had the device failed
/// assert!(page.snapshot(&kernel).is_some_and(|word| word.exclusive && word.dirty));
/// page.put(&kernel);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// There is no `Drop`, since a page does not know its kernel: what is not [put](Self::put) back stays allocated for ever. What is done
/// with another kernel's page is refused, and counted as a bug.
#[must_use = "its frame stays allocated"]
#[derive(Debug)]
pub struct StoredPage(Counted);

impl StoredPage {
    /// A reference of which the caller had the count.
    ///
    /// # Safety
    /// The caller owns a plain reference of `frame`, which is of kind `Anonymous`, of order 0, and not `EXCLUSIVE`, and gives it away.
    pub(super) unsafe fn from_reference<K: Env>(kernel: &K, frame: Pfn) -> Option<Self> {
        Counted::new(kernel, frame).map(Self)
    }

    /// The reference is the caller's, if the page is this kernel's and of this kind.
    pub(super) fn into_reference<K: Env>(self, kernel: &K, kind: FrameKind) -> Option<Pfn> {
        let found = self.kind(kernel)?;
        if found != kind {
            bug_caught(kernel);
            self.put(kernel);
            return None;
        }
        Some(self.0.frame)
    }

    /// Its number.
    #[must_use]
    pub fn frame(&self) -> Pfn {
        self.0.frame
    }

    fn kind<K: Env>(&self, kernel: &K) -> Option<FrameKind> {
        Some(self.0.of(kernel)?.kind())
    }

    /// What its word says at the moment.
    #[must_use]
    pub fn snapshot<K: Env>(&self, kernel: &K) -> Option<Snapshot> {
        Some(self.0.of(kernel)?.snapshot())
    }

    /// One reference more. `None`: it has as many as its word can count.
    pub fn get<K: Env>(&self, kernel: &K) -> Option<Self> {
        self.0.of(kernel)?.word.try_get().ok()?;
        Some(Self(Counted { ..self.0 }))
    }

    /// Gives the reference back, and the frame, if it was the last.
    pub fn put<K: Env>(self, kernel: &K) {
        self.0.put(kernel);
    }

    /// Closes an object's page to pins, and takes the note that it was written, which is the answer: see
    /// [`FrameWord::try_close`](crate::frame::FrameWord::try_close).
    ///
    /// # Errors
    /// [`CountError::Pinned`]. [`CountError::NotPinnable`]: it is no page of an object's.
    pub fn close<K: Env>(&self, kernel: &K) -> Result<bool, CountError> {
        let word = self.0.of(kernel).filter(|word| word.kind() == FrameKind::File).ok_or(CountError::NotPinnable)?;
        word.word.try_close()
    }

    /// Opens an object's page to pins.
    pub fn open<K: Env>(&self, kernel: &K) {
        if self.0.of(kernel).is_some_and(|word| word.word.open().is_err()) {
            bug_caught(kernel);
        }
    }

    /// Notes that it was written.
    pub fn mark_dirty<K: Env>(&self, kernel: &K) {
        if self.0.of(kernel).is_some_and(|word| word.word.mark_dirty().is_err()) {
            bug_caught(kernel);
        }
    }

    /// Reads bytes from `offset` on, byte by byte, while others may write them. False, and nothing read: they are not all in the page, or
    /// it is another kernel's.
    pub fn copy_to<K: Env>(&self, kernel: &K, offset: usize, bytes: &mut [u8]) -> bool {
        let Some(from) = self.part(kernel, offset, bytes.len()) else { return false };
        // SAFETY: the part lies within the frame, which the reference keeps and the map has; the slice is the caller's.
        unsafe { arch::read_bytes(from, bytes) };
        true
    }

    /// Writes bytes from `offset` on to an object's page, byte by byte, while others may access them, and notes that it was written.
    /// False, and nothing written: they are not all in the page, or it is no page of an object's, or another kernel's.
    pub fn copy_from<K: Env>(&self, kernel: &K, offset: usize, bytes: &[u8]) -> bool {
        let Some(to) = self.part(kernel, offset, bytes.len()) else { return false };
        // What went to a slot is not written: who brings it finds what went.
        if self.kind(kernel) != Some(FrameKind::File) {
            return false;
        }
        // SAFETY: as above.
        unsafe { arch::write_bytes(bytes, to) };
        self.mark_dirty(kernel);
        true
    }

    fn part<K: Env>(&self, kernel: &K, offset: usize, length: usize) -> Option<*mut u8> {
        self.0.of(kernel)?;
        let end = offset.checked_add(length)?;
        (end <= PAGE_SIZE as usize).then(|| kernel.phys_map().frame_ptr(self.0.frame).wrapping_add(offset))
    }
}
