//! Frames for a kernel that is short of memory.
//!
//! A clock: a hand goes round the pages. One that was looked up since it passed last gets another chance; one that was not, is clean, and that
//! nobody has pinned, is taken from the address spaces that show it, and goes, unless somebody wants it at that moment. Hot pages that are shown
//! come back by a fault, which looks them up.

use pagepin::Env;
use pagepin::space::Copies;

use super::inner::{STEP, object_of, page_of};
use super::{Cache, Shown};
use crate::device::FileDevice;

impl<D: FileDevice> Cache<D> {
    /// Gives up to `most` pages of files back that are clean, shown or not; how many. What is dirty has to be
    /// [written back](Self::write_back) first, and what is pinned stays. The hand goes round twice at most, and holds the lock for
    /// some places at a time.
    pub fn reclaim<K: Env>(&self, kernel: &K, shown: &impl Shown, most: u32) -> u32 {
        let places = self.with(kernel, |inner| inner.index.places());
        let (mut freed, mut looked) = (0, 0);
        while freed < most && looked < 2 * places {
            let mut found = [None; STEP];
            self.with(kernel, |inner| inner.unused(kernel, &mut found));
            looked += STEP.min(places);
            for (key, is_shown) in found.into_iter().flatten() {
                if freed == most {
                    break;
                }
                if is_shown {
                    let page = page_of(key);
                    shown.forget(object_of(key), page..page + 1, Copies::Keep);
                }
                if let Some(page) = self.with(kernel, |inner| inner.take_idle(kernel, key)) {
                    page.put(kernel);
                    freed += 1;
                }
            }
        }
        freed
    }
}
