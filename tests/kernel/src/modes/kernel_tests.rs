//! Tests of the kernel's own parts, on all CPUs where that matters.

use alloc::{format, vec};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::{
    cpu,
    edu::{self, Direction},
    fw_cfg, memory,
    modes::{Outcome, five_levels, ready_made, stale, user_copies},
    percpu, poll, shootdown, smp,
    trap::{self, Trap, UserContext},
};

type Test = (&'static str, fn() -> Outcome);

const TESTS: &[Test] = &[
    ("all_cpus_are_online", all_cpus_are_online),
    ("broadcast_reaches_every_cpu", broadcast_reaches_every_cpu),
    ("cpus_agree_on_memory_types", cpus_agree_on_memory_types),
    ("user_copies_come_to_where_they_can", user_copies::come_to_where_they_can),
    ("user_copies_of_bad_addresses_are_refused", user_copies::of_bad_addresses_are_refused),
    ("user_copies_open_access_for_themselves_alone", user_copies::open_access_for_themselves_alone),
    ("user_strings_end_at_their_nul", user_copies::strings_end_at_their_nul),
    ("user_copies_need_the_space_they_name", user_copies::need_the_space_they_name),
    ("a_space_that_ends_leaves_every_cpu", user_copies::a_space_that_ends_leaves_every_cpu),
    ("refused_return_is_the_program_s_exception", refused_return),
    ("cpus_flushing_each_other_do_not_deadlock", cpus_flushing_each_other),
    ("no_cpu_reads_through_a_flushed_translation", stale::no_cpu_reads_through_a_flushed_translation),
    ("five_levels_are_walked", five_levels::five_levels_are_walked),
    ("edu_moves_bytes_both_ways", edu_moves_bytes_both_ways),
    ("ready_made_parts_work_on_one_cpu", ready_made::ready_made_parts_work),
    ("ready_made_parts_work_on_several_cpus", ready_made::ready_made_parts_work_on_several_cpus),
];

pub fn run(report: &mut dyn FnMut(&str, Outcome)) {
    for &(name, test) in TESTS {
        report(name, test());
    }
}

pub(super) fn check(holds: bool, why: &str) -> Outcome {
    if holds { Ok(()) } else { Err(why.into()) }
}

fn all_cpus_are_online() -> Outcome {
    let (online, wanted) = (percpu::online().count(), fw_cfg::cpu_count());
    if Some(online) == wanted.map(usize::from) { Ok(()) } else { Err(format!("{online} of {wanted:?}")) }
}

static SEEN: AtomicU64 = AtomicU64::new(0);

fn broadcast_reaches_every_cpu() -> Outcome {
    smp::on_every_cpu(|cpu| {
        crate::println!("cpu {cpu} takes part, apic id {}", crate::apic::id());
        SEEN.fetch_or(1 << cpu, Ordering::Relaxed);
    });
    let all = (1 << percpu::online().count()) - 1;
    check(SEEN.load(Ordering::Relaxed) == all, "somebody was not called")
}

static DISAGREE: AtomicU64 = AtomicU64::new(0);

fn cpus_agree_on_memory_types() -> Outcome {
    smp::on_every_cpu(|cpu| {
        if cpu::memory_types() != pagepin::MemoryType::PAT {
            DISAGREE.fetch_or(1 << cpu, Ordering::Relaxed);
        }
    });
    let cpus = DISAGREE.load(Ordering::Relaxed);
    check(cpus == 0, &format!("CPUs {cpus:#b} have another PAT"))
}

fn refused_return() -> Outcome {
    let mut context = UserContext::new(0x1234_5000, 0);
    context.ss = 0;
    for _ in 0..2 {
        let trap = trap::enter(&mut context);
        let expected = matches!(trap, Trap::Exception { vector: trap::GENERAL_PROTECTION });
        check(expected, &format!("{trap:?}"))?;
    }
    Ok(())
}

const ROUNDS: u64 = 1000;
static ARRIVED: AtomicUsize = AtomicUsize::new(0);
static FLUSHES: AtomicU64 = AtomicU64::new(0);

fn cpus_flushing_each_other() -> Outcome {
    ARRIVED.store(0, Ordering::Relaxed);
    FLUSHES.store(0, Ordering::Relaxed);
    smp::on_every_cpu(|cpu| {
        ARRIVED.fetch_add(1, Ordering::Relaxed);
        poll::until(|| ARRIVED.load(Ordering::Relaxed) == percpu::online().count());
        for round in 0..ROUNDS {
            let pages = if round % 8 == 7 { shootdown::ALL_PAGES } else { 1 };
            shootdown::flush(memory::boot_root(), 0x1000 + cpu as u64, pages);
            FLUSHES.fetch_add(1, Ordering::Relaxed);
        }
    });
    let wanted = ROUNDS * percpu::online().count() as u64;
    check(FLUSHES.load(Ordering::Relaxed) == wanted, "a flush is missing")
}

fn edu_moves_bytes_both_ways() -> Outcome {
    const LEN: usize = 4000;
    let physical = |buffer: &[u8]| buffer.as_ptr() as u64 - memory::direct_map_offset();
    let out: vec::Vec<u8> = (0..LEN).map(|i| (i * 7 + i / 256) as u8).collect();
    let back = vec![0; LEN];
    // SAFETY: both buffers are in the heap, which is in the direct map and contiguous,
    // and live past the wait.
    let (there, here) = unsafe {
        let there = edu::start(physical(&out), 5, LEN as u64, Direction::ToDevice);
        let busy = edu::start(physical(&out), 0, 1, Direction::ToDevice);
        check(busy == Err(pagepin_abi::Error::Busy), "two transfers at once")?;
        edu::wait_idle();
        let here = edu::start(physical(&back), 5, LEN as u64, Direction::FromDevice);
        edu::wait_idle();
        (there, here)
    };
    check(there.is_ok() && here.is_ok(), &format!("{there:?} {here:?}"))?;
    let back = core::hint::black_box(back);
    check(back == out, "other bytes came back")?;
    // SAFETY: refused before the device sees it.
    let outside = unsafe { edu::start(physical(&out), 1, 4095, Direction::ToDevice) };
    check(outside == Err(pagepin_abi::Error::Invalid), "a transfer past the buffer")
}
