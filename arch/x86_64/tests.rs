//! Every bit of an entry against the manuals, by number: bit 0 P, 1 R/W, 2 U/S, 3 PWT, 4 PCD, 5 A, 6 D, 7 PS or PAT, 59 to 62 the
//! protection key, 63 XD (Intel SDM volume 3, table 4-20).

extern crate std;

use std::vec::Vec;

use super::entry::Demand;
use super::software_bits::{BORROWED, FORK_EXCLUSIVE, FORK_WRITABLE, PROT_NONE, SPECIAL, parse};
use super::{Entry, EntryChange, KeyRights, LeafSize, MemoryType, NewRights, Token};
use crate::addr::Pfn;
use crate::frame::Shared;
use crate::rights::Rights;

const NX: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Bits of an entry that mean something, other than its address.
const BITS: [u64; 14] = [
    1 << 0,
    1 << 1,
    1 << 2,
    1 << 5,
    1 << 6,
    1 << 7,
    SPECIAL,
    PROT_NONE,
    FORK_EXCLUSIVE,
    FORK_WRITABLE,
    BORROWED,
    1 << 59,
    1 << 62,
    NX,
];
const P: u64 = 1 << 0;
const W: u64 = 1 << 1;
const U: u64 = 1 << 2;
const A: u64 = 1 << 5;
const D: u64 = 1 << 6;
const PS: u64 = 1 << 7;

/// Entries with every choice of these bits, with an address and without.
fn entries() -> impl Iterator<Item = Entry> {
    let of = |choice: u32| (0..BITS.len()).filter(|bit| choice >> bit & 1 != 0).map(|bit| BITS[bit]).sum::<u64>();
    (0..1 << BITS.len()).flat_map(move |choice| [0, 0x42_3000].map(|address| Entry::from_bits(of(choice) | address)))
}

fn has(entry: Entry, bits: u64) -> bool {
    entry.bits() & bits == bits
}

#[test]
fn software_bits_are_five_numbers() {
    assert_eq!(parse(b"11,58,54,9,55"), [11, 58, 54, 9, 55]);
    for list in [&b"9,10,52,53"[..], b"9,10,52,53,11,54", b"9;10;52;53;11", b"9,10,x,53,11", b""] {
        assert!(std::panic::catch_unwind(|| parse(list)).is_err(), "{list:?}");
    }
}

#[test]
fn what_an_entry_is_hangs_on_these_bits() {
    for entry in entries() {
        let any = |bits: u64| entry.bits() & bits != 0;
        assert_eq!(entry.is_present(), any(P));
        assert_eq!(entry.is_writable(), any(W));
        assert_eq!(entry.is_user(), any(U));
        assert_eq!(entry.is_dirty(), any(D));
        assert_eq!(entry.is_executable(), !any(NX));
        assert_eq!(entry.is_special(), any(SPECIAL));
        assert_eq!(entry.is_empty(), entry.bits() == 0);
        assert_eq!(entry.has_frame(), any(P) || any(PROT_NONE));
        assert_eq!(entry.is_prot_none(), any(PROT_NONE) && !any(P));
        assert_eq!(entry.was_borrowed(), any(SPECIAL) && any(BORROWED));
        assert_eq!(entry.is_borrowed(), entry.was_borrowed() && entry.has_frame());
        assert_eq!(entry.is_counted(), entry.has_frame() && (!any(SPECIAL) || any(BORROWED)));
        assert_eq!(entry.is_token(), any(SPECIAL) && !any(P | U | PROT_NONE));
        assert_eq!(entry.permits_fetches(), has(entry, P | U) && !any(NX));
        assert_eq!(entry.key(), u8::from(any(1 << 59)) | u8::from(any(1 << 62)) << 3);
        assert_eq!(entry.table_address(), entry.bits() & ADDRESS);
        assert_eq!(entry.table_frame(), Pfn::new(if any(0x1000) { 0x423 } else { 0 }));
        assert!(!entry.is_owned());
        for level in [LeafSize::Size4KiB, LeafSize::Size2MiB].map(LeafSize::level) {
            assert_eq!(entry.is_leaf_at(level), level == LeafSize::Size4KiB.level() || any(PS));
        }
        assert_eq!(entry.fork_note(), (Shared { was_exclusive: any(FORK_EXCLUSIVE) }, any(FORK_WRITABLE)));
    }
    assert!(Entry::OWNED.is_owned() && Entry::OWNED.bits() == ADDRESS && !Entry::OWNED.is_present());
}

#[test]
fn each_change_touches_these_bits_and_no_others() {
    for entry in entries() {
        let (bits, is) = (entry.bits(), |changed: Entry, bits: u64| assert_eq!(changed, Entry::from_bits(bits)));
        is(entry.special(), bits | SPECIAL);
        is(entry.borrowed(), bits | SPECIAL | BORROWED);
        is(entry.made_writable(), bits | W | A | D);
        is(entry.accessed(), bits | A);
        is(entry.dirtied(), bits | D);
        is(entry.not_for_users(), bits & !U);
        is(entry.prot_none(), bits & !P | PROT_NONE);
        is(entry.rights_restored(), bits & !(PROT_NONE | W) | P | U);
        is(entry.of_next_frame(), bits + 0x1000);
        let never_present = bits == 0 || entry.is_prot_none() || entry.is_token();
        is(entry.unbroken(), if never_present { bits } else { bits | P });
        is(entry.mixed_with(Entry::from_bits(D | W | NX)), bits | D | W | NX);
        is(EntryChange::Set(W | D).of(entry), bits | W | D);
        is(EntryChange::Clear(W | D).of(entry), bits & !(W | D));
        is(Entry::BREAK.of(entry), bits & !P);
        is(Entry::WRITE_PROTECT.of(entry), bits & !W);
        is(Entry::PERMIT_WRITES.of(entry), bits | W);
        for was_exclusive in [false, true] {
            let kept = bits & !(W | A | D | BORROWED | FORK_EXCLUSIVE | FORK_WRITABLE);
            let exclusive = if was_exclusive { FORK_EXCLUSIVE } else { 0 };
            let writable = if bits & W != 0 { FORK_WRITABLE } else { 0 };
            is(entry.for_child(Shared { was_exclusive }), kept | exclusive | writable);
        }
        let kept = bits & !(ADDRESS | FORK_EXCLUSIVE | FORK_WRITABLE | BORROWED | 0b1_1000 | PS);
        is(entry.with_frame(Pfn::new(0x77), LeafSize::Size4KiB), kept | 0x77000);
        for (other, same) in [(bits ^ A ^ D, true), (bits ^ A, true), (bits ^ W, false), (bits ^ 0x1000, false)] {
            assert_eq!(entry.same_mapping(Entry::from_bits(other)), same);
        }
    }
}

#[test]
#[cfg(feature = "alloc")]
fn what_is_given_up_is_clean_and_marked() {
    for entry in entries() {
        let (bits, is) = (entry.bits(), |changed: Entry, bits: u64| assert_eq!(changed, Entry::from_bits(bits)));
        is(entry.lazily_freed(), bits & !D | BORROWED);
        is(entry.kept(), bits & !BORROWED);
        is(entry.cleaned(), bits & !D);
        is(entry.write_protected(), bits & !W);
        let marked = bits & BORROWED != 0 && bits & SPECIAL == 0;
        assert_eq!(entry.is_lazily_freed(), marked && entry.has_frame());
    }
}

#[test]
fn new_entries_have_these_bits() {
    let frame = Pfn::new(0x4_0000);
    assert_eq!(Entry::table(frame).bits(), 0x4000_0000 | P | W | U);
    assert_eq!(Entry::kernel_table(frame).bits(), 0x4000_0000 | P | W);
    for (rights, granted) in [
        (Rights::READ, NX),
        (Rights::READ | Rights::WRITE, NX | W | D),
        (Rights::READ | Rights::EXECUTE, 0),
        (Rights::all(), W | D),
    ] {
        for (size, large) in [(LeafSize::Size4KiB, 0), (LeafSize::Size2MiB, PS), (LeafSize::Size1GiB, PS)] {
            for (key, stored) in [(0, 0), (5, 5 << 59), (15, 15 << 59), (0x15, 5 << 59)] {
                let leaf = Entry::leaf(frame, size, rights, key);
                assert_eq!(leaf.bits(), 0x4000_0000 | P | U | A | granted | large | stored, "{leaf:?}");
                assert_eq!((leaf.key(), leaf.leaf_frame(size)), (key & 15, frame));
            }
        }
    }
    // What a large leaf has below its address is no part of it.
    for (size, bytes) in
        [(LeafSize::Size4KiB, 1u64 << 12), (LeafSize::Size2MiB, 1 << 21), (LeafSize::Size1GiB, 1 << 30)]
    {
        let leaf = Entry::from_bits(ADDRESS | 0xfff | NX);
        assert_eq!(leaf.leaf_frame(size).address(), ADDRESS & !(bytes - 1));
    }
}

#[test]
fn a_token_comes_back_from_an_entry_without_memory_behind_it() {
    for number in [0, 1, 3, 0x1234, (1 << 39) - 2] {
        let Some(token) = Token::new(number) else { continue };
        let entry = Entry::token(token);
        assert_eq!(entry.bits(), !(number << 12) & ADDRESS | SPECIAL);
        assert_eq!(entry.as_token(), Some(token));
        assert_eq!(Entry::from_bits(entry.bits() | P).as_token(), None);
    }
}

#[test]
fn memory_types_are_three_bits_whose_last_has_two_places() {
    for (size, pat) in [(LeafSize::Size4KiB, 1u64 << 7), (LeafSize::Size2MiB, 1 << 12), (LeafSize::Size1GiB, 1 << 12)] {
        for index in 0..8u8 {
            let memory = MemoryType::from_pat_index(index).unwrap();
            let bit = |number: u8, bit: u64| if index >> number & 1 != 0 { bit } else { 0 };
            let bits = bit(0, 1 << 3) | bit(1, 1 << 4) | bit(2, pat);
            let none = Entry::from_bits(0x4000_0000 | P | U);
            let all = Entry::from_bits(none.bits() | 1 << 3 | 1 << 4 | pat);
            for before in [none, all] {
                let leaf = before.with_memory_type(size, memory);
                assert_eq!((leaf.bits(), leaf.memory_type(size)), (none.bits() | bits, memory));
            }
        }
    }
}

#[test]
fn new_rights_keep_what_is_no_right() {
    for key in [0u8, 5, 0x15] {
        for rights in (0..8).map(Rights::from_bits_truncate) {
            let new = NewRights::new(rights, key);
            assert_eq!(new.permit_fetches(), rights.contains(Rights::EXECUTE));
            for (old, write) in entries().step_by(3).flat_map(|entry| [(entry, false), (entry, true)]) {
                if !old.has_frame() {
                    continue;
                }
                let execute = if rights.contains(Rights::EXECUTE) { 0 } else { NX };
                let expected = if rights.is_empty() {
                    old.bits() & !(P | W) | PROT_NONE | if write { W } else { 0 }
                } else {
                    let kept = old.bits() & !(W | NX | 15 << 59 | if old.is_present() { 0 } else { PROT_NONE });
                    let restored = if old.is_present() { 0 } else { P | U };
                    kept | restored | execute | u64::from(key & 15) << 59 | if write { W } else { 0 }
                };
                assert_eq!(new.apply(old, write), Entry::from_bits(expected), "{rights:?} {key} {old:?}");
            }
        }
    }
}

#[test]
fn a_walk_passes_what_grants_it_all() {
    let keys = |denied: u32| KeyRights::from_pkru(denied);
    // Key 9 denies writes, key 1 all accesses (SDM volume 3, section 4.6.2).
    let (open, closed) = (keys(0), keys(1 << 19 | 1 << 2));
    fn check<const WRITE: bool>(open: KeyRights, closed: KeyRights) {
        let (free, careful) = (Demand::<WRITE>::new(open), Demand::<WRITE>::new(closed));
        assert!(!free.depends_on_keys() && careful.depends_on_keys());
        let wanted = if WRITE { P | U | W } else { P | U };
        for entry in entries() {
            let denied = match entry.key() {
                1 => true,
                9 => WRITE,
                _ => false,
            };
            assert_eq!(Demand::<WRITE>::passes(entry), has(entry, wanted));
            assert_eq!(Demand::<WRITE>::passes_to_table(entry), has(entry, wanted) && entry.bits() & PS == 0);
            let granted = has(entry, wanted) && entry.bits() & SPECIAL == 0;
            assert_eq!(free.permits::<false>(entry), granted);
            assert_eq!(free.permits::<true>(entry), granted);
            assert_eq!(careful.permits::<false>(entry), granted);
            assert_eq!(careful.permits::<true>(entry), granted && !denied);
            assert_eq!((free.key_denies(entry), careful.key_denies(entry)), (false, denied));
        }
    }
    check::<false>(open, closed);
    check::<true>(open, closed);
}

#[test]
fn an_entry_shows_its_address_and_each_bit() {
    let names = [(P, " P"), (W, " W"), (U, " U"), (A, " A"), (D, " D"), (PS, " large/PAT"), (NX, " NX")];
    for (bit, name) in names {
        // Prot-none, so that it is no token and not empty whatever else it has.
        let shown = std::format!("{:?}", Entry::from_bits(bit | PROT_NONE | 0x5000));
        let others: Vec<_> = names.iter().filter(|(_, other)| shown.contains(&std::format!("{other} "))).collect();
        assert!(shown.starts_with("Entry(0x5000 ") && others == [&(bit, name)], "{shown}");
    }
    assert_eq!(std::format!("{:?}", Entry::OWNED), "Entry(owned)");
}
