//! Known secret values, found in text and replaced by a mark that says which one it was. A value is
//! found as it is and in the forms in which programs print it: base64 (also inside a longer encoded
//! text), percent-encoded, hexadecimal, escaped for JSON.
//!
//! This is for accidents (a dump of the environment, an error that quotes a header), not against an
//! agent that means to hide what it says: it can always invent a form that nobody knows.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

use super::limits;

/// A value that must not be shown, and where it came from. Its `Debug` is masked.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret {
    name: String,
    value: String,
}

impl Secret {
    /// A secret from the variable or file of this name. `None`: too short or too long to be looked
    /// for.
    pub fn new(name: &str, value: &str) -> Option<Self> {
        let value = value.trim();
        let fits = (limits::SECRET_BYTES_MIN..=limits::SECRET_BYTES_MAX).contains(&value.len());
        fits.then(|| Self {
            // The name stands in texts and documents of any kind: nothing in it needs escaping.
            name: name
                .chars()
                .map(|c| match c {
                    'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' | '.' | '/' => c,
                    _ => '_',
                })
                .collect(),
            value: value.to_owned(),
        })
    }

    /// Where it came from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is; never for people.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.name)
    }
}

/// Replaces known secrets. Cheap to clone; without secrets it costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Redactor(Option<Arc<Known>>);

#[derive(Debug)]
struct Known {
    secrets: Vec<Secret>,
    search: AhoCorasick,
    /// What is searched for, in order, with what stands in its place.
    forms: Vec<(Vec<u8>, Arc<str>)>,
    /// Whether a form begins with this byte.
    first: [bool; 256],
    /// Bytes of the longest form.
    longest: usize,
}

impl Redactor {
    /// A redactor of these secrets. Of two with one value the first gives the name.
    pub fn new(secrets: impl IntoIterator<Item = Secret>) -> Self {
        let mut values = HashSet::new();
        let mut room = limits::SECRETS_BYTES_MAX;
        let secrets: Vec<Secret> = secrets
            .into_iter()
            .filter(|secret| values.insert(secret.value.clone()))
            .take(limits::SECRETS_MAX)
            .take_while(|secret| {
                let rest = room.checked_sub(secret.value.len());
                room = rest.unwrap_or(0);
                rest.is_some()
            })
            .collect();
        let mut forms: Vec<(Vec<u8>, Arc<str>)> = Vec::new();
        for secret in &secrets {
            let mark: Arc<str> = format!("[secret {}]", secret.name).into();
            let of_this = forms_of(&secret.value).into_iter();
            forms.extend(of_this.map(|form| (form.into_bytes(), mark.clone())));
        }
        // Stable: the first secret keeps a form that two have.
        forms.sort_by(|a, b| a.0.cmp(&b.0));
        forms.dedup_by(|later, first| later.0 == first.0);
        if forms.is_empty() {
            return Self(None);
        }
        let search = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(forms.iter().map(|form| &form.0));
        // Refuses only more states than the bounds above allow.
        let Ok(search) = search else {
            return Self(None);
        };
        let mut first = [false; 256];
        for form in &forms {
            if let Some(byte) = form.0.first() {
                first[usize::from(*byte)] = true;
            }
        }
        Self(Some(Arc::new(Known {
            longest: forms.iter().map(|form| form.0.len()).max().unwrap_or(0),
            secrets,
            search,
            forms,
            first,
        })))
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// What it looks for.
    pub fn secrets(&self) -> &[Secret] {
        self.0.as_ref().map_or(&[], |known| &known.secrets)
    }

    /// The same with more secrets.
    pub fn with(&self, more: Vec<Secret>) -> Self {
        if more.iter().all(|secret| self.knows(secret)) {
            return self.clone();
        }
        Self::new(self.secrets().iter().cloned().chain(more))
    }

    /// Whether it looks for this value already.
    pub fn knows(&self, secret: &Secret) -> bool {
        self.secrets().iter().any(|s| s.value == secret.value)
    }

    /// The text without secrets.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let Some(known) = &self.0 else {
            return Cow::Borrowed(text);
        };
        let mut safe = String::new();
        let mut from = 0;
        for found in known.search.find_iter(text) {
            safe.push_str(&text[from..found.start()]);
            safe.push_str(known.mark(found.pattern().as_usize()));
            from = found.end();
        }
        if from == 0 {
            return Cow::Borrowed(text);
        }
        safe.push_str(&text[from..]);
        Cow::Owned(safe)
    }

    /// The beginning of the text without secrets, of at most so many of its bytes. A secret that
    /// goes on after them is left out whole; whoever cuts first leaves a part that nobody knows.
    pub fn head<'t>(&self, text: &'t str, most: usize) -> Cow<'t, str> {
        if text.len() <= most {
            return self.text(text);
        }
        let cut = text.floor_char_boundary(most);
        let Some(known) = &self.0 else {
            return Cow::Borrowed(&text[..cut]);
        };
        let looked_at = &text[..text.floor_char_boundary(cut.saturating_add(known.longest))];
        let mut safe = String::new();
        let mut from = 0;
        let found = known.search.find_iter(looked_at);
        for found in found.take_while(|found| found.start() < cut) {
            safe.push_str(&text[from..found.start()]);
            safe.push_str(known.mark(found.pattern().as_usize()));
            from = found.end();
        }
        safe.push_str(&text[from.min(cut)..cut]);
        Cow::Owned(safe)
    }

    /// The same of at most so many characters.
    pub fn head_chars<'t>(&self, text: &'t str, most: usize) -> Cow<'t, str> {
        match text.char_indices().nth(most) {
            Some((at, _)) => self.head(text, at),
            None => self.text(text),
        }
    }

    /// Where a text may begin that would begin here: after the secret that this is the middle of.
    pub fn after_secret(&self, bytes: &[u8], at: usize) -> usize {
        let Some(known) = &self.0 else {
            return at;
        };
        let from = at.saturating_sub(known.longest);
        let to = at.saturating_add(known.longest).min(bytes.len());
        let found = known
            .search
            .find_iter(bytes.get(from..to).unwrap_or_default());
        let across = found
            .map(|found| (from + found.start(), from + found.end()))
            .take_while(|(start, _)| *start < at)
            .last();
        across.map_or(at, |(_, end)| end.max(at))
    }

    /// Bytes of the longest form of a secret: how much must be seen around a cut.
    pub fn longest_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |known| known.longest)
    }

    /// A text without secrets, in place.
    pub fn clean(&self, text: &mut String) {
        if let Cow::Owned(safe) = self.text(text) {
            *text = safe;
        }
    }

    /// The same for every string of a document, the names of its fields included.
    pub fn clean_value(&self, value: &mut Value) {
        if self.is_empty() {
            return;
        }
        match value {
            Value::String(text) => self.clean(text),
            Value::Array(values) => values.iter_mut().for_each(|v| self.clean_value(v)),
            Value::Object(fields) => {
                if fields.keys().any(|name| self.finds(name.as_bytes())) {
                    let named = std::mem::take(fields).into_iter();
                    *fields = named
                        .map(|(name, value)| (self.text(&name).into_owned(), value))
                        .collect();
                }
                fields.values_mut().for_each(|v| self.clean_value(v));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Whether these bytes hold a secret.
    pub fn finds(&self, bytes: &[u8]) -> bool {
        let known = self.0.as_ref();
        known.is_some_and(|known| known.search.is_match(bytes))
    }
}

impl Known {
    fn mark(&self, form: usize) -> &str {
        self.forms.get(form).map_or("[secret]", |form| &*form.1)
    }

    /// Where the first form could begin, from here on, that is not complete at the end of the text.
    fn unfinished(&self, text: &[u8], from: usize) -> usize {
        let last = text.len().saturating_sub(self.longest.saturating_sub(1));
        (from.max(last)..text.len())
            .inspect(|_| {
                #[cfg(test)]
                work::look();
            })
            .find(|at| self.first[usize::from(text[*at])] && self.begins_with(&text[*at..]))
            .unwrap_or(text.len())
    }

    /// Whether a form goes on after this beginning.
    fn begins_with(&self, beginning: &[u8]) -> bool {
        let at = self
            .forms
            .partition_point(|form| form.0.as_slice() <= beginning);
        let next = self.forms.get(at);
        next.is_some_and(|form| form.0.starts_with(beginning))
    }
}

/// Text that comes in fragments, of which a secret may fill several. What is certain goes on at
/// once; held back is only the end that may be the beginning of a secret.
#[derive(Debug, Default)]
pub struct RedactedText {
    redactor: Redactor,
    held: String,
}

impl RedactedText {
    /// A text that is about to begin.
    pub fn new(redactor: Redactor) -> Self {
        Self {
            redactor,
            held: String::new(),
        }
    }

    /// Look for other secrets from here on.
    pub fn look_for(&mut self, redactor: Redactor) {
        self.redactor = redactor;
    }

    /// Take a fragment; returns what is certain by now.
    pub fn push<'t>(&mut self, fragment: &'t str) -> Cow<'t, str> {
        let Some(known) = &self.redactor.0 else {
            return Cow::Borrowed(fragment);
        };
        self.held.push_str(fragment);
        let mut out = String::new();
        let mut from = 0;
        let mut certain = known.unfinished(self.held.as_bytes(), from);
        loop {
            let rest = &self.held[from..];
            match known.search.find(rest) {
                // Nothing that begins earlier can still become a secret, and nothing longer here.
                Some(found) if from + found.start() < certain => {
                    out.push_str(&rest[..found.start()]);
                    out.push_str(known.mark(found.pattern().as_usize()));
                    from += found.end();
                    // Looked for anew only when it was within the secret: once for each byte then.
                    if from > certain {
                        certain = known.unfinished(self.held.as_bytes(), from);
                    }
                }
                _ => {
                    out.push_str(&self.held[from..certain]);
                    from = certain;
                    break;
                }
            }
        }
        self.held.drain(..from);
        Cow::Owned(out)
    }

    /// What is held back, as it is when nothing follows.
    pub fn held(&self) -> Cow<'_, str> {
        self.redactor.text(&self.held)
    }

    /// The text is over: the rest of it.
    pub fn finish(&mut self) -> String {
        let rest = std::mem::take(&mut self.held);
        self.redactor.text(&rest).into_owned()
    }
}

/// How a value may stand in a text.
fn forms_of(value: &str) -> Vec<String> {
    let bytes = value.as_bytes();
    let mut forms = vec![value.to_owned()];
    for upper in [true, false] {
        forms.push(hex(bytes, upper));
        forms.push(percent(bytes, upper, |_| true));
        let kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        forms.push(percent(bytes, upper, |byte| !kept(byte)));
        // As forms of web pages have it: a space is a plus.
        forms.push(percent(bytes, upper, |byte| byte != b' ' && !kept(byte)).replace(' ', "+"));
    }
    for ahead in 0..3 {
        forms.push(base64_core(&STANDARD_NO_PAD, bytes, ahead));
        forms.push(base64_core(&URL_SAFE_NO_PAD, bytes, ahead));
    }
    let escaped = json_escaped(value);
    // A document inside a string of another one.
    forms.push(json_escaped(&escaped));
    forms.push(escaped.replace('/', "\\/"));
    forms.push(json_ascii(&escaped));
    forms.push(escaped);
    forms.sort();
    forms.dedup();
    forms.retain(|form| form.len() >= limits::SECRET_BYTES_MIN);
    forms
}

fn hex(bytes: &[u8], upper: bool) -> String {
    bytes.iter().map(|byte| hex_byte(*byte, upper)).collect()
}

fn hex_byte(byte: u8, upper: bool) -> String {
    if upper {
        format!("{byte:02X}")
    } else {
        format!("{byte:02x}")
    }
}

/// The bytes that must be encoded as `%NN`. Others are ASCII or part of a character that is encoded
/// as a whole.
fn percent(bytes: &[u8], upper: bool, encoded: impl Fn(u8) -> bool) -> String {
    bytes
        .iter()
        .map(|byte| match encoded(*byte) || !byte.is_ascii() {
            true => format!("%{}", hex_byte(*byte, upper)),
            false => char::from(*byte).to_string(),
        })
        .collect()
}

/// The characters that the value alone decides when `ahead` bytes of something else come before it,
/// whatever follows.
fn base64_core(engine: &impl Engine, bytes: &[u8], ahead: usize) -> String {
    let mut padded = vec![0; ahead];
    padded.extend_from_slice(bytes);
    let encoded = engine.encode(&padded);
    // A character holds six bits: those that touch a foreign byte are left out.
    let from = (ahead * 8).div_ceil(6);
    let to = padded.len() * 8 / 6;
    encoded.get(from..to).unwrap_or_default().to_owned()
}

fn json_escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted
        .get(1..quoted.len() - 1)
        .unwrap_or_default()
        .to_owned()
}

/// With every character that is not ASCII as `\uNNNN`, as many programs write JSON.
fn json_ascii(escaped: &str) -> String {
    let mut ascii = String::with_capacity(escaped.len());
    for c in escaped.chars() {
        if c.is_ascii() {
            ascii.push(c);
            continue;
        }
        let mut units = [0; 2];
        for unit in c.encode_utf16(&mut units) {
            ascii.push_str(&format!("\\u{unit:04x}"));
        }
    }
    ascii
}

/// Positions that were looked at in this thread, to show that work grows with the text only.
#[cfg(test)]
mod work {
    use std::cell::Cell;

    thread_local! {
        static LOOKS: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn look() {
        LOOKS.set(LOOKS.get() + 1);
    }

    pub(super) fn looks_of(work: impl FnOnce()) -> usize {
        let before = LOOKS.get();
        work();
        LOOKS.get() - before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use serde_json::json;

    const VALUE: &str = "k/3y+~é\"7\\q ?&canary-0123456789";

    fn redactor() -> Redactor {
        Redactor::new(Secret::new("API_KEY", VALUE))
    }

    #[test]
    fn a_value_is_found_in_every_form() {
        let redactor = redactor();
        let upper = percent(VALUE.as_bytes(), true, |_| true);
        let json = json!({ "key": VALUE }).to_string();
        let nested = json!({ "text": json }).to_string();
        for text in [
            VALUE.to_owned(),
            upper.clone(),
            upper.to_lowercase(),
            "k%2F3y%2B~%C3%A9%227%5Cq%20%3F%26canary-0123456789".to_owned(),
            "k%2F3y%2B~%C3%A9%227%5Cq+%3F%26canary-0123456789".to_owned(),
            hex(VALUE.as_bytes(), true),
            hex(VALUE.as_bytes(), false),
            json.clone(),
            nested,
            json.replace('/', "\\/"),
            json_ascii(&json),
        ] {
            let shown = redactor.text(&text);
            assert!(shown.contains("[secret API_KEY]"), "{text} → {shown}");
            assert!(!shown.contains("0123456789"), "{text} → {shown}");
        }
    }

    #[test]
    fn a_value_is_found_inside_longer_base64_at_every_alignment() {
        let redactor = redactor();
        for before in 0..7 {
            for after in 0..4 {
                let long = format!("{}{VALUE}{}", "<".repeat(before), ">".repeat(after));
                for text in [STANDARD.encode(&long), URL_SAFE.encode(&long)] {
                    let shown = redactor.text(&text).into_owned();
                    let (head, tail) = shown.split_once("[secret API_KEY]").expect(&text);
                    // Nothing of the value is left but the bits of a shared character.
                    assert!(head.len() <= (before * 8).div_ceil(6), "{text} → {shown}");
                    assert!(
                        tail.len() <= (after * 8).div_ceil(6) + 4,
                        "{text} → {shown}"
                    );
                }
            }
        }
    }

    #[test]
    fn documents_are_cleaned_in_names_and_values() {
        let mut value = json!({ VALUE: [VALUE, 1, null, { "a": format!("x{VALUE}y") }] });
        redactor().clean_value(&mut value);
        let mark = "[secret API_KEY]";
        assert_eq!(
            value,
            json!({ mark: [mark, 1, null, { "a": format!("x{mark}y") }] })
        );
    }

    #[test]
    fn text_without_secrets_is_not_touched_or_held_back() {
        let mut text = RedactedText::new(redactor());
        assert_eq!(text.push("nothing of it"), "nothing of it");
        assert_eq!(text.push(" k"), " ", "it may begin here");
        assert_eq!(text.push("2"), "k2", "and did not");
        assert_eq!(text.finish(), "");
        let none = Redactor::default();
        assert!(matches!(none.text(VALUE), Cow::Borrowed(VALUE)));
        let mut plain = RedactedText::new(none);
        assert!(matches!(plain.push(VALUE), Cow::Borrowed(VALUE)));
    }

    #[test]
    fn what_is_short_or_endless_is_no_secret_and_names_are_harmless() {
        assert!(Secret::new("A", "1234567").is_none());
        assert!(Secret::new("A", &"x".repeat(limits::SECRET_BYTES_MAX + 1)).is_none());
        let odd = Secret::new("a\"\x1b]b c", "12345678").unwrap();
        assert_eq!(odd.name(), "a___b_c");
        assert_eq!(format!("{odd:?}"), "Secret(a___b_c)");
        let both = Redactor::new(
            ["FIRST", "SECOND"]
                .into_iter()
                .filter_map(|name| Secret::new(name, "one value")),
        );
        assert_eq!(both.text("one value"), "[secret FIRST]");
    }

    #[test]
    fn a_long_secret_wins_over_one_inside_it() {
        let secrets = [("PART", "abcdefgh"), ("ALL", "abcdefghijkl")];
        let redactor = Redactor::new(
            secrets
                .into_iter()
                .filter_map(|(name, value)| Secret::new(name, value)),
        );
        let mut text = RedactedText::new(redactor);
        assert_eq!(text.push("abcdefgh"), "", "the longer one may follow");
        assert_eq!(text.push("ij"), "");
        assert_eq!(text.push("x"), "[secret PART]ijx");
        assert_eq!(text.push("abcdefghijkl!"), "[secret ALL]!");
    }

    #[test]
    fn work_grows_with_the_text_and_not_with_its_secrets() {
        // Long beside the other one: what may be its beginning is looked for in its length.
        let long: String = (0..300)
            .map(|n| char::from(b'a' + (n * n % 23) as u8))
            .collect();
        let secrets = [("JWT", long.as_str()), ("KEY", "k-0123456789")];
        let redactor = Redactor::new(
            secrets
                .into_iter()
                .filter_map(|(name, value)| Secret::new(name, value)),
        );
        let text = "k-0123456789 ".repeat(5_000);
        let mut text_of = RedactedText::new(redactor);
        let looks = work::looks_of(|| {
            assert_eq!(text_of.push(&text).matches("[secret KEY]").count(), 5_000);
        });
        assert!(looks <= text.len(), "{looks} looks at {} bytes", text.len());
    }

    #[test]
    fn a_cut_leaves_no_part_of_a_secret() {
        let redactor = redactor();
        let text = format!("before {VALUE} after");
        let begins = text.find(VALUE).unwrap();
        for most in 0..=text.len() + 1 {
            let head = redactor.head(&text, most);
            let expected = match most {
                _ if most <= begins => &text[..most],
                _ if most <= begins + VALUE.len() => "before [secret API_KEY]",
                _ => &redactor.text(&text)[..most.min(text.len()) + 16 - VALUE.len()],
            };
            assert_eq!(head, expected, "{most}");
            let at = redactor.after_secret(text.as_bytes(), most);
            let inside = most > begins && most < begins + VALUE.len();
            let expected = if inside { begins + VALUE.len() } else { most };
            assert_eq!(at, expected, "{most}");
        }
        assert_eq!(Redactor::default().head("aé", 2), "a");
    }
}
