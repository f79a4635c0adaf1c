//! The scores of files in `docs/MUTANTS.md`, each with the state in which the file was tested; the reviewed survivors there.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::page::{self, Page};

const HEADINGS: [&str; 8] =
    ["file", "mutants", "do not build", "caught", "of these by time", "survive", "tested on", "as"];
const TOTAL: &str = "**all**";
/// Letters of an id in the page.
const SHORT: usize = 10;
/// Files that were not tested yet are named if there are no more.
const NAMED: usize = 20;

/// How the mutants of one file ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Score {
    pub(super) unviable: u64,
    pub(super) caught: u64,
    pub(super) timeouts: u64,
    pub(super) survivors: u64,
}

impl Score {
    fn plus(self, other: Self) -> Self {
        Self {
            unviable: self.unviable + other.unviable,
            caught: self.caught + other.caught,
            timeouts: self.timeouts + other.timeouts,
            survivors: self.survivors + other.survivors,
        }
    }
}

/// When a file was tested, and the id that git gives to what was in it then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tested {
    day: String,
    id: String,
}

impl Tested {
    pub(super) fn today(id: &str) -> Self {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { day: day(seconds / 86_400), id: id.chars().take(SHORT).collect() }
    }

    pub(super) fn is_of(&self, id: &str) -> bool {
        id.starts_with(&self.id)
    }
}

/// Year, month and day of a day since 1970 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn day(since_1970: u64) -> String {
    let shifted = since_1970 + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{:02}", of_year - (153 * from_march + 2) / 5 + 1)
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scores(BTreeMap<String, (Score, Tested)>);

impl Scores {
    pub(super) fn of(page: &Page) -> Self {
        let row = |cells: Vec<&str>| {
            let number = |column: usize| cells.get(column)?.parse().ok();
            let score = Score { unviable: number(2)?, caught: number(3)?, timeouts: number(4)?, survivors: number(5)? };
            let tested = Tested { day: (*cells.get(6)?).to_owned(), id: (*cells.get(7)?).to_owned() };
            (cells[0] != TOTAL).then(|| (cells[0].to_owned(), (score, tested)))
        };
        Self(page::rows(page.measured()).into_iter().filter_map(row).collect())
    }

    pub(super) fn tested(&self, file: &str) -> Option<&Tested> {
        self.0.get(file).map(|(_, tested)| tested)
    }

    pub(super) fn set(&mut self, file: &str, score: Score, tested: Tested) {
        self.0.insert(file.to_owned(), (score, tested));
    }

    /// What the page says, of these files of the library, with how many survivors no test on the host can tell from the library, and
    /// the survivors that nobody has reviewed.
    pub(super) fn render(&self, library: &[String], beyond: u64, unreviewed: &[String]) -> String {
        let mut text = self.table(library, beyond);
        if !unreviewed.is_empty() {
            let list = counted(unreviewed);
            text += &format!(
                "\nNobody has said yet why these may survive ({}):\n\n{UNREVIEWED}{list}```\n",
                unreviewed.len()
            );
        }
        text
    }

    fn table(&self, library: &[String], beyond: u64) -> String {
        let row = |name: &str, score: Score, day: &str, id: &str| {
            let Score { unviable, caught, timeouts, survivors } = score;
            let numbers = [unviable + caught + survivors, unviable, caught, timeouts, survivors];
            let ends = [day.to_owned(), id.to_owned()];
            [name.to_owned()].into_iter().chain(numbers.map(|number| number.to_string())).chain(ends).collect()
        };
        let there: Vec<_> = self.0.iter().filter(|(file, _)| library.contains(file)).collect();
        let total = there.iter().fold(Score::default(), |sum, (_, (score, _))| sum.plus(*score));
        let rows = there.iter().map(|(file, (score, tested))| row(file, *score, &tested.day, &tested.id));
        let table = page::table(&HEADINGS, rows.chain([row(TOTAL, total, "", "")]));
        let share = |of: u64| 100.0 * total.caught as f64 / of.max(1) as f64;
        let built = total.caught + total.survivors;
        let missing: Vec<_> =
            library.iter().filter(|file| !self.0.contains_key(*file)).map(|f| format!("`{f}`")).collect();
        let of_these = format!(
            "Of those that build, {:.1} % are caught; without the {beyond} that are the same program, or run in a kernel alone, {:.1} %.",
            share(built),
            share(built.saturating_sub(beyond)),
        );
        if missing.is_empty() {
            return format!("{table}\n{of_these} Every file of the library is here.\n");
        }
        let (seen, all) = (library.len() - missing.len(), library.len());
        if missing.len() > NAMED {
            return format!("{table}\n{of_these} {seen} of {all} files are here; the others were not tested yet.\n");
        }
        format!("{table}\n{of_these} {seen} of {all} files are here. Not yet tested: {}.\n", missing.join(", "))
    }
}

/// How the list of survivors begins that wait for a test or a reason.
const UNREVIEWED: &str = "```survivors\n";

/// How the list of survivors begins that have a reason. The first may do something else, the others cannot: they are the same program
/// in other words, or what no host can run.
const REVIEWED: &str = "```text\n";
const BEYOND: [&str; 2] = ["```equal\n", "```kernel\n"];

/// The mutants in the page's fences, each as often as it may survive: a line for each, or one with a number before it.
pub(super) fn reviewed(page: &str) -> Vec<String> {
    [listed(page, REVIEWED), beyond(page)].concat()
}

/// Those among them that no test on the host can tell from the library.
pub(super) fn beyond(page: &str) -> Vec<String> {
    BEYOND.iter().flat_map(|fence| listed(page, fence)).collect()
}

/// Those that wait for a review.
pub(super) fn unreviewed(page: &str) -> Vec<String> {
    listed(page, UNREVIEWED)
}

fn listed(page: &str, fence: &str) -> Vec<String> {
    let fences = page.split(fence).skip(1).filter_map(|part| part.split("```").next());
    let times = |line: &str| match line.split_once(" x ").map(|(count, mutant)| (count.parse(), mutant.to_owned())) {
        Some((Ok(count), mutant)) => vec![mutant; count],
        _ => vec![line.to_owned()],
    };
    fences.flat_map(str::lines).flat_map(times).collect()
}

/// A line for each, those that are alike in one.
fn counted(mutants: &[String]) -> String {
    let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
    mutants.iter().for_each(|mutant| *counts.entry(mutant).or_default() += 1);
    let line = |(mutant, count): (&&String, &usize)| match count {
        1 => format!("{mutant}\n"),
        _ => format!("{count} x {mutant}\n"),
    };
    counts.iter().map(line).collect()
}

/// What `these` has and `those` has not, or has less often.
pub(super) fn unmatched(these: &[String], those: &[String]) -> Vec<String> {
    let mut those = those.to_vec();
    let is_surplus = |mutant: &&String| match those.iter().position(|other| other == *mutant) {
        Some(found) => {
            those.swap_remove(found);
            false
        }
        None => true,
    };
    these.iter().filter(is_surplus).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(
            [0, 58, 59, 11_016, 11_017, 20_000].map(day),
            ["1970-01-01", "1970-02-28", "1970-03-01", "2000-02-29", "2000-03-01", "2024-10-04",]
        );
    }

    #[test]
    fn a_reviewed_mutant_may_survive_as_often_as_it_is_listed() {
        let page = "text\n```text\n2 x a: x\n```\nmore\n```equal\nb: y\n```\n```survivors\n2 x c: z\n```\n";
        let reviewed = reviewed(page);
        assert_eq!(reviewed, strings(&["a: x", "a: x", "b: y"]));
        assert_eq!(beyond(page), strings(&["b: y"]));
        assert_eq!(unreviewed(page), strings(&["c: z", "c: z"]));
        assert_eq!(counted(&reviewed), "2 x a: x\nb: y\n");
        assert_eq!(unmatched(&strings(&["a: x", "a: x", "a: x"]), &reviewed), strings(&["a: x"]));
        assert_eq!(unmatched(&reviewed, &strings(&["a: x", "b: y"])), strings(&["a: x"]));
    }

    #[test]
    fn files_that_were_not_run_keep_their_score_and_the_state_it_is_of() {
        let score = Score { unviable: 1, caught: 5, timeouts: 2, survivors: 3 };
        let tested = |id: &str| Tested { day: "2026-01-02".to_owned(), id: id.to_owned() };
        let library = strings(&["src/a", "src/b", "src/c"]);
        let mut scores = Scores(BTreeMap::new());
        scores.set("src/a", score, tested("aaaa"));
        scores.set("src/gone", score, tested("cccc"));
        let page = |scores: &Scores| {
            let text = "<!-- measured -->\n<!-- end -->\n".to_owned();
            Page { text: Page { text }.with(&scores.render(&library, 1, &[])).unwrap() }
        };
        let mut scores = Scores::of(&page(&scores));
        assert_eq!(scores.tested("src/gone"), None, "it is no file any more");
        scores.set("src/b", Score { caught: 7, ..Score::default() }, tested("bbbb"));
        let page = page(&scores);
        assert_eq!(Scores::of(&page), scores);
        assert!(scores.tested("src/a").unwrap().is_of("aaaa5678") && !scores.tested("src/a").unwrap().is_of("aab"));
        assert!(page.measured().contains("| src/a | 9 | 1 | 5 | 2 | 3 | 2026-01-02 | aaaa |"));
        assert!(page.measured().contains("| **all** | 16 | 1 | 12 | 2 | 3 |  |  |"));
        assert!(page.measured().ends_with("80.0 % are caught; without the 1 that are the same program, or run in a kernel alone, 85.7 %. 2 of 3 files are here. Not yet tested: `src/c`.\n"));
    }
}
