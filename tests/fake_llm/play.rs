//! Plays an element of the script to a client.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Stub;
use crate::answer::Answer;
use crate::connection::{Asked, Client, Framing};
use crate::format::Format;
use crate::script;

/// Longest wait at a gate.
const GATE: Duration = Duration::from_secs(60);
/// Between two looks at a gate.
const LOOK: Duration = Duration::from_millis(5);

/// Why an answer ended.
enum Ended {
    Complete,
    Failed,
    Refused,
    Dropped,
    Garbage,
    ErrorEvent,
    ClientGone,
    GateStayedShut,
    BadScript,
}

impl Ended {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
            Self::Garbage => "garbage",
            Self::ErrorEvent => "error_event",
            Self::ClientGone => "client_gone",
            Self::GateStayedShut => "gate_stayed_shut",
            Self::BadScript => "bad_script",
        }
    }
}

/// Whether its key is the one that is wanted.
pub(crate) fn is_let_in(stub: &Stub, asked: &Asked) -> bool {
    let Some(key) = &stub.key else { return true };
    let bearer = format!("Bearer {key}");
    asked.header("authorization") == Some(bearer.as_str())
        || asked.header("x-api-key") == Some(key)
        || asked.header("x-goog-api-key") == Some(key)
}

/// Answer a request and write it down.
pub(crate) fn answer(stub: &Stub, client: &mut Client, asked: &Asked, format: Format) {
    let n = stub.ledger.begin();
    let mut play = Play {
        client,
        format,
        framing: Framing::Chunked,
        fragment: None,
    };
    let (mut k, mut status, mut usage) = (0, 0, Value::Null);
    let ended = if !is_let_in(stub, asked) {
        status = 401;
        play.client.hold();
        let body = format.error(401, "Incorrect API key provided");
        play.client.whole(401, &[], &body.to_string());
        Ended::Refused
    } else {
        match script::turn(format.as_str(), &format.spoken(&asked.body), &stub.counts) {
            Err(fault) => {
                eprintln!("fake-llm: {fault}");
                status = 400;
                play.client.hold();
                let body = format.error(400, &fault);
                play.client.whole(400, &[], &body.to_string());
                Ended::BadScript
            }
            Ok(turn) => {
                k = turn.k;
                let model = format.model(asked);
                let answer = Answer::of(&turn.element, turn.k, &model);
                let ended = play.element(&turn.element, turn.nth, &answer, &mut status);
                if matches!(ended, Ok(Ended::Complete)) {
                    usage = answer.usage.map_or(Value::Null, |usage| usage.json());
                }
                ended.unwrap_or(Ended::ClientGone)
            }
        }
    };
    stub.ledger.end(json!({
        "n": n, "format": format.as_str(), "path": asked.path, "headers": asked.headers,
        "body": asked.body, "sent": asked.sent, "k": k, "status": status, "usage": usage, "ended": ended.as_str(),
    }));
    client.release();
}

struct Play<'a> {
    client: &'a mut Client,
    format: Format,
    framing: Framing,
    fragment: Option<usize>,
}

impl Play<'_> {
    fn element(
        &mut self,
        element: &Value,
        nth: usize,
        answer: &Answer,
        status: &mut u64,
    ) -> std::io::Result<Ended> {
        if let Some(fail) = element.get("fail")
            && (nth as u64) < fail["times"].as_u64().unwrap_or(1)
        {
            *status = fail["status"].as_u64().unwrap_or(500);
            self.fail(fail, *status);
            return Ok(Ended::Failed);
        }
        let fault = |name: &str, default: u64| {
            let times = element["times"].as_u64().unwrap_or(default);
            ((nth as u64) < times).then(|| element.get(name)).flatten()
        };
        let stall = fault("stall", u64::MAX).and_then(Value::as_str);
        let drop = fault("drop", 1).and_then(Value::as_str);
        if let Some(wait) = element["wait_ms"].as_u64()
            && self
                .client
                .is_gone_within(Some(Duration::from_millis(wait)))
        {
            return Ok(Ended::ClientGone);
        }
        if stall == Some("headers") {
            return Ok(self.stall());
        }
        if drop == Some("before_headers") {
            return Ok(Ended::Dropped);
        }
        if element["close_delimited"] == true {
            self.framing = Framing::CloseDelimited;
        }
        self.fragment = element["fragment"]
            .as_u64()
            .map(|n| usize::try_from(n).unwrap_or(1).max(1));
        *status = 200;
        self.client.head(self.format.content_type(), self.framing)?;
        if stall == Some("body") {
            return Ok(self.stall());
        }
        if drop == Some("headers") {
            return Ok(Ended::Dropped);
        }
        if let Some(garbage) = fault("garbage", u64::MAX)
            && *garbage != Value::Bool(false)
        {
            let html = "<html>\u{1F980} this is no answer\n\n{]\n\n";
            let body: Vec<u8> = match garbage {
                Value::Array(bytes) => bytes.iter().map(byte).collect(),
                other => other.as_str().unwrap_or(html).into(),
            };
            self.client.hold();
            self.bytes(&body)?;
            self.client.end(self.framing)?;
            return Ok(Ended::Garbage);
        }
        let frames = self.format.frames(answer);
        self.body(&frames.text)?;
        if stall == Some("after_text") {
            return Ok(self.stall());
        }
        if drop == Some("after_text") {
            return Ok(Ended::Dropped);
        }
        if let Some(error) = fault("error_event", u64::MAX) {
            self.client.hold();
            self.body(&[self.format.error_event(error)])?;
            self.client.end(self.framing)?;
            return Ok(Ended::ErrorEvent);
        }
        if let Some(gate) = element["gate"].as_str() {
            match self.gate(Path::new(gate)) {
                Ended::Complete => {}
                ended => return Ok(ended),
            }
        }
        self.body(&frames.calls)?;
        if stall == Some("after_calls") {
            return Ok(self.stall());
        }
        if drop == Some("before_end") {
            return Ok(Ended::Dropped);
        }
        self.client.hold();
        self.body(&frames.end)?;
        self.client.end(self.framing)?;
        Ok(Ended::Complete)
    }

    fn fail(&mut self, fail: &Value, status: u64) {
        let status = u16::try_from(status).unwrap_or(500);
        let body = match &fail["body"] {
            Value::Null => self.format.error(status, "scripted failure").to_string(),
            Value::String(text) => text.clone(),
            body => body.to_string(),
        };
        let mut headers: Vec<(String, String)> = Vec::new();
        self.client.hold();
        if let Some(after) = fail["retry_after"].as_str() {
            headers.push(("retry-after".to_owned(), after.to_owned()));
        }
        for (name, value) in fail["headers"].as_object().into_iter().flatten() {
            headers.push((name.clone(), value.as_str().unwrap_or_default().to_owned()));
        }
        self.client.whole(status, &headers, &body);
    }

    fn stall(&mut self) -> Ended {
        self.client.is_gone_within(None);
        Ended::ClientGone
    }

    fn gate(&mut self, path: &Path) -> Ended {
        let begun = Instant::now();
        while !path.exists() {
            if begun.elapsed() > GATE {
                return Ended::GateStayedShut;
            }
            if self.client.is_gone_within(Some(LOOK)) {
                return Ended::ClientGone;
            }
        }
        Ended::Complete
    }

    fn body(&mut self, frames: &[String]) -> std::io::Result<()> {
        match self.fragment {
            None => frames
                .iter()
                .try_for_each(|frame| self.client.piece(frame.as_bytes(), self.framing)),
            Some(_) => self.bytes(frames.concat().as_bytes()),
        }
    }

    fn bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        bytes
            .chunks(self.fragment.unwrap_or(usize::MAX))
            .try_for_each(|piece| self.client.piece(piece, self.framing))
    }
}

fn byte(value: &Value) -> u8 {
    value
        .as_u64()
        .and_then(|n| u8::try_from(n).ok())
        .unwrap_or(0)
}
