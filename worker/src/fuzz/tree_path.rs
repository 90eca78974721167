//! Paths of a snapshot.

use crate::workspace::tree_check::{Symlink, fold_case, refuse_path};

/// A path that may enter a tree names one file below it, here and on every other file system, and
/// none of git's own. The first byte says whether it is a link.
pub fn tree_path(data: &[u8]) {
    let Some((first, path)) = data.split_first() else {
        return;
    };
    let link = first & 1 == 1;
    let symlink = if link { Symlink::Yes } else { Symlink::No };
    let _ = fold_case(path);
    if refuse_path(path, symlink).is_some() {
        return;
    }
    assert!(!path.is_empty() && path.len() <= 4_096);
    assert!(!path.iter().any(|byte| *byte < b' ' || *byte == 0x7f));
    // As Windows and this system separate; none is empty, so it is relative and has no `//`.
    for name in path.split(|byte| matches!(byte, b'/' | b'\\')) {
        assert!(!name.is_empty());
        assert!(name != b"." && name != b"..");
        assert!(!name.contains(&b':'), "a stream or a drive");
        assert!(
            !matches!(name.last(), Some(b'.' | b' ')),
            "dropped by Windows"
        );
        for seen in as_seen_elsewhere(name) {
            assert_ne!(seen, ".git", "{name:?}");
            assert!(!is_short_for(&seen, "git~"), "{name:?}");
            if link {
                assert_ne!(seen, ".gitmodules", "{name:?}");
                assert!(!is_short_for(&seen, "gitmod~"), "{name:?}");
            }
        }
    }
}

fn is_short_for(name: &str, stem: &str) -> bool {
    let number = name.strip_prefix(stem).unwrap_or_default();
    !number.is_empty() && number.chars().all(|c| c.is_ascii_digit())
}

/// The name as other file systems compare it: FAT and NTFS, HFS+, and those that fold all of
/// Unicode and ignore what is ignorable (APFS, ext4 with casefold).
fn as_seen_elsewhere(name: &[u8]) -> [String; 3] {
    let text = String::from_utf8_lossy(name);
    let windows = text
        .split(':')
        .next()
        .unwrap_or_default()
        .trim_end_matches([' ', '.'])
        .to_ascii_lowercase();
    // The list of git's own check for HFS+.
    let hfs: String = text
        .chars()
        .filter(|c| {
            let c = u32::from(*c);
            !matches!(c, 0x200c..=0x200f | 0x202a..=0x202e | 0x206a..=0x206f | 0xfeff)
        })
        .collect();
    let folded: String = text
        .chars()
        .filter(|c| !is_default_ignorable(*c))
        .map(plain)
        .collect();
    [windows, hfs.to_lowercase(), folded.to_lowercase()]
}

/// The letters that are ASCII's in another dress, as far as `.gitmodules` and `git~1` need them:
/// full width, circled, and the mathematical alphabets without gaps, which come in rows of 52.
fn plain(c: char) -> char {
    let code = u32::from(c);
    let ascii = match code {
        0xff01..=0xff5e => code - 0xff01 + 0x21,
        0x1d400..=0x1d433 | 0x1d5a0..=0x1d6a3 => match (code - 0x1d400) % 52 {
            upper @ 0..26 => upper + 0x41,
            lower => lower - 26 + 0x61,
        },
        0x1d7ce..=0x1d7ff => (code - 0x1d7ce) % 10 + 0x30,
        0x24b6..=0x24cf => code - 0x24b6 + 0x41,
        0x24d0..=0x24e9 => code - 0x24d0 + 0x61,
        0x2024 => 0x2e,
        0x210a => 0x67,
        0x2110 | 0x2111 | 0x2139 | 0x2148 | 0x2170 | 0x2160 => 0x69,
        0x217d | 0x216d => 0x63,
        _ => return c,
    };
    char::from_u32(ascii).unwrap_or(c)
}

/// Default_Ignorable_Code_Point of Unicode 16 (DerivedCoreProperties).
fn is_default_ignorable(c: char) -> bool {
    matches!(
        u32::from(c),
        0xad | 0x34f
            | 0x61c
            | 0x115f..=0x1160
            | 0x17b4..=0x17b5
            | 0x180b..=0x180f
            | 0x200b..=0x200f
            | 0x202a..=0x202e
            | 0x2060..=0x206f
            | 0x3164
            | 0xfe00..=0xfe0f
            | 0xfeff
            | 0xffa0
            | 0xfff0..=0xfff8
            | 0x1bca0..=0x1bca3
            | 0x1d173..=0x1d17a
            | 0xe0000..=0xe0fff
    )
}
