//! What `loom` and `shuttle` have in common: packages under `tests/models` that run models and their negative twins.

use std::process::Command;

use anyhow::{Result, bail};

use crate::child;
use crate::screen;
use crate::steps::Summary;

/// The names in a package's list, which its program compares with the models that it has.
pub(crate) fn names(list: &'static str) -> impl Iterator<Item = &'static str> + Clone {
    list.lines().filter(|line| !line.is_empty())
}

/// A part of at least one name.
pub(crate) fn part(text: &str, list: &'static str) -> Result<String, String> {
    if names(list).any(|name| name.contains(text)) {
        return Ok(text.to_owned());
    }
    let known: String = names(list).map(|name| format!("\n  {name}")).collect();
    Err(format!("it is part of no name; these are known:{known}"))
}

/// What the lines so far came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    models: u64,
    total: u64,
    passed: u64,
    failed: u64,
    totals: String,
}

impl Count {
    fn read(&mut self, line: &str) {
        if let Some((models, total)) = counter(line) {
            (self.models, self.total) = (models, total);
            self.judge(!line.contains(" FAILED in "));
        } else if line.trim_start().starts_with("without ") {
            self.judge(line.contains(" caught in ") && !line.contains("NOT CAUGHT"));
        } else if line.contains(" twins caught, ") {
            line.clone_into(&mut self.totals);
        }
    }

    fn judge(&mut self, good: bool) {
        *(if good { &mut self.passed } else { &mut self.failed }) += 1;
    }
}

/// The numbers of a line such as `[ 3/19] share x pin (wide) …`.
fn counter(line: &str) -> Option<(u64, u64)> {
    let (counter, _) = line.strip_prefix('[')?.split_once(']')?;
    let (models, total) = counter.split_once('/')?;
    Some((models.trim().parse().ok()?, total.parse().ok()?))
}

/// Runs a package of models. Every model has to hold, and every twin to be caught.
pub(crate) fn run(cargo: &Command, unit: &'static str) -> Result<Summary> {
    let mut count = Count::default();
    let status = child::watch(cargo, |_, line| {
        screen::output(line);
        count.read(line);
        if count.total != 0 {
            screen::progress(count.models, Some(count.total), unit);
        }
    })?;
    if !status.success() && count.failed == 0 {
        bail!("the program ended with {status}");
    }
    let note = if status.success() { count.totals } else { "one failed, or its twin was not caught".to_owned() };
    Ok(Summary { note, passed: count.passed, failed: count.failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "share x pin (wide)\nshare x pin (split)\nmix\n";

    #[test]
    fn parts_of_names_are_known_and_others_are_refused_with_the_list() {
        assert_eq!(part("pin", LIST), Ok("pin".to_owned()));
        let refused = part("pine", LIST).unwrap_err();
        assert!(refused.contains("\n  share x pin (split)") && refused.ends_with("\n  mix"));
    }

    #[test]
    fn models_and_twins_are_counted() {
        let mut count = Count::default();
        for line in [
            "    Finished `release` profile",
            "[ 1/3] share x pin (wide)             12 executions  (all)  0.1 s",
            "          without PinBit               caught in execution 3: lost",
            "[ 2/3] mix                            FAILED in random schedule 7",
            "          without Flush                NOT CAUGHT AS EXPECTED in execution 0: nothing was noticed",
            "2 models, 12 executions, 1 twins caught, 2 failures, 3 s",
        ] {
            count.read(line);
        }
        assert_eq!((count.models, count.total), (2, 3));
        assert_eq!((count.passed, count.failed), (2, 2));
        assert!(count.totals.starts_with("2 models"));
    }

    #[test]
    fn the_lists_name_each_model_once() {
        for list in [crate::loom::NAMES, crate::shuttle::NAMES] {
            let names: Vec<_> = names(list).collect();
            assert!(!names.is_empty());
            assert!(names.iter().enumerate().all(|(index, name)| !names[..index].contains(name)));
        }
    }
}
