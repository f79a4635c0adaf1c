//! What each operation does to a page that is held: run here, one after the other, and printed as a page of the documentation.

use std::fmt::Write as _;

use pagepin::frame::Wide;
use pagepin::pin::{Read, Write};
use pagepin::space::{Copies, Sharing};
use pagepin::{MapOptions, ObjectId, Pfn, Rights, VmaFlags, Zone};

use crate::machine::{A, FAR, Machine, PAGE, Process, RW};

const FILE: ObjectId = ObjectId(3);

type Kernel = Machine<Wide>;

/// Whose page it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Private,
    Shared,
}

/// How it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Pin,
    Get,
}

struct Scene<'s, 'm> {
    kernel: &'m Kernel,
    process: &'s Process<'m, Wide>,
    page: Page,
    frame: Pfn,
}

struct Operation {
    name: &'static str,
    /// Of the VMA.
    flags: VmaFlags,
    /// What it says for itself: the result of the call, in words.
    run: fn(&Scene<'_, '_>) -> String,
}

const fn on(name: &'static str, flags: VmaFlags, run: fn(&Scene<'_, '_>) -> String) -> Operation {
    Operation { name, flags, run }
}

const NONE: VmaFlags = VmaFlags::empty();

const OPERATIONS: &[Operation] = &[
    on("a write by its process", NONE, |s| {
        s.kernel.put(s.process, A, 2);
        String::new()
    }),
    on("fork", NONE, |s| {
        let child = s.process.fork().unwrap();
        let child_has = match s.kernel.leaf(&child, A) {
            None => "the child asks the object",
            Some(leaf) if leaf.frame() == s.frame => "the child has it too, until one writes",
            Some(_) => "the child has a copy at once",
        };
        child_has.into()
    }),
    on("fork, then a write by its process", NONE, |s| {
        let child = s.process.fork().unwrap();
        s.kernel.put(s.process, A, 2);
        drop(child);
        String::new()
    }),
    on("fork with `DONT_FORK`", NONE, |s| {
        s.process.advise(A, PAGE, pagepin::space::Advice::DontFork).unwrap();
        let child = s.process.fork().unwrap();
        assert!(child.vmas().next().is_none());
        "the child has nothing".into()
    }),
    on("protect (to read-only and back)", NONE, |s| {
        s.process.protect(A, PAGE, Rights::READ).unwrap();
        s.process.protect(A, PAGE, RW).unwrap();
        s.kernel.put(s.process, A, 2);
        String::new()
    }),
    on("move (`mremap`)", NONE, |s| {
        s.process.move_pages(A, PAGE, FAR).unwrap();
        let frame = s.kernel.frame_at(s.process, FAR).0;
        s.process.move_pages(FAR, PAGE, A).unwrap();
        assert_eq!(frame, s.frame);
        "goes along".into()
    }),
    on("discard (`MADV_DONTNEED`)", NONE, |s| report(s.process.discard(A, PAGE).unwrap().pinned_pages)),
    on("free lazily (`MADV_FREE`), and memory runs out", NONE, |s| {
        s.process.free_lazily(A, PAGE).unwrap();
        let taken = s.process.reclaim_freed(A, PAGE).unwrap();
        match (taken.pages, taken.pinned_pages, taken.shared_pages) {
            (0, 0, 0) => "passed over".into(),
            (0, 0, _) => "stays, and is counted as shared".into(),
            (0, ..) => "stays, and is counted as pinned".into(),
            _ => "goes".into(),
        }
    }),
    on("unmap", NONE, |s| report(s.process.unmap(A, PAGE).unwrap().pinned_pages)),
    on("unmap, `REFUSE_UNMAP_PINNED`", VmaFlags::REFUSE_UNMAP_PINNED, |s| match s.process.unmap(A, PAGE) {
        Ok(_) => "unmapped".into(),
        Err(error) => refused(&format!("{error:?}")),
    }),
    on("unmap, `DEFER_UNMAP_PINNED`", VmaFlags::DEFER_UNMAP_PINNED, |s| {
        let unmapped = s.process.unmap(A, PAGE).unwrap();
        if unmapped.deferred_pages == 0 { "unmapped".into() } else { "waits until it is unpinned".into() }
    }),
    on("swap out", NONE, |s| {
        let out = s.process.swap_out(A, PAGE).unwrap();
        match (out.pages, out.pinned_pages) {
            (0, 0) => "passed over".into(),
            (0, _) => "stays, and is counted".into(),
            _ => "goes".into(),
        }
    }),
    on("relocate", NONE, |s| {
        let moved = s.process.relocate(A, PAGE, Zone::Unmovable).unwrap();
        match (moved.pages, moved.pinned_pages, moved.shared_pages) {
            (0, 0, 0) => "passed over".into(),
            (0, 0, _) => "stays, and is counted as shared".into(),
            (0, _, _) => "stays, and is counted as pinned".into(),
            _ => "gets another frame".into(),
        }
    }),
    on("merge", NONE, |s| {
        let twin = s.kernel.populated(1, 1);
        match s.process.merge(A, &twin, A) {
            Ok(()) => "becomes one with the other".into(),
            Err(error) => refused(&format!("{error:?}")),
        }
    }),
    on("begin of write-back (`try_close`)", NONE, |s| {
        if s.page == Page::Private {
            return "passed over".into();
        }
        match s.kernel.begin_writeback(FILE, 0) {
            Ok(_) => {
                s.kernel.end_writeback(FILE, 0);
                "begins".into()
            }
            Err(error) => refused(&format!("{error:?}")),
        }
    }),
    on("truncate (`forget_object`)", NONE, |s| {
        if s.page == Page::Private {
            return "passed over".into();
        }
        s.kernel.cut(FILE, 0);
        report(s.process.forget_object(FILE, 0..u32::MAX, Copies::Forget).unwrap().pinned_pages)
    }),
];

fn refused(error: &str) -> String {
    format!("refused: `{error}`")
}

fn report(pinned: u64) -> String {
    if pinned == 0 { "goes".into() } else { "goes, and its frame is reported".into() }
}

/// What `operation` does to such a page, and whether the device and the process see one page after it.
fn cell(operation: &Operation, page: Page, hold: Hold) -> String {
    let machine = Kernel::new(64);
    let kernel = &machine;
    let process = kernel.process();
    kernel.shelf().add(FILE, 1);
    let options = MapOptions::new(RW).flags(operation.flags);
    match page {
        Page::Private => process.map(A, PAGE, options).unwrap(),
        Page::Shared => process.map_object(A, PAGE, FILE, 0, Sharing::Shared, options).unwrap(),
    }
    kernel.put(&process, A, 1);
    let pin = (hold == Hold::Pin).then(|| kernel.pin::<Write>(&process, A, 1).unwrap());
    let get = (hold == Hold::Get).then(|| kernel.reference::<Read>(&process, A, 1).unwrap());
    let frame = kernel.frame_at(&process, A).0;
    let said = (operation.run)(&Scene { kernel, process: &process, page, frame });
    let mapped = kernel.leaf(&process, A).is_some_and(|leaf| leaf.frame() == frame);
    kernel.dma_write(frame.address(), &[9]);
    let together = kernel.load(0, &process, A, 1) == Ok(9);
    let may_see = process.vmas().any(|vma| !vma.unwrap().flags().contains(VmaFlags::UNMAP_DEFERRED));
    assert!(together || !mapped || !may_see, "{}", operation.name);
    // Whatever was done with it, the device has it until it is let go.
    assert_eq!(kernel.dma_read(frame.address()), 9);
    drop((pin, get));
    drop(process);
    machine.clear_shelf();
    let still = if together { "one page" } else { "apart" };
    if said.is_empty() { still.into() } else { format!("{said}; {still}") }
}

fn page() -> String {
    let mut page = String::from(
        "# What happens to a page that is held\n\nA page is pinned for writing, or got for reading, and then an operation comes. Each cell \
         is what the call\nanswers, and whether the device and the process see *one page* after it, or are *apart*. A test runs \
         all of it and keeps\nthis page up to date (`PAGEPIN_BLESS=1 cargo test --all-features --test host pinned_page` rewrites it).\n\n",
    );
    page += "| | private, pinned | private, got | an object's, pinned | an object's, got |\n|---|---|---|---|---|\n";
    for operation in OPERATIONS {
        let columns = [
            (Page::Private, Hold::Pin),
            (Page::Private, Hold::Get),
            (Page::Shared, Hold::Pin),
            (Page::Shared, Hold::Get),
        ];
        let cells = columns.map(|(page, hold)| cell(operation, page, hold)).join(" | ");
        let _ = writeln!(page, "| {} | {cells} |", operation.name);
    }
    page
}

#[test]
fn the_page_in_the_docs_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/pinned-page.md");
    let page = page();
    if std::env::var_os("PAGEPIN_BLESS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == page, "docs/pinned-page.md differs from what happens; PAGEPIN_BLESS=1 rewrites it");
}
