//! The scenes, told to a person who sees them for the first time.

use alloc::vec::Vec;

use super::{
    Outcome,
    scenes::{CARDS, Card},
    storm,
};
use crate::{mm, println};

const INTRODUCTION: &[&str] = &[
    "pagepin keeps track of who may use which memory: processes that fork, and devices that read",
    "and write memory by themselves. This machine has both. Eight situations follow in which memory",
    "gets lost, each one twice: first with a TWIN, which leaves one thing out as small kernels do,",
    "then with PAGEPIN. The twin has to lose something, or nothing would be shown.",
    "",
    "The pictures show a page of a process, and the frame (4 KiB of real memory) behind it:",
    "  [E] exclusive: belongs to one process alone    [S] shared: whoever writes first gets a copy",
    "  [P] pinned: lent to a device, and stays put    [.] free",
    "A frame's references say how many processes and devices know it; pins are those that hold it.",
];

const RULE: &str = "------------------------------------------------------------------------------------------";

/// The letter of the storm.
const STORM: char = 'f';

/// What the two runs of a scene came to.
struct Result {
    /// Names of the test of the library and of its twin.
    tests: [&'static str; 2],
    library: Outcome,
    twin: Outcome,
}

/// All scenes, or those whose letters follow `scenes=`.
pub fn run(options: &str, report: &mut dyn FnMut(&str, Outcome)) {
    let letters = options.strip_prefix("scenes=");
    let wanted = |letter: char| letters.is_none_or(|letters| letters.contains(letter));
    println!("");
    INTRODUCTION.iter().for_each(|line| println!("  {line}"));
    println!("");
    mm::print_memory("memory before");
    let before = mm::free_frame_count();
    let mut results = Vec::new();
    let (before_storm, after_storm) = CARDS.split_at(CARDS.partition_point(|card| card.letter < STORM));
    results.extend(before_storm.iter().filter(|card| wanted(card.letter)).filter_map(play));
    results.extend(wanted(STORM).then(play_storm));
    results.extend(after_storm.iter().filter(|card| wanted(card.letter)).filter_map(play));
    println!("\n{RULE}\n");
    mm::print_memory("memory after");
    let after = mm::free_frame_count();
    if before == after && results.iter().all(|result| result.library.is_ok() && result.twin.is_ok()) {
        println!("\n  Every twin has lost something, and pagepin nothing. All memory is free again.\n");
    }
    for Result { tests, library, twin, .. } in results {
        report(tests[0], library);
        report(tests[1], twin);
    }
    let balance = if before == after { Ok(()) } else { Err(alloc::format!("{before} frames before, {after} after")) };
    report("as_many_frames_are_free_as_before", balance);
}

/// Of a scene that is over, both runs.
fn print_highest_pins(letter: char) {
    println!("@bench highest_pins_{letter} {}.00", mm::take_highest_pins());
}

fn head(letter: char, title: &str) {
    println!("@scene {letter} begin {title}");
    println!("\n{RULE}\nScene {letter}.  {title}\n{RULE}\n");
}

/// `None` if the machine is too small for the scene.
fn play(card: &'static Card) -> Option<Result> {
    head(card.letter, card.title);
    card.story.iter().for_each(|line| println!("  {line}"));
    if !card.has_cpus() {
        println!("\n  (Needs more CPUs than this machine has.)");
        return None;
    }
    println!("\n  TWIN: {}.\n", card.twin);
    let twin = card.run(true, true);
    judge_twin(card.letter, &twin, card.loss);
    println!("\n  PAGEPIN: {}.\n", card.library);
    let library = card.run(false, true);
    judge_library(card.letter, &library, "Nothing is lost.");
    print_highest_pins(card.letter);
    Some(Result { tests: [card.test(false), card.test(true)], library, twin })
}

/// The twin has to lose something.
fn judge_twin(letter: char, twin: &Outcome, loss: &str) {
    match twin {
        Ok(()) => println!("  => The twin has lost {loss}.\n@scene {letter} twin ok {loss}"),
        Err(why) => println!("  => NOT what the twin should do: {why}\n@scene {letter} twin FAILED {why}"),
    }
}

fn judge_library(letter: char, library: &Outcome, praise: &str) {
    match library {
        Ok(()) => println!("  => {praise}\n@scene {letter} library ok"),
        Err(why) => println!("  => FAILED: {why}\n@scene {letter} library FAILED {why}"),
    }
}

fn play_storm() -> Result {
    let title = "All CPUs at once, thousands of random operations";
    let letter = STORM;
    head(letter, title);
    println!("  Every CPU runs a process, with a second thread that pins the same memory. They map, unmap,");
    println!("  protect, fork, write, pin and let devices write, in an order that a seed decides, and each");
    println!("  knows what every byte must be, in base pages, in leaves of 2 MiB, and in a device's memory.");
    println!("\n  TWIN: plain references for the devices.\n");
    let twin = storm::run_once(storm::first_seed(), storm::TWIN_ROUNDS, true);
    judge_twin(letter, &twin, "bytes");
    println!("\n  PAGEPIN: pins.\n");
    let library = storm::run_once(storm::first_seed(), storm::ROUNDS, false);
    judge_library(letter, &library, "Every byte is right, every count is zero, and every frame is back.");
    print_highest_pins(letter);
    Result { tests: storm::TESTS, library, twin }
}
