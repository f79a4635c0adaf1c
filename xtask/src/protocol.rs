//! What the test kernel says on its serial line.
//!
//! A line that starts with `@` is for this program, every other line for people:
//!
//! ```text
//! @test <name> ok
//! @test <name> FAILED <why>
//! @bench <key> <number>
//! @scene <letter> begin <title>
//! @scene <letter> twin ok <what it has lost>
//! @scene <letter> twin FAILED <why>
//! @scene <letter> library ok
//! @scene <letter> library FAILED <why>
//! @done passed=<n> failed=<n>
//! ```
//!
//! The kernel may die at any byte, so nothing counts as success unless a complete `@done` agrees with the lines seen
//! before it.

/// One line of output, understood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Line {
    Human(String),
    Test {
        name: String,
        failure: Option<String>,
    },
    Bench {
        key: String,
        value: f64,
    },
    Scene {
        letter: char,
        news: News,
    },
    Done {
        passed: u64,
        failed: u64,
    },
    /// A machine line of a kind this program has no use for.
    Other,
    /// A machine line cut short or garbled: whatever it reported is lost.
    Garbled(String),
}

/// What happens in a scene of the demo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// With its title.
    Begin(String),
    /// What the twin has lost, or why that did not work.
    Twin(Result<String, String>),
    /// Why the library has failed, if it has.
    Library(Result<(), String>),
}

pub(crate) fn parse(line: &str) -> Line {
    let line = line.trim_end_matches(['\r', '\n']);
    let Some(machine) = line.strip_prefix('@') else {
        return Line::Human(line.to_owned());
    };
    let (verb, rest) = machine.split_once(' ').unwrap_or((machine, ""));
    let parsed = match verb {
        "test" => parse_test(rest),
        "bench" => parse_bench(rest),
        "scene" => parse_scene(rest),
        "done" => parse_done(rest),
        _ => Some(Line::Other),
    };
    parsed.unwrap_or_else(|| Line::Garbled(line.to_owned()))
}

fn parse_test(rest: &str) -> Option<Line> {
    let (name, result) = rest.split_once(' ')?;
    let (word, why) = result.split_once(' ').unwrap_or((result, ""));
    let failure = match word {
        "ok" if why.is_empty() => None,
        "FAILED" => Some(why.to_owned()),
        _ => return None,
    };
    if name.is_empty() { None } else { Some(Line::Test { name: name.to_owned(), failure }) }
}

fn parse_bench(rest: &str) -> Option<Line> {
    let (key, number) = rest.split_once(' ')?;
    let value: f64 = number.trim().parse().ok()?;
    // JSON has no infinities and no NaN, and neither is a measurement.
    if key.is_empty() || !value.is_finite() {
        return None;
    }
    Some(Line::Bench { key: key.to_owned(), value })
}

fn parse_scene(rest: &str) -> Option<Line> {
    let (letter, rest) = rest.split_once(' ')?;
    let (event, rest) = rest.split_once(' ')?;
    let mut letters = letter.chars();
    let (letter, None) = (letters.next()?, letters.next()) else { return None };
    let (word, text) = rest.split_once(' ').unwrap_or((rest, ""));
    let failure = || text.to_owned();
    let news = match (event, word) {
        ("begin", _) if !rest.is_empty() => News::Begin(rest.to_owned()),
        ("twin", "ok") if !text.is_empty() => News::Twin(Ok(text.to_owned())),
        ("twin", "FAILED") => News::Twin(Err(failure())),
        ("library", "ok") if text.is_empty() => News::Library(Ok(())),
        ("library", "FAILED") => News::Library(Err(failure())),
        _ => return None,
    };
    Some(Line::Scene { letter, news })
}

fn parse_done(rest: &str) -> Option<Line> {
    let mut words = rest.split_ascii_whitespace();
    let passed = words.next()?.strip_prefix("passed=")?.parse().ok()?;
    let failed = words.next()?.strip_prefix("failed=")?.parse().ok()?;
    if words.next().is_some() { None } else { Some(Line::Done { passed, failed }) }
}

/// Everything one boot reported.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    pub(crate) passed: u64,
    /// Name and reason of each failed test.
    pub(crate) failures: Vec<(String, String)>,
    /// In the order printed; a key printed twice keeps its last value.
    pub(crate) bench: Vec<(String, f64)>,
    pub(crate) done: Option<(u64, u64)>,
    pub(crate) garbled: Vec<String>,
}

impl Transcript {
    pub(crate) fn record(&mut self, line: &Line) {
        match line {
            Line::Human(_) | Line::Other | Line::Scene { .. } => {}
            Line::Test { failure: None, .. } => self.passed += 1,
            Line::Test { name, failure: Some(why) } => self.failures.push((name.clone(), why.clone())),
            Line::Bench { key, value } => match self.bench.iter_mut().find(|(known, _)| known == key) {
                Some((_, old)) => *old = *value,
                None => self.bench.push((key.clone(), *value)),
            },
            Line::Done { passed, failed } => self.done = Some((*passed, *failed)),
            Line::Garbled(line) => self.garbled.push(line.clone()),
        }
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failures.len() as u64
    }

    /// Why the test run as a whole cannot be believed, whatever the single tests said.
    pub(crate) fn objections(&self) -> Vec<String> {
        let mut found: Vec<String> =
            self.garbled.iter().map(|line| format!("unreadable line from the kernel: {line}")).collect();
        let seen = (self.passed, self.failed());
        match self.done {
            None => found.push("the kernel stopped without its closing @done line".to_owned()),
            Some(told) if told != seen => found.push(format!(
                "the kernel counted {} passed, {} failed, but reported {} and {}",
                told.0, told.1, seen.0, seen.1
            )),
            Some(_) => {}
        }
        if seen == (0, 0) {
            found.push("the kernel ran no test".to_owned());
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript(text: &str) -> Transcript {
        let mut transcript = Transcript::default();
        text.lines().for_each(|line| transcript.record(&parse(line)));
        transcript
    }

    #[test]
    fn well_formed_lines_are_understood() {
        assert_eq!(parse("hello @test"), Line::Human("hello @test".to_owned()));
        assert_eq!(parse("@test a::b ok\r\n"), Line::Test { name: "a::b".to_owned(), failure: None });
        let failure = Some("left 1, right 2".to_owned());
        assert_eq!(parse("@test x FAILED left 1, right 2"), Line::Test { name: "x".to_owned(), failure });
        assert_eq!(parse("@bench k 12.5"), Line::Bench { key: "k".to_owned(), value: 12.5 });
        assert_eq!(parse("@done passed=3 failed=0"), Line::Done { passed: 3, failed: 0 });
        assert_eq!(parse("@mode test"), Line::Other);
    }

    #[test]
    fn news_of_scenes_are_understood() {
        let news = |line| match parse(line) {
            Line::Scene { letter: 'a', news } => news,
            other => panic!("{line:?} was taken for {other:?}"),
        };
        assert_eq!(news("@scene a begin A device writes"), News::Begin("A device writes".to_owned()));
        assert_eq!(news("@scene a twin ok the device's bytes"), News::Twin(Ok("the device's bytes".to_owned())));
        assert_eq!(news("@scene a twin FAILED it lost nothing"), News::Twin(Err("it lost nothing".to_owned())));
        assert_eq!(news("@scene a library ok"), News::Library(Ok(())));
        assert_eq!(news("@scene a library FAILED why"), News::Library(Err("why".to_owned())));
        for line in ["@scene ab library ok", "@scene a library okay", "@scene a twin ok", "@scene a begin ", "@scene"] {
            assert_eq!(parse(line), Line::Garbled(line.to_owned()));
        }
    }

    #[test]
    fn every_truncation_of_a_machine_line_is_no_success() {
        for whole in
            ["@test fork_keeps_pins ok", "@bench unpin_4k 12.5", "@done passed=31 failed=0", "@scene a library ok"]
        {
            for end in 1..whole.len() {
                match parse(&whole[..end]) {
                    Line::Other | Line::Garbled(_) => {}
                    // A number cut short is still a number: the missing @done is what gives it away.
                    Line::Bench { .. } => assert!(whole.starts_with("@bench")),
                    other => panic!("{:?} was taken for {other:?}", &whole[..end]),
                }
            }
        }
    }

    #[test]
    fn numbers_that_json_cannot_hold_are_garbled() {
        for line in ["@bench k NaN", "@bench k inf", "@bench k", "@bench  1", "@done passed=-1 failed=0"] {
            assert_eq!(parse(line), Line::Garbled(line.to_owned()));
        }
    }

    #[test]
    fn complete_run_has_no_objection() {
        let run = transcript("boot\n@test a ok\n@test b FAILED why\n@done passed=1 failed=1");
        assert!(run.objections().is_empty());
        assert_eq!((run.passed, run.failed()), (1, 1));
    }

    #[test]
    fn missing_done_wrong_count_and_empty_run_are_objected_to() {
        assert_eq!(transcript("@test a ok\n@don").objections().len(), 1);
        assert_eq!(transcript("@test a ok\n@done passed=2 failed=0").objections().len(), 1);
        assert_eq!(transcript("@done passed=0 failed=0").objections().len(), 1);
        assert_eq!(transcript("").objections().len(), 2);
    }

    #[test]
    fn repeated_key_keeps_its_place_and_last_value() {
        let run = transcript("@bench a 1\n@bench b 2\n@bench a 3");
        assert_eq!(run.bench, [("a".to_owned(), 3.0), ("b".to_owned(), 2.0)]);
    }
}
