//! A slot of the ledger that is given up and filled again while somebody reads it.

use loom::thread;
use std::sync::Arc;

use pagepin::model::Safeguard;
use pagepin::pin::PhysRun;
use pagepin::{
    Access, LedgerEntry, LedgerTable, LedgerTicket, Levels, Pfn, PinLedger, PinRecord, PinTerm, Through, UserRange,
};

use super::checker::Bound;
use super::runner::Model;

const MIXED: &str = "a record is made of two";
const UNSTRUCK: &str = "a record of what was released is not struck";
const LOST: &str = "a record was lost, or struck out twice";

pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "ledger: a slot filled again x reader",
        bound: Bound::AtMost(2),
        body: reuse,
        twins: &[
            (Safeguard::LedgerReread, &[MIXED]),
            (Safeguard::LedgerFence, &[MIXED]),
            (Safeguard::LedgerPublish, &[MIXED]),
        ],
    },
    Model {
        name: "ledger: slots taken x slots given back",
        bound: Bound::AtMost(2),
        body: two_writers,
        twins: &[(Safeguard::LedgerCount, &[MIXED, LOST])],
    },
    Model {
        name: "ledger: one number released twice",
        bound: Bound::AtMost(2),
        body: two_orphans,
        twins: &[(Safeguard::LedgerStrikesOnce, &[UNSTRUCK])],
    },
];

/// All that is recorded of `value` is made of it.
fn record<const N: usize>(ledger: &LedgerTable<N>, value: u64) -> LedgerTicket {
    let range = UserRange::new(Levels::Four.user_half(), value << 12, 1 << 12).expect("a user page");
    let runs = [PhysRun::from_parts(Pfn::new(value), 1, 0)];
    ledger.record(&PinRecord {
        through: Through::space(Pfn::new(value)),
        tag: value,
        range,
        runs: &runs,
        access: Access::Write,
        term: PinTerm::Long,
    })
}

fn value(entry: LedgerEntry) -> u64 {
    let space = entry.through.as_space().map_or(0, Pfn::number);
    let parts = [space, entry.run.first().number(), entry.start >> 12];
    assert!(parts == [entry.tag; 3], "{MIXED}: {entry:?}");
    entry.tag
}

/// Whoever reads finds the one record, the other, or none.
fn reuse() {
    let ledger = Arc::new(LedgerTable::<1>::new(|| 0));
    let first = record(&ledger, 1);
    let reader = {
        let ledger = Arc::clone(&ledger);
        thread::spawn(move || ledger.records().map(value).count())
    };
    ledger.forget(first);
    let second = record(&ledger, 2);
    assert!(reader.join().expect("no panic") <= 1);
    assert!(ledger.records().map(value).eq([2]), "{LOST}");
    ledger.forget(second);
    ledger.forget(first);
    assert_eq!((ledger.records().count(), ledger.misused(), ledger.missed()), (0, 1, 0), "{LOST}");
}

/// Two CPUs, or a CPU and an interrupt, take and give back slots of one stack.
fn two_writers() {
    let ledger = Arc::new(LedgerTable::<2>::new(|| 0));
    let tickets = [record(&ledger, 1), record(&ledger, 2)];
    tickets.into_iter().for_each(|ticket| ledger.forget(ticket));
    let other = {
        let ledger = Arc::clone(&ledger);
        thread::spawn(move || {
            let (first, second) = (record(&ledger, 3), record(&ledger, 4));
            ledger.forget(first);
            second
        })
    };
    let mine = [record(&ledger, 5), record(&ledger, 6)];
    let theirs = other.join().expect("no panic");
    // What was missed may have been what was given back again.
    let live = ledger.records().map(value).count() as u64;
    assert!((3..=4).contains(&(live + ledger.missed())), "{LOST}");
    mine.into_iter().for_each(|ticket| ledger.forget(ticket));
    ledger.forget(theirs);
    assert_eq!((ledger.records().count(), ledger.misused()), (0, 0), "{LOST}");
}

/// Two pins of one frame, and two CPUs that give them back by its number.
fn two_orphans() {
    let ledger = Arc::new(LedgerTable::<2>::new(|| 0));
    record(&ledger, 1);
    record(&ledger, 1);
    let run = PhysRun::from_parts(Pfn::new(1), 1, 0);
    let other = {
        let ledger = Arc::clone(&ledger);
        thread::spawn(move || ledger.released_by_number(run))
    };
    ledger.released_by_number(run);
    other.join().expect("no panic");
    assert_eq!(ledger.records().filter(|entry| entry.orphaned).count(), 2, "{UNSTRUCK}");
}
