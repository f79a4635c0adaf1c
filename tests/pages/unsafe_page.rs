//! `docs/UNSAFE.md` against the sources: the numbers, the files, the duties; and a reason at every `unsafe`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::sync::LazyLock;

use crate::markdown;
use crate::source::{Counts, Found, look};
use crate::tree;

const PAGE: &str = "docs/UNSAFE.md";
/// Not in a normal build: the models' atomics and locks, the examples that must not compile, the documents.
const NOT_BUILT: [&str; 3] = ["src/model/", "src/must_not_compile/", "src/documents/"];

/// The page as it is, after `PAGEPIN_BLESS` has had its way: once, as tests run at the same time.
static TEXT: LazyLock<String> = LazyLock::new(|| {
    let page = tree::text(PAGE);
    if std::env::var_os("PAGEPIN_BLESS").is_none() {
        return page;
    }
    let page = renewed(&page, &library());
    fs::write(tree::path(PAGE), &page).unwrap();
    page
});

/// What the files of `folders` say, by their path, but for those under `without`.
fn look_through(folders: &[&str], without: &[&str]) -> BTreeMap<String, Found> {
    let files = folders.iter().flat_map(|folder| tree::files(folder, "rs"));
    let files = files.filter(|file| !without.iter().any(|folder| file.starts_with(folder)));
    files.map(|file| (file.clone(), look(&tree::text(&file)))).collect()
}

/// The files of the library.
fn library() -> BTreeMap<String, Found> {
    look_through(&["src", "arch"], &NOT_BUILT)
}

fn totals(files: &BTreeMap<String, Found>) -> String {
    let mut sum = Counts::default();
    files.values().for_each(|found| sum += found.counts);
    let [blocks, functions, traits, impls] = sum.cells();
    let with = files.values().filter(|found| found.counts != Counts::default()).count();
    let all = files.len();
    format!(
        "In all: {blocks} blocks, {functions} functions, {traits} traits and {impls} impls, in {with} of {all} files."
    )
}

/// The reasons that the page's table gives, by file.
fn reasons(page: &str) -> BTreeMap<String, String> {
    let rows = markdown::table(page, "file").rows.into_iter();
    rows.map(|row| {
        let [file, .., why] = &row[..] else { panic!("no reason: {row:?}") };
        (file.trim_matches('`').to_owned(), why.clone())
    })
    .collect()
}

/// The page with the numbers of today. The reasons stay, and a file that has none yet gets an empty one.
fn renewed(page: &str, files: &BTreeMap<String, Found>) -> String {
    let (reasons, place) = (reasons(page), markdown::table(page, "file").place);
    let mut table: String = page[place.clone()].split_inclusive('\n').take(2).collect();
    for (file, found) in files.iter().filter(|(_, found)| found.counts != Counts::default()) {
        _ = write!(table, "| `{file}` ");
        found.counts.cells().iter().for_each(|count| _ = write!(table, "| {count} "));
        _ = writeln!(table, "| {} |", reasons.get(file).map_or("", String::as_str));
    }
    format!("{}{table}{}", &page[..place.start], &page[place.end..])
}

#[test]
fn the_page_counts_every_unsafe() {
    let renewed = renewed(&TEXT, &library());
    for (file, why) in reasons(&renewed) {
        assert!(!why.is_empty(), "{PAGE} does not say why {file} needs unsafe");
    }
    let stale = TEXT.lines().zip(renewed.lines()).find(|(old, new)| old != new);
    assert!(*TEXT == renewed, "{PAGE} is not up to date, PAGEPIN_BLESS=1 rewrites its numbers: {stale:?}");
    // Not on the page: sums change with every change beside it.
    println!("{}", totals(&library()));
}

#[test]
fn the_page_names_every_duty() {
    let named = markdown::code_spans(markdown::section(&TEXT, "Duties of a kernel"));
    for (file, found) in library() {
        for duty in found.duties {
            assert!(named.contains(&duty), "{PAGE} does not name `{duty}` of {file}");
        }
    }
}

#[test]
fn every_unsafe_says_why() {
    let missing: Vec<String> = library()
        .into_iter()
        .flat_map(|(file, found)| found.undocumented.into_iter().map(move |place| format!("{file}, {place}")))
        .collect();
    assert!(missing.is_empty(), "no SAFETY comment or section right above: {missing:#?}");
}

/// What the page says about code that a normal build does not contain.
#[test]
fn the_models_add_no_unsafe() {
    let files = look_through(&["src/model"], &[]);
    assert!(!files.is_empty() && files.values().all(|found| found.counts == Counts::default()), "{files:?}");
}
