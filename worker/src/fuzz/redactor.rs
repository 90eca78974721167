//! Text with secrets in it.

use serde_json::Value;

use crate::domain::redact::{RedactedText, Redactor, Secret};

/// What stands for the secrets of this check.
const MARK: &str = "[secret S]";

/// Secrets, one a line, an empty line, and a text. None of them is left in the text, however it is cut
/// into fragments, and none of its parts at its end.
pub fn redactor(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let rest = String::from_utf8_lossy(rest);
    let Some((secrets, text)) = rest.split_once("\n\n") else {
        return;
    };
    let secrets: Vec<Secret> = secrets
        .lines()
        .take(4)
        .filter_map(|line| Secret::new("S", line))
        .collect();
    let redactor = Redactor::new(secrets.iter().cloned());
    assert_eq!(redactor.is_empty(), secrets.is_empty());
    let whole = redactor.text(text);
    for part in whole.split(MARK) {
        for secret in &secrets {
            // A text may hold what looks like a mark: then its parts are no parts of ours.
            let is_left = !text.contains(MARK) && part.contains(secret.value());
            assert!(!is_left, "{:?} is left in {part:?}", secret.value());
        }
    }
    if !redactor.finds(text.as_bytes()) {
        assert_eq!(whole, text, "changed without a secret in it");
    }
    let size = usize::from(*first % 7) + 1;
    let mut stream = RedactedText::new(redactor.clone());
    let mut streamed = String::new();
    let characters: Vec<char> = text.chars().collect();
    for fragment in characters.chunks(size) {
        let fragment: String = fragment.iter().collect();
        streamed.push_str(&stream.push(&fragment));
    }
    streamed.push_str(&stream.finish());
    assert_eq!(streamed, whole, "fragments of {size} change it");
    for most in [
        0,
        1,
        text.len() / 2,
        text.len().saturating_sub(1),
        text.len(),
    ] {
        let head = redactor.head(text, most);
        assert!(
            whole.starts_with(&*head),
            "cut at {most}: {head:?} of {whole:?}"
        );
        assert!(most < text.len() || head == whole, "{head:?} of {whole:?}");
    }
    let mut value = Value::String(text.to_owned());
    redactor.clean_value(&mut value);
    assert_eq!(value.as_str(), Some(&*whole));
}
