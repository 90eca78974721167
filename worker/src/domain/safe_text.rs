//! Text that others wrote, made harmless for a terminal: no escape, control or reordering
//! character gets through, and none disappears either, so that a reviewer sees that it was there.

/// One line: line breaks are shown too.
pub fn line(text: &str) -> String {
    shown(text, false)
}

/// Several lines: line breaks and tabs stay.
pub fn block(text: &str) -> String {
    shown(text, true)
}

/// One line of a log, with its line break and with the colours that we paint; what a terminal does
/// otherwise, or could take for the next line, is shown.
pub fn log_line(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let (inner, end) = match text.strip_suffix('\n') {
        Some(inner) => (inner, "\n"),
        None => (text, ""),
    };
    let mut rest = inner;
    while let Some(at) = rest.find('\x1b') {
        let (before, escape) = rest.split_at(at);
        safe.push_str(&shown(before, false));
        let painted = paint_len(escape);
        // What is no colour of ours loses its escape character and is text from there on.
        let taken = if painted > 0 { painted } else { 1 };
        match painted {
            0 => safe.push(picture('\x1b')),
            _ => safe.push_str(&escape[..painted]),
        }
        rest = &escape[taken..];
    }
    safe.push_str(&shown(rest, false));
    safe.push_str(end);
    safe
}

/// Bytes of the colour that the text begins with; 0: it is none. Concealed or blinking text is none.
fn paint_len(text: &str) -> usize {
    let Some((code, _)) = text.strip_prefix("\x1b[").and_then(|t| t.split_once('m')) else {
        return 0;
    };
    let ours = |part: &str| matches!(part.parse(), Ok(0..=4 | 30..=37 | 90..=97)) && part.len() < 3;
    if code.split(';').all(ours) {
        code.len() + 3
    } else {
        0
    }
}

/// Text of a JSON document: what a terminal could act on becomes an escape, the value stays.
pub fn json(document: &str) -> String {
    let mut safe = String::with_capacity(document.len());
    let mut before = None;
    for c in document.chars() {
        let risky = is_risky(before.replace(c), c);
        if c == '\n' || !risky {
            safe.push(c);
            continue;
        }
        let mut units = [0; 2];
        for unit in c.encode_utf16(&mut units) {
            safe.push_str(&format!("\\u{unit:04x}"));
        }
    }
    safe
}

fn shown(text: &str, keep_breaks: bool) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut before = None;
    for c in text.chars() {
        let risky = is_risky(before.replace(c), c);
        match c {
            '\n' | '\t' if keep_breaks => safe.push(c),
            '\0'..='\x1f' => safe.push(picture(c)),
            '\x7f' => safe.push('\u{2421}'),
            c if risky => safe.push_str(&format!("<U+{:04X}>", u32::from(c))),
            c => safe.push(c),
        }
    }
    safe
}

/// The picture of a C0 control: ␛ for escape.
fn picture(control: char) -> char {
    char::from_u32(0x2400 + u32::from(control)).unwrap_or('\u{fffd}')
}

/// What a terminal may act on, or what hides or reorders other text, after this character.
fn is_risky(before: Option<char>, c: char) -> bool {
    match c {
        // Beside emoji it says nothing but "in colour", and agents write many; beside a letter it
        // makes another name that looks the same.
        '\u{fe0f}' => !before.is_some_and(has_emoji_form),
        // Separators of lines and paragraphs, annotations.
        '\u{2028}'..='\u{2029}' | '\u{fff9}'..='\u{fffb}' => true,
        _ => c.is_control() || is_invisible(c),
    }
}

/// Whether it is a symbol that may be drawn as text or in colour.
fn has_emoji_form(c: char) -> bool {
    match c {
        '\u{a9}' | '\u{ae}' | '\u{2122}' | '\u{2139}' | '\u{24c2}' => true,
        '\u{203c}'..='\u{2bff}' => !c.is_alphanumeric() && !is_invisible(c),
        '\u{3030}' | '\u{303d}' | '\u{3297}' | '\u{3299}' => true,
        _ => matches!(c, '\u{1f000}'..='\u{1faff}'),
    }
}

/// Whether it is drawn as nothing, and ignored in names by file systems that fold (HFS+; ext4 and
/// f2fs where they fold case): all that Unicode calls Default_Ignorable_Code_Point. What is shown to
/// people and what is refused in names must not differ.
pub fn is_invisible(c: char) -> bool {
    matches!(c,
        // soft hyphen, joiners and fillers without width
        '\u{ad}' | '\u{34f}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
        // joiners, direction marks, embeddings, overrides, isolates
        | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        // choices of a glyph, reserved ones, shorthand and music, tags
        | '\u{fe00}'..='\u{fe0f}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_seen_and_not_obeyed() {
        assert_eq!(line("\x1b]52;c;eA==\x07"), "␛]52;c;eA==␇");
        assert_eq!(line("a\r\nb\tc\x7f"), "a␍␊b␉c␡");
        assert_eq!(block("a\n\tb\u{9b}31m"), "a\n\tb<U+009B>31m");
        assert_eq!(line("user\u{202e}gpj.exe"), "user<U+202E>gpj.exe");
        assert_eq!(line("naïve ✓ 日本 🦀"), "naïve ✓ 日本 🦀");
    }

    #[test]
    fn a_log_line_keeps_our_colours_and_nothing_else() {
        assert_eq!(
            log_line("\x1b[2mtime\x1b[0m \x1b[32m INFO\x1b[0m said\n"),
            "\x1b[2mtime\x1b[0m \x1b[32m INFO\x1b[0m said\n"
        );
        assert_eq!(
            log_line("a\x1b[8mhidden\x1b]0;t\x07\x1b[2J\r\nERROR forged\u{202e}\n"),
            "a␛[8mhidden␛]0;t␇␛[2J␍␊ERROR forged<U+202E>\n"
        );
        assert_eq!(log_line("\x1b"), "␛");
        assert_eq!(log_line("\x1b[2;31mx\x1b[5;31m"), "\x1b[2;31mx␛[5;31m");
    }

    #[test]
    fn json_keeps_its_value() {
        let value = serde_json::json!({"a": "\u{9b}\u{202e}\u{e0041}\u{7f}\u{1b}é"});
        let safe = json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!safe.chars().any(|c| c != '\n' && is_risky(None, c)));
        let back: serde_json::Value = serde_json::from_str(&safe).unwrap();
        assert_eq!(back, value);
    }

    #[test]
    fn what_is_drawn_as_nothing_is_shown_save_where_emoji_need_it() {
        assert_eq!(line("a\u{fff0}b\u{fff8}"), "a<U+FFF0>b<U+FFF8>");
        assert_eq!(
            line("\u{26a0}\u{fe0f} \u{1f6e0}\u{fe0f}"),
            "\u{26a0}\u{fe0f} \u{1f6e0}\u{fe0f}"
        );
        assert_eq!(line("admin\u{fe0f} \u{fe0f}"), "admin<U+FE0F> <U+FE0F>");
        let twice = "\u{26a0}\u{fe0f}\u{fe0f}";
        assert_eq!(
            line(twice),
            "\u{26a0}\u{fe0f}<U+FE0F>",
            "a row of them is a message"
        );
        for c in (0..=0x10_ffff)
            .filter_map(char::from_u32)
            .filter(|c| is_invisible(*c))
        {
            assert_eq!(line(&format!("a{c}")), format!("a<U+{:04X}>", u32::from(c)));
        }
    }
}
