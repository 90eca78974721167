//! The key of an LLM provider: where it is found, and what to do when it is not there.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::native_spec::ProviderSpec;
use super::secret_file;
use crate::domain::limits;

/// A provider's key. Its `Debug` is masked.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// What it is; only for the provider's own server, and for what takes it out of texts.
    pub fn value(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(***)")
    }
}

impl ProviderSpec {
    /// Whether requests to it carry a key.
    pub fn wants_key(&self) -> bool {
        self.api_key_env.is_some() || self.api_key_file.is_some()
    }

    /// The files that may hold its key.
    pub fn key_files(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let by_variable = self.api_key_env.as_deref().and_then(secret_file::file_of);
        self.api_key_file.clone().into_iter().chain(by_variable)
    }

    /// Its key; `None`: it wants none. The error says how to give it one. Blocking: reads a file.
    pub fn key(&self) -> Result<Option<Key>, String> {
        self.key_by(secret_file::variable)
    }

    fn key_by(
        &self,
        variable: impl Fn(&str) -> Result<Option<String>, String>,
    ) -> Result<Option<Key>, String> {
        if !self.wants_key() {
            return Ok(None);
        }
        let in_file = match &self.api_key_file {
            Some(file) => read(file).map_err(|why| self.faulty(&why))?,
            None => None,
        };
        let filled = |text: &String| !text.trim().is_empty();
        let text = match (in_file.filter(filled), &self.api_key_env) {
            (Some(text), _) => Some(text),
            (None, Some(name)) => variable(name).map_err(|why| self.faulty(&why))?,
            (None, None) => None,
        };
        let Some(text) = text.filter(filled) else {
            return Err(format!(
                "provider {} has no key: {}",
                self.name,
                self.key_fix()
            ));
        };
        let key = text.trim();
        if !key.chars().all(|c| c.is_ascii_graphic()) {
            return Err(self.faulty("it is more than one word of plain characters"));
        }
        Ok(Some(Key(key.to_owned())))
    }

    fn faulty(&self, why: &str) -> String {
        let name = &self.name;
        format!(
            "the key of provider {name} cannot be used: {why}; {}",
            self.key_fix()
        )
    }

    /// What gives it a key, in words.
    pub fn key_fix(&self) -> String {
        let variable = self.api_key_env.as_ref();
        let variable = variable.map(|name| format!("set {name} for the worker"));
        let file = self.api_key_file.as_ref();
        let file = file.map(|file| format!("write it to {}", file.display()));
        let ways: Vec<String> = variable.into_iter().chain(file).collect();
        ways.join(", or ")
    }
}

/// The text of a key's file; `None`: there is none.
fn read(file: &Path) -> Result<Option<String>, String> {
    let failed = |error: io::Error| format!("cannot read {}: {error}", file.display());
    let opened = match File::open(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    if !opened.metadata().map_err(failed)?.is_file() {
        return Err(format!("{} is no file", file.display()));
    }
    let most = limits::SECRET_BYTES_MAX as u64;
    let mut text = String::new();
    let length = opened
        .take(most + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if length as u64 > most {
        return Err(format!("{} is longer than {most} bytes", file.display()));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::agents::Catalogue;

    fn provider(keys: &str) -> ProviderSpec {
        let text = format!("[providers.p]\napi = \"anthropic\"\n{keys}\n");
        let catalogue = Catalogue::parse(&text).unwrap();
        catalogue.providers["p"].as_ref().clone()
    }

    #[test]
    fn a_key_is_taken_from_its_file_before_its_variable_and_trimmed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        let keys = format!("api_key_env = \"P_KEY\"\napi_key_file = {file:?}");
        let provider = provider(&keys);
        let variable = |name: &str| Ok((name == "P_KEY").then(|| " from-variable\n".to_owned()));
        let value = |key: Result<Option<Key>, String>| key.unwrap().unwrap().value().to_owned();
        assert_eq!(value(provider.key_by(variable)), "from-variable");
        std::fs::write(&file, "from-file\n").unwrap();
        assert_eq!(value(provider.key_by(variable)), "from-file");
        assert_eq!(format!("{:?}", provider.key().unwrap()), "Some(Key(***))");
    }

    #[test]
    fn a_missing_key_says_what_to_set_and_no_fault_repeats_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        let error = provider(&format!("api_key_env = \"P_KEY\"\napi_key_file = {file:?}"))
            .key_by(|_| Ok(Some("  ".to_owned())))
            .unwrap_err();
        assert!(
            error.contains("set P_KEY for the worker, or write it to"),
            "{error}"
        );
        let error = provider("api_key_env = \"P_KEY\"")
            .key_by(|_| Ok(Some("first-part\nsecond-part".to_owned())))
            .unwrap_err();
        assert!(
            error.contains("one word") && !error.contains("part"),
            "{error}"
        );
        let error = provider(&format!("api_key_file = {:?}", dir.path()))
            .key()
            .unwrap_err();
        assert!(error.contains("is no file"), "{error}");
        assert_eq!(provider("").key(), Ok(None));
    }
}
