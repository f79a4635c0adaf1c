//! [`GotPages`]: plain references, for a look at the bytes of this moment. Never for DMA.

use core::fmt;
use core::mem::ManuallyDrop;

use super::collected::Collected;
use super::release::release_runs;
use super::{PhysRun, RunBuffer, Stopped};
use crate::env::Env;
use crate::frame::Dirty;

/// Referenced pages of a user range: the first [`pages`](Self::pages) of it, at least one.
///
/// The frames stay allocated, nothing more: after a fork or a copy-on-write the mm may map others. Dropping it gives
/// the references back.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// let range = space.range(0x10000, 0x2000)?;
/// let got = get_user_pages(&space, Read, range, PinFlags::empty(), [PhysRun::default(); 2])?;
/// let raw = got.into_raw();
/// // SAFETY: taken through this kernel, above.
/// drop(unsafe { GotPages::from_raw(space.env(), raw) });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it gives the references back at once"]
pub struct GotPages<'k, K: Env, B: RunBuffer> {
    env: &'k K,
    collected: Collected<B>,
}

impl<'k, K: Env, B: RunBuffer> GotPages<'k, K, B> {
    pub(super) fn new(env: &'k K, collected: Collected<B>) -> Self {
        Self { env, collected }
    }

    /// The referenced frames, in the order of the range.
    #[must_use]
    pub fn runs(&self) -> &[PhysRun] {
        self.collected.runs()
    }

    /// Number of base pages referenced.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.collected.pages()
    }

    /// Why this is not the whole range; `None` if it is.
    #[must_use]
    pub fn stopped(&self) -> Option<Stopped> {
        self.collected.stopped()
    }

    /// Gives the references away; they come back through [`from_raw`](Self::from_raw) or
    /// [`put_user_pages`](super::put_user_pages).
    pub fn into_raw(self) -> RawGets<B> {
        let this = ManuallyDrop::new(self);
        // SAFETY: a field of a value that is alive and never dropped: what is read here has one owner from now on.
        RawGets { collected: unsafe { core::ptr::read(&raw const this.collected) } }
    }

    /// Takes references back from [`into_raw`](Self::into_raw).
    ///
    /// # Safety
    /// They were taken through the same kernel.
    pub unsafe fn from_raw(env: &'k K, gets: RawGets<B>) -> Self {
        Self::new(env, gets.collected)
    }
}

impl<K: Env, B: RunBuffer> Drop for GotPages<'_, K, B> {
    fn drop(&mut self) {
        release_runs::<K, false>(self.env, self.runs(), Dirty::No);
    }
}

impl<K: Env, B: RunBuffer> fmt::Debug for GotPages<'_, K, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GotPages")
            .field("range", &self.collected.range)
            .field("runs", &self.runs())
            .finish_non_exhaustive()
    }
}

/// References without a guard.
#[must_use = "these references are given back by nobody unless they are taken back"]
#[derive(Debug)]
pub struct RawGets<B: RunBuffer> {
    collected: Collected<B>,
}

impl<B: RunBuffer> RawGets<B> {
    /// The referenced frames.
    #[must_use]
    pub fn runs(&self) -> &[PhysRun] {
        self.collected.runs()
    }
}
