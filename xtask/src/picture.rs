//! `cargo xtask picture`: what the demo looks like on a terminal, for the README.

use std::path::Path;

use anstyle_svg::{Term, WIN10_CONSOLE};
use anyhow::{Context, Result, bail};

use crate::demo::SCENES;
use crate::screen::{ASIDE, HEADING};

const FILE: &str = "docs/demo.svg";
const COMMAND: &str = "cargo xtask demo";
/// In the closing lines of the steps before and after the scenes.
const BEFORE: &str = "] kernel ";
const AFTER: &str = "] scenes ";
const WIDTH_PX: usize = 740;

/// Writes the picture of a demo that has said `recording`.
pub(crate) fn write(project: &Path, recording: &str) -> Result<()> {
    let file = project.join(FILE);
    let svg = Term::new().palette(WIN10_CONSOLE).min_width_px(WIDTH_PX).render_svg(&excerpt(recording)?);
    std::fs::write(&file, svg).with_context(|| format!("writing {FILE}"))
}

/// The demo's steps and how it ends. What the scenes tell in between would not fit a page.
fn excerpt(recording: &str) -> Result<String> {
    let lines: Vec<&str> = recording.lines().collect();
    let line_with = |what: &str| lines.iter().position(|line| line.contains(what));
    let (Some(before), Some(after)) = (line_with(BEFORE), line_with(AFTER)) else {
        bail!("the demo has not shown its scenes");
    };
    let start = lines.get(..=before).unwrap_or_default().join("\n");
    let end = lines.get(after..).unwrap_or_default().join("\n");
    let left_out = after.saturating_sub(before + 1);
    Ok(format!(
        "{HEADING}$ {COMMAND}{HEADING:#}\n{start}\n  {ASIDE}({left_out} lines of {} scenes){ASIDE:#}\n{end}\n",
        SCENES.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_has_the_steps_and_the_end() {
        let recording = "[1/3] set-up ok\n[2/3] kernel ok\nScene a.  A\nScene b.  B\n[3/3] scenes ok\n1 passed\n";
        let text = excerpt(recording).unwrap();
        let plain = anstream::adapter::strip_str(&text).to_string();
        let lines: Vec<&str> = plain.lines().collect();
        let (start, end) =
            (["$ cargo xtask demo", "[1/3] set-up ok", "[2/3] kernel ok"], ["[3/3] scenes ok", "1 passed"]);
        assert_eq!(lines, [&start[..], &["  (2 lines of 8 scenes)"], &end].concat());
        assert!(excerpt("nothing").is_err());
    }
}
