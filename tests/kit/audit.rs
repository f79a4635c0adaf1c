//! Every table of every address space against every frame word.

use std::collections::{BTreeMap, BTreeSet};

use pagepin::Pfn;
use pagepin::frame::FrameKind;

use super::{Leaf, Plug, Root, leaf};

/// References, those of pins included, and pins, which no entry explains, of each frame that has some.
pub(crate) type Held = BTreeMap<Pfn, (u64, u64)>;
/// The leaves and tables of an address space.
pub(crate) type Seen = (Vec<Leaf>, Vec<Pfn>);

/// INV-1, INV-2, INV-3, INV-6, and that entries and `held` explain every count (INV-10). `spaces` are all there are.
#[track_caller]
pub(crate) fn audit(kernel: &(impl Plug + ?Sized), spaces: &[Root], held: &Held) -> Vec<Seen> {
    let mut mappings: BTreeMap<Pfn, Vec<(usize, Leaf)>> = BTreeMap::new();
    let seen: Vec<Seen> = spaces.iter().map(|root| leaf::leaves(kernel, *root)).collect();
    let zero = kernel.zero_frame().map(|(zero, _)| zero);
    for (mm, (leaves, tables)) in seen.iter().enumerate() {
        for &table in tables {
            let word = kernel.snapshot(table);
            assert_eq!((word.kind, word.refs, word.pins), (FrameKind::Table, 1, 0), "{table:?}");
        }
        for &leaf in leaves {
            if leaf.is_counted() {
                mappings.entry(leaf.counted(kernel)).or_default().push((mm, leaf));
            } else if zero == Some(leaf.frame()) {
                assert!(!leaf.is_writable(), "INV-6: the zero frame is writable: {leaf:x?}");
            }
        }
    }
    for (frame, entries) in &mappings {
        let word = kernel.snapshot(*frame);
        if word.kind == FrameKind::File {
            continue;
        }
        assert_eq!(word.kind, FrameKind::Anonymous, "{frame:?} {word:?}");
        let writable = entries.iter().any(|(_, leaf)| leaf.is_writable());
        assert!(!writable || word.exclusive, "INV-1: writable but not exclusive: {frame:?} {word:?}");
        let shared = entries.iter().any(|(mm, _)| *mm != entries[0].0);
        assert!(!shared || !word.exclusive, "INV-2: exclusive, but mapped by several: {frame:?} {word:?}");
        assert!(word.pins == 0 || word.exclusive, "INV-3: pinned but not exclusive: {frame:?} {word:?}");
    }
    // Of a block that was split, the parts as well.
    let counted = mappings.keys().chain(held.keys()).copied().chain(kernel.allocated()).collect::<BTreeSet<_>>();
    for frame in counted {
        let word = kernel.snapshot(frame);
        if word.kind != FrameKind::Table {
            let mapped = mappings.get(&frame).map_or(0, |entries| entries.len() as u64);
            let (refs, pins) = held.get(&frame).copied().unwrap_or_default();
            let found = (word.refs, word.pins);
            assert_eq!(
                found,
                (mapped + refs, pins),
                "references without a holder: {frame:?}, {mapped} mappings, {word:?}"
            );
        }
    }
    check_zero_frame(kernel);
    seen
}

/// INV-6.
#[track_caller]
pub(super) fn check_zero_frame(kernel: &(impl Plug + ?Sized)) {
    if let Some((zero, untouched)) = kernel.zero_frame() {
        assert!(untouched, "INV-6: the zero frame was written");
        assert!(kernel.snapshot(zero).is_free(), "INV-6: the zero frame was counted");
    }
}
