//! [`Tokens`]: where pages are kept that are not in memory.

use core::fmt;

use super::{Env, NotReady};
use crate::addr::Pfn;
use crate::arch::Token;
use crate::errno::{EAGAIN, EIO, ENOMEM};

/// Why a token is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenError {
    /// No slot is left, or a slot takes no holder more.
    Full,
    /// The contents are lost: the device failed, or nobody knows the token.
    Lost,
    /// There is no frame to bring the page back in. Nobody waits for it: the access may be retried when there is memory.
    NoMemory,
    /// Not yet. Whoever touched the page waits, with nothing held, and tries again.
    NotReady(NotReady),
}

impl TokenError {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::Full | Self::NoMemory => ENOMEM,
            Self::Lost => EIO,
            Self::NotReady(_) => EAGAIN,
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "no slot is left for another page",
            Self::Lost => "the contents of the page are lost",
            Self::NoMemory => "there is no memory to bring the page back",
            Self::NotReady(_) => "the page is not there yet",
        })
    }
}

impl core::error::Error for TokenError {}

/// Where pages are kept that are not in memory: swap slots. `()`: nowhere.
///
/// A slot is *reserved* for a page that is to go, *filled* with its frame when no CPU can reach that any more, and *held* by one entry,
/// and by one more for each child that fork makes ([`duplicate`](Self::duplicate)). An entry that goes lets go of it
/// ([`release`](Self::release)); the last holder's release makes the slot free, to be reserved again at once.
///
/// The frame of a filled slot cannot change: it is exclusive to nobody, and while the slot keeps its reference nobody can claim it. So
/// it may be written out at any time, and be handed out again until its slot has forgotten it. What has to do with frames is told the
/// kernel, a part of which this is.
///
/// # Implementation safety
/// [`bring`](Self::bring) returns a frame with the contents of that slot, of kind [`Anonymous`](crate::frame::FrameKind::Anonymous), not
/// `EXCLUSIVE`, with a plain reference that is the caller's, and nobody writes to it. A slot is reserved for one at a time.
/// `fill`, `bring` and `release` are called while the caller owns an entry, or with interrupts off: they wait for nobody, and
/// [`fill`](Self::fill) and [`release`](Self::release) cannot fail. None calls back into the crate for this mm.
pub unsafe trait Tokens: Sync {
    /// A slot for one page, held by the caller.
    ///
    /// # Errors
    /// [`TokenError::Full`].
    fn reserve(&self) -> Result<Token, TokenError>;

    /// The page's contents are those of `frame`, which no CPU writes any more. The slot gets the plain reference that the entry had.
    ///
    /// # Safety
    /// The caller has reserved the token and not filled it, and owns the reference.
    unsafe fn fill<K: Env>(&self, kernel: &K, token: Token, frame: Pfn);

    /// One entry more holds the token.
    ///
    /// # Errors
    /// [`TokenError::Full`], [`TokenError::Lost`].
    fn duplicate(&self, token: Token) -> Result<(), TokenError>;

    /// One holder less.
    fn release<K: Env>(&self, kernel: &K, token: Token);

    /// Sees to it that the next [`bring`](Self::bring) has the page: starts to read it if it must be. Asked with no entry owned.
    /// `token` may have no holder by now.
    ///
    /// # Errors
    /// [`TokenError::NotReady`], [`TokenError::Lost`], [`TokenError::NoMemory`].
    fn fetch<K: Env>(&self, kernel: &K, token: Token) -> Result<(), TokenError>;

    /// The page's frame, if it is in memory, for an entry that held `token` and is owned by the caller, who releases the token
    /// afterwards. It only tries.
    ///
    /// # Errors
    /// [`TokenError::NotReady`]: [`fetch`](Self::fetch) it. [`TokenError::Lost`], [`TokenError::NoMemory`].
    fn bring<K: Env>(&self, kernel: &K, token: Token) -> Result<Pfn, TokenError>;
}

// SAFETY: there are no slots, so nothing is ever brought.
unsafe impl Tokens for () {
    fn reserve(&self) -> Result<Token, TokenError> {
        Err(TokenError::Full)
    }
    unsafe fn fill<K: Env>(&self, _: &K, _: Token, _: Pfn) {}
    fn duplicate(&self, _: Token) -> Result<(), TokenError> {
        Err(TokenError::Lost)
    }
    fn release<K: Env>(&self, _: &K, _: Token) {}
    fn fetch<K: Env>(&self, _: &K, _: Token) -> Result<(), TokenError> {
        Err(TokenError::Lost)
    }
    fn bring<K: Env>(&self, _: &K, _: Token) -> Result<Pfn, TokenError> {
        Err(TokenError::Lost)
    }
}

// SAFETY: forwards to an implementation.
unsafe impl<T: Tokens> Tokens for &T {
    fn reserve(&self) -> Result<Token, TokenError> {
        (**self).reserve()
    }
    unsafe fn fill<K: Env>(&self, kernel: &K, token: Token, frame: Pfn) {
        // SAFETY: forwarded from the caller.
        unsafe { (**self).fill(kernel, token, frame) }
    }
    fn duplicate(&self, token: Token) -> Result<(), TokenError> {
        (**self).duplicate(token)
    }
    fn release<K: Env>(&self, kernel: &K, token: Token) {
        (**self).release(kernel, token);
    }
    fn fetch<K: Env>(&self, kernel: &K, token: Token) -> Result<(), TokenError> {
        (**self).fetch(kernel, token)
    }
    fn bring<K: Env>(&self, kernel: &K, token: Token) -> Result<Pfn, TokenError> {
        (**self).bring(kernel, token)
    }
}
