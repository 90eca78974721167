//! Text of terminal programs.

use crate::agent::pty::screen::Screen;
use crate::agent::utf8::Decoder;
use crate::domain::limits;

/// Whatever a program prints, what is kept is plain lines of bounded length, each told once; and
/// decoding does not depend on where reads cut the bytes.
pub fn pty_text(data: &[u8]) {
    let [cols, rows, size, bytes @ ..] = data else {
        return;
    };
    let size = usize::from(*size) + 1;
    decoding_is_the_same_however_cut(bytes, size);
    let (cols, rows) = (u16::from(*cols) + 1, u16::from(*rows % 64) + 1);
    let Some(mut screen) = Screen::new(cols, rows) else {
        unreachable!("{cols} x {rows} is a terminal");
    };
    let mut told = 0;
    for part in bytes.chunks(size) {
        let (text, answers) = screen.feed(part);
        judge(&text);
        told += text.len();
        // Each query is three bytes at least; the longest answer is 24.
        assert!(
            answers.len() <= (part.len() + 3) * 24,
            "answers without questions"
        );
        if let Some(painted) = screen.painted() {
            judge(&painted);
        }
        assert!(screen.held_bytes() <= limits::DELTA_BYTES_MAX + usize::from(cols) * 4);
    }
    judge(&screen.visible());
    let rest = screen.finish();
    judge(&rest);
    // Each byte makes a row at most, and the screen itself is told at the end.
    let rows_made = bytes.len() + usize::from(rows) + 1;
    let row_bytes = (usize::from(cols) + 1) * 4;
    assert!(
        told + rest.len() <= rows_made * row_bytes,
        "text out of nothing"
    );
}

fn judge(text: &str) {
    let raw = text
        .chars()
        .find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
    assert_eq!(raw, None, "a control character in {text:?}");
}

fn decoding_is_the_same_however_cut(bytes: &[u8], size: usize) {
    let mut decoder = Decoder::default();
    let mut text: String = bytes.chunks(size).map(|part| decoder.push(part)).collect();
    text.push_str(&decoder.finish());
    assert_eq!(
        text,
        String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}")
    );
}
