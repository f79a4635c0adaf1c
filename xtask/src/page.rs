//! Pages under `docs/` of which a command writes one part, between two marks, and people write the rest.

use std::path::Path;

use anyhow::{Context, Result};

const BEGIN: &str = "<!-- measured -->\n";
const END: &str = "<!-- end -->\n";

pub(crate) struct Page {
    pub(crate) text: String,
}

impl Page {
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        Ok(Self { text })
    }

    /// What stands between the marks; empty without marks.
    pub(crate) fn measured(&self) -> &str {
        self.parts().map_or("", |(_, measured, _)| measured)
    }

    /// The page with `measured` between its marks.
    pub(crate) fn with(&self, measured: &str) -> Result<String> {
        let (before, _, after) = self.parts().context("the marks of what is measured are missing")?;
        Ok(format!("{before}{BEGIN}{measured}{END}{after}"))
    }

    fn parts(&self) -> Option<(&str, &str, &str)> {
        let (before, rest) = self.text.split_once(BEGIN)?;
        let (measured, after) = rest.split_once(END)?;
        Some((before, measured, after))
    }
}

/// Cells of the rows of a table that [`table`] has written, without its heading. What stands between the marks is nothing
/// else, so no parser of all Markdown is built before every command.
pub(crate) fn rows(table: &str) -> Vec<Vec<&str>> {
    let lines = table.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    lines.skip(1).map(|line| line.split('|').map(str::trim).collect()).collect()
}

/// A Markdown table whose first column is text and whose others are numbers.
pub(crate) fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[&str]| format!("| {} |\n", cells.join(" | "));
    let rules: String = headings.iter().skip(1).map(|_| "---:|").collect();
    let mut out = format!("{}|---|{rules}\n", line(headings));
    for row in rows {
        out.push_str(&line(&row.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_replaced_and_nothing_else() {
        let page = Page { text: format!("# A\n{BEGIN}old\n{END}b\n") };
        assert_eq!(page.measured(), "old\n");
        assert_eq!(page.with("new\n").unwrap(), format!("# A\n{BEGIN}new\n{END}b\n"));
        assert!(Page { text: "# A\n".to_owned() }.with("new").is_err());
    }

    #[test]
    fn tables_are_read_as_they_are_written() {
        let text = table(&["module", "n"], [vec!["src".to_owned(), "7".to_owned()]]);
        assert_eq!(text, "| module | n |\n|---|---:|\n| src | 7 |\n");
        assert_eq!(rows(&text), [["src", "7"]]);
    }
}
