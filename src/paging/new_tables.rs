//! [`NewTables`]: the tables that a page still needs, linked by one exchange or given back.

use crate::addr::PageAddr;
use crate::arch::{Entry, LeafSize, Level};
use crate::env::{EntryAddr, Env, OwnedFrame, PhysMap};
use crate::frame::FrameKind;

use super::TableError;

/// The most tables below a root.
const MOST: usize = 4;

/// A table, and those below it that a leaf of some size needs, linked with each other and with nothing else. Dropped, all of
/// them go back to the source.
pub(super) struct NewTables<'k, K: Env> {
    env: &'k K,
    /// From the highest down.
    tables: [Option<OwnedFrame<'k, K>>; MOST],
    /// Where the leaf goes.
    place: EntryAddr,
}

impl<'k, K: Env> NewTables<'k, K> {
    /// A table of `level`, and those below it that a leaf of `size` for `page` needs.
    ///
    /// # Errors
    /// [`TableError::NoMemory`], with nothing taken.
    pub(super) fn for_leaf(env: &'k K, level: Level, page: PageAddr, size: LeafSize) -> Result<Self, TableError> {
        let table = || OwnedFrame::staying(env, FrameKind::Table).ok_or(TableError::NoMemory);
        let top = table()?;
        let mut place = EntryAddr::new(top.frame(), level.index(page.address()));
        let mut new = Self { env, tables: [Some(top), None, None, None], place };
        let mut here = level;
        for below in &mut new.tables[1..] {
            if here == size.level() {
                break;
            }
            let table = table()?;
            // SAFETY: the table above is cleared, and nobody else knows it.
            unsafe { env.phys_map().store_entry(place, Entry::table(table.frame())) };
            here = here.below();
            place = EntryAddr::new(table.frame(), here.index(page.address()));
            *below = Some(table);
        }
        new.place = place;
        Ok(new)
    }

    /// Links them below the entry at `above`, which was `seen`, empty: where the leaf goes. `None`: another CPU was faster.
    pub(super) fn link(self, above: EntryAddr, seen: Entry) -> Option<EntryAddr> {
        let table = Entry::table(self.tables[0].as_ref()?.frame());
        // SAFETY: the caller found the place under the mm lock, which is held; the new tables are ours, and cleared but for
        // the way to the place.
        let linked = unsafe { self.env.phys_map().exchange_entry(above, seen, table) }.is_ok();
        if !linked {
            return None;
        }
        for table in self.tables.into_iter().flatten() {
            table.into_entry();
        }
        Some(self.place)
    }
}
