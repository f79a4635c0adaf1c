//! `docs/BUGS.md` against the tree: what the page names as a test is one, and is run.

use std::fs;
use std::path::{Path, PathBuf};

fn tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The cells of every row of the page's tables.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| bug |"));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Whether a file of the host tests has this test and runs it: by itself, or for both layouts.
fn is_host_test(module: &str, name: &str) -> bool {
    let file = text(&tree(&format!("tests/host/{module}.rs")));
    let lines: Vec<&str> = file.lines().map(str::trim).collect();
    let is_definition = |line: &&str| {
        let rest = line.strip_prefix("fn ").and_then(|line| line.strip_prefix(name));
        rest.is_some_and(|rest| rest.starts_with(['(', '<']))
    };
    let Some(at) = lines.iter().position(is_definition) else { return false };
    let is_listed = lines.iter().any(|line| line.strip_suffix(',') == Some(name));
    is_listed || lines[..at].iter().rev().take(5).take_while(|line| !line.is_empty()).any(|line| *line == "#[test]")
}

/// Whether the kernel under QEMU reports a test of this name. The packaged crate comes without that kernel.
fn is_kernel_test(name: &str) -> bool {
    let Ok(mut modes) = fs::read_dir(tree("tests/kernel/src/modes")) else { return true };
    modes.any(|file| text(&file.unwrap().path()).contains(&format!("\"{name}\"")))
}

#[test]
fn every_test_that_the_bug_hall_names_exists() {
    let page = text(&tree("docs/BUGS.md"));
    let mut seen_to_fail = 0;
    let rows = rows(&page);
    for row in &rows {
        let [bug, cause, code, here] = row[..] else { panic!("not four cells: {row:?}") };
        assert!(![bug, cause, code, here].contains(&""), "{row:?}");
        let named: Vec<(&str, &str)> = quoted(here).filter_map(|name| name.split_once("::")).collect();
        for (module, name) in &named {
            let exists = if *module == "kernel" { is_kernel_test(name) } else { is_host_test(module, name) };
            assert!(exists, "{bug}: there is no test {module}::{name}");
        }
        let (verdict, _) = here.split_once(": ").unwrap_or_else(|| panic!("{bug}: no verdict: {here}"));
        match verdict {
            "seen to fail" | "test" => assert!(!named.is_empty(), "{bug} names no test"),
            "does not compile" => {
                let file = quoted(here).find(|name| name.ends_with(".rs")).expect("the file of the example");
                assert!(text(&tree(file)).contains("```compile_fail"), "{bug}: {file} has no compile-fail example");
            }
            "not expressible" => {}
            _ => panic!("{bug}: {verdict}?"),
        }
        seen_to_fail += u32::from(verdict == "seen to fail");
    }
    assert!(rows.len() >= 50 && seen_to_fail >= 15, "{} rows, {seen_to_fail} seen to fail", rows.len());
}
