//! Break -> flush -> publish, and the tables under the mm lock in which that happens.

must_not_compile! {
    /// INV-8: a new entry comes after the flush.
    PublishBeforeFlush [E0599] (mut tables: Tables<'_, K>, slot: Slot, new: Entry) {
        let broken = unsafe { tables.break_leaf(slot) }.unwrap();
    }
    compiles { let old = unsafe { broken.flush().publish(new) }; }
    does_not { let old = unsafe { broken.publish(new) }; }

    /// INV-12: the old frame goes after the flush.
    ReleaseBeforeFlush [E0599] (env: &K, mut tables: Tables<'_, K>, slot: Slot) {
        let broken = unsafe { tables.break_leaf(slot) }.unwrap();
    }
    compiles { broken.flush().leave_empty().release(env); }
    does_not { broken.release(env); }

    /// The old frame goes once something is decided for the place that named it.
    ReleaseBeforePublish [E0599] (env: &K, mut tables: Tables<'_, K>, slot: Slot) {
        let settled = unsafe { tables.break_leaf(slot) }.unwrap().flush();
    }
    compiles { settled.leave_empty().release(env); }
    does_not { settled.release(env); }

    /// A broken leaf is flushed, or put back.
    BrokenForgotten [deny unused_must_use] (mut tables: Tables<'_, K>, slot: Slot) {}
    compiles { let settled = unsafe { tables.break_leaf(slot) }.unwrap().flush(); }
    does_not { unsafe { tables.break_leaf(slot) }.unwrap(); }

    /// A settled place gets an entry, or is left empty on purpose.
    SettledForgotten [deny unused_must_use] (mut tables: Tables<'_, K>, slot: Slot) {}
    compiles { let old = unsafe { tables.break_leaf(slot) }.unwrap().flush().leave_empty(); }
    does_not { unsafe { tables.break_leaf(slot) }.unwrap().flush(); }

    /// An old frame is released.
    OldLeafForgotten [deny unused_must_use] (env: &K, mut tables: Tables<'_, K>, slot: Slot) {}
    compiles { unsafe { tables.break_leaf(slot) }.unwrap().flush().leave_empty().release(env); }
    does_not { unsafe { tables.break_leaf(slot) }.unwrap().flush().leave_empty(); }

    /// One entry for one place.
    PublishTwice [E0382] (mut tables: Tables<'_, K>, slot: Slot, new: Entry) {
        let settled = unsafe { tables.break_leaf(slot) }.unwrap().flush();
        let old = settled.leave_empty();
    }
    compiles { let again = unsafe { tables.break_leaf(slot) }.unwrap().flush().leave_empty(); }
    does_not { let again = settled.leave_empty(); }

    /// The entry held one reference.
    ReleaseOldLeafTwice [E0382] (env: &K, old: OldLeaf) {
        let frame = old.frame();
        old.release(env);
    }
    compiles { let _ = frame; }
    does_not { old.release(env); }

    /// Between break and flush nothing else is done with the tables: an entry that looks empty is not one yet.
    FaultWhileBroken [E0502] (mut tables: Tables<'_, K>, slot: Slot, page: PageAddr) {
        let broken = unsafe { tables.break_leaf(slot) }.unwrap();
    }
    compiles { let old = broken.flush().leave_empty(); let other = tables.find(page); }
    does_not { let other = tables.find(page); let old = broken.flush().leave_empty(); }

    /// Nor is a second leaf owned: two owners of two could wait for each other.
    TwoBroken [E0499] (mut tables: Tables<'_, K>, slots: [Slot; 2]) {
        let first = unsafe { tables.break_leaf(slots[0]) }.unwrap();
    }
    compiles { first.flush().leave_empty(); let second = unsafe { tables.break_leaf(slots[1]) }.unwrap().flush(); }
    does_not { let second = unsafe { tables.break_leaf(slots[1]) }.unwrap().flush(); first.flush().leave_empty(); }
}

must_not_compile! {
    /// That the mm lock is held, the caller says.
    TablesWithoutLock [E0133] (env: &K, mm: &Mm<K>) {}
    compiles { let tables = unsafe { Tables::under_mm_lock(mm) }; }
    does_not { let tables = Tables::under_mm_lock(mm); }

    /// What is broken is flushed under the lock.
    BrokenWithoutLock [E0505] (mut tables: Tables<'_, K>, slot: Slot) {
        let broken = unsafe { tables.break_leaf(slot) }.unwrap();
    }
    compiles { let old = broken.flush().leave_empty(); drop(tables); }
    does_not { drop(tables); let old = broken.flush().leave_empty(); }

    /// What is settled is published under the lock.
    SettledWithoutLock [E0505] (mut tables: Tables<'_, K>, slot: Slot) {
        let settled = unsafe { tables.break_leaf(slot) }.unwrap().flush();
    }
    compiles { let old = settled.leave_empty(); drop(tables); }
    does_not { drop(tables); let old = settled.leave_empty(); }

    /// A broken leaf does not leave the block in which the tables are looked at.
    BrokenEscapes [E0597] (env: &K, mm: &Mm<K>, slot: Slot) {}
    compiles { let old = { let mut tables = unsafe { Tables::under_mm_lock(mm) }; unsafe { tables.break_leaf(slot) }.unwrap().flush().leave_empty() }; }
    does_not { let old = { let mut tables = unsafe { Tables::under_mm_lock(mm) }; unsafe { tables.break_leaf(slot) }.unwrap() }.flush().leave_empty(); }

    /// Tables do not outlive their mm.
    TablesOutliveMm [E0505] (env: &K, mm: Mm<K>) {
        let tables = unsafe { Tables::under_mm_lock(&mm) };
    }
    compiles { drop(tables); drop(mm); }
    does_not { drop(mm); drop(tables); }

    /// Sections of the mm lock belong to a thread.
    TablesSent [E0277] (tables: Tables<'_, K>, old: OldLeaf) {}
    compiles { to_another_thread(old); }
    does_not { to_another_thread(tables); }

    /// And with it whatever is broken.
    BrokenSent [E0277] (mut tables: Tables<'_, K>, slot: Slot) {
        let broken = unsafe { tables.break_leaf(slot) }.unwrap();
    }
    compiles { to_another_thread(broken.flush().leave_empty()); }
    does_not { to_another_thread(broken); }

    /// And what is settled.
    SettledSent [E0277] (mut tables: Tables<'_, K>, slot: Slot) {
        let settled = unsafe { tables.break_leaf(slot) }.unwrap().flush();
    }
    compiles { to_another_thread(settled.leave_empty()); }
    does_not { to_another_thread(settled); }

    /// Tables that are borrowed are not changed: the borrower looks at them.
    FillBehindABorrow [E0596] (tables: &Tables<'_, K>, at: EntryAddr, size: LeafSize, entry: Entry, page: PageAddr) {}
    compiles { let slot = tables.find(page); }
    does_not { let filled = unsafe { tables.fill(at, size, entry) }; }
}
