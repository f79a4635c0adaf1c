//! Promises that the README makes about itself.

/// The glue for a small kernel, as the README shows it, without what belongs to that kernel.
#[test]
fn the_embedding_fits_in_forty_lines() {
    let readme = include_str!("../README.md");
    let (_, rest) = readme.split_once("```rust,no_run\n").expect("an embedding");
    let (code, _) = rest.split_once("```").expect("its end");
    let glue = code.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '/'])).count();
    assert!((20..=40).contains(&glue), "{glue} lines");
}
