//! How a command ends: a table of its steps and the closing count for people, or one JSON object for programs.

use std::io::Write;

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::child::interrupt;
use crate::screen::{self, time};
use crate::steps::{Steps, first_line};
use crate::table::{self, Align};

/// What a command has to tell beyond its steps.
pub(crate) type Details = Map<String, Value>;

/// Prints the end of `command`. Whether there is nothing to complain about.
pub(crate) fn close(command: &str, steps: &Steps, details: Details, json: bool) -> Result<bool> {
    screen::say(format!("\n{}", table(steps)));
    if interrupt::received().is_some() {
        screen::say("Interrupted: that is how far it came.");
    }
    // Alone on its line, whatever else is printed.
    screen::say(format!("{} passed, {} failed", steps.passed(), steps.failed()));
    if json {
        writeln!(std::io::stdout(), "{:#}", object(command, steps, details))?;
    }
    Ok(steps.all_well())
}

fn table(steps: &Steps) -> String {
    let mut rows: Vec<Vec<String>> = steps
        .ended
        .iter()
        .map(|step| {
            let verdict = step.verdict.word().to_owned();
            vec![step.name.clone(), verdict, time(step.elapsed), first_line(&step.summary.note)]
        })
        .collect();
    rows.push(vec!["all".to_owned(), steps.verdict().word().to_owned(), time(steps.elapsed())]);
    let columns = [("step", Align::Left), ("result", Align::Left), ("time", Align::Right), ("", Align::Left)];
    table::render(&columns, &rows)
}

fn object(command: &str, steps: &Steps, details: Details) -> Value {
    let list: Vec<Value> = steps
        .ended
        .iter()
        .map(|step| {
            json!({
                "name": step.name,
                "result": step.verdict.word().to_lowercase(),
                "seconds": step.elapsed.as_secs_f64(),
                "passed": step.summary.passed,
                "failed": step.summary.failed,
                "note": step.summary.note,
                "log": step.log,
            })
        })
        .collect();
    let mut object = Map::new();
    object.insert("command".to_owned(), command.into());
    object.insert("ok".to_owned(), steps.all_well().into());
    object.insert("interrupted".to_owned(), interrupt::received().is_some().into());
    object.insert("seconds".to_owned(), steps.elapsed().as_secs_f64().into());
    object.insert("passed".to_owned(), steps.passed().into());
    object.insert("failed".to_owned(), steps.failed().into());
    object.insert("steps".to_owned(), list.into());
    object.extend(details);
    object.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::Show;
    use crate::steps::Summary;

    fn steps() -> Steps {
        let mut steps =
            Steps::new(&std::env::temp_dir().join(format!("pagepin-xtask-report-{}", std::process::id())), 2);
        steps.run("good", Show::Last, || Ok(Summary { note: "2 tests".to_owned(), passed: 2, failed: 0 }));
        steps.run("bad", Show::Last, || anyhow::bail!("broken\nin detail"));
        steps
    }

    #[test]
    fn programs_get_every_number_that_people_get() {
        let details = Map::from_iter([("scenes".to_owned(), json!(["a"]))]);
        let object = object("demo", &steps(), details);
        assert_eq!(object["command"], "demo");
        assert_eq!(object["ok"], false);
        assert_eq!((&object["passed"], &object["failed"]), (&json!(2), &json!(1)));
        assert_eq!(object["steps"][0]["result"], "ok");
        assert_eq!(object["steps"][1]["result"], "failed");
        assert_eq!(object["steps"][1]["note"], "broken\nin detail");
        assert!(object["steps"][1]["log"].as_str().unwrap().ends_with("target/xtask/bad.log"));
        assert_eq!(object["scenes"][0], "a");
    }

    #[test]
    fn the_table_has_one_line_for_each_step() {
        let table = table(&steps());
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 5);
        assert!(lines[2].starts_with("good") && lines[2].ends_with("2 tests"));
        assert!(lines[3].starts_with("bad") && lines[3].contains("FAILED") && lines[3].ends_with("broken"));
        assert!(lines[4].starts_with("all") && lines[4].contains("FAILED"));
    }
}
