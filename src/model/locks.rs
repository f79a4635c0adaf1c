//! The locks under a checker: its own, in the shape of `spin`'s.

use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use spin::relax::RelaxStrategy;

#[cfg(feature = "alloc")]
use crate::env::{ExtraParts, Reentered};
#[cfg(feature = "alloc")]
use crate::primitive::ReadWrite;

use super::checker::sync::{Mutex, MutexGuard};

/// As `spin::mutex::SpinMutex`. Nobody spins: the checker runs another thread instead.
pub(crate) struct SpinMutex<T, R>(Mutex<T>, PhantomData<fn() -> R>);

/// As `spin::mutex::SpinMutexGuard`.
pub(crate) struct SpinMutexGuard<'a, T, R>(MutexGuard<'a, T>, PhantomData<fn() -> R>);

impl<T, R> SpinMutex<T, R> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value), PhantomData)
    }

    pub(crate) fn lock(&self) -> SpinMutexGuard<'_, T, R> {
        // A model ends at its first panic, so no lock is ever met poisoned.
        SpinMutexGuard(self.0.lock().expect("poisoned"), PhantomData)
    }
}

impl<T, R> Deref for SpinMutexGuard<'_, T, R> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T, R> DerefMut for SpinMutexGuard<'_, T, R> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// As [`FairRwLock`](crate::primitive::FairRwLock), for the models of what it protects.
#[cfg(feature = "alloc")]
pub(crate) struct RwLock<T, R>(super::checker::sync::RwLock<T>, PhantomData<fn() -> R>);

#[cfg(feature = "alloc")]
impl<T, R> RwLock<T, R> {
    pub(crate) fn new(value: T) -> Self {
        Self(super::checker::sync::RwLock::new(value), PhantomData)
    }
}

#[cfg(feature = "alloc")]
impl<T, R: RelaxStrategy> ReadWrite for RwLock<T, R> {
    type Value = T;
    type Reading<'a>
        = super::checker::sync::RwLockReadGuard<'a, T>
    where
        Self: 'a;
    type Writing<'a>
        = super::checker::sync::RwLockWriteGuard<'a, T>
    where
        Self: 'a;

    fn read(&self) -> Self::Reading<'_> {
        self.0.read().expect("poisoned")
    }

    fn write(&self) -> Self::Writing<'_> {
        self.0.write().expect("poisoned")
    }

    fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().expect("poisoned")
    }

    fn if_open(&self) -> Option<core::ptr::NonNull<T>> {
        unreachable!("the kernels of the models have no slots")
    }

    fn relax() {
        R::relax();
    }
}

/// The library's own lock, for the model of it.
#[cfg(feature = "alloc")]
pub struct FairRwLock<T, R>(crate::primitive::FairRwLock<T, R>);

#[cfg(feature = "alloc")]
impl<T, R: RelaxStrategy> FairRwLock<T, R> {
    /// An open lock.
    pub fn new(value: T) -> Self {
        Self(crate::primitive::FairRwLock::new(value))
    }

    /// Holds the lock with other readers.
    pub fn read(&self) -> impl Deref<Target = T> + '_ {
        self.0.read()
    }

    /// Holds the lock alone.
    pub fn write(&self) -> impl DerefMut<Target = T> + '_ {
        self.0.write()
    }
}

/// The library's own mm lock, over that lock, for the models of it.
#[cfg(feature = "alloc")]
pub struct MmLock<T, R>(crate::space::MmLock<crate::primitive::FairRwLock<T, R>>);

#[cfg(feature = "alloc")]
impl<T, R: RelaxStrategy> MmLock<T, R> {
    /// An open lock.
    pub fn new(value: T) -> Self {
        Self(crate::space::MmLock::new(crate::primitive::FairRwLock::new(value)))
    }

    /// Holds the lock with other readers.
    ///
    /// # Errors
    /// The CPU is in a section already.
    pub fn read<'a>(&'a self, extras: &'a impl ExtraParts) -> Result<impl Deref<Target = T> + 'a, Reentered>
    where
        R: 'a,
    {
        self.0.read(extras)
    }

    /// Holds the lock alone.
    ///
    /// # Errors
    /// As for reading.
    pub fn write<'a>(&'a self, extras: &'a impl ExtraParts) -> Result<impl DerefMut<Target = T> + 'a, Reentered>
    where
        R: 'a,
    {
        self.0.write(extras)
    }
}
