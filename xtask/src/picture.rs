//! `cargo xtask picture`: what the demo looks like on a terminal, for the README.

use std::path::Path;

use anstyle_svg::Term;
use anyhow::{Context, Result, bail};

use crate::screen::{ASIDE, HEADING};

const FILE: &str = "docs/demo.svg";
const COMMAND: &str = "cargo xtask demo";
/// Where the first scene that is left out begins, and what stands after the last.
const SECOND_SCENE: &str = "Scene b.";
const CLOSING: &str = "] scenes ";
/// What a program of a person's terminal would have as its narrowest window.
const WIDTH_PX: usize = 740;

/// Writes the picture of a demo that has said `recording`.
pub(crate) fn write(project: &Path, recording: &str) -> Result<()> {
    let file = project.join(FILE);
    let svg = Term::new().min_width_px(WIDTH_PX).render_svg(&excerpt(recording)?);
    std::fs::write(&file, svg).with_context(|| format!("writing {FILE}"))
}

/// The demo's steps, its first scene, and how it ends. The other scenes would not fit a page.
fn excerpt(recording: &str) -> Result<String> {
    let lines: Vec<&str> = recording.lines().collect();
    let line_with = |what: &str| lines.iter().position(|line| line.contains(what));
    let (Some(cut), Some(closing)) = (line_with(SECOND_SCENE), line_with(CLOSING)) else {
        bail!("the demo has not shown its scenes");
    };
    // A rule stands above the scene's title.
    let before = lines.get(..cut.saturating_sub(1)).unwrap_or_default().join("\n");
    let after = lines.get(closing..).unwrap_or_default().join("\n");
    Ok(format!("{HEADING}$ {COMMAND}{HEADING:#}\n{before}\n  {ASIDE}(five more scenes){ASIDE:#}\n\n{after}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_has_the_first_scene_and_the_end() {
        let recording =
            "[1/3] set-up ok\n----\nScene a.  A\nstory\n----\nScene b.  B\nlong\n[3/3] scenes ok\n1 passed\n";
        let text = excerpt(recording).unwrap();
        let plain = anstream::adapter::strip_str(&text).to_string();
        let wanted = "$ cargo xtask demo\n[1/3] set-up ok\n----\nScene a.  A\nstory\n  (five more scenes)\n\n[3/3] scenes ok\n1 passed\n";
        assert_eq!(plain, wanted);
        assert!(excerpt("nothing").is_err());
    }
}
