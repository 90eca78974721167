//! Names of files that are not in their place yet. Whoever is killed between writing and renaming
//! leaves such a file behind, and nobody can remove it then: so it is known by its name, and left
//! out of what an attempt is said to have made.

use uuid::Uuid;

const PREFIX: &str = ".dispatch-";

/// The name of such a file. The number is the file's own.
pub fn staged_name(number: Uuid) -> String {
    format!("{PREFIX}{}", number.hyphenated())
}

/// Whether a file has such a name.
pub fn is_staged_name(name: &[u8]) -> bool {
    let number = name.strip_prefix(PREFIX.as_bytes());
    let number = number.and_then(|number| std::str::from_utf8(number).ok());
    let parsed = number.and_then(|number| Some((number, Uuid::try_parse(number).ok()?)));
    // Other ways to write such a number are not ours.
    parsed.is_some_and(|(number, parsed)| parsed.hyphenated().to_string() == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_are_given_are_known_again() {
        let name = staged_name(Uuid::from_u128(7));
        assert!(is_staged_name(name.as_bytes()));
        for other in [
            ".dispatch-",
            ".dispatch-session",
            "dispatch-00000000-0000-0000-0000-000000000007",
            ".dispatch-00000000000000000000000000000007",
            ".dispatch-{00000000-0000-0000-0000-000000000007}",
            ".dispatch-00000000-0000-0000-0000-00000000000A",
            ".dispatch-00000000-0000-0000-0000-000000000007.rs",
        ] {
            assert!(!is_staged_name(other.as_bytes()), "{other}");
        }
        assert!(!is_staged_name(b".dispatch-\xff"));
    }
}
