//! The decision table: every row against an independent restatement, and the page in `docs/` against the code.

use std::fmt::Write as _;

use pagepin::fault::decision::{Action, Refusal, Request, Row, State, all_rows};
use pagepin::{Backing, Rights};

/// What must be done, said from the side of what is promised: may it be accessed at all, does the page have to be this
/// mm's own afterwards, and may hardware write it afterwards.
fn restated(row: &Row) -> Action {
    let denied = Action::Refuse(Refusal::Denied);
    let foreign = row.backing.is_foreign();
    let (of_object, shared) = match row.backing {
        Backing::Object { shared, .. } => (true, shared),
        _ => (false, false),
    };
    let right = |wanted| row.rights.contains(wanted);
    let permitted = match row.request {
        Request::Read | Request::Unshare => row.rights != Rights::empty(),
        Request::Execute => right(Rights::EXECUTE),
        Request::Write => right(Rights::WRITE),
        Request::ForcedWrite => {
            row.max_rights.contains(Rights::WRITE) && row.rights != Rights::empty() && !foreign && !shared
        }
    };
    if !permitted {
        return denied;
    }
    let must_be_own = !matches!(row.request, Request::Read | Request::Execute);
    let must_be_written = matches!(row.request, Request::Write | Request::ForcedWrite);
    // Logical rights decide; a forced write never makes a read-only page writable for user code.
    let writable = must_be_written && right(Rights::WRITE);
    if shared {
        // Nothing is ever this mm's own; the object is asked before its page is written.
        return match row.state {
            State::Empty => Action::MapObject,
            State::ProtNone => Action::RestoreRights,
            State::Anonymous { writable: false, .. } | State::Borrowed { writable: false } if must_be_written => {
                Action::WriteObject
            }
            _ => Action::Nothing,
        };
    }
    match row.state {
        State::ProtNone => Action::RestoreRights,
        State::Token => Action::Bring,
        State::Empty if foreign => Action::Refuse(Refusal::Foreign),
        State::Foreign { writable } | State::Borrowed { writable } if foreign => match row.request {
            Request::Unshare => Action::Refuse(Refusal::Foreign),
            Request::Write | Request::ForcedWrite if !writable => denied,
            _ => Action::Nothing,
        },
        State::Empty if of_object && must_be_own => Action::CopyObject { writable },
        State::Empty if of_object => Action::MapObject,
        State::Empty if must_be_own => Action::MapFresh { writable },
        State::Empty => Action::MapZero,
        State::Foreign { .. } => unreachable!("rows have it in foreign VMAs only"),
        // Not this mm's own, whoever else refers to it.
        State::Zero | State::Borrowed { .. } if must_be_own => Action::Copy { writable },
        State::Zero | State::Borrowed { .. } => Action::Nothing,
        State::Anonymous { .. } if !must_be_own => Action::Nothing,
        State::Anonymous { writable: now, frame } => match (frame.exclusive, frame.sole) {
            (true, _) if writable && !now => Action::Reuse,
            (true, _) => Action::Nothing,
            (false, true) => Action::Claim { writable },
            (false, false) => Action::Copy { writable },
        },
    }
}

#[test]
fn every_row_agrees_with_the_restatement() {
    let mut rows = 0;
    for row in all_rows() {
        assert_eq!(row.action, restated(&row), "{row:?}");
        rows += 1;
    }
    assert_eq!(rows, (11 + 5 + 10 + 6) * 6 * 5);
}

/// INV-1, INV-6, INV-7, INV-9 as properties of the whole table.
#[test]
fn no_row_breaks_an_invariant() {
    for row in all_rows() {
        let gives_write = matches!(
            row.action,
            Action::MapFresh { writable: true } | Action::Copy { writable: true } | Action::Claim { writable: true }
        ) || row.action == Action::Reuse;
        assert!(!gives_write || row.rights.contains(Rights::WRITE), "INV-9: {row:?}");
        assert!(!gives_write || matches!(row.request, Request::Write | Request::ForcedWrite), "{row:?}");
        if !matches!(row.state, State::Anonymous { .. }) {
            let reused = matches!(row.action, Action::Reuse | Action::Claim { .. });
            assert!(!reused, "INV-6, and only anonymous frames are claimed: {row:?}");
        }
        if let State::Anonymous { frame, .. } = row.state {
            assert!(row.action != Action::Reuse || frame.exclusive, "INV-1: {row:?}");
            assert!(!matches!(row.action, Action::Claim { .. }) || frame.sole, "INV-7: {row:?}");
            let copies = matches!(row.action, Action::Copy { .. });
            assert!(!copies || !frame.exclusive, "INV-3: an exclusive, perhaps pinned, page was replaced: {row:?}");
        }
    }
}

fn state_text(row: &Row) -> String {
    if row.backing.is_shared() {
        let (name, writable) = match row.state {
            State::Empty => return "nothing, in a VMA that shares an object".into(),
            State::ProtNone => return "prot-none, in a VMA that shares an object".into(),
            State::Anonymous { writable, .. } => ("open to pins", writable),
            State::Borrowed { writable } => ("closed", writable),
            other => panic!("{other:?} in a VMA that shares an object"),
        };
        return format!("a shared object's page, {name}, {}", if writable { "writable" } else { "read-only" });
    }
    match row.state {
        State::Empty if matches!(row.backing, Backing::Object { .. }) => {
            "nothing, in a private VMA of an object".into()
        }
        State::Empty if row.backing.is_foreign() => "nothing, in a foreign VMA".into(),
        State::Empty => "nothing".into(),
        State::Token => "a token (the page is elsewhere)".into(),
        State::ProtNone => "prot-none (no rights for a while)".into(),
        State::Zero => "zero frame".into(),
        State::Borrowed { writable } => format!(
            "an object's or driver's frame{}{}",
            if writable { ", writable" } else { ", read-only" },
            if row.backing.is_foreign() { ", in a foreign VMA" } else { "" },
        ),
        State::Foreign { writable } => format!("foreign, {}", if writable { "writable" } else { "read-only" }),
        State::Anonymous { writable, frame } => format!(
            "anonymous, {}, {}{}",
            if frame.exclusive { "exclusive" } else { "shared" },
            if writable { "writable" } else { "read-only" },
            if frame.sole { ", sole reference" } else { ", other references" },
        ),
    }
}

fn action_text(action: Action) -> &'static str {
    match action {
        Action::Refuse(Refusal::Denied) => "refuse: denied",
        Action::Refuse(Refusal::Foreign) => "refuse: foreign",
        Action::Nothing => "nothing to do",
        Action::MapZero => "map zero frame",
        Action::MapFresh { writable: true } => "map cleared frame, writable",
        Action::MapFresh { writable: false } => "map cleared frame, read-only",
        Action::Reuse => "reuse: make writable",
        Action::Claim { writable: true } => "claim, make writable",
        Action::Claim { writable: false } => "claim, stay read-only",
        Action::Copy { writable: true } => "copy, writable",
        Action::Copy { writable: false } => "copy, read-only",
        Action::RestoreRights => "bring back read-only, ask again",
        Action::Bring => "bring the page, read-only, ask again",
        Action::MapObject => "map the object's page, read-only, ask again",
        Action::CopyObject { writable: true } => "map a copy of the object's page, writable",
        Action::CopyObject { writable: false } => "map a copy of the object's page, read-only",
        Action::WriteObject => "ask the object, make writable",
    }
}

fn rights_text(rights: Rights, max_rights: Rights) -> String {
    let mut text: String = [(Rights::READ, 'r'), (Rights::WRITE, 'w'), (Rights::EXECUTE, 'x')]
        .map(|(right, name)| if rights.contains(right) { name } else { '-' })
        .into_iter()
        .collect();
    text.push_str(if max_rights.contains(Rights::WRITE) { ", may be given w" } else { ", never w" });
    text
}

const REQUESTS: [(Request, &str); 5] = [
    (Request::Read, "read"),
    (Request::Write, "write, write pin"),
    (Request::Execute, "execute"),
    (Request::Unshare, "read pin"),
    (Request::ForcedWrite, "forced write"),
];

/// A heading and the rows under it.
type Column = (&'static str, fn(&Row) -> bool);

/// The columns of the second table. Which VMA it is does not matter further than its permitting the request, except
/// that a forced write to a writable VMA is an ordinary one; `alike` checks both.
const COLUMNS: [Column; 5] = [
    ("read", |row| row.request == Request::Read),
    ("execute", |row| row.request == Request::Execute),
    ("write, write pin", |row| {
        row.request == Request::Write || (row.request == Request::ForcedWrite && row.rights.contains(Rights::WRITE))
    }),
    ("read pin", |row| row.request == Request::Unshare),
    ("forced write pin, VMA read-only", |row| {
        row.request == Request::ForcedWrite && !row.rights.contains(Rights::WRITE)
    }),
];

/// The one action of all these rows that the VMA permits.
fn alike<'r>(rows: impl Iterator<Item = &'r Row>) -> &'static str {
    // The state says itself that foreign memory is read-only, where that is the reason for a refusal.
    let by_vma = |row: &&Row| !denied_by_vma(row);
    let mut actions: Vec<&str> = rows.filter(by_vma).map(|row| action_text(row.action)).collect();
    actions.dedup();
    assert!(actions.len() <= 1, "not alike: {actions:?}");
    actions.first().copied().unwrap_or("–")
}

fn denied_by_vma(row: &Row) -> bool {
    let beside = Row { state: State::Empty, ..*row };
    restated(&beside) == Action::Refuse(Refusal::Denied)
}

fn page() -> String {
    let rows: Vec<Row> = all_rows().collect();
    let mut page = String::from(
        "# The decision table\n\nWhat the fault handler and the slow path of the pin family do. Made from \
         `pagepin::fault::all_rows()`; a test\nkeeps it up to date (`PAGEPIN_BLESS=1 cargo test --all-features decision` \
         rewrites it).\n\n## What the vma permits\n\n| vma | ",
    );
    let head = REQUESTS.map(|(_, name)| name).join(" | ");
    let _ = writeln!(page, "{head} |\n|---|---|---|---|---|---|");
    let empty = |row: &&[Row]| row[0].backing == Backing::Anonymous && row[0].state == State::Empty;
    for five in rows.chunks(REQUESTS.len()).filter(empty) {
        let cells = five.iter().map(|row| if denied_by_vma(row) { "denied" } else { "yes" });
        let cells = cells.collect::<Vec<_>>().join(" | ");
        let _ = writeln!(page, "| {} | {cells} |", rights_text(five[0].rights, five[0].max_rights));
    }
    let head = COLUMNS.map(|(name, _)| name).join(" | ");
    let _ = write!(
        page,
        "\nForeign memory, and what an object shares, is never written by force.\n\n## What is done if the VMA permits it\n\n"
    );
    let _ = writeln!(page, "| the entry maps | {head} |\n|---|---|---|---|---|---|");
    let mut states: Vec<String> = rows.iter().map(state_text).collect();
    let mut seen = std::collections::HashSet::new();
    states.retain(|state| seen.insert(state.clone()));
    for state in states {
        let of_state = || rows.iter().filter(|row| state_text(row) == state);
        let cells = COLUMNS.map(|(_, wanted)| alike(of_state().filter(|row| wanted(row)))).join(" | ");
        let _ = writeln!(page, "| {state} | {cells} |");
    }
    page
}

#[test]
fn the_page_in_the_docs_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/decision-table.md");
    let page = page();
    if std::env::var_os("PAGEPIN_BLESS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == page, "docs/decision-table.md differs from the code; PAGEPIN_BLESS=1 rewrites it");
}
