//! Which paths may enter a tree. Pure: a result is applied on machines with other file systems
//! than this one, so their aliases of `.git` count too.

use unicode_normalization::UnicodeNormalization;

use crate::domain::limits;
use crate::domain::safe_text::is_invisible;

/// Why this path may not be added to a tree; `None`: it may. `symlink`: the entry is a link.
pub(crate) fn refuse_path(path: &[u8], symlink: Symlink) -> Option<&'static str> {
    if path.is_empty() {
        return Some("it is empty");
    }
    if path.len() > limits::PATH_BYTES_MAX {
        return Some("it is longer than 4096 bytes");
    }
    if path.starts_with(b"/") {
        return Some("it is absolute");
    }
    if path.iter().any(|byte| *byte < 0x20 || *byte == 0x7f) {
        return Some("it has a control character");
    }
    path.split(|byte| *byte == b'/')
        .find_map(|name| refuse_name(name, symlink))
}

/// Whether an entry is a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Symlink {
    /// It is.
    Yes,
    /// It is a file.
    No,
}

fn refuse_name(name: &[u8], symlink: Symlink) -> Option<&'static str> {
    match name {
        b"" => return Some("it has an empty component"),
        b"." | b".." => return Some("it has a component . or .."),
        _ => {}
    }
    if name.contains(&b'\\') {
        return Some("it has a backslash, which is a separator elsewhere");
    }
    if name.contains(&b':') {
        return Some("it has a colon, which names a stream or a drive elsewhere");
    }
    if name.ends_with(b".") || name.ends_with(b" ") {
        return Some("a component ends in a dot or a space, which is dropped elsewhere");
    }
    let folded = fold(name);
    if folded == ".git" || is_short_name(&folded, "git") {
        return Some("a component is .git, or becomes it on another file system");
    }
    if symlink == Symlink::Yes && (folded == ".gitmodules" || is_short_name(&folded, "gitmod")) {
        return Some(".gitmodules must not be a link");
    }
    None
}

/// The name as file systems that fold would see it: without invisible characters, in
/// compatibility form, in lower case.
pub(super) fn fold(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    text.chars()
        .filter(|c| !is_invisible(*c))
        .nfkc()
        .flat_map(char::to_lowercase)
        .filter(|c| !is_invisible(*c))
        .collect()
}

/// `git~1`, the short name that NTFS makes for `.git`.
fn is_short_name(folded: &str, stem: &str) -> bool {
    folded
        .strip_prefix(stem)
        .and_then(|rest| rest.strip_prefix('~'))
        .is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The path as a file system without case would compare it.
pub(crate) fn fold_case(path: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(path) {
        Ok(text) => text
            .chars()
            .filter(|c| !is_invisible(*c))
            .nfc()
            .flat_map(char::to_lowercase)
            .collect::<String>()
            .into_bytes(),
        Err(_) => path.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_of_git_and_odd_names_are_refused() {
        let refused: &[&[u8]] = &[
            b"",
            b"/etc/passwd",
            b"../x",
            b"a/../x",
            b"a/./x",
            b"a//x",
            b"a/",
            b".git",
            b".git/hooks/x",
            b"sub/.git/config",
            b".GIT/x",
            b".gIt/x",
            b"git~1/x",
            b"GIT~2",
            b".git./x",
            b".git /x",
            b".git::$INDEX_ALLOCATION/x",
            b"c:/x",
            b"a\\b",
            b"..\\x",
            b"a\nb",
            b"a\x7fb",
            b"a\0b",
            b"trailing.",
            b"trailing ",
            b"dir /x",
            ".g\u{200c}it/x".as_bytes(),
            "\u{feff}.git/x".as_bytes(),
            ".gi\u{200b}t".as_bytes(),
            ".g\u{180b}it/x".as_bytes(),
            ".git\u{e0001}/x".as_bytes(),
            ".\u{3164}git".as_bytes(),
            "．ｇｉｔ/x".as_bytes(),
            ".ⅽ:".as_bytes(),
        ];
        for path in refused {
            assert!(
                refuse_path(path, Symlink::No).is_some(),
                "{:?} must be refused",
                String::from_utf8_lossy(path)
            );
        }
        let long = vec![b'a'; limits::PATH_BYTES_MAX + 1];
        assert!(refuse_path(&long, Symlink::No).is_some());
    }

    #[test]
    fn ordinary_names_are_allowed() {
        let allowed: &[&[u8]] = &[
            b"src/main.rs",
            b".gitignore",
            b".gitmodules",
            b".github/workflows/ci.yml",
            b"git",
            b"git~",
            b"git~x",
            b"a b/c d",
            b"caf\xe9",
            "naïve/Ω".as_bytes(),
            b"...a",
            b"-rf",
            b"<img src=x>",
            b"\"quoted\"",
        ];
        for path in allowed {
            assert_eq!(
                refuse_path(path, Symlink::No),
                None,
                "{:?} must be allowed",
                String::from_utf8_lossy(path)
            );
        }
        assert!(refuse_path(b".gitmodules", Symlink::Yes).is_some());
        assert!(refuse_path(b"GITMOD~1", Symlink::Yes).is_some());
        assert_eq!(refuse_path(b"link", Symlink::Yes), None);
    }

    #[test]
    fn names_that_differ_in_case_only_are_the_same_elsewhere() {
        assert_eq!(fold_case(b"ReadMe.md"), fold_case(b"README.md"));
        assert_eq!(fold_case("Ä".as_bytes()), fold_case("a\u{308}".as_bytes()));
        assert_eq!(fold_case("a\u{200b}".as_bytes()), fold_case(b"A"));
        assert_ne!(fold_case(b"a"), fold_case(b"b"));
    }
}
