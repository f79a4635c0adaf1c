//! Screens whose output a test can read.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use indicatif::{InMemoryTerm, TermLike};

use super::*;

#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// What is printed on a terminal appears above the bars.
struct Terminal(InMemoryTerm);

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_str(&String::from_utf8_lossy(bytes).replace('\n', "\r\n"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log_file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("pagepin-xtask-{}-{name}.log", std::process::id()))
}

fn plain() -> (Screen, Paper) {
    let paper = Paper::default();
    (Screen::new(paper.clone(), ProgressDrawTarget::hidden()), paper)
}

#[test]
fn without_a_terminal_a_step_is_two_lines_and_a_log() {
    let (mut screen, paper) = plain();
    let file = log_file("plain");
    screen.begin("[2/3] kernel", &file, Show::Last).unwrap();
    screen.log("Compiling x");
    screen.show("Compiling x");
    screen.end("[2/3] kernel ok", false);
    assert_eq!(paper.text(), "[2/3] kernel ...\n[2/3] kernel ok\n");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "Compiling x\n");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn the_end_of_the_log_is_shown_when_a_step_fails() {
    let (mut screen, paper) = plain();
    let file = log_file("failed");
    screen.begin("[1/1] build", &file, Show::Last).unwrap();
    (0..100).for_each(|line| screen.log(&format!("line {line}")));
    screen.end("[1/1] build FAILED", true);
    let text = paper.text();
    assert!(!text.contains("line 59\n") && text.contains("  line 60\n") && text.contains("  line 99\n"));
    assert!(text.contains(&file.display().to_string()));
    assert!(text.ends_with("[1/1] build FAILED\n"));
    std::fs::remove_file(file).unwrap();
}

#[test]
fn lines_that_the_person_came_for_are_shown_once() {
    let (mut screen, paper) = plain();
    let file = log_file("all");
    screen.begin("scenes", &file, Show::All).unwrap();
    screen.log("Scene a");
    screen.show("Scene a");
    screen.end("scenes FAILED", true);
    assert_eq!(paper.text(), "scenes ...\nScene a\nscenes FAILED\n");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn silence_is_broken_by_how_far_the_step_is() {
    let (mut screen, paper) = plain();
    let file = log_file("silence");
    screen.begin("[4/13] models", &file, Show::Last).unwrap();
    screen.sign_of_life(Duration::from_secs(3600));
    screen.log("  Compiling loom");
    screen.sign_of_life(Duration::ZERO);
    screen.progress(5, Some(19), "models");
    screen.sign_of_life(Duration::ZERO);
    let text = paper.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[1].starts_with("[4/13] models: ") && lines[1].ends_with(" s, Compiling loom"), "{text}");
    assert!(lines[2].starts_with("[4/13] models: ") && lines[2].ends_with(" s, 5 of 19 models"), "{text}");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_terminal_shows_a_bar_below_what_is_said() {
    let term = InMemoryTerm::new(10, 100);
    let target = ProgressDrawTarget::term_like_with_hz(Box::new(term.clone()), u8::MAX);
    let mut screen = Screen::new(Terminal(term.clone()), target);
    let file = log_file("terminal");
    screen.begin("[4/13] models", &file, Show::Last).unwrap();
    screen.progress(5, Some(19), "models");
    screen.show("  share x pin (wide)");
    screen.say("said");
    screen.step().unwrap().bar.tick();
    let contents = term.contents();
    let lines: Vec<&str> = contents.lines().collect();
    assert_eq!(lines.len(), 2, "{contents}");
    assert_eq!(lines[0], "said");
    let bar = lines[1];
    assert!(bar.contains("[4/13] models") && bar.contains("5/19") && bar.ends_with("share x pin (wide)"), "{bar}");
    screen.end("[4/13] models ok", false);
    assert_eq!(term.contents(), "said\n[4/13] models ok");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn what_is_said_is_recorded_and_signs_of_life_are_not() {
    let (mut screen, _) = plain();
    let file = log_file("record");
    screen.record = Some(String::new());
    screen.begin("[1/1] x", &file, Show::Last).unwrap();
    screen.sign_of_life(Duration::ZERO);
    screen.end("[1/1] x ok", false);
    screen.say("1 passed, 0 failed");
    assert_eq!(screen.record.as_deref(), Some("[1/1] x ok\n1 passed, 0 failed\n"));
    std::fs::remove_file(file).unwrap();
}

#[test]
fn times_are_short() {
    assert_eq!(step::time(Duration::from_millis(59_940)), "59.9 s");
    assert_eq!(step::time(Duration::from_secs(61)), "1 min 01 s");
}
