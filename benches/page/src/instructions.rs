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

/// What the README calls each figure.
pub(crate) const ROWS: [(&str, &str); 11] = [
    ("pin_fast_4k_b512", "pin, 512 pages in a call"),
    ("pin_fast_4k_b1", "pin, one page in a call"),
    ("unpin_4k", "unpin"),
    ("pin_fast_2m_leaf", "pin a 2 MiB leaf, all 512 pages"),
    ("fork_4k", "fork"),
    ("unmap_4k", "unmap"),
    ("protect_4k", "protect"),
    ("fault_reuse", "write fault that needs no copy"),
    ("fault_zero_net", "first touch, beyond the clearing"),
    ("fault_copy_net", "write fault that copies, beyond the copy"),
    ("unshare_net", "read pin of a shared page, beyond the copy"),
];

/// Instructions, by key.
pub(crate) struct Figures(BTreeMap<String, f64>);

/// One row: pagepin's, Linux's, and what pagepin should stay at or below.
pub(crate) struct Instructions {
    pub(crate) title: &'static str,
    pub(crate) pagepin: f64,
    pub(crate) linux: f64,
    pub(crate) goal: Option<f64>,
}

impl Figures {
    pub(crate) fn read(project: &Path, file: &str) -> Result<Self> {
        let text = std::fs::read_to_string(project.join(file)).with_context(|| format!("reading {file}"))?;
        Ok(Self(serde_json::from_str(&text).with_context(|| format!("reading {file}"))?))
    }

    pub(crate) fn rows(&self) -> Result<Vec<Instructions>> {
        let row = |(key, title): &(&str, &'static str)| {
            let pagepin = *self.0.get(*key).with_context(|| format!("{key} was not measured"))?;
            let figure =
                FIGURES.iter().find(|figure| figure.key == *key).with_context(|| format!("no figure {key}"))?;
            Ok(Instructions { title, pagepin, linux: figure.linux, goal: figure.target })
        };
        ROWS.iter().map(row).collect()
    }

    /// The README's table.
    fn table(&self) -> Result<String> {
        let cells = |row: Instructions| vec![row.title.to_owned(), thousands(row.pagepin, 0), thousands(row.linux, 0)];
        Ok(page::table(&["operation", "pagepin", "Linux"], self.rows()?.into_iter().map(cells)))
    }

    /// With what it is to stay at or below, if `goals`.
    pub(crate) fn plot(&self, goals: bool) -> Result<Plot> {
        let row = |row: Instructions| {
            let point = |mark, value: f64, label| Point { mark, value, label };
            let mut points = vec![
                point(Mark::Pagepin, row.pagepin, thousands(row.pagepin, 0)),
                point(Mark::Linux, row.linux, thousands(row.linux, 0)),
            ];
            points.extend(row.goal.filter(|_| goals).map(|goal| point(Mark::Goal, goal, String::new())));
            Row { label: row.title.to_owned(), points, note: None }
        };
        let rows: Vec<Row> = self.rows()?.into_iter().map(row).collect();
        let told = |row: &Row| format!("{}: {} and {}", row.label, row.points[0].label, row.points[1].label);
        let told: Vec<String> = rows.iter().map(told).collect();
        let mut legend = vec![(Mark::Pagepin, "pagepin"), (Mark::Linux, "Linux 7.2")];
        legend.extend(goals.then_some((Mark::Goal, "goal")));
        Ok(Plot {
            title: "Instructions per 4 KiB page",
            description: format!("Instructions of pagepin and of Linux. {}.", told.join("; ")),
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
    Ok([(README, readme), (PICTURE, plot::svg(&figures.plot(false)?)?)])
}
