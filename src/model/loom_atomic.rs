//! Loom's atomics, with loads that loom may put in any order with those of other threads.
//!
//! Loom decides where to try another order by looking at the last access to an atomic before a store. Where thread A
//! loads, thread B loads, and B stores, the last access is B's own, and the order in which B stores before A loads is
//! not tried; every compare-and-exchange that begins with a look, and every unmap, is of that form. So each load first
//! stores to an atomic of its own, which nobody ever loads: it orders nothing, but loom tries its orders, and so the
//! load's.

use loom::sync::atomic::{self, Ordering};

macro_rules! atomic {
    ($name:ident, $value:ty) => {
        /// As the atomic of the same name in `core`.
        #[derive(Debug)]
        pub struct $name {
            value: atomic::$name,
            loads: atomic::AtomicBool,
        }

        impl $name {
            /// As in `core`, but for `const`.
            #[must_use]
            pub fn new(value: $value) -> Self {
                Self { value: atomic::$name::new(value), loads: atomic::AtomicBool::new(false) }
            }

            /// As in `core`.
            #[track_caller]
            pub fn load(&self, order: Ordering) -> $value {
                self.loads.store(false, Ordering::Relaxed);
                self.value.load(order)
            }

            /// A load of what no other thread stores to while this one may load. Its place among other loads is of no
            /// interest.
            #[track_caller]
            pub fn load_settled(&self, order: Ordering) -> $value {
                self.value.load(order)
            }

            /// As in `core`.
            #[track_caller]
            pub fn store(&self, value: $value, order: Ordering) {
                self.value.store(value, order);
            }

            /// As in `core`.
            #[track_caller]
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                self.value.swap(value, order)
            }

            /// As in `core`.
            #[track_caller]
            pub fn fetch_or(&self, bits: $value, order: Ordering) -> $value {
                self.value.fetch_or(bits, order)
            }

            /// As in `core`.
            #[track_caller]
            pub fn fetch_and(&self, bits: $value, order: Ordering) -> $value {
                self.value.fetch_and(bits, order)
            }

            /// As in `core`.
            #[track_caller]
            pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                self.value.fetch_add(value, order)
            }

            /// As in `core`.
            #[track_caller]
            pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                self.value.fetch_sub(value, order)
            }

            /// As in `core`.
            ///
            /// # Errors
            /// The value found.
            #[track_caller]
            pub fn compare_exchange(
                &self,
                from: $value,
                to: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.value.compare_exchange(from, to, success, failure)
            }

            /// As in `core`, but never fails without a reason.
            ///
            /// # Errors
            /// The value found.
            #[track_caller]
            pub fn compare_exchange_weak(
                &self,
                from: $value,
                to: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(from, to, success, failure)
            }

            /// As in `core`.
            ///
            /// # Errors
            /// The value for which `next` had none.
            #[track_caller]
            pub fn fetch_update(
                &self,
                success: Ordering,
                failure: Ordering,
                mut next: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                let mut now = self.load(failure);
                while let Some(to) = next(now) {
                    match self.compare_exchange(now, to, success, failure) {
                        Ok(was) => return Ok(was),
                        Err(other) => now = other,
                    }
                }
                Err(now)
            }
        }
    };
}

atomic!(AtomicU64, u64);
