//! No text of an agent, a repository or a submitter reaches a terminal as a command.

use dispatch_worker::surface::safe_text;

const ATTACKS: [&str; 14] = [
    "\x1b]52;c;ZXZpbA==\x07",
    "\x1b]0;title\x1b\\",
    "\x1bP$q\"p\x1b\\",
    "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\",
    "\x1b[2J\x1b[H\x1b[8m",
    "\u{9b}31m \u{9d}0;t\u{9c}",
    "\r\x1b[Kfake prompt $ ",
    "user\u{202e}gpj.exe \u{2066}x\u{2069}",
    "zero\u{200b}width\u{200d}\u{feff}\u{ad}",
    "line\u{2028}para\u{2029}",
    "tags\u{e0041}\u{e007f}",
    "bell\x07 back\x08 del\x7f nul\0",
    "\u{61c}\u{200e}\u{200f}",
    "<img src=x onerror=alert(1)>",
];

fn dangerous(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(u32::from(c), 0xad | 0x61c | 0x200b..=0x200f | 0x2028..=0x202e
            | 0x2060..=0x206f | 0xfeff | 0xfff9..=0xfffb | 0xe0000..=0xe0fff)
}

#[test]
fn no_control_reaches_the_terminal_and_none_is_hidden() {
    for attack in ATTACKS {
        for shown in [safe_text::line(attack), safe_text::block(attack)] {
            assert!(!shown.chars().any(dangerous), "{attack:?} became {shown:?}");
            assert!(
                shown.chars().count() >= attack.chars().count(),
                "{attack:?} was shortened"
            );
        }
        assert!(!safe_text::line(attack).contains(['\n', '\t']));
    }
}

#[test]
fn json_for_a_terminal_has_no_control_and_the_same_value() {
    for attack in ATTACKS {
        let shown = safe_text::json(&serde_json::to_string(attack).unwrap());
        assert!(!shown.chars().any(dangerous), "{attack:?} became {shown:?}");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), attack);
    }
}
