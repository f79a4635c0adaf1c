//! The rows: what is measured, what each column of it contains, and the goals.

use std::sync::Arc;

use crate::compare::{Column, Compared, in_turns, in_turns_then};
use crate::limit::Limit;
use crate::linux::memory::Region;
use crate::linux::{self, Buffer, Host};
use crate::machine::Machine;
use crate::report::{Contains, Figure, Row};
use crate::subject::{self, Pins, in_order, scattered, touched};

/// Pages of a turn, in calls of so many.
pub(crate) const PAGES: u64 = 4096;
pub(crate) const CALL: u64 = 512;
/// Leaves of 2 MiB, a call each.
pub(crate) const LEAVES: u64 = 8;

/// What a row is called and contains; Linux's column is said where it is measured.
struct About {
    key: &'static str,
    title: &'static str,
    goal: Option<f64>,
    pagepin: &'static str,
    limit: &'static str,
}

const fn about(
    key: &'static str,
    title: &'static str,
    goal: Option<f64>,
    pagepin: &'static str,
    limit: &'static str,
) -> About {
    About { key, title, goal, pagepin, limit }
}

const PIN_512: [About; 2] = [
    about(
        "pin_512",
        "pin, 512 pages in a call",
        Some(1.05),
        "pin_user_pages_fast for writing",
        "load the entry, exchange the word, load the entry again",
    ),
    about("unpin_512", "unpin, 512 pages in a run", Some(1.05), "unpin_user_runs", "exchange the word"),
];
const PIN_SCATTERED: [About; 2] = [
    about(
        "pin_scattered",
        "pin, no two neighbours in memory",
        Some(1.15),
        "pin_user_pages_fast, a run a page",
        "as above, and store the run",
    ),
    about("unpin_scattered", "unpin, a run a page", Some(1.15), "unpin_user_runs", "load the run, exchange the word"),
];
const PIN_ONE: [About; 2] = [
    about(
        "pin_one",
        "pin, one page in a call",
        None,
        "pin_user_pages_fast",
        "walk four levels, exchange the word, load two entries again, store the run, count",
    ),
    about("unpin_one", "unpin, one page in a call", None, "unpin_user_runs", "load the run, exchange the word, count"),
];
const PIN_SLOW: [About; 2] = [
    about(
        "pin_slow",
        "pin under the mm lock, 512 in a call",
        None,
        "pin_user_pages: the lock, the VMA, then the same walk",
        "as pin of 512",
    ),
    about("unpin_slow", "", None, "", ""),
];
const LEAF: [About; 2] = [
    about(
        "pin_leaf",
        "pin a 2 MiB leaf",
        None,
        "pin_user_pages_fast of all 512 pages: one word",
        "walk three levels, exchange the word, load the entry again, store the run, count",
    ),
    about("unpin_leaf", "unpin a 2 MiB leaf", None, "unpin_user_runs", "load the run, exchange the word, count"),
];
const OPERATIONS: [About; 8] = [
    about(
        "fault_zero",
        "first touch, with the clearing",
        None,
        "UserSpace::fault",
        "note the reader, clear, store the word, walk, exchange the entry",
    ),
    about(
        "fork",
        "fork",
        Some(1.05),
        "UserSpace::fork, in the parent",
        "load the entry, exchange the word, lock the entry read-only, store the child's",
    ),
    about(
        "fault_copy",
        "write fault that copies, with the copy",
        None,
        "UserSpace::fault; nothing is flushed",
        "note the reader, walk, hold the original, copy, own the entry, store it, let go",
    ),
    about(
        "exit",
        "exit, of a process with pages of its own",
        Some(1.2),
        "drop of a UserSpace",
        "load the entry, exchange the word, store the frame's number",
    ),
    about(
        "fault_reuse",
        "write fault that needs no copy",
        None,
        "UserSpace::fault after the child's exit",
        "note the reader, walk, own the entry, exchange the word, store the entry",
    ),
    about(
        "unshare",
        "read pin of a shared page, with the copy",
        None,
        "pin_user_pages_fast for reading, 512 in a call; nothing is flushed",
        "walk, hold the original, copy, own the entry, store it, let go, store the run",
    ),
    about("protect", "protect", Some(1.1), "UserSpace::protect to read-only", "exchange the entry"),
    about(
        "unmap",
        "unmap",
        Some(1.2),
        "UserSpace::unmap; nothing is flushed",
        "as exit: whole tables leave by one entry further up",
    ),
];
/// Of [`OPERATIONS`], where bytes are the greatest part.
const NET: [(usize, &str, &str); 3] = [
    (0, "fault_zero_net", "first touch, without the clearing"),
    (2, "fault_copy_net", "write fault that copies, without the copy"),
    (5, "unshare_net", "read pin of a shared page, without the copy"),
];
/// What Linux's column of [`OPERATIONS`] contains; of unshare it is how it pins.
const LINUX: [&str; 8] = [
    "a store to untouched memory: the trap too",
    "fork(): with this memory, less without it (MADV_DONTFORK)",
    "a store to memory shared with a child: the trap and the flush too",
    "the end of a process with this memory, less the end of one without",
    "a store after the child's exit: the trap too",
    "of pages shared with a child, for writing, which copies them as well: the flushes too",
    "mprotect to read-only: the flush too",
    "munmap: the flush too",
];
/// How they are listed.
const ORDER: [&str; 20] = [
    "pin_512",
    "unpin_512",
    "pin_scattered",
    "unpin_scattered",
    "pin_one",
    "unpin_one",
    "pin_slow",
    "pin_leaf",
    "unpin_leaf",
    "unmap",
    "exit",
    "protect",
    "fork",
    "fault_reuse",
    "fault_zero",
    "fault_zero_net",
    "fault_copy",
    "fault_copy_net",
    "unshare",
    "unshare_net",
];
const NO_SLOW_PIN: &str = "no system call takes the slow path where the fast one would do";
const NO_NET: &str = "it cannot leave out the bytes";

pub(crate) fn measure(host: &Host) -> Vec<Row> {
    let machine = Machine::new();
    eprintln!("one thread: pins");
    let mut rows = pins(&machine, host);
    eprintln!("one thread: faults, fork, unmap");
    rows.extend(operations(&machine, host));
    rows.sort_by_key(|row| ORDER.iter().position(|key| *key == row.key));
    rows
}

fn pins(machine: &Machine, host: &Host) -> Vec<Row> {
    let kernel = machine.kernel();
    let (near, far) = (Limit::new(machine.map, in_order), Limit::new(machine.map, scattered));
    let small = |order: fn(u64) -> u64| {
        let region = Region::new(PAGES as usize * 4096, false);
        region.write_in_order(order);
        region
    };
    let (here, apart, large) = (small(in_order), small(scattered), Region::new((LEAVES as usize) << 21, true));
    large.write_all();
    let mut rows = Vec::new();
    let mut pair = |abouts: &[About; 2], pins: Pins<_>, limit: &mut Column<'_, 2>, linux: Option<Buffer<'_>>, units| {
        let (mut pins, unit) = (pins, if units == LEAVES { "leaf" } else { "page" });
        let linux = linux.ok_or_else(|| NO_SLOW_PIN.to_owned());
        let linux = linux.and_then(|buffer| host.pins.turn(&buffer).map(|_| buffer));
        let mut host_turn = || match &linux {
            Ok(buffer) => host.pins.turn(buffer).unwrap_or([f64::NAN; 2]).map(|figure| figure / units as f64),
            Err(_) => [f64::NAN; 2],
        };
        let compared = in_turns(&mut [&mut || pins.turn(units), limit, &mut host_turn]);
        let why = linux.as_ref().err().cloned();
        for ((about, compared), by_host) in abouts.iter().zip(compared).zip(host.pins.contains()) {
            if !about.title.is_empty() {
                rows.push(row(about, unit, &compared, why.clone(), by_host));
            }
        }
        drop(pins);
        pagepin::Env::source(kernel).tidy();
    };
    let set = |order, call| Pins::new(Arc::new(touched(kernel, PAGES, order)), 0..PAGES, call);
    pair(&PIN_512, set(in_order, CALL), &mut || near.pin_512(), Some(Buffer::new(&here, CALL)), PAGES);
    pair(&PIN_SCATTERED, set(scattered, CALL), &mut || far.pin_scattered(), Some(Buffer::new(&apart, CALL)), PAGES);
    pair(&PIN_ONE, set(in_order, 1), &mut || near.pin_one(), Some(Buffer::new(&here, 1)), PAGES);
    pair(&PIN_SLOW, set(in_order, CALL).slow(), &mut || near.pin_512(), None, PAGES);
    pair(&LEAF, subject::large_leaves(kernel), &mut || near.pin_leaf(), Some(Buffer::new(&large, CALL)), LEAVES);
    rows
}

fn operations(machine: &Machine, host: &Host) -> Vec<Row> {
    let limit = Limit::new(machine.map, in_order);
    let (kernel, bare) = (machine.kernel(), machine.kernel_without_bytes());
    let columns: &mut [&mut Column<'_, 10>] = &mut [
        &mut || and_no_process(subject::operations(kernel)),
        &mut || and_no_process(limit.operations::<true>()),
        &mut || linux::operations(&host.pins),
    ];
    let whole = in_turns_then(columns, |[zero, fork, copy, exit, reuse, unshare, protect, unmap, no_fork, no_exit]| {
        [zero, fork - no_fork, copy, exit - no_exit, reuse, unshare, protect, unmap]
    });
    let net = in_turns(&mut [&mut || subject::operations(bare), &mut || limit.operations::<false>()]);
    let mut rows = Vec::new();
    for (index, (about, compared)) in OPERATIONS.iter().zip(&whole).enumerate() {
        let refused = compared.medians[2].is_nan().then(|| "it cannot pin that much".to_owned());
        let how = if about.key == "unshare" { format!("{}, ", host.pins.contains()[0]) } else { String::new() };
        rows.push(row(about, "page", compared, refused, how + LINUX[index]));
        if let Some((_, key, title)) = NET.iter().find(|(of, ..)| *of == index) {
            let about = About { key, title, goal: None, ..*about };
            rows.push(row(&about, "page", &net[index], Some(NO_NET.to_owned()), String::new()));
        }
    }
    rows
}

/// Where fork and exit are of the memory alone.
fn and_no_process([zero, fork, copy, exit, reuse, unshare, protect, unmap]: [f64; 8]) -> [f64; 10] {
    [zero, fork, copy, exit, reuse, unshare, protect, unmap, 0.0, 0.0]
}

/// Columns are pagepin, the limit and, unless it is said `why` not, Linux.
fn row(about: &About, unit: &str, compared: &Compared, why: Option<String>, contains: String) -> Row {
    let Compared { medians, ratios } = compared;
    let linux = match (why, medians.get(2)) {
        (None, Some(linux)) if *linux > 0.0 => Figure::Measured(*linux),
        // A difference of two, in which something else took longer.
        (why, _) => Figure::Missing(why.unwrap_or_else(|| "lost in what else the machine did".to_owned())),
    };
    Row {
        key: about.key.to_owned(),
        title: about.title.to_owned(),
        unit: unit.to_owned(),
        pagepin: medians[0],
        limit: medians[1],
        of_limit: ratios[1],
        of_linux: if let Figure::Measured(_) = linux { ratios.get(2).copied() } else { None },
        linux,
        goal: about.goal,
        contains: Contains { pagepin: about.pagepin.to_owned(), limit: about.limit.to_owned(), linux: contains },
    }
}
