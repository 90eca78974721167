//! Secrets by file: a variable NAME may stand in a file that NAME_FILE names, as the secrets of
//! containers do. An error names the file and never repeats what is in it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::domain::limits;

/// The secrets of this program itself that may stand in a file.
pub const OWN: [&str; 4] = [
    "DATABASE_URL",
    "DATABASE_LISTEN_URL",
    "DATABASE_PASSWORD",
    "DISPATCH_HTTP_TOKEN",
];

/// A variable of this process, or the text of the file that `NAME_FILE` names. Blocking: reads a file.
pub fn variable(name: &str) -> Result<Option<String>, String> {
    variable_by(name, |name| std::env::var_os(name))
}

/// The file that `NAME_FILE` names.
pub fn file_of(name: &str) -> Option<PathBuf> {
    file_by(name, |name| std::env::var_os(name))
}

fn file_by(name: &str, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let file = variable(&format!("{name}_FILE"))?;
    Some(PathBuf::from(file)).filter(|file| !file.as_os_str().is_empty())
}

fn variable_by(
    name: &str,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<String>, String> {
    let value = variable(name).and_then(|value| value.into_string().ok());
    either(name, value, file_by(name, &variable).as_deref())
}

/// The value itself, or what its file holds; refuses to choose between two. Blocking: reads a file.
pub fn either(
    name: &str,
    value: Option<String>,
    file: Option<&Path>,
) -> Result<Option<String>, String> {
    match (value, file) {
        (Some(value), Some(_)) if !value.is_empty() => Err(format!(
            "{name} and {name}_FILE are both set: leave one of them out"
        )),
        (_, Some(file)) => text(file)
            .map(Some)
            .map_err(|why| format!("{name}_FILE: {why}")),
        (value, None) => Ok(value),
    }
}

/// What a file holds, without the line end that editors leave. Blocking.
pub fn text(file: &Path) -> Result<String, String> {
    let shown = file.display();
    let failed = |error: io::Error| format!("cannot read {shown}: {error}");
    let opened = File::open(file).map_err(failed)?;
    if !opened.metadata().map_err(failed)?.is_file() {
        return Err(format!("{shown} is no file"));
    }
    let most = limits::SECRET_FILE_BYTES_MAX;
    let mut bytes = Vec::new();
    opened
        .take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(format!("{shown} is longer than {most} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("{shown} is no text (UTF-8)"))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.trim().is_empty() {
        return Err(format!("{shown} is empty: write the secret into it"));
    }
    if text.contains('\0') {
        return Err(format!("{shown} holds a NUL"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_may_stand_in_a_file_and_its_line_end_is_no_part_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        let set = |name: &str| (name == "KEY_FILE").then(|| OsString::from(&file));
        for (written, read) in [
            ("word\n", "word"),
            ("word\r\n", "word"),
            ("two\nlines\n", "two\nlines"),
        ] {
            std::fs::write(&file, written).unwrap();
            assert_eq!(variable_by("KEY", set), Ok(Some(read.to_owned())));
        }
        assert_eq!(variable_by("OTHER", set), Ok(None));
        let plain = |name: &str| (name == "KEY").then(|| OsString::from("plain"));
        assert_eq!(variable_by("KEY", plain), Ok(Some("plain".to_owned())));
        // As in a compose file that passes on what nobody set.
        let unset = |name: &str| match name {
            "KEY" => Some(OsString::from("plain")),
            _ => Some(OsString::new()),
        };
        assert_eq!(variable_by("KEY", unset), Ok(Some("plain".to_owned())));
    }

    #[test]
    fn a_fault_names_the_variable_and_the_file_and_not_the_secret() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        let set = |name: &str| (name == "KEY_FILE").then(|| OsString::from(&file));
        let fault = || variable_by("KEY", set).unwrap_err();
        let names_it = |error: &str, why: &str| {
            let names = error.starts_with("KEY_FILE: ") && error.contains("/key");
            assert!(names && error.contains(why), "{error}");
            assert!(!error.contains("canary"), "{error}");
        };
        names_it(&fault(), "cannot read");
        std::fs::write(&file, " \n").unwrap();
        names_it(&fault(), "is empty");
        std::fs::write(&file, b"canary\xff").unwrap();
        names_it(&fault(), "is no text");
        let long = "canary ".repeat(limits::SECRET_FILE_BYTES_MAX as usize / 6);
        std::fs::write(&file, long).unwrap();
        names_it(&fault(), "is longer than");
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        names_it(&fault(), "is no file");
        let both = |_: &str| Some(OsString::from("canary"));
        assert_eq!(
            variable_by("KEY", both).unwrap_err(),
            "KEY and KEY_FILE are both set: leave one of them out"
        );
    }
}
