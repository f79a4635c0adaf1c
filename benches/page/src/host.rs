//! The figures of `cargo xtask bench --host`.

use std::path::Path;

use anyhow::{Context, Result};

use crate::plot::{Axis, Mark, Plot, Point, Row, thousands, told};
use crate::report::{Figure, Report};

pub(crate) const MEASURED: &str = "target/bench-host.json";

/// `None`: it was never run.
pub(crate) fn read(project: &Path) -> Result<Option<Report>> {
    match std::fs::read_to_string(project.join(MEASURED)) {
        Ok(text) => serde_json::from_str(&text).map(Some).with_context(|| format!("reading {MEASURED}")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {MEASURED}")),
    }
}

fn point(mark: Mark, value: f64, label: impl Into<String>) -> Point {
    Point { mark, value, label: label.into() }
}

/// How far from the limit.
pub(crate) fn of_limit(report: &Report) -> Plot {
    let row = |row: &crate::report::Row| {
        let mut points = vec![point(Mark::Limit, 1.0, "")];
        points.extend(row.goal.map(|goal| point(Mark::Goal, goal, "")));
        points.push(point(Mark::Pagepin, row.of_limit, format!("{:.2}", row.of_limit)));
        Row { label: row.title.clone(), points, note: None }
    };
    let rows: Vec<Row> = report.rows.iter().map(row).collect();
    let highest = report.rows.iter().map(|row| row.of_limit).fold(3.0, f64::max);
    Plot {
        title: "Time, in multiples of the hardware's limit",
        description: format!("pagepin's time divided by that of the bare loop. {}.", told(&rows)),
        axis: Axis {
            from: 0.8,
            to: highest.ceil() + 0.5,
            ticks: &[1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0],
            decimals: 1,
            logarithmic: false,
        },
        unit: "pagepin / bare loop; lower is better",
        legend: vec![(Mark::Pagepin, "pagepin"), (Mark::Limit, "limit"), (Mark::Goal, "goal")],
        rows,
    }
}

/// Beside this host's Linux.
pub(crate) fn of_linux(report: &Report) -> Plot {
    let row = |row: &crate::report::Row| {
        let mut points =
            vec![point(Mark::Limit, row.limit, ""), point(Mark::Pagepin, row.pagepin, nanoseconds(row.pagepin))];
        if let Figure::Measured(linux) = row.linux {
            points.push(point(Mark::Linux, linux, nanoseconds(linux)));
        }
        let label = if row.unit == "page" { row.title.clone() } else { format!("{} (per {})", row.title, row.unit) };
        Row { label, points, note: None }
    };
    let rows: Vec<Row> = report.rows.iter().map(row).collect();
    Plot {
        title: "Nanoseconds per page",
        description: format!("Nanoseconds of pagepin and of this host's Linux. {}.", told(&rows)),
        axis: Axis { from: 3.0, to: 20_000.0, ticks: &[10.0, 100.0, 1000.0, 10_000.0], decimals: 0, logarithmic: true },
        unit: "nanoseconds, logarithmic; lower is better",
        legend: vec![(Mark::Pagepin, "pagepin"), (Mark::Limit, "limit"), (Mark::Linux, "this host's Linux")],
        rows,
    }
}

/// Two threads.
pub(crate) fn scaling(report: &Report) -> Plot {
    let row = |row: &crate::report::ScalingRow| {
        let goal = row.goal.map(|goal| point(Mark::Goal, goal, ""));
        let (points, note) = match &row.times {
            Figure::Measured(times) => {
                let measured = point(Mark::Pagepin, *times, format!("{times:.2}"));
                (goal.into_iter().chain([measured]).collect(), None)
            }
            Figure::Missing(why) => (Vec::new(), Some(why.clone())),
        };
        Row { label: row.title.clone(), points, note }
    };
    let rows: Vec<Row> = report.scaling.rows.iter().map(row).collect();
    Plot {
        title: "Two threads, in multiples of what one gets done",
        description: format!("What two threads get done, divided by what one does. {}.", told(&rows)),
        axis: Axis { from: 0.0, to: 2.25, ticks: &[0.0, 0.5, 1.0, 1.5, 2.0], decimals: 1, logarithmic: false },
        unit: "two threads / one; higher is better",
        legend: vec![(Mark::Pagepin, "pagepin"), (Mark::Goal, "goal")],
        rows,
    }
}

/// In as many digits as mean something.
pub(crate) fn nanoseconds(value: f64) -> String {
    thousands(value, if value < 100.0 { 1 } else { 0 })
}
