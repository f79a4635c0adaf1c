//! Merging two private pages of the same bytes: one step, for whoever looks for such pages.
//!
//! The page that stays is closed to pins first, made read-only, and held by a plain reference: from then on nobody writes its frame,
//! since a write needs the only reference, so what is compared later is what everybody will read. Then the other page's entry is owned,
//! its frame frozen, and after the flush, when nobody can write it either, the bytes are compared, and the entry shows the one frame or
//! the other. The two mm locks, and the two entries, are held one after the other, so two merges against each other do
//! not wait: each finds the other's reference, and gives up.

use core::fmt;

use super::UserSpace;
use super::private_pages::is_private;
use crate::addr::{PageAddr, Pfn, RangeError, UserRange};
use crate::arch::LeafSize;
use crate::env::{Env, FrameTable, Mm, PhysMap, Reentered, bug_caught, release};
use crate::errno::{EAGAIN, EBUSY, EDEADLK, EFAULT, EINVAL, ENOMEM};
use crate::frame::{CountError, FrameKind, PageFrame};
use crate::paging::{Broken, TableError, Tables};

use spin::relax::RelaxStrategy;

/// A frame of the kernel, as its table knows it.
type Frame<K> = PageFrame<<<K as Env>::Frames as FrameTable>::Layout>;

/// An entry that others change is looked at so often.
const MOST_ROUNDS: u32 = 16;

/// Why two pages were not merged. Both have the bytes and rights they had; the page that was to stay may have become read-only, which a
/// fault at its next write mends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MergeError {
    /// Not the address of a user page.
    Range(RangeError),
    /// No VMA contains one of the pages.
    NoVma,
    /// They are one page already: the same, or of the same frame.
    Same,
    /// One of them is not private memory that is there, with rights, in a base page: nothing, a token, the zero frame, an object's, or a
    /// part of a large leaf.
    NotPrivate,
    /// One of them is pinned.
    Pinned,
    /// Somebody else refers to the page that was to go: another address space, a slot, a get, a walk or merge of this moment.
    Shared,
    /// Their bytes differ.
    Different,
    /// So many refer to the page that was to stay that nobody more can.
    CountOverflow,
    /// Other threads kept changing a page.
    Contended,
    /// The address spaces are two kernels'.
    OtherKernel,
    /// This CPU is inside a section of an mm lock: a bug in the kernel.
    Reentered,
    /// Somebody else damaged the tables.
    MalformedTable,
}

impl MergeError {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::Range(error) => error.errno(),
            Self::NoVma | Self::NotPrivate | Self::MalformedTable => EFAULT,
            Self::Same | Self::Different | Self::OtherKernel => EINVAL,
            Self::Pinned | Self::Shared => EBUSY,
            Self::CountOverflow => ENOMEM,
            Self::Contended => EAGAIN,
            Self::Reentered => EDEADLK,
        }
    }
}

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Range(error) => return error.fmt(f),
            Self::NoVma => "no VMA contains the page",
            Self::Same => "they are one page already",
            Self::NotPrivate => "not a base page of private memory that is there",
            Self::Pinned => "a page is pinned",
            Self::Shared => "somebody else refers to the page that was to go",
            Self::Different => "the pages differ",
            Self::CountOverflow => "a frame's reference count is at its limit",
            Self::Contended => "a page kept changing",
            Self::OtherKernel => "the address spaces are two kernels'",
            Self::Reentered => return Reentered.fmt(f),
            Self::MalformedTable => "the page tables are malformed",
        })
    }
}

impl core::error::Error for MergeError {}

impl From<RangeError> for MergeError {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

impl From<Reentered> for MergeError {
    fn from(_: Reentered) -> Self {
        Self::Reentered
    }
}

impl From<TableError> for MergeError {
    fn from(_: TableError) -> Self {
        Self::MalformedTable
    }
}

impl From<CountError> for MergeError {
    fn from(error: CountError) -> Self {
        match error {
            CountError::Pinned => Self::Pinned,
            CountError::Overflow => Self::CountOverflow,
            _ => Self::Shared,
        }
    }
}

impl<K: Env, C> UserSpace<K, C> {
    /// Gives the page at `address` the frame of the page at `kept_address` of `kept`, if they are private and have the same bytes, and gives
    /// its own frame back. Both are read-only then, and whoever writes to one gets a copy; so the bytes that either sees never change by
    /// this. Faults and pins of other threads go on beside it.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    /// space.map(0x10000, 16384, Rights::READ | Rights::WRITE).unwrap();
    /// let buffer = space.pin(Write, space.range(0x10000, 8192).unwrap(), [PhysRun::default(); 2]).unwrap();
    /// buffer.copy_from(0, &[1; 8192]).unwrap();
    /// assert_eq!(space.merge(0x10000, &space, 0x11000), Err(MergeError::Pinned));
    /// drop(buffer);
    /// assert_eq!(space.merge(0x10000, &space, 0x11000), Ok(()));
    /// assert_eq!(space.merge(0x10000, &space, 0x11000), Err(MergeError::Same));
    /// ```
    ///
    /// # Errors
    /// [`MergeError`].
    pub fn merge<D>(&self, address: u64, kept: &UserSpace<K, D>, kept_address: u64) -> Result<(), MergeError> {
        let page = self.private_page(address)?;
        let kept_page = kept.private_page(kept_address)?;
        if page == kept_page && self.mm.root() == kept.mm.root() {
            return Err(MergeError::Same);
        }
        let held = kept.close_page(kept_page)?;
        // A frame that another kernel counts is not this one's to map.
        match self.env().frames().frame(held.frame) {
            Some(frame) if core::ptr::eq(frame, held.word) => {}
            _ => return Err(MergeError::OtherKernel),
        }
        self.replace_page(page, held)
    }

    /// The page at an address, if one of private memory may be there.
    fn private_page(&self, address: u64) -> Result<PageAddr, MergeError> {
        Ok(UserRange::pages_only(self.mm.levels().user_half(), address, crate::addr::PAGE_SIZE)?.first_page())
    }

    /// Runs `work` with the entry of `page` owned, and its frame.
    fn with_owned<'s, R>(
        &'s self,
        page: PageAddr,
        work: impl FnOnce(Broken<'_, '_, K>, (Pfn, &'s Frame<K>)) -> Result<R, MergeError>,
    ) -> Result<R, MergeError> {
        for _ in 0..MOST_ROUNDS {
            let vmas = self.vmas.read(self.env().extras())?;
            let vma = vmas.touching(page, page.offset(1)).next().ok_or(MergeError::NoVma)?;
            if !is_private(vma) {
                return Err(MergeError::NotPrivate);
            }
            let mm: &Mm<K> = &self.mm;
            // SAFETY: the mm lock is held, through `vmas`.
            let mut tables = unsafe { Tables::under_mm_lock(mm) };
            let slot = tables.find(page)?;
            let entry = slot.entry;
            if entry.is_owned() {
                K::Relax::relax();
                continue;
            }
            let own = entry.is_present() && !entry.is_special() && !entry.is_borrowed();
            if !own || slot.size() != LeafSize::Size4KiB {
                return Err(MergeError::NotPrivate);
            }
            let pfn = entry.leaf_frame(LeafSize::Size4KiB);
            let frame = self.env().frames().frame(pfn).ok_or(MergeError::NotPrivate)?;
            // SAFETY: found under this lock, and it is a leaf; `work` publishes it, or it is published here.
            if let Some(broken) = unsafe { tables.break_leaf(slot) } {
                // Asked of the owner: before, the frame could have left this entry, and be free by now, or another's.
                if frame.word.kind() != FrameKind::Anonymous {
                    broken.restore();
                    return Err(MergeError::NotPrivate);
                }
                return work(broken, (pfn, frame));
            }
        }
        Err(MergeError::Contended)
    }

    /// Makes the page read-only, and its frame one that nobody pins or writes for as long as what is returned lives.
    fn close_page(&self, page: PageAddr) -> Result<Held<'_, K>, MergeError> {
        self.with_owned(page, |broken, (pfn, frame)| {
            if let Err(error) = frame.word.try_share_with_child() {
                broken.restore();
                return Err(error.into());
            }
            let held = Held { env: self.env(), frame: pfn, word: frame };
            let entry = broken.entry();
            if entry.is_writable() {
                // SAFETY: the same frame, without the right to write.
                unsafe { broken.flush().weaken(entry.write_protected()) };
            } else {
                broken.restore();
            }
            Ok(held)
        })
    }

    /// Gives the page the frame of `held`, if it has the same bytes.
    fn replace_page(&self, page: PageAddr, held: Held<'_, K>) -> Result<(), MergeError> {
        self.with_owned(page, |broken, (pfn, frame)| {
            let frozen = match pfn == held.frame {
                true => Err(MergeError::Same),
                false => frame.word.try_freeze(1).map_err(MergeError::from),
            };
            if let Err(error) = frozen {
                broken.restore();
                return Err(error);
            }
            let (env, entry) = (self.env(), broken.entry());
            let settled = broken.flush();
            // SAFETY: both frames are kept, this one frozen, the other closed: until it is published, or let go, nobody writes either.
            let alike = unsafe { env.phys_map().same_bytes(pfn, held.frame) };
            if frame.word.snapshot().dirty && alike && held.word.word.mark_dirty().is_err() {
                bug_caught(env);
            }
            if frame.word.unfreeze(1).is_err() {
                bug_caught(env);
            }
            let new = if alike { entry.with_frame(held.frame, LeafSize::Size4KiB).write_protected() } else { entry };
            // SAFETY: the leaf that was taken, with its reference, and exclusive if it was; or one of the frame held, read-only, whose
            // reference goes to it.
            let old = unsafe { settled.publish(new) };
            if !alike {
                return Err(MergeError::Different);
            }
            held.into_entry();
            old.release(env);
            Ok(())
        })
    }
}

/// A frame that is closed to pins and writes by the reference that this is.
struct Held<'k, K: Env> {
    env: &'k K,
    frame: Pfn,
    word: &'k Frame<K>,
}

impl<K: Env> Held<'_, K> {
    fn into_entry(self) {
        core::mem::forget(self);
    }
}

impl<K: Env> Drop for Held<'_, K> {
    fn drop(&mut self) {
        release(self.env, self.frame, self.word.word.put());
    }
}
