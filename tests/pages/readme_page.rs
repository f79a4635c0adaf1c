//! The README: its code is compiled, its lines fit a page, its links work where only the package is.

use std::fs;
use std::process::Command;
use std::sync::LazyLock;

use crate::{links, markdown, tree};

const PAGE: &str = "README.md";
const EXAMPLE: &str = "examples/embed.rs";
/// Columns of code that a page shows without a scroll bar, and of text that a terminal shows side by side with code.
const WIDTH: usize = 104;
const CODE_WIDTH: usize = 96;

/// The page as it is, after `PAGEPIN_BLESS` has had its way: once, as tests run at the same time.
static TEXT: LazyLock<String> = LazyLock::new(|| {
    let page = tree::text(PAGE);
    if std::env::var_os("PAGEPIN_BLESS").is_none() {
        return page;
    }
    let page = page.replace(&quotes(&page).concat(), quoted());
    fs::write(tree::path(PAGE), &page).unwrap();
    page
});

/// What the page may quote of the example.
fn quoted() -> &'static str {
    static SOURCE: LazyLock<String> = LazyLock::new(|| tree::text(EXAMPLE));
    let (_, rest) = SOURCE.split_once("// <quoted>\n").expect("the mark of the beginning");
    rest.split_once("// </quoted>\n").expect("the mark of the end").0
}

/// The Rust code of the page.
fn quotes(page: &str) -> Vec<String> {
    let fences = markdown::fences(page).into_iter();
    fences.filter(|(kind, _)| kind.starts_with("rust") || kind.is_empty()).map(|(_, code)| code).collect()
}

/// Nothing is shown that was not compiled, and nothing is compiled but hidden.
#[test]
fn its_code_is_that_of_the_example() {
    assert!(TEXT.contains(&format!("({EXAMPLE})")), "{PAGE} does not say where its code comes from");
    let [quote] = &quotes(&TEXT)[..] else { panic!("one piece of code") };
    let stale = quote.lines().zip(quoted().lines()).find(|(old, new)| old != new);
    assert!(quote == quoted(), "{PAGE} does not quote {EXAMPLE}, PAGEPIN_BLESS=1 renews it: {stale:?}");
}

/// A kernel's glue stays small.
#[test]
fn the_embedding_fits_in_forty_lines() {
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//");
    let glue = quoted().lines().filter(is_code).count();
    assert!((20..=40).contains(&glue), "{glue} lines");
}

#[test]
fn its_lines_fit_a_page() {
    let code: Vec<_> = markdown::fences(&TEXT).into_iter().map(|(_, code)| code).collect();
    let long = |text: &str, width| text.lines().find(|line| line.chars().count() > width).map(str::to_owned);
    assert_eq!(long(&TEXT, WIDTH), None);
    assert_eq!(code.iter().find_map(|code| long(code, CODE_WIDTH)), None);
}

/// The files of the package, as cargo would put them there.
fn package() -> Vec<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["package", "--package", "pagepin", "--list", "--allow-dirty", "--offline"]);
    let output = cargo.current_dir(tree::path("")).output().expect("cargo starts");
    assert!(output.status.success(), "cargo package: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("paths").lines().map(str::to_owned).collect()
}

/// Also those of the documents that it links to.
#[test]
fn links_of_the_package_stay_in_the_package() {
    let package = package();
    for file in package.iter().filter(|file| file.ends_with(".md")) {
        for (to, _) in links::targets(file) {
            assert!(package.contains(&to), "{file} links to {to}, which is not in the package");
        }
    }
    assert!(package.iter().any(|file| file == PAGE), "{package:?}");
}
