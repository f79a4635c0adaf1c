//! Linux's figures for the same operations, and what pagepin aims at.
//!
//! # Where the figures come from
//!
//! Measured on 2026-11-20 on Linux 7.2.13 (Debian `linux-source-7.2` 7.2.13-1), built with gcc 12.2 at `-O2` from
//! `tinyconfig` plus what a GUP benchmark needs: SMP, lazy preemption, PKU and secret memory on; no `DEBUG_VM`, no
//! mitigations, no NUMA, memcg, CMA or paravirt. `mm/gup.c` is unmodified; `mm/gup_test.c` reports raw TSC ticks.
//! QEMU 7.2.22, q35, `-accel tcg -icount shift=0 -smp 1 -cpu max,-la57,-erms`: there the guest's time-stamp counter
//! advances by one per instruction, so a figure repeats to 0.1 % on any host and compares with pagepin's kernel under
//! the same flags. `-erms` is off because with it a 4 KiB copy counts as 4096 instructions.
//!
//! Of the 194 instructions a batched `pin_user_pages_fast` takes per page, 14 are the protection-key check, 21 the
//! secret-memory check and 30 the pin statistics. pagepin's figure contains the first and the last, at other prices: while
//! the thread restricts no key, keys are looked at once per table and not per page; statistics are one addition per call.
//! It has no secret memory; frames that must not be pinned are told by a bit of their entry, in the mask that is tested
//! anyway.
//!
//! Instruction counts are not time: a locked read-modify-write, a TLB miss and a `mov` all count one, and so does each
//! iteration of a `rep` instruction.

/// One figure the benchmark kernel must report.
pub(crate) struct Figure {
    /// The key of its `@bench` line.
    pub(crate) key: &'static str,
    /// Linux's instruction count, per 4 KiB page unless the key says otherwise, where it was measured.
    pub(crate) linux: Option<f64>,
    /// What pagepin should stay at or below.
    pub(crate) target: Option<f64>,
    /// What exactly was counted, where the key alone does not say.
    pub(crate) note: &'static str,
}

/// Printed under the table, in one breath with the result it qualifies.
pub(crate) const PROVENANCE: &str = "\
Guest instructions per page, lower is better; the ratio is pagepin's to Linux's. Linux 7.2.13 (Debian linux-source-7.2
7.2.13-1, gcc 12.2 -O2, tinyconfig + GUP benchmark options), QEMU 7.2.22 q35, -accel tcg -icount shift=0 -smp 1
-cpu max,-la57,-erms, 2026-11-20. Linux's 194 for a batched fast pin include 14 for protection keys, 21 for secret
memory and 30 for pin statistics; pagepin's include keys (once per table, as no key is restricted) and statistics (once
per call), and it has no secret memory. `_scattered`: no two neighbouring pages are neighbours in memory.";

/// Counted by a loop of known length; anything but this value means the counter does not count instructions.
pub(crate) const CALIBRATION: &str = "calib_loop";
pub(crate) const CALIBRATION_VALUE: f64 = 2.0;
pub(crate) const CALIBRATION_SLACK: f64 = 0.01;

const fn figure(key: &'static str, linux: f64, target: Option<f64>, note: &'static str) -> Figure {
    Figure { key, linux: Some(linux), target, note }
}

const fn ours(key: &'static str, target: f64, note: &'static str) -> Figure {
    Figure { key, linux: None, target: Some(target), note }
}

/// Every key the kernel has to print, in the order of the table.
pub(crate) const FIGURES: &[Figure] = &[
    figure("pin_fast_4k_b512", 194.1, Some(22.0), "pin_user_pages_fast, write, 512 pages a call"),
    ours("pin_fast_4k_b512_scattered", 45.0, "the same, a run a page"),
    figure("pin_fast_4k_b1", 545.4, Some(110.0), "the same, one page a call"),
    figure("unpin_4k", 86.4, Some(12.0), "unpin_user_pages over the page array"),
    ours("unpin_4k_scattered", 20.0, "a run a page"),
    ours("unpin_4k_b1", 25.0, "a call a page"),
    figure("pin_slow_4k_b512", 363.3, Some(28.7), "pin_user_pages, write, 512 pages a call"),
    figure(
        "pin_fast_2m_leaf",
        4317.0,
        Some(189.0),
        "whole leaf; Linux: 216 a leaf + 8.01 x 512 pages, without its 275 a call",
    ),
    figure("unpin_2m_leaf", 6707.0, Some(102.0), "whole leaf; Linux: 13.1 x 512 by page array (0.1 a page by folio)"),
    ours("fork_2m_leaf", 200.0, "a whole leaf"),
    ours("split_pinned_4k", 16.0, "per page, by mprotect of one page of each leaf"),
    figure("fork_4k", 144.7, Some(53.0), "fork(), per mapped page, in the parent"),
    figure("unmap_4k", 611.6, Some(60.0), "munmap, per page"),
    ours("exit_4k", 60.0, "the end of an address space, per page of its own"),
    figure("protect_4k", 144.3, Some(45.0), "mprotect, per page"),
    figure("fault_reuse", 1013.4, Some(250.0), "write fault after the child's exit, no copy"),
    figure("fault_copy_net", 1994.0, Some(500.0), "write fault that copies, less the copy"),
    figure("fault_zero_net", 1760.0, Some(360.0), "first touch, less the clearing"),
    figure("unshare_net", 2172.0, Some(420.0), "read-only pin of a shared page, less the copy; with the pin"),
    figure(
        "pin_fast_object_4k_b512",
        199.1,
        Some(24.0),
        "as pin_fast_4k_b512, of an object's shared pages; Linux: shmem",
    ),
    ours("fault_object", 600.0, "read fault on a page of an object that is in memory"),
    ours("fault_will_write", 500.0, "the first write to such a page that is mapped"),
    ours("swap_out_4k", 900.0, "per page that goes to a slot, without the device"),
    ours("swap_in_4k", 900.0, "read fault on a page whose slot has the frame still"),
    ours("swap_in_write_4k", 900.0, "the same by a write, after which it is this mm's own"),
    figure(CALIBRATION, CALIBRATION_VALUE, None, "a loop of two instructions"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_figures_agree_with_the_measured_ones() {
        let of = |key| FIGURES.iter().find(|figure| figure.key == key)?.linux;
        assert_eq!(of("pin_fast_2m_leaf"), Some((216.0f64 + 8.01 * 512.0).round()));
        assert_eq!(of("unpin_2m_leaf"), Some((13.1f64 * 512.0).round()));
    }

    #[test]
    fn keys_are_unique() {
        for (index, figure) in FIGURES.iter().enumerate() {
            assert!(FIGURES.iter().skip(index + 1).all(|other| other.key != figure.key));
        }
    }
}
