//! The disk of the test kernel: a pattern at first, of which its programs make the complement in some pages
//! (`tests/kernel/user/src/programs/files.rs`). What they have written is looked at here, where no cache is in between.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

const PAGE: usize = 4096;
/// As `tests/kernel/abi` has them: the file, what is read and written past the cache, and swap.
const FILE_PAGES: usize = 32;
const DIRECT_PAGES: usize = 32;
const SWAP_PAGES: usize = 128;
/// Pages of the file that are written: by one process, by a device, by a child.
const WRITTEN_PAGES: usize = 16 + 1 + 3;

/// Makes it anew.
pub(crate) fn write(path: &Path) -> Result<()> {
    let pages = FILE_PAGES + DIRECT_PAGES + SWAP_PAGES;
    fs::write(path, pattern(pages)).with_context(|| format!("writing {}", path.display()))
}

/// Whether all is on it that the programs wrote, and nothing else. What swap leaves behind does not matter.
pub(crate) fn check(path: &Path) -> Result<()> {
    let found = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    match found.chunks(PAGE).zip(after().chunks(PAGE)).position(|(found, expected)| found != expected) {
        None if found.len() == (FILE_PAGES + DIRECT_PAGES + SWAP_PAGES) * PAGE => Ok(()),
        None => bail!("{} has another length than before", path.display()),
        Some(page) => bail!("page {page} of {} is not what was written there", path.display()),
    }
}

fn pattern(pages: usize) -> Vec<u8> {
    (0..pages * PAGE).map(|at| (at % 251) as u8).collect()
}

/// The file and the pages behind it, the second half of which has the complement of the first.
fn after() -> Vec<u8> {
    let mut bytes = pattern(FILE_PAGES + DIRECT_PAGES);
    bytes[..WRITTEN_PAGES * PAGE].iter_mut().for_each(|byte| *byte = !*byte);
    let (first, second) = bytes[FILE_PAGES * PAGE..].split_at_mut(DIRECT_PAGES / 2 * PAGE);
    second.iter_mut().zip(first).for_each(|(to, from)| *to = !*from);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_was_not_written_is_named() {
        let path = std::env::temp_dir().join(format!("pagepin-disk-{}", std::process::id()));
        write(&path).expect("a file");
        let missing = check(&path).expect_err("nothing was written").to_string();
        let mut bytes = fs::read(&path).expect("just written");
        bytes[..after().len()].copy_from_slice(&after());
        bytes[after().len()] ^= 1;
        fs::write(&path, &bytes).expect("a file");
        let complete = check(&path);
        fs::write(&path, after()).expect("a file");
        let short = check(&path);
        fs::remove_file(&path).expect("it is there");
        assert!(missing.starts_with("page 0 of "), "{missing}");
        assert!(complete.is_ok() && short.is_err(), "swap is anything");
    }
}
