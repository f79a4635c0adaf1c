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

/// Where the links of `file` lead within the project.
pub(crate) fn targets(file: &str) -> Vec<(String, String)> {
    markdown::links(&tree::text(file)).iter().filter_map(|link| target(file, link)).collect()
}

#[test]
fn every_link_leads_to_a_file_and_heading() {
    let documents = tree::documents();
    assert!(documents.len() >= 10, "{documents:?}");
    for file in documents {
        for (to, heading) in targets(&file) {
            assert!(tree::exists(&to), "{file} links to {to}, which is no file");
            let has_heading = || markdown::anchors(&tree::text(&to)).contains(&heading);
            assert!(heading.is_empty() || has_heading(), "{file} links to {to}#{heading}, which is no heading");
        }
    }
}

/// The crate's documentation has the documents as modules: there, a link to a file would lead nowhere.
#[test]
fn every_link_of_a_document_leads_to_a_module_in_the_crate_docs() {
    let definitions = tree::text("src/documents/links.md");
    let modules = tree::text("src/documents/mod.rs");
    for file in tree::files("docs", "md") {
        let name = file.trim_start_matches("docs/");
        assert!(modules.contains(&format!("\"{name}\"")), "{name} is no module of the crate docs");
        for link in markdown::links(&format!("{definitions}\n{}", tree::text(&file))) {
            let is_module = link.starts_with("crate::documents::") || link.starts_with('#') || link.contains("://");
            assert!(is_module, "{file}: {link} is not defined in src/documents/links.md");
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
