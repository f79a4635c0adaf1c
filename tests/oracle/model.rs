//! What processes see, without any sharing: every page has bytes of its own, and a pin is another name for them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use pagepin::Rights;

use crate::machine::PAGE;

/// The bytes of one page.
pub(crate) type Bytes = Rc<RefCell<Vec<u8>>>;

#[derive(Clone)]
pub(crate) struct Page {
    pub(crate) rights: Rights,
    pub(crate) bytes: Bytes,
}

fn cleared() -> Bytes {
    Rc::new(RefCell::new(vec![0; PAGE as usize]))
}

/// One process: its pages by number.
#[derive(Default)]
pub(crate) struct Model {
    pages: BTreeMap<u64, Page>,
}

/// The pages of a valid, aligned range below `end`; `None` if it is refused.
pub(crate) fn whole_pages(start: u64, length: u64, end: u64) -> Option<std::ops::Range<u64>> {
    let last = start.checked_add(length.checked_sub(1)?)?;
    (last < end && start.is_multiple_of(PAGE) && length.is_multiple_of(PAGE))
        .then(|| start / PAGE..start / PAGE + length / PAGE)
}

impl Model {
    pub(crate) fn page(&self, address: u64) -> Option<&Page> {
        self.pages.get(&(address / PAGE))
    }

    pub(crate) fn pages(&self) -> impl Iterator<Item = (&u64, &Page)> {
        self.pages.iter()
    }

    /// Whether it was permitted.
    pub(crate) fn map(&mut self, range: std::ops::Range<u64>, rights: Rights) -> bool {
        if self.pages.range(range.clone()).next().is_some() {
            return false;
        }
        self.pages.extend(range.map(|page| (page, Page { rights, bytes: cleared() })));
        true
    }

    pub(crate) fn unmap(&mut self, range: std::ops::Range<u64>) {
        self.pages.retain(|page, _| !range.contains(page));
    }

    pub(crate) fn discard(&mut self, range: std::ops::Range<u64>) {
        self.pages.range_mut(range).for_each(|(_, page)| page.bytes = cleared());
    }

    /// Whether it was permitted.
    pub(crate) fn protect(&mut self, range: std::ops::Range<u64>, rights: Rights) -> bool {
        if self.pages.range(range.clone()).count() as u64 != range.end - range.start {
            return false;
        }
        self.pages.range_mut(range).for_each(|(_, page)| page.rights = rights);
        true
    }

    /// A child: the same bytes at this moment, and none in common from now on.
    pub(crate) fn fork(&self) -> Self {
        let copy = |page: &Page| {
            let bytes = Rc::new(RefCell::new(page.bytes.borrow().clone()));
            Page { bytes, ..*page }
        };
        Self { pages: self.pages.iter().map(|(number, page)| (*number, copy(page))).collect() }
    }

    /// The pages from `start` on that `permitted` allows, up to the first that it does not.
    pub(crate) fn prefix(&self, start: u64, length: u64, permitted: impl Fn(&Page) -> bool) -> Vec<Bytes> {
        let pages = start / PAGE..=(start + (length - 1)) / PAGE;
        let found = pages.map_while(|page| self.pages.get(&page).filter(|page| permitted(page)));
        found.map(|page| page.bytes.clone()).collect()
    }
}
