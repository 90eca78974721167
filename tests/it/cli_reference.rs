//! What people and programs see of the surfaces, as goldens: a change of it changes a file.

use std::path::Path;

use clap::Command;
use dispatch_worker::surface::cli::tree;
use dispatch_worker::surface::openapi;

fn told(command: &mut Command, path: &str, text: &mut String) {
    text.push_str(&format!(
        "$ {path} --help\n{}\n",
        command.render_long_help()
    ));
    let mut inner: Vec<Command> = command.get_subcommands().cloned().collect();
    for command in &mut inner {
        let path = format!("{path} {}", command.get_name());
        told(command, &path, text);
    }
}

#[test]
fn the_help_of_every_command_is_as_written() {
    let mut root = tree::command().term_width(100);
    root.build();
    let mut text = String::new();
    told(&mut root, "dispatch", &mut text);
    insta::assert_snapshot!("help", text);
}

#[test]
fn clap_finds_no_fault_in_the_tree() {
    tree::command().debug_assert();
}

/// `UPDATE_GOLDENS=1` writes the file anew.
#[test]
fn the_openapi_document_is_as_written() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi.json");
    let now = format!(
        "{}\n",
        serde_json::to_string_pretty(&openapi::document()).unwrap()
    );
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == now,
        "openapi.json differs from the operations; write it with UPDATE_GOLDENS=1 and read the diff"
    );
}
