//! Where a project's repository is, when that is not a directory of the worker's machine: an address
//! that git fetches from and pushes to.

use std::fmt;

/// Ways to reach a repository that git has without a helper of somebody's own.
const SCHEMES: [&str; 5] = ["https", "ssh", "http", "git", "file"];

/// Longest address; longer ones are no repository's.
const BYTES_MAX: usize = 2_048;

/// The address of a repository, such as `https://git.example.com/shop.git` or `git@git.example.com:shop.git`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RemoteUrl {
    text: String,
    /// How git reaches it.
    pub scheme: &'static str,
}

/// What a project's place is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A directory of the worker's machine.
    Path,
    /// A repository elsewhere.
    Remote(RemoteUrl),
}

impl Place {
    /// Tell one from the other; an error says why it is neither and what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some((scheme, rest)) = text.split_once("://") {
            let Some(known) = SCHEMES.into_iter().find(|known| *known == scheme) else {
                return Err(format!(
                    "git does not reach {scheme:?} by itself: use one of {}",
                    SCHEMES.join(", ")
                ));
            };
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            if authority
                .rsplit_once('@')
                .is_some_and(|(user, _)| user.contains(':'))
            {
                return Err(
                    "the address holds a password, which everybody who sees the project would see: leave it out, and give it to git's own credential helper on the workers"
                        .to_owned(),
                );
            }
            if path.is_empty() || (known != "file" && !host_is_plain(authority)) {
                return Err("the address names no host and repository".to_owned());
            }
            return Self::remote(text, known);
        }
        // As git reads it: a colon before the first slash, and what is before it is a host.
        let head = text.split('/').next().unwrap_or(text);
        match head.split_once(':') {
            // Two colons name a program that git would run.
            Some((host, path)) if path.starts_with(':') || !host_is_plain(host) => {
                Err(format!("{head:?} is not a host and a repository on it"))
            }
            Some((host, _)) if text.len() > host.len() + 1 => Self::remote(text, "ssh"),
            Some(_) => Err("the address names no repository".to_owned()),
            None => Ok(Self::Path),
        }
    }

    fn remote(text: &str, scheme: &'static str) -> Result<Self, String> {
        let odd = |c: char| c.is_whitespace() || c.is_control();
        if text.len() > BYTES_MAX || text.chars().any(odd) {
            return Err("the address is too long, or has blanks in it".to_owned());
        }
        Ok(Self::Remote(RemoteUrl {
            text: text.to_owned(),
            scheme,
        }))
    }
}

/// A user may stand before it, a port behind it. One that begins with a dash would be an option to ssh.
fn host_is_plain(authority: &str) -> bool {
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let fits = |c: char| c.is_alphanumeric() || "-._~:[]%".contains(c);
    !host.is_empty()
        && !authority.starts_with('-')
        && !host.starts_with('-')
        && host.chars().all(fits)
}

impl RemoteUrl {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheme(text: &str) -> Option<&'static str> {
        match Place::parse(text) {
            Ok(Place::Remote(url)) => {
                assert_eq!(url.as_str(), text);
                Some(url.scheme)
            }
            Ok(Place::Path) => None,
            Err(why) => panic!("{text}: {why}"),
        }
    }

    #[test]
    fn addresses_are_told_from_paths_as_git_does() {
        assert_eq!(scheme("https://git.example.com/a/b.git"), Some("https"));
        assert_eq!(scheme("ssh://git@git.example.com:2222/b"), Some("ssh"));
        assert_eq!(scheme("git@git.example.com:a/b.git"), Some("ssh"));
        assert_eq!(scheme("host:b"), Some("ssh"));
        assert_eq!(scheme("http://[::1]:3000/b"), Some("http"));
        assert_eq!(scheme("file:///srv/b.git"), Some("file"));
        for path in ["/srv/shop", "/srv/a:b", "shop", "./a:b"] {
            assert_eq!(scheme(path), None, "{path}");
        }
    }

    #[test]
    fn what_git_would_run_or_people_would_see_is_refused() {
        for bad in [
            "ext::sh -c id",
            "ext::sh",
            "https://user:secret@git.example.com/b",
            "ftp://host/b",
            "ssh://-oProxyCommand=id/b",
            "ssh://-oProxyCommand=id@host/b",
            "-oProxyCommand=id:b",
            "ext://host/b",
            "https://host",
            "https:///b",
            "host:",
            "https://host/a b",
            "https://host/a\nb",
        ] {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
    }
}
