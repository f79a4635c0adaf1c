//! Swap on the emulated machine: pages go and come back, with their bytes, whatever the disk does.

use std::collections::BTreeMap;

use pagepin::fault::FaultError;
use pagepin::frame::Wide;
use pagepin::pin::{Read, Write};
use pagepin::space::SpaceError;
use pagepin::{Token, TokenError};
use pagepin_store::WrittenOut;
use proptest::prelude::*;

use crate::kept::SLOTS;
use crate::machine::{A, PAGE};

type Machine = crate::machine::Machine<Wide>;
type Process<'m> = crate::machine::Process<'m, Wide>;

fn bytes(machine: &Machine, process: &Process<'_>) -> [u8; 4] {
    [0, 1, 2, 3].map(|page| machine.get(process, A + page * PAGE))
}

/// A process whose four pages are in slots, and, if that is asked for, on the disk.
fn swapped(machine: &Machine, written: bool) -> Process<'_> {
    let process = machine.populated(4, 10);
    assert_eq!(process.swap_out(A, 4 * PAGE).unwrap().pages, 4);
    assert_eq!(machine.swap().used(machine), 4);
    if written {
        let all = WrittenOut { freed: 4, ..WrittenOut::default() };
        assert_eq!(machine.swap().write_out(machine, u32::MAX), all);
        assert_eq!(machine.kept().0, []);
    }
    process
}

#[test]
fn pages_go_and_come_back() {
    for written in [false, true] {
        let machine = Machine::new(64);
        let process = swapped(&machine, written);
        assert_eq!(machine.swap().device().requests(), if written { 4 } else { 0 });
        let child = process.fork().unwrap();
        machine.put(&process, A, 20);
        machine.put(&child, A + PAGE, 30);
        assert_eq!((bytes(&machine, &process), bytes(&machine, &child)), ([20, 11, 12, 13], [10, 30, 12, 13]));
        assert_eq!(machine.swap().used(&machine), 0);
        machine.audit(&[&process, &child], &Default::default());
    }
}

/// Pins of what is on the disk get its contents; what is pinned does not go.
#[test]
fn pins_bring_pages_back() {
    let machine = Machine::new(64);
    let process = swapped(&machine, true);
    let read = machine.pin::<Read>(&process, A, 1).unwrap();
    let write = machine.pin::<Write>(&process, A + PAGE, 1).unwrap();
    assert_eq!(machine.dma_read(read.runs()[0].first().address()), 10);
    machine.dma_write(write.runs()[0].first().address(), &[7]);
    let out = process.swap_out(A, 4 * PAGE).unwrap();
    assert_eq!((out.pages, out.pinned_pages), (0, 2));
    drop((read, write));
    assert_eq!(process.swap_out(A, 4 * PAGE).unwrap().pages, 2);
    machine.swap().write_out(&machine, u32::MAX);
    assert_eq!(bytes(&machine, &process), [10, 7, 12, 13]);
}

/// A slot whose page the disk writes gives it back meanwhile, and is not used again before the disk is done.
#[test]
fn a_late_disk_keeps_its_slot() {
    let machine = Machine::new(64);
    let process = swapped(&machine, false);
    let (swap, disk) = (machine.swap(), machine.swap().device());
    disk.answer_late(true);
    assert_eq!(swap.write_out(&machine, u32::MAX).started, 4);
    assert_eq!(bytes(&machine, &process), [10, 11, 12, 13]);
    machine.put(&process, A, 20);
    assert_eq!(swap.used(&machine), 4, "the disk has them");
    assert_eq!(process.swap_out(A, 4 * PAGE).unwrap().pages, 4);
    assert_eq!(swap.used(&machine), SLOTS);
    assert_eq!(machine.populated(1, 0).swap_out(A, PAGE), Err(SpaceError::NoSlot));
    while let Some((request, result)) = disk.end_write(&machine, 2) {
        swap.write_ended(&machine, request, result);
    }
    assert_eq!(swap.used(&machine), 4);
    // The same for a page that is read.
    disk.answer_late(false);
    assert_eq!(swap.write_out(&machine, u32::MAX).freed, 4);
    disk.answer_late(true);
    for page in 0..4 {
        assert!(matches!(machine.load(0, &process, A + page * PAGE, 1), Err(FaultError::NotReady(_))));
    }
    process.discard(A, 4 * PAGE).unwrap();
    assert_eq!(swap.used(&machine), 4, "each is read");
    while let Some((request, result)) = disk.end_read(&machine, 1) {
        swap.read_ended(&machine, request, result);
    }
    assert_eq!(swap.used(&machine), 0);
    assert_eq!(bytes(&machine, &process), [0; 4]);
}

/// What the disk fails to write stays in memory; what it fails to read is lost until it is asked again.
#[test]
fn a_disk_that_fails_loses_nothing_by_itself() {
    let machine = Machine::new(64);
    let process = swapped(&machine, false);
    let (swap, disk) = (machine.swap(), machine.swap().device());
    disk.fail(true);
    assert_eq!(swap.write_out(&machine, 4), WrittenOut { failed: 4, ..WrittenOut::default() });
    assert_eq!(machine.get(&process, A), 10);
    disk.fail(false);
    assert_eq!(swap.write_out(&machine, u32::MAX).freed, 3);
    disk.fail(true);
    let lost = |page: u64| machine.load(0, &process, A + page * PAGE, 1);
    assert_eq!([1, 2, 3].map(lost), [Err(FaultError::Failed); 3]);
    disk.fail(false);
    assert_eq!([1, 2, 3].map(lost), [Err(FaultError::Failed); 3], "nobody has asked for another attempt");
    for token in machine.kept().1.into_keys() {
        swap.retry(&machine, token).unwrap();
    }
    assert_eq!(bytes(&machine, &process), [10, 11, 12, 13]);
    assert_eq!(swap.retry(&machine, Token::new(0).unwrap()), Err(TokenError::Lost));
    assert_eq!(swap.retry(&machine, Token::MAX), Err(TokenError::Lost));
    assert_eq!(swap.state(&machine, Token::new(u64::from(SLOTS)).unwrap()), None);
}

/// No memory for what is to be read is said so; with memory it is read.
#[test]
fn without_memory_pages_stay_away() {
    let machine = Machine::new(64);
    let process = swapped(&machine, true);
    machine.memory().allow(Some(0));
    assert!(matches!(machine.load(0, &process, A, 1), Err(FaultError::NoMemory)));
    machine.memory().allow(None);
    assert_eq!(bytes(&machine, &process), [10, 11, 12, 13]);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Put(usize, u64, u8),
    Get(usize, u64),
    SwapOut(usize, u64, u64),
    WriteOut(u32),
    Fork(usize),
    Exit(usize),
    Late(bool),
    EndRead(usize),
    EndWrite(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (who, page) = (0..4usize, 0..4u64);
    let step = prop_oneof![
        4 => (who.clone(), page.clone(), 1u8..).prop_map(|(who, page, byte)| Step::Put(who, page, byte)),
        4 => (who.clone(), page.clone()).prop_map(|(who, page)| Step::Get(who, page)),
        4 => (who.clone(), page, 1..5u64).prop_map(|(who, page, count)| Step::SwapOut(who, page, count)),
        3 => (0..6u32).prop_map(Step::WriteOut),
        1 => who.clone().prop_map(Step::Fork),
        1 => who.prop_map(Step::Exit),
        1 => any::<bool>().prop_map(Step::Late),
        3 => (0..8usize).prop_map(Step::EndRead),
        3 => (0..8usize).prop_map(Step::EndWrite),
    ];
    proptest::collection::vec(step, 1..120)
}

/// One thing that the disk has to do.
fn end_one(machine: &Machine, read: bool, which: usize) -> bool {
    let disk = machine.swap().device();
    if read {
        let ended = disk.end_read(machine, which);
        ended.map(|(request, result)| machine.swap().read_ended(machine, request, result)).is_some()
    } else {
        let ended = disk.end_write(machine, which);
        ended.map(|(request, result)| machine.swap().write_ended(machine, request, result)).is_some()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// Processes that come and go, and a disk that takes its time: each process's bytes are what it wrote, and nothing is left at the end.
    #[test]
    fn every_process_keeps_its_bytes(steps in steps()) {
        let machine = Machine::new(128);
        let mut all: Vec<(Process<'_>, BTreeMap<u64, u8>)> = vec![(machine.populated(4, 0), BTreeMap::new())];
        for step in steps {
            match step {
                Step::Put(who, page, byte) => {
                    let count = all.len();
                    let (process, model) = &mut all[who % count];
                    if machine.store(0, process, A + page * PAGE, u64::from(byte), 1).is_ok() {
                        model.insert(page, byte);
                    }
                }
                Step::Get(who, page) => {
                    let (process, model) = &all[who % all.len()];
                    match machine.load(0, process, A + page * PAGE, 1) {
                        Ok(byte) => prop_assert_eq!(byte as u8, model.get(&page).copied().unwrap_or(page as u8)),
                        Err(error) => prop_assert!(matches!(error, FaultError::NotReady(_)), "{:?}", error),
                    }
                }
                Step::SwapOut(who, page, count) => {
                    let count = count.min(4 - page);
                    let out = all[who % all.len()].0.swap_out(A + page * PAGE, count * PAGE);
                    prop_assert!(matches!(out, Ok(_) | Err(SpaceError::NoSlot)), "{:?}", out);
                }
                Step::WriteOut(most) => _ = machine.swap().write_out(&machine, most),
                Step::Fork(who) if all.len() < 4 => {
                    let (process, model) = &all[who % all.len()];
                    let child = (process.fork().unwrap(), model.clone());
                    all.push(child);
                }
                Step::Exit(who) if all.len() > 1 => _ = all.remove(who % all.len()),
                Step::Fork(_) | Step::Exit(_) => {}
                Step::Late(late) => machine.swap().device().answer_late(late),
                Step::EndRead(which) => _ = end_one(&machine, true, which),
                Step::EndWrite(which) => _ = end_one(&machine, false, which),
            }
        }
        machine.swap().device().answer_late(false);
        while end_one(&machine, true, 0) || end_one(&machine, false, 0) {}
        for (process, model) in &all {
            let model = [0, 1, 2, 3].map(|page| model.get(&page).copied().unwrap_or(page as u8));
            prop_assert_eq!(bytes(&machine, process), model);
        }
        let roots: Vec<_> = all.iter().map(|(process, _)| process).collect();
        machine.audit(&roots, &Default::default());
        drop(all);
        prop_assert_eq!(machine.swap().used(&machine), 0);
    }
}
