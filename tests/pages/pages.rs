//! What the documents say, checked against the tree.

mod assurance_page;
mod bug_hall_page;
mod commands;
mod links;
mod markdown;
mod source;
mod tree;
mod unsafe_page;
