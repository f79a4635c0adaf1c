//! `docs/UNSAFE.md` against the sources: the numbers, the files, the duties; and a reason at every `unsafe`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use crate::source::{Counts, Found, look};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PAGE: &str = "docs/UNSAFE.md";

/// The page as it is, after `PAGEPIN_BLESS` has had its way: once, as tests run at the same time.
static TEXT: LazyLock<String> = LazyLock::new(|| {
    let path = Path::new(ROOT).join(PAGE);
    let page = fs::read_to_string(&path).unwrap();
    if std::env::var_os("PAGEPIN_BLESS").is_none() {
        return page;
    }
    let page = renewed(&page, &library());
    fs::write(&path, &page).unwrap();
    page
});

/// Not in a normal build: the models' atomics and locks, and the examples that must not compile.
const NOT_BUILT: [&str; 2] = ["src/model/", "src/must_not_compile/"];

/// What the files under `folder` say, by their path.
fn look_through(folder: &str, files: &mut BTreeMap<String, Found>) {
    for entry in fs::read_dir(Path::new(ROOT).join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            look_through(&path, files);
        } else if path.ends_with(".rs") {
            let source = fs::read_to_string(entry.path()).unwrap();
            files.insert(path, look(&source));
        }
    }
}

/// The files of the library.
fn library() -> BTreeMap<String, Found> {
    let mut files = BTreeMap::new();
    look_through("src", &mut files);
    look_through("arch", &mut files);
    files.retain(|path, _| !NOT_BUILT.iter().any(|folder| path.starts_with(folder)));
    files
}

/// The lines of the page that are not written by hand: how they begin, and what they should be.
fn totals(files: &BTreeMap<String, Found>) -> [(&'static str, String); 2] {
    let mut sum = Counts::default();
    files.values().for_each(|found| sum += found.counts);
    let [blocks, functions, traits, impls] = sum.cells();
    let without: Vec<String> = files
        .iter()
        .filter(|(_, found)| found.counts == Counts::default())
        .map(|(path, _)| format!("`{path}`"))
        .collect();
    let with = files.len() - without.len();
    let total = format!(
        "In all: {blocks} blocks, {functions} functions, {traits} traits and {impls} impls, in {with} of {} files.",
        files.len()
    );
    [("In all: ", total), ("None: ", format!("None: {}.", without.join(", ")))]
}

fn row(path: &str, counts: Counts, why: &str) -> String {
    let mut row = format!("| `{path}` ");
    counts.cells().iter().for_each(|count| _ = write!(row, "| {count} "));
    format!("{row}| {why} |")
}

/// The page with the numbers of today. The reasons stay, and a file that has none yet gets an empty one.
fn renewed(page: &str, files: &BTreeMap<String, Found>) -> String {
    let totals = totals(files);
    let reasons: BTreeMap<&str, &str> = page.lines().filter_map(reason).collect();
    let rows = files.iter().filter(|(_, found)| found.counts != Counts::default());
    let mut rows =
        Some(rows.map(|(path, found)| row(path, found.counts, reasons.get(&path[..]).copied().unwrap_or(""))));
    let mut lines: Vec<String> = Vec::new();
    for line in page.lines() {
        if reason(line).is_some() {
            // All of them where the first was.
            lines.extend(rows.take().into_iter().flatten());
        } else if let Some((_, now)) = totals.iter().find(|(beginning, _)| line.starts_with(beginning)) {
            lines.push(now.clone());
        } else {
            lines.push(line.into());
        }
    }
    lines.join("\n") + "\n"
}

/// The file and the reason of a row of the page's table.
fn reason(line: &str) -> Option<(&str, &str)> {
    let (path, cells) = line.strip_prefix("| `")?.split_once("` |")?;
    let why = cells.strip_suffix('|')?.rsplit('|').next()?;
    path.ends_with(".rs").then_some((path, why.trim()))
}

#[test]
fn the_page_counts_every_unsafe() {
    let renewed = renewed(&TEXT, &library());
    for (file, why) in renewed.lines().filter_map(reason) {
        assert!(!why.is_empty(), "{PAGE} does not say why {file} needs unsafe");
    }
    let stale = TEXT.lines().zip(renewed.lines()).find(|(old, new)| old != new);
    assert!(*TEXT == renewed, "{PAGE} is not up to date, PAGEPIN_BLESS=1 rewrites its numbers: {stale:?}");
}

#[test]
fn the_page_names_every_duty() {
    let (_, duties) = TEXT.split_once("\n## Duties").expect("a section on duties");
    for (file, found) in library() {
        for duty in found.duties {
            assert!(duties.contains(&format!("`{duty}`")), "{PAGE} does not name `{duty}` of {file}");
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
    let mut files = BTreeMap::new();
    look_through("src/model", &mut files);
    assert!(!files.is_empty() && files.values().all(|found| found.counts == Counts::default()), "{files:?}");
}
