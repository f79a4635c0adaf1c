//! `cargo xtask bench`: instructions per page, beside Linux's. [`host`] measures nanoseconds instead.
//!
//! `benches/page` draws what was measured, and publishes it in the README.

pub(crate) mod host;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::child;
use crate::childenv::host_cargo;
use crate::image;
use crate::kernel::Profile;
use crate::linux::{self, FIGURES, Figure};
use crate::protocol::Line;
use crate::qemu::{Boot, Cpus, Echo, Image, Outcome};
use crate::report::Details;
use crate::screen::{self, Show};
use crate::steps::{Steps, Summary};
use crate::table::{self, Align};

const LIMIT: Duration = Duration::from_secs(600);

type Measured = [(String, f64)];

/// A missed target is a result, not a failure; a missing or unbelievable measurement is one.
///
/// What is published is what was just measured.
pub(crate) fn run(project: &Path, publish: bool) -> (Steps, Details) {
    let mut steps = Steps::new(project, image::STEPS + 2);
    let mut details = Details::new();
    if let Some(image) = image::build(&mut steps, project, Profile::Release) {
        let measured = steps.value("measure", Show::Last, || measure(project, &image));
        if measured.is_some() {
            steps.run("page", Show::Last, || draw(project, publish));
        }
        details.insert("figures".to_owned(), object(&measured.unwrap_or_default()).into());
    }
    (steps, details)
}

/// Draws the last runs on one page, and with `publish` writes the README's table and picture.
fn draw(project: &Path, publish: bool) -> Result<Summary> {
    let mut cargo = host_cargo(project);
    cargo.args(["run", "--package", "pagepin-bench-page", "--"]).args(publish.then_some("publish"));
    child::succeed(&cargo)?;
    Ok(Summary::note(if publish { "README.md, docs/bench.svg, target/bench.html" } else { "target/bench.html" }))
}

fn measure(project: &Path, image: &Image) -> Result<(Summary, Vec<(String, f64)>)> {
    let boot = Boot { image, mode: "bench", cpus: Cpus::Counted, limit: LIMIT, echo: Echo::Human };
    let total = Some(FIGURES.len() as u64);
    let mut seen = 0;
    let Outcome { transcript, failure } = boot.run_with(|line| {
        seen += u64::from(matches!(line, Line::Bench { .. }));
        screen::progress(seen, total.max(Some(seen)), "figures");
    })?;
    let measured = transcript.bench;
    screen::say(format!("\n{}\n{}", render(&measured), linux::PROVENANCE));
    screen::say(format!("This run: {}.", image.emulator_version()));
    let path = project.join("target/bench.json");
    std::fs::write(&path, json(&measured)?).with_context(|| format!("writing {}", path.display()))?;
    screen::say("Figures are in target/bench.json.\n");

    let mut complaints = complaints(&measured);
    complaints.extend(failure);
    complaints.extend(transcript.garbled.iter().map(|line| format!("unreadable: {line}")));
    complaints.extend(transcript.failures.iter().map(|(name, why)| format!("{name}: {why}")));
    let failed = complaints.len() as u64;
    let note = if failed == 0 { format!("{} figures", measured.len()) } else { complaints.join("\n") };
    Ok((Summary { note, passed: measured.len() as u64, failed }, measured))
}

fn value(measured: &Measured, key: &str) -> Option<f64> {
    measured.iter().find(|(known, _)| known == key).map(|(_, value)| *value)
}

fn complaints(measured: &Measured) -> Vec<String> {
    let mut found: Vec<String> = FIGURES
        .iter()
        .filter(|figure| value(measured, figure.key).is_none())
        .map(|figure| format!("{} was not measured", figure.key))
        .collect();
    if let Some(read) = value(measured, linux::CALIBRATION) {
        let expected = linux::CALIBRATION_VALUE;
        if (read - expected).abs() > linux::CALIBRATION_SLACK {
            found.push(format!(
                "{} reads {read}, not {expected}: the counter does not count instructions",
                linux::CALIBRATION
            ));
        }
    }
    found
}

/// The known figures in their order, then whatever else the kernel measured.
fn render(measured: &Measured) -> String {
    let known = FIGURES.iter().map(|figure| known_row(figure, value(measured, figure.key)));
    let extra = measured
        .iter()
        .filter(|(key, _)| FIGURES.iter().all(|figure| figure.key != key))
        .map(|(key, value)| vec![key.clone(), number(*value)]);
    let rows: Vec<Vec<String>> = known.chain(extra).collect();
    let columns = [
        ("key", Align::Left),
        ("pagepin", Align::Right),
        ("Linux 7.2", Align::Right),
        ("ratio", Align::Right),
        ("target", Align::Right),
        ("reached", Align::Left),
        ("", Align::Left),
    ];
    table::render(&columns, &rows)
}

fn known_row(figure: &Figure, measured: Option<f64>) -> Vec<String> {
    vec![
        figure.key.to_owned(),
        measured.map_or_else(|| "missing".to_owned(), number),
        figure.linux.map_or_else(|| "-".to_owned(), number),
        measured.zip(figure.linux).map_or_else(|| "-".to_owned(), |(value, linux)| format!("{:.3}", value / linux)),
        figure.target.map_or_else(|| "-".to_owned(), |target| format!("<= {target}")),
        reached(measured.zip(figure.target).map(|(value, target)| value <= target)),
        figure.note.to_owned(),
    ]
}

/// Whether a goal was reached, where there is one.
fn reached(verdict: Option<bool>) -> String {
    verdict.map_or("-", |reached| if reached { "yes" } else { "NO" }).to_owned()
}

fn number(value: f64) -> String {
    if value.abs() < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") }
}

/// One flat object, one number a key.
fn json(measured: &Measured) -> Result<String> {
    Ok(serde_json::to_string_pretty(&object(measured))? + "\n")
}

fn object(measured: &Measured) -> Map<String, Value> {
    measured.iter().map(|(key, value)| (key.clone(), Value::from(*value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> Vec<(String, f64)> {
        FIGURES.iter().map(|figure| (figure.key.to_owned(), figure.linux.unwrap_or(1.0))).collect()
    }

    fn row<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
        let line = text.lines().find(|line| line.split(' ').next() == Some(key));
        line.expect("a row").split_whitespace().collect()
    }

    #[test]
    fn targets_are_judged_per_row() {
        let text = render(&[("pin_fast_4k_b512".to_owned(), 22.0), ("unpin_4k".to_owned(), 15.1)]);
        assert_eq!(
            row(&text, "pin_fast_4k_b512")[..7],
            ["pin_fast_4k_b512", "22.0", "194.1", "0.113", "<=", "22", "yes"]
        );
        assert_eq!(row(&text, "unpin_4k")[..7], ["unpin_4k", "15.1", "86.4", "0.175", "<=", "12", "NO"]);
        assert_eq!(row(&text, "fork_4k")[1], "missing");
    }

    #[test]
    fn unknown_keys_get_rows_of_their_own() {
        let mut measured = complete();
        measured.push(("walk_5_level".to_owned(), 7.25));
        assert_eq!(row(&render(&measured), "walk_5_level"), ["walk_5_level", "7.25"]);
    }

    #[test]
    fn missing_key_and_wrong_calibration_are_complaints() {
        let mut measured = complete();
        assert!(complaints(&measured).is_empty());
        measured.retain(|(key, _)| key != "unpin_4k");
        assert_eq!(complaints(&measured), ["unpin_4k was not measured"]);
        let calibration = measured.last_mut().expect("calibration comes last");
        calibration.1 = 2.02;
        assert_eq!(complaints(&measured).len(), 2);
    }

    #[test]
    fn missed_target_is_no_complaint() {
        assert!(complaints(&complete()).is_empty());
    }

    #[test]
    fn json_is_flat_and_reads_back() {
        let text = json(&[("b".to_owned(), 1.5), ("a".to_owned(), 2.0)]).expect("finite numbers");
        let value: Value = serde_json::from_str(&text).expect("json");
        assert_eq!(value, serde_json::json!({ "a": 2.0, "b": 1.5 }));
    }
}
