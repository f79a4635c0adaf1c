//! [`Stored`]: files, shared memory and swap in safe code.
//!
//! [`Objects`](crate::Objects) and [`Tokens`](crate::Tokens) are `unsafe` to implement, since what they hand over becomes an entry:
//! a frame of this kernel, of the right kind, with a reference. Here that is a type. A [`StoredPage`] *is* such a reference: only this
//! module makes one, nobody can copy one, and it remembers the word that counts it. So whoever keeps pages by it ([`ObjectStore`],
//! [`SlotStore`]) may be wrong about what they hold, and never about whose they are.

mod objects;
mod page;
mod tokens;

pub use objects::ObjectStore;
pub use page::{FreshPage, StoredPage};
pub use tokens::SlotStore;

/// A store in safe code as a kernel's [`Objects`](crate::Objects) or [`Tokens`](crate::Tokens), for its [`Extras`](crate::Extras). The
/// crate `pagepin-store` has one of each kind.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, space::*};
/// use core::sync::atomic::{AtomicBool, Ordering};
///
/// /// One object, whose pages hold their number, and are forgotten once they were handed out.
/// struct Numbers;
///
/// impl ObjectStore for Numbers {
///     fn page<K: Env>(&self, kernel: &K, _: ObjectId, page: u32, _: Access) -> Result<StoredPage, ObjectError> {
///         let mut fresh = FreshPage::of_object(kernel).ok_or(ObjectError::NoMemory)?;
///         fresh.bytes(kernel).ok_or(ObjectError::Failed)?[..4].copy_from_slice(&page.to_le_bytes());
///         Ok(fresh.finish(kernel))
///     }
///     fn will_write(&self, _: ObjectId, _: u32, _: Pfn) -> Result<(), ObjectError> {
///         Err(ObjectError::Denied)
///     }
///     fn still(&self, _: ObjectId, _: u32, _: Pfn) -> bool {
///         true
///     }
///     fn may_pin(&self, _: ObjectId, _: u32) -> Result<(), ObjectError> {
///         Err(ObjectError::NotPinnable)
///     }
///     fn mapped(&self, _: ObjectId, _: u64) -> Result<(), ObjectError> {
///         Ok(())
///     }
///     fn unmapped(&self, _: ObjectId, _: u64) {}
/// }
///
/// let kernel = doc_kernel::kernel().with_extras(Extras::new().objects(Stored(Numbers)));
/// let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// space.map_object(0x10000, 16384, ObjectId(1), 7, Sharing::Private, Rights::READ)?;
/// let pinned = space.pin(pin::Read, space.range(0x11000, 4)?, [pin::PhysRun::default(); 1])?;
/// let mut bytes = [0; 4];
/// pinned.copy_to(0, &mut bytes)?;
/// assert_eq!(u32::from_le_bytes(bytes), 8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Stored<S>(
    /// The store.
    pub S,
);
