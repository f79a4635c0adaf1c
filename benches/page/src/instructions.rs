//! The figures of `cargo xtask bench`, as the README shows them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use crate::linux::FIGURES;
use crate::page::{self, Page};
use crate::plot::{self, Axis, Mark, Plot, Point, Row, thousands};

/// What a run wrote, and what is committed of one.
pub(crate) const MEASURED: &str = "target/bench.json";
pub(crate) const COMMITTED: &str = "docs/bench.json";
const README: &str = "README.md";
const PICTURE: &str = "docs/bench.svg";

/// What each figure is called, and whether the README shows it.
const ROWS: [(&str, &str, bool); 25] = [
    ("pin_fast_4k_b512", "pin, 512 pages in a call", true),
    ("pin_fast_4k_b512_scattered", "the same, no two neighbours in memory", false),
    ("pin_fast_4k_b1", "pin, one page in a call", true),
    ("unpin_4k", "unpin", true),
    ("unpin_4k_scattered", "unpin, a run a page", false),
    ("unpin_4k_b1", "unpin, a call a page", false),
    ("pin_slow_4k_b512", "pin under the mm lock", false),
    ("pin_fast_2m_leaf", "pin a 2 MiB leaf, all 512 pages", true),
    ("unpin_2m_leaf", "unpin a 2 MiB leaf, all 512 pages", false),
    ("fork_2m_leaf", "fork, a 2 MiB leaf", false),
    ("split_pinned_4k", "split a pinned 2 MiB leaf by `mprotect` of a page", false),
    ("fork_4k", "fork", true),
    ("unmap_4k", "unmap", true),
    ("exit_4k", "exit", false),
    ("protect_4k", "protect", true),
    ("fault_reuse", "write fault that needs no copy", true),
    ("fault_zero_net", "first touch, beyond the clearing", true),
    ("fault_copy_net", "write fault that copies, beyond the copy", true),
    ("unshare_net", "read pin of a shared page, beyond the copy", true),
    ("pin_fast_object_4k_b512", "pin of shared memory, 512 pages in a call", true),
    ("fault_object", "read fault on a page of a file that is in memory", false),
    ("fault_will_write", "the first write to such a page", false),
    ("swap_out_4k", "swap-out, without the device", false),
    ("swap_in_4k", "swap-in for reading, without the device", false),
    ("swap_in_write_4k", "swap-in for writing, without the device", false),
];

/// Which rows are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Those of the README, beside Linux.
    Readme,
    /// All, with their goals.
    All,
}

/// Instructions, by key.
pub(crate) struct Figures(BTreeMap<String, f64>);

/// One row: pagepin's, Linux's, and what pagepin should stay at or below.
pub(crate) struct Instructions {
    pub(crate) title: &'static str,
    pub(crate) pagepin: f64,
    pub(crate) linux: Option<f64>,
    pub(crate) goal: Option<f64>,
}

impl Figures {
    pub(crate) fn read(project: &Path, file: &str) -> Result<Self> {
        let text = std::fs::read_to_string(project.join(file)).with_context(|| format!("reading {file}"))?;
        Ok(Self(serde_json::from_str(&text).with_context(|| format!("reading {file}"))?))
    }

    pub(crate) fn rows(&self, shown: Shown) -> Result<Vec<Instructions>> {
        let row = |(key, title, _): &(&str, &'static str, bool)| {
            let pagepin = *self.0.get(*key).with_context(|| format!("{key} was not measured"))?;
            let figure =
                FIGURES.iter().find(|figure| figure.key == *key).with_context(|| format!("no figure {key}"))?;
            Ok(Instructions { title, pagepin, linux: figure.linux, goal: figure.target })
        };
        // A run of another version may lack a row; of what is committed none may be missing.
        let is_shown = |(key, _, in_readme): &&(&str, &str, bool)| match shown {
            Shown::Readme => *in_readme,
            Shown::All => self.0.contains_key(*key),
        };
        ROWS.iter().filter(is_shown).map(row).collect()
    }

    /// The README's table.
    fn table(&self) -> Result<String> {
        let linux = |row: &Instructions| row.linux.map_or_else(String::new, |linux| thousands(linux, 0));
        let cells = |row: Instructions| vec![row.title.to_owned(), thousands(row.pagepin, 0), linux(&row)];
        Ok(page::table(&["operation", "pagepin", "Linux"], self.rows(Shown::Readme)?.into_iter().map(cells)))
    }

    pub(crate) fn plot(&self, shown: Shown) -> Result<Plot> {
        let goals = shown == Shown::All;
        let row = |row: Instructions| {
            let point = |mark, value: f64, label| Point { mark, value, label };
            let mut points = vec![point(Mark::Pagepin, row.pagepin, thousands(row.pagepin, 0))];
            points.extend(row.linux.map(|linux| point(Mark::Linux, linux, thousands(linux, 0))));
            points.extend(row.goal.filter(|_| goals).map(|goal| point(Mark::Goal, goal, String::new())));
            Row { label: row.title.to_owned(), points, note: None }
        };
        let rows: Vec<Row> = self.rows(shown)?.into_iter().map(row).collect();
        let mut legend = vec![(Mark::Pagepin, "pagepin"), (Mark::Linux, "Linux 7.2")];
        legend.extend(goals.then_some((Mark::Goal, "goal")));
        Ok(Plot {
            title: "Instructions per 4 KiB page",
            description: format!("Instructions of pagepin and of Linux. {}.", plot::told(&rows)),
            axis: Axis {
                from: 6.0,
                to: 10_000.0,
                ticks: &[10.0, 100.0, 1000.0, 10_000.0],
                decimals: 0,
                logarithmic: true,
            },
            unit: "instructions, logarithmic; lower is better",
            legend,
            rows,
        })
    }
}

/// What the README shows, by file: made of the committed figures.
pub(crate) fn published(project: &Path) -> Result<[(&'static str, String); 2]> {
    let figures = Figures::read(project, COMMITTED)?;
    let readme = Page::read(&project.join(README))?.with(&figures.table()?)?;
    Ok([(README, readme), (PICTURE, plot::svg(&figures.plot(Shown::Readme)?)?)])
}
