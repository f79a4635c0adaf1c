//! The VMAs of a [`UserSpace`](super::UserSpace): sorted, disjoint, neighbours that are alike merged.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

use super::SpaceError;
use crate::addr::PageAddr;
use crate::env::Vmas;
use crate::vma::Vma;

/// Most VMAs an address space may have, as Linux's default `vm.max_map_count`: what user space can make the kernel
/// allocate is bounded.
const MAX_VMAS: usize = 65_530;

#[derive(Debug, Default)]
pub(super) struct VmaMap {
    vmas: Vec<Vma>,
}

impl VmaMap {
    pub(super) fn iter(&self) -> core::slice::Iter<'_, Vma> {
        self.vmas.iter()
    }

    /// The same VMAs for a child.
    pub(super) fn try_clone(&self) -> Result<Self, TryReserveError> {
        let mut vmas = Vec::new();
        vmas.try_reserve_exact(self.vmas.len())?;
        vmas.extend_from_slice(&self.vmas);
        Ok(Self { vmas })
    }

    /// Index of the first VMA that ends after `page`.
    fn position(&self, page: PageAddr) -> usize {
        self.vmas.partition_point(|vma| vma.end() <= page)
    }

    pub(super) fn vma(&self, page: PageAddr) -> Option<&Vma> {
        self.vmas.get(self.position(page)).filter(|vma| vma.start() <= page)
    }

    /// The VMAs that `start..end` touches.
    pub(super) fn touching(&self, start: PageAddr, end: PageAddr) -> &[Vma] {
        let from = self.position(start);
        let to = self.vmas.partition_point(|vma| vma.start() < end);
        self.vmas.get(from..to).unwrap_or(&[])
    }

    /// Whether every page of `start..end` lies in a VMA.
    pub(super) fn covers(&self, start: PageAddr, end: PageAddr) -> bool {
        let mut reached = start;
        for vma in self.touching(start, end) {
            if vma.start() > reached {
                return false;
            }
            reached = vma.end();
        }
        reached >= end
    }

    /// How many VMAs a change of `start..end` adds at most: one for each edge that lies inside a VMA.
    pub(super) fn splits(&self, start: PageAddr, end: PageAddr) -> usize {
        let inside = |page| self.vma(page).is_some_and(|vma| vma.start() < page);
        usize::from(inside(start)) + usize::from(inside(end))
    }

    /// Makes room for `vma`, if it may be added.
    pub(super) fn make_room(&mut self, vma: &Vma) -> Result<(), SpaceError> {
        if !self.touching(vma.start(), vma.end()).is_empty() {
            return Err(SpaceError::Overlap);
        }
        self.reserve(1)
    }

    /// Makes sure that adding so many VMAs cannot fail. For none this needs no memory.
    pub(super) fn reserve(&mut self, added: usize) -> Result<(), SpaceError> {
        if self.vmas.len() + added > MAX_VMAS {
            return Err(SpaceError::TooManyVmas);
        }
        Ok(self.vmas.try_reserve(added)?)
    }

    /// Adds a VMA where there is none; room was reserved.
    pub(super) fn insert(&mut self, vma: Vma) {
        let index = self.position(vma.start());
        self.vmas.insert(index, vma);
        self.merge_around(index..index + 1);
    }

    /// Replaces every VMA by what `change` makes of its part in `start..end` (`None`: nothing); room was reserved.
    pub(super) fn change(&mut self, start: PageAddr, end: PageAddr, change: impl Fn(Vma) -> Option<Vma>) {
        self.split_at(start);
        self.split_at(end);
        let (from, to) = (self.position(start), self.vmas.partition_point(|vma| vma.start() < end));
        let mut kept = from;
        for index in from..to {
            if let Some(vma) = change(self.vmas[index]) {
                self.vmas[kept] = vma;
                kept += 1;
            }
        }
        self.vmas.drain(kept..to);
        self.merge_around(from..kept);
    }

    fn split_at(&mut self, page: PageAddr) {
        let index = self.position(page);
        if let Some((vma, parts)) =
            self.vmas.get_mut(index).and_then(|vma| vma.split_at(page).map(|parts| (vma, parts)))
        {
            *vma = parts.0;
            self.vmas.insert(index + 1, parts.1);
        }
    }

    /// Merges the VMAs at `indices` with each other and their neighbours where only the bounds differ.
    fn merge_around(&mut self, indices: core::ops::Range<usize>) {
        let first = indices.start.saturating_sub(1);
        let mut index = (indices.end + 1).min(self.vmas.len());
        while index > first + 1 {
            index -= 1;
            if let Some(joined) = self.vmas[index - 1].try_join(self.vmas[index]) {
                self.vmas[index - 1] = joined;
                self.vmas.remove(index);
            }
        }
    }
}

// SAFETY: the VMAs are disjoint by construction, and `UserSpace` maps pages only inside of them.
unsafe impl Vmas for VmaMap {
    #[inline]
    fn vma_at(&self, page: PageAddr) -> Option<Vma> {
        self.vma(page).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::UserRange;
    use crate::rights::Rights;
    use crate::vma::Backing;

    fn vma(start: u64, end: u64, rights: Rights) -> Vma {
        Vma::new(UserRange::of_pages(page(start), page(end)), Backing::Anonymous, rights).unwrap()
    }

    fn page(number: u64) -> PageAddr {
        PageAddr::containing(number * crate::addr::PAGE_SIZE)
    }

    #[test]
    fn changing_the_middle_splits_and_changing_back_merges() {
        let mut map = VmaMap::default();
        map.insert(vma(10, 20, Rights::READ));
        let with = |rights| move |vma: Vma| vma.with_rights(rights).ok();
        map.change(page(12), page(14), with(Rights::WRITE));
        assert_eq!(map.vmas, [vma(10, 12, Rights::READ), vma(12, 14, Rights::WRITE), vma(14, 20, Rights::READ)]);
        map.change(page(12), page(14), with(Rights::READ));
        assert_eq!(map.vmas, [vma(10, 20, Rights::READ)]);
    }

    #[test]
    fn removal_reaches_over_holes_and_keeps_the_ends() {
        let mut map = VmaMap::default();
        map.insert(vma(10, 14, Rights::READ));
        map.insert(vma(16, 20, Rights::READ));
        assert!(!map.covers(page(12), page(18)) && map.covers(page(16), page(20)));
        map.change(page(12), page(18), |_| None);
        assert_eq!(map.vmas, [vma(10, 12, Rights::READ), vma(18, 20, Rights::READ)]);
        assert!(map.vma(page(12)).is_none() && map.vma(page(18)).is_some());
    }
}
