//! `dispatch bench`: arguments of the benchmark driver.

use std::path::PathBuf;
use std::time::Duration;

use crate::bench::agent::{self, Script};
use crate::bench::sandbox;
use crate::bench::{self, Measure};
use crate::blocking;
use crate::ops::OpError;
use crate::surface::cli::roles::BenchArgs;
use crate::surface::connect::ConnectArgs;

use super::{database, worker};

const USAGE: &str = "dispatch bench driver setup | enqueue N | enqueue1 N | drain N | latency COUNT MS \
                     (reads DATABASE_URL; prints RESULT key=value lines; use a database of its own) \
                     or: dispatch bench agent DELTAS BYTES [GATE-FILE] (an ACP agent on stdio) \
                     or: dispatch bench sandbox ROUNDS (start cost of each rung; no database)";

/// The role.
pub(super) async fn bench(connect: &ConnectArgs, args: BenchArgs) -> Result<(), OpError> {
    if let Some(script) = script(&args.args) {
        return blocking::run(move || {
            let (input, output) = (std::io::stdin().lock(), std::io::stdout().lock());
            agent::serve(&script, input, output)
        })
        .await
        .map_err(|error| OpError::internal(error.to_string()))?
        .map_err(|error| OpError::internal(format!("the scripted agent: {error}")));
    }
    if let Some(rounds) = rounds(&args.args) {
        return sandbox::run(rounds).await.map_err(OpError::internal);
    }
    let measure = parse(&args.args).ok_or_else(|| OpError::invalid(format!("usage: {USAGE}")))?;
    let url = database(connect).await?.url;
    bench::run(&url, measure)
        .await
        .map_err(worker::worker_error)
}

fn rounds(args: &[String]) -> Option<usize> {
    match args {
        [sandbox, rounds] if sandbox == "sandbox" => rounds.parse().ok().filter(|n| *n > 0),
        _ => None,
    }
}

fn script(args: &[String]) -> Option<Script> {
    let (deltas, bytes, gate) = match args {
        [agent, deltas, bytes] if agent == "agent" => (deltas, bytes, None),
        [agent, deltas, bytes, gate] if agent == "agent" => (deltas, bytes, Some(gate)),
        _ => return None,
    };
    Some(Script {
        deltas: deltas.parse().ok()?,
        delta_bytes: bytes.parse().ok()?,
        gate: gate.map(PathBuf::from),
    })
}

fn parse(args: &[String]) -> Option<Measure> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<i64>().ok().filter(|n| *n > 0);
    match words.as_slice() {
        ["driver", "setup"] => Some(Measure::Setup),
        ["driver", "enqueue", n] => Some(Measure::Enqueue(number(n)?)),
        ["driver", "enqueue1", n] => Some(Measure::EnqueueSingly(number(n)?)),
        ["driver", "drain", n] => Some(Measure::Drain(number(n)?)),
        ["driver", "latency", n, ms] => Some(Measure::Latency {
            count: number(n)?,
            every: Duration::from_millis(number(ms)?.unsigned_abs()),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_are_read_as_the_usage_says() {
        let args = |text: &str| parse(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(args("driver drain 5"), Some(Measure::Drain(5)));
        let every = Duration::from_millis(30);
        assert_eq!(
            args("driver latency 10 30"),
            Some(Measure::Latency { count: 10, every })
        );
        assert_eq!(script(&["agent".to_owned()]), None);
        assert_eq!(args("driver drain"), None);
        assert_eq!(args("driver drain -1"), None);
    }
}
