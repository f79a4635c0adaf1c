//! `cargo xtask bench --host`: nanoseconds on this machine, beside a bare loop and this host's Linux. No QEMU.
//!
//! `benches/host` measures, and says what each row contains; what it writes is shown here.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{draw, number, reached};
use crate::child;
use crate::childenv::host_cargo;
use crate::report::Details;
use crate::screen::{self, Show};
use crate::steps::{Steps, Summary};
use crate::table::{self, Align};

const FILE: &str = "target/bench-host.json";
const EXPLAINED: &str = "\
Nanoseconds for a page (2 MiB leaves: for a leaf), lower is better. The limit is a bare loop of the loads, stores and locked
instructions that the operation cannot do without; Linux's figures are those of a program, with system call, trap and flush.
target/bench.html says of each row what it contains.";

/// A goal that is missed is a result, not a failure.
pub(crate) fn run(project: &Path) -> (Steps, Details) {
    let mut steps = Steps::new(project, 3);
    let mut details = Details::new();
    let build = || child::succeed(&cargo(project, "build")).map(|()| Summary::default());
    let built = steps.run("build", Show::Last, build);
    if let Some(measured) = built.then(|| steps.value("measure", Show::Last, || measure(project))).flatten() {
        details.insert("host".to_owned(), measured);
        steps.run("page", Show::Last, || draw(project, false));
    }
    (steps, details)
}

fn cargo(project: &Path, command: &str) -> Command {
    let mut cargo = host_cargo(project);
    cargo.args([command, "--release", "--package", "pagepin-host-bench"]);
    cargo
}

fn measure(project: &Path) -> Result<(Summary, Value)> {
    child::succeed(cargo(project, "run").arg("--").arg(FILE))?;
    let text = std::fs::read_to_string(project.join(FILE)).with_context(|| format!("reading {FILE}"))?;
    let measured: Value = serde_json::from_str(&text).with_context(|| format!("reading {FILE}"))?;
    screen::say(format!("\n{}\n{EXPLAINED}\n\n{}\n{}", operations(&measured), scaling(&measured), holds(&measured)));
    screen::say(format!(
        "This machine: {}, {}, a load of {} on {} CPUs; pins by {}. Figures are in {FILE}.\n",
        text_of(&measured["processor"]),
        text_of(&measured["kernel"]),
        measured["load"],
        measured["cpus"],
        text_of(&measured["pins_by"])
    ));
    let figures =
        list(&measured["rows"]).len() + list(&measured["scaling"]["rows"]).len() + list(&measured["holds"]).len();
    Ok((Summary { note: format!("{figures} figures"), passed: figures as u64, failed: 0 }, measured))
}

fn operations(measured: &Value) -> String {
    let row = |row: &Value| {
        let (ratio, goal) = (row["of_limit"].as_f64(), row["goal"].as_f64());
        vec![
            text_of(&row["key"]),
            cell(&row["pagepin"]),
            cell(&row["limit"]),
            row["linux"].as_f64().map_or_else(|| "-".to_owned(), number),
            ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            goal.map_or_else(|| "-".to_owned(), |goal| format!("<= {goal}")),
            reached(ratio.zip(goal).map(|(ratio, goal)| ratio <= goal)),
            row["of_linux"].as_f64().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}")),
            text_of(&row["title"]),
        ]
    };
    let columns = [
        ("key", Align::Left),
        ("pagepin", Align::Right),
        ("limit", Align::Right),
        ("Linux", Align::Right),
        ("of limit", Align::Right),
        ("goal", Align::Right),
        ("reached", Align::Left),
        ("of Linux", Align::Right),
        ("", Align::Left),
    ];
    table::render(&columns, &list(&measured["rows"]).iter().map(row).collect::<Vec<_>>())
}

fn scaling(measured: &Value) -> String {
    let row = |row: &Value| {
        let (times, goal) = (row["times"].as_f64(), row["goal"].as_f64());
        vec![
            text_of(&row["key"]),
            times.map_or_else(|| "-".to_owned(), |times| format!("{times:.2}")),
            goal.map_or_else(|| "-".to_owned(), |goal| format!(">= {goal}")),
            reached(times.zip(goal).map(|(times, goal)| times >= goal)),
            row["times"].as_str().map_or_else(|| text_of(&row["title"]), str::to_owned),
        ]
    };
    let columns = [
        ("two threads", Align::Left),
        ("times one", Align::Right),
        ("goal", Align::Right),
        ("reached", Align::Left),
        ("", Align::Left),
    ];
    table::render(&columns, &list(&measured["scaling"]["rows"]).iter().map(row).collect::<Vec<_>>())
}

/// How long the mm lock is held at a time.
fn holds(measured: &Value) -> String {
    let row = |row: &Value| {
        let (microseconds, goal) = (row["microseconds"].as_f64(), row["goal"].as_f64());
        vec![
            text_of(&row["key"]),
            cell(&row["microseconds"]),
            goal.map_or_else(|| "-".to_owned(), |goal| format!("<= {goal}")),
            reached(microseconds.zip(goal).map(|(microseconds, goal)| microseconds <= goal)),
            text_of(&row["title"]),
        ]
    };
    let columns = [
        ("mm lock held", Align::Left),
        ("us at most", Align::Right),
        ("goal", Align::Right),
        ("reached", Align::Left),
        ("", Align::Left),
    ];
    table::render(&columns, &list(&measured["holds"]).iter().map(row).collect::<Vec<_>>())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

fn cell(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn measured() -> Value {
        let row = |key: &str, linux: Value, ratio: f64| {
            json!({ "key": key, "title": "a", "pagepin": 8.0, "limit": 7.5, "linux": linux, "of_limit": ratio,
                "of_linux": linux.as_f64().map(|linux| 8.0 / linux), "goal": 1.05 })
        };
        let two = |key: &str, times: Value| json!({ "key": key, "title": "b", "times": times, "goal": 1.8 });
        json!({
            "rows": [row("pin_512", json!(64.0), 1.04), row("pin_slow", json!("no system call"), 1.06)],
            "scaling": { "rows": [two("faults", json!(1.85)), two("pins", json!("not measurable here"))] },
        })
    }

    fn cells<'t>(text: &'t str, key: &str) -> Vec<&'t str> {
        text.lines().map(|line| line.split_whitespace().collect()).find(|cells: &Vec<_>| cells[0] == key).expect(key)
    }

    #[test]
    fn goals_are_judged_per_row() {
        let text = operations(&measured());
        assert_eq!(
            cells(&text, "pin_512"),
            ["pin_512", "8.00", "7.50", "64.0", "1.04", "<=", "1.05", "yes", "0.125", "a"]
        );
        assert_eq!(cells(&text, "pin_slow"), ["pin_slow", "8.00", "7.50", "-", "1.06", "<=", "1.05", "NO", "-", "a"]);
    }

    #[test]
    fn holds_are_judged_per_row() {
        let hold = |key: &str, microseconds: f64| json!({ "key": key, "title": "c", "microseconds": microseconds, "goal": 1000.0 });
        let text = holds(&json!({ "holds": [hold("unmap", 90.0), hold("fork", 4000.0)] }));
        assert_eq!(cells(&text, "unmap"), ["unmap", "90.0", "<=", "1000", "yes", "c"]);
        assert_eq!(cells(&text, "fork"), ["fork", "4000.0", "<=", "1000", "NO", "c"]);
    }

    #[test]
    fn what_could_not_be_measured_says_why() {
        let text = scaling(&measured());
        assert_eq!(cells(&text, "faults"), ["faults", "1.85", ">=", "1.8", "yes", "b"]);
        assert_eq!(cells(&text, "pins"), ["pins", "-", ">=", "1.8", "-", "not", "measurable", "here"]);
    }
}
