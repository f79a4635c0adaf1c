//! [`FairRwLock`]: the mm lock. It keeps neither readers nor writers waiting without bound.
//!
//! Faults and pins of a process's threads can overlap for ever, so a lock that lets readers in while others are inside
//! (`spin::RwLock` is one) never lets a `fork` or `unmap` in. This one is phase-fair (Brandenburg and Anderson, "Spin-based
//! reader-writer synchronization for multiprocessor real-time systems", 2010): a writer waits for the writers that came
//! before it and then for the readers that came before it; a reader waits for one writer at most. Readers do not wait for
//! each other, so one that is preempted while it waits holds up no other reader.
//!
//! A thread that holds the lock must not take it again, not even twice for reading: a writer that comes in between waits
//! for the first, and the second for the writer.

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use spin::relax::RelaxStrategy;

use super::{AtomicU64, Ordering, ReadWrite, safeguard};

/// In `entered`: a writer is inside, or next and waiting for the readers that came before it.
const CLOSED: u64 = 1;
/// In `entered`, with [`CLOSED`]: tells that writer from the next.
const PHASE: u64 = 2;
/// One reader in `entered` or `left`.
const READER: u64 = 4;

/// A fair lock for many readers or one writer; `R` is what is done while waiting.
pub(crate) struct FairRwLock<T, R> {
    /// Readers that came, and whether the lock is closed to them.
    entered: AtomicU64,
    /// Readers that went.
    left: AtomicU64,
    /// Writers that came.
    tickets: AtomicU64,
    /// Writers that went.
    served: AtomicU64,
    relax: PhantomData<fn() -> R>,
    value: UnsafeCell<T>,
}

// SAFETY: the lock hands out references as a `&mut` (to one) or as `&` (to many), so it asks of `T` what those ask.
unsafe impl<T: Send + Sync, R> Sync for FairRwLock<T, R> {}

impl<T, R: RelaxStrategy> FairRwLock<T, R> {
    pub(crate) fn new(value: T) -> Self {
        let [entered, left, tickets, served] = [(); 4].map(|()| AtomicU64::new(0));
        Self { entered, left, tickets, served, relax: PhantomData, value: UnsafeCell::new(value) }
    }

    /// Waits for the writer that is inside or next, if there is one, and for no other.
    #[inline]
    pub(crate) fn read(&self) -> ReadGuard<'_, T, R> {
        let closed = |entered: u64| entered & (CLOSED | PHASE);
        // Acquire: pairs with the release of the writer that opened the lock last, here and in the loop. All other stores
        // are read-modify-writes and carry its release on.
        let writer = closed(self.entered.fetch_add(READER, safeguard!(RwLockOrdering: Ordering::Acquire)));
        if writer != 0 {
            // The next writer has the other phase, and waits for this reader.
            while safeguard!(ReadersWait => closed(self.entered.load(safeguard!(RwLockOrdering: Ordering::Acquire))) == writer)
            {
                R::relax();
            }
        }
        ReadGuard { lock: self }
    }

    /// Waits for the writers that came before, then closes the lock and waits for the readers that are inside.
    pub(crate) fn write(&self) -> WriteGuard<'_, T, R> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        // Acquire: pairs with the release of the writer before.
        while safeguard!(WritersWait => self.served.load(safeguard!(RwLockOrdering: Ordering::Acquire)) != ticket) {
            R::relax();
        }
        let closed = if ticket & 1 == 0 { CLOSED } else { CLOSED | PHASE };
        let readers = self.entered.fetch_add(closed, Ordering::Relaxed) & !(CLOSED | PHASE);
        // Acquire: pairs with the releases of the readers that went.
        while safeguard!(WriterWaitsForReaders => self.left.load(safeguard!(RwLockOrdering: Ordering::Acquire)) != readers)
        {
            R::relax();
        }
        WriteGuard { lock: self }
    }
}

impl<T, R: RelaxStrategy> ReadWrite for FairRwLock<T, R> {
    type Value = T;
    type Reading<'a>
        = ReadGuard<'a, T, R>
    where
        Self: 'a;
    type Writing<'a>
        = WriteGuard<'a, T, R>
    where
        Self: 'a;

    #[inline(always)]
    fn read(&self) -> ReadGuard<'_, T, R> {
        FairRwLock::read(self)
    }

    fn write(&self) -> WriteGuard<'_, T, R> {
        FairRwLock::write(self)
    }

    fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    #[inline(always)]
    fn if_open(&self) -> Option<NonNull<T>> {
        // Acquire: pairs with the release of the writer that opened the lock last.
        let entered = self.entered.load(safeguard!(RwLockOrdering: Ordering::Acquire));
        let closed = safeguard!(ReadersWait => entered & (CLOSED | PHASE) != 0);
        NonNull::new(self.value.get()).filter(|_| !closed)
    }

    fn relax() {
        R::relax();
    }
}

/// The lock is held for reading.
pub(crate) struct ReadGuard<'a, T, R> {
    lock: &'a FairRwLock<T, R>,
}

impl<T, R> Deref for ReadGuard<'_, T, R> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: a writer that gets in waits until this guard is dropped.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T, R> Drop for ReadGuard<'_, T, R> {
    #[inline]
    fn drop(&mut self) {
        // Release: pairs with the acquire of the writer that waits for the readers.
        self.lock.left.fetch_add(READER, safeguard!(RwLockOrdering: Ordering::Release));
    }
}

/// The lock is held for writing.
pub(crate) struct WriteGuard<'a, T, R> {
    lock: &'a FairRwLock<T, R>,
}

impl<T, R> Deref for WriteGuard<'_, T, R> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: readers and other writers wait until this guard is dropped.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T, R> DerefMut for WriteGuard<'_, T, R> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as for `deref`.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T, R> Drop for WriteGuard<'_, T, R> {
    fn drop(&mut self) {
        // The readers first: those that wait now get in before the next writer.
        // Release: pairs with the acquire of readers, then of the next writer.
        self.lock.entered.fetch_and(!(CLOSED | PHASE), safeguard!(RwLockOrdering: Ordering::Release));
        self.lock.served.fetch_add(1, safeguard!(RwLockOrdering: Ordering::Release));
    }
}

#[cfg(all(test, not(pagepin_checker)))]
mod tests {
    extern crate std;

    use std::boxed::Box;
    use std::cell::Cell;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::{self, Scope, ScopedJoinHandle};
    use std::vec::Vec;

    use super::*;

    std::thread_local! {
        /// Where this thread notes that it has waited.
        static WAITS: Cell<Option<&'static AtomicBool>> = const { Cell::new(None) };
    }

    struct Noted;

    impl RelaxStrategy for Noted {
        fn relax() {
            if let Some(waits) = WAITS.get() {
                waits.store(true, Ordering::Relaxed);
            }
            thread::yield_now();
        }
    }

    type Lock = FairRwLock<u32, Noted>;

    /// Runs `act` in a thread of its own, and returns when that waits or is done.
    fn until_it_waits<'s, T: Send + 's>(
        scope: &'s Scope<'s, '_>,
        act: impl FnOnce() -> T + Send + 's,
    ) -> ScopedJoinHandle<'s, T> {
        let waits: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
        let thread = scope.spawn(move || {
            WAITS.set(Some(waits));
            act()
        });
        while !waits.load(Ordering::Relaxed) && !thread.is_finished() {
            thread::yield_now();
        }
        thread
    }

    /// Overlapping readers do not keep a writer out.
    #[test]
    fn a_reader_that_comes_after_a_waiting_writer_lets_it_go_first() {
        let lock = Lock::new(0);
        thread::scope(|scope| {
            let inside = lock.read();
            let writer = until_it_waits(scope, || *lock.write() = 1);
            let reader = until_it_waits(scope, || *lock.read());
            assert!(!writer.is_finished() && *inside == 0);
            drop(inside);
            assert_eq!(reader.join().unwrap(), 1);
        });
    }

    /// Writers in a row do not keep a reader out, whichever came first.
    #[test]
    fn a_reader_waits_for_one_writer_and_not_for_the_next() {
        for reader_first in [true, false] {
            let lock = Lock::new(0);
            thread::scope(|scope| {
                let mut inside = lock.write();
                let early = reader_first.then(|| until_it_waits(scope, || *lock.read()));
                until_it_waits(scope, || *lock.write() += 10);
                let late = until_it_waits(scope, || *lock.read());
                *inside += 1;
                drop(inside);
                assert_eq!(late.join().unwrap(), 1);
                assert!(early.is_none_or(|early| early.join().unwrap() == 1));
            });
            assert_eq!(*lock.read(), 11);
        }
    }

    #[test]
    fn writers_go_in_the_order_in_which_they_came() {
        let lock = Lock::new(0);
        thread::scope(|scope| {
            let lock = &lock;
            let inside = lock.write();
            for writer in 1..=5 {
                until_it_waits(scope, move || {
                    let mut last = lock.write();
                    let in_order = *last + 1 == writer;
                    *last = writer;
                    assert!(in_order, "writer {writer}");
                });
            }
            drop(inside);
        });
        assert_eq!(*lock.read(), 5);
    }

    /// In either phase: who comes while a writer is inside waits, or is told that the lock is closed.
    #[test]
    fn every_writer_keeps_readers_out() {
        let lock = Lock::new(0);
        for round in 1..=4 {
            assert!(lock.if_open().is_some());
            thread::scope(|scope| {
                let mut inside = lock.write();
                assert!(lock.if_open().is_none());
                let reader = until_it_waits(scope, || *lock.read());
                assert!(!reader.is_finished(), "writer {round} is not waited for");
                *inside = round;
                drop(inside);
                assert_eq!(reader.join().unwrap(), round);
            });
        }
    }

    #[test]
    fn readers_share_and_nothing_is_lost() {
        let lock = Lock::new(0);
        let (one, other) = (lock.read(), lock.read());
        assert_eq!((*one, *other), (0, 0));
        drop((one, other));
        thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..200 {
                            let before = *lock.read();
                            *lock.write() += 1;
                            assert!(before < *lock.read());
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        assert_eq!(*lock.read(), 800);
    }
}
