//! The areas of a [`UserSpace`](super::UserSpace): sorted, disjoint, neighbours that are alike merged.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

use super::SpaceError;
use crate::addr::PageAddr;
use crate::area::Area;
use crate::mm::Areas;

/// Most areas an address space may have, as Linux's default `vm.max_map_count`: what user space can make the kernel
/// allocate is bounded.
const MAX_AREAS: usize = 65_530;

#[derive(Debug, Default)]
pub(super) struct AreaMap {
    areas: Vec<Area>,
}

impl AreaMap {
    pub(super) fn iter(&self) -> core::slice::Iter<'_, Area> {
        self.areas.iter()
    }

    /// The same areas for a child.
    pub(super) fn try_clone(&self) -> Result<Self, TryReserveError> {
        let mut areas = Vec::new();
        areas.try_reserve_exact(self.areas.len())?;
        areas.extend_from_slice(&self.areas);
        Ok(Self { areas })
    }

    /// Index of the first area that ends after `page`.
    fn position(&self, page: PageAddr) -> usize {
        self.areas.partition_point(|area| area.end <= page)
    }

    pub(super) fn area(&self, page: PageAddr) -> Option<&Area> {
        self.areas.get(self.position(page)).filter(|area| area.start <= page)
    }

    /// The areas that `start..end` touches.
    pub(super) fn touching(&self, start: PageAddr, end: PageAddr) -> &[Area] {
        let from = self.position(start);
        let to = self.areas.partition_point(|area| area.start < end);
        self.areas.get(from..to).unwrap_or(&[])
    }

    /// Whether every page of `start..end` lies in an area.
    pub(super) fn covers(&self, start: PageAddr, end: PageAddr) -> bool {
        let mut reached = start;
        for area in self.touching(start, end) {
            if area.start > reached {
                return false;
            }
            reached = area.end;
        }
        reached >= end
    }

    /// How many areas a change of `start..end` adds at most: one for each edge that lies inside an area.
    pub(super) fn splits(&self, start: PageAddr, end: PageAddr) -> usize {
        let inside = |page| self.area(page).is_some_and(|area| area.start < page);
        usize::from(inside(start)) + usize::from(inside(end))
    }

    /// Makes room for `area`, if it may be added.
    pub(super) fn make_room(&mut self, area: &Area) -> Result<(), SpaceError> {
        if !area.may.contains(area.rights) {
            return Err(SpaceError::AccessDenied);
        }
        if !self.touching(area.start, area.end).is_empty() {
            return Err(SpaceError::Overlap);
        }
        self.reserve(1)
    }

    /// Makes sure that adding so many areas cannot fail. For none this needs no memory.
    pub(super) fn reserve(&mut self, added: usize) -> Result<(), SpaceError> {
        if self.areas.len() + added > MAX_AREAS {
            return Err(SpaceError::TooManyAreas);
        }
        Ok(self.areas.try_reserve(added)?)
    }

    /// Adds an area where there is none; room was reserved.
    pub(super) fn insert(&mut self, area: Area) {
        let index = self.position(area.start);
        self.areas.insert(index, area);
        self.merge_around(index..index + 1);
    }

    /// Replaces every area by what `change` makes of its part in `start..end` (`None`: nothing); room was reserved.
    pub(super) fn change(&mut self, start: PageAddr, end: PageAddr, change: impl Fn(Area) -> Option<Area>) {
        self.split_at(start);
        self.split_at(end);
        let (from, to) = (self.position(start), self.areas.partition_point(|area| area.start < end));
        let mut kept = from;
        for index in from..to {
            if let Some(area) = change(self.areas[index]) {
                self.areas[kept] = area;
                kept += 1;
            }
        }
        self.areas.drain(kept..to);
        self.merge_around(from..kept);
    }

    fn split_at(&mut self, page: PageAddr) {
        let index = self.position(page);
        if let Some(area) = self.areas.get_mut(index).filter(|area| area.start < page) {
            let upper = Area { start: page, ..*area };
            area.end = page;
            self.areas.insert(index + 1, upper);
        }
    }

    /// Merges the areas at `indices` with each other and their neighbours where only the bounds differ.
    fn merge_around(&mut self, indices: core::ops::Range<usize>) {
        let first = indices.start.saturating_sub(1);
        let mut index = (indices.end + 1).min(self.areas.len());
        while index > first + 1 {
            index -= 1;
            let (lower, upper) = (self.areas[index - 1], self.areas[index]);
            if lower.end == upper.start && (Area { start: lower.start, ..upper } == Area { end: upper.end, ..lower }) {
                self.areas[index - 1].end = upper.end;
                self.areas.remove(index);
            }
        }
    }
}

// SAFETY: the areas are disjoint by construction, and `UserSpace` maps pages only inside of them.
unsafe impl Areas for AreaMap {
    #[inline]
    fn area_at(&self, page: PageAddr) -> Option<Area> {
        self.area(page).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::area::{Backing, Rights};

    fn area(start: u64, end: u64, rights: Rights) -> Area {
        let page = |number: u64| PageAddr::containing(number * crate::addr::PAGE_SIZE);
        let (start, end) = (page(start), page(end));
        Area { start, end, rights, may: Rights::all(), backing: Backing::Anonymous, key: 0 }
    }

    fn page(number: u64) -> PageAddr {
        PageAddr::containing(number * crate::addr::PAGE_SIZE)
    }

    #[test]
    fn changing_the_middle_splits_and_changing_back_merges() {
        let mut map = AreaMap::default();
        map.insert(area(10, 20, Rights::READ));
        let with = |rights| move |area| Some(Area { rights, ..area });
        map.change(page(12), page(14), with(Rights::WRITE));
        assert_eq!(map.areas, [area(10, 12, Rights::READ), area(12, 14, Rights::WRITE), area(14, 20, Rights::READ)]);
        map.change(page(12), page(14), with(Rights::READ));
        assert_eq!(map.areas, [area(10, 20, Rights::READ)]);
    }

    #[test]
    fn removal_reaches_over_holes_and_keeps_the_ends() {
        let mut map = AreaMap::default();
        map.insert(area(10, 14, Rights::READ));
        map.insert(area(16, 20, Rights::READ));
        assert!(!map.covers(page(12), page(18)) && map.covers(page(16), page(20)));
        map.change(page(12), page(18), |_| None);
        assert_eq!(map.areas, [area(10, 12, Rights::READ), area(18, 20, Rights::READ)]);
        assert!(map.area(page(12)).is_none() && map.area(page(18)).is_some());
    }
}
