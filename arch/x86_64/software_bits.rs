//! The bits of an entry that hardware ignores and the crate uses. This is the only list of them.
//!
//! A kernel that already gives some of them a meaning moves ours: set `PAGEPIN_SOFTWARE_BITS` in the build
//! environment (for example in `[env]` of `.cargo/config.toml`) to five comma-separated bit numbers, in the order of
//! the constants below. Hardware leaves bits 9–11 and 52–58 to software in every entry (SDM vol. 3, table 4-20); with
//! protection keys off, bits 59–62 are free as well, but they are not accepted here.

/// Bit numbers, in the order special, prot-none, fork-exclusive, fork-writable, borrowed.
pub const SOFTWARE_BITS: [u32; 5] = match option_env!("PAGEPIN_SOFTWARE_BITS") {
    None => [9, 10, 52, 53, 11],
    Some(list) => parse(list.as_bytes()),
};

/// A leaf that must not be pinned as it is (the zero frame, foreign memory, what is borrowed): every pin takes the slow path.
/// Neither present nor prot-none: a token, which stands for a page that is elsewhere.
pub(super) const SPECIAL: u64 = 1 << SOFTWARE_BITS[0];
/// Not present, but the frame is still there: the page has no rights at the moment.
pub(super) const PROT_NONE: u64 = 1 << SOFTWARE_BITS[1];
/// Fork's undo note in an entry of the child: the frame was `EXCLUSIVE`. Means nothing once fork has returned.
pub(super) const FORK_EXCLUSIVE: u64 = 1 << SOFTWARE_BITS[2];
/// Fork's undo note in an entry of the child: the parent's entry was writable. Means nothing once fork has returned.
pub(super) const FORK_WRITABLE: u64 = 1 << SOFTWARE_BITS[3];
/// With [`SPECIAL`], a leaf whose frame is counted: it belongs to an object, and a private VMA shows it. Without, a leaf whose contents
/// user space has given up.
pub(super) const BORROWED: u64 = 1 << SOFTWARE_BITS[4];

/// The bits of an entry that belong to the kernel: those that hardware leaves to software and [`SOFTWARE_BITS`] does not name. By default
/// bits 54 to 58. What the kernel writes there, in a leaf or a token, means nothing to the crate and stays: through protect, move, swap-out and
/// back, relocation, merge and copies, and in a child of fork. It goes when the page goes, by unmap, discard or truncation.
///
/// A kernel sets them where it fills an entry ([`Vmas::fault_foreign`](crate::Vmas::fault_foreign)), or with the mm lock held exclusively, in entries that
/// are not empty ([`Entry::with_kernel_bits`](crate::Entry::with_kernel_bits)).
pub const KERNEL_BITS: u64 = {
    let (mut free, mut i) = (0b111 << 9 | 0x7f << 52, 0);
    while i < SOFTWARE_BITS.len() {
        free &= !(1 << SOFTWARE_BITS[i]);
        i += 1;
    }
    free
};

pub(super) const fn parse(list: &[u8]) -> [u32; 5] {
    let (mut bits, mut slot, mut i) = ([0; 5], 0, 0);
    while i < list.len() {
        match list[i] {
            b',' => slot += 1,
            digit @ b'0'..=b'9' => bits[slot] = bits[slot] * 10 + (digit - b'0') as u32,
            _ => panic!("PAGEPIN_SOFTWARE_BITS: five comma-separated bit numbers are expected"),
        }
        i += 1;
    }
    assert!(slot == 4, "PAGEPIN_SOFTWARE_BITS: five comma-separated bit numbers are expected");
    bits
}

const _: () = {
    let (mut seen, mut i) = (0u64, 0);
    while i < SOFTWARE_BITS.len() {
        let bit = SOFTWARE_BITS[i];
        assert!(matches!(bit, 9..=11 | 52..=58), "hardware does not ignore this bit");
        assert!(seen & (1 << bit) == 0, "two meanings for one bit");
        seen |= 1 << bit;
        i += 1;
    }
};
