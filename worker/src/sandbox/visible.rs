//! What an agent sees of the machine: the system's programs, the tools that its entry uses, and
//! nothing of anybody's home, of other attempts or of the worker itself. A list of what is shown,
//! because a list of what is hidden is never complete.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::domain::limits;

/// Programs, libraries and configuration of the system.
const SYSTEM: [&str; 15] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/nix/store",
    "/gnu/store",
    "/run/current-system",
    "/var/lib/ca-certificates",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
];

/// Where version managers and installers of a person put programs, below HOME; none of them keeps
/// credentials there (uv does beside its tools, in `credentials`).
const TOOLS_BELOW_HOME: [&str; 17] = [
    ".nvm/versions",
    ".volta",
    ".fnm",
    ".local/share/fnm",
    ".asdf",
    ".local/share/mise",
    ".pyenv",
    ".rbenv",
    ".local/share/uv/python",
    ".local/share/uv/tools",
    ".local/share/pipx/venvs",
    ".rustup",
    ".cargo/bin",
    ".bun/bin",
    ".deno/bin",
    ".sdkman/candidates",
    ".opencode/bin",
];

/// Configuration of this product, which may name credentials.
const HIDDEN: [&str; 1] = ["/etc/dispatch"];

/// What to look for.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    /// The programs, absolute.
    pub programs: &'a [PathBuf],
    /// Their arguments: those that name existing files are shown.
    pub args: &'a [String],
    /// Directories with programs.
    pub search_path: Vec<PathBuf>,
    /// Shown whatever hides it: what the entry lists, and what the worker lends.
    pub lent: &'a [PathBuf],
    /// The worker's HOME.
    pub home: Option<&'a Path>,
    /// What must stay out of sight even below something shown.
    pub hidden: &'a [PathBuf],
}

/// What to show and what to hide below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Visible {
    /// Readable, save what is hidden below it.
    pub read: Vec<PathBuf>,
    /// Not so.
    pub hidden: Vec<PathBuf>,
    /// Readable also below something hidden.
    pub lent: Vec<PathBuf>,
}

/// Find it. Reads the disk.
pub fn find(wanted: &Wanted<'_>) -> Visible {
    let mut found = Found {
        read: SYSTEM.iter().map(PathBuf::from).collect(),
        home: wanted.home,
    };
    if let Some(home) = wanted.home {
        found
            .read
            .extend(TOOLS_BELOW_HOME.iter().map(|tool| home.join(tool)));
    }
    for dir in &wanted.search_path {
        found.tools_of(dir);
    }
    for program in wanted.programs {
        found.program(program, 0);
    }
    let mut lent = wanted.lent.to_vec();
    for arg in wanted.args {
        let path = Path::new(arg);
        if path.is_absolute() && path.is_file() {
            lent.push(path.to_owned());
        }
    }
    lent.retain(|path| path.exists());
    let hidden: Vec<PathBuf> = HIDDEN
        .iter()
        .map(PathBuf::from)
        .chain(wanted.hidden.iter().cloned())
        .collect();
    let mut read: Vec<PathBuf> = found
        .read
        .into_iter()
        .filter(|path| path.exists())
        .filter(|path| !hidden.iter().any(|hidden| path.starts_with(hidden)))
        .collect();
    shorten(&mut read);
    Visible { read, hidden, lent }
}

struct Found<'a> {
    read: BTreeSet<PathBuf>,
    home: Option<&'a Path>,
}

impl Found<'_> {
    /// Never a whole home, nor the root.
    fn add(&mut self, path: &Path) {
        let too_much = path.parent().is_none()
            || self.home.is_some_and(|home| home.starts_with(path))
            || [
                "/home", "/root", "/var", "/run", "/tmp", "/proc", "/dev", "/sys",
            ]
            .iter()
            .any(|whole| path == Path::new(whole));
        if !too_much {
            self.read.insert(path.to_owned());
        }
    }

    /// A directory of programs and the libraries beside it. What else stands beside it, such as
    /// `share`, is where logins are kept.
    fn tools_of(&mut self, dir: &Path) {
        self.add(dir);
        if dir.ends_with("bin")
            && let Some(prefix) = dir.parent()
        {
            for part in ["lib", "lib64", "libexec", "include"] {
                self.add(&prefix.join(part));
            }
        }
    }

    /// A program, what it is a link to, and what interprets it.
    fn program(&mut self, program: &Path, depth: usize) {
        if depth > limits::INTERPRETERS_MAX {
            return;
        }
        if let Some(dir) = program.parent() {
            self.tools_of(dir);
        }
        let Ok(real) = program.canonicalize() else {
            return;
        };
        self.add(&real);
        // A package of npm reads what is beside its program.
        let mut above = real.ancestors().skip(1);
        if let Some(modules) = above.find(|dir| dir.ends_with("node_modules")) {
            self.add(modules);
        }
        if let Some(bin) = real.parent()
            && let Some(prefix) = bin.parent()
        {
            if prefix.join("pyvenv.cfg").is_file() {
                self.venv(prefix);
            } else if bin.ends_with("bin") {
                self.tools_of(bin);
            }
        }
        for interpreter in interpreters(&real) {
            self.program(&interpreter, depth + 1);
        }
    }

    /// A virtual environment of Python, and the Python it was made with.
    fn venv(&mut self, prefix: &Path) {
        self.add(prefix);
        let Ok(text) = fs::read_to_string(prefix.join("pyvenv.cfg")) else {
            return;
        };
        let base = text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == "home").then(|| PathBuf::from(value.trim()))
        });
        if let Some(base) = base {
            self.tools_of(&base);
        }
    }
}

/// The programs that a script names in its first line.
fn interpreters(script: &Path) -> Vec<PathBuf> {
    let mut head = Vec::new();
    let read = fs::File::open(script).and_then(|file| file.take(512).read_to_end(&mut head));
    let Some(line) = read.ok().and_then(|_| head.strip_prefix(b"#!")) else {
        return Vec::new();
    };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(line)
        .split_whitespace()
        .map(PathBuf::from)
        .filter(|word| word.is_absolute() && word.is_file())
        .collect()
}

/// Whether there is a file that somebody may run.
pub fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

/// Leave out what is below another one.
fn shorten(paths: &mut Vec<PathBuf>) {
    paths.sort();
    let mut kept: Vec<PathBuf> = Vec::new();
    for path in paths.drain(..) {
        if !kept.iter().any(|above| path.starts_with(above)) {
            kept.push(path);
        }
    }
    *paths = kept;
}

/// The same for rules that can only allow: what is shown, split so that nothing hidden is below.
pub(super) fn without(read: &[PathBuf], hidden: &[PathBuf]) -> Vec<PathBuf> {
    let mut shown = Vec::new();
    let mut open: Vec<PathBuf> = read.to_vec();
    while let Some(path) = open.pop() {
        if hidden.iter().any(|hidden| path.starts_with(hidden)) {
            continue;
        }
        if !hidden.iter().any(|hidden| hidden.starts_with(&path)) {
            shown.push(path);
            continue;
        }
        let Ok(entries) = fs::read_dir(&path) else {
            continue;
        };
        // A rule is for what a link leads to, which is nobody's to show for being linked here.
        let own = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| !kind.is_symlink());
        open.extend(entries.flatten().filter(own).map(|entry| entry.path()));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn executable(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn sees(visible: &Visible, path: &Path) -> bool {
        let under = |list: &[PathBuf]| list.iter().any(|shown| path.starts_with(shown));
        under(&visible.read) && !under(&visible.hidden)
    }

    #[test]
    fn a_program_below_home_is_seen_with_its_package_and_interpreter_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().canonicalize().unwrap();
        let node = home.join("tools/node/bin/node");
        executable(&node, "\x7fELF");
        let package = home.join(".local/share/agent/node_modules/agent");
        let main = package.join("cli.js");
        executable(&main, &format!("#!{}\n", node.display()));
        let link = home.join(".local/bin/agent");
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(&main, &link).unwrap();
        fs::create_dir_all(home.join(".local/share/other")).unwrap();
        fs::write(home.join(".local/share/other/auth.json"), "secret").unwrap();
        let visible = find(&Wanted {
            programs: std::slice::from_ref(&link),
            home: Some(&home),
            ..Wanted::default()
        });
        for seen in [&link, &main, &node, &package.join("lib/x.js")] {
            assert!(sees(&visible, seen), "{seen:?} in {visible:?}");
        }
        for unseen in [
            home.join(".local/share/other/auth.json"),
            home.join(".ssh/id_ed25519"),
            home.join(".claude/.credentials.json"),
        ] {
            assert!(!sees(&visible, &unseen), "{unseen:?} in {visible:?}");
        }
    }

    #[test]
    fn a_virtual_environment_brings_its_python() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().canonicalize().unwrap();
        let base = home.join("pythons/3.13/bin");
        executable(&base.join("python3.13"), "\x7fELF");
        let venv = home.join("tools/fast/venv");
        fs::create_dir_all(venv.join("bin")).unwrap();
        fs::write(
            venv.join("pyvenv.cfg"),
            format!("home = {}\n", base.display()),
        )
        .unwrap();
        symlink(base.join("python3.13"), venv.join("bin/python")).unwrap();
        let script = venv.join("bin/fast");
        executable(
            &script,
            &format!("#!{}\n", venv.join("bin/python").display()),
        );
        let visible = find(&Wanted {
            programs: std::slice::from_ref(&script),
            home: Some(&home),
            ..Wanted::default()
        });
        for seen in [
            script,
            venv.join("lib/python3.13/site-packages/x.py"),
            base.join("python3.13"),
        ] {
            assert!(sees(&visible, &seen), "{seen:?} in {visible:?}");
        }
    }

    #[test]
    fn what_is_hidden_below_something_shown_is_left_out_of_rules_that_only_allow() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        fs::create_dir_all(etc.join("dispatch")).unwrap();
        fs::write(etc.join("hosts"), "").unwrap();
        symlink("dispatch", etc.join("alias")).unwrap();
        let shown = without(std::slice::from_ref(&etc), &[etc.join("dispatch")]);
        assert_eq!(shown, [etc.join("hosts")]);
    }

    #[test]
    fn a_home_is_never_shown_whole() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().canonicalize().unwrap();
        executable(&home.join("agent"), "#!/bin/sh\n");
        let visible = find(&Wanted {
            programs: &[home.join("agent")],
            search_path: vec![home.clone(), PathBuf::from("/")],
            home: Some(&home),
            ..Wanted::default()
        });
        assert!(sees(&visible, &home.join("agent")));
        assert!(!sees(&visible, &home.join(".ssh/id")));
    }
}
