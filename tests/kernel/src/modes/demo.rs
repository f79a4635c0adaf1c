//! The scenes, told to a person who sees them for the first time.

use alloc::vec::Vec;

use super::{
    Outcome,
    scenes::{CARDS, Card},
};
use crate::{mm, println};

const INTRODUCTION: &[&str] = &[
    "pagepin keeps track of who may use which memory: processes that fork, and devices that read",
    "and write memory by themselves. This machine has both. Five situations follow in which memory",
    "gets lost, each one twice: first with a TWIN, which leaves one thing out as small kernels do,",
    "then with PAGEPIN. The twin has to lose something, or nothing would be shown.",
    "",
    "The pictures show a page of a process, and the frame (4 KiB of real memory) behind it:",
    "  [E] exclusive: belongs to one process alone    [S] shared: whoever writes first gets a copy",
    "  [P] pinned: lent to a device, and stays put    [.] free",
    "A frame's references say how many processes and devices know it; pins are those that hold it.",
];

const RULE: &str = "------------------------------------------------------------------------------------------";

/// What the two runs of a scene came to.
struct Result {
    card: &'static Card,
    library: Outcome,
    twin: Outcome,
}

pub fn run(report: &mut dyn FnMut(&str, Outcome)) {
    println!("");
    INTRODUCTION.iter().for_each(|line| println!("  {line}"));
    println!("");
    mm::print_memory("memory before");
    let before = mm::free_frame_count();
    let results: Vec<_> = CARDS.iter().filter_map(play).collect();
    println!("\n{RULE}\n");
    mm::print_memory("memory after");
    let after = mm::free_frame_count();
    summarize(&results, before == after);
    for Result { card, library, twin } in results {
        report(card.test(false), library);
        report(card.test(true), twin);
    }
    let balance = if before == after { Ok(()) } else { Err(alloc::format!("{before} frames before, {after} after")) };
    report("as_many_frames_are_free_as_before", balance);
}

/// `None` if the machine is too small for the scene.
fn play(card: &'static Card) -> Option<Result> {
    println!("\n{RULE}\nScene {}.  {}\n{RULE}\n", card.letter, card.title);
    card.story.iter().for_each(|line| println!("  {line}"));
    if !card.has_cpus() {
        println!("\n  (Needs more CPUs than this machine has.)");
        return None;
    }
    println!("\n  TWIN: {}.\n", card.twin);
    let twin = card.run(true, true);
    match &twin {
        Ok(()) => println!("  => The twin has lost {}.", card.loss),
        Err(why) => println!("  => NOT what the twin should do: {why}"),
    }
    println!("\n  PAGEPIN: {}.\n", card.library);
    let library = card.run(false, true);
    match &library {
        Ok(()) => println!("  => Nothing is lost."),
        Err(why) => println!("  => FAILED: {why}"),
    }
    Some(Result { card, library, twin })
}

fn summarize(results: &[Result], balanced: bool) {
    println!("\n  {:<75}{:<8}pagepin", "", "twin");
    for Result { card, library, twin } in results {
        let twin = if twin.is_ok() { "loses" } else { "UNCLEAR" };
        let library = if library.is_ok() { "keeps" } else { "FAILED" };
        println!("  {}. {:<72}{twin:<8}{library}", card.letter, card.title);
    }
    if balanced && results.iter().all(|result| result.library.is_ok() && result.twin.is_ok()) {
        println!("\n  Every twin has lost something, and pagepin nothing. All memory is free again.\n");
    }
}
