//! What the library with its mutants asks: which of them is switched on. This file is part of that library, not of the
//! program that makes it.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

// Under another name, since the library has none: what names it does not build.
use crate::std_of_mutants as std;
use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;

/// None is switched on; places that are reached are written down.
const RECORD: u32 = u32::MAX;
const MOST: usize = 1 << 14;

static ACTIVE: AtomicU32 = AtomicU32::new(0);
static SEEN: [AtomicBool; MOST] = [const { AtomicBool::new(false) }; MOST];
static REACHED: OnceLock<File> = OnceLock::new();

/// Before any test, since some of them forbid to allocate.
#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;

extern "C" fn begin() {
    if let Some(file) = std::env::var_os("PAGEPIN_REACHED") {
        let file = File::create(file).expect("the list of what is reached");
        REACHED.set(file).expect("only here");
        ACTIVE.store(RECORD, Ordering::Relaxed);
    } else if let Ok(number) = std::env::var("PAGEPIN_MUTANT") {
        ACTIVE.store(number.parse().expect("the number of a mutant"), Ordering::Relaxed);
    }
}

/// The mutant that is switched on, if it is one of this place; else 0. What is computed at compile time has none.
#[inline]
pub(crate) const fn which(first: u32, last: u32) -> u32 {
    const fn none(_: u32, _: u32) -> u32 {
        0
    }
    core::intrinsics::const_eval_select((first, last), none, active)
}

#[inline]
fn active(first: u32, last: u32) -> u32 {
    match ACTIVE.load(Ordering::Relaxed) {
        0 => 0,
        RECORD => {
            record(first);
            0
        }
        number if first <= number && number <= last => number,
        _ => 0,
    }
}

#[cold]
fn record(first: u32) {
    if !SEEN[first as usize].swap(true, Ordering::Relaxed) {
        let mut file = REACHED.get().expect("opened in the beginning");
        file.write_all(&first.to_le_bytes()).expect("writing what is reached");
    }
}
