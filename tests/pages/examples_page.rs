//! The example kernels: what they do for their memory stays as small as the README says.

use crate::tree;

/// The kernels, and the most lines that their glue may have.
const KERNELS: [(&str, usize); 2] = [("minimal-kernel", 40), ("smp-kernel", 60)];

/// The lines of code in a kernel's `memory.rs`, which is nothing but glue.
fn glue(kernel: &str) -> usize {
    let source = tree::text(&format!("examples/{kernel}/src/memory.rs"));
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//");
    source.lines().filter(is_code).count()
}

#[test]
fn glue_of_the_kernels_stays_small_and_is_counted() {
    let readme = tree::text("README.md").split_whitespace().collect::<Vec<_>>().join(" ");
    for (kernel, most) in KERNELS {
        let lines = glue(kernel);
        assert!((20..=most).contains(&lines), "{kernel}: {lines} lines");
        let (_, before) =
            readme.rsplit_once(&format!("(`{kernel}`)")).map(|(before, _)| ((), before)).expect("the README names it");
        let told = before.rsplit_once(" lines of code").and_then(|(before, _)| before.rsplit(' ').next());
        assert_eq!(told, Some(&*lines.to_string()), "what the README says of {kernel}");
    }
}

#[test]
fn the_readme_counts_the_kernels() {
    let folders = std::fs::read_dir(tree::path("examples")).unwrap().map(|entry| entry.unwrap().file_name());
    let kernels = folders.filter(|folder| folder.to_string_lossy().ends_with("-kernel")).count();
    let words = ["No", "One", "Two", "Three", "Four", "Five"];
    assert!(tree::text("README.md").contains(&format!("{} complete kernels are in", words[kernels])), "{kernels}");
}

/// What is common to both is not the way in which glue is hidden: it knows nothing of the library.
#[test]
fn nothing_but_that_file_puts_the_library_into_the_kernels() {
    for file in tree::files("examples/machine/src", "rs") {
        assert!(!tree::text(&file).contains("use pagepin"), "{file}");
    }
    for file in ["minimal-kernel/src/main.rs", "minimal-kernel/src/process.rs", "smp-kernel/src/main.rs"] {
        let text = tree::text(&format!("examples/{file}"));
        let parts = ["unsafe impl", "Platform", "UserSpace::new", "PageFaultErrorCode"];
        assert_eq!(parts.into_iter().find(|part| text.contains(part)), None, "{file}");
    }
}
