//! Swap-out: private pages go to slots of the kernel's, and entries keep tokens.
//!
//! Under the shared mm lock, up to 64 pages side by side at a time: their slots are reserved with nothing owned, their entries are owned by trying
//! alone, each frame is closed to pins in the step that sees that it has none, one flush goes out for all, and only then each
//! slot gets its frame, and each entry its token. A page that is pinned keeps its frame, and its entry comes back.
//!
//! What comes back is brought by the fault or pin that wants it (`fault/elsewhere.rs`).

use super::private_pages::is_private;
use super::{SpaceError, UserSpace};
use crate::addr::PageAddr;
use crate::arch::{Entry, LeafSize, Token};
use crate::env::{Env, ExtraParts, FrameTable, Mm, TokenError, Tokens};
use crate::paging::{Cursor, Tables};

/// The most pages for which others wait at a time.
const MOST: usize = 64;

/// What a swap-out did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SwappedOut {
    /// Pages that are elsewhere now.
    pub pages: u64,
    /// Pages that stay since they are pinned.
    pub pinned_pages: u64,
}

impl<K: Env, C> UserSpace<K, C> {
    /// Gives the private pages of a range to the kernel's [`Tokens`]; the next access, or pin, brings each back. Pages that are pinned stay,
    /// and so do large leaves, pages of objects, and those that have no rights at the moment. Faults and pins of other threads go on
    /// beside it.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, fault::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    /// space.map(0x10000, 16384, Rights::READ | Rights::WRITE)?;
    /// let write = Fault { address: 0x10000, access: Access::Write, key_denied: false, malformed_table: false };
    /// space.fault(write).unwrap();
    /// // This kernel has no slots.
    /// assert_eq!(space.swap_out(0x10000, 16384), Err(SpaceError::NoSlot));
    /// # Ok::<(), SpaceError>(())
    /// ```
    ///
    /// # Errors
    /// [`SpaceError::NoSlot`]: before any page went; if some did, their number is the answer. `Range`, `MalformedTable`, `Reentered`.
    pub fn swap_out(&self, start: u64, length: u64) -> Result<SwappedOut, SpaceError> {
        let mut out = SwappedOut::default();
        // SAFETY: such a part, in such a section.
        self.for_parts((start, length), is_private, |mm, part| match unsafe { swap_out_some(mm, part, &mut out) } {
            Ok(reached) => Ok(Some(reached)),
            Err(SpaceError::NoSlot) if out.pages != 0 => Ok(None),
            Err(error) => Err(error),
        })?;
        Ok(out)
    }
}

/// Some of the pages of a part of a private VMA, from its first on; where to go on.
///
/// # Safety
/// The part lies in a VMA of this mm, whose mm lock the caller holds, shared at least.
unsafe fn swap_out_some<K: Env>(
    mm: &Mm<K>,
    (first, end): (PageAddr, PageAddr),
    out: &mut SwappedOut,
) -> Result<PageAddr, SpaceError> {
    // SAFETY: the caller holds the mm lock.
    let mut tables = unsafe { Tables::under_mm_lock(mm) };
    let Some(chunk) = Cursor::new(first, end).next_chunk(&tables)? else { return Ok(end) };
    if chunk.size != LeafSize::Size4KiB {
        return Ok(chunk.end());
    }
    let goes = |entry| is_private_page(mm.env(), entry);
    let Some((from, entries)) = chunk.first_run(&tables, goes) else { return Ok(chunk.end()) };
    let mut going = Going::new(mm.env());
    for entry in entries.take(MOST) {
        if let Err(error) = going.reserve(entry) {
            if going.count == 0 {
                return Err(error.into());
            }
            break;
        }
    }
    let count = going.count;
    // SAFETY: the places were found under this lock, in one table, and held leaves; published below.
    let broken = unsafe { tables.break_run(chunk.at(from), chunk.page_at(from), &mut going.entries[..count]) };
    let taken = broken.count();
    going.close(taken);
    let settled = broken.flush();
    going.fill(taken);
    // SAFETY: each is the leaf that was taken, with its reference, or a token, whose slot has the reference.
    unsafe { settled.publish(&going.new) };
    out.pages += going.gone(taken);
    out.pinned_pages += taken as u64 - going.gone(taken);
    // An entry that another CPU has changed is left to the next round, or to whoever comes next.
    Ok(chunk.page_at(from + taken.max(1) as u64))
}

/// Whether a page can go, as far as its entry and its frame's kind say.
fn is_private_page<K: Env>(env: &K, entry: Entry) -> bool {
    let frame = || env.frames().frame(entry.leaf_frame(LeafSize::Size4KiB));
    entry.is_ordinary() && frame().is_some_and(|frame| frame.word.exclusive_sole_and_anonymous().2)
}

/// Pages on their way. Dropped, the slots that were not filled are given back.
struct Going<'k, K: Env> {
    env: &'k K,
    /// What the entries were, and are to be.
    entries: [Entry; MOST],
    new: [Entry; MOST],
    tokens: [Option<Token>; MOST],
    count: usize,
}

impl<'k, K: Env> Going<'k, K> {
    fn new(env: &'k K) -> Self {
        Self { env, entries: [Entry::EMPTY; MOST], new: [Entry::EMPTY; MOST], tokens: [None; MOST], count: 0 }
    }

    /// A slot for the page of `entry`.
    fn reserve(&mut self, entry: Entry) -> Result<(), TokenError> {
        self.tokens[self.count] = Some(self.env.extras().tokens().reserve()?);
        self.entries[self.count] = entry;
        self.count += 1;
        Ok(())
    }

    /// Closes the first `taken` frames, whose entries are owned, to pins; what has some stays.
    fn close(&mut self, taken: usize) {
        for ((entry, new), token) in self.entries.iter().zip(&mut self.new).zip(&self.tokens).take(taken) {
            let frame = self.env.frames().frame(entry.leaf_frame(LeafSize::Size4KiB));
            *new = match token {
                Some(token) if frame.is_some_and(|frame| frame.word.try_share().is_ok()) => {
                    Entry::token(*token).in_place_of(*entry)
                }
                _ => *entry,
            };
        }
    }

    /// Gives the frames that went, which no CPU can reach any more, to their slots.
    fn fill(&mut self, taken: usize) {
        for ((entry, new), token) in self.entries.iter().zip(&self.new).zip(&mut self.tokens).take(taken) {
            if let Some(token) = token.take_if(|_| new.is_token()) {
                // SAFETY: reserved above and filled now; the reference was the entry's, which gets the token.
                unsafe { self.env.extras().tokens().fill(self.env, token, entry.leaf_frame(LeafSize::Size4KiB)) };
            }
        }
    }

    fn gone(&self, taken: usize) -> u64 {
        self.new[..taken].iter().filter(|new| new.is_token()).count() as u64
    }
}

impl<K: Env> Drop for Going<'_, K> {
    fn drop(&mut self) {
        self.tokens.iter().flatten().for_each(|token| self.env.extras().tokens().release(self.env, *token));
    }
}

impl From<TokenError> for SpaceError {
    fn from(_: TokenError) -> Self {
        Self::NoSlot
    }
}
