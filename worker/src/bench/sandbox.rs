//! `dispatch bench sandbox`: what each rung of the ladder adds to the start of a program, beside a
//! bare spawn in the same run. Programs are started and ended as an attempt's are.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::process::{ChildStdout, Command};

use crate::agent::process::{self, Input, Launch, Manner};
use crate::agent::{MARK_VARIABLE, confine};
use crate::config::agent_spec::AgentSpec;
use crate::config::agents::Catalogue;
use crate::domain::redact::Redactor;
use crate::domain::sandbox::Rung;
use crate::sandbox::{Confinement, Means, Places, Sandbox, Settings};

/// It does next to nothing and has a first byte.
const PROGRAM: &str = "/bin/echo";

/// What it says.
const SAID: &str = "x";

/// Started before anything is counted: files are in memory then, as on a worker that runs.
const WARM_UP: usize = 3;

/// Two entries that differ in what they may reach.
const CATALOGUE: &str = r#"
[agents.full]
path = "pipe"
command = ["/bin/echo", "{prompt}"]

[agents.gateway]
extends = "full"
network = "gateway"
hosts = ["example.com"]
"#;

/// A way of starting a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Fork and exec.
    Bare,
    /// As an attempt on this rung.
    Rung(Rung),
    /// The same with bubblewrap and a gateway as the only way out.
    Gateway,
}

impl Way {
    /// All, the cheapest first.
    pub const ALL: [Self; 6] = [
        Self::Bare,
        Self::Rung(Rung::None),
        Self::Rung(Rung::Landlock),
        Self::Rung(Rung::LandlockUid),
        Self::Rung(Rung::Bubblewrap),
        Self::Gateway,
    ];

    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Rung(rung) => rung.as_str(),
            Self::Gateway => "bubblewrap+gateway",
        }
    }

    fn rung(self) -> Option<Rung> {
        match self {
            Self::Bare => None,
            Self::Rung(rung) => Some(rung),
            Self::Gateway => Some(Rung::Bubblewrap),
        }
    }
}

/// Times of one start. All but the first count from the spawn.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Before the spawn: what to show is found out, the gateway opened, directories given away.
    pub prepare: Duration,
    /// Until the program's first byte is read.
    pub first_byte: Duration,
    /// Until the process that the worker started is waited for.
    pub exit: Duration,
    /// Until nothing of it is left, as the worker makes sure.
    pub swept: Duration,
}

/// What was measured of one way; the error says why it does not work here.
pub type Measured = (Way, Result<Vec<Sample>, String>);

/// Start a program in every way that works here, so often each, in turns. `helper` as in
/// [`Settings`].
pub async fn measure(helper: Option<PathBuf>, rounds: usize) -> Result<Vec<Measured>, String> {
    let trouble = |error: std::io::Error| error.to_string();
    process::become_subreaper().map_err(trouble)?;
    let data = tempfile::tempdir().map_err(trouble)?;
    let bench = Bench::prepare(data.path(), helper).await?;
    let works = |way: &Way| match way.rung() {
        Some(rung) => bench.sandbox.works(rung),
        None => Ok(()),
    };
    let mut all: Vec<Measured> = Way::ALL
        .into_iter()
        .map(|way| (way, works(&way).map(|()| Vec::new())))
        .collect();
    for round in 0..WARM_UP + rounds {
        for (way, samples) in &mut all {
            let Ok(samples) = samples else { continue };
            let sample = bench
                .start(*way)
                .await
                .map_err(|error| format!("{}: {error}", way.name()))?;
            if round >= WARM_UP {
                samples.push(sample);
            }
        }
    }
    Ok(all)
}

/// One of its times.
type Time = fn(&Sample) -> Duration;

/// Print what was measured, as `RESULT` lines in microseconds and `MISSING` ones.
pub async fn run(rounds: usize) -> Result<(), String> {
    for (way, samples) in measure(None, rounds).await? {
        let name = way.name();
        let samples = match samples {
            Ok(samples) => samples,
            Err(why) => {
                missing(name, &why);
                continue;
            }
        };
        let stages: [(&str, Time); 4] = [
            ("prepare", |sample| sample.prepare),
            ("first_byte", |sample| sample.first_byte),
            ("exit", |sample| sample.exit),
            ("swept", |sample| sample.swept),
        ];
        for (stage, time) in stages {
            let mut times: Vec<Duration> = samples.iter().map(time).collect();
            times.sort_unstable();
            for (share, word) in [(0.50, "p50"), (0.99, "p99")] {
                let index = (times.len() as f64 * share) as usize;
                let at = index.min(times.len().saturating_sub(1));
                let time = times.get(at).copied().unwrap_or_default();
                super::result(&format!("{name}.{stage}.{word}"), time.as_micros());
            }
        }
    }
    Ok(())
}

#[expect(
    clippy::print_stdout,
    reason = "the results are the output of the command"
)]
fn missing(way: &str, why: &str) {
    println!("MISSING {way} {why}");
}

struct Bench {
    sandbox: Sandbox,
    full: AgentSpec,
    gateway: AgentSpec,
    places: Places,
}

impl Bench {
    async fn prepare(data: &Path, helper: Option<PathBuf>) -> Result<Self, String> {
        let trouble = |error: std::io::Error| error.to_string();
        let data = data.canonicalize().map_err(trouble)?;
        open_to_owners(&data).map_err(trouble)?;
        let places = Places {
            tree: data.join("tree"),
            home: data.join("home"),
            tmp: data.join("tmp"),
            ..Places::default()
        };
        for dir in [&places.tree, &places.home, &places.tmp] {
            std::fs::create_dir(dir).map_err(trouble)?;
        }
        let sandbox = Sandbox::find(Settings {
            helper,
            data_dir: data,
            ..Settings::default()
        })
        .await?;
        let mut agents = Catalogue::parse(CATALOGUE)
            .map_err(|error| error.to_string())?
            .agents;
        let mut take = |name: &str| agents.remove(name).ok_or("an entry is missing".to_owned());
        Ok(Self {
            sandbox,
            full: take("full")?,
            gateway: take("gateway")?,
            places,
        })
    }

    async fn start(&self, way: Way) -> Result<Sample, String> {
        match way {
            Way::Bare => bare(&self.places.tree).await,
            Way::Rung(rung) => self.confined(rung, &self.full).await,
            Way::Gateway => self.confined(Rung::Bubblewrap, &self.gateway).await,
        }
    }

    async fn confined(&self, rung: Rung, spec: &AgentSpec) -> Result<Sample, String> {
        let began = Instant::now();
        let confinement = self.confinement(rung, spec)?;
        let prepare = began.elapsed();
        let mark = format!("bench-{}", uuid::Uuid::new_v4());
        let path = std::env::var("PATH").unwrap_or_default();
        let launch = Launch {
            program: PROGRAM.into(),
            args: vec![SAID.to_owned()],
            cwd: self.places.tree.clone(),
            variables: vec![
                ("PATH".to_owned(), path),
                (MARK_VARIABLE.to_owned(), mark.clone()),
            ],
            mark,
            stdin: Input::Empty,
            kill_grace: spec.kill_grace,
            confinement,
            secrets: Redactor::default(),
        };
        let began = Instant::now();
        let mut process = launch.start().map_err(|error| error.message)?;
        let first_byte = first_byte(process.stdout.take(), began).await;
        process.wait().await;
        let exit = began.elapsed();
        let ended = process.end(Manner::Firm, None).await;
        let ended = ended.map_err(|error| error.message)?;
        match (ended.code, first_byte) {
            (Some(0), Some(first_byte)) => Ok(Sample {
                prepare,
                first_byte,
                exit,
                swept: began.elapsed(),
            }),
            _ => Err(format!("{PROGRAM} did not run: {}", ended.stderr_tail)),
        }
    }

    fn confinement(&self, rung: Rung, spec: &AgentSpec) -> Result<Confinement, String> {
        let means = Means::of(rung, self.sandbox.owner(rung)?);
        let confinement = confine::confine(&self.sandbox, spec, means, self.places.clone())
            .map_err(|error| error.message)?;
        for dir in [&self.places.tree, &self.places.home, &self.places.tmp] {
            confinement.give(dir).map_err(|error| error.to_string())?;
        }
        Ok(confinement)
    }
}

/// The data directory of a worker that is root is open to be passed through.
fn open_to_owners(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o711))
}

async fn first_byte(stdout: Option<ChildStdout>, began: Instant) -> Option<Duration> {
    let mut stdout = stdout?;
    let mut byte = [0];
    stdout.read_exact(&mut byte).await.ok()?;
    (byte == *SAID.as_bytes()).then(|| began.elapsed())
}

async fn bare(cwd: &Path) -> Result<Sample, String> {
    let began = Instant::now();
    #[expect(
        clippy::disallowed_methods,
        reason = "what agents are started with is compared with this"
    )]
    let mut command = Command::new(PROGRAM);
    command
        .arg(SAID)
        .current_dir(cwd)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let first_byte = first_byte(child.stdout.take(), began).await;
    let status = child.wait().await.map_err(|error| error.to_string())?;
    let exit = began.elapsed();
    match (status.success(), first_byte) {
        (true, Some(first_byte)) => Ok(Sample {
            prepare: Duration::ZERO,
            first_byte,
            exit,
            swept: exit,
        }),
        _ => Err(format!("{PROGRAM} did not run: {status}")),
    }
}
