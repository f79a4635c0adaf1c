//! What the documents say, checked against the tree.

mod asked_page;
mod assurance_page;
mod bench_page;
mod bug_hall_page;
mod changelog;
mod commands;
mod condition;
mod doc_examples;
mod examples_page;
mod house;
mod links;
mod markdown;
mod readme_page;
mod source;
mod tree;
mod unsafe_page;
