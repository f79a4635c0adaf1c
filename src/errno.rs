//! Linux's numbers for the causes that errors here can have, positive, from `asm-generic/errno-base.h` and `errno.h`.

pub(crate) const EIO: i32 = 5;
pub(crate) const ENXIO: i32 = 6;
pub(crate) const EAGAIN: i32 = 11;
pub(crate) const ENOMEM: i32 = 12;
pub(crate) const EACCES: i32 = 13;
pub(crate) const EFAULT: i32 = 14;
pub(crate) const EBUSY: i32 = 16;
#[cfg(feature = "alloc")]
pub(crate) const EEXIST: i32 = 17;
pub(crate) const EINVAL: i32 = 22;
pub(crate) const ENOSPC: i32 = 28;
pub(crate) const EDEADLK: i32 = 35;
#[cfg(all(feature = "instructions", target_arch = "x86_64"))]
pub(crate) const ENAMETOOLONG: i32 = 36;
pub(crate) const EOVERFLOW: i32 = 75;
pub(crate) const EOPNOTSUPP: i32 = 95;
