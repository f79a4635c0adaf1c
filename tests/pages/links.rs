//! Links between the documents lead somewhere.

use std::path::{Component, Path, PathBuf};

use crate::{markdown, tree};

/// Where a link of `file` leads: a file and a heading in it. `None` out of the project.
fn target(file: &str, link: &str) -> Option<(String, String)> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (to, heading) = link.split_once('#').unwrap_or((link, ""));
    if to.is_empty() {
        return Some((file.into(), heading.into()));
    }
    let mut path = PathBuf::new();
    for part in Path::new(file).parent().unwrap_or(Path::new("")).join(to).components() {
        match part {
            Component::ParentDir => _ = path.pop(),
            part => path.push(part),
        }
    }
    Some((path.to_str().expect("a path of this project").into(), heading.into()))
}

#[test]
fn every_link_leads_to_a_file_and_heading() {
    let documents = tree::documents();
    assert!(documents.len() >= 10, "{documents:?}");
    for file in documents {
        for link in markdown::links(&tree::text(&file)) {
            let Some((to, heading)) = target(&file, &link) else { continue };
            assert!(tree::exists(&to), "{file}: {link} leads to no file");
            let anchors = || markdown::anchors(&tree::text(&to));
            assert!(heading.is_empty() || anchors().contains(&heading), "{file}: {link} leads to no heading");
        }
    }
}

#[test]
fn links_are_relative_to_their_file() {
    assert_eq!(target("docs/A.md", "B.md#c"), Some(("docs/B.md".into(), "c".into())));
    assert_eq!(target("docs/A.md", "../README.md"), Some(("README.md".into(), String::new())));
    assert_eq!(target("README.md", "#c"), Some(("README.md".into(), "c".into())));
    assert_eq!(target("README.md", "https://x/y"), None);
}
