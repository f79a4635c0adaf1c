//! What the README shows of `cargo xtask bench`: its table and its picture are made of the figures in `docs/bench.json`.

use std::fs;

use crate::{markdown, tree};

/// `PAGEPIN_BLESS` makes them of those figures again; `cargo xtask bench --publish` measures first.
#[test]
fn table_and_picture_are_those_of_the_committed_figures() {
    for (file, made) in pagepin_bench_page::published(&tree::path("")).unwrap() {
        if std::env::var_os("PAGEPIN_BLESS").is_some() {
            fs::write(tree::path(file), &made).unwrap();
        }
        let stale =
            tree::text(file).lines().zip(made.lines()).find(|(old, new)| old != new).map(|(old, _)| old.to_owned());
        assert!(tree::text(file) == made, "{file} is not made of docs/bench.json: {stale:?}");
    }
}

/// Asked of the files themselves, not of what made them.
#[test]
fn each_number_of_the_table_is_in_the_picture_and_the_file() {
    let rows = markdown::table(&tree::text("README.md"), "operation").rows;
    let (picture, figures) = (tree::text("docs/bench.svg"), tree::text("docs/bench.json"));
    let figures: Vec<f64> =
        figures.lines().filter_map(|line| line.split(": ").nth(1)?.trim_end_matches(',').parse().ok()).collect();
    assert!(rows.len() > 8 && figures.len() > rows.len(), "{} rows, {} figures", rows.len(), figures.len());
    for row in &rows {
        for cell in row {
            assert!(picture.lines().any(|line| line == cell), "{cell} of {row:?} is not in the picture");
        }
        let pagepin: f64 = row[1].replace(',', "").parse().unwrap();
        assert!(figures.iter().any(|figure| (figure - pagepin).abs() <= 0.5), "{row:?} is no figure");
    }
}

/// The page of layouts is measured by another command, of which one column is the layout of the figures.
#[test]
fn the_page_of_layouts_has_the_same_figures() {
    const ROWS: [(&str, &str); 5] = [
        ("pin_fast_4k_b512", "instructions: fast pin, 512 pages a call"),
        ("pin_fast_4k_b1", "fast pin, 1 page a call"),
        ("unpin_4k", "unpin"),
        ("fork_4k", "fork"),
        ("unshare_net", "read pin of a page shared by fork, without the copy"),
    ];
    let (table, figures) = (markdown::table(&tree::text("docs/LAYOUTS.md"), "per page"), tree::text("docs/bench.json"));
    let wide = table.heading.iter().position(|name| name == "Wide").unwrap();
    for (key, name) in ROWS {
        let figure = figures.lines().find_map(|line| line.trim().strip_prefix(&format!("\"{key}\": ")));
        let figure: f64 = figure.and_then(|figure| figure.trim_end_matches(',').parse().ok()).unwrap();
        // The first of that name: instructions come before locked ones.
        let row = table.rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("no row of {name}"));
        assert_eq!(
            row[wide],
            format!("{figure:.1}"),
            "{name}: `cargo xtask layouts` and `bench --publish` of one state"
        );
    }
}
