//! `cargo xtask demo`: boots the kernel for its scenes, and sums up what each has shown.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::image;
use crate::kernel::{self, Profile};
use crate::protocol::{Line, News};
use crate::qemu::{Boot, Cpus, Echo, Image};
use crate::report::Details;
use crate::screen::{self, AS_PLANNED, ASIDE, BAD, GOOD, HEADING, Show, time};
use crate::steps::{Steps, Summary};

/// The scenes by their letters, as the kernel has them.
pub(crate) const SCENES: [(&str, &str); 8] = [
    ("a", "A device writes into a page while its process forks"),
    ("b", "A device reads a page that its process writes after a fork"),
    ("c", "A child keeps a reference to a page it has unmapped (CVE-2020-29374)"),
    ("d", "A page that fork has shared is pinned for reading, and written then"),
    ("e", "Three threads, one page, an outdated translation (golang/go 34988)"),
    ("f", "All CPUs at once, thousands of random operations"),
    ("g", "A driver forgets what it has pinned, and the process ends"),
    ("h", "Memory is wanted back from three drivers while a device is at work"),
];
const INTRODUCTION: &str =
    "Each scene ran twice: a twin that leaves one thing out must lose something, pagepin nothing.";
const LIMIT: Duration = Duration::from_secs(300);
/// Columns of a title in the summary.
const TITLE_WIDTH: usize = 72;

/// A scene as far as it has come.
#[derive(Debug)]
struct Scene {
    letter: char,
    title: String,
    start: Instant,
    elapsed: Duration,
    twin: Option<Result<String, String>>,
    library: Option<Result<(), String>>,
}

/// Shows the scenes in `wanted`; none: all.
pub(crate) fn run(project: &Path, wanted: &[String]) -> (Steps, Details) {
    let mut steps = Steps::new(project, image::STEPS + 1);
    let mut scenes = Scenes::default();
    if let Some(image) = image::build(&mut steps, project, Profile::Release) {
        let letters = letters(wanted);
        steps.run("scenes", Show::All, || show(&image, &letters, &mut scenes));
    }
    if !scenes.0.is_empty() {
        screen::say(format!("\n{INTRODUCTION}\n{}", scenes.render()));
        screen::say(format!("{ASIDE}The whole story of each scene: target/xtask/scenes.log{ASIDE:#}"));
    }
    (steps, Details::from_iter([("scenes".to_owned(), scenes.json())]))
}

/// In the kernel's order, each once.
fn letters(wanted: &[String]) -> String {
    SCENES.iter().map(|(letter, _)| *letter).filter(|l| wanted.is_empty() || wanted.iter().any(|w| w == l)).collect()
}

fn show(image: &Image, letters: &str, scenes: &mut Scenes) -> Result<Summary> {
    let mode = format!("demo:scenes={letters}");
    let total = letters.len() as u64;
    let boot = Boot { image, mode: &mode, cpus: Cpus::Threads(4), limit: LIMIT, echo: Echo::Human };
    let outcome = boot.run_with(|line| {
        if let Line::Scene { letter, news } = line {
            scenes.record(*letter, news.clone(), Instant::now());
            screen::progress(scenes.ended(), Some(total), "scenes");
        }
    })?;
    let summary = kernel::judge(&outcome);
    if summary.failed == 0 && scenes.ended() != total {
        bail!("{} of {total} scenes were shown", scenes.ended());
    }
    if let Some(scene) = scenes.0.iter().find(|scene| !scene.is_listed()) {
        bail!("the list of scenes does not have {}: {}", scene.letter, scene.title);
    }
    Ok(summary)
}

#[derive(Debug, Default)]
struct Scenes(Vec<Scene>);

impl Scenes {
    fn record(&mut self, letter: char, news: News, now: Instant) {
        let (twin, library) = (None, None);
        if let News::Begin(title) = news {
            return self.0.push(Scene { letter, title, start: now, elapsed: Duration::ZERO, twin, library });
        }
        let Some(scene) = self.0.iter_mut().find(|scene| scene.letter == letter) else { return };
        scene.elapsed = now.duration_since(scene.start);
        match news {
            News::Begin(_) => {}
            News::Twin(result) => scene.twin = Some(result),
            News::Library(result) => scene.library = Some(result),
        }
    }

    fn ended(&self) -> u64 {
        self.0.iter().filter(|scene| scene.twin.is_some() && scene.library.is_some()).count() as u64
    }

    /// Two lines for each scene.
    fn render(&self) -> String {
        self.0.iter().map(Scene::render).collect::<Vec<_>>().join("\n")
    }

    fn json(&self) -> Value {
        self.0.iter().map(Scene::json).collect()
    }
}

impl Scene {
    fn is_listed(&self) -> bool {
        SCENES.iter().any(|(letter, title)| letter.chars().eq([self.letter]) && *title == self.title)
    }

    fn render(&self) -> String {
        let Self { letter, title, elapsed, .. } = self;
        let elapsed = time(*elapsed);
        let twin = match &self.twin {
            Some(Ok(loss)) => format!("{AS_PLANNED}twin{AS_PLANNED:#} loses {loss}"),
            Some(Err(why)) => format!("{BAD}twin UNCLEAR{BAD:#}: {why}"),
            None => format!("{BAD}twin did not end{BAD:#}"),
        };
        let library = match &self.library {
            Some(Ok(())) => format!("{GOOD}pagepin{GOOD:#} loses nothing"),
            Some(Err(why)) => format!("{BAD}pagepin FAILED{BAD:#}: {why}"),
            None => format!("{BAD}pagepin did not end{BAD:#}"),
        };
        format!("{HEADING}{letter}  {title:<TITLE_WIDTH$}{HEADING:#} {elapsed:>10}\n   {twin}; {library}")
    }

    fn json(&self) -> Value {
        json!({
            "scene": self.letter.to_string(),
            "title": self.title,
            "seconds": self.elapsed.as_secs_f64(),
            "twin_loses": self.twin.as_ref().and_then(|twin| twin.as_ref().ok()),
            "pagepin_ok": matches!(self.library, Some(Ok(()))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(letters: &[&str]) -> Vec<String> {
        letters.iter().map(|letter| (*letter).to_owned()).collect()
    }

    #[test]
    fn scenes_are_shown_in_the_kernels_order_each_once() {
        assert_eq!(letters(&[]), "abcdefgh");
        assert_eq!(letters(&strings(&["f", "b", "b"])), "bf");
    }

    fn told() -> Scenes {
        let start = Instant::now();
        let mut scenes = Scenes::default();
        let mut tell = |letter, news, after| scenes.record(letter, news, start + Duration::from_millis(after));
        tell('a', News::Begin("A device writes".to_owned()), 0);
        tell('a', News::Twin(Ok("the device's bytes".to_owned())), 700);
        tell('a', News::Library(Ok(())), 1500);
        tell('b', News::Begin("A device reads".to_owned()), 1500);
        tell('b', News::Twin(Err("it lost nothing".to_owned())), 1600);
        scenes
    }

    #[test]
    fn a_scene_has_ended_when_twin_and_library_have() {
        assert_eq!(told().ended(), 1);
    }

    #[test]
    fn the_summary_tells_loss_time_and_what_went_wrong() {
        let text = told().render();
        let plain = anstream::adapter::strip_str(&text).to_string();
        let lines: Vec<&str> = plain.lines().collect();
        assert!(lines[0].starts_with("a  A device writes") && lines[0].ends_with(" 1.5 s"));
        assert_eq!(lines[1], "   twin loses the device's bytes; pagepin loses nothing");
        assert_eq!(lines[3], "   twin UNCLEAR: it lost nothing; pagepin did not end");
    }

    #[test]
    fn programs_learn_the_same() {
        let json = told().json();
        assert_eq!(json[0]["twin_loses"], "the device's bytes");
        assert_eq!(json[0]["seconds"], 1.5);
        assert_eq!((&json[0]["pagepin_ok"], &json[1]["pagepin_ok"]), (&json!(true), &json!(false)));
        assert_eq!(json[1]["twin_loses"], Value::Null);
    }
}
