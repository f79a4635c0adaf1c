//! [`SlotStore`], and [`Tokens`] over it.

use super::{Stored, StoredPage};
use crate::addr::Pfn;
use crate::arch::Token;
use crate::env::{Env, TokenError, Tokens, bug_caught};
use crate::frame::FrameKind;

/// Where pages are kept that are not in memory, in safe code: [`Stored`] makes [`Tokens`] of it, whose conditions stand here as advice. Who
/// breaks them loses bytes, and never memory.
///
/// All methods are called inside a section of an mm lock, or by who owns an entry: they wait for nobody, and call nothing of this crate for the
/// mm.
pub trait SlotStore: Sync {
    /// A slot for one page, held by the caller.
    ///
    /// # Errors
    /// [`TokenError::Full`].
    fn reserve(&self) -> Result<Token, TokenError>;

    /// The page of a slot that was reserved and not filled. Nobody writes it, and while the slot keeps it nobody can.
    fn fill<K: Env>(&self, kernel: &K, token: Token, page: StoredPage);

    /// One entry more holds the token.
    ///
    /// # Errors
    /// [`TokenError::Full`], [`TokenError::Lost`].
    fn duplicate(&self, token: Token) -> Result<(), TokenError>;

    /// One holder less. The last one's release makes the slot free.
    fn release<K: Env>(&self, kernel: &K, token: Token);

    /// Sees to it that the next [`bring`](Self::bring) has the page. `token` may have no holder by now.
    ///
    /// # Errors
    /// [`TokenError::NotReady`], [`TokenError::Lost`], [`TokenError::NoMemory`].
    fn fetch<K: Env>(&self, kernel: &K, token: Token) -> Result<(), TokenError>;

    /// A reference to the page, if it is in memory: one of what was [filled](Self::fill) in, or a page
    /// [for a slot](super::FreshPage::of_slot) with the same bytes.
    ///
    /// # Errors
    /// [`TokenError::NotReady`]: fetch it. [`TokenError::Lost`], [`TokenError::NoMemory`].
    fn bring<K: Env>(&self, kernel: &K, token: Token) -> Result<StoredPage, TokenError>;
}

// SAFETY: a `StoredPage` of kind `Anonymous` is a plain reference to a frame that was filled in here, or made for a slot: not `EXCLUSIVE` then,
// and not since, for a claim needs the only reference, and that is the handle. Nothing writes through a handle of that kind. That the
// bytes are those of the token is the store's part.
unsafe impl<S: SlotStore> Tokens for Stored<S> {
    fn reserve(&self) -> Result<Token, TokenError> {
        self.0.reserve()
    }

    unsafe fn fill<K: Env>(&self, kernel: &K, token: Token, frame: Pfn) {
        // SAFETY: the caller owns the reference and gives it away; the frame of a leaf of 4 KiB that went is private memory, and was closed.
        match unsafe { StoredPage::from_reference(kernel, frame) } {
            Some(page) => self.0.fill(kernel, token, page),
            None => bug_caught(kernel),
        }
    }

    fn duplicate(&self, token: Token) -> Result<(), TokenError> {
        self.0.duplicate(token)
    }

    fn release<K: Env>(&self, kernel: &K, token: Token) {
        self.0.release(kernel, token);
    }

    fn fetch<K: Env>(&self, kernel: &K, token: Token) -> Result<(), TokenError> {
        self.0.fetch(kernel, token)
    }

    fn bring<K: Env>(&self, kernel: &K, token: Token) -> Result<Pfn, TokenError> {
        let page = self.0.bring(kernel, token)?;
        page.into_reference(kernel, FrameKind::Anonymous).ok_or(TokenError::Lost)
    }
}
