//! Which database, from the settings that name it: connection strings, the files that hold them, and
//! a password apart from them.

use std::path::PathBuf;

use super::secret_file;

/// How people name it.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// Connection string.
    pub url: Option<String>,
    /// File that holds it.
    pub url_file: Option<PathBuf>,
    /// Connection string of the direct way.
    pub listen_url: Option<String>,
    /// File that holds it.
    pub listen_url_file: Option<PathBuf>,
    /// File with the password of both.
    pub password_file: Option<PathBuf>,
}

/// Where it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Database {
    /// Connection string for everything but LISTEN and migrations.
    pub url: String,
    /// The one for these, where it is another one.
    pub listen_url: Option<String>,
}

impl Database {
    /// A database that is reached by one way.
    pub fn at(url: String) -> Self {
        Self {
            url,
            listen_url: None,
        }
    }

    /// The way that is a session.
    pub fn direct(&self) -> &str {
        self.listen_url.as_deref().unwrap_or(&self.url)
    }
}

impl Named {
    /// The files that hold secrets.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let files = [&self.url_file, &self.listen_url_file, &self.password_file];
        files.into_iter().flatten().filter(is_named).cloned()
    }

    /// The database; `None`: nobody named one. Blocking: reads files.
    pub fn find(&self) -> Result<Option<Database>, String> {
        let of = |name, value: &Option<String>, file: &Option<PathBuf>| {
            let file = file.as_ref().filter(is_named);
            let found = secret_file::either(name, value.clone(), file.map(PathBuf::as_path))?;
            let found = found.filter(|url| !url.is_empty());
            // A string of the command line may be of words: what stands in a file is the same.
            Ok::<_, String>(found.map(|url| url.trim().to_owned()))
        };
        let url = of("DATABASE_URL", &self.url, &self.url_file)?;
        let listen_url = of(
            "DATABASE_LISTEN_URL",
            &self.listen_url,
            &self.listen_url_file,
        )?;
        let password = self.password_file.as_ref().filter(is_named);
        let password = secret_file::either("DATABASE_PASSWORD", None, password.map(|p| &**p))?;
        let Some(url) = url else {
            return match password {
                Some(_) => Err("DATABASE_PASSWORD_FILE needs a DATABASE_URL to belong to".into()),
                None => Ok(None),
            };
        };
        let Some(password) = password else {
            return Ok(Some(Database { url, listen_url }));
        };
        if password.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(
                "DATABASE_PASSWORD_FILE: a password is one word, without spaces and line ends"
                    .to_owned(),
            );
        }
        let listen_url =
            listen_url.map(|url| with_password("DATABASE_LISTEN_URL", &url, &password));
        Ok(Some(Database {
            url: with_password("DATABASE_URL", &url, &password)?,
            listen_url: listen_url.transpose()?,
        }))
    }
}

/// An empty variable is one that nobody set.
fn is_named(file: &&PathBuf) -> bool {
    !file.as_os_str().is_empty()
}

/// A connection string with the password that it lacks.
fn with_password(name: &str, url: &str, password: &str) -> Result<String, String> {
    let is_url = ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| url.starts_with(scheme));
    let config: Result<tokio_postgres::Config, _> = url.parse();
    // One that does not parse is refused where it is used, with the reason.
    if config.is_ok_and(|config| config.get_password().is_some()) {
        return Err(format!(
            "{name} holds a password and DATABASE_PASSWORD_FILE is set: leave one of them out"
        ));
    }
    if is_url {
        let sign = if url.contains('?') { '&' } else { '?' };
        return Ok(format!("{url}{sign}password={}", encoded(password)));
    }
    let quoted = password.replace('\\', "\\\\").replace('\'', "\\'");
    Ok(format!("{url} password='{quoted}'"))
}

/// Percent-encoded.
fn encoded(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() {
            true => safe.push(char::from(byte)),
            false => safe.push_str(&format!("%{byte:02X}")),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::credentials;

    const PASSWORD: &str = r#"p&a's\s%w?o/r#d:é@"#;

    fn named(url: &str, password: &str) -> (tempfile::TempDir, Named) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, password).unwrap();
        let named = Named {
            url: Some(url.to_owned()),
            password_file: Some(file),
            ..Named::default()
        };
        (dir, named)
    }

    #[test]
    fn a_password_of_any_characters_reaches_the_server_and_is_known_as_a_secret() {
        for url in [
            "postgresql://u@db:5432/dispatch",
            "postgres://u@db/dispatch?sslmode=disable",
            "host=db user=u dbname=dispatch",
        ] {
            let (_dir, named) = named(url, &format!("{PASSWORD}\n"));
            let found = named.find().unwrap().unwrap();
            let config: tokio_postgres::Config = found.url.parse().unwrap();
            assert_eq!(config.get_password(), Some(PASSWORD.as_bytes()), "{url}");
            assert_eq!(config.get_dbname(), Some("dispatch"), "{url}");
            let secrets = credentials::of_url("DATABASE_URL", &found.url);
            assert!(
                secrets.iter().any(|secret| secret.value() == PASSWORD),
                "{url}: {secrets:?}"
            );
        }
    }

    #[test]
    fn what_is_said_twice_is_refused_and_what_is_missing_is_named() {
        let fault = |named: Named| named.find().err().unwrap();
        let (dir, with) = named("postgresql://u:secret@db/d", "other");
        let error = fault(with);
        assert!(error.contains("leave one of them out"), "{error}");
        let (_dir, with) = named("postgresql://u@db/d", "two words");
        assert!(fault(with).contains("one word"));
        let file = dir.path().join("url");
        let twice = Named {
            url: Some("postgresql://u@db/d".to_owned()),
            url_file: Some(file.clone()),
            ..Named::default()
        };
        let error = fault(twice);
        assert!(error.contains("DATABASE_URL_FILE are both set"), "{error}");
        let missing = Named {
            url_file: Some(file.clone()),
            ..Named::default()
        };
        let error = fault(missing.clone());
        assert!(error.contains("cannot read") && error.contains("/url"));
        std::fs::write(&file, "postgresql://u@db/d\n").unwrap();
        let found = missing.find().unwrap().unwrap();
        assert_eq!(found.direct(), "postgresql://u@db/d");
        assert!(Named::default().find().unwrap().is_none());
    }
}
